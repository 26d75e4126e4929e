//! Argon2id in the PHC string format: how much memory and time a hash takes, and where the memory goes.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq;

/// Bytes of a salt.
pub(super) const SALT_BYTES: usize = 16;

/// Least memory that OWASP's table knows,
pub(super) const MEMORY_BYTES_MIN: u64 = 7 << 20;
/// and what nobody would wait for.
pub(super) const MEMORY_BYTES_MAX: u64 = 1 << 30;

const HASH_BYTES: usize = Params::DEFAULT_OUTPUT_LEN;

/// glibc gives back to the kernel at once only what it took from it for one allocation alone, and above
/// 32 MiB it always does so. Less stays with the thread that freed it: 512 sign-ins on the runtime's
/// threads, two at a time with 19 MiB each, left 1.6 GiB behind. What is reserved and not touched costs
/// nothing.
const RESERVED_BYTES_MIN: usize = 33 << 20;

/// As many passes as OWASP asks for with so much memory: what is spared in space is paid in time.
pub(super) fn params_within(memory_bytes: u64) -> Option<Params> {
    let mib = memory_bytes >> 20;
    let passes = match mib {
        46.. => 1,
        19.. => 2,
        12.. => 3,
        9.. => 4,
        _ => 5,
    };
    let kib = u32::try_from(memory_bytes >> 10).ok()?;
    Params::new(kib, passes, 1, None).ok()
}

/// Hashes a password; `None` if there is no memory for it.
pub(super) fn hash(params: &Params, password: &str, salt: &[u8; SALT_BYTES]) -> Option<String> {
    let mut output = [0; HASH_BYTES];
    fill(params, password, salt, &mut output)?;
    Some(phc(params, salt, &output))
}

/// A hash that no password has, in the form of one; hashing something would slow down every start.
pub(super) fn of_nobody(params: &Params, random: &[u8; HASH_BYTES]) -> String {
    let (salt, _) = random.split_at(SALT_BYTES);
    phc(params, salt, random)
}

/// Whether the password has this hash. Constant time in the password.
pub(super) fn fits(phc: &str, password: &str) -> bool {
    let kept = PasswordHash::new(phc).ok();
    let parts = kept.as_ref().and_then(|kept| {
        let is_argon2id = kept.algorithm == Algorithm::Argon2id.ident();
        let params = Params::try_from(kept).ok().filter(|_| is_argon2id)?;
        Some((params, kept.salt.as_ref()?, kept.hash.as_ref()?))
    });
    let Some((params, salt, expected)) = parts else {
        tracing::error!("a stored password hash cannot be read: the password is refused");
        return false;
    };
    let mut output = vec![0; expected.as_bytes().len()];
    let filled = fill(&params, password, salt, &mut output);
    filled.is_some() && bool::from(output.ct_eq(expected.as_bytes()))
}

/// Memory of a hash in KiB; `None` if it cannot be read.
pub(super) fn memory_kib(phc: &str) -> Option<u32> {
    let hash = PasswordHash::new(phc).ok()?;
    Some(Params::try_from(&hash).ok()?.m_cost())
}

fn fill(params: &Params, password: &str, salt: &[u8], output: &mut [u8]) -> Option<()> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let memory = memory(params.block_count())?;
    let hashed = argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, memory);
    let failed = |error| tracing::error!(%error, "a password could not be hashed");
    hashed.map_err(failed).ok()
}

fn memory(blocks: usize) -> Option<Vec<Block>> {
    let mut memory = Vec::new();
    let reserved = blocks.max(RESERVED_BYTES_MIN.div_ceil(Block::SIZE));
    if let Err(error) = memory.try_reserve_exact(reserved) {
        tracing::error!(%error, "no memory to hash a password in");
        return None;
    }
    memory.resize(blocks, Block::new());
    Some(memory)
}

fn phc(params: &Params, salt: &[u8], output: &[u8]) -> String {
    format!(
        "$argon2id$v=19$m={},t={},p={}${}${}",
        params.m_cost(),
        params.t_cost(),
        params.p_cost(),
        STANDARD_NO_PAD.encode(salt),
        STANDARD_NO_PAD.encode(output)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use argon2::{PasswordHasher, PasswordVerifier};

    use super::*;

    #[test]
    fn a_hash_is_what_the_librarys_own_interface_makes_and_takes() {
        let params = params_within(MEMORY_BYTES_MIN).unwrap();
        let made = hash(&params, "pencil", b"0123456789abcdef").unwrap();
        let library = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        let theirs = library.hash_password_with_salt(b"pencil", b"0123456789abcdef");
        assert_eq!(made, theirs.unwrap().to_string());
        let parsed = PasswordHash::new(&made).unwrap();
        assert!(library.verify_password(b"pencil", &parsed).is_ok());
        assert!(fits(&made, "pencil") && !fits(&made, "Pencil"));
    }

    #[test]
    fn what_is_no_hash_of_argon2id_fits_nothing() {
        let params = params_within(MEMORY_BYTES_MIN).unwrap();
        let nobody = of_nobody(&params, &[1; 32]);
        assert_eq!(memory_kib(&nobody), Some(7 * 1024));
        assert!(!fits(&nobody, "pencil"));
        let made = hash(&params, "pencil", b"0123456789abcdef").unwrap();
        let weaker = made.replace("$argon2id$", "$argon2i$");
        for damaged in [weaker.as_str(), "", "pencil", "$argon2id$v=19$m=8,t=1,p=1"] {
            assert!(!fits(damaged, "pencil"), "{damaged}");
        }
        assert_eq!(memory_kib("damaged"), None);
    }

    #[test]
    fn passes_follow_memory_as_owasp_asks() {
        let table = [(7, 5), (9, 4), (12, 3), (19, 2), (46, 1), (64, 1)];
        for (mib, passes) in table {
            let params = params_within(mib << 20).unwrap();
            let expected = (u32::try_from(mib).unwrap() * 1024, passes);
            assert_eq!((params.m_cost(), params.t_cost()), expected);
        }
    }

    #[test]
    fn memory_is_the_kernels_own_to_take_back() {
        let memory = memory(7 * 1024).unwrap();
        assert_eq!(memory.len(), 7 * 1024);
        assert!(memory.capacity() * Block::SIZE > 32 << 20);
    }
}

//! Passwords presented in the clear (SASL PLAIN, MQTT, HTTP): hashed, and checked at bounded cost.
//!
//! A password is kept as Argon2id, which is meant to take milliseconds and megabytes. Ten thousand
//! devices that come back at once would wait minutes for it, so a password that *fits* is recognised
//! in one of two cheaper ways:
//!
//! - by the user's SCRAM verifier, where there is one. That takes PBKDF2 with the verifier's iterations
//!   and weakens nothing: the verifier lies on the disk beside the Argon2id hash, and whoever steals one
//!   steals the other, and will try the cheaper. (A user without SCRAM is kept by Argon2id alone.)
//! - by an HMAC, under a key that this process made and never writes down, of the last password that
//!   fitted. It covers the credential's fingerprint, so that it ends when the user changes; what it adds
//!   for whoever can read the process's memory is passwords that were there a moment ago.
//!
//! A password that does *not* fit always takes one PBKDF2 and one Argon2id, also for a user without a
//! password and for one who does not exist: the time of a refusal tells nothing.
//!
//! Both run on the runtime's blocking threads: Argon2id `password_hashes_at_once` at a time, each in
//! `password_hash_memory_bytes`, with [`ARGON2_WAITING_MAX`] more waiting; PBKDF2 one per core, with
//! [`PBKDF2_WAITING_MAX`] more waiting. Beyond that the answer is [`NotChecked::Busy`]. Whose address
//! has failed too often while it waited is turned away unheard. At most [`REMEMBERED_MAX`] passwords
//! are remembered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::Params;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::sync::Semaphore;

use super::argon2id::{self, params_within};
use super::scram::{SALT_BYTES, ScramCredential, ScramMechanism};
use super::throttle::Attempt;
use super::users::{PASSWORD_BYTES_MAX, User, fingerprint};
use super::{AuthConfig, AuthError, random_bytes};

/// Argon2id checks that may wait. At 20 to 40 ms each on two threads this is 3 to 5 s; the doors give a
/// client 10 s to sign in.
pub const ARGON2_WAITING_MAX: usize = 256;
/// PBKDF2 checks that may wait.
pub const PBKDF2_WAITING_MAX: usize = 16_384;
/// Passwords remembered, one a user, about 120 bytes each.
pub const REMEMBERED_MAX: usize = 32_768;

/// Why a password was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotChecked {
    /// Too many wait.
    Busy,
    /// The address failed too often; seconds to wait.
    TurnedAway(u64),
}

/// A password as it is to be kept.
pub(super) struct Kept {
    pub(super) phc: String,
    /// Empty where SCRAM is off.
    pub(super) scram: Vec<ScramCredential>,
}

pub(super) struct Passwords {
    params: Params,
    iterations: u32,
    argon2: Gate,
    pbkdf2: Gate,
    /// Stands in for what a user does not have.
    nobody: Nobody,
    remembered: Remembered,
}

struct Nobody {
    phc: String,
    scram: ScramCredential,
}

impl Passwords {
    pub(super) fn new(config: &AuthConfig) -> Result<Passwords, AuthError> {
        let memory = config.password_hash_memory_bytes;
        let params = params_within(memory).ok_or(AuthError::Hashing)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let made_up: [u8; 32] = random_bytes()?;
        let iterations = config.scram_iterations;
        let nobody = Nobody {
            phc: argon2id::of_nobody(&params, &made_up),
            scram: ScramCredential::made_up(ScramMechanism::Sha256, "", &made_up, iterations),
        };
        Ok(Passwords {
            params,
            iterations,
            argon2: Gate::new(config.password_hashes_at_once, ARGON2_WAITING_MAX),
            pbkdf2: Gate::new(cores, PBKDF2_WAITING_MAX),
            nobody,
            remembered: Remembered::new(random_bytes()?, REMEMBERED_MAX),
        })
    }

    /// The fingerprint of the credential that the password fits; `None`, and counted as a failure of
    /// the attempt, if it fits none.
    pub(super) async fn check(
        &self,
        name: &str,
        user: Option<&User>,
        password: &str,
        attempt: &Attempt,
    ) -> Result<Option<String>, NotChecked> {
        if password.len() > PASSWORD_BYTES_MAX {
            attempt.failed();
            return Ok(None);
        }
        let fingerprints = user.map(fingerprints_of).unwrap_or_default();
        if let Some(known) = self.remembered.find(name, &fingerprints, password) {
            return Ok(Some(known));
        }
        let mut found = self.check_verifiers(user, password, attempt).await?;
        if found.is_none() {
            found = self.check_hash(user, password, attempt).await?;
        }
        if let Some(fingerprint) = &found {
            self.remembered.keep(name, fingerprint, password);
        }
        Ok(found)
    }

    async fn check_verifiers(
        &self,
        user: Option<&User>,
        password: &str,
        attempt: &Attempt,
    ) -> Result<Option<String>, NotChecked> {
        let kept = user.map(|user| user.scram.as_slice()).unwrap_or_default();
        let hash = user.and_then(User::password_fingerprint);
        let verifiers = match (kept, &hash) {
            ([], _) => std::slice::from_ref(&self.nobody.scram),
            // Made together with the hash, of one password: the first stands for all.
            ([first, ..], Some(_)) => std::slice::from_ref(first),
            (all, None) => all,
        };
        let (verifiers, password) = (verifiers.to_vec(), password.to_owned());
        let (judged, open) = (attempt.clone(), is_open(user));
        let work = move || {
            let found = verifiers.into_iter().find(|one| one.is_of(&password));
            // Counted before the next one's turn comes, and not only when the dummy hash is done:
            // nobody guesses faster than they may.
            if found.is_none() && !open {
                judged.failed();
            }
            found
        };
        let found = self.pbkdf2.run(1, || attempt.check(), work).await?;
        Ok(found.map(|one| hash.unwrap_or_else(|| fingerprint(one.stored_key()))))
    }

    async fn check_hash(
        &self,
        user: Option<&User>,
        password: &str,
        attempt: &Attempt,
    ) -> Result<Option<String>, NotChecked> {
        let open = is_open(user);
        let kept = user.and_then(|user| user.password.as_deref());
        let phc = kept.unwrap_or(&self.nobody.phc).to_owned();
        let (password, judged) = (password.to_owned(), attempt.clone());
        let places = self.places_for(&phc);
        let work = move || {
            let fits = argon2id::fits(&phc, &password);
            if open && !fits {
                judged.failed();
            }
            fits
        };
        let admitted = || if open { attempt.check() } else { Ok(()) };
        let fits = self.argon2.run(places, admitted, work).await?;
        Ok(user.filter(|_| fits).and_then(User::password_fingerprint))
    }

    /// Hashes a password that is to be kept.
    pub(super) async fn keep(&self, password: &str, scram: bool) -> Result<Kept, AuthError> {
        let salt = random_bytes()?;
        let (params, own) = (self.params.clone(), password.to_owned());
        let hash = move || argon2id::hash(&params, &own, &salt);
        let hashed = self.argon2.run(1, || Ok(()), hash).await;
        let phc = hashed.map_err(|_| AuthError::Busy)?;
        let phc = phc.ok_or(AuthError::Hashing)?;
        let mut verifiers = Vec::new();
        for mechanism in ScramMechanism::ALL.into_iter().filter(|_| scram) {
            let salt: [u8; SALT_BYTES] = random_bytes()?;
            let (own, iterations) = (password.to_owned(), self.iterations);
            let make = move || ScramCredential::of_password(mechanism, &own, &salt, iterations);
            let made = self.pbkdf2.run(1, || Ok(()), make).await;
            verifiers.push(made.map_err(|_| AuthError::Busy)??);
        }
        Ok(Kept {
            phc,
            scram: verifiers,
        })
    }

    /// A hash made when the configuration allowed more memory takes the places of several.
    fn places_for(&self, phc: &str) -> u32 {
        let own = argon2id::memory_kib(phc).unwrap_or(1);
        own.div_ceil(self.params.m_cost())
    }
}

/// Whether a password may still fit that no verifier knows: only the hash can say so of a user who
/// has no verifiers.
fn is_open(user: Option<&User>) -> bool {
    user.is_some_and(|user| user.password.is_some() && user.scram.is_empty())
}

/// Of everything that a password of this user may fit.
fn fingerprints_of(user: &User) -> Vec<String> {
    match user.password_fingerprint() {
        Some(hash) => vec![hash],
        None => {
            let verifiers = user.scram.iter();
            verifiers.map(|one| fingerprint(one.stored_key())).collect()
        }
    }
}

/// So many at work on blocking threads, and so many who wait for that.
struct Gate {
    places: Arc<Semaphore>,
    places_max: u32,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Gate {
    fn new(places: usize, waiting_max: usize) -> Gate {
        let places = u32::try_from(places.clamp(1, 1024)).unwrap_or(1);
        Gate {
            places: Arc::new(Semaphore::new(places as usize)),
            places_max: places,
            waiting: AtomicUsize::new(0),
            waiting_max,
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        places: u32,
        admitted: impl FnOnce() -> Result<(), u64>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NotChecked> {
        let places = places.clamp(1, self.places_max);
        let permit = match Arc::clone(&self.places).try_acquire_many_owned(places) {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = Waiting::join(self)?;
                let waited = Arc::clone(&self.places).acquire_many_owned(places).await;
                waited.map_err(|_| NotChecked::Busy)?
            }
        };
        admitted().map_err(NotChecked::TurnedAway)?;
        let work = move || {
            // Whoever waits for it may be gone before it ends.
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            tracing::error!(%error, "a password check did not finish");
            NotChecked::Busy
        })
    }
}

/// A place in the queue; given back when dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn join(gate: &Gate) -> Result<Waiting<'_>, NotChecked> {
        let one_more = |n: usize| (n < gate.waiting_max).then_some(n + 1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let joined = gate.waiting.fetch_update(set, get, one_more);
        let waiting = joined.map(|_| Waiting(&gate.waiting));
        waiting.map_err(|_| NotChecked::Busy)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The last password of each user that fitted, as an HMAC. Two generations: when the younger one has
/// half of the places it becomes the older one, and what was not used since is forgotten.
struct Remembered {
    key: [u8; 32],
    generation_max: usize,
    generations: Mutex<[HashMap<String, [u8; 32]>; 2]>,
}

impl Remembered {
    fn new(key: [u8; 32], places_max: usize) -> Remembered {
        Remembered {
            key,
            generation_max: (places_max / 2).max(1),
            generations: Mutex::default(),
        }
    }

    fn find(&self, name: &str, fingerprints: &[String], password: &str) -> Option<String> {
        let tag = {
            let mut generations = self.lock();
            let [young, old] = &mut *generations;
            match young.get(name) {
                Some(tag) => *tag,
                None => *old.get(name)?,
            }
        };
        let mut fingerprints = fingerprints.iter();
        let found = fingerprints.find(|fingerprint| {
            let mac = self.mac(name, fingerprint, password);
            mac.is_some_and(|mac| mac.verify_slice(&tag).is_ok())
        })?;
        self.put(name, tag);
        Some(found.clone())
    }

    fn keep(&self, name: &str, fingerprint: &str, password: &str) {
        if let Some(mac) = self.mac(name, fingerprint, password) {
            self.put(name, mac.finalize().into_bytes().into());
        }
    }

    fn put(&self, name: &str, tag: [u8; 32]) {
        let mut generations = self.lock();
        let [young, old] = &mut *generations;
        if young.len() >= self.generation_max && !young.contains_key(name) {
            *old = std::mem::take(young);
        }
        young.insert(name.to_owned(), tag);
    }

    /// Name and fingerprint hold no NUL.
    fn mac(&self, name: &str, fingerprint: &str, password: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        for part in [name, fingerprint] {
            mac.update(part.as_bytes());
            mac.update(&[0]);
        }
        mac.update(password.as_bytes());
        Some(mac)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [HashMap<String, [u8; 32]>; 2]> {
        let generations = self.generations.lock();
        generations.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc;

    use super::super::throttle::Throttle;
    use super::*;

    const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn attempt(failures_max: u32) -> Attempt {
        Attempt::new(&Arc::new(Mutex::new(Throttle::new(failures_max, 60))), FROM)
    }

    fn passwords() -> Passwords {
        Passwords::new(&AuthConfig {
            password_hash_memory_bytes: argon2id::MEMORY_BYTES_MIN,
            scram_iterations: 4096,
            ..AuthConfig::default()
        })
        .unwrap()
    }

    async fn user(passwords: &Passwords, password: &str, scram: bool) -> User {
        let kept = passwords.keep(password, scram).await.unwrap();
        User {
            password: Some(kept.phc),
            scram: kept.scram,
            ..User::default()
        }
    }

    #[tokio::test]
    async fn a_password_is_recognised_by_hash_verifier_and_memory_alike() {
        let passwords = passwords();
        for scram in [true, false] {
            let user = user(&passwords, "pencil", scram).await;
            assert_eq!(user.scram.len(), if scram { 2 } else { 0 });
            let fingerprint = user.password_fingerprint();
            let name = format!("user-{scram}");
            let attempt = attempt(u32::MAX);
            let known = || passwords.remembered.lock()[0].contains_key(&name);
            let check = async |password: &str| {
                let checked = passwords
                    .check(&name, Some(&user), password, &attempt)
                    .await;
                checked.unwrap()
            };
            assert_eq!(check("Pencil").await, None);
            assert!(!known());
            assert_eq!(check("pencil").await, fingerprint);
            assert!(known());
            assert_eq!(check("pencil").await, fingerprint);
            assert_eq!(check("Pencil").await, None);
            assert_eq!(check(&"x".repeat(PASSWORD_BYTES_MAX + 1)).await, None);
        }
        let attempt = attempt(u32::MAX);
        let without = User::default();
        for user in [None, Some(&without)] {
            assert_eq!(
                passwords.check("a", user, "pencil", &attempt).await,
                Ok(None)
            );
        }
    }

    #[tokio::test]
    async fn what_was_remembered_of_a_user_ends_with_a_new_password() {
        let passwords = passwords();
        let attempt = attempt(u32::MAX);
        let old = user(&passwords, "pencil", true).await;
        let fits = passwords.check("a", Some(&old), "pencil", &attempt).await;
        assert!(fits.unwrap().is_some());
        // The same password again has another salt, hence another hash and fingerprint.
        let new = user(&passwords, "pencil", true).await;
        let fingerprints = fingerprints_of(&new);
        assert_eq!(
            passwords.remembered.find("a", &fingerprints, "pencil"),
            None
        );
        let other = user(&passwords, "brush", true).await;
        let fits = passwords.check("a", Some(&other), "pencil", &attempt).await;
        assert_eq!(fits, Ok(None));
    }

    #[tokio::test]
    async fn verifiers_made_elsewhere_are_each_tried() {
        let passwords = passwords();
        let verifier = |mechanism, password| {
            ScramCredential::of_password(mechanism, password, b"0123456789abcdef", 4096).unwrap()
        };
        let mut user = User::default();
        user.put_scram(verifier(ScramMechanism::Sha256, "one"));
        user.put_scram(verifier(ScramMechanism::Sha512, "two"));
        let attempt = attempt(u32::MAX);
        let mut found = Vec::new();
        for password in ["one", "two", "three", "one"] {
            let fits = passwords
                .check("a", Some(&user), password, &attempt)
                .await
                .unwrap();
            found.push(fits.is_some_and(|fingerprint| user.has_credential(&fingerprint, 0)));
        }
        assert_eq!(found, [true, true, false, true]);
    }

    #[tokio::test]
    async fn wrong_passwords_are_turned_away_before_their_turn_and_right_ones_count_for_nothing() {
        let passwords = passwords();
        let attempt = attempt(3);
        for scram in [true, false] {
            let user = user(&passwords, "pencil", scram).await;
            let right = (0..20).map(|n| {
                let (passwords, user, attempt) = (&passwords, &user, &attempt);
                async move {
                    let name = format!("{scram}-{n}");
                    passwords.check(&name, Some(user), "pencil", attempt).await
                }
            });
            let right = futures_util::future::join_all(right).await;
            assert!(right.iter().all(|checked| matches!(checked, Ok(Some(_)))));
        }
        let wrong = (0..200).map(|_| passwords.check("nobody", None, "pencil", &attempt));
        let wrong = futures_util::future::join_all(wrong).await;
        let heard = wrong.iter().filter(|checked| **checked == Ok(None)).count();
        let at_once = passwords.pbkdf2.places_max as usize;
        assert!((3..=3 + at_once).contains(&heard), "{heard} were heard");
        let away = |checked: &&Result<_, _>| matches!(checked, Err(NotChecked::TurnedAway(_)));
        assert_eq!(wrong.iter().filter(away).count(), wrong.len() - heard);
    }

    #[test]
    fn a_hash_of_more_memory_takes_the_places_of_several() {
        let passwords = passwords();
        let phc = |mib: u64| argon2id::of_nobody(&params_within(mib << 20).unwrap(), &[1; 32]);
        assert_eq!(passwords.places_for(&phc(7)), 1);
        assert_eq!(passwords.places_for(&phc(19)), 3);
        assert_eq!(passwords.places_for("damaged"), 1);
    }

    #[tokio::test]
    async fn a_full_queue_is_an_answer_and_not_a_wait() {
        let gate = Gate::new(1, 1);
        let (let_go, held) = mpsc::channel::<()>();
        let first = gate.run(1, || Ok(()), move || held.recv().is_err());
        let second = gate.run(9, || Err(7), || true);
        tokio::pin!(first, second);
        assert!(futures_util::poll!(&mut first).is_pending());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!(gate.run(1, || Ok(()), || ()).await, Err(NotChecked::Busy));
        drop(let_go);
        assert_eq!(first.await, Ok(true));
        assert_eq!(second.await, Err(NotChecked::TurnedAway(7)));
        assert_eq!(gate.run(1, || Ok(()), || ()).await, Ok(()));
    }

    #[test]
    fn what_is_remembered_never_outgrows_its_limit_and_keeps_what_is_used() {
        let remembered = Remembered::new([1; 32], 8);
        let fingerprints = ["f".to_owned()];
        for n in 0..100 {
            remembered.keep(&format!("user-{n}"), "f", "p");
            assert!(
                remembered.find("user-0", &fingerprints, "p").is_some(),
                "{n}"
            );
            let generations = remembered.lock();
            assert!(generations.iter().map(HashMap::len).sum::<usize>() <= 8);
        }
        assert_eq!(remembered.find("user-1", &fingerprints, "p"), None);
        assert_eq!(remembered.find("user-0", &["g".to_owned()], "p"), None);
        assert_eq!(remembered.find("user-0", &fingerprints, "q"), None);
    }
}

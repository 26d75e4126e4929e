//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677): verifiers, and the server's side of the exchange.
//!
//! A pure state machine: messages in, messages out; the user's verifier and the server's nonce are
//! passed in. Whoever runs it looks the user up between [`ClientFirst::parse`] and
//! [`ClientFirst::answer`], and passes a verifier made up by [`ScramCredential::made_up`] where there is
//! no such user, so that only the last message fails, and nothing before it tells the two apart.
//!
//! Channel binding is not offered: `n` and `y` are accepted, `p` is refused. Kafka's extension
//! `tokenauth=true` (delegation tokens) is refused in words; other extensions are passed over.
//! Limits: [`MESSAGE_BYTES_MAX`], [`ITERATIONS_MIN`] to [`ITERATIONS_MAX`] (Kafka's).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// Longest message of a client, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 4096;
/// Kafka takes no fewer,
pub const ITERATIONS_MIN: u32 = 4096;
/// and no more: a client could be made to compute for ever.
pub const ITERATIONS_MAX: u32 = 16_384;
/// Bytes of a salt, at most; it travels in every exchange.
pub const SALT_BYTES_MAX: usize = 256;
/// Bytes of the salts that this node makes, and of its nonces.
pub(super) const SALT_BYTES: usize = 24;

/// The hash function of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScramMechanism {
    Sha256,
    Sha512,
}

impl ScramMechanism {
    /// In the order in which a presented password is checked: SHA-256 is what processors are quick at.
    pub const ALL: [ScramMechanism; 2] = [ScramMechanism::Sha256, ScramMechanism::Sha512];

    /// As SASL and Kafka name it.
    pub fn name(self) -> &'static str {
        match self {
            ScramMechanism::Sha256 => "SCRAM-SHA-256",
            ScramMechanism::Sha512 => "SCRAM-SHA-512",
        }
    }

    pub fn from_name(name: &str) -> Option<ScramMechanism> {
        ScramMechanism::ALL.into_iter().find(|m| m.name() == name)
    }

    /// Bytes of the hash, and so of every key.
    pub fn hash_bytes(self) -> usize {
        match self {
            ScramMechanism::Sha256 => 32,
            ScramMechanism::Sha512 => 64,
        }
    }

    pub(crate) fn hash(self, data: &[u8]) -> Vec<u8> {
        match self {
            ScramMechanism::Sha256 => Sha256::digest(data).to_vec(),
            ScramMechanism::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            ScramMechanism::Sha256 => mac::<Hmac<Sha256>>(key, data),
            ScramMechanism::Sha512 => mac::<Hmac<Sha512>>(key, data),
        }
    }

    pub(crate) fn salted_password(self, password: &str, salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut salted = vec![0; self.hash_bytes()];
        let password = password.as_bytes();
        match self {
            ScramMechanism::Sha256 => {
                pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut salted);
            }
            ScramMechanism::Sha512 => {
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut salted);
            }
        }
        salted
    }
}

impl fmt::Display for ScramMechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    M::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mac| mac.chain_update(data).finalize().into_bytes().to_vec(),
    )
}

/// Why a verifier cannot be; Kafka answers each with UNACCEPTABLE_CREDENTIAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialError {
    #[error("{0} iterations: at least {ITERATIONS_MIN} are needed")]
    TooFewIterations(u32),
    #[error("{0} iterations: at most {ITERATIONS_MAX} are possible")]
    TooManyIterations(u32),
    #[error("the salt is empty")]
    EmptySalt,
    #[error("a salt of {0} bytes: at most {SALT_BYTES_MAX} are possible")]
    LongSalt(usize),
    #[error("a key of {bytes} bytes where {mechanism} has {}", mechanism.hash_bytes())]
    KeyLength {
        mechanism: ScramMechanism,
        bytes: usize,
    },
}

/// What the node keeps to check a password by SCRAM: enough to recognise it, not to sign in with it.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramCredential {
    mechanism: ScramMechanism,
    salt: Vec<u8>,
    iterations: u32,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl ScramCredential {
    /// The verifier of a password; computes for milliseconds.
    pub fn of_password(
        mechanism: ScramMechanism,
        password: &str,
        salt: &[u8],
        iterations: u32,
    ) -> Result<ScramCredential, CredentialError> {
        check(salt, iterations)?;
        let salted = mechanism.salted_password(password, salt, iterations);
        ScramCredential::of_salted_password(mechanism, &salted, salt, iterations)
    }

    /// The same where somebody else has hashed the password (Kafka's AlterUserScramCredentials).
    pub fn of_salted_password(
        mechanism: ScramMechanism,
        salted: &[u8],
        salt: &[u8],
        iterations: u32,
    ) -> Result<ScramCredential, CredentialError> {
        key_fits(mechanism, salted)?;
        let client_key = mechanism.hmac(salted, b"Client Key");
        let stored_key = mechanism.hash(&client_key);
        let server_key = mechanism.hmac(salted, b"Server Key");
        ScramCredential::of_keys(mechanism, salt, iterations, stored_key, server_key)
    }

    /// A verifier that was kept.
    pub(super) fn of_keys(
        mechanism: ScramMechanism,
        salt: &[u8],
        iterations: u32,
        stored_key: Vec<u8>,
        server_key: Vec<u8>,
    ) -> Result<ScramCredential, CredentialError> {
        check(salt, iterations)?;
        key_fits(mechanism, &stored_key)?;
        key_fits(mechanism, &server_key)?;
        Ok(ScramCredential {
            mechanism,
            salt: salt.to_vec(),
            iterations,
            stored_key,
            server_key,
        })
    }

    /// For a name that no user has: always the same salt for the same name and secret, and keys that
    /// no password has.
    pub(super) fn made_up(
        mechanism: ScramMechanism,
        name: &str,
        secret: &[u8],
        iterations: u32,
    ) -> ScramCredential {
        let derive = |what: &str| {
            let message = [mechanism.name(), what, name].join("\0");
            mechanism.hmac(secret, message.as_bytes())
        };
        let mut salt = derive("salt");
        salt.truncate(SALT_BYTES);
        ScramCredential {
            mechanism,
            salt,
            iterations,
            stored_key: derive("stored key"),
            server_key: derive("server key"),
        }
    }

    pub fn mechanism(&self) -> ScramMechanism {
        self.mechanism
    }

    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    pub(super) fn salt(&self) -> &[u8] {
        &self.salt
    }

    pub(super) fn stored_key(&self) -> &[u8] {
        &self.stored_key
    }

    pub(super) fn server_key(&self) -> &[u8] {
        &self.server_key
    }

    /// Whether this is the password, presented in the clear (over PLAIN, MQTT or HTTP). As many
    /// iterations as the verifier has, constant time in the password.
    pub(super) fn is_of(&self, password: &str) -> bool {
        let mechanism = self.mechanism;
        let salted = mechanism.salted_password(password, &self.salt, self.iterations);
        let client_key = mechanism.hmac(&salted, b"Client Key");
        bool::from(mechanism.hash(&client_key).ct_eq(&self.stored_key))
    }
}

/// Never the keys.
impl fmt::Debug for ScramCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramCredential")
            .field("mechanism", &self.mechanism)
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

fn check(salt: &[u8], iterations: u32) -> Result<(), CredentialError> {
    match (iterations, salt.len()) {
        (..ITERATIONS_MIN, _) => Err(CredentialError::TooFewIterations(iterations)),
        (_, 0) => Err(CredentialError::EmptySalt),
        (_, bytes) if bytes > SALT_BYTES_MAX => Err(CredentialError::LongSalt(bytes)),
        _ if iterations > ITERATIONS_MAX => Err(CredentialError::TooManyIterations(iterations)),
        _ => Ok(()),
    }
}

fn key_fits(mechanism: ScramMechanism, key: &[u8]) -> Result<(), CredentialError> {
    match key.len() == mechanism.hash_bytes() {
        true => Ok(()),
        false => Err(CredentialError::KeyLength {
            mechanism,
            bytes: key.len(),
        }),
    }
}

/// Why an exchange ended without success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScramError {
    #[error("a SCRAM message of {0} bytes: at most {MESSAGE_BYTES_MAX} are possible")]
    TooLong(usize),
    #[error("not a SCRAM message: {0}")]
    Malformed(&'static str),
    #[error("channel binding is asked for, and not offered")]
    ChannelBinding,
    #[error("delegation tokens (tokenauth=true) are not supported")]
    DelegationToken,
    #[error("an extension is demanded (m=) that is not known")]
    MandatoryExtension,
    #[error("the authorization id differs from the user name")]
    AuthorizationId,
    #[error("the user name holds characters that no name may have (SASLprep)")]
    Name,
    /// The same for an unknown user, a user without this mechanism and a wrong password.
    #[error("unknown user or wrong password")]
    Refused,
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    name: String,
    nonce: String,
    gs2_header: String,
    bare: String,
}

impl ClientFirst {
    pub fn parse(message: &[u8]) -> Result<ClientFirst, ScramError> {
        let message = text(message)?;
        let malformed = ScramError::Malformed;
        let mut parts = message.splitn(3, ',');
        let (Some(binding), Some(authorization), Some(bare)) =
            (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("no GS2 header"));
        };
        match binding {
            "n" | "y" => {}
            _ if binding.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(malformed("an unknown channel binding flag")),
        }
        let authorization = match authorization {
            "" => None,
            given => {
                let id = given.strip_prefix("a=");
                Some(unescape(id.ok_or(malformed("no authorization id"))?)?)
            }
        };
        let mut fields = bare.split(',');
        let first = fields.next().unwrap_or_default();
        if first.starts_with("m=") {
            return Err(ScramError::MandatoryExtension);
        }
        let name = first.strip_prefix("n=").ok_or(malformed("no user name"))?;
        let name = unescape(name)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| is_nonce(nonce));
        let nonce = nonce.ok_or(malformed("no nonce"))?.to_owned();
        if fields.any(|extension| extension.eq_ignore_ascii_case("tokenauth=true")) {
            return Err(ScramError::DelegationToken);
        }
        if authorization.is_some_and(|id| id != name) {
            return Err(ScramError::AuthorizationId);
        }
        let gs2_header = message.strip_suffix(bare).unwrap_or_default().to_owned();
        Ok(ClientFirst {
            name: prepared(&name).ok_or(ScramError::Name)?,
            nonce,
            gs2_header,
            bare: bare.to_owned(),
        })
    }

    /// The user's name, unescaped and prepared.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server's first message, and what waits for the client's answer to it. `random` must never
    /// come twice.
    pub fn answer(
        self,
        credential: ScramCredential,
        random: &[u8; SALT_BYTES],
    ) -> (ServerFirst, String) {
        let nonce = self.nonce + &STANDARD.encode(random);
        let salt = STANDARD.encode(&credential.salt);
        let server_first = format!("r={nonce},s={salt},i={}", credential.iterations);
        let waiting = ServerFirst {
            channel_binding: STANDARD.encode(&self.gs2_header),
            auth_message: format!("{},{server_first},", self.bare),
            nonce,
            credential,
        };
        (waiting, server_first)
    }
}

/// After the server's first message: waits for the client's proof.
#[derive(Debug)]
pub struct ServerFirst {
    credential: ScramCredential,
    nonce: String,
    /// What the client must repeat of its own first message.
    channel_binding: String,
    /// Both first messages; the client's last without its proof is still to come.
    auth_message: String,
}

impl ServerFirst {
    /// Judges the client's last message; the server's last one, which proves that it knows the user.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let message = text(message)?;
        let malformed = ScramError::Malformed;
        let (without_proof, proof) = message.rsplit_once(",p=").ok_or(malformed("no proof"))?;
        let mut fields = without_proof.split(',');
        let channel_binding = fields.next().and_then(|field| field.strip_prefix("c="));
        if channel_binding != Some(self.channel_binding.as_str()) {
            return Err(malformed("the channel binding is not that of the start"));
        }
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        if nonce != Some(self.nonce.as_str()) {
            return Err(malformed("the nonce is not that of this exchange"));
        }
        let mechanism = self.credential.mechanism;
        let proof = STANDARD.decode(proof).ok();
        let proof = proof.filter(|proof| proof.len() == mechanism.hash_bytes());
        let proof = proof.ok_or(malformed("the proof has not the length of the hash"))?;
        let auth_message = self.auth_message + without_proof;
        let signature = mechanism.hmac(&self.credential.stored_key, auth_message.as_bytes());
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(p, s)| p ^ s).collect();
        let stored_key = mechanism.hash(&client_key);
        if !bool::from(stored_key.ct_eq(&self.credential.stored_key)) {
            return Err(ScramError::Refused);
        }
        let signature = mechanism.hmac(&self.credential.server_key, auth_message.as_bytes());
        Ok(format!("v={}", STANDARD.encode(signature)))
    }
}

/// SASLprep (RFC 4013); `None` where it forbids a character, or leaves nothing.
pub(crate) fn prepared(text: &str) -> Option<String> {
    let prepared = stringprep::saslprep(text).ok()?;
    (!prepared.is_empty()).then(|| prepared.into_owned())
}

fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::TooLong(message.len()));
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("it is not UTF-8"))
}

/// A name with `=2C` for a comma and `=3D` for an equals sign, which both have a meaning of their own.
fn unescape(name: &str) -> Result<String, ScramError> {
    let mut parts = name.split('=');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (sign, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed("an equals sign in the name")),
        };
        out.push(sign);
        out.push_str(rest);
    }
    Ok(out)
}

fn is_nonce(nonce: &str) -> bool {
    !nonce.is_empty() && nonce.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    const RANDOM: [u8; SALT_BYTES] = [9; SALT_BYTES];

    /// The client's side, by the book: its last message, and the server's that it expects.
    fn client_final(
        mechanism: ScramMechanism,
        (gs2, bare): (&str, &str),
        server_first: &str,
        password: &str,
    ) -> (String, String) {
        let field = |name: &str| {
            let mut fields = server_first.split(',');
            fields.find_map(|f| f.strip_prefix(name)).unwrap()
        };
        let salt = STANDARD.decode(field("s=")).unwrap();
        let salted = mechanism.salted_password(password, &salt, field("i=").parse().unwrap());
        let client_key = mechanism.hmac(&salted, b"Client Key");
        let without_proof = format!("c={},r={}", STANDARD.encode(gs2), field("r="));
        let auth_message = format!("{bare},{server_first},{without_proof}");
        let signature = mechanism.hmac(&mechanism.hash(&client_key), auth_message.as_bytes());
        let proof: Vec<u8> = client_key
            .iter()
            .zip(&signature)
            .map(|(k, s)| k ^ s)
            .collect();
        let server_key = mechanism.hmac(&salted, b"Server Key");
        let verified = mechanism.hmac(&server_key, auth_message.as_bytes());
        (
            format!("{without_proof},p={}", STANDARD.encode(proof)),
            format!("v={}", STANDARD.encode(verified)),
        )
    }

    fn exchange(
        credential: ScramCredential,
        first: (&str, &str),
        password: &str,
    ) -> (Result<String, ScramError>, String) {
        let message = [first.0, first.1].concat();
        let client_first = ClientFirst::parse(message.as_bytes()).unwrap();
        let mechanism = credential.mechanism();
        let (waiting, server_first) = client_first.answer(credential, &RANDOM);
        let (last, expected) = client_final(mechanism, first, &server_first, password);
        (waiting.finish(last.as_bytes()), expected)
    }

    fn credential(mechanism: ScramMechanism, password: &str) -> ScramCredential {
        ScramCredential::of_password(mechanism, password, b"salt of a test", 4096).unwrap()
    }

    /// RFC 7677 section 3, with the nonce the server chose there.
    #[test]
    fn the_example_of_rfc_7677_is_answered_as_printed() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let credential =
            ScramCredential::of_password(ScramMechanism::Sha256, "pencil", &salt, 4096).unwrap();
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        assert_eq!(first.name(), "user");
        let (mut waiting, _) = first.answer(credential, &RANDOM);
        let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        waiting.nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
        waiting.auth_message = format!("n=user,r=rOprNGfwEbeRWgbNEkqO,{server_first},");
        let last = waiting.finish(
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        );
        assert_eq!(
            last.unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn both_mechanisms_let_the_right_password_in_and_no_other() {
        for mechanism in ScramMechanism::ALL {
            let first = ("n,,", "n=user,r=abc");
            let (answer, expected) = exchange(credential(mechanism, "pencil"), first, "pencil");
            assert_eq!(answer.unwrap(), expected);
            let (answer, _) = exchange(credential(mechanism, "pencil"), first, "pencil ");
            assert_eq!(answer.unwrap_err(), ScramError::Refused);
        }
    }

    /// Computed by an independent implementation: Python's hashlib and hmac.
    #[test]
    fn the_keys_of_both_mechanisms_are_pinned() {
        let keys = |mechanism| {
            let made = ScramCredential::of_password(mechanism, "pencil", b"0123456789abcdef", 8192);
            let made = made.unwrap();
            (
                STANDARD.encode(made.stored_key()),
                STANDARD.encode(made.server_key()),
            )
        };
        let expected = |stored: &str, server: &str| (stored.to_owned(), server.to_owned());
        assert_eq!(
            keys(ScramMechanism::Sha256),
            expected(SHA256_STORED, SHA256_SERVER)
        );
        assert_eq!(
            keys(ScramMechanism::Sha512),
            expected(SHA512_STORED, SHA512_SERVER)
        );
    }

    #[test]
    fn a_presented_password_is_recognised_by_its_verifier() {
        for mechanism in ScramMechanism::ALL {
            assert!(credential(mechanism, "pencil").is_of("pencil"));
            assert!(!credential(mechanism, "pencil").is_of("Pencil"));
            assert!(!ScramCredential::made_up(mechanism, "a", b"s", 4096).is_of(""));
        }
    }

    #[test]
    fn an_unknown_user_gets_the_same_salt_every_time_and_never_in() {
        let made_up =
            |name| ScramCredential::made_up(ScramMechanism::Sha256, name, b"secret", 8192);
        assert_eq!(made_up("a"), made_up("a"));
        assert_ne!(made_up("a").salt(), made_up("b").salt());
        let other = ScramCredential::made_up(ScramMechanism::Sha256, "a", b"other", 8192);
        assert_ne!(made_up("a").salt(), other.salt());
        assert_eq!(made_up("a").salt().len(), SALT_BYTES);
        let (answer, _) = exchange(made_up("a"), ("n,,", "n=a,r=abc"), "");
        assert_eq!(answer.unwrap_err(), ScramError::Refused);
    }

    #[test]
    fn names_are_unescaped_and_prepared() {
        let name = |bare: &str| {
            let message = format!("n,,n={bare},r=abc");
            ClientFirst::parse(message.as_bytes()).map(|first| first.name().to_owned())
        };
        assert_eq!(name("a=2Cb=3Dc").unwrap(), "a,b=c");
        assert_eq!(name("I\u{ad}X").unwrap(), "IX");
        assert_eq!(name("\u{2168}").unwrap(), "IX");
        assert_eq!(
            name("a=2cb").unwrap_err(),
            ScramError::Malformed("an equals sign in the name")
        );
        assert_eq!(name("\u{7}").unwrap_err(), ScramError::Name);
        assert_eq!(name("").unwrap_err(), ScramError::Name);
    }

    #[test]
    fn what_is_not_offered_is_refused_by_its_name() {
        let parse = |message: &str| ClientFirst::parse(message.as_bytes()).map(|_| ());
        assert_eq!(parse("y,,n=a,r=b"), Ok(()));
        assert_eq!(parse("n,a=a,n=a,r=b,ext=1"), Ok(()));
        for (message, refused) in [
            ("p=tls-unique,,n=a,r=b", ScramError::ChannelBinding),
            ("n,,n=a,r=b,tokenauth=true", ScramError::DelegationToken),
            ("n,,m=x,n=a,r=b", ScramError::MandatoryExtension),
            ("n,a=b,n=a,r=b", ScramError::AuthorizationId),
            ("n,,r=b", ScramError::Malformed("no user name")),
            ("n,,n=a,r=", ScramError::Malformed("no nonce")),
            ("n,,n=a", ScramError::Malformed("no nonce")),
            (
                "x,,n=a,r=b",
                ScramError::Malformed("an unknown channel binding flag"),
            ),
            ("n=a,r=b", ScramError::Malformed("no GS2 header")),
        ] {
            assert_eq!(parse(message), Err(refused), "{message}");
        }
        let long = format!("n,,n=a,r={}", "b".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(parse(&long), Err(ScramError::TooLong(long.len())));
    }

    #[test]
    fn a_last_message_of_another_exchange_is_refused() {
        let first = ("n,,", "n=user,r=abc");
        let start = || {
            let parsed = ClientFirst::parse(b"n,,n=user,r=abc").unwrap();
            parsed.answer(credential(ScramMechanism::Sha256, "pencil"), &RANDOM)
        };
        let (_, server_first) = start();
        let (last, _) = client_final(ScramMechanism::Sha256, first, &server_first, "pencil");
        assert!(start().0.finish(last.as_bytes()).is_ok());
        for (from, to) in [
            ("c=biws", "c=eSws"),
            ("r=abc", "r=abd"),
            (",p=", ",q="),
            (",p=", ",x=1,p="),
        ] {
            let changed = last.replacen(from, to, 1);
            assert!(start().0.finish(changed.as_bytes()).is_err(), "{changed}");
        }
        let short = format!("{}p=AAAA", &last[..last.find("p=").unwrap()]);
        assert!(matches!(
            start().0.finish(short.as_bytes()),
            Err(ScramError::Malformed(_))
        ));
    }

    #[test]
    fn verifiers_outside_kafkas_bounds_are_refused() {
        let made = |salt: &[u8], iterations| {
            ScramCredential::of_salted_password(ScramMechanism::Sha256, &[1; 32], salt, iterations)
                .map(|_| ())
        };
        assert_eq!(made(b"s", 4096), Ok(()));
        assert_eq!(made(b"s", 16_384), Ok(()));
        assert_eq!(
            made(b"s", 4095),
            Err(CredentialError::TooFewIterations(4095))
        );
        assert_eq!(
            made(b"s", 16_385),
            Err(CredentialError::TooManyIterations(16_385))
        );
        assert_eq!(made(b"", 4096), Err(CredentialError::EmptySalt));
        assert_eq!(made(&[1; 257], 4096), Err(CredentialError::LongSalt(257)));
        let short =
            ScramCredential::of_salted_password(ScramMechanism::Sha512, &[1; 32], b"s", 4096);
        assert!(matches!(
            short,
            Err(CredentialError::KeyLength { bytes: 32, .. })
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(first in prop::collection::vec(any::<u8>(), 0..80), text in "[nyp=,a-m2C3D]{0,40}", last in "[crp=,A-Za-z/+]{0,80}") {
            let _ = ClientFirst::parse(&first);
            let _ = ClientFirst::parse(text.as_bytes());
            let start = ClientFirst::parse(b"n,,n=user,r=abc").unwrap();
            let made_up = ScramCredential::made_up(ScramMechanism::Sha256, "user", b"s", 4096);
            let (waiting, _) = start.answer(made_up, &RANDOM);
            prop_assert!(waiting.finish(last.as_bytes()).is_err());
        }
    }

    const SHA256_STORED: &str = "1qXc6+pTzvF9tCb9cPYEc/LIlmubBFDjJYE6RrCNTbw=";
    const SHA256_SERVER: &str = "aIb04PRRswmOaky0nTwF2+BEwm4cDH+cZ8ngSO7bF9Q=";
    const SHA512_STORED: &str =
        "TYikOf6TS7duk3bUPPpGotK0jl7sutrvOWe2WoPujAIijRs9zRtwz9YN3hvcrMAilTgQ2SuPciqEwfZ/sNmZ/A==";
    const SHA512_SERVER: &str =
        "ebgGdj+tuYdYKij0ks/XyBFRpc+UXUrGnZvS9naLib/o523mQhnwqEu11wYNh6lvuoStrlNWskFn0M5JY3snxg==";
}

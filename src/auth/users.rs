//! A user's record: what a presented password or token is compared with, and its stored form.
//!
//! Settings record of kind `auth.user`, key the user's name, value JSON:
//!
//! ```json
//! {"v":1,"created_at_ms":1,"changed_at_ms":2,
//!  "password":"$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>",
//!  "scram_off":false,
//!  "scram":[{"mechanism":"SCRAM-SHA-256","iterations":8192,"salt":"<base64>",
//!            "stored_key":"<base64>","server_key":"<base64>"}],
//!  "tokens":[{"sha256":"<64 hex digits>","created_at_ms":1,"expires_at_ms":3,"label":"gateway"}]}
//! ```
//!
//! `password`, `scram_off`, `scram`, `tokens`, `expires_at_ms` and `label` may be absent. Versions
//! before users kept clients, kind `auth.client`: `{"v":1,"secret_sha256":"<64 hex digits>",
//! "created_at_ms":<i64>}`; such a record is a user with one token.
//!
//! A machine token is 256 random bits, so that a plain hash keeps it: there is nothing to guess.
//! Limits: [`USER_NAME_BYTES_MAX`], [`PASSWORD_BYTES_MAX`], [`TOKENS_PER_USER_MAX`],
//! [`TOKEN_LABEL_BYTES_MAX`].

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::scram::{ScramCredential, ScramMechanism, prepared};
use super::{hex, unhex};

/// Longest user name, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 128;
/// Longest password, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Machine tokens of one user.
pub const TOKENS_PER_USER_MAX: usize = 32;
/// Longest label of a token, in bytes.
pub const TOKEN_LABEL_BYTES_MAX: usize = 128;

const FORMAT_VERSION: u32 = 1;

/// Everything the node knows of a user but the name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub created_at_ms: i64,
    pub changed_at_ms: i64,
    /// SCRAM is off: no verifiers are kept or taken.
    pub scram_off: bool,
    /// Argon2id, PHC string format. Where there is one, the verifiers are of the same password.
    pub(super) password: Option<String>,
    /// At most one of each mechanism, in the order of [`ScramMechanism::ALL`].
    pub(super) scram: Vec<ScramCredential>,
    pub(super) tokens: Vec<MachineToken>,
}

/// A token of a machine, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineToken {
    pub created_at_ms: i64,
    /// `None`: good until it is deleted.
    pub expires_at_ms: Option<i64>,
    pub label: Option<String>,
    pub(super) sha256: [u8; 32],
}

impl MachineToken {
    pub(super) fn of_text(text: &str, created_at_ms: i64) -> MachineToken {
        MachineToken {
            created_at_ms,
            expires_at_ms: None,
            label: None,
            sha256: Sha256::digest(text).into(),
        }
    }

    /// Names it without telling anything about it, not even its stored hash.
    pub fn id(&self) -> String {
        fingerprint(&self.sha256)
    }

    fn is_good_at(&self, now_ms: i64) -> bool {
        self.expires_at_ms.is_none_or(|expiry| now_ms < expiry)
    }
}

impl User {
    pub(super) fn new(now_ms: i64) -> User {
        User {
            created_at_ms: now_ms,
            changed_at_ms: now_ms,
            ..User::default()
        }
    }

    /// Whether there is a password that can be presented in the clear, over PLAIN, MQTT or HTTP.
    pub fn has_password(&self) -> bool {
        self.password.is_some() || !self.scram.is_empty()
    }

    pub fn has_argon2_hash(&self) -> bool {
        self.password.is_some()
    }

    pub fn scram(&self, mechanism: ScramMechanism) -> Option<&ScramCredential> {
        let mut all = self.scram.iter();
        all.find(|credential| credential.mechanism() == mechanism)
    }

    /// Verifiers, by mechanism.
    pub fn scram_credentials(&self) -> &[ScramCredential] {
        &self.scram
    }

    pub fn tokens(&self) -> &[MachineToken] {
        &self.tokens
    }

    /// Whether there is nothing left that anybody could sign in with.
    pub(super) fn is_empty(&self) -> bool {
        !self.has_password() && self.tokens.is_empty()
    }

    /// Another verifier, made elsewhere: the password that was known here is no longer the one.
    pub(super) fn put_scram(&mut self, credential: ScramCredential) {
        self.password = None;
        self.scram
            .retain(|kept| kept.mechanism() != credential.mechanism());
        self.scram.push(credential);
        self.scram.sort_by_key(ScramCredential::mechanism);
    }

    /// The token this is, if it is one and has not expired; its fingerprint.
    pub(super) fn token_matching(&self, presented: &str, now_ms: i64) -> Option<String> {
        let presented: [u8; 32] = Sha256::digest(presented).into();
        let good = self.tokens.iter().filter(|token| token.is_good_at(now_ms));
        // All of them are compared, so that the time does not tell which it was.
        let found = good.fold(None, |found, token| {
            let same = bool::from(token.sha256.ct_eq(&presented));
            if same { Some(token) } else { found }
        });
        found.map(MachineToken::id)
    }

    /// Fingerprint of the password, where it was checked against its hash.
    pub(super) fn password_fingerprint(&self) -> Option<String> {
        self.password
            .as_deref()
            .map(|phc| fingerprint(phc.as_bytes()))
    }

    /// Whether the user still has the credential that a JWT was issued for.
    pub(super) fn has_credential(&self, named: &str, now_ms: i64) -> bool {
        let mut tokens = self.tokens.iter().filter(|token| token.is_good_at(now_ms));
        tokens.any(|token| token.id() == named)
            || self.password_fingerprint().is_some_and(|own| own == named)
            || self
                .scram
                .iter()
                .any(|verifier| fingerprint(verifier.stored_key()) == named)
    }
}

/// Names a credential inside a JWT without telling anything about it.
pub(super) fn fingerprint(credential: &[u8]) -> String {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"holdfast token credential")
        .chain_update(credential)
        .finalize()
        .into();
    hex(digest.get(..8).unwrap_or_default())
}

/// 256 random bits as 43 characters that need no quoting anywhere.
pub(super) fn token_text(random: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// Names travel as MQTT user names, SASL names, header values and URL fragments. Every client must
/// spell them alike, so a name is in the form that SASLprep gives it.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        Err("it is empty")
    } else if name.len() > USER_NAME_BYTES_MAX {
        Err("it is longer than 128 bytes")
    } else if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Err("it holds white space or a control character")
    } else if prepared(name).as_deref() != Some(name) {
        Err("it holds a character that SASLprep forbids or replaces")
    } else {
        Ok(())
    }
}

/// Kafka's clients hash a password as it is typed, others as SASLprep spells it: only where both
/// are the same does it work with all of them.
pub(super) fn check_password(password: &str) -> Result<(), &'static str> {
    if password.is_empty() {
        Err("it is empty")
    } else if password.len() > PASSWORD_BYTES_MAX {
        Err("it is longer than 1024 bytes")
    } else if prepared(password).as_deref() != Some(password) {
        Err("it holds a character that SASLprep forbids or replaces")
    } else {
        Ok(())
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    created_at_ms: i64,
    changed_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    #[serde(default)]
    scram_off: bool,
    #[serde(default)]
    scram: Vec<StoredScram>,
    #[serde(default)]
    tokens: Vec<StoredToken>,
}

#[derive(Serialize, Deserialize)]
struct StoredScram {
    mechanism: String,
    iterations: u32,
    salt: String,
    stored_key: String,
    server_key: String,
}

#[derive(Serialize, Deserialize)]
struct StoredToken {
    sha256: String,
    created_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
}

#[derive(Deserialize)]
struct StoredClient {
    v: u32,
    secret_sha256: String,
    created_at_ms: i64,
}

impl User {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let scram = self.scram.iter().map(|credential| StoredScram {
            mechanism: credential.mechanism().name().to_owned(),
            iterations: credential.iterations(),
            salt: STANDARD.encode(credential.salt()),
            stored_key: STANDARD.encode(credential.stored_key()),
            server_key: STANDARD.encode(credential.server_key()),
        });
        let tokens = self.tokens.iter().map(|token| StoredToken {
            sha256: hex(&token.sha256),
            created_at_ms: token.created_at_ms,
            expires_at_ms: token.expires_at_ms,
            label: token.label.clone(),
        });
        let stored = Stored {
            v: FORMAT_VERSION,
            created_at_ms: self.created_at_ms,
            changed_at_ms: self.changed_at_ms,
            password: self.password.clone(),
            scram_off: self.scram_off,
            scram: scram.collect(),
            tokens: tokens.collect(),
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    pub(super) fn from_bytes(value: &[u8]) -> Result<User, String> {
        // The parser's own message may quote what it read, and these are hashes of secrets.
        let stored: Stored =
            serde_json::from_slice(value).map_err(|_| "it is not the JSON expected")?;
        check_version(stored.v)?;
        let scram: Result<Vec<_>, String> = stored.scram.iter().map(scram_of).collect();
        let tokens: Result<Vec<_>, String> = stored.tokens.into_iter().map(token_of).collect();
        Ok(User {
            created_at_ms: stored.created_at_ms,
            changed_at_ms: stored.changed_at_ms,
            scram_off: stored.scram_off,
            password: stored.password,
            scram: scram?,
            tokens: tokens?,
        })
    }

    /// Of a client, as earlier versions kept it: a user with one token.
    pub(super) fn from_client_bytes(value: &[u8]) -> Result<User, String> {
        let stored: StoredClient =
            serde_json::from_slice(value).map_err(|_| "it is not the JSON expected")?;
        check_version(stored.v)?;
        let token = StoredToken {
            sha256: stored.secret_sha256,
            created_at_ms: stored.created_at_ms,
            expires_at_ms: None,
            label: None,
        };
        Ok(User {
            tokens: vec![token_of(token)?],
            ..User::new(stored.created_at_ms)
        })
    }
}

fn check_version(v: u32) -> Result<(), String> {
    match v {
        FORMAT_VERSION => Ok(()),
        _ => Err(format!("format version {v}, known is {FORMAT_VERSION}")),
    }
}

fn scram_of(stored: &StoredScram) -> Result<ScramCredential, String> {
    let bytes = |text: &str| {
        let decoded = STANDARD.decode(text);
        decoded.map_err(|_| "a SCRAM key is not base64".to_owned())
    };
    let mechanism = ScramMechanism::from_name(&stored.mechanism)
        .ok_or_else(|| format!("mechanism {:?} is not known", stored.mechanism))?;
    let salt = bytes(&stored.salt)?;
    let (stored_key, server_key) = (bytes(&stored.stored_key)?, bytes(&stored.server_key)?);
    ScramCredential::of_keys(mechanism, &salt, stored.iterations, stored_key, server_key)
        .map_err(|error| error.to_string())
}

fn token_of(stored: StoredToken) -> Result<MachineToken, String> {
    Ok(MachineToken {
        created_at_ms: stored.created_at_ms,
        expires_at_ms: stored.expires_at_ms,
        label: stored.label,
        sha256: unhex(&stored.sha256).ok_or("a token's hash is not 64 hex digits")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// SHA-256 of "abc", FIPS 180-2 appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn verifier(mechanism: ScramMechanism, password: &str) -> ScramCredential {
        ScramCredential::of_password(mechanism, password, b"0123456789abcdef", 4096).unwrap()
    }

    #[test]
    fn a_record_keeps_hashes_and_not_the_secrets() {
        let text = token_text(&[7; 32]);
        assert_eq!(text.len(), 43);
        let mut user = User::new(1_700_000_000_000);
        user.put_scram(verifier(ScramMechanism::Sha512, "pencil"));
        user.put_scram(verifier(ScramMechanism::Sha256, "pencil"));
        user.tokens.push(MachineToken {
            expires_at_ms: Some(5),
            label: Some("gateway".to_owned()),
            ..MachineToken::of_text(&text, 1)
        });
        let stored = String::from_utf8(user.to_bytes()).unwrap();
        assert!(!stored.contains(&text) && !stored.contains("pencil"));
        let again = User::from_bytes(stored.as_bytes()).unwrap();
        assert_eq!(again, user);
        let mechanisms: Vec<_> = again.scram.iter().map(ScramCredential::mechanism).collect();
        assert_eq!(mechanisms, ScramMechanism::ALL);
    }

    #[test]
    fn the_stored_form_is_pinned() {
        let stored = format!(
            r#"{{"v":1,"created_at_ms":1,"changed_at_ms":2,"password":"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA","scram_off":false,"scram":[{{"mechanism":"SCRAM-SHA-256","iterations":8192,"salt":"MDEyMzQ1Njc4OWFiY2RlZg==","stored_key":"1qXc6+pTzvF9tCb9cPYEc/LIlmubBFDjJYE6RrCNTbw=","server_key":"aIb04PRRswmOaky0nTwF2+BEwm4cDH+cZ8ngSO7bF9Q="}}],"tokens":[{{"sha256":"{ABC}","created_at_ms":5,"expires_at_ms":9,"label":"gateway"}}]}}"#
        );
        let user = User::from_bytes(stored.as_bytes()).unwrap();
        assert_eq!(user.to_bytes(), stored.as_bytes());
        assert!(user.scram(ScramMechanism::Sha256).unwrap().is_of("pencil"));
        assert!(user.token_matching("abc", 8).is_some());
        let least = r#"{"v":1,"created_at_ms":1,"changed_at_ms":2}"#;
        assert!(User::from_bytes(least.as_bytes()).unwrap().is_empty());
    }

    #[test]
    fn a_client_of_an_earlier_version_is_a_user_with_its_secret_as_token() {
        let stored = format!(r#"{{"v":1,"secret_sha256":"{ABC}","created_at_ms":5}}"#);
        let user = User::from_client_bytes(stored.as_bytes()).unwrap();
        let id = user.token_matching("abc", 1 << 60).unwrap();
        assert_eq!(user.created_at_ms, 5);
        // What earlier versions wrote into the JWTs that are still under way.
        assert_eq!(id, fingerprint(&unhex(ABC).unwrap()));
        assert!(user.has_credential(&id, 6));
    }

    #[test]
    fn unknown_versions_and_short_hashes_are_damage() {
        for damaged in [
            r#"{"v":2,"created_at_ms":1,"changed_at_ms":2}"#,
            r#"{"v":1,"created_at_ms":1,"changed_at_ms":2,"tokens":[{"sha256":"ba78","created_at_ms":5}]}"#,
            r#"{"v":1,"created_at_ms":1,"changed_at_ms":2,"scram":[{"mechanism":"SCRAM-SHA-1","iterations":4096,"salt":"","stored_key":"","server_key":""}]}"#,
            r#"{"v":1}"#,
            "",
        ] {
            assert!(User::from_bytes(damaged.as_bytes()).is_err(), "{damaged}");
            assert!(
                User::from_client_bytes(damaged.as_bytes()).is_err(),
                "{damaged}"
            );
        }
    }

    #[test]
    fn an_expired_token_matches_no_more() {
        let mut user = User::new(0);
        user.tokens.push(MachineToken {
            expires_at_ms: Some(100),
            ..MachineToken::of_text("abc", 0)
        });
        let id = user.token_matching("abc", 99).unwrap();
        assert!(user.has_credential(&id, 99) && !user.has_credential(&id, 100));
        assert_eq!(user.token_matching("abc", 100), None);
        assert_eq!(user.token_matching("", 0), None);
    }

    #[test]
    fn a_verifier_made_elsewhere_ends_the_password_that_was_known_here() {
        let mut user = User::new(0);
        user.password = Some("$argon2id$...".to_owned());
        let known = user.password_fingerprint().unwrap();
        user.put_scram(verifier(ScramMechanism::Sha256, "another"));
        assert!(!user.has_credential(&known, 0));
        user.put_scram(verifier(ScramMechanism::Sha256, "a third"));
        assert_eq!(user.scram.len(), 1);
        assert!(user.has_password());
    }

    #[test]
    fn names_are_short_printable_and_spelt_one_way() {
        for good in [
            "a",
            "inverter-7",
            "Ω",
            "a,b=c",
            &"x".repeat(USER_NAME_BYTES_MAX),
        ] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "two words",
            "line\n",
            "nul\0",
            "ohm \u{2126}",
            "\u{2126}",
            "soft\u{ad}hyphen",
            &"x".repeat(USER_NAME_BYTES_MAX + 1),
        ] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn passwords_are_those_that_every_client_spells_alike() {
        for good in [
            "p",
            "two words",
            "gr\u{fc}n",
            &"x".repeat(PASSWORD_BYTES_MAX),
        ] {
            assert_eq!(check_password(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "gru\u{308}n",
            "a\u{a0}b",
            "\u{7}",
            &"x".repeat(PASSWORD_BYTES_MAX + 1),
        ] {
            assert!(check_password(bad).is_err(), "{bad:?}");
        }
    }
}

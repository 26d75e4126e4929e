//! A client's record: the hash of its secret, and how a presented secret is compared with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{AuthError, hex, unhex};

/// Longest client id, in bytes.
pub const CLIENT_ID_BYTES_MAX: usize = 128;

const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientRecord {
    secret_sha256: [u8; 32],
    created_at_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    secret_sha256: String,
    created_at_ms: i64,
}

impl ClientRecord {
    pub(super) fn new(secret: &str, created_at_ms: i64) -> ClientRecord {
        ClientRecord {
            secret_sha256: Sha256::digest(secret).into(),
            created_at_ms,
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let stored = Stored {
            v: FORMAT_VERSION,
            secret_sha256: hex(&self.secret_sha256),
            created_at_ms: self.created_at_ms,
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    pub(super) fn from_bytes(value: &[u8]) -> Result<ClientRecord, String> {
        let stored: Stored = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        if stored.v != FORMAT_VERSION {
            return Err(format!(
                "format version {}, known is {FORMAT_VERSION}",
                stored.v
            ));
        }
        let secret_sha256 =
            unhex(&stored.secret_sha256).ok_or("secret_sha256 is not 64 hex digits")?;
        Ok(ClientRecord {
            secret_sha256,
            created_at_ms: stored.created_at_ms,
        })
    }

    /// Names the secret inside a token without telling anything about it, not even its stored hash.
    pub(super) fn fingerprint(&self) -> String {
        let digest: [u8; 32] = Sha256::new()
            .chain_update(b"holdfast token credential")
            .chain_update(self.secret_sha256)
            .finalize()
            .into();
        hex(digest.get(..8).unwrap_or_default())
    }
}

/// 256 random bits as 43 characters that need no quoting anywhere.
pub(super) fn secret_text(random: &[u8; 32]) -> String {
    URL_SAFE_NO_PAD.encode(random)
}

/// An unknown client costs the same hash and comparison as a known one.
pub(super) fn matches(record: Option<&ClientRecord>, secret: &str) -> bool {
    let presented: [u8; 32] = Sha256::digest(secret).into();
    let nobody = [0; 32];
    let expected = record.map_or(&nobody, |r| &r.secret_sha256);
    bool::from(presented.ct_eq(expected)) && record.is_some()
}

/// Ids travel as MQTT user names, SASL names, header values and URL fragments.
pub(super) fn check_client_id(client_id: &str) -> Result<(), AuthError> {
    let reason = if client_id.is_empty() {
        "it is empty"
    } else if client_id.len() > CLIENT_ID_BYTES_MAX {
        "it is longer than 128 bytes"
    } else if client_id
        .chars()
        .any(|c| c.is_control() || c.is_whitespace())
    {
        "it holds white space or a control character"
    } else {
        return Ok(());
    };
    let client_id = client_id.chars().take(CLIENT_ID_BYTES_MAX).collect();
    Err(AuthError::InvalidClientId { client_id, reason })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_keeps_the_hash_and_not_the_secret() {
        let secret = secret_text(&[7; 32]);
        assert_eq!(secret.len(), 43);
        let record = ClientRecord::new(&secret, 1_700_000_000_000);
        let stored = String::from_utf8(record.to_bytes()).unwrap();
        assert!(!stored.contains(&secret));
        assert_eq!(ClientRecord::from_bytes(stored.as_bytes()).unwrap(), record);
    }

    #[test]
    fn the_stored_form_is_pinned() {
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        let stored = r#"{"v":1,"secret_sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","created_at_ms":5}"#;
        let record = ClientRecord::from_bytes(stored.as_bytes()).unwrap();
        assert!(matches(Some(&record), "abc"));
        assert!(!matches(Some(&record), "abd"));
        assert_eq!(record.to_bytes(), stored.as_bytes());
    }

    #[test]
    fn unknown_versions_and_short_hashes_are_damage() {
        for damaged in [
            r#"{"v":2,"secret_sha256":"00","created_at_ms":5}"#,
            r#"{"v":1,"secret_sha256":"ba78","created_at_ms":5}"#,
            r#"{"v":1}"#,
            "",
        ] {
            assert!(
                ClientRecord::from_bytes(damaged.as_bytes()).is_err(),
                "{damaged}"
            );
        }
    }

    #[test]
    fn nobody_matches_nothing() {
        assert!(!matches(None, ""));
        assert!(!matches(None, "anything"));
    }

    #[test]
    fn client_ids_are_short_and_printable() {
        for good in ["a", "inverter-7", "Ω", &"x".repeat(CLIENT_ID_BYTES_MAX)] {
            assert!(check_client_id(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "two words",
            "line\n",
            "nul\0",
            &"x".repeat(CLIENT_ID_BYTES_MAX + 1),
        ] {
            assert!(check_client_id(bad).is_err(), "{bad:?}");
        }
    }
}

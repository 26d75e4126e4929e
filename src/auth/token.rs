//! Tokens: JWT (RFC 7519), HS256 and nothing else, under a key made at the node's first start.
//!
//! `jsonwebtoken` reads and writes them; its cryptography is provided here from `hmac` and `sha2`,
//! because the providers it brings along pull in RSA and elliptic curves that this node never uses.

use std::sync::Once;

use hmac::{Hmac, KeyInit, Mac};
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Signer, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{AuthError, TokenError, hex, unhex};

/// Longest token that is looked at.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// The node reads its own clock when it issues and when it verifies; this covers a small step back.
const LEEWAY_S: u64 = 5;

const FORMAT_VERSION: u32 = 1;

/// The token key as it is stored.
pub(super) struct KeyRecord {
    key: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    key: String,
}

impl KeyRecord {
    pub(super) fn new(key: [u8; 32]) -> KeyRecord {
        KeyRecord { key }
    }

    pub(super) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(&Stored {
            v: FORMAT_VERSION,
            key: hex(&self.key),
        })
        .unwrap_or_default()
    }

    pub(super) fn from_bytes(value: &[u8]) -> Result<KeyRecord, String> {
        // The parser's own message may quote what it read, and this is a key.
        let stored: Stored =
            serde_json::from_slice(value).map_err(|_| "it is not the JSON expected")?;
        if stored.v != FORMAT_VERSION {
            return Err(format!(
                "format version {}, known is {FORMAT_VERSION}",
                stored.v
            ));
        }
        Ok(KeyRecord {
            key: unhex(&stored.key).ok_or("the key is not 64 hex digits")?,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    /// Client id.
    pub(super) sub: String,
    /// Issued at, Unix seconds.
    iat: u64,
    /// Good until, Unix seconds.
    exp: u64,
    /// Fingerprint of the client's secret: renewing the secret revokes the token.
    pub(super) cred: String,
}

pub(super) struct TokenKeys {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl TokenKeys {
    pub(super) fn new(key: &[u8; 32]) -> TokenKeys {
        install_provider();
        let mut validation = Validation::new(Algorithm::HS256);
        // Judged in `verify` against the time passed in; the library's clock aborts before 1970.
        validation.validate_exp = false;
        TokenKeys {
            encoding: EncodingKey::from_secret(key),
            decoding: DecodingKey::from_secret(key),
            validation,
        }
    }

    pub(super) fn sign(
        &self,
        client_id: &str,
        credential: &str,
        now_s: u64,
        lifetime_s: u64,
    ) -> Result<String, AuthError> {
        let claims = Claims {
            sub: client_id.to_owned(),
            iat: now_s,
            exp: now_s.saturating_add(lifetime_s),
            cred: credential.to_owned(),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|e| AuthError::Signing(e.to_string()))
    }

    pub(super) fn verify(&self, jwt: &str, now_s: u64) -> Result<Claims, TokenError> {
        if jwt.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid);
        }
        let claims: Claims = jsonwebtoken::decode(jwt, &self.decoding, &self.validation)
            .map_err(|_| TokenError::Invalid)?
            .claims;
        if now_s > claims.exp.saturating_add(LEEWAY_S) {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| {
            check_algorithm(*algorithm)?;
            Ok(Box::new(Hs256(mac_of(key.as_bytes())?)))
        },
        verifier_factory: |algorithm, key| {
            check_algorithm(*algorithm)?;
            Ok(Box::new(Hs256(mac_of(key.try_get_as_bytes()?)?)))
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if PROVIDER.install_default().is_err() {
            tracing::error!("another provider of token cryptography was installed first");
        }
    });
}

fn check_algorithm(algorithm: Algorithm) -> Result<(), Error> {
    match algorithm {
        Algorithm::HS256 => Ok(()),
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn mac_of(key: &[u8]) -> Result<Hmac<Sha256>, Error> {
    Hmac::new_from_slice(key).map_err(|_| ErrorKind::InvalidKeyFormat.into())
}

struct Hs256(Hmac<Sha256>);

impl Signer<Vec<u8>> for Hs256 {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self
            .0
            .clone()
            .chain_update(message)
            .finalize()
            .into_bytes()
            .to_vec())
    }
}

impl JwtSigner for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], presented: &Vec<u8>) -> Result<(), signature::Error> {
        // `verify_slice` compares in constant time and refuses a truncated signature.
        self.0
            .clone()
            .chain_update(message)
            .verify_slice(presented)
            .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn keys() -> TokenKeys {
        TokenKeys::new(&[1; 32])
    }

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    /// Signs like anyone who holds a key would, without the library.
    fn forge(header: &str, claims: &str, key: &[u8]) -> String {
        let message = format!("{}.{}", part(header), part(claims));
        let tag = mac_of(key)
            .unwrap()
            .chain_update(&message)
            .finalize()
            .into_bytes();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    #[test]
    fn a_token_comes_back_as_the_client_it_was_issued_to() {
        let jwt = keys().sign("inverter-7", "c0ffee", NOW, 3600).unwrap();
        let claims = keys().verify(&jwt, NOW + 3600).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.cred.as_str()),
            ("inverter-7", "c0ffee")
        );
    }

    #[test]
    fn the_signature_is_hmac_sha256_over_the_first_two_parts() {
        // RFC 7515 appendix A.1: the library and the provider must agree with the published example.
        let key = URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .unwrap();
        let message = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let tag = Hs256(mac_of(&key).unwrap())
            .try_sign(message.as_bytes())
            .unwrap();
        assert_eq!(
            URL_SAFE_NO_PAD.encode(tag),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
    }

    #[test]
    fn an_expired_token_is_refused_after_a_small_leeway() {
        let jwt = keys().sign("a", "c", NOW, 60).unwrap();
        assert!(keys().verify(&jwt, NOW + 60 + LEEWAY_S).is_ok());
        assert_eq!(
            keys().verify(&jwt, NOW + 61 + LEEWAY_S).unwrap_err(),
            TokenError::Expired
        );
    }

    #[test]
    fn another_key_another_algorithm_or_none_is_refused() {
        let claims = format!(r#"{{"sub":"a","iat":{NOW},"exp":{},"cred":"c"}}"#, NOW + 60);
        let own = r#"{"alg":"HS256","typ":"JWT"}"#;
        assert!(keys().verify(&forge(own, &claims, &[1; 32]), NOW).is_ok());
        assert!(keys().verify(&forge(own, &claims, &[2; 32]), NOW).is_err());
        for header in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None","typ":"JWT"}"#,
            r#"{"alg":"HS384","typ":"JWT"}"#,
            r#"{"alg":"RS256","typ":"JWT"}"#,
            r#"{"alg":"ES256","typ":"JWT"}"#,
            r#"{"typ":"JWT"}"#,
        ] {
            assert_eq!(
                keys()
                    .verify(&forge(header, &claims, &[1; 32]), NOW)
                    .unwrap_err(),
                TokenError::Invalid
            );
            let unsigned = format!("{}.{}.", part(header), part(&claims));
            assert_eq!(
                keys().verify(&unsigned, NOW).unwrap_err(),
                TokenError::Invalid
            );
        }
    }

    #[test]
    fn a_token_without_expiry_is_refused() {
        let header = r#"{"alg":"HS256","typ":"JWT"}"#;
        let jwt = forge(header, r#"{"sub":"a","iat":1,"cred":"c"}"#, &[1; 32]);
        assert_eq!(keys().verify(&jwt, NOW).unwrap_err(), TokenError::Invalid);
    }

    #[test]
    fn any_changed_or_missing_character_is_refused() {
        let jwt = keys().sign("a", "c", NOW, 60).unwrap();
        for at in 0..jwt.len() {
            let mut bytes = jwt.clone().into_bytes();
            // The last character of a part carries unused bits: step far enough to change the used ones.
            bytes[at] = if bytes[at] == b'A' { b'z' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(keys().verify(&changed, NOW).is_err(), "changed at {at}");
            assert!(keys().verify(&jwt[..at], NOW).is_err(), "cut at {at}");
        }
        assert!(keys().verify(&"a.".repeat(TOKEN_BYTES_MAX), NOW).is_err());
    }

    #[test]
    fn the_stored_key_is_pinned() {
        let stored = format!(r#"{{"v":1,"key":"{}"}}"#, "0a".repeat(32));
        let record = KeyRecord::from_bytes(stored.as_bytes()).unwrap();
        assert_eq!(record.key(), &[10; 32]);
        assert_eq!(record.to_bytes(), stored.as_bytes());
        assert!(KeyRecord::from_bytes(br#"{"v":1,"key":"0a"}"#).is_err());
        assert!(KeyRecord::from_bytes(br#"{"v":9,"key":""}"#).is_err());
    }
}

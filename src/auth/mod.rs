//! Clients, their secrets and tokens: the one decision point of every door.
//!
//! Owns two kinds of settings records in the log, and keeps no copy of them, so that there is no second
//! truth to fall out of step:
//!
//! | kind | key | value |
//! |---|---|---|
//! | `auth.client` | client id | JSON `{"v":1,"secret_sha256":"<64 hex digits>","created_at_ms":<i64>}` |
//! | `auth.key` | `jwt.hs256` | JSON `{"v":1,"key":"<64 hex digits>"}` |
//!
//! A client's secret is 256 random bits, shown once and kept only as its SHA-256: a plain hash is
//! enough because there is nothing to guess. The token key is secret material at rest: whoever can read
//! the data directory can sign tokens, which is why that directory belongs to the node's user alone.
//!
//! Knows nothing of doors: MQTT, Kafka and HTTP ask here. Limits: [`CLIENT_ID_BYTES_MAX`],
//! [`TOKEN_BYTES_MAX`], [`THROTTLE_ADDRESSES_MAX`].

mod clients;
#[cfg(test)]
mod tests;
mod throttle;
mod token;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use holdfast_storage::log::{AppendError, Log};

pub use clients::CLIENT_ID_BYTES_MAX;
use clients::ClientRecord;
pub use throttle::THROTTLE_ADDRESSES_MAX;
use throttle::Throttle;
pub use token::TOKEN_BYTES_MAX;
use token::{KeyRecord, TokenKeys};

const CLIENT_KIND: &str = "auth.client";
const KEY_KIND: &str = "auth.key";
const KEY_NAME: &str = "jwt.hs256";

/// Section `[auth]` of the configuration.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// How long a token is good for, in seconds. Default 3600.
    pub token_lifetime_s: u64,
    /// Wrong secrets that one address may present within the window before it is turned away. Default 20.
    pub failures_max: u32,
    /// Length of that window, in seconds. Default 60.
    pub failures_window_s: u64,
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            token_lifetime_s: 3600,
            failures_max: 20,
            failures_window_s: 60,
        }
    }
}

/// Who is asking, after authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub client_id: String,
}

/// Handle on the client table and the token key; clones share it.
#[derive(Clone)]
pub struct Auth {
    shared: Arc<Shared>,
}

struct Shared {
    log: Log,
    keys: TokenKeys,
    config: AuthConfig,
    throttle: Mutex<Throttle>,
}

/// A signed token for the HTTP door.
#[derive(Debug, Clone)]
pub struct IssuedToken {
    pub jwt: String,
    pub expires_in_s: u64,
}

/// Why a token was refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    #[error("the token is malformed or its signature does not fit")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    /// The client was deleted, or its secret renewed, after the token was issued.
    #[error("the token was revoked")]
    Revoked,
}

/// Why a sign-in was refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginError {
    /// The same for an unknown client and a wrong secret.
    #[error("unknown client or wrong secret")]
    Refused,
    #[error("too many failed sign-ins from this address: try again in {retry_after_s} s")]
    TooManyFailures { retry_after_s: u64 },
}

/// Why the client table could not be opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("client id {client_id:?}: {reason}")]
    InvalidClientId {
        client_id: String,
        reason: &'static str,
    },
    #[error("setting {kind}/{key} cannot be read: {reason}")]
    DamagedSetting {
        kind: &'static str,
        key: String,
        reason: String,
    },
    #[error("the operating system gave no random bytes: {0}")]
    NoRandomness(String),
    #[error("the token cannot be signed: {0}")]
    Signing(String),
}

impl Auth {
    /// Reads the token key from the log's settings; makes and stores it at first start.
    pub async fn open(log: Log) -> Result<Auth, AuthError> {
        Auth::open_with(log, AuthConfig::default()).await
    }

    /// As [`Auth::open`], with the operator's configuration.
    pub async fn open_with(log: Log, config: AuthConfig) -> Result<Auth, AuthError> {
        let record = match log.setting(KEY_KIND, KEY_NAME) {
            Some(value) => {
                KeyRecord::from_bytes(&value).map_err(|reason| AuthError::DamagedSetting {
                    kind: KEY_KIND,
                    key: KEY_NAME.to_owned(),
                    reason,
                })?
            }
            None => {
                let record = KeyRecord::new(random_bytes()?);
                log.put_setting(KEY_KIND, KEY_NAME, Some(Bytes::from(record.to_bytes())))
                    .await?;
                record
            }
        };
        let throttle = Throttle::new(config.failures_max, config.failures_window_s);
        let keys = TokenKeys::new(record.key());
        Ok(Auth {
            shared: Arc::new(Shared {
                log,
                keys,
                config,
                throttle: Mutex::new(throttle),
            }),
        })
    }

    /// Makes or renews a client and returns its secret (256 random bits), which is kept only as SHA-256.
    /// Renewing revokes the tokens issued for the old secret. Durable when it returns.
    pub async fn create_client(&self, client_id: &str) -> Result<String, AuthError> {
        clients::check_client_id(client_id)?;
        let secret = clients::secret_text(&random_bytes()?);
        let record = ClientRecord::new(&secret, unix_ms());
        self.shared
            .log
            .put_setting(CLIENT_KIND, client_id, Some(Bytes::from(record.to_bytes())))
            .await?;
        Ok(secret)
    }

    /// Deletes a client and thereby revokes its tokens; false if there was none. Durable when it returns.
    pub async fn delete_client(&self, client_id: &str) -> Result<bool, AuthError> {
        if self.shared.log.setting(CLIENT_KIND, client_id).is_none() {
            return Ok(false);
        }
        self.shared
            .log
            .put_setting(CLIENT_KIND, client_id, None)
            .await?;
        Ok(true)
    }

    /// Ids of every client, sorted.
    pub fn clients(&self) -> Vec<String> {
        let mut ids: Vec<String> = self
            .shared
            .log
            .settings(CLIENT_KIND)
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        ids.sort_unstable();
        ids
    }

    pub fn has_clients(&self) -> bool {
        !self.shared.log.settings(CLIENT_KIND).is_empty()
    }

    /// Constant time in the secret; the same answer for an unknown client and a wrong secret.
    pub fn authenticate(&self, client_id: &str, secret: &str) -> Option<Principal> {
        let record = self.client(client_id);
        clients::matches(record.as_ref(), secret).then(|| Principal {
            client_id: client_id.to_owned(),
        })
    }

    /// [`Auth::authenticate`] for a door that knows the caller's address: an address that keeps failing
    /// is turned away, unheard, until its window ends.
    pub fn login(
        &self,
        client_id: &str,
        secret: &str,
        from: IpAddr,
    ) -> Result<Principal, LoginError> {
        self.throttle(|throttle| throttle.admit(from, Instant::now()))
            .map_err(|retry_after_s| LoginError::TooManyFailures { retry_after_s })?;
        let principal = self
            .authenticate(client_id, secret)
            .ok_or(LoginError::Refused)?;
        self.throttle(|throttle| throttle.forgive(from));
        Ok(principal)
    }

    /// How long a token is good for.
    pub fn token_lifetime_s(&self) -> u64 {
        self.shared.config.token_lifetime_s
    }

    /// A token for an authenticated client, bound to its present secret.
    pub fn issue_token(&self, principal: &Principal) -> Result<IssuedToken, AuthError> {
        let record = self.client(&principal.client_id);
        let credential = record.map(|r| r.fingerprint()).unwrap_or_default();
        let expires_in_s = self.shared.config.token_lifetime_s;
        let jwt =
            self.shared
                .keys
                .sign(&principal.client_id, &credential, unix_s(), expires_in_s)?;
        Ok(IssuedToken { jwt, expires_in_s })
    }

    /// Accepts only HS256 under this node's key, not expired, of a client that still has the secret the
    /// token was issued for.
    pub fn verify_token(&self, jwt: &str) -> Result<Principal, TokenError> {
        let claims = self.shared.keys.verify(jwt, unix_s())?;
        let record = self.client(&claims.sub).ok_or(TokenError::Revoked)?;
        if record.fingerprint() != claims.cred {
            return Err(TokenError::Revoked);
        }
        Ok(Principal {
            client_id: claims.sub,
        })
    }

    /// A token issued so long ago that it has expired; what waiting would make of any other.
    #[cfg(test)]
    pub(crate) fn expired_token(&self, client_id: &str) -> Result<String, AuthError> {
        let credential = self
            .client(client_id)
            .map(|r| r.fingerprint())
            .unwrap_or_default();
        let lifetime_s = self.shared.config.token_lifetime_s;
        self.shared.keys.sign(
            client_id,
            &credential,
            unix_s().saturating_sub(lifetime_s + 60),
            lifetime_s,
        )
    }

    fn client(&self, client_id: &str) -> Option<ClientRecord> {
        let value = self.shared.log.setting(CLIENT_KIND, client_id)?;
        match ClientRecord::from_bytes(&value) {
            Ok(record) => Some(record),
            Err(reason) => {
                tracing::error!(
                    client_id,
                    reason,
                    "client record cannot be read: the client is refused"
                );
                None
            }
        }
    }

    fn throttle<T>(&self, f: impl FnOnce(&mut Throttle) -> T) -> T {
        f(&mut self
            .shared
            .throttle
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

fn random_bytes() -> Result<[u8; 32], AuthError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| AuthError::NoRandomness(e.to_string()))?;
    Ok(bytes)
}

/// A clock before 1970 counts as 1970: a box without a battery must still be able to sign in.
fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_secs())
        .unwrap_or(0)
}

fn unix_ms() -> i64 {
    let ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_millis())
        .unwrap_or(0);
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Lower-case hex.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// 32 bytes from 64 hex digits.
fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

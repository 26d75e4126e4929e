//! Users, their credentials and what they may do: the one decision point of every door.
//!
//! Owns these kinds of settings records in the log:
//!
//! | kind | key | value |
//! |---|---|---|
//! | `auth.user` | user name | JSON, see [`users`] |
//! | `auth.acl` | of the value's hash | JSON, see [`acl`] |
//! | `auth.key` | `jwt.hs256` | JSON `{"v":1,"key":"<64 hex digits>"}` |
//!
//! [`users`] is a record, [`store`] keeps the records, [`manage`] changes them; [`passwords`] ([`argon2id`]) and
//! [`scram`] check what is presented, [`throttle`] counts who fails, [`sign_in`] puts these together and says who
//! somebody is ([`principal`]); [`token`] signs what the HTTP door issues. [`acl`] decides what they may do,
//! [`rights`] keeps its answers for who asks often.
//!
//! The token key is secret material at rest: whoever can read the data directory can sign tokens, which
//! is why that directory belongs to the node's user alone. What unknown users are told in a SCRAM
//! exchange is derived from it, too.
//!
//! Knows nothing of doors: MQTT, Kafka and HTTP ask here.

pub mod acl;
mod argon2id;
mod config;
mod error;
mod manage;
mod passwords;
mod principal;
mod rights;
pub mod scram;
mod sign_in;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod throttle;
mod token;
mod users;

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use holdfast_storage::log::{AppendError, Log};
use sha2::Sha256;

use acl::Acls;
pub use acl::binding::{AclBinding, AclFilter, Operation, PatternType, Permission, ResourceType};
pub use acl::{AclError, Names, Resource};
pub use config::{AuthConfig, Authorizer};
pub use error::{AuthError, LoginError, TokenError};
pub use manage::{NewToken, TokenOptions};
use passwords::Passwords;
pub use passwords::{ARGON2_WAITING_MAX, PBKDF2_WAITING_MAX, REMEMBERED_MAX};
pub use principal::{ANONYMOUS, Authentication, PRINCIPAL_TYPE, Principal};
pub use rights::{Caller, NAMES_BYTES_MAX, NAMES_REMEMBERED_MAX, Right, Rights};
pub use sign_in::{IssuedToken, ScramLogin};
pub use store::USERS_MAX;
use store::UserStore;
pub use throttle::THROTTLE_ADDRESSES_MAX;
use throttle::Throttle;
pub use token::TOKEN_BYTES_MAX;
use token::{KeyRecord, TokenKeys};
pub use users::{
    MachineToken, PASSWORD_BYTES_MAX, TOKEN_LABEL_BYTES_MAX, TOKENS_PER_USER_MAX,
    USER_NAME_BYTES_MAX, User,
};

const KEY_KIND: &str = "auth.key";
const KEY_NAME: &str = "jwt.hs256";

/// Handle on users and keys; clones share it.
#[derive(Clone)]
pub struct Auth {
    shared: Arc<Shared>,
}

struct Shared {
    config: AuthConfig,
    users: UserStore,
    passwords: Passwords,
    keys: TokenKeys,
    /// Makes up the salts of users who do not exist.
    scram_secret: Vec<u8>,
    throttle: Arc<Mutex<Throttle>>,
    acls: Acls,
}

impl Auth {
    /// Reads the token key from the log's settings; makes and stores it at first start.
    pub async fn open(log: Log) -> Result<Auth, AuthError> {
        Auth::open_with(log, AuthConfig::default()).await
    }

    /// As [`Auth::open`], with the operator's configuration.
    pub async fn open_with(log: Log, config: AuthConfig) -> Result<Auth, AuthError> {
        let key = open_key(&log).await?;
        let throttle = Throttle::new(config.failures_max, config.failures_window_s);
        let shared = Shared {
            passwords: Passwords::new(&config)?,
            acls: Acls::open(log.clone(), &config)?,
            users: UserStore::open(log).await?,
            keys: TokenKeys::new(key.key()),
            scram_secret: derived(key.key(), b"holdfast scram salts of unknown users"),
            throttle: Arc::new(Mutex::new(throttle)),
            config,
        };
        Ok(Auth {
            shared: Arc::new(shared),
        })
    }
}

impl Auth {
    /// Whether the principal may do this: the one decision of every door. Where no authorizer is
    /// configured everybody may do everything.
    pub fn authorize(
        &self,
        principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        self.shared.acls.authorize(principal, operation, resource)
    }

    /// Whether access rules are in force.
    pub fn has_authorizer(&self) -> bool {
        self.shared.config.authorizer == Authorizer::Acl
    }

    /// Whether the principal may do this to some resource of this type (Kafka: idempotent producers
    /// need to be able to write to some topic).
    pub fn authorize_by_resource_type(
        &self,
        principal: &Principal,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        let acls = &self.shared.acls;
        acls.authorize_by_resource_type(principal, operation, resource_type)
    }

    /// Whether the principal may do this to some of these resources. "No" is certain; "yes" may be said
    /// of names that nobody will ever use, and each must be asked for in its turn.
    pub fn authorize_some_of(
        &self,
        principal: &Principal,
        operation: Operation,
        resource_type: ResourceType,
        names: &dyn Names,
    ) -> bool {
        let acls = &self.shared.acls;
        acls.authorize_some_of(principal, operation, resource_type, names)
    }

    /// Whether no rule binds the principal: there is no authorizer, or it is a super user.
    pub fn is_unbound(&self, principal: &Principal) -> bool {
        self.shared.acls.is_unbound(principal)
    }

    /// Another number after every change of the rules; what was answered under one holds until then.
    pub fn rules_version(&self) -> u64 {
        self.shared.acls.version()
    }

    /// The access rules that match, in a fixed order.
    pub fn acls(&self, filter: &AclFilter) -> Result<Vec<AclBinding>, AclError> {
        self.shared.acls.list(filter)
    }

    /// Makes access rules; one answer each, in order. Durable, and in force, when it returns.
    pub async fn create_acls(
        &self,
        bindings: Vec<AclBinding>,
    ) -> Result<Vec<Result<(), AclError>>, AclError> {
        let shared = Arc::clone(&self.shared);
        whole(async move { shared.acls.create(bindings).await }).await
    }

    /// Deletes the access rules that match; those that went. Durable, and in force, when it returns.
    pub async fn delete_acls(&self, filter: &AclFilter) -> Result<Vec<AclBinding>, AclError> {
        let (shared, filter) = (Arc::clone(&self.shared), filter.clone());
        whole(async move { shared.acls.delete(&filter).await }).await
    }
}

/// To its end, even if whoever waits for it goes: a rule must not be on the disk and not in force.
async fn whole<T: Send + 'static>(
    change: impl Future<Output = Result<T, AclError>> + Send + 'static,
) -> Result<T, AclError> {
    let done = tokio::spawn(change).await;
    done.unwrap_or(Err(AclError::Append(AppendError::Closed)))
}

async fn open_key(log: &Log) -> Result<KeyRecord, AuthError> {
    let damaged = |reason| AuthError::DamagedSetting {
        kind: KEY_KIND,
        key: KEY_NAME.to_owned(),
        reason,
    };
    if let Some(value) = log.setting(KEY_KIND, KEY_NAME) {
        return KeyRecord::from_bytes(&value).map_err(damaged);
    }
    let record = KeyRecord::new(random_bytes()?);
    let value = Some(Bytes::from(record.to_bytes()));
    log.put_setting(KEY_KIND, KEY_NAME, value).await?;
    Ok(record)
}

/// A key for another purpose than signing tokens.
fn derived(key: &[u8; 32], purpose: &[u8]) -> Vec<u8> {
    // HMAC takes keys of any length.
    Hmac::<Sha256>::new_from_slice(key).map_or_else(
        |_| Vec::new(),
        |mac| mac.chain_update(purpose).finalize().into_bytes().to_vec(),
    )
}

fn random_bytes<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
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

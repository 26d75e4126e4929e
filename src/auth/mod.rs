//! Clients, their secrets and tokens: the one decision point of every door.

use holdfast_storage::log::{AppendError, Log};

/// Who is asking, after authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub client_id: String,
}

/// Handle on the client table and the token key; clones share it.
#[derive(Clone)]
pub struct Auth {}

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
}

impl Auth {
    /// Reads the clients from the log's settings; makes and stores the token key at first start.
    pub async fn open(_log: Log) -> Result<Auth, AppendError> { todo!() }
    /// Makes or renews a client and returns its secret (128 random bits or more), which is kept only as SHA-256.
    pub async fn create_client(&self, _client_id: &str) -> Result<String, AppendError> { todo!() }
    pub fn has_clients(&self) -> bool { todo!() }
    /// Constant time in the secret; the same answer for an unknown client and a wrong secret.
    pub fn authenticate(&self, _client_id: &str, _secret: &str) -> Option<Principal> { todo!() }
    pub fn issue_token(&self, _principal: &Principal) -> IssuedToken { todo!() }
    pub fn verify_token(&self, _jwt: &str) -> Result<Principal, TokenError> { todo!() }
}

//! What can go wrong: changing users, signing in, presenting a token.

use holdfast_storage::log::AppendError;

use super::scram::{CredentialError, ScramError};
use super::store::USERS_MAX;
use super::users::TOKENS_PER_USER_MAX;

/// Why users could not be opened or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("user name {name:?}: {reason}")]
    InvalidName { name: String, reason: &'static str },
    #[error("the password cannot be used: {0}")]
    InvalidPassword(&'static str),
    #[error("the label cannot be used: it is longer than {0} bytes or holds a control character")]
    InvalidLabel(usize),
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    #[error("there is already a user {0:?}")]
    UserExists(String),
    #[error("there are {USERS_MAX} users: no more are possible")]
    TooManyUsers,
    #[error("user {0:?} has {TOKENS_PER_USER_MAX} tokens: delete one first")]
    TooManyTokens(String),
    #[error("SCRAM is off for user {0:?}")]
    ScramOff(String),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("too many passwords wait to be hashed")]
    Busy,
    #[error("a password could not be hashed")]
    Hashing,
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
    /// A token is issued for a password or a machine token, which it ends with.
    #[error("{0:?} did not sign in with a password or a token")]
    NoCredential(String),
}

/// Why a sign-in was refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoginError {
    /// The same for an unknown user and a wrong secret.
    #[error("unknown user or wrong secret")]
    Refused,
    #[error("too many failed sign-ins from this address: try again in {retry_after_s} s")]
    TooManyFailures { retry_after_s: u64 },
    /// Nothing is said about the secret.
    #[error("too many sign-ins wait: try again")]
    Busy,
    /// The messages of a SCRAM exchange were not as they must be.
    #[error(transparent)]
    Exchange(ScramError),
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

/// Why a token of the HTTP door was refused.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenError {
    #[error("the token is malformed or its signature does not fit")]
    Invalid,
    #[error("the token has expired")]
    Expired,
    /// The user was deleted, or the credential changed, after the token was issued.
    #[error("the token was revoked")]
    Revoked,
}

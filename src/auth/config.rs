//! The `[auth]` section.

use serde::Deserialize;

use super::PRINCIPAL_TYPE;
use super::argon2id::{MEMORY_BYTES_MAX, MEMORY_BYTES_MIN};
use super::scram::{ITERATIONS_MAX, ITERATIONS_MIN};

/// Section `[auth]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// How long a token of the HTTP door is good for, in seconds. Default 3600.
    pub token_lifetime_s: u64,
    /// Wrong secrets that one address may present within the window before it is turned away. Default 20.
    pub failures_max: u32,
    /// Length of that window, in seconds. Default 60.
    pub failures_window_s: u64,
    /// Memory in which one password is hashed (Argon2id); with less, it is hashed in more passes.
    /// 7 MiB to 1 GiB, default 19 MiB.
    pub password_hash_memory_bytes: u64,
    /// Passwords hashed at the same time. Default 2.
    pub password_hashes_at_once: usize,
    /// Iterations of the SCRAM verifiers that this node makes, 4096 to 16384. Default 8192.
    pub scram_iterations: u32,
    /// What decides who may do what. Default `none`.
    pub authorizer: Authorizer,
    /// Principals that no access rule binds, such as `User:admin`. Kafka: `super.users`. Default none.
    pub super_users: Vec<String>,
    /// What no access rule names is open to everybody. Kafka: `allow.everyone.if.no.acl.found`.
    /// Default false.
    pub allow_everyone_if_no_acl_found: bool,
}

/// See [`AuthConfig::authorizer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authorizer {
    /// Whoever may connect may do everything. Kafka: no `authorizer.class.name`.
    None,
    /// Access rules. Kafka: `StandardAuthorizer`.
    Acl,
}

impl Default for AuthConfig {
    fn default() -> AuthConfig {
        AuthConfig {
            token_lifetime_s: 3600,
            failures_max: 20,
            failures_window_s: 60,
            password_hash_memory_bytes: 19 << 20,
            password_hashes_at_once: 2,
            scram_iterations: 8192,
            authorizer: Authorizer::None,
            super_users: Vec::new(),
            allow_everyone_if_no_acl_found: false,
        }
    }
}

impl AuthConfig {
    /// Bounds that no type can say. The sentence begins with the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let memory = self.password_hash_memory_bytes;
        if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&memory) {
            return Err(format!(
                "auth.password_hash_memory_bytes is {memory}: {MEMORY_BYTES_MIN} to {MEMORY_BYTES_MAX} are possible"
            ));
        }
        let at_once = self.password_hashes_at_once;
        if !(1..=1024).contains(&at_once) {
            return Err(format!(
                "auth.password_hashes_at_once is {at_once}: 1 to 1024 are possible"
            ));
        }
        let iterations = self.scram_iterations;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(format!(
                "auth.scram_iterations is {iterations}: {ITERATIONS_MIN} to {ITERATIONS_MAX} are possible"
            ));
        }
        for name in &self.super_users {
            let user = name.strip_prefix(PRINCIPAL_TYPE);
            if user.is_none_or(str::is_empty) {
                return Err(format!(
                    "auth.super_users names {name:?}: a principal is {PRINCIPAL_TYPE} and a name"
                ));
            }
        }
        Ok(())
    }
}

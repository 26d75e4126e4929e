//! Access rules with Kafka's semantics: what they are, where they are kept, and what they decide.
//!
//! Owns settings records of kind `auth.acl`, one a rule. The key is the first 32 hex digits of the
//! value's SHA-256, the value JSON (all fields in this order, names as Kafka spells them):
//!
//! ```json
//! {"v":1,"resource_type":"TOPIC","pattern_type":"LITERAL","name":"orders","principal":"User:alice",
//!  "host":"*","operation":"READ","permission":"ALLOW"}
//! ```
//!
//! [`binding`] is a rule and a filter over rules, [`rules`] the index that decides, [`super::Auth`] gives
//! both to the doors. Every rule is in memory twice: in the index, under a lock that is held for
//! microseconds, and in a set that lists and deletions go through. A rule that cannot be read stops the
//! start, because it might be the one that denies. Limits: [`ACLS_MAX`], [`ACL_TEXT_BYTES_MAX`].

pub mod binding;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use holdfast_storage::log::{AppendError, Log};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use self::binding::{AclBinding, AclFilter, Operation, ResourceType};
use self::rules::{Rules, Verdict};
use super::{AuthConfig, AuthError, Authorizer, Principal, hex};

/// Rules of one node.
pub const ACLS_MAX: usize = 100_000;
/// Bytes of a resource's name, a principal or a host, each.
pub const ACL_TEXT_BYTES_MAX: usize = 1024;

pub(super) const ACL_KIND: &str = "auth.acl";

/// Changes of one call that wait for the log together.
const CHANGED_AT_ONCE: usize = 256;

/// Why rules were not listed, made or deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AclError {
    /// Kafka: SECURITY_DISABLED.
    #[error("no authorizer is configured: auth.authorizer = \"acl\"")]
    Disabled,
    /// Kafka: INVALID_REQUEST.
    #[error("{0}")]
    Invalid(String),
    /// Kafka: POLICY_VIOLATION.
    #[error("there are {ACLS_MAX} access rules: no more are possible")]
    TooMany,
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource<'a> {
    pub resource_type: ResourceType,
    pub name: &'a str,
}

impl<'a> Resource<'a> {
    /// The node itself.
    pub const CLUSTER: Resource<'static> = Resource {
        resource_type: ResourceType::Cluster,
        name: binding::CLUSTER_NAME,
    };

    pub fn topic(name: &'a str) -> Resource<'a> {
        Resource {
            resource_type: ResourceType::Topic,
            name,
        }
    }

    pub fn group(name: &'a str) -> Resource<'a> {
        Resource {
            resource_type: ResourceType::Group,
            name,
        }
    }

    pub fn transactional_id(name: &'a str) -> Resource<'a> {
        Resource {
            resource_type: ResourceType::TransactionalId,
            name,
        }
    }
}

/// A set of names that is asked about as a whole, such as those that a filter matches.
pub trait Names {
    /// How every name of the set begins.
    fn common_prefix(&self) -> &str;
    fn contains(&self, name: &str) -> bool;
    /// Whether some name of the set begins so.
    fn reaches(&self, prefix: &str) -> bool;
}

/// The rules of a node, and whether they are in force.
pub(super) struct Acls {
    log: Log,
    enabled: bool,
    /// With their type: `User:admin`.
    super_users: Vec<String>,
    /// What nobody made a rule for is open to everybody.
    open_without_rule: bool,
    rules: RwLock<Rules>,
    /// Counts the changes of `rules`; grows while they are locked.
    version: AtomicU64,
    bindings: RwLock<BTreeSet<AclBinding>>,
    /// Who changes rules has looked at them under this lock.
    changing: Mutex<()>,
}

impl Acls {
    pub(super) fn open(log: Log, config: &AuthConfig) -> Result<Acls, AuthError> {
        let enabled = config.authorizer == Authorizer::Acl;
        let acls = Acls {
            enabled,
            super_users: config.super_users.clone(),
            open_without_rule: config.allow_everyone_if_no_acl_found,
            rules: RwLock::default(),
            version: AtomicU64::new(0),
            bindings: RwLock::default(),
            changing: Mutex::new(()),
            log,
        };
        let stored = if enabled {
            acls.log.settings(ACL_KIND)
        } else {
            Vec::new()
        };
        for (key, value) in stored {
            let binding = AclBinding::from_bytes(&value);
            let binding = binding.map_err(|reason| AuthError::DamagedSetting {
                kind: ACL_KIND,
                key,
                reason,
            })?;
            acls.insert(binding);
        }
        if enabled && acls.super_users.is_empty() && acls.bindings().is_empty() {
            tracing::warn!("auth.authorizer is on, without super users and without access rules");
        }
        Ok(acls)
    }

    pub(super) fn authorize(
        &self,
        principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> bool {
        if self.is_unbound(principal) {
            return true;
        }
        match self.rules().judge(principal, operation, resource) {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::NoRule => self.open_without_rule,
        }
    }

    pub(super) fn authorize_by_resource_type(
        &self,
        principal: &Principal,
        operation: Operation,
        resource_type: ResourceType,
    ) -> bool {
        let rules = self.rules();
        self.is_unbound(principal)
            || rules.allow_some(principal, operation, resource_type, self.open_without_rule)
    }

    pub(super) fn authorize_some_of(
        &self,
        principal: &Principal,
        operation: Operation,
        resource_type: ResourceType,
        names: &dyn Names,
    ) -> bool {
        let open = self.open_without_rule;
        self.is_unbound(principal)
            || self
                .rules()
                .allow_some_of(principal, operation, resource_type, names, open)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn is_unbound(&self, principal: &Principal) -> bool {
        let mut super_users = self.super_users.iter();
        !self.enabled || super_users.any(|name| name == principal.full_name())
    }

    pub(super) fn list(&self, filter: &AclFilter) -> Result<Vec<AclBinding>, AclError> {
        self.check_enabled()?;
        let bindings = self.bindings();
        let matching = bindings.iter().filter(|binding| filter.matches(binding));
        Ok(matching.cloned().collect())
    }

    /// One answer a rule, in order; those that are there already are made again.
    pub(super) async fn create(
        &self,
        bindings: Vec<AclBinding>,
    ) -> Result<Vec<Result<(), AclError>>, AclError> {
        self.check_enabled()?;
        let _changing = self.changing.lock().await;
        let mut room = ACLS_MAX.saturating_sub(self.bindings().len());
        let mut admit = |binding: AclBinding| {
            binding.check().map_err(AclError::Invalid)?;
            if !self.bindings().contains(&binding) {
                room = room.checked_sub(1).ok_or(AclError::TooMany)?;
            }
            Ok(binding)
        };
        let admitted: Vec<_> = bindings.into_iter().map(&mut admit).collect();
        let created = stream::iter(admitted).map(async |binding: Result<AclBinding, AclError>| {
            let binding = binding?;
            let value = binding.to_bytes();
            self.put(&value, Some(Bytes::from(value.clone()))).await?;
            self.insert(binding);
            Ok(())
        });
        Ok(created.buffered(CHANGED_AT_ONCE).collect().await)
    }

    /// Deletes every rule that matches; those that went.
    pub(super) async fn delete(&self, filter: &AclFilter) -> Result<Vec<AclBinding>, AclError> {
        self.check_enabled()?;
        let _changing = self.changing.lock().await;
        let matching = stream::iter(self.list(filter)?);
        let deleted = matching.map(async |binding: AclBinding| {
            self.put(&binding.to_bytes(), None).await?;
            self.remove(&binding);
            Ok(binding)
        });
        let deleted: Vec<Result<AclBinding, AclError>> =
            deleted.buffered(CHANGED_AT_ONCE).collect().await;
        deleted.into_iter().collect()
    }

    fn check_enabled(&self) -> Result<(), AclError> {
        match self.enabled {
            true => Ok(()),
            false => Err(AclError::Disabled),
        }
    }

    async fn put(&self, named_by: &[u8], value: Option<Bytes>) -> Result<(), AclError> {
        let digest: [u8; 32] = Sha256::digest(named_by).into();
        let key = hex(digest.get(..16).unwrap_or_default());
        Ok(self.log.put_setting(ACL_KIND, &key, value).await?)
    }

    fn insert(&self, binding: AclBinding) {
        let mut bindings = written(&self.bindings);
        if !bindings.contains(&binding) {
            let mut rules = written(&self.rules);
            rules.insert(&binding);
            self.version.fetch_add(1, Ordering::Release);
            drop(rules);
            bindings.insert(binding);
        }
    }

    fn remove(&self, binding: &AclBinding) {
        if written(&self.bindings).remove(binding) {
            let mut rules = written(&self.rules);
            rules.remove(binding);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    fn rules(&self) -> RwLockReadGuard<'_, Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn bindings(&self) -> RwLockReadGuard<'_, BTreeSet<AclBinding>> {
        self.bindings.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn written<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

//! A rule (Kafka: ACL binding), a filter over rules, and their words, which are Kafka's.

use serde::{Deserialize, Serialize};

use super::ACL_TEXT_BYTES_MAX;

/// Stands for every resource in a literal pattern, for every user in a principal, for every host.
pub const WILDCARD: &str = "*";
/// Kafka's name of the only resource of type CLUSTER.
pub const CLUSTER_NAME: &str = "kafka-cluster";

const FORMAT_VERSION: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ResourceType {
    Topic,
    Group,
    Cluster,
    TransactionalId,
    DelegationToken,
    User,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PatternType {
    /// The resource of this name, or every resource if the name is `*`.
    Literal,
    /// Every resource whose name begins so.
    Prefixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Operation {
    /// In a rule: each of the others.
    All,
    Read,
    Write,
    Create,
    Delete,
    Alter,
    Describe,
    ClusterAction,
    DescribeConfigs,
    AlterConfigs,
    IdempotentWrite,
    CreateTokens,
    DescribeTokens,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Permission {
    Deny,
    Allow,
}

/// Who may, or may not, do what to which resources from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AclBinding {
    pub resource_type: ResourceType,
    pub pattern_type: PatternType,
    pub name: String,
    /// With its type: `User:alice`, or `User:*`.
    pub principal: String,
    /// An address, or `*`.
    pub host: String,
    pub operation: Operation,
    pub permission: Permission,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    v: u32,
    resource_type: ResourceType,
    pattern_type: PatternType,
    name: String,
    principal: String,
    host: String,
    operation: Operation,
    permission: Permission,
}

impl AclBinding {
    /// Whether Kafka would take it, in its words; it answers INVALID_REQUEST.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("Invalid empty resource name".to_owned());
        }
        let cluster = self.resource_type == ResourceType::Cluster;
        if cluster && self.name != CLUSTER_NAME {
            return Err(format!(
                "The only valid name for the CLUSTER resource is {CLUSTER_NAME}"
            ));
        }
        let named = self.principal.split_once(':');
        if !named.is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty()) {
            return Err(format!(
                "Could not parse principal from `{}` (no colon is present separating the principal type from the principal name)",
                self.principal
            ));
        }
        if self.host.is_empty() {
            return Err("Invalid empty host".to_owned());
        }
        for (what, text) in [
            ("resource name", &self.name),
            ("principal", &self.principal),
            ("host", &self.host),
        ] {
            if text.len() > ACL_TEXT_BYTES_MAX {
                return Err(format!(
                    "Invalid {what}: it is longer than {ACL_TEXT_BYTES_MAX} bytes"
                ));
            }
        }
        Ok(())
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let AclBinding {
            resource_type,
            pattern_type,
            name,
            principal,
            host,
            operation,
            permission,
        } = self.clone();
        let stored = Stored {
            v: FORMAT_VERSION,
            resource_type,
            pattern_type,
            name,
            principal,
            host,
            operation,
            permission,
        };
        serde_json::to_vec(&stored).unwrap_or_default()
    }

    pub(super) fn from_bytes(value: &[u8]) -> Result<AclBinding, String> {
        let stored: Stored = serde_json::from_slice(value).map_err(|e| e.to_string())?;
        if stored.v != FORMAT_VERSION {
            let v = stored.v;
            return Err(format!("format version {v}, known is {FORMAT_VERSION}"));
        }
        Ok(AclBinding {
            resource_type: stored.resource_type,
            pattern_type: stored.pattern_type,
            name: stored.name,
            principal: stored.principal,
            host: stored.host,
            operation: stored.operation,
            permission: stored.permission,
        })
    }
}

/// Which patterns a filter means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum PatternFilter {
    /// Of any type, with the filter's name.
    #[default]
    Any,
    /// Of any type, that cover a resource with the filter's name.
    Match,
    Only(PatternType),
}

/// Which rules are meant; what is `None` may be anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AclFilter {
    pub resource_type: Option<ResourceType>,
    pub pattern: PatternFilter,
    pub name: Option<String>,
    pub principal: Option<String>,
    pub host: Option<String>,
    pub operation: Option<Operation>,
    pub permission: Option<Permission>,
}

impl AclFilter {
    pub fn matches(&self, binding: &AclBinding) -> bool {
        fits(&self.resource_type, &binding.resource_type)
            && fits(&self.principal, &binding.principal)
            && fits(&self.host, &binding.host)
            && fits(&self.operation, &binding.operation)
            && fits(&self.permission, &binding.permission)
            && self.matches_pattern(binding)
    }

    fn matches_pattern(&self, binding: &AclBinding) -> bool {
        match self.pattern {
            PatternFilter::Any => fits(&self.name, &binding.name),
            PatternFilter::Only(pattern_type) => {
                pattern_type == binding.pattern_type && fits(&self.name, &binding.name)
            }
            PatternFilter::Match => match (&self.name, binding.pattern_type) {
                (None, _) => true,
                (Some(name), PatternType::Literal) => {
                    binding.name == *name || binding.name == WILDCARD
                }
                (Some(name), PatternType::Prefixed) => name.starts_with(&binding.name),
            },
        }
    }
}

fn fits<T: PartialEq>(wanted: &Option<T>, found: &T) -> bool {
    wanted.as_ref().is_none_or(|wanted| wanted == found)
}

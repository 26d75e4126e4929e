//! What somebody may do, for doors that ask often: answers are kept until a rule changes.
//!
//! Limits: [`NAMES_REMEMBERED_MAX`] answers for one [`Rights`], and [`NAMES_BYTES_MAX`] of names; with more
//! it begins anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Auth, Names, Operation, Principal, Resource, ResourceType};

/// Answers that one [`Rights`] keeps.
pub const NAMES_REMEMBERED_MAX: usize = 1_024;

/// Bytes of their names.
pub const NAMES_BYTES_MAX: usize = 64 << 10;

/// Somebody, and the rules that bind them. Clones share the rules.
#[derive(Clone)]
pub struct Caller {
    auth: Auth,
    principal: Principal,
}

impl Caller {
    pub fn new(auth: Auth, principal: Principal) -> Caller {
        Caller { auth, principal }
    }

    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    pub fn may(&self, operation: Operation, resource: Resource<'_>) -> bool {
        self.auth.authorize(&self.principal, operation, resource)
    }

    /// See [`Auth::authorize_some_of`].
    pub fn may_some_of(
        &self,
        operation: Operation,
        resource_type: ResourceType,
        names: &dyn Names,
    ) -> bool {
        let auth = &self.auth;
        auth.authorize_some_of(&self.principal, operation, resource_type, names)
    }

    /// Whether there is nothing to ask: no authorizer, or a super user.
    pub fn is_unbound(&self) -> bool {
        self.auth.is_unbound(&self.principal)
    }

    /// One right to one resource, cheap to ask again and again; `None` where there is nothing to ask.
    pub fn right(&self, operation: Operation, resource: Resource<'_>) -> Option<Right> {
        (!self.is_unbound()).then(|| Right {
            caller: self.clone(),
            operation,
            resource_type: resource.resource_type,
            name: Arc::from(resource.name),
            kept: AtomicU64::new(UNASKED),
        })
    }

    /// One right to topics of any name; `None` where there is nothing to ask.
    pub fn rights(&self, operation: Operation) -> Option<Rights> {
        (!self.is_unbound()).then(|| Rights {
            caller: self.clone(),
            operation,
            kept: Mutex::default(),
        })
    }
}

/// No version of the rules is as large.
const UNASKED: u64 = u64::MAX;

/// One right of one caller to one resource.
pub struct Right {
    caller: Caller,
    operation: Operation,
    resource_type: ResourceType,
    name: Arc<str>,
    /// The version of the rules shifted left by one, and the answer.
    kept: AtomicU64,
}

impl Right {
    /// By the rules as they are now.
    pub fn holds(&self) -> bool {
        // Read before the rules: an answer may be newer than its version says, never older.
        let version = self.caller.auth.rules_version();
        let kept = self.kept.load(Ordering::Relaxed);
        if kept != UNASKED && kept >> 1 == version {
            return kept & 1 == 1;
        }
        let resource = Resource {
            resource_type: self.resource_type,
            name: &self.name,
        };
        let holds = self.caller.may(self.operation, resource);
        let kept = version << 1 | u64::from(holds);
        self.kept.store(kept, Ordering::Relaxed);
        holds
    }
}

/// One right of one caller to topics of any name.
pub struct Rights {
    caller: Caller,
    operation: Operation,
    kept: Mutex<Kept>,
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Rights({:?}, {:?})",
            self.caller.principal, self.operation
        )
    }
}

#[derive(Default)]
struct Kept {
    version: u64,
    by_topic: HashMap<Box<str>, bool>,
    names_bytes: usize,
}

impl Kept {
    fn clear(&mut self) {
        self.by_topic.clear();
        self.names_bytes = 0;
    }
}

impl Rights {
    /// By the rules as they are now.
    pub fn to(&self, topic: &str) -> bool {
        // As in `Right::holds`.
        let version = self.caller.auth.rules_version();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.version != version {
            kept.version = version;
            kept.clear();
        }
        if let Some(answer) = kept.by_topic.get(topic) {
            return *answer;
        }
        let answer = self.caller.may(self.operation, Resource::topic(topic));
        if kept.by_topic.len() >= NAMES_REMEMBERED_MAX
            || kept.names_bytes + topic.len() > NAMES_BYTES_MAX
        {
            kept.clear();
        }
        kept.names_bytes += topic.len();
        kept.by_topic.insert(topic.into(), answer);
        answer
    }
}

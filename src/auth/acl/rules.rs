//! The index that decides: rules by resource type, by principal, by pattern.
//!
//! A decision looks at the principal's own rules and at those of `User:*`, in each at the rules of the
//! resource's name, of `*`, and of every prefix of the name that has the length of some prefix there: its
//! cost does not grow with the number of rules.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::binding::{AclBinding, Operation, PatternType, Permission, ResourceType, WILDCARD};
use super::{Names, Resource};
use crate::auth::Principal;

/// Every user, as rules name them.
const EVERYBODY: &str = "User:*";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allowed,
    Denied,
    /// Nobody, not only this principal, has a rule for the resource.
    NoRule,
}

#[derive(Debug, Default)]
pub(super) struct Rules {
    sections: HashMap<ResourceType, Section>,
}

/// The rules for resources of one type.
#[derive(Debug, Default)]
struct Section {
    by_principal: HashMap<String, Patterns<Vec<Rule>>>,
    /// How many rules name each pattern, whoever they are for.
    named: Patterns<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    host: Host,
    operation: Operation,
    permission: Permission,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Any,
    Address(IpAddr),
    /// No address; as in Kafka, it is taken and matches nobody.
    Nowhere,
}

impl Host {
    fn of(text: &str) -> Host {
        match text {
            WILDCARD => Host::Any,
            text => text.parse::<IpAddr>().map_or(Host::Nowhere, |address| {
                Host::Address(address.to_canonical())
            }),
        }
    }

    fn matches(self, peer: IpAddr) -> bool {
        match self {
            Host::Any => true,
            Host::Address(address) => address == peer.to_canonical(),
            Host::Nowhere => false,
        }
    }
}

impl Rule {
    fn of(binding: &AclBinding) -> Rule {
        Rule {
            host: Host::of(&binding.host),
            operation: binding.operation,
            permission: binding.permission,
        }
    }

    /// To read, write, delete or alter something one must see it, and to alter a configuration see
    /// that; but who may not write may still look.
    fn covers(&self, asked: Operation) -> bool {
        let own = self.operation;
        let implied = match asked {
            Operation::Describe => matches!(
                own,
                Operation::Read | Operation::Write | Operation::Delete | Operation::Alter
            ),
            Operation::DescribeConfigs => own == Operation::AlterConfigs,
            _ => false,
        };
        self.names(asked) || (implied && self.permission == Permission::Allow)
    }

    fn names(&self, asked: Operation) -> bool {
        self.operation == asked || self.operation == Operation::All
    }
}

impl Rules {
    pub(super) fn insert(&mut self, binding: &AclBinding) {
        let section = self.sections.entry(binding.resource_type).or_default();
        let (pattern, name) = (binding.pattern_type, &binding.name);
        *section.named.at(pattern, name) += 1;
        let own = section.by_principal.entry(binding.principal.clone());
        own.or_default().at(pattern, name).push(Rule::of(binding));
    }

    /// Of a rule that is there.
    pub(super) fn remove(&mut self, binding: &AclBinding) {
        let Some(section) = self.sections.get_mut(&binding.resource_type) else {
            return;
        };
        let (pattern, name) = (binding.pattern_type, &binding.name);
        let named = section.named.at(pattern, name);
        *named = named.saturating_sub(1);
        if *named == 0 {
            section.named.forget(pattern, name);
        }
        let Some(own) = section.by_principal.get_mut(&binding.principal) else {
            return;
        };
        let rules = own.at(pattern, name);
        let rule = Rule::of(binding);
        if let Some(position) = rules.iter().position(|one| *one == rule) {
            rules.swap_remove(position);
        }
        if rules.is_empty() {
            own.forget(pattern, name);
        }
        if own.is_empty() {
            section.by_principal.remove(&binding.principal);
        }
    }

    pub(super) fn judge(
        &self,
        principal: &Principal,
        operation: Operation,
        resource: Resource<'_>,
    ) -> Verdict {
        let Some(section) = self.sections.get(&resource.resource_type) else {
            return Verdict::NoRule;
        };
        let mut allowed = false;
        for patterns in section.of(principal) {
            let rules = patterns.covering(resource.name).flatten();
            let here = rules.filter(|rule| rule.host.matches(principal.peer()));
            for rule in here.filter(|rule| rule.covers(operation)) {
                match rule.permission {
                    Permission::Deny => return Verdict::Denied,
                    Permission::Allow => allowed = true,
                }
            }
        }
        if allowed {
            Verdict::Allowed
        } else if section.named.covering(resource.name).next().is_some() {
            Verdict::Denied
        } else {
            Verdict::NoRule
        }
    }

    /// Whether there is a resource of this type, or could be one, to which the principal may do this.
    /// As in Kafka, implied operations do not count.
    pub(super) fn allow_some(
        &self,
        principal: &Principal,
        operation: Operation,
        resource_type: ResourceType,
        open_without_rule: bool,
    ) -> bool {
        let Some(section) = self.sections.get(&resource_type) else {
            return open_without_rule;
        };
        let permits = |rules: &[Rule], permission| {
            rules.iter().any(|rule| {
                rule.permission == permission
                    && rule.names(operation)
                    && rule.host.matches(principal.peer())
            })
        };
        let denies = |pattern, name: &str| {
            let mut patterns = section.of(principal);
            patterns.any(|own| {
                let rules = own.get(pattern, name);
                rules.is_some_and(|rules| permits(rules, Permission::Deny))
            })
        };
        if denies(PatternType::Literal, WILDCARD) {
            return false;
        }
        // Some name is free of every rule, unless a rule is for all names.
        if open_without_rule && section.named.get(PatternType::Literal, WILDCARD).is_none() {
            return true;
        }
        let prefix_denied = |name: &str| {
            let ends = name.char_indices().map(|(at, sign)| at + sign.len_utf8());
            let mut prefixes = ends.filter_map(|end| name.get(..end));
            prefixes.any(|prefix| denies(PatternType::Prefixed, prefix))
        };
        let mut patterns = section.of(principal);
        patterns.any(|own| {
            let mut allowed = own
                .iter()
                .filter(|(_, _, rules)| permits(rules, Permission::Allow));
            allowed.any(|(pattern, name, _)| match (pattern, name) {
                (PatternType::Literal, WILDCARD) => true,
                (PatternType::Literal, name) => {
                    !denies(PatternType::Literal, name) && !prefix_denied(name)
                }
                (PatternType::Prefixed, name) => !prefix_denied(name),
            })
        })
    }
}

impl Rules {
    /// Whether the principal may do this to some of these names. Said of names that nobody will ever
    /// use, too: rules that deny some of an endless set never leave none.
    pub(super) fn allow_some_of(
        &self,
        principal: &Principal,
        operation: Operation,
        resource_type: ResourceType,
        names: &dyn Names,
        open_without_rule: bool,
    ) -> bool {
        let Some(section) = self.sections.get(&resource_type) else {
            return open_without_rule;
        };
        let say = |rules: &[Rule], permission| {
            rules.iter().any(|rule| {
                rule.permission == permission
                    && rule.covers(operation)
                    && rule.host.matches(principal.peer())
            })
        };
        let all_are = |permission, prefix: &str| {
            let mut patterns = section.of(principal);
            patterns.any(|own| own.spanning(prefix).any(|rules| say(rules, permission)))
        };
        let common = names.common_prefix();
        if all_are(Permission::Deny, common) {
            return false;
        }
        let is_free = open_without_rule && section.named.spanning(common).next().is_none();
        if is_free || all_are(Permission::Allow, common) {
            return true;
        }
        let allows = |pattern, name: &str| match pattern {
            PatternType::Literal => {
                let resource = Resource {
                    resource_type,
                    name,
                };
                names.contains(name)
                    && self.judge(principal, operation, resource) == Verdict::Allowed
            }
            PatternType::Prefixed => names.reaches(name) && !all_are(Permission::Deny, name),
        };
        let mut patterns = section.of(principal);
        patterns.any(|own| {
            let mut allowing = own
                .iter()
                .filter(|(_, _, rules)| say(rules, Permission::Allow));
            allowing.any(|(pattern, name, _)| allows(pattern, name))
        })
    }
}

impl Section {
    /// What is said of the principal, by name and among everybody.
    fn of<'s>(&'s self, principal: &Principal) -> impl Iterator<Item = &'s Patterns<Vec<Rule>>> {
        let own = self.by_principal.get(principal.full_name());
        own.into_iter().chain(self.by_principal.get(EVERYBODY))
    }
}

/// Something for each pattern of names.
#[derive(Debug, Default)]
struct Patterns<T> {
    literal: HashMap<String, T>,
    prefixed: HashMap<String, T>,
    /// Lengths of the prefixes in bytes, and how many have each.
    prefix_lengths: BTreeMap<usize, usize>,
}

impl<T: Default> Patterns<T> {
    fn at(&mut self, pattern: PatternType, name: &str) -> &mut T {
        match pattern {
            PatternType::Literal => self.literal.entry(name.to_owned()).or_default(),
            PatternType::Prefixed => {
                if !self.prefixed.contains_key(name) {
                    *self.prefix_lengths.entry(name.len()).or_default() += 1;
                }
                self.prefixed.entry(name.to_owned()).or_default()
            }
        }
    }

    fn forget(&mut self, pattern: PatternType, name: &str) {
        match pattern {
            PatternType::Literal => {
                self.literal.remove(name);
            }
            PatternType::Prefixed => {
                let known = self.prefixed.remove(name).is_some();
                let left = self.prefix_lengths.get(&name.len()).copied();
                match left {
                    Some(more @ 2..) if known => {
                        self.prefix_lengths.insert(name.len(), more - 1);
                    }
                    _ if known => {
                        self.prefix_lengths.remove(&name.len());
                    }
                    _ => {}
                }
            }
        }
    }

    fn get(&self, pattern: PatternType, name: &str) -> Option<&T> {
        match pattern {
            PatternType::Literal => self.literal.get(name),
            PatternType::Prefixed => self.prefixed.get(name),
        }
    }

    /// Of every pattern that the name fits.
    fn covering<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s T> {
        self.literal
            .get(name)
            .into_iter()
            .chain(self.spanning(name))
    }

    /// Of every pattern that all names fit that begin so.
    fn spanning<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = &'s T> {
        let lengths = self.prefix_lengths.range(..=prefix.len());
        let prefixes = lengths.filter_map(move |(length, _)| prefix.get(..*length));
        let prefixed = prefixes.filter_map(|prefix| self.prefixed.get(prefix));
        self.literal.get(WILDCARD).into_iter().chain(prefixed)
    }

    fn iter(&self) -> impl Iterator<Item = (PatternType, &str, &T)> {
        let literal = self.literal.iter();
        let literal = literal.map(|(name, own)| (PatternType::Literal, name.as_str(), own));
        let prefixed = self.prefixed.iter();
        literal.chain(prefixed.map(|(name, own)| (PatternType::Prefixed, name.as_str(), own)))
    }

    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.prefixed.is_empty()
    }
}

//! Whom a quota is for, and which of several rules counts.

use std::collections::BTreeMap;

use super::{Quota, Rules};

/// One part of an entity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Part {
    /// Whoever has no rule of its own.
    Default,
    Is(String),
}

/// Whom a quota is for: a user, a client id, both, or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Entity {
    pub(in super::super) user: Option<Part>,
    pub(in super::super) client_id: Option<Part>,
    pub(in super::super) ip: Option<Part>,
}

const USER: &str = "user";
const CLIENT_ID: &str = "client-id";
const IP: &str = "ip";

impl Entity {
    #[cfg(test)]
    pub(in super::super) fn with_user(self, user: Part) -> Entity {
        Entity {
            user: Some(user),
            ..self
        }
    }

    /// Sets a part by Kafka's name of its type; false for a type that there is not, or a second time.
    pub(in super::super) fn set(&mut self, kind: &str, part: Part) -> bool {
        match self.place(kind) {
            Some(place) if place.is_none() => {
                *place = Some(part);
                true
            }
            _ => false,
        }
    }

    fn place(&mut self, kind: &str) -> Option<&mut Option<Part>> {
        match kind {
            USER => Some(&mut self.user),
            CLIENT_ID => Some(&mut self.client_id),
            IP => Some(&mut self.ip),
            _ => None,
        }
    }

    /// Type and name of each part.
    pub(in super::super) fn parts(&self) -> impl Iterator<Item = (&'static str, &Part)> {
        let parts = [
            (USER, &self.user),
            (CLIENT_ID, &self.client_id),
            (IP, &self.ip),
        ];
        let parts = parts.into_iter();
        parts.filter_map(|(kind, part)| Some((kind, part.as_ref()?)))
    }

    /// Addresses stand alone, and somebody must be named.
    pub(in super::super) fn is_possible(&self) -> bool {
        match (&self.ip, &self.user, &self.client_id) {
            (Some(Part::Is(ip)), None, None) => ip.parse::<std::net::IpAddr>().is_ok(),
            (Some(Part::Default), None, None) => true,
            (Some(_), ..) => false,
            (None, user, client_id) => user.is_some() || client_id.is_some(),
        }
    }

    /// Whether such an entity can have such a quota.
    pub(in super::super) fn can_have(&self, quota: Quota) -> bool {
        self.ip.is_some() == (quota == Quota::Connection)
    }

    pub(super) fn to_json(&self) -> String {
        let parts = self.parts().map(|(kind, part)| {
            let name = match part {
                Part::Default => serde_json::Value::Null,
                Part::Is(name) => name.as_str().into(),
            };
            (kind.to_owned(), name)
        });
        serde_json::Value::Object(parts.collect()).to_string()
    }

    pub(super) fn from_json(text: &str) -> Option<Entity> {
        let parts: BTreeMap<String, Option<String>> = serde_json::from_str(text).ok()?;
        let mut entity = Entity::default();
        for (kind, name) in parts {
            let part = name.map_or(Part::Default, Part::Is);
            entity.set(&kind, part).then_some(())?;
        }
        Some(entity)
    }
}

/// Which entities are asked for.
#[derive(Debug, Default)]
pub(in super::super) struct Filter {
    pub(in super::super) parts: Vec<(String, Matching)>,
    /// Entities with other parts, too, do not match.
    pub(in super::super) is_strict: bool,
}

/// What a part must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Matching {
    Exactly(Part),
    Any,
}

impl Filter {
    pub(super) fn matches(&self, entity: &Entity) -> bool {
        let parts: BTreeMap<&str, &Part> = entity.parts().collect();
        let fits = |(kind, wanted): &(String, Matching)| match parts.get(kind.as_str()) {
            None => false,
            Some(part) => match wanted {
                Matching::Any => true,
                Matching::Exactly(wanted) => wanted == *part,
            },
        };
        self.parts.iter().all(fits) && (!self.is_strict || parts.len() == self.parts.len())
    }
}

/// The bound that counts for a client, and with whom it shares it: user and client id, `None` for all of
/// them. The more a rule says, the more it counts, the user before the client id, as in Kafka.
pub(super) fn of_client(
    rules: &Rules,
    quota: Quota,
    user: &str,
    client_id: &str,
) -> Option<(Option<String>, Option<String>, f64)> {
    let (this_user, this_client) = (Part::Is(user.to_owned()), Part::Is(client_id.to_owned()));
    let users = [Some(this_user), Some(Part::Default), None];
    let clients = [Some(this_client), Some(Part::Default), None];
    for rule_user in &users {
        for rule_client in &clients {
            let entity = Entity {
                user: rule_user.clone(),
                client_id: rule_client.clone(),
                ip: None,
            };
            if let Some(bound) = rules.get(&entity).and_then(|values| values.get(&quota)) {
                let user = rule_user.as_ref().map(|_| user.to_owned());
                let client_id = rule_client.as_ref().map(|_| client_id.to_owned());
                return Some((user, client_id, *bound));
            }
        }
    }
    None
}

pub(super) fn of_address(rules: &Rules, address: &str) -> Option<f64> {
    let bound = |ip: Part| {
        let entity = Entity {
            ip: Some(ip),
            ..Entity::default()
        };
        rules.get(&entity)?.get(&Quota::Connection).copied()
    };
    bound(Part::Is(address.to_owned())).or_else(|| bound(Part::Default))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Values;
    use super::*;

    fn entity(user: Option<&str>, client_id: Option<&str>) -> Entity {
        let part = |name: &str| match name {
            "*" => Part::Default,
            name => Part::Is(name.to_owned()),
        };
        Entity {
            user: user.map(part),
            client_id: client_id.map(part),
            ip: None,
        }
    }

    #[test]
    fn the_rule_that_says_most_counts() {
        let all = [
            (Some("u"), Some("c")),
            (Some("u"), Some("*")),
            (Some("u"), None),
            (Some("*"), Some("c")),
            (Some("*"), Some("*")),
            (Some("*"), None),
            (None, Some("c")),
            (None, Some("*")),
        ];
        let bound = |n: usize| Values::from([(Quota::Fetch, n as f64)]);
        let mut rules: Rules = (all.iter().enumerate())
            .map(|(n, (user, client))| (entity(*user, *client), bound(n)))
            .collect();
        for (n, (user, client)) in all.iter().enumerate() {
            let (shared_user, shared_client, found) =
                of_client(&rules, Quota::Fetch, "u", "c").unwrap();
            assert_eq!(found, n as f64);
            assert_eq!(shared_user.is_some(), user.is_some());
            assert_eq!(shared_client.is_some(), client.is_some());
            assert!(of_client(&rules, Quota::Produce, "u", "c").is_none());
            rules.remove(&entity(*user, *client));
        }
        assert!(of_client(&rules, Quota::Fetch, "u", "c").is_none());
    }

    #[test]
    fn entities_come_back_from_what_is_kept_of_them() {
        for (user, client) in [
            (Some("u\"ä"), None),
            (Some("*"), Some("c")),
            (None, Some("*")),
        ] {
            let entity = entity(user, client);
            assert_eq!(Entity::from_json(&entity.to_json()), Some(entity));
        }
        let known = entity(Some("*"), Some("c"));
        assert_eq!(known.to_json(), r#"{"client-id":"c","user":null}"#);
        assert_eq!(Entity::from_json(r#"{"planet":"x"}"#), None);
    }
}

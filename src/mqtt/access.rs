//! What access rules say of this door: an MQTT topic is a TOPIC resource of the same name.
//!
//! | what | right |
//! |---|---|
//! | PUBLISH, and a will when it is published | WRITE on the topic's name |
//! | SUBSCRIBE to a name | READ on it |
//! | SUBSCRIBE to a filter with wildcards | READ on some name that it matches |
//! | a message to a subscriber, retained ones too | READ on the message's name |
//!
//! Which log topic a route takes a message to is the node's decision: nobody needs a right to that.
//! Because every message is asked for by its own name, a filter may be wider than what its subscriber
//! may read, and a rule that denies holds below a prefix that another one allows. A rule's change holds
//! for the next message. Where nobody configured an authorizer, and for super users, nothing is asked.

use super::topic::TopicFilter;
use crate::auth::{Caller, Names, Operation, Resource, ResourceType};

impl Names for TopicFilter {
    fn common_prefix(&self) -> &str {
        self.literal_prefix()
    }

    fn contains(&self, name: &str) -> bool {
        self.matches(name)
    }

    fn reaches(&self, prefix: &str) -> bool {
        self.matches_some_name_with(prefix)
    }
}

/// Whether a subscription to this filter can ever be given a message.
pub(crate) fn may_subscribe(caller: &Caller, filter: &TopicFilter) -> bool {
    if filter.has_wildcards() {
        caller.may_some_of(Operation::Read, ResourceType::Topic, filter)
    } else {
        caller.may(Operation::Read, Resource::topic(filter.as_str()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;

    use bytes::Bytes;
    use holdfast_storage::log::{Log, LogOptions};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::auth::{
        AclBinding, AclFilter, Auth, AuthConfig, Authorizer, PatternType, Permission, Principal,
    };
    use crate::mqtt::message::{DeliveryQueue, LiveMessage};
    use crate::mqtt::publish::QoS;
    use crate::mqtt::stats::MqttStats;
    use crate::mqtt::subscriptions::{Options, SubscriptionTable};
    use crate::mqtt::topic::{SubscriptionKey, TopicLimits};

    const LIMITS: TopicLimits = TopicLimits {
        bytes_max: 64,
        levels_max: 8,
    };

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, LIMITS).unwrap()
    }

    #[test]
    fn a_filter_knows_how_its_names_begin_and_where_they_may_reach() {
        for (text, prefix) in [
            ("a/b", "a/b"),
            ("a/b/#", "a/b"),
            ("a/+/c", "a/"),
            ("+/b", ""),
            ("#", ""),
            ("/#", "/"),
            ("ü/+", "ü/"),
        ] {
            assert_eq!(filter(text).common_prefix(), prefix, "{text}");
        }
        for (text, start, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("a/+", "a/bcd", true),
            ("a/+", "a/b/", false),
            ("a/+/c", "a/b/", true),
            ("a/+/cd", "a/b/c", true),
            ("a/+/c", "a/b/d", false),
            ("abc/+", "ab", true),
            ("+", "x", true),
        ] {
            assert_eq!(filter(text).reaches(start), expected, "{text} {start}");
        }
    }

    async fn authorized(dir: &tempfile::TempDir, open: bool) -> Auth {
        let options = LogOptions::new(dir.path());
        let config = AuthConfig {
            authorizer: Authorizer::Acl,
            super_users: vec!["User:admin".to_owned()],
            allow_everyone_if_no_acl_found: open,
            ..AuthConfig::default()
        };
        let log = tokio::task::spawn_blocking(|| Log::open(options)).await;
        Auth::open_with(log.unwrap().unwrap(), config)
            .await
            .unwrap()
    }

    fn caller(auth: &Auth) -> Caller {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Caller::new(auth.clone(), Principal::of_certificate("alice", here))
    }

    const PATTERNS: [&str; 9] = ["*", "a", "a/", "a/b", "a/b/", "b", "b/a", "/", "a/b/b"];
    const NAMES: [&str; 12] = [
        "a", "b", "/", "/a", "a/", "a/a", "a/b", "b/a", "a/b/a", "a/b/b", "ab", "b/b/b",
    ];

    fn any_rule() -> impl Strategy<Value = AclBinding> {
        (
            select(&PATTERNS),
            any::<bool>(),
            select(&["User:alice", "User:bob", "User:*"]),
            select(&[Operation::Read, Operation::All, Operation::Write]),
            any::<bool>(),
        )
            .prop_map(|(name, prefixed, principal, operation, allow)| AclBinding {
                resource_type: ResourceType::Topic,
                pattern_type: match prefixed && name != "*" {
                    true => PatternType::Prefixed,
                    false => PatternType::Literal,
                },
                name: name.to_owned(),
                principal: principal.to_owned(),
                host: "*".to_owned(),
                operation,
                permission: match allow {
                    true => Permission::Allow,
                    false => Permission::Deny,
                },
            })
    }

    fn any_filter() -> impl Strategy<Value = String> {
        (prop::collection::vec("[ab+]|", 1..4), any::<bool>()).prop_filter_map(
            "an empty filter",
            |(levels, tail)| {
                let text = levels.join("/") + if tail { "/#" } else { "" };
                (!text.is_empty()).then_some(text)
            },
        )
    }

    fn message(topic: &str) -> Arc<LiveMessage> {
        Arc::new(LiveMessage {
            topic: topic.to_owned(),
            payload: Bytes::new(),
            properties: Bytes::new(),
            expires_at_ms: None,
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: 0,
        })
    }

    /// A subscriber to every filter, with and without a group, through changes of the rules: it gets
    /// what matches and may be read, and nothing else.
    async fn check(auth: &Auth, filters: &[String], turns: &[Vec<AclBinding>], open: bool) {
        let alice = caller(auth);
        let options = Options {
            qos: QoS::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
        };
        let stats = MqttStats::default();
        let reading = alice.rights(Operation::Read).map(Arc::new);
        assert!(reading.is_some());
        let texts = filters
            .iter()
            .flat_map(|text| [text.clone(), format!("$share/g/{text}")]);
        let mut subscribed = Vec::new();
        for text in texts {
            let (queue, received) =
                DeliveryQueue::new("alice".to_owned(), 100, 1000, reading.clone());
            let mut table = SubscriptionTable::new(10);
            let key = SubscriptionKey::parse(&text, LIMITS).unwrap();
            let id = table.add(1, &queue, &key, options).unwrap().filter;
            subscribed.push((key.filter, id, table, received));
        }
        for rules in turns {
            let made = auth.create_acls(rules.clone()).await.unwrap();
            assert!(made.into_iter().all(|made| made.is_ok()));
            for (filter, id, table, received) in &mut subscribed {
                let matching = NAMES.iter().filter(|name| filter.matches(name));
                let mut readable = Vec::new();
                for name in matching {
                    table.deliver(*id, &message(name), &stats);
                    if alice.may(Operation::Read, Resource::topic(name)) {
                        readable.push((*name).to_owned());
                    }
                }
                let mut got = Vec::new();
                while let Ok(delivery) = received.try_recv() {
                    got.push(delivery.message.topic.clone());
                }
                let text = filter.as_str();
                assert_eq!(got, readable, "{text} {rules:?} {open}");
                let refused = !may_subscribe(&alice, filter);
                assert!(!refused || readable.is_empty(), "{text} {rules:?} {open}");
            }
            auth.delete_acls(&AclFilter::default()).await.unwrap();
        }
    }

    fn run(open: bool) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        let auth = runtime.block_on(authorized(&dir, open));
        let rules = prop::collection::vec(any_rule(), 0..6);
        let cases = (
            prop::collection::vec(any_filter(), 1..6),
            prop::collection::vec(rules, 1..4),
        );
        let config = ProptestConfig {
            cases: 48,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let mut runner = proptest::test_runner::TestRunner::new(config);
        let ran = runner.run(&cases, |(filters, turns)| {
            runtime.block_on(check(&auth, &filters, &turns, open));
            Ok(())
        });
        ran.unwrap();
    }

    #[test]
    fn no_message_of_a_denied_topic_is_delivered_and_every_other_is() {
        run(false);
    }

    #[test]
    fn the_same_holds_where_topics_without_rules_are_open() {
        run(true);
    }

    #[tokio::test]
    async fn a_filter_is_granted_where_some_of_it_may_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let auth = authorized(&dir, false).await;
        let rule = |permission, pattern_type, name: &str| AclBinding {
            resource_type: ResourceType::Topic,
            pattern_type,
            name: name.to_owned(),
            principal: "User:alice".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Read,
            permission,
        };
        use PatternType::{Literal, Prefixed};
        use Permission::{Allow, Deny};
        let made = auth.create_acls(vec![
            rule(Allow, Prefixed, "site/1/"),
            rule(Deny, Prefixed, "site/1/secret"),
            rule(Allow, Literal, "status"),
        ]);
        made.await.unwrap();
        let alice = caller(&auth);
        for (text, expected) in [
            ("site/1/#", true),
            ("site/1/+", true),
            ("site/+/temperature", true),
            ("site/#", true),
            ("#", true),
            ("+", true),
            ("status", true),
            ("status/#", true),
            ("site/1/secret/#", false),
            ("site/1/secret/+/a", false),
            ("site/2/#", false),
            ("site/+", false),
            ("+/status", false),
            ("site/1", false),
        ] {
            assert_eq!(may_subscribe(&alice, &filter(text)), expected, "{text}");
        }
    }
}

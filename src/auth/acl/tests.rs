//! The rules held against a naive reading of Kafka's documentation, and their life in the log.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::net::IpAddr;

use holdfast_storage::log::LogOptions;
use proptest::prelude::*;
use proptest::sample::select;

use super::binding::*;
use super::rules::{Rules, Verdict};
use super::*;
use crate::auth::{Auth, Authentication};

const HOST: &str = "192.0.2.1";

fn principal(name: &str, host: &str) -> Principal {
    Principal::new(name, Authentication::Secret, host.parse().unwrap())
}

/// `ALLOW User:alice READ TOPIC LITERAL orders from *`, in fewer words.
fn rule(permission: Permission, who: &str, operation: Operation, pattern: &str) -> AclBinding {
    let (pattern_type, name) = match pattern.strip_suffix('~') {
        Some(prefix) => (PatternType::Prefixed, prefix),
        None => (PatternType::Literal, pattern),
    };
    AclBinding {
        resource_type: ResourceType::Topic,
        pattern_type,
        name: name.to_owned(),
        principal: format!("User:{who}"),
        host: WILDCARD.to_owned(),
        operation,
        permission,
    }
}

fn allow(who: &str, operation: Operation, pattern: &str) -> AclBinding {
    rule(Permission::Allow, who, operation, pattern)
}

fn deny(who: &str, operation: Operation, pattern: &str) -> AclBinding {
    rule(Permission::Deny, who, operation, pattern)
}

fn rules(bindings: &[AclBinding]) -> Rules {
    let mut rules = Rules::default();
    bindings.iter().for_each(|binding| rules.insert(binding));
    rules
}

fn judge(bindings: &[AclBinding], who: &str, operation: Operation, topic: &str) -> Verdict {
    rules(bindings).judge(&principal(who, HOST), operation, Resource::topic(topic))
}

#[test]
fn denying_wins_wherever_it_stands() {
    for (allowing, denying) in [
        ("orders", "orders"),
        ("*", "or~"),
        ("or~", "*"),
        ("orders", "*"),
    ] {
        let both = [
            allow("alice", Operation::Read, allowing),
            deny("*", Operation::Read, denying),
        ];
        assert_eq!(
            judge(&both[..1], "alice", Operation::Read, "orders"),
            Verdict::Allowed
        );
        assert_eq!(
            judge(&both, "alice", Operation::Read, "orders"),
            Verdict::Denied
        );
    }
}

#[test]
fn who_may_change_may_look_but_who_may_not_change_may_still_look() {
    use Operation::*;
    for operation in [Read, Write, Delete, Alter] {
        let own = [allow("alice", operation, "orders")];
        assert_eq!(judge(&own, "alice", Describe, "orders"), Verdict::Allowed);
        assert_eq!(
            judge(&own, "alice", DescribeConfigs, "orders"),
            Verdict::Denied
        );
        let own = [
            allow("alice", Describe, "orders"),
            deny("alice", operation, "orders"),
        ];
        assert_eq!(judge(&own, "alice", Describe, "orders"), Verdict::Allowed);
        assert_eq!(judge(&own, "alice", operation, "orders"), Verdict::Denied);
    }
    let own = [allow("alice", AlterConfigs, "orders")];
    assert_eq!(
        judge(&own, "alice", DescribeConfigs, "orders"),
        Verdict::Allowed
    );
    assert_eq!(judge(&own, "alice", Describe, "orders"), Verdict::Denied);
    let own = [allow("alice", All, "orders"), deny("bob", All, "orders")];
    for operation in [Read, Create, AlterConfigs, Describe] {
        assert_eq!(judge(&own, "alice", operation, "orders"), Verdict::Allowed);
        assert_eq!(judge(&own, "bob", operation, "orders"), Verdict::Denied);
    }
}

#[test]
fn a_rule_for_somebody_else_closes_a_resource() {
    let own = [allow("alice", Operation::Read, "orders")];
    assert_eq!(
        judge(&own, "bob", Operation::Read, "orders"),
        Verdict::Denied
    );
    assert_eq!(
        judge(&own, "bob", Operation::Read, "orders2"),
        Verdict::NoRule
    );
    let group = Resource::group("orders");
    let asked = rules(&own).judge(&principal("bob", HOST), Operation::Read, group);
    assert_eq!(asked, Verdict::NoRule);
}

#[test]
fn hosts_are_compared_as_addresses() {
    let from = |host: &str, peer: &str| {
        let own = AclBinding {
            host: host.to_owned(),
            ..allow("alice", Operation::Read, "orders")
        };
        let alice = principal("alice", peer);
        rules(&[own]).judge(&alice, Operation::Read, Resource::topic("orders"))
    };
    for (host, peer) in [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("*", "2001:db8::1"),
    ] {
        assert_eq!(from(host, peer), Verdict::Allowed, "{host} {peer}");
    }
    for (host, peer) in [("192.0.2.1", "192.0.2.2"), ("example.org", "192.0.2.1")] {
        assert_eq!(from(host, peer), Verdict::Denied, "{host} {peer}");
    }
}

// The reference: one pass over all rules, from the documentation of the authorizer.

fn covers(binding: &AclBinding, name: &str) -> bool {
    match binding.pattern_type {
        PatternType::Literal => binding.name == "*" || binding.name == name,
        PatternType::Prefixed => name.starts_with(&binding.name),
    }
}

fn naive(
    bindings: &[AclBinding],
    who: &Principal,
    operation: Operation,
    resource: (ResourceType, &str),
    implied: bool,
) -> Verdict {
    use Operation::*;
    let (mut any, mut allowed) = (false, false);
    for one in bindings {
        if one.resource_type != resource.0 || !covers(one, resource.1) {
            continue;
        }
        any = true;
        let host = one.host == "*" || one.host == who.peer().to_string();
        if !host || (one.principal != "User:*" && one.principal != who.full_name()) {
            continue;
        }
        let exact = one.operation == All || one.operation == operation;
        if one.permission == Permission::Deny && exact {
            return Verdict::Denied;
        }
        let by_implication = match operation {
            Describe => [Read, Write, Delete, Alter].contains(&one.operation),
            DescribeConfigs => one.operation == AlterConfigs,
            _ => false,
        };
        allowed |= one.permission == Permission::Allow && (exact || (implied && by_implication));
    }
    match (allowed, any) {
        (true, _) => Verdict::Allowed,
        (false, true) => Verdict::Denied,
        (false, false) => Verdict::NoRule,
    }
}

/// Names that tell all patterns over them apart: those that are named, each continued by a letter
/// that no pattern knows, and that letter.
fn naive_some(
    bindings: &[AclBinding],
    who: &Principal,
    operation: Operation,
    resource_type: ResourceType,
    open_without_rule: bool,
) -> bool {
    let named = bindings.iter().map(|one| one.name.clone());
    let continued = bindings.iter().map(|one| format!("{}z", one.name));
    let mut names = named.chain(continued).filter(|name| name != "*");
    let mut names = names.by_ref().chain(["z".to_owned()]);
    names.any(
        |name| match naive(bindings, who, operation, (resource_type, &name), false) {
            Verdict::Allowed => true,
            Verdict::Denied => false,
            Verdict::NoRule => open_without_rule,
        },
    )
}

const TYPES: [ResourceType; 2] = [ResourceType::Topic, ResourceType::Group];
const OPERATIONS: [Operation; 7] = [
    Operation::All,
    Operation::Read,
    Operation::Write,
    Operation::Describe,
    Operation::AlterConfigs,
    Operation::DescribeConfigs,
    Operation::Create,
];
const NAMES: [&str; 9] = ["*", "a", "b", "aa", "ab", "ä", "aä", "aab", "*a"];

fn any_binding() -> impl Strategy<Value = AclBinding> {
    (
        select(&TYPES),
        any::<bool>(),
        select(&NAMES),
        select(&["User:alice", "User:bob", "User:*", "Group:alice"]),
        select(&["*", HOST, "192.0.2.2"]),
        select(&OPERATIONS),
        any::<bool>(),
    )
        .prop_map(
            |(resource_type, prefixed, name, principal, host, operation, allow)| AclBinding {
                resource_type,
                pattern_type: if prefixed {
                    PatternType::Prefixed
                } else {
                    PatternType::Literal
                },
                name: name.to_owned(),
                principal: principal.to_owned(),
                host: host.to_owned(),
                operation,
                permission: if allow {
                    Permission::Allow
                } else {
                    Permission::Deny
                },
            },
        )
}

fn optional<T: Clone + std::fmt::Debug + 'static>(
    values: &'static [T],
) -> impl Strategy<Value = Option<T>> {
    prop_oneof![Just(None), select(values).prop_map(Some)]
}

fn any_filter() -> impl Strategy<Value = AclFilter> {
    (
        optional(&TYPES),
        select(&[
            PatternFilter::Any,
            PatternFilter::Match,
            PatternFilter::Only(PatternType::Literal),
            PatternFilter::Only(PatternType::Prefixed),
        ]),
        optional(&NAMES),
        optional(&["User:alice", "User:*"]),
        optional(&["*", HOST]),
        optional(&OPERATIONS),
        optional(&[Permission::Allow, Permission::Deny]),
    )
        .prop_map(
            |(resource_type, pattern, name, principal, host, operation, permission)| AclFilter {
                resource_type,
                pattern,
                name: name.map(str::to_owned),
                principal: principal.map(str::to_owned),
                host: host.map(str::to_owned),
                operation,
                permission,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_index_decides_like_the_list(
        bindings in prop::collection::btree_set(any_binding(), 0..12),
        gone in prop::collection::btree_set(any_binding(), 0..6),
    ) {
        // What came and went must leave no trace.
        let mut index = rules(&[]);
        gone.difference(&bindings).for_each(|one| index.insert(one));
        bindings.iter().for_each(|one| index.insert(one));
        gone.difference(&bindings).for_each(|one| index.remove(one));
        let bindings: Vec<AclBinding> = bindings.into_iter().collect();
        for who in ["alice", "carol"].map(|name| principal(name, HOST)) {
            for operation in &OPERATIONS[1..] {
                for resource_type in TYPES {
                    for name in ["a", "b", "aa", "aab", "ä", "aäb", "*", "*ab", "c"] {
                        let resource = Resource { resource_type, name };
                        prop_assert_eq!(
                            index.judge(&who, *operation, resource),
                            naive(&bindings, &who, *operation, (resource_type, name), true),
                            "{} {:?} {}", who, operation, name
                        );
                    }
                    for open in [false, true] {
                        prop_assert_eq!(
                            index.allow_some(&who, *operation, resource_type, open),
                            naive_some(&bindings, &who, *operation, resource_type, open),
                            "{} {:?} {:?} {}", who, operation, resource_type, open
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn filters_match_field_by_field(binding in any_binding(), filter in any_filter()) {
        let field = |wanted: Option<String>, found: String| wanted.is_none_or(|one| one == found);
        let text = |one: &dyn std::fmt::Debug| format!("{one:?}");
        let pattern = match (filter.pattern, &filter.name) {
            (PatternFilter::Only(only), _) if only != binding.pattern_type => false,
            (_, None) => true,
            (PatternFilter::Match, Some(name)) => covers(&binding, name),
            (_, Some(name)) => *name == binding.name,
        };
        let expected = pattern
            && field(filter.resource_type.map(|one| text(&one)), text(&binding.resource_type))
            && field(filter.principal.clone(), binding.principal.clone())
            && field(filter.host.clone(), binding.host.clone())
            && field(filter.operation.map(|one| text(&one)), text(&binding.operation))
            && field(filter.permission.map(|one| text(&one)), text(&binding.permission));
        prop_assert_eq!(filter.matches(&binding), expected);
    }

    #[test]
    fn a_rule_reads_back_as_it_was_stored(binding in any_binding()) {
        prop_assert_eq!(AclBinding::from_bytes(&binding.to_bytes()).unwrap(), binding);
    }
}

#[test]
fn the_stored_form_is_pinned() {
    let stored = r#"{"v":1,"resource_type":"TRANSACTIONAL_ID","pattern_type":"PREFIXED","name":"pay-","principal":"User:alice","host":"*","operation":"IDEMPOTENT_WRITE","permission":"DENY"}"#;
    let binding = AclBinding {
        resource_type: ResourceType::TransactionalId,
        ..deny("alice", Operation::IdempotentWrite, "pay-~")
    };
    assert_eq!(String::from_utf8(binding.to_bytes()).unwrap(), stored);
    assert_eq!(AclBinding::from_bytes(stored.as_bytes()).unwrap(), binding);
    let newer = stored.replace("\"v\":1", "\"v\":2");
    assert!(AclBinding::from_bytes(newer.as_bytes()).is_err());
}

#[test]
fn what_kafka_refuses_is_refused_in_its_words() {
    let good = allow("alice", Operation::Read, "orders");
    assert_eq!(good.check(), Ok(()));
    let refused = |binding: AclBinding, part: &str| {
        let error = binding.check().unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    let with = |name: &str, principal: &str| AclBinding {
        name: name.to_owned(),
        principal: principal.to_owned(),
        ..good.clone()
    };
    refused(with("", "User:alice"), "Invalid empty resource name");
    refused(
        with("orders", "alice"),
        "Could not parse principal from `alice`",
    );
    refused(with("orders", "User:"), "Could not parse principal");
    refused(
        with(&"x".repeat(1025), "User:alice"),
        "Invalid resource name",
    );
    let cluster = AclBinding {
        resource_type: ResourceType::Cluster,
        ..good.clone()
    };
    refused(
        cluster.clone(),
        "The only valid name for the CLUSTER resource is kafka-cluster",
    );
    let named = AclBinding {
        name: CLUSTER_NAME.to_owned(),
        ..cluster
    };
    assert_eq!(named.check(), Ok(()));
}

// Over a real log.

fn config() -> AuthConfig {
    AuthConfig {
        authorizer: Authorizer::Acl,
        super_users: vec!["User:admin".to_owned()],
        ..AuthConfig::default()
    }
}

async fn open(dir: &tempfile::TempDir, config: AuthConfig) -> (Log, Auth) {
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let auth = Auth::open_with(log.clone(), config).await.unwrap();
    (log, auth)
}

fn may(auth: &Auth, who: &str, operation: Operation, topic: &str) -> bool {
    auth.authorize(&principal(who, HOST), operation, Resource::topic(topic))
}

#[tokio::test]
async fn rules_are_in_force_when_they_are_made_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (log, auth) = open(&dir, config()).await;
    assert!(!may(&auth, "alice", Operation::Read, "orders"));
    assert!(may(&auth, "admin", Operation::Read, "orders"));
    let made = vec![
        allow("alice", Operation::Read, "or~"),
        allow("", Operation::Read, "x"),
        deny("alice", Operation::Read, "orders.secret"),
        allow("alice", Operation::Read, "or~"),
    ];
    let answers = auth.create_acls(made.clone()).await.unwrap();
    let good: Vec<bool> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, true]);
    let check = |auth: &Auth| {
        assert!(may(auth, "alice", Operation::Read, "orders"));
        assert!(may(auth, "alice", Operation::Describe, "orders"));
        assert!(!may(auth, "alice", Operation::Write, "orders"));
        assert!(!may(auth, "alice", Operation::Read, "orders.secret"));
        assert!(!may(auth, "bob", Operation::Read, "orders"));
        let alice = principal("alice", HOST);
        let some =
            |operation| auth.authorize_by_resource_type(&alice, operation, ResourceType::Topic);
        assert!(some(Operation::Read) && !some(Operation::Write));
        assert_eq!(auth.acls(&AclFilter::default()).unwrap().len(), 2);
    };
    check(&auth);
    drop(auth);
    log.close();
    drop(log);

    let (log, auth) = open(&dir, config()).await;
    check(&auth);
    let of_alice = AclFilter {
        permission: Some(Permission::Deny),
        ..AclFilter::default()
    };
    assert_eq!(auth.delete_acls(&of_alice).await.unwrap(), made[2..3]);
    assert!(may(&auth, "alice", Operation::Read, "orders.secret"));
    assert_eq!(auth.delete_acls(&of_alice).await.unwrap(), []);
    assert_eq!(log.settings(ACL_KIND).len(), 1);
    drop(auth);
    log.close();
    drop(log);
    let (_log, auth) = open(&dir, config()).await;
    assert!(may(&auth, "alice", Operation::Read, "orders.secret"));
}

#[tokio::test]
async fn without_an_authorizer_everybody_may_and_rules_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_log, auth) = open(&dir, AuthConfig::default()).await;
    assert!(may(&auth, "alice", Operation::Alter, "orders"));
    let anonymous = Principal::anonymous(HOST.parse::<IpAddr>().unwrap());
    assert!(auth.authorize(&anonymous, Operation::ClusterAction, Resource::CLUSTER));
    assert!(auth.authorize_by_resource_type(&anonymous, Operation::Write, ResourceType::Topic));
    assert_eq!(auth.acls(&AclFilter::default()), Err(AclError::Disabled));
    assert_eq!(auth.create_acls(Vec::new()).await, Err(AclError::Disabled));
    assert_eq!(
        auth.delete_acls(&AclFilter::default()).await,
        Err(AclError::Disabled)
    );
}

#[tokio::test]
async fn what_no_rule_names_is_open_where_the_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let config = AuthConfig {
        allow_everyone_if_no_acl_found: true,
        ..config()
    };
    let (_log, auth) = open(&dir, config).await;
    auth.create_acls(vec![allow("alice", Operation::Read, "orders")])
        .await
        .unwrap();
    assert!(may(&auth, "bob", Operation::Write, "payments"));
    assert!(!may(&auth, "bob", Operation::Write, "orders"));
}

#[tokio::test]
async fn a_rule_that_cannot_be_read_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (log, auth) = open(&dir, config()).await;
    drop(auth);
    let damaged = Some(Bytes::from_static(b"{}"));
    log.put_setting(ACL_KIND, "00", damaged).await.unwrap();
    let opened = Auth::open_with(log, config()).await;
    let Err(AuthError::DamagedSetting { kind, .. }) = opened else {
        panic!("opened")
    };
    assert_eq!(kind, ACL_KIND);
}

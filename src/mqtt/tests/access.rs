//! Access rules at the door.

use super::client::{Client, Hello, Message};
use super::{MqttConfig, Node};
use crate::auth::{
    AclBinding, AclFilter, AuthConfig, Authorizer, Operation, PatternType, Permission, ResourceType,
};
use crate::mqtt::{MqttStats, reason};

async fn start() -> Node {
    start_with(MqttConfig::default()).await
}

async fn start_with(config: MqttConfig) -> Node {
    let auth = AuthConfig {
        authorizer: Authorizer::Acl,
        super_users: vec!["User:admin".to_owned()],
        ..AuthConfig::default()
    };
    Node::start_all(tempfile::tempdir().unwrap(), config, auth).await
}

/// Of `alice`; a pattern that ends with `~` is a prefix.
fn rule(permission: Permission, operation: Operation, pattern: &str) -> AclBinding {
    let (pattern_type, name) = match pattern.strip_suffix('~') {
        Some(prefix) => (PatternType::Prefixed, prefix),
        None => (PatternType::Literal, pattern),
    };
    AclBinding {
        resource_type: ResourceType::Topic,
        pattern_type,
        name: name.to_owned(),
        principal: "User:alice".to_owned(),
        host: "*".to_owned(),
        operation,
        permission,
    }
}

impl Node {
    async fn allow(&self, operation: Operation, pattern: &str) {
        let rule = rule(Permission::Allow, operation, pattern);
        self.auth.create_acls(vec![rule]).await.unwrap();
    }

    async fn deny(&self, operation: Operation, pattern: &str) {
        let rule = rule(Permission::Deny, operation, pattern);
        self.auth.create_acls(vec![rule]).await.unwrap();
    }

    async fn connect(&self, user: &str, hello: Hello) -> Client {
        let secret = self.auth.renew_token(user).await.unwrap();
        let login = Some((user.to_owned(), secret));
        Client::connect(self.address, Hello { login, ..hello }).await
    }
}

/// What follows in the PUBACK of a publish that was taken.
const DONE: [u8; 0] = [];

/// A publish of QoS 1 and its PUBACK after the packet identifier.
async fn publish(client: &mut Client, topic: &str, id: u16) -> Vec<u8> {
    client
        .send(&Message::v5(topic, topic, id, &[]).packet())
        .await;
    let ack = client.expect(0x40).await;
    assert_eq!(ack[..2], id.to_be_bytes());
    ack[2..].to_vec()
}

#[tokio::test]
async fn what_may_not_be_written_is_refused_in_its_turn_and_kept_nowhere() {
    let node = start().await;
    node.allow(Operation::Write, "site/1/~").await;
    node.deny(Operation::Write, "site/1/closed").await;
    let mut alice = node.connect("alice", Hello::v5("a")).await;
    let burst: Vec<u8> = [
        ("site/1/a", 1),
        ("site/1/closed", 2),
        ("site/1/b", 3),
        ("site/2/a", 4),
        ("site/2/a", 0),
        ("site/1/c", 5),
    ]
    .into_iter()
    .flat_map(|(topic, id)| Message::v5(topic, topic, id, &[]).packet())
    .collect();
    alice.send(&burst).await;
    for (id, expected) in [
        (1, &[][..]),
        (2, &[reason::NOT_AUTHORIZED]),
        (3, &[]),
        (4, &[reason::NOT_AUTHORIZED]),
        (5, &[]),
    ] {
        let ack = alice.expect(0x40).await;
        assert_eq!((ack[1], &ack[2..]), (id, expected));
    }
    let mut kept = node.values("mqtt.unrouted");
    kept.sort();
    assert_eq!(kept, ["site/1/a", "site/1/b", "site/1/c"]);
    assert_eq!(MqttStats::get(&node.stats.denied), 3);
    assert_eq!(MqttStats::get(&node.stats.acked), 3);
    node.stop().await;
}

#[tokio::test]
async fn a_client_of_3_1_1_is_closed_rather_than_told_a_lie() {
    let node = start().await;
    node.allow(Operation::Write, "open").await;
    let mut alice = node.connect("alice", Hello::v3("a")).await;
    alice.send(&Message::v3("closed", "x", 0).packet()).await;
    alice.publish(Message::v3("open", "x", 1)).await;
    let both = [Message::v3("open", "y", 2), Message::v3("closed", "y", 3)];
    let both: Vec<u8> = both.iter().flat_map(Message::packet).collect();
    alice.send(&both).await;
    assert_eq!(alice.expect(0x40).await[..], [0, 2]);
    assert_eq!(alice.packet().await, None);
    assert_eq!(node.values("mqtt.unrouted").len(), 2);
    node.stop().await;
}

#[tokio::test]
async fn subscribers_get_what_they_may_read_and_a_rule_holds_for_the_next_message() {
    let node = start().await;
    node.allow(Operation::Read, "site/~").await;
    node.deny(Operation::Read, "site/secret/~").await;
    let mut alice = node.connect("alice", Hello::v5("a")).await;
    let filters = [
        ("site/#", 1),
        ("other/#", 1),
        ("site/secret/x", 1),
        ("other", 0),
    ];
    assert_eq!(
        alice.subscribe_with(&[], &filters).await,
        [
            1,
            reason::NOT_AUTHORIZED,
            reason::NOT_AUTHORIZED,
            reason::NOT_AUTHORIZED
        ]
    );
    let mut old = node.connect("alice", Hello::v3("old")).await;
    assert_eq!(
        old.subscribe_with(&[], &[("other", 1), ("#", 0)]).await,
        [0x80, 0]
    );
    let mut admin = node.connect("admin", Hello::v5("p")).await;
    for (id, topic) in [(1, "site/secret/x"), (2, "other"), (3, "site/a")] {
        assert_eq!(publish(&mut admin, topic, id).await, DONE);
    }
    assert_eq!(alice.receive().await.topic, "site/a");
    assert_eq!(old.receive().await.topic, "site/a");

    node.deny(Operation::Read, "site/a").await;
    node.allow(Operation::Read, "other").await;
    for (id, topic) in [(4, "site/a"), (5, "other"), (6, "site/b")] {
        assert_eq!(publish(&mut admin, topic, id).await, DONE);
    }
    assert_eq!(alice.receive().await.topic, "site/b");
    assert_eq!(old.receive().await.topic, "other");
    assert_eq!(old.receive().await.topic, "site/b");
    node.stop().await;
}

#[tokio::test]
async fn what_waits_for_a_slow_subscriber_is_asked_for_again() {
    let node = start().await;
    node.allow(Operation::Read, "a").await;
    node.allow(Operation::Read, "b").await;
    // It takes one message unacknowledged.
    let properties = vec![33, 0, 1];
    let hello = Hello {
        properties,
        ..Hello::v5("a")
    };
    let mut alice = node.connect("alice", hello).await;
    alice.subscribe_with(&[], &[("#", 1)]).await;
    let mut admin = node.connect("admin", Hello::v5("p")).await;
    for (id, topic) in [(1, "b"), (2, "a"), (3, "b")] {
        assert_eq!(publish(&mut admin, topic, id).await, DONE);
    }
    let first = alice.receive_quietly().await;
    assert_eq!(first.topic, "b");
    node.deny(Operation::Read, "a").await;
    alice.send(&[0x40, 2, 0, first.id as u8]).await;
    assert_eq!(alice.receive().await.topic, "b");
    node.stop().await;
}

#[tokio::test]
async fn retained_messages_and_wills_are_asked_for_too() {
    let node = start().await;
    node.allow(Operation::Read, "site/~").await;
    node.deny(Operation::Read, "site/secret").await;
    let mut admin = node.connect("admin", Hello::v5("p")).await;
    for (id, topic) in [(1, "site/secret"), (2, "site/open")] {
        let message = Message::v5(topic, "kept", id, &[]);
        let retained = Message {
            retain: true,
            ..message
        };
        admin.publish(retained).await;
    }
    let mut alice = node.connect("alice", Hello::v5("a")).await;
    alice.subscribe_with(&[], &[("#", 1)]).await;
    assert_eq!(alice.receive().await.topic, "site/open");

    admin.subscribe_with(&[], &[("will/#", 1)]).await;
    for (client, topic) in [("one", "will/closed"), ("two", "will/open")] {
        let will = Some((topic.to_owned(), "gone".to_owned(), 1 << 3));
        let hello = Hello {
            will,
            ..Hello::v5(client)
        };
        let dying = node.connect("alice", hello).await;
        // Whether it may be published is decided when it is.
        node.allow(Operation::Write, "will/open").await;
        drop(dying);
    }
    assert_eq!(admin.receive().await.topic, "will/open");
    node.stop().await;
}

#[tokio::test]
async fn a_shared_message_goes_to_a_member_that_may_read_it() {
    let node = start().await;
    node.allow(Operation::Read, "a").await;
    let mut alice = node.connect("alice", Hello::v5("a")).await;
    let mut admin = node.connect("admin", Hello::v5("b")).await;
    for client in [&mut alice, &mut admin] {
        client.subscribe_with(&[], &[("$share/g/#", 1)]).await;
    }
    let mut publisher = node.connect("admin", Hello::v5("p")).await;
    for id in 1..=6 {
        assert_eq!(publish(&mut publisher, "b", id).await, DONE);
    }
    for _ in 0..6 {
        assert_eq!(admin.receive().await.topic, "b");
    }
    node.stop().await;
}

#[tokio::test]
async fn rules_that_go_let_nothing_through() {
    let node = start().await;
    node.allow(Operation::All, "a").await;
    let mut alice = node.connect("alice", Hello::v5("a")).await;
    assert_eq!(publish(&mut alice, "a", 1).await, DONE);
    node.auth.delete_acls(&AclFilter::default()).await.unwrap();
    assert_eq!(publish(&mut alice, "a", 2).await, [reason::NOT_AUTHORIZED]);
    let mut anonymous = Client::connect(node.address, Hello::v5("x")).await;
    assert_eq!(
        publish(&mut anonymous, "a", 1).await,
        [reason::NOT_AUTHORIZED]
    );
    node.stop().await;
}

#[tokio::test]
async fn denied_filters_take_no_room_and_only_so_many_are_asked_for() {
    let config = MqttConfig {
        subscriptions_per_client_max: 3,
        ..MqttConfig::default()
    };
    let node = start_with(config).await;
    node.allow(Operation::Read, "open/~").await;
    let mut alice = node.connect("alice", Hello::v5("a")).await;
    alice
        .subscribe_with(&[], &[("open/1", 0), ("open/2", 0)])
        .await;
    let wanted = [("closed/1", 0), ("closed/2", 0), ("open/3", 1)];
    let codes = alice.subscribe_with(&[], &wanted).await;
    assert_eq!(codes, [reason::NOT_AUTHORIZED, reason::NOT_AUTHORIZED, 1]);
    assert_eq!(MqttStats::get(&node.stats.denied), 2);

    let names: Vec<String> = (0..1_000).map(|n| format!("closed/{n}")).collect();
    let wanted: Vec<_> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let codes = alice.subscribe_with(&[], &wanted).await;
    assert_eq!(codes[..3], [reason::NOT_AUTHORIZED; 3]);
    assert!(
        codes[3..]
            .iter()
            .all(|code| *code == reason::QUOTA_EXCEEDED)
    );
    assert_eq!(MqttStats::get(&node.stats.denied), 5);
    node.stop().await;
}

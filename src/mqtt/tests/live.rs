//! Live subscribers and retained messages.

use super::client::{Client, Hello, Message, packet, text};
use super::{MqttConfig, Node};
use crate::mqtt::{MqttStats, reason};

#[tokio::test]
async fn subscribers_get_what_matches_with_the_lesser_qos() {
    let node = Node::start().await;
    let mut one = Client::connect(node.address, Hello::v3("one")).await;
    one.subscribe("telemetry/+/dev", 1).await;
    let mut zero = Client::connect(node.address, Hello::v3("zero")).await;
    zero.subscribe("#", 0).await;
    let mut both = Client::connect(node.address, Hello::v3("both")).await;
    assert_eq!(
        both.subscribe_with(&[], &[("ünïcode/#", 2), ("telemetry/a/dev", 2)])
            .await,
        [1, 1]
    );
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    publisher
        .publish(Message::v3("telemetry/a/dev", "1", 1))
        .await;
    publisher
        .publish(Message::v3("telemetry/a/dev", "2", 0))
        .await;
    publisher.publish(Message::v3("ünïcode/x", "3", 2)).await;
    let (first, second) = (one.receive().await, one.receive().await);
    assert_eq!(
        (first.payload.as_str(), first.id > 0, first.retain),
        ("1", true, false)
    );
    assert_eq!((second.payload.as_str(), second.id), ("2", 0));
    for payload in ["1", "2", "3"] {
        let got = zero.receive().await;
        assert_eq!((got.payload.as_str(), got.id), (payload, 0));
    }
    for payload in ["1", "2", "3"] {
        assert_eq!(both.receive().await.payload, payload);
    }
    assert_eq!(MqttStats::get(&node.stats.subscriptions), 4);
    node.stop().await;
}

#[tokio::test]
async fn properties_travel_to_mqtt_5_and_are_left_out_for_3_1_1() {
    let node = Node::start().await;
    let mut five = Client::connect(node.address, Hello::v5("five")).await;
    assert_eq!(
        five.subscribe_with(&[11, 0x81, 0x01], &[("speed/+", 1)])
            .await,
        [1]
    );
    let mut three = Client::connect(node.address, Hello::v3("three")).await;
    three.subscribe("speed/+", 1).await;
    let mut publisher = Client::connect(node.address, Hello::v5("p")).await;
    let travelling = [
        &[1, 1, 3][..],
        &text("json"),
        &[8],
        &text("re"),
        &[9],
        &text("co"),
        &[38],
        &text("k"),
        &text("v"),
    ]
    .concat();
    let sent = [&[35, 0, 1, 2, 0, 0, 0, 90][..], &travelling].concat();
    publisher
        .publish(Message::v5("speed/a", "x", 1, &sent))
        .await;
    let got = five.receive().await;
    assert_eq!((got.topic.as_str(), got.payload.as_str()), ("speed/a", "x"));
    let expected = [&[2, 0, 0, 0, 90][..], &travelling, &[11, 0x81, 0x01]].concat();
    assert_eq!(got.properties, expected);
    let got = three.receive().await;
    assert_eq!((got.topic.as_str(), got.payload.as_str()), ("speed/a", "x"));
    node.stop().await;
}

#[tokio::test]
async fn no_local_keeps_a_client_from_hearing_itself() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v5("c")).await;
    assert_eq!(client.subscribe_with(&[], &[("a", 4)]).await, [0]);
    let mut other = Client::connect(node.address, Hello::v5("o")).await;
    client.publish(Message::v5("a", "own", 1, &[])).await;
    other.publish(Message::v5("a", "other's", 1, &[])).await;
    assert_eq!(client.receive().await.payload, "other's");
    assert_eq!(client.unsubscribe(&["a"]).await, [0, 0]);
    let mut shared = Client::connect(node.address, Hello::v5("s")).await;
    let body = [&[0, 1, 0][..], &text("$share/g/a"), &[4]].concat();
    shared.send(&packet(0x82, &body)).await;
    assert_eq!(shared.closed().await, Some(reason::PROTOCOL_ERROR));
    node.stop().await;
}

#[tokio::test]
async fn filters_are_judged_one_by_one() {
    let config = MqttConfig {
        subscriptions_per_client_max: 3,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut five = Client::connect(node.address, Hello::v5("five")).await;
    let wanted = [
        ("a/#/b", 0),
        ("a", 0),
        ("$SYS/#", 0),
        ("b", 1),
        ("a", 1),
        ("c", 2),
        ("d", 0),
    ];
    let codes = five.subscribe_with(&[], &wanted).await;
    assert_eq!(codes, [0x8f, 0, 0x8f, 1, 1, 1, 0x97]);
    assert_eq!(
        five.unsubscribe(&["a", "zzz", "x#"]).await,
        [0, 0, 0x11, 0x8f]
    );
    let mut three = Client::connect(node.address, Hello::v3("three")).await;
    let codes = three.subscribe_with(&[], &[("a/#/b", 0), ("a", 1)]).await;
    assert_eq!(codes, [0x80, 1]);
    assert!(
        three.unsubscribe(&["a", "zzz"]).await.is_empty(),
        "3.1.1 knows no reasons"
    );
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    publisher.publish(Message::v3("a", "unheard", 1)).await;
    publisher.publish(Message::v3("b", "heard", 2)).await;
    assert_eq!(five.receive().await.payload, "heard");
    three.ping().await;
    node.stop().await;
}

#[tokio::test]
async fn a_filter_that_a_packet_repeats_is_one_subscription() {
    let node = Node::start().await;
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    for n in 1..=20 {
        publisher
            .publish(retained(&format!("r/{n:02}"), "kept", n))
            .await;
    }
    let mut wanted = vec![("#", 1); 200_000];
    wanted.push(("#", 0));
    let mut codes = vec![1; 200_000];
    codes.push(0);
    for hello in [Hello::v3("three"), Hello::v5("five")] {
        let mut client = Client::connect(node.address, hello).await;
        assert!(client.subscribe_with(&[], &wanted).await == codes);
        for n in 1..=20 {
            let got = client.receive().await;
            assert_eq!((got.topic, got.id), (format!("r/{n:02}"), 0));
        }
        client.ping().await;
    }
    assert_eq!(MqttStats::get(&node.stats.dropped_for_slow_subscriber), 0);
    // Retain handling 1: new with the first of the copies; 2: one copy asks for nothing, the other does.
    let mut client = Client::connect(node.address, Hello::v5("six")).await;
    for filters in [
        [("r/01", 0x10), ("r/01", 0x20)],
        [("r/02", 0), ("r/02", 0x20)],
    ] {
        client.subscribe_with(&[], &filters).await;
        assert_eq!(client.receive().await.topic, filters[0].0);
    }
    client
        .subscribe_with(&[], &[("r/03", 0x20), ("r/03", 0x10)])
        .await;
    client.ping().await;
    node.stop().await;
}

#[tokio::test]
async fn one_packet_asks_for_no_more_filters_than_a_client_may_have() {
    let config = MqttConfig {
        subscriptions_per_client_max: 2,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let wanted = [("a", 0), ("b", 1), ("c", 0), ("a", 1), ("d/+", 0)];
    for (hello, refused) in [(Hello::v3("three"), 0x80), (Hello::v5("five"), 0x97)] {
        let mut client = Client::connect(node.address, hello).await;
        // What is subscribed already needs no room, and is asked for again all the same.
        for _ in 0..2 {
            let codes = client.subscribe_with(&[], &wanted).await;
            assert_eq!(codes, [0, 1, refused, 1, refused]);
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_shared_subscription_gives_each_message_to_one_member() {
    let node = Node::start().await;
    let mut members = Vec::new();
    for n in 0..3 {
        let mut member = Client::connect(node.address, Hello::v5(&format!("m{n}"))).await;
        member.subscribe("$share/group/jobs/+", 1).await;
        members.push(member);
    }
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    for n in 1..=30 {
        publisher
            .publish(Message::v3("jobs/x", &n.to_string(), n))
            .await;
    }
    let mut got: Vec<u16> = Vec::new();
    for member in &mut members {
        for _ in 0..10 {
            got.push(member.receive().await.payload.parse().unwrap());
        }
    }
    got.sort_unstable();
    assert_eq!(got, (1..=30).collect::<Vec<_>>());
    let mut leaving = members.remove(0);
    assert_eq!(leaving.unsubscribe(&["$share/group/jobs/+"]).await, [0, 0]);
    drop(members.remove(0));
    let mut last = members.remove(0);
    let mut received = 0;
    // Until the vanished member is noticed, it may still be given a message.
    while received < 5 {
        publisher.publish(Message::v3("jobs/x", "again", 40)).await;
        if MqttStats::get(&node.stats.subscriptions) == 1 {
            publisher.publish(Message::v3("jobs/x", "surely", 41)).await;
            while last.receive().await.payload != "surely" {}
            received += 1;
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn no_more_is_in_flight_to_a_subscriber_than_it_takes() {
    let node = Node::start().await;
    let hello = Hello {
        properties: vec![33, 0, 2],
        ..Hello::v5("s")
    };
    let mut subscriber = Client::connect(node.address, hello).await;
    subscriber.subscribe("speed/#", 1).await;
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    for n in 1..=5 {
        publisher
            .publish(Message::v3("speed/s", &n.to_string(), n))
            .await;
    }
    let first = subscriber.receive_quietly().await;
    let second = subscriber.receive_quietly().await;
    assert_eq!(
        (first.payload.as_str(), second.payload.as_str()),
        ("1", "2")
    );
    // The PINGRESP comes although three messages wait, so that they do wait.
    subscriber.ping().await;
    for (got, next) in [(first, "3"), (second, "4")] {
        let id = got.id.to_be_bytes();
        subscriber.send(&[0x40, 2, id[0], id[1]]).await;
        assert_eq!(subscriber.receive_quietly().await.payload, next);
    }
    subscriber.send(&[0x40, 2, 0, 99]).await;
    assert_eq!(subscriber.closed().await, Some(reason::PROTOCOL_ERROR));
    node.stop().await;
}

#[tokio::test]
async fn a_slow_subscriber_misses_messages_and_stalls_nobody() {
    let config = MqttConfig {
        outgoing_messages_max: 10,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut slow = Client::connect(node.address, Hello::v3("slow")).await;
    slow.subscribe("speed/#", 0).await;
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    let payload = "x".repeat(60_000);
    let mut id = 0;
    while MqttStats::get(&node.stats.dropped_for_slow_subscriber) == 0 {
        id += 1;
        assert!(id < 2_000, "the sockets' buffers are not that large");
        publisher
            .publish(Message::v3("speed/s", &payload, id))
            .await;
    }
    assert_eq!(
        slow.receive().await.payload.len(),
        60_000,
        "it still gets what was queued"
    );
    publisher.ping().await;
    node.stop().await;
}

fn retained(topic: &str, payload: &str, id: u16) -> Message {
    Message {
        retain: true,
        ..Message::v3(topic, payload, id)
    }
}

#[tokio::test]
async fn retained_messages_wait_for_subscribers_and_survive_a_restart() {
    let node = Node::start().await;
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    publisher.publish(retained("r/a", "old", 1)).await;
    publisher.publish(retained("r/a", "new", 2)).await;
    publisher.publish(retained("r/b", "gone", 3)).await;
    publisher.publish(retained("r/c", "zero", 0)).await;
    publisher.publish(retained("r/b", "", 4)).await;
    let check = async |node: &Node| {
        let mut subscriber = Client::connect(node.address, Hello::v3("s")).await;
        subscriber.subscribe("r/+", 1).await;
        let (a, c) = (subscriber.receive().await, subscriber.receive().await);
        assert_eq!(
            (a.payload.as_str(), a.retain, a.id > 0),
            ("new", true, true)
        );
        assert_eq!((c.payload.as_str(), c.retain, c.id), ("zero", true, 0));
        subscriber.ping().await;
    };
    check(&node).await;
    let dir = node.stop().await;
    let node = Node::start_in(dir, MqttConfig::default()).await;
    check(&node).await;
    node.stop().await;
}

#[tokio::test]
async fn retain_handling_and_retain_as_published_are_honoured() {
    let node = Node::start().await;
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    publisher.publish(retained("r", "kept", 1)).await;
    let mut client = Client::connect(node.address, Hello::v5("c")).await;
    // Retain handling 2: never; 1: only where the subscription is new; 0: always.
    assert_eq!(client.subscribe_with(&[], &[("r", 0x20)]).await, [0]);
    assert_eq!(client.subscribe_with(&[], &[("r", 0x10)]).await, [0]);
    client.ping().await;
    assert_eq!(client.subscribe_with(&[11, 5], &[("r", 0x08)]).await, [0]);
    let got = client.receive().await;
    assert_eq!(
        (got.payload.as_str(), got.retain, &got.properties[..]),
        ("kept", true, &[11, 5][..])
    );
    publisher.publish(retained("r", "live", 2)).await;
    assert!(client.receive().await.retain, "as published");
    assert_eq!(client.subscribe_with(&[], &[("r", 0x20)]).await, [0]);
    publisher.publish(retained("r", "live", 3)).await;
    assert!(!client.receive().await.retain);
    let mut shared = Client::connect(node.address, Hello::v5("s")).await;
    shared.subscribe("$share/g/r", 0).await;
    shared.ping().await;
    node.stop().await;
}

#[tokio::test]
async fn limits_of_the_retained_store_are_counted_and_the_message_still_goes_on() {
    let config = MqttConfig {
        retained_max: 2,
        retained_message_bytes_max: 100,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut publisher = Client::connect(node.address, Hello::v3("p")).await;
    publisher.publish(retained("speed/1", "1", 1)).await;
    publisher
        .publish(retained("speed/2", &"x".repeat(101), 2))
        .await;
    publisher.publish(retained("speed/2", "2", 3)).await;
    publisher.publish(retained("speed/3", "3", 4)).await;
    publisher.publish(retained("speed/1", "", 5)).await;
    publisher.publish(retained("speed/3", "3", 6)).await;
    assert_eq!(MqttStats::get(&node.stats.retained_refused), 2);
    assert_eq!(node.values("speed-events").len(), 6);
    let mut subscriber = Client::connect(node.address, Hello::v3("s")).await;
    subscriber.subscribe("speed/+", 0).await;
    assert_eq!(
        (
            subscriber.receive().await.payload,
            subscriber.receive().await.payload
        ),
        ("2".to_owned(), "3".to_owned())
    );
    subscriber.ping().await;
    node.stop().await;
}

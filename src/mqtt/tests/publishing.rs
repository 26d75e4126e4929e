//! Publishes into the log.

use std::collections::HashSet;

use super::client::{Client, Hello, Message, binary, text};
use super::{MqttConfig, Node, header};
use crate::mqtt::{MqttStats, UNROUTED_TOPIC, reason};

#[tokio::test]
async fn what_is_acknowledged_is_in_the_log_in_order() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v3("c")).await;
    let mut burst = Vec::new();
    for n in 1..=5_000u16 {
        let topic = format!("telemetry/inverters/inv-{}", n % 7);
        burst.extend(Message::v3(&topic, &n.to_string(), n).packet());
    }
    client.send(&burst).await;
    for n in 1..=5_000u16 {
        assert_eq!(client.expect(0x40).await[..], n.to_be_bytes());
        if n == 1 {
            assert!(node.values("telemetry.raw").contains(&"1".to_owned()));
        }
    }
    let by_partition = node.records("telemetry.raw");
    let topic = node.log.topic("telemetry.raw").unwrap();
    let mut seen = HashSet::new();
    for (index, records) in by_partition.iter().enumerate() {
        let mut last = [0; 7];
        for record in records {
            let n: usize = std::str::from_utf8(record.value.as_ref().unwrap())
                .unwrap()
                .parse()
                .unwrap();
            let key = format!("inv-{}", n % 7);
            assert_eq!(record.key.as_ref().unwrap(), key.as_bytes());
            assert_eq!(
                topic.partition_for(Some(key.as_bytes())).index(),
                i32::try_from(index).unwrap()
            );
            assert!(n > last[n % 7], "order per key");
            last[n % 7] = n;
            assert!(seen.insert(n), "{n} twice");
        }
    }
    assert_eq!(seen.len(), 5_000);
    assert_eq!(MqttStats::get(&node.stats.acked), 5_000);
    assert_eq!(MqttStats::get(&node.stats.routed), 5_000);
    node.stop().await;
}

#[tokio::test]
async fn records_carry_the_headers_of_their_publish() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v3("c3")).await;
    client.publish(Message::v3("inverters", "x", 1)).await;
    let record = node
        .records("telemetry.raw")
        .into_iter()
        .flatten()
        .next()
        .unwrap();
    for (name, value) in [
        ("kind", "inverters"),
        ("mqtt.topic", "inverters"),
        ("mqtt.qos", "1"),
        ("mqtt.retain", "false"),
        ("mqtt.client", "c3"),
    ] {
        assert_eq!(header(&record, name), Some(value), "{name}");
    }
    let received_at = header(&record, "received_at").unwrap();
    let parsed: jiff::Timestamp = received_at.parse().unwrap();
    assert_eq!(parsed.as_millisecond(), record.timestamp_ms);
    assert!(received_at.ends_with('Z') && received_at.len() == 24);
    assert_eq!(record.key.as_deref(), Some(&b"c3"[..]));
    assert_eq!(record.headers.len(), 6);
    node.stop().await;
}

#[tokio::test]
async fn properties_of_mqtt_5_become_headers() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v5("c5")).await;
    let fields = [
        &[1, 1, 2, 0, 0, 0, 60, 3][..],
        &text("application/json"),
        &[8],
        &text("re/ply"),
        &[9],
        &binary(&[0xff, 0]),
        &[38],
        &text("site"),
        &text("north"),
        &[38],
        &text("site"),
        &text("süd"),
    ]
    .concat();
    client
        .publish(Message::v5("speed/s-1", "{}", 1, &fields))
        .await;
    let record = node
        .records("speed-events")
        .into_iter()
        .flatten()
        .next()
        .unwrap();
    for (name, value) in [
        ("mqtt.content_type", "application/json"),
        ("mqtt.response_topic", "re/ply"),
        ("mqtt.correlation_data", "base64:/wA="),
        ("mqtt.payload_format", "1"),
        ("mqtt.user.site", "north"),
    ] {
        assert_eq!(header(&record, name), Some(value), "{name}");
    }
    let sites = record.headers.iter().filter(|h| h.name == "mqtt.user.site");
    assert_eq!(sites.count(), 2);
    assert_eq!(header(&record, "kind"), None);
    node.stop().await;
}

#[tokio::test]
async fn without_a_route_qos_1_is_kept_and_qos_0_is_not() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v3("c")).await;
    client.publish(Message::v3("some/where", "zero", 0)).await;
    client.publish(Message::v3("some/where", "one", 1)).await;
    client
        .publish(Message::v3("speed/s", "routed zero", 0))
        .await;
    client.publish(Message::v3("some/where", "two", 2)).await;
    assert_eq!(node.values(UNROUTED_TOPIC), ["one", "two"]);
    assert_eq!(node.values("speed-events"), ["routed zero"]);
    let record = &node.records(UNROUTED_TOPIC)[0][0];
    assert_eq!(record.key.as_deref(), Some(&b"some/where"[..]));
    assert_eq!(MqttStats::get(&node.stats.unrouted), 3);
    node.stop().await;
}

#[tokio::test]
async fn a_client_that_publishes_and_leaves_at_once_has_published() {
    let node = Node::start().await;
    let mut subscriber = Client::connect(node.address, Hello::v3("s")).await;
    subscriber.subscribe("speed/#", 0).await;
    let mut client = Client::connect(node.address, Hello::v3("c")).await;
    let bytes = [Message::v3("speed/s", "bye", 0).packet(), vec![0xe0, 0]].concat();
    client.send(&bytes).await;
    drop(client);
    assert_eq!(subscriber.receive().await.payload, "bye");
    assert_eq!(node.values("speed-events"), ["bye"]);
    node.stop().await;
}

#[tokio::test]
async fn topic_aliases_stand_for_their_topics() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v5("c")).await;
    client
        .publish(Message::v5("speed/a", "1", 1, &[35, 0, 1]))
        .await;
    client.publish(Message::v5("", "2", 2, &[35, 0, 1])).await;
    client
        .publish(Message::v5("speed/b", "3", 3, &[35, 0, 1]))
        .await;
    client.publish(Message::v5("", "4", 4, &[35, 0, 1])).await;
    let mut found: Vec<(String, String)> = node
        .records("speed-events")
        .into_iter()
        .flatten()
        .map(|record| {
            let value = String::from_utf8(record.value.clone().unwrap().to_vec()).unwrap();
            (value, header(&record, "mqtt.topic").unwrap().to_owned())
        })
        .collect();
    found.sort();
    let topics: Vec<&str> = found.iter().map(|(_, topic)| topic.as_str()).collect();
    assert_eq!(topics, ["speed/a", "speed/a", "speed/b", "speed/b"]);
    for (alias, expected) in [
        (0, reason::TOPIC_ALIAS_INVALID),
        (65, reason::TOPIC_ALIAS_INVALID),
        (7, reason::PROTOCOL_ERROR),
    ] {
        let mut client = Client::connect(node.address, Hello::v5("d")).await;
        client
            .send(&Message::v5("", "x", 1, &[35, 0, alias]).packet())
            .await;
        assert_eq!(client.closed().await, Some(expected), "alias {alias}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_full_window_holds_back_3_1_1_and_ends_mqtt_5() {
    let config = MqttConfig {
        in_flight_max: 10,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let burst: Vec<u8> = (1..=500u16)
        .flat_map(|n| Message::v3("speed/s", &n.to_string(), n).packet())
        .collect();
    let mut client = Client::connect(node.address, Hello::v3("c")).await;
    client.send(&burst).await;
    for n in 1..=500u16 {
        assert_eq!(client.expect(0x40).await[..], n.to_be_bytes());
    }
    let burst: Vec<u8> = (1..=500u16)
        .flat_map(|n| Message::v5("speed/s", &n.to_string(), n, &[]).packet())
        .collect();
    let (mut client, connack) = Client::hello(node.address, &Hello::v5("d")).await;
    assert!(
        connack.windows(3).any(|w| w == [33, 0, 10]),
        "receive maximum 10 in {connack:02x?}"
    );
    client.try_send(&burst).await;
    assert_eq!(
        client.closed().await,
        Some(reason::RECEIVE_MAXIMUM_EXCEEDED)
    );
    node.stop().await;
}

#[tokio::test]
async fn qos_2_ends_the_connection_and_stores_nothing() {
    let node = Node::start().await;
    let mut qos2 = Message::v3("speed/s", "x", 1).packet();
    qos2[0] = 0x34;
    let mut client = Client::connect(node.address, Hello::v3("c")).await;
    client.send(&qos2).await;
    assert_eq!(client.closed().await, None);
    let mut qos2 = Message::v5("speed/s", "x", 1, &[]).packet();
    qos2[0] = 0x34;
    let mut client = Client::connect(node.address, Hello::v5("d")).await;
    client.send(&qos2).await;
    assert_eq!(client.closed().await, Some(reason::QOS_NOT_SUPPORTED));
    assert!(node.values("speed-events").is_empty());
    node.stop().await;
}

#[tokio::test]
async fn a_log_that_refuses_writes_means_no_puback_and_no_new_clients() {
    let node = Node::start().await;
    let mut three = Client::connect(node.address, Hello::v3("three")).await;
    let mut five = Client::connect(node.address, Hello::v5("five")).await;
    let log = node.log.clone();
    tokio::task::spawn_blocking(move || log.close())
        .await
        .unwrap();
    three.send(&Message::v3("speed/s", "x", 1).packet()).await;
    assert_eq!(three.packet().await, None);
    five.send(&Message::v5("speed/s", "x", 1, &[]).packet())
        .await;
    let (first, body) = five.packet().await.expect("a DISCONNECT");
    assert_eq!((first, body[0]), (0xe0, reason::QUOTA_EXCEEDED));
    assert_eq!(five.packet().await, None);
    let (_, connack) = Client::hello(node.address, &Hello::v3("c")).await;
    assert_eq!(connack[1], 3);
    let (_, connack) = Client::hello(node.address, &Hello::v5("c")).await;
    assert_eq!(connack[1], 0x88);
    assert_eq!(MqttStats::get(&node.stats.storage_failures), 2);
    assert_eq!(MqttStats::get(&node.stats.acked), 0);
}

#[tokio::test]
async fn everything_acknowledged_survives_a_restart() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v3("c")).await;
    for n in 1..=200u16 {
        client
            .send(&Message::v3("speed/s", &n.to_string(), n).packet())
            .await;
    }
    let mut acked = 0;
    while acked < 100 {
        client.expect(0x40).await;
        acked += 1;
    }
    let dir = node.stop().await;
    let node = Node::start_in(dir, MqttConfig::default()).await;
    let values = node.values("speed-events");
    assert!(values.len() >= acked);
    let expected: Vec<String> = (1..=values.len()).map(|n| n.to_string()).collect();
    assert_eq!(values, expected);
    node.stop().await;
}

//! Bad bytes harm only their sender.

use super::client::{Client, Hello, Message, packet, text};
use super::{MqttConfig, Node};
use crate::mqtt::{MqttStats, reason};

/// SplitMix64: the same mutations for the same seed, wherever it runs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }
}

/// Good packets of every kind a client sends.
fn good_packets(v5: bool) -> Vec<Vec<u8>> {
    let none: &[u8] = if v5 { &[0] } else { &[] };
    let fields = [
        &[1, 1, 2, 0, 0, 0, 9, 3][..],
        &text("t"),
        &[8],
        &text("r"),
        &[9],
        &text("c"),
        &[35, 0, 1, 38],
        &text("k"),
        &text("v"),
    ]
    .concat();
    let publish = |id| match v5 {
        true => Message::v5("speed/fuzz", "payload", id, &fields),
        false => Message::v3("speed/fuzz", "payload", id),
    };
    vec![
        publish(0).packet(),
        publish(7).packet(),
        Message {
            retain: true,
            ..publish(8)
        }
        .packet(),
        packet(0x82, &[&[0, 1][..], none, &text("fuzz/+/#"), &[1]].concat()),
        packet(
            0x82,
            &[&[0, 2][..], none, &text("$share/g/fuzz"), &[0]].concat(),
        ),
        packet(0xa2, &[&[0, 3][..], none, &text("fuzz/+/#")].concat()),
        vec![0x40, 2, 0, 1],
        vec![0xc0, 0],
        if v5 {
            packet(0xe0, &[&[4][..], &[5, 17, 0, 0, 0, 0]].concat())
        } else {
            vec![0xe0, 0]
        },
    ]
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = [0, 0xff, 0x7f, 0x80][random.below(4)],
            3 => bytes.truncate(at.max(1)),
            4 => bytes.insert(at, random.next() as u8),
            _ => {
                let tail = bytes[at..].to_vec();
                bytes.extend(tail);
            }
        }
    }
}

#[tokio::test]
async fn thousands_of_mutated_frames_leave_the_others_untouched() {
    let seed = 0x00ab_5eed;
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let config = MqttConfig {
        connections_max: 100,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut steady = Client::connect(node.address, Hello::v5("steady")).await;
    steady.subscribe("steady/#", 1).await;
    for round in 0..3_000u16 {
        let v5 = random.below(2) == 0;
        let hello = if v5 {
            Hello::v5("fuzz")
        } else {
            Hello::v3("fuzz")
        };
        let hello = Hello {
            will: Some(("fuzz/will".to_owned(), "w".to_owned(), 8)),
            properties: if v5 { vec![33, 0, 9] } else { Vec::new() },
            ..hello
        };
        let mut hostile = Client::raw(node.address).await;
        let mut bytes = hello.packet();
        if random.below(4) == 0 {
            mutate(&mut bytes, &mut random);
        }
        let good = good_packets(v5);
        for _ in 0..=random.below(5) {
            let mut frame = good[random.below(good.len())].clone();
            mutate(&mut frame, &mut random);
            bytes.extend(frame);
        }
        hostile.try_send(&bytes).await;
        drop(hostile);
        if round % 10 == 0 {
            let payload = round.to_string();
            steady
                .send(&Message::v5("steady/x", &payload, 1 + round, &[]).packet())
                .await;
            let (mut acked, mut heard) = (false, false);
            while !(acked && heard) {
                let (first, body) = steady.packet().await.expect("the steady connection stays");
                match first {
                    0x40 => acked = true,
                    0x32 => {
                        heard = true;
                        assert!(body.ends_with(payload.as_bytes()));
                        let id = &body[10..12];
                        steady.send(&[0x40, 2, id[0], id[1]]).await;
                    }
                    other => panic!("packet {other:02x} in round {round}"),
                }
            }
        }
    }
    assert!(MqttStats::get(&node.stats.malformed) > 1_000);
    assert_eq!(MqttStats::get(&node.stats.router_failures), 0);
    steady.ping().await;
    node.stop().await;
}

#[tokio::test]
async fn breaches_are_told_to_mqtt_5_by_their_reason() {
    let config = MqttConfig {
        packet_bytes_max: 1000,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let with_wildcard = Message::v5("a/+", "x", 1, &[]).packet();
    let large = Message::v5("a", &"x".repeat(1000), 1, &[]).packet();
    for (bytes, expected) in [
        (vec![0x30, 0xff, 0xff, 0xff, 0xff], reason::MALFORMED_PACKET),
        (vec![0x30, 0xff, 0xff, 0x7f], reason::PACKET_TOO_LARGE),
        (vec![0x20, 2, 0, 0], reason::PROTOCOL_ERROR),
        (vec![0x50, 2, 0, 1], reason::PROTOCOL_ERROR),
        (vec![0xf0, 0], reason::PROTOCOL_ERROR),
        (vec![0xc1, 0], reason::MALFORMED_PACKET),
        (
            packet(0x82, &[0, 0, 0, 0, 1, b'a', 0]),
            reason::PROTOCOL_ERROR,
        ),
        (packet(0x82, &[0, 1, 0]), reason::MALFORMED_PACKET),
        (packet(0xa2, &[0, 1, 0]), reason::PROTOCOL_ERROR),
        (Hello::v5("x").packet(), reason::PROTOCOL_ERROR),
        (with_wildcard, reason::TOPIC_NAME_INVALID),
        (large, reason::PACKET_TOO_LARGE),
    ] {
        let mut client = Client::connect(node.address, Hello::v5("c")).await;
        client.send(&bytes).await;
        assert_eq!(client.closed().await, Some(expected), "{bytes:02x?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_came_before_a_breach_is_kept() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v5("c")).await;
    let bytes = [
        Message::v5("speed/s", "good", 1, &[]).packet(),
        vec![0x20, 0],
    ]
    .concat();
    client.send(&bytes).await;
    assert_eq!(client.closed().await, Some(reason::PROTOCOL_ERROR));
    let mut next = Client::connect(node.address, Hello::v5("c")).await;
    next.publish(Message::v5("speed/s", "next", 1, &[])).await;
    assert_eq!(node.values("speed-events"), ["good", "next"]);
    node.stop().await;
}

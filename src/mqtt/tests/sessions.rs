//! CONNECT, keep-alive, take-over, wills, shutdown.

use super::client::{Client, Hello, Message};
use super::{MqttConfig, Node, header};
use crate::mqtt::{MqttStats, StartError, reason, start};

#[tokio::test]
async fn the_connack_of_mqtt_5_tells_the_truth() {
    let config = MqttConfig {
        keep_alive_max_s: 100,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let session_expiry = [17, 0, 0, 0, 60];
    let hello = Hello {
        clean: false,
        properties: session_expiry.to_vec(),
        ..Hello::v5("")
    };
    let (_client, connack) = Client::hello(node.address, &hello).await;
    assert_eq!(connack[..2], [0, 0], "no session is present");
    let has = |field: &[u8]| connack.windows(field.len()).any(|w| w == field);
    assert!(has(&[17, 0, 0, 0, 0]), "session expiry 0");
    assert!(has(&[36, 1]), "maximum QoS 1");
    assert!(has(&[33, 0x27, 0x10]), "receive maximum 10000");
    assert!(has(&[39, 0, 0x0e, 0x10, 0]), "maximum packet size");
    assert!(has(&[19, 0, 100]), "server keep-alive");
    assert!(has(&[34, 0, 64]), "topic alias maximum");
    assert!(has(&[37, 1]) && has(&[40, 1]) && has(&[41, 1]) && has(&[42, 1]));
    assert!(has(b"auto-"), "assigned client identifier");
    let (_client, connack) = Client::hello(
        node.address,
        &Hello {
            clean: false,
            ..Hello::v3("c")
        },
    )
    .await;
    assert_eq!(connack[..], [0, 0]);
    node.stop().await;
}

#[tokio::test]
async fn credentials_decide_who_comes_in() {
    let config = MqttConfig {
        allow_anonymous: Some(false),
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let secret = node.auth.renew_token("device-1").await.unwrap();
    let login = |user: &str, secret: &str| Some((user.to_owned(), secret.to_owned()));
    for (credentials, v3, v5) in [
        (None, 5, 0x87),
        (login("device-1", "wrong"), 5, 0x86),
        (login("nobody", &secret), 5, 0x86),
        (login("device-1", &secret), 0, 0),
    ] {
        let hello = Hello {
            login: credentials.clone(),
            ..Hello::v3("c3")
        };
        assert_eq!(Client::hello(node.address, &hello).await.1[1], v3);
        let hello = Hello {
            login: credentials,
            ..Hello::v5("c5")
        };
        assert_eq!(Client::hello(node.address, &hello).await.1[1], v5);
    }
    node.stop().await;
    let node = Node::start().await;
    let hello = Hello {
        login: login("nobody", "x"),
        ..Hello::v3("c")
    };
    assert_eq!(
        Client::hello(node.address, &hello).await.1[1],
        5,
        "wrong credentials are refused where none are needed"
    );
    node.stop().await;
}

#[tokio::test]
async fn unacceptable_connects_are_answered_in_their_version() {
    let node = Node::start().await;
    let code = async |hello: Hello| Client::hello(node.address, &hello).await.1[1];
    assert_eq!(
        code(Hello {
            clean: false,
            ..Hello::v3("")
        })
        .await,
        2
    );
    assert_eq!(code(Hello::v3("")).await, 0);
    assert_eq!(code(Hello::v3(&"x".repeat(129))).await, 2);
    assert_eq!(code(Hello::v5(&"x".repeat(129))).await, 0x85);
    assert_eq!(code(Hello::v5("a\u{1}b")).await, 0x85);
    let will = |topic: &str, flags| Some((topic.to_owned(), "x".to_owned(), flags));
    assert_eq!(
        code(Hello {
            will: will("a/+", 0),
            ..Hello::v5("c")
        })
        .await,
        0x90
    );
    assert_eq!(
        code(Hello {
            will: will("a", 0x10),
            ..Hello::v5("c")
        })
        .await,
        0x9b
    );
    let method = [21, 0, 1, b'm'];
    assert_eq!(
        code(Hello {
            properties: method.to_vec(),
            ..Hello::v5("c")
        })
        .await,
        0x8c
    );
    let mut old = Client::raw(node.address).await;
    old.send(&[
        0x10, 14, 0, 6, b'M', b'Q', b'I', b's', b'd', b'p', 3, 2, 0, 0, 0, 0,
    ])
    .await;
    assert_eq!(old.expect(0x20).await[..], [0, 1]);
    assert_eq!(old.packet().await, None);
    node.stop().await;
}

#[tokio::test]
async fn silence_ends_a_keep_alive_but_not_a_keep_alive_of_0() {
    let node = Node::start().await;
    let mut patient = Client::connect(node.address, Hello::v3("patient")).await;
    let hello = Hello {
        keep_alive_s: 1,
        ..Hello::v5("brief")
    };
    let mut brief = Client::connect(node.address, hello).await;
    let began = std::time::Instant::now();
    brief.ping().await;
    assert_eq!(brief.closed().await, Some(reason::KEEP_ALIVE_TIMEOUT));
    assert!(began.elapsed().as_millis() >= 1500);
    patient.ping().await;
    assert_eq!(MqttStats::get(&node.stats.keep_alive_timeouts), 1);
    node.stop().await;
}

#[tokio::test]
async fn no_connect_in_time_is_no_connection() {
    let config = MqttConfig {
        handshake_timeout_ms: 100,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut silent = Client::raw(node.address).await;
    let mut halting = Client::raw(node.address).await;
    halting.send(&Hello::v3("c").packet()[..5]).await;
    assert_eq!(silent.packet().await, None);
    assert_eq!(halting.packet().await, None);
    assert_eq!(MqttStats::get(&node.stats.refused_total), 2);
    node.stop().await;
}

#[tokio::test]
async fn the_newest_connection_of_a_client_takes_over() {
    let node = Node::start().await;
    let secret = node.auth.renew_token("owner").await.unwrap();
    let owned = |hello: Hello| Hello {
        login: Some(("owner".to_owned(), secret.clone())),
        ..hello
    };
    let will = Some(("speed/will".to_owned(), "taken".to_owned(), 8));
    let mut first = Client::connect(
        node.address,
        owned(Hello {
            will,
            ..Hello::v5("c")
        }),
    )
    .await;
    first.subscribe("a", 0).await;
    assert_eq!(
        Client::hello(node.address, &Hello::v5("c")).await.1[1],
        0x85,
        "another client"
    );
    first.ping().await;
    let mut second = Client::connect(node.address, owned(Hello::v5("c"))).await;
    assert_eq!(first.closed().await, Some(reason::SESSION_TAKEN_OVER));
    second.subscribe("speed/#", 0).await;
    second.publish(Message::v5("speed/x", "mine", 1, &[])).await;
    let mut got = vec![second.receive().await.payload];
    if got[0] == "taken" {
        got.push(second.receive().await.payload);
    }
    assert!(got.contains(&"mine".to_owned()));
    assert_eq!(MqttStats::get(&node.stats.taken_over), 1);
    node.stop().await;
}

#[tokio::test]
async fn a_will_is_published_when_its_client_vanishes_and_not_when_it_says_goodbye() {
    let node = Node::start().await;
    let mut watcher = Client::connect(node.address, Hello::v5("w")).await;
    watcher.subscribe("speed/#", 1).await;
    let dying = |n: u8| Hello {
        will: Some(("speed/dead".to_owned(), n.to_string(), 8)),
        ..Hello::v5(&format!("d{n}"))
    };
    drop(Client::connect(node.address, dying(1)).await);
    assert_eq!(watcher.receive().await.payload, "1");
    let mut polite = Client::connect(node.address, dying(2)).await;
    polite.send(&[0xe0, 0]).await;
    polite.closed().await;
    let mut demanding = Client::connect(node.address, dying(3)).await;
    demanding.send(&[0xe0, 1, 4]).await;
    assert_eq!(
        watcher.receive().await.payload,
        "3",
        "the goodbye of client 2 took its will along"
    );
    let mut faulty = Client::connect(node.address, dying(4)).await;
    faulty.send(&[0x20, 0]).await;
    assert_eq!(watcher.receive().await.payload, "4");
    assert_eq!(node.values("speed-events"), ["1", "3", "4"]);
    let record = &node
        .records("speed-events")
        .into_iter()
        .flatten()
        .next()
        .unwrap();
    assert_eq!(header(record, "mqtt.client"), Some("d1"));
    assert_eq!(MqttStats::get(&node.stats.wills), 3);
    node.stop().await;
}

#[tokio::test]
async fn one_client_too_many_is_told_so() {
    let config = MqttConfig {
        connections_max: 1,
        ..MqttConfig::default()
    };
    let node = Node::start_with(config).await;
    let mut only = Client::connect(node.address, Hello::v3("c")).await;
    assert_eq!(Client::hello(node.address, &Hello::v3("d")).await.1[1], 3);
    assert_eq!(
        Client::hello(node.address, &Hello::v5("d")).await.1[1],
        0x89
    );
    only.ping().await;
    only.send(&[0xe0, 0]).await;
    only.closed().await;
    node.stop().await;
}

#[tokio::test]
async fn shutdown_acknowledges_what_it_took_and_says_goodbye() {
    let node = Node::start().await;
    let mut client = Client::connect(node.address, Hello::v5("c")).await;
    client.publish(Message::v5("speed/s", "x", 1, &[])).await;
    let _in_handshake = Client::raw(node.address).await;
    node.shutdown.cancel();
    assert_eq!(client.closed().await, Some(reason::SHUTTING_DOWN));
    node.stop().await;
}

#[tokio::test]
async fn a_wrong_configuration_does_not_start() {
    let node = Node::start().await;
    let begin = async |config: MqttConfig| {
        start(
            config,
            node.log.clone(),
            node.auth.clone(),
            node.shutdown.clone(),
        )
        .await
    };
    let mut config = MqttConfig {
        listen: node.address,
        ..MqttConfig::default()
    };
    let error = begin(config.clone()).await.unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
    config.routes[0].key = "{9}".to_owned();
    assert!(
        begin(config.clone())
            .await
            .unwrap_err()
            .to_string()
            .starts_with("mqtt.routes[0].key")
    );
    config.routes[0].key = "{1}".to_owned();
    config.routes[0].topic = "no such/name".to_owned();
    assert!(
        begin(config)
            .await
            .unwrap_err()
            .to_string()
            .starts_with("mqtt.routes: log topic")
    );
    node.stop().await;
}

//! Frames, versions, limits and shutdown.

use super::super::protocol::messages::{
    ApiVersionsRequest, FetchRequest, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, MetadataRequest,
};
use super::super::protocol::{ApiKey, ErrorCode, Response, decode_response};
use super::super::{KafkaConfig, StartError, start};
use super::*;

/// As a client sends it that says what it is (KIP-511).
fn versions_asked(version: i16) -> ApiVersionsRequest {
    let software = |text: &str| match version {
        3.. => text.into(),
        _ => Str::default(),
    };
    ApiVersionsRequest {
        client_software_name: software("a-test"),
        client_software_version: software("1.0"),
    }
}

#[tokio::test]
async fn api_versions_lists_the_table() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    for version in 0..=4 {
        let response = wire.ask(versions_asked(version), version).await;
        assert_eq!(response.error_code, 0);
        assert_eq!(response.api_keys.len(), ApiKey::ALL.len());
        let produce = response
            .api_keys
            .iter()
            .find(|api| api.api_key == 0)
            .unwrap();
        assert_eq!((produce.min_version, produce.max_version), (0, 13));
        assert_eq!(response.supported_features.is_empty(), version < 4);
    }
    let nameless = wire.ask(ApiVersionsRequest::default(), 3).await;
    assert_eq!(ErrorCode(nameless.error_code), ErrorCode::InvalidRequest);
    door.close().await;
}

#[tokio::test]
async fn a_future_api_versions_is_answered_in_version_0_with_the_list() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    wire.send_bytes(b"\x00\x00\x00\x0d\x00\x12\x00\x63\x00\x00\x00\x09\xff\xff\x00\x02\x61")
        .await;
    let frame = wire.frame().await.unwrap();
    let (correlation_id, response) = decode_response(ApiKey::ApiVersions, 0, frame).unwrap();
    let Response::ApiVersions(response) = response else {
        panic!("another API")
    };
    assert_eq!(
        (correlation_id, response.error_code),
        (9, ErrorCode::UnsupportedVersion.code())
    );
    assert_eq!(response.api_keys.len(), ApiKey::ALL.len());
    let again = wire.ask(versions_asked(3), 3).await;
    assert_eq!(again.error_code, 0, "the connection lives on");
    door.close().await;
}

#[tokio::test]
async fn what_cannot_be_understood_closes_its_connection_and_no_other() {
    let door = Door::open().await;
    let mut bystander = door.wire().await;
    let hostile: [&[u8]; 10] = [
        // Produce in version 2: advertised, not served.
        b"\x00\x00\x00\x0a\x00\x00\x00\x02\x00\x00\x00\x01\xff\xff",
        // An API that does not exist.
        b"\x00\x00\x00\x0a\x7f\xff\x00\x00\x00\x00\x00\x01\xff\xff",
        // A frame of 0 bytes, of -1 bytes, and nothing after it.
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        // A frame of 0 bytes, of -1 bytes, of 2 GB, and one that is too large without records.
        b"\x00\x00\x00\x00\x00\x03",
        b"\xff\xff\xff\xff\x00\x03",
        b"\x7f\xff\xff\xff\x00\x00",
        b"\x00\x50\x00\x00\x00\x03",
        // An array of two billion topics.
        b"\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x7f\xff\xff\xff",
        // HTTP.
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for bytes in hostile {
        let mut wire = door.wire().await;
        wire.send_bytes(bytes).await;
        assert!(wire.frame().await.is_none(), "{bytes:?}");
    }
    assert_eq!(door.handle.stats().connections_broken, 10);
    assert_eq!(bystander.ask(versions_asked(3), 3).await.error_code, 0);
    door.close().await;
}

#[tokio::test]
async fn requests_that_arrive_byte_by_byte_or_together_are_answered_in_order() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    let mut together = Vec::new();
    for id in 1..=100 {
        let request = versions_asked(3).into();
        let frame = protocol::encode_request(&request, 3, id, &Str::default()).unwrap();
        together.extend_from_slice(&frame.into_bytes().unwrap());
    }
    let (slowly, at_once) = together.split_at(150);
    for byte in slowly {
        wire.send_bytes(std::slice::from_ref(byte)).await;
    }
    wire.send_bytes(at_once).await;
    for id in 1..=100 {
        wire.receive::<ApiVersionsRequest>(3, id).await;
    }
    door.close().await;
}

#[tokio::test]
async fn one_connection_too_many_is_closed_until_another_leaves() {
    let door = Door::open_with(KafkaConfig {
        connections_max: 1,
        ..Default::default()
    })
    .await;
    let mut first = door.wire().await;
    first.ask(ApiVersionsRequest::default(), 0).await;
    let mut second = door.wire().await;
    assert!(second.frame().await.is_none());
    assert_eq!(door.handle.stats().connections_refused, 1);
    drop(first);
    in_time(async {
        while door.handle.stats().connections > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut third = door.wire().await;
    assert_eq!(
        third.ask(ApiVersionsRequest::default(), 0).await.error_code,
        0
    );
    door.close().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let door = Door::open_with(KafkaConfig {
        idle_timeout_s: 1,
        ..Default::default()
    })
    .await;
    let topic = door.topic("t", 1).await;
    let mut idle = door.wire().await;
    let mut waiting = door.wire().await;
    let request = FetchRequest {
        max_wait_ms: 2500,
        ..super::fetch(&topic, 0, 0)
    };
    let id = waiting.send(request, 11).await;
    assert!(idle.frame().await.is_none());
    let response = waiting.receive::<FetchRequest>(11, id).await;
    assert_eq!(response.responses.len(), 1);
    door.close().await;
}

#[tokio::test]
async fn who_takes_nothing_of_a_long_answer_is_closed() {
    let door = Door::open_with(KafkaConfig {
        idle_timeout_s: 1,
        ..Default::default()
    })
    .await;
    let topic = door.topic("t", 1).await;
    let mut other = door.wire().await;
    let value = "0123456789abcdef".repeat(60 << 10);
    for _ in 0..16 {
        produced(&mut other, produce(&topic, 0, batch(&[&value])), 9).await;
    }
    let mut request = super::fetch(&topic, 0, 0);
    request.max_bytes = 16 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 16 << 20;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    let mut silent = Wire {
        socket: socket.connect(door.address()).await.unwrap(),
        next: 0,
    };
    silent.send(request, 11).await;
    in_time(async {
        while door.handle.stats().connections_broken == 0 {
            other.ask(MetadataRequest::default(), 12).await;
        }
    })
    .await;
    assert!(silent.frame().await.is_none(), "the answer is not whole");
    door.close().await;
}

#[tokio::test]
async fn stopping_answers_who_waits_and_ends_every_connection() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let request = FetchRequest {
        max_wait_ms: 60_000,
        ..super::fetch(&topic, 0, 0)
    };
    let id = wire.send(request, 11).await;
    // Answered behind the Fetch, so the Fetch is known to wait when this one has been read.
    let mut other = door.wire().await;
    other.ask(MetadataRequest::default(), 12).await;
    door.stop.cancel();
    in_time(door.handle.stopped()).await;
    assert_eq!(door.handle.stats().connections, 0);
    if let Some(frame) = wire.frame().await {
        let (answered, _) = decode_response(ApiKey::Fetch, 11, frame).unwrap();
        assert_eq!(answered, id);
    }
}

#[tokio::test]
async fn a_door_to_the_world_needs_the_word_for_it() {
    let door = Door::open().await;
    let listen: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let config = KafkaConfig {
        listen: Some(listen),
        ..Default::default()
    };
    let open = |config| {
        let (log, auth) = (door.log.clone(), door.auth.clone());
        start(config, log, auth, &[], door.stop.clone())
    };
    let refused = open(config.clone()).await;
    assert!(matches!(refused, Err(StartError::Anonymous(_))));
    let config = KafkaConfig {
        allow_anonymous: true,
        ..config
    };
    let open = open(config).await.unwrap();
    door.stop.cancel();
    in_time(open.stopped()).await;
}

#[tokio::test]
async fn an_explanation_longer_than_any_string_is_cut() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    let resource = IncrementalAlterConfigsResource {
        resource_type: 2,
        // Two bytes each, so that the cut falls within one of them.
        resource_name: "\u{e9}".repeat(16_383).into(),
        configs: Vec::new(),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource.clone()],
        validate_only: false,
    };
    let response = wire.ask(request, 1).await;
    let [refused] = &response.responses[..] else {
        panic!("one resource was named: {response:?}")
    };
    assert_ne!(refused.error_code, 0);
    assert_eq!(refused.resource_name, resource.resource_name);
    let told = refused.error_message.as_ref().unwrap().as_str();
    assert!((32_766..=32_767).contains(&told.len()), "{}", told.len());
    door.close().await;
}

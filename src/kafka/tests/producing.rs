//! Produce and producer ids.

use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{ApiVersionsRequest, InitProducerIdRequest, ProduceRequest};
use super::*;

#[tokio::test]
async fn every_version_of_produce_appends() {
    let door = Door::open().await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    for (n, version) in (3..=13).enumerate() {
        let request = produce(&topic, 1, batch(&["a", "b"]));
        let answered = produced(&mut wire, request, version).await;
        assert_eq!(answered.error_code, 0, "version {version}");
        assert_eq!(answered.base_offset, 2 * n as i64, "version {version}");
        assert_eq!(answered.index, 1);
    }
    assert_eq!(topic.partition(1).unwrap().high_watermark(), offset(22));
    door.close().await;
}

#[tokio::test]
async fn pipelined_requests_are_appended_and_answered_in_order() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let mut sent = Vec::new();
    for n in 0..100 {
        let request = in_version(produce(&topic, 0, batch(&[&n.to_string()])), 9);
        sent.push(wire.send(request, 9).await);
    }
    for (n, id) in sent.into_iter().enumerate() {
        let mut response = wire.receive::<ProduceRequest>(9, id).await;
        let answered = response.responses.remove(0).partition_responses.remove(0);
        assert_eq!((answered.error_code, answered.base_offset), (0, n as i64));
    }
    let found = fetched(&mut wire, fetch(&topic, 0, 0), 11).await;
    let expected: Vec<_> = (0..100).map(|n| (n, n.to_string())).collect();
    assert_eq!(values(&found, 0), expected);
    door.close().await;
}

#[tokio::test]
async fn acks_0_is_never_answered_and_a_refusal_closes_the_connection() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let silent = |bytes: Bytes| {
        in_version(
            ProduceRequest {
                acks: 0,
                ..produce(&topic, 0, bytes)
            },
            9,
        )
    };
    wire.send(silent(batch(&["a"])), 9).await;
    let id = wire.send(ApiVersionsRequest::default(), 2).await;
    wire.receive::<ApiVersionsRequest>(2, id).await;
    assert_eq!(topic.partition(0).unwrap().high_watermark(), offset(1));

    let mut corrupt = batch(&["b"]).to_vec();
    corrupt[68] ^= 1;
    wire.send(silent(corrupt.into()), 9).await;
    assert!(wire.frame().await.is_none());
    door.close().await;
}

#[tokio::test]
async fn refusals_have_kafkas_codes_and_leave_nothing_behind() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let good = batch(&["a"]);
    let mut corrupt = good.to_vec();
    *corrupt.last_mut().unwrap() ^= 1;
    let mut control = good.to_vec();
    control[22] |= 0x20;
    sign(&mut control);
    let mut miscounted = good.to_vec();
    miscounted[26] = 5;
    sign(&mut miscounted);
    let large = batch(&[&"x".repeat(2 << 20)]);
    let two = [good.clone(), good.clone()].concat();
    let cases: [(ProduceRequest, ErrorCode); 8] = [
        (
            produce(&topic, 0, corrupt.into()),
            ErrorCode::CorruptMessage,
        ),
        (produce(&topic, 0, control.into()), ErrorCode::InvalidRecord),
        (
            produce(&topic, 0, miscounted.into()),
            ErrorCode::InvalidRecord,
        ),
        (produce(&topic, 0, large), ErrorCode::MessageTooLarge),
        (produce(&topic, 0, two.into()), ErrorCode::InvalidRecord),
        (produce(&topic, 0, Bytes::new()), ErrorCode::InvalidRecord),
        (
            produce(&topic, 7, good.clone()),
            ErrorCode::UnknownTopicOrPartition,
        ),
        (
            ProduceRequest {
                acks: 2,
                ..produce(&topic, 0, good.clone())
            },
            ErrorCode::InvalidRequiredAcks,
        ),
    ];
    for (request, code) in cases {
        let answered = produced(&mut wire, request, 9).await;
        assert_eq!(ErrorCode(answered.error_code), code);
        assert_eq!(answered.base_offset, -1);
    }
    let mut unknown = produce(&topic, 0, good);
    unknown.topic_data[0].name = "nobody".into();
    unknown.topic_data[0].topic_id = uuid::Uuid::from_u128(1);
    let answered = produced(&mut wire, unknown.clone(), 12).await;
    assert_eq!(
        ErrorCode(answered.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let answered = produced(&mut wire, unknown, 13).await;
    assert_eq!(ErrorCode(answered.error_code), ErrorCode::UnknownTopicId);
    assert_eq!(topic.partition(0).unwrap().high_watermark(), offset(0));
    door.close().await;
}

#[tokio::test]
async fn an_idempotent_producers_retry_gets_its_first_offset() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let asked = InitProducerIdRequest {
        transactional_id: None,
        ..Default::default()
    };
    let mut ids = Vec::new();
    for version in 0..=5 {
        let answered = wire.ask(asked.clone(), version).await;
        assert_eq!((answered.error_code, answered.producer_epoch), (0, 0));
        ids.push(answered.producer_id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 6, "no id is given twice");

    let id = ids[0];
    let first = produce(&topic, 0, batch_of(id, 0, 0, &["a", "b"]));
    let second = produce(&topic, 0, batch_of(id, 0, 2, &["c"]));
    assert_eq!(produced(&mut wire, first.clone(), 9).await.base_offset, 0);
    assert_eq!(produced(&mut wire, second, 9).await.base_offset, 2);
    let again = produced(&mut wire, first, 9).await;
    assert_eq!((again.error_code, again.base_offset), (0, 0));
    let skipped = produce(&topic, 0, batch_of(id, 0, 9, &["z"]));
    let refused = produced(&mut wire, skipped, 9).await;
    assert_eq!(
        ErrorCode(refused.error_code),
        ErrorCode::OutOfOrderSequenceNumber
    );
    let fetched = fetched(&mut wire, fetch(&topic, 0, 0), 11).await;
    assert_eq!(values(&fetched, 0).len(), 3);
    door.close().await;
}

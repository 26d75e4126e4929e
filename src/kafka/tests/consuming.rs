//! Fetch, ListOffsets and OffsetForLeaderEpoch.

use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    FetchRequest, ForgottenTopic, ListOffsetsPartition, ListOffsetsPartitionResponse,
    ListOffsetsRequest, ListOffsetsTopic, MetadataRequest, OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition, OffsetForLeaderPartitionResult, OffsetForLeaderTopic,
};
use super::*;
use holdfast_storage::log::Isolation;

#[tokio::test]
async fn every_version_of_fetch_reads_what_was_written() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    produced(&mut wire, produce(&topic, 0, batch(&["a", "b"])), 9).await;
    produced(&mut wire, produce(&topic, 0, batch(&["c"])), 9).await;
    for version in 4..=18 {
        let found = fetched(&mut wire, fetch(&topic, 0, 0), version).await;
        let expected = [
            (0, "a".to_owned()),
            (1, "b".to_owned()),
            (2, "c".to_owned()),
        ];
        assert_eq!(values(&found, 0), expected, "version {version}");
        assert_eq!((found.high_watermark, found.last_stable_offset), (3, 3));
        let middle = fetched(&mut wire, fetch(&topic, 0, 1), version).await;
        assert_eq!(
            values(&middle, 0).len(),
            3,
            "the whole batch around the offset"
        );
    }
    door.close().await;
}

#[tokio::test]
async fn a_fetch_waits_for_the_next_record_and_holds_up_nobody() {
    let door = Door::open().await;
    let topic = door.topic("t", 2).await;
    let mut waiting = door.wire().await;
    let mut busy = door.wire().await;
    let request = FetchRequest {
        max_wait_ms: 60_000,
        ..fetch(&topic, 0, 0)
    };
    let id = waiting.send(request, 12).await;
    for _ in 0..3 {
        busy.ask(MetadataRequest::default(), 9).await;
    }
    produced(&mut busy, produce(&topic, 1, batch(&["elsewhere"])), 9).await;
    produced(&mut busy, produce(&topic, 0, batch(&["here"])), 9).await;
    let mut response = waiting.receive::<FetchRequest>(12, id).await;
    let found = response.responses.remove(0).partitions.remove(0);
    assert_eq!(values(&found, 0), [(0, "here".to_owned())]);
    door.close().await;
}

#[tokio::test]
async fn a_fetch_gathers_its_minimum() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut waiting = door.wire().await;
    let mut busy = door.wire().await;
    let one = batch(&["0123456789"]).len() as i32;
    let request = FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 3 * one,
        ..fetch(&topic, 0, 0)
    };
    let id = waiting.send(request, 12).await;
    for _ in 0..3 {
        produced(&mut busy, produce(&topic, 0, batch(&["0123456789"])), 9).await;
    }
    let mut response = waiting.receive::<FetchRequest>(12, id).await;
    let found = response.responses.remove(0).partitions.remove(0);
    assert_eq!(values(&found, 0).len(), 3);

    let request = FetchRequest {
        max_wait_ms: 50,
        min_bytes: 1 << 19,
        ..fetch(&topic, 0, 0)
    };
    let found = fetched(&mut waiting, request, 12).await;
    assert_eq!(
        values(&found, 0).len(),
        3,
        "when the time is up, what there is"
    );
    door.close().await;
}

#[tokio::test]
async fn limits_let_the_first_batch_pass_and_nothing_after_it() {
    let door = Door::open().await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    for partition in [0, 0, 1] {
        produced(
            &mut wire,
            produce(&topic, partition, batch(&[&"x".repeat(1000)])),
            9,
        )
        .await;
    }
    let mut request = fetch(&topic, 0, 0);
    request.topics[0]
        .partitions
        .push(fetch(&topic, 1, 0).topics[0].partitions[0].clone());
    request.max_bytes = 1;
    let mut response = wire.ask(request.clone(), 12).await;
    let partitions = response.responses.remove(0).partitions;
    assert_eq!(values(&partitions[0], 0).len(), 1);
    assert!(partitions[1].records.as_ref().unwrap().is_empty());

    request.max_bytes = 1 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 1500;
    request.topics[0].partitions[1].partition_max_bytes = 500;
    let mut response = wire.ask(request, 12).await;
    let partitions = response.responses.remove(0).partitions;
    assert_eq!(
        values(&partitions[0], 0).len(),
        1,
        "one of two batches fits"
    );
    assert!(
        partitions[1].records.as_ref().unwrap().is_empty(),
        "not the first, so its limit holds"
    );
    door.close().await;
}

#[tokio::test]
async fn short_of_room_records_are_sent_from_their_files() {
    let config = KafkaConfig {
        responses_bytes_max: 1,
        ..Default::default()
    };
    let door = Door::open_with(config).await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    for (partition, value) in [(0, "a"), (1, "between"), (0, "b")] {
        produced(&mut wire, produce(&topic, partition, batch(&[value])), 9).await;
    }
    for version in 4..=18 {
        let found = fetched(&mut wire, fetch(&topic, 0, 0), version).await;
        assert_eq!(
            values(&found, 0),
            [(0, "a".to_owned()), (1, "b".to_owned())]
        );
    }
    door.close().await;
}

#[tokio::test]
async fn long_answers_hold_what_the_log_holds() {
    let door = Door::open().await;
    let topic = door.topic("t", 3).await;
    let mut wire = door.wire().await;
    let long = "0123456789abcdef".repeat(8 << 10);
    for round in 0..30 {
        for partition in 0..3 {
            // The third one is left with runs that are read, between those that are not.
            let value = if partition == 2 { "short" } else { &long };
            let value = format!("{round} {partition} {value}");
            produced(&mut wire, produce(&topic, partition, batch(&[&value])), 9).await;
        }
    }
    let mut request = fetch(&topic, 0, 0);
    request.max_bytes = 16 << 20;
    let one = request.topics[0].partitions[0].clone();
    request.topics[0].partitions = (0..3)
        .map(|partition| FetchPartition {
            partition,
            partition_max_bytes: 16 << 20,
            ..one.clone()
        })
        .collect();
    let response = wire.ask(request, 17).await;
    for found in response.responses[0].partitions.iter() {
        let partition = topic.partition(found.partition_index).unwrap();
        let stored = door
            .log
            .fetch(partition, offset(0), 16 << 20, Isolation::Uncommitted)
            .unwrap();
        assert_eq!(stored.high_watermark, offset(30));
        let sent = found.records.clone().unwrap().into_bytes().unwrap();
        assert!(sent == stored.batches.concat(), "{}", found.partition_index);
    }
    door.close().await;
}

#[tokio::test]
async fn a_fetch_that_waits_for_more_repeats_nothing() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut waiting = door.wire().await;
    let mut busy = door.wire().await;
    let one = batch(&["0"]).len() as i32;
    for value in ["0", "1", "2"] {
        produced(&mut busy, produce(&topic, 0, batch(&[value])), 9).await;
    }
    let request = FetchRequest {
        max_wait_ms: 60_000,
        min_bytes: 5 * one,
        ..fetch(&topic, 0, 0)
    };
    let id = waiting.send(request, 12).await;
    for _ in 0..3 {
        busy.ask(MetadataRequest::default(), 9).await;
    }
    for value in ["3", "4"] {
        produced(&mut busy, produce(&topic, 0, batch(&[value])), 9).await;
    }
    let mut response = waiting.receive::<FetchRequest>(12, id).await;
    let found = response.responses.remove(0).partitions.remove(0);
    let expected: Vec<_> = (0..5).map(|at| (at, at.to_string())).collect();
    assert_eq!(values(&found, 0), expected);
    door.close().await;
}

#[tokio::test]
async fn fetches_that_cannot_be_answered_say_why() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    produced(&mut wire, produce(&topic, 0, batch(&["a"])), 9).await;
    let code = |found: PartitionData| ErrorCode(found.error_code);

    for beyond in [2, -1] {
        let found = fetched(&mut wire, fetch(&topic, 0, beyond), 12).await;
        assert_eq!(
            (code(found.clone()), found.high_watermark),
            (ErrorCode::OffsetOutOfRange, -1)
        );
    }
    let unknown = fetch(&topic, 5, 0);
    assert_eq!(
        code(fetched(&mut wire, unknown, 12).await),
        ErrorCode::UnknownTopicOrPartition
    );
    let mut unknown = fetch(&topic, 0, 0);
    unknown.topics[0].topic_id = uuid::Uuid::from_u128(7);
    assert_eq!(
        code(fetched(&mut wire, unknown, 13).await),
        ErrorCode::UnknownTopicId
    );

    let current = door.log.leader_epoch();
    for (believed, expected) in [
        (current, ErrorCode::None),
        (current + 1, ErrorCode::UnknownLeaderEpoch),
    ] {
        let mut request = fetch(&topic, 0, 0);
        request.topics[0].partitions[0].current_leader_epoch = believed;
        assert_eq!(code(fetched(&mut wire, request, 12).await), expected);
    }
    let level = FetchRequest {
        isolation_level: 7,
        ..fetch(&topic, 0, 0)
    };
    let refused = fetched(&mut wire, level, 12).await;
    assert_eq!(code(refused), ErrorCode::InvalidRequest);
    let session = FetchRequest {
        session_id: 5,
        session_epoch: 1,
        ..fetch(&topic, 0, 0)
    };
    let refused = wire.ask(session, 12).await;
    assert_eq!(
        ErrorCode(refused.error_code),
        ErrorCode::FetchSessionIdNotFound
    );
    door.close().await;
}

async fn position(
    wire: &mut Wire,
    topic: &Topic,
    timestamp: i64,
    version: i16,
) -> ListOffsetsPartitionResponse {
    let wanted = ListOffsetsPartition {
        timestamp,
        ..Default::default()
    };
    let topics = vec![ListOffsetsTopic {
        name: topic.name().into(),
        partitions: vec![wanted],
    }];
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics,
        ..Default::default()
    };
    wire.ask(request, version)
        .await
        .topics
        .remove(0)
        .partitions
        .remove(0)
}

/// A batch whose records have these timestamps.
fn batch_at(timestamps: &[i64]) -> Bytes {
    let record = |&timestamp_ms: &i64| Record {
        timestamp_ms,
        value: Some(Bytes::from_static(b"v")),
        ..Default::default()
    };
    super::super::client::encode_records(&timestamps.iter().map(record).collect::<Vec<_>>())
}

#[tokio::test]
async fn list_offsets_knows_both_ends_and_times() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let empty = position(&mut wire, &topic, 1, 7).await;
    assert_eq!(
        (empty.error_code, empty.offset, empty.timestamp),
        (0, -1, -1)
    );
    for timestamps in [&[1000, 2000][..], &[5000, 3000]] {
        produced(&mut wire, produce(&topic, 0, batch_at(timestamps)), 9).await;
    }
    let epoch = door.log.leader_epoch();
    for version in 1..=11 {
        let found = position(&mut wire, &topic, -1, version).await;
        assert_eq!(
            (found.offset, found.timestamp),
            (4, -1),
            "version {version}"
        );
        assert_eq!(found.leader_epoch, if version >= 4 { epoch } else { -1 });
        let found = position(&mut wire, &topic, -2, version).await;
        assert_eq!((found.offset, found.timestamp), (0, -1));
        for (at, offset, timestamp) in [(0, 0, 1000), (1500, 1, 2000), (2001, 2, 5000)] {
            let found = position(&mut wire, &topic, at, version).await;
            assert_eq!(
                (found.offset, found.timestamp),
                (offset, timestamp),
                "at {at}"
            );
        }
        let found = position(&mut wire, &topic, 5001, version).await;
        assert_eq!(
            (found.error_code, found.offset),
            (0, -1),
            "later than every record"
        );
    }
    let largest = position(&mut wire, &topic, -3, 7).await;
    assert_eq!((largest.offset, largest.timestamp), (2, 5000));
    let early = position(&mut wire, &topic, -3, 6).await;
    assert_eq!(ErrorCode(early.error_code), ErrorCode::UnsupportedVersion);

    let many = (0..3)
        .chain([1])
        .map(|partition_index| ListOffsetsPartition {
            partition_index,
            ..Default::default()
        });
    let request = ListOffsetsRequest {
        topics: vec![ListOffsetsTopic {
            name: "longer than any".repeat(100).as_str().into(),
            partitions: many.collect(),
        }],
        ..Default::default()
    };
    let answered = wire.ask(request, 7).await.topics.remove(0).partitions;
    let codes: Vec<_> = answered.iter().map(|p| ErrorCode(p.error_code)).collect();
    let unknown = ErrorCode::UnknownTopicOrPartition;
    assert_eq!(codes, [unknown, ErrorCode::InvalidRequest, unknown]);
    assert_eq!(position(&mut wire, &topic, -4, 8).await.offset, 0);
    assert_eq!(position(&mut wire, &topic, -5, 9).await.offset, -1);
    door.close().await;
}

async fn epoch_end(wire: &mut Wire, topic: &Topic, epoch: i32) -> OffsetForLeaderPartitionResult {
    let wanted = OffsetForLeaderPartition {
        leader_epoch: epoch,
        ..Default::default()
    };
    let topics = vec![OffsetForLeaderTopic {
        topic: topic.name().into(),
        partitions: vec![wanted],
    }];
    let request = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics,
    };
    wire.ask(request, 4)
        .await
        .topics
        .remove(0)
        .partitions
        .remove(0)
}

#[tokio::test]
async fn epochs_end_where_the_next_start_began() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let first = door.log.leader_epoch();
    let mut wire = door.wire().await;
    for _ in 0..5 {
        produced(&mut wire, produce(&topic, 0, batch(&["a", "b"])), 9).await;
    }
    let dir = door.close().await;

    let door = Door::open_in(dir, KafkaConfig::default()).await;
    let topic = door.log.topic("t").unwrap();
    let second = door.log.leader_epoch();
    assert!(second > first);
    let mut wire = door.wire().await;
    for _ in 0..3 {
        produced(&mut wire, produce(&topic, 0, batch(&["c"])), 9).await;
    }
    let end = epoch_end(&mut wire, &topic, first).await;
    assert_eq!(
        (end.error_code, end.leader_epoch, end.end_offset),
        (0, first, 10)
    );
    let end = epoch_end(&mut wire, &topic, second).await;
    assert_eq!((end.leader_epoch, end.end_offset), (second, 13));
    let end = epoch_end(&mut wire, &topic, second + 1).await;
    assert_eq!((end.leader_epoch, end.end_offset), (-1, -1));

    let mut stale = fetch(&topic, 0, 0);
    stale.topics[0].partitions[0].current_leader_epoch = first;
    let refused = fetched(&mut wire, stale.clone(), 12).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::FencedLeaderEpoch);
    // From version 16 on, with the leader that there is (KIP-951).
    let refused = wire.ask(stale, 16).await;
    let leader = &refused.responses[0].partitions[0].current_leader;
    assert_eq!((leader.leader_id, leader.leader_epoch), (1, second));
    let port = i32::from(door.address().port());
    assert_eq!(refused.node_endpoints[0].port, port);

    // Who has other records than these learns where they part (KIP-595).
    for (offset, last_fetched, diverging, records) in [
        (8, first, (-1, -1), 5),
        (10, first, (-1, -1), 3),
        (11, first, (first, 10), 0),
        (14, second, (second, 13), 0),
    ] {
        let mut request = fetch(&topic, 0, offset);
        request.topics[0].partitions[0].last_fetched_epoch = last_fetched;
        let found = fetched(&mut wire, request, 12).await;
        let end = &found.diverging_epoch;
        assert_eq!((end.epoch, end.end_offset), diverging, "from {offset}");
        assert_eq!(found.error_code, 0);
        assert_eq!(values(&found, 0).len(), records);
    }
    // In a session, too: again and again, until the client has gone back.
    let opened = wire
        .ask(in_session(&topic, (0, 0), &[(0, 13)], &[]), 12)
        .await;
    let id = opened.session_id;
    let mut wrong = in_session(&topic, (id, 1), &[(0, 12)], &[]);
    wrong.topics[0].partitions[0].last_fetched_epoch = first;
    for request in [wrong, in_session(&topic, (id, 2), &[], &[])] {
        let found = wire.ask(request, 12).await;
        let end = &found.responses[0].partitions[0].diverging_epoch;
        assert_eq!((end.epoch, end.end_offset), (first, 10));
    }
    let back = in_session(&topic, (id, 3), &[(0, 10)], &[]);
    assert_eq!(told(&mut wire, back, 12).await, (id, vec![(0, 0, 3)]));

    let mut newer = fetch(&topic, 0, 0);
    newer.topics[0].partitions[0].last_fetched_epoch = second + 1;
    let refused = fetched(&mut wire, newer, 12).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::OffsetOutOfRange);
    assert_eq!(position(&mut wire, &topic, -2, 7).await.leader_epoch, first);
    assert_eq!(
        position(&mut wire, &topic, -1, 7).await.leader_epoch,
        second
    );
    door.close().await;
}

#[tokio::test]
async fn the_client_writes_and_reads_what_it_wrote() {
    let door = Door::open().await;
    let mut client = door.client().await;
    client.create_topic("t", 3, &[]).await.unwrap();
    let topics = client.topics().await.unwrap();
    let topic = topics.iter().find(|topic| topic.name == "t").unwrap();
    assert_eq!(
        (topic.internal, topic.partitions.as_slice()),
        (false, &[0, 1, 2][..])
    );

    let record = |n: u8| Record {
        timestamp_ms: i64::from(n) * 1000,
        key: Some(Bytes::from_static(b"key")),
        value: n.is_multiple_of(2).then(|| Bytes::from(vec![n])),
        headers: vec![
            holdfast_storage::log::Header::new("h", "1"),
            holdfast_storage::log::Header::new("h", "2"),
        ],
    };
    let records: Vec<Record> = (1..=3).map(record).collect();
    assert_eq!(client.produce("t", 2, records.clone()).await.unwrap(), 0);
    assert_eq!(client.offsets("t", 2).await.unwrap(), (0, 3));
    let (read, next) = client.fetch("t", 2, 1, Duration::ZERO).await.unwrap();
    assert_eq!(next, 3);
    let expected: Vec<_> = records.into_iter().enumerate().skip(1).collect();
    assert_eq!(read.len(), 2);
    for (stored, (n, record)) in read.into_iter().zip(expected) {
        assert_eq!((stored.offset, stored.record), (offset(n as i64), record));
    }
    assert_eq!(client.offset_for_time("t", 2, 2000).await.unwrap(), Some(1));
    assert_eq!(client.offset_for_time("t", 2, 9000).await.unwrap(), None);
    assert!(
        client
            .fetch("t", 2, 3, Duration::from_millis(20))
            .await
            .unwrap()
            .0
            .is_empty()
    );
    let refused = client.fetch("t", 2, 99, Duration::ZERO).await.unwrap_err();
    assert_eq!(refused.to_string(), "t/2: OFFSET_OUT_OF_RANGE");
    let refused = client.produce("nobody", 0, Vec::new()).await.unwrap_err();
    assert_eq!(refused.to_string(), "nobody: UNKNOWN_TOPIC_OR_PARTITION");
    door.close().await;
}

/// A request of a session; partitions of the topic with their offsets.
fn in_session(
    topic: &Topic,
    (session_id, session_epoch): (i32, i32),
    partitions: &[(i32, i64)],
    forgotten: &[i32],
) -> FetchRequest {
    let one = fetch(topic, 0, 0);
    let mut topics = one.topics.clone();
    topics[0].partitions = partitions
        .iter()
        .map(|&(partition, fetch_offset)| FetchPartition {
            partition,
            fetch_offset,
            ..one.topics[0].partitions[0].clone()
        })
        .collect();
    if partitions.is_empty() {
        topics.clear();
    }
    let forgotten = ForgottenTopic {
        topic: topic.name().into(),
        topic_id: topic.id().0,
        partitions: forgotten.to_vec(),
    };
    FetchRequest {
        session_id,
        session_epoch,
        topics,
        forgotten_topics_data: vec![forgotten],
        ..one
    }
}

/// Session, and partition, error and number of records of what the answer names.
async fn told(
    wire: &mut Wire,
    request: FetchRequest,
    version: i16,
) -> (i32, Vec<(i32, i16, usize)>) {
    let response = wire.ask(request, version).await;
    assert_eq!(response.error_code, 0);
    let partitions = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions);
    let named = partitions.map(|found| {
        let records = if found.error_code == 0 {
            values(found, 0).len()
        } else {
            0
        };
        (found.partition_index, found.error_code, records)
    });
    (response.session_id, named.collect())
}

#[tokio::test]
async fn a_fetch_session_tells_what_is_new() {
    let door = Door::open().await;
    let topic = door.topic("t", 3).await;
    let mut wire = door.wire().await;
    for version in [7, 12, 13, 18] {
        let start = |partition: i32| {
            let partition = topic.partition(partition).unwrap();
            partition.high_watermark().value()
        };
        let all = [(0, start(0)), (1, start(1)), (2, start(2))];
        let ask = in_session(&topic, (0, 0), &all, &[]);
        let (id, named) = told(&mut wire, ask, version).await;
        assert_ne!(id, 0);
        assert_eq!(
            named,
            [(0, 0, 0), (1, 0, 0), (2, 0, 0)],
            "version {version}"
        );
        let nothing = told(&mut wire, in_session(&topic, (id, 1), &[], &[]), version).await;
        assert_eq!(nothing, (id, vec![]));
        let new = batch(&["new"]);
        produced(&mut wire, produce(&topic, 1, new.clone()), 9).await;
        let ask = in_session(&topic, (id, 2), &[], &[]);
        assert_eq!(told(&mut wire, ask, version).await, (id, vec![(1, 0, 1)]));
        // It is behind the others now, and has nothing more once it was read.
        let read = [(1, start(1))];
        let ask = in_session(&topic, (id, 3), &read, &[]);
        assert_eq!(told(&mut wire, ask, version).await, (id, vec![]));
        for partition in [1, 2, 0] {
            produced(&mut wire, produce(&topic, partition, new.clone()), 9).await;
        }
        let ask = in_session(&topic, (id, 4), &[], &[0]);
        let named = vec![(2, 0, 1), (1, 0, 1)];
        assert_eq!(told(&mut wire, ask, version).await, (id, named));
        // An error is told until it is over.
        let ask = in_session(&topic, (id, 5), &[(1, start(1)), (2, 1 << 40)], &[]);
        assert_eq!(told(&mut wire, ask, version).await, (id, vec![(2, 1, 0)]));
        let ask = in_session(&topic, (id, 6), &[], &[]);
        assert_eq!(told(&mut wire, ask, version).await, (id, vec![(2, 1, 0)]));
        let ask = in_session(&topic, (id, 7), &[(2, start(2))], &[]);
        assert_eq!(told(&mut wire, ask, version).await, (id, vec![(2, 0, 0)]));
        // All forgotten: the session is over.
        let ask = in_session(&topic, (id, 8), &[], &[1, 2]);
        assert_eq!(told(&mut wire, ask, version).await, (0, vec![]));
        let gone = wire
            .ask(in_session(&topic, (id, 9), &[], &[]), version)
            .await;
        assert_eq!(
            ErrorCode(gone.error_code),
            ErrorCode::FetchSessionIdNotFound
        );
    }
    door.close().await;
}

#[tokio::test]
async fn fetch_sessions_are_refused_and_bounded() {
    let config = KafkaConfig {
        fetch_sessions_max: 1,
        fetch_session_partitions_max: 2,
        ..Default::default()
    };
    let door = Door::open_with(config).await;
    let topic = door.topic("t", 3).await;
    let mut wire = door.wire().await;
    let code = async |wire: &mut Wire, request: FetchRequest, version: i16| {
        ErrorCode(wire.ask(request, version).await.error_code)
    };
    let three = [(0, 0), (1, 0), (2, 0)];
    let (id, named) = told(&mut wire, in_session(&topic, (0, 0), &three, &[]), 12).await;
    assert_eq!((id, named.len()), (0, 3), "no room for three partitions");
    let (id, _) = told(&mut wire, in_session(&topic, (0, 0), &three[..1], &[]), 12).await;
    assert_ne!(id, 0);
    let (other, _) = told(&mut wire, in_session(&topic, (0, 0), &three[..1], &[]), 12).await;
    assert_eq!(other, 0, "one session is all there is");
    let ask = in_session(&topic, (id, 2), &[], &[]);
    assert_eq!(
        code(&mut wire, ask, 12).await,
        ErrorCode::InvalidFetchSessionEpoch
    );
    let ask = in_session(&topic, (id, 1), &[], &[]);
    assert_eq!(
        code(&mut wire, ask, 13).await,
        ErrorCode::FetchSessionTopicIdError
    );
    // It outgrows its room: answered once more, and over.
    let (over, named) = told(&mut wire, in_session(&topic, (id, 1), &three[1..], &[]), 12).await;
    assert_eq!((over, named.len()), (0, 3));
    // Which makes room; and so does who ends one.
    for _ in 0..2 {
        let (id, _) = told(&mut wire, in_session(&topic, (0, 0), &three[..2], &[]), 12).await;
        assert_ne!(id, 0);
        let (none, named) = told(&mut wire, in_session(&topic, (id, -1), &three, &[]), 12).await;
        assert_eq!((none, named.len()), (0, 3));
        let ask = in_session(&topic, (id, 1), &[], &[]);
        assert_eq!(
            code(&mut wire, ask, 12).await,
            ErrorCode::FetchSessionIdNotFound
        );
    }
    door.close().await;
}

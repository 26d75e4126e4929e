//! Client quotas: set, shown, and enforced. And topics page by page, features, the quorum.

use super::super::protocol::messages::{
    AlterClientQuotasRequest, AlterQuotaEntryData, ComponentData, CreatableTopic,
    CreateTopicsRequest, DescribeClientQuotasRequest, DescribeQuorumPartition,
    DescribeQuorumRequest, DescribeQuorumTopic, DescribeTopicPartitionsRequest, FeatureUpdateKey,
    MetadataRequest, QuotaEntityData, QuotaOpData, UpdateFeaturesRequest,
};
use super::super::protocol::{ErrorCode, Str};
use super::*;

fn alter(kind: &str, name: Option<&str>, key: &str, value: f64) -> AlterClientQuotasRequest {
    AlterClientQuotasRequest {
        entries: vec![AlterQuotaEntryData {
            entity: vec![QuotaEntityData {
                entity_type: kind.into(),
                entity_name: name.map(Str::from),
            }],
            ops: vec![QuotaOpData {
                key: key.into(),
                value,
                remove: value == 0.0,
            }],
        }],
        validate_only: false,
    }
}

async fn altered(wire: &mut Wire, request: AlterClientQuotasRequest) -> ErrorCode {
    ErrorCode(wire.ask(request, 1).await.entries.remove(0).error_code)
}

#[tokio::test]
async fn a_client_over_its_quota_is_told_to_wait_and_is_not_read() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let quota = alter("client-id", None, "producer_byte_rate", 10.0);
    assert_eq!(altered(&mut wire, quota).await, ErrorCode::None);
    let large = "x".repeat(120);
    let begun = tokio::time::Instant::now();
    let first = wire
        .ask(in_version(produce(&topic, 0, batch(&[&large])), 9), 9)
        .await;
    assert!(first.throttle_time_ms > 5_000, "{first:?}");
    assert_eq!(first.responses[0].partition_responses[0].error_code, 0);
    assert!(begun.elapsed() < Duration::from_secs(5), "answered at once");
    // Somebody else is answered; this connection is not read.
    let mut other = door.wire().await;
    let asked = MetadataRequest::default();
    other.ask(asked.clone(), 9).await;
    let waiting = tokio::time::timeout(Duration::from_millis(200), wire.ask(asked, 9));
    assert!(waiting.await.is_err());
    door.close().await;
}

#[tokio::test]
async fn a_reader_over_its_quota_gets_nothing_and_is_told_so() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let large = "x".repeat(10_000);
    produced(&mut wire, produce(&topic, 0, batch(&[&large])), 9).await;
    let quota = alter("user", Some("ANONYMOUS"), "consumer_byte_rate", 900.0);
    assert_eq!(altered(&mut wire, quota).await, ErrorCode::None);
    let full = wire.ask(fetch(&topic, 0, 0), 11).await;
    assert!(
        full.throttle_time_ms > 0,
        "it comes whole, and was too much"
    );
    assert_eq!(values(&full.responses[0].partitions[0], 0).len(), 1);
    drop(wire);
    let mut wire = door.wire().await;
    let empty = wire.ask(fetch(&topic, 0, 0), 11).await;
    assert!(empty.throttle_time_ms > 0);
    let found = &empty.responses[0].partitions[0];
    assert_eq!((found.error_code, values(found, 0).len()), (0, 0));
    assert_eq!(found.high_watermark, 1);
    door.close().await;
}

#[tokio::test]
async fn who_makes_too_many_topics_is_refused() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    let quota = alter("user", None, "controller_mutation_rate", 0.5);
    assert_eq!(altered(&mut wire, quota).await, ErrorCode::None);
    let create = |name: &str| CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: 20,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    };
    let first = wire.ask(create("a"), 7).await;
    assert_eq!(first.topics[0].error_code, 0);
    let mut wire = door.wire().await;
    let refused = wire.ask(create("b"), 7).await;
    let error = ErrorCode(refused.topics[0].error_code);
    assert_eq!(error, ErrorCode::ThrottlingQuotaExceeded);
    assert!(refused.throttle_time_ms > 0);
    // Clients that do not know this error are served, and told to wait.
    let mut wire = door.wire().await;
    let served = wire.ask(create("c"), 5).await;
    assert_eq!(served.topics[0].error_code, 0);
    assert!(served.throttle_time_ms > 0);
    door.close().await;
}

#[tokio::test]
async fn quotas_are_shown_as_they_were_set_and_nonsense_is_refused() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    for (request, wanted) in [
        (
            alter("user", Some("u"), "producer_byte_rate", 5.0),
            ErrorCode::None,
        ),
        (
            alter("ip", Some("127.0.0.9"), "connection_creation_rate", 5.0),
            ErrorCode::None,
        ),
        (
            alter("user", Some("u"), "producer_byte_rate", 5.5),
            ErrorCode::InvalidRequest,
        ),
        (
            alter("user", Some("u"), "producer_byte_rate", -1.0),
            ErrorCode::InvalidRequest,
        ),
        (
            alter("user", Some("u"), "speed", 5.0),
            ErrorCode::InvalidRequest,
        ),
        (
            alter("user", Some("u"), "connection_creation_rate", 5.0),
            ErrorCode::InvalidRequest,
        ),
        (
            alter("planet", Some("u"), "producer_byte_rate", 5.0),
            ErrorCode::InvalidRequest,
        ),
        (
            alter("ip", Some("here"), "connection_creation_rate", 5.0),
            ErrorCode::InvalidRequest,
        ),
    ] {
        let entry = format!("{:?}", request.entries);
        assert_eq!(altered(&mut wire, request).await, wanted, "{entry}");
    }
    let ask = |kind: &str, match_type: i8, name: Option<&str>| DescribeClientQuotasRequest {
        components: vec![ComponentData {
            entity_type: kind.into(),
            match_type,
            _match: name.map(Str::from),
        }],
        strict: true,
    };
    let all = wire.ask(DescribeClientQuotasRequest::default(), 1).await;
    assert_eq!(all.entries.unwrap().len(), 2);
    let found = wire
        .ask(ask("user", 0, Some("u")), 0)
        .await
        .entries
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].values[0].key.as_str(), "producer_byte_rate");
    assert_eq!(found[0].values[0].value, 5.0);
    assert_eq!(wire.ask(ask("user", 1, None), 1).await.entries.unwrap(), []);
    let refused = wire.ask(ask("user", 7, None), 1).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::InvalidRequest);
    let removed = alter("user", Some("u"), "producer_byte_rate", 0.0);
    assert_eq!(altered(&mut wire, removed).await, ErrorCode::None);
    assert_eq!(wire.ask(ask("user", 2, None), 1).await.entries.unwrap(), []);
    door.close().await;
}

#[tokio::test]
async fn topics_are_described_page_by_page() {
    let door = Door::open().await;
    door.topic("a", 3).await;
    door.topic("b", 2).await;
    let mut wire = door.wire().await;
    let mut seen = Vec::new();
    let mut request = DescribeTopicPartitionsRequest {
        response_partition_limit: 2,
        ..Default::default()
    };
    for _ in 0..3 {
        let page = wire.ask(request.clone(), 0).await;
        for topic in &page.topics {
            let name = topic.name.as_ref().unwrap().as_str().to_owned();
            let partitions = topic.partitions.iter();
            seen.extend(partitions.map(|p| (name.clone(), p.partition_index)));
        }
        request.cursor = page.next_cursor;
    }
    assert_eq!(request.cursor, None);
    let wanted = [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)];
    let wanted: Vec<(String, i32)> = wanted.map(|(n, p)| (n.to_owned(), p)).to_vec();
    assert_eq!(seen, wanted);
    door.close().await;
}

#[tokio::test]
async fn the_quorum_is_this_node_and_features_stay_as_they_are() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    let ask = |topic: &str| DescribeQuorumRequest {
        topics: vec![DescribeQuorumTopic {
            topic_name: topic.into(),
            partitions: vec![DescribeQuorumPartition { partition_index: 0 }],
        }],
    };
    for version in 0..=2 {
        let found = wire.ask(ask("__cluster_metadata"), version).await;
        let partition = &found.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id), (0, 1));
        assert!(partition.high_watermark > 0);
        assert_eq!(partition.current_voters.len(), 1);
    }
    let unknown = wire.ask(ask("t"), 2).await;
    let error = ErrorCode(unknown.topics[0].partitions[0].error_code);
    assert_eq!(error, ErrorCode::UnknownTopicOrPartition);
    for (level, wanted) in [(2, ErrorCode::None), (1, ErrorCode::InvalidUpdateVersion)] {
        let asked = UpdateFeaturesRequest {
            feature_updates: vec![FeatureUpdateKey {
                feature: "transaction.version".into(),
                max_version_level: level,
                ..Default::default()
            }],
            ..Default::default()
        };
        let answered = wire.ask(asked.clone(), 2).await;
        assert_eq!(ErrorCode(answered.error_code), wanted);
        // One by one before that, but for refusals.
        let answered = wire.ask(asked, 1).await;
        assert_eq!(ErrorCode(answered.error_code), wanted);
        assert_eq!(answered.results.is_empty(), wanted != ErrorCode::None);
    }
    door.close().await;
}

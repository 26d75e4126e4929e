//! Metadata, FindCoordinator and CreateTopics.

use super::super::KafkaConfig;
use super::super::config::ReplicationFactors;
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicResult, CreateTopicsRequest,
    FindCoordinatorRequest, MetadataRequest, MetadataRequestTopic, MetadataResponseTopic,
};
use super::*;

fn named(name: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic {
        name: Some(name.into()),
        ..Default::default()
    };
    MetadataRequest {
        topics: Some(vec![topic]),
        ..Default::default()
    }
}

async fn one(wire: &mut Wire, request: MetadataRequest, version: i16) -> MetadataResponseTopic {
    wire.ask(request, version).await.topics.remove(0)
}

#[tokio::test]
async fn metadata_leads_clients_back_to_the_door() {
    let door = Door::open().await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    for version in 0..=13 {
        let request = MetadataRequest {
            topics: if version == 0 { Some(Vec::new()) } else { None },
            ..Default::default()
        };
        let response = wire.ask(request, version).await;
        let broker = &response.brokers[0];
        assert_eq!(
            (broker.host.as_str(), broker.port as u16),
            ("127.0.0.1", door.address().port())
        );
        let found = response
            .topics
            .iter()
            .find(|t| t.name.as_ref().unwrap().as_str() == "t");
        let found = found.unwrap();
        assert_eq!(found.partitions.len(), 2, "version {version}");
        assert!(
            found
                .partitions
                .iter()
                .all(|p| p.leader_id == broker.node_id && p.error_code == 0)
        );
        if version >= 10 {
            assert_eq!(found.topic_id, topic.id().0);
        }
        if version >= 7 {
            assert_eq!(found.partitions[0].leader_epoch, door.log.leader_epoch());
        }
    }
    let nothing = MetadataRequest {
        topics: Some(Vec::new()),
        ..Default::default()
    };
    assert!(wire.ask(nothing, 5).await.topics.is_empty());
    door.close().await;
}

#[tokio::test]
async fn an_advertised_address_is_what_clients_are_told() {
    let advertised = Some("box.example:19092".to_owned());
    let door = Door::open_with(KafkaConfig {
        advertised,
        ..Default::default()
    })
    .await;
    let mut wire = door.wire().await;
    let response = wire.ask(MetadataRequest::default(), 12).await;
    let broker = &response.brokers[0];
    assert_eq!((broker.host.as_str(), broker.port), ("box.example", 19092));
    door.close().await;
}

#[tokio::test]
async fn topics_are_created_on_demand_only_where_both_sides_want_it() {
    let config = KafkaConfig {
        default_partitions: 3,
        ..Default::default()
    };
    let door = Door::open_with(config).await;
    let mut wire = door.wire().await;
    let unwanted = MetadataRequest {
        allow_auto_topic_creation: false,
        ..named("auto")
    };
    let found = one(&mut wire, unwanted, 12).await;
    assert_eq!(
        ErrorCode(found.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    assert!(door.log.topic("auto").is_none());
    let found = one(&mut wire, named("auto"), 12).await;
    assert_eq!((found.error_code, found.partitions.len()), (0, 3));
    assert!(door.log.topic("auto").is_some());
    let found = one(&mut wire, named("not a name"), 12).await;
    assert_eq!(ErrorCode(found.error_code), ErrorCode::InvalidTopic);
    door.close().await;

    let config = KafkaConfig {
        auto_create_topics: false,
        ..Default::default()
    };
    let door = Door::open_with(config).await;
    let found = one(&mut door.wire().await, named("auto"), 12).await;
    assert_eq!(
        ErrorCode(found.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    door.close().await;
}

#[tokio::test]
async fn topics_are_found_by_id_too() {
    let door = Door::open().await;
    let topic = door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let by_id = |topic_id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            topic_id,
            name: None,
        }]),
        ..Default::default()
    };
    let found = one(&mut wire, by_id(topic.id().0), 12).await;
    assert_eq!(found.name.unwrap().as_str(), "t");
    let missing = one(&mut wire, by_id(uuid::Uuid::from_u128(3)), 12).await;
    assert_eq!(ErrorCode(missing.error_code), ErrorCode::UnknownTopicId);
    assert_eq!(missing.name, None);
    door.close().await;
}

#[tokio::test]
async fn the_node_coordinates_groups_and_nothing_else() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    for version in 0..=3 {
        let asked = FindCoordinatorRequest {
            key: "g".into(),
            ..Default::default()
        };
        let found = wire.ask(asked, version).await;
        assert_eq!(
            (found.error_code, found.port as u16),
            (0, door.address().port())
        );
    }
    for version in 4..=6 {
        let asked = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into(), "h".into()],
            ..Default::default()
        };
        let found = wire.ask(asked, version).await;
        assert_eq!(found.coordinators.len(), 2);
        assert_eq!(found.coordinators[1].key.as_str(), "h");
        assert!(
            found
                .coordinators
                .iter()
                .all(|c| c.error_code == 0 && c.node_id == 1)
        );
    }
    let asked = FindCoordinatorRequest {
        key: "t".into(),
        key_type: 1,
        ..Default::default()
    };
    let refused = wire.ask(asked, 2).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::UnsupportedVersion);
    door.close().await;
}

async fn created(
    wire: &mut Wire,
    topic: CreatableTopic,
    validate_only: bool,
) -> CreatableTopicResult {
    let request = CreateTopicsRequest {
        topics: vec![topic],
        validate_only,
        ..Default::default()
    };
    wire.ask(request, 7).await.topics.remove(0)
}

fn wanted(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.into(),
        num_partitions,
        replication_factor,
        ..Default::default()
    }
}

#[tokio::test]
async fn topics_are_created_and_refused_one_by_one() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    let result = created(&mut wire, wanted("dry", 2, 1), true).await;
    assert_eq!((result.error_code, result.num_partitions), (0, 2));
    assert!(door.log.topic("dry").is_none(), "only validated");

    let result = created(&mut wire, wanted("t", -1, -1), false).await;
    assert_eq!(
        (
            result.error_code,
            result.num_partitions,
            result.replication_factor
        ),
        (0, 1, 1)
    );
    assert_eq!(result.topic_id, door.log.topic("t").unwrap().id().0);
    assert_eq!(result.error_message, None);

    let manual = CreatableTopic {
        assignments: vec![
            CreatableReplicaAssignment {
                partition_index: 1,
                broker_ids: vec![1],
            },
            CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![1],
            },
        ],
        ..wanted("manual", -1, -1)
    };
    assert_eq!(
        created(&mut wire, manual.clone(), false).await.error_code,
        0
    );
    assert_eq!(door.log.topic("manual").unwrap().partitions().len(), 2);
    let mut elsewhere = manual;
    elsewhere.name = "elsewhere".into();
    elsewhere.assignments[0].broker_ids = vec![2];

    for (topic, code) in [
        (wanted("t", 1, 1), ErrorCode::TopicAlreadyExists),
        (wanted("a b", 1, 1), ErrorCode::InvalidTopic),
        (wanted("zero", 0, 1), ErrorCode::InvalidPartitions),
        (wanted("three", 1, 3), ErrorCode::InvalidReplicationFactor),
        (wanted("many", 20_000, 1), ErrorCode::PolicyViolation),
        (elsewhere, ErrorCode::InvalidReplicaAssignment),
    ] {
        let result = created(&mut wire, topic, false).await;
        assert_eq!(ErrorCode(result.error_code), code, "{:?}", result.name);
        assert!(result.error_message.is_some());
    }
    let twice = CreateTopicsRequest {
        topics: vec![wanted("twice", 1, 1), wanted("twice", 1, 1)],
        ..Default::default()
    };
    let results = wire.ask(twice, 2).await.topics;
    assert!(
        results
            .iter()
            .all(|r| ErrorCode(r.error_code) == ErrorCode::InvalidRequest)
    );
    assert!(door.log.topic("twice").is_none());
    door.close().await;
}

#[tokio::test]
async fn other_replication_factors_are_taken_where_the_operator_says_so() {
    let config = KafkaConfig {
        accept_replication_factor: ReplicationFactors::Any,
        ..Default::default()
    };
    let door = Door::open_with(config).await;
    let result = created(&mut door.wire().await, wanted("t", 1, 3), false).await;
    assert_eq!((result.error_code, result.replication_factor), (0, 1));
    door.close().await;
}

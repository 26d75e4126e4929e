//! Metadata, FindCoordinator, topics and their configurations, groups as administrators see them.

use super::super::KafkaConfig;
use super::super::config::ReplicationFactors;
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    AlterConfigsRequest, AlterConfigsResource, AlterPartitionReassignmentsRequest,
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest, AlterableConfig,
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicResult, CreatePartitionsAssignment,
    CreatePartitionsRequest, CreatePartitionsTopic, CreateTopicsRequest, DeleteGroupsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, DescribeConfigsResource,
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeGroupsRequest,
    DescribeLogDirsRequest, FindCoordinatorRequest, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResource, IncrementalAlterableConfig, ListGroupsRequest,
    MetadataRequest, MetadataRequestTopic, MetadataResponseTopic, OffsetCommitRequest,
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetDeleteRequest,
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic, ReassignablePartition,
    ReassignableTopic,
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
async fn the_node_coordinates_groups_and_transactions() {
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
        key_type: 2,
        ..Default::default()
    };
    let refused = wire.ask(asked, 2).await;
    assert_eq!(ErrorCode(refused.error_code), ErrorCode::InvalidRequest);
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
    let codes: Vec<_> = results.iter().map(|r| ErrorCode(r.error_code)).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest], "said once");
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

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn described(
    wire: &mut Wire,
    resource_type: i8,
    name: &str,
    keys: Option<&[&str]>,
    version: i16,
) -> DescribeConfigsResult {
    let resource = DescribeConfigsResource {
        resource_type,
        resource_name: name.into(),
        configuration_keys: keys.map(|keys| keys.iter().map(|&key| key.into()).collect()),
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    wire.ask(request, version).await.results.remove(0)
}

/// Value and source of one configuration.
async fn value(wire: &mut Wire, topic: &str, key: &str) -> (String, i8) {
    let found = described(wire, TOPIC, topic, Some(&[key]), 4).await;
    assert_eq!((found.error_code, found.configs.len()), (0, 1));
    let config = &found.configs[0];
    let value = config.value.as_ref().unwrap().as_str().to_owned();
    (value, config.config_source)
}

async fn incremental(
    wire: &mut Wire,
    topic: &str,
    steps: &[(&str, i8, Option<&str>)],
    validate_only: bool,
) -> (ErrorCode, String) {
    let step =
        |&(name, config_operation, value): &(&str, i8, Option<&str>)| IncrementalAlterableConfig {
            name: name.into(),
            config_operation,
            value: value.map(Str::from),
        };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![IncrementalAlterConfigsResource {
            resource_type: TOPIC,
            resource_name: topic.into(),
            configs: steps.iter().map(step).collect(),
        }],
        validate_only,
    };
    let answered = wire.ask(request, 1).await.responses.remove(0);
    let message = answered.error_message.map(|m| m.as_str().to_owned());
    (ErrorCode(answered.error_code), message.unwrap_or_default())
}

#[tokio::test]
async fn every_configuration_is_described_with_its_source() {
    let door = Door::open_with(KafkaConfig {
        default_partitions: 7,
        ..Default::default()
    })
    .await;
    door.topic("t", 1).await;
    let mut wire = door.wire().await;
    for version in 1..=4 {
        let found = described(&mut wire, TOPIC, "t", None, version).await;
        assert_eq!((found.error_code, found.configs.len()), (0, 35));
        let broker = described(&mut wire, BROKER, "1", None, version).await;
        assert!(broker.configs.len() > 300, "{}", broker.configs.len());
        assert!(broker.configs.iter().all(|config| config.read_only));
        let partitions = broker
            .configs
            .iter()
            .find(|config| config.name.as_str() == "num.partitions");
        let partitions = partitions.unwrap();
        assert_eq!(partitions.value.as_ref().unwrap().as_str(), "7");
        assert_eq!(partitions.config_source, 4);
        let synonyms: Vec<i8> = partitions.synonyms.iter().map(|s| s.source).collect();
        assert_eq!(synonyms, [4, 5]);
        let told = partitions.documentation.as_ref().map(Str::as_str);
        let documented = told.is_some_and(|text| text.contains("default_partitions"));
        assert_eq!(documented, version >= 3);
        let without_effect = |config: &DescribeConfigsResourceResult| {
            let text = config.documentation.as_ref();
            text.is_some_and(|text| text.as_str().contains("without effect"))
        };
        let obeyed = found.configs.iter().filter(|c| !without_effect(c)).count();
        assert_eq!(obeyed, if version >= 3 { 14 } else { 35 });
    }
    let seven_days = ("604800000".to_owned(), 5);
    assert_eq!(value(&mut wire, "t", "retention.ms").await, seven_days);
    let unknown = described(&mut wire, TOPIC, "u", None, 4).await;
    assert_eq!(
        ErrorCode(unknown.error_code),
        ErrorCode::UnknownTopicOrPartition
    );
    let other = described(&mut wire, BROKER, "2", None, 4).await;
    assert_eq!(ErrorCode(other.error_code), ErrorCode::InvalidRequest);
    door.close().await;
}

#[tokio::test]
async fn the_log_takes_every_topic_configuration_with_its_default() {
    let door = Door::open().await;
    for key in super::super::configs::TOPIC_KEYS {
        let value = key.default.unwrap_or("1").to_owned();
        let taken = door.log.check_configs(&[(key.name.to_owned(), value)]);
        assert_eq!(taken, Ok(()), "{}", key.name);
    }
    door.close().await;
}

#[tokio::test]
async fn configurations_are_altered_step_by_step_and_as_a_whole() {
    let door = Door::open().await;
    door.topic("t", 1).await;
    let mut wire = door.wire().await;
    let steps = [
        ("retention.ms", 0, Some("1000")),
        ("cleanup.policy", 2, Some("compact")),
    ];
    let validated = incremental(&mut wire, "t", &steps, true).await;
    assert_eq!(validated.0, ErrorCode::None);
    assert!(door.log.topic("t").unwrap().configs().is_empty());
    let altered = incremental(&mut wire, "t", &steps, false).await;
    assert_eq!(altered.0, ErrorCode::None);
    let of_topic = |value: &str| (value.to_owned(), 1);
    assert_eq!(
        value(&mut wire, "t", "retention.ms").await,
        of_topic("1000")
    );
    assert_eq!(
        value(&mut wire, "t", "cleanup.policy").await,
        of_topic("delete,compact")
    );
    let steps = [
        ("cleanup.policy", 3, Some("delete")),
        ("retention.ms", 1, None),
    ];
    assert_eq!(
        incremental(&mut wire, "t", &steps, false).await.0,
        ErrorCode::None
    );
    assert_eq!(
        value(&mut wire, "t", "cleanup.policy").await,
        of_topic("compact")
    );
    assert_eq!(value(&mut wire, "t", "retention.ms").await.1, 5);

    // A record without a key, now that the topic is compacted.
    let keyless = wire
        .ask(produce(&door.log.topic("t").unwrap(), 0, batch(&["v"])), 9)
        .await;
    let refused = keyless.responses[0].partition_responses[0].error_code;
    assert_eq!(ErrorCode(refused), ErrorCode::InvalidRecord);

    for (steps, code) in [
        (
            vec![("retention.ms", 0, Some("soon"))],
            ErrorCode::InvalidConfig,
        ),
        (
            vec![("segment.bytes", 0, Some("big"))],
            ErrorCode::InvalidConfig,
        ),
        (
            vec![("retention.hours", 0, Some("1"))],
            ErrorCode::InvalidConfig,
        ),
        (vec![("retention.ms", 0, None)], ErrorCode::InvalidRequest),
        (
            vec![("retention.ms", 2, Some("1"))],
            ErrorCode::InvalidConfig,
        ),
        (
            vec![("retention.ms", 9, Some("1"))],
            ErrorCode::InvalidRequest,
        ),
        (
            vec![("retention.ms", 0, Some("1")), ("retention.ms", 1, None)],
            ErrorCode::InvalidRequest,
        ),
    ] {
        let refused = incremental(&mut wire, "t", &steps, false).await;
        assert_eq!(refused.0, code, "{steps:?}: {}", refused.1);
        assert!(!refused.1.is_empty());
    }
    assert_eq!(
        value(&mut wire, "t", "cleanup.policy").await,
        of_topic("compact")
    );

    let whole = AlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![AlterableConfig {
                name: "max.message.bytes".into(),
                value: Some("100".into()),
            }],
        }],
        validate_only: false,
    };
    let altered = wire.ask(whole, 2).await.responses.remove(0);
    assert_eq!(altered.error_code, 0);
    assert_eq!(value(&mut wire, "t", "cleanup.policy").await.1, 5);
    let topic = door.log.topic("t").unwrap();
    let long = produce(&topic, 0, batch(&[&"x".repeat(200)]));
    let refused = wire.ask(long, 9).await.responses[0].partition_responses[0].error_code;
    assert_eq!(ErrorCode(refused), ErrorCode::MessageTooLarge);
    door.close().await;
}

#[tokio::test]
async fn a_topic_gets_more_partitions_and_never_fewer() {
    let door = Door::open().await;
    door.topic("t", 2).await;
    let mut wire = door.wire().await;
    let mut asked = async |count: i32, brokers: Option<&[i32]>, validate_only: bool| {
        let assignment = |&broker: &i32| CreatePartitionsAssignment {
            broker_ids: vec![broker],
        };
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: "t".into(),
                count,
                assignments: brokers.map(|brokers| brokers.iter().map(assignment).collect()),
            }],
            validate_only,
            ..Default::default()
        };
        ErrorCode(wire.ask(request, 3).await.results[0].error_code)
    };
    assert_eq!(asked(2, None, false).await, ErrorCode::InvalidPartitions);
    assert_eq!(asked(-1, None, false).await, ErrorCode::InvalidPartitions);
    assert_eq!(
        asked(3, Some(&[2]), false).await,
        ErrorCode::InvalidReplicaAssignment
    );
    assert_eq!(
        asked(20_000, None, false).await,
        ErrorCode::InvalidPartitions
    );
    assert_eq!(asked(3, None, true).await, ErrorCode::None);
    assert_eq!(door.log.topic("t").unwrap().partitions().len(), 2);
    assert_eq!(asked(3, Some(&[1]), false).await, ErrorCode::None);
    let found = one(&mut wire, named("t"), 12).await;
    assert_eq!(found.partitions.len(), 3);
    let topic = door.log.topic("t").unwrap();
    produced(&mut wire, produce(&topic, 2, batch(&["new"])), 9).await;
    door.close().await;
}

#[tokio::test]
async fn groups_and_their_offsets_are_shown_and_deleted() {
    let door = Door::open().await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 0,
        ..Default::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![partition(0), partition(1)],
            ..Default::default()
        }],
        ..Default::default()
    };
    wire.ask(commit, 8).await;
    for version in 0..=5 {
        let listed = wire.ask(ListGroupsRequest::default(), version).await.groups;
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].group_id.as_str(), "g");
    }
    let stable = ListGroupsRequest {
        states_filter: vec!["Stable".into()],
        ..Default::default()
    };
    assert!(wire.ask(stable, 4).await.groups.is_empty());
    for version in 0..=6 {
        let request = DescribeGroupsRequest {
            groups: vec!["g".into(), "nobody".into()],
            ..Default::default()
        };
        let groups = wire.ask(request, version).await.groups;
        assert_eq!(groups[0].group_state.as_str(), "Empty");
        assert_eq!(groups[1].group_state.as_str(), "Dead");
        let expected = if version < 6 { 0 } else { 69 };
        assert_eq!(groups[1].error_code, expected);
    }
    let delete = |group: &str, indexes: &[i32]| OffsetDeleteRequest {
        group_id: group.into(),
        topics: vec![OffsetDeleteRequestTopic {
            name: "t".into(),
            partitions: indexes
                .iter()
                .map(|&partition_index| OffsetDeleteRequestPartition { partition_index })
                .collect(),
        }],
    };
    let deleted = wire.ask(delete("g", &[0, 9]), 0).await;
    let codes: Vec<i16> = deleted.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!((deleted.error_code, codes), (0, vec![0, 3]));
    assert!(door.log.committed_offset("g", topic.id(), 0).is_none());
    assert!(door.log.committed_offset("g", topic.id(), 1).is_some());
    let unknown = wire.ask(delete("nobody", &[0]), 0).await;
    assert_eq!(ErrorCode(unknown.error_code), ErrorCode::GroupIdNotFound);
    for version in 0..=2 {
        let request = DeleteGroupsRequest {
            groups_names: vec!["g".into(), "nobody".into()],
        };
        let results = wire.ask(request, version).await.results;
        let expected = if version == 0 { 0 } else { 69 };
        assert_eq!(results[0].error_code, expected, "version {version}");
        assert_eq!(results[1].error_code, 69);
    }
    assert!(door.log.committed_offsets("g").is_empty());
    door.close().await;
}

#[tokio::test]
async fn the_cluster_is_one_node_with_one_disk() {
    let door = Door::open().await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    produced(&mut wire, produce(&topic, 1, batch(&["v"])), 9).await;
    for version in 0..=2 {
        let found = wire.ask(DescribeClusterRequest::default(), version).await;
        assert_eq!((found.error_code, found.brokers.len()), (0, 1));
        assert_eq!(found.brokers[0].port as u16, door.address().port());
    }
    let controllers = DescribeClusterRequest {
        endpoint_type: 2,
        ..Default::default()
    };
    let refused = wire.ask(controllers, 1).await.error_code;
    assert_eq!(ErrorCode(refused), ErrorCode::MismatchedEndpointType);
    let replicas = [Some(vec![1]), None, Some(vec![1, 2])];
    let partition = |(partition_index, replicas): (i32, Option<Vec<i32>>)| ReassignablePartition {
        partition_index,
        replicas,
    };
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: "t".into(),
            partitions: [0, 1, 1, 9]
                .into_iter()
                .zip(replicas.into_iter().chain([None]))
                .map(partition)
                .collect(),
        }],
        ..Default::default()
    };
    for version in 0..=1 {
        let answered = wire.ask(request.clone(), version).await.responses.remove(0);
        let codes: Vec<i16> = answered.partitions.iter().map(|p| p.error_code).collect();
        assert_eq!(codes, [0, 85, 39, 3]);
    }
    for (path, code) in [
        (door.dir.path().display().to_string(), 0),
        ("/elsewhere".to_owned(), 57),
    ] {
        let request = AlterReplicaLogDirsRequest {
            dirs: vec![AlterReplicaLogDir {
                path: path.as_str().into(),
                topics: vec![AlterReplicaLogDirTopic {
                    name: "t".into(),
                    partitions: vec![0],
                }],
            }],
        };
        let answered = wire.ask(request, 2).await.results.remove(0);
        assert_eq!(answered.partitions[0].error_code, code, "{path}");
    }
    for version in 1..=5 {
        let request = DescribeLogDirsRequest { topics: None };
        let found = wire.ask(request, version).await.results.remove(0);
        let sizes: Vec<i64> = found.topics[0]
            .partitions
            .iter()
            .map(|p| p.partition_size)
            .collect();
        assert_eq!(sizes, [0, batch(&["v"]).len() as i64]);
        if version >= 4 {
            assert!(found.total_bytes >= found.usable_bytes && found.usable_bytes > 0);
        }
    }
    door.close().await;
}

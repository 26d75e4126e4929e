//! Who may do what, asked of every API.

use super::super::access::wire_code;
use super::super::protocol::messages::*;
use super::super::protocol::{ApiKey, ErrorCode, Response};
use super::super::{ListenerConfig, Security};
use super::*;
use crate::auth::tests::config as quick;
use crate::auth::{
    AclBinding, AclFilter, Authorizer, Operation, PatternType, Permission, ResourceType,
};

/// What nobody without rights may learn of.
const TOPIC: &str = "secret-topic";
const GROUP: &str = "secret-group";
const ID: &str = "secret-id";

fn rule(
    resource_type: ResourceType,
    name: &str,
    operation: Operation,
    permission: Permission,
) -> AclBinding {
    let prefix = name.strip_suffix('*').filter(|prefix| !prefix.is_empty());
    AclBinding {
        resource_type,
        pattern_type: prefix.map_or(PatternType::Literal, |_| PatternType::Prefixed),
        name: prefix.unwrap_or(name).to_owned(),
        principal: "User:ANONYMOUS".to_owned(),
        host: "*".to_owned(),
        operation,
        permission,
    }
}

/// A door with rules in force: whoever comes in by the plain listener is nobody, `root` may everything.
async fn guarded() -> Door {
    let auth = AuthConfig {
        authorizer: Authorizer::Acl,
        super_users: vec!["User:root".to_owned()],
        ..quick()
    };
    let config = KafkaConfig {
        listeners: vec![ListenerConfig {
            name: "SASL".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            advertised: None,
            security: Security::SaslPlaintext,
            sasl_mechanisms: None,
            allow_anonymous: false,
            tls: None,
        }],
        ..Default::default()
    };
    let door = Door::open_guarded(tempfile::tempdir().unwrap(), config, auth).await;
    door.auth.create_user("root", "pencil", true).await.unwrap();
    door.topic(TOPIC, 1).await;
    door
}

impl Door {
    async fn root(&self) -> Wire {
        let mut wire = self.wire_to("SASL").await;
        let answer = wire.plain("root", "pencil").await;
        assert_eq!(answer.error_code, 0);
        wire
    }

    async fn allow(&self, rules: Vec<AclBinding>) {
        for made in self.auth.create_acls(rules).await.unwrap() {
            made.unwrap();
        }
    }
}

impl Wire {
    async fn answer(&mut self, request: Request, version: i16) -> Response {
        let api = request.api();
        self.send(request, version).await;
        let frame = self.frame().await.expect("an answer");
        protocol::decode_response(api, version, frame).unwrap().1
    }
}

/// What becomes of a request by somebody without rights.
#[derive(Debug, PartialEq)]
enum Fate {
    Refused(ErrorCode),
    /// Answered as if there were nothing.
    Hidden,
    /// For everybody.
    Open,
}

fn topic_partitions<T>(make: impl Fn(Str) -> T) -> Vec<T> {
    vec![make(TOPIC.into())]
}

/// A request about what is secret, and what Kafka answers to it.
fn probe(api: ApiKey) -> (Request, i16, Fate) {
    use Fate::{Hidden, Open, Refused};
    let topic = Refused(ErrorCode::TopicAuthorizationFailed);
    let group = Refused(ErrorCode::GroupAuthorizationFailed);
    let cluster = Refused(ErrorCode::ClusterAuthorizationFailed);
    let transaction = Refused(ErrorCode::TransactionalIdAuthorizationFailed);
    let (request, version, fate): (Request, i16, Fate) = match api {
        ApiKey::ApiVersions => (ApiVersionsRequest::default().into(), 0, Open),
        ApiKey::SaslHandshake => (SaslHandshakeRequest::default().into(), 1, Open),
        ApiKey::SaslAuthenticate => (SaslAuthenticateRequest::default().into(), 1, Open),
        ApiKey::DescribeCluster => {
            let request = DescribeClusterRequest {
                include_cluster_authorized_operations: true,
                ..Default::default()
            };
            (request.into(), 1, Open)
        }
        ApiKey::Metadata => {
            let request = MetadataRequest {
                topics: None,
                ..Default::default()
            };
            (request.into(), 12, Hidden)
        }
        ApiKey::ListGroups => (ListGroupsRequest::default().into(), 4, Hidden),
        ApiKey::ListTransactions => (ListTransactionsRequest::default().into(), 0, Hidden),
        ApiKey::Produce => {
            let request = ProduceRequest {
                acks: -1,
                topic_data: topic_partitions(|name| TopicProduceData {
                    name,
                    partition_data: vec![PartitionProduceData {
                        index: 0,
                        records: Some(batch(&["x"])),
                    }],
                    ..Default::default()
                }),
                ..Default::default()
            };
            (request.into(), 9, topic)
        }
        ApiKey::Fetch => {
            let request = FetchRequest {
                session_epoch: -1,
                max_bytes: 1 << 20,
                topics: topic_partitions(|name| FetchTopic {
                    topic: name,
                    partitions: vec![FetchPartition::default()],
                    ..Default::default()
                }),
                ..Default::default()
            };
            (request.into(), 11, topic)
        }
        ApiKey::ListOffsets => {
            let request = ListOffsetsRequest {
                topics: topic_partitions(|name| ListOffsetsTopic {
                    name,
                    partitions: vec![ListOffsetsPartition {
                        timestamp: -1,
                        ..Default::default()
                    }],
                }),
                ..Default::default()
            };
            (request.into(), 5, topic)
        }
        ApiKey::OffsetForLeaderEpoch => {
            let request = OffsetForLeaderEpochRequest {
                topics: topic_partitions(|name| OffsetForLeaderTopic {
                    topic: name,
                    partitions: vec![OffsetForLeaderPartition::default()],
                }),
                ..Default::default()
            };
            (request.into(), 3, topic)
        }
        ApiKey::InitProducerId => {
            let request = InitProducerIdRequest {
                transactional_id: None,
                ..Default::default()
            };
            (request.into(), 3, cluster)
        }
        ApiKey::AddPartitionsToTxn => {
            let request = AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: ID.into(),
                v3_and_below_topics: topic_partitions(|name| AddPartitionsToTxnTopic {
                    name,
                    partitions: vec![0],
                }),
                ..Default::default()
            };
            (request.into(), 3, transaction)
        }
        ApiKey::AddOffsetsToTxn => {
            let request = AddOffsetsToTxnRequest {
                transactional_id: ID.into(),
                group_id: GROUP.into(),
                ..Default::default()
            };
            (request.into(), 3, transaction)
        }
        ApiKey::EndTxn => {
            let request = EndTxnRequest {
                transactional_id: ID.into(),
                ..Default::default()
            };
            (request.into(), 3, transaction)
        }
        ApiKey::TxnOffsetCommit => {
            let request = TxnOffsetCommitRequest {
                transactional_id: ID.into(),
                group_id: GROUP.into(),
                topics: topic_partitions(|name| TxnOffsetCommitRequestTopic {
                    name,
                    partitions: vec![TxnOffsetCommitRequestPartition::default()],
                }),
                ..Default::default()
            };
            (request.into(), 3, transaction)
        }
        ApiKey::WriteTxnMarkers => {
            let request = WriteTxnMarkersRequest {
                markers: vec![WritableTxnMarker {
                    topics: topic_partitions(|name| WritableTxnMarkerTopic {
                        name,
                        partition_indexes: vec![0],
                    }),
                    ..Default::default()
                }],
            };
            (request.into(), 1, cluster)
        }
        ApiKey::DescribeProducers => {
            let request = DescribeProducersRequest {
                topics: topic_partitions(|name| DescribeProducersTopic {
                    name,
                    partition_indexes: vec![0],
                }),
            };
            (request.into(), 0, topic)
        }
        ApiKey::DescribeTransactions => {
            let request = DescribeTransactionsRequest {
                transactional_ids: vec![ID.into()],
            };
            (request.into(), 0, transaction)
        }
        ApiKey::FindCoordinator => {
            let request = FindCoordinatorRequest {
                key: GROUP.into(),
                ..Default::default()
            };
            (request.into(), 3, group)
        }
        ApiKey::JoinGroup => {
            let request = JoinGroupRequest {
                group_id: GROUP.into(),
                session_timeout_ms: 10_000,
                ..Default::default()
            };
            (request.into(), 5, group)
        }
        ApiKey::SyncGroup => {
            let request = SyncGroupRequest {
                group_id: GROUP.into(),
                ..Default::default()
            };
            (request.into(), 3, group)
        }
        ApiKey::Heartbeat => {
            let request = HeartbeatRequest {
                group_id: GROUP.into(),
                ..Default::default()
            };
            (request.into(), 3, group)
        }
        ApiKey::LeaveGroup => {
            let request = LeaveGroupRequest {
                group_id: GROUP.into(),
                ..Default::default()
            };
            (request.into(), 3, group)
        }
        ApiKey::OffsetCommit => {
            let request = OffsetCommitRequest {
                group_id: GROUP.into(),
                topics: topic_partitions(|name| OffsetCommitRequestTopic {
                    name,
                    partitions: vec![OffsetCommitRequestPartition::default()],
                    ..Default::default()
                }),
                ..Default::default()
            };
            (request.into(), 8, group)
        }
        ApiKey::OffsetFetch => {
            let request = OffsetFetchRequest {
                groups: vec![OffsetFetchRequestGroup {
                    group_id: GROUP.into(),
                    topics: None,
                    ..Default::default()
                }],
                ..Default::default()
            };
            (request.into(), 8, group)
        }
        ApiKey::OffsetDelete => {
            let request = OffsetDeleteRequest {
                group_id: GROUP.into(),
                ..Default::default()
            };
            (request.into(), 0, group)
        }
        ApiKey::DescribeGroups => {
            let request = DescribeGroupsRequest {
                groups: vec![GROUP.into()],
                ..Default::default()
            };
            (request.into(), 5, group)
        }
        ApiKey::DeleteGroups => {
            let request = DeleteGroupsRequest {
                groups_names: vec![GROUP.into()],
            };
            (request.into(), 2, group)
        }
        ApiKey::CreateTopics => {
            let request = CreateTopicsRequest {
                topics: topic_partitions(|name| CreatableTopic {
                    name,
                    num_partitions: 1,
                    replication_factor: 1,
                    ..Default::default()
                }),
                ..Default::default()
            };
            (request.into(), 7, topic)
        }
        ApiKey::DeleteTopics => {
            let request = DeleteTopicsRequest {
                topics: topic_partitions(|name| DeleteTopicState {
                    name: Some(name),
                    ..Default::default()
                }),
                ..Default::default()
            };
            (request.into(), 6, topic)
        }
        ApiKey::DeleteRecords => {
            let request = DeleteRecordsRequest {
                topics: topic_partitions(|name| DeleteRecordsTopic {
                    name,
                    partitions: vec![DeleteRecordsPartition::default()],
                }),
                ..Default::default()
            };
            (request.into(), 2, topic)
        }
        ApiKey::CreatePartitions => {
            let request = CreatePartitionsRequest {
                topics: topic_partitions(|name| CreatePartitionsTopic {
                    name,
                    count: 2,
                    assignments: None,
                }),
                validate_only: true,
                ..Default::default()
            };
            (request.into(), 3, topic)
        }
        ApiKey::DescribeConfigs => {
            let request = DescribeConfigsRequest {
                resources: topic_partitions(|resource_name| DescribeConfigsResource {
                    resource_type: 2,
                    resource_name,
                    configuration_keys: None,
                }),
                ..Default::default()
            };
            (request.into(), 4, topic)
        }
        ApiKey::AlterConfigs => {
            let request = AlterConfigsRequest {
                resources: topic_partitions(|resource_name| AlterConfigsResource {
                    resource_type: 2,
                    resource_name,
                    ..Default::default()
                }),
                validate_only: true,
            };
            (request.into(), 2, topic)
        }
        ApiKey::IncrementalAlterConfigs => {
            let request = IncrementalAlterConfigsRequest {
                resources: topic_partitions(|resource_name| IncrementalAlterConfigsResource {
                    resource_type: 2,
                    resource_name,
                    ..Default::default()
                }),
                validate_only: true,
            };
            (request.into(), 1, topic)
        }
        ApiKey::ListConfigResources => (ListConfigResourcesRequest::default().into(), 1, cluster),
        ApiKey::DescribeLogDirs => {
            let request = DescribeLogDirsRequest { topics: None };
            (request.into(), 4, cluster)
        }
        ApiKey::AlterReplicaLogDirs => {
            let request = AlterReplicaLogDirsRequest {
                dirs: vec![AlterReplicaLogDir {
                    path: "/".into(),
                    topics: topic_partitions(|name| AlterReplicaLogDirTopic {
                        name,
                        partitions: vec![0],
                    }),
                }],
            };
            (request.into(), 2, cluster)
        }
        ApiKey::ElectLeaders => (ElectLeadersRequest::default().into(), 2, cluster),
        ApiKey::AlterPartitionReassignments => (
            AlterPartitionReassignmentsRequest::default().into(),
            0,
            cluster,
        ),
        ApiKey::ListPartitionReassignments => (
            ListPartitionReassignmentsRequest::default().into(),
            0,
            cluster,
        ),
        ApiKey::DescribeClientQuotas => (DescribeClientQuotasRequest::default().into(), 1, cluster),
        ApiKey::AlterClientQuotas => {
            let request = AlterClientQuotasRequest {
                entries: vec![AlterQuotaEntryData::default()],
                ..Default::default()
            };
            (request.into(), 1, cluster)
        }
        ApiKey::DescribeQuorum => (DescribeQuorumRequest::default().into(), 1, cluster),
        ApiKey::UpdateFeatures => (UpdateFeaturesRequest::default().into(), 1, cluster),
        ApiKey::DescribeTopicPartitions => {
            let request = DescribeTopicPartitionsRequest {
                topics: topic_partitions(|name| DescribeTopicPartitionsTopic { name }),
                ..Default::default()
            };
            (request.into(), 0, topic)
        }
        ApiKey::DescribeAcls => (every_rule().into(), 3, cluster),
        ApiKey::CreateAcls => {
            let request = CreateAclsRequest {
                creations: vec![AclCreation::default()],
            };
            (request.into(), 3, cluster)
        }
        ApiKey::DeleteAcls => {
            let request = DeleteAclsRequest {
                filters: vec![DeleteAclsFilter::default()],
            };
            (request.into(), 3, cluster)
        }
        ApiKey::DescribeUserScramCredentials => (
            DescribeUserScramCredentialsRequest::default().into(),
            0,
            cluster,
        ),
        ApiKey::AlterUserScramCredentials => {
            let request = AlterUserScramCredentialsRequest {
                deletions: vec![ScramCredentialDeletion {
                    name: "nobody".into(),
                    mechanism: 1,
                }],
                ..Default::default()
            };
            (request.into(), 0, cluster)
        }
    };
    (request, version, fate)
}

const REFUSALS: [ErrorCode; 4] = [
    ErrorCode::TopicAuthorizationFailed,
    ErrorCode::GroupAuthorizationFailed,
    ErrorCode::ClusterAuthorizationFailed,
    ErrorCode::TransactionalIdAuthorizationFailed,
];

fn says(response: &Response, error: ErrorCode) -> bool {
    let text = format!("{response:?}");
    let codes = [",", " }"].map(|end| format!("error_code: {}{end}", error.code()));
    codes.iter().any(|code| text.contains(code))
}

#[tokio::test]
async fn every_api_refuses_or_hides_from_whoever_has_no_rights_and_not_from_a_super_user() {
    let door = guarded().await;
    let mut nobody = door.wire().await;
    for &api in ApiKey::ALL {
        let (request, version, fate) = probe(api);
        let response = nobody.answer(request.clone(), version).await;
        let refusals: Vec<_> = REFUSALS
            .into_iter()
            .filter(|e| says(&response, *e))
            .collect();
        match fate {
            Fate::Refused(error) => assert_eq!(refusals, [error], "{response:?}"),
            Fate::Hidden | Fate::Open => {
                assert_eq!(refusals, [], "{response:?}");
                let text = format!("{response:?}");
                assert!(!text.contains("secret-"), "{text}");
            }
        }
        if fate == Fate::Open {
            continue;
        }
        // A new connection: what members do to groups is not to wait for the others.
        let mut root = door.root().await;
        let response = match api {
            // Waits for more members.
            ApiKey::JoinGroup => continue,
            _ => root.answer(request, version).await,
        };
        for error in REFUSALS {
            assert!(!says(&response, error), "{response:?}");
        }
    }
    door.close().await;
}

#[tokio::test]
async fn named_topics_are_refused_by_name_and_id_whether_they_exist_or_not() {
    let door = guarded().await;
    let mut nobody = door.wire().await;
    let id = door.log.topic(TOPIC).unwrap().id().0;
    let named = |name: Option<&str>, topic_id| MetadataRequestTopic {
        topic_id,
        name: name.map(Str::from),
    };
    let nil = uuid::Uuid::nil();
    let unknown = uuid::Uuid::from_u128(7);
    let request = MetadataRequest {
        topics: Some(vec![
            named(Some(TOPIC), nil),
            named(Some("no-such-topic"), nil),
            named(None, id),
            named(None, unknown),
        ]),
        allow_auto_topic_creation: true,
        ..Default::default()
    };
    let response = nobody.ask(request, 12).await;
    let seen: Vec<(ErrorCode, bool)> = (response.topics.iter())
        .map(|t| (ErrorCode(t.error_code), t.name.is_some()))
        .collect();
    let refused = ErrorCode::TopicAuthorizationFailed;
    assert_eq!(
        seen,
        [
            (refused, true),
            (refused, true),
            (refused, false),
            (ErrorCode::UnknownTopicId, false)
        ]
    );
    assert!(response.topics[0].topic_id.is_nil());
    assert!(door.log.topic("no-such-topic").is_none());
    door.close().await;
}

#[tokio::test]
async fn pages_of_topics_show_nothing_that_rules_hide() {
    let door = guarded().await;
    door.topic("open", 1).await;
    let describe = rule(
        ResourceType::Topic,
        "open",
        Operation::Describe,
        Permission::Allow,
    );
    door.allow(vec![describe]).await;
    let mut somebody = door.wire().await;
    let list = |cursor| DescribeTopicPartitionsRequest {
        response_partition_limit: 1,
        cursor,
        ..Default::default()
    };
    let first = somebody.ask(list(None), 0).await;
    assert_eq!(first.topics[0].name, Some("open".into()));
    assert_eq!(
        first.next_cursor, None,
        "{TOPIC} comes after it, and is hidden"
    );
    for index in [0, -1] {
        let at = TopicPartitionsCursor {
            topic_name: TOPIC.into(),
            partition_index: index,
        };
        assert!(somebody.ask(list(Some(at)), 0).await.topics.is_empty());
    }
    door.close().await;
}

#[tokio::test]
async fn a_topic_is_made_on_demand_by_whoever_may_create_it() {
    use Operation::{Create, Describe};
    let door = guarded().await;
    let topic = |name, operation| rule(ResourceType::Topic, name, operation, Permission::Allow);
    door.allow(vec![
        topic("new-*", Describe),
        topic("new-one", Create),
        topic("*", Describe),
    ])
    .await;
    let mut wire = door.wire().await;
    let request = MetadataRequest {
        topics: Some(
            ["new-one", "new-two"]
                .map(|name| MetadataRequestTopic {
                    topic_id: uuid::Uuid::nil(),
                    name: Some(name.into()),
                })
                .to_vec(),
        ),
        allow_auto_topic_creation: true,
        include_topic_authorized_operations: true,
        ..Default::default()
    };
    let response = wire.ask(request, 10).await;
    let errors: Vec<_> = (response.topics.iter())
        .map(|t| ErrorCode(t.error_code))
        .collect();
    assert_eq!(
        errors,
        [ErrorCode::None, ErrorCode::TopicAuthorizationFailed]
    );
    let bits =
        |operations: &[Operation]| -> i32 { operations.iter().map(|o| 1 << wire_code(*o)).sum() };
    assert_eq!(
        response.topics[0].topic_authorized_operations,
        bits(&[Create, Describe])
    );
    door.close().await;
}

#[tokio::test]
async fn prefixes_allow_and_denials_count_more() {
    use Operation::{All, Read, Write};
    let door = guarded().await;
    let (mine, closed) = (door.topic("mine-1", 1).await, door.topic("mine-2", 1).await);
    let topic =
        |name, operation, permission| rule(ResourceType::Topic, name, operation, permission);
    door.allow(vec![
        topic("mine-*", All, Permission::Allow),
        topic("mine-2", Write, Permission::Deny),
    ])
    .await;
    let mut wire = door.wire().await;
    let answer = produced(&mut wire, produce(&mine, 0, batch(&["x"])), 9).await;
    assert_eq!(answer.error_code, 0);
    let answer = produced(&mut wire, produce(&closed, 0, batch(&["x"])), 9).await;
    let refused = ErrorCode::TopicAuthorizationFailed.code();
    assert_eq!(answer.error_code, refused);
    assert_eq!(
        fetched(&mut wire, fetch(&closed, 0, 0), 11)
            .await
            .error_code,
        0
    );
    door.allow(vec![topic("*", Read, Permission::Deny)]).await;
    let found = fetched(&mut wire, fetch(&mine, 0, 0), 11).await;
    assert_eq!(
        found.error_code, refused,
        "rules hold from the next request on"
    );
    door.auth.delete_acls(&AclFilter::default()).await.unwrap();
    let answer = produced(&mut wire, produce(&mine, 0, batch(&["x"])), 9).await;
    assert_eq!(answer.error_code, refused);
    door.close().await;
}

#[tokio::test]
async fn whoever_may_write_to_some_topic_may_be_idempotent() {
    let door = guarded().await;
    let write = Operation::Write;
    door.allow(vec![rule(
        ResourceType::Topic,
        "x",
        write,
        Permission::Allow,
    )])
    .await;
    let mut wire = door.wire().await;
    let (request, version, _) = probe(ApiKey::InitProducerId);
    let response = wire.answer(request, version).await;
    assert!(says(&response, ErrorCode::None), "{response:?}");
    door.close().await;
}

#[tokio::test]
async fn a_transactional_request_needs_its_id_too() {
    let door = guarded().await;
    let topic = door.topic("t", 1).await;
    let write = |resource, name| rule(resource, name, Operation::Write, Permission::Allow);
    door.allow(vec![write(ResourceType::Topic, "t")]).await;
    let mut wire = door.wire().await;
    let request = || ProduceRequest {
        transactional_id: Some(ID.into()),
        ..produce(&topic, 0, batch(&["x"]))
    };
    let answer = produced(&mut wire, request(), 9).await;
    assert_eq!(
        ErrorCode(answer.error_code),
        ErrorCode::TransactionalIdAuthorizationFailed
    );
    door.allow(vec![write(ResourceType::TransactionalId, "secret-*")])
        .await;
    let answer = produced(&mut wire, request(), 9).await;
    assert_ne!(
        ErrorCode(answer.error_code),
        ErrorCode::TransactionalIdAuthorizationFailed
    );
    door.close().await;
}

fn every_rule() -> DescribeAclsRequest {
    DescribeAclsRequest {
        resource_type_filter: 1,
        resource_name_filter: None,
        pattern_type_filter: 1,
        principal_filter: None,
        host_filter: None,
        operation: 1,
        permission_type: 1,
    }
}

#[tokio::test]
async fn rules_are_made_listed_and_deleted_over_the_wire() {
    let door = guarded().await;
    let mut root = door.root().await;
    let creation = |name: &str, pattern: i8, operation: i8| AclCreation {
        resource_type: 2,
        resource_name: name.into(),
        resource_pattern_type: pattern,
        principal: "User:bob".into(),
        host: "*".into(),
        operation,
        permission_type: 3,
    };
    let request = CreateAclsRequest {
        creations: vec![
            creation("a", 3, 3),
            creation("a", 3, 4),
            creation("b", 4, 3),
            creation("c", 1, 3),
            creation("", 3, 3),
            creation("c", 3, 99),
        ],
    };
    let made = root.ask(request, 3).await;
    let errors: Vec<_> = (made.results.iter())
        .map(|r| ErrorCode(r.error_code))
        .collect();
    let (fine, wrong) = (ErrorCode::None, ErrorCode::InvalidRequest);
    assert_eq!(errors, [fine, fine, fine, wrong, wrong, wrong]);
    let listed = root.ask(every_rule(), 2).await;
    let names: Vec<_> = (listed.resources.iter())
        .map(|r| (r.resource_name.as_str(), r.pattern_type, r.acls.len()))
        .collect();
    assert_eq!(names, [("a", 3, 2), ("b", 4, 1)]);
    let covering = DescribeAclsRequest {
        resource_type_filter: 2,
        resource_name_filter: Some("bc".into()),
        pattern_type_filter: 2,
        ..every_rule()
    };
    assert_eq!(root.ask(covering, 3).await.resources.len(), 1);
    let strange = DescribeAclsRequest {
        operation: 77,
        ..every_rule()
    };
    assert_eq!(ErrorCode(root.ask(strange, 3).await.error_code), wrong);
    let request = DeleteAclsRequest {
        filters: vec![DeleteAclsFilter {
            resource_type_filter: 2,
            resource_name_filter: Some("a".into()),
            pattern_type_filter: 3,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
        }],
    };
    let deleted = root.ask(request, 3).await;
    assert_eq!(deleted.filter_results[0].matching_acls.len(), 2);
    assert_eq!(root.ask(every_rule(), 3).await.resources.len(), 1);
    door.close().await;
}

#[tokio::test]
async fn without_an_authorizer_there_are_no_rules_to_edit() {
    let door = Door::open().await;
    let mut wire = door.wire().await;
    let disabled = ErrorCode::SecurityDisabled;
    for api in [ApiKey::DescribeAcls, ApiKey::DeleteAcls] {
        let (mut request, version, _) = probe(api);
        if let Request::DeleteAcls(request) = &mut request {
            let filter = &mut request.filters[0];
            filter.resource_type_filter = 1;
            filter.operation = 1;
            filter.permission_type = 1;
        }
        let response = wire.answer(request, version).await;
        assert!(says(&response, disabled), "{response:?}");
    }
    let request = CreateAclsRequest {
        creations: vec![AclCreation {
            resource_type: 2,
            resource_name: "t".into(),
            principal: "User:bob".into(),
            host: "*".into(),
            operation: 3,
            permission_type: 3,
            ..Default::default()
        }],
    };
    let response = wire.ask(request, 3).await;
    assert_eq!(ErrorCode(response.results[0].error_code), disabled);
    door.close().await;
}

#[tokio::test]
async fn users_are_made_for_scram_over_the_wire_and_sign_in() {
    let door = guarded().await;
    let mut root = door.root().await;
    let salt = b"0123456789abcdef";
    let salted = pbkdf2::pbkdf2_hmac_array::<sha2::Sha256, 32>(b"secret", salt, 4096);
    let upsertion = |name: &str, iterations| ScramCredentialUpsertion {
        name: name.into(),
        mechanism: 1,
        iterations,
        salt: Bytes::from_static(salt),
        salted_password: Bytes::copy_from_slice(&salted),
    };
    let deletion = |name: &str, mechanism| ScramCredentialDeletion {
        name: name.into(),
        mechanism,
    };
    let request = AlterUserScramCredentialsRequest {
        deletions: vec![deletion("carol", 2), deletion("dave", 9)],
        upsertions: vec![upsertion("bob", 4096), upsertion("eve", 5)],
    };
    let answer = root.ask(request, 0).await;
    let outcomes: Vec<_> = (answer.results.iter())
        .map(|r| (r.user.as_str(), ErrorCode(r.error_code)))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("bob", ErrorCode::None),
            ("carol", ErrorCode::ResourceNotFound),
            ("dave", ErrorCode::UnsupportedSaslMechanism),
            ("eve", ErrorCode::UnacceptableCredential),
        ]
    );
    let mut bob = door.wire_to("SASL").await;
    let sha256 = crate::auth::scram::ScramMechanism::Sha256;
    assert_eq!(bob.scram(sha256, "bob", "secret").await.error_code, 0);
    let name = |name: &str| UserName { name: name.into() };
    let request = DescribeUserScramCredentialsRequest {
        users: Some(vec![
            name("bob"),
            name("nobody"),
            name("root"),
            name("root"),
        ]),
    };
    let answer = root.ask(request, 0).await;
    let seen: Vec<_> = (answer.results.iter())
        .map(|r| {
            (
                r.user.as_str(),
                ErrorCode(r.error_code),
                r.credential_infos.len(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            ("bob", ErrorCode::None, 1),
            ("nobody", ErrorCode::ResourceNotFound, 0),
            ("root", ErrorCode::DuplicateResource, 0),
        ]
    );
    let everybody = DescribeUserScramCredentialsRequest { users: None };
    assert_eq!(root.ask(everybody, 0).await.results.len(), 2);
    let request = AlterUserScramCredentialsRequest {
        deletions: vec![deletion("bob", 1)],
        ..Default::default()
    };
    assert_eq!(root.ask(request, 0).await.results[0].error_code, 0);
    let mut bob = door.wire_to("SASL").await;
    assert_ne!(bob.scram(sha256, "bob", "secret").await.error_code, 0);
    door.close().await;
}

//! The cluster, which is one node: DescribeCluster, DescribeLogDirs, AlterReplicaLogDirs, ElectLeaders,
//! AlterPartitionReassignments, ListPartitionReassignments.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use holdfast_storage::log::Topic;

use super::super::access::{Operation, sentence};
use super::super::broker::{Asker, Broker};
use super::super::protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse, DescribeClusterBroker, DescribeClusterRequest,
    DescribeClusterResponse, DescribeLogDirsPartition, DescribeLogDirsRequest,
    DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic, ElectLeadersRequest,
    ElectLeadersResponse, ListPartitionReassignmentsResponse, PartitionElectionResult,
    ReassignablePartition, ReassignablePartitionResponse, ReassignableTopicResponse,
    ReplicaElectionResult,
};
use super::super::protocol::{ErrorCode, Str};
use super::metadata::{cluster_id, cluster_operations};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) fn describe_cluster(
    broker: &Broker,
    asker: &Asker,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    if !matches!(request.endpoint_type, BROKERS | CONTROLLERS) {
        return DescribeClusterResponse {
            error_code: ErrorCode::UnsupportedEndpointType.code(),
            error_message: Some("There is no such type of endpoint.".into()),
            ..Default::default()
        };
    }
    if request.endpoint_type != BROKERS {
        // As Kafka's brokers answer who looks for controllers (KIP-919).
        return DescribeClusterResponse {
            error_code: ErrorCode::MismatchedEndpointType.code(),
            error_message: Some("The request was sent to an endpoint of the wrong type.".into()),
            ..Default::default()
        };
    }
    let (host, port) = broker.address_for(asker);
    DescribeClusterResponse {
        cluster_id: cluster_id(broker),
        controller_id: broker.node_id(),
        brokers: vec![DescribeClusterBroker {
            broker_id: broker.node_id(),
            host: host.into(),
            port,
            ..Default::default()
        }],
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            cluster_operations(&broker.access(asker))
        } else {
            i32::MIN
        },
        ..Default::default()
    }
}

pub(super) fn describe_log_dirs(
    broker: &Broker,
    asker: &Asker,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    if let Err(error) = broker.access(asker).to_cluster(Operation::Describe) {
        return DescribeLogDirsResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let topics = match request.topics {
        None => {
            let topics = broker.log.topics();
            topics.iter().map(|topic| sizes(topic, None)).collect()
        }
        Some(asked) => {
            let (mut topics, mut named) = (Vec::new(), HashSet::new());
            for asked in asked {
                if !named.insert(asked.topic.as_str().to_owned()) {
                    continue;
                }
                if let Some(topic) = broker.log.topic(asked.topic.as_str()) {
                    topics.push(sizes(&topic, Some(&asked.partitions)));
                }
            }
            topics
        }
    };
    let (total_bytes, usable_bytes) = disk_bytes(broker.log.directory()).unwrap_or((-1, -1));
    DescribeLogDirsResponse {
        results: vec![DescribeLogDirsResult {
            log_dir: broker.log.directory().display().to_string().into(),
            topics,
            total_bytes,
            usable_bytes,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Bytes of the file system that the log lies on, and those that it may still take (KIP-827).
fn disk_bytes(directory: &Path) -> Option<(i64, i64)> {
    let found = rustix::fs::statvfs(directory).ok()?;
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(found.f_frsize)).ok();
    Some((bytes(found.f_blocks)?, bytes(found.f_bavail)?))
}

fn sizes(topic: &Topic, only: Option<&[i32]>) -> DescribeLogDirsTopic {
    let only: Option<HashSet<i32>> = only.map(|only| only.iter().copied().collect());
    let partitions = topic.partitions().iter();
    let wanted = partitions.filter(|p| only.as_ref().is_none_or(|only| only.contains(&p.index())));
    DescribeLogDirsTopic {
        name: topic.name().into(),
        partitions: wanted
            .map(|partition| DescribeLogDirsPartition {
                partition_index: partition.index(),
                partition_size: i64::try_from(partition.size_bytes()).unwrap_or(i64::MAX),
                ..Default::default()
            })
            .collect(),
    }
}

/// There is one directory, and everything is in it.
pub(super) fn alter_replica_log_dirs(
    broker: &Broker,
    asker: &Asker,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let access = broker.access(asker).to_cluster(Operation::Alter);
    let mut results = Vec::new();
    for dir in request.dirs {
        let is_ours = Path::new(dir.path.as_str()) == broker.log.directory();
        for asked in dir.topics {
            let topic = broker.log.topic(asked.name.as_str());
            let judge = |partition_index: i32| {
                let found = topic.as_ref().and_then(|t| t.partition(partition_index));
                let error = match found {
                    _ if access.is_err() => ErrorCode::ClusterAuthorizationFailed,
                    _ if !is_ours => ErrorCode::LogDirNotFound,
                    None => ErrorCode::UnknownTopicOrPartition,
                    Some(_) => ErrorCode::None,
                };
                AlterReplicaLogDirPartitionResult {
                    partition_index,
                    error_code: error.code(),
                }
            };
            results.push(AlterReplicaLogDirTopicResult {
                partitions: asked.partitions.into_iter().map(judge).collect(),
                topic_name: asked.name,
            });
        }
    }
    AlterReplicaLogDirsResponse {
        results,
        ..Default::default()
    }
}

/// Every partition is on this node, and can only stay there.
pub(super) fn alter_partition_reassignments(
    broker: &Broker,
    asker: &Asker,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let access = broker.access(asker).to_cluster(Operation::Alter);
    let responses = request.topics.into_iter().map(|asked| {
        let topic = broker.log.topic(asked.name.as_str());
        let judge = |wanted: ReassignablePartition| {
            let found = topic
                .as_ref()
                .and_then(|t| t.partition(wanted.partition_index));
            let (error, message) = match (found, &wanted.replicas) {
                _ if access.is_err() => {
                    let error = ErrorCode::ClusterAuthorizationFailed;
                    (error, Some(sentence(error).to_owned()))
                }
                (None, _) => (
                    ErrorCode::UnknownTopicOrPartition,
                    Some("The topic or partition does not exist.".to_owned()),
                ),
                (_, None) => (ErrorCode::NoReassignmentInProgress, None),
                (_, Some(replicas)) if *replicas == [broker.node_id()] => (ErrorCode::None, None),
                _ => (
                    ErrorCode::InvalidReplicaAssignment,
                    Some(format!("there is one broker, {}", broker.node_id())),
                ),
            };
            ReassignablePartitionResponse {
                partition_index: wanted.partition_index,
                error_code: error.code(),
                error_message: message.map(Str::from),
            }
        };
        ReassignableTopicResponse {
            partitions: asked.partitions.into_iter().map(judge).collect(),
            name: asked.name,
        }
    });
    AlterPartitionReassignmentsResponse {
        error_code: access.err().map_or(0, ErrorCode::code),
        error_message: access.err().map(|error| sentence(error).into()),
        allow_replication_factor_change: request.allow_replication_factor_change,
        responses: responses.collect(),
        ..Default::default()
    }
}

/// This node leads everything, so no election is ever needed.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;

pub(super) fn elect_leaders(
    broker: &Broker,
    asker: &Asker,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let access = broker.access(asker).to_cluster(Operation::Alter);
    let is_known = (PREFERRED..=UNCLEAN).contains(&request.election_type);
    let asked: BTreeMap<String, Vec<i32>> = match request.topic_partitions {
        Some(asked) => asked
            .into_iter()
            .map(|asked| (asked.topic.as_str().to_owned(), asked.partitions))
            .collect(),
        // Kafka names only those of all partitions that had an election.
        None => BTreeMap::new(),
    };
    let results = asked.into_iter().map(|(name, partitions)| {
        let topic = broker.log.topic(&name);
        let judge = |partition_id: i32| {
            let found = topic.as_ref().and_then(|t| t.partition(partition_id));
            let (error, message) = match found {
                _ if access.is_err() => {
                    let error = ErrorCode::ClusterAuthorizationFailed;
                    (error, sentence(error))
                }
                _ if !is_known => (ErrorCode::InvalidRequest, "Unknown type of election."),
                Some(_) => (
                    ErrorCode::ElectionNotNeeded,
                    "Leader election not needed for topic partition.",
                ),
                None => (
                    ErrorCode::UnknownTopicOrPartition,
                    "No such topic or partition.",
                ),
            };
            PartitionElectionResult {
                partition_id,
                error_code: error.code(),
                error_message: Some(message.into()),
            }
        };
        ReplicaElectionResult {
            partition_result: partitions.into_iter().map(judge).collect(),
            topic: name.into(),
        }
    });
    ElectLeadersResponse {
        error_code: match access {
            Err(error) => error.code(),
            Ok(()) if !is_known => ErrorCode::InvalidRequest.code(),
            Ok(()) => 0,
        },
        replica_election_results: results.collect(),
        ..Default::default()
    }
}

/// Nothing ever moves to another broker.
pub(super) fn list_partition_reassignments(
    broker: &Broker,
    asker: &Asker,
) -> ListPartitionReassignmentsResponse {
    let access = broker.access(asker).to_cluster(Operation::Describe);
    ListPartitionReassignmentsResponse {
        error_code: access.err().map_or(0, ErrorCode::code),
        error_message: access.err().map(|error| sentence(error).into()),
        ..Default::default()
    }
}

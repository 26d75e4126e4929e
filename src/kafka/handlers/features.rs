//! What tools ask about the cluster's metadata: DescribeQuorum, UpdateFeatures, DescribeTopicPartitions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_storage::log::Topic;

use super::super::access::{Access, Operation};
use super::super::broker::{Asker, Broker};
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    DescribeQuorumListener, DescribeQuorumNode, DescribeQuorumPartitionResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, DescribeQuorumTopicResponse,
    DescribeTopicPartitionsPartition, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponseTopic, FeatureUpdateKey,
    QuorumReplicaState, TopicPartitionsCursor, UpdatableFeatureResult, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};
use super::topics::check_name;
use super::versions::FEATURES;
use crate::auth::Resource;

/// Where Kafka keeps its metadata.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// Most partitions in one answer, whatever is asked for. Kafka:
/// `max.request.partition.size.limit`.
const PARTITIONS_MAX: usize = 2000;

/// Updated features are named one by one in versions before this.
const RESULTS_UNTIL_VERSION: i16 = 2;

/// A quorum of one: this node leads it, and has everything.
pub(super) fn describe_quorum(
    broker: &Broker,
    asker: &Asker,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    if let Err(error) = broker.access(asker).to_cluster(Operation::Describe) {
        return DescribeQuorumResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let now_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |t| t.as_millis());
    let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let partitions = topic.partitions.iter().map(|asked| {
            let partition_index = asked.partition_index;
            if topic.topic_name.as_str() != METADATA_TOPIC || partition_index != 0 {
                return DescribeQuorumPartitionResponse {
                    partition_index,
                    error_code: ErrorCode::UnknownTopicOrPartition.code(),
                    error_message: Some("There is a quorum for the metadata alone.".into()),
                    ..Default::default()
                };
            }
            let end = broker.log.metadata_end().value();
            DescribeQuorumPartitionResponse {
                partition_index,
                error_message: None,
                leader_id: broker.node_id(),
                leader_epoch: broker.log.leader_epoch(),
                high_watermark: end,
                current_voters: vec![QuorumReplicaState {
                    replica_id: broker.node_id(),
                    log_end_offset: end,
                    last_fetch_timestamp: now_ms,
                    last_caught_up_timestamp: now_ms,
                    ..Default::default()
                }],
                ..Default::default()
            }
        });
        topics.push(DescribeQuorumTopicResponse {
            partitions: partitions.collect(),
            topic_name: topic.topic_name.clone(),
        });
    }
    let (host, port) = broker.address_for(asker);
    let listener = DescribeQuorumListener {
        name: "CONTROLLER".into(),
        host: host.into(),
        port: u16::try_from(port).unwrap_or(0),
    };
    DescribeQuorumResponse {
        error_message: None,
        topics,
        nodes: vec![DescribeQuorumNode {
            node_id: broker.node_id(),
            listeners: vec![listener],
        }],
        ..Default::default()
    }
}

/// All that a change of a feature's level can be (KIP-778).
const UPGRADE: i8 = 1;
const UNSAFE_DOWNGRADE: i8 = 3;

/// Features have the level they have; who asks for that is told that it is so. All updates are refused if
/// one of them is, and only those that are not have results, in the versions that have them.
pub(super) fn update_features(
    broker: &Broker,
    asker: &Asker,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    if let Err(error) = broker.access(asker).to_cluster(Operation::Alter) {
        return UpdateFeaturesResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let judge = |update: &FeatureUpdateKey| {
        if !(UPGRADE..=UNSAFE_DOWNGRADE).contains(&update.upgrade_type) && asker.version > 0 {
            return Some(format!(
                "Unknown upgrade type {} for feature {}.",
                update.upgrade_type, update.feature
            ));
        }
        let known = FEATURES
            .iter()
            .find(|(name, _)| *name == update.feature.as_str());
        match known {
            Some((_, level)) if *level == update.max_version_level => None,
            Some((name, level)) => Some(format!(
                "Invalid update version {} for feature {name}. It is fixed at {level}.",
                update.max_version_level
            )),
            None => Some(format!(
                "Invalid update version {} for feature {}. It is not supported here.",
                update.max_version_level, update.feature
            )),
        }
    };
    if let Some(refusal) = request.feature_updates.iter().find_map(judge) {
        return UpdateFeaturesResponse {
            error_code: ErrorCode::InvalidUpdateVersion.code(),
            error_message: Some(refusal.into()),
            ..Default::default()
        };
    }
    let results = request
        .feature_updates
        .into_iter()
        .map(|update| UpdatableFeatureResult {
            feature: update.feature,
            ..Default::default()
        });
    UpdateFeaturesResponse {
        results: results
            .filter(|_| asker.version < RESULTS_UNTIL_VERSION)
            .collect(),
        ..Default::default()
    }
}

/// Topics by name, page by page: an answer that is full says where the next one begins (KIP-966).
pub(super) fn describe_topic_partitions(
    broker: &Broker,
    asker: &Asker,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let asked = request
        .topics
        .iter()
        .map(|topic| topic.name.as_str().to_owned());
    let mut names: BTreeSet<String> = asked.collect();
    let access = broker.access(asker);
    if names.is_empty() {
        let topics = broker.log.topics();
        let shown = topics.iter().map(|topic| topic.name());
        let shown = shown.filter(|name| access.to_topic(Operation::Describe, name).is_ok());
        names.extend(shown.map(str::to_owned));
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(1);
    let mut left = limit.clamp(1, PARTITIONS_MAX);
    let cursor = request.cursor.unwrap_or_default();
    let mut topics = Vec::new();
    for name in names.range(cursor.topic_name.as_str().to_owned()..) {
        let from = match cursor.topic_name.as_str() == name {
            true => cursor.partition_index,
            false => 0,
        };
        if left == 0 {
            return page(topics, Some((name, from)));
        }
        if let Err(error) = access.to_topic(Operation::Describe, name) {
            topics.push(refused(name, error));
            continue;
        }
        if from < 0 {
            topics.push(refused(name, ErrorCode::InvalidRequest));
            continue;
        }
        let Some(topic) = broker.log.topic(name) else {
            topics.push(unknown(broker, name));
            continue;
        };
        let (described, next) = describe(&access, broker, &topic, from, left);
        left -= described.partitions.len().min(left);
        topics.push(described);
        if let Some(next) = next {
            return page(topics, Some((name, next)));
        }
    }
    page(topics, None)
}

fn page(
    topics: Vec<DescribeTopicPartitionsResponseTopic>,
    next: Option<(&String, i32)>,
) -> DescribeTopicPartitionsResponse {
    DescribeTopicPartitionsResponse {
        topics,
        next_cursor: next.map(|(topic_name, partition_index)| TopicPartitionsCursor {
            topic_name: topic_name.as_str().into(),
            partition_index,
        }),
        ..Default::default()
    }
}

fn unknown(broker: &Broker, name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match check_name(broker, name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err((error, _)) => error,
    };
    refused(name, error)
}

fn refused(name: &str, error: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.into()),
        ..Default::default()
    }
}

/// So many of its partitions from one on, and which is the next.
fn describe(
    access: &Access<'_>,
    broker: &Broker,
    topic: &Arc<Topic>,
    from: i32,
    most: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<i32>) {
    let node = broker.node_id();
    let skipped = usize::try_from(from).unwrap_or(0);
    let partitions = topic.partitions().iter().skip(skipped).take(most);
    let described = partitions.map(|partition| DescribeTopicPartitionsPartition {
        partition_index: partition.index(),
        leader_id: node,
        leader_epoch: broker.log.leader_epoch(),
        replica_nodes: vec![node],
        isr_nodes: vec![node],
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    });
    let described = DescribeTopicPartitionsResponseTopic {
        name: Some(topic.name().into()),
        topic_id: topic.id().0,
        partitions: described.collect(),
        topic_authorized_operations: access.operations(Resource::topic(topic.name())),
        ..Default::default()
    };
    let end = skipped.saturating_add(described.partitions.len());
    let next = (end < topic.partitions().len()).then_some(i32::try_from(end).unwrap_or(i32::MAX));
    (described, next)
}

//! What tools ask about the cluster's metadata: DescribeQuorum, UpdateFeatures, DescribeTopicPartitions.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use holdfast_storage::log::Topic;

use super::super::broker::{Asker, Broker};
use super::super::protocol::messages::{
    DescribeQuorumListener, DescribeQuorumNode, DescribeQuorumPartitionResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, DescribeQuorumTopicResponse,
    DescribeTopicPartitionsPartition, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponseTopic, FeatureUpdateKey,
    QuorumReplicaState, TopicPartitionsCursor, UpdatableFeatureResult, UpdateFeaturesRequest,
    UpdateFeaturesResponse,
};
use super::super::protocol::{ErrorCode, Str};
use super::metadata::TOPIC_OPERATIONS;
use super::topics::check_name;
use super::versions::FEATURES;

/// Where Kafka keeps its metadata.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// Most partitions in one answer, whatever is asked for. Kafka:
/// `max.request.partition.size.limit`.
const PARTITIONS_MAX: usize = 2000;

/// A quorum of one: this node leads it, and has everything.
pub(super) fn describe_quorum(
    broker: &Broker,
    asker: &Asker,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
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

/// Features have the level they have; who asks for that is told that it is so.
pub(super) fn update_features(
    asker: &Asker,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let judge = |update: &FeatureUpdateKey| {
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
    let refusals: Vec<(Str, Option<Str>)> = (request.feature_updates.iter())
        .map(|update| (update.feature.clone(), judge(update).map(Str::from)))
        .collect();
    let first = refusals.iter().find_map(|(_, refusal)| refusal.clone());
    let is_per_feature = asker.version < 2;
    let code = |refused: bool| match refused {
        true => ErrorCode::InvalidUpdateVersion.code(),
        false => 0,
    };
    let results = refusals
        .into_iter()
        .map(|(feature, error_message)| UpdatableFeatureResult {
            feature,
            error_code: code(error_message.is_some()),
            error_message,
        });
    UpdateFeaturesResponse {
        error_code: code(first.is_some() && !is_per_feature),
        error_message: first.filter(|_| !is_per_feature),
        results: results.filter(|_| is_per_feature).collect(),
        ..Default::default()
    }
}

/// Topics by name, page by page: an answer that is full says where the next one begins (KIP-966).
pub(super) fn describe_topic_partitions(
    broker: &Broker,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let asked = request
        .topics
        .iter()
        .map(|topic| topic.name.as_str().to_owned());
    let mut names: BTreeSet<String> = asked.collect();
    let is_listing = names.is_empty();
    if is_listing {
        names.extend(
            broker
                .log
                .topics()
                .iter()
                .map(|topic| topic.name().to_owned()),
        );
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(1);
    let mut left = limit.clamp(1, PARTITIONS_MAX);
    let cursor = request.cursor.unwrap_or_default();
    let mut topics = Vec::new();
    for name in names.range(cursor.topic_name.as_str().to_owned()..) {
        let from = match cursor.topic_name.as_str() == name {
            true => cursor.partition_index.max(0),
            false => 0,
        };
        if left == 0 {
            return page(topics, Some((name, from)));
        }
        let Some(topic) = broker.log.topic(name) else {
            if !is_listing {
                topics.push(unknown(broker, name));
            }
            continue;
        };
        let (described, next) = describe(broker, &topic, from, left);
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
    DescribeTopicPartitionsResponseTopic {
        error_code: error.code(),
        name: Some(name.into()),
        ..Default::default()
    }
}

/// So many of its partitions from one on, and which is the next.
fn describe(
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
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    };
    let end = skipped.saturating_add(described.partitions.len());
    let next = (end < topic.partitions().len()).then_some(i32::try_from(end).unwrap_or(i32::MAX));
    (described, next)
}

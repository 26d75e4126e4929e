//! Topics, groups and lag as they are now, read from the log's memory: the API and the overview agree
//! because both ask here.

use std::collections::BTreeMap;

use holdfast_storage::log::{Log, LogState, Offset, TopicId};
use serde::Serialize;

/// How Kafka's tools name the topics they keep for themselves; the node's own records are in no topic.
const INTERNAL_PREFIX: &str = "__";

/// One topic of `GET /api/v1/topics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicCensus {
    pub name: String,
    pub id: TopicId,
    pub internal: bool,
    pub partitions: Vec<PartitionCensus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionCensus {
    pub partition: i32,
    pub log_start_offset: Offset,
    pub high_watermark: Offset,
    pub size_bytes: u64,
}

/// One group of `GET /api/v1/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupCensus {
    pub group: String,
    pub topics: Vec<GroupPartition>,
    /// Sum over its partitions.
    pub lag: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupPartition {
    pub topic: String,
    pub partition: i32,
    pub committed_offset: Offset,
    pub high_watermark: Offset,
    /// Records that the group has not committed and could still read.
    pub lag: u64,
}

pub fn topics(log: &Log) -> Vec<TopicCensus> {
    let mut topics: Vec<TopicCensus> = log
        .topics()
        .iter()
        .map(|topic| TopicCensus {
            name: topic.name().to_owned(),
            id: topic.id(),
            internal: topic.name().starts_with(INTERNAL_PREFIX),
            partitions: topic
                .partitions()
                .iter()
                .map(|p| PartitionCensus {
                    partition: p.index(),
                    log_start_offset: p.log_start_offset(),
                    high_watermark: p.high_watermark(),
                    size_bytes: p.size_bytes(),
                })
                .collect(),
        })
        .collect();
    topics.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    topics
}

pub fn groups(log: &Log) -> Vec<GroupCensus> {
    let mut groups: Vec<GroupCensus> = log
        .groups()
        .into_iter()
        .map(|group| {
            let mut topics: Vec<GroupPartition> = log
                .committed_offsets(&group)
                .into_iter()
                .filter_map(|(topic, partition, committed)| {
                    group_partition(log, topic, partition, committed.position()?)
                })
                .collect();
            topics.sort_unstable_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
            let lag = topics.iter().map(|t| t.lag).sum();
            GroupCensus { group, topics, lag }
        })
        .collect();
    groups.sort_unstable_by(|a, b| a.group.cmp(&b.group));
    groups
}

/// `None` for a topic that was deleted: its offsets mean nothing any more.
fn group_partition(
    log: &Log,
    topic: TopicId,
    partition: i32,
    committed: Offset,
) -> Option<GroupPartition> {
    let topic = log.topic_by_id(topic)?;
    let found = topic.partition(partition)?;
    let high_watermark = found.high_watermark();
    // Below the log start there is nothing left to read.
    let lag = high_watermark.since(committed.max(found.log_start_offset()));
    Some(GroupPartition {
        topic: topic.name().to_owned(),
        partition,
        committed_offset: committed,
        high_watermark,
        lag,
    })
}

/// One line of the overview's `groups`: a group on one topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct GroupTopic {
    pub(super) group: String,
    pub(super) topic: String,
    committed: u64,
    high_watermark: u64,
    lag: u64,
}

/// Sums each group's partitions per topic.
pub(super) fn group_topics(groups: Vec<GroupCensus>) -> Vec<GroupTopic> {
    let mut lines: BTreeMap<(String, String), GroupTopic> = BTreeMap::new();
    for group in groups {
        for partition in group.topics {
            let key = (group.group.clone(), partition.topic.clone());
            let line = lines.entry(key).or_insert_with(|| GroupTopic {
                group: group.group.clone(),
                topic: partition.topic.clone(),
                committed: 0,
                high_watermark: 0,
                lag: 0,
            });
            line.committed += partition.committed_offset.since(Offset::ZERO);
            line.high_watermark += partition.high_watermark.since(Offset::ZERO);
            line.lag += partition.lag;
        }
    }
    lines.into_values().collect()
}

pub fn state_name(state: &LogState) -> &'static str {
    match state {
        LogState::Accepting => "accepting",
        LogState::Full { .. } => "full",
        LogState::Unwritable { .. } => "unwritable",
        LogState::Failed { .. } => "failed",
        LogState::Closed => "closed",
    }
}

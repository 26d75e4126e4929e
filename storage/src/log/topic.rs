//! Topics: a name, an id that is never reused, and partitions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::CreateTopicError;
use super::murmur2;
use super::partition::Partition;
use super::types::{NewTopic, PartitionId, TopicId};

/// The most partitions one topic may have.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Kafka's limit on a topic name.
const NAME_BYTES_MAX: usize = 249;

/// How long and how much a topic keeps; `None` is without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Kafka's `retention.ms`, on the node's clock.
    pub ms: Option<u64>,
    /// Kafka's `retention.bytes`, per partition.
    pub bytes: Option<u64>,
}

impl Default for Retention {
    /// Kafka's: seven days.
    fn default() -> Retention {
        Retention {
            ms: Some(7 * 24 * 3600 * 1000),
            bytes: None,
        }
    }
}

/// A topic and its partitions.
#[derive(Debug)]
pub struct Topic {
    id: TopicId,
    name: String,
    partitions: Vec<Arc<Partition>>,
    configs: Vec<(String, String)>,
    turn: AtomicUsize,
}

impl Topic {
    pub(crate) fn new(
        id: TopicId,
        name: &str,
        ids: &[PartitionId],
        configs: Vec<(String, String)>,
    ) -> Topic {
        let partition = |(index, &partition): (i32, &PartitionId)| {
            Arc::new(Partition::new(partition, id, name.to_owned(), index))
        };
        let partitions = (0..).zip(ids).map(partition).collect();
        Topic {
            id,
            name: name.to_owned(),
            partitions,
            configs,
            turn: AtomicUsize::new(0),
        }
    }

    pub fn id(&self) -> TopicId {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index = partition number; at least one.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        &self.partitions
    }

    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// The partition a key belongs to, as Kafka's default partitioner chooses it; keyless records
    /// take turns.
    pub fn partition_for(&self, key: Option<&[u8]>) -> &Arc<Partition> {
        let count = self.partitions.len();
        let index = match key {
            Some(key) => murmur2::partition_of(key, count),
            None => self.turn.fetch_add(1, Ordering::Relaxed) % count,
        };
        #[allow(
            clippy::indexing_slicing,
            reason = "both ways choose below the count, and no topic is without partitions"
        )]
        &self.partitions[index]
    }

    fn config(&self, key: &str) -> Option<&str> {
        let found = self.configs.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// What it keeps; `None` if its cleanup policy does not delete.
    pub fn retention(&self, default: &Retention) -> Option<Retention> {
        let policy = self.config("cleanup.policy").unwrap_or("delete");
        if !policy.split(',').any(|policy| policy.trim() == "delete") {
            return None;
        }
        let own = |key: &str, default| match self.config(key).map(str::parse::<i64>) {
            // -1 is without bound.
            Some(Ok(value)) => u64::try_from(value).ok(),
            _ => default,
        };
        Some(Retention {
            ms: own("retention.ms", default.ms),
            bytes: own("retention.bytes", default.bytes),
        })
    }

    /// As given when the topic was created.
    pub fn configs(&self) -> &[(String, String)] {
        &self.configs
    }
}

/// Judges a topic before it is created.
pub fn validate(new: &NewTopic) -> Result<(), CreateTopicError> {
    let invalid = |reason| {
        Err(CreateTopicError::InvalidName {
            name: new.name.clone(),
            reason,
        })
    };
    if new.name.is_empty() {
        return invalid("it is empty");
    }
    if new.name.len() > NAME_BYTES_MAX {
        return invalid("it is longer than 249 characters");
    }
    if new.name == "." || new.name == ".." {
        return invalid("\".\" and \"..\" are not allowed");
    }
    if !new
        .name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        return invalid("only letters, digits, '.', '_' and '-' are allowed");
    }
    if !(1..=PARTITIONS_MAX).contains(&new.partitions) {
        return Err(CreateTopicError::InvalidPartitions(new.partitions));
    }
    for (key, value) in &new.configs {
        let invalid = |reason| {
            Err(CreateTopicError::InvalidConfig {
                key: key.clone(),
                value: value.clone(),
                reason,
            })
        };
        if !TOPIC_CONFIGS.contains(&key.as_str()) {
            return invalid("Kafka has no such topic configuration");
        }
        let number = value.parse::<i64>().is_ok_and(|number| number >= -1);
        if matches!(key.as_str(), "retention.ms" | "retention.bytes") && !number {
            return invalid("a number, or -1 for no bound");
        }
        let mut policies = value.split(',').map(str::trim);
        if key == "cleanup.policy" && !policies.all(|policy| matches!(policy, "delete" | "compact"))
        {
            return invalid("delete, compact, or both");
        }
        if key == "message.timestamp.type" && value != "CreateTime" {
            return invalid("only CreateTime is supported");
        }
    }
    Ok(())
}

/// Kafka 4's topic configurations.
const TOPIC_CONFIGS: [&str; 29] = [
    "cleanup.policy",
    "compression.type",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_configs_are_judged_as_kafka_does() {
        let topic = |name: &str| NewTopic {
            name: name.into(),
            partitions: 1,
            configs: Vec::new(),
        };
        for good in ["a", "telemetry.raw", "A_b-9", &"x".repeat(249)] {
            assert_eq!(validate(&topic(good)), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "ä", "a b", &"x".repeat(250)] {
            assert!(
                matches!(
                    validate(&topic(bad)),
                    Err(CreateTopicError::InvalidName { .. })
                ),
                "{bad}"
            );
        }
        let with = |key: &str, value: &str| NewTopic {
            configs: vec![(key.into(), value.into())],
            ..topic("t")
        };
        assert_eq!(validate(&with("retention.ms", "1000")), Ok(()));
        assert!(validate(&with("retention.hours", "1")).is_err());
        assert!(validate(&with("retention.ms", "-2")).is_err());
        assert!(validate(&with("retention.bytes", "1 GB")).is_err());
        assert_eq!(validate(&with("cleanup.policy", "compact, delete")), Ok(()));
        assert!(validate(&with("cleanup.policy", "remove")).is_err());
        assert!(validate(&with("message.timestamp.type", "LogAppendTime")).is_err());
        assert!(
            validate(&NewTopic {
                partitions: 0,
                ..topic("t")
            })
            .is_err()
        );
    }
}

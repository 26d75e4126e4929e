//! Topics: a name, an id that is never reused, and partitions.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::error::CreateTopicError;
use super::murmur2;
use super::partition::Partition;
use super::types::{NewTopic, PartitionId, TopicId};
use super::values::TopicValue;

/// The most partitions one topic may have.
pub const PARTITIONS_MAX: u32 = 10_000;
/// Keys and values of all configurations of one topic: they are written anew with every change.
pub const CONFIGS_BYTES_MAX: usize = 64 << 10;
/// Kafka's limit on a topic name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// What an acknowledgement means; a topic configuration that Kafka does not have.
pub const DURABILITY: &str = "holdfast.durability";
/// Bytes of a partition at which appends are refused; a topic configuration that Kafka does not have.
pub const BYTES_MAX: &str = "holdfast.partition.bytes.max";

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

/// How a topic is compacted (`cleanup.policy=compact`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compaction {
    /// `min.compaction.lag.ms`: what was appended since is left alone.
    pub min_lag_ms: u64,
    /// `max.compaction.lag.ms`: what is older does not wait for the dirty ratio.
    pub max_lag_ms: u64,
    /// `delete.retention.ms`: tombstones are kept for so long once they have been compacted.
    pub delete_retention_ms: u64,
    /// `min.cleanable.dirty.ratio`: share of bytes not yet compacted from which on it is worth it.
    pub min_dirty_ratio: f64,
}

/// What the log does with the records of a topic, as its configuration says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The cleanup policy names `delete`.
    deletes: bool,
    /// Outer `None`: the node's.
    retention_ms: Option<Option<u64>>,
    retention_bytes: Option<Option<u64>>,
    /// Set if the cleanup policy names `compact`.
    pub compaction: Option<Compaction>,
    /// `message.timestamp.type=LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`: how far the timestamps of
    /// producers may be from the node's clock.
    pub timestamp_before_max_ms: u64,
    pub timestamp_after_max_ms: u64,
    /// `holdfast.durability=os`: acknowledged, and readable, when it has reached the page cache.
    pub os: bool,
    /// `holdfast.partition.bytes.max`: from so many bytes on appends are refused.
    pub bytes_max: Option<u64>,
    /// `max.message.bytes`: largest record batch that a producer may send.
    pub batch_bytes_max: Option<usize>,
    /// `segment.ms`: a segment that holds records of the topic is sealed at this age.
    pub segment_ms: Option<u64>,
}

impl Settings {
    pub fn of(configs: &[(String, String)]) -> Settings {
        let find = |key: &str| {
            let found = configs.iter().find(|(name, _)| name == key);
            found.map(|(_, value)| value.as_str())
        };
        let policy = find("cleanup.policy").unwrap_or("delete");
        let has = |wanted: &str| policy.split(',').any(|policy| policy.trim() == wanted);
        // -1 is without bound.
        let bound = |key: &str| Some(u64::try_from(find(key)?.parse::<i64>().ok()?).ok());
        let number = |key: &str, default| find(key).and_then(|v| v.parse().ok()).unwrap_or(default);
        let ratio = find("min.cleanable.dirty.ratio").and_then(|v| v.parse().ok());
        let compaction = Compaction {
            min_lag_ms: number("min.compaction.lag.ms", 0),
            max_lag_ms: number("max.compaction.lag.ms", u64::MAX),
            delete_retention_ms: number("delete.retention.ms", 24 * 3600 * 1000),
            min_dirty_ratio: ratio.unwrap_or(0.5),
        };
        Settings {
            deletes: has("delete"),
            retention_ms: bound("retention.ms"),
            retention_bytes: bound("retention.bytes"),
            compaction: has("compact").then_some(compaction),
            log_append_time: find("message.timestamp.type") == Some("LogAppendTime"),
            timestamp_before_max_ms: number("message.timestamp.before.max.ms", u64::MAX),
            timestamp_after_max_ms: number("message.timestamp.after.max.ms", 3_600_000),
            os: find(DURABILITY) == Some("os"),
            bytes_max: find(BYTES_MAX).and_then(|v| v.parse().ok()),
            batch_bytes_max: find("max.message.bytes").and_then(|v| v.parse().ok()),
            segment_ms: find("segment.ms").and_then(|v| v.parse().ok()),
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
    settings: Settings,
    turn: AtomicUsize,
}

impl Topic {
    pub(crate) fn new(
        id: TopicId,
        name: &str,
        ids: &[PartitionId],
        configs: Vec<(String, String)>,
    ) -> Topic {
        let settings = Settings::of(&configs);
        let partition = |(index, &partition): (i32, &PartitionId)| {
            let topic_name = name.to_owned();
            Arc::new(Partition::new(partition, id, topic_name, index, settings))
        };
        let partitions = (0..).zip(ids).map(partition).collect();
        Topic {
            id,
            name: name.to_owned(),
            partitions,
            configs,
            settings,
            turn: AtomicUsize::new(0),
        }
    }

    /// The same topic, as `value` says it is now: partitions that it has stay the same ones.
    pub(crate) fn changed(&self, value: TopicValue) -> Topic {
        let settings = Settings::of(&value.configs);
        let ids = value.partitions.iter().copied().map(PartitionId);
        let partition = |(index, id): (i32, PartitionId)| match self.partition(index) {
            Some(known) if known.id() == id => {
                known.set_settings(settings);
                known.clone()
            }
            _ => {
                let name = self.name.clone();
                Arc::new(Partition::new(id, self.id, name, index, settings))
            }
        };
        Topic {
            id: self.id,
            name: self.name.clone(),
            partitions: (0..).zip(ids).map(partition).collect(),
            configs: value.configs,
            settings,
            turn: AtomicUsize::new(self.turn.load(Ordering::Relaxed)),
        }
    }

    /// As it is kept.
    pub(crate) fn value(&self) -> TopicValue {
        TopicValue {
            name: self.name.clone(),
            partitions: self.partitions.iter().map(|p| p.id().0).collect(),
            configs: self.configs.clone(),
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

    /// What it keeps; `None` if its cleanup policy does not delete.
    pub fn retention(&self, default: &Retention) -> Option<Retention> {
        let settings = &self.settings;
        settings.deletes.then(|| Retention {
            ms: settings.retention_ms.unwrap_or(default.ms),
            bytes: settings.retention_bytes.unwrap_or(default.bytes),
        })
    }

    /// An append is acknowledged when it has reached the page cache, not the disk.
    pub fn is_os_durable(&self) -> bool {
        self.settings.os
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// As given when the topic was created, or changed last.
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
    if new.name.len() > TOPIC_NAME_BYTES_MAX {
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
    validate_configs(&new.configs)
}

/// Judges a topic's configurations.
pub fn validate_configs(configs: &[(String, String)]) -> Result<(), CreateTopicError> {
    let (mut named, mut bytes) = (HashSet::new(), 0);
    for (key, value) in configs {
        let invalid = |reason| {
            Err(CreateTopicError::InvalidConfig {
                key: key.clone(),
                value: value.clone(),
                reason,
            })
        };
        bytes += key.len() + value.len();
        if bytes > CONFIGS_BYTES_MAX {
            return Err(CreateTopicError::InvalidConfig {
                key: key.clone(),
                value: String::new(),
                reason: "all configurations of a topic together may have 64 KiB",
            });
        }
        if !named.insert(key.as_str()) {
            return invalid("it is given twice");
        }
        if key == DURABILITY {
            if !matches!(value.as_str(), "fsync" | "os") {
                return invalid("fsync or os");
            }
            continue;
        }
        if key == BYTES_MAX {
            if !value.parse::<u64>().is_ok_and(|bytes| bytes > 0) {
                return invalid("a number of bytes, 1 or more");
            }
            continue;
        }
        if !TOPIC_CONFIGS.contains(&key.as_str()) {
            return invalid("Kafka has no such topic configuration");
        }
        let least = match key.as_str() {
            "retention.ms" | "retention.bytes" => Some((-1, "a number, or -1 for no bound")),
            "min.compaction.lag.ms" | "delete.retention.ms" | "max.message.bytes" => {
                Some((0, "a number, 0 or more"))
            }
            "max.compaction.lag.ms" | "segment.ms" => Some((1, "a number, 1 or more")),
            _ => None,
        };
        if let Some((least, reason)) = least
            && value.parse::<i64>().map_or(true, |number| number < least)
        {
            return invalid(reason);
        }
        let mut policies = value.split(',').map(str::trim);
        if key == "cleanup.policy"
            && !value.is_empty()
            && !policies.all(|policy| matches!(policy, "delete" | "compact"))
        {
            return invalid("delete, compact, or both");
        }
        let ratio = value.parse::<f64>();
        if key == "min.cleanable.dirty.ratio"
            && !ratio.is_ok_and(|ratio| (0.0..=1.0).contains(&ratio))
        {
            return invalid("a number from 0 to 1");
        }
        if key == "message.timestamp.type"
            && !matches!(value.as_str(), "CreateTime" | "LogAppendTime")
        {
            return invalid("CreateTime or LogAppendTime");
        }
    }
    Ok(())
}

/// Kafka 4's topic configurations.
const TOPIC_CONFIGS: [&str; 33] = [
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
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
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
        assert_eq!(
            validate(&with("message.timestamp.type", "LogAppendTime")),
            Ok(())
        );
        assert!(validate(&with("message.timestamp.type", "logappendtime")).is_err());
        assert_eq!(validate(&with(DURABILITY, "os")), Ok(()));
        assert!(validate(&with(DURABILITY, "none")).is_err());
        assert_eq!(validate(&with(BYTES_MAX, "1000")), Ok(()));
        assert!(validate(&with(BYTES_MAX, "-1")).is_err());
        assert!(validate(&with("segment.ms", "0")).is_err());
        assert!(validate(&with("delete.retention.ms", "-1")).is_err());
        assert!(validate(&with("min.cleanable.dirty.ratio", "1.1")).is_err());
        assert!(
            validate(&NewTopic {
                partitions: 0,
                ..topic("t")
            })
            .is_err()
        );
    }
}

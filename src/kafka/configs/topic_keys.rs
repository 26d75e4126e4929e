//! Kafka 4.3's topic configurations: name, type, default, and the broker configuration that sets the
//! default; and ours.

use holdfast_storage::log::{BYTES_MAX, DURABILITY};

use super::{ConfigKey, Kind::*, Range::*};

#[rustfmt::skip]
pub const TOPIC_KEYS: &[ConfigKey] = &[
    ConfigKey::new("cleanup.policy", List, Some("delete")).of_broker("log.cleanup.policy").within(SomeOf(&["compact", "delete"])).does(
        "Old records are deleted, or those that a later one of the same key replaces (compact), or both; empty: everything is kept.",
    ),
    ConfigKey::new("compression.gzip.level", Int, Some("-1")).of_broker("compression.gzip.level").within(OneOf(&["-1", "1", "2", "3", "4", "5", "6", "7", "8", "9"])),
    ConfigKey::new("compression.lz4.level", Int, Some("9")).of_broker("compression.lz4.level").within(Between(1, 17)),
    ConfigKey::new("compression.type", String, Some("producer")).of_broker("compression.type").within(OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])),
    ConfigKey::new("compression.zstd.level", Int, Some("3")).of_broker("compression.zstd.level").within(Between(-131_072, 22)),
    ConfigKey::new("delete.retention.ms", Long, Some("86400000")).of_broker("log.cleaner.delete.retention.ms").within(AtLeast(0)).does(
        "How long the tombstone of a key stays in a compacted topic, in milliseconds from its first compaction.",
    ),
    ConfigKey::new("file.delete.delay.ms", Long, Some("60000")).of_broker("log.segment.delete.delay.ms").within(AtLeast(0)),
    ConfigKey::new("flush.messages", Long, Some("9223372036854775807")).of_broker("log.flush.interval.messages").within(AtLeast(1)),
    ConfigKey::new("flush.ms", Long, Some("9223372036854775807")).of_broker("log.flush.interval.ms").within(AtLeast(0)),
    ConfigKey::new("follower.replication.throttled.replicas", List, Some("")).within(Replicas),
    ConfigKey::new("index.interval.bytes", Int, Some("4096")).of_broker("log.index.interval.bytes").within(AtLeast(0)),
    ConfigKey::new("leader.replication.throttled.replicas", List, Some("")).within(Replicas),
    ConfigKey::new("local.retention.bytes", Long, Some("-2")).of_broker("log.local.retention.bytes").within(AtLeast(-2)),
    ConfigKey::new("local.retention.ms", Long, Some("-2")).of_broker("log.local.retention.ms").within(AtLeast(-2)),
    ConfigKey::new("max.compaction.lag.ms", Long, Some("9223372036854775807")).of_broker("log.cleaner.max.compaction.lag.ms").within(AtLeast(1)).does(
        "A record that could be compacted away is looked at after this many milliseconds at the latest.",
    ),
    ConfigKey::new("max.message.bytes", Int, Some("1048588")).of_broker("message.max.bytes").within(AtLeast(0)).does(
        "Size of the largest batch of records that is taken, in bytes.",
    ),
    ConfigKey::new("message.timestamp.after.max.ms", Long, Some("3600000")).of_broker("log.message.timestamp.after.max.ms").within(AtLeast(0)).does(
        "How far ahead of the node's clock the timestamp of a record may be, in milliseconds.",
    ),
    ConfigKey::new("message.timestamp.before.max.ms", Long, Some("9223372036854775807")).of_broker("log.message.timestamp.before.max.ms").within(AtLeast(0)).does(
        "How far behind the node's clock the timestamp of a record may be, in milliseconds.",
    ),
    ConfigKey::new("message.timestamp.type", String, Some("CreateTime")).of_broker("log.message.timestamp.type").within(OneOf(&["CreateTime", "LogAppendTime"])).does(
        "CreateTime: records keep the time of their producer. LogAppendTime: they get the node's.",
    ),
    ConfigKey::new("min.cleanable.dirty.ratio", Double, Some("0.5")).of_broker("log.cleaner.min.cleanable.ratio").does(
        "The topic is compacted when this share of it has not been yet.",
    ),
    ConfigKey::new("min.compaction.lag.ms", Long, Some("0")).of_broker("log.cleaner.min.compaction.lag.ms").within(AtLeast(0)).does(
        "For how many milliseconds a record is never compacted away.",
    ),
    ConfigKey::new("min.insync.replicas", Int, Some("1")).of_broker("min.insync.replicas").within(AtLeast(1)),
    ConfigKey::new("preallocate", Boolean, Some("false")).of_broker("log.preallocate"),
    ConfigKey::new("remote.log.copy.disable", Boolean, Some("false")),
    ConfigKey::new("remote.log.delete.on.disable", Boolean, Some("false")),
    ConfigKey::new("remote.storage.enable", Boolean, Some("false")),
    ConfigKey::new("retention.bytes", Long, Some("-1")).of_broker("log.retention.bytes").does(
        "How many bytes each partition keeps; -1: without bound.",
    ),
    ConfigKey::new("retention.ms", Long, Some("604800000")).of_broker("log.retention.ms").within(AtLeast(-1)).does(
        "How long records are kept, in milliseconds from when they were appended; -1: without bound.",
    ),
    ConfigKey::new("segment.bytes", Int, Some("1073741824")).of_broker("log.segment.bytes").within(AtLeast(1_048_576)),
    ConfigKey::new("segment.index.bytes", Int, Some("10485760")).of_broker("log.index.size.max.bytes").within(AtLeast(4)),
    ConfigKey::new("segment.jitter.ms", Long, Some("0")).of_broker("log.roll.jitter.ms").within(AtLeast(0)),
    ConfigKey::new("segment.ms", Long, Some("604800000")).of_broker("log.roll.ms").within(AtLeast(1)).does(
        "The segment with the topic's records is sealed at this age, in milliseconds; one second at least.",
    ),
    ConfigKey::new("unclean.leader.election.enable", Boolean, Some("false")).of_broker("unclean.leader.election.enable"),
    ConfigKey::new(DURABILITY, String, Some("fsync")).does(
        "fsync: an append is acknowledged when it is on disk. os: when it is in the page cache; it is on disk within a second or 4 MB.",
    ),
    ConfigKey::new(BYTES_MAX, Long, None).does(
        "Appends to a partition of this many bytes are refused until something is deleted.",
    ),
];

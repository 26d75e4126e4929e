//! The nouns of the log, as types that cannot be mixed up.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Position of a record in its partition. Never negative.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// `None` for a negative number: those are sentinels of protocols, never offsets.
    pub fn new(value: i64) -> Option<Offset> {
        (value >= 0).then_some(Offset(value))
    }

    /// The bare number, for the wire.
    pub fn value(self) -> i64 {
        self.0
    }

    /// This offset moved forward by `n` records.
    #[must_use]
    pub fn plus(self, n: u32) -> Offset {
        Offset(self.0.saturating_add(i64::from(n)))
    }

    /// How many offsets lie between `earlier` and this one; 0 if `earlier` is later.
    pub fn since(self, earlier: Offset) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Identity of a topic: never reused, so that a recreated topic is another topic (KIP-516).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TopicId(pub Uuid);

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Node-wide number of one partition of one topic: never reused; the wal's stream number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(pub(crate) u64);

/// A clock that shows less has not been set: 2020, years before this was written.
pub const CLOCK_SET_MS: u64 = 1_577_836_800_000;

/// Tells milliseconds since the Unix epoch; passed in, so that time can be played.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The machine's.
    pub fn system() -> Clock {
        Clock::new(|| {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now_ms))
    }

    pub fn now_ms(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now_ms()).finish()
    }
}

/// A record as a door or a pipeline hands it in or reads it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Record {
    /// Milliseconds since the Unix epoch (CreateTime).
    pub timestamp_ms: i64,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// One record header; names may repeat and their order is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: Bytes,
    pub value: Option<Bytes>,
}

impl Header {
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Header {
        Header {
            name: name.into(),
            value: Some(value.into()),
        }
    }
}

/// A record read back from the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub offset: Offset,
    pub record: Record,
}

/// Identity of an idempotent producer (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProducerId(pub i64);

/// A consumer group's committed position in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next offset that the group wants; a negative one is kept as the client gave it, and means
    /// nothing here.
    pub offset: i64,
    /// -1 where the client gave none.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_timestamp_ms: i64,
}

impl CommittedOffset {
    /// Where the group is; `None` where it said nothing of the kind.
    pub fn position(&self) -> Option<Offset> {
        Offset::new(self.offset)
    }
}

/// What a topic is made of; names, partition counts and configs are judged by [`super::Log::create_topic`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    pub partitions: u32,
    /// Kafka's topic configuration keys, kept as given (`retention.ms`, `cleanup.policy`, ...).
    pub configs: Vec<(String, String)>,
}

//! The log: topics, partitions and offsets over the wal, and the one commit point of the node.

mod types;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use uuid::Uuid;
pub use types::{
    CommittedOffset, Header, NewTopic, Offset, PartitionId, ProducerId, Record, StoredRecord, TopicId,
};

/// How the log is opened.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Holds `segments/` (the truth) and `index/` (fjall; may be deleted).
    pub data_dir: PathBuf,
    /// Bytes submitted and not yet durable, over all callers; more waits. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// Default 64 MiB.
    pub segment_bytes: u32,
    /// Largest accepted record batch (`message.max.bytes`). Default 1 MiB + 12 B.
    pub batch_bytes_max: usize,
}

impl LogOptions {
    pub fn new(data_dir: impl Into<PathBuf>) -> LogOptions {
        LogOptions {
            data_dir: data_dir.into(),
            in_flight_bytes_max: 64 << 20,
            segment_bytes: 64 << 20,
            batch_bytes_max: (1 << 20) + 12,
        }
    }
}

/// Handle on the log; clones share it.
#[derive(Clone)]
pub struct Log {}

/// A topic and its partitions.
pub struct Topic {}

impl Topic {
    pub fn id(&self) -> TopicId { todo!() }
    pub fn name(&self) -> &str { todo!() }
    /// Index = partition number.
    pub fn partitions(&self) -> &[Arc<Partition>] { todo!() }
    pub fn partition(&self, _index: i32) -> Option<&Arc<Partition>> { todo!() }
    /// The partition a key belongs to: murmur2 as Kafka's default partitioner; keyless records take turns.
    pub fn partition_for(&self, _key: Option<&[u8]>) -> &Arc<Partition> { todo!() }
    pub fn configs(&self) -> &[(String, String)] { todo!() }
    /// Internal topics are not writable from a door.
    pub fn is_internal(&self) -> bool { todo!() }
}

/// One partition: an ordered sequence of record batches.
pub struct Partition {}

impl Partition {
    pub fn index(&self) -> i32 { todo!() }
    pub fn topic_id(&self) -> TopicId { todo!() }
    pub fn topic_name(&self) -> &str { todo!() }
    /// First readable offset.
    pub fn log_start_offset(&self) -> Offset { todo!() }
    /// First offset that is not yet durable; readers see everything below it.
    pub fn high_watermark(&self) -> Offset { todo!() }
    /// Bytes of record batches kept.
    pub fn size_bytes(&self) -> u64 { todo!() }
}

/// Result of an append, handed out only after the covering fdatasync returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Set where the topic uses LogAppendTime.
    pub log_append_time_ms: Option<i64>,
    pub log_start_offset: Offset,
}

/// An append that is queued, in order, and waits for its fdatasync. Dropping it does not undo it.
pub struct Appending {}

impl Future for Appending {
    type Output = Result<Appended, AppendError>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> { todo!() }
}

/// Why an append was refused. Nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch breaks the format; the text says where (Kafka: CORRUPT_MESSAGE or INVALID_RECORD).
    #[error("corrupt record batch: {0}")]
    Corrupt(String),
    /// Well-formed but not acceptable (Kafka: INVALID_RECORD).
    #[error("invalid record: {0}")]
    Invalid(String),
    #[error("record batch of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// Idempotent producer skipped a sequence number (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {producer_id}: sequence {got}, expected {expected}")]
    OutOfOrderSequence { producer_id: i64, got: i32, expected: i32 },
    /// A newer producer with this id has taken over (Kafka: INVALID_PRODUCER_EPOCH).
    #[error("producer {producer_id}: epoch {got} is older than {current}")]
    ProducerFenced { producer_id: i64, got: i16, current: i16 },
    #[error("the topic was deleted")]
    TopicDeleted,
    /// The log takes no more writes until an operator acts; the text says why (Kafka: KAFKA_STORAGE_ERROR).
    #[error("storage failure: {0}")]
    Storage(String),
    #[error("the log is closed")]
    Closed,
}

/// Why a fetch failed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchError {
    #[error("offset {requested} is outside {log_start}..={high_watermark}")]
    OffsetOutOfRange { requested: i64, log_start: Offset, high_watermark: Offset },
    #[error("storage failure: {0}")]
    Storage(String),
}

/// Whole record batches (Kafka v2, as stored) that cover the asked offset and what follows it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The first batch may begin before the asked offset. Empty at the high watermark.
    pub batches: Vec<Bytes>,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
}

/// Why a topic was not created.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateTopicError {
    #[error("topic {0:?} exists")]
    Exists(String),
    #[error("invalid topic name {name:?}: {reason}")]
    InvalidName { name: String, reason: String },
    #[error("invalid partition count {0}: 1 to 10000 are possible")]
    InvalidPartitions(u32),
    #[error("invalid topic configuration {key}={value:?}: {reason}")]
    InvalidConfig { key: String, value: String, reason: String },
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// What the log can do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    Accepting,
    /// A failed fsync or write left state on disk unknown; final until restart (invariant 11).
    Failed { reason: String },
    Closed,
}

/// One offset to commit.
#[derive(Debug, Clone)]
pub struct OffsetCommit {
    pub topic: TopicId,
    pub partition: i32,
    pub committed: CommittedOffset,
}

/// Counters since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    pub records: u64,
    pub batches: u64,
    pub payload_bytes: u64,
    pub written_bytes: u64,
    pub fdatasyncs: u64,
    pub segments: u64,
}

/// Resolves when something became readable in one of the partitions it watches.
pub struct Watch {}

impl Watch {
    /// Waits until any watched partition's high watermark moved since the watch was made or since
    /// the last time this returned. Make the watch *before* reading, so that nothing is missed.
    pub async fn appended(&mut self) { todo!() }
}

impl Log {
    /// Opens or creates, recovers, and raises the leader epoch. Blocks on disk.
    pub fn open(_options: LogOptions) -> Result<Log, OpenError> { todo!() }
    /// Refuses further appends, finishes the queued ones, seals the head. Blocks on disk.
    pub fn close(&self) { todo!() }
    pub fn state(&self) -> LogState { todo!() }
    pub fn stats(&self) -> LogStats { todo!() }
    /// Rises at every start.
    pub fn leader_epoch(&self) -> i32 { todo!() }
    /// Stable identity of this node's data, made at first start.
    pub fn cluster_id(&self) -> Uuid { todo!() }

    /// By name.
    pub fn topics(&self) -> Vec<Arc<Topic>> { todo!() }
    pub fn topic(&self, _name: &str) -> Option<Arc<Topic>> { todo!() }
    pub fn topic_by_id(&self, _id: TopicId) -> Option<Arc<Topic>> { todo!() }
    /// Durable when it returns; goes on if the future is dropped.
    pub async fn create_topic(&self, _new: NewTopic) -> Result<Arc<Topic>, CreateTopicError> { todo!() }

    /// Queues records of one partition; waits only while too much is in flight. Records of all callers
    /// that meet in one commit window are coalesced into one batch per partition. The returned
    /// [`Appending`] resolves when they are durable. Appends of one task keep their order.
    pub async fn append(&self, _partition: &Arc<Partition>, _records: Vec<Record>) -> Result<Appending, AppendError> { todo!() }
    /// Queues one Kafka v2 record batch as it came (validated here: CRC, counts, sequence).
    pub async fn append_batch(&self, _partition: &Arc<Partition>, _batch: Bytes) -> Result<Appending, AppendError> { todo!() }
    /// Queues records of several partitions as one unit: all of them become durable together.
    /// The offsets are those of the records, in order.
    pub async fn append_all(&self, _records: Vec<(Arc<Partition>, Record)>) -> Result<AppendingAll, AppendError> { todo!() }

    /// Reads whole batches from `from`, at least one if there is any (KIP-74), then up to `bytes_max`.
    /// May read the disk: call from `spawn_blocking` where `from` is far behind.
    pub fn fetch(&self, _partition: &Partition, _from: Offset, _bytes_max: usize) -> Result<Fetched, FetchError> { todo!() }
    /// Decoded records from `from` on (compressed batches included), at most about `bytes_max` of batches.
    pub fn read(&self, _partition: &Partition, _from: Offset, _bytes_max: usize) -> Result<Vec<StoredRecord>, FetchError> { todo!() }
    /// Offset and timestamp of the first record whose timestamp is >= `timestamp_ms`.
    pub fn offset_for_time(&self, _partition: &Partition, _timestamp_ms: i64) -> Result<Option<(Offset, i64)>, FetchError> { todo!() }
    /// Offset and timestamp of the record with the largest timestamp (ListOffsets -3).
    pub fn max_timestamp(&self, _partition: &Partition) -> Result<Option<(Offset, i64)>, FetchError> { todo!() }
    pub fn watch(&self, _partitions: &[Arc<Partition>]) -> Watch { todo!() }

    /// Durable when it returns.
    pub async fn commit_offsets(&self, _group: &str, _commits: Vec<OffsetCommit>) -> Result<(), AppendError> { todo!() }
    pub fn committed_offset(&self, _group: &str, _topic: TopicId, _partition: i32) -> Option<CommittedOffset> { todo!() }
    /// Every committed offset of a group.
    pub fn committed_offsets(&self, _group: &str) -> Vec<(TopicId, i32, CommittedOffset)> { todo!() }
    /// Groups that have committed an offset.
    pub fn groups(&self) -> Vec<String> { todo!() }

    /// A producer id never given before; durable when it returns.
    pub async fn new_producer_id(&self) -> Result<ProducerId, AppendError> { todo!() }

    /// Small durable settings of the rooms above (users, schemas): `kind` names the room, a `None`
    /// value deletes. Durable when it returns.
    pub async fn put_setting(&self, _kind: &str, _key: &str, _value: Option<Bytes>) -> Result<(), AppendError> { todo!() }
    pub fn setting(&self, _kind: &str, _key: &str) -> Option<Bytes> { todo!() }
    pub fn settings(&self, _kind: &str) -> Vec<(String, Bytes)> { todo!() }
}

/// See [`Log::append_all`].
pub struct AppendingAll {}

impl Future for AppendingAll {
    type Output = Result<Vec<Offset>, AppendError>;
    fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> { todo!() }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("{0}")]
    Other(String),
}

//! What the log answers when it cannot do what was asked.

use std::path::PathBuf;

use holdfast_wal::WalError;

use super::transactions::TransactionState;
use super::types::Offset;

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Kafka: INVALID_RECORD.
    #[error("a compacted topic takes no record without a key")]
    Keyless,
    /// Kafka: INVALID_TIMESTAMP.
    #[error(
        "the timestamp is outside of what message.timestamp.before.max.ms and message.timestamp.after.max.ms allow"
    )]
    Untimely,
}

/// Why an append was refused. Nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch breaks the format; the text says where (Kafka: CORRUPT_MESSAGE).
    #[error("corrupt record batch: {0}")]
    Corrupt(String),
    /// Well-formed but not acceptable (Kafka: INVALID_RECORD).
    #[error("invalid record: {0}")]
    Invalid(String),
    /// Some records of a batch are not acceptable; their numbers in it, or the first of them.
    #[error("{fault}")]
    Records {
        fault: RecordFault,
        indexes: Vec<u32>,
    },
    /// Larger than the log takes in one piece (Kafka: MESSAGE_TOO_LARGE).
    #[error("record batch of {bytes} bytes exceeds the limit of {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    /// Idempotent producer skipped a sequence number (Kafka: OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {producer_id}: sequence {got}, expected {expected}")]
    OutOfOrderSequence {
        producer_id: i64,
        got: i32,
        expected: i32,
    },
    /// This node never gave out the id (Kafka: UNKNOWN_PRODUCER_ID).
    #[error("producer {producer_id} is not known here")]
    UnknownProducer { producer_id: i64 },
    /// A newer producer with this id has taken over (Kafka: INVALID_PRODUCER_EPOCH).
    #[error("producer {producer_id}: epoch {got} is older than {current}")]
    ProducerFenced {
        producer_id: i64,
        got: i16,
        current: i16,
    },
    /// Its producer's transaction does not take it.
    #[error(transparent)]
    Transaction(Box<TransactionError>),
    /// The topic was deleted (Kafka: UNKNOWN_TOPIC_OR_PARTITION).
    #[error("the topic was deleted")]
    Deleted,
    /// The log could not write; the text says why and whether it goes on (Kafka: KAFKA_STORAGE_ERROR).
    #[error("storage failure: {0}")]
    Storage(String),
    #[error("the log is closed")]
    Closed,
}

impl From<&WalError> for AppendError {
    fn from(error: &WalError) -> AppendError {
        match error {
            WalError::Closed => AppendError::Closed,
            other => AppendError::Storage(other.to_string()),
        }
    }
}

/// Why a transaction does not go on. Nothing of the request is in the log.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionError {
    /// Kafka: INVALID_PRODUCER_ID_MAPPING.
    #[error("the transactional id is not known here, or has expired")]
    UnknownId,
    /// Kafka: INVALID_PRODUCER_ID_MAPPING.
    #[error("producer {0} is not the one of this transactional id")]
    UnknownProducer(i64),
    /// Kafka: PRODUCER_FENCED.
    #[error(
        "producer {0} has another epoch: another one has taken over, or its transaction timed out"
    )]
    Fenced(i64),
    /// Kafka: INVALID_TXN_STATE.
    #[error("not possible where the transaction is {0:?}")]
    State(TransactionState),
    /// Kafka: INVALID_TXN_STATE.
    #[error("the partition was not added to the transaction")]
    NotAdded,
    /// Kafka: INVALID_TXN_STATE.
    #[error("a transactional producer sent a batch that is not transactional within a transaction")]
    NotTransactional,
    /// Kafka: TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
    #[error("a transactional batch without a transactional id")]
    NoId,
    /// Kafka: INVALID_REQUEST.
    #[error("a transactional id is empty or longer than 1024 bytes")]
    InvalidId,
    /// Kafka: COORDINATOR_NOT_AVAILABLE.
    #[error("too many transactional ids")]
    TooManyIds,
    /// Kafka: INVALID_COMMIT_OFFSET_SIZE.
    #[error("too many offsets in one transaction")]
    TooManyOffsets,
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a fetch failed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FetchError {
    #[error("offset {requested} is outside {log_start}..={high_watermark}")]
    OffsetOutOfRange {
        requested: Offset,
        log_start: Offset,
        high_watermark: Offset,
    },
    /// The topic was deleted (Kafka: UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID).
    #[error("the topic was deleted")]
    Deleted,
    /// A batch that cannot be decoded ([`super::Log::read`] only); reading goes on at `next`.
    #[error("the batch at offset {base} cannot be decoded: {reason}")]
    Undecodable {
        base: Offset,
        next: Offset,
        batch: bytes::Bytes,
        reason: String,
    },
    #[error("storage failure: {0}")]
    Storage(String),
}

impl From<WalError> for FetchError {
    fn from(error: WalError) -> FetchError {
        FetchError::Storage(error.to_string())
    }
}

impl From<fjall::Error> for FetchError {
    fn from(error: fjall::Error) -> FetchError {
        FetchError::Storage(format!("index: {error}"))
    }
}

/// Why a topic was not created.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateTopicError {
    #[error("topic {0:?} exists")]
    Exists(String),
    #[error("invalid topic name {name:?}: {reason}")]
    InvalidName { name: String, reason: &'static str },
    #[error("invalid partition count {0}: 1 to 10000 are possible")]
    InvalidPartitions(u32),
    #[error("invalid topic configuration {key}={value:?}: {reason}")]
    InvalidConfig {
        key: String,
        value: String,
        reason: &'static str,
    },
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a topic was not changed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeTopicError {
    #[error("there is no such topic")]
    Unknown,
    /// Look at it as it is now, and try again.
    #[error("the topic has been changed meanwhile")]
    Outdated,
    #[error("the topic has {now} partitions; they can only become more")]
    FewerPartitions { now: u32 },
    #[error(transparent)]
    Invalid(#[from] CreateTopicError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a topic was not deleted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteTopicError {
    #[error("there is no such topic")]
    Unknown,
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why records were not deleted.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeleteRecordsError {
    #[error("offset {requested} lies beyond the high watermark {high_watermark}")]
    OffsetOutOfRange {
        requested: Offset,
        high_watermark: Offset,
    },
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    #[error("{path}: {source}")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("another node is using the data directory {0}")]
    Locked(PathBuf),
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("index: {0} (the folder {path} can be deleted, it is rebuilt from the segments)", path = .1.display())]
    Index(fjall::Error, PathBuf),
    #[error("metadata record: {0}")]
    Metadata(String),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("reading internal partition: {0}")]
    Fetch(#[from] FetchError),
    #[error("starting a thread: {0}")]
    Thread(std::io::Error),
}

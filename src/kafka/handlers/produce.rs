//! Produce: record batches into the log.
//!
//! A request is first *admitted*: every batch is checked and queued in the log in the order it came.
//! It is *settled* when the fdatasync that covers it has returned.

use bytes::{Buf, Bytes};
use std::sync::Arc;

use holdfast_storage::log::{
    AppendError, Appended, Appending, CheckedBatch, InTransaction, Partition, RecordFault, Topic,
    TransactionError,
};
use tokio::task::consume_budget;
use uuid::Uuid;

use super::super::access::{Access, Operation, sentence};
use super::super::broker::{Asker, Broker, Refusal, TopicRef};
use super::super::protocol::messages::{
    BatchIndexAndErrorMessage, PartitionProduceData, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceResponse,
};
use super::super::protocol::{ErrorCode, Str};

/// Topics are named by id from here on (KIP-516).
const TOPIC_ID_SINCE_VERSION: i16 = 13;
/// A transaction's partitions are added by writing to them from here on (KIP-890).
const ADDS_SINCE_VERSION: i16 = 12;
/// Zstandard is known from here on (KIP-110).
const ZSTD_SINCE_VERSION: i16 = 7;

/// TRANSACTION_ABORTABLE is known from here on (KIP-890).
const ABORTABLE_SINCE_VERSION: i16 = 11;

/// Smallest record batch of format 2: its header.
const BATCH_HEADER_BYTES: usize = 61;
/// Base offset and length: what the length field does not count.
const BATCH_PREFIX_BYTES: usize = 12;
const MAGIC_AT: usize = 16;
const ATTRIBUTES_AT: usize = 21;
const RECORDS_AT: usize = 57;
const MAGIC: u8 = 2;
const COMPRESSION_MASK: u16 = 0x07;
const COMPRESSION_ZSTD: u16 = 4;

/// A request whose batches are in the log's queue.
pub(in super::super) struct Admitted {
    version: i16,
    acks: i16,
    topics: Vec<AdmittedTopic>,
}

struct AdmittedTopic {
    name: Str,
    topic_id: Uuid,
    partitions: Vec<(i32, Result<Appending, Refused>)>,
}

/// Why a batch was refused, for the client's program and its reader.
struct Refused {
    error: ErrorCode,
    message: String,
    /// The records it is about.
    records: Vec<u32>,
}

impl From<Refusal> for Refused {
    fn from((error, message): Refusal) -> Refused {
        Refused {
            error,
            message,
            records: Vec::new(),
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Refused {
        let refused = Refused::from(append_error(&error));
        match error {
            AppendError::Records { indexes, .. } => Refused {
                records: indexes,
                ..refused
            },
            _ => refused,
        }
    }
}

/// What to tell the client.
pub(in super::super) enum Settled {
    Answer(ProduceResponse),
    /// acks=0: nothing at all.
    Silence,
    /// acks=0, and something was refused: only closing the connection can say so.
    Refused(ErrorCode),
}

/// Admits and settles in one go, where nothing is pipelined.
pub(super) async fn answer(
    broker: &Broker,
    asker: &Asker,
    request: ProduceRequest,
) -> ProduceResponse {
    match admit(broker, asker, request).await.settle().await {
        Settled::Answer(response) => response,
        Settled::Silence | Settled::Refused(_) => ProduceResponse::default(),
    }
}

/// Queues every batch of the request; waits only while too much is in flight in the log.
pub(in super::super) async fn admit(
    broker: &Broker,
    asker: &Asker,
    request: ProduceRequest,
) -> Admitted {
    let (access, version) = (broker.access(asker), asker.version);
    let refused = refuse_whole(&access, &request);
    let within = Within {
        version,
        transactional_id: request.transactional_id.as_ref(),
    };
    let mut topics = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let by_id = version >= TOPIC_ID_SINCE_VERSION;
        let topic_ref = TopicRef::new(by_id, &topic.name, topic.topic_id);
        let found = access.topic(Operation::Write, &topic_ref);
        let found = found.map_err(|error| (error, String::new()));
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            consume_budget().await;
            let index = data.index;
            let outcome = match (&refused, &found) {
                (Some(refusal), _) | (None, Err(refusal)) => Err(refusal.clone().into()),
                (None, Ok(topic)) => append(broker, &within, topic, data).await,
            };
            partitions.push((index, outcome));
        }
        topics.push(AdmittedTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions,
        });
    }
    Admitted {
        version,
        acks: request.acks,
        topics,
    }
}

fn refuse_whole(access: &Access<'_>, request: &ProduceRequest) -> Option<Refusal> {
    if let Some(id) = &request.transactional_id {
        let may = access.to_transactional_id(Operation::Write, id.as_str());
        if let Err(error) = may {
            return Some((error, sentence(error).to_owned()));
        }
    }
    if !(-1..=1).contains(&request.acks) {
        let message = format!("acks={} is not one of -1, 0 and 1", request.acks);
        return Some((ErrorCode::InvalidRequiredAcks, message));
    }
    None
}

/// What a whole request says about its batches.
struct Within<'a> {
    version: i16,
    transactional_id: Option<&'a Str>,
}

async fn append(
    broker: &Broker,
    within: &Within<'_>,
    topic: &Topic,
    data: PartitionProduceData,
) -> Result<Appending, Refused> {
    let plain = |error: ErrorCode| Refused::from((error, String::new()));
    let partition = topic.partition(data.index);
    let partition = partition.ok_or_else(|| plain(ErrorCode::UnknownTopicOrPartition))?;
    let batch = data.records.unwrap_or_default();
    check_batch(&batch, within.version)?;
    let checked = judge(broker, partition, batch).await?;
    let within = within.transactional_id.map(|id| InTransaction {
        id: id.as_str().to_owned(),
        adds: within.version >= ADDS_SINCE_VERSION,
    });
    Ok(broker
        .log
        .append_checked(partition, checked, within)
        .await?)
}

/// Unpacks compressed batches where nobody else waits for it.
async fn judge(
    broker: &Broker,
    partition: &Arc<Partition>,
    batch: Bytes,
) -> Result<CheckedBatch, Refused> {
    if !CheckedBatch::is_slow_to_check(&batch) {
        return Ok(broker.log.check_batch(partition, batch)?);
    }
    let partition = partition.clone();
    let judged = broker.read(move |log| log.check_batch(&partition, batch));
    Ok(judged.await.map_err(|error| (error, String::new()))??)
}

/// What the protocol, not the log, has against a batch.
fn check_batch(batch: &Bytes, version: i16) -> Result<(), Refusal> {
    let invalid = |message: &str| Err((ErrorCode::InvalidRecord, message.to_owned()));
    let corrupt = |message: &str| Err((ErrorCode::CorruptMessage, message.to_owned()));
    if batch.is_empty() {
        return invalid("a partition of a Produce request has exactly one record batch, not none");
    }
    match batch.get(MAGIC_AT) {
        Some(&MAGIC) => {}
        Some(0 | 1) => return invalid("record batches have format 2 since Produce version 3"),
        _ => return corrupt("not a record batch"),
    }
    if batch.len() < BATCH_HEADER_BYTES {
        return invalid("a record batch shorter than its header");
    }
    let declared = batch.slice(8..BATCH_PREFIX_BYTES).get_i32();
    let declared = usize::try_from(declared).unwrap_or(0);
    if declared < BATCH_HEADER_BYTES - BATCH_PREFIX_BYTES {
        return corrupt("a record batch with a length shorter than its header");
    }
    match declared
        .saturating_add(BATCH_PREFIX_BYTES)
        .cmp(&batch.len())
    {
        std::cmp::Ordering::Equal => {}
        std::cmp::Ordering::Greater => return invalid("a record batch shorter than its length"),
        std::cmp::Ordering::Less => {
            return invalid("a partition of a Produce request has exactly one record batch");
        }
    }
    if batch.slice(RECORDS_AT..BATCH_HEADER_BYTES).get_i32() <= 0 {
        return invalid("a record batch without records");
    }
    let attributes = batch.slice(ATTRIBUTES_AT..ATTRIBUTES_AT + 2).get_u16();
    if attributes & COMPRESSION_MASK == COMPRESSION_ZSTD && version < ZSTD_SINCE_VERSION {
        let message = format!("Zstandard needs Produce version {ZSTD_SINCE_VERSION}");
        return Err((ErrorCode::UnsupportedCompressionType, message));
    }
    Ok(())
}

/// The code for a refused append, and what its sender may read about it.
pub(super) fn append_error(error: &AppendError) -> Refusal {
    let code = match error {
        AppendError::Corrupt(_) => ErrorCode::CorruptMessage,
        AppendError::Invalid(_) => ErrorCode::InvalidRecord,
        AppendError::Records { fault, .. } => match fault {
            RecordFault::Keyless => ErrorCode::InvalidRecord,
            RecordFault::Untimely => ErrorCode::InvalidTimestamp,
        },
        AppendError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        AppendError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        AppendError::ProducerFenced { .. } => ErrorCode::InvalidProducerEpoch,
        AppendError::UnknownProducer { .. } => ErrorCode::UnknownProducerId,
        AppendError::Deleted => ErrorCode::UnknownTopicOrPartition,
        AppendError::Transaction(error) => match transaction_error(error).0 {
            // As for batches without a transaction.
            ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
            code => code,
        },
        // Whoever asks again finds the node restarted, or gone.
        AppendError::Closed => ErrorCode::NotLeaderOrFollower,
        AppendError::Storage(reason) => {
            tracing::error!(%reason, "an append was refused");
            return (
                ErrorCode::KafkaStorageError,
                "the log takes no writes".to_owned(),
            );
        }
        other => {
            tracing::error!(error = %other, "an append was refused");
            return (ErrorCode::UnknownServerError, String::new());
        }
    };
    (code, error.to_string())
}

/// The code for a refused step of a transaction, and what its sender may read about it.
pub(super) fn transaction_error(error: &TransactionError) -> Refusal {
    let code = match error {
        TransactionError::UnknownId | TransactionError::UnknownProducer(_) => {
            ErrorCode::InvalidProducerIdMapping
        }
        TransactionError::Fenced(_) => ErrorCode::ProducerFenced,
        TransactionError::State(_) | TransactionError::NotTransactional => {
            ErrorCode::InvalidTxnState
        }
        TransactionError::NotAdded => ErrorCode::TransactionAbortable,
        TransactionError::NoId => ErrorCode::TransactionalIdAuthorizationFailed,
        TransactionError::InvalidId => ErrorCode::InvalidRequest,
        TransactionError::TooManyIds => ErrorCode::CoordinatorNotAvailable,
        TransactionError::TooManyOffsets => ErrorCode::InvalidCommitOffsetSize,
        // Producers look for the coordinator again, and ask again.
        TransactionError::Append(AppendError::Closed) => ErrorCode::CoordinatorNotAvailable,
        TransactionError::Append(error) => return append_error(error),
        other => {
            tracing::error!(error = %other, "a transaction was refused");
            return (ErrorCode::UnknownServerError, String::new());
        }
    };
    (code, error.to_string())
}

impl Admitted {
    /// Waits until every batch is durable or refused.
    pub(in super::super) async fn settle(self) -> Settled {
        let mut worst = None;
        let mut responses = Vec::with_capacity(self.topics.len());
        for topic in self.topics {
            let mut partition_responses = Vec::with_capacity(topic.partitions.len());
            for (index, outcome) in topic.partitions {
                let outcome = match outcome {
                    Ok(appending) => appending.await.map_err(Refused::from),
                    Err(refused) => Err(refused),
                };
                worst = worst.or(outcome.as_ref().err().map(|refused| refused.error));
                partition_responses.push(respond(index, self.version, outcome));
            }
            responses.push(TopicProduceResponse {
                name: topic.name,
                topic_id: topic.topic_id,
                partition_responses,
            });
        }
        match (self.acks, worst) {
            (0, None) => Settled::Silence,
            (0, Some(error)) => Settled::Refused(error),
            _ => Settled::Answer(ProduceResponse {
                responses,
                ..Default::default()
            }),
        }
    }
}

fn respond(
    index: i32,
    version: i16,
    outcome: Result<Appended, Refused>,
) -> PartitionProduceResponse {
    match outcome {
        Ok(appended) => PartitionProduceResponse {
            index,
            base_offset: appended.base_offset.value(),
            log_start_offset: appended.log_start_offset.value(),
            log_append_time_ms: appended
                .append_time_ms
                .map_or(-1, |ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            ..Default::default()
        },
        Err(refused) => {
            let error = for_version(refused.error, version);
            let message: Option<Str> =
                (!refused.message.is_empty()).then(|| refused.message.into());
            let fault = |index: &u32| BatchIndexAndErrorMessage {
                batch_index: i32::try_from(*index).unwrap_or(i32::MAX),
                batch_index_error_message: message.clone(),
            };
            PartitionProduceResponse {
                index,
                error_code: error.code(),
                base_offset: -1,
                record_errors: refused.records.iter().map(fault).collect(),
                error_message: message,
                ..Default::default()
            }
        }
    }
}

/// Clients that know it abort the transaction and go on where a partition was not added.
fn for_version(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::TransactionAbortable if version < ABORTABLE_SINCE_VERSION => {
            ErrorCode::InvalidTxnState
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    /// A header as `check_batch` reads it; the log judges the rest.
    fn batch(magic: u8, attributes: u16) -> Vec<u8> {
        let mut batch = vec![0; BATCH_HEADER_BYTES];
        batch[8..12].copy_from_slice(&((BATCH_HEADER_BYTES - 12) as u32).to_be_bytes());
        batch[MAGIC_AT] = magic;
        batch[RECORDS_AT + 3] = 1;
        batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
        batch
    }

    fn judge(batch: Vec<u8>, version: i16) -> ErrorCode {
        check_batch(&batch.into(), version)
            .err()
            .map_or(ErrorCode::None, |(code, _)| code)
    }

    #[test]
    fn one_batch_of_format_2_is_taken() {
        assert_eq!(judge(batch(2, 0), 3), ErrorCode::None);
    }

    #[test]
    fn other_formats_and_other_counts_are_refused() {
        assert_eq!(judge(Vec::new(), 9), ErrorCode::InvalidRecord);
        assert_eq!(judge(batch(0, 0), 9), ErrorCode::InvalidRecord);
        assert_eq!(judge(batch(1, 0), 9), ErrorCode::InvalidRecord);
        assert_eq!(judge(batch(3, 0), 9), ErrorCode::CorruptMessage);
        let two = [batch(2, 0), batch(2, 0)].concat();
        assert_eq!(judge(two, 9), ErrorCode::InvalidRecord);
    }

    #[test]
    fn a_batch_that_is_cut_or_empty_is_refused() {
        assert_eq!(
            judge(batch(2, 0)[..60].to_vec(), 9),
            ErrorCode::InvalidRecord
        );
        let mut longer = batch(2, 0);
        longer[11] += 1;
        assert_eq!(judge(longer, 9), ErrorCode::InvalidRecord);
        assert_eq!(judge(vec![0; 5], 9), ErrorCode::CorruptMessage);
        let mut empty = batch(2, 0);
        empty[RECORDS_AT + 3] = 0;
        assert_eq!(judge(empty, 9), ErrorCode::InvalidRecord);
    }

    #[test]
    fn zstandard_needs_version_7() {
        assert_eq!(judge(batch(2, 4), 6), ErrorCode::UnsupportedCompressionType);
        assert_eq!(judge(batch(2, 4), 7), ErrorCode::None);
    }
}

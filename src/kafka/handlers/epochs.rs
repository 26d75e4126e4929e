//! Leader epochs of offsets, and OffsetForLeaderEpoch (KIP-101, KIP-320).
//!
//! The epoch rises at every start of the node and is stamped on every batch, so it ascends with the
//! offsets and its bounds can be searched for in the batches themselves.

use std::sync::Arc;

use bytes::Buf;
use holdfast_storage::log::{FetchError, Isolation, Log, Offset, Partition};
use tokio::task::consume_budget;

use super::super::access::Operation;
use super::super::broker::{Asker, Broker, TopicRef, fetch_error};
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, OffsetForLeaderPartition,
    OffsetForLeaderPartitionResult, OffsetForLeaderTopicResult,
};

/// Kafka's mark for "no such epoch" and "no such offset".
pub(super) const UNDEFINED: i32 = -1;

/// One batch, as far as epochs are concerned.
struct Span {
    base: Offset,
    end: Offset,
    epoch: i32,
}

/// The batch that holds `at`, or else the next one.
fn span_at(log: &Log, partition: &Partition, at: Offset) -> Result<Option<Span>, FetchError> {
    if at >= partition.high_watermark() {
        return Ok(None);
    }
    let fetched = log.fetch(partition, at, 1, Isolation::Uncommitted)?;
    Ok(fetched.batches.first().and_then(|batch| {
        let base = Offset::new(batch.get(..8)?.get_i64())?;
        let epoch = batch.get(12..16)?.get_i32();
        let last_delta = batch.get(23..27)?.get_i32();
        let end = base.value().checked_add(i64::from(last_delta))?;
        Some(Span {
            base,
            end: Offset::new(end.checked_add(1)?)?,
            epoch,
        })
    }))
}

/// Epoch under which the record at `at` was written; -1 where there is none.
pub(super) fn epoch_of(log: &Log, partition: &Partition, at: Offset) -> Result<i32, FetchError> {
    Ok(span_at(log, partition, at)?.map_or(UNDEFINED, |span| span.epoch))
}

/// The largest epoch up to `epoch` that has records, and the offset after its last one.
fn search(log: &Log, partition: &Partition, epoch: i32) -> Result<(i32, Offset), FetchError> {
    let mut low = partition.log_start_offset();
    let mut high = partition.high_watermark();
    let mut floor = epoch;
    while low < high {
        let middle = low.plus(u32::try_from(high.since(low) / 2).unwrap_or(u32::MAX));
        match span_at(log, partition, middle)? {
            Some(span) if span.epoch <= epoch => {
                floor = span.epoch;
                low = span.end;
            }
            Some(span) => high = middle.min(span.base).max(low),
            None => high = middle,
        }
    }
    Ok((floor, low))
}

pub(super) async fn offset_for_leader_epoch(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let access = broker.access(asker);
    let is_broker = access.to_cluster(Operation::ClusterAction).is_ok();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let topic_ref = TopicRef::Name(topic.topic.clone());
        let allowed = match is_broker {
            true => Ok(()),
            false => access.to_topic(Operation::Describe, topic.topic.as_str()),
        };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            consume_budget().await;
            let found = match allowed {
                Ok(()) => find(broker, &topic_ref, &wanted).await,
                Err(error) => Err(error),
            };
            let (error, (leader_epoch, end_offset)) = match found {
                Ok(found) => (ErrorCode::None, found),
                Err(error) => (error, (UNDEFINED, i64::from(UNDEFINED))),
            };
            partitions.push(OffsetForLeaderPartitionResult {
                error_code: error.code(),
                partition: wanted.partition,
                leader_epoch,
                end_offset,
            });
        }
        topics.push(OffsetForLeaderTopicResult {
            topic: topic.topic,
            partitions,
        });
    }
    OffsetForLeaderEpochResponse {
        topics,
        ..Default::default()
    }
}

async fn find(
    broker: &Arc<Broker>,
    topic: &TopicRef,
    wanted: &OffsetForLeaderPartition,
) -> Result<(i32, i64), ErrorCode> {
    let partition = broker.partition(topic, wanted.partition)?;
    broker.check_epoch(wanted.current_leader_epoch)?;
    let end = end_of_epoch(broker, &partition, wanted.leader_epoch).await?;
    let undefined = (UNDEFINED, i64::from(UNDEFINED));
    Ok(end.map_or(undefined, |(epoch, end)| (epoch, end.value())))
}

/// The largest epoch up to `epoch`, and the offset after its last record; `None` where there cannot be such
/// an epoch.
pub(super) async fn end_of_epoch(
    broker: &Arc<Broker>,
    partition: &Arc<Partition>,
    epoch: i32,
) -> Result<Option<(i32, Offset)>, ErrorCode> {
    let current = broker.log.leader_epoch();
    if epoch < 0 || epoch > current {
        return Ok(None);
    }
    if epoch == current {
        return Ok(Some((current, partition.high_watermark())));
    }
    let partition = partition.clone();
    let found = broker
        .read(move |log| search(log, &partition, epoch))
        .await?;
    found.map(Some).map_err(|error| fetch_error(&error))
}

//! ListOffsets: where a partition begins and ends, and where a time is.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_storage::log::{FetchError, Log, Offset, Partition};
use tokio::task::consume_budget;

use super::super::access::Operation;
use super::super::broker::{Asker, Broker, TopicRef, fetch_error};
use super::super::protocol::messages::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use super::super::protocol::{ErrorCode, Str};
use super::epochs::{UNDEFINED, epoch_of};

/// What a negative "timestamp" asks for, and since which version.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: (i64, i16) = (-3, 7);
const EARLIEST_LOCAL: (i64, i16) = (-4, 8);
const LATEST_TIERED: (i64, i16) = (-5, 9);
const EARLIEST_PENDING_UPLOAD: (i64, i16) = (-6, 11);

const READ_UNCOMMITTED: i8 = 0;
const READ_COMMITTED: i8 = 1;

const NONE: i64 = -1;

/// A position: timestamp, offset, leader epoch; -1 each where there is none.
type Position = (i64, i64, i32);
const NOWHERE: Position = (NONE, NONE, -1);

pub(super) async fn list_offsets(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let is_committed = match request.isolation_level {
        READ_UNCOMMITTED => Ok(false),
        READ_COMMITTED => Ok(true),
        _ => Err(ErrorCode::InvalidRequest),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    // Names are hashed once for each topic: with thousands of partitions under a long one that adds up.
    let mut numbers: HashMap<Str, usize> = HashMap::new();
    let mut named: HashMap<(usize, i32), u32> = HashMap::new();
    for topic in &request.topics {
        let next = numbers.len();
        let number = *numbers.entry(topic.name.clone()).or_insert(next);
        for wanted in &topic.partitions {
            let place = (number, wanted.partition_index);
            *named.entry(place).or_default() += 1;
        }
    }
    for topic in request.topics {
        let number = numbers.get(&topic.name).copied().unwrap_or_default();
        let topic_ref = TopicRef::Name(topic.name.clone());
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            consume_budget().await;
            // As Kafka: one that is named twice is refused, once.
            let is_twice = match named.remove(&(number, wanted.partition_index)) {
                None => continue,
                Some(times) => times > 1,
            };
            let found = if is_twice {
                Err(ErrorCode::InvalidRequest)
            } else {
                match is_committed {
                    Ok(committed) => find(broker, asker, committed, &topic_ref, &wanted).await,
                    Err(error) => Err(error),
                }
            };
            let (error, (timestamp, offset, leader_epoch)) = match found {
                Ok(position) => (ErrorCode::None, position),
                Err(error) => (error, NOWHERE),
            };
            partitions.push(ListOffsetsPartitionResponse {
                partition_index: wanted.partition_index,
                error_code: error.code(),
                timestamp,
                offset,
                leader_epoch,
            });
        }
        if !partitions.is_empty() {
            topics.push(ListOffsetsTopicResponse {
                name: topic.name,
                partitions,
            });
        }
    }
    ListOffsetsResponse {
        topics,
        ..Default::default()
    }
}

async fn find(
    broker: &Arc<Broker>,
    asker: &Asker,
    is_committed: bool,
    topic: &TopicRef,
    wanted: &ListOffsetsPartition,
) -> Result<Position, ErrorCode> {
    let access = broker.access(asker);
    let partition = access.partition(Operation::Describe, topic, wanted.partition_index)?;
    broker.check_epoch(wanted.current_leader_epoch)?;
    let timestamp = wanted.timestamp;
    let since = |asked: (i64, i16)| timestamp == asked.0 && asker.version >= asked.1;
    let end = if is_committed {
        partition.last_stable_offset()
    } else {
        partition.high_watermark()
    };
    if timestamp == LATEST {
        return Ok((NONE, end.value(), broker.log.leader_epoch()));
    }
    if since(LATEST_TIERED) || since(EARLIEST_PENDING_UPLOAD) {
        // Nothing is stored elsewhere.
        return Ok(NOWHERE);
    }
    let earliest = timestamp == EARLIEST || since(EARLIEST_LOCAL);
    let largest = since(MAX_TIMESTAMP);
    if timestamp < 0 && !earliest && !largest {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let read = broker.read(move |log| {
        if earliest {
            first(log, &partition)
        } else if largest {
            place(log, &partition, log.max_timestamp(&partition)?, end)
        } else {
            let found = log.offset_for_time(&partition, timestamp)?;
            place(log, &partition, found, end)
        }
    });
    read.await?.map_err(|error| fetch_error(&error))
}

fn first(log: &Log, partition: &Partition) -> Result<Position, FetchError> {
    let start = partition.log_start_offset();
    let epoch = match epoch_of(log, partition, start)? {
        // Nothing is there yet: what comes has the current one.
        UNDEFINED => log.leader_epoch(),
        epoch => epoch,
    };
    Ok((NONE, start.value(), epoch))
}

fn place(
    log: &Log,
    partition: &Partition,
    found: Option<(Offset, i64)>,
    end: Offset,
) -> Result<Position, FetchError> {
    match found.filter(|(offset, _)| *offset < end) {
        Some((offset, timestamp)) => {
            Ok((timestamp, offset.value(), epoch_of(log, partition, offset)?))
        }
        None => Ok(NOWHERE),
    }
}

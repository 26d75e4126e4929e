//! Fetch: record batches out of the log, with a long poll.
//!
//! Sizes follow KIP-74: the first batch of the first partition that has one is always returned, over
//! any limit, so that a consumer cannot get stuck; after it the limits of the request, of each
//! partition and of this node hold. Fetch sessions are not kept: every answer is a full one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use holdfast_storage::log::{FetchError, Log, Offset, Partition};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::super::broker::{Asker, Broker, TopicRef, fetch_error};
use super::super::protocol::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use super::super::protocol::{ErrorCode, Records};
use super::Held;

/// Topics are named by id from here on (KIP-516).
const TOPIC_ID_SINCE_VERSION: i16 = 13;

/// Longest wait for records, whatever the request allows.
const WAIT_MAX: Duration = Duration::from_secs(300);

const READ_COMMITTED: i8 = 1;

pub(super) async fn fetch(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: FetchRequest,
    held: &mut Held,
) -> FetchResponse {
    if let Some(error) = session_error(&request) {
        return FetchResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let mut asked = resolve(broker, asker, &request);
    let limits = Limits::of(broker, &request);
    collect(broker, &mut asked, &limits, held).await;
    respond(request, asked)
}

/// Nobody can have a session here; whoever names one is told to begin anew (KIP-227).
fn session_error(request: &FetchRequest) -> Option<ErrorCode> {
    if request.session_id != 0 {
        return Some(ErrorCode::FetchSessionIdNotFound);
    }
    (request.session_epoch > 0).then_some(ErrorCode::InvalidFetchSessionEpoch)
}

struct Limits {
    bytes_min: usize,
    bytes_max: usize,
    deadline: Instant,
}

impl Limits {
    fn of(broker: &Broker, request: &FetchRequest) -> Limits {
        let bytes = |wire: i32| usize::try_from(wire).unwrap_or(0);
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let bytes_max = bytes(request.max_bytes).min(broker.config.fetch_bytes_max);
        Limits {
            bytes_min: bytes(request.min_bytes).min(bytes_max),
            bytes_max,
            deadline: Instant::now() + wait.min(WAIT_MAX),
        }
    }
}

/// A partition of the request and what was found in it so far.
struct Asked {
    partition: Result<Arc<Partition>, ErrorCode>,
    next: Offset,
    bytes_max: usize,
    batches: Vec<Bytes>,
    bytes: usize,
}

/// In the order of the request, which clients turn over so that every partition gets its turn.
fn resolve(broker: &Broker, asker: &Asker, request: &FetchRequest) -> Vec<Asked> {
    let by_id = asker.version >= TOPIC_ID_SINCE_VERSION;
    let mut asked = Vec::new();
    for topic in &request.topics {
        let topic_ref = TopicRef::new(by_id, &topic.topic, topic.topic_id);
        asked.extend(topic.partitions.iter().map(|partition| Asked {
            partition: find(broker, &topic_ref, partition),
            next: Offset::new(partition.fetch_offset).unwrap_or_default(),
            bytes_max: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
            batches: Vec::new(),
            bytes: 0,
        }));
    }
    asked
}

fn find(
    broker: &Broker,
    topic: &TopicRef,
    wanted: &FetchPartition,
) -> Result<Arc<Partition>, ErrorCode> {
    let partition = broker.partition(topic, wanted.partition)?;
    broker.check_epoch(wanted.current_leader_epoch)?;
    let from = Offset::new(wanted.fetch_offset).ok_or(ErrorCode::OffsetOutOfRange)?;
    let readable = partition.log_start_offset()..=partition.high_watermark();
    if readable.contains(&from) {
        Ok(partition)
    } else {
        Err(ErrorCode::OffsetOutOfRange)
    }
}

/// Reads until there is enough, something is wrong, or the time is up.
async fn collect(broker: &Arc<Broker>, asked: &mut [Asked], limits: &Limits, held: &mut Held) {
    let partitions: Vec<_> = asked
        .iter()
        .filter_map(|a| a.partition.clone().ok())
        .collect();
    // Made before the first read: what is appended in between wakes it.
    let mut watch = broker.log.watch(&partitions);
    loop {
        read_more(broker, asked, limits, held).await;
        let bytes = total(asked);
        let wrong = asked.iter().any(|a| a.partition.is_err());
        if wrong || asked.is_empty() || bytes >= limits.bytes_min {
            return;
        }
        tokio::select! {
            () = watch.appended() => {}
            () = tokio::time::sleep_until(limits.deadline) => return,
            () = broker.stop.cancelled() => return,
        }
    }
}

/// One partition's part of a read.
struct Want {
    at: usize,
    partition: Arc<Partition>,
    from: Offset,
    bytes_max: usize,
}

async fn read_more(broker: &Arc<Broker>, asked: &mut [Asked], limits: &Limits, held: &mut Held) {
    let bytes = total(asked);
    let wants: Vec<Want> = asked
        .iter()
        .enumerate()
        .filter_map(|(at, a)| a.want(at))
        .collect();
    if wants.is_empty() {
        return;
    }
    let room = broker.response_room(limits.bytes_max.saturating_sub(bytes));
    let left = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let read = broker
        .read(move |log| read_all(log, wants, left, bytes == 0))
        .await;
    match read {
        Ok(found) => {
            for (at, outcome) in found {
                if let Some(asked) = asked.get_mut(at) {
                    asked.take(outcome);
                }
            }
        }
        Err(error) => asked.iter_mut().for_each(|a| a.partition = Err(error)),
    }
    if let Some(room) = room {
        keep(held, room, total(asked) - bytes);
    }
}

fn total(asked: &[Asked]) -> usize {
    asked.iter().map(|a| a.bytes).sum()
}

/// Holds as much of the room as was used and gives the rest back.
fn keep(held: &mut Held, mut room: OwnedSemaphorePermit, used: usize) {
    let unused = room.num_permits().saturating_sub(used);
    drop(room.split(unused));
    match held {
        Some(held) => held.merge(room),
        None => *held = Some(room),
    }
}

type Found = (usize, Result<Vec<Bytes>, FetchError>);

/// `first`: nothing was found yet, so one batch may exceed the limits.
fn read_all(log: &Log, wants: Vec<Want>, mut left: usize, mut first: bool) -> Vec<Found> {
    let mut found = Vec::with_capacity(wants.len());
    for want in wants {
        let limit = want.bytes_max.min(left);
        if limit == 0 && !first {
            continue;
        }
        let outcome = log
            .fetch(&want.partition, want.from, limit)
            .map(|fetched| fetched.batches);
        let bytes: usize = outcome.iter().flatten().map(Bytes::len).sum();
        if bytes > limit && !first {
            continue;
        }
        first &= bytes == 0;
        left = left.saturating_sub(bytes);
        found.push((want.at, outcome));
    }
    found
}

impl Asked {
    /// What to read now; `None` where there is nothing new, which costs no trip to the disk.
    fn want(&self, at: usize) -> Option<Want> {
        let partition = self.partition.as_ref().ok()?;
        let room = self.bytes == 0 || self.bytes < self.bytes_max;
        (room && self.next < partition.high_watermark()).then(|| Want {
            at,
            partition: partition.clone(),
            from: self.next,
            bytes_max: self.bytes_max.saturating_sub(self.bytes),
        })
    }

    fn take(&mut self, outcome: Result<Vec<Bytes>, FetchError>) {
        match outcome {
            Ok(batches) => {
                self.bytes += batches.iter().map(Bytes::len).sum::<usize>();
                self.next = batches.last().and_then(end_of).unwrap_or(self.next);
                self.batches.extend(batches);
            }
            Err(error) => self.partition = Err(fetch_error(&error)),
        }
    }
}

/// The offset after a batch's last record.
pub(super) fn end_of(batch: &Bytes) -> Option<Offset> {
    let base = batch.get(..8)?.get_i64();
    let last_delta = batch.get(23..27)?.get_i32();
    Offset::new(base.checked_add(i64::from(last_delta))?.checked_add(1)?)
}

fn respond(request: FetchRequest, asked: Vec<Asked>) -> FetchResponse {
    let aborted_transactions = (request.isolation_level == READ_COMMITTED).then(Vec::new);
    let mut asked = asked.into_iter();
    let topics = request
        .topics
        .into_iter()
        .map(|topic| FetchableTopicResponse {
            topic: topic.topic,
            topic_id: topic.topic_id,
            partitions: topic
                .partitions
                .iter()
                .zip(&mut asked)
                .map(|(wanted, found)| PartitionData {
                    aborted_transactions: aborted_transactions.clone(),
                    ..describe(wanted.partition, found)
                })
                .collect(),
        });
    FetchResponse {
        responses: topics.collect(),
        ..Default::default()
    }
}

fn describe(partition_index: i32, asked: Asked) -> PartitionData {
    match asked.partition {
        Ok(partition) => {
            // Nothing above the high watermark is ever visible, and there are no transactions, so
            // the last stable offset is the same.
            let high_watermark = partition.high_watermark().value();
            PartitionData {
                partition_index,
                high_watermark,
                last_stable_offset: high_watermark,
                log_start_offset: partition.log_start_offset().value(),
                records: Some(Records::new(asked.batches)),
                ..Default::default()
            }
        }
        Err(error) => PartitionData {
            partition_index,
            error_code: error.code(),
            high_watermark: -1,
            ..Default::default()
        },
    }
}

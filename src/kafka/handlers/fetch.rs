//! Fetch: record batches out of the log, with a long poll.
//!
//! Sizes follow KIP-74: the first batch of the first partition that has one is always returned, over
//! any limit, so that a consumer cannot get stuck; after it the limits of the request, of each
//! partition and of this node hold. Fetch sessions are not kept: every answer is a full one.
//!
//! Long runs of batches are not read here: they go from the log's files to the socket when the answer is
//! sent ([`super::super::transmit`]).

use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::log::{FetchError, Located, Log, Offset, Partition};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::super::broker::{Asker, Broker, TopicRef, fetch_error};
use super::super::protocol::messages::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use super::super::protocol::{Chunk, ErrorCode, Records};
use super::Held;

/// Topics are named by id from here on (KIP-516).
const TOPIC_ID_SINCE_VERSION: i16 = 13;

/// Longest wait for records, whatever the request allows.
const WAIT_MAX: Duration = Duration::from_secs(300);

const READ_COMMITTED: i8 = 1;

/// A run of fewer bytes is read, and sent together with what stands around it: that costs less than a
/// system call of its own. Measured by whole answers: runs of 4 KiB cost the same either way, from 16 KiB
/// on the file takes half the processor time.
const SENT_FROM_FILE_BYTES_MIN: usize = 4 << 10;

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
    chunks: Vec<Chunk>,
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
            chunks: Vec::new(),
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
    let left = limits.bytes_max.saturating_sub(bytes);
    let room = broker.response_room(left);
    let memory = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
    let read = broker
        .read(move |log| read_all(log, wants, left, memory, bytes == 0))
        .await;
    let mut used = 0;
    match read {
        Ok(found) => {
            for (at, outcome) in found {
                if let Some(asked) = asked.get_mut(at) {
                    used += asked.take(outcome);
                }
            }
        }
        Err(error) => asked.iter_mut().for_each(|a| a.partition = Err(error)),
    }
    if let Some(room) = room {
        keep(held, room, used);
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

type Found = (usize, Result<Read, FetchError>);

/// What a read brought: batches, in memory or not, and where the next read begins.
struct Read {
    chunks: Vec<Chunk>,
    next: Offset,
}

/// `first`: nothing was found yet, so one batch may exceed the limits.
fn read_all(
    log: &Log,
    wants: Vec<Want>,
    mut left: usize,
    mut memory: usize,
    mut first: bool,
) -> Vec<Found> {
    let mut found = Vec::with_capacity(wants.len());
    for want in wants {
        let limit = want.bytes_max.min(left);
        if limit == 0 && !first {
            continue;
        }
        let located = match log.locate(&want.partition, want.from, limit) {
            Ok(located) => located,
            Err(error) => {
                found.push((want.at, Err(error)));
                continue;
            }
        };
        let bytes = located.bytes();
        if bytes > limit && !first {
            continue;
        }
        first &= bytes == 0;
        left = left.saturating_sub(bytes);
        found.push((want.at, read(located, &mut memory)));
    }
    found
}

/// Reads what is short and fits into `memory`; the rest is sent from where it lies.
fn read(located: Located, memory: &mut usize) -> Result<Read, FetchError> {
    let chunks = located.runs.into_iter().map(|run| {
        let short = run.bytes() < SENT_FROM_FILE_BYTES_MIN && run.bytes() <= *memory;
        if !short && run.file().is_some() {
            return Ok(Chunk::Stored(run));
        }
        *memory = memory.saturating_sub(run.bytes());
        run.read().map(Chunk::Memory)
    });
    Ok(Read {
        chunks: chunks.collect::<Result<_, _>>()?,
        next: located.next,
    })
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

    /// Bytes that it holds in memory now, in addition.
    fn take(&mut self, outcome: Result<Read, FetchError>) -> usize {
        match outcome {
            Ok(read) => {
                let bytes = |stored: bool| {
                    let chunks = read.chunks.iter();
                    let of_kind = chunks.filter(|chunk| chunk.is_stored() == stored);
                    of_kind.map(Chunk::len).sum::<usize>()
                };
                let in_memory = bytes(false);
                self.bytes += in_memory + bytes(true);
                self.next = read.next;
                self.chunks.extend(read.chunks);
                in_memory
            }
            Err(error) => {
                self.partition = Err(fetch_error(&error));
                0
            }
        }
    }
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
                records: Some(Records::new(asked.chunks)),
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

//! Fetch: record batches out of the log, with a long poll.
//!
//! Sizes follow KIP-74: the first batch of the first partition that has one is always returned, over
//! any limit, so that a consumer cannot get stuck; after it the limits of the request, of each
//! partition and of this node hold.
//!
//! Long runs of batches are not read here: they go from the log's files to the socket when the answer is
//! sent ([`super::super::transmit`]).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::log::{Aborted, FetchError, Isolation, Located, Log, Offset, Partition};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::consume_budget;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::access::{Access, Operation};
use super::super::broker::{Asker, Broker, TopicRef, fetch_error};
use super::super::fetch_sessions::{Told, Wanted};
use super::super::protocol::messages::{
    AbortedTransaction, EpochEndOffset, FetchRequest, FetchResponse, FetchableTopicResponse,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use super::super::protocol::{Chunk, ErrorCode, Records, Str};
use super::super::quotas::Quota;
use super::Held;
use super::epochs::end_of_epoch;

/// Topics are named by id from here on (KIP-516).
const TOPIC_ID_SINCE_VERSION: i16 = 13;

/// Longest wait for records, whatever the request allows.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Who asks the wrong leader, or one of an older epoch, is told the right one from here on (KIP-951).
const LEADER_SINCE_VERSION: i16 = 16;

const READ_UNCOMMITTED: i8 = 0;
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
    let access = broker.access(asker);
    let by_id = asker.version >= TOPIC_ID_SINCE_VERSION;
    let (fetching, wanted) = match broker.fetch_sessions.begin(&request, by_id) {
        Ok(begun) => begun,
        Err(error) => {
            return FetchResponse {
                error_code: error.code(),
                ..Default::default()
            };
        }
    };
    let mut asked = Vec::with_capacity(wanted.len());
    let mut ends = HashMap::new();
    for wanted in &wanted {
        consume_budget().await;
        asked.push(resolve(broker, &access, wanted, &mut ends).await);
    }
    let limits = Limits::of(broker, &request);
    if !matches!(request.isolation_level, READ_UNCOMMITTED | READ_COMMITTED) {
        let refused = |a: &mut Asked| a.partition = Err(ErrorCode::InvalidRequest);
        asked.iter_mut().for_each(refused);
    }
    if is_replica(&request) {
        let error = match access.to_cluster(Operation::ClusterAction) {
            Ok(()) => ErrorCode::NotLeaderOrFollower,
            Err(_) => ErrorCode::TopicAuthorizationFailed,
        };
        asked.iter_mut().for_each(|a| a.partition = Err(error));
    }
    // Who has had too much is told so, with nothing.
    if !broker.is_over(Quota::Fetch, asker) {
        collect(broker, &mut asked, &limits, held).await;
    }
    let mut found: Vec<PartitionData> = wanted
        .iter()
        .zip(asked)
        .map(|(wanted, asked)| describe(wanted.index, asked, limits.isolation))
        .collect();
    let node_endpoints = if asker.version >= LEADER_SINCE_VERSION {
        name_leader(broker, asker, &mut found)
    } else {
        Vec::new()
    };
    let told: Vec<Told> = found.iter().map(told).collect();
    let (session_id, places) = broker.fetch_sessions.end(fetching, &wanted, &told);
    FetchResponse {
        session_id,
        responses: by_topic(&wanted, found, &places),
        node_endpoints,
        ..Default::default()
    }
}

/// Tells those who were refused for the leader or its epoch which it is, and where.
fn name_leader(broker: &Broker, asker: &Asker, found: &mut [PartitionData]) -> Vec<NodeEndpoint> {
    let is_about_leader = |partition: &&mut PartitionData| {
        let error = ErrorCode(partition.error_code);
        matches!(
            error,
            ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
        )
    };
    let mut endpoints = Vec::new();
    for partition in found.iter_mut().filter(is_about_leader) {
        partition.current_leader = LeaderIdAndEpoch {
            leader_id: broker.node_id(),
            leader_epoch: broker.log.leader_epoch(),
        };
        if endpoints.is_empty() {
            let (host, port) = broker.address_for(asker);
            endpoints.push(NodeEndpoint {
                node_id: broker.node_id(),
                host: host.into(),
                port,
                rack: None,
            });
        }
    }
    endpoints
}

/// Nobody replicates from here: there is one broker.
fn is_replica(request: &FetchRequest) -> bool {
    request.replica_id >= 0 || request.replica_state.replica_id >= 0
}

struct Limits {
    isolation: Isolation,
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
            isolation: match request.isolation_level {
                READ_COMMITTED => Isolation::Committed,
                _ => Isolation::Uncommitted,
            },
            bytes_min: bytes(request.min_bytes).min(bytes_max),
            bytes_max,
            deadline: Instant::now() + wait.min(WAIT_MAX),
        }
    }
}

/// A partition of the request and what was found in it so far.
struct Asked {
    partition: Result<Arc<Partition>, ErrorCode>,
    from: Offset,
    next: Offset,
    bytes_max: usize,
    chunks: Vec<Chunk>,
    bytes: usize,
    aborted: Vec<Aborted>,
    /// Where the client's records part from those here (KIP-595); it is sent none until it has gone back.
    diverging: Option<(i32, Offset)>,
}

/// Where epochs end, as far as a request has asked.
type Ends = HashMap<(TopicRef, i32, i32), Option<(i32, Offset)>>;

async fn resolve(
    broker: &Arc<Broker>,
    access: &Access<'_>,
    wanted: &Wanted,
    ends: &mut Ends,
) -> Asked {
    let from = Offset::new(wanted.offset).unwrap_or_default();
    let found = find(broker, access, wanted, ends).await;
    let (partition, diverging) = match found {
        Ok((partition, diverging)) => (Ok(partition), diverging),
        Err(error) => (Err(error), None),
    };
    Asked {
        partition,
        diverging,
        from,
        next: from,
        bytes_max: usize::try_from(wanted.bytes_max).unwrap_or(0),
        chunks: Vec::new(),
        bytes: 0,
        aborted: Vec::new(),
    }
}

type Readable = (Arc<Partition>, Option<(i32, Offset)>);

async fn find(
    broker: &Arc<Broker>,
    access: &Access<'_>,
    wanted: &Wanted,
    ends: &mut Ends,
) -> Result<Readable, ErrorCode> {
    let partition = access.partition(Operation::Read, &wanted.topic, wanted.index)?;
    broker.check_epoch(wanted.leader_epoch)?;
    let from = Offset::new(wanted.offset).ok_or(ErrorCode::OffsetOutOfRange)?;
    if wanted.last_fetched_epoch >= 0 {
        let epoch = wanted.last_fetched_epoch;
        let asked = (wanted.topic.clone(), wanted.index, epoch);
        let end = match ends.get(&asked) {
            Some(end) => *end,
            None => {
                let end = end_of_epoch(broker, &partition, epoch).await?;
                *ends.entry(asked).or_insert(end)
            }
        };
        let (epoch, end) = end.ok_or(ErrorCode::OffsetOutOfRange)?;
        if epoch < wanted.last_fetched_epoch || end < from {
            return Ok((partition, Some((epoch, end))));
        }
    }
    let readable = partition.log_start_offset()..=partition.high_watermark();
    if readable.contains(&from) {
        Ok((partition, None))
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
        let wrong = |a: &Asked| a.partition.is_err() || a.diverging.is_some();
        let wrong = asked.iter().any(wrong);
        if wrong || asked.is_empty() || bytes >= limits.bytes_min {
            return;
        }
        tokio::select! {
            () = watch.appended() => {}
            () = tokio::time::sleep_until(limits.deadline) => return,
            () = broker.stop.cancelled() => return,
        }
        if limits.isolation == Isolation::Committed {
            // What compaction removes of aborted transactions between two reads must not be missing in
            // one answer, so it is read at once.
            asked.iter_mut().for_each(Asked::begin_again);
            *held = None;
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
        .filter_map(|(at, a)| a.want(at, limits.isolation))
        .collect();
    if wants.is_empty() {
        return;
    }
    let left = limits.bytes_max.saturating_sub(bytes);
    let (memory, isolation) = (broker.response_bytes(), limits.isolation);
    let read = broker
        .read(move |log| read_all(log, wants, left, isolation, &memory, bytes == 0))
        .await;
    match read {
        Ok(found) => {
            for (at, outcome) in found {
                if let Some(asked) = asked.get_mut(at) {
                    asked.take(outcome, held);
                }
            }
        }
        Err(error) => asked.iter_mut().for_each(|a| a.partition = Err(error)),
    }
}

fn total(asked: &[Asked]) -> usize {
    asked.iter().map(|a| a.bytes).sum()
}

/// Adds to what an answer holds of the room.
fn keep(held: &mut Held, room: OwnedSemaphorePermit) {
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
    aborted: Vec<Aborted>,
    /// What the batches in memory take of the room.
    room: Held,
}

/// `first`: nothing was found yet, so one batch may exceed the limits.
fn read_all(
    log: &Log,
    wants: Vec<Want>,
    mut left: usize,
    isolation: Isolation,
    memory: &Arc<Semaphore>,
    mut first: bool,
) -> Vec<Found> {
    let mut found = Vec::with_capacity(wants.len());
    for want in wants {
        let limit = want.bytes_max.min(left);
        if limit == 0 && !first {
            continue;
        }
        let located = match log.locate(&want.partition, want.from, limit, isolation) {
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
        found.push((want.at, read(located, memory)));
    }
    found
}

/// Reads what is short and has room in `memory`; the rest is sent from where it lies.
fn read(located: Located, memory: &Arc<Semaphore>) -> Result<Read, FetchError> {
    let mut room = None;
    let chunks = located.runs.into_iter().map(|run| {
        let is_short = run.bytes() < SENT_FROM_FILE_BYTES_MIN;
        let has_room = is_short && take_room(memory, run.bytes(), &mut room);
        if !has_room && run.file().is_some() {
            return Ok(Chunk::Stored(run));
        }
        run.read().map(Chunk::Memory)
    });
    Ok(Read {
        chunks: chunks.collect::<Result<_, _>>()?,
        next: located.next,
        aborted: located.aborted,
        room,
    })
}

fn take_room(memory: &Arc<Semaphore>, bytes: usize, room: &mut Held) -> bool {
    let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
    match memory.clone().try_acquire_many_owned(permits) {
        Ok(permit) => {
            keep(room, permit);
            true
        }
        Err(_) => false,
    }
}

impl Asked {
    /// What to read now; `None` where there is nothing new, which costs no trip to the disk.
    fn want(&self, at: usize, isolation: Isolation) -> Option<Want> {
        let partition = self.partition.as_ref().ok()?;
        if self.diverging.is_some() {
            return None;
        }
        let room = self.bytes == 0 || self.bytes < self.bytes_max;
        let end = match isolation {
            Isolation::Uncommitted => partition.high_watermark(),
            Isolation::Committed => partition.last_stable_offset(),
        };
        (room && self.next < end).then(|| Want {
            at,
            partition: partition.clone(),
            from: self.next,
            bytes_max: self.bytes_max.saturating_sub(self.bytes),
        })
    }

    fn begin_again(&mut self) {
        self.next = self.from;
        self.bytes = 0;
        self.chunks.clear();
        self.aborted.clear();
    }

    fn take(&mut self, outcome: Result<Read, FetchError>, held: &mut Held) {
        match outcome {
            Ok(read) => {
                self.bytes += read.chunks.iter().map(Chunk::len).sum::<usize>();
                self.next = read.next;
                self.aborted.extend(read.aborted);
                self.chunks.extend(read.chunks);
                if let Some(room) = read.room {
                    keep(held, room);
                }
            }
            Err(error) => self.partition = Err(fetch_error(&error)),
        }
    }
}

fn told(found: &PartitionData) -> Told {
    Told {
        has_records: found
            .records
            .as_ref()
            .is_some_and(|records| !records.is_empty()),
        error: ErrorCode(found.error_code),
        is_diverging: found.diverging_epoch.epoch >= 0,
        high_watermark: found.high_watermark,
        log_start: found.log_start_offset,
    }
}

/// The partitions at these places, one entry for those of a topic that follow each other.
fn by_topic(
    wanted: &[Wanted],
    found: Vec<PartitionData>,
    places: &[usize],
) -> Vec<FetchableTopicResponse> {
    let mut found: Vec<Option<PartitionData>> = found.into_iter().map(Some).collect();
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    let mut last: Option<&TopicRef> = None;
    for &place in places {
        let partition = found.get_mut(place).and_then(Option::take);
        let (Some(partition), Some(wanted)) = (partition, wanted.get(place)) else {
            continue;
        };
        if last != Some(&wanted.topic) {
            last = Some(&wanted.topic);
            let (topic, topic_id) = match &wanted.topic {
                TopicRef::Name(name) => (name.clone(), Uuid::nil()),
                TopicRef::Id(id) => (Str::default(), *id),
            };
            topics.push(FetchableTopicResponse {
                topic,
                topic_id,
                partitions: Vec::new(),
            });
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(partition);
        }
    }
    topics
}

fn describe(partition_index: i32, asked: Asked, isolation: Isolation) -> PartitionData {
    let transaction = |aborted: &Aborted| AbortedTransaction {
        producer_id: aborted.producer_id,
        first_offset: aborted.first.value(),
    };
    let aborted = asked.aborted.iter().map(transaction);
    let aborted_transactions = (isolation == Isolation::Committed).then(|| aborted.collect());
    match asked.partition {
        Ok(partition) => {
            // Read first: it never lies behind the high watermark.
            let last_stable_offset = partition.last_stable_offset().value();
            PartitionData {
                partition_index,
                high_watermark: partition.high_watermark().value(),
                last_stable_offset,
                log_start_offset: partition.log_start_offset().value(),
                diverging_epoch: asked
                    .diverging
                    .map_or_else(Default::default, |(epoch, end)| EpochEndOffset {
                        epoch,
                        end_offset: end.value(),
                    }),
                aborted_transactions,
                records: Some(Records::new(asked.chunks)),
                ..Default::default()
            }
        }
        Err(error) => PartitionData {
            partition_index,
            error_code: error.code(),
            high_watermark: -1,
            aborted_transactions,
            ..Default::default()
        },
    }
}

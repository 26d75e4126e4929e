//! The event log as a pipeline sees it: produce, poll, commit.
//!
//! **Owns** the interface ([`EventLog`], [`Consumer`]) and its embedded implementation over
//! [`Log`]. **May not know** any pipeline. The terms are Kafka's and nothing here is wider than
//! what a Kafka client library offers, so that the same pipelines can run over a cluster: there
//! the node is a gateway and its pipelines are ordinary group members.
//!
//! A consumer's position belongs to the pipeline's store, which commits it together with the rows
//! it stands for; [`EventLog::commit`] only mirrors it to the group coordinator for whoever
//! watches lag.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::batch::{self, BatchHeader};
use holdfast_storage::log::{
    AppendError, CommittedOffset, CreateTopicError, FetchError, Isolation, Log, NewTopic, Offset,
    OffsetCommit, Partition, Record, Topic, TopicId, Watch, is_aborted,
};
use holdfast_storage::telemetry::Position;

/// Decoded bytes after which a poll takes no further batch: a small compressed batch may unpack to
/// a thousand times its size.
const DECODED_BYTES_MAX: usize = 16 << 20;
/// How often an idle consumer looks whether its topic was deleted or recreated.
const IDENTITY_CHECK: Duration = Duration::from_secs(1);

/// Why the event log could not do what was asked.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventLogError {
    /// May pass; ask again later.
    #[error("{0}")]
    Storage(String),
    /// The topic was deleted, and perhaps recreated under another id: make a new consumer.
    #[error("topic {0:?} is not the topic it was")]
    TopicChanged(String),
    /// The store is ahead of the log: a log restored from an old copy, or the wrong data directory.
    #[error(
        "the store wants offset {wanted} of {topic}-{partition}, but the log ends at {end}: it is not the log this store was filled from"
    )]
    BehindStore {
        topic: String,
        partition: i32,
        wanted: Offset,
        end: Offset,
    },
    /// The log takes no more requests.
    #[error("the log is closed")]
    Closed,
    /// The request can never succeed.
    #[error("{0}")]
    Refused(String),
}

/// A topic's identity and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    pub id: TopicId,
    pub partitions: i32,
}

/// A record on its way to one partition.
#[derive(Debug, Clone)]
pub struct Produce {
    pub topic: &'static str,
    pub partition: i32,
    pub record: Record,
}

/// What one poll found, in offset order within each partition.
#[derive(Debug, Default)]
pub struct Polled {
    pub records: Vec<(Position, Record)>,
    /// Batches that are in the log but cannot be decoded.
    pub corrupt: Vec<CorruptBatch>,
    /// Records that retention removed before they were read.
    pub lost: u64,
    /// Offsets without a record: compaction, or damage that the log reports itself.
    pub gaps: u64,
    /// Roughly what the records hold in memory.
    decoded_bytes: usize,
    /// Where every partition that moved stands now: the offsets to commit with the rows.
    pub next: Vec<Position>,
}

/// A batch whose records cannot be read; the consumer goes on behind it.
#[derive(Debug, Clone)]
pub struct CorruptBatch {
    pub at: Position,
    pub bytes: Bytes,
    pub reason: String,
}

/// The log, for producing and for administration.
pub trait EventLog: Clone + Send + Sync + 'static {
    type Consumer: Consumer;

    /// Creates the topic if it is absent.
    fn ensure_topic(
        &self,
        name: &str,
        partitions: u32,
    ) -> impl Future<Output = Result<TopicInfo, EventLogError>> + Send;

    /// The partition that a key belongs to (Kafka's default partitioner).
    fn partition_for(&self, topic: &str, key: &[u8]) -> Result<i32, EventLogError>;

    /// How many partitions a topic has.
    fn partitions(&self, topic: &str) -> Result<i32, EventLogError>;

    /// Offset after the newest durable record of every partition, committed or not.
    fn end_offsets(&self, topic: &str) -> Result<Vec<Position>, EventLogError>;

    /// Returns when every record is durable, with their positions in order.
    fn produce(
        &self,
        records: Vec<Produce>,
    ) -> impl Future<Output = Result<Vec<Position>, EventLogError>> + Send;

    /// Reads every partition of a topic from where `start` says, else from its beginning.
    fn consumer(
        &self,
        topic: &str,
        start: impl Fn(TopicId, i32) -> Option<Offset>,
    ) -> Result<Self::Consumer, EventLogError>;

    /// Mirrors positions to the group coordinator.
    fn commit(
        &self,
        group: &str,
        next: &[Position],
    ) -> impl Future<Output = Result<(), EventLogError>> + Send;
}

/// A reader with a position in every partition of one topic.
pub trait Consumer: Send + 'static {
    /// Waits until there is something, then returns at least one record, corrupt batch or moved
    /// position; stops reading on when `records_max` is reached, so it may return up to
    /// `bytes_max` of batches more. After an error the positions are as before.
    fn poll(
        &mut self,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Polled, EventLogError>> + Send;
}

/// The event log inside this process.
#[derive(Clone)]
pub struct EmbeddedLog {
    log: Log,
}

impl EmbeddedLog {
    pub fn new(log: Log) -> EmbeddedLog {
        EmbeddedLog { log }
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, EventLogError> {
        self.log
            .topic(name)
            .ok_or_else(|| EventLogError::TopicChanged(name.to_owned()))
    }
}

impl EventLog for EmbeddedLog {
    type Consumer = EmbeddedConsumer;

    async fn ensure_topic(&self, name: &str, partitions: u32) -> Result<TopicInfo, EventLogError> {
        let topic = match self.log.topic(name) {
            Some(topic) => topic,
            None => {
                let new = NewTopic {
                    name: name.to_owned(),
                    partitions,
                    configs: Vec::new(),
                };
                match self.log.create_topic(new).await {
                    Ok(topic) => topic,
                    // Somebody else made it in the meantime.
                    Err(CreateTopicError::Exists(_)) => self.topic(name)?,
                    Err(CreateTopicError::Append(error)) => return Err(error.into()),
                    Err(error) => return Err(EventLogError::Refused(error.to_string())),
                }
            }
        };
        Ok(TopicInfo {
            id: topic.id(),
            partitions: partitions_of(&topic),
        })
    }

    fn partition_for(&self, topic: &str, key: &[u8]) -> Result<i32, EventLogError> {
        Ok(self.topic(topic)?.partition_for(Some(key)).index())
    }

    fn partitions(&self, topic: &str) -> Result<i32, EventLogError> {
        Ok(partitions_of(self.topic(topic)?.as_ref()))
    }

    fn end_offsets(&self, topic: &str) -> Result<Vec<Position>, EventLogError> {
        let topic = self.topic(topic)?;
        Ok(topic
            .partitions()
            .iter()
            .map(|partition| position(partition, partition.high_watermark()))
            .collect())
    }

    async fn produce(&self, records: Vec<Produce>) -> Result<Vec<Position>, EventLogError> {
        let mut topics: BTreeMap<&'static str, Arc<Topic>> = BTreeMap::new();
        let mut placed = Vec::with_capacity(records.len());
        for produce in records {
            let topic = match topics.get(produce.topic) {
                Some(topic) => topic,
                None => topics
                    .entry(produce.topic)
                    .or_insert(self.topic(produce.topic)?),
            };
            let partition = topic.partition(produce.partition).ok_or_else(|| {
                EventLogError::Refused(format!(
                    "{} has no partition {}",
                    produce.topic, produce.partition
                ))
            })?;
            placed.push((Arc::clone(partition), produce.record));
        }
        let partitions: Vec<Arc<Partition>> = placed
            .iter()
            .map(|(partition, _)| Arc::clone(partition))
            .collect();
        let offsets = if placed.is_empty() {
            Vec::new()
        } else {
            self.log.append_all(placed).await?.await?
        };
        Ok(partitions
            .iter()
            .zip(offsets)
            .map(|(partition, offset)| position(partition, offset))
            .collect())
    }

    fn consumer(
        &self,
        topic: &str,
        start: impl Fn(TopicId, i32) -> Option<Offset>,
    ) -> Result<EmbeddedConsumer, EventLogError> {
        let topic = self.topic(topic)?;
        // The watch is made before the first read, so that no append between them is missed.
        let watch = self.log.watch(topic.partitions());
        let next = topic
            .partitions()
            .iter()
            .map(|partition| {
                start(topic.id(), partition.index()).unwrap_or_else(|| partition.log_start_offset())
            })
            .collect();
        Ok(EmbeddedConsumer {
            log: self.log.clone(),
            topic,
            watch,
            next,
            turn: 0,
        })
    }

    async fn commit(&self, group: &str, next: &[Position]) -> Result<(), EventLogError> {
        let leader_epoch = self.log.leader_epoch();
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let commits = next.iter().map(|at| OffsetCommit {
            topic: at.topic_id,
            partition: at.partition,
            committed: CommittedOffset {
                offset: at.offset.value(),
                leader_epoch,
                metadata: String::new(),
                commit_timestamp_ms: now_ms,
            },
        });
        Ok(self.log.commit_offsets(group, commits.collect()).await?)
    }
}

fn partitions_of(topic: &Topic) -> i32 {
    i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX)
}

fn position(partition: &Partition, offset: Offset) -> Position {
    Position {
        topic_id: partition.topic_id(),
        partition: partition.index(),
        offset,
    }
}

impl From<AppendError> for EventLogError {
    fn from(error: AppendError) -> EventLogError {
        match error {
            AppendError::Closed => EventLogError::Closed,
            AppendError::Deleted => EventLogError::TopicChanged("a topic written to".to_owned()),
            AppendError::Storage(reason) => EventLogError::Storage(reason),
            other => EventLogError::Refused(other.to_string()),
        }
    }
}

/// Reads the log of this process.
pub struct EmbeddedConsumer {
    log: Log,
    topic: Arc<Topic>,
    watch: Watch,
    /// Next offset wanted, by partition.
    next: Vec<Offset>,
    /// The partition that is read first, so that a busy one does not starve the others.
    turn: usize,
}

impl Consumer for EmbeddedConsumer {
    async fn poll(
        &mut self,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Polled, EventLogError> {
        loop {
            let current = self.log.topic(self.topic.name());
            let Some(current) = current.filter(|current| current.id() == self.topic.id()) else {
                return Err(EventLogError::TopicChanged(self.topic.name().to_owned()));
            };
            self.take_new_partitions(current);
            let polled = self.read(records_max, bytes_max).await?;
            if !polled.next.is_empty() {
                return Ok(polled);
            }
            // Either something was appended, or it is time to look at the topic's identity again.
            let _ = tokio::time::timeout(IDENTITY_CHECK, self.watch.appended()).await;
        }
    }
}

impl EmbeddedConsumer {
    /// A topic may get more partitions; each is read from its beginning.
    fn take_new_partitions(&mut self, current: Arc<Topic>) {
        if current.partitions().len() == self.next.len() {
            return;
        }
        self.watch = self.log.watch(current.partitions());
        let new = current.partitions().iter().skip(self.next.len());
        self.next
            .extend(new.map(|partition| partition.log_start_offset()));
        self.topic = current;
    }

    async fn read(
        &mut self,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Polled, EventLogError> {
        let count = self.next.len();
        let behind = self
            .topic
            .partitions()
            .iter()
            .zip(&self.next)
            .any(|(partition, next)| partition.last_stable_offset() != *next);
        if count == 0 || !behind {
            return Ok(Polled::default());
        }
        let (log, topic, from) = (self.log.clone(), Arc::clone(&self.topic), self.next.clone());
        let turn = self.turn;
        let read = move || {
            let mut polled = Polled::default();
            let order = (turn..count).chain(0..turn);
            for index in order {
                if polled.records.len() >= records_max || polled.decoded_bytes >= DECODED_BYTES_MAX
                {
                    break;
                }
                if let (Some(partition), Some(next)) =
                    (topic.partitions().get(index), from.get(index))
                {
                    read_partition(&log, partition, *next, bytes_max, &mut polled)?;
                }
            }
            Ok::<Polled, EventLogError>(polled)
        };
        let polled = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| EventLogError::Storage(error.to_string()))??;
        for at in &polled.next {
            if let Some(next) = usize::try_from(at.partition)
                .ok()
                .and_then(|index| self.next.get_mut(index))
            {
                *next = at.offset;
            }
        }
        self.turn = (self.turn + 1) % count;
        Ok(polled)
    }
}

/// Reads one partition once; blocks on the disk.
fn read_partition(
    log: &Log,
    partition: &Partition,
    wanted: Offset,
    bytes_max: usize,
    polled: &mut Polled,
) -> Result<(), EventLogError> {
    let end = partition.high_watermark();
    if wanted > end {
        return Err(EventLogError::BehindStore {
            topic: partition.topic_name().to_owned(),
            partition: partition.index(),
            wanted,
            end,
        });
    }
    let end = partition.last_stable_offset();
    let from = wanted.max(partition.log_start_offset());
    polled.lost += from.since(wanted);
    if from >= end {
        if from > wanted {
            polled.next.push(position(partition, from));
        }
        return Ok(());
    }
    let fetched = log
        .fetch(partition, from, bytes_max, Isolation::Committed)
        .map_err(storage)?;
    let mut next = from;
    'batches: for run in &fetched.batches {
        for item in batch::split(run) {
            let (header, bytes) = item.map_err(EventLogError::Storage)?;
            if header.is_control() || is_aborted(&header, &fetched.aborted) {
                let base = Offset::new(header.base_offset).unwrap_or(next);
                next = header.end_offset(base).max(next);
                continue;
            }
            next = polled.take(partition, next, &header, bytes);
            if polled.decoded_bytes >= DECODED_BYTES_MAX {
                break 'batches;
            }
        }
    }
    if next == from {
        // No batch covers what lies below.
        polled.gaps += end.since(from);
        next = end;
    }
    polled.next.push(position(partition, next));
    Ok(())
}

fn storage(error: FetchError) -> EventLogError {
    EventLogError::Storage(error.to_string())
}

impl Polled {
    /// Adds the records of one batch from `from` on and returns the offset after the batch.
    fn take(
        &mut self,
        partition: &Partition,
        from: Offset,
        header: &BatchHeader,
        bytes: Bytes,
    ) -> Offset {
        let base = Offset::new(header.base_offset).unwrap_or(from);
        let end = header.end_offset(base).max(from);
        match batch::records(header, &bytes) {
            Ok(records) => {
                let before = self.records.len();
                for stored in records.into_iter().filter(|stored| stored.offset >= from) {
                    self.decoded_bytes += decoded_bytes(&stored.record);
                    self.records
                        .push((position(partition, stored.offset), stored.record));
                }
                let taken = u64::try_from(self.records.len() - before).unwrap_or(u64::MAX);
                self.gaps += end.since(from).saturating_sub(taken);
            }
            // The bytes were read, so no other attempt will do better, and what follows must not wait.
            Err(reason) => {
                let at = position(partition, from.max(base));
                self.decoded_bytes += bytes.len();
                self.corrupt.push(CorruptBatch { at, bytes, reason });
            }
        }
        end
    }
}

/// Roughly what a decoded record holds in memory.
fn decoded_bytes(record: &Record) -> usize {
    let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|header| header.name.len() + part(&header.value))
        .sum();
    size_of::<Record>() + part(&record.key) + part(&record.value) + headers
}

//! The log: topics, partitions and offsets over the wal, and the one commit point of the node.
//!
//! It is an LSM tree with key-value separation. The wal is the journal and the value log; the batch
//! positions of unsealed segments, in memory per partition, are the memtable; sealing a segment
//! ingests them in bulk into fjall. Record batches are stored as Kafka clients sent them, once.
//!
//! Modules: [`batch`] and [`compression`] know Kafka's record batch; `submission` is what callers hand
//! in to the `sequencer`, the commit point on the wal's writer thread; `sealer` moves full segments to
//! the `index`; `fetch` reads; `cleaner` is retention and compaction and gives space back ([`retain`]: a
//! batch without some of its records), `space` refuses appends on a disk that is full or cannot be
//! written; `open` recovers; [`doctor`] looks a stopped log through; `state` and `values` are topics,
//! settings and group offsets, kept as records of internal partitions; `memory` is the budget of all of
//! them; `footer` is the on-disk format of a sealed segment's footer.
//!
//! Data directory: `segments/` (the truth), `index/` (a cache of it that may be deleted), `LOCK`.

pub mod batch;
mod cleaner;
pub mod compression;
pub mod doctor;
mod error;
mod fetch;
mod footer;
mod group;
mod index;
mod memory;
pub mod murmur2;
mod open;
mod options;
mod partition;
mod producers;
pub mod retain;
mod room;
mod sealer;
mod segments;
mod sequencer;
mod space;
mod stable;
mod state;
mod stats;
mod submission;
mod topic;
mod transactions;
mod types;
mod values;
mod watch;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use holdfast_wal::disk::Disk;
use holdfast_wal::{GroupCommit, SegmentId, Submitter};
use smallvec::SmallVec;
use tokio::sync::oneshot;
use uuid::Uuid;

pub use self::error::{
    AppendError, ChangeTopicError, CreateTopicError, DeleteRecordsError, DeleteTopicError,
    FetchError, OpenError, RecordFault, TransactionError,
};
pub use self::fetch::{Fetched, Located, Run};
pub use self::memory::MEMORY_BYTES_MIN;
pub use self::options::LogOptions;
pub use self::partition::Partition;
pub use self::stable::{Aborted, AbortedFilter, Isolation, is_aborted};
pub use self::stats::{LogState, LogStats};
pub use self::submission::{Appended, Appending, AppendingAll, InTransaction};
pub use self::topic::{
    BYTES_MAX, DURABILITY, PARTITIONS_MAX, Retention, TOPIC_NAME_BYTES_MAX, Topic,
};
pub use self::transactions::{
    Outcome, ProducerIdentity, TRANSACTIONAL_ID_BYTES_MAX, TransactionState,
};
pub use self::types::{
    Clock, CommittedOffset, Header, NewTopic, Offset, PartitionId, ProducerId, Record,
    StoredRecord, TopicId,
};
pub use self::watch::Watch;
pub use holdfast_wal::recovery::Damage;

use self::batch::{BatchHeader, EncodedRecords};
use self::cleaner::Space;
use self::memory::Memory;
use self::room::Room;
use self::segments::Segments;
use self::sequencer::{Counters, Sequencer, SequencerParts};
use self::space::SpaceGuard;
use self::state::{FIRST_PARTITION, METADATA, OFFSETS, State};
use self::submission::{GATHERED_BYTES_MAX, Gathering, Pair, Step, Submission, TopicChange, Work};
pub use self::values::TransactionValue;
use self::values::{Key, NodeValue};

/// Handle on the log; clones share it.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    state: Arc<State>,
    reader: Arc<fetch::Reader>,
    submitter: Submitter<Submission>,
    commit: GroupCommit<Sequencer>,
    sealer: Mutex<Option<JoinHandle<()>>>,
    cleaner: Mutex<Option<JoinHandle<()>>>,
    cleaning: Sender<cleaner::Event>,
    space: Arc<Space>,
    guard: Arc<SpaceGuard>,
    room: Arc<Room>,
    /// Ongoing transactions: when they began by the clock, and when they were first seen.
    ongoing: Mutex<HashMap<String, (u64, Instant)>>,
    submission_bytes_max: usize,
    batch_bytes_max: usize,
    memory_bytes: u64,
    retention: Retention,
    directory: PathBuf,
    clock: Clock,
    counters: Arc<Counters>,
    leader_epoch: i32,
    cluster_id: Uuid,
    damage: Vec<Damage>,
    // Held, not used: the data directory is ours while this lives.
    _lock: File,
}

impl Inner {
    fn close(&self) {
        self.state.close();
        self.room.close();
        let mut sealer = self.sealer.lock().unwrap_or_else(PoisonError::into_inner);
        let sealer = sealer.take();
        if let Some(sealer) = &sealer {
            // It may be waiting to try again, with the writer waiting behind it.
            sealer.thread().unpark();
        }
        let _ = self.cleaning.send(cleaner::Event::Stop);
        self.commit.close();
        let mut cleaner = self.cleaner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cleaner) = cleaner.take() {
            let _ = cleaner.join();
        }
        if let Some(sealer) = sealer {
            let _ = sealer.join();
        }
    }
}

/// The threads end before the data directory is given up, whoever forgets to close.
impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
    }
}

/// A transactional id, as administrators see it.
#[derive(Debug, Clone)]
pub struct TransactionDescription {
    pub value: TransactionValue,
    /// Partitions in the ongoing transaction, those of deleted topics left out.
    pub partitions: Vec<Arc<Partition>>,
}

impl TransactionDescription {
    fn of(value: &TransactionValue, tables: &state::Tables) -> TransactionDescription {
        let producer_id = value.producer_id;
        let range = (producer_id, PartitionId(0))..=(producer_id, PartitionId(u64::MAX));
        let within = tables.in_transactions.range(range);
        let partitions = within.filter_map(|((_, id), _)| tables.partitions.get(id).cloned());
        let is_of_topic = |p: &Arc<Partition>| tables.by_id.contains_key(&p.topic_id());
        let partitions = partitions.filter(is_of_topic);
        TransactionDescription {
            value: value.clone(),
            partitions: partitions.collect(),
        }
    }
}

/// An idempotent or transactional producer, as a partition knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerDescription {
    pub identity: ProducerIdentity,
    pub last_sequence: Option<i32>,
    pub last_append_ms: u64,
    /// Where its transaction that is not over began.
    pub transaction_start: Option<Offset>,
}

/// What one step of a transaction takes of the room for what is in flight, at most.
const STEP_BYTES_ADMITTED_MAX: usize = 1 << 20;

/// Bytes of a transaction's record about one partition or offset, or of a marker, at most; names come on top.
const TRANSACTION_RECORD_BYTES: usize = 160;

/// One offset to commit.
#[derive(Debug, Clone)]
pub struct OffsetCommit {
    pub topic: TopicId,
    pub partition: i32,
    pub committed: CommittedOffset,
}

/// Longest key of an internal record; the index holds keys of 64 KiB at most.
const KEY_BYTES_MAX: usize = 32 << 10;

/// Kept for group names and setting kinds; the key format counts them in two bytes.
fn name_fits(name: &str) -> Result<(), AppendError> {
    if name.len() <= values::TEXT_BYTES_MAX {
        Ok(())
    } else {
        Err(AppendError::Invalid("the name is too long".into()))
    }
}

/// Of a batch with records that are refused, so many are named.
const FAULTS_TOLD_MAX: usize = 1000;

/// A record batch that its partition takes as it is.
#[derive(Debug)]
pub struct CheckedBatch {
    bytes: Bytes,
    header: BatchHeader,
}

impl CheckedBatch {
    /// Whether judging a batch takes so long that others should not wait for it.
    pub fn is_slow_to_check(batch: &[u8]) -> bool {
        let header = BatchHeader::parse(batch);
        header.is_ok_and(|header| header.codec() != Ok(compression::Codec::None))
    }
}

/// From here on the records of one call are a batch of their own.
const OWN_BATCH_BYTES: usize = 8 << 10;

/// A record without a key could never be compacted away.
fn check_keys(partition: &Partition, records: &[Record]) -> Result<(), AppendError> {
    let compacted = partition.settings().compaction.is_some();
    let keyless = (0..).zip(records).filter(|(_, r)| r.key.is_none());
    let indexes: Vec<u32> = keyless.map(|(n, _)| n).take(FAULTS_TOLD_MAX).collect();
    if compacted && !indexes.is_empty() {
        let fault = RecordFault::Keyless;
        return Err(AppendError::Records { fault, indexes });
    }
    Ok(())
}

fn encode(records: &[Record], bytes: usize) -> EncodedRecords {
    let mut encoded = EncodedRecords::with_capacity(records.len(), bytes);
    records.iter().for_each(|record| encoded.push(record));
    encoded
}

impl Log {
    /// Opens or creates, recovers, and raises the leader epoch. Blocks on disk.
    pub fn open(options: LogOptions) -> Result<Log, OpenError> {
        Log::open_with(options, None)
    }

    /// The same with segments on another disk, a simulated one for example.
    pub fn open_on(options: LogOptions, disk: Arc<dyn Disk>) -> Result<Log, OpenError> {
        Log::open_with(options, Some(disk))
    }

    fn open_with(options: LogOptions, disk: Option<Arc<dyn Disk>>) -> Result<Log, OpenError> {
        let opened = open::open(&options, disk)?;
        let known = opened.state.read().node;
        let beyond_all = open::first_free_partition(&opened)?;
        let mut node = known.unwrap_or(NodeValue {
            cluster_id: Uuid::new_v4(),
            next_partition: FIRST_PARTITION,
            next_producer: 0,
        });
        node.next_partition = node.next_partition.max(beyond_all);
        let sealed_at_open = opened.index.checkpoint().map_err(FetchError::from)?;
        let sealed_at_open = sealed_at_open.unwrap_or(SegmentId(0));
        let counters = Arc::new(Counters::default());
        let room = Arc::new(Room::new(options.in_flight_bytes_max));
        let (cleaning, events) = cleaner::queue();
        opened.guard.tell(cleaning.clone());
        let (seal_queue, sealer) =
            sealer::start(opened.index.clone(), opened.state.clone(), cleaning.clone())
                .map_err(OpenError::Thread)?;
        let sequencer = Sequencer::new(SequencerParts {
            state: opened.state.clone(),
            internal: opened.internal.clone(),
            segments: opened.segments.clone(),
            counters: counters.clone(),
            leader_epoch: opened.leader_epoch,
            batch_bytes_max: options.batch_bytes_max,
            segment_age_max_ms: u64::try_from(options.segment_age_max.as_millis())
                .unwrap_or(u64::MAX),
            clock: options.clock.clone(),
            sealer: seal_queue,
            node,
            room: room.clone(),
            guard: opened.guard.clone(),
            memory: Memory(options.memory_bytes),
            cleaner: cleaning.clone(),
        });
        // A group must fit into a segment, with one submission more than this.
        let group_bytes_max = options
            .group_bytes_max
            .min(options.segment_bytes as usize / 4);
        let commit = GroupCommit::start(opened.writer, sequencer, group_bytes_max)
            .map_err(OpenError::Thread)?;
        let reader = Arc::new(fetch::Reader {
            index: opened.index,
            segments: opened.segments,
        });
        let space = Arc::new(Space::default());
        let parts = cleaner::Parts {
            reader: reader.clone(),
            state: opened.state.clone(),
            internal: opened.internal,
            disk: opened.disk,
            submitter: commit.submitter(),
            clock: options.clock.clone(),
            interval: options.cleaner_interval,
            retention: options.retention,
            producer_expiry: options.producer_expiry,
            space: space.clone(),
            guard: opened.guard.clone(),
            segment_bytes: options.segment_bytes,
            boot_epoch: u32::try_from(opened.leader_epoch).unwrap_or(0),
            sealed_at_open,
            bytes_per_second: options.cleaner_bytes_per_second,
            memory: Memory(options.memory_bytes),
            scrub_interval: options.scrub_interval,
        };
        let cleaner = cleaner::start(parts, events).map_err(OpenError::Thread)?;
        let inner = Inner {
            state: opened.state,
            reader,
            submitter: commit.submitter(),
            commit,
            sealer: Mutex::new(Some(sealer)),
            cleaner: Mutex::new(Some(cleaner)),
            cleaning,
            space,
            guard: opened.guard,
            room,
            ongoing: Mutex::default(),
            submission_bytes_max: options.segment_bytes as usize / 2,
            batch_bytes_max: options.batch_bytes_max,
            memory_bytes: options.memory_bytes,
            retention: options.retention,
            directory: options.data_dir,
            clock: options.clock,
            counters,
            leader_epoch: opened.leader_epoch,
            cluster_id: node.cluster_id,
            damage: opened.damage,
            _lock: opened.lock,
        };
        let log = Log {
            inner: Arc::new(inner),
        };
        log.begin_epoch(&node)?;
        Ok(log)
    }

    /// The node's identity is a record like any other. Writing it at every start also leaves the
    /// raised leader epoch on disk before any client is told of it.
    fn begin_epoch(&self, node: &NodeValue) -> Result<(), OpenError> {
        let value = values::encode(node).map_err(OpenError::Metadata)?;
        let (reply, done) = oneshot::channel();
        let pairs = vec![(Key::Node.encode(), Some(value))];
        self.submit(
            Work::Internal {
                partition: METADATA,
                pairs,
                reply,
            },
            0,
        )?;
        // A reply channel that is also read without a runtime: opening blocks anyway.
        let answer = std::thread::scope(|scope| scope.spawn(|| done.blocking_recv()).join());
        match answer {
            Ok(Ok(result)) => Ok(result?),
            _ => Err(AppendError::Closed.into()),
        }
    }

    /// Refuses further appends, finishes the queued ones, seals the head. Blocks on disk.
    pub fn close(&self) {
        self.inner.close();
    }

    /// Rises at every start.
    pub fn leader_epoch(&self) -> i32 {
        self.inner.leader_epoch
    }

    /// Where the internal partition ends that keeps topics and settings.
    pub fn metadata_end(&self) -> Offset {
        let tables = self.inner.state.read();
        let metadata = tables.partitions.get(&METADATA);
        metadata.map_or(Offset::ZERO, |partition| partition.high_watermark())
    }

    /// Stable identity of this node's data, made at first start.
    pub fn cluster_id(&self) -> Uuid {
        self.inner.cluster_id
    }

    /// By name.
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        self.inner.state.read().topics.values().cloned().collect()
    }

    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.inner.state.read().topics.get(name).cloned()
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.inner.state.read().by_id.get(&id).cloned()
    }

    /// Durable when it returns; goes on if the future is dropped.
    pub async fn create_topic(&self, new: NewTopic) -> Result<Arc<Topic>, CreateTopicError> {
        topic::validate(&new)?;
        let (reply, answer) = oneshot::channel();
        let bytes = new.partitions as usize * 8 + 512;
        self.admit(bytes).await?;
        self.submit(Work::CreateTopic { new, reply }, bytes)?;
        answer.await.unwrap_or(Err(AppendError::Closed.into()))
    }

    /// Gives a topic as many partitions; records keep theirs, keys may go to others from now on.
    /// Durable when it returns.
    pub async fn set_partitions(
        &self,
        topic: &Arc<Topic>,
        partitions: u32,
    ) -> Result<Arc<Topic>, ChangeTopicError> {
        if partitions > PARTITIONS_MAX {
            return Err(CreateTopicError::InvalidPartitions(partitions).into());
        }
        let bytes = partitions as usize * 9 + topic::CONFIGS_BYTES_MAX + 512;
        self.change_topic(topic, TopicChange::Partitions(partitions), bytes)
            .await
    }

    /// Gives a topic other configurations in place of all it has; they hold at once, for records that
    /// are there already, too. Durable when it returns.
    pub async fn set_configs(
        &self,
        topic: &Arc<Topic>,
        configs: Vec<(String, String)>,
    ) -> Result<Arc<Topic>, ChangeTopicError> {
        topic::validate_configs(&configs)?;
        let configs_bytes: usize = configs.iter().map(|(k, v)| k.len() + v.len() + 16).sum();
        let bytes = topic.partitions().len() * 9 + configs_bytes + 512;
        self.change_topic(topic, TopicChange::Configs(configs), bytes)
            .await
    }

    async fn change_topic(
        &self,
        topic: &Arc<Topic>,
        change: TopicChange,
        bytes: usize,
    ) -> Result<Arc<Topic>, ChangeTopicError> {
        let (reply, answer) = oneshot::channel();
        let topic = topic.clone();
        self.admit(bytes).await?;
        let work = Work::ChangeTopic {
            topic,
            change,
            reply,
        };
        self.submit(work, bytes)?;
        let result = answer.await;
        // Retention may want less now.
        let _ = self.inner.cleaning.send(cleaner::Event::Wake);
        result.unwrap_or(Err(AppendError::Closed.into()))
    }

    /// Its records can no longer be read when it returns, and that is durable. Their space is given
    /// back in the background.
    pub async fn delete_topic(&self, topic: TopicId) -> Result<(), DeleteTopicError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Work::DeleteTopic { topic, reply }, 0)?;
        let result = answer.await;
        let _ = self.inner.cleaning.send(cleaner::Event::Wake);
        result.unwrap_or(Err(AppendError::Closed.into()))
    }

    /// Deletes the records below `before`, or all (`None`), and returns the new log start: durable
    /// when it returns.
    pub async fn delete_records(
        &self,
        partition: &Arc<Partition>,
        before: Option<Offset>,
    ) -> Result<Offset, DeleteRecordsError> {
        let high_watermark = partition.high_watermark();
        let before = before.unwrap_or(high_watermark);
        if before > high_watermark {
            return Err(DeleteRecordsError::OffsetOutOfRange {
                requested: before,
                high_watermark,
            });
        }
        if partition.is_deleted() {
            return Err(AppendError::Deleted.into());
        }
        let (reply, answer) = oneshot::channel();
        let starts = vec![(partition.clone(), before)];
        self.submit(Work::RaiseLogStarts { starts, reply }, 0)?;
        answer.await.unwrap_or(Err(AppendError::Closed))?;
        let _ = self.inner.cleaning.send(cleaner::Event::Wake);
        Ok(partition.log_start_offset())
    }

    /// Applies retention and gives space back now. Blocks on disk.
    pub fn clean(&self) {
        let (done, ended) = std::sync::mpsc::sync_channel(1);
        let asked = self.inner.cleaning.send(cleaner::Event::Round(done));
        if asked.is_ok() {
            let _ = ended.recv();
        }
    }

    /// Judges a topic's configurations without changing it.
    pub fn check_configs(&self, configs: &[(String, String)]) -> Result<(), CreateTopicError> {
        topic::validate_configs(configs)
    }

    /// What topics keep that do not say.
    pub fn retention(&self) -> &Retention {
        &self.inner.retention
    }

    /// Largest record batch that is taken.
    pub fn batch_bytes_max(&self) -> usize {
        self.inner.batch_bytes_max
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// Judges a topic without creating it.
    pub fn check_topic(&self, new: &NewTopic) -> Result<(), CreateTopicError> {
        topic::validate(new)?;
        if self.topic(&new.name).is_some() {
            Err(CreateTopicError::Exists(new.name.clone()))
        } else {
            Ok(())
        }
    }

    /// Queues records of one partition; waits only while too much is in flight. Records of all callers
    /// that meet in one commit window are coalesced into one batch per partition, but who brings
    /// enough for a batch of its own (8 KiB) builds it here, not on the writer thread. The returned
    /// [`Appending`] resolves when they are durable. Appends of one task for one partition keep
    /// their order.
    pub async fn append(
        &self,
        partition: &Arc<Partition>,
        records: &[Record],
    ) -> Result<Appending, AppendError> {
        let bytes = self.check(records)?;
        check_keys(partition, records)?;
        let batch_bytes_max = self.inner.batch_bytes_max;
        if bytes < OWN_BATCH_BYTES.min(batch_bytes_max - batch::HEADER_BYTES) {
            return self.gather(partition, records, bytes).await;
        }
        self.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        let partition = partition.clone();
        let one_batch = bytes + batch::HEADER_BYTES <= batch_bytes_max
            && records.len() <= batch::RECORDS_MAX as usize
            && !partition.settings().log_append_time;
        let work = if one_batch {
            let (batch, ..) = submission::batch_of(records, bytes).finish(Offset::ZERO, 0);
            let header = BatchHeader::parse(&batch).map_err(AppendError::Invalid)?;
            Work::Batch {
                partition,
                batch,
                header,
                transaction: None,
                reply,
            }
        } else {
            Work::Records {
                partition,
                records: encode(records, bytes),
                reply,
            }
        };
        self.submit(work, bytes)?;
        Ok(Appending::alone(answer))
    }

    /// Small records go with those of others for the same partition.
    async fn gather(
        &self,
        partition: &Arc<Partition>,
        records: &[Record],
        bytes: usize,
    ) -> Result<Appending, AppendError> {
        let batch_bytes_max = self.inner.batch_bytes_max;
        let join = |admitted: usize| {
            let join = |waits: &mut Submission| {
                waits.join(partition, records, bytes, admitted, batch_bytes_max)
            };
            let last = partition.last_submission();
            self.inner.submitter.join(last, bytes, join)
        };
        // Most find room that was admitted with the first one.
        if let Some(appending) = join(0) {
            return Ok(appending);
        }
        let admitted = bytes + batch::HEADER_BYTES;
        self.admit(admitted).await?;
        if let Some(appending) = join(admitted) {
            return Ok(appending);
        }
        let (gathering, appending) = Gathering::new(partition.clone(), records, bytes);
        let ahead = self.inner.room.admit_ahead(GATHERED_BYTES_MAX - admitted);
        self.submit_as(Work::Gathered(gathering), bytes, admitted + ahead)?;
        Ok(appending)
    }

    /// Queues records of several partitions as one unit: all of them become durable together.
    /// The offsets are those of the records, in order.
    pub async fn append_all(
        &self,
        records: Vec<(Arc<Partition>, Record)>,
    ) -> Result<AppendingAll, AppendError> {
        if let [(partition, record)] = records.as_slice() {
            let appending = self.append(partition, std::slice::from_ref(record)).await?;
            return Ok(AppendingAll::one(appending));
        }
        for (partition, record) in &records {
            check_keys(partition, std::slice::from_ref(record))?;
        }
        let (partitions, records): (Vec<_>, Vec<_>) = records.into_iter().unzip();
        let bytes = self.check(&records)?;
        let records = encode(&records, bytes);
        self.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        self.submit(
            Work::Scattered {
                partitions,
                records,
                reply,
            },
            bytes,
        )?;
        Ok(AppendingAll::scattered(answer))
    }

    /// Queues one Kafka v2 record batch as it came (validated here: CRC, counts, sequence).
    pub async fn append_batch(
        &self,
        partition: &Arc<Partition>,
        batch: Bytes,
    ) -> Result<Appending, AppendError> {
        self.append_batch_within(partition, batch, None).await
    }

    /// The same for a transactional producer: a transactional batch must be part of the transaction of
    /// this id. `adds`: its partition becomes part of it, and it begins, if need be (KIP-890).
    pub async fn append_batch_of(
        &self,
        transactional_id: &str,
        adds: bool,
        partition: &Arc<Partition>,
        batch: Bytes,
    ) -> Result<Appending, AppendError> {
        let within = InTransaction {
            id: transactional_id.to_owned(),
            adds,
        };
        self.append_batch_within(partition, batch, Some(within))
            .await
    }

    async fn append_batch_within(
        &self,
        partition: &Arc<Partition>,
        batch: Bytes,
        within: Option<InTransaction>,
    ) -> Result<Appending, AppendError> {
        let checked = self.check_batch(partition, batch)?;
        self.append_checked(partition, checked, within).await
    }

    /// Judges a batch as its partition takes it, which unpacks it if it is compressed: for callers who must
    /// not be held up by that, and hand it in with [`Log::append_checked`].
    pub fn check_batch(
        &self,
        partition: &Partition,
        batch: Bytes,
    ) -> Result<CheckedBatch, AppendError> {
        let settings = partition.settings();
        let batch_bytes_max = settings.batch_bytes_max.unwrap_or(usize::MAX);
        let batch_bytes_max = batch_bytes_max.min(self.inner.batch_bytes_max);
        let header = batch::validate(&batch, batch_bytes_max)?;
        let now_ms = self.inner.clock.now_ms();
        let timely = if settings.log_append_time || now_ms < types::CLOCK_SET_MS {
            i64::MIN..=i64::MAX
        } else {
            let bound = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
            let from = now_ms.saturating_sub(settings.timestamp_before_max_ms);
            bound(from)..=bound(now_ms.saturating_add(settings.timestamp_after_max_ms))
        };
        let seen = batch::inspect(&header, &batch, timely).map_err(AppendError::Invalid)?;
        let refuse = |fault, mut indexes: Vec<u32>| {
            indexes.truncate(FAULTS_TOLD_MAX);
            Err(AppendError::Records { fault, indexes })
        };
        if settings.compaction.is_some() && !seen.keyless.is_empty() {
            return refuse(RecordFault::Keyless, seen.keyless);
        }
        if !seen.untimely.is_empty() {
            return refuse(RecordFault::Untimely, seen.untimely);
        }
        let wants_stamp = settings.log_append_time;
        let is_right = header.append_time_ms().is_none()
            && header.max_timestamp_ms == seen.max_timestamp_ms
            && !wants_stamp;
        let (bytes, header) = if is_right {
            (batch, header)
        } else if wants_stamp {
            let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
            batch::stamp(&batch, now_ms, true)
        } else {
            batch::stamp(&batch, seen.max_timestamp_ms, false)
        };
        Ok(CheckedBatch { bytes, header })
    }

    /// Queues a batch that was judged, for a transactional producer as part of its transaction.
    pub async fn append_checked(
        &self,
        partition: &Arc<Partition>,
        checked: CheckedBatch,
        within: Option<InTransaction>,
    ) -> Result<Appending, AppendError> {
        let CheckedBatch {
            bytes: batch,
            header,
        } = checked;
        let transaction = within.filter(|_| header.is_transactional()).map(Box::new);
        if header.is_transactional() && transaction.is_none() {
            return Err(TransactionError::NoId.into());
        }
        let bytes = batch.len();
        self.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        self.submit(
            Work::Batch {
                partition: partition.clone(),
                batch,
                header,
                transaction,
                reply,
            },
            bytes,
        )?;
        Ok(Appending::alone(answer))
    }

    /// Whether records can be appended, and how many bytes they take at most.
    fn check(&self, records: &[Record]) -> Result<usize, AppendError> {
        if records.is_empty() {
            return Err(AppendError::Invalid("no records".into()));
        }
        let mut bytes = 0;
        for record in records {
            let record_bytes = batch::encoded_bytes_bound(record);
            if record_bytes + batch::HEADER_BYTES > self.inner.batch_bytes_max {
                return Err(AppendError::TooLarge {
                    bytes: record_bytes,
                    bytes_max: self.inner.batch_bytes_max,
                });
            }
            bytes += record_bytes;
        }
        if bytes > self.inner.submission_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                bytes_max: self.inner.submission_bytes_max,
            });
        }
        Ok(bytes)
    }

    /// Back-pressure: waits until there is room for `bytes` more in flight.
    async fn admit(&self, bytes: usize) -> Result<(), AppendError> {
        if let Some(reason) = self.inner.state.failure() {
            return Err(AppendError::Storage(reason.clone()));
        }
        self.inner
            .room
            .admit(bytes)
            .await
            .map_err(|_| AppendError::Closed)
    }

    fn submit(&self, work: Work, bytes: usize) -> Result<(), AppendError> {
        self.submit_as(work, bytes, bytes)
    }

    /// Queues work of `bytes` bytes for which `admitted` were admitted.
    fn submit_as(&self, work: Work, bytes: usize, admitted: usize) -> Result<(), AppendError> {
        let partitions: SmallVec<[Arc<Partition>; 1]> = work.partitions().into();
        let submission = Submission {
            work,
            bytes: admitted,
        };
        match self.inner.submitter.submit(submission, bytes) {
            Ok(number) => {
                partitions.iter().for_each(|p| p.submitted(number));
                Ok(())
            }
            Err(_) => {
                self.inner.room.release(admitted);
                Err(AppendError::Closed)
            }
        }
    }

    async fn append_internal(
        &self,
        partition: PartitionId,
        pairs: Vec<Pair>,
    ) -> Result<(), AppendError> {
        let pair_bytes = |(key, value): &Pair| key.len() + value.as_ref().map_or(0, Vec::len) + 64;
        if pairs.iter().any(|(key, _)| key.len() > KEY_BYTES_MAX) {
            return Err(AppendError::Invalid(format!(
                "a name longer than {KEY_BYTES_MAX} bytes"
            )));
        }
        let bytes = pairs.iter().map(pair_bytes).sum();
        if bytes > self.inner.batch_bytes_max {
            return Err(AppendError::TooLarge {
                bytes,
                bytes_max: self.inner.batch_bytes_max,
            });
        }
        self.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        self.submit(
            Work::Internal {
                partition,
                pairs,
                reply,
            },
            bytes,
        )?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Reads whole batches from `from`, at least one if there is any (KIP-74), then up to `bytes_max`.
    /// May read the disk: call from `spawn_blocking` where `from` is far behind.
    pub fn fetch(
        &self,
        partition: &Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<Fetched, FetchError> {
        let reader = &self.inner.reader;
        reader.fetch(partition, from, bytes_max, isolation)
    }

    /// As [`Log::fetch`], but only finds out where the batches lie: for who sends them from the file.
    pub fn locate(
        &self,
        partition: &Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<Located, FetchError> {
        let reader = &self.inner.reader;
        reader.locate(partition, from, bytes_max, isolation)
    }

    /// Decoded committed records from `from` on (compressed batches included), at most about `bytes_max` of
    /// batches; none only if there are none up to the last stable offset. A batch that cannot be decoded is
    /// reported when it comes first.
    pub fn read(
        &self,
        partition: &Partition,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredRecord>, FetchError> {
        self.inner.reader.read(partition, from, bytes_max)
    }

    /// Offset and timestamp of the first record whose timestamp is >= `timestamp_ms`.
    pub fn offset_for_time(
        &self,
        partition: &Partition,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        self.inner.reader.offset_for_time(partition, timestamp_ms)
    }

    /// Offset and timestamp of the record with the largest timestamp (ListOffsets -3).
    pub fn max_timestamp(
        &self,
        partition: &Partition,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        self.inner.reader.max_timestamp(partition)
    }

    pub fn watch<'a>(&self, partitions: impl IntoIterator<Item = &'a Arc<Partition>>) -> Watch {
        Watch::new(partitions)
    }

    /// Durable when it returns.
    pub async fn commit_offsets(
        &self,
        group: &str,
        commits: Vec<OffsetCommit>,
    ) -> Result<(), AppendError> {
        name_fits(group)?;
        let mut pairs = Vec::with_capacity(commits.len());
        for commit in &commits {
            let pair =
                values::group_offset(group, commit.topic, commit.partition, &commit.committed);
            let (key, value) = pair.map_err(AppendError::Invalid)?;
            pairs.push((key, Some(value)));
        }
        self.append_internal(OFFSETS, pairs).await
    }

    pub fn committed_offset(
        &self,
        group: &str,
        topic: TopicId,
        partition: i32,
    ) -> Option<CommittedOffset> {
        self.inner.state.committed_offset(group, topic, partition)
    }

    /// Removes committed offsets of a group, except those that were committed anew meanwhile. Durable
    /// when it returns.
    pub async fn forget_offsets(
        &self,
        group: &str,
        offsets: Vec<(TopicId, i32, CommittedOffset)>,
    ) -> Result<(), AppendError> {
        let bytes = offsets.len() * (group.len() + 100);
        self.admit(bytes).await?;
        let (reply, answer) = oneshot::channel();
        let group = group.to_owned();
        let work = Work::ForgetOffsets {
            group,
            offsets,
            reply,
        };
        self.submit(work, bytes)?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Every committed offset of a group.
    pub fn committed_offsets(&self, group: &str) -> Vec<(TopicId, i32, CommittedOffset)> {
        let tables = self.inner.state.read();
        let offsets = tables.offsets.get(group).into_iter().flatten();
        offsets
            .map(|(&(topic, partition), committed)| (topic, partition, committed.clone()))
            .collect()
    }

    /// Groups that have committed an offset.
    pub fn groups(&self) -> Vec<String> {
        self.inner.state.read().offsets.keys().cloned().collect()
    }

    /// A producer id never given before; durable when it returns.
    pub async fn new_producer_id(&self) -> Result<ProducerId, AppendError> {
        self.admit(1).await?;
        let (reply, answer) = oneshot::channel();
        self.submit(Work::ProducerId { reply }, 1)?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Small durable settings of the rooms above (users, schemas): `kind` names the room, a `None`
    /// value deletes. Durable when it returns.
    pub async fn put_setting(
        &self,
        kind: &str,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), AppendError> {
        name_fits(kind)?;
        let key = Key::Setting {
            kind: kind.to_owned(),
            key: key.to_owned(),
        }
        .encode();
        self.append_internal(METADATA, vec![(key, value.map(|value| value.to_vec()))])
            .await
    }

    pub fn setting(&self, kind: &str, key: &str) -> Option<Bytes> {
        self.inner
            .state
            .read()
            .settings
            .get(&(kind.to_owned(), key.to_owned()))
            .cloned()
    }

    /// Every setting of a kind, by key.
    pub fn settings(&self, kind: &str) -> Vec<(String, Bytes)> {
        let tables = self.inner.state.read();
        let from = tables.settings.range((kind.to_owned(), String::new())..);
        from.take_while(|((k, _), _)| k == kind)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect()
    }
}

/// Transactions.
impl Log {
    /// A producer begins under a transactional id and fences those before it; what they left unfinished is
    /// aborted. `believed`: who the producer says it is, where it only wants a new epoch (KIP-360).
    pub async fn begin_producer(
        &self,
        transactional_id: &str,
        timeout_ms: u32,
        believed: Option<ProducerIdentity>,
    ) -> Result<ProducerIdentity, TransactionError> {
        let id_bytes = transactional_id.len();
        if !(1..=TRANSACTIONAL_ID_BYTES_MAX).contains(&id_bytes) {
            return Err(TransactionError::InvalidId);
        }
        let step = Step::Begin {
            timeout_ms,
            believed,
        };
        // What was left unfinished ends with it.
        let known = self.transaction(transactional_id);
        let known = known.map(|known| ProducerId(known.value.producer_id));
        let bytes = known.map_or(1024, |id| self.ending_bytes(id));
        self.transaction_step(transactional_id, step, bytes).await
    }

    /// Makes partitions part of the producer's transaction, and with `offsets` the commit of offsets, too;
    /// begins it if need be.
    pub async fn add_to_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        partitions: Vec<Arc<Partition>>,
        offsets: bool,
    ) -> Result<(), TransactionError> {
        let bytes = 1024 + partitions.len() * TRANSACTION_RECORD_BYTES;
        let step = Step::Add {
            producer,
            partitions,
            offsets,
        };
        let added = self.transaction_step(transactional_id, step, bytes).await;
        added.map(drop)
    }

    /// Offsets that a group commits when, and if, the producer's transaction is committed. `adds`: they
    /// become part of the transaction, and it begins, if need be (KIP-890).
    pub async fn add_offsets_to_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        group: &str,
        commits: Vec<OffsetCommit>,
        adds: bool,
    ) -> Result<(), TransactionError> {
        name_fits(group)?;
        let commit_bytes = |commit: &OffsetCommit| {
            TRANSACTION_RECORD_BYTES + group.len() + commit.committed.metadata.len()
        };
        let bytes: usize = 1024 + commits.iter().map(commit_bytes).sum::<usize>();
        if bytes > self.inner.batch_bytes_max {
            return Err(TransactionError::TooManyOffsets);
        }
        let step = Step::Offsets {
            producer,
            group: group.to_owned(),
            commits,
            adds,
        };
        let added = self.transaction_step(transactional_id, step, bytes).await;
        added.map(drop)
    }

    /// Ends the producer's transaction in all its partitions and groups at once. Answers with who the
    /// producer is from now on: with `raises_epoch` it has another epoch (KIP-890).
    pub async fn end_transaction(
        &self,
        transactional_id: &str,
        producer: ProducerIdentity,
        outcome: Outcome,
        raises_epoch: bool,
    ) -> Result<ProducerIdentity, TransactionError> {
        let bytes = self.ending_bytes(producer.id);
        let step = Step::End {
            producer,
            outcome,
            raises_epoch,
        };
        self.transaction_step(transactional_id, step, bytes).await
    }

    /// Ends a producer's transaction in one partition alone: for administrators, where its coordinator
    /// does not.
    pub async fn end_transaction_in(
        &self,
        partition: &Arc<Partition>,
        producer: ProducerIdentity,
        outcome: Outcome,
    ) -> Result<(), TransactionError> {
        self.admit(1024).await?;
        let (reply, answer) = oneshot::channel();
        let work = Work::Mark {
            partition: partition.clone(),
            producer,
            outcome,
            reply,
        };
        self.submit(work, 1024)?;
        let ended = answer.await.unwrap_or(Err(AppendError::Closed.into()));
        ended.map(drop)
    }

    /// Aborts the transactions that are older than their producers allowed, and forgets the ids that have
    /// not been used for `id_expiry_ms`. Durable when it returns. A clock that was not set, or was set
    /// back, makes nothing older than it has been seen here.
    pub async fn expire_transactions(&self, id_expiry_ms: u64) -> Result<(), AppendError> {
        let now_ms = self.inner.clock.now_ms();
        let by_clock = |since_ms: u64| match since_ms {
            ..types::CLOCK_SET_MS => 0,
            _ => now_ms.saturating_sub(since_ms),
        };
        let all = self.transactions();
        let seen = self.see_ongoing(&all);
        for (id, known) in all {
            let value = &known.value;
            let ended = if let Some(seen) = seen.get(&id) {
                let seen_ms = u64::try_from(seen.elapsed().as_millis()).unwrap_or(u64::MAX);
                let age_ms = by_clock(value.started_ms).max(seen_ms);
                if age_ms <= u64::from(value.timeout_ms) {
                    continue;
                }
                let producer_id = value.producer_id;
                tracing::warn!(
                    transactional_id = id,
                    producer_id,
                    age_ms,
                    "a transaction timed out and is aborted"
                );
                let bytes = self.ending_bytes(ProducerId(producer_id));
                let started_ms = value.started_ms;
                self.transaction_step(&id, Step::TimeOut { started_ms }, bytes)
                    .await
            } else if by_clock(value.changed_ms) > id_expiry_ms {
                tracing::info!(transactional_id = id, "a transactional id has expired");
                let changed_ms = value.changed_ms;
                self.transaction_step(&id, Step::Forget { changed_ms }, 1024)
                    .await
            } else {
                continue;
            };
            match ended {
                Ok(_) | Err(TransactionError::UnknownId) => {}
                Err(TransactionError::Append(AppendError::Closed)) => {
                    return Err(AppendError::Closed);
                }
                // The others do not wait for this one.
                Err(error) => {
                    tracing::error!(transactional_id = id, %error, "it cannot be ended; it is tried again");
                }
            }
        }
        Ok(())
    }

    /// Since when each ongoing transaction has been seen.
    fn see_ongoing(&self, all: &[(String, TransactionDescription)]) -> HashMap<String, Instant> {
        let mut seen = (self.inner.ongoing.lock()).unwrap_or_else(PoisonError::into_inner);
        let ongoing = all.iter().filter(|(_, known)| {
            let state = known.value.state;
            state == TransactionState::Ongoing
        });
        let now: HashMap<String, (u64, Instant)> = ongoing
            .map(|(id, known)| {
                let started_ms = known.value.started_ms;
                let before = seen.get(id).filter(|(started, _)| *started == started_ms);
                let since = before.map_or_else(Instant::now, |(_, since)| *since);
                (id.clone(), (started_ms, since))
            })
            .collect();
        *seen = now;
        let since = seen.iter().map(|(id, (_, since))| (id.clone(), *since));
        since.collect()
    }

    /// Every transactional id.
    pub fn transactions(&self) -> Vec<(String, TransactionDescription)> {
        let tables = self.inner.state.read();
        let all = tables.transactions.iter();
        all.map(|(id, value)| (id.clone(), TransactionDescription::of(value, &tables)))
            .collect()
    }

    pub fn transaction(&self, transactional_id: &str) -> Option<TransactionDescription> {
        let tables = self.inner.state.read();
        let value = tables.transactions.get(transactional_id)?;
        Some(TransactionDescription::of(value, &tables))
    }

    /// The producers that a partition knows, by id.
    pub fn producers(&self, partition: &Partition) -> Vec<ProducerDescription> {
        let open: HashMap<i64, Offset> = partition.transactions().open().collect();
        let writer = partition.writer();
        let mut all: Vec<ProducerDescription> = (writer.producers.iter())
            .map(|(producer_id, known)| ProducerDescription {
                identity: ProducerIdentity {
                    id: ProducerId(producer_id),
                    epoch: known.epoch,
                },
                last_sequence: known.batches.last().map(|batch| batch.last_sequence),
                last_append_ms: known.last_append_ms,
                transaction_start: open.get(&producer_id).copied(),
            })
            .collect();
        drop(writer);
        all.sort_unstable_by_key(|producer| producer.identity.id);
        all
    }

    /// Whether a transaction that is not over is to commit an offset of the group there.
    pub fn is_offset_pending(&self, group: &str, topic: TopicId, partition: i32) -> bool {
        (self.inner.state).is_offset_pending(group, topic, partition)
    }

    /// What the end of a producer's transaction takes in a group, at most.
    fn ending_bytes(&self, ProducerId(producer_id): ProducerId) -> usize {
        let tables = self.inner.state.read();
        let range = (producer_id, PartitionId(0))..=(producer_id, PartitionId(u64::MAX));
        let partitions = tables.in_transactions.range(range).count();
        let offsets = tables.transaction_offsets.iter();
        let offsets = offsets.filter(|((.., id), _)| *id == producer_id);
        let offsets = offsets.map(|((group, ..), committed)| {
            2 * (group.len() + TRANSACTION_RECORD_BYTES) + committed.metadata.len()
        });
        1024 + partitions * 3 * TRANSACTION_RECORD_BYTES + offsets.sum::<usize>()
    }

    async fn transaction_step(
        &self,
        id: &str,
        step: Step,
        bytes: usize,
    ) -> Result<ProducerIdentity, TransactionError> {
        // One that is large must not wait until there is nothing else.
        let admitted = bytes.min(STEP_BYTES_ADMITTED_MAX);
        self.admit(admitted).await?;
        let (reply, answer) = oneshot::channel();
        let id = id.to_owned();
        self.submit_as(Work::Transaction { id, step, reply }, bytes, admitted)?;
        answer.await.unwrap_or(Err(AppendError::Closed.into()))
    }
}

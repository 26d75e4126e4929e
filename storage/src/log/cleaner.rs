//! Retention, and giving space back. One thread; it wakes when a segment was sealed, when a topic or
//! records were deleted, and every so often.
//!
//! A round has four steps, each of which may be cut short by a crash and is taken up at the next start:
//!
//! 1. *Retention* raises log starts, with records of the internal partition: durable before anything
//!    is removed.
//! 2. *Trimming* removes index rows below log starts and of deleted topics.
//! 3. *Carrying*: where nothing else lives in a segment any more but records of internal partitions,
//!    those that still hold the newest value of their key are written again at the head.
//! 4. *Removing* unlinks segments that no row names.
//!
//! A row whose removal was lost in a crash is hidden by its log start and removed again; a file whose
//! unlinking was lost is found without rows and unlinked again. The newest segment that the index
//! holds always stays: it shows that index and segments belong together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_wal::disk::Disk;
use holdfast_wal::{SegmentId, Submitter};
use tokio::sync::oneshot;

use super::error::{AppendError, FetchError};
use super::fetch::Reader;
use super::index::BlockRef;
use super::partition::Partition;
use super::sequencer::{Submission, Work};
use super::state::{Internal, METADATA, OFFSETS, State};
use super::topic::Retention;
use super::types::{Clock, Offset, PartitionId};

/// Bytes carried with one submission; a single key may have more.
const CARRY_BYTES_MAX: usize = 1 << 20;
/// Tries to carry keys that are being changed, each a group commit long.
const CARRY_TRIES: usize = 100;

/// A clock that shows less has not been set: 2020, years before this was written.
const CLOCK_SET_MS: u64 = 1_577_836_800_000;

/// What wakes the cleaner.
pub enum Event {
    /// The index holds another segment.
    Sealed {
        segment: SegmentId,
        /// First offset and bytes of batches of each partition in it.
        parts: Vec<(PartitionId, Offset, u64)>,
    },
    /// Something was deleted.
    Wake,
    /// Answers when a round has ended.
    Round(SyncSender<()>),
    Stop,
}

/// What a cleaner works with.
pub struct Parts {
    pub reader: Arc<Reader>,
    pub state: Arc<State>,
    pub internal: Arc<Internal>,
    pub disk: Arc<dyn Disk>,
    pub submitter: Submitter<Submission>,
    pub clock: Clock,
    pub interval: Duration,
    /// Where a topic does not say.
    pub retention: Retention,
    pub space: Arc<Space>,
}

/// What the segments hold, as of the last round.
#[derive(Debug, Default)]
pub struct Space {
    /// Bytes of batches that can be read.
    pub live_bytes: AtomicU64,
    /// Bytes of sealed segments.
    pub sealed_bytes: AtomicU64,
    /// Segments removed since the log was opened.
    pub removed: AtomicU64,
}

/// The queue of a cleaner that is started later: the sealer is there before it.
pub fn queue() -> (Sender<Event>, Receiver<Event>) {
    channel()
}

/// Starts the thread.
pub fn start(parts: Parts, events: Receiver<Event>) -> std::io::Result<JoinHandle<()>> {
    let cleaner = Cleaner {
        parts,
        usage: BTreeMap::new(),
        trimmed: HashMap::new(),
        dead: HashSet::new(),
        forgetting: HashSet::new(),
    };
    std::thread::Builder::new()
        .name("log-cleaner".into())
        .spawn(move || cleaner.run(&events))
}

/// Bytes of batches that rows of the index name in one segment.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    /// Of topics.
    topics: u64,
    /// Of internal partitions.
    internal: u64,
}

struct Cleaner {
    parts: Parts,
    usage: BTreeMap<SegmentId, Usage>,
    /// Log starts up to which rows were removed.
    trimmed: HashMap<PartitionId, Offset>,
    /// Partitions of deleted topics. Kept: a segment sealed later may hold batches of theirs.
    dead: HashSet<PartitionId>,
    /// Those of them whose rows are still to be removed.
    forgetting: HashSet<PartitionId>,
}

type Step = fn(&mut Cleaner) -> Result<(), Failure>;

/// Why a step was cut short.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("metadata changes all the time")]
    Busy,
    #[error("removing a segment: {0}")]
    Remove(std::io::Error),
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Failure {
        Failure::Fetch(error.into())
    }
}

fn is_internal(partition: PartitionId) -> bool {
    partition == METADATA || partition == OFFSETS
}

impl Cleaner {
    fn run(mut self, events: &Receiver<Event>) {
        let mut surveyed = false;
        loop {
            let mut waiting = Vec::new();
            let mut next = match events.recv_timeout(self.parts.interval) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if !surveyed {
                // Before what was sealed meanwhile is counted, so that it is not counted twice.
                match self.survey() {
                    Ok(()) => surveyed = true,
                    Err(error) => tracing::error!(%error, "the segments cannot be surveyed"),
                }
            }
            while let Some(event) = next {
                match event {
                    Event::Sealed { segment, parts } => self.count(segment, &parts),
                    Event::Wake => {}
                    Event::Round(done) => waiting.push(done),
                    Event::Stop => return,
                }
                next = events.try_recv().ok();
            }
            if surveyed {
                self.round();
            }
            for done in waiting {
                let _ = done.send(());
            }
        }
    }

    /// Counts what every segment holds.
    fn survey(&mut self) -> Result<(), Failure> {
        let index = &self.parts.reader.index;
        let newest = index.checkpoint()?;
        // The record of a topic may be among what was lost; then its records are all that is left.
        let damaged = index.was_damaged()?;
        self.usage = (self.parts.reader.segments.ids().into_iter())
            .filter(|id| newest.is_some_and(|newest| *id <= newest))
            .map(|id| (id, Usage::default()))
            .collect();
        for block in index.all_blocks() {
            let block = block?;
            let partition = block.info.partition;
            let known = is_internal(partition)
                || self.parts.state.read().partitions.contains_key(&partition);
            if !known && !damaged {
                self.dead.insert(partition);
                self.forgetting.insert(partition);
            }
            if let Some(usage) = self.usage.get_mut(&block.segment) {
                usage.add(partition, block.info.batch_bytes);
            }
        }
        Ok(())
    }

    fn count(&mut self, segment: SegmentId, parts: &[(PartitionId, Offset, u64)]) {
        let index = self.parts.reader.index.clone();
        let mut usage = Usage::default();
        for &(partition, first, bytes) in parts {
            // A row may have been removed again before this was heard of.
            match index.segment_of(partition, first) {
                Ok(named) if named != Some(segment) => continue,
                _ => usage.add(partition, bytes),
            }
            // Its row may lie below a log start that was trimmed up to while it was in memory.
            self.trimmed.remove(&partition);
            if self.dead.contains(&partition) {
                self.forgetting.insert(partition);
            }
        }
        self.usage.insert(segment, usage);
    }

    /// Every step is taken, whatever became of the one before: each gives back what it can.
    fn round(&mut self) {
        for id in self.parts.state.take_deleted() {
            self.dead.insert(id);
            self.trimmed.remove(&id);
            self.forgetting.insert(id);
        }
        let steps: [(&str, Step); 6] = [
            ("forgetting deleted topics", Cleaner::forget_deleted),
            ("trimming", Cleaner::trim_all),
            ("retention", Cleaner::retain),
            ("trimming", Cleaner::trim_all),
            ("carrying metadata", Cleaner::carry),
            ("removing segments", Cleaner::remove_segments),
        ];
        for (step, take) in steps {
            if let Err(error) = take(self) {
                if self.parts.state.is_closing() {
                    return;
                }
                tracing::error!(step, %error, "cleaning was cut short; it is tried again in the next round");
            }
        }
        self.publish();
    }

    fn forget_deleted(&mut self) -> Result<(), Failure> {
        for id in self.forgetting.clone() {
            self.forget(id)?;
            self.forgetting.remove(&id);
        }
        Ok(())
    }

    fn trim_all(&mut self) -> Result<(), Failure> {
        let partitions: Vec<Arc<Partition>> = {
            let tables = self.parts.state.read();
            tables.partitions.values().cloned().collect()
        };
        self.trim(&partitions)
    }

    /// Removes every row of a deleted partition.
    fn forget(&mut self, partition: PartitionId) -> Result<(), Failure> {
        let index = self.parts.reader.index.clone();
        let blocks: Result<Vec<BlockRef>, fjall::Error> = index.blocks_of(partition).collect();
        for block in blocks? {
            self.remove_block(&block)?;
        }
        Ok(index.remove_producers(partition)?)
    }

    fn remove_block(&mut self, block: &BlockRef) -> Result<(), Failure> {
        self.parts.reader.index.remove_block(block)?;
        if let Some(usage) = self.usage.get_mut(&block.segment) {
            usage.subtract(block.info.partition, block.info.batch_bytes);
        }
        Ok(())
    }

    /// Raises the log starts that retention asks for.
    fn retain(&mut self) -> Result<(), Failure> {
        let now = self.parts.clock.now_ms();
        let topics: Vec<_> = {
            let tables = self.parts.state.read();
            tables.topics.values().cloned().collect()
        };
        let mut starts = Vec::new();
        for topic in topics {
            let Some(retention) = topic.retention(&self.parts.retention) else {
                continue;
            };
            for partition in topic.partitions() {
                let kept_from = self.kept_from(partition, &retention, now)?;
                if kept_from > partition.log_start_offset() {
                    tracing::info!(topic = topic.name(), partition = partition.index(), offset = %kept_from,
                        "retention removes what lies below");
                    starts.push((partition.clone(), kept_from));
                }
            }
        }
        if starts.is_empty() {
            return Ok(());
        }
        self.submit(0, |reply| Work::RaiseLogStarts { starts, reply })
    }

    /// The offset from which on a partition's records are kept.
    fn kept_from(
        &self,
        partition: &Partition,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<Offset, Failure> {
        let mut kept_from = partition.log_start_offset();
        let expired_before = retention.ms.map(|ms| now_ms.saturating_sub(ms));
        let mut bytes = partition.size_bytes();
        // Whether what comes behind is to be looked at.
        let mut judge = |end: Offset, part_bytes: u64, appended_ms: u64| {
            // Also what lies below the log start is counted until it is trimmed.
            bytes = bytes.saturating_sub(part_bytes);
            if end <= kept_from {
                return true;
            }
            let too_much = retention.bytes.is_some_and(|max| bytes >= max);
            // Appended before the machine knew the time: no younger than what follows.
            let unknown = expired_before.is_some() && appended_ms < CLOCK_SET_MS;
            let too_old = expired_before.is_some_and(|before| appended_ms < before);
            if too_much || (too_old && !unknown) {
                kept_from = end;
            }
            too_much || too_old || unknown
        };
        // Memory first: what leaves it later is in the index by then.
        let hot = partition.hot_parts();
        for block in self.parts.reader.index.blocks_of(partition.id()) {
            let info = block?.info;
            if !judge(info.end, info.batch_bytes, info.append_time_ms) {
                return Ok(kept_from);
            }
        }
        for part in hot {
            for batch in &part.batches {
                if !judge(batch.end(), u64::from(batch.bytes), part.append_time_ms) {
                    return Ok(kept_from);
                }
            }
        }
        Ok(kept_from)
    }

    /// Removes rows below log starts.
    fn trim(&mut self, partitions: &[Arc<Partition>]) -> Result<(), Failure> {
        for partition in partitions {
            let id = partition.id();
            let log_start = partition.log_start_offset();
            if self.trimmed.get(&id).copied().unwrap_or_default() >= log_start {
                continue;
            }
            let index = self.parts.reader.index.clone();
            for block in index.blocks_of(id) {
                let block = block?;
                if block.info.end > log_start {
                    break;
                }
                self.remove_block(&block)?;
                partition.remove_bytes(block.info.batch_bytes);
            }
            self.trimmed.insert(id, log_start);
        }
        Ok(())
    }

    /// Empties segments that hold nothing but records of internal partitions.
    fn carry(&mut self) -> Result<(), Failure> {
        let index = self.parts.reader.index.clone();
        let Some(newest) = index.checkpoint()? else {
            return Ok(());
        };
        for partition in [METADATA, OFFSETS] {
            let blocks: Result<Vec<BlockRef>, fjall::Error> = index.blocks_of(partition).collect();
            let blocks = blocks?;
            let empties = |block: &BlockRef| {
                let usage = self.usage.get(&block.segment);
                block.segment < newest && usage.is_some_and(|usage| usage.topics == 0)
            };
            let Some(last) = blocks.iter().rposition(empties) else {
                continue;
            };
            let Some((trimmed, end)) = blocks
                .get(..=last)
                .and_then(|trimmed| Some((trimmed, trimmed.last()?.info.end)))
            else {
                continue;
            };
            let freed: u64 = trimmed
                .iter()
                .filter(|block| empties(block))
                .filter_map(|block| self.parts.reader.segments.get(block.segment))
                .filter_map(|segment| segment.file().size().ok())
                .sum();
            // By what the index says, not by what the segments hold: those may be damaged.
            let mut live: Vec<(Vec<u8>, usize)> = Vec::new();
            for row in index.metadata(partition) {
                let row = row?;
                if row.offset < end {
                    let row_bytes = row.key.len() + row.value.len();
                    live.push((row.key, row_bytes));
                }
            }
            let live_bytes: usize = live.iter().map(|(_, bytes)| bytes).sum();
            if live_bytes as u64 * 2 > freed {
                // More would be written than given back.
                continue;
            }
            self.carry_keys(partition, live)?;
            // Oldest first, without gaps, and remembered: a record that deletes a key is dropped here,
            // and an older one that sets it may lie in a segment that is kept for other records.
            if let Some(partition) = self.parts.internal.get(partition).cloned() {
                let starts = vec![(partition.clone(), end)];
                self.submit(0, |reply| Work::RaiseLogStarts { starts, reply })?;
                self.trim(&[partition])?;
            }
        }
        Ok(())
    }

    /// Writes keys again with the values they have.
    fn carry_keys(
        &self,
        partition: PartitionId,
        mut live: Vec<(Vec<u8>, usize)>,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        while !live.is_empty() {
            let (mut keys, mut bytes) = (Vec::new(), 0);
            while let Some((key, key_bytes)) =
                live.pop_if(|(_, more)| bytes == 0 || bytes + *more <= CARRY_BYTES_MAX)
            {
                bytes += key_bytes;
                keys.push(key);
            }
            // When the answer comes, the groups that were changing keys have ended, too.
            let changing = self.submit(bytes, |reply| Work::Carry {
                partition,
                keys,
                reply,
            })?;
            if !changing.is_empty() {
                tries += 1;
                if tries > CARRY_TRIES {
                    return Err(Failure::Busy);
                }
            }
            live.extend(changing.into_iter().map(|key| (key, 0)));
        }
        Ok(())
    }

    /// Unlinks segments that no row names.
    fn remove_segments(&mut self) -> Result<(), Failure> {
        let newest = self.parts.reader.index.checkpoint()?;
        let empty: Vec<SegmentId> = (self.usage.iter())
            .filter(|(id, usage)| usage.is_empty() && newest.is_some_and(|newest| **id < newest))
            .map(|(id, _)| *id)
            .collect();
        for id in empty {
            // Who is reading it holds the file open.
            self.parts.reader.segments.remove(id);
            let removed = match self.parts.disk.remove(&id.file_name()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            // One after the other, oldest first: a file that came back after a crash must not bring a
            // value whose deletion went with a later file.
            removed.map_err(Failure::Remove)?;
            if let Err(error) = self.parts.disk.sync_dir() {
                // Final, as every failed fsync is.
                self.parts
                    .state
                    .fail(format!("fsync of the directory: {error}"));
                return Err(Failure::Remove(error));
            }
            self.usage.remove(&id);
            self.parts.space.removed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(segment = %id, "removed: nothing in it is kept");
        }
        Ok(())
    }

    fn publish(&self) {
        let live = self
            .usage
            .values()
            .map(|usage| usage.topics + usage.internal);
        let sizes = (self.usage.keys())
            .filter_map(|id| self.parts.reader.segments.get(*id))
            .filter_map(|segment| segment.file().size().ok());
        let space = &self.parts.space;
        space.live_bytes.store(live.sum(), Ordering::Relaxed);
        space.sealed_bytes.store(sizes.sum(), Ordering::Relaxed);
    }

    /// Hands work to the writer thread and waits until it is durable.
    fn submit<T>(
        &self,
        bytes: usize,
        work: impl FnOnce(oneshot::Sender<Result<T, AppendError>>) -> Work,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let submission = Submission {
            work: work(reply),
            // It makes room, so it does not wait for any.
            bytes: 0,
        };
        if self.parts.submitter.submit(submission, bytes).is_err() {
            return Err(AppendError::Closed.into());
        }
        Ok(answer.blocking_recv().unwrap_or(Err(AppendError::Closed))?)
    }
}

impl Usage {
    fn add(&mut self, partition: PartitionId, bytes: u64) {
        *self.of(partition) += bytes;
    }

    fn subtract(&mut self, partition: PartitionId, bytes: u64) {
        let of = self.of(partition);
        *of = of.saturating_sub(bytes);
    }

    fn of(&mut self, partition: PartitionId) -> &mut u64 {
        if is_internal(partition) {
            &mut self.internal
        } else {
            &mut self.topics
        }
    }

    fn is_empty(&self) -> bool {
        self.topics == 0 && self.internal == 0
    }
}

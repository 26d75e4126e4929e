//! Retention, compaction, and giving space back. One thread; it wakes when a segment was sealed, when a
//! topic or records were deleted, and every so often.
//!
//! A round takes these steps, each of which may be cut short by a crash and is taken up at the next
//! start:
//!
//! 1. [`retention`] raises log starts, with records of the internal partition: durable before anything
//!    is removed. Then it removes the index rows below log starts and of deleted topics.
//! 2. [`carry`]: where nothing else lives in a segment any more but records of internal partitions,
//!    those that still hold the newest value of their key are written again at the head.
//! 3. *Removing* unlinks segments that no row names.
//! 4. [`compact`] and [`relocate`] copy what is still wanted out of segments into new ones. A new
//!    segment is durable before its rows take the place of the old ones, all at once; then *removing*
//!    comes again.
//! 5. [`scrub`] reads a sealed segment again, when one is due, and verifies it.
//!
//! A row whose removal was lost in a crash is hidden by its log start and removed again; a file whose
//! unlinking was lost, or whose rows were never written, is found without rows and unlinked, before
//! anything new is relocated. The newest appended segment that the index holds always stays: it shows
//! that index and segments belong together.

mod carry;
mod compact;
mod relocate;
mod retention;
mod scrub;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_wal::disk::Disk;
use holdfast_wal::{Segment, SegmentId, Submitter, WalError};
use tokio::sync::oneshot;

use super::error::{AppendError, FetchError};
use super::fetch::Reader;
use super::footer::{self, BlockInfo, Footer};
use super::index::{BlockRef, Changes};
use super::memory::Memory;
use super::partition::Partition;
use super::space::SpaceGuard;
use super::state::{Internal, METADATA, OFFSETS, State};
use super::submission::{Submission, Work};
use super::topic::Retention;
use super::types::{CLOCK_SET_MS, Clock, Offset, PartitionId};

/// How often a full disk is looked at.
const LOW_INTERVAL: Duration = Duration::from_secs(1);

/// What wakes the cleaner.
pub enum Event {
    /// The index holds another segment.
    Sealed {
        segment: SegmentId,
        /// What is in it.
        parts: Vec<BlockInfo>,
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
    pub producer_expiry: Duration,
    pub space: Arc<Space>,
    pub guard: Arc<SpaceGuard>,
    /// Of segments that it writes.
    pub segment_bytes: u32,
    pub boot_epoch: u32,
    /// The newest segment that the index held when the log was opened.
    pub sealed_at_open: SegmentId,
    /// Copied by compaction and relocation in a second, where nothing presses.
    pub bytes_per_second: u64,
    pub memory: Memory,
    /// In which everything is read again once.
    pub scrub_interval: Duration,
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
    /// Bytes of batches copied by compaction and relocation since the log was opened.
    pub relocated_bytes: AtomicU64,
    /// Records taken away by compaction since the log was opened.
    pub compacted_records: AtomicU64,
    /// Idempotent producers that are remembered.
    pub producers: AtomicU64,
    /// Producers forgotten for want of memory since the log was opened.
    pub producers_forgotten: AtomicU64,
    /// Bytes of segments read again since the log was opened.
    pub scrubbed_bytes: AtomicU64,
    /// Bytes found damaged by that.
    pub damaged_bytes: AtomicU64,
    /// What was damaged.
    pub findings: Mutex<Vec<String>>,
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
        emptied: BTreeMap::new(),
        compacted: HashMap::new(),
        output: None,
        next_relocated: 1,
        pace: u64::MAX,
        uncompactable: HashSet::new(),
        unmovable: HashSet::new(),
        halted: false,
        scrub: scrub::Scrub::default(),
    };
    std::thread::Builder::new()
        .name("log-cleaner".into())
        .spawn(move || cleaner.run(&events))
}

/// What the index names in one segment.
#[derive(Debug, Default, Clone, Copy)]
struct Usage {
    /// Of topics.
    topic_rows: u64,
    /// Of internal partitions.
    internal_rows: u64,
    batches: u64,
    /// Of the batches.
    bytes: u64,
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
    /// Rows without batches, by segment.
    emptied: BTreeMap<SegmentId, BTreeSet<(PartitionId, Offset)>>,
    /// Offsets up to which partitions were compacted, as far as they were asked for.
    compacted: HashMap<PartitionId, Offset>,
    /// The relocated segment being written.
    output: Option<relocate::Output>,
    next_relocated: u64,
    /// Bytes that may be copied in a second, by how much there is to be freed.
    pace: u64,
    /// Partitions of which something cannot be read.
    uncompactable: HashSet<PartitionId>,
    /// Segments of which something cannot be read, or that stayed all the same.
    unmovable: HashSet<SegmentId>,
    /// Whether rows were written is not known: nothing is relocated until the next start.
    halted: bool,
    scrub: scrub::Scrub,
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
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Which rows the next start will find is not known.
    #[error("nothing more is relocated until the next start: {0}")]
    Halted(fjall::Error),
    #[error("the log is closing")]
    Closing,
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
        let mut interval = Duration::ZERO;
        loop {
            let mut waiting = Vec::new();
            let mut next = match events.recv_timeout(interval) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let idle = interval.is_zero() && next.is_none();
            interval = self.parts.interval;
            if self.parts.guard.low().is_some() {
                interval = interval.min(LOW_INTERVAL);
            }
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
            self.parts.guard.look_again();
            if surveyed && !idle && !self.parts.guard.is_unwritable() {
                self.round();
                self.parts.guard.look_again();
            }
            self.publish();
            for done in waiting {
                let _ = done.send(());
            }
        }
    }

    /// Counts what every segment and every partition holds.
    fn survey(&mut self) -> Result<(), Failure> {
        let reader = self.parts.reader.clone();
        let newest = reader.index.checkpoint()?;
        // The record of a topic may be among what was lost; then its records are all that is left.
        let damaged = reader.index.was_damaged()?;
        let mut bytes: HashMap<PartitionId, u64> = HashMap::new();
        let mut newest_relocated = SegmentId::relocated(0);
        self.usage = (reader.segments.ids().into_iter())
            .filter(|id| id.is_relocated() || newest.is_some_and(|newest| *id <= newest))
            .map(|id| (id, Usage::default()))
            .collect();
        for block in reader.index.all_blocks() {
            let block = block?;
            let partition = block.info.partition;
            let known = is_internal(partition)
                || self.parts.state.read().partitions.contains_key(&partition);
            if !known && !damaged {
                self.dead.insert(partition);
                self.forgetting.insert(partition);
            }
            self.add_row(&block);
            newest_relocated = newest_relocated.max(block.segment);
            // What was sealed since the log was opened was counted when it was appended.
            if block.segment.is_relocated() || block.segment <= self.parts.sealed_at_open {
                *bytes.entry(partition).or_default() += block.info.batch_bytes;
            }
        }
        let tables = self.parts.state.read();
        for (id, bytes) in bytes {
            if let Some(partition) = tables.partitions.get(&id) {
                partition.add_bytes(bytes);
            }
        }
        let files = reader.segments.ids().into_iter();
        let newest_relocated = files.fold(newest_relocated, SegmentId::max);
        if newest_relocated.is_relocated() {
            self.next_relocated = newest_relocated.number() + 1;
        }
        Ok(())
    }

    fn count(&mut self, segment: SegmentId, parts: &[BlockInfo]) {
        let index = self.parts.reader.index.clone();
        let mut usage = Usage::default();
        for info in parts {
            let partition = info.partition;
            // A row may have been removed again before this was heard of.
            match index.block(partition, info.first) {
                Ok(row) if row.is_none_or(|row| row.segment != segment) => continue,
                _ => usage.add(info),
            }
            // Its row may lie below a log start that was trimmed up to while it was in memory.
            self.trimmed.remove(&partition);
            if self.dead.contains(&partition) {
                self.forgetting.insert(partition);
            }
        }
        self.usage.insert(segment, usage);
    }

    /// Every step is taken, whatever became of the one before: each gives back what it can. But where
    /// something could not be removed, nothing is relocated: two segments must never stand for the
    /// same offsets.
    fn round(&mut self) {
        for id in self.parts.state.take_deleted() {
            self.dead.insert(id);
            self.trimmed.remove(&id);
            self.forgetting.insert(id);
        }
        let steps: [(&str, Step); 9] = [
            ("forgetting deleted topics", Cleaner::forget_deleted),
            ("trimming", Cleaner::trim_all),
            ("retention", Cleaner::retain),
            ("trimming", Cleaner::trim_all),
            (
                "forgetting aborted transactions",
                Cleaner::forget_aborted_below,
            ),
            ("expiring producers", Cleaner::expire_producers),
            ("removing emptied rows", Cleaner::remove_emptied),
            ("carrying metadata", Cleaner::carry),
            ("removing segments", Cleaner::remove_segments),
        ];
        let mut removed = true;
        for (step, take) in steps {
            removed = self.took(step, take);
        }
        if removed && !self.halted && self.parts.state.failure().is_none() {
            self.took("compaction", Cleaner::compact_and_relocate);
            self.took("removing segments", Cleaner::remove_segments);
        }
        self.took("scrubbing", Cleaner::scrub);
    }

    fn took(&mut self, step: &str, take: Step) -> bool {
        match take(self) {
            Ok(()) => true,
            Err(_) if self.parts.state.is_closing() => false,
            Err(error) => {
                tracing::error!(step, %error, "cleaning was cut short; it is tried again in the next round");
                false
            }
        }
    }

    fn compact_and_relocate(&mut self) -> Result<(), Failure> {
        // What gives most space back for least comes first where there is none.
        if self.parts.guard.low().is_some() {
            self.relocate_or_give_up()?;
        }
        let compacted = self.compact().and_then(|()| self.finish_output());
        if compacted.is_err() {
            // What was not finished is given up.
            self.output = None;
            self.compacted.clear();
        }
        self.remove_segments()?;
        self.relocate_or_give_up()?;
        compacted
    }

    fn relocate_or_give_up(&mut self) -> Result<(), Failure> {
        let relocated = if self.halted { Ok(()) } else { self.relocate() };
        if relocated.is_err() {
            self.output = None;
        }
        relocated
    }

    /// Removes rows, all or none, and accounts for it.
    fn remove_rows(&mut self, rows: &[BlockRef], mut changes: Changes) -> Result<(), Failure> {
        for row in rows {
            changes.remove_block(row);
        }
        self.parts.reader.index.apply(changes)?;
        for row in rows {
            self.subtract_row(row);
            self.parts.reader.index.uncache_block(row);
            let tables = self.parts.state.read();
            if let Some(partition) = tables.partitions.get(&row.info.partition) {
                partition.remove_bytes(row.info.batch_bytes);
            }
        }
        Ok(())
    }

    fn add_row(&mut self, row: &BlockRef) {
        let BlockRef { segment, info } = row;
        if let Some(usage) = self.usage.get_mut(segment) {
            usage.add(info);
        }
        if info.batch_bytes == 0 {
            let emptied = self.emptied.entry(*segment).or_default();
            emptied.insert((info.partition, info.first));
        }
    }

    fn subtract_row(&mut self, row: &BlockRef) {
        let BlockRef { segment, info } = row;
        if let Some(usage) = self.usage.get_mut(segment) {
            usage.subtract(info);
        }
        if let Some(emptied) = self.emptied.get_mut(segment) {
            emptied.remove(&(info.partition, info.first));
            if emptied.is_empty() {
                self.emptied.remove(segment);
            }
        }
    }

    fn exists(&self, segment: SegmentId) -> bool {
        self.parts.reader.segments.get(segment).is_some()
    }

    /// Whether a segment may be emptied and removed: it is sealed, and not the newest that was
    /// appended to.
    fn is_closed(&self, segment: SegmentId, newest: Option<SegmentId>) -> bool {
        segment.is_relocated() || newest.is_some_and(|newest| segment < newest)
    }

    /// Unlinks segments that no row names.
    fn remove_segments(&mut self) -> Result<(), Failure> {
        let newest = self.parts.reader.index.checkpoint()?;
        let empty: Vec<SegmentId> = (self.usage.iter())
            .filter(|(id, usage)| usage.is_empty() && self.is_closed(**id, newest))
            .map(|(id, _)| *id)
            .collect();
        for id in empty {
            self.carry_producers(id)?;
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
            // Who is reading it holds the file open.
            self.parts.reader.segments.remove(id);
            self.usage.remove(&id);
            self.parts.space.removed.fetch_add(1, Ordering::Relaxed);
            tracing::info!(segment = %id, "removed: nothing in it is kept");
        }
        Ok(())
    }

    fn publish(&self) {
        let live = self.usage.values().map(|usage| usage.bytes);
        let sizes = self.usage.keys().map(|id| self.size_of(*id));
        let space = &self.parts.space;
        space.live_bytes.store(live.sum(), Ordering::Relaxed);
        space.sealed_bytes.store(sizes.sum(), Ordering::Relaxed);
    }

    fn size_of(&self, segment: SegmentId) -> u64 {
        let segment = self.parts.reader.segments.get(segment);
        segment.map_or(0, |segment| segment.file().size().unwrap_or(0))
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
    fn add(&mut self, info: &BlockInfo) {
        *self.rows_of(info.partition) += 1;
        self.batches += info.batches();
        self.bytes += info.batch_bytes;
    }

    fn subtract(&mut self, info: &BlockInfo) {
        let rows = self.rows_of(info.partition);
        *rows = rows.saturating_sub(1);
        self.batches = self.batches.saturating_sub(info.batches());
        self.bytes = self.bytes.saturating_sub(info.batch_bytes);
    }

    /// What it takes at most when it is relocated.
    fn relocated_bytes(&self) -> u64 {
        let rows = self.topic_rows + self.internal_rows;
        self.bytes + relocate::overhead_bytes(rows, self.batches)
    }

    fn rows_of(&mut self, partition: PartitionId) -> &mut u64 {
        if is_internal(partition) {
            &mut self.internal_rows
        } else {
            &mut self.topic_rows
        }
    }

    fn is_empty(&self) -> bool {
        self.topic_rows == 0 && self.internal_rows == 0
    }
}

/// `None` where it is damaged.
fn footer_of(segment: &Segment) -> Result<Option<Footer>, Failure> {
    let body = segment.footer()?;
    Ok(body.and_then(|(_, body)| footer::decode(&body)))
}

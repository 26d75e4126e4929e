//! One partition: what readers see of it, and what the writer remembers of it.
//!
//! Readers take the read lock for the length of a binary search. Only the writer thread, the sealer
//! and the opening of the log change anything.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak,
};

use holdfast_wal::{Segment, SegmentId};

use super::batch::BatchHeader;
use super::footer::Part;
use super::producers::Producers;
use super::stable::{Event, Stability};
use super::topic::Settings;
use super::types::{Offset, PartitionId, TopicId};
use super::watch::Signal;

/// Where one record batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEntry {
    pub base: Offset,
    /// Offset of the last record, counted from `base`.
    pub last_delta: u32,
    /// In its segment.
    pub position: u32,
    pub bytes: u32,
    pub max_timestamp_ms: i64,
}

impl BatchEntry {
    /// The entry of a stored batch.
    pub fn of(header: &BatchHeader, position: u32) -> BatchEntry {
        BatchEntry {
            base: Offset::new(header.base_offset).unwrap_or_default(),
            last_delta: header.last_offset_delta,
            position,
            bytes: u32::try_from(header.bytes).unwrap_or(u32::MAX),
            max_timestamp_ms: header.max_timestamp_ms,
        }
    }

    /// The offset behind the last record.
    pub fn end(&self) -> Offset {
        self.base.plus(self.last_delta).plus(1)
    }
}

/// One partition of a topic.
#[derive(Debug)]
pub struct Partition {
    id: PartitionId,
    topic: TopicId,
    topic_name: String,
    index: i32,
    settings: RwLock<Settings>,
    high_watermark: AtomicI64,
    last_stable: AtomicI64,
    transactions: RwLock<Stability>,
    log_start: AtomicI64,
    bytes: AtomicU64,
    deleted: AtomicBool,
    /// Number of the newest submission with records for it.
    last_submission: AtomicU64,
    hot: RwLock<VecDeque<HotSegment>>,
    writer: Mutex<WriterState>,
    watchers: Mutex<Vec<Weak<Signal>>>,
}

/// Batches of a segment that the index does not hold yet.
#[derive(Debug)]
pub struct HotSegment {
    pub segment: Arc<Segment>,
    pub part: Part,
}

/// What only the writer thread uses.
#[derive(Debug, Default)]
pub struct WriterState {
    /// The next offset to give; ahead of the high watermark only while a group is being written.
    pub next: Offset,
    pub producers: Producers,
    /// Ahead of the durable log start while a group that raises it is being written.
    pub log_start: Offset,
    /// Place in the group being closed.
    pub slot: Option<usize>,
    /// Size of the batch that was coalesced last: the next one will be about as large.
    pub coalesced_bytes: usize,
    /// The partition has batches in the head segment.
    pub in_head: bool,
    /// Open groups whose records become readable with their fdatasync. What comes behind them waits for
    /// its own, too, whatever the topic says by then: records become readable in order.
    pub syncing: u32,
    /// The topic is about to be one that waits for the disk, which may be durable before what comes now.
    pub leaves_os: bool,
}

impl Partition {
    pub(crate) fn new(
        id: PartitionId,
        topic: TopicId,
        topic_name: String,
        index: i32,
        settings: Settings,
    ) -> Partition {
        Partition {
            id,
            topic,
            topic_name,
            index,
            settings: RwLock::new(settings),
            high_watermark: AtomicI64::new(0),
            last_stable: AtomicI64::new(0),
            transactions: RwLock::default(),
            log_start: AtomicI64::new(0),
            bytes: AtomicU64::new(0),
            deleted: AtomicBool::new(false),
            last_submission: AtomicU64::new(0),
            hot: RwLock::default(),
            writer: Mutex::default(),
            watchers: Mutex::default(),
        }
    }

    /// Number within the topic, from 0.
    pub fn index(&self) -> i32 {
        self.index
    }

    pub fn topic_id(&self) -> TopicId {
        self.topic
    }

    pub fn topic_name(&self) -> &str {
        &self.topic_name
    }

    /// First readable offset.
    pub fn log_start_offset(&self) -> Offset {
        Offset::new(self.log_start.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// First offset that is not yet durable; readers see everything below it.
    pub fn high_watermark(&self) -> Offset {
        Offset::new(self.high_watermark.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// First offset of the first transaction that is not over, else the high watermark; readers of
    /// committed records see what is below it.
    pub fn last_stable_offset(&self) -> Offset {
        Offset::new(self.last_stable.load(Ordering::Acquire)).unwrap_or_default()
    }

    /// Where the ongoing transaction of a producer began here.
    pub fn transaction_start(&self, producer_id: i64) -> Option<Offset> {
        self.transactions().open_since(producer_id)
    }

    pub(crate) fn transactions(&self) -> RwLockReadGuard<'_, Stability> {
        (self.transactions.read()).unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of its transactions; returns where the first open one begins.
    pub(crate) fn change_transactions(
        &self,
        change: impl FnOnce(&mut Stability),
    ) -> Option<Offset> {
        let mut known = (self.transactions.write()).unwrap_or_else(PoisonError::into_inner);
        change(&mut known);
        known.first_open()
    }

    fn settle_last_stable(&self, first_open: Option<Offset>) {
        let end = self.high_watermark();
        let open = first_open.map_or(end, |first| first.max(self.log_start_offset()));
        let stable = open.min(end).value();
        self.last_stable.fetch_max(stable, Ordering::AcqRel);
    }

    /// Bytes of record batches kept. Counted in the background when the log has just been opened.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// As its topic's configuration says.
    pub(crate) fn settings(&self) -> Settings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its topic's configuration has changed.
    pub(crate) fn set_settings(&self, settings: Settings) {
        *self
            .settings
            .write()
            .unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// The newest submission with records for it that its caller has told of. A caller's own ones are
    /// never newer, so what joins this one stays behind what its caller handed in before.
    pub(crate) fn last_submission(&self) -> u64 {
        self.last_submission.load(Ordering::Acquire)
    }

    pub(crate) fn submitted(&self, number: u64) {
        self.last_submission.fetch_max(number, Ordering::AcqRel);
    }

    pub(crate) fn id(&self) -> PartitionId {
        self.id
    }

    pub(crate) fn writer(&self) -> MutexGuard<'_, WriterState> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hot(&self) -> RwLockReadGuard<'_, VecDeque<HotSegment>> {
        self.hot.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn hot_mut(&self) -> RwLockWriteGuard<'_, VecDeque<HotSegment>> {
        self.hot.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its topic was deleted.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    /// Its topic is deleted: who waits for records is woken.
    pub(crate) fn delete(&self) {
        self.deleted.store(true, Ordering::Release);
        self.signal();
    }

    /// What lies below is no longer readable. It is on its way to being removed.
    pub(crate) fn raise_log_start(&self, offset: Offset) {
        self.log_start.fetch_max(offset.value(), Ordering::AcqRel);
        self.high_watermark
            .fetch_max(offset.value(), Ordering::AcqRel);
        self.last_stable.fetch_max(offset.value(), Ordering::AcqRel);
    }

    /// Bytes of it were removed from the index.
    pub(crate) fn remove_bytes(&self, bytes: u64) {
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |all| {
                Some(all.saturating_sub(bytes))
            });
    }

    /// Makes durable batches readable.
    pub(crate) fn publish(
        &self,
        segment: &Arc<Segment>,
        batches: &[BatchEntry],
        events: &[Event],
        append_time_ms: u64,
    ) {
        let Some(last) = batches.last() else { return };
        let mut hot = self.hot_mut();
        match hot.back_mut() {
            Some(back) if back.segment.id() == segment.id() => {
                back.part.batches.extend_from_slice(batches);
                back.part.append_time_ms = back.part.append_time_ms.max(append_time_ms);
            }
            _ => hot.push_back(HotSegment {
                segment: segment.clone(),
                part: Part {
                    batches: batches.to_vec(),
                    append_time_ms,
                },
            }),
        }
        drop(hot);
        self.bytes.fetch_add(
            batches.iter().map(|b| u64::from(b.bytes)).sum(),
            Ordering::Relaxed,
        );
        self.high_watermark
            .fetch_max(last.end().value(), Ordering::AcqRel);
        let open = if events.is_empty() {
            self.transactions().first_open()
        } else {
            // What was aborted is known before anybody may read it.
            self.change_transactions(|known| known.apply(events))
        };
        self.settle_last_stable(open);
        self.signal();
    }

    /// Bytes of it were found in the index.
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes over what the index knows of the partition, when the log is opened and its transactions are
    /// known.
    pub(crate) fn restore(&self, high_watermark: Offset, producers: Producers) {
        self.high_watermark
            .fetch_max(high_watermark.value(), Ordering::AcqRel);
        let mut writer = self.writer();
        writer.next = self.high_watermark();
        writer.producers = producers;
        drop(writer);
        let open = self.transactions().first_open();
        self.settle_last_stable(open);
    }

    /// The next offset is at least this.
    pub(crate) fn skip_to(&self, next: Offset) {
        self.high_watermark
            .fetch_max(next.value(), Ordering::AcqRel);
        self.writer().next = self.high_watermark();
        let open = self.transactions().first_open();
        self.settle_last_stable(open);
    }

    /// The index holds this segment's batches now.
    pub(crate) fn forget_hot(&self, segment: SegmentId) {
        self.hot_mut().retain(|hot| hot.segment.id() != segment);
    }

    /// A copy of what the index does not hold yet.
    pub(crate) fn hot_parts(&self) -> Vec<Part> {
        self.hot().iter().map(|hot| hot.part.clone()).collect()
    }

    /// A copy of its part of one segment, for the sealer.
    pub(crate) fn hot_part(&self, segment: SegmentId) -> Option<Part> {
        let hot = self.hot();
        hot.iter()
            .find(|hot| hot.segment.id() == segment)
            .map(|hot| hot.part.clone())
    }

    pub(crate) fn add_watcher(&self, signal: &Arc<Signal>) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if watchers.len() == watchers.capacity() {
            // Watches of an idle partition come and go without ever being signalled.
            watchers.retain(|watcher| watcher.strong_count() > 0);
        }
        watchers.push(Arc::downgrade(signal));
    }

    fn signal(&self) {
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| match watcher.upgrade() {
            Some(signal) => {
                signal.raise();
                true
            }
            None => false,
        });
    }
}

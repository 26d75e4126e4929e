//! The effects of a judged batch, in the order that survives a kill at any point:
//!
//! 1. **produce** to `telemetry.cleaned` and `telemetry.dlq`, and wait until it is durable;
//! 2. **store** rows, counts, duplicate window and consumed offsets in one transaction;
//! 3. **mirror** the offsets to the group coordinator.
//!
//! A kill before 1 repeats everything; between 1 and 2 the store repeats and [`Produced`] keeps the
//! topics from repeating; between 2 and 3 only the mirror is late, until the next start. While records flow it follows once a second.
//! No step is ever skipped: each is tried again until it succeeds or the pipeline is stopped.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::{Offset, Record, TopicId};
use holdfast_storage::telemetry::{
    Commit, Committed, Duplicate, Position, RecordKey, SeenRecords, StoreError, TelemetryWriter,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::intake::JudgedBatch;
use super::outputs::Produced;
use super::record::Outcome;
use super::status::Report;
use super::{
    CLEANED_TOPIC, DLQ_TOPIC, RAW_TOPIC, SPEED_GROUP, SPEED_TOPIC, TELEMETRY_GROUP, now_ms,
};
use crate::pipelines::event_log::{EventLog, EventLogError, Produce};

/// Shortest time between two mirrorings while records flow.
const MIRROR_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of one append to the output topics; the log bounds what it takes as one piece.
const CHUNK_BYTES_MAX: usize = 3 << 20;
/// Lengths and deltas of one record or header, at most.
const FRAMING_BYTES: usize = 32;

/// When a batch is committed.
#[derive(Clone, Copy)]
pub(super) struct CommitLimits {
    pub(super) records: usize,
    pub(super) age: Duration,
}

/// The one writer at work.
pub(super) struct Committer<L> {
    pub(super) log: L,
    pub(super) writer: Arc<Mutex<TelemetryWriter>>,
    pub(super) seen: SeenRecords,
    pub(super) produced: Produced,
    /// Next offset to judge, by source partition: an intake that had to begin anew reads again what
    /// is still on its way to the store.
    pub(super) next: HashMap<(TopicId, i32), Offset>,
    pub(super) limits: CommitLimits,
    pub(super) partitions: u32,
    pub(super) report: Report,
}

/// A batch whose effects are decided.
#[derive(Default)]
pub(super) struct Prepared {
    /// Records for the output topics, with their sources, in source order.
    outputs: VecDeque<(Position, &'static str, Record)>,
    pub(super) commit: Commit,
}

/// When to mirror: at once after a quiet time, else once in [`MIRROR_INTERVAL`], because every
/// mirroring is an append to the log.
#[derive(Default)]
struct MirrorClock {
    last: Option<Instant>,
    pending: bool,
}

impl MirrorClock {
    /// What `waited` brings, or an inner `None` when a mirroring is due before that.
    async fn wait_for<T>(&self, waited: impl Future<Output = Option<T>>) -> Option<Option<T>> {
        match self.last.filter(|_| self.pending) {
            None => waited.await.map(Some),
            Some(last) => match tokio::time::timeout_at(last + MIRROR_INTERVAL, waited).await {
                Ok(brought) => brought.map(Some),
                Err(_) => Some(None),
            },
        }
    }

    /// Called after a commit.
    fn is_due(&mut self) -> bool {
        self.pending = true;
        self.last
            .is_none_or(|last| last.elapsed() >= MIRROR_INTERVAL)
    }

    fn done(&mut self) {
        *self = MirrorClock {
            last: Some(Instant::now()),
            pending: false,
        };
    }
}

/// The pipeline was told to stop while a step kept failing.
pub(super) struct Interrupted;

impl<L: EventLog> Committer<L> {
    /// Until every intake has ended and what they handed over is committed.
    pub(super) async fn run(
        mut self,
        mut judged: mpsc::Receiver<JudgedBatch>,
        cancel: CancellationToken,
    ) {
        let mut mirror = MirrorClock::default();
        self.mirror().await;
        while let Some(waited) = mirror.wait_for(judged.recv()).await {
            let Some(first) = waited else {
                self.mirror().await;
                mirror.done();
                continue;
            };
            let batches = self.gather(first, &mut judged).await;
            let prepared = self.prepare(batches);
            if self.commit(prepared, &cancel).await.is_err() {
                tracing::warn!(
                    "telemetry pipeline stopped with a batch uncommitted; it is read again at the next start"
                );
                break;
            }
            if mirror.is_due() {
                self.mirror().await;
                mirror.done();
            }
        }
        self.mirror().await;
        judged.close();
        self.close().await;
    }

    /// Batches until there are enough records or the first one is old enough.
    async fn gather(
        &self,
        first: JudgedBatch,
        judged: &mut mpsc::Receiver<JudgedBatch>,
    ) -> Vec<JudgedBatch> {
        let due = Instant::now() + self.limits.age;
        let mut records = first.judged.len();
        let mut batches = vec![first];
        while records < self.limits.records {
            match tokio::time::timeout_at(due, judged.recv()).await {
                Ok(Some(batch)) => {
                    records += batch.judged.len();
                    batches.push(batch);
                }
                Ok(None) | Err(_) => break,
            }
        }
        batches
    }

    /// Decides the effects; only here it is known which records were seen before.
    pub(super) fn prepare(&mut self, batches: Vec<JudgedBatch>) -> Prepared {
        let mut prepared = Prepared::default();
        let mut seen_here: HashSet<RecordKey> = HashSet::new();
        for batch in batches {
            for judged in batch.judged {
                let at = judged.outcome.at();
                if self
                    .next
                    .get(&(at.topic_id, at.partition))
                    .is_some_and(|next| at.offset < *next)
                {
                    continue;
                }
                let known = judged
                    .identity
                    .is_some_and(|key| self.seen.contains(key) || !seen_here.insert(key));
                prepared.add(judged.outcome, known);
                if let (Some(key), false) = (judged.identity, known) {
                    prepared.commit.seen.push(key);
                }
            }
            for at in &batch.next {
                let next = self
                    .next
                    .entry((at.topic_id, at.partition))
                    .or_insert(at.offset);
                *next = at.offset.max(*next);
            }
            let consumed = batch.next.iter().map(|at| (batch.topic.to_owned(), *at));
            prepared.commit.consumed.extend(consumed);
        }
        prepared
    }

    async fn commit(
        &mut self,
        mut prepared: Prepared,
        cancel: &CancellationToken,
    ) -> Result<(), Interrupted> {
        self.produce_until_done(&mut prepared, cancel).await?;
        self.store_until_done(&Arc::new(prepared), cancel).await
    }

    async fn produce_until_done(
        &self,
        prepared: &mut Prepared,
        cancel: &CancellationToken,
    ) -> Result<(), Interrupted> {
        let mut backoff = Backoff::default();
        loop {
            match self.produce(prepared).await {
                Ok(()) => {
                    self.report.working("produce");
                    return Ok(());
                }
                Err(error) => self.report.failing("produce", &error),
            }
            self.wait(&mut backoff, cancel).await?;
        }
    }

    async fn store_until_done(
        &self,
        prepared: &Arc<Prepared>,
        cancel: &CancellationToken,
    ) -> Result<(), Interrupted> {
        let mut backoff = Backoff::default();
        loop {
            match self.store(prepared).await {
                Ok(done) => {
                    self.report.working("store");
                    self.report.committed(done);
                    return Ok(());
                }
                Err(error) => self.report.failing("store", &error),
            }
            self.wait(&mut backoff, cancel).await?;
        }
    }

    async fn wait(
        &self,
        backoff: &mut Backoff,
        cancel: &CancellationToken,
    ) -> Result<(), Interrupted> {
        cancel
            .run_until_cancelled(backoff.wait())
            .await
            .ok_or(Interrupted)
    }

    /// Step 1. What is produced leaves `prepared.outputs`, so that another attempt goes on behind it.
    pub(super) async fn produce(&self, prepared: &mut Prepared) -> Result<(), EventLogError> {
        for topic in [CLEANED_TOPIC, DLQ_TOPIC] {
            self.log.ensure_topic(topic, self.partitions).await?;
        }
        while !prepared.outputs.is_empty() {
            let (taken, outputs) = self.next_chunk(&prepared.outputs)?;
            let positions = self.log.produce(outputs).await?;
            prepared.outputs.drain(..taken);
            note_newest(&mut prepared.commit.produced, &positions);
        }
        Ok(())
    }

    /// The next outputs that the log takes as one piece, and how many of the queue they stand for.
    fn next_chunk(
        &self,
        queue: &VecDeque<(Position, &'static str, Record)>,
    ) -> Result<(usize, Vec<Produce>), EventLogError> {
        let (mut taken, mut bytes, mut outputs) = (0, 0, Vec::new());
        for (source, topic, record) in queue {
            bytes += bytes_of(record);
            if taken > 0 && bytes > CHUNK_BYTES_MAX {
                break;
            }
            taken += 1;
            let partition = match &record.key {
                Some(key) => self.log.partition_for(topic, key)?,
                // A place that a repetition finds again, which taking turns would not.
                None => source.partition % self.log.partitions(topic)?.max(1),
            };
            if !self.produced.holds(*source, (topic, partition)) {
                outputs.push(Produce {
                    topic,
                    partition,
                    record: record.clone(),
                });
            }
        }
        Ok((taken, outputs))
    }

    /// Step 2.
    pub(super) async fn store(&self, prepared: &Arc<Prepared>) -> Result<Committed, StoreFailure> {
        let (writer, prepared) = (Arc::clone(&self.writer), Arc::clone(prepared));
        let write = move || {
            writer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .commit(&prepared.commit, now_ms())
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(done) => Ok(done?),
            Err(error) => Err(StoreFailure::Thread(error.to_string())),
        }
    }

    /// Step 3, from what the store holds. A failure only makes others see an older position: the next
    /// attempt carries a newer one.
    pub(super) async fn mirror(&self) {
        for (topic, group) in [(RAW_TOPIC, TELEMETRY_GROUP), (SPEED_TOPIC, SPEED_GROUP)] {
            let next = self.stored(topic);
            if next.is_empty() {
                continue;
            }
            match self.log.commit(group, &next).await {
                Ok(()) => self.report.working("mirror"),
                Err(error) => self.report.failing("mirror", &error),
            }
        }
    }

    /// Where the store stands in every partition of a topic that it has read from.
    fn stored(&self, topic: &str) -> Vec<Position> {
        let ends = self.log.end_offsets(topic).unwrap_or_default();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = |end: Position| {
            let offset = writer.consumed(end.topic_id, end.partition)?;
            Some(Position { offset, ..end })
        };
        ends.into_iter().filter_map(stored).collect()
    }

    async fn close(self) {
        let Committer { writer, report, .. } = self;
        if let Some(writer) = Arc::into_inner(writer) {
            let close = move || {
                writer
                    .into_inner()
                    .unwrap_or_else(PoisonError::into_inner)
                    .close()
            };
            match tokio::task::spawn_blocking(close).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "telemetry store did not close cleanly"),
                Err(error) => tracing::warn!(%error, "telemetry store did not close cleanly"),
            }
        }
        report.stopped();
    }
}

impl Prepared {
    fn add(&mut self, outcome: Outcome, known: bool) {
        match outcome {
            Outcome::Clean { event, .. } if known => {
                self.commit.duplicates.push(Duplicate {
                    at: event.at,
                    kind: event.kind,
                    received_ms: event.received_ms,
                });
            }
            Outcome::Invalid { row, .. } if known => {
                self.commit.duplicates.push(Duplicate {
                    at: row.at,
                    kind: row.kind,
                    received_ms: row.received_ms,
                });
            }
            Outcome::Clean { event, cleaned } => {
                self.outputs.push_back((event.at, CLEANED_TOPIC, cleaned));
                self.commit.clean.push(event);
            }
            Outcome::Invalid { row, dead } => {
                self.outputs.push_back((row.at, DLQ_TOPIC, dead));
                self.commit.invalid.push(row);
            }
            Outcome::Speed(event) => self.commit.speed.push(event),
        }
    }
}

/// Why step 2 did not happen.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreFailure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the store's thread ended: {0}")]
    Thread(String),
}

fn bytes_of(record: &Record) -> usize {
    let part = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len) + FRAMING_BYTES;
    let headers: usize = record
        .headers
        .iter()
        .map(|header| header.name.len() + part(&header.value))
        .sum();
    part(&record.key) + part(&record.value) + headers
}

/// Keeps the offset after the newest record of each partition.
fn note_newest(newest: &mut Vec<Position>, positions: &[Position]) {
    for at in positions {
        let next = at.offset.plus(1);
        match newest
            .iter_mut()
            .find(|known| (known.topic_id, known.partition) == (at.topic_id, at.partition))
        {
            Some(known) => known.offset = known.offset.max(next),
            None => newest.push(Position {
                offset: next,
                ..*at
            }),
        }
    }
}

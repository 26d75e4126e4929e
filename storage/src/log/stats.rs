//! What the log says about itself: whether it takes appends, what it counted, and what is damaged.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use holdfast_wal::recovery::Damage;

use super::Log;

/// What the log can do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    Accepting,
    /// There is no room for appends; reads and deletions go on, and so does everything when room is back.
    Full {
        reason: String,
    },
    /// The disk cannot be written; reads go on, and appends when it can be written again.
    Unwritable {
        reason: String,
    },
    /// A failed fsync left what is on disk unknown; final until a restart (invariant 11).
    Failed {
        reason: String,
    },
    Closed,
}

/// Counters since the log was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogStats {
    pub records: u64,
    pub batches: u64,
    pub payload_bytes: u64,
    pub written_bytes: u64,
    pub fdatasyncs: u64,
    /// Open now.
    pub segments: u64,
    /// Full, and not yet in the index.
    pub unsealed: u64,
    /// Free on the file system; `None` where it cannot be told.
    pub disk_free_bytes: Option<u64>,
    /// Of all segments.
    pub disk_used_bytes: u64,
    pub disk_reserve_bytes: u64,
    pub disk_bytes_max: Option<u64>,
    /// Times that appends were refused for want of room.
    pub disk_refusals: u64,
    /// Bytes of batches in sealed segments that can be read, as of the last cleaning round.
    pub live_bytes: u64,
    /// Bytes of sealed segments, as of the last cleaning round.
    pub sealed_bytes: u64,
    pub segments_removed: u64,
    /// Bytes of batches that compaction and relocation copied.
    pub relocated_bytes: u64,
    /// Records that compaction took away.
    pub compacted_records: u64,
    /// Submitted and not yet durable; at its bound callers wait.
    pub in_flight_bytes: u64,
    pub in_flight_bytes_max: u64,
    /// Idempotent producers that are remembered, as of the last cleaning round.
    pub producers: u64,
    /// Of those forgotten, the ones for whom there was no memory.
    pub producers_forgotten: u64,
    /// What caches, indexes and compaction may take of memory.
    pub memory_bytes_max: u64,
    /// Bytes of segments that were read again and verified.
    pub scrubbed_bytes: u64,
    /// Bytes that scrubbing found damaged.
    pub damaged_bytes: u64,
}

impl Log {
    pub fn state(&self) -> LogState {
        if let Some(reason) = self.inner.state.failure() {
            return LogState::Failed {
                reason: reason.clone(),
            };
        }
        if self.inner.state.is_closing() {
            return LogState::Closed;
        }
        match self.inner.guard.low() {
            Some(reason) if self.inner.guard.is_unwritable() => LogState::Unwritable { reason },
            Some(reason) => LogState::Full { reason },
            None => LogState::Accepting,
        }
    }

    pub fn stats(&self) -> LogStats {
        let counters = &self.inner.counters;
        let guard = &self.inner.guard;
        let room = guard.room();
        LogStats {
            disk_free_bytes: room.as_ref().ok().map(|room| room.free_bytes),
            disk_used_bytes: room.map_or(0, |room| room.used_bytes),
            disk_reserve_bytes: guard.reserve_bytes(),
            disk_bytes_max: guard.bytes_max(),
            disk_refusals: guard.refusals(),
            records: counters.records.load(Ordering::Relaxed),
            batches: counters.batches.load(Ordering::Relaxed),
            payload_bytes: counters.payload_bytes.load(Ordering::Relaxed),
            written_bytes: counters.written_bytes.load(Ordering::Relaxed),
            fdatasyncs: counters.fdatasyncs.load(Ordering::Relaxed),
            segments: self.inner.reader.segments.len() as u64,
            unsealed: self.inner.state.unsealed.load(Ordering::Acquire) as u64,
            live_bytes: self.inner.space.live_bytes.load(Ordering::Relaxed),
            sealed_bytes: self.inner.space.sealed_bytes.load(Ordering::Relaxed),
            segments_removed: self.inner.space.removed.load(Ordering::Relaxed),
            relocated_bytes: self.inner.space.relocated_bytes.load(Ordering::Relaxed),
            compacted_records: self.inner.space.compacted_records.load(Ordering::Relaxed),
            in_flight_bytes: self.inner.room.used() as u64,
            in_flight_bytes_max: self.inner.room.bytes_max() as u64,
            producers: self.inner.space.producers.load(Ordering::Relaxed),
            producers_forgotten: self.inner.space.producers_forgotten.load(Ordering::Relaxed),
            memory_bytes_max: self.inner.memory_bytes,
            scrubbed_bytes: self.inner.space.scrubbed_bytes.load(Ordering::Relaxed),
            damaged_bytes: self.inner.space.damaged_bytes.load(Ordering::Relaxed),
        }
    }

    /// Acknowledged bytes that could not be read when the log was opened.
    pub fn damage(&self) -> &[Damage] {
        &self.inner.damage
    }

    /// What scrubbing found damaged since then, named by topic, partition and offsets.
    pub fn scrub_findings(&self) -> Vec<String> {
        let findings = self.inner.space.findings.lock();
        findings.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

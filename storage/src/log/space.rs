//! Whether the disk takes appends: a reserve stays free for the cleaner and for what deletes, the
//! segments together may be bounded, and a disk may refuse to be written at all.
//!
//! Where a segment for appends would break into the reserve, space is *low*: appends are refused, at
//! once and by name, while reads, deletions, committed offsets and the cleaner go on, on the reserve.
//! The cleaner looks again every second, and appends are taken again when there is room.
//!
//! A write that fails (a file system that an error has made read-only, say) is treated the same way; it
//! is looked at again by writing a file of its own.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use holdfast_wal::Need;
use holdfast_wal::disk::Disk;

use super::cleaner::Event;
use super::segments::Segments;

/// No segment has this name.
const PROBE: &str = "writable.probe";
const PROBE_BYTES: u64 = 4096;

/// See the module.
pub struct SpaceGuard {
    disk: Arc<dyn Disk>,
    segments: Segments,
    segment_bytes: u64,
    reserve_bytes: u64,
    bytes_max: Option<u64>,
    low: AtomicBool,
    /// For another reason than want of room.
    unwritable: AtomicBool,
    reason: Mutex<String>,
    cleaner: OnceLock<Sender<Event>>,
    /// Times that it became low.
    refusals: AtomicU64,
}

/// What there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Free on the file system.
    pub free_bytes: u64,
    /// Taken by segments.
    pub used_bytes: u64,
}

impl SpaceGuard {
    pub fn new(
        disk: Arc<dyn Disk>,
        segments: Segments,
        segment_bytes: u64,
        reserve_bytes: u64,
        bytes_max: Option<u64>,
    ) -> SpaceGuard {
        SpaceGuard {
            disk,
            segments,
            segment_bytes,
            reserve_bytes,
            bytes_max,
            low: AtomicBool::new(false),
            unwritable: AtomicBool::new(false),
            reason: Mutex::default(),
            cleaner: OnceLock::new(),
            refusals: AtomicU64::new(0),
        }
    }

    /// Who is to look again.
    pub fn tell(&self, cleaner: Sender<Event>) {
        let _ = self.cleaner.set(cleaner);
    }

    pub fn room(&self) -> io::Result<Room> {
        Ok(Room {
            free_bytes: self.disk.free_bytes()?,
            used_bytes: self.segments.bytes(),
        })
    }

    pub fn reserve_bytes(&self) -> u64 {
        self.reserve_bytes
    }

    pub fn bytes_max(&self) -> Option<u64> {
        self.bytes_max
    }

    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    /// Why appends are refused, if they are.
    pub fn low(&self) -> Option<String> {
        let low = self.low.load(Ordering::Acquire);
        low.then(|| self.reason().clone())
    }

    /// Whether that is because the disk cannot be written.
    pub fn is_unwritable(&self) -> bool {
        self.unwritable.load(Ordering::Acquire)
    }

    /// Whether the next segment may be allocated.
    pub fn admit(&self, bytes: u64, need: Need) -> io::Result<()> {
        if self.low.load(Ordering::Acquire) {
            // Only what frees space comes here now; nothing is prepared for later.
            return match need {
                Need::Now => Ok(()),
                Need::Ahead => Err(io::ErrorKind::StorageFull.into()),
            };
        }
        match self.lacking(bytes)? {
            None => Ok(()),
            Some(reason) => {
                self.refuse(reason.clone());
                Err(io::Error::new(io::ErrorKind::StorageFull, reason))
            }
        }
    }

    /// Appends are refused from now on.
    pub fn refuse(&self, reason: String) {
        let mut known = self.reason();
        if !self.low.swap(true, Ordering::AcqRel) {
            known.clone_from(&reason);
            drop(known);
            tracing::error!(
                reason,
                "appends are refused, until the disk takes them again"
            );
            self.refusals.fetch_add(1, Ordering::Relaxed);
            if let Some(cleaner) = self.cleaner.get() {
                let _ = cleaner.send(Event::Wake);
            }
        }
    }

    /// The same, because a write failed.
    pub fn refuse_unwritable(&self, reason: String) {
        self.unwritable.store(true, Ordering::Release);
        self.refuse(reason);
    }

    /// Looks whether there is room again, and whether the disk can be written.
    pub fn look_again(&self) {
        if !self.low.load(Ordering::Acquire) {
            return;
        }
        if self.is_unwritable() && self.probe().is_err() {
            // The reason is still that of the write.
            return;
        }
        self.unwritable.store(false, Ordering::Release);
        match self.lacking(self.segment_bytes) {
            Ok(None) => {
                self.low.store(false, Ordering::Release);
                tracing::info!("there is room again: appends are taken");
            }
            Ok(Some(reason)) => *self.reason() = reason,
            Err(error) => *self.reason() = format!("free space cannot be told: {error}"),
        }
    }

    fn probe(&self) -> io::Result<()> {
        let probe = self.disk.create(PROBE, PROBE_BYTES)?;
        let written = probe.write_vectored_at(&[IoSlice::new(b"probe")], 0);
        let synced = written.and_then(|_| probe.sync_data());
        let removed = self.disk.remove(PROBE);
        synced.and(removed)
    }

    fn lacking(&self, bytes: u64) -> io::Result<Option<String>> {
        let Room {
            free_bytes,
            used_bytes,
        } = self.room()?;
        if free_bytes < bytes.saturating_add(self.reserve_bytes) {
            return Ok(Some(format!(
                "{free_bytes} bytes are free on the disk; the next segment takes {bytes} and {} stay in reserve",
                self.reserve_bytes
            )));
        }
        let limit = self.bytes_max.filter(|max| used_bytes + bytes > *max);
        Ok(limit.map(|max| format!("segments take {used_bytes} bytes of the {max} they may have")))
    }

    fn reason(&self) -> std::sync::MutexGuard<'_, String> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

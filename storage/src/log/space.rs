//! How full the disk may become: a reserve stays free for the cleaner and for what deletes, and the
//! segments together may be bounded.
//!
//! Where a segment for appends would break into the reserve, space is *low*: appends are refused, at
//! once and by name, while reads, deletions, committed offsets and the cleaner go on, on the reserve.
//! The cleaner looks again every second, and appends are taken again when there is room.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_wal::Need;
use holdfast_wal::disk::Disk;

use super::segments::Segments;

/// See the module.
pub struct SpaceGuard {
    disk: Arc<dyn Disk>,
    segments: Segments,
    segment_bytes: u64,
    reserve_bytes: u64,
    bytes_max: Option<u64>,
    low: AtomicBool,
    reason: Mutex<String>,
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
            reason: Mutex::default(),
            refusals: AtomicU64::new(0),
        }
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
        tracing::error!(reason, "appends are refused until there is room again");
        *self.reason() = reason;
        if !self.low.swap(true, Ordering::AcqRel) {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Looks whether there is room again.
    pub fn look_again(&self) {
        if !self.low.load(Ordering::Acquire) {
            return;
        }
        match self.lacking(self.segment_bytes) {
            Ok(None) => {
                self.low.store(false, Ordering::Release);
                tracing::info!("there is room again: appends are taken");
            }
            Ok(Some(reason)) => *self.reason() = reason,
            Err(error) => *self.reason() = format!("free space cannot be told: {error}"),
        }
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

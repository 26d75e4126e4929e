//! What is still wanted of old segments, copied into a new one that gets its name only when it is whole
//! and durable. It is never appended to afterwards.
//!
//! The layer above chooses what is copied, and says in the footer what the new segment stands for.

use std::io::IoSlice;
use std::sync::Arc;

use crate::disk::{Disk, write_all_vectored_at};
use crate::error::WalError;
use crate::format::{
    ENTRY_HEADER_BYTES, EntryHeader, GROUP_HEADER_BYTES, GroupHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, SegmentKind, TRAILER_BYTES,
};
use crate::recovery::REWRITE_SUFFIX;
use crate::segment::{Position, Segment, SegmentId};

/// Bytes after which what is written is synced: one fdatasync of a whole segment would hold up those
/// of the appends.
const SYNC_BYTES: u64 = 4 << 20;

/// A segment being written by relocation. Dropped unfinished it leaves nothing behind.
#[derive(Debug)]
pub struct Relocation {
    disk: Arc<dyn Disk>,
    temporary: String,
    segment: Arc<Segment>,
    end: u32,
    capacity: u32,
    unsynced: u64,
    groups: u64,
    finished: bool,
}

impl Relocation {
    /// Begins the segment `id` with room for `capacity` bytes, footer included.
    pub fn create(
        disk: &Arc<dyn Disk>,
        id: SegmentId,
        boot_epoch: u32,
        salt: u64,
        capacity: u32,
    ) -> Result<Relocation, WalError> {
        let temporary = format!("{}{REWRITE_SUFFIX}", id.file_name());
        let file = disk
            .create(&temporary, u64::from(capacity))
            .map_err(|source| WalError::NoSpace {
                bytes: u64::from(capacity),
                source: Arc::new(source),
            })?;
        let header = SegmentHeader {
            kind: SegmentKind::Relocated,
            boot_epoch,
            id,
            replaces: None,
            salt,
        };
        let relocation = Relocation {
            disk: disk.clone(),
            temporary,
            segment: Arc::new(Segment::new(header, file)),
            end: SEGMENT_HEADER_BYTES,
            capacity,
            unsynced: 0,
            groups: 0,
            finished: false,
        };
        relocation.write(&mut [IoSlice::new(&header.encode())], 0)?;
        Ok(relocation)
    }

    /// Its id.
    pub fn id(&self) -> SegmentId {
        self.segment.id()
    }

    /// Where the next group, or the footer, begins.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// Whether a payload of so many bytes and a footer body of so many still fit.
    pub fn fits(&self, payload_bytes: u64, footer_bytes: u64) -> bool {
        let headers = u64::from(GROUP_HEADER_BYTES + ENTRY_HEADER_BYTES);
        let bytes = headers + payload_bytes + footer_bytes + u64::from(TRAILER_BYTES);
        u64::from(self.end) + bytes <= u64::from(self.capacity)
    }

    /// Writes one entry as a group of its own, and returns the position of its payload.
    pub fn append(
        &mut self,
        stream: u64,
        append_time_ms: u64,
        payload: &[u8],
    ) -> Result<u32, WalError> {
        let header = *self.segment.header();
        let payload_bytes = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let entry_at = self.end + GROUP_HEADER_BYTES;
        let group = GroupHeader {
            sequence: self.groups + 1,
            entries_bytes: ENTRY_HEADER_BYTES.saturating_add(payload_bytes),
            entries: 1,
            durable: Position {
                segment: header.id,
                offset: self.end,
            },
            append_time_ms,
        };
        let pieces = std::iter::once(payload);
        let entry = EntryHeader::of(stream, payload_bytes, pieces, header.seed(entry_at));
        let (group_bytes, entry_bytes) = (group.encode(header.seed(self.end)), entry.encode());
        let mut slices = [
            IoSlice::new(&group_bytes),
            IoSlice::new(&entry_bytes),
            IoSlice::new(payload),
        ];
        self.write(&mut slices, self.end)?;
        let payload_at = entry_at + ENTRY_HEADER_BYTES;
        self.end = payload_at.saturating_add(payload_bytes);
        self.groups += 1;
        self.unsynced += u64::from(payload_bytes);
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            let synced = self.segment.file().sync_data();
            synced.map_err(|error| self.poisoned(error))?;
        }
        Ok(payload_at)
    }

    /// Writes the footer, makes everything durable, and gives the segment its name.
    pub fn finish(mut self, body: &[u8]) -> Result<Arc<Segment>, WalError> {
        self.segment.seal(self.end, self.groups, body)?;
        let name = self.id().file_name();
        self.disk
            .rename(&self.temporary, &name)
            .map_err(|e| WalError::file("renaming", &self.temporary, e))?;
        self.finished = true;
        self.disk.sync_dir().map_err(|error| self.poisoned(error))?;
        Ok(self.segment.clone())
    }

    fn write(&self, slices: &mut [IoSlice<'_>], position: u32) -> Result<(), WalError> {
        write_all_vectored_at(self.segment.file(), slices, u64::from(position)).map_err(|source| {
            WalError::Write {
                segment: self.id(),
                position,
                source: Arc::new(source),
            }
        })
    }

    fn poisoned(&self, error: std::io::Error) -> WalError {
        WalError::Poisoned {
            segment: self.id(),
            source: Arc::new(error),
        }
    }
}

/// What is unfinished is removed; where that fails, the next start does it.
impl Drop for Relocation {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.disk.remove(&self.temporary)
        {
            tracing::warn!(%error, file = self.temporary, "an unfinished relocation stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::disk::SimDisk;

    #[test]
    fn a_relocated_segment_is_whole_or_not_there() {
        for seed in 0..200 {
            let sim = SimDisk::new(seed);
            let disk: Arc<dyn Disk> = Arc::new(sim.clone());
            let id = SegmentId::relocated(3);
            let begin = || Relocation::create(&disk, id, 1, 99, 1 << 20).unwrap();
            drop(begin());
            assert!(disk.list().unwrap().is_empty());
            let mut relocation = begin();
            let at = relocation.append(7, 1000, b"payload").unwrap();
            if seed % 2 == 0 {
                let segment = relocation.finish(b"footer").unwrap();
                assert_eq!(segment.footer().unwrap().unwrap().1, b"footer");
            } else {
                std::mem::forget(relocation);
            }
            sim.crash();
            match Segment::open(disk.as_ref(), id) {
                Ok(Some(segment)) => {
                    assert_eq!(seed % 2, 0);
                    let scan = segment.scan(None).unwrap();
                    let entry = scan.groups.first().unwrap().entries.first().unwrap();
                    assert_eq!((entry.stream, entry.payload_position), (7, at));
                    assert_eq!(scan.groups.first().unwrap().header.append_time_ms, 1000);
                    let mut payload = [0; 7];
                    segment.read(at, &mut payload).unwrap();
                    assert_eq!(&payload, b"payload");
                }
                Ok(None) => panic!("a name without a header"),
                Err(_) => assert_eq!(seed % 2, 1, "seed {seed}"),
            }
        }
    }
}

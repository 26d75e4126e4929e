//! What a crash left behind, made whole before anything is read or written.
//!
//! Only the last segment can hold bytes that were never durable: a later segment's header is written
//! after every group of the earlier one was fdatasynced. Recovery therefore
//! 1. removes preallocated files that were never used and rewrites that never finished;
//! 2. takes the last segment, unless it was sealed, and copies its groups into a new segment that
//!    names what it replaces, fdatasyncs, renames it into place and only then drops the old one:
//!    after a failed fsync Linux may serve pages that are not on disk, so nothing that was merely
//!    *read* back counts as durable;
//! 3. cuts a torn tail, and reports damage (a bad checksum below a position that was durable) with
//!    its segment and position. A damaged segment is kept beside the log as `.damaged`.
//!
//! Rot in the very last group cannot be told from a torn write, because nothing later vouches for it.

use std::io::IoSlice;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, write_all_vectored_at};
use crate::error::WalError;
use crate::format::{
    ENTRY_HEADER_BYTES, EntryHeader, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader,
    SEGMENT_HEADER_BYTES, SegmentHeader, SegmentKind,
};
use crate::segment::{Position, Scan, ScannedGroup, Segment, SegmentId};
use crate::writer::{WalOptions, Writer};

/// Bytes that had been durable and cannot be read any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where they begin.
    pub position: Position,
    /// How many.
    pub bytes: u32,
}

/// A log ready to be read and continued.
#[derive(Debug)]
pub struct Recovered {
    /// Every segment that was appended to, oldest first; all of it durable. Those without a trailer
    /// still need one.
    pub segments: Vec<Arc<Segment>>,
    /// Every segment that relocation wrote, oldest first; each is whole and durable.
    pub relocated: Vec<Arc<Segment>>,
    /// Rises at every start.
    pub boot_epoch: u32,
    /// Damage found in the tail; older segments are not read here.
    pub damage: Vec<Damage>,
    /// Bytes of a torn tail were cut.
    pub torn_tail: bool,
    /// The log was closed in order: the last segment that was appended to is sealed, and nothing was
    /// prepared behind it; or there is none.
    pub clean: bool,
    /// Continues the log.
    pub writer: Writer,
}

/// Suffix of a rewrite or relocation in progress.
pub(crate) const REWRITE_SUFFIX: &str = ".rewrite";
/// Suffix of a segment kept as evidence.
const DAMAGED_SUFFIX: &str = ".damaged";

/// Opens the log in `disk`'s directory.
pub fn recover(disk: &Arc<dyn Disk>, options: WalOptions) -> Result<Recovered, WalError> {
    let Opened {
        mut segments,
        relocated,
        mut damage,
        newest_id,
        mut clean,
    } = open_segments(disk.as_ref())?;
    let mut torn_tail = false;
    let boot_epoch = segments
        .iter()
        .chain(&relocated)
        .map(|s| s.header().boot_epoch)
        .max()
        .unwrap_or(0)
        .saturating_add(1);
    let mut next_segment = newest_id.next();
    let mut next_sequence = 1;
    if let Some(last) = segments.last().cloned() {
        match last.trailer()? {
            Some(trailer) => {
                next_sequence = trailer.last_sequence.saturating_add(1);
                // What recovery rewrote was sealed by it: nothing was appended since.
                clean &= last.header().kind == SegmentKind::Appended;
            }
            None => {
                clean = false;
                let scan = last.scan(None)?;
                torn_tail = scan.torn;
                damage.extend(scan.damage.iter().map(|&(offset, bytes)| Damage {
                    position: Position {
                        segment: last.id(),
                        offset,
                    },
                    bytes,
                }));
                next_sequence = scan
                    .groups
                    .last()
                    .map_or(0, |g| g.header.sequence)
                    .saturating_add(1);
                let before = segments
                    .len()
                    .checked_sub(2)
                    .and_then(|i| segments.get(i))
                    .cloned();
                segments.pop();
                if scan.groups.is_empty() {
                    next_sequence =
                        next_sequence.max(last_sequence_of(before.as_deref())?.saturating_add(1));
                }
                if let Some(rewritten) = rewrite(
                    disk.as_ref(),
                    &last,
                    &scan,
                    next_segment,
                    boot_epoch,
                    &options,
                )? {
                    next_segment = next_segment.next();
                    segments.push(Arc::new(rewritten));
                }
            }
        }
    }
    let writer = Writer::new(
        disk.clone(),
        options,
        boot_epoch,
        next_segment,
        next_sequence,
    );
    Ok(Recovered {
        segments,
        relocated,
        boot_epoch,
        damage,
        torn_tail,
        clean,
        writer,
    })
}

/// Where the groups of `segment` end, if it was never sealed: the next segment's first group says so.
pub fn groups_end_before(next: &Segment, segment: SegmentId) -> Result<Option<u32>, WalError> {
    let mut bytes = [0; GROUP_HEADER_BYTES as usize];
    next.read(SEGMENT_HEADER_BYTES, &mut bytes)?;
    let header = GroupHeader::decode(&bytes, next.header().seed(SEGMENT_HEADER_BYTES));
    Ok(header
        .filter(|h| h.durable.segment == segment)
        .map(|h| h.durable.offset))
}

fn last_sequence_of(segment: Option<&Segment>) -> Result<u64, WalError> {
    let Some(segment) = segment else { return Ok(0) };
    match segment.trailer()? {
        Some(trailer) => Ok(trailer.last_sequence),
        None => Ok(segment
            .scan(None)?
            .groups
            .last()
            .map_or(0, |g| g.header.sequence)),
    }
}

struct Opened {
    segments: Vec<Arc<Segment>>,
    relocated: Vec<Arc<Segment>>,
    damage: Vec<Damage>,
    /// Ids up to this one were given, also to files that are no longer segments.
    newest_id: SegmentId,
    /// No file was prepared for appends.
    clean: bool,
}

/// Removes leftovers and opens what holds groups.
fn open_segments(disk: &dyn Disk) -> Result<Opened, WalError> {
    let names = disk
        .list()
        .map_err(|e| WalError::file("listing", "segments", e))?;
    let mut ids: Vec<SegmentId> = names
        .iter()
        .filter_map(|name| SegmentId::from_file_name(name))
        .collect();
    ids.sort_unstable();
    for name in names.iter().filter(|name| name.ends_with(REWRITE_SUFFIX)) {
        remove(disk, name)?;
    }
    let mut segments: Vec<Arc<Segment>> = Vec::with_capacity(ids.len());
    let mut relocated = Vec::new();
    let mut headless = Vec::new();
    for id in ids {
        match Segment::open(disk, id)? {
            Some(segment) if id.is_relocated() => relocated.push(Arc::new(segment)),
            Some(segment) => segments.push(Arc::new(segment)),
            None => headless.push(id),
        }
    }
    let mut damage = Vec::new();
    let mut newest_id = ids_max(&names);
    for name in &names {
        let kept = name
            .strip_suffix(DAMAGED_SUFFIX)
            .and_then(SegmentId::from_file_name);
        if let Some(id) = kept {
            if !id.is_relocated() {
                newest_id = newest_id.max(id);
            }
            let file = disk
                .open(name)
                .map_err(|e| WalError::file("opening", name, e))?;
            let size = file.size().map_err(|e| WalError::file("sizing", name, e))?;
            let bytes = u32::try_from(size).unwrap_or(u32::MAX);
            damage.push(Damage {
                position: Position {
                    segment: id,
                    offset: 0,
                },
                bytes,
            });
        }
    }
    let newest = segments.last().map(|s| s.id());
    let clean = headless.iter().all(|id| id.is_relocated());
    for id in headless {
        // What relocation wrote got its name when it was durable.
        let was_durable = id.is_relocated() || newest.is_some_and(|newest| newest > id);
        if was_durable || has_durable_group(disk, id)? {
            let bytes = keep_as_damaged(disk, id)?;
            damage.push(Damage {
                position: Position {
                    segment: id,
                    offset: 0,
                },
                bytes,
            });
        } else {
            remove(disk, &id.file_name())?;
        }
    }
    // A rewrite gets its name only when it is whole and durable, so what it replaces is not needed.
    let replaced: Vec<SegmentId> = segments
        .iter()
        .filter_map(|s| s.header().replaces)
        .collect();
    for id in replaced {
        if segments.iter().any(|s| s.id() == id) {
            segments.retain(|s| s.id() != id);
            remove(disk, &id.file_name())?;
        }
    }
    sync_dir(disk)?;
    Ok(Opened {
        segments,
        relocated,
        damage,
        newest_id,
        clean,
    })
}

fn ids_max(names: &[String]) -> SegmentId {
    let ids = names
        .iter()
        .filter_map(|name| SegmentId::from_file_name(name));
    ids.filter(|id| !id.is_relocated())
        .max()
        .unwrap_or(SegmentId(0))
}

/// Whether a file without a valid header ever held a durable group. Its checksums cannot be verified
/// without the header's salt, but a second group is written only after the first was fdatasynced.
fn has_durable_group(disk: &dyn Disk, id: SegmentId) -> Result<bool, WalError> {
    let name = id.file_name();
    let file = disk
        .open(&name)
        .map_err(|e| WalError::file("opening", &name, e))?;
    let mut groups = 0;
    let mut chunk = vec![0; 1 << 20];
    let mut position = 0;
    loop {
        let read = file
            .read_at(&mut chunk, position)
            .map_err(|e| WalError::file("reading", &name, e))?;
        let window = chunk.get(..read).unwrap_or_default();
        groups += window
            .windows(GROUP_MAGIC.len())
            .filter(|four| *four == GROUP_MAGIC)
            .count();
        if read < GROUP_MAGIC.len() || groups > 1 {
            return Ok(groups > 1);
        }
        position += (read + 1 - GROUP_MAGIC.len()) as u64;
    }
}

fn keep_as_damaged(disk: &dyn Disk, id: SegmentId) -> Result<u32, WalError> {
    let name = id.file_name();
    let file = disk
        .open(&name)
        .map_err(|e| WalError::file("opening", &name, e))?;
    let size = file
        .size()
        .map_err(|e| WalError::file("sizing", &name, e))?;
    let kept = format!("{name}{DAMAGED_SUFFIX}");
    disk.rename(&name, &kept)
        .map_err(|e| WalError::file("renaming", &name, e))?;
    Ok(u32::try_from(size).unwrap_or(u32::MAX))
}

/// Copies the groups of `old` into a new durable segment and drops `old`. `None`: there were none.
fn rewrite(
    disk: &dyn Disk,
    old: &Segment,
    scan: &Scan,
    id: SegmentId,
    boot_epoch: u32,
    options: &WalOptions,
) -> Result<Option<Segment>, WalError> {
    let name = id.file_name();
    let temporary = format!("{name}{REWRITE_SUFFIX}");
    let rewritten = if scan.groups.is_empty() {
        None
    } else {
        // No more than it needs: the disk may be full, and only this lets the old segment go.
        let capacity = u64::from(scan.end);
        let file = disk
            .create(&temporary, capacity)
            .map_err(|e| WalError::NoSpace {
                bytes: capacity,
                source: Arc::new(e),
            })?;
        let header = SegmentHeader {
            kind: SegmentKind::Rewritten,
            boot_epoch,
            id,
            replaces: Some(old.id()),
            salt: (options.salt)(),
        };
        let end = copy_groups(old, scan, header, file.as_ref(), &temporary)?;
        file.truncate(u64::from(end))
            .map_err(|e| WalError::file("truncating", &temporary, e))?;
        file.sync_data().map_err(|e| WalError::Poisoned {
            segment: id,
            source: Arc::new(e),
        })?;
        disk.rename(&temporary, &name)
            .map_err(|e| WalError::file("renaming", &temporary, e))?;
        sync_dir(disk)?;
        Some(Segment::new(header, file))
    };
    let old_name = old.id().file_name();
    if scan.damage.is_empty() {
        remove(disk, &old_name)?;
    } else {
        keep_as_damaged(disk, old.id())?;
    }
    sync_dir(disk)?;
    Ok(rewritten)
}

fn copy_groups(
    old: &Segment,
    scan: &Scan,
    header: SegmentHeader,
    file: &dyn DiskFile,
    name: &str,
) -> Result<u32, WalError> {
    let mut position = SEGMENT_HEADER_BYTES;
    let failed = |e| WalError::file("writing", name, e);
    write_all_vectored_at(file, &mut [IoSlice::new(&header.encode())], 0).map_err(failed)?;
    for group in &scan.groups {
        let bytes = copy_group(old, group, header, position)?;
        write_all_vectored_at(file, &mut [IoSlice::new(&bytes)], u64::from(position))
            .map_err(failed)?;
        position += u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    }
    Ok(position)
}

/// The bytes of `group` as they must be at `position` of another segment: same sequence number and
/// payloads, other seeds.
fn copy_group(
    old: &Segment,
    group: &ScannedGroup,
    header: SegmentHeader,
    position: u32,
) -> Result<Vec<u8>, WalError> {
    let entries_bytes = group
        .entries
        .iter()
        .map(|e| ENTRY_HEADER_BYTES + e.payload_bytes)
        .sum();
    let entries = u32::try_from(group.entries.len()).unwrap_or(u32::MAX);
    // A position in an earlier segment tells where that one ends, so it is kept.
    let own = group.header.durable.segment == old.id();
    let durable = if own {
        Position {
            segment: header.id,
            offset: position,
        }
    } else {
        group.header.durable
    };
    let group_header = GroupHeader {
        entries_bytes,
        entries,
        durable,
        ..group.header
    };
    let mut out = Vec::with_capacity((GROUP_HEADER_BYTES + entries_bytes) as usize);
    out.extend_from_slice(&group_header.encode(header.seed(position)));
    for entry in &group.entries {
        let at = position + u32::try_from(out.len()).unwrap_or(u32::MAX);
        let mut payload = vec![0; entry.payload_bytes as usize];
        old.read(entry.payload_position, &mut payload)?;
        let pieces = std::iter::once(payload.as_slice());
        out.extend_from_slice(
            &EntryHeader::of(entry.stream, entry.payload_bytes, pieces, header.seed(at)).encode(),
        );
        out.extend_from_slice(&payload);
    }
    Ok(out)
}

fn remove(disk: &dyn Disk, name: &str) -> Result<(), WalError> {
    disk.remove(name)
        .map_err(|e| WalError::file("removing", name, e))
}

fn sync_dir(disk: &dyn Disk) -> Result<(), WalError> {
    disk.sync_dir()
        .map_err(|e| WalError::file("fsync of the directory", "segments", e))
}

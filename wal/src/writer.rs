//! Groups into the head segment: one vectored write a group, rolled back whole if it fails.
//!
//! Several groups may be written before an fdatasync covers them, but never across two segments: the
//! header of a segment implies that everything before it is durable. Nor behind a segment's first
//! group: what a crash leaves without a valid segment header then held one group at most.

use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile, write_all_vectored_at};
use crate::error::WalError;
use crate::format::{
    ENTRY_HEADER_BYTES, EntryHeader, GROUP_HEADER_BYTES, GroupHeader, SEGMENT_HEADER_BYTES,
    SegmentHeader, SegmentKind,
};
use crate::segment::{Position, Segment, SegmentId};

/// See [`WalOptions::admit`].
pub type Admit = Arc<dyn Fn(u64, Need) -> std::io::Result<()> + Send + Sync>;

/// When a segment is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A group waits for it.
    Now,
    /// It is prepared for when the head is full.
    Ahead,
}

/// How a wal is written.
#[derive(Clone)]
pub struct WalOptions {
    /// Size of a segment: preallocated, and what a group must fit into.
    pub segment_bytes: u32,
    /// Preallocates the next segment on a thread of its own, so that rolling does not wait for it.
    pub prepare_ahead: bool,
    /// Asked before so many bytes are preallocated for the next segment, and whether it is needed now or
    /// only prepared; what it answers is told as "no space".
    pub admit: Admit,
    /// Milliseconds since the Unix epoch; kept in group headers.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A fresh random number for every segment's checksums.
    pub salt: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl fmt::Debug for WalOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalOptions")
            .field("segment_bytes", &self.segment_bytes)
            .finish_non_exhaustive()
    }
}

/// Entries that become durable together, in the order they were begun.
#[derive(Debug, Default)]
pub struct Group {
    entries: Vec<GroupEntry>,
    pieces: Vec<Bytes>,
    bytes: u64,
}

#[derive(Debug)]
struct GroupEntry {
    stream: u64,
    first_piece: usize,
    pieces_end: usize,
    payload_bytes: u32,
}

impl Group {
    /// Begins an entry; its payload is what is pushed until the next one begins.
    pub fn begin_entry(&mut self, stream: u64) {
        let at = self.pieces.len();
        self.entries.push(GroupEntry {
            stream,
            first_piece: at,
            pieces_end: at,
            payload_bytes: 0,
        });
        self.bytes += u64::from(ENTRY_HEADER_BYTES);
    }

    /// Adds a piece to the entry begun last, without copying it.
    pub fn push(&mut self, piece: Bytes) {
        debug_assert!(!self.entries.is_empty(), "a piece needs an entry");
        if let Some(entry) = self.entries.last_mut() {
            self.bytes += piece.len() as u64;
            entry.payload_bytes = entry
                .payload_bytes
                .saturating_add(u32::try_from(piece.len()).unwrap_or(u32::MAX));
            self.pieces.push(piece);
            entry.pieces_end = self.pieces.len();
        }
    }

    /// Nothing to write.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes it will take on disk, its header included.
    pub fn disk_bytes(&self) -> u64 {
        self.bytes + u64::from(GROUP_HEADER_BYTES)
    }

    /// Empties it and keeps its allocations.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.pieces.clear();
        self.bytes = 0;
    }
}

/// Where a group was put.
#[derive(Debug)]
pub struct Placed {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Payload position of each entry, in the group's order.
    pub payload_positions: Vec<u32>,
    /// Milliseconds since the Unix epoch, as in the group's header.
    pub append_time_ms: u64,
    /// Bytes written, headers included.
    pub bytes: u64,
    end: u32,
}

impl Placed {
    /// Where it ends; durable when the writer's durable position has reached it.
    pub fn end(&self) -> Position {
        Position {
            segment: self.segment.id(),
            offset: self.end,
        }
    }
}

/// A segment that takes no more groups; all of it is durable. Somebody must seal it.
#[derive(Debug)]
pub struct Retired {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Where its groups end.
    pub groups_end: u32,
    /// Sequence number of its last group.
    pub last_sequence: u64,
}

/// The one writer of a wal.
#[derive(Debug)]
pub struct Writer {
    options: WalOptions,
    boot_epoch: u32,
    next_segment: SegmentId,
    next_sequence: u64,
    durable: Position,
    head: Option<Head>,
    roll_asked: bool,
    retired: Vec<Retired>,
    spares: Spares,
    poisoned: Option<WalError>,
    headers: Vec<u8>,
}

#[derive(Debug)]
struct Head {
    segment: Arc<Segment>,
    /// End of the durable groups.
    durable_end: u32,
    /// End of the written groups.
    written_end: u32,
}

impl Head {
    /// Has groups that no fdatasync has covered.
    fn is_unsettled(&self) -> bool {
        self.written_end > self.durable_end
    }

    /// Not even its first group, which carries the segment's header, is durable.
    fn is_fresh(&self) -> bool {
        self.durable_end == SEGMENT_HEADER_BYTES
    }
}

/// An fdatasync to be done: whatever was written before it began.
#[derive(Debug, Clone)]
pub struct PendingSync {
    segment: Arc<Segment>,
    /// End of the groups it covers.
    end: u32,
}

impl PendingSync {
    /// Calls fdatasync; on any thread. [`Writer::finish_sync`] must be told, whatever came of it.
    pub fn run(&self) -> std::io::Result<()> {
        self.segment.file().sync_data()
    }
}

impl Writer {
    /// Continues a log whose last group had `next_sequence - 1` and whose segments lie below `next_segment`.
    pub fn new(
        disk: Arc<dyn Disk>,
        options: WalOptions,
        boot_epoch: u32,
        next_segment: SegmentId,
        next_sequence: u64,
    ) -> Writer {
        let durable = Position {
            segment: next_segment,
            offset: SEGMENT_HEADER_BYTES,
        };
        let spares = Spares::new(disk, &options, next_segment);
        Writer {
            options,
            boot_epoch,
            next_segment,
            next_sequence,
            durable,
            head: None,
            roll_asked: false,
            retired: Vec::new(),
            spares,
            poisoned: None,
            headers: Vec::new(),
        }
    }

    /// Everything before this is on disk.
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// The next group goes to a new segment.
    pub fn roll_before_next(&mut self) {
        self.roll_asked = true;
    }

    /// Segments that rolling has finished since the last call.
    pub fn take_retired(&mut self) -> Vec<Retired> {
        std::mem::take(&mut self.retired)
    }

    /// Whether what is written must be durable before `group` can be written.
    pub fn must_settle_before(&self, group: &Group) -> bool {
        self.head.as_ref().is_some_and(|head| {
            head.is_unsettled() && (head.is_fresh() || self.must_roll(head, group.disk_bytes()))
        })
    }

    /// Writes a group. It is not durable before an fdatasync; if this fails nothing of it stays, and
    /// the groups before it are as they were.
    pub fn write(&mut self, group: &Group) -> Result<Placed, WalError> {
        if let Some(poison) = &self.poisoned {
            return Err(poison.clone());
        }
        let segment_bytes = self.options.segment_bytes;
        let bytes = group.disk_bytes();
        if bytes + u64::from(SEGMENT_HEADER_BYTES) > u64::from(segment_bytes) {
            return Err(WalError::TooLarge {
                bytes,
                segment_bytes,
            });
        }
        if self.must_settle_before(group) {
            return Err(WalError::Unsettled);
        }
        let stamp = GroupStamp {
            sequence: self.next_sequence,
            durable: self.durable,
            append_time_ms: (self.options.clock)(),
        };
        self.make_room(bytes)?;
        let Some(head) = self.head.as_mut() else {
            return Err(WalError::Closed);
        };
        let placed = head.write(group, &mut self.headers, stamp)?;
        self.next_sequence += 1;
        Ok(placed)
    }

    /// fdatasync of all that is written.
    pub fn sync(&mut self) -> Result<(), WalError> {
        match self.begin_sync()? {
            Some(pending) => {
                let result = pending.run();
                self.finish_sync(pending, result)
            }
            None => Ok(()),
        }
    }

    /// What an fdatasync must cover now; `None` if nothing is written. One at a time.
    pub fn begin_sync(&mut self) -> Result<Option<PendingSync>, WalError> {
        if let Some(poison) = &self.poisoned {
            return Err(poison.clone());
        }
        let head = self.head.as_ref().filter(|head| head.is_unsettled());
        Ok(head.map(|head| PendingSync {
            segment: head.segment.clone(),
            end: head.written_end,
        }))
    }

    /// What came of an fdatasync. After an error nothing more is ever written: what is on disk is
    /// unknown.
    pub fn finish_sync(
        &mut self,
        pending: PendingSync,
        result: std::io::Result<()>,
    ) -> Result<(), WalError> {
        if let Some(poison) = &self.poisoned {
            return Err(poison.clone());
        }
        if let Err(error) = result {
            let poison = WalError::Poisoned {
                segment: pending.segment.id(),
                source: Arc::new(error),
            };
            self.poisoned = Some(poison.clone());
            return Err(poison);
        }
        if let Some(head) = self.head.as_mut() {
            head.durable_end = head.durable_end.max(pending.end);
        }
        self.durable = Position {
            segment: pending.segment.id(),
            offset: pending.end,
        };
        Ok(())
    }

    /// Retires the head and removes what was preallocated; nothing can be written afterwards.
    pub fn close(&mut self) -> Option<Retired> {
        self.retire_head();
        let poisoned = self.poisoned.replace(WalError::Closed);
        self.spares.close();
        match poisoned {
            Some(_) => None,
            None => self.retired.pop(),
        }
    }

    fn must_roll(&self, head: &Head, bytes: u64) -> bool {
        let used = head.written_end > SEGMENT_HEADER_BYTES;
        !self.fits(head, bytes) || (self.roll_asked && used)
    }

    fn fits(&self, head: &Head, bytes: u64) -> bool {
        u64::from(head.written_end) + bytes <= u64::from(self.options.segment_bytes)
    }

    fn make_room(&mut self, bytes: u64) -> Result<(), WalError> {
        let head = self.head.as_ref();
        if head.is_some_and(|head| !self.must_roll(head, bytes)) {
            return Ok(());
        }
        let head_fits = head.is_some_and(|head| self.fits(head, bytes));
        let id = self.next_segment;
        let file = match self.spares.take(id) {
            Ok(file) => file,
            // A new segment was only wished for: on a full disk the head is used to its end, so that
            // what deletes still finds room.
            Err(WalError::NoSpace { .. }) if head_fits => return Ok(()),
            Err(error) => {
                if matches!(error, WalError::Poisoned { .. }) {
                    self.poisoned = Some(error.clone());
                }
                return Err(error);
            }
        };
        self.retire_head();
        self.roll_asked = false;
        self.next_segment = id.next();
        let salt = (self.options.salt)();
        let header = SegmentHeader {
            kind: SegmentKind::Appended,
            boot_epoch: self.boot_epoch,
            id,
            replaces: None,
            salt,
        };
        let segment = Arc::new(Segment::new(header, file));
        self.head = Some(Head {
            segment,
            durable_end: SEGMENT_HEADER_BYTES,
            written_end: SEGMENT_HEADER_BYTES,
        });
        Ok(())
    }

    fn retire_head(&mut self) {
        let last_sequence = self.next_sequence.saturating_sub(1);
        if let Some(head) = self.head.take().filter(|head| !head.is_fresh()) {
            self.retired.push(Retired {
                segment: head.segment,
                groups_end: head.durable_end,
                last_sequence,
            });
        }
    }
}

struct GroupStamp {
    sequence: u64,
    durable: Position,
    append_time_ms: u64,
}

impl Head {
    fn write(
        &mut self,
        group: &Group,
        headers: &mut Vec<u8>,
        stamp: GroupStamp,
    ) -> Result<Placed, WalError> {
        let header = *self.segment.header();
        headers.clear();
        let begin = self.written_end;
        let segment_header_bytes = if self.is_fresh() {
            headers.extend_from_slice(&header.encode());
            SEGMENT_HEADER_BYTES as usize
        } else {
            0
        };
        let entries_bytes = u32::try_from(group.bytes).unwrap_or(u32::MAX);
        let entries = u32::try_from(group.entries.len()).unwrap_or(u32::MAX);
        let GroupStamp {
            sequence,
            durable,
            append_time_ms,
        } = stamp;
        let group_header = GroupHeader {
            sequence,
            entries_bytes,
            entries,
            durable,
            append_time_ms,
        };
        headers.extend_from_slice(&group_header.encode(header.seed(begin)));
        let mut position = begin + GROUP_HEADER_BYTES;
        let mut payload_positions = Vec::with_capacity(group.entries.len());
        for entry in &group.entries {
            let pieces = group
                .pieces
                .get(entry.first_piece..entry.pieces_end)
                .unwrap_or_default();
            let pieces = pieces.iter().map(|piece| piece.as_ref());
            let entry_header = EntryHeader::of(
                entry.stream,
                entry.payload_bytes,
                pieces,
                header.seed(position),
            );
            headers.extend_from_slice(&entry_header.encode());
            payload_positions.push(position + ENTRY_HEADER_BYTES);
            position += ENTRY_HEADER_BYTES + entry.payload_bytes;
        }
        let mut slices = Vec::with_capacity(1 + group.entries.len() + group.pieces.len());
        let (first, mut rest) =
            headers.split_at(segment_header_bytes + GROUP_HEADER_BYTES as usize);
        slices.push(IoSlice::new(first));
        for entry in &group.entries {
            let (entry_header, after) = rest
                .split_at_checked(ENTRY_HEADER_BYTES as usize)
                .unwrap_or_default();
            rest = after;
            slices.push(IoSlice::new(entry_header));
            let pieces = group
                .pieces
                .get(entry.first_piece..entry.pieces_end)
                .unwrap_or_default();
            slices.extend(pieces.iter().map(|piece| IoSlice::new(piece)));
        }
        let at = u64::from(begin) - segment_header_bytes as u64;
        write_all_vectored_at(self.segment.file(), &mut slices, at).map_err(|source| {
            WalError::Write {
                segment: header.id,
                position: begin,
                source: Arc::new(source),
            }
        })?;
        self.written_end = position;
        let bytes = u64::from(position - begin) + segment_header_bytes as u64;
        Ok(Placed {
            segment: self.segment.clone(),
            payload_positions,
            append_time_ms,
            bytes,
            end: position,
        })
    }
}

type Preallocated = Result<Arc<dyn DiskFile>, WalError>;

/// The next segment's file, preallocated before it is needed.
#[derive(Debug)]
struct Spares {
    allocator: Allocator,
    ahead: Option<Ahead>,
}

#[derive(Clone)]
struct Allocator {
    disk: Arc<dyn Disk>,
    capacity: u64,
    admit: Admit,
}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator")
            .field("capacity", &self.capacity)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Ahead {
    asks: Sender<(SegmentId, Need)>,
    /// What the thread is working on, or has ready.
    asked: Option<SegmentId>,
    ready: Receiver<(SegmentId, Preallocated)>,
    thread: JoinHandle<()>,
}

impl Spares {
    fn new(disk: Arc<dyn Disk>, options: &WalOptions, first: SegmentId) -> Spares {
        let mut spares = Spares {
            allocator: Allocator {
                disk,
                capacity: u64::from(options.segment_bytes),
                admit: options.admit.clone(),
            },
            ahead: None,
        };
        if options.prepare_ahead {
            spares.ahead = spares.spawn(first);
        }
        spares
    }

    /// Without a thread (none could be started) files are preallocated when they are needed.
    fn spawn(&self, first: SegmentId) -> Option<Ahead> {
        let (ask, asks) = channel::<(SegmentId, Need)>();
        let (done, ready) = channel();
        let allocator = self.allocator.clone();
        let work = move || {
            for (id, need) in asks {
                if done.send((id, allocator.preallocate(id, need))).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("wal-preallocate".into())
            .spawn(work)
            .ok()?;
        ask.send((first, Need::Ahead)).ok()?;
        Some(Ahead {
            asks: ask,
            asked: Some(first),
            ready,
            thread,
        })
    }

    fn take(&mut self, id: SegmentId) -> Preallocated {
        let Some(ahead) = &mut self.ahead else {
            return self.allocator.preallocate(id, Need::Now);
        };
        let mut early = ahead.asked.take() == Some(id);
        if !early {
            let _ = ahead.asks.send((id, Need::Now));
        }
        let made = loop {
            match ahead.ready.recv() {
                // It was refused when it was not needed yet: now is another time.
                Ok((ready, Err(WalError::NoSpace { .. }))) if ready == id && early => {
                    early = false;
                    let _ = ahead.asks.send((id, Need::Now));
                }
                Ok((ready, made)) if ready == id => break made,
                Ok(_) => {}
                Err(_) => return self.allocator.preallocate(id, Need::Now),
            }
        };
        // After a failure nothing is asked for ahead of time.
        if made.is_ok() && ahead.asks.send((id.next(), Need::Ahead)).is_ok() {
            ahead.asked = Some(id.next());
        }
        made
    }

    fn close(&mut self) {
        let Some(ahead) = self.ahead.take() else {
            return;
        };
        drop(ahead.asks);
        let _ = ahead.thread.join();
        for (id, file) in ahead.ready {
            // A file that stays is recognised as unused at the next start.
            if file.is_ok() {
                let _ = self.allocator.disk.remove(&id.file_name());
            }
        }
    }
}

/// Also where the writer is given up before it was closed: no thread touches the disk afterwards.
impl Drop for Spares {
    fn drop(&mut self) {
        self.close();
    }
}

impl Allocator {
    fn preallocate(&self, id: SegmentId, need: Need) -> Preallocated {
        let name = id.file_name();
        let admitted = (self.admit)(self.capacity, need);
        let file = admitted
            .and_then(|()| self.disk.create(&name, self.capacity))
            .map_err(|source| WalError::NoSpace {
                bytes: self.capacity,
                source: Arc::new(source),
            })?;
        // A second attempt may succeed without the name being on disk, so there is none.
        self.disk.sync_dir().map_err(|source| WalError::Poisoned {
            segment: id,
            source: Arc::new(source),
        })?;
        Ok(file)
    }
}

//! One segment file: reading it, sealing it, and finding what lies in it.

use std::fmt;
use std::sync::Arc;

use crate::disk::{Disk, DiskFile, read_exact_at, write_all_vectored_at};
use crate::error::WalError;
use crate::format::{
    ENTRY_HEADER_BYTES, EntryHeader, GROUP_HEADER_BYTES, GROUP_MAGIC, GroupHeader, HeaderState,
    SEGMENT_HEADER_BYTES, SegmentHeader, TRAILER_BYTES, Trailer, VERSION,
};

/// Number of a segment: rises over the life of the log, never reused, never 0. Segments that were
/// written by relocation have numbers of their own, told from the others by the highest bit: they
/// sort behind them, and behind the relocations before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

const RELOCATED_BIT: u64 = 1 << 63;
const APPENDED_SUFFIX: &str = ".wal";
const RELOCATED_SUFFIX: &str = ".cold";

impl SegmentId {
    /// The `number`th relocation.
    pub fn relocated(number: u64) -> SegmentId {
        SegmentId(number | RELOCATED_BIT)
    }

    /// Written by relocation, not by appending.
    pub fn is_relocated(self) -> bool {
        self.0 & RELOCATED_BIT != 0
    }

    /// Without what tells relocations from the others.
    pub fn number(self) -> u64 {
        self.0 & !RELOCATED_BIT
    }

    /// The one after this.
    #[must_use]
    pub fn next(self) -> SegmentId {
        SegmentId(self.0.saturating_add(1))
    }

    /// Name of its file.
    pub fn file_name(self) -> String {
        let suffix = if self.is_relocated() {
            RELOCATED_SUFFIX
        } else {
            APPENDED_SUFFIX
        };
        format!("{:016x}{suffix}", self.number())
    }

    /// `None` for a name that is not a segment's.
    pub fn from_file_name(name: &str) -> Option<SegmentId> {
        let (digits, relocated) = match name.strip_suffix(RELOCATED_SUFFIX) {
            Some(digits) => (digits, true),
            None => (name.strip_suffix(APPENDED_SUFFIX)?, false),
        };
        let number = u64::from_str_radix(digits, 16).ok()?;
        if digits.len() != 16 || number == 0 || number & RELOCATED_BIT != 0 {
            return None;
        }
        Some(if relocated {
            SegmentId::relocated(number)
        } else {
            SegmentId(number)
        })
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = if self.is_relocated() {
            RELOCATED_SUFFIX
        } else {
            ""
        };
        write!(f, "{:016x}{suffix}", self.number())
    }
}

/// A byte in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes from the segment's beginning.
    pub offset: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}

/// An open segment; readers share it.
#[derive(Debug)]
pub struct Segment {
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
}

impl Segment {
    pub(crate) fn new(header: SegmentHeader, file: Arc<dyn DiskFile>) -> Segment {
        Segment { header, file }
    }

    /// Opens a file and reads its header. `Ok(None)` for a file that was preallocated and never used,
    /// or whose header is torn: such a file never held a durable group.
    pub fn open(disk: &dyn Disk, id: SegmentId) -> Result<Option<Segment>, WalError> {
        let name = id.file_name();
        let file = disk
            .open(&name)
            .map_err(|e| WalError::file("opening", &name, e))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        match read_exact_at(file.as_ref(), &mut bytes, 0) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(WalError::file("reading", &name, e)),
        }
        match SegmentHeader::decode(&bytes) {
            HeaderState::Valid(header) if header.id == id => Ok(Some(Segment { header, file })),
            HeaderState::Newer(found) => Err(WalError::NewerFormat {
                segment: id,
                found,
                known: VERSION,
            }),
            HeaderState::Valid(_) | HeaderState::Unused | HeaderState::Bad => Ok(None),
        }
    }

    /// Its id.
    pub fn id(&self) -> SegmentId {
        self.header.id
    }

    /// Its header.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The file, for reading beside the page cache's back.
    pub fn file(&self) -> &dyn DiskFile {
        self.file.as_ref()
    }

    /// Fills `buf` from `position`.
    pub fn read(&self, position: u32, buf: &mut [u8]) -> Result<(), WalError> {
        read_exact_at(self.file.as_ref(), buf, u64::from(position))
            .map_err(|e| self.file_error("reading", e))
    }

    /// The trailer, if the segment was sealed. Its body is not verified here.
    pub fn trailer(&self) -> Result<Option<Trailer>, WalError> {
        let size = self.size()?;
        let Some(position) = size
            .checked_sub(TRAILER_BYTES)
            .filter(|&at| at >= SEGMENT_HEADER_BYTES)
        else {
            return Ok(None);
        };
        let mut bytes = [0; TRAILER_BYTES as usize];
        self.read(position, &mut bytes)?;
        let trailer = Trailer::decode(&bytes, self.header.seed(position));
        // The body must fill exactly what lies between the groups and the trailer.
        Ok(trailer.filter(|t| t.groups_end.checked_add(t.body_bytes) == Some(position)))
    }

    /// The footer body that [`Segment::seal`] wrote, or `None` if it is not there whole.
    pub fn footer(&self) -> Result<Option<(Trailer, Vec<u8>)>, WalError> {
        let Some(trailer) = self.trailer()? else {
            return Ok(None);
        };
        let mut body = vec![0; trailer.body_bytes as usize];
        self.read(trailer.groups_end, &mut body)?;
        Ok((crc32c::crc32c(&body) == trailer.body_crc).then_some((trailer, body)))
    }

    /// Writes the footer behind the last group, gives unused space back and makes it durable.
    pub fn seal(&self, groups_end: u32, last_sequence: u64, body: &[u8]) -> Result<(), WalError> {
        let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let trailer_at = groups_end.saturating_add(body_bytes);
        let trailer = Trailer {
            groups_end,
            body_bytes,
            body_crc: crc32c::crc32c(body),
            last_sequence,
        };
        let trailer = trailer.encode(self.header.seed(trailer_at));
        let mut slices = [std::io::IoSlice::new(body), std::io::IoSlice::new(&trailer)];
        let slices = if body.is_empty() {
            slices.get_mut(1..).unwrap_or_default()
        } else {
            &mut slices[..]
        };
        write_all_vectored_at(self.file.as_ref(), slices, u64::from(groups_end))
            .map_err(|e| self.file_error("sealing", e))?;
        let size = u64::from(trailer_at) + u64::from(TRAILER_BYTES);
        self.file
            .truncate(size)
            .map_err(|e| self.file_error("truncating", e))?;
        self.file.sync_data().map_err(|e| WalError::Poisoned {
            segment: self.id(),
            source: Arc::new(e),
        })
    }

    /// Reads every group header and verifies every entry. `known_end`: where the groups must end, if
    /// a later segment or a trailer says so.
    pub fn scan(&self, known_end: Option<u32>) -> Result<Scan, WalError> {
        self.scan_with(known_end, &mut |_| true)
            .map(|(scan, _)| scan)
    }

    /// The same, asking after every group whether to go on: the bytes it read are given. False comes
    /// back if it was stopped.
    pub fn scan_with(
        &self,
        known_end: Option<u32>,
        go_on: &mut dyn FnMut(u32) -> bool,
    ) -> Result<(Scan, bool), WalError> {
        let scanner = Scanner {
            segment: self,
            size: known_end.unwrap_or(self.size()?),
            scan: Scan::default(),
            known_end,
        };
        scanner.run(go_on)
    }

    fn size(&self) -> Result<u32, WalError> {
        let size = self.file.size().map_err(|e| self.file_error("sizing", e))?;
        Ok(u32::try_from(size).unwrap_or(u32::MAX))
    }

    fn file_error(&self, what: &'static str, error: std::io::Error) -> WalError {
        WalError::file(what, self.id().file_name(), error)
    }
}

/// What lies in a segment.
#[derive(Debug, Default)]
pub struct Scan {
    /// Groups in order. Entries that do not verify are left out of damaged ones.
    pub groups: Vec<ScannedGroup>,
    /// What should be readable and is not: (position, bytes).
    pub damage: Vec<(u32, u32)>,
    /// Where the last whole group ends.
    pub end: u32,
    /// Bytes behind `end` that look like a group that was being written when the power went.
    pub torn: bool,
}

/// One group of a [`Scan`].
#[derive(Debug)]
pub struct ScannedGroup {
    /// Where its header lies.
    pub position: u32,
    /// Its header.
    pub header: GroupHeader,
    /// Its verified entries.
    pub entries: Vec<ScannedEntry>,
}

/// One verified entry.
#[derive(Debug, Clone, Copy)]
pub struct ScannedEntry {
    /// Whose it is.
    pub stream: u64,
    /// Where its payload lies.
    pub payload_position: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
}

struct Scanner<'a> {
    segment: &'a Segment,
    size: u32,
    scan: Scan,
    known_end: Option<u32>,
}

/// How much is read at once while looking for the next group header.
const RESYNC_CHUNK_BYTES: usize = 256 << 10;

impl Scanner<'_> {
    fn run(mut self, go_on: &mut dyn FnMut(u32) -> bool) -> Result<(Scan, bool), WalError> {
        let mut position = SEGMENT_HEADER_BYTES;
        // (position, bytes, how many groups lie whole before it)
        let mut suspects: Vec<(u32, u32, usize)> = Vec::new();
        loop {
            match self.group_at(position)? {
                Some((group, bad)) => {
                    let index = self.scan.groups.len();
                    suspects.extend(bad.into_iter().map(|(at, bytes)| (at, bytes, index)));
                    let bytes = group_end(&group) - position;
                    position = group_end(&group);
                    self.scan.groups.push(group);
                    if !go_on(bytes) {
                        self.scan.end = position;
                        return Ok((self.scan, false));
                    }
                }
                None => match self.next_header_after(position)? {
                    Some(next) => {
                        suspects.push((position, next - position, self.scan.groups.len()));
                        position = next;
                    }
                    None => break,
                },
            }
        }
        self.scan.end = position;
        self.judge(suspects)?;
        Ok((self.scan, true))
    }

    /// Below the highest durable position seen a bad checksum is damage; above it, a torn tail.
    fn judge(&mut self, suspects: Vec<(u32, u32, usize)>) -> Result<(), WalError> {
        let id = self.segment.id();
        let told = self
            .scan
            .groups
            .iter()
            .filter(|g| g.header.durable.segment == id)
            .map(|g| g.header.durable.offset);
        let durable = told
            .max()
            .max(self.known_end)
            .unwrap_or(SEGMENT_HEADER_BYTES);
        let mut torn_from = None;
        for (position, bytes, whole_before) in suspects {
            if position < durable {
                self.scan.damage.push((position, bytes));
            } else if torn_from.is_none() {
                // Whole groups behind it were never durable either.
                torn_from = Some(whole_before);
            }
        }
        if let Some(end) = self.known_end.filter(|&end| end > self.scan.end) {
            self.scan.damage.push((self.scan.end, end - self.scan.end));
            self.scan.end = end;
        }
        if let Some(first_torn) = torn_from {
            self.scan.groups.truncate(first_torn);
            self.scan.end = self
                .scan
                .groups
                .last()
                .map_or(SEGMENT_HEADER_BYTES, group_end);
            self.scan.torn = true;
        } else if self.known_end.is_none() {
            self.scan.torn = self.has_bytes_at(self.scan.end)?;
        }
        Ok(())
    }

    #[allow(clippy::type_complexity)]
    fn group_at(&self, position: u32) -> Result<Option<(ScannedGroup, Vec<(u32, u32)>)>, WalError> {
        let Some(header) = self.header_at(position)? else {
            return Ok(None);
        };
        let begin = position + GROUP_HEADER_BYTES;
        let mut bytes = vec![0; header.entries_bytes as usize];
        self.segment.read(begin, &mut bytes)?;
        let mut group = ScannedGroup {
            position,
            header,
            entries: Vec::new(),
        };
        let mut bad = Vec::new();
        let mut at = 0_usize;
        for _ in 0..header.entries {
            let entry_position = begin + u32::try_from(at).unwrap_or(u32::MAX);
            let rest = bytes.get(at..).unwrap_or_default();
            let parts = rest
                .split_first_chunk()
                .map(|(head, body)| (EntryHeader::decode(head), body));
            let fitting = parts
                .and_then(|(head, body)| Some((head, body.get(..head.payload_bytes as usize)?)));
            let Some((entry, payload)) = fitting else {
                bad.push((
                    entry_position,
                    u32::try_from(rest.len()).unwrap_or(u32::MAX),
                ));
                break;
            };
            let whole = ENTRY_HEADER_BYTES + entry.payload_bytes;
            if entry.verify(payload, self.segment.header.seed(entry_position)) {
                let payload_position = entry_position + ENTRY_HEADER_BYTES;
                group.entries.push(ScannedEntry {
                    stream: entry.stream,
                    payload_position,
                    payload_bytes: entry.payload_bytes,
                });
            } else {
                bad.push((entry_position, whole));
            }
            at += whole as usize;
        }
        Ok(Some((group, bad)))
    }

    fn header_at(&self, position: u32) -> Result<Option<GroupHeader>, WalError> {
        if position
            .checked_add(GROUP_HEADER_BYTES)
            .is_none_or(|end| end > self.size)
        {
            return Ok(None);
        }
        let mut bytes = [0; GROUP_HEADER_BYTES as usize];
        self.segment.read(position, &mut bytes)?;
        let header = GroupHeader::decode(&bytes, self.segment.header.seed(position));
        let room = self.size - position - GROUP_HEADER_BYTES;
        Ok(header.filter(|h| h.entries_bytes <= room))
    }

    fn next_header_after(&self, position: u32) -> Result<Option<u32>, WalError> {
        let mut from = position.saturating_add(1);
        let mut chunk = vec![0; RESYNC_CHUNK_BYTES];
        while from
            .checked_add(GROUP_HEADER_BYTES)
            .is_some_and(|end| end <= self.size)
        {
            let want = chunk.len().min((self.size - from) as usize);
            let Some(window) = chunk.get_mut(..want) else {
                break;
            };
            self.segment.read(from, window)?;
            for (index, four) in window.windows(GROUP_MAGIC.len()).enumerate() {
                if four == GROUP_MAGIC {
                    let at = from + u32::try_from(index).unwrap_or(u32::MAX);
                    if self.header_at(at)?.is_some() {
                        return Ok(Some(at));
                    }
                }
            }
            let step = want.saturating_sub(GROUP_MAGIC.len() - 1).max(1);
            from = from.saturating_add(u32::try_from(step).unwrap_or(u32::MAX));
        }
        Ok(None)
    }

    fn has_bytes_at(&self, position: u32) -> Result<bool, WalError> {
        let want = (self.size.saturating_sub(position)).min(GROUP_HEADER_BYTES) as usize;
        let mut bytes = vec![0; want];
        self.segment.read(position, &mut bytes)?;
        Ok(bytes.iter().any(|&b| b != 0))
    }
}

fn group_end(group: &ScannedGroup) -> u32 {
    group
        .position
        .saturating_add(GROUP_HEADER_BYTES)
        .saturating_add(group.header.entries_bytes)
}

//! Every byte the wal writes. Format version 1; all numbers little-endian.
//!
//! ```text
//! segment file = segment header, group*, then zeros up to the preallocated size (head)
//!                                        or: footer body, trailer, end of file (sealed)
//!
//! segment header, 64 bytes at position 0
//!    0  8  magic "HOLDFAST"
//!    8  2  format version, 1
//!   10  2  kind: 0 appended, 1 rewritten by recovery, 2 relocated (only whole ones get their name)
//!   12  4  boot epoch of the process that wrote the segment
//!   16  8  segment id
//!   24  8  id of the segment this one replaces, 0 for none
//!   32  8  salt: random, so that no payload can pose as a group header
//!   40 20  zero
//!   60  4  CRC-32C of bytes 0..60
//!
//! group header, 48 bytes, followed by its entries
//!    0  4  magic "HGRP"
//!    4  4  CRC-32C of bytes 8..48, seeded
//!    8  8  group sequence number, rising by one over the life of the log
//!   16  4  bytes of all entries, their headers included
//!   20  4  number of entries
//!   24  8  segment that held the durable position when this was written
//!   32  4  the durable position in it: everything before it had been fdatasynced
//!   36  4  zero
//!   40  8  append time, milliseconds since the Unix epoch
//!
//! entry header, 16 bytes, followed by its payload
//!    0  4  CRC-32C of bytes 4..16 and of the payload, seeded
//!    4  4  bytes of the payload
//!    8  8  stream
//!
//! trailer, 32 bytes at the end of a sealed file
//!    0  4  position where the groups end and the footer body begins
//!    4  4  bytes of the footer body
//!    8  4  CRC-32C of the footer body
//!   12  4  zero
//!   16  8  sequence number of the last group
//!   24  4  CRC-32C of bytes 0..24, seeded with the trailer's position
//!   28  4  magic "HEND"
//! ```
//!
//! A *seeded* checksum starts from CRC-32C(segment id, boot epoch, salt, position of the header), so
//! bytes that moved, or survived from another life of the file, never verify. The footer body belongs
//! to the layer above; the wal only keeps it whole.

use crate::segment::{Position, SegmentId};

/// The version this program writes, and the newest it reads.
pub const VERSION: u16 = 1;
/// Bytes of a segment header; the first group begins here.
pub const SEGMENT_HEADER_BYTES: u32 = 64;
/// Bytes of a group header.
pub const GROUP_HEADER_BYTES: u32 = 48;
/// Bytes of an entry header.
pub const ENTRY_HEADER_BYTES: u32 = 16;
/// Bytes of a trailer.
pub const TRAILER_BYTES: u32 = 32;

const SEGMENT_MAGIC: [u8; 8] = *b"HOLDFAST";
/// First bytes of a group.
pub const GROUP_MAGIC: [u8; 4] = *b"HGRP";
const TRAILER_MAGIC: [u8; 4] = *b"HEND";

/// Why a segment came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// Groups were appended to it.
    Appended,
    /// Recovery copied the tail of another segment into it.
    Rewritten,
    /// What was still wanted of other segments was copied into it.
    Relocated,
}

/// The first 64 bytes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Why the segment came to be.
    pub kind: SegmentKind,
    /// Boot epoch of the process that wrote it.
    pub boot_epoch: u32,
    /// Its id, also in its file name.
    pub id: SegmentId,
    /// The segment whose content it took over.
    pub replaces: Option<SegmentId>,
    /// Random, part of every checksum's seed.
    pub salt: u64,
}

/// What the first bytes of a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderState {
    /// A segment.
    Valid(SegmentHeader),
    /// All zeros: preallocated and never used.
    Unused,
    /// A segment of a newer format.
    Newer(u16),
    /// Torn or damaged.
    Bad,
}

impl SegmentHeader {
    /// The bytes on disk.
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut out = Fixed::<{ SEGMENT_HEADER_BYTES as usize }>::new();
        out.put(&SEGMENT_MAGIC);
        out.put(&VERSION.to_le_bytes());
        let kind: u16 = match self.kind {
            SegmentKind::Appended => 0,
            SegmentKind::Rewritten => 1,
            SegmentKind::Relocated => 2,
        };
        out.put(&kind.to_le_bytes());
        out.put(&self.boot_epoch.to_le_bytes());
        out.put(&self.id.0.to_le_bytes());
        out.put(&self.replaces.map_or(0, |id| id.0).to_le_bytes());
        out.put(&self.salt.to_le_bytes());
        out.put(&[0; 20]);
        let crc = crc32c::crc32c(out.written());
        out.put(&crc.to_le_bytes());
        out.bytes
    }

    /// Reads the bytes on disk.
    pub fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES as usize]) -> HeaderState {
        if bytes.iter().all(|&b| b == 0) {
            return HeaderState::Unused;
        }
        let mut read = Reader(bytes);
        if read.array::<8>() != SEGMENT_MAGIC {
            return HeaderState::Bad;
        }
        let version = u16::from_le_bytes(read.array());
        if version > VERSION {
            return HeaderState::Newer(version);
        }
        let (covered, crc) = bytes.split_at(bytes.len() - 4);
        if crc32c::crc32c(covered).to_le_bytes() != crc {
            return HeaderState::Bad;
        }
        let kind = match u16::from_le_bytes(read.array()) {
            0 => SegmentKind::Appended,
            1 => SegmentKind::Rewritten,
            2 => SegmentKind::Relocated,
            _ => return HeaderState::Bad,
        };
        let boot_epoch = u32::from_le_bytes(read.array());
        let id = SegmentId(u64::from_le_bytes(read.array()));
        let replaces = u64::from_le_bytes(read.array());
        let salt = u64::from_le_bytes(read.array());
        let replaces = (replaces != 0).then_some(SegmentId(replaces));
        HeaderState::Valid(SegmentHeader {
            kind,
            boot_epoch,
            id,
            replaces,
            salt,
        })
    }

    /// Where every checksum of the structure at `position` starts from.
    pub fn seed(&self, position: u32) -> u32 {
        let mut out = Fixed::<24>::new();
        out.put(&self.id.0.to_le_bytes());
        out.put(&self.boot_epoch.to_le_bytes());
        out.put(&self.salt.to_le_bytes());
        out.put(&position.to_le_bytes());
        crc32c::crc32c(&out.bytes)
    }
}

/// The 48 bytes before a group's entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupHeader {
    /// Rises by one from group to group.
    pub sequence: u64,
    /// Bytes of the entries that follow.
    pub entries_bytes: u32,
    /// Number of the entries that follow.
    pub entries: u32,
    /// Everything before this had been fdatasynced when the group was written.
    pub durable: Position,
    /// Milliseconds since the Unix epoch.
    pub append_time_ms: u64,
}

impl GroupHeader {
    /// The bytes on disk.
    pub fn encode(&self, seed: u32) -> [u8; GROUP_HEADER_BYTES as usize] {
        let mut body = Fixed::<{ GROUP_HEADER_BYTES as usize - 8 }>::new();
        body.put(&self.sequence.to_le_bytes());
        body.put(&self.entries_bytes.to_le_bytes());
        body.put(&self.entries.to_le_bytes());
        body.put(&self.durable.segment.0.to_le_bytes());
        body.put(&self.durable.offset.to_le_bytes());
        body.put(&[0; 4]);
        body.put(&self.append_time_ms.to_le_bytes());
        let mut out = Fixed::<{ GROUP_HEADER_BYTES as usize }>::new();
        out.put(&GROUP_MAGIC);
        out.put(&crc32c::crc32c_append(seed, &body.bytes).to_le_bytes());
        out.put(&body.bytes);
        out.bytes
    }

    /// `None` if these bytes are not a group header written at the seed's position.
    pub fn decode(bytes: &[u8; GROUP_HEADER_BYTES as usize], seed: u32) -> Option<GroupHeader> {
        let mut read = Reader(bytes);
        if read.array::<4>() != GROUP_MAGIC {
            return None;
        }
        let crc = u32::from_le_bytes(read.array());
        if crc32c::crc32c_append(seed, read.0) != crc {
            return None;
        }
        let sequence = u64::from_le_bytes(read.array());
        let entries_bytes = u32::from_le_bytes(read.array());
        let entries = u32::from_le_bytes(read.array());
        let segment = SegmentId(u64::from_le_bytes(read.array()));
        let offset = u32::from_le_bytes(read.array());
        let _reserved: [u8; 4] = read.array();
        let append_time_ms = u64::from_le_bytes(read.array());
        Some(GroupHeader {
            sequence,
            entries_bytes,
            entries,
            durable: Position { segment, offset },
            append_time_ms,
        })
    }
}

/// The 16 bytes before an entry's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryHeader {
    /// CRC-32C over the rest of the header and the payload.
    pub crc: u32,
    /// Bytes of the payload.
    pub payload_bytes: u32,
    /// Whose entry it is, a number of the layer above.
    pub stream: u64,
}

impl EntryHeader {
    /// Makes the header of a payload given in pieces.
    pub fn of<'a>(
        stream: u64,
        payload_bytes: u32,
        pieces: impl Iterator<Item = &'a [u8]>,
        seed: u32,
    ) -> EntryHeader {
        let mut crc = crc32c::crc32c_append(seed, &payload_bytes.to_le_bytes());
        crc = crc32c::crc32c_append(crc, &stream.to_le_bytes());
        for piece in pieces {
            crc = crc32c::crc32c_append(crc, piece);
        }
        EntryHeader {
            crc,
            payload_bytes,
            stream,
        }
    }

    /// The bytes on disk.
    pub fn encode(&self) -> [u8; ENTRY_HEADER_BYTES as usize] {
        let mut out = Fixed::<{ ENTRY_HEADER_BYTES as usize }>::new();
        out.put(&self.crc.to_le_bytes());
        out.put(&self.payload_bytes.to_le_bytes());
        out.put(&self.stream.to_le_bytes());
        out.bytes
    }

    /// Reads the bytes on disk; [`EntryHeader::verify`] tells whether they are true.
    pub fn decode(bytes: &[u8; ENTRY_HEADER_BYTES as usize]) -> EntryHeader {
        let mut read = Reader(bytes);
        EntryHeader {
            crc: u32::from_le_bytes(read.array()),
            payload_bytes: u32::from_le_bytes(read.array()),
            stream: u64::from_le_bytes(read.array()),
        }
    }

    /// Whether header and payload are what was written at the seed's position.
    pub fn verify(&self, payload: &[u8], seed: u32) -> bool {
        EntryHeader::of(
            self.stream,
            self.payload_bytes,
            std::iter::once(payload),
            seed,
        )
        .crc == self.crc
    }
}

/// The last 32 bytes of a sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the groups end and the footer body begins.
    pub groups_end: u32,
    /// Bytes of the footer body.
    pub body_bytes: u32,
    /// CRC-32C of the footer body.
    pub body_crc: u32,
    /// Sequence number of the last group.
    pub last_sequence: u64,
}

impl Trailer {
    /// The bytes on disk.
    pub fn encode(&self, seed: u32) -> [u8; TRAILER_BYTES as usize] {
        let mut out = Fixed::<{ TRAILER_BYTES as usize }>::new();
        out.put(&self.groups_end.to_le_bytes());
        out.put(&self.body_bytes.to_le_bytes());
        out.put(&self.body_crc.to_le_bytes());
        out.put(&[0; 4]);
        out.put(&self.last_sequence.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, out.written());
        out.put(&crc.to_le_bytes());
        out.put(&TRAILER_MAGIC);
        out.bytes
    }

    /// `None` if these bytes are not a trailer written at the seed's position.
    pub fn decode(bytes: &[u8; TRAILER_BYTES as usize], seed: u32) -> Option<Trailer> {
        let (covered, _) = bytes.split_at(24);
        let mut read = Reader(bytes);
        let groups_end = u32::from_le_bytes(read.array());
        let body_bytes = u32::from_le_bytes(read.array());
        let body_crc = u32::from_le_bytes(read.array());
        let _zero: [u8; 4] = read.array();
        let last_sequence = u64::from_le_bytes(read.array());
        let crc = u32::from_le_bytes(read.array());
        let magic: [u8; 4] = read.array();
        let whole = magic == TRAILER_MAGIC && crc32c::crc32c_append(seed, covered) == crc;
        whole.then_some(Trailer {
            groups_end,
            body_bytes,
            body_crc,
            last_sequence,
        })
    }
}

/// Fills a fixed array from the front; what does not fit is a programming error caught by the tests.
struct Fixed<const N: usize> {
    bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fixed<N> {
    fn new() -> Self {
        Fixed {
            bytes: [0; N],
            at: 0,
        }
    }

    fn put(&mut self, part: &[u8]) {
        let end = self.at + part.len();
        debug_assert!(end <= N, "a header field is written past its end");
        if let Some(room) = self.bytes.get_mut(self.at..end) {
            room.copy_from_slice(part);
        }
        self.at = end;
    }

    fn written(&self) -> &[u8] {
        self.bytes.get(..self.at).unwrap_or_default()
    }
}

/// Takes fixed arrays from the front; callers have checked the length by type.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.0 = rest;
                *head
            }
            None => {
                debug_assert!(false, "a header is read past its end");
                [0; N]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            kind: SegmentKind::Rewritten,
            boot_epoch: 7,
            id: SegmentId(9),
            replaces: Some(SegmentId(8)),
            salt: 0x0123_4567_89ab_cdef,
        }
    }

    #[test]
    fn segment_header_bytes_are_a_promise() {
        let bytes = header().encode();
        let golden = "484f4c4446415354010001000700000009000000000000000800000000000000efcdab8967452301\
                      0000000000000000000000000000000000000000";
        let hex: String = bytes[..60].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, golden);
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Valid(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let group = GroupHeader {
            sequence: 3,
            entries_bytes: 40,
            entries: 1,
            durable: Position {
                segment: SegmentId(9),
                offset: 64,
            },
            append_time_ms: 5,
        };
        let seed = header().seed(64);
        let segment_bytes = header().encode();
        let group_bytes = group.encode(seed);
        let trailer = Trailer {
            groups_end: 5,
            body_bytes: 6,
            body_crc: 7,
            last_sequence: 8,
        };
        let trailer_bytes = trailer.encode(seed);
        assert_eq!(GroupHeader::decode(&group_bytes, seed), Some(group));
        assert_eq!(GroupHeader::decode(&group_bytes, header().seed(65)), None);
        assert_eq!(Trailer::decode(&trailer_bytes, seed), Some(trailer));
        for bit in 0..segment_bytes.len() * 8 {
            let mut bad = segment_bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(SegmentHeader::decode(&bad), HeaderState::Valid(_)),
                "bit {bit}"
            );
        }
        for bit in 0..group_bytes.len() * 8 {
            let mut bad = group_bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&bad, seed), None, "bit {bit}");
        }
        for bit in 0..trailer_bytes.len() * 8 {
            let mut bad = trailer_bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&bad, seed), None, "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        assert_eq!(SegmentHeader::decode(&bytes), HeaderState::Newer(2));
        assert_eq!(SegmentHeader::decode(&[0; 64]), HeaderState::Unused);
    }
}

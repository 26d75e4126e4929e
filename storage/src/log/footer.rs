//! What the log writes into a sealed segment's footer: where every batch lies, and the producers
//! that wrote them. The index can be rebuilt from footers alone. All numbers little-endian.
//!
//! ```text
//! footer body
//!   0  2  version, 3
//!   2  2  zero
//!   4  4  number of parts
//!   8  4  number of producers
//!  12  4  number of sources
//!  16     directory: per part, ascending by partition and first offset, 56 bytes
//!           0 8 partition id            32 8 when the newest of its batches was appended
//!           8 8 first offset            40 8 bytes of its batches
//!          16 8 offset behind the last  48 4 position of its block in the segment
//!          24 8 largest timestamp       52 4 bytes of its block
//!         producers: per producer
//!           0 8 partition id   8 8 producer id   16 2 epoch   18 8 when it last appended
//!          26 1 batches, then per batch
//!           0 4 first sequence   4 4 last sequence   8 8 base offset
//!         sources: per segment from which something was relocated into this one, its id, 8 bytes
//!         blocks: per part
//!           0 4 CRC-32C of the rest, seeded with the partition id
//!           4 4 number of batches, then per batch, 28 bytes
//!           0 8 base offset   8 4 last offset delta   12 4 position   16 4 bytes   20 8 max timestamp
//! ```
//! A part stands for all offsets from its first to the one behind its last, also for those that none of
//! its batches has: in a relocated segment they were compacted away, and what older segments still hold
//! of them counts no more.
//!
//! Version 2 had no sources and no times of producers, and is read. Version 1 had no append times; a
//! segment whose footer has it is read through and sealed again when the index is rebuilt.

use std::collections::BTreeMap;

use holdfast_wal::SegmentId;

use super::partition::BatchEntry;
use super::producers::{Producer, SequencedBatch};
use super::types::{Offset, PartitionId};

const VERSION: u16 = 3;
const HEADER_BYTES: usize = 16;
const DIRECTORY_BYTES: usize = 56;
/// Of one batch in a block.
pub const BATCH_BYTES: usize = 28;
/// Of a block before its batches.
pub const BLOCK_HEADER_BYTES: usize = 8;

/// One partition's part of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockInfo {
    pub partition: PartitionId,
    pub first: Offset,
    /// The offset behind the last record.
    pub end: Offset,
    pub max_timestamp_ms: i64,
    /// When the newest batch was appended, on the node's clock.
    pub append_time_ms: u64,
    pub batch_bytes: u64,
    /// Where the block lies in the segment.
    pub block_position: u32,
    pub block_bytes: u32,
}

impl BlockInfo {
    /// How many batches its block lists.
    pub fn batches(&self) -> u64 {
        u64::from(self.block_bytes).saturating_sub(BLOCK_HEADER_BYTES as u64) / BATCH_BYTES as u64
    }
}

/// A producer's state at the end of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerEntry {
    pub partition: PartitionId,
    pub producer_id: i64,
    pub producer: Producer,
}

/// A footer, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Footer {
    pub blocks: Vec<BlockInfo>,
    pub producers: Vec<ProducerEntry>,
    pub sources: Vec<SegmentId>,
}

/// One partition's batches in a segment.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub batches: Vec<BatchEntry>,
    /// When the newest of them was appended.
    pub append_time_ms: u64,
}

/// A part and what it stands for.
#[derive(Debug, Clone)]
pub struct Covering {
    pub partition: PartitionId,
    pub first: Offset,
    /// The offset behind the last.
    pub end: Offset,
    pub part: Part,
}

/// Bytes that a footer body takes at most for so many parts and batches, and nothing else.
pub fn bytes_of(parts: usize, batches: usize) -> usize {
    HEADER_BYTES + parts * (DIRECTORY_BYTES + BLOCK_HEADER_BYTES) + batches * BATCH_BYTES
}

/// Builds the footer body of a segment that was appended to; it will lie at `position`. No part is
/// empty.
pub fn encode(
    position: u32,
    parts: &BTreeMap<PartitionId, Part>,
    producers: &[ProducerEntry],
) -> (Vec<u8>, Footer) {
    let covering = parts.iter().map(|(&partition, part)| Covering {
        partition,
        first: part.batches.first().map(|b| b.base).unwrap_or_default(),
        end: part.batches.last().map(BatchEntry::end).unwrap_or_default(),
        part: part.clone(),
    });
    encode_covering(position, &covering.collect::<Vec<_>>(), producers, &[])
}

/// Builds the footer body of any segment. The parts ascend by partition and first offset.
pub fn encode_covering(
    position: u32,
    parts: &[Covering],
    producers: &[ProducerEntry],
    sources: &[SegmentId],
) -> (Vec<u8>, Footer) {
    let mut between = Vec::new();
    for entry in producers {
        encode_producer(entry, &mut between);
    }
    for source in sources {
        between.extend_from_slice(&source.0.to_le_bytes());
    }
    let mut block_at = HEADER_BYTES + parts.len() * DIRECTORY_BYTES + between.len();
    let mut out = Vec::with_capacity(block_at);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&u32_of(parts.len()).to_le_bytes());
    out.extend_from_slice(&u32_of(producers.len()).to_le_bytes());
    out.extend_from_slice(&u32_of(sources.len()).to_le_bytes());
    let mut blocks = Vec::with_capacity(parts.len());
    for covering in parts {
        let batches = &covering.part.batches;
        let block_bytes = BLOCK_HEADER_BYTES + batches.len() * BATCH_BYTES;
        let info = BlockInfo {
            partition: covering.partition,
            first: covering.first,
            end: covering.end,
            max_timestamp_ms: batches
                .iter()
                .map(|b| b.max_timestamp_ms)
                .max()
                .unwrap_or(-1),
            append_time_ms: covering.part.append_time_ms,
            batch_bytes: batches.iter().map(|b| u64::from(b.bytes)).sum(),
            block_position: position.saturating_add(u32_of(block_at)),
            block_bytes: u32_of(block_bytes),
        };
        out.extend_from_slice(&info.partition.0.to_le_bytes());
        out.extend_from_slice(&info.first.value().to_le_bytes());
        out.extend_from_slice(&info.end.value().to_le_bytes());
        out.extend_from_slice(&info.max_timestamp_ms.to_le_bytes());
        out.extend_from_slice(&info.append_time_ms.to_le_bytes());
        out.extend_from_slice(&info.batch_bytes.to_le_bytes());
        out.extend_from_slice(&info.block_position.to_le_bytes());
        out.extend_from_slice(&info.block_bytes.to_le_bytes());
        blocks.push(info);
        block_at += block_bytes;
    }
    out.extend_from_slice(&between);
    for covering in parts {
        encode_block(covering.partition, &covering.part.batches, &mut out);
    }
    let footer = Footer {
        blocks,
        producers: producers.to_vec(),
        sources: sources.to_vec(),
    };
    (out, footer)
}

fn encode_block(partition: PartitionId, batches: &[BatchEntry], out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(4 + batches.len() * BATCH_BYTES);
    body.extend_from_slice(&u32_of(batches.len()).to_le_bytes());
    for batch in batches {
        body.extend_from_slice(&batch.base.value().to_le_bytes());
        body.extend_from_slice(&batch.last_delta.to_le_bytes());
        body.extend_from_slice(&batch.position.to_le_bytes());
        body.extend_from_slice(&batch.bytes.to_le_bytes());
        body.extend_from_slice(&batch.max_timestamp_ms.to_le_bytes());
    }
    out.extend_from_slice(&block_crc(partition, &body).to_le_bytes());
    out.extend_from_slice(&body);
}

fn block_crc(partition: PartitionId, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&partition.0.to_le_bytes()), body)
}

/// Reads one partition's block; `None` if it is damaged.
pub fn decode_block(partition: PartitionId, bytes: &[u8]) -> Option<Vec<BatchEntry>> {
    let mut read = Reader(bytes);
    let crc = read.u32()?;
    if block_crc(partition, read.0) != crc {
        return None;
    }
    let count = read.u32()? as usize;
    let batches = decode_batches(read.0)?;
    (batches.len() == count).then_some(batches)
}

/// Reads batches of a block that was verified before.
pub fn decode_batches(bytes: &[u8]) -> Option<Vec<BatchEntry>> {
    let mut read = Reader(bytes);
    let mut batches = Vec::with_capacity(bytes.len() / BATCH_BYTES);
    while !read.0.is_empty() {
        batches.push(BatchEntry {
            base: Offset::new(read.i64()?)?,
            last_delta: read.u32()?,
            position: read.u32()?,
            bytes: read.u32()?,
            max_timestamp_ms: read.i64()?,
        });
    }
    Some(batches)
}

/// Reads all but the blocks; `None` if it does not fit (the wal has verified the bytes).
pub fn decode(body: &[u8]) -> Option<Footer> {
    let mut read = Reader(body);
    let version = u16::from_le_bytes(read.array()?);
    if !(2..=VERSION).contains(&version) {
        return None;
    }
    let _zero: [u8; 2] = read.array()?;
    let (parts, producers) = (read.u32()?, read.u32()?);
    let sources = if version >= 3 { read.u32()? } else { 0 };
    let mut footer = Footer::default();
    for _ in 0..parts {
        footer.blocks.push(BlockInfo {
            partition: PartitionId(read.u64()?),
            first: Offset::new(read.i64()?)?,
            end: Offset::new(read.i64()?)?,
            max_timestamp_ms: read.i64()?,
            append_time_ms: read.u64()?,
            batch_bytes: read.u64()?,
            block_position: read.u32()?,
            block_bytes: read.u32()?,
        });
    }
    for _ in 0..producers {
        let mut entry = decode_producer(&mut read, version >= 3)?;
        if version < 3 {
            let mut blocks = footer.blocks.iter();
            let block = blocks.find(|block| block.partition == entry.partition);
            entry.producer.last_append_ms = block.map_or(0, |block| block.append_time_ms);
        }
        footer.producers.push(entry);
    }
    for _ in 0..sources {
        footer.sources.push(SegmentId(read.u64()?));
    }
    Some(footer)
}

/// The bytes of one producer, as footers and the index keep it.
pub fn encode_producer(entry: &ProducerEntry, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.partition.0.to_le_bytes());
    out.extend_from_slice(&entry.producer_id.to_le_bytes());
    out.extend_from_slice(&entry.producer.epoch.to_le_bytes());
    out.extend_from_slice(&entry.producer.last_append_ms.to_le_bytes());
    out.push(u8::try_from(entry.producer.batches.len()).unwrap_or(u8::MAX));
    for batch in &entry.producer.batches {
        out.extend_from_slice(&batch.first_sequence.to_le_bytes());
        out.extend_from_slice(&batch.last_sequence.to_le_bytes());
        out.extend_from_slice(&batch.base.value().to_le_bytes());
    }
}

/// Reads one producer from the index.
pub fn decode_producer_bytes(bytes: &[u8]) -> Option<ProducerEntry> {
    decode_producer(&mut Reader(bytes), true)
}

fn decode_producer(read: &mut Reader<'_>, timed: bool) -> Option<ProducerEntry> {
    let partition = PartitionId(read.u64()?);
    let producer_id = read.i64()?;
    let epoch = i16::from_le_bytes(read.array()?);
    let last_append_ms = if timed { read.u64()? } else { 0 };
    let [count] = read.array()?;
    let mut batches = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let first_sequence = read.u32()?.cast_signed();
        let last_sequence = read.u32()?.cast_signed();
        batches.push(SequencedBatch {
            first_sequence,
            last_sequence,
            base: Offset::new(read.i64()?)?,
        });
    }
    Some(ProducerEntry {
        partition,
        producer_id,
        producer: Producer {
            epoch,
            last_append_ms,
            batches,
        },
    })
}

fn u32_of(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn sample() -> (Vec<u8>, Footer, Vec<BatchEntry>) {
        let offset = |n| Offset::new(n).unwrap();
        let batches = vec![
            BatchEntry {
                base: offset(5),
                last_delta: 2,
                position: 128,
                bytes: 90,
                max_timestamp_ms: 70,
            },
            BatchEntry {
                base: offset(8),
                last_delta: 0,
                position: 218,
                bytes: 80,
                max_timestamp_ms: 60,
            },
        ];
        let producer = Producer {
            epoch: 1,
            last_append_ms: 1_700_000_000_000,
            batches: vec![SequencedBatch {
                first_sequence: 0,
                last_sequence: 2,
                base: offset(5),
            }],
        };
        let producers = [ProducerEntry {
            partition: PartitionId(3),
            producer_id: 1000,
            producer,
        }];
        let part = Part {
            batches: batches.clone(),
            append_time_ms: 1_700_000_000_000,
        };
        let parts = BTreeMap::from([(PartitionId(3), part)]);
        let (body, footer) = encode(400, &parts, &producers);
        (body, footer, batches)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn footer_bytes_are_a_promise() {
        let (body, footer, batches) = sample();
        let golden = "030000000100000001000000000000000300000000000000050000000000000009000000000000004600000000000000\
                      0068e5cf8b010000aa0000000000000003020000400000000300000000000000e80300000000000001000068e5cf8b0100000100000000020000000500000000000000";
        assert_eq!(hex(&body[..115]), golden);
        assert_eq!(decode(&body), Some(footer));
        let block = &body[115..];
        assert_eq!(decode_block(PartitionId(3), block), Some(batches));
        assert_eq!(decode_block(PartitionId(4), block), None);
        for bit in 0..block.len() * 8 {
            let mut bad = block.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_block(PartitionId(3), &bad), None, "bit {bit}");
        }
    }

    #[test]
    fn a_relocated_segments_footer_names_sources_and_stands_for_more_than_it_holds() {
        let covering = Covering {
            partition: PartitionId(3),
            first: Offset::ZERO,
            end: Offset::new(20).unwrap(),
            part: Part::default(),
        };
        let sources = [SegmentId(7), SegmentId::relocated(1)];
        let (body, footer) = encode_covering(64, &[covering], &[], &sources);
        let golden = "030000000100000000000000020000000300000000000000000000000000000014000000000000\
                      00ffffffffffffffff000000000000000000000000000000009800000008000000\
                      070000000000000001000000000000800dc9f27800000000";
        assert_eq!(hex(&body), golden);
        assert_eq!(decode(&body), Some(footer));
        assert_eq!(decode_block(PartitionId(3), &body[88..]), Some(Vec::new()));
    }

    #[test]
    fn version_2_is_read() {
        let golden = "0200000001000000010000000300000000000000050000000000000009000000000000004600000000000000\
                      0068e5cf8b010000aa00000000000000f7010000400000000300000000000000e80300000000000001000100000000020000000500000000000000";
        let body: Vec<u8> = (0..golden.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
            .collect();
        let mut footer = decode(&body).unwrap();
        footer.blocks[0].block_position += 12;
        assert_eq!(footer, sample().1);
    }

    #[test]
    fn a_cut_footer_is_refused() {
        let (body, _, _) = sample();
        for cut in 0..115 {
            assert_eq!(decode(&body[..cut]), None);
        }
    }
}

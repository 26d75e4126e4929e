//! The index over sealed segments, in fjall. It is a cache: everything in it can be rebuilt from the
//! segments' footers and the internal partitions, so its folder may be deleted.
//!
//! One keyspace, written only by bulk ingestion: that skips fjall's journal and memtable, is atomic, and
//! durable when it returns. Keys begin with a kind byte; numbers in keys are big-endian.
//!
//! | key | value |
//! |---|---|
//! | `B` partition, first offset | segment, block position, block bytes, end offset, largest timestamp, append time, batch bytes |
//! | `C` | the newest appended segment that the index holds |
//! | `K` partition | the offset up to which it was compacted |
//! | `M` internal partition, record key | offset and newest value of that key |
//! | `P` partition, producer id | the producer's last batches |
//! | `V` | version of this table |
//! | `X` | there once was damage: what seems to be of no topic may be of one whose record is lost |
//!
//! The `B` rows of a partition stand for disjoint ranges of offsets, each from its first offset to its
//! end. Two threads write: the sealer adds a segment's rows, the cleaner replaces and removes rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use holdfast_wal::SegmentId;

use super::footer::{BlockInfo, ProducerEntry, decode_producer_bytes, encode_producer};
use super::memory::Memory;
use super::partition::BatchEntry;
use super::types::{Offset, PartitionId};

const BLOCK: u8 = b'B';
const CHECKPOINT: &[u8] = b"C";
const COMPACTED: u8 = b'K';
const METADATA: u8 = b'M';
const PRODUCER: u8 = b'P';
const VERSION_KEY: &[u8] = b"V";
const DAMAGED: &[u8] = b"X";
const VERSION: u8 = 3;

const OFFSET_BYTES: usize = 8;

/// Where one partition's part of a sealed segment is described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    pub segment: SegmentId,
    pub info: BlockInfo,
}

/// Segment and position of the block in it.
type BlockKey = (SegmentId, u32);

/// What is known of a block that was read whole once and has its checksum.
#[derive(Debug, Clone)]
pub struct Block {
    /// The largest timestamps of its batches never go back.
    pub by_time: bool,
    /// The batches themselves, where they cannot be read from the footer.
    pub batches: Option<Arc<Vec<BatchEntry>>>,
}

fn running_max(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let largest = values.scan(i64::MIN, |largest, value| {
        *largest = (*largest).max(value);
        Some(*largest)
    });
    largest.collect()
}

/// The rows of one partition, as of a generation of the index.
#[derive(Debug)]
struct Rows {
    generation: u64,
    rows: Vec<BlockRef>,
    largest_ms: Vec<i64>,
}

/// A partition with more rows is looked up in fjall every time.
const ROWS_MAX: usize = 4096;

#[derive(Clone)]
struct RowsWeight;

impl quick_cache::Weighter<PartitionId, Arc<Rows>> for RowsWeight {
    fn weight(&self, _: &PartitionId, rows: &Arc<Rows>) -> u64 {
        (rows.rows.len() * (size_of::<BlockRef>() + 8) + 96) as u64
    }
}

#[derive(Clone)]
struct BlockWeight;

impl quick_cache::Weighter<BlockKey, Block> for BlockWeight {
    fn weight(&self, _: &BlockKey, block: &Block) -> u64 {
        let batches = block.batches.as_ref().map_or(0, |batches| batches.len());
        (batches * size_of::<BatchEntry>() + 96) as u64
    }
}

/// Rows to write and to remove, all or none.
#[derive(Debug, Default)]
pub struct Changes {
    rows: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn put_block(&mut self, segment: SegmentId, info: &BlockInfo) {
        self.put(
            block_key(info.partition, info.first),
            block_value(segment, info),
        );
    }

    pub fn remove_block(&mut self, block: &BlockRef) {
        self.remove(block_key(block.info.partition, block.info.first));
    }

    /// The index holds everything up to this segment.
    pub fn checkpoint(&mut self, segment: SegmentId) {
        self.put(CHECKPOINT.to_vec(), segment.0.to_be_bytes().to_vec());
        self.put(VERSION_KEY.to_vec(), vec![VERSION]);
    }

    pub fn metadata(&mut self, changes: &MetadataChanges) {
        for ((partition, key), (offset, value)) in changes {
            let key = metadata_key(*partition, key);
            match value {
                Some(value) => {
                    let mut row = offset.value().to_be_bytes().to_vec();
                    row.extend_from_slice(value);
                    self.put(key, row);
                }
                None => self.remove(key),
            }
        }
    }

    pub fn remove_metadata(&mut self, partition: PartitionId, key: &[u8]) {
        self.remove(metadata_key(partition, key));
    }

    pub fn producers(&mut self, entries: &[ProducerEntry]) {
        for entry in entries {
            let mut value = Vec::new();
            encode_producer(entry, &mut value);
            self.put(producer_key(entry.partition, entry.producer_id), value);
        }
    }

    pub fn remove_producer(&mut self, partition: PartitionId, producer_id: i64) {
        self.remove(producer_key(partition, producer_id));
    }

    pub fn compacted(&mut self, partition: PartitionId, upto: Offset) {
        self.put(
            compacted_key(partition),
            upto.value().to_be_bytes().to_vec(),
        );
    }

    pub fn remove_compacted(&mut self, partition: PartitionId) {
        self.remove(compacted_key(partition));
    }

    /// Remembers that acknowledged bytes could not be read.
    pub fn damaged(&mut self) {
        self.put(DAMAGED.to_vec(), Vec::new());
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.rows.insert(key, Some(value));
    }

    fn remove(&mut self, key: Vec<u8>) {
        self.rows.insert(key, None);
    }
}

/// Changes of internal partitions: offset and newest value of each key, `None` for a deleted one.
pub type MetadataChanges = BTreeMap<(PartitionId, Vec<u8>), (Offset, Option<Vec<u8>>)>;

/// The newest value of a key of an internal partition.
pub struct MetadataRow {
    pub key: Vec<u8>,
    pub offset: Offset,
    pub value: Vec<u8>,
}

/// The index.
pub struct Index {
    keyspace: Keyspace,
    /// What is known of footer blocks, by the memory it takes.
    blocks: quick_cache::sync::Cache<BlockKey, Block, BlockWeight>,
    rows: quick_cache::sync::Cache<PartitionId, Arc<Rows>, RowsWeight>,
    /// Rises with every change: what was cached before may be stale.
    generation: AtomicU64,
    // Dropped last: it owns the threads behind the keyspace.
    _database: Database,
}

impl Index {
    pub fn open(path: &Path, memory: Memory) -> fjall::Result<Index> {
        let cache_bytes = memory.cache_bytes();
        let database = Database::builder(path)
            .cache_size(cache_bytes)
            .worker_threads(1)
            .open()?;
        let keyspace = database.keyspace("index", || {
            KeyspaceCreateOptions::default().max_memtable_size(1 << 20)
        })?;
        let blocks = quick_cache::sync::Cache::with_weighter(1024, cache_bytes, BlockWeight);
        let rows = quick_cache::sync::Cache::with_weighter(1024, cache_bytes, RowsWeight);
        Ok(Index {
            keyspace,
            blocks,
            rows,
            generation: AtomicU64::new(0),
            _database: database,
        })
    }

    /// Whether this program wrote it, or it is new.
    pub fn is_of_this_version(&self) -> fjall::Result<bool> {
        match self.keyspace.get(VERSION_KEY)? {
            Some(version) => Ok(*version == [VERSION]),
            None => Ok(self.checkpoint()?.is_none()),
        }
    }

    /// The newest segment the index holds.
    pub fn checkpoint(&self) -> fjall::Result<Option<SegmentId>> {
        let value = self.keyspace.get(CHECKPOINT)?;
        Ok(value.and_then(|v| v.first_chunk().map(|b| SegmentId(u64::from_be_bytes(*b)))))
    }

    /// Nothing was ever written to it.
    pub fn is_empty(&self) -> fjall::Result<bool> {
        self.keyspace.is_empty()
    }

    /// Writes all changes or none; durable when it returns.
    pub fn apply(&self, changes: Changes) -> fjall::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut ingestion = self.keyspace.start_ingestion()?;
        for (key, value) in changes.rows {
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()?;
        self.generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }

    /// The rows of a partition; `None` where they are too many to be kept.
    fn rows(&self, partition: PartitionId) -> fjall::Result<Option<Arc<Rows>>> {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(known) = self.rows.get(&partition)
            && known.generation == generation
        {
            return Ok((known.rows.len() <= ROWS_MAX).then_some(known));
        }
        // One more than the most says that there are too many.
        let found = self.blocks_of(partition).take(ROWS_MAX + 1);
        let rows: Vec<BlockRef> = found.collect::<fjall::Result<_>>()?;
        let largest_ms = running_max(rows.iter().map(|row| row.info.max_timestamp_ms));
        let rows = Arc::new(Rows {
            generation,
            rows,
            largest_ms,
        });
        self.rows.insert(partition, rows.clone());
        Ok((rows.rows.len() <= ROWS_MAX).then_some(rows))
    }

    /// The blocks from the first one on that has a timestamp as large.
    pub fn blocks_from_time(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> fjall::Result<Box<dyn Iterator<Item = fjall::Result<BlockRef>>>> {
        let Some(rows) = self.rows(partition)? else {
            return Ok(Box::new(self.blocks_of(partition)));
        };
        let first = rows.largest_ms.partition_point(|ms| *ms < timestamp_ms);
        Ok(Box::new(
            (first..rows.rows.len()).filter_map(move |at| rows.rows.get(at).copied().map(Ok)),
        ))
    }

    /// The block that holds `offset`, or the first one behind it.
    pub fn block_at(
        &self,
        partition: PartitionId,
        offset: Offset,
    ) -> fjall::Result<Option<BlockRef>> {
        if let Some(rows) = self.rows(partition)? {
            let at = rows.rows.partition_point(|row| row.info.end <= offset);
            return Ok(rows.rows.get(at).copied());
        }
        let from = block_key(partition, Offset::ZERO);
        let mut before = self
            .keyspace
            .range(from..=block_key(partition, offset))
            .rev();
        if let Some(guard) = before.next() {
            let (key, value) = guard.into_inner()?;
            let found = decode_block_row(&key, &value);
            if found.is_some_and(|block| block.info.end > offset) {
                return Ok(found);
            }
        }
        let behind = block_key(partition, offset.plus(1))..=last_block_key(partition);
        match self.keyspace.range(behind).next() {
            Some(guard) => {
                let (key, value) = guard.into_inner()?;
                Ok(decode_block_row(&key, &value))
            }
            None => Ok(None),
        }
    }

    /// The largest partition that has a block.
    pub fn last_partition(&self) -> fjall::Result<Option<PartitionId>> {
        let Some(guard) = self.keyspace.prefix([BLOCK]).next_back() else {
            return Ok(None);
        };
        let key = guard.key()?;
        Ok(key
            .get(1..)
            .and_then(|k| k.first_chunk())
            .map(|id| PartitionId(u64::from_be_bytes(*id))))
    }

    /// Every block of a partition, oldest first.
    pub fn blocks_of(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = fjall::Result<BlockRef>> + use<> {
        let range = block_key(partition, Offset::ZERO)..=last_block_key(partition);
        self.keyspace
            .range(range)
            .filter_map(|guard| match guard.into_inner() {
                Ok((key, value)) => decode_block_row(&key, &value).map(Ok),
                Err(error) => Some(Err(error)),
            })
    }

    /// Blocks of a partition that begin in a range of offsets.
    pub fn blocks_in(
        &self,
        partition: PartitionId,
        first: Offset,
        end: Offset,
    ) -> impl Iterator<Item = fjall::Result<BlockRef>> + use<> {
        let range = block_key(partition, first)..block_key(partition, end);
        self.keyspace
            .range(range)
            .filter_map(|guard| match guard.into_inner() {
                Ok((key, value)) => decode_block_row(&key, &value).map(Ok),
                Err(error) => Some(Err(error)),
            })
    }

    /// The last block of a partition.
    pub fn last_block(&self, partition: PartitionId) -> fjall::Result<Option<BlockRef>> {
        let range = block_key(partition, Offset::ZERO)..=last_block_key(partition);
        match self.keyspace.range(range).next_back() {
            Some(guard) => {
                let (key, value) = guard.into_inner()?;
                Ok(decode_block_row(&key, &value))
            }
            None => Ok(None),
        }
    }

    /// What is known of a block, if it was used lately.
    pub fn cached_block(&self, block: &BlockRef) -> Option<Block> {
        self.blocks.get(&(block.segment, block.info.block_position))
    }

    pub fn cache_block(&self, block: &BlockRef, known: Block) {
        let key = (block.segment, block.info.block_position);
        self.blocks.insert(key, known);
    }

    /// Forgets a block: its segment is going to be removed.
    pub fn uncache_block(&self, block: &BlockRef) {
        self.blocks
            .remove(&(block.segment, block.info.block_position));
    }

    /// Newest value of every key of an internal partition.
    pub fn metadata(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = fjall::Result<MetadataRow>> + use<> {
        self.metadata_from(partition, &[])
    }

    /// The same of the keys that begin so.
    pub fn metadata_from(
        &self,
        partition: PartitionId,
        begin: &[u8],
    ) -> impl Iterator<Item = fjall::Result<MetadataRow>> + use<> {
        let prefix = metadata_key(partition, begin);
        let skip = metadata_key(partition, &[]).len();
        self.keyspace.prefix(prefix).map(move |guard| {
            let (key, row) = guard.into_inner()?;
            let (offset, value) = decode_metadata_row(&row);
            Ok(MetadataRow {
                key: key.get(skip..).unwrap_or_default().to_vec(),
                offset,
                value,
            })
        })
    }

    /// Offset and newest value of a key.
    pub fn metadata_value(
        &self,
        partition: PartitionId,
        key: &[u8],
    ) -> fjall::Result<Option<(Offset, Vec<u8>)>> {
        let row = self.keyspace.get(metadata_key(partition, key))?;
        Ok(row.map(|row| decode_metadata_row(&row)))
    }

    pub fn was_damaged(&self) -> fjall::Result<bool> {
        self.keyspace.contains_key(DAMAGED)
    }

    /// The block that begins at `first`.
    pub fn block(&self, partition: PartitionId, first: Offset) -> fjall::Result<Option<BlockRef>> {
        let key = block_key(partition, first);
        let row = self.keyspace.get(&key)?;
        Ok(row.and_then(|value| decode_block_row(&key, &value)))
    }

    /// The offset up to which a partition was compacted.
    pub fn compacted(&self, partition: PartitionId) -> fjall::Result<Offset> {
        let row = self.keyspace.get(compacted_key(partition))?;
        let offset = row.and_then(|row| Offset::new(i64::from_be_bytes(*row.first_chunk()?)));
        Ok(offset.unwrap_or_default())
    }

    /// Every block of every partition.
    pub fn all_blocks(&self) -> impl Iterator<Item = fjall::Result<BlockRef>> + use<> {
        self.keyspace
            .prefix([BLOCK])
            .filter_map(|guard| match guard.into_inner() {
                Ok((key, value)) => decode_block_row(&key, &value).map(Ok),
                Err(error) => Some(Err(error)),
            })
    }

    /// One producer of a partition.
    pub fn producer(
        &self,
        partition: PartitionId,
        producer_id: i64,
    ) -> fjall::Result<Option<ProducerEntry>> {
        let row = self.keyspace.get(producer_key(partition, producer_id))?;
        Ok(row.and_then(|row| decode_producer_bytes(&row)))
    }

    /// The producers of a partition.
    pub fn producers(
        &self,
        partition: PartitionId,
    ) -> impl Iterator<Item = fjall::Result<ProducerEntry>> + use<> {
        let mut prefix = vec![PRODUCER];
        prefix.extend_from_slice(&partition.0.to_be_bytes());
        self.producers_from(prefix)
    }

    /// The producers of every partition.
    pub fn all_producers(&self) -> impl Iterator<Item = fjall::Result<ProducerEntry>> + use<> {
        self.producers_from(vec![PRODUCER])
    }

    fn producers_from(
        &self,
        prefix: Vec<u8>,
    ) -> impl Iterator<Item = fjall::Result<ProducerEntry>> + use<> {
        self.keyspace
            .prefix(prefix)
            .filter_map(|guard| match guard.into_inner() {
                Ok((_, value)) => decode_producer_bytes(&value).map(Ok),
                Err(error) => Some(Err(error)),
            })
    }
}

fn block_key(partition: PartitionId, first: Offset) -> Vec<u8> {
    let mut key = vec![BLOCK];
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(&first.value().to_be_bytes());
    key
}

fn last_block_key(partition: PartitionId) -> Vec<u8> {
    let mut key = block_key(partition, Offset::ZERO);
    key.truncate(9);
    key.extend_from_slice(&i64::MAX.to_be_bytes());
    key
}

fn block_value(segment: SegmentId, info: &BlockInfo) -> Vec<u8> {
    let mut value = Vec::with_capacity(48);
    value.extend_from_slice(&segment.0.to_be_bytes());
    value.extend_from_slice(&info.block_position.to_be_bytes());
    value.extend_from_slice(&info.block_bytes.to_be_bytes());
    value.extend_from_slice(&info.end.value().to_be_bytes());
    value.extend_from_slice(&info.max_timestamp_ms.to_be_bytes());
    value.extend_from_slice(&info.append_time_ms.to_be_bytes());
    value.extend_from_slice(&info.batch_bytes.to_be_bytes());
    value
}

pub fn decode_block_row(key: &[u8], value: &[u8]) -> Option<BlockRef> {
    let (partition, first) = key.get(1..)?.split_first_chunk::<8>()?;
    let (segment, value) = value.split_first_chunk::<8>()?;
    let (block_position, value) = value.split_first_chunk::<4>()?;
    let (block_bytes, value) = value.split_first_chunk::<4>()?;
    let (end, value) = value.split_first_chunk::<8>()?;
    let (max_timestamp, value) = value.split_first_chunk::<8>()?;
    let (append_time, value) = value.split_first_chunk::<8>()?;
    let info = BlockInfo {
        partition: PartitionId(u64::from_be_bytes(*partition)),
        first: Offset::new(i64::from_be_bytes(*first.first_chunk()?))?,
        end: Offset::new(i64::from_be_bytes(*end))?,
        max_timestamp_ms: i64::from_be_bytes(*max_timestamp),
        append_time_ms: u64::from_be_bytes(*append_time),
        batch_bytes: u64::from_be_bytes(*value.first_chunk()?),
        block_position: u32::from_be_bytes(*block_position),
        block_bytes: u32::from_be_bytes(*block_bytes),
    };
    Some(BlockRef {
        segment: SegmentId(u64::from_be_bytes(*segment)),
        info,
    })
}

fn decode_metadata_row(row: &[u8]) -> (Offset, Vec<u8>) {
    let offset = row
        .first_chunk()
        .and_then(|offset| Offset::new(i64::from_be_bytes(*offset)));
    let value = row.get(OFFSET_BYTES..).unwrap_or_default();
    (offset.unwrap_or_default(), value.to_vec())
}

fn metadata_key(partition: PartitionId, record_key: &[u8]) -> Vec<u8> {
    let mut key = vec![METADATA];
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(record_key);
    key
}

fn producer_key(partition: PartitionId, producer_id: i64) -> Vec<u8> {
    let mut key = vec![PRODUCER];
    key.extend_from_slice(&partition.0.to_be_bytes());
    key.extend_from_slice(&producer_id.to_be_bytes());
    key
}

fn compacted_key(partition: PartitionId) -> Vec<u8> {
    let mut key = vec![COMPACTED];
    key.extend_from_slice(&partition.0.to_be_bytes());
    key
}

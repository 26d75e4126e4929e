//! Copying what is still wanted of old segments into new ones, so that the old ones can go.
//!
//! A new segment is written under a temporary name, gets its footer, is made durable and renamed; then
//! the rows that it replaces are replaced in the index, all at once. Until then nothing refers to it.
//! What will expire together is laid together, so that it need not be copied again.

use super::*;
use crate::log::batch::{self, BatchHeader};
use crate::log::footer::{Covering, Part};
use crate::log::index::Index;
use crate::log::partition::BatchEntry;
use crate::log::retain::{Glance, Unpacked};
use bytes::Bytes;
use holdfast_wal::Relocation;
use holdfast_wal::format::{ENTRY_HEADER_BYTES, GROUP_HEADER_BYTES};

/// Copied at once; a larger batch is copied alone.
const CHUNK_BYTES: usize = 1 << 20;
/// A segment is relocated when that would free so much of it, in percent,
const FREED_PERCENT_MIN: u64 = 40;
/// or so much while the disk is full,
const FREED_PERCENT_LOW: u64 = 10;
/// and at least this part of a whole one.
const FREED_PART_MIN: u64 = 256;
/// From so many small segments on they are merged;
const SMALL_SEGMENTS_MAX: usize = 64;
/// small is less than this part of a whole one.
const SMALL_PART: u64 = 8;
/// Segments written before those they come from are removed: what is laid together comes from as many.
const AT_ONCE: u64 = 4;
/// Blocks are merged up to this part of what retention keeps, so that it stays as exact as it was.
const RETENTION_PART: u64 = 16;
/// Of a group with one entry, beside its payload.
const GROUP_BYTES: u64 = (GROUP_HEADER_BYTES + ENTRY_HEADER_BYTES) as u64;
/// Waiting for the throttle ends early when the log closes.
const PAUSE: Duration = Duration::from_millis(20);

/// Bytes beside their batches that so many rows take at most.
pub fn overhead_bytes(rows: u64, batches: u64) -> u64 {
    let [parts, listed] = [rows, batches].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    rows * GROUP_BYTES + footer::bytes_of(parts, listed) as u64
}

/// The segment being written.
pub struct Output {
    relocation: Relocation,
    parts: Vec<Covering>,
    /// Listed by the parts.
    batches: usize,
    replaced: Vec<BlockRef>,
    sources: BTreeSet<SegmentId>,
    /// Made with the rows.
    changes: Changes,
}

/// What becomes of a batch.
pub enum Kept {
    Whole,
    /// Something of it.
    Part(Bytes),
    Nothing,
}

/// Judges a batch, given its bytes.
pub type Judge<'a> = dyn FnMut(&BatchEntry, &Bytes) -> Kept + 'a;

impl Cleaner {
    /// Empties segments of which little is wanted any more, and merges small ones.
    pub(super) fn relocate(&mut self) -> Result<(), Failure> {
        loop {
            let victims = self.victims()?;
            if victims.is_empty() {
                return Ok(());
            }
            let mut rows = Vec::new();
            for &victim in &victims {
                rows.extend(self.rows_in(victim)?);
            }
            let now = self.parts.clock.now_ms();
            rows.sort_by_cached_key(|row| {
                (
                    self.expiry_class(row, now),
                    row.info.partition,
                    row.info.first,
                )
            });
            let mut planned: u64 = rows.iter().map(|row| row.info.batch_bytes).sum();
            planned += overhead_bytes(rows.len() as u64, 0);
            for row in rows {
                let copied = if is_internal(row.info.partition) {
                    let index = self.parts.reader.index.clone();
                    let partition = row.info.partition;
                    self.copy_row(&row, planned, &mut |_, bytes| {
                        judge_metadata(&index, partition, bytes)
                    })
                } else {
                    self.copy_row(&row, planned, &mut verify)
                };
                if let Err(Failure::Fetch(error)) = copied {
                    tracing::error!(segment = %row.segment, %error, "cannot be relocated, and stays");
                    self.unmovable.insert(row.segment);
                } else {
                    copied?;
                }
                planned = planned.saturating_sub(row.info.batch_bytes);
            }
            self.finish_output()?;
            self.remove_segments()?;
            self.stop_if_closing()?;
            // What is still there would be chosen again for ever.
            let stayed = victims.into_iter().filter(|id| self.usage.contains_key(id));
            let stayed: Vec<SegmentId> = stayed.collect();
            self.unmovable.extend(stayed);
        }
    }

    /// Segments worth being emptied, not more than can be written in one go.
    fn victims(&self) -> Result<Vec<SegmentId>, Failure> {
        let newest = self.parts.reader.index.checkpoint()?;
        let segment_bytes = u64::from(self.parts.segment_bytes);
        let percent = match self.parts.guard.low() {
            Some(_) => FREED_PERCENT_LOW,
            None => FREED_PERCENT_MIN,
        };
        let (mut sparse, mut small) = (Vec::new(), Vec::new());
        for (&id, usage) in &self.usage {
            if !self.is_closed(id, newest) || self.unmovable.contains(&id) || usage.is_empty() {
                continue;
            }
            let (size, kept) = (self.size_of(id), usage.relocated_bytes());
            let freed = size.saturating_sub(kept);
            if freed >= segment_bytes / FREED_PART_MIN && freed * 100 >= size * percent {
                sparse.push((kept * 1000 / size.max(1), kept, id));
            } else if size < segment_bytes / SMALL_PART {
                small.push((0, kept, id));
            }
        }
        sparse.sort_unstable();
        let chosen = if sparse.is_empty() && small.len() >= SMALL_SEGMENTS_MAX {
            small
        } else {
            sparse
        };
        let mut planned = 0;
        let fitting = chosen.into_iter().take_while(|(_, kept, _)| {
            planned += kept;
            planned <= AT_ONCE * segment_bytes || planned == *kept
        });
        Ok(fitting.map(|(_, _, id)| id).collect())
    }

    /// The rows that name a segment.
    pub(super) fn rows_in(&self, segment: SegmentId) -> Result<Vec<BlockRef>, Failure> {
        let index = &self.parts.reader.index;
        let file = self.parts.reader.segments.get(segment);
        let footer = match &file {
            Some(file) => footer_of(file)?,
            None => None,
        };
        let mut rows = Vec::new();
        match footer {
            Some(footer) => {
                for info in footer.blocks {
                    let row = index.block(info.partition, info.first)?;
                    rows.extend(row.filter(|row| row.segment == segment));
                }
            }
            None => {
                for row in index.all_blocks() {
                    rows.extend(Some(row?).filter(|row| row.segment == segment));
                }
            }
        }
        Ok(rows)
    }

    /// What expires within the same power of two of hours is of one class; what never does comes last.
    fn expiry_class(&self, row: &BlockRef, now_ms: u64) -> u32 {
        match self.retention_of(row.info.partition).and_then(|r| r.ms) {
            Some(ms) => {
                let left = row
                    .info
                    .append_time_ms
                    .saturating_add(ms)
                    .saturating_sub(now_ms);
                u64::BITS - (left / 3_600_000).leading_zeros()
            }
            None => u32::MAX,
        }
    }

    fn retention_of(&self, partition: PartitionId) -> Option<Retention> {
        let tables = self.parts.state.read();
        let partition = tables.partitions.get(&partition)?;
        let topic = tables.by_id.get(&partition.topic_id())?;
        topic.retention(&self.parts.retention)
    }

    /// Copies what is wanted of one row's batches; the row is replaced when the output is finished.
    /// `planned`: how much is going to be written about now.
    pub(super) fn copy_row(
        &mut self,
        row: &BlockRef,
        planned: u64,
        judge: &mut Judge<'_>,
    ) -> Result<(), Failure> {
        let Some(open) = self.parts.reader.open(*row)? else {
            // Its segment was set aside as damaged: there is nothing to copy.
            return Ok(());
        };
        let partition = row.info.partition;
        let log_start = {
            let tables = self.parts.state.read();
            let partition = tables.partitions.get(&partition);
            partition.map_or(Offset::ZERO, |partition| partition.log_start_offset())
        };
        let wanted: Vec<BatchEntry> = open
            .entries(0, open.count)?
            .into_iter()
            .filter(|entry| entry.end() > log_start)
            .collect();
        self.make_room(row, wanted.len(), planned)?;
        let mut part = Part {
            batches: Vec::with_capacity(wanted.len()),
            append_time_ms: row.info.append_time_ms,
        };
        let mut chunk = Chunk::default();
        let mut rest = wanted.as_slice();
        while let Some(first) = rest.first() {
            let (run, run_bytes) = contiguous(rest);
            let mut bytes = vec![0; run_bytes];
            (open.segment.read(first.position, &mut bytes)).map_err(FetchError::from)?;
            let bytes = Bytes::from(bytes);
            let (taken, behind) = rest.split_at(run);
            rest = behind;
            for entry in taken {
                let at = (entry.position - first.position) as usize;
                let batch = bytes.slice(at..at + entry.bytes as usize);
                match judge(entry, &batch) {
                    Kept::Whole => chunk.push(entry, &batch),
                    Kept::Part(batch) => chunk.push(entry, &batch),
                    Kept::Nothing => {}
                }
                if chunk.bytes.len() >= CHUNK_BYTES {
                    self.write(partition, &mut part, &mut chunk)?;
                }
            }
        }
        self.write(partition, &mut part, &mut chunk)?;
        self.add_part(row, part);
        Ok(())
    }

    /// Ends the output if the row does not fit into it, and begins one if there is none.
    fn make_room(&mut self, row: &BlockRef, batches: usize, planned: u64) -> Result<(), Failure> {
        let chunks = row.info.batch_bytes / CHUNK_BYTES as u64 + 1;
        let payload = row.info.batch_bytes + chunks * GROUP_BYTES;
        if let Some(output) = &self.output {
            let parts = output.parts.len() + 1;
            let sources = (output.sources.len() + self.usage.len()) * 8;
            let footer = footer::bytes_of(parts, output.batches + batches) + sources;
            if output.relocation.fits(payload, footer as u64) {
                return Ok(());
            }
            self.finish_output()?;
            // What is copied takes space; what it was copied from gives it back at once.
            self.remove_segments()?;
        }
        let least = payload + overhead_bytes(1, batches as u64) + (self.usage.len() as u64) * 8;
        let most = planned + planned / RETENTION_PART + (64 << 10);
        let segment_bytes = u64::from(self.parts.segment_bytes);
        // The index and the footers of sealed segments need some of the reserve, too.
        let free = self
            .parts
            .guard
            .room()
            .map_or(u64::MAX, |room| room.free_bytes);
        let room = free.saturating_sub(segment_bytes / 4);
        let capacity = least.max(most.min(segment_bytes).min(room));
        if capacity > room {
            return Err(Failure::Wal(WalError::NoSpace {
                bytes: capacity,
                source: Arc::new(std::io::ErrorKind::StorageFull.into()),
            }));
        }
        self.set_pace();
        let id = SegmentId::relocated(self.next_relocated);
        self.next_relocated += 1;
        let relocation = Relocation::create(
            &self.parts.disk,
            id,
            self.parts.boot_epoch,
            uuid::Uuid::new_v4().as_u64_pair().1,
            u32::try_from(capacity).unwrap_or(u32::MAX),
        )?;
        self.output = Some(Output {
            relocation,
            parts: Vec::new(),
            batches: 0,
            replaced: Vec::new(),
            sources: BTreeSet::new(),
            changes: Changes::default(),
        });
        Ok(())
    }

    fn write(
        &mut self,
        partition: PartitionId,
        part: &mut Part,
        chunk: &mut Chunk,
    ) -> Result<(), Failure> {
        let Some(output) = self.output.as_mut().filter(|_| !chunk.bytes.is_empty()) else {
            return Ok(());
        };
        let written = output
            .relocation
            .append(partition.0, part.append_time_ms, &chunk.bytes);
        let at = self.poisons(written)?;
        for mut entry in chunk.entries.drain(..) {
            entry.position += at;
            part.batches.push(entry);
        }
        let bytes = chunk.bytes.len() as u64;
        chunk.bytes.clear();
        let space = &self.parts.space;
        space.relocated_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.pause_after(bytes)
    }

    /// A failed fdatasync is final, also here.
    fn poisons<T>(&self, result: Result<T, WalError>) -> Result<T, Failure> {
        if let Err(error @ WalError::Poisoned { .. }) = &result {
            self.parts.state.fail(error.to_string());
        }
        Ok(result?)
    }

    /// The throttle: the more there is to be freed, the less it holds back.
    fn set_pace(&mut self) {
        let (mut sizes, mut kept) = (0, 0);
        for (&id, usage) in &self.usage {
            sizes += self.size_of(id);
            kept += usage.bytes;
        }
        let backlog = sizes.saturating_sub(kept) / (8 * u64::from(self.parts.segment_bytes)).max(1);
        self.pace = self.parts.bytes_per_second.saturating_mul(backlog.max(1));
    }

    fn pause_after(&self, bytes: u64) -> Result<(), Failure> {
        let mut left = Duration::from_secs_f64(bytes as f64 / self.pace.max(1) as f64);
        while !left.is_zero() {
            self.stop_if_closing()?;
            let pause = left.min(PAUSE);
            std::thread::sleep(pause);
            left -= pause;
        }
        self.stop_if_closing()
    }

    pub(super) fn stop_if_closing(&self) -> Result<(), Failure> {
        if self.parts.state.is_closing() {
            Err(Failure::Closing)
        } else {
            Ok(())
        }
    }

    /// The row's place is taken by what was just written, together with the row before it where that
    /// is possible.
    fn add_part(&mut self, row: &BlockRef, part: Part) {
        let window = self.retention_of(row.info.partition);
        let Some(output) = &mut self.output else {
            return;
        };
        output.batches += part.batches.len();
        output.replaced.push(*row);
        output.sources.insert(row.segment);
        if let Some(last) = output.parts.last_mut()
            && last.partition == row.info.partition
            && last.end == row.info.first
            && may_merge(&last.part, &part, window)
        {
            last.end = row.info.end;
            last.part.append_time_ms = last.part.append_time_ms.max(part.append_time_ms);
            last.part.batches.extend(part.batches);
            return;
        }
        output.parts.push(Covering {
            partition: row.info.partition,
            first: row.info.first,
            end: row.info.end,
            part,
        });
    }

    /// Makes a change together with the rows of the output, or at once if there is none.
    pub(super) fn change_with_output(
        &mut self,
        change: impl FnOnce(&mut Changes),
    ) -> Result<(), Failure> {
        match &mut self.output {
            Some(output) => {
                change(&mut output.changes);
                Ok(())
            }
            None => {
                let mut changes = Changes::default();
                change(&mut changes);
                Ok(self.parts.reader.index.apply(changes)?)
            }
        }
    }

    /// Makes the output durable, and then the index name it.
    pub(super) fn finish_output(&mut self) -> Result<(), Failure> {
        let Some(mut output) = self.output.take() else {
            return Ok(());
        };
        // What stands behind a source stands behind the new segment, for as long as it exists.
        for source in output.sources.clone() {
            if !source.is_relocated() {
                continue;
            }
            if let Some(segment) = self.parts.reader.segments.get(source)
                && let Some(footer) = footer_of(&segment)?
            {
                output.sources.extend(footer.sources);
            }
        }
        let exist = output.sources.iter().filter(|id| self.exists(**id));
        let sources: Vec<SegmentId> = exist.copied().collect();
        output
            .parts
            .sort_by_key(|part| (part.partition, part.first));
        let end = output.relocation.end();
        let (body, footer) = footer::encode_covering(end, &output.parts, &[], &sources);
        let finished = output.relocation.finish(&body);
        let segment = self.poisons(finished)?;
        self.parts.reader.segments.insert(&segment);
        let mut changes = output.changes;
        for row in &output.replaced {
            changes.remove_block(row);
        }
        for info in &footer.blocks {
            changes.put_block(segment.id(), info);
        }
        if let Err(error) = self.parts.reader.index.apply(changes) {
            // Neither the new segment nor its sources may go before the next start, and nothing else may
            // be copied from them.
            self.halted = true;
            return Err(Failure::Halted(error));
        }
        self.usage.insert(segment.id(), Usage::default());
        for row in &output.replaced {
            self.subtract_row(row);
            self.parts.reader.index.uncache_block(row);
        }
        let tables = self.parts.state.read();
        let bytes_of = |id: PartitionId, change: &dyn Fn(&Partition)| {
            if let Some(partition) = tables.partitions.get(&id) {
                change(partition);
            }
        };
        for info in &footer.blocks {
            bytes_of(info.partition, &|partition| {
                partition.add_bytes(info.batch_bytes)
            });
        }
        for row in &output.replaced {
            let bytes = row.info.batch_bytes;
            bytes_of(row.info.partition, &|partition| {
                partition.remove_bytes(bytes)
            });
        }
        drop(tables);
        for &info in &footer.blocks {
            self.add_row(&BlockRef {
                segment: segment.id(),
                info,
            });
        }
        tracing::info!(segment = %segment.id(), sources = sources.len(), rows = output.replaced.len(),
            bytes = end, "relocated what is still kept");
        Ok(())
    }
}

/// Batches to be written as one entry; their positions count from its beginning.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    entries: Vec<BatchEntry>,
}

impl Chunk {
    fn push(&mut self, entry: &BatchEntry, batch: &Bytes) {
        let header = BatchHeader::parse(batch);
        self.entries.push(BatchEntry {
            position: u32::try_from(self.bytes.len()).unwrap_or(u32::MAX),
            bytes: u32::try_from(batch.len()).unwrap_or(u32::MAX),
            max_timestamp_ms: header.map_or(entry.max_timestamp_ms, |h| h.max_timestamp_ms),
            ..*entry
        });
        self.bytes.extend_from_slice(batch);
    }
}

/// How many of the first batches lie one behind the other, and their bytes.
fn contiguous(batches: &[BatchEntry]) -> (usize, usize) {
    let (mut count, mut bytes) = (0, 0);
    let mut next = batches.first().map(|entry| entry.position);
    for entry in batches {
        let fits = count == 0 || bytes + entry.bytes as usize <= CHUNK_BYTES;
        if next != Some(entry.position) || !fits {
            break;
        }
        next = entry.position.checked_add(entry.bytes);
        bytes += entry.bytes as usize;
        count += 1;
    }
    (count, bytes)
}

/// Whether retention stays about as exact if two blocks become one.
fn may_merge(before: &Part, behind: &Part, retention: Option<Retention>) -> bool {
    let Some(retention) = retention else {
        return true;
    };
    let bytes = |part: &Part| part.batches.iter().map(|b| u64::from(b.bytes)).sum::<u64>();
    let apart = behind.append_time_ms.abs_diff(before.append_time_ms);
    let near = retention.ms.is_none_or(|ms| apart <= ms / RETENTION_PART);
    let together = bytes(before) + bytes(behind);
    near && retention
        .bytes
        .is_none_or(|max| together <= max / RETENTION_PART)
}

/// Everything is kept; what rotted is told, and kept as it is: it was acknowledged.
fn verify(entry: &BatchEntry, batch: &Bytes) -> Kept {
    if !batch::is_whole(batch) {
        tracing::error!(offset = %entry.base, "damage: a batch that is relocated does not have its checksum");
    }
    Kept::Whole
}

/// Of an internal partition, values that were written over are not copied. Deletions are: older values
/// of their key may exist in segments that stay.
fn judge_metadata(index: &Index, partition: PartitionId, batch: &Bytes) -> Kept {
    let unpacked = BatchHeader::parse(batch).and_then(|header| Unpacked::new(&header, batch));
    let Ok(unpacked) = unpacked else {
        return Kept::Whole;
    };
    let is_newest = |glance: Glance<'_>| {
        let Some(key) = glance.key else {
            return true;
        };
        match index.metadata_value(partition, key) {
            Ok(Some((offset, _))) => offset <= glance.offset,
            Ok(None) => glance.deletes,
            Err(_) => true,
        }
    };
    let (mut all, mut kept) = (0, 0);
    let looked = unpacked.each(|glance| {
        all += 1;
        kept += u32::from(is_newest(glance));
    });
    if looked.is_err() || all == kept {
        return Kept::Whole;
    }
    match unpacked.retain(is_newest, None) {
        Ok(Some(batch)) => Kept::Part(batch),
        Ok(None) => Kept::Nothing,
        Err(_) => Kept::Whole,
    }
}

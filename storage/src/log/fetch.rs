//! Reading: from an offset or a time to the bytes in the segments.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::Segment;

use super::batch::{self, BatchHeader};
use super::error::FetchError;
use super::footer::{self, BlockInfo};
use super::index::{Block, BlockRef, Index};
use super::open::headers_in;
use super::partition::{BatchEntry, Partition};
use super::segments::Segments;
use super::stable::{self, Aborted, Isolation};
use super::types::{Offset, PartitionId, StoredRecord};

/// Whole record batches (Kafka v2, as stored) that cover the asked offset and what follows it.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Runs of batches, each run contiguous on disk; one run may hold several batches. The first
    /// batch may begin before the asked offset. Empty at the high watermark.
    pub batches: Vec<Bytes>,
    pub high_watermark: Offset,
    pub log_start_offset: Offset,
    /// What of it was aborted, where only committed records were asked for.
    pub aborted: Vec<Aborted>,
}

impl Fetched {
    /// Bytes of all batches.
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(Bytes::len).sum()
    }
}

/// Where the batches lie that cover the asked offset and what follows it; nothing of them is read yet.
#[derive(Debug, Clone)]
pub struct Located {
    pub runs: Vec<Run>,
    /// The offset behind the last of them; the asked one if there are none.
    pub next: Offset,
    pub high_watermark: Offset,
    pub last_stable_offset: Offset,
    pub log_start_offset: Offset,
    /// What of it was aborted, where only committed records were asked for.
    pub aborted: Vec<Aborted>,
}

impl Located {
    /// Bytes of all runs.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(Run::bytes).sum()
    }
}

/// Whole batches, contiguous on disk. They stay readable for as long as it is held, whatever the cleaner
/// does.
#[derive(Debug, Clone)]
pub struct Run {
    segment: Arc<Segment>,
    position: u32,
    bytes: u32,
}

impl PartialEq for Run {
    fn eq(&self, other: &Run) -> bool {
        let place = |run: &Run| (run.segment.id(), run.position, run.bytes);
        place(self) == place(other)
    }
}

impl Run {
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    pub fn read(&self) -> Result<Bytes, FetchError> {
        let mut bytes = vec![0; self.bytes as usize];
        self.segment.read(self.position, &mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    /// The file and its first position there, for sendfile and the like; `None` where there is no file.
    pub fn file(&self) -> Option<(&File, u64)> {
        let file = self.segment.file().as_file()?;
        Some((file, u64::from(self.position)))
    }

    /// It is going to be read: the disk may begin now.
    pub fn will_need(&self) {
        let file = self.segment.file();
        file.will_need(u64::from(self.position), u64::from(self.bytes));
    }
}

/// What reading needs.
pub struct Reader {
    pub index: Arc<Index>,
    pub segments: Segments,
}

impl Reader {
    pub fn fetch(
        &self,
        partition: &Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<Fetched, FetchError> {
        let located = self.locate(partition, from, bytes_max, isolation)?;
        Ok(Fetched {
            batches: located
                .runs
                .iter()
                .map(Run::read)
                .collect::<Result<_, _>>()?,
            high_watermark: located.high_watermark,
            log_start_offset: located.log_start_offset,
            aborted: located.aborted,
        })
    }

    pub fn locate(
        &self,
        partition: &Partition,
        from: Offset,
        bytes_max: usize,
        isolation: Isolation,
    ) -> Result<Located, FetchError> {
        if partition.is_deleted() {
            return Err(FetchError::Deleted);
        }
        // Read first: what is below them now stays readable, and what was aborted there is known.
        let last_stable_offset = partition.last_stable_offset();
        let high_watermark = partition.high_watermark();
        let log_start_offset = partition.log_start_offset();
        if from < log_start_offset || from > high_watermark {
            return Err(FetchError::OffsetOutOfRange {
                requested: from,
                log_start: log_start_offset,
                high_watermark,
            });
        }
        let (found, aborted) = match isolation {
            Isolation::Uncommitted => {
                let runs = self.runs(partition, from, high_watermark, bytes_max)?;
                (runs, Vec::new())
            }
            Isolation::Committed => {
                self.committed_runs(partition, from, last_stable_offset, bytes_max)?
            }
        };
        if found.list.len() > 1 {
            // They lie apart: a cold disk fetches them side by side instead of one after the other.
            found.list.iter().for_each(Run::will_need);
        }
        Ok(Located {
            runs: found.list,
            next: found.next,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            aborted,
        })
    }

    /// With what of them was aborted. Compaction removes aborted records first, then what is known of them,
    /// and their markers last; a reader must not see a part of that.
    fn committed_runs(
        &self,
        partition: &Partition,
        from: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<(Runs, Vec<Aborted>), FetchError> {
        loop {
            let before = partition.transactions().forgotten();
            let runs = self.runs(partition, from, end, bytes_max)?;
            let known = partition.transactions();
            if known.forgotten() == before {
                let aborted = known.aborted_in(from, runs.next);
                return Ok((runs, aborted));
            }
        }
    }

    fn runs(
        &self,
        partition: &Partition,
        from: Offset,
        end: Offset,
        bytes_max: usize,
    ) -> Result<Runs, FetchError> {
        let mut runs = Runs {
            list: Vec::new(),
            end,
            next: from,
            room: bytes_max,
            full: false,
        };
        let mut next = from;
        while next < end && !runs.full {
            // Memory first: a batch leaves it only after the index has it.
            if hot_from(partition, next, &mut runs, true).is_some() {
                break;
            }
            match self.index.block_at(partition.id(), next)? {
                Some(block) => {
                    next = next.max(block.info.first);
                    let behind = block.info.end;
                    let Some(open) = self.open(block)? else {
                        next = behind;
                        continue;
                    };
                    let mut at = open.at_offset(next)?;
                    let mut window = WINDOW_MIN;
                    while at < open.count && !runs.full {
                        let entries = open.entries(at, window)?;
                        at += entries.len();
                        window = (window * 4).min(WINDOW_MAX);
                        for entry in &entries {
                            runs.push(&open.segment, entry);
                        }
                    }
                    next = open.end;
                }
                // A gap that damage left: go on behind it.
                None => match hot_from(partition, next, &mut runs, false) {
                    Some(reached) => next = reached,
                    None => break,
                },
            }
        }
        Ok(runs)
    }

    /// The segment of a block, and its batches. The cleaner may have moved them elsewhere since the row
    /// was read; `None` for a segment that was set aside as damaged when the log was opened, and
    /// reported then.
    pub fn open(&self, mut block: BlockRef) -> Result<Option<OpenBlock>, FetchError> {
        loop {
            if let Some(segment) = self.segments.get(block.segment) {
                let known = self.known(&block, &segment)?;
                let listed = usize::try_from(block.info.batches()).unwrap_or(0);
                return Ok(Some(OpenBlock {
                    segment,
                    count: known
                        .batches
                        .as_ref()
                        .map_or(listed, |batches| batches.len()),
                    known,
                    entries_at: block.info.block_position + footer::BLOCK_HEADER_BYTES as u32,
                    end: block.info.end,
                }));
            }
            let now = (self.index).block_at(block.info.partition, block.info.first)?;
            match now.filter(|now| now.info.first <= block.info.first) {
                Some(now) if now.segment != block.segment => block = now,
                _ => return Ok(None),
            }
        }
    }

    /// Verifies a block, unless that was done lately.
    fn known(&self, block: &BlockRef, segment: &Segment) -> Result<Block, FetchError> {
        if let Some(known) = self.index.cached_block(block) {
            return Ok(known);
        }
        let (batches, listed) = match listed_batches(segment, &block.info)? {
            Some(batches) => (batches, true),
            None => (scanned_batches(segment, &block.info)?, false),
        };
        let times = batches.iter().map(|batch| batch.max_timestamp_ms);
        let known = Block {
            by_time: times.is_sorted(),
            batches: (!listed).then(|| Arc::new(batches)),
        };
        self.index.cache_block(block, known.clone());
        Ok(known)
    }

    /// Decoded committed records from `from` on. Stops before a batch that cannot be decoded, and reports
    /// it when it comes first.
    pub fn read(
        &self,
        partition: &Partition,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<StoredRecord>, FetchError> {
        let mut next = from;
        loop {
            let found = self.locate(partition, next, bytes_max, Isolation::Committed)?;
            let records = decode(&found, from, bytes_max)?;
            // What is aborted, or a marker, has no records.
            if !records.is_empty() || found.next <= next {
                return Ok(records);
            }
            next = found.next;
        }
    }

    /// Offset and timestamp of the first record whose timestamp is at least `timestamp_ms`.
    pub fn offset_for_time(
        &self,
        partition: &Partition,
        timestamp_ms: i64,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        // Memory first: what leaves it later is in the index by then.
        let hot = hot_copies(partition);
        for block in self.index.blocks_from_time(partition.id(), timestamp_ms)? {
            let block = block?;
            if block.info.max_timestamp_ms < timestamp_ms {
                continue;
            }
            let Some(open) = self.open(block)? else {
                continue;
            };
            let batches = open.candidates(partition.log_start_offset(), timestamp_ms)?;
            let found = first_at(partition, &open.segment, &batches, timestamp_ms)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        for (segment, batches) in hot {
            if let Some(found) = first_at(partition, &segment, &batches, timestamp_ms)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Offset and timestamp of the record with the largest timestamp, the first of equals.
    pub fn max_timestamp(
        &self,
        partition: &Partition,
    ) -> Result<Option<(Offset, i64)>, FetchError> {
        let start = partition.log_start_offset();
        let mut largest: Option<i64> = None;
        let hot = hot_copies(partition);
        for block in self.index.blocks_of(partition.id()) {
            let block = block?;
            if block.info.first >= start {
                largest = largest.max(Some(block.info.max_timestamp_ms));
            } else if block.info.end > start
                && let Some(open) = self.open(block)?
            {
                let batches = open.entries(0, open.count)?;
                let found = max_timestamp_from(start, &open.segment, &batches)?;
                largest = largest.max(found);
            }
        }
        for (segment, batches) in hot {
            largest = largest.max(max_timestamp_from(start, &segment, &batches)?);
        }
        match largest {
            Some(timestamp_ms) => self.offset_for_time(partition, timestamp_ms),
            None => Ok(None),
        }
    }
}

/// The records of batches that are not aborted.
fn decode(
    found: &Located,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<StoredRecord>, FetchError> {
    let mut out: Vec<StoredRecord> = Vec::new();
    let mut decoded_bytes = 0_usize;
    for run in &found.runs {
        for item in batch::split(&run.read()?) {
            let (header, bytes) = item.map_err(FetchError::Storage)?;
            if header.is_control() || stable::is_aborted(&header, &found.aborted) {
                continue;
            }
            if decoded_bytes >= bytes_max && !out.is_empty() {
                return Ok(out);
            }
            match batch::records(&header, &bytes) {
                Ok(records) => {
                    decoded_bytes += records.iter().map(batch::stored_bytes).sum::<usize>();
                    out.extend(records.into_iter().filter(|record| record.offset >= from));
                }
                Err(_) if !out.is_empty() => return Ok(out),
                Err(reason) => {
                    let base = Offset::new(header.base_offset).unwrap_or(from);
                    return Err(FetchError::Undecodable {
                        base,
                        next: header.end_offset(base),
                        batch: bytes,
                        reason,
                    });
                }
            }
        }
    }
    Ok(out)
}

/// Batches read at once from a footer when a few are wanted, and when many are.
const WINDOW_MIN: usize = 8;
const WINDOW_MAX: usize = 2048;

/// A block that can be read. Its batches stay in the footer, and in the page cache: only those that are
/// wanted are read.
pub struct OpenBlock {
    pub segment: Arc<Segment>,
    pub count: usize,
    known: Block,
    entries_at: u32,
    /// The offset behind those it stands for.
    pub end: Offset,
}

impl OpenBlock {
    /// Up to `count` batches from the one at `from` on.
    pub fn entries(&self, from: usize, count: usize) -> Result<Vec<BatchEntry>, FetchError> {
        let to = from.saturating_add(count).min(self.count);
        if let Some(batches) = &self.known.batches {
            return Ok(batches.get(from..to).unwrap_or_default().to_vec());
        }
        let mut bytes = vec![0; to.saturating_sub(from) * footer::BATCH_BYTES];
        let at = u32::try_from(from * footer::BATCH_BYTES).unwrap_or(u32::MAX);
        self.segment
            .read(self.entries_at.saturating_add(at), &mut bytes)?;
        footer::decode_batches(&bytes).ok_or_else(|| {
            let segment = self.segment.id();
            FetchError::Storage(format!(
                "segment {segment}: a verified footer block has changed"
            ))
        })
    }

    /// The first batch of which `is_behind` is true; it is true for all that follow.
    fn partition_point(
        &self,
        is_behind: impl Fn(&BatchEntry) -> bool,
    ) -> Result<usize, FetchError> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entries(middle, 1)?.first() {
                Some(entry) if is_behind(entry) => high = middle,
                _ => low = middle + 1,
            }
        }
        Ok(low)
    }

    /// The batch that holds `offset`, or the first one behind it.
    fn at_offset(&self, offset: Offset) -> Result<usize, FetchError> {
        self.partition_point(|entry| entry.end() > offset)
    }

    /// Batches among which the first one is that has a record from `start` on with a timestamp as large.
    fn candidates(&self, start: Offset, timestamp_ms: i64) -> Result<Vec<BatchEntry>, FetchError> {
        if !self.known.by_time {
            return self.entries(0, self.count);
        }
        let in_time = self.partition_point(|entry| entry.max_timestamp_ms >= timestamp_ms)?;
        let first = in_time.max(self.at_offset(start)?);
        // The first one may have that record below `start`; then the second one has it.
        self.entries(first, 2)
    }
}

/// The batches of one block, from the footer, or by reading the segment through if that is damaged.
pub fn read_block(segment: &Segment, info: &BlockInfo) -> Result<Vec<BatchEntry>, FetchError> {
    match listed_batches(segment, info)? {
        Some(batches) => Ok(batches),
        None => scanned_batches(segment, info),
    }
}

/// `None` if the block is damaged.
fn listed_batches(
    segment: &Segment,
    info: &BlockInfo,
) -> Result<Option<Vec<BatchEntry>>, FetchError> {
    let mut bytes = vec![0; info.block_bytes as usize];
    segment.read(info.block_position, &mut bytes)?;
    Ok(footer::decode_block(info.partition, &bytes))
}

fn scanned_batches(segment: &Segment, info: &BlockInfo) -> Result<Vec<BatchEntry>, FetchError> {
    tracing::error!(segment = %segment.id(), position = info.block_position,
        "a footer block is damaged; the segment is read through instead");
    let mut batches = batches_of(segment, info.partition)?;
    batches.retain(|batch| info.first <= batch.base && batch.base < info.end);
    batches.sort_unstable_by_key(|batch| batch.base);
    Ok(batches)
}

/// The runs of an answer, merged and bounded.
struct Runs {
    list: Vec<Run>,
    /// No batch that reaches beyond is taken.
    end: Offset,
    /// Behind the last batch taken.
    next: Offset,
    room: usize,
    full: bool,
}

impl Runs {
    /// The first batch is always taken (KIP-74); then the bound holds.
    fn push(&mut self, segment: &Arc<Segment>, entry: &BatchEntry) {
        if self.full
            || entry.end() > self.end
            || (!self.list.is_empty() && entry.bytes as usize > self.room)
        {
            self.full = true;
            return;
        }
        self.room = self.room.saturating_sub(entry.bytes as usize);
        self.next = entry.end();
        match self.list.last_mut() {
            Some(run)
                if run.segment.id() == segment.id()
                    && run.position + run.bytes == entry.position =>
            {
                run.bytes += entry.bytes
            }
            _ => self.list.push(Run {
                segment: segment.clone(),
                position: entry.position,
                bytes: entry.bytes,
            }),
        }
    }
}

/// Takes batches from memory, if `from` is in memory (or, when not `strict`, behind a gap). Returns
/// the offset behind what memory holds.
fn hot_from(partition: &Partition, from: Offset, runs: &mut Runs, strict: bool) -> Option<Offset> {
    let hot = partition.hot();
    let first = hot.front().and_then(|hot| hot.part.batches.first())?;
    if strict && first.base > from {
        return None;
    }
    let mut reached = from;
    for HotPart { segment, batches } in hot.iter().map(|hot| HotPart {
        segment: &hot.segment,
        batches: &hot.part.batches,
    }) {
        let skip = batches.partition_point(|entry| entry.end() <= from);
        for entry in batches.get(skip..).unwrap_or_default() {
            runs.push(segment, entry);
            reached = entry.end();
            if runs.full {
                return Some(reached);
            }
        }
    }
    Some(reached)
}

/// The batches of one partition in a segment whose footer cannot be trusted.
fn batches_of(segment: &Segment, partition: PartitionId) -> Result<Vec<BatchEntry>, FetchError> {
    let known_end = segment.trailer()?.map(|trailer| trailer.groups_end);
    let scan = segment.scan(known_end)?;
    let mut batches = Vec::new();
    let entries = scan.groups.iter().flat_map(|group| &group.entries);
    for entry in entries.filter(|entry| entry.stream == partition.0) {
        for (header, position) in headers_in(segment, entry)? {
            batches.push(BatchEntry::of(&header, position));
        }
    }
    Ok(batches)
}

struct HotPart<'a> {
    segment: &'a Arc<Segment>,
    batches: &'a [BatchEntry],
}

fn hot_copies(partition: &Partition) -> Vec<(Arc<Segment>, Vec<BatchEntry>)> {
    partition
        .hot()
        .iter()
        .map(|hot| (hot.segment.clone(), hot.part.batches.clone()))
        .collect()
}

/// The largest timestamp of the records from an offset on. Only a batch that begins before it has to
/// be decoded.
fn max_timestamp_from(
    start: Offset,
    segment: &Segment,
    batches: &[BatchEntry],
) -> Result<Option<i64>, FetchError> {
    let mut largest = None;
    for entry in batches.iter().filter(|entry| entry.end() > start) {
        if entry.base >= start {
            largest = largest.max(Some(entry.max_timestamp_ms));
            continue;
        }
        let mut bytes = vec![0; entry.bytes as usize];
        segment.read(entry.position, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        let header = BatchHeader::parse(&bytes).map_err(FetchError::Storage)?;
        let of_records = batch::records(&header, &bytes).map(|records| {
            let kept = records.iter().filter(|record| record.offset >= start);
            kept.map(|record| record.record.timestamp_ms).max()
        });
        // Its records cannot be told apart, so the batch as a whole is the answer.
        largest = largest.max(of_records.unwrap_or(Some(entry.max_timestamp_ms)));
    }
    Ok(largest)
}

/// The first record at or after a time among the batches of one segment.
fn first_at(
    partition: &Partition,
    segment: &Segment,
    batches: &[BatchEntry],
    timestamp_ms: i64,
) -> Result<Option<(Offset, i64)>, FetchError> {
    let start = partition.log_start_offset();
    let candidates = batches
        .iter()
        .filter(|entry| entry.max_timestamp_ms >= timestamp_ms && entry.end() > start);
    for entry in candidates {
        let mut bytes = vec![0; entry.bytes as usize];
        segment.read(entry.position, &mut bytes)?;
        let bytes = Bytes::from(bytes);
        let header = BatchHeader::parse(&bytes).map_err(FetchError::Storage)?;
        match batch::records(&header, &bytes) {
            Ok(records) => {
                let found = records
                    .iter()
                    .find(|r| r.record.timestamp_ms >= timestamp_ms && r.offset >= start);
                if let Some(found) = found {
                    return Ok(Some((found.offset, found.record.timestamp_ms)));
                }
            }
            // Its records cannot be told apart, so the batch as a whole is the answer.
            Err(_) => return Ok(Some((entry.base.max(start), entry.max_timestamp_ms))),
        }
    }
    Ok(None)
}

//! Compaction: of every key at least the newest record stays, offsets and order as they were.
//!
//! As in Kafka, a pass reads the *dirty* part of a partition, what came since the last pass, and notes
//! the newest offset of every key in it; then it copies the partition from its beginning without the
//! records that a later one of the same key supersedes. The keys of a pass are bounded in memory: where
//! they are too many, the pass ends earlier and another one follows. Keys are told apart by 128 bits of
//! a hash whose secret is drawn for every pass.
//!
//! A tombstone hides what is older from readers, so it stays until `delete.retention.ms` after the pass
//! that first copied it (KIP-534: that time is kept in the batch). Rows are replaced in the order of
//! offsets, so that what a tombstone deletes has gone before it goes itself.
//!
//! Of transactions: an aborted record supersedes nothing, and goes. Once it has gone, readers need not be
//! told of the transaction any more ([`crate::log::Aborted`]); once they are not, its marker goes with the next
//! pass. In that order, so that nobody skips records up to a marker that is not there. A marker that
//! commits is needed by nobody.
//!
//! Not compacted: the head, what was appended less than `min.compaction.lag.ms` ago, and what lies behind
//! the beginning of a transaction that is not over.

use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};

use super::relocate::Kept;
use super::*;
use crate::log::batch::{BatchHeader, DELETE_HORIZON};
use crate::log::partition::BatchEntry;
use crate::log::retain::{Glance, Unpacked};
use crate::log::stable::{Aborted, is_aborted};
use crate::log::topic::Compaction;
use crate::log::values::Key;
use bytes::Bytes;

/// Aborted transactions forgotten with one submission.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// Memory of one key in the map, what it keeps free included.
const KEY_BYTES: usize = 40;

/// The newest offset of every key of a dirty part.
struct KeyMap {
    secrets: [RandomState; 2],
    newest: HashMap<[u64; 2], Offset>,
    keys_max: usize,
}

impl KeyMap {
    fn new(bytes: usize) -> KeyMap {
        KeyMap {
            secrets: [RandomState::new(), RandomState::new()],
            newest: HashMap::new(),
            keys_max: bytes / KEY_BYTES,
        }
    }

    fn fits(&self, keys: u32) -> bool {
        self.newest.is_empty() || self.newest.len() + keys as usize <= self.keys_max
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        self.secrets.each_ref().map(|secret| secret.hash_one(key))
    }

    fn add(&mut self, key: &[u8], offset: Offset) {
        match self.newest.entry(self.hash(key)) {
            Entry::Occupied(mut known) => {
                known.insert(offset.max(*known.get()));
            }
            Entry::Vacant(free) => drop(free.insert(offset)),
        }
    }

    /// Whether a later record of its key is known.
    fn supersedes(&self, key: &[u8], offset: Offset) -> bool {
        let newest = self.newest.get(&self.hash(key));
        newest.is_some_and(|newest| *newest > offset)
    }
}

/// One pass over one partition.
struct Pass {
    keys: KeyMap,
    /// What lies behind is left alone.
    upto: Offset,
    now_ms: u64,
    delete_retention_ms: u64,
    /// Transactions that were aborted and may have records left.
    aborted: HashMap<i64, Vec<Aborted>>,
    dropped: u64,
}

impl Cleaner {
    /// Compacts the partitions that are dirty enough.
    pub(super) fn compact(&mut self) -> Result<(), Failure> {
        let partitions: Vec<(Arc<Partition>, Compaction)> = {
            let tables = self.parts.state.read();
            let of_topics = tables.topics.values().filter_map(|topic| {
                let compaction = topic.settings().compaction?;
                Some(
                    topic
                        .partitions()
                        .iter()
                        .map(move |p| (p.clone(), compaction)),
                )
            });
            of_topics.flatten().collect()
        };
        if self.parts.clock.now_ms() < CLOCK_SET_MS {
            // Times would be kept that mean nothing later.
            return Ok(());
        }
        for (partition, compaction) in partitions {
            if self.uncompactable.contains(&partition.id()) {
                continue;
            }
            loop {
                match self.compact_partition(&partition, &compaction) {
                    Ok(true) => {}
                    Ok(false) => break,
                    // What is in the output lies before it, and is complete.
                    Err(Failure::Fetch(error)) => {
                        tracing::error!(topic = partition.topic_name(), partition = partition.index(), %error,
                            "cannot be compacted until the next start");
                        self.uncompactable.insert(partition.id());
                        self.compacted.remove(&partition.id());
                        break;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes one pass, if it is worth it; true if the next one is to follow at once.
    fn compact_partition(
        &mut self,
        partition: &Partition,
        compaction: &Compaction,
    ) -> Result<bool, Failure> {
        let index = self.parts.reader.index.clone();
        let id = partition.id();
        let clean_upto = match self.compacted.get(&id) {
            Some(upto) => *upto,
            None => index.compacted(id)?,
        };
        self.compacted.insert(id, clean_upto);
        let now_ms = self.parts.clock.now_ms();
        let rows: Result<Vec<BlockRef>, fjall::Error> = index.blocks_of(id).collect();
        let mut rows = rows?;
        let too_young = rows.iter().position(|row| {
            row.info
                .append_time_ms
                .saturating_add(compaction.min_lag_ms)
                > now_ms
        });
        rows.truncate(too_young.unwrap_or(rows.len()));
        let stable = partition.last_stable_offset();
        let unstable = rows.iter().position(|row| row.info.end > stable);
        rows.truncate(unstable.unwrap_or(rows.len()));
        let is_dirty = |row: &&BlockRef| row.info.end > clean_upto;
        let bytes: u64 = rows.iter().map(|row| row.info.batch_bytes).sum();
        let mut dirty = rows.iter().filter(is_dirty);
        let Some(oldest) = dirty.next() else {
            return Ok(false);
        };
        let dirty_bytes: u64 = dirty.map(|row| row.info.batch_bytes).sum();
        let dirty_bytes = dirty_bytes + oldest.info.batch_bytes;
        let overdue = now_ms.saturating_sub(oldest.info.append_time_ms) > compaction.max_lag_ms;
        if !overdue && (dirty_bytes as f64) < compaction.min_dirty_ratio * bytes as f64 {
            return Ok(false);
        }
        let dirty: Vec<BlockRef> = rows.iter().filter(is_dirty).copied().collect();
        let mut pass = Pass {
            keys: KeyMap::new(self.parts.memory.key_map_bytes()),
            upto: clean_upto,
            now_ms,
            delete_retention_ms: compaction.delete_retention_ms,
            aborted: aborted_before(partition, stable),
            dropped: 0,
        };
        self.note_keys(&dirty, clean_upto, &mut pass)?;
        let planned = rows.iter().map(|row| row.info.batch_bytes).sum();
        let upto = pass.upto;
        for row in rows.iter().filter(|row| row.info.first < upto) {
            if self.has_superseded(row, &mut pass)? {
                self.copy_row(row, planned, &mut |entry, batch| pass.judge(entry, batch))?;
            }
        }
        self.change_with_output(|changes| changes.compacted(id, upto))?;
        let gone: Vec<Offset> = (pass.aborted.values().flatten())
            .filter(|aborted| aborted.last < upto)
            .map(|aborted| aborted.last)
            .collect();
        if !gone.is_empty() || dirty.last().is_some_and(|last| upto < last.info.end) {
            // The next pass is to see what this one left.
            self.finish_output()?;
        }
        self.forget_aborted(id, &gone)?;
        self.compacted.insert(id, upto);
        let space = &self.parts.space;
        space
            .compacted_records
            .fetch_add(pass.dropped, Ordering::Relaxed);
        Ok(dirty.last().is_some_and(|last| upto < last.info.end))
    }

    /// Their records have gone.
    fn forget_aborted(&self, partition: PartitionId, lasts: &[Offset]) -> Result<(), Failure> {
        for some in lasts.chunks(FORGOTTEN_AT_ONCE) {
            let pair = |&last: &Offset| (Key::Aborted { partition, last }.encode(), None);
            let pairs = some.iter().map(pair).collect();
            self.submit(FORGOTTEN_AT_ONCE * 64, |reply| Work::Internal {
                partition: METADATA,
                pairs,
                reply,
            })?;
        }
        Ok(())
    }

    /// Notes the keys of dirty rows, until the map is full or everything is noted.
    fn note_keys(
        &self,
        dirty: &[BlockRef],
        clean_upto: Offset,
        pass: &mut Pass,
    ) -> Result<(), Failure> {
        for row in dirty {
            if let Some(open) = self.parts.reader.open(*row)? {
                let batches = open.entries(0, open.count)?;
                for entry in batches.iter().filter(|e| e.end() > clean_upto) {
                    self.stop_if_closing()?;
                    let batch = read_batch(&open.segment, entry)?;
                    let Ok(header) = BatchHeader::parse(&batch) else {
                        continue;
                    };
                    if !pass.keys.fits(header.records) {
                        return Ok(());
                    }
                    if header.is_control() || pass.is_aborted(&header) {
                        pass.upto = entry.end();
                        continue;
                    }
                    let noted = Unpacked::new(&header, &batch).and_then(|unpacked| {
                        // A batch that is not whole supersedes nothing.
                        unpacked.each(|_| {})?;
                        unpacked.each(|glance| {
                            if let Some(key) = glance.key {
                                pass.keys.add(key, glance.offset);
                            }
                        })
                    });
                    if let Err(reason) = noted {
                        tracing::error!(offset = %entry.base, reason, "a batch cannot be compacted");
                    }
                    pass.upto = entry.end();
                }
            }
            pass.upto = pass.upto.max(row.info.end);
        }
        Ok(())
    }

    /// Whether anything of a row would go.
    fn has_superseded(&self, row: &BlockRef, pass: &mut Pass) -> Result<bool, Failure> {
        let Some(open) = self.parts.reader.open(*row)? else {
            return Ok(false);
        };
        let dropped = pass.dropped;
        let mut found = false;
        for entry in &open.entries(0, open.count)? {
            self.stop_if_closing()?;
            let batch = read_batch(&open.segment, entry)?;
            if !matches!(pass.judge(entry, &batch), Kept::Whole) {
                found = true;
                break;
            }
        }
        // It is judged again when it is copied.
        pass.dropped = dropped;
        Ok(found)
    }
}

/// Those with records below an offset; their markers may lie behind it.
fn aborted_before(partition: &Partition, end: Offset) -> HashMap<i64, Vec<Aborted>> {
    let mut by_producer: HashMap<i64, Vec<Aborted>> = HashMap::new();
    for aborted in partition.transactions().aborted_in(Offset::ZERO, end) {
        let of_producer = by_producer.entry(aborted.producer_id).or_default();
        of_producer.push(aborted);
    }
    by_producer
}

impl Pass {
    fn aborted_of(&self, producer_id: i64) -> &[Aborted] {
        self.aborted.get(&producer_id).map_or(&[], Vec::as_slice)
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        is_aborted(header, self.aborted_of(header.producer_id))
    }

    fn judge(&mut self, entry: &BatchEntry, batch: &Bytes) -> Kept {
        if entry.base >= self.upto {
            return Kept::Whole;
        }
        // What cannot be unpacked was told when its keys were noted; it stays.
        self.judged(batch).unwrap_or(Kept::Whole)
    }

    fn judged(&mut self, batch: &Bytes) -> Result<Kept, String> {
        let header = BatchHeader::parse(batch)?;
        if header.is_control() {
            let last = Offset::new(header.base_offset).unwrap_or_default();
            let of_producer = self.aborted_of(header.producer_id);
            let is_needed = of_producer.iter().any(|aborted| aborted.last == last);
            return Ok(if is_needed {
                Kept::Whole
            } else {
                Kept::Nothing
            });
        }
        if self.is_aborted(&header) {
            self.dropped += u64::from(header.records);
            return Ok(Kept::Nothing);
        }
        let unpacked = Unpacked::new(&header, batch)?;
        let horizon = u64::try_from(header.base_timestamp_ms).unwrap_or(0);
        // One from a clock that was not set is none.
        let has_horizon = header.attributes & DELETE_HORIZON != 0 && horizon >= CLOCK_SET_MS;
        let tombstones_go = has_horizon && horizon <= self.now_ms;
        let (keys, upto) = (&self.keys, self.upto);
        let stays = |glance: &Glance<'_>| match glance.key {
            _ if glance.offset >= upto => true,
            Some(key) => !(keys.supersedes(key, glance.offset) || glance.deletes && tombstones_go),
            // Kafka refuses records without a key in a compacted topic, and so do we; one may be there
            // from a time when the topic was not compacted.
            None => false,
        };
        let (mut all, mut kept, mut tombstones) = (0_u64, 0_u64, false);
        unpacked.each(|glance| {
            all += 1;
            if stays(&glance) {
                kept += 1;
                tombstones |= glance.deletes;
            }
        })?;
        let new_horizon = (tombstones && !has_horizon)
            .then(|| self.now_ms.saturating_add(self.delete_retention_ms));
        let old_horizon = has_horizon.then_some(horizon);
        if kept == all && new_horizon.is_none() {
            return Ok(Kept::Whole);
        }
        let retained = unpacked.retain(|glance| stays(&glance), new_horizon.or(old_horizon))?;
        self.dropped += all - kept;
        Ok(retained.map_or(Kept::Nothing, Kept::Part))
    }
}

fn read_batch(segment: &Segment, entry: &BatchEntry) -> Result<Bytes, Failure> {
    let mut bytes = vec![0; entry.bytes as usize];
    (segment.read(entry.position, &mut bytes)).map_err(FetchError::from)?;
    Ok(Bytes::from(bytes))
}

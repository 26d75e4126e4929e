//! Records of internal partitions out of segments where nothing else lives any more: those that still
//! hold the newest value of their key are written again at the head.

use super::*;
use crate::log::values::Key;

/// Bytes carried with one submission; a single key may have more.
const CARRY_BYTES_MAX: usize = 1 << 20;
/// Tries to carry keys that are being changed, each a group commit long.
const CARRY_TRIES: usize = 100;

/// A producer with its five batches, roughly.
const PRODUCER_BYTES: usize = 100;
/// Keys of producers that are deleted by one submission.
const DROPPED_AT_ONCE: usize = 1000;

impl Cleaner {
    /// Empties segments that hold nothing but records of internal partitions.
    pub(super) fn carry(&mut self) -> Result<(), Failure> {
        let index = self.parts.reader.index.clone();
        let Some(newest) = index.checkpoint()? else {
            return Ok(());
        };
        for partition in [METADATA, OFFSETS] {
            let blocks: Result<Vec<BlockRef>, fjall::Error> = index.blocks_of(partition).collect();
            let blocks = blocks?;
            let empties = |block: &BlockRef| {
                let usage = self.usage.get(&block.segment);
                let closed = block.segment.is_relocated() || block.segment < newest;
                closed && usage.is_some_and(|usage| usage.topic_rows == 0)
            };
            let Some(last) = blocks.iter().rposition(empties) else {
                continue;
            };
            let Some((trimmed, end)) = blocks
                .get(..=last)
                .and_then(|trimmed| Some((trimmed, trimmed.last()?.info.end)))
            else {
                continue;
            };
            let freed: u64 = trimmed
                .iter()
                .filter(|block| empties(block))
                .filter_map(|block| self.parts.reader.segments.get(block.segment))
                .filter_map(|segment| segment.file().size().ok())
                .sum();
            // By what the index says, not by what the segments hold: those may be damaged.
            let mut live: Vec<(Vec<u8>, usize)> = Vec::new();
            for row in index.metadata(partition) {
                let row = row?;
                if row.offset < end {
                    let row_bytes = row.key.len() + row.value.len();
                    live.push((row.key, row_bytes));
                }
            }
            let live_bytes: usize = live.iter().map(|(_, bytes)| bytes).sum();
            if live_bytes as u64 * 2 > freed {
                // More would be written than given back.
                continue;
            }
            self.carry_keys(partition, live)?;
            // Oldest first, without gaps, and remembered: a record that deletes a key is dropped here,
            // and an older one that sets it may lie in a segment that is kept for other records.
            if let Some(partition) = self.parts.internal.get(partition).cloned() {
                let starts = vec![(partition.clone(), end)];
                self.submit(0, |reply| Work::RaiseLogStarts { starts, reply })?;
                self.trim(&[partition])?;
            }
        }
        Ok(())
    }

    /// Writes keys again with the values they have.
    fn carry_keys(
        &self,
        partition: PartitionId,
        mut live: Vec<(Vec<u8>, usize)>,
    ) -> Result<(), Failure> {
        let mut tries = 0;
        while !live.is_empty() {
            let (mut keys, mut bytes) = (Vec::new(), 0);
            while let Some((key, key_bytes)) =
                live.pop_if(|(_, more)| bytes == 0 || bytes + *more <= CARRY_BYTES_MAX)
            {
                bytes += key_bytes;
                keys.push(key);
            }
            // When the answer comes, the groups that were changing keys have ended, too.
            let changing = self.submit(bytes, |reply| Work::Carry {
                partition,
                keys,
                reply,
            })?;
            if !changing.is_empty() {
                tries += 1;
                if tries > CARRY_TRIES {
                    return Err(Failure::Busy);
                }
            }
            live.extend(changing.into_iter().map(|key| (key, 0)));
        }
        Ok(())
    }

    /// Before a segment goes: producers that only its footer names as they are, are written at the head,
    /// so that they are known when the index is made anew.
    pub(super) fn carry_producers(&self, segment: SegmentId) -> Result<(), Failure> {
        let Some(file) = self.parts.reader.segments.get(segment) else {
            return Ok(());
        };
        let index = &self.parts.reader.index;
        let mut keys = Vec::new();
        // Where the footer cannot be read, its producers are known by the index alone.
        let footer = footer_of(&file).ok().flatten().unwrap_or_default();
        for entry in footer.producers {
            let known = index.producer(entry.partition, entry.producer_id)?;
            // Gone, or named by a later segment.
            if known.as_ref() != Some(&entry) {
                continue;
            }
            let key = Key::Producer {
                partition: entry.partition,
                producer_id: entry.producer_id,
            };
            keys.push((key.encode(), PRODUCER_BYTES));
        }
        self.carry_keys(METADATA, keys)
    }

    /// What was carried of producers that are no longer known.
    pub(super) fn drop_carried(&self, keys: Vec<Vec<u8>>) -> Result<(), Failure> {
        let mut pairs = Vec::new();
        for key in keys {
            if self
                .parts
                .reader
                .index
                .metadata_value(METADATA, &key)?
                .is_some()
            {
                pairs.push((key, None));
            }
        }
        // A group must fit into a segment.
        for pairs in pairs.chunks(DROPPED_AT_ONCE) {
            self.submit(0, |reply| Work::Internal {
                partition: METADATA,
                pairs: pairs.to_vec(),
                reply,
            })?;
        }
        Ok(())
    }
}

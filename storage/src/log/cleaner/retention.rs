//! Which records are no longer kept: log starts raised by age and size, and the rows below them removed.

use super::*;
use crate::log::values::Key;

/// Aborted transactions forgotten with one submission.
const FORGOTTEN_AT_ONCE: usize = 1000;

impl Cleaner {
    /// Aborted transactions below log starts are of interest to nobody any more.
    pub(super) fn forget_aborted_below(&mut self) -> Result<(), Failure> {
        let partitions: Vec<Arc<Partition>> = {
            let tables = self.parts.state.read();
            tables.partitions.values().cloned().collect()
        };
        for partition in partitions {
            loop {
                let start = partition.log_start_offset();
                let below = partition
                    .transactions()
                    .aborted_below(start, FORGOTTEN_AT_ONCE);
                if below.is_empty() {
                    break;
                }
                self.forget_aborted(partition.id(), &below)?;
            }
        }
        Ok(())
    }

    /// Removes what is known of aborted transactions whose records have gone.
    pub(super) fn forget_aborted(
        &self,
        partition: PartitionId,
        lasts: &[Offset],
    ) -> Result<(), Failure> {
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

    /// Raises the log starts that retention asks for.
    pub(super) fn retain(&mut self) -> Result<(), Failure> {
        let now = self.parts.clock.now_ms();
        let topics: Vec<_> = {
            let tables = self.parts.state.read();
            tables.topics.values().cloned().collect()
        };
        let mut starts = Vec::new();
        for topic in topics {
            let Some(retention) = topic.retention(&self.parts.retention) else {
                continue;
            };
            for partition in topic.partitions() {
                let kept_from = self.kept_from(partition, &retention, now)?;
                if kept_from > partition.log_start_offset() {
                    tracing::info!(topic = topic.name(), partition = partition.index(), offset = %kept_from,
                        "retention removes what lies below");
                    starts.push((partition.clone(), kept_from));
                }
            }
        }
        if starts.is_empty() {
            return Ok(());
        }
        self.submit(0, |reply| Work::RaiseLogStarts { starts, reply })
    }

    /// The offset from which on a partition's records are kept.
    fn kept_from(
        &self,
        partition: &Partition,
        retention: &Retention,
        now_ms: u64,
    ) -> Result<Offset, Failure> {
        let mut kept_from = partition.log_start_offset();
        let expired_before = retention.ms.map(|ms| now_ms.saturating_sub(ms));
        let mut bytes = partition.size_bytes();
        // Whether what comes behind is to be looked at.
        let mut judge = |end: Offset, part_bytes: u64, appended_ms: u64| {
            // Also what lies below the log start is counted until it is trimmed.
            bytes = bytes.saturating_sub(part_bytes);
            if end <= kept_from {
                return true;
            }
            let too_much = retention.bytes.is_some_and(|max| bytes >= max);
            // Appended before the machine knew the time: no younger than what follows.
            let unknown = expired_before.is_some() && appended_ms < CLOCK_SET_MS;
            let too_old = expired_before.is_some_and(|before| appended_ms < before);
            if too_much || (too_old && !unknown) {
                kept_from = end;
            }
            too_much || too_old || unknown
        };
        // Memory first: what leaves it later is in the index by then.
        let hot = partition.hot_parts();
        for block in self.parts.reader.index.blocks_of(partition.id()) {
            let info = block?.info;
            if !judge(info.end, info.batch_bytes, info.append_time_ms) {
                return Ok(kept_from);
            }
        }
        for part in hot {
            for batch in &part.batches {
                if !judge(batch.end(), u64::from(batch.bytes), part.append_time_ms) {
                    return Ok(kept_from);
                }
            }
        }
        Ok(kept_from)
    }

    /// Removes rows below log starts.
    pub(super) fn trim_all(&mut self) -> Result<(), Failure> {
        let partitions: Vec<Arc<Partition>> = {
            let tables = self.parts.state.read();
            tables.partitions.values().cloned().collect()
        };
        self.trim(&partitions)
    }

    pub(super) fn trim(&mut self, partitions: &[Arc<Partition>]) -> Result<(), Failure> {
        let (mut rows, mut trimmed) = (Vec::new(), Vec::new());
        for partition in partitions {
            let id = partition.id();
            let log_start = partition.log_start_offset();
            if self.trimmed.get(&id).copied().unwrap_or_default() >= log_start {
                continue;
            }
            for block in self.parts.reader.index.blocks_of(id) {
                let block = block?;
                if block.info.end > log_start {
                    break;
                }
                rows.push(block);
            }
            trimmed.push((id, log_start));
        }
        self.remove_rows(&rows, Changes::default())?;
        self.trimmed.extend(trimmed);
        Ok(())
    }

    /// Removes every row of deleted partitions.
    pub(super) fn forget_deleted(&mut self) -> Result<(), Failure> {
        let forgetting: Vec<PartitionId> = self.forgetting.iter().copied().collect();
        for id in forgetting {
            let index = self.parts.reader.index.clone();
            let rows: Result<Vec<BlockRef>, fjall::Error> = index.blocks_of(id).collect();
            let mut changes = Changes::default();
            for entry in index.producers(id) {
                changes.remove_producer(id, entry?.producer_id);
            }
            changes.remove_compacted(id);
            let carried = index.metadata_from(METADATA, &Key::producers_of(id));
            let carried: Result<Vec<Vec<u8>>, fjall::Error> =
                carried.map(|row| Ok(row?.key)).collect();
            self.drop_carried(carried?)?;
            self.remove_rows(&rows?, changes)?;
            self.compacted.remove(&id);
            self.forgetting.remove(&id);
        }
        Ok(())
    }

    /// Removes rows that compaction has emptied. They hide what it took away for as long as a segment
    /// exists that still holds it, and the last one remembers where the partition ends.
    pub(super) fn remove_emptied(&mut self) -> Result<(), Failure> {
        let mut rows = Vec::new();
        for (segment, keys) in &self.emptied {
            if self.has_sources(*segment)? {
                continue;
            }
            for &(partition, first) in keys {
                let row = self.parts.reader.index.block(partition, first)?;
                let end = self.end_of(partition);
                rows.extend(row.filter(|row| row.segment == *segment && row.info.end < end));
            }
        }
        self.remove_rows(&rows, Changes::default())
    }

    /// The offset behind the last of a partition that is known to be durable.
    fn end_of(&self, partition: PartitionId) -> Offset {
        let tables = self.parts.state.read();
        let partition = tables.partitions.get(&partition);
        partition.map_or(Offset::ZERO, |partition| partition.high_watermark())
    }

    /// Whether a segment exists from which something was relocated into this one.
    fn has_sources(&self, segment: SegmentId) -> Result<bool, Failure> {
        let Some(segment) = self.parts.reader.segments.get(segment) else {
            return Ok(true);
        };
        let footer = footer_of(&segment)?;
        let sources = footer.map(|footer| footer.sources);
        // Without a footer nobody knows.
        Ok(sources.is_none_or(|sources| sources.iter().any(|id| self.exists(*id))))
    }

    /// Forgets idempotent producers that have not appended for long, or for longest where there are
    /// more than memory is for.
    pub(super) fn expire_producers(&mut self) -> Result<(), Failure> {
        let expiry_ms = u64::try_from(self.parts.producer_expiry.as_millis()).unwrap_or(u64::MAX);
        let now = self.parts.clock.now_ms();
        if now < CLOCK_SET_MS {
            return Ok(());
        }
        let expired = (now.saturating_sub(expiry_ms), i64::MIN);
        let partitions: Vec<Arc<Partition>> = {
            let tables = self.parts.state.read();
            tables.partitions.values().cloned().collect()
        };
        let mut appended: Vec<(u64, i64)> = Vec::new();
        for partition in &partitions {
            appended.extend(partition.writer().producers.last_appends(now));
        }
        appended.retain(|append| *append >= expired);
        let mut before = expired;
        let surplus = appended.len().saturating_sub(self.parts.memory.producers());
        if surplus > 0 {
            let (_, oldest_kept, _) = appended.select_nth_unstable(surplus);
            before = *oldest_kept;
            tracing::warn!(
                surplus,
                "more idempotent producers than log.memory_bytes is for: those idle for longest are forgotten"
            );
        }
        let space = &self.parts.space;
        let kept = appended.len() - surplus;
        space.producers.store(kept as u64, Ordering::Relaxed);
        space
            .producers_forgotten
            .fetch_add(surplus as u64, Ordering::Relaxed);
        let (mut changes, mut carried) = (Changes::default(), Vec::new());
        for partition in partitions {
            let id = partition.id();
            for producer_id in partition.writer().producers.expire(before) {
                changes.remove_producer(id, producer_id);
                let key = Key::Producer {
                    partition: id,
                    producer_id,
                };
                carried.push(key.encode());
            }
        }
        self.parts.reader.index.apply(changes)?;
        self.drop_carried(carried)
    }
}

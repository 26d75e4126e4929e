//! Scrubbing: sealed segments are read again, slowly, and every checksum is verified, so that rot is
//! known before somebody needs what rotted. Nothing is changed; what is damaged is named once, by topic,
//! partition and offsets, counted, and shown until the next start.

use super::*;
use crate::log::batch;
use crate::log::fetch::read_block;

/// Findings that are kept to be shown.
const FINDINGS_MAX: usize = 100;
/// A pass over everything takes `scrub_interval`, more where that would be over a segment a round; a
/// segment is read no faster than this.
const BYTES_PER_SECOND: u64 = 16 << 20;

/// Where the scrub is.
#[derive(Default)]
pub struct Scrub {
    /// The last segment that was read.
    last: Option<SegmentId>,
    /// Since when the budget counts.
    since_ms: Option<u64>,
    /// Bytes that are due to be read.
    budget: u64,
    /// Segments that were found damaged.
    damaged: HashSet<SegmentId>,
}

impl Cleaner {
    /// Reads the next segment, if it is due.
    pub(super) fn scrub(&mut self) -> Result<(), Failure> {
        let interval_ms = u64::try_from(self.parts.scrub_interval.as_millis()).unwrap_or(u64::MAX);
        let now = self.parts.clock.now_ms();
        let since = self.scrub.since_ms.replace(now).unwrap_or(now);
        let sizes: Vec<(SegmentId, u64)> = self
            .usage
            .keys()
            .map(|id| (*id, self.size_of(*id)))
            .collect();
        let all: u64 = sizes.iter().map(|(_, size)| size).sum();
        let elapsed = now.saturating_sub(since).min(interval_ms);
        let due = u128::from(all) * u128::from(elapsed) / u128::from(interval_ms.max(1));
        // One segment a round at most, whatever the clock does: other work waits meanwhile.
        let due = u64::try_from(due).unwrap_or(u64::MAX);
        let most = sizes.iter().map(|(_, size)| *size).max().unwrap_or(0);
        self.scrub.budget = self.scrub.budget.saturating_add(due).min(most);
        if self.parts.guard.low().is_some() {
            return Ok(());
        }
        if self.scrub.last.is_none() {
            // Anywhere: a node that is restarted often comes by everything as well.
            let at = uuid::Uuid::new_v4().as_u64_pair().1 as usize % sizes.len().max(1);
            self.scrub.last = sizes.get(at).map(|(id, _)| *id);
        }
        let behind = sizes.iter().find(|(id, _)| Some(*id) > self.scrub.last);
        let Some(&(id, size)) = behind.or(sizes.first()) else {
            return Ok(());
        };
        if size > self.scrub.budget {
            return Ok(());
        }
        self.scrub.budget -= size;
        self.scrub.last = Some(id);
        if let Err(error) = self.scrub_segment(id) {
            self.tell(id, 0, vec![format!("segment {id}: {error}")]);
        }
        Ok(())
    }

    fn scrub_segment(&mut self, id: SegmentId) -> Result<(), Failure> {
        let Some(segment) = self.parts.reader.segments.get(id) else {
            return Ok(());
        };
        let trailer = segment.trailer()?;
        let known_end = trailer.map(|trailer| trailer.groups_end);
        let (state, guard) = (self.parts.state.clone(), self.parts.guard.clone());
        let mut go_on = |bytes: u32| {
            std::thread::sleep(Duration::from_secs_f64(
                f64::from(bytes) / BYTES_PER_SECOND as f64,
            ));
            !state.is_closing() && guard.low().is_none()
        };
        let (scan, whole) = segment.scan_with(known_end, &mut go_on)?;
        if !whole {
            return Ok(());
        }
        let space = &self.parts.space;
        let size = segment.file().size().unwrap_or(0);
        space.scrubbed_bytes.fetch_add(size, Ordering::Relaxed);
        // Everything that is counted here was sealed.
        let footer_is_bad = segment.footer()?.is_none();
        if (scan.damage.is_empty() && !footer_is_bad) || self.scrub.damaged.contains(&id) {
            return Ok(());
        }
        let bytes = scan.damage.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        let mut findings = Vec::new();
        if !scan.damage.is_empty() {
            findings = self.name_damage(&segment, &scan.damage)?;
        }
        if footer_is_bad {
            findings.push(format!(
                "segment {id}: the footer is damaged; no record is lost by that"
            ));
        }
        self.tell(id, bytes, findings);
        Ok(())
    }

    /// Once for every segment.
    fn tell(&mut self, id: SegmentId, bytes: u64, findings: Vec<String>) {
        if !self.scrub.damaged.insert(id) {
            return;
        }
        let space = &self.parts.space;
        space.damaged_bytes.fetch_add(bytes, Ordering::Relaxed);
        for finding in &findings {
            tracing::error!(finding, "damage: found by scrubbing");
        }
        let mut known = space
            .findings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        known.extend(findings);
        known.truncate(FINDINGS_MAX);
    }

    /// The batches that lie where the damage is.
    fn name_damage(
        &self,
        segment: &Segment,
        damage: &[(u32, u32)],
    ) -> Result<Vec<String>, Failure> {
        let id = segment.id();
        let mut findings = Vec::new();
        for row in self.rows_in(id)? {
            let name = self.name_of(row.info.partition);
            for batch in read_block(segment, &row.info)? {
                let end = batch.position.saturating_add(batch.bytes);
                let hit = |(from, bytes): &(u32, u32)| {
                    *from < end && batch.position < from.saturating_add(*bytes)
                };
                if !damage.iter().any(hit) {
                    continue;
                }
                // The damaged entry may hold batches that are whole.
                let mut stored = vec![0; batch.bytes as usize];
                segment.read(batch.position, &mut stored)?;
                if batch::is_whole(&stored) {
                    continue;
                }
                let last = batch.base.plus(batch.last_delta);
                findings.push(format!(
                    "segment {id} at {}: {name}, offsets {} to {last}",
                    batch.position, batch.base
                ));
            }
        }
        if findings.is_empty() {
            findings.extend(damage.iter().map(|(at, bytes)| {
                format!("segment {id} at {at}: {bytes} bytes, no record that is kept among them")
            }));
        }
        Ok(findings)
    }

    fn name_of(&self, partition: PartitionId) -> String {
        let tables = self.parts.state.read();
        match tables.partitions.get(&partition) {
            Some(partition) => format!("{}-{}", partition.topic_name(), partition.index()),
            None => format!("partition {}", partition.0),
        }
    }
}

//! Looking a stopped log through: every checksum, and whether segments, footers and index agree.
//! Nothing is written; the only repair there is, is to let the index be made anew from the segments.
//!
//! What it cannot see: rot in the very last group of an unsealed segment looks like a torn write, and
//! bytes that were never acknowledged are no damage.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::disk::{Disk, RealDisk};
use holdfast_wal::format::SegmentKind;
use holdfast_wal::recovery::groups_end_before;
use holdfast_wal::segment::ScannedEntry;
use holdfast_wal::{Segment, SegmentId};

use super::batch::{self, BatchHeader};
use super::error::OpenError;
use super::footer::{self, BlockInfo};
use super::index::{self, BlockRef, Index};
use super::memory::{MEMORY_BYTES_MIN, Memory};
use super::open::lock;
use super::partition::BatchEntry;
use super::state::METADATA;
use super::types::PartitionId;
use super::values::{self, Key, TopicValue};

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    pub segments: u64,
    /// Of segment files.
    pub bytes: u64,
    /// Of batches that the index names; the rest waits for cleaning. `None` without an index.
    pub live_bytes: Option<u64>,
    pub batches: u64,
    /// Bytes behind the last group of the last segment that were never acknowledged.
    pub torn_tail: bool,
    /// Damage that costs records.
    pub damage: Vec<Finding>,
    /// Disagreement of footers or index with the segments, which are the truth: no record is lost.
    pub disagreements: Vec<Finding>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub segment: SegmentId,
    /// In the segment's file.
    pub position: u32,
    /// Topic, partition and offsets, where they are known.
    pub of: String,
    pub reason: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segment {} at {}: ", self.segment, self.position)?;
        if !self.of.is_empty() {
            write!(f, "{}: ", self.of)?;
        }
        f.write_str(&self.reason)
    }
}

/// Looks through the log in `data_dir`, which no node may be using.
pub fn check(data_dir: &Path) -> Result<Report, OpenError> {
    let _lock = lock(data_dir)?;
    let path = data_dir.join("segments");
    let disk = RealDisk::open(&path).map_err(|source| OpenError::Directory { path, source })?;
    let mut doctor = Doctor::default();
    let segments = doctor.open(&disk)?;
    for (at, segment) in segments.iter().enumerate() {
        let next = segments
            .get(at + 1)
            .filter(|next| !next.id().is_relocated());
        doctor.segment(segment, next.map(Arc::as_ref))?;
    }
    let index = data_dir.join("index");
    if index.exists() {
        doctor.index(&index)?;
    }
    Ok(doctor.finish())
}

/// Removes the index; the next start of a node makes it anew.
pub fn remove_index(data_dir: &Path) -> Result<(), OpenError> {
    let _lock = lock(data_dir)?;
    let path = data_dir.join("index");
    match fs::remove_dir_all(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(OpenError::Directory { path, source })
        }
        _ => Ok(()),
    }
}

/// Whether a footer body that lies at `position`, and every block it lists, can be read.
pub fn is_readable_footer(body: &[u8], position: u32) -> bool {
    let Some(footer) = footer::decode(body) else {
        return false;
    };
    footer.blocks.iter().all(|info| {
        let from = info.block_position.saturating_sub(position) as usize;
        let block = body.get(from..from.saturating_add(info.block_bytes as usize));
        block.is_some_and(|block| footer::decode_block(info.partition, block).is_some())
    })
}

/// Whether a row of the index can be read.
pub fn is_readable_index_row(key: &[u8], value: &[u8]) -> bool {
    index::decode_block_row(key, value).is_some()
        || footer::decode_producer_bytes(value).is_some()
        || Key::decode(key).is_some()
}

type Parts = BTreeMap<PartitionId, Vec<BatchEntry>>;

/// What a footer lists.
#[derive(Default)]
struct Listed {
    blocks: Vec<BlockInfo>,
    parts: Parts,
}

/// What was found in a segment.
struct Found {
    parts: Parts,
    /// `None`: there is no footer to be trusted.
    blocks: Option<Vec<BlockInfo>>,
}

fn offsets(batch: &BatchEntry) -> String {
    let last = batch.base.plus(batch.last_delta);
    format!("offsets {} to {last}", batch.base)
}

#[derive(Default)]
struct Doctor {
    report: Report,
    /// Batches of every segment, as its groups say.
    found: BTreeMap<SegmentId, Found>,
    /// Topic and index of every partition whose topic's record was read, also of deleted ones.
    names: BTreeMap<PartitionId, (String, usize)>,
    /// Findings whose partition is named at the end.
    unnamed: Vec<Unnamed>,
}

struct Unnamed {
    segment: SegmentId,
    position: u32,
    of: Option<(PartitionId, String)>,
    reason: String,
    costs_records: bool,
}

impl Doctor {
    /// Opens what has a header. What has none was never used, or was set aside before.
    fn open(&mut self, disk: &dyn Disk) -> Result<Vec<Arc<Segment>>, OpenError> {
        let listed = disk.list().map_err(|source| OpenError::Directory {
            path: "segments".into(),
            source,
        })?;
        let mut ids: Vec<SegmentId> = listed
            .iter()
            .filter_map(|name| SegmentId::from_file_name(name))
            .collect();
        ids.sort_unstable();
        let mut segments = Vec::new();
        let mut headless = Vec::new();
        for id in ids {
            match Segment::open(disk, id)? {
                Some(segment) => segments.push(Arc::new(segment)),
                None => headless.push(id),
            }
        }
        let mut appended = segments.iter().filter(|s| !s.id().is_relocated());
        let newest = appended.next_back().map(|segment| segment.id());
        for id in headless {
            if id.is_relocated() || newest.is_some_and(|newest| id < newest) {
                self.note(
                    id,
                    0,
                    None,
                    "the header cannot be read: the whole segment is lost",
                    true,
                );
            }
        }
        for name in listed.iter().filter(|name| name.ends_with(".damaged")) {
            let id = SegmentId::from_file_name(name.trim_end_matches(".damaged"));
            let reason = "was set aside as damaged at an earlier start";
            self.note(id.unwrap_or(SegmentId(0)), 0, None, reason, true);
        }
        Ok(segments)
    }

    fn note(
        &mut self,
        segment: SegmentId,
        position: u32,
        of: Option<(PartitionId, String)>,
        reason: impl Into<String>,
        costs_records: bool,
    ) {
        self.unnamed.push(Unnamed {
            segment,
            position,
            of,
            reason: reason.into(),
            costs_records,
        });
    }

    fn segment(&mut self, segment: &Segment, next: Option<&Segment>) -> Result<(), OpenError> {
        let id = segment.id();
        self.report.segments += 1;
        self.report.bytes += segment.file().size().unwrap_or(0);
        let trailer = segment.trailer()?;
        let end_by_next = match next {
            Some(next) if next.header().kind == SegmentKind::Appended => {
                groups_end_before(next, id)?
            }
            _ => None,
        };
        let known_end = trailer
            .as_ref()
            .map(|trailer| trailer.groups_end)
            .or(end_by_next);
        let scan = segment.scan(known_end)?;
        self.report.torn_tail |= scan.torn;
        let mut parts = Parts::new();
        for entry in scan.groups.iter().flat_map(|group| &group.entries) {
            self.entry(segment, entry, &mut parts)?;
        }
        let listed = self.footer(segment)?;
        for &damage in &scan.damage {
            let listed = listed.as_ref().map(|listed| &listed.parts);
            self.damaged(segment, damage, listed, &mut parts)?;
        }
        if id.is_relocated() {
            // By expiry, then by partition: one partition's entries may lie in any order.
            for list in parts.values_mut() {
                list.sort_unstable_by_key(|batch| batch.base);
            }
        }
        if let Some(Listed { parts: listed, .. }) = &listed {
            for partition in listed.keys().chain(parts.keys()) {
                if listed.get(partition) != parts.get(partition) {
                    let of = Some((*partition, String::new()));
                    let reason = "the footer does not list the batches that are there";
                    self.note(id, scan.end, of, reason, false);
                }
            }
        }
        let blocks = listed.map(|listed| listed.blocks);
        self.found.insert(id, Found { parts, blocks });
        Ok(())
    }

    /// Bytes that do not have their checksum. Where a footer says what lay there, only the batches
    /// that are really hit are lost.
    fn damaged(
        &mut self,
        segment: &Segment,
        (from, bytes): (u32, u32),
        listed: Option<&Parts>,
        parts: &mut Parts,
    ) -> Result<(), OpenError> {
        let Some(listed) = listed else {
            let reason = format!("{bytes} bytes do not have the checksum they were written with");
            self.note(segment.id(), from, None, reason, true);
            return Ok(());
        };
        let mut lost = false;
        for (&partition, batches) in listed {
            for batch in batches {
                let end = batch.position.saturating_add(batch.bytes);
                if end <= from || batch.position >= from.saturating_add(bytes) {
                    continue;
                }
                let mut stored = vec![0; batch.bytes as usize];
                segment.read(batch.position, &mut stored)?;
                let whole = BatchHeader::parse(&stored).is_ok_and(|header| {
                    BatchEntry::of(&header, batch.position) == *batch && header.signs(&stored)
                });
                if !whole {
                    lost = true;
                    let of = Some((partition, offsets(batch)));
                    self.note(
                        segment.id(),
                        batch.position,
                        of,
                        "the batch is damaged",
                        true,
                    );
                }
                // As the footer lists it; what is wrong with it was said.
                let list = parts.entry(partition).or_default();
                if let Err(at) = list.binary_search_by_key(&batch.base, |batch| batch.base) {
                    list.insert(at, *batch);
                }
            }
        }
        if !lost {
            let reason = format!("{bytes} bytes are damaged, and no record among them");
            self.note(segment.id(), from, None, reason, false);
        }
        Ok(())
    }

    /// The batches of an entry whose own checksum is right.
    fn entry(
        &mut self,
        segment: &Segment,
        entry: &ScannedEntry,
        parts: &mut Parts,
    ) -> Result<(), OpenError> {
        let partition = PartitionId(entry.stream);
        let mut payload = vec![0; entry.payload_bytes as usize];
        segment.read(entry.payload_position, &mut payload)?;
        let mut position = entry.payload_position;
        for item in batch::split(&Bytes::from(payload)) {
            let (header, bytes) = match item {
                Ok(batch) => batch,
                Err(reason) => {
                    self.note(
                        segment.id(),
                        position,
                        Some((partition, String::new())),
                        reason,
                        true,
                    );
                    break;
                }
            };
            let batch = BatchEntry::of(&header, position);
            let offsets = format!(
                "offsets {} to {}",
                batch.base,
                batch.base.plus(batch.last_delta)
            );
            self.report.batches += 1;
            if !header.signs(&bytes) {
                let of = Some((partition, offsets.clone()));
                let reason = "the batch does not have its producer's checksum";
                self.note(segment.id(), position, of, reason, true);
            }
            let list = parts.entry(partition).or_default();
            let appended = !segment.id().is_relocated();
            if appended && list.last().is_some_and(|before| before.end() > batch.base) {
                let of = Some((partition, offsets));
                self.note(
                    segment.id(),
                    position,
                    of,
                    "offsets that were given before",
                    true,
                );
            }
            list.push(batch);
            if partition == METADATA {
                self.learn_names(&header, &bytes);
            }
            position = position.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    fn learn_names(&mut self, header: &BatchHeader, bytes: &Bytes) {
        for stored in batch::records(header, bytes).unwrap_or_default() {
            let key = stored.record.key.unwrap_or_default();
            let Some(value) = stored.record.value else {
                continue;
            };
            if let Some(Key::Topic(_)) = Key::decode(&key)
                && let Ok(topic) = values::decode::<TopicValue>(&value)
            {
                for (index, id) in topic.partitions.iter().enumerate() {
                    self.names
                        .insert(PartitionId(*id), (topic.name.clone(), index));
                }
            }
        }
    }

    /// What the footer lists, if there is one to be trusted.
    fn footer(&mut self, segment: &Segment) -> Result<Option<Listed>, OpenError> {
        let id = segment.id();
        let Some(trailer) = segment.trailer()? else {
            return Ok(None);
        };
        let at = trailer.groups_end;
        let Some((_, body)) = segment.footer()? else {
            self.note(id, at, None, "the footer does not have its checksum", false);
            return Ok(None);
        };
        let Some(footer) = footer::decode(&body) else {
            self.note(
                id,
                at,
                None,
                "the footer is of another version, or does not fit",
                false,
            );
            return Ok(None);
        };
        let mut listed = Listed::default();
        for info in &footer.blocks {
            let from = info.block_position.saturating_sub(at) as usize;
            let block = body.get(from..from.saturating_add(info.block_bytes as usize));
            let batches = block.and_then(|block| footer::decode_block(info.partition, block));
            // What a relocated segment stands for may hold no batch at all.
            if let Some(batches) = batches.filter(|batches| !batches.is_empty()) {
                listed
                    .parts
                    .entry(info.partition)
                    .or_default()
                    .extend(batches);
            }
        }
        listed.blocks = footer.blocks;
        Ok(Some(listed))
    }

    fn index(&mut self, path: &Path) -> Result<(), OpenError> {
        let failed = |error| OpenError::Index(error, path.to_path_buf());
        let index = Index::open(path, Memory(MEMORY_BYTES_MIN)).map_err(failed)?;
        if !index.is_of_this_version().map_err(failed)? {
            // Made anew at the next start.
            return Ok(());
        }
        let mut live_bytes = 0;
        for block in index.all_blocks() {
            let block = block.map_err(failed)?;
            live_bytes += block.info.batch_bytes;
            if !self.is_there(&block) {
                let info = block.info;
                let offsets = format!("offsets {} to {}", info.first, info.end);
                let reason = "the index names batches that are not there as it says";
                let of = Some((info.partition, offsets));
                self.note(block.segment, info.block_position, of, reason, false);
            }
        }
        self.report.live_bytes = Some(live_bytes);
        Ok(())
    }

    fn is_there(&self, block: &BlockRef) -> bool {
        let Some(found) = self.found.get(&block.segment) else {
            return false;
        };
        if let Some(blocks) = &found.blocks {
            let key = |info: &BlockInfo| (info.partition, info.first);
            let at = blocks.binary_search_by_key(&key(&block.info), key);
            return at.is_ok_and(|at| blocks.get(at) == Some(&block.info));
        }
        let info = &block.info;
        let parts = found.parts.get(&info.partition).into_iter().flatten();
        let within = parts.filter(|batch| info.first <= batch.base && batch.base < info.end);
        within.map(|batch| u64::from(batch.bytes)).sum::<u64>() == info.batch_bytes
    }

    fn finish(mut self) -> Report {
        for unnamed in std::mem::take(&mut self.unnamed) {
            let of = unnamed.of.map_or_else(String::new, |(partition, offsets)| {
                let place = match self.names.get(&partition) {
                    Some((topic, index)) => format!("{topic}-{index}"),
                    None if partition == METADATA => "metadata".to_owned(),
                    None => format!("partition {}", partition.0),
                };
                if offsets.is_empty() {
                    place
                } else {
                    format!("{place}, {offsets}")
                }
            });
            let finding = Finding {
                segment: unnamed.segment,
                position: unnamed.position,
                of,
                reason: unnamed.reason,
            };
            if unnamed.costs_records {
                self.report.damage.push(finding);
            } else {
                self.report.disagreements.push(finding);
            }
        }
        self.report
    }
}

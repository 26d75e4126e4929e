//! Opening: lock, recover the wal, bring the index up to the newest segment, read the internal
//! partitions, and only then let anybody in.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::disk::{Disk, RealDisk};
use holdfast_wal::recovery::{Damage, groups_end_before};
use holdfast_wal::segment::{Scan, ScannedEntry};
use holdfast_wal::{Position, Segment, SegmentId, WalError, WalOptions, Writer};

use super::LogOptions;
use super::batch::{self, BatchHeader};
use super::error::{FetchError, OpenError};
use super::fetch;
use super::footer::{self, BlockInfo, Footer, Part, ProducerEntry};
use super::index::{BlockRef, Changes, Index, MetadataChanges, MetadataRow};
use super::memory::Memory;
use super::partition::BatchEntry;
use super::producers::{Producer, Producers};
use super::segments::Segments;
use super::space::SpaceGuard;
use super::state::{Internal, METADATA, OFFSETS, State};
use super::types::{PartitionId, StoredRecord};
use super::values::{self, Key};

/// What opening yields.
pub struct Opened {
    pub lock: File,
    pub index: Arc<Index>,
    pub segments: Segments,
    pub guard: Arc<SpaceGuard>,
    pub state: Arc<State>,
    pub internal: Arc<Internal>,
    pub writer: Writer,
    pub disk: Arc<dyn Disk>,
    pub leader_epoch: i32,
    pub damage: Vec<Damage>,
}

/// `disk`: holds the segments, instead of a directory.
pub fn open(options: &LogOptions, disk: Option<Arc<dyn Disk>>) -> Result<Opened, OpenError> {
    let lock = lock(&options.data_dir)?;
    let disk = match disk {
        Some(disk) => disk,
        None => {
            let path = options.data_dir.join("segments");
            match RealDisk::open(&path) {
                Ok(disk) => Arc::new(disk),
                Err(source) => return Err(OpenError::Directory { path, source }),
            }
        }
    };
    let segments = Segments::default();
    let guard = Arc::new(SpaceGuard::new(
        disk.clone(),
        segments.clone(),
        u64::from(options.segment_bytes),
        options.disk_reserve_bytes,
        options.disk_bytes_max,
    ));
    let recovered = holdfast_wal::recover(&disk, wal_options(options, guard.clone()))?;
    let mut damage = recovered.damage;
    let index_dir = options.data_dir.join("index");
    let index = open_index(
        &index_dir,
        Memory(options.memory_bytes),
        &recovered.segments,
    )?;
    let mut catch_up = CatchUp {
        index: &index,
        producers: HashMap::new(),
        damage: &mut damage,
    };
    let caught_up = if is_new(&index).map_err(|error| error.in_dir(&index_dir))? {
        catch_up.rebuild(&recovered.segments, &recovered.relocated)
    } else {
        catch_up.run(&recovered.segments)
    };
    caught_up.map_err(|error| error.in_dir(&index_dir))?;
    if !damage.is_empty() {
        let mut changes = Changes::default();
        changes.damaged();
        index
            .apply(changes)
            .map_err(|error| OpenError::Index(error, index_dir.clone()))?;
    }
    let all = recovered.segments.iter().chain(&recovered.relocated);
    all.for_each(|segment| segments.insert(segment));
    for Damage { position, bytes } in &damage {
        tracing::error!(%position, bytes, "damage: these bytes were acknowledged and cannot be read");
    }
    if recovered.torn_tail {
        tracing::info!("a torn, never acknowledged tail was cut");
    }
    let (state, internal) = restore(&index).map_err(|error| error.in_dir(&index_dir))?;
    let forgotten = skip_what_may_be_lost(&state, recovered.clean, options.segment_bytes);
    index
        .apply(forgotten)
        .map_err(|error| OpenError::Index(error, index_dir.clone()))?;
    let leader_epoch = i32::try_from(recovered.boot_epoch).unwrap_or(i32::MAX);
    Ok(Opened {
        lock,
        index: Arc::new(index),
        segments,
        guard,
        state,
        internal,
        writer: recovered.writer,
        disk,
        leader_epoch,
        damage,
    })
}

fn wal_options(options: &LogOptions, guard: Arc<SpaceGuard>) -> WalOptions {
    WalOptions {
        admit: Arc::new(move |bytes, need| guard.admit(bytes, need)),
        segment_bytes: options.segment_bytes,
        prepare_ahead: true,
        clock: {
            let clock = options.clock.clone();
            Arc::new(move || clock.now_ms())
        },
        // Version 4 UUIDs are the randomness this crate already has.
        salt: Arc::new(|| uuid::Uuid::new_v4().as_u64_pair().1),
    }
}

pub fn lock(data_dir: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory {
        path: data_dir.to_path_buf(),
        source,
    };
    fs::create_dir_all(data_dir).map_err(failed)?;
    let path = data_dir.join("LOCK");
    let file = File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Locked(data_dir.to_path_buf())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// An index that speaks of segments that are not there belongs to another log: it is made anew.
fn open_index(path: &Path, memory: Memory, segments: &[Arc<Segment>]) -> Result<Index, OpenError> {
    let failed = |error| OpenError::Index(error, path.to_path_buf());
    let index = Index::open(path, memory).map_err(failed)?;
    let stale = !index.is_of_this_version().map_err(failed)?;
    let (stranger, unfinished) = match index.checkpoint().map_err(failed)? {
        Some(checkpoint) => (
            !segments.iter().any(|segment| segment.id() == checkpoint),
            false,
        ),
        None => (false, !index.is_empty().map_err(failed)?),
    };
    if !stale && !stranger && !unfinished {
        return Ok(index);
    }
    if stale {
        tracing::info!("the index was written by another version and is rebuilt");
    } else if unfinished {
        tracing::info!("rebuilding the index was cut short and begins anew");
    } else {
        tracing::warn!("the index does not belong to these segments and is rebuilt");
    }
    drop(index);
    fs::remove_dir_all(path).map_err(|source| OpenError::Directory {
        path: path.to_path_buf(),
        source,
    })?;
    Index::open(path, memory).map_err(failed)
}

/// An error that does not know yet which folder it is about.
enum Failure {
    Index(fjall::Error),
    Other(OpenError),
}

impl Failure {
    fn in_dir(self, path: &Path) -> OpenError {
        match self {
            Failure::Index(error) => OpenError::Index(error, path.to_path_buf()),
            Failure::Other(error) => error,
        }
    }
}

impl From<fjall::Error> for Failure {
    fn from(error: fjall::Error) -> Failure {
        Failure::Index(error)
    }
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Failure {
        Failure::Other(error.into())
    }
}

impl From<WalError> for Failure {
    fn from(error: WalError) -> Failure {
        Failure::Other(error.into())
    }
}

fn is_new(index: &Index) -> Result<bool, Failure> {
    Ok(index.checkpoint()?.is_none())
}

/// Takes segments that the index does not hold yet in.
struct CatchUp<'a> {
    index: &'a Index,
    /// Producers as of the segment before, of partitions that were looked at.
    producers: HashMap<PartitionId, Producers>,
    damage: &'a mut Vec<Damage>,
}

type Parts = BTreeMap<PartitionId, Part>;

impl CatchUp<'_> {
    /// The segments behind the checkpoint.
    fn run(&mut self, segments: &[Arc<Segment>]) -> Result<(), Failure> {
        let checkpoint = self.index.checkpoint()?;
        for (at, segment) in segments.iter().enumerate() {
            if checkpoint.is_some_and(|checkpoint| segment.id() <= checkpoint) {
                continue;
            }
            let footer = self.footer(segment, segments.get(at + 1))?;
            let mut changes = changes_of(segment, &footer);
            let mut metadata = MetadataChanges::new();
            for &info in footer.blocks.iter().filter(|info| is_internal(info)) {
                let block = BlockRef {
                    segment: segment.id(),
                    info,
                };
                self.metadata_changes(segment, &block, &mut metadata)?;
            }
            changes.metadata(&metadata);
            changes.checkpoint(segment.id());
            self.index.apply(changes)?;
        }
        Ok(())
    }

    /// All segments. What was relocated takes the place of what older segments hold of the same
    /// offsets; metadata is read last, in the order of its offsets.
    fn rebuild(
        &mut self,
        segments: &[Arc<Segment>],
        relocated: &[Arc<Segment>],
    ) -> Result<(), Failure> {
        let Some(newest) = segments.last() else {
            return Ok(());
        };
        for (at, segment) in segments.iter().enumerate() {
            let footer = self.footer(segment, segments.get(at + 1))?;
            self.index.apply(changes_of(segment, &footer))?;
        }
        for segment in relocated {
            let footer = match segment.footer()? {
                Some((_, body)) => footer::decode(&body),
                None => None,
            };
            let footer = match footer {
                Some(footer) => footer,
                None => self.footer_of_relocated(segment)?,
            };
            let mut changes = Changes::default();
            for info in &footer.blocks {
                for older in self.index.blocks_in(info.partition, info.first, info.end) {
                    changes.remove_block(&older?);
                }
            }
            for info in &footer.blocks {
                changes.put_block(segment.id(), info);
            }
            self.index.apply(changes)?;
        }
        let mut metadata = MetadataChanges::new();
        let all: Vec<&Arc<Segment>> = segments.iter().chain(relocated).collect();
        for partition in [METADATA, OFFSETS] {
            for block in self.index.blocks_of(partition) {
                let block = block?;
                if let Some(segment) = all.iter().find(|segment| segment.id() == block.segment) {
                    self.metadata_changes(segment, &block, &mut metadata)?;
                }
            }
        }
        let mut changes = Changes::default();
        changes.metadata(&metadata);
        changes.producers(&self.carried_producers(&metadata)?);
        changes.checkpoint(newest.id());
        Ok(self.index.apply(changes)?)
    }

    /// Producers whose last segment is gone: no footer names them any more, or not as they were last.
    fn carried_producers(&self, metadata: &MetadataChanges) -> Result<Vec<ProducerEntry>, Failure> {
        let mut carried = Vec::new();
        for ((_, key), (_, value)) in metadata {
            let (Some(key), Some(value)) = (Key::decode(key), value) else {
                continue;
            };
            let Key::Producer {
                partition,
                producer_id,
            } = key
            else {
                continue;
            };
            let producer: Producer = values::decode(value)
                .map_err(|reason| Failure::Other(OpenError::Metadata(reason)))?;
            let known = self.index.producer(partition, producer_id)?;
            if known.is_none_or(|known| known.producer.last_base() < producer.last_base()) {
                carried.push(ProducerEntry {
                    partition,
                    producer_id,
                    producer,
                });
            }
        }
        Ok(carried)
    }

    /// The footer of a segment that was appended to, written if it is not there.
    fn footer(
        &mut self,
        segment: &Segment,
        next: Option<&Arc<Segment>>,
    ) -> Result<Footer, Failure> {
        if let Some((trailer, body)) = segment.footer()?
            && let Some(footer) = footer::decode(&body)
        {
            // After a failed fdatasync a footer may be readable and yet not on disk. The index will
            // rely on it, so it is made durable again first.
            segment.seal(trailer.groups_end, trailer.last_sequence, &body)?;
            return Ok(footer);
        }
        self.seal(segment, next)
    }

    /// What a relocated segment holds, where its footer is damaged. What it stood for beyond that is
    /// not known any more.
    fn footer_of_relocated(&mut self, segment: &Segment) -> Result<Footer, Failure> {
        let known_end = segment.trailer()?.map(|trailer| trailer.groups_end);
        let scan = segment.scan(known_end)?;
        self.note(segment, &scan);
        let mut footer = Footer::default();
        for group in &scan.groups {
            for entry in &group.entries {
                let headers = headers_in(segment, entry)?;
                let batches: Vec<BatchEntry> = headers
                    .iter()
                    .map(|(header, position)| BatchEntry::of(header, *position))
                    .collect();
                if let (Some(first), Some(last)) = (batches.first(), batches.last()) {
                    let largest = batches.iter().map(|batch| batch.max_timestamp_ms).max();
                    footer.blocks.push(BlockInfo {
                        partition: PartitionId(entry.stream),
                        first: first.base,
                        end: last.end(),
                        max_timestamp_ms: largest.unwrap_or(-1),
                        append_time_ms: group.header.append_time_ms,
                        batch_bytes: batches.iter().map(|batch| u64::from(batch.bytes)).sum(),
                        // No block lies there: whoever looks for it reads the segment through.
                        block_position: entry.payload_position,
                        block_bytes: 0,
                    });
                }
            }
        }
        Ok(footer)
    }

    fn note(&mut self, segment: &Segment, scan: &Scan) {
        self.damage
            .extend(scan.damage.iter().map(|&(offset, bytes)| Damage {
                position: Position {
                    segment: segment.id(),
                    offset,
                },
                bytes,
            }));
    }

    /// A segment whose footer never got written: read it through and write one.
    fn seal(&mut self, segment: &Segment, next: Option<&Arc<Segment>>) -> Result<Footer, Failure> {
        let known_end = match next {
            Some(next) => groups_end_before(next, segment.id())?,
            None => None,
        };
        let scan = segment.scan(known_end)?;
        self.note(segment, &scan);
        let mut parts = Parts::new();
        let mut touched: BTreeMap<(PartitionId, i64), ()> = BTreeMap::new();
        let entries = scan.groups.iter().flat_map(|group| {
            let appended = group.header.append_time_ms;
            group.entries.iter().map(move |entry| (appended, entry))
        });
        for (appended, entry) in entries {
            let id = PartitionId(entry.stream);
            for (header, position) in headers_in(segment, entry)? {
                let batch = BatchEntry::of(&header, position);
                let base = batch.base;
                let part = parts.entry(id).or_default();
                part.batches.push(batch);
                part.append_time_ms = part.append_time_ms.max(appended);
                if header.producer_id >= 0 {
                    let producers = self.producers_of(id)?;
                    if header.is_control() {
                        producers.mark(&header, appended);
                    } else {
                        producers.append(&header, base, appended);
                    }
                    touched.insert((id, header.producer_id), ());
                }
            }
        }
        let mut producers = Vec::new();
        for (partition, producer_id) in touched.into_keys() {
            if let Some(producer) = self.producers_of(partition)?.get(producer_id).cloned() {
                producers.push(ProducerEntry {
                    partition,
                    producer_id,
                    producer,
                });
            }
        }
        let (body, footer) = footer::encode(scan.end, &parts, &producers);
        let last_sequence = scan.groups.last().map_or(0, |group| group.header.sequence);
        segment.seal(scan.end, last_sequence, &body)?;
        Ok(footer)
    }

    /// Newest value of every key in one block of an internal partition. A batch that rotted is
    /// reported and passed over: the node starts without it.
    fn metadata_changes(
        &mut self,
        segment: &Segment,
        block: &BlockRef,
        changes: &mut MetadataChanges,
    ) -> Result<(), Failure> {
        let partition = block.info.partition;
        for entry in fetch::read_block(segment, &block.info)? {
            let mut bytes = vec![0; entry.bytes as usize];
            segment.read(entry.position, &mut bytes)?;
            let bytes = Bytes::from(bytes);
            let records = BatchHeader::parse(&bytes).and_then(|h| batch::records(&h, &bytes));
            let Ok(records) = records else {
                let position = Position {
                    segment: segment.id(),
                    offset: entry.position,
                };
                self.damage.push(Damage {
                    position,
                    bytes: entry.bytes,
                });
                continue;
            };
            for StoredRecord { offset, record } in records {
                let key = record.key.unwrap_or_default().to_vec();
                let value = record.value.map(|value| value.to_vec());
                changes.insert((partition, key), (offset, value));
            }
        }
        Ok(())
    }

    fn producers_of(&mut self, id: PartitionId) -> Result<&mut Producers, Failure> {
        if !self.producers.contains_key(&id) {
            let known = producers_of(self.index, id)?;
            self.producers.insert(id, known);
        }
        Ok(self.producers.entry(id).or_default())
    }
}

fn producers_of(index: &Index, id: PartitionId) -> fjall::Result<Producers> {
    let mut producers = Producers::default();
    for entry in index.producers(id) {
        let entry = entry?;
        producers.restore(entry.producer_id, Some(entry.producer));
    }
    Ok(producers)
}

fn is_internal(info: &BlockInfo) -> bool {
    info.partition == METADATA || info.partition == OFFSETS
}

/// Batches and producers of a segment that was appended to.
fn changes_of(segment: &Segment, footer: &Footer) -> Changes {
    let mut changes = Changes::default();
    for info in &footer.blocks {
        changes.put_block(segment.id(), info);
    }
    changes.producers(&footer.producers);
    changes
}

/// The batches of one entry, and where they lie.
pub fn headers_in(
    segment: &Segment,
    entry: &ScannedEntry,
) -> Result<Vec<(BatchHeader, u32)>, WalError> {
    let mut payload = vec![0; entry.payload_bytes as usize];
    segment.read(entry.payload_position, &mut payload)?;
    let mut position = entry.payload_position;
    let mut headers = Vec::new();
    for item in batch::split(&Bytes::from(payload)) {
        let (header, bytes) = item.map_err(|reason| damaged(segment.id(), position, reason))?;
        headers.push((header, position));
        position = position.saturating_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    }
    Ok(headers)
}

fn damaged(segment: SegmentId, position: u32, reason: String) -> WalError {
    WalError::Damaged {
        segment,
        position,
        reason,
    }
}

/// Builds topics, settings and offsets, and gives every partition its watermark and producers.
fn restore(index: &Index) -> Result<(Arc<State>, Arc<Internal>), Failure> {
    let internal = Arc::new(Internal::new());
    let state = Arc::new(State::new(&internal));
    let apply = |key: &[u8], value: &[u8]| {
        state
            .apply(key, Some(value))
            .map_err(|reason| Failure::Other(OpenError::Metadata(reason)))
    };
    for partition in [METADATA, OFFSETS] {
        let key = Key::LogStart(partition).encode();
        if let Some((_, value)) = index.metadata_value(METADATA, &key)? {
            apply(&key, &value)?;
        }
    }
    let mut stale = Changes::default();
    for partition in [&internal.metadata, &internal.offsets] {
        for item in index.metadata(partition.id()) {
            let MetadataRow { key, offset, value } = item?;
            // Found in a segment that is kept for other records: it was written again since, or it was
            // deleted and the record of that is gone.
            if offset < partition.log_start_offset() {
                stale.remove_metadata(partition.id(), &key);
                continue;
            }
            apply(&key, &value)?;
        }
    }
    index.apply(stale)?;
    let mut producers: HashMap<PartitionId, Producers> = HashMap::new();
    for entry in index.all_producers() {
        let entry = entry?;
        let of_partition = producers.entry(entry.partition).or_default();
        of_partition.restore(entry.producer_id, Some(entry.producer));
    }
    state.restore_transactions();
    for partition in state.read().partitions.values() {
        let last = index.last_block(partition.id())?;
        let end = last.map(|block| block.info.end).unwrap_or_default();
        let producers = producers.remove(&partition.id()).unwrap_or_default();
        // What it keeps is counted by the cleaner, who looks at every block anyway.
        partition.restore(end.max(partition.log_start_offset()), producers);
    }
    Ok((state, internal))
}

/// Where a topic does not wait for the disk, an unclean stop may have cost records that readers have
/// seen: no offset is given again that a group has committed, and producers are taken as they come.
///
/// Less than a segment is ever unsynced, and a record takes a byte at least: a commit beyond that was no
/// reader's. Returns what the index is to forget of producers.
fn skip_what_may_be_lost(state: &State, clean: bool, segment_bytes: u32) -> Changes {
    let mut forgotten = Changes::default();
    let tables = state.read();
    for topic in tables.topics.values().filter(|t| t.is_os_durable()) {
        for partition in topic.partitions() {
            let committed = tables.offsets.values().filter_map(|offsets| {
                let committed = offsets.get(&(topic.id(), partition.index()))?;
                committed.position()
            });
            let end = partition.high_watermark();
            let believed = committed.filter(|offset| *offset <= end.plus(segment_bytes));
            let next = believed.max().unwrap_or_default().max(end);
            if next > end {
                tracing::warn!(topic = topic.name(), partition = partition.index(), from = %end, to = %next,
                    "offsets that were committed and are not there are skipped");
            }
            partition.skip_to(next);
            if !clean {
                let mut writer = partition.writer();
                for producer_id in writer.producers.forget_all() {
                    forgotten.remove_producer(partition.id(), producer_id);
                }
            }
        }
    }
    forgotten
}

/// Partition numbers are never reused, also where the record that counted them was lost.
pub fn first_free_partition(opened: &Opened) -> Result<u64, OpenError> {
    let in_index = opened.index.last_partition().map_err(FetchError::from)?;
    let tables = opened.state.read();
    let in_topics = tables
        .topics
        .values()
        .flat_map(|topic| topic.partitions())
        .map(|p| p.id());
    Ok(in_topics
        .chain(in_index)
        .max()
        .map_or(0, |id| id.0.saturating_add(1)))
}

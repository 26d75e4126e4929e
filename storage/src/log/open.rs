//! Opening: lock, recover the wal, bring the index up to the newest segment, read the internal
//! partitions, and only then let anybody in.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_wal::disk::{Disk, RealDisk};
use holdfast_wal::format::Trailer;
use holdfast_wal::recovery::{Damage, groups_end_before};
use holdfast_wal::segment::ScannedEntry;
use holdfast_wal::{Position, Segment, SegmentId, WalError, WalOptions, Writer};

use super::LogOptions;
use super::batch::{self, BatchHeader};
use super::error::{FetchError, OpenError};
use super::footer::{self, Footer, Part, ProducerEntry};
use super::index::{Index, MetadataChanges, MetadataRow};
use super::partition::{BatchEntry, Partition};
use super::producers::Producers;
use super::segments::Segments;
use super::state::{Internal, METADATA, OFFSETS, State};
use super::types::{Offset, PartitionId, StoredRecord};
use super::values::Key;

/// What opening yields.
pub struct Opened {
    pub lock: File,
    pub index: Arc<Index>,
    pub segments: Segments,
    pub state: Arc<State>,
    pub internal: Arc<Internal>,
    pub writer: Writer,
    pub disk: Arc<dyn Disk>,
    pub leader_epoch: i32,
    pub damage: Vec<Damage>,
}

pub fn open(options: &LogOptions) -> Result<Opened, OpenError> {
    let lock = lock(&options.data_dir)?;
    let segments_dir = options.data_dir.join("segments");
    let disk: Arc<dyn Disk> =
        Arc::new(
            RealDisk::open(&segments_dir).map_err(|source| OpenError::Directory {
                path: segments_dir,
                source,
            })?,
        );
    let recovered = holdfast_wal::recover(&disk, wal_options(options))?;
    let mut damage = recovered.damage;
    let index_dir = options.data_dir.join("index");
    let index = open_index(&index_dir, &recovered.segments)?;
    let mut catch_up = CatchUp {
        index: &index,
        producers: HashMap::new(),
        damage: &mut damage,
    };
    catch_up
        .run(&recovered.segments)
        .map_err(|error| error.in_dir(&index_dir))?;
    if !damage.is_empty() {
        index
            .remember_damage()
            .map_err(|error| OpenError::Index(error, index_dir.clone()))?;
    }
    let segments = Segments::default();
    recovered
        .segments
        .iter()
        .for_each(|segment| segments.insert(segment));
    for Damage { position, bytes } in &damage {
        tracing::error!(%position, bytes, "damage: these bytes were acknowledged and cannot be read");
    }
    if recovered.torn_tail {
        tracing::info!("a torn, never acknowledged tail was cut");
    }
    let (state, internal) = restore(&index).map_err(|error| error.in_dir(&index_dir))?;
    let leader_epoch = i32::try_from(recovered.boot_epoch).unwrap_or(i32::MAX);
    Ok(Opened {
        lock,
        index: Arc::new(index),
        segments,
        state,
        internal,
        writer: recovered.writer,
        disk,
        leader_epoch,
        damage,
    })
}

fn wal_options(options: &LogOptions) -> WalOptions {
    WalOptions {
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
fn open_index(path: &Path, segments: &[Arc<Segment>]) -> Result<Index, OpenError> {
    let failed = |error| OpenError::Index(error, path.to_path_buf());
    let index = Index::open(path).map_err(failed)?;
    let stale = !index.is_of_this_version().map_err(failed)?;
    let stranger = match index.checkpoint().map_err(failed)? {
        Some(checkpoint) => !segments.iter().any(|segment| segment.id() == checkpoint),
        None => false,
    };
    if !stale && !stranger {
        return Ok(index);
    }
    if stale {
        tracing::info!("the index was written by another version and is rebuilt");
    } else {
        tracing::warn!("the index does not belong to these segments and is rebuilt");
    }
    drop(index);
    fs::remove_dir_all(path).map_err(|source| OpenError::Directory {
        path: path.to_path_buf(),
        source,
    })?;
    Index::open(path).map_err(failed)
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

impl From<WalError> for Failure {
    fn from(error: WalError) -> Failure {
        Failure::Other(error.into())
    }
}

/// Batches of the internal partitions in one segment.
type Batches = BTreeMap<PartitionId, Vec<BatchEntry>>;

/// Takes the segments behind the index's checkpoint in.
struct CatchUp<'a> {
    index: &'a Index,
    /// Producers as of the segment before, of partitions that were looked at.
    producers: HashMap<PartitionId, Producers>,
    damage: &'a mut Vec<Damage>,
}

type Parts = BTreeMap<PartitionId, Part>;

impl CatchUp<'_> {
    fn run(&mut self, segments: &[Arc<Segment>]) -> Result<(), Failure> {
        let checkpoint = self.index.checkpoint()?;
        for (at, segment) in segments.iter().enumerate() {
            if checkpoint.is_some_and(|checkpoint| segment.id() <= checkpoint) {
                continue;
            }
            let (footer, batches) = match sealed(segment)? {
                Some((footer, batches, trailer, body)) => {
                    // After a failed fdatasync a footer may be readable and yet not on disk. The
                    // index will rely on it, so it is made durable again first.
                    segment.seal(trailer.groups_end, trailer.last_sequence, &body)?;
                    (footer, batches)
                }
                None => self.seal(segment, segments.get(at + 1))?,
            };
            let metadata = self.metadata_changes(segment, &batches)?;
            self.index.ingest(segment.id(), &footer, &metadata)?;
        }
        Ok(())
    }

    /// A segment whose footer never got written: read it through and write one.
    fn seal(
        &mut self,
        segment: &Segment,
        next: Option<&Arc<Segment>>,
    ) -> Result<(Footer, Batches), Failure> {
        let known_end = match next {
            Some(next) => groups_end_before(next, segment.id())?,
            None => None,
        };
        let scan = segment.scan(known_end)?;
        self.damage
            .extend(scan.damage.iter().map(|&(offset, bytes)| Damage {
                position: Position {
                    segment: segment.id(),
                    offset,
                },
                bytes,
            }));
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
                    self.producers_of(id)?.append(&header, base);
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
        let mut batches = Batches::new();
        for id in [METADATA, OFFSETS] {
            if let Some(part) = parts.remove(&id) {
                batches.insert(id, part.batches);
            }
        }
        Ok((footer, batches))
    }

    /// Newest value of every key that the internal partitions got in one segment. A batch that
    /// rotted is reported and passed over: the node starts without it.
    fn metadata_changes(
        &mut self,
        segment: &Segment,
        batches: &Batches,
    ) -> Result<MetadataChanges, Failure> {
        let mut changes = MetadataChanges::new();
        for (&partition, list) in batches {
            for entry in list {
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
        }
        Ok(changes)
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
    for item in index.producers(id) {
        let (producer_id, producer) = item?;
        producers.restore(producer_id, Some(producer));
    }
    Ok(producers)
}

type Sealed = (Footer, Batches, Trailer, Vec<u8>);

/// Footer and internal batches of a sealed segment; `None` if it has no footer, or a damaged one.
fn sealed(segment: &Segment) -> Result<Option<Sealed>, Failure> {
    let Some((trailer, body)) = segment.footer()? else {
        return Ok(None);
    };
    let Some(footer) = footer::decode(&body) else {
        return Ok(None);
    };
    let mut batches = Batches::new();
    for info in footer
        .blocks
        .iter()
        .filter(|info| info.partition == METADATA || info.partition == OFFSETS)
    {
        let at = info.block_position.saturating_sub(trailer.groups_end) as usize;
        let block = body
            .get(at..at.saturating_add(info.block_bytes as usize))
            .unwrap_or_default();
        match footer::decode_block(info.partition, block) {
            Some(list) => drop(batches.insert(info.partition, list)),
            None => return Ok(None),
        }
    }
    Ok(Some((footer, batches, trailer, body)))
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
    for partition in [&internal.metadata, &internal.offsets] {
        for item in index.metadata(partition.id()) {
            let MetadataRow { key, offset, value } = item?;
            // Found in a segment that is kept for other records: it was written again since, or it was
            // deleted and the record of that is gone.
            if offset < partition.log_start_offset() {
                index.remove_metadata(partition.id(), &key)?;
                continue;
            }
            apply(&key, &value)?;
        }
    }
    let mut partitions = vec![internal.metadata.clone(), internal.offsets.clone()];
    for topic in state.read().topics.values() {
        partitions.extend_from_slice(topic.partitions());
    }
    for partition in partitions {
        restore_partition(index, &partition)?;
    }
    Ok((state, internal))
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

fn restore_partition(index: &Index, partition: &Partition) -> Result<(), Failure> {
    let mut end = Offset::ZERO;
    let mut bytes = 0;
    for block in index.blocks_of(partition.id()) {
        let info = block?.info;
        end = end.max(info.end);
        bytes += info.batch_bytes;
    }
    let end = end.max(partition.log_start_offset());
    partition.restore(end, bytes, producers_of(index, partition.id())?);
    Ok(())
}

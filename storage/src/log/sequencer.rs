//! The commit point: on the writer thread, submissions get their offsets, small records are
//! coalesced, producers' sequences are checked, metadata is decided; all of it provisional until the
//! fdatasync has returned.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_wal::writer::Retired;
use holdfast_wal::{Group, Placed, Sequencer as WalSequencer, WalError};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Segments;
use super::batch::{self, BatchBuilder, BatchHeader, EncodedRecords};
use super::error::{AppendError, CreateTopicError};
use super::footer::ProducerEntry;
use super::index::MetadataChanges;
use super::partition::{BatchEntry, Partition, WriterState};
use super::producers::{Producer, Verdict};
use super::room::Room;
use super::sealer::{SealJob, SealQueue};
use super::state::{Internal, State};
use super::topic::Topic;
use super::types::{NewTopic, Offset, PartitionId, ProducerId, TopicId};
use super::values::{self, Key, NodeValue, TopicValue};

/// Batches in one segment before it is sealed, so that a footer stays small.
const SEGMENT_BATCHES_MAX: usize = 128 << 10;
/// Producer ids made durable at once.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// What callers hand in.
pub struct Submission {
    pub work: Work,
    /// Roughly what it adds to a group; admitted to the room, and given back when it is answered.
    pub bytes: usize,
}

/// What is to be done, and whom to tell.
pub enum Work {
    Batch {
        partition: Arc<Partition>,
        batch: Bytes,
        header: BatchHeader,
        reply: oneshot::Sender<Result<Appended, AppendError>>,
    },
    Records {
        partition: Arc<Partition>,
        records: EncodedRecords,
        reply: oneshot::Sender<Result<Appended, AppendError>>,
    },
    Scattered {
        partitions: Vec<Arc<Partition>>,
        records: EncodedRecords,
        reply: oneshot::Sender<Result<Vec<Offset>, AppendError>>,
    },
    /// Records of an internal partition.
    Internal {
        partition: PartitionId,
        pairs: Vec<Pair>,
        reply: oneshot::Sender<Result<(), AppendError>>,
    },
    CreateTopic {
        new: NewTopic,
        reply: oneshot::Sender<Result<Arc<Topic>, CreateTopicError>>,
    },
    ProducerId {
        reply: oneshot::Sender<Result<ProducerId, AppendError>>,
    },
}

/// Key and value of an internal record; `None` deletes.
pub type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Result of an append, handed out only after the covering fdatasync returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    pub log_start_offset: Offset,
}

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub struct Counters {
    pub records: AtomicU64,
    pub batches: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub fdatasyncs: AtomicU64,
}

/// An answer that waits for the fdatasync.
enum Answer {
    Appended(
        oneshot::Sender<Result<Appended, AppendError>>,
        Result<Appended, AppendError>,
    ),
    Offsets(
        oneshot::Sender<Result<Vec<Offset>, AppendError>>,
        Vec<Offset>,
    ),
    Done(oneshot::Sender<Result<(), AppendError>>),
    Topic(
        oneshot::Sender<Result<Arc<Topic>, CreateTopicError>>,
        Result<TopicId, CreateTopicError>,
    ),
    ProducerId(oneshot::Sender<Result<ProducerId, AppendError>>, ProducerId),
}

/// One partition's part of the group.
struct Slot {
    partition: Arc<Partition>,
    /// Where its offsets go back to if the group fails.
    first: Offset,
    ready: Vec<Ready>,
    /// Records being coalesced.
    open: Option<(Offset, BatchBuilder)>,
    coalesced_bytes: usize,
}

/// A batch with its offset.
struct Ready {
    base: Offset,
    last_delta: u32,
    max_timestamp_ms: i64,
    bytes: usize,
    /// Set where the first bytes must be replaced.
    prefix: Option<[u8; batch::PREFIX_BYTES]>,
    rest: Bytes,
}

/// What is in the head segment.
#[derive(Default)]
struct Head {
    partitions: Vec<Arc<Partition>>,
    producers: HashMap<(PartitionId, i64), Arc<Partition>>,
    metadata: MetadataChanges,
    batches: usize,
}

struct Undo {
    partition: Arc<Partition>,
    producer_id: i64,
    before: Option<Producer>,
}

/// The sequencer; lives on the writer thread.
pub struct Sequencer {
    state: Arc<State>,
    internal: Arc<Internal>,
    segments: Segments,
    counters: Arc<Counters>,
    leader_epoch: i32,
    batch_bytes_max: usize,
    group_bytes_max: usize,
    sealer: SealQueue,
    room: Arc<Room>,
    node: NodeValue,
    /// Producer ids below this are durable.
    producers_reserved: i64,
    head: Head,
    // The group being closed:
    slots: Vec<Slot>,
    answers: Vec<Answer>,
    /// Bytes that the group's submissions hold of the room.
    admitted: usize,
    undo: Vec<Undo>,
    metadata: Vec<(PartitionId, Pair)>,
    new_names: HashSet<String>,
    records: u64,
}

/// What a sequencer shares with the rest of the log.
pub struct SequencerParts {
    pub state: Arc<State>,
    pub internal: Arc<Internal>,
    pub segments: Segments,
    pub counters: Arc<Counters>,
    pub leader_epoch: i32,
    pub batch_bytes_max: usize,
    /// A group takes no further submission beyond this; one submission alone may exceed it.
    pub group_bytes_max: usize,
    pub sealer: SealQueue,
    pub node: NodeValue,
    pub room: Arc<Room>,
}

impl Sequencer {
    pub fn new(parts: SequencerParts) -> Sequencer {
        let SequencerParts {
            state,
            internal,
            segments,
            counters,
            leader_epoch,
            batch_bytes_max,
            group_bytes_max,
            sealer,
            node,
            room,
        } = parts;
        Sequencer {
            state,
            internal,
            segments,
            counters,
            leader_epoch,
            batch_bytes_max,
            group_bytes_max,
            sealer,
            room,
            node,
            producers_reserved: node.next_producer,
            head: Head::default(),
            slots: Vec::new(),
            answers: Vec::new(),
            admitted: 0,
            undo: Vec::new(),
            metadata: Vec::new(),
            new_names: HashSet::new(),
            records: 0,
        }
    }

    fn take(&mut self, submission: Submission) {
        self.admitted += submission.bytes;
        match submission.work {
            Work::Batch {
                partition,
                batch,
                header,
                reply,
            } => {
                let result = self.place_batch(&partition, batch, &header);
                self.answers.push(Answer::Appended(reply, result));
            }
            Work::Records {
                partition,
                records,
                reply,
            } => {
                let base_offset = self.place_records(&partition, &records);
                let appended = Appended {
                    base_offset,
                    log_start_offset: partition.log_start_offset(),
                };
                self.answers.push(Answer::Appended(reply, Ok(appended)));
            }
            Work::Scattered {
                partitions,
                records,
                reply,
            } => {
                let placed = partitions.iter().zip(records.iter());
                let offsets = placed
                    .map(|(partition, (timestamp, body))| {
                        self.place_record(partition, timestamp, body)
                    })
                    .collect();
                self.records += records.len() as u64;
                self.answers.push(Answer::Offsets(reply, offsets));
            }
            Work::Internal {
                partition,
                pairs,
                reply,
            } => {
                self.place_pairs(partition, pairs);
                self.answers.push(Answer::Done(reply));
            }
            Work::CreateTopic { new, reply } => {
                let result = self.create_topic(new);
                self.answers.push(Answer::Topic(reply, result));
            }
            Work::ProducerId { reply } => {
                let id = ProducerId(self.node.next_producer);
                self.node.next_producer += 1;
                if self.node.next_producer > self.producers_reserved {
                    self.producers_reserved = id.0 + PRODUCER_ID_BLOCK;
                    self.place_node();
                }
                self.answers.push(Answer::ProducerId(reply, id));
            }
        }
    }

    fn place_batch(
        &mut self,
        partition: &Arc<Partition>,
        batch: Bytes,
        header: &BatchHeader,
    ) -> Result<Appended, AppendError> {
        let mut writer = partition.writer();
        let log_start_offset = partition.log_start_offset();
        if header.producer_id >= 0 {
            let producer_id = header.producer_id;
            if producer_id >= self.node.next_producer {
                return Err(AppendError::UnknownProducer { producer_id });
            }
            if let Verdict::Duplicate(base_offset) = writer.producers.judge(header)? {
                return Ok(Appended {
                    base_offset,
                    log_start_offset,
                });
            }
            let base = writer.next;
            let before = writer.producers.append(header, base);
            self.undo.push(Undo {
                partition: partition.clone(),
                producer_id: header.producer_id,
                before,
            });
        }
        let base = writer.next;
        writer.next = header.end_offset(base);
        let leader_epoch = self.leader_epoch;
        let slot = slot(&mut self.slots, partition, &mut writer, base);
        slot.close_open(leader_epoch);
        slot.ready.push(Ready {
            base,
            last_delta: header.last_offset_delta,
            max_timestamp_ms: header.max_timestamp_ms,
            bytes: batch.len(),
            prefix: Some(batch::prefix(base, batch.len(), leader_epoch)),
            rest: batch.slice(batch::PREFIX_BYTES.min(batch.len())..),
        });
        self.records += u64::from(header.records);
        Ok(Appended {
            base_offset: base,
            log_start_offset,
        })
    }

    fn place_records(&mut self, partition: &Arc<Partition>, records: &EncodedRecords) -> Offset {
        let mut writer = partition.writer();
        let base = writer.next;
        writer.next = base.plus(u32::try_from(records.len()).unwrap_or(u32::MAX));
        let slot = slot(&mut self.slots, partition, &mut writer, base);
        let mut offset = base;
        for (timestamp_ms, body) in records.iter() {
            slot.push(
                offset,
                timestamp_ms,
                body,
                self.batch_bytes_max,
                self.leader_epoch,
            );
            offset = offset.plus(1);
        }
        self.records += records.len() as u64;
        base
    }

    fn place_record(
        &mut self,
        partition: &Arc<Partition>,
        timestamp_ms: i64,
        body: &[u8],
    ) -> Offset {
        let mut writer = partition.writer();
        let offset = writer.next;
        writer.next = offset.plus(1);
        let slot = slot(&mut self.slots, partition, &mut writer, offset);
        slot.push(
            offset,
            timestamp_ms,
            body,
            self.batch_bytes_max,
            self.leader_epoch,
        );
        offset
    }

    fn place_pairs(&mut self, id: PartitionId, pairs: Vec<Pair>) {
        let Some(partition) = self.internal.get(id).cloned() else {
            return;
        };
        let mut records = EncodedRecords::default();
        for (key, value) in &pairs {
            let key = Some(Bytes::copy_from_slice(key));
            let value = value.as_deref().map(Bytes::copy_from_slice);
            records.push(&super::types::Record {
                key,
                value,
                ..Default::default()
            });
        }
        self.place_records(&partition, &records);
        self.metadata
            .extend(pairs.into_iter().map(|pair| (id, pair)));
    }

    /// Writes the node's counters, as they must be after a restart.
    fn place_node(&mut self) {
        let node = NodeValue {
            next_producer: self.producers_reserved,
            ..self.node
        };
        match values::encode(&node) {
            Ok(value) => self.place_pairs(
                super::state::METADATA,
                vec![(Key::Node.encode(), Some(value))],
            ),
            Err(error) => tracing::error!(%error, "encoding the node's counters"),
        }
    }

    fn create_topic(&mut self, new: NewTopic) -> Result<TopicId, CreateTopicError> {
        if self.state.read().topics.contains_key(&new.name)
            || !self.new_names.insert(new.name.clone())
        {
            return Err(CreateTopicError::Exists(new.name));
        }
        let first = self.node.next_partition;
        self.node.next_partition = first.saturating_add(u64::from(new.partitions));
        let id = TopicId(Uuid::new_v4());
        let partitions = (first..self.node.next_partition).collect();
        let value = TopicValue {
            name: new.name,
            partitions,
            configs: new.configs,
        };
        let value = values::encode(&value).map_err(AppendError::Invalid)?;
        self.place_pairs(
            super::state::METADATA,
            vec![(Key::Topic(id).encode(), Some(value))],
        );
        self.place_node();
        Ok(id)
    }

    fn fill(&mut self, group: &mut Group) {
        let prefixes = self
            .slots
            .iter()
            .map(|slot| slot.ready.len() + 1)
            .sum::<usize>()
            * batch::PREFIX_BYTES;
        let mut scratch = BytesMut::with_capacity(prefixes);
        for slot in &mut self.slots {
            slot.close_open(self.leader_epoch);
            group.begin_entry(slot.partition.id().0);
            for ready in &slot.ready {
                if let Some(prefix) = ready.prefix {
                    scratch.put_slice(&prefix);
                    group.push(scratch.split().freeze());
                }
                group.push(ready.rest.clone());
            }
        }
    }

    /// Whatever was provisional is gone; the group's answers are handed out by the caller.
    fn roll_back(&mut self) {
        for undo in self.undo.drain(..).rev() {
            undo.partition
                .writer()
                .producers
                .restore(undo.producer_id, undo.before);
        }
        for slot in self.slots.drain(..) {
            let mut writer = slot.partition.writer();
            writer.next = slot.first;
            writer.slot = None;
        }
        self.metadata.clear();
        self.new_names.clear();
        self.records = 0;
        // A block of ids whose record was lost with the group is reserved again before it is used.
        self.producers_reserved = self.state.read().node.map_or(0, |node| node.next_producer);
    }

    fn publish(&mut self, placed: &Placed) {
        let mut batches = Vec::new();
        for (slot, &position) in self.slots.drain(..).zip(&placed.payload_positions) {
            batches.clear();
            let mut position = position;
            for ready in &slot.ready {
                let bytes = u32::try_from(ready.bytes).unwrap_or(u32::MAX);
                let (base, last_delta, max_timestamp_ms) =
                    (ready.base, ready.last_delta, ready.max_timestamp_ms);
                batches.push(BatchEntry {
                    base,
                    last_delta,
                    position,
                    bytes,
                    max_timestamp_ms,
                });
                position = position.saturating_add(bytes);
                self.counters
                    .payload_bytes
                    .fetch_add(ready.bytes as u64, Ordering::Relaxed);
            }
            self.head.batches += batches.len();
            self.counters
                .batches
                .fetch_add(batches.len() as u64, Ordering::Relaxed);
            let mut writer = slot.partition.writer();
            writer.slot = None;
            writer.coalesced_bytes = slot.coalesced_bytes;
            let first_in_head = !std::mem::replace(&mut writer.in_head, true);
            drop(writer);
            slot.partition.publish(&placed.segment, &batches);
            if first_in_head {
                self.head.partitions.push(slot.partition);
            }
        }
        self.counters
            .written_bytes
            .fetch_add(placed.bytes, Ordering::Relaxed);
        self.counters.fdatasyncs.fetch_add(1, Ordering::Relaxed);
        self.counters
            .records
            .fetch_add(std::mem::take(&mut self.records), Ordering::Relaxed);
    }

    fn apply_metadata(&mut self) {
        for (partition, (key, value)) in self.metadata.drain(..) {
            if let Err(error) = self.state.apply(&key, value.as_deref()) {
                tracing::error!(%error, "a metadata record that was just written cannot be read");
            }
            self.head.metadata.insert((partition, key), value);
        }
    }

    /// The state of a producer without what the open group would add.
    fn durable_producer(&self, partition: &Arc<Partition>, producer_id: i64) -> Option<Producer> {
        let provisional = self
            .undo
            .iter()
            .find(|u| u.producer_id == producer_id && Arc::ptr_eq(&u.partition, partition));
        match provisional {
            Some(undo) => undo.before.clone(),
            None => partition.writer().producers.get(producer_id).cloned(),
        }
    }

    fn answer(&mut self, failure: Option<&AppendError>) {
        for answer in self.answers.drain(..) {
            match answer {
                Answer::Appended(reply, result) => drop(reply.send(failed_or(failure, result))),
                Answer::Offsets(reply, offsets) => {
                    drop(reply.send(failed_or(failure, Ok(offsets))))
                }
                Answer::Done(reply) => drop(reply.send(failed_or(failure, Ok(())))),
                Answer::ProducerId(reply, id) => drop(reply.send(failed_or(failure, Ok(id)))),
                Answer::Topic(reply, result) => {
                    let result = match failure {
                        Some(error) => Err(CreateTopicError::Append(error.clone())),
                        None => result.and_then(|id| {
                            let topic = self.state.read().by_id.get(&id).cloned();
                            topic.ok_or(CreateTopicError::Append(AppendError::Closed))
                        }),
                    };
                    drop(reply.send(result));
                }
            }
        }
        self.room.release(std::mem::take(&mut self.admitted));
    }
}

fn failed_or<T>(
    failure: Option<&AppendError>,
    result: Result<T, AppendError>,
) -> Result<T, AppendError> {
    match failure {
        Some(error) => result.and(Err(error.clone())),
        None => result,
    }
}

/// The partition's slot of the open group.
fn slot<'a>(
    slots: &'a mut Vec<Slot>,
    partition: &Arc<Partition>,
    writer: &mut WriterState,
    first: Offset,
) -> &'a mut Slot {
    let index = *writer.slot.get_or_insert(slots.len());
    if index == slots.len() {
        slots.push(Slot {
            partition: partition.clone(),
            first,
            ready: Vec::new(),
            open: None,
            coalesced_bytes: writer.coalesced_bytes,
        });
    }
    #[allow(clippy::indexing_slicing, reason = "the index was just made to exist")]
    &mut slots[index]
}

impl Slot {
    fn push(
        &mut self,
        offset: Offset,
        timestamp_ms: i64,
        body: &[u8],
        batch_bytes_max: usize,
        leader_epoch: i32,
    ) {
        let full = self.open.as_ref().is_some_and(|(_, open)| {
            open.bytes() + body.len() + COALESCE_MARGIN_BYTES > batch_bytes_max
        });
        if full {
            self.close_open(leader_epoch);
        }
        let expected = self.coalesced_bytes.max(body.len());
        let (_, open) = self
            .open
            .get_or_insert_with(|| (offset, BatchBuilder::new(timestamp_ms, expected)));
        open.push(timestamp_ms, body);
    }

    fn close_open(&mut self, leader_epoch: i32) {
        let Some((base, builder)) = self.open.take() else {
            return;
        };
        let (rest, records, max_timestamp_ms) = builder.finish(base, leader_epoch);
        self.coalesced_bytes = rest.len();
        self.ready.push(Ready {
            base,
            last_delta: records.saturating_sub(1),
            max_timestamp_ms,
            bytes: rest.len(),
            prefix: None,
            rest,
        });
    }
}

/// Room for a record's own numbers when a coalesced batch is kept below the limit.
const COALESCE_MARGIN_BYTES: usize = 32;

impl WalSequencer for Sequencer {
    type Submission = Submission;

    fn close_group(&mut self, queue: &mut VecDeque<Submission>, group: &mut Group) -> bool {
        let mut bytes = 0;
        while let Some(next) = queue.front() {
            if bytes > 0 && bytes + next.bytes > self.group_bytes_max {
                break;
            }
            bytes += next.bytes.max(1);
            if let Some(submission) = queue.pop_front() {
                self.take(submission);
            }
        }
        self.fill(group);
        self.head.batches >= SEGMENT_BATCHES_MAX
    }

    fn durable(&mut self, placed: Option<&Placed>) {
        if let Some(placed) = placed {
            self.segments.insert(&placed.segment);
            for undo in self.undo.drain(..) {
                self.head
                    .producers
                    .insert((undo.partition.id(), undo.producer_id), undo.partition);
            }
            self.publish(placed);
            self.apply_metadata();
            self.new_names.clear();
        }
        self.answer(None);
    }

    fn failed(&mut self, error: &WalError) {
        self.roll_back();
        if matches!(error, WalError::Poisoned { .. }) {
            self.state.fail(error.to_string());
        }
        self.answer(Some(&AppendError::from(error)));
    }

    fn reject(&mut self, submission: Submission, error: &WalError) {
        self.room.release(submission.bytes);
        let error = AppendError::from(error);
        match submission.work {
            Work::Batch { reply, .. } | Work::Records { reply, .. } => drop(reply.send(Err(error))),
            Work::Scattered { reply, .. } => drop(reply.send(Err(error))),
            Work::Internal { reply, .. } => drop(reply.send(Err(error))),
            Work::CreateTopic { reply, .. } => drop(reply.send(Err(error.into()))),
            Work::ProducerId { reply } => drop(reply.send(Err(error))),
        }
    }

    fn retired(&mut self, retired: Retired) {
        let head = std::mem::take(&mut self.head);
        for partition in &head.partitions {
            partition.writer().in_head = false;
        }
        let mut producers: Vec<ProducerEntry> = head
            .producers
            .iter()
            .filter_map(|(&(id, producer_id), partition)| {
                let producer = self.durable_producer(partition, producer_id)?;
                Some(ProducerEntry {
                    partition: id,
                    producer_id,
                    producer,
                })
            })
            .collect();
        producers.sort_unstable_by_key(|entry| (entry.partition, entry.producer_id));
        let job = SealJob {
            retired,
            partitions: head.partitions,
            producers,
            metadata: head.metadata,
        };
        // Without a sealer the segment is sealed at the next start, but memory must not grow until then.
        if self.sealer.send(job).is_err() && !self.state.is_closing() {
            self.state.fail("the sealer has ended".into());
        }
    }
}

//! One group on its way to the disk: what it holds of every partition, who waits for it, and how to
//! take it back.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_wal::Group as WalGroup;

use super::batch::{self, BatchBuilder, BatchHeader};
use super::error::TransactionError;
use super::error::{AppendError, ChangeTopicError, CreateTopicError, DeleteTopicError};
use super::partition::{BatchEntry, Partition, WriterState};
use super::producers::Producer;
use super::stable::Event;
use super::submission::{Appended, Reply, TellAll};
use super::topic::Topic;
use super::transactions::{ProducerIdentity, Transaction};
use super::types::{Offset, PartitionId, ProducerId, TopicId};

/// Room for a record's own numbers when a coalesced batch is kept below the limit.
const COALESCE_MARGIN_BYTES: usize = 32;

/// Everything about a group, from its first submission until it is durable or taken back.
#[derive(Default)]
pub struct Group {
    pub slots: Vec<Slot>,
    pub answers: Vec<Answer>,
    /// Answers of appends that only need to reach the page cache (`holdfast.durability=os`).
    pub early: Vec<Answer>,
    /// Producers as they were before.
    pub undo: Vec<Undo>,
    /// Transactional ids as they were before.
    pub transactions: Vec<(String, Option<Arc<Transaction>>)>,
    /// Records of internal partitions, in order.
    pub metadata: Vec<Change>,
    /// Topics it creates.
    pub new_names: Vec<String>,
    /// Topics it deletes.
    pub deleting: Vec<TopicId>,
    /// Topics that it makes wait for the disk.
    pub leaving_os: Vec<Arc<Topic>>,
    /// Log starts as they were before.
    pub log_starts: Vec<(Arc<Partition>, Offset)>,
    /// Up to where producer ids were reserved, if it reserves more.
    pub reserved_before: Option<i64>,
    pub records: u64,
    /// Bytes that its submissions hold of the room.
    pub admitted: usize,
}

/// A record of an internal partition; no value deletes.
pub struct Change {
    pub partition: PartitionId,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub offset: Offset,
}

/// An answer that waits for the fdatasync.
pub enum Answer {
    Appended(Reply<Appended>, Result<Appended, AppendError>),
    Gathered(TellAll, Result<Appended, AppendError>),
    Offsets(Reply<Vec<Offset>>, Result<Vec<Offset>, AppendError>),
    Done(Reply<()>, Result<(), AppendError>),
    Deleted(Reply<(), DeleteTopicError>, Result<(), DeleteTopicError>),
    Carried(Reply<Vec<Vec<u8>>>, Result<Vec<Vec<u8>>, AppendError>),
    Topic(
        Reply<Arc<Topic>, CreateTopicError>,
        Result<TopicId, CreateTopicError>,
    ),
    Changed(
        Reply<Arc<Topic>, ChangeTopicError>,
        Result<TopicId, ChangeTopicError>,
    ),
    ProducerId(Reply<ProducerId>, ProducerId),
    Transaction(
        Reply<ProducerIdentity, TransactionError>,
        Result<ProducerIdentity, TransactionError>,
    ),
}

/// A producer before a batch of the group changed it.
pub struct Undo {
    pub partition: Arc<Partition>,
    pub producer_id: i64,
    pub before: Option<Producer>,
}

/// One partition's part of a group.
pub struct Slot {
    pub partition: Arc<Partition>,
    /// Where its offsets go back to if the group fails.
    first: Offset,
    ready: Vec<Ready>,
    /// Records being coalesced.
    open: Option<(Offset, BatchBuilder)>,
    pub coalesced_bytes: usize,
    /// The time that all its records get, where its topic has `message.timestamp.type=LogAppendTime`.
    append_time_ms: Option<u64>,
    /// Acknowledged, and readable, when it has reached the page cache. The topic's configuration may
    /// change until then; what was said when the group was closed holds.
    pub os: bool,
    /// Readable already.
    pub published: bool,
    /// Transactions that begin or end with it.
    pub transactions: Vec<Event>,
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

impl Group {
    /// The partition's slot, made if this is its first record here.
    pub fn slot(
        &mut self,
        partition: &Arc<Partition>,
        writer: &mut WriterState,
        first: Offset,
        now_ms: u64,
    ) -> &mut Slot {
        let index = *writer.slot.get_or_insert(self.slots.len());
        if index == self.slots.len() {
            let settings = partition.settings();
            let os = settings.os && writer.syncing == 0 && !writer.leaves_os;
            writer.syncing += u32::from(!os);
            self.slots.push(Slot {
                partition: partition.clone(),
                first,
                ready: Vec::new(),
                open: None,
                coalesced_bytes: writer.coalesced_bytes,
                append_time_ms: settings.log_append_time.then_some(now_ms),
                os,
                published: false,
                transactions: Vec::new(),
            });
        }
        #[allow(clippy::indexing_slicing, reason = "the index was just made to exist")]
        &mut self.slots[index]
    }

    /// Lays the group out for the wal, one entry a partition; no more is added to it.
    pub fn close(&mut self, out: &mut WalGroup, leader_epoch: i32) {
        let batches: usize = self.slots.iter().map(|slot| slot.ready.len() + 1).sum();
        let mut scratch = BytesMut::with_capacity(batches * batch::PREFIX_BYTES);
        for slot in &mut self.slots {
            slot.close_open(leader_epoch);
            let mut writer = slot.partition.writer();
            writer.slot = None;
            writer.coalesced_bytes = slot.coalesced_bytes;
            drop(writer);
            out.begin_entry(slot.partition.id().0);
            for ready in &slot.ready {
                if let Some(prefix) = ready.prefix {
                    scratch.put_slice(&prefix);
                    out.push(scratch.split().freeze());
                }
                out.push(ready.rest.clone());
            }
        }
    }

    /// Puts partitions and producers back to where they were before this group, which must be the
    /// newest.
    pub fn roll_back(&mut self) {
        for undo in self.undo.drain(..).rev() {
            let mut writer = undo.partition.writer();
            writer.producers.restore(undo.producer_id, undo.before);
        }
        for (partition, before) in self.log_starts.drain(..).rev() {
            partition.writer().log_start = before;
        }
        for slot in self.slots.drain(..) {
            slot.settle();
            // What readers have seen is not given a second time.
            if !slot.published {
                slot.partition.writer().next = slot.first;
            }
        }
    }

    /// The state of a producer before this group.
    pub fn producer_before(
        &self,
        partition: &Arc<Partition>,
        producer_id: i64,
    ) -> Option<&Option<Producer>> {
        let mut undo = self.undo.iter();
        undo.find(|u| u.producer_id == producer_id && Arc::ptr_eq(&u.partition, partition))
            .map(|undo| &undo.before)
    }
}

impl Slot {
    /// Its group is no longer open.
    pub fn settle(&self) {
        if !self.os {
            let mut writer = self.partition.writer();
            writer.syncing = writer.syncing.saturating_sub(1);
        }
    }

    /// Adds a batch as its producer sent it.
    pub fn push_batch(&mut self, base: Offset, batch: &Bytes, header: &BatchHeader, epoch: i32) {
        self.close_open(epoch);
        self.ready.push(Ready {
            base,
            last_delta: header.last_offset_delta,
            max_timestamp_ms: header.max_timestamp_ms,
            bytes: batch.len(),
            prefix: Some(batch::prefix(base, batch.len(), epoch)),
            rest: batch.slice(batch::PREFIX_BYTES.min(batch.len())..),
        });
    }

    /// Adds a record to the batch being coalesced.
    pub fn push_record(
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

    /// Adds a batch of records that callers have put into one.
    pub fn push_gathered(&mut self, base: Offset, batch: BatchBuilder, leader_epoch: i32) {
        self.close_open(leader_epoch);
        self.push_built(base, batch, leader_epoch);
    }

    fn close_open(&mut self, leader_epoch: i32) {
        if let Some((base, builder)) = self.open.take() {
            self.coalesced_bytes = builder.bytes();
            self.push_built(base, builder, leader_epoch);
        }
    }

    fn push_built(&mut self, base: Offset, batch: BatchBuilder, leader_epoch: i32) {
        let (rest, records, max_timestamp_ms) =
            batch.finish_with(base, leader_epoch, self.append_time_ms);
        self.ready.push(Ready {
            base,
            last_delta: records.saturating_sub(1),
            max_timestamp_ms,
            bytes: rest.len(),
            prefix: None,
            rest,
        });
    }

    /// Where its batches lie, if its entry's payload begins at `position`.
    pub fn entries(&self, mut position: u32) -> impl Iterator<Item = BatchEntry> {
        self.ready.iter().map(move |ready| {
            let bytes = u32::try_from(ready.bytes).unwrap_or(u32::MAX);
            let entry = BatchEntry {
                base: ready.base,
                last_delta: ready.last_delta,
                position,
                bytes,
                max_timestamp_ms: ready.max_timestamp_ms,
            };
            position = position.saturating_add(bytes);
            entry
        })
    }
}

impl Answer {
    /// Tells the caller what came of the group. `topic` finds what the group created.
    pub fn give(
        self,
        failure: Option<&AppendError>,
        topic: impl FnOnce(TopicId) -> Option<Arc<Topic>>,
    ) {
        match self {
            Answer::Appended(reply, result) => drop(reply.send(failed_or(failure, result))),
            Answer::Gathered(all, result) => all.tell(failed_or(failure, result)),
            Answer::Offsets(reply, result) => drop(reply.send(failed_or(failure, result))),
            Answer::Done(reply, result) => drop(reply.send(failed_or(failure, result))),
            Answer::Carried(reply, result) => drop(reply.send(failed_or(failure, result))),
            Answer::Deleted(reply, result) => {
                let failure = failure.map(|error| DeleteTopicError::Append(error.clone()));
                drop(reply.send(failed_or(failure.as_ref(), result)));
            }
            Answer::Changed(reply, result) => {
                let result = match failure {
                    Some(error) => Err(error.clone().into()),
                    None => result.and_then(|id| topic(id).ok_or(ChangeTopicError::Unknown)),
                };
                drop(reply.send(result));
            }
            Answer::Transaction(reply, result) => {
                let failure = failure.map(|error| TransactionError::Append(error.clone()));
                drop(reply.send(failed_or(failure.as_ref(), result)));
            }
            Answer::ProducerId(reply, id) => drop(reply.send(failed_or(failure, Ok(id)))),
            Answer::Topic(reply, result) => {
                let result = match failure {
                    Some(error) => Err(CreateTopicError::Append(error.clone())),
                    None => result.and_then(|id| {
                        topic(id).ok_or(CreateTopicError::Append(AppendError::Closed))
                    }),
                };
                drop(reply.send(result));
            }
        }
    }
}

fn failed_or<T, E: Clone>(failure: Option<&E>, result: Result<T, E>) -> Result<T, E> {
    match failure {
        Some(error) => result.and(Err(error.clone())),
        None => result,
    }
}

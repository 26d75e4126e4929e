//! The commit point: on the writer thread, submissions get their offsets, small records are
//! coalesced, producers' sequences are checked, metadata is decided; all of it provisional until the
//! fdatasync has returned.

mod transactions;

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;

use bytes::Bytes;
use holdfast_wal::writer::Retired;
use holdfast_wal::{Group as WalGroup, Placed, Sequencer as WalSequencer, WalError};
use uuid::Uuid;

use crate::log::OffsetCommit;
use crate::log::Segments;
use crate::log::batch::{BatchBuilder, BatchHeader, EncodedRecords};
use crate::log::cleaner::Event;
use crate::log::error::{AppendError, ChangeTopicError, CreateTopicError, DeleteTopicError};
use crate::log::footer::ProducerEntry;
use crate::log::group::{Answer, Change, Group, Slot, Undo};
use crate::log::index::MetadataChanges;
use crate::log::memory::Memory;
use crate::log::partition::{BatchEntry, Partition};
use crate::log::producers::Verdict;
use crate::log::room::Room;
use crate::log::sealer::{SealJob, SealQueue};
use crate::log::space::SpaceGuard;
use crate::log::stable::Event as TransactionEvent;
use crate::log::state::{Internal, METADATA, OFFSETS, State};
use crate::log::submission::{Appended, InTransaction, Pair, Submission, TopicChange, Work};
use crate::log::topic::{Settings, Topic};
use crate::log::transactions::Transactions;
use crate::log::types::{
    Clock, CommittedOffset, NewTopic, Offset, PartitionId, ProducerId, TopicId,
};
use crate::log::values::{self, Key, NodeValue, TopicValue};

/// Batches in one segment before it is sealed, however much memory there is: a footer stays small.
const SEGMENT_BATCHES_MAX: usize = 128 << 10;
/// No topic's `segment.ms` makes the node begin segments faster: they are everybody's.
const SEGMENT_AGE_MIN_MS: u64 = 1000;
/// What a change of an internal partition takes in memory, beside its key and its value.
const CHANGE_BYTES: usize = 96;
/// Producer ids made durable at once.
const PRODUCER_ID_BLOCK: i64 = 1000;

/// Counters since the log was opened.
#[derive(Debug, Default)]
pub struct Counters {
    pub records: AtomicU64,
    pub batches: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub written_bytes: AtomicU64,
    pub fdatasyncs: AtomicU64,
}

/// What is in the head segment.
#[derive(Default)]
struct Head {
    partitions: Vec<Arc<Partition>>,
    producers: HashMap<(PartitionId, i64), Arc<Partition>>,
    metadata: MetadataChanges,
    metadata_bytes: usize,
    batches: usize,
    /// When its first group was written.
    begun_ms: Option<u64>,
    /// The shortest `segment.ms` of the topics in it.
    segment_ms: Option<u64>,
}

impl Head {
    /// What it takes in memory until the index has it.
    fn bytes(&self) -> usize {
        self.batches * size_of::<BatchEntry>() + self.metadata_bytes
    }

    fn put(&mut self, place: (PartitionId, Vec<u8>), change: (Offset, Option<Vec<u8>>)) {
        let bytes = |change: &(Offset, Option<Vec<u8>>)| change.1.as_ref().map_or(0, Vec::len);
        self.metadata_bytes += place.1.len() + bytes(&change) + CHANGE_BYTES;
        let key_bytes = place.1.len();
        if let Some(before) = self.metadata.insert(place, change) {
            self.metadata_bytes -= key_bytes + bytes(&before) + CHANGE_BYTES;
        }
    }
}

/// The sequencer; lives on the writer thread.
pub struct Sequencer {
    state: Arc<State>,
    internal: Arc<Internal>,
    segments: Segments,
    counters: Arc<Counters>,
    leader_epoch: i32,
    batch_bytes_max: usize,
    segment_age_max_ms: u64,
    clock: Clock,
    /// When the group being closed was begun.
    now_ms: u64,
    sealer: SealQueue,
    room: Arc<Room>,
    guard: Arc<SpaceGuard>,
    memory: Memory,
    cleaner: Sender<Event>,
    /// Producers that were not known, since the cleaner was last told of them.
    new_producers: usize,
    node: NodeValue,
    /// Producer ids below this are durable.
    producers_reserved: i64,
    head: Head,
    /// The group being closed; empty in between.
    group: Group,
    /// Topics that open groups create.
    new_names: HashSet<String>,
    /// Topics that open groups delete.
    deleting: HashSet<TopicId>,
    /// As they are with the groups that are open.
    transactions: Transactions,
    /// Keys that open groups write, and how often.
    changing: HashMap<(PartitionId, Vec<u8>), u32>,
}

/// What a sequencer shares with the rest of the log.
pub struct SequencerParts {
    pub state: Arc<State>,
    pub internal: Arc<Internal>,
    pub segments: Segments,
    pub counters: Arc<Counters>,
    pub leader_epoch: i32,
    pub batch_bytes_max: usize,
    pub segment_age_max_ms: u64,
    pub clock: Clock,
    pub sealer: SealQueue,
    pub node: NodeValue,
    pub room: Arc<Room>,
    pub guard: Arc<SpaceGuard>,
    pub memory: Memory,
    pub cleaner: Sender<Event>,
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
            segment_age_max_ms,
            clock,
            sealer,
            node,
            room,
            guard,
            memory,
            cleaner,
        } = parts;
        let transactions = state.transactions();
        Sequencer {
            state,
            internal,
            segments,
            counters,
            leader_epoch,
            batch_bytes_max,
            segment_age_max_ms,
            clock,
            now_ms: 0,
            sealer,
            room,
            guard,
            memory,
            cleaner,
            new_producers: 0,
            node,
            producers_reserved: node.next_producer,
            head: Head::default(),
            group: Group::default(),
            new_names: HashSet::new(),
            deleting: HashSet::new(),
            transactions,
            changing: HashMap::new(),
        }
    }

    /// What a full disk refuses: it would only be in the way of what gives space back.
    fn refused(&self, partitions: &[Arc<Partition>]) -> Result<(), AppendError> {
        if let Some(reason) = self.guard.low() {
            return Err(AppendError::Storage(reason));
        }
        let full = |partition: &&Arc<Partition>| {
            let max = partition.settings().bytes_max;
            max.is_some_and(|max| partition.size_bytes() >= max)
        };
        match partitions.iter().find(full) {
            Some(partition) => Err(AppendError::Storage(format!(
                "{}-{} has the bytes that {} allows",
                partition.topic_name(),
                partition.index(),
                crate::log::topic::BYTES_MAX
            ))),
            None => Ok(()),
        }
    }

    fn take(&mut self, submission: Submission) {
        self.group.admitted += submission.bytes;
        match submission.work {
            Work::Batch {
                partition,
                batch,
                header,
                transaction,
                reply,
            } => {
                let result = self.place_batch(&partition, batch, &header, transaction.as_deref());
                let answer = Answer::Appended(reply, result);
                self.answers_of(&partition).push(answer);
            }
            Work::Records {
                partition,
                records,
                reply,
            } => {
                let refused = self.refused(std::slice::from_ref(&partition));
                let result = refused.and_then(|()| self.place_records(&partition, &records));
                let appended = result.map(|base_offset| self.appended(&partition, base_offset));
                let answer = Answer::Appended(reply, appended);
                self.answers_of(&partition).push(answer);
            }
            Work::Gathered(gathering) => {
                let (partition, batch, all) = gathering.end();
                // What nobody came for is free at once.
                let spare = submission.bytes.saturating_sub(batch.bytes());
                self.group.admitted -= spare;
                self.room.release(spare);
                let result = self.place_gathered(&partition, batch);
                let answer = Answer::Gathered(all, result);
                self.answers_of(&partition).push(answer);
            }
            Work::Scattered {
                partitions,
                records,
                reply,
            } => {
                let result = self.place_scattered(&partitions, &records);
                let answer = Answer::Offsets(reply, result);
                if partitions.iter().all(|partition| self.is_os(partition)) {
                    self.group.early.push(answer);
                } else {
                    self.group.answers.push(answer);
                }
            }
            Work::Internal {
                partition,
                pairs,
                reply,
            } => {
                self.place_pairs(partition, pairs);
                self.group.answers.push(Answer::Done(reply, Ok(())));
            }
            Work::ChangeTopic {
                topic,
                change,
                reply,
            } => {
                let result = self.change_topic(&topic, change);
                self.group.answers.push(Answer::Changed(reply, result));
            }
            Work::DeleteTopic { topic, reply } => {
                let result = self.delete_topic(topic);
                self.group.answers.push(Answer::Deleted(reply, result));
            }
            Work::ForgetOffsets {
                group,
                offsets,
                reply,
            } => {
                self.forget_offsets(&group, offsets);
                self.group.answers.push(Answer::Done(reply, Ok(())));
            }
            Work::RaiseLogStarts { starts, reply } => {
                let result = self.raise_log_starts(&starts);
                self.group.answers.push(Answer::Done(reply, result));
            }
            Work::Carry {
                partition,
                keys,
                reply,
            } => {
                let result = self.carry(partition, keys);
                self.group.answers.push(Answer::Carried(reply, result));
            }
            Work::CreateTopic { new, reply } => {
                let result = self.create_topic(new);
                self.group.answers.push(Answer::Topic(reply, result));
            }
            Work::ProducerId { reply } => {
                let id = self.new_producer_id();
                self.group.answers.push(Answer::ProducerId(reply, id));
            }
            Work::Transaction { id, step, reply } => {
                let result = self.transaction_step(&id, step);
                self.group.answers.push(Answer::Transaction(reply, result));
            }
            Work::Mark {
                partition,
                producer,
                outcome,
                reply,
            } => {
                let result = self.mark(&partition, producer, outcome);
                self.group.answers.push(Answer::Transaction(reply, result));
            }
        }
    }

    fn new_producer_id(&mut self) -> ProducerId {
        let id = ProducerId(self.node.next_producer);
        self.node.next_producer += 1;
        if self.node.next_producer > self.producers_reserved {
            let before = self.producers_reserved;
            self.group.reserved_before.get_or_insert(before);
            self.producers_reserved = id.0 + PRODUCER_ID_BLOCK;
            self.place_node();
        }
        id
    }

    /// Where answers of a partition wait for what its topic calls durable.
    fn answers_of(&mut self, partition: &Partition) -> &mut Vec<Answer> {
        if self.is_os(partition) {
            &mut self.group.early
        } else {
            &mut self.group.answers
        }
    }

    /// Whether the page cache is enough for what the group holds of a partition.
    fn is_os(&self, partition: &Partition) -> bool {
        let slot = partition.writer().slot;
        let slot = slot.and_then(|slot| self.group.slots.get(slot));
        slot.map_or_else(|| partition.settings().os, |slot| slot.os)
    }

    fn place_batch(
        &mut self,
        partition: &Arc<Partition>,
        batch: Bytes,
        header: &BatchHeader,
        within: Option<&InTransaction>,
    ) -> Result<Appended, AppendError> {
        if partition.is_deleted() {
            return Err(AppendError::Deleted);
        }
        self.refused(std::slice::from_ref(partition))?;
        if header.producer_id >= 0 {
            self.check_transactional(partition, header, within)?;
        }
        let mut began = None;
        let mut writer = partition.writer();
        let log_start_offset = partition.log_start_offset();
        let append_time_ms = header
            .append_time_ms()
            .and_then(|ms| u64::try_from(ms).ok());
        if header.producer_id >= 0 {
            let producer_id = header.producer_id;
            if producer_id >= self.node.next_producer {
                return Err(AppendError::UnknownProducer { producer_id });
            }
            if let Verdict::Duplicate(base_offset) = writer.producers.judge(header)? {
                return Ok(Appended {
                    base_offset,
                    log_start_offset,
                    append_time_ms,
                });
            }
            let base = writer.next;
            if let Some(within) = within
                && self.note_transactional(partition, within, base)?
            {
                began = Some(TransactionEvent::Began {
                    producer_id,
                    first: base,
                });
            }
            let before = writer.producers.append(header, base, self.now_ms);
            self.new_producers += usize::from(before.is_none());
            if self.new_producers > self.memory.producers() / 4 {
                self.new_producers = 0;
                // It forgets those there are too many of.
                let _ = self.cleaner.send(Event::Wake);
            }
            self.group.undo.push(Undo {
                partition: partition.clone(),
                producer_id: header.producer_id,
                before,
            });
        }
        let base = writer.next;
        writer.next = header.end_offset(base);
        let slot = self.group.slot(partition, &mut writer, base, self.now_ms);
        slot.push_batch(base, &batch, header, self.leader_epoch);
        slot.transactions.extend(began);
        self.group.records += u64::from(header.records);
        Ok(Appended {
            base_offset: base,
            log_start_offset,
            append_time_ms,
        })
    }

    /// What the callers of coalesced records are told.
    fn appended(&self, partition: &Partition, base_offset: Offset) -> Appended {
        let stamped = partition.settings().log_append_time;
        Appended {
            base_offset,
            log_start_offset: partition.log_start_offset(),
            append_time_ms: stamped.then_some(self.now_ms),
        }
    }

    fn place_gathered(
        &mut self,
        partition: &Arc<Partition>,
        batch: BatchBuilder,
    ) -> Result<Appended, AppendError> {
        if partition.is_deleted() {
            return Err(AppendError::Deleted);
        }
        self.refused(std::slice::from_ref(partition))?;
        let mut writer = partition.writer();
        let base = writer.next;
        writer.next = base.plus(batch.records());
        self.group.records += u64::from(batch.records());
        let slot = self.group.slot(partition, &mut writer, base, self.now_ms);
        slot.push_gathered(base, batch, self.leader_epoch);
        Ok(self.appended(partition, base))
    }

    fn place_scattered(
        &mut self,
        partitions: &[Arc<Partition>],
        records: &EncodedRecords,
    ) -> Result<Vec<Offset>, AppendError> {
        if partitions.iter().any(|partition| partition.is_deleted()) {
            return Err(AppendError::Deleted);
        }
        self.refused(partitions)?;
        self.group.records += records.len() as u64;
        let placed = partitions.iter().zip(records.iter());
        Ok(placed
            .map(|(partition, (timestamp, body))| self.place_record(partition, timestamp, body))
            .collect())
    }

    fn place_records(
        &mut self,
        partition: &Arc<Partition>,
        records: &EncodedRecords,
    ) -> Result<Offset, AppendError> {
        if partition.is_deleted() {
            return Err(AppendError::Deleted);
        }
        let mut writer = partition.writer();
        let base = writer.next;
        writer.next = base.plus(u32::try_from(records.len()).unwrap_or(u32::MAX));
        let slot = self.group.slot(partition, &mut writer, base, self.now_ms);
        let mut offset = base;
        for (timestamp_ms, body) in records.iter() {
            slot.push_record(
                offset,
                timestamp_ms,
                body,
                self.batch_bytes_max,
                self.leader_epoch,
            );
            offset = offset.plus(1);
        }
        self.group.records += records.len() as u64;
        Ok(base)
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
        let slot = self.group.slot(partition, &mut writer, offset, self.now_ms);
        slot.push_record(
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
            records.push(&crate::log::types::Record {
                key,
                value,
                ..Default::default()
            });
        }
        // Internal partitions are never deleted.
        let mut offset = self.place_records(&partition, &records).unwrap_or_default();
        for (key, value) in pairs {
            *self.changing.entry((id, key.clone())).or_default() += 1;
            self.group.metadata.push(Change {
                partition: id,
                key,
                value,
                offset,
            });
            offset = offset.plus(1);
        }
    }

    /// Writes the node's counters, as they must be after a restart.
    fn place_node(&mut self) {
        let node = NodeValue {
            next_producer: self.producers_reserved,
            ..self.node
        };
        match values::encode(&node) {
            Ok(value) => self.place_pairs(METADATA, vec![(Key::Node.encode(), Some(value))]),
            Err(error) => tracing::error!(%error, "encoding the node's counters"),
        }
    }

    fn create_topic(&mut self, new: NewTopic) -> Result<TopicId, CreateTopicError> {
        if self.state.read().topics.contains_key(&new.name)
            || !self.new_names.insert(new.name.clone())
        {
            return Err(CreateTopicError::Exists(new.name));
        }
        self.group.new_names.push(new.name.clone());
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
        self.place_pairs(METADATA, vec![(Key::Topic(id).encode(), Some(value))]);
        self.place_node();
        Ok(id)
    }

    fn change_topic(
        &mut self,
        topic: &Arc<Topic>,
        change: TopicChange,
    ) -> Result<TopicId, ChangeTopicError> {
        let id = topic.id();
        let now = self.state.read().by_id.get(&id).cloned();
        let now = now.filter(|_| !self.deleting.contains(&id));
        let now = now.ok_or(ChangeTopicError::Unknown)?;
        let place = (METADATA, Key::Topic(id).encode());
        if !Arc::ptr_eq(&now, topic) || self.changing.contains_key(&place) {
            return Err(ChangeTopicError::Outdated);
        }
        let mut value = topic.value();
        let more = match change {
            TopicChange::Partitions(count) => {
                let has = u32::try_from(value.partitions.len()).unwrap_or(u32::MAX);
                let more = count.checked_sub(has).filter(|&more| more > 0);
                more.ok_or(ChangeTopicError::FewerPartitions { now: has })?
            }
            TopicChange::Configs(configs) => {
                value.configs = configs;
                0
            }
        };
        if topic.is_os_durable() && !Settings::of(&value.configs).os {
            set_leaves_os(topic, true);
            self.group.leaving_os.push(topic.clone());
        }
        let first = self.node.next_partition;
        self.node.next_partition = first.saturating_add(u64::from(more));
        value.partitions.extend(first..self.node.next_partition);
        let value = values::encode(&value).map_err(AppendError::Invalid)?;
        self.place_pairs(place.0, vec![(place.1, Some(value))]);
        if more > 0 {
            self.place_node();
        }
        Ok(id)
    }

    fn delete_topic(&mut self, id: TopicId) -> Result<(), DeleteTopicError> {
        let topic = self.state.read().by_id.get(&id).cloned();
        let topic = topic.filter(|_| !self.deleting.contains(&id));
        let topic = topic.ok_or(DeleteTopicError::Unknown)?;
        self.deleting.insert(id);
        self.group.deleting.push(id);
        let mut pairs = vec![(Key::Topic(id).encode(), None)];
        for partition in topic.partitions() {
            if partition.log_start_offset() > Offset::ZERO {
                pairs.push((Key::LogStart(partition.id()).encode(), None));
            }
        }
        self.place_pairs(METADATA, pairs);
        self.leave_transactions(topic.partitions());
        let offsets = self.state.group_offsets_of(id);
        if !offsets.is_empty() {
            let pairs = offsets.into_iter().map(|key| (key.encode(), None));
            self.place_pairs(OFFSETS, pairs.collect());
        }
        Ok(())
    }

    fn forget_offsets(&mut self, group: &str, offsets: Vec<(TopicId, i32, CommittedOffset)>) {
        let mut pairs = Vec::new();
        for (topic, partition, committed) in offsets {
            let key = Key::GroupOffset {
                group: group.to_owned(),
                topic,
                partition,
            };
            let place = (OFFSETS, key.encode());
            // One that is committed anew just now stays.
            let now = self.state.committed_offset(group, topic, partition);
            if !self.changing.contains_key(&place) && now.as_ref() == Some(&committed) {
                pairs.push((place.1, None));
            }
        }
        if !pairs.is_empty() {
            self.place_pairs(OFFSETS, pairs);
        }
    }

    fn raise_log_starts(&mut self, starts: &[(Arc<Partition>, Offset)]) -> Result<(), AppendError> {
        let mut pairs = Vec::with_capacity(starts.len());
        for (partition, offset) in starts {
            let mut writer = partition.writer();
            let log_start = writer.log_start.max(partition.log_start_offset());
            if partition.is_deleted() || *offset <= log_start {
                continue;
            }
            let value = values::encode(offset).map_err(AppendError::Invalid)?;
            pairs.push((Key::LogStart(partition.id()).encode(), Some(value)));
            pairs.extend(transactions::forgotten_aborted(partition, Some(*offset)));
            self.group
                .log_starts
                .push((partition.clone(), writer.log_start));
            writer.log_start = *offset;
        }
        if !pairs.is_empty() {
            self.place_pairs(METADATA, pairs);
        }
        Ok(())
    }

    fn carry(
        &mut self,
        partition: PartitionId,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, AppendError> {
        let (mut pairs, mut changing) = (Vec::new(), Vec::new());
        for key in keys {
            // A value that is not durable yet is not in the state; it must not be written over.
            let place = (partition, key);
            if self.changing.contains_key(&place) {
                changing.push(place.1);
                continue;
            }
            let key = place.1;
            if let Some(value) = self.state.value_of(&key).map_err(AppendError::Invalid)? {
                pairs.push((key, Some(value)));
            }
        }
        if !pairs.is_empty() {
            self.place_pairs(partition, pairs);
        }
        Ok(changing)
    }

    /// Makes the batches of a durable group readable.
    fn publish(&mut self, group: &mut Group, placed: &Placed) {
        let mut batches = Vec::new();
        let (mut count, mut payload_bytes) = (0, 0);
        for (slot, &position) in group.slots.drain(..).zip(&placed.payload_positions) {
            slot.settle();
            batches.clear();
            batches.extend(slot.entries(position));
            count += batches.len();
            payload_bytes += batches.iter().map(|b| u64::from(b.bytes)).sum::<u64>();
            let first_in_head = !std::mem::replace(&mut slot.partition.writer().in_head, true);
            if !slot.published {
                slot.partition.publish(
                    &placed.segment,
                    &batches,
                    &slot.transactions,
                    placed.append_time_ms,
                );
            }
            if first_in_head {
                if let Some(ms) = slot.partition.settings().segment_ms {
                    self.head.segment_ms = Some(self.head.segment_ms.map_or(ms, |m| m.min(ms)));
                }
                self.head.partitions.push(slot.partition);
            }
        }
        self.head.batches += count;
        self.head.begun_ms.get_or_insert(placed.append_time_ms);
        let add = |counter: &AtomicU64, n| counter.fetch_add(n, Ordering::Relaxed);
        add(&self.counters.batches, count as u64);
        add(&self.counters.payload_bytes, payload_bytes);
        add(&self.counters.written_bytes, placed.bytes);
        add(&self.counters.fdatasyncs, 1);
        add(&self.counters.records, group.records);
    }

    fn apply_metadata(&mut self, group: &mut Group) {
        for change in std::mem::take(&mut group.metadata) {
            if let Err(error) = self.state.apply(&change.key, change.value.as_deref()) {
                tracing::error!(%error, "a metadata record that was just written cannot be read");
            }
            let place = (change.partition, change.key);
            self.settle_key(&place);
            self.head.put(place, (change.offset, change.value));
        }
    }

    /// One group fewer is about to write a key.
    fn settle_key(&mut self, place: &(PartitionId, Vec<u8>)) {
        if let Some(count) = self.changing.get_mut(place) {
            *count -= 1;
            if *count == 0 {
                self.changing.remove(place);
            }
        }
    }

    /// The group's fate is known: its callers are told, its room is free.
    fn answer(&mut self, group: Group, failure: Option<&AppendError>) {
        for name in &group.new_names {
            self.new_names.remove(name);
        }
        for topic in &group.deleting {
            self.deleting.remove(topic);
        }
        for change in group.metadata {
            self.settle_key(&(change.partition, change.key));
        }
        group.slots.iter().for_each(Slot::settle);
        for topic in &group.leaving_os {
            set_leaves_os(topic, false);
        }
        for answer in group.early.into_iter().chain(group.answers) {
            answer.give(failure, |id| self.state.read().by_id.get(&id).cloned());
        }
        self.room.release(group.admitted);
    }
}

fn set_leaves_os(topic: &Topic, leaves: bool) {
    for partition in topic.partitions() {
        partition.writer().leaves_os = leaves;
    }
}

/// Whether a segment could not be made for want of space, and for no other reason.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl WalSequencer for Sequencer {
    type Submission = Submission;
    type Closed = Group;

    fn close_group(
        &mut self,
        submissions: impl Iterator<Item = Submission>,
        out: &mut WalGroup,
    ) -> Group {
        self.now_ms = self.clock.now_ms();
        submissions.for_each(|submission| self.take(submission));
        self.group.close(out, self.leader_epoch);
        std::mem::take(&mut self.group)
    }

    fn written(&mut self, group: &mut Group, placed: &Placed) -> bool {
        let os = |slot: &Slot| slot.os;
        if !group.slots.iter().any(os) {
            return true;
        }
        self.segments.insert(&placed.segment);
        let slots = group.slots.iter_mut().zip(&placed.payload_positions);
        for (slot, &position) in slots.filter(|(slot, _)| os(slot)) {
            let batches: Vec<BatchEntry> = slot.entries(position).collect();
            slot.partition.publish(
                &placed.segment,
                &batches,
                &slot.transactions,
                placed.append_time_ms,
            );
            slot.published = true;
        }
        for answer in group.early.drain(..) {
            answer.give(None, |_| None);
        }
        !group.answers.is_empty() || !group.slots.iter().all(os)
    }

    fn wants_new_segment(&self) -> bool {
        if self.guard.low().is_some() {
            // The reserve is not for what is only wished for.
            return false;
        }
        let asked = self.head.segment_ms.unwrap_or(u64::MAX);
        let age_max = self.segment_age_max_ms.min(asked.max(SEGMENT_AGE_MIN_MS));
        let age = |begun| self.now_ms.saturating_sub(begun);
        let begun = self.head.begun_ms;
        self.head.batches >= SEGMENT_BATCHES_MAX
            || self.head.bytes() >= self.memory.head_bytes()
            || begun.is_some_and(|begun| age(begun) > age_max)
    }

    fn durable(&mut self, mut group: Group, placed: Option<&Placed>) {
        if let Some(placed) = placed {
            self.segments.insert(&placed.segment);
            for undo in group.undo.drain(..) {
                self.head
                    .producers
                    .insert((undo.partition.id(), undo.producer_id), undo.partition);
            }
            self.publish(&mut group, placed);
            self.apply_metadata(&mut group);
        }
        self.answer(group, None);
    }

    fn failed(&mut self, mut group: Group, error: &WalError) {
        for (id, before) in std::mem::take(&mut group.transactions).into_iter().rev() {
            self.transactions.put(&id, before);
        }
        group.roll_back();
        // A block of ids whose record was lost with the group is reserved again before it is used.
        if let Some(before) = group.reserved_before {
            self.producers_reserved = before;
        }
        match error {
            WalError::Poisoned { .. } => self.state.fail(error.to_string()),
            WalError::NoSpace { source, .. } if is_full(source) => {
                self.guard.refuse(error.to_string());
            }
            WalError::NoSpace { .. } | WalError::Write { .. } => {
                self.guard.refuse_unwritable(error.to_string())
            }
            _ => {}
        }
        self.answer(group, Some(&AppendError::from(error)));
    }

    fn reject(&mut self, submission: Submission, error: &WalError) {
        self.room.release(submission.bytes);
        submission.work.refuse(&AppendError::from(error));
    }

    fn retired(&mut self, retired: Retired, unwritten: Option<&Group>) {
        let head = std::mem::take(&mut self.head);
        for partition in &head.partitions {
            partition.writer().in_head = false;
        }
        let mut producers: Vec<ProducerEntry> = head
            .producers
            .iter()
            .filter_map(|(&(id, producer_id), partition)| {
                let before =
                    unwritten.and_then(|group| group.producer_before(partition, producer_id));
                let producer = match before {
                    Some(before) => before.clone()?,
                    None => partition.writer().producers.get(producer_id).cloned()?,
                };
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
        self.state.unsealed.fetch_add(1, Ordering::AcqRel);
        // Without a sealer the segment is sealed at the next start, but memory must not grow until then.
        if self.sealer.send(job).is_err() && !self.state.is_closing() {
            self.state.fail("the sealer has ended".into());
        }
    }
}

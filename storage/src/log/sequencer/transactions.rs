//! Transactions at the commit point: every step of one is records of the group being closed.

use std::sync::Arc;

use super::*;
use crate::log::batch;
use crate::log::error::TransactionError;
use crate::log::stable::{Aborted, Event};
use crate::log::submission::{InTransaction, Step};
use crate::log::transactions::{
    Ending, Next, Outcome, ProducerIdentity, TRANSACTIONAL_IDS_MAX, Transaction,
};
use crate::log::values::AbortedValue;

type Identified = Result<ProducerIdentity, TransactionError>;

impl Sequencer {
    pub(super) fn transaction_step(&mut self, id: &str, step: Step) -> Identified {
        match step {
            Step::Begin {
                timeout_ms,
                believed,
            } => self.begin(id, timeout_ms, believed),
            Step::Add {
                producer,
                partitions,
                offsets,
            } => self.add_to_transaction(id, producer, &partitions, offsets),
            Step::Offsets {
                producer,
                group,
                commits,
                adds,
            } => self.add_offsets(id, producer, &group, commits, adds),
            Step::End {
                producer,
                outcome,
                raises_epoch,
            } => self.end(id, producer, outcome, raises_epoch),
            Step::TimeOut { started_ms } => self.time_out(id, started_ms),
            Step::Forget { changed_ms } => self.forget(id, changed_ms),
        }
    }

    fn known(&self, id: &str) -> Result<Arc<Transaction>, TransactionError> {
        let known = self.transactions.get(id).cloned();
        known.ok_or(TransactionError::UnknownId)
    }

    fn begin(
        &mut self,
        id: &str,
        timeout_ms: u32,
        believed: Option<ProducerIdentity>,
    ) -> Identified {
        let Some(known) = self.transactions.get(id).cloned() else {
            if self.transactions.len() >= TRANSACTIONAL_IDS_MAX {
                return Err(TransactionError::TooManyIds);
            }
            let transaction = Transaction::new(self.new_producer_id(), timeout_ms, self.now_ms);
            return self.put_transaction(id, transaction, true);
        };
        let again = known.check_begin(believed)?;
        if again && !known.is_ongoing() {
            return Ok(known.identity());
        }
        let mut transaction = Arc::unwrap_or_clone(known);
        if transaction.is_ongoing() {
            self.finish(&mut transaction, Outcome::Abort, true)?;
        }
        let next = self.next_of(&transaction);
        transaction.begin_anew(next, timeout_ms, believed.is_some(), self.now_ms);
        self.put_transaction(id, transaction, true)
    }

    fn add_to_transaction(
        &mut self,
        id: &str,
        producer: ProducerIdentity,
        partitions: &[Arc<Partition>],
        offsets: bool,
    ) -> Identified {
        let known = self.known(id)?;
        known.check(producer)?;
        if partitions.iter().any(|partition| partition.is_deleted()) {
            return Err(AppendError::Deleted.into());
        }
        let offsets = offsets.then_some(OFFSETS);
        let all = partitions.iter().map(|p| p.id()).chain(offsets);
        let new: Vec<PartitionId> = all.filter(|p| !known.partitions.contains_key(p)).collect();
        let was_ongoing = known.is_ongoing();
        if was_ongoing && new.is_empty() {
            return Ok(producer);
        }
        let mut transaction = Arc::unwrap_or_clone(known);
        transaction.enter(self.now_ms);
        for partition in new {
            self.enter_partition(&mut transaction, partition, None)?;
        }
        self.put_transaction(id, transaction, !was_ongoing)
    }

    fn add_offsets(
        &mut self,
        id: &str,
        producer: ProducerIdentity,
        group: &str,
        commits: Vec<OffsetCommit>,
        adds: bool,
    ) -> Identified {
        let known = self.known(id)?;
        known.check(producer)?;
        let is_added = known.partitions.contains_key(&OFFSETS);
        if !is_added && !adds {
            return Err(TransactionError::NotAdded);
        }
        let was_ongoing = known.is_ongoing();
        let mut transaction = Arc::unwrap_or_clone(known);
        let mut pairs = Vec::with_capacity(commits.len());
        for commit in commits {
            let key = Key::TransactionOffset {
                producer_id: producer.id.0,
                group: group.to_owned(),
                topic: commit.topic,
                partition: commit.partition,
            };
            pairs.push((key.encode(), Some(encoded(&commit.committed)?)));
            let place = (group.to_owned(), commit.topic, commit.partition);
            transaction.add_offset(place, commit.committed)?;
        }
        transaction.enter(self.now_ms);
        if !is_added {
            self.enter_partition(&mut transaction, OFFSETS, None)?;
        }
        if !pairs.is_empty() {
            self.place_pairs(METADATA, pairs);
        }
        self.put_transaction(id, transaction, !was_ongoing)
    }

    fn end(
        &mut self,
        id: &str,
        producer: ProducerIdentity,
        outcome: Outcome,
        raises_epoch: bool,
    ) -> Identified {
        let known = self.known(id)?;
        if known.check_end(producer, outcome, raises_epoch)? == Ending::Done {
            return Ok(known.identity());
        }
        let mut transaction = Arc::unwrap_or_clone(known);
        self.finish(&mut transaction, outcome, raises_epoch)?;
        self.put_transaction(id, transaction, true)
    }

    fn time_out(&mut self, id: &str, started_ms: u64) -> Identified {
        let known = self.known(id)?;
        if !known.is_ongoing() || known.value.started_ms != started_ms {
            return Ok(known.identity());
        }
        let mut transaction = Arc::unwrap_or_clone(known);
        self.finish(&mut transaction, Outcome::Abort, true)?;
        self.put_transaction(id, transaction, true)
    }

    fn forget(&mut self, id: &str, changed_ms: u64) -> Identified {
        let known = self.known(id)?;
        if !known.is_ongoing() && known.value.changed_ms == changed_ms {
            self.place_pairs(
                METADATA,
                vec![(Key::Transaction(id.to_owned()).encode(), None)],
            );
            let before = self.transactions.put(id, None);
            self.group.transactions.push((id.to_owned(), before));
        }
        Ok(known.identity())
    }

    /// Ends a producer's transaction in one partition alone.
    pub(super) fn mark(
        &mut self,
        partition: &Arc<Partition>,
        producer: ProducerIdentity,
        outcome: Outcome,
    ) -> Identified {
        if partition.is_deleted() {
            return Err(AppendError::Deleted.into());
        }
        let producer_id = producer.id.0;
        let epoch = partition
            .writer()
            .producers
            .get(producer_id)
            .map(|p| p.epoch);
        if epoch.is_some_and(|epoch| epoch > producer.epoch) {
            return Err(TransactionError::Fenced(producer_id));
        }
        let Some((id, known)) = self.transactions.of_producer(producer_id) else {
            return Ok(producer);
        };
        let (id, known) = (id.to_owned(), known.clone());
        let Some(first) = known.partitions.get(&partition.id()).copied() else {
            return Ok(producer);
        };
        let mut transaction = Arc::unwrap_or_clone(known);
        transaction.partitions.remove(&partition.id());
        self.leave_partition(producer, partition.id(), first, outcome)?;
        self.put_transaction(&id, transaction, false)?;
        Ok(producer)
    }

    /// Partitions that go take part in nothing.
    pub(super) fn leave_transactions(&mut self, partitions: &[Arc<Partition>]) {
        let has = |transaction: &Transaction| {
            partitions
                .iter()
                .any(|p| transaction.partitions.contains_key(&p.id()))
        };
        let all = self.transactions.iter().filter(|(_, known)| has(known));
        let affected: Vec<(String, Arc<Transaction>)> = all
            .map(|(id, known)| (id.to_owned(), known.clone()))
            .collect();
        let mut pairs = Vec::new();
        for (id, known) in affected {
            let mut transaction = Arc::unwrap_or_clone(known);
            for partition in partitions {
                if transaction.partitions.remove(&partition.id()).is_some() {
                    let key = in_transaction(&transaction, partition.id());
                    pairs.push((key.encode(), None));
                }
            }
            let before = self.transactions.put(&id, Some(Arc::new(transaction)));
            self.group.transactions.push((id, before));
        }
        for partition in partitions {
            pairs.extend(forgotten_aborted(partition, None));
        }
        if !pairs.is_empty() {
            self.place_pairs(METADATA, pairs);
        }
    }

    /// Refuses a batch of a transactional producer that its transaction does not take.
    pub(super) fn check_transactional(
        &self,
        partition: &Partition,
        header: &BatchHeader,
        within: Option<&InTransaction>,
    ) -> Result<(), TransactionError> {
        let Some(within) = within else {
            let known = self.transactions.of_producer(header.producer_id);
            let begun = known.and_then(|(_, known)| known.partitions.get(&partition.id()));
            return match begun {
                Some(Some(_)) => Err(TransactionError::NotTransactional),
                _ => Ok(()),
            };
        };
        let known = self.known(&within.id)?;
        known.check(ProducerIdentity {
            id: ProducerId(header.producer_id),
            epoch: header.producer_epoch,
        })?;
        if within.adds || known.partitions.contains_key(&partition.id()) {
            Ok(())
        } else {
            Err(TransactionError::NotAdded)
        }
    }

    /// Notes where the transaction of a batch begins in its partition; true where this is there.
    pub(super) fn note_transactional(
        &mut self,
        partition: &Partition,
        within: &InTransaction,
        base: Offset,
    ) -> Result<bool, TransactionError> {
        let known = self.known(&within.id)?;
        if let Some(Some(_)) = known.partitions.get(&partition.id()) {
            return Ok(false);
        }
        let was_ongoing = known.is_ongoing();
        let mut transaction = Arc::unwrap_or_clone(known);
        transaction.enter(self.now_ms);
        self.enter_partition(&mut transaction, partition.id(), Some(base))?;
        self.put_transaction(&within.id, transaction, !was_ongoing)?;
        Ok(true)
    }

    fn enter_partition(
        &mut self,
        transaction: &mut Transaction,
        partition: PartitionId,
        first: Option<Offset>,
    ) -> Result<(), TransactionError> {
        let key = in_transaction(transaction, partition);
        self.place_pairs(METADATA, vec![(key.encode(), Some(encoded(&first)?))]);
        transaction.partitions.insert(partition, first);
        Ok(())
    }

    /// Writes the markers, commits the offsets, or not, and gives the producer its next epoch.
    fn finish(
        &mut self,
        transaction: &mut Transaction,
        outcome: Outcome,
        raises_epoch: bool,
    ) -> Result<(), TransactionError> {
        let mut marker = transaction.identity();
        marker.epoch = marker.epoch.saturating_add(i16::from(raises_epoch));
        for (&partition, &first) in &transaction.partitions {
            self.leave_partition(marker, partition, first, outcome)?;
        }
        let (mut committed, mut forgotten) = (Vec::new(), Vec::new());
        for ((group, topic, partition), offset) in std::mem::take(&mut transaction.offsets) {
            let is_there = self.state.read().by_id.contains_key(&topic);
            if outcome == Outcome::Commit && is_there && !self.deleting.contains(&topic) {
                let pair = values::group_offset(&group, topic, partition, &offset);
                let (key, value) = pair.map_err(AppendError::Invalid)?;
                committed.push((key, Some(value)));
            }
            let key = Key::TransactionOffset {
                producer_id: marker.id.0,
                group,
                topic,
                partition,
            };
            forgotten.push((key.encode(), None));
        }
        if !committed.is_empty() {
            self.place_pairs(OFFSETS, committed);
        }
        if !forgotten.is_empty() {
            self.place_pairs(METADATA, forgotten);
        }
        let next = raises_epoch.then(|| self.next_of(transaction));
        transaction.end(outcome, next, self.now_ms);
        Ok(())
    }

    /// Writes a marker, and what the partition's readers need to know of it.
    fn leave_partition(
        &mut self,
        producer: ProducerIdentity,
        id: PartitionId,
        first: Option<Offset>,
        outcome: Outcome,
    ) -> Result<(), TransactionError> {
        let producer_id = producer.id.0;
        let key = Key::InTransaction {
            producer_id,
            partition: id,
        };
        let mut pairs = vec![(key.encode(), None)];
        let partition = self.state.read().partitions.get(&id).cloned();
        // Committed offsets need no marker.
        let partition = partition.filter(|p| self.internal.get(id).is_none() && !p.is_deleted());
        if let Some(partition) = partition {
            let last = self.place_marker(&partition, producer, first, outcome);
            if let (Some(first), Outcome::Abort) = (first, outcome) {
                let key = Key::Aborted {
                    partition: id,
                    last,
                };
                let value = AbortedValue { producer_id, first };
                pairs.push((key.encode(), Some(encoded(&value)?)));
            }
        }
        self.place_pairs(METADATA, pairs);
        Ok(())
    }

    fn place_marker(
        &mut self,
        partition: &Arc<Partition>,
        producer: ProducerIdentity,
        first: Option<Offset>,
        outcome: Outcome,
    ) -> Offset {
        let (producer_id, commits) = (producer.id.0, outcome == Outcome::Commit);
        let (header, bytes) = batch::marker(producer_id, producer.epoch, commits, self.now_ms);
        let mut writer = partition.writer();
        let last = writer.next;
        writer.next = last.plus(1);
        let before = writer.producers.mark(&header, self.now_ms);
        self.group.undo.push(Undo {
            partition: partition.clone(),
            producer_id,
            before,
        });
        let slot = self.group.slot(partition, &mut writer, last, self.now_ms);
        slot.push_batch(last, &bytes, &header, self.leader_epoch);
        if let Some(first) = first {
            let aborted = (!commits).then_some(Aborted {
                producer_id,
                first,
                last,
            });
            slot.transactions.push(Event::Ended { first, aborted });
        }
        last
    }

    fn next_of(&mut self, transaction: &Transaction) -> Next {
        if transaction.is_exhausted() {
            Next::Producer(self.new_producer_id())
        } else {
            Next::Epoch
        }
    }

    fn put_transaction(
        &mut self,
        id: &str,
        transaction: Transaction,
        is_value_new: bool,
    ) -> Identified {
        if is_value_new {
            let key = Key::Transaction(id.to_owned()).encode();
            self.place_pairs(METADATA, vec![(key, Some(encoded(&transaction.value)?))]);
        }
        let identity = transaction.identity();
        let before = self.transactions.put(id, Some(Arc::new(transaction)));
        self.group.transactions.push((id.to_owned(), before));
        Ok(identity)
    }
}

fn in_transaction(transaction: &Transaction, partition: PartitionId) -> Key {
    Key::InTransaction {
        producer_id: transaction.value.producer_id,
        partition,
    }
}

fn encoded<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, TransactionError> {
    Ok(values::encode(value).map_err(AppendError::Invalid)?)
}

/// Removes what is known of aborted transactions that ended below an offset, or of all.
pub(super) fn forgotten_aborted(
    partition: &Partition,
    below: Option<Offset>,
) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let known = partition.transactions();
    let below = below.unwrap_or_else(|| partition.high_watermark());
    let keys = known.aborted_below(below).iter().map(|aborted| {
        let key = Key::Aborted {
            partition: partition.id(),
            last: aborted.last,
        };
        (key.encode(), None)
    });
    keys.collect()
}

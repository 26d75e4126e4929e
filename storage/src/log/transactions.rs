//! Transactions (KIP-98, KIP-360, KIP-890): what a transactional id stands for, and which requests its
//! state allows.
//!
//! A transaction's state, the partitions in it, the offsets it is to commit, its markers and the list of
//! what was aborted are records of one group commit each: a transaction ends in one step, durable or not
//! at all, so there is nothing between "ongoing" and "complete", and nothing to resume after a crash.
//!
//! Here are the rules, free of the log; the sequencer applies them, provisionally like everything else
//! until the fdatasync has returned.
//!
//! Limits: [`TRANSACTIONAL_ID_BYTES_MAX`], [`OFFSETS_MAX`], [`TRANSACTIONAL_IDS_MAX`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{AppendError, TransactionError};
use super::types::{CommittedOffset, Offset, PartitionId, ProducerId, TopicId};
use super::values::TransactionValue;

/// Longest transactional id.
pub const TRANSACTIONAL_ID_BYTES_MAX: usize = 1024;
/// Offsets that one transaction may commit.
pub const OFFSETS_MAX: usize = 20_000;
/// Transactional ids known at once; those without a transaction expire.
pub const TRANSACTIONAL_IDS_MAX: usize = 100_000;

/// No epoch.
pub const NO_EPOCH: i16 = -1;
/// From here on a producer gets another id instead of another epoch: the last one is for its markers.
const EPOCH_LAST: i16 = i16::MAX - 1;

/// A producer in one of its lives: id and epoch (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdentity {
    pub id: ProducerId,
    pub epoch: i16,
}

/// Where a transactional id is. Kafka's states `PrepareCommit` and `PrepareAbort` do not exist here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransactionState {
    /// Its producer has begun and sent nothing.
    Empty,
    Ongoing,
    CompleteCommit,
    CompleteAbort,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Commit,
    Abort,
}

/// What to do about an EndTxn.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// Markers are written and offsets committed, or not; the transaction is complete.
    Complete,
    /// It was done before: the same answer again.
    Done,
}

/// The offsets of a transaction by group, topic and partition.
pub type PendingOffsets = BTreeMap<(String, TopicId, i32), CommittedOffset>;

/// A transactional id and its ongoing transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub value: TransactionValue,
    /// Partitions in the ongoing transaction, with its first offset where there is one.
    pub partitions: BTreeMap<PartitionId, Option<Offset>>,
    pub offsets: PendingOffsets,
}

/// Every transactional id, as the writer thread sees it.
#[derive(Debug, Default)]
pub struct Transactions {
    by_id: HashMap<String, Arc<Transaction>>,
    by_producer: HashMap<i64, String>,
}

impl Transactions {
    pub fn get(&self, id: &str) -> Option<&Arc<Transaction>> {
        self.by_id.get(id)
    }

    /// Whose producer id it is.
    pub fn of_producer(&self, producer_id: i64) -> Option<(&str, &Arc<Transaction>)> {
        let id = self.by_producer.get(&producer_id)?;
        Some((id, self.by_id.get(id)?))
    }

    /// Puts it in place of what was known of the id, which is returned.
    pub fn put(&mut self, id: &str, now: Option<Arc<Transaction>>) -> Option<Arc<Transaction>> {
        let before = match &now {
            Some(now) => self.by_id.insert(id.to_owned(), now.clone()),
            None => self.by_id.remove(id),
        };
        if let Some(before) = &before {
            self.by_producer.remove(&before.value.producer_id);
        }
        if let Some(now) = &now {
            let producer_id = now.value.producer_id;
            self.by_producer.insert(producer_id, id.to_owned());
        }
        before
    }

    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Transaction>)> {
        self.by_id.iter().map(|(id, known)| (id.as_str(), known))
    }
}

impl Transaction {
    /// Nothing has been done under the id yet.
    pub fn new(producer_id: ProducerId, timeout_ms: u32, now_ms: u64) -> Transaction {
        Transaction {
            value: TransactionValue {
                producer_id: producer_id.0,
                epoch: 0,
                previous: (-1, NO_EPOCH),
                timeout_ms,
                state: TransactionState::Empty,
                started_ms: 0,
                changed_ms: now_ms,
            },
            partitions: BTreeMap::new(),
            offsets: PendingOffsets::new(),
        }
    }

    pub fn identity(&self) -> ProducerIdentity {
        ProducerIdentity {
            id: ProducerId(self.value.producer_id),
            epoch: self.value.epoch,
        }
    }

    pub fn is_ongoing(&self) -> bool {
        self.value.state == TransactionState::Ongoing
    }

    /// Whether another epoch would be the last one there is.
    pub fn is_exhausted(&self) -> bool {
        self.value.epoch >= EPOCH_LAST
    }

    /// Refuses a producer that is not the one of this id, or not any longer.
    pub fn check(&self, producer: ProducerIdentity) -> Result<(), TransactionError> {
        if producer.id.0 != self.value.producer_id {
            return Err(TransactionError::UnknownProducer(producer.id.0));
        }
        if producer.epoch != self.value.epoch {
            return Err(TransactionError::Fenced(producer.id.0));
        }
        Ok(())
    }

    /// Judges who begins anew under the id (InitProducerId). `true`: it was told already, and its answer
    /// was lost.
    pub fn check_begin(
        &self,
        believed: Option<ProducerIdentity>,
    ) -> Result<bool, TransactionError> {
        let Some(believed) = believed else {
            return Ok(false);
        };
        let (previous_id, previous_epoch) = self.value.previous;
        let fenced = TransactionError::Fenced(believed.id.0);
        if believed.id.0 != self.value.producer_id {
            let rotated = believed.id.0 == previous_id && believed.epoch >= EPOCH_LAST;
            return if rotated { Ok(true) } else { Err(fenced) };
        }
        if believed.epoch == self.value.epoch {
            Ok(false)
        } else if believed.epoch == previous_epoch && previous_epoch != NO_EPOCH {
            Ok(true)
        } else {
            Err(fenced)
        }
    }

    /// Begins anew: with the next epoch, or with a new producer id where there is none.
    pub fn begin_anew(&mut self, next: Next, timeout_ms: u32, is_known: bool, now_ms: u64) {
        let value = &mut self.value;
        let before = (value.producer_id, value.epoch);
        match next {
            Next::Epoch => value.epoch += 1,
            Next::Producer(id) => (value.producer_id, value.epoch) = (id.0, 0),
        }
        value.previous = if is_known {
            before
        } else {
            (before.0, NO_EPOCH)
        };
        value.timeout_ms = timeout_ms;
        value.state = TransactionState::Empty;
        value.started_ms = 0;
        value.changed_ms = now_ms;
    }

    /// A partition, or offsets, are being added: the transaction begins if it has not.
    pub fn enter(&mut self, now_ms: u64) {
        if self.is_ongoing() {
            return;
        }
        self.value.state = TransactionState::Ongoing;
        self.value.started_ms = now_ms;
        self.value.changed_ms = now_ms;
    }

    /// Judges an EndTxn. `raises_epoch`: the client knows that a transaction's end raises its epoch
    /// (EndTxn 5 and later, KIP-890).
    pub fn check_end(
        &self,
        producer: ProducerIdentity,
        outcome: Outcome,
        raises_epoch: bool,
    ) -> Result<Ending, TransactionError> {
        let told = (producer.id.0, producer.epoch);
        let value = &self.value;
        let is_complete = matches!(
            value.state,
            TransactionState::CompleteCommit | TransactionState::CompleteAbort
        );
        let again = raises_epoch && is_complete && told == value.previous;
        if !again {
            self.check(producer)?;
        }
        let ends_nothing = Err(TransactionError::State(value.state));
        match (value.state, outcome) {
            (TransactionState::Ongoing, _) => Ok(Ending::Complete),
            (TransactionState::CompleteCommit, Outcome::Commit)
            | (TransactionState::CompleteAbort, Outcome::Abort)
                if again || !raises_epoch =>
            {
                Ok(Ending::Done)
            }
            // An empty transaction, of which nothing was ever told: the epoch is raised all the same.
            (_, Outcome::Abort) if raises_epoch && !again => Ok(Ending::Complete),
            _ => ends_nothing,
        }
    }

    /// It ended; `next`: how its producer goes on, if its epoch is raised.
    pub fn end(&mut self, outcome: Outcome, next: Option<Next>, now_ms: u64) {
        let value = &mut self.value;
        let before = (value.producer_id, value.epoch);
        match next {
            Some(Next::Epoch) => value.epoch += 1,
            Some(Next::Producer(id)) => (value.producer_id, value.epoch) = (id.0, 0),
            None => {}
        }
        if next.is_some() {
            value.previous = before;
        }
        value.state = match outcome {
            Outcome::Commit => TransactionState::CompleteCommit,
            Outcome::Abort => TransactionState::CompleteAbort,
        };
        value.changed_ms = now_ms;
        self.partitions.clear();
        self.offsets.clear();
    }

    /// Adds an offset to commit at the end.
    pub fn add_offset(
        &mut self,
        place: (String, TopicId, i32),
        committed: CommittedOffset,
    ) -> Result<(), TransactionError> {
        if self.offsets.len() >= OFFSETS_MAX && !self.offsets.contains_key(&place) {
            return Err(TransactionError::TooManyOffsets);
        }
        self.offsets.insert(place, committed);
        Ok(())
    }
}

/// How a producer goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Epoch,
    Producer(ProducerId),
}

impl From<TransactionError> for AppendError {
    fn from(error: TransactionError) -> AppendError {
        match error {
            TransactionError::Append(error) => error,
            other => AppendError::Transaction(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn producer(id: i64, epoch: i16) -> ProducerIdentity {
        ProducerIdentity {
            id: ProducerId(id),
            epoch,
        }
    }

    fn begun() -> Transaction {
        let mut transaction = Transaction::new(ProducerId(7), 1000, 1);
        transaction.enter(2);
        transaction
    }

    #[test]
    fn who_is_not_the_producer_is_told_so() {
        let transaction = begun();
        assert_eq!(transaction.check(producer(7, 0)), Ok(()));
        let unknown = Err(TransactionError::UnknownProducer(8));
        assert_eq!(transaction.check(producer(8, 0)), unknown);
        let fenced = Err(TransactionError::Fenced(7));
        assert_eq!(transaction.check(producer(7, 1)), fenced);
    }

    #[test]
    fn a_producer_that_begins_anew_fences_the_one_before() {
        let mut transaction = Transaction::new(ProducerId(7), 1000, 1);
        assert_eq!(transaction.check_begin(None), Ok(false));
        transaction.begin_anew(Next::Epoch, 1000, false, 2);
        assert_eq!(transaction.identity(), producer(7, 1));
        let fenced = Err(TransactionError::Fenced(7));
        assert_eq!(transaction.check_begin(Some(producer(7, 0))), fenced);
        // One that says who it is may raise its own epoch, and ask again where the answer was lost.
        assert_eq!(transaction.check_begin(Some(producer(7, 1))), Ok(false));
        transaction.begin_anew(Next::Epoch, 1000, true, 3);
        assert_eq!(transaction.check_begin(Some(producer(7, 1))), Ok(true));
        assert_eq!(transaction.check_begin(Some(producer(7, 0))), fenced);
    }

    #[test]
    fn without_epochs_the_producer_id_changes() {
        let mut transaction = begun();
        transaction.value.epoch = i16::MAX - 2;
        assert!(!transaction.is_exhausted());
        transaction.end(Outcome::Commit, Some(Next::Epoch), 3);
        assert!(transaction.is_exhausted());
        transaction.enter(4);
        transaction.end(Outcome::Commit, Some(Next::Producer(ProducerId(9))), 5);
        assert_eq!(transaction.identity(), producer(9, 0));
        let last = producer(7, i16::MAX - 1);
        let again = transaction.check_end(last, Outcome::Commit, true);
        assert_eq!(again, Ok(Ending::Done));
        assert_eq!(transaction.check_begin(Some(last)), Ok(true));
    }

    #[test]
    fn a_transaction_ends_once() {
        use Outcome::{Abort, Commit};
        let mut old = begun();
        let me = producer(7, 0);
        assert_eq!(old.check_end(me, Commit, false), Ok(Ending::Complete));
        old.end(Commit, None, 3);
        assert_eq!(old.check_end(me, Commit, false), Ok(Ending::Done));
        let state = Err(TransactionError::State(TransactionState::CompleteCommit));
        assert_eq!(old.check_end(me, Abort, false), state);

        let mut new = begun();
        new.end(Abort, Some(Next::Epoch), 3);
        assert_eq!(new.check_end(me, Abort, true), Ok(Ending::Done));
        let state = Err(TransactionError::State(TransactionState::CompleteAbort));
        assert_eq!(new.check_end(me, Commit, true), state);
        assert_eq!(new.check_end(producer(7, 1), Commit, true), state);
        // Nothing was sent: who aborts all the same gets another epoch.
        let ending = new.check_end(producer(7, 1), Abort, true);
        assert_eq!(ending, Ok(Ending::Complete));
        let stale = new.check_end(producer(7, 2), Abort, true);
        assert_eq!(stale, Err(TransactionError::Fenced(7)));
    }

    #[test]
    fn ids_are_found_by_producer_and_put_back() {
        let mut all = Transactions::default();
        assert_eq!(all.put("a", Some(Arc::new(begun()))), None);
        let mut other = begun();
        other.end(Outcome::Abort, Some(Next::Producer(ProducerId(9))), 3);
        let before = all.put("a", Some(Arc::new(other)));
        assert_eq!(all.of_producer(7), None);
        assert_eq!(all.of_producer(9).unwrap().0, "a");
        all.put("a", before);
        assert_eq!(all.of_producer(9), None);
        assert_eq!(all.of_producer(7).unwrap().0, "a");
        all.put("a", None);
        assert_eq!((all.len(), all.of_producer(7)), (0, None));
    }
}

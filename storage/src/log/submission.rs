//! What callers hand in to the commit point, and what they wait for.
//!
//! Small records of many callers for one partition gather in one submission while it waits: it is one
//! batch already when the writer thread takes it, with one answer for all of them.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::{SetOnce, oneshot};

use super::OffsetCommit;
use super::batch::{BatchBuilder, BatchHeader, EncodedRecords};
use super::error::{
    AppendError, ChangeTopicError, CreateTopicError, DeleteTopicError, TransactionError,
};
use super::partition::Partition;
use super::topic::Topic;
use super::transactions::{Outcome, ProducerIdentity};
use super::types::{CommittedOffset, NewTopic, Offset, PartitionId, ProducerId, Record, TopicId};

/// What gathers in one batch; a group may hold many of them.
pub const GATHERED_BYTES_MAX: usize = 64 << 10;

/// What callers hand in.
pub struct Submission {
    pub work: Work,
    /// No less than what it adds to a group; admitted to the room, and given back when it is answered.
    pub bytes: usize,
}

/// Tells a caller.
pub type Reply<T, E = AppendError> = oneshot::Sender<Result<T, E>>;

/// What is to be done, and whom to tell.
pub enum Work {
    Batch {
        partition: Arc<Partition>,
        batch: Bytes,
        header: BatchHeader,
        /// Set if the batch is transactional.
        transaction: Option<Box<InTransaction>>,
        reply: Reply<Appended>,
    },
    /// Records of one caller, more than fit into a batch.
    Records {
        partition: Arc<Partition>,
        records: EncodedRecords,
        reply: Reply<Appended>,
    },
    /// Records of any number of callers.
    Gathered(Gathering),
    Scattered {
        partitions: Vec<Arc<Partition>>,
        records: EncodedRecords,
        reply: Reply<Vec<Offset>>,
    },
    /// Records of an internal partition.
    Internal {
        partition: PartitionId,
        pairs: Vec<Pair>,
        reply: Reply<()>,
    },
    CreateTopic {
        new: NewTopic,
        reply: Reply<Arc<Topic>, CreateTopicError>,
    },
    ProducerId {
        reply: Reply<ProducerId>,
    },
    /// A step of a transactional id.
    Transaction {
        id: String,
        step: Step,
        reply: Reply<ProducerIdentity, TransactionError>,
    },
    /// Ends a producer's transaction in one partition, whatever its transactional id says.
    Mark {
        partition: Arc<Partition>,
        producer: ProducerIdentity,
        outcome: Outcome,
        reply: Reply<ProducerIdentity, TransactionError>,
    },
    ChangeTopic {
        /// As its caller knows it; refused if it is another one by now.
        topic: Arc<Topic>,
        change: TopicChange,
        reply: Reply<Arc<Topic>, ChangeTopicError>,
    },
    DeleteTopic {
        topic: TopicId,
        reply: Reply<(), DeleteTopicError>,
    },
    /// Removes committed offsets, those that are still as given.
    ForgetOffsets {
        group: String,
        offsets: Vec<(TopicId, i32, CommittedOffset)>,
        reply: Reply<()>,
    },
    /// What lies below is no longer kept.
    RaiseLogStarts {
        starts: Vec<(Arc<Partition>, Offset)>,
        reply: Reply<()>,
    },
    /// Writes keys of an internal partition again, with the values they have, so that the segments
    /// that held them can go. Answers with those that are being changed just now.
    Carry {
        partition: PartitionId,
        keys: Vec<Vec<u8>>,
        reply: Reply<Vec<Vec<u8>>>,
    },
}

/// Which transaction a batch belongs to.
#[derive(Debug)]
pub struct InTransaction {
    pub id: String,
    /// Its partition is added to the transaction, and that begun, if need be (KIP-890).
    pub adds: bool,
}

/// What is asked of a transactional id.
#[derive(Debug)]
pub enum Step {
    /// A producer begins, and fences others; what they left unfinished is aborted.
    Begin {
        timeout_ms: u32,
        believed: Option<ProducerIdentity>,
    },
    /// Partitions, or a group's offsets, become part of the transaction.
    Add {
        producer: ProducerIdentity,
        partitions: Vec<Arc<Partition>>,
        offsets: bool,
    },
    /// Offsets that the transaction is to commit.
    Offsets {
        producer: ProducerIdentity,
        group: String,
        commits: Vec<OffsetCommit>,
        adds: bool,
    },
    End {
        producer: ProducerIdentity,
        outcome: Outcome,
        raises_epoch: bool,
    },
    /// Aborts the transaction if it is still the one that began then, and fences its producer.
    TimeOut { started_ms: u64 },
    /// Forgets the id if it has no transaction and has not changed since.
    Forget { changed_ms: u64 },
}

/// What becomes different about a topic.
#[derive(Debug)]
pub enum TopicChange {
    /// So many partitions in all.
    Partitions(u32),
    /// All its configurations.
    Configs(Vec<(String, String)>),
}

/// Key and value of an internal record; `None` deletes.
pub type Pair = (Vec<u8>, Option<Vec<u8>>);

/// Result of an append, handed out only after the covering fdatasync returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: Offset,
    pub log_start_offset: Offset,
    /// The time that the records got, where the topic has `message.timestamp.type=LogAppendTime`.
    pub append_time_ms: Option<u64>,
}

impl Appended {
    /// As it is for the caller whose first record is so many behind.
    fn plus(self, records: u32) -> Appended {
        Appended {
            base_offset: self.base_offset.plus(records),
            ..self
        }
    }
}

type Answer<T> = oneshot::Receiver<Result<T, AppendError>>;
type SharedAnswer = Arc<SetOnce<Result<Appended, AppendError>>>;

/// Tells every caller whose records gathered, once; also if it is dropped.
pub struct TellAll(SharedAnswer);

impl TellAll {
    pub fn tell(self, result: Result<Appended, AppendError>) {
        let _ = self.0.set(result);
    }
}

impl Drop for TellAll {
    fn drop(&mut self) {
        let _ = self.0.set(Err(AppendError::Closed));
    }
}

/// Small records for one partition, one batch of many callers.
pub struct Gathering {
    partition: Arc<Partition>,
    batch: BatchBuilder,
    tell: TellAll,
}

impl Gathering {
    /// Begun with one caller's records.
    pub fn new(
        partition: Arc<Partition>,
        records: &[Record],
        bytes: usize,
    ) -> (Gathering, Appending) {
        let gathering = Gathering {
            partition,
            batch: batch_of(records, bytes),
            tell: TellAll(SharedAnswer::default()),
        };
        let appending = Appending::gathered(&gathering.tell.0, 0);
        (gathering, appending)
    }

    fn add(&mut self, records: &[Record]) -> Appending {
        let appending = Appending::gathered(&self.tell.0, self.batch.records());
        records.iter().for_each(|r| self.batch.push_record(r));
        appending
    }

    /// No more is added.
    pub fn end(mut self) -> (Arc<Partition>, BatchBuilder, TellAll) {
        self.batch.shrink();
        (self.partition, self.batch, self.tell)
    }
}

/// A batch of these records, unfinished.
pub fn batch_of(records: &[Record], bytes: usize) -> BatchBuilder {
    let first_timestamp_ms = records.first().map_or(0, |record| record.timestamp_ms);
    let mut builder = BatchBuilder::new(first_timestamp_ms, bytes);
    records.iter().for_each(|r| builder.push_record(r));
    builder
}

impl Submission {
    /// Adds records of `bytes` bytes to it, if it gathers them for this partition and has room: it was
    /// admitted with more than it holds, or `admitted` bytes come with the records.
    pub fn join(
        &mut self,
        partition: &Arc<Partition>,
        records: &[Record],
        bytes: usize,
        admitted: usize,
        batch_bytes_max: usize,
    ) -> Option<Appending> {
        let Work::Gathered(gathering) = &mut self.work else {
            return None;
        };
        let then = gathering.batch.bytes() + bytes;
        let fits = then <= batch_bytes_max.min(GATHERED_BYTES_MAX) && then <= self.bytes + admitted;
        if !fits || !Arc::ptr_eq(&gathering.partition, partition) {
            return None;
        }
        if gathering.batch.records() == 1 {
            // More will come: all of what was admitted, at once.
            gathering.batch.reserve(self.bytes);
        }
        self.bytes += admitted;
        Some(gathering.add(records))
    }
}

impl Work {
    /// The log takes no more of it.
    pub fn refuse(self, error: &AppendError) {
        let error = error.clone();
        match self {
            Work::Batch { reply, .. } | Work::Records { reply, .. } => drop(reply.send(Err(error))),
            Work::Gathered(gathering) => gathering.tell.tell(Err(error)),
            Work::Scattered { reply, .. } => drop(reply.send(Err(error))),
            Work::CreateTopic { reply, .. } => drop(reply.send(Err(error.into()))),
            Work::ChangeTopic { reply, .. } => drop(reply.send(Err(error.into()))),
            Work::ProducerId { reply } => drop(reply.send(Err(error))),
            Work::Transaction { reply, .. } | Work::Mark { reply, .. } => {
                drop(reply.send(Err(error.into())));
            }
            Work::DeleteTopic { reply, .. } => drop(reply.send(Err(error.into()))),
            Work::Internal { reply, .. }
            | Work::ForgetOffsets { reply, .. }
            | Work::RaiseLogStarts { reply, .. } => drop(reply.send(Err(error))),
            Work::Carry { reply, .. } => drop(reply.send(Err(error))),
        }
    }

    /// Partitions that get records by it.
    pub fn partitions(&self) -> &[Arc<Partition>] {
        match self {
            Work::Batch { partition, .. } | Work::Records { partition, .. } => {
                std::slice::from_ref(partition)
            }
            Work::Gathered(gathering) => std::slice::from_ref(&gathering.partition),
            Work::Scattered { partitions, .. } => partitions,
            _ => &[],
        }
    }
}

/// An append that is queued, in order, and waits for its fdatasync. Dropping it does not undo it.
pub struct Appending(Waiting);

enum Waiting {
    Alone(Answer<Appended>),
    /// Together with others, from this record of the batch on.
    Gathered(Arc<SharedAnswer>, u32),
    /// The same, and it has waited.
    Told(Pin<Box<Telling>>, u32),
}

type Telling = dyn Future<Output = Result<Appended, AppendError>> + Send + Sync;

thread_local! {
    /// The answer that this thread's last append waits for. Callers of one thread share it: cores
    /// that count the same references would wait for each other at every append.
    static LAST: RefCell<Option<Arc<SharedAnswer>>> = const { RefCell::new(None) };
}

/// See [`super::Log::append_all`].
#[derive(Debug)]
pub struct AppendingAll(WaitingAll);

#[derive(Debug)]
enum WaitingAll {
    One(Appending),
    Scattered(Answer<Vec<Offset>>),
}

impl Appending {
    pub(super) fn alone(answer: Answer<Appended>) -> Appending {
        Appending(Waiting::Alone(answer))
    }

    fn gathered(answer: &SharedAnswer, first: u32) -> Appending {
        let answer = LAST.with_borrow_mut(|last| match last {
            Some(last) if Arc::ptr_eq(last.as_ref(), answer) => last.clone(),
            _ => last.insert(Arc::new(answer.clone())).clone(),
        });
        Appending(Waiting::Gathered(answer, first))
    }
}

impl fmt::Debug for Appending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appending").finish_non_exhaustive()
    }
}

impl AppendingAll {
    /// Of a single record.
    pub(super) fn one(appending: Appending) -> AppendingAll {
        AppendingAll(WaitingAll::One(appending))
    }

    pub(super) fn scattered(answer: Answer<Vec<Offset>>) -> AppendingAll {
        AppendingAll(WaitingAll::Scattered(answer))
    }
}

impl Future for Appending {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Waiting::Gathered(answer, first) = &self.0 {
            if let Some(answer) = answer.get() {
                return Poll::Ready(answer.clone().map(|appended| appended.plus(*first)));
            }
            let answer = SharedAnswer::clone(answer);
            let telling = Box::pin(async move { answer.wait().await.clone() });
            self.0 = Waiting::Told(telling, *first);
        }
        match &mut self.0 {
            Waiting::Told(telling, first) => {
                let first = *first;
                let told = telling.as_mut().poll(cx);
                told.map_ok(|appended| appended.plus(first))
            }
            Waiting::Alone(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(AppendError::Closed))),
            Waiting::Gathered(..) => Poll::Pending,
        }
    }
}

impl Future for AppendingAll {
    type Output = Result<Vec<Offset>, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            WaitingAll::One(appending) => Pin::new(appending)
                .poll(cx)
                .map_ok(|appended| vec![appended.base_offset]),
            WaitingAll::Scattered(answer) => Pin::new(answer)
                .poll(cx)
                .map(|answer| answer.unwrap_or(Err(AppendError::Closed))),
        }
    }
}

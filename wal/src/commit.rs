//! Group commit: many callers, one writer thread, one fdatasync a group.
//!
//! While one group is being written and made durable, whatever callers submit gathers in the queue
//! and becomes the next group. There is no timer: an idle log commits a lone submission at once, a
//! busy one commits as much as arrived during the last fdatasync.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::WalError;
use crate::writer::{Group, Placed, Retired, Writer};

/// The layer above, called on the writer thread only.
pub trait Sequencer: Send + 'static {
    /// What callers hand in.
    type Submission: Send + 'static;

    /// Takes submissions from the front of `queue` into `group`, and fixes what only their order
    /// decides. What it fixes stays provisional until [`Sequencer::durable`]. Must take at least one.
    /// Returns whether the group should begin a new segment.
    fn close_group(&mut self, queue: &mut VecDeque<Self::Submission>, group: &mut Group) -> bool;

    /// The group is on disk (`None`: it had no bytes): make it visible and answer the callers.
    fn durable(&mut self, placed: Option<&Placed>);

    /// Nothing of the group is in the log: take back what was provisional and answer the callers.
    fn failed(&mut self, error: &WalError);

    /// Answers a submission that came after the log had failed for good.
    fn reject(&mut self, submission: Self::Submission, error: &WalError);

    /// A segment is full, and durable to its end.
    fn retired(&mut self, retired: Retired);
}

struct Shared<S> {
    queue: Mutex<Queue<S>>,
    arrived: Condvar,
}

struct Queue<S> {
    waiting: VecDeque<S>,
    closing: bool,
    /// The writer sleeps; only then does a submission have to wake it.
    idle: bool,
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands submissions to the writer thread. The queue has no bound of its own: the layer above
/// bounds the bytes in flight, because only it can let a caller wait.
pub struct Submitter<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Submitter<S> {
    fn clone(&self) -> Self {
        Submitter {
            shared: self.shared.clone(),
        }
    }
}

impl<S> Submitter<S> {
    /// Queues a submission; gives it back if the wal is closed.
    pub fn submit(&self, submission: S) -> Result<(), S> {
        let mut queue = self.shared.lock();
        if queue.closing {
            return Err(submission);
        }
        queue.waiting.push_back(submission);
        let wake = std::mem::take(&mut queue.idle);
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
        Ok(())
    }
}

/// The writer thread.
pub struct GroupCommit<S: Sequencer> {
    shared: Arc<Shared<S::Submission>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: Sequencer> GroupCommit<S> {
    /// Starts the thread.
    pub fn start(writer: Writer, sequencer: S) -> std::io::Result<GroupCommit<S>> {
        let queue = Queue {
            waiting: VecDeque::new(),
            closing: false,
            idle: false,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
        });
        let worker = Worker {
            shared: shared.clone(),
            writer,
            sequencer,
            group: Group::default(),
        };
        let thread = std::thread::Builder::new()
            .name("wal-writer".into())
            .spawn(move || worker.run())?;
        Ok(GroupCommit {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// A handle for callers.
    pub fn submitter(&self) -> Submitter<S::Submission> {
        Submitter {
            shared: self.shared.clone(),
        }
    }

    /// Refuses new submissions, finishes the queued ones, retires the head segment, ends the thread.
    pub fn close(&self) {
        self.shared.lock().closing = true;
        self.shared.arrived.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl<S: Sequencer> Drop for GroupCommit<S> {
    fn drop(&mut self) {
        self.close();
    }
}

struct Worker<S: Sequencer> {
    shared: Arc<Shared<S::Submission>>,
    writer: Writer,
    sequencer: S,
    group: Group,
}

impl<S: Sequencer> Worker<S> {
    fn run(mut self) {
        let mut poison: Option<WalError> = None;
        let mut taken = VecDeque::new();
        while self.take(&mut taken) {
            while !taken.is_empty() {
                if let Some(error) = &poison {
                    for submission in taken.drain(..) {
                        self.sequencer.reject(submission, error);
                    }
                    break;
                }
                if let Err(error) = self.commit(&mut taken) {
                    self.sequencer.failed(&error);
                    if matches!(error, WalError::Poisoned { .. }) {
                        tracing::error!(%error, "the log takes no more writes");
                        poison = Some(error);
                    }
                }
            }
        }
        if let Some(retired) = self.writer.close() {
            self.sequencer.retired(retired);
        }
    }

    /// Waits for submissions; `false` when the wal is closing and nothing is left.
    fn take(&self, taken: &mut VecDeque<S::Submission>) -> bool {
        let mut queue = self.shared.lock();
        loop {
            if !queue.waiting.is_empty() {
                std::mem::swap(taken, &mut queue.waiting);
                return true;
            }
            if queue.closing {
                return false;
            }
            queue.idle = true;
            queue = self
                .shared
                .arrived
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.idle = false;
        }
    }

    fn commit(&mut self, taken: &mut VecDeque<S::Submission>) -> Result<(), WalError> {
        self.group.clear();
        if self.sequencer.close_group(taken, &mut self.group) {
            self.writer.roll_before_next();
        }
        if self.group.is_empty() {
            self.sequencer.durable(None);
            return Ok(());
        }
        let placed = self.writer.write(&self.group);
        for retired in self.writer.take_retired() {
            self.sequencer.retired(retired);
        }
        let placed = placed?;
        self.writer.sync()?;
        self.sequencer.durable(Some(&placed));
        Ok(())
    }
}

//! Group commit: many callers, one writer thread, one fdatasync a group.
//!
//! While one group is being written and made durable, whatever callers submit gathers in the queue
//! and becomes the next group. Callers who wait for an answer before they go on come back in a
//! crowd just after a group was answered; closing the next group at that moment would split them
//! into two half-empty groups for ever. So the writer waits for as many submissions as were
//! outstanding when the last group was answered, but no longer than a quarter of what the last
//! fdatasync took, and not at all once a full group is there. A lone caller never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
    /// As the callers count them.
    bytes: usize,
    closing: bool,
    /// What the sleeping writer wants to be woken for; `None` while it works.
    wanted: Option<Wanted>,
}

#[derive(Clone, Copy)]
struct Wanted {
    submissions: usize,
    bytes: usize,
}

impl<S> Queue<S> {
    fn has(&self, wanted: Wanted) -> bool {
        self.closing || self.waiting.len() >= wanted.submissions || self.bytes >= wanted.bytes
    }
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
    /// Queues a submission of about `bytes` bytes; gives it back if the wal is closed.
    pub fn submit(&self, submission: S, bytes: usize) -> Result<(), S> {
        let mut queue = self.shared.lock();
        if queue.closing {
            return Err(submission);
        }
        queue.waiting.push_back(submission);
        queue.bytes += bytes;
        let wake = queue.wanted.is_some_and(|wanted| queue.has(wanted));
        if wake {
            queue.wanted = None;
        }
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
    /// Starts the thread. It does not wait for company once `group_bytes` are queued.
    pub fn start(
        writer: Writer,
        sequencer: S,
        group_bytes: usize,
    ) -> std::io::Result<GroupCommit<S>> {
        let queue = Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            closing: false,
            wanted: None,
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
            group_bytes,
            answered: 0,
            patience: Duration::ZERO,
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

/// However the thread ends, nobody waits for it afterwards: what is queued is dropped, and with it
/// every caller's answer.
impl<S: Sequencer> Drop for Worker<S> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        queue.waiting.clear();
    }
}

struct Worker<S: Sequencer> {
    shared: Arc<Shared<S::Submission>>,
    writer: Writer,
    sequencer: S,
    group: Group,
    group_bytes: usize,
    /// Submissions in the last group.
    answered: usize,
    /// How long the next group may wait for company.
    patience: Duration,
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
    fn take(&mut self, taken: &mut VecDeque<S::Submission>) -> bool {
        let mut queue = self.shared.lock();
        let outstanding = std::mem::take(&mut self.answered) + queue.waiting.len();
        queue = self.wait(
            queue,
            Wanted {
                submissions: 1,
                bytes: usize::MAX,
            },
            None,
        );
        let crowd = Wanted {
            submissions: outstanding,
            bytes: self.group_bytes,
        };
        queue = self.wait(queue, crowd, Some(self.patience));
        std::mem::swap(taken, &mut queue.waiting);
        queue.bytes = 0;
        !taken.is_empty()
    }

    fn wait<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue<S::Submission>>,
        wanted: Wanted,
        patience: Option<Duration>,
    ) -> MutexGuard<'a, Queue<S::Submission>> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        while !queue.has(wanted) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            queue.wanted = Some(wanted);
            queue = match left {
                None => self
                    .shared
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.shared.arrived.wait_timeout(queue, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue.wanted = None;
        }
        queue
    }

    fn commit(&mut self, taken: &mut VecDeque<S::Submission>) -> Result<(), WalError> {
        self.group.clear();
        let before = taken.len();
        let roll = self.sequencer.close_group(taken, &mut self.group);
        self.answered += before - taken.len();
        if roll {
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
        let begun = Instant::now();
        self.writer.sync()?;
        self.patience = begun.elapsed() / 4;
        self.sequencer.durable(Some(&placed));
        Ok(())
    }
}

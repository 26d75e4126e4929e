//! What waits for the writer thread: submissions of callers, and the ends of fdatasyncs.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sync::Synced;
use crate::writer::PendingSync;

/// Between callers, the writer thread and the sync thread.
pub struct Shared<S> {
    queue: Mutex<Queue<S>>,
    /// Wakes the writer thread.
    arrived: Condvar,
    /// Wakes the sync thread.
    asked: Condvar,
}

pub struct Queue<S> {
    pub waiting: VecDeque<Queued<S>>,
    pub bytes: usize,
    pub closing: bool,
    /// What the sync thread does next; what covers more takes its place until it is begun.
    pub to_sync: Option<PendingSync>,
    /// What it has done, in order.
    pub synced: Vec<Synced>,
    /// It is to end.
    pub sync_ends: bool,
    /// What the sleeping writer is to be woken for; `None` while it works.
    wanted: Wanted,
}

/// Either number of the load, or the wal's closing; and always the end of an fdatasync.
pub type Wanted = Option<Load>;

pub struct Queued<S> {
    submission: S,
    /// As its caller counts them.
    bytes: usize,
}

/// Submissions and their bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    pub submissions: usize,
    pub bytes: usize,
}

impl Load {
    pub fn plus(self, other: Load) -> Load {
        Load {
            submissions: self.submissions.saturating_add(other.submissions),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub fn minus(self, other: Load) -> Load {
        Load {
            submissions: self.submissions.saturating_sub(other.submissions),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    pub fn max(self, other: Load) -> Load {
        Load {
            submissions: self.submissions.max(other.submissions),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

impl<S> Default for Shared<S> {
    fn default() -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            closing: false,
            to_sync: None,
            synced: Vec::new(),
            sync_ends: false,
            wanted: None,
        };
        Shared {
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
            asked: Condvar::new(),
        }
    }
}

impl<S> Queue<S> {
    pub fn load(&self) -> Load {
        Load {
            submissions: self.waiting.len(),
            bytes: self.bytes,
        }
    }

    pub fn has(&self, wanted: Wanted) -> bool {
        let enough = |load: Load| {
            self.closing || self.waiting.len() >= load.submissions || self.bytes >= load.bytes
        };
        !self.synced.is_empty() || wanted.is_some_and(enough)
    }
}

impl<S> Shared<S> {
    pub fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses further submissions.
    pub fn close(&self) {
        self.lock().closing = true;
        self.arrived.notify_one();
    }

    /// The writer thread sleeps until the queue has what is `wanted`.
    pub fn wait<'a>(
        &self,
        mut queue: MutexGuard<'a, Queue<S>>,
        wanted: Wanted,
        patience: Option<Duration>,
    ) -> MutexGuard<'a, Queue<S>> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        while !queue.has(wanted) {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                break;
            }
            queue.wanted = wanted;
            queue = match left {
                None => self
                    .arrived
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let woken = self.arrived.wait_timeout(queue, left);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            queue.wanted = None;
        }
        queue
    }

    /// The writer thread asks for an fdatasync.
    pub fn ask_sync(&self, pending: PendingSync) {
        self.lock().to_sync = Some(pending);
        self.asked.notify_one();
    }

    /// The sync thread sleeps until it is asked; `None`: it is to end.
    pub fn next_sync(&self) -> Option<PendingSync> {
        let mut queue = self.lock();
        loop {
            if queue.sync_ends {
                return None;
            }
            if let Some(pending) = queue.to_sync.take() {
                return Some(pending);
            }
            queue = self
                .asked
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The sync thread tells what came of an fdatasync.
    pub fn tell_synced(&self, synced: Synced) {
        self.lock().synced.push(synced);
        self.arrived.notify_one();
    }

    /// The sync thread has nothing more to do.
    pub fn end_sync(&self) {
        self.lock().sync_ends = true;
        self.asked.notify_one();
    }
}

/// Hands submissions to the writer thread. The queue has no bound of its own: the layer above
/// bounds the bytes in flight, because only it can let a caller wait.
pub struct Submitter<S> {
    pub(super) shared: Arc<Shared<S>>,
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
        queue.waiting.push_back(Queued { submission, bytes });
        queue.bytes += bytes;
        let wake = queue.wanted.is_some() && queue.has(queue.wanted);
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

/// Submissions out of the queue, not yet in a group.
pub struct Taken<S> {
    queued: VecDeque<Queued<S>>,
    pub load: Load,
}

impl<S> Default for Taken<S> {
    fn default() -> Self {
        Taken {
            queued: VecDeque::new(),
            load: Load::default(),
        }
    }
}

impl<S> Taken<S> {
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    pub fn take(&mut self, queue: &mut Queue<S>) {
        self.load = self.load.plus(queue.load());
        queue.bytes = 0;
        if self.queued.is_empty() {
            std::mem::swap(&mut self.queued, &mut queue.waiting);
        } else {
            self.queued.append(&mut queue.waiting);
        }
    }

    /// The first one, and those behind it that fit into `bytes` with it.
    pub fn up_to(&self, bytes: usize) -> Load {
        let mut load = Load::default();
        for queued in &self.queued {
            if load.submissions > 0 && load.bytes + queued.bytes > bytes {
                break;
            }
            load.submissions += 1;
            load.bytes += queued.bytes;
        }
        load
    }

    /// Removes what [`Taken::up_to`] counted.
    pub fn remove(&mut self, load: Load) -> impl Iterator<Item = S> {
        self.load = self.load.minus(load);
        let count = load.submissions.min(self.queued.len());
        self.queued.drain(..count).map(|queued| queued.submission)
    }
}

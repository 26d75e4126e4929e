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
    /// Of all that waits.
    pub load: Load,
    /// Number of the first one that waits.
    first: u64,
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
    load: Load,
}

/// Calls, and their bytes as the callers count them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Load {
    pub calls: usize,
    pub bytes: usize,
}

impl Load {
    pub fn plus(self, other: Load) -> Load {
        Load {
            calls: self.calls.saturating_add(other.calls),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    pub fn minus(self, other: Load) -> Load {
        Load {
            calls: self.calls.saturating_sub(other.calls),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    pub fn max(self, other: Load) -> Load {
        Load {
            calls: self.calls.max(other.calls),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

impl<S> Default for Shared<S> {
    fn default() -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            load: Load::default(),
            first: 0,
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
    pub fn has(&self, wanted: Wanted) -> bool {
        let enough = |load: Load| {
            self.closing || self.load.calls >= load.calls || self.load.bytes >= load.bytes
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
    /// Queues a submission of about `bytes` bytes and tells its number, which is higher than all
    /// before; gives it back if the wal is closed.
    pub fn submit(&self, submission: S, bytes: usize) -> Result<u64, S> {
        let mut queue = self.shared.lock();
        if queue.closing {
            return Err(submission);
        }
        let load = Load { calls: 1, bytes };
        queue.waiting.push_back(Queued { submission, load });
        let number = queue.first + queue.waiting.len() as u64 - 1;
        self.count(queue, load);
        Ok(number)
    }

    /// Adds a call of about `bytes` bytes to a submission that waits still, where `join` can; the
    /// queue is locked meanwhile.
    pub fn join<R>(
        &self,
        number: u64,
        bytes: usize,
        join: impl FnOnce(&mut S) -> Option<R>,
    ) -> Option<R> {
        let mut queue = self.shared.lock();
        let place = usize::try_from(number.checked_sub(queue.first)?).ok()?;
        let queued = queue.waiting.get_mut(place)?;
        let joined = join(&mut queued.submission)?;
        let load = Load { calls: 1, bytes };
        queued.load = queued.load.plus(load);
        self.count(queue, load);
        Some(joined)
    }

    /// Something was added to the queue; the writer thread is woken if that is what it waits for.
    fn count(&self, mut queue: MutexGuard<'_, Queue<S>>, load: Load) {
        queue.load = queue.load.plus(load);
        let wake = queue.wanted.is_some() && queue.has(queue.wanted);
        if wake {
            queue.wanted = None;
        }
        drop(queue);
        if wake {
            self.shared.arrived.notify_one();
        }
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
        self.load = self.load.plus(std::mem::take(&mut queue.load));
        queue.first += queue.waiting.len() as u64;
        if self.queued.is_empty() {
            std::mem::swap(&mut self.queued, &mut queue.waiting);
        } else {
            self.queued.append(&mut queue.waiting);
        }
    }

    /// The first submission, and those behind it that fit into `bytes` with it: how many, and their
    /// load.
    pub fn up_to(&self, bytes: usize) -> (usize, Load) {
        let mut load = Load::default();
        let fits = |queued: &&Queued<S>| {
            let fits = load.calls == 0 || load.bytes + queued.load.bytes <= bytes;
            load = if fits { load.plus(queued.load) } else { load };
            fits
        };
        (self.queued.iter().take_while(fits).count(), load)
    }

    /// Removes the first `submissions`, which have this load.
    pub fn remove(&mut self, submissions: usize, load: Load) -> impl Iterator<Item = S> {
        self.load = self.load.minus(load);
        self.queued
            .drain(..submissions)
            .map(|queued| queued.submission)
    }
}

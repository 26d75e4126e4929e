//! Group commit: many callers, one writer thread, one fdatasync a group.
//!
//! While one group is made durable, whatever callers submit gathers in the queue and becomes the next
//! group. Three rules decide when a group is closed:
//!
//! - *The crowd.* Callers who wait for an answer before they go on come back in a crowd just after a
//!   group was answered; closing the next group at that moment would split them into two half-empty
//!   groups for ever. So an idle writer waits for as many submissions as were answered last, but no
//!   longer than a quarter of what the last fdatasync took. A lone caller never waits.
//! - *Halves.* An fdatasync costs a fixed time and then the disk's bandwidth. Where more than twice
//!   [`AHEAD_BYTES`] are in flight, callers are kept in two halves: one half is sequenced and written
//!   while the other half's fdatasync runs on a thread of its own, so that the disk never waits for
//!   the processor. Below that the fixed time would be paid twice, and a group is made durable on the
//!   writer thread itself, which saves two hand-overs.
//! - *At most one ahead.* One group is being made durable, one is written behind it, no more: what
//!   comes later waits in the queue and makes the next group larger.
//!
//! Groups become durable, and are answered, in the order they were closed. A write that fails takes
//! back its own group, which is always the newest; a failed fdatasync takes back every open group,
//! newest first, and is final.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::WalError;
use crate::writer::{Group, PendingSync, Placed, Retired, Writer};

/// A group of fewer bytes is not worth an fdatasync of its own beside another one.
pub const AHEAD_BYTES: usize = 256 << 10;

/// The layer above, called on the writer thread only.
pub trait Sequencer: Send + 'static {
    /// What callers hand in.
    type Submission: Send + 'static;

    /// What the layer above must remember of a group until it is durable.
    type Closed: Send + 'static;

    /// Turns submissions into `group`, and fixes what only their order decides. What it fixes stays
    /// provisional until [`Sequencer::durable`]; an earlier group may still be provisional too.
    fn close_group(
        &mut self,
        submissions: impl Iterator<Item = Self::Submission>,
        group: &mut Group,
    ) -> Self::Closed;

    /// The head segment holds enough; the group just closed should begin a new one.
    fn wants_new_segment(&self) -> bool;

    /// The oldest open group is on disk (`None`: it had no bytes): make it visible and answer the
    /// callers.
    fn durable(&mut self, closed: Self::Closed, placed: Option<&Placed>);

    /// The newest open group is not in the log: take back what was provisional and answer the callers.
    fn failed(&mut self, closed: Self::Closed, error: &WalError);

    /// Answers a submission that came after the log had failed for good.
    fn reject(&mut self, submission: Self::Submission, error: &WalError);

    /// A segment is full, and durable to its end. `unwritten` is the one group that may be open.
    fn retired(&mut self, retired: Retired, unwritten: Option<&Self::Closed>);
}

struct Shared<S> {
    queue: Mutex<Queue<S>>,
    arrived: Condvar,
}

struct Queue<S> {
    waiting: VecDeque<Queued<S>>,
    bytes: usize,
    closing: bool,
    /// What the sync thread has to say.
    synced: Option<Synced>,
    /// What the sleeping writer is to be woken for; `None` while it works.
    wanted: Wanted,
}

/// Either number of the load, or the wal's closing; and always the end of an fdatasync.
type Wanted = Option<Load>;

struct Queued<S> {
    submission: S,
    /// As its caller counts them.
    bytes: usize,
}

struct Synced {
    result: io::Result<()>,
    took: Duration,
}

/// Submissions and their bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    submissions: usize,
    bytes: usize,
}

impl Load {
    fn plus(self, other: Load) -> Load {
        Load {
            submissions: self.submissions.saturating_add(other.submissions),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Load) -> Load {
        Load {
            submissions: self.submissions.saturating_sub(other.submissions),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn max(self, other: Load) -> Load {
        Load {
            submissions: self.submissions.max(other.submissions),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

impl<S> Queue<S> {
    fn load(&self) -> Load {
        Load {
            submissions: self.waiting.len(),
            bytes: self.bytes,
        }
    }

    fn has(&self, wanted: Wanted) -> bool {
        let enough = |load: Load| {
            self.closing || self.waiting.len() >= load.submissions || self.bytes >= load.bytes
        };
        self.synced.is_some() || wanted.is_some_and(enough)
    }
}

impl<S> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the queue has what is `wanted`.
    fn wait<'a>(
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

/// The writer thread.
pub struct GroupCommit<S: Sequencer> {
    shared: Arc<Shared<S::Submission>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: Sequencer> GroupCommit<S> {
    /// Starts the thread. A group takes no further submission beyond `group_bytes`; one submission
    /// alone may exceed it.
    pub fn start(
        writer: Writer,
        sequencer: S,
        group_bytes: usize,
    ) -> std::io::Result<GroupCommit<S>> {
        let queue = Queue {
            waiting: VecDeque::new(),
            bytes: 0,
            closing: false,
            synced: None,
            wanted: None,
        };
        let shared = Arc::new(Shared {
            queue: Mutex::new(queue),
            arrived: Condvar::new(),
        });
        let worker = Worker {
            shared: shared.clone(),
            syncer: Syncer::start(shared.clone())?,
            writer,
            sequencer,
            group: Group::default(),
            group_bytes,
            taken: Taken::default(),
            open: VecDeque::new(),
            syncing: None,
            crowd: Load::default(),
            patience: Duration::ZERO,
            poison: None,
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

/// The thread that calls fdatasync while the writer thread prepares the next group.
struct Syncer {
    asks: Option<Sender<PendingSync>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    fn start<S: Send + 'static>(shared: Arc<Shared<S>>) -> io::Result<Syncer> {
        let (ask, asks) = channel::<PendingSync>();
        let work = move || {
            for pending in asks {
                let synced = Synced::by(&pending);
                shared.lock().synced = Some(synced);
                shared.arrived.notify_one();
            }
        };
        let thread = std::thread::Builder::new()
            .name("wal-sync".into())
            .spawn(work)?;
        Ok(Syncer {
            asks: Some(ask),
            thread: Some(thread),
        })
    }

    /// Gives the work back if the thread has ended.
    fn ask(&self, pending: PendingSync) -> Result<(), PendingSync> {
        match &self.asks {
            Some(asks) => asks.send(pending).map_err(|refused| refused.0),
            None => Err(pending),
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Synced {
    fn by(pending: &PendingSync) -> Synced {
        let begun = Instant::now();
        let result = pending.run();
        Synced {
            result,
            took: begun.elapsed(),
        }
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
    syncer: Syncer,
    writer: Writer,
    sequencer: S,
    group: Group,
    group_bytes: usize,
    /// Out of the queue, not yet in a group.
    taken: Taken<S::Submission>,
    /// Closed groups that are not durable, oldest first.
    open: VecDeque<OpenGroup<S::Closed>>,
    syncing: Option<Syncing>,
    /// What is queued or at callers who were just answered: the submissions to be expected.
    crowd: Load,
    /// How long an idle writer waits for the crowd.
    patience: Duration,
    poison: Option<WalError>,
}

struct Taken<S> {
    queued: VecDeque<Queued<S>>,
    load: Load,
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
    fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    fn take(&mut self, queue: &mut Queue<S>) {
        self.load = self.load.plus(queue.load());
        queue.bytes = 0;
        if self.queued.is_empty() {
            std::mem::swap(&mut self.queued, &mut queue.waiting);
        } else {
            self.queued.append(&mut queue.waiting);
        }
    }

    /// The first one, and those behind it that fit into `bytes` with it.
    fn up_to(&self, bytes: usize) -> Load {
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
    fn remove(&mut self, load: Load) -> impl Iterator<Item = S> {
        self.load = self.load.minus(load);
        let count = load.submissions.min(self.queued.len());
        self.queued.drain(..count).map(|queued| queued.submission)
    }
}

struct OpenGroup<C> {
    closed: C,
    /// `None`: it had no bytes, and waits only for the groups before it.
    placed: Option<Placed>,
    load: Load,
}

/// The fdatasync that is running on its thread.
struct Syncing {
    pending: PendingSync,
    /// How many of the open groups it covers, from the oldest.
    groups: usize,
}

enum Step {
    /// An fdatasync has returned.
    Synced(Synced),
    /// Submissions wait in `taken`.
    Close,
    /// The wal is closing and nothing is left to do.
    End,
}

const ANYTHING: Load = Load {
    submissions: 1,
    bytes: usize::MAX,
};

impl<S: Sequencer> Worker<S> {
    fn run(mut self) {
        loop {
            match self.next_step() {
                Step::Synced(synced) => {
                    if let Err(error) = self.settle(synced) {
                        self.give_up(None, error);
                    }
                }
                Step::Close => match self.poison.clone() {
                    Some(error) => {
                        for submission in self.taken.remove(self.taken.load) {
                            self.sequencer.reject(submission, &error);
                        }
                    }
                    None => self.commit(),
                },
                Step::End => break,
            }
        }
        if let Some(retired) = self.writer.close() {
            self.sequencer.retired(retired, None);
        }
    }

    /// Sleeps until there is something to do.
    fn next_step(&mut self) -> Step {
        let shared = self.shared.clone();
        let mut queue = shared.lock();
        if let Some(syncing) = &self.syncing {
            let mut enough = false;
            if self.open.len() == syncing.groups && !queue.closing {
                let target = self.group_target(queue.load());
                let wanted = Load {
                    submissions: usize::MAX,
                    bytes: target.saturating_sub(self.taken.load.bytes),
                };
                queue = shared.wait(queue, Some(wanted), None);
                enough = queue.bytes >= wanted.bytes;
            }
            if !enough {
                queue = shared.wait(queue, None, None);
            }
            if let Some(synced) = queue.synced.take() {
                return Step::Synced(synced);
            }
        } else {
            if self.taken.is_empty() {
                queue = shared.wait(queue, Some(ANYTHING), None);
            }
            let crowd = Load {
                submissions: self.crowd.submissions,
                bytes: self.group_target(queue.load()),
            };
            let wanted = Some(crowd.minus(self.taken.load));
            queue = shared.wait(queue, wanted, Some(self.patience));
            if !queue.has(wanted) {
                // Who has not come back by now is not waited for again.
                self.crowd = self.taken.load.plus(queue.load());
            }
        }
        self.taken.take(&mut queue);
        if self.taken.is_empty() {
            Step::End
        } else {
            Step::Close
        }
    }

    /// Bytes at which a group is worth closing while another one is made durable, and at which it is
    /// cut: half of what is in flight, or no bound but the configured one where that is little.
    fn group_target(&self, queued: Load) -> usize {
        let here = self.taken.load.plus(queued);
        let open: usize = self.open.iter().map(|group| group.load.bytes).sum();
        let in_flight = open.saturating_add(self.crowd.max(here).bytes);
        if in_flight < 2 * AHEAD_BYTES {
            self.group_bytes
        } else {
            (in_flight / 2).min(self.group_bytes)
        }
    }

    fn commit(&mut self) {
        let cut = self.group_target(Load::default());
        let load = self.taken.up_to(cut);
        self.group.clear();
        let closed = self
            .sequencer
            .close_group(self.taken.remove(load), &mut self.group);
        self.crowd = self.crowd.minus(load);
        if self.group.is_empty() {
            self.open.push_back(OpenGroup {
                closed,
                placed: None,
                load,
            });
            self.answer_empty_groups();
            return;
        }
        if self.sequencer.wants_new_segment() {
            self.writer.roll_before_next();
        }
        if self.writer.must_settle_before(&self.group)
            && let Err(error) = self.settle_all()
        {
            self.give_up(Some(closed), error);
            return;
        }
        let written = self.writer.write(&self.group);
        for retired in self.writer.take_retired() {
            self.sequencer.retired(retired, Some(&closed));
        }
        match written {
            Ok(placed) => self.open.push_back(OpenGroup {
                closed,
                placed: Some(placed),
                load,
            }),
            Err(error @ WalError::Poisoned { .. }) => return self.give_up(Some(closed), error),
            Err(error) => return self.sequencer.failed(closed, &error),
        }
        if self.syncing.is_none()
            && let Err(error) = self.sync(load.bytes >= AHEAD_BYTES)
        {
            self.give_up(None, error);
        }
    }

    /// Makes every open group durable: on the sync thread if `ahead` another group is to be written
    /// meanwhile, else here and now.
    fn sync(&mut self, ahead: bool) -> Result<(), WalError> {
        let Some(pending) = self.writer.begin_sync()? else {
            return Ok(());
        };
        self.syncing = Some(Syncing {
            pending: pending.clone(),
            groups: self.open.len(),
        });
        let here = if ahead {
            self.syncer.ask(pending).err()
        } else {
            Some(pending)
        };
        match here {
            Some(pending) => self.settle(Synced::by(&pending)),
            None => Ok(()),
        }
    }

    /// An fdatasync has returned: the next one begins at once, then the callers are answered.
    fn settle(&mut self, synced: Synced) -> Result<(), WalError> {
        let Some(syncing) = self.syncing.take() else {
            return Ok(());
        };
        self.writer.finish_sync(syncing.pending, synced.result)?;
        self.patience = synced.took / 4;
        let mut durable: VecDeque<_> = self.open.drain(..syncing.groups).collect();
        let next = if self.open.iter().any(|group| group.placed.is_some()) {
            self.sync(true)
        } else {
            Ok(())
        };
        self.crowd = self.crowd.max(self.taken.load);
        for group in durable.drain(..) {
            self.crowd = self.crowd.plus(group.load);
            self.sequencer.durable(group.closed, group.placed.as_ref());
        }
        self.answer_empty_groups();
        next
    }

    /// What has no bytes is durable with the group before it.
    fn answer_empty_groups(&mut self) {
        while self.syncing.is_none()
            && self
                .open
                .front()
                .is_some_and(|group| group.placed.is_none())
            && let Some(group) = self.open.pop_front()
        {
            self.crowd = self.crowd.plus(group.load);
            self.sequencer.durable(group.closed, None);
        }
    }

    /// Waits until every written group is durable.
    fn settle_all(&mut self) -> Result<(), WalError> {
        while self.syncing.is_some() {
            let shared = self.shared.clone();
            let synced = shared.wait(shared.lock(), None, None).synced.take();
            if let Some(synced) = synced {
                self.settle(synced)?;
            }
        }
        Ok(())
    }

    /// The log takes no more writes. `newest` is a group that was closed and is not among the open ones.
    fn give_up(&mut self, newest: Option<S::Closed>, error: WalError) {
        tracing::error!(%error, "the log takes no more writes");
        self.syncing = None;
        if let Some(closed) = newest {
            self.sequencer.failed(closed, &error);
        }
        while let Some(group) = self.open.pop_back() {
            self.sequencer.failed(group.closed, &error);
        }
        self.poison = Some(error);
    }
}

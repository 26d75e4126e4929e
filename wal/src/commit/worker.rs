//! The writer thread: closes groups, writes them, answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{Load, Shared, Taken};
use super::sync::{SyncThread, Synced};
use super::{AHEAD_BYTES, LAZY_BYTES, LAZY_TIME, Sequencer};
use crate::error::WalError;
use crate::writer::{Group, Placed, Writer};

pub struct Worker<S: Sequencer> {
    shared: Arc<Shared<S::Submission>>,
    _sync: SyncThread,
    writer: Writer,
    sequencer: S,
    group: Group,
    group_bytes: usize,
    taken: Taken<S::Submission>,
    /// Closed groups that are not durable, oldest first.
    open: VecDeque<OpenGroup<S::Closed>>,
    /// What is queued or at callers who were just answered: the calls to be expected.
    crowd: Load,
    /// About the most calls of the crowd that came together lately.
    callers: usize,
    /// How long the last fdatasync took.
    synced_in: Duration,
    /// Since when something is written that no fdatasync was asked for.
    lazy_since: Option<Instant>,
    lazy_bytes: usize,
    poison: Option<WalError>,
}

struct OpenGroup<C> {
    closed: C,
    /// `None`: it had no bytes, and waits only for the groups before it.
    placed: Option<Placed>,
    load: Load,
    /// An fdatasync that covers it was asked for.
    asked: bool,
}

enum Step {
    /// Some fdatasyncs have returned.
    Settle(Vec<Synced>),
    /// Submissions wait in `taken`.
    Close,
    /// What nobody waits for is to be made durable now.
    Sync,
    /// The wal is closing and nothing is left to do.
    End,
}

/// How long it takes, about, until a caller is woken, runs, and calls again.
const CALLER_RETURNS: Duration = Duration::from_micros(5);

const ANYTHING: Load = Load {
    calls: 1,
    bytes: usize::MAX,
};

/// However the thread ends, nobody waits for it afterwards: what is queued is dropped, and with it
/// every caller's answer.
impl<S: Sequencer> Drop for Worker<S> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closing = true;
        queue.waiting.clear();
    }
}

impl<S: Sequencer> Worker<S> {
    pub fn new(
        shared: Arc<Shared<S::Submission>>,
        sync: SyncThread,
        writer: Writer,
        sequencer: S,
        group_bytes: usize,
    ) -> Worker<S> {
        Worker {
            shared,
            _sync: sync,
            writer,
            sequencer,
            group: Group::default(),
            group_bytes,
            taken: Taken::default(),
            open: VecDeque::new(),
            crowd: Load::default(),
            callers: 0,
            synced_in: Duration::ZERO,
            lazy_since: None,
            lazy_bytes: 0,
            poison: None,
        }
    }

    pub fn run(mut self) {
        loop {
            match self.next_step() {
                Step::Settle(synced) => {
                    if let Err(error) = self.settle(synced) {
                        self.give_up(None, error);
                    }
                }
                Step::Close => match self.poison.clone() {
                    Some(error) => {
                        let (all, load) = self.taken.up_to(usize::MAX);
                        for submission in self.taken.remove(all, load) {
                            self.sequencer.reject(submission, &error);
                        }
                    }
                    None => self.commit(),
                },
                Step::Sync => {
                    if let Err(error) = self.ask_sync(false) {
                        self.give_up(None, error);
                    }
                }
                Step::End => break,
            }
        }
        if let Some(retired) = self.writer.close() {
            self.sequencer.retired(retired, None);
        }
    }

    /// Sleeps until there is something to do.
    fn next_step(&mut self) -> Step {
        if self.is_syncing() {
            self.gather_ahead()
        } else {
            self.gather()
        }
    }

    fn is_syncing(&self) -> bool {
        self.open.iter().any(|group| group.asked)
    }

    /// Until what nobody waits for is synced; `None` if there is nothing of the kind.
    fn lazy_left(&self) -> Option<Duration> {
        let since = self.lazy_since?;
        Some(LAZY_TIME.saturating_sub(since.elapsed()))
    }

    /// Nothing is on its way to the disk: waits for the crowd, but not long.
    fn gather(&mut self) -> Step {
        let shared = self.shared.clone();
        let mut queue = shared.lock();
        // No group waits for an fdatasync that is told of now.
        queue.synced.clear();
        if self.taken.is_empty() {
            queue = shared.wait(queue, Some(ANYTHING), self.lazy_left());
            if queue.waiting.is_empty() && self.lazy_since.is_some() {
                return Step::Sync;
            }
        }
        let crowd = Load {
            calls: self.crowd.calls,
            bytes: self.group_target(queue.load),
        };
        let wanted = Some(crowd.minus(self.taken.load));
        queue = shared.wait(queue, wanted, Some(self.patience()));
        if !queue.has(wanted) {
            // Who has not come back by now is not waited for again.
            self.crowd = self.taken.load.plus(queue.load);
        }
        self.taken.take(&mut queue);
        if self.taken.is_empty() {
            Step::End
        } else {
            Step::Close
        }
    }

    /// A group is being made durable: until that is done there is time to prepare another one.
    fn gather_ahead(&mut self) -> Step {
        let shared = self.shared.clone();
        let mut queue = shared.lock();
        let mut come = false;
        if queue.to_sync.is_none() && !queue.closing {
            // All who are expected are enough, too, if they are worth it.
            let all = self.crowd.bytes.max(AHEAD_BYTES);
            let target = self.group_target(queue.load).min(all);
            let wanted = Load {
                calls: usize::MAX,
                bytes: target.saturating_sub(self.taken.load.bytes),
            };
            queue = shared.wait(queue, Some(wanted), None);
            come = queue.load.bytes >= wanted.bytes;
        }
        if !come {
            queue = shared.wait(queue, None, None);
        }
        if !queue.synced.is_empty() {
            return Step::Settle(std::mem::take(&mut queue.synced));
        }
        self.taken.take(&mut queue);
        Step::Close
    }

    /// How long an idle writer waits for the crowd: not at all where the disk is done sooner than so
    /// many callers are back. Those who are there have a group of their own then, meanwhile.
    fn patience(&self) -> Duration {
        let callers = u32::try_from(self.callers).unwrap_or(u32::MAX);
        if CALLER_RETURNS.saturating_mul(callers) < self.synced_in {
            self.synced_in / 4
        } else {
            Duration::ZERO
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
        let (submissions, load) = self.taken.up_to(self.group_target(Load::default()));
        self.crowd = self.crowd.minus(load);
        let submissions = self.taken.remove(submissions, load);
        let closed = self.sequencer.close_group(submissions, &mut self.group);
        if self.group.is_empty() {
            self.open.push_back(OpenGroup {
                closed,
                placed: None,
                load,
                asked: false,
            });
            self.answer_durable();
            if !self.open.is_empty()
                && !self.is_syncing()
                && let Err(error) = self.ask_sync(true)
            {
                self.give_up(None, error);
            }
            return;
        }
        if self.sequencer.wants_new_segment() {
            self.writer.roll_before_next();
        }
        if self.writer.must_settle_before(&self.group)
            && let Err(error) = self.settle_all()
        {
            return self.give_up(Some(closed), error);
        }
        let written = self.writer.write(&self.group);
        // What callers handed in is not held on to while nothing comes.
        self.group.clear();
        for retired in self.writer.take_retired() {
            self.sequencer.retired(retired, Some(&closed));
        }
        let placed = match written {
            Ok(placed) => placed,
            Err(error @ WalError::Poisoned { .. }) => return self.give_up(Some(closed), error),
            Err(error) => return self.sequencer.failed(closed, &error),
        };
        let mut closed = closed;
        let waits = self.sequencer.written(&mut closed, &placed);
        let syncing = self.is_syncing();
        self.open.push_back(OpenGroup {
            closed,
            placed: Some(placed),
            load,
            asked: false,
        });
        if !waits && !syncing {
            self.lazy_bytes += load.bytes;
            self.lazy_since.get_or_insert_with(Instant::now);
            let due = self.lazy_left().is_some_and(|left| left.is_zero());
            if self.lazy_bytes < LAZY_BYTES && !due {
                return;
            }
        }
        let inline = waits && !syncing && self.lazy_bytes + load.bytes < AHEAD_BYTES;
        if let Err(error) = self.ask_sync(inline) {
            self.give_up(None, error);
        }
    }

    /// Has everything that is written made durable: on this thread, or on the other one.
    fn ask_sync(&mut self, inline: bool) -> Result<(), WalError> {
        self.lazy_since = None;
        self.lazy_bytes = 0;
        match self.writer.begin_sync()? {
            Some(pending) if inline => self.settle(vec![Synced::by(pending)]),
            Some(pending) => {
                self.open.iter_mut().for_each(|group| group.asked = true);
                self.shared.ask_sync(pending);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Fdatasyncs have returned: the callers of what they covered are answered.
    fn settle(&mut self, synced: Vec<Synced>) -> Result<(), WalError> {
        let mut result = Ok(());
        for synced in synced {
            self.synced_in = synced.took;
            if let Err(error) = self.writer.finish_sync(synced.pending, synced.result) {
                result = Err(error);
            }
        }
        self.answer_durable();
        result
    }

    /// Waits until every written group is durable.
    fn settle_all(&mut self) -> Result<(), WalError> {
        while !self.open.is_empty() {
            if !self.is_syncing() {
                self.ask_sync(true)?;
                continue;
            }
            let shared = self.shared.clone();
            let mut queue = shared.wait(shared.lock(), None, None);
            let synced = std::mem::take(&mut queue.synced);
            drop(queue);
            self.settle(synced)?;
        }
        Ok(())
    }

    /// From the oldest open group on. What has no bytes is durable with the group before it.
    fn answer_durable(&mut self) {
        self.crowd = self.crowd.max(self.taken.load);
        let durable = self.writer.durable();
        while self.open.front().is_some_and(|group| {
            let placed = group.placed.as_ref();
            placed.is_none_or(|placed| placed.end() <= durable)
        }) && let Some(group) = self.open.pop_front()
        {
            self.crowd = self.crowd.plus(group.load);
            self.callers = self.crowd.calls.max(self.callers - self.callers / 8);
            self.sequencer.durable(group.closed, group.placed.as_ref());
        }
    }

    /// The log takes no more writes. `newest` is a group that was closed and is not among the open ones.
    fn give_up(&mut self, newest: Option<S::Closed>, error: WalError) {
        tracing::error!(%error, "the log takes no more writes");
        if let Some(closed) = newest {
            self.sequencer.failed(closed, &error);
        }
        while let Some(group) = self.open.pop_back() {
            self.sequencer.failed(group.closed, &error);
        }
        self.poison = Some(error);
    }
}

//! Group commit: many callers, one writer thread, one fdatasync a group.
//!
//! While one group is made durable, whatever callers submit gathers in the queue and becomes the next
//! group. Three rules decide when a group is closed:
//!
//! - *The crowd.* Callers who wait for an answer before they go on come back in a crowd just after a
//!   group was answered; closing the next group at that moment would split them into two half-empty
//!   groups for ever. So an idle writer waits for as many submissions as were answered last, but no
//!   longer than a quarter of what the last fdatasync took; and not at all where the disk is faster
//!   than the return of so many callers. A lone caller never waits.
//! - *Halves.* An fdatasync costs a fixed time and then the disk's bandwidth. Where more than twice
//!   [`AHEAD_BYTES`] are in flight, callers are kept in two halves: one half is sequenced and written
//!   while the other half's fdatasync runs on a thread of its own, so that the disk never waits for
//!   the processor. Below that the fixed time would be paid twice, and a group is made durable on the
//!   writer thread itself, which saves two hand-overs.
//! - *At most one ahead.* One group is being made durable, one is written behind it, no more: what
//!   comes later waits in the queue and makes the next group larger.
//!
//! A group of which nobody waits to be durable ([`Sequencer::written`]) is not synced for its own sake:
//! it becomes durable with the next one that is, or after [`LAZY_BYTES`] or [`LAZY_TIME`].
//!
//! Groups become durable, and are answered, in the order they were closed. A write that fails takes
//! back its own group, which is always the newest; a failed fdatasync takes back every open group,
//! newest first, and is final.

mod queue;
mod sync;
mod worker;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use self::queue::Shared;
use self::sync::SyncThread;
use self::worker::Worker;
use crate::error::WalError;
use crate::writer::{Group, Placed, Retired, Writer};

pub use self::queue::Submitter;

/// A group of fewer bytes is not worth an fdatasync of its own beside another one.
pub const AHEAD_BYTES: usize = 256 << 10;

/// So many bytes that nobody waits for are synced at the latest,
pub const LAZY_BYTES: usize = 4 << 20;
/// after so long a time at the latest.
pub const LAZY_TIME: Duration = Duration::from_secs(1);

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

    /// The group just closed is in the page cache. Whether anybody waits until it is on disk.
    fn written(&mut self, _closed: &mut Self::Closed, _placed: &Placed) -> bool {
        true
    }

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
        let shared = Arc::new(Shared::default());
        let sync = SyncThread::start(shared.clone())?;
        let worker = Worker::new(shared.clone(), sync, writer, sequencer, group_bytes);
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
        self.shared.close();
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

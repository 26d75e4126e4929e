//! The thread that calls fdatasync while the writer thread prepares the next group.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::queue::Shared;
use crate::writer::PendingSync;

/// What came of an fdatasync.
pub struct Synced {
    pub pending: PendingSync,
    pub result: io::Result<()>,
    pub took: Duration,
}

impl Synced {
    pub fn by(pending: PendingSync) -> Synced {
        let begun = Instant::now();
        let result = pending.run();
        Synced {
            pending,
            result,
            took: begun.elapsed(),
        }
    }
}

/// Ends its thread when it is dropped.
pub struct SyncThread {
    end: Box<dyn Fn() + Send>,
    thread: Option<JoinHandle<()>>,
}

impl SyncThread {
    /// It goes from one fdatasync to the next by itself, if the next is written already: the disk
    /// does not wait for the writer thread to hear of it.
    pub fn start<S: Send + 'static>(shared: Arc<Shared<S>>) -> io::Result<SyncThread> {
        let work = {
            let shared = shared.clone();
            move || {
                while let Some(pending) = shared.next_sync() {
                    let synced = Synced::by(pending);
                    let failed = synced.result.is_err();
                    shared.tell_synced(synced);
                    if failed {
                        // Final: what was written meanwhile fails with it.
                        return;
                    }
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("wal-sync".into())
            .spawn(work)?;
        Ok(SyncThread {
            end: Box::new(move || shared.end_sync()),
            thread: Some(thread),
        })
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        (self.end)();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

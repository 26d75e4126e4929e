//! Waiting for something to become readable, in any of several partitions, without a task or a
//! channel per partition.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::partition::Partition;

/// Raised by partitions, awaited by one watch.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicBool,
    notify: Notify,
}

impl Signal {
    pub(crate) fn raise(&self) {
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.notify.notify_one();
        }
    }
}

/// Resolves when something became readable in one of the partitions it watches.
#[derive(Debug)]
pub struct Watch {
    signal: Arc<Signal>,
}

impl Watch {
    pub(crate) fn new<'a>(partitions: impl IntoIterator<Item = &'a Arc<Partition>>) -> Watch {
        let signal = Arc::new(Signal::default());
        for partition in partitions {
            partition.add_watcher(&signal);
        }
        Watch { signal }
    }

    /// Waits until any watched partition's high watermark moved since the watch was made or since
    /// the last time this returned. Make the watch *before* reading, so that nothing is missed.
    pub async fn appended(&mut self) {
        while !self.signal.raised.swap(false, Ordering::AcqRel) {
            self.signal.notify.notified().await;
        }
    }
}

//! Back-pressure: how many submitted bytes may be in flight, over all callers.
//!
//! Sequentially consistent: a waiter announces itself and then looks at `used`, a releaser changes
//! `used` and then looks for waiters; neither may miss the other.
//!
//! The usual case, room enough, is one compare-and-swap; giving back is one subtraction a group.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The room for bytes in flight.
#[derive(Debug)]
pub struct Room {
    bytes_max: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
    closed: AtomicBool,
    freed: Notify,
}

/// No more is admitted.
#[derive(Debug, PartialEq, Eq)]
pub struct RoomClosed;

impl Room {
    pub fn new(bytes_max: usize) -> Room {
        Room {
            bytes_max,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            freed: Notify::new(),
        }
    }

    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Admitted now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` fit. More than the room holds fits when the room is empty.
    pub async fn admit(&self, bytes: usize) -> Result<(), RoomClosed> {
        if self.try_admit(bytes)? {
            return Ok(());
        }
        let waiting = Waiting::begin(&self.waiting);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Registered before the second look, so that what is freed in between is not missed.
            freed.as_mut().enable();
            if self.try_admit(bytes)? {
                drop(waiting);
                return Ok(());
            }
            freed.await;
        }
    }

    fn try_admit(&self, bytes: usize) -> Result<bool, RoomClosed> {
        if self.closed.load(Ordering::SeqCst) {
            return Err(RoomClosed);
        }
        let fits = |used: usize| {
            let then = used.saturating_add(bytes);
            (used == 0 || then <= self.bytes_max).then_some(then)
        };
        Ok(self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits)
            .is_ok())
    }

    /// Admits `bytes` for callers to come, or none: half the room is for those who are there.
    pub fn admit_ahead(&self, bytes: usize) -> usize {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            return 0;
        }
        let fits = |used: usize| {
            let then = used.saturating_add(bytes);
            (then <= self.bytes_max / 2).then_some(then)
        };
        let admitted = self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits);
        admitted.map_or(0, |_| bytes)
    }

    /// Gives admitted bytes back.
    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.freed.notify_waiters();
        }
    }

    /// Everybody who waits, and whoever comes, is refused.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.freed.notify_waiters();
    }
}

/// Counts a waiter for as long as it waits, also if its future is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Ordering::SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn callers_wait_for_room_and_are_told_when_there_will_be_none() {
        let room = Arc::new(Room::new(10));
        room.admit(50).await.unwrap();
        let waiter = tokio::spawn({
            let room = room.clone();
            async move { room.admit(8).await }
        });
        while room.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        room.release(50);
        assert_eq!(waiter.await.unwrap(), Ok(()));
        let refused = tokio::spawn({
            let room = room.clone();
            async move { room.admit(8).await }
        });
        while room.waiting.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        room.close();
        assert_eq!(refused.await.unwrap(), Err(RoomClosed));
        assert_eq!(room.admit(1).await, Err(RoomClosed));
    }
}

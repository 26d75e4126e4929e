//! What rooms have in common: how a room speaks to one socket, and how one producer serves all of them.
//!
//! A room never waits for a socket. Snapshot rooms keep only their newest frame (a slow socket gets the
//! newest when it is ready); stream rooms keep a ring, and a socket that falls out of it is told how many
//! updates it skipped. Between room and socket lies a queue of [`SOCKET_FRAMES_MAX`] frames; each carries
//! the [`Pass`] it was made under, which is asked when it is queued and again when it leaves.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Caller, Operation, Resource, Right};

/// Frames that wait for one socket, over all of its rooms.
pub(super) const SOCKET_FRAMES_MAX: usize = 32;

/// Frames that a stream room keeps for sockets that are behind.
pub(super) const STREAM_FRAMES_MAX: usize = 256;

/// A frame of a snapshot room; `None` until the first one was made.
pub(super) type Snapshot = Option<Utf8Bytes>;

/// Boxed, because rooms of different kinds stand in one table.
pub(super) type Following = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(super) trait Room: Send + Sync {
    /// The right that whoever follows needs.
    fn asks(&self) -> (Operation, Resource<'_>);

    /// Sends this room to one socket until the socket goes; `caller` is who has it.
    fn follow(self: Arc<Self>, caller: &Caller, outlet: Outlet) -> Following;
}

/// The socket left, or lost its right; the room stops following it.
pub(super) struct Gone;

/// What is said to a socket that may not follow a room.
pub(super) const NOT_AUTHORIZED: &str = "not authorized";

/// Lets one subscription's frames out. Once it does not hold it never does again: its subscription is over,
/// whoever noticed.
pub(super) struct Pass {
    /// `None`: nothing is asked.
    right: Option<Right>,
    lost: AtomicBool,
}

impl Pass {
    pub(super) fn new(right: Option<Right>) -> Arc<Pass> {
        let lost = AtomicBool::new(false);
        Arc::new(Pass { right, lost })
    }

    pub(super) fn holds(&self) -> bool {
        if self.right.as_ref().is_some_and(|right| !right.holds()) {
            self.lost.store(true, Ordering::Relaxed);
        }
        !self.is_lost()
    }

    /// Whether somebody has found that it does not hold.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

/// What waits for a socket; nothing of it may leave unless its pass holds then.
pub(super) struct Frame {
    pub(super) text: Utf8Bytes,
    pub(super) pass: Arc<Pass>,
}

/// One room's way to one socket. Waits where the socket is slow.
pub(super) struct Outlet {
    room: String,
    frames: mpsc::Sender<Frame>,
    pass: Arc<Pass>,
}

impl Outlet {
    pub(super) fn new(room: String, frames: mpsc::Sender<Frame>, pass: Arc<Pass>) -> Outlet {
        Outlet { room, frames, pass }
    }

    /// Where the pass is lost the frame is queued all the same: by it the socket's side learns of that.
    pub(super) async fn send(&self, text: Utf8Bytes) -> Result<(), Gone> {
        let holds = self.pass.holds();
        let pass = Arc::clone(&self.pass);
        let queued = self.frames.send(Frame { text, pass }).await;
        match queued.is_ok() && holds {
            true => Ok(()),
            false => Err(Gone),
        }
    }

    pub(super) async fn update(&self, data: &impl Serialize) -> Result<(), Gone> {
        self.send(update_frame(&self.room, data)).await
    }

    pub(super) async fn skipped(&self, count: u64) -> Result<(), Gone> {
        self.send(
            json!({ "type": "skipped", "room": self.room, "count": count })
                .to_string()
                .into(),
        )
        .await
    }

    pub(super) async fn error(&self, sentence: &str) -> Result<(), Gone> {
        self.send(error_frame(&self.room, sentence)).await
    }
}

pub(super) fn error_frame(room: &str, sentence: &str) -> Utf8Bytes {
    json!({ "type": "error", "room": room, "error": sentence })
        .to_string()
        .into()
}

pub(super) fn update_frame(room: &str, data: &impl Serialize) -> Utf8Bytes {
    match serde_json::to_string(data) {
        Ok(data) => update_frame_of(room, &data),
        Err(error) => {
            tracing::error!(room, %error, "an update could not be written as JSON");
            error_frame(room, "the node could not write this update")
        }
    }
}

/// As [`update_frame`], where the data is JSON already.
pub(super) fn update_frame_of(room: &str, data: &str) -> Utf8Bytes {
    let room = serde_json::Value::from(room);
    format!(r#"{{"type":"update","room":{room},"data":{data}}}"#).into()
}

/// Both ways of giving one producer's frames to many sockets.
pub(super) trait FanOut: Send + Sync + 'static {
    type Receiver;
    fn receive(&self) -> Self::Receiver;
    fn receivers(&self) -> usize;
}

impl<T: Send + Sync + 'static> FanOut for watch::Sender<T> {
    type Receiver = watch::Receiver<T>;
    fn receive(&self) -> watch::Receiver<T> {
        self.subscribe()
    }
    fn receivers(&self) -> usize {
        self.receiver_count()
    }
}

impl<T: Clone + Send + 'static> FanOut for broadcast::Sender<T> {
    type Receiver = broadcast::Receiver<T>;
    fn receive(&self) -> broadcast::Receiver<T> {
        self.subscribe()
    }
    fn receivers(&self) -> usize {
        self.receiver_count()
    }
}

/// A producer that runs only while somebody follows it.
pub(super) struct OnDemand<S: FanOut> {
    running: Arc<Mutex<Option<Arc<S>>>>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl<S: FanOut> OnDemand<S> {
    pub(super) fn new(tracker: TaskTracker, cancel: CancellationToken) -> OnDemand<S> {
        OnDemand {
            running: Arc::default(),
            tracker,
            cancel,
        }
    }

    /// Follows the producer, starting it if it does not run.
    pub(super) fn follow<F>(
        &self,
        sender: impl FnOnce() -> S,
        producer: impl FnOnce(Running<S>) -> F,
    ) -> S::Receiver
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut running = lock(&self.running);
        if let Some(sender) = running.as_ref() {
            return sender.receive();
        }
        let sender = Arc::new(sender());
        let receiver = sender.receive();
        *running = Some(Arc::clone(&sender));
        let producing = producer(Running {
            slot: Arc::clone(&self.running),
            sender,
        });
        let cancel = self.cancel.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = producing => {}
            }
        });
        receiver
    }
}

/// A running producer's own handle. Dropped however the producer ends, a panic included, so that the
/// next follower starts a new one.
pub(super) struct Running<S: FanOut> {
    slot: Arc<Mutex<Option<Arc<S>>>>,
    sender: Arc<S>,
}

impl<S: FanOut> Running<S> {
    pub(super) fn sender(&self) -> &S {
        &self.sender
    }

    /// True once nobody follows: the producer must end, the next follower starts another.
    pub(super) fn retire(&self) -> bool {
        let mut slot = lock(&self.slot);
        let alone = self.sender.receivers() == 0;
        if alone {
            *slot = None;
        }
        alone
    }
}

impl<S: FanOut> Drop for Running<S> {
    fn drop(&mut self) {
        let mut slot = lock(&self.slot);
        if slot
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, &self.sender))
        {
            *slot = None;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends each newest snapshot, beginning with the present one; `written` says how the socket sees it.
pub(super) async fn follow_snapshots<T: Clone>(
    mut snapshots: watch::Receiver<Option<T>>,
    outlet: Outlet,
    written: impl Fn(T) -> Utf8Bytes,
) {
    snapshots.mark_changed();
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot
            && outlet.send(written(snapshot)).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_producer_runs_once_for_all_and_ends_with_the_last_follower() {
        let tracker = TaskTracker::new();
        let room: OnDemand<watch::Sender<u32>> =
            OnDemand::new(tracker.clone(), CancellationToken::new());
        let (started, mut starts) = mpsc::unbounded_channel();
        let follow = || {
            let started = started.clone();
            room.follow(
                || watch::channel(0).0,
                move |running: Running<watch::Sender<u32>>| async move {
                    started.send(()).unwrap();
                    running.sender().closed().await;
                    assert!(running.retire());
                },
            )
        };
        let (one, two) = (follow(), follow());
        assert_eq!(starts.recv().await, Some(()));
        drop((one, two));
        tracker.close();
        tracker.wait().await;
        assert!(starts.is_empty());
        let _three = follow();
        assert_eq!(starts.recv().await, Some(()));
    }

    #[tokio::test]
    async fn a_producer_that_panics_makes_room_for_the_next() {
        let tracker = TaskTracker::new();
        let room: OnDemand<watch::Sender<u32>> =
            OnDemand::new(tracker.clone(), CancellationToken::new());
        let mut first = room.follow(
            || watch::channel(0).0,
            |running| async move {
                let _running = running;
                std::panic::resume_unwind(Box::new("lost"));
            },
        );
        assert!(first.changed().await.is_err());
        let mut second = room.follow(
            || watch::channel(0).0,
            |running: Running<watch::Sender<u32>>| async move {
                running.sender().send_replace(7);
                running.sender().closed().await;
            },
        );
        second.changed().await.unwrap();
        assert_eq!(*second.borrow(), 7);
    }

    #[tokio::test]
    async fn a_slow_socket_of_a_snapshot_room_gets_the_newest() {
        let (sender, receiver) = watch::channel::<Snapshot>(None);
        let (frames, mut socket) = mpsc::channel(1);
        let following = tokio::spawn(follow_snapshots(
            receiver,
            Outlet::new("overview".into(), frames, Pass::new(None)),
            std::convert::identity,
        ));
        sender.send_replace(Some("0".into()));
        // The socket has not taken frame 0, so frame 1 blocks the follower and the rest replace each other.
        assert_eq!(socket.recv().await.unwrap().text.as_str(), "0");
        for n in 1..=100 {
            sender.send_replace(Some(n.to_string().into()));
        }
        let mut last = String::new();
        let mut taken = 0;
        while last != "100" {
            last = socket.recv().await.unwrap().text.to_string();
            taken += 1;
        }
        assert!(taken < 100, "took {taken}");
        drop(sender);
        following.await.unwrap();
    }
}

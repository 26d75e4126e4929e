//! `/ws/live`: one dashboard, its rooms, and the queue between them.

use std::collections::HashMap;

use axum::extract::ws::{Utf8Bytes, WebSocket};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Live;
use super::room::{Outlet, SOCKET_FRAMES_MAX};
use super::socket::{Ended, Gate, Link};
use crate::auth::Caller;

/// Messages that make no sense, before the socket is closed.
const MISTAKES_MAX: u32 = 16;

/// Longest room name.
const ROOM_BYTES_MAX: usize = 300;

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    Subscribe { rooms: Vec<String> },
    Unsubscribe { rooms: Vec<String> },
}

/// Serves one dashboard until it or the node goes.
pub(super) async fn serve(live: &Live, socket: WebSocket, gate: Gate) {
    let mut link = Link::new(live, socket);
    let ended = drive(live, &mut link, gate).await.err();
    link.close(ended.unwrap_or(Ended::Gone)).await;
}

async fn drive(live: &Live, link: &mut Link, gate: Gate) -> Result<(), Ended> {
    let caller = link.hello(gate, true).await?;
    let (queue, mut frames) = mpsc::channel(SOCKET_FRAMES_MAX);
    let mut rooms = Subscriptions {
        live,
        caller,
        queue,
        joined: HashMap::new(),
    };
    let mut mistakes = 0;
    loop {
        tokio::select! {
            heard = link.hear() => {
                for complaint in rooms.obey(&heard?) {
                    mistakes += 1;
                    if mistakes > MISTAKES_MAX {
                        return Err(Ended::Policy("too many messages that make no sense"));
                    }
                    link.send(complaint).await?;
                }
            }
            // The queue cannot end: `rooms` holds its other side.
            Some(frame) = frames.recv() => link.send(frame).await?,
        }
    }
}

struct Subscriptions<'a> {
    live: &'a Live,
    caller: Caller,
    queue: mpsc::Sender<Utf8Bytes>,
    joined: HashMap<String, AbortHandle>,
}

impl Subscriptions<'_> {
    /// Carries out a request; the answers are complaints only.
    fn obey(&mut self, message: &str) -> Vec<Utf8Bytes> {
        match serde_json::from_str(message) {
            Ok(Request::Subscribe { rooms }) => {
                // One message can name thousands of rooms that do not exist.
                let complaints = rooms.into_iter().filter_map(|room| self.join(room));
                complaints.take(MISTAKES_MAX as usize + 1).collect()
            }
            Ok(Request::Unsubscribe { rooms }) => {
                for room in rooms {
                    if let Some(following) = self.joined.remove(&room) {
                        following.abort();
                    }
                }
                Vec::new()
            }
            Err(_) => {
                let sentence = "expected {\"type\":\"subscribe\"|\"unsubscribe\",\"rooms\":[...]}";
                vec![
                    json!({ "type": "error", "error": sentence })
                        .to_string()
                        .into(),
                ]
            }
        }
    }

    fn join(&mut self, name: String) -> Option<Utf8Bytes> {
        self.joined.retain(|_, following| !following.is_finished());
        if self.joined.contains_key(&name) {
            return None;
        }
        let complain = |sentence: &str| {
            let name: String = name.chars().take(ROOM_BYTES_MAX).collect();
            Some(
                json!({ "type": "error", "room": name, "error": sentence })
                    .to_string()
                    .into(),
            )
        };
        if self.joined.len() >= self.live.shared.config.rooms_per_socket_max {
            return complain("this socket follows as many rooms as one may");
        }
        match self.live.room(&name, &self.caller) {
            Err(sentence) => complain(sentence),
            Ok((room, right)) => {
                let outlet = Outlet::new(name.clone(), self.queue.clone(), right);
                let following = self.live.shared.tracker.spawn(room.follow(outlet));
                self.joined.insert(name, following.abort_handle());
                None
            }
        }
    }
}

impl Drop for Subscriptions<'_> {
    fn drop(&mut self) {
        for following in self.joined.values() {
            following.abort();
        }
    }
}

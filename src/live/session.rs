//! `/ws/live`: one dashboard, its rooms, and the queue between them.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::{Utf8Bytes, WebSocket};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Live;
use super::room::{Frame, NOT_AUTHORIZED, Outlet, Pass, SOCKET_FRAMES_MAX, error_frame};
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
            Some(frame) = frames.recv() => {
                if let Some(text) = rooms.let_out(frame) {
                    link.send(text).await?;
                }
            }
        }
    }
}

struct Subscriptions<'a> {
    live: &'a Live,
    caller: Caller,
    queue: mpsc::Sender<Frame>,
    joined: HashMap<String, Subscription>,
}

struct Subscription {
    following: AbortHandle,
    pass: Arc<Pass>,
}

impl Subscription {
    /// One whose pass is lost stays until the socket has been told so.
    fn is_over(&self) -> bool {
        self.following.is_finished() && !self.pass.is_lost()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.following.abort();
    }
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
                    self.joined.remove(&room);
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
        self.joined.retain(|_, joined| !joined.is_over());
        if let Some(joined) = self.joined.get(&name)
            && joined.pass.holds()
        {
            return None;
        }
        // Otherwise the answer to this request says what became of a lost one.
        self.joined.remove(&name);
        let complain = |sentence: &str| {
            let name: String = name.chars().take(ROOM_BYTES_MAX).collect();
            Some(error_frame(&name, sentence))
        };
        if self.joined.len() >= self.live.shared.config.rooms_per_socket_max {
            return complain("this socket follows as many rooms as one may");
        }
        match self.live.room(&name, &self.caller) {
            Err(sentence) => complain(sentence),
            Ok((room, right)) => {
                let pass = Pass::new(right);
                let outlet = Outlet::new(name.clone(), self.queue.clone(), Arc::clone(&pass));
                let following = self
                    .live
                    .shared
                    .tracker
                    .spawn(room.follow(&self.caller, outlet));
                let following = following.abort_handle();
                self.joined.insert(name, Subscription { following, pass });
                None
            }
        }
    }

    /// What is sent for a frame that waited: itself, once that its room is lost, or nothing any more.
    fn let_out(&mut self, frame: Frame) -> Option<Utf8Bytes> {
        if frame.pass.holds() {
            return Some(frame.text);
        }
        let mut joined = self.joined.iter();
        let (name, _) = joined.find(|(_, joined)| Arc::ptr_eq(&joined.pass, &frame.pass))?;
        let name = name.clone();
        self.joined.remove(&name);
        Some(error_frame(&name, NOT_AUTHORIZED))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{IpAddr, Ipv4Addr};

    use holdfast_storage::log::{Log, LogOptions, NewTopic, Record};
    use tokio_util::sync::CancellationToken;

    use super::super::{LiveConfig, Sources};
    use super::*;
    use crate::auth::{
        AclBinding, AclFilter, Auth, AuthConfig, Authorizer, Operation, PatternType, Permission,
        Principal, ResourceType,
    };

    fn may_read(topic: &str) -> AclBinding {
        AclBinding {
            resource_type: ResourceType::Topic,
            pattern_type: PatternType::Literal,
            name: topic.to_owned(),
            principal: "User:ANONYMOUS".to_owned(),
            host: "*".to_owned(),
            operation: Operation::Read,
            permission: Permission::Allow,
        }
    }

    #[tokio::test]
    async fn what_waits_for_a_socket_does_not_outlive_the_right_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(LogOptions::new(dir.path())).unwrap();
        let config = AuthConfig {
            authorizer: Authorizer::Acl,
            ..AuthConfig::default()
        };
        let auth = Auth::open_with(log.clone(), config).await.unwrap();
        auth.create_acls(vec![may_read("shown")]).await.unwrap();
        let shown = NewTopic {
            name: "shown".to_owned(),
            partitions: 1,
            configs: Vec::new(),
        };
        let shown = log.create_topic(shown).await.unwrap();
        let cancel = CancellationToken::new();
        let (sources, ends) = (Sources::default(), cancel.clone());
        let live = Live::start(LiveConfig::default(), log.clone(), sources, ends);
        let stranger = Principal::anonymous(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (queue, mut frames) = mpsc::channel(SOCKET_FRAMES_MAX);
        let mut rooms = Subscriptions {
            live: &live,
            caller: Caller::new(auth.clone(), stranger),
            queue,
            joined: HashMap::new(),
        };
        let subscribe = r#"{"type":"subscribe","rooms":["topic:shown"]}"#;
        assert!(rooms.obey(subscribe).is_empty());
        let records = ["one", "two", "three"].map(|value| Record {
            value: Some(value.into()),
            ..Record::default()
        });
        let appended = log.append(shown.partition(0).unwrap(), &records);
        appended.await.unwrap().await.unwrap();
        let mut waiting = Vec::new();
        while waiting.len() < 3 {
            waiting.push(frames.recv().await.unwrap());
        }
        let mut waiting = waiting.into_iter();
        let first = rooms.let_out(waiting.next().unwrap()).unwrap();
        assert!(first.contains("one"), "{first}");

        auth.delete_acls(&AclFilter::default()).await.unwrap();
        let told = rooms.let_out(waiting.next().unwrap()).unwrap();
        assert_eq!(told, error_frame("topic:shown", NOT_AUTHORIZED));
        // Allowed again, it has to subscribe again, and what waited before is not sent then either.
        auth.create_acls(vec![may_read("shown")]).await.unwrap();
        assert!(rooms.obey(subscribe).is_empty());
        assert_eq!(rooms.let_out(waiting.next().unwrap()), None);
        assert_eq!(rooms.joined.len(), 1);
        cancel.cancel();
    }
}

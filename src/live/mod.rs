//! The live gateway: what the log says now, pushed to browsers.
//!
//! Owns the rooms of `/ws/live`, the latest value of every speed sensor, and the sockets. It reads topics
//! without a group and without ever writing; what is not in the log (telemetry quality, MQTT counters) it
//! asks for through [`Sources`]. Rooms do not know one another. Every room names the right that its
//! followers need; it is asked again before every frame, when it is made and when it leaves.
//!
//! Ingestion never waits for a socket and a socket never waits for ingestion: producers write into
//! watches and rings (`room`), sockets take from them at their own pace. Limits: [`LiveConfig`], and the
//! named constants of each room.

pub mod census;
mod gauge;
mod invalid;
mod overview;
mod quality;
mod room;
mod session;
mod socket;
mod sources;
mod speed;
mod store;
mod topic;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::WebSocket;
use holdfast_storage::log::Log;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use invalid::Invalid;
use overview::Overview;
use quality::Quality;
use room::{FanOut, NOT_AUTHORIZED, OnDemand, Room};
pub use socket::{CLOSE_FORBIDDEN, CLOSE_UNAUTHORIZED, Gate, MESSAGE_BYTES_MAX, TokenCheck};
pub use sources::{InvalidItem, MqttSnapshot, Sources, SpeedRule, TelemetrySource};
use speed::SpeedBoard;
pub use speed::{Reading, SENSOR_BYTES_MAX, TOPIC as SPEED_TOPIC};
use topic::TopicRoom;

use crate::auth::{Caller, Operation, Resource, Right};

/// Section `[live]` of the configuration.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveConfig {
    /// WebSockets served at once, dashboards and gauges together; one more is answered 503. Default 256.
    pub sockets_max: usize,
    /// Rooms that one socket may follow at a time. Default 16.
    pub rooms_per_socket_max: usize,
    /// Speed sensors whose latest value is remembered. Default 10000.
    pub sensors_max: usize,
    /// Seconds between two pings to a client. Default 20.
    pub ping_interval_s: u64,
    /// A client that is not heard, not even a pong, for this many seconds is disconnected. Default 60.
    pub idle_timeout_s: u64,
    /// A client that does not take a frame for this many seconds is disconnected. Default 30.
    pub send_timeout_s: u64,
}

impl Default for LiveConfig {
    fn default() -> LiveConfig {
        LiveConfig {
            sockets_max: 256,
            rooms_per_socket_max: 16,
            sensors_max: 10_000,
            ping_interval_s: 20,
            idle_timeout_s: 60,
            send_timeout_s: 30,
        }
    }
}

/// Handle on the gateway; clones share it.
#[derive(Clone)]
pub struct Live {
    shared: Arc<Shared>,
}

struct Shared {
    config: LiveConfig,
    log: Log,
    /// Rooms with a fixed name.
    rooms: HashMap<&'static str, Arc<dyn Room>>,
    /// Rooms of topics somebody has looked at; those that nobody holds any more are swept out.
    topics: Mutex<HashMap<String, Arc<TopicRoom>>>,
    speeds: Arc<SpeedBoard>,
    sockets: Arc<Semaphore>,
    sockets_total: AtomicU64,
    sockets_refused: AtomicU64,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

/// The right to serve one more socket.
#[must_use]
pub struct SocketPermit(OwnedSemaphorePermit);

impl Live {
    /// Starts the gateway; it ends with `cancel`.
    pub fn start(
        config: LiveConfig,
        log: Log,
        sources: Sources,
        cancel: CancellationToken,
    ) -> Live {
        let tracker = TaskTracker::new();
        let speeds = Arc::new(SpeedBoard::new(
            config.sensors_max,
            sources.speed_rule.clone(),
        ));
        let (board, ends, from) = (Arc::clone(&speeds), cancel.clone(), log.clone());
        tracker.spawn(async move {
            tokio::select! {
                () = ends.cancelled() => {}
                () = board.run(from) => {}
            }
        });
        let rooms = fixed_rooms(&log, &sources, &speeds, &tracker, &cancel);
        // Tasks are still added while the gateway runs; closing only lets `stopped` resolve once all are gone.
        tracker.close();
        let sockets = Arc::new(Semaphore::new(
            config.sockets_max.min(Semaphore::MAX_PERMITS),
        ));
        Live {
            shared: Arc::new(Shared {
                config,
                log,
                rooms,
                topics: Mutex::default(),
                speeds,
                sockets,
                sockets_total: AtomicU64::new(0),
                sockets_refused: AtomicU64::new(0),
                tracker,
                cancel,
            }),
        }
    }

    /// Resolves when, after cancellation, every task and socket of the gateway has ended.
    pub async fn stopped(&self) {
        self.shared.tracker.wait().await;
    }

    /// `None` where the limit on sockets is reached.
    pub fn admit(&self) -> Option<SocketPermit> {
        let permit = Arc::clone(&self.shared.sockets).try_acquire_owned().ok();
        let counter = if permit.is_some() {
            &self.shared.sockets_total
        } else {
            &self.shared.sockets_refused
        };
        counter.fetch_add(1, Ordering::Relaxed);
        permit.map(SocketPermit)
    }

    /// Speaks the protocol of `/ws/live` until the client or the node goes.
    pub async fn serve_dashboard(self, socket: WebSocket, gate: Gate, permit: SocketPermit) {
        let _alive = self.shared.tracker.token();
        session::serve(&self, socket, gate).await;
        drop(permit.0);
    }

    /// Speaks the protocol of `/ws/speed`: one sensor, or whichever spoke last where none is named.
    pub async fn serve_gauge(
        self,
        socket: WebSocket,
        sensor_id: Option<String>,
        gate: Gate,
        permit: SocketPermit,
    ) {
        let _alive = self.shared.tracker.token();
        gauge::serve(&self, socket, sensor_id, gate).await;
        drop(permit.0);
    }

    /// For `/health`.
    pub fn counters(&self) -> Value {
        let shared = &self.shared;
        let mut counters = json!({
            "sockets": shared.config.sockets_max.saturating_sub(shared.sockets.available_permits()),
            "sockets_max": shared.config.sockets_max,
            "sockets_total": shared.sockets_total.load(Ordering::Relaxed),
            "sockets_refused_total": shared.sockets_refused.load(Ordering::Relaxed),
        });
        if let (Some(all), Value::Object(speeds)) =
            (counters.as_object_mut(), shared.speeds.counters())
        {
            all.extend(speeds);
        }
        counters
    }

    /// The room of that name and the right to it, or the sentence for the client.
    fn room(
        &self,
        name: &str,
        caller: &Caller,
    ) -> Result<(Arc<dyn Room>, Option<Right>), &'static str> {
        let entitled = |operation, resource| {
            let right = caller.right(operation, resource);
            match right.as_ref().is_none_or(Right::holds) {
                true => Ok(right),
                false => Err(NOT_AUTHORIZED),
            }
        };
        if let Some(room) = self.shared.rooms.get(name) {
            let (operation, resource) = room.asks();
            return Ok((Arc::clone(room), entitled(operation, resource)?));
        }
        let topic = name
            .strip_prefix(topic::PREFIX)
            .ok_or("there is no such room")?;
        // First: whoever may not read it is not told whether it exists.
        let right = entitled(Operation::Read, Resource::topic(topic))?;
        if self.shared.log.topic(topic).is_none() {
            return Err("there is no such topic");
        }
        let mut topics = self
            .shared
            .topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // A followed room is held by its followers and its producer as well.
        topics.retain(|name, room| name == topic || Arc::strong_count(room) > 1);
        let room = topics.entry(topic.to_owned()).or_insert_with(|| {
            let producer = on_demand(&self.shared.tracker, &self.shared.cancel);
            Arc::new(TopicRoom::new(
                self.shared.log.clone(),
                topic.to_owned(),
                producer,
            ))
        });
        Ok((Arc::clone(room) as Arc<dyn Room>, right))
    }
}

fn fixed_rooms(
    log: &Log,
    sources: &Sources,
    speeds: &Arc<SpeedBoard>,
    tracker: &TaskTracker,
    cancel: &CancellationToken,
) -> HashMap<&'static str, Arc<dyn Room>> {
    let mut rooms: HashMap<&'static str, Arc<dyn Room>> = HashMap::new();
    rooms.insert(
        overview::NAME,
        Arc::new(Overview::new(
            log.clone(),
            sources.clone(),
            on_demand(tracker, cancel),
        )),
    );
    rooms.insert("speed", Arc::clone(speeds) as Arc<dyn Room>);
    if let Some(telemetry) = &sources.telemetry {
        rooms.insert(
            "quality",
            Arc::new(Quality::new(
                Arc::clone(telemetry),
                on_demand(tracker, cancel),
            )),
        );
        rooms.insert(
            "invalid",
            Arc::new(Invalid::new(
                Arc::clone(telemetry),
                on_demand(tracker, cancel),
            )),
        );
    }
    rooms
}

fn on_demand<S: FanOut>(tracker: &TaskTracker, cancel: &CancellationToken) -> OnDemand<S> {
    OnDemand::new(tracker.clone(), cancel.clone())
}

//! The MQTT door: MQTT 3.1.1 and 5 over TCP, in front of the log.
//!
//! **Owns** its listener, the sessions of its clients, live subscriptions, retained messages and
//! the routes from MQTT topics to log topics. **May not know** the other doors or any pipeline.
//!
//! A publish of QoS 1 is acknowledged after the fdatasync that covers its record, never before and
//! never otherwise. rumqttd's listener acknowledges from memory, so the listener and the session
//! are ours; of rumqttd there are the packet codec (`codec`) and the router for live matching
//! (`router`, behind a trait).
//!
//! ```text
//! serve: accept -> connect (CONNECT, auth) -> registry (take-over) -> session
//! session: frame, publish, codec -> record (routes) -> log -> PUBACK
//!                                                       \-> fanout (router, subscriptions) -> sessions
//! ```
//!
//! What is offered, and what is not:
//! - QoS 0 and 1. A publish of QoS 2 ends its connection (MQTT 5: the CONNACK says maximum QoS 1,
//!   the DISCONNECT says 0x9B; 3.1.1 has no words for it, so that the log has them): to accept it
//!   as QoS 1 would promise what is not kept. A subscription with QoS 2 is granted QoS 1.
//! - No session outlives its connection: `session present` is 0, session expiry is told as 0,
//!   subscriptions are live. A will is therefore due when its connection ends, whatever its delay.
//! - A subscriber that is too slow misses messages once its queue is full (counted and logged); it
//!   never holds up a publisher. Subscriptions that overlap get one copy each.
//! - No negative PUBACK for a storage failure: the acknowledgement is withheld and the connection
//!   ends, so that the device keeps its message.
//! - QoS 0 publishes without a route are only fanned out; QoS 1 ones go to `mqtt.unrouted`.
//! - Topics that begin with `$` are refused, as are passwords that are not UTF-8.

mod codec;
mod config;
mod connect;
mod dissect;
mod fanout;
mod frame;
mod message;
mod publish;
mod reason;
mod record;
mod registry;
mod retained;
mod router;
mod routes;
mod serve;
mod session;
mod stats;
mod subscriptions;
mod topic;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use holdfast_storage::log::Log;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use config::{MqttConfig, RouteConfig};
pub use dissect::dissect;
pub use routes::{RouteError, UNROUTED_TOPIC};
pub use stats::MqttStats;

use self::fanout::Fanout;
use self::registry::Registry;
use self::retained::RetainedStore;
use self::router::RumqttdRouter;
use self::routes::RouteTable;
use self::topic::TopicLimits;
use crate::auth::Auth;

/// Connections beyond `connections_max` that are let in as far as to be told so; more are closed
/// at once.
const TURNED_AWAY_AT_ONCE_MAX: usize = 64;
/// After an accept that failed (no file descriptor is left, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the door did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A value of the `[mqtt]` section is out of range; the text names it.
    #[error("{0}")]
    Config(String),
    /// A route is wrong or its log topic could not be made.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The listener could not be bound.
    #[error("mqtt.listen {address}: {source}")]
    Bind {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The live router could not be started.
    #[error("{0}")]
    Router(String),
}

/// What every session shares.
struct Door {
    config: MqttConfig,
    topic_limits: TopicLimits,
    log: Log,
    auth: Auth,
    routes: RouteTable,
    registry: Registry,
    fanout: Fanout,
    retained: RetainedStore,
    stats: Arc<MqttStats>,
    /// Never `NOBODY`.
    next_connection: AtomicU64,
    shutdown: CancellationToken,
}

/// The running door.
#[derive(Debug)]
pub struct MqttHandle {
    local_addr: SocketAddr,
    stats: Arc<MqttStats>,
    main: JoinHandle<()>,
}

impl MqttHandle {
    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The door's counters.
    pub fn stats(&self) -> Arc<MqttStats> {
        Arc::clone(&self.stats)
    }

    /// Resolves when, after cancellation, every session has finished what it had begun. The log
    /// must stay open until then.
    pub async fn stopped(self) {
        if let Err(error) = self.main.await {
            warn!(%error, "the MQTT door ended badly");
        }
    }
}

/// Starts the door: makes the log topics of its routes, binds, and serves until `shutdown`.
pub async fn start(
    config: MqttConfig,
    log: Log,
    auth: Auth,
    shutdown: CancellationToken,
) -> Result<MqttHandle, StartError> {
    config.validate().map_err(StartError::Config)?;
    let topic_limits = TopicLimits::from(&config);
    let routes = RouteTable::compile(&config.routes, topic_limits)?;
    routes.ensure_topics(&log).await?;
    let bind_error = |source| StartError::Bind {
        address: config.listen,
        source,
    };
    let listener = TcpListener::bind(config.listen).await.map_err(bind_error)?;
    let local_addr = listener.local_addr().map_err(bind_error)?;
    if !config.anonymous_allowed() && !auth.has_users() {
        warn!(%local_addr, "MQTT: anonymous clients are not let in and no user exists yet");
    }
    let stats = Arc::new(MqttStats::default());
    // What the sessions need ends after the last session.
    let services_end = CancellationToken::new();
    let services = TaskTracker::new();
    let (fanout, fan_out) = Fanout::start::<RumqttdRouter>(
        config.filters_max,
        Arc::clone(&stats),
        services_end.clone(),
    )
    .await
    .map_err(|down| StartError::Router(down.to_string()))?;
    services.spawn(fan_out);
    let (retained, write_retained) =
        RetainedStore::open(&log, &config, Arc::clone(&stats), services_end.clone());
    services.spawn(write_retained);
    services.close();
    let door = Arc::new(Door {
        config,
        topic_limits,
        log,
        auth,
        routes,
        registry: Registry::default(),
        fanout,
        retained,
        stats: Arc::clone(&stats),
        next_connection: AtomicU64::new(message::NOBODY + 1),
        shutdown,
    });
    info!(%local_addr, "MQTT door is open");
    let main = tokio::spawn(async move {
        accept(door, listener).await;
        services_end.cancel();
        services.wait().await;
        info!(%local_addr, "MQTT door is closed");
    });
    Ok(MqttHandle {
        local_addr,
        stats,
        main,
    })
}

/// Accepts until shutdown, then waits for the sessions.
async fn accept(door: Arc<Door>, listener: TcpListener) {
    let sessions = TaskTracker::new();
    let seats = Arc::new(Semaphore::new(door.config.connections_max));
    let benches = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE_MAX));
    loop {
        let accepted = tokio::select! {
            () = door.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => seat(&door, &sessions, &seats, &benches, stream, peer),
            Err(error) => {
                warn!(%error, "MQTT: a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    sessions.close();
    sessions.wait().await;
}

fn seat(
    door: &Arc<Door>,
    sessions: &TaskTracker,
    seats: &Arc<Semaphore>,
    benches: &Arc<Semaphore>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let (permit, busy) = match Arc::clone(seats).try_acquire_owned() {
        Ok(permit) => (permit, false),
        Err(_) => match Arc::clone(benches).try_acquire_owned() {
            Ok(permit) => (permit, true),
            Err(_) => {
                stats::add(&door.stats.refused_total, 1);
                return;
            }
        },
    };
    let door = Arc::clone(door);
    sessions.spawn(async move {
        serve::connection(door, stream, peer, busy).await;
        drop(permit);
    });
}

//! The MQTT door: MQTT 3.1.1 and 5 over TCP, with and without TLS, in front of the log.
//!
//! **Owns** its listeners, the sessions of its clients, live subscriptions, retained messages and
//! the routes from MQTT topics to log topics. **May not know** the other doors or any pipeline.
//!
//! A publish of QoS 1 is acknowledged after the fdatasync that covers its record, never before and
//! never otherwise. rumqttd's listener acknowledges from memory, so the listener and the session
//! are ours; of rumqttd there are the packet codec (`codec`) and the router for live matching
//! (`router`, behind a trait).
//!
//! ```text
//! serve: accept -> TLS -> connect (CONNECT, auth) -> registry (take-over) -> session
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
//! - A client is who its CONNECT signs in as; without credentials it is who its certificate names, else
//!   anonymous. What access rules ask of it stands in `access`. A publish of QoS 1 that they refuse is
//!   answered with reason 0x87 in MQTT 5; 3.1.1 has no such answer, so that its connection ends. Refused
//!   publishes of QoS 0 are dropped and counted.
//! - Topics that begin with `$` are refused, as are passwords that are not UTF-8.

mod access;
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
mod stream;
mod subscriptions;
mod topic;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures_util::future::join_all;
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
use self::stats::{LogGate, add};
use self::topic::TopicLimits;
use crate::auth::{Auth, Caller, Operation};
use crate::tls::{self, Tls, TlsError};

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
    /// A listener could not be bound.
    #[error("{key} {address}: {source}")]
    Bind {
        /// `mqtt.listen` or `mqtt.tls.listen`.
        key: &'static str,
        /// The address of the configuration.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The certificate of `[mqtt.tls]` cannot be used.
    #[error("mqtt.tls: {0}")]
    Tls(#[from] TlsError),
    /// The live router could not be started.
    #[error("{0}")]
    Router(String),
}

/// What one listener asks of whoever connects.
struct Endpoint {
    tls: Option<Arc<Tls>>,
    /// Clients without credentials are let in.
    anonymous: bool,
}

struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    endpoint: Arc<Endpoint>,
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
    /// Before the lines about what access rules refused.
    denials: LogGate,
    /// Before the lines about retained messages that did not fit a new subscriber's queue.
    retained_missed: LogGate,
    /// Never `NOBODY`.
    next_connection: AtomicU64,
    shutdown: CancellationToken,
}

impl Door {
    /// Counts what access rules refused, and says so, though not every time.
    fn note_denied(&self, caller: &Caller, client: &str, operation: Operation, topic: &str) {
        add(&self.stats.denied, 1);
        if let Some(more) = self.denials.open(message::now_ms()) {
            let topic: String = topic.chars().take(100).collect();
            warn!(principal = %caller.principal(), client, ?operation, topic, more, "not authorized");
        }
    }
}

/// The running door.
#[derive(Debug)]
pub struct MqttHandle {
    local_addr: SocketAddr,
    tls_addr: Option<SocketAddr>,
    tls: Option<Arc<Tls>>,
    stats: Arc<MqttStats>,
    main: JoinHandle<()>,
}

impl MqttHandle {
    /// Where `mqtt.listen` is bound.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where `mqtt.tls.listen` is bound.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// Of the listener that has it.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
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
    let listeners = open(&config).await?;
    for Listener {
        address, endpoint, ..
    } in &listeners
    {
        if !endpoint.anonymous && !auth.has_users() {
            warn!(%address, "MQTT: anonymous clients are not let in and no user exists yet");
        }
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
        denials: LogGate::default(),
        retained_missed: LogGate::default(),
        next_connection: AtomicU64::new(message::NOBODY + 1),
        shutdown,
    });
    let address_where = |with_tls: bool| {
        let mut found = listeners.iter();
        let found = found.find(|listener| listener.endpoint.tls.is_some() == with_tls);
        found.map(|listener| listener.address)
    };
    let local_addr = address_where(false).unwrap_or(door.config.listen);
    let tls_addr = address_where(true);
    let tls = listeners.iter().find_map(|l| l.endpoint.tls.clone());
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.follow(tls::CHECK_EVERY, door.shutdown.clone()));
    }
    info!(%local_addr, ?tls_addr, "MQTT door is open");
    let main = tokio::spawn(async move {
        accept(door, listeners).await;
        services_end.cancel();
        services.wait().await;
        info!(%local_addr, "MQTT door is closed");
    });
    Ok(MqttHandle {
        local_addr,
        tls_addr,
        tls,
        stats,
        main,
    })
}

/// Binds every listener, the plain one first, and reads certificates.
async fn open(config: &MqttConfig) -> Result<Vec<Listener>, StartError> {
    let mut asked = vec![("mqtt.listen", config.listen, None)];
    if let Some(section) = &config.tls {
        let tls = section.open().await?;
        asked.push(("mqtt.tls.listen", section.listen, Some(tls)));
    }
    let mut listeners = Vec::new();
    for (key, address, tls) in asked {
        let bind_error = |source| StartError::Bind {
            key,
            address,
            source,
        };
        let socket = TcpListener::bind(address).await.map_err(bind_error)?;
        let endpoint = Endpoint {
            tls,
            anonymous: config.anonymous_allowed(address),
        };
        listeners.push(Listener {
            address: socket.local_addr().map_err(bind_error)?,
            socket,
            endpoint: Arc::new(endpoint),
        });
    }
    Ok(listeners)
}

/// Who is being served; all listeners share it, and so its limits.
struct Seats {
    sessions: TaskTracker,
    places: Arc<Semaphore>,
    benches: Arc<Semaphore>,
}

/// Accepts until shutdown, then waits for the sessions.
async fn accept(door: Arc<Door>, listeners: Vec<Listener>) {
    let seats = Seats {
        sessions: TaskTracker::new(),
        places: Arc::new(Semaphore::new(door.config.connections_max)),
        benches: Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE_MAX)),
    };
    let accepting = listeners.into_iter().map(|l| accept_at(&door, &seats, l));
    join_all(accepting).await;
    seats.sessions.close();
    seats.sessions.wait().await;
}

async fn accept_at(door: &Arc<Door>, seats: &Seats, listener: Listener) {
    loop {
        let accepted = tokio::select! {
            () = door.shutdown.cancelled() => break,
            accepted = listener.socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => seats.seat(door, &listener.endpoint, stream, peer),
            Err(error) => {
                warn!(%error, "MQTT: a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Seats {
    fn seat(
        &self,
        door: &Arc<Door>,
        endpoint: &Arc<Endpoint>,
        stream: TcpStream,
        peer: SocketAddr,
    ) {
        let (permit, busy) = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => (permit, false),
            Err(_) => match Arc::clone(&self.benches).try_acquire_owned() {
                Ok(permit) => (permit, true),
                Err(_) => {
                    add(&door.stats.refused_total, 1);
                    return;
                }
            },
        };
        let (door, endpoint) = (Arc::clone(door), Arc::clone(endpoint));
        self.sessions.spawn(async move {
            serve::connection(door, endpoint, stream, peer, busy).await;
            drop(permit);
        });
    }
}

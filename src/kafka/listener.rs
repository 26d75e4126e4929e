//! The door's socket: who may connect, how many, and how the door opens and closes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use holdfast_storage::log::Log;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::broker::{Broker, Counters};
use super::config::KafkaConfig;
use super::connection;
use super::endpoint::{self, Endpoint};
use super::groups::Coordinator;
use crate::auth::Auth;
use crate::tls::{self, Tls, TlsError};

/// Pause after a failed accept: running out of file descriptors fails at once, again and again.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error(
        "kafka.listen = {0} is reachable from other machines, and nobody would have to say who they are: \
         set kafka.allow_anonymous = true to mean that, or listen on a loopback address"
    )]
    Anonymous(SocketAddr),
    #[error("kafka.advertised = {0:?} is not host:port")]
    Advertised(String),
    #[error("cannot listen on {address} (kafka.listen): {source}")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("{0}")]
    Config(String),
    #[error("listener {name}: {source}")]
    Tls { name: String, source: TlsError },
    #[error("a start-up task ended abnormally: {0}")]
    Task(tokio::task::JoinError),
}

/// What the door has seen since it opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KafkaStats {
    /// Clients connected now.
    pub connections: usize,
    /// Closed at once because `connections_max` was reached.
    pub connections_refused: u64,
    /// Closed at once because `connections_per_address_max` was reached, or its quota.
    pub addresses_refused: u64,
    /// Requests whose clients were told to wait by a quota.
    pub throttled: u64,
    /// Closed by the door because of what the client sent, or did not read.
    pub connections_broken: u64,
    pub requests: u64,
}

/// The running door.
#[derive(Debug, Clone)]
pub struct Handle {
    listeners: Arc<[(String, SocketAddr)]>,
    tls: Arc<[Arc<Tls>]>,
    counters: Arc<Counters>,
    tasks: TaskTracker,
}

impl Handle {
    /// Where the door listens first; the real port where port 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        let first = self.listeners.first();
        first.map_or_else(|| SocketAddr::from(([0; 4], 0)), |(_, address)| *address)
    }

    /// Every listener's name and address, in the order of the configuration.
    pub fn listeners(&self) -> &[(String, SocketAddr)] {
        &self.listeners
    }

    /// Of the listeners that have it.
    pub fn tls(&self) -> &[Arc<Tls>] {
        &self.tls
    }

    pub fn stats(&self) -> KafkaStats {
        let counters = &self.counters;
        KafkaStats {
            connections: counters.connections.load(Ordering::Relaxed),
            connections_refused: counters.connections_refused.load(Ordering::Relaxed),
            connections_broken: counters.connections_broken.load(Ordering::Relaxed),
            addresses_refused: counters.addresses_refused.load(Ordering::Relaxed),
            throttled: counters.throttled.load(Ordering::Relaxed),
            requests: counters.requests.load(Ordering::Relaxed),
        }
    }

    /// Resolves when the listener and every connection have ended, after cancellation.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

/// Opens the door over `log`; cancelling `stop` closes it: what was admitted is still answered, for
/// at most `shutdown_timeout_s`. `held_groups` belong to parts of the node: their offsets never expire.
pub async fn start(
    config: KafkaConfig,
    log: Log,
    auth: Auth,
    held_groups: &'static [&'static str],
    stop: CancellationToken,
) -> Result<Handle, StartError> {
    config.validate().map_err(StartError::Config)?;
    let mut listening = Vec::new();
    for listener in endpoint::listeners(&config) {
        let (socket, endpoint) = listener.open().await?;
        listening.push((socket, Arc::new(endpoint)));
    }
    let endpoints: Vec<Arc<Endpoint>> = listening.iter().map(|(_, e)| e.clone()).collect();

    let groups = Coordinator::new(log.clone(), config.groups.clone(), wall_clock_ms);
    let connections_max = config.connections_max;
    let broker = Arc::new(Broker::new(config, endpoints, log, auth, groups, stop));
    let door = Door {
        broker,
        connections_max,
        tasks: TaskTracker::new(),
    };
    let counters = door.broker.counters.clone();
    let addresses = listening.iter().map(|(_, e)| (e.name.clone(), e.address));
    let handle = Handle {
        listeners: addresses.collect(),
        tls: listening
            .iter()
            .filter_map(|(_, e)| e.tls.clone())
            .collect(),
        counters,
        tasks: door.tasks.clone(),
    };
    let expiring = expire_offsets(door.broker.clone(), held_groups);
    handle.tasks.spawn(expiring);
    handle.tasks.spawn(keep_groups(door.broker.clone()));
    let expiring = expire_transactions(door.broker.clone());
    handle.tasks.spawn(expiring);
    for (socket, endpoint) in listening {
        let Endpoint { name, address, .. } = &*endpoint;
        tracing::info!(%address, listener = name, security = endpoint.security.name(), "Kafka door open");
        if let Some(tls) = &endpoint.tls {
            let following = tls
                .clone()
                .follow(tls::CHECK_EVERY, door.broker.stop.clone());
            handle.tasks.spawn(following);
        }
        handle.tasks.spawn(door.clone().run(socket, endpoint));
    }
    handle.tasks.close();
    Ok(handle)
}

async fn expire_offsets(broker: Arc<Broker>, held_groups: &'static [&'static str]) {
    let mut round = tokio::time::interval(EXPIRY_CHECK);
    loop {
        tokio::select! {
            () = broker.stop.cancelled() => break,
            _ = round.tick() => broker.groups.expire_offsets(held_groups).await,
        }
    }
}

async fn keep_groups(broker: Arc<Broker>) {
    broker.groups.keep_groups(broker.stop.cancelled()).await;
}

async fn expire_transactions(broker: Arc<Broker>) {
    let config = &broker.config.transactions;
    let every = Duration::from_millis(config.timeout_check_interval_ms.max(1));
    let mut round = tokio::time::interval(every);
    round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = broker.stop.cancelled() => break,
            _ = round.tick() => {}
        }
        if let Err(error) = broker.log.expire_transactions(config.id_expiry_ms).await {
            tracing::error!(%error, "transactions that timed out cannot be aborted; it is tried again");
        }
    }
}

/// Milliseconds since the Unix epoch.
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Kafka: `offsets.retention.check.interval.ms`.
const EXPIRY_CHECK: Duration = Duration::from_secs(600);

/// Longest time that a refused connection is held.
const QUOTA_WAIT_MAX: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Door {
    broker: Arc<Broker>,
    connections_max: usize,
    tasks: TaskTracker,
}

impl Door {
    async fn run(self, listener: TcpListener, endpoint: Arc<Endpoint>) {
        let stop = self.broker.stop.clone();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((socket, peer)) => self.admit(socket, peer, &endpoint),
                Err(error) => {
                    tracing::warn!(%error, "accepting a Kafka connection failed");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
        self.broker.groups.shut_down();
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr, endpoint: &Arc<Endpoint>) {
        let Some(place) = Place::take(&self.broker.counters, self.connections_max) else {
            self.broker
                .counters
                .connections_refused
                .fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, limit = self.connections_max, "Kafka connection refused: kafka.connections_max reached");
            return;
        };
        let max = self.broker.config.connections_per_address_max;
        let Some(address) = self.broker.addresses.take(peer.ip(), max) else {
            (self.broker.counters.addresses_refused).fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, limit = max, "Kafka connection refused: kafka.connections_per_address_max reached");
            return;
        };
        let (broker, endpoint) = (self.broker.clone(), endpoint.clone());
        self.tasks.spawn(async move {
            let _places = (place, address);
            if !is_within_quota(&broker, peer).await {
                return;
            }
            connection::serve(broker, endpoint, socket, peer).await;
        });
    }
}

/// A connection too many is held for as long as its address should wait, and closed, as Kafka does
/// (KIP-612).
async fn is_within_quota(broker: &Broker, peer: SocketAddr) -> bool {
    let wait = broker.quotas.take_connection(peer.ip());
    if wait.is_zero() {
        return true;
    }
    (broker.counters.addresses_refused).fetch_add(1, Ordering::Relaxed);
    tracing::warn!(%peer, ?wait, "Kafka connection refused: its address opens too many in a second");
    tokio::select! {
        () = tokio::time::sleep(wait.min(QUOTA_WAIT_MAX)) => {}
        () = broker.stop.cancelled() => {}
    }
    false
}

/// One of the places under `connections_max`; given back when dropped.
struct Place(Arc<Counters>);

impl Place {
    fn take(counters: &Arc<Counters>, max: usize) -> Option<Place> {
        let one_more = |n: usize| (n < max).then_some(n + 1);
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        counters.connections.fetch_update(set, get, one_more).ok()?;
        Some(Place(counters.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

//! The HTTP door: REST, WebSockets and the dashboard on one listener (and, if configured, further ones
//! that serve the same, one of them with TLS).
//!
//! Owns sockets, access rules, the shape of errors, and the routes about the node itself. Rooms with rules
//! of their own (telemetry intake, the speedometer) come as routers and are mounted behind the access rule
//! that [`Mounts`] names; this module knows nothing of what they do. Every limit is in [`HttpConfig`].

mod access;
mod api;
mod config;
mod dashboard;
mod errors;
mod guard;
mod server;
mod sign_in;
mod sockets;
pub mod speed;
mod stall;
pub mod telemetry;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use axum::{Router, middleware};
use holdfast_storage::log::Log;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use access::{Access, require_speed_access, require_token};
pub use access::{Peer, RouteRight};
use api::Api;
pub use config::{HttpConfig, SpeedConfig};
pub use errors::ApiError;
use guard::{BodyLimits, Counters, envelope, whole_body};
use server::{Listener, Server};
use sockets::Sockets;

use crate::auth::Auth;
use crate::live::Live;
use crate::tls::{self, Tls, TlsError};

/// One part of the node in `/health`.
#[derive(Clone)]
pub struct HealthSection {
    /// The key in the answer, such as `mqtt`.
    pub name: &'static str,
    /// Whether the part works, and its details. Public: no secrets. Must not block.
    pub probe: Arc<dyn Fn() -> (bool, Value) + Send + Sync>,
}

/// What the door serves besides its own routes. The routers must not set a fallback. Every request carries
/// a [`Peer`] as an extension, and behind an access rule a [`crate::auth::Principal`].
#[derive(Clone)]
pub struct Mounts {
    /// Behind the token: `/ingest`, `/topics/summary`, `/invalid/recent`.
    pub with_token: Router,
    /// Behind the speed rule: `POST /speed`.
    pub speed: Router,
    /// What access rules are asked for the routes of these two; one that is not named here is for those
    /// whom no rule binds.
    pub rights: Vec<RouteRight>,
    /// With authentication of their own.
    pub open: Router,
    pub health: Vec<HealthSection>,
}

impl Default for Mounts {
    fn default() -> Mounts {
        Mounts {
            with_token: Router::new(),
            speed: Router::new(),
            rights: Vec::new(),
            open: Router::new(),
            health: Vec::new(),
        }
    }
}

/// Why the door did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("HTTP cannot listen on {address}: {source}")]
    Bind {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("http.tls: {0}")]
    Tls(#[from] TlsError),
}

/// A running door.
pub struct HttpHandle {
    addresses: Vec<SocketAddr>,
    tls: Option<(SocketAddr, Arc<Tls>)>,
    tracker: TaskTracker,
}

impl HttpHandle {
    /// Where `http.listen` is bound.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.addresses.first().copied()
    }

    /// Every bound address without TLS: `http.listen`, then `http.extra_listen` in order.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where `http.tls.listen` is bound.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(address, _)| *address)
    }

    /// Of the listener that has it.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref().map(|(_, tls)| tls)
    }

    /// Resolves when, after cancellation, every connection has ended; bounded by `http.shutdown_timeout_s`.
    pub async fn stopped(&self) {
        self.tracker.wait().await;
    }
}

/// Binds every listener, then serves until `cancel`.
pub async fn start(
    config: HttpConfig,
    speed: SpeedConfig,
    log: Log,
    auth: Auth,
    live: Live,
    mounts: Mounts,
    cancel: CancellationToken,
) -> Result<HttpHandle, StartError> {
    let listeners = open(&config).await?;
    let access = Arc::new(Access {
        auth: auth.clone(),
        allow_anonymous: config.allow_anonymous,
        speed_allow_anonymous: speed.allow_anonymous,
        rights: mounts.rights.clone(),
    });
    let counters = Arc::new(Counters::default());
    let connections = Arc::new(Semaphore::new(
        config.connections_max.min(Semaphore::MAX_PERMITS),
    ));
    let api = Arc::new(Api {
        log,
        auth,
        live: live.clone(),
        sections: mounts.health.clone(),
        started: Instant::now(),
        counters: Arc::clone(&counters),
        connections: Arc::clone(&connections),
        connections_max: config.connections_max,
    });
    let router = routes(&config, access, api, live, mounts, &counters);
    let anonymous = config.allow_anonymous;
    let tracker = TaskTracker::new();
    let server = Server::new(
        router,
        config,
        counters,
        connections,
        tracker.clone(),
        cancel.clone(),
    );
    let (mut addresses, mut with_tls) = (Vec::new(), None);
    for listener in listeners {
        let local = listener.local;
        match &listener.tls {
            Some(tls) => {
                with_tls = Some((local, Arc::clone(tls)));
                let following = Arc::clone(tls).follow(tls::CHECK_EVERY, cancel.clone());
                tracker.spawn(following);
            }
            None => {
                if !local.ip().is_loopback() {
                    tracing::warn!(%local, anonymous, "HTTP is served beyond this machine, without TLS");
                }
                addresses.push(local);
            }
        }
        tracker.spawn(Arc::clone(&server).run(listener));
    }
    tracker.close();
    Ok(HttpHandle {
        addresses,
        tls: with_tls,
        tracker,
    })
}

/// Binds every listener, and reads certificates.
async fn open(config: &HttpConfig) -> Result<Vec<Listener>, StartError> {
    let plain = std::iter::once(config.listen).chain(config.extra_listen.iter().copied());
    let mut asked: Vec<_> = plain.map(|address| (address, None)).collect();
    if let Some(section) = &config.tls {
        asked.push((section.listen, Some(section.open().await?)));
    }
    let mut listeners = Vec::new();
    for (address, tls) in asked {
        let bound = Listener::bind(address, tls).await;
        listeners.push(bound.map_err(|source| StartError::Bind { address, source })?);
    }
    Ok(listeners)
}

/// The token is judged before the body is read: a stranger's bytes take no place in memory.
fn routes(
    config: &HttpConfig,
    access: Arc<Access>,
    api: Arc<Api>,
    live: Live,
    mounts: Mounts,
    counters: &Arc<Counters>,
) -> Router {
    let budget = Arc::new(Semaphore::new(
        config.request_bodies_bytes_max.min(Semaphore::MAX_PERMITS),
    ));
    let body_of = |bytes_max: usize| {
        let limits = BodyLimits {
            bytes_max,
            budget: Arc::clone(&budget),
            timeout: config.body_timeout(),
        };
        middleware::from_fn_with_state(Arc::new(limits), whole_body)
    };
    let with_token = Router::new()
        .route("/api/v1/topics", get(api::topics))
        .route("/api/v1/groups", get(api::groups))
        .with_state(Arc::clone(&api))
        .merge(mounts.with_token)
        .route_layer(body_of(config.request_body_bytes_max))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&access),
            require_token,
        ));
    let sign_in = Router::new()
        .route("/auth", post(sign_in::sign_in))
        .with_state(Arc::clone(&access))
        .route_layer(body_of(
            sign_in::BODY_BYTES_MAX.min(config.request_body_bytes_max),
        ));
    let sockets = Router::new()
        .route("/ws/live", get(sockets::live))
        .route("/ws/speed", get(sockets::gauge))
        .with_state(Arc::new(Sockets {
            access: Arc::clone(&access),
            live,
        }));
    let mut router = Router::new()
        .route("/health", get(api::health))
        .with_state(api)
        .merge(sign_in)
        .merge(with_token)
        .merge(sockets);
    // axum refuses, by panic, to lay a layer over a router without routes.
    if mounts.open.has_routes() {
        router = router.merge(
            mounts
                .open
                .route_layer(body_of(config.request_body_bytes_max)),
        );
    }
    if mounts.speed.has_routes() {
        let speed = mounts
            .speed
            .route_layer(body_of(config.request_body_bytes_max))
            .route_layer(middleware::from_fn_with_state(access, require_speed_access));
        router = router.merge(speed);
    }
    router
        .fallback(dashboard::serve)
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            Arc::clone(counters),
            envelope,
        ))
}

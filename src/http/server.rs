//! Listeners and connections: accepts within a limit, serves HTTP/1.1, ends within a bound.
//!
//! Limits: `http.connections_max` served, [`REFUSALS_MAX`] more being told so, the rest closed unheard.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::access::Peer;
use super::config::HttpConfig;
use super::errors::ApiError;
use super::guard::Counters;
use super::stall::StallGuard;

/// Connections beyond the limit that are answered 503 at once; more are closed without a word.
const REFUSALS_MAX: usize = 64;

/// How long a refused connection may take to send its request and read the refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause after a failed accept: the usual cause is a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Largest number of request headers; hyper's default, named.
const HEADERS_MAX: usize = 100;

pub(super) struct Server {
    router: Router,
    config: HttpConfig,
    counters: Arc<Counters>,
    connections: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

impl Server {
    pub(super) fn new(
        router: Router,
        config: HttpConfig,
        counters: Arc<Counters>,
        connections: Arc<Semaphore>,
        tracker: TaskTracker,
        cancel: CancellationToken,
    ) -> Arc<Server> {
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        Arc::new(Server {
            router,
            config,
            counters,
            connections,
            refusals,
            tracker,
            cancel,
        })
    }

    /// Accepts until cancelled.
    pub(super) async fn run(self: Arc<Server>, listener: TcpListener, local: SocketAddr) {
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.admit(
                    stream,
                    Peer {
                        address,
                        listener: local,
                    },
                ),
                Err(error) => {
                    tracing::warn!(%local, %error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Server>, stream: TcpStream, peer: Peer) {
        if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
            self.counters.connections.fetch_add(1, Ordering::Relaxed);
            self.tracker
                .spawn(Arc::clone(self).serve(stream, peer, permit));
            return;
        }
        self.counters
            .connections_refused
            .fetch_add(1, Ordering::Relaxed);
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.tracker.spawn(refuse(stream, permit));
        }
    }

    async fn serve(self: Arc<Server>, stream: TcpStream, peer: Peer, permit: OwnedSemaphorePermit) {
        let service = WithPeer {
            router: self.router.clone(),
            peer,
        };
        // Small answers must not wait for the peer's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let io = TokioIo::new(StallGuard::new(stream, self.config.write_timeout()));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.head_timeout())
            .max_buf_size(self.config.head_bytes_max.max(8192))
            .max_headers(HEADERS_MAX)
            .serve_connection(io, service)
            .with_upgrades();
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                timeout(self.config.shutdown_timeout(), connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.address, %error, "connection ended with an error");
        }
        drop(permit);
    }
}

/// Answers one request with 503 and closes.
async fn refuse(stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let full = hyper::service::service_fn(|_: Request<Incoming>| async {
        let sentence = "this node serves as many connections as it is allowed to: try again";
        let mut answer = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, sentence)
            .retry_after(1)
            .into_response();
        answer.headers_mut().insert(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        );
        Ok::<_, std::convert::Infallible>(answer)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REFUSAL_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), full);
    // A peer that is too slow even for a refusal is simply closed.
    let _ = timeout(REFUSAL_TIMEOUT, connection).await;
}

/// The router, told over which connection a request came.
#[derive(Clone)]
struct WithPeer {
    router: Router,
    peer: Peer,
}

impl Service<Request<Incoming>> for WithPeer {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        TowerToHyperService::new(self.router.clone()).call(request)
    }
}

/// Binds one listener; the error names the address.
pub(super) async fn bind(
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), (SocketAddr, io::Error)> {
    let listener = TcpListener::bind(address).await.map_err(|e| (address, e))?;
    let local = listener.local_addr().map_err(|e| (address, e))?;
    Ok((listener, local))
}

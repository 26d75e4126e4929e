//! Listeners and connections: accepts within a limit, with or without TLS, serves HTTP/1.1, ends within a
//! bound.
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
use tokio::io::{AsyncRead, AsyncWrite};
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
use crate::auth::Principal;
use crate::tls::Tls;
use crate::tls::listener::NotLetIn;

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
    pub(super) async fn run(self: Arc<Server>, listener: Listener) {
        let local = listener.local;
        loop {
            let accepted = tokio::select! {
                () = self.cancel.cancelled() => return,
                accepted = listener.socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => {
                    let peer = Peer {
                        address,
                        listener: local,
                        certificate: None,
                    };
                    self.admit(stream, peer, listener.tls.clone());
                }
                Err(error) => {
                    tracing::warn!(%local, %error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(self: &Arc<Server>, stream: TcpStream, peer: Peer, tls: Option<Arc<Tls>>) {
        if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
            self.counters.connections.fetch_add(1, Ordering::Relaxed);
            self.tracker
                .spawn(Arc::clone(self).serve(stream, peer, tls, permit));
            return;
        }
        self.counters
            .connections_refused
            .fetch_add(1, Ordering::Relaxed);
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.tracker.spawn(refuse(stream, tls, permit));
        }
    }

    async fn serve(
        self: Arc<Server>,
        stream: TcpStream,
        mut peer: Peer,
        tls: Option<Arc<Tls>>,
        permit: OwnedSemaphorePermit,
    ) {
        // Small answers must not wait for the peer's delayed acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        let stream = StallGuard::new(stream, self.config.write_timeout());
        let Some(tls) = tls else {
            self.converse(stream, peer).await;
            return drop(permit);
        };
        let limit = self.config.head_timeout();
        let entered = tokio::select! {
            entered = timeout(limit, tls.let_in(stream)) => entered,
            () = self.cancel.cancelled() => return,
        };
        match entered {
            Ok(Ok((stream, name))) => {
                let from = peer.address.ip();
                peer.certificate = name.map(|name| Principal::of_certificate(&name, from));
                self.converse(stream, peer).await;
            }
            Ok(Err(refused)) => self.note_not_let_in(&peer, &refused.to_string(), Some(&refused)),
            Err(_) => self.note_not_let_in(&peer, "the TLS handshake took too long", None),
        }
        drop(permit);
    }

    /// A certificate that names nobody is worth a line by itself; strangers that break off are not.
    fn note_not_let_in(&self, peer: &Peer, reason: &str, refused: Option<&NotLetIn>) {
        self.counters.tls_refused.fetch_add(1, Ordering::Relaxed);
        let peer = peer.address;
        match refused {
            Some(NotLetIn::Certificate(_)) => tracing::warn!(%peer, reason, "connection refused"),
            _ => tracing::debug!(%peer, reason, "connection refused"),
        }
    }

    async fn converse<S>(&self, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let address = peer.address;
        let service = WithPeer {
            router: self.router.clone(),
            peer,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.config.head_timeout())
            .max_buf_size(self.config.head_bytes_max.max(8192))
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service)
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
            tracing::debug!(peer = %address, %error, "connection ended with an error");
        }
    }
}

/// Answers one request with 503 and closes. A peer that is too slow even for that is simply closed.
async fn refuse(stream: TcpStream, tls: Option<Arc<Tls>>, _permit: OwnedSemaphorePermit) {
    let refusing = async {
        match tls {
            None => refuse_over(stream).await,
            Some(tls) => {
                if let Ok((stream, _)) = tls.let_in(stream).await {
                    refuse_over(stream).await;
                }
            }
        }
    };
    let _ = timeout(REFUSAL_TIMEOUT, refusing).await;
}

async fn refuse_over<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
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
    let _ = connection.await;
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
        request.extensions_mut().insert(self.peer.clone());
        TowerToHyperService::new(self.router.clone()).call(request)
    }
}

/// A bound listener.
pub(super) struct Listener {
    socket: TcpListener,
    pub(super) local: SocketAddr,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Listener {
    pub(super) async fn bind(address: SocketAddr, tls: Option<Arc<Tls>>) -> io::Result<Listener> {
        let socket = TcpListener::bind(address).await?;
        let local = socket.local_addr()?;
        Ok(Listener { socket, local, tls })
    }
}

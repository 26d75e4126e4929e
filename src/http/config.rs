//! Section `[http]` of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use crate::tls::listener::TlsListenerConfig;

/// Where the HTTP door listens and what it bears.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address of the door. Default `127.0.0.1:8080`.
    pub listen: SocketAddr,
    /// Further addresses that serve exactly the same, for clients with fixed ports
    /// (`127.0.0.1:8000`, `127.0.0.1:9000`, `127.0.0.1:3000`). Default none.
    pub extra_listen: Vec<SocketAddr>,
    /// `[http.tls]`: a listener with TLS beside them that serves the same; every limit counts all
    /// together, and the handshake may take as long as a request head. Default none.
    pub tls: Option<TlsListenerConfig>,
    /// Serves every route without a token. A token that is sent is still judged. Default false.
    pub allow_anonymous: bool,
    /// Connections served at once, over all listeners; one more is answered 503. Default 1024.
    pub connections_max: usize,
    /// Largest request body in bytes; a larger one is answered 413. Default 8 MiB.
    pub request_body_bytes_max: usize,
    /// Bytes of request bodies held in memory at once, over all connections; beyond it 503. Default 64 MiB.
    pub request_bodies_bytes_max: usize,
    /// Largest request head in bytes; a larger one is answered 431. At least 8192. Default 32 KiB.
    pub head_bytes_max: usize,
    /// A connection that has not sent a whole request head this many seconds after it was opened, or
    /// after its last answer, is closed. Default 30.
    pub head_timeout_s: u64,
    /// A body that has not arrived whole after this many seconds is answered 408. Default 30.
    pub body_timeout_s: u64,
    /// A client that takes none of what is written to it for this many seconds is disconnected. Default 30.
    pub write_timeout_s: u64,
    /// How long requests under way may take to finish at shutdown, in seconds. Default 5.
    pub shutdown_timeout_s: u64,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            extra_listen: Vec::new(),
            tls: None,
            allow_anonymous: false,
            connections_max: 1024,
            request_body_bytes_max: 8 << 20,
            request_bodies_bytes_max: 64 << 20,
            head_bytes_max: 32 << 10,
            head_timeout_s: 30,
            body_timeout_s: 30,
            write_timeout_s: 30,
            shutdown_timeout_s: 5,
        }
    }
}

/// Section `[speed]`: the speedometer's routes, `POST /speed` and `/ws/speed`.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeedConfig {
    /// Opens them without a token on listeners that others can reach; on loopback listeners they are open
    /// in any case. Default false.
    pub allow_anonymous: bool,
}

impl HttpConfig {
    pub(super) fn head_timeout(&self) -> Duration {
        Duration::from_secs(self.head_timeout_s.max(1))
    }

    pub(super) fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout_s.max(1))
    }

    pub(super) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_s.max(1))
    }

    pub(super) fn shutdown_timeout(&self) -> Duration {
        Duration::from_secs(self.shutdown_timeout_s)
    }
}

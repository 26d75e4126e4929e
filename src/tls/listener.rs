//! A listener with TLS beside a door's plain one: its section, and how its clients are let in.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::{ClientAuth, Tls, TlsConfig, TlsError, TlsVersion, both_versions, default_rules};

/// `[mqtt.tls]` and `[http.tls]`: an address, and the keys of [`TlsConfig`], named again because serde cannot
/// both flatten a section and refuse keys that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsListenerConfig {
    /// Address of the listener. Port 0 takes a free one, printed at start.
    pub listen: SocketAddr,
    /// The node's certificate, and behind it those that vouch for it (PEM).
    pub certificate_file: PathBuf,
    /// Its key (PEM, not encrypted).
    pub private_key_file: PathBuf,
    /// Whether clients are asked for a certificate, which then says who they are. Default `none`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The authorities that vouch for clients (PEM).
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Default both.
    #[serde(default = "both_versions")]
    pub protocols: Vec<TlsVersion>,
    /// How a certificate's subject becomes a user's name. Default `DEFAULT`, the subject itself.
    #[serde(default = "default_rules")]
    pub principal_mapping_rules: String,
}

impl TlsListenerConfig {
    /// Reads its files.
    pub async fn open(&self) -> Result<Arc<Tls>, TlsError> {
        let config = TlsConfig {
            certificate_file: self.certificate_file.clone(),
            private_key_file: self.private_key_file.clone(),
            client_auth: self.client_auth,
            client_ca_file: self.client_ca_file.clone(),
            protocols: self.protocols.clone(),
            principal_mapping_rules: self.principal_mapping_rules.clone(),
        };
        let loaded = tokio::task::spawn_blocking(move || Tls::load(config)).await?;
        loaded.map(Arc::new)
    }
}

/// Why a client was not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLetIn {
    #[error("the client closed during the TLS handshake")]
    Closed,
    #[error("the client does not speak TLS, and this listener does")]
    NotTls,
    #[error("TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("the client's certificate: {0}")]
    Certificate(#[from] TlsError),
}

impl Tls {
    /// The handshake, and the name of the client if it presented a certificate. Knows no time-out: the
    /// door's own must be around it.
    pub async fn let_in<S>(&self, stream: S) -> Result<(TlsStream<S>, Option<String>), NotLetIn>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.acceptor().accept(stream).await.map_err(|error| {
            let source = error.get_ref().and_then(|e| e.downcast_ref());
            match source {
                Some(rustls::Error::InvalidMessage(_)) => NotLetIn::NotTls,
                None if error.kind() == io::ErrorKind::UnexpectedEof => NotLetIn::Closed,
                _ => NotLetIn::Handshake(error),
            }
        })?;
        let name = self.client_name(stream.get_ref().1)?;
        Ok((stream, name))
    }
}

//! TLS towards a node: whose certificate is believed, and the one that is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{TlsError, certificates, private_key, unusable};

/// The client's certificate and its key (PEM).
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate_file: PathBuf,
    pub private_key_file: PathBuf,
}

/// How to reach nodes that one authority vouches for.
#[derive(Clone)]
pub struct TlsClient(TlsConnector);

impl TlsClient {
    /// Reads the files. Blocks on disk.
    pub fn load(
        authorities_file: &Path,
        identity: Option<&Identity>,
    ) -> Result<TlsClient, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(authorities_file)? {
            let added = roots.add(certificate);
            added.map_err(|error| unusable(authorities_file, error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(&identity.certificate_file)?;
                let key = private_key(&identity.private_key_file)?;
                let made = builder.with_client_auth_cert(chain, key);
                made.map_err(|error| unusable(&identity.certificate_file, error.to_string()))?
            }
        };
        Ok(TlsClient(TlsConnector::from(Arc::new(config))))
    }

    /// The handshake over a connection to `host:port`, whose certificate must name this host.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        address: &str,
        socket: S,
    ) -> std::io::Result<TlsStream<S>> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| std::io::Error::other(format!("{host}: {error}")))?;
        self.0.connect(name, socket).await
    }
}

impl std::fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsClient")
    }
}

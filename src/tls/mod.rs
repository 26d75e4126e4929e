//! TLS for any door: certificates and keys from PEM files, clients' certificates, and who they name.
//!
//! Knows no protocol above it: a door takes an acceptor for each connection and asks afterwards who the
//! client is. Files that change are read again ([`Tls::follow`]), or when the operator says so
//! ([`Tls::read_again`]), and count for new connections; files that cannot be used are reported once and
//! leave what is in force. With new files old session tickets end, so that no session outlives the
//! authority that vouched for its client.
//!
//! TLS 1.2 and 1.3 by rustls over `ring`. [`listener`] is a door's own listener with TLS, [`client`] the
//! other side, for the command line. Only regular files are read. [`subject`] writes a certificate's subject, [`mapping`] makes a name
//! of it. Limit: [`FILE_BYTES_MAX`].

pub mod client;
pub mod listener;
pub mod mapping;
mod subject;
#[cfg(test)]
pub(crate) mod tests;

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use std::{fs, os::unix::fs::MetadataExt as _, os::unix::fs::OpenOptionsExt as _};

use rustix::fs::OFlags;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::mapping::{NoRule, PrincipalMapper, RulesError};

/// Largest file that is read.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// How often files are looked at.
pub const CHECK_EVERY: Duration = Duration::from_secs(10);

const DO_NOT_WAIT: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// TLS of one listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The node's certificate, and behind it those that vouch for it (PEM).
    pub certificate_file: PathBuf,
    /// Its key (PEM: PKCS #8, PKCS #1 or SEC 1, not encrypted).
    pub private_key_file: PathBuf,
    /// Whether clients are asked for a certificate. Kafka: `ssl.client.auth`. Default `none`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// The authorities that vouch for clients (PEM).
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Default both.
    #[serde(default = "both_versions")]
    pub protocols: Vec<TlsVersion>,
    /// How a certificate's subject becomes a user's name. Kafka: `ssl.principal.mapping.rules`. Default
    /// `DEFAULT`, the subject itself.
    #[serde(default = "default_rules")]
    pub principal_mapping_rules: String,
}

/// Kafka: `ssl.client.auth`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    #[default]
    None,
    /// A client without a certificate is let in, one with a wrong certificate is not.
    Requested,
    Required,
}

impl ClientAuth {
    /// As Kafka spells it.
    pub fn name(self) -> &'static str {
        match self {
            ClientAuth::None => "none",
            ClientAuth::Requested => "requested",
            ClientAuth::Required => "required",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TlsVersion {
    #[serde(rename = "TLSv1.2")]
    V12,
    #[serde(rename = "TLSv1.3")]
    V13,
}

impl TlsVersion {
    /// As Kafka spells it.
    pub fn name(self) -> &'static str {
        match self {
            TlsVersion::V12 => "TLSv1.2",
            TlsVersion::V13 => "TLSv1.3",
        }
    }
}

fn both_versions() -> Vec<TlsVersion> {
    vec![TlsVersion::V12, TlsVersion::V13]
}

fn default_rules() -> String {
    "DEFAULT".to_owned()
}

/// Why TLS cannot be offered, or a client not be named.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {reason}")]
    File { path: PathBuf, reason: String },
    #[error("the key in {key} is not that of the certificate in {certificate}")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("TLS: {0}")]
    Config(&'static str),
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    #[error("the client's certificate cannot be read")]
    Subject,
    #[error(transparent)]
    NoRule(#[from] NoRule),
    #[error("reading certificates ended abnormally: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// TLS of one listener, as its files say now.
#[derive(Debug)]
pub struct Tls {
    config: TlsConfig,
    mapper: PrincipalMapper,
    current: RwLock<Arc<ServerConfig>>,
    /// Of the files when they were last looked at, whether they could be used or not.
    seen: Mutex<Vec<Option<Stamp>>>,
}

/// Changes when a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Tls {
    /// Reads the files. Blocks on disk.
    pub fn load(config: TlsConfig) -> Result<Tls, TlsError> {
        check(&config)?;
        let mapper = PrincipalMapper::parse(&config.principal_mapping_rules)?;
        let seen = stamps(&config);
        let current = server_config(&config)?;
        Ok(Tls {
            mapper,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(seen),
            config,
        })
    }

    /// For the next connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        TlsAcceptor::from(Arc::clone(&current))
    }

    /// Reads the files again if one of them has changed since they were last looked at; whether new ones
    /// are in force. On an error the old ones stay. Blocks on disk.
    pub fn reload(&self) -> Result<bool, TlsError> {
        self.read_files(false)
    }

    fn read_files(&self, even_unchanged: bool) -> Result<bool, TlsError> {
        // Held to the end, so that what was read first is not in force last.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.config);
        if *seen == now && !even_unchanged {
            return Ok(false);
        }
        *seen = now;
        let fresh = Arc::new(server_config(&self.config)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(true)
    }

    /// Looks at the files every so often, until `stop`.
    pub async fn follow(self: Arc<Self>, every: Duration, stop: CancellationToken) {
        let mut round = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = round.tick() => {}
            }
            // Not waited for at the end: a disk that does not answer keeps its thread, not the node.
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.look(false) => {}
            }
        }
    }

    /// Reads the files now, and says in the log what came of it.
    pub async fn read_again(self: &Arc<Self>) {
        self.look(true).await;
    }

    async fn look(self: &Arc<Self>, even_unchanged: bool) {
        let tls = Arc::clone(self);
        let file = &self.config.certificate_file;
        match tokio::task::spawn_blocking(move || tls.read_files(even_unchanged)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => tracing::info!("{}: new certificate in force", file.display()),
            Ok(Err(error)) => {
                tracing::error!(%error, "{}: the old certificate stays in force", file.display());
            }
            Err(error) => tracing::error!(%error, "reading certificates ended abnormally"),
        }
    }

    /// The name of the client after the handshake; `None` if it presented no certificate.
    pub fn client_name(&self, connection: &ServerConnection) -> Result<Option<String>, TlsError> {
        let presented = connection.peer_certificates().and_then(<[_]>::first);
        let Some(certificate) = presented else {
            return Ok(None);
        };
        let subject = subject::of_certificate(certificate).ok_or(TlsError::Subject)?;
        Ok(Some(self.mapper.name_of(&subject)?))
    }
}

fn check(config: &TlsConfig) -> Result<(), TlsError> {
    let asks = config.client_auth != ClientAuth::None;
    if config.protocols.is_empty() {
        Err(TlsError::Config("no protocol is named"))
    } else if asks && config.client_ca_file.is_none() {
        Err(TlsError::Config(
            "clients are asked for a certificate, and no client_ca_file says who vouches for them",
        ))
    } else if !asks && config.client_ca_file.is_some() {
        Err(TlsError::Config(
            "client_ca_file is named, and client_auth asks nobody for a certificate",
        ))
    } else {
        Ok(())
    }
}

fn stamps(config: &TlsConfig) -> Vec<Option<Stamp>> {
    let named = [&config.certificate_file, &config.private_key_file];
    let files = named.into_iter().chain(&config.client_ca_file);
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    };
    files.map(stamp).collect()
}

fn server_config(config: &TlsConfig) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let chain = certificates(&config.certificate_file)?;
    let key = private_key(&config.private_key_file)?;
    let versions: Vec<_> = [
        (TlsVersion::V13, &rustls::version::TLS13),
        (TlsVersion::V12, &rustls::version::TLS12),
    ]
    .into_iter()
    .filter(|(version, _)| config.protocols.contains(version))
    .map(|(_, version)| version)
    .collect();
    let verifier = client_verifier(config, &provider)?;
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
    let builder = builder.with_client_cert_verifier(verifier);
    let made = builder.with_single_cert(chain, key);
    let mut made = made.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            certificate: config.certificate_file.clone(),
            key: config.private_key_file.clone(),
        },
        rustls::Error::InvalidCertificate(reason) => {
            unusable(&config.certificate_file, format!("{reason:?}"))
        }
        error => unusable(&config.private_key_file, error.to_string()),
    })?;
    made.ticketer = ring::Ticketer::new()?;
    Ok(made)
}

fn client_verifier(
    config: &TlsConfig,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let authorities = match (&config.client_ca_file, config.client_auth) {
        (Some(path), ClientAuth::Requested | ClientAuth::Required) => path,
        _ => return Ok(Arc::new(NoClientAuth)),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authorities)? {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(authorities, error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
    if config.client_auth == ClientAuth::Requested {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build();
    verifier.map_err(|error| unusable(authorities, error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| unusable(path, error.to_string()))?;
    match found.is_empty() {
        true => Err(unusable(path, "it holds no certificate (PEM)")),
        false => Ok(found),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if holds(&text, b"ENCRYPTED PRIVATE KEY") => unusable(
            path,
            "its key is encrypted; a node that starts by itself can only read one that is not",
        ),
        pem::Error::NoItemsFound => unusable(path, "it holds no private key (PEM)"),
        error => unusable(path, error.to_string()),
    })
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = Vec::new();
    let mut options = fs::OpenOptions::new();
    // A FIFO would be waited for, for ever where nobody writes to it.
    let options = options.read(true).custom_flags(DO_NOT_WAIT);
    let file = options.open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(unusable(path, "it is not a regular file"));
    }
    let mut limited = file.take(FILE_BYTES_MAX + 1);
    limited.read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(
            path,
            format!("it has more than {FILE_BYTES_MAX} bytes"),
        ));
    }
    Ok(text)
}

fn unusable(path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

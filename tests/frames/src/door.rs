//! A node's Kafka door over a log in a temporary directory, with everything on that has code: access
//! rules (which bind everybody but the attacker), SASL on a second listener.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use holdfast::auth::{ANONYMOUS, Auth, AuthConfig, Authorizer, PRINCIPAL_TYPE};
use holdfast::kafka::{Handle, KafkaConfig, ListenerConfig, Security, start};
use holdfast_storage::log::{Log, LogOptions, Retention};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::sasl;

/// Reads and checks of records at once: each may unpack a batch.
pub const READS_MAX: usize = 4;
pub const REQUESTS_BYTES_MAX: usize = 32 << 20;
pub const RESPONSES_BYTES_MAX: usize = 32 << 20;

/// The door and the threads it runs on: not the attackers'.
pub struct Door {
    runtime: Runtime,
    log: Log,
    handle: Handle,
    stop: CancellationToken,
    _dir: TempDir,
}

/// Memory before disk: what is thrown away needs no fdatasync that takes its time.
fn parent() -> PathBuf {
    let shared = PathBuf::from("/dev/shm");
    if shared.is_dir() {
        shared
    } else {
        std::env::temp_dir()
    }
}

impl Door {
    pub fn open() -> Door {
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build();
        let runtime = threads.expect("threads for the node");
        let dir = tempfile::Builder::new()
            .prefix("holdfast-frames-")
            .tempdir_in(parent());
        let dir = dir.expect("a temporary directory");
        let options = LogOptions {
            segment_bytes: 8 << 20,
            retention: Retention {
                ms: None,
                bytes: Some(8 << 20),
            },
            cleaner_interval: Duration::from_secs(1),
            ..LogOptions::new(dir.path())
        };
        let log = Log::open(options).expect("a log");
        let stop = CancellationToken::new();
        let opening = open_door(log.clone(), stop.clone());
        let handle = runtime.block_on(opening);
        Door {
            runtime,
            log,
            handle,
            stop,
            _dir: dir,
        }
    }

    /// Where nobody has to say who they are.
    pub fn address(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Where they have to.
    pub fn sasl_address(&self) -> SocketAddr {
        self.handle.listeners()[1].1
    }

    /// Connections that the door has.
    pub fn connections(&self) -> usize {
        self.handle.stats().connections
    }

    /// What is in the log by now.
    pub fn state(&self) -> String {
        let topics = self.log.topics();
        let partitions: usize = topics.iter().map(|topic| topic.partitions().len()).sum();
        format!("{} topics with {partitions} partitions", topics.len())
    }

    /// Everything that was admitted has ended when this returns.
    pub fn close(self) {
        self.stop.cancel();
        self.runtime.block_on(self.handle.stopped());
        self.log.close();
        self.runtime.shutdown_timeout(Duration::from_secs(10));
    }
}

async fn open_door(log: Log, stop: CancellationToken) -> Handle {
    let auth = AuthConfig {
        authorizer: Authorizer::Acl,
        super_users: vec![format!("{PRINCIPAL_TYPE}{ANONYMOUS}")],
        failures_max: u32::MAX,
        password_hash_memory_bytes: 7 << 20,
        ..AuthConfig::default()
    };
    let auth = Auth::open_with(log.clone(), auth).await.expect("users");
    let signer = auth.create_user(sasl::SIGNER, sasl::PASSWORD, true);
    signer.await.expect("a user");
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = KafkaConfig {
        listen: Some(local),
        listeners: vec![ListenerConfig {
            name: "SASL".to_owned(),
            listen: local,
            advertised: None,
            security: Security::SaslPlaintext,
            sasl_mechanisms: None,
            allow_anonymous: false,
            tls: None,
        }],
        partitions_max: 500,
        reads_max: READS_MAX,
        requests_bytes_max: REQUESTS_BYTES_MAX,
        responses_bytes_max: RESPONSES_BYTES_MAX,
        ..KafkaConfig::default()
    };
    config.groups.initial_rebalance_delay_ms = 0;
    config.transactions.timeout_check_interval_ms = 500;
    start(config, log, auth, &[], stop).await.expect("a door")
}

//! What every connection of the door shares, and the few questions all handlers ask of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use holdfast_storage::log::{FetchError, Log, Partition, TOPIC_NAME_BYTES_MAX, Topic, TopicId};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::KafkaConfig;
use super::endpoint::Endpoint;
use super::fetch_sessions::FetchSessions;
use super::groups::Coordinator;
use super::protocol::{ApiKey, ErrorCode, Str};
use super::quotas::{Quota, Quotas};
use super::throttle::{Addresses, Throttle};
use crate::auth::{Auth, Principal};

/// A code for the client's program and a sentence for its reader.
pub(super) type Refusal = (ErrorCode, String);

/// The node as Kafka clients see it.
pub(super) struct Broker {
    pub(super) log: Log,
    pub(super) groups: Coordinator,
    pub(super) config: KafkaConfig,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) auth: Auth,
    pub(super) stop: CancellationToken,
    /// Bytes of Produce requests that may still be read.
    pub(super) request_bytes: Arc<Semaphore>,
    pub(super) counters: Arc<Counters>,
    /// Record bytes of Fetch responses that may still be held.
    response_bytes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    pub(super) fetch_sessions: FetchSessions,
    pub(super) quotas: Quotas,
    pub(super) addresses: Arc<Addresses>,
}

/// What the door counts; read through [`super::Handle::stats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connections: AtomicUsize,
    pub(super) connections_refused: AtomicU64,
    pub(super) connections_broken: AtomicU64,
    pub(super) addresses_refused: AtomicU64,
    pub(super) throttled: AtomicU64,
    pub(super) requests: AtomicU64,
}

/// Who asks, in which version, over which connection.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) client_id: String,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    /// The listener that the connection came in by.
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) principal: Principal,
    /// How long it should wait before it asks again.
    pub(super) throttle: Arc<Throttle>,
}

impl Asker {
    /// Whose quotas count.
    pub(super) fn user(&self) -> &str {
        self.principal.name()
    }
}

/// How a request names a topic: by name, or since KIP-516 by id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum TopicRef {
    Name(Str),
    Id(Uuid),
}

impl TopicRef {
    pub(super) fn new(by_id: bool, name: &Str, id: Uuid) -> TopicRef {
        if by_id {
            TopicRef::Id(id)
        } else {
            TopicRef::Name(name.clone())
        }
    }

    pub(super) fn unknown(&self) -> ErrorCode {
        match self {
            TopicRef::Name(_) => ErrorCode::UnknownTopicOrPartition,
            TopicRef::Id(_) => ErrorCode::UnknownTopicId,
        }
    }
}

impl Broker {
    pub(super) fn new(
        config: KafkaConfig,
        endpoints: Vec<Arc<Endpoint>>,
        log: Log,
        auth: Auth,
        groups: Coordinator,
        stop: CancellationToken,
    ) -> Broker {
        let reads = Arc::new(Semaphore::new(config.reads_max.max(1)));
        let requests = config.requests_bytes_max.max(config.request_bytes_max);
        let request_bytes = Arc::new(byte_permits(requests));
        let response_bytes = Arc::new(byte_permits(config.responses_bytes_max));
        let counters = Arc::default();
        let sessions_max = config.fetch_sessions_max;
        let fetch_sessions = FetchSessions::new(sessions_max, config.fetch_session_partitions_max);
        let quotas = Quotas::open(log.clone());
        Broker {
            log,
            groups,
            config,
            endpoints,
            auth,
            stop,
            request_bytes,
            counters,
            response_bytes,
            reads,
            fetch_sessions,
            quotas,
            addresses: Arc::default(),
        }
    }

    /// Where room for the bytes of Fetch responses is taken.
    pub(super) fn response_bytes(&self) -> Arc<Semaphore> {
        self.response_bytes.clone()
    }

    pub(super) fn node_id(&self) -> i32 {
        self.config.node_id
    }

    /// Host and port to name in answers to this asker.
    pub(super) fn address_for(&self, asker: &Asker) -> (String, i32) {
        match &asker.endpoint.advertised {
            Some((host, port)) => (host.clone(), i32::from(*port)),
            None => (
                asker.local.ip().to_canonical().to_string(),
                i32::from(asker.local.port()),
            ),
        }
    }

    pub(super) fn topic(&self, topic: &TopicRef) -> Result<Arc<Topic>, ErrorCode> {
        let found = match topic {
            // Not even hashed: it would be once for every partition that is asked for.
            TopicRef::Name(name) if name.as_str().len() > TOPIC_NAME_BYTES_MAX => None,
            TopicRef::Name(name) => self.log.topic(name.as_str()),
            TopicRef::Id(id) => self.log.topic_by_id(TopicId(*id)),
        };
        found.ok_or_else(|| topic.unknown())
    }

    pub(super) fn partition(
        &self,
        topic: &TopicRef,
        index: i32,
    ) -> Result<Arc<Partition>, ErrorCode> {
        let topic = self.topic(topic)?;
        topic
            .partition(index)
            .cloned()
            .ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    /// Kafka's check of the epoch a client believes in (KIP-320); -1 believes in none.
    pub(super) fn check_epoch(&self, believed: i32) -> Result<(), ErrorCode> {
        let current = self.log.leader_epoch();
        if believed < 0 || believed == current {
            Ok(())
        } else if believed < current {
            Err(ErrorCode::FencedLeaderEpoch)
        } else {
            Err(ErrorCode::UnknownLeaderEpoch)
        }
    }

    /// Counts what the asker takes of a quota, and has it wait if that is too much.
    pub(super) fn take(&self, quota: Quota, asker: &Asker, amount: f64) {
        let wait = self
            .quotas
            .take(quota, asker.user(), &asker.client_id, amount);
        if !wait.is_zero() {
            self.counters.throttled.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer = %asker.peer, client_id = asker.client_id, quota = quota.name(), ?wait, "Kafka client throttled");
            asker.throttle.add(wait);
        }
    }

    /// Whether the asker has taken too much already.
    pub(super) fn is_over(&self, quota: Quota, asker: &Asker) -> bool {
        let wait = self.quotas.take(quota, asker.user(), &asker.client_id, 0.0);
        asker.throttle.add(wait);
        !wait.is_zero()
    }

    /// Runs `read` where it may wait for the disk without holding up other connections.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Log) -> T + Send + 'static,
    ) -> Result<T, ErrorCode> {
        let closing = ErrorCode::NotLeaderOrFollower;
        let permit = self.reads.clone().acquire_owned().await;
        let permit = permit.map_err(|_| closing)?;
        let log = self.log.clone();
        let read = move || {
            // Whoever waits for it may be gone before it ends.
            let _permit = permit;
            read(&log)
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| {
            tracing::error!(%error, "a read of the log did not finish");
            ErrorCode::UnknownServerError
        })
    }
}

/// One permit a byte, within what a semaphore can count and hand out at once.
fn byte_permits(bytes: usize) -> Semaphore {
    Semaphore::new(bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize)))
}

/// The code for a failed read; the reason is for the operator, not for the client.
pub(super) fn fetch_error(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FetchError::Deleted => ErrorCode::UnknownTopicOrPartition,
        other => {
            tracing::error!(error = %other, "reading a partition failed");
            ErrorCode::KafkaStorageError
        }
    }
}

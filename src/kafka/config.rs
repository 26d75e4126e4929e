//! What an operator can set about the Kafka door.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use super::groups::GroupsConfig;

/// `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Address of the door. Default `127.0.0.1:9092`.
    pub listen: SocketAddr,
    /// `host:port` that clients are told to connect to. Default: the address they already reached
    /// the door at, which is right unless there is address translation in between.
    pub advertised: Option<String>,
    /// Serves clients that have not said who they are; needed to listen on a non-loopback address.
    /// Default false.
    pub allow_anonymous: bool,
    /// The broker's id in metadata. Default 1.
    pub node_id: i32,
    /// Connections at once; one more is closed at once. Kafka: `max.connections`. Default 10000.
    pub connections_max: usize,
    /// Connections of one address at once; one more is closed at once. Kafka: `max.connections.per.ip`.
    /// Default 10000.
    pub connections_per_address_max: usize,
    /// Largest request in bytes that may carry records; a larger one closes its connection.
    /// Kafka: `socket.request.max.bytes`. Default 16 MiB. Other requests may have 4 MiB at most.
    pub request_bytes_max: usize,
    /// Bytes of Produce requests held at once, over all connections; beyond it the door stops
    /// reading. At least `request_bytes_max`. Default 64 MiB.
    pub requests_bytes_max: usize,
    /// Requests of one connection that are read and not yet answered; beyond it the door stops
    /// reading from that connection. Default 32.
    pub in_flight_max: usize,
    /// A connection without a request for this many seconds is closed, and so is one that takes
    /// nothing of an answer for as long. Kafka: `connections.max.idle.ms`. Default 600.
    pub idle_timeout_s: u64,
    /// How long answers under way may take at shutdown, in seconds. Default 5.
    pub shutdown_timeout_s: u64,
    /// Creates a topic when a client asks for it and allows that. Kafka:
    /// `auto.create.topics.enable`. Default true.
    pub auto_create_topics: bool,
    /// Partitions of a topic whose creator names no number. Kafka: `num.partitions`. Default 1.
    pub default_partitions: u32,
    /// Partitions of all topics together beyond which clients create no more. Default 10000.
    pub partitions_max: usize,
    /// What to do with replication factors other than 1, which one node cannot give: `"refuse"` or
    /// `"any"` (take them and keep one copy). Default `"refuse"`.
    pub accept_replication_factor: ReplicationFactors,
    /// Most record bytes in one Fetch response. Kafka: `fetch.max.bytes`. Default 16 MiB.
    pub fetch_bytes_max: usize,
    /// Fetch sessions (KIP-227) kept for clients; a client without one sends full requests. Kafka:
    /// `max.incremental.fetch.session.cache.slots`. Default 1000.
    pub fetch_sessions_max: usize,
    /// Partitions of all fetch sessions together. Default 100000.
    pub fetch_session_partitions_max: usize,
    /// Record bytes of Fetch responses held in memory at once, read and not yet written to their
    /// clients. Long runs of batches are not read but sent from the log's files; short of room, short
    /// ones are, too. Default 64 MiB.
    pub responses_bytes_max: usize,
    /// Reads of the log under way at once, over all connections; more wait. Default 16.
    pub reads_max: usize,
    /// `[kafka.groups]`.
    pub groups: GroupsConfig,
    /// `[kafka.transactions]`.
    pub transactions: TransactionsConfig,
}

/// `[kafka.transactions]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransactionsConfig {
    /// Longest time that a producer may give its transactions, in milliseconds. Default 900000. Kafka:
    /// `transaction.max.timeout.ms`.
    pub timeout_ms_max: u32,
    /// How often it is looked for transactions that have timed out, in milliseconds. Default 10000.
    /// Kafka: `transaction.abort.timed.out.transaction.cleanup.interval.ms`.
    pub timeout_check_interval_ms: u64,
    /// How long a transactional id is known that has no transaction, in milliseconds. Default seven
    /// days. Kafka: `transactional.id.expiration.ms`.
    pub id_expiry_ms: u64,
}

impl Default for TransactionsConfig {
    fn default() -> TransactionsConfig {
        TransactionsConfig {
            timeout_ms_max: 900_000,
            timeout_check_interval_ms: 10_000,
            id_expiry_ms: 7 * 24 * 3_600_000,
        }
    }
}

/// See [`KafkaConfig::accept_replication_factor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicationFactors {
    Refuse,
    Any,
}

impl Default for KafkaConfig {
    fn default() -> KafkaConfig {
        KafkaConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
            advertised: None,
            allow_anonymous: false,
            node_id: 1,
            connections_max: 10_000,
            connections_per_address_max: 10_000,
            request_bytes_max: 16 << 20,
            requests_bytes_max: 64 << 20,
            in_flight_max: 32,
            idle_timeout_s: 600,
            shutdown_timeout_s: 5,
            auto_create_topics: true,
            default_partitions: 1,
            partitions_max: 10_000,
            accept_replication_factor: ReplicationFactors::Refuse,
            fetch_bytes_max: 16 << 20,
            fetch_sessions_max: 1000,
            fetch_session_partitions_max: 100_000,
            responses_bytes_max: 64 << 20,
            reads_max: 16,
            groups: GroupsConfig::default(),
            transactions: TransactionsConfig::default(),
        }
    }
}

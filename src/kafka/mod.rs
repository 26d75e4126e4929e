//! The Kafka door: any Kafka client, in any language, reads and writes the log through it.
//!
//! It owns the listener, the protocol's codec, the translation between requests and the log, and the
//! classic consumer-group coordinator. It knows the log and nothing of the other doors. It holds no
//! data: topics, offsets and producer ids are the log's, group membership is the coordinator's and
//! does not outlive the process.
//!
//! | module | noun |
//! |---|---|
//! | `protocol` | the wire format: the two tables and their codec |
//! | `listener` | the sockets, the connection limit, start and stop |
//! | `endpoint` | one listener: its addresses and its security |
//! | `sign_in` | what happens before the first request: TLS handshake, SASL |
//! | `sasl` | the mechanisms of SASL |
//! | `access` | the table of who needs which right for what |
//! | `stream` | the halves of a connection, with or without TLS |
//! | `connection` | one client's frames in, answers out, in order |
//! | `transmit` | how answers reach the socket |
//! | `handlers` | what each API does, by theme |
//! | `configs` | every configuration that Kafka documents, with default and source |
//! | `fetch_sessions` | what clients have asked for once and for all (KIP-227) |
//! | `groups` | the consumer-group coordinator |
//! | `client` | a small Kafka client for the command line |
//!
//! What the door does not have it does not advertise. A listener on a non-loopback address that lets
//! strangers in starts only with `allow_anonymous = true`.
//!
//! Limits: [`KafkaConfig`], and those of [`protocol::wire`].

mod access;
mod broker;
pub mod client;
mod config;
mod configs;
mod connection;
mod endpoint;
mod fetch_sessions;
pub mod groups;
mod handlers;
mod listener;
pub mod protocol;
mod quotas;
mod sasl;
mod sign_in;
mod stream;
#[cfg(test)]
mod tests;
mod throttle;
mod transmit;

pub use client::Client;
pub use config::{KafkaConfig, ReplicationFactors};
pub use endpoint::{ListenerConfig, Security};
pub use listener::{Handle, KafkaStats, StartError, start};
pub use sasl::Mechanism;

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
//! | `listener` | the socket, the connection limit, start and stop |
//! | `connection` | one client's frames in, answers out, in order |
//! | `transmit` | how answers reach the socket |
//! | `handlers` | what each API does, by theme |
//! | `configs` | every configuration that Kafka documents, with default and source |
//! | `fetch_sessions` | what clients have asked for once and for all (KIP-227) |
//! | `groups` | the consumer-group coordinator |
//! | `client` | a small Kafka client for the command line |
//!
//! What the door does not have it does not advertise: there are no transactions (a transactional
//! producer is refused when it asks for its id or coordinator), and no SASL (a listener on a non-loopback
//! address starts only with `allow_anonymous = true`).
//!
//! Limits: [`KafkaConfig`], and those of [`protocol::wire`].

mod broker;
pub mod client;
mod config;
mod configs;
mod connection;
mod fetch_sessions;
pub mod groups;
mod handlers;
mod listener;
pub mod protocol;
mod quotas;
#[cfg(test)]
mod tests;
mod throttle;
mod transmit;

pub use client::Client;
pub use config::{KafkaConfig, ReplicationFactors};
pub use listener::{Handle, KafkaStats, StartError, start};

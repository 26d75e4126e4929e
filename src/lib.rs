//! Holdfast: MQTT, HTTP and Kafka in front of one durable log.

pub mod auth;
pub mod cli;
pub mod config;
pub mod http;
pub mod kafka;
pub mod live;
pub mod mqtt;
pub mod node;
pub mod pipelines;
pub mod simulate;
pub mod tls;

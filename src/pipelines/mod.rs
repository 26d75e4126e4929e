//! Pipelines: each reads topics and writes its one store or topics.
//!
//! A pipeline sees the log only through [`event_log`], whose terms are Kafka's.

pub mod event_log;
pub mod telemetry;

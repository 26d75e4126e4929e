//! What Holdfast keeps on disk: the log, and the stores that its pipelines write.
//!
//! `log` is topics, partitions and offsets over [`holdfast_wal`]; it is the one commit point of the
//! node. Every other module is one store with exactly one writer (a pipeline), whose rows and whose
//! consumed offset are committed in the same transaction.
//!
//! Nothing here knows a door (Kafka, MQTT, HTTP) or a pipeline.

pub mod log;
pub mod telemetry;

//! The sections that belong to no room: the node itself, its log, and what it writes to stderr.

use std::path::PathBuf;

use holdfast_storage::log::MEMORY_BYTES_MIN;
use serde::Deserialize;

use super::machine;

/// Smaller segments would consist of headers and footers.
const SEGMENT_BYTES_MIN: usize = 1 << 20;

/// `[node]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Everything the node keeps. Default `/var/lib/holdfast`.
    pub data_dir: PathBuf,
    /// Threads of the async runtime; 0 takes one per core, at least 2. Default 0.
    pub worker_threads: usize,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            data_dir: PathBuf::from("/var/lib/holdfast"),
            worker_threads: 0,
        }
    }
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// When an append counts as done. Default `fsync`.
    pub durability: Durability,
    /// Bytes submitted and not yet durable, over all doors; more waits. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// Size at which a segment of the wal is sealed. Default 64 MiB.
    pub segment_bytes: u32,
    /// Largest accepted record batch in bytes (Kafka's `message.max.bytes`). Default 1 MiB + 12 B.
    pub batch_bytes_max: usize,
    /// How long records are kept where their topic does not say (Kafka's `log.retention.ms`); -1 for
    /// ever. Default seven days.
    pub retention_ms: i64,
    /// Bytes kept per partition where its topic does not say (Kafka's `log.retention.bytes`); -1
    /// without bound, the default.
    pub retention_bytes: i64,
    /// How often retention is looked at. Default 30 s.
    pub retention_check_interval_ms: u64,
    /// Age at which a segment is sealed though it is not full (Kafka's `log.roll.ms`). Default 1 h.
    pub segment_age_max_ms: u64,
    /// How long an idempotent producer that does not append is remembered (Kafka's
    /// `producer.id.expiration.ms`). Default one day.
    pub producer_id_expiration_ms: u64,
    /// What compaction and relocation copy in a second while little waits to be freed. Default 64 MiB.
    pub cleaner_bytes_per_second: u64,
    /// Memory that caches, indexes and compaction may take together, beside what is in flight. At least
    /// 64 MiB; 0, the default, is a 32nd of the machine's (or the control group's), 64 MiB to 1 GiB.
    pub memory_bytes: u64,
    /// Every sealed segment is read again and verified once in so long a time. Default one week.
    pub scrub_interval_ms: u64,
    /// Bytes of the file system that appends leave free, for the cleaner and what deletes. Default
    /// 128 MiB; at least two segments.
    pub disk_reserve_bytes: u64,
    /// Bytes that the segments may take together; 0 without bound, the default.
    pub disk_bytes_max: u64,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            durability: Durability::Fsync,
            in_flight_bytes_max: 64 << 20,
            segment_bytes: 64 << 20,
            batch_bytes_max: (1 << 20) + 12,
            retention_ms: 7 * 24 * 3600 * 1000,
            retention_bytes: -1,
            retention_check_interval_ms: 30_000,
            segment_age_max_ms: 3_600_000,
            producer_id_expiration_ms: 24 * 3_600_000,
            cleaner_bytes_per_second: 64 << 20,
            memory_bytes: 0,
            scrub_interval_ms: 7 * 24 * 3_600_000,
            disk_reserve_bytes: 128 << 20,
            disk_bytes_max: 0,
        }
    }
}

/// So much of the machine's memory,
const MEMORY_PART: u64 = 32;
/// but no more than this: the page cache does better with the rest.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

impl LogConfig {
    /// The memory of caches, indexes and compaction.
    pub fn memory_bytes(&self) -> u64 {
        match self.memory_bytes {
            0 => {
                let part = machine::memory_bytes().unwrap_or(0) / MEMORY_PART;
                part.clamp(MEMORY_BYTES_MIN, MEMORY_BYTES_MAX)
            }
            bytes => bytes,
        }
    }

    /// Bounds that the log's own arithmetic needs. The sentence begins with the key.
    pub(super) fn validate(&self) -> Result<(), String> {
        let segment_bytes = usize::try_from(self.segment_bytes).unwrap_or(usize::MAX);
        if segment_bytes < SEGMENT_BYTES_MIN {
            return Err(format!(
                "log.segment_bytes is {segment_bytes}: at least {SEGMENT_BYTES_MIN} are needed"
            ));
        }
        if self.batch_bytes_max > segment_bytes / 2 {
            return Err(format!(
                "log.batch_bytes_max is {}: at most half of log.segment_bytes ({}) is possible",
                self.batch_bytes_max,
                segment_bytes / 2
            ));
        }
        if self.in_flight_bytes_max < self.batch_bytes_max {
            return Err(format!(
                "log.in_flight_bytes_max is {}: at least log.batch_bytes_max ({}) is needed",
                self.in_flight_bytes_max, self.batch_bytes_max
            ));
        }
        let two_segments = 2 * u64::from(self.segment_bytes);
        if self.disk_reserve_bytes < two_segments {
            return Err(format!(
                "log.disk_reserve_bytes is {}: at least two segments ({two_segments}) are needed",
                self.disk_reserve_bytes
            ));
        }
        if self.memory_bytes != 0 && self.memory_bytes < MEMORY_BYTES_MIN {
            return Err(format!(
                "log.memory_bytes is {}: at least {MEMORY_BYTES_MIN} are needed, or 0 to go by the machine",
                self.memory_bytes
            ));
        }
        if self.disk_bytes_max != 0 && self.disk_bytes_max < 2 * two_segments {
            return Err(format!(
                "log.disk_bytes_max is {}: at least four segments ({}) are needed, or 0 for no bound",
                self.disk_bytes_max,
                2 * two_segments
            ));
        }
        for (key, value) in [
            ("retention_ms", self.retention_ms),
            ("retention_bytes", self.retention_bytes),
        ] {
            if value < -1 {
                return Err(format!("log.{key} is {value}: -1 means without bound"));
            }
        }
        for (key, value) in [
            (
                "retention_check_interval_ms",
                self.retention_check_interval_ms,
            ),
            ("segment_age_max_ms", self.segment_age_max_ms),
            ("producer_id_expiration_ms", self.producer_id_expiration_ms),
            ("cleaner_bytes_per_second", self.cleaner_bytes_per_second),
            ("scrub_interval_ms", self.scrub_interval_ms),
        ] {
            if value == 0 {
                return Err(format!("log.{key} is 0: at least 1 is needed"));
            }
        }
        Ok(())
    }
}

/// What stands between an append and its acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Durability {
    /// The fdatasync that covers its bytes has returned.
    Fsync,
}

/// `[logging]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoggingConfig {
    /// Default `human`.
    pub format: LogFormat,
    /// Default `info`. The variable `RUST_LOG`, where set, wins and can name modules.
    pub level: LogLevel,
}

impl Default for LoggingConfig {
    fn default() -> LoggingConfig {
        LoggingConfig {
            format: LogFormat::Human,
            level: LogLevel::Info,
        }
    }
}

/// How a line of the node's own log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

/// The least important event that is still written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

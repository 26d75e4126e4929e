//! How a log is opened, and its defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::memory::MEMORY_BYTES_MIN;
use super::topic::Retention;
use super::types::Clock;

/// How the log is opened.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Holds `segments/` (the truth) and `index/` (fjall; may be deleted).
    pub data_dir: PathBuf,
    /// Bytes submitted and not yet durable, over all callers; more waits. Default 64 MiB.
    pub in_flight_bytes_max: usize,
    /// Default 64 MiB.
    pub segment_bytes: u32,
    /// A group commit takes no further submission beyond this. Default 4 MiB.
    pub group_bytes_max: usize,
    /// Largest accepted record batch (`message.max.bytes`). Default 1 MiB + 12 B, as Kafka's.
    pub batch_bytes_max: usize,
    /// Retention of topics that do not name theirs. Default: Kafka's seven days.
    pub retention: Retention,
    /// How often retention is looked at (`log.retention.check.interval.ms`). Default 30 s.
    pub cleaner_interval: Duration,
    /// A segment that was begun longer ago is not appended to. Default 1 h.
    pub segment_age_max: Duration,
    /// Idempotent producers that have not appended for so long are forgotten
    /// (`producer.id.expiration.ms`). Default: Kafka's day.
    pub producer_expiry: Duration,
    /// What the cleaner copies in a second, as long as little waits to be freed. Default 64 MiB.
    pub cleaner_bytes_per_second: u64,
    /// What caches, indexes and compaction may take of memory, together. Default 64 MiB, the least.
    pub memory_bytes: u64,
    /// Every sealed segment is read again and verified once in so long a time. Default: a week.
    pub scrub_interval: Duration,
    /// Bytes of the file system that appends leave free, for the cleaner and what deletes. Default
    /// 128 MiB, two segments.
    pub disk_reserve_bytes: u64,
    /// What the segments may take together, if it is bounded. Default: not.
    pub disk_bytes_max: Option<u64>,
    pub clock: Clock,
}

impl LogOptions {
    pub fn new(data_dir: impl Into<PathBuf>) -> LogOptions {
        LogOptions {
            data_dir: data_dir.into(),
            in_flight_bytes_max: 64 << 20,
            segment_bytes: 64 << 20,
            group_bytes_max: 4 << 20,
            batch_bytes_max: (1 << 20) + 12,
            retention: Retention::default(),
            cleaner_interval: Duration::from_secs(30),
            segment_age_max: Duration::from_secs(3600),
            producer_expiry: Duration::from_secs(24 * 3600),
            cleaner_bytes_per_second: 64 << 20,
            memory_bytes: MEMORY_BYTES_MIN,
            scrub_interval: Duration::from_secs(7 * 24 * 3600),
            disk_reserve_bytes: 128 << 20,
            disk_bytes_max: None,
            clock: Clock::system(),
        }
    }
}

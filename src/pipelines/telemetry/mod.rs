//! The telemetry pipeline: `telemetry.raw` judged into `telemetry.cleaned`, `telemetry.dlq` and the
//! telemetry store; `speed-events` into the store's speed history.
//!
//! **Owns** the rules, the four topics above and the store (it is its only writer). **May not know**
//! a door: a record is bytes, a key and headers, whoever sent it.
//!
//! ```text
//! telemetry.raw  --Intake--+                      +--> telemetry.cleaned, telemetry.dlq
//!                          +--> Committer (one) --+--> store (rows + offsets, one transaction)
//! speed-events   --Intake--+                      +--> group offsets (a mirror)
//! ```
//!
//! The store holds every record once, the topics too, over a kill at any point ([`commit`] and
//! [`outputs`] say why); a consumer of the topics should still be idempotent, because a foreign
//! producer may write to them. Every cleaned record carries its source in the headers
//! `source_topic`, `source_topic_id`, `source_partition` and `source_offset`; every dead-lettered
//! one the same with the prefix `dlq.`.
//!
//! # Limits
//! One poll of each topic (about `commit_records` records or `poll_bytes` per partition) waits while
//! one batch is committed; the duplicate window is bounded by number and age ([`TelemetryConfig`]).
//! When the store cannot commit, the pipeline holds there, says so in [`Status::problems`], and
//! nothing is lost: the log keeps the records.

mod backoff;
mod commit;
mod config;
mod intake;
mod outputs;
pub mod record;
pub mod rules;
pub mod speed;
mod status;
pub mod timestamps;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_storage::log::{Offset, TopicId};
use holdfast_storage::telemetry::{
    SeenRecords, StoreError, TelemetryReader, TelemetryWriter, WindowLimits,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::{Schema, TelemetryConfig};
pub use rules::Rules;
pub use status::Status;

use super::event_log::{EventLog, EventLogError};
use commit::{CommitLimits, Committer};
use intake::{Feed, Intake, JudgedBatch, PollLimits};
use outputs::Produced;
use status::Report;

/// What the doors append.
pub const RAW_TOPIC: &str = "telemetry.raw";
/// Accepted records, normalised, keyed by device.
pub const CLEANED_TOPIC: &str = "telemetry.cleaned";
/// Rejected records as they came, with their reasons.
pub const DLQ_TOPIC: &str = "telemetry.dlq";
/// Speed events, keyed by sensor.
pub const SPEED_TOPIC: &str = "speed-events";
/// Consumer group that mirrors the progress on [`RAW_TOPIC`].
pub const TELEMETRY_GROUP: &str = "telemetry-writer";
/// Consumer group that mirrors the progress on [`SPEED_TOPIC`].
pub const SPEED_GROUP: &str = "speed-writer";
/// The store's file inside the data directory.
pub const STORE_FILE: &str = "telemetry.db";

/// Why the pipeline did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    #[error("configuration: {0}")]
    Config(String),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("event log: {0}")]
    EventLog(#[from] EventLogError),
    #[error("cannot make {path}: {cause}")]
    Directory { path: String, cause: std::io::Error },
    #[error("the store's thread ended: {0}")]
    Thread(String),
}

/// The running pipeline.
pub struct Handle {
    rules: Arc<Rules>,
    reader: TelemetryReader,
    seen: SeenRecords,
    status: watch::Receiver<Status>,
    tasks: JoinSet<()>,
}

impl Handle {
    /// The validator, for doors that answer before the pipeline has judged.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules)
    }

    /// Reads the store.
    pub fn reader(&self) -> TelemetryReader {
        self.reader.clone()
    }

    /// The duplicate window as committed.
    pub fn seen(&self) -> SeenRecords {
        self.seen.clone()
    }

    /// Changes with every commit and every problem.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Returns when everything has ended after cancellation.
    pub async fn stopped(mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the telemetry pipeline ended abnormally");
            }
        }
    }
}

/// Makes the topics, opens the store `telemetry.db` in `data_dir`, and runs until cancelled.
pub async fn start<L: EventLog>(
    config: &TelemetryConfig,
    data_dir: &Path,
    log: L,
    cancel: CancellationToken,
) -> Result<Handle, StartError> {
    config.check().map_err(StartError::Config)?;
    let rules = Arc::new(Rules::new(config));
    let assembled = assemble(config, &rules, data_dir, log.clone()).await?;
    let Assembled {
        committer,
        progress,
        reader,
        seen,
        report,
    } = assembled;
    let mut tasks = JoinSet::new();
    // One batch may wait while one is committed; a slow store holds the readers back here.
    let (judged, batches) = mpsc::channel::<JudgedBatch>(1);
    for feed in [
        Feed::Telemetry {
            topic: RAW_TOPIC,
            rules: Arc::clone(&rules),
        },
        Feed::Speed,
    ] {
        let limits = PollLimits {
            records_max: config.commit_records,
            bytes_max: config.poll_bytes,
        };
        let intake = Intake {
            log: log.clone(),
            feed,
            partitions: config.partitions,
            progress: progress.clone(),
            limits,
            report: report.clone(),
        };
        tasks.spawn(intake.run(judged.clone(), cancel.clone()));
    }
    drop(judged);
    tasks.spawn(committer.run(batches, cancel));
    Ok(Handle {
        rules,
        reader,
        seen,
        status: report.watch(),
        tasks,
    })
}

/// Makes the topics of telemetry and speed where they are absent: also for a node whose pipeline is
/// switched off, because its doors append to them.
pub async fn ensure_topics<L: EventLog>(
    config: &TelemetryConfig,
    log: &L,
) -> Result<(), EventLogError> {
    for topic in [RAW_TOPIC, CLEANED_TOPIC, DLQ_TOPIC, SPEED_TOPIC] {
        log.ensure_topic(topic, config.partitions).await?;
    }
    Ok(())
}

/// Everything but the tasks.
struct Assembled<L> {
    committer: Committer<L>,
    progress: Progress,
    reader: TelemetryReader,
    seen: SeenRecords,
    report: Report,
}

async fn assemble<L: EventLog>(
    config: &TelemetryConfig,
    rules: &Arc<Rules>,
    data_dir: &Path,
    log: L,
) -> Result<Assembled<L>, StartError> {
    ensure_topics(config, &log).await?;
    let (writer, reader) = open(config, rules, data_dir).await?;
    let produced = Produced::scan(&log, [CLEANED_TOPIC, DLQ_TOPIC], &writer).await?;
    let seen = writer.seen();
    let report = Report::new();
    let writer = Arc::new(Mutex::new(writer));
    let progress = Progress {
        writer: Arc::downgrade(&writer),
    };
    let limits = CommitLimits {
        records: config.commit_records,
        age: Duration::from_millis(config.commit_age_ms),
    };
    let committer = Committer {
        log,
        writer,
        seen: seen.clone(),
        produced,
        next: HashMap::new(),
        limits,
        partitions: config.partitions,
        report: report.clone(),
    };
    Ok(Assembled {
        committer,
        progress,
        reader,
        seen,
        report,
    })
}

async fn open(
    config: &TelemetryConfig,
    rules: &Arc<Rules>,
    data_dir: &Path,
) -> Result<(TelemetryWriter, TelemetryReader), StartError> {
    let limits = WindowLimits {
        records_max: config.duplicate_window_records,
        age_ms_max: i64::from(config.duplicate_window_s) * 1_000,
    };
    let (rules, data_dir) = (Arc::clone(rules), data_dir.to_path_buf());
    let open = move || {
        std::fs::create_dir_all(&data_dir).map_err(|cause| StartError::Directory {
            path: data_dir.display().to_string(),
            cause,
        })?;
        let writer = TelemetryWriter::open(&data_dir.join(STORE_FILE), limits, rules.kinds())?;
        let reader = writer.reader()?;
        Ok((writer, reader))
    };
    tokio::task::spawn_blocking(open)
        .await
        .map_err(|error| StartError::Thread(error.to_string()))?
}

/// Where the store stands: the authority on where to read on.
#[derive(Clone)]
struct Progress {
    /// Weak, so that the committer can close the store while an intake still holds this.
    writer: std::sync::Weak<Mutex<TelemetryWriter>>,
}

impl Progress {
    fn wanted(&self, topic: TopicId, partition: i32) -> Option<Offset> {
        let writer = self.writer.upgrade()?;
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.consumed(topic, partition)
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

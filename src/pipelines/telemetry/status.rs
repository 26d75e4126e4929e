//! What the pipeline is doing, for `/health`, the dashboard and tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_storage::telemetry::Committed;
use serde::Serialize;
use tokio::sync::watch;

/// A snapshot; the counters run since the pipeline started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// What cannot go on at present and is tried again, by step. Empty means healthy.
    pub problems: BTreeMap<&'static str, String>,
    /// Commits to the store.
    pub commits: u64,
    /// Accepted records stored.
    pub clean: u64,
    /// Rejected records stored.
    pub invalid: u64,
    /// Records delivered before.
    pub duplicates: u64,
    /// Speed events stored.
    pub speed: u64,
    /// Records that retention removed before they were read.
    pub lost: u64,
    /// Offsets that held no record: compaction, or damage that the log reports itself.
    pub gaps: u64,
    /// True once everything has ended.
    pub stopped: bool,
}

/// Where the parts of the pipeline report; clones share it.
#[derive(Clone)]
pub(super) struct Report {
    status: Arc<watch::Sender<Status>>,
}

impl Report {
    pub(super) fn new() -> Report {
        Report {
            status: Arc::new(watch::Sender::new(Status::default())),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Logged when it begins and when its words change, not at every attempt.
    pub(super) fn failing(&self, step: &'static str, error: &dyn std::fmt::Display) {
        let error = error.to_string();
        self.status.send_if_modified(|status| {
            if status.problems.get(step) == Some(&error) {
                return false;
            }
            tracing::error!(step, %error, "telemetry pipeline waits and tries again");
            status.problems.insert(step, error);
            true
        });
    }

    pub(super) fn working(&self, step: &'static str) {
        self.status.send_if_modified(|status| {
            let recovered = status.problems.remove(step).is_some();
            if recovered {
                tracing::info!(step, "telemetry pipeline goes on");
            }
            recovered
        });
    }

    pub(super) fn lost(&self, topic: &str, records: u64) {
        tracing::error!(
            topic,
            records,
            "retention removed records before the telemetry pipeline read them"
        );
        self.status.send_modify(|status| status.lost += records);
    }

    pub(super) fn gaps(&self, topic: &str, offsets: u64) {
        tracing::warn!(topic, offsets, "offsets without a record");
        self.status.send_modify(|status| status.gaps += offsets);
    }

    pub(super) fn committed(&self, done: Committed) {
        self.status.send_modify(|status| {
            status.commits += 1;
            status.clean += done.clean;
            status.invalid += done.invalid;
            status.duplicates += done.duplicates;
            status.speed += done.speed;
        });
    }

    pub(super) fn stopped(&self) {
        self.status.send_modify(|status| status.stopped = true);
    }
}

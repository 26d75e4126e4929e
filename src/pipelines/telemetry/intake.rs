//! Reading a topic and judging its records: the half of the pipeline that has no effects.

use std::sync::Arc;

use holdfast_storage::telemetry::{Position, SPEED_KIND};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::record::{self, Judged};
use super::rules::Rules;
use super::status::Report;
use super::{Progress, SPEED_TOPIC, now_ms};
use crate::pipelines::event_log::{Consumer, EventLog, EventLogError, Polled};

/// A topic of the pipeline and how its records are judged.
#[derive(Clone)]
pub(super) enum Feed {
    Telemetry {
        topic: &'static str,
        rules: Arc<Rules>,
    },
    Speed,
}

impl Feed {
    pub(super) fn topic(&self) -> &'static str {
        match self {
            Feed::Telemetry { topic, .. } => topic,
            Feed::Speed => SPEED_TOPIC,
        }
    }

    /// Judges what a poll brought; costs CPU, so not on an async thread.
    pub(super) fn judge(&self, polled: Polled, now_ms: i64) -> JudgedBatch {
        let topic = self.topic();
        let mut judged = Vec::with_capacity(polled.records.len() + polled.corrupt.len());
        for batch in polled.corrupt {
            let kind = if matches!(self, Feed::Speed) {
                SPEED_KIND
            } else {
                UNREADABLE_KIND
            };
            judged.push(record::judge_corrupt(topic, kind, batch, now_ms));
        }
        for (at, record) in &polled.records {
            judged.push(match self {
                Feed::Telemetry { rules, .. } => record::judge(rules, topic, *at, record, now_ms),
                Feed::Speed => record::judge_speed(topic, *at, record, now_ms),
            });
        }
        JudgedBatch {
            topic,
            judged,
            next: polled.next,
        }
    }
}

/// Kind under which a batch is counted whose records cannot be read.
const UNREADABLE_KIND: &str = "(unreadable)";

/// Judged records of one topic and the positions after them.
pub(super) struct JudgedBatch {
    pub(super) topic: &'static str,
    pub(super) judged: Vec<Judged>,
    pub(super) next: Vec<Position>,
}

/// How much one poll may bring.
#[derive(Clone, Copy)]
pub(super) struct PollLimits {
    pub(super) records_max: usize,
    pub(super) bytes_max: usize,
}

/// One feed until it is cancelled; the bounded channel holds it back while the store is slow.
pub(super) struct Intake<L> {
    pub(super) log: L,
    pub(super) feed: Feed,
    pub(super) partitions: u32,
    pub(super) progress: Progress,
    pub(super) limits: PollLimits,
    pub(super) report: Report,
}

impl<L: EventLog> Intake<L> {
    pub(super) async fn run(self, judged: mpsc::Sender<JudgedBatch>, cancel: CancellationToken) {
        cancel.run_until_cancelled(self.forward(judged)).await;
    }

    async fn forward(&self, judged: mpsc::Sender<JudgedBatch>) {
        let step = self.feed.topic();
        let mut backoff = Backoff::default();
        let mut consumer = None;
        loop {
            match self.next_batch(&mut consumer).await {
                Ok(batch) => {
                    backoff = Backoff::default();
                    self.report.working(step);
                    if judged.send(batch).await.is_err() {
                        return;
                    }
                }
                Err(EventLogError::Closed) => return,
                Err(error) => {
                    self.report.failing(step, &error);
                    // A new consumer starts where the store stands; what is in flight to it is skipped there.
                    consumer = None;
                    backoff.wait().await;
                }
            }
        }
    }

    async fn next_batch(
        &self,
        consumer: &mut Option<L::Consumer>,
    ) -> Result<JudgedBatch, EventLogError> {
        let reading = match consumer {
            Some(reading) => reading,
            None => consumer.insert(self.subscribe().await?),
        };
        let polled = reading
            .poll(self.limits.records_max, self.limits.bytes_max)
            .await?;
        if polled.lost > 0 {
            self.report.lost(self.feed.topic(), polled.lost);
        }
        if polled.gaps > 0 {
            self.report.gaps(self.feed.topic(), polled.gaps);
        }
        let feed = self.feed.clone();
        tokio::task::spawn_blocking(move || feed.judge(polled, now_ms()))
            .await
            .map_err(|error| EventLogError::Storage(format!("judging failed: {error}")))
    }

    async fn subscribe(&self) -> Result<L::Consumer, EventLogError> {
        self.log
            .ensure_topic(self.feed.topic(), self.partitions)
            .await?;
        self.log.consumer(self.feed.topic(), |topic, partition| {
            self.progress.wanted(topic, partition)
        })
    }
}

//! Room `overview`: the log, its topics and its groups, once a second, computed once for all sockets. A
//! socket that rules bind is not sent the lines that its user may not describe.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::ws::Utf8Bytes;
use holdfast_storage::log::{Log, Offset};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::census::{self, GroupTopic};
use super::room::{Following, OnDemand, Outlet, Room, Running, follow_snapshots, update_frame};
use super::sources::{MqttSnapshot, Sources};
use crate::auth::{Caller, Operation, Resource, Rights};

/// Of the room.
pub(super) const NAME: &str = "overview";

const EVERY: Duration = Duration::from_secs(1);

pub(super) struct Overview {
    log: Log,
    sources: Sources,
    producer: OnDemand<watch::Sender<Computed>>,
}

/// `None` until it was computed first.
pub(super) type Computed = Option<Arc<Whole>>;

/// One second's overview with nothing left out, and as it is sent to whoever may see that.
pub(super) struct Whole {
    body: Body,
    frame: Utf8Bytes,
}

#[derive(Debug, Serialize)]
struct Body {
    ts_ms: u64,
    topics: Vec<TopicLine>,
    groups: Vec<GroupTopic>,
    log: LogLine,
    mqtt: MqttSnapshot,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct TopicLine {
    name: String,
    partitions: usize,
    /// Records appended since the topic was made, those that retention took included.
    records_total: u64,
    records_per_s: f64,
    /// Sums over the partitions.
    log_start: u64,
    high_watermark: u64,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct LogLine {
    state: &'static str,
    records: u64,
    batches: u64,
    payload_bytes: u64,
    written_bytes: u64,
    fdatasyncs: u64,
}

impl Overview {
    pub(super) fn new(
        log: Log,
        sources: Sources,
        producer: OnDemand<watch::Sender<Computed>>,
    ) -> Overview {
        Overview {
            log,
            sources,
            producer,
        }
    }

    async fn produce(self: Arc<Self>, running: Running<watch::Sender<Computed>>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rates = Rates::default();
        loop {
            tick.tick().await;
            if running.retire() {
                return;
            }
            let body = self.body(&mut rates);
            let frame = update_frame(NAME, &body);
            let whole = Whole { body, frame };
            running.sender().send_replace(Some(Arc::new(whole)));
        }
    }

    fn body(&self, rates: &mut Rates) -> Body {
        let stats = self.log.stats();
        let topics = census::topics(&self.log)
            .into_iter()
            .filter(|topic| !topic.internal)
            .map(|topic| {
                let high_watermark = topic
                    .partitions
                    .iter()
                    .map(|p| p.high_watermark.since(Offset::ZERO))
                    .sum();
                TopicLine {
                    partitions: topic.partitions.len(),
                    records_total: high_watermark,
                    records_per_s: 0.0,
                    log_start: topic
                        .partitions
                        .iter()
                        .map(|p| p.log_start_offset.since(Offset::ZERO))
                        .sum(),
                    high_watermark,
                    name: topic.name,
                }
            })
            .collect();
        Body {
            ts_ms: now_ms(),
            topics: rates.fill(topics, Instant::now()),
            groups: census::group_topics(census::groups(&self.log)),
            log: LogLine {
                state: census::state_name(&self.log.state()),
                records: stats.records,
                batches: stats.batches,
                payload_bytes: stats.payload_bytes,
                written_bytes: stats.written_bytes,
                fdatasyncs: stats.fdatasyncs,
            },
            mqtt: self
                .sources
                .mqtt
                .as_ref()
                .map(|ask| ask())
                .unwrap_or_default(),
        }
    }
}

impl Room for Overview {
    fn asks(&self) -> (Operation, Resource<'_>) {
        (Operation::Describe, Resource::CLUSTER)
    }

    fn follow(self: Arc<Self>, caller: &Caller, outlet: Outlet) -> Following {
        let room = Arc::clone(&self);
        let snapshots = self
            .producer
            .follow(|| watch::channel(None).0, |running| room.produce(running));
        let seen_by = SeenBy::new(caller);
        Box::pin(follow_snapshots(snapshots, outlet, move |whole| {
            seen_by.as_ref().map_or_else(
                || whole.frame.clone(),
                |seen_by| update_frame(NAME, &seen_by.cut_down(&whole.body)),
            )
        }))
    }
}

/// Somebody whom rules bind.
struct SeenBy {
    caller: Caller,
    topics: Rights,
}

impl SeenBy {
    /// `None` for whoever may see everything.
    fn new(caller: &Caller) -> Option<SeenBy> {
        let topics = caller.rights(Operation::Describe)?;
        let caller = caller.clone();
        Some(SeenBy { caller, topics })
    }

    /// As `/api/v1/topics` and `/api/v1/groups` would.
    fn cut_down(&self, whole: &Body) -> Body {
        let topics = whole.topics.iter();
        let topics = topics.filter(|line| self.topics.to(&line.name));
        let mut asked: HashMap<&str, bool> = HashMap::new();
        let mut may_describe = |group| {
            let ask = || self.caller.may(Operation::Describe, Resource::group(group));
            *asked.entry(group).or_insert_with(ask)
        };
        let groups = whole.groups.iter();
        let groups =
            groups.filter(|line| self.topics.to(&line.topic) && may_describe(line.group.as_str()));
        Body {
            topics: topics.cloned().collect(),
            groups: groups.cloned().collect(),
            ..*whole
        }
    }
}

/// Remembers the last totals; a topic seen for the first time has no rate yet.
#[derive(Default)]
struct Rates {
    last: Option<(Instant, HashMap<String, u64>)>,
}

impl Rates {
    fn fill(&mut self, mut topics: Vec<TopicLine>, now: Instant) -> Vec<TopicLine> {
        if let Some((then, totals)) = &self.last {
            let seconds = now.saturating_duration_since(*then).as_secs_f64();
            for topic in &mut topics {
                if let Some(before) = totals.get(&topic.name)
                    && seconds > 0.0
                {
                    let per_s = topic.records_total.saturating_sub(*before) as f64 / seconds;
                    topic.records_per_s = (per_s * 10.0).round() / 10.0;
                }
            }
        }
        self.last = Some((
            now,
            topics
                .iter()
                .map(|t| (t.name.clone(), t.records_total))
                .collect(),
        ));
        topics
    }
}

fn now_ms() -> u64 {
    let ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|d| d.as_millis())
        .unwrap_or(0);
    u64::try_from(ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn line(total: u64) -> Vec<TopicLine> {
        vec![TopicLine {
            name: "t".into(),
            partitions: 1,
            records_total: total,
            records_per_s: 0.0,
            log_start: 0,
            high_watermark: total,
        }]
    }

    #[test]
    fn a_rate_is_the_growth_over_the_time_between_two_snapshots() {
        let mut rates = Rates::default();
        let start = Instant::now();
        assert_eq!(rates.fill(line(1000), start)[0].records_per_s, 0.0);
        assert_eq!(
            rates.fill(line(1500), start + Duration::from_secs(2))[0].records_per_s,
            250.0
        );
        assert_eq!(
            rates.fill(line(0), start + Duration::from_secs(3))[0].records_per_s,
            0.0
        );
    }
}

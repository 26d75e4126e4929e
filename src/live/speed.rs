//! The latest value of every speed sensor, room `speed`, and what the gauge sockets watch.
//!
//! One task reads every record of `speed-events`, so that no sensor's newest value is missed; it writes
//! into watches and a ring and waits for nobody. "Latest" is the order of the log. At start it reads the
//! end of each partition again, so that a restarted node knows its sensors.
//!
//! Limits: `live.sensors_max` sensors (beyond it, those silent for longest are forgotten and counted);
//! [`REBUILD_RECORDS`] records per partition read at start. Records that hold no reading are counted and
//! left to the speed pipeline, which owns the rules.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use holdfast_storage::log::{FetchError, Log, Offset, StoredRecord, Topic};
use serde::{Deserialize, Serialize};
use serde_json::{Number, json};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::room::{Following, Gone, Outlet, Room, update_frame};
use super::sources::SpeedRule;
use super::topic::read;
use crate::auth::{Caller, Operation, Resource};

/// The topic of the speed events.
pub const TOPIC: &str = "speed-events";

/// Records per partition that are read again at start.
const REBUILD_RECORDS: u64 = 10_000;

/// Batches read at once.
const READ_BYTES_MAX: usize = 1 << 20;

/// Readings that the room keeps for sockets that are behind.
const READINGS_KEPT: usize = 1024;

/// Readings between two chances for the sockets to take them.
const READINGS_AT_ONCE: usize = 64;

/// How often the topic is looked up again.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A socket that fell behind gets the latest values again, at most this often.
const CATCH_UP_EVERY: Duration = Duration::from_secs(1);

/// Longest sensor id that is kept.
pub const SENSOR_BYTES_MAX: usize = 256;

/// One reading as sockets see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    #[serde(serialize_with = "as_text")]
    pub sensor_id: Arc<str>,
    pub speed: Number,
    /// Epoch seconds, as the sensor said; the record's own time where it said none.
    pub ts: Number,
}

fn as_text<S: serde::Serializer>(id: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id)
}

pub(super) struct SpeedBoard {
    sensors_max: usize,
    rule: Option<SpeedRule>,
    sensors: Mutex<Sensors>,
    /// The newest reading of any sensor.
    any: watch::Sender<Option<Reading>>,
    stream: broadcast::Sender<Utf8Bytes>,
    forgotten: AtomicU64,
    ignored: AtomicU64,
}

#[derive(Default)]
struct Sensors {
    by_id: HashMap<Arc<str>, Sensor>,
    /// Counts readings; orders the sensors by when they last spoke.
    clock: u64,
}

struct Sensor {
    latest: watch::Sender<Option<Reading>>,
    spoke: u64,
}

impl SpeedBoard {
    pub(super) fn new(sensors_max: usize, rule: Option<SpeedRule>) -> SpeedBoard {
        SpeedBoard {
            sensors_max: sensors_max.max(1),
            rule,
            sensors: Mutex::default(),
            any: watch::channel(None).0,
            stream: broadcast::channel(READINGS_KEPT).0,
            forgotten: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
        }
    }

    /// Newest value wins; holds the present value, if any, as a change not yet seen.
    pub(super) fn watch(&self, sensor_id: Option<&str>) -> watch::Receiver<Option<Reading>> {
        let mut latest = match sensor_id {
            None => self.any.subscribe(),
            Some(id) => self
                .lock()
                .sensor(id.into(), self.sensors_max, &self.forgotten)
                .latest
                .subscribe(),
        };
        if latest.borrow().is_some() {
            latest.mark_changed();
        }
        latest
    }

    /// By sensor.
    fn latest(&self) -> Vec<Reading> {
        let mut latest: Vec<Reading> = self
            .lock()
            .by_id
            .values()
            .filter_map(|sensor| sensor.latest.borrow().clone())
            .collect();
        latest.sort_unstable_by(|a, b| a.sensor_id.cmp(&b.sensor_id));
        latest
    }

    pub(super) fn counters(&self) -> serde_json::Value {
        json!({
            "sensors": self.lock().by_id.len(),
            "sensors_max": self.sensors_max,
            "sensors_forgotten_total": self.forgotten.load(Ordering::Relaxed),
            "speed_records_ignored_total": self.ignored.load(Ordering::Relaxed),
        })
    }

    fn take(&self, stored: &StoredRecord) {
        let allowed = self.rule.as_ref().is_none_or(|rule| {
            rule(
                stored.record.value.as_deref().unwrap_or_default(),
                stored.record.timestamp_ms,
            )
        });
        let Some(reading) = parse(stored).filter(|_| allowed) else {
            self.ignored.fetch_add(1, Ordering::Relaxed);
            return;
        };
        {
            let mut sensors = self.lock();
            sensors.clock += 1;
            let spoke = sensors.clock;
            let sensor = sensors.sensor(
                Arc::clone(&reading.sensor_id),
                self.sensors_max,
                &self.forgotten,
            );
            sensor.spoke = spoke;
            sensor.latest.send_replace(Some(reading.clone()));
        }
        if self.stream.receiver_count() > 0 {
            let _ = self.stream.send(update_frame("speed", &reading));
        }
        self.any.send_replace(Some(reading));
    }

    /// Follows the topic until the task is dropped.
    pub(super) async fn run(self: Arc<Self>, log: Log) {
        loop {
            if let Some(topic) = log.topic(TOPIC) {
                self.follow_topic(&log, &topic).await;
            }
            sleep(CHECK_EVERY).await;
        }
    }

    /// Returns when the topic was replaced or got more partitions.
    async fn follow_topic(&self, log: &Log, topic: &Arc<Topic>) {
        let mut watch = log.watch(topic.partitions());
        let mut next: Vec<Offset> = topic
            .partitions()
            .iter()
            .map(|p| {
                let end = p.high_watermark();
                let back = i64::try_from(REBUILD_RECORDS).unwrap_or(i64::MAX);
                Offset::new(end.value().saturating_sub(back))
                    .unwrap_or(Offset::ZERO)
                    .max(p.log_start_offset())
            })
            .collect();
        loop {
            for (partition, next) in topic.partitions().iter().zip(&mut next) {
                while *next < partition.last_stable_offset() {
                    let from = *next;
                    *next = match read(log, partition, from, READ_BYTES_MAX).await {
                        Ok(records) => self
                            .take_all(from, &records)
                            .await
                            .unwrap_or_else(|| partition.last_stable_offset()),
                        Err(FetchError::OffsetOutOfRange { log_start, .. }) if log_start > from => {
                            log_start
                        }
                        Err(error) => {
                            tracing::warn!(topic = TOPIC, partition = partition.index(), %error, "speed events could not be read");
                            sleep(CHECK_EVERY).await;
                            break;
                        }
                    };
                }
            }
            drop(timeout(CHECK_EVERY, watch.appended()).await);
            let current = log.topic(TOPIC);
            if !current.is_some_and(|now| {
                now.id() == topic.id() && now.partitions().len() == topic.partitions().len()
            }) {
                return;
            }
        }
    }

    /// The offset after the last record; `None` where there was none from `from` on (compacted away).
    async fn take_all(&self, from: Offset, records: &[StoredRecord]) -> Option<Offset> {
        for some in records.chunks(READINGS_AT_ONCE) {
            some.iter()
                .filter(|record| record.offset >= from)
                .for_each(|record| self.take(record));
            tokio::task::yield_now().await;
        }
        records
            .last()
            .filter(|record| record.offset >= from)
            .map(|record| record.offset.plus(1))
    }

    fn lock(&self) -> MutexGuard<'_, Sensors> {
        self.sensors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sensors {
    fn sensor(&mut self, id: Arc<str>, sensors_max: usize, forgotten: &AtomicU64) -> &mut Sensor {
        if !self.by_id.contains_key(&id) && self.by_id.len() >= sensors_max {
            let count = self.forget_silent(sensors_max);
            forgotten.fetch_add(count, Ordering::Relaxed);
        }
        let spoke = self.clock;
        self.by_id.entry(id).or_insert_with(|| Sensor {
            latest: watch::channel(None).0,
            spoke,
        })
    }

    /// Forgets a tenth at once, so that a flood of new names does not search the table for each of them.
    fn forget_silent(&mut self, sensors_max: usize) -> u64 {
        let before = self.by_id.len();
        let mut unwatched: Vec<u64> = self
            .by_id
            .values()
            .filter(|s| s.latest.receiver_count() == 0)
            .map(|s| s.spoke)
            .collect();
        unwatched.sort_unstable();
        if let Some(limit) = unwatched
            .get((sensors_max / 10).min(unwatched.len().saturating_sub(1)))
            .copied()
        {
            self.by_id
                .retain(|_, s| s.spoke > limit || s.latest.receiver_count() > 0);
        }
        (before - self.by_id.len()) as u64
    }
}

impl Room for SpeedBoard {
    fn asks(&self) -> (Operation, Resource<'_>) {
        (Operation::Read, Resource::topic(TOPIC))
    }

    fn follow(self: Arc<Self>, _: &Caller, outlet: Outlet) -> Following {
        let frames = self.stream.subscribe();
        Box::pin(async move {
            let _ = tell(&self, frames, outlet).await;
        })
    }
}

async fn tell(
    board: &SpeedBoard,
    mut frames: broadcast::Receiver<Utf8Bytes>,
    outlet: Outlet,
) -> Result<(), Gone> {
    outlet.update(&json!({ "latest": board.latest() })).await?;
    let mut caught_up = Instant::now();
    let mut behind = false;
    loop {
        let received = tokio::select! {
            received = frames.recv() => received,
            () = sleep_until(caught_up + CATCH_UP_EVERY), if behind => {
                outlet.update(&json!({ "latest": board.latest() })).await?;
                caught_up = Instant::now();
                behind = false;
                continue;
            }
        };
        match received {
            Ok(frame) => outlet.send(frame).await?,
            Err(RecvError::Lagged(count)) => {
                outlet.skipped(count).await?;
                // What was skipped may have been the last word of a sensor that now stays silent.
                behind = true;
            }
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Event {
    sensor_id: Option<String>,
    speed: Number,
    ts: Option<Number>,
}

/// The sensor is named in the event or by the record's key (MQTT routes set it from the topic).
fn parse(stored: &StoredRecord) -> Option<Reading> {
    let record = &stored.record;
    let event: Event = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let key = || {
        record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok())
            .map(str::to_owned)
    };
    let sensor_id = event
        .sensor_id
        .or_else(key)
        .filter(|id| !id.is_empty() && id.len() <= SENSOR_BYTES_MAX)?;
    let ts = event
        .ts
        .unwrap_or_else(|| Number::from(record.timestamp_ms.div_euclid(1000)));
    Some(Reading {
        sensor_id: sensor_id.into(),
        speed: event.speed,
        ts,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use holdfast_storage::log::Record;

    use super::*;

    fn event(key: Option<&str>, value: &str) -> StoredRecord {
        let record = Record {
            timestamp_ms: 1_700_000_000_999,
            key: key.map(|k| Bytes::from(k.to_owned())),
            value: Some(Bytes::from(value.to_owned())),
            headers: Vec::new(),
        };
        StoredRecord {
            offset: Offset::ZERO,
            record,
        }
    }

    fn say(board: &SpeedBoard, sensor: &str, speed: u32) {
        board.take(&event(
            Some(sensor),
            &format!(r#"{{"sensor_id":"{sensor}","speed":{speed},"ts":1700000000}}"#),
        ));
    }

    #[test]
    fn an_event_names_its_sensor_or_its_key_does() {
        let reading = parse(&event(
            Some("k"),
            r#"{"sensor_id":"s","speed":42.5,"ts":7}"#,
        ))
        .unwrap();
        assert_eq!(
            (
                &*reading.sensor_id,
                reading.speed.to_string(),
                reading.ts.to_string()
            ),
            ("s", "42.5".into(), "7".into())
        );
        let reading = parse(&event(Some("k"), r#"{"speed":42}"#)).unwrap();
        assert_eq!(
            (
                &*reading.sensor_id,
                reading.speed.to_string(),
                reading.ts.to_string()
            ),
            ("k", "42".into(), "1700000000".into())
        );
        for bad in [
            "",
            "[]",
            "42",
            r#"{"speed":"42"}"#,
            r#"{"sensor_id":"s"}"#,
            r#"{"sensor_id":"","speed":1}"#,
        ] {
            assert!(parse(&event(Some("k"), bad)).is_none(), "{bad}");
        }
        assert!(parse(&event(None, r#"{"speed":42}"#)).is_none());
    }

    #[test]
    fn the_latest_value_waits_for_whoever_comes_later() {
        let board = SpeedBoard::new(10, None);
        let early = board.watch(Some("a"));
        assert!(!early.has_changed().unwrap());
        say(&board, "a", 1);
        say(&board, "b", 2);
        say(&board, "a", 3);
        assert!(early.has_changed().unwrap());
        assert_eq!(early.borrow().as_ref().unwrap().speed, Number::from(3));
        let late = board.watch(Some("b"));
        assert!(late.has_changed().unwrap());
        assert_eq!(late.borrow().as_ref().unwrap().speed, Number::from(2));
        assert_eq!(
            board.watch(None).borrow().as_ref().unwrap().speed,
            Number::from(3)
        );
    }

    #[test]
    fn a_flood_of_names_forgets_the_silent_ones_but_none_that_is_watched() {
        let board = SpeedBoard::new(100, None);
        say(&board, "watched", 5);
        let watched = board.watch(Some("watched"));
        for n in 0..1_000 {
            say(&board, &format!("s{n}"), n);
            assert!(board.lock().by_id.len() <= 100);
        }
        assert_eq!(watched.borrow().as_ref().unwrap().speed, Number::from(5));
        assert!(board.lock().by_id.contains_key("s999"));
        assert!(board.forgotten.load(Ordering::Relaxed) >= 900);
    }

    #[test]
    fn what_the_pipeline_refuses_is_not_shown() {
        let even: SpeedRule = Arc::new(|payload, _| !payload.ends_with(b"1}"));
        let board = SpeedBoard::new(10, Some(even));
        board.take(&event(Some("a"), r#"{"speed":1}"#));
        board.take(&event(Some("b"), r#"{"speed":2}"#));
        assert_eq!(board.latest().len(), 1);
        assert_eq!(board.ignored.load(Ordering::Relaxed), 1);
    }
}

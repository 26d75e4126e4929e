//! Rooms `topic:<name>`: a sample of a topic's new records, for looking on.
//!
//! One task per watched topic, only while it is watched. It reads at most [`RECORDS_PER_S`] records a
//! second however fast the topic grows: the newest of what arrived, the rest is counted as skipped
//! without being read. The node's own records (users, keys) are in no topic and cannot be watched.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use holdfast_storage::log::{FetchError, Log, Offset, Partition, StoredRecord, Topic};
use serde::Serialize;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep, timeout};

use super::room::{
    Following, Gone, OnDemand, Outlet, Room, Running, STREAM_FRAMES_MAX, update_frame,
};
use crate::auth::{Caller, Operation, Resource};

/// Prefix of the room names.
pub(super) const PREFIX: &str = "topic:";

/// Records shown per second and topic, over all partitions.
pub(super) const RECORDS_PER_S: u32 = 20;

/// Bytes of a value that are shown.
pub(super) const VALUE_SHOWN_BYTES_MAX: usize = 16 << 10;

/// Bytes of a key that are shown.
const KEY_SHOWN_BYTES_MAX: usize = 1 << 10;

/// Batches read at once for one sample.
const READ_BYTES_MAX: usize = 1 << 20;

/// Between two looks at a topic that grows all the time.
const PACE: Duration = Duration::from_millis(50);

/// How often the topic is looked up again (deleted, recreated, more partitions), the skipped are
/// reported, and a room without followers is left.
const CHECK_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) enum Shown {
    Record(Utf8Bytes),
    Skipped(u64),
}

pub(super) struct TopicRoom {
    log: Log,
    name: String,
    producer: OnDemand<broadcast::Sender<Shown>>,
}

impl TopicRoom {
    pub(super) fn new(
        log: Log,
        name: String,
        producer: OnDemand<broadcast::Sender<Shown>>,
    ) -> TopicRoom {
        TopicRoom {
            log,
            name,
            producer,
        }
    }

    async fn produce(
        self: Arc<Self>,
        running: Running<broadcast::Sender<Shown>>,
        mut tail: Option<Tail>,
    ) {
        let mut allowance = Allowance::new(Instant::now());
        let mut skipped = 0;
        let mut checked = Instant::now();
        loop {
            match tail.as_mut() {
                // A timeout is only the moment for the checks below.
                Some(tail) => drop(timeout(CHECK_EVERY, tail.watch.appended()).await),
                None => sleep(CHECK_EVERY).await,
            }
            if let Some(tail) = tail.as_mut() {
                skipped += self.sample(tail, &mut allowance, running.sender()).await;
            }
            if checked.elapsed() >= CHECK_EVERY {
                checked = Instant::now();
                if skipped > 0 {
                    let _ = running.sender().send(Shown::Skipped(skipped));
                    skipped = 0;
                }
                if running.retire() {
                    return;
                }
                if !tail
                    .as_ref()
                    .is_some_and(|tail| tail.is_current(&self.log, &self.name))
                {
                    tail = Tail::at_end(&self.log, &self.name);
                }
            }
            sleep(PACE).await;
        }
    }

    /// Shows what the allowance permits of what is new, and returns how many records it left out.
    async fn sample(
        &self,
        tail: &mut Tail,
        allowance: &mut Allowance,
        shown: &broadcast::Sender<Shown>,
    ) -> u64 {
        let grown: Vec<(usize, Offset)> = tail
            .next
            .iter()
            .zip(tail.topic.partitions())
            .enumerate()
            .filter_map(|(at, (next, p))| {
                Some(p.last_stable_offset())
                    .filter(|end| end > next)
                    .map(|end| (at, end))
            })
            .collect();
        let mut skipped = 0;
        let mut waiting = grown.len();
        for (at, end) in grown {
            let share = allowance.share(waiting, Instant::now());
            waiting -= 1;
            let (Some(next), Some(partition)) =
                (tail.next.get_mut(at), tail.topic.partitions().get(at))
            else {
                continue;
            };
            let fresh = end.since(*next);
            let wanted = fresh.min(u64::from(share));
            let from =
                Offset::new(end.value() - i64::try_from(wanted).unwrap_or(0)).unwrap_or(*next);
            *next = end;
            if wanted == 0 {
                skipped += fresh;
                continue;
            }
            let records = read(&self.log, partition, from, READ_BYTES_MAX)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(topic = self.name, %error, "a live sample could not be read");
                    Vec::new()
                });
            let mut told = 0;
            for record in records
                .iter()
                .filter(|r| r.offset >= from && r.offset < end)
            {
                let frame = update_frame(
                    &format!("{PREFIX}{}", self.name),
                    &view(partition.index(), record),
                );
                let _ = shown.send(Shown::Record(frame));
                told += 1;
            }
            allowance.spend(told);
            skipped += fresh.saturating_sub(u64::from(told));
        }
        skipped
    }
}

impl Room for TopicRoom {
    fn asks(&self) -> (Operation, Resource<'_>) {
        (Operation::Read, Resource::topic(&self.name))
    }

    fn follow(self: Arc<Self>, _: &Caller, outlet: Outlet) -> Following {
        let room = Arc::clone(&self);
        let shown = self.producer.follow(
            || broadcast::channel(STREAM_FRAMES_MAX).0,
            // The place is taken now, not when the task first runs: what is appended after subscribing counts.
            |running| {
                let tail = Tail::at_end(&room.log, &room.name);
                room.produce(running, tail)
            },
        );
        Box::pin(async move {
            let _ = tell(shown, outlet).await;
        })
    }
}

async fn tell(mut shown: broadcast::Receiver<Shown>, outlet: Outlet) -> Result<(), Gone> {
    loop {
        match shown.recv().await {
            Ok(Shown::Record(frame)) => outlet.send(frame).await?,
            Ok(Shown::Skipped(count)) => outlet.skipped(count).await?,
            Err(RecvError::Lagged(count)) => outlet.skipped(count).await?,
            Err(RecvError::Closed) => {
                return outlet.error("this room stopped: subscribe again").await;
            }
        }
    }
}

struct Tail {
    topic: Arc<Topic>,
    watch: holdfast_storage::log::Watch,
    /// By partition: the first offset not yet looked at.
    next: Vec<Offset>,
}

impl Tail {
    fn at_end(log: &Log, name: &str) -> Option<Tail> {
        let topic = log.topic(name)?;
        let watch = log.watch(topic.partitions());
        let next = topic
            .partitions()
            .iter()
            .map(|p| p.last_stable_offset())
            .collect();
        Some(Tail { topic, watch, next })
    }

    fn is_current(&self, log: &Log, name: &str) -> bool {
        log.topic(name).is_some_and(|now| {
            now.id() == self.topic.id() && now.partitions().len() == self.topic.partitions().len()
        })
    }
}

/// Reads off the async threads: what is asked for may have left the page cache.
pub(super) async fn read(
    log: &Log,
    partition: &Arc<Partition>,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<StoredRecord>, FetchError> {
    let (log, partition) = (log.clone(), Arc::clone(partition));
    tokio::task::spawn_blocking(move || log.read(&partition, from, bytes_max))
        .await
        .unwrap_or_else(|error| Err(FetchError::Storage(error.to_string())))
}

/// A token bucket of [`RECORDS_PER_S`], full at the start.
struct Allowance {
    tokens: f64,
    filled: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Allowance {
        Allowance {
            tokens: f64::from(RECORDS_PER_S),
            filled: now,
        }
    }

    /// How many records one of `waiting` partitions may show: an equal part, at least one while any is left.
    fn share(&mut self, waiting: usize, now: Instant) -> u32 {
        let grown =
            now.saturating_duration_since(self.filled).as_secs_f64() * f64::from(RECORDS_PER_S);
        self.tokens = (self.tokens + grown).min(f64::from(RECORDS_PER_S));
        self.filled = now;
        let whole = self.tokens as u32;
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).max(1);
        whole.min((whole / waiting).max(1))
    }

    fn spend(&mut self, records: u32) {
        self.tokens = (self.tokens - f64::from(records)).max(0.0);
    }
}

#[derive(Debug, Serialize)]
struct View {
    partition: i32,
    offset: Offset,
    timestamp_ms: i64,
    key: Option<String>,
    /// Absent where the key is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    /// `null` for a tombstone.
    value: Option<String>,
    encoding: &'static str,
    /// Present where the value is longer than what is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

fn view(partition: i32, stored: &StoredRecord) -> View {
    let record = &stored.record;
    let key = record
        .key
        .as_deref()
        .map(|key| text(key, KEY_SHOWN_BYTES_MAX));
    let value = record
        .value
        .as_deref()
        .map(|value| text(value, VALUE_SHOWN_BYTES_MAX));
    View {
        partition,
        offset: stored.offset,
        timestamp_ms: record.timestamp_ms,
        key_encoding: key
            .as_ref()
            .map(|(_, encoding)| *encoding)
            .filter(|encoding| *encoding != "utf-8"),
        key: key.map(|(text, _)| text),
        encoding: value.as_ref().map_or("utf-8", |(_, encoding)| *encoding),
        value: value.map(|(text, _)| text),
        truncated: record
            .value
            .as_ref()
            .is_some_and(|value| value.len() > VALUE_SHOWN_BYTES_MAX),
    }
}

/// The first bytes as text, or as base64 where they are none.
fn text(bytes: &[u8], bytes_max: usize) -> (String, &'static str) {
    let head = bytes.get(..bytes_max).unwrap_or(bytes);
    match std::str::from_utf8(head) {
        Ok(text) => (text.to_owned(), "utf-8"),
        // Cutting may have split the last character; anything else is not text.
        Err(error) if error.error_len().is_none() && head.len() < bytes.len() => {
            let whole = head.get(..error.valid_up_to()).unwrap_or_default();
            (String::from_utf8_lossy(whole).into_owned(), "utf-8")
        }
        Err(_) => (STANDARD.encode(head), "base64"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_even_when_a_character_is_cut() {
        assert_eq!(text(b"abc", 8), ("abc".into(), "utf-8"));
        assert_eq!(text("aΩΩ".as_bytes(), 4), ("aΩ".into(), "utf-8"));
        assert_eq!(text(b"\xff\x00", 8), ("/wA=".into(), "base64"));
        assert_eq!(
            text(
                "Ω".get(..)
                    .unwrap_or_default()
                    .as_bytes()
                    .get(..1)
                    .unwrap_or_default(),
                8
            )
            .1,
            "base64"
        );
    }

    #[test]
    fn the_allowance_is_shared_and_refills() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert_eq!(allowance.share(1, start), 20);
        assert_eq!(allowance.share(4, start), 5);
        assert_eq!(allowance.share(100, start), 1);
        allowance.spend(20);
        assert_eq!(allowance.share(1, start), 0);
        assert_eq!(allowance.share(1, start + Duration::from_millis(500)), 10);
        assert_eq!(allowance.share(1, start + Duration::from_secs(60)), 20);
    }
}

//! Room `invalid`: rejected records; the newest on joining, then each new one.
//!
//! One look a second serves all sockets. More than [`LOOK_RECORDS`] rejections between two looks are
//! counted as skipped: the page lists them through `/invalid/recent`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::room::{
    Following, Gone, OnDemand, Outlet, Room, Running, STREAM_FRAMES_MAX, update_frame_of,
};
use super::sources::{InvalidItem, TelemetrySource};
use crate::auth::{Caller, Operation, Resource};

/// Records sent on joining, and the most that one look takes.
const LOOK_RECORDS: usize = 50;

/// Who may read this may see what was rejected.
const TOPIC: &str = "telemetry.dlq";

const EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) enum News {
    Record { id: i64, frame: Utf8Bytes },
    Skipped { up_to: i64, count: u64 },
}

pub(super) struct Invalid {
    source: Arc<dyn TelemetrySource>,
    producer: OnDemand<broadcast::Sender<News>>,
}

impl Invalid {
    pub(super) fn new(
        source: Arc<dyn TelemetrySource>,
        producer: OnDemand<broadcast::Sender<News>>,
    ) -> Invalid {
        Invalid { source, producer }
    }

    async fn look(&self) -> Option<Vec<InvalidItem>> {
        let source = Arc::clone(&self.source);
        match tokio::task::spawn_blocking(move || source.invalid_recent(LOOK_RECORDS)).await {
            Ok(Ok(newest_first)) => return Some(newest_first),
            Ok(Err(error)) => tracing::warn!(error, "rejected records could not be read"),
            Err(error) => tracing::error!(%error, "reading rejected records panicked"),
        }
        None
    }

    async fn produce(self: Arc<Self>, running: Running<broadcast::Sender<News>>) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // From the very beginning: what arrives between this first look and a joining socket's own would
        // otherwise be nobody's news. Sockets leave out what they have seen.
        let mut cursor = 0;
        loop {
            tick.tick().await;
            if running.retire() {
                return;
            }
            let Some(newest_first) = self.look().await else {
                continue;
            };
            let newest = newest_first.first().map_or(cursor, |item| item.id);
            for news in news_since(cursor, newest_first) {
                // Nobody listening between two looks is not an error.
                let _ = running.sender().send(news);
            }
            cursor = cursor.max(newest);
        }
    }

    async fn tell(
        self: Arc<Self>,
        mut news: broadcast::Receiver<News>,
        outlet: Outlet,
    ) -> Result<(), Gone> {
        let present = loop {
            match self.look().await {
                Some(present) => break present,
                None => {
                    outlet
                        .error("the rejected records cannot be read at the moment")
                        .await?;
                    sleep(EVERY).await;
                }
            }
        };
        let seen = present.first().map_or(0, |item| item.id);
        outlet.send(frame_of(present.iter())).await?;
        loop {
            match news.recv().await {
                Ok(News::Record { id, frame }) if id > seen => outlet.send(frame).await?,
                Ok(News::Skipped { up_to, count }) if up_to > seen => outlet.skipped(count).await?,
                Ok(_) => {}
                Err(RecvError::Lagged(count)) => outlet.skipped(count).await?,
                Err(RecvError::Closed) => {
                    return outlet.error("this room stopped: subscribe again").await;
                }
            }
        }
    }
}

impl Room for Invalid {
    fn asks(&self) -> (Operation, Resource<'_>) {
        (Operation::Read, Resource::topic(TOPIC))
    }

    fn follow(self: Arc<Self>, _: &Caller, outlet: Outlet) -> Following {
        let room = Arc::clone(&self);
        let news = self.producer.follow(
            || broadcast::channel(STREAM_FRAMES_MAX).0,
            |running| room.produce(running),
        );
        Box::pin(async move {
            let _ = self.tell(news, outlet).await;
        })
    }
}

/// What is new after `seen`, oldest first.
fn news_since(seen: i64, newest_first: Vec<InvalidItem>) -> Vec<News> {
    let full = newest_first.len() >= LOOK_RECORDS;
    let oldest = newest_first.last().map_or(0, |item| item.id);
    let mut news = Vec::new();
    let missed = oldest.saturating_sub(seen).saturating_sub(1);
    if full && missed > 0 {
        news.push(News::Skipped {
            up_to: oldest - 1,
            count: missed.unsigned_abs(),
        });
    }
    for item in newest_first.into_iter().rev().filter(|item| item.id > seen) {
        news.push(News::Record {
            id: item.id,
            frame: frame_of(std::iter::once(&item)),
        });
    }
    news
}

fn frame_of<'a>(items: impl Iterator<Item = &'a InvalidItem>) -> Utf8Bytes {
    let records: Vec<&str> = items.map(|item| item.json.as_str()).collect();
    update_frame_of("invalid", &format!("[{}]", records.join(",")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;

    fn items(ids: impl DoubleEndedIterator<Item = i64>) -> Vec<InvalidItem> {
        ids.rev()
            .map(|id| InvalidItem {
                id,
                json: format!(r#"{{"id":{id}}}"#),
            })
            .collect()
    }

    fn ids(news: &[News]) -> Vec<i64> {
        news.iter()
            .map(|n| match n {
                News::Record { id, .. } => *id,
                News::Skipped { count, .. } => -i64::try_from(*count).unwrap_or(0),
            })
            .collect()
    }

    #[test]
    fn new_records_come_oldest_first_and_known_ones_not_again() {
        assert_eq!(ids(&news_since(3, items(1..=5))), [4, 5]);
        assert!(news_since(5, items(1..=5)).is_empty());
        assert!(news_since(0, Vec::new()).is_empty());
    }

    #[test]
    fn what_one_look_cannot_hold_is_counted() {
        let news = news_since(10, items(111..=160));
        assert_eq!(ids(&news)[..2], [-100, 111]);
        assert_eq!(news.len(), 1 + LOOK_RECORDS);
        assert_eq!(ids(&news_since(110, items(111..=160)))[0], 111);
    }

    #[test]
    fn a_frame_is_an_array_even_when_it_is_empty() {
        assert_eq!(
            frame_of(std::iter::empty()).as_str(),
            r#"{"type":"update","room":"invalid","data":[]}"#
        );
        let two = items(1..=2);
        assert_eq!(
            frame_of(two.iter()).as_str(),
            r#"{"type":"update","room":"invalid","data":[{"id":2},{"id":1}]}"#
        );
    }
}

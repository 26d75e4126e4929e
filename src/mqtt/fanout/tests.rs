//! The live path with the real router, and with one that fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::mqtt::message::Delivery;
use crate::mqtt::publish::QoS;
use crate::mqtt::router::RumqttdRouter;
use crate::mqtt::topic::TopicLimits;

const LIMITS: TopicLimits = TopicLimits {
    bytes_max: 200,
    levels_max: 8,
};

fn wanted(filter: &str) -> Vec<NewSubscription> {
    let options = Options {
        qos: QoS::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        id: None,
    };
    vec![NewSubscription {
        key: SubscriptionKey::parse(filter, LIMITS).unwrap(),
        options,
    }]
}

fn message(topic: &str, n: u64) -> LiveMessage {
    LiveMessage {
        topic: topic.to_owned(),
        payload: Bytes::from(n.to_string()),
        properties: Bytes::new(),
        expires_at_ms: None,
        qos: QoS::AtLeastOnce,
        retain: false,
        publisher: 0,
    }
}

async fn subscriber(fanout: &Fanout, connection: ConnectionId, filter: &str) -> Receiver<Delivery> {
    let (queue, receiver) = DeliveryQueue::new(connection.to_string(), 1 << 20, 1 << 30, None);
    let added = fanout
        .subscribe(connection, queue, wanted(filter))
        .await
        .unwrap();
    assert!(added[0].is_some());
    receiver
}

async fn next(receiver: &mut Receiver<Delivery>) -> u64 {
    let delivery = tokio::time::timeout(Duration::from_secs(30), receiver.recv())
        .await
        .unwrap()
        .unwrap();
    std::str::from_utf8(&delivery.message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

async fn start<R: LiveRouter>() -> (Fanout, Arc<MqttStats>, CancellationToken) {
    let stats = Arc::new(MqttStats::default());
    let shutdown = CancellationToken::new();
    let (fanout, task) = Fanout::start::<R>(100_000, Arc::clone(&stats), shutdown.clone())
        .await
        .unwrap();
    tokio::spawn(task);
    (fanout, stats, shutdown)
}

#[tokio::test]
async fn everything_on_its_way_arrives_in_order_past_the_in_flight_limit() {
    let (fanout, stats, _shutdown) = start::<RumqttdRouter>().await;
    let mut all = subscriber(&fanout, 1, "#").await;
    let mut some = subscriber(&fanout, 2, "t/+").await;
    for burst in 0..20 {
        let messages = (0..1000)
            .map(|n| message("t/x", burst * 1000 + n))
            .collect();
        fanout.publish(messages).await;
    }
    for n in 0..20_000 {
        assert_eq!(next(&mut all).await, n);
        assert_eq!(next(&mut some).await, n);
    }
    assert_eq!(MqttStats::get(&stats.router_failures), 0);
}

#[tokio::test]
async fn leaving_under_load_disturbs_nobody() {
    let (fanout, stats, _shutdown) = start::<RumqttdRouter>().await;
    let mut steady = subscriber(&fanout, 1, "t/#").await;
    for round in 0..200u64 {
        let connection = 2 + round;
        let _receiver = subscriber(&fanout, connection, "t/+").await;
        fanout
            .publish((0..50).map(|n| message("t/x", round * 50 + n)).collect())
            .await;
        if round % 2 == 0 {
            let keys = wanted("t/+").into_iter().map(|new| new.key).collect();
            assert_eq!(fanout.unsubscribe(connection, keys).await.unwrap(), [true]);
        }
        fanout.leave(connection).await;
    }
    for n in 0..10_000 {
        assert_eq!(next(&mut steady).await, n);
    }
    assert_eq!(MqttStats::get(&stats.router_failures), 0);
    assert_eq!(MqttStats::get(&stats.subscriptions), 1);
}

#[tokio::test]
async fn a_router_that_has_seen_many_topics_is_replaced_without_loss() {
    let (fanout, stats, _shutdown) = start::<RumqttdRouter>().await;
    let mut all = subscriber(&fanout, 1, "#").await;
    let count = 2 * ROUTER_TOPICS_MAX as u64 + 100;
    let publisher = {
        let fanout = fanout.clone();
        tokio::spawn(async move {
            for first in (0..count).step_by(100) {
                fanout
                    .publish(
                        (first..first + 100)
                            .map(|n| message(&format!("t/{n}"), n))
                            .collect(),
                    )
                    .await;
            }
        })
    };
    for n in 0..count {
        assert_eq!(next(&mut all).await, n);
    }
    publisher.await.unwrap();
    assert_eq!(MqttStats::get(&stats.router_failures), 0);
    assert_eq!(MqttStats::get(&stats.dropped_by_router), 0);
}

#[tokio::test]
async fn nobody_subscribed_means_nobody_is_asked() {
    let (fanout, _stats, _shutdown) = start::<RumqttdRouter>().await;
    assert!(!fanout.anyone());
    let _receiver = subscriber(&fanout, 1, "a/+").await;
    assert!(fanout.anyone());
    assert!(fanout.table().matches_any("a/b") && !fanout.table().matches_any("b"));
    fanout.leave(1).await;
    let _other = subscriber(&fanout, 2, "c").await;
    assert!(!fanout.table().matches_any("a/b"));
}

/// Works, but the first one fails after a few matches.
struct Flawed {
    inner: RumqttdRouter,
    matches_left: usize,
}

static FLAWED_STARTED: AtomicU64 = AtomicU64::new(0);

impl LiveRouter for Flawed {
    async fn start() -> Result<Flawed, RouterDown> {
        let first = FLAWED_STARTED.fetch_add(1, Ordering::Relaxed) == 0;
        let matches_left = if first { 100 } else { usize::MAX };
        Ok(Flawed {
            inner: RumqttdRouter::start().await?,
            matches_left,
        })
    }
    fn subscribe(&mut self, filter: &str, id: FilterId) -> Result<(), RouterDown> {
        self.inner.subscribe(filter, id)
    }
    fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterDown> {
        self.inner.unsubscribe(filter)
    }
    fn publish(&mut self, batch: &mut Vec<(String, Ticket)>) -> Result<(), RouterDown> {
        self.inner.publish(batch)
    }
    async fn matched(&mut self, matches: &mut Vec<(FilterId, Ticket)>) -> Result<(), RouterDown> {
        if self.matches_left == 0 {
            return Err(RouterDown::new("made to fail"));
        }
        self.inner.matched(matches).await?;
        self.matches_left = self.matches_left.saturating_sub(matches.len());
        Ok(())
    }
    fn stop(self) {
        self.inner.stop();
    }
}

#[tokio::test]
async fn a_failed_router_is_replaced_and_subscribers_stay_subscribed() {
    let (fanout, stats, _shutdown) = start::<Flawed>().await;
    let mut all = subscriber(&fanout, 1, "#").await;
    for n in 0..500 {
        fanout.publish(vec![message("t", n)]).await;
    }
    let mut last = next(&mut all).await;
    assert_eq!(last, 0);
    while last < 499 {
        let n = next(&mut all).await;
        assert!(n <= last + 1, "{n} after {last}: a message is missing");
        last = last.max(n);
    }
    assert_eq!(MqttStats::get(&stats.router_failures), 1);
    assert_eq!(MqttStats::get(&stats.dropped_by_router), 0);
}

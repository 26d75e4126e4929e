//! A message on its way to live subscribers, and the queue in front of each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::warn;

use super::publish::{Publish, PublishProperties, QoS};
use super::stats::{LogGate, MqttStats, add};
use crate::auth::Rights;

/// Number of one connection; never reused while the node runs.
pub(crate) type ConnectionId = u64;
/// No connection: the publisher of wills and of retained messages.
pub(crate) const NOBODY: ConnectionId = 0;

/// Milliseconds since the Unix epoch; 0 on a clock set before it.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// A message as subscribers get it. Owns its bytes: a slice of a read buffer would keep the whole
/// buffer alive for as long as a slow subscriber takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveMessage {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    /// As `PublishProperties::to_wire` gives them.
    pub(crate) properties: Bytes,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Who published it; no-local asks.
    pub(crate) publisher: ConnectionId,
}

impl LiveMessage {
    /// A copy of a publish for its subscribers.
    pub(crate) fn of(
        publish: &Publish,
        topic: &str,
        arrived_ms: i64,
        publisher: ConnectionId,
    ) -> LiveMessage {
        let properties = publish.properties.as_deref();
        let expiry_ms = properties
            .and_then(|p| p.expiry_s)
            .map(|s| i64::from(s) * 1000);
        LiveMessage {
            topic: topic.to_owned(),
            payload: Bytes::copy_from_slice(&publish.payload),
            properties: properties
                .map(PublishProperties::to_wire)
                .unwrap_or_default(),
            expires_at_ms: expiry_ms.map(|ms| arrived_ms.saturating_add(ms)),
            qos: publish.qos,
            retain: publish.retain,
            publisher,
        }
    }

    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// Seconds until it expires: `None` without expiry, `Some(0)` when it has expired.
    pub(crate) fn expiry_s(&self, now_ms: i64) -> Option<u32> {
        let left_ms = self.expires_at_ms?.saturating_sub(now_ms).max(0);
        // Rounded up, so that a message forwarded at once keeps the interval it came with.
        Some(u32::try_from((left_ms.saturating_add(999)) / 1000).unwrap_or(u32::MAX))
    }
}

/// One message for one subscription.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) message: Arc<LiveMessage>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_id: Option<u32>,
}

/// Sending end of one subscriber's queue, bounded in messages and bytes. A full queue refuses the
/// newest message: a publisher never waits for a subscriber.
#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    client: String,
    sender: mpsc::Sender<Delivery>,
    queued_bytes: AtomicUsize,
    bytes_max: usize,
    gate: LogGate,
    /// What the subscriber may read; `None`: nothing is asked.
    reading: Option<Arc<Rights>>,
}

impl DeliveryQueue {
    pub(crate) fn new(
        client: String,
        messages_max: usize,
        bytes_max: usize,
        reading: Option<Arc<Rights>>,
    ) -> (Arc<DeliveryQueue>, mpsc::Receiver<Delivery>) {
        let (sender, receiver) = mpsc::channel(messages_max);
        let queue = DeliveryQueue {
            client,
            sender,
            queued_bytes: AtomicUsize::new(0),
            bytes_max,
            gate: LogGate::default(),
            reading,
        };
        (Arc::new(queue), receiver)
    }

    /// Whether access rules let the subscriber read messages of this topic.
    pub(crate) fn may_read(&self, topic: &str) -> bool {
        self.reading
            .as_ref()
            .is_none_or(|reading| reading.to(topic))
    }

    /// Whether a message of this size fits now.
    pub(crate) fn has_room(&self, message: &LiveMessage) -> bool {
        self.sender.capacity() > 0
            && self.queued_bytes.load(Ordering::Relaxed) + message.bytes() <= self.bytes_max
    }

    /// Queues it, or counts and logs that the subscriber missed it.
    pub(crate) fn push(&self, delivery: Delivery, stats: &MqttStats) {
        if !self.may_read(&delivery.message.topic) {
            add(&stats.unreadable, 1);
            return;
        }
        if self.has_room(&delivery.message) {
            let bytes = delivery.message.bytes();
            // Counted first: the receiver may take it before `try_send` has returned.
            self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
            if self.sender.try_send(delivery).is_ok() {
                return;
            }
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        if self.sender.is_closed() {
            return;
        }
        add(&stats.dropped_for_slow_subscriber, 1);
        if let Some(more) = self.gate.open(now_ms()) {
            warn!(
                client = %self.client,
                more,
                "subscriber is too slow: its queue is full and it misses a message"
            );
        }
    }

    /// Gives back the room of messages taken off the queue.
    pub(crate) fn taken(&self, deliveries: &[Delivery]) {
        let bytes = deliveries
            .iter()
            .map(|delivery| delivery.message.bytes())
            .sum();
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    fn delivery(bytes: usize) -> Delivery {
        let message = LiveMessage {
            topic: "t".to_owned(),
            payload: Bytes::from(vec![0; bytes - 1]),
            properties: Bytes::new(),
            expires_at_ms: None,
            qos: QoS::AtMostOnce,
            retain: false,
            publisher: 0,
        };
        Delivery {
            message: Arc::new(message),
            qos: QoS::AtMostOnce,
            retain: false,
            subscription_id: None,
        }
    }

    #[test]
    fn a_full_queue_refuses_the_newest_and_counts_it() {
        let stats = MqttStats::default();
        let (queue, mut receiver) = DeliveryQueue::new("c".to_owned(), 3, 100, None);
        for _ in 0..5 {
            queue.push(delivery(10), &stats);
        }
        assert_eq!(MqttStats::get(&stats.dropped_for_slow_subscriber), 2);
        let taken: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        assert_eq!(taken.len(), 3);
        queue.taken(&taken);
        queue.push(delivery(60), &stats);
        queue.push(delivery(60), &stats);
        assert_eq!(MqttStats::get(&stats.dropped_for_slow_subscriber), 3);
        assert!(receiver.try_recv().is_ok());
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn expiry_counts_down_in_whole_seconds() {
        let mut message = LiveMessage::clone(&delivery(1).message);
        assert_eq!(message.expiry_s(5), None);
        message.expires_at_ms = Some(10_000);
        assert_eq!(message.expiry_s(0), Some(10));
        assert_eq!(message.expiry_s(1), Some(10));
        assert_eq!(message.expiry_s(9_999), Some(1));
        assert_eq!(message.expiry_s(10_000), Some(0));
        assert_eq!(message.expiry_s(99_000), Some(0));
    }
}

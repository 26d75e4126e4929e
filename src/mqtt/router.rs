//! The live router: finds the subscribed filters that match a published topic.
//!
//! [`LiveRouter`] is all the door asks of it. [`RumqttdRouter`] is rumqttd's `Router` behind one
//! local link, kept away from everything that is known to break it:
//! - topics and filters are validated before and carry the prefix `m/` (its matching slices the
//!   first byte of a topic, which stops its thread on a non-ASCII character);
//! - one link with a clean session, subscribed at QoS 0 once per distinct filter: no groups, no
//!   acknowledgements, no duplicate client identifiers, no properties, no retained messages, no
//!   wills inside it;
//! - a publish carries an eight-byte ticket in place of its payload, so that its in-memory logs
//!   hold no payloads and their size is known;
//! - its logs wrap around silently, so that `fanout` keeps what is on its way below
//!   [`IN_FLIGHT_BYTES_MAX`];
//! - its caches of topics and filters never shrink, so that `fanout` replaces it when they have
//!   grown (and when it has failed).

use std::future::Future;
use std::panic;
use std::sync::Once;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe,
    SubscribeProperties,
};
use rumqttd::{Notification, Router, RouterConfig, RouterId};
use tracing::debug;

use super::subscriptions::FilterId;

/// Number of one publish handed to the router.
pub(crate) type Ticket = u64;

const PREFIX: &str = "m/";
const ROUTER_ID: RouterId = 0;
/// What rumqttd names the thread of the router with [`ROUTER_ID`].
const THREAD_NAME: &str = "router-0";
const SEGMENT_BYTES: usize = 64 << 10;
const SEGMENTS: usize = 4;
const START_MAX: Duration = Duration::from_secs(5);
/// What the router's log counts for one publish besides its topic: prefix, ticket and header.
const ENTRY_BYTES: usize = 4 + PREFIX.len() + size_of::<Ticket>();
/// Publishes on their way through the router, as [`entry_bytes`] counts them. One filter's log
/// keeps three whole segments at least; two are used.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 2 * SEGMENT_BYTES;

/// What one publish takes in the router's log.
pub(crate) fn entry_bytes(topic: &str) -> usize {
    ENTRY_BYTES + topic.len()
}

/// The router has failed; what was on its way is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("live router: {0}")]
pub(crate) struct RouterDown(String);

impl RouterDown {
    pub(crate) fn new(text: impl ToString) -> RouterDown {
        RouterDown(text.to_string())
    }
}

/// Matches published topics against subscribed filters.
pub(crate) trait LiveRouter: Sized + Send + 'static {
    fn start() -> impl Future<Output = Result<Self, RouterDown>> + Send;
    /// Takes effect before anything published later.
    fn subscribe(&mut self, filter: &str, id: FilterId) -> Result<(), RouterDown>;
    fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterDown>;
    /// Publishes in order; leaves `batch` empty.
    fn publish(&mut self, batch: &mut Vec<(String, Ticket)>) -> Result<(), RouterDown>;
    /// Waits for matches: each ticket comes once per matching filter, in order per filter.
    /// Nothing is lost if the future is dropped.
    fn matched(
        &mut self,
        matches: &mut Vec<(FilterId, Ticket)>,
    ) -> impl Future<Output = Result<(), RouterDown>> + Send;
    /// Ends it and frees what it holds.
    fn stop(self);
}

/// rumqttd's router, driven over one local link.
pub(crate) struct RumqttdRouter {
    sender: LinkTx,
    receiver: LinkRx,
}

impl RumqttdRouter {
    /// Matches taken at once, so that a flood of them does not keep commands waiting.
    const MATCHES_MAX: usize = 1024;

    fn config() -> RouterConfig {
        RouterConfig {
            max_connections: 2,
            max_outgoing_packet_count: 1024,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        }
    }

    fn start_blocking() -> Result<RumqttdRouter, RouterDown> {
        quiet_its_threads();
        let events = Router::new(ROUTER_ID, Self::config()).spawn();
        let (sender, receiver, _connack) = LinkBuilder::new("holdfast", events)
            .build()
            .map_err(RouterDown::new)?;
        Ok(RumqttdRouter { sender, receiver })
    }

    fn send(&mut self, packet: Packet) -> Result<(), RouterDown> {
        // The link's `send` is async in name only: it never yields.
        match self.sender.send(packet).now_or_never() {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(RouterDown::new(error)),
            None => Err(RouterDown::new("the link did not take a packet")),
        }
    }

    fn take(
        &mut self,
        notification: Option<Notification>,
        matches: &mut Vec<(FilterId, Ticket)>,
    ) -> Result<(), RouterDown> {
        match notification {
            Some(Notification::Forward(forward)) => {
                let filter = forward
                    .properties
                    .and_then(|properties| properties.subscription_identifiers.first().copied());
                let ticket = forward.publish.payload.first_chunk().copied();
                match (filter, ticket) {
                    (Some(filter), Some(ticket)) => {
                        matches.push((filter, Ticket::from_be_bytes(ticket)));
                        Ok(())
                    }
                    _ => Err(RouterDown::new("it forwarded what was never published")),
                }
            }
            // It stops forwarding when its buffer to us is full, until it is told to go on.
            Some(Notification::Unschedule) => self.receiver.ready().map_err(RouterDown::new),
            Some(Notification::Disconnect(..)) => Err(RouterDown::new("it closed the link")),
            _ => Ok(()),
        }
    }
}

/// The router's thread can end only by panicking, and the standard hook would print that on every
/// shutdown. A panic that was not asked for is seen as a failed router and logged by `fanout`.
fn quiet_its_threads() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let standard = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if thread::current().name() == Some(THREAD_NAME) {
                debug!(location = ?info.location(), "a live router's thread has ended");
            } else {
                standard(info);
            }
        }));
    });
}

impl LiveRouter for RumqttdRouter {
    async fn start() -> Result<RumqttdRouter, RouterDown> {
        // A router that dies before it has taken the link leaves `build` waiting for ever.
        tokio::time::timeout(
            START_MAX,
            tokio::task::spawn_blocking(RumqttdRouter::start_blocking),
        )
        .await
        .map_err(RouterDown::new)?
        .map_err(RouterDown::new)?
    }

    fn subscribe(&mut self, filter: &str, id: FilterId) -> Result<(), RouterDown> {
        let filter = Filter {
            path: format!("{PREFIX}{filter}"),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let properties = SubscribeProperties {
            id: Some(id),
            user_properties: Vec::new(),
        };
        self.send(Packet::Subscribe(
            Subscribe {
                pkid: 1,
                filters: vec![filter],
            },
            Some(properties),
        ))
    }

    fn unsubscribe(&mut self, filter: &str) -> Result<(), RouterDown> {
        self.sender
            .unsubscribe(format!("{PREFIX}{filter}"))
            .map(|_| ())
            .map_err(RouterDown::new)
    }

    fn publish(&mut self, batch: &mut Vec<(String, Ticket)>) -> Result<(), RouterDown> {
        let mut packets = batch.drain(..).map(|(topic, ticket)| {
            let ticket = Bytes::copy_from_slice(&ticket.to_be_bytes());
            let topic = Bytes::from(format!("{PREFIX}{topic}"));
            Packet::Publish(Publish::new(topic, ticket, false), None)
        });
        let Some(last) = packets.next_back() else {
            return Ok(());
        };
        // Only the last one is sent with a wake-up: one event for the whole batch.
        self.sender.buffer().extend(packets);
        self.send(last)
    }

    async fn matched(&mut self, matches: &mut Vec<(FilterId, Ticket)>) -> Result<(), RouterDown> {
        let first = self.receiver.next().await.map_err(RouterDown::new)?;
        self.take(first, matches)?;
        while matches.len() < Self::MATCHES_MAX {
            match self.receiver.next().now_or_never() {
                Some(Ok(more)) => self.take(more, matches)?,
                Some(Err(error)) => return Err(RouterDown::new(error)),
                None => break,
            }
        }
        Ok(())
    }

    fn stop(mut self) {
        let reason_code = DisconnectReasonCode::NormalDisconnection;
        let left = self.send(Packet::Disconnect(Disconnect { reason_code }, None));
        // rumqttd's router holds a sender to itself and so never ends by itself. An event of a
        // link that has left ends its thread, which frees its memory.
        if left.is_ok() {
            let _ = self.receiver.ready();
        }
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
    use std::collections::BTreeMap;

    use super::*;

    async fn collect(router: &mut RumqttdRouter, count: usize) -> Vec<(FilterId, Ticket)> {
        let mut matches = Vec::new();
        while matches.len() < count {
            tokio::time::timeout(Duration::from_secs(20), router.matched(&mut matches))
                .await
                .unwrap()
                .unwrap();
        }
        matches
    }

    #[tokio::test]
    async fn every_matching_filter_is_reported_in_order() {
        let mut router = RumqttdRouter::start().await.unwrap();
        for (id, filter) in [(1, "a/+"), (2, "#"), (3, "a/b"), (4, "ü/#")] {
            router.subscribe(filter, id).unwrap();
        }
        let topics = ["a/b", "a/c", "ü/x", "z"];
        let mut expected: BTreeMap<FilterId, Vec<Ticket>> = BTreeMap::new();
        let mut batch = Vec::new();
        for ticket in 0..2_000u64 {
            let topic = topics[ticket as usize % 4];
            batch.push((topic.to_owned(), ticket));
            for (id, hit) in [
                (1, topic.starts_with("a/")),
                (2, true),
                (3, topic == "a/b"),
                (4, topic == "ü/x"),
            ] {
                if hit {
                    expected.entry(id).or_default().push(ticket);
                }
            }
        }
        router.publish(&mut batch).unwrap();
        assert!(batch.is_empty());
        let mut found: BTreeMap<FilterId, Vec<Ticket>> = BTreeMap::new();
        for (id, ticket) in collect(&mut router, expected.values().map(Vec::len).sum()).await {
            found.entry(id).or_default().push(ticket);
        }
        assert_eq!(found, expected);
        router.stop();
    }

    #[tokio::test]
    async fn an_unsubscribed_filter_is_silent_and_can_come_back() {
        let mut router = RumqttdRouter::start().await.unwrap();
        router.subscribe("a", 1).unwrap();
        router.subscribe("b", 2).unwrap();
        router.unsubscribe("a").unwrap();
        router
            .publish(&mut vec![("a".to_owned(), 1), ("b".to_owned(), 2)])
            .unwrap();
        assert_eq!(collect(&mut router, 1).await, [(2, 2)]);
        router.subscribe("a", 3).unwrap();
        router.publish(&mut vec![("a".to_owned(), 4)]).unwrap();
        assert_eq!(collect(&mut router, 1).await, [(3, 4)]);
        router.stop();
    }

    #[test]
    fn a_stopped_router_is_gone() {
        let events = Router::new(ROUTER_ID, RumqttdRouter::config()).spawn();
        let (sender, receiver, _) = LinkBuilder::new("holdfast", events.clone())
            .build()
            .unwrap();
        RumqttdRouter { sender, receiver }.stop();
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !events.is_disconnected() {
            assert!(std::time::Instant::now() < deadline, "its thread goes on");
            std::thread::yield_now();
        }
    }
}

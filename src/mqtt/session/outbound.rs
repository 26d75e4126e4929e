//! Messages on their way to one subscriber: packet identifiers, receive maximum, packet size.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::BytesMut;

use crate::auth::Rights;
use crate::mqtt::frame::{Fault, Version};
use crate::mqtt::message::{Delivery, now_ms};
use crate::mqtt::publish::{Outgoing, QoS};
use crate::mqtt::stats::{MqttStats, add};

/// What waits for room, and what waits for the client's PUBACK.
pub(super) struct Outbound {
    version: Version,
    waiting: VecDeque<Delivery>,
    in_flight: HashSet<u16>,
    in_flight_max: usize,
    packet_bytes_max: usize,
    last_packet_id: u16,
    /// What the client may read; `None`: nothing is asked.
    reading: Option<Arc<Rights>>,
}

impl Outbound {
    pub(super) fn new(
        version: Version,
        in_flight_max: u16,
        packet_bytes_max: usize,
        reading: Option<Arc<Rights>>,
    ) -> Outbound {
        Outbound {
            version,
            waiting: VecDeque::new(),
            in_flight: HashSet::new(),
            in_flight_max: usize::from(in_flight_max),
            packet_bytes_max,
            last_packet_id: 0,
            reading,
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn push(&mut self, deliveries: impl IntoIterator<Item = Delivery>) {
        self.waiting.extend(deliveries);
    }

    /// The client has a message. It may have acknowledged something it was never sent.
    pub(super) fn acknowledged(&mut self, packet_id: u16) -> Result<(), Fault> {
        if self.in_flight.remove(&packet_id) {
            return Ok(());
        }
        Err(Fault::protocol(format!(
            "a PUBACK for packet identifier {packet_id}, which is not in flight"
        )))
    }

    /// Writes what may be sent, in order, until `out` holds `out_bytes_max` or the client has as
    /// much unacknowledged as it takes.
    pub(super) fn write(&mut self, out: &mut BytesMut, out_bytes_max: usize, stats: &MqttStats) {
        if self.waiting.is_empty() {
            return;
        }
        let now_ms = now_ms();
        while out.len() < out_bytes_max {
            let blocked = self.waiting.front().is_none_or(|delivery| {
                delivery.qos == QoS::AtLeastOnce && self.in_flight.len() >= self.in_flight_max
            });
            if blocked {
                return;
            }
            if let Some(delivery) = self.waiting.pop_front() {
                self.write_one(&delivery, now_ms, out, stats);
            }
        }
    }

    fn write_one(
        &mut self,
        delivery: &Delivery,
        now_ms: i64,
        out: &mut BytesMut,
        stats: &MqttStats,
    ) {
        let message = &delivery.message;
        let expiry_s = message.expiry_s(now_ms);
        if expiry_s == Some(0) {
            return;
        }
        // Rules may have changed while it waited.
        let reading = self.reading.as_ref();
        if reading.is_some_and(|reading| !reading.to(&message.topic)) {
            add(&stats.unreadable, 1);
            return;
        }
        let mut outgoing = Outgoing {
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id: 0,
            topic: message.topic.as_bytes(),
            payload: &message.payload,
            properties: &message.properties,
            expiry_s,
            subscription_id: delivery.subscription_id,
        };
        // The standard has the server act as if it had sent what the client cannot take.
        if outgoing.packet_len(self.version) > self.packet_bytes_max {
            add(&stats.dropped_too_large, 1);
            return;
        }
        if delivery.qos == QoS::AtLeastOnce {
            outgoing.packet_id = self.next_packet_id();
            self.in_flight.insert(outgoing.packet_id);
        }
        outgoing.write(self.version, out);
    }

    /// Never one in flight: fewer than 65535 are.
    fn next_packet_id(&mut self) -> u16 {
        loop {
            self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
            if !self.in_flight.contains(&self.last_packet_id) {
                return self.last_packet_id;
            }
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
    use bytes::Bytes;

    use super::*;
    use crate::mqtt::message::LiveMessage;

    fn delivery(qos: QoS, expires_at_ms: Option<i64>) -> Delivery {
        let message = LiveMessage {
            topic: "t".to_owned(),
            payload: Bytes::from_static(b"0123456789"),
            properties: Bytes::new(),
            expires_at_ms,
            qos,
            retain: false,
            publisher: 0,
        };
        Delivery {
            message: Arc::new(message),
            qos,
            retain: false,
            subscription_id: None,
        }
    }

    const PACKET: usize = 2 + 3 + 2 + 10;

    #[test]
    fn no_more_is_in_flight_than_the_client_takes() {
        let stats = MqttStats::default();
        let mut out = BytesMut::new();
        let mut outbound = Outbound::new(Version::V311, 3, 1000, None);
        outbound.push((0..5).map(|_| delivery(QoS::AtLeastOnce, None)));
        outbound.write(&mut out, 1000, &stats);
        assert_eq!((out.len(), outbound.waiting()), (3 * PACKET, 2));
        outbound.acknowledged(2).unwrap();
        assert!(outbound.acknowledged(2).is_err());
        outbound.write(&mut out, 1000, &stats);
        assert_eq!((out.len(), outbound.waiting()), (4 * PACKET, 1));
    }

    #[test]
    fn packet_identifiers_wrap_around_those_in_flight() {
        let stats = MqttStats::default();
        let mut outbound = Outbound::new(Version::V311, 10, 1000, None);
        let mut out = BytesMut::new();
        outbound.push([delivery(QoS::AtLeastOnce, None)]);
        outbound.write(&mut out, 1000, &stats);
        for _ in 0..70_000u32 {
            out.clear();
            outbound.push([delivery(QoS::AtLeastOnce, None)]);
            outbound.write(&mut out, 1000, &stats);
            let id = u16::from_be_bytes([out[5], out[6]]);
            assert!(id > 1, "0 is no identifier, 1 is in flight");
            outbound.acknowledged(id).unwrap();
        }
    }

    #[test]
    fn expired_and_too_large_messages_are_not_sent() {
        let stats = MqttStats::default();
        let mut out = BytesMut::new();
        let mut outbound = Outbound::new(Version::V311, 3, 14, None);
        outbound.push([
            delivery(QoS::AtMostOnce, Some(1)),
            delivery(QoS::AtMostOnce, None),
        ]);
        outbound.write(&mut out, 1000, &stats);
        assert!(out.is_empty());
        assert_eq!(MqttStats::get(&stats.dropped_too_large), 1);
    }

    #[test]
    fn writing_stops_when_the_socket_is_behind() {
        let stats = MqttStats::default();
        let mut out = BytesMut::new();
        let mut outbound = Outbound::new(Version::V311, 3, 1000, None);
        outbound.push((0..100).map(|_| delivery(QoS::AtMostOnce, None)));
        outbound.write(&mut out, 50, &stats);
        assert_eq!(outbound.waiting(), 96);
    }
}

//! The loop of one session.

use std::collections::HashSet;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use holdfast_storage::log::AppendError;
use rumqttd::protocol::{DisconnectReasonCode, Packet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::end::End;
use super::inbound::{Burst, Durable, Inbound};
use super::outbound::Outbound;
use super::timers::Timers;
use crate::auth::{Caller, Operation};
use crate::mqtt::Door;
use crate::mqtt::codec;
use crate::mqtt::frame::{self, Fault, Frame, Kind, Version};
use crate::mqtt::message::{ConnectionId, Delivery, DeliveryQueue};
use crate::mqtt::publish::{self, Publish, QoS};
use crate::mqtt::reason;
use crate::mqtt::record::{Arrival, Publisher, Refused};
use crate::mqtt::stats::add;
use crate::mqtt::stream::{FromClient, Got, Stream, ToClient};
use crate::mqtt::topic::{SubscriptionKey, TopicLimits};

/// Bytes that wait for the socket before no more messages are delivered.
const OUT_DELIVER_MAX: usize = 256 << 10;
/// Bytes that wait for the socket before the client is no longer read: it does not take its
/// acknowledgements.
const OUT_READ_MAX: usize = 1 << 20;
/// Messages taken off the delivery queue at once.
const DELIVERIES_AT_ONCE: usize = 256;
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 256 << 10;
/// How long an ended session waits for what it has submitted to become durable.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long an ended session tries to tell its client why.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// Bytes read and thrown away so that closing does not reset the connection before the client has
/// read the goodbye.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What a session begins with.
pub(crate) struct SessionStart {
    pub(crate) connection: ConnectionId,
    pub(crate) version: Version,
    pub(crate) client: String,
    pub(crate) caller: Caller,
    /// 0: none.
    pub(crate) keep_alive_s: u16,
    /// QoS 1 messages the client takes unacknowledged.
    pub(crate) receive_max: u16,
    /// Largest packet the client takes.
    pub(crate) packet_bytes_max: u32,
    pub(crate) taken_over: CancellationToken,
    /// Read after the CONNECT.
    pub(crate) buffer: BytesMut,
    /// To be sent first.
    pub(crate) out: BytesMut,
}

/// One connected client.
pub(crate) struct Session {
    door: Arc<Door>,
    connection: ConnectionId,
    version: Version,
    client: String,
    caller: Caller,
    timers: Timers,
    taken_over: CancellationToken,
    buffer: BytesMut,
    out: BytesMut,
    publisher: Publisher,
    inbound: Inbound,
    outbound: Outbound,
    queue: Arc<DeliveryQueue>,
    deliveries: mpsc::Receiver<Delivery>,
    subscriptions: HashSet<SubscriptionKey>,
    read_bytes: usize,
}

enum Event {
    Durable(Result<Option<Durable>, AppendError>),
    Written(io::Result<usize>),
    Read(io::Result<Got>),
    Deliveries,
    Tick,
    End(End),
}

/// What stops a burst.
enum Stop {
    /// No more whole packets, or no more may be taken now.
    Enough,
    Control(Box<Packet>),
}

impl Session {
    pub(crate) fn new(door: Arc<Door>, start: SessionStart) -> Session {
        let config = &door.config;
        let reading = start.caller.rights(Operation::Read).map(Arc::new);
        let (queue, deliveries) = DeliveryQueue::new(
            start.client.clone(),
            config.outgoing_messages_max,
            config.outgoing_bytes_max,
            reading.clone(),
        );
        let publisher = Publisher::new(
            &start.client,
            &start.caller,
            door.topic_limits,
            config.topic_alias_max,
        );
        let outbound = Outbound::new(
            start.version,
            start.receive_max.min(config.outgoing_in_flight_max),
            usize::try_from(start.packet_bytes_max).unwrap_or(usize::MAX),
            reading,
        );
        let write_timeout = Duration::from_millis(config.write_timeout_ms);
        let timers = Timers::new(start.keep_alive_s, write_timeout, Instant::now());
        Session {
            connection: start.connection,
            version: start.version,
            client: start.client,
            caller: start.caller,
            timers,
            taken_over: start.taken_over,
            buffer: start.buffer,
            out: start.out,
            publisher,
            inbound: Inbound::default(),
            outbound,
            queue,
            deliveries,
            subscriptions: HashSet::new(),
            read_bytes: READ_BYTES_MIN,
            door,
        }
    }

    /// Serves the client until the session ends, and finishes what it had begun.
    pub(crate) async fn run(mut self, stream: Stream) -> End {
        let (mut reader, mut writer) = stream.into_halves();
        let end = self.serve(&mut reader, &mut writer).await;
        end.note(&self.client, &self.door.stats);
        if !matches!(end, End::Storage(_)) {
            self.drain().await;
        }
        self.say_goodbye(&end, reader, writer).await;
        end
    }

    async fn serve(&mut self, reader: &mut FromClient, writer: &mut ToClient) -> End {
        let door = Arc::clone(&self.door);
        let mut batch = Vec::new();
        let tick = sleep_until(self.timers.next(Instant::now()));
        tokio::pin!(tick);
        loop {
            if let Err(end) = self.take_packets().await {
                return end;
            }
            self.outbound
                .write(&mut self.out, OUT_DELIVER_MAX, &door.stats);
            let reading = self.may_read();
            let sending = !self.out.is_empty() || writer.is_unflushed();
            self.timers.sending(sending, Instant::now);
            let delivering =
                self.out.len() < OUT_DELIVER_MAX && self.outbound.waiting() < DELIVERIES_AT_ONCE;
            let event = tokio::select! {
                biased;
                () = self.taken_over.cancelled() => Event::End(End::TakenOver),
                () = door.shutdown.cancelled() => Event::End(End::Shutdown),
                durable = poll_fn(|cx| self.inbound.poll_durable(cx, &door.retained)) => Event::Durable(durable),
                written = writer.send(&mut self.out), if sending => Event::Written(written),
                got = reader.read(&mut self.buffer, self.read_bytes), if reading => Event::Read(got),
                _ = self.deliveries.recv_many(&mut batch, DELIVERIES_AT_ONCE), if delivering => Event::Deliveries,
                () = &mut tick => Event::Tick,
            };
            let outcome = match event {
                Event::Durable(Ok(durable)) => {
                    self.settle(durable).await;
                    Ok(())
                }
                Event::Durable(Err(error)) => Err(End::Storage(error)),
                Event::Written(Ok(_)) => {
                    self.timers.sent();
                    Ok(())
                }
                Event::Read(Ok(got)) => self.took(&got),
                Event::Written(Err(error)) | Event::Read(Err(error)) => Err(End::Io(error)),
                Event::Deliveries => {
                    self.queue.taken(&batch);
                    self.outbound.push(batch.drain(..));
                    Ok(())
                }
                Event::Tick => {
                    let now = Instant::now();
                    let checked = self.timers.check(self.may_read(), now);
                    tick.as_mut().reset(self.timers.next(now));
                    checked
                }
                Event::End(end) => Err(end),
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    fn may_read(&self) -> bool {
        !self.inbound.is_submitting()
            && self.inbound.publishes() < usize::from(self.door.config.in_flight_max)
            && self.inbound.bytes() < self.door.config.in_flight_bytes_max
            && self.out.len() < OUT_READ_MAX
    }

    /// The next read gets as much room as this one lets expect.
    fn took(&mut self, got: &Got) -> Result<(), End> {
        if got.bytes == 0 {
            return Err(End::Closed);
        }
        if got.is_full {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if got.bytes < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(())
    }

    /// Takes every packet in the buffer that may be taken now.
    async fn take_packets(&mut self) -> Result<(), End> {
        loop {
            if self.buffer.is_empty() || !self.may_read() {
                return Ok(());
            }
            let mut burst = Burst::default();
            let stop = self.take_burst(&mut burst);
            // What came before a breach was sent in good order and is kept.
            self.submit(burst);
            match stop? {
                Stop::Enough => return Ok(()),
                Stop::Control(packet) => self.control(*packet).await?,
            }
        }
    }

    fn submit(&mut self, burst: Burst) {
        if burst.is_empty() {
            return;
        }
        let stats = &self.door.stats;
        add(&stats.received_total, burst.received);
        add(&stats.received_bytes, burst.payload_bytes);
        add(&stats.routed, burst.routed);
        add(&stats.unrouted, burst.received - burst.routed);
        self.inbound.submit(burst, &self.door.log);
    }

    fn take_burst(&mut self, burst: &mut Burst) -> Result<Stop, End> {
        let door = Arc::clone(&self.door);
        let config = &door.config;
        let packet_bytes_max = config.packet_bytes_max as usize;
        let held_max = usize::from(config.in_flight_max);
        let anyone_live = door.fanout.anyone();
        let mut arrival = None;
        loop {
            let full = burst.publishes() + self.inbound.publishes() >= held_max
                || burst.bytes() + self.inbound.bytes() >= config.in_flight_bytes_max;
            let Some(frame) = frame::next(&self.buffer, self.version, packet_bytes_max)? else {
                return Ok(Stop::Enough);
            };
            if full {
                self.over_receive_maximum(burst, frame)?;
                return Ok(Stop::Enough);
            }
            let packet = self.buffer.split_to(frame.len);
            let arrival = arrival.get_or_insert_with(|| {
                self.timers.heard(Instant::now());
                Arrival::now()
            });
            if frame.kind != Kind::Publish {
                match self.quick(packet, frame)? {
                    Some(control) => return Ok(Stop::Control(Box::new(control))),
                    None => continue,
                }
            }
            let publish = publish::read(
                packet.freeze(),
                frame,
                self.version,
                config.user_properties_max,
            )?;
            match self
                .publisher
                .accept(&publish, arrival, &door.routes, &door.log)
            {
                Ok(accepted) => {
                    burst.push(
                        publish,
                        accepted,
                        frame.len,
                        arrival.timestamp_ms,
                        anyone_live,
                    );
                }
                Err(Refused::Fault(fault)) => return Err(fault.into()),
                Err(Refused::TopicMissing(topic)) => return Err(End::TopicMissing(topic)),
                Err(Refused::Denied(topic)) => {
                    self.deny(&publish, &topic, frame.len, burst)?;
                }
            }
        }
    }

    /// Access rules forbid a publish: it is not taken, and never acknowledged as if it were.
    fn deny(
        &self,
        publish: &Publish,
        topic: &str,
        packet_bytes: usize,
        burst: &mut Burst,
    ) -> Result<(), End> {
        let door = &self.door;
        add(&door.stats.received_total, 1);
        door.note_denied(&self.caller, &self.client, Operation::Write, topic);
        match (publish.qos, self.version) {
            (QoS::AtMostOnce, _) => Ok(()),
            (QoS::AtLeastOnce, Version::V5) => {
                burst.refuse(publish.packet_id, reason::NOT_AUTHORIZED, packet_bytes);
                Ok(())
            }
            (QoS::AtLeastOnce, Version::V311) => Err(End::Denied),
        }
    }

    /// A client of 3.1.1 is just not read for a while; an MQTT 5 client was told its limit.
    fn over_receive_maximum(&self, burst: &Burst, next: Frame) -> Result<(), Fault> {
        let unacknowledged = self.inbound.unacknowledged() + burst.unacknowledged();
        let over = self.version == Version::V5
            && next.kind == Kind::Publish
            && next.flags & 6 != 0
            && unacknowledged >= usize::from(self.door.config.in_flight_max);
        if over {
            return Err(Fault::new(
                reason::RECEIVE_MAXIMUM_EXCEEDED,
                "more unacknowledged publishes than the receive maximum",
            ));
        }
        Ok(())
    }

    /// Handles what needs no waiting; gives back what does.
    fn quick(&mut self, packet: BytesMut, frame: Frame) -> Result<Option<Packet>, Fault> {
        match frame.kind {
            Kind::PingReq if frame.len == frame.header_len => {
                self.out.extend_from_slice(&codec::PINGRESP);
                Ok(None)
            }
            Kind::PubAck => {
                let Packet::PubAck(ack, _) = codec::read(packet, self.version)? else {
                    return Err(Fault::malformed("a PUBACK that is none"));
                };
                self.outbound.acknowledged(ack.pkid).map(|()| None)
            }
            Kind::Subscribe | Kind::Unsubscribe | Kind::Disconnect => {
                codec::read(packet, self.version).map(Some)
            }
            Kind::Connect => Err(Fault::protocol("a second CONNECT")),
            Kind::PingReq | Kind::Publish => Err(Fault::malformed("a PINGREQ with a body")),
        }
    }

    async fn control(&mut self, packet: Packet) -> Result<(), End> {
        match packet {
            Packet::Subscribe(subscribe, properties) => self.subscribe(subscribe, properties).await,
            Packet::Unsubscribe(unsubscribe, _) => self.unsubscribe(unsubscribe).await,
            Packet::Disconnect(disconnect, _) => {
                let with_will = disconnect.reason_code != DisconnectReasonCode::NormalDisconnection;
                Err(End::Disconnected { with_will })
            }
            _ => Err(Fault::protocol("a packet that is not due").into()),
        }
    }

    /// A burst is durable: acknowledge, then forward.
    async fn settle(&mut self, durable: Option<Durable>) {
        let Some(durable) = durable else {
            return;
        };
        self.out.extend_from_slice(&durable.acks);
        add(&self.door.stats.acked, durable.acked as u64);
        let wanted = durable.wanted(&self.door.fanout, self.connection);
        if !wanted.is_empty() {
            self.door.fanout.publish(wanted).await;
        }
    }

    /// Waits for what was submitted and forwards it: a client that publishes and leaves at once
    /// has published.
    async fn drain(&mut self) {
        let door = Arc::clone(&self.door);
        let drained = timeout(DRAIN_MAX, async {
            while !self.inbound.is_empty() {
                match poll_fn(|cx| self.inbound.poll_durable(cx, &door.retained)).await {
                    Ok(durable) => self.settle(durable).await,
                    Err(error) => {
                        warn!(client = %self.client, %error, "publishes of an ended session were not stored");
                        return;
                    }
                }
            }
        });
        if drained.await.is_err() {
            warn!(client = %self.client, "publishes of an ended session are not durable yet: not forwarded");
        }
    }

    async fn say_goodbye(&mut self, end: &End, mut reader: FromClient, mut writer: ToClient) {
        let Some(code) = end.goodbye() else {
            return;
        };
        if self.version == Version::V5 {
            self.out.extend_from_slice(&codec::disconnect(code));
        }
        let told = timeout(GOODBYE_MAX, async {
            writer.write_all(&self.out).await?;
            writer.shutdown().await?;
            let mut discarded = BytesMut::with_capacity(READ_BYTES_MIN);
            let mut left = LINGER_BYTES_MAX;
            while left > 0 {
                discarded.clear();
                let bytes = reader.read_buf(&mut discarded).await?;
                if bytes == 0 {
                    break;
                }
                left = left.saturating_sub(bytes);
            }
            Ok::<(), io::Error>(())
        });
        // A client that does not listen is not told.
        let _ = told.await;
        self.out.clear();
    }

    pub(super) fn door(&self) -> &Door {
        &self.door
    }

    pub(super) fn client(&self) -> &str {
        &self.client
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn topic_limits(&self) -> TopicLimits {
        self.door.topic_limits
    }

    pub(super) fn out(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    pub(super) fn delivery_address(&self) -> (ConnectionId, Arc<DeliveryQueue>) {
        (self.connection, Arc::clone(&self.queue))
    }

    /// Messages that may still wait for this subscriber.
    pub(super) fn delivery_room(&self) -> usize {
        self.door
            .config
            .outgoing_messages_max
            .saturating_sub(self.outbound.waiting())
    }

    pub(super) fn deliver(&mut self, deliveries: Vec<Delivery>) {
        self.outbound.push(deliveries);
    }

    pub(super) fn subscription_room(&self) -> usize {
        self.door
            .config
            .subscriptions_per_client_max
            .saturating_sub(self.subscriptions.len())
    }

    pub(super) fn is_subscribed(&self, key: &SubscriptionKey) -> bool {
        self.subscriptions.contains(key)
    }

    pub(super) fn note_subscribed(&mut self, key: SubscriptionKey) {
        self.subscriptions.insert(key);
    }

    pub(super) fn note_unsubscribed(&mut self, key: &SubscriptionKey) {
        self.subscriptions.remove(key);
    }
}

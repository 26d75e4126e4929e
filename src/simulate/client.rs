//! The simulated devices as real MQTT clients: one connection each, QoS 1, at least once.
//!
//! Owns connecting, back-off, retransmission and counting. What is said comes from `device`.
//!
//! Limits: [`DEVICES_MAX`] devices; per device [`IN_FLIGHT_MAX`] unacknowledged messages and
//! [`QUEUE_MAX`] waiting ones, beyond which its next reading waits; [`DRAIN_MAX`] at the end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS, Request};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::device::{Device, Flaws};
use super::noise::Rng;

/// More than this many devices are refused.
pub const DEVICES_MAX: usize = 2_000;
/// Unacknowledged messages of one device.
const IN_FLIGHT_MAX: u16 = 16;
/// Messages of one device that wait for the connection.
const QUEUE_MAX: usize = 16;
/// How long the end waits for outstanding acknowledgements.
const DRAIN_MAX: Duration = Duration::from_secs(5);

const FAREWELL_MAX: Duration = Duration::from_secs(1);
const BACKOFF_FIRST: Duration = Duration::from_millis(250);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often progress is reported.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// What to simulate and whom to tell.
#[derive(Debug, Clone)]
pub struct Plan {
    pub host: String,
    pub port: u16,
    /// User name and password, where the node asks for them.
    pub credentials: Option<(String, String)>,
    pub devices: usize,
    /// Messages a second, over all devices.
    pub rate_per_s: f64,
    pub seed: u64,
    pub flaws: Flaws,
}

/// What has happened so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    pub connected: u64,
    /// Messages handed to a connection, each counted once.
    pub sent: u64,
    /// Messages the node has acknowledged.
    pub acked: u64,
    /// Messages sent again after a lost connection.
    pub resent: u64,
    /// Lost or refused connections.
    pub errors: u64,
    pub last_error: Option<String>,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Progress {
            connected,
            sent,
            acked,
            resent,
            errors,
            ..
        } = self;
        write!(
            f,
            "connected {connected} sent {sent} acked {acked} resent {resent} err {errors}"
        )?;
        match &self.last_error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Counters {
    connected: AtomicU64,
    sent: AtomicU64,
    acked: AtomicU64,
    resent: AtomicU64,
    errors: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counters {
    fn progress(&self) -> Progress {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            connected: get(&self.connected),
            sent: get(&self.sent),
            acked: get(&self.acked),
            resent: get(&self.resent),
            errors: get(&self.errors),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        }
    }

    fn failed(&self, error: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Runs the devices until `stop`, then waits for what is unacknowledged. Tells `report` how it goes.
pub async fn run(
    plan: Plan,
    stop: CancellationToken,
    report: impl Fn(&Progress) + Send,
) -> Progress {
    let counters = Arc::new(Counters::default());
    let devices = plan.devices.clamp(1, DEVICES_MAX);
    let every =
        Duration::from_secs_f64((devices as f64 / plan.rate_per_s.max(0.001)).min(86_400.0));
    let mut tasks = JoinSet::new();
    for index in 0..devices {
        let link = Arc::new(Link {
            counters: Arc::clone(&counters),
            outstanding: AtomicU64::new(0),
            changed: Notify::new(),
        });
        let mut rng = Rng::stream(plan.seed, 2_000_000 + index as u64);
        // Devices do not speak in chorus.
        let first = Instant::now() + every.mul_f64(rng.unit());
        let device = Device::new(plan.seed, index, plan.flaws);
        let (client, events) = AsyncClient::new(options(&plan, &device), QUEUE_MAX);
        let stop = stop.clone();
        tasks.spawn(async move {
            let publisher = publish(
                device,
                client,
                Arc::clone(&link),
                first,
                every,
                stop.clone(),
            );
            let connection = connect(events, &link, rng, stop);
            tokio::pin!(publisher, connection);
            tokio::select! {
                () = &mut connection => {}
                // A node that acknowledges nothing does not take the farewell either.
                () = &mut publisher => drop(tokio::time::timeout(FAREWELL_MAX, connection).await),
            }
        });
    }
    let mut tick = tokio::time::interval_at(Instant::now() + REPORT_EVERY, REPORT_EVERY);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                Some(Err(error)) => counters.failed(error.to_string()),
                Some(Ok(())) => {}
                None => return counters.progress(),
            },
            _ = tick.tick() => report(&counters.progress()),
        }
    }
}

fn options(plan: &Plan, device: &Device) -> MqttOptions {
    let client_id = format!("holdfast-sim-{}-{}", std::process::id(), device.id());
    let mut options = MqttOptions::new(client_id, plan.host.clone(), plan.port);
    options
        .set_keep_alive(KEEP_ALIVE)
        .set_inflight(IN_FLIGHT_MAX)
        .set_clean_session(true);
    if let Some((user, password)) = &plan.credentials {
        options.set_credentials(user, password);
    }
    options
}

/// One device's connection as its publisher and its event loop share it.
struct Link {
    counters: Arc<Counters>,
    /// Handed to the client and not yet acknowledged.
    outstanding: AtomicU64,
    changed: Notify,
}

impl Link {
    fn acknowledged(&self) {
        self.counters.acked.fetch_add(1, Ordering::Relaxed);
        self.outstanding.fetch_sub(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    async fn drained(&self) {
        while self.outstanding.load(Ordering::Relaxed) > 0 {
            self.changed.notified().await;
        }
    }
}

async fn publish(
    mut device: Device,
    client: AsyncClient,
    link: Arc<Link>,
    first: Instant,
    every: Duration,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval_at(first, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => {}
        }
        let message = device.next(now_ms());
        let published = tokio::select! {
            () = stop.cancelled() => break,
            published = client.publish(message.topic, QoS::AtLeastOnce, false, message.payload) => published,
        };
        if published.is_err() {
            return;
        }
        link.counters.sent.fetch_add(1, Ordering::Relaxed);
        link.outstanding.fetch_add(1, Ordering::Relaxed);
    }
    // A message that is still unacknowledged then stays unacknowledged, and the counts say so.
    let _ = tokio::time::timeout(DRAIN_MAX, link.drained()).await;
    let _ = client.disconnect().await;
}

async fn connect(mut events: EventLoop, link: &Link, mut rng: Rng, stop: CancellationToken) {
    let mut backoff = BACKOFF_FIRST;
    let mut connected = false;
    // The client forgets what a lost connection left unacknowledged unless the session was kept;
    // these are kept here instead, so that every message arrives at least once.
    let mut unacknowledged: VecDeque<Request> = VecDeque::new();
    let counters = &link.counters;
    loop {
        if connected {
            refill(&mut events, &mut unacknowledged);
        }
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                connected = true;
                counters.connected.fetch_add(1, Ordering::Relaxed);
                backoff = BACKOFF_FIRST;
            }
            Ok(Event::Incoming(Packet::PubAck(_))) => link.acknowledged(),
            Ok(Event::Outgoing(Outgoing::Disconnect)) => break,
            Ok(_) => {}
            Err(error) => {
                if std::mem::take(&mut connected) {
                    counters.connected.fetch_sub(1, Ordering::Relaxed);
                }
                if stop.is_cancelled() {
                    break;
                }
                counters.failed(error.to_string());
                let mut again = keep(std::mem::take(&mut events.pending), counters);
                again.append(&mut unacknowledged);
                unacknowledged = again;
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(backoff.mul_f64(rng.between(0.5, 1.0))) => {}
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
    if connected {
        counters.connected.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The publishes of a lost connection, oldest first, without its packet ids.
fn keep(pending: VecDeque<Request>, counters: &Counters) -> VecDeque<Request> {
    let mut kept = VecDeque::with_capacity(pending.len());
    for request in pending {
        if let Request::Publish(mut publish) = request {
            if publish.pkid != 0 {
                counters.resent.fetch_add(1, Ordering::Relaxed);
            }
            publish.pkid = 0;
            kept.push_back(Request::Publish(publish));
        }
    }
    kept
}

/// Gives kept publishes back to the client, never more than it has packet ids: it takes what is
/// pending without looking at its own limit, and an id given twice would lose a message.
fn refill(events: &mut EventLoop, kept: &mut VecDeque<Request>) {
    while events.pending.len() + usize::from(events.state.inflight()) < usize::from(IN_FLIGHT_MAX) {
        let Some(request) = kept.pop_front() else {
            return;
        };
        events.pending.push_back(request);
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::{Bytes, BytesMut};
    use rumqttc::mqttbytes::v4;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const NONE: Flaws = Flaws {
        malformed: 0.0,
        partial: 0.0,
        late: 0.0,
        duplicate: 0.0,
        naive: 0.0,
    };

    /// A broker that acknowledges what it takes, except that it hangs up on the first connection
    /// after a few publishes, unacknowledged.
    #[derive(Default)]
    struct Broker {
        connections: usize,
        received: BTreeMap<Bytes, usize>,
        acknowledged: u64,
        seen: Arc<Notify>,
    }

    async fn session(mut socket: TcpStream, broker: Arc<Mutex<Broker>>) {
        let number = {
            let mut broker = broker.lock().unwrap();
            broker.connections += 1;
            broker.connections
        };
        let mut incoming = BytesMut::new();
        let mut taken = 0;
        loop {
            let mut answer = BytesMut::new();
            match v4::Packet::read(&mut incoming, 64 * 1024) {
                Ok(v4::Packet::Connect(_)) => {
                    v4::ConnAck::new(v4::ConnectReturnCode::Success, false)
                        .write(&mut answer)
                        .unwrap();
                }
                Ok(v4::Packet::Publish(publish)) => {
                    taken += 1;
                    let hang_up = number == 1 && taken == 5;
                    let mut broker = broker.lock().unwrap();
                    *broker.received.entry(publish.payload).or_default() += 1;
                    broker.seen.notify_one();
                    if hang_up {
                        return;
                    }
                    if number > 1 {
                        broker.acknowledged += 1;
                        v4::PubAck::new(publish.pkid).write(&mut answer).unwrap();
                    }
                }
                Ok(v4::Packet::Disconnect) => return,
                Ok(_) => {}
                Err(_) => {
                    if socket.read_buf(&mut incoming).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
            }
            socket.write_all(&answer).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_lost_connection_loses_no_message() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let broker = Arc::new(Mutex::new(Broker::default()));
        let seen = Arc::clone(&broker.lock().unwrap().seen);
        let serving = tokio::spawn({
            let broker = Arc::clone(&broker);
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    tokio::spawn(session(socket, Arc::clone(&broker)));
                }
            }
        });
        let stop = CancellationToken::new();
        let plan = Plan {
            host: "127.0.0.1".to_owned(),
            port,
            credentials: None,
            devices: 1,
            rate_per_s: 200.0,
            seed: 1,
            flaws: NONE,
        };
        let running = tokio::spawn(run(plan, stop.clone(), |_| {}));
        let enough = async {
            while broker.lock().unwrap().received.len() < 60 {
                seen.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), enough)
            .await
            .unwrap();
        stop.cancel();
        let progress = tokio::time::timeout(Duration::from_secs(10), running)
            .await
            .unwrap()
            .unwrap();
        serving.abort();
        let broker = broker.lock().unwrap();
        assert_eq!(broker.connections, 2);
        assert_eq!(
            (progress.sent, progress.acked),
            (broker.received.len() as u64, broker.acknowledged)
        );
        assert_eq!(progress.sent, progress.acked);
        assert!(progress.resent >= 5 && progress.errors >= 1, "{progress}");
        assert!(
            broker.received.values().filter(|times| **times > 1).count() >= 5,
            "nothing was sent again"
        );
    }
}

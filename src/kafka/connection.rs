//! One client's connection: bounded frames in, answers out in the order of the requests.
//!
//! Two halves run side by side. The reading half takes frames apart and hands each to the other half
//! as a [`Turn`]; Produce requests it *admits to the log at once*, so that many of them share one
//! fdatasync while none is answered before its own. The answering half takes the turns one by one: it
//! waits for a Produce's durability, or runs the request, and writes the answer. So a waiting
//! JoinGroup or Fetch holds up only its own connection, as the protocol demands.
//!
//! The connection ends, and everything it waits for is dropped, when either half ends: the client
//! hung up, sent what cannot be understood, fell silent or stopped reading.
//!
//! Limits: `in_flight_max` turns, the frame sizes of [`super::config::KafkaConfig`], and memory for a
//! frame that grows only with the bytes that have arrived.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::broker::{Asker, Broker};
use super::endpoint::Endpoint;
use super::handlers::{self, produce};
use super::protocol::wire::LENGTH_BYTES;
use super::protocol::{self, ApiKey, DecodeError, EncodeError, Request};
use super::quotas::Quota;
use super::sign_in::{self, Entered, Refused};
use super::stream::{FromClient, ToClient};
use super::throttle::{Pause, Throttle, Timed};
use super::transmit::{Unsent, transmit};
use crate::auth::Principal;

/// Memory set aside for a frame on the word of its length field alone, in bytes.
const FRAME_TRUST_BYTES: usize = 1 << 20;

/// Room for requests that arrive together, in bytes.
const READ_BYTES: usize = 8 << 10;

/// Largest request that carries no records, in bytes.
const PLAIN_REQUEST_BYTES_MAX: usize = 4 << 20;

/// Room that a connection has while nothing of a request has arrived: most are short.
const IDLE_BYTES: usize = 512;

/// The API key stands right behind the length field.
const API_KEY_BYTES: usize = 2;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client closed the connection")]
    ByClient,
    #[error("idle for too long")]
    Idle,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("a frame of {bytes} bytes; {bytes_max} are possible")]
    FrameLength { bytes: i64, bytes_max: usize },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("cannot encode an answer: {0}")]
    Encode(#[from] EncodeError),
    #[error("records sent without acknowledgement were refused: {0}")]
    Unacknowledged(protocol::ErrorCode),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Unsent(#[from] Unsent),
    #[error("the node is stopping")]
    Stopping,
}

/// A request whose answer is due.
struct Turn {
    correlation_id: i32,
    asker: Asker,
    work: Work,
    _in_flight: OwnedSemaphorePermit,
    _bytes: Option<OwnedSemaphorePermit>,
}

enum Work {
    Request(Request),
    Produce(produce::Admitted),
    /// ApiVersions in a version from the future: answered in version 0, with error 35.
    UnknownApiVersions,
}

/// Serves one client until it leaves.
pub(super) async fn serve(
    broker: Arc<Broker>,
    endpoint: Arc<Endpoint>,
    socket: TcpStream,
    peer: SocketAddr,
) {
    let Ok(local) = socket.local_addr() else {
        return;
    };
    // Answers are written whole; waiting for more to send only delays them.
    let _ = socket.set_nodelay(true);
    let listener = endpoint.name.clone();
    let ended = match sign_in::enter(&broker, &endpoint, socket, peer, local).await {
        Ok(entered) => converse(&broker, endpoint, entered, peer, local).await,
        Err(refused) => refused.into(),
    };
    match ended {
        Ended::ByClient
        | Ended::Idle
        | Ended::Stopping
        | Ended::Refused(Refused::ByClient | Refused::Stopping)
        | Ended::Io(_)
        | Ended::Unsent(Unsent::Io(_)) => {
            tracing::debug!(%peer, listener, reason = %ended, "Kafka connection ended");
        }
        _ => {
            broker
                .counters
                .connections_broken
                .fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%peer, listener, reason = %ended, "Kafka connection closed");
        }
    }
}

/// Requests and answers, after it is known who asks.
async fn converse(
    broker: &Arc<Broker>,
    endpoint: Arc<Endpoint>,
    entered: Entered,
    peer: SocketAddr,
    local: SocketAddr,
) -> Ended {
    let in_flight_max = broker.config.in_flight_max.max(1);
    let (turns, queue) = mpsc::channel(in_flight_max);
    let reading = Reading {
        broker,
        endpoint,
        principal: entered.principal,
        peer,
        local,
        socket: entered.from,
        buffer: entered.buffer,
        in_flight: Arc::new(Semaphore::new(in_flight_max)),
        in_flight_max,
        turns,
        pause: Arc::default(),
    };
    let mut answering = std::pin::pin!(answer(broker, entered.to, queue));
    tokio::select! {
        ended = reading.run() => match ended {
            Ended::Stopping => finish(broker, answering).await,
            other => other,
        },
        ended = &mut answering => ended,
    }
}

/// Lets the answering half finish what was admitted before the node stops.
async fn finish(broker: &Broker, answering: impl Future<Output = Ended>) -> Ended {
    let limit = Duration::from_secs(broker.config.shutdown_timeout_s);
    timeout(limit, answering).await.unwrap_or(Ended::Stopping)
}

struct Reading<'a> {
    broker: &'a Arc<Broker>,
    endpoint: Arc<Endpoint>,
    principal: Principal,
    peer: SocketAddr,
    local: SocketAddr,
    socket: FromClient,
    buffer: BytesMut,
    in_flight: Arc<Semaphore>,
    in_flight_max: usize,
    /// Boxed: a queue of a connection that is idle is to be small.
    turns: mpsc::Sender<Box<Turn>>,
    pause: Arc<Pause>,
}

impl Reading<'_> {
    async fn run(mut self) -> Ended {
        let stop = self.broker.stop.clone();
        tokio::select! {
            ended = self.read_requests() => ended.err().unwrap_or(Ended::ByClient),
            () = stop.cancelled() => Ended::Stopping,
        }
    }

    async fn read_requests(&mut self) -> Result<(), Ended> {
        loop {
            let place = self.in_flight.clone().acquire_owned().await;
            let in_flight = place.map_err(|_| Ended::Stopping)?;
            self.pause.over().await;
            let Some(frame) = self.read_frame().await? else {
                return Ok(());
            };
            self.broker
                .counters
                .requests
                .fetch_add(1, Ordering::Relaxed);
            let turn = self.take_apart(frame, in_flight).await?;
            self.turns
                .send(Box::new(turn))
                .await
                .map_err(|_| Ended::Stopping)?;
        }
    }

    /// Decodes a frame, and admits it to the log if it is a Produce.
    async fn take_apart(
        &self,
        frame: Bytes,
        in_flight: OwnedSemaphorePermit,
    ) -> Result<Turn, Ended> {
        let frame_bytes = frame.len();
        let header = protocol::decode_header(&frame)?;
        let api =
            ApiKey::from_code(header.api_key).ok_or(DecodeError::UnknownApi(header.api_key))?;
        let asker = Asker {
            api,
            version: header.api_version,
            client_id: header
                .client_id
                .map(|id| id.as_str().to_owned())
                .unwrap_or_default(),
            peer: self.peer,
            local: self.local,
            throttle: Arc::new(Throttle::new(self.pause.clone())),
            endpoint: self.endpoint.clone(),
            principal: self.principal.clone(),
        };
        let mut bytes = None;
        let work = match protocol::decode_request(frame) {
            Ok((_, Request::Produce(request))) => {
                bytes = self.reserve(frame_bytes).await;
                self.broker.take(Quota::Produce, &asker, frame_bytes as f64);
                let admitting = produce::admit(self.broker, &asker, request);
                Work::Produce(timed(self.broker, &asker, admitting).await)
            }
            Ok((_, request)) => Work::Request(request),
            Err(DecodeError::UnsupportedVersion { .. }) if api == ApiKey::ApiVersions => {
                Work::UnknownApiVersions
            }
            Err(error) => return Err(error.into()),
        };
        let correlation_id = header.correlation_id;
        Ok(Turn {
            correlation_id,
            asker,
            work,
            _in_flight: in_flight,
            _bytes: bytes,
        })
    }

    async fn reserve(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.broker
            .request_bytes
            .clone()
            .acquire_many_owned(bytes)
            .await
            .ok()
    }

    /// The next frame without its length field; `None` when the client closed between frames.
    async fn read_frame(&mut self) -> Result<Option<Bytes>, Ended> {
        if self.buffer.is_empty() && self.buffer.capacity() != IDLE_BYTES {
            // It may be idle for long.
            self.buffer = BytesMut::with_capacity(IDLE_BYTES);
        }
        if !self.fill(LENGTH_BYTES).await? {
            return Ok(None);
        }
        let length = self.buffer.get_i32();
        if sign_in::is_tls(length) {
            return Err(Refused::Tls.into());
        }
        if length >= API_KEY_BYTES as i32 && !self.fill(API_KEY_BYTES).await? {
            return Err(Ended::ByClient);
        }
        let api = (&self.buffer[..]).try_get_i16().unwrap_or(-1);
        let carries_records = api == ApiKey::Produce.code();
        let config_max = self.broker.config.request_bytes_max;
        let bytes_max = if carries_records {
            config_max
        } else {
            config_max.min(PLAIN_REQUEST_BYTES_MAX)
        };
        let length = usize::try_from(length)
            .ok()
            .filter(|&bytes| (1..=bytes_max).contains(&bytes))
            .ok_or(Ended::FrameLength {
                bytes: i64::from(length),
                bytes_max,
            })?;
        if !self.fill(length).await? {
            return Err(Ended::ByClient);
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Reads until the buffer holds `bytes`; false if the client closed before.
    async fn fill(&mut self, bytes: usize) -> Result<bool, Ended> {
        while self.buffer.len() < bytes {
            let missing = bytes - self.buffer.len();
            let spare = self.buffer.capacity() - self.buffer.len();
            let trusted = missing.min(FRAME_TRUST_BYTES.max(self.buffer.len()));
            // What follows a short prefix is mostly short, too.
            if spare < trusted.min(READ_BYTES) {
                self.buffer.reserve(trusted.max(READ_BYTES));
            }
            if self.read_some().await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read_some(&mut self) -> Result<usize, Ended> {
        let limit = Duration::from_secs(self.broker.config.idle_timeout_s.max(1));
        loop {
            match timeout(limit, self.socket.read_buf(&mut self.buffer)).await {
                Ok(read) => return Ok(read?),
                // One place is held for the frame that is awaited; the others wait for answers.
                Err(_) if self.in_flight.available_permits() + 1 < self.in_flight_max => {}
                Err(_) => return Err(Ended::Idle),
            }
        }
    }
}

async fn answer(
    broker: &Arc<Broker>,
    mut socket: ToClient,
    mut queue: mpsc::Receiver<Box<Turn>>,
) -> Ended {
    while let Some(turn) = queue.recv().await {
        socket = match take_turn(broker, socket, *turn).await {
            Ok(socket) => socket,
            Err(ended) => return ended,
        };
    }
    Ended::Stopping
}

/// Counts how long the work keeps a thread busy, where anybody has quotas.
async fn timed<T>(broker: &Broker, asker: &Asker, work: impl Future<Output = T>) -> T {
    if !broker.quotas.are_any() {
        return work.await;
    }
    let (result, busy) = Timed::new(work).await;
    broker.take(Quota::Request, asker, busy.as_secs_f64() * 100.0);
    result
}

async fn take_turn(broker: &Arc<Broker>, socket: ToClient, turn: Turn) -> Result<ToClient, Ended> {
    let Turn {
        correlation_id,
        asker,
        work,
        _in_flight,
        _bytes,
    } = turn;
    let mut _held = None;
    let (version, response) = match work {
        Work::Request(request) => {
            let handling = handlers::handle(broker, &asker, request, &mut _held);
            (asker.version, timed(broker, &asker, handling).await)
        }
        Work::Produce(admitted) => match admitted.settle().await {
            produce::Settled::Answer(response) => (asker.version, response.into()),
            produce::Settled::Silence => return Ok(socket),
            produce::Settled::Refused(error) => return Err(Ended::Unacknowledged(error)),
        },
        Work::UnknownApiVersions => (0, handlers::unknown_api_versions().into()),
    };
    let mut response = response;
    let throttle_ms = asker.throttle.ms();
    if throttle_ms > 0 {
        response.set_throttle_time_ms(throttle_ms);
    }
    let mut frame = protocol::encode_response(&response, version, correlation_id)?;
    if response.api() == ApiKey::Fetch {
        broker.take(Quota::Fetch, &asker, frame.bytes() as f64);
        let throttle_ms_now = asker.throttle.ms();
        if throttle_ms_now > throttle_ms {
            response.set_throttle_time_ms(throttle_ms_now);
            frame = protocol::encode_response(&response, version, correlation_id)?;
        }
    }
    let limit = Duration::from_secs(broker.config.idle_timeout_s.max(1));
    Ok(transmit(broker, socket, frame, limit).await?)
}

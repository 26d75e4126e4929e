//! Produces of one record: every connection keeps `in_flight` of them on their way, `acks=all`.
//!
//! A latency is the time from writing a request to reading its answer. What an acknowledgement
//! promises differs between brokers: say so beside every number.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use hdrhistogram::Histogram;
use holdfast::kafka::protocol::messages::{PartitionProduceData, ProduceRequest, TopicProduceData};
use holdfast::kafka::protocol::wire::LENGTH_BYTES;
use holdfast::kafka::protocol::{self, ApiKey, ErrorCode, Request, Response};
use holdfast_storage::log::batch::{self, BatchBuilder};
use holdfast_storage::log::{Offset, Record};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::Failure;
use super::broker::{Broker, make_topic};
use super::process::Stopwatch;

const TOPIC: &str = "small";

/// The last that names topics; Kafka 4 and Holdfast take it.
const PRODUCE_VERSION: i16 = 12;

/// The correlation id stands behind the length, the API's key and its version.
const CORRELATION_AT: usize = LENGTH_BYTES + 4;

/// A broker that does not answer for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

#[derive(clap::Args, Clone)]
pub(crate) struct Plan {
    #[command(flatten)]
    broker: Broker,
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Requests on their way on each connection
    #[arg(long, default_value_t = 1)]
    in_flight: usize,
    /// Partitions of the topic; each connection goes round them
    #[arg(long, default_value_t = 16)]
    partitions: i32,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Seconds that are not counted
    #[arg(long, default_value_t = 5)]
    warmup_s: u64,
    /// Seconds that are counted
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

/// When the counted time begins and ends.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

pub(crate) async fn run(plan: Plan) -> Result<(), Failure> {
    if plan.connections == 0 || plan.in_flight == 0 || plan.partitions <= 0 || plan.seconds == 0 {
        return Err("at least one connection, request, partition and second is needed".into());
    }
    let address = &plan.broker.broker;
    make_topic(address, TOPIC, plan.partitions).await?;
    let requests: Result<Vec<Bytes>, Failure> = (0..plan.partitions)
        .map(|partition| request(partition, plan.size))
        .collect();
    let requests: Arc<[Bytes]> = requests?.into();
    let mut sockets = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        sockets.push(socket);
    }
    let begin = Instant::now() + Duration::from_secs(plan.warmup_s);
    let end = begin + Duration::from_secs(plan.seconds);
    let window = Window { begin, end };
    let mut drivers = JoinSet::new();
    for (number, socket) in sockets.into_iter().enumerate() {
        let driver = Driver {
            socket,
            requests: requests.clone(),
            next: number,
            in_flight: plan.in_flight,
            window,
        };
        drivers.spawn(driver.run());
    }
    sleep_until(begin.into()).await;
    let watch = Stopwatch::start(plan.broker.pid)?;
    sleep_until(end.into()).await;
    let (own_cpu_s, broker_cpu_s) = watch.spent()?;
    let mut latencies_us: Histogram<u64> = Histogram::new(3)?;
    while let Some(driven) = drivers.join_next().await {
        latencies_us.add(driven??)?;
    }
    let seconds = plan.seconds as f64;
    let said = json!({
        "requests_s": latencies_us.len() as f64 / seconds,
        "p50_us": latencies_us.value_at_quantile(0.5),
        "p90_us": latencies_us.value_at_quantile(0.9),
        "p99_us": latencies_us.value_at_quantile(0.99),
        "p999_us": latencies_us.value_at_quantile(0.999),
        "max_us": latencies_us.max(),
        "loader_cpus": own_cpu_s / seconds,
        "broker_cpus": broker_cpu_s.map(|s| s / seconds),
        "broker_cpu_us_per_request": broker_cpu_s.map(|s| s * 1e6 / latencies_us.len() as f64),
    });
    println!("{said}");
    Ok(())
}

/// A whole frame, but for its correlation id.
fn request(partition: i32, size: usize) -> Result<Bytes, Failure> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let record = Record {
        timestamp_ms: i64::try_from(now_ms)?,
        key: None,
        value: Some((0..size).map(|n| b'a' + (n % 26) as u8).collect()),
        headers: Vec::new(),
    };
    let mut builder = BatchBuilder::new(record.timestamp_ms, batch::encoded_bytes_bound(&record));
    builder.push_record(&record);
    let (records, ..) = builder.finish(Offset::ZERO, -1);
    let data = PartitionProduceData {
        index: partition,
        records: Some(records),
    };
    let request: Request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: TOPIC.into(),
            partition_data: vec![data],
            ..Default::default()
        }],
        ..Default::default()
    }
    .into();
    let frame = protocol::encode_request(&request, PRODUCE_VERSION, 0, &"kafka-load".into())?;
    Ok(frame.into_bytes()?)
}

struct Driver {
    socket: TcpStream,
    requests: Arc<[Bytes]>,
    next: usize,
    in_flight: usize,
    window: Window,
}

impl Driver {
    /// Latencies, in microseconds, of what was answered within the window.
    async fn run(mut self) -> Result<Histogram<u64>, Failure> {
        let mut latencies_us = Histogram::new(3)?;
        let mut sent: VecDeque<(i32, Instant)> = VecDeque::with_capacity(self.in_flight);
        let mut id = 0i32;
        let mut out = BytesMut::new();
        let mut answers = BytesMut::with_capacity(16 << 10);
        loop {
            let now = Instant::now();
            let is_over = now >= self.window.end;
            while !is_over && sent.len() < self.in_flight {
                id = id.wrapping_add(1);
                self.put_request(id, &mut out);
                sent.push_back((id, now));
            }
            if sent.is_empty() {
                return Ok(latencies_us);
            }
            self.socket.write_all_buf(&mut out).await?;
            answers.reserve(4096);
            if timeout(SILENCE_MAX, self.socket.read_buf(&mut answers)).await?? == 0 {
                return Err("the broker closed the connection".into());
            }
            let now = Instant::now();
            while let Some(answer) = take_frame(&mut answers)? {
                let (expected, sent_at) = sent.pop_front().ok_or("an answer to nothing")?;
                check(answer, expected)?;
                if now >= self.window.begin && now < self.window.end {
                    let us = u64::try_from(now.duration_since(sent_at).as_micros())?;
                    latencies_us.record(us.max(1))?;
                }
            }
        }
    }

    fn put_request(&mut self, id: i32, out: &mut BytesMut) {
        let number = self.next % self.requests.len();
        self.next = number + 1;
        let Some(request) = self.requests.get(number) else {
            return;
        };
        let begin = out.len();
        out.extend_from_slice(request);
        if let Some(place) = out.get_mut(begin + CORRELATION_AT..begin + CORRELATION_AT + 4) {
            place.copy_from_slice(&id.to_be_bytes());
        }
    }
}

/// The first whole frame, without its length field.
fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, Failure> {
    let Ok(length) = (&buffer[..]).try_get_i32() else {
        return Ok(None);
    };
    let length = usize::try_from(length)?;
    if buffer.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    buffer.advance(LENGTH_BYTES);
    Ok(Some(buffer.split_to(length).freeze()))
}

fn check(answer: Bytes, expected: i32) -> Result<(), Failure> {
    let (id, response) = protocol::decode_response(ApiKey::Produce, PRODUCE_VERSION, answer)?;
    let Response::Produce(response) = response else {
        return Err("not the answer to a Produce".into());
    };
    if id != expected {
        return Err(format!("the answer to {id} where that to {expected} is due").into());
    }
    let partitions = response
        .responses
        .iter()
        .flat_map(|t| &t.partition_responses);
    let mut codes = partitions.map(|partition| partition.error_code);
    match (codes.next(), codes.next()) {
        (Some(0), None) => Ok(()),
        (Some(code), None) => Err(format!("a record was refused: {}", ErrorCode(code)).into()),
        _ => Err("not one answer for one partition".into()),
    }
}

//! Loads an MQTT 3.1.1 broker with QoS 1 publishes over raw pipelined sockets, and prints messages
//! a second and latency percentiles. It knows no broker: the same bytes go to each, so that
//! brokers can be compared.
//!
//! ```text
//! cargo bench --bench mqtt_load -- --addr 127.0.0.1:1883 [--addr ...] [--connections 8]
//!     [--window 1000] [--size 200] [--count 400000] [--topic telemetry/load/dev-{}]
//!     [--user NAME --secret SECRET]
//! ```
//! `--count` is per address and spread over the connections; `{}` in the topic becomes the number
//! of the connection. A latency is the time from writing a publish to reading its PUBACK, so that
//! with a full window it includes the wait behind the window.
//!
//! What an acknowledgement promises differs between brokers: mosquitto without persistence
//! acknowledges from memory, Holdfast after fdatasync. Say so beside every number.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

type Failure = Box<dyn Error + Send + Sync>;

/// A broker that does not answer for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
struct Plan {
    addresses: Vec<SocketAddr>,
    connections: usize,
    window: usize,
    size: usize,
    count: usize,
    topic: String,
    login: Option<(String, String)>,
}

impl Plan {
    fn from_args(args: impl Iterator<Item = String>) -> Result<Plan, Failure> {
        let mut plan = Plan {
            addresses: Vec::new(),
            connections: 8,
            window: 1000,
            size: 200,
            count: 400_000,
            topic: "telemetry/load/dev-{}".to_owned(),
            login: None,
        };
        let (mut user, mut secret) = (None, None);
        // `cargo bench` adds an argument of its own.
        let mut args = args.filter(|arg| arg != "--bench");
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--addr" => plan.addresses.push(value.parse()?),
                "--connections" => plan.connections = value.parse()?,
                "--window" => plan.window = value.parse()?,
                "--size" => plan.size = value.parse()?,
                "--count" => plan.count = value.parse()?,
                "--topic" => plan.topic = value,
                "--user" => user = Some(value),
                "--secret" => secret = Some(value),
                _ => return Err(format!("unknown argument {name}").into()),
            }
        }
        plan.login = user.zip(secret);
        if plan.connections == 0 || plan.count < plan.connections {
            return Err("at least one connection, and one message for each, is needed".into());
        }
        if !(1..=60_000).contains(&plan.window) {
            return Err("--window: 1 to 60000 are possible".into());
        }
        Ok(plan)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Failure> {
    out.extend_from_slice(&u16::try_from(text.len())?.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut left = body.len();
    loop {
        let low = (left & 0x7f) as u8;
        left >>= 7;
        if left == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    out.extend_from_slice(body);
}

fn connect(plan: &Plan, address: SocketAddr, number: usize) -> Result<TcpStream, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_write_timeout(Some(SILENCE_MAX))?;
    let mut body = Vec::new();
    put_text(&mut body, "MQTT")?;
    let login_flags = if plan.login.is_some() { 0xc0 } else { 0 };
    body.extend_from_slice(&[4, 2 | login_flags, 0, 0]);
    put_text(&mut body, &format!("mqtt-load-{number}"))?;
    if let Some((user, secret)) = &plan.login {
        put_text(&mut body, user)?;
        put_text(&mut body, secret)?;
    }
    let mut packet = Vec::new();
    put_packet(&mut packet, 0x10, &body);
    stream.write_all(&packet)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer != [0x20, 2, 0, 0] {
        return Err(format!("CONNACK {answer:02x?}").into());
    }
    Ok(stream)
}

/// One connection's publish, whole but for its packet identifier.
struct Template {
    packet: Vec<u8>,
    id_at: usize,
}

impl Template {
    fn new(plan: &Plan, number: usize) -> Result<Template, Failure> {
        let topic = plan.topic.replace("{}", &number.to_string());
        let mut body = Vec::new();
        put_text(&mut body, &topic)?;
        let id_in_body = body.len();
        body.extend_from_slice(&[0, 0]);
        body.extend((0..plan.size).map(|n| b'a' + (n % 26) as u8));
        let mut packet = Vec::new();
        put_packet(&mut packet, 0x32, &body);
        let id_at = packet.len() - body.len() + id_in_body;
        Ok(Template { packet, id_at })
    }

    fn push(&self, id: u16, out: &mut Vec<u8>) {
        let (head, tail) = self.packet.split_at(self.id_at);
        out.extend_from_slice(head);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(tail.get(2..).unwrap_or_default());
    }
}

/// Keeps the window full until `count` publishes are acknowledged, in order.
fn load(
    mut stream: TcpStream,
    template: &Template,
    count: usize,
    window: usize,
) -> Result<Histogram<u64>, Failure> {
    let mut latency_us = Histogram::new(3)?;
    let mut in_flight: VecDeque<(u16, Instant)> = VecDeque::with_capacity(window);
    let mut next_id = 1u16;
    let (mut sent, mut acked) = (0, 0);
    let mut out = Vec::new();
    let mut answers = vec![0; 64 << 10];
    let mut kept = 0;
    while acked < count {
        out.clear();
        let now = Instant::now();
        while sent < count && in_flight.len() < window {
            template.push(next_id, &mut out);
            in_flight.push_back((next_id, now));
            next_id = if next_id == 60_000 { 1 } else { next_id + 1 };
            sent += 1;
        }
        stream.write_all(&out)?;
        let room = answers.get_mut(kept..).ok_or("no room for answers")?;
        let bytes = stream.read(room)?;
        if bytes == 0 {
            return Err("the broker closed the connection".into());
        }
        kept += bytes;
        let now = Instant::now();
        let whole = kept / 4 * 4;
        for ack in answers.get(..whole).unwrap_or_default().chunks_exact(4) {
            let (id, sent_at) = in_flight.pop_front().ok_or("an answer to nothing")?;
            let [high, low] = id.to_be_bytes();
            if ack != [0x40, 2, high, low] {
                return Err(format!("{ack:02x?} instead of the PUBACK for {id}").into());
            }
            let us = u64::try_from(now.duration_since(sent_at).as_micros())?;
            latency_us.record(us.max(1))?;
            acked += 1;
        }
        answers.copy_within(whole..kept, 0);
        kept -= whole;
    }
    stream.write_all(&[0xe0, 0])?;
    Ok(latency_us)
}

fn run(plan: &Plan, address: SocketAddr) -> Result<(), Failure> {
    let barrier = Arc::new(Barrier::new(plan.connections + 1));
    let mut threads = Vec::new();
    for number in 0..plan.connections {
        let stream = connect(plan, address, number)?;
        let template = Template::new(plan, number)?;
        let share =
            plan.count / plan.connections + usize::from(number < plan.count % plan.connections);
        let (window, barrier) = (plan.window, Arc::clone(&barrier));
        threads.push(thread::spawn(move || {
            barrier.wait();
            load(stream, &template, share, window)
        }));
    }
    barrier.wait();
    let began = Instant::now();
    let mut latency_us = Histogram::<u64>::new(3)?;
    for thread in threads {
        let part = thread
            .join()
            .map_err(|_| "a connection's thread panicked")??;
        latency_us.add(part)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    let ms = |quantile: f64| latency_us.value_at_quantile(quantile) as f64 / 1000.0;
    println!(
        "{address}: {:.0} msgs/s, {:.1} MB/s of payload; latency ms p50 {:.2} p90 {:.2} p99 {:.2} max {:.2} ({} messages of {} B in {seconds:.2} s, {} connections, window {})",
        plan.count as f64 / seconds,
        (plan.count * plan.size) as f64 / seconds / 1e6,
        ms(0.5),
        ms(0.9),
        ms(0.99),
        latency_us.max() as f64 / 1000.0,
        plan.count,
        plan.size,
        plan.connections,
        plan.window,
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let plan = Plan::from_args(std::env::args().skip(1))?;
    if plan.addresses.is_empty() {
        println!("mqtt_load: no --addr was given, so that nothing is loaded");
    }
    for address in &plan.addresses {
        run(&plan, *address)?;
    }
    Ok(())
}

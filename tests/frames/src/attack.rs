//! An attack: frames one at a time, each one's memory measured, and many at once, beside clients that
//! must not notice.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::kafka::Client;
use holdfast::kafka::protocol::ApiKey;
use holdfast_storage::log::Record;

use crate::batches;
use crate::compose::{self, Frame};
use crate::dice::Dice;
use crate::door::Door;
use crate::heap;
use crate::names::{Names, TOPICS};
use crate::sasl;
use crate::victim::{Broken, Due, Seen, Victim, due};

/// How much, how long, from where.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    /// Ends after so many frames ...
    pub frames: u64,
    /// ... or after so long, whichever is first.
    pub time: Duration,
    pub connections: usize,
}

/// Frames of a hundred that are sent alone, each one's memory measured.
const ALONE_PERCENT: u64 = 4;

/// Connections to where one has to sign in. Whoever fails there waits 100 ms.
const STRANGERS: u64 = 8;

/// Frames of one connection that are answered, before one that may end it.
const VOLLEY_MAX: usize = 24;

/// Longest a healthy client may wait.
const HEALTHY_MS_MAX: u64 = 10_000;

/// Memory that handling one frame may take, in bytes: its copies and structures, for which the codec's own
/// limit stands, its answer, and what unpacking a batch may take, where batches are.
pub fn allowed(api: Option<ApiKey>, frame: usize) -> usize {
    let unpacked = match api {
        Some(ApiKey::Produce | ApiKey::Fetch | ApiKey::ListOffsets) => 256 << 20,
        // Background work comes in between.
        _ => 32 << 20,
    };
    frame.saturating_mul(32) + unpacked
}

/// What was thrown and what came of it.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub frames: u64,
    pub answered: u64,
    pub ended: u64,
    pub left: u64,
    pub bytes: u64,
    pub answer_bytes_max: usize,
    /// Of one frame alone.
    pub peak_max: usize,
}

impl Tally {
    fn count(&mut self, frame: &Frame, seen: Seen) {
        self.frames += 1;
        self.bytes += frame.bytes.len() as u64;
        match seen {
            Seen::Answered { bytes } => {
                self.answered += 1;
                self.answer_bytes_max = self.answer_bytes_max.max(bytes);
            }
            Seen::Ended => self.ended += 1,
            Seen::Left => self.left += 1,
        }
    }

    fn add(&mut self, other: &Tally) {
        self.frames += other.frames;
        self.answered += other.answered;
        self.ended += other.ended;
        self.left += other.left;
        self.bytes += other.bytes;
        self.answer_bytes_max = self.answer_bytes_max.max(other.answer_bytes_max);
        self.peak_max = self.peak_max.max(other.peak_max);
    }
}

/// What an attack found.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub elapsed: Duration,
    /// By API and version as the header says; `None` for what has no API.
    pub tallies: BTreeMap<(Option<ApiKey>, i16), Tally>,
    pub healthy_trips: u64,
    pub healthy_slowest_ms: u64,
    pub peak: usize,
    pub state: String,
    pub broken: Vec<String>,
}

impl Report {
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.tallies.values().for_each(|tally| total.add(tally));
        total
    }

    fn by_api(&self) -> BTreeMap<Option<ApiKey>, (Tally, usize)> {
        let mut apis: BTreeMap<_, (Tally, usize)> = BTreeMap::new();
        for ((api, _), tally) in &self.tallies {
            let (sum, versions) = apis.entry(*api).or_default();
            sum.add(tally);
            *versions += 1;
        }
        apis
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:32} {:>10} {:>8} {:>10} {:>10} {:>8} {:>12} {:>12}",
            "API",
            "frames",
            "versions",
            "answered",
            "ended",
            "left",
            "answer max B",
            "alone max KiB"
        )?;
        for (api, (tally, versions)) in self.by_api() {
            let name = api.map_or("(none)", ApiKey::name);
            let Tally {
                frames,
                answered,
                ended,
                left,
                answer_bytes_max,
                peak_max,
                ..
            } = tally;
            let peak = peak_max >> 10;
            writeln!(
                f,
                "{name:32} {frames:>10} {versions:>8} {answered:>10} {ended:>10} {left:>8} {answer_bytes_max:>12} {peak:>12}"
            )?;
        }
        let total = self.total();
        writeln!(
            f,
            "seed {}: {} frames ({} MiB) in {:.1} s, {:.0}/s: {} answered, {} ended their connection, {} left waiting",
            self.seed,
            total.frames,
            total.bytes >> 20,
            self.elapsed.as_secs_f64(),
            total.frames as f64 / self.elapsed.as_secs_f64(),
            total.answered,
            total.ended,
            total.left
        )?;
        writeln!(
            f,
            "peak memory {} MiB, node and attackers together; healthy clients: {} round trips, slowest {} ms; {}",
            self.peak >> 20,
            self.healthy_trips,
            self.healthy_slowest_ms,
            self.state
        )?;
        for broken in &self.broken {
            writeln!(f, "BROKEN: {broken}")?;
        }
        Ok(())
    }
}

struct Attack {
    plan: Plan,
    begun: Instant,
    door: Door,
    names: Names,
    thrown: AtomicU64,
    tallies: Mutex<BTreeMap<(Option<ApiKey>, i16), Tally>>,
    broken: Arc<Mutex<Vec<String>>>,
    over: AtomicBool,
    healthy_trips: AtomicU64,
    healthy_slowest_ms: AtomicU64,
}

/// Does what the plan says against a door of its own. Panics of the node are told, not passed on.
pub fn run(plan: Plan) -> Report {
    batches::prepare();
    let broken = Arc::new(Mutex::new(Vec::new()));
    let panics = broken.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let told = format!("panic: {panic}");
        eprintln!("{told}\n{}", std::backtrace::Backtrace::force_capture());
        panics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(told);
    }));
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let threads = threads.expect("threads for the attackers");
    let attack = Arc::new(Attack {
        plan,
        begun: Instant::now(),
        door: Door::open(),
        names: Names::default(),
        thrown: AtomicU64::new(0),
        tallies: Mutex::default(),
        broken,
        over: AtomicBool::new(false),
        healthy_trips: AtomicU64::new(0),
        healthy_slowest_ms: AtomicU64::new(0),
    });
    threads.block_on(attack.clone().everybody());
    drop(threads);
    let attack = Arc::into_inner(attack).expect("nobody attacks any longer");
    attack.report()
}

impl Attack {
    async fn everybody(self: Arc<Attack>) {
        self.prepare().await;
        let healthy = tokio::spawn(self.clone().healthy());
        let mut dice = Dice::new(self.plan.seed);
        let alone = self.plan.frames * ALONE_PERCENT / 100;
        let until = self.plan.time * ALONE_PERCENT as u32 / 100;
        let mut crowd = Vec::new();
        while self.thrown.load(Relaxed) < alone
            && self.begun.elapsed() < until
            && !self.has_failed()
        {
            self.one_alone(&mut dice).await;
        }
        for place in 0..self.plan.connections as u64 {
            let seed = self
                .plan
                .seed
                .wrapping_mul(1_000_003)
                .wrapping_add(place + 1);
            crowd.push(tokio::spawn(self.clone().attacker(seed)));
        }
        for place in 0..STRANGERS {
            crowd.push(tokio::spawn(
                self.clone().stranger(self.plan.seed ^ (place + 1) << 40),
            ));
        }
        for attacker in crowd {
            if let Err(error) = attacker.await {
                self.complain(format!("an attacker: {error}"));
            }
        }
        self.over.store(true, Relaxed);
        if let Err(error) = healthy.await {
            self.complain(format!("the healthy client: {error}"));
        }
    }

    /// Topics to begin with.
    async fn prepare(&self) {
        let address = self.door.address().to_string();
        let mut client = Client::connect(&address).await.expect("a first client");
        let compacted = [("cleanup.policy".to_owned(), "compact".to_owned())];
        for name in TOPICS.iter().chain(&[HEALTHY]) {
            let configs = if *name == "compacted" {
                &compacted[..]
            } else {
                &[]
            };
            client
                .create_topic(name, 2, configs)
                .await
                .expect("a topic");
        }
    }

    fn complain(&self, what: String) {
        self.broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(what);
    }

    fn has_failed(&self) -> bool {
        !self
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
    }

    fn is_over(&self) -> bool {
        self.thrown.load(Relaxed) >= self.plan.frames
            || self.begun.elapsed() >= self.plan.time
            || self.has_failed()
    }

    fn count(
        &self,
        tallies: &mut BTreeMap<(Option<ApiKey>, i16), Tally>,
        frame: &Frame,
        seen: Seen,
    ) {
        tallies.entry(kind(frame)).or_default().count(frame, seen);
        self.thrown.fetch_add(1, Relaxed);
    }

    fn gather(&self, tallies: &BTreeMap<(Option<ApiKey>, i16), Tally>) {
        let mut all = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, tally) in tallies {
            all.entry(*kind).or_default().add(tally);
        }
    }

    fn tell(&self, broken: Broken) {
        let mut told = broken.what;
        for frame in broken.frames.iter().rev().take(3) {
            let shown: String = frame
                .iter()
                .take(400)
                .map(|byte| format!("{byte:02x}"))
                .collect();
            told.push_str(&format!(
                "\n  {} bytes, API and version {:?}: {shown}",
                frame.len(),
                kind(&Frame::of(frame.clone()))
            ));
        }
        self.complain(told);
    }

    /// One frame that nothing else is sent beside, and what it took of memory.
    async fn one_alone(&self, dice: &mut Dice<'_>) {
        let frame = compose::frame(dice, &self.names);
        let Some(due) = due(&frame) else { return };
        let victim = match Victim::connect(self.door.address(), &self.names).await {
            Ok(victim) => victim,
            Err(error) => return self.complain(format!("cannot connect: {error}")),
        };
        let before = heap::forget_peak();
        let seen = victim.last(&frame, due).await;
        let peak = heap::peak().saturating_sub(before);
        let mut tallies = BTreeMap::new();
        match seen {
            Ok(seen) => self.count(&mut tallies, &frame, seen),
            Err(broken) => self.tell(broken),
        }
        let (api, version) = kind(&frame);
        tallies.entry((api, version)).or_default().peak_max = peak;
        self.gather(&tallies);
        let bound = allowed(api, frame.bytes.len());
        if peak > bound {
            let what = format!(
                "{api:?} {version} of {} bytes took {peak} bytes of memory, {bound} are allowed",
                frame.bytes.len()
            );
            self.tell(Broken {
                what,
                frames: vec![frame.bytes],
            });
        }
    }

    /// Volleys over one connection after the other.
    async fn attacker(self: Arc<Attack>, seed: u64) {
        let mut dice = Dice::new(seed);
        let mut tallies = BTreeMap::new();
        while !self.is_over() {
            if let Err(broken) = self.volley(&mut dice, &mut tallies).await {
                self.tell(broken);
                break;
            }
        }
        self.gather(&tallies);
    }

    async fn volley(
        &self,
        dice: &mut Dice<'_>,
        tallies: &mut BTreeMap<(Option<ApiKey>, i16), Tally>,
    ) -> Result<(), Broken> {
        let mut answered = Vec::new();
        let mut last = None;
        let mut bytes = 0;
        while answered.len() < VOLLEY_MAX && bytes < 1 << 20 {
            let frame = compose::frame(dice, &self.names);
            match due(&frame) {
                None => {}
                Some(due @ Due::Answer(..)) => {
                    bytes += frame.bytes.len();
                    answered.push((frame, due));
                }
                Some(due) => {
                    last = Some((frame, due));
                    if answered.len() > VOLLEY_MAX / 3 || dice.once_in(3) {
                        break;
                    }
                }
            }
        }
        let mut victim = match Victim::connect(self.door.address(), &self.names).await {
            Ok(victim) => victim,
            Err(error) => {
                return Err(Broken {
                    what: format!("cannot connect: {error}"),
                    frames: Vec::new(),
                });
            }
        };
        let mut seen_all = Vec::with_capacity(answered.len());
        let outcome = victim
            .all(&answered, |place, seen| seen_all.push((place, seen)))
            .await;
        for (place, seen) in seen_all {
            self.count(tallies, &answered[place].0, seen);
        }
        outcome?;
        if let Some((frame, due)) = last {
            let seen = victim.last(&frame, due).await?;
            self.count(tallies, &frame, seen);
        }
        Ok(())
    }

    /// Comes in where one has to say who one is, and never quite does.
    async fn stranger(self: Arc<Attack>, seed: u64) {
        let mut dice = Dice::new(seed);
        let mut tallies = BTreeMap::new();
        while !self.is_over() {
            match sasl::exchange(self.door.sasl_address(), &mut dice, &self.names).await {
                Ok(frames) => {
                    for frame in frames {
                        self.count(&mut tallies, &frame, Seen::Left);
                    }
                }
                Err(broken) => self.tell(broken),
            }
        }
        self.gather(&tallies);
    }

    /// Does one round trip after the other over one connection, which it must not lose.
    async fn healthy(self: Arc<Attack>) {
        let address: SocketAddr = self.door.address();
        if let Err(error) = self.round_trips(address).await {
            self.complain(format!("the healthy client noticed: {error}"));
        }
    }

    async fn round_trips(&self, address: SocketAddr) -> io::Result<()> {
        let mut client = Client::connect(&address.to_string())
            .await
            .map_err(io::Error::other)?;
        while !self.over.load(Relaxed) {
            let begun = Instant::now();
            let number = self.healthy_trips.load(Relaxed);
            let value = Bytes::from(number.to_string());
            let record = Record {
                value: Some(value.clone()),
                timestamp_ms: batches::BASE_TIMESTAMP_MS,
                ..Record::default()
            };
            let base = client
                .produce(HEALTHY, 0, vec![record])
                .await
                .map_err(io::Error::other)?;
            let (back, _) = client
                .fetch(HEALTHY, 0, base, Duration::from_secs(1))
                .await
                .map_err(io::Error::other)?;
            let back = back.into_iter().next().and_then(|back| back.record.value);
            if back.as_ref() != Some(&value) {
                return Err(io::Error::other(format!(
                    "record {number} came back as {back:?}"
                )));
            }
            let ms = begun.elapsed().as_millis() as u64;
            self.healthy_slowest_ms.fetch_max(ms, Relaxed);
            if ms > HEALTHY_MS_MAX {
                return Err(io::Error::other(format!("a round trip of {ms} ms")));
            }
            self.healthy_trips.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn report(self) -> Report {
        let elapsed = self.begun.elapsed();
        let state = self.door.state();
        self.door.close();
        let _ = std::panic::take_hook();
        Report {
            seed: self.plan.seed,
            elapsed,
            tallies: self
                .tallies
                .into_inner()
                .unwrap_or_else(PoisonError::into_inner),
            healthy_trips: self.healthy_trips.load(Relaxed),
            healthy_slowest_ms: self.healthy_slowest_ms.load(Relaxed),
            peak: heap::most(),
            state,
            broken: std::mem::take(
                &mut *self.broken.lock().unwrap_or_else(PoisonError::into_inner),
            ),
        }
    }
}

/// The topic of those who must not notice; not in the pool of names.
const HEALTHY: &str = "healthy";

/// API and version as its header says.
fn kind(frame: &Frame) -> (Option<ApiKey>, i16) {
    let number = |at: usize| {
        frame
            .bytes
            .get(at..at + 2)
            .map(|b| i16::from_be_bytes([b[0], b[1]]))
    };
    let api = number(0).and_then(ApiKey::from_code);
    let version = number(2).unwrap_or_default();
    match api {
        // What damage made of a version is not told apart.
        Some(api)
            if version > api.advertised().end() + 1 || version < api.advertised().start() - 1 =>
        {
            (Some(api), i16::MAX)
        }
        Some(_) => (api, version),
        None => (None, 0),
    }
}

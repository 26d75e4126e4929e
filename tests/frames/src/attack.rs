//! A run: rounds of frames one at a time, each one's memory measured, and rounds of many connections at
//! once. Beside both a client that must not notice, and strangers who try to sign in.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use holdfast::kafka::Client;
use holdfast::kafka::protocol::ApiKey;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::compose::{self, Frame};
use crate::dice::Dice;
use crate::door::Door;
use crate::kept;
use crate::names::{Names, TOPICS};
use crate::report::{Report, Tallies, kind};
use crate::victim::{Broken, Due, Number, PATIENCE, Seen, Thrown, Victim, due};
use crate::{batches, beside, bound, heap, sasl, table};

/// How much, how long, from where.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Ends after so many frames ...
    pub frames: u64,
    /// ... or after so long, whichever is first.
    pub time: Duration,
    pub connections: usize,
    /// Where frames that broke a promise are written to.
    pub keep: PathBuf,
}

/// Frames of a round that go out one at a time, and of one that many connections share.
const ALONE_FRAMES: u64 = 2000;
const CROWD_FRAMES: u64 = 18_000;

/// Connections to where one has to sign in: who never do, and who do.
const STRANGERS: u64 = 3;
const SIGNED_IN: u64 = 4;

/// Frames of one connection that are answered, before one that may end it.
const VOLLEY_MAX: usize = 24;
const VOLLEY_BYTES_MAX: usize = 1 << 20;

/// Frames over one connection, when they go out one at a time.
const ALONE_CONNECTION_MAX: usize = 64;

/// How often a frame may take too much memory before it is its own fault: what cleans the log comes in
/// between as it likes.
const MEASURED_MAX: usize = 3;

const PROGRESS_EVERY: Duration = Duration::from_secs(60);

pub struct Attack {
    plan: Plan,
    begun: Instant,
    door: Door,
    names: Names,
    next: AtomicU64,
    thrown: AtomicU64,
    next_exchange: AtomicU64,
    signed_in: AtomicU64,
    tallies: Mutex<Tallies>,
    broken: Arc<Mutex<Vec<String>>>,
    panics: Arc<AtomicU64>,
    over: AtomicBool,
    beside: beside::Trips,
    /// What the connections under way may take of memory, and the most that was in this round.
    promised: AtomicUsize,
    promised_max: AtomicUsize,
    crowd_peak: Mutex<(usize, usize)>,
}

/// The attackers' threads, and what they attack. Panics of the node are told, not passed on.
fn begin(plan: Plan) -> (Runtime, Arc<Attack>) {
    let preparing = std::thread::spawn(|| {
        heap::leave_out();
        batches::prepare();
    });
    preparing.join().expect("batches to throw");
    let broken = Arc::new(Mutex::new(Vec::new()));
    let panics = Arc::new(AtomicU64::new(0));
    let (told, counted) = (broken.clone(), panics.clone());
    std::panic::set_hook(Box::new(move |panic| {
        let trace = std::backtrace::Backtrace::force_capture();
        eprintln!("{panic}\n{trace}");
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.push(format!("panic: {panic}"));
        counted.fetch_add(1, Relaxed);
    }));
    let threads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(heap::leave_out)
        .enable_all()
        .build();
    let attack = Attack {
        plan,
        begun: Instant::now(),
        door: Door::open(),
        names: Names::default(),
        next: AtomicU64::new(0),
        thrown: AtomicU64::new(0),
        next_exchange: AtomicU64::new(0),
        signed_in: AtomicU64::new(0),
        tallies: Mutex::default(),
        broken,
        panics,
        over: AtomicBool::new(false),
        beside: beside::Trips::default(),
        promised: AtomicUsize::new(0),
        promised_max: AtomicUsize::new(0),
        crowd_peak: Mutex::default(),
    };
    heap::leave_out();
    (
        threads.expect("threads for the attackers"),
        Arc::new(attack),
    )
}

/// Does what the plan says against a door of its own.
pub fn run(plan: Plan) -> Report {
    let (threads, attack) = begin(plan);
    threads.block_on(attack.clone().everybody());
    drop(threads);
    Arc::into_inner(attack)
        .expect("nobody attacks any longer")
        .report()
}

/// Throws these alone, one after the other, each over a connection of its own unless it is out of a file.
pub fn replay(plan: Plan, numbers: &[Number], kept: Vec<Frame>) -> Report {
    let (threads, attack) = begin(plan);
    let again = attack.clone();
    let numbers = numbers.to_vec();
    threads.block_on(async move {
        again.prepare().await;
        for number in numbers {
            again.again(number).await;
        }
        again.throw_kept(kept).await;
    });
    drop(threads);
    Arc::into_inner(attack)
        .expect("nobody attacks any longer")
        .report()
}

impl Attack {
    async fn everybody(self: Arc<Attack>) {
        for api in ApiKey::ALL
            .iter()
            .filter(|api| table::composing(**api).is_none())
        {
            self.complain(format!(
                "{api:?} has no composer: name its file in tests/frames/src/table.rs"
            ));
        }
        if self.has_failed() {
            return;
        }
        self.prepare().await;
        let healthy = tokio::spawn(self.clone().healthy());
        let mut told = Instant::now();
        while !self.is_over() {
            self.round_alone().await;
            self.clone().round_of_many().await;
            if told.elapsed() > PROGRESS_EVERY {
                told = Instant::now();
                self.tell_progress();
            }
        }
        self.over.store(true, Relaxed);
        if let Err(error) = healthy.await {
            self.complain(format!("the client beside: {error}"));
        }
        let left = timeout(PATIENCE, self.nobody_is_left()).await;
        if left.is_err() {
            let connections = self.door.connections();
            self.complain(format!(
                "{connections} connections stay after everybody has left"
            ));
        }
    }

    async fn nobody_is_left(&self) {
        while self.door.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn tell_progress(&self) {
        let (thrown, seconds) = (self.thrown.load(Relaxed), self.begun.elapsed().as_secs());
        println!(
            "{thrown} frames in {seconds} s, {}/s; {} MiB of memory; {}",
            thrown / seconds.max(1),
            heap::live() >> 20,
            self.door.state()
        );
    }

    /// Topics to begin with.
    async fn prepare(&self) {
        let address = self.door.address().to_string();
        let mut client = Client::connect(&address).await.expect("a first client");
        let compacted = [("cleanup.policy".to_owned(), "compact".to_owned())];
        for name in TOPICS.iter().chain(&[beside::TOPIC]) {
            let configs = if *name == "compacted" {
                &compacted[..]
            } else {
                &[]
            };
            let created = client.create_topic(name, beside::PARTITIONS, configs);
            created.await.expect("a topic");
        }
    }

    fn complain(&self, what: String) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.push(what);
    }

    fn has_failed(&self) -> bool {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        !broken.is_empty()
    }

    fn is_over(&self) -> bool {
        self.thrown.load(Relaxed) >= self.plan.frames
            || self.begun.elapsed() >= self.plan.time
            || self.has_failed()
    }

    /// The next frame that may be sent, below this number.
    fn next(&self, until: u64) -> Option<Thrown> {
        loop {
            let one_more = |number: u64| (number < until).then_some(number + 1);
            let number = self.next.fetch_update(Relaxed, Relaxed, one_more).ok()?;
            if let Some(thrown) = self.thrown_as(number) {
                return Some(thrown);
            }
        }
    }

    fn thrown_as(&self, number: u64) -> Option<Thrown> {
        let mut dice = Dice::new(self.plan.seed, number);
        let frame = compose::frame(&mut dice, &self.names);
        let due = due(&frame)?;
        let number = Number::Frame(number);
        Some(Thrown { number, frame, due })
    }

    fn count(&self, tallies: &mut Tallies, frame: &Frame, seen: Seen) {
        tallies.count(frame, seen);
        self.thrown.fetch_add(1, Relaxed);
    }

    fn gather(&self, tallies: &Tallies) {
        let mut all = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        all.add(tallies);
    }

    fn tell(&self, broken: &Broken) {
        let told = kept::keep(&self.plan.keep, self.plan.seed, broken);
        self.complain(format!("{}\n{told}", broken.what));
    }

    /// What a connection did while something panicked is kept, too.
    fn suspect(&self, panics: u64, sent: Vec<(Number, Frame)>) -> Result<(), Broken> {
        if self.panics.load(Relaxed) == panics {
            return Ok(());
        }
        let at = sent.len().saturating_sub(1);
        let what = "under way while something panicked".to_owned();
        Err(Broken { what, sent, at })
    }

    /// Frames that nothing else is sent beside but by the client beside, and what they took of memory.
    async fn round_alone(&self) {
        let until = self.next.load(Relaxed) + ALONE_FRAMES;
        let mut tallies = Tallies::default();
        let mut victim = None;
        while !self.is_over() {
            let Some(thrown) = self.next(until) else {
                break;
            };
            if let Err(broken) = self.measure(&mut victim, &thrown, &mut tallies).await {
                self.tell(&broken);
            }
        }
        self.gather(&tallies);
    }

    /// Throws it, again if it took too much.
    async fn measure<'a>(
        &'a self,
        victim: &mut Option<Victim<'a>>,
        thrown: &Thrown,
        tallies: &mut Tallies,
    ) -> Result<(), Broken> {
        let bound = bound::alone(&thrown.frame);
        let mut least = usize::MAX;
        for _ in 0..MEASURED_MAX {
            let panics = self.panics.load(Relaxed);
            let (seen, peak) = self.one_alone(victim, thrown).await?;
            self.count(tallies, &thrown.frame, seen);
            self.suspect(panics, vec![(thrown.number, thrown.frame.clone())])?;
            least = least.min(peak);
            if least <= bound {
                tallies.measured(&thrown.frame, least);
                return Ok(());
            }
        }
        let bytes = thrown.frame.bytes.len();
        Err(Broken {
            what: format!(
                "a frame of {bytes} bytes took {least} bytes of memory; {bound} are allowed"
            ),
            sent: vec![(thrown.number, thrown.frame.clone())],
            at: 0,
        })
    }

    async fn one_alone<'a>(
        &'a self,
        victim: &mut Option<Victim<'a>>,
        thrown: &Thrown,
    ) -> Result<(Seen, usize), Broken> {
        let before = heap::forget_peak();
        let reused = victim
            .take()
            .filter(|victim| victim.sent() < ALONE_CONNECTION_MAX);
        let mut open = match reused {
            Some(open) => open,
            None => Victim::connect(self.door.address(), &self.names).await?,
        };
        let mut seen = Seen::Left;
        if matches!(thrown.due, Due::Answer(..)) {
            open.all(std::slice::from_ref(thrown), |_, what| seen = what)
                .await?;
            *victim = Some(open);
        } else {
            seen = open.last(thrown).await?;
        }
        Ok((seen, heap::peak_since(before)))
    }

    async fn round_of_many(self: Arc<Attack>) {
        let until = self.next.load(Relaxed) + CROWD_FRAMES;
        let before = heap::forget_peak();
        self.promised_max.store(0, Relaxed);
        let mut crowd = Vec::new();
        for _ in 0..self.plan.connections {
            crowd.push(tokio::spawn(self.clone().attacker(until)));
        }
        for _ in 0..SIGNED_IN {
            crowd.push(tokio::spawn(self.clone().signed_in(until)));
        }
        for _ in 0..STRANGERS {
            crowd.push(tokio::spawn(self.clone().stranger(until)));
        }
        for attacker in crowd {
            if let Err(error) = attacker.await {
                self.complain(format!("an attacker: {error}"));
            }
        }
        let peak = heap::peak_since(before);
        let bound = bound::crowd(self.promised_max.load(Relaxed));
        if peak > bound {
            self.complain(format!(
                "many connections took {peak} bytes of memory; {bound} are allowed"
            ));
        }
        let mut most = self
            .crowd_peak
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *most = (*most).max((peak, bound));
    }

    /// Volleys over one connection after the other.
    async fn attacker(self: Arc<Attack>, until: u64) {
        let mut tallies = Tallies::default();
        while !self.is_over() {
            let (answered, last) = self.load(until);
            if answered.is_empty() && last.is_none() {
                break;
            }
            let outcome = match Victim::connect(self.door.address(), &self.names).await {
                Ok(victim) => self.volley(victim, &answered, last, &mut tallies).await,
                Err(broken) => Err(broken),
            };
            if let Err(broken) = outcome {
                self.tell(&broken);
            }
        }
        self.gather(&tallies);
    }

    /// The same by somebody who has signed in, and whom access rules bind.
    async fn signed_in(self: Arc<Attack>, until: u64) {
        let mut tallies = Tallies::default();
        while !self.is_over() {
            let (answered, last) = self.load(until);
            if answered.is_empty() && last.is_none() {
                break;
            }
            match sasl::sign_in(self.door.sasl_address()).await {
                Ok(socket) => {
                    self.signed_in.fetch_add(1, Relaxed);
                    let victim = Victim::over(socket, &self.names);
                    if let Err(broken) = self.volley(victim, &answered, last, &mut tallies).await {
                        self.tell(&broken);
                    }
                }
                Err(what) => self.complain(what),
            }
        }
        self.gather(&tallies);
    }

    /// Frames that are answered, and one for the end.
    fn load(&self, until: u64) -> (Vec<Thrown>, Option<Thrown>) {
        let mut answered: Vec<Thrown> = Vec::new();
        let mut bytes = 0;
        while answered.len() < VOLLEY_MAX && bytes < VOLLEY_BYTES_MAX {
            match self.next(until) {
                Some(thrown) if matches!(thrown.due, Due::Answer(..)) => {
                    bytes += thrown.frame.bytes.len();
                    answered.push(thrown);
                }
                last => return (answered, last),
            }
        }
        (answered, None)
    }

    async fn volley(
        &self,
        mut victim: Victim<'_>,
        answered: &[Thrown],
        last: Option<Thrown>,
        tallies: &mut Tallies,
    ) -> Result<(), Broken> {
        let panics = self.panics.load(Relaxed);
        let all = answered.iter().chain(&last);
        let promise = bound::volley(all.clone().map(|thrown| &thrown.frame));
        let promised = self.promised.fetch_add(promise, Relaxed) + promise;
        self.promised_max.fetch_max(promised, Relaxed);
        let outcome = async {
            victim
                .all(answered, |frame, seen| self.count(tallies, frame, seen))
                .await?;
            if let Some(thrown) = &last {
                let seen = victim.last(thrown).await?;
                self.count(tallies, &thrown.frame, seen);
            }
            Ok(())
        };
        let outcome = outcome.await;
        self.promised.fetch_sub(promise, Relaxed);
        outcome?;
        let sent = all.map(|thrown| (thrown.number, thrown.frame.clone()));
        self.suspect(panics, sent.collect())
    }

    /// Comes in where one has to say who one is, and never quite does, as long as the round lasts.
    async fn stranger(self: Arc<Attack>, until: u64) {
        let mut tallies = Tallies::default();
        while !self.is_over() && self.next.load(Relaxed) < until {
            let number = self.next_exchange.fetch_add(1, Relaxed);
            if let Err(broken) = self.exchange(number, &mut tallies).await {
                self.tell(&broken);
            }
        }
        self.gather(&tallies);
    }

    async fn exchange(&self, number: u64, tallies: &mut Tallies) -> Result<(), Broken> {
        let (address, panics) = (self.door.sasl_address(), self.panics.load(Relaxed));
        let frames = sasl::exchange(address, self.plan.seed, number, &self.names).await?;
        for frame in &frames {
            self.count(tallies, frame, Seen::Left);
        }
        let sent = frames
            .into_iter()
            .map(|frame| (Number::Exchange(number), frame));
        self.suspect(panics, sent.collect())
    }

    async fn healthy(self: Arc<Attack>) {
        let address = self.door.address().to_string();
        if let Err(what) = beside::trips(&address, &self.over, &self.beside).await {
            self.complain(format!("the client beside noticed: {what}"));
        }
    }

    /// Throws one alone that was thrown before.
    async fn again(&self, number: Number) {
        let mut tallies = Tallies::default();
        let outcome = match number {
            Number::Exchange(number) => self.exchange(number, &mut tallies).await,
            Number::Frame(at) | Number::Kept(at) => match self.thrown_as(at) {
                Some(thrown) => self.show(thrown, &mut tallies).await,
                None => {
                    println!(
                        "frame {at} is one that is not sent: a quota that would hold back everybody"
                    );
                    Ok(())
                }
            },
        };
        if let Err(broken) = outcome {
            self.tell(&broken);
        }
        self.gather(&tallies);
    }

    async fn show(&self, thrown: Thrown, tallies: &mut Tallies) -> Result<(), Broken> {
        let (api, version) = kind(&thrown.frame);
        println!(
            "{:?}: {api:?} {version}, {}",
            thrown.number,
            kept::shown(&thrown.frame)
        );
        println!("due: {:?}", thrown.due);
        self.measure(&mut None, &thrown, tallies).await
    }

    /// Throws what a file kept: one connection after the other, as they end.
    async fn throw_kept(&self, kept: Vec<Frame>) {
        let mut tallies = Tallies::default();
        let mut victim = None;
        for (place, frame) in kept.into_iter().enumerate() {
            let due = due(&frame).unwrap_or(Due::Anything);
            let number = Number::Kept(place as u64);
            let thrown = Thrown { number, frame, due };
            if let Err(broken) = self.measure(&mut victim, &thrown, &mut tallies).await {
                self.tell(&broken);
            }
        }
        self.gather(&tallies);
    }

    fn report(self) -> Report {
        let elapsed = self.begun.elapsed();
        let state = self.door.state();
        self.door.close();
        let _ = std::panic::take_hook();
        let tallies = self
            .tallies
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut broken = broken.clone();
        broken.extend(tallies.untried());
        Report {
            seed: self.plan.seed,
            elapsed,
            tallies,
            exchanges: self.next_exchange.into_inner(),
            signed_in: self.signed_in.into_inner(),
            healthy_trips: self.beside.trips.into_inner(),
            healthy_slowest_ms: self.beside.slowest_ms.into_inner(),
            healthy_most_cpu_ms: self.beside.most_cpu_ms.into_inner(),
            crowd_peak: *self
                .crowd_peak
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
            peak: heap::most(),
            state,
            broken,
        }
    }
}

//! What was thrown, what came of it, and which promises were broken.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use holdfast::kafka::protocol::ApiKey;

use crate::compose::Frame;
use crate::victim::Seen;

/// Frames after which every version of every API has to have been thrown, and answered where it is
/// served.
const ALL_FRAMES: u64 = 250_000;

/// API and version as a frame's header says; `None` for what has no API.
pub type Kind = (Option<ApiKey>, i16);

pub fn kind(frame: &Frame) -> Kind {
    let number = |at: usize| {
        let bytes = frame.bytes.get(at..at + 2);
        bytes.map(|b| i16::from_be_bytes([b[0], b[1]]))
    };
    let api = number(0).and_then(ApiKey::from_code);
    let version = number(2).unwrap_or_default();
    match api {
        // What damage made of a version is not told apart.
        Some(api) if !api.advertised().contains(&version) => (Some(api), i16::MAX),
        Some(_) => (api, version),
        None => (None, 0),
    }
}

/// What came of frames of one kind.
#[derive(Debug, Default, Clone)]
pub struct Tally {
    pub frames: u64,
    pub answered: u64,
    pub ended: u64,
    pub left: u64,
    pub bytes: u64,
    pub answer_bytes_max: usize,
    /// Memory of one frame alone.
    pub peak_max: usize,
}

impl Tally {
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

#[derive(Debug, Default)]
pub struct Tallies(BTreeMap<Kind, Tally>);

impl Tallies {
    pub fn count(&mut self, frame: &Frame, seen: Seen) {
        let tally = self.0.entry(kind(frame)).or_default();
        tally.frames += 1;
        tally.bytes += frame.bytes.len() as u64;
        match seen {
            Seen::Answered { bytes } => {
                tally.answered += 1;
                tally.answer_bytes_max = tally.answer_bytes_max.max(bytes);
            }
            Seen::Ended => tally.ended += 1,
            Seen::Left => tally.left += 1,
        }
    }

    pub fn measured(&mut self, frame: &Frame, peak: usize) {
        let tally = self.0.entry(kind(frame)).or_default();
        tally.peak_max = tally.peak_max.max(peak);
    }

    pub fn add(&mut self, other: &Tallies) {
        for (kind, tally) in &other.0 {
            self.0.entry(*kind).or_default().add(tally);
        }
    }

    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.0.values().for_each(|tally| total.add(tally));
        total
    }

    fn by_api(&self) -> BTreeMap<Option<ApiKey>, (Tally, usize)> {
        let mut apis: BTreeMap<_, (Tally, usize)> = BTreeMap::new();
        for ((api, version), tally) in &self.0 {
            let (sum, versions) = apis.entry(*api).or_default();
            sum.add(tally);
            *versions += usize::from(*version != i16::MAX);
        }
        apis
    }

    /// Versions of APIs that the node serves and nobody has tried, in a run that was long enough.
    pub fn untried(&self) -> Vec<String> {
        if self.total().frames < ALL_FRAMES {
            return Vec::new();
        }
        let mut untried = Vec::new();
        for api in ApiKey::ALL {
            for version in api.advertised() {
                let tally = self.0.get(&(Some(*api), version)).cloned();
                let tally = tally.unwrap_or_default();
                if tally.frames == 0 || (api.served().contains(&version) && tally.answered == 0) {
                    let Tally {
                        frames, answered, ..
                    } = tally;
                    untried.push(format!(
                        "{api:?} {version}: {frames} frames thrown, {answered} answered"
                    ));
                }
            }
        }
        untried
    }
}

/// What a run found.
#[derive(Debug)]
pub struct Report {
    pub seed: u64,
    pub elapsed: Duration,
    pub tallies: Tallies,
    pub exchanges: u64,
    pub signed_in: u64,
    pub healthy_trips: u64,
    pub healthy_slowest_ms: u64,
    pub healthy_most_cpu_ms: u64,
    /// The most memory of many connections at once, and what was allowed them then.
    pub crowd_peak: (usize, usize),
    pub peak: usize,
    pub state: String,
    pub broken: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:32} {:>10} {:>8} {:>10} {:>10} {:>8} {:>12} {:>13}",
            "API",
            "frames",
            "versions",
            "answered",
            "ended",
            "left",
            "answer max B",
            "alone max KiB"
        )?;
        for (api, (tally, versions)) in self.tallies.by_api() {
            let name = api.map_or("(none)", ApiKey::name);
            writeln!(
                f,
                "{name:32} {:>10} {versions:>8} {:>10} {:>10} {:>8} {:>12} {:>13}",
                tally.frames,
                tally.answered,
                tally.ended,
                tally.left,
                tally.answer_bytes_max,
                tally.peak_max >> 10
            )?;
        }
        let total = self.tallies.total();
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "seed {}: {} frames ({} MiB) in {seconds:.1} s, {:.0}/s: {} answered, {} ended their connection, \
             {} left waiting",
            self.seed,
            total.frames,
            total.bytes >> 20,
            total.frames as f64 / seconds,
            total.answered,
            total.ended,
            total.left
        )?;
        writeln!(
            f,
            "{} exchanges of strangers, {} connections signed in; {}",
            self.exchanges, self.signed_in, self.state
        )?;
        let (crowd, allowed) = self.crowd_peak;
        writeln!(
            f,
            "memory: many connections took {} MiB at most, {} were allowed then; the node never \
             had more than {} MiB",
            crowd >> 20,
            allowed >> 20,
            self.peak >> 20
        )?;
        writeln!(
            f,
            "the client beside them: {} round trips, the slowest {} ms, the most processor time in one {} ms",
            self.healthy_trips, self.healthy_slowest_ms, self.healthy_most_cpu_ms
        )?;
        for broken in &self.broken {
            writeln!(f, "BROKEN: {broken}")?;
        }
        Ok(())
    }
}

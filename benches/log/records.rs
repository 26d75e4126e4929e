//! Small records of many callers: the log beside the same bytes in a bare loop, and beside a group
//! commit that does nothing but write, sync and wake.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use holdfast_storage::log::{Appending, Log, LogOptions, Record};

use super::bare::GroupCommit;
use super::{ROUNDS, SEGMENT_BYTES, fresh, median, noise, ratio, topic};

const CALLERS: usize = 64;
const IN_FLIGHT: usize = 64;
const RECORD_BYTES: usize = 200;
const RECORDS_PER_CALLER: usize = 16_384;

pub fn run(dir: &Path) {
    let mut sides: [Side; 4] = Default::default();
    for _ in 0..ROUNDS {
        let [bare, woken, many, one] = &mut sides;
        fresh(dir);
        bare.add(bare_loop(dir));
        fresh(dir);
        woken.add(woken_callers(dir));
        for (side, per_call) in [(many, 64), (one, 1)] {
            fresh(dir);
            side.add(log_callers(dir, per_call));
        }
    }
    let total = CALLERS * RECORDS_PER_CALLER;
    println!(
        "\n{CALLERS} callers, {IN_FLIGHT} records of {RECORD_BYTES} B in flight each, {total} records, every call awaited"
    );
    let [bare, woken, many, one] = &sides;
    bare.print("bare write + fdatasync", "cycle");
    woken.print("bare group commit", "call");
    many.print("log, 64 records a call", "call");
    one.print("log, 1 record a call", "call");
    println!(
        "  log, 64 records a call / bare write + fdatasync {:.2} (bar 0.6)",
        ratio(&many.rates, &bare.rates)
    );
    println!(
        "  log, 1 record a call / bare group commit {:.2} (bar 0.75)",
        ratio(&one.rates, &woken.rates)
    );
}

struct Side {
    rates: Vec<f64>,
    fdatasyncs: u64,
    latency: Histogram<u64>,
}

impl Default for Side {
    fn default() -> Side {
        Side {
            rates: Vec::new(),
            fdatasyncs: 0,
            latency: Histogram::new(3).unwrap(),
        }
    }
}

impl Side {
    fn add(&mut self, (took, fdatasyncs, latency): (Duration, u64, Histogram<u64>)) {
        self.rates
            .push((CALLERS * RECORDS_PER_CALLER) as f64 / took.as_secs_f64());
        self.fdatasyncs = fdatasyncs;
        self.latency.add(latency).unwrap();
    }

    fn print(&self, name: &str, what: &str) {
        let rate = median(&mut self.rates.clone());
        let [p50, p99] = [0.5, 0.99].map(|q| self.latency.value_at_quantile(q));
        println!(
            "  {name:<24} {rate:>9.0} records/s  {:>5} fdatasyncs  {what} p50 {p50} us, p99 {p99} us",
            self.fdatasyncs
        );
    }
}

/// The same bytes, the same number in flight, nobody to tell.
fn bare_loop(dir: &Path) -> (Duration, u64, Histogram<u64>) {
    let mut latency = Histogram::new(3).unwrap();
    let payload = noise(CALLERS * IN_FLIGHT * RECORD_BYTES);
    let new_file = |id: usize| {
        let file = File::create(dir.join(format!("{id}.bare"))).unwrap();
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT_BYTES)
            .unwrap();
        file
    };
    let groups = RECORDS_PER_CALLER / IN_FLIGHT;
    let begun = Instant::now();
    let (mut file, mut files, mut position) = (new_file(0), 1, 0_u64);
    for _ in 0..groups {
        if position + payload.len() as u64 > SEGMENT_BYTES {
            file = new_file(files);
            (files, position) = (files + 1, 0);
        }
        let cycle = Instant::now();
        rustix::io::pwritev(&file, &[IoSlice::new(&payload)], position).unwrap();
        file.sync_data().unwrap();
        position += payload.len() as u64;
        latency.record(cycle.elapsed().as_micros() as u64).unwrap();
    }
    (begun.elapsed(), groups as u64, latency)
}

/// Single records through a bare group commit, every caller woken for every record.
fn woken_callers(dir: &Path) -> (Duration, u64, Histogram<u64>) {
    let commit = GroupCommit::start(dir);
    let runtime = two_threads();
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (submitter, payload) = (commit.submitter(), Bytes::from(noise(RECORD_BYTES)));
            runtime.spawn(async move {
                let mut window = VecDeque::with_capacity(IN_FLIGHT);
                let mut latency = Histogram::<u64>::new(3).unwrap();
                for _ in 0..RECORDS_PER_CALLER {
                    if window.len() == IN_FLIGHT
                        && let Some((at, durable)) = window.pop_front()
                    {
                        let (at, durable): (Instant, tokio::sync::oneshot::Receiver<()>) =
                            (at, durable);
                        durable.await.unwrap();
                        latency.record(at.elapsed().as_micros() as u64).unwrap();
                    }
                    window.push_back((Instant::now(), submitter.submit(payload.clone())));
                }
                for (_, durable) in window {
                    durable.await.unwrap();
                }
                latency
            })
        })
        .collect();
    let mut latency = Histogram::new(3).unwrap();
    for caller in callers {
        latency.add(runtime.block_on(caller).unwrap()).unwrap();
    }
    let took = begun.elapsed();
    (took, commit.end(), latency)
}

fn two_threads() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

fn log_callers(dir: &Path, per_call: usize) -> (Duration, u64, Histogram<u64>) {
    let log = Log::open(LogOptions::new(dir)).unwrap();
    let runtime = two_threads();
    let topic = topic(&runtime, &log, "t", 1);
    let before = log.stats().fdatasyncs;
    let begun = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (log, partition) = (log.clone(), topic.partitions()[0].clone());
            let record = Record {
                value: Some(Bytes::from(noise(RECORD_BYTES))),
                ..Record::default()
            };
            let records = vec![record; per_call];
            runtime.spawn(async move {
                let mut window: VecDeque<(Instant, Appending)> =
                    VecDeque::with_capacity(IN_FLIGHT / per_call);
                let mut latency = Histogram::<u64>::new(3).unwrap();
                for _ in 0..RECORDS_PER_CALLER / per_call {
                    if window.len() == IN_FLIGHT / per_call {
                        let (at, appending) = window.pop_front().unwrap();
                        appending.await.unwrap();
                        latency.record(at.elapsed().as_micros() as u64).unwrap();
                    }
                    window.push_back((
                        Instant::now(),
                        log.append(&partition, &records).await.unwrap(),
                    ));
                }
                for (_, appending) in window {
                    appending.await.unwrap();
                }
                latency
            })
        })
        .collect();
    let mut latency = Histogram::new(3).unwrap();
    for caller in callers {
        latency.add(runtime.block_on(caller).unwrap()).unwrap();
    }
    let took = begun.elapsed();
    let fdatasyncs = log.stats().fdatasyncs - before;
    log.close();
    (took, fdatasyncs, latency)
}

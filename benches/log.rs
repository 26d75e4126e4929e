//! The log against the disk underneath it, in one run: `cargo bench --bench log`.
//!
//! 1. 16 KB batches over 8 partitions, one fdatasync per 1 MB, against a raw sequential append with the
//!    same framing, checksums, preallocation and fdatasyncs.
//! 2. 64 callers with 64 records of 200 B in flight each, every record acknowledged on its own,
//!    against a bare loop that writes the same bytes and calls fdatasync.
//!
//! A and B run in turn; medians and ratios are printed. `-- batches` or `-- records` runs one part. `HOLDFAST_BENCH_DIR` chooses the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use holdfast_storage::log::batch::{BatchBuilder, EncodedRecords};
use holdfast_storage::log::{Appending, Log, LogOptions, NewTopic, Offset, Record};

const ROUNDS: usize = 5;
const SEGMENT_BYTES: u64 = 64 << 20;

fn main() {
    // `cargo bench` hands the harness's own flags over.
    let dir = std::env::var_os("HOLDFAST_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("holdfast-bench-{}", std::process::id()));
    machine(&dir);
    let asked = |part: &str| {
        let mut parts = std::env::args()
            .skip(1)
            .filter(|arg| !arg.starts_with('-'))
            .peekable();
        parts.peek().is_none() || parts.any(|arg| arg == part)
    };
    if asked("batches") {
        large_batches(&dir);
    }
    if asked("records") {
        small_records(&dir);
    }
    let _ = fs::remove_dir_all(&dir);
}

fn machine(dir: &Path) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "machine: {cores} cores, {}, Linux {}, files in {}",
        model.trim_matches([' ', '\t', ':']),
        kernel.trim(),
        dir.display()
    );
    println!(
        "command: cargo bench --bench log; durability: fsync (acknowledged after fdatasync) on both sides; A and B in turn, {ROUNDS} rounds, medians"
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn fresh(dir: &Path) {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).unwrap();
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

// 1 ------------------------------------------------------------------------------------------------

const BATCH_BYTES: usize = 16 << 10;
const BATCHES_PER_GROUP: usize = 64;
const PARTITIONS: u32 = 8;
const GROUPS: usize = 1024;

fn large_batches(dir: &Path) {
    let batch = batch_of(BATCH_BYTES);
    let (mut raw, mut log, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let (mut raw_syncs, mut log_syncs) = (0, 0);
    for _ in 0..ROUNDS {
        fresh(dir);
        let took = raw_append(dir, &batch);
        raw.push(megabytes(batch.len()) / took.as_secs_f64());
        raw_syncs = GROUPS;
        fresh(dir);
        let (took, stats) = log_append(dir, &batch);
        log.push(megabytes(batch.len()) / took.as_secs_f64());
        written.push(stats.written_bytes as f64 / stats.payload_bytes as f64);
        log_syncs = stats.fdatasyncs;
    }
    let mut ratios: Vec<f64> = log.iter().zip(&raw).map(|(a, b)| a / b).collect();
    println!("\n16 KB batches, {PARTITIONS} partitions, {GROUPS} MB, one fdatasync per 1 MB");
    println!(
        "  raw append       {:8.0} MB/s   {raw_syncs} fdatasyncs",
        median(&mut raw)
    );
    println!(
        "  log              {:8.0} MB/s   {log_syncs} fdatasyncs",
        median(&mut log)
    );
    println!(
        "  log / raw        {:8.2}        bar 0.85",
        median(&mut ratios)
    );
    println!(
        "  written / payload{:8.3}        bar 1.1",
        median(&mut written)
    );
}

fn megabytes(batch: usize) -> f64 {
    (batch * BATCHES_PER_GROUP * GROUPS) as f64 / 1e6
}

fn batch_of(bytes: usize) -> Bytes {
    let mut encoded = EncodedRecords::default();
    encoded.push(&Record {
        value: Some(Bytes::from(noise(bytes - 80))),
        ..Record::default()
    });
    let mut builder = BatchBuilder::new(0, encoded.bytes());
    encoded
        .iter()
        .for_each(|(timestamp, body)| builder.push(timestamp, body));
    builder.finish(Offset::ZERO, 0).0
}

/// Group header, 8 entry headers with a checksum over their 8 batches each, one vectored write, one fdatasync.
fn raw_append(dir: &Path, batch: &Bytes) -> Duration {
    let (ask, asks) = mpsc::sync_channel::<u64>(1);
    let (give, given) = mpsc::sync_channel::<File>(1);
    let folder = dir.to_path_buf();
    let preallocate = std::thread::spawn(move || {
        for id in asks {
            let file = File::create(folder.join(format!("{id}.raw"))).unwrap();
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, SEGMENT_BYTES)
                .unwrap();
            File::open(&folder).unwrap().sync_all().unwrap();
            if give.send(file).is_err() {
                break;
            }
        }
    });
    ask.send(0).unwrap();
    let begun = Instant::now();
    let mut file = given.recv().unwrap();
    ask.send(1).unwrap();
    let (mut id, mut position) = (1, 64_u64);
    let per_run = BATCHES_PER_GROUP / PARTITIONS as usize;
    for group in 0..GROUPS as u64 {
        let group_bytes = 48 + 8 * 16 + (BATCHES_PER_GROUP * batch.len()) as u64;
        if position + group_bytes > SEGMENT_BYTES {
            file = given.recv().unwrap();
            id += 1;
            ask.send(id).unwrap();
            position = 64;
        }
        let mut headers = vec![[0_u8; 16]; PARTITIONS as usize];
        for header in &mut headers {
            let mut crc = crc32c::crc32c(&group.to_le_bytes());
            for _ in 0..per_run {
                crc = crc32c::crc32c_append(crc, batch);
            }
            header[..4].copy_from_slice(&crc.to_le_bytes());
        }
        let group_header = [1_u8; 48];
        let prefixes = vec![[0_u8; 16]; BATCHES_PER_GROUP];
        let mut slices = vec![IoSlice::new(&group_header)];
        for (run, header) in headers.iter().enumerate() {
            slices.push(IoSlice::new(header));
            for prefix in &prefixes[run * per_run..(run + 1) * per_run] {
                slices.push(IoSlice::new(prefix));
                slices.push(IoSlice::new(&batch[16..]));
            }
        }
        let written = rustix::io::pwritev(&file, &slices, position).unwrap();
        assert_eq!(written as u64, group_bytes);
        file.sync_data().unwrap();
        position += group_bytes;
    }
    let took = begun.elapsed();
    drop(ask);
    drop(given);
    preallocate.join().unwrap();
    took
}

fn log_append(dir: &Path, batch: &Bytes) -> (Duration, holdfast_storage::log::LogStats) {
    // The raw side syncs once per 1 MB, so a group takes no more here either.
    let options = LogOptions {
        group_bytes_max: batch.len() * BATCHES_PER_GROUP,
        ..LogOptions::new(dir)
    };
    let log = Log::open(options).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let topic = runtime
        .block_on(log.create_topic(NewTopic {
            name: "t".into(),
            partitions: PARTITIONS,
            configs: Vec::new(),
        }))
        .unwrap();
    let before = log.stats();
    let begun = Instant::now();
    runtime.block_on(async {
        let mut window = VecDeque::new();
        for group in 0..GROUPS {
            for i in 0..BATCHES_PER_GROUP {
                let partition = &topic.partitions()[i % PARTITIONS as usize];
                window.push_back(log.append_batch(partition, batch.clone()).await.unwrap());
            }
            // One group is being made durable while the next one gathers.
            if group > 0 {
                for _ in 0..BATCHES_PER_GROUP {
                    window.pop_front().unwrap().await.unwrap();
                }
            }
        }
        for appending in window {
            appending.await.unwrap();
        }
    });
    let took = begun.elapsed();
    let mut stats = log.stats();
    stats.fdatasyncs -= before.fdatasyncs;
    stats.written_bytes -= before.written_bytes;
    stats.payload_bytes -= before.payload_bytes;
    log.close();
    (took, stats)
}

// 2 ------------------------------------------------------------------------------------------------

const CALLERS: usize = 64;
const IN_FLIGHT: usize = 64;
const RECORD_BYTES: usize = 200;
const RECORDS_PER_CALLER: usize = 16_384;

fn small_records(dir: &Path) {
    let (mut bare, mut calls) = (Side::default(), [Side::default(), Side::default()]);
    for _ in 0..ROUNDS {
        fresh(dir);
        bare.add(bare_loop(dir));
        for (side, per_call) in calls.iter_mut().zip(PER_CALL) {
            fresh(dir);
            side.add(log_callers(dir, per_call));
        }
    }
    let total = CALLERS * RECORDS_PER_CALLER;
    println!(
        "\n{CALLERS} callers, {IN_FLIGHT} records of {RECORD_BYTES} B in flight each, {total} records, every call awaited"
    );
    bare.print("bare write + fdatasync", "cycle");
    for (side, (per_call, bar)) in calls
        .iter_mut()
        .zip(PER_CALL.into_iter().zip(["bar 0.6", "no bar"]))
    {
        side.print(&format!("log, {per_call} records a call"), "call");
        let mut ratios: Vec<f64> = side
            .rates
            .iter()
            .zip(&bare.rates)
            .map(|(a, b)| a / b)
            .collect();
        println!("    log / bare {:.2} ({bar})", median(&mut ratios));
    }
}

/// Records handed in with one call: as a door does with what one read brought, and one by one.
const PER_CALL: [usize; 2] = [64, 1];

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

fn log_callers(dir: &Path, per_call: usize) -> (Duration, u64, Histogram<u64>) {
    let log = Log::open(LogOptions::new(dir)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let topic = runtime
        .block_on(log.create_topic(NewTopic {
            name: "t".into(),
            partitions: 1,
            configs: Vec::new(),
        }))
        .unwrap();
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

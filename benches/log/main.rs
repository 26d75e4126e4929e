//! The log against the disk underneath it, in one run: `cargo bench --bench log`.
//!
//! | part | the log | beside it |
//! |---|---|---|
//! | `batches` | 16 KB batches over 8 and over 1,000 partitions, one fdatasync per 1 MB | a raw append with the same framing, checksums, preallocation and fdatasyncs |
//! | `records` | 64 callers, 64 records of 200 B in flight each | a bare loop of write + fdatasync; a bare group commit that wakes every caller |
//! | `latency` | one caller, and 64 callers, one record in flight each | write + fdatasync; a bare group commit of 64 threads |
//! | `fetch` | one partition from its beginning, warm and cold, among 8 and among 1,000 | pread of the same places; a contiguous cold read |
//! | `seek` | by offset and by time among 10 million batches of 300 B | |
//! | `cleaner` | appends while segments of which half is live are emptied | the same appends alone |
//! | `partitions` | opening a log of 2,000 topics with 10,000 partitions | |
//!
//! A and B run in turn; medians and ratios are printed. Names of parts choose among them.
//! `HOLDFAST_BENCH_DIR` chooses the disk, `HOLDFAST_BENCH_SHORT=1` runs a fraction of everything.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bare;
mod batches;
mod cleaner;
mod fetch;
mod latency;
mod partitions;
mod records;
mod seek;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::log::batch::{BatchBuilder, EncodedRecords};
use holdfast_storage::log::{Log, NewTopic, Offset, Record, Topic};
use tokio::runtime::Runtime;

const ROUNDS: usize = 5;
const SEGMENT_BYTES: u64 = 64 << 20;

type PartRun = fn(&Path);

const PARTS: [(&str, PartRun); 7] = [
    ("batches", batches::run),
    ("records", records::run),
    ("latency", latency::run),
    ("fetch", fetch::run),
    ("seek", seek::run),
    ("cleaner", cleaner::run),
    ("partitions", partitions::run),
];

fn main() {
    // `cargo bench` hands the harness's own flags over.
    let mut asked: Vec<String> = std::env::args().skip(1).collect();
    asked.retain(|arg| !arg.starts_with('-'));
    if let [part, dir] = asked.as_slice()
        && part == partitions::CHILD
    {
        return partitions::open_once(Path::new(dir));
    }
    let dir = std::env::var_os("HOLDFAST_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = dir.join(format!("holdfast-bench-{}", std::process::id()));
    machine(&dir);
    for (name, run) in PARTS {
        if asked.is_empty() || asked.iter().any(|part| part == name) {
            run(&dir);
        }
    }
    let _ = fs::remove_dir_all(&dir);
}

/// A fraction of it, to try the bench itself.
fn short(n: usize) -> usize {
    match std::env::var_os("HOLDFAST_BENCH_SHORT") {
        Some(_) => (n / 16).max(1),
        None => n,
    }
}

fn topic(runtime: &Runtime, log: &Log, name: &str, partitions: u32) -> Arc<Topic> {
    let new = NewTopic {
        name: name.into(),
        partitions,
        configs: Vec::new(),
    };
    runtime.block_on(log.create_topic(new)).unwrap()
}

fn single() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

fn ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    median(&mut ratios)
}

/// Bytes that this process has caused to be written.
fn bytes_written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.and_then(|n| n.parse().ok()).unwrap_or(0)
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

//! Reading one partition from its beginning: beside pread of the same places, and from a cold disk
//! beside a contiguous read.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use holdfast_storage::log::{Isolation, Log, LogOptions, Offset, Topic};
use holdfast_wal::disk::RealDisk;
use holdfast_wal::{Segment, SegmentId};

use super::{batch_of, fresh, median, ratio, short, single, topic};

const BATCH_BYTES: usize = 16 << 10;
const FETCH_BYTES: usize = 1 << 20;
const ROUNDS: usize = 5;

pub fn run(dir: &Path) {
    for partitions in [8, 1000] {
        fresh(dir);
        let batches = short(64 << 10);
        let (log, topic) = filled(dir, partitions, batches);
        let places = places_of(dir, &log, &topic);
        let bytes: usize = places.iter().map(|(_, _, bytes)| *bytes as usize).sum();
        let megabytes = bytes as f64 / 1e6;
        println!(
            "\nfetch of one partition among {partitions}, {megabytes:.0} MB in {} places, answers of {FETCH_BYTES} bytes",
            places.len()
        );
        let (mut ours, mut theirs, mut cold, mut contiguous) = Default::default();
        for _ in 0..ROUNDS {
            read(&log, &topic);
            time(&mut theirs, megabytes, || pread(dir, &places));
            time(&mut ours, megabytes, || read(&log, &topic));
            forget(dir);
            time(&mut cold, megabytes, || read(&log, &topic));
            forget(dir);
            time(&mut contiguous, megabytes, || read_on(dir, bytes));
        }
        let line = |what: &str, rates: &Vec<f64>| {
            println!("  {what:<24} {:8.0} MB/s", median(&mut rates.clone()));
        };
        line("pread, warm", &theirs);
        line("log, warm", &ours);
        line("contiguous read, cold", &contiguous);
        line("log, cold", &cold);
        let bars = if partitions == 8 {
            ["bar 0.9", "bar 0.5"]
        } else {
            ["no bar", "no bar"]
        };
        println!(
            "  log / pread, warm        {:8.2}        {}",
            ratio(&ours, &theirs),
            bars[0]
        );
        println!(
            "  log / contiguous, cold   {:8.2}        {}",
            ratio(&cold, &contiguous),
            bars[1]
        );
        log.close();
    }
}

fn time(rates: &mut Vec<f64>, megabytes: f64, read: impl FnOnce() -> usize) {
    let begun = Instant::now();
    let bytes = read();
    assert!(
        bytes as f64 >= megabytes * 1e6 * 0.99,
        "{bytes} bytes were read"
    );
    rates.push(megabytes / begun.elapsed().as_secs_f64());
}

fn filled(dir: &Path, partitions: usize, batches: usize) -> (Log, std::sync::Arc<Topic>) {
    let batch = batch_of(BATCH_BYTES);
    let log = Log::open(LogOptions {
        group_bytes_max: 1 << 20,
        ..LogOptions::new(dir)
    })
    .unwrap();
    let runtime = single();
    let topic = topic(&runtime, &log, "t", u32::try_from(partitions).unwrap());
    runtime.block_on(async {
        let mut window = VecDeque::new();
        for n in 0..batches {
            if window.len() == 128 {
                let appending: holdfast_storage::log::Appending = window.pop_front().unwrap();
                appending.await.unwrap();
            }
            let partition = &topic.partitions()[n % partitions];
            window.push_back(log.append_batch(partition, batch.clone()).await.unwrap());
        }
        for appending in window {
            appending.await.unwrap();
        }
    });
    while log.stats().unsealed > 0 {
        std::thread::yield_now();
    }
    (log, topic)
}

fn read(log: &Log, topic: &Topic) -> usize {
    let partition = &topic.partitions()[0];
    let (mut next, mut bytes) = (Offset::ZERO, 0);
    while next < partition.high_watermark() {
        let fetched = log
            .fetch(partition, next, FETCH_BYTES, Isolation::Uncommitted)
            .unwrap();
        bytes += fetched.bytes();
        // One record a batch, all of one size.
        let batches = fetched.bytes() / fetched_batch_bytes();
        next = next.plus(u32::try_from(batches).unwrap());
    }
    bytes
}

fn fetched_batch_bytes() -> usize {
    static BYTES: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *BYTES.get_or_init(|| batch_of(BATCH_BYTES).len())
}

type Place = (SegmentId, u32, u32);

/// Where the partition's runs of batches lie, as the segments say.
fn places_of(dir: &Path, log: &Log, topic: &Topic) -> Vec<Place> {
    let disk = RealDisk::open(dir.join("segments")).unwrap();
    let wanted: usize = read(log, topic);
    let mut names: Vec<String> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    // The partition with the smallest number among those with most bytes: topics come in order.
    let mut by_stream: std::collections::BTreeMap<u64, Vec<Place>> = Default::default();
    for id in names
        .iter()
        .filter_map(|name| SegmentId::from_file_name(name))
    {
        let Some(segment) = Segment::open(&disk, id).unwrap() else {
            continue;
        };
        let scan = segment
            .scan(segment.trailer().unwrap().map(|t| t.groups_end))
            .unwrap();
        for entry in scan.groups.iter().flat_map(|group| &group.entries) {
            let places = by_stream.entry(entry.stream).or_default();
            places.push((id, entry.payload_position, entry.payload_bytes));
        }
    }
    let total = |places: &[Place]| places.iter().map(|(_, _, b)| *b as usize).sum::<usize>();
    by_stream
        .into_values()
        .find(|places| total(places) == wanted)
        .unwrap()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

fn pread(dir: &Path, places: &[Place]) -> usize {
    let mut open: Option<(SegmentId, File)> = None;
    let mut bytes = 0;
    for (id, position, length) in places {
        if open.as_ref().is_none_or(|(known, _)| known != id) {
            let path = dir.join("segments").join(id.file_name());
            open = Some((*id, File::open(path).unwrap()));
        }
        let (_, file) = open.as_ref().unwrap();
        let mut buffer = vec![0; *length as usize];
        file.read_exact_at(&mut buffer, u64::from(*position))
            .unwrap();
        bytes += std::hint::black_box(buffer).len();
    }
    bytes
}

/// As many bytes, one behind the other.
fn read_on(dir: &Path, mut wanted: usize) -> usize {
    let mut bytes = 0;
    let mut buffer = vec![0; FETCH_BYTES];
    for path in files(dir) {
        let file = File::open(path).unwrap();
        let mut position = 0;
        while wanted > 0 {
            let read = file.read_at(&mut buffer, position).unwrap();
            if read == 0 {
                break;
            }
            position += read as u64;
            bytes += read;
            wanted = wanted.saturating_sub(read);
        }
    }
    bytes
}

/// Out of the page cache.
fn forget(dir: &Path) {
    for path in files(dir) {
        let file = File::open(path).unwrap();
        file.sync_data().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

//! Finding one batch among ten million.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_storage::log::batch::{BatchBuilder, EncodedRecords};
use holdfast_storage::log::{Isolation, Log, LogOptions, Offset, Record};
use holdfast_wal::disk::sim::Random;

use super::{fresh, noise, short, single, topic};

const BATCHES: usize = 10_000_000;
const BATCH_BYTES: usize = 300;
const PARTITIONS: usize = 8;
const TIME: Duration = Duration::from_secs(5);

pub fn run(dir: &Path) {
    fresh(dir);
    let batches = short(BATCHES);
    let log = Log::open(LogOptions::new(dir)).unwrap();
    let runtime = single();
    let topic = topic(&runtime, &log, "t", PARTITIONS as u32);
    let value = Bytes::from(noise(BATCH_BYTES - 80));
    let begun = Instant::now();
    runtime.block_on(async {
        let mut window = VecDeque::new();
        for n in 0..batches {
            if window.len() == 8192 {
                let appending: holdfast_storage::log::Appending = window.pop_front().unwrap();
                appending.await.unwrap();
            }
            let partition = &topic.partitions()[n % PARTITIONS];
            let batch = batch(n as i64, &value);
            window.push_back(log.append_batch(partition, batch).await.unwrap());
        }
        for appending in window {
            appending.await.unwrap();
        }
    });
    let filled = begun.elapsed();
    while log.stats().unsealed > 0 {
        std::thread::yield_now();
    }
    let per_partition = (batches / PARTITIONS) as u64;
    println!(
        "\nseek among {batches} batches of {BATCH_BYTES} B in {PARTITIONS} partitions and {} segments (appended in {:.0} s), two threads, warm",
        log.stats().segments,
        filled.as_secs_f64()
    );
    let by_offset = rate(|random| {
        let partition = &topic.partitions()[random.below(PARTITIONS as u64) as usize];
        let at = Offset::new(random.below(per_partition) as i64).unwrap();
        assert!(
            log.fetch(partition, at, 1, Isolation::Uncommitted)
                .unwrap()
                .bytes()
                > 0
        );
    });
    println!("  by offset, its batch read  {by_offset:9.0}/s   bar 100000");
    let by_time = rate(|random| {
        let which = random.below(PARTITIONS as u64);
        let at = random.below(per_partition);
        let time = (at * PARTITIONS as u64 + which) as i64;
        let found = log
            .offset_for_time(&topic.partitions()[which as usize], time)
            .unwrap();
        assert_eq!(found.unwrap().0.value(), at as i64);
    });
    println!("  by time                    {by_time:9.0}/s   bar 100000");
    log.close();
}

fn rate(seek: impl Fn(&mut Random) + Sync) -> f64 {
    // The first second fills the caches.
    let counts: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2)
            .map(|seed| {
                let seek = &seek;
                scope.spawn(move || {
                    let mut random = Random::new(seed);
                    let warm = Instant::now();
                    while warm.elapsed() < TIME / 2 {
                        seek(&mut random);
                    }
                    let (begun, mut count) = (Instant::now(), 0);
                    while begun.elapsed() < TIME {
                        seek(&mut random);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    counts as f64 / TIME.as_secs_f64()
}

fn batch(timestamp_ms: i64, value: &Bytes) -> Bytes {
    let mut encoded = EncodedRecords::default();
    encoded.push(&Record {
        timestamp_ms,
        value: Some(value.clone()),
        ..Record::default()
    });
    let mut builder = BatchBuilder::new(timestamp_ms, encoded.bytes());
    encoded
        .iter()
        .for_each(|(timestamp, body)| builder.push(timestamp, body));
    builder.finish(Offset::ZERO, 0).0
}

//! Appends while the cleaner empties segments of which half is live: as fast as it frees what they take.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_storage::log::{Log, LogOptions, Partition};

use super::{SEGMENT_BYTES, batch_of, fresh, median, ratio, short, single, topic};

const BATCH_BYTES: usize = 16 << 10;
/// Of each kind, before it begins; half of it can be freed.
const FILLED_MB: usize = 3072;
const APPENDED_MB: usize = 2048;
const ROUNDS: usize = 3;
/// Segments that are written before those they come from are removed, and the head.
const SLACK_BYTES: u64 = 6 * SEGMENT_BYTES;

pub fn run(dir: &Path) {
    let (mut alone, mut beside, mut freed) = (Vec::new(), Vec::new(), Vec::new());
    let (filled, appended) = (short(FILLED_MB), short(APPENDED_MB));
    for _ in 0..ROUNDS {
        for cleaning in [false, true] {
            fresh(dir);
            let (rate, gave_back) = round(dir, filled, appended, cleaning);
            if cleaning {
                beside.push(rate);
                freed.push(gave_back);
            } else {
                alone.push(rate);
            }
        }
    }
    println!(
        "\nappends of 16 KB batches, {appended} MB, while half of {} MB is freed and the other half copied",
        2 * filled
    );
    println!("  alone            {:8.0} MB/s", median(&mut alone.clone()));
    println!(
        "  with the cleaner {:8.0} MB/s",
        median(&mut beside.clone())
    );
    println!(
        "  ratio            {:8.2}        bar 0.4",
        ratio(&beside, &alone)
    );
    println!("  freed / appended {:8.2}        bar 1", median(&mut freed));
}

fn round(dir: &Path, filled: usize, appended: usize, cleaning: bool) -> (f64, f64) {
    let log = Log::open(LogOptions {
        group_bytes_max: 1 << 20,
        // Rounds come when they are asked for.
        cleaner_interval: Duration::from_secs(3600),
        // As much as the machine gives.
        cleaner_bytes_per_second: u64::MAX,
        ..LogOptions::new(dir)
    })
    .unwrap();
    let runtime = single();
    let [kept, gone, new] = ["kept", "gone", "new"].map(|name| topic(&runtime, &log, name, 4));
    let batches = filled * (1 << 20) / BATCH_BYTES;
    runtime.block_on(append(
        &log,
        &[kept.partitions(), gone.partitions()].concat(),
        2 * batches,
        u64::MAX,
    ));
    while log.stats().unsealed > 0 {
        std::thread::yield_now();
    }
    if cleaning {
        runtime.block_on(log.delete_topic(gone.id())).unwrap();
    }
    let used = log.stats().disk_used_bytes;
    let stop = Arc::new(AtomicBool::new(!cleaning));
    let rounds = std::thread::spawn({
        let (log, stop) = (log.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                log.clean();
            }
        }
    });
    let batches = appended * (1 << 20) / BATCH_BYTES;
    let begun = Instant::now();
    // The disk's use stays where it was, but for what the cleaner needs to work with.
    let most = if cleaning {
        used + SLACK_BYTES
    } else {
        u64::MAX
    };
    runtime.block_on(append(&log, new.partitions(), batches, most));
    // Until as much was freed as was appended.
    while cleaning && log.stats().disk_used_bytes > used {
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let now = log.stats().disk_used_bytes;
    stop.store(true, Ordering::Relaxed);
    log.close();
    rounds.join().unwrap();
    let bytes = (appended << 20) as f64;
    // What is used now would be so much more if nothing had been freed.
    let freed = (used as f64 + bytes - now as f64) / bytes;
    (bytes / 1e6 / took.as_secs_f64(), freed)
}

/// Waits while the segments take more than `most`.
async fn append(log: &Log, partitions: &[Arc<Partition>], batches: usize, most: u64) {
    let batch = batch_of(BATCH_BYTES);
    let mut window = VecDeque::new();
    for n in 0..batches {
        if window.len() == 128 {
            let appending: holdfast_storage::log::Appending = window.pop_front().unwrap();
            appending.await.unwrap();
        }
        if n % 256 == 0 && most < u64::MAX {
            while log.stats().disk_used_bytes > most {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        let partition = &partitions[n % partitions.len()];
        window.push_back(log.append_batch(partition, batch.clone()).await.unwrap());
    }
    for appending in window {
        appending.await.unwrap();
    }
}

//! How long one record takes: alone, and in a crowd that waits for every record.

use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use hdrhistogram::Histogram;
use holdfast_storage::log::{Log, LogOptions, Record};

use super::bare::GroupCommit;
use super::{fresh, noise, short, topic};

const RECORD_BYTES: usize = 200;
const ROUNDS: usize = 4;

pub fn run(dir: &Path) {
    for (callers, records) in [(1, 4_000), (64, 500)] {
        let records = short(records);
        let (mut bare, mut log) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            fresh(dir);
            bare.push(bare_side(dir, callers, records));
            fresh(dir);
            log.push(log_side(dir, callers, records));
        }
        let name = if callers == 1 {
            "write + fdatasync"
        } else {
            "bare group commit"
        };
        println!(
            "\n{callers} caller(s), one record of {RECORD_BYTES} B in flight each, {records} records each, {ROUNDS} rounds"
        );
        let quantile = |rounds: &[Histogram<u64>], q: f64| {
            let mut values: Vec<f64> = rounds
                .iter()
                .map(|h| h.value_at_quantile(q) as f64)
                .collect();
            super::median(&mut values)
        };
        for (side, rounds) in [(name, &bare), ("log", &log)] {
            println!(
                "  {side:<20} p50 {:6.0} us   p99 {:6.0} us",
                quantile(rounds, 0.5),
                quantile(rounds, 0.99)
            );
        }
        println!(
            "  log / {name}: p50 {:.2} (bar 1.2), p99 {:.2} (bar 1.5)",
            quantile(&log, 0.5) / quantile(&bare, 0.5),
            quantile(&log, 0.99) / quantile(&bare, 0.99)
        );
    }
}

/// Threads that wait, as the callers of the bare side are: no runtime is measured.
fn callers<T: Send>(
    callers: usize,
    records: usize,
    call: impl Fn(usize) -> T + Sync,
) -> Histogram<u64> {
    let mut all = Histogram::new(3).unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|caller| {
                let call = &call;
                scope.spawn(move || {
                    let mut latency = Histogram::<u64>::new(3).unwrap();
                    for _ in 0..records {
                        let at = Instant::now();
                        call(caller);
                        latency.record(at.elapsed().as_micros() as u64).unwrap();
                    }
                    latency
                })
            })
            .collect();
        for thread in threads {
            all.add(thread.join().unwrap()).unwrap();
        }
    });
    all
}

fn bare_side(dir: &Path, count: usize, records: usize) -> Histogram<u64> {
    let payload = Bytes::from(noise(RECORD_BYTES));
    if count == 1 {
        let file = std::fs::File::create(dir.join("0.bare")).unwrap();
        rustix::fs::fallocate(
            &file,
            rustix::fs::FallocateFlags::empty(),
            0,
            super::SEGMENT_BYTES,
        )
        .unwrap();
        let position = std::sync::atomic::AtomicU64::new(0);
        return callers(1, records, |_| {
            let at = position.fetch_add(payload.len() as u64, std::sync::atomic::Ordering::Relaxed);
            rustix::io::pwrite(&file, &payload, at).unwrap();
            file.sync_data().unwrap();
        });
    }
    let commit = GroupCommit::start(dir);
    let latency = callers(count, records, |_| {
        commit
            .submitter()
            .submit(payload.clone())
            .blocking_recv()
            .unwrap();
    });
    commit.end();
    latency
}

fn log_side(dir: &Path, count: usize, records: usize) -> Histogram<u64> {
    let log = Log::open(LogOptions::new(dir)).unwrap();
    let topic = topic(&super::single(), &log, "t", 8);
    let record = [Record {
        value: Some(Bytes::from(noise(RECORD_BYTES))),
        ..Record::default()
    }];
    callers(count, records, |caller| {
        let partition = &topic.partitions()[caller % 8];
        let call = async { log.append(partition, &record).await.unwrap().await.unwrap() };
        futures_executor::block_on(call);
    })
}

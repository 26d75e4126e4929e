//! Large batches: the log beside a raw sequential append.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast_storage::log::{Log, LogOptions};

use super::{SEGMENT_BYTES, batch_of, bytes_written, fresh, median, ratio, short, single, topic};

const BATCH_BYTES: usize = 16 << 10;
const BATCHES_PER_GROUP: usize = 64;
const GROUPS: usize = 4096;
const ROUNDS: usize = 4;

pub fn run(dir: &Path) {
    for (partitions, bar) in [(8, "bar 0.9"), (1000, "bar 0.75")] {
        let groups = short(GROUPS);
        let batch = batch_of(BATCH_BYTES);
        let megabytes = (batch.len() * BATCHES_PER_GROUP * groups) as f64 / 1e6;
        let (mut raw, mut log, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            fresh(dir);
            raw.push(megabytes / raw_append(dir, &batch, partitions, groups).as_secs_f64());
            fresh(dir);
            let before = bytes_written();
            log.push(megabytes / log_append(dir, &batch, partitions, groups).as_secs_f64());
            written.push((bytes_written() - before) as f64 / (megabytes * 1e6));
        }
        println!(
            "\n16 KB batches, {partitions} partitions, {megabytes:.0} MB a round, one fdatasync per 1 MB, to the sealed end"
        );
        println!("  raw append       {:8.0} MB/s", median(&mut raw.clone()));
        println!("  log              {:8.0} MB/s", median(&mut log.clone()));
        println!("  log / raw        {:8.2}        {bar}", ratio(&log, &raw));
        println!(
            "  written / payload{:8.3}        bar 1.05 (of the process, as the kernel counts)",
            median(&mut written)
        );
    }
}

/// Group header, an entry header with a checksum for each partition's run of batches, one vectored
/// write, one fdatasync.
fn raw_append(dir: &Path, batch: &Bytes, partitions: usize, groups: usize) -> Duration {
    let runs = partitions.min(BATCHES_PER_GROUP);
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
    let per_run = BATCHES_PER_GROUP / runs;
    for group in 0..groups as u64 {
        let group_bytes = 48 + 16 * runs as u64 + (BATCHES_PER_GROUP * batch.len()) as u64;
        if position + group_bytes > SEGMENT_BYTES {
            file = given.recv().unwrap();
            id += 1;
            ask.send(id).unwrap();
            position = 64;
        }
        let mut headers = vec![[0_u8; 16]; runs];
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

/// The same batches through the log, until its last segment is sealed.
fn log_append(dir: &Path, batch: &Bytes, partitions: usize, groups: usize) -> Duration {
    // The raw side syncs once per 1 MB, so a group takes no more here either.
    let options = LogOptions {
        group_bytes_max: batch.len() * BATCHES_PER_GROUP,
        ..LogOptions::new(dir)
    };
    let log = Log::open(options).unwrap();
    let runtime = single();
    let topic = topic(&runtime, &log, "t", u32::try_from(partitions).unwrap());
    let begun = Instant::now();
    runtime.block_on(async {
        let mut window = VecDeque::new();
        let mut next = 0;
        for group in 0..groups {
            for _ in 0..BATCHES_PER_GROUP {
                let partition = &topic.partitions()[next % partitions];
                next += 1;
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
    log.close();
    begun.elapsed()
}

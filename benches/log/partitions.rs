//! Ten thousand partitions: what they cost in memory, and how long the log takes to open.

use std::fs;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use holdfast_storage::log::{Log, LogOptions, NewTopic, Record};

use super::{fresh, short, single};

/// Argument of the process that opens the log and tells what it took.
pub const CHILD: &str = "open-partitions";

const TOPICS: usize = 2_000;
const PARTITIONS: u32 = 5;
const RECORDS: usize = 20;
const OPENINGS: usize = 5;

pub fn run(dir: &Path) {
    fresh(dir);
    let topics = short(TOPICS);
    let runtime = single();
    let log = Log::open(LogOptions::new(dir)).unwrap();
    runtime.block_on(async {
        for n in 0..topics {
            let new = NewTopic {
                name: format!("site.line-{n}.machine"),
                partitions: PARTITIONS,
                configs: Vec::new(),
            };
            log.create_topic(new).await.unwrap();
        }
        let record = Record {
            value: Some(Bytes::from(vec![b'x'; 200])),
            ..Record::default()
        };
        for _ in 0..RECORDS {
            let mut flying = Vec::new();
            for topic in log.topics() {
                for partition in topic.partitions() {
                    flying.push(
                        log.append(partition, std::slice::from_ref(&record))
                            .await
                            .unwrap(),
                    );
                }
            }
            for appending in flying {
                appending.await.unwrap();
            }
        }
    });
    log.close();
    drop(log);
    let program = std::env::current_exe().unwrap();
    let (mut seconds, mut megabytes) = (Vec::new(), Vec::new());
    for _ in 0..OPENINGS {
        let output = std::process::Command::new(&program)
            .args([CHILD])
            .arg(dir)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text.split_whitespace().map(|n| n.parse::<f64>().unwrap());
        seconds.push(numbers.next().unwrap());
        megabytes.push(numbers.next().unwrap());
    }
    let best = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min);
    println!(
        "\n{topics} topics with {PARTITIONS} partitions each, {RECORDS} records in each, best of {OPENINGS} openings"
    );
    println!("  open             {:8.3} s      bar 0.5", best(&seconds));
    println!("  resident         {:8.1} MB     bar 80", best(&megabytes));
}

pub fn open_once(dir: &Path) {
    let begun = Instant::now();
    let log = Log::open(LogOptions::new(dir)).unwrap();
    let took = begun.elapsed();
    // One round, so that everything that is counted in the background is there.
    log.clean();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap();
    println!("{} {}", took.as_secs_f64(), kilobytes / 1024.0);
}

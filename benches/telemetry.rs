//! How fast the telemetry pipeline catches up after downtime, and what that writes.
//!
//! `cargo bench --bench telemetry [-- RECORDS]`: fills `telemetry.raw` first, then times the
//! pipeline from its start until every record is judged, in `telemetry.cleaned` (fdatasync) and in
//! the store (SQLite WAL, synchronous=NORMAL). Bytes written are those that this process handed to
//! the kernel for the disk.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::time::{Duration, Instant};

use bytes::Bytes;
use holdfast::pipelines::event_log::{EmbeddedLog, EventLog, Produce};
use holdfast::pipelines::telemetry::{self, RAW_TOPIC, TelemetryConfig};
use holdfast_storage::log::{Header, Log, LogOptions, Record};
use holdfast_storage::telemetry::{
    CleanEvent, Commit, Position, TelemetryWriter, TimestampSource, WindowLimits,
};
use tokio_util::sync::CancellationToken;

const RECORDS: i64 = 500_000;
const DEVICES: i64 = 500;
const TIMEOUT: Duration = Duration::from_secs(600);
/// 2023-11-14T22:13:20Z
const FIRST_TS_MS: i64 = 1_700_000_000_000;

fn main() {
    let records = std::env::args()
        .filter_map(|argument| argument.parse().ok())
        .next()
        .unwrap_or(RECORDS);
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    println!("telemetry: {records} records of {DEVICES} devices, {threads} CPUs");
    store_alone(records);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(catch_up(records));
}

async fn catch_up(records: i64) {
    let dir = tempfile::TempDir::new().unwrap();
    let log = Log::open(LogOptions::new(dir.path().join("log"))).unwrap();
    let events = EmbeddedLog::new(log.clone());
    let config = TelemetryConfig::default();
    events
        .ensure_topic(RAW_TOPIC, config.partitions)
        .await
        .unwrap();
    let mut payload_bytes = 0;
    for first in (0..records).step_by(10_000) {
        let batch: Vec<Produce> = (first..records.min(first + 10_000))
            .map(|n| raw(&events, n))
            .collect();
        payload_bytes += batch
            .iter()
            .map(|produce| produce.record.value.as_ref().unwrap().len())
            .sum::<usize>();
        events.produce(batch).await.unwrap();
    }
    let (written, cpu, started) = (written_bytes(), cpu_seconds(), Instant::now());
    let cancel = CancellationToken::new();
    let handle = telemetry::start(&config, &dir.path().join("store"), events, cancel.clone())
        .await
        .unwrap();
    let wanted = u64::try_from(records).unwrap();
    let mut status = handle.status();
    let done =
        tokio::time::timeout(TIMEOUT, status.wait_for(|status| status.clean >= wanted)).await;
    let commits = done.expect("caught up in time").unwrap().commits;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "pipeline (raw -> cleaned + store, durability fsync): {:.0} records/s, {:.1} us CPU a record, {commits} commits, payload {} B, {:.0} B written a record",
        records as f64 / seconds,
        (cpu_seconds() - cpu) * 1e6 / records as f64,
        payload_bytes as i64 / records,
        (written_bytes() - written) as f64 / records as f64,
    );
    cancel.cancel();
    handle.stopped().await;
    log.close();
}

fn raw(events: &EmbeddedLog, n: i64) -> Produce {
    let device = format!("inv-{}", n % DEVICES);
    let value = format!(
        r#"{{"inverter_id":"{device}","power_kw":{}.25,"temperature_c":41.5,"status":"ok","ts":{}}}"#,
        n % 90,
        FIRST_TS_MS + n
    );
    let headers = vec![
        Header::new("kind", "inverters"),
        Header::new("received_at", "2026-01-01T00:00:00.000Z"),
        Header::new("mqtt.topic", format!("telemetry/inverters/{device}")),
    ];
    let partition = events.partition_for(RAW_TOPIC, device.as_bytes()).unwrap();
    let record = Record {
        timestamp_ms: FIRST_TS_MS + n,
        key: Some(Bytes::from(device)),
        value: Some(Bytes::from(value)),
        headers,
    };
    Produce {
        topic: RAW_TOPIC,
        partition,
        record,
    }
}

/// The store without the log: what SQLite takes, and its wear by batch size.
fn store_alone(records: i64) {
    for batch in [5_000, 100] {
        let dir = tempfile::TempDir::new().unwrap();
        let limits = WindowLimits {
            records_max: 200_000,
            age_ms_max: i64::MAX,
        };
        let mut writer =
            TelemetryWriter::open(&dir.path().join("telemetry.db"), limits, []).unwrap();
        // Small batches wear: a fiftieth of the records shows it.
        let count = if batch == 100 { records / 50 } else { records };
        let (written, started) = (written_bytes(), Instant::now());
        for first in (0..count).step_by(batch) {
            let end = count.min(first + i64::try_from(batch).unwrap());
            writer.commit(&commit(first, end), FIRST_TS_MS).unwrap();
        }
        let seconds = started.elapsed().as_secs_f64();
        writer.close().unwrap();
        println!(
            "store alone (SQLite WAL, synchronous=NORMAL), batches of {batch}: {:.0} rows/s, {:.0} B written a row",
            count as f64 / seconds,
            (written_bytes() - written) as f64 / count as f64,
        );
    }
}

fn commit(first: i64, end: i64) -> Commit {
    let at = |n| Position {
        topic_id: holdfast_storage::log::TopicId(uuid::Uuid::from_u128(1)),
        partition: 0,
        offset: holdfast_storage::log::Offset::new(n).unwrap(),
    };
    let clean = (first..end).map(|n| CleanEvent {
        at: at(n),
        kind: "inverters".to_owned(),
        device_id: format!("inv-{}", n % DEVICES),
        event_ms: FIRST_TS_MS + n,
        received_ms: FIRST_TS_MS + n,
        values_json: format!(
            r#"{{"inverter_id":"inv-{}","power_kw":{}.25,"temperature_c":41.5,"status":"ok"}}"#,
            n % DEVICES,
            n % 90
        ),
        missing: Vec::new(),
        timestamp_source: TimestampSource::Payload,
        record_id: None,
    });
    Commit {
        clean: clean.collect(),
        seen: (first..end).map(|n| u128::try_from(n).unwrap()).collect(),
        consumed: vec![("telemetry.raw".to_owned(), at(end))],
        ..Commit::default()
    }
}

fn written_bytes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| {
        io.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    field("write_bytes:").unwrap_or(0)
}

/// User and system time of this process: on a busy machine the only figure that compares.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The command's name may hold spaces; user and system time are fields 14 and 15.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS_PER_SECOND
}

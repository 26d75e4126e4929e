//! The pipeline over a real log and a real store: every record once, whatever stops it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod kills;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use holdfast_storage::log::batch;
use holdfast_storage::log::compression::{Codec, compress};
use holdfast_storage::log::{Log, LogOptions, Record};
use holdfast_storage::telemetry::SCHEMA_VERSION;
use rusqlite::Connection;
use tempfile::TempDir;

use super::record::{find, text_header};
use super::*;
use crate::pipelines::event_log::{Consumer, EmbeddedLog};

/// Far above what any of these tests needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// 2023-11-14T22:13:20Z, in seconds.
const T: i64 = 1_700_000_000;

struct Site {
    dir: TempDir,
    log: Log,
    config: TelemetryConfig,
}

fn site() -> Site {
    let dir = TempDir::new().unwrap();
    let log = open_log(&dir);
    Site {
        dir,
        log,
        config: TelemetryConfig {
            commit_age_ms: 10,
            ..TelemetryConfig::default()
        },
    }
}

fn open_log(dir: &TempDir) -> Log {
    let mut options = LogOptions::new(dir.path().join("log"));
    options.segment_bytes = 8 << 20;
    Log::open(options).unwrap()
}

fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

struct Running {
    handle: Handle,
    cancel: CancellationToken,
}

impl Running {
    async fn until(&self, done: impl Fn(&Status) -> bool) -> Status {
        until(&mut self.handle.status(), done).await
    }

    async fn stop(self) -> Status {
        let status = self.handle.status();
        self.cancel.cancel();
        tokio::time::timeout(PATIENCE, self.handle.stopped())
            .await
            .expect("the pipeline stops");
        status.borrow().clone()
    }
}

async fn until(status: &mut watch::Receiver<Status>, done: impl Fn(&Status) -> bool) -> Status {
    if let Ok(Ok(status)) = tokio::time::timeout(PATIENCE, status.wait_for(&done)).await {
        return status.clone();
    }
    panic!("never came to pass; last: {:?}", status.borrow())
}

impl Site {
    /// Stops the log properly and opens it again.
    fn reopen(self) -> Site {
        let Site { dir, log, config } = self;
        log.close();
        drop(log);
        let log = open_log(&dir);
        Site { dir, log, config }
    }

    /// What a kill would leave on disk now: neither log nor store is closed in it.
    fn killed(&self) -> Site {
        let dir = TempDir::new().unwrap();
        copy_tree(self.dir.path(), dir.path());
        let log = open_log(&dir);
        let config = self.config.clone();
        Site { dir, log, config }
    }

    fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn log(&self) -> EmbeddedLog {
        EmbeddedLog::new(self.log.clone())
    }

    async fn start(&self) -> Running {
        let cancel = CancellationToken::new();
        let handle = start(&self.config, &self.store_dir(), self.log(), cancel.clone())
            .await
            .unwrap();
        Running { handle, cancel }
    }

    async fn assemble(&self) -> Assembled<EmbeddedLog> {
        assemble(
            &self.config,
            &Arc::new(Rules::new(&self.config)),
            &self.store_dir(),
            self.log(),
        )
        .await
        .unwrap()
    }

    async fn append(&self, topic: &str, kind: &str, key: &str, value: impl Into<Bytes>) {
        let headers = vec![text_header("kind", kind)];
        let record = Record {
            timestamp_ms: now_ms(),
            key: Some(key.to_owned().into()),
            value: Some(value.into()),
            headers,
        };
        self.append_record(topic, record).await;
    }

    async fn append_record(&self, topic: &str, record: Record) {
        self.log()
            .ensure_topic(topic, self.config.partitions)
            .await
            .unwrap();
        let topic = self.log.topic(topic).unwrap();
        let partition = topic.partition_for(record.key.as_deref());
        self.log
            .append(partition, &[record])
            .await
            .unwrap()
            .await
            .unwrap();
    }

    async fn append_raw(&self, key: &str, value: impl Into<Bytes>) {
        self.append(RAW_TOPIC, "inverters", key, value).await;
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        let Some(topic) = self.log.topic(topic) else {
            return Vec::new();
        };
        let mut all = Vec::new();
        for partition in topic.partitions() {
            let mut next = partition.log_start_offset();
            while next < partition.high_watermark() {
                let read = self.log.read(partition, next, 1 << 20).unwrap();
                next = read.last().unwrap().offset.plus(1);
                all.extend(read.into_iter().map(|stored| stored.record));
            }
        }
        all
    }

    /// How often each source (partition, offset) occurs in a topic.
    fn sources(&self, topic: &str, prefix: &str) -> BTreeMap<(String, String), usize> {
        let mut counts = BTreeMap::new();
        for record in self.records(topic) {
            let text = |name: &str| {
                String::from_utf8(find(&record, &format!("{prefix}{name}")).unwrap().to_vec())
                    .unwrap()
            };
            *counts
                .entry((text("source_partition"), text("source_offset")))
                .or_insert(0) += 1;
        }
        counts
    }

    /// The whole truth, once: in the store, in both topics, and in the mirrored offsets.
    fn assert_exactly(
        &self,
        reader: &TelemetryReader,
        clean: usize,
        rejected: usize,
        duplicates: i64,
    ) {
        let cleaned = self.sources(CLEANED_TOPIC, "");
        let dead = self.sources(DLQ_TOPIC, "dlq.");
        assert_eq!((cleaned.len(), dead.len()), (clean, rejected));
        assert!(
            cleaned
                .values()
                .chain(dead.values())
                .all(|count| *count == 1),
            "{cleaned:?} {dead:?}"
        );
        let topics = reader.topics_summary().unwrap().topics;
        let sum = |of: fn(&holdfast_storage::telemetry::TopicSummary) -> i64| {
            topics.iter().map(of).sum::<i64>()
        };
        assert_eq!(
            (
                sum(|t| t.accepted),
                sum(|t| t.rejected),
                sum(|t| t.duplicates)
            ),
            (clean as i64, rejected as i64, duplicates)
        );
        let raw = self.log.topic(RAW_TOPIC).unwrap();
        for partition in raw.partitions() {
            let end = partition.high_watermark();
            let stored = reader
                .consumed_offset(raw.id(), partition.index())
                .unwrap()
                .unwrap_or_default();
            assert_eq!(stored, end, "partition {}", partition.index());
            let mirrored = self
                .log
                .committed_offset(TELEMETRY_GROUP, raw.id(), partition.index());
            assert_eq!(
                mirrored
                    .and_then(|committed| committed.position())
                    .unwrap_or_default(),
                end
            );
        }
    }
}

fn reading(n: i64) -> String {
    format!(
        r#"{{"inverter_id":"inv-{}","power_kw":{n},"temperature_c":20,"status":"ok","ts":{}}}"#,
        n % 7,
        T + n
    )
}

/// 30 readings, 6 rejected, 4 delivered twice.
async fn append_mixture(site: &Site) {
    for n in 0..30 {
        site.append_raw(&format!("inv-{}", n % 7), reading(n)).await;
        if n % 5 == 0 {
            site.append_raw(&format!("inv-{}", n % 7), format!("{{broken {n}"))
                .await;
        }
        if n % 8 == 7 || n == 29 {
            site.append_raw(&format!("inv-{}", n % 7), reading(n)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_judged_stored_and_passed_on() {
    let site = site();
    let running = site.start().await;
    append_mixture(&site).await;
    site.append(RAW_TOPIC, "pumps", "p", "{}").await;
    site.append_raw("inv-1", r#"{"inverter_id":"inv-1"}"#).await;
    let status = running
        .until(|status| status.clean == 31 && status.invalid == 7 && status.duplicates == 4)
        .await;
    assert_eq!(status.problems, BTreeMap::new());
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 31, 7, 4);
    let invalid = reader.invalid_recent(10, None).unwrap().records;
    assert_eq!(
        invalid
            .iter()
            .filter(|record| record.kind == "pumps")
            .count(),
        1
    );
    let incomplete = reader.incomplete(10).unwrap();
    assert_eq!(
        incomplete[0].missing_fields,
        ["power_kw", "temperature_c", "status"]
    );
    let dead = site.records(DLQ_TOPIC);
    assert!(
        dead.iter()
            .any(|record| record.value.as_deref() == Some(b"{broken 25"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrived_while_it_was_down_is_caught_up() {
    let mut site = site();
    site.append_raw("inv-1", reading(1)).await;
    let running = site.start().await;
    running.until(|status| status.clean == 1).await;
    let status = running.stop().await;
    assert!(status.stopped);
    for n in 2..50 {
        site.append_raw("k", reading(n)).await;
    }
    site.append_raw("k", reading(1)).await;
    site = site.reopen();
    let running = site.start().await;
    running
        .until(|status| status.clean == 48 && status.duplicates == 1)
        .await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 49, 0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_cannot_be_decoded_is_dead_lettered_and_does_not_stop_the_rest() {
    let site = site();
    site.append_raw("k", reading(1)).await;
    let raw = site.log.topic(RAW_TOPIC).unwrap();
    let partition = raw.partition_for(Some(b"k"));
    let poison = batch_of_too_many_headers();
    site.log
        .append_batch(partition, poison.clone())
        .await
        .unwrap()
        .await
        .unwrap();
    site.append_raw("k", reading(2)).await;
    let running = site.start().await;
    let status = running
        .until(|status| status.clean == 2 && status.invalid == 1)
        .await;
    assert_eq!((status.lost, status.gaps), (0, 0));
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 2, 1, 0);
    let dead = site.records(DLQ_TOPIC);
    assert_eq!(find(&dead[0], "dlq.error_codes").unwrap(), "corrupt_batch");
    // Only base offset and leader epoch were patched by the log.
    assert_eq!(dead[0].value.as_ref().unwrap()[16..], poison[16..]);
}

/// A record batch that the log takes and that unpacks to more headers than anybody is to hold in memory.
fn batch_of_too_many_headers() -> Bytes {
    let headers = batch::HEADERS_MAX + 1;
    let mut record = vec![0, 0, 0, 1, 1];
    // Their number, zig-zag and seven bits a byte.
    let mut count = headers * 2;
    while count >= 0x80 {
        record.push((count % 0x80) as u8 | 0x80);
        count /= 0x80;
    }
    record.push(count as u8);
    // Names without letters, values that are null.
    record.extend([0, 1].repeat(headers));
    let mut body = Vec::new();
    let mut length = record.len() * 2;
    while length >= 0x80 {
        body.push((length % 0x80) as u8 | 0x80);
        length /= 0x80;
    }
    body.push(length as u8);
    body.extend(record);
    let mut tail = BytesMut::new();
    tail.put_i16(1);
    tail.put_i32(0);
    tail.put_i64(T * 1_000);
    tail.put_i64(T * 1_000);
    tail.put_i64(-1);
    tail.put_i16(-1);
    tail.put_i32(-1);
    tail.put_i32(1);
    tail.put_slice(&compress(Codec::Gzip, &body, &[]).unwrap());
    let mut batch = BytesMut::new();
    batch.put_i64(0);
    batch.put_i32(i32::try_from(tail.len()).unwrap() + 9);
    batch.put_i32(0);
    batch.put_u8(2);
    batch.put_u32(crc32c::crc32c(&tail));
    batch.put_slice(&tail);
    batch.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_of_every_kind_only_reaches_the_dead_letter_queue() {
    let site = site();
    let running = site.start().await;
    let large = vec![b'x'; 1_000_000];
    let poison: [(&str, Option<Bytes>); 7] = [
        ("", Some(Bytes::from_static(b"{}"))),
        ("inverters", None),
        ("inverters", Some(Bytes::new())),
        ("inverters", Some(Bytes::from_static(&[0, 0xff, 0xfe]))),
        ("inverters", Some(Bytes::from("[".repeat(100_000)))),
        ("inverters", Some(Bytes::from(large.clone()))),
        ("devices", Some(Bytes::from_static(br#"{"device_id":7}"#))),
    ];
    for (kind, value) in poison {
        let headers = vec![text_header("kind", kind)];
        site.append_record(
            RAW_TOPIC,
            Record {
                timestamp_ms: -1,
                key: None,
                value,
                headers,
            },
        )
        .await;
    }
    site.append_raw("k", reading(1)).await;
    running
        .until(|status| status.clean == 1 && status.invalid == 7)
        .await;
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 1, 7, 0);
    let dead = site.records(DLQ_TOPIC);
    let cut = dead
        .iter()
        .find(|record| find(record, "dlq.value_bytes").is_some())
        .unwrap();
    assert_eq!(find(cut, "dlq.value_bytes").unwrap(), "1000000");
    let store = Connection::open(site.store_dir().join(STORE_FILE)).unwrap();
    let stored: i64 = store
        .query_row(
            "SELECT max(length(payload)) FROM invalid_records",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(stored, 1_000_000, "the store keeps every byte");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn speed_events_become_history_beside_the_telemetry() {
    let site = site();
    let running = site.start().await;
    for n in 0..5 {
        site.append(
            SPEED_TOPIC,
            "speed",
            "s-1",
            format!(r#"{{"sensor_id":"s-1","speed":{n},"ts":{}}}"#, T + n),
        )
        .await;
    }
    site.append(
        SPEED_TOPIC,
        "speed",
        "s-1",
        r#"{"sensor_id":"s-1","speed":"fast"}"#,
    )
    .await;
    site.append_raw("k", reading(1)).await;
    running
        .until(|status| status.speed == 5 && status.invalid == 1 && status.clean == 1)
        .await;
    let reader = running.handle.reader();
    running.stop().await;
    assert_eq!(reader.speed_latest().unwrap()[0].speed, 4.0);
    assert_eq!(reader.speed_history("s-1", 10).unwrap().len(), 5);
    assert_eq!(
        reader.invalid_recent(1, None).unwrap().records[0].kind,
        "speed"
    );
    let topic = site.log.topic(SPEED_TOPIC).unwrap();
    let partition = topic.partition_for(Some(b"s-1"));
    let mirrored = site
        .log
        .committed_offset(SPEED_GROUP, topic.id(), partition.index())
        .unwrap();
    assert_eq!(mirrored.position(), Some(partition.high_watermark()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_clients_record_without_headers_is_a_device() {
    let site = site();
    let value = format!(r#"{{"device_id":"d-1","device_ts":{T},"temp":21.50}}"#);
    let record = Record {
        timestamp_ms: now_ms(),
        key: None,
        value: Some(value.into()),
        headers: Vec::new(),
    };
    site.append_record(RAW_TOPIC, record).await;
    let running = site.start().await;
    running.until(|status| status.clean == 1).await;
    let event = running.handle.reader().latest_valid().unwrap().remove(0);
    assert_eq!(
        (event.topic.as_str(), event.device_id.as_str()),
        ("devices", "d-1")
    );
    assert_eq!(event.event_time, "2023-11-14T22:13:20.000Z");
    assert!(event.values.get().contains("21.50"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_duplicate_window_outlives_a_restart() {
    let site = site();
    site.append_raw("a", reading(1)).await;
    let running = site.start().await;
    running.until(|status| status.clean == 1).await;
    running.stop().await;
    let running = site.start().await;
    site.append_raw("a", reading(1)).await;
    let status = running.until(|status| status.duplicates == 1).await;
    assert_eq!(status.clean, 0);
    let reader = running.handle.reader();
    running.stop().await;
    site.assert_exactly(&reader, 1, 0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_does_not_start() {
    let mut site = site();
    site.start().await.stop().await;
    let store = Connection::open(site.store_dir().join(STORE_FILE)).unwrap();
    store
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let refused = start(
        &site.config,
        &site.store_dir(),
        site.log(),
        CancellationToken::new(),
    )
    .await
    .err()
    .unwrap();
    assert!(
        matches!(refused, StartError::Store(StoreError::NewerSchema { .. })),
        "{refused}"
    );
    site.config.default_kind = "nothing".into();
    let refused = start(
        &site.config,
        &site.store_dir(),
        site.log(),
        CancellationToken::new(),
    )
    .await
    .err()
    .unwrap();
    assert!(matches!(refused, StartError::Config(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_behind_the_store_is_said_and_nothing_is_read() {
    let site = site();
    site.append_raw("k", reading(1)).await;
    let end = site
        .log
        .topic(RAW_TOPIC)
        .unwrap()
        .partition_for(Some(b"k"))
        .high_watermark();
    let mut consumer = site
        .log()
        .consumer(RAW_TOPIC, |_, _| Some(end.plus(5)))
        .unwrap();
    let error = consumer.poll(10, 1 << 20).await.unwrap_err();
    assert!(
        matches!(error, EventLogError::BehindStore { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("is not the log this store was filled from")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_is_bounded_by_what_it_unpacks_and_comes_back_for_the_rest() {
    let site = site();
    let pad = "x".repeat(900_000);
    for n in 0..24 {
        site.append_raw("k", format!("{n}{pad}")).await;
    }
    let mut consumer = site.log().consumer(RAW_TOPIC, |_, _| None).unwrap();
    let first = consumer.poll(usize::MAX, usize::MAX).await.unwrap();
    assert!(
        (17..24).contains(&first.records.len()),
        "{}",
        first.records.len()
    );
    let second = consumer.poll(usize::MAX, usize::MAX).await.unwrap();
    assert_eq!(first.records.len() + second.records.len(), 24);
    assert_eq!(first.gaps + second.gaps, 0);
}

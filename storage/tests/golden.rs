//! A whole log as version 1 wrote it, in `golden/v1/`: segments that were appended to, one that
//! compaction wrote, with everything that is kept beside records. It never changes, and every program
//! reads it.
//!
//! `HOLDFAST_GOLDEN=write` writes it anew, for a new version of the format beside the old.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use holdfast_storage::log::{
    Clock, CommittedOffset, FetchError, Header, Log, LogOptions, OffsetCommit, Record, doctor,
};

use common::{offset, producer_batch, topic};

const BEGUN_MS: u64 = 1_700_000_000_000;
const KEYS: usize = 3;
const UPDATES: usize = 60;

fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        segment_bytes: 32 << 10,
        clock: Clock::new(|| BEGUN_MS + 60_000),
        ..LogOptions::new(dir)
    }
}

const TABLE: &[(&str, &str)] = &[("cleanup.policy", "compact")];

fn plain(n: usize) -> Record {
    let headers = vec![
        Header::new("source", "golden"),
        Header {
            name: "none".into(),
            value: None,
        },
    ];
    Record {
        timestamp_ms: BEGUN_MS as i64 + n as i64,
        key: n.is_multiple_of(2).then(|| Bytes::from(format!("key {n}"))),
        value: Some(Bytes::from(format!("plain value {n}"))),
        headers: if n == 3 { headers } else { Vec::new() },
    }
}

fn update(n: usize) -> Record {
    Record {
        timestamp_ms: BEGUN_MS as i64,
        key: Some(Bytes::from(format!("k{}", n % KEYS))),
        value: Some(Bytes::from(format!("update {n:0100}"))),
        headers: Vec::new(),
    }
}

fn committed() -> CommittedOffset {
    CommittedOffset {
        offset: 4,
        leader_epoch: 2,
        metadata: "where the group is".into(),
        commit_timestamp_ms: BEGUN_MS as i64,
    }
}

async fn write(dir: &Path) {
    let log = Log::open(options(dir)).unwrap();
    let records = log.create_topic(topic("plain", 2, &[])).await.unwrap();
    let table = log.create_topic(topic("table", 1, TABLE)).await.unwrap();
    let gone = log.create_topic(topic("gone", 1, &[])).await.unwrap();
    let append = async |partition, record| {
        let appending = log.append(partition, &[record]).await.unwrap();
        appending.await.unwrap()
    };
    for n in 0..5 {
        append(&records.partitions()[0], plain(n)).await;
    }
    for n in 0..UPDATES {
        append(&table.partitions()[0], update(n)).await;
    }
    append(&gone.partitions()[0], plain(0)).await;
    let producer = log.new_producer_id().await.unwrap().0;
    for sequence in 0..2 {
        let batch = producer_batch(producer, 0, sequence, &["of a producer"]);
        let appending = log.append_batch(&records.partitions()[1], batch);
        appending.await.unwrap().await.unwrap();
    }
    log.close();
    drop((log, records, table));

    let log = Log::open(options(dir)).unwrap();
    log.delete_topic(gone.id()).await.unwrap();
    let records = log.topic("plain").unwrap();
    let kept = log.delete_records(&records.partitions()[0], Some(offset(2)));
    kept.await.unwrap();
    let commit = OffsetCommit {
        topic: records.id(),
        partition: 0,
        committed: committed(),
    };
    log.commit_offsets("golden group", vec![commit])
        .await
        .unwrap();
    let value = Some(Bytes::from_static(b"a value"));
    log.put_setting("kind", "a key", value).await.unwrap();
    log.clean();
    assert_eq!(log.stats().compacted_records as usize, UPDATES - KEYS);
    log.close();
}

/// A copy, because opening a log writes to it.
fn copy(to: &Path) {
    let segments = to.join("segments");
    fs::create_dir_all(&segments).unwrap();
    for entry in fs::read_dir(golden_dir()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), segments.join(entry.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_version_1_is_read() {
    if std::env::var_os("HOLDFAST_GOLDEN").is_some_and(|value| value == "write") {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).await;
        fs::create_dir_all(golden_dir()).unwrap();
        for entry in fs::read_dir(dir.path().join("segments")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), golden_dir().join(entry.file_name())).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path());
    let cold = fs::read_dir(golden_dir()).unwrap().filter(|entry| {
        let path = entry.as_ref().unwrap().path();
        path.extension().is_some_and(|suffix| suffix == "cold")
    });
    assert_eq!(cold.count(), 1, "one segment is of compaction");

    let report = doctor::check(dir.path()).unwrap();
    let nothing: &[doctor::Finding] = &[];
    assert_eq!(
        (&report.damage[..], &report.disagreements[..]),
        (nothing, nothing)
    );

    let log = Log::open(options(dir.path())).unwrap();
    assert!(log.damage().is_empty());
    let mut names: Vec<String> = log.topics().iter().map(|t| t.name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["plain", "table"]);
    let (records, table) = (log.topic("plain").unwrap(), log.topic("table").unwrap());
    assert_eq!(table.configs(), topic("", 1, TABLE).configs);

    let partition = &records.partitions()[0];
    assert_eq!(partition.log_start_offset(), offset(2));
    assert_eq!(partition.high_watermark(), offset(5));
    let read = log.read(partition, offset(2), 1 << 20).unwrap();
    let read: Vec<_> = read.into_iter().map(|r| (r.offset, r.record)).collect();
    let wanted = [2, 3, 4].map(|n| (offset(n), plain(n as usize)));
    assert_eq!(read, wanted);
    assert_eq!(
        log.offset_for_time(partition, BEGUN_MS as i64 + 3).unwrap(),
        Some((offset(3), BEGUN_MS as i64 + 3))
    );

    let partition = &table.partitions()[0];
    assert_eq!(partition.high_watermark(), offset(UPDATES as i64));
    let mut next = offset(0);
    for n in UPDATES - KEYS..UPDATES {
        let read = log.read(partition, next, 1).unwrap();
        assert_eq!(
            (read[0].offset, &read[0].record),
            (offset(n as i64), &update(n))
        );
        next = read[0].offset.plus(1);
    }

    // The producer's last batch is known; the next one is, too.
    let partition = &records.partitions()[1];
    for (sequence, at) in [(1, 1), (2, 2)] {
        let batch = producer_batch(0, 0, sequence, &["of a producer"]);
        let appending = log.append_batch(partition, batch).await.unwrap();
        assert_eq!(appending.await.unwrap().base_offset, offset(at));
    }
    let known = log.committed_offset("golden group", records.id(), 0);
    assert_eq!(known, Some(committed()));
    assert_eq!(
        log.setting("kind", "a key").as_deref(),
        Some(&b"a value"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_damaged_log_of_version_1_the_batch_is_named_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path());
    let damaged = b"plain value 3";
    for entry in fs::read_dir(dir.path().join("segments")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes
            .windows(damaged.len())
            .position(|some| some == damaged)
        {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let report = doctor::check(dir.path()).unwrap();
    let [finding] = &report.damage[..] else {
        panic!("{:?}", report.damage)
    };
    assert_eq!(finding.of, "plain-0, offsets 3 to 3");

    let log = Log::open(options(dir.path())).unwrap();
    let records = log.topic("plain").unwrap();
    let partition = &records.partitions()[0];
    let error = log.read(partition, offset(3), 1).unwrap_err();
    assert!(matches!(error, FetchError::Undecodable { .. }), "{error}");
    for n in [2, 4] {
        let read = log.read(partition, offset(n), 1).unwrap();
        assert_eq!(read[0].record, plain(n as usize));
    }
}

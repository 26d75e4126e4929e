//! Retention, deletion, and space given back, against a model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::{
    AppendError, Clock, CommittedOffset, DeleteRecordsError, DeleteTopicError, FetchError,
    Isolation, Log, LogOptions, OffsetCommit, Partition, Record, Retention, TopicId,
};

use common::{offset, producer_batch, read_all, topic};

const FOREVER: Retention = Retention {
    ms: None,
    bytes: None,
};
const HOUR_MS: u64 = 3_600_000;

/// A clock that tests move.
#[derive(Clone, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn forward(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::new(move || 1_700_000_000_000 + hands.0.load(Ordering::SeqCst))
    }
}

fn options(dir: &Path, hands: &Hands) -> LogOptions {
    LogOptions {
        segment_bytes: 32 << 10,
        retention: FOREVER,
        // Rounds come when they are asked for.
        cleaner_interval: Duration::from_secs(3600),
        segment_age_max: Duration::from_secs(365 * 24 * 3600),
        clock: hands.clock(),
        ..LogOptions::new(dir)
    }
}

fn record(value: impl Into<Bytes>) -> Record {
    Record {
        value: Some(value.into()),
        ..Record::default()
    }
}

async fn append(log: &Log, partition: &Arc<Partition>, value: impl Into<Bytes>) -> i64 {
    let appending = log.append(partition, &[record(value)]).await.unwrap();
    appending.await.unwrap().base_offset.value()
}

/// `None` deletes.
async fn keyed(log: &Log, partition: &Arc<Partition>, key: &str, value: Option<&str>) -> i64 {
    let own = |text: &str| Bytes::from(text.to_owned());
    let record = Record {
        key: Some(own(key)),
        value: value.map(own),
        ..Record::default()
    };
    let appending = log.append(partition, &[record]).await.unwrap();
    appending.await.unwrap().base_offset.value()
}

/// One kilobyte that says which one it is.
fn kilobyte(n: usize) -> Bytes {
    Bytes::from(format!("{n:01024}"))
}

fn segment_files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir.join("segments"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_retention_ms_goes_and_its_space_comes_back() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [("retention.ms", "7200000")];
    let short = log.create_topic(topic("short", 1, &configs)).await.unwrap();
    let partition = short.partition(0).unwrap();
    for n in 0..400 {
        append(&log, partition, kilobyte(n)).await;
        hands.forward(HOUR_MS / 100);
    }
    log.clean();
    // Four hours were written, two are kept, and a segment's length at most.
    let start = partition.log_start_offset().value();
    assert!((160..200).contains(&start), "{start}");
    assert_eq!(partition.high_watermark(), offset(400));
    assert_eq!(read_all(&log, partition).len(), 400 - start as usize);
    let below = log
        .fetch(partition, offset(start - 1), 1, Isolation::Uncommitted)
        .unwrap_err();
    assert!(matches!(below, FetchError::OffsetOutOfRange { .. }));
    // Beside what is kept: the head and the one preallocated behind it.
    let left = segment_files(dir.path()).len();
    assert!(left <= 11, "{left} segments are left");
    assert!(partition.size_bytes() < 260 << 10);
    assert!(log.stats().segments_removed >= 4);

    // Everything expires: offsets go on where they were, also after a restart without the index.
    hands.forward(HOUR_MS * 3);
    log.clean();
    assert_eq!(partition.log_start_offset(), offset(400));
    drop(log);
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let short = log.topic("short").unwrap();
    let partition = short.partition(0).unwrap();
    assert_eq!(partition.log_start_offset(), offset(400));
    assert_eq!(append(&log, partition, "new").await, 400);
    assert_eq!(
        read_all(&log, partition),
        [(400, Bytes::from_static(b"new"))]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_the_clock_was_set_is_as_old_as_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1000));
    let hand = now.clone();
    let log = Log::open(LogOptions {
        clock: Clock::new(move || hand.load(Ordering::SeqCst)),
        retention: Retention::default(),
        ..options(dir.path(), &Hands::default())
    })
    .unwrap();
    let topic = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..50 {
        append(&log, partition, kilobyte(n)).await;
    }
    now.store(1_700_000_000_000, Ordering::SeqCst);
    log.clean();
    assert_eq!(partition.log_start_offset(), offset(0));
    for n in 50..100 {
        append(&log, partition, kilobyte(n)).await;
    }
    now.fetch_add(8 * 24 * HOUR_MS, Ordering::SeqCst);
    log.clean();
    assert_eq!(partition.log_start_offset(), offset(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exceeds_retention_bytes_goes_oldest_first() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [("retention.bytes", "100000")];
    let small = log.create_topic(topic("small", 2, &configs)).await.unwrap();
    let [full, other] = small.partitions() else {
        panic!("two partitions")
    };
    append(&log, other, "kept").await;
    for n in 0..500 {
        append(&log, full, kilobyte(n)).await;
    }
    log.clean();
    let size = full.size_bytes();
    assert!((100_000..100_000 + (32 << 10)).contains(&size), "{size}");
    let kept = read_all(&log, full);
    assert_eq!(kept.last().unwrap(), &(499, kilobyte(499)));
    assert_eq!(read_all(&log, other).len(), 1);
}

/// Nothing of it is sealed yet, and what is below the log start is still in memory.
#[tokio::test(flavor = "multi_thread")]
async fn retention_bytes_keeps_what_it_says_round_after_round() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(LogOptions {
        segment_bytes: 4 << 20,
        ..options(dir.path(), &hands)
    })
    .unwrap();
    let configs = [("retention.bytes", "100000")];
    let small = log.create_topic(topic("small", 1, &configs)).await.unwrap();
    let partition = small.partition(0).unwrap();
    for n in 0..300 {
        append(&log, partition, kilobyte(n)).await;
    }
    log.clean();
    let start = partition.log_start_offset().value();
    assert!((195..215).contains(&start), "{start}");
    for _ in 0..3 {
        log.clean();
        assert_eq!(partition.log_start_offset().value(), start);
    }
}

/// Two deletions meet in one group commit: the log start that is kept is the higher one.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_start_never_goes_back_on_disk_either() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let topic = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let partition = topic.partition(0).unwrap();
    for round in 0..10 {
        for n in 0..10 {
            append(&log, partition, kilobyte(n)).await;
        }
        let deletions = (0..20).map(|n| {
            let before = offset(round * 10 + if n == 7 { 10 } else { n % 10 });
            let (log, partition) = (log.clone(), partition.clone());
            tokio::spawn(async move { log.delete_records(&partition, Some(before)).await })
        });
        for deletion in deletions.collect::<Vec<_>>() {
            deletion.await.unwrap().unwrap();
        }
        assert_eq!(partition.log_start_offset(), offset((round + 1) * 10));
    }
    drop((log, topic));
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let partition = log.topic("t").unwrap().partition(0).unwrap().clone();
    assert_eq!(partition.log_start_offset(), offset(100));
    assert_eq!(append(&log, &partition, "next").await, 100);
}

/// What was deleted while it was in memory is removed when its segment has been sealed.
#[tokio::test(flavor = "multi_thread")]
async fn records_deleted_before_they_were_sealed_give_their_space_back() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(LogOptions {
        segment_bytes: 1 << 20,
        ..options(dir.path(), &hands)
    })
    .unwrap();
    let gone = log.create_topic(topic("gone", 1, &[])).await.unwrap();
    let other = log.create_topic(topic("other", 1, &[])).await.unwrap();
    for n in 0..600 {
        append(&log, gone.partition(0).unwrap(), kilobyte(n)).await;
    }
    log.delete_records(gone.partition(0).unwrap(), None)
        .await
        .unwrap();
    log.clean();
    for n in 0..1_500 {
        append(&log, other.partition(0).unwrap(), kilobyte(n)).await;
    }
    log.delete_records(other.partition(0).unwrap(), None)
        .await
        .unwrap();
    log.clean();
    assert_eq!(gone.partition(0).unwrap().size_bytes(), 0);
    assert!(log.stats().segments_removed >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_timestamp_is_looked_for_among_what_is_kept() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let topic = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let partition = topic.partition(0).unwrap();
    let at = |timestamp_ms| Record {
        timestamp_ms,
        ..record("x")
    };
    let together = [at(900), at(100), at(300), at(200)];
    log.append(partition, &together)
        .await
        .unwrap()
        .await
        .unwrap();
    let found = log.max_timestamp(partition).unwrap();
    assert_eq!(found, Some((offset(0), 900)));
    log.delete_records(partition, Some(offset(1)))
        .await
        .unwrap();
    let found = log.max_timestamp(partition).unwrap();
    assert_eq!(found, Some((offset(2), 300)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_is_not_emptied_by_time() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(LogOptions {
        retention: Retention::default(),
        ..options(dir.path(), &hands)
    })
    .unwrap();
    let configs = [("cleanup.policy", "compact")];
    let kept = log.create_topic(topic("kept", 1, &configs)).await.unwrap();
    let plain = log.create_topic(topic("plain", 1, &[])).await.unwrap();
    keyed(&log, kept.partition(0).unwrap(), "k", Some("a")).await;
    append(&log, plain.partition(0).unwrap(), "a").await;
    hands.forward(8 * 24 * HOUR_MS);
    log.clean();
    assert_eq!(kept.partition(0).unwrap().log_start_offset(), offset(0));
    // Kafka's seven days.
    assert_eq!(plain.partition(0).unwrap().log_start_offset(), offset(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_is_gone_at_once_and_a_new_one_of_its_name_is_another() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let old = log.create_topic(topic("t", 2, &[])).await.unwrap();
    let partition = old.partition(0).unwrap().clone();
    for n in 0..200 {
        append(&log, &partition, kilobyte(n)).await;
    }
    commit(&log, "g", old.id(), 7).await;
    let files = segment_files(dir.path()).len();
    let mut watch = log.watch([&partition]);
    log.delete_topic(old.id()).await.unwrap();
    watch.appended().await;
    assert!(log.topic("t").is_none());
    assert_eq!(
        log.fetch(&partition, offset(0), 1, Isolation::Uncommitted)
            .unwrap_err(),
        FetchError::Deleted
    );
    let refused = log.append(&partition, &[record("x")]).await.unwrap().await;
    assert_eq!(refused, Err(AppendError::Deleted));
    assert_eq!(
        log.delete_topic(old.id()).await,
        Err(DeleteTopicError::Unknown)
    );
    assert!(log.committed_offset("g", old.id(), 0).is_none());

    let new = log.create_topic(topic("t", 1, &[])).await.unwrap();
    assert_ne!(new.id(), old.id());
    assert_eq!(append(&log, new.partition(0).unwrap(), "new").await, 0);
    log.clean();
    let left = segment_files(dir.path()).len();
    assert!(left < files / 2, "{left} of {files} segments are left");
    drop((log, watch));
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    assert_eq!(log.topic("t").unwrap().id(), new.id());
    assert!(log.groups().is_empty());
}

/// The crash came between the last unlinking and the fsync of the directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_unlinking_was_lost_brings_nothing_back() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let attic = tempfile::tempdir().unwrap();
    let segments = dir.path().join("segments");
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let topic = log.create_topic(topic("t", 1, &[])).await.unwrap();
    log.put_setting("room", "key", Some(Bytes::from_static(b"old")))
        .await
        .unwrap();
    for n in 0..150 {
        append(&log, topic.partition(0).unwrap(), kilobyte(n)).await;
    }
    log.put_setting("room", "key", None).await.unwrap();
    log.clean();
    for name in segment_files(dir.path()) {
        fs::copy(segments.join(&name), attic.path().join(&name)).unwrap();
    }
    log.delete_topic(topic.id()).await.unwrap();
    log.clean();
    drop((log, topic));
    let there = segment_files(dir.path());
    let mut gone: Vec<String> = fs::read_dir(attic.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !there.contains(name) && Some(name) < there.last())
        .collect();
    gone.sort();
    let last = gone.last().expect("segments were removed");
    for with_index in [true, false] {
        fs::copy(attic.path().join(last), segments.join(last)).unwrap();
        if !with_index {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let log = Log::open(options(dir.path(), &hands)).unwrap();
        assert!(log.topics().is_empty());
        assert!(log.settings("room").is_empty());
        log.clean();
        assert!(!segments.join(last).exists(), "with index: {with_index}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_deleted_up_to_an_offset_but_not_beyond_the_end() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let topic = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let partition = topic.partition(0).unwrap();
    for n in 0..10 {
        append(&log, partition, kilobyte(n)).await;
    }
    assert_eq!(
        log.delete_records(partition, Some(offset(11))).await,
        Err(DeleteRecordsError::OffsetOutOfRange {
            requested: offset(11),
            high_watermark: offset(10)
        })
    );
    assert_eq!(
        log.delete_records(partition, Some(offset(4))).await,
        Ok(offset(4))
    );
    // It never goes back.
    assert_eq!(
        log.delete_records(partition, Some(offset(2))).await,
        Ok(offset(4))
    );
    assert_eq!(read_all(&log, partition)[0].0, 4);
    assert_eq!(log.delete_records(partition, None).await, Ok(offset(10)));
    assert!(read_all(&log, partition).is_empty());
}

async fn commit(log: &Log, group: &str, topic: TopicId, value: i64) {
    let committed = CommittedOffset {
        offset: value,
        leader_epoch: -1,
        metadata: String::new(),
        commit_timestamp_ms: 0,
    };
    let commit = OffsetCommit {
        topic,
        partition: 0,
        committed,
    };
    log.commit_offsets(group, vec![commit]).await.unwrap();
}

/// Key, offset and value of every record that can be read.
fn read_keyed(log: &Log, partition: &Partition) -> Vec<(String, i64, Option<Bytes>)> {
    let mut out = Vec::new();
    let mut next = partition.log_start_offset();
    while next < partition.high_watermark() {
        let records = log.read(partition, next, 64 << 10).unwrap();
        let Some(last) = records.last() else { break };
        next = last.offset.plus(1);
        out.extend(records.into_iter().map(|stored| {
            let key = String::from_utf8(stored.record.key.unwrap().to_vec()).unwrap();
            (key, stored.offset.value(), stored.record.value)
        }));
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_keeps_the_newest_of_every_key_and_gives_the_rest_back() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [
        ("cleanup.policy", "compact"),
        ("delete.retention.ms", "3600000"),
    ];
    let state = log.create_topic(topic("state", 1, &configs)).await.unwrap();
    let partition = state.partition(0).unwrap();
    let kilobyte = "x".repeat(1000);
    for n in 0..1000 {
        keyed(&log, partition, &format!("key-{}", n % 10), Some(&kilobyte)).await;
    }
    keyed(&log, partition, "key-3", None).await;
    // What is in the head is not compacted: it is filled up.
    for n in 0..100 {
        keyed(&log, partition, &format!("other-{n}"), Some(&kilobyte)).await;
    }
    log.clean();
    let kept = read_keyed(&log, partition);
    let of = |key: &str| kept.iter().filter(|(k, ..)| k == key).count();
    for n in 0..10 {
        assert_eq!(of(&format!("key-{n}")), 1, "key-{n}");
    }
    let newest: Vec<i64> = kept.iter().take(10).map(|(_, offset, _)| *offset).collect();
    assert_eq!(newest, [990, 991, 992, 994, 995, 996, 997, 998, 999, 1000]);
    assert_eq!(kept.len(), 110);
    assert_eq!(partition.high_watermark(), offset(1101));
    assert_eq!(partition.log_start_offset(), offset(0));
    assert!(partition.size_bytes() < 150 << 10);
    let stats = log.stats();
    assert_eq!(stats.compacted_records, 991);
    let on_disk: u64 = segment_files(dir.path())
        .iter()
        .map(|name| {
            fs::metadata(dir.path().join("segments").join(name))
                .unwrap()
                .len()
        })
        .sum();
    assert!(on_disk < 300 << 10, "{on_disk} bytes are left");

    // The tombstone stays for an hour, and what it deleted never comes back.
    hands.forward(HOUR_MS + 1);
    for n in 0..200 {
        keyed(
            &log,
            partition,
            &format!("other-{}", n % 100),
            Some(&kilobyte),
        )
        .await;
    }
    log.clean();
    let kept = read_keyed(&log, partition);
    assert!(!kept.iter().any(|(key, ..)| key == "key-3"));
    drop((log, state));
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let partition = log.topic("state").unwrap().partition(0).unwrap().clone();
    assert_eq!(read_keyed(&log, &partition), kept);
    assert_eq!(keyed(&log, &partition, "key-1", Some("new")).await, 1301);
}

#[tokio::test(flavor = "multi_thread")]
async fn min_compaction_lag_ms_leaves_the_young_alone() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [
        ("cleanup.policy", "compact"),
        ("min.compaction.lag.ms", "3600000"),
    ];
    let state = log.create_topic(topic("state", 1, &configs)).await.unwrap();
    let partition = state.partition(0).unwrap();
    let kilobyte = "x".repeat(1000);
    for _ in 0..200 {
        keyed(&log, partition, "key", Some(&kilobyte)).await;
    }
    log.clean();
    assert_eq!(read_keyed(&log, partition).len(), 200);
    hands.forward(HOUR_MS + 1);
    log.clean();
    let left = read_keyed(&log, partition).len();
    assert!(left < 40, "{left} records are left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_refuses_records_without_a_key() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [("cleanup.policy", "compact")];
    let state = log.create_topic(topic("state", 1, &configs)).await.unwrap();
    let refused = log
        .append(state.partition(0).unwrap(), &[record("x")])
        .await;
    assert!(matches!(refused, Err(AppendError::Records { .. })));
}

/// What is kept for ever lies between what was deleted: it is copied together, and the space of the
/// rest comes back.
#[tokio::test(flavor = "multi_thread")]
async fn segments_that_are_live_in_part_are_emptied() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let kept = log.create_topic(topic("kept", 2, &[])).await.unwrap();
    let gone = log.create_topic(topic("gone", 1, &[])).await.unwrap();
    for n in 0..600 {
        append(&log, kept.partition(n % 2).unwrap(), kilobyte(n as usize)).await;
        for _ in 0..3 {
            append(&log, gone.partition(0).unwrap(), kilobyte(n as usize)).await;
        }
    }
    log.delete_topic(gone.id()).await.unwrap();
    let before = segment_files(dir.path()).len();
    log.clean();
    let after = segment_files(dir.path());
    // A quarter is kept, and a segment's end may stay free.
    assert!(after.len() * 5 < before * 2, "{after:?} of {before}");
    assert!(after.iter().any(|name| name.ends_with(".cold")));
    let stats = log.stats();
    assert!(stats.live_bytes * 10 > stats.sealed_bytes * 8, "{stats:?}");
    let check = |log: &Log| {
        for which in 0..2 {
            let topic = log.topic("kept").unwrap();
            let found = read_all(log, topic.partition(which).unwrap());
            let wanted: Vec<(i64, Bytes)> = (0..300)
                .map(|n| (n, kilobyte(n as usize * 2 + which as usize)))
                .collect();
            assert!(found == wanted, "partition {which}");
        }
    };
    check(&log);
    drop((log, kept, gone));
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    check(&log);
    drop(log);
    let report = holdfast_storage::log::doctor::check(dir.path()).unwrap();
    assert!(
        report.damage.is_empty() && report.disagreements.is_empty(),
        "{report:?}"
    );
    assert_eq!(report.live_bytes.map(|live| live > 600 << 10), Some(true));
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    check(&log);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_append_time_is_the_nodes() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [("message.timestamp.type", "LogAppendTime")];
    let topic = log.create_topic(topic("t", 1, &configs)).await.unwrap();
    let partition = topic.partition(0).unwrap();
    let small = log
        .append(partition, &[record("x")])
        .await
        .unwrap()
        .await
        .unwrap();
    assert_eq!(small.append_time_ms, Some(1_700_000_000_000));
    hands.forward(5);
    let many: Vec<Record> = (0..10).map(|n| record(kilobyte(n))).collect();
    log.append(partition, &many).await.unwrap().await.unwrap();
    let found = log.read(partition, offset(0), 1 << 20).unwrap();
    let times: Vec<i64> = found
        .iter()
        .map(|stored| stored.record.timestamp_ms)
        .collect();
    assert_eq!(times[0], 1_700_000_000_000);
    assert!(times[1..].iter().all(|time| *time == 1_700_000_000_005));
    let found = log.offset_for_time(partition, 1_700_000_000_001).unwrap();
    assert_eq!(found, Some((offset(1), 1_700_000_000_005)));
}

/// The machine learns the time only after it has compacted: what it set before must not count.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_compacted_before_the_clock_is_set() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(1000));
    let hand = now.clone();
    let log = Log::open(LogOptions {
        clock: Clock::new(move || hand.load(Ordering::SeqCst)),
        ..options(dir.path(), &Hands::default())
    })
    .unwrap();
    let configs = [("cleanup.policy", "compact")];
    let state = log.create_topic(topic("state", 1, &configs)).await.unwrap();
    let partition = state.partition(0).unwrap();
    let kilobyte = "x".repeat(1000);
    keyed(&log, partition, "key", Some(&kilobyte)).await;
    keyed(&log, partition, "key", None).await;
    for n in 0..100 {
        keyed(&log, partition, &format!("{}", n % 5), Some(&kilobyte)).await;
    }
    log.clean();
    assert_eq!(read_keyed(&log, partition).len(), 102);
    now.store(1_700_000_000_000, Ordering::SeqCst);
    log.clean();
    let kept = read_keyed(&log, partition);
    assert!(kept.len() < 60, "{}", kept.len());
    let tombstone: Vec<_> = kept.iter().filter(|(key, ..)| key == "key").collect();
    assert_eq!(tombstone, [&("key".to_owned(), 1, None)]);
}

/// Nobody reads what a commit far beyond the end names: it must not move the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_wild_commit_does_not_move_a_topic_that_does_not_wait_for_the_disk() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let configs = [("holdfast.durability", "os")];
    let quick = log.create_topic(topic("quick", 1, &configs)).await.unwrap();
    append(&log, quick.partition(0).unwrap(), "a").await;
    commit(&log, "g", quick.id(), i64::MAX).await;
    drop((log, quick));
    let log = Log::open(options(dir.path(), &hands)).unwrap();
    let quick = log.topic("quick").unwrap();
    assert_eq!(append(&log, quick.partition(0).unwrap(), "b").await, 1);
}

#[tokio::test]
async fn more_producers_than_memory_is_for_are_forgotten_oldest_first() {
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let options = LogOptions {
        // The least: a thousand producers.
        memory_bytes: 0,
        ..options(dir.path(), &hands)
    };
    let log = Log::open(options.clone()).unwrap();
    let topic = log.create_topic(topic("t", 2, &[])).await.unwrap();
    let partition = |n: usize| &topic.partitions()[n % 2];
    let mut sent = Vec::new();
    for n in 0..1_200 {
        hands.forward(1);
        let producer = log.new_producer_id().await.unwrap().0;
        let batch = producer_batch(producer, 0, 0, &["a"]);
        let appending = log.append_batch(partition(n), batch.clone()).await.unwrap();
        sent.push((batch, appending.await.unwrap().base_offset));
    }
    log.clean();
    let stats = log.stats();
    assert_eq!((stats.producers, stats.producers_forgotten), (1_000, 200));
    let again = async |log: &Log, n: usize| {
        let topic = log.topic("t").unwrap();
        let (batch, first) = &sent[n];
        let appending = log.append_batch(&topic.partitions()[n % 2], batch.clone());
        appending.await.unwrap().await.unwrap().base_offset == *first
    };
    assert!(
        again(&log, 200).await && again(&log, 1_199).await,
        "the same batch twice"
    );
    assert!(!again(&log, 199).await, "nobody remembers it");
    drop(log);
    let log = Log::open(options).unwrap();
    assert!(again(&log, 201).await && again(&log, 1_198).await);
    assert!(!again(&log, 198).await, "nor after a restart");
    log.close();
}

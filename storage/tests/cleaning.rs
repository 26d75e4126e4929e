//! Retention, deletion, and space given back, against a model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::{
    AppendError, Clock, CommittedOffset, DeleteRecordsError, DeleteTopicError, FetchError, Log,
    LogOptions, NewTopic, OffsetCommit, Partition, Record, Retention, TopicId,
};

use common::{offset, read_all};
use holdfast_wal::disk::sim::Random;

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

fn topic(name: &str, partitions: u32, configs: &[(&str, &str)]) -> NewTopic {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    NewTopic {
        name: name.into(),
        partitions,
        configs: configs.iter().map(own).collect(),
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
    let below = log.fetch(partition, offset(start - 1), 1).unwrap_err();
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
    append(&log, kept.partition(0).unwrap(), "a").await;
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
        log.fetch(&partition, offset(0), 1).unwrap_err(),
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
        offset: offset(value),
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

/// What a log must hold.
#[derive(Default)]
struct Model {
    topics: BTreeMap<String, ModelTopic>,
    settings: BTreeMap<String, Bytes>,
    /// By group and topic.
    commits: BTreeMap<(String, String), i64>,
}

struct ModelTopic {
    id: TopicId,
    partitions: Vec<ModelPartition>,
}

#[derive(Default)]
struct ModelPartition {
    start: i64,
    values: Vec<Bytes>,
}

impl Model {
    fn check(&self, log: &Log, seed: u64, step: u64) {
        let at = format!("seed {seed} step {step}");
        let names: Vec<String> = log.topics().iter().map(|t| t.name().to_owned()).collect();
        let wanted: Vec<String> = self.topics.keys().cloned().collect();
        assert_eq!(names, wanted, "{at}");
        for (name, model) in &self.topics {
            let topic = log.topic(name).unwrap();
            assert_eq!(topic.id(), model.id, "{at}");
            for (partition, model) in topic.partitions().iter().zip(&model.partitions) {
                assert_eq!(partition.log_start_offset().value(), model.start, "{at}");
                assert_eq!(
                    partition.high_watermark().value(),
                    model.values.len() as i64,
                    "{at}"
                );
                let found = read_all(log, partition);
                let values = model.values.iter().enumerate();
                let wanted: Vec<(i64, Bytes)> = values
                    .map(|(n, value)| (n as i64, value.clone()))
                    .skip(model.start as usize)
                    .collect();
                assert!(found == wanted, "{at}: records of {name}");
            }
        }
        let settings: BTreeMap<String, Bytes> = log.settings("room").into_iter().collect();
        assert_eq!(settings, self.settings, "{at}");
        for ((group, topic), value) in &self.commits {
            let id = self.topics[topic].id;
            let found = log.committed_offset(group, id, 0);
            assert_eq!(found.map(|c| c.offset.value()), Some(*value), "{at}");
        }
    }
}

/// Random histories: topics made, filled, trimmed and deleted; settings and group offsets written all
/// along; rounds of the cleaner at any moment; restarts, with the index or without. `HOLDFAST_SEED=n`
/// plays one alone.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_nothing_comes_back() {
    let seeds: Vec<u64> = match std::env::var("HOLDFAST_SEED") {
        Ok(seed) => vec![seed.parse().expect("HOLDFAST_SEED is a number")],
        Err(_) => (0..40).collect(),
    };
    for seed in seeds {
        play(seed).await;
    }
}

async fn play(seed: u64) {
    let mut random = Random::new(seed);
    let (dir, hands) = (tempfile::tempdir().unwrap(), Hands::default());
    let mut model = Model::default();
    let mut log = Log::open(options(dir.path(), &hands)).unwrap();
    for step in 0..120 {
        let name = format!("topic-{}", random.below(3));
        match random.below(100) {
            0..=9 if !model.topics.contains_key(&name) => {
                let partitions = 1 + random.below(3) as u32;
                let made = log
                    .create_topic(topic(&name, partitions, &[]))
                    .await
                    .unwrap();
                let partitions = (0..partitions).map(|_| ModelPartition::default()).collect();
                let id = made.id();
                model.topics.insert(name, ModelTopic { id, partitions });
            }
            10..=14 => {
                if let Some(gone) = model.topics.remove(&name) {
                    log.delete_topic(gone.id).await.unwrap();
                    model.commits.retain(|(_, topic), _| *topic != name);
                }
            }
            15..=24 => {
                if let Some(known) = model.topics.get_mut(&name) {
                    let which = random.below(known.partitions.len() as u64) as usize;
                    let partition = &mut known.partitions[which];
                    let upto = random.below(partition.values.len() as u64 + 1) as i64;
                    let topic = log.topic(&name).unwrap();
                    let start = log
                        .delete_records(&topic.partitions()[which], Some(offset(upto)))
                        .await
                        .unwrap();
                    partition.start = partition.start.max(upto);
                    assert_eq!(start.value(), partition.start, "seed {seed} step {step}");
                }
            }
            25..=39 => {
                let key = format!("key-{}", random.below(20));
                let value = random
                    .chance(700)
                    .then(|| Bytes::from(format!("{}", random.next_u64())));
                log.put_setting("room", &key, value.clone()).await.unwrap();
                match value {
                    Some(value) => model.settings.insert(key, value),
                    None => model.settings.remove(&key),
                };
            }
            40..=54 => {
                if let Some(known) = model.topics.get(&name) {
                    let group = format!("group-{}", random.below(4));
                    let value = random.below(1000) as i64;
                    commit(&log, &group, known.id, value).await;
                    model.commits.insert((group, name), value);
                }
            }
            55..=64 => log.clean(),
            65..=69 => {
                log.close();
                drop(log);
                if random.chance(300) {
                    fs::remove_dir_all(dir.path().join("index")).unwrap();
                }
                log = Log::open(options(dir.path(), &hands)).unwrap();
                assert!(log.damage().is_empty(), "seed {seed} step {step}");
                model.check(&log, seed, step);
            }
            _ => {
                if let Some(known) = model.topics.get_mut(&name) {
                    let topic = log.topic(&name).unwrap();
                    let which = random.below(known.partitions.len() as u64) as usize;
                    let partition = &topic.partitions()[which];
                    for _ in 0..random.below(40) {
                        let value = Bytes::from(vec![
                            random.next_u64() as u8;
                            1 + random.below(2000) as usize
                        ]);
                        let at = append(&log, partition, value.clone()).await;
                        let values = &mut known.partitions[which].values;
                        assert_eq!(at, values.len() as i64, "seed {seed} step {step}");
                        values.push(value);
                    }
                }
            }
        }
        if random.chance(100) {
            model.check(&log, seed, step);
        }
    }
    log.clean();
    model.check(&log, seed, u64::MAX);
}

//! The whole log on a simulated disk, against a model: appends of every kind, sealing, retention,
//! compaction, relocation, deletion and restarts, with the power going at any write.
//!
//! What must hold, whatever happens:
//! - what was acknowledged is there, unchanged, at its offset, in order (unless a rule took it away);
//! - what was not acknowledged is there as a prefix of what was sent, or not at all;
//! - an idempotent producer's batch is there once, however often it is sent;
//! - watermarks and log starts never go back;
//! - of every key of a compacted topic the newest record stays, a tombstone for as long as it must;
//! - what is gone stays gone, also when the index is made anew from the segments.
//!
//! `HOLDFAST_SEED=n` plays one history alone, `HOLDFAST_HISTORIES=n` so many. A history is the same for
//! the same seed up to the order in which threads of the log reach the disk at the same moment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, Bytes};
use holdfast_storage::log::{
    Appending, ChangeTopicError, Clock, CommittedOffset, FetchError, Log, LogOptions, NewTopic,
    OffsetCommit, Partition, Record, Retention, StoredRecord, Topic, TopicId,
};
use holdfast_wal::disk::sim::Random;
use holdfast_wal::disk::{Disk, SimDisk};

use common::offset;

const HOUR_MS: u64 = 3_600_000;
const BEGIN_MS: u64 = 1_700_000_000_000;
/// Retention of the topics that have one, and of tombstones.
const KEPT_MS: u64 = 4 * HOUR_MS;

/// What a topic does with its records.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Forever,
    ByTime,
    Compacted,
    /// Acknowledged in the page cache: the power may take it.
    Os,
}

const KINDS: [Kind; 4] = [Kind::Forever, Kind::ByTime, Kind::Compacted, Kind::Os];

impl Kind {
    fn configs(self) -> Vec<(String, String)> {
        let pairs: &[(&str, &str)] = match self {
            Kind::Forever => &[],
            Kind::ByTime => &[("retention.ms", "14400000")],
            Kind::Os => &[("holdfast.durability", "os")],
            Kind::Compacted => &[
                ("cleanup.policy", "compact"),
                ("min.cleanable.dirty.ratio", "0.1"),
                ("delete.retention.ms", "14400000"),
            ],
        };
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    key: Option<Bytes>,
    value: Option<Bytes>,
    appended_ms: u64,
}

#[derive(Debug, Default)]
struct ModelPartition {
    /// Every record that was acknowledged, by offset.
    records: Vec<Kept>,
    start: i64,
    /// A DeleteRecords that was not answered may have moved it here.
    unsure_start: i64,
    /// Offsets that were found to be gone above the log start.
    gone: BTreeSet<i64>,
    /// Sent, and not answered when the power went.
    unsure: Vec<Kept>,
    /// Base sequence of the next batch of this partition's idempotent producer, and its batches.
    sequence: i32,
    batches: BTreeMap<i32, (Bytes, i64)>,
    /// The batch that was not answered.
    unsure_batch: Option<(i32, Bytes, usize)>,
}

#[derive(Debug)]
struct ModelTopic {
    id: TopicId,
    kind: Kind,
    partitions: Vec<ModelPartition>,
    /// One partition more was asked for, and not answered.
    unsure_partition: bool,
    /// A configuration that changes and does nothing here.
    label: Possible<String>,
}

impl ModelTopic {
    fn new(id: TopicId, kind: Kind, partitions: usize) -> ModelTopic {
        ModelTopic {
            id,
            kind,
            partitions: (0..partitions).map(|_| ModelPartition::default()).collect(),
            unsure_partition: false,
            label: vec![None],
        }
    }
}

const LABEL: &str = "max.message.bytes";

fn label(topic: &Topic) -> Option<String> {
    let found = topic.configs().iter().find(|(key, _)| key == LABEL);
    found.map(|(_, value)| value.clone())
}

/// What a key may have now: more than one value while an answer is missing.
type Possible<T> = Vec<Option<T>>;

#[derive(Debug, Default)]
struct Model {
    topics: BTreeMap<String, ModelTopic>,
    /// Neither made nor deleted for certain.
    unsure_topics: BTreeSet<String>,
    settings: BTreeMap<String, Possible<Bytes>>,
    /// By group and topic.
    commits: BTreeMap<(String, String), Possible<i64>>,
}

/// What happened in all histories: they must not be clean because nothing happened.
#[derive(Default)]
struct Tally {
    opened: AtomicU64,
    power_cuts: AtomicU64,
    rebuilt: AtomicU64,
    removed: AtomicU64,
    relocated_bytes: AtomicU64,
    compacted: AtomicU64,
    tombstones: AtomicU64,
}

static TALLY: Tally = Tally {
    opened: AtomicU64::new(0),
    power_cuts: AtomicU64::new(0),
    rebuilt: AtomicU64::new(0),
    removed: AtomicU64::new(0),
    relocated_bytes: AtomicU64::new(0),
    compacted: AtomicU64::new(0),
    tombstones: AtomicU64::new(0),
};

fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

struct Play {
    random: Random,
    at: String,
    dir: PathBuf,
    disk: SimDisk,
    now: Arc<AtomicU64>,
    log: Option<Log>,
    model: Model,
    producer: i64,
    counter: u64,
}

fn options(dir: &Path, now: &Arc<AtomicU64>) -> LogOptions {
    let now = now.clone();
    LogOptions {
        segment_bytes: 16 << 10,
        batch_bytes_max: 4 << 10,
        retention: Retention {
            ms: None,
            bytes: None,
        },
        // Rounds come when they are asked for.
        cleaner_interval: Duration::from_secs(3600),
        segment_age_max: Duration::from_secs(365 * 24 * 3600),
        producer_expiry: Duration::from_secs(365 * 24 * 3600),
        cleaner_bytes_per_second: u64::MAX,
        // Room for few keys: several passes are the rule.
        memory_bytes: 3200,
        clock: Clock::new(move || BEGIN_MS + now.load(Ordering::SeqCst)),
        ..LogOptions::new(dir)
    }
}

/// Memory where there is some: the index lies in real files.
fn directory() -> tempfile::TempDir {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(dir) => dir,
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

fn varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.push((raw as u8) | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// A batch of an idempotent producer, as a Kafka client would send it.
fn batch(producer: i64, sequence: i32, records: &[(Option<Bytes>, Bytes)]) -> Bytes {
    let mut body = Vec::new();
    for (delta, (key, value)) in (0..).zip(records) {
        let mut record = vec![0];
        varint(&mut record, 0);
        varint(&mut record, delta);
        match key {
            Some(key) => {
                varint(&mut record, key.len() as i64);
                record.extend_from_slice(key);
            }
            None => varint(&mut record, -1),
        }
        varint(&mut record, value.len() as i64);
        record.extend_from_slice(value);
        varint(&mut record, 0);
        varint(&mut body, record.len() as i64);
        body.extend_from_slice(&record);
    }
    let count = records.len() as i32;
    let mut signed = Vec::new();
    signed.put_i16(0);
    signed.put_i32(count - 1);
    signed.put_i64(1000);
    signed.put_i64(1000);
    signed.put_i64(producer);
    signed.put_i16(0);
    signed.put_i32(sequence);
    signed.put_i32(count);
    signed.extend_from_slice(&body);
    let mut out = Vec::new();
    out.put_i64(0);
    out.put_i32(signed.len() as i32 + 9);
    out.put_i32(-1);
    out.put_u8(2);
    out.put_u32(crc32c::crc32c(&signed));
    out.extend_from_slice(&signed);
    Bytes::from(out)
}

impl Play {
    async fn open(seed: u64, dir: &Path) -> Play {
        let now = Arc::new(AtomicU64::new(0));
        let disk = SimDisk::new(seed ^ 0x5eed);
        let log = Log::open_on(options(dir, &now), Arc::new(disk.clone())).unwrap();
        let producer = log.new_producer_id().await.unwrap().0;
        Play {
            random: Random::new(seed),
            at: format!("seed {seed}"),
            dir: dir.to_owned(),
            disk,
            now,
            log: Some(log),
            model: Model::default(),
            producer,
            counter: 0,
        }
    }

    fn log(&self) -> Log {
        self.log.clone().unwrap()
    }

    fn now(&self) -> u64 {
        BEGIN_MS + self.now.load(Ordering::SeqCst)
    }

    fn below(&mut self, bound: u64) -> usize {
        self.random.below(bound) as usize
    }

    async fn run(mut self, seed: u64) {
        let steps = 40 + self.below(80);
        for step in 0..steps {
            self.at = format!("seed {seed} step {step}");
            if self.random.chance(40) {
                let changes = self.random.below(80);
                self.disk.power_off_after(changes);
            }
            let went_well = self.step().await;
            self.settle();
            if !went_well || self.disk.is_off() {
                self.crash().await;
            } else if self.random.chance(100) {
                self.check();
            }
        }
        self.at = format!("seed {seed}, end");
        // A power cut may be due: this is what it meets.
        self.log().clean();
        self.crash().await;
        self.log().clean();
        self.check();
    }

    /// Waits until no thread of the log has anything to do.
    fn settle(&self) {
        while let Some(log) = &self.log
            && log.stats().unsealed > 0
            && !self.disk.is_off()
        {
            std::thread::yield_now();
        }
    }

    /// One thing that can happen; false if something failed.
    async fn step(&mut self) -> bool {
        let name = format!("topic-{}", self.below(3));
        let known = self.model.topics.contains_key(&name);
        match self.below(100) {
            0..=9 => known || self.create(name).await,
            10..=12 => !known || self.delete(name).await,
            13..=18 => !known || self.delete_records(&name).await,
            19..=28 => self.put_setting().await,
            29..=34 => !known || self.commit(name).await,
            35..=36 => !known || self.change(&name).await,
            37..=50 => {
                self.log().clean();
                true
            }
            51..=56 => {
                self.now
                    .fetch_add(self.random.below(2 * HOUR_MS), Ordering::SeqCst);
                true
            }
            57..=62 => {
                self.restart().await;
                true
            }
            63..=72 => !known || self.produce_batch(&name).await,
            _ => !known || self.append(&name).await,
        }
    }

    async fn create(&mut self, name: String) -> bool {
        let kind = KINDS[self.below(4)];
        let new = NewTopic {
            name: name.clone(),
            partitions: 1 + self.below(2) as u32,
            configs: kind.configs(),
        };
        let count = new.partitions;
        match self.log().create_topic(new).await {
            Ok(topic) => {
                let topic = ModelTopic::new(topic.id(), kind, count as usize);
                self.model.topics.insert(name, topic);
                true
            }
            Err(_) => {
                self.model.unsure_topics.insert(name);
                false
            }
        }
    }

    /// One partition more, or another configuration.
    async fn change(&mut self, name: &str) -> bool {
        let wider = self.random.chance(300);
        let waits = self.random.chance(500);
        let value = format!("{}", 1_000_000 + self.random.below(1000));
        loop {
            let topic = self.log().topic(name).unwrap();
            let model = self.model.topics.get_mut(name).unwrap();
            let count = model.partitions.len() as u32;
            let log = self.log.clone().unwrap();
            let changed = if wider && count < 4 {
                let changed = log.set_partitions(&topic, count + 1).await;
                match &changed {
                    Ok(_) => model.partitions.push(ModelPartition::default()),
                    Err(ChangeTopicError::Outdated) => {}
                    Err(_) => model.unsure_partition = true,
                }
                changed
            } else {
                let mut configs = model.kind.configs();
                if waits && model.kind == Kind::Os {
                    // Its records may be lost as before; none is read before those in front of it.
                    configs.clear();
                }
                configs.push((LABEL.to_owned(), value.clone()));
                let changed = log.set_configs(&topic, configs).await;
                match &changed {
                    Ok(_) => model.label = vec![Some(value.clone())],
                    Err(ChangeTopicError::Outdated) => {}
                    Err(_) => model.label.push(Some(value.clone())),
                }
                changed
            };
            match changed {
                Ok(_) => return true,
                // The cleaner was writing it again.
                Err(ChangeTopicError::Outdated) => {}
                Err(_) => return false,
            }
        }
    }

    async fn delete(&mut self, name: String) -> bool {
        let id = self.model.topics[&name].id;
        if self.log().delete_topic(id).await.is_err() {
            self.model.unsure_topics.insert(name);
            return false;
        }
        self.model.topics.remove(&name);
        self.model.commits.retain(|(_, topic), _| *topic != name);
        true
    }

    async fn delete_records(&mut self, name: &str) -> bool {
        let which = self.below(self.model.topics[name].partitions.len() as u64);
        let count = self.model.topics[name].partitions[which].records.len() as u64;
        let upto = self.random.below(count + 1) as i64;
        let partition = self.partition(name, which);
        let start = self
            .log()
            .delete_records(&partition, Some(offset(upto)))
            .await;
        let model = &mut self.model.topics.get_mut(name).unwrap().partitions[which];
        match start {
            Ok(start) => {
                assert!(start.value() >= model.start.max(upto), "{}", self.at);
                model.start = start.value();
                true
            }
            Err(_) => {
                model.unsure_start = upto;
                false
            }
        }
    }

    async fn put_setting(&mut self) -> bool {
        let key = format!("key-{}", self.below(20));
        let fresh = Bytes::from(format!("{}", self.random.next_u64()));
        let value = self.random.chance(700).then_some(fresh);
        let put = self.log().put_setting("room", &key, value.clone()).await;
        let possible = self.model.settings.entry(key).or_insert_with(|| vec![None]);
        if put.is_ok() {
            possible.clear();
        }
        possible.push(value);
        put.is_ok()
    }

    async fn commit(&mut self, topic: String) -> bool {
        let group = format!("group-{}", self.below(4));
        let value = self.random.below(1000) as i64;
        let commit = OffsetCommit {
            topic: self.model.topics[&topic].id,
            partition: 0,
            committed: CommittedOffset {
                offset: value,
                leader_epoch: -1,
                metadata: String::new(),
                commit_timestamp_ms: 0,
            },
        };
        let done = self.log().commit_offsets(&group, vec![commit]).await;
        let known = self.model.commits.entry((group, topic));
        let possible = known.or_insert_with(|| vec![None]);
        if done.is_ok() {
            possible.clear();
        }
        possible.push(Some(value));
        done.is_ok()
    }

    fn partition(&self, name: &str, which: usize) -> Arc<Partition> {
        self.log().topic(name).unwrap().partitions()[which].clone()
    }

    fn key_for(&mut self, name: &str) -> Option<Bytes> {
        let keyed = self.model.topics[name].kind == Kind::Compacted || self.random.chance(500);
        let key = format!("key-{}", self.below(30));
        keyed.then(|| Bytes::from(key))
    }

    /// Some records, several of them in flight.
    async fn append(&mut self, name: &str) -> bool {
        let which = self.below(self.model.topics[name].partitions.len() as u64);
        let partition = self.partition(name, which);
        let log = self.log();
        let mut flying: Vec<(Kept, Option<Appending>)> = Vec::new();
        for _ in 0..self.below(30) {
            let key = self.key_for(name);
            self.counter += 1;
            let bytes = 20 + self.below(1200);
            let value = Bytes::from(format!("{:0bytes$}", self.counter));
            let deletes = key.is_some() && self.random.chance(150);
            let record = Record {
                timestamp_ms: self.now() as i64,
                key: key.clone(),
                value: (!deletes).then_some(value),
                headers: Vec::new(),
            };
            let kept = Kept {
                key,
                value: record.value.clone(),
                appended_ms: self.now(),
            };
            flying.push((kept, log.append(&partition, &[record]).await.ok()));
            if self.random.chance(200) && !self.land(name, which, &mut flying).await {
                return false;
            }
        }
        self.land(name, which, &mut flying).await
    }

    async fn land(
        &mut self,
        name: &str,
        which: usize,
        flying: &mut Vec<(Kept, Option<Appending>)>,
    ) -> bool {
        let model = &mut self.model.topics.get_mut(name).unwrap().partitions[which];
        let mut all = true;
        for (kept, appending) in flying.drain(..) {
            let answer = match appending {
                Some(appending) => appending.await.ok(),
                None => None,
            };
            match answer {
                Some(appended) if all => {
                    let at = appended.base_offset.value();
                    assert_eq!(at, model.records.len() as i64, "{}", self.at);
                    model.records.push(kept);
                }
                Some(_) => panic!("{}: acknowledged behind one that failed", self.at),
                None => {
                    all = false;
                    model.unsure.push(kept);
                }
            }
        }
        all
    }

    /// A batch of an idempotent producer: the next one, or one that it sent before.
    async fn produce_batch(&mut self, name: &str) -> bool {
        let which = self.below(self.model.topics[name].partitions.len() as u64);
        let partition = self.partition(name, which);
        let again = self.random.chance(300);
        let known = &self.model.topics[name].partitions[which].batches;
        // The five newest are remembered.
        if again
            && let Some((_, (bytes, at))) = known.iter().nth_back(self.random.below(5) as usize)
        {
            let (bytes, at) = (bytes.clone(), *at);
            let Ok(appending) = self.log().append_batch(&partition, bytes).await else {
                return false;
            };
            return match appending.await {
                Ok(appended) => {
                    assert_eq!(appended.base_offset.value(), at, "{}: sent again", self.at);
                    true
                }
                Err(_) => false,
            };
        }
        let records: Vec<(Option<Bytes>, Bytes)> = (0..1 + self.below(4))
            .map(|_| {
                self.counter += 1;
                let value = Bytes::from(format!("batched {}", self.counter));
                (self.key_for(name), value)
            })
            .collect();
        let now = self.now();
        let kept = records.iter().map(|(key, value)| Kept {
            key: key.clone(),
            value: Some(value.clone()),
            appended_ms: now,
        });
        let kept: Vec<Kept> = kept.collect();
        let sequence = self.model.topics[name].partitions[which].sequence;
        let bytes = batch(self.producer, sequence, &records);
        let answer = match self.log().append_batch(&partition, bytes.clone()).await {
            Ok(appending) => appending.await,
            Err(error) => Err(error),
        };
        let model = &mut self.model.topics.get_mut(name).unwrap().partitions[which];
        match answer {
            Ok(appended) => {
                let at = appended.base_offset.value();
                assert_eq!(at, model.records.len() as i64, "{}", self.at);
                model.records.extend(kept);
                model.batches.insert(sequence, (bytes, at));
                model.sequence += records.len() as i32;
                true
            }
            Err(_) => {
                model.unsure_batch = Some((sequence, bytes, kept.len()));
                model.unsure.extend(kept);
                false
            }
        }
    }

    fn leave(&mut self) {
        if let Some(log) = self.log.take() {
            let stats = log.stats();
            count(&TALLY.removed, stats.segments_removed);
            count(&TALLY.relocated_bytes, stats.relocated_bytes);
            count(&TALLY.compacted, stats.compacted_records);
        }
    }

    async fn restart(&mut self) {
        self.log().close();
        self.leave();
        self.reopen().await;
    }

    async fn crash(&mut self) {
        self.disk.power_off_after(0);
        self.leave();
        self.disk.crash();
        count(&TALLY.power_cuts, 1);
        self.reopen().await;
    }

    async fn reopen(&mut self) {
        if self.random.chance(300) {
            let _ = fs::remove_dir_all(self.dir.join("index"));
            count(&TALLY.rebuilt, 1);
        }
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        // The power may go again while the log is opened.
        if self.random.chance(100) {
            self.disk.power_off_after(self.random.below(30));
        }
        let log = loop {
            match Log::open_on(options(&self.dir, &self.now), disk.clone()) {
                Ok(log) if !self.disk.is_off() => break log,
                Ok(_) => {}
                Err(error) => {
                    assert!(self.disk.is_off(), "{}: cannot be opened: {error}", self.at);
                }
            }
            self.disk.crash();
        };
        count(&TALLY.opened, 1);
        let damage = log.damage();
        assert!(damage.is_empty(), "{}: {damage:?}", self.at);
        self.log = Some(log);
        self.reconcile();
        self.check();
    }

    /// What was not answered is there or not; from now on it is certain.
    fn reconcile(&mut self) {
        let log = self.log();
        for name in std::mem::take(&mut self.model.unsure_topics) {
            match (self.model.topics.contains_key(&name), log.topic(&name)) {
                (true, None) => {
                    self.model.topics.remove(&name);
                    self.model.commits.retain(|(_, topic), _| *topic != name);
                }
                (false, Some(found)) => {
                    let configs = found.configs().to_vec();
                    let kind = KINDS.into_iter().find(|kind| kind.configs() == configs);
                    let partitions = found.partitions().len();
                    let topic = ModelTopic::new(found.id(), kind.unwrap(), partitions);
                    self.model.topics.insert(name, topic);
                }
                _ => {}
            }
        }
        for (name, topic) in &mut self.model.topics {
            let found = log.topic(name);
            let found = found.unwrap_or_else(|| panic!("{}: {name} is not there", self.at));
            let more = found.partitions().len() - topic.partitions.len();
            assert!(
                more <= usize::from(topic.unsure_partition),
                "{}: {name} has {more} partitions more",
                self.at
            );
            topic.unsure_partition = false;
            let new = std::iter::repeat_with(ModelPartition::default);
            topic.partitions.extend(new.take(more));
            let found_label = label(&found);
            assert!(
                topic.label.contains(&found_label),
                "{}: {name} has {found_label:?}, not {:?}",
                self.at,
                topic.label
            );
            topic.label = vec![found_label];
            for (partition, model) in found.partitions().iter().zip(&mut topic.partitions) {
                if topic.kind == Kind::Os {
                    adopt(&log, partition, model, &self.at, &self.disk);
                    continue;
                }
                let end = partition.high_watermark().value() as usize;
                let sure = model.records.len();
                let most = sure + model.unsure.len();
                assert!(
                    (sure..=most).contains(&end),
                    "{}: ends at {end}, not {sure} to {most}",
                    self.at
                );
                let unsure = std::mem::take(&mut model.unsure);
                model.records.extend(unsure.into_iter().take(end - sure));
                if let Some((sequence, bytes, count)) = model.unsure_batch.take() {
                    assert!(
                        end == sure || end == sure + count,
                        "{}: half a batch",
                        self.at
                    );
                    if end > sure {
                        model.batches.insert(sequence, (bytes, sure as i64));
                        model.sequence += count as i32;
                    }
                }
            }
        }
        for (key, possible) in &mut self.model.settings {
            let found = log.setting("room", key);
            assert!(
                possible.contains(&found),
                "{}: {key} is {found:?}, not {possible:?}",
                self.at
            );
            *possible = vec![found];
        }
        for ((group, topic), possible) in &mut self.model.commits {
            let id = self.model.topics[topic].id;
            let found = log.committed_offset(group, id, 0).map(|c| c.offset);
            assert!(possible.contains(&found), "{}: {group} {topic}", self.at);
            *possible = vec![found];
        }
    }

    fn check(&mut self) {
        let log = self.log();
        let names: Vec<String> = log.topics().iter().map(|t| t.name().to_owned()).collect();
        let wanted: Vec<String> = self.model.topics.keys().cloned().collect();
        assert_eq!(names, wanted, "{}", self.at);
        let now = self.now();
        for (name, topic) in &mut self.model.topics {
            let found = log.topic(name).unwrap();
            assert_eq!(found.id(), topic.id, "{}", self.at);
            assert_eq!(
                found.partitions().len(),
                topic.partitions.len(),
                "{}",
                self.at
            );
            assert!(topic.label.contains(&label(&found)), "{}", self.at);
            for (partition, model) in found.partitions().iter().zip(&mut topic.partitions) {
                let at = format!("{} {name}-{}", self.at, partition.index());
                let Some(records) = read(&log, partition, &at, &self.disk) else {
                    // The power went while it was read.
                    return;
                };
                check_partition(partition, model, topic.kind, &records, now, &at);
            }
        }
        for (key, possible) in &self.model.settings {
            let found = log.setting("room", key);
            assert!(possible.contains(&found), "{} {key}", self.at);
        }
    }
}

/// What is left of a partition that did not wait for the disk: some of what was sent, unchanged.
fn adopt(log: &Log, partition: &Partition, model: &mut ModelPartition, at: &str, disk: &SimDisk) {
    let Some(found) = read(log, partition, at, disk) else {
        // The power went again; the next start tells.
        return;
    };
    let end = partition.high_watermark().value() as usize;
    let unsure = std::mem::take(&mut model.unsure);
    model.records.extend(unsure);
    model.unsure_batch = None;
    model.batches.clear();
    let nothing = Kept {
        key: None,
        value: None,
        appended_ms: 0,
    };
    let seen: BTreeSet<i64> = found.iter().map(|record| record.offset.value()).collect();
    if let Some(last) = seen.last() {
        let first = partition.log_start_offset().value();
        let lost = (first..*last).find(|o| !seen.contains(o) && !model.gone.contains(o));
        assert_eq!(lost, None, "{at}: lost in the middle");
    }
    // What follows gets other records.
    model.records.resize(end, nothing);
    model.gone.retain(|offset| *offset < end as i64);
    for offset in partition.log_start_offset().value()..end as i64 {
        if !seen.contains(&offset) {
            model.gone.insert(offset);
        }
    }
}

fn read(log: &Log, partition: &Partition, at: &str, disk: &SimDisk) -> Option<Vec<StoredRecord>> {
    let mut out: Vec<StoredRecord> = Vec::new();
    let mut next = partition.log_start_offset();
    while next < partition.high_watermark() {
        match log.read(partition, next, 16 << 10) {
            Ok(records) => match records.last() {
                Some(last) => {
                    next = last.offset.plus(1);
                    out.extend(records);
                }
                // All that was left was compacted away.
                None => break,
            },
            // Retention, in the background.
            Err(FetchError::OffsetOutOfRange { log_start, .. }) if log_start > next => {
                next = log_start;
                out.retain(|record| record.offset >= log_start);
            }
            Err(FetchError::Storage(_)) if disk.is_off() => return None,
            Err(error) => panic!("{at}: reading from {next}: {error}"),
        }
    }
    Some(out)
}

fn check_partition(
    partition: &Partition,
    model: &mut ModelPartition,
    kind: Kind,
    records: &[StoredRecord],
    now: u64,
    at: &str,
) {
    assert_eq!(
        partition.high_watermark().value(),
        model.records.len() as i64,
        "{at}"
    );
    // Retention may have raised it while the records were read.
    let start = partition.log_start_offset().value();
    let records = records
        .iter()
        .filter(|record| record.offset.value() >= start);
    assert!(start >= model.start, "{at}: the log start went back");
    if kind == Kind::ByTime {
        let young = |kept: &Kept| kept.appended_ms + KEPT_MS >= now;
        let from = model.start.max(model.unsure_start).min(start);
        let lost = model.records[from as usize..start as usize].iter();
        assert!(!lost.clone().any(young), "{at}: what is kept was removed");
    }
    model.start = start;
    model.unsure_start = 0;
    let mut seen = BTreeSet::new();
    let mut last = -1;
    for record in records {
        let offset = record.offset.value();
        assert!(offset > last, "{at}: {offset} behind {last}");
        last = offset;
        let kept = &model.records[offset as usize];
        assert_eq!(record.record.key, kept.key, "{at}: key at {offset}");
        assert_eq!(record.record.value, kept.value, "{at}: value at {offset}");
        seen.insert(offset);
    }
    let mut newest: BTreeMap<&Bytes, i64> = BTreeMap::new();
    for (offset, kept) in (0..).zip(&model.records) {
        if let Some(key) = &kept.key {
            newest.insert(key, offset);
        }
    }
    for offset in start..model.records.len() as i64 {
        let there = seen.contains(&offset);
        assert!(
            !(there && model.gone.contains(&offset)),
            "{at}: {offset} came back"
        );
        if there {
            continue;
        }
        if kind == Kind::Os && model.gone.contains(&offset) {
            continue;
        }
        assert_eq!(kind, Kind::Compacted, "{at}: {offset} is not there");
        model.gone.insert(offset);
        let kept = &model.records[offset as usize];
        let key = kept.key.as_ref().unwrap();
        if newest[key] == offset {
            assert_eq!(kept.value, None, "{at}: the newest of {key:?} is not there");
            let due = kept.appended_ms + KEPT_MS;
            assert!(due <= now, "{at}: a tombstone went early");
            let older = |o: &i64| model.records[*o as usize].key.as_ref() == Some(key);
            let left = seen.iter().find(|o| older(o));
            assert_eq!(left, None, "{at}: the tombstone at {offset} went before");
            count(&TALLY.tombstones, 1);
        }
    }
}

/// The first history that fails ends the run.
struct EndsAll;

impl Drop for EndsAll {
    fn drop(&mut self) {
        if std::thread::panicking() {
            FAILED.store(true, Ordering::Relaxed);
        }
    }
}

static FAILED: AtomicBool = AtomicBool::new(false);

#[test]
fn histories() {
    let seed = std::env::var("HOLDFAST_SEED").ok();
    let histories = std::env::var("HOLDFAST_HISTORIES").ok();
    let number = |text: String| text.parse::<u64>().expect("a number");
    let from = std::env::var("HOLDFAST_FIRST").ok().map_or(0, number);
    let seeds = match (seed, histories) {
        (Some(seed), _) => {
            let seed = number(seed);
            seed..seed + 1
        }
        (None, Some(histories)) => from..from + number(histories),
        (None, None) => 0..1000,
    };
    let next = AtomicU64::new(seeds.start);
    // Two at a time: each of them mostly waits for its own threads.
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let _last = EndsAll;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || FAILED.load(Ordering::Relaxed) {
                        break;
                    }
                    let dir = directory();
                    runtime.block_on(async {
                        Play::open(seed, dir.path()).await.run(seed).await;
                    });
                    if (seed + 1).is_multiple_of(1000) {
                        println!("{} histories", seed + 1);
                    }
                }
            });
        }
    });
    let [
        opened,
        power_cuts,
        rebuilt,
        removed,
        relocated,
        compacted,
        tombstones,
    ] = [
        &TALLY.opened,
        &TALLY.power_cuts,
        &TALLY.rebuilt,
        &TALLY.removed,
        &TALLY.relocated_bytes,
        &TALLY.compacted,
        &TALLY.tombstones,
    ]
    .map(|counter| counter.load(Ordering::Relaxed));
    println!(
        "opened {opened} times, {power_cuts} power cuts, index made anew {rebuilt} times, {removed} \
         segments removed, {relocated} bytes relocated, {compacted} records compacted away, \
         {tombstones} tombstones gone"
    );
    if seeds.end - seeds.start >= 100 {
        let all = [
            power_cuts, rebuilt, removed, relocated, compacted, tombstones,
        ];
        assert!(all.iter().all(|n| *n > 0), "some of it never happened");
    }
}

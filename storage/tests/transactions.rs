//! Transactions: what each step answers, and random histories of them on a simulated disk, with the power
//! going at any write.
//!
//! What must hold in every history:
//! - a transaction that was committed is readable in all its partitions, and its offsets are committed;
//! - one that was aborted, or whose end was never written, is readable in none, also after compaction;
//! - one whose end was not answered is one or the other, everywhere;
//! - readers of committed records get as far as the first transaction that is not over, and no farther.
//!
//! `HOLDFAST_SEED=n` plays one history alone, `HOLDFAST_HISTORIES=n` so many.
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

use holdfast_storage::log::{
    AppendError, Clock, CommittedOffset, Isolation, Log, LogOptions, OffsetCommit, Outcome,
    Partition, ProducerIdentity, Topic, TransactionError, TransactionState, batch,
};
use holdfast_wal::disk::SimDisk;
use holdfast_wal::disk::sim::Random;

use common::{offset, producer_batch, topic, transactional_batch};

const TIMEOUT_MS: u32 = 60_000;

/// Values of the committed records of a partition.
fn committed(log: &Log, partition: &Partition) -> Vec<String> {
    let mut out = Vec::new();
    let mut next = partition.log_start_offset();
    loop {
        let records = log.read(partition, next, 16 << 10).unwrap();
        let Some(last) = records.last() else {
            return out;
        };
        next = last.offset.plus(1);
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        out.extend(
            records
                .iter()
                .map(|r| text(r.record.value.as_ref().unwrap())),
        );
    }
}

async fn append(
    log: &Log,
    id: &str,
    partition: &Arc<Partition>,
    producer: ProducerIdentity,
    sequence: i32,
    pairs: &[(&str, &str)],
) -> Result<i64, AppendError> {
    let batch = transactional_batch(producer, sequence, pairs);
    let appending = log.append_batch_of(id, true, partition, batch).await?;
    Ok(appending.await?.base_offset.value())
}

fn commit_of(topic: &Topic, at: i64) -> OffsetCommit {
    OffsetCommit {
        topic: topic.id(),
        partition: 0,
        committed: CommittedOffset {
            offset: at,
            leader_epoch: -1,
            metadata: String::new(),
            commit_timestamp_ms: 5,
        },
    }
}

#[tokio::test]
async fn a_transaction_is_readable_when_it_is_committed_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let made = log.create_topic(topic("t", 2, &[])).await.unwrap();
    let (a, b) = (made.partition(0).unwrap(), made.partition(1).unwrap());
    let me = log.begin_producer("id", TIMEOUT_MS, None).await.unwrap();
    assert_eq!(me.epoch, 0);
    append(&log, "id", a, me, 0, &[("k", "1"), ("k", "2")])
        .await
        .unwrap();
    append(&log, "id", b, me, 0, &[("k", "3")]).await.unwrap();
    // Somebody else's record stands behind it, and waits.
    let plain = producer_batch(-1, -1, -1, &["4"]);
    log.append_batch(a, plain).await.unwrap().await.unwrap();
    assert_eq!(a.high_watermark(), offset(3));
    assert_eq!(a.last_stable_offset(), offset(0));
    assert_eq!(committed(&log, a), Vec::<String>::new());
    let all = log.fetch(a, offset(0), 1 << 20, Isolation::Uncommitted);
    let header = batch::BatchHeader::parse(&all.unwrap().batches[0]).unwrap();
    assert_eq!(header.records, 2);
    let group = commit_of(&made, 7);
    log.add_offsets_to_transaction("id", me, "g", vec![group], true)
        .await
        .unwrap();
    assert!(log.is_offset_pending("g", made.id(), 0));
    assert_eq!(log.committed_offset("g", made.id(), 0), None);
    let described = log.transaction("id").unwrap();
    assert_eq!(described.value.state, TransactionState::Ongoing);
    assert_eq!(described.partitions.len(), 2);
    assert_eq!(log.producers(a)[0].transaction_start, Some(offset(0)));

    let next = log
        .end_transaction("id", me, Outcome::Commit, true)
        .await
        .unwrap();
    assert_eq!((next.id, next.epoch), (me.id, 1));
    assert_eq!(committed(&log, a), ["1", "2", "4"]);
    assert_eq!(committed(&log, b), ["3"]);
    // Markers take offsets.
    assert_eq!(
        (a.high_watermark(), b.high_watermark()),
        (offset(4), offset(2))
    );
    assert_eq!(a.last_stable_offset(), offset(4));
    assert!(!log.is_offset_pending("g", made.id(), 0));
    let found = log.committed_offset("g", made.id(), 0).unwrap();
    assert_eq!(found.offset, 7);
    // The answer was lost, and it asks again.
    let again = log.end_transaction("id", me, Outcome::Commit, true).await;
    assert_eq!(again, Ok(next));
    // With the new epoch sequence numbers begin again; with the old one nothing is taken.
    append(&log, "id", a, next, 0, &[("k", "5")]).await.unwrap();
    let fenced = append(&log, "id", a, me, 2, &[("k", "6")])
        .await
        .unwrap_err();
    let wanted = TransactionError::Fenced(me.id.0);
    assert_eq!(fenced, AppendError::Transaction(Box::new(wanted)));
}

#[tokio::test]
async fn what_is_aborted_is_read_by_nobody_after_a_restart_either() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let made = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let a = made.partition(0).unwrap();
    let me = log.begin_producer("id", TIMEOUT_MS, None).await.unwrap();
    append(&log, "id", a, me, 0, &[("k", "1")]).await.unwrap();
    log.end_transaction("id", me, Outcome::Abort, false)
        .await
        .unwrap();
    append(&log, "id", a, me, 1, &[("k", "2")]).await.unwrap();
    log.end_transaction("id", me, Outcome::Commit, false)
        .await
        .unwrap();
    append(&log, "id", a, me, 2, &[("k", "3")]).await.unwrap();
    drop(log);
    for without_index in [false, true] {
        if without_index {
            fs::remove_dir_all(dir.path().join("index")).unwrap();
        }
        let log = Log::open(LogOptions::new(dir.path())).unwrap();
        let made = log.topic("t").unwrap();
        let a = made.partition(0).unwrap();
        assert_eq!(committed(&log, a), ["2"]);
        assert_eq!(a.last_stable_offset(), offset(4));
        let found = log
            .fetch(a, offset(0), 1 << 20, Isolation::Committed)
            .unwrap();
        let aborted: Vec<_> = found.aborted.iter().map(|a| (a.first, a.last)).collect();
        assert_eq!(aborted, [(offset(0), offset(1))]);
        // Its producer goes on with the same transaction.
        let sequence = 3 + i32::from(without_index);
        append(&log, "id", a, me, sequence, &[("k", "4")])
            .await
            .unwrap();
        assert_eq!(log.transaction("id").unwrap().partitions.len(), 1);
    }
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let made = log.topic("t").unwrap();
    let a = made.partition(0).unwrap();
    log.end_transaction("id", me, Outcome::Commit, false)
        .await
        .unwrap();
    assert_eq!(committed(&log, a), ["2", "3", "4", "4"]);
    // Who is told of nothing any more has nothing to skip.
    log.delete_records(a, Some(offset(2))).await.unwrap();
    let found = log
        .fetch(a, offset(2), 1 << 20, Isolation::Committed)
        .unwrap();
    assert_eq!(found.aborted, []);
}

#[tokio::test]
async fn a_producer_that_takes_over_aborts_what_was_left() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let made = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let a = made.partition(0).unwrap();
    let first = log.begin_producer("id", TIMEOUT_MS, None).await.unwrap();
    append(&log, "id", a, first, 0, &[("k", "1")])
        .await
        .unwrap();
    let second = log.begin_producer("id", TIMEOUT_MS, None).await.unwrap();
    assert_eq!(second.id, first.id);
    assert!(second.epoch > first.epoch);
    assert_eq!(a.last_stable_offset(), a.high_watermark());
    assert_eq!(committed(&log, a), Vec::<String>::new());
    let ended = log
        .end_transaction("id", first, Outcome::Commit, true)
        .await;
    assert_eq!(ended, Err(TransactionError::Fenced(first.id.0)));
    let added = log
        .add_to_transaction("id", first, vec![a.clone()], false)
        .await;
    assert_eq!(added, Err(TransactionError::Fenced(first.id.0)));
    let nobody = log
        .end_transaction("other", first, Outcome::Commit, true)
        .await;
    assert_eq!(nobody, Err(TransactionError::UnknownId));
    let empty = log
        .end_transaction("id", second, Outcome::Commit, true)
        .await;
    assert_eq!(empty, Err(TransactionError::State(TransactionState::Empty)));
}

#[tokio::test]
async fn partitions_are_added_before_they_are_written_to_where_the_client_must() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let made = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let a = made.partition(0).unwrap();
    let me = log.begin_producer("id", TIMEOUT_MS, None).await.unwrap();
    let data = |sequence| transactional_batch(me, sequence, &[("k", "v")]);
    let appending = log.append_batch_of("id", false, a, data(0)).await.unwrap();
    let wanted = AppendError::Transaction(Box::new(TransactionError::NotAdded));
    assert_eq!(appending.await.unwrap_err(), wanted);
    log.add_to_transaction("id", me, vec![a.clone()], false)
        .await
        .unwrap();
    let appending = log.append_batch_of("id", false, a, data(0)).await.unwrap();
    appending.await.unwrap();
    // The same again is no second record.
    let appending = log.append_batch_of("id", false, a, data(0)).await.unwrap();
    assert_eq!(appending.await.unwrap().base_offset, offset(0));
    let plain = producer_batch(me.id.0, me.epoch, 1, &["x"]);
    let wanted = AppendError::Transaction(Box::new(TransactionError::NotTransactional));
    let refused = log.append_batch(a, plain).await.unwrap().await;
    assert_eq!(refused.unwrap_err(), wanted);
    let without_id = log.append_batch(a, data(1)).await.unwrap_err();
    let wanted = AppendError::Transaction(Box::new(TransactionError::NoId));
    assert_eq!(without_id, wanted);
    // Its topic goes: the transaction ends all the same.
    log.delete_topic(made.id()).await.unwrap();
    log.end_transaction("id", me, Outcome::Commit, false)
        .await
        .unwrap();
}

#[tokio::test]
async fn transactions_time_out_and_ids_expire() {
    let dir = tempfile::tempdir().unwrap();
    let now = Arc::new(AtomicU64::new(BEGIN_MS));
    let log = Log::open(options(dir.path(), &now)).unwrap();
    let made = log.create_topic(topic("t", 1, &[])).await.unwrap();
    let a = made.partition(0).unwrap();
    let me = log.begin_producer("id", 1000, None).await.unwrap();
    append(&log, "id", a, me, 0, &[("k", "1")]).await.unwrap();
    now.fetch_add(1000, Ordering::SeqCst);
    log.expire_transactions(10_000).await.unwrap();
    assert_eq!(a.last_stable_offset(), offset(0));
    now.fetch_add(1, Ordering::SeqCst);
    log.expire_transactions(10_000).await.unwrap();
    assert_eq!(a.last_stable_offset(), a.high_watermark());
    assert_eq!(committed(&log, a), Vec::<String>::new());
    let late = log.end_transaction("id", me, Outcome::Commit, true).await;
    let aborted = TransactionState::CompleteAbort;
    assert_eq!(late, Err(TransactionError::State(aborted)));
    now.fetch_add(10_001, Ordering::SeqCst);
    log.expire_transactions(10_000).await.unwrap();
    assert!(log.transaction("id").is_none());
    let anew = log.begin_producer("id", 1000, None).await.unwrap();
    assert!(anew.id > me.id);
}

const BEGIN_MS: u64 = 1_700_000_000_000;

fn options(dir: &Path, now: &Arc<AtomicU64>) -> LogOptions {
    let now = now.clone();
    LogOptions {
        segment_bytes: 32 << 10,
        clock: Clock::new(move || now.load(Ordering::SeqCst)),
        ..LogOptions::new(dir)
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Open,
    Committed,
    Aborted,
    /// Its end was not answered.
    Unsure,
}

#[derive(Debug)]
struct Sent {
    fate: Fate,
    /// Topic, partition, key and value, in order.
    records: Vec<(usize, usize, String, String)>,
    /// What it commits of its producer's group.
    offset: Option<i64>,
}

/// One transactional producer.
struct Client {
    id: String,
    identity: ProducerIdentity,
    /// Next sequence numbers, by topic and partition.
    sequences: BTreeMap<(usize, usize), i32>,
    sent: Vec<Sent>,
}

impl Client {
    fn open(&mut self) -> Option<&mut Sent> {
        self.sent.last_mut().filter(|sent| sent.fate == Fate::Open)
    }
}

struct Play {
    random: Random,
    at: String,
    dir: tempfile::TempDir,
    disk: SimDisk,
    now: Arc<AtomicU64>,
    log: Option<Log>,
    clients: Vec<Client>,
    counter: u32,
}

const TOPICS: [(&str, u32); 2] = [("plain", 3), ("compacted", 1)];
const KEYS: u64 = 6;

impl Play {
    async fn new(seed: u64) -> Play {
        let dir = tempfile::tempdir().unwrap();
        let disk = SimDisk::new(seed ^ 0x7a9);
        let now = Arc::new(AtomicU64::new(BEGIN_MS));
        let log = Log::open_on(options(dir.path(), &now), Arc::new(disk.clone())).unwrap();
        let compacted = [
            ("cleanup.policy", "compact"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        for (name, partitions) in TOPICS {
            let configs: &[_] = if name == "compacted" { &compacted } else { &[] };
            log.create_topic(topic(name, partitions, configs))
                .await
                .unwrap();
        }
        let mut clients = Vec::new();
        for n in 0..3 {
            let id = format!("client-{n}");
            let identity = log.begin_producer(&id, TIMEOUT_MS, None).await.unwrap();
            clients.push(Client {
                id,
                identity,
                sequences: BTreeMap::new(),
                sent: Vec::new(),
            });
        }
        Play {
            random: Random::new(seed),
            at: String::new(),
            dir,
            disk,
            now,
            log: Some(log),
            clients,
            counter: 0,
        }
    }

    fn log(&self) -> Log {
        self.log.clone().unwrap()
    }

    async fn run(mut self, seed: u64) {
        let steps = 60 + self.random.below(100);
        for step in 0..steps {
            self.at = format!("seed {seed} step {step}");
            if self.random.chance(25) {
                let changes = self.random.below(60);
                self.disk.power_off_after(changes);
            }
            let went_well = self.step().await;
            if !went_well || self.disk.is_off() {
                self.crash().await;
            } else if self.random.chance(60) {
                self.check();
            }
        }
        self.at = format!("seed {seed}, end");
        self.crash().await;
        self.log().clean();
        self.check();
    }

    /// One thing that can happen; false if something failed.
    async fn step(&mut self) -> bool {
        let at = self.random.below(3) as usize;
        self.now.fetch_add(100, Ordering::SeqCst);
        match self.random.below(100) {
            0..=54 => self.send(at).await,
            55..=62 => self.send_offset(at).await,
            63..=84 => self.end(at).await,
            85..=87 => self.take_over(at).await,
            88..=92 => self.plain().await,
            93 => {
                // The power stays.
                self.disk.power_off_after(u64::MAX);
                self.log().close();
                self.reopen().await;
                true
            }
            _ => {
                self.log().clean();
                true
            }
        }
    }

    async fn send(&mut self, at: usize) -> bool {
        let log = self.log();
        let topic_at = usize::from(self.random.chance(400));
        let (name, partitions) = TOPICS[topic_at];
        let index = self.random.below(u64::from(partitions)) as usize;
        let records = 1 + self.random.below(3);
        let mut pairs = Vec::new();
        for _ in 0..records {
            self.counter += 1;
            let filler = "x".repeat(self.random.below(400) as usize);
            let value = format!("{}-{}-{filler}", self.clients[at].id, self.counter);
            pairs.push((format!("key-{}", self.random.below(KEYS)), value));
        }
        let adds = self.random.chance(700);
        let client = &mut self.clients[at];
        if client.open().is_none() {
            client.sent.push(Sent {
                fate: Fate::Open,
                records: Vec::new(),
                offset: None,
            });
        }
        let place = (topic_at, index);
        let sequence = *client.sequences.entry(place).or_default();
        let (id, identity) = (client.id.clone(), client.identity);
        let mine = pairs
            .iter()
            .map(|(key, value)| (topic_at, index, key.clone(), value.clone()));
        client.open().unwrap().records.extend(mine);
        let made = log.topic(name).unwrap();
        let partition = made.partition(index as i32).unwrap();
        if !adds {
            let all = vec![partition.clone()];
            if log
                .add_to_transaction(&id, identity, all, false)
                .await
                .is_err()
            {
                return false;
            }
        }
        let pairs: Vec<(&str, &str)> = pairs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let batch = transactional_batch(identity, sequence, &pairs);
        let Ok(appending) = log.append_batch_of(&id, adds, partition, batch).await else {
            return false;
        };
        let done = appending.await.is_ok();
        *self.clients[at].sequences.get_mut(&place).unwrap() += pairs.len() as i32;
        done
    }

    async fn send_offset(&mut self, at: usize) -> bool {
        let log = self.log();
        self.counter += 1;
        let wanted = i64::from(self.counter);
        let client = &mut self.clients[at];
        let Some(sent) = client.open() else {
            return true;
        };
        sent.offset = Some(wanted);
        let (id, identity) = (client.id.clone(), client.identity);
        let commits = vec![commit_of(&log.topic("plain").unwrap(), wanted)];
        let group = format!("group-{id}");
        let added = log.add_offsets_to_transaction(&id, identity, &group, commits, true);
        added.await.is_ok()
    }

    async fn end(&mut self, at: usize) -> bool {
        let log = self.log();
        let commits = self.random.chance(600);
        let raises = self.random.chance(500);
        let client = &mut self.clients[at];
        if client.open().is_none() {
            return true;
        }
        let outcome = if commits {
            Outcome::Commit
        } else {
            Outcome::Abort
        };
        let (id, identity) = (client.id.clone(), client.identity);
        let ended = log.end_transaction(&id, identity, outcome, raises).await;
        let client = &mut self.clients[at];
        let sent = client.open().unwrap();
        match ended {
            Ok(identity) => {
                sent.fate = if commits {
                    Fate::Committed
                } else {
                    Fate::Aborted
                };
                if client.identity != identity {
                    client.sequences.clear();
                    client.identity = identity;
                }
                true
            }
            Err(_) => {
                sent.fate = if commits { Fate::Unsure } else { Fate::Aborted };
                false
            }
        }
    }

    async fn take_over(&mut self, at: usize) -> bool {
        let log = self.log();
        let client = &mut self.clients[at];
        match log.begin_producer(&client.id, TIMEOUT_MS, None).await {
            Ok(identity) => {
                client.identity = identity;
                client.sequences.clear();
                if let Some(sent) = client.open() {
                    sent.fate = Fate::Aborted;
                }
                true
            }
            Err(_) => false,
        }
    }

    /// A record that is nobody's transaction.
    async fn plain(&mut self) -> bool {
        let log = self.log();
        let made = log.topic("plain").unwrap();
        let partition = made.partition(self.random.below(3) as i32).unwrap();
        let batch = producer_batch(-1, -1, -1, &["plain"]);
        match log.append_batch(partition, batch).await {
            Ok(appending) => appending.await.is_ok(),
            Err(_) => false,
        }
    }

    async fn crash(&mut self) {
        self.disk.power_off_after(0);
        self.log().close();
        self.log = None;
        self.disk.crash();
        self.reopen().await;
    }

    async fn reopen(&mut self) {
        self.log = None;
        if self.random.chance(300) {
            let _ = fs::remove_dir_all(self.dir.path().join("index"));
        }
        let opened = options(self.dir.path(), &self.now);
        let log = Log::open_on(opened, Arc::new(self.disk.clone())).unwrap();
        assert!(log.damage().is_empty(), "{}", self.at);
        self.log = Some(log);
        self.settle_fates();
        self.check();
        // As a producer does that lost its connection and its state.
        for at in 0..self.clients.len() {
            assert!(self.take_over(at).await, "{}", self.at);
        }
        self.check();
        for (name, _) in TOPICS {
            for partition in self.log().topic(name).unwrap().partitions() {
                let (stable, end) = (partition.last_stable_offset(), partition.high_watermark());
                assert_eq!(stable, end, "{}: {name}", self.at);
            }
        }
    }

    /// An end that was not answered was written or not: the state of its id says which.
    fn settle_fates(&mut self) {
        let log = self.log();
        for client in &mut self.clients {
            let state = log.transaction(&client.id).unwrap().value.state;
            if let Some(last) = client.sent.last_mut()
                && last.fate == Fate::Unsure
            {
                last.fate = match state {
                    TransactionState::CompleteCommit => Fate::Committed,
                    _ => Fate::Open,
                };
            }
        }
    }

    fn check(&self) {
        let log = self.log();
        for (topic_at, (name, partitions)) in TOPICS.iter().enumerate() {
            let made = log.topic(name).unwrap();
            for index in 0..*partitions as usize {
                let found = committed(&log, &made.partitions()[index]);
                self.check_partition((topic_at, index), &found);
            }
        }
        for client in &self.clients {
            let of_fate = |fate| {
                let sent = client.sent.iter().filter(move |sent| sent.fate == fate);
                sent.filter_map(|sent| sent.offset)
            };
            let plain = log.topic("plain").unwrap();
            let group = format!("group-{}", client.id);
            let found = log.committed_offset(&group, plain.id(), 0);
            let found = found.map(|committed| committed.offset);
            let wanted = of_fate(Fate::Committed).next_back();
            assert_eq!(found, wanted, "{}: {group}", self.at);
        }
    }

    fn check_partition(&self, place: (usize, usize), found: &[String]) {
        let at = &self.at;
        for client in &self.clients {
            let of = |fate: Fate| {
                let sent = client.sent.iter().filter(move |sent| sent.fate == fate);
                let records = sent.flat_map(|sent| &sent.records);
                records.filter(move |(topic, index, ..)| (*topic, *index) == place)
            };
            let mine = format!("{}-", client.id);
            let seen: Vec<&String> = found.iter().filter(|v| v.starts_with(&mine)).collect();
            let wanted: Vec<&String> = of(Fate::Committed).map(|(.., value)| value).collect();
            if TOPICS[place.0].0 == "compacted" {
                // In order, and nothing else; what is missing was superseded.
                let mut rest = wanted.iter();
                let in_order = seen.iter().all(|value| rest.any(|other| other == value));
                assert!(in_order, "{at}: {place:?}: {seen:?} of {wanted:?}");
                continue;
            }
            // What stands behind somebody's open transaction is not seen yet.
            let is_held = self.is_any_ongoing();
            let seen_of_it = wanted.get(..seen.len()).unwrap_or_default();
            assert_eq!(seen_of_it, seen, "{at}: {place:?}");
            assert!(is_held || seen.len() == wanted.len(), "{at}: {place:?}");
        }
        if TOPICS[place.0].0 == "compacted" {
            self.check_newest(found);
        }
    }

    /// Of every key the newest committed record is there.
    fn check_newest(&self, found: &[String]) {
        if self.is_any_ongoing() {
            return;
        }
        for client in &self.clients {
            let committed = client
                .sent
                .iter()
                .filter(|sent| sent.fate == Fate::Committed);
            let records = committed.flat_map(|sent| &sent.records);
            let newest: BTreeMap<&String, &String> = records
                .filter(|(topic, ..)| *topic == 1)
                .map(|(_, _, key, value)| (key, value))
                .collect();
            for (key, value) in newest {
                // Or a later one of somebody else.
                let others = found.iter().any(|other| {
                    self.key_of(other) == Some(key.as_str()) && number(other) > number(value)
                });
                let is_there = found.contains(value) || others;
                assert!(is_there, "{}: {key} lost {value}", self.at);
            }
        }
    }

    fn is_any_ongoing(&self) -> bool {
        let all = self.log().transactions();
        let mut states = all.iter().map(|(_, known)| known.value.state);
        states.any(|state| state == TransactionState::Ongoing)
    }

    fn key_of(&self, value: &str) -> Option<&str> {
        let records = self
            .clients
            .iter()
            .flat_map(|c| &c.sent)
            .flat_map(|sent| &sent.records);
        let mut records = records.filter(|(topic, ..)| *topic == 1);
        let found = records.find(|(_, _, _, other)| other == value);
        found.map(|(_, _, key, _)| key.as_str())
    }
}

/// The position of a record in the order in which they were sent.
fn number(value: &str) -> u32 {
    value.split('-').nth(2).unwrap().parse().unwrap()
}

#[test]
fn histories() {
    let number = |name: &str| -> Option<u64> {
        let text = std::env::var(name).ok()?;
        Some(text.parse().expect("a number"))
    };
    let seeds = match (number("HOLDFAST_SEED"), number("HOLDFAST_HISTORIES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(histories)) => 0..histories,
        (None, None) => 0..200,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for seed in seeds {
        runtime.block_on(async { Play::new(seed).await.run(seed).await });
    }
}

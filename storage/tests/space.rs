//! Full disks, bounds, and rot that is found before somebody reads it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::{
    AppendError, BYTES_MAX, Clock, DURABILITY, Log, LogOptions, LogState, NewTopic, Partition,
    Record, Retention,
};
use holdfast_wal::disk::sim::Faults;
use holdfast_wal::disk::{Disk, SimDisk};

use common::{offset, read_all};

const SEGMENT_BYTES: u32 = 64 << 10;

fn options(dir: &Path, now: &Arc<AtomicU64>) -> LogOptions {
    let now = now.clone();
    LogOptions {
        segment_bytes: SEGMENT_BYTES,
        retention: Retention {
            ms: None,
            bytes: None,
        },
        cleaner_interval: Duration::from_secs(3600),
        disk_reserve_bytes: 2 * u64::from(SEGMENT_BYTES),
        scrub_interval: Duration::from_secs(3600),
        clock: Clock::new(move || 1_700_000_000_000 + now.load(Ordering::SeqCst)),
        ..LogOptions::new(dir)
    }
}

async fn topic(log: &Log, name: &str, configs: &[(&str, &str)]) -> Arc<Partition> {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    let new = NewTopic {
        name: name.into(),
        partitions: 1,
        configs: configs.iter().map(own).collect(),
    };
    let topic = log.create_topic(new).await.unwrap();
    topic.partition(0).unwrap().clone()
}

fn kilobyte(n: usize) -> Bytes {
    Bytes::from(format!("{n:01024}"))
}

async fn append(log: &Log, partition: &Arc<Partition>, n: usize) -> Result<i64, AppendError> {
    let record = Record {
        value: Some(kilobyte(n)),
        ..Record::default()
    };
    let appended = log.append(partition, &[record]).await?.await?;
    Ok(appended.base_offset.value())
}

/// Appends until it is refused; how many were taken.
async fn fill(log: &Log, partition: &Arc<Partition>) -> (usize, AppendError) {
    for n in 0..10_000 {
        if let Err(error) = append(log, partition, n).await {
            return (n, error);
        }
    }
    panic!("never full");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_lets_delete_and_goes_on_by_itself() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::default());
    let sim = SimDisk::new(1);
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    sim.set_capacity(20 * u64::from(SEGMENT_BYTES));
    let log = Log::open_on(options(dir.path(), &now), disk.clone()).unwrap();
    let partition = topic(&log, "t", &[]).await;
    let (taken, error) = fill(&log, &partition).await;
    assert!((800..1200).contains(&taken), "{taken}");
    assert!(
        matches!(&error, AppendError::Storage(reason) if reason.contains("reserve")),
        "{error}"
    );
    let LogState::Full { reason } = log.state() else {
        panic!("{:?}", log.state());
    };
    assert!(reason.contains("reserve"), "{reason}");
    // The reserve is still there, and what must go on goes on.
    assert!(disk.free_bytes().unwrap() >= 2 * u64::from(SEGMENT_BYTES));
    let found = read_all(&log, &partition);
    assert_eq!(found.len(), taken);
    log.put_setting("room", "key", Some(Bytes::from_static(b"value")))
        .await
        .unwrap();
    assert!(append(&log, &partition, 0).await.is_err());
    let half = offset(taken as i64 / 2);
    log.delete_records(&partition, Some(half)).await.unwrap();
    log.clean();
    assert_eq!(log.state(), LogState::Accepting);
    assert_eq!(append(&log, &partition, 7).await.unwrap(), taken as i64);
    let found = read_all(&log, &partition);
    assert_eq!(found.first().unwrap().0, half.value());
    assert_eq!(found.last().unwrap(), &(taken as i64, kilobyte(7)));
    assert_eq!(log.stats().disk_refusals, 1);

    // Full once more, and restarted so: it opens, and is full.
    let (more, _) = fill(&log, &partition).await;
    drop(log);
    let log = Log::open_on(options(dir.path(), &now), disk).unwrap();
    let partition = log.topic("t").unwrap().partition(0).unwrap().clone();
    assert_eq!(read_all(&log, &partition).len(), found.len() + more);
    log.delete_records(&partition, None).await.unwrap();
    log.clean();
    append(&log, &partition, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_written_refuses_appends_and_goes_on_by_itself() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::default());
    let sim = SimDisk::new(3);
    let log = Log::open_on(options(dir.path(), &now), Arc::new(sim.clone())).unwrap();
    let partition = topic(&log, "t", &[]).await;
    append(&log, &partition, 0).await.unwrap();
    let broken = Faults {
        write_error: 1000,
        ..Faults::default()
    };
    sim.set_faults(broken);
    let error = append(&log, &partition, 1).await.unwrap_err();
    assert!(matches!(error, AppendError::Storage(_)), "{error}");
    log.clean();
    let LogState::Unwritable { reason } = log.state() else {
        panic!("{:?}", log.state());
    };
    assert!(reason.contains("write to segment"), "{reason}");
    assert_eq!(read_all(&log, &partition).len(), 1);
    sim.set_faults(Faults::default());
    log.clean();
    assert_eq!(log.state(), LogState::Accepting);
    assert_eq!(append(&log, &partition, 2).await.unwrap(), 1);
}

/// Half of every segment is kept for ever: only relocation gives the other half back, on the reserve.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_cleaned_on_its_reserve() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::default());
    let sim = SimDisk::new(2);
    sim.set_capacity(20 * u64::from(SEGMENT_BYTES));
    let log = Log::open_on(options(dir.path(), &now), Arc::new(sim)).unwrap();
    let kept = topic(&log, "kept", &[]).await;
    let gone = topic(&log, "gone", &[]).await;
    let mut n = 0;
    while append(&log, &kept, n).await.is_ok() && append(&log, &gone, n).await.is_ok() {
        n += 1;
    }
    assert!(matches!(log.state(), LogState::Full { .. }));
    let count = read_all(&log, &kept).len();
    log.delete_topic(gone.topic_id()).await.unwrap();
    log.clean();
    assert_eq!(log.state(), LogState::Accepting);
    let found = read_all(&log, &kept);
    assert_eq!(found.len(), count);
    assert!(
        found
            .iter()
            .enumerate()
            .all(|(n, (at, value))| *at == n as i64 && *value == kilobyte(n))
    );
    assert!(log.stats().relocated_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_segments_of_a_node_and_the_bytes_of_a_partition_can_be_bounded() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::default());
    let log = Log::open(LogOptions {
        disk_bytes_max: Some(10 * u64::from(SEGMENT_BYTES)),
        ..options(dir.path(), &now)
    })
    .unwrap();
    let small = topic(&log, "small", &[(BYTES_MAX, "100000")]).await;
    let (taken, error) = fill(&log, &small).await;
    assert!((90..100).contains(&taken), "{taken}");
    assert!(
        matches!(&error, AppendError::Storage(reason) if reason.contains(BYTES_MAX)),
        "{error}"
    );
    // Only the partition is full, and only until something is deleted.
    assert_eq!(log.state(), LogState::Accepting);
    log.delete_records(&small, None).await.unwrap();
    let other = topic(&log, "other", &[]).await;
    let (_, error) = fill(&log, &other).await;
    assert!(
        matches!(&error, AppendError::Storage(reason) if reason.contains("may have")),
        "{error}"
    );
    assert!(log.stats().disk_used_bytes <= 11 * u64::from(SEGMENT_BYTES));
    log.delete_records(&other, None).await.unwrap();
    log.clean();
    append(&log, &other, 0).await.unwrap();
    append(&log, &small, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn scrubbing_names_what_rotted() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(0)));
    let sim = SimDisk::new(3);
    let log = Log::open_on(options(dir.path(), &now), Arc::new(sim.clone())).unwrap();
    let partition = topic(&log, "t", &[]).await;
    for n in 0..300 {
        append(&log, &partition, n).await.unwrap();
    }
    // One segment a round.
    let pass = || {
        for _ in 0..8 {
            now.fetch_add(3_600_000, Ordering::SeqCst);
            log.clean();
        }
    };
    log.clean();
    pass();
    let scrubbed = log.stats().scrubbed_bytes;
    assert!(scrubbed > 200 << 10, "{scrubbed}");
    assert!(log.scrub_findings().is_empty());
    // Somewhere in the middle of the second segment.
    let name = "0000000000000002.wal";
    assert!(sim.flip_bit(name, 30_000 * 8));
    pass();
    let findings = log.scrub_findings();
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].contains(": t-0, offsets "), "{findings:?}");
    let damaged = log.stats().damaged_bytes;
    assert!((1024..2048).contains(&damaged), "{damaged}");
    // It is told once.
    pass();
    assert_eq!(log.scrub_findings(), findings);
    assert_eq!(log.stats().damaged_bytes, damaged);
}

#[tokio::test(flavor = "multi_thread")]
async fn durability_os_acknowledges_before_the_disk_and_syncs_soon() {
    let (dir, now) = (tempfile::tempdir().unwrap(), Arc::default());
    let sim = SimDisk::new(4);
    let log = Log::open_on(options(dir.path(), &now), Arc::new(sim.clone())).unwrap();
    let quick = topic(&log, "quick", &[(DURABILITY, "os")]).await;
    let safe = topic(&log, "safe", &[]).await;
    append(&log, &quick, 0).await.unwrap();
    let before = sim.syncs();
    for n in 1..10 {
        append(&log, &quick, n).await.unwrap();
    }
    assert!(
        sim.syncs() <= before + 1,
        "{} fdatasyncs",
        sim.syncs() - before
    );
    assert_eq!(read_all(&log, &quick).len(), 10);
    // Who waits for the disk takes what was written before with it.
    append(&log, &safe, 0).await.unwrap();
    let synced = sim.syncs();
    append(&log, &quick, 10).await.unwrap();
    // Nobody waits, and yet it does not take long.
    while sim.syncs() == synced {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sim.power_off_after(0);
    drop(log);
    sim.crash();
    let log = Log::open_on(options(dir.path(), &now), Arc::new(sim)).unwrap();
    let quick = log.topic("quick").unwrap().partition(0).unwrap().clone();
    assert_eq!(read_all(&log, &quick).len(), 11);
}

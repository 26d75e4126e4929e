//! The log from its callers' side, on a real directory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_storage::log::{
    AppendError, ChangeTopicError, CommittedOffset, CreateTopicError, FetchError, Header,
    Isolation, Log, LogOptions, LogState, NewTopic, Offset, OffsetCommit, OpenError, Partition,
    Record, RecordFault, batch,
};

use common::{offset, producer_batch, read_all};

const SMALL_SEGMENTS: u32 = 256 << 10;

fn open(dir: &Path) -> Log {
    Log::open(LogOptions {
        segment_bytes: SMALL_SEGMENTS,
        ..LogOptions::new(dir)
    })
    .unwrap()
}

fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic {
        name: name.into(),
        partitions,
        configs: Vec::new(),
    }
}

fn record(key: &str, value: impl Into<Bytes>) -> Record {
    Record {
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(value.into()),
        headers: Vec::new(),
    }
}

#[tokio::test]
async fn records_are_readable_when_acknowledged_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 3)).await.unwrap();
    let mut wanted: Vec<Vec<(i64, Bytes)>> = vec![Vec::new(); 3];
    for i in 0..2_000 {
        let key = format!("device-{}", i % 17);
        let partition = topic.partition_for(Some(key.as_bytes()));
        let value = Bytes::from(format!("{i:0300}"));
        let appended = log
            .append(partition, &[record(&key, value.clone())])
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(
            partition.high_watermark() > appended.base_offset,
            "durable means readable"
        );
        wanted[partition.index() as usize].push((appended.base_offset.value(), value));
    }
    assert!(log.stats().segments > 2, "the test spans sealed segments");
    for partition in topic.partitions() {
        assert_eq!(
            read_all(&log, partition),
            wanted[partition.index() as usize]
        );
    }
    let (id, cluster, epoch) = (topic.id(), log.cluster_id(), log.leader_epoch());
    log.close();
    assert_eq!(log.state(), LogState::Closed);
    assert_eq!(
        log.append(topic.partition(0).unwrap(), &[record("k", "v")])
            .await
            .unwrap_err(),
        AppendError::Closed
    );
    drop(log);

    let log = open(dir.path());
    assert_eq!((log.cluster_id(), log.leader_epoch()), (cluster, epoch + 1));
    let topic = log.topic("t").unwrap();
    assert_eq!(topic.id(), id);
    for partition in topic.partitions() {
        assert_eq!(
            read_all(&log, partition),
            wanted[partition.index() as usize]
        );
    }
}

#[tokio::test]
async fn the_index_can_be_deleted_and_a_torn_head_is_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 2)).await.unwrap();
    let producer = log.new_producer_id().await.unwrap().0;
    for i in 0..1_500_i32 {
        let partition = topic.partition(i % 2).unwrap();
        log.append_batch(
            partition,
            producer_batch(producer, 0, i / 2, &[&format!("{i:0400}")]),
        )
        .await
        .unwrap()
        .await
        .unwrap();
    }
    let committed = CommittedOffset {
        offset: 5,
        leader_epoch: 1,
        metadata: "m".into(),
        commit_timestamp_ms: 9,
    };
    let commit = OffsetCommit {
        topic: topic.id(),
        partition: 1,
        committed: committed.clone(),
    };
    log.commit_offsets("g", vec![commit]).await.unwrap();
    log.put_setting("room", "a", Some(Bytes::from_static(b"1")))
        .await
        .unwrap();
    log.put_setting("room", "b", Some(Bytes::from_static(b"2")))
        .await
        .unwrap();
    log.put_setting("room", "a", None).await.unwrap();
    let wanted: Vec<_> = topic
        .partitions()
        .iter()
        .map(|p| read_all(&log, p))
        .collect();

    // What a crash leaves: the segments as they are, the head unsealed, no index at all.
    std::fs::create_dir(copy.path().join("segments")).unwrap();
    for entry in std::fs::read_dir(dir.path().join("segments")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(
            entry.path(),
            copy.path().join("segments").join(entry.file_name()),
        )
        .unwrap();
    }
    for round in 0..2 {
        let log = open(copy.path());
        assert!(log.damage().is_empty());
        let topic = log.topic("t").unwrap();
        let found: Vec<_> = topic
            .partitions()
            .iter()
            .map(|p| read_all(&log, p))
            .collect();
        assert_eq!(found, wanted, "round {round}");
        assert_eq!(
            log.committed_offset("g", topic.id(), 1),
            Some(committed.clone())
        );
        assert_eq!(log.groups(), ["g"]);
        assert_eq!(
            log.settings("room"),
            [("b".to_owned(), Bytes::from_static(b"2"))]
        );
        // The producer is remembered: its last batch is a duplicate, the one after next a gap.
        let partition = topic.partition(0).unwrap();
        let again = log
            .append_batch(
                partition,
                producer_batch(producer, 0, 749, &[&format!("{:0400}", 1498)]),
            )
            .await
            .unwrap()
            .await
            .unwrap();
        assert_eq!(again.base_offset, offset(749));
        let gap = log
            .append_batch(partition, producer_batch(producer, 0, 751, &["x"]))
            .await
            .unwrap()
            .await
            .unwrap_err();
        assert_eq!(
            gap,
            AppendError::OutOfOrderSequence {
                producer_id: producer,
                got: 751,
                expected: 750
            }
        );
        log.close();
        // The index is closed with the last handle.
        drop(log);
        std::fs::remove_dir_all(copy.path().join("index")).unwrap();
    }
}

#[tokio::test]
async fn a_second_node_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let Err(OpenError::Locked(path)) = Log::open(LogOptions::new(dir.path())) else {
        panic!("opened twice")
    };
    assert_eq!(path, dir.path());
    log.close();
    drop(log);
    open(dir.path());
}

#[tokio::test]
async fn callers_that_meet_share_a_batch_and_an_fdatasync() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 4)).await.unwrap();
    let before = log.stats();
    let mut pending = Vec::new();
    for i in 0..5_000 {
        let partition = topic.partition_for(Some(format!("k{i}").as_bytes()));
        pending.push((
            partition.clone(),
            i,
            log.append(partition, &[record("k", format!("{i}"))])
                .await
                .unwrap(),
        ));
    }
    for (partition, i, appending) in pending {
        let appended = appending.await.unwrap();
        let read = log.read(&partition, appended.base_offset, 1).unwrap();
        assert_eq!(read[0].offset, appended.base_offset);
        assert_eq!(read[0].record.value, Some(Bytes::from(format!("{i}"))));
    }
    let after = log.stats();
    assert_eq!(after.records - before.records, 5_000);
    assert!(after.fdatasyncs - before.fdatasyncs < 500, "{after:?}");
    assert!(after.batches - before.batches < 2_000, "{after:?}");
}

#[tokio::test]
async fn records_of_several_partitions_are_appended_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 3)).await.unwrap();
    let part = |i| topic.partition(i).unwrap().clone();
    let headers = vec![
        Header::new("kind", "weather"),
        Header {
            name: "kind".into(),
            value: None,
        },
    ];
    let with_headers = Record {
        headers: headers.clone(),
        value: None,
        ..record("k", "")
    };
    let list = vec![
        (part(2), record("a", "1")),
        (part(0), record("b", "2")),
        (part(2), with_headers),
    ];
    let offsets = log.append_all(list).await.unwrap().await.unwrap();
    assert_eq!(offsets, [offset(0), offset(0), offset(1)]);
    let read = log.read(&part(2), offset(1), 1).unwrap();
    assert_eq!(
        (read[0].record.value.clone(), &read[0].record.headers),
        (None, &headers)
    );
}

#[tokio::test]
async fn appends_of_one_task_keep_their_order_whatever_their_size() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 2)).await.unwrap();
    let (partition, other) = (&topic.partitions()[0], &topic.partitions()[1]);
    let value = |n: usize| match n % 7 {
        // Enough for a batch of its own.
        3 => format!("{n:09000}"),
        _ => format!("{n:09}"),
    };
    let before = log.stats();
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for n in 0..3_000 {
        let record = record("k", value(n));
        if n % 7 == 5 {
            let pair = vec![(other.clone(), record.clone()), (partition.clone(), record)];
            together.push((n, log.append_all(pair).await.unwrap()));
        } else {
            alone.push((n, log.append(partition, &[record]).await.unwrap()));
        }
    }
    for (n, appending) in alone {
        let at = appending.await.unwrap().base_offset;
        assert_eq!(at, offset(n as i64));
    }
    for (n, appending) in together {
        assert_eq!(appending.await.unwrap()[1], offset(n as i64));
    }
    let read = read_all(&log, partition);
    assert_eq!(read.len(), 3_000);
    for (n, stored) in read.iter().enumerate() {
        assert_eq!(stored.1, value(n));
    }
    let batches = log.stats().batches - before.batches;
    assert!(batches < 2_500, "small records share batches: {batches}");
}

#[tokio::test]
async fn topics_are_created_once_and_judged() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let (a, b) = tokio::join!(
        log.create_topic(new_topic("t", 1)),
        log.create_topic(new_topic("t", 2))
    );
    assert_eq!(usize::from(a.is_ok()) + usize::from(b.is_ok()), 1);
    assert!(matches!(
        log.create_topic(new_topic("t", 1)).await,
        Err(CreateTopicError::Exists(_))
    ));
    assert!(matches!(
        log.create_topic(new_topic("a/b", 1)).await,
        Err(CreateTopicError::InvalidName { .. })
    ));
    assert!(matches!(
        log.create_topic(new_topic("u", 0)).await,
        Err(CreateTopicError::InvalidPartitions(0))
    ));
    let first = log.new_producer_id().await.unwrap();
    log.close();
    drop(log);
    let log = open(dir.path());
    assert!(
        log.new_producer_id().await.unwrap() > first,
        "producer ids are never given twice"
    );
}

#[tokio::test]
async fn bad_batches_are_refused_and_leave_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    let partition = topic.partition(0).unwrap();
    let good = producer_batch(-1, -1, -1, &["one", "two"]);
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let cut = good.slice(..good.len() - 1);
    let twice = Bytes::from([good.as_ref(), good.as_ref()].concat());
    assert!(matches!(
        log.append_batch(partition, flipped.into()).await,
        Err(AppendError::Corrupt(_))
    ));
    assert!(matches!(
        log.append_batch(partition, cut).await,
        Err(AppendError::Corrupt(_))
    ));
    assert!(matches!(
        log.append_batch(partition, twice).await,
        Err(AppendError::Invalid(_))
    ));
    let huge = Record {
        value: Some(Bytes::from(vec![0; 2 << 20])),
        ..Record::default()
    };
    assert!(matches!(
        log.append(partition, &[huge]).await,
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(partition.high_watermark(), offset(0));
    let beyond = log
        .fetch(partition, offset(1), 1, Isolation::Uncommitted)
        .unwrap_err();
    assert!(matches!(beyond, FetchError::OffsetOutOfRange { .. }));
}

#[tokio::test]
async fn a_producer_id_that_was_never_given_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    let partition = topic.partition(0).unwrap();
    let refused = log
        .append_batch(partition, producer_batch(99, 0, 0, &["x"]))
        .await
        .unwrap()
        .await;
    assert_eq!(
        refused,
        Err(AppendError::UnknownProducer { producer_id: 99 })
    );
    assert_eq!(partition.high_watermark(), offset(0));
}

/// One flipped bit in a stored value is never handed out as the value.
#[tokio::test]
async fn rot_in_a_sealed_segment_is_told_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    for _ in 0..2 {
        let partition = topic.partition(0).unwrap();
        log.append(partition, &[record("k", vec![b'x'; 100])])
            .await
            .unwrap()
            .await
            .unwrap();
    }
    log.close();
    drop(log);
    let path = dir.path().join("segments");
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(100).position(|window| window == [b'x'; 100]) {
            bytes[at + 50] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
    }
    let log = open(dir.path());
    let topic = log.topic("t").unwrap();
    let partition = topic.partition(0).unwrap();
    let error = log.read(partition, offset(0), 1).unwrap_err();
    let FetchError::Undecodable {
        base, next, reason, ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(
        (base, next, reason.as_str()),
        (offset(0), offset(1), "CRC-32C does not fit")
    );
    assert_eq!(log.read(partition, offset(1), 1).unwrap().len(), 1);
}

#[tokio::test]
async fn a_fetch_returns_a_whole_batch_and_then_keeps_its_bound() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    let partition = topic.partition(0).unwrap();
    for i in 0..10 {
        let values = [format!("{i}a"), format!("{i}b")];
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        log.append_batch(partition, producer_batch(-1, -1, -1, &values))
            .await
            .unwrap()
            .await
            .unwrap();
    }
    let one = log
        .fetch(partition, offset(3), 1, Isolation::Uncommitted)
        .unwrap();
    let header = batch::BatchHeader::parse(&one.batches[0]).unwrap();
    assert_eq!(
        (header.base_offset, header.bytes, one.batches.len()),
        (2, one.bytes(), 1)
    );
    let three = log
        .fetch(
            partition,
            offset(0),
            header.bytes * 3 + 10,
            Isolation::Uncommitted,
        )
        .unwrap();
    assert_eq!(three.bytes(), header.bytes * 3);
    let end = log
        .fetch(partition, offset(20), 1000, Isolation::Uncommitted)
        .unwrap();
    assert!(end.batches.is_empty());
}

#[tokio::test]
async fn an_offset_is_found_by_time_in_memory_and_in_sealed_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path());
    for round in 0..2 {
        if round == 0 {
            let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
            let partition = topic.partition(0).unwrap();
            for i in 0..3_000_i64 {
                let stamped = Record {
                    timestamp_ms: 1_000 + i * 10,
                    ..record("k", vec![7; 200])
                };
                log.append(partition, &[stamped])
                    .await
                    .unwrap()
                    .await
                    .unwrap();
            }
        } else {
            log.close();
            drop(log);
            log = open(dir.path());
        }
        let topic = log.topic("t").unwrap();
        let partition = topic.partition(0).unwrap();
        for (time, wanted) in [
            (0, Some((0, 1_000))),
            (1_001, Some((1, 1_010))),
            (15_000, Some((1_400, 15_000))),
            (30_990, Some((2_999, 30_990))),
            (30_991, None),
        ] {
            let found = log
                .offset_for_time(partition, time)
                .unwrap()
                .map(|(o, t)| (o.value(), t));
            assert_eq!(found, wanted, "round {round}, time {time}");
        }
        assert_eq!(
            log.max_timestamp(partition).unwrap(),
            Some((offset(2_999), 30_990))
        );
    }
}

#[tokio::test]
async fn a_watch_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 2)).await.unwrap();
    let reader = {
        let (log, topic) = (log.clone(), topic.clone());
        tokio::spawn(async move {
            let mut watch = log.watch(topic.partitions());
            let mut seen = 0;
            let mut next = [Offset::ZERO; 2];
            while seen < 2_000 {
                let mut found = 0;
                for (i, partition) in topic.partitions().iter().enumerate() {
                    let records = log.read(partition, next[i], 1 << 20).unwrap();
                    found += records.len();
                    if let Some(last) = records.last() {
                        next[i] = last.offset.plus(1);
                    }
                }
                seen += found;
                if found == 0 {
                    watch.appended().await;
                }
            }
        })
    };
    for i in 0..2_000 {
        log.append(topic.partition(i % 2).unwrap(), &[record("k", "v")])
            .await
            .unwrap()
            .await
            .unwrap();
    }
    reader.await.unwrap();
}

#[tokio::test]
async fn too_much_in_flight_makes_callers_wait_not_memory_grow() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        in_flight_bytes_max: 1 << 16,
        ..LogOptions::new(dir.path())
    };
    let log = Log::open(options).unwrap();
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    let partition: Arc<Partition> = topic.partition(0).unwrap().clone();
    let mut pending = Vec::new();
    for _ in 0..500 {
        pending.push(
            log.append(&partition, &[record("k", vec![1; 1000])])
                .await
                .unwrap(),
        );
    }
    for appending in pending {
        appending.await.unwrap();
    }
    assert_eq!(partition.high_watermark(), offset(500));
    assert!(log.stats().fdatasyncs > 5, "at most 64 KiB a group");
}

#[tokio::test]
async fn a_log_whose_index_cannot_be_written_still_closes_and_catches_up() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    let partition = topic.partition(0).unwrap();
    log.append(partition, &[record("k", "v")])
        .await
        .unwrap()
        .await
        .unwrap();
    std::fs::rename(dir.path().join("index"), dir.path().join("gone")).unwrap();
    log.close();
    drop(log);
    let log = open(dir.path());
    let topic = log.topic("t").unwrap();
    assert_eq!(
        read_all(&log, topic.partition(0).unwrap()),
        [(0, Bytes::from_static(b"v"))]
    );
}

#[tokio::test]
async fn a_topic_changes_for_who_holds_it_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let topic = log.create_topic(new_topic("t", 2)).await.unwrap();
    let held = topic.partitions()[0].clone();
    let append = async |partition: &Arc<Partition>, value: &'static str| {
        let appending = log.append(partition, &[record("k", value)]).await.unwrap();
        appending.await.unwrap().base_offset
    };
    append(&held, "before").await;

    let wider = log.set_partitions(&topic, 4).await.unwrap();
    assert_eq!((wider.id(), wider.partitions().len()), (topic.id(), 4));
    assert!(Arc::ptr_eq(&held, &wider.partitions()[0]));
    assert_eq!(append(&wider.partitions()[3], "new").await, offset(0));
    let outdated = log.set_partitions(&topic, 5).await.unwrap_err();
    assert_eq!(outdated, ChangeTopicError::Outdated);
    for count in [3, 4] {
        let refused = log.set_partitions(&wider, count).await.unwrap_err();
        assert_eq!(refused, ChangeTopicError::FewerPartitions { now: 4 });
    }

    let configs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(own).collect()
    };
    let stamped = configs(&[
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "200"),
    ]);
    let changed = log.set_configs(&wider, stamped.clone()).await.unwrap();
    append(&held, "stamped").await;
    let records = log.read(&held, offset(0), 1 << 20).unwrap();
    assert_eq!(records[0].record.timestamp_ms, 1_700_000_000_000);
    assert!(records[1].record.timestamp_ms > 1_700_000_000_000);
    let long = producer_batch(-1, -1, -1, &[&"x".repeat(200)]);
    let refused = log.append_batch(&held, long.clone()).await.unwrap_err();
    assert!(matches!(
        refused,
        AppendError::TooLarge { bytes_max: 200, .. }
    ));
    let wrong = configs(&[("retention.ms", "never")]);
    let refused = log.set_configs(&changed, wrong).await.unwrap_err();
    assert!(matches!(
        refused,
        ChangeTopicError::Invalid(CreateTopicError::InvalidConfig { .. })
    ));
    log.close();
    drop(log);

    let log = open(dir.path());
    let topic = log.topic("t").unwrap();
    assert_eq!((topic.partitions().len(), topic.configs()), (4, &*stamped));
    let values = |index: usize| read_all(&log, &topic.partitions()[index]).len();
    assert_eq!((values(0), values(3)), (2, 1));
    let topic = log.set_configs(&topic, Vec::new()).await.unwrap();
    let partition = &topic.partitions()[0];
    log.append_batch(partition, long)
        .await
        .unwrap()
        .await
        .unwrap();
    log.delete_topic(topic.id()).await.unwrap();
    let gone = log.set_partitions(&topic, 9).await.unwrap_err();
    assert_eq!(gone, ChangeTopicError::Unknown);
    log.close();
}

#[tokio::test]
async fn a_topic_that_waits_for_the_disk_again_is_durable_when_it_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let new = common::topic("t", 1, &[("holdfast.durability", "os")]);
    let topic = log.create_topic(new).await.unwrap();
    let partition = topic.partitions()[0].clone();
    // Appends before, around and behind the change: all are answered, and once.
    let mut appending = Vec::new();
    for i in 0..200 {
        let record = [record("k", format!("{i}"))];
        appending.push(log.append(&partition, &record).await.unwrap());
        if i == 100 {
            let topic = log.set_configs(&topic, Vec::new()).await.unwrap();
            assert!(!topic.is_os_durable());
        }
    }
    for (i, appending) in appending.into_iter().enumerate() {
        assert_eq!(appending.await.unwrap().base_offset, offset(i as i64));
    }
    assert_eq!(read_all(&log, &partition).len(), 200);
    for _ in 0..5 {
        let before = log.stats().fdatasyncs;
        let appending = log.append(&partition, &[record("k", "v")]).await.unwrap();
        appending.await.unwrap();
        assert!(log.stats().fdatasyncs > before);
    }
    log.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_become_readable_in_order_while_a_topic_changes_what_durable_means() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let topic = log.create_topic(new_topic("t", 1)).await.unwrap();
    let partition = topic.partitions()[0].clone();
    // Enough in flight for groups to be written while others are synced.
    let writers: Vec<_> = (0..16)
        .map(|_| {
            let (log, partition) = (log.clone(), partition.clone());
            tokio::spawn(async move {
                let record = [record("k", vec![7; 100_000])];
                for _ in 0..150 {
                    let appending = log.append(&partition, &record).await.unwrap();
                    appending.await.unwrap();
                }
            })
        })
        .collect();
    let (reading, read_from) = (log.clone(), partition.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let mut next = offset(0);
        while next < offset(16 * 150) {
            for found in reading.read(&read_from, next, 1 << 20).unwrap() {
                assert_eq!(found.offset, next, "skipped");
                next = next.plus(1);
            }
            std::thread::yield_now();
        }
    });
    let mut topic = topic;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        let configs = if topic.is_os_durable() {
            Vec::new()
        } else {
            vec![("holdfast.durability".to_owned(), "os".to_owned())]
        };
        topic = match log.set_configs(&topic, configs).await {
            Ok(changed) => changed,
            Err(ChangeTopicError::Outdated) => log.topic("t").unwrap(),
            Err(error) => panic!("{error}"),
        };
    }
    for writer in writers {
        writer.await.unwrap();
    }
    reader.await.unwrap();
    log.close();
}

#[tokio::test]
async fn a_batch_is_judged_by_every_record_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let timely = log.create_topic(new_topic("timely", 1)).await.unwrap();
    let partition = timely.partition(0).unwrap();
    let signed = |mut bytes: Vec<u8>| {
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(bytes)
    };
    let good = producer_batch(-1, -1, -1, &["one", "two"]);
    // Compressed, by its own account.
    for codec in 1..=4 {
        let mut bytes = good.to_vec();
        bytes[22] |= codec;
        let refused = log.append_batch(partition, signed(bytes)).await;
        assert!(matches!(refused, Err(AppendError::Invalid(_))), "{codec}");
    }
    // The largest timestamp is not the one that it names: the log knows better.
    let mut bytes = good.to_vec();
    bytes[35..43].copy_from_slice(&1_700_000_009_000_i64.to_be_bytes());
    let appending = log.append_batch(partition, signed(bytes)).await.unwrap();
    appending.await.unwrap();
    let largest = log.max_timestamp(partition).unwrap();
    assert_eq!(largest, Some((offset(0), 1_700_000_000_000)));
    // Two hours ahead of the node's clock; Kafka's default allows one.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let ahead = now.unwrap().as_millis() as i64 + 7_200_000;
    let mut bytes = good.to_vec();
    bytes[27..35].copy_from_slice(&ahead.to_be_bytes());
    bytes[35..43].copy_from_slice(&ahead.to_be_bytes());
    let ahead = signed(bytes);
    let wanted = AppendError::Records {
        fault: RecordFault::Untimely,
        indexes: vec![0, 1],
    };
    let refused = log.append_batch(partition, ahead.clone()).await;
    assert_eq!(refused.unwrap_err(), wanted);
    let configs = vec![("message.timestamp.after.max.ms".into(), "9000000".into())];
    log.set_configs(&timely, configs).await.unwrap();
    log.append_batch(partition, ahead)
        .await
        .unwrap()
        .await
        .unwrap();
    let configs = vec![("message.timestamp.before.max.ms".into(), "1000".into())];
    let timely = log.topic("timely").unwrap();
    log.set_configs(&timely, configs).await.unwrap();
    let refused = log.append_batch(partition, good.clone()).await;
    assert_eq!(refused.unwrap_err(), wanted);
    // Where the node's time counts, the producer's does not.
    let configs = vec![
        ("message.timestamp.before.max.ms".into(), "1000".into()),
        ("message.timestamp.type".into(), "LogAppendTime".into()),
    ];
    let timely = log.topic("timely").unwrap();
    log.set_configs(&timely, configs).await.unwrap();
    log.append_batch(partition, good)
        .await
        .unwrap()
        .await
        .unwrap();
}

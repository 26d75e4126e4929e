//! The store's promises: rows and offsets together, once, and over a reopening.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::PathBuf;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::log::{Offset, TopicId};

const NOW: i64 = 1_795_348_800_000;
const RAW: TopicId = TopicId(Uuid::from_u128(7));
const LIMITS: WindowLimits = WindowLimits {
    records_max: 1_000,
    age_ms_max: 60_000,
};

struct Fixture {
    _dir: TempDir,
    path: PathBuf,
}

fn fixture() -> Fixture {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("telemetry.db");
    Fixture { _dir: dir, path }
}

impl Fixture {
    fn open(&self) -> TelemetryWriter {
        self.open_with(LIMITS)
    }

    fn open_with(&self, limits: WindowLimits) -> TelemetryWriter {
        TelemetryWriter::open(&self.path, limits, ["inverters", "sites"]).unwrap()
    }
}

fn at(partition: i32, offset: i64) -> Position {
    Position {
        topic_id: RAW,
        partition,
        offset: Offset::new(offset).unwrap(),
    }
}

fn clean(offset: i64) -> CleanEvent {
    CleanEvent {
        at: at(0, offset),
        kind: "inverters".into(),
        device_id: format!("inv-{}", offset % 3),
        event_ms: NOW - 10_000 + offset,
        received_ms: NOW,
        values_json: format!(r#"{{"power_kw":{offset}}}"#),
        missing: Vec::new(),
        timestamp_source: TimestampSource::Payload,
        record_id: None,
    }
}

fn invalid(offset: i64, payload: impl Into<Bytes>) -> InvalidRecord {
    InvalidRecord {
        at: at(0, offset),
        kind: "sites".into(),
        mqtt_topic: Some("sites".into()),
        payload: payload.into(),
        received_ms: NOW,
        errors: vec![RecordError {
            code: "payload_not_json".into(),
            message: "no".into(),
        }],
    }
}

fn consumed(partition: i32, next: i64) -> Vec<(String, Position)> {
    vec![("telemetry.raw".to_owned(), at(partition, next))]
}

fn one_of_each() -> Commit {
    Commit {
        clean: vec![clean(0)],
        invalid: vec![invalid(1, "{")],
        duplicates: vec![Duplicate {
            at: at(0, 2),
            kind: "inverters".into(),
            received_ms: NOW,
        }],
        speed: vec![SpeedEvent {
            at: at(0, 3),
            received_ms: NOW,
            reading: SpeedReading {
                sensor_id: "s-1".into(),
                speed: 42.0,
                ts: 1_700_000_000.0,
            },
        }],
        seen: vec![11, 12],
        consumed: consumed(0, 4),
        produced: vec![Position {
            topic_id: TopicId(Uuid::from_u128(8)),
            partition: 3,
            offset: Offset::ZERO.plus(9),
        }],
    }
}

#[test]
fn rows_offsets_and_window_survive_a_writer_that_was_never_closed() {
    let store = fixture();
    let mut writer = store.open();
    let done = writer.commit(&one_of_each(), NOW).unwrap();
    assert_eq!(
        done,
        Committed {
            clean: 1,
            invalid: 1,
            duplicates: 1,
            speed: 1
        }
    );
    drop(writer);

    let writer = store.open();
    assert_eq!(writer.consumed(RAW, 0), Offset::new(4));
    assert_eq!(writer.consumed(RAW, 1), None);
    assert_eq!(
        writer.produced(TopicId(Uuid::from_u128(8)), 3),
        Offset::new(9)
    );
    assert!(
        writer.seen().contains(11) && writer.seen().contains(12) && !writer.seen().contains(13)
    );
    let reader = writer.reader().unwrap();
    assert_eq!(reader.consumed_offset(RAW, 0).unwrap(), Offset::new(4));
    assert_eq!(reader.latest_valid().unwrap().len(), 1);
    assert_eq!(reader.speed_latest().unwrap()[0].speed, 42.0);
}

#[test]
fn a_repeated_commit_changes_nothing() {
    let store = fixture();
    let mut writer = store.open();
    writer.commit(&one_of_each(), NOW).unwrap();
    let before = writer.reader().unwrap().topics_summary().unwrap();
    assert_eq!(
        writer.commit(&one_of_each(), NOW).unwrap(),
        Committed::default()
    );
    drop(writer);
    let mut writer = store.open();
    assert_eq!(
        writer.commit(&one_of_each(), NOW).unwrap(),
        Committed::default()
    );
    assert_eq!(writer.reader().unwrap().topics_summary().unwrap(), before);
}

#[test]
fn a_recreated_topic_is_another_source() {
    let store = fixture();
    let mut writer = store.open();
    writer.commit(&one_of_each(), NOW).unwrap();
    let other = TopicId(Uuid::from_u128(99));
    let mut event = clean(0);
    event.at.topic_id = other;
    let mut next = consumed(0, 1);
    next[0].1.topic_id = other;
    let commit = Commit {
        clean: vec![event],
        consumed: next,
        ..Commit::default()
    };
    assert_eq!(writer.commit(&commit, NOW).unwrap().clean, 1);
    assert_eq!(writer.consumed(RAW, 0), Offset::new(4));
}

#[test]
fn a_failed_commit_leaves_nothing_behind() {
    let store = fixture();
    let mut writer = store.open();
    let mut commit = one_of_each();
    commit.speed[0].at.offset = Offset::new(1 << 48).unwrap();
    assert!(matches!(
        writer.commit(&commit, NOW),
        Err(StoreError::OutOfRange { .. })
    ));
    assert_eq!(writer.consumed(RAW, 0), None);
    assert!(writer.seen().is_empty());
    assert!(writer.reader().unwrap().latest_valid().unwrap().is_empty());
    assert_eq!(writer.commit(&one_of_each(), NOW).unwrap().clean, 1);
}

#[test]
fn a_locked_store_refuses_and_takes_the_same_commit_later() {
    let store = fixture();
    let mut writer = store.open();
    let foreign = rusqlite::Connection::open(&store.path).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(
        writer.commit(&one_of_each(), NOW),
        Err(StoreError::Sqlite { .. })
    ));
    foreign.execute_batch("ROLLBACK").unwrap();
    assert_eq!(writer.commit(&one_of_each(), NOW).unwrap().clean, 1);
}

#[test]
fn a_newer_schema_is_refused_with_a_sentence() {
    let store = fixture();
    store.open().close().unwrap();
    let connection = rusqlite::Connection::open(&store.path).unwrap();
    connection
        .pragma_update(None, "user_version", SCHEMA_VERSION + 1)
        .unwrap();
    let message = TelemetryWriter::open(&store.path, LIMITS, [])
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("schema version 2") && message.contains("only up to 1"),
        "{message}"
    );
    assert!(TelemetryReader::open(&store.path).is_err());
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let store = fixture();
    std::fs::write(&store.path, vec![b'x'; 8192]).unwrap();
    assert!(matches!(
        TelemetryWriter::open(&store.path, LIMITS, []),
        Err(StoreError::Sqlite { .. })
    ));
}

#[test]
fn the_summary_counts_quality_and_names_the_worst() {
    let store = fixture();
    let mut writer = store.open();
    let mut gaps = clean(1);
    gaps.missing = vec!["a".into(), "b".into()];
    gaps.timestamp_source = TimestampSource::ReceivedAt;
    let commit = Commit {
        clean: vec![clean(0), gaps, clean(2), clean(3)],
        invalid: vec![invalid(4, "{"), invalid(5, "[")],
        consumed: consumed(0, 6),
        ..Commit::default()
    };
    writer.commit(&commit, NOW).unwrap();
    let summary = writer.reader().unwrap().topics_summary().unwrap();
    let [inverters, sites] = &summary.topics[..] else {
        panic!("{summary:?}")
    };
    assert_eq!(
        (inverters.count, inverters.accepted, inverters.rejected),
        (4, 4, 0)
    );
    assert_eq!(
        (
            inverters.missing_field_records,
            inverters.missing_fields,
            inverters.fallback_timestamps
        ),
        (1, 2, 1)
    );
    assert_eq!(inverters.degraded_share, 0.25);
    assert_eq!(
        inverters.last_event_time.as_deref(),
        Some("2026-11-22T11:59:50.003Z")
    );
    assert_eq!(
        inverters.last_received_time.as_deref(),
        Some("2026-11-22T12:00:00.000Z")
    );
    assert_eq!(
        (sites.count, sites.rejected, sites.degraded_share),
        (2, 2, 1.0)
    );
    assert_eq!(sites.last_event_time, None);
    assert_eq!(
        summary.most_failing,
        [ErrorCount {
            error: "payload_not_json".into(),
            count: 2
        }]
    );
    assert_eq!(summary.most_degraded.as_deref(), Some("sites"));
    let incomplete = writer.reader().unwrap().incomplete(10).unwrap();
    assert_eq!(incomplete.len(), 1);
    assert_eq!(incomplete[0].missing_fields, ["a", "b"]);
    assert!(incomplete[0].fallback_timestamp);
    assert_eq!(
        incomplete[0].source,
        SourceView {
            topic: "telemetry.raw".into(),
            partition: 0,
            offset: 1
        }
    );
}

#[test]
fn a_silent_topic_shows_as_zero() {
    let store = fixture();
    let summary = store.open().reader().unwrap().topics_summary().unwrap();
    assert_eq!(
        summary
            .topics
            .iter()
            .map(|topic| (topic.topic.as_str(), topic.count))
            .collect::<Vec<_>>(),
        [("inverters", 0), ("sites", 0)]
    );
    assert_eq!(summary.most_degraded, None);
}

#[test]
fn the_latest_record_is_the_newest_event_not_the_newest_row() {
    let store = fixture();
    let mut writer = store.open();
    let mut late = clean(1);
    late.event_ms -= 100_000;
    writer
        .commit(
            &Commit {
                clean: vec![clean(0)],
                consumed: consumed(0, 1),
                ..Commit::default()
            },
            NOW,
        )
        .unwrap();
    writer
        .commit(
            &Commit {
                clean: vec![late],
                consumed: consumed(0, 2),
                ..Commit::default()
            },
            NOW,
        )
        .unwrap();
    let latest = writer.reader().unwrap().latest_valid().unwrap();
    assert_eq!(latest[0].values.get(), r#"{"power_kw":0}"#);
    let view: (String, i64, String) = rusqlite::Connection::open(&store.path)
        .unwrap()
        .query_row(
            "SELECT topic, source_offset, event_time FROM normalized_records ORDER BY id DESC",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!(
        view,
        (
            "inverters".to_owned(),
            1,
            "2026-11-22T11:58:10.001Z".to_owned()
        )
    );
}

#[test]
fn rejected_records_are_paged_with_their_original_bytes() {
    let store = fixture();
    let mut writer = store.open();
    let long = "ä".repeat(PAYLOAD_SHOWN_BYTES_MAX);
    let payloads: [Bytes; 4] = [
        "{".into(),
        Bytes::from_static(&[0xff, 0x00]),
        Bytes::from(format!("x{long}")),
        Bytes::new(),
    ];
    let rows = payloads
        .iter()
        .zip(0..)
        .map(|(payload, offset)| invalid(offset, payload.clone()))
        .collect();
    writer
        .commit(
            &Commit {
                invalid: rows,
                consumed: consumed(0, 4),
                ..Commit::default()
            },
            NOW,
        )
        .unwrap();
    let reader = writer.reader().unwrap();
    let first = reader.invalid_recent(3, None).unwrap().records;
    assert_eq!(
        first
            .iter()
            .map(|record| record.source.offset)
            .collect::<Vec<_>>(),
        [3, 2, 1]
    );
    assert_eq!(
        (first[0].payload.as_str(), first[0].payload_encoding),
        ("", "utf-8")
    );
    assert!(first[1].payload_truncated && first[1].payload_encoding == "utf-8");
    assert_eq!(
        (first[2].payload.as_str(), first[2].payload_encoding),
        ("/wA=", "base64")
    );
    let rest = reader.invalid_recent(3, Some(first[2].id)).unwrap().records;
    assert_eq!(
        rest.iter()
            .map(|record| record.payload.as_str())
            .collect::<Vec<_>>(),
        ["{"]
    );
    assert_eq!(rest[0].errors[0].code, "payload_not_json");
    let newer = reader.invalid_after(rest[0].id, 2).unwrap().records;
    assert_eq!(
        newer
            .iter()
            .map(|record| record.source.offset)
            .collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn the_window_forgets_by_number_and_by_age() {
    let store = fixture();
    let limits = WindowLimits {
        records_max: 4,
        age_ms_max: 1_000,
    };
    let mut writer = store.open_with(limits);
    let seen = writer.seen();
    let commit = |keys: &[RecordKey]| Commit {
        seen: keys.to_vec(),
        ..Commit::default()
    };
    writer.commit(&commit(&[1, 2]), NOW).unwrap();
    writer.commit(&commit(&[3, 4]), NOW + 1).unwrap();
    assert_eq!(
        seen.contained(&[1, 2, 3, 4, 5]),
        [true, true, true, true, false]
    );
    writer.commit(&commit(&[5]), NOW + 2).unwrap();
    assert_eq!(
        seen.contained(&[1, 2, 3, 4, 5]),
        [false, false, true, true, true]
    );
    drop(writer);
    let mut writer = store.open_with(limits);
    assert_eq!(
        writer.seen().contained(&[1, 2, 3, 4, 5]),
        [false, false, true, true, true]
    );
    writer.commit(&commit(&[6]), NOW + 1_002).unwrap();
    assert_eq!(
        writer.seen().contained(&[3, 4, 5, 6]),
        [false, false, true, true]
    );
    assert_eq!(writer.seen().len(), 2);
}

#[test]
fn strangers_cannot_grow_the_counts_without_bound() {
    let store = fixture();
    let mut writer = store.open();
    let many = i64::try_from(AGGREGATE_KINDS_MAX).unwrap() * 2;
    for batch in [0..many / 2 + 50, many / 2 + 50..many] {
        let next = batch.end;
        let rows = batch
            .map(|offset| InvalidRecord {
                kind: format!("k-{offset}"),
                ..invalid(offset, "")
            })
            .collect();
        writer
            .commit(
                &Commit {
                    invalid: rows,
                    consumed: consumed(0, next),
                    ..Commit::default()
                },
                NOW,
            )
            .unwrap();
    }
    let summary = writer.reader().unwrap().topics_summary().unwrap();
    assert!(
        summary.topics.len() <= AGGREGATE_KINDS_MAX + 1,
        "{}",
        summary.topics.len()
    );
    assert_eq!(
        summary
            .topics
            .iter()
            .map(|topic| topic.rejected)
            .sum::<i64>(),
        many
    );
    assert!(
        summary
            .topics
            .iter()
            .any(|topic| topic.topic == OTHER_KINDS)
    );
}

#[test]
fn speed_history_is_kept_as_sent_and_the_latest_is_by_time() {
    let store = fixture();
    let mut writer = store.open();
    let event = |offset, sensor: &str, speed, ts| SpeedEvent {
        at: at(0, offset),
        received_ms: NOW,
        reading: SpeedReading {
            sensor_id: sensor.into(),
            speed,
            ts,
        },
    };
    let speed = vec![
        event(0, "b", 1.0, 100.0),
        event(1, "a", 2.5, 300.0),
        event(2, "a", 3.0, 200.0),
    ];
    writer
        .commit(
            &Commit {
                speed,
                consumed: consumed(0, 3),
                ..Commit::default()
            },
            NOW,
        )
        .unwrap();
    let reader = writer.reader().unwrap();
    let pairs = |readings: Vec<SpeedReading>| {
        readings
            .into_iter()
            .map(|r| (r.sensor_id, r.speed))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        pairs(reader.speed_latest().unwrap()),
        [("a".to_owned(), 2.5), ("b".to_owned(), 1.0)]
    );
    assert_eq!(
        pairs(reader.speed_history("a", 9).unwrap()),
        [("a".to_owned(), 2.5), ("a".to_owned(), 3.0)]
    );
    assert_eq!(reader.topics_summary().unwrap().topics[2].accepted, 3);
    let stored: String = rusqlite::Connection::open(&store.path)
        .unwrap()
        .query_row(
            "SELECT speed || ' ' || ts FROM speed_readings WHERE sensor_id = 'b'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(stored, "1 100");
}

#[test]
fn readers_work_beside_each_other_and_beside_the_writer() {
    let store = fixture();
    let mut writer = store.open();
    let reader = writer.reader().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..READERS_IDLE_MAX * 2 {
            let reader = reader.clone();
            scope.spawn(move || {
                for _ in 0..50 {
                    let summary = reader.topics_summary().unwrap();
                    let counted: i64 = summary.topics.iter().map(|topic| topic.accepted).sum();
                    let latest = reader.latest_valid().unwrap();
                    assert!(counted == 0 || !latest.is_empty());
                }
            });
        }
        for offset in 0..50 {
            let commit = Commit {
                clean: vec![clean(offset)],
                consumed: consumed(0, offset + 1),
                ..Commit::default()
            };
            writer.commit(&commit, NOW).unwrap();
        }
    });
    assert_eq!(reader.device_events("inv-0", 0, NOW, 5).unwrap().len(), 5);
}

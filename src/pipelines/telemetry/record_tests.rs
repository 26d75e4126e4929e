//! Headers in, identities and output records out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use holdfast_storage::log::{Offset, TopicId};
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::pipelines::telemetry::TelemetryConfig;

/// 2026-11-22T12:00:00Z
const NOW: i64 = 1_795_348_800_000;

fn rules() -> Rules {
    Rules::new(&TelemetryConfig::default())
}

fn at(offset: i64) -> Position {
    Position {
        topic_id: TopicId(Uuid::from_u128(7)),
        partition: 2,
        offset: Offset::new(offset).unwrap(),
    }
}

fn record(headers: &[(&'static str, &str)], key: Option<&'static str>, value: &str) -> Record {
    Record {
        timestamp_ms: NOW,
        key: key.map(Bytes::from),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: headers
            .iter()
            .map(|(name, value)| text_header(name, *value))
            .collect(),
    }
}

fn judged(record: &Record) -> Judged {
    judge(&rules(), "telemetry.raw", at(5), record, NOW)
}

fn text(record: &Record, name: &str) -> String {
    String::from_utf8(
        find(record, name)
            .unwrap_or_else(|| panic!("no header {name}"))
            .to_vec(),
    )
    .unwrap()
}

fn identity(
    headers: &[(&'static str, &str)],
    key: Option<&'static str>,
    value: &str,
) -> Option<RecordKey> {
    judged(&record(headers, key, value)).identity
}

#[test]
fn a_clean_record_carries_values_quality_and_source() {
    let raw = record(
        &[
            ("kind", "strings"),
            ("received_at", "2026-11-22T11:59:59.500Z"),
            ("id", "r-1"),
            ("mqtt.topic", "x/\"y"),
        ],
        Some("key"),
        r#"{"string_id":"s \"1\"","voltage_v":600.10}"#,
    );
    let Outcome::Clean { event, cleaned } = judged(&raw).outcome else {
        panic!()
    };
    assert_eq!(event.at, at(5));
    assert_eq!(event.record_id.as_deref(), Some("r-1"));
    let value: Value = serde_json::from_slice(cleaned.value.as_ref().unwrap()).unwrap();
    assert_eq!(
        value,
        json!({
            "kind": "strings", "device_id": "s \"1\"", "id": "r-1",
            "event_time": "2026-11-22T11:59:59.500Z", "received_at": "2026-11-22T11:59:59.500Z",
            "values": {"string_id": "s \"1\"", "voltage_v": 600.10, "current_a": null},
            "quality": {"missing_fields": ["current_a"], "timestamp_source": "received_at", "fallback_timestamp": true},
            "source": {"topic": "telemetry.raw", "partition": 2, "offset": 5},
        })
    );
    assert_eq!(cleaned.key.as_deref(), Some(b"s \"1\"".as_slice()));
    assert_eq!(text(&cleaned, "source_offset"), "5");
    assert_eq!(text(&cleaned, "source_topic"), "telemetry.raw");
}

#[test]
fn a_dead_letter_keeps_bytes_key_and_headers_and_says_why() {
    let raw = record(
        &[("kind", "sites"), ("mqtt.user.a", "b")],
        Some("dev"),
        "{oops",
    );
    let Outcome::Invalid { row, dead } = judged(&raw).outcome else {
        panic!()
    };
    assert_eq!((&dead.value, &dead.key), (&raw.value, &raw.key));
    assert_eq!(dead.headers[..2], raw.headers[..]);
    assert_eq!(text(&dead, "dlq.source_topic"), "telemetry.raw");
    assert_eq!(text(&dead, "dlq.source_partition"), "2");
    assert_eq!(text(&dead, "dlq.source_offset"), "5");
    assert_eq!(text(&dead, "dlq.error_codes"), "payload_not_json");
    assert_eq!(text(&dead, "dlq.failed_at"), "2026-11-22T12:00:00.000Z");
    let errors: Vec<RecordError> = serde_json::from_str(&text(&dead, "dlq.errors")).unwrap();
    assert_eq!(errors, row.errors);
    assert_eq!(row.payload, "{oops");
    assert!(find(&dead, "dlq.value_bytes").is_none());
}

#[test]
fn a_dead_letter_that_would_not_fit_is_cut_and_says_so() {
    let mut raw = record(&[("kind", "sites")], None, &"x".repeat(DLQ_BYTES_MAX + 1));
    let dead = dead_letter(&raw, &[error("c", "m")], Vec::new(), NOW);
    assert!(dead.value.as_ref().unwrap().len() < DLQ_BYTES_MAX);
    assert_eq!(
        text(&dead, "dlq.value_bytes"),
        (DLQ_BYTES_MAX + 1).to_string()
    );
    raw.headers
        .push(text_header("big", "y".repeat(DLQ_BYTES_MAX)));
    let dead = dead_letter(&raw, &[error("c", "m")], Vec::new(), NOW);
    assert_eq!(text(&dead, "dlq.headers_dropped"), "2");
    assert!(find(&dead, "big").is_none());
    let tombstone = Record { value: None, ..raw };
    assert_eq!(
        dead_letter(&tombstone, &[error("c", "m")], Vec::new(), NOW).value,
        None
    );
}

#[test]
fn the_received_time_is_the_doors_else_the_records_else_now() {
    let received = |record: &Record| raw_record(record, NOW).arrived_ms;
    let mut raw = record(&[("received_at", "2026-11-22T11:00:00Z")], None, "{}");
    assert_eq!(received(&raw), NOW - 3_600_000);
    raw.headers.clear();
    raw.timestamp_ms = NOW - 5;
    assert_eq!(received(&raw), NOW - 5);
    for absurd in [-1, 0, i64::MAX, i64::MIN] {
        raw.timestamp_ms = absurd;
        assert_eq!(received(&raw), NOW);
    }
}

#[test]
fn an_id_identifies_a_record_within_its_kind() {
    let http = [("kind", "sites"), ("id", "1")];
    let first = identity(&http, None, "{}");
    assert!(first.is_some());
    assert_eq!(first, identity(&http, None, "{\"other\":1}"));
    assert_ne!(
        first,
        identity(&[("kind", "grid"), ("id", "1")], None, "{}")
    );
    assert_ne!(
        first,
        identity(&[("kind", "sites"), ("id", "2")], None, "{}")
    );
}

#[test]
fn a_corrected_record_may_keep_its_id() {
    let headers = [("kind", "sites"), ("id", "1")];
    let rejected = identity(&headers, None, "{");
    assert_eq!(rejected, identity(&headers, None, "{"));
    assert_ne!(rejected, identity(&headers, None, "[[["));
    assert_ne!(rejected, identity(&headers, None, "{}"));
}

#[test]
fn content_identifies_a_record_only_where_it_holds_a_time_or_came_in_a_batch() {
    let mqtt = [("kind", "sites"), ("mqtt.topic", "telemetry/sites/a")];
    assert_eq!(
        identity(&mqtt, Some("a"), "{}"),
        None,
        "two equal readings without a time are two readings"
    );
    let timed = identity(&mqtt, Some("a"), r#"{"ts":1700000000}"#);
    assert!(timed.is_some());
    assert_eq!(timed, identity(&mqtt, Some("a"), r#"{"ts":1700000000}"#));
    assert_ne!(
        timed,
        identity(&mqtt, Some("b"), r#"{"ts":1700000000}"#),
        "another device"
    );
    assert_ne!(timed, identity(&mqtt, Some("a"), r#"{"ts":1700000001}"#));
    let http = [("kind", "sites"), ("http.client", "c")];
    assert!(identity(&http, None, "{}").is_some());
    assert_eq!(identity(&http, None, "{}"), identity(&http, None, "{}"));
    let later = [
        ("kind", "sites"),
        ("http.client", "c"),
        ("received_at.sender", "2026-11-22T11:00:00Z"),
    ];
    assert_ne!(identity(&http, None, "{}"), identity(&later, None, "{}"));
}

#[test]
fn what_a_door_refused_stays_refused() {
    let errors = r#"[{"code":"missing_payload","message":"m"}]"#;
    let raw = record(
        &[("kind", "sites"), ("door.errors", errors)],
        None,
        r#"{"topic":"sites"}"#,
    );
    let Outcome::Invalid { row, .. } = judged(&raw).outcome else {
        panic!("{raw:?}")
    };
    assert_eq!(
        (row.kind.as_str(), row.errors[0].code.as_str()),
        ("sites", "missing_payload")
    );
}

#[test]
fn speed_events_become_history_or_dead_letters() {
    let good = record(
        &[],
        Some("s"),
        r#"{"sensor_id":"s","speed":42,"ts":1700000000}"#,
    );
    let Outcome::Speed(event) = judge_speed("speed-events", at(1), &good, NOW).outcome else {
        panic!()
    };
    assert_eq!((event.reading.speed, event.received_ms), (42.0, NOW));
    let bad = record(
        &[],
        Some("s"),
        r#"{"sensor_id":"s","speed":-1,"ts":1700000000}"#,
    );
    let Outcome::Invalid { row, dead } = judge_speed("speed-events", at(1), &bad, NOW).outcome
    else {
        panic!()
    };
    assert_eq!(
        (row.kind.as_str(), row.errors[0].code.as_str()),
        ("speed", "invalid_speed_event")
    );
    assert_eq!(text(&dead, "dlq.source_topic"), "speed-events");
}

#[test]
fn an_unreadable_batch_is_dead_lettered_whole() {
    let batch = CorruptBatch {
        at: at(9),
        bytes: Bytes::from_static(b"\0\x01batch"),
        reason: "why".into(),
    };
    let Outcome::Invalid { row, dead } =
        judge_corrupt("telemetry.raw", "(unreadable)", batch, NOW).outcome
    else {
        panic!()
    };
    assert_eq!(row.payload, Bytes::from_static(b"\0\x01batch"));
    assert_eq!(dead.value, Some(row.payload));
    assert_eq!(text(&dead, "dlq.error_codes"), "corrupt_batch");
}

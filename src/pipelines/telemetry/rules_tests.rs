//! Verdicts, case by case and by property.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// 2026-11-22T12:00:00Z
const NOW: i64 = 1_795_348_800_000;

fn rules() -> Rules {
    Rules::new(&TelemetryConfig::default())
}

fn raw<'a>(kind: &'a str, payload: &'a str) -> RawRecord<'a> {
    RawRecord {
        kind: Some(kind),
        payload: Some(payload.as_bytes()),
        arrived_ms: NOW,
        ..RawRecord::default()
    }
}

fn codes(record: &RawRecord<'_>) -> Vec<String> {
    rules()
        .judge(record)
        .unwrap_err()
        .errors
        .into_iter()
        .map(|error| error.code)
        .collect()
}

fn accepted(record: &RawRecord<'_>) -> Accepted {
    rules().judge(record).unwrap()
}

#[test]
fn hard_failures_have_stable_codes() {
    let deep = format!(
        "{{\"a\":{}1{}}}",
        "[".repeat(PAYLOAD_DEPTH_MAX),
        "]".repeat(PAYLOAD_DEPTH_MAX)
    );
    let table: &[(&str, &str, &[&str])] = &[
        ("pumps", "{}", &["unsupported_topic"]),
        ("pumps", "", &["unsupported_topic", "missing_payload"]),
        ("", "{}", &["unsupported_topic"]),
        ("sites", "", &["missing_payload"]),
        ("sites", "  ", &["missing_payload"]),
        ("sites", "null", &["missing_payload"]),
        ("sites", "\"\"", &["missing_payload"]),
        ("sites", "\"null\"", &["missing_payload"]),
        ("sites", "{", &["payload_not_json"]),
        ("sites", "{\"a\":1,}", &["payload_not_json"]),
        ("sites", "{\"a\":NaN}", &["payload_not_json"]),
        ("sites", "{} {}", &["payload_not_json"]),
        ("sites", "hello", &["payload_not_json"]),
        ("sites", "\"hello\"", &["payload_not_json"]),
        ("sites", "\"{\\\"a\\\":}\"", &["payload_not_json"]),
        ("sites", "[1]", &["payload_not_object"]),
        ("sites", "42", &["payload_not_object"]),
        ("sites", "true", &["payload_not_object"]),
        ("sites", "\"[1]\"", &["payload_not_object"]),
        ("sites", &deep, &["payload_too_deep"]),
        (
            "devices",
            "{}",
            &["missing_required_field", "missing_required_field"],
        ),
        (
            "devices",
            "{\"device_id\":\"d\"}",
            &["missing_required_field"],
        ),
        (
            "devices",
            "{\"device_id\":null,\"device_ts\":1700000000}",
            &["missing_required_field"],
        ),
        (
            "devices",
            "{\"device_id\":\"\",\"device_ts\":1700000000}",
            &["invalid_device_id"],
        ),
        (
            "devices",
            "{\"device_id\":{},\"device_ts\":1700000000}",
            &["invalid_device_id"],
        ),
    ];
    for (kind, payload, expected) in table {
        assert_eq!(&codes(&raw(kind, payload)), expected, "{kind} {payload}");
    }
    assert_eq!(
        codes(&RawRecord {
            payload: Some(&[0xff, b'{']),
            ..raw("sites", "")
        }),
        ["payload_not_json"]
    );
    assert_eq!(
        codes(&RawRecord {
            payload: None,
            ..raw("sites", "")
        }),
        ["missing_payload"]
    );
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES_MAX));
    assert_eq!(codes(&raw("sites", &large)), ["payload_too_large"]);
}

#[test]
fn soft_gaps_are_filled_and_listed() {
    let event = accepted(&raw(
        "strings",
        r#"{"voltage_v":612.40,"extra":{"b":[1, 2]},"current_a":null}"#,
    ));
    assert_eq!(event.missing, ["string_id", "current_a"]);
    assert_eq!(
        event.values_json,
        r#"{"current_a":null,"extra":{"b":[1, 2]},"string_id":null,"voltage_v":612.40}"#,
        "numbers keep their digits"
    );
    assert_eq!(event.timestamp_source, TimestampSource::ReceivedAt);
    assert_eq!(event.event_ms, NOW);
    assert_eq!(accepted(&raw("sites", "{}")).missing.len(), 4);
    let nothing_missing = r#"{"string_id":"s","voltage_v":1,"current_a":2}"#;
    assert!(
        accepted(&raw("strings", nothing_missing))
            .missing
            .is_empty()
    );
}

#[test]
fn a_payload_that_is_a_string_holding_json_is_unwrapped() {
    let event = accepted(&raw(
        "strings",
        r#" "{\"string_id\":\"s-1\",\"ts\":1700000000}" "#,
    ));
    assert_eq!(
        (event.device_id.as_str(), event.event_ms),
        ("s-1", 1_700_000_000_000)
    );
    assert!(event.values_json.contains(r#""string_id":"s-1""#));
}

/// Kind, `timestamp`, `received_at`, payload; event time and its source.
type Case = (
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    &'static str,
    i64,
    TimestampSource,
);

#[test]
fn the_event_time_follows_the_rules_in_order() {
    use TimestampSource::{Payload, ReceivedAt, Record};
    const T: i64 = 1_700_000_000_000;
    let table: &[Case] = &[
        (
            "sites",
            Some("2023-11-14T22:13:20Z"),
            None,
            r#"{"ts":1600000000}"#,
            T,
            Record,
        ),
        ("sites", Some("2023-11-14T22:13:20"), None, "{}", T, Record),
        ("sites", Some("1700000000"), None, "{}", T, Record),
        (
            "sites",
            Some("garbage"),
            None,
            r#"{"ts":1700000000}"#,
            T,
            Payload,
        ),
        (
            "sites",
            Some("1970-01-01T00:00:00Z"),
            None,
            r#"{"ts":"1700000000000"}"#,
            T,
            Payload,
        ),
        (
            "sites",
            None,
            Some("2026-11-22T11:00:00Z"),
            r#"{"ts":"2023-11-14 22:13:20"}"#,
            T,
            Payload,
        ),
        (
            "sites",
            None,
            Some("2026-11-22T11:00:00Z"),
            r#"{"ts":"garbage"}"#,
            NOW - 3_600_000,
            ReceivedAt,
        ),
        (
            "sites",
            None,
            Some("garbage"),
            r#"{"ts":{}}"#,
            NOW,
            ReceivedAt,
        ),
        (
            "sites",
            None,
            None,
            r#"{"timestamp":1700000000}"#,
            NOW,
            ReceivedAt,
        ),
        (
            "devices",
            None,
            None,
            r#"{"device_id":"d","device_ts":1700000000}"#,
            T,
            Payload,
        ),
        (
            "devices",
            None,
            None,
            r#"{"device_id":"d","device_ts":1600000000,"ts":1700000000}"#,
            T,
            Payload,
        ),
        (
            "devices",
            None,
            None,
            r#"{"device_id":"d","device_ts":"soon"}"#,
            NOW,
            ReceivedAt,
        ),
        (
            "sites",
            None,
            None,
            r#"{"device_ts":1700000000}"#,
            NOW,
            ReceivedAt,
        ),
    ];
    for (kind, timestamp, received_at, payload, event_ms, source) in table {
        let event = accepted(&RawRecord {
            timestamp: *timestamp,
            received_at: *received_at,
            ..raw(kind, payload)
        });
        assert_eq!(
            (event.event_ms, event.timestamp_source),
            (*event_ms, *source),
            "{kind} {timestamp:?} {payload}"
        );
    }
}

#[test]
fn the_device_is_the_payloads_else_the_keys() {
    let table: &[(&str, &str, Option<&[u8]>, &str)] = &[
        (
            "inverters",
            r#"{"inverter_id":"inv-1"}"#,
            Some(b"k"),
            "inv-1",
        ),
        ("inverters", r#"{"inverter_id":7}"#, None, "7"),
        ("inverters", r#"{"device_id":"d"}"#, Some(b"k"), "d"),
        ("inverters", r#"{"inverter_id":""}"#, Some(b"k"), "k"),
        ("inverters", r#"{"inverter_id":true}"#, Some(b"k"), "k"),
        ("inverters", "{}", Some(&[0xff]), ""),
        ("inverters", "{}", None, ""),
    ];
    for (kind, payload, key, device) in table {
        assert_eq!(
            accepted(&RawRecord {
                key: *key,
                ..raw(kind, payload)
            })
            .device_id,
            *device,
            "{payload}"
        );
    }
    let no_kind = r#"{"device_id":"d","device_ts":1700000000}"#;
    assert_eq!(
        accepted(&RawRecord {
            kind: None,
            ..raw("", no_kind)
        })
        .kind,
        "devices"
    );
}

#[test]
fn of_repeated_keys_the_last_counts_and_escapes_are_understood() {
    let event = accepted(&raw(
        "sites",
        r#"{"a":1,"a":2,"\u0073ite_id":"s","x\"y":3}"#,
    ));
    let values: Value = serde_json::from_str(&event.values_json).unwrap();
    assert_eq!(values["a"], 2);
    assert_eq!(values["x\"y"], 3);
    assert_eq!(event.device_id, "s");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e12..1e12_f64).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-z_\"\\\\é]{0,9}", inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_get_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in ".{0,20}") {
        let record = RawRecord { kind: Some(&kind), payload: Some(&bytes), arrived_ms: NOW, ..RawRecord::default() };
        if let Err(rejected) = rules().judge(&record) {
            prop_assert!(!rejected.errors.is_empty());
        }
    }

    /// Whatever is accepted: every given value unchanged, every gap null and listed, nothing else.
    #[test]
    fn an_accepted_payload_keeps_its_values(payload in any_json()) {
        let text = payload.to_string();
        let verdict = rules().judge(&raw("sites", &text));
        // Read back, because reading a float may cost its last bit and both sides must pay it.
        let Value::Object(given) = serde_json::from_str(&text).unwrap() else {
            prop_assert!(verdict.is_err() || text.starts_with('"'));
            return Ok(());
        };
        let event = verdict.unwrap();
        let mut expected = given.clone();
        for key in &event.missing {
            prop_assert!(given.get(key).is_none_or(Value::is_null));
            expected.insert(key.clone(), Value::Null);
        }
        prop_assert_eq!(serde_json::from_str::<Value>(&event.values_json).unwrap(), Value::Object(expected));
    }

    /// The same payload as an object and as a string holding it gets the same verdict.
    #[test]
    fn wrapping_changes_nothing(payload in any_json()) {
        prop_assume!(payload.is_object());
        let plain = payload.to_string();
        let wrapped = json!(plain).to_string();
        prop_assert_eq!(rules().judge(&raw("sites", &plain)), rules().judge(&raw("sites", &wrapped)));
    }

    #[test]
    fn the_depth_of_a_text_is_bounded_by_its_parser(levels in 1_usize..200) {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        prop_assert_eq!(rules().judge(&raw("sites", &text)).is_ok(), levels < PAYLOAD_DEPTH_MAX);
    }
}

#[test]
fn a_cut_falls_between_characters() {
    assert_eq!(cut("aä", 3), "aä");
    assert_eq!(cut("aä", 2), "a");
    assert_eq!(cut("ä", 1), "");
    assert_eq!(cut("", 0), "");
}

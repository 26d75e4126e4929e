//! A body of `POST /ingest`, element by element: the record for the log and the verdict for the
//! sender.
//!
//! A body is an array of records or `{"records":[...]}`. A record is `{topic, payload, timestamp
//! (or ts)?, received_at?, qos?, retain?, id?}`; other fields are ignored. `topic` is a kind, or an
//! MQTT topic of one of the shapes `telemetry/<kind>/<device>` and `devices/<device>/telemetry`,
//! so that a gateway can forward what it subscribed to.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::body::Bytes;
use holdfast_storage::log::{Header, Record};
use holdfast_storage::telemetry::{RecordError, RecordKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{INGEST_RECORDS_MAX, TelemetryState};
use crate::pipelines::telemetry::Rules;
use crate::pipelines::telemetry::record::{
    self, DLQ_BYTES_MAX, RECORD_ID_BYTES_MAX, header, text_header,
};
use crate::pipelines::telemetry::rules::{
    self, KIND_BYTES_MAX, PAYLOAD_BYTES_MAX, Rejected, code, error,
};
use crate::pipelines::telemetry::timestamps::rfc3339;

/// The body of a 200.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Answer {
    accepted: usize,
    rejected: usize,
    duplicates: usize,
    rejections: Vec<Rejection>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rejection {
    index: usize,
    errors: Vec<RecordError>,
}

/// What to append and what to answer once it is durable.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) records: Vec<Record>,
    pub(super) answer: Answer,
    /// Identities that were new, to be forgotten if the append fails.
    pub(super) reserved: Vec<RecordKey>,
}

type Element<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    records: Vec<&'a RawValue>,
}

/// Why a body is refused as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// No batch of records; the sentence says why.
    Malformed(String),
    /// More than [`INGEST_RECORDS_MAX`].
    TooMany(usize),
}

/// Judges a body.
pub(super) fn judge(
    state: &TelemetryState,
    body: &[u8],
    client: &str,
    now_ms: i64,
) -> Result<Judgement, BodyError> {
    let elements = elements(body).map_err(BodyError::Malformed)?;
    if elements.len() > INGEST_RECORDS_MAX {
        return Err(BodyError::TooMany(elements.len()));
    }
    let mut judgement = Judgement::default();
    for (index, element) in elements.into_iter().enumerate() {
        let record = record_of(&state.rules, element, client, now_ms);
        let raw = record::raw_record(&record, now_ms);
        let (verdict, identity) = record::verdict(&state.rules, &record, &raw);
        match (verdict, identity) {
            (Err(Rejected { errors, .. }), _) => {
                judgement.answer.rejected += 1;
                judgement
                    .answer
                    .rejections
                    .push(Rejection { index, errors });
            }
            (Ok(_), Some(key)) if state.seen(key) || !state.recent.reserve(key) => {
                judgement.answer.duplicates += 1;
            }
            (Ok(_), identity) => {
                judgement.answer.accepted += 1;
                judgement.reserved.extend(identity);
            }
        }
        judgement.records.push(record);
    }
    Ok(judgement)
}

fn elements(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    let text = str::from_utf8(body).map_err(|cause| format!("the body is not UTF-8: {cause}"))?;
    let malformed =
        |cause: serde_json::Error| format!("the body is not a batch of records: {cause}");
    match text.trim_ascii_start().bytes().next() {
        Some(b'[') => serde_json::from_str(text).map_err(malformed),
        Some(b'{') => serde_json::from_str::<Wrapped<'_>>(text)
            .map(|wrapped| wrapped.records)
            .map_err(malformed),
        Some(_) => Err(
            "the body must be an array of records or an object with the field records".to_owned(),
        ),
        None => Err("the body is empty".to_owned()),
    }
}

/// The log record of one element. What surrounds the payload is judged here; the payload by the rules.
fn record_of(rules: &Rules, element: &RawValue, client: &str, now_ms: i64) -> Record {
    let mut headers = vec![
        text_header(header::RECEIVED_AT, rfc3339(now_ms).unwrap_or_default()),
        text_header(header::HTTP_CLIENT, client),
    ];
    let found = match serde_json::from_str::<Element<'_>>(element.get()) {
        Ok(fields) => envelope(rules, &fields, &mut headers),
        Err(_) => Err(error(code::RECORD_NOT_OBJECT, "a record must be an object")),
    };
    let (key, value) = match found {
        Ok(found) => found,
        Err(fault) => {
            let errors = serde_json::to_string(&[fault]).unwrap_or_default();
            headers.push(text_header(header::DOOR_ERRORS, errors));
            (None, Some(clipped(element.get())))
        }
    };
    let mut record = Record {
        timestamp_ms: now_ms,
        key,
        value,
        headers,
    };
    if record.key.is_none() {
        record.key = device_key(rules, &record, now_ms);
    }
    record
}

/// Records of one device keep their order in one partition.
fn device_key(rules: &Rules, record: &Record, now_ms: i64) -> Option<Bytes> {
    let accepted = rules.judge(&record::raw_record(record, now_ms)).ok()?;
    (!accepted.device_id.is_empty()).then(|| Bytes::from(accepted.device_id))
}

type KeyAndValue = (Option<Bytes>, Option<Bytes>);

fn envelope(
    rules: &Rules,
    fields: &Element<'_>,
    headers: &mut Vec<Header>,
) -> Result<KeyAndValue, RecordError> {
    for (name, fields_named) in [
        (header::TIMESTAMP, ["timestamp", "ts"].as_slice()),
        (header::RECEIVED_AT_SENDER, &["received_at"]),
    ] {
        let given = fields_named
            .iter()
            .filter_map(|field| fields.get(*field))
            .find(|value| value.get() != "null");
        if let Some(value) = given {
            let text = rules::scalar(value).unwrap_or_else(|| value.get().to_owned());
            headers.push(text_header(name, rules::cut(&text, KIND_BYTES_MAX)));
        }
    }
    if let Some(qos @ ("0" | "1" | "2")) = fields.get("qos").map(|qos| qos.get()) {
        headers.push(text_header(header::MQTT_QOS, qos));
    }
    if let Some(retain @ ("true" | "false")) = fields.get("retain").map(|retain| retain.get()) {
        headers.push(text_header(header::MQTT_RETAIN, retain));
    }
    if let Some(id) = fields.get("id").filter(|id| id.get() != "null") {
        headers.push(text_header(header::ID, id_of(id)?));
    }
    let topic = topic_of(fields)?;
    let (kind, device) = kind_of(rules, &topic);
    headers.push(text_header(header::KIND, rules::cut(kind, KIND_BYTES_MAX)));
    headers.push(text_header(
        header::MQTT_TOPIC,
        rules::cut(&topic, KIND_BYTES_MAX),
    ));
    let payload = fields
        .get("payload")
        .ok_or_else(|| error(code::MISSING_PAYLOAD, "the record has no payload"))?;
    if payload.get().len() > PAYLOAD_BYTES_MAX {
        let message = format!(
            "the payload has {} bytes, {PAYLOAD_BYTES_MAX} are accepted",
            payload.get().len()
        );
        return Err(error(code::PAYLOAD_TOO_LARGE, message));
    }
    let key = device.map(|device| Bytes::copy_from_slice(device.as_bytes()));
    Ok((key, Some(Bytes::copy_from_slice(payload.get().as_bytes()))))
}

fn id_of(id: &RawValue) -> Result<String, RecordError> {
    let message = || format!("id must be a text of 1 to {RECORD_ID_BYTES_MAX} bytes, or a number");
    rules::scalar(id)
        .filter(|id| (1..=RECORD_ID_BYTES_MAX).contains(&id.len()))
        .ok_or_else(|| error(code::INVALID_ID, message()))
}

fn topic_of(fields: &Element<'_>) -> Result<String, RecordError> {
    let topic = fields.get("topic").filter(|topic| topic.get() != "null");
    let topic = topic.ok_or_else(|| error(code::MISSING_TOPIC, "the record has no topic"))?;
    serde_json::from_str::<String>(topic.get())
        .map_err(|_| error(code::INVALID_TOPIC, "topic must be a text"))
}

/// The kind that a topic names, and the device where the topic names one.
fn kind_of<'t>(rules: &Rules, topic: &'t str) -> (&'t str, Option<&'t str>) {
    if rules.declares(topic) {
        return (topic, None);
    }
    let mut levels = topic.split('/');
    match (levels.next(), levels.next(), levels.next(), levels.next()) {
        (Some("telemetry"), Some(kind), Some(device), None) => (kind, Some(device)),
        (Some(kind @ "devices"), Some(device), Some("telemetry"), None) => (kind, Some(device)),
        _ => (topic, None),
    }
}

/// As much of a refused element as fits a record batch.
fn clipped(element: &str) -> Bytes {
    Bytes::copy_from_slice(rules::cut(element, DLQ_BYTES_MAX).as_bytes())
}

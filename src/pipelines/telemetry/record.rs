//! From a log record to a verdict and the records that follow from it. Pure.
//!
//! **Owns** the names of the record headers that the pipeline reads and writes, the identity of a
//! record (system 3: its id or its content), and the shapes of what goes to `telemetry.cleaned`
//! and `telemetry.dlq`.

use bytes::Bytes;
use holdfast_storage::log::{Header, Record};
use holdfast_storage::telemetry::{
    CleanEvent, InvalidRecord, Position, RecordError, RecordKey, SPEED_KIND, SpeedEvent,
    TimestampSource,
};
use sha2::{Digest, Sha256};

use super::rules::{self, Accepted, RawRecord, Rejected, Rules, code, error, quoted};
use super::speed::{self, SpeedError};
use super::timestamps::{self, rfc3339};
use crate::pipelines::event_log::CorruptBatch;

/// Header names.
pub mod header {
    /// The kind: a schema's name.
    pub const KIND: &str = "kind";
    /// When this node received the record, RFC 3339.
    pub const RECEIVED_AT: &str = "received_at";
    /// When a gateway before this node received it, as sent.
    pub const RECEIVED_AT_SENDER: &str = "received_at.sender";
    /// The record's own event time, as sent.
    pub const TIMESTAMP: &str = "timestamp";
    /// The sender's record id.
    pub const ID: &str = "id";
    /// Who posted it; only on records from the HTTP door.
    pub const HTTP_CLIENT: &str = "http.client";
    /// The MQTT topic it came by.
    pub const MQTT_TOPIC: &str = "mqtt.topic";
    /// MQTT quality of service.
    pub const MQTT_QOS: &str = "mqtt.qos";
    /// MQTT retain flag.
    pub const MQTT_RETAIN: &str = "mqtt.retain";
    /// Errors (JSON) that a door found in what surrounds the payload; such a record is rejected.
    pub const DOOR_ERRORS: &str = "door.errors";
    /// Why a record is in the DLQ: codes, comma separated.
    pub const DLQ_ERROR_CODES: &str = "dlq.error_codes";
    /// The same with sentences, JSON.
    pub const DLQ_ERRORS: &str = "dlq.errors";
    /// When it was put there, RFC 3339.
    pub const DLQ_FAILED_AT: &str = "dlq.failed_at";
    /// Original length in bytes, where the value had to be cut to fit.
    pub const DLQ_VALUE_BYTES: &str = "dlq.value_bytes";
    /// How many original headers were left out because they alone would not fit.
    pub const DLQ_HEADERS_DROPPED: &str = "dlq.headers_dropped";
    /// Prefix of the source headers in the DLQ; `telemetry.cleaned` has them without it.
    pub const DLQ_PREFIX: &str = "dlq.";
    /// Topic name of the raw record.
    pub const SOURCE_TOPIC: &str = "source_topic";
    /// Its topic id.
    pub const SOURCE_TOPIC_ID: &str = "source_topic_id";
    /// Its partition.
    pub const SOURCE_PARTITION: &str = "source_partition";
    /// Its offset.
    pub const SOURCE_OFFSET: &str = "source_offset";
}

/// Bytes of original value and original headers that a dead-lettered record carries; a record
/// batch holds 1 MiB, and ours needs room for its reasons.
pub const DLQ_BYTES_MAX: usize = 900_000;
/// Longest record id.
pub const RECORD_ID_BYTES_MAX: usize = 256;
/// Bytes of error sentences repeated in a header.
const ERRORS_BYTES_MAX: usize = 16 * 1024;

/// A judged record, ready to be produced and stored.
#[derive(Debug, Clone)]
pub struct Judged {
    pub outcome: Outcome,
    /// `None` where two equal records need not be the same one.
    pub identity: Option<RecordKey>,
}

/// What becomes of a record.
#[derive(Debug, Clone)]
pub enum Outcome {
    Clean { event: CleanEvent, cleaned: Record },
    Invalid { row: InvalidRecord, dead: Record },
    Speed(SpeedEvent),
}

impl Outcome {
    pub fn at(&self) -> Position {
        match self {
            Outcome::Clean { event, .. } => event.at,
            Outcome::Invalid { row, .. } => row.at,
            Outcome::Speed(event) => event.at,
        }
    }
}

/// A record's first header of that name.
pub fn find<'r>(record: &'r Record, name: &str) -> Option<&'r Bytes> {
    record
        .headers
        .iter()
        .find(|header| header.name == name.as_bytes())
        .and_then(|header| header.value.as_ref())
}

fn find_text<'r>(record: &'r Record, name: &str) -> Option<&'r str> {
    find(record, name).and_then(|value| str::from_utf8(value).ok())
}

/// A header with a text value.
pub fn text_header(name: &'static str, value: impl Into<String>) -> Header {
    Header::new(name, value.into())
}

/// Judges a record of `telemetry.raw`.
pub fn judge(rules: &Rules, topic: &str, at: Position, record: &Record, now_ms: i64) -> Judged {
    let raw = raw_record(record, now_ms);
    let (verdict, identity) = verdict(rules, record, &raw);
    let outcome = match verdict {
        Ok(accepted) => clean(topic, at, record, accepted, now_ms),
        Err(rejected) => invalid(topic, at, record, rejected, now_ms),
    };
    Judged { outcome, identity }
}

/// The verdict on a record and its identity: all that the HTTP door needs to answer.
pub fn verdict(
    rules: &Rules,
    record: &Record,
    raw: &RawRecord<'_>,
) -> (Result<Accepted, Rejected>, Option<RecordKey>) {
    let verdict = match door_errors(record) {
        Some(errors) => Err(Rejected {
            kind: rules::cut(raw.kind.unwrap_or_default(), rules::KIND_BYTES_MAX).to_owned(),
            received_ms: raw.arrived_ms,
            errors,
        }),
        None => rules.judge(raw),
    };
    let identity = identity(record, &verdict);
    (verdict, identity)
}

/// The parts of a log record that the rules look at.
pub fn raw_record(record: &Record, now_ms: i64) -> RawRecord<'_> {
    RawRecord {
        kind: find_text(record, header::KIND),
        payload: record.value.as_deref(),
        timestamp: find_text(record, header::TIMESTAMP),
        received_at: find_text(record, header::RECEIVED_AT_SENDER),
        arrived_ms: arrived_ms(record, now_ms),
        key: record.key.as_deref(),
    }
}

/// The door's received time, else the record's timestamp, else now.
fn arrived_ms(record: &Record, now_ms: i64) -> i64 {
    find_text(record, header::RECEIVED_AT)
        .and_then(|text| timestamps::parse(text, now_ms))
        .or_else(|| timestamps::believable(record.timestamp_ms, now_ms))
        .unwrap_or(now_ms)
}

fn door_errors(record: &Record) -> Option<Vec<RecordError>> {
    let errors = find(record, header::DOOR_ERRORS)?;
    Some(
        serde_json::from_slice(errors)
            .unwrap_or_else(|_| vec![error(code::PAYLOAD_NOT_JSON, "refused by the door")]),
    )
}

/// A record's identity: its id, else its content.
///
/// Content tells two records apart only where it holds a time. Without one, equal payloads of one
/// device are as likely two readings as one delivered twice, and a lost reading is worse than a
/// repeated one: they have no identity. The HTTP door's batches are the exception: there a sender
/// that retries is the rule (system 3).
///
/// Accepted and rejected records never share an identity: a corrected record may keep its id.
fn identity(record: &Record, verdict: &Result<Accepted, Rejected>) -> Option<RecordKey> {
    let id = find(record, header::ID).map(Bytes::as_ref);
    let (accepted, kind, device, timed) = match verdict {
        Ok(accepted) => {
            let timed = accepted.timestamp_source != TimestampSource::ReceivedAt;
            (
                true,
                accepted.kind.as_str(),
                accepted.device_id.as_str(),
                timed,
            )
        }
        Err(rejected) => (false, rejected.kind.as_str(), "", false),
    };
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    part(if accepted { b"accepted" } else { b"rejected" });
    part(kind.as_bytes());
    match id {
        Some(id) => {
            part(b"id");
            part(id);
        }
        None if timed || find(record, header::HTTP_CLIENT).is_some() => {
            part(b"content");
            part(device.as_bytes());
            for name in [
                header::TIMESTAMP,
                header::RECEIVED_AT_SENDER,
                header::MQTT_TOPIC,
            ] {
                part(find(record, name).map(Bytes::as_ref).unwrap_or_default());
            }
        }
        None => return None,
    }
    // A rejected record is its bytes even with an id: another correction is another record.
    if id.is_none() || !accepted {
        part(record.value.as_deref().unwrap_or_default());
    }
    let digest: [u8; 32] = hash.finalize().into();
    digest
        .first_chunk()
        .map(|prefix| RecordKey::from_be_bytes(*prefix))
}

fn clean(topic: &str, at: Position, record: &Record, accepted: Accepted, now_ms: i64) -> Outcome {
    let record_id =
        find_text(record, header::ID).map(|id| rules::cut(id, RECORD_ID_BYTES_MAX).to_owned());
    let event = CleanEvent {
        at,
        kind: accepted.kind,
        device_id: accepted.device_id,
        event_ms: accepted.event_ms,
        received_ms: accepted.received_ms,
        values_json: accepted.values_json,
        missing: accepted.missing,
        timestamp_source: accepted.timestamp_source,
        record_id,
    };
    let mut headers = vec![text_header(header::KIND, event.kind.clone())];
    headers.extend(source_headers("", topic, at));
    let cleaned = Record {
        timestamp_ms: event.event_ms,
        key: (!event.device_id.is_empty()).then(|| Bytes::from(event.device_id.clone())),
        value: Some(Bytes::from(cleaned_json(&event, topic, now_ms))),
        headers,
    };
    Outcome::Clean { event, cleaned }
}

/// The value of a record in `telemetry.cleaned`. Written by hand around the normalised values, so
/// that they are not parsed again.
fn cleaned_json(event: &CleanEvent, topic: &str, now_ms: i64) -> String {
    let time = |ms| rfc3339(ms).or_else(|| rfc3339(now_ms)).unwrap_or_default();
    let missing: Vec<String> = event.missing.iter().map(|key| quoted(key)).collect();
    let id = event
        .record_id
        .as_ref()
        .map(|id| format!("\"id\":{},", quoted(id)))
        .unwrap_or_default();
    format!(
        "{{\"kind\":{kind},\"device_id\":{device},{id}\"event_time\":\"{event_time}\",\"received_at\":\"{received}\",\
         \"values\":{values},\"quality\":{{\"missing_fields\":[{missing}],\"timestamp_source\":\"{timestamp_source}\",\
         \"fallback_timestamp\":{fallback}}},\"source\":{{\"topic\":{topic},\"partition\":{partition},\"offset\":{offset}}}}}",
        kind = quoted(&event.kind),
        device = quoted(&event.device_id),
        event_time = time(event.event_ms),
        received = time(event.received_ms),
        values = event.values_json,
        missing = missing.join(","),
        timestamp_source = event.timestamp_source.as_str(),
        fallback = event.timestamp_source.is_fallback(),
        topic = quoted(topic),
        partition = event.at.partition,
        offset = event.at.offset,
    )
}

fn source_headers(prefix: &str, topic: &str, at: Position) -> [Header; 4] {
    let header = |name: &str, value: String| Header::new(format!("{prefix}{name}"), value);
    [
        header(header::SOURCE_TOPIC, topic.to_owned()),
        header(header::SOURCE_TOPIC_ID, at.topic_id.to_string()),
        header(header::SOURCE_PARTITION, at.partition.to_string()),
        header(header::SOURCE_OFFSET, at.offset.to_string()),
    ]
}

fn invalid(topic: &str, at: Position, record: &Record, rejected: Rejected, now_ms: i64) -> Outcome {
    let dead = dead_letter(
        record,
        &rejected.errors,
        source_headers(header::DLQ_PREFIX, topic, at).into(),
        now_ms,
    );
    let row = InvalidRecord {
        at,
        kind: rejected.kind,
        mqtt_topic: find_text(record, header::MQTT_TOPIC).map(str::to_owned),
        payload: record.value.clone().unwrap_or_default(),
        received_ms: rejected.received_ms,
        errors: rejected.errors,
    };
    Outcome::Invalid { row, dead }
}

/// The record as it came, with its reasons; cut only where it would not fit a record batch.
pub fn dead_letter(
    record: &Record,
    errors: &[RecordError],
    source: Vec<Header>,
    now_ms: i64,
) -> Record {
    let header_bytes =
        |header: &Header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len) + 10;
    let original_headers: usize = record.headers.iter().map(header_bytes).sum();
    let key_bytes = record.key.as_ref().map_or(0, Bytes::len);
    let mut headers = Vec::with_capacity(record.headers.len() + source.len() + 5);
    let mut room = DLQ_BYTES_MAX.saturating_sub(key_bytes);
    if original_headers <= room / 2 {
        headers.extend(record.headers.iter().cloned());
        room -= original_headers;
    } else {
        headers.push(text_header(
            header::DLQ_HEADERS_DROPPED,
            record.headers.len().to_string(),
        ));
    }
    let value = record
        .value
        .as_ref()
        .map(|value| value.slice(..value.len().min(room)));
    if let (Some(original), Some(kept)) = (&record.value, &value)
        && kept.len() < original.len()
    {
        headers.push(text_header(
            header::DLQ_VALUE_BYTES,
            original.len().to_string(),
        ));
    }
    headers.extend(source);
    headers.extend(reason_headers(errors, now_ms));
    let key = record.key.clone().filter(|key| key.len() < DLQ_BYTES_MAX);
    Record {
        timestamp_ms: now_ms,
        key,
        value,
        headers,
    }
}

fn reason_headers(errors: &[RecordError], now_ms: i64) -> [Header; 3] {
    let codes: Vec<&str> = errors.iter().map(|error| error.code.as_str()).collect();
    let json = serde_json::to_string(errors).unwrap_or_default();
    // Sentences repeat names from the configuration and are short; codes alone are always kept.
    let json = if json.len() <= ERRORS_BYTES_MAX {
        json
    } else {
        "[]".to_owned()
    };
    [
        text_header(
            header::DLQ_ERROR_CODES,
            rules::cut(&codes.join(","), ERRORS_BYTES_MAX),
        ),
        text_header(header::DLQ_ERRORS, json),
        text_header(header::DLQ_FAILED_AT, rfc3339(now_ms).unwrap_or_default()),
    ]
}

/// Judges a record of `speed-events`.
pub fn judge_speed(topic: &str, at: Position, record: &Record, now_ms: i64) -> Judged {
    let received_ms = arrived_ms(record, now_ms);
    let outcome = match speed::judge(record.value.as_deref().unwrap_or_default(), received_ms) {
        Ok(reading) => Outcome::Speed(SpeedEvent {
            at,
            received_ms,
            reading,
        }),
        Err(cause) => {
            let rejected = Rejected {
                kind: SPEED_KIND.to_owned(),
                received_ms,
                errors: speed_errors(cause),
            };
            invalid(topic, at, record, rejected, now_ms)
        }
    };
    // Equal readings of one sensor are history, not redelivery.
    Judged {
        outcome,
        identity: None,
    }
}

fn speed_errors(cause: SpeedError) -> Vec<RecordError> {
    match cause {
        SpeedError::NotAnObject(message) => vec![error(code::PAYLOAD_NOT_JSON, message)],
        SpeedError::Fields(fields) => fields
            .into_values()
            .map(|message| error(code::INVALID_SPEED_EVENT, message))
            .collect(),
    }
}

/// A batch that cannot be decoded is dead-lettered whole.
pub fn judge_corrupt(topic: &str, kind: &str, batch: CorruptBatch, now_ms: i64) -> Judged {
    let record = Record {
        timestamp_ms: now_ms,
        key: None,
        value: Some(batch.bytes),
        headers: Vec::new(),
    };
    let errors = vec![error(code::CORRUPT_BATCH, batch.reason)];
    let rejected = Rejected {
        kind: kind.to_owned(),
        received_ms: now_ms,
        errors,
    };
    Judged {
        outcome: invalid(topic, batch.at, &record, rejected, now_ms),
        identity: None,
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;

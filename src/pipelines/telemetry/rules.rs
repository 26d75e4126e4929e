//! The validator: what makes a telemetry record acceptable. Pure, so that the HTTP door can run it
//! to answer a sender and come to the same verdict as the pipeline.
//!
//! Hard failures reject a record; soft gaps (missing expected keys, no usable time) are listed in
//! the quality metadata of an accepted one.
//!
//! **Event time**: the record's `timestamp`, else the schema's timestamp keys inside the payload
//! (`ts`; for kind `devices` also `device_ts`, after it), else the received time. A value that
//! [`timestamps`] cannot believe falls through to the next rule.
//!
//! **Device**: the schema's device key, else `device_id`, else the record's key.

use std::borrow::Cow;
use std::collections::BTreeMap;

use holdfast_storage::telemetry::{RecordError, TimestampSource};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::config::{Schema, TelemetryConfig};
use super::timestamps;

/// Largest payload that is accepted: what is written to `telemetry.cleaned` must fit a record batch.
pub const PAYLOAD_BYTES_MAX: usize = 900_000;
/// Deepest nesting that is accepted: readers parse recursively.
pub const PAYLOAD_DEPTH_MAX: usize = 64;
/// Longest device id.
pub const DEVICE_ID_BYTES_MAX: usize = 256;
/// Longest kind that is repeated in an error or kept with a rejected record.
pub const KIND_BYTES_MAX: usize = 256;

/// Stable error codes.
pub mod code {
    /// No schema is declared for the record's kind.
    pub const UNSUPPORTED_TOPIC: &str = "unsupported_topic";
    /// No payload, an empty one, or null.
    pub const MISSING_PAYLOAD: &str = "missing_payload";
    /// The payload is not JSON text.
    pub const PAYLOAD_NOT_JSON: &str = "payload_not_json";
    /// The payload is JSON but no object.
    pub const PAYLOAD_NOT_OBJECT: &str = "payload_not_object";
    /// See [`super::PAYLOAD_BYTES_MAX`].
    pub const PAYLOAD_TOO_LARGE: &str = "payload_too_large";
    /// See [`super::PAYLOAD_DEPTH_MAX`].
    pub const PAYLOAD_TOO_DEEP: &str = "payload_too_deep";
    /// A required key is absent or null.
    pub const MISSING_REQUIRED_FIELD: &str = "missing_required_field";
    /// The required device id is empty, too long, or neither text nor number.
    pub const INVALID_DEVICE_ID: &str = "invalid_device_id";
    /// A field of a speed event is absent or out of bounds.
    pub const INVALID_SPEED_EVENT: &str = "invalid_speed_event";
    /// An element of a batch is no object.
    pub const RECORD_NOT_OBJECT: &str = "record_not_object";
    /// An element of a batch names no topic.
    pub const MISSING_TOPIC: &str = "missing_topic";
    /// An element's topic is no text.
    pub const INVALID_TOPIC: &str = "invalid_topic";
    /// An element's id is empty, too long, or neither text nor number.
    pub const INVALID_ID: &str = "invalid_id";
    /// A request body is no batch of records.
    pub const MALFORMED_BODY: &str = "malformed_body";
    /// A stored record batch cannot be decoded.
    pub const CORRUPT_BATCH: &str = "corrupt_batch";
}

/// The declared kinds.
#[derive(Debug, Clone)]
pub struct Rules {
    schemas: BTreeMap<String, Schema>,
    default_kind: String,
}

/// A record before judgement.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawRecord<'a> {
    /// The kind it claims; without one it has the default kind.
    pub kind: Option<&'a str>,
    pub payload: Option<&'a [u8]>,
    /// The record's own event time, as sent.
    pub timestamp: Option<&'a str>,
    /// When a gateway before this node received it, as sent.
    pub received_at: Option<&'a str>,
    /// When this node received it, milliseconds since the Unix epoch.
    pub arrived_ms: i64,
    pub key: Option<&'a [u8]>,
}

/// An accepted record, normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    pub kind: String,
    /// Empty where nothing names a device.
    pub device_id: String,
    pub event_ms: i64,
    pub received_ms: i64,
    pub timestamp_source: TimestampSource,
    /// A JSON object, keys in order, missing expected ones null.
    pub values_json: String,
    pub missing: Vec<String>,
}

/// A rejected record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub kind: String,
    pub received_ms: i64,
    /// At least one.
    pub errors: Vec<RecordError>,
}

/// An error with a stable code.
pub fn error(code: &str, message: impl Into<String>) -> RecordError {
    RecordError {
        code: code.to_owned(),
        message: message.into(),
    }
}

type Fields<'a> = BTreeMap<Key<'a>, &'a RawValue>;

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl std::borrow::Borrow<str> for Key<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Rules {
    pub fn new(config: &TelemetryConfig) -> Rules {
        let schemas = config.schemas.iter().filter(|(_, schema)| schema.enabled);
        Rules {
            schemas: schemas
                .map(|(kind, schema)| (kind.clone(), schema.clone()))
                .collect(),
            default_kind: config.default_kind.clone(),
        }
    }

    /// Declared kinds, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.schemas.keys().map(String::as_str)
    }

    pub fn declares(&self, kind: &str) -> bool {
        self.schemas.contains_key(kind)
    }

    /// The verdict. The same record always gets the same one.
    pub fn judge(&self, record: &RawRecord<'_>) -> Result<Accepted, Rejected> {
        let kind = cut(record.kind.unwrap_or(&self.default_kind), KIND_BYTES_MAX);
        let received_ms = received_ms(record);
        let rejected = |errors| Rejected {
            kind: kind.to_owned(),
            received_ms,
            errors,
        };
        let Some(schema) = self.schemas.get(kind) else {
            let mut errors = vec![error(
                code::UNSUPPORTED_TOPIC,
                format!("no schema is declared for {kind:?}"),
            )];
            errors.extend(
                text_of(record.payload)
                    .err()
                    .filter(|error| error.code == code::MISSING_PAYLOAD),
            );
            return Err(rejected(errors));
        };
        let text = text_of(record.payload).map_err(|error| rejected(vec![error]))?;
        let fields = fields_of(&text).map_err(|error| rejected(vec![error]))?;
        let errors = missing_required(schema, &fields);
        if !errors.is_empty() {
            return Err(rejected(errors));
        }
        let device_id =
            device_of(schema, &fields, record.key).map_err(|error| rejected(vec![error]))?;
        let (event_ms, timestamp_source) = event_time(schema, &fields, record, received_ms);
        let missing: Vec<String> = schema
            .expected
            .iter()
            .filter(|key| !present(&fields, key))
            .cloned()
            .collect();
        let values_json = normalised(&fields, &missing);
        let kind = kind.to_owned();
        Ok(Accepted {
            kind,
            device_id,
            event_ms,
            received_ms,
            timestamp_source,
            values_json,
            missing,
        })
    }
}

/// Cuts at a character boundary.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default()
}

fn received_ms(record: &RawRecord<'_>) -> i64 {
    record
        .received_at
        .and_then(|text| timestamps::parse(text, record.arrived_ms))
        .unwrap_or(record.arrived_ms)
}

/// The payload's JSON text; a JSON string that holds JSON is unwrapped once.
fn text_of(payload: Option<&[u8]>) -> Result<Cow<'_, str>, RecordError> {
    let missing = || error(code::MISSING_PAYLOAD, "the record has no payload");
    let bytes = payload.unwrap_or_default();
    if bytes.len() > PAYLOAD_BYTES_MAX {
        let message = format!(
            "the payload has {} bytes, {PAYLOAD_BYTES_MAX} are accepted",
            bytes.len()
        );
        return Err(error(code::PAYLOAD_TOO_LARGE, message));
    }
    let text = str::from_utf8(bytes)
        .map_err(|cause| error(code::PAYLOAD_NOT_JSON, format!("not UTF-8: {cause}")))?;
    let text = text.trim_ascii();
    if !text.starts_with('"') {
        return if text.is_empty() || text == "null" {
            Err(missing())
        } else {
            Ok(Cow::Borrowed(text))
        };
    }
    let inner: String = serde_json::from_str(text)
        .map_err(|cause| error(code::PAYLOAD_NOT_JSON, cause.to_string()))?;
    match inner.trim_ascii() {
        "" | "null" => Err(missing()),
        inner => Ok(Cow::Owned(inner.to_owned())),
    }
}

fn fields_of(text: &str) -> Result<Fields<'_>, RecordError> {
    if depth(text) > PAYLOAD_DEPTH_MAX {
        return Err(error(
            code::PAYLOAD_TOO_DEEP,
            format!("nested deeper than {PAYLOAD_DEPTH_MAX} levels"),
        ));
    }
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map_err(|cause| error(code::PAYLOAD_NOT_JSON, cause.to_string()));
    }
    Err(match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => error(
            code::PAYLOAD_NOT_OBJECT,
            "the payload is JSON, but not an object",
        ),
        Err(cause) => error(code::PAYLOAD_NOT_JSON, cause.to_string()),
    })
}

/// Deepest nesting of brackets outside strings; the parser for raw values has no limit of its own.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

fn present(fields: &Fields<'_>, key: &str) -> bool {
    fields.get(key).is_some_and(|value| value.get() != "null")
}

fn missing_required(schema: &Schema, fields: &Fields<'_>) -> Vec<RecordError> {
    let missing = schema.required.iter().filter(|key| !present(fields, key));
    missing
        .map(|key| {
            error(
                code::MISSING_REQUIRED_FIELD,
                format!("required field {key:?} is missing"),
            )
        })
        .collect()
}

fn device_of(
    schema: &Schema,
    fields: &Fields<'_>,
    key: Option<&[u8]>,
) -> Result<String, RecordError> {
    let required = schema.required.contains(&schema.device);
    for name in [schema.device.as_str(), "device_id"] {
        match fields.get(name).map(|value| scalar(value)) {
            Some(Some(id)) if (1..=DEVICE_ID_BYTES_MAX).contains(&id.len()) => return Ok(id),
            Some(_) if required => {
                let message = format!(
                    "{name:?} must be a text of 1 to {DEVICE_ID_BYTES_MAX} bytes, or a number"
                );
                return Err(error(code::INVALID_DEVICE_ID, message));
            }
            _ => {}
        }
    }
    let key = key
        .filter(|key| key.len() <= DEVICE_ID_BYTES_MAX)
        .and_then(|key| str::from_utf8(key).ok());
    Ok(key.unwrap_or_default().to_owned())
}

/// The text of a JSON string, or a JSON number as written.
pub fn scalar(value: &RawValue) -> Option<String> {
    let text = value.get();
    match text.bytes().next() {
        Some(b'"') => serde_json::from_str(text).ok(),
        Some(b'-' | b'0'..=b'9') => Some(text.to_owned()),
        _ => None,
    }
}

fn event_time(
    schema: &Schema,
    fields: &Fields<'_>,
    record: &RawRecord<'_>,
    received_ms: i64,
) -> (i64, TimestampSource) {
    // The window ends after the arrival here: a gateway's own clock must not widen it.
    let parse = |text: &str| timestamps::parse(text, record.arrived_ms);
    if let Some(ms) = record.timestamp.and_then(parse) {
        return (ms, TimestampSource::Record);
    }
    let inside = schema
        .timestamps
        .iter()
        .filter_map(|key| fields.get(key.as_str()));
    match inside
        .filter_map(|value| scalar(value))
        .find_map(|text| parse(&text))
    {
        Some(ms) => (ms, TimestampSource::Payload),
        None => (received_ms, TimestampSource::ReceivedAt),
    }
}

/// Values keep their text, so that no number loses a digit.
fn normalised(fields: &Fields<'_>, missing: &[String]) -> String {
    let gaps = missing.iter().map(|key| (key.as_str(), "null"));
    let given = fields
        .iter()
        .map(|(key, value)| (key.0.as_ref(), value.get()));
    let all: BTreeMap<&str, &str> = given.chain(gaps).collect();
    let mut json = String::with_capacity(
        all.iter()
            .map(|(key, value)| key.len() + value.len() + 4)
            .sum::<usize>()
            + 2,
    );
    for (key, value) in all {
        json.push(if json.is_empty() { '{' } else { ',' });
        json.push_str(&quoted(key));
        json.push(':');
        json.push_str(value);
    }
    json.push_str(if json.is_empty() { "{}" } else { "}" });
    json
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

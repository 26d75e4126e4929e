//! What the writer is handed: verdicts about records, and the offsets that produced them.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::log::{Offset, TopicId};

/// Where a record stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Identity of the topic; a recreated topic has another.
    pub topic_id: TopicId,
    /// Index of the partition.
    pub partition: i32,
    /// The record's offset, or, for progress, the next offset wanted.
    pub offset: Offset,
}

/// Identity of a record in system 3's sense: a hash of its id or of its content.
pub type RecordKey = u128;

/// The kind under which speed events are counted and rejected.
pub const SPEED_KIND: &str = "speed";

/// Which rule gave an event its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestampSource {
    /// The record's own `timestamp` field.
    Record,
    /// A field inside the payload.
    Payload,
    /// When it was received: the fallback.
    ReceivedAt,
}

impl TimestampSource {
    /// The name stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            TimestampSource::Record => "record",
            TimestampSource::Payload => "payload",
            TimestampSource::ReceivedAt => "received_at",
        }
    }

    /// True where the sender gave no usable time.
    pub fn is_fallback(self) -> bool {
        self == TimestampSource::ReceivedAt
    }
}

/// One accepted record, normalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CleanEvent {
    /// Its raw record.
    pub at: Position,
    /// Schema name, e.g. `inverters`.
    pub kind: String,
    /// Empty where neither payload nor key names a device.
    pub device_id: String,
    /// Event time, milliseconds since the Unix epoch.
    pub event_ms: i64,
    /// Received time, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// A JSON object with every expected key; missing ones are null.
    pub values_json: String,
    /// Expected keys that were absent or null.
    pub missing: Vec<String>,
    /// Which rule gave `event_ms`.
    pub timestamp_source: TimestampSource,
    /// The sender's own record id.
    pub record_id: Option<String>,
}

/// Why a record was rejected: a stable code for programs, a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordError {
    /// snake_case, stable.
    pub code: String,
    /// One sentence.
    pub message: String,
}

/// One rejected record with its original bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRecord {
    /// Its raw record.
    pub at: Position,
    /// The kind it claimed, possibly unknown.
    pub kind: String,
    /// The MQTT topic it came by, if any.
    pub mqtt_topic: Option<String>,
    /// As it came.
    pub payload: Bytes,
    /// Received time, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// At least one.
    pub errors: Vec<RecordError>,
}

/// A record that was delivered before: counted, not stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duplicate {
    /// Its raw record.
    pub at: Position,
    /// Schema name.
    pub kind: String,
    /// Received time, milliseconds since the Unix epoch.
    pub received_ms: i64,
}

/// One speed measurement, as sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpeedReading {
    /// Who measured.
    pub sensor_id: String,
    /// In the sensor's own unit.
    pub speed: f64,
    /// Epoch seconds.
    pub ts: f64,
}

/// One speed measurement and where it stands in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedEvent {
    /// Its record.
    pub at: Position,
    /// Received time, milliseconds since the Unix epoch.
    pub received_ms: i64,
    /// What was measured.
    pub reading: SpeedReading,
}

/// One transaction: rows, and the progress they stand for.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// Accepted records.
    pub clean: Vec<CleanEvent>,
    /// Rejected records.
    pub invalid: Vec<InvalidRecord>,
    /// Records seen before.
    pub duplicates: Vec<Duplicate>,
    /// Speed events.
    pub speed: Vec<SpeedEvent>,
    /// Identities that enter the duplicate window.
    pub seen: Vec<RecordKey>,
    /// Topic name and next offset of every source partition that moved.
    pub consumed: Vec<(String, Position)>,
    /// Offset after the newest record produced, per output partition that moved.
    pub produced: Vec<Position>,
}

/// What a commit changed; rows that an earlier commit already held are not counted again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    /// New rows of `telemetry`.
    pub clean: u64,
    /// New rows of `invalid_records`.
    pub invalid: u64,
    /// Newly counted duplicates.
    pub duplicates: u64,
    /// New rows of `speed_readings`.
    pub speed: u64,
}

//! The telemetry store (SQLite): clean events, rejected records, quality counts, speed history.
//!
//! **Owns** one database file and every statement that touches it. **May not know** a door, a
//! pipeline or how a record is judged: it is handed verdicts and keeps them.
//!
//! One [`TelemetryWriter`] (the telemetry pipeline), any number of [`TelemetryReader`]s.
//!
//! # What a commit means
//! Rows, counts, the window of seen records and the consumed offsets that produced them are one
//! transaction. `consumed_offsets` is therefore the authority on restart; a consumer group's
//! committed offset is a mirror of it. The database runs in WAL mode with `synchronous=NORMAL`: a
//! power cut may take back the newest transactions, but rows and offset together, and the log,
//! which is durable, still has the records.
//!
//! # Format, version 1 (`PRAGMA user_version`)
//! A database of a newer version is refused; an older one is migrated step by step on opening.
//!
//! | table | a row is |
//! |---|---|
//! | `consumed_offsets` | one source partition: `source` (a small number that rows refer to), topic id (16 bytes), topic name, partition, next offset |
//! | `produced_offsets` | one output partition (cleaned, DLQ): the offset after the newest record that a committed batch produced |
//! | `telemetry` | one clean event. `id` = `source << 48 \| offset`: the idempotency key of a row costs no index of its own |
//! | `normalized_records` | a view of `telemetry` with readable times and the full source |
//! | `invalid_records` | one rejected record with its original bytes and its errors; unique by (source, offset) |
//! | `topic_aggregates` | counts of one kind since the store was made |
//! | `error_counts` | how often one kind was rejected with one error code |
//! | `speed_readings` | one speed event; `id` as in `telemetry` |
//! | `seen_records` | the identity hashes (16 bytes each, back to back) that one commit added to the duplicate window |
//!
//! Times are milliseconds since the Unix epoch in columns named `*_ms`; `speed_readings.ts` is
//! epoch seconds, as its senders give it.
//!
//! # Why rows are not clustered by device
//! `telemetry` is a rowid table in log order with one index by device and time. A table clustered
//! by (device, time) is half the size and reads one device ten times faster, but takes rows half
//! as fast, and with small commits it rewrites about as many pages. What wears flash here is many
//! small commits, so the pipeline commits by age or size, checkpoints are large, and the
//! duplicate window is appended as blobs instead of being an index of random keys.
//!
//! # Limits
//! [`AGGREGATE_KINDS_MAX`], [`READ_ROWS_MAX`], [`READERS_IDLE_MAX`], [`PAYLOAD_SHOWN_BYTES_MAX`] and those of
//! [`WindowLimits`]. Rows of `telemetry`, `invalid_records` and `speed_readings` are kept for ever:
//! there is no retention of the store, so the file grows with accepted records until the disk
//! is full, which shows as a store error and holds the pipeline back (the log keeps the records).

mod error;
mod reader;
mod rows;
mod schema;
mod window;
mod writer;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use reader::{
    ErrorCount, InvalidPage, InvalidView, PAYLOAD_SHOWN_BYTES_MAX, READ_ROWS_MAX, READERS_IDLE_MAX,
    SourceView, StoredEvent, TelemetryReader, TopicSummary, TopicsSummary,
};
pub use rows::{
    CleanEvent, Commit, Committed, Duplicate, InvalidRecord, Position, RecordError, RecordKey,
    SPEED_KIND, SpeedEvent, SpeedReading, TimestampSource,
};
pub use schema::SCHEMA_VERSION;
pub use window::{SeenRecords, WindowLimits};
pub use writer::{AGGREGATE_KINDS_MAX, OTHER_KINDS, TelemetryWriter};

//! The tables of the telemetry store and the steps from one version to the next.

use std::path::Path;

use rusqlite::Connection;

use super::StoreError;

/// The `user_version` that this code writes.
pub const SCHEMA_VERSION: i64 = 1;

/// Low bits of a row id that hold the offset: 2^48 records of one partition.
pub(super) const OFFSET_BITS: u32 = 48;
/// The largest offset that fits a row id.
pub(super) const OFFSET_MAX: i64 = (1 << OFFSET_BITS) - 1;
/// The largest source number that fits a row id.
pub(super) const SOURCE_MAX: i64 = (1 << (63 - OFFSET_BITS)) - 1;

/// Steps by target version: `STEPS[n]` leads from version n to n + 1.
const STEPS: [&str; 1] = [VERSION_1];

const VERSION_1: &str = "
CREATE TABLE consumed_offsets (
    source      INTEGER PRIMARY KEY,
    topic_id    BLOB    NOT NULL,
    partition   INTEGER NOT NULL,
    topic       TEXT    NOT NULL,
    next_offset INTEGER NOT NULL,
    UNIQUE (topic_id, partition)
) STRICT;

CREATE TABLE produced_offsets (
    topic_id    BLOB    NOT NULL,
    partition   INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (topic_id, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE telemetry (
    id               INTEGER PRIMARY KEY,
    device_id        TEXT    NOT NULL,
    kind             TEXT    NOT NULL,
    event_ms         INTEGER NOT NULL,
    received_ms      INTEGER NOT NULL,
    values_json      TEXT    NOT NULL,
    missing          TEXT,
    timestamp_source TEXT    NOT NULL,
    record_id        TEXT
) STRICT;
CREATE INDEX telemetry_by_device ON telemetry (device_id, event_ms);
CREATE INDEX telemetry_incomplete ON telemetry (received_ms) WHERE missing IS NOT NULL;

CREATE VIEW normalized_records AS
SELECT t.id,
       t.kind                                                          AS topic,
       t.device_id,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.event_ms / 1000.0, 'unixepoch')    AS event_time,
       strftime('%Y-%m-%dT%H:%M:%fZ', t.received_ms / 1000.0, 'unixepoch') AS received_at,
       t.values_json                                                   AS payload,
       t.missing                                                       AS missing_fields,
       t.timestamp_source,
       t.timestamp_source = 'received_at'                              AS fallback_timestamp,
       t.record_id,
       lower(hex(c.topic_id))                                          AS source_topic_id,
       c.topic                                                         AS source_topic,
       c.partition                                                     AS source_partition,
       t.id & 281474976710655                                          AS source_offset
FROM telemetry t JOIN consumed_offsets c ON c.source = t.id >> 48;

CREATE TABLE invalid_records (
    id            INTEGER PRIMARY KEY,
    source        INTEGER NOT NULL,
    source_offset INTEGER NOT NULL,
    kind          TEXT    NOT NULL,
    mqtt_topic    TEXT,
    received_ms   INTEGER NOT NULL,
    errors        TEXT    NOT NULL,
    payload       BLOB    NOT NULL,
    UNIQUE (source, source_offset)
) STRICT;

CREATE TABLE topic_aggregates (
    kind                  TEXT    PRIMARY KEY,
    count                 INTEGER NOT NULL DEFAULT 0,
    accepted              INTEGER NOT NULL DEFAULT 0,
    degraded              INTEGER NOT NULL DEFAULT 0,
    missing_field_records INTEGER NOT NULL DEFAULT 0,
    missing_fields        INTEGER NOT NULL DEFAULT 0,
    fallback_timestamps   INTEGER NOT NULL DEFAULT 0,
    rejected              INTEGER NOT NULL DEFAULT 0,
    duplicates            INTEGER NOT NULL DEFAULT 0,
    last_event_ms         INTEGER,
    last_received_ms      INTEGER,
    latest_id             INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE error_counts (
    kind  TEXT    NOT NULL,
    code  TEXT    NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, code)
) STRICT, WITHOUT ROWID;

CREATE TABLE speed_readings (
    id        INTEGER PRIMARY KEY,
    sensor_id TEXT    NOT NULL,
    speed     NUMERIC NOT NULL,
    ts        NUMERIC NOT NULL
);
CREATE INDEX speed_by_sensor ON speed_readings (sensor_id, ts);

CREATE TABLE seen_records (
    id      INTEGER PRIMARY KEY,
    seen_ms INTEGER NOT NULL,
    keys    BLOB    NOT NULL
) STRICT;
";

/// SQL for the RFC 3339 UTC text of a column of milliseconds.
pub(super) fn utc(column: &str) -> String {
    format!("strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000.0, 'unixepoch')")
}

pub(super) fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// An older program must not write what it does not know.
pub(super) fn refuse_newer(path: &Path, found: i64) -> Result<(), StoreError> {
    if found > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema {
            path: path.to_path_buf(),
            found,
            supported: SCHEMA_VERSION,
        });
    }
    Ok(())
}

/// Brings the database to [`SCHEMA_VERSION`]; each step is one transaction with its version.
pub(super) fn migrate(connection: &mut Connection, found: i64) -> rusqlite::Result<()> {
    let done = usize::try_from(found).unwrap_or(0);
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let tx = connection.transaction()?;
        tx.execute_batch(step)?;
        tx.pragma_update(
            None,
            "user_version",
            i64::try_from(index + 1).unwrap_or(SCHEMA_VERSION),
        )?;
        tx.commit()?;
    }
    Ok(())
}

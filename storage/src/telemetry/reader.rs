//! Reading the telemetry store: what the HTTP door and the live gateway ask.
//!
//! Every call blocks on the disk: from async code use `spawn_blocking`. Each call sees one
//! committed state of the store and never holds the writer back (WAL mode). The result types
//! serialise to the bodies that clients see.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, named_params, params};
use serde::Serialize;
use serde_json::value::RawValue;

use super::rows::{RecordError, SpeedReading};
use super::schema::utc;
use super::{StoreError, schema};
use crate::log::{Offset, TopicId};

/// Most rows that one call returns; a larger limit is lowered to it.
pub const READ_ROWS_MAX: usize = 1_000;
/// Connections kept open between calls; more are opened under load and closed afterwards.
pub const READERS_IDLE_MAX: usize = 4;
/// Bytes of a rejected payload that a page shows; the rest stays in the store and the DLQ.
pub const PAYLOAD_SHOWN_BYTES_MAX: usize = 16 * 1024;
/// Error codes listed by [`TopicsSummary::most_failing`].
const MOST_FAILING_MAX: i64 = 10;
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Read-only handle; clones share its connections.
#[derive(Clone)]
pub struct TelemetryReader {
    pool: Arc<Pool>,
}

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

/// Body of `GET /topics/summary`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicsSummary {
    /// By name.
    pub topics: Vec<TopicSummary>,
    /// Error codes by how often they rejected a record, most first.
    pub most_failing: Vec<ErrorCount>,
    /// The topic with the largest share of degraded records, if any is degraded.
    pub most_degraded: Option<String>,
}

/// Quality of one telemetry topic (a kind) since the store was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TopicSummary {
    /// The kind.
    pub topic: String,
    /// Records seen: accepted, rejected and duplicates.
    pub count: i64,
    /// Stored.
    pub accepted: i64,
    /// Accepted records that lacked at least one expected key.
    pub missing_field_records: i64,
    /// Expected keys that were missing, over all accepted records.
    pub missing_fields: i64,
    /// Accepted records whose time is the received time.
    pub fallback_timestamps: i64,
    /// Dead-lettered.
    pub rejected: i64,
    /// Delivered again, not stored again.
    pub duplicates: i64,
    /// RFC 3339 UTC; of the newest event accepted.
    pub last_event_time: Option<String>,
    /// RFC 3339 UTC; of the newest record seen.
    pub last_received_time: Option<String>,
    /// Rejected or incomplete or untimed records over all that are not duplicates; 0 to 1.
    pub degraded_share: f64,
}

/// How often one error code rejected a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// Stable code.
    pub error: String,
    /// Records rejected with it.
    pub count: i64,
}

/// Body of `GET /invalid/recent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvalidPage {
    /// Newest first.
    pub records: Vec<InvalidView>,
}

/// A rejected record as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InvalidView {
    /// Rises with every rejected record; the cursor of paging.
    pub id: i64,
    /// The kind it claimed.
    pub kind: String,
    /// The MQTT topic it came by.
    pub mqtt_topic: Option<String>,
    /// Text or base64; at most [`PAYLOAD_SHOWN_BYTES_MAX`] bytes of the original.
    pub payload: String,
    /// `utf-8` or `base64`.
    pub payload_encoding: &'static str,
    /// True where the original is longer than what is shown.
    pub payload_truncated: bool,
    /// RFC 3339 UTC.
    pub received_at: String,
    /// Why.
    pub errors: Vec<RecordError>,
    /// Its raw record.
    pub source: SourceView,
}

/// A place in the log as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourceView {
    /// Topic name at the time.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// A clean event as clients see it.
#[derive(Debug, Clone, Serialize)]
pub struct StoredEvent {
    /// The kind.
    pub topic: String,
    /// Empty where unknown.
    pub device_id: String,
    /// RFC 3339 UTC.
    pub event_time: String,
    /// RFC 3339 UTC.
    pub received_at: String,
    /// The normalised payload.
    pub values: Box<RawValue>,
    /// Expected keys that were absent.
    pub missing_fields: Vec<String>,
    /// `record`, `payload` or `received_at`.
    pub timestamp_source: String,
    /// True where the event time is the received time.
    pub fallback_timestamp: bool,
    /// Its raw record.
    pub source: SourceView,
}

impl TelemetryReader {
    /// Opens an existing store for reading.
    pub fn open(path: &Path) -> Result<TelemetryReader, StoreError> {
        let reader = TelemetryReader {
            pool: Arc::new(Pool {
                path: path.to_path_buf(),
                idle: Mutex::new(Vec::new()),
            }),
        };
        reader
            .with("open for reading", schema::version)
            .and_then(|version| {
                schema::refuse_newer(path, version)?;
                Ok(reader)
            })
    }

    /// Counts per topic, what fails most, which topic is most degraded.
    pub fn topics_summary(&self) -> Result<TopicsSummary, StoreError> {
        self.with("summarise the topics", |connection| {
            let tx = connection.unchecked_transaction()?;
            let topics = collect(
                tx.prepare_cached(&format!(
                    "SELECT kind, count, accepted, missing_field_records, missing_fields, fallback_timestamps,
                            rejected, duplicates, degraded, {event_time}, {received_time}
                     FROM topic_aggregates ORDER BY kind",
                    event_time = utc("last_event_ms"),
                    received_time = utc("last_received_ms"),
                ))?
                .query_map([], topic_summary)?,
            )?;
            let most_failing = collect(
                tx.prepare_cached(
                    "SELECT code, sum(count) AS total FROM error_counts GROUP BY code ORDER BY total DESC, code LIMIT ?1",
                )?
                .query_map([MOST_FAILING_MAX], |row| Ok(ErrorCount { error: row.get(0)?, count: row.get(1)? }))?,
            )?;
            let most_degraded = topics
                .iter()
                .filter(|topic: &&TopicSummary| topic.degraded_share > 0.0)
                .max_by(|a, b| a.degraded_share.total_cmp(&b.degraded_share))
                .map(|topic| topic.topic.clone());
            Ok(TopicsSummary { topics, most_failing, most_degraded })
        })
    }

    /// Rejected records, newest first; `before` is the id of the last one already seen.
    pub fn invalid_recent(
        &self,
        limit: usize,
        before: Option<i64>,
    ) -> Result<InvalidPage, StoreError> {
        self.invalid_page(
            "WHERE i.id < :cursor ORDER BY i.id DESC",
            limit,
            before.unwrap_or(i64::MAX),
        )
    }

    /// Rejected records that are newer than `after`, oldest first.
    pub fn invalid_after(&self, after: i64, limit: usize) -> Result<InvalidPage, StoreError> {
        self.invalid_page("WHERE i.id > :cursor ORDER BY i.id", limit, after)
    }

    fn invalid_page(
        &self,
        filter: &'static str,
        limit: usize,
        cursor: i64,
    ) -> Result<InvalidPage, StoreError> {
        self.with("list rejected records", |connection| {
            let sql = format!(
                "SELECT i.id, i.kind, i.mqtt_topic, coalesce(substr(i.payload, 1, :shown), x''), length(i.payload) > :shown,
                        {received_time}, i.errors, c.topic, c.partition, i.source_offset
                 FROM invalid_records i JOIN consumed_offsets c USING (source) {filter} LIMIT :limit",
                received_time = utc("i.received_ms"),
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let shown = i64::try_from(PAYLOAD_SHOWN_BYTES_MAX).unwrap_or(i64::MAX);
            let rows = statement.query_map(
                named_params! { ":cursor": cursor, ":limit": row_limit(limit), ":shown": shown },
                invalid_view,
            )?;
            Ok(InvalidPage { records: collect(rows)? })
        })
    }

    /// The newest accepted record of every topic that has one.
    pub fn latest_valid(&self) -> Result<Vec<StoredEvent>, StoreError> {
        self.events(
            "read the latest records",
            "JOIN topic_aggregates a ON a.latest_id = t.id ORDER BY t.kind LIMIT ?1",
            params![row_limit(READ_ROWS_MAX)],
        )
    }

    /// Accepted records that lacked expected keys, newest received first.
    pub fn incomplete(&self, limit: usize) -> Result<Vec<StoredEvent>, StoreError> {
        self.events(
            "list incomplete records",
            "WHERE t.missing IS NOT NULL ORDER BY t.received_ms DESC, t.id DESC LIMIT ?1",
            params![row_limit(limit)],
        )
    }

    /// Events of one device with `from_ms <= event time < to_ms`, newest first.
    pub fn device_events(
        &self,
        device_id: &str,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.events(
            "read a device's records",
            "WHERE t.device_id = ?2 AND t.event_ms >= ?3 AND t.event_ms < ?4 ORDER BY t.event_ms DESC LIMIT ?1",
            params![row_limit(limit), device_id, from_ms, to_ms],
        )
    }

    fn events(
        &self,
        doing: &'static str,
        rest: &'static str,
        params: &[&dyn rusqlite::ToSql],
    ) -> Result<Vec<StoredEvent>, StoreError> {
        self.with(doing, |connection| {
            let sql = format!(
                "SELECT t.kind, t.device_id, {event_time}, {received_time}, t.values_json, t.missing,
                        t.timestamp_source, c.topic, c.partition, t.id & {mask}
                 FROM telemetry t JOIN consumed_offsets c ON c.source = t.id >> {bits} {rest}",
                event_time = utc("t.event_ms"),
                received_time = utc("t.received_ms"),
                mask = schema::OFFSET_MAX,
                bits = schema::OFFSET_BITS,
            );
            let mut statement = connection.prepare_cached(&sql)?;
            collect(statement.query_map(params, stored_event)?)
        })
    }

    /// Speed events of one sensor, newest first.
    pub fn speed_history(
        &self,
        sensor_id: &str,
        limit: usize,
    ) -> Result<Vec<SpeedReading>, StoreError> {
        self.with("read speed history", |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT sensor_id, speed, ts FROM speed_readings
                 WHERE sensor_id = ?1 ORDER BY ts DESC, id DESC LIMIT ?2",
            )?;
            collect(statement.query_map(params![sensor_id, row_limit(limit)], speed_reading)?)
        })
    }

    /// The newest speed event of every sensor, by sensor; at most [`READ_ROWS_MAX`] sensors.
    pub fn speed_latest(&self) -> Result<Vec<SpeedReading>, StoreError> {
        self.with("read the latest speeds", |connection| {
            // The recursion walks the index from sensor to sensor instead of over every reading.
            let mut statement = connection.prepare_cached(
                "WITH RECURSIVE sensors(sensor_id) AS (
                     SELECT min(sensor_id) FROM speed_readings
                     UNION ALL
                     SELECT (SELECT min(r.sensor_id) FROM speed_readings r WHERE r.sensor_id > sensors.sensor_id)
                     FROM sensors WHERE sensors.sensor_id IS NOT NULL LIMIT ?1)
                 SELECT s.sensor_id, s.speed, s.ts
                 FROM sensors n
                 JOIN speed_readings s ON s.id = (SELECT r.id FROM speed_readings r WHERE r.sensor_id = n.sensor_id
                                                  ORDER BY r.ts DESC, r.id DESC LIMIT 1)
                 ORDER BY s.sensor_id",
            )?;
            collect(statement.query_map([row_limit(READ_ROWS_MAX)], speed_reading)?)
        })
    }

    /// The next offset that the store wants of a source partition; `None` where it has read nothing.
    pub fn consumed_offset(
        &self,
        topic: TopicId,
        partition: i32,
    ) -> Result<Option<Offset>, StoreError> {
        self.with("read a consumed offset", |connection| {
            let next: Option<i64> = connection
                .prepare_cached("SELECT next_offset FROM consumed_offsets WHERE topic_id = ?1 AND partition = ?2")?
                .query_row(params![topic.0.as_bytes(), partition], |row| row.get(0))
                .optional()?;
            Ok(next.and_then(Offset::new))
        })
    }

    fn with<T>(
        &self,
        doing: &'static str,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let pool = &self.pool;
        let failed = |cause| StoreError::Sqlite {
            path: pool.path.clone(),
            doing,
            cause,
        };
        let idle = pool
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&pool.path).map_err(failed)?,
        };
        let answer = ask(&connection).map_err(failed)?;
        let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS_IDLE_MAX {
            idle.push(connection);
        }
        Ok(answer)
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit.min(READ_ROWS_MAX)).unwrap_or(0)
}

fn collect<T>(rows: impl Iterator<Item = rusqlite::Result<T>>) -> rusqlite::Result<Vec<T>> {
    rows.collect()
}

fn topic_summary(row: &Row<'_>) -> rusqlite::Result<TopicSummary> {
    let (count, duplicates, rejected): (i64, i64, i64) = (row.get(1)?, row.get(7)?, row.get(6)?);
    let degraded: i64 = row.get(8)?;
    let judged = count - duplicates;
    // Counts stay far below 2^52, where f64 is exact.
    let degraded_share = if judged > 0 {
        (degraded + rejected) as f64 / judged as f64
    } else {
        0.0
    };
    Ok(TopicSummary {
        topic: row.get(0)?,
        count,
        accepted: row.get(2)?,
        missing_field_records: row.get(3)?,
        missing_fields: row.get(4)?,
        fallback_timestamps: row.get(5)?,
        rejected,
        duplicates,
        last_event_time: row.get(9)?,
        last_received_time: row.get(10)?,
        degraded_share,
    })
}

fn invalid_view(row: &Row<'_>) -> rusqlite::Result<InvalidView> {
    let bytes: Vec<u8> = row.get(3)?;
    let payload_truncated: bool = row.get(4)?;
    let (payload, payload_encoding) = shown(bytes, payload_truncated);
    Ok(InvalidView {
        id: row.get(0)?,
        kind: row.get(1)?,
        mqtt_topic: row.get(2)?,
        payload,
        payload_encoding,
        payload_truncated,
        received_at: row.get(5)?,
        errors: parsed(row, 6)?,
        source: SourceView {
            topic: row.get(7)?,
            partition: row.get(8)?,
            offset: row.get(9)?,
        },
    })
}

/// Text where it is text; a cut in the middle of a character does not make text binary.
fn shown(bytes: Vec<u8>, truncated: bool) -> (String, &'static str) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, "utf-8"),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let bytes = error.into_bytes();
            match bytes.get(..valid).map(str::from_utf8) {
                Some(Ok(text)) if truncated && bytes.len() - valid < 4 => {
                    (text.to_owned(), "utf-8")
                }
                _ => (
                    base64::engine::general_purpose::STANDARD.encode(bytes),
                    "base64",
                ),
            }
        }
    }
}

fn stored_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let timestamp_source: String = row.get(6)?;
    let missing: Option<String> = row.get(5)?;
    Ok(StoredEvent {
        topic: row.get(0)?,
        device_id: row.get(1)?,
        event_time: row.get(2)?,
        received_at: row.get(3)?,
        values: parsed(row, 4)?,
        missing_fields: if missing.is_some() {
            parsed(row, 5)?
        } else {
            Vec::new()
        },
        fallback_timestamp: timestamp_source == "received_at",
        timestamp_source,
        source: SourceView {
            topic: row.get(7)?,
            partition: row.get(8)?,
            offset: row.get(9)?,
        },
    })
}

fn speed_reading(row: &Row<'_>) -> rusqlite::Result<SpeedReading> {
    Ok(SpeedReading {
        sensor_id: row.get(0)?,
        speed: row.get(1)?,
        ts: row.get(2)?,
    })
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    serde_json::from_str(&text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(
            column,
            rusqlite::types::Type::Text,
            Box::new(error),
        )
    })
}

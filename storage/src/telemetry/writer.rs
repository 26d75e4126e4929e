//! Writing the telemetry store: one transaction per batch of verdicts.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::rows::{Commit, Committed, Position, SPEED_KIND};
use super::schema::{OFFSET_BITS, OFFSET_MAX, SOURCE_MAX};
use super::window::{self, SeenRecords, WindowLimits};
use super::{StoreError, TelemetryReader, schema};
use crate::log::{Offset, TopicId};

/// Kinds counted one by one; a stranger who invents more is counted under [`OTHER_KINDS`].
pub const AGGREGATE_KINDS_MAX: usize = 256;
/// Where the kinds beyond [`AGGREGATE_KINDS_MAX`] are counted.
pub const OTHER_KINDS: &str = "(other)";
/// How long a statement waits for a foreign lock before it fails and is tried again by the caller.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);
/// Pages of 4 KiB in the page cache: 16 MiB.
const CACHE_PAGES: i64 = 4096;
/// Pages in the WAL before it is copied back. Larger than SQLite's 1000, because a page that
/// changed in many commits is copied only once.
const CHECKPOINT_PAGES: i64 = 4096;

/// The one writer of the store. Blocks on the disk.
pub struct TelemetryWriter {
    path: PathBuf,
    connection: Connection,
    sources: HashMap<(TopicId, i32), Source>,
    produced: HashMap<(TopicId, i32), Offset>,
    kinds: HashSet<String>,
    seen: SeenRecords,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    number: i64,
    next: i64,
}

/// What one commit adds to one kind.
#[derive(Default)]
struct Delta {
    accepted: i64,
    degraded: i64,
    missing_field_records: i64,
    missing_fields: i64,
    fallback_timestamps: i64,
    rejected: i64,
    duplicates: i64,
    last_received_ms: Option<i64>,
    /// Event time of the newest accepted record and its row in `telemetry`, if it has one there.
    latest: Option<(i64, Option<i64>)>,
}

impl TelemetryWriter {
    /// Opens or creates the store and brings it to the current schema.
    ///
    /// `kinds` are counted from the start, so that a silent topic shows as zero instead of not at all.
    pub fn open<'k>(
        path: &Path,
        limits: WindowLimits,
        kinds: impl IntoIterator<Item = &'k str>,
    ) -> Result<TelemetryWriter, StoreError> {
        let failed = |doing| {
            move |cause| StoreError::Sqlite {
                path: path.to_path_buf(),
                doing,
                cause,
            }
        };
        let mut connection = Connection::open(path).map_err(failed("open"))?;
        let found = configure(&connection).map_err(failed("open"))?;
        schema::refuse_newer(path, found)?;
        schema::migrate(&mut connection, found).map_err(failed("migrate"))?;
        declare(&mut connection, kinds).map_err(failed("declare the topics"))?;
        let loaded = Loaded::read(&connection, limits).map_err(failed("read the progress"))?;
        Ok(TelemetryWriter {
            path: path.to_path_buf(),
            connection,
            sources: loaded.sources,
            produced: loaded.produced,
            kinds: loaded.kinds,
            seen: loaded.seen,
        })
    }

    /// A reader on the same file.
    pub fn reader(&self) -> Result<TelemetryReader, StoreError> {
        TelemetryReader::open(&self.path)
    }

    /// The duplicate window as committed.
    pub fn seen(&self) -> SeenRecords {
        self.seen.clone()
    }

    /// The next offset wanted of a source partition; `None` before its first commit.
    pub fn consumed(&self, topic: TopicId, partition: i32) -> Option<Offset> {
        self.sources
            .get(&(topic, partition))
            .and_then(|source| Offset::new(source.next))
    }

    /// The offset after the newest record that a committed batch produced to an output partition.
    pub fn produced(&self, topic: TopicId, partition: i32) -> Option<Offset> {
        self.produced.get(&(topic, partition)).copied()
    }

    /// Stores everything or nothing. Rows below the consumed offset were stored before and are skipped.
    pub fn commit(&mut self, commit: &Commit, now_ms: i64) -> Result<Committed, StoreError> {
        let path = self.path.clone();
        let failed = |doing| move |cause| StoreError::Sqlite { path, doing, cause };
        let mut sources = self.sources.clone();
        let tx = match self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
        {
            Ok(tx) => tx,
            Err(cause) => return Err(failed("begin a commit")(cause)),
        };
        let mut rows = Rows {
            tx: &tx,
            sources: &mut sources,
            deltas: HashMap::new(),
            kinds: &self.kinds,
            done: Committed::default(),
        };
        let change = match rows
            .write(commit)
            .and_then(|()| Ok(window::store(&tx, &self.seen, &commit.seen, now_ms)?))
        {
            Ok(change) => change,
            Err(RowError::OutOfRange { what, value, max }) => {
                return Err(StoreError::OutOfRange { what, value, max });
            }
            Err(RowError::Sqlite(cause)) => return Err(failed("write a commit")(cause)),
        };
        let done = rows.done;
        let new_kinds: Vec<String> = rows
            .deltas
            .keys()
            .filter(|kind| !self.kinds.contains(**kind))
            .map(|kind| (*kind).to_owned())
            .collect();
        if let Err(cause) = tx.commit() {
            return Err(failed("commit")(cause));
        }
        self.kinds.extend(new_kinds);
        self.sources = sources;
        for at in &commit.produced {
            self.produced.insert((at.topic_id, at.partition), at.offset);
        }
        window::apply(&self.seen, change);
        Ok(done)
    }

    /// Copies the WAL back and closes the file.
    pub fn close(self) -> Result<(), StoreError> {
        let TelemetryWriter {
            path, connection, ..
        } = self;
        let failed = |cause| StoreError::Sqlite {
            path: path.clone(),
            doing: "close",
            cause,
        };
        connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .map_err(failed)?;
        connection.close().map_err(|(_, cause)| failed(cause))
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<i64> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let version = schema::version(connection)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", CACHE_PAGES)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
    Ok(version)
}

fn declare<'k>(
    connection: &mut Connection,
    kinds: impl IntoIterator<Item = &'k str>,
) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    for kind in kinds {
        tx.execute(
            "INSERT INTO topic_aggregates (kind) VALUES (?1) ON CONFLICT DO NOTHING",
            [kind],
        )?;
    }
    tx.commit()
}

struct Loaded {
    sources: HashMap<(TopicId, i32), Source>,
    produced: HashMap<(TopicId, i32), Offset>,
    kinds: HashSet<String>,
    seen: SeenRecords,
}

impl Loaded {
    fn read(connection: &Connection, limits: WindowLimits) -> rusqlite::Result<Loaded> {
        let sources = connection
            .prepare("SELECT topic_id, partition, source, next_offset FROM consumed_offsets")?
            .query_map([], |row| {
                Ok((
                    (topic_id(row.get(0)?), row.get(1)?),
                    Source {
                        number: row.get(2)?,
                        next: row.get(3)?,
                    },
                ))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let produced = connection
            .prepare("SELECT topic_id, partition, next_offset FROM produced_offsets")?
            .query_map([], |row| {
                Ok((
                    (topic_id(row.get(0)?), row.get(1)?),
                    Offset::new(row.get(2)?).unwrap_or_default(),
                ))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let kinds = connection
            .prepare("SELECT kind FROM topic_aggregates")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Loaded {
            sources,
            produced,
            kinds,
            seen: window::load(connection, limits)?,
        })
    }
}

fn topic_id(bytes: [u8; 16]) -> TopicId {
    TopicId(uuid::Uuid::from_bytes(bytes))
}

enum RowError {
    Sqlite(rusqlite::Error),
    OutOfRange {
        what: &'static str,
        value: i64,
        max: i64,
    },
}

impl From<rusqlite::Error> for RowError {
    fn from(cause: rusqlite::Error) -> RowError {
        RowError::Sqlite(cause)
    }
}

/// The rows of one commit on their way into one transaction.
struct Rows<'t, 'c> {
    tx: &'t Transaction<'t>,
    /// As they will be once the transaction is committed.
    sources: &'t mut HashMap<(TopicId, i32), Source>,
    kinds: &'t HashSet<String>,
    deltas: HashMap<&'c str, Delta>,
    done: Committed,
}

impl<'c> Rows<'_, 'c> {
    fn write(&mut self, commit: &'c Commit) -> Result<(), RowError> {
        self.admit_sources(commit)?;
        self.clean(commit)?;
        self.invalid(commit)?;
        self.duplicates(commit);
        self.speed(commit)?;
        self.aggregates()?;
        self.progress(commit)
    }

    /// Gives every new source partition its number before a row refers to it.
    fn admit_sources(&mut self, commit: &Commit) -> Result<(), RowError> {
        for (topic, at) in &commit.consumed {
            let key = (at.topic_id, at.partition);
            if self.sources.contains_key(&key) {
                continue;
            }
            let number: i64 = self
                .tx
                .prepare_cached(
                    "INSERT INTO consumed_offsets (topic_id, partition, topic, next_offset) VALUES (?1, ?2, ?3, 0)
                     RETURNING source",
                )?
                .query_row(params![at.topic_id.0.as_bytes(), at.partition, topic], |row| row.get(0))?;
            if number > SOURCE_MAX {
                return Err(RowError::OutOfRange {
                    what: "source partitions",
                    value: number,
                    max: SOURCE_MAX,
                });
            }
            self.sources.insert(key, Source { number, next: 0 });
        }
        Ok(())
    }

    /// The source's number if the record is new to the store.
    fn source_of(&self, at: &Position) -> Option<i64> {
        let source = self.sources.get(&(at.topic_id, at.partition))?;
        (at.offset.value() >= source.next).then_some(source.number)
    }

    /// The row id of a record that is new to the store.
    fn row_id(&self, at: &Position) -> Result<Option<i64>, RowError> {
        let offset = at.offset.value();
        if offset > OFFSET_MAX {
            return Err(RowError::OutOfRange {
                what: "offset",
                value: offset,
                max: OFFSET_MAX,
            });
        }
        Ok(self
            .source_of(at)
            .map(|number| (number << OFFSET_BITS) | offset))
    }

    fn clean(&mut self, commit: &'c Commit) -> Result<(), RowError> {
        let mut insert = self.tx.prepare_cached(
            "INSERT INTO telemetry (id, device_id, kind, event_ms, received_ms, values_json, missing, timestamp_source,
                                    record_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?;
        for event in &commit.clean {
            let Some(id) = self.row_id(&event.at)? else {
                continue;
            };
            let missing = (!event.missing.is_empty()).then(|| json(&event.missing));
            let inserted = insert.execute(params![
                id,
                event.device_id,
                event.kind,
                event.event_ms,
                event.received_ms,
                event.values_json,
                missing,
                event.timestamp_source.as_str(),
                event.record_id,
            ])?;
            if inserted == 0 {
                continue;
            }
            self.done.clean += 1;
            let delta = self.delta(&event.kind, event.received_ms);
            let fallback = event.timestamp_source.is_fallback();
            delta.accepted += 1;
            delta.fallback_timestamps += i64::from(fallback);
            delta.missing_field_records += i64::from(missing.is_some());
            delta.missing_fields += i64::try_from(event.missing.len()).unwrap_or(i64::MAX);
            delta.degraded += i64::from(fallback || missing.is_some());
            delta.latest = delta.latest.max(Some((event.event_ms, Some(id))));
        }
        Ok(())
    }

    fn invalid(&mut self, commit: &'c Commit) -> Result<(), RowError> {
        let mut insert = self.tx.prepare_cached(
            "INSERT INTO invalid_records (source, source_offset, kind, mqtt_topic, received_ms, errors, payload)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
        )?;
        for record in &commit.invalid {
            let Some(source) = self.source_of(&record.at) else {
                continue;
            };
            let inserted = insert.execute(params![
                source,
                record.at.offset.value(),
                record.kind,
                record.mqtt_topic,
                record.received_ms,
                json(&record.errors),
                record.payload.as_ref(),
            ])?;
            if inserted == 0 {
                continue;
            }
            self.done.invalid += 1;
            self.delta(&record.kind, record.received_ms).rejected += 1;
            let kind = self.counted_as(&record.kind);
            for error in &record.errors {
                self.tx
                    .prepare_cached(
                        "INSERT INTO error_counts (kind, code, count) VALUES (?1, ?2, 1)
                         ON CONFLICT DO UPDATE SET count = count + 1",
                    )?
                    .execute(params![kind, error.code])?;
            }
        }
        Ok(())
    }

    fn duplicates(&mut self, commit: &'c Commit) {
        for duplicate in &commit.duplicates {
            if self.source_of(&duplicate.at).is_some() {
                self.done.duplicates += 1;
                self.delta(&duplicate.kind, duplicate.received_ms)
                    .duplicates += 1;
            }
        }
    }

    fn speed(&mut self, commit: &'c Commit) -> Result<(), RowError> {
        let mut insert = self.tx.prepare_cached(
            "INSERT INTO speed_readings (id, sensor_id, speed, ts) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?;
        for event in &commit.speed {
            let Some(id) = self.row_id(&event.at)? else {
                continue;
            };
            let reading = &event.reading;
            if insert.execute(params![id, reading.sensor_id, reading.speed, reading.ts])? == 0 {
                continue;
            }
            self.done.speed += 1;
            let delta = self.delta(SPEED_KIND, event.received_ms);
            delta.accepted += 1;
            delta.latest = delta.latest.max(Some(((reading.ts * 1000.0) as i64, None)));
        }
        Ok(())
    }

    fn aggregates(&mut self) -> Result<(), RowError> {
        let mut upsert = self.tx.prepare_cached(
            "INSERT INTO topic_aggregates (kind, count, accepted, degraded, missing_field_records, missing_fields,
                 fallback_timestamps, rejected, duplicates, last_event_ms, last_received_ms, latest_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
             ON CONFLICT (kind) DO UPDATE SET
                 count = count + excluded.count,
                 accepted = accepted + excluded.accepted,
                 degraded = degraded + excluded.degraded,
                 missing_field_records = missing_field_records + excluded.missing_field_records,
                 missing_fields = missing_fields + excluded.missing_fields,
                 fallback_timestamps = fallback_timestamps + excluded.fallback_timestamps,
                 rejected = rejected + excluded.rejected,
                 duplicates = duplicates + excluded.duplicates,
                 latest_id = CASE WHEN excluded.last_event_ms >= coalesce(last_event_ms, excluded.last_event_ms)
                                  THEN excluded.latest_id ELSE latest_id END,
                 last_event_ms = max(coalesce(last_event_ms, excluded.last_event_ms),
                                     coalesce(excluded.last_event_ms, last_event_ms)),
                 last_received_ms = max(coalesce(last_received_ms, excluded.last_received_ms),
                                        excluded.last_received_ms)",
        )?;
        for (kind, delta) in &self.deltas {
            upsert.execute(params![
                kind,
                delta.accepted + delta.rejected + delta.duplicates,
                delta.accepted,
                delta.degraded,
                delta.missing_field_records,
                delta.missing_fields,
                delta.fallback_timestamps,
                delta.rejected,
                delta.duplicates,
                delta.latest.map(|(event_ms, _)| event_ms),
                delta.last_received_ms,
                delta.latest.and_then(|(_, id)| id),
            ])?;
        }
        Ok(())
    }

    fn progress(&mut self, commit: &Commit) -> Result<(), RowError> {
        let mut consumed = self
            .tx
            .prepare_cached("UPDATE consumed_offsets SET next_offset = ?2 WHERE source = ?1")?;
        for (_, at) in &commit.consumed {
            if let Some(source) = self.sources.get_mut(&(at.topic_id, at.partition))
                && at.offset.value() > source.next
            {
                source.next = at.offset.value();
                consumed.execute(params![source.number, source.next])?;
            }
        }
        let mut produced = self.tx.prepare_cached(
            "INSERT INTO produced_offsets (topic_id, partition, next_offset) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset",
        )?;
        for at in &commit.produced {
            produced.execute(params![
                at.topic_id.0.as_bytes(),
                at.partition,
                at.offset.value()
            ])?;
        }
        Ok(())
    }

    fn delta(&mut self, kind: &'c str, received_ms: i64) -> &mut Delta {
        let kind = self.counted_as(kind);
        let delta = self.deltas.entry(kind).or_default();
        delta.last_received_ms = delta.last_received_ms.max(Some(received_ms));
        delta
    }

    /// Keeps the number of counted kinds bounded: kinds come from strangers.
    fn counted_as(&self, kind: &'c str) -> &'c str {
        let known = self.kinds.contains(kind) || self.deltas.contains_key(kind);
        let full = self.kinds.len() + self.deltas.len() >= AGGREGATE_KINDS_MAX;
        if known || !full { kind } else { OTHER_KINDS }
    }
}

fn json<T: serde::Serialize>(value: &T) -> Cow<'static, str> {
    // Lists of strings and of plain structs always serialise; an empty list is the honest fallback.
    serde_json::to_string(value).map_or(Cow::Borrowed("[]"), Cow::Owned)
}

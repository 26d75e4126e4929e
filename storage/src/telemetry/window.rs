//! The duplicate window: which records were accepted lately, by the hash of their identity.
//!
//! Kept in memory for lookups and on disk as one blob per commit, appended at one end and deleted
//! at the other: an index of random keys would rewrite a page for every record.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use rusqlite::{Connection, params};

use super::rows::RecordKey;

const KEY_BYTES: usize = size_of::<RecordKey>();

/// How far back a redelivered record is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimits {
    /// Identities kept; the oldest commits go first. About 50 bytes of memory each.
    pub records_max: usize,
    /// Age in milliseconds after which an identity is forgotten.
    pub age_ms_max: i64,
}

/// Read-only view on the window for whoever must answer before the pipeline has committed; clones
/// share it.
#[derive(Debug, Clone)]
pub struct SeenRecords {
    inner: Arc<RwLock<Window>>,
}

impl SeenRecords {
    /// True where a committed record within the window has this identity.
    pub fn contains(&self, key: RecordKey) -> bool {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys
            .contains(&key)
    }

    /// Those of `keys` that are in the window, under one lock.
    pub fn contained(&self, keys: &[RecordKey]) -> Vec<bool> {
        let window = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| window.keys.contains(key)).collect()
    }

    /// Identities held now.
    pub fn len(&self) -> usize {
        self.inner
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys
            .len()
    }

    /// True where nothing was accepted within the window.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Debug)]
struct Window {
    limits: WindowLimits,
    /// Oldest first, as the rows on disk.
    chunks: VecDeque<Chunk>,
    keys: HashSet<RecordKey>,
}

#[derive(Debug)]
struct Chunk {
    id: i64,
    seen_ms: i64,
    keys: Vec<RecordKey>,
}

/// A change that is on its way to disk; [`apply`] repeats it in memory once it is committed.
pub(super) struct Change {
    added: Option<Chunk>,
    evicted: usize,
}

/// Reads the window back; what is too old or too much is dropped at the next commit.
pub(super) fn load(connection: &Connection, limits: WindowLimits) -> rusqlite::Result<SeenRecords> {
    let mut window = Window {
        limits,
        chunks: VecDeque::new(),
        keys: HashSet::new(),
    };
    let mut statement =
        connection.prepare("SELECT id, seen_ms, keys FROM seen_records ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let bytes: Vec<u8> = row.get(2)?;
        let (keys, _) = bytes.as_chunks::<KEY_BYTES>();
        let keys: Vec<RecordKey> = keys
            .iter()
            .map(|key| RecordKey::from_be_bytes(*key))
            .collect();
        window.keys.extend(&keys);
        window.chunks.push_back(Chunk {
            id: row.get(0)?,
            seen_ms: row.get(1)?,
            keys,
        });
    }
    Ok(SeenRecords {
        inner: Arc::new(RwLock::new(window)),
    })
}

/// Writes the change inside the caller's transaction.
pub(super) fn store(
    connection: &Connection,
    seen: &SeenRecords,
    keys: &[RecordKey],
    now_ms: i64,
) -> rusqlite::Result<Change> {
    let window = seen.inner.read().unwrap_or_else(PoisonError::into_inner);
    let (evicted, newest_evicted) = window.evictable(keys.len(), now_ms);
    if let Some(id) = newest_evicted {
        connection
            .prepare_cached("DELETE FROM seen_records WHERE id <= ?1")?
            .execute([id])?;
    }
    let mut added = None;
    if !keys.is_empty() {
        let id = window
            .chunks
            .back()
            .map_or(1, |chunk| chunk.id.saturating_add(1));
        let bytes: Vec<u8> = keys.iter().flat_map(|key| key.to_be_bytes()).collect();
        connection
            .prepare_cached("INSERT INTO seen_records (id, seen_ms, keys) VALUES (?1, ?2, ?3)")?
            .execute(params![id, now_ms, bytes])?;
        added = Some(Chunk {
            id,
            seen_ms: now_ms,
            keys: keys.to_vec(),
        });
    }
    Ok(Change { added, evicted })
}

/// Makes a committed change visible.
pub(super) fn apply(seen: &SeenRecords, change: Change) {
    let mut window = seen.inner.write().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..change.evicted {
        if let Some(chunk) = window.chunks.pop_front() {
            for key in &chunk.keys {
                window.keys.remove(key);
            }
        }
    }
    if let Some(chunk) = change.added {
        window.keys.extend(&chunk.keys);
        window.chunks.push_back(chunk);
    }
}

impl Window {
    /// How many of the oldest chunks must go to admit `adding` keys now, and the id of the newest of them.
    fn evictable(&self, adding: usize, now_ms: i64) -> (usize, Option<i64>) {
        let mut held = self.keys.len() + adding;
        let (mut count, mut newest) = (0, None);
        for chunk in &self.chunks {
            let old = now_ms.saturating_sub(chunk.seen_ms) > self.limits.age_ms_max;
            if !old && held <= self.limits.records_max {
                break;
            }
            held = held.saturating_sub(chunk.keys.len());
            count += 1;
            newest = Some(chunk.id);
        }
        (count, newest)
    }
}

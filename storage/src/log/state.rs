//! What the internal partitions say, in memory: topics, settings, group offsets. Every change comes
//! from a record that is already durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::partition::Partition;
use super::topic::{Settings, Topic};
use super::types::{CommittedOffset, PartitionId, TopicId};
use super::values::{self, Key, NodeValue, TopicValue};

/// Topics, settings and counters.
pub const METADATA: PartitionId = PartitionId(1);
/// Group offsets.
pub const OFFSETS: PartitionId = PartitionId(2);
/// Partitions of topics are numbered from here.
pub const FIRST_PARTITION: u64 = 16;

/// The internal partitions themselves.
#[derive(Debug)]
pub struct Internal {
    pub metadata: Arc<Partition>,
    pub offsets: Arc<Partition>,
}

impl Internal {
    pub fn new() -> Internal {
        let nowhere = TopicId(uuid::Uuid::nil());
        let partition = |id, name: &str| {
            let settings = Settings::of(&[]);
            Arc::new(Partition::new(id, nowhere, name.to_owned(), 0, settings))
        };
        Internal {
            metadata: partition(METADATA, "__metadata"),
            offsets: partition(OFFSETS, "__offsets"),
        }
    }

    pub fn get(&self, id: PartitionId) -> Option<&Arc<Partition>> {
        [&self.metadata, &self.offsets]
            .into_iter()
            .find(|partition| partition.id() == id)
    }
}

/// The state; one writer (the wal's writer thread), many readers.
#[derive(Debug, Default)]
pub struct State {
    tables: RwLock<Tables>,
    /// Set once, when the log fails for good.
    failure: OnceLock<String>,
    closing: AtomicBool,
    /// Partitions of deleted topics, for the cleaner.
    deleted: Mutex<Vec<PartitionId>>,
    /// Full segments that wait for the sealer or are with it.
    pub unsealed: AtomicUsize,
}

/// The tables behind the lock.
#[derive(Debug, Default)]
pub struct Tables {
    pub topics: BTreeMap<String, Arc<Topic>>,
    pub by_id: HashMap<TopicId, Arc<Topic>>,
    /// Of every topic, and the internal ones.
    pub partitions: HashMap<PartitionId, Arc<Partition>>,
    pub settings: BTreeMap<(String, String), Bytes>,
    pub offsets: BTreeMap<String, BTreeMap<(TopicId, i32), CommittedOffset>>,
    pub node: Option<NodeValue>,
}

impl State {
    pub fn new(internal: &Internal) -> State {
        let state = State::default();
        let mut tables = state.tables.write().unwrap_or_else(PoisonError::into_inner);
        for partition in [&internal.metadata, &internal.offsets] {
            tables.partitions.insert(partition.id(), partition.clone());
        }
        drop(tables);
        state
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Nobody waits any longer for what can be made up for at the next start.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Partitions deleted since this was last asked.
    pub fn take_deleted(&self) -> Vec<PartitionId> {
        std::mem::take(&mut self.deleted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn fail(&self, reason: String) {
        let _ = self.failure.set(reason);
    }

    pub fn failure(&self) -> Option<&String> {
        self.failure.get()
    }

    pub fn committed_offset(
        &self,
        group: &str,
        topic: TopicId,
        partition: i32,
    ) -> Option<CommittedOffset> {
        let tables = self.read();
        tables.offsets.get(group)?.get(&(topic, partition)).cloned()
    }

    /// Keys of every offset that a group committed in a topic.
    pub fn group_offsets_of(&self, topic: TopicId) -> Vec<Key> {
        let tables = self.read();
        let mut keys = Vec::new();
        for (group, offsets) in &tables.offsets {
            for &(_, partition) in offsets.keys().filter(|(id, _)| *id == topic) {
                keys.push(Key::GroupOffset {
                    group: group.clone(),
                    topic,
                    partition,
                });
            }
        }
        keys
    }

    /// The value that a key has now, as it would be written again; `None`: it has none.
    pub fn value_of(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let tables = self.read();
        let value = match Key::decode(key) {
            Some(Key::Topic(id)) => {
                let topic = tables.by_id.get(&id);
                topic.map(|topic| values::encode(&topic.value()))
            }
            Some(Key::Setting { kind, key }) => tables
                .settings
                .get(&(kind, key))
                .map(|value| Ok(value.to_vec())),
            Some(Key::Node) => tables.node.as_ref().map(values::encode),
            Some(Key::GroupOffset {
                group,
                topic,
                partition,
            }) => tables
                .offsets
                .get(&group)
                .and_then(|offsets| offsets.get(&(topic, partition)))
                .map(values::encode),
            Some(Key::LogStart(id)) => tables
                .partitions
                .get(&id)
                .map(|partition| values::encode(&partition.log_start_offset())),
            Some(Key::Producer {
                partition,
                producer_id,
            }) => tables.partitions.get(&partition).and_then(|partition| {
                let writer = partition.writer();
                writer.producers.get(producer_id).map(values::encode)
            }),
            None => return Err("a key of a later version".into()),
        };
        value.transpose()
    }

    /// Takes a durable record of an internal partition over.
    pub fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        // A key of a later version is kept in the log and left alone here.
        let Some(key) = Key::decode(key) else {
            return Ok(());
        };
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        match (key, value) {
            (Key::Topic(id), Some(value)) => {
                let value: TopicValue = values::decode(value)?;
                if value.partitions.is_empty() {
                    return Err(format!("topic {} has no partitions", value.name));
                }
                let topic = match tables.by_id.get(&id) {
                    // Written again by the cleaner: callers hold on to it.
                    Some(topic) if topic.value() == value => return Ok(()),
                    Some(topic) => topic.changed(value),
                    None => {
                        let ids = value.partitions.iter().copied().map(PartitionId);
                        let ids: Vec<PartitionId> = ids.collect();
                        Topic::new(id, &value.name, &ids, value.configs)
                    }
                };
                let topic = Arc::new(topic);
                for partition in topic.partitions() {
                    tables.partitions.insert(partition.id(), partition.clone());
                }
                let name = topic.name().to_owned();
                tables.topics.insert(name, topic.clone());
                tables.by_id.insert(id, topic);
            }
            (Key::Topic(id), None) => {
                if let Some(topic) = tables.by_id.remove(&id) {
                    tables.topics.remove(topic.name());
                    let mut deleted = self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
                    for partition in topic.partitions() {
                        tables.partitions.remove(&partition.id());
                        partition.delete();
                        deleted.push(partition.id());
                    }
                }
            }
            (Key::LogStart(partition), Some(value)) => {
                if let Some(partition) = tables.partitions.get(&partition) {
                    partition.raise_log_start(values::decode(value)?);
                }
            }
            // Only looked at when the index is made anew.
            (Key::LogStart(_), None) | (Key::Producer { .. }, _) => {}
            (Key::Setting { kind, key }, Some(value)) => {
                tables
                    .settings
                    .insert((kind, key), Bytes::copy_from_slice(value));
            }
            (Key::Setting { kind, key }, None) => {
                tables.settings.remove(&(kind, key));
            }
            (Key::Node, Some(value)) => tables.node = Some(values::decode(value)?),
            (Key::Node, None) => {}
            (
                Key::GroupOffset {
                    group,
                    topic,
                    partition,
                },
                Some(value),
            ) => {
                let committed = values::decode(value)?;
                tables
                    .offsets
                    .entry(group)
                    .or_default()
                    .insert((topic, partition), committed);
            }
            (
                Key::GroupOffset {
                    group,
                    topic,
                    partition,
                },
                None,
            ) => {
                if let Some(offsets) = tables.offsets.get_mut(&group) {
                    offsets.remove(&(topic, partition));
                    if offsets.is_empty() {
                        tables.offsets.remove(&group);
                    }
                }
            }
        }
        Ok(())
    }
}

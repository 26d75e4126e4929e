//! What the internal partitions say, in memory: topics, settings, group offsets. Every change comes
//! from a record that is already durable.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use bytes::Bytes;

use super::partition::Partition;
use super::stable::{Aborted, Event};
use super::topic::{Settings, Topic};
use super::transactions::{Transaction, TransactionState, Transactions};
use super::types::{CommittedOffset, Offset, PartitionId, TopicId};
use super::values::{self, AbortedValue, Key, NodeValue, TopicValue, TransactionValue};

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
    pub transactions: BTreeMap<String, TransactionValue>,
    /// Partitions in ongoing transactions, by producer, and the first offset there.
    pub in_transactions: BTreeMap<(i64, PartitionId), Option<Offset>>,
    /// Offsets to be committed with a transaction, by group, topic, partition and producer.
    pub transaction_offsets: BTreeMap<(String, TopicId, i32, i64), CommittedOffset>,
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
            Some(Key::Transaction(id)) => tables.transactions.get(&id).map(values::encode),
            Some(Key::InTransaction {
                producer_id,
                partition,
            }) => (tables.in_transactions.get(&(producer_id, partition))).map(values::encode),
            Some(Key::Aborted { partition, last }) => {
                tables.partitions.get(&partition).and_then(|partition| {
                    let known = partition.transactions();
                    known.aborted_at(last).map(|aborted| {
                        values::encode(&AbortedValue {
                            producer_id: aborted.producer_id,
                            first: aborted.first,
                        })
                    })
                })
            }
            Some(Key::TransactionOffset {
                producer_id,
                group,
                topic,
                partition,
            }) => {
                let place = (group, topic, partition, producer_id);
                tables.transaction_offsets.get(&place).map(values::encode)
            }
            None => return Err("a key of a later version".into()),
        };
        value.transpose()
    }

    /// Whether a transaction that is not over is to commit an offset of a group.
    pub fn is_offset_pending(&self, group: &str, topic: TopicId, partition: i32) -> bool {
        let from = (group.to_owned(), topic, partition, i64::MIN);
        let to = (group.to_owned(), topic, partition, i64::MAX);
        let tables = self.read();
        tables.transaction_offsets.range(from..=to).next().is_some()
    }

    /// Every transactional id with its ongoing transaction, when the log is opened.
    pub fn transactions(&self) -> Transactions {
        let tables = self.read();
        let mut all = Transactions::default();
        for (id, value) in &tables.transactions {
            let mut transaction = Transaction {
                value: value.clone(),
                partitions: BTreeMap::new(),
                offsets: BTreeMap::new(),
            };
            let producer_id = value.producer_id;
            if transaction.is_ongoing() {
                let range = (producer_id, PartitionId(0))..=(producer_id, PartitionId(u64::MAX));
                let within = tables.in_transactions.range(range);
                transaction.partitions = within.map(|((_, id), first)| (*id, *first)).collect();
            }
            all.put(id, Some(Arc::new(transaction)));
        }
        for ((group, topic, partition, producer_id), committed) in &tables.transaction_offsets {
            let Some((id, known)) = all.of_producer(*producer_id) else {
                continue;
            };
            if known.is_ongoing() {
                let (id, mut known) = (id.to_owned(), known.clone());
                all.put(&id, None);
                let place = (group.clone(), *topic, *partition);
                Arc::make_mut(&mut known)
                    .offsets
                    .insert(place, committed.clone());
                all.put(&id, Some(known));
            }
        }
        all
    }

    /// Tells partitions which transactions are not over, when the log is opened. What belongs to none, because the
    /// record of its end was damaged, is forgotten: it would hold readers up for ever.
    pub fn restore_transactions(&self) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let tables = &mut *tables;
        let is_ongoing = |value: &&TransactionValue| value.state == TransactionState::Ongoing;
        let ongoing: HashSet<i64> = (tables.transactions.values())
            .filter(is_ongoing)
            .map(|value| value.producer_id)
            .collect();
        tables
            .in_transactions
            .retain(|(producer_id, _), _| ongoing.contains(producer_id));
        tables
            .transaction_offsets
            .retain(|(.., producer_id), _| ongoing.contains(producer_id));
        for (&(producer_id, id), first) in &tables.in_transactions {
            if let (Some(partition), Some(first)) = (tables.partitions.get(&id), *first) {
                let began = Event::Began { producer_id, first };
                partition.change_transactions(|known| known.apply(&[began]));
            }
        }
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
            (Key::Transaction(id), Some(value)) => {
                tables.transactions.insert(id, values::decode(value)?);
            }
            (Key::Transaction(id), None) => drop(tables.transactions.remove(&id)),
            (
                Key::InTransaction {
                    producer_id,
                    partition,
                },
                value,
            ) => {
                let place = (producer_id, partition);
                match value {
                    Some(value) => tables.in_transactions.insert(place, values::decode(value)?),
                    None => tables.in_transactions.remove(&place),
                };
            }
            (Key::Aborted { partition, last }, value) => {
                if let Some(partition) = tables.partitions.get(&partition) {
                    match value {
                        Some(value) => {
                            let AbortedValue { producer_id, first } = values::decode(value)?;
                            let aborted = Aborted {
                                producer_id,
                                first,
                                last,
                            };
                            partition.change_transactions(|known| known.add_aborted(aborted));
                        }
                        None => {
                            partition.change_transactions(|known| known.forget_aborted(last));
                        }
                    }
                }
            }
            (
                Key::TransactionOffset {
                    producer_id,
                    group,
                    topic,
                    partition,
                },
                value,
            ) => {
                let place = (group, topic, partition, producer_id);
                match value {
                    Some(value) => {
                        let committed = values::decode(value)?;
                        tables.transaction_offsets.insert(place, committed);
                    }
                    None => drop(tables.transaction_offsets.remove(&place)),
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

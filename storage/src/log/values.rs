//! Values of the internal partitions: bincode behind a version byte, in this one place, pinned by
//! golden bytes. Keys are written by hand: a kind byte, then fixed-width big-endian fields.

use bincode::config::standard;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::transactions::TransactionState;
use super::types::{CommittedOffset, Offset, PartitionId, TopicId};

const VERSION: u8 = 1;

const TOPIC: u8 = b't';
const SETTING: u8 = b's';
const NODE: u8 = b'n';
const GROUP_OFFSET: u8 = b'g';
const PRODUCER: u8 = b'p';
/// Sorts behind [`TOPIC`]: when the index is read in order, the partition is known by then.
const LOG_START: u8 = b'u';
const TRANSACTION: u8 = b'w';
const IN_TRANSACTION: u8 = b'x';
const ABORTED: u8 = b'y';
const TRANSACTION_OFFSET: u8 = b'z';

/// A topic, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicValue {
    pub name: String,
    /// Numbers of its partitions, in order.
    pub partitions: Vec<u64>,
    pub configs: Vec<(String, String)>,
}

/// Counters of the node that must never go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeValue {
    pub cluster_id: Uuid,
    pub next_partition: u64,
    pub next_producer: i64,
}

/// A transactional id, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransactionValue {
    pub producer_id: i64,
    pub epoch: i16,
    /// Producer id and epoch before they were raised last, to know a request that is sent again; epoch
    /// -1 for none.
    pub previous: (i64, i16),
    pub timeout_ms: u32,
    pub state: TransactionState,
    /// When the ongoing, or the last, transaction began; 0 if there was none.
    pub started_ms: u64,
    pub changed_ms: u64,
}

/// An aborted transaction's part of a partition; its last offset, the marker's, is in the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbortedValue {
    pub producer_id: i64,
    pub first: Offset,
}

/// What a record of an internal partition is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    Topic(TopicId),
    Setting {
        kind: String,
        key: String,
    },
    Node,
    GroupOffset {
        group: String,
        topic: TopicId,
        partition: i32,
    },
    /// First offset of a partition that is still kept.
    LogStart(PartitionId),
    /// An idempotent producer, written here when the segment goes whose footer named it last.
    Producer {
        partition: PartitionId,
        producer_id: i64,
    },
    /// A transactional id.
    Transaction(String),
    /// A partition is in a producer's ongoing transaction; the value is its first offset there.
    InTransaction {
        producer_id: i64,
        partition: PartitionId,
    },
    /// An aborted transaction ends here.
    Aborted {
        partition: PartitionId,
        last: Offset,
    },
    /// An offset that a group commits when the producer's transaction is committed.
    TransactionOffset {
        producer_id: i64,
        group: String,
        topic: TopicId,
        partition: i32,
    },
}

impl Key {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Key::Topic(id) => {
                out.push(TOPIC);
                out.extend_from_slice(id.0.as_bytes());
            }
            Key::Setting { kind, key } => {
                out.push(SETTING);
                put_text(&mut out, kind);
                out.extend_from_slice(key.as_bytes());
            }
            Key::Node => out.push(NODE),
            Key::GroupOffset {
                group,
                topic,
                partition,
            } => {
                out.push(GROUP_OFFSET);
                put_text(&mut out, group);
                out.extend_from_slice(topic.0.as_bytes());
                out.extend_from_slice(&partition.to_be_bytes());
            }
            Key::LogStart(partition) => {
                out.push(LOG_START);
                out.extend_from_slice(&partition.0.to_be_bytes());
            }
            Key::Producer {
                partition,
                producer_id,
            } => {
                out = Key::producers_of(*partition);
                out.extend_from_slice(&producer_id.to_be_bytes());
            }
            Key::Transaction(id) => {
                out.push(TRANSACTION);
                out.extend_from_slice(id.as_bytes());
            }
            Key::InTransaction {
                producer_id,
                partition,
            } => {
                out.push(IN_TRANSACTION);
                out.extend_from_slice(&producer_id.to_be_bytes());
                out.extend_from_slice(&partition.0.to_be_bytes());
            }
            Key::Aborted { partition, last } => {
                out.push(ABORTED);
                out.extend_from_slice(&partition.0.to_be_bytes());
                out.extend_from_slice(&last.value().to_be_bytes());
            }
            Key::TransactionOffset {
                producer_id,
                group,
                topic,
                partition,
            } => {
                out.push(TRANSACTION_OFFSET);
                out.extend_from_slice(&producer_id.to_be_bytes());
                put_text(&mut out, group);
                out.extend_from_slice(topic.0.as_bytes());
                out.extend_from_slice(&partition.to_be_bytes());
            }
        }
        out
    }

    /// What the keys of all producers of a partition begin with.
    pub fn producers_of(partition: PartitionId) -> Vec<u8> {
        let mut out = vec![PRODUCER];
        out.extend_from_slice(&partition.0.to_be_bytes());
        out
    }

    /// `None` for a key that this version does not know.
    pub fn decode(bytes: &[u8]) -> Option<Key> {
        let (&kind, rest) = bytes.split_first()?;
        match kind {
            TOPIC => Some(Key::Topic(TopicId(Uuid::from_slice(rest).ok()?))),
            SETTING => {
                let (kind, key) = take_text(rest)?;
                Some(Key::Setting {
                    kind,
                    key: String::from_utf8(key.to_vec()).ok()?,
                })
            }
            NODE => rest.is_empty().then_some(Key::Node),
            GROUP_OFFSET => {
                let (group, rest) = take_text(rest)?;
                let (topic, partition) = rest.split_first_chunk::<16>()?;
                let partition = i32::from_be_bytes(partition.try_into().ok()?);
                Some(Key::GroupOffset {
                    group,
                    topic: TopicId(Uuid::from_bytes(*topic)),
                    partition,
                })
            }
            LOG_START => {
                let id = u64::from_be_bytes(rest.try_into().ok()?);
                Some(Key::LogStart(PartitionId(id)))
            }
            PRODUCER => {
                let (partition, producer_id) = rest.split_first_chunk::<8>()?;
                Some(Key::Producer {
                    partition: PartitionId(u64::from_be_bytes(*partition)),
                    producer_id: i64::from_be_bytes(producer_id.try_into().ok()?),
                })
            }
            TRANSACTION => Some(Key::Transaction(String::from_utf8(rest.to_vec()).ok()?)),
            IN_TRANSACTION => {
                let (producer_id, partition) = rest.split_first_chunk::<8>()?;
                Some(Key::InTransaction {
                    producer_id: i64::from_be_bytes(*producer_id),
                    partition: PartitionId(u64::from_be_bytes(partition.try_into().ok()?)),
                })
            }
            ABORTED => {
                let (partition, last) = rest.split_first_chunk::<8>()?;
                Some(Key::Aborted {
                    partition: PartitionId(u64::from_be_bytes(*partition)),
                    last: Offset::new(i64::from_be_bytes(last.try_into().ok()?))?,
                })
            }
            TRANSACTION_OFFSET => {
                let (producer_id, rest) = rest.split_first_chunk::<8>()?;
                let (group, rest) = take_text(rest)?;
                let (topic, partition) = rest.split_first_chunk::<16>()?;
                Some(Key::TransactionOffset {
                    producer_id: i64::from_be_bytes(*producer_id),
                    group,
                    topic: TopicId(Uuid::from_bytes(*topic)),
                    partition: i32::from_be_bytes(partition.try_into().ok()?),
                })
            }
            _ => None,
        }
    }
}

/// Longest name of a group or kind; [`put_text`] counts it in two bytes.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((String::from_utf8(text.to_vec()).ok()?, rest))
}

pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, standard())
        .map_err(|e| e.to_string())?;
    Ok(out)
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, body)) => {
            let (value, _) =
                bincode::serde::decode_from_slice(body, standard()).map_err(|e| e.to_string())?;
            Ok(value)
        }
        Some((&version, _)) => Err(format!(
            "value has version {version}; this program reads up to {VERSION}"
        )),
        None => Err("empty value".into()),
    }
}

/// The pair that keeps a group's offset.
pub fn group_offset(
    group: &str,
    topic: TopicId,
    partition: i32,
    committed: &CommittedOffset,
) -> Result<(Vec<u8>, Vec<u8>), String> {
    let key = Key::GroupOffset {
        group: group.to_owned(),
        topic,
        partition,
    };
    Ok((key.encode(), encode(committed)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::producers::{Producer, SequencedBatch};
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn value_bytes_are_a_promise() {
        let topic = TopicValue {
            name: "a".into(),
            partitions: vec![16, 300],
            configs: vec![("k".into(), "v".into())],
        };
        let bytes = encode(&topic).unwrap();
        assert_eq!(hex(&bytes), "0101610210fb2c0101016b0176");
        assert_eq!(decode::<TopicValue>(&bytes).unwrap(), topic);
        let node = NodeValue {
            cluster_id: Uuid::from_u128(1),
            next_partition: 17,
            next_producer: 1000,
        };
        let bytes = encode(&node).unwrap();
        assert_eq!(hex(&bytes), "01100000000000000000000000000000000111fbd007");
        assert_eq!(decode::<NodeValue>(&bytes).unwrap(), node);
        let committed = CommittedOffset {
            offset: 5,
            leader_epoch: -1,
            metadata: "m".into(),
            commit_timestamp_ms: 2,
        };
        let bytes = encode(&committed).unwrap();
        assert_eq!(hex(&bytes), "010a01016d04");
        assert_eq!(decode::<CommittedOffset>(&bytes).unwrap(), committed);
        let producer = Producer {
            epoch: 1,
            last_append_ms: 2,
            batches: vec![SequencedBatch {
                first_sequence: 0,
                last_sequence: 4,
                base: Offset::new(300).unwrap(),
            }],
        };
        let bytes = encode(&producer).unwrap();
        assert_eq!(hex(&bytes), "0102020100 08fb5802".replace(' ', ""));
        assert_eq!(decode::<Producer>(&bytes).unwrap(), producer);
        let transaction = TransactionValue {
            producer_id: 1000,
            epoch: 3,
            previous: (-1, -1),
            timeout_ms: 60_000,
            state: TransactionState::Ongoing,
            started_ms: 5,
            changed_ms: 6,
        };
        let bytes = encode(&transaction).unwrap();
        assert_eq!(hex(&bytes), "01fbd007060101fb60ea010506");
        assert_eq!(decode::<TransactionValue>(&bytes).unwrap(), transaction);
        let aborted = AbortedValue {
            producer_id: 1000,
            first: Offset::new(300).unwrap(),
        };
        let bytes = encode(&aborted).unwrap();
        assert_eq!(hex(&bytes), "01fbd007fb5802");
        assert_eq!(decode::<AbortedValue>(&bytes).unwrap(), aborted);
        assert!(
            decode::<NodeValue>(&[2, 0])
                .unwrap_err()
                .contains("version 2")
        );
    }

    #[test]
    fn keys_come_back() {
        let topic = TopicId(Uuid::from_u128(7));
        for key in [
            Key::Topic(topic),
            Key::Node,
            Key::Setting {
                kind: "auth.client".into(),
                key: "demo".into(),
            },
            Key::GroupOffset {
                group: "g".into(),
                topic,
                partition: 3,
            },
            Key::LogStart(PartitionId(300)),
            Key::Producer {
                partition: PartitionId(300),
                producer_id: 7,
            },
            Key::Transaction("orders".into()),
            Key::InTransaction {
                producer_id: 7,
                partition: PartitionId(300),
            },
            Key::Aborted {
                partition: PartitionId(300),
                last: Offset::new(9).unwrap(),
            },
            Key::TransactionOffset {
                producer_id: 7,
                group: "g".into(),
                topic,
                partition: 3,
            },
        ] {
            let bytes = key.encode();
            assert_eq!(Key::decode(&bytes), Some(key));
            for cut in 0..bytes.len() {
                let _ = Key::decode(bytes.get(..cut).unwrap());
            }
        }
    }
}

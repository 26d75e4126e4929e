//! Idempotent producers (KIP-98): for each producer id the last five batches, so that a batch that
//! is sent again gets its original offset, and one that skips a sequence number is refused.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::batch::BatchHeader;
use super::error::AppendError;
use super::types::{CLOCK_SET_MS, Offset};

/// Kafka lets a producer have five batches in flight.
const BATCHES_KEPT: usize = 5;

/// Every producer of one partition.
#[derive(Debug, Default, Clone)]
pub struct Producers {
    by_id: HashMap<i64, Producer>,
}

/// What is remembered of one producer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    pub epoch: i16,
    /// On the node's clock.
    pub last_append_ms: u64,
    /// Oldest first.
    pub batches: Vec<SequencedBatch>,
}

impl Producer {
    /// Offset of its last batch: a later state of the same producer has a larger one.
    pub fn last_base(&self) -> Option<Offset> {
        self.batches.last().map(|batch| batch.base)
    }
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequencedBatch {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base: Offset,
}

/// What a batch of an idempotent producer is.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next in order: append it.
    Next,
    /// Sent again: this was its offset.
    Duplicate(Offset),
}

impl Producers {
    pub fn judge(&self, header: &BatchHeader) -> Result<Verdict, AppendError> {
        let Some(producer) = self.by_id.get(&header.producer_id) else {
            return Ok(Verdict::Next);
        };
        let (producer_id, got) = (header.producer_id, header.base_sequence);
        if header.producer_epoch < producer.epoch {
            return Err(AppendError::ProducerFenced {
                producer_id,
                got: header.producer_epoch,
                current: producer.epoch,
            });
        }
        if header.producer_epoch > producer.epoch {
            let fresh = got == 0 || producer.batches.is_empty();
            return if fresh {
                Ok(Verdict::Next)
            } else {
                Err(AppendError::OutOfOrderSequence {
                    producer_id,
                    got,
                    expected: 0,
                })
            };
        }
        let last = last_sequence(header);
        if let Some(same) = producer
            .batches
            .iter()
            .find(|b| b.first_sequence == got && b.last_sequence == last)
        {
            return Ok(Verdict::Duplicate(same.base));
        }
        match producer
            .batches
            .last()
            .map(|b| next_sequence(b.last_sequence))
        {
            Some(expected) if expected != got => Err(AppendError::OutOfOrderSequence {
                producer_id,
                got,
                expected,
            }),
            _ => Ok(Verdict::Next),
        }
    }

    /// Remembers a batch; returns what was known before, to take it back.
    pub fn append(&mut self, header: &BatchHeader, base: Offset, now_ms: u64) -> Option<Producer> {
        let before = self.by_id.get(&header.producer_id).cloned();
        let producer = self.by_id.entry(header.producer_id).or_default();
        producer.last_append_ms = now_ms;
        if producer.epoch != header.producer_epoch {
            producer.batches.clear();
            producer.epoch = header.producer_epoch;
        }
        if producer.batches.len() == BATCHES_KEPT {
            producer.batches.remove(0);
        }
        let (first_sequence, last_sequence) = (header.base_sequence, last_sequence(header));
        producer.batches.push(SequencedBatch {
            first_sequence,
            last_sequence,
            base,
        });
        before
    }

    /// A transaction of the producer, if it is known, ended with a marker of this epoch. One that is higher than the
    /// producer's own fences it, and its sequence numbers begin again (KIP-890).
    pub fn mark(&mut self, header: &BatchHeader, now_ms: u64) -> Option<Producer> {
        let producer = self.by_id.get_mut(&header.producer_id)?;
        let before = producer.clone();
        producer.last_append_ms = now_ms;
        if producer.epoch < header.producer_epoch {
            producer.batches.clear();
            producer.epoch = header.producer_epoch;
        }
        Some(before)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.by_id.iter().map(|(&id, producer)| (id, producer))
    }

    /// Takes an append back.
    pub fn restore(&mut self, producer_id: i64, before: Option<Producer>) {
        match before {
            Some(producer) => self.by_id.insert(producer_id, producer),
            None => self.by_id.remove(&producer_id),
        };
    }

    /// When each of them appended last, and who it is. Who appended before the machine knew the time
    /// counts as now.
    pub fn last_appends(&mut self, now_ms: u64) -> impl Iterator<Item = (u64, i64)> {
        self.by_id.iter_mut().map(move |(&id, producer)| {
            if producer.last_append_ms < CLOCK_SET_MS {
                producer.last_append_ms = now_ms;
            }
            (producer.last_append_ms, id)
        })
    }

    /// Forgets who is older than that append of that producer. A producer that comes back is taken as it
    /// is (KIP-360): only a batch that it sends a second time after so long a while would not be noticed.
    pub fn expire(&mut self, before: (u64, i64)) -> Vec<i64> {
        let mut expired = Vec::new();
        self.by_id.retain(|&id, producer| {
            let keep = (producer.last_append_ms, id) >= before;
            if !keep {
                expired.push(id);
            }
            keep
        });
        expired
    }

    /// Forgets everybody, and says whom.
    pub fn forget_all(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.by_id).into_keys().collect()
    }

    pub fn get(&self, producer_id: i64) -> Option<&Producer> {
        self.by_id.get(&producer_id)
    }
}

fn last_sequence(header: &BatchHeader) -> i32 {
    wrapping_sequence(i64::from(header.base_sequence) + i64::from(header.last_offset_delta))
}

fn next_sequence(last: i32) -> i32 {
    wrapping_sequence(i64::from(last) + 1)
}

/// Sequence numbers begin again at 0 behind `i32::MAX`.
fn wrapping_sequence(sequence: i64) -> i32 {
    i32::try_from(sequence & i64::from(i32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn batch(epoch: i16, first: i32, records: u32) -> BatchHeader {
        BatchHeader {
            base_offset: 0,
            bytes: 100,
            crc: 0,
            attributes: 0,
            last_offset_delta: records - 1,
            base_timestamp_ms: 0,
            max_timestamp_ms: 0,
            producer_id: 9,
            producer_epoch: epoch,
            base_sequence: first,
            records,
        }
    }

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    #[test]
    fn a_resent_batch_gets_its_original_offset_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        for i in 0..7 {
            assert_eq!(producers.judge(&batch(0, i * 10, 10)), Ok(Verdict::Next));
            producers.append(&batch(0, i * 10, 10), offset(i64::from(i) * 10), 0);
        }
        assert_eq!(
            producers.judge(&batch(0, 20, 10)),
            Ok(Verdict::Duplicate(offset(20)))
        );
        assert_eq!(
            producers.judge(&batch(0, 60, 10)),
            Ok(Verdict::Duplicate(offset(60)))
        );
        let old = AppendError::OutOfOrderSequence {
            producer_id: 9,
            got: 10,
            expected: 70,
        };
        assert_eq!(producers.judge(&batch(0, 10, 10)), Err(old));
        assert!(producers.judge(&batch(0, 80, 1)).is_err());
        assert_eq!(producers.judge(&batch(1, 0, 1)), Ok(Verdict::Next));
        assert!(producers.judge(&batch(1, 5, 1)).is_err());
        producers.append(&batch(1, 0, 1), offset(70), 0);
        let fenced = AppendError::ProducerFenced {
            producer_id: 9,
            got: 0,
            current: 1,
        };
        assert_eq!(producers.judge(&batch(0, 70, 1)), Err(fenced));
    }

    #[test]
    fn sequence_numbers_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.append(&batch(0, i32::MAX - 1, 2), offset(0), 0);
        assert_eq!(producers.judge(&batch(0, 0, 1)), Ok(Verdict::Next));
        producers.append(&batch(0, i32::MAX, 1), offset(2), 0);
        assert_eq!(producers.judge(&batch(0, 0, 1)), Ok(Verdict::Next));
    }

    #[test]
    fn an_append_can_be_taken_back() {
        let mut producers = Producers::default();
        let before = producers.append(&batch(0, 0, 1), offset(0), 0);
        producers.restore(9, before);
        assert_eq!(producers.judge(&batch(0, 5, 1)), Ok(Verdict::Next));
    }

    #[test]
    fn a_producer_that_expired_goes_on_where_it_was() {
        let mut producers = Producers::default();
        let now = CLOCK_SET_MS + 1000;
        producers.append(&batch(0, 0, 10), offset(0), now);
        assert!(producers.expire((now, 9)).is_empty());
        assert_eq!(producers.expire((now, 10)), [9]);
        // A clock that was not set when it appended says nothing.
        producers.append(&batch(0, 0, 10), offset(0), 5);
        assert_eq!(producers.last_appends(now).collect::<Vec<_>>(), [(now, 9)]);
        assert!(producers.expire((now, i64::MIN)).is_empty());
        assert_eq!(producers.expire((now + 1, i64::MIN)), [9]);
        assert_eq!(producers.judge(&batch(0, 10, 1)), Ok(Verdict::Next));
    }
}

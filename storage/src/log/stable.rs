//! What readers of committed records need of one partition: up to where every transaction has ended, and
//! which of them were aborted (Kafka: last stable offset, transaction index).

use std::collections::{BTreeMap, HashSet};

use super::batch::BatchHeader;
use super::types::Offset;

/// Which records a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All durable ones (Kafka: `read_uncommitted`).
    Uncommitted,
    /// Those up to the first transaction that is not over, without aborted ones (`read_committed`).
    Committed,
}

/// A producer's aborted transaction in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    /// Its first record.
    pub first: Offset,
    /// Its marker.
    pub last: Offset,
}

/// What a group says about a partition's transactions, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Began {
        producer_id: i64,
        first: Offset,
    },
    Ended {
        first: Offset,
        /// Set if it was aborted.
        aborted: Option<Aborted>,
    },
}

/// Transactions of a partition, as far as they are readable.
#[derive(Debug, Default)]
pub struct Stability {
    /// Those that are not over: first offset and producer id.
    open: BTreeMap<Offset, i64>,
    /// By their last offsets.
    aborted: Vec<Aborted>,
    /// Rises whenever an aborted one is forgotten.
    forgotten: u64,
}

impl Stability {
    pub fn apply(&mut self, events: &[Event]) {
        for event in events {
            match *event {
                Event::Began { producer_id, first } => drop(self.open.insert(first, producer_id)),
                Event::Ended { first, aborted } => {
                    self.open.remove(&first);
                    if let Some(aborted) = aborted {
                        self.add_aborted(aborted);
                    }
                }
            }
        }
    }

    /// Once each, however often it is told.
    pub fn add_aborted(&mut self, aborted: Aborted) {
        let at = self.aborted.partition_point(|a| a.last < aborted.last);
        if self.aborted.get(at) != Some(&aborted) {
            self.aborted.insert(at, aborted);
        }
    }

    pub fn forget_aborted(&mut self, last: Offset) {
        let at = self.aborted.partition_point(|a| a.last < last);
        if self.aborted.get(at).is_some_and(|a| a.last == last) {
            self.aborted.remove(at);
            self.forgotten += 1;
        }
    }

    /// The first offset of the first transaction that is not over.
    pub fn first_open(&self) -> Option<Offset> {
        self.open.first_key_value().map(|(first, _)| *first)
    }

    /// Where the ongoing transaction of a producer began.
    pub fn open_since(&self, producer_id: i64) -> Option<Offset> {
        let open = self.open.iter().find(|(_, id)| **id == producer_id);
        open.map(|(first, _)| *first)
    }

    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Those with records in a range of offsets.
    pub fn aborted_in(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        let at = self.aborted.partition_point(|a| a.last < from);
        let behind = self.aborted.get(at..).unwrap_or_default();
        behind.iter().filter(|a| a.first < to).copied().collect()
    }

    /// Those that ended below an offset.
    pub fn aborted_below(&self, end: Offset) -> &[Aborted] {
        let at = self.aborted.partition_point(|a| a.last < end);
        self.aborted.get(..at).unwrap_or_default()
    }

    pub fn aborted_at(&self, last: Offset) -> Option<&Aborted> {
        let at = self.aborted.partition_point(|a| a.last < last);
        self.aborted.get(at).filter(|a| a.last == last)
    }
}

/// Whether a batch is one of the records that were aborted.
pub fn is_aborted(header: &BatchHeader, aborted: &[Aborted]) -> bool {
    let base = Offset::new(header.base_offset).unwrap_or_default();
    let of = |a: &Aborted| a.producer_id == header.producer_id && a.first <= base && base < a.last;
    header.is_transactional() && !header.is_control() && aborted.iter().any(of)
}

/// Tells what to skip from a list of aborted transactions as a Fetch response has it: without their ends,
/// which the markers among the batches say.
#[derive(Debug, Default)]
pub struct AbortedFilter {
    /// Producer id and first offset, the last ones first.
    waiting: Vec<(i64, i64)>,
    aborting: HashSet<i64>,
}

impl AbortedFilter {
    /// `aborted`: producer ids and first offsets.
    pub fn new(mut aborted: Vec<(i64, i64)>) -> AbortedFilter {
        aborted.sort_unstable_by_key(|(_, first)| std::cmp::Reverse(*first));
        AbortedFilter {
            waiting: aborted,
            aborting: HashSet::new(),
        }
    }

    /// Whether the records of the next batch are for readers. `commits`: for a marker, whether it does.
    pub fn keeps(&mut self, header: &BatchHeader, commits: Option<bool>) -> bool {
        let end = header.base_offset + i64::from(header.last_offset_delta);
        while let Some((producer_id, _)) = self.waiting.pop_if(|(_, first)| *first <= end) {
            self.aborting.insert(producer_id);
        }
        if header.is_control() {
            if commits == Some(false) {
                self.aborting.remove(&header.producer_id);
            }
            return false;
        }
        !(header.is_transactional() && self.aborting.contains(&header.producer_id))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::batch::{BatchBuilder, marker};
    use super::*;

    fn offset(value: i64) -> Offset {
        Offset::new(value).unwrap()
    }

    fn aborted(producer_id: i64, first: i64, last: i64) -> Aborted {
        Aborted {
            producer_id,
            first: offset(first),
            last: offset(last),
        }
    }

    #[test]
    fn the_first_open_transaction_and_the_aborted_ones_are_known() {
        let mut known = Stability::default();
        let began = |producer_id, first| Event::Began {
            producer_id,
            first: offset(first),
        };
        known.apply(&[began(1, 5), began(2, 7)]);
        assert_eq!(known.first_open(), Some(offset(5)));
        assert_eq!(known.open_since(2), Some(offset(7)));
        let ended = |first, aborted| Event::Ended {
            first: offset(first),
            aborted,
        };
        known.apply(&[ended(5, Some(aborted(1, 5, 9))), ended(7, None)]);
        assert_eq!(known.first_open(), None);
        known.add_aborted(aborted(1, 5, 9));
        known.add_aborted(aborted(3, 2, 4));
        assert_eq!(known.aborted_in(offset(0), offset(5)), [aborted(3, 2, 4)]);
        assert_eq!(known.aborted_in(offset(5), offset(6)), [aborted(1, 5, 9)]);
        assert_eq!(known.aborted_in(offset(9), offset(99)), [aborted(1, 5, 9)]);
        assert_eq!(known.aborted_in(offset(10), offset(99)), []);
        assert_eq!(known.aborted_below(offset(9)), [aborted(3, 2, 4)]);
        known.forget_aborted(offset(4));
        known.forget_aborted(offset(4));
        assert_eq!(known.forgotten(), 1);
        assert_eq!(known.aborted_at(offset(9)), Some(&aborted(1, 5, 9)));
    }

    #[test]
    fn a_filter_skips_from_the_first_aborted_record_to_the_marker() {
        let data = |base: i64, producer_id: i64, transactional: bool| {
            let mut builder = BatchBuilder::new(0, 10);
            builder.push_record(&Default::default());
            let (bytes, ..) = builder.finish(offset(base), 0);
            let mut header = BatchHeader::parse(&bytes).unwrap();
            header.producer_id = producer_id;
            header.attributes |= if transactional { 0x10 } else { 0 };
            header
        };
        let end = |base: i64, producer_id: i64, commits| {
            let (mut header, _) = marker(producer_id, 0, commits, 0);
            header.base_offset = base;
            header
        };
        let mut filter = AbortedFilter::new(vec![(1, 2), (1, 8)]);
        let mut kept = Vec::new();
        for (header, commits) in [
            (data(0, 1, true), None),
            (end(1, 1, true), Some(true)),
            (data(2, 1, true), None),
            (data(3, 2, true), None),
            (data(4, 1, false), None),
            (end(5, 1, false), Some(false)),
            (data(6, 1, true), None),
            (end(7, 1, true), Some(true)),
            (data(8, 1, true), None),
        ] {
            if filter.keeps(&header, commits) {
                kept.push(header.base_offset);
            }
        }
        assert_eq!(kept, [0, 3, 4, 6]);
        assert!(is_aborted(&data(3, 1, true), &[aborted(1, 2, 5)]));
        assert!(!is_aborted(&data(3, 1, false), &[aborted(1, 2, 5)]));
        assert!(!is_aborted(&data(6, 1, true), &[aborted(1, 2, 5)]));
    }
}

//! What the tests of the log share.
#![allow(clippy::unwrap_used, clippy::expect_used, dead_code)]

use bytes::Bytes;
use holdfast_storage::log::{Log, Offset, Partition};

pub fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

/// Offset and value of every record that can be read.
pub fn read_all(log: &Log, partition: &Partition) -> Vec<(i64, Bytes)> {
    let mut out = Vec::new();
    let mut next = partition.log_start_offset();
    while next < partition.high_watermark() {
        let records = log.read(partition, next, 64 << 10).unwrap();
        next = records
            .last()
            .expect("records below the high watermark")
            .offset
            .plus(1);
        let pairs = records.into_iter();
        out.extend(pairs.map(|r| (r.offset.value(), r.record.value.unwrap())));
    }
    out
}

//! What the tests of the log share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    dead_code
)]

use bytes::Bytes;
use holdfast_storage::log::{Log, NewTopic, Offset, Partition, ProducerIdentity, Record, batch};

pub fn offset(value: i64) -> Offset {
    Offset::new(value).unwrap()
}

/// A topic with settings of its own.
pub fn topic(name: &str, partitions: u32, configs: &[(&str, &str)]) -> NewTopic {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    NewTopic {
        name: name.into(),
        partitions,
        configs: configs.iter().map(own).collect(),
    }
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

/// A batch as an idempotent producer would send it.
pub fn producer_batch(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let pairs: Vec<(&str, &str)> = values.iter().map(|value| ("k", *value)).collect();
    batch_of(producer, epoch, sequence, 0, &pairs)
}

/// The same within a transaction, with keys.
pub fn transactional_batch(
    producer: ProducerIdentity,
    sequence: i32,
    pairs: &[(&str, &str)],
) -> Bytes {
    batch_of(producer.id.0, producer.epoch, sequence, 0x10, pairs)
}

fn batch_of(
    producer: i64,
    epoch: i16,
    sequence: i32,
    attributes: i16,
    pairs: &[(&str, &str)],
) -> Bytes {
    let record = |(key, value): &(&str, &str)| Record {
        timestamp_ms: 1_700_000_000_000,
        key: Some(Bytes::copy_from_slice(key.as_bytes())),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
        headers: Vec::new(),
    };
    let mut encoded = batch::EncodedRecords::default();
    pairs.iter().for_each(|pair| encoded.push(&record(pair)));
    let mut builder = batch::BatchBuilder::new(1_700_000_000_000, encoded.bytes());
    encoded
        .iter()
        .for_each(|(timestamp, body)| builder.push(timestamp, body));
    let mut bytes = builder.finish(offset(0), -1).0.to_vec();
    bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
    bytes[43..51].copy_from_slice(&producer.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

//! Records to batches and back, by the log's own hand.

use bytes::Bytes;
use holdfast_storage::log::batch::{self, BatchBuilder, EncodedRecords};
use holdfast_storage::log::{Offset, Record, StoredRecord};

use super::ClientError;

/// One uncompressed batch.
pub(in super::super) fn encode(records: &[Record]) -> Bytes {
    let bytes = records.iter().map(batch::encoded_bytes_bound).sum();
    let mut encoded = EncodedRecords::with_capacity(records.len(), bytes);
    records.iter().for_each(|record| encoded.push(record));
    let first = records.first().map_or(0, |record| record.timestamp_ms);
    let mut builder = BatchBuilder::new(first, bytes);
    encoded
        .iter()
        .for_each(|(timestamp, body)| builder.push(timestamp, body));
    let (batch, _, _) = builder.finish(Offset::ZERO, -1);
    batch
}

/// Every record from `from` on; a batch at the end that the broker has cut is left for next time.
pub(in super::super) fn decode(
    batches: &Bytes,
    from: i64,
) -> Result<Vec<StoredRecord>, ClientError> {
    let mut records = Vec::new();
    for batch in batch::split(batches) {
        let Ok((header, bytes)) = batch else { break };
        if header.attributes & CONTROL_BIT != 0 {
            continue;
        }
        let read = batch::records(&header, &bytes);
        match read {
            Ok(read) => records.extend(read.into_iter().filter(|r| r.offset.value() >= from)),
            // What came before it is worth having; the next call meets it first.
            Err(_) if !records.is_empty() => break,
            Err(reason) => {
                let offset = header.base_offset;
                let next = offset.saturating_add(i64::from(header.last_offset_delta) + 1);
                return Err(ClientError::Records {
                    offset,
                    next,
                    reason,
                });
            }
        }
    }
    Ok(records)
}

/// Batches that brokers write to end transactions; no records of anybody.
const CONTROL_BIT: i16 = 0x20;

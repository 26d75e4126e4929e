//! Records to batches and back, by the log's own hand.

use bytes::Bytes;
use holdfast_storage::log::batch::{self, BatchBuilder, EncodedRecords};
use holdfast_storage::log::{AbortedFilter, Offset, Record, StoredRecord};

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

/// Every committed record from `from` on, and where to go on; a batch at the end that the broker has cut
/// is left for next time. `aborted`: producer ids and first offsets, as the broker gave them.
pub(in super::super) fn decode(
    batches: &Bytes,
    from: i64,
    aborted: Vec<(i64, i64)>,
) -> Result<(Vec<StoredRecord>, i64), ClientError> {
    let mut filter = AbortedFilter::new(aborted);
    let (mut records, mut behind) = (Vec::new(), from);
    for batch in batch::split(batches) {
        let Ok((header, bytes)) = batch else { break };
        let end = header.base_offset + i64::from(header.last_offset_delta) + 1;
        let is_marker = header.is_control();
        let commits = is_marker.then(|| batch::marker_commits(&header, &bytes));
        if !filter.keeps(&header, commits.flatten()) {
            behind = behind.max(end);
            continue;
        }
        let read = batch::records(&header, &bytes);
        match read {
            Ok(read) => {
                records.extend(read.into_iter().filter(|r| r.offset.value() >= from));
                behind = behind.max(end);
            }
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
    Ok((records, behind))
}

//! A record batch without some of its records, as compaction leaves it: base offset, last offset,
//! producer and sequence as they were, the others' offsets and timestamps unchanged.

use bytes::{BufMut, Bytes};

use super::batch::{
    BatchHeader, DELETE_HORIZON, HEADER_BYTES, PREFIX_BYTES, put_varint, varint, varint_bytes,
};
use super::compression::{compress, decompress};
use super::types::Offset;

/// What compaction looks at in a record.
#[derive(Debug, Clone, Copy)]
pub struct Glance<'a> {
    pub offset: Offset,
    pub key: Option<&'a [u8]>,
    /// It has no value: a tombstone.
    pub deletes: bool,
}

/// A record in its encoded form.
struct Raw<'a> {
    glance: Glance<'a>,
    timestamp_delta: i64,
    offset_delta: u32,
    attributes: u8,
    /// Key, value and headers.
    body: &'a [u8],
}

/// The records of a batch, unpacked.
pub struct Unpacked {
    header: BatchHeader,
    leader_epoch: i32,
    packed: Bytes,
    body: Bytes,
}

impl Unpacked {
    /// Verifies the checksum and unpacks.
    pub fn new(header: &BatchHeader, batch: &Bytes) -> Result<Unpacked, String> {
        if !header.signs(batch) {
            return Err("CRC-32C does not fit".into());
        }
        let epoch = batch.get(12..).and_then(|rest| rest.first_chunk());
        let packed = batch.slice(HEADER_BYTES.min(batch.len())..);
        Ok(Unpacked {
            header: *header,
            leader_epoch: epoch.map_or(-1, |bytes| i32::from_be_bytes(*bytes)),
            body: decompress(header.codec()?, packed.clone())?,
            packed,
        })
    }

    /// Shows every record.
    pub fn each(&self, mut look: impl FnMut(Glance<'_>)) -> Result<(), String> {
        self.raw(|raw| look(raw.glance))
    }

    fn raw<'a>(&'a self, mut look: impl FnMut(Raw<'a>)) -> Result<(), String> {
        let base = Offset::new(self.header.base_offset).ok_or("negative base offset")?;
        let mut rest: &[u8] = &self.body;
        let mut next_delta = 0;
        for index in 0..self.header.records {
            let raw = take_raw(&mut rest, base);
            let fits = |raw: &Raw<'_>| {
                (next_delta..=self.header.last_offset_delta).contains(&raw.offset_delta)
            };
            let raw = raw.filter(fits);
            let raw = raw.ok_or_else(|| format!("record {index} does not fit"))?;
            next_delta = raw.offset_delta + 1;
            look(raw);
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(format!("{} bytes behind the last record", rest.len()))
        }
    }

    /// The batch with only the records that are wanted, and a time until which its tombstones are
    /// kept. `None` if nothing is left.
    pub fn retain(
        &self,
        mut wanted: impl FnMut(Glance<'_>) -> bool,
        delete_horizon_ms: Option<u64>,
    ) -> Result<Option<Bytes>, String> {
        let old = &self.header;
        let horizon = delete_horizon_ms.and_then(|ms| i64::try_from(ms).ok());
        let base_timestamp_ms = horizon.unwrap_or(old.base_timestamp_ms);
        let mut body = Vec::with_capacity(self.body.len());
        let (mut records, mut max_timestamp_ms) = (0_i32, i64::MIN);
        self.raw(|raw| {
            if !wanted(raw.glance) {
                return;
            }
            let timestamp_ms = old.base_timestamp_ms.saturating_add(raw.timestamp_delta);
            let timestamp_delta = timestamp_ms.saturating_sub(base_timestamp_ms);
            let offset_delta = i64::from(raw.offset_delta);
            let numbers = varint_bytes(timestamp_delta) + varint_bytes(offset_delta);
            put_varint(&mut body, (1 + numbers + raw.body.len()) as i64);
            body.push(raw.attributes);
            put_varint(&mut body, timestamp_delta);
            put_varint(&mut body, offset_delta);
            body.extend_from_slice(raw.body);
            records += 1;
            max_timestamp_ms = max_timestamp_ms.max(timestamp_ms);
        })?;
        if records == 0 {
            return Ok(None);
        }
        let append_time = old.attributes & super::batch::LOG_APPEND_TIME != 0;
        if append_time {
            max_timestamp_ms = old.max_timestamp_ms;
        }
        let packed = compress(old.codec()?, &body, &self.packed)?;
        let horizon_bit = if horizon.is_some() { DELETE_HORIZON } else { 0 };
        let mut signed = Vec::with_capacity(HEADER_BYTES - 21 + packed.len());
        signed.put_i16(old.attributes | horizon_bit);
        signed.put_u32(old.last_offset_delta);
        signed.put_i64(base_timestamp_ms);
        signed.put_i64(max_timestamp_ms);
        signed.put_i64(old.producer_id);
        signed.put_i16(old.producer_epoch);
        signed.put_i32(old.base_sequence);
        signed.put_i32(records);
        signed.extend_from_slice(&packed);
        let base = Offset::new(old.base_offset).ok_or("negative base offset")?;
        let bytes = PREFIX_BYTES + 5 + signed.len();
        let mut out = Vec::with_capacity(bytes);
        out.extend_from_slice(&super::batch::prefix(base, bytes, self.leader_epoch));
        out.put_u8(2);
        out.put_u32(crc32c::crc32c(&signed));
        out.extend_from_slice(&signed);
        Ok(Some(Bytes::from(out)))
    }
}

fn take_raw<'a>(rest: &mut &'a [u8], base: Offset) -> Option<Raw<'a>> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let (mut record, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    let (&attributes, after) = record.split_first()?;
    record = after;
    let timestamp_delta = varint(&mut record)?;
    let offset_delta = u32::try_from(varint(&mut record)?).ok()?;
    let body = record;
    let key = take_optional(&mut record)?;
    let value = take_optional(&mut record)?;
    Some(Raw {
        glance: Glance {
            offset: base.plus(offset_delta),
            key,
            deletes: value.is_none(),
        },
        timestamp_delta,
        offset_delta,
        attributes,
        body,
    })
}

/// Outer `None`: malformed. Inner `None`: null.
fn take_optional<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    match varint(input)? {
        -1 => Some(None),
        length => {
            let (bytes, behind) = input.split_at_checked(usize::try_from(length).ok()?)?;
            *input = behind;
            Some(Some(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::batch::{self, BatchBuilder};
    use super::super::compression::Codec;
    use super::super::types::{Header, Record};
    use super::*;

    fn sample() -> (BatchHeader, Bytes, Vec<Record>) {
        let records: Vec<Record> = (0..20)
            .map(|n| Record {
                timestamp_ms: 1_000_000 + n * 7,
                key: Some(Bytes::from(format!("key-{}", n % 5))),
                value: (n % 3 != 0).then(|| Bytes::from(vec![n as u8; 100])),
                headers: vec![Header {
                    name: Bytes::from_static(b"h"),
                    value: None,
                }],
            })
            .collect();
        let mut builder = BatchBuilder::new(1_000_000, 100);
        records
            .iter()
            .for_each(|record| builder.push_record(record));
        let (bytes, _, _) = builder.finish(Offset::new(500).unwrap(), 3);
        (BatchHeader::parse(&bytes).unwrap(), bytes, records)
    }

    /// The same batch, as a producer would have compressed it.
    fn packed(codec: i16, framed: bool) -> (BatchHeader, Bytes) {
        let (_, bytes, _) = sample();
        let as_before: &[u8] = if framed {
            b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01"
        } else {
            b""
        };
        let body = compress(Codec::from_bits(codec).unwrap(), &bytes[61..], as_before).unwrap();
        let mut signed = codec.to_be_bytes().to_vec();
        signed.extend_from_slice(&bytes[23..61]);
        signed.extend_from_slice(&body);
        let offset = Offset::new(500).unwrap();
        let mut out = batch::prefix(offset, 21 + signed.len(), 3).to_vec();
        out.push(2);
        out.extend_from_slice(&crc32c::crc32c(&signed).to_be_bytes());
        out.extend_from_slice(&signed);
        let out = Bytes::from(out);
        (BatchHeader::parse(&out).unwrap(), out)
    }

    #[test]
    fn what_is_retained_is_as_it_was_whatever_the_compression() {
        let (_, _, records) = sample();
        for (codec, framed) in [
            (0, false),
            (1, false),
            (2, false),
            (2, true),
            (3, false),
            (4, false),
        ] {
            for horizon in [None, Some(9_000_000)] {
                let (header, bytes) = packed(codec, framed);
                let unpacked = Unpacked::new(&header, &bytes).unwrap();
                let odd = |glance: Glance<'_>| glance.offset.value() % 2 == 1;
                let kept = unpacked.retain(odd, horizon).unwrap().unwrap();
                let new = BatchHeader::parse(&kept).unwrap();
                assert_eq!((new.base_offset, new.last_offset_delta), (500, 19));
                assert_eq!(new.max_timestamp_ms, 1_000_133);
                assert_eq!(new.bytes, kept.len());
                assert_eq!(new.attributes & 7, codec);
                assert_eq!(new.attributes & DELETE_HORIZON != 0, horizon.is_some());
                let found = batch::records(&new, &kept).unwrap();
                let wanted = records.iter().enumerate().filter(|(n, _)| n % 2 == 1);
                for (stored, (n, record)) in found.iter().zip(wanted) {
                    assert_eq!(stored.offset.value(), 500 + n as i64);
                    assert_eq!(&stored.record, record);
                }
                assert_eq!(found.len(), 10);
            }
        }
    }

    #[test]
    fn nothing_left_is_no_batch_and_rot_is_told() {
        let (header, bytes, _) = sample();
        let unpacked = Unpacked::new(&header, &bytes).unwrap();
        assert_eq!(unpacked.retain(|_| false, None).unwrap(), None);
        let mut deletes = 0;
        unpacked
            .each(|glance| deletes += u32::from(glance.deletes))
            .unwrap();
        assert_eq!(deletes, 7);
        let mut rotten = bytes.to_vec();
        rotten[80] ^= 1;
        assert!(Unpacked::new(&header, &Bytes::from(rotten)).is_err());
    }
}

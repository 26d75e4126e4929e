//! Kafka's record batch, magic 2: reading, judging and building it.
//!
//! ```text
//!  0  8  base offset                 27  8  base timestamp
//!  8  4  bytes that follow           35  8  max timestamp
//! 12  4  partition leader epoch      43  8  producer id, -1 for none
//! 16  1  magic, 2                    51  2  producer epoch
//! 17  4  CRC-32C of bytes 21..       53  4  base sequence
//! 21  2  attributes                  57  4  number of records
//! 23  4  last offset delta           61     records, compressed as the attributes say
//! ```
//! All big-endian. Base offset and leader epoch lie outside the checksum, so the log can set them
//! without touching what the producer signed.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;

use super::compression::{Codec, decompress};
use super::error::AppendError;
use super::types::{Header, Offset, Record, StoredRecord};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes that the log sets itself: base offset, length, leader epoch.
pub const PREFIX_BYTES: usize = 16;

/// Most headers that the records of one batch may have together, for the same reason.
pub const HEADERS_MAX: usize = 1 << 20;
/// Most records in one batch: what a well-compressed batch may unpack to in memory stays bounded.
pub const RECORDS_MAX: u32 = 1 << 18;

const CODEC_MASK: i16 = 0x07;
/// All records have the batch's largest timestamp: when it was appended.
pub const LOG_APPEND_TIME: i16 = 0x08;
/// Its records count when its producer's transaction is committed.
const TRANSACTIONAL: i16 = 0x10;
/// It ends a transaction; readers never see its record.
const CONTROL: i16 = 0x20;
/// The base timestamp is the time until which compaction keeps tombstones (KIP-534).
pub const DELETE_HORIZON: i16 = 0x40;

/// The fields of a batch header that the log looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// The whole batch, in bytes.
    pub bytes: usize,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: u32,
    pub base_timestamp_ms: i64,
    pub max_timestamp_ms: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records: u32,
}

impl BatchHeader {
    /// Reads a header; says what is wrong with it.
    pub fn parse(batch: &[u8]) -> Result<BatchHeader, String> {
        let mut read = Fields(batch);
        let base_offset = i64::from_be_bytes(read.array()?);
        let length = i32::from_be_bytes(read.array()?);
        let _leader_epoch: [u8; 4] = read.array()?;
        let [magic] = read.array()?;
        if magic != 2 {
            return Err(format!(
                "magic {magic}; only record batches of magic 2 are taken"
            ));
        }
        let crc = u32::from_be_bytes(read.array()?);
        let attributes = i16::from_be_bytes(read.array()?);
        let last_offset_delta = i32::from_be_bytes(read.array()?);
        let base_timestamp_ms = i64::from_be_bytes(read.array()?);
        let max_timestamp_ms = i64::from_be_bytes(read.array()?);
        let producer_id = i64::from_be_bytes(read.array()?);
        let producer_epoch = i16::from_be_bytes(read.array()?);
        let base_sequence = i32::from_be_bytes(read.array()?);
        let records = i32::from_be_bytes(read.array()?);
        let positive =
            |value: i32, what: &str| u32::try_from(value).map_err(|_| format!("{what} {value}"));
        let bytes = positive(length, "length")? as usize + 12;
        if bytes < HEADER_BYTES {
            return Err(format!("length {length} is shorter than a batch header"));
        }
        Ok(BatchHeader {
            base_offset,
            bytes,
            crc,
            attributes,
            last_offset_delta: positive(last_offset_delta, "last offset delta")?,
            base_timestamp_ms,
            max_timestamp_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            records: positive(records, "record count")?,
        })
    }

    /// The offset behind the batch's last record, for a batch that begins at `base`.
    pub fn end_offset(&self, base: Offset) -> Offset {
        base.plus(self.last_offset_delta).plus(1)
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it is no data, but a marker that the log itself wrote.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether the batch has the checksum that its producer gave it.
    pub fn signs(&self, batch: &[u8]) -> bool {
        crc32c::crc32c(batch.get(21..).unwrap_or_default()) == self.crc
    }

    /// The time that every record has, if it is not its own.
    pub fn append_time_ms(&self) -> Option<i64> {
        (self.attributes & LOG_APPEND_TIME != 0).then_some(self.max_timestamp_ms)
    }

    pub fn codec(&self) -> Result<Codec, String> {
        Codec::from_bits(self.attributes & CODEC_MASK)
            .ok_or_else(|| format!("unknown compression {}", self.attributes & CODEC_MASK))
    }
}

/// Judges a batch from a producer: one batch, whole, signed, counted, and nothing that only a broker
/// may write. Its records are looked at by [`inspect`].
pub fn validate(batch: &[u8], bytes_max: usize) -> Result<BatchHeader, AppendError> {
    let header = BatchHeader::parse(batch).map_err(AppendError::Corrupt)?;
    if header.bytes > batch.len() {
        return Err(AppendError::Corrupt(format!(
            "{} of {} bytes",
            batch.len(),
            header.bytes
        )));
    }
    if header.bytes < batch.len() {
        return Err(AppendError::Invalid(
            "more than one record batch for one partition".into(),
        ));
    }
    if batch.len() > bytes_max {
        return Err(AppendError::TooLarge {
            bytes: batch.len(),
            bytes_max,
        });
    }
    if !header.signs(batch) {
        return Err(AppendError::Corrupt("CRC-32C does not fit".into()));
    }
    header.codec().map_err(AppendError::Invalid)?;
    if header.is_control() {
        return Err(AppendError::Invalid(
            "control batches are the broker's to write".into(),
        ));
    }
    if header.is_transactional() && header.producer_id < 0 {
        return Err(AppendError::Invalid(
            "a transactional batch needs a producer id".into(),
        ));
    }
    if header.attributes & DELETE_HORIZON != 0 {
        return Err(AppendError::Invalid(
            "a delete horizon is the broker's to set".into(),
        ));
    }
    if header.records == 0 || header.last_offset_delta != header.records - 1 {
        let (delta, records) = (header.last_offset_delta, header.records);
        return Err(AppendError::Invalid(format!(
            "last offset delta {delta} with {records} records"
        )));
    }
    if header.records > RECORDS_MAX {
        let records = header.records;
        return Err(AppendError::Invalid(format!(
            "{records} records in one batch; {RECORDS_MAX} are possible"
        )));
    }
    let has_epoch = header.producer_epoch >= 0 || header.is_transactional();
    if header.producer_id >= 0 && !(has_epoch && header.base_sequence >= 0) {
        return Err(AppendError::Invalid(
            "an idempotent batch needs an epoch and a sequence".into(),
        ));
    }
    Ok(header)
}

/// What a look at every record of a batch told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// The largest timestamp there is.
    pub max_timestamp_ms: i64,
    /// Records without a key.
    pub keyless: Vec<u32>,
    /// Records with a timestamp outside what was asked for.
    pub untimely: Vec<u32>,
}

/// Looks at every record of a validated batch, unpacks them for that: a batch that cannot be read would
/// be in the way of every consumer. `timely`: timestamps that are acceptable.
pub fn inspect(
    header: &BatchHeader,
    batch: &Bytes,
    timely: RangeInclusive<i64>,
) -> Result<Inspected, String> {
    let body = batch.slice(HEADER_BYTES.min(batch.len())..);
    let body = decompress(header.codec()?, body)?;
    let mut seen = Inspected {
        max_timestamp_ms: -1,
        keyless: Vec::new(),
        untimely: Vec::new(),
    };
    walk(&body, header.records, |index, timestamp_delta, has_key| {
        let timestamp_ms = header.base_timestamp_ms.saturating_add(timestamp_delta);
        seen.max_timestamp_ms = seen.max_timestamp_ms.max(timestamp_ms);
        if !has_key {
            seen.keyless.push(index);
        }
        // -1 is none.
        if timestamp_ms >= 0 && !timely.contains(&timestamp_ms) {
            seen.untimely.push(index);
        }
    })?;
    Ok(seen)
}

/// The batch that ends a producer's transaction in one partition (KIP-98): one record, whose key is a
/// version and the kind (0 aborts, 1 commits), its value a version and the coordinator's epoch.
pub fn marker(producer_id: i64, epoch: i16, commits: bool, now_ms: u64) -> (BatchHeader, Bytes) {
    let timestamp_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let mut record = Vec::with_capacity(20);
    record.push(0);
    put_varint(&mut record, 0);
    put_varint(&mut record, 0);
    put_varint(&mut record, 4);
    record.put_i16(0);
    record.put_i16(i16::from(commits));
    put_varint(&mut record, 6);
    record.put_i16(0);
    record.put_i32(0);
    put_varint(&mut record, 0);
    let mut signed = Vec::with_capacity(64);
    signed.put_i16(TRANSACTIONAL | CONTROL);
    signed.put_u32(0);
    signed.put_i64(timestamp_ms);
    signed.put_i64(timestamp_ms);
    signed.put_i64(producer_id);
    signed.put_i16(epoch);
    signed.put_i32(-1);
    signed.put_i32(1);
    put_varint(&mut signed, record.len() as i64);
    signed.extend_from_slice(&record);
    let crc = crc32c::crc32c(&signed);
    let bytes = PREFIX_BYTES + 5 + signed.len();
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&prefix(Offset::ZERO, bytes, 0));
    out.put_u8(2);
    out.put_u32(crc);
    out.extend_from_slice(&signed);
    let header = BatchHeader {
        base_offset: 0,
        bytes,
        crc,
        attributes: TRANSACTIONAL | CONTROL,
        last_offset_delta: 0,
        base_timestamp_ms: timestamp_ms,
        max_timestamp_ms: timestamp_ms,
        producer_id,
        producer_epoch: epoch,
        base_sequence: -1,
        records: 1,
    };
    (header, Bytes::from(out))
}

/// Whether a marker commits; `None` where its record cannot be read.
pub fn marker_commits(header: &BatchHeader, batch: &Bytes) -> Option<bool> {
    let records = records(header, batch).ok()?;
    let key = records.first()?.record.key.as_deref()?;
    match key {
        [0, 0, 0, 0] => Some(false),
        [0, 0, 0, 1] => Some(true),
        _ => None,
    }
}

/// Checks the lengths and offset deltas of unpacked records; shows the number of each, its timestamp delta
/// and whether it has a key.
fn walk(mut body: &[u8], records: u32, mut look: impl FnMut(u32, i64, bool)) -> Result<(), String> {
    for index in 0..records {
        let length = varint(&mut body).ok_or_else(|| format!("record {index}: length"))?;
        let length =
            usize::try_from(length).map_err(|_| format!("record {index}: length {length}"))?;
        let (mut record, rest) = body
            .split_at_checked(length)
            .ok_or_else(|| format!("record {index}: {length} bytes are not there"))?;
        body = rest;
        record = record
            .get(1..)
            .ok_or_else(|| format!("record {index}: empty"))?;
        let timestamp_delta =
            varint(&mut record).ok_or_else(|| format!("record {index}: timestamp delta"))?;
        let delta = varint(&mut record).ok_or_else(|| format!("record {index}: offset delta"))?;
        if delta != i64::from(index) {
            return Err(format!("record {index}: offset delta {delta}"));
        }
        let has_key = fields(record)
            .ok_or_else(|| format!("record {index}: key, value or headers do not fit"))?;
        look(index, timestamp_delta, has_key);
    }
    if body.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes behind the last record", body.len()))
    }
}

/// Walks key, value and headers, and says whether there is a key; `None` if they do not fill the record
/// exactly.
fn fields(mut record: &[u8]) -> Option<bool> {
    let has_key = skip_bytes(&mut record)?;
    skip_bytes(&mut record)?;
    let headers = varint(&mut record)?;
    for _ in 0..u32::try_from(headers).ok()? {
        let name = usize::try_from(varint(&mut record)?).ok()?;
        record = record.get(name..)?;
        skip_bytes(&mut record)?;
    }
    record.is_empty().then_some(has_key)
}

/// False for null.
fn skip_bytes(input: &mut &[u8]) -> Option<bool> {
    match varint(input)? {
        -1 => Some(false),
        length => {
            *input = input.get(usize::try_from(length).ok()?..)?;
            Some(true)
        }
    }
}

/// Whether these bytes are a batch as its producer signed it.
pub fn is_whole(batch: &[u8]) -> bool {
    BatchHeader::parse(batch).is_ok_and(|header| header.signs(batch))
}

/// Splits stored bytes into batches.
pub fn split(bytes: &Bytes) -> impl Iterator<Item = Result<(BatchHeader, Bytes), String>> + use<> {
    let mut rest = bytes.clone();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        Some(BatchHeader::parse(&rest).and_then(|header| {
            if header.bytes > rest.len() {
                return Err(format!("{} of {} bytes", rest.len(), header.bytes));
            }
            Ok((header, rest.split_to(header.bytes)))
        }))
        .inspect(|result| {
            if result.is_err() {
                rest.clear();
            }
        })
    })
}

/// Decodes every record of one batch, decompressing within a bound. Verifies the batch's checksum, so
/// that rot on disk is never taken for a value.
pub fn records(header: &BatchHeader, batch: &Bytes) -> Result<Vec<StoredRecord>, String> {
    if !header.signs(batch) {
        return Err("CRC-32C does not fit".into());
    }
    let body = batch.slice(HEADER_BYTES.min(batch.len())..);
    let mut body = decompress(header.codec()?, body)?;
    let base = Offset::new(header.base_offset).ok_or("negative base offset")?;
    let mut out = Vec::with_capacity((header.records as usize).min(body.len() / 7 + 1));
    let (mut next_delta, mut headers_left) = (0, HEADERS_MAX);
    for index in 0..header.records {
        let wrong = |what: &str| format!("record {index}: {what}");
        let length = take_varint(&mut body)
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| wrong("length"))?;
        if length > body.len() || length == 0 {
            return Err(wrong("its bytes are not there"));
        }
        let mut record = body.split_to(length);
        let _attributes = record.split_to(1);
        let timestamp_delta = take_varint(&mut record).ok_or_else(|| wrong("timestamp delta"))?;
        let offset_delta = take_varint(&mut record)
            .and_then(|n| u32::try_from(n).ok())
            .filter(|delta| (next_delta..=header.last_offset_delta).contains(delta))
            .ok_or_else(|| wrong("offset delta"))?;
        next_delta = offset_delta + 1;
        let key = take_bytes(&mut record).ok_or_else(|| wrong("key"))?;
        let value = take_bytes(&mut record).ok_or_else(|| wrong("value"))?;
        let headers =
            take_headers(&mut record, &mut headers_left).ok_or_else(|| wrong("headers"))?;
        if !record.is_empty() {
            return Err(wrong("bytes behind its headers"));
        }
        let own = header.base_timestamp_ms.saturating_add(timestamp_delta);
        let timestamp_ms = header.append_time_ms().unwrap_or(own);
        let record = Record {
            timestamp_ms,
            key,
            value,
            headers,
        };
        out.push(StoredRecord {
            offset: base.plus(offset_delta),
            record,
        });
    }
    if body.is_empty() {
        Ok(out)
    } else {
        Err(format!("{} bytes behind the last record", body.len()))
    }
}

fn take_headers(input: &mut Bytes, left: &mut usize) -> Option<Vec<Header>> {
    let count = usize::try_from(take_varint(input)?).ok()?;
    *left = left.checked_sub(count)?;
    // A header takes two bytes at least, so a count beyond that is a lie.
    let mut headers = Vec::with_capacity(count.min(input.len() / 2));
    for _ in 0..count {
        let name = take_bytes(input)??;
        headers.push(Header {
            name,
            value: take_bytes(input)?,
        });
    }
    Some(headers)
}

/// Outer `None`: malformed. Inner `None`: null.
fn take_bytes(input: &mut Bytes) -> Option<Option<Bytes>> {
    match take_varint(input)? {
        -1 => Some(None),
        length => {
            let length = usize::try_from(length).ok()?;
            (length <= input.len()).then(|| Some(input.split_to(length)))
        }
    }
}

fn take_varint(input: &mut Bytes) -> Option<i64> {
    let mut view: &[u8] = input;
    let value = varint(&mut view)?;
    let used = input.len() - view.len();
    let _ = input.split_to(used);
    Some(value)
}

/// Zig-zag variable-length integer, at most ten bytes.
pub(super) fn varint(input: &mut &[u8]) -> Option<i64> {
    let mut raw = 0_u64;
    for shift in (0..70).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        raw |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()));
        }
    }
    None
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    // Lengths and deltas of small records.
    if raw < 0x80 {
        out.push(raw as u8);
        return;
    }
    if raw < 0x4000 {
        out.extend_from_slice(&[(raw as u8) | 0x80, (raw >> 7) as u8]);
        return;
    }
    while raw >= 0x80 {
        out.put_u8((raw as u8) | 0x80);
        raw >>= 7;
    }
    out.put_u8(raw as u8);
}

pub(super) fn varint_bytes(value: i64) -> usize {
    let raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    (64 - (raw | 1).leading_zeros()).div_ceil(7) as usize
}

/// Records encoded as far as is possible before their offsets are known, one behind the other.
#[derive(Debug, Default)]
pub struct EncodedRecords {
    bodies: Vec<u8>,
    /// Timestamp and end of each body.
    ends: SmallVec<[(i64, usize); 1]>,
}

impl EncodedRecords {
    pub fn with_capacity(records: usize, bytes: usize) -> EncodedRecords {
        EncodedRecords {
            bodies: Vec::with_capacity(bytes),
            ends: SmallVec::with_capacity(records),
        }
    }

    pub fn push(&mut self, record: &Record) {
        put_body(&mut self.bodies, record);
        self.ends.push((record.timestamp_ms, self.bodies.len()));
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bodies.len()
    }

    /// Timestamp and body of each record.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &[u8])> {
        let mut begin = 0;
        self.ends.iter().map(move |&(timestamp, end)| {
            let body = self.bodies.get(begin..end).unwrap_or_default();
            begin = end;
            (timestamp, body)
        })
    }
}

/// Key, value and headers.
fn put_body(out: &mut Vec<u8>, record: &Record) {
    put_optional(out, record.key.as_deref());
    put_optional(out, record.value.as_deref());
    put_varint(out, record.headers.len() as i64);
    for header in &record.headers {
        put_varint(out, header.name.len() as i64);
        out.extend_from_slice(&header.name);
        put_optional(out, header.value.as_deref());
    }
}

/// What [`put_body`] takes.
fn body_bytes(record: &Record) -> usize {
    let optional = |bytes: &Option<Bytes>| match bytes {
        None => 1,
        Some(bytes) => varint_bytes(bytes.len() as i64) + bytes.len(),
    };
    let headers: usize = record
        .headers
        .iter()
        .map(|h| varint_bytes(h.name.len() as i64) + h.name.len() + optional(&h.value))
        .sum();
    let count = varint_bytes(record.headers.len() as i64);
    optional(&record.key) + optional(&record.value) + count + headers
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

/// Bytes that a decoded record holds in memory, roughly.
pub fn stored_bytes(stored: &StoredRecord) -> usize {
    let record = &stored.record;
    let bytes = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len);
    let headers: usize = record
        .headers
        .iter()
        .map(|h| h.name.len() + bytes(&h.value))
        .sum();
    size_of::<StoredRecord>()
        + record.headers.len() * size_of::<Header>()
        + bytes(&record.key)
        + bytes(&record.value)
        + headers
}

/// Bytes that a record takes in a batch, roughly and never less.
pub fn encoded_bytes_bound(record: &Record) -> usize {
    let bytes = |b: &Option<Bytes>| b.as_ref().map_or(0, Bytes::len) + 5;
    let headers: usize = record
        .headers
        .iter()
        .map(|h| h.name.len() + 5 + bytes(&h.value))
        .sum();
    bytes(&record.key) + bytes(&record.value) + headers + 5 + RECORD_OVERHEAD_BYTES
}

/// Length, attributes, timestamp delta and offset delta at their largest.
const RECORD_OVERHEAD_BYTES: usize = 5 + 1 + 10 + 5;

/// One batch being coalesced from records of many callers.
#[derive(Debug)]
pub struct BatchBuilder {
    out: Vec<u8>,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    records: u32,
}

impl BatchBuilder {
    pub fn new(first_timestamp_ms: i64, bytes: usize) -> BatchBuilder {
        let mut out = Vec::with_capacity(HEADER_BYTES + bytes + RECORD_OVERHEAD_BYTES);
        out.resize(HEADER_BYTES, 0);
        BatchBuilder {
            out,
            base_timestamp_ms: first_timestamp_ms,
            max_timestamp_ms: first_timestamp_ms,
            records: 0,
        }
    }

    /// Adds a record whose body is encoded already.
    pub fn push(&mut self, timestamp_ms: i64, body: &[u8]) {
        self.begin_record(timestamp_ms, body.len());
        self.out.extend_from_slice(body);
    }

    /// Adds a record.
    pub fn push_record(&mut self, record: &Record) {
        self.begin_record(record.timestamp_ms, body_bytes(record));
        put_body(&mut self.out, record);
    }

    fn begin_record(&mut self, timestamp_ms: i64, body_bytes: usize) {
        let timestamp_delta = timestamp_ms.saturating_sub(self.base_timestamp_ms);
        let offset_delta = i64::from(self.records);
        let length = 1 + varint_bytes(timestamp_delta) + varint_bytes(offset_delta) + body_bytes;
        put_varint(&mut self.out, length as i64);
        self.out.push(0);
        put_varint(&mut self.out, timestamp_delta);
        put_varint(&mut self.out, offset_delta);
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.records += 1;
    }

    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    /// Gives memory back where most of it is not needed.
    pub fn shrink(&mut self) {
        if self.out.len() < self.out.capacity() / 2 {
            self.out.shrink_to_fit();
        }
    }

    /// Room for so many bytes more, at least.
    pub fn reserve(&mut self, bytes: usize) {
        self.out.reserve(bytes);
    }

    /// Fills the header in and signs the batch.
    pub fn finish(self, base_offset: Offset, leader_epoch: i32) -> (Bytes, u32, i64) {
        self.finish_with(base_offset, leader_epoch, None)
    }

    /// The same; all its records get this time, if one is given (LogAppendTime).
    pub fn finish_with(
        mut self,
        base_offset: Offset,
        leader_epoch: i32,
        append_time_ms: Option<u64>,
    ) -> (Bytes, u32, i64) {
        let mut attributes = 0;
        if let Some(ms) = append_time_ms {
            attributes = LOG_APPEND_TIME;
            self.max_timestamp_ms = i64::try_from(ms).unwrap_or(i64::MAX);
        }
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.put_i16(attributes);
        header.put_i32(self.records.saturating_sub(1).cast_signed());
        header.put_i64(self.base_timestamp_ms);
        header.put_i64(self.max_timestamp_ms);
        header.put_i64(-1);
        header.put_i16(-1);
        header.put_i32(-1);
        header.put_i32(self.records.cast_signed());
        if let Some(room) = self.out.get_mut(21..HEADER_BYTES) {
            room.copy_from_slice(&header);
        }
        let crc = crc32c::crc32c(self.out.get(21..).unwrap_or_default());
        let prefix = prefix(base_offset, self.out.len(), leader_epoch);
        if let Some(room) = self.out.get_mut(..21) {
            let (head, tail) = room.split_at_mut(PREFIX_BYTES);
            head.copy_from_slice(&prefix);
            tail.copy_from_slice(&[&[2_u8][..], &crc.to_be_bytes()[..]].concat());
        }
        (Bytes::from(self.out), self.records, self.max_timestamp_ms)
    }
}

/// A valid batch whose records all have the time at which it is appended (`is_append_time`), or whose largest
/// timestamp is this one; signed anew.
pub fn stamp(batch: &Bytes, max_timestamp_ms: i64, is_append_time: bool) -> (Bytes, BatchHeader) {
    let mut out = batch.to_vec();
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(room) = out.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    };
    let attributes = batch.get(21..).and_then(|rest| rest.first_chunk());
    let attributes = attributes.map_or(0, |bytes| i16::from_be_bytes(*bytes));
    let time_type = if is_append_time { LOG_APPEND_TIME } else { 0 };
    let attributes = attributes & !LOG_APPEND_TIME | time_type;
    put(21, &attributes.to_be_bytes());
    put(35, &max_timestamp_ms.to_be_bytes());
    let crc = crc32c::crc32c(out.get(21..).unwrap_or_default());
    if let Some(room) = out.get_mut(17..21) {
        room.copy_from_slice(&crc.to_be_bytes());
    }
    let out = Bytes::from(out);
    let header = BatchHeader::parse(&out);
    #[allow(
        clippy::expect_used,
        reason = "the batch was validated and keeps its length"
    )]
    (out, header.expect("the header of a valid batch"))
}

/// The first bytes of a batch of `bytes` bytes at its place in the log.
pub fn prefix(base_offset: Offset, bytes: usize, leader_epoch: i32) -> [u8; PREFIX_BYTES] {
    let length = i32::try_from(bytes.saturating_sub(12)).unwrap_or(i32::MAX);
    let mut out = [0; PREFIX_BYTES];
    let mut room = &mut out[..];
    room.put_i64(base_offset.value());
    room.put_i32(length);
    room.put_i32(leader_epoch);
    out
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or("shorter than a batch header")?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    fn build(records: &[Record], base: i64) -> Bytes {
        let mut encoded = EncodedRecords::default();
        records.iter().for_each(|r| encoded.push(r));
        let mut builder = BatchBuilder::new(records[0].timestamp_ms, encoded.bytes());
        encoded.iter().for_each(|(t, body)| builder.push(t, body));
        builder.finish(Offset::new(base).unwrap(), 3).0
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from);
        let headers = proptest::collection::vec((bytes(), proptest::option::of(bytes())), 0..4);
        (
            -5_000_000_000_000_i64..5_000_000_000_000,
            proptest::option::of(bytes()),
            proptest::option::of(bytes()),
            headers,
        )
            .prop_map(|(timestamp_ms, key, value, headers)| Record {
                timestamp_ms,
                key,
                value,
                headers: headers
                    .into_iter()
                    .map(|(name, value)| Header { name, value })
                    .collect(),
            })
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went_in(list in proptest::collection::vec(any_record(), 1..40), base in 0_i64..1 << 40) {
            let batch = build(&list, base);
            let mut builder = BatchBuilder::new(list[0].timestamp_ms, 0);
            list.iter().for_each(|record| builder.push_record(record));
            prop_assert_eq!(&builder.finish(Offset::new(base).unwrap(), 3).0, &batch);
            let bound: usize = list.iter().map(encoded_bytes_bound).sum();
            prop_assert!(batch.len() <= HEADER_BYTES + bound);
            let header = validate(&batch, usize::MAX).unwrap();
            let read = records(&header, &batch).unwrap();
            prop_assert_eq!(read.len(), list.len());
            for (i, (stored, record)) in read.iter().zip(&list).enumerate() {
                prop_assert_eq!(stored.offset.value(), base + i as i64);
                prop_assert_eq!(&stored.record, record);
            }
        }

        #[test]
        fn no_bytes_panic_or_pass_unsigned(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0_usize..300) {
            prop_assert!(validate(&bytes, usize::MAX).is_err());
            let batch = build(&[Record { value: Some(Bytes::from(bytes.clone())), ..Record::default() }], 0);
            bytes = batch.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 0x40;
            // Base offset and leader epoch are the log's to set; every other byte is signed or checked.
            if !(0..8).contains(&at) && !(12..16).contains(&at) {
                prop_assert!(validate(&bytes, usize::MAX).is_err());
            }
            let header = BatchHeader::parse(&batch).unwrap();
            let _ = records(&header, &Bytes::from(bytes));
        }
    }

    #[test]
    fn varints_use_the_bytes_they_say() {
        for value in [0, -1, 1, 63, 64, -64, -65, 8191, 8192, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out.len(), varint_bytes(value), "{value}");
            assert_eq!(varint(&mut &out[..]), Some(value));
        }
    }
}

//! Primitive types of Kafka's wire format: a bounded reader, a chunked writer, and what both speak.
//!
//! Decoding borrows: strings, bytes and record batches are slices of the frame they came in. Nothing
//! is allocated before its length was compared with what is left of the frame, and the arrays of one
//! frame together may ask for at most [`heap_limit`] bytes of memory, so that a short frame full of
//! tiny elements cannot be blown up.
//!
//! Encoding gathers: everything small goes into one buffer, record batches are appended to the list
//! of chunks as they are and reach the socket through a vectored write, or out of the log's own files.
//!
//! This module knows no message and no socket.

use std::fmt;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use holdfast_storage::log::{FetchError, Run};
use uuid::Uuid;

/// Shared bytes shorter than this are copied into the buffer: an entry of its own in a vectored
/// write would cost more than the copy.
const COPY_BELOW_BYTES: usize = 256;

/// Longest string, in every version: Kafka refuses longer ones in the flexible ones, too.
const STRING_BYTES_MAX: i16 = i16::MAX;

/// Most memory that the arrays of one frame may occupy, in bytes, for a frame of `frame_bytes`.
pub fn heap_limit(frame_bytes: usize) -> usize {
    frame_bytes.saturating_mul(4).saturating_add(1 << 20)
}

/// Why a frame could not be understood. Final for the connection that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    #[error("{needed} bytes needed where {left} are left of the frame")]
    Truncated { needed: usize, left: usize },
    #[error("a length of {0} is not possible here")]
    BadLength(i64),
    #[error("a variable-length number is longer than its type")]
    BadVarint,
    #[error("a string is not UTF-8")]
    BadString,
    #[error("{field} must not be null in version {version}")]
    Null { field: &'static str, version: i16 },
    #[error("the frame's arrays need more than {limit} bytes of memory")]
    TooMuchStructure { limit: usize },
    #[error("tagged field {tag} has {left} bytes more than its type")]
    TagTooLong { tag: u32, left: usize },
    #[error("no API has key {0}")]
    UnknownApi(i16),
    #[error("version {version} of {api} is not served")]
    UnsupportedVersion { api: &'static str, version: i16 },
}

/// Why a message could not be put on the wire: always a mistake of this side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    #[error("{field} must not be null in version {version}")]
    Null { field: &'static str, version: i16 },
    #[error("{0} bytes or elements do not fit the length field")]
    TooLong(usize),
    #[error("version {version} of {api} does not exist")]
    UnsupportedVersion { api: &'static str, version: i16 },
}

/// Which layout of a message is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    pub version: i16,
    /// Compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
}

/// A type that knows its place on the wire.
pub trait Wire: Sized {
    fn read(r: &mut Reader, layout: Layout) -> Result<Self, DecodeError>;
    fn write(&self, w: &mut Writer, layout: Layout);
}

/// A message of the table that is not itself a primitive.
pub trait Structure: Wire {}

/// UTF-8 text that shares the frame it was decoded from.
///
/// Whoever keeps one for longer than a request keeps its whole frame: copy it into a `String`.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(Bytes);

impl Str {
    pub fn as_str(&self) -> &str {
        // Checked once on the way in; checked again here because the alternative is unsafe code.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As much of it as `bytes_max` has room for.
    fn beginning(&self, bytes_max: usize) -> &str {
        if self.0.len() <= bytes_max {
            return self.as_str();
        }
        let text = self.as_str();
        let whole = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=bytes_max).rev().find(whole).unwrap_or_default();
        text.get(..end).unwrap_or_default()
    }

    fn new(bytes: Bytes) -> Result<Str, DecodeError> {
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(Str(bytes)),
            Err(_) => Err(DecodeError::BadString),
        }
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Str {
        Str(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Str {
        Str(Bytes::from(text))
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A part of a frame: bytes in memory, or where the log has them.
#[derive(Clone, PartialEq)]
pub enum Chunk {
    Memory(Bytes),
    Stored(Run),
}

impl Chunk {
    pub fn len(&self) -> usize {
        match self {
            Chunk::Memory(bytes) => bytes.len(),
            Chunk::Stored(run) => run.bytes(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn is_stored(&self) -> bool {
        matches!(self, Chunk::Stored(_))
    }

    /// Reads the log if it has to.
    fn into_bytes(self) -> Result<Bytes, FetchError> {
        match self {
            Chunk::Memory(bytes) => Ok(bytes),
            Chunk::Stored(run) => run.read(),
        }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Chunk::Memory(bytes) => fmt::Debug::fmt(bytes, f),
            Chunk::Stored(run) => fmt::Debug::fmt(run, f),
        }
    }
}

/// Record batches one after another: a single slice when decoded, as many as there are when encoded.
#[derive(Debug, Clone, Default)]
pub struct Records(Vec<Chunk>);

impl Records {
    pub fn new(chunks: Vec<Chunk>) -> Records {
        Records(chunks)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(Chunk::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Chunk::is_empty)
    }

    /// As one slice: free of copying where they were decoded. Reads the log if it has to.
    pub fn into_bytes(self) -> Result<Bytes, FetchError> {
        joined(self.0)
    }
}

fn joined(mut chunks: Vec<Chunk>) -> Result<Bytes, FetchError> {
    if chunks.len() <= 1 {
        return chunks.pop().map_or(Ok(Bytes::new()), Chunk::into_bytes);
    }
    let chunks: Result<Vec<Bytes>, _> = chunks.into_iter().map(Chunk::into_bytes).collect();
    Ok(chunks?.concat().into())
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records(vec![Chunk::Memory(bytes)])
    }
}

/// Nothing is equal to nothing, however many pieces it has.
impl PartialEq for Records {
    fn eq(&self, other: &Records) -> bool {
        self.0 == other.0 || (self.is_empty() && other.is_empty())
    }
}

/// Takes a frame apart from front to back.
#[derive(Debug)]
pub struct Reader {
    buf: Bytes,
    heap_left: usize,
    heap_limit: usize,
}

impl Reader {
    pub fn new(frame: Bytes) -> Reader {
        let heap_limit = heap_limit(frame.len());
        Reader {
            buf: frame,
            heap_left: heap_limit,
            heap_limit,
        }
    }

    pub fn remaining(&self) -> usize {
        self.buf.len()
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        let left = self.buf.len();
        if needed > left {
            return Err(DecodeError::Truncated { needed, left });
        }
        Ok(())
    }

    /// The next `len` bytes, shared.
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        self.need(len)?;
        Ok(self.buf.split_to(len))
    }

    fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            self.need(1)?;
            let byte = self.buf.get_u8();
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::BadVarint);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadVarint)
    }

    /// A length that counts bytes or elements; `None` is null. Never more than what is left of the
    /// frame, because every element takes a byte at least.
    fn length(&mut self, layout: Layout, short: bool) -> Result<Option<usize>, DecodeError> {
        let length = if layout.flexible {
            i64::from(self.unsigned_varint()?) - 1
        } else if short {
            i64::from(i16::read(self, layout)?)
        } else {
            i64::from(i32::read(self, layout)?)
        };
        if length == -1 {
            return Ok(None);
        }
        if short && length > i64::from(STRING_BYTES_MAX) {
            return Err(DecodeError::BadLength(length));
        }
        let length = usize::try_from(length).map_err(|_| DecodeError::BadLength(length))?;
        self.need(length)?;
        Ok(Some(length))
    }

    fn array<T: Wire>(&mut self, layout: Layout) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.length(layout, false)? else {
            return Ok(None);
        };
        let heap = count.saturating_mul(size_of::<T>());
        let Some(left) = self.heap_left.checked_sub(heap) else {
            return Err(DecodeError::TooMuchStructure {
                limit: self.heap_limit,
            });
        };
        self.heap_left = left;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::read(self, layout)?);
        }
        Ok(Some(items))
    }

    /// The tagged fields at the end of a flexible structure. `known` says whether it took the tag;
    /// what nobody knows is skipped.
    pub fn tagged(
        &mut self,
        mut known: impl FnMut(u32, &mut Reader) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.unsigned_varint()?;
            let size = self.unsigned_varint()? as usize;
            let buf = self.take(size)?;
            let mut body = Reader {
                buf,
                heap_left: self.heap_left,
                heap_limit: self.heap_limit,
            };
            let taken = known(tag, &mut body)?;
            self.heap_left = body.heap_left;
            if taken && body.remaining() > 0 {
                return Err(DecodeError::TagTooLong {
                    tag,
                    left: body.remaining(),
                });
            }
        }
        Ok(())
    }
}

/// A finished frame, length field included, as the chunks of a vectored write.
#[derive(Debug, Clone)]
pub struct Frame {
    chunks: Vec<Chunk>,
}

impl Frame {
    /// Length of the whole frame.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }

    pub fn into_chunks(self) -> Vec<Chunk> {
        self.chunks
    }

    pub fn len(&self) -> usize {
        self.chunks.iter().map(Chunk::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(super) fn from_chunks(chunks: Vec<Chunk>) -> Frame {
        Frame { chunks }
    }

    /// As one slice. Reads the log if it has to.
    pub fn into_bytes(self) -> Result<Bytes, FetchError> {
        joined(self.chunks)
    }
}

/// Bytes of the frame's own length field.
pub const LENGTH_BYTES: usize = 4;

/// Puts a frame together. Mistakes are remembered and reported by [`Writer::finish`].
#[derive(Debug)]
pub struct Writer {
    /// What was written before the first shared chunk; keeps the length field within reach.
    head: Option<BytesMut>,
    chunks: Vec<Chunk>,
    chunk_bytes: usize,
    tail: BytesMut,
    error: Option<EncodeError>,
    /// The field under way is an explanation, which may lose its end.
    cuts: bool,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}

impl Writer {
    pub fn new() -> Writer {
        let mut tail = BytesMut::with_capacity(256);
        tail.put_bytes(0, LENGTH_BYTES);
        Writer {
            head: None,
            chunks: Vec::new(),
            chunk_bytes: 0,
            tail,
            error: None,
            cuts: false,
        }
    }

    /// For a tagged field, whose size stands before it.
    fn nested() -> Writer {
        Writer {
            head: None,
            chunks: Vec::new(),
            chunk_bytes: 0,
            tail: BytesMut::new(),
            error: None,
            cuts: false,
        }
    }

    /// What follows is this field. An explanation that repeats a name of the request may be longer than
    /// any string can be: it is cut, or its client would be hung up on instead of told.
    pub fn begin_field(&mut self, name: &'static str) {
        self.cuts = name.ends_with("error_message");
    }

    fn text(&mut self, text: Option<&Str>, layout: Layout) {
        let bytes = match text {
            Some(text) if self.cuts => Some(text.beginning(STRING_BYTES_MAX as usize).as_bytes()),
            text => text.map(|text| &text.0[..]),
        };
        self.length(layout, true, bytes.map(<[u8]>::len));
        self.tail.put_slice(bytes.unwrap_or_default());
    }

    pub fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    fn unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.tail.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.tail.put_u8(value as u8);
    }

    fn length(&mut self, layout: Layout, short: bool, length: Option<usize>) {
        let max = if short {
            i32::from(STRING_BYTES_MAX)
        } else {
            i32::MAX - 1
        };
        let value = match length.map(i32::try_from) {
            None => -1,
            Some(Ok(value)) if value <= max => value,
            Some(_) => return self.fail(EncodeError::TooLong(length.unwrap_or_default())),
        };
        if layout.flexible {
            self.unsigned_varint((value + 1) as u32);
        } else if short {
            self.tail.put_i16(value as i16);
        } else {
            self.tail.put_i32(value);
        }
    }

    fn shared(&mut self, chunk: &Chunk) {
        if let Chunk::Memory(bytes) = chunk
            && bytes.len() < COPY_BELOW_BYTES
        {
            self.tail.put_slice(bytes);
            return;
        }
        match self.head {
            None => self.head = Some(std::mem::take(&mut self.tail)),
            Some(_) => {
                let done = self.tail.split().freeze();
                self.push(Chunk::Memory(done));
            }
        }
        self.push(chunk.clone());
    }

    fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() {
            self.chunk_bytes += chunk.len();
            self.chunks.push(chunk);
        }
    }

    fn array<T: Wire>(&mut self, items: Option<&[T]>, layout: Layout) {
        self.length(layout, false, items.map(<[T]>::len));
        for item in items.unwrap_or_default() {
            item.write(self, layout);
        }
    }

    /// How many tagged fields follow.
    pub fn tag_count(&mut self, count: u32) {
        self.unsigned_varint(count);
    }

    /// One tagged field; tags must ascend within a structure.
    pub fn tag<T: Wire>(&mut self, tag: u32, value: &T, layout: Layout) {
        let mut body = Writer::nested();
        value.write(&mut body, layout);
        if let Some(error) = body.error {
            return self.fail(error);
        }
        self.unsigned_varint(tag);
        match u32::try_from(body.tail.len()) {
            Ok(size) => self.unsigned_varint(size),
            Err(_) => return self.fail(EncodeError::TooLong(body.tail.len())),
        }
        self.tail.put_slice(&body.tail);
    }

    /// Fills in the length field.
    pub fn finish(mut self) -> Result<Frame, EncodeError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let head_bytes = self.head.as_ref().map_or(0, BytesMut::len);
        let total = head_bytes + self.chunk_bytes + self.tail.len() - LENGTH_BYTES;
        let length = i32::try_from(total).map_err(|_| EncodeError::TooLong(total))?;
        let first = self.head.as_mut().unwrap_or(&mut self.tail);
        if let Some(slot) = first.get_mut(..LENGTH_BYTES) {
            slot.copy_from_slice(&length.to_be_bytes());
        }
        let tail = self.tail.freeze();
        let mut chunks = Vec::with_capacity(self.chunks.len() + 2);
        chunks.extend(self.head.map(|head| Chunk::Memory(head.freeze())));
        chunks.append(&mut self.chunks);
        if !tail.is_empty() {
            chunks.push(Chunk::Memory(tail));
        }
        Ok(Frame { chunks })
    }
}

macro_rules! numbers {
    ($($ty:ty: $get:ident, $put:ident;)*) => { $(
        impl Wire for $ty {
            fn read(r: &mut Reader, _: Layout) -> Result<$ty, DecodeError> {
                r.need(size_of::<$ty>())?;
                Ok(r.buf.$get())
            }
            fn write(&self, w: &mut Writer, _: Layout) {
                w.tail.$put(*self);
            }
        }
    )* };
}

numbers! {
    i8: get_i8, put_i8;
    i16: get_i16, put_i16;
    i32: get_i32, put_i32;
    i64: get_i64, put_i64;
    u16: get_u16, put_u16;
    f64: get_f64, put_f64;
}

impl Wire for bool {
    fn read(r: &mut Reader, layout: Layout) -> Result<bool, DecodeError> {
        Ok(i8::read(r, layout)? != 0)
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        i8::from(*self).write(w, layout);
    }
}

impl Wire for Uuid {
    fn read(r: &mut Reader, _: Layout) -> Result<Uuid, DecodeError> {
        r.need(16)?;
        Ok(Uuid::from_u128(r.buf.get_u128()))
    }
    fn write(&self, w: &mut Writer, _: Layout) {
        w.tail.put_u128(self.as_u128());
    }
}

/// A byte says whether it is there.
impl<T: Structure> Wire for Option<T> {
    fn read(r: &mut Reader, layout: Layout) -> Result<Option<T>, DecodeError> {
        match i8::read(r, layout)? {
            0.. => Ok(Some(T::read(r, layout)?)),
            _ => Ok(None),
        }
    }

    fn write(&self, w: &mut Writer, layout: Layout) {
        match self {
            Some(structure) => {
                1_i8.write(w, layout);
                structure.write(w, layout);
            }
            None => (-1_i8).write(w, layout),
        }
    }
}

impl Wire for Option<Str> {
    fn read(r: &mut Reader, layout: Layout) -> Result<Option<Str>, DecodeError> {
        match r.length(layout, true)? {
            Some(len) => Ok(Some(Str::new(r.take(len)?)?)),
            None => Ok(None),
        }
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.text(self.as_ref(), layout);
    }
}

impl Wire for Str {
    fn read(r: &mut Reader, layout: Layout) -> Result<Str, DecodeError> {
        Option::<Str>::read(r, layout)?.ok_or(DecodeError::BadLength(-1))
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.text(Some(self), layout);
    }
}

impl Wire for Option<Bytes> {
    fn read(r: &mut Reader, layout: Layout) -> Result<Option<Bytes>, DecodeError> {
        match r.length(layout, false)? {
            Some(len) => Ok(Some(r.take(len)?)),
            None => Ok(None),
        }
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.length(layout, false, self.as_ref().map(Bytes::len));
        if let Some(bytes) = self {
            w.tail.put_slice(bytes);
        }
    }
}

impl Wire for Bytes {
    fn read(r: &mut Reader, layout: Layout) -> Result<Bytes, DecodeError> {
        Option::<Bytes>::read(r, layout)?.ok_or(DecodeError::BadLength(-1))
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.length(layout, false, Some(self.len()));
        w.tail.put_slice(self);
    }
}

impl Wire for Option<Records> {
    fn read(r: &mut Reader, layout: Layout) -> Result<Option<Records>, DecodeError> {
        Ok(Option::<Bytes>::read(r, layout)?.map(Records::from))
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.length(layout, false, self.as_ref().map(Records::len));
        for chunk in self.iter().flat_map(|records| &records.0) {
            w.shared(chunk);
        }
    }
}

impl<T: Wire> Wire for Option<Vec<T>> {
    fn read(r: &mut Reader, layout: Layout) -> Result<Option<Vec<T>>, DecodeError> {
        r.array(layout)
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.array(self.as_deref(), layout);
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn read(r: &mut Reader, layout: Layout) -> Result<Vec<T>, DecodeError> {
        r.array(layout)?.ok_or(DecodeError::BadLength(-1))
    }
    fn write(&self, w: &mut Writer, layout: Layout) {
        w.array(Some(self), layout);
    }
}

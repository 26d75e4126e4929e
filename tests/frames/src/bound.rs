//! How much memory the node may take for frames: what follows from their sizes, and what its configuration
//! and its formats allow for all of them.

use holdfast::kafka::KafkaConfig;
use holdfast::kafka::protocol::ApiKey;
use holdfast::kafka::protocol::wire::heap_limit;
use holdfast_storage::log::LogOptions;
use holdfast_storage::log::compression::DECOMPRESSED_BYTES_MAX;

use crate::compose::Frame;
use crate::door::{READS_MAX, REQUESTS_BYTES_MAX, RESPONSES_BYTES_MAX};
use crate::report::kind;

/// The codec allows the arrays of a frame four bytes of memory for each of its own, and a MiB
/// ([`heap_limit`]). What a handler makes of them, up to the encoded answer, takes so many times as much:
/// an element of a few bytes is answered with a structure, a sentence about it, and both once more as
/// bytes.
const PER_HEAP_BYTE: usize = 16;

/// What depends on no frame: the client beside, background work.
const FIXED: usize = 8 << 20;

/// A buffer that doubles while a batch is unpacked into it is there twice for a moment; zstd's window
/// comes on top.
const UNPACKING: usize = 4 * DECOMPRESSED_BYTES_MAX;

/// One frame that nothing else is sent beside.
pub fn alone(frame: &Frame) -> usize {
    let of_records = match kind(frame).0 {
        // A look at what is in a batch.
        Some(ApiKey::Produce | ApiKey::ListOffsets) => UNPACKING,
        // Read and received.
        Some(ApiKey::Fetch) => 2 * KafkaConfig::default().fetch_bytes_max,
        _ => 0,
    };
    plain(frame.bytes.len()) + FIXED + of_records
}

fn plain(bytes: usize) -> usize {
    heap_limit(bytes) * PER_HEAP_BYTE
}

/// Frames of one connection, handled one after the other, all of them held until then.
pub fn volley<'a>(frames: impl Iterator<Item = &'a Frame> + Clone) -> usize {
    let bytes = frames.map(|frame| frame.bytes.len());
    let largest = bytes.clone().max().unwrap_or_default();
    plain(largest) + bytes.sum::<usize>()
}

/// Many connections, which were promised so much together: the door bounds what their records take,
/// whoever sends them, and the log what it holds for all.
pub fn crowd(promised: usize) -> usize {
    let log = LogOptions::new("");
    let log = log.in_flight_bytes_max + log.memory_bytes as usize;
    let door = READS_MAX * UNPACKING + REQUESTS_BYTES_MAX + RESPONSES_BYTES_MAX;
    promised + door + log + FIXED
}

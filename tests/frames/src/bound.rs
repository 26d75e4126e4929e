//! How much memory frames may take: what the node allocates to answer them, and what this side does to
//! compose them and to judge the answers.

use holdfast::kafka::KafkaConfig;
use holdfast::kafka::protocol::ApiKey;
use holdfast_storage::log::LogOptions;
use holdfast_storage::log::compression::DECOMPRESSED_BYTES_MAX;

use crate::compose::Frame;
use crate::door::{READS_MAX, REQUESTS_BYTES_MAX, RESPONSES_BYTES_MAX};
use crate::report::kind;

/// For each byte of a frame: the codec itself allows arrays of one frame four bytes of memory for each of
/// its own; a handler makes an answer of them; both sides hold request and answer, encoded and decoded.
const PER_BYTE: usize = 32;

/// What does not depend on the frame: a list of all topics, the client beside, background work.
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
    frame.bytes.len() * PER_BYTE + FIXED + of_records
}

/// Frames of one connection, handled one after the other, all of them held until then.
pub fn volley<'a>(frames: impl Iterator<Item = &'a Frame> + Clone) -> usize {
    let bytes = frames.map(|frame| frame.bytes.len());
    let largest = bytes.clone().max().unwrap_or_default();
    largest * PER_BYTE + bytes.sum::<usize>() * 4 + (1 << 20)
}

/// Many connections, which were promised so much together: the door bounds what their records take,
/// whoever sends them, and the log what it holds for all.
pub fn crowd(promised: usize) -> usize {
    let log = LogOptions::new("");
    let log = log.in_flight_bytes_max + log.memory_bytes as usize;
    let door = READS_MAX * UNPACKING + REQUESTS_BYTES_MAX + RESPONSES_BYTES_MAX;
    promised + door + log + FIXED
}

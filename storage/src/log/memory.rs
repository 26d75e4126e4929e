//! One budget for what the log keeps in memory beside the submissions in flight.
//!
//! | share | what | at its bound |
//! |---|---|---|
//! | 1/4 | keys of one pass of compaction | more passes |
//! | 1/4 | batches, and values of internal partitions, that the index does not hold yet | the segment is sealed early; the sealer's backlog is bounded |
//! | 1/16 each | fjall's blocks, rows of the index, footer blocks | the least used go |
//! | 1/8 | idempotent producers | those that have not appended for longest are forgotten, as if expired |
//! | the rest | topics, partitions, committed offsets | not bounded here: topics are created, offsets expire |

/// Below this nothing works well.
pub const MEMORY_BYTES_MIN: u64 = 64 << 20;

/// Segments whose batches are in memory at most: the head, two that wait for the sealer, and its own.
const UNSEALED_SEGMENTS: u64 = 4;
/// One producer, with five batches and its place in the table.
const PRODUCER_BYTES: u64 = 256;

/// What a budget below the least one still gives, so that small logs of tests go through all of it.
const CACHE_BYTES_MIN: u64 = 64 << 10;
const HEAD_BYTES_MIN: u64 = 512 << 10;
const PRODUCERS_MIN: u64 = 1000;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct Memory(pub u64);

impl Memory {
    pub fn key_map_bytes(self) -> usize {
        usize::try_from(self.0 / 4).unwrap_or(usize::MAX)
    }

    /// Of each cache.
    pub fn cache_bytes(self) -> u64 {
        (self.0 / 16).max(CACHE_BYTES_MIN)
    }

    /// Batches of one segment, and its keys and values of internal partitions, together.
    pub fn head_bytes(self) -> usize {
        let bytes = (self.0 / 4 / UNSEALED_SEGMENTS).max(HEAD_BYTES_MIN);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Over all partitions.
    pub fn producers(self) -> usize {
        let producers = (self.0 / 8 / PRODUCER_BYTES).max(PRODUCERS_MIN);
        usize::try_from(producers).unwrap_or(usize::MAX)
    }
}

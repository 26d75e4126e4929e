//! What can go wrong in the wal, always with segment and position where there is one.

use std::io;
use std::sync::Arc;

use crate::segment::SegmentId;

/// Clone-able, because one failed group is answered to every caller in it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WalError {
    /// A group could not be written; it was rolled back whole and the wal goes on.
    #[error("write to segment {segment} at {position}: {source}")]
    Write {
        /// The head segment.
        segment: SegmentId,
        /// Where the group should have begun.
        position: u32,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No room for another segment; nothing was written.
    #[error("preallocating a segment of {bytes} bytes: {source}")]
    NoSpace {
        /// Size of the segment that was asked for.
        bytes: u64,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// An fdatasync, or the fsync of the directory that names a new segment, failed. What is on disk
    /// from here on is unknown, so this is final.
    #[error("fdatasync of segment {segment} failed and is not retried: {source}")]
    Poisoned {
        /// The segment whose fdatasync failed.
        segment: SegmentId,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A group larger than a segment can hold.
    #[error("a group of {bytes} bytes does not fit into a segment of {segment_bytes}")]
    TooLarge {
        /// Bytes of the group with its headers.
        bytes: u64,
        /// Configured size of a segment.
        segment_bytes: u32,
    },
    /// A file of a version this program does not know.
    #[error("segment {segment} has format version {found}; this program reads up to {known}")]
    NewerFormat {
        /// The segment.
        segment: SegmentId,
        /// Version in its header.
        found: u16,
        /// Newest version this program reads.
        known: u16,
    },
    /// A file operation outside the write path.
    #[error("{what} {name}: {source}")]
    File {
        /// What was tried.
        what: &'static str,
        /// File name inside the wal's directory.
        name: String,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Bytes that do not say what they should.
    #[error("segment {segment} at {position}: {reason}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where in it.
        position: u32,
        /// What is wrong there.
        reason: String,
    },
    /// The layer above wrote on where it had to wait for an fdatasync first.
    #[error("a group was written before those it depends on were durable")]
    Unsettled,
    /// The wal was closed.
    #[error("the wal is closed")]
    Closed,
}

impl WalError {
    pub(crate) fn file(what: &'static str, name: impl Into<String>, source: io::Error) -> WalError {
        WalError::File {
            what,
            name: name.into(),
            source: Arc::new(source),
        }
    }
}

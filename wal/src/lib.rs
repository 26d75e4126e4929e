//! `holdfast-wal`: a segmented write-ahead log with group commit.
//!
//! What it is: many callers hand in submissions, one writer thread closes them into *groups*, writes
//! a group with one vectored write and makes it durable with one fdatasync, then tells every caller.
//! Entries carry a stream number and opaque bytes; within a group the entries are laid out as the
//! layer above arranged them, one entry per contiguous run of a stream.
//!
//! What it is not: it knows nothing of topics, Kafka or MQTT, keeps no index of what lies in a
//! segment, and never deletes a sealed segment by itself.
//!
//! Modules, bottom up: [`disk`] (the [`disk::Disk`] trait with a real and a simulated
//! implementation), [`format`] (every byte on disk), [`segment`] (one file), [`writer`] (groups into
//! the head segment), [`recovery`] (what a crash left behind), [`relocation`] (what is still wanted of
//! old segments into a new one), [`commit`] (the thread and its queue).
#![deny(missing_docs)]

pub mod commit;
pub mod disk;
pub mod error;
pub mod format;
pub mod recovery;
pub mod relocation;
pub mod segment;
pub mod writer;

pub use commit::{GroupCommit, Sequencer, Submitter};
pub use error::WalError;
pub use recovery::{Damage, Recovered, recover};
pub use relocation::Relocation;
pub use segment::{Position, Segment, SegmentId};
pub use writer::{Group, Need, Placed, WalOptions, Writer};

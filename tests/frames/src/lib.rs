//! Hostile frames for the Kafka door: what composes them, and what throws them.
//!
//! | module | noun |
//! |---|---|
//! | `dice` | where every decision comes from: a seed and a frame's number |
//! | `table` | the node's own table of messages, read a second time to compose instead of to decode |
//! | `compose` | one frame: header, fields in every version, lengths that lie, damage |
//! | `values` | what fields are filled with, by their names |
//! | `names` | topics, groups, ids: a small pool, and what answers have told |
//! | `batches` | record batches, signed or not, packed, cut, and bombs |
//! | `heap` | what is allocated now, and the most that was |
//! | `bound` | how much that may be |
//! | `door` | a node's door over a log in a temporary directory |
//! | `sasl` | who signs in, and who does not |
//! | `victim` | a connection that sends frames and judges what comes back |
//! | `attack` | a run: frames alone and many at once, beside a client that must not notice |
//! | `beside` | that client |
//! | `kept` | frames that broke a promise, in files |
//! | `report` | what was thrown and what came of it |
//!
//! No part of the node: it knows the node from outside, but for the files of the message table, which
//! it includes by path, so that a new API or version is thrown at the door from the day it is served.

pub mod attack;
mod batches;
mod beside;
mod bound;
mod compose;
mod dice;
mod door;
pub mod heap;
pub mod kept;
mod names;
mod report;
mod sasl;
mod table;
mod values;
pub mod victim;

/// The table's files name their types by these paths.
mod kafka {
    pub(crate) mod protocol {
        pub(crate) use holdfast::kafka::protocol::wire;
    }
}

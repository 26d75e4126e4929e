//! Hostile frames for the Kafka door: what composes them, and what throws them.
//!
//! | module | noun |
//! |---|---|
//! | `dice` | where every decision comes from: a seed, or a fuzzer's bytes |
//! | `table` | the node's own table of messages, read a second time to compose instead of to decode |
//! | `compose` | one frame: header, fields in every version, lengths that lie, damage |
//! | `names` | topics, groups, ids: a small pool, and what answers have told |
//! | `batches` | record batches, signed or not, packed, cut, and bombs |
//! | `heap` | what is allocated now, and the most that was |
//! | `door` | a node's door over a log in a temporary directory |
//! | `sasl` | an exchange of who signs in, and does not |
//! | `victim` | a connection that sends frames and judges what comes back |
//! | `attack` | many of them at once, beside clients that must not notice |
//!
//! No part of the node: it knows the node from outside, but for the files of the message table, which
//! it includes by path, so that a new API or version is thrown at the door from the day it is served.

pub mod attack;
pub mod batches;
pub mod compose;
pub mod dice;
pub mod door;
pub mod heap;
pub mod names;
mod sasl;
mod table;
pub mod victim;

/// The table's files name their types by these paths.
mod kafka {
    pub(crate) mod protocol {
        pub(crate) use holdfast::kafka::protocol::wire;
    }
}

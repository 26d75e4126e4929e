//! The table of messages: every field of every API this door serves, with the versions it exists in.
//!
//! Names and order are those of Kafka's own message definitions, so that a line can be compared with
//! them at sight. Nothing here has behaviour.

mod admin;
mod broker;
mod cluster;
mod config;
mod features;
mod group;
mod log;
mod quota;
mod transaction;

pub use admin::*;
pub use broker::*;
pub use cluster::*;
pub use config::*;
pub use features::*;
pub use group::*;
pub use log::*;
pub use quota::*;
pub use transaction::*;

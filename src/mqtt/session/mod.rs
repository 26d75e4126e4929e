//! One client's session: a task that reads, has the log keep, acknowledges, and delivers.
//!
//! ```text
//! socket -> inbound (one burst) -> log.append_all -> pending (in order) -> PUBACKs -> socket
//!                                                        |
//!                                                        +-> fanout, once durable
//! fanout -> delivery queue -> outbound (packet ids, receive maximum) -> socket
//! ```
//! - A PUBACK leaves after the append that covers its record has resolved, in packet order. There
//!   is no negative PUBACK for a storage failure: it is withheld, the socket is no longer read,
//!   and the connection ends (MQTT 5: DISCONNECT 0x97), so that the device keeps its message.
//! - Everything a session holds has a limit (`MqttConfig`); at a limit it stops reading.
//! - A session ends with its connection; what it had submitted is still forwarded to live
//!   subscribers when it is durable.

mod end;
mod inbound;
mod outbound;
mod run;
mod subscribe;
mod timers;

pub(crate) use end::End;
pub(crate) use run::{Session, SessionStart};

//! Why sessions end, and what follows from it: what the client is told, what is counted and
//! logged, whether its will is due.

use std::io;

use holdfast_storage::log::AppendError;
use tracing::{debug, info, warn};

use crate::mqtt::frame::Fault;
use crate::mqtt::reason;
use crate::mqtt::stats::{MqttStats, add};

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said DISCONNECT.
    Disconnected {
        /// MQTT 5: it wants its will published all the same.
        with_will: bool,
    },
    /// The client closed the connection without DISCONNECT.
    Closed,
    Io(io::Error),
    KeepAlive,
    /// The client does not read what we send.
    Stalled,
    TakenOver,
    Shutdown,
    Fault(Fault),
    Storage(AppendError),
    /// The log topic of a route does not exist; it is made again.
    TopicMissing(String),
    /// A client of 3.1.1 published what it may not: its version has no other way to be told than an
    /// acknowledgement, which would be a lie, or this (3.3.5).
    Denied,
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::Fault(fault)
    }
}

impl End {
    /// Reason code of the DISCONNECT an MQTT 5 client gets.
    pub(super) fn goodbye(&self) -> Option<u8> {
        match self {
            End::Disconnected { .. } | End::Closed | End::Io(_) => None,
            End::KeepAlive => Some(reason::KEEP_ALIVE_TIMEOUT),
            End::Stalled => Some(reason::QUOTA_EXCEEDED),
            End::TakenOver => Some(reason::SESSION_TAKEN_OVER),
            End::Shutdown => Some(reason::SHUTTING_DOWN),
            End::Fault(fault) => Some(fault.reason),
            End::Storage(AppendError::TooLarge { .. }) => Some(reason::PACKET_TOO_LARGE),
            End::Storage(_) => Some(reason::QUOTA_EXCEEDED),
            End::TopicMissing(_) => Some(reason::SERVER_BUSY),
            End::Denied => Some(reason::NOT_AUTHORIZED),
        }
    }

    /// Whether the client's will is due. Not at shutdown: the node goes, not the client, and the
    /// standard leaves that case to the server.
    pub(crate) fn will_is_due(&self) -> bool {
        match self {
            End::Disconnected { with_will } => *with_will,
            End::Shutdown => false,
            _ => true,
        }
    }

    pub(super) fn note(&self, client: &str, stats: &MqttStats) {
        match self {
            End::Disconnected { .. } | End::Closed | End::Shutdown | End::Denied => {
                debug!(client, end = ?self, "client disconnected");
            }
            End::Io(error) => debug!(client, %error, "connection lost"),
            End::KeepAlive => {
                add(&stats.keep_alive_timeouts, 1);
                info!(
                    client,
                    "nothing was heard for one and a half keep-alives: connection closed"
                );
            }
            End::Stalled => {
                warn!(
                    client,
                    "client does not read what it is sent: connection closed"
                );
            }
            End::TakenOver => {
                add(&stats.taken_over, 1);
                info!(
                    client,
                    "the same client connected again: the older connection is closed"
                );
            }
            End::Fault(fault) => {
                add(&stats.malformed, 1);
                warn!(client, reason = %fault, "client broke the protocol: connection closed");
            }
            End::Storage(error) => {
                add(&stats.storage_failures, 1);
                warn!(client, %error, "the log refused a write: acknowledgement withheld, connection closed");
            }
            End::TopicMissing(topic) => {
                add(&stats.storage_failures, 1);
                warn!(
                    client,
                    topic, "the log topic of a route does not exist: connection closed"
                );
            }
        }
    }
}

//! Which connection speaks for which client identifier, and take-over (MQTT 3.1.1 3.1.4-2,
//! MQTT 5 3.1.4-3): the newest connection wins.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::message::ConnectionId;

#[derive(Debug)]
struct Holder {
    connection: ConnectionId,
    /// Authenticated client; `None` for an anonymous one.
    owner: Option<String>,
    taken_over: CancellationToken,
}

/// The connected clients. Bounded by `mqtt.connections_max`.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    clients: Mutex<HashMap<String, Holder>>,
}

/// The client identifier is in use by a client with other credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client identifier is in use by a client with other credentials")]
pub(crate) struct NotYours;

impl Registry {
    fn clients(&self) -> MutexGuard<'_, HashMap<String, Holder>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a connection and tells its predecessor to end. Only the same credentials may
    /// take over: otherwise any client could throw out any other.
    pub(crate) fn enter(
        &self,
        client: &str,
        owner: Option<&str>,
        connection: ConnectionId,
    ) -> Result<CancellationToken, NotYours> {
        let taken_over = CancellationToken::new();
        let holder = Holder {
            connection,
            owner: owner.map(str::to_owned),
            taken_over: taken_over.clone(),
        };
        match self.clients().entry(client.to_owned()) {
            Entry::Occupied(mut occupied) => {
                if occupied.get().owner.as_deref() != owner {
                    return Err(NotYours);
                }
                occupied.insert(holder).taken_over.cancel();
            }
            Entry::Vacant(vacant) => {
                vacant.insert(holder);
            }
        }
        Ok(taken_over)
    }

    /// Does nothing if another connection has taken over meanwhile.
    pub(crate) fn leave(&self, client: &str, connection: ConnectionId) {
        let mut clients = self.clients();
        if clients
            .get(client)
            .is_some_and(|holder| holder.connection == connection)
        {
            clients.remove(client);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    #[test]
    fn the_newest_connection_of_the_same_owner_wins() {
        let registry = Registry::default();
        let first = registry.enter("c", Some("a"), 1).unwrap();
        assert_eq!(registry.enter("c", Some("b"), 2).unwrap_err(), NotYours);
        assert_eq!(registry.enter("c", None, 2).unwrap_err(), NotYours);
        assert!(!first.is_cancelled());
        let second = registry.enter("c", Some("a"), 3).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        registry.leave("c", 1);
        assert_eq!(registry.enter("c", None, 4).unwrap_err(), NotYours);
        registry.leave("c", 3);
        assert!(registry.enter("c", None, 5).is_ok());
    }
}

//! One member of a group and what it waits for.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::config::REBALANCE_TIMEOUT_MAX;
use super::{GroupError, JoinRequest, JoinResponse, JoinedMember, Protocol, SyncResponse};

pub(super) type JoinWaiter = oneshot::Sender<Result<JoinResponse, GroupError>>;
pub(super) type SyncWaiter = oneshot::Sender<Result<SyncResponse, GroupError>>;

pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// Present from the member's JoinGroup until its generation begins.
    join_waiter: Option<JoinWaiter>,
    /// Present from the member's SyncGroup until the leader's assignment is there.
    sync_waiter: Option<SyncWaiter>,
    /// Has sent SyncGroup in this generation.
    pub(super) synced: bool,
    /// Has never been part of a generation.
    pub(super) is_new: bool,
    /// End of the session, unless it waits for us.
    pub(super) expires_at: Instant,
}

impl Member {
    pub(super) fn new(id: String, request: JoinRequest, now: Instant) -> Member {
        let mut member = Member {
            id,
            instance_id: request.group_instance_id.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout: Duration::ZERO,
            rebalance_timeout: Duration::ZERO,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            join_waiter: None,
            sync_waiter: None,
            synced: false,
            is_new: true,
            expires_at: now,
        };
        member.update(request, now);
        member
    }

    /// Takes over what a JoinGroup says about the client, and begins its session anew.
    pub(super) fn update(&mut self, request: JoinRequest, now: Instant) {
        self.client_id = request.client_id;
        self.client_host = request.client_host;
        self.session_timeout = request.session_timeout;
        self.rebalance_timeout = request.rebalance_timeout.min(REBALANCE_TIMEOUT_MAX);
        // A slice would keep the whole request frame in memory for as long as the member lives.
        self.protocols = request
            .protocols
            .into_iter()
            .map(|p| Protocol {
                name: p.name,
                metadata: Bytes::copy_from_slice(&p.metadata),
            })
            .collect();
        self.renew_session(now);
    }

    pub(super) fn renew_session(&mut self, now: Instant) {
        self.expires_at = now + self.session_timeout;
    }

    /// Whoever waited before has lost its connection or sent the request twice; it may join again.
    pub(super) fn await_join(&mut self, waiter: JoinWaiter) {
        if let Some(old) = self.join_waiter.replace(waiter) {
            answer(old, Err(GroupError::RebalanceInProgress));
        }
    }

    pub(super) fn await_sync(&mut self, waiter: SyncWaiter) {
        self.synced = true;
        if let Some(old) = self.sync_waiter.replace(waiter) {
            answer(old, Err(GroupError::RebalanceInProgress));
        }
    }

    pub(super) fn has_joined(&self) -> bool {
        self.join_waiter.is_some()
    }

    /// Has joined, and its client still waits for the answer.
    pub(super) fn has_live_join(&self) -> bool {
        self.join_waiter.as_ref().is_some_and(|w| !w.is_closed())
    }

    /// The session of a client that waits for us does not end.
    pub(super) fn waits(&self) -> bool {
        self.has_live_join() || self.sync_waiter.as_ref().is_some_and(|w| !w.is_closed())
    }

    pub(super) fn answer_join(&mut self, result: Result<JoinResponse, GroupError>) {
        if let Some(waiter) = self.join_waiter.take() {
            answer(waiter, result);
        }
    }

    /// The session of a client that waited begins when it has its answer.
    pub(super) fn answer_sync(&mut self, now: Instant, result: Result<SyncResponse, GroupError>) {
        if let Some(waiter) = self.sync_waiter.take() {
            self.renew_session(now);
            answer(waiter, result);
        }
    }

    pub(super) fn dismiss(&mut self, error: &GroupError) {
        self.answer_join(Err(error.clone()));
        if let Some(waiter) = self.sync_waiter.take() {
            answer(waiter, Err(error.clone()));
        }
    }

    pub(super) fn supports(&self, protocol_name: &str) -> bool {
        self.protocols.iter().any(|p| p.name == protocol_name)
    }

    pub(super) fn metadata(&self, protocol_name: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|p| p.name == protocol_name)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn as_seen_by_leader(&self, protocol_name: &str) -> JoinedMember {
        JoinedMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            metadata: self.metadata(protocol_name),
        }
    }
}

/// A client that has gone needs no answer.
pub(super) fn answer<T>(waiter: oneshot::Sender<T>, value: T) {
    drop(waiter.send(value));
}

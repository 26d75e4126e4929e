//! The classic consumer-group coordinator: who is in a group, which generation it is in, who gets
//! which partitions, and how far each group has read.
//!
//! It owns group membership and decides who may commit offsets; the offsets themselves
//! are the log's and durable before a commit is answered. It knows neither sockets nor wire formats:
//! the Kafka door translates. It follows Kafka's JoinGroup 0-9, SyncGroup 0-5, Heartbeat 0-4,
//! LeaveGroup 0-5, OffsetCommit 2-10 and OffsetFetch 1-10 for groups of the classic protocol.
//!
//! A stable generation outlives the process ([`saved`]): after a restart its members go on where they are,
//! if they say so within a session's time. Whoever is not in it gets UNKNOWN_MEMBER_ID, joins anew and
//! resumes from the committed offsets; member ids are never reused.
//!
//! Each group is a state machine behind its own mutex, held only while it makes one step and never
//! across an await; time comes in as an argument. A group with something to wait for has one task
//! that steps it at its next deadline.
//!
//! Limits: [`GroupsConfig`]. Committed offsets expire, but only in groups without members.

mod config;
mod error;
mod group;
mod joining;
mod member;
mod offsets;
mod registry;
mod saved;
#[cfg(test)]
mod simulation;
mod syncing;
#[cfg(test)]
mod tests;
mod timers;
mod types;

use std::sync::Arc;

use holdfast_storage::log::{Log, TopicId};
use tokio::sync::oneshot;

pub use config::{
    GROUP_ID_BYTES_MAX, GroupsConfig, MEMBER_ID_HEAD_BYTES_MAX, PROTOCOLS_MAX,
    REBALANCE_TIMEOUT_MAX,
};
pub use error::GroupError;
pub use types::{
    CommitOutcome, CommitRequest, FetchRequest, FetchedOffset, GroupDescription, GroupState,
    GroupSummary, HeartbeatRequest, JoinRequest, JoinResponse, JoinedMember, LeaveOutcome,
    LeaveRequest, LeavingMember, MemberDescription, OffsetToCommit, Protocol, SyncRequest,
    SyncResponse, WithinTransaction,
};

use offsets::OffsetStore;
use registry::Registry;

/// Milliseconds since the Unix epoch; stamps committed offsets.
pub type WallClock = fn() -> i64;

/// Handle on the coordinator; clones share it. Needs a tokio runtime with time enabled.
#[derive(Clone)]
pub struct Coordinator {
    registry: Arc<Registry>,
    offsets: Arc<dyn OffsetStore>,
    wall_clock: WallClock,
}

impl Coordinator {
    /// A coordinator without groups over the log's committed offsets.
    pub fn new(log: Log, config: GroupsConfig, wall_clock: WallClock) -> Coordinator {
        Coordinator::with_store(Arc::new(log), config, wall_clock)
    }

    fn with_store(
        offsets: Arc<dyn OffsetStore>,
        config: GroupsConfig,
        wall_clock: WallClock,
    ) -> Coordinator {
        let registry = Registry::new(config);
        registry.restore(offsets.saved_groups());
        Coordinator {
            registry: Arc::new(registry),
            offsets,
            wall_clock,
        }
    }

    /// Waits until the generation begins (first rebalance: about `initial_rebalance_delay_ms`; later
    /// ones: until every member has come back, at most the largest rebalance time-out in the group).
    /// Drop the future when the connection ends: the member then lives until its session times out.
    pub async fn join(&self, request: JoinRequest) -> Result<JoinResponse, GroupError> {
        let (waiter, answer) = oneshot::channel();
        self.registry.join(request, waiter);
        answer
            .await
            .unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }

    /// Waits until the leader has handed in the assignment of this generation.
    pub async fn sync(&self, request: SyncRequest) -> Result<SyncResponse, GroupError> {
        let (waiter, answer) = oneshot::channel();
        self.registry.sync(request, waiter);
        answer
            .await
            .unwrap_or(Err(GroupError::CoordinatorNotAvailable))
    }

    /// Keeps a member's session alive; REBALANCE_IN_PROGRESS tells it to join again.
    pub fn heartbeat(&self, request: &HeartbeatRequest) -> Result<(), GroupError> {
        self.registry.heartbeat(request)
    }

    /// Outcomes are in the order of the request. The outer error concerns the whole request.
    pub fn leave(&self, request: &LeaveRequest) -> Result<Vec<LeaveOutcome>, GroupError> {
        self.registry.leave(request)
    }

    /// Durable when it returns `Ok`; the outer error concerns every partition of the request. Goes on
    /// if the future is dropped after it was first polled.
    pub async fn commit_offsets(
        &self,
        request: CommitRequest,
    ) -> Result<Vec<CommitOutcome>, GroupError> {
        offsets::commit(
            &self.registry,
            self.offsets.as_ref(),
            (self.wall_clock)(),
            request,
        )
        .await
    }

    /// Committed offsets; a group or partition without one is no error.
    pub fn fetch_offsets(&self, request: &FetchRequest) -> Vec<FetchedOffset> {
        offsets::fetch(self.offsets.as_ref(), request)
    }

    /// `None` for a group that has neither members nor offsets (DescribeGroups: `Dead` before
    /// version 6, GROUP_ID_NOT_FOUND from then on).
    pub fn describe(&self, group_id: &str) -> Option<GroupDescription> {
        self.registry
            .describe(group_id)
            .or_else(|| offsets::describe(self.offsets.as_ref(), group_id))
    }

    /// Every group that has members or committed offsets, by id.
    pub fn list(&self) -> Vec<GroupSummary> {
        offsets::list(&self.registry, self.offsets.as_ref())
    }

    /// Removes a group that nobody is in, with its offsets; durable when it returns.
    pub async fn delete(&self, group_id: &str) -> Result<(), GroupError> {
        let deleted = offsets::delete_group(&self.registry, self.offsets.as_ref(), group_id).await;
        if deleted.is_ok() {
            tracing::info!(group = group_id, "group deleted");
        }
        deleted
    }

    /// Removes what a group has committed in these partitions; durable when it returns.
    pub async fn delete_offsets(
        &self,
        group_id: &str,
        partitions: &[(TopicId, i32)],
    ) -> Result<(), GroupError> {
        offsets::delete(self.offsets.as_ref(), group_id, partitions).await
    }

    /// Removes offsets that have expired, except those of `held` groups; to be called every so often.
    pub async fn expire_offsets(&self, held: &[&str]) {
        let now_ms = (self.wall_clock)();
        let expired = offsets::expire(&self.registry, self.offsets.as_ref(), now_ms, held).await;
        if let Err(error) = expired {
            tracing::error!(%error, "expired offsets cannot be removed; it is tried again");
        }
    }

    /// Writes the states of groups whenever they change; ends, with nothing left to write, when `stop`
    /// resolves.
    pub async fn keep_groups(&self, stop: impl Future<Output = ()>) {
        let keeper = self.registry.keeper();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = keeper.changed() => keeper.save(self.offsets.as_ref()).await,
                () = &mut stop => break,
            }
        }
        keeper.save(self.offsets.as_ref()).await;
    }

    /// Ends every group: whoever waits is answered COORDINATOR_NOT_AVAILABLE, and so is every later
    /// request. Committed offsets stay readable.
    pub fn shut_down(&self) {
        self.registry.shut_down();
    }
}

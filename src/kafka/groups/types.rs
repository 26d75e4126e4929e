//! Requests and responses of the coordinator, free of wire formats.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::{CommittedOffset, ProducerIdentity, TopicId};

/// An embedded protocol (an assignor's name) and the member's metadata for it (its subscription).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// JoinGroup.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub group_id: String,
    /// Empty for a newcomer.
    pub member_id: String,
    /// Static membership (KIP-345).
    pub group_instance_id: Option<String>,
    pub client_id: String,
    /// Address of the client as DescribeGroups shows it.
    pub client_host: String,
    pub session_timeout: Duration,
    /// Version 0 has none: hand in the session time-out.
    pub rebalance_timeout: Duration,
    /// `consumer`, `connect`, ...
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// A newcomer must come back with the id it is given (KIP-394): version 4 and later.
    pub requires_member_id: bool,
    /// The client understands `skip_assignment` (KIP-814): version 9 and later.
    pub supports_skip_assignment: bool,
}

/// What a JoinGroup answers when its generation begins. On an error the door answers generation -1,
/// no protocol, an empty leader and the member id of the request (or of [`super::GroupError::MemberIdRequired`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinResponse {
    pub generation_id: i32,
    pub protocol_type: String,
    pub protocol_name: String,
    pub leader_id: String,
    pub member_id: String,
    /// Every member with its metadata for the chosen protocol, for the leader alone; else empty.
    pub members: Vec<JoinedMember>,
    /// The leader must not compute an assignment: the current one stands (version 9 and later).
    pub skip_assignment: bool,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub metadata: Bytes,
}

/// SyncGroup.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    pub group_id: String,
    pub generation_id: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
    /// Version 5 and later; checked where given.
    pub protocol_type: Option<String>,
    /// Version 5 and later; checked where given.
    pub protocol_name: Option<String>,
    /// (member id, assignment); only the leader's count.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's share, exactly as the leader gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncResponse {
    pub protocol_type: String,
    pub protocol_name: String,
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Debug, Clone)]
pub struct HeartbeatRequest {
    pub group_id: String,
    pub generation_id: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// LeaveGroup; versions 0 to 2 name one member, without an instance id.
#[derive(Debug, Clone)]
pub struct LeaveRequest {
    pub group_id: String,
    pub members: Vec<LeavingMember>,
}

/// One member to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    /// May be empty where the instance id names the member (administrators do so).
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// What became of one leaving member. Versions 0 to 2 put the only one's error at the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveOutcome {
    pub member: LeavingMember,
    pub result: Result<(), super::GroupError>,
}

/// OffsetCommit, with topic names resolved to ids by the door.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    pub group_id: String,
    /// -1 with an empty member id for consumers that do not use group membership.
    pub generation_id: i32,
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub offsets: Vec<OffsetToCommit>,
    /// Set if they are to be committed with a transaction (TxnOffsetCommit).
    pub within: Option<WithinTransaction>,
}

/// The transaction that offsets are committed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithinTransaction {
    pub transactional_id: String,
    pub producer: ProducerIdentity,
    /// They become part of it by being sent (KIP-890).
    pub adds: bool,
}

/// One partition of an OffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    pub topic: TopicId,
    pub partition: i32,
    pub offset: i64,
    /// -1 where the client gave none.
    pub leader_epoch: i32,
    /// Empty where the client gave none.
    pub metadata: String,
}

/// What became of one partition of a commit; in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitOutcome {
    pub topic: TopicId,
    pub partition: i32,
    /// `Ok` is durable.
    pub result: Result<(), super::GroupError>,
}

/// OffsetFetch of one group.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    pub group_id: String,
    /// `None` asks for every committed offset.
    pub partitions: Option<Vec<(TopicId, i32)>>,
    /// Offsets that a transaction is about to commit are not answered with what was before (KIP-447).
    pub require_stable: bool,
}

/// One partition of an OffsetFetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    pub topic: TopicId,
    pub partition: i32,
    /// `None`: offset -1, leader epoch -1, empty metadata on the wire, without an error.
    pub committed: Option<CommittedOffset>,
    /// A transaction that is not over is to commit another one, and only stable ones were asked for.
    pub is_unstable: bool,
}

/// State of a group, named as Kafka's administrators see it (`Display`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; may have committed offsets.
    Empty,
    /// Members gather for the next generation.
    PreparingRebalance,
    /// The generation has begun and waits for the leader's assignment.
    CompletingRebalance,
    /// Every member has, or can fetch, its assignment.
    Stable,
    /// Removed; whoever still holds it is told to look again.
    Dead,
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        })
    }
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSummary {
    pub group_id: String,
    /// Empty for groups that only commit offsets.
    pub protocol_type: String,
    pub state: GroupState,
}

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    pub group_id: String,
    pub state: GroupState,
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol_name: String,
    pub generation_id: i32,
    pub leader_id: Option<String>,
    pub members: Vec<MemberDescription>,
}

/// A member as DescribeGroups shows it; metadata and assignment are empty unless the group is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

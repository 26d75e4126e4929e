//! Classic consumer groups and their committed offsets.

use bytes::Bytes;
use uuid::Uuid;

use crate::kafka::protocol::wire::Str;

messages! {
    JoinGroupRequest {
        group_id: Str => 0..;
        session_timeout_ms: i32 => 0..;
        rebalance_timeout_ms: i32 => 1.., default -1;
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 5..;
        protocol_type: Str => 0..;
        protocols: Vec<JoinGroupRequestProtocol> => 0..;
        reason: Option<Str> => 8..;
    }

    JoinGroupRequestProtocol {
        name: Str => 0..;
        metadata: Bytes => 0..;
    }

    JoinGroupResponse {
        throttle_time_ms: i32 => 2..;
        error_code: i16 => 0..;
        generation_id: i32 => 0.., default -1;
        protocol_type: Option<Str> => 7..;
        protocol_name: Option<Str> => 0.., null 7.., default Some(Str::default());
        leader: Str => 0..;
        skip_assignment: bool => 9..;
        member_id: Str => 0..;
        members: Vec<JoinGroupResponseMember> => 0..;
    }

    JoinGroupResponseMember {
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 5..;
        metadata: Bytes => 0..;
    }

    SyncGroupRequest {
        group_id: Str => 0..;
        generation_id: i32 => 0..;
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 3..;
        protocol_type: Option<Str> => 5..;
        protocol_name: Option<Str> => 5..;
        assignments: Vec<SyncGroupRequestAssignment> => 0..;
    }

    SyncGroupRequestAssignment {
        member_id: Str => 0..;
        assignment: Bytes => 0..;
    }

    SyncGroupResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 0..;
        protocol_type: Option<Str> => 5..;
        protocol_name: Option<Str> => 5..;
        assignment: Bytes => 0..;
    }

    HeartbeatRequest {
        group_id: Str => 0..;
        generation_id: i32 => 0..;
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 3..;
    }

    HeartbeatResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 0..;
    }

    LeaveGroupRequest {
        group_id: Str => 0..;
        member_id: Str => 0..=2;
        members: Vec<MemberIdentity> => 3..;
    }

    MemberIdentity {
        member_id: Str => 3..;
        group_instance_id: Option<Str> => 3..;
        reason: Option<Str> => 5..;
    }

    LeaveGroupResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 0..;
        members: Vec<MemberResponse> => 3..;
    }

    MemberResponse {
        member_id: Str => 3..;
        group_instance_id: Option<Str> => 3.., default Some(Str::default());
        error_code: i16 => 3..;
    }

    OffsetCommitRequest {
        group_id: Str => 2..;
        generation_id_or_member_epoch: i32 => 2.., default -1;
        member_id: Str => 2..;
        group_instance_id: Option<Str> => 7..;
        retention_time_ms: i64 => 2..=4, default -1;
        topics: Vec<OffsetCommitRequestTopic> => 2..;
    }

    OffsetCommitRequestTopic {
        name: Str => 2..=9;
        topic_id: Uuid => 10..;
        partitions: Vec<OffsetCommitRequestPartition> => 2..;
    }

    OffsetCommitRequestPartition {
        partition_index: i32 => 2..;
        committed_offset: i64 => 2..;
        committed_leader_epoch: i32 => 6.., default -1;
        committed_metadata: Option<Str> => 2.., default Some(Str::default());
    }

    OffsetCommitResponse {
        throttle_time_ms: i32 => 3..;
        topics: Vec<OffsetCommitResponseTopic> => 2..;
    }

    OffsetCommitResponseTopic {
        name: Str => 2..=9;
        topic_id: Uuid => 10..;
        partitions: Vec<OffsetCommitResponsePartition> => 2..;
    }

    OffsetCommitResponsePartition {
        partition_index: i32 => 2..;
        error_code: i16 => 2..;
    }

    OffsetFetchRequest {
        group_id: Str => 1..=7;
        /// Null asks for every partition the group has committed.
        topics: Option<Vec<OffsetFetchRequestTopic>> => 1..=7, null 2.., default Some(Vec::new());
        groups: Vec<OffsetFetchRequestGroup> => 8..;
        require_stable: bool => 7..;
    }

    OffsetFetchRequestTopic {
        name: Str => 1..=7;
        partition_indexes: Vec<i32> => 1..=7;
    }

    OffsetFetchRequestGroup {
        group_id: Str => 8..;
        member_id: Option<Str> => 9..;
        member_epoch: i32 => 9.., default -1;
        topics: Option<Vec<OffsetFetchRequestTopics>> => 8.., default Some(Vec::new());
    }

    OffsetFetchRequestTopics {
        name: Str => 8..=9;
        topic_id: Uuid => 10..;
        partition_indexes: Vec<i32> => 8..;
    }

    OffsetFetchResponse {
        throttle_time_ms: i32 => 3..;
        topics: Vec<OffsetFetchResponseTopic> => 1..=7;
        error_code: i16 => 2..=7;
        groups: Vec<OffsetFetchResponseGroup> => 8..;
    }

    OffsetFetchResponseTopic {
        name: Str => 1..=7;
        partitions: Vec<OffsetFetchResponsePartition> => 1..=7;
    }

    /// The same in both places it is used; version 8 only moved it below a group.
    OffsetFetchResponsePartition {
        partition_index: i32 => 1..;
        committed_offset: i64 => 1..;
        committed_leader_epoch: i32 => 5.., default -1;
        metadata: Option<Str> => 1.., default Some(Str::default());
        error_code: i16 => 1..;
    }

    OffsetFetchResponseGroup {
        group_id: Str => 8..;
        topics: Vec<OffsetFetchResponseTopics> => 8..;
        error_code: i16 => 8..;
    }

    OffsetFetchResponseTopics {
        name: Str => 8..=9;
        topic_id: Uuid => 10..;
        partitions: Vec<OffsetFetchResponsePartition> => 8..;
    }

    DescribeGroupsRequest {
        groups: Vec<Str> => 0..;
        include_authorized_operations: bool => 3..;
    }

    DescribeGroupsResponse {
        throttle_time_ms: i32 => 1..;
        groups: Vec<DescribedGroup> => 0..;
    }

    DescribedGroup {
        error_code: i16 => 0..;
        error_message: Option<Str> => 6.., default None;
        group_id: Str => 0..;
        group_state: Str => 0..;
        protocol_type: Str => 0..;
        protocol_data: Str => 0..;
        members: Vec<DescribedGroupMember> => 0..;
        authorized_operations: i32 => 3.., default i32::MIN;
    }

    DescribedGroupMember {
        member_id: Str => 0..;
        group_instance_id: Option<Str> => 4.., default None;
        client_id: Str => 0..;
        client_host: Str => 0..;
        member_metadata: Bytes => 0..;
        member_assignment: Bytes => 0..;
    }

    ListGroupsRequest {
        /// Empty: every state (KIP-518).
        states_filter: Vec<Str> => 4..;
        /// Empty: every type (KIP-848).
        types_filter: Vec<Str> => 5..;
    }

    ListGroupsResponse {
        throttle_time_ms: i32 => 1..;
        error_code: i16 => 0..;
        groups: Vec<ListedGroup> => 0..;
    }

    ListedGroup {
        group_id: Str => 0..;
        protocol_type: Str => 0..;
        group_state: Str => 4..;
        group_type: Str => 5..;
    }

    DeleteGroupsRequest {
        groups_names: Vec<Str> => 0..;
    }

    DeleteGroupsResponse {
        throttle_time_ms: i32 => 0..;
        results: Vec<DeletableGroupResult> => 0..;
    }

    DeletableGroupResult {
        group_id: Str => 0..;
        error_code: i16 => 0..;
    }

    OffsetDeleteRequest {
        group_id: Str => 0..;
        topics: Vec<OffsetDeleteRequestTopic> => 0..;
    }

    OffsetDeleteRequestTopic {
        name: Str => 0..;
        partitions: Vec<OffsetDeleteRequestPartition> => 0..;
    }

    OffsetDeleteRequestPartition {
        partition_index: i32 => 0..;
    }

    OffsetDeleteResponse {
        error_code: i16 => 0..;
        throttle_time_ms: i32 => 0..;
        topics: Vec<OffsetDeleteResponseTopic> => 0..;
    }

    OffsetDeleteResponseTopic {
        name: Str => 0..;
        partitions: Vec<OffsetDeleteResponsePartition> => 0..;
    }

    OffsetDeleteResponsePartition {
        partition_index: i32 => 0..;
        error_code: i16 => 0..;
    }
}

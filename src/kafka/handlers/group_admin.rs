//! Groups as administrators see them: DescribeGroups, ListGroups, DeleteGroups, OffsetDelete.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use holdfast_storage::log::TopicId;

use super::super::broker::Broker;
use super::super::groups::{GroupDescription, GroupState, GroupSummary, MemberDescription};
use super::super::protocol::messages::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember, ListGroupsRequest,
    ListGroupsResponse, ListedGroup, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use super::super::protocol::{ErrorCode, Str};
use super::metadata::bits;

/// An unknown group is an error from here on (KIP-1043); before, it is one without members.
const NOT_FOUND_SINCE_VERSION: i16 = 6;

/// Until there are access rules everybody may do everything Kafka lists for a group (KIP-430).
const GROUP_OPERATIONS: i32 = bits(&[3, 6, 8, 10, 11]);

/// The only type of group here (KIP-848 knows others).
const CLASSIC: &str = "classic";

/// Protocol type of groups of consumers, whose members say which topics they read.
const CONSUMER: &str = "consumer";

pub(super) fn describe_groups(
    broker: &Broker,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let mut named = HashSet::new();
    // Once each: a short request must not ask for a long answer many times over.
    let asked = request.groups.into_iter();
    let asked = asked.filter(|group_id| named.insert(group_id.as_str().to_owned()));
    let groups = asked.map(|group_id| {
        let mut group = match broker.groups.describe(group_id.as_str()) {
            Some(found) => describe(found),
            None if version < NOT_FOUND_SINCE_VERSION => nobody(group_id),
            None => DescribedGroup {
                error_code: ErrorCode::GroupIdNotFound.code(),
                error_message: Some(format!("Group {group_id} not found.").into()),
                ..nobody(group_id)
            },
        };
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = GROUP_OPERATIONS;
        }
        group
    });
    DescribeGroupsResponse {
        groups: groups.collect(),
        ..Default::default()
    }
}

fn nobody(group_id: Str) -> DescribedGroup {
    DescribedGroup {
        group_id,
        group_state: GroupState::Dead.to_string().into(),
        ..Default::default()
    }
}

fn describe(group: GroupDescription) -> DescribedGroup {
    let member = |member: MemberDescription| DescribedGroupMember {
        member_id: member.member_id.into(),
        group_instance_id: member.group_instance_id.map(Str::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
    };
    DescribedGroup {
        group_id: group.group_id.into(),
        group_state: group.state.to_string().into(),
        protocol_type: group.protocol_type.into(),
        protocol_data: group.protocol_name.into(),
        members: group.members.into_iter().map(member).collect(),
        ..Default::default()
    }
}

pub(super) fn list_groups(broker: &Broker, request: &ListGroupsRequest) -> ListGroupsResponse {
    let named = |filter: &[Str], value: &str| {
        filter.is_empty()
            || filter
                .iter()
                .any(|f| f.as_str().eq_ignore_ascii_case(value))
    };
    let wanted = |group: &GroupSummary| {
        named(&request.states_filter, &group.state.to_string())
            && named(&request.types_filter, CLASSIC)
    };
    let listed = |group: GroupSummary| ListedGroup {
        group_id: group.group_id.into(),
        protocol_type: group.protocol_type.into(),
        group_state: group.state.to_string().into(),
        group_type: CLASSIC.into(),
    };
    let groups = broker.groups.list().into_iter().filter(wanted);
    ListGroupsResponse {
        groups: groups.map(listed).collect(),
        ..Default::default()
    }
}

pub(super) async fn delete_groups(
    broker: &Arc<Broker>,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        let deleted = broker.groups.delete(group_id.as_str()).await;
        results.push(DeletableGroupResult {
            group_id,
            error_code: deleted.map_or_else(|error| error.code(), |()| 0),
        });
    }
    DeleteGroupsResponse {
        results,
        ..Default::default()
    }
}

pub(super) async fn delete_offsets(
    broker: &Arc<Broker>,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let refused = |error: ErrorCode| OffsetDeleteResponse {
        error_code: error.code(),
        ..Default::default()
    };
    if request.group_id.is_empty() {
        return refused(ErrorCode::InvalidGroupId);
    }
    let Some(group) = broker.groups.describe(request.group_id.as_str()) else {
        return refused(ErrorCode::GroupIdNotFound);
    };
    let is_empty = matches!(group.state, GroupState::Empty | GroupState::Dead);
    if !is_empty && group.protocol_type != CONSUMER {
        return refused(ErrorCode::NonEmptyGroup);
    }
    let mut partitions: Vec<(TopicId, i32)> = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        let topic = broker.log.topic(wanted.name.as_str());
        let is_read = !is_empty && reads(&group, wanted.name.as_str());
        let judge = |partition_index: i32| {
            let found = topic
                .as_ref()
                .filter(|t| t.partition(partition_index).is_some());
            let error = match found {
                None => ErrorCode::UnknownTopicOrPartition,
                Some(_) if is_read => ErrorCode::GroupSubscribedToTopic,
                Some(topic) => {
                    partitions.push((topic.id(), partition_index));
                    ErrorCode::None
                }
            };
            OffsetDeleteResponsePartition {
                partition_index,
                error_code: error.code(),
            }
        };
        let indexes = wanted.partitions.iter().map(|p| p.partition_index);
        topics.push(OffsetDeleteResponseTopic {
            partitions: indexes.map(judge).collect(),
            name: wanted.name,
        });
    }
    match broker
        .groups
        .delete_offsets(&group.group_id, &partitions)
        .await
    {
        Ok(()) => OffsetDeleteResponse {
            topics,
            ..Default::default()
        },
        Err(error) => OffsetDeleteResponse {
            error_code: error.code(),
            ..Default::default()
        },
    }
}

/// Whether a member says that it reads the topic. A group between two generations may read anything.
fn reads(group: &GroupDescription, topic: &str) -> bool {
    group.state != GroupState::Stable
        || group.members.iter().any(|member| {
            let topics = subscribed_topics(member.metadata.clone());
            topics.is_none_or(|topics| topics.iter().any(|t| t.as_ref() == topic.as_bytes()))
        })
}

/// The topics of a consumer's subscription: its first field, in every version.
fn subscribed_topics(mut metadata: Bytes) -> Option<Vec<Bytes>> {
    let _version = metadata.try_get_i16().ok()?;
    let count = metadata.try_get_i32().ok()?;
    let mut topics = Vec::new();
    for _ in 0..count {
        let length = usize::try_from(metadata.try_get_i16().ok()?).ok()?;
        if metadata.len() < length {
            return None;
        }
        topics.push(metadata.split_to(length));
    }
    Some(topics)
}

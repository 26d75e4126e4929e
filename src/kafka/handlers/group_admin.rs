//! Groups as administrators see them: DescribeGroups, ListGroups, DeleteGroups, OffsetDelete.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use holdfast_storage::log::TopicId;
use tokio::task::consume_budget;

use super::super::access::{Operation, sentence};
use super::super::broker::{Asker, Broker, TopicRef};
use super::super::groups::{GroupDescription, GroupState, GroupSummary, MemberDescription};
use super::super::protocol::messages::{
    DeletableGroupResult, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember, ListGroupsRequest,
    ListGroupsResponse, ListedGroup, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use super::super::protocol::{ErrorCode, Str};
use crate::auth::Resource;

/// An unknown group is an error from here on (KIP-1043); before, it is one without members.
const NOT_FOUND_SINCE_VERSION: i16 = 6;

/// The only type of group here (KIP-848 knows others).
const CLASSIC: &str = "classic";

/// Protocol type of groups of consumers, whose members say which topics they read.
const CONSUMER: &str = "consumer";

pub(super) fn describe_groups(
    broker: &Broker,
    asker: &Asker,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let (access, version) = (broker.access(asker), asker.version);
    let mut named = HashSet::new();
    // Once each: a short request must not ask for a long answer many times over.
    let asked = request.groups.into_iter();
    let asked = asked.filter(|group_id| named.insert(group_id.as_str().to_owned()));
    let groups = asked.map(|group_id| {
        if let Err(error) = access.to_group(Operation::Describe, group_id.as_str()) {
            return DescribedGroup {
                error_code: error.code(),
                error_message: Some(sentence(error).into()),
                group_id,
                ..Default::default()
            };
        }
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
            let resource = Resource::group(group.group_id.as_str());
            group.authorized_operations = access.operations(resource);
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

pub(super) fn list_groups(
    broker: &Broker,
    asker: &Asker,
    request: &ListGroupsRequest,
) -> ListGroupsResponse {
    let access = broker.access(asker);
    let sees_all = access.to_cluster(Operation::Describe).is_ok();
    let is_shown = |group: &GroupSummary| {
        sees_all
            || access
                .to_group(Operation::Describe, &group.group_id)
                .is_ok()
    };
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
    let groups = groups.filter(is_shown);
    ListGroupsResponse {
        groups: groups.map(listed).collect(),
        ..Default::default()
    }
}

pub(super) async fn delete_groups(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let access = broker.access(asker);
    let mut results = Vec::with_capacity(request.groups_names.len());
    let mut named = HashSet::new();
    let groups = request.groups_names.into_iter();
    for group_id in groups.filter(|group_id| named.insert(group_id.clone())) {
        consume_budget().await;
        let error_code = match access.to_group(Operation::Delete, group_id.as_str()) {
            Err(error) => error.code(),
            Ok(()) => {
                let deleted = broker.groups.delete(group_id.as_str()).await;
                deleted.map_or_else(|error| error.code(), |()| 0)
            }
        };
        results.push(DeletableGroupResult {
            group_id,
            error_code,
        });
    }
    DeleteGroupsResponse {
        results,
        ..Default::default()
    }
}

pub(super) async fn delete_offsets(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let access = broker.access(asker);
    let refused = |error: ErrorCode| OffsetDeleteResponse {
        error_code: error.code(),
        ..Default::default()
    };
    if let Err(error) = access.to_group(Operation::Delete, request.group_id.as_str()) {
        return refused(error);
    }
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
        let topic = access.topic(Operation::Read, &TopicRef::Name(wanted.name.clone()));
        let is_read = !is_empty && reads(&group, wanted.name.as_str());
        let judge = |partition_index: i32| {
            let error = match &topic {
                Err(error) => *error,
                Ok(topic) if topic.partition(partition_index).is_none() => {
                    ErrorCode::UnknownTopicOrPartition
                }
                Ok(_) if is_read => ErrorCode::GroupSubscribedToTopic,
                Ok(topic) => {
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

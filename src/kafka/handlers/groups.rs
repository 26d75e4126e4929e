//! The wire side of the consumer-group coordinator: it decides, this translates.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::TopicId;
use uuid::Uuid;

use super::super::access::{Access, Operation};
use super::super::broker::{Asker, Broker, TopicRef};
use super::super::groups::{
    self as coordinator, CommitRequest, GroupError, JoinRequest, LeavingMember, OffsetToCommit,
    Protocol, SyncRequest,
};
use super::super::protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
    JoinGroupResponseMember, LeaveGroupRequest, LeaveGroupResponse, MemberResponse,
    OffsetCommitRequest, OffsetCommitRequestTopic, OffsetCommitResponse,
    OffsetCommitResponsePartition, OffsetCommitResponseTopic, OffsetFetchRequest,
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics, SyncGroupRequest, SyncGroupResponse,
};
use super::super::protocol::{ErrorCode, Str};

/// Topics are named by id from here on, in OffsetCommit and OffsetFetch (KIP-848).
const TOPIC_ID_SINCE_VERSION: i16 = 10;
/// JoinGroup: a newcomer must come back with its id from here on (KIP-394).
const MEMBER_ID_SINCE_VERSION: i16 = 4;
/// JoinGroup: the leader may be told to leave the assignment as it is (KIP-814).
const SKIP_ASSIGNMENT_SINCE_VERSION: i16 = 9;
/// JoinGroup: no protocol is null from here on.
const NULL_PROTOCOL_SINCE_VERSION: i16 = 7;
/// LeaveGroup: several members at once (KIP-345).
const LEAVE_BATCH_SINCE_VERSION: i16 = 3;
/// OffsetFetch: what is wrong with the group is said once from here on.
const GROUP_ERROR_SINCE_VERSION: i16 = 2;
/// OffsetCommit: that there is no such group is an error of its own from here on (KIP-848).
const NOT_FOUND_SINCE_VERSION: i16 = 9;
/// OffsetFetch: several groups at once (KIP-709).
const FETCH_BATCH_SINCE_VERSION: i16 = 8;

/// What the coordinator keeps must not hold on to the frame it came in.
fn owned(text: &Str) -> String {
    text.as_str().to_owned()
}

fn owned_option(text: &Option<Str>) -> Option<String> {
    text.as_ref().map(owned)
}

fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn milliseconds(wire: i32) -> Duration {
    Duration::from_millis(u64::try_from(wire).unwrap_or(0))
}

fn code_of(outcome: &Result<(), GroupError>) -> i16 {
    outcome.as_ref().err().map_or(0, GroupError::code)
}

/// What members of a group must be allowed to.
fn may_read(broker: &Broker, asker: &Asker, group_id: &Str) -> Result<(), ErrorCode> {
    let access = broker.access(asker);
    access.to_group(Operation::Read, group_id.as_str())
}

pub(super) async fn join(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let member_id = request.member_id.clone();
    if let Err(error) = may_read(broker, asker, &request.group_id) {
        return JoinGroupResponse {
            error_code: error.code(),
            protocol_name: (asker.version < NULL_PROTOCOL_SINCE_VERSION).then(Str::default),
            member_id,
            ..Default::default()
        };
    }
    let outcome = broker.groups.join(join_request(asker, &request)).await;
    match outcome {
        Ok(joined) => JoinGroupResponse {
            generation_id: joined.generation_id,
            protocol_type: Some(joined.protocol_type.into()),
            protocol_name: Some(joined.protocol_name.into()),
            leader: joined.leader_id.into(),
            skip_assignment: joined.skip_assignment,
            member_id: joined.member_id.into(),
            members: joined
                .members
                .into_iter()
                .map(|member| JoinGroupResponseMember {
                    member_id: member.member_id.into(),
                    group_instance_id: member.group_instance_id.map(Str::from),
                    metadata: member.metadata,
                })
                .collect(),
            ..Default::default()
        },
        Err(error) => {
            let error_code = error.code();
            let member_id = match error {
                GroupError::MemberIdRequired { member_id } => member_id.into(),
                _ => member_id,
            };
            JoinGroupResponse {
                error_code,
                protocol_name: (asker.version < NULL_PROTOCOL_SINCE_VERSION).then(Str::default),
                member_id,
                ..Default::default()
            }
        }
    }
}

fn join_request(asker: &Asker, request: &JoinGroupRequest) -> JoinRequest {
    let session_timeout = milliseconds(request.session_timeout_ms);
    JoinRequest {
        group_id: owned(&request.group_id),
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(&request.group_instance_id),
        client_id: asker.client_id.clone(),
        client_host: format!("/{}", asker.peer.ip()),
        session_timeout,
        rebalance_timeout: match asker.version {
            0 => session_timeout,
            _ => milliseconds(request.rebalance_timeout_ms),
        },
        protocol_type: owned(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|p| Protocol {
                name: owned(&p.name),
                metadata: detached(&p.metadata),
            })
            .collect(),
        requires_member_id: asker.version >= MEMBER_ID_SINCE_VERSION,
        supports_skip_assignment: asker.version >= SKIP_ASSIGNMENT_SINCE_VERSION,
    }
}

pub(super) async fn sync(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    if let Err(error) = may_read(broker, asker, &request.group_id) {
        return SyncGroupResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let outcome = broker.groups.sync(SyncRequest {
        group_id: owned(&request.group_id),
        generation_id: request.generation_id,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(&request.group_instance_id),
        protocol_type: owned_option(&request.protocol_type),
        protocol_name: owned_option(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            .map(|a| (owned(&a.member_id), detached(&a.assignment)))
            .collect(),
    });
    match outcome.await {
        Ok(synced) => SyncGroupResponse {
            protocol_type: Some(synced.protocol_type.into()),
            protocol_name: Some(synced.protocol_name.into()),
            assignment: synced.assignment,
            ..Default::default()
        },
        Err(error) => SyncGroupResponse {
            error_code: error.code(),
            ..Default::default()
        },
    }
}

pub(super) fn heartbeat(
    broker: &Broker,
    asker: &Asker,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    if let Err(error) = may_read(broker, asker, &request.group_id) {
        return HeartbeatResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let outcome = broker.groups.heartbeat(&coordinator::HeartbeatRequest {
        group_id: owned(&request.group_id),
        generation_id: request.generation_id,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(&request.group_instance_id),
    });
    HeartbeatResponse {
        error_code: code_of(&outcome),
        ..Default::default()
    }
}

pub(super) fn leave(
    broker: &Broker,
    asker: &Asker,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    if let Err(error) = may_read(broker, asker, &request.group_id) {
        return LeaveGroupResponse {
            error_code: error.code(),
            ..Default::default()
        };
    }
    let batch = asker.version >= LEAVE_BATCH_SINCE_VERSION;
    let members = if batch {
        let member = |m: &super::super::protocol::messages::MemberIdentity| LeavingMember {
            member_id: owned(&m.member_id),
            group_instance_id: owned_option(&m.group_instance_id),
        };
        request.members.iter().map(member).collect()
    } else {
        vec![LeavingMember {
            member_id: owned(&request.member_id),
            group_instance_id: None,
        }]
    };
    let asked = coordinator::LeaveRequest {
        group_id: owned(&request.group_id),
        members,
    };
    match broker.groups.leave(&asked) {
        Err(error) => LeaveGroupResponse {
            error_code: error.code(),
            ..Default::default()
        },
        Ok(outcomes) if batch => LeaveGroupResponse {
            members: outcomes
                .into_iter()
                .map(|outcome| MemberResponse {
                    error_code: code_of(&outcome.result),
                    member_id: outcome.member.member_id.into(),
                    group_instance_id: outcome.member.group_instance_id.map(Str::from),
                })
                .collect(),
            ..Default::default()
        },
        Ok(outcomes) => LeaveGroupResponse {
            error_code: outcomes
                .first()
                .map_or(0, |outcome| code_of(&outcome.result)),
            ..Default::default()
        },
    }
}

pub(super) async fn commit(
    broker: &Arc<Broker>,
    asker: &Asker,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let by_id = asker.version >= TOPIC_ID_SINCE_VERSION;
    let access = broker.access(asker);
    let group = access.to_group(Operation::Read, request.group_id.as_str());
    let mut offsets = Vec::new();
    let mut topics: Vec<OffsetCommitResponseTopic> = request
        .topics
        .iter()
        .map(|topic| judge(&access, group, by_id, topic, &mut offsets))
        .collect();
    if group.is_err() {
        return OffsetCommitResponse {
            topics,
            ..Default::default()
        };
    }
    let outcome = broker.groups.commit_offsets(CommitRequest {
        group_id: owned(&request.group_id),
        generation_id: request.generation_id_or_member_epoch,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(&request.group_instance_id),
        offsets,
        within: None,
    });
    let outcome = outcome.await;
    let mut outcomes = outcome.iter().flatten();
    let accepted = topics
        .iter_mut()
        .flat_map(|t| &mut t.partitions)
        .filter(|p| p.error_code == 0);
    for partition in accepted {
        partition.error_code = match &outcome {
            Err(GroupError::GroupIdNotFound) if asker.version < NOT_FOUND_SINCE_VERSION => {
                ErrorCode::IllegalGeneration.code()
            }
            Err(error) => error.code(),
            Ok(_) => outcomes
                .next()
                .map_or(ErrorCode::UnknownServerError.code(), |outcome| {
                    code_of(&outcome.result)
                }),
        };
    }
    OffsetCommitResponse {
        topics,
        ..Default::default()
    }
}

/// Sorts a topic's partitions into those to commit and those that do not exist, or are not for the asker.
fn judge(
    access: &Access<'_>,
    group: Result<(), ErrorCode>,
    by_id: bool,
    topic: &OffsetCommitRequestTopic,
    offsets: &mut Vec<OffsetToCommit>,
) -> OffsetCommitResponseTopic {
    let topic_ref = TopicRef::new(by_id, &topic.name, topic.topic_id);
    let found = group.and_then(|()| access.topic(Operation::Read, &topic_ref));
    let mut partitions = Vec::with_capacity(topic.partitions.len());
    for wanted in &topic.partitions {
        let error = match &found {
            Err(error) => *error,
            Ok(known) if known.partition(wanted.partition_index).is_none() => {
                ErrorCode::UnknownTopicOrPartition
            }
            Ok(known) => {
                offsets.push(OffsetToCommit {
                    topic: known.id(),
                    partition: wanted.partition_index,
                    offset: wanted.committed_offset,
                    leader_epoch: wanted.committed_leader_epoch,
                    metadata: owned_option(&wanted.committed_metadata).unwrap_or_default(),
                });
                ErrorCode::None
            }
        };
        partitions.push(OffsetCommitResponsePartition {
            partition_index: wanted.partition_index,
            error_code: error.code(),
        });
    }
    OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions,
    }
}

/// What holds for a whole OffsetFetch.
struct How<'a> {
    access: Access<'a>,
    by_id: bool,
    require_stable: bool,
}

/// A topic as an OffsetFetch names it.
struct Wanted {
    name: Str,
    topic_id: Uuid,
    partitions: Vec<i32>,
}

pub(super) fn fetch_offsets(
    broker: &Broker,
    asker: &Asker,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let how = How {
        access: broker.access(asker),
        by_id: asker.version >= TOPIC_ID_SINCE_VERSION,
        require_stable: request.require_stable,
    };
    if asker.version >= FETCH_BATCH_SINCE_VERSION {
        let groups = request.groups.into_iter().map(|group| {
            let wanted = group.topics.map(|topics| {
                let wanted = topics.into_iter().map(|topic| Wanted {
                    name: topic.name,
                    topic_id: topic.topic_id,
                    partitions: topic.partition_indexes,
                });
                wanted.collect()
            });
            let fetched = fetch_group(broker, &how, &group.group_id, wanted);
            let error_code = fetched.as_ref().err().map_or(0, |error| error.code());
            OffsetFetchResponseGroup {
                group_id: group.group_id,
                topics: fetched.unwrap_or_default(),
                error_code,
            }
        });
        return OffsetFetchResponse {
            groups: groups.collect(),
            ..Default::default()
        };
    }
    let wanted: Option<Vec<Wanted>> = request.topics.map(|topics| {
        let wanted = topics.into_iter().map(|topic| Wanted {
            name: topic.name,
            topic_id: Uuid::nil(),
            partitions: topic.partition_indexes,
        });
        wanted.collect()
    });
    let topics = match may_describe(&how, &request.group_id) {
        Ok(()) => fetch_group(broker, &how, &request.group_id, wanted).unwrap_or_default(),
        Err(error) if asker.version >= GROUP_ERROR_SINCE_VERSION => {
            return OffsetFetchResponse {
                error_code: error.code(),
                ..Default::default()
            };
        }
        Err(error) => {
            let wanted = wanted.unwrap_or_default().into_iter();
            wanted.map(|topic| refused(topic, error)).collect()
        }
    };
    let plain = |topic: OffsetFetchResponseTopics| OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions,
    };
    OffsetFetchResponse {
        topics: topics.into_iter().map(plain).collect(),
        ..Default::default()
    }
}

fn may_describe(how: &How<'_>, group_id: &Str) -> Result<(), ErrorCode> {
    how.access.to_group(Operation::Describe, group_id.as_str())
}

fn fetch_group(
    broker: &Broker,
    how: &How<'_>,
    group_id: &Str,
    wanted: Option<Vec<Wanted>>,
) -> Result<Vec<OffsetFetchResponseTopics>, ErrorCode> {
    may_describe(how, group_id)?;
    Ok(match wanted {
        Some(topics) => topics
            .into_iter()
            .map(|topic| fetch_topic(broker, how, group_id, topic))
            .collect(),
        None => fetch_all(broker, how, group_id),
    })
}

/// The same error for every partition of a topic.
fn refused(wanted: Wanted, error: ErrorCode) -> OffsetFetchResponseTopics {
    let nothing = |partition_index| OffsetFetchResponsePartition {
        error_code: error.code(),
        ..no_offset(partition_index)
    };
    OffsetFetchResponseTopics {
        partitions: wanted.partitions.into_iter().map(nothing).collect(),
        name: wanted.name,
        topic_id: wanted.topic_id,
    }
}

fn fetch_topic(
    broker: &Broker,
    how: &How<'_>,
    group_id: &Str,
    wanted: Wanted,
) -> OffsetFetchResponseTopics {
    let topic_ref = TopicRef::new(how.by_id, &wanted.name, wanted.topic_id);
    let partitions = match how.access.topic(Operation::Describe, &topic_ref) {
        Ok(topic) => {
            let asked = wanted
                .partitions
                .iter()
                .map(|&index| (topic.id(), index))
                .collect();
            let request = coordinator::FetchRequest {
                group_id: owned(group_id),
                partitions: Some(asked),
                require_stable: how.require_stable,
            };
            broker
                .groups
                .fetch_offsets(&request)
                .into_iter()
                .map(describe)
                .collect()
        }
        // Kafka has no offset for a name it does not know, and an error for such an id.
        Err(ErrorCode::UnknownTopicOrPartition) => return refused(wanted, ErrorCode::None),
        Err(error) => return refused(wanted, error),
    };
    OffsetFetchResponseTopics {
        name: wanted.name,
        topic_id: wanted.topic_id,
        partitions,
    }
}

fn fetch_all(broker: &Broker, how: &How<'_>, group_id: &Str) -> Vec<OffsetFetchResponseTopics> {
    let request = coordinator::FetchRequest {
        group_id: owned(group_id),
        partitions: None,
        require_stable: how.require_stable,
    };
    let mut fetched = broker.groups.fetch_offsets(&request);
    fetched.sort_by_key(|f| (f.topic, f.partition));
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for offset in fetched {
        let TopicId(topic_id) = offset.topic;
        match topics.last_mut() {
            Some(last) if last.topic_id == topic_id => last.partitions.push(describe(offset)),
            _ => {
                // A topic that is gone has no name to go by.
                let Some(topic) = broker.log.topic_by_id(offset.topic) else {
                    continue;
                };
                let access = how.access.to_topic(Operation::Describe, topic.name());
                if access.is_err() {
                    continue;
                }
                topics.push(OffsetFetchResponseTopics {
                    name: topic.name().into(),
                    topic_id,
                    partitions: vec![describe(offset)],
                });
            }
        }
    }
    topics
}

fn no_offset(partition_index: i32) -> OffsetFetchResponsePartition {
    OffsetFetchResponsePartition {
        partition_index,
        committed_offset: -1,
        ..Default::default()
    }
}

fn describe(fetched: coordinator::FetchedOffset) -> OffsetFetchResponsePartition {
    match fetched.committed {
        _ if fetched.is_unstable => OffsetFetchResponsePartition {
            error_code: ErrorCode::UnstableOffsetCommit.code(),
            ..no_offset(fetched.partition)
        },
        Some(committed) => OffsetFetchResponsePartition {
            partition_index: fetched.partition,
            committed_offset: committed.offset,
            committed_leader_epoch: committed.leader_epoch,
            metadata: Some(committed.metadata.into()),
            error_code: 0,
        },
        None => no_offset(fetched.partition),
    }
}

//! Consumer groups over the wire; the coordinator's own rules are tested beside it.

use super::super::groups::GroupsConfig;
use super::super::protocol::ErrorCode;
use super::super::protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
    LeaveGroupRequest, MemberIdentity, MetadataRequest, OffsetCommitRequest,
    OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetFetchRequest,
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics, SyncGroupRequest,
    SyncGroupRequestAssignment,
};
use super::*;

async fn open() -> Door {
    let groups = GroupsConfig {
        initial_rebalance_delay_ms: 20,
        ..Default::default()
    };
    Door::open_with(KafkaConfig {
        groups,
        ..Default::default()
    })
    .await
}

fn join(member_id: &Str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member_id.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: Bytes::from_static(b"subscription"),
        }],
        ..Default::default()
    }
}

/// Joins with the id that versions from 4 on hand out first.
async fn joined(wire: &mut Wire, version: i16) -> JoinGroupResponse {
    let mut response = wire.ask(join(&Str::default()), version).await;
    if version >= 4 {
        assert_eq!(ErrorCode(response.error_code), ErrorCode::MemberIdRequired);
        assert!(!response.member_id.is_empty());
        response = wire.ask(join(&response.member_id), version).await;
    }
    assert_eq!(
        ErrorCode(response.error_code),
        ErrorCode::None,
        "version {version}"
    );
    response
}

fn sync(joined: &JoinGroupResponse) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: "g".into(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: joined
            .members
            .iter()
            .map(|member| SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: Bytes::from(format!("for {}", member.member_id)),
            })
            .collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn every_version_of_the_group_apis_lives_through_a_generation() {
    let door = open().await;
    let mut wire = door.wire().await;
    for version in 0..=9 {
        let joined = joined(&mut wire, version).await;
        assert_eq!(joined.leader, joined.member_id);
        assert_eq!(joined.protocol_name.as_ref().unwrap().as_str(), "range");
        assert_eq!(joined.members.len(), 1);
        assert_eq!(&joined.members[0].metadata[..], b"subscription");

        let synced = wire.ask(sync(&joined), version.min(5)).await;
        assert_eq!(synced.error_code, 0);
        assert_eq!(synced.assignment, format!("for {}", joined.member_id));

        let beat = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        assert_eq!(wire.ask(beat.clone(), version.min(4)).await.error_code, 0);

        let leaving = MemberIdentity {
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        let leave = LeaveGroupRequest {
            group_id: "g".into(),
            member_id: joined.member_id.clone(),
            members: vec![leaving],
        };
        let left = wire.ask(leave, version.min(5)).await;
        assert_eq!(left.error_code, 0);
        assert_eq!(left.members.len(), usize::from(version >= 3));
        let late = wire.ask(beat, version.min(4)).await;
        assert_eq!(ErrorCode(late.error_code), ErrorCode::UnknownMemberId);
    }
    door.close().await;
}

#[tokio::test]
async fn a_second_member_makes_the_first_join_again() {
    let door = open().await;
    let (mut a, mut b) = (door.wire().await, door.wire().await);
    let first = joined(&mut a, 5).await;
    a.ask(sync(&first), 3).await;

    let refused = b.ask(join(&Str::default()), 5).await;
    let id = b.send(join(&refused.member_id), 5).await;
    let beat = HeartbeatRequest {
        group_id: "g".into(),
        generation_id: first.generation_id,
        member_id: first.member_id.clone(),
        ..Default::default()
    };
    in_time(async { while a.ask(beat.clone(), 3).await.error_code == 0 {} }).await;
    let rejoined = a.ask(join(&first.member_id), 5).await;
    let second = b.receive::<JoinGroupRequest>(5, id).await;
    assert_eq!(rejoined.generation_id, first.generation_id + 1);
    assert_eq!(second.generation_id, rejoined.generation_id);
    assert_eq!(second.leader, rejoined.leader);

    let (leader, follower, leader_wire, follower_wire) = if second.leader == second.member_id {
        (second, rejoined, &mut b, &mut a)
    } else {
        (rejoined, second, &mut a, &mut b)
    };
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    let id = follower_wire.send(sync(&follower), 3).await;
    leader_wire.ask(MetadataRequest::default(), 9).await;
    let synced = leader_wire.ask(sync(&leader), 3).await;
    assert_eq!(synced.assignment, format!("for {}", leader.member_id));
    let synced = follower_wire.receive::<SyncGroupRequest>(3, id).await;
    assert_eq!(synced.assignment, format!("for {}", follower.member_id));
    door.close().await;
}

fn commit(topic: &Topic, partition: i32, offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.name().into(),
            topic_id: topic.id().0,
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_leader_epoch: 3,
                committed_metadata: Some("note".into()),
            }],
        }],
        ..Default::default()
    }
}

#[tokio::test]
async fn committed_offsets_come_back_in_every_version_and_after_a_restart() {
    let door = open().await;
    let topic = door.topic("t", 2).await;
    let mut wire = door.wire().await;
    for version in 2..=10 {
        let mut response = wire
            .ask(commit(&topic, 1, i64::from(version)), version)
            .await;
        assert_eq!(
            response.topics.remove(0).partitions[0].error_code,
            0,
            "version {version}"
        );
    }
    let unknown = wire.ask(commit(&topic, 9, 1), 8).await;
    let code = ErrorCode(unknown.topics[0].partitions[0].error_code);
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition);
    let mut client = door.client().await;
    assert_eq!(
        client.group_offsets("g").await.unwrap(),
        [("t".to_owned(), 1, 10)]
    );
    let dir = door.close().await;

    let door = Door::open_in(dir, KafkaConfig::default()).await;
    let topic = door.log.topic("t").unwrap();
    let mut wire = door.wire().await;
    for version in 1..=7 {
        let request = OffsetFetchRequest {
            group_id: "g".into(),
            topics: Some(vec![OffsetFetchRequestTopic {
                name: "t".into(),
                partition_indexes: vec![1, 0],
            }]),
            ..Default::default()
        };
        let found = wire.ask(request, version).await.topics.remove(0).partitions;
        assert_eq!(
            (found[0].committed_offset, found[1].committed_offset),
            (10, -1)
        );
        assert_eq!(found[0].metadata.as_ref().unwrap().as_str(), "note");
        assert_eq!(
            found[0].committed_leader_epoch,
            if version >= 5 { 3 } else { -1 }
        );
        assert_eq!((found[0].error_code, found[1].error_code), (0, 0));
    }
    for version in 8..=10 {
        let named = OffsetFetchRequestTopics {
            name: "t".into(),
            topic_id: topic.id().0,
            partition_indexes: vec![1],
        };
        let group = |topics| OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics,
            ..Default::default()
        };
        let groups = vec![group(Some(vec![named])), group(None)];
        let request = OffsetFetchRequest {
            groups,
            ..Default::default()
        };
        let response = wire.ask(request, version).await;
        assert_eq!(response.groups.len(), 2);
        for group in &response.groups {
            assert_eq!(
                group.topics[0].partitions[0].committed_offset, 10,
                "version {version}"
            );
        }
    }
    let mut client = door.client().await;
    assert_eq!(client.group_offset("g", "t", 1).await.unwrap(), Some(10));
    assert_eq!(client.group_offset("g", "t", 0).await.unwrap(), None);
    door.close().await;
}

#[tokio::test]
async fn unknown_topics_have_no_offset_by_name_and_an_error_by_id() {
    let door = open().await;
    let mut wire = door.wire().await;
    for version in [8, 10] {
        let topics = Some(vec![OffsetFetchRequestTopics {
            name: "nobody".into(),
            topic_id: uuid::Uuid::from_u128(9),
            partition_indexes: vec![0],
        }]);
        let group = OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics,
            ..Default::default()
        };
        let request = OffsetFetchRequest {
            groups: vec![group],
            ..Default::default()
        };
        let response = wire.ask(request, version).await;
        let found = &response.groups[0].topics[0].partitions[0];
        assert_eq!(found.committed_offset, -1);
        let expected = if version == 10 {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::None
        };
        assert_eq!(ErrorCode(found.error_code), expected);
    }
    door.close().await;
}

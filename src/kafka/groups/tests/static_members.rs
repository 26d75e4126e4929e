//! Members that keep their partitions over a restart (KIP-345, KIP-814).

use super::*;

fn latest(instance_id: &str) -> JoinRequest {
    JoinRequest {
        supports_skip_assignment: true,
        ..named(instance_id)
    }
}

/// Leader first.
async fn pair(coordinator: &Coordinator) -> Vec<JoinResponse> {
    stable_group(coordinator, vec![named("box-1"), named("box-2")]).await
}

fn instance_of(coordinator: &Coordinator, member_id: &str) -> String {
    let members = coordinator.describe(GROUP).unwrap().members;
    let member = members
        .into_iter()
        .find(|m| m.member_id == member_id)
        .unwrap();
    member.group_instance_id.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_static_newcomer_needs_no_round_for_its_id() {
    let coordinator = coordinator();
    let request = JoinRequest {
        requires_member_id: true,
        ..named("box-1")
    };
    let joined = coordinator.join(request).await.unwrap();
    assert!(joined.member_id.starts_with("box-1-"));
    assert_eq!(
        joined.members[0].group_instance_id.as_deref(),
        Some("box-1")
    );
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_restarts_gets_its_share_back_without_a_rebalance() {
    let coordinator = coordinator();
    let members = pair(&coordinator).await;
    let instance = instance_of(&coordinator, &members[1].member_id);
    let before = coordinator.describe(GROUP).unwrap();
    let share = |d: &GroupDescription| {
        let own = d
            .members
            .iter()
            .find(|m| m.group_instance_id.as_ref() == Some(&instance));
        own.unwrap().assignment.clone()
    };
    let joined = coordinator.join(named(&instance)).await.unwrap();
    assert_ne!(joined.member_id, members[1].member_id);
    assert_eq!(
        (joined.generation_id, &joined.leader_id),
        (1, &members[0].member_id)
    );
    assert!(!joined.skip_assignment);
    let request = SyncRequest {
        group_instance_id: Some(instance.clone()),
        ..sync_of(&joined, &[])
    };
    let synced = coordinator.sync(request).await.unwrap();
    assert_eq!(synced.assignment, share(&before));
    assert_eq!(
        coordinator.heartbeat(&beat(1, &members[0].member_id)),
        Ok(())
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_restarts_is_told_to_skip_the_assignment_from_version_9_on() {
    let coordinator = coordinator();
    let members = pair(&coordinator).await;
    let instance = instance_of(&coordinator, &members[0].member_id);
    let joined = coordinator.join(latest(&instance)).await.unwrap();
    assert!(joined.skip_assignment);
    assert_eq!(joined.leader_id, joined.member_id);
    assert_eq!(
        joined.members.len(),
        2,
        "it still watches the subscriptions"
    );
    assert_eq!(joined.generation_id, 1);
    assert_eq!(state(&coordinator), GroupState::Stable);
}

#[tokio::test(start_paused = true)]
async fn before_version_9_a_leader_that_restarts_believes_it_follows() {
    let coordinator = coordinator();
    let members = pair(&coordinator).await;
    let instance = instance_of(&coordinator, &members[0].member_id);
    let joined = coordinator.join(named(&instance)).await.unwrap();
    assert!(!joined.skip_assignment && joined.members.is_empty());
    assert_eq!(joined.leader_id, members[0].member_id);
    let synced = coordinator.sync(sync_of(&joined, &[])).await.unwrap();
    assert!(!synced.assignment.is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_still_uses_the_old_id_is_fenced() {
    let coordinator = coordinator();
    let members = pair(&coordinator).await;
    let old = members[1].clone();
    let instance = instance_of(&coordinator, &old.member_id);
    coordinator.join(named(&instance)).await.unwrap();
    let fenced = GroupError::FencedInstanceId;
    assert_eq!(fenced.code(), 82);
    let heartbeat = HeartbeatRequest {
        group_instance_id: Some(instance.clone()),
        ..beat(1, &old.member_id)
    };
    assert_eq!(coordinator.heartbeat(&heartbeat), Err(fenced.clone()));
    let request = SyncRequest {
        group_instance_id: Some(instance.clone()),
        ..sync_of(&old, &[])
    };
    assert_eq!(coordinator.sync(request).await, Err(fenced.clone()));
    let join = JoinRequest {
        member_id: old.member_id.clone(),
        ..named(&instance)
    };
    assert_eq!(coordinator.join(join).await, Err(fenced.clone()));
    let commit = CommitRequest {
        group_id: GROUP.to_owned(),
        generation_id: 1,
        member_id: old.member_id.clone(),
        group_instance_id: Some(instance),
        offsets: Vec::new(),
        within: None,
    };
    assert_eq!(coordinator.commit_offsets(commit).await, Err(fenced));
    let anonymous = coordinator.heartbeat(&beat(1, &old.member_id));
    assert_eq!(anonymous, Err(GroupError::UnknownMemberId));
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_waiting_twins_is_fenced_at_once() {
    let coordinator = coordinator();
    let first = send_join(&coordinator, named("box-1")).await;
    let second = send_join(&coordinator, named("box-1")).await;
    assert_eq!(first.await.unwrap(), Err(GroupError::FencedInstanceId));
    let joined = second.await.unwrap().unwrap();
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.leader_id, joined.member_id);
}

#[tokio::test(start_paused = true)]
async fn a_twin_that_waits_for_its_share_is_fenced_and_the_group_rebalances() {
    let coordinator = coordinator();
    let first = send_join(&coordinator, named("box-1")).await;
    let second = send_join(&coordinator, named("box-2")).await;
    let joined = [
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    ];
    let follower = joined.iter().find(|j| j.member_id != j.leader_id).unwrap();
    let instance = instance_of(&coordinator, &follower.member_id);
    let waiting = send_sync(&coordinator, sync_of(follower, &[])).await;
    let twin = send_join(&coordinator, named(&instance)).await;
    assert_eq!(waiting.await.unwrap(), Err(GroupError::FencedInstanceId));
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    assert!(!twin.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_returning_member_that_changes_the_vote_starts_a_rebalance() {
    let coordinator = coordinator();
    let with = |instance: &str, names: &[&str]| JoinRequest {
        protocols: protocols(names, instance),
        ..named(instance)
    };
    let requests = vec![
        with("box-1", &["range", "sticky"]),
        with("box-2", &["range", "sticky"]),
    ];
    let members = stable_group(&coordinator, requests).await;
    let other = instance_of(&coordinator, &members[1].member_id);
    let joining = send_join(&coordinator, with(&other, &["sticky"])).await;
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    let leader = instance_of(&coordinator, &members[0].member_id);
    let back = JoinRequest {
        member_id: members[0].member_id.clone(),
        ..with(&leader, &["range", "sticky"])
    };
    assert_eq!(
        coordinator.join(back).await.unwrap().protocol_name,
        "sticky"
    );
    assert_eq!(joining.await.unwrap().unwrap().generation_id, 2);
}

#[tokio::test(start_paused = true)]
async fn an_absent_static_member_keeps_its_place_in_the_next_generation() {
    let coordinator = coordinator();
    let long = |instance: &str| JoinRequest {
        session_timeout: Duration::from_secs(600),
        ..named(instance)
    };
    let members = stable_group(&coordinator, vec![long("box-1"), long("box-2")]).await;
    let start = Instant::now();
    let newcomer = send_join(&coordinator, newcomer("c")).await;
    let joined = newcomer.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), REBALANCE.as_secs());
    assert_eq!(joined.generation_id, 2);
    assert_eq!(
        joined.leader_id, joined.member_id,
        "a leader that is away cannot assign"
    );
    let ids: Vec<&str> = joined
        .members
        .iter()
        .map(|m| m.member_id.as_str())
        .collect();
    assert!(
        members.iter().all(|m| ids.contains(&m.member_id.as_str())),
        "{ids:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_static_member_leaves_when_its_session_ends_or_by_its_instance_id() {
    let coordinator = coordinator();
    pair(&coordinator).await;
    let by_name = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![LeavingMember {
            member_id: String::new(),
            group_instance_id: Some("box-1".to_owned()),
        }],
    };
    assert_eq!(coordinator.leave(&by_name).unwrap()[0].result, Ok(()));
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    tokio::time::sleep(SESSION + Duration::from_millis(1)).await;
    assert_eq!(state(&coordinator), GroupState::Empty);
    let again = coordinator.leave(&by_name).unwrap().remove(0).result;
    assert_eq!(again, Err(GroupError::UnknownMemberId));
}

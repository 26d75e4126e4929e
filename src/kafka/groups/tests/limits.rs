//! What a group and the coordinator refuse to hold.

use super::*;

fn small() -> GroupsConfig {
    GroupsConfig {
        group_size_max: 2,
        groups_max: 2,
        member_bytes_max: 64,
        ..GroupsConfig::default()
    }
}

fn in_group(group_id: &str) -> JoinRequest {
    JoinRequest {
        group_id: group_id.to_owned(),
        ..newcomer("m")
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_group_refuses_newcomers_and_keeps_its_members() {
    let coordinator = coordinator_with(small());
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let refused = coordinator.join(newcomer("c")).await;
    assert_eq!(refused, Err(GroupError::GroupMaxSizeReached));
    for member in &members {
        assert_eq!(coordinator.heartbeat(&beat(1, &member.member_id)), Ok(()));
    }
    leave(&coordinator, &members[1].member_id).unwrap();
    let newcomer = send_join(&coordinator, newcomer("c")).await;
    coordinator
        .join(back(&members[0].member_id, "a"))
        .await
        .unwrap();
    assert_eq!(newcomer.await.unwrap().unwrap().generation_id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_group_still_lets_a_static_member_restart() {
    let coordinator = coordinator_with(small());
    stable_group(&coordinator, vec![named("box-1"), named("box-2")]).await;
    assert_eq!(
        coordinator
            .join(named("box-2"))
            .await
            .unwrap()
            .generation_id,
        1
    );
    assert_eq!(
        coordinator.join(named("box-3")).await,
        Err(GroupError::GroupMaxSizeReached)
    );
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_last_to_an_overfull_rebalance_has_to_go() {
    let coordinator = coordinator_with(small());
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let first = send_join(&coordinator, back(&members[0].member_id, "new")).await;
    let second = send_join(&coordinator, newcomer("c")).await;
    let last = coordinator.join(back(&members[1].member_id, "b")).await;
    assert_eq!(last, Err(GroupError::GroupMaxSizeReached));
    assert_eq!(first.await.unwrap().unwrap().members.len(), 2);
    assert_eq!(second.await.unwrap().unwrap().generation_id, 2);
}

#[tokio::test(start_paused = true)]
async fn member_ids_in_waiting_are_counted_too() {
    let coordinator = coordinator_with(small());
    let request = || JoinRequest {
        requires_member_id: true,
        ..newcomer("a")
    };
    for _ in 0..2 {
        assert_eq!(coordinator.join(request()).await.unwrap_err().code(), 79);
    }
    assert_eq!(
        coordinator.join(request()).await,
        Err(GroupError::GroupMaxSizeReached)
    );
    tokio::time::sleep(SESSION + Duration::from_millis(1)).await;
    assert_eq!(coordinator.join(request()).await.unwrap_err().code(), 79);
}

#[tokio::test(start_paused = true)]
async fn too_many_groups_with_members_are_refused_and_empty_ones_make_room() {
    let coordinator = coordinator_with(small());
    let first = coordinator.join(in_group("one")).await.unwrap();
    coordinator.join(in_group("two")).await.unwrap();
    let refused = coordinator.join(in_group("three")).await;
    assert_eq!(refused, Err(GroupError::CoordinatorNotAvailable));
    let leave = LeaveRequest {
        group_id: "one".to_owned(),
        ..leaving(&first.member_id)
    };
    coordinator.leave(&leave).unwrap();
    coordinator.join(in_group("three")).await.unwrap();
    let names: Vec<String> = coordinator.list().into_iter().map(|g| g.group_id).collect();
    assert_eq!(names, ["three", "two"]);
}

#[tokio::test(start_paused = true)]
async fn oversized_requests_are_refused() {
    let coordinator = coordinator_with(small());
    let refused = Err(GroupError::InvalidRequest);
    assert_eq!(coordinator.join(newcomer(&"x".repeat(60))).await, refused);
    let names: Vec<String> = (0..=PROTOCOLS_MAX).map(|i| format!("p{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = JoinRequest {
        protocols: protocols(&names, ""),
        ..newcomer("a")
    };
    assert_eq!(coordinator.join(many).await, refused);
    let long = JoinRequest {
        group_id: "g".repeat(GROUP_ID_BYTES_MAX + 1),
        ..newcomer("a")
    };
    assert_eq!(
        coordinator.join(long).await,
        Err(GroupError::InvalidGroupId)
    );
    let joined = coordinator.join(newcomer("a")).await.unwrap();
    let share = "x".repeat(65);
    let too_big = sync_of(&joined, &[(joined.member_id.as_str(), share.as_str())]);
    assert_eq!(
        coordinator.sync(too_big).await,
        Err(GroupError::InvalidRequest)
    );
    assert_eq!(state(&coordinator), GroupState::CompletingRebalance);
}

#[tokio::test(start_paused = true)]
async fn a_long_client_id_is_cut_between_characters() {
    let coordinator = coordinator();
    let request = JoinRequest {
        client_id: "ä".repeat(10_000),
        ..newcomer("a")
    };
    let joined = coordinator.join(request).await.unwrap();
    assert!(
        joined.member_id.len() <= MEMBER_ID_HEAD_BYTES_MAX + 37,
        "{}",
        joined.member_id.len()
    );
}

#[tokio::test(start_paused = true)]
async fn timeouts_beyond_measure_are_harmless() {
    let coordinator = coordinator();
    let request = JoinRequest {
        rebalance_timeout: Duration::MAX,
        ..newcomer("a")
    };
    let joined = coordinator.join(request.clone()).await.unwrap();
    assert_eq!(joined.generation_id, 1);
    let endless = JoinRequest {
        session_timeout: Duration::MAX,
        ..request
    };
    assert_eq!(
        coordinator.join(endless).await,
        Err(GroupError::InvalidSessionTimeout)
    );
}

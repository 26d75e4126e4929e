//! Getting in, rebalances, and the vote.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_lone_newcomer_leads_generation_1_after_the_initial_delay() {
    let coordinator = coordinator();
    let start = Instant::now();
    let joined = coordinator.join(newcomer("topics")).await.unwrap();
    assert_eq!(start.elapsed(), DELAY);
    assert_eq!(
        (joined.generation_id, joined.protocol_name.as_str()),
        (1, "range")
    );
    assert_eq!(joined.protocol_type, "consumer");
    assert_eq!(joined.leader_id, joined.member_id);
    assert!(joined.member_id.starts_with("client-"));
    assert!(!joined.skip_assignment);
    let seen = JoinedMember {
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        metadata: Bytes::from_static(b"topics"),
    };
    assert_eq!(joined.members, [seen]);
    assert_eq!(state(&coordinator), GroupState::CompletingRebalance);
}

#[tokio::test(start_paused = true)]
async fn each_newcomer_starts_the_initial_delay_again() {
    let coordinator = coordinator();
    let start = Instant::now();
    let first = send_join(&coordinator, newcomer("a")).await;
    tokio::time::sleep_until(start + Duration::from_secs(2)).await;
    let second = send_join(&coordinator, newcomer("b")).await;
    tokio::time::sleep_until(start + Duration::from_millis(4_900)).await;
    assert!(!first.is_finished());
    let (first, second) = (
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    );
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    assert_eq!((first.generation_id, second.generation_id), (1, 1));
    assert_eq!(
        first.members.len() + second.members.len(),
        2,
        "the leader alone sees the members"
    );
    assert_eq!(first.leader_id, second.leader_id);
}

#[tokio::test(start_paused = true)]
async fn the_initial_delay_never_exceeds_the_rebalance_timeout() {
    let coordinator = coordinator();
    let start = Instant::now();
    let request = || JoinRequest {
        rebalance_timeout: Duration::from_secs(8),
        ..newcomer("a")
    };
    let mut joining = Vec::new();
    for second in 0..8 {
        tokio::time::sleep_until(start + Duration::from_secs(second)).await;
        joining.push(send_join(&coordinator, request()).await);
    }
    for task in joining {
        assert_eq!(task.await.unwrap().unwrap().generation_id, 1);
    }
    assert_eq!(start.elapsed(), Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn without_an_initial_delay_the_first_member_does_not_wait() {
    let config = GroupsConfig {
        initial_rebalance_delay_ms: 0,
        ..GroupsConfig::default()
    };
    let coordinator = coordinator_with(config);
    let start = Instant::now();
    coordinator.join(newcomer("a")).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn from_version_4_on_a_newcomer_comes_back_with_the_id_it_is_given() {
    let coordinator = coordinator();
    let request = JoinRequest {
        requires_member_id: true,
        ..newcomer("a")
    };
    let error = coordinator.join(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), 79);
    let GroupError::MemberIdRequired { member_id } = error else {
        panic!("{error}")
    };
    assert!(member_id.starts_with("client-"));
    assert_eq!(
        state(&coordinator),
        GroupState::Empty,
        "an id alone starts nothing"
    );
    let joined = coordinator
        .join(JoinRequest {
            member_id: member_id.clone(),
            ..request
        })
        .await
        .unwrap();
    assert_eq!(joined.member_id, member_id);
}

#[tokio::test(start_paused = true)]
async fn an_id_that_was_not_used_within_the_session_timeout_lapses() {
    let coordinator = coordinator();
    let request = JoinRequest {
        requires_member_id: true,
        ..newcomer("a")
    };
    let error = coordinator.join(request.clone()).await.unwrap_err();
    let GroupError::MemberIdRequired { member_id } = error else {
        panic!("{error}")
    };
    tokio::time::sleep(SESSION + Duration::from_millis(1)).await;
    let late = coordinator
        .join(JoinRequest {
            member_id,
            ..request
        })
        .await;
    assert_eq!(late, Err(GroupError::UnknownMemberId));
    assert_eq!(coordinator.describe(GROUP), None);
}

#[tokio::test(start_paused = true)]
async fn an_id_nobody_was_given_is_unknown() {
    let coordinator = coordinator();
    assert_eq!(
        coordinator.join(back("ghost", "a")).await,
        Err(GroupError::UnknownMemberId)
    );
    stable_group(&coordinator, vec![newcomer("a")]).await;
    assert_eq!(
        coordinator.join(back("ghost", "a")).await,
        Err(GroupError::UnknownMemberId)
    );
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_makes_the_others_join_again_and_the_generation_rises() {
    let coordinator = coordinator();
    let old = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    let joining = send_join(&coordinator, newcomer("b")).await;
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    let told = coordinator.heartbeat(&beat(1, &old.member_id));
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
    let start = Instant::now();
    let again = coordinator.join(back(&old.member_id, "a")).await.unwrap();
    assert_eq!(
        start.elapsed(),
        Duration::ZERO,
        "nobody is missing, so nobody waits"
    );
    let new = joining.await.unwrap().unwrap();
    assert_eq!((again.generation_id, new.generation_id), (2, 2));
    assert_eq!(again.leader_id, old.member_id, "the leader keeps its place");
    assert_eq!((again.members.len(), new.members.len()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_waits_for_the_slowest_member_and_then_goes_on_without_it() {
    let coordinator = coordinator();
    let patient = JoinRequest {
        rebalance_timeout: Duration::from_secs(20),
        ..newcomer("slow")
    };
    let hasty = JoinRequest {
        rebalance_timeout: Duration::from_secs(5),
        ..newcomer("quick")
    };
    let members = stable_group(&coordinator, vec![hasty.clone(), patient]).await;
    let (quick, slow) = (&members[0], &members[1]);
    let start = Instant::now();
    let rejoin = JoinRequest {
        rebalance_timeout: hasty.rebalance_timeout,
        ..back(&quick.member_id, "new")
    };
    let joining = send_join(&coordinator, rejoin).await;
    while start.elapsed() < Duration::from_millis(19_900) {
        let told = coordinator.heartbeat(&beat(1, &slow.member_id));
        assert_eq!(
            told,
            Err(GroupError::RebalanceInProgress),
            "at {:?}",
            start.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!joining.is_finished());
    let joined = joining.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(20));
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    let told = coordinator.heartbeat(&beat(1, &slow.member_id));
    assert_eq!(told, Err(GroupError::UnknownMemberId));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_joins_again_unchanged_disturbs_nobody() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let follower = &members[1];
    let metadata = coordinator.describe(GROUP).unwrap();
    let own = metadata
        .members
        .iter()
        .find(|m| m.member_id == follower.member_id)
        .unwrap();
    let own = String::from_utf8(own.metadata.to_vec()).unwrap();
    let again = coordinator
        .join(back(&follower.member_id, &own))
        .await
        .unwrap();
    assert_eq!(again.generation_id, 1);
    assert!(again.members.is_empty());
    assert_eq!(state(&coordinator), GroupState::Stable);
}

#[tokio::test(start_paused = true)]
async fn a_follower_with_a_new_subscription_starts_a_rebalance() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let joining = send_join(&coordinator, back(&members[1].member_id, "other topics")).await;
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    assert!(!joining.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_leader_that_joins_again_starts_a_rebalance() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("a")]).await;
    let joining = send_join(&coordinator, back(&members[0].member_id, "a")).await;
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    assert!(!joining.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_join_whose_answer_was_lost_is_answered_again_before_the_sync() {
    let coordinator = coordinator();
    let joined = coordinator.join(newcomer("a")).await.unwrap();
    let again = coordinator
        .join(back(&joined.member_id, "a"))
        .await
        .unwrap();
    assert_eq!(again, joined);
}

#[tokio::test(start_paused = true)]
async fn a_second_join_of_a_waiting_member_replaces_the_first() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("a")]).await;
    let first = send_join(&coordinator, back(&members[0].member_id, "a")).await;
    let second = send_join(&coordinator, back(&members[0].member_id, "a")).await;
    assert_eq!(first.await.unwrap(), Err(GroupError::RebalanceInProgress));
    let other = coordinator
        .join(back(&members[1].member_id, "a"))
        .await
        .unwrap();
    assert_eq!(
        second.await.unwrap().unwrap().generation_id,
        other.generation_id
    );
}

#[tokio::test(start_paused = true)]
async fn the_protocol_is_the_one_most_members_prefer_among_those_all_support() {
    let coordinator = coordinator();
    let with = |names: &[&str]| JoinRequest {
        protocols: protocols(names, "m"),
        ..newcomer("m")
    };
    let requests = vec![
        with(&["sticky", "range", "round"]),
        with(&["round", "range"]),
        with(&["cooperative", "round", "range"]),
    ];
    let members = stable_group(&coordinator, requests).await;
    assert!(
        members.iter().all(|m| m.protocol_name == "round"),
        "{members:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_draw_goes_to_what_the_leader_prefers() {
    let coordinator = coordinator();
    let with = |names: &[&str]| JoinRequest {
        protocols: protocols(names, "m"),
        ..newcomer("m")
    };
    let requests = vec![with(&["zebra", "ape"]), with(&["ape", "zebra"])];
    let members = stable_group(&coordinator, requests).await;
    assert!(
        members.iter().all(|m| m.protocol_name == "zebra"),
        "{members:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn who_has_nothing_in_common_with_the_group_is_refused() {
    let coordinator = coordinator();
    let refused = Err(GroupError::InconsistentGroupProtocol);
    let none = JoinRequest {
        protocols: Vec::new(),
        ..newcomer("a")
    };
    assert_eq!(coordinator.join(none).await, refused);
    let untyped = JoinRequest {
        protocol_type: String::new(),
        ..newcomer("a")
    };
    assert_eq!(coordinator.join(untyped).await, refused);
    stable_group(&coordinator, vec![newcomer("a")]).await;
    let other = JoinRequest {
        protocols: protocols(&["sticky"], "m"),
        ..newcomer("a")
    };
    assert_eq!(coordinator.join(other).await, refused);
    let connect = JoinRequest {
        protocol_type: "connect".to_owned(),
        ..newcomer("a")
    };
    assert_eq!(coordinator.join(connect).await, refused);
    assert_eq!(
        state(&coordinator),
        GroupState::Stable,
        "a refusal disturbs nobody"
    );
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_emptied_takes_members_of_another_type_and_its_generation_rises() {
    let coordinator = coordinator();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    leave(&coordinator, &member.member_id).unwrap();
    assert_eq!(state(&coordinator), GroupState::Empty);
    let connect = JoinRequest {
        protocol_type: "connect".to_owned(),
        ..newcomer("a")
    };
    let joined = coordinator.join(connect).await.unwrap();
    assert_eq!(joined.protocol_type, "connect");
    assert!(joined.generation_id > 1, "{joined:?}");
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_waits_for_a_newcomer_that_has_its_id_until_it_joins() {
    let coordinator = coordinator();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    let request = JoinRequest {
        requires_member_id: true,
        ..newcomer("b")
    };
    let error = coordinator.join(request.clone()).await.unwrap_err();
    let GroupError::MemberIdRequired { member_id } = error else {
        panic!("{error}")
    };
    assert_eq!(coordinator.heartbeat(&beat(1, &member.member_id)), Ok(()));
    let leader = send_join(&coordinator, back(&member.member_id, "a")).await;
    assert!(!leader.is_finished());
    let new = coordinator
        .join(JoinRequest {
            member_id,
            ..request
        })
        .await
        .unwrap();
    assert_eq!(new.generation_id, 2);
    assert_eq!(leader.await.unwrap().unwrap().members.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_that_hung_up_before_the_generation_began_is_not_in_it() {
    let coordinator = coordinator();
    let gone = send_join(&coordinator, newcomer("gone")).await;
    let staying = send_join(&coordinator, newcomer("staying")).await;
    gone.abort();
    let joined = staying.await.unwrap().unwrap();
    assert_eq!(joined.leader_id, joined.member_id);
    assert_eq!(joined.members.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_timeout_outside_the_bounds_is_refused() {
    let coordinator = coordinator();
    for ms in [0, 5_999, 1_800_001] {
        let request = JoinRequest {
            session_timeout: Duration::from_millis(ms),
            ..newcomer("a")
        };
        assert_eq!(
            coordinator.join(request).await,
            Err(GroupError::InvalidSessionTimeout)
        );
    }
    for ms in [6_000, 1_800_000] {
        let request = JoinRequest {
            session_timeout: Duration::from_millis(ms),
            ..newcomer("a")
        };
        send_join(&coordinator, request).await;
    }
    assert_eq!(coordinator.describe(GROUP).unwrap().members.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_needs_a_name() {
    let coordinator = coordinator();
    let request = JoinRequest {
        group_id: String::new(),
        ..newcomer("a")
    };
    assert_eq!(
        coordinator.join(request).await,
        Err(GroupError::InvalidGroupId)
    );
    let unnamed = LeaveRequest {
        group_id: String::new(),
        members: Vec::new(),
    };
    assert_eq!(coordinator.leave(&unnamed), Err(GroupError::InvalidGroupId));
}

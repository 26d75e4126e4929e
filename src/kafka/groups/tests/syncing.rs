//! SyncGroup, heartbeats, leaving.

use super::*;

async fn joined_pair(coordinator: &Coordinator) -> (JoinResponse, JoinResponse) {
    let first = send_join(coordinator, newcomer("a")).await;
    let second = send_join(coordinator, newcomer("b")).await;
    let (first, second) = (
        first.await.unwrap().unwrap(),
        second.await.unwrap().unwrap(),
    );
    if first.leader_id == first.member_id {
        (first, second)
    } else {
        (second, first)
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_the_leader_longer_than_its_session() {
    let coordinator = coordinator();
    let (leader, follower) = joined_pair(&coordinator).await;
    let waiting = send_sync(&coordinator, sync_of(&follower, &[])).await;
    for _ in 0..5 {
        tokio::time::sleep(SESSION / 2).await;
        assert_eq!(coordinator.heartbeat(&beat(1, &leader.member_id)), Ok(()));
    }
    assert!(!waiting.is_finished());
    let shares = [(follower.member_id.as_str(), "mine")];
    coordinator.sync(sync_of(&leader, &shares)).await.unwrap();
    assert_eq!(
        waiting.await.unwrap().unwrap().assignment,
        "mine".as_bytes()
    );
}

#[tokio::test(start_paused = true)]
async fn shares_are_the_leaders_to_the_byte_before_and_after_it_spoke() {
    let coordinator = coordinator();
    let (leader, follower) = joined_pair(&coordinator).await;
    let early = send_sync(
        &coordinator,
        sync_of(&follower, &[("x", "a follower's word")]),
    )
    .await;
    assert!(!early.is_finished());
    let big = "7".repeat(200_000);
    let shares = [
        (leader.member_id.as_str(), "own"),
        (follower.member_id.as_str(), big.as_str()),
    ];
    let own = coordinator.sync(sync_of(&leader, &shares)).await.unwrap();
    assert_eq!(own.assignment, "own".as_bytes());
    assert_eq!(
        (own.protocol_type.as_str(), own.protocol_name.as_str()),
        ("consumer", "range")
    );
    assert_eq!(early.await.unwrap().unwrap().assignment, big.as_bytes());
    let late = coordinator.sync(sync_of(&follower, &[])).await.unwrap();
    assert_eq!(late.assignment, big.as_bytes());
    let changed = [(follower.member_id.as_str(), "a second thought")];
    let again = coordinator.sync(sync_of(&leader, &changed)).await.unwrap();
    assert_eq!(
        again.assignment,
        "own".as_bytes(),
        "a generation has one assignment"
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_the_leader_left_out_gets_an_empty_share() {
    let coordinator = coordinator();
    let (leader, follower) = joined_pair(&coordinator).await;
    let shares = [(leader.member_id.as_str(), "all"), ("nobody", "lost")];
    coordinator.sync(sync_of(&leader, &shares)).await.unwrap();
    assert!(
        coordinator
            .sync(sync_of(&follower, &[]))
            .await
            .unwrap()
            .assignment
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn sync_is_refused_by_member_generation_and_protocol() {
    let coordinator = coordinator();
    let (leader, _) = joined_pair(&coordinator).await;
    let good = sync_of(&leader, &[]);
    let with = |f: fn(&mut SyncRequest)| {
        let mut request = good.clone();
        f(&mut request);
        request
    };
    let cases = [
        (
            with(|r| r.member_id = "ghost".to_owned()),
            GroupError::UnknownMemberId,
        ),
        (
            with(|r| r.group_id = "other".to_owned()),
            GroupError::UnknownMemberId,
        ),
        (with(|r| r.generation_id = 0), GroupError::IllegalGeneration),
        (with(|r| r.generation_id = 2), GroupError::IllegalGeneration),
        (
            with(|r| r.protocol_type = Some("connect".to_owned())),
            GroupError::InconsistentGroupProtocol,
        ),
        (
            with(|r| r.protocol_name = Some("sticky".to_owned())),
            GroupError::InconsistentGroupProtocol,
        ),
        (
            with(|r| r.group_instance_id = Some("nobody".to_owned())),
            GroupError::UnknownMemberId,
        ),
    ];
    for (request, error) in cases {
        assert_eq!(
            coordinator.sync(request.clone()).await,
            Err(error),
            "{request:?}"
        );
    }
    let named = with(|r| {
        r.protocol_type = Some("consumer".to_owned());
        r.protocol_name = Some("range".to_owned());
    });
    assert!(coordinator.sync(named).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_sends_waiting_followers_back_to_join() {
    let coordinator = coordinator();
    let (_, follower) = joined_pair(&coordinator).await;
    let waiting = send_sync(&coordinator, sync_of(&follower, &[])).await;
    send_join(&coordinator, newcomer("c")).await;
    assert_eq!(waiting.await.unwrap(), Err(GroupError::RebalanceInProgress));
    let told = coordinator.sync(sync_of(&follower, &[])).await;
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_costs_the_followers_one_session_timeout_not_their_lives() {
    let coordinator = coordinator();
    let (_, follower) = joined_pair(&coordinator).await;
    let start = Instant::now();
    let waiting = send_sync(&coordinator, sync_of(&follower, &[])).await;
    assert_eq!(waiting.await.unwrap(), Err(GroupError::RebalanceInProgress));
    assert!(start.elapsed() <= SESSION, "{:?}", start.elapsed());
    let joined = coordinator
        .join(back(&follower.member_id, "b"))
        .await
        .unwrap();
    assert_eq!(
        (joined.generation_id, &joined.leader_id),
        (2, &follower.member_id)
    );
}

#[tokio::test(start_paused = true)]
async fn a_member_that_beats_but_never_syncs_is_removed_after_the_rebalance_timeout() {
    let coordinator = coordinator();
    let (leader, follower) = joined_pair(&coordinator).await;
    coordinator.sync(sync_of(&leader, &[])).await.unwrap();
    let start = Instant::now();
    while coordinator.heartbeat(&beat(1, &follower.member_id)).is_ok() {
        assert_eq!(coordinator.heartbeat(&beat(1, &leader.member_id)), Ok(()));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let waited = start.elapsed();
    assert!(
        waited.abs_diff(REBALANCE) <= Duration::from_secs(1),
        "{waited:?}"
    );
    let told = coordinator.heartbeat(&beat(1, &follower.member_id));
    assert_eq!(told, Err(GroupError::UnknownMemberId));
    let told = coordinator.heartbeat(&beat(1, &leader.member_id));
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_judged_by_member_generation_and_phase() {
    let coordinator = coordinator();
    assert_eq!(
        coordinator.heartbeat(&beat(1, "ghost")),
        Err(GroupError::UnknownMemberId)
    );
    let (leader, follower) = joined_pair(&coordinator).await;
    assert_eq!(
        coordinator.heartbeat(&beat(1, &follower.member_id)),
        Ok(()),
        "before its sync"
    );
    coordinator.sync(sync_of(&leader, &[])).await.unwrap();
    assert_eq!(coordinator.heartbeat(&beat(1, &leader.member_id)), Ok(()));
    let old = coordinator.heartbeat(&beat(0, &leader.member_id));
    assert_eq!(old, Err(GroupError::IllegalGeneration));
    assert_eq!(
        coordinator.heartbeat(&beat(1, "ghost")),
        Err(GroupError::UnknownMemberId)
    );
    send_join(&coordinator, newcomer("c")).await;
    let told = coordinator.heartbeat(&beat(1, &leader.member_id));
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_leaves_gives_its_partitions_away_at_once() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    leave(&coordinator, &members[0].member_id).unwrap();
    let told = coordinator.heartbeat(&beat(1, &members[1].member_id));
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
    let start = Instant::now();
    let joined = coordinator
        .join(back(&members[1].member_id, "b"))
        .await
        .unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
    assert_eq!(
        leave(&coordinator, &members[0].member_id),
        Err(GroupError::UnknownMemberId)
    );
}

#[tokio::test(start_paused = true)]
async fn several_members_leave_in_one_request_each_with_its_own_outcome() {
    let coordinator = coordinator();
    let requests = vec![newcomer("a"), named("box-1"), named("box-2")];
    let members = stable_group(&coordinator, requests).await;
    let dynamic = members
        .iter()
        .find(|m| m.member_id.starts_with("client-"))
        .unwrap();
    let leaving = |member_id: &str, instance_id: Option<&str>| LeavingMember {
        member_id: member_id.to_owned(),
        group_instance_id: instance_id.map(str::to_owned),
    };
    let request = LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![
            leaving("", Some("box-1")),
            leaving("ghost", None),
            leaving("stale", Some("box-2")),
            leaving("", Some("box-3")),
            leaving("", None),
            leaving(&dynamic.member_id, None),
        ],
    };
    let outcomes = coordinator.leave(&request).unwrap();
    let named: Vec<&LeavingMember> = outcomes.iter().map(|o| &o.member).collect();
    assert_eq!(named, request.members.iter().collect::<Vec<_>>());
    let results: Vec<_> = outcomes.into_iter().map(|o| o.result).collect();
    let unknown = Err(GroupError::UnknownMemberId);
    let fenced = Err(GroupError::FencedInstanceId);
    assert_eq!(
        results,
        [
            Ok(()),
            unknown.clone(),
            fenced,
            unknown.clone(),
            unknown,
            Ok(())
        ]
    );
    let left = coordinator.describe(GROUP).unwrap().members;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].group_instance_id.as_deref(), Some("box-2"));
}

#[tokio::test(start_paused = true)]
async fn leaving_while_waiting_ends_the_wait() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let waiting = send_join(&coordinator, back(&members[0].member_id, "new")).await;
    leave(&coordinator, &members[0].member_id).unwrap();
    assert_eq!(waiting.await.unwrap(), Err(GroupError::UnknownMemberId));
    let joined = coordinator
        .join(back(&members[1].member_id, "b"))
        .await
        .unwrap();
    let newcomer = send_join(&coordinator, newcomer("c")).await;
    coordinator
        .join(back(&joined.member_id, "b"))
        .await
        .unwrap();
    let follower = newcomer.await.unwrap().unwrap();
    let waiting = send_sync(&coordinator, sync_of(&follower, &[])).await;
    leave(&coordinator, &follower.member_id).unwrap();
    assert_eq!(waiting.await.unwrap(), Err(GroupError::UnknownMemberId));
}

#[tokio::test(start_paused = true)]
async fn a_handed_out_id_can_be_given_back() {
    let coordinator = coordinator();
    let request = JoinRequest {
        requires_member_id: true,
        ..newcomer("a")
    };
    let error = coordinator.join(request.clone()).await.unwrap_err();
    let GroupError::MemberIdRequired { member_id } = error else {
        panic!("{error}")
    };
    assert_eq!(leave(&coordinator, &member_id), Ok(()));
    let late = coordinator
        .join(JoinRequest {
            member_id,
            ..request
        })
        .await;
    assert_eq!(late, Err(GroupError::UnknownMemberId));
}

#[tokio::test(start_paused = true)]
async fn describe_and_list_show_what_administrators_see() {
    let coordinator = coordinator();
    assert_eq!(coordinator.describe(GROUP), None);
    let joined = coordinator.join(newcomer("a")).await.unwrap();
    let hidden = coordinator.describe(GROUP).unwrap();
    assert_eq!(hidden.state.to_string(), "CompletingRebalance");
    assert!(hidden.protocol_name.is_empty() && hidden.members[0].metadata.is_empty());
    synced(&coordinator, std::slice::from_ref(&joined)).await;
    let shown = coordinator.describe(GROUP).unwrap();
    assert_eq!(
        (shown.state.to_string().as_str(), shown.generation_id),
        ("Stable", 1)
    );
    assert_eq!(
        (shown.protocol_type.as_str(), shown.protocol_name.as_str()),
        ("consumer", "range")
    );
    assert_eq!(shown.leader_id.as_ref(), Some(&joined.member_id));
    let member = MemberDescription {
        member_id: joined.member_id,
        group_instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        metadata: Bytes::from_static(b"a"),
        assignment: Bytes::from_static(b"share-0"),
    };
    assert_eq!(shown.members, [member]);
    let summary = GroupSummary {
        group_id: GROUP.to_owned(),
        protocol_type: "consumer".to_owned(),
        state: GroupState::Stable,
    };
    assert_eq!(coordinator.list(), [summary]);
}

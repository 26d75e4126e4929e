//! Members that fall silent.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_silent_member_is_removed_when_its_session_ends() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let (alive, silent) = (&members[0], &members[1]);
    let start = Instant::now();
    while coordinator.heartbeat(&beat(1, &alive.member_id)).is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let waited = start.elapsed();
    assert!(
        waited.abs_diff(SESSION) <= Duration::from_millis(200),
        "{waited:?}"
    );
    let told = coordinator.heartbeat(&beat(1, &silent.member_id));
    assert_eq!(told, Err(GroupError::UnknownMemberId));
    let joined = coordinator.join(back(&alive.member_id, "a")).await.unwrap();
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_a_session_alive_for_ever() {
    let coordinator = coordinator();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    for _ in 0..1_000 {
        tokio::time::sleep(SESSION - Duration::from_millis(10)).await;
        assert_eq!(coordinator.heartbeat(&beat(1, &member.member_id)), Ok(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_of_silent_members_ends_up_empty() {
    let coordinator = coordinator();
    stable_group(
        &coordinator,
        vec![newcomer("a"), newcomer("b"), newcomer("c")],
    )
    .await;
    tokio::time::sleep(SESSION + Duration::from_millis(1)).await;
    let empty = coordinator.describe(GROUP).unwrap();
    assert_eq!((empty.state, empty.members.len()), (GroupState::Empty, 0));
    assert_eq!(empty.generation_id, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rebalance_does_not_wait_for_a_member_whose_session_ended() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let start = Instant::now();
    let joined = coordinator
        .join(back(&members[0].member_id, "new"))
        .await
        .unwrap();
    assert_eq!(joined.members.len(), 1);
    assert!(start.elapsed() <= SESSION, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_waits_for_others_needs_no_heartbeat() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let (waiting, slow) = (&members[0], &members[1]);
    let joining = send_join(&coordinator, back(&waiting.member_id, "new")).await;
    for _ in 0..10 {
        tokio::time::sleep(SESSION / 2).await;
        drop(coordinator.heartbeat(&beat(1, &slow.member_id)));
        assert!(!joining.is_finished());
    }
    coordinator.join(back(&slow.member_id, "b")).await.unwrap();
    let joined = joining.await.unwrap().unwrap();
    assert_eq!(joined.members.len(), 2);
    assert_eq!(coordinator.heartbeat(&beat(2, &waiting.member_id)), Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_hung_up_while_it_waited_loses_its_session() {
    let coordinator = coordinator();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let (gone, slow) = (&members[0], &members[1]);
    send_join(&coordinator, back(&gone.member_id, "new"))
        .await
        .abort();
    for _ in 0..3 {
        tokio::time::sleep(SESSION / 2).await;
        drop(coordinator.heartbeat(&beat(1, &slow.member_id)));
    }
    let left = coordinator.describe(GROUP).unwrap().members;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].member_id, slow.member_id);
}

#[tokio::test(start_paused = true)]
async fn after_shutting_down_everything_is_refused() {
    let coordinator = coordinator();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    coordinator.shut_down();
    let closed = GroupError::CoordinatorNotAvailable;
    assert_eq!(coordinator.join(newcomer("b")).await, Err(closed.clone()));
    assert_eq!(
        coordinator.join(back(&member.member_id, "a")).await,
        Err(closed.clone())
    );
    assert_eq!(
        coordinator.sync(sync_of(&member, &[])).await,
        Err(closed.clone())
    );
    assert_eq!(
        coordinator.heartbeat(&beat(1, &member.member_id)),
        Err(closed.clone())
    );
    assert_eq!(coordinator.leave(&leaving(&member.member_id)), Err(closed));
    assert!(coordinator.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn shutting_down_ends_a_wait_at_once() {
    let coordinator = coordinator();
    let joining = send_join(&coordinator, newcomer("a")).await;
    let start = Instant::now();
    coordinator.shut_down();
    assert_eq!(
        joining.await.unwrap(),
        Err(GroupError::CoordinatorNotAvailable)
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
}

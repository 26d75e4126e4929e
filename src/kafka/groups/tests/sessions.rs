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

/// A coordinator over what another one has saved, as after a restart.
async fn restarted(before: &Coordinator, store: &Arc<MemoryStore>) -> Coordinator {
    before.keep_groups(std::future::ready(())).await;
    before.shut_down();
    let store: Arc<dyn super::super::offsets::OffsetStore> = store.clone();
    Coordinator::with_store(store, GroupsConfig::default(), || 1_700_000_000_000)
}

#[tokio::test(start_paused = true)]
async fn a_stable_group_goes_on_after_a_restart() {
    let store = Arc::new(MemoryStore::default());
    let kept: Arc<dyn super::super::offsets::OffsetStore> = store.clone();
    let coordinator = Coordinator::with_store(kept, GroupsConfig::default(), || 0);
    let joined = coordinator.join(named("host-1")).await.unwrap();
    let mut sync = sync_of(&joined, &[(&joined.member_id, "all of it")]);
    sync.group_instance_id = Some("host-1".to_owned());
    coordinator.sync(sync).await.unwrap();
    let described = coordinator.describe(GROUP).unwrap();

    let coordinator = restarted(&coordinator, &store).await;
    assert_eq!(coordinator.describe(GROUP).unwrap(), described);
    let mut beat = beat(joined.generation_id, &joined.member_id);
    beat.group_instance_id = Some("host-1".to_owned());
    coordinator.heartbeat(&beat).unwrap();
    // The instance comes back under a new member id, and gets its share without a rebalance.
    let again = coordinator.join(named("host-1")).await.unwrap();
    assert_eq!(again.generation_id, joined.generation_id);
    assert_ne!(again.member_id, joined.member_id);
    let coordinator = restarted(&coordinator, &store).await;
    assert_eq!(
        coordinator.heartbeat(&beat),
        Err(GroupError::FencedInstanceId)
    );
    beat.member_id = again.member_id;
    coordinator.heartbeat(&beat).unwrap();
    // It is silent for longer than its session: it is out, and the group empty, for good.
    tokio::time::sleep(SESSION + Duration::from_secs(1)).await;
    assert_eq!(
        coordinator.heartbeat(&beat),
        Err(GroupError::UnknownMemberId)
    );
    let coordinator = restarted(&coordinator, &store).await;
    let described = coordinator.describe(GROUP).unwrap();
    assert_eq!(described.state, GroupState::Empty);
    assert_eq!(described.generation_id, joined.generation_id + 1);
    assert_eq!(described.protocol_type, "consumer");
    // Deleted is deleted.
    coordinator.delete(GROUP).await.unwrap();
    let coordinator = restarted(&coordinator, &store).await;
    assert!(coordinator.describe(GROUP).is_none());
}

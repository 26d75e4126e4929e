//! Who may commit, and when a commit is answered.

use super::store::TOPIC;
use super::*;
use holdfast_storage::log::{AppendError, CommittedOffset, Log, LogOptions, NewTopic, TopicId};
use uuid::Uuid;

fn with_store() -> (Coordinator, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::default());
    let offsets: Arc<dyn super::super::offsets::OffsetStore> = store.clone();
    (
        Coordinator::with_store(offsets, GroupsConfig::default(), || 1_700_000_000_000),
        store,
    )
}

fn to_commit(partition: i32, offset: i64) -> OffsetToCommit {
    OffsetToCommit {
        topic: TOPIC,
        partition,
        offset,
        leader_epoch: 3,
        metadata: "note".to_owned(),
    }
}

fn commit(generation_id: i32, member_id: &str, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: GROUP.to_owned(),
        generation_id,
        member_id: member_id.to_owned(),
        group_instance_id: None,
        offsets: vec![to_commit(0, offset)],
        within: None,
    }
}

async fn outcome(coordinator: &Coordinator, request: CommitRequest) -> Result<(), GroupError> {
    coordinator.commit_offsets(request).await?.remove(0).result
}

fn committed(coordinator: &Coordinator) -> Option<i64> {
    let request = FetchRequest {
        group_id: GROUP.to_owned(),
        partitions: Some(vec![(TOPIC, 0)]),
        require_stable: false,
    };
    let fetched = coordinator.fetch_offsets(&request).remove(0);
    fetched.committed.map(|c| c.offset)
}

#[tokio::test(start_paused = true)]
async fn a_simple_consumer_commits_and_fetches_without_joining() {
    let (coordinator, _) = with_store();
    assert_eq!(committed(&coordinator), None);
    let mut request = commit(-1, "", 5);
    request.offsets.push(to_commit(1, 6));
    let outcomes = coordinator.commit_offsets(request).await.unwrap();
    assert!(outcomes.iter().all(|o| o.result.is_ok()), "{outcomes:?}");
    let all = FetchRequest {
        group_id: GROUP.to_owned(),
        partitions: None,
        require_stable: false,
    };
    let expected = |partition, offset| FetchedOffset {
        topic: TOPIC,
        partition,
        committed: Some(CommittedOffset {
            offset,
            leader_epoch: 3,
            metadata: "note".to_owned(),
            commit_timestamp_ms: 1_700_000_000_000,
        }),
        is_unstable: false,
    };
    assert_eq!(
        coordinator.fetch_offsets(&all),
        [expected(0, 5), expected(1, 6)]
    );
    assert_eq!(coordinator.list()[0].group_id, GROUP);
    let described = coordinator.describe(GROUP).unwrap();
    assert_eq!(
        (described.state, described.members.len()),
        (GroupState::Empty, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn offsets_expire_when_nobody_is_there_and_nothing_was_committed() {
    const DAY_MS: i64 = 24 * 3_600_000;
    let (coordinator, store) = with_store();
    let begun = 1_700_000_000_000;
    let expire = async |days: i64, held: &[&str]| {
        let now_ms = begun + days * DAY_MS;
        let registry = &coordinator.registry;
        super::super::offsets::expire(registry, store.as_ref(), now_ms, held)
            .await
            .unwrap();
        committed(&coordinator)
    };
    outcome(&coordinator, commit(-1, "", 5)).await.unwrap();
    let days = |n: u64| tokio::time::advance(Duration::from_secs(n * 24 * 3600));
    // Who joins keeps them, however old they are.
    let joined = coordinator.join(newcomer("m")).await.unwrap();
    assert_eq!(expire(8, &[]).await, Some(5));
    days(8).await;
    let leaving = LeavingMember {
        member_id: joined.member_id,
        group_instance_id: None,
    };
    let _ = coordinator.leave(&LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![leaving],
    });
    assert_eq!(expire(8, &[]).await, Some(5));
    days(6).await;
    assert_eq!(expire(14, &[]).await, Some(5));
    days(2).await;
    assert_eq!(expire(16, &[GROUP]).await, Some(5));
    // Committed without joining, a day ago.
    assert_eq!(expire(7, &[]).await, Some(5));
    assert_eq!(expire(16, &[]).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_not_answered_before_it_is_durable() {
    let (coordinator, store) = with_store();
    store
        .disk
        .forget_permits(tokio::sync::Semaphore::MAX_PERMITS);
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    let request = commit(1, &member.member_id, 9);
    let waiting = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { coordinator.commit_offsets(request).await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    assert_eq!(committed(&coordinator), None);
    assert_eq!(
        coordinator.heartbeat(&beat(1, &member.member_id)),
        Ok(()),
        "nobody else waits"
    );
    store.disk.add_permits(1);
    assert_eq!(waiting.await.unwrap().unwrap()[0].result, Ok(()));
    assert_eq!(committed(&coordinator), Some(9));
}

#[tokio::test(start_paused = true)]
async fn a_member_commits_in_its_own_generation_only() {
    let (coordinator, _) = with_store();
    let members = stable_group(&coordinator, vec![newcomer("a"), newcomer("b")]).await;
    let own = &members[1].member_id;
    assert_eq!(outcome(&coordinator, commit(1, own, 1)).await, Ok(()));
    let refused = [
        (commit(0, own, 2), GroupError::IllegalGeneration),
        (commit(2, own, 2), GroupError::IllegalGeneration),
        (commit(-1, own, 2), GroupError::IllegalGeneration),
        (commit(1, "ghost", 2), GroupError::UnknownMemberId),
        (commit(1, "", 2), GroupError::UnknownMemberId),
        (commit(-1, "", 2), GroupError::UnknownMemberId),
    ];
    for (request, error) in refused {
        assert_eq!(
            outcome(&coordinator, request.clone()).await,
            Err(error),
            "{request:?}"
        );
    }
    assert_eq!(committed(&coordinator), Some(1));
}

#[tokio::test(start_paused = true)]
async fn members_commit_while_a_rebalance_gathers_but_not_before_the_new_share() {
    let (coordinator, _) = with_store();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    let newcomer = send_join(&coordinator, newcomer("b")).await;
    assert_eq!(state(&coordinator), GroupState::PreparingRebalance);
    assert_eq!(
        outcome(&coordinator, commit(1, &member.member_id, 4)).await,
        Ok(())
    );
    let joined = coordinator
        .join(back(&member.member_id, "a"))
        .await
        .unwrap();
    let early = outcome(&coordinator, commit(2, &member.member_id, 5)).await;
    assert_eq!(early, Err(GroupError::RebalanceInProgress));
    let late = outcome(&coordinator, commit(1, &member.member_id, 5)).await;
    assert_eq!(late, Err(GroupError::IllegalGeneration));
    synced(&coordinator, &[joined, newcomer.await.unwrap().unwrap()]).await;
    assert_eq!(
        outcome(&coordinator, commit(2, &member.member_id, 6)).await,
        Ok(())
    );
    assert_eq!(committed(&coordinator), Some(6));
}

#[tokio::test(start_paused = true)]
async fn a_commit_keeps_the_session_alive() {
    let (coordinator, _) = with_store();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    for offset in 0..10 {
        tokio::time::sleep(SESSION - Duration::from_millis(10)).await;
        assert_eq!(
            outcome(&coordinator, commit(1, &member.member_id, offset)).await,
            Ok(())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_from_before_a_restart_is_sent_back_to_join() {
    let (coordinator, store) = with_store();
    let unknown = outcome(&coordinator, commit(4, "m", 1)).await;
    assert_eq!(
        unknown,
        Err(GroupError::GroupIdNotFound),
        "a group nobody has heard of"
    );
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    outcome(&coordinator, commit(1, &member.member_id, 8))
        .await
        .unwrap();
    let restarted = Coordinator::with_store(store, GroupsConfig::default(), || 0);
    let told = GroupError::UnknownMemberId;
    let late = outcome(&restarted, commit(1, &member.member_id, 9)).await;
    assert_eq!(late, Err(told.clone()));
    assert_eq!(
        restarted.heartbeat(&beat(1, &member.member_id)),
        Err(told.clone())
    );
    assert_eq!(
        restarted.sync(sync_of(&member, &[])).await,
        Err(told.clone())
    );
    assert_eq!(
        restarted.join(back(&member.member_id, "a")).await,
        Err(told.clone())
    );
    assert_eq!(leave(&restarted, &member.member_id), Err(told));
    restarted.join(newcomer("a")).await.unwrap();
    assert_eq!(committed(&restarted), Some(8));
}

#[tokio::test(start_paused = true)]
async fn an_emptied_group_takes_simple_commits_again() {
    let (coordinator, _) = with_store();
    let member = stable_group(&coordinator, vec![newcomer("a")])
        .await
        .remove(0);
    leave(&coordinator, &member.member_id).unwrap();
    assert_eq!(outcome(&coordinator, commit(-1, "", 3)).await, Ok(()));
    let old = outcome(&coordinator, commit(1, &member.member_id, 4)).await;
    assert_eq!(old, Err(GroupError::UnknownMemberId));
    assert_eq!(committed(&coordinator), Some(3));
}

#[tokio::test(start_paused = true)]
async fn each_partition_is_judged_by_itself() {
    let (coordinator, _) = with_store();
    let mut request = commit(-1, "", 5);
    request.offsets.push(to_commit(2, 1));
    request.offsets.push(OffsetToCommit {
        topic: TopicId(Uuid::nil()),
        ..to_commit(0, 1)
    });
    request.offsets.push(to_commit(1, -1));
    request.offsets.push(OffsetToCommit {
        metadata: "x".repeat(4_097),
        ..to_commit(1, 1)
    });
    request.offsets.push(OffsetToCommit {
        metadata: "x".repeat(4_096),
        ..to_commit(1, 7)
    });
    let results: Vec<_> = coordinator
        .commit_offsets(request)
        .await
        .unwrap()
        .into_iter()
        .map(|o| o.result)
        .collect();
    let expected = [
        Ok(()),
        Err(GroupError::UnknownTopicOrPartition),
        Err(GroupError::UnknownTopicOrPartition),
        // A negative one is kept as it is, as Kafka does.
        Ok(()),
        Err(GroupError::OffsetMetadataTooLarge),
        Ok(()),
    ];
    assert_eq!(results, expected);
    let all = FetchRequest {
        group_id: GROUP.to_owned(),
        partitions: None,
        require_stable: false,
    };
    assert_eq!(coordinator.fetch_offsets(&all).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_refuses_is_never_reported_as_success() {
    let (coordinator, store) = with_store();
    let cases = [
        (
            AppendError::Storage("disk".to_owned()),
            GroupError::KafkaStorageError,
        ),
        (AppendError::Closed, GroupError::CoordinatorNotAvailable),
        (
            AppendError::TooLarge {
                bytes: 2,
                bytes_max: 1,
            },
            GroupError::InvalidCommitOffsetSize,
        ),
    ];
    for (failure, error) in cases {
        *store.failure.lock().unwrap() = Some(failure);
        assert_eq!(outcome(&coordinator, commit(-1, "", 5)).await, Err(error));
    }
    assert_eq!(committed(&coordinator), None);
}

#[tokio::test]
async fn commits_outlive_the_process_and_membership_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let config = || GroupsConfig {
        initial_rebalance_delay_ms: 0,
        ..GroupsConfig::default()
    };
    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let topic = NewTopic {
        name: "t".to_owned(),
        partitions: 2,
        configs: Vec::new(),
    };
    let topic = log.create_topic(topic).await.unwrap().id();
    let coordinator = Coordinator::new(log.clone(), config(), || 1_700_000_000_000);
    let joined = coordinator.join(newcomer("a")).await.unwrap();
    coordinator.sync(sync_of(&joined, &[])).await.unwrap();
    let offset = |partition, offset| OffsetToCommit {
        topic,
        ..to_commit(partition, offset)
    };
    let mut request = commit(1, &joined.member_id, 0);
    request.offsets = vec![offset(0, 41), offset(2, 1)];
    let results: Vec<_> = coordinator
        .commit_offsets(request)
        .await
        .unwrap()
        .into_iter()
        .map(|o| o.result)
        .collect();
    assert_eq!(results, [Ok(()), Err(GroupError::UnknownTopicOrPartition)]);
    log.close();
    drop((coordinator, log));

    let log = Log::open(LogOptions::new(dir.path())).unwrap();
    let coordinator = Coordinator::new(log, config(), || 0);
    let all = FetchRequest {
        group_id: GROUP.to_owned(),
        partitions: None,
        require_stable: false,
    };
    let fetched = coordinator.fetch_offsets(&all);
    assert_eq!(fetched.len(), 1);
    assert_eq!((fetched[0].topic, fetched[0].partition), (topic, 0));
    let committed = fetched[0].committed.clone().unwrap();
    assert_eq!((committed.offset, committed.leader_epoch), (41, 3));
    assert_eq!(
        (committed.metadata.as_str(), committed.commit_timestamp_ms),
        ("note", 1_700_000_000_000)
    );
    assert_eq!(state(&coordinator), GroupState::Empty);
    let told = coordinator.heartbeat(&beat(1, &joined.member_id));
    assert_eq!(told, Err(GroupError::UnknownMemberId));
}

//! Committed offsets: judged here, kept by the log.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use holdfast_storage::log::{AppendError, CommittedOffset, Log, OffsetCommit, TopicId};

use super::registry::Registry;
use super::{
    CommitOutcome, CommitRequest, FetchRequest, FetchedOffset, GroupDescription, GroupError,
    GroupState, GroupSummary, OffsetToCommit, WithinTransaction,
};

pub(super) type Writing<'a> = Pin<Box<dyn Future<Output = Result<(), AppendError>> + Send + 'a>>;

/// Where committed offsets live: the log, or a stand-in with faults in tests.
pub(super) trait OffsetStore: Send + Sync {
    /// Resolves when the offsets are durable.
    fn commit<'a>(&'a self, group_id: &'a str, commits: Vec<OffsetCommit>) -> Writing<'a>;
    /// Resolves when the offsets are durably part of the transaction.
    fn commit_within<'a>(
        &'a self,
        within: &'a WithinTransaction,
        group_id: &'a str,
        commits: Vec<OffsetCommit>,
    ) -> Writing<'a>;
    /// A transaction that is not over is to commit an offset there.
    fn is_pending(&self, group_id: &str, topic: TopicId, partition: i32) -> bool;
    fn committed(&self, group_id: &str, topic: TopicId, partition: i32) -> Option<CommittedOffset>;
    fn all_committed(&self, group_id: &str) -> Vec<(TopicId, i32, CommittedOffset)>;
    fn groups(&self) -> Vec<String>;
    /// Resolves when those that are still as given are durably gone.
    fn forget<'a>(
        &'a self,
        group_id: &'a str,
        offsets: Vec<(TopicId, i32, CommittedOffset)>,
    ) -> Writing<'a>;
    fn has_partition(&self, topic: TopicId, partition: i32) -> bool;
    /// Resolves when the group's state is durable; `None` removes it.
    fn save_group<'a>(&'a self, group_id: &'a str, state: Option<Bytes>) -> Writing<'a>;
    fn saved_groups(&self) -> Vec<(String, Bytes)>;
}

/// Kind of the settings that are groups.
const GROUP_KIND: &str = "kafka.group";

impl OffsetStore for Log {
    fn commit<'a>(&'a self, group_id: &'a str, commits: Vec<OffsetCommit>) -> Writing<'a> {
        Box::pin(self.commit_offsets(group_id, commits))
    }

    fn commit_within<'a>(
        &'a self,
        within: &'a WithinTransaction,
        group_id: &'a str,
        commits: Vec<OffsetCommit>,
    ) -> Writing<'a> {
        let id = within.transactional_id.as_str();
        let (producer, adds) = (within.producer, within.adds);
        Box::pin(async move {
            let added = self.add_offsets_to_transaction(id, producer, group_id, commits, adds);
            Ok(added.await?)
        })
    }

    fn is_pending(&self, group_id: &str, topic: TopicId, partition: i32) -> bool {
        self.is_offset_pending(group_id, topic, partition)
    }

    fn committed(&self, group_id: &str, topic: TopicId, partition: i32) -> Option<CommittedOffset> {
        self.committed_offset(group_id, topic, partition)
    }

    fn all_committed(&self, group_id: &str) -> Vec<(TopicId, i32, CommittedOffset)> {
        self.committed_offsets(group_id)
    }

    fn groups(&self) -> Vec<String> {
        Log::groups(self)
    }

    fn forget<'a>(
        &'a self,
        group_id: &'a str,
        offsets: Vec<(TopicId, i32, CommittedOffset)>,
    ) -> Writing<'a> {
        Box::pin(self.forget_offsets(group_id, offsets))
    }

    fn has_partition(&self, topic: TopicId, partition: i32) -> bool {
        self.topic_by_id(topic)
            .is_some_and(|topic| topic.partition(partition).is_some())
    }

    fn save_group<'a>(&'a self, group_id: &'a str, state: Option<Bytes>) -> Writing<'a> {
        Box::pin(self.put_setting(GROUP_KIND, group_id, state))
    }

    fn saved_groups(&self) -> Vec<(String, Bytes)> {
        self.settings(GROUP_KIND)
    }
}

pub(super) async fn commit(
    registry: &Registry,
    store: &dyn OffsetStore,
    now_ms: i64,
    request: CommitRequest,
) -> Result<Vec<CommitOutcome>, GroupError> {
    let metadata_bytes_max = registry.config().offset_metadata_bytes_max;
    let mut commits = Vec::with_capacity(request.offsets.len());
    let mut outcomes = Vec::with_capacity(request.offsets.len());
    for offset in &request.offsets {
        let result = judge(store, metadata_bytes_max, now_ms, offset).map(|c| commits.push(c));
        outcomes.push(CommitOutcome {
            topic: offset.topic,
            partition: offset.partition,
            result,
        });
    }
    if let Err(error) = write(registry, store, &request, commits).await? {
        for outcome in outcomes.iter_mut().filter(|outcome| outcome.result.is_ok()) {
            outcome.result = Err(error.clone());
        }
    }
    Ok(outcomes)
}

/// Removes the offsets of groups that nobody has been in, and that were not committed, for as long as
/// offsets are kept (KIP-211). `held`: groups whose members are no Kafka clients.
pub(super) async fn expire(
    registry: &Registry,
    store: &dyn OffsetStore,
    now_ms: i64,
    held: &[&str],
) -> Result<(), AppendError> {
    let retention = Duration::from_millis(registry.config().offsets_retention_ms);
    let before_ms = now_ms.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX));
    for group_id in store.groups() {
        let empty_for = registry.empty_for(&group_id);
        if held.contains(&group_id.as_str()) || empty_for.is_none_or(|time| time < retention) {
            continue;
        }
        let mut expired = store.all_committed(&group_id);
        expired.retain(|(topic, partition, committed)| {
            committed.commit_timestamp_ms < before_ms
                && !store.is_pending(&group_id, *topic, *partition)
        });
        if expired.is_empty() {
            continue;
        }
        tracing::info!(
            group = group_id,
            offsets = expired.len(),
            "committed offsets expired"
        );
        store.forget(&group_id, expired).await?;
    }
    // Without members and offsets a group is nothing but a name.
    for group in registry.list() {
        let id = &group.group_id;
        let is_old = registry.empty_for(id).is_some_and(|time| time >= retention);
        if is_old && store.all_committed(id).is_empty() && !held.contains(&id.as_str()) {
            // Somebody may have joined since.
            let _ = registry.remove(id);
        }
    }
    Ok(())
}

fn judge(
    store: &dyn OffsetStore,
    metadata_bytes_max: usize,
    now_ms: i64,
    given: &OffsetToCommit,
) -> Result<OffsetCommit, GroupError> {
    if given.metadata.len() > metadata_bytes_max {
        return Err(GroupError::OffsetMetadataTooLarge);
    }
    if !store.has_partition(given.topic, given.partition) {
        return Err(GroupError::UnknownTopicOrPartition);
    }
    let committed = CommittedOffset {
        offset: given.offset,
        leader_epoch: given.leader_epoch,
        metadata: given.metadata.clone(),
        commit_timestamp_ms: now_ms,
    };
    Ok(OffsetCommit {
        topic: given.topic,
        partition: given.partition,
        committed,
    })
}

/// The outer error is the coordinator's refusal, the inner one the log's.
async fn write(
    registry: &Registry,
    store: &dyn OffsetStore,
    request: &CommitRequest,
    commits: Vec<OffsetCommit>,
) -> Result<Result<(), GroupError>, GroupError> {
    let mut writing: Writing<'_> = if commits.is_empty() {
        Box::pin(std::future::ready(Ok(())))
    } else {
        match &request.within {
            Some(within) => store.commit_within(within, &request.group_id, commits),
            None => store.commit(&request.group_id, commits),
        }
    };
    let mut permitted = false;
    // The first poll queues the write: it belongs to the same step of the group as the permission.
    poll_fn(|cx| {
        if permitted {
            return writing.as_mut().poll(cx).map(Ok);
        }
        permitted = true;
        let has_offsets = || !store.all_committed(&request.group_id).is_empty();
        match registry.commit(request, has_offsets, || writing.as_mut().poll(cx)) {
            Err(refused) => Poll::Ready(Err(refused)),
            Ok(polled) => polled.map(Ok),
        }
    })
    .await
    .map(|written| written.map_err(|error| failed(&request.group_id, error)))
}

fn failed(group_id: &str, error: AppendError) -> GroupError {
    tracing::error!(group = group_id, %error, "offsets were not committed");
    GroupError::from(error)
}

pub(super) fn fetch(store: &dyn OffsetStore, request: &FetchRequest) -> Vec<FetchedOffset> {
    let is_unstable = |topic, partition| {
        request.require_stable && store.is_pending(&request.group_id, topic, partition)
    };
    let Some(partitions) = &request.partitions else {
        let all = store.all_committed(&request.group_id).into_iter();
        return all
            .map(|(topic, partition, c)| FetchedOffset {
                topic,
                partition,
                committed: Some(c),
                is_unstable: is_unstable(topic, partition),
            })
            .collect();
    };
    partitions
        .iter()
        .map(|&(topic, partition)| FetchedOffset {
            topic,
            partition,
            committed: store.committed(&request.group_id, topic, partition),
            is_unstable: is_unstable(topic, partition),
        })
        .collect()
}

/// Removes a group without members, and what it has committed.
pub(super) async fn delete_group(
    registry: &Registry,
    store: &dyn OffsetStore,
    group_id: &str,
) -> Result<(), GroupError> {
    let was_there = registry.remove(group_id)?;
    let removed = store.save_group(group_id, None).await;
    removed.map_err(|error| failed(group_id, error))?;
    let offsets = store.all_committed(group_id);
    if offsets.is_empty() {
        return if was_there {
            Ok(())
        } else {
            Err(GroupError::GroupIdNotFound)
        };
    }
    let forgotten = store.forget(group_id, offsets).await;
    forgotten.map_err(|error| failed(group_id, error))
}

/// Removes what a group has committed in these partitions.
pub(super) async fn delete(
    store: &dyn OffsetStore,
    group_id: &str,
    partitions: &[(TopicId, i32)],
) -> Result<(), GroupError> {
    let committed = partitions.iter().filter_map(|&(topic, partition)| {
        let committed = store.committed(group_id, topic, partition)?;
        Some((topic, partition, committed))
    });
    let committed: Vec<_> = committed.collect();
    if committed.is_empty() {
        return Ok(());
    }
    let forgotten = store.forget(group_id, committed).await;
    forgotten.map_err(|error| failed(group_id, error))
}

/// A group of which nothing is left but its offsets, or that never had more.
pub(super) fn describe(store: &dyn OffsetStore, group_id: &str) -> Option<GroupDescription> {
    if store.all_committed(group_id).is_empty() {
        return None;
    }
    Some(GroupDescription {
        group_id: group_id.to_owned(),
        state: GroupState::Empty,
        protocol_type: String::new(),
        protocol_name: String::new(),
        generation_id: 0,
        leader_id: None,
        members: Vec::new(),
    })
}

pub(super) fn list(registry: &Registry, store: &dyn OffsetStore) -> Vec<GroupSummary> {
    let with_offsets = store.groups().into_iter().map(|group_id| GroupSummary {
        group_id,
        protocol_type: String::new(),
        state: GroupState::Empty,
    });
    let by_id: BTreeMap<String, GroupSummary> = with_offsets
        .chain(registry.list())
        .map(|s| (s.group_id.clone(), s))
        .collect();
    by_id.into_values().collect()
}

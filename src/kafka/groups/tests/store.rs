//! Committed offsets in memory, with a log that can be slow or broken.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use holdfast_storage::log::{AppendError, CommittedOffset, OffsetCommit, TopicId};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::kafka::groups::WithinTransaction;
use crate::kafka::groups::offsets::{OffsetStore, Writing};

/// The only topic there is; it has partitions 0 and 1.
pub(super) const TOPIC: TopicId = TopicId(Uuid::from_u128(7));

pub(super) struct MemoryStore {
    pub(super) groups: Mutex<BTreeMap<String, Bytes>>,
    rows: Mutex<BTreeMap<(String, TopicId, i32), CommittedOffset>>,
    pub(super) failure: Mutex<Option<AppendError>>,
    /// A permit is one fdatasync.
    pub(super) disk: Semaphore,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore {
            groups: Mutex::default(),
            rows: Mutex::default(),
            failure: Mutex::default(),
            disk: Semaphore::new(Semaphore::MAX_PERMITS),
        }
    }
}

impl OffsetStore for MemoryStore {
    fn commit<'a>(&'a self, group_id: &'a str, commits: Vec<OffsetCommit>) -> Writing<'a> {
        Box::pin(async move {
            self.disk.acquire().await.unwrap().forget();
            if let Some(error) = self.failure.lock().unwrap().clone() {
                return Err(error);
            }
            let mut rows = self.rows.lock().unwrap();
            for c in commits {
                rows.insert((group_id.to_owned(), c.topic, c.partition), c.committed);
            }
            Ok(())
        })
    }

    fn save_group<'a>(&'a self, group_id: &'a str, state: Option<Bytes>) -> Writing<'a> {
        let mut groups = self.groups.lock().unwrap();
        match state {
            Some(state) => groups.insert(group_id.to_owned(), state),
            None => groups.remove(group_id),
        };
        Box::pin(std::future::ready(Ok(())))
    }

    fn saved_groups(&self) -> Vec<(String, Bytes)> {
        let groups = self.groups.lock().unwrap();
        groups
            .iter()
            .map(|(id, state)| (id.clone(), state.clone()))
            .collect()
    }

    fn commit_within<'a>(
        &'a self,
        _: &'a WithinTransaction,
        group_id: &'a str,
        commits: Vec<OffsetCommit>,
    ) -> Writing<'a> {
        self.commit(group_id, commits)
    }

    fn is_pending(&self, _: &str, _: TopicId, _: i32) -> bool {
        false
    }

    fn committed(&self, group_id: &str, topic: TopicId, partition: i32) -> Option<CommittedOffset> {
        self.rows
            .lock()
            .unwrap()
            .get(&(group_id.to_owned(), topic, partition))
            .cloned()
    }

    fn all_committed(&self, group_id: &str) -> Vec<(TopicId, i32, CommittedOffset)> {
        let rows = self.rows.lock().unwrap();
        let of_group = rows.iter().filter(|((group, _, _), _)| group == group_id);
        of_group
            .map(|((_, topic, partition), c)| (*topic, *partition, c.clone()))
            .collect()
    }

    fn groups(&self) -> Vec<String> {
        let mut groups: Vec<String> = self
            .rows
            .lock()
            .unwrap()
            .keys()
            .map(|(group, _, _)| group.clone())
            .collect();
        groups.dedup();
        groups
    }

    fn forget<'a>(
        &'a self,
        group_id: &'a str,
        offsets: Vec<(TopicId, i32, CommittedOffset)>,
    ) -> Writing<'a> {
        Box::pin(async move {
            let mut rows = self.rows.lock().unwrap();
            for (topic, partition, committed) in offsets {
                let key = (group_id.to_owned(), topic, partition);
                if rows.get(&key) == Some(&committed) {
                    rows.remove(&key);
                }
            }
            Ok(())
        })
    }

    fn has_partition(&self, topic: TopicId, partition: i32) -> bool {
        topic == TOPIC && (0..2).contains(&partition)
    }
}

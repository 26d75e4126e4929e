//! Groups as they are kept over a restart: a stable generation with its members and their shares, so that
//! they go on without a rebalance, and what a group was when its last member left.
//!
//! A group is saved when a generation gets its assignment, when a static member comes back under another
//! id, and when it is empty; a rebalance under way is not, its members join again. Saving happens behind
//! the answers: a node that is killed in that moment restores the generation before, whose members join
//! again. The newest state of every group waits in [`Keeper`]; what is written at once is bounded by
//! [`WRITES_MAX`].
//!
//! Values are bincode behind a version byte, pinned by a test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bincode::config::standard;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::group::{Group, Phase};
use super::member::Member;
use super::offsets::OffsetStore;
use super::{GroupsConfig, JoinRequest, Protocol};

const VERSION: u8 = 1;
/// Groups written with one commit.
const WRITES_MAX: usize = 64;
/// A group that takes more is not kept: its members join again after a restart.
const BYTES_MAX: usize = 512 << 10;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedGroup {
    generation: i32,
    protocol_type: String,
    protocol_name: String,
    leader: Option<String>,
    members: Vec<SavedMember>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedMember {
    id: String,
    instance_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: u32,
    rebalance_timeout_ms: u32,
    /// Names and metadata.
    protocols: Vec<(String, Vec<u8>)>,
    assignment: Vec<u8>,
}

/// States of groups that wait to be written; `None` removes.
#[derive(Default)]
pub(super) struct Keeper {
    waiting: Mutex<BTreeMap<String, Option<Bytes>>>,
    changed: Notify,
}

impl Keeper {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Bytes>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, group_id: &str, state: Option<Bytes>) {
        self.lock().insert(group_id.to_owned(), state);
        self.changed.notify_one();
    }

    /// Resolves when something waits to be written.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Writes what waits.
    pub(super) async fn save(&self, store: &dyn OffsetStore) {
        loop {
            let some: Vec<(String, Option<Bytes>)> = {
                let mut waiting = self.lock();
                let ids: Vec<String> = waiting.keys().take(WRITES_MAX).cloned().collect();
                let taken = ids.into_iter();
                taken.filter_map(|id| waiting.remove_entry(&id)).collect()
            };
            if some.is_empty() {
                return;
            }
            let writes = some.into_iter().map(|(id, state)| async move {
                if let Err(error) = store.save_group(&id, state).await {
                    tracing::error!(group = id, %error, "the group's state is not saved: its members join again after a restart");
                }
            });
            join_all(writes).await;
        }
    }
}

/// A group's state as bytes; `None` where it is not to be kept.
pub(super) fn encode(group: &Group) -> Option<Bytes> {
    let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let member = |member: &Member| SavedMember {
        id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_ms: milliseconds(member.session_timeout),
        rebalance_timeout_ms: milliseconds(member.rebalance_timeout),
        protocols: (member.protocols.iter())
            .map(|protocol| (protocol.name.clone(), protocol.metadata.to_vec()))
            .collect(),
        assignment: member.assignment.to_vec(),
    };
    let saved = SavedGroup {
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol_name.clone(),
        leader: group.leader.clone(),
        members: group.members.values().map(member).collect(),
    };
    let bytes = to_bytes(&saved)?;
    if bytes.len() > BYTES_MAX {
        tracing::warn!(
            group = group.id,
            bytes = bytes.len(),
            "the group is too large to be kept over a restart"
        );
        return None;
    }
    Some(bytes)
}

fn to_bytes(saved: &SavedGroup) -> Option<Bytes> {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(saved, &mut out, standard()).ok()?;
    Some(Bytes::from(out))
}

/// A group as it was saved; whoever was in it has a session's time to say that it still is.
pub(super) fn decode(
    id: String,
    bytes: &[u8],
    config: Arc<GroupsConfig>,
    now: Instant,
) -> Option<Group> {
    let (&VERSION, body) = bytes.split_first()? else {
        return None;
    };
    let (saved, _): (SavedGroup, usize) =
        bincode::serde::decode_from_slice(body, standard()).ok()?;
    let mut group = Group::new(id.clone(), config, now);
    group.generation = saved.generation;
    group.protocol_type = saved.protocol_type;
    group.protocol_name = saved.protocol_name;
    group.leader = saved.leader;
    for kept in saved.members {
        let member = restored(&id, kept, now);
        if let Some(instance_id) = &member.instance_id {
            group
                .instances
                .insert(instance_id.clone(), member.id.clone());
        }
        group.members.insert(member.id.clone(), member);
    }
    if !group.members.is_empty() {
        group.phase = Phase::Stable {
            sync_deadline: None,
        };
    }
    Some(group)
}

fn restored(group_id: &str, kept: SavedMember, now: Instant) -> Member {
    let time = |ms: u32| Duration::from_millis(ms.into());
    let protocol = |(name, metadata): (String, Vec<u8>)| Protocol {
        name,
        metadata: Bytes::from(metadata),
    };
    let request = JoinRequest {
        group_id: group_id.to_owned(),
        member_id: kept.id.clone(),
        group_instance_id: kept.instance_id,
        client_id: kept.client_id,
        client_host: kept.client_host,
        session_timeout: time(kept.session_timeout_ms),
        rebalance_timeout: time(kept.rebalance_timeout_ms),
        protocol_type: String::new(),
        protocols: kept.protocols.into_iter().map(protocol).collect(),
        requires_member_id: false,
        supports_skip_assignment: false,
    };
    let mut member = Member::new(kept.id, request, now);
    member.assignment = Bytes::from(kept.assignment);
    member.is_new = false;
    member.synced = true;
    member
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn saved_bytes_are_a_promise() {
        let saved = SavedGroup {
            generation: 3,
            protocol_type: "consumer".into(),
            protocol_name: "range".into(),
            leader: Some("a".into()),
            members: vec![SavedMember {
                id: "a".into(),
                instance_id: None,
                client_id: "c".into(),
                client_host: "/::1".into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 60_000,
                protocols: vec![("range".into(), vec![1])],
                assignment: vec![2, 3],
            }],
        };
        let bytes = to_bytes(&saved).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let golden = "010608636f6e73756d65720572616e6765010161010161000163042f3a3a31fb1027fb60ea01\
                      0572616e67650101020203";
        assert_eq!(hex, golden);
        let config = Arc::new(GroupsConfig::default());
        let group = decode("g".into(), &bytes, config.clone(), Instant::now()).unwrap();
        assert_eq!(encode(&group).unwrap(), bytes);
        for cut in 0..bytes.len() {
            let _ = decode("g".into(), &bytes[..cut], config.clone(), Instant::now());
        }
        assert!(decode("g".into(), &[2, 0], config, Instant::now()).is_none());
    }
}

//! Behaviour of the coordinator as its clients see it, on a clock that stands still unless moved.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod clients;
mod joining;
mod limits;
mod offsets;
mod sessions;
mod static_members;
mod store;
mod syncing;

use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use store::MemoryStore;

const GROUP: &str = "readers";
const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);
const DELAY: Duration = Duration::from_secs(3);

fn coordinator() -> Coordinator {
    coordinator_with(GroupsConfig::default())
}

fn coordinator_with(config: GroupsConfig) -> Coordinator {
    Coordinator::with_store(Arc::new(MemoryStore::default()), config, || {
        1_700_000_000_000
    })
}

fn protocols(names: &[&str], metadata: &str) -> Vec<Protocol> {
    let metadata = Bytes::copy_from_slice(metadata.as_bytes());
    names
        .iter()
        .map(|name| Protocol {
            name: (*name).to_owned(),
            metadata: metadata.clone(),
        })
        .collect()
}

/// A newcomer as clients before JoinGroup version 4 come: without a round for the member id.
fn newcomer(metadata: &str) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.to_owned(),
        member_id: String::new(),
        group_instance_id: None,
        client_id: "client".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout: SESSION,
        rebalance_timeout: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: protocols(&["range"], metadata),
        requires_member_id: false,
        supports_skip_assignment: false,
    }
}

fn back(member_id: &str, metadata: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.to_owned(),
        ..newcomer(metadata)
    }
}

fn named(instance_id: &str) -> JoinRequest {
    JoinRequest {
        group_instance_id: Some(instance_id.to_owned()),
        ..newcomer(instance_id)
    }
}

fn sync_of(joined: &JoinResponse, assignments: &[(&str, &str)]) -> SyncRequest {
    SyncRequest {
        group_id: GROUP.to_owned(),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: None,
        protocol_name: None,
        assignments: assignments
            .iter()
            .map(|(id, share)| ((*id).to_owned(), Bytes::copy_from_slice(share.as_bytes())))
            .collect(),
    }
}

fn beat(generation_id: i32, member_id: &str) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: GROUP.to_owned(),
        generation_id,
        member_id: member_id.to_owned(),
        group_instance_id: None,
    }
}

fn leaving(member_id: &str) -> LeaveRequest {
    let member = LeavingMember {
        member_id: member_id.to_owned(),
        group_instance_id: None,
    };
    LeaveRequest {
        group_id: GROUP.to_owned(),
        members: vec![member],
    }
}

fn leave(coordinator: &Coordinator, member_id: &str) -> Result<(), GroupError> {
    coordinator
        .leave(&leaving(member_id))
        .unwrap()
        .remove(0)
        .result
}

type Joining = JoinHandle<Result<JoinResponse, GroupError>>;
type Syncing = JoinHandle<Result<SyncResponse, GroupError>>;

/// Sends the request before it returns.
async fn send_join(coordinator: &Coordinator, request: JoinRequest) -> Joining {
    let coordinator = coordinator.clone();
    let joining = tokio::spawn(async move { coordinator.join(request).await });
    settle().await;
    joining
}

async fn send_sync(coordinator: &Coordinator, request: SyncRequest) -> Syncing {
    let coordinator = coordinator.clone();
    let syncing = tokio::spawn(async move { coordinator.sync(request).await });
    settle().await;
    syncing
}

/// Lets every task run as far as it can; the clock moves by a millisecond.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn state(coordinator: &Coordinator) -> GroupState {
    coordinator.describe(GROUP).unwrap().state
}

/// A stable group of `n` members, the leader first; the share of the i-th is `share-i`.
async fn stable_group(coordinator: &Coordinator, requests: Vec<JoinRequest>) -> Vec<JoinResponse> {
    let mut joining = Vec::new();
    for request in requests {
        joining.push(send_join(coordinator, request).await);
    }
    let mut joined = Vec::new();
    for task in joining {
        joined.push(task.await.unwrap().unwrap());
    }
    synced(coordinator, &joined).await;
    joined.sort_by_key(|j| j.member_id != j.leader_id);
    joined
}

/// Carries a generation from its JoinGroup answers to `Stable`.
async fn synced(coordinator: &Coordinator, joined: &[JoinResponse]) {
    let shares: Vec<String> = (0..joined.len()).map(|i| format!("share-{i}")).collect();
    let given: Vec<(&str, &str)> = joined
        .iter()
        .zip(&shares)
        .map(|(j, s)| (j.member_id.as_str(), s.as_str()))
        .collect();
    let mut syncing = Vec::new();
    for member in joined {
        let is_leader = member.member_id == member.leader_id;
        let request = sync_of(member, if is_leader { &given } else { &[] });
        syncing.push(send_sync(coordinator, request).await);
    }
    for (task, share) in syncing.into_iter().zip(&shares) {
        assert_eq!(task.await.unwrap().unwrap().assignment, share.as_bytes());
    }
    assert_eq!(state(coordinator), GroupState::Stable);
}

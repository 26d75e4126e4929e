//! The state machine of one group: phases, rebalances, the vote and the generations.
//!
//! No clock, no task, no lock: every step takes the time as an argument and answers waiters itself.
//!
//! ```text
//! Empty --join--> Preparing --everybody joined, or deadline--> Completing --leader's sync--> Stable
//!   ^                 | ^                                          |                            |
//!   +--nobody left----+ +--------- join, leave, time-out ----------+----------------------------+
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::member::Member;
use super::{
    GroupDescription, GroupError, GroupState, GroupSummary, GroupsConfig, JoinResponse,
    MemberDescription,
};

pub(super) enum Phase {
    Empty {
        since: Instant,
    },
    Preparing {
        deadline: Instant,
        /// Start of an empty group's first wait, which lasts to its deadline even if all are there.
        gathering_since: Option<Instant>,
    },
    Completing {
        /// Whoever has not sent SyncGroup by then is removed.
        sync_deadline: Instant,
    },
    Stable {
        /// As in `Completing`; `None` once everybody has.
        sync_deadline: Option<Instant>,
    },
    Dead,
}

pub(super) struct Group {
    pub(super) id: String,
    pub(super) config: Arc<GroupsConfig>,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    pub(super) protocol_type: String,
    /// Empty before the first generation and without members.
    pub(super) protocol_name: String,
    pub(super) leader: Option<String>,
    pub(super) members: BTreeMap<String, Member>,
    /// Member ids handed out with MEMBER_ID_REQUIRED and not used yet, with their end.
    pub(super) pending: BTreeMap<String, Instant>,
    /// Group instance id to member id.
    pub(super) instances: BTreeMap<String, String>,
    /// Whether a task steps this group at its next deadline.
    pub(super) has_timer: bool,
    /// It is to be saved as it is now.
    pub(super) unsaved: bool,
}

impl Group {
    pub(super) fn new(id: String, config: Arc<GroupsConfig>, now: Instant) -> Group {
        Group {
            id,
            config,
            phase: Phase::Empty { since: now },
            generation: 0,
            protocol_type: String::new(),
            protocol_name: String::new(),
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            instances: BTreeMap::new(),
            has_timer: false,
            unsaved: false,
        }
    }

    pub(super) fn state(&self) -> GroupState {
        match self.phase {
            Phase::Empty { .. } => GroupState::Empty,
            Phase::Preparing { .. } => GroupState::PreparingRebalance,
            Phase::Completing { .. } => GroupState::CompletingRebalance,
            Phase::Stable { .. } => GroupState::Stable,
            Phase::Dead => GroupState::Dead,
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }

    /// Since when nobody is or is about to be in the group.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.phase {
            Phase::Empty { since } if self.pending.is_empty() => Some(since),
            _ => None,
        }
    }

    pub(super) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// FENCED_INSTANCE_ID and UNKNOWN_MEMBER_ID for whoever is not the member it claims to be.
    pub(super) fn check_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.instances.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    /// Time the slowest member may take to come back.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        self.members
            .values()
            .map(|m| m.rebalance_timeout)
            .max()
            .unwrap_or_default()
    }

    /// Starts a rebalance where the group is in a phase that one can start from, and ends it at once
    /// where nobody is missing.
    pub(super) fn rebalance(&mut self, now: Instant) {
        match self.phase {
            Phase::Dead => return,
            Phase::Preparing { .. } => {}
            Phase::Empty { .. } => {
                let delay = self.config.initial_rebalance_delay();
                self.phase = Phase::Preparing {
                    deadline: now + delay,
                    gathering_since: Some(now),
                };
            }
            Phase::Completing { .. } | Phase::Stable { .. } => {
                for member in self.members.values_mut() {
                    member.answer_sync(now, Err(GroupError::RebalanceInProgress));
                }
                self.phase = Phase::Preparing {
                    deadline: now + self.rebalance_timeout(),
                    gathering_since: None,
                };
            }
        }
        self.finish_gathering_if_due(now);
    }

    /// A newcomer starts the first wait again, within the time the members grant to a rebalance.
    pub(super) fn extend_gathering(&mut self, now: Instant) {
        let delay = self.config.initial_rebalance_delay();
        let timeout = self.rebalance_timeout();
        if let Phase::Preparing {
            deadline,
            gathering_since: Some(since),
        } = &mut self.phase
        {
            *deadline = (now + delay)
                .min(since.checked_add(timeout).unwrap_or(now))
                .max(*deadline);
        }
    }

    pub(super) fn finish_gathering_if_due(&mut self, now: Instant) {
        let Phase::Preparing {
            deadline,
            gathering_since,
        } = self.phase
        else {
            return;
        };
        let all_here =
            self.pending.is_empty() && self.members.values().all(|member| member.has_joined());
        if now >= deadline || (gathering_since.is_none() && all_here) {
            self.begin_generation(now);
        }
    }

    fn begin_generation(&mut self, now: Instant) {
        self.remove_absent();
        if self.members.is_empty() {
            self.generation = next_generation(self.generation);
            self.protocol_name.clear();
            self.phase = Phase::Empty { since: now };
            self.unsaved = true;
            return;
        }
        if !self.elect_leader() {
            // Only static members that are away: they keep their place until their sessions end.
            self.phase = Phase::Preparing {
                deadline: now + self.rebalance_timeout(),
                gathering_since: None,
            };
            return;
        }
        self.generation = next_generation(self.generation);
        self.protocol_name = self.vote();
        self.phase = Phase::Completing {
            sync_deadline: now + self.rebalance_timeout(),
        };
        tracing::info!(
            group = self.id,
            generation = self.generation,
            members = self.members.len(),
            protocol = self.protocol_name,
            "group generation begins"
        );
        self.answer_joins(now);
    }

    /// Drops dynamic members that did not come back, and newcomers whose client has gone before it
    /// was ever told that it is a member.
    fn remove_absent(&mut self) {
        let absent: Vec<String> = self
            .members
            .values()
            .filter(|m| {
                let gone = m.is_new && !m.has_live_join();
                gone || (!m.has_joined() && m.instance_id.is_none())
            })
            .map(|m| m.id.clone())
            .collect();
        for id in absent {
            self.forget(&id);
        }
    }

    /// Keeps the leader if it is here; a leader that cannot answer would stall everybody's SyncGroup.
    fn elect_leader(&mut self) -> bool {
        let here = self.leader.as_ref().and_then(|id| self.members.get(id));
        if here.is_some_and(Member::has_live_join) {
            return true;
        }
        let joined = |m: &&Member| m.has_joined();
        let next = self
            .members
            .values()
            .find(|m| m.has_live_join())
            .or_else(|| here.filter(joined))
            .or_else(|| self.members.values().find(joined));
        match next.map(|m| m.id.clone()) {
            Some(id) => {
                self.leader = Some(id);
                true
            }
            None => false,
        }
    }

    /// Each member votes for the first of its protocols that all members support.
    pub(super) fn vote(&self) -> String {
        let common = self.common_protocols();
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member
                .protocols
                .iter()
                .find(|p| common.contains(&p.name.as_str()));
            if let Some(protocol) = choice {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        // A draw goes to what the leader prefers: `common` is in its order.
        let most = votes.values().copied().max().unwrap_or_default();
        common
            .into_iter()
            .find(|name| votes.get(name) == Some(&most))
            .unwrap_or_default()
            .to_owned()
    }

    /// Protocols that every member supports, in the leader's order.
    fn common_protocols(&self) -> Vec<&str> {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id));
        let Some(first) = leader.or_else(|| self.members.values().next()) else {
            return Vec::new();
        };
        first
            .protocols
            .iter()
            .map(|p| p.name.as_str())
            .filter(|name| self.members.values().all(|m| m.supports(name)))
            .collect()
    }

    /// Whether somebody with these protocols can be in a group with everybody who is in it.
    pub(super) fn is_compatible(&self, protocol_type: &str, names: &[&str]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !names.is_empty();
        }
        self.protocol_type == protocol_type
            && self
                .common_protocols()
                .iter()
                .any(|common| names.contains(common))
    }

    fn answer_joins(&mut self, now: Instant) {
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let response = self.join_response(&id);
            let Some(member) = self.members.get_mut(&id) else {
                continue;
            };
            // A static member that is away keeps the session it had.
            if member.has_joined() {
                member.renew_session(now);
            }
            member.is_new = false;
            member.synced = false;
            member.assignment = Bytes::new();
            member.answer_join(Ok(response));
        }
    }

    /// The current generation, as a JoinGroup of this member is told of it.
    pub(super) fn join_response(&self, member_id: &str) -> JoinResponse {
        let members = if self.is_leader(member_id) {
            self.members
                .values()
                .map(|m| m.as_seen_by_leader(&self.protocol_name))
                .collect()
        } else {
            Vec::new()
        };
        JoinResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            leader_id: self.leader.clone().unwrap_or_default(),
            member_id: member_id.to_owned(),
            members,
            skip_assignment: false,
        }
    }

    /// Takes a member out and lets the others share its partitions.
    pub(super) fn remove(&mut self, member_id: &str, now: Instant) {
        self.forget(member_id);
        self.rebalance(now);
    }

    pub(super) fn forget(&mut self, member_id: &str) {
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        // Whoever still waits joins anew.
        member.dismiss(&GroupError::UnknownMemberId);
        if let Some(instance_id) = &member.instance_id
            && self
                .instances
                .get(instance_id)
                .is_some_and(|id| id == member_id)
        {
            self.instances.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Answers everybody who waits; the group takes no further step.
    pub(super) fn kill(&mut self) {
        for member in self.members.values_mut() {
            member.dismiss(&GroupError::CoordinatorNotAvailable);
        }
        self.members.clear();
        self.pending.clear();
        self.instances.clear();
        self.leader = None;
        self.phase = Phase::Dead;
    }

    pub(super) fn summary(&self) -> GroupSummary {
        GroupSummary {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone(),
            state: self.state(),
        }
    }

    pub(super) fn description(&self) -> GroupDescription {
        let is_stable = matches!(self.phase, Phase::Stable { .. });
        let shown = |bytes: Bytes| if is_stable { bytes } else { Bytes::new() };
        let describe = |m: &Member| MemberDescription {
            member_id: m.id.clone(),
            group_instance_id: m.instance_id.clone(),
            client_id: m.client_id.clone(),
            client_host: m.client_host.clone(),
            metadata: shown(m.metadata(&self.protocol_name)),
            assignment: shown(m.assignment.clone()),
        };
        GroupDescription {
            group_id: self.id.clone(),
            state: self.state(),
            protocol_type: self.protocol_type.clone(),
            protocol_name: if is_stable {
                self.protocol_name.clone()
            } else {
                String::new()
            },
            generation_id: self.generation,
            leader_id: self.leader.clone(),
            members: self.members.values().map(describe).collect(),
        }
    }
}

/// Generations count from 1; after the last one they begin again, as no member lives that long.
fn next_generation(generation: i32) -> i32 {
    generation.checked_add(1).unwrap_or(1)
}

//! SyncGroup, Heartbeat, LeaveGroup, and who may commit offsets.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;

use super::group::{Group, Phase};
use super::member::{SyncWaiter, answer};
use super::{
    CommitRequest, GroupError, HeartbeatRequest, LeavingMember, SyncRequest, SyncResponse,
};

impl Group {
    pub(super) fn sync(&mut self, now: Instant, request: SyncRequest, waiter: SyncWaiter) {
        if let Err(error) = self.check_sync(&request) {
            return answer(waiter, Err(error));
        }
        let Some(member) = self.members.get_mut(&request.member_id) else {
            return answer(waiter, Err(GroupError::UnknownMemberId));
        };
        member.renew_session(now);
        match self.phase {
            Phase::Completing { .. } => {
                member.await_sync(waiter);
                if self.is_leader(&request.member_id) {
                    self.distribute(now, request.assignments);
                }
            }
            Phase::Stable { .. } => {
                member.synced = true;
                let assignment = member.assignment.clone();
                answer(waiter, Ok(self.sync_response(assignment)));
            }
            Phase::Preparing { .. } => answer(waiter, Err(GroupError::RebalanceInProgress)),
            Phase::Empty { .. } | Phase::Dead => answer(waiter, Err(GroupError::UnknownMemberId)),
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation_id)?;
        let differs = |given: &Option<String>, current: &String| {
            given.as_ref().is_some_and(|given| given != current)
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol_name)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let bytes_max = self.config.member_bytes_max;
        if request
            .assignments
            .iter()
            .any(|(_, assignment)| assignment.len() > bytes_max)
        {
            return Err(GroupError::InvalidRequest);
        }
        Ok(())
    }

    /// The leader has spoken: everybody gets its share, those who ask later too.
    fn distribute(&mut self, now: Instant, assignments: Vec<(String, Bytes)>) {
        let Phase::Completing { sync_deadline } = self.phase else {
            return;
        };
        let mut shares: HashMap<String, Bytes> = assignments.into_iter().collect();
        for member in self.members.values_mut() {
            // Copied for the same reason as a member's metadata.
            let share = shares.remove(&member.id).unwrap_or_default();
            member.assignment = Bytes::copy_from_slice(&share);
        }
        self.phase = Phase::Stable {
            sync_deadline: Some(sync_deadline),
        };
        self.unsaved = true;
        let (protocol_type, protocol_name) =
            (self.protocol_type.clone(), self.protocol_name.clone());
        for member in self.members.values_mut() {
            let assignment = member.assignment.clone();
            let response = SyncResponse {
                protocol_type: protocol_type.clone(),
                protocol_name: protocol_name.clone(),
                assignment,
            };
            member.answer_sync(now, Ok(response));
        }
    }

    fn sync_response(&self, assignment: Bytes) -> SyncResponse {
        SyncResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol_name.clone(),
            assignment,
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Instant,
        request: &HeartbeatRequest,
    ) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation_id)?;
        self.renew_session_of(&request.member_id, now);
        match self.phase {
            // Clients begin to beat when they have joined, before they have an assignment.
            Phase::Stable { .. } | Phase::Completing { .. } => Ok(()),
            Phase::Preparing { .. } => Err(GroupError::RebalanceInProgress),
            Phase::Empty { .. } | Phase::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    pub(super) fn leave(
        &mut self,
        now: Instant,
        leaving: &LeavingMember,
    ) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let instance_id = leaving.group_instance_id.as_deref();
        if leaving.member_id.is_empty() {
            let member_id = instance_id
                .and_then(|instance_id| self.instances.get(instance_id))
                .cloned()
                .ok_or(GroupError::UnknownMemberId)?;
            self.remove(&member_id, now);
            return Ok(());
        }
        if instance_id.is_none() && self.drop_pending(now, &leaving.member_id) {
            return Ok(());
        }
        self.check_member(&leaving.member_id, instance_id)?;
        self.remove(&leaving.member_id, now);
        Ok(())
    }

    /// Whether this commit may be written; a member's commit also keeps its session alive.
    pub(super) fn check_commit(
        &mut self,
        now: Instant,
        request: &CommitRequest,
    ) -> Result<(), GroupError> {
        if self.is_dead() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let is_empty = matches!(self.phase, Phase::Empty { .. });
        if request.generation_id < 0 && is_empty {
            return Ok(());
        }
        let is_anonymous = request.generation_id < 0
            && request.member_id.is_empty()
            && request.group_instance_id.is_none();
        let is_transactional = request.within.is_some();
        if is_anonymous && is_transactional {
            // Producers before KIP-447 do not say for whom they commit.
            return Ok(());
        }
        if is_anonymous {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.check_generation(request.generation_id)?;
        if matches!(self.phase, Phase::Completing { .. }) && !is_transactional {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_session_of(&request.member_id, now);
        Ok(())
    }

    fn renew_session_of(&mut self, member_id: &str, now: Instant) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.renew_session(now);
        }
    }
}

//! JoinGroup: who gets in, as whom, and whether it starts a rebalance.

use std::time::Instant;

use uuid::Uuid;

use super::config::{MEMBER_ID_HEAD_BYTES_MAX, PROTOCOLS_MAX};
use super::group::{Group, Phase};
use super::member::{JoinWaiter, Member, answer};
use super::{GroupError, GroupsConfig, JoinRequest, JoinResponse};

/// What an acceptable JoinGroup does.
enum Admission {
    /// Becomes a member under this id.
    Add { member_id: String },
    /// Takes over the group instance id of this member.
    TakeOver { old_id: String },
    /// A member comes back for the next generation.
    Rejoin,
    /// A member is told again of the generation it is in.
    Repeat,
}

/// What can be judged without the group.
pub(super) fn check_request(
    request: &JoinRequest,
    config: &GroupsConfig,
) -> Result<(), GroupError> {
    if !config.accepts_session_timeout(request.session_timeout) {
        return Err(GroupError::InvalidSessionTimeout);
    }
    let bytes: usize = request
        .protocols
        .iter()
        .map(|p| p.name.len() + p.metadata.len())
        .sum();
    let ids = request.group_instance_id.iter().chain([&request.member_id]);
    let ids_fit = ids
        .map(String::len)
        .all(|len| len <= config.member_bytes_max);
    if request.protocols.len() > PROTOCOLS_MAX || bytes > config.member_bytes_max || !ids_fit {
        return Err(GroupError::InvalidRequest);
    }
    Ok(())
}

impl Group {
    pub(super) fn join(&mut self, now: Instant, request: JoinRequest, waiter: JoinWaiter) {
        match self.admit(now, &request) {
            Err(error) => answer(waiter, Err(error)),
            Ok(Admission::Add { member_id }) => self.add(now, member_id, request, waiter),
            Ok(Admission::TakeOver { old_id }) => self.take_over(now, &old_id, request, waiter),
            Ok(Admission::Rejoin) => self.rejoin(now, request, waiter),
            Ok(Admission::Repeat) => {
                if let Some(member) = self.members.get_mut(&request.member_id) {
                    member.renew_session(now);
                }
                answer(waiter, Ok(self.join_response(&request.member_id)));
            }
        }
    }

    fn admit(&mut self, now: Instant, request: &JoinRequest) -> Result<Admission, GroupError> {
        if self.is_dead() {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if !self.has_room_for(request) {
            if self.members.contains_key(&request.member_id) {
                self.remove(&request.member_id, now);
            }
            self.drop_pending(now, &request.member_id);
            return Err(GroupError::GroupMaxSizeReached);
        }
        let names: Vec<&str> = request.protocols.iter().map(|p| p.name.as_str()).collect();
        if !self.is_compatible(&request.protocol_type, &names) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        if request.member_id.is_empty() {
            return self.admit_newcomer(now, request);
        }
        if self.pending.contains_key(&request.member_id) {
            // A pending id was given to a dynamic member; static ones never get there.
            return match request.group_instance_id {
                None => Ok(Admission::Add {
                    member_id: request.member_id.clone(),
                }),
                Some(_) => Err(GroupError::UnknownMemberId),
            };
        }
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        self.admit_member(request)
    }

    /// During a rebalance seats are taken by those who have come back, so that a dead member does not
    /// lock out a live one; otherwise by the members.
    fn has_room_for(&self, request: &JoinRequest) -> bool {
        let known = self.members.get(&request.member_id);
        let takes_over = request
            .group_instance_id
            .as_ref()
            .is_some_and(|id| self.instances.contains_key(id));
        let room = |taken: usize| taken < self.config.group_size_max;
        match self.phase {
            Phase::Preparing { .. } => {
                known.is_some_and(Member::has_joined)
                    || takes_over
                    || room(self.members.values().filter(|m| m.has_joined()).count())
            }
            _ => known.is_some() || takes_over || room(self.members.len()),
        }
    }

    fn admit_newcomer(
        &mut self,
        now: Instant,
        request: &JoinRequest,
    ) -> Result<Admission, GroupError> {
        if let Some(instance_id) = &request.group_instance_id {
            return Ok(match self.instances.get(instance_id) {
                Some(old_id) => Admission::TakeOver {
                    old_id: old_id.clone(),
                },
                None => Admission::Add {
                    member_id: new_member_id(instance_id),
                },
            });
        }
        let member_id = new_member_id(&request.client_id);
        if !request.requires_member_id {
            return Ok(Admission::Add { member_id });
        }
        if self.pending.len() >= self.config.group_size_max {
            return Err(GroupError::GroupMaxSizeReached);
        }
        self.pending
            .insert(member_id.clone(), now + request.session_timeout);
        Err(GroupError::MemberIdRequired { member_id })
    }

    fn admit_member(&self, request: &JoinRequest) -> Result<Admission, GroupError> {
        let Some(member) = self.members.get(&request.member_id) else {
            return Err(GroupError::UnknownMemberId);
        };
        let is_same = member.protocols == request.protocols;
        match self.phase {
            Phase::Preparing { .. } => Ok(Admission::Rejoin),
            // The answer was lost on its way.
            Phase::Completing { .. } if is_same => Ok(Admission::Repeat),
            // The leader joins again because it wants a new assignment, followers because their
            // subscription has changed.
            Phase::Stable { .. } if is_same && !self.is_leader(&member.id) => Ok(Admission::Repeat),
            Phase::Completing { .. } | Phase::Stable { .. } => Ok(Admission::Rejoin),
            Phase::Empty { .. } | Phase::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    fn add(&mut self, now: Instant, member_id: String, request: JoinRequest, waiter: JoinWaiter) {
        self.pending.remove(&member_id);
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        if let Some(instance_id) = &request.group_instance_id {
            self.instances
                .insert(instance_id.clone(), member_id.clone());
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        let mut member = Member::new(member_id.clone(), request, now);
        member.await_join(waiter);
        self.members.insert(member_id, member);
        self.extend_gathering(now);
        self.rebalance(now);
    }

    fn rejoin(&mut self, now: Instant, request: JoinRequest, waiter: JoinWaiter) {
        let Some(member) = self.members.get_mut(&request.member_id) else {
            return answer(waiter, Err(GroupError::UnknownMemberId));
        };
        member.update(request, now);
        member.await_join(waiter);
        self.rebalance(now);
    }

    /// A static member is back under a new member id; whoever still uses the old one is fenced.
    fn take_over(&mut self, now: Instant, old_id: &str, request: JoinRequest, waiter: JoinWaiter) {
        let Some(mut member) = self.members.remove(old_id) else {
            return answer(waiter, Err(GroupError::UnknownMemberId));
        };
        member.dismiss(&GroupError::FencedInstanceId);
        let supports_skip = request.supports_skip_assignment;
        let new_id = new_member_id(request.group_instance_id.as_deref().unwrap_or_default());
        if let Some(instance_id) = &request.group_instance_id {
            self.instances.insert(instance_id.clone(), new_id.clone());
        }
        let was_leader = self.is_leader(old_id);
        if was_leader {
            self.leader = Some(new_id.clone());
        }
        member.id.clone_from(&new_id);
        member.update(request, now);
        member.await_join(waiter);
        self.members.insert(new_id.clone(), member);
        let keeps_assignment =
            matches!(self.phase, Phase::Stable { .. }) && self.vote() == self.protocol_name;
        if !keeps_assignment {
            return self.rebalance(now);
        }
        self.unsaved = true;
        let response = self.resumed(&new_id, old_id, supports_skip);
        if let Some(member) = self.members.get_mut(&new_id) {
            member.answer_join(Ok(response));
        }
    }

    /// The generation as a returning static member is told of it, so that nobody else has to move.
    fn resumed(&self, new_id: &str, old_id: &str, supports_skip: bool) -> JoinResponse {
        let mut response = self.join_response(new_id);
        if self.is_leader(new_id) {
            if supports_skip {
                response.skip_assignment = true;
            } else {
                // An old client that learnt that it leads would assign anew: let it believe that the
                // member it was still does (KIP-345).
                response.leader_id = old_id.to_owned();
                response.members = Vec::new();
            }
        }
        response
    }

    /// Forgets an id that was handed out; a rebalance no longer waits for it.
    pub(super) fn drop_pending(&mut self, now: Instant, member_id: &str) -> bool {
        let known = self.pending.remove(member_id).is_some();
        if known {
            self.finish_gathering_if_due(now);
        }
        known
    }
}

fn new_member_id(head: &str) -> String {
    let mut end = head.len().min(MEMBER_ID_HEAD_BYTES_MAX);
    while !head.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}-{}", head.get(..end).unwrap_or_default(), Uuid::new_v4())
}

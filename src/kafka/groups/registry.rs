//! The groups by id, their mutexes and their timers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::config::GROUP_ID_BYTES_MAX;
use super::group::{Group, Phase};
use super::joining::check_request;
use super::member::{JoinWaiter, SyncWaiter, answer};
use super::saved::{self, Keeper};
use super::{
    CommitRequest, GroupDescription, GroupError, GroupSummary, GroupsConfig, HeartbeatRequest,
    JoinRequest, LeaveOutcome, LeaveRequest, SyncRequest,
};

/// Lock order: `groups`, then one group.
pub(super) struct Registry {
    config: Arc<GroupsConfig>,
    groups: Mutex<Groups>,
    keeper: Arc<Keeper>,
    /// Before that nobody knows who was in a group.
    began: Instant,
}

#[derive(Default)]
struct Groups {
    by_id: HashMap<String, Arc<Cell>>,
    is_shut_down: bool,
}

struct Cell {
    group: Mutex<Group>,
    keeper: Arc<Keeper>,
    /// The next deadline may have come nearer.
    changed: Notify,
}

impl Cell {
    /// A panic inside a step would be a defect; the group then goes on from where the step stopped.
    fn lock(&self) -> MutexGuard<'_, Group> {
        self.group.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has it saved, in the order of its steps.
    fn save(&self, group: &mut Group) {
        if std::mem::take(&mut group.unsaved) {
            self.keeper.put(&group.id, saved::encode(group));
        }
    }

    /// Makes one step and sees to it that the group is woken at its next deadline.
    fn step<T>(self: &Arc<Cell>, step: impl FnOnce(&mut Group, Instant) -> T) -> T {
        let mut group = self.lock();
        let result = step(&mut group, now());
        self.save(&mut group);
        if group.has_timer {
            self.changed.notify_one();
        } else if group.next_deadline().is_some() {
            group.has_timer = true;
            tokio::spawn(run_timer(Arc::clone(self)));
        }
        result
    }
}

/// Steps the group at its deadlines until it has none: an idle group has no task.
async fn run_timer(cell: Arc<Cell>) {
    loop {
        let deadline = {
            let mut group = cell.lock();
            group.tick(now());
            cell.save(&mut group);
            let deadline = group.next_deadline();
            group.has_timer = deadline.is_some();
            deadline
        };
        let Some(deadline) = deadline else { return };
        tokio::select! {
            () = tokio::time::sleep_until(deadline.into()) => {}
            () = cell.changed.notified() => {}
        }
    }
}

/// The runtime's clock, so that tests can hold and move it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Registry {
    pub(super) fn new(config: GroupsConfig) -> Registry {
        Registry {
            config: Arc::new(config),
            groups: Mutex::new(Groups::default()),
            keeper: Arc::default(),
            began: now(),
        }
    }

    pub(super) fn config(&self) -> &GroupsConfig {
        &self.config
    }

    pub(super) fn keeper(&self) -> Arc<Keeper> {
        self.keeper.clone()
    }

    /// Takes groups back that were saved.
    pub(super) fn restore(&self, saved_groups: Vec<(String, Bytes)>) {
        for (id, bytes) in saved_groups {
            let group = saved::decode(id.clone(), &bytes, Arc::clone(&self.config), now());
            let Some(group) = group else {
                tracing::warn!(
                    group = id,
                    "the group's saved state cannot be read: its members join again"
                );
                continue;
            };
            let cell = self.cell(group);
            self.lock().by_id.insert(id, Arc::clone(&cell));
            // Sessions run from now on.
            cell.step(|_, _| {});
        }
    }

    fn cell(&self, group: Group) -> Arc<Cell> {
        Arc::new(Cell {
            group: Mutex::new(group),
            keeper: self.keeper.clone(),
            changed: Notify::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, group_id: &str) -> Result<Option<Arc<Cell>>, GroupError> {
        let groups = self.lock();
        if groups.is_shut_down {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        Ok(groups.by_id.get(group_id).cloned())
    }

    fn find_or_create(&self, group_id: &str) -> Result<Arc<Cell>, GroupError> {
        let mut groups = self.lock();
        if groups.is_shut_down {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        if let Some(cell) = groups.by_id.get(group_id) {
            return Ok(Arc::clone(cell));
        }
        if groups.by_id.len() >= self.config.groups_max {
            self.evict_idle(&mut groups.by_id);
        }
        if groups.by_id.len() >= self.config.groups_max {
            tracing::warn!(
                group = group_id,
                groups_max = self.config.groups_max,
                "too many groups"
            );
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let group = Group::new(group_id.to_owned(), Arc::clone(&self.config), now());
        let cell = self.cell(group);
        groups.by_id.insert(group_id.to_owned(), Arc::clone(&cell));
        Ok(cell)
    }

    /// Forgets the eighth of the groups that have been without members longest; they have nothing but
    /// a generation number to lose.
    fn evict_idle(&self, by_id: &mut HashMap<String, Arc<Cell>>) {
        let mut idle: Vec<(Instant, String)> = by_id
            .iter()
            .filter_map(|(id, cell)| cell.lock().idle_since().map(|since| (since, id.clone())))
            .collect();
        idle.sort();
        let share = idle.len().div_ceil(8);
        for (_, id) in idle.into_iter().take(share) {
            let Some(cell) = by_id.get(&id) else { continue };
            let mut group = cell.lock();
            // Somebody may have joined since it was looked at.
            if group.idle_since().is_none() {
                continue;
            }
            group.kill();
            drop(group);
            by_id.remove(&id);
            self.keeper.put(&id, None);
        }
    }

    pub(super) fn join(&self, request: JoinRequest, waiter: JoinWaiter) {
        match self.cell_to_join(&request) {
            Err(error) => answer(waiter, Err(error)),
            Ok(cell) => cell.step(|group, now| group.join(now, request, waiter)),
        }
    }

    fn cell_to_join(&self, request: &JoinRequest) -> Result<Arc<Cell>, GroupError> {
        check_group_id(&request.group_id)?;
        check_request(request, &self.config)?;
        if request.member_id.is_empty() {
            self.find_or_create(&request.group_id)
        } else {
            self.find(&request.group_id)?
                .ok_or(GroupError::UnknownMemberId)
        }
    }

    pub(super) fn sync(&self, request: SyncRequest, waiter: SyncWaiter) {
        match self.cell_of_member(&request.group_id) {
            Err(error) => answer(waiter, Err(error)),
            Ok(cell) => cell.step(|group, now| group.sync(now, request, waiter)),
        }
    }

    pub(super) fn heartbeat(&self, request: &HeartbeatRequest) -> Result<(), GroupError> {
        let cell = self.cell_of_member(&request.group_id)?;
        // Only puts deadlines off: the timer need not know.
        let mut group = cell.lock();
        group.heartbeat(now(), request)
    }

    pub(super) fn leave(&self, request: &LeaveRequest) -> Result<Vec<LeaveOutcome>, GroupError> {
        check_group_id(&request.group_id)?;
        let cell = self.find(&request.group_id)?;
        let outcomes = request.members.iter().map(|leaving| {
            let result = match &cell {
                Some(cell) => cell.step(|group, now| group.leave(now, leaving)),
                None => Err(GroupError::UnknownMemberId),
            };
            LeaveOutcome {
                member: leaving.clone(),
                result,
            }
        });
        Ok(outcomes.collect())
    }

    fn cell_of_member(&self, group_id: &str) -> Result<Arc<Cell>, GroupError> {
        check_group_id(group_id)?;
        self.find(group_id)?.ok_or(GroupError::UnknownMemberId)
    }

    /// Runs `write` if the commit may be written, before the group can take another step: a commit
    /// must not be queued behind one of the partition's next owner. `write` must not block.
    pub(super) fn commit<T>(
        &self,
        request: &CommitRequest,
        has_offsets: impl FnOnce() -> bool,
        write: impl FnOnce() -> T,
    ) -> Result<T, GroupError> {
        if request.group_id.len() > GROUP_ID_BYTES_MAX {
            return Err(GroupError::InvalidGroupId);
        }
        let Some(cell) = self.find(&request.group_id)? else {
            return match request.generation_id {
                ..0 => Ok(write()),
                // A group that is known has lost this member; one that is not never had a generation.
                _ if has_offsets() => Err(GroupError::UnknownMemberId),
                _ => Err(GroupError::GroupIdNotFound),
            };
        };
        let mut group = cell.lock();
        group.check_commit(now(), request)?;
        Ok(write())
    }

    /// Forgets a group without members; false if there is none of the name.
    pub(super) fn remove(&self, group_id: &str) -> Result<bool, GroupError> {
        let mut groups = self.lock();
        if groups.is_shut_down {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        let Some(cell) = groups.by_id.get(group_id) else {
            return Ok(false);
        };
        let mut group = cell.lock();
        if group.idle_since().is_none() {
            return Err(GroupError::NonEmptyGroup);
        }
        let was_worth_showing = is_worth_showing(&group);
        group.kill();
        drop(group);
        groups.by_id.remove(group_id);
        self.keeper.put(group_id, None);
        Ok(was_worth_showing)
    }

    pub(super) fn describe(&self, group_id: &str) -> Option<GroupDescription> {
        let cell = self.lock().by_id.get(group_id).cloned()?;
        let group = cell.lock();
        is_worth_showing(&group).then(|| group.description())
    }

    /// For how long nobody has been in a group; `None` while somebody is.
    pub(super) fn empty_for(&self, group_id: &str) -> Option<Duration> {
        let cell = self.lock().by_id.get(group_id).cloned();
        let since = match cell {
            Some(cell) => match cell.lock().phase {
                Phase::Empty { since } => since,
                Phase::Dead => self.began,
                _ => return None,
            },
            None => self.began,
        };
        Some(now().saturating_duration_since(since))
    }

    pub(super) fn list(&self) -> Vec<GroupSummary> {
        let cells: Vec<Arc<Cell>> = self.lock().by_id.values().cloned().collect();
        let summary = |cell: Arc<Cell>| {
            let group = cell.lock();
            is_worth_showing(&group).then(|| group.summary())
        };
        cells.into_iter().filter_map(summary).collect()
    }

    pub(super) fn shut_down(&self) {
        let cells: Vec<Arc<Cell>> = {
            let mut groups = self.lock();
            groups.is_shut_down = true;
            groups.by_id.drain().map(|(_, cell)| cell).collect()
        };
        for cell in cells {
            cell.lock().kill();
            cell.changed.notify_one();
        }
    }
}

/// A group that only a refused JoinGroup has touched is nobody's business.
fn is_worth_showing(group: &Group) -> bool {
    !group.is_dead() && (group.generation > 0 || group.idle_since().is_none())
}

fn check_group_id(group_id: &str) -> Result<(), GroupError> {
    if group_id.is_empty() || group_id.len() > GROUP_ID_BYTES_MAX {
        return Err(GroupError::InvalidGroupId);
    }
    Ok(())
}

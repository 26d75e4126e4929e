//! What time does to a group: sessions end, handed-out member ids lapse, rebalances stop waiting.

use std::time::Instant;

use super::group::{Group, Phase};

impl Group {
    /// When [`Group::tick`] has to be called at the latest; `None` while nothing can happen by itself.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Preparing { deadline, .. } => Some(deadline),
            Phase::Completing { sync_deadline } => Some(sync_deadline),
            Phase::Stable { sync_deadline } => sync_deadline,
            Phase::Empty { .. } | Phase::Dead => None,
        };
        let sessions = self.members.values().map(|m| m.expires_at);
        phase
            .into_iter()
            .chain(sessions)
            .chain(self.pending.values().copied())
            .min()
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, lapses_at| *lapses_at > now);
        self.end_sessions(now);
        self.remove_unsynced(now);
        self.finish_gathering_if_due(now);
    }

    fn end_sessions(&mut self, now: Instant) {
        let mut expired = Vec::new();
        for member in self.members.values_mut().filter(|m| m.expires_at <= now) {
            if member.waits() {
                member.renew_session(now);
            } else {
                expired.push(member.id.clone());
            }
        }
        self.expel(&expired, now, "session time-out");
    }

    fn remove_unsynced(&mut self, now: Instant) {
        let due = match self.phase {
            Phase::Completing { sync_deadline } => Some(sync_deadline),
            Phase::Stable { sync_deadline } => sync_deadline,
            _ => None,
        };
        if due.is_none_or(|due| due > now) {
            return;
        }
        if let Phase::Stable { sync_deadline } = &mut self.phase {
            *sync_deadline = None;
        }
        let missing: Vec<String> = self
            .members
            .values()
            .filter(|m| !m.synced)
            .map(|m| m.id.clone())
            .collect();
        self.expel(&missing, now, "no SyncGroup within the rebalance time-out");
    }

    fn expel(&mut self, member_ids: &[String], now: Instant, reason: &'static str) {
        for id in member_ids {
            tracing::info!(group = self.id, member = id, reason, "member removed");
            self.forget(id);
        }
        if !member_ids.is_empty() {
            self.rebalance(now);
        }
    }
}

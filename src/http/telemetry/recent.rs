//! Which records this door accepted lately: a retry must be called a duplicate even before the
//! pipeline has committed the first delivery.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use holdfast_storage::telemetry::RecordKey;

/// Identities remembered; the oldest go first. The pipeline's own window takes over long before.
pub(super) const RECENT_RECORDS_MAX: usize = 100_000;

/// A bounded set in order of arrival.
#[derive(Debug, Default)]
pub(super) struct RecentRecords {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    order: VecDeque<RecordKey>,
    keys: HashSet<RecordKey>,
}

impl RecentRecords {
    /// True where the identity is new; from then on it is known.
    pub(super) fn reserve(&self, key: RecordKey) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.keys.insert(key) {
            return false;
        }
        inner.order.push_back(key);
        while inner.order.len() > RECENT_RECORDS_MAX {
            if let Some(oldest) = inner.order.pop_front() {
                inner.keys.remove(&oldest);
            }
        }
        true
    }

    /// Takes reservations back whose records did not reach the log.
    pub(super) fn forget(&self, reserved: &[RecordKey]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for key in reserved {
            inner.keys.remove(key);
        }
        let Inner { order, keys } = &mut *inner;
        order.retain(|key| keys.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_new_once_until_it_is_forgotten_or_pushed_out() {
        let recent = RecentRecords::default();
        assert!(recent.reserve(1));
        assert!(!recent.reserve(1));
        recent.forget(&[1]);
        assert!(recent.reserve(1));
        for key in 2..RECENT_RECORDS_MAX as u128 + 2 {
            assert!(recent.reserve(key));
        }
        assert!(!recent.reserve(2), "still within the bound");
        assert!(recent.reserve(1), "pushed out by the newest");
    }
}

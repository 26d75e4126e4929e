//! Counters of the MQTT door, read by the HTTP door for its overview and its metrics.
//!
//! Plain relaxed atomics: each is a statistic of its own, no two are read as one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since start, except `connections` and `subscriptions`, which are gauges.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct MqttStats {
    /// Clients connected now.
    pub connections: AtomicU64,
    /// Live subscriptions now.
    pub subscriptions: AtomicU64,
    /// CONNECTs accepted.
    pub accepted_total: AtomicU64,
    /// Connections turned away: too many, no CONNECT in time, wrong credentials.
    pub refused_total: AtomicU64,
    /// PUBLISH packets received.
    pub received_total: AtomicU64,
    /// Payload bytes received.
    pub received_bytes: AtomicU64,
    /// Publishes that a route took to its log topic.
    pub routed: AtomicU64,
    /// Publishes that no route took (QoS 1: kept in `mqtt.unrouted`; QoS 0: live only).
    pub unrouted: AtomicU64,
    /// PUBACKs written, each after the fdatasync that covers its record.
    pub acked: AtomicU64,
    /// Messages given to live subscribers.
    pub delivered: AtomicU64,
    /// Messages a live subscriber did not get because its queue was full.
    pub dropped_for_slow_subscriber: AtomicU64,
    /// Messages a live subscriber did not get because they exceed its maximum packet size.
    pub dropped_too_large: AtomicU64,
    /// Messages lost to live subscribers when the live router failed.
    pub dropped_by_router: AtomicU64,
    /// Restarts of the live router after a failure.
    pub router_failures: AtomicU64,
    /// Connections ended for malformed packets or breaches of protocol.
    pub malformed: AtomicU64,
    /// Connections ended because the log refused a write.
    pub storage_failures: AtomicU64,
    /// Connections ended by their keep-alive.
    pub keep_alive_timeouts: AtomicU64,
    /// Connections ended because the same client connected again.
    pub taken_over: AtomicU64,
    /// Retained messages not retained because a limit of the retained store was reached.
    pub retained_refused: AtomicU64,
    /// Connections that ended in the TLS handshake, or whose certificate names nobody.
    pub tls_refused: AtomicU64,
    /// Publishes, wills and subscriptions that access rules refused.
    pub denied: AtomicU64,
    /// Messages a live subscriber did not get because access rules keep it from reading their topic.
    pub unreadable: AtomicU64,
    /// Wills published.
    pub wills: AtomicU64,
}

impl MqttStats {
    /// One counter's value.
    pub fn get(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }
}

pub(crate) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(crate) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Ordering::Relaxed);
}

/// Lets one line through per interval and counts what it held back, so that a misbehaving
/// client cannot fill the disk with log lines.
#[derive(Debug, Default)]
pub(crate) struct LogGate {
    last_ms: AtomicU64,
    held_back: AtomicU64,
}

impl LogGate {
    const INTERVAL_MS: u64 = 1_000;

    /// `Some(n)` when a line may be written now; `n` lines were held back since the last one.
    pub(crate) fn open(&self, now_ms: i64) -> Option<u64> {
        let now_ms = u64::try_from(now_ms).unwrap_or(0).max(1);
        let last_ms = self.last_ms.load(Ordering::Relaxed);
        let due = last_ms == 0 || now_ms.saturating_sub(last_ms) >= Self::INTERVAL_MS;
        let won = due
            && self
                .last_ms
                .compare_exchange(last_ms, now_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if won {
            Some(self.held_back.swap(0, Ordering::Relaxed))
        } else {
            self.held_back.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_gate_lets_one_line_through_per_second() {
        let gate = LogGate::default();
        assert_eq!(gate.open(5_000), Some(0));
        assert_eq!(gate.open(5_001), None);
        assert_eq!(gate.open(5_999), None);
        assert_eq!(gate.open(6_000), Some(2));
    }
}

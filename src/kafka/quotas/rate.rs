//! A rate over sliding windows, as Kafka measures it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Kafka: `quota.window.num` and `quota.window.size.seconds`.
const WINDOWS: u32 = 11;
const WINDOW: Duration = Duration::from_secs(1);

/// How much of something was taken lately.
pub(super) struct Rate {
    /// Begin and amount of each window with anything in it.
    windows: VecDeque<(Instant, f64)>,
    used: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Rate {
        Rate {
            windows: VecDeque::new(),
            used: now,
        }
    }

    pub(super) fn used(&self) -> Instant {
        self.used
    }

    pub(super) fn add(&mut self, now: Instant, amount: f64) {
        self.used = now;
        let oldest = WINDOW * WINDOWS;
        let age = |begun: Instant| now.saturating_duration_since(begun);
        while self
            .windows
            .front()
            .is_some_and(|(begun, _)| age(*begun) >= oldest)
        {
            self.windows.pop_front();
        }
        match self.windows.back_mut() {
            Some((begun, sum)) if age(*begun) < WINDOW => *sum += amount,
            _ => self.windows.push_back((now, amount)),
        }
    }

    /// How long nothing should be taken for the rate to come down to `bound` in a second.
    pub(super) fn excess(&self, now: Instant, bound: f64) -> Duration {
        let Some((oldest, _)) = self.windows.front() else {
            return Duration::ZERO;
        };
        // Until there is more to look back at, the first windows count as empty ones.
        let least = WINDOW * (WINDOWS - 1);
        let seconds = now
            .saturating_duration_since(*oldest)
            .max(least)
            .as_secs_f64();
        let sum: f64 = self.windows.iter().map(|(_, sum)| sum).sum();
        let excess = sum / bound - seconds;
        Duration::try_from_secs_f64(excess.max(0.0)).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_free_and_what_lasts_is_not() {
        let begin = Instant::now();
        let mut rate = Rate::new(begin);
        rate.add(begin, 1000.0);
        assert_eq!(rate.excess(begin, 100.0), Duration::ZERO);
        rate.add(begin, 500.0);
        assert_eq!(rate.excess(begin, 100.0), Duration::from_secs(5));
        let later = begin + Duration::from_secs(15);
        rate.add(later, 0.0);
        assert_eq!(rate.excess(later, 100.0), Duration::ZERO);
        // At the bound for ever.
        let mut rate = Rate::new(begin);
        for second in 0..100 {
            let now = begin + Duration::from_secs(second);
            rate.add(now, 100.0);
            assert!(rate.excess(now, 100.0) <= Duration::from_secs(1));
        }
        let now = begin + Duration::from_secs(99);
        assert!(rate.excess(now, 50.0) > Duration::from_secs(8));
    }
}

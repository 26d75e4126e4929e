//! When a session has waited long enough: for its client to speak, and for its client to listen.

use std::time::Duration;

use tokio::time::Instant;

use super::end::End;

pub(super) struct Timers {
    /// One and a half times what the client said; `None`: it may be silent.
    keep_alive: Option<Duration>,
    write_timeout: Duration,
    last_packet: Instant,
    /// Since when the socket has taken nothing of what is to go out; `None`: nothing is.
    unsent_since: Option<Instant>,
}

impl Timers {
    /// `keep_alive_s` 0: none.
    pub(super) fn new(keep_alive_s: u16, write_timeout: Duration, now: Instant) -> Timers {
        Timers {
            // As the standard says (3.1.2.10).
            keep_alive: (keep_alive_s > 0)
                .then(|| Duration::from_millis(u64::from(keep_alive_s) * 1500)),
            write_timeout,
            last_packet: now,
            unsent_since: None,
        }
    }

    pub(super) fn heard(&mut self, now: Instant) {
        self.last_packet = now;
    }

    /// Whether something is to go out now.
    pub(super) fn sending(&mut self, sending: bool, now: impl FnOnce() -> Instant) {
        if !sending {
            self.unsent_since = None;
        } else if self.unsent_since.is_none() {
            self.unsent_since = Some(now());
        }
    }

    /// The socket took something, or all that TLS still held.
    pub(super) fn sent(&mut self) {
        self.unsent_since = None;
    }

    /// When to check.
    pub(super) fn next(&self, now: Instant) -> Instant {
        let stalled = self.unsent_since.unwrap_or(now) + self.write_timeout;
        match self.keep_alive {
            Some(keep_alive) => stalled.min(self.last_packet + keep_alive),
            None => stalled,
        }
    }

    /// `listening`: the client is being read.
    pub(super) fn check(&mut self, listening: bool, now: Instant) -> Result<(), End> {
        if let Some(since) = self.unsent_since
            && now.duration_since(since) >= self.write_timeout
        {
            return Err(End::Stalled);
        }
        let Some(keep_alive) = self.keep_alive else {
            return Ok(());
        };
        if !listening {
            // It is we who do not listen.
            self.last_packet = now;
        } else if now.duration_since(self.last_packet) >= keep_alive {
            return Err(End::KeepAlive);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

    /// From one tick to the next, with a packet of the client once a second, until the session ends.
    fn tick_until_the_end(timers: &mut Timers, start: Instant, sent: &[u64]) -> (Duration, End) {
        let mut now = start;
        let mut sent = sent.iter().peekable();
        timers.sending(true, || start);
        for _ in 0..1_000 {
            let tick = timers.next(now);
            assert!(tick > now, "a tick that comes at once");
            while let Some(at) = sent.next_if(|at| start + Duration::from_secs(**at) <= tick) {
                let at = start + Duration::from_secs(*at);
                timers.sent();
                timers.sending(true, || at);
            }
            now = tick;
            timers.heard(now - Duration::from_millis(500));
            if let Err(end) = timers.check(true, now) {
                return (now - start, end);
            }
        }
        unreachable!("the session never ends")
    }

    #[test]
    fn a_short_keep_alive_leaves_the_write_timeout_as_it_is() {
        for keep_alive_s in [0, 1, 10, 1_000] {
            for (sent, expected_s) in [(&[][..], 30), (&[1, 29, 31], 61)] {
                let start = Instant::now();
                let mut timers = Timers::new(keep_alive_s, WRITE_TIMEOUT, start);
                let (after, end) = tick_until_the_end(&mut timers, start, sent);
                assert!(matches!(end, End::Stalled), "{end:?}");
                assert_eq!(after, Duration::from_secs(expected_s), "{keep_alive_s}");
            }
        }
    }

    #[test]
    fn who_is_sent_nothing_does_not_stall() {
        let start = Instant::now();
        let mut timers = Timers::new(0, WRITE_TIMEOUT, start);
        timers.sending(true, || start);
        timers.sending(false, || start);
        timers.check(true, start + 2 * WRITE_TIMEOUT).unwrap();
        timers.sending(true, || start + 2 * WRITE_TIMEOUT);
        timers.check(true, start + WRITE_TIMEOUT * 5 / 2).unwrap();
        assert_eq!(timers.next(start), start + 3 * WRITE_TIMEOUT);
    }

    #[test]
    fn silence_counts_while_the_client_is_listened_to() {
        let start = Instant::now();
        let mut timers = Timers::new(10, WRITE_TIMEOUT, start);
        let (late, later) = (Duration::from_secs(15), Duration::from_secs(30));
        assert_eq!(timers.next(start), start + late);
        timers.check(false, start + late).unwrap();
        timers.check(true, start + late).unwrap();
        let end = timers.check(true, start + later).unwrap_err();
        assert!(matches!(end, End::KeepAlive), "{end:?}");
    }
}

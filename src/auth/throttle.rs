//! Counts failed sign-ins per address, in fixed windows, in a table of bounded size.
//!
//! An attempt is looked at when its turn has come, and counts when it has failed: ten thousand devices
//! behind one address may wait for their turns together. What slips through beyond the limit is what is
//! judged at the same moment.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Addresses remembered at once; the one whose window began first makes room.
pub const THROTTLE_ADDRESSES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Throttle {
    failures_max: u32,
    window: Duration,
    addresses: HashMap<IpAddr, Window>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    began: Instant,
    failures: u32,
}

impl Throttle {
    pub(super) fn new(failures_max: u32, window_s: u64) -> Throttle {
        Throttle {
            failures_max: failures_max.max(1),
            window: Duration::from_secs(window_s.max(1)),
            addresses: HashMap::new(),
        }
    }

    /// Whether this address may try; `Err` holds the seconds to wait.
    pub(super) fn check(&self, from: IpAddr, now: Instant) -> Result<(), u64> {
        let Some(window) = self.addresses.get(&network_of(from)) else {
            return Ok(());
        };
        let age = now.saturating_duration_since(window.began);
        if age >= self.window || window.failures < self.failures_max {
            return Ok(());
        }
        Err(self.window.saturating_sub(age).as_secs().max(1))
    }

    pub(super) fn count(&mut self, from: IpAddr, now: Instant) {
        let from = network_of(from);
        if !self.addresses.contains_key(&from) {
            self.make_room(now);
        }
        let fresh = Window {
            began: now,
            failures: 0,
        };
        let window = self.addresses.entry(from).or_insert(fresh);
        if now.saturating_duration_since(window.began) >= self.window {
            *window = fresh;
        }
        window.failures = window.failures.saturating_add(1);
    }

    fn make_room(&mut self, now: Instant) {
        if self.addresses.len() < THROTTLE_ADDRESSES_MAX {
            return;
        }
        let window = self.window;
        self.addresses
            .retain(|_, w| now.saturating_duration_since(w.began) < window);
        if self.addresses.len() < THROTTLE_ADDRESSES_MAX {
            return;
        }
        if let Some(oldest) = self
            .addresses
            .iter()
            .min_by_key(|(_, w)| w.began)
            .map(|(address, _)| *address)
        {
            self.addresses.remove(&oldest);
        }
    }
}

/// A sign-in from one address.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    throttle: Arc<Mutex<Throttle>>,
    from: IpAddr,
}

impl Attempt {
    pub(super) fn new(throttle: &Arc<Mutex<Throttle>>, from: IpAddr) -> Attempt {
        Attempt {
            throttle: Arc::clone(throttle),
            from,
        }
    }

    /// `Err` holds the seconds to wait.
    pub(super) fn check(&self) -> Result<(), u64> {
        self.lock().check(self.from, Instant::now())
    }

    pub(super) fn failed(&self) {
        self.lock().count(self.from, Instant::now());
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One IPv6 subscriber has a whole /64 of addresses to fail from.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn an_address_is_turned_away_after_its_failures_until_the_window_ends() {
        let mut throttle = Throttle::new(3, 60);
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(throttle.check(address(1), start), Ok(()));
            throttle.count(address(1), start);
        }
        let later = |s| start + Duration::from_secs(s);
        assert_eq!(throttle.check(address(1), later(10)), Err(50));
        assert_eq!(throttle.check(address(2), start), Ok(()));
        assert_eq!(throttle.check(address(1), later(60)), Ok(()));
        throttle.count(address(1), later(60));
        assert_eq!(throttle.check(address(1), later(61)), Ok(()));
    }

    #[test]
    fn the_table_never_outgrows_its_limit() {
        let mut throttle = Throttle::new(1, 60);
        let start = Instant::now();
        for n in 0..2 * THROTTLE_ADDRESSES_MAX as u32 {
            throttle.count(address(n), start + Duration::from_millis(u64::from(n)));
            assert!(throttle.addresses.len() <= THROTTLE_ADDRESSES_MAX);
        }
        let newest = 2 * THROTTLE_ADDRESSES_MAX as u32 - 1;
        let soon = start + Duration::from_secs(9);
        assert!(throttle.check(address(newest), soon).is_err());
    }

    #[test]
    fn a_slash_64_counts_as_one_address() {
        let mut throttle = Throttle::new(1, 60);
        let now = Instant::now();
        throttle.count("2001:db8::1".parse().unwrap(), now);
        throttle.count("::ffff:10.0.0.1".parse().unwrap(), now);
        let check = |text: &str| throttle.check(text.parse().unwrap(), now);
        assert!(check("2001:db8::2").is_err());
        assert!(check("2001:db8:0:1::2").is_ok());
        assert!(check("10.0.0.1").is_err());
    }
}

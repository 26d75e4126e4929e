//! Counts failed sign-ins per address, in fixed windows, in a table of bounded size.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Addresses remembered at once; the one whose window began first makes room.
pub const THROTTLE_ADDRESSES_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Throttle {
    failures_max: u32,
    window: Duration,
    addresses: HashMap<IpAddr, Window>,
}

#[derive(Debug)]
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

    /// Counts an attempt as failed before it is judged, so that attempts made at the same time cannot
    /// slip through together; [`Throttle::forgive`] takes a successful one back. `Err` holds the seconds
    /// to wait.
    pub(super) fn admit(&mut self, from: IpAddr, now: Instant) -> Result<(), u64> {
        let from = network_of(from);
        if !self.addresses.contains_key(&from) {
            self.make_room(now);
        }
        let window = self.addresses.entry(from).or_insert(Window {
            began: now,
            failures: 0,
        });
        let age = now.saturating_duration_since(window.began);
        if age >= self.window {
            *window = Window {
                began: now,
                failures: 0,
            };
        }
        if window.failures >= self.failures_max {
            let left = self.window.saturating_sub(age);
            return Err(left.as_secs().max(1));
        }
        window.failures += 1;
        Ok(())
    }

    pub(super) fn forgive(&mut self, from: IpAddr) {
        let from = network_of(from);
        if let Some(window) = self.addresses.get_mut(&from) {
            window.failures = window.failures.saturating_sub(1);
            if window.failures == 0 {
                self.addresses.remove(&from);
            }
        }
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
            throttle.admit(address(1), start).unwrap();
        }
        assert_eq!(
            throttle.admit(address(1), start + Duration::from_secs(10)),
            Err(50)
        );
        assert_eq!(throttle.admit(address(2), start), Ok(()));
        assert_eq!(
            throttle.admit(address(1), start + Duration::from_secs(60)),
            Ok(())
        );
    }

    #[test]
    fn a_success_costs_nothing() {
        let mut throttle = Throttle::new(2, 60);
        let now = Instant::now();
        for _ in 0..100 {
            throttle.admit(address(1), now).unwrap();
            throttle.forgive(address(1));
        }
        assert!(throttle.addresses.is_empty());
    }

    #[test]
    fn the_table_never_outgrows_its_limit() {
        let mut throttle = Throttle::new(1, 60);
        let start = Instant::now();
        for n in 0..2 * THROTTLE_ADDRESSES_MAX as u32 {
            throttle
                .admit(address(n), start + Duration::from_millis(u64::from(n)))
                .unwrap();
            assert!(throttle.addresses.len() <= THROTTLE_ADDRESSES_MAX);
        }
        let newest = 2 * THROTTLE_ADDRESSES_MAX as u32 - 1;
        assert!(
            throttle
                .admit(address(newest), start + Duration::from_secs(9))
                .is_err()
        );
    }

    #[test]
    fn a_slash_64_counts_as_one_address() {
        let mut throttle = Throttle::new(1, 60);
        let now = Instant::now();
        throttle.admit("2001:db8::1".parse().unwrap(), now).unwrap();
        assert!(throttle.admit("2001:db8::2".parse().unwrap(), now).is_err());
        assert!(
            throttle
                .admit("2001:db8:0:1::2".parse().unwrap(), now)
                .is_ok()
        );
        throttle
            .admit("::ffff:10.0.0.1".parse().unwrap(), now)
            .unwrap();
        assert!(throttle.admit("10.0.0.1".parse().unwrap(), now).is_err());
    }
}

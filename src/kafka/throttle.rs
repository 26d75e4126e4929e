//! Holding a client back that takes more than its quotas allow: it is answered at once, with how long it
//! should wait, and its connection is not read for as long (KIP-219). And the places that one address may
//! take.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Longest wait for a single request, whatever the excess: a client gives up on a connection that is silent
/// for longer.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// When a connection is read again.
#[derive(Debug, Default)]
pub(super) struct Pause(Mutex<Option<tokio::time::Instant>>);

impl Pause {
    fn extend(&self, wait: Duration) {
        let until = tokio::time::Instant::now() + wait;
        let mut pause = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *pause = (*pause).max(Some(until));
    }

    /// Resolves when it is over; at once where there is none.
    pub(super) async fn over(&self) {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match until.filter(|until| *until > tokio::time::Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }
}

/// How long the client of one request should wait.
#[derive(Debug)]
pub(super) struct Throttle {
    pause: Arc<Pause>,
    ms: AtomicU64,
}

impl Throttle {
    pub(super) fn new(pause: Arc<Pause>) -> Throttle {
        Throttle {
            pause,
            ms: AtomicU64::new(0),
        }
    }

    /// It should wait for this at least.
    pub(super) fn add(&self, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        let wait = wait.min(WAIT_MAX);
        self.pause.extend(wait);
        let ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        self.ms.fetch_max(ms, Ordering::Relaxed);
    }

    /// As the response says it.
    pub(super) fn ms(&self) -> i32 {
        i32::try_from(self.ms.load(Ordering::Relaxed)).unwrap_or(i32::MAX)
    }
}

/// A future and the time that it has kept a thread busy.
pub(super) struct Timed<F> {
    future: Pin<Box<F>>,
    busy: Duration,
}

impl<F: Future> Timed<F> {
    pub(super) fn new(future: F) -> Timed<F> {
        Timed {
            future: Box::pin(future),
            busy: Duration::ZERO,
        }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = (F::Output, Duration);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let begun = Instant::now();
        let polled = self.future.as_mut().poll(cx);
        self.busy += begun.elapsed();
        polled.map(|output| (output, self.busy))
    }
}

/// How many connections each address has.
#[derive(Debug, Default)]
pub(super) struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, if it may have one more.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<AddressPlace> {
        let address = address.to_canonical();
        let mut taken = self.lock();
        let count = taken.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace {
            addresses: self.clone(),
            address,
        })
    }
}

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct AddressPlace {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut taken = self.addresses.lock();
        if let Some(count) = taken.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pause_lasts_as_long_as_the_longest_wait() {
        let pause = Arc::new(Pause::default());
        let begun = tokio::time::Instant::now();
        pause.over().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let throttle = Throttle::new(pause.clone());
        throttle.add(Duration::ZERO);
        assert_eq!(throttle.ms(), 0);
        throttle.add(Duration::from_millis(300));
        throttle.add(Duration::from_millis(200));
        assert_eq!(throttle.ms(), 300);
        pause.over().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(300));
        throttle.add(Duration::from_secs(3600));
        assert_eq!(throttle.ms(), 30_000);
    }

    #[test]
    fn an_address_gets_its_places_back() {
        let addresses = Arc::new(Addresses::default());
        let address: IpAddr = "127.0.0.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        let first = addresses.take(address, 2).unwrap();
        let _second = addresses.take(mapped, 2).unwrap();
        assert!(addresses.take(address, 2).is_none());
        assert!(addresses.take("127.0.0.2".parse().unwrap(), 2).is_some());
        drop(first);
        assert!(addresses.take(address, 2).is_some());
    }
}

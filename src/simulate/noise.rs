//! Repeatable randomness: a generator from a seed, and smooth noise as a pure function of time.

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good enough for weather; not for secrets.
#[derive(Debug, Clone)]
pub(super) struct Rng(u64);

impl Rng {
    /// One of many independent streams of the same seed.
    pub(super) fn stream(seed: u64, number: u64) -> Rng {
        Rng(mix(seed ^ mix(number.wrapping_add(1))))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in `[0, 1)`.
    pub(super) fn unit(&mut self) -> f64 {
        unit(self.next())
    }

    /// Uniform in `[low, high)`.
    pub(super) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in `0..n`; 0 for an empty range.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % n).unwrap_or(0)
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

/// Value noise in `[0, 1)`: a random level every `period_s`, smoothly joined. Devices that share a
/// seed see the same weather without talking to one another.
pub(super) fn smooth(seed: u64, at_s: f64, period_s: f64) -> f64 {
    let position = at_s / period_s;
    let step = position.floor();
    let level = |n: f64| unit(mix(seed ^ mix((n as i64).cast_unsigned())));
    let (from, to) = (level(step), level(step + 1.0));
    let t = position - step;
    from + (to - from) * t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers_and_streams_differ() {
        let draw = |mut rng: Rng| (0..8).map(|_| rng.next()).collect::<Vec<_>>();
        assert_eq!(draw(Rng::stream(7, 0)), draw(Rng::stream(7, 0)));
        assert_ne!(draw(Rng::stream(7, 0)), draw(Rng::stream(7, 1)));
    }

    #[test]
    fn smooth_noise_stays_in_range_and_does_not_jump() {
        let mut last = smooth(3, 0.0, 60.0);
        for second in 1..10_000 {
            let now = smooth(3, f64::from(second), 60.0);
            assert!((0.0..1.0).contains(&now));
            assert!((now - last).abs() < 0.05, "jump at {second} s");
            last = now;
        }
    }
}

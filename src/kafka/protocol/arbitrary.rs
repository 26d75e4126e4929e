//! Seeded random messages for the tests of the codec.

#![allow(clippy::indexing_slicing)]

use bytes::Bytes;
use uuid::Uuid;

use super::wire::{Records, Str};

/// SplitMix64: the same seed gives the same messages everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// A random value of a type in a version; fields the version lacks keep their defaults.
pub(crate) trait Arbitrary {
    fn arbitrary(rng: &mut Rng, version: i16) -> Self;
}

macro_rules! numbers {
    ($($ty:ty)*) => { $(
        impl Arbitrary for $ty {
            fn arbitrary(rng: &mut Rng, _: i16) -> $ty {
                rng.next() as $ty
            }
        }
    )* };
}

numbers!(i8 i16 u16 i32 i64);

impl Arbitrary for f64 {
    fn arbitrary(rng: &mut Rng, _: i16) -> f64 {
        f64::from(rng.next() as i32) / 8.0
    }
}

impl Arbitrary for bool {
    fn arbitrary(rng: &mut Rng, _: i16) -> bool {
        rng.next() & 1 == 1
    }
}

impl Arbitrary for Uuid {
    fn arbitrary(rng: &mut Rng, _: i16) -> Uuid {
        Uuid::from_u64_pair(rng.next(), rng.next())
    }
}

/// Mostly short; now and then long enough for a length of two varint bytes.
fn length(rng: &mut Rng) -> usize {
    if rng.below(16) == 0 {
        120 + rng.below(400)
    } else {
        rng.below(9)
    }
}

impl Arbitrary for Str {
    fn arbitrary(rng: &mut Rng, _: i16) -> Str {
        let alphabet = ["a", "Z", "0", "-", ".", "_", "ü", "\u{1f40b}"];
        let text: String = (0..length(rng))
            .map(|_| alphabet[rng.below(alphabet.len())])
            .collect();
        Str::from(text)
    }
}

impl Arbitrary for Bytes {
    fn arbitrary(rng: &mut Rng, _: i16) -> Bytes {
        (0..length(rng)).map(|_| rng.next() as u8).collect()
    }
}

impl Arbitrary for Records {
    fn arbitrary(rng: &mut Rng, version: i16) -> Records {
        Records::from(Bytes::arbitrary(rng, version))
    }
}

impl<T: Arbitrary> Arbitrary for Option<T> {
    fn arbitrary(rng: &mut Rng, version: i16) -> Option<T> {
        (rng.below(4) > 0).then(|| T::arbitrary(rng, version))
    }
}

impl<T: Arbitrary> Arbitrary for Vec<T> {
    fn arbitrary(rng: &mut Rng, version: i16) -> Vec<T> {
        (0..rng.below(4))
            .map(|_| T::arbitrary(rng, version))
            .collect()
    }
}

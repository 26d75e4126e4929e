//! Where every decision comes from: a fuzzer's bytes as long as there are any, then a seed.

/// The same seed and bytes give the same decisions.
pub struct Dice<'a> {
    bytes: &'a [u8],
    state: u64,
}

impl Dice<'static> {
    pub fn new(seed: u64) -> Dice<'static> {
        Dice {
            bytes: &[],
            state: seed,
        }
    }
}

impl<'a> Dice<'a> {
    /// Decisions of a fuzzer, so that it can tell which of them led further.
    pub fn of_bytes(bytes: &'a [u8]) -> Dice<'a> {
        Dice { bytes, state: 1 }
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Any number; of a fuzzer's bytes it takes as many as given.
    fn draw(&mut self, bytes: usize) -> u64 {
        if self.bytes.is_empty() {
            return self.random();
        }
        let (taken, rest) = self.bytes.split_at(bytes.min(self.bytes.len()));
        self.bytes = rest;
        taken
            .iter()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub fn next(&mut self) -> u64 {
        self.draw(8)
    }

    /// `0..limit`; 0 where the limit is.
    pub fn below(&mut self, limit: usize) -> usize {
        let bytes = if limit <= 256 { 1 } else { 4 };
        (self.draw(bytes) % limit.max(1) as u64) as usize
    }

    /// One time in `n`.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One of them or, seldom, anything.
    pub fn mostly(&mut self, from: &[i64]) -> i64 {
        if self.once_in(24) {
            self.extreme()
        } else {
            self.pick(from)
        }
    }

    /// A number at one of the edges of some type.
    pub fn extreme(&mut self) -> i64 {
        let edges = [
            0,
            1,
            -1,
            -2,
            -3,
            -6,
            -7,
            2,
            127,
            128,
            255,
            32_767,
            32_768,
            65_535,
            i64::from(i32::MAX),
            i64::from(i32::MIN),
            i64::from(i32::MAX) + 1,
            i64::MAX,
            i64::MIN,
            i64::MAX - 1,
        ];
        if self.once_in(4) {
            self.next().cast_signed()
        } else {
            self.pick(&edges)
        }
    }
}

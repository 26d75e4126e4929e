//! Where every decision comes from: a seed and a number, and nothing else.

/// The same seed and number give the same decisions.
pub struct Dice {
    state: u64,
}

impl Dice {
    pub fn new(seed: u64, number: u64) -> Dice {
        let mut dice = Dice { state: seed };
        dice.state = dice.next() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
        dice
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `0..limit`; 0 where the limit is.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
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

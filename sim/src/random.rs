//! The random numbers of a seed, in named streams: a draw in one never shifts the draws of another, so that a plan can
//! lose a fault and everything else stays as it was.

/// A stream of numbers (SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Stream(u64);

impl Stream {
    /// The stream `name` of `seed`.
    pub fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name: streams of like names share nothing.
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Self(mix(seed ^ hash))
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number from 0 to `limit - 1`.
    ///
    /// # Panics
    /// If there is none.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0, "there is no number below 0");
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A number from `low` to `high` of which each order of magnitude is as likely as another.
    pub fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = (low.max(1).ilog2(), high.max(1).ilog2());
        let bits = self.between(u64::from(from), u64::from(to));
        let top = (1_u64 << bits).saturating_mul(2) - 1;
        self.between((1_u64 << bits).clamp(low, high), top.clamp(low, high))
    }

    /// True with a chance of `percent` in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_their_own_and_repeat() {
        let draws = |seed, name| {
            let mut stream = Stream::new(seed, name);
            (0..4).map(|_| stream.draw()).collect::<Vec<_>>()
        };
        assert_eq!(draws(1, "net"), draws(1, "net"));
        assert_ne!(draws(1, "net"), draws(2, "net"));
        assert_ne!(draws(1, "net"), draws(1, "disk"));
    }

    #[test]
    fn ranges_are_kept_and_reached() {
        let mut stream = Stream::new(7, "ranges");
        let drawn: Vec<u64> = (0..1000).map(|_| stream.between(3, 5)).collect();
        assert!(drawn.iter().all(|n| (3..=5).contains(n)) && (3..=5).all(|n| drawn.contains(&n)));
        assert!((0..1000).all(|_| (10..=5000).contains(&stream.magnitude(10, 5000))));
    }
}

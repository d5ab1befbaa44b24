//! A number for a state, by which two states are told apart.

use core::hash::{Hash, Hasher};

use crate::state::State;

/// FNV-1a with 64 bits. The standard library's hasher is nobody's promise between two builds and has no fixed key to
/// name; this one is eight lines. Whatever is hashed goes in by bytes, least significant first, `usize` and `isize` as
/// 64 bits, so that most of it is the same on every architecture.
///
/// Not all of it: slices of numbers are hashed as they lie in memory, and what `derive(Hash)` hashes besides is the
/// compiler's to choose. A digest is to be compared with one of the same build for the same architecture.
#[derive(Clone, Copy, Debug)]
pub struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write(&number.to_le_bytes());
    }

    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }

    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }

    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }

    // The signed ones are these by default.
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as i64 as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl State {
    /// A number that differs (but for one chance in 2^64) if anything in the state does: what the flight recorder notes
    /// after each step, and a replay must find again.
    pub fn digest(&self) -> u64 {
        let mut hasher = Fnv::default();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, config};

    #[test]
    fn it_is_fnv_1a() {
        // From the reference (draft-eastlake-fnv): "" , "a", "foobar".
        for (text, sum) in
            [("", 0xcbf2_9ce4_8422_2325), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8_u64)]
        {
            let mut hasher = Fnv::default();
            hasher.write(text.as_bytes());
            assert_eq!(hasher.finish(), sum, "{text:?}");
        }
    }

    #[test]
    fn numbers_go_in_least_significant_byte_first() {
        let of = |feed: fn(&mut Fnv)| {
            let mut hasher = Fnv::default();
            feed(&mut hasher);
            hasher.finish()
        };
        let bytes = of(|fnv| fnv.write(&[2, 1, 0, 0, 0, 0, 0, 0]));
        assert_eq!(of(|fnv| fnv.write_u64(0x102)), bytes);
        assert_eq!(of(|fnv| fnv.write_usize(0x102)), bytes);
        assert_eq!(of(|fnv| fnv.write_i64(0x102)), bytes);
        assert_eq!(of(|fnv| fnv.write_u128(0x102)), of(|fnv| fnv.write(&0x102_u128.to_le_bytes())));
        assert_eq!(of(|fnv| fnv.write_isize(-1)), of(|fnv| fnv.write_u64(u64::MAX)));
        assert_eq!(of(|fnv| fnv.write_i16(-2)), of(|fnv| fnv.write(&[0xFE, 0xFF])));
    }

    #[test]
    fn equal_states_have_equal_digests_and_a_small_difference_shows() {
        let state = State::new(config(), at(0));
        let mut other = state.clone();
        assert_eq!(state.digest(), other.digest());
        other.memory.start_failures += 1;
        assert_ne!(state.digest(), other.digest());
        assert_ne!(state.digest(), State::new(config(), at(1)).digest());
    }
}

//! Numbers and texts that follow from a seed alone. In: a seed and the number of an event. Out: the same draws in every run and process.

/// Splitmix64: one state per event, so that any event can be made without those before it.
pub struct Random(u64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";

impl Random {
    pub fn of(seed: u64, number: u64) -> Random {
        let mut of_seed = Random(seed);
        Random(of_seed.next() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below 0");
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From 0 up to 1, without 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    /// Three letters at least and fewer than `length_max`, a gap among thirteen of them.
    pub fn words(&mut self, length_max: u64, gap: char, out: &mut String) {
        for _ in 0..3 + self.below(length_max - 3) {
            match self.below(13) {
                0 => out.push(gap),
                _ => out.push(char::from(LETTERS[self.below(26) as usize])),
            }
        }
    }

    /// Exactly so many letters.
    pub fn letters(&mut self, count: usize, out: &mut String) {
        // Twelve letters fit a draw.
        for first in (0..count).step_by(12) {
            let mut draw = self.next();
            for _ in first..count.min(first + 12) {
                out.push(char::from(LETTERS[(draw % 26) as usize]));
                draw /= 26;
            }
        }
    }
}

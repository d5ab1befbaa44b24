//! Every target for a few seconds, on stable and without libFuzzer: its seeds, and inputs that a small mutator makes of
//! them. The same build runs the same inputs. libFuzzer finds more, since it sees which branches an input takes.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use super::TARGETS;

/// A target stops early on a machine so slow that it takes longer.
const LIMIT: Duration = Duration::from_secs(20);
/// The longest input that is made.
const BYTES_MAX: usize = 8192;

/// A test for each target, with how many inputs it is given: about two seconds' worth where the targets are optimised.
macro_rules! short {
    ($($name:ident $inputs:literal)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name), $inputs);
        })*

        #[test]
        fn every_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert_eq!(run.to_vec(), TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        }
    };
}

short! {
    api 20_000
    config 3_000
    control_data 1_500
    dynamic_config 20_000
    guard 20_000
    journal 20_000
    mirror 20_000
    plan 20
    postgres_texts 20_000
    recording 20_000
    step 400
    store_values 20_000
    timeline_history 20_000
    times 20_000
    wal_sender 10_000
}

fn run(name: &str, inputs: usize) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target).expect("a target");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = seeds(&root.join("seeds").join(name));
    let tokens = tokens(&root.join("dictionaries").join(format!("{name}.dict")));
    let began = Instant::now();
    for seed in &seeds {
        one(name, target, seed);
    }
    let mut random = Random(0x6d61_7472);
    for number in 0..inputs {
        if began.elapsed() > LIMIT {
            eprintln!("{name}: {number} of {inputs} inputs, the time is over");
            return;
        }
        one(name, target, &random.input(&seeds, &tokens));
    }
}

fn one(name: &str, target: fn(&[u8]), input: &[u8]) {
    let ended = catch_unwind(AssertUnwindSafe(|| target(input)));
    assert!(
        ended.is_ok(),
        "{name} fails for this input; make it a file in fuzz/seeds/{name}:\n{}",
        input.escape_ascii()
    );
}

/// In the order of their names: the directory has them in any.
fn seeds(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a directory that is read").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths.iter().map(|path| fs::read(path).expect("a seed is a file")).collect()
}

/// The words of a libFuzzer dictionary; none if there is no such file.
fn tokens(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| line.trim().strip_prefix('"')?.strip_suffix('"')).map(unescaped).collect()
}

/// `\\`, `\"` and `\xNN` are all the escapes there are.
fn unescaped(word: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), word);
    while let Some(first) = rest.chars().next() {
        let hexadecimal = rest.strip_prefix("\\x").and_then(|digits| u8::from_str_radix(digits.get(..2)?, 16).ok());
        let (byte, length) = match (hexadecimal, first) {
            (Some(byte), _) => (byte, 4),
            (None, '\\') => (rest.as_bytes().get(1).copied().unwrap_or(b'\\'), 2.min(rest.len())),
            (None, other) => (u8::try_from(other).expect("a dictionary is ASCII"), 1),
        };
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((u128::from(x ^ (x >> 31)) * limit as u128) >> 64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.below(256) as u8).collect()
    }

    /// Mostly a seed with a few changes, now and then nothing but noise.
    fn input(&mut self, seeds: &[Vec<u8>], tokens: &[Vec<u8>]) -> Vec<u8> {
        if self.below(16) == 0 {
            return self.bytes(2048);
        }
        let mut input = self.pick(seeds).cloned().unwrap_or_default();
        for _ in 0..=self.below(6) {
            self.change(&mut input, seeds, tokens);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, seeds: &[Vec<u8>], tokens: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(8) {
            0 => drop(input.drain(at.min(end)..end)),
            1 => {
                let copy = input[at.min(end)..end].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, copy);
            }
            2 => {
                let noise = self.bytes(8);
                input.splice(at..at, noise);
            }
            3 | 4 => {
                let token = self.pick(tokens).cloned().unwrap_or_default();
                let until = if self.below(2) == 0 { at } else { end.max(at) };
                input.splice(at..until, token);
            }
            5 => {
                let other = self.pick(seeds).cloned().unwrap_or_default();
                let from = self.below(other.len() + 1);
                input.splice(at.., other[from..].iter().copied());
            }
            6 => {
                let interesting = [0, 1, 0x7f, 0x80, 0xff, b'0', b'9', b'-', b'"', b'\n', b' ', b'{', b'}', b':'];
                let byte = interesting[self.below(interesting.len())];
                if let Some(place) = input.get_mut(at) {
                    *place = byte;
                }
            }
            _ => {
                let bit = self.below(8);
                if let Some(place) = input.get_mut(at) {
                    *place ^= 1 << bit;
                }
            }
        }
    }
}

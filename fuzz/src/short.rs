//! Every target for a few seconds, on stable and without libFuzzer: its seeds, and a fixed number of inputs that a small
//! mutator makes of them. The same build runs the same inputs, on a slow machine as well. libFuzzer finds more, since it
//! sees which branches an input takes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::{TARGETS, Target};

/// The longest input that is made.
const BYTES_MAX: usize = 8192;

/// A test for each target, with how many inputs it is given: a few seconds' worth in a debug build on two slow cores.
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
    monitoring 20_000
    node_files 20_000
    peers 20_000
    plan 20
    postgres_texts 20_000
    recording 20_000
    step 400
    store_values 20_000
    timeline_history 20_000
    times 20_000
    wal_sender 10_000
}

/// What each kept input is taken for, a line each.
const KEPT: &str = "kept.txt";

/// A kept input fails no more; that says nothing once it does not get as far as the code any more that it was kept for.
#[test]
fn kept_inputs_are_taken_for_what_they_were_kept_for() {
    let mut now = String::new();
    for (name, target) in TARGETS {
        for (seed, bytes) in seeds(name) {
            writeln!(now, "{name}/{seed}: {}", target(&bytes)).expect("memory");
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(KEPT);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &now).expect("it is written");
    }
    let kept = fs::read_to_string(&path).expect("a text");
    for (before, now) in kept.lines().zip(now.lines()) {
        assert_eq!(now, before, "if that is meant, run this with UPDATE=1");
    }
    assert_eq!(kept.lines().count(), now.lines().count(), "run this with UPDATE=1");
}

fn run(name: &str, inputs: usize) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let seeds: Vec<_> = seeds(name).into_values().collect();
    let tokens = tokens(&Path::new(env!("CARGO_MANIFEST_DIR")).join("dictionaries").join(format!("{name}.dict")));
    let mut taken_for: BTreeMap<String, usize> = BTreeMap::new();
    for seed in &seeds {
        *taken_for.entry(one(target, seed)).or_default() += 1;
    }
    let mut random = Random(0x6d61_7472);
    for _ in 0..inputs {
        *taken_for.entry(one(target, &random.input(&seeds, &tokens))).or_default() += 1;
    }
    let (ran, kinds) = (taken_for.values().sum::<usize>(), taken_for.len());
    println!("{name}: {ran} inputs, taken for {kinds} things");
    assert!(kinds > 1, "{name} takes everything for the same: no input gets anywhere");
}

fn one((name, target): &Target, input: &[u8]) -> String {
    catch_unwind(AssertUnwindSafe(|| target(input))).unwrap_or_else(|_| {
        panic!("{name} fails for this input; make it a file in fuzz/seeds/{name}:\n{}", input.escape_ascii())
    })
}

/// The seeds of a target, by the names of their files.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let seed = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.expect("a directory that is read");
        (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a seed is a file"))
    };
    let seeds: BTreeMap<_, _> = entries.map(seed).collect();
    assert!(!seeds.is_empty(), "{} is empty", directory.display());
    seeds
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

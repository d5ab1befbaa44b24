//! What recording costs the agent's loop, measured on what an agent has recorded:
//! `cargo run --release -p matriarch-sim --example recorder_cost FILE...`

use std::time::{Duration, Instant};
use std::{env, fs};

use matriarch_core::record::{Encoder, Reader, Record};

/// Each step is taken from the same state so many times: once is too short to be measured.
const TIMES: u32 = 50;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for path in env::args().skip(1) {
        let bytes = fs::read(&path)?;
        let (header, reader) = Reader::open(&bytes)?;
        let first = bytes.len() - reader.unread();
        let mut state = header.origin.state();
        let mut encoder = Encoder::default();
        let (mut steps, mut frames) = (0, 0);
        let [mut stepping, mut encoding, mut digesting] = [Duration::ZERO; 3];
        let mut span: Option<(u64, u64)> = None;
        for record in reader.map_while(Result::ok) {
            match record {
                Record::Gap { state: after, .. } => state = *after,
                Record::Step { at, event, digest } => {
                    let begun = Instant::now();
                    for _ in 0..TIMES {
                        encoder.begin_step(at, &event);
                        frames += encoder.end_step(digest).len();
                    }
                    encoding += begun.elapsed();
                    let begun = Instant::now();
                    matriarch_core::step(&mut state, at, *event);
                    stepping += begun.elapsed();
                    let begun = Instant::now();
                    let mut sum = 0;
                    for _ in 0..TIMES {
                        sum ^= std::hint::black_box(&state).digest();
                    }
                    digesting += begun.elapsed();
                    assert_eq!(sum, 0, "an even number of equal digests");
                    steps += 1;
                    span = Some((span.map_or(at.0, |(first, _)| first), at.0));
                }
            }
        }
        let each = |time: Duration, times: u32| time.as_secs_f64() * 1e6 / f64::from(steps.max(1)) / f64::from(times);
        let seconds = span.map_or(0.0, |(first, last)| (last - first) as f64 / 1e9);
        println!(
            "{path}: {steps} steps in {seconds:.0} s; header {first} bytes, a step {} bytes; \
             step {:.1} us, encode {:.2} us, digest {:.2} us",
            frames / TIMES as usize / steps.max(1) as usize,
            each(stepping, 1),
            each(encoding, TIMES),
            each(digesting, TIMES),
        );
    }
    Ok(())
}

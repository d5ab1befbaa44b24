//! Recordings are sent by others, cut off and damaged: reading them never panics, and what was read is the same after
//! it was written and read again.

use std::hash::Hasher;

use matriarch_core::digest::Fnv;
use matriarch_core::record::{Encoder, Reader, Record};

use crate::input::read;

/// The target. The frames are made here: nobody guesses a checksum.
pub fn target(data: &[u8]) -> String {
    let Some(file) = file(data) else { return "no frames".into() };
    check(data);
    check(&file).map_or_else(|| "no recording".into(), |records| format!("{records} records"))
}

/// The file of which `data` has the payloads of the frames, and what stands behind them.
fn file(data: &[u8]) -> Option<Vec<u8>> {
    let (payloads, tail) = read::<(Vec<&[u8]>, &[u8])>(data)?;
    let mut file = b"MATRREC\x01".to_vec();
    for payload in payloads {
        let length = (payload.len() as u32).to_le_bytes();
        let mut sum = Fnv::default();
        sum.write(&length);
        sum.write(payload);
        file.extend_from_slice(&length);
        file.extend_from_slice(&sum.finish().to_le_bytes());
        file.extend_from_slice(payload);
    }
    file.extend_from_slice(tail);
    Some(file)
}

/// How many records the file has.
fn check(file: &[u8]) -> Option<usize> {
    let Ok((header, reader)) = Reader::open(file) else { return None };
    let mut encoder = Encoder::default();
    let mut again = encoder.header(&header).to_vec();
    let mut records = Vec::new();
    for record in reader.map_while(Result::ok) {
        again.extend_from_slice(match &record {
            Record::Step { at, event, digest } => {
                encoder.begin_step(*at, event);
                encoder.end_step(*digest)
            }
            Record::Gap { lost, state } => encoder.gap(*lost, state),
        });
        records.push(Ok(record));
    }
    let (header_again, reader) = Reader::open(&again).expect("what was written is read");
    assert_eq!(header_again, header);
    assert_eq!(reader.collect::<Vec<_>>(), records);
    Some(records.len())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use matriarch_core::record::{Header, MAGIC, Origin};
    use matriarch_core::state::State;
    use matriarch_core::time::WallMillis;

    use super::*;

    /// The payloads of a recording's frames, as the target takes them.
    fn seed(origin: Origin, mut state: State, steps: usize) -> Vec<u8> {
        let noise = include_bytes!("../seeds/step/noise_0");
        let mut encoder = Encoder::default();
        let header = Header { build: "a seed".into(), begun: WallMillis(1_700_000_000_000), lost: 0, origin };
        let mut frames = vec![encoder.header(&header)[MAGIC.len() + 1..].to_vec()];
        for (_, at, event) in crate::step::first_steps(noise, steps) {
            encoder.begin_step(at, &event);
            matriarch_core::step(&mut state, at, event);
            frames.push(encoder.end_step(Some(state.digest())).to_vec());
        }
        frames.push(encoder.gap(7, &state).to_vec());
        let payloads: Vec<&[u8]> = frames.iter().map(|frame| &frame[4 + 8..]).collect();
        postcard::to_allocvec(&(payloads, b"".as_slice())).expect("bytes are written")
    }

    /// `postcard` names no fields: a seed of an older encoding ends where the first field differs, and what is made of it
    /// finds nothing behind that.
    #[test]
    fn the_seeds_are_of_the_encoding_of_now() {
        let (first, at, _) = crate::step::first_steps(include_bytes!("../seeds/step/noise_0"), 1).remove(0);
        let new = Origin::New(Box::new(first.config.clone()), at);
        let fresh = State::new(first.config.clone(), at);
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("seeds/recording");
        for (name, made) in
            [("new", seed(new, fresh, 8)), ("going", seed(Origin::Going(Box::new(first.clone())), first, 8))]
        {
            let path = directory.join(name);
            if std::env::var_os("UPDATE").is_some() {
                fs::write(&path, &made).expect("a seed is written");
            }
            let kept = fs::read(&path).expect("a seed is a file");
            let file = file(&kept).expect("frames");
            let records = Reader::open(&file).map_or(0, |(_, records)| records.flatten().count());
            let path = path.display();
            assert_eq!(records, 9, "{path}, eight steps and a gap, is of another encoding: run this with UPDATE=1");
        }
    }
}

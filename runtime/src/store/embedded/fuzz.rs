//! What must hold of whatever stands in the embedded store's data directory (`fuzz/`).

use std::path::Path;

use matriarch_core::time::Instant;

use super::codec::{Reader, Writer};
use super::history::History;
use super::journal::{Replayed, frame, replay};
use super::state::State;

/// A journal whose frames are whole: nobody guesses a checksum.
#[derive(Debug)]
pub struct Journaled<'a> {
    /// What each frame holds.
    pub payloads: Vec<&'a [u8]>,
    /// The bytes behind the last frame.
    pub tail: &'a [u8],
    /// Where a bit of the file is flipped.
    pub flipped: usize,
}

/// A journal is read to its last whole frame or refused, and a second reading of what counted gives the same store.
/// What it was taken for.
pub fn journal(written: &Journaled<'_>) -> String {
    let mut file = Vec::new();
    for (number, payload) in (1..).zip(&written.payloads) {
        effects(payload);
        file.extend(frame(number, payload).expect("a small payload"));
    }
    let frames = file.len();
    file.extend_from_slice(written.tail);
    let mut taken = "refused".to_owned();
    if let Ok((replayed, state)) = read(&file) {
        assert!(replayed.length >= frames && replayed.length <= file.len(), "a whole frame does not count");
        assert!(replayed.sequence >= written.payloads.len() as u64, "a frame is skipped");
        let (again, same) = read(&file[..replayed.length]).expect("what counted is good");
        assert_eq!((again.length, again.sequence), (replayed.length, replayed.sequence));
        assert_eq!(state, same, "a torn end changed the store");
        let torn = replayed.length < file.len();
        taken = format!("{} frames, {} keys, a torn end: {torn}", replayed.sequence, state.keys.len());
    }
    flipped(&file[..frames], written.flipped);
    taken
}

/// One flipped bit: the frame that has it does not count, and it is told unless it may be the last write, torn.
fn flipped(good: &[u8], at: usize) {
    let mut bad = good.to_vec();
    let Some(byte) = at.checked_rem(good.len()).and_then(|at| bad.get_mut(at)) else { return };
    *byte ^= 1;
    let (Ok((before, _)), Ok((after, _))) = (read(good), read(&bad)) else { return };
    assert!(after.length < before.length, "damage at {at} is not seen");
    assert!(after.sequence + 1 == before.sequence, "damage at {at} costs more than the last write, and nobody is told");
}

fn read(file: &[u8]) -> Result<(Replayed, State), anyhow::Error> {
    let mut state = State::new(1, 2);
    let mut history = History::after(state.revision);
    let replayed = replay(Path::new("journal"), file, 0, &mut state, &mut history, Instant::ZERO)?;
    Ok((replayed, state))
}

/// Effects that are read are written as they stood.
fn effects(payload: &[u8]) {
    let mut reader = Reader(payload);
    let Some(effects) = reader.effects() else { return };
    let mut writer = Writer::default();
    writer.effects(&effects);
    assert_eq!(writer.0, payload[..payload.len() - reader.0.len()]);
}

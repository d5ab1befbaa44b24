//! The format of the flight recorder, by walks of a thousand different events.

use super::walk::Walk;
use crate::action::Lane;
use crate::event::Event;
use crate::record::{BUILD, Encoder, Header, Origin, Reader, Record, Unreadable};
use crate::state::{PendingKind, State};
use crate::testing::*;
use crate::time::WallMillis;

fn header(origin: Origin) -> Header {
    Header { build: BUILD.into(), begun: WallMillis(1_790_000_000_000), lost: 3, origin }
}

/// A walk as it is recorded from its first step on, and its records.
fn recorded(seed: u64, steps: usize) -> (Vec<u8>, Vec<Record>) {
    let mut walk = Walk::new(seed);
    let mut encoder = Encoder::default();
    let mut file = encoder.header(&header(Origin::Going(Box::new(walk.node.state.clone())))).to_vec();
    let mut records = Vec::new();
    for _ in 0..steps {
        let event = walk.event();
        let at = walk.node.now;
        let most = encoder.begin_step(at, &event);
        walk.take(event.clone(), "a recording");
        let digest = Some(walk.node.state.digest());
        let frame = encoder.end_step(digest);
        assert!(frame.len() <= most);
        file.extend_from_slice(frame);
        records.push(Record::Step { at, event: Box::new(event), digest });
    }
    (file, records)
}

fn read(bytes: &[u8]) -> Result<Vec<Record>, Unreadable> {
    let (_, reader) = Reader::open(bytes)?;
    reader.collect()
}

#[test]
fn what_was_written_is_read_again() {
    for seed in 0..8 {
        let (file, records) = recorded(seed, 1_000);
        assert_eq!(read(&file), Ok(records));
    }
}

#[test]
fn a_walk_is_stepped_again_from_its_recording_alone() {
    for seed in 100..104 {
        let (file, records) = recorded(seed, 1_000);
        let (header, reader) = Reader::open(&file).unwrap();
        let mut state = header.origin.state();
        let mut taken = 0;
        for record in reader {
            let Ok(Record::Step { at, event, digest }) = record else { panic!("{record:?}") };
            crate::step(&mut state, at, *event);
            assert_eq!(Some(state.digest()), digest, "seed {seed}, step {taken}");
            taken += 1;
        }
        assert_eq!(taken, records.len());
    }
}

#[test]
fn headers_gaps_and_a_step_that_never_returned_are_read_again() {
    let node = Node::primary().published().doing(renewal(), 5);
    for origin in [Origin::New(Box::new(config()), at(7)), Origin::Going(Box::new(node.state.clone()))] {
        let header = header(origin);
        let mut encoder = Encoder::default();
        let mut file = encoder.header(&header).to_vec();
        file.extend_from_slice(encoder.gap(12, &node.state));
        let most = encoder.begin_step(at(9), &Event::ShutdownAsked);
        file.extend_from_slice(encoder.end_step(None));
        encoder.begin_step(at(9), &Event::ShutdownAsked);
        assert_eq!(encoder.end_step(Some(u64::MAX)).len(), most, "no digest is longer");
        let (read, reader) = Reader::open(&file).unwrap();
        assert_eq!(read, header);
        let step = Record::Step { at: at(9), event: Box::new(Event::ShutdownAsked), digest: None };
        let gap = Record::Gap { lost: 12, state: Box::new(node.state.clone()) };
        assert_eq!(reader.collect::<Result<Vec<_>, _>>(), Ok(vec![gap, step]));
    }
}

#[test]
fn a_state_with_texts_of_the_program_is_the_same_after_it_was_read() {
    let node = Node::primary().doing(renewal(), 5).with(|state| {
        state.memory.failed.insert("renew".into(), at(1));
        let since = at(2);
        let kind = PendingKind::Decided { status: 202, body: "Restart scheduled".into() };
        state.requests.insert(crate::id::RequestId(4), crate::state::Pending { kind, since });
    });
    let file = Encoder::default().header(&header(Origin::Going(Box::new(node.state.clone())))).to_vec();
    let state: State = Reader::open(&file).unwrap().0.origin.state();
    assert_eq!((state.digest(), &state), (node.state.digest(), &node.state));
    assert!(state.ops.in_lane(&Lane::Renew).is_some(), "the operations in flight are part of it");
}

#[test]
fn a_tail_that_is_torn_anywhere_costs_the_last_record_only() {
    let (file, records) = recorded(5, 40);
    let mut ends = Vec::new();
    let mut whole = Reader::open(&file).unwrap().1;
    ends.push(file.len() - whole.unread());
    while let Some(record) = whole.next() {
        record.unwrap();
        ends.push(file.len() - whole.unread());
    }
    let first = ends[0];
    for cut in 0..file.len() {
        let torn = &file[..cut];
        if cut < first {
            let expected = match cut {
                0..7 => Unreadable::NotARecording,
                7 => Unreadable::Torn { offset: 0 },
                _ => Unreadable::Torn { offset: 8 },
            };
            assert_eq!(Reader::open(torn).unwrap_err(), expected, "cut at {cut}");
            continue;
        }
        let kept = ends.iter().filter(|end| **end <= cut).count() - 1;
        let mut reader = Reader::open(torn).unwrap().1;
        let read: Vec<_> = reader.by_ref().collect();
        let good: Vec<_> = read.iter().filter_map(|record| record.clone().ok()).collect();
        assert_eq!(good, records[..kept], "cut at {cut}");
        let bad: Vec<_> = read.into_iter().filter_map(Result::err).collect();
        let unread = cut - ends[kept];
        assert_eq!(reader.unread(), unread, "cut at {cut}");
        let told = if unread == 0 { vec![] } else { vec![Unreadable::Torn { offset: ends[kept] }] };
        assert_eq!(bad, told, "cut at {cut}");
    }
}

#[test]
fn a_byte_that_was_flipped_anywhere_is_found() {
    let (file, records) = recorded(6, 30);
    for place in 0..file.len() {
        for flip in [0x01, 0x80, 0xFF] {
            let mut damaged = file.clone();
            damaged[place] ^= flip;
            match Reader::open(&damaged) {
                Err(_) => {}
                Ok((_, reader)) => {
                    let read: Vec<_> = reader.collect();
                    assert!(read.last().unwrap().is_err(), "byte {place}, {flip:x}: nothing was found");
                    let good: Vec<_> = read.into_iter().filter_map(Result::ok).collect();
                    assert_eq!(good, records[..good.len()], "byte {place}, {flip:x}");
                }
            }
        }
    }
}

#[test]
fn a_recording_of_another_build_says_which() {
    let mut other = header(Origin::New(Box::new(config()), at(0)));
    other.build = "9.9.9+0123456789abcdef".into();
    // Types of another build: the rest of the header is anything.
    let mut encoder = Encoder::default();
    let file = encoder.header(&other).to_vec();
    assert_eq!(Reader::open(&file).unwrap().0.build, other.build, "one that can be read is read");
    let strange = |build: &str| {
        let payload = [&[0, u8::try_from(build.len()).unwrap()], build.as_bytes(), &[0xFF; 9]].concat();
        Reader::open(&[&file[..8], &framed(&payload)].concat()).unwrap_err()
    };
    assert_eq!(strange(&other.build), Unreadable::Build { build: other.build.clone() });
    assert_eq!(strange(BUILD), Unreadable::Damaged { offset: 8 }, "this build knows its own types");
    let mut newer = file;
    newer[7] = 2;
    assert_eq!(Reader::open(&newer).unwrap_err(), Unreadable::Version(2));
}

/// A frame by the description of the format.
fn framed(payload: &[u8]) -> Vec<u8> {
    use core::hash::Hasher;
    let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
    let mut hasher = crate::digest::Fnv::default();
    hasher.write(&length);
    hasher.write(payload);
    [&length[..], &hasher.finish().to_le_bytes(), payload].concat()
}

//! Recordings are sent by others, cut off and damaged: reading them never panics, and what was read is the same after
//! it was written and read again.

use std::hash::Hasher;

use matriarch_core::digest::Fnv;
use matriarch_core::record::{Encoder, Reader, Record};

use crate::input::read;

/// The target. The frames are made here: nobody guesses a checksum.
pub fn target(data: &[u8]) {
    // The payloads of the frames, and what stands behind them.
    let Some((payloads, tail)) = read::<(Vec<&[u8]>, &[u8])>(data) else { return };
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
    check(&file);
    check(data);
}

fn check(file: &[u8]) {
    let Ok((header, reader)) = Reader::open(file) else { return };
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
}

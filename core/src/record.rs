//! The format of the flight recorder: records to bytes and back. Files are the runtime's.
//!
//! ```text
//! file    = MAGIC frame*        the first frame is a header, no other is
//! frame   = length (u32) checksum (u64) payload        least significant byte first
//! payload = kind (u8), then the fields of the record as `postcard` writes them
//! ```
//!
//! `length` is that of the payload; `checksum` is FNV-1a over length and payload: it differs for certain if one byte
//! does. A file ends wherever its writer was killed, so a frame that is cut off is no damage: what stands before it
//! counts.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::hash::Hasher;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::digest::Fnv;
use crate::event::Event;
use crate::state::State;
use crate::time::{Instant, WallMillis};

/// Who wrote a recording: the version, and a digest of core's sources. The same build decides the same, and only the
/// same build is sure to read what it wrote: `postcard` names no fields.
pub const BUILD: &str = concat!(env!("CARGO_PKG_VERSION"), "+", env!("MATRIARCH_CORE_SOURCE"));

/// The beginning of a file.
pub const MAGIC: [u8; 7] = *b"MATRREC";
/// The version of the framing, which follows it. The fields of the records are told by [`BUILD`].
const VERSION: u8 = 1;
/// Length and checksum.
const FRAME_HEAD: usize = 4 + 8;
/// The longest end of a step: whether there is a digest, and the digest as a number of variable length.
const DIGEST_MAX: usize = 1 + 10;

const HEADER: u8 = 0;
const STEP: u8 = 1;
const GAP: u8 = 2;

/// The first record of a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// [`BUILD`] of the writer. It stays the first field: that of another build is to be told too.
    pub build: String,
    /// The wall clock when the file was begun.
    pub begun: WallMillis,
    /// Records lost between the file before and this one.
    pub lost: u64,
    /// What the first step of the file was taken from.
    pub origin: Origin,
}

/// What the steps of a file begin with: each file can be replayed by itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Origin {
    /// An agent that started: what [`State::new`] was called with.
    New(Box<Config>, Instant),
    /// One that went on.
    Going(Box<State>),
}

impl Origin {
    /// The state that it stands for.
    pub fn state(self) -> State {
        match self {
            Self::New(config, at) => State::new(*config, at),
            Self::Going(state) => *state,
        }
    }
}

/// What follows the header.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// One step.
    Step {
        /// The instant that it was given.
        at: Instant,
        /// The event that it was given.
        event: Box<Event>,
        /// [`State::digest`] after it; `None`: it never returned, an assertion of core did not hold.
        digest: Option<u64>,
    },
    /// Records were lost: their writing was slower than what happened.
    Gap {
        /// How many.
        lost: u64,
        /// The state after the last of them.
        state: Box<State>,
    },
}

/// Writes frames, one at a time, into a buffer that is used again.
#[derive(Default, Debug)]
pub struct Encoder {
    frame: Vec<u8>,
}

impl Encoder {
    /// The beginning of a file.
    pub fn header(&mut self, header: &Header) -> &[u8] {
        self.frame.clear();
        self.frame.extend_from_slice(&MAGIC);
        self.frame.push(VERSION);
        self.begin_frame(HEADER);
        self.put(header);
        self.end_frame(MAGIC.len() + 1)
    }

    /// A gap.
    pub fn gap(&mut self, lost: u64, state: &State) -> &[u8] {
        self.frame.clear();
        self.begin_frame(GAP);
        self.put(&lost);
        self.put(state);
        self.end_frame(0)
    }

    /// The first half of a step, before it is taken: the step consumes the event. The length of the frame at most.
    pub fn begin_step(&mut self, at: Instant, event: &Event) -> usize {
        self.frame.clear();
        self.begin_frame(STEP);
        self.put(&at);
        self.put(event);
        self.frame.len() + DIGEST_MAX
    }

    /// The second half of a step, once it is taken.
    pub fn end_step(&mut self, digest: Option<u64>) -> &[u8] {
        assert_eq!(self.frame.get(FRAME_HEAD), Some(&STEP), "a step was begun");
        self.put(&digest);
        self.end_frame(0)
    }

    fn begin_frame(&mut self, kind: u8) {
        self.frame.extend_from_slice(&[0; FRAME_HEAD]);
        self.frame.push(kind);
    }

    fn put<T: Serialize>(&mut self, value: &T) {
        let frame = core::mem::take(&mut self.frame);
        self.frame = postcard::to_extend(value, frame).expect("a buffer grows, and every type here knows its length");
    }

    fn end_frame(&mut self, start: usize) -> &[u8] {
        let (head, payload) = self.frame[start..].split_at_mut(FRAME_HEAD);
        let length = u32::try_from(payload.len()).expect("a frame is shorter than 4 GiB").to_le_bytes();
        let sum = checksum(length, payload).to_le_bytes();
        let (length_place, sum_place) = head.split_at_mut(length.len());
        length_place.copy_from_slice(&length);
        sum_place.copy_from_slice(&sum);
        &self.frame
    }
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(&length);
    hasher.write(payload);
    hasher.finish()
}

/// Why a recording, or the rest of it, cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// It does not begin as a recording does.
    NotARecording,
    /// The framing is another version's.
    Version(u8),
    /// Another build wrote it, and what it wrote does not fit the types of this one.
    Build {
        /// Who wrote it.
        build: String,
    },
    /// The last frame is cut off: the writer was killed, or the machine lost its power.
    Torn {
        /// Where it begins, in bytes from the beginning of the file.
        offset: usize,
    },
    /// A frame is not what was written.
    Damaged {
        /// Where it begins, in bytes from the beginning of the file.
        offset: usize,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecording => f.write_str("this is no recording of the flight recorder"),
            Self::Version(version) => {
                write!(
                    f,
                    "the recording has format {version}, this program reads {VERSION}: use the build that wrote it"
                )
            }
            Self::Build { build } => {
                write!(f, "build {build} wrote the recording, and this one ({BUILD}) cannot read it: use that build")
            }
            Self::Torn { offset } => write!(f, "the record at byte {offset} is cut off"),
            Self::Damaged { offset } => write!(f, "the record at byte {offset} is damaged"),
        }
    }
}

impl core::error::Error for Unreadable {}

/// Reads the records of a file, in order; nothing after the first that cannot be read.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
    stopped: bool,
}

impl<'a> Reader<'a> {
    /// Reads the header.
    pub fn open(bytes: &'a [u8]) -> Result<(Header, Self), Unreadable> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(Unreadable::NotARecording)?;
        let (version, rest) = rest.split_first().ok_or(Unreadable::Torn { offset: 0 })?;
        if *version != VERSION {
            return Err(Unreadable::Version(*version));
        }
        let mut reader = Self { rest, offset: MAGIC.len() + 1, stopped: false };
        let offset = reader.offset;
        let (kind, fields) = reader.frame()?.ok_or(Unreadable::Torn { offset })?;
        if kind != HEADER {
            return Err(Unreadable::Damaged { offset });
        }
        match decode(fields) {
            Some(header) => Ok((header, reader)),
            None => match postcard::take_from_bytes::<String>(fields) {
                Ok((build, _)) if build != BUILD => Err(Unreadable::Build { build }),
                Ok(_) | Err(_) => Err(Unreadable::Damaged { offset }),
            },
        }
    }

    /// How many bytes are not read: after the end, those that cannot be.
    pub fn unread(&self) -> usize {
        self.rest.len()
    }

    /// The next frame: its kind and its fields. `None`: there is nothing more.
    fn frame(&mut self) -> Result<Option<(u8, &'a [u8])>, Unreadable> {
        let offset = self.offset;
        if self.rest.is_empty() {
            return Ok(None);
        }
        let torn = Unreadable::Torn { offset };
        let (length, rest) = self.rest.split_first_chunk::<4>().ok_or_else(|| torn.clone())?;
        let (sum, rest) = rest.split_first_chunk::<8>().ok_or_else(|| torn.clone())?;
        let size = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| torn.clone())?;
        let (payload, rest) = rest.split_at_checked(size).ok_or(torn)?;
        if checksum(*length, payload) != u64::from_le_bytes(*sum) {
            return Err(Unreadable::Damaged { offset });
        }
        let (kind, fields) = payload.split_first().ok_or(Unreadable::Damaged { offset })?;
        self.rest = rest;
        self.offset += FRAME_HEAD + size;
        Ok(Some((*kind, fields)))
    }

    fn record(&mut self) -> Result<Option<Record>, Unreadable> {
        let offset = self.offset;
        let Some((kind, fields)) = self.frame()? else { return Ok(None) };
        let record = match kind {
            STEP => decode(fields).map(|(at, event, digest)| Record::Step { at, event, digest }),
            GAP => decode(fields).map(|(lost, state)| Record::Gap { lost, state }),
            _ => None,
        };
        record.map(Some).ok_or(Unreadable::Damaged { offset })
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Record, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stopped {
            return None;
        }
        let before = self.rest;
        match self.record() {
            Ok(record) => record.map(Ok),
            Err(why) => {
                self.stopped = true;
                self.rest = before;
                Some(Err(why))
            }
        }
    }
}

/// All of the bytes are this value.
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        Ok(_) | Err(_) => None,
    }
}

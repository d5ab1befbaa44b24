//! The flight recorder: every event that core was given, when, and a digest of the state after it, in a ring of files of
//! bounded size. `matriarch-sim` replays them ([`matriarch_core::record`] has the format).
//!
//! The loop encodes, a thread writes: a disk that hangs must not hang the agent. What the thread cannot keep up with is
//! lost, and the recording says how much; it goes on with the whole state, so that what follows can be replayed again.
//! Nothing is kept back to be written together and nothing is fsynced: what was written survives the agent's death, not
//! the machine's.

mod queue;
mod ring;
mod telling;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use matriarch_core::config::Config;
use matriarch_core::event::Event;
use matriarch_core::record::{BUILD, Encoder, Header, Origin};
use matriarch_core::state::State;
use matriarch_core::time::Instant;

use crate::clock;
use queue::Queue;
use ring::Ring;
use telling::Telling;

/// Where the files are, in the state directory.
pub const DIRECTORY: &str = "recorder";
/// The files that a full recording is cut into: the oldest is removed whole when room is needed.
const PARTS: u64 = 8;
/// The least that a recording may take, in bytes: a state of a large cluster still is a small part of a file.
pub const SIZE_BYTES_MIN: u64 = 1 << 20;
/// After a file could not be written the next is begun no sooner than this.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// How long an agent that leaves waits for its last records to be written.
const LAST_RECORDS_WAIT: Duration = Duration::from_millis(200);

/// Records the steps of one agent, or nothing.
#[derive(Debug, Default)]
pub struct Recorder(Option<Recording>);

#[derive(Debug)]
struct Recording {
    encoder: Encoder,
    /// For what must come before the step that `encoder` holds.
    before: Encoder,
    queue: Arc<Queue>,
    /// The largest that a file becomes.
    file_bytes_max: u64,
    /// What was put into the current file.
    file_bytes: u64,
    /// Steps lost since the last that was recorded.
    lost: u64,
    /// No file can be written; when another is tried.
    retry_at: Option<Instant>,
    /// The state fills a file by itself: nothing is recorded any more.
    outgrown: bool,
}

impl Recorder {
    /// Records into a directory in `state_dir`, `size_bytes` at most, beginning with the state that [`State::new`] makes
    /// of `config` and `at`. An agent that cannot record works all the same.
    pub fn start(state_dir: &Path, size_bytes: u64, config: &Config, at: Instant) -> Self {
        let recording = Recording::new(size_bytes / PARTS, config, at);
        let ring = Ring::new(&state_dir.join(DIRECTORY), size_bytes, size_bytes / PARTS);
        let queue = Arc::clone(&recording.queue);
        let writer = thread::Builder::new().name("recorder".into()).stack_size(128 * 1024);
        match writer.spawn(move || write(&queue, ring)) {
            Ok(_) => Self(Some(recording)),
            Err(error) => {
                tracing::warn!(%error, "the flight recorder cannot be started");
                Self(None)
            }
        }
    }

    /// A step is about to be taken from `state`. Nothing is recorded before its [`Taking::taken`].
    pub fn taking(&mut self, state: &State, at: Instant, event: &Event) -> Taking<'_> {
        if let Some(recording) = self.0.take_if(|recording| recording.outgrown) {
            recording.queue.close(Duration::ZERO);
        }
        let ready = self.0.as_mut().and_then(|recording| recording.prepare(state, at, event).then_some(recording));
        Taking(ready)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(recording) = &self.0 {
            recording.queue.close(LAST_RECORDS_WAIT);
        }
    }
}

/// A step that is being taken. If it never returns, because an assertion of core does not hold, it is recorded without
/// a digest: that event is the one to look for.
#[must_use]
#[derive(Debug)]
pub struct Taking<'a>(Option<&'a mut Recording>);

impl Taking<'_> {
    /// It was taken, and `state` came of it.
    pub fn taken(mut self, state: &State) {
        if let Some(recording) = self.0.take() {
            recording.finish(Some(state.digest()));
        }
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if let Some(recording) = self.0.take() {
            recording.finish(None);
        }
    }
}

impl Recording {
    fn new(file_bytes_max: u64, config: &Config, at: Instant) -> Self {
        let (encoder, before, queue) = (Encoder::default(), Encoder::default(), Arc::default());
        let (file_bytes, lost, retry_at, outgrown) = (0, 0, None, false);
        let mut recording = Self { encoder, before, queue, file_bytes_max, file_bytes, lost, retry_at, outgrown };
        recording.begin_file(Origin::New(Box::new(config.clone()), at));
        recording
    }

    /// Encodes a step, and whatever must come before it; false: it is lost.
    fn prepare(&mut self, state: &State, at: Instant, event: &Event) -> bool {
        if let Some(lost) = self.queue.failed() {
            self.lost += lost;
            let retry_at = *self.retry_at.get_or_insert(at + RETRY_PAUSE);
            if at < retry_at {
                self.lost += 1;
                return false;
            }
            self.retry_at = None;
            self.begin_file(Origin::Going(Box::new(state.clone())));
        } else if self.lost > 0 {
            let frame = self.before.gap(self.lost, state);
            let room = self.file_bytes + frame.len() as u64 <= self.file_bytes_max;
            if room && !self.queue.push_gap(frame) {
                self.lost += 1;
                return false;
            }
            if room {
                tracing::warn!(records = self.lost, "the flight recorder's disk was too slow: records are lost");
                self.file_bytes += frame.len() as u64;
                self.lost = 0;
            } else if !self.begin_file(Origin::Going(Box::new(state.clone()))) {
                self.lost += 1;
                return false;
            }
        }
        let most = self.encoder.begin_step(at, event) as u64;
        if self.file_bytes + most > self.file_bytes_max {
            self.begin_file(Origin::Going(Box::new(state.clone())));
        }
        let fits = self.lost == 0 && !self.outgrown && self.file_bytes + most <= self.file_bytes_max;
        self.lost += u64::from(!fits);
        fits
    }

    fn finish(&mut self, digest: Option<u64>) {
        let frame = self.encoder.end_step(digest);
        if self.queue.push(frame) {
            self.file_bytes += frame.len() as u64;
        } else {
            self.lost += 1;
        }
    }

    /// Begins a file, if there is room in the queue, and in the file for more than the state.
    fn begin_file(&mut self, origin: Origin) -> bool {
        if self.outgrown {
            return false;
        }
        let header = Header { build: BUILD.to_owned(), begun: clock::wall(), lost: self.lost, origin };
        let frame = self.before.header(&header);
        let bytes = frame.len() as u64;
        if bytes > self.file_bytes_max / 4 * 3 {
            self.outgrown = true;
            // Every few steps would begin a file, each with the whole state.
            let (size, at_least) = (self.file_bytes_max * PARTS, (bytes * PARTS * 2).div_ceil(1 << 20));
            tracing::warn!(
                "the flight recorder is off from now on: the agent's state takes {bytes} bytes, too much for an \
                 eighth of {size} bytes; set matriarch.recorder.size to {at_least}MB or more and restart the agent"
            );
            return false;
        }
        let begun = self.queue.push_file(frame);
        if begun {
            self.file_bytes = bytes;
            self.lost = 0;
        }
        begun
    }
}

/// Writes what is in the queue, until it is closed.
fn write(queue: &Queue, mut ring: Ring) {
    let mut batch = queue::Batch::default();
    let mut telling = Telling::default();
    while queue.take(&mut batch) {
        let directory = ring.directory().display().to_string();
        match ring.write(&batch) {
            Ok(()) => {
                if telling.written(clock::now()) {
                    tracing::info!(directory, "the flight recorder writes again");
                }
            }
            Err(error) => {
                if telling.failed(&error, clock::now()) {
                    tracing::warn!(%error, directory, "the flight recorder cannot write: records are lost until it can");
                }
                queue.fail(&batch);
            }
        }
    }
}

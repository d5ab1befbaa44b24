//! The recorder on a real directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use matriarch_core::event::{Event, GuardEvent};
use matriarch_core::id::Member;
use matriarch_core::record::{Reader, Record, Unreadable};
use matriarch_core::time::WallMillis;
use tempfile::TempDir;

use super::*;

const MEBI: u64 = 1 << 20;

/// An agent's steps, without the agent.
struct Steps {
    directory: TempDir,
    recorder: Recorder,
    state: State,
    at: Instant,
}

fn config() -> Config {
    Config::usual("a")
}

impl Steps {
    fn new(size: u64) -> Self {
        Self::in_directory(tempfile::tempdir().unwrap(), size)
    }

    fn in_directory(directory: TempDir, size: u64) -> Self {
        let at = Instant(1_000_000_000_000);
        let recorder = Recorder::start(directory.path(), size, &config(), at);
        Self { directory, recorder, state: State::new(config(), at), at }
    }

    fn step(&mut self, event: Event) {
        self.at = self.at + Duration::from_millis(100);
        let taking = self.recorder.taking(&self.state, self.at, &event);
        matriarch_core::step(&mut self.state, self.at, event);
        taking.taken(&self.state);
    }

    fn steps(&mut self, number: usize) {
        for _ in 0..number {
            self.step(Event::Ticked(WallMillis(self.at.0 as i64 / 1_000_000)));
        }
    }

    /// A step whose event is so many bytes long.
    fn long_step(&mut self, bytes: usize) {
        self.step(Event::Guard(GuardEvent::Refused("x".repeat(bytes))));
    }

    /// Ends the recorder; the state that the last step left, and the directory.
    fn end(self) -> (State, TempDir) {
        drop(self.recorder);
        (self.state, self.directory)
    }
}

fn files(directory: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(directory.path().join(DIRECTORY)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn bytes(directory: &TempDir) -> u64 {
    files(directory).iter().map(|file| fs::metadata(file).unwrap().len()).sum()
}

/// Steps every record of a file again; the steps, what was lost, and the state in the end.
fn replayed(file: &PathBuf) -> (usize, u64, State) {
    let bytes = fs::read(file).unwrap();
    let (header, reader) = Reader::open(&bytes).unwrap();
    let (mut steps, mut lost_in_all, mut now) = (0, header.lost, header.origin.state());
    for record in reader {
        match record.unwrap() {
            Record::Step { at, event, digest } => {
                matriarch_core::step(&mut now, at, *event);
                assert_eq!(digest, Some(now.digest()), "{} step {steps}", file.display());
                steps += 1;
            }
            Record::Gap { lost, state } => {
                lost_in_all += lost;
                now = *state;
            }
        }
    }
    (steps, lost_in_all, now)
}

#[test]
fn what_an_agent_did_is_on_disk_when_it_has_left_and_nobody_else_reads_it() {
    let mut steps = Steps::new(MEBI);
    steps.steps(40);
    let (state, directory) = steps.end();
    let files = files(&directory);
    assert_eq!(files.len(), 1);
    assert_eq!(replayed(&files[0]), (40, 0, state));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&files[0]), mode(files[0].parent().unwrap())), (0o600, 0o700));
}

#[test]
fn a_record_is_on_disk_before_the_next_step() {
    let mut steps = Steps::new(MEBI);
    steps.steps(3);
    let directory = steps.directory.path().join(DIRECTORY).join("0000000001.rec");
    // Nobody closes it, as when the agent is killed; the thread needs a moment.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let bytes = fs::read(&directory).unwrap_or_default();
        if Reader::open(&bytes).is_ok_and(|(_, reader)| reader.count() == 3) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "three records are not written");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_ring_stays_within_its_size_and_each_file_is_replayed_by_itself() {
    let mut steps = Steps::new(MEBI);
    for _ in 0..400 {
        steps.long_step(10_000);
        steps.steps(3);
        // So that none is lost: the test is faster than any agent.
        while steps.recorder.0.as_ref().unwrap().queue.waits() {
            thread::yield_now();
        }
        assert!(bytes(&steps.directory) <= MEBI);
    }
    let (state, directory) = steps.end();
    let files = files(&directory);
    assert!(bytes(&directory) > MEBI * 3 / 4, "the room is used: {}", bytes(&directory));
    assert!(files.len() >= 7, "{files:?}");
    let replays: Vec<_> = files.iter().map(replayed).collect();
    assert_eq!(replays.last().unwrap().2, state);
    assert!(replays.iter().all(|(steps, lost, _)| *steps > 10 && *lost == 0));
}

#[test]
fn agents_that_start_again_and_again_leave_a_bounded_number_of_files() {
    let mut directory = tempfile::tempdir().unwrap();
    for _ in 0..140 {
        let mut steps = Steps::in_directory(directory, MEBI);
        steps.steps(1);
        directory = steps.end().1;
    }
    let files = files(&directory);
    assert_eq!(files.len(), 128);
    assert!(files.last().unwrap().ends_with("0000000140.rec"));
    fs::write(directory.path().join(DIRECTORY).join("notes.txt"), "ours").unwrap();
    let mut steps = Steps::in_directory(directory, MEBI);
    steps.steps(1);
    let directory = steps.end().1;
    assert!(directory.path().join(DIRECTORY).join("notes.txt").exists(), "other files are left alone");
}

#[test]
fn what_the_disk_is_too_slow_for_is_counted_and_the_rest_can_be_replayed() {
    let mut steps = Steps::new(MEBI);
    // A disk that hangs: no thread comes for what waits.
    let recording = Recording::new(1024 * MEBI, &config(), Instant(1_000_000_000_000));
    let queue = Arc::clone(&recording.queue);
    steps.recorder = Recorder(Some(recording));
    for _ in 0..30 {
        steps.long_step(100_000);
        steps.steps(1);
    }
    let ring = Ring::new(&steps.directory.path().join(DIRECTORY), 1024 * MEBI, MEBI);
    let thread_queue = Arc::clone(&queue);
    let writer = thread::spawn(move || write(&thread_queue, ring));
    while queue.waits() {
        thread::yield_now();
    }
    steps.steps(5);
    let (state, directory) = steps.end();
    writer.join().unwrap();
    let (taken, lost, end) = replayed(files(&directory).last().unwrap());
    assert_eq!((taken as u64 + lost, end), (65, state));
    assert!(lost > 20, "{lost}");
}

#[test]
fn a_directory_that_cannot_be_written_costs_records_only_and_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let blocked = directory.path().join(DIRECTORY);
    // A file where the directory should be.
    fs::write(&blocked, "").unwrap();
    let mut steps = Steps::in_directory(directory, MEBI);
    steps.steps(1);
    while !steps.recorder.0.as_ref().unwrap().queue.is_failed() {
        thread::yield_now();
    }
    steps.steps(20);
    fs::remove_file(&blocked).unwrap();
    // Ten seconds after the first step that found it so.
    steps.steps(100);
    let (state, directory) = steps.end();
    let (taken, lost, end) = replayed(&files(&directory)[0]);
    assert_eq!(end, state);
    assert!(lost >= 100 && taken >= 15, "{taken} taken, {lost} lost");
}

/// Otherwise each step would write the whole state.
#[test]
fn a_state_that_fills_a_file_ends_the_recording() {
    let mut steps = Steps::new(MEBI);
    steps.steps(3);
    let mut large = config();
    large.me = Member::new(&"x".repeat(200_000));
    steps.state = State::new(large, steps.at);
    for _ in 0..300 {
        // Until a file is to be begun.
        steps.long_step(1000);
    }
    assert!(steps.recorder.0.is_none());
    let directory = steps.end().1;
    assert_eq!(files(&directory).len(), 1);
    assert!(bytes(&directory) <= MEBI / 8);
}

#[test]
fn a_step_that_never_returned_is_the_last_record() {
    let mut steps = Steps::new(MEBI);
    steps.steps(2);
    let (at, event) = (steps.at, Event::ShutdownAsked);
    let fatal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _taking = steps.recorder.taking(&steps.state, at, &event);
        panic!("an assertion does not hold");
    }));
    assert!(fatal.is_err());
    let directory = steps.end().1;
    let bytes = fs::read(&files(&directory)[0]).unwrap();
    let records: Result<Vec<_>, Unreadable> = Reader::open(&bytes).unwrap().1.collect();
    let last = records.unwrap().pop();
    assert_eq!(last, Some(Record::Step { at, event: Box::new(event), digest: None }));
}

#[test]
fn a_recorder_that_is_off_writes_nothing() {
    let mut steps = Steps::new(MEBI);
    steps.recorder = Recorder::default();
    steps.steps(3);
    let directory = steps.end().1;
    assert!(replayed(&files(&directory)[0]).0 == 0);
}

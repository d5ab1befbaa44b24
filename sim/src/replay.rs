//! Steps a recording of the flight recorder again, through the very `step` that made it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use matriarch_core::effects::Effects;
use matriarch_core::event::Event;
use matriarch_core::record::{BUILD, Reader, Record, Unreadable};
use matriarch_core::state::State;
use matriarch_core::time::{Instant, WallMillis};

/// What was replayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplaySummary {
    /// The build that wrote the recording; the same as this one if it is [`BUILD`].
    pub build: String,
    /// The wall clock when the file was begun.
    pub begun: WallMillis,
    /// Steps whose digests agreed.
    pub steps: u64,
    /// Steps that were lost while it was recorded, before the file and within it.
    pub lost: u64,
    /// The instants of the first and of the last step.
    pub span: Option<(Instant, Instant)>,
    /// The last step never returned in the agent, and does not here: what the assertion says.
    pub fatal: Option<String>,
    /// Bytes of a last record that is cut off, because the agent was killed while it was written.
    pub torn_bytes: usize,
    /// The state in the end.
    pub state: State,
}

/// Why a recording was not replayed to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// It cannot be read.
    Unreadable(Unreadable),
    /// The state is not the one that the agent had.
    Differs {
        /// Which record; the header is number 0.
        record: u64,
        /// The instant of the step.
        at: Instant,
        /// The digest in the recording.
        expected: u64,
        /// The digest of the state that came of it here.
        found: u64,
    },
    /// An assertion of core does not hold here, and held in the agent.
    Panicked {
        /// Which record.
        record: u64,
        /// The instant of the step.
        at: Instant,
        /// What it says.
        message: String,
    },
    /// An assertion of core did not hold in the agent, and holds here.
    DidNotPanic {
        /// Which record.
        record: u64,
        /// The instant of the step.
        at: Instant,
    },
    /// Another build wrote the recording, and it is not replayed by this one.
    OtherBuild {
        /// Who wrote it.
        build: String,
        /// How it fails.
        error: Box<ReplayError>,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(why) => why.fmt(f),
            Self::Differs { record, at, expected, found } => write!(
                f,
                "record {record} at {at}: the agent's state had the digest {expected:016x} after it, the replay's has {found:016x}"
            ),
            Self::Panicked { record, at, message } => {
                write!(f, "record {record} at {at}: the step is taken in the agent, and panics here: {message}")
            }
            Self::DidNotPanic { record, at } => {
                write!(f, "record {record} at {at}: the step never returned in the agent, and does here")
            }
            Self::OtherBuild { build, error } => {
                write!(f, "{error}; build {build} wrote the recording, this is {BUILD}: use the build that wrote it")
            }
        }
    }
}

impl std::error::Error for ReplayError {}

/// One step of a replay.
#[derive(Debug)]
pub struct Replayed<'a> {
    /// Which record; the header is number 0.
    pub record: u64,
    /// Its instant.
    pub at: Instant,
    /// Its event.
    pub event: &'a Event,
    /// What the step handed out.
    pub effects: &'a Effects,
    /// The state after it.
    pub state: &'a State,
}

/// Replays one file; every digest agrees, or it is an error.
pub fn replay(bytes: &[u8]) -> Result<ReplaySummary, ReplayError> {
    replay_with(bytes, |_| {})
}

/// [`replay`], and shows every step.
pub fn replay_with(bytes: &[u8], show: impl FnMut(&Replayed<'_>)) -> Result<ReplaySummary, ReplayError> {
    let (header, reader) = Reader::open(bytes).map_err(ReplayError::Unreadable)?;
    let build = header.build.clone();
    // The state of another build may be one that this one's `State::new` refuses.
    let state = catch_unwind(|| header.origin.state()).map_err(|panic| ReplayError::Panicked {
        record: 0,
        at: Instant::ZERO,
        message: message(&*panic),
    });
    let result = state.and_then(|state| {
        let summary = ReplaySummary {
            build: build.clone(),
            begun: header.begun,
            steps: 0,
            lost: header.lost,
            span: None,
            fatal: None,
            torn_bytes: 0,
            state,
        };
        run(reader, summary, show)
    });
    result
        .map_err(|error| if build == BUILD { error } else { ReplayError::OtherBuild { build, error: Box::new(error) } })
}

fn run(
    mut reader: Reader<'_>,
    mut summary: ReplaySummary,
    mut show: impl FnMut(&Replayed<'_>),
) -> Result<ReplaySummary, ReplayError> {
    let mut number = 0;
    while let Some(record) = reader.next() {
        number += 1;
        match record {
            Ok(Record::Step { at, event, digest }) => {
                let (first, _) = summary.span.unwrap_or((at, at));
                summary.span = Some((first, at));
                match take(&mut summary.state, number, at, *event, &mut show) {
                    Ok(found) => match digest {
                        Some(expected) if expected == found => summary.steps += 1,
                        Some(expected) => return Err(ReplayError::Differs { record: number, at, expected, found }),
                        None => return Err(ReplayError::DidNotPanic { record: number, at }),
                    },
                    Err(message) if digest.is_none() => summary.fatal = Some(message),
                    Err(message) => return Err(ReplayError::Panicked { record: number, at, message }),
                }
            }
            Ok(Record::Gap { lost, state }) => {
                summary.lost += lost;
                summary.state = *state;
            }
            Err(Unreadable::Torn { .. }) => summary.torn_bytes = reader.unread(),
            Err(why) => return Err(ReplayError::Unreadable(why)),
        }
    }
    Ok(summary)
}

/// Takes one step; the digest after it, or what panicked.
fn take(
    state: &mut State,
    record: u64,
    at: Instant,
    event: Event,
    show: &mut impl FnMut(&Replayed<'_>),
) -> Result<u64, String> {
    let shown = event.clone();
    // A state that a step was torn out of is looked at by nobody but whoever asks what became of it.
    let effects =
        catch_unwind(AssertUnwindSafe(|| matriarch_core::step(state, at, event))).map_err(|panic| message(&*panic))?;
    show(&Replayed { record, at, event: &shown, effects: &effects, state });
    Ok(state.digest())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use matriarch_core::config::Config;
    use matriarch_core::event::GuardEvent;
    use matriarch_core::record::{Encoder, Header, Origin};

    use super::*;

    const START: Instant = Instant(7_000_000_000);

    fn config() -> Config {
        Config::usual("a")
    }

    /// A recording by the description of what is to be recorded.
    struct Written {
        bytes: Vec<u8>,
        encoder: Encoder,
        state: State,
        at: Instant,
    }

    impl Written {
        fn new(build: &str) -> Self {
            let mut encoder = Encoder::default();
            let origin = Origin::New(Box::new(config()), START);
            let header = Header { build: build.to_owned(), begun: WallMillis(5), lost: 2, origin };
            let bytes = encoder.header(&header).to_vec();
            Self { bytes, encoder, state: State::new(config(), START), at: START }
        }

        fn step(&mut self, event: Event, digest: impl FnOnce(u64) -> Option<u64>) {
            self.at = self.at + Duration::from_secs(1);
            self.encoder.begin_step(self.at, &event);
            matriarch_core::step(&mut self.state, self.at, event);
            self.bytes.extend_from_slice(self.encoder.end_step(digest(self.state.digest())));
        }

        fn ticks(mut self, number: i64) -> Self {
            for tick in 0..number {
                self.step(Event::Ticked(WallMillis(tick)), Some);
            }
            self
        }
    }

    #[test]
    fn a_recording_is_replayed_to_the_state_that_it_ended_in() {
        let mut written = Written::new(BUILD).ticks(20);
        // Five steps that nobody recorded.
        for _ in 0..5 {
            matriarch_core::step(&mut written.state, written.at, Event::Guard(GuardEvent::Gone));
        }
        let gap = written.encoder.gap(5, &written.state).to_vec();
        written.bytes.extend_from_slice(&gap);
        let mut written = written.ticks(3);
        let whole = written.bytes.len();
        written.step(Event::ShutdownAsked, Some);
        let torn = &written.bytes[..whole + 4];
        let summary = replay(torn).unwrap();
        assert_eq!((summary.steps, summary.lost, summary.torn_bytes, &summary.fatal), (23, 7, 4, &None));
        assert_eq!(summary.span, Some((START + Duration::from_secs(1), START + Duration::from_secs(23))));
        let mut shown = 0;
        let all = replay_with(&written.bytes, |step| {
            shown += 1;
            assert_eq!(step.record, if shown > 20 { shown + 1 } else { shown });
        });
        assert_eq!((shown, all.unwrap().state), (24, written.state));
    }

    #[test]
    fn a_digest_that_differs_is_told_with_its_record() {
        let mut written = Written::new(BUILD).ticks(4);
        written.step(Event::ShutdownAsked, |digest| Some(digest ^ 1));
        let found = written.state.digest();
        let at = written.at;
        let expected = ReplayError::Differs { record: 5, at, expected: found ^ 1, found };
        assert_eq!(replay(&written.bytes), Err(expected.clone()));
        assert!(expected.to_string().starts_with("record 5 at 12.000000s: "), "{expected}");
    }

    #[test]
    fn another_build_is_replayed_if_it_can_be_and_named_if_not() {
        let written = Written::new("0.0.1+other").ticks(4);
        assert_eq!(replay(&written.bytes).unwrap().build, "0.0.1+other");
        let mut written = written;
        written.step(Event::ShutdownAsked, |_| Some(0));
        let error = replay(&written.bytes).unwrap_err();
        assert!(matches!(&error, ReplayError::OtherBuild { build, .. } if build == "0.0.1+other"), "{error}");
        assert!(error.to_string().ends_with("use the build that wrote it"), "{error}");
    }

    #[test]
    fn a_step_that_never_returned_must_not_return_here() {
        let mut written = Written::new(BUILD).ticks(4);
        written.step(Event::ShutdownAsked, |_| None);
        assert_eq!(replay(&written.bytes), Err(ReplayError::DidNotPanic { record: 5, at: written.at }));
    }

    #[test]
    fn a_step_that_panics_is_told_as_the_agent_did_it() {
        // A state that breaks an invariant: more questions of peers than are ever admitted.
        for (digest, fatal) in [(None, true), (Some(1), false)] {
            let mut written = Written::new(BUILD).ticks(1);
            let asked = matriarch_core::state::PositionAsked {
                request: matriarch_core::id::RequestId(1),
                absent_at: matriarch_core::id::Revision(i64::MAX),
                since: written.at,
            };
            written.state.position_asked = vec![asked; 100];
            let gap = written.encoder.gap(1, &written.state).to_vec();
            written.bytes.extend_from_slice(&gap);
            written.encoder.begin_step(written.at, &Event::Ticked(WallMillis(9)));
            written.bytes.extend_from_slice(written.encoder.end_step(digest));
            match replay(&written.bytes) {
                Ok(summary) => assert!(fatal && summary.fatal.unwrap().contains("bounded")),
                Err(ReplayError::Panicked { record: 3, .. }) => assert!(!fatal),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn damage_and_what_is_no_recording_are_errors() {
        let mut written = Written::new(BUILD).ticks(4);
        let last = written.bytes.len() - 1;
        written.bytes[last] ^= 4;
        assert!(matches!(replay(&written.bytes), Err(ReplayError::Unreadable(Unreadable::Damaged { .. }))));
        assert_eq!(replay(b"something else"), Err(ReplayError::Unreadable(Unreadable::NotARecording)));
    }
}

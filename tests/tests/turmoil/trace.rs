//! What the hosts tell, as `tracing` has it: the events that reach core, its orders and decisions, the packets of the
//! network. The end of it is kept for whoever has to understand a failure, a hash of all of it for comparing two runs.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// Lines that are kept.
const KEPT_MAX: usize = 300;
/// Characters of a line that are kept.
const LINE_CHARS_MAX: usize = 200;

/// What was told so far.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    kept: VecDeque<String>,
    hasher: DefaultHasher,
    lines: u64,
}

impl Trace {
    /// Takes in what this thread tells, until the guard is dropped.
    pub fn listen(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Registry::default().with(self.clone()))
    }

    /// A hash of all of it, and how many lines that was.
    pub fn hash(&self) -> (u64, u64) {
        let told = self.told();
        (told.hasher.finish(), told.lines)
    }

    /// A line of the observer's own.
    pub fn note(&self, line: String) {
        self.told().take(line, true);
    }

    /// The end of the story.
    pub fn tail(&self) -> String {
        self.told().kept.iter().fold(String::new(), |all, line| all + line + "\n")
    }

    fn told(&self) -> std::sync::MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn take(&mut self, mut line: String, keep: bool) {
        self.hasher.write(line.as_bytes());
        self.lines += 1;
        if !keep {
            return;
        }
        if let Some((end, _)) = line.char_indices().nth(LINE_CHARS_MAX) {
            line.truncate(end);
        }
        self.kept.push_back(line);
        if self.kept.len() > KEPT_MAX {
            self.kept.pop_front();
        }
    }
}

/// The host that a span of turmoil's is about.
struct HostName(String);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let name = field.name();
        // Writing to a string cannot fail.
        let _ = if name == "message" { write!(self.0, " {value:?}") } else { write!(self.0, " {name}={value:?}") };
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().name() != "node" {
            return;
        }
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(HostName(fields.0.trim().trim_start_matches("name=").to_owned()));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let target = event.metadata().target();
        let ours = target.starts_with("matriarch");
        if !ours && target != "turmoil" {
            return;
        }
        // Turmoil counts its own steps aloud.
        let Some(elapsed) = turmoil::in_simulation().then(turmoil::sim_elapsed).flatten() else { return };
        let host = context.event_scope(event).into_iter().flatten().find_map(|span| {
            let extensions = span.extensions();
            extensions.get::<HostName>().map(|name| name.0.clone())
        });
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let line = format!("{:>9.3} {:8}{}", elapsed.as_secs_f64(), host.unwrap_or_default(), fields.0);
        self.told().take(line, ours);
    }
}

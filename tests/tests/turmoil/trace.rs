//! What the hosts tell, as `tracing` has it: the events that reach core, its orders and decisions, the packets of the
//! network. All of it is kept, for comparing two runs and for whoever has to understand a failure.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// Lines that are shown of a failure, and characters of each.
const SHOWN_LINES: usize = 300;
const SHOWN_CHARS: usize = 200;

/// What marks a line as a packet's.
const PACKET: &str = " ~";

/// What was told so far.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    /// Takes in what this thread tells, until the guard is dropped.
    pub(super) fn listen(&self) -> tracing::subscriber::DefaultGuard {
        tracing::subscriber::set_default(Registry::default().with(self.clone()))
    }

    /// A line of the observer's own.
    pub(super) fn note(&self, line: String) {
        self.lines().push(line);
    }

    /// All that was told.
    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the story, without the packets.
    pub(super) fn tail(&self) -> String {
        let lines = self.lines();
        let told: Vec<&String> = lines.iter().filter(|line| !line.contains(PACKET)).collect();
        let shown = told.iter().skip(told.len().saturating_sub(SHOWN_LINES));
        shown.map(|line| line.chars().take(SHOWN_CHARS).chain(['\n']).collect::<String>()).collect()
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
        let host = context.event_scope(event).into_iter().flatten().find_map(|span| {
            let extensions = span.extensions();
            extensions.get::<HostName>().map(|name| name.0.clone())
        });
        // Not of a host: turmoil counts its own steps aloud, and crashes hosts while simulated time stands still.
        let (Some(host), Some(elapsed)) = (host, turmoil::sim_elapsed()) else { return };
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        if !ours {
            // Not what is in it: HTTP tells the date, which is the real one.
            fields.0.truncate(fields.0.find(" [").unwrap_or(fields.0.len()));
        }
        let what = if ours { "" } else { PACKET };
        self.note(format!("{:>9.3} {:8}{what}{}", elapsed.as_secs_f64(), host, fields.0));
    }
}

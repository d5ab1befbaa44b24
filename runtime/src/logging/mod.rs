//! Logging: one line a decision that changed, on standard error or in a file; never a password.
//!
//! A process has one log. Whoever says something hands it over to a thread that makes a line of it (the time zone is a
//! file, too) and writes it; until [`change`] has told where to, it keeps what was said.

mod format;
mod queue;
mod sink;

use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::reload::Handle;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

pub use format::{Attribute, Format, PATRONI_FORMAT, Part};

use crate::config::local::Log;
use format::{Said, Style};
use queue::{Queue, Writer};
use sink::Sink;

/// How long a process that ends waits for whoever takes its last lines.
const LAST_LINES_WAIT: Duration = Duration::from_millis(200);
/// How many lines are kept at most before it is known where they go.
const FIRST_LINES_MAX: usize = 1000;

static LOGGING: OnceLock<Logging> = OnceLock::new();

struct Logging {
    queue: Queue<Lines>,
    filter: Handle<EnvFilter, Registry>,
}

/// Starts logging with the level of the section `log`, unless `RUST_LOG` says another. Where lines go, [`change`] tells.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let lines = Lines { style: style(log), sink: None, first: Vec::new() };
    let queue = Queue::start(lines, log.queue_lines)?;
    let (filter, handle) = reload::Layer::new(filter(log));
    LOGGING.set(Logging { queue, filter: handle }).map_err(|_| anyhow::anyhow!("there is a log already"))?;
    tracing_subscriber::registry().with(filter).with(Events).try_init()?;
    std::panic::set_hook(Box::new(panicked));
    Ok(())
}

/// From here on the log is as the section says; its file is opened anew. One that cannot be opened changes nothing, and the
/// log says so.
pub fn change(log: &Log) {
    let Some(logging) = LOGGING.get() else { return };
    logging.queue.change(Box::new(log.clone()), log.queue_lines);
    if let Err(error) = logging.filter.reload(filter(log)) {
        tracing::warn!(%error, "log.level stays as it was");
    }
}

/// Waits a moment for the last lines.
pub fn flush() {
    if let Some(logging) = LOGGING.get() {
        logging.queue.flush(LAST_LINES_WAIT);
    }
}

/// How many lines wait to be written, and how many were lost since the process started.
pub fn backlog() -> (usize, u64) {
    LOGGING.get().map_or((0, 0), |logging| (logging.queue.waiting(), logging.queue.lost()))
}

/// An agent that panics dies of it at once, whoever takes its log.
fn panicked(panic: &std::panic::PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        tracing::error!("{panic}\n{backtrace}");
    } else {
        tracing::error!("{panic}");
    }
    flush();
}

fn filter(log: &Log) -> EnvFilter {
    let level = match log.level.as_str() {
        "DEBUG" => "debug",
        "WARN" | "WARNING" => "warn",
        "ERROR" | "CRITICAL" | "FATAL" => "error",
        _ => "info",
    };
    EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("matriarch={level}")))
}

fn style(log: &Log) -> Style {
    let colours = log.dir.is_none() && io::stderr().is_terminal();
    Style { format: log.format.clone(), dateformat: log.dateformat.clone(), colours }
}

/// Hands over what is said.
struct Events;

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(logging) = LOGGING.get() {
            logging.queue.push(Said::by(event), Timestamp::now());
        }
    }
}

/// Makes lines of it.
struct Lines {
    style: Style,
    sink: Option<Sink>,
    /// What was said before it is known where lines go.
    first: Vec<(Said, Timestamp)>,
}

impl Lines {
    fn goes_to(&mut self, sink: Sink, trouble: Option<String>) {
        self.sink = Some(sink);
        let now = Timestamp::now();
        let trouble = trouble.map(|what| (Said::warning(what), now));
        for (said, at) in std::mem::take(&mut self.first).into_iter().chain(trouble) {
            // Nobody counts those: they are the first.
            self.write(&said, at).ok();
        }
    }
}

impl Writer for Lines {
    type Settings = Box<Log>;

    fn write(&mut self, said: &Said, at: Timestamp) -> io::Result<()> {
        let Some(sink) = &mut self.sink else {
            if self.first.len() >= FIRST_LINES_MAX {
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.first.push((said.clone(), at));
            return Ok(());
        };
        let line = |said: &Said, at: Timestamp| self.style.line(said, &Zoned::new(at, TimeZone::system()));
        let trouble = sink.write(&line(said, at))?;
        trouble.map_or(Ok(None), |what| sink.write(&line(&Said::warning(what), at))).map(drop)
    }

    fn change(&mut self, log: Box<Log>) {
        match (Sink::open(&log), self.sink.take()) {
            (Ok((sink, trouble)), _) => {
                self.style = style(&log);
                self.goes_to(sink, trouble);
            }
            (Err(error), Some(sink)) => self.goes_to(sink, Some(format!("the log stays as it was: {error:#}"))),
            (Err(error), None) => {
                let what = format!("standard error takes the log, since its file cannot be opened: {error:#}");
                self.goes_to(Sink::standard_error(), Some(what));
            }
        }
    }

    fn end(&mut self) {
        if self.sink.is_none() {
            self.goes_to(Sink::standard_error(), None);
        }
    }
}

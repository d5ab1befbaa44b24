//! Logging: one line a decision that changed, on standard error or in a file; never a password.

use std::fs::OpenOptions;
use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::local::Log;

/// Starts logging as the section `log` says; `RUST_LOG` wins.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let level = match log.level.as_str() {
        "DEBUG" => "debug",
        "WARN" | "WARNING" => "warn",
        "ERROR" | "CRITICAL" | "FATAL" => "error",
        _ => "info",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(format!("matriarch={level}")));
    let (writer, colours) = match &log.dir {
        None => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
        Some(directory) => {
            let path = directory.join("patroni.log");
            let file = OpenOptions::new().create(true).append(true).open(&path);
            (BoxMakeWriter::new(file.with_context(|| format!("log.dir: {}", path.display()))?), false)
        }
    };
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    let started = if log.json { subscriber.json().try_init() } else { subscriber.with_target(false).try_init() };
    started.map_err(|error| anyhow::anyhow!("logging: {error}"))
}

//! What PostgreSQL and its programs leave in files and say: `postmaster.pid`, `pg_waldump`'s last words, the configuration
//! file with its recovery section, complaints about parameters; and what `/proc` says of processes.

use matriarch::fuzz::{follows, parameter_faults, process_stat, recovery_section, wal_end};
use matriarch::postgres::proc::PidFile;

/// The target.
pub fn target(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    follows(&text, data.len() as u16);
    let (end, section, faults) = (wal_end(&text), recovery_section(&text), parameter_faults(&text));
    format!("{}, {end}, {section}, {faults}, {}", pid_file(&text), process_stat(data))
}

fn pid_file(text: &str) -> &'static str {
    let Some(file) = PidFile::parse(text) else { return "no pid file" };
    // It is signalled: 0 is our own group, and a number has to have an absolute value.
    assert!(file.pid != 0 && file.pid.checked_abs().is_some(), "pid {}", file.pid);
    let first = text.lines().next().unwrap_or_default().trim();
    assert_eq!(first.parse(), Ok(file.pid), "a process that the file does not name");
    let again = format!("{}\n/data\n{}\n{}\n", file.pid, file.started_s, file.port);
    assert_eq!(PidFile::parse(&again), Some(PidFile { phase: None, ..file }));
    if file.phase.is_some() { "a pid file with a phase" } else { "a pid file" }
}

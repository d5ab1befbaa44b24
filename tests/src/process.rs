//! Processes by their id, and what a test does to them.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

/// A process, by its id. It may have ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Process(pub i32);

impl Process {
    /// Sends a signal. A process that is gone is not an error: it may end at any time.
    pub fn signal(self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.0) {
            kill_process(pid, signal).ok();
        }
    }

    /// SIGKILL.
    pub fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// SIGSTOP, and waits until every thread stands still: the signal is one thread's first, and the others may go on
    /// for as long as that one waits for a processor.
    pub fn freeze(self) {
        self.signal(Signal::STOP);
        while !self.states().iter().all(|state| matches!(state, 'T' | 't' | 'Z' | 'X')) {
            std::thread::yield_now();
        }
    }

    /// SIGCONT.
    pub fn thaw(self) {
        self.signal(Signal::CONT);
    }

    /// Whether it runs, stopped or not. A zombie does not.
    pub fn is_alive(self) -> bool {
        state(&Path::new("/proc").join(self.0.to_string()).join("stat"))
            .is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// The words of its command line; empty for a zombie.
    pub fn command_line(self) -> Vec<String> {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.0)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// Every process whose command line names `dir` or that works in it.
    pub(crate) fn of_directory(dir: &Path) -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Self));
        let prefix = format!("{}/", dir.display());
        let mut found: Vec<Self> = ids
            .filter(|process| {
                let works_in = fs::read_link(format!("/proc/{}/cwd", process.0)).is_ok_and(|cwd| cwd.starts_with(dir));
                process.0 != rustix::process::getpid().as_raw_nonzero().get()
                    && (works_in || process.command_line().iter().any(|word| word.contains(&prefix)))
            })
            .filter(|process| process.is_alive())
            .collect();
        found.sort();
        found
    }

    fn states(self) -> Vec<char> {
        let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", self.0)) else { return Vec::new() };
        tasks.flatten().filter_map(|task| state(&task.path().join("stat"))).collect()
    }
}

/// The state letter of a process or thread.
fn state(stat: &Path) -> Option<char> {
    fs::read_to_string(stat).ok()?.rsplit_once(')')?.1.trim_start().chars().next()
}

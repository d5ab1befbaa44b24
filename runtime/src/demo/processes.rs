//! The demo's processes: everything that descends from it, and after `--keep` everything that works in its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, WaitOptions};

use crate::processes::{Process, Stat};

/// Programs that can be the demo's when found by directory. An editor or a shell in the directory is the user's.
const PROGRAMS: [&str; 6] = ["matriarch", "postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_controldata"];

/// Makes us the parent of every orphan among our descendants, so that a dead one is reaped at once. Under some inits of
/// containers a dead postmaster stays around for seconds.
pub(super) fn become_subreaper() -> rustix::io::Result<()> {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
}

/// Takes note of every child that has ended.
pub(super) fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

/// Every living process that the demo in `dir` started: all descendants of this process, and our programs that name
/// the directory or work in it.
pub(super) fn of_demo(dir: &Path) -> Vec<Process> {
    let table = Table::read();
    let mut found = table.descendants(std::process::id().cast_signed());
    found.extend(table.in_directory(dir));
    table.processes(found)
}

/// Every living process of the node whose directory is `dir`.
pub(super) fn of_node(dir: &Path) -> Vec<Process> {
    let table = Table::read();
    table.processes(table.in_directory(dir))
}

/// Sends a signal to each; one that is gone does not matter, and one that is not ours to signal cannot be helped.
pub(super) fn signal_all(processes: &[Process], signal: Signal) {
    for process in processes {
        let _ = process.signal(signal);
    }
}

/// Waits until none of them lives, for `limit` at most; whether that is so.
pub(super) fn wait_gone(processes: &[Process], limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        reap();
        if processes.iter().all(|process| !process.is_alive()) {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `/proc` at one moment.
struct Table {
    stats: BTreeMap<i32, Stat>,
}

impl Table {
    fn read() -> Self {
        let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let living = pids.filter_map(|pid| Some((pid, Stat::read(pid).ok()??)));
        Self { stats: living.filter(|(_, stat)| !stat.is_dead()).collect() }
    }

    fn descendants(&self, ancestor: i32) -> BTreeSet<i32> {
        let mut found = BTreeSet::new();
        let mut fresh = vec![ancestor];
        while let Some(parent) = fresh.pop() {
            let children = self.stats.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid);
            fresh.extend(children.filter(|child| found.insert(*child)));
        }
        found
    }

    fn in_directory(&self, dir: &Path) -> BTreeSet<i32> {
        let own = std::process::id().cast_signed();
        self.stats.keys().copied().filter(|pid| *pid != own && is_program(*pid) && belongs(*pid, dir)).collect()
    }

    fn processes(&self, pids: BTreeSet<i32>) -> Vec<Process> {
        let known = pids.into_iter().filter_map(|pid| self.stats.get(&pid).map(|stat| (pid, stat)));
        known.map(|(pid, stat)| Process { pid, start_ticks: stat.start_ticks }).collect()
    }
}

fn is_program(pid: i32) -> bool {
    let Ok(program) = fs::read_link(format!("/proc/{pid}/exe")) else { return false };
    // Ours may have been given another name.
    if fs::read_link("/proc/self/exe").is_ok_and(|own| own == program) {
        return true;
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    // The kernel's way of saying that the file was replaced since, as a new build does.
    PROGRAMS.contains(&name.trim_end_matches(" (deleted)"))
}

fn belongs(pid: i32, dir: &Path) -> bool {
    if fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)) {
        return true;
    }
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    words.split(|byte| *byte == 0).any(|word| names(&String::from_utf8_lossy(word), dir))
}

/// Whether a word of a command line is a path in `dir`, or an option `--name=path` with one.
fn names(word: &str, dir: &Path) -> bool {
    let value = word.split_once('=').map_or(word, |(_, value)| value);
    Path::new(word).starts_with(dir) || Path::new(value).starts_with(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_a_directory_as_a_path_not_as_a_prefix() {
        let dir = Path::new("/tmp/demo/n1");
        assert!(names("/tmp/demo/n1/agent.yml", dir));
        assert!(names("--pgdata=/tmp/demo/n1/data", dir));
        assert!(!names("/tmp/demo/n10/agent.yml", dir));
        assert!(!names("n1", dir));
    }

    #[test]
    fn descendants_are_found_through_generations() {
        let stat = |parent| Stat { state: b'S', parent, threads: 1, start_ticks: 1 };
        let table = Table { stats: [(2, stat(1)), (3, stat(2)), (4, stat(3)), (5, stat(1))].into() };
        assert_eq!(table.descendants(2), BTreeSet::from([3, 4]));
        assert_eq!(table.descendants(1), BTreeSet::from([2, 3, 4, 5]));
    }
}

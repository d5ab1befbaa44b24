//! The built binary as a user runs it; and its demo under observation, with what it leaves behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use matriarch::postgres::cgroup;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lock::MachineLock;
use crate::{Child, Ended, Process, eventually, tools};

/// Between two looks at what the demo's processes have open.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Longer than the whole tour with its bootstrap on a busy machine.
const END_LIMIT: Duration = Duration::from_secs(240);

/// Longer than anything takes that starts no cluster.
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// `matriarch demo`, which takes this for the place for temporary files, and everything that it has started.
pub struct Demo {
    dir: TempDir,
    child: Child,
    seen: Arc<Mutex<BTreeSet<Trace>>>,
    is_over: Arc<AtomicBool>,
    observer: Option<JoinHandle<()>>,
    _lock: MachineLock,
}

/// What a dead process may leave outside of its directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Trace {
    /// System V shared memory: key and id.
    Segment(i32, i32),
    /// POSIX shared memory.
    Shared(PathBuf),
    /// The cgroup of a node's PostgreSQL.
    Cgroup(PathBuf),
}

impl Demo {
    /// Starts `matriarch demo` with these arguments.
    pub async fn start(arguments: &[&str]) -> Self {
        let lock = MachineLock::take().await;
        let dir = tempfile::Builder::new().prefix("matriarch-test-").tempdir().expect("a directory");
        let place = dir.path().join("tmp");
        fs::create_dir(&place).expect("a place for temporary files");
        for dir in [dir.path(), &place] {
            // The demo's account must be able to pass, or the demo takes another place.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("permissions of the directory");
        }
        let child = spawn(dir.path(), arguments);
        let (seen, is_over) = (Arc::default(), Arc::default());
        let observer = observe(place, Arc::clone(&seen), Arc::clone(&is_over));
        Self { dir, child, seen, is_over, observer: Some(observer), _lock: lock }
    }

    /// What it has written to standard error; with `--json` that is its progress.
    pub fn progress(&self) -> String {
        fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default()
    }

    /// The document on its standard output.
    pub fn document(&self) -> Value {
        let text = fs::read_to_string(self.dir.path().join("stdout")).expect("its standard output");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON document: {error}: {text}"))
    }

    /// Waits until its progress says this.
    pub async fn says(&self, what: &str) {
        eventually(&format!("the demo says {what:?}"), END_LIMIT, async || {
            assert_eq!(self.child.ended(), None, "it has ended: {}", self.progress());
            if self.progress().contains(what) { Ok(()) } else { Err(self.progress()) }
        })
        .await;
    }

    /// Waits until a process of it runs this program.
    pub async fn runs(&self, program: &str) {
        eventually(&format!("the demo runs {program}"), END_LIMIT, async || {
            assert_eq!(self.child.ended(), None, "it has ended: {}", self.progress());
            let is_it = |process: &Process| {
                let found = fs::read_link(format!("/proc/{}/exe", process.0)).unwrap_or_default();
                found.file_name().is_some_and(|name| name == program)
            };
            if self.processes().iter().any(is_it) { Ok(()) } else { Err(self.progress()) }
        })
        .await;
    }

    /// SIGINT to it alone, as for a user's Ctrl-C everything else is in another process group.
    pub fn interrupt(&self) {
        self.child.process().signal(Signal::INT);
    }

    /// Waits for its end.
    pub fn ended(&self) -> Ended {
        self.child.wait(END_LIMIT).unwrap_or_else(|| panic!("it has not ended: {}", self.progress()))
    }

    /// `matriarch demo --stop` of what `--keep` left running, to its end.
    pub fn stop(&mut self, kept: &str) -> Ended {
        self.child = spawn(self.dir.path(), &["--stop", kept]);
        self.ended()
    }

    /// Every process of it that is alive, itself included.
    pub fn processes(&self) -> Vec<Process> {
        processes(&self.place())
    }

    /// Panics if anything is left of it: a process, a file, shared memory, a cgroup.
    pub fn must_have_left_nothing(&self) {
        let shown = |process: &Process| format!("{} {:?}", process.0, process.command_line());
        let alive: Vec<String> = self.processes().iter().map(shown).collect();
        assert!(alive.is_empty(), "these processes are left: {alive:#?}");
        let files: Vec<PathBuf> =
            fs::read_dir(self.place()).expect("its place").flatten().map(|entry| entry.path()).collect();
        assert!(files.is_empty(), "these files are left: {files:?}");
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let left: Vec<&Trace> = seen.iter().filter(|trace| trace.is_there()).collect();
        assert!(left.is_empty(), "this is left: {left:?}");
    }

    /// Whether it was seen to use shared memory: if not, that none is left says nothing.
    pub fn has_shared_memory(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter().any(Trace::is_shared_memory)
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("tmp")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(observer) = self.observer.take() {
            observer.join().ok();
        }
        loop {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(Process::kill);
            std::thread::sleep(Duration::from_millis(2));
        }
        for trace in self.seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Trace::Cgroup(path) = trace {
                fs::remove_dir(path).ok();
            }
        }
    }
}

/// Runs the built binary under the name `called` to its end, with nothing of our environment: how it ended, and what it
/// has written to standard output and standard error.
pub fn run_as(called: &str, arguments: &[&str]) -> (Ended, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let link = dir.path().join(called);
    symlink(tools::matriarch(), &link).expect("a link to the binary");
    let mut command = Command::new(&link);
    command.args(arguments).env_clear().env("HOME", dir.path()).current_dir(dir.path());
    write_to_files(&mut command, dir.path());
    let child = Child::spawn(&mut command).expect("the binary is executed");
    let ended = child.wait(RUN_LIMIT).unwrap_or_else(|| panic!("{called} {arguments:?} has not ended"));
    let said = ["stdout", "stderr"].map(|name| fs::read_to_string(dir.path().join(name)).expect("its output"));
    (ended, said.concat())
}

fn spawn(dir: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(tools::matriarch());
    command.arg("demo").args(arguments).env("TMPDIR", dir.join("tmp"));
    write_to_files(&mut command, dir);
    Child::spawn(&mut command).expect("the demo")
}

fn write_to_files(command: &mut Command, dir: &Path) {
    let file = |name: &str| File::create(dir.join(name)).expect("a file for its output");
    command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
}

/// Whatever names the place or works in it, and whatever was told of it by its environment.
fn processes(place: &Path) -> Vec<Process> {
    let told = format!("TMPDIR={}", place.display());
    let is_told = |process: &Process| {
        let environment = fs::read(format!("/proc/{}/environ", process.0)).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == told.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Process));
    let mut found: BTreeSet<Process> = all.filter(is_told).filter(|process| process.is_alive()).collect();
    found.extend(Process::of_directory(place));
    found.into_iter().collect()
}

fn observe(place: PathBuf, seen: Arc<Mutex<BTreeSet<Trace>>>, is_over: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while !is_over.load(Ordering::Relaxed) {
            let mut found: Vec<Trace> = processes(&place).into_iter().flat_map(shared_memory).collect();
            found.extend(cgroups(&place));
            seen.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            std::thread::sleep(LOOK_INTERVAL);
        }
    })
}

/// The shared memory that a process has mapped. That of System V is mapped as `/SYSVKEY`, its id for an inode.
fn shared_memory(process: Process) -> Vec<Trace> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.0)).unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (inode, path) = (words.get(4)?, words.get(5)?);
        if path.starts_with("/dev/shm/") {
            return Some(Trace::Shared(path.into()));
        }
        let key = u32::from_str_radix(path.strip_prefix("/SYSV")?, 16).ok()?;
        Some(Trace::Segment(key.cast_signed(), inode.parse().ok()?))
    });
    mapped.collect()
}

/// The cgroup that the agent of each node makes below its own, which is ours, where it may; before PostgreSQL runs.
fn cgroups(place: &Path) -> Vec<Trace> {
    let Ok(own) = cgroup::of(std::process::id().cast_signed()) else { return Vec::new() };
    let demos = fs::read_dir(place).into_iter().flatten().flatten();
    let data_dirs = demos.flat_map(|demo| ["n1", "n2", "n3"].map(|node| demo.path().join(node).join("data")));
    data_dirs.map(|data_dir| Trace::Cgroup(own.join(cgroup::name(&data_dir)))).collect()
}

impl Trace {
    fn is_shared_memory(&self) -> bool {
        matches!(self, Self::Segment(..) | Self::Shared(_))
    }

    fn is_there(&self) -> bool {
        match self {
            Self::Shared(path) | Self::Cgroup(path) => path.exists(),
            Self::Segment(key, id) => {
                let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
                table.lines().any(|line| {
                    let mut words = line.split_whitespace().map(str::parse);
                    words.next() == Some(Ok(*key)) && words.next() == Some(Ok(*id))
                })
            }
        }
    }
}

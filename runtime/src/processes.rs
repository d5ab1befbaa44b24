//! What `/proc` says about PostgreSQL's processes.
//!
//! Nothing here waits for a file system other than `/proc`: the data directory may lie on a disk that hangs, and that
//! is when the fence is needed. So processes are recognised by the text of their links, never by opening what they
//! point to.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Process {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl Process {
    /// The process that has `pid` now, `None` if there is none. A zombie is one.
    pub fn find(pid: i32) -> io::Result<Option<Self>> {
        Ok(Stat::read(pid)?.map(|stat| Self { pid, start_ticks: stat.start_ticks }))
    }

    /// Its state, `None` if it is gone (another process may have its pid).
    pub fn stat(self) -> io::Result<Option<Stat>> {
        Ok(Stat::read(self.pid)?.filter(|stat| stat.start_ticks == self.start_ticks))
    }

    /// Whether any of its threads can still run. What cannot be read counts as alive.
    pub fn is_alive(self) -> bool {
        match self.stat() {
            Ok(stat) => stat.is_some_and(|stat| !stat.is_dead()),
            Err(_) => true,
        }
    }

    /// Sends `signal` to this process and to no later one with its pid. A dead one is no error.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(()) };
        let sent = match pidfd_open(pid, PidfdFlags::empty()) {
            // The pidfd holds whoever has the pid now; only then is it known whether that is still the one meant.
            Ok(pidfd) => match self.stat()? {
                Some(_) => pidfd_send_signal(&pidfd, signal),
                None => Ok(()),
            },
            // No descriptor to be had: better a signal with a race of microseconds than none.
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) if self.is_alive() => {
                rustix::process::kill_process(pid, signal)
            }
            Err(other) => Err(other),
        };
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The part of `/proc/PID/stat` (proc(5)) that matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Field 3: `R`unning, `S`leeping, `D` uninterruptible, s`T`opped, `Z`ombie, `X` dead.
    pub state: u8,
    /// Field 4: the parent's pid.
    pub parent: i32,
    /// Field 20: threads that have not ended; a zombie itself counts as one.
    pub threads: i64,
    /// Field 22: clock ticks since boot.
    pub start_ticks: u64,
}

impl Stat {
    /// Reads it, `None` if there is no such process.
    pub fn read(pid: i32) -> io::Result<Option<Self>> {
        let text = match fs::read(format!("/proc/{pid}/stat")) {
            Ok(text) => text,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        match Self::parse(&text) {
            Some(stat) => Ok(Some(stat)),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not as proc(5) says"))),
        }
    }

    /// The same of a process that may be PostgreSQL's. One that hides from us (`hidepid` of proc(5)) belongs to an
    /// account that is neither ours nor the server's.
    fn of_ours(pid: i32) -> io::Result<Option<Self>> {
        match Self::read(pid) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(None),
            read => read,
        }
    }

    /// The process has ended, its parent may not have taken note. A leader that ended before its threads is a zombie
    /// too, and its threads run on.
    pub fn is_dead(self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x') && self.threads <= 1
    }

    /// It executes nothing until it is continued: stopped, dead, or in an uninterruptible wait that it will leave only
    /// into the stop that is pending.
    pub fn is_still(self) -> bool {
        matches!(self.state, b'T' | b't' | b'D' | b'Z' | b'X' | b'x')
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // The command's name, in parentheses, may itself hold spaces and parentheses.
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(text.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let threads = fields.nth(15)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self { state, parent, threads, start_ticks })
    }
}

/// The pids of the children of `parent`, zombies included. Complete only while `parent` is stopped (so that none is
/// added or reaped); proc(5) says so of `/proc/PID/task/TID/children`.
pub fn child_pids(parent: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    let tasks = match fs::read_dir(format!("/proc/{parent}/task")) {
        Ok(tasks) => tasks,
        Err(error) if is_gone(&error) => return Ok(found),
        Err(error) => return Err(error),
    };
    for task in tasks {
        match task.and_then(|task| fs::read_to_string(task.path().join("children"))) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // A kernel without CONFIG_PROC_CHILDREN, or a thread that ended just now.
            Err(error) if is_gone(&error) => return child_pids_by_scan(parent),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn child_pids_by_scan(parent: i32) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for pid in pids()? {
        found.extend(Stat::of_ours(pid)?.filter(|stat| stat.parent == parent).map(|_| pid));
    }
    Ok(found)
}

/// Every process id there is now.
pub fn pids() -> io::Result<Vec<i32>> {
    let mut pids = Vec::with_capacity(256);
    for entry in fs::read_dir("/proc")? {
        pids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(pids)
}

/// The process of a file in `/proc` has ended.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// A PostgreSQL process of one data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Member {
    /// Which process.
    pub process: Process,
    /// Its parent's pid.
    pub parent: i32,
}

/// How PostgreSQL's processes of one data directory are recognised: every one of them has it as its working directory
/// (`ChangeToDataDir` in PostgreSQL's miscinit.c) and runs the server's executable.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    canonical: PathBuf,
    /// What has been at the path: a directory that was renamed or removed under a running orphan is still recognised.
    identities: Vec<Identity>,
    /// Our own; a container's PostgreSQL may well work under the same path, in its own file systems.
    mount_namespace: Option<PathBuf>,
    /// Whose the directory is, or was when it was there.
    account: Option<u32>,
    executables: BTreeSet<Vec<u8>>,
}

impl DataDir {
    /// How many are remembered: a data directory is replaced by a new one at each clone.
    const IDENTITIES_MAX: usize = 16;

    /// The data directory at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        let executables = [b"postgres".to_vec(), b"postmaster".to_vec()].into();
        let mut this = Self {
            path: path.to_owned(),
            canonical: path.to_owned(),
            identities: Vec::new(),
            mount_namespace: fs::read_link("/proc/self/ns/mnt").ok(),
            account: None,
            executables,
        };
        this.refresh();
        this
    }

    /// Looks again at what the path means. This touches the disk, so it is for calm moments only.
    pub fn refresh(&mut self) {
        if let Ok(canonical) = fs::canonicalize(&self.path) {
            self.canonical = canonical;
        }
        self.account = fs::metadata(&self.canonical).ok().map(|metadata| metadata.uid()).or(self.account);
        self.remember(Identity::of(&self.canonical));
    }

    fn remember(&mut self, identity: Option<Identity>) {
        if let Some(identity) = identity.filter(|it| !self.identities.contains(it)) {
            if self.identities.len() >= Self::IDENTITIES_MAX {
                self.identities.remove(0);
            }
            self.identities.push(identity);
        }
    }

    /// Whether `pid` works in this directory, whatever it executes.
    pub fn is_home_of(&self, pid: i32) -> bool {
        let link = format!("/proc/{pid}/cwd");
        if Identity::of(Path::new(&link)).is_some_and(|it| self.identities.contains(&it)) {
            return true;
        }
        // The path alone decides only where it means the same to that process as to us.
        let is_same_path = || {
            let target = fs::read_link(&link);
            target.is_ok_and(|it| without_deleted(it.as_os_str()) == self.canonical.as_os_str().as_bytes())
        };
        let is_same_world = || {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
            theirs.is_some() && theirs == self.mount_namespace
        };
        is_same_path() && is_same_world()
    }

    /// Takes a process that the agent started in this directory as an example. A build of PostgreSQL may name its
    /// executable otherwise, and the directory may be a new one.
    pub fn learn(&mut self, pid: i32) {
        if self.is_home_of(pid)
            && let Ok(name) = executable(pid)
        {
            self.executables.insert(name);
            self.remember(Identity::of(Path::new(&format!("/proc/{pid}/cwd"))));
        }
    }

    /// Every process of this data directory that is not dead, by executable and working directory; where those may not
    /// be read, `postmaster` and its children. No snapshot: only two equal readings with nobody left who could fork
    /// mean much.
    pub fn members(&self, postmaster: Option<Process>) -> io::Result<Vec<Member>> {
        let mut members = Vec::new();
        // A dead postmaster's pid is an orphan's parent no more, but may come to be someone else's.
        let postmaster = postmaster.filter(|it| it.is_alive());
        for pid in pids()? {
            // Links first: a stat costs ten times as much, and most processes are not ours.
            let is_known = match executable(pid) {
                Ok(name) if self.executables.contains(&name) && self.is_home_of(pid) => true,
                Err(error) if !is_gone(&error) && postmaster.is_some() => false,
                Err(error) if !is_gone(&error) && self.may_work_here(pid)? => {
                    let why = format!(
                        "process {pid} runs PostgreSQL under the account of {}, and its executable may not \
                        be looked at (a guard of root needs CAP_SYS_PTRACE for that): {error}",
                        self.path.display()
                    );
                    return Err(io::Error::new(error.kind(), why));
                }
                Ok(_) | Err(_) => continue,
            };
            let Some(stat) = Stat::of_ours(pid)?.filter(|stat| !stat.is_dead()) else { continue };
            let process = Process { pid, start_ticks: stat.start_ticks };
            if is_known || postmaster.is_some_and(|it| it == process || it.pid == stat.parent) {
                members.push(Member { process, parent: stat.parent });
            }
        }
        Ok(members)
    }

    /// By what anybody may see of a process that lives: its name, and that its account is the directory's. Nothing that may be an
    /// orphan of this directory is passed over for want of a right to look at it.
    fn may_work_here(&self, pid: i32) -> io::Result<bool> {
        let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        if !self.executables.contains(name.trim_ascii_end()) {
            return Ok(false);
        }
        let account = fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid());
        Ok(account.is_some() && account == self.account && Stat::of_ours(pid)?.is_some_and(|stat| !stat.is_dead()))
    }

    /// The server among `members`: the one that has children among them, or that never called itself a child.
    /// Touches the memory of processes, so it is for calm moments only.
    pub fn postmaster(&self, members: &[Member]) -> Option<Process> {
        let is_root = |member: &&Member| !members.iter().any(|other| other.process.pid == member.parent);
        let has_children = |member: &&Member| members.iter().any(|other| other.parent == member.process.pid);
        let mut roots = members.iter().filter(is_root);
        let parent = roots.clone().find(has_children);
        parent.or_else(|| roots.find(|root| !is_titled_child(root.process.pid))).map(|member| member.process)
    }
}

/// Every child of a postmaster names itself `postgres: …` (PostgreSQL's `init_ps_display`).
fn is_titled_child(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text.starts_with(b"postgres: "))
}

/// The name of the executable of `pid`, without its directory. A zombie and a thread of the kernel have none.
fn executable(pid: i32) -> io::Result<Vec<u8>> {
    let target = fs::read_link(format!("/proc/{pid}/exe"))?;
    let path = Path::new(OsStr::from_bytes(without_deleted(target.as_os_str())));
    Ok(path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default())
}

/// The kernel marks links to what was unlinked, such as the executable after an upgrade.
fn without_deleted(link: &OsStr) -> &[u8] {
    let link = link.as_bytes();
    link.strip_suffix(b" (deleted)").unwrap_or(link)
}

/// A directory that cannot be mistaken for another: an inode is used again after a removal, the time of its birth not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl Identity {
    /// From what the kernel has at hand: a server of files that hangs is not asked. `None` also where the file system
    /// knows no birth.
    fn of(path: &Path) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::BTIME;
        let found = rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, wanted).ok()?;
        (found.stx_mask & wanted.bits() == wanted.bits()).then_some(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born: (found.stx_btime.tv_sec, found.stx_btime.tv_nsec),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper(directory: &Path) -> Child {
        Command::new("sleep").arg("600").current_dir(directory).spawn().unwrap()
    }

    fn identity(child: &Child) -> Process {
        Process::find(child.id() as i32).unwrap().unwrap()
    }

    fn wait_for(mut done: impl FnMut() -> bool) {
        while !done() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn stat_survives_a_name_made_to_confuse_it() {
        let line = b"42 (a) R (b) S 7 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 3 0 12345 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.threads, stat.start_ticks), (b'S', 7, 3, 12345));
        assert!(Stat::parse(b"42 (a) S 7").is_none());
        assert!(Stat::parse(b"").is_none());
    }

    /// The bug: a guard of root in a container without `CAP_SYS_PTRACE` took orphans that it could not look at for none.
    #[test]
    fn what_may_not_be_looked_at_is_not_taken_for_dead() {
        use std::os::unix::fs::chown;
        use std::os::unix::process::CommandExt;

        use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

        const NOBODY: u32 = 65_534;
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT TESTED: who is not root has no right to give up");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let server = dir.path().join("postgres");
        fs::copy("/bin/sleep", &server).unwrap();
        chown(dir.path(), Some(NOBODY), None).unwrap();
        let mut orphan = Command::new(&server).arg("600").current_dir(dir.path()).uid(NOBODY).spawn().unwrap();
        let data_dir = DataDir::new(dir.path());
        wait_for(|| data_dir.members(None).unwrap().len() == 1);
        // The rights are a thread's, and this one ends with the test.
        let all = capabilities(None).unwrap();
        let fewer = CapabilitySets { effective: all.effective - CapabilitySet::SYS_PTRACE, ..all };
        set_capabilities(None, fewer).unwrap();
        let seen = data_dir.members(None);
        // Also where the directory is gone; and a zombie is dead.
        fs::rename(dir.path(), dir.path().with_extension("moved")).unwrap();
        let moved = data_dir.members(None);
        fs::rename(dir.path().with_extension("moved"), dir.path()).unwrap();
        orphan.kill().unwrap();
        wait_for(|| data_dir.members(None).is_ok());
        set_capabilities(None, all).unwrap();
        orphan.wait().unwrap();
        for seen in [seen, moved] {
            assert!(seen.unwrap_err().to_string().contains("CAP_SYS_PTRACE"));
        }
        assert_eq!(data_dir.members(None).unwrap(), []);
    }

    #[test]
    fn a_zombie_is_dead_before_it_is_reaped_and_gone_after() {
        let mut child = sleeper(Path::new("/"));
        let process = identity(&child);
        assert!(process.is_alive());
        process.signal(Signal::KILL).unwrap();
        wait_for(|| !process.is_alive());
        assert_eq!(process.stat().unwrap().unwrap().state, b'Z');
        child.wait().unwrap();
        assert_eq!(process.stat().unwrap(), None);
        assert!(!process.is_alive());
        process.signal(Signal::KILL).unwrap();
    }

    #[test]
    fn a_leader_that_ended_before_its_threads_is_not_dead() {
        let stat = Stat { state: b'Z', parent: 1, threads: 2, start_ticks: 1 };
        assert!(!stat.is_dead());
        assert!(Stat { threads: 1, ..stat }.is_dead());
    }

    #[test]
    fn a_later_process_with_the_same_pid_is_not_signalled() {
        let mut child = sleeper(Path::new("/"));
        let process = identity(&child);
        let earlier = Process { start_ticks: process.start_ticks - 1, ..process };
        assert!(!earlier.is_alive());
        earlier.signal(Signal::KILL).unwrap();
        assert!(process.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn children_are_found_both_ways() {
        let mut child = sleeper(Path::new("/"));
        let process = identity(&child);
        let me = std::process::id() as i32;
        assert!(child_pids(me).unwrap().contains(&process.pid));
        assert!(child_pids_by_scan(me).unwrap().contains(&process.pid));
        assert_eq!(child_pids(process.pid).unwrap(), [0; 0]);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn members_are_known_by_their_directory_also_when_it_was_renamed_or_removed() {
        let root = tempfile::tempdir().unwrap();
        let [data, other, moved] = ["data", "other", "moved"].map(|name| root.path().join(name));
        fs::create_dir(&data).unwrap();
        fs::create_dir(&other).unwrap();
        let mut directory = DataDir::new(&data);
        let (mut inside, mut outside) = (sleeper(&data), sleeper(&other));
        let member = identity(&inside);
        let found = |directory: &DataDir| -> Vec<Process> {
            directory.members(None).unwrap().into_iter().map(|member| member.process).collect()
        };
        wait_for(|| executable(member.pid).is_ok_and(|name| name != b"postgres" && directory.is_home_of(member.pid)));
        wait_for(|| executable(outside.id() as i32).ok() == executable(member.pid).ok());
        assert_eq!(found(&directory), [], "an executable that is not PostgreSQL's");
        directory.learn(outside.id() as i32);
        assert_eq!(found(&directory), [], "learned from a process of another directory");
        directory.learn(member.pid);
        assert_eq!(found(&directory), [member]);
        fs::rename(&data, &moved).unwrap();
        assert_eq!(found(&directory), [member], "renamed");
        fs::remove_dir(&moved).unwrap();
        assert_eq!(found(&directory), [member], "removed");
        assert_eq!(directory.postmaster(&directory.members(None).unwrap()), Some(member), "it has no child's title");
        for child in [&mut inside, &mut outside] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(found(&directory), []);
    }

    #[test]
    fn a_container_that_works_under_the_same_path_is_not_ours() {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().canonicalize().unwrap();
        let mut directory = DataDir::new(&data);
        let mut ours = sleeper(&data);
        wait_for(|| {
            directory.learn(ours.id() as i32);
            directory.executables.contains(b"sleep".as_slice())
        });
        let own_user = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
        let script = "mount -t tmpfs none \"$0\" && cd \"$0\" && exec sleep 600";
        let mut theirs = Command::new("unshare").args([own_user, "sh", "-c", script]).arg(&data).spawn().unwrap();
        let pid = theirs.id() as i32;
        wait_for(|| executable(pid).is_ok_and(|name| name == b"sleep"));
        assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), data, "the test proves nothing otherwise");
        let members: Vec<i32> = directory.members(None).unwrap().into_iter().map(|member| member.process.pid).collect();
        assert_eq!(members, [ours.id() as i32]);
        for child in [&mut ours, &mut theirs] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

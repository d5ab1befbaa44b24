//! The guard and a cgroup of PostgreSQL's own: what is in it dies at once, and nothing else does.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use matriarch::guard::{Order, Report};
use matriarch::postgres::cgroup;
use matriarch::processes::Process;
use matriarch_tests::guarded::{GuardedNode, ask, until};

/// A process that is not PostgreSQL by its executable nor by its parent, and that has a new number at every look: no
/// search would find it. It says how often it has forked.
const FORKING: &str = "n=0; f() { n=$((n+1)); echo $n > \"$1\"; f \"$1\" & exit; }; f \"$1\"";

#[tokio::test]
async fn a_fence_kills_what_is_in_postgresqls_cgroup_and_nothing_else() {
    let Some(own) = Own::make() else { return };
    let mut node = GuardedNode::prepare();
    let place = own.child(&cgroup::name(&node.options.data_dir));
    let beside = own.child("matriarch-postgres-of-another");
    node.start();
    let postmaster = node.postmaster();
    enter(&place, postmaster.pid);
    let marks = [node.path("inside"), node.path("beside")];
    let mut inside = forking(&place, &marks[0]);
    let mut outside = forking(&beside, &marks[1]);
    until(|| marks.iter().all(|mark| count(mark) > 3));

    let (mut guard, hello) = node.connect().await;
    let order = Order::Postmaster { pid: postmaster.pid, start_ticks: postmaster.start_ticks };
    assert_eq!(ask(&mut guard, order).await, Report::Watching { pid: postmaster.pid, why_no_cgroup: None });
    assert!(matches!(ask(&mut guard, Order::Fire { why: "test".into() }).await, Report::Fired(_)));
    until(|| members(&place).is_empty());
    let before = count(&marks[1]);
    until(|| count(&marks[1]) > before + 3);
    assert!(Process::find(hello.pid).unwrap().is_some_and(Process::is_alive), "the guard killed itself");
    inside.wait().unwrap();

    // The end of the guard is the end of the cgroup, and of no other.
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
    assert!(!place.exists() && beside.exists());
    fs::write(beside.join("cgroup.kill"), "1").unwrap();
    outside.wait().unwrap();
    until(|| members(&beside).is_empty());
}

#[tokio::test]
async fn a_cgroup_that_is_not_postgresqls_alone_is_not_killed() {
    let Some(own) = Own::make() else { return };
    let mut node = GuardedNode::prepare();
    node.start();
    let postmaster = node.postmaster();
    let order = Order::Postmaster { pid: postmaster.pid, start_ticks: postmaster.start_ticks };
    let (mut guard, hello) = node.connect().await;

    // One of another name.
    let foreign = own.child("somebody-elses");
    let mark = node.path("foreign");
    let mut bystander = forking(&foreign, &mark);
    enter(&foreign, postmaster.pid);
    let Report::Watching { why_no_cgroup: Some(why), .. } = ask(&mut guard, order.clone()).await else { panic!() };
    assert!(why.contains("somebody-elses") && why.contains("Delegate=yes"), "{why}");

    // One of the right name, with the guard in it.
    let place = own.child(&cgroup::name(&node.options.data_dir));
    enter(&place, postmaster.pid);
    enter(&place, hello.pid);
    let Report::Watching { why_no_cgroup: Some(why), .. } = ask(&mut guard, order).await else { panic!() };
    assert!(why.contains(&hello.pid.to_string()), "{why}");
    assert!(matches!(ask(&mut guard, Order::Fire { why: "test".into() }).await, Report::Fired(_)));
    assert!(node.alive().is_empty());
    let before = count(&mark);
    until(|| count(&mark) > before + 3);
    fs::write(foreign.join("cgroup.kill"), "1").unwrap();
    bystander.wait().unwrap();
    until(|| members(&foreign).is_empty());
    assert_eq!(ask(&mut guard, Order::Retire).await, Report::Gone);
    until(|| members(&place).is_empty());
}

/// Where this test may make cgroups. They are removed with it.
struct Own {
    directory: PathBuf,
    children: std::cell::RefCell<Vec<PathBuf>>,
}

impl Own {
    fn make() -> Option<Self> {
        let own = cgroup::of(std::process::id().cast_signed()).ok()?;
        let probe = own.join(format!("matriarch-test-{}", std::process::id()));
        match fs::create_dir(&probe) {
            Ok(()) => Some(Self { directory: probe, children: std::cell::RefCell::default() }),
            Err(error) => {
                println!("not run: no cgroup can be made in {}: {error}", own.display());
                None
            }
        }
    }

    fn child(&self, name: &str) -> PathBuf {
        let child = self.directory.join(name);
        fs::create_dir(&child).unwrap();
        self.children.borrow_mut().push(child.clone());
        child
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for child in self.children.borrow().iter().chain([&self.directory]) {
            fs::write(child.join("cgroup.kill"), "1").ok();
            for _ in 0..100 {
                if fs::remove_dir(child).is_ok() || !child.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

fn forking(cgroup: &Path, mark: &Path) -> Child {
    let procs = fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs")).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", FORKING, "sh"]).arg(mark).current_dir("/").stdin(Stdio::null());
    // SAFETY: between fork and exec it makes one system call, with a descriptor that lives as long as the closure.
    unsafe {
        command.pre_exec(move || Ok(rustix::io::write(&procs, b"0").map(drop)?));
    }
    command.spawn().unwrap()
}

fn enter(cgroup: &Path, pid: i32) {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string()).unwrap();
}

fn members(cgroup: &Path) -> Vec<i32> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn count(mark: &Path) -> u64 {
    fs::read_to_string(mark).unwrap_or_default().trim().parse().unwrap_or(0)
}

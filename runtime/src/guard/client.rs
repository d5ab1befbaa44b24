//! The agent's side: finds a living guard or starts one, and keeps the connection.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::GuardArgs;
use super::protocol::{Hello, LINE_BYTES_MAX, Order, PROTOCOL, Report, line};
use super::startup::{LISTENING, LOCKED, make_state_dir, socket_path};
use crate::clock;

/// How long finding or starting a guard may take in all.
const START_LIMIT: Duration = Duration::from_secs(5);
/// How long a guard that has accepted a connection may take to greet. A fence that does not go through keeps it longer
/// than anything else.
const GREET_LIMIT: Duration = Duration::from_secs(2);
/// How long a successor may take to greet as the guard. It has to be well within the time that an agent goes without
/// one.
const SUCCESSION_LIMIT: Duration = Duration::from_millis(500);
/// Between two attempts to reach a guard that is just starting, ending or executing itself anew.
const AGAIN: Duration = Duration::from_millis(5);
/// Orders and reports that may wait.
const QUEUE_MAX: usize = 64;

/// How a guard is found and started.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// The `matriarch` executable, absolute.
    pub exe: PathBuf,
    /// Directory for the guard's socket, lock and log (`guard.log`); made with mode 0700 if it is missing. One for each
    /// data directory.
    pub state_dir: PathBuf,
    /// PostgreSQL's data directory; it need not exist yet.
    pub data_dir: PathBuf,
    /// The only user beside root that may give orders: the agent's.
    pub agent_uid: u32,
    /// How long a dead agent is waited for before PostgreSQL is stopped.
    pub restart_grace: Duration,
    /// The command that gives a tenure back, program first, `{tenure}` standing for its number. Empty: none.
    pub release_command: Vec<String>,
    /// The guard shall have a successor: a second process that becomes the guard when it dies. Nothing is acknowledged
    /// as armed without one.
    pub strict: bool,
}

/// A connection to the guard. Dropping it does nothing to the guard: it goes on guarding.
#[derive(Debug)]
pub struct Guard {
    /// What the guard says, in its order; a [`Report::Hello`] in between may be its successor's. After [`Report::Gone`]
    /// or [`Report::Superseded`] nothing more comes, and this guard is to be replaced by [`connect_or_spawn`].
    pub reports: mpsc::Receiver<Report>,
    orders: Orders,
}

/// Gives orders to a guard; cheap to clone.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// Hands an order over. Whether it was carried out is known only from its report; after a [`Report::Hello`] in the
    /// middle of the stream, an order without a report may or may not have been. Fails if the guard is gone or has left
    /// many orders unread.
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.0.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                io::Error::new(io::ErrorKind::WouldBlock, "the guard reads no orders")
            }
            mpsc::error::TrySendError::Closed(_) => io::Error::new(io::ErrorKind::NotConnected, "the guard is gone"),
        })
    }
}

impl Guard {
    /// A connection, and the guard's end of it: the orders that it gets, and how it reports.
    pub fn connection() -> (Self, mpsc::Receiver<Order>, mpsc::Sender<Report>) {
        let (orders, taken) = mpsc::channel(QUEUE_MAX);
        let (told, reports) = mpsc::channel(QUEUE_MAX);
        (Self { reports, orders: Orders(orders) }, taken, told)
    }

    /// [`Orders::send`].
    pub fn send(&self, order: Order) -> io::Result<()> {
        self.orders.send(order)
    }

    /// A handle for another task.
    pub fn orders(&self) -> Orders {
        self.orders.clone()
    }
}

/// A guard that is being found or started.
pub type Finding = Pin<Box<dyn Future<Output = io::Result<(Guard, Hello)>> + Send>>;

/// Finds a node's guard, or starts one: the real one ([`Finder::of`]), or that of a simulated node.
#[derive(Clone)]
pub struct Finder(Arc<dyn Fn() -> Finding + Send + Sync>);

impl Finder {
    /// A finder from a function.
    pub fn new(find: impl Fn() -> Finding + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }

    /// By [`connect_or_spawn`].
    pub fn of(options: GuardOptions) -> Self {
        Self::new(move || {
            let options = options.clone();
            Box::pin(async move { connect_or_spawn(&options).await })
        })
    }

    /// Finds or starts it.
    pub fn find(&self) -> Finding {
        (self.0)()
    }
}

/// Connects to the guard of `options.state_dir`, or starts one (its own session, no child of ours, outlives us).
pub async fn connect_or_spawn(options: &GuardOptions) -> io::Result<(Guard, Hello)> {
    make_state_dir(&options.state_dir).map_err(other)?;
    let begun = clock::now();
    loop {
        let failure = match connect(options).await {
            Ok((link, hello)) => return Ok((serve(link, options.clone()), hello)),
            // A guard that is there and says no stays there: another one would find the lock taken.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Err(error),
            Err(error) => error,
        };
        if clock::now().since(begun) >= START_LIMIT {
            return Err(failure);
        }
        match spawn(options).await? {
            Spawned::Listens => {}
            // Another one is starting, ending, or too busy to answer; each of these ends soon.
            Spawned::Locked => sleep(AGAIN).await,
        }
    }
}

/// One connection, and the guard's process.
struct Link {
    lines: Lines<BufReader<tokio::io::Take<OwnedReadHalf>>>,
    to: OwnedWriteHalf,
    process: AsyncFd<OwnedFd>,
}

async fn connect(options: &GuardOptions) -> io::Result<(Link, Hello)> {
    let (_directory, path) = socket_path(&options.state_dir).map_err(other)?;
    let stream = UnixStream::connect(&path).await?;
    let peer = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    if ![0, own, options.agent_uid].contains(&peer.uid()) {
        let why = format!("the guard's socket in {} belongs to uid {}", options.state_dir.display(), peer.uid());
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    let (from, mut to) = stream.into_split();
    to.write_all(&line(&Order::Hello { protocol: PROTOCOL, strict: options.strict })).await?;
    let mut lines = BufReader::new(from.take(LINE_BYTES_MAX as u64)).lines();
    let answer = timeout(GREET_LIMIT, next_report(&mut lines)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("the guard does not greet within {GREET_LIMIT:?}"))
    })??;
    match answer {
        Some(Report::Hello(hello)) if options.strict && !hello.strict => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("the guard, process {}, keeps no successor: send it SIGUSR2 to have it execute anew", hello.pid),
        )),
        Some(Report::Hello(hello)) => {
            let pid = Pid::from_raw(hello.pid).ok_or_else(|| other("the guard has no process id"))?;
            let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
            // SAFETY: an `OwnedFd` stays the same open descriptor until it is dropped, and nothing takes it out.
            let process = unsafe { AsyncFd::register(pidfd) }?;
            Ok((Link { lines, to, process }, hello))
        }
        Some(Report::Refused { what, why }) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, format!("the guard refuses {what}: {why}")))
        }
        Some(report) => Err(other(format!("the guard began with {report:?}"))),
        None => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the guard closed the connection")),
    }
}

/// The next report, `None` at the end. Cancelling it loses nothing.
async fn next_report(lines: &mut Lines<BufReader<tokio::io::Take<OwnedReadHalf>>>) -> io::Result<Option<Report>> {
    let Some(line) = lines.next_line().await? else { return Ok(None) };
    // The limit is on one line, not on the connection.
    lines.get_mut().get_mut().set_limit(LINE_BYTES_MAX as u64);
    serde_json::from_str(&line).map(Some).map_err(other)
}

enum Spawned {
    Listens,
    Locked,
}

/// Starts a guard and returns once it listens.
async fn spawn(options: &GuardOptions) -> io::Result<Spawned> {
    let args = GuardArgs {
        state_dir: options.state_dir.clone(),
        data_dir: options.data_dir.clone(),
        agent_uid: options.agent_uid,
        restart_grace_ms: u64::try_from(options.restart_grace.as_millis()).unwrap_or(u64::MAX),
        detach: true,
        carried: None,
        release_command: options.release_command.clone(),
    };
    let failed = |why: String| other(format!("{} guard: {why}", options.exe.display()));
    let mut child = Command::new(&options.exe)
        .args(args.to_command_line())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let mut said = String::new();
    let Some(output) = child.stdout.take() else { return Err(failed("no output to read".into())) };
    let mut output = BufReader::new(output.take(LINE_BYTES_MAX as u64));
    match timeout(START_LIMIT, output.read_line(&mut said)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("does not listen after {START_LIMIT:?}"))),
    }
    // The intermediate parent, which has ended or is about to.
    let status = timeout(START_LIMIT, child.wait()).await.map_err(|_| failed("does not detach".into()))??;
    match said.trim_end() {
        LISTENING => Ok(Spawned::Listens),
        said if said.starts_with(LOCKED) => Ok(Spawned::Locked),
        "" => Err(failed(format!("ended before it listened ({status}); see guard.log in its directory"))),
        said => Err(failed(said.into())),
    }
}

fn serve(link: Link, options: GuardOptions) -> Guard {
    let (guard, orders, reports) = Guard::connection();
    tokio::spawn(converse(link, options, orders, reports));
    guard
}

/// Carries orders and reports until the guard is gone, another agent has taken it, or nobody is interested.
async fn converse(
    mut link: Link,
    options: GuardOptions,
    mut orders: mpsc::Receiver<Order>,
    reports: mpsc::Sender<Report>,
) {
    loop {
        tokio::select! {
            // What a guard said before its end is told before its end.
            biased;
            report = next_report(&mut link.lines) => if let Ok(Some(report)) = report {
                let is_last = matches!(report, Report::Superseded { .. });
                if reports.send(report).await.is_err() || is_last {
                    return;
                }
                continue;
            },
            _ = link.process.readable() => {}
            order = orders.recv() => match order {
                None => return,
                Some(order) => {
                    if link.to.write_all(&line(&order)).await.is_ok() {
                        continue;
                    }
                }
            },
        }
        // The connection is broken or the process has ended; what it said last may still be in the socket.
        while has_ended(&link.process)
            && let Ok(Some(report)) = next_report(&mut link.lines).await
        {
            if reports.send(report).await.is_err() {
                return;
            }
        }
        let Some((again, hello)) = reconnect(&link.process, &options).await else {
            reports.send(Report::Gone).await.ok();
            return;
        };
        link = again;
        if reports.send(Report::Hello(hello)).await.is_err() {
            return;
        }
    }
}

/// Reaches the same process again, or its successor; `None` once it has ended without one.
async fn reconnect(process: &AsyncFd<OwnedFd>, options: &GuardOptions) -> Option<(Link, Hello)> {
    loop {
        if has_ended(process) {
            // A guard without a successor has taken its listening socket with it: that is refused at once.
            return timeout(SUCCESSION_LIMIT, connect(options)).await.ok()?.ok();
        }
        if let Ok((link, hello)) = connect(options).await {
            return Some((link, hello));
        }
        tokio::select! {
            _ = process.readable() => {}
            () = sleep(AGAIN) => {}
        }
    }
}

fn has_ended(process: &AsyncFd<OwnedFd>) -> bool {
    let mut fds = [PollFd::new(process.get_ref(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

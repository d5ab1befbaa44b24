//! Everything that touches a real PostgreSQL, versions 13 to 18.
//!
//! [`Postgres`] is the whole of it for the rest of the agent: it observes and it executes orders; it decides nothing.
//! Dropping the future of an order cancels it and kills its tool; a server that was started or signalled stays so, and
//! a change of files that has begun goes on to its end before the next begins ([`Allowance::withdraw`] keeps a start
//! from forking after it).

mod address;
mod allowance;
mod archive;
mod bootstrap;
pub mod cgroup;
pub mod conf;
pub mod control_data;
mod divergence;
pub mod dynamic;
pub(crate) mod encryption;
pub mod files;
mod freeze;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod hooks;
pub mod inotify;
mod leftovers;
mod maxima;
mod monitoring;
mod prepare;
pub mod proc;
mod process;
mod promote;
mod replica;
mod replies;
mod roles;
mod server;
mod settings;
mod slots;
mod sql;
mod timeline_numbers;
pub mod tools;
mod vetting;
mod waldump;
pub mod walsender;
mod watch;
mod wipe;
mod workdir;

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use matriarch_core::id::{Lsn, Pid, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Seen;
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{ControlState, DataDir, Phase, Process, Sql, StartAs, StopMode, Upstream};
use rustix::process::Signal;
use tokio::sync::mpsc;

pub use address::port_taken;
pub use allowance::Allowance;
pub use divergence::Divergence;
pub use server::{Server, Watched};
pub use settings::{Credential, LocalConnection, RunAs, Secret, Settings, slot_name};
pub use sql::SqlFailure;
pub use watch::Changed;

use crate::aside::{Changes, look};
use crate::processes;
use conf::{Recovery, Written};
use control_data::ControlData;
use prepare::{check, for_role, is_standby, known_major, prepare_start};
use sql::Monitor;
use tools::Progress;
use vetting::Vetting;

/// How long the answer may take whether a reload has reached the server.
const RELOADED_DEADLINE: Duration = Duration::from_millis(100);
/// How long the SQL of a bootstrap may take.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_mins(1);

/// What following another upstream came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Followed {
    /// The server was told; it re-attaches within its `wal_retrieve_retry_interval`.
    Done,
    /// It is written, but this parameter is read only at a start.
    NeedsRestart(String),
}

/// The local PostgreSQL.
#[derive(Debug)]
pub struct Postgres {
    settings: Mutex<Arc<Settings>>,
    recovery: Arc<Mutex<Recovery>>,
    monitor: Monitor,
    vetting: Vetting,
    changes: Changes,
    /// The postmaster that was found last, and its phase.
    postmaster: Mutex<Option<(processes::Process, Phase)>>,
    /// Files were written, or may have been, and no operation that tells of it has come to its end.
    untold: Arc<AtomicBool>,
}

impl Postgres {
    /// The PostgreSQL that `settings` describe. Touches nothing yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Mutex::new(Arc::new(settings)),
            recovery: Arc::new(Mutex::new(Recovery::Keep)),
            monitor: Monitor::default(),
            vetting: Vetting::default(),
            changes: Changes::default(),
            postmaster: Mutex::default(),
            untold: Arc::default(),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        Arc::clone(&locked(&self.settings))
    }

    /// Keeps the dynamic configuration in the data directory.
    ///
    /// # Errors
    /// The disk's.
    pub async fn keep_configuration(&self, config: serde_json::Value) -> io::Result<()> {
        let settings = self.settings();
        // In turn with what else is done to the directory: what a clone finds in its place would keep it from beginning.
        self.changes.make(move || dynamic::write(&settings, &config)).await
    }

    /// The next [`Self::reload_configuration`] is news, whatever it changes.
    pub fn tell_of_reload(&self) {
        self.untold.store(true, Ordering::Relaxed);
    }

    /// Takes other settings. They reach the server with [`Self::reload_configuration`] or its next start.
    pub fn apply_settings(&self, settings: Settings) {
        let moved = {
            let mut current = locked(&self.settings);
            let moved = (&current.local, current.port, &current.database, &current.superuser)
                != (&settings.local, settings.port, &settings.database, &settings.superuser);
            *current = Arc::new(settings);
            moved
        };
        if moved {
            self.monitor.close();
        }
    }

    /// Has the server's program look at the parameters, unless it has seen them already. What it would refuse at a start
    /// reaches no file of its; the warnings say what that is.
    pub async fn vet_parameters(&self) -> Vec<String> {
        self.vetting.vet(|| self.settings()).await.1
    }

    /// The settings without what the server would refuse, as far as that was found out already.
    fn vetted(&self) -> Arc<Settings> {
        self.vetting.known(self.settings())
    }

    /// Looks at the data directory.
    pub async fn observe_data(&self) -> DataDir {
        self.look(|settings| files::observe(&settings.data_dir, settings.run_as.as_ref())).await
    }

    /// The history of `timeline`, as [`files::history`].
    pub async fn history(&self, timeline: Timeline) -> History {
        self.look(move |settings| files::history(&settings.data_dir, timeline)).await
    }

    /// Looks for the server.
    pub async fn observe_process(&self) -> Process {
        self.look(|settings| proc::observe(&settings.data_dir)).await
    }

    /// Looks for the postmaster, as [`proc::observe_postmaster`]. One that was found is there until it is dead, whatever has
    /// become of its files: it goes on where they are moved away.
    pub async fn observe_postmaster(&self) -> Process {
        let found = self.look(|settings| proc::observe_postmaster(&settings.data_dir)).await;
        let mut known = locked(&self.postmaster);
        if let Process::Alive { pid, phase } = found {
            // With no descriptor left it is not told which process this is: the one that was found before is not gone for that.
            if let Ok(process) = processes::Process::find(pid.0) {
                *known = process.map(|process| (process, phase));
            }
            return found;
        }
        *known = known.filter(|(process, _)| process.is_alive());
        known.map_or(found, |(process, phase)| Process::Alive { pid: Pid(process.pid), phase })
    }

    fn known(&self) -> Option<processes::Process> {
        locked(&self.postmaster).map(|(process, _)| process)
    }

    /// The living processes of a dead postmaster, as [`proc::orphans`].
    ///
    /// # Errors
    /// As [`proc::orphans`].
    pub async fn observe_orphans(&self) -> io::Result<Vec<Pid>> {
        self.look(|settings| Ok(proc::orphans(&settings.data_dir)?.into_iter().map(Pid).collect())).await
    }

    /// Reads `pg_control`.
    ///
    /// # Errors
    /// As [`control_data::read`].
    pub async fn control_data(&self) -> Result<Option<ControlData>, String> {
        self.look(|settings| control_data::read(&settings.data_dir)).await
    }

    async fn look<T: Send + 'static>(&self, at: impl FnOnce(&Settings) -> T + Send + 'static) -> T {
        let settings = self.settings();
        look(move || at(&settings)).await
    }

    /// Asks the running server the monitoring query.
    ///
    /// # Errors
    /// Classified as [`SqlFailure`].
    pub async fn observe_sql(&self, deadline: Duration) -> Result<Seen<Sql>, SqlFailure> {
        self.monitor.observe(&self.settings(), deadline).await
    }

    /// Returns when process `pid` has ended; at once if there is none.
    pub fn watch_exit(&self, pid: Pid) -> impl Future<Output = ()> + Send + use<> {
        let handle = proc::Handle::open(pid);
        async move {
            if let Ok(handle) = handle {
                handle.exited().await;
            }
        }
    }

    /// Hints that `postmaster.pid`, `pg_control` or the data directory changed, until the receiver is dropped.
    pub fn watch_files(&self) -> mpsc::Receiver<Changed> {
        watch::watch(self.settings().data_dir.clone())
    }

    /// Makes a new cluster in an empty directory.
    pub async fn initdb(&self, progress: Progress<'_>) -> Outcome<()> {
        let made = workdir::initdb(&self.settings(), &self.changes, progress).await;
        refused_or_done(made.map(|()| *locked(&self.recovery) = Recovery::Primary))
    }

    /// Why PostgreSQL could not listen on its port once the directory is made, if something else does.
    pub async fn port_taken(&self) -> Option<String> {
        self.look(port_taken).await
    }

    /// Creates the roles of a new cluster. Can be repeated.
    pub async fn post_bootstrap(&self) -> Outcome<()> {
        let settings = self.settings();
        sql_outcome(sql::alone(&settings, &roles::statements(&settings), BOOTSTRAP_DEADLINE).await)
    }

    /// Makes a copy of `upstream` in an empty directory.
    pub async fn clone_from(&self, upstream: &Upstream, progress: Progress<'_>) -> Outcome<()> {
        let made = workdir::clone(&self.settings(), &self.changes, upstream, progress).await;
        refused_or_done(made.map(|()| *locked(&self.recovery) = Recovery::Standby(Some(upstream.clone()))))
    }

    /// Starts the server and waits until it accepts connections, for `pg_ctl_timeout` at most.
    ///
    /// `Refused` = it does not run; `NotOurTenure`: `allowance` was over before it was forked. `Unknown` = it runs and
    /// is still starting.
    pub async fn start(&self, how: StartAs, allowance: &Allowance) -> Outcome<()> {
        let recovery = match how {
            StartAs::Primary => Recovery::Primary,
            StartAs::Standby(upstream) => Recovery::Standby(upstream),
        };
        let standby = recovery != Recovery::Primary;
        // Not while nobody leads: whoever holds the most must be up to say so, and archives it itself if it leads next.
        let follows = matches!(recovery, Recovery::Standby(Some(_)));
        if follows && self.observe_process().await == Process::Absent {
            archive::archive_left(&self.settings(), &self.changes, archive::BEFORE_START).await;
        }
        self.start_with(Some(recovery), Some(standby), allowance).await
    }

    /// Stops the server. `Done` = it and all its processes have ended, or none ran.
    pub async fn stop(&self, mode: StopMode, deadline: Duration) -> Outcome<()> {
        let outcome = process::stop(&self.settings(), self.known(), mode, deadline).await;
        self.monitor.close();
        outcome
    }

    /// Asks the server to stop and waits only until its shutdown checkpoint is in `pg_control`: from then on no
    /// backend can exist. WAL senders may still drain; [`Self::stop`] waits for the end. A server that is stopping
    /// already is not signalled a second time.
    pub async fn stop_until_checkpointed(&self, deadline: Duration) -> Outcome<ControlData> {
        let settings = self.settings();
        match process::signal_stop(&settings, self.known(), StopMode::Fast).await {
            Outcome::Done(_) => process::wait_shut_down(&settings, deadline).await,
            Outcome::Refused(refusal) => Outcome::Refused(refusal),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        }
    }

    /// Stops and starts the server as what it was. `deadline` is the stop's. What is over, `allowance`, keeps it from
    /// being stopped, or, if it ended meanwhile, from being started again.
    pub async fn restart(&self, deadline: Duration, allowance: &Allowance) -> Outcome<()> {
        let allowed = allowance.clone();
        if let Err(refusal) = self.look(move |settings| check(settings, None, &allowed)).await {
            return Outcome::Refused(refusal);
        }
        match self.stop(StopMode::Fast, deadline).await {
            Outcome::Done(()) => {}
            other => return other,
        }
        self.start_with(None, None, allowance).await
    }

    /// Writes the configuration files where they differ, and has the running server read them. `Done` = whether
    /// anything differs from what it began with, or from the last such reload or new upstream: a freeze, or an attempt
    /// that failed, may have written it already.
    pub async fn reload_configuration(&self) -> Outcome<bool> {
        self.vet_parameters().await;
        match self.write_and_reload(None).await {
            Ok(_) => Outcome::Done(self.untold.swap(false, Ordering::Relaxed)),
            Err(why) => Outcome::Refused(Refusal::Failed(why)),
        }
    }

    /// Promotes the running standby onto `timeline`; its new timeline when `pg_control` says `in production`: another
    /// only where a `restore_command` finds newer ones.
    ///
    /// `Refused` = it was not; `NotOurTenure`: `allowance` was over before it was told to.
    pub async fn promote(&self, timeline: Timeline, allowance: &Allowance) -> Outcome<Timeline> {
        let settings = self.settings();
        let outcome = promote::promote(&settings, &self.changes, timeline, allowance, settings.pg_ctl_timeout).await;
        if let Outcome::Done(timeline) = outcome {
            *locked(&self.recovery) = Recovery::Primary;
            look(move || process::note(&settings, &format!("promoted, timeline {timeline}"))).await;
        }
        outcome
    }

    /// Has the running standby stream from `upstream`, or from nobody. Ends a freeze.
    pub async fn follow(&self, upstream: Option<&Upstream>) -> Outcome<Followed> {
        if self.observe_process().await == Process::Absent {
            return Outcome::Refused(Refusal::Failed("PostgreSQL does not run: start it as a standby".into()));
        }
        if self.runs_in_production().await {
            let why = "PostgreSQL runs as primary: stop it, and start it as a standby";
            return Outcome::Refused(Refusal::Failed(why.into()));
        }
        let written = self.write_and_reload(Some(Recovery::Standby(upstream.cloned()))).await;
        // Scripts hear of a new source that is followed at once, and of no other turn.
        if upstream.is_some() && matches!(written, Ok(Written { restart: None, .. })) {
            self.untold.store(false, Ordering::Relaxed);
        }
        if upstream.is_some() && written.is_ok() {
            archive::archive_left(&self.settings(), &self.changes, archive::BEFORE_START).await;
        }
        match written {
            Ok(Written { restart: Some(parameter), .. }) => Outcome::Done(Followed::NeedsRestart(parameter)),
            Ok(_) => Outcome::Done(Followed::Done),
            Err(why) => Outcome::Refused(Refusal::Failed(why)),
        }
    }

    /// Has the standby take no more WAL from anywhere, and confirms that. Works while replay is paused or blocked.
    /// Until [`Self::follow`] or a start as standby of somebody. What it cannot stop: before PostgreSQL 14 a running
    /// `restore_command` goes on.
    ///
    /// `Unknown` = the receiver may still acknowledge.
    pub async fn freeze(&self, deadline: Duration) -> Outcome<()> {
        let settings = self.settings();
        let process = self.observe_process().await;
        if matches!(process, Process::Alive { .. }) && self.runs_in_production().await {
            return Outcome::Refused(Refusal::Failed("PostgreSQL runs as primary: there is nothing to freeze".into()));
        }
        if let Err(why) = self.write_and_reload(Some(Recovery::Frozen)).await {
            return Outcome::Refused(Refusal::Failed(why));
        }
        let Process::Alive { pid, .. } = process else { return Outcome::Done(()) };
        let reloaded = || async {
            let sql = "SELECT current_setting('primary_conninfo') = '' AS empty";
            let rows = self.monitor.rows(&settings, sql, RELOADED_DEADLINE).await.ok()?;
            rows.first()?.get("empty").map(|v| v == "t")
        };
        match freeze::end_receivers(pid, deadline, reloaded).await {
            Ok(()) => Outcome::Done(()),
            Err(why) => Outcome::Unknown(why),
        }
    }

    /// Makes a checkpoint.
    pub async fn checkpoint(&self, deadline: Duration) -> Outcome<()> {
        sql_outcome(sql::alone(&self.settings(), "CHECKPOINT", deadline).await)
    }

    /// Rewinds the stopped server's directory to be a standby of `upstream`, after letting it recover if it was not
    /// shut down cleanly. The caller has waited for `upstream`'s checkpoint after its promotion.
    pub async fn rewind(&self, upstream: &Upstream, progress: Progress<'_>) -> Outcome<()> {
        archive::archive_left(&self.settings(), &self.changes, archive::BEFORE_REWIND).await;
        let rewound = workdir::rewind(&self.vetted(), &self.changes, upstream, progress).await;
        refused_or_done(rewound.map(|()| *locked(&self.recovery) = Recovery::Standby(Some(upstream.clone()))))
    }

    /// Lets the directory of a crashed server recover without letting anybody in.
    pub async fn crash_recover(&self, progress: Progress<'_>) -> Outcome<()> {
        refused_or_done(workdir::crash_recover(&self.vetted(), &self.changes, progress).await)
    }

    /// Whether this directory holds WAL that `upstream`, a primary, does not.
    pub async fn divergence(&self, upstream: &Upstream) -> Divergence {
        divergence::check(&self.settings(), &self.monitor, upstream).await
    }

    /// Whether `upstream` answers over a replication connection as the cluster that is in the data directory here.
    ///
    /// # Errors
    /// What it answered instead, or that it did not.
    pub async fn is_served_by(&self, upstream: &Upstream) -> Result<(), String> {
        divergence::same_cluster(&self.settings(), upstream).await
    }

    /// Creates a physical replication slot that holds WAL from now on. One that is there already is `Done`.
    pub async fn create_slot(&self, name: &str) -> Outcome<()> {
        slots::create(&self.monitor, &self.settings(), name).await
    }

    /// Drops a replication slot. One that is not there is `Done`.
    pub async fn drop_slot(&self, name: &str) -> Outcome<()> {
        slots::drop(&self.monitor, &self.settings(), name).await
    }

    /// Advances an inactive slot to `to`. One that is active, missing or beyond it is `Done`.
    pub async fn advance_slot(&self, name: &str, to: Lsn) -> Outcome<()> {
        slots::advance(&self.monitor, &self.settings(), name, to).await
    }

    /// Empties the data directory (or moves it aside to `<dir>.failed`), with the WAL directory and tablespaces that it
    /// links to. Refused beside a living server or orphan, and for anything that is not known to be a cluster. That it
    /// is not the last copy of anything acknowledged is the caller's to know.
    pub async fn wipe_data_dir(&self, why: &str) -> Outcome<()> {
        let (settings, why) = (self.settings(), why.to_owned());
        let wipe = move || {
            match files::observe(&settings.data_dir, settings.run_as.as_ref()) {
                DataDir::Unreadable(what) | DataDir::Foreign(what) => return Err(format!("not removed: {what}")),
                DataDir::Cluster(_) | DataDir::Empty | DataDir::Unknown => workdir::refuse_if_alive(&settings)?,
            }
            tracing::warn!(data_dir = %settings.data_dir.display(), why, "removing the data directory");
            wipe::wipe(&settings.data_dir)
        };
        refused_or_done(self.changes.make(wipe).await)
    }

    /// `wanted` `None`: as what it was last told to be.
    async fn start_with(&self, wanted: Option<Recovery>, standby: Option<bool>, allowance: &Allowance) -> Outcome<()> {
        self.vetting.first().await;
        let settings = self.vetted();
        // What was killed a moment ago may still be on its way out, and would make the start refuse.
        workdir::wait_for_orphans(&settings).await;
        let (prepared, recovery, allowed) = (Arc::clone(&settings), Arc::clone(&self.recovery), allowance.clone());
        let untold = Arc::clone(&self.untold);
        let start = move || {
            // Before anything is written, and once more after it: the disk may have taken its time.
            check(&prepared, standby, &allowed)?;
            let wanted = wanted.unwrap_or_else(|| locked(&recovery).clone());
            let prepared = prepare_start(&prepared, &wanted, standby).map_err(Refusal::Failed)?;
            let started = process::spawn(&prepared, &allowed)?;
            untold.store(false, Ordering::Relaxed);
            *locked(&recovery) = wanted;
            Ok(started)
        };
        let started = match self.changes.make(start).await {
            Ok(started) => started,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        self.monitor.close();
        process::wait_ready(&settings, started, settings.pg_ctl_timeout).await
    }

    /// Writes the files, as [`Self::start_with`] does, and has a running server read them.
    async fn write_and_reload(&self, wanted: Option<Recovery>) -> Result<Written, String> {
        let (settings, recovery, untold) = (self.vetted(), Arc::clone(&self.recovery), Arc::clone(&self.untold));
        let write = move || {
            if let Some(Recovery::Standby(_)) = wanted {
                prepare::clear_left_out(&settings)?;
            }
            let wanted = wanted.unwrap_or_else(|| locked(&recovery).clone());
            let standby = match wanted {
                Recovery::Keep => is_standby(&settings),
                Recovery::Primary | Recovery::Bootstrap => false,
                Recovery::Standby(_) | Recovery::Frozen => true,
            };
            let settings = for_role(&settings, standby);
            let major = known_major(&settings)?;
            let written = conf::write_all(&settings, major, &wanted);
            untold.fetch_or(written.as_ref().map_or(true, |written| written.changed), Ordering::Relaxed);
            let written = written?;
            *locked(&recovery) = wanted;
            if let Process::Alive { pid, .. } = proc::observe(&settings.data_dir) {
                proc::signal(pid.0, Signal::HUP)
                    .map_err(|e| format!("PostgreSQL (pid {pid}) cannot be told to reload: {e}"))?;
            }
            Ok(written)
        };
        self.changes.make(write).await
    }

    async fn runs_in_production(&self) -> bool {
        matches!(self.control_data().await, Ok(Some(control)) if control.state == ControlState::InProduction)
    }
}

fn refused_or_done<T>(result: Result<T, String>) -> Outcome<T> {
    match result {
        Ok(value) => Outcome::Done(value),
        Err(why) => Outcome::Refused(Refusal::Failed(why)),
    }
}

fn sql_outcome<T>(result: Result<T, SqlFailure>) -> Outcome<()> {
    match result {
        Ok(_) => Outcome::Done(()),
        Err(SqlFailure::Unreachable(why)) => Outcome::Unknown(why),
        Err(refused) => Outcome::Refused(Refusal::Failed(refused.to_string())),
    }
}

/// No panic happens while one of these is held; if one did, the value is whole all the same.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

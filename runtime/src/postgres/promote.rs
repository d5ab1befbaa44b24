//! Promotion by what `pg_ctl promote` does, without `pg_ctl`, its one-second polls and its single signal.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::id::Timeline;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{ControlState, Process};
use rustix::process::Signal;
use tokio::time::Instant;

use super::allowance::Allowance;
use super::control_data;
use super::inotify::Watch;
use super::proc::{self, Handle};
use super::settings::Settings;
use super::timeline_numbers;
use crate::aside::{Changes, look};

/// How often the postmaster is told again, with the request made anew.
///
/// The race: the startup process has just found no more WAL locally and asked for a receiver, when the request comes.
/// It takes the request (and removes the file) where it waits for the receiver's WAL, counts that as a failed source,
/// and before it looks for the end of WAL once more it sleeps out its `wal_retrieve_retry_interval`, 5 s by default.
/// That is likely right after the primary has stopped, which is when one promotes: 2 of 20 promotions here. The sleep
/// ends with the next signal; but the postmaster passes none on without the file. So file and signal are repeated until
/// `pg_control` says that it is done, at the cost of a few system calls each. PostgreSQL removes a file that is left
/// over at its next start, before it could promote anything (`PostmasterMain`).
const NUDGE: Duration = Duration::from_millis(20);

/// What asks for promotion, in the data directory.
const FILE: &str = "promote";

/// Promotes the running standby onto `timeline` and waits until `pg_control` says `in production`.
///
/// `Done` = the new timeline. `Refused` = nothing was promoted. `Unknown` = it was told to, and has not yet finished.
pub(super) async fn promote(
    settings: &Arc<Settings>,
    changes: &Changes,
    timeline: Timeline,
    allowance: &Allowance,
    deadline: Duration,
) -> Outcome<Timeline> {
    let refused = |why: String| Outcome::Refused(Refusal::Failed(why));
    let Process::Alive { pid, .. } = read(settings, proc::observe).await else {
        return refused("PostgreSQL does not run: start it as a standby first".into());
    };
    let Ok(handle) = Handle::open(pid).map(Arc::new) else { return refused("PostgreSQL has just ended".into()) };
    let current = match read(settings, control_data::read).await {
        Ok(Some(control)) if control.state == ControlState::InProduction => return Outcome::Done(control.timeline()),
        Ok(Some(control)) => control.timeline(),
        Ok(None) => return refused(format!("{} holds no pg_control", settings.data_dir.display())),
        Err(why) => return refused(why),
    };
    let numbered = Arc::clone(settings);
    let number = move || {
        let (data_dir, run_as) = (&numbered.data_dir, numbered.run_as.as_ref());
        timeline_numbers::leave_out(data_dir, current, timeline, run_as)
    };
    if let Err(why) = changes.make(number).await {
        return refused(why);
    }
    let watch = read(settings, |dir| Watch::new().and(&dir.join("global/pg_control"))).await;
    let tell = || tell(settings, changes, allowance, &handle);
    if let Err(refusal) = tell().await {
        return Outcome::Refused(refusal);
    }
    let until = Instant::now() + deadline;
    let mut nudge = tokio::time::interval_at(Instant::now() + NUDGE, NUDGE);
    loop {
        if let Ok(Some(control)) = read(settings, control_data::read).await
            && control.state == ControlState::InProduction
        {
            take_back(settings, changes).await;
            return Outcome::Done(control.timeline());
        }
        tokio::select! {
            biased;
            () = handle.exited() => {
                take_back(settings, changes).await;
                return Outcome::Unknown("PostgreSQL ended during its promotion; see the server's log".into());
            }
            () = watch.changed() => {}
            _ = nudge.tick() => {
                // What was told once cannot be taken back, so nothing depends on this.
                let _ = tell().await;
            }
            () = tokio::time::sleep_until(until) => {
                return Outcome::Unknown(format!(
                    "told to promote, and still in recovery after {:.1} s",
                    deadline.as_secs_f32()
                ));
            }
        }
    }
}

async fn read<T: Send + 'static>(settings: &Arc<Settings>, of: impl FnOnce(&Path) -> T + Send + 'static) -> T {
    let settings = Arc::clone(settings);
    look(move || of(&settings.data_dir)).await
}

/// Asks for promotion. As a change in its turn: a file that came late, after this order has lost its lane, would
/// promote the next postmaster, whom nobody has asked; the next start waits until it is written, and removes it.
async fn tell(
    settings: &Arc<Settings>,
    changes: &Changes,
    allowance: &Allowance,
    handle: &Arc<Handle>,
) -> Result<(), Refusal> {
    let (file, allowance, handle) = (settings.data_dir.join(FILE), allowance.clone(), Arc::clone(handle));
    let told = move || {
        allowance.check_writable()?;
        request(&file).map_err(|e| {
            Refusal::Failed(format!("{} cannot be written: {e}; free space or correct its owner", file.display()))
        })?;
        let signalled = handle.signal(Signal::USR1);
        signalled.map_err(|e| {
            let _ = std::fs::remove_file(&file);
            Refusal::Failed(format!("PostgreSQL cannot be signalled: {e}"))
        })
    };
    changes.make(told).await
}

async fn take_back(settings: &Arc<Settings>, changes: &Changes) {
    let file = settings.data_dir.join(FILE);
    // It is gone already if the server was the faster one.
    let _ = changes.make(move || std::fs::remove_file(file)).await;
}

/// Makes the file that asks for promotion. It is looked for, not read, and outlives no start: no need to sync it.
fn request(file: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(file).map(|_| ())
}

//! Promotion by what `pg_ctl promote` does, without `pg_ctl`, its one-second polls and its single signal.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use matriarch_core::id::Timeline;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{ControlState, Process};
use rustix::process::Signal;
use tokio::time::Instant;

use super::control_data;
use super::inotify::Watch;
use super::proc::{self, Handle};
use super::settings::Settings;

/// How often the postmaster is told again, with the request made anew.
///
/// The race: the startup process has just found no more WAL locally and asked for a receiver, when the request comes. It
/// takes the request (and removes the file) where it waits for the receiver's WAL, counts that as a failed source, and
/// before it looks for the end of WAL once more it sleeps out its `wal_retrieve_retry_interval`, 5 s by default. That is
/// likely right after the primary has stopped, which is when one promotes: 2 of 20 promotions here. The sleep ends with
/// the next signal; but the postmaster passes none on without the file. So file and signal are repeated until
/// `pg_control` says that it is done, at the cost of a few system calls each. PostgreSQL removes a file that is left
/// over at its next start, before it could promote anything (`PostmasterMain`).
const NUDGE: Duration = Duration::from_millis(20);

/// Promotes the running standby and waits until `pg_control` says `in production`.
///
/// `Done` = the new timeline. `Refused` = nothing was promoted. `Unknown` = it was told to, and has not yet finished.
pub(super) async fn promote(settings: &Settings, deadline: Duration) -> Outcome<Timeline> {
    let data_dir = &settings.data_dir;
    let refused = |why: String| Outcome::Refused(Refusal::Failed(why));
    let Process::Alive { pid, .. } = proc::observe(data_dir) else {
        return refused("PostgreSQL does not run: start it as a standby first".into());
    };
    let Ok(handle) = Handle::open(pid) else { return refused("PostgreSQL has just ended".into()) };
    match control_data::read(data_dir) {
        Ok(Some(control)) if control.state == ControlState::InProduction => return Outcome::Done(control.timeline()),
        Ok(Some(_)) => {}
        Ok(None) => return refused(format!("{} holds no pg_control", data_dir.display())),
        Err(why) => return refused(why),
    }
    let file = data_dir.join("promote");
    let watch = Watch::new().and(&data_dir.join("global/pg_control"));
    if let Err(e) = request(&file) {
        return refused(format!("{} cannot be written: {e}; free space or correct its owner", file.display()));
    }
    if let Err(e) = handle.signal(Signal::USR1) {
        let _ = std::fs::remove_file(&file);
        return refused(format!("PostgreSQL (pid {pid}) cannot be signalled: {e}"));
    }
    let until = Instant::now() + deadline;
    let mut nudge = tokio::time::interval_at(Instant::now() + NUDGE, NUDGE);
    loop {
        if let Ok(Some(control)) = control_data::read(data_dir)
            && control.state == ControlState::InProduction
        {
            let _ = std::fs::remove_file(&file);
            return Outcome::Done(control.timeline());
        }
        tokio::select! {
            biased;
            () = handle.exited() => {
                let _ = std::fs::remove_file(&file);
                return Outcome::Unknown("PostgreSQL ended during its promotion; see the server's log".into());
            }
            () = watch.changed() => {}
            _ = nudge.tick() => {
                let _ = request(&file);
                let _ = handle.signal(Signal::USR1);
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

/// Makes the file that asks for promotion. It is looked for, not read, and outlives no start: no need to sync it.
fn request(file: &Path) -> io::Result<()> {
    OpenOptions::new().create(true).append(true).open(file).map(|_| ())
}

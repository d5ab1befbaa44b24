//! Making a standby stand still: what it has received is all it will acknowledge, until it is told to follow again.
//!
//! Emptying `primary_conninfo` is not enough: while replay is paused or blocked by a query, the startup process does
//! not act on the reload, the receiver goes on, and a standby acknowledged a synchronous commit a second after it.
//! Ending the receiver alone is not enough either: it comes back after `wal_retrieve_retry_interval`. Both together
//! are. The receiver refuses `pg_terminate_backend`; a signal to its process does it.

use std::time::Duration;

use matriarch_core::id::Pid;
use rustix::process::Signal;
use tokio::time::Instant;

use super::proc;
use crate::aside::look;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(3);
/// Without the server's word that it has read the new configuration, the receiver must stay away this long.
const UNCONFIRMED: Duration = Duration::from_millis(200);

/// Ends the WAL receivers of a postmaster that has been told to reload, until none comes back.
/// `reloaded` asks the server whether `primary_conninfo` is empty for it by now; `None` = it cannot say.
///
/// Twice gone after the reload was seen: the startup process may have been about to ask for a receiver with the old
/// setting when the first look found none.
pub(super) async fn end_receivers<R: Future<Output = Option<bool>>>(
    postmaster: Pid,
    deadline: Duration,
    reloaded: impl Fn() -> R,
) -> Result<(), String> {
    let until = Instant::now() + deadline;
    let mut says = None;
    let mut gone_since: Option<Instant> = None;
    let mut gone_times = 0;
    loop {
        let receivers = look(move || proc::wal_receivers(postmaster)).await;
        if receivers.as_ref().is_ok_and(Vec::is_empty) {
            gone_times += 1;
            let since = *gone_since.get_or_insert_with(Instant::now);
            let enough = match says {
                Some(true) => gone_times >= 2,
                Some(false) => false,
                None => since.elapsed() >= UNCONFIRMED,
            };
            if enough {
                return Ok(());
            }
        } else {
            (gone_since, gone_times) = (None, 0);
            for receiver in receivers.iter().flatten() {
                let _ = proc::signal(*receiver, Signal::TERM);
            }
        }
        if says != Some(true) {
            says = reloaded().await;
            gone_times = 0;
        }
        if Instant::now() >= until {
            let seconds = deadline.as_secs_f32();
            return Err(match receivers {
                Ok(receivers) => format!("the WAL receiver (pid {receivers:?}) is still there after {seconds:.1} s"),
                Err(error) => format!("the WAL receiver cannot be looked for, after {seconds:.1} s: /proc: {error}"),
            });
        }
        tokio::time::sleep(LOOK).await;
    }
}

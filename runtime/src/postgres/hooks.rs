//! The operator's scripts on the way of an order. Each ends with its order: whoever takes the order's place kills it.

use matriarch_core::op::Refusal;
use matriarch_core::view::postgres::Process;
use tokio::time::timeout;

use super::{Allowance, Postgres};
use crate::hooks::Script;

/// Asks whether this standby may be promoted.
///
/// The script is killed when the promise ends that the promotion is ordered under: whatever it does, moving an address
/// for example, it must not go on doing beside the next leader. While the tenure is renewed it may take its time; core
/// gives a promotion up that takes too long, and a stop or another order ends the script.
///
/// # Errors
/// `Vetoed`: it said no, or could not be asked. `NotOurTenure`: the promise ended before it did.
pub(super) async fn pre_promote(postgres: &Postgres, allowance: &Allowance) -> Result<(), Refusal> {
    let settings = postgres.settings();
    let Some(command) = &settings.hooks.pre_promote else { return Ok(()) };
    allowance.check_writable()?;
    let script = Script::new("pre_promote", command).account(settings.run_as.clone());
    tokio::select! {
        biased;
        () = allowance.ended() => {
            tracing::warn!("pre_promote did not end before the tenure did: PostgreSQL is not promoted");
            Err(Refusal::NotOurTenure)
        }
        answer = script.run() => answer.map_err(Refusal::Vetoed),
    }
}

/// Has the operator's script run before a running server is asked to stop. Whatever comes of it, the server is asked
/// then, at the latest after `pg_ctl_timeout`.
pub(super) async fn before_stop(postgres: &Postgres) {
    let settings = postgres.settings();
    let Some(command) = &settings.hooks.before_stop else { return };
    if postgres.observe_process().await == Process::Absent {
        return;
    }
    let script = Script::new("before_stop", command).account(settings.run_as.clone());
    match timeout(settings.pg_ctl_timeout, script.run()).await {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::warn!("{why}; PostgreSQL is stopped all the same"),
        Err(_) => tracing::warn!(
            "before_stop did not end within pg_ctl_timeout, {} s: PostgreSQL is stopped",
            settings.pg_ctl_timeout.as_secs()
        ),
    }
}

//! Rung 3: halt beside data that is not this cluster's, or that cannot be used. Nothing is touched.

use alloc::string::ToString;

use super::{Fate, Verdict};
use crate::action::{Action, HostAction, PostgresAction};
use crate::reason::Reason;
use crate::view::View;
use crate::view::postgres::{DataDir, Process};

pub(super) fn decide(view: &View<'_>) -> Option<Verdict> {
    // Nothing is started, cloned or rewound beside a postmaster that was not looked for.
    if view.state.postgres.process == Process::Unknown {
        return Some(Verdict::wait(Reason::Observing));
    }
    // The race: a tool of ours writes the directory, and a look finds it before `pg_control` is whole, or while a
    // failed tool clears it away. Half-written by ourselves is neither foreign nor damaged; what it is stands when the
    // tool ends. A server that runs on it meanwhile is nothing of ours.
    let writing = matches!(
        view.controlling(),
        Some(PostgresAction::Initdb | PostgresAction::Clone(_) | PostgresAction::Restore | PostgresAction::Rewind(_))
    );
    if writing && view.phase().is_none() {
        return None;
    }
    let reason = match &view.state.postgres.data {
        DataDir::Unknown => return Some(Verdict::wait(Reason::Observing)),
        // A removal is not done in one moment: what is left of our own data is no other cluster's.
        DataDir::Foreign(_) if view.state.memory.owned => return Some(Verdict::wait(Reason::DataDirVanishing)),
        DataDir::Unreadable(why) | DataDir::Foreign(why) => Reason::DataDirUnusable { why: why.clone() },
        DataDir::Empty => return None,
        DataDir::Cluster(dir) => {
            let cluster = view.system_id().or_else(|| view.led_here())?;
            if cluster == dir.system_id {
                return None;
            }
            let reason = Reason::SystemIdMismatch { ours: dir.system_id, cluster };
            // What this agent knew the next one would not: without the key nothing would keep that from leading with these.
            // And an order that is on its way when the agent leaves may not arrive.
            let alone_knows = view.cluster()?.system_id().is_none();
            if alone_knows || view.armed_for_nobody() && view.foreign() {
                return Some(Verdict::wait(reason).fate(Fate::LetLapse));
            }
            reason
        }
    };
    let exit = Action::Host(HostAction::Exit { code: 1, message: reason.to_string() });
    Some(Verdict::order(reason, exit).fate(Fate::LetLapse))
}

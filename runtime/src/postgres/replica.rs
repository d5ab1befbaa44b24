//! Making a replica: by the operator's methods, one after the other, until one of them has made it.

use matriarch_core::event::PostgresDone;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{DataDir, Upstream};

use super::conf::Recovery;
use super::server::progress;
use super::{Postgres, locked, refused_or_done, workdir};
use crate::hooks::{Method, ReplicaMethod};

/// Makes the data directory a copy of `upstream`, or of whatever a method has that needs nobody. What is in the
/// directory goes first; core has decided that it may.
pub(super) async fn create(postgres: &Postgres, upstream: Option<&Upstream>) -> Outcome<PostgresDone> {
    if let Some(why) = postgres.port_taken().await {
        return Outcome::Refused(Refusal::Failed(why));
    }
    if upstream.is_none() && postgres.observe_data().await != DataDir::Empty {
        return Outcome::Refused(Refusal::Failed("the data directory is kept: nobody is there to copy from".into()));
    }
    let settings = postgres.settings();
    let methods = match &settings.hooks.replica_methods[..] {
        [] => &[ReplicaMethod::Basebackup][..],
        methods => methods,
    };
    let mut failures = Vec::new();
    for method in methods.iter().filter(|method| upstream.is_some() || method.needs_nobody()) {
        match by(postgres, method, upstream).await {
            Outcome::Refused(Refusal::Failed(why)) => {
                tracing::warn!("the replica method {} failed: {why}", method.name());
                failures.push(why);
            }
            ended => return ended.map(|()| PostgresDone::Done),
        }
    }
    Outcome::Refused(Refusal::Failed(failures.join("; ")))
}

async fn by(postgres: &Postgres, method: &ReplicaMethod, upstream: Option<&Upstream>) -> Outcome<()> {
    let keep_data = matches!(method, ReplicaMethod::Script { keep_data: true, .. });
    if postgres.observe_data().await != DataDir::Empty {
        // What is here may be the last copy: it is touched only while the one to be copied answers as the same cluster.
        // Asked for each method anew: the one before may have tried for hours.
        if let Some(upstream) = upstream
            && let Err(why) = postgres.is_served_by(upstream).await
        {
            return Outcome::Refused(Refusal::Failed(format!("the data directory is kept: {why}")));
        }
        if !keep_data {
            match postgres.wipe_data_dir("it is cloned again").await {
                Outcome::Done(()) => {}
                other => return other,
            }
        }
    }
    match (method, upstream) {
        (ReplicaMethod::Script { script, .. }, _) => by_script(postgres, script, keep_data, upstream).await,
        (ReplicaMethod::Basebackup, Some(upstream)) => postgres.clone_from(upstream, &progress).await,
        (ReplicaMethod::Basebackup, None) => {
            Outcome::Refused(Refusal::Failed("pg_basebackup needs somebody to copy from".into()))
        }
    }
}

async fn by_script(postgres: &Postgres, method: &Method, keep_data: bool, upstream: Option<&Upstream>) -> Outcome<()> {
    let made = workdir::by_method(&postgres.settings(), &postgres.changes, method, keep_data, upstream).await;
    refused_or_done(made.map(|()| *locked(&postgres.recovery) = Recovery::Standby(upstream.cloned())))
}

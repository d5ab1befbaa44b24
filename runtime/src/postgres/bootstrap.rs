//! The birth of a cluster beyond `initdb`: a script of the operator makes its directory, PostgreSQL recovers from what is
//! there, and another script has the last word.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use matriarch_core::id::Member;
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::view::postgres::{StopMode, Upstream};

use super::conf::{self, Recovery};
use super::server::progress;
use super::settings::{LocalConnection, Settings};
use super::{
    BOOTSTRAP_DEADLINE, Postgres, files, leftovers, locked, refused_or_done, roles, sql, sql_outcome, wipe, workdir,
};
use crate::hooks::{BootstrapMethod, CommandLine, Script};

/// How long what is born and failed may take to stop.
const STOP_LIMIT: Duration = Duration::from_mins(1);
/// What PostgreSQL reads as "recover first".
const RECOVERY_SIGNAL: &str = "recovery.signal";

/// Makes the directory of a new cluster.
pub(super) async fn make(postgres: &Postgres) -> Outcome<()> {
    let settings = postgres.settings();
    let Some(method) = &settings.hooks.bootstrap else { return postgres.initdb(&progress).await };
    let made = workdir::bootstrap(&settings, &postgres.changes, method).await;
    refused_or_done(made.map(|()| *locked(&postgres.recovery) = Recovery::Primary))
}

/// After the script: what it has left for PostgreSQL's start is put away, or is what is to be used.
pub(super) fn prepare(settings: &Settings, method: &BootstrapMethod) -> Result<(), String> {
    let data_dir = &settings.data_dir;
    let [standby, recovery, promote] = ["standby.signal", RECOVERY_SIGNAL, "promote"].map(|name| data_dir.join(name));
    let recovers = method.recovery_conf.is_some()
        || (method.keep_existing_recovery_conf && (standby.exists() || recovery.exists()));
    let removed = |path: &Path| files::remove(path).map_err(|e| format!("{}: {e}", path.display()));
    removed(&promote)?;
    // It is to become a primary once it has recovered.
    removed(&standby)?;
    if !recovers {
        return removed(&recovery);
    }
    let mode = Some(files::file_mode(data_dir));
    files::write(&recovery, b"", mode, settings.run_as.as_ref()).map_err(|e| format!("{}: {e}", recovery.display()))
}

/// What a newborn that was made by the operator's method is started with as primary, and what it recovers by; `None`: it
/// is started as any other.
///
/// Its roles may have other passwords than are configured here, so that we are let in without until they are set. Until it
/// has recovered it lets nobody in: a look before it is where it is to be would have it promoted there.
pub(super) fn first_start(settings: &Arc<Settings>, recovery: &Recovery) -> Option<(Arc<Settings>, Recovery)> {
    settings.hooks.bootstrap.as_ref()?;
    if *recovery != Recovery::Primary || !files::is_newborn(&settings.data_dir) {
        return None;
    }
    let mut first = Settings::clone(settings);
    if !first.pg_hba.is_empty() {
        let user = first.superuser.user.replace('"', "\"\"");
        let trusted = [format!("local all \"{user}\" trust"), format!("host all \"{user}\" samehost trust")];
        first.pg_hba.splice(0..0, trusted);
    }
    if !settings.data_dir.join(RECOVERY_SIGNAL).exists() {
        return Some((Arc::new(first), Recovery::Primary));
    }
    first.command_line.retain(|(name, _)| name != "hot_standby");
    // Whatever the settings say: nobody could end a pause.
    for (name, value) in [("hot_standby", "off"), ("recovery_target_action", "promote")] {
        first.command_line.push((name.to_owned(), value.to_owned()));
    }
    Some((Arc::new(first), Recovery::Bootstrap))
}

/// Ends the bootstrap of the cluster that runs: its roles, and the operator's last word. On anything but a newborn the
/// roles are all. Can be repeated.
///
/// A newborn that the operator's script does not accept is given up: its directory is moved aside, as Patroni does. It was
/// never a cluster of anybody: the mark is gone before the bootstrap has ended.
pub(super) async fn finish(postgres: &Postgres) -> Outcome<()> {
    let settings = postgres.settings();
    let born = Arc::clone(&settings);
    if !crate::aside::look(move || files::is_newborn(&born.data_dir)).await {
        return postgres.post_bootstrap().await;
    }
    let superuser = sql::alone(&settings, &roles::superuser(&settings), BOOTSTRAP_DEADLINE).await;
    if superuser.is_err() {
        return sql_outcome(superuser);
    }
    let served = postgres.observe_process().await;
    if let Some(command) = &settings.hooks.post_bootstrap
        && let Err(why) = last_word(postgres, &settings, command).await
    {
        // The race: a fence, or a crash, took the server away beneath the script. That is not the operator's no.
        if postgres.observe_process().await != served {
            return Outcome::Refused(Refusal::Failed(format!(
                "{why}; PostgreSQL had ended meanwhile: it is asked again"
            )));
        }
        tracing::error!("{why}: the new cluster is given up");
        return give_up(postgres, &settings, why).await;
    }
    match postgres.post_bootstrap().await {
        Outcome::Done(()) => {}
        other => return other,
    }
    let born = Arc::clone(&settings);
    let grown = postgres.changes.make(move || files::remove(&born.data_dir.join(files::NEWBORN))).await;
    if let Err(error) = grown {
        return Outcome::Refused(Refusal::Failed(format!("{}: {error}", files::NEWBORN)));
    }
    if settings.hooks.bootstrap.is_none() {
        return Outcome::Done(());
    }
    postgres.reload_configuration().await.map(|_| ())
}

async fn last_word(postgres: &Postgres, settings: &Arc<Settings>, command: &CommandLine) -> Result<(), String> {
    let host = match &settings.local {
        LocalConnection::Socket(directory) => directory.display().to_string(),
        LocalConnection::Host(host) => host.clone(),
    };
    let here = Upstream { member: Member::new(&settings.member), host, port: settings.port };
    let connstring = conf::conninfo(settings, &settings.superuser, &here, &[("dbname", &settings.database)]);
    let written = Arc::clone(settings);
    postgres.changes.make(move || conf::write_pgpass(&written, &here.host, here.port)).await?;
    let script = Script::new("post_bootstrap", command).args([connstring]).account(settings.run_as.clone());
    let script = script.env("PGPASSFILE", &settings.pgpass);
    script.env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0").run().await
}

async fn give_up(postgres: &Postgres, settings: &Arc<Settings>, why: String) -> Outcome<()> {
    match postgres.stop(StopMode::Immediate, STOP_LIMIT).await {
        Outcome::Done(()) => {}
        other => return other,
    }
    let settings = Arc::clone(settings);
    let removed = move || {
        workdir::refuse_if_alive(&settings)?;
        leftovers::end(&settings.data_dir)?;
        // Another file system, or a mount point: it cannot be kept then.
        wipe::move_aside(&settings.data_dir).or_else(|_| wipe::wipe(&settings.data_dir))
    };
    match postgres.changes.make(removed).await {
        Ok(()) => Outcome::Refused(Refusal::Failed(why)),
        Err(also) => Outcome::Refused(Refusal::Failed(format!("{why}; {also}"))),
    }
}

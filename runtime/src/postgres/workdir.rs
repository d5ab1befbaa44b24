//! Work that makes or changes a whole data directory: initdb, clone, rewind, recovery without a postmaster. Each marks
//! the directory first, so that a half-done one is never taken for a whole one.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use matriarch_core::view::postgres::{Cluster, ControlState, DataDir, Process, Upstream};

use crate::clock;

use super::conf::{self, Recovery};
use super::inotify::Watch;
use super::settings::Settings;
use super::tools::{PasswordFile, Progress, Tool};
use super::{bootstrap, divergence, files, leftovers, proc, wipe};
use crate::aside::{Changes, look};
use crate::hooks::{BootstrapMethod, Method, Script};

/// Makes a new cluster.
///
/// # Errors
/// What was wrong and the way out. What was made of the directory is removed again then.
pub(super) async fn initdb(settings: &Arc<Settings>, changes: &Changes, progress: Progress<'_>) -> Result<(), String> {
    let password = changing(settings, changes, |settings| {
        make_room(settings)?;
        settings.superuser.password.as_ref().map(|p| PasswordFile::new(settings, &p.0)).transpose()
    });
    let password = password.await?;
    let mut tool = Tool::new(settings, "initdb").arg("-D").arg(&settings.data_dir).args(&settings.initdb_options);
    tool = tool.arg(format!("--username={}", settings.superuser.user));
    if let Some(password) = &password {
        tool = tool.arg("--pwfile").arg(password.path());
        if wants_scram(settings) {
            tool = tool.arg("--auth-host=scram-sha-256");
        }
    }
    if let Err(why) = marked(settings, changes, "initdb", tool.run(progress)).await {
        return undo(settings, changes, why).await;
    }
    changing(settings, changes, |settings| {
        drop(password);
        if settings.pg_hba.is_empty() && !settings.bootstrap_pg_hba.is_empty() {
            conf::append_hba(settings, &settings.bootstrap_pg_hba)?;
        }
        newborn(settings)?;
        untaint(settings)
    })
    .await
}

/// Makes a new cluster by a script of the operator.
///
/// # Errors
/// What was wrong. What was made of the directory is removed again then.
pub(super) async fn bootstrap(
    settings: &Arc<Settings>,
    changes: &Changes,
    method: &BootstrapMethod,
) -> Result<(), String> {
    changing(settings, changes, make_room).await?;
    let data_dir = settings.data_dir.to_string_lossy();
    let ours = [("scope", settings.scope.as_str()), ("datadir", &data_dir)];
    let name = &method.script.name;
    let script = Script::new(name, &method.script.command).args(method.script.arguments(&ours));
    let (variable, value) = leftovers::mark(&settings.data_dir);
    let script = script.env(variable, value).account(settings.run_as.clone());
    let made = match marked(settings, changes, &format!("made by {name}"), script.run()).await {
        Ok(()) => changing(settings, changes, made_a_cluster).await,
        failed => failed,
    };
    if let Err(why) = made {
        return undo(settings, changes, why).await;
    }
    let method = method.clone();
    changing(settings, changes, move |settings| {
        bootstrap::prepare(settings, &method)?;
        newborn(settings)?;
        untaint(settings)
    })
    .await
}

fn newborn(settings: &Settings) -> Result<(), String> {
    let path = settings.data_dir.join(files::NEWBORN);
    let mode = Some(files::file_mode(&settings.data_dir));
    files::write(&path, b"", mode, settings.run_as.as_ref()).map_err(|e| format!("{}: {e}", path.display()))
}

/// PostgreSQL 13 hashes the superuser's password by MD5 unless it is told to ask for SCRAM, and a `pg_hba` that asks
/// for SCRAM then lets nobody in, us neither. What else the option does is in the `pg_hba.conf` that ours replaces.
fn wants_scram(settings: &Settings) -> bool {
    let told = settings.initdb_options.iter().any(|o| o.starts_with("--auth") || o.starts_with("-A"));
    !told && settings.pg_hba.iter().any(|line| line.contains("scram-sha-256"))
}

/// Makes a copy of `upstream` by `pg_basebackup`.
///
/// # Errors
/// What was wrong and the way out. What was made of the directory is removed again then.
pub(super) async fn clone(
    settings: &Arc<Settings>,
    changes: &Changes,
    upstream: &Upstream,
    progress: Progress<'_>,
) -> Result<(), String> {
    let source = upstream.clone();
    changing(settings, changes, move |settings| {
        make_room(settings)?;
        conf::write_pgpass(settings, &source.host, source.port)
    })
    .await?;
    let dsn = conf::tool_conninfo(settings, &settings.replication, upstream, &[]);
    let mut tool = Tool::new(settings, "pg_basebackup").arg("--pgdata").arg(&settings.data_dir);
    tool = tool.args(["-X", "stream", "--no-password"]).arg(format!("--dbname={dsn}"));
    // A clone that waits for a spread checkpoint waits for minutes; whoever wants that says so.
    if !settings.basebackup_options.iter().any(|o| o.starts_with("--checkpoint") || o.starts_with("-c")) {
        tool = tool.arg("--checkpoint=fast");
    }
    tool = tool.args(&settings.basebackup_options);
    let why = format!("clone of {} ({}:{})", upstream.member, upstream.host, upstream.port);
    if let Err(why) = marked(settings, changes, &why, tool.run(progress)).await {
        return undo(settings, changes, why).await;
    }
    changing(settings, changes, untaint).await
}

/// Makes a copy by a script of the operator: of `upstream`, or of a backup. With `keep_data` it finds what is there.
///
/// # Errors
/// What was wrong. What was made of the directory is removed again then; with `keep_data` it stays, and is marked.
pub(super) async fn by_method(
    settings: &Arc<Settings>,
    changes: &Changes,
    method: &Method,
    keep_data: bool,
    upstream: Option<&Upstream>,
) -> Result<(), String> {
    let why = format!("made by {}", method.name);
    let (source, mark) = (upstream.cloned(), why.clone());
    changing(settings, changes, move |settings| {
        if keep_data {
            make_ready(settings, &mark)?;
        } else {
            make_room(settings)?;
        }
        source.map_or(Ok(()), |source| conf::write_pgpass(settings, &source.host, source.port))
    })
    .await?;
    let database = [("dbname", settings.database.as_str())];
    let dsn = upstream.map(|upstream| conf::conninfo(settings, &settings.replication, upstream, &database));
    let data_dir = settings.data_dir.to_string_lossy();
    let ours = [
        ("scope", settings.scope.as_str()),
        ("role", "replica"),
        ("datadir", &data_dir),
        ("connstring", dsn.as_deref().unwrap_or_default()),
    ];
    let script = Script::new(&method.name, &method.command).args(method.arguments(&ours));
    let (variable, value) = leftovers::mark(&settings.data_dir);
    let script = script.env(variable, value).env("PGPASSFILE", &settings.pgpass).account(settings.run_as.clone());
    let made = match marked(settings, changes, &why, script.run()).await {
        Ok(()) => changing(settings, changes, made_a_cluster).await,
        failed => failed,
    };
    match made {
        Ok(()) => changing(settings, changes, untaint).await,
        Err(why) if keep_data => Err(why),
        Err(why) => undo(settings, changes, why).await,
    }
}

/// As [`make_room`], with what is there. Marked: whatever becomes of it, it is not what it was.
fn make_ready(settings: &Settings, why: &str) -> Result<(), String> {
    refuse_if_alive(settings)?;
    let (data_dir, account) = (&settings.data_dir, settings.run_as.as_ref());
    leftovers::end(data_dir)?;
    files::make_dir(data_dir, 0o700, account).map_err(|e| format!("{} cannot be made: {e}", data_dir.display()))?;
    mark(settings, why).map_err(|e| format!("{} cannot be marked as half-done: {e}", data_dir.display()))
}

/// Whether a script that says so has made a database cluster.
fn made_a_cluster(settings: &Settings) -> Result<(), String> {
    let shown = settings.data_dir.display();
    match files::observe(&settings.data_dir, settings.run_as.as_ref()) {
        DataDir::Cluster(_) => Ok(()),
        DataDir::Unreadable(why) | DataDir::Foreign(why) => Err(why),
        DataDir::Empty | DataDir::Unknown => Err(format!("it has ended, and {shown} holds no cluster")),
    }
}

/// Rewinds the stopped directory, after recovery where it was not shut down cleanly, to where its history and that of
/// `upstream` part, and makes it a standby of it. Whether `upstream` has made a checkpoint since its promotion is the
/// caller's to have waited for.
///
/// # Errors
/// What was wrong. Once `pg_rewind` has begun to write, the directory stays marked and must be cloned anew.
pub(super) async fn rewind(
    settings: &Arc<Settings>,
    changes: &Changes,
    upstream: &Upstream,
    progress: Progress<'_>,
) -> Result<(), String> {
    let standby = Recovery::Standby(Some(upstream.clone()));
    let wanted = standby.clone();
    let cluster = changing(settings, changes, move |settings| {
        let cluster = rewindable(settings)?;
        // Before as well, for the restore_command that pg_rewind reads from it; after, since pg_rewind copies the
        // other's.
        conf::write_all(settings, cluster.major_version, &wanted)?;
        Ok(cluster)
    });
    let cluster = cluster.await?;
    if !matches!(cluster.state, ControlState::ShutDown | ControlState::ShutDownInRecovery) {
        crash_recover(settings, changes, progress).await?;
    }
    divergence::must_be_found_by_pg_rewind(settings, upstream).await?;
    let why = format!("rewind to {} ({}:{})", upstream.member, upstream.host, upstream.port);
    let tool = rewind_tool(settings, upstream, cluster.major_version);
    let mark = why.clone();
    changing(settings, changes, move |settings| {
        files::taint(&settings.data_dir, &mark, settings.run_as.as_ref()).map_err(|e| e.to_string())
    })
    .await?;
    // With --progress pg_rewind says how much it will copy, and only then begins to change the directory.
    let begun = AtomicBool::new(false);
    let watched = |line: &str| {
        begun.fetch_or(line.contains("need to copy"), Ordering::Relaxed);
        progress(line);
    };
    if let Err(said) = marked(settings, changes, &why, tool.run(&watched)).await {
        if !begun.load(Ordering::Relaxed) {
            changing(settings, changes, untaint).await?;
        }
        return Err(said);
    }
    changing(settings, changes, move |settings| {
        conf::write_all(settings, cluster.major_version, &standby)?;
        conf::write_signal(settings, true)?;
        untaint(settings)
    })
    .await
}

/// The stopped cluster in the directory, if it can be rewound.
fn rewindable(settings: &Settings) -> Result<Cluster, String> {
    let DataDir::Cluster(cluster) = files::observe(&settings.data_dir, settings.run_as.as_ref()) else {
        return Err(format!("{} holds no cluster to rewind", settings.data_dir.display()));
    };
    refuse_if_alive(settings)?;
    if let Some(why) = cluster.tainted {
        return Err(format!("{} is half-done ({why}): clone it anew", settings.data_dir.display()));
    }
    if !cluster.rewindable {
        return Err("pg_rewind needs data checksums or wal_log_hints=on from before the divergence: clone anew".into());
    }
    files::check_startable(&settings.data_dir, settings.run_as.as_ref())?;
    Ok(cluster)
}

fn rewind_tool<'a>(settings: &'a Settings, upstream: &Upstream, major: u32) -> Tool<'a> {
    let attributes = [("dbname", settings.database.as_str()), ("target_session_attrs", "read-write")];
    let dsn = conf::tool_conninfo(settings, settings.rewind_credential(), upstream, &attributes);
    let mut tool = Tool::new(settings, "pg_rewind").arg("-D").arg(&settings.data_dir);
    tool = tool.arg("--source-server").arg(dsn).arg("--progress");
    let elsewhere = settings.config_dir != settings.data_dir;
    if settings.recovery_conf.get("restore_command").is_some_and(|c| !c.is_empty()) && (major >= 15 || !elsewhere) {
        tool = tool.arg("--restore-target-wal");
    }
    // Also for the recovery that pg_rewind itself runs on a directory that was not shut down cleanly.
    if major >= 15 {
        tool = tool.arg(format!("--config-file={}", settings.main_conf().display()));
    }
    tool.args(&settings.rewind_options)
}

/// Lets a directory that was not shut down cleanly recover, in single-user mode: nobody can connect, nothing is
/// archived.
///
/// # Errors
/// What was wrong and the way out.
pub(super) async fn crash_recover(
    settings: &Arc<Settings>,
    changes: &Changes,
    progress: Progress<'_>,
) -> Result<(), String> {
    let standby = changing(settings, changes, |settings| {
        refuse_if_alive(settings)?;
        files::check_startable(&settings.data_dir, settings.run_as.as_ref())?;
        // What is in the files may be what the server was stopped by, or what an operator has corrected since. Whom it
        // follows is no matter here, and is written again before it is started.
        let major = files::major_version(&settings.data_dir).unwrap_or(0);
        conf::write_all(settings, major, &Recovery::Primary)?;
        // Single-user mode refuses a standby's directory; a standby it remains all the same.
        let standby = settings.data_dir.join("standby.signal").exists();
        conf::write_signal(settings, false)?;
        Ok(standby)
    });
    let standby = standby.await?;
    let mut tool = Tool::new(settings, "postgres").arg("--single").arg("-D").arg(&settings.data_dir);
    tool = tool.arg("-c").arg(format!("config_file={}", settings.main_conf().display()));
    for (name, value) in &settings.command_line {
        tool = tool.arg("-c").arg(format!("{name}={value}"));
    }
    for option in ["archive_mode=on", "archive_command=false"] {
        tool = tool.arg("-c").arg(option);
    }
    let recovered = tool.arg("template1").run(progress).await;
    changing(settings, changes, move |settings| conf::write_signal(settings, standby)).await?;
    recovered.map(|_| ())
}

/// Changes files of these settings, in its turn.
async fn changing<T: Send + 'static>(
    settings: &Arc<Settings>,
    changes: &Changes,
    change: impl FnOnce(&Settings) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let settings = Arc::clone(settings);
    changes.make(move || change(&settings)).await
}

fn untaint(settings: &Settings) -> Result<(), String> {
    files::untaint(&settings.data_dir).map_err(|e| e.to_string())
}

/// Killed processes take a moment to leave: at most this long is waited for them.
const LEAVE_LIMIT: Duration = Duration::from_millis(500);

/// Waits until the processes of a dead postmaster are gone, for a moment only.
pub(super) async fn wait_for_orphans(settings: &Arc<Settings>) {
    let begun = clock::now();
    loop {
        let seen = Arc::clone(settings);
        let is_clear = look(move || proc::orphans(&seen.data_dir).is_ok_and(|orphans| orphans.is_empty())).await;
        if is_clear || clock::now().since(begun) >= LEAVE_LIMIT {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Nothing is done to a directory in which something may still write.
pub(super) fn refuse_if_alive(settings: &Settings) -> Result<(), String> {
    let shown = settings.data_dir.display();
    if let Process::Alive { pid, .. } = proc::observe(&settings.data_dir) {
        return Err(format!("PostgreSQL (pid {pid}) runs in {shown}: stop it first"));
    }
    let orphans = proc::orphans(&settings.data_dir)
        .map_err(|error| format!("processes that work in {shown} cannot be looked for: /proc: {error}"))?;
    if orphans.is_empty() {
        Ok(())
    } else {
        Err(format!("processes {orphans:?} of a dead postmaster still work in {shown}: end them first"))
    }
}

fn make_room(settings: &Settings) -> Result<(), String> {
    refuse_if_alive(settings)?;
    let data_dir = &settings.data_dir;
    leftovers::end(data_dir)?;
    let account = settings.run_as.as_ref();
    match files::observe(data_dir, account) {
        DataDir::Unreadable(why) | DataDir::Foreign(why) => return Err(why),
        DataDir::Cluster(cluster) => {
            let (shown, id) = (data_dir.display(), cluster.system_id);
            return Err(format!("{shown} holds a cluster already (system identifier {id}): remove it first"));
        }
        DataDir::Empty | DataDir::Unknown => {}
    }
    // What is left of an unfinished clone reads as empty; the tools want it empty in fact.
    if data_dir.join(files::TAINT).exists() {
        wipe::wipe(data_dir)?;
    }
    files::make_dir(data_dir, 0o700, account)
        .map_err(|e| format!("{} cannot be made: {e}; make it for the account of PostgreSQL", data_dir.display()))?;
    // From here on whatever is in it is the tool's, and may go with it.
    files::clear_leftovers(data_dir)
        .map_err(|e| format!("{} is not empty: {e}; empty it or correct postgresql.data_dir", data_dir.display()))
}

/// What the tools say when they have found something in the directory, before they touch it.
const NOT_EMPTY: &str = "exists but is not empty";

/// Empties the directory after a failure; always the failure. [`make_room`] has found it empty or missing, so what is
/// in it is what the tool made; unless the tool itself says that it came too late for that.
async fn undo<T>(settings: &Arc<Settings>, changes: &Changes, why: String) -> Result<T, String> {
    if why.contains(NOT_EMPTY) {
        return Err(why);
    }
    match changing(settings, changes, |settings| wipe::wipe(&settings.data_dir)).await {
        Ok(()) => Err(why),
        Err(also) => Err(format!("{why}\n{also}")),
    }
}

/// Keeps the mark in the directory while `work` goes on. The tools insist on an empty directory at their start, and
/// `pg_rewind` removes what its source does not have: so the mark is made as soon as anything is there, and again.
async fn marked<T>(settings: &Arc<Settings>, changes: &Changes, why: &str, work: impl Future<Output = T>) -> T {
    let watched = Arc::clone(settings);
    let watch = look(move || Watch::new().and(&watched.data_dir)).await;
    let mut work = pin!(work);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            () = watch.changed() => {
                let (marked, why) = (Arc::clone(settings), why.to_owned());
                // On a full disk it fails for every file that the tool makes.
                if let Err(error) = changes.make(move || mark(&marked, &why)).await && !told {
                    told = true;
                    tracing::warn!(%error, "the data directory cannot be marked as half-done");
                }
            }
        }
    }
}

fn mark(settings: &Settings, why: &str) -> io::Result<()> {
    let data_dir = &settings.data_dir;
    if data_dir.join(files::TAINT).exists() || files::is_empty(data_dir).unwrap_or(true) {
        return Ok(());
    }
    files::taint(data_dir, why, settings.run_as.as_ref())
}

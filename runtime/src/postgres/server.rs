//! PostgreSQL as the agent's loop knows it, and core's orders as what [`Postgres`] does.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::id::{Pid, Timeline};
use matriarch_core::op::{Outcome, Refusal};
use matriarch_core::time::Seen;
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{DataDir, Process, Sql, StopMode};
use tokio::sync::mpsc;

use super::{Allowance, Changed, Divergence, Followed, Postgres, Settings, SqlFailure, bootstrap, hooks, replica};

/// How long a tool or a server may keep a stop waiting before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3600);
/// How long a checkpoint before a stop may take: it only makes the stop shorter.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(300);
/// How long the WAL receiver may take to end.
const FREEZE_DEADLINE: Duration = Duration::from_millis(500);

/// A postmaster that is watched.
pub struct Watched {
    /// When it was started, in ticks since the host's start: tells it from a later process of its number.
    pub start_ticks: u64,
    /// Returns when it has ended; at once if there is none.
    pub ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// The PostgreSQL of a node, as far as the agent's loop needs it: what is seen of it, and core's orders on it. The real
/// one ([`Postgres`]), or that of a simulated node.
#[tonic::async_trait]
pub trait Server: Send + Sync {
    /// Looks for the postmaster.
    async fn observe_postmaster(&self) -> Process;
    /// Looks at the data directory.
    async fn observe_data(&self) -> DataDir;
    /// The history of `timeline`.
    async fn history(&self, timeline: Timeline) -> History;
    /// Asks the running server the monitoring query.
    ///
    /// # Errors
    /// It does not answer, or not as expected.
    async fn observe_sql(&self, deadline: Duration) -> Result<Seen<Sql>, SqlFailure>;
    /// Carries out an order; what it makes writable, under `allowance`. Dropping the future cancels it: its tool is
    /// killed, a server that was started or signalled stays so.
    async fn carry_out(&self, action: PostgresAction, allowance: &Allowance) -> Outcome<PostgresDone>;
    /// Watches a postmaster.
    fn watch(&self, pid: Pid) -> Watched;
    /// Hints that files changed, until the receiver is dropped.
    fn watch_files(&self) -> mpsc::Receiver<Changed>;
    /// Takes other settings, for the next start or reload.
    fn apply_settings(&self, settings: Settings);
    /// The next reload is asked for by an operator: scripts hear of it also where it changes nothing.
    fn tell_of_reload(&self);
    /// Keeps the dynamic configuration beside the data for the next agent, if they are whole. What does not get to the disk
    /// is missed only by a store that has lost it.
    async fn keep_configuration(&self, config: serde_json::Value);
    /// Has the server's program look at the parameters; what it would refuse, in words.
    async fn vet_parameters(&self) -> Vec<String>;
}

#[tonic::async_trait]
impl Server for Postgres {
    async fn observe_postmaster(&self) -> Process {
        self.observe_postmaster().await
    }

    async fn observe_data(&self) -> DataDir {
        self.observe_data().await
    }

    async fn history(&self, timeline: Timeline) -> History {
        self.history(timeline).await
    }

    async fn observe_sql(&self, deadline: Duration) -> Result<Seen<Sql>, SqlFailure> {
        self.observe_sql(deadline).await
    }

    async fn carry_out(&self, action: PostgresAction, allowance: &Allowance) -> Outcome<PostgresDone> {
        carry_out(self, action, allowance).await
    }

    fn watch(&self, pid: Pid) -> Watched {
        let start_ticks = crate::processes::Stat::read(pid.0).ok().flatten().map_or(0, |stat| stat.start_ticks);
        Watched { start_ticks, ended: Box::pin(self.watch_exit(pid)) }
    }

    fn watch_files(&self) -> mpsc::Receiver<Changed> {
        self.watch_files()
    }

    fn apply_settings(&self, settings: Settings) {
        self.apply_settings(settings);
    }

    fn tell_of_reload(&self) {
        self.tell_of_reload();
    }

    async fn keep_configuration(&self, config: serde_json::Value) {
        if let Err(error) = self.keep_configuration(config).await {
            tracing::warn!(%error, "the data directory does not take the dynamic configuration");
        }
    }

    async fn vet_parameters(&self) -> Vec<String> {
        self.vet_parameters().await
    }
}

/// A line of a tool, for the operator.
pub(super) fn progress(line: &str) {
    tracing::debug!(tool = line);
}

async fn carry_out(postgres: &Postgres, action: PostgresAction, allowance: &Allowance) -> Outcome<PostgresDone> {
    match action {
        PostgresAction::Observe | PostgresAction::Look => Outcome::Done(PostgresDone::Done),
        PostgresAction::Initdb => match postgres.port_taken().await {
            Some(why) => Outcome::Refused(Refusal::Failed(why)),
            None => done(bootstrap::make(postgres).await),
        },
        PostgresAction::CreateRoles => done(bootstrap::finish(postgres).await),
        PostgresAction::Clone(upstream) => replica::create(postgres, Some(&upstream)).await,
        PostgresAction::Restore => replica::create(postgres, None).await,
        PostgresAction::Start(how) => done(postgres.start(how, allowance).await),
        PostgresAction::Stop(mode) => {
            // What must end at once waits for no script.
            if mode == StopMode::Fast {
                hooks::before_stop(postgres).await;
            }
            done(postgres.stop(mode, STOP_LIMIT).await)
        }
        PostgresAction::Restart => {
            hooks::before_stop(postgres).await;
            done(postgres.restart(STOP_LIMIT, allowance).await)
        }
        PostgresAction::Promote { timeline } => match hooks::pre_promote(postgres, allowance).await {
            Ok(()) => postgres.promote(timeline, allowance).await.map(|_| PostgresDone::Done),
            Err(refusal) => Outcome::Refused(refusal),
        },
        PostgresAction::Follow(upstream) => postgres.follow(upstream.as_ref()).await.map(|followed| match followed {
            Followed::Done => PostgresDone::Done,
            Followed::NeedsRestart(parameter) => {
                tracing::info!(parameter, "PostgreSQL needs a restart for it");
                PostgresDone::NeedsRestart
            }
        }),
        PostgresAction::Freeze => done(postgres.freeze(FREEZE_DEADLINE).await),
        PostgresAction::Checkpoint => done(postgres.checkpoint(CHECKPOINT_DEADLINE).await),
        PostgresAction::Compare(upstream) => match postgres.divergence(&upstream).await {
            Divergence::None => Outcome::Done(PostgresDone::Compared(None)),
            Divergence::Diverged { at } => Outcome::Done(PostgresDone::Compared(Some(at))),
            Divergence::Unknown(why) => Outcome::Unknown(why),
        },
        PostgresAction::RecoverSingleUser => done(postgres.crash_recover(&progress).await),
        PostgresAction::Rewind(upstream) => done(postgres.rewind(&upstream, &progress).await),
        PostgresAction::Configure { generation } => {
            postgres.reload_configuration().await.map(|changed| PostgresDone::Configured { generation, changed })
        }
        PostgresAction::CreateSlot(name) => done(postgres.create_slot(&name).await),
        PostgresAction::DropSlot(name) => done(postgres.drop_slot(&name).await),
        PostgresAction::AdvanceSlot { slot, to } => done(postgres.advance_slot(&slot, to).await),
    }
}

fn done<T>(outcome: Outcome<T>) -> Outcome<PostgresDone> {
    outcome.map(|_| PostgresDone::Done)
}

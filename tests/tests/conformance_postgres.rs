//! The simulator's PostgreSQL against real servers: one script drives both, and what can be observed must be the same.
//! The orders are core's; the real servers carry them out by the runtime's PostgreSQL part.

#[path = "conformance_postgres/facts.rs"]
mod facts;
#[path = "conformance_postgres/model.rs"]
mod model;
#[path = "postgres/node.rs"]
#[expect(dead_code, reason = "what the tests of the PostgreSQL part alone need")]
mod node;
#[path = "conformance_postgres/real.rs"]
mod real;
#[path = "conformance_postgres/scripts.rs"]
mod scripts;

use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::{Cluster, Process, Sql, Upstream};

use facts::Script;
use model::ModelServers;
use real::RealServers;

/// The longest that anything takes that is to come true.
const LONG: Duration = Duration::from_secs(30);
/// How long a client waits for its commit.
const COMMIT_MAX: Duration = Duration::from_millis(700);

/// What befalls a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    /// SIGKILL to all of its processes.
    Kill,
    /// SIGKILL to its postmaster, beside a backend that goes on committing.
    Behead,
    /// SIGSTOP to all of its processes.
    Hold,
    /// SIGCONT.
    Resume,
    /// Replay is paused.
    PauseReplay,
    /// It goes on.
    ResumeReplay,
    /// What writes checkpoints is stopped.
    HoldCheckpoints,
}

/// Servers, and what a script can do to them. Each is a number; its name is a, b, c, ...
trait Servers {
    /// An order of core's. `None`: it has not ended within `limit`, and whoever ordered it waits no longer.
    async fn order(&mut self, server: usize, what: PostgresAction, limit: Duration) -> Option<Outcome<PostgresDone>>;
    /// Where a server is found by the others.
    fn upstream(&self, server: usize) -> Upstream;
    /// A client writes a row. Whether that was acknowledged within [`COMMIT_MAX`].
    async fn commit(&mut self, server: usize, row: u64) -> bool;
    /// Whether a row was acknowledged that had been waiting for an answer.
    async fn acknowledged_late(&mut self, row: u64) -> bool;
    /// Whether a backend of a dead postmaster has acknowledged a commit just now.
    async fn orphan_commits(&mut self, server: usize) -> bool;
    /// The rows that a server shows.
    async fn rows(&mut self, server: usize) -> Option<Vec<u64>>;
    /// What it answers to the monitoring query.
    async fn sql(&mut self, server: usize) -> Option<Sql>;
    /// What is in its directory.
    async fn cluster(&mut self, server: usize) -> Cluster;
    /// Its process.
    async fn process(&mut self, server: usize) -> Process;
    /// Something befalls it.
    async fn befalls(&mut self, server: usize, blow: Blow);
    /// Time passes.
    async fn pass(&mut self, time: Duration);
}

/// Runs a script on both; what it observed.
macro_rules! on_both {
    ($script:path) => {{
        let mut script = Script::new(ModelServers::new());
        $script(&mut script).await;
        let expected = script.told;
        let mut script = Script::new(RealServers::new());
        $script(&mut script).await;
        same(&script.told, &expected);
        script.told
    }};
}

#[track_caller]
fn same(real: &[String], model: &[String]) {
    let at = real.iter().zip(model).take_while(|(real, model)| real == model).count();
    let both = real[..at].join("\n");
    assert_eq!(real.get(at), model.get(at), "the real servers (left) are not as the model (right), after\n{both}");
}

#[track_caller]
fn told(told: &[String], what: &str) {
    assert!(told.iter().any(|line| line.contains(what)), "nothing was seen of: {what}\n{}", told.join("\n"));
}

#[tokio::test]
async fn a_clean_stop_hands_over_everything() {
    let seen = on_both!(scripts::handover);
    told(&seen, "b has received the checkpoint of the shutdown: true");
    told(&seen, "b begins its timeline there: true");
}

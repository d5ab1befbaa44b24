//! The simulator's PostgreSQL against real servers: one script drives both, and what can be observed must be the same.
//! The orders are core's; the real servers carry them out by the runtime's PostgreSQL part.

#[path = "conformance_postgres/chains.rs"]
mod chains;
#[path = "conformance_postgres/facts.rs"]
mod facts;
#[path = "conformance_postgres/model.rs"]
mod model;
#[path = "postgres/node.rs"]
#[expect(dead_code, reason = "what the tests of the PostgreSQL part alone need")]
mod node;
#[path = "conformance_postgres/orders.rs"]
mod orders;
#[path = "conformance_postgres/real.rs"]
mod real;
#[path = "conformance_postgres/scripts.rs"]
mod scripts;

use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::event::PostgresDone;
use matriarch_core::op::Outcome;
use matriarch_core::view::postgres::{Cluster, Process, Sql, Upstream};
use matriarch_tests::conformance::{same, told};

use facts::Script;
use model::ModelServers;
use real::RealServers;

/// The longest that anything takes that is to come true.
const LONG: Duration = Duration::from_secs(30);
/// How long a client waits for a commit at a server that is held.
const COMMIT_MAX: Duration = Duration::from_millis(700);

/// What befalls a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blow {
    /// SIGKILL to all of its processes.
    Kill,
    /// SIGKILL to its postmaster, beside a backend that goes on committing.
    Behead,
    /// SIGKILL to one backend.
    KillBackend,
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
    /// What it writes from here on goes into another file of WAL.
    NextWalFile,
    /// A server that is down has lost that file.
    LoseWalFile,
}

/// Servers, and what a script can do to them. Each is a number; its name is a, b, c, ...
trait Servers {
    /// An order of core's. `None`: it has not ended within `limit`, and whoever ordered it waits no longer.
    async fn order(&mut self, server: usize, what: PostgresAction, limit: Duration) -> Option<Outcome<PostgresDone>>;
    /// Where a server is found by the others.
    fn upstream(&self, server: usize) -> Upstream;
    /// A client writes a row. Whether that was acknowledged in time.
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
        same("the real servers", &script.told, &expected);
        script.told
    }};
}

#[tokio::test]
async fn a_clean_stop_hands_over_everything() {
    let seen = on_both!(scripts::handover);
    told(&seen, "b has replayed the checkpoint of the shutdown: true");
    told(&seen, "b begins its timeline there: true");
    told(&seen, "timeline 4 after [1]");
}

#[tokio::test]
async fn a_crash_keeps_what_was_written_and_a_fork_parts_histories() {
    let seen = on_both!(scripts::crash);
    told(&seen, "a compared with b: diverged");
    told(&seen, "a shows what it had and nothing new: Some([1, 2, 3])");
}

#[tokio::test]
async fn paused_replay_receives_and_ends_with_a_promotion() {
    let seen = on_both!(scripts::pauses);
    told(&seen, "b has not replayed it: true");
    told(&seen, "primary on timeline 2, slots {}\"), rows Some([1, 2, 3])");
}

#[tokio::test]
async fn backends_outlive_their_postmaster_and_commit() {
    let seen = on_both!(scripts::orphans);
    told(&seen, "a backend without a postmaster commits: true");
}

#[tokio::test]
async fn what_is_held_acknowledges_nothing_until_it_goes_on() {
    let seen = on_both!(scripts::holds);
    told(&seen, "a acknowledges row 2: false");
    told(&seen, "a acknowledges it after all: true");
    told(&seen, "a acknowledges it after all: false");
}

#[tokio::test]
async fn a_standby_keeps_what_it_had_and_needs_its_slot() {
    let seen = on_both!(scripts::standbys);
    told(&seen, "b has what it had: true");
}

#[tokio::test]
async fn a_standby_waits_for_wal_that_it_must_replay() {
    let seen = on_both!(scripts::waiting);
    told(&seen, "b starts behind nobody: not ended");
    told(&seen, "b: Starting, on disk InArchiveRecovery, standby.signal, timeline 1 after [], says None, rows None");
    told(&seen, "b streams: true");
}

#[tokio::test]
async fn before_its_first_checkpoint_a_promoted_server_is_no_source_of_a_rewind() {
    let seen = on_both!(scripts::unwritten_checkpoint);
    told(&seen, "the timeline of b's checkpoint: 1");
    told(&seen, "a compared with b: diverged");
}

#[tokio::test]
async fn two_timelines_of_one_number_look_alike_and_are_not() {
    let seen = on_both!(scripts::twins);
    told(&seen, "their histories are alike: true");
}

#[tokio::test]
async fn a_standby_sends_on_what_it_receives() {
    let seen = on_both!(chains::cascade);
    told(&seen, "c has replayed more than b: true");
}

#[tokio::test]
async fn a_standby_that_stops_waits_for_its_own() {
    let seen = on_both!(chains::cascaded_stop);
    told(&seen, "b Stop(Fast): not ended");
}

#[tokio::test]
async fn who_follows_a_promoted_standby_follows_it_onto_its_timeline() {
    let seen = on_both!(chains::cascaded_promotion);
    told(&seen, "c: Ready, on disk InArchiveRecovery, standby.signal, timeline 3 after [1]");
}

#[tokio::test]
async fn who_has_more_than_a_promoted_standby_follows_it_no_more() {
    let seen = on_both!(chains::lagging_promotion);
    told(&seen, "c compared with b: diverged");
}

#[tokio::test]
async fn a_copy_of_a_standby_needs_nobody_else() {
    let seen = on_both!(chains::copies);
    told(&seen, "c is cloned from b: done");
}

#[tokio::test]
async fn a_restart_brings_back_what_was() {
    let seen = on_both!(orders::restarts);
    told(&seen, "a Restart: done");
    told(&seen, "a Restart: unknown");
}

#[tokio::test]
async fn recovery_without_clients_leaves_a_clean_directory() {
    let seen = on_both!(orders::recoveries);
    told(&seen, "c RecoverSingleUser: done");
    told(&seen, "c: Absent, on disk ShutDown, standby.signal");
}

#[tokio::test]
async fn slots_are_moved_forwards() {
    let seen = on_both!(orders::slots);
    told(&seen, "it is moved forwards only: true");
}

#[tokio::test]
async fn slots_are_kept_as_the_last_checkpoint_knew_them() {
    let seen = on_both!(orders::kept_slots);
    told(&seen, "after a kill x is where it was before: true");
    told(&seen, "after a stop y is where it was moved to: true");
}

#[tokio::test]
async fn a_killed_backend_takes_all_others_with_it_and_no_postmaster() {
    let seen = on_both!(orders::killed_backend);
    told(&seen, "a has the postmaster that it had: true");
}

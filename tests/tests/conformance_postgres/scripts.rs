//! What is done to servers, and what is observed of them.

use std::time::Duration;

use matriarch_core::action::PostgresAction;
use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{StartAs, StopMode};

use crate::facts::{Script, streams};
use crate::{Blow, Servers};

pub(crate) const A: usize = 0;
pub(crate) const B: usize = 1;
pub(crate) const C: usize = 2;

/// Longer than a receiver waits before it tries again, twice.
pub(crate) const TRIES: Duration = Duration::from_millis(1500);

pub(crate) fn promote(timeline: u32) -> PostgresAction {
    PostgresAction::Promote { timeline: Timeline(timeline) }
}

pub(crate) async fn handover<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.commit(A).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.look(A).await;
    s.look(B).await;
    s.order(A, PostgresAction::Start(StartAs::Primary)).await;
    s.order(A, promote(2)).await;

    s.stop(A, StopMode::Fast).await;
    s.look(A).await;
    let shutdown = s.servers.cluster(A).await.checkpoint;
    s.until("b has replayed the checkpoint of the shutdown", B, |sql| sql.replayed > shutdown).await;
    let received = s.sql(B).await.received;
    s.order(B, promote(4)).await;
    s.look(B).await;
    let begun = s.servers.cluster(B).await.history.ancestors[0].end;
    s.note("b begins its timeline there", begun == received);
    s.commit(B).await;

    let upstream = s.servers.upstream(B);
    s.order(A, PostgresAction::Compare(upstream)).await;
    s.follows(A, B).await;
    s.level(A, B).await;
    s.look(A).await;
    s.look(B).await;
    s.order(A, promote(4)).await;
    s.look(A).await;
    s.stop(A, StopMode::Fast).await;
    s.look(A).await;
}

pub(crate) async fn crash<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.copy(C, A).await;
    s.commit(A).await;
    s.level(C, A).await;
    s.order(C, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.order(B, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.stop(A, StopMode::Immediate).await;
    s.look(A).await;
    s.order(A, PostgresAction::Start(StartAs::Primary)).await;
    s.look(A).await;
    s.befalls(A, Blow::Kill).await;
    s.look(A).await;

    s.order(B, promote(2)).await;
    s.commit(B).await;
    s.look(B).await;
    let upstream = s.servers.upstream(B);
    s.order(A, PostgresAction::Compare(upstream.clone())).await;
    // Behind the fork, and beyond it.
    s.order(B, PostgresAction::CreateSlot("c".into())).await;
    s.order(C, PostgresAction::Follow(Some(upstream.clone()))).await;
    s.level(C, B).await;
    s.look(C).await;
    s.starts_behind(A, B).await;
    s.servers.pass(TRIES).await;
    let shows = s.servers.rows(A).await;
    s.note("a shows what it had and nothing new", format!("{shows:?}"));
    s.stop(A, StopMode::Fast).await;

    s.order(B, PostgresAction::Checkpoint).await;
    s.order(A, PostgresAction::Rewind(upstream.clone())).await;
    s.look(A).await;
    // Its source runs: whatever it wrote on its own during the rewind has to come from there.
    s.order(A, PostgresAction::Start(StartAs::Standby(Some(upstream)))).await;
    s.until("a streams", A, streams).await;
    s.level(A, B).await;
    s.look(A).await;
    s.look(B).await;
}

pub(crate) async fn pauses<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.commit(A).await;
    s.copy(B, A).await;
    for promoted in [false, true] {
        s.befalls(B, Blow::PauseReplay).await;
        s.until("replay is paused", B, |sql| sql.replay_paused).await;
        s.commit(A).await;
        let end = s.sql(A).await.flushed;
        s.until("b has received it", B, |sql| sql.received >= end).await;
        s.servers.pass(TRIES).await;
        let sql = s.sql(B).await;
        s.note("b has not replayed it", sql.replayed < end);
        s.look(B).await;
        if promoted {
            s.order(B, promote(2)).await;
        } else {
            s.befalls(B, Blow::ResumeReplay).await;
            s.level(B, A).await;
        }
        s.look(B).await;
    }
}

pub(crate) async fn orphans<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.commit(A).await;
    s.befalls(A, Blow::Behead).await;
    s.look(A).await;
    let commits = s.servers.orphan_commits(A).await;
    s.note("a backend without a postmaster commits", commits);
    s.order(A, PostgresAction::Start(StartAs::Primary)).await;
    s.stop(A, StopMode::Fast).await;
    s.stop(A, StopMode::Immediate).await;
    let commits = s.servers.orphan_commits(A).await;
    s.note("it commits after it was killed", commits);
    s.order(A, PostgresAction::Start(StartAs::Primary)).await;
    s.commit(A).await;
    s.look(A).await;
}

pub(crate) async fn holds<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.level(B, A).await;
    for killed in [false, true] {
        s.befalls(A, Blow::Hold).await;
        let row = s.commit(A).await;
        let rows = s.servers.rows(B).await;
        s.note("b shows", format!("{rows:?}"));
        s.befalls(A, if killed { Blow::Kill } else { Blow::Resume }).await;
        let late = s.servers.acknowledged_late(row).await;
        s.note("a acknowledges it after all", late);
        if killed {
            s.order(A, PostgresAction::Start(StartAs::Primary)).await;
        }
        s.until("b streams", B, streams).await;
        s.level(B, A).await;
        s.look(A).await;
        s.look(B).await;
    }
}

pub(crate) async fn standbys<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.level(B, A).await;
    // Not what it has confirmed: that may end at a page's end, in the midst of a record whose rest never comes.
    let had = s.sql(B).await.replayed;
    s.befalls(B, Blow::Kill).await;
    s.look(B).await;
    let nobody = PostgresAction::Start(StartAs::Standby(None));
    s.order(B, nobody.clone()).await;
    s.until("b has what it had", B, |sql| sql.replayed >= had).await;
    s.look(B).await;
    s.stop(B, StopMode::Fast).await;
    s.look(B).await;

    // Its slot is dropped meanwhile.
    s.order(A, PostgresAction::DropSlot("b".into())).await;
    let upstream = s.servers.upstream(A);
    s.order(B, PostgresAction::Start(StartAs::Standby(Some(upstream.clone())))).await;
    s.commit(A).await;
    s.servers.pass(TRIES).await;
    s.look(B).await;
    s.order(A, PostgresAction::CreateSlot("b".into())).await;
    s.level(B, A).await;
    s.look(B).await;

    s.order(C, PostgresAction::Clone(upstream.clone())).await;
    s.stop(A, StopMode::Immediate).await;
    // A copy brings all that it needs.
    s.order(C, PostgresAction::Start(StartAs::Standby(Some(upstream.clone())))).await;
    s.look(C).await;
    s.order(C, PostgresAction::Rewind(upstream.clone())).await;
    s.stop(C, StopMode::Fast).await;
    s.order(C, PostgresAction::Rewind(upstream.clone())).await;
    s.order(B, PostgresAction::Compare(upstream)).await;
}

pub(crate) async fn waiting<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.befalls(A, Blow::NextWalFile).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.stop(B, StopMode::Fast).await;
    s.befalls(B, Blow::LoseWalFile).await;
    let upstream = s.servers.upstream(A);
    for stopped in [true, false] {
        s.order_within(2 * TRIES, B, PostgresAction::Start(StartAs::Standby(None))).await;
        s.look(B).await;
        s.order(B, PostgresAction::Compare(upstream.clone())).await;
        if stopped {
            s.stop(B, StopMode::Fast).await;
            s.look(B).await;
        }
    }
    s.order(B, PostgresAction::Follow(Some(upstream))).await;
    s.until("b streams", B, streams).await;
    s.level(B, A).await;
    s.look(B).await;
}

pub(crate) async fn unwritten_checkpoint<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.order(B, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.stop(A, StopMode::Fast).await;
    s.befalls(B, Blow::HoldCheckpoints).await;
    s.order(B, promote(2)).await;
    s.commit(B).await;
    let cluster = s.servers.cluster(B).await;
    s.note("the timeline of b's checkpoint", cluster.checkpoint_timeline);
    s.look(B).await;
    let upstream = s.servers.upstream(B);
    s.order(A, PostgresAction::Compare(upstream.clone())).await;
    s.order(A, PostgresAction::Rewind(upstream.clone())).await;
    s.starts_behind(A, B).await;
    s.servers.pass(TRIES).await;
    let shows = s.servers.rows(A).await;
    s.note("a shows what it had and nothing new", format!("{shows:?}"));
    s.stop(A, StopMode::Fast).await;
    s.stop(B, StopMode::Immediate).await;
}

pub(crate) async fn twins<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.copy(C, A).await;
    s.commit(A).await;
    s.stop(A, StopMode::Fast).await;
    let shutdown = s.servers.cluster(A).await.checkpoint;
    for server in [B, C] {
        s.until("it has replayed the checkpoint of the shutdown", server, |sql| sql.replayed > shutdown).await;
        s.order(server, promote(2)).await;
    }
    s.commit(C).await;
    s.stop(C, StopMode::Fast).await;
    for _ in 0..5 {
        s.commit(B).await;
        s.order(B, PostgresAction::Checkpoint).await;
    }
    let (one, other) = (s.servers.cluster(B).await.history, s.servers.cluster(C).await.history);
    s.note("their histories are alike", one == other);
    // Not compared: the model knows better than the agent can.
    s.starts_behind(C, B).await;
    s.servers.pass(TRIES).await;
    let shows = s.servers.rows(C).await;
    s.note("c shows what it had and nothing new", format!("{shows:?}"));
}

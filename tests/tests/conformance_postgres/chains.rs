//! Standbys of standbys: what streams from one, and what is copied from one.

use matriarch_core::action::PostgresAction;
use matriarch_core::view::postgres::{Process, StartAs, StopMode};

use crate::facts::{Script, name, streams};
use crate::scripts::{A, B, C, TRIES, promote};
use crate::{Blow, Servers};

/// A primary, a standby, and one that streams from that.
async fn chain<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.commit(A).await;
    s.copy(B, A).await;
    s.copy(C, B).await;
    s.commit(A).await;
    s.level(C, A).await;
}

/// Until a standby streams from this very server.
async fn sends<S: Servers>(s: &mut Script<S>, server: usize, to: usize) {
    let to = name(to).to_string();
    let what = format!("{} sends to {to}", name(server));
    s.until(what, server, |sql| sql.senders.iter().any(|sender| sender.application_name.as_str() == to)).await;
}

pub(crate) async fn cascade<S: Servers>(s: &mut Script<S>) {
    chain(s).await;
    for server in [A, B, C] {
        s.look(server).await;
    }
    // What is received is sent on, replayed or not.
    s.befalls(B, Blow::PauseReplay).await;
    s.until("replay is paused", B, |sql| sql.replay_paused).await;
    s.commit(A).await;
    s.level(C, A).await;
    let (first, last) = (s.sql(B).await.replayed, s.sql(C).await.replayed);
    s.note("c has replayed more than b", last > first);
    s.befalls(B, Blow::ResumeReplay).await;
    s.level(B, A).await;

    // One that has more than its source streams from it, and is sent nothing new.
    let (first, last) = (s.servers.upstream(A), s.servers.upstream(B));
    s.order(A, PostgresAction::CreateSlot("c".into())).await;
    s.order(C, PostgresAction::Follow(Some(first.clone()))).await;
    s.until("c streams", C, streams).await;
    s.order(B, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.level(C, A).await;
    s.order(C, PostgresAction::Follow(Some(last))).await;
    sends(s, B, C).await;
    let (first_has, last_has) = (s.sql(B).await.received, s.sql(C).await.received);
    s.note("c has more than b", last_has > first_has);
    s.order(B, PostgresAction::Follow(Some(first))).await;
    s.commit(A).await;
    s.level(C, A).await;
    s.look(C).await;

    // Its source dies, and comes back.
    s.befalls(B, Blow::Kill).await;
    s.commit(A).await;
    s.until("c streams no more", C, |sql| !streams(sql)).await;
    s.look(C).await;
    s.follows(B, A).await;
    s.until("c streams", C, streams).await;
    s.level(C, A).await;
    for server in [A, B, C] {
        s.look(server).await;
    }
}

pub(crate) async fn cascaded_stop<S: Servers>(s: &mut Script<S>) {
    chain(s).await;
    s.befalls(C, Blow::Hold).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.order_within(2 * TRIES, B, PostgresAction::Stop(StopMode::Fast)).await;
    s.look(B).await;
    s.befalls(C, Blow::Resume).await;
    for _ in 0..100 {
        if s.servers.process(B).await == Process::Absent {
            break;
        }
        s.servers.pass(TRIES / 10).await;
    }
    s.look(B).await;
    s.look(C).await;
    s.follows(B, A).await;
    s.until("c streams", C, streams).await;

    // One that has more than it can be sent keeps it as well, until it goes elsewhere.
    let (first, last) = (s.servers.upstream(A), s.servers.upstream(B));
    s.order(A, PostgresAction::CreateSlot("c".into())).await;
    s.order(C, PostgresAction::Follow(Some(first.clone()))).await;
    s.order(B, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.level(C, A).await;
    s.order(C, PostgresAction::Follow(Some(last))).await;
    sends(s, B, C).await;
    s.order_within(2 * TRIES, B, PostgresAction::Stop(StopMode::Fast)).await;
    s.look(B).await;
    s.order(C, PostgresAction::Follow(Some(first))).await;
    s.order(B, PostgresAction::Stop(StopMode::Fast)).await;
}

pub(crate) async fn cascaded_promotion<S: Servers>(s: &mut Script<S>) {
    chain(s).await;
    // The first one still runs.
    s.order(B, promote(3)).await;
    s.commit(B).await;
    s.level(C, B).await;
    s.until("c streams", C, streams).await;
    s.commit(A).await;
    for server in [A, B, C] {
        s.look(server).await;
    }
    // Nobody receives from it any more that it would have to wait for.
    s.stop(A, StopMode::Fast).await;
    s.order(C, promote(4)).await;
    s.commit(C).await;
    s.commit(B).await;
    s.stop(B, StopMode::Fast).await;
    s.look(B).await;
    s.look(C).await;
}

/// Its source has less than it, and is promoted.
pub(crate) async fn lagging_promotion<S: Servers>(s: &mut Script<S>) {
    chain(s).await;
    let (first, last) = (s.servers.upstream(A), s.servers.upstream(B));
    s.order(A, PostgresAction::CreateSlot("c".into())).await;
    s.order(C, PostgresAction::Follow(Some(first))).await;
    s.until("c streams", C, streams).await;
    s.order(B, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.level(C, A).await;
    s.order(C, PostgresAction::Follow(Some(last.clone()))).await;
    sends(s, B, C).await;
    s.order(B, promote(2)).await;
    for _ in 0..3 {
        s.commit(B).await;
    }
    s.servers.pass(TRIES).await;
    let shows = s.servers.rows(C).await;
    s.note("c shows what it had and nothing new", format!("{shows:?}"));
    s.order(C, PostgresAction::Compare(last)).await;
}

pub(crate) async fn copies<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.commit(A).await;
    s.copy(B, A).await;
    s.level(B, A).await;
    s.befalls(B, Blow::PauseReplay).await;
    s.until("replay is paused", B, |sql| sql.replay_paused).await;
    s.commit(A).await;
    let end = s.sql(A).await.flushed;
    s.until("b has received it", B, |sql| sql.received >= end).await;
    let (first, last) = (s.servers.upstream(A), s.servers.upstream(B));
    // A standby whose source is gone can be copied as well.
    s.stop(A, StopMode::Immediate).await;
    s.order(C, PostgresAction::Clone(first)).await;
    s.order(C, PostgresAction::Clone(last.clone())).await;
    s.look(C).await;
    s.stop(B, StopMode::Immediate).await;
    s.order(C, PostgresAction::Start(StartAs::Standby(None))).await;
    s.look(C).await;
    s.stop(C, StopMode::Fast).await;
    s.order(C, PostgresAction::Clone(last)).await;
    s.look(C).await;
}

//! Orders that are no part of a change of roles: restarts, recovery without clients, slots that are moved; and a backend
//! that is killed.

use matriarch_core::action::PostgresAction;
use matriarch_core::id::Lsn;
use matriarch_core::view::postgres::{StartAs, StopMode};

use crate::facts::{Script, name, streams};
use crate::scripts::{A, B, C, TRIES, promote};
use crate::{Blow, Servers};

/// Orders a restart, and looks whether another postmaster came of it.
async fn restart<S: Servers>(s: &mut Script<S>, server: usize) {
    let before = s.servers.process(server).await;
    s.order(server, PostgresAction::Restart).await;
    let same = s.servers.process(server).await == before;
    s.note(format!("{} has the postmaster that it had", name(server)), same);
}

pub(crate) async fn restarts<S: Servers>(s: &mut Script<S>) {
    restart(s, C).await;
    s.begin(A).await;
    s.commit(A).await;
    s.copy(B, A).await;
    restart(s, A).await;
    s.until("b streams", B, streams).await;
    s.commit(A).await;
    s.level(B, A).await;
    restart(s, B).await;
    s.until("b streams", B, streams).await;
    s.look(A).await;
    s.look(B).await;

    // Who was promoted stays a primary, and who was told to follow nobody follows nobody.
    s.copy(C, A).await;
    s.order(C, PostgresAction::Freeze).await;
    restart(s, C).await;
    s.servers.pass(TRIES).await;
    s.look(C).await;
    s.order(B, promote(2)).await;
    restart(s, B).await;
    s.commit(B).await;
    s.look(B).await;

    // Also what does not run.
    s.stop(A, StopMode::Fast).await;
    restart(s, A).await;
    s.commit(A).await;
    s.befalls(A, Blow::Kill).await;
    restart(s, A).await;
    s.look(A).await;
    s.stop(C, StopMode::Fast).await;
    restart(s, C).await;
    s.look(C).await;
    // What a dead postmaster left behind ends by no fast stop.
    s.befalls(A, Blow::Behead).await;
    restart(s, A).await;
    s.stop(A, StopMode::Immediate).await;
    s.look(A).await;
}

pub(crate) async fn recoveries<S: Servers>(s: &mut Script<S>) {
    s.order(C, PostgresAction::RecoverSingleUser).await;
    s.begin(A).await;
    s.copy(B, A).await;
    s.copy(C, A).await;
    s.commit(A).await;
    s.order(A, PostgresAction::RecoverSingleUser).await;
    s.befalls(A, Blow::Behead).await;
    s.order(A, PostgresAction::RecoverSingleUser).await;
    s.stop(A, StopMode::Immediate).await;
    s.order(A, PostgresAction::RecoverSingleUser).await;
    s.look(A).await;
    s.order(A, PostgresAction::Start(StartAs::Primary)).await;
    for server in [B, C] {
        s.until(format!("{} streams", name(server)), server, streams).await;
    }

    // Of a primary and of a standby that were beyond where the next one began.
    s.level(B, A).await;
    s.order(B, PostgresAction::Freeze).await;
    s.commit(A).await;
    s.level(C, A).await;
    for server in [A, C] {
        s.befalls(server, Blow::Kill).await;
    }
    s.order(B, promote(2)).await;
    s.order(B, PostgresAction::Checkpoint).await;
    s.commit(B).await;
    let upstream = s.servers.upstream(B);
    for server in [A, C] {
        s.look(server).await;
        s.order(server, PostgresAction::RecoverSingleUser).await;
        s.look(server).await;
        s.order(server, PostgresAction::Compare(upstream.clone())).await;
        s.order(server, PostgresAction::Rewind(upstream.clone())).await;
        s.look(server).await;
        s.follows(server, B).await;
        s.level(server, B).await;
        s.look(server).await;
    }
    // What was shut down is recovered again, and writes another checkpoint.
    s.stop(A, StopMode::Fast).await;
    s.look(A).await;
    s.order(A, PostgresAction::RecoverSingleUser).await;
    s.look(A).await;
}

/// Where a slot is.
async fn slot<S: Servers>(s: &mut Script<S>, server: usize, name: &str) -> Lsn {
    let sql = s.sql(server).await;
    sql.slots.iter().find(|slot| slot.name == name).map_or(Lsn(0), |slot| slot.restart)
}

fn advance(slot: &str, to: Lsn) -> PostgresAction {
    PostgresAction::AdvanceSlot { slot: slot.into(), to }
}

/// Beyond whatever a script writes.
const BEYOND: Lsn = Lsn(1 << 40);

pub(crate) async fn slots<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.order(A, PostgresAction::CreateSlot("x".into())).await;
    let created = slot(s, A, "x").await;
    s.commit(A).await;
    let end = s.sql(A).await.flushed;
    s.note("a slot begins before what is written", created < end);
    s.order(A, advance("x", end)).await;
    s.order(A, advance("x", created)).await;
    s.order(A, PostgresAction::CreateSlot("x".into())).await;
    let at = slot(s, A, "x").await;
    s.note("it is moved forwards only", at == end);
    s.commit(A).await;
    let end = s.sql(A).await.flushed;
    s.order(A, advance("x", BEYOND)).await;
    let (at, now) = (slot(s, A, "x").await, s.sql(A).await.flushed);
    s.note("and no further than a is", end <= at && at <= now);
    s.order(A, advance("y", end)).await;
    s.order(A, PostgresAction::DropSlot("y".into())).await;
    s.look(A).await;

    // Whoever streams moves its own.
    s.copy(B, A).await;
    s.level(B, A).await;
    s.befalls(B, Blow::Hold).await;
    s.commit(A).await;
    let (before, end) = (slot(s, A, "b").await, s.sql(A).await.flushed);
    s.order(A, advance("b", end)).await;
    let at = slot(s, A, "b").await;
    s.note("a slot that is in use is moved by nobody else", at == before && at < end);
    s.befalls(B, Blow::Resume).await;
    s.until("it goes along with b", A, |sql| sql.slots.iter().any(|slot| slot.name == "b" && slot.restart >= end))
        .await;

    // A standby has slots of its own.
    s.order(B, PostgresAction::CreateSlot("y".into())).await;
    s.befalls(B, Blow::PauseReplay).await;
    s.until("replay is paused", B, |sql| sql.replay_paused).await;
    s.commit(A).await;
    let end = s.sql(A).await.flushed;
    s.until("b has received it", B, |sql| sql.received >= end).await;
    s.order(B, advance("y", BEYOND)).await;
    let (at, replayed) = (slot(s, B, "y").await, s.sql(B).await.replayed);
    s.note("it is no further than b has replayed", at == replayed && at < end);
    s.stop(B, StopMode::Fast).await;
    s.order(B, PostgresAction::CreateSlot("z".into())).await;
    s.order(B, advance("y", end)).await;
    s.order(B, PostgresAction::DropSlot("y".into())).await;
    s.order(B, PostgresAction::Checkpoint).await;
    s.order(B, PostgresAction::CreateRoles).await;
}

/// What becomes of a slot's position when its server ends.
pub(crate) async fn kept_slots<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.order(A, PostgresAction::CreateSlot("x".into())).await;
    s.copy(B, A).await;
    s.commit(A).await;
    s.level(B, A).await;
    s.order(B, PostgresAction::CreateSlot("y".into())).await;
    for how in ["a kill", "a kill of a backend", "a stop"] {
        for (server, slot_name) in [(A, "x"), (B, "y")] {
            s.commit(A).await;
            s.level(B, A).await;
            let before = slot(s, server, slot_name).await;
            s.order(server, advance(slot_name, BEYOND)).await;
            let moved = slot(s, server, slot_name).await;
            s.note("it is moved", moved > before);
            match how {
                "a kill" => s.befalls(server, Blow::Kill).await,
                "a kill of a backend" => s.befalls(server, Blow::KillBackend).await,
                _ => s.stop(server, StopMode::Fast).await,
            }
            if how != "a kill of a backend" {
                s.order(server, PostgresAction::Restart).await;
            }
            s.until(format!("{} answers again", name(server)), server, |_| true).await;
            let now = slot(s, server, slot_name).await;
            s.note(format!("after {how} {slot_name} is where it was moved to"), now == moved);
            s.note(format!("after {how} {slot_name} is where it was before"), now == before);
            s.until("b streams", B, streams).await;
        }
    }
}

pub(crate) async fn killed_backend<S: Servers>(s: &mut Script<S>) {
    s.begin(A).await;
    s.copy(B, A).await;
    s.copy(C, B).await;
    s.commit(A).await;
    s.level(C, A).await;
    for server in [A, B] {
        let before = s.servers.process(server).await;
        s.befalls(server, Blow::KillBackend).await;
        s.until(format!("{} answers again", name(server)), server, |_| true).await;
        let same = s.servers.process(server).await == before;
        s.note(format!("{} has the postmaster that it had", name(server)), same);
        s.look(A).await;
        for standby in [B, C] {
            s.until(format!("{} streams", name(standby)), standby, streams).await;
        }
        s.commit(A).await;
        s.level(C, A).await;
        for server in [A, B, C] {
            s.look(server).await;
        }
    }
    s.stop(A, StopMode::Fast).await;
    s.look(A).await;
}

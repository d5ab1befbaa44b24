//! What becomes of a store that is restored from a backup, and from when on it is believed.

use std::time::Duration;

use matriarch_core::action::{Status, StoreAction};
use matriarch_core::id::{Lsn, Revision, Timeline};
use matriarch_core::op::Outcome;

use crate::scripts::{EXTENDED, LATE_MAX, PAUSE, SLACK, Script, acquire, epoch, put, renew};
use crate::{GIVE_UP, Members, Store, TENURE, Who};
use Who::{A, B};

/// Longer than until the store is believed, on a machine that is busy.
const TTL: Duration = Duration::from_secs(9);
/// Longer than any script.
const LONG: Duration = Duration::from_secs(40);
/// For how long each asks in vain: all of them more often than what counts as a silence of the store.
const SOON: Duration = Duration::from_millis(100);

/// The store answers again: when it does. A lease is granted whatever its answer tells of the store.
async fn answers<S: Store>(s: &mut Script<S>) -> Duration {
    let ask = StoreAction::GrantSession { ttl: LONG };
    while !matches!(s.store.order(A, ask.clone(), GIVE_UP).await, Outcome::Done(_)) {}
    s.store.now()
}

/// Everybody reads until the store is believed, which was stopped at `stopped` and answers since `answered`.
async fn believed<S: Store>(s: &mut Script<S>, stopped: Duration, answered: Duration) {
    let mut waiting = vec![A, B, Who::Watcher];
    let mut when = Vec::new();
    while !waiting.is_empty() {
        for who in waiting.clone() {
            if s.read_within(SOON, who).await.is_some() {
                when.push((who, s.store.now()));
                waiting.retain(|other| *other != who);
            }
        }
        assert!(s.store.now() < answered + LONG, "{waiting:?} never believe it");
        s.store.pass(PAUSE).await;
    }
    when.sort_by_key(|(who, _)| *who as usize);
    for (who, when) in when {
        s.note(&format!("{who:?} believed it not before a tenure was over"), when >= stopped + TENURE);
        s.note("nor much later", when <= answered + TENURE + GIVE_UP + SLACK);
    }
}

fn publish(epoch: Revision) -> StoreAction {
    let position = Lsn(0x0100_0000);
    let status = Status { position, timeline: Timeline(1), slots: Vec::new(), retain: Vec::new() };
    StoreAction::PutStatus { epoch, status }
}

pub(crate) async fn lost_future<S: Store>(s: &mut Script<S>) {
    let (a, b) = (s.grant(A, TTL).await, s.grant(B, LONG).await);
    s.order("b puts its record", B, put(b)).await;
    let seen = s.look().await;
    s.order("a takes the leader key", A, acquire(a, &seen)).await;
    let then = s.look().await;
    let tenure = epoch(&then);
    // Its lease is not a new one at the backup.
    s.store.pass(Duration::from_secs(2)).await;
    s.store.backup().await;

    s.order("a publishes its position", A, publish(tenure)).await;
    s.order("b lets its lease go", B, StoreAction::Revoke { lease: b }).await;
    let late = s.grant(A, LONG).await;
    s.order("a puts its record", A, put(late)).await;
    s.order("a keeps the lease of its tenure", A, StoreAction::KeepSession { lease: a }).await;
    s.look().await;

    let stopped = s.store.now();
    s.store.restore().await;
    let answered = answers(s).await;
    s.order("a keeps a lease of the lost future", A, StoreAction::KeepSession { lease: late }).await;
    s.order("b keeps one that it revoked there", B, StoreAction::KeepSession { lease: b }).await;
    s.order("b puts its record, which is there again", B, put(b)).await;
    believed(s, stopped, answered).await;
    let seen = s.look().await;
    s.note("it is the same store", seen.store == then.store);
    s.note("its revision is that of then", seen.revision == then.revision);
    s.order("a publishes its position again", A, publish(tenure)).await;
    s.order("b puts its record, and has been told that it is there", B, put(b)).await;
    s.look().await;

    let mut view = s.read(B).await;
    while view.is_none_or(|view| view.leader.is_some()) && s.store.now() < answered + LONG {
        s.store.pass(PAUSE).await;
        view = s.read(B).await;
    }
    let gone = s.store.now();
    s.note("the tenure of then ended not before its ttl from the start", gone >= stopped + TTL + EXTENDED);
    s.note("nor later than it may", gone <= answered + TTL + EXTENDED + LATE_MAX + SLACK);
    let seen = s.look().await;
    s.order("b takes the leader key", B, acquire(b, &seen)).await;
    s.look().await;
}

/// A backup is taken and restored with nothing between; whether a renews is noted as `what`. When the store was stopped, and
/// when it answered.
async fn undone<S: Store>(s: &mut Script<S>, what: &str, renewal: StoreAction) -> (Duration, Duration) {
    s.store.backup().await;
    let stopped = s.store.now();
    s.store.restore().await;
    let answered = answers(s).await;
    s.order(what, A, renewal).await;
    (stopped, answered)
}

/// Nothing is lost but elections: only what is told of them can tell that the store was restored.
pub(crate) async fn elections<S: Store>(s: &mut Script<S>) {
    let a = s.grant(A, LONG).await;
    let seen = s.look().await;
    s.order("a takes the leader key", A, acquire(a, &seen)).await;
    let tenure = epoch(&s.look().await);
    s.store.kill(Members::All).await;
    s.store.start_again().await;
    answers(s).await;
    s.order("a renews after another election", A, renew(a, tenure)).await;
    let known = s.read(Who::Watcher).await.is_some();
    s.note("the watcher knows of it", known);
    s.look().await;
    let (stopped, answered) = undone(s, "a renews, and an election is undone", renew(a, tenure)).await;
    believed(s, stopped, answered).await;
    s.look().await;
    s.order("a renews, and believes it", A, renew(a, tenure)).await;
    undone(s, "a renews, and none is undone", renew(a, tenure)).await;
    s.order("a publishes its position", A, publish(tenure)).await;
    s.look().await;
}

/// Nothing is lost at all, from a store that has elected once: nobody can tell.
pub(crate) async fn nothing<S: Store>(s: &mut Script<S>) {
    let a = s.grant(A, LONG).await;
    let seen = s.look().await;
    s.order("a takes the leader key", A, acquire(a, &seen)).await;
    let tenure = epoch(&s.look().await);
    undone(s, "a renews, and nothing is undone", renew(a, tenure)).await;
    s.order("a publishes its position", A, publish(tenure)).await;
    s.look().await;
}

//! What becomes of a store whose members stand still or die.

use std::time::Duration;

use matriarch_core::action::StoreAction;
use matriarch_core::id::Member;

use crate::scripts::{EXTENDED, LATE_MAX, PAUSE, SHORTEST, SLACK, Script, put, until_gone};
use crate::{GIVE_UP, Members, Store, Who};
use Who::{A, B};

pub(crate) async fn frozen<S: Store>(s: &mut Script<S>) {
    let lease = s.grant(A, SHORTEST).await;
    s.order("a puts its record", A, put(lease)).await;
    s.order("a keeps its lease", A, StoreAction::KeepSession { lease }).await;
    s.look().await;
    s.store.freeze(Members::Leader).await;
    s.order("b reads in vain", B, StoreAction::Read).await;
    s.order("b reads in vain", B, StoreAction::Read).await;
    s.store.thaw().await;
    // The time that it stood still counted.
    s.order("a keeps a lease whose time is over", A, StoreAction::KeepSession { lease }).await;
    s.look().await;
}

pub(crate) async fn late<S: Store>(s: &mut Script<S>) {
    let before = s.look().await;
    s.store.freeze(Members::Followers).await;
    let failover = StoreAction::PutFailover {
        revision: before.failover_revision,
        epoch: before.leader.as_ref().map(|leader| leader.created).unwrap_or_default(),
        leader: Some(Member::new("a")),
        candidate: None,
        scheduled_at: None,
    };
    // Not so long that etcd's leader steps down: the others might elect without what it has in its log.
    s.order_within(Duration::from_millis(500), "a writes in vain", A, failover).await;
    s.store.thaw().await;
    let mut view = s.read(A).await;
    for _ in 0..10 {
        if view.as_ref().is_some_and(|view| view.failover.is_some()) {
            break;
        }
        s.store.pass(Duration::from_millis(200)).await;
        view = s.read(A).await;
    }
    s.note("it was written after all", view.is_some_and(|view| view.failover.is_some()));
    s.look().await;
}

/// The store answers again, and a's record is still there: when it did.
async fn outlives<S: Store>(s: &mut Script<S>) -> Duration {
    let mut view = s.read(B).await;
    while view.is_none() {
        view = s.read(B).await;
    }
    let answered = s.store.now();
    s.note(
        "the key outlived the time of its lease",
        view.is_some_and(|view| view.members.contains_key(&Member::new("a"))),
    );
    answered
}

pub(crate) async fn restart<S: Store>(s: &mut Script<S>) {
    let lease = s.grant(A, SHORTEST).await;
    s.order("a puts its record", A, put(lease)).await;
    s.order("a keeps its lease", A, StoreAction::KeepSession { lease }).await;
    s.look().await;
    s.store.kill(Members::All).await;
    s.store.pass(SHORTEST + LATE_MAX).await;
    let start = s.store.now();
    s.store.start_again().await;
    let answered = outlives(s).await;
    let gone = until_gone(s, Duration::from_secs(10)).await;
    s.note("its end was not before its ttl from the start", gone >= start + SHORTEST + EXTENDED);
    s.note("nor later than it may be", gone <= answered + SHORTEST + EXTENDED + LATE_MAX + SLACK);
    s.order("a keeps it", A, StoreAction::KeepSession { lease }).await;
    s.look().await;
}

/// Until the leader has been prompt for longer than a heartbeat takes to come: members count from the last one that reached
/// them, and would elect sooner after one that was late.
async fn prompt<S: Store>(s: &mut Script<S>) {
    let mut prompt = 0;
    while prompt < 5 {
        let asked = s.store.now();
        let heard = s.read(B).await.is_some() && s.store.now() <= asked + Duration::from_millis(50);
        prompt = if heard { prompt + 1 } else { 0 };
        s.store.pass(Duration::from_millis(40)).await;
    }
}

/// What befalls the one that leads.
enum Blow {
    Freeze,
    Kill,
}

pub(crate) async fn election<S: Store>(s: &mut Script<S>) {
    another_leads(s, Blow::Freeze).await;
    s.store.thaw().await;
}

pub(crate) async fn leader_dies<S: Store>(s: &mut Script<S>) {
    another_leads(s, Blow::Kill).await;
    s.look().await;
    s.store.start_again().await;
    let lease = s.grant(A, Duration::from_secs(30)).await;
    s.order("a puts its record", A, put(lease)).await;
    s.look().await;
}

async fn another_leads<S: Store>(s: &mut Script<S>, blow: Blow) {
    let (shortest, longest) = (Duration::from_millis(900), Duration::from_secs(2));
    let lease = s.grant(A, SHORTEST).await;
    s.order("a puts its record", A, put(lease)).await;
    prompt(s).await;
    s.order("a keeps its lease", A, StoreAction::KeepSession { lease }).await;
    s.look().await;
    // Who leads is asked first, and the stop is somewhere between: it may take its time.
    let before = s.store.now();
    match blow {
        Blow::Freeze => s.store.freeze(Members::Leader).await,
        Blow::Kill => s.store.kill(Members::Leader).await,
    }
    let frozen = s.store.now();
    s.order_within(shortest / 2, "b reads in vain", B, StoreAction::Read).await;
    s.store.pass((before + SHORTEST + shortest).saturating_sub(s.store.now())).await;
    let mut view = s.read(B).await;
    while view.is_none() {
        view = s.read(B).await;
    }
    s.note(
        "the key outlived the time of its lease",
        view.is_some_and(|view| view.members.contains_key(&Member::new("a"))),
    );
    let gone = until_gone(s, Duration::from_secs(10)).await;
    s.note("its end was not before its ttl from the election", gone >= before + shortest + SHORTEST + EXTENDED);
    let late = frozen + longest + SHORTEST + EXTENDED + LATE_MAX + GIVE_UP + SLACK;
    s.note("nor later than it may be", gone <= late);
    s.order("b keeps it", B, StoreAction::KeepSession { lease }).await;
}

pub(crate) async fn follower_dies<S: Store>(s: &mut Script<S>) {
    let long = Duration::from_secs(30);
    let (a, b) = (s.grant(A, long).await, s.grant(B, long).await);
    s.order("a puts its record", A, put(a)).await;
    s.look().await;
    // Whom one asks who writes, and through whom the watch is.
    for who in [B, Who::Watcher] {
        s.store.kill(Members::Of(who)).await;
        // Until whoever asked it knows that its connection is gone: what is sent over it is not sent again.
        s.store.pass(PAUSE).await;
        s.order("b puts its record", B, put(b)).await;
        s.order("b keeps its lease", B, StoreAction::KeepSession { lease: b }).await;
        s.order("a puts its record", A, put(a)).await;
        s.look().await;
        s.store.start_again().await;
        s.order("a puts its record", A, put(a)).await;
        s.look().await;
    }
}

/// The one that leads is cut off from the others.
pub(crate) async fn lonely<S: Store>(s: &mut Script<S>) {
    let ttl = Duration::from_secs(4);
    let lease = s.grant(A, ttl).await;
    s.order("a puts its record", A, put(lease)).await;
    s.look().await;
    let before = s.store.now();
    s.store.freeze(Members::Followers).await;
    // For a while it does not know.
    let soon = Duration::from_millis(300);
    s.order_within(soon, "a keeps its lease", A, StoreAction::KeepSession { lease }).await;
    s.order_within(soon, "a writes in vain", A, put(lease)).await;
    // Then it leads no more, and no lease ends.
    s.store.pass(ttl).await;
    s.order_within(soon, "a keeps its lease", A, StoreAction::KeepSession { lease }).await;
    let over = s.store.now() > before + ttl;
    s.note("its time is over", over);
    let thawed = s.store.now();
    s.store.thaw().await;
    let answered = outlives(s).await;
    let gone = until_gone(s, Duration::from_secs(15)).await;
    s.note("its end was not before its ttl from then", gone >= thawed + ttl + EXTENDED);
    s.note("nor later than it may be", gone <= answered + ttl + EXTENDED + LATE_MAX + SLACK);
}

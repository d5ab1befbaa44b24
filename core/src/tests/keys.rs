//! What a view of the keys changes: the race, pledges, what is told of the leader, our record, and our tenure above all.

use super::races::watched;
use crate::action::{Action, HostAction, Lane, PostgresAction, Status, StoreAction};
use crate::event::{EpochFile, Event, StoreDone, StoreEvent};
use crate::id::{LeaseId, Member, Revision, StoreId, SystemId};
use crate::lease::{Held, Tenure};
use crate::op::{Outcome, Refusal};
use crate::state::{Granted, Leaderless, Pledge, State};
use crate::testing::*;
use crate::time::Instant;
use crate::view::postgres::{DataDir, Process, StartAs};
use crate::view::store::{ClusterView, EpochRecord, HistoryKey, HistoryLine, LeaderKey, StatusKey, Vanished};

/// The lease of a campaign.
const NEXT: LeaseId = LeaseId(9);

/// The keys with this leader.
fn keys(revision: i64, leader: Option<LeaderKey>) -> ClusterView {
    ClusterView { leader, ..cluster(revision) }
}

/// What is left of the tenure after such keys were seen.
fn tenure(node: Node, leader: Option<LeaderKey>) -> (Tenure, Option<LeaseId>) {
    let mut node = node;
    node.step(watched(&node, keys(101, leader)));
    (node.state.tenure, node.state.spent)
}

/// The keys as they are after an operation on the store ended so.
fn ended(node: Node, action: StoreAction, outcome: Outcome<StoreDone>) -> State {
    let action = Action::Store(action);
    let lane = action.lane().expect("it takes one");
    let mut node = node.doing(action, 0);
    let op = node.op(&lane);
    crate::absorb::absorb(&mut node.state, node.now, Event::Store(StoreEvent::Completed { op, outcome, asked: at(0) }));
    node.state
}

fn written() -> Outcome<StoreDone> {
    Outcome::Done(StoreDone::Written)
}

fn unknown() -> Outcome<StoreDone> {
    Outcome::Unknown("no answer".into())
}

fn lease_gone() -> Outcome<StoreDone> {
    Outcome::Refused(Refusal::LeaseGone)
}

fn conflict() -> Outcome<StoreDone> {
    Outcome::Refused(Refusal::Conflict)
}

#[test]
fn keys_that_are_seen_again_at_the_same_revision_are_as_new_as_that_look() {
    let mut node = Node::standby().later(5);
    node.step(watched(&node, led_by("b", 100)));
    assert_eq!(node.state.store.cluster.map(|seen| seen.asked), Some(at(5)));
}

#[test]
fn a_race_begins_when_no_leader_is_first_seen_and_not_again_with_every_view() {
    let mut node = Node::stopped();
    node.state.store.cluster = None;
    for (ms, revision, leads, race) in [
        (1, 101, false, Some((Revision(101), at(1)))),
        (2, 102, false, Some((Revision(101), at(1)))),
        (3, 103, true, None),
        (4, 104, false, Some((Revision(104), at(4)))),
    ] {
        node.now = at(ms);
        let leader = leads.then(|| leader("b", THEIRS, THEIR_EPOCH));
        node.step(watched(&node, keys(revision, leader)));
        assert_eq!(node.state.memory.race, race, "{revision}");
        let began = race.map(|(revision, since)| Leaderless { since, revision });
        assert_eq!(node.state.memory.leaderless, began, "{revision}");
    }
}

#[test]
fn a_pledge_ends_with_a_tenure_that_began_after_it_and_with_no_earlier_one() {
    let pledge = Pledge { absent_at: Revision(90), since: at(0), frozen: true, on_disk: true };
    let pledged = |created| {
        let mut node = Node::stopped().with(|state| state.pledge = Some(pledge));
        node.step(watched(&node, keys(101, Some(leader("b", THEIRS, Revision(created))))));
        node.state.pledge.is_some()
    };
    assert_eq!([89, 90, 91].map(pledged), [true, true, false]);
}

/// It lives perhaps, and was moved since it first led.
#[test]
fn a_last_holder_is_asked_where_it_told_last_of_all() {
    let mut node = Node::standby();
    let mut hears = |revision: i64, host: Option<&str>, leads: bool| {
        let mut view = led_by("b", revision);
        match host {
            Some(host) => view.members.get_mut(&Member::new("b")).expect("b").record.host = host.into(),
            None => drop(view.members.remove(&Member::new("b"))),
        }
        view.leader = view.leader.filter(|_| leads);
        node.step(watched(&node, view));
        node.state.memory.lost_records.get(&Member::new("b")).map(|record| record.host.clone())
    };
    hears(101, Some("here"), true);
    hears(102, Some("there"), true);
    assert_eq!(hears(103, None, false), Some("there".into()));
    // The bug: its record had been deleted before it led, and with its key nobody knew any more where to ask.
    assert_eq!(hears(104, Some("new"), false), None, "its record tells");
    hears(105, None, false);
    hears(106, None, true);
    assert_eq!(hears(107, None, false), Some("new".into()));
    // Not for ever.
    hears(108, Some("newer"), true);
    assert!(node.state.memory.lost_records.is_empty());
}

#[test]
fn a_record_of_ours_that_is_gone_or_under_another_lease_is_written_anew() {
    let writes = |change: fn(&mut ClusterView)| {
        let mut node = Node::standby().with(|state| state.session.published_at = at(0).back(seconds(1)));
        let mut view = led_by("b", 101);
        change(&mut view);
        let effects = node.step(watched(&node, view));
        actions(&effects).iter().any(|action| matches!(action, Action::Store(StoreAction::PutMember { .. })))
    };
    assert!(!writes(|_| ()));
    assert!(writes(|view| drop(view.members.remove(&Member::new("a")))));
    assert!(writes(|view| view.members.get_mut(&Member::new("a")).expect("a").lease = LeaseId(1)));
}

#[test]
fn a_key_of_our_name_under_the_lease_of_our_campaign_is_our_tenure_and_no_other() {
    let campaigning = |node: Node| {
        node.with(|state| {
            state.granted = Some(Granted { lease: NEXT, ttl: seconds(30), asked: at(0) });
            state.tenure = Tenure::None;
        })
    };
    let began = Held { lease: NEXT, epoch: Revision(101), ttl: seconds(30), confirmed: at(0) };
    let key = |name: &str, lease| Some(leader(name, lease, Revision(101)));
    let ours = || campaigning(Node::racing());
    assert_eq!(tenure(ours(), key("a", NEXT)).0, Tenure::Held(began));
    assert_eq!(tenure(ours(), key("b", NEXT)).0, Tenure::None, "somebody wrote its name under our lease");
    assert_eq!(tenure(ours(), key("a", THEIRS)).0, Tenure::None, "another node of our name");
    let spent = ours().with(|state| state.spent = Some(NEXT));
    assert_eq!(tenure(spent, key("a", NEXT)).0, Tenure::None);
    // A campaign that is not over keeps no tenure alive whose key is another's.
    let held = Node::primary().state.tenure;
    let beside = campaigning(Node::primary()).with(|state| state.tenure = held);
    assert_eq!(tenure(beside, key("b", THEIRS)), (Tenure::None, Some(OURS)));
}

#[test]
fn a_tenure_is_one_lease_and_one_creation_of_the_key() {
    let held = Node::primary().state.tenure;
    let suspended = match held {
        Tenure::Held(was) => Tenure::Suspended { was, since: at(0) },
        _ => panic!("a primary holds its tenure"),
    };
    for before in [held, suspended.clone()] {
        let seen = |lease, epoch| {
            let node = Node::primary().with(|state| state.tenure = before.clone());
            tenure(node, Some(leader("a", lease, epoch)))
        };
        assert_eq!(seen(OURS, EPOCH), (before.clone(), None));
        for (lease, epoch) in [(OURS, Revision(99)), (THEIRS, EPOCH)] {
            assert_eq!(seen(lease, epoch), (Tenure::None, Some(OURS)));
        }
    }
    assert_eq!(tenure(Node::primary(), None).0, suspended);
    assert_eq!(tenure(Node::primary().dir(standby_dir()).sql(standby_sql(None)), None), (Tenure::None, Some(OURS)));
    // What is not there yet cannot be held.
    let start = Action::Postgres(PostgresAction::Start(StartAs::Primary));
    assert_eq!(tenure(Node::primary().dead().doing(start, 5), None), (Tenure::None, Some(OURS)));
}

#[test]
fn the_search_for_a_tenure_ends_where_there_is_nothing_to_adopt() {
    let adopting = Tenure::Adopting { deadline: at(9_000) };
    let searches = |node: Node, view: ClusterView| {
        let mut node = node.with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
        node.step(watched(&node, view));
        node.state.tenure == adopting
    };
    let keyless = || keys(101, None);
    assert!(searches(Node::primary(), keyless()) && searches(Node::primary(), led_by("a", 101)));
    assert!(!searches(Node::primary(), led_by("b", 101)) && !searches(Node::standby(), led_by("b", 101)));
    assert!(!searches(Node::standby(), keyless()), "it does not write");
    // A dead primary takes its own tenure up, and no key is as good as none.
    assert!(searches(Node::primary().dead(), led_by("a", 101)) && !searches(Node::primary().dead(), keyless()));
    // The bug: one that was over, and whose lease could not be revoked yet, was renewed as fast as the store answered when
    // the cluster no longer asked for what is not built.
    let spent = Node::primary().dead().with(|state| state.spent = Some(OURS));
    assert!(!searches(spent, led_by("a", 101)));
    let of_another = |mut view: ClusterView| {
        view.initialize.as_mut().expect("it is there").system_id = Some(SystemId(1));
        view
    };
    assert!(!searches(Node::primary(), of_another(keyless())));
    // Who was not looked at may be anything, unless the key is another's already.
    let unseen: [fn(&mut State); 2] =
        [|state| state.postgres.process = Process::Unknown, |state| state.postgres.data = DataDir::Unknown];
    for unseen in unseen {
        assert!(searches(Node::standby().with(unseen), keyless()));
        assert!(!searches(Node::standby().with(unseen), led_by("b", 101)));
    }
}

#[test]
fn only_an_answer_of_the_store_is_an_answer() {
    let before = at(0).back(millis(1));
    let answered = |outcome| ended(Node::primary().with(|state| state.store.answered = before), keep(), outcome);
    let [done, refused, nothing] = [Outcome::Done(StoreDone::SessionKept), conflict(), unknown()].map(answered);
    assert_eq!([done, refused, nothing].map(|state| state.store.answered), [at(0), at(0), before]);
}

/// The bug (seed 15006323): writes that were held went on as the session's lease was answered for, and another led by then.
#[test]
fn what_is_held_goes_on_for_an_answer_that_tells_of_the_key() {
    let holds: [fn(&mut State); 4] = [
        // Its PostgreSQL has died since.
        |state| {
            (state.store.answered, state.postgres.process) = (Instant::ZERO, Process::Absent);
        },
        |state| state.guard.held = true,
        |state| state.guard.hold_in_doubt = true,
        |state| state.guard_asked.hold = true,
    ];
    for hold in holds {
        let node = || Node::primary().with(|state| state.store.answered = at(0).back(millis(1))).with(hold);
        let counts = |action, outcome| ended(node(), action, outcome).store.answered == at(0);
        assert!(!counts(keep(), Outcome::Done(StoreDone::SessionKept)) && !counts(keep(), conflict()));
        assert!(counts(StoreAction::Read, Outcome::Done(StoreDone::Read(cluster(101)))));
        // It is what is asked then, if PostgreSQL runs.
        if node().state.postgres.process == Process::Absent {
            continue;
        }
        let asks = |change: fn(&mut State)| actions(&node().later(2_500).with(change).tick());
        assert!(asks(|_| ()).contains(&Action::Store(StoreAction::Read)));
        assert!(!asks(|_| ()).contains(&Action::Store(StoreAction::KeepSession { lease: LeaseId(100) })));
    }
}

fn keep() -> StoreAction {
    StoreAction::KeepSession { lease: LeaseId(100) }
}

fn put() -> StoreAction {
    StoreAction::PutMember { lease: LeaseId(100), record: record("a") }
}

#[test]
fn a_record_is_published_under_a_lease_that_lives() {
    let mut node = Node::standby().later(7);
    node.state.session.published = None;
    let session = ended(node.clone(), put(), written()).session;
    assert_eq!((session.published, session.published_at), (Some(record("a")), at(7)));
    let published = |action, outcome| {
        let session = ended(Node::standby(), action, outcome).session;
        (session.lease.is_some(), session.published.is_some())
    };
    assert_eq!(published(put(), unknown()), (true, false), "it may have been written");
    for action in [keep(), put()] {
        assert!(!published(action.clone(), lease_gone()).0);
        assert!(published(action, conflict()).0);
    }
    let granted = Outcome::Done(StoreDone::Granted { lease: LeaseId(101), ttl: seconds(20) });
    let session = ended(node, StoreAction::GrantSession { ttl: seconds(30) }, granted).session;
    assert_eq!((session.lease, session.ttl, session.kept), (Some(LeaseId(101)), seconds(20), at(0)));
    let late = Node::standby().with(|state| state.session.kept = Instant::ZERO);
    assert_eq!(ended(late, keep(), Outcome::Done(StoreDone::SessionKept)).session.kept, at(0));
}

#[test]
fn a_spent_lease_is_forgotten_once_it_is_gone_and_no_other_with_it() {
    let left = |lease, outcome| {
        let node = Node::stopped().with(|state| state.spent = Some(OURS));
        ended(node, StoreAction::Revoke { lease }, outcome).spent
    };
    assert_eq!((left(OURS, Outcome::Done(StoreDone::Revoked)), left(OURS, lease_gone())), (None, None));
    assert_eq!((left(OURS, conflict()), left(OURS, unknown())), (Some(OURS), Some(OURS)));
    assert_eq!((left(NEXT, Outcome::Done(StoreDone::Revoked)), left(NEXT, lease_gone())), (Some(OURS), Some(OURS)));
}

#[test]
fn a_lease_for_a_campaign_is_used_until_the_store_says_that_it_is_gone() {
    let acquire = || StoreAction::TakeOver { lease: NEXT, modified: EPOCH };
    let left = |outcome| {
        let granted = Some(Granted { lease: NEXT, ttl: seconds(30), asked: at(0) });
        let state = ended(Node::racing().with(|state| state.granted = granted), acquire(), outcome);
        assert!(state.memory.store_doubt.is_some(), "who holds the key is looked at");
        state.granted.is_some()
    };
    assert_eq!([lease_gone(), conflict(), unknown()].map(left), [false, true, true]);
    let grant = StoreAction::GrantTenure { ttl: seconds(30) };
    let granted = ended(Node::racing(), grant, Outcome::Done(StoreDone::Granted { lease: NEXT, ttl: seconds(20) }));
    assert_eq!(granted.granted, Some(Granted { lease: NEXT, ttl: seconds(20), asked: at(0) }));
}

/// The bug: a campaign that was given up was carried out when the store went on, under a lease that another had replaced.
/// Everybody waited for a ttl.
#[test]
fn a_key_that_a_forgotten_campaign_has_won_is_given_back() {
    let later = LeaseId(101);
    let regranted = |node: Node| {
        let granted = Granted { lease: NEXT, ttl: seconds(30), asked: at(0) };
        let node = node.with(|state| (state.granted, state.tenure) = (Some(granted), Tenure::None));
        let outcome = Outcome::Done(StoreDone::Granted { lease: later, ttl: seconds(30) });
        let state = ended(node.clone(), StoreAction::GrantTenure { ttl: seconds(30) }, outcome);
        assert_eq!(state.granted.map(|granted| granted.lease), Some(later));
        Node { state, now: node.now }
    };
    let key = |lease| Some(leader("a", lease, Revision(101)));
    let won = |lease| tenure(regranted(Node::racing()), key(lease));
    assert_eq!(won(NEXT), (Tenure::None, Some(NEXT)));
    assert!(matches!(won(later), (Tenure::Held(held), None) if held.lease == later));
    assert_eq!(won(LeaseId(55)), (Tenure::None, None), "another node of our name");
    let spent = regranted(Node::racing().with(|state| state.spent = Some(LeaseId(7))));
    assert_eq!(tenure(spent, key(NEXT)), (Tenure::None, Some(LeaseId(7))), "the one before is given back first");
    let mut node = regranted(Node::racing());
    let effects = node.step(watched(&node, keys(101, key(NEXT))));
    assert!(actions(&effects).contains(&Action::Store(StoreAction::Revoke { lease: NEXT })), "{effects:?}");
}

fn status() -> Status {
    Status { position: HERE, timeline: crate::id::Timeline(1), slots: Vec::new(), retain: Vec::new() }
}

#[test]
fn what_a_write_left_behind_is_looked_at_where_the_keys_decide() {
    let (epoch, lines) = (EPOCH, Vec::new());
    let doubts = |action: StoreAction, outcome| ended(Node::primary(), action, outcome).memory.store_doubt.is_some();
    let history = || StoreAction::PutHistory { epoch, revision: Revision(0), lines: lines.clone(), status: status() };
    assert!(doubts(history(), written()) && !doubts(history(), unknown()) && !doubts(history(), conflict()));
    let failing = |action, outcome| {
        let before = Node::primary().with(|state| state.memory.history_failing = Some(at(0).back(seconds(1))));
        ended(before, action, outcome).memory.history_failing
    };
    assert_eq!(failing(history(), written()), None);
    let since = Some(at(0).back(seconds(1)));
    assert!([conflict(), unknown()].into_iter().all(|outcome| failing(history(), outcome) == since));
    assert_eq!(failing(StoreAction::ClearFailover { revision: Revision(1) }, written()), since);
    let reserve = || StoreAction::Reserve {
        unguarded: false,
        config: Revision(0),
        epoch,
        record: EPOCH,
        timeline: crate::id::Timeline(1),
        position: HERE,
        newest_timeline: crate::id::Timeline(2),
    };
    assert!([written(), unknown(), conflict()].into_iter().all(|outcome| doubts(reserve(), outcome)));
    assert!(!doubts(put(), written()) && !doubts(keep(), Outcome::Done(StoreDone::SessionKept)));
    // The bug (seed 456478): a read that was under way by then put the doubt at rest, and a node was let go by keys from
    // before it had told that it is guarded again.
    let read = |doubt: Instant| {
        let doubting = Node::primary().with(|state| state.memory.store_doubt = Some(doubt));
        let read = Outcome::Done(StoreDone::Read(led_by("a", 101)));
        ended(doubting, StoreAction::Read, read).memory.store_doubt
    };
    assert_eq!([0, 1].map(|doubt_ms| read(at(doubt_ms))), [None, Some(at(1))]);
}

/// The bug (seed 2506306): a watch told of a write before its answer came, nobody wrote anything after that, and the leader
/// waited with the next write for keys that were newer than those.
#[test]
fn a_write_of_which_a_watch_told_first_keeps_no_other_waiting() {
    let waits_for_more_than = |told: i64, rollbacks: u64, read: bool| {
        let mut node = Node::primary().cluster(|cluster| cluster.config_revision = Revision(0));
        node.tick();
        let op = node.op(&Lane::Publish);
        let mut keys = node.view().cluster().expect("they are known").clone();
        (keys.revision, keys.rollbacks) = (Revision(told), rollbacks);
        let asked = node.now;
        node.step(watched(&node, keys.clone()));
        node.step(Event::Store(StoreEvent::Completed { op, outcome: written(), asked }));
        if read {
            let (op, outcome) = (node.op(&Lane::Observe), Outcome::Done(StoreDone::Read(keys)));
            node.step(Event::Store(StoreEvent::Completed { op, outcome, asked }));
        }
        node.state.memory.written.0
    };
    assert_eq!([100, 101].map(|told| waits_for_more_than(told, 0, false)), [100, 101], "another key may have moved");
    assert_eq!([100, 101].map(|told| waits_for_more_than(told, 0, true)), [100; 2]);
    assert_eq!([false, true].map(|read| waits_for_more_than(50, 1, read)), [50; 2], "the store went back meanwhile");
}

#[test]
fn a_renewal_prolongs_the_tenure_that_it_is_of_and_ends_no_other() {
    let renew = |lease, epoch| StoreAction::Renew { lease, epoch, deadline: seconds(10) };
    let proven = |ttl| Outcome::Done(StoreDone::Renewed { ttl, revision: Revision(0) });
    let earlier = |node: Node| {
        node.with(|state| {
            if let Tenure::Held(held) = &mut state.tenure {
                held.confirmed = at(0).back(seconds(1));
            }
        })
    };
    let confirmed = |node: Node, lease| {
        let state = ended(node, renew(lease, EPOCH), proven(seconds(20)));
        state.tenure.held().map(|held| (held.confirmed, held.ttl))
    };
    assert_eq!(confirmed(earlier(Node::primary()), OURS), Some((at(0), seconds(20))));
    assert_eq!(confirmed(Node::primary(), OURS), Some((at(0), seconds(30))), "not newer");
    let newer = Node::primary().with(|state| {
        if let Tenure::Held(held) = &mut state.tenure {
            held.confirmed = at(5);
        }
    });
    assert_eq!(confirmed(newer, OURS), Some((at(5), seconds(30))), "sent earlier, answered later");
    let before = Some((at(0).back(seconds(1)), seconds(30)));
    assert_eq!(confirmed(earlier(Node::primary()), NEXT), before, "of another tenure");
    let adopting = |node: Node| node.with(|state| state.tenure = Tenure::Adopting { deadline: at(9_000) });
    assert_eq!(confirmed(adopting(Node::primary()), OURS), Some((at(0), seconds(20))));
    assert_eq!(confirmed(adopting(Node::primary()).with(|state| state.spent = Some(OURS)), OURS), None);
    // A store that says no for another reason has not said that the key is not ours.
    let refused = |lease, why| ended(Node::primary(), renew(lease, EPOCH), Outcome::Refused(why)).tenure;
    let held = Node::primary().state.tenure;
    assert_eq!(refused(OURS, Refusal::Failed("quota".into())), held);
    assert_eq!(refused(NEXT, Refusal::LeaseGone), held);
    for why in [Refusal::LeaseGone, Refusal::Conflict] {
        assert!(matches!(refused(OURS, why), Tenure::Suspended { .. }));
    }
    let searching = ended(adopting(Node::primary()), renew(OURS, EPOCH), lease_gone());
    assert_eq!(searching.tenure, Tenure::None);
    // The bug: it was of the tenure before, whose key was gone, and a primary that looked for its next one was killed.
    let late =
        ended(adopting(Node::primary()).cluster(|cluster| cluster.leader = None), renew(OURS, EPOCH), lease_gone());
    assert!(matches!(late.tenure, Tenure::Adopting { .. }));
}

/// The bug: a store refuses all of a release whose record has no lease any more, and it counted as done: nobody heard where
/// the primary had ended, nor that it had stopped.
#[test]
fn a_release_whose_record_has_no_lease_goes_without_it() {
    let Action::Store(release) = release() else { panic!("a release is an order to the store") };
    let node = || Node::primary().dead().with(forgotten).with(|state| state.memory.start_failures = 3);
    let state = ended(node(), release, lease_gone());
    assert_eq!((state.tenure.held().is_some(), state.spent, state.session.lease), (true, None, None));
    let again = super::reconcilers::ordered(Node { state, ..node() }.later(1_000));
    let without = |action: &Action| matches!(action, Action::Store(StoreAction::Release { session: None, .. }));
    assert!(again.iter().any(without), "{again:?}");
}

#[test]
fn a_release_that_was_refused_or_not_answered_spends_the_tenure_as_one_that_was_done() {
    let Action::Store(release) = release() else { panic!("a release is an order to the store") };
    for outcome in [Outcome::Done(StoreDone::Released), conflict(), unknown()] {
        let node = Node::handing_over().with(|state| {
            (state.memory.start_failures, state.memory.handover_announced) = (2, Some(at(0)));
        });
        let state = ended(node, release.clone(), outcome);
        assert_eq!((&state.tenure, state.spent), (&Tenure::None, Some(OURS)));
        assert_eq!((state.memory.start_failures, state.memory.handover_announced), (0, None));
    }
    let put = StoreAction::PutStatus { epoch: EPOCH, status: status() };
    let with_history =
        StoreAction::PutHistory { epoch: EPOCH, revision: Revision(0), lines: Vec::new(), status: status() };
    for told in [put, with_history] {
        let told = ended(Node::primary().later(7), told, written());
        assert_eq!(told.session.status_at, at(7));
    }
}

/// The proof of a renewal is a reading of the keys: as new as its question, where that is newer.
#[test]
fn a_renewal_makes_the_keys_no_newer_that_was_sent_no_later_than_they_were_read() {
    let heard = |asked: u64| {
        let mut node = Node::primary().later(9);
        node.state.store.cluster.as_mut().expect("it was seen").asked = at(asked);
        let renew = StoreAction::Renew { lease: OURS, epoch: EPOCH, deadline: seconds(10) };
        let proven = Outcome::Done(StoreDone::Renewed { ttl: seconds(30), revision: Revision(100) });
        ended(node.later(1), renew, proven).store.cluster.map(|seen| (seen.asked, seen.heard))
    };
    assert_eq!([0, 5].map(heard), [Some((at(0), at(0))), Some((at(5), at(0)))]);
}

/// The bug: a node heard nothing of the store while the key was released to the operator's candidate and ended with that
/// one's lease. It took the two absences for one, and had waited long enough for the candidate before it was gone.
#[test]
fn who_led_unseen_was_the_last_leader() {
    let seen = |epoch: Option<EpochRecord>| {
        let mut node = Node::racing().with(|state| {
            state.memory.leaderless = leaderless_since(at(0));
            state.store.vanished = Some(Vanished { heard: at(0), who: Member::new("b"), released: None });
        });
        node = node.later(500);
        let mut view = cluster(130);
        view.epoch = epoch;
        node.step(watched(&node, view));
        let memory = &node.state.memory;
        let last = node.state.store.vanished.as_ref().map(|last| last.who.to_string());
        (
            memory.leaderless.is_some_and(|began| began.since == node.now),
            memory.race.map(|(absent_at, _)| absent_at.0),
            last.unwrap(),
        )
    };
    let led = |name: &str, epoch| Some(epoch_record(name, Revision(epoch)));
    assert_eq!(seen(led("c", 110)), (true, Some(130), "c".into()));
    // The record is another one: what was answered before it was written counts no more, as long as nobody led since.
    let same = |absent_at| (false, Some(absent_at), "b".into());
    assert_eq!(seen(None), same(101));
    assert_eq!(seen(led("c", 90)), same(130), "before what was seen");
    assert_eq!(seen(led("c", 101)), same(130), "with what was seen");
    assert_eq!(seen(led("c", 140)), same(130), "no revision of this store yet");
    let other = led("c", 110).map(|record| EpochRecord { store: StoreId(2), ..record });
    assert_eq!(seen(other), same(130), "copied from another store");
}

/// The same of `status`: one that lagged won where whoever had led, and whoever had all of it, were lost together.
#[test]
fn what_the_status_has_told_outlives_its_key() {
    let told = |change: fn(&mut ClusterView)| {
        let mut before = keys(101, None);
        before.epoch = Some(epoch_record("b", THEIR_EPOCH));
        let optime = crate::id::Lsn(HERE.0 + (2 << 20));
        before.status = Some(StatusKey { optime, ..StatusKey::default() });
        let mut node = Node::racing();
        node.step(watched(&node, before.clone()));
        let mut after = ClusterView { revision: Revision(102), ..before };
        change(&mut after);
        node.step(watched(&node, after));
        let cluster = node.view().cluster().expect("the keys are known");
        node.view().told_status(cluster).is_some_and(|status| status.optime == optime)
    };
    assert!(told(|_| ()) && told(|keys| keys.status = None));
    assert!(told(|keys| keys.status = Some(StatusKey { revision: Revision(102), ..StatusKey::default() })));
    let lower = |keys: &mut ClusterView| keys.status.as_mut().expect("it is told").optime = HERE;
    assert!(!told(lower), "an operator's candidate has led since");
    assert!(!told(|keys| (keys.status, keys.epoch, keys.initialize) = (None, None, None)));
    assert!(!told(|keys| (keys.status, keys.rollbacks) = (None, keys.rollbacks + 1)));
}

/// The bug: an operator deleted `history` while nobody led, and who had left the leaders' branch won by its bare position.
#[test]
fn what_the_history_has_told_outlives_its_key() {
    let line = HistoryLine {
        timeline: crate::id::Timeline(1),
        end: HERE,
        reason: String::new(),
        timestamp: None,
        leader: None,
    };
    let told = |change: fn(&mut ClusterView)| {
        let mut before = keys(101, None);
        before.epoch = Some(epoch_record("b", THEIR_EPOCH));
        before.history = HistoryKey { revision: Revision(101), lines: vec![line.clone()], ..HistoryKey::default() };
        let mut node = Node::racing();
        node.step(watched(&node, before.clone()));
        let mut after = ClusterView { revision: Revision(102), ..before };
        after.history = HistoryKey::default();
        change(&mut after);
        node.step(watched(&node, after));
        let cluster = node.view().cluster().expect("the keys are known");
        node.view().told_history(cluster).len()
    };
    assert_eq!(told(|_| ()), 1);
    assert_eq!(told(|keys| keys.epoch = None), 1);
    assert_eq!(told(|keys| keys.initialize = None), 1);
    let gone = |keys: &mut ClusterView| (keys.epoch, keys.initialize) = (None, None);
    assert_eq!(told(gone), 0, "nothing is left of that cluster");
    let garbled = |keys: &mut ClusterView| (keys.history.revision, keys.history.unreadable) = (Revision(102), true);
    assert_eq!(told(garbled), 1);
    let written = |keys: &mut ClusterView| keys.history.revision = Revision(102);
    assert_eq!(told(written), 0, "a leader on a first timeline has written that");
    assert_eq!(told(|keys| keys.rollbacks += 1), 0, "it may never have been told");
    let another = |keys: &mut ClusterView| {
        keys.initialize.as_mut().expect("it is told").system_id = Some(SystemId(1));
    };
    assert_eq!(told(another), 0);
}

/// A node that led a cluster which is gone, and is a member of another now, goes by what its disk tells of that one.
#[test]
fn what_the_disk_tells_of_a_cluster_that_is_gone_is_voided() {
    let file = |system_id: u64, keys: ClusterView| {
        let mut node = Node::standby();
        node.state.epoch_file = Some(EpochFile { system_id: SystemId(system_id), ..epoch_file() });
        let effects = node.step(watched(&node, keys));
        let writes = actions(&effects).iter().any(|action| matches!(action, Action::Host(HostAction::WriteEpoch(_))));
        (node.state.epoch_file.map(|file| file.store), writes)
    };
    assert_eq!(file(7, led_by("b", 101)), (Some(StoreId(0)), true));
    assert_eq!(file(SYSTEM.0, led_by("b", 101)), (Some(STORE), false));
    let untold = ClusterView { initialize: None, ..led_by("b", 101) };
    assert_eq!(file(7, untold), (Some(STORE), false), "nothing tells which cluster this is");
}

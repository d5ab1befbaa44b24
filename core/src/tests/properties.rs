//! Properties of every rung and every reconciler, over the views of `proof.rs`: a usual situation with a list of facts
//! replaced. What fails is cut down to the few facts that matter.

use proptest::prelude::*;

use super::calm::{Calm, calm_of};
use super::proof::{CHANGES_MAX, LATER, node_of};
use crate::action::{Action, GuardAction, HostAction, Lane, PeerAction, PostgresAction, StoreAction};
use crate::decide::{self, Fate, LADDER, Verdict};
use crate::id::{LeaseId, Lsn, Revision};
use crate::lease::Tenure;
use crate::reason::Reason;
use crate::state::Granted;
use crate::testing::*;
use crate::time::Seen;
use crate::view::View;
use crate::view::guard::Armed;
use crate::view::postgres::{DataDir, Process, Slot};
use crate::view::store::EpochRecord;

fn any_view() -> impl Strategy<Value = Node> {
    let changes = prop::collection::btree_map(0..CHANGES_MAX, any::<u64>(), 0..8);
    (0..6u64, prop::sample::select(&LATER[..]), changes)
        .prop_map(|(usual, later, changes)| node_of(usual, later, &changes))
}

/// What every rung would conclude.
fn verdicts(node: &Node) -> Vec<Option<Verdict>> {
    LADDER.iter().map(|row| (row.decide)(&node.view())).collect()
}

/// The same without numbers, which may grow.
fn codes(node: &Node) -> Vec<Option<(&'static str, Fate, bool)>> {
    verdicts(node).into_iter().map(|verdict| verdict.map(|v| (v.reason.code(), v.fate, v.steady))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No rung looks at what is only told: numbers of operations, stale completions, the last decision.
    #[test]
    fn the_verdict_of_a_rung_depends_on_facts_alone(node in any_view(), burnt in 1u64..100) {
        let mut other = node.clone();
        other.state.decision = None;
        other.state.ops.stale += burnt;
        for _ in 0..burnt {
            other.state.ops.number();
        }
        prop_assert_eq!(verdicts(&node), verdicts(&other));
    }

    /// Once what was ordered is in flight, no rung says anything else at the same instant, not only the one that
    /// concludes: a rung below it would be next where that one falls silent. When that is after a first step already is
    /// told by [`calm_of`].
    #[test]
    fn the_verdict_of_every_rung_is_stable(node in any_view()) {
        let mut node = node;
        let before = node.clone();
        let first = node.tick();
        let calm = calm_of(&before, &first, &node);
        let said = codes(&node);
        let again = node.tick();
        prop_assert!(calm.allows(&again), "{calm:?}: {:?} {:?}", again.decision, again.orders);
        if calm != Calm::Later {
            prop_assert_eq!(said, codes(&node));
        }
        // And after the consequences, whatever they were.
        node.tick();
        let said = codes(&node);
        let last = node.tick();
        prop_assert_eq!(said, codes(&node));
        prop_assert!(Calm::Now.allows(&last), "{:?} {:?}", last.decision, last.orders);
    }

    /// Each reconciler comes to its goal if what it orders is done, and orders nothing there.
    #[test]
    fn a_reconciler_orders_nothing_at_its_goal(node in any_view()) {
        for (name, reconciler) in RECONCILERS {
            let mut node = node.clone();
            // What is in flight is not ordered again: here everything ends at once.
            for lane in [Lane::Renew, Lane::Lead, Lane::Observe, Lane::Publish, Lane::PgObserve, Lane::Host] {
                node.state.ops.cancel(&lane);
            }
            let mut given = Vec::new();
            for _ in 0..ROUNDS_MAX {
                let orders: Vec<Action> = reconciler(&node.view()).into_iter().map(|(action, _)| action).collect();
                if orders.is_empty() {
                    break;
                }
                for action in &orders {
                    fulfil(&mut node, action);
                }
                given.extend(orders);
            }
            let rest = reconciler(&node.view());
            prop_assert!(rest.is_empty(), "{name} does not come to rest: {rest:?} after {given:?}");
        }
    }
}

/// Five slots, each dropped, made anew and advanced, one after the other, are the most that has to be done.
const ROUNDS_MAX: usize = 15;

type Reconciler = fn(&View<'_>) -> Vec<(Action, Reason)>;
const RECONCILERS: [(&str, Reconciler); 8] = [
    ("members", |view| decide::members::order(view).into_iter().collect()),
    ("cluster_keys", |view| decide::cluster_keys::order(view).into_iter().collect()),
    ("history", |view| decide::history::order(view).into_iter().collect()),
    ("params", |view| decide::params::order(view).into_iter().collect()),
    ("slots", |view| decide::slots::order(view).into_iter().collect()),
    ("observe, steady", |view| decide::observe::orders(view, true)),
    ("observe, not steady", |view| decide::observe::orders(view, false)),
    ("tenure", |view| decide::tenure::orders(view, &decide::decide(view).1)),
];

/// The facts as they are once an order has been carried out.
fn fulfil(node: &mut Node, action: &Action) {
    match action {
        Action::Store(action) => in_the_store(node, action),
        Action::Postgres(action) => in_postgresql(node, action),
        Action::Guard(action) => at_the_guard(node, action),
        Action::Host(HostAction::WriteEpoch(file)) => {
            node.state.epoch_file = Some(*file);
            node.state.memory.void_due = false;
        }
        Action::Host(HostAction::StartGuard) => (node.state.guard.present, node.state.guard.gone) = (true, None),
        Action::Peer(PeerAction::AskStatus { member, .. }) => {
            let seen = Seen::new(answer(HERE, None), node.now, node.now);
            node.state.peers.answers.insert(member.clone(), seen);
            node.state.peers.answered = node.now;
        }
        other => panic!("no reconciler orders {other:?}"),
    }
}

fn in_the_store(node: &mut Node, action: &StoreAction) {
    let (state, now) = (&mut node.state, node.now);
    state.store.answered = now;
    let cluster = state.store.cluster.get_or_insert_with(|| Seen::new(cluster(101), now, now));
    match action {
        StoreAction::Read => {
            (cluster.asked, cluster.heard) = (now, now);
            state.memory.store_doubt = None;
        }
        StoreAction::GrantSession { ttl } => {
            (state.session.lease, state.session.ttl, state.session.kept) = (Some(LeaseId(100)), *ttl, now);
            state.session.published = None;
        }
        StoreAction::KeepSession { .. } => state.session.kept = now,
        StoreAction::PutMember { record, .. } => {
            (state.session.published, state.session.published_at) = (Some(record.clone()), now);
        }
        StoreAction::PutStatus { .. } => state.session.status_at = now,
        StoreAction::PutHistory { lines, .. } => {
            cluster.value.history.lines.clone_from(lines);
            state.session.status_at = now;
        }
        StoreAction::ClearFailover { .. } => cluster.value.failover = None,
        StoreAction::CompleteInitialize { system_id, .. } => {
            let initialize = crate::view::store::Initialize {
                revision: Revision(5),
                lease: LeaseId(0),
                system_id: Some(*system_id),
            };
            (cluster.value.initialize, cluster.value.config_revision) = (Some(initialize), Revision(6));
        }
        StoreAction::Renew { .. } => {
            if let Tenure::Held(held) = &mut state.tenure {
                held.confirmed = now;
            }
        }
        StoreAction::GrantTenure { ttl } => {
            state.granted = Some(Granted { lease: LeaseId(9), ttl: *ttl, asked: now });
        }
        StoreAction::Release { .. } => {
            cluster.value.leader = None;
            state.spend_tenure();
        }
        StoreAction::Revoke { .. } => state.spent = None,
        StoreAction::Reserve { epoch, unguarded, .. } => {
            cluster.value.epoch = Some(EpochRecord { unguarded: *unguarded, ..epoch_record("a", *epoch) });
        }
        StoreAction::Vouch { record, .. } => {
            cluster.value.epoch = Some(EpochRecord { unguarded: false, ..record.clone() });
        }
        other => panic!("no reconciler orders {other:?}"),
    }
}

fn in_postgresql(node: &mut Node, action: &PostgresAction) {
    let (state, now) = (&mut node.state, node.now);
    let slots = state.postgres.sql.as_mut().map(|seen| &mut seen.value.slots);
    match (action, slots) {
        (PostgresAction::Observe, _) => {
            let sql = state.postgres.sql.take().map_or_else(primary_sql, |seen| seen.value);
            state.postgres.sql = Some(Seen::new(sql, now, now));
        }
        (PostgresAction::Look, _) => {
            if state.postgres.process == Process::Unknown {
                state.postgres.process = Process::Absent;
            }
            state.memory.data_in_doubt = None;
            if matches!(state.postgres.data, DataDir::Unknown | DataDir::Foreign(_)) {
                state.postgres.data = DataDir::Empty;
            }
        }
        (PostgresAction::Configure { generation }, _) => state.memory.configured = *generation,
        (PostgresAction::CreateSlot(name), Some(slots)) => {
            slots.push(Slot { name: name.clone(), physical: true, restart: Lsn(1), ..Slot::default() });
        }
        (PostgresAction::AdvanceSlot { slot, to }, Some(slots)) => {
            let slot = slots.iter_mut().find(|known| known.name == *slot).expect("it is there");
            assert!(*to > slot.restart, "a slot moves forwards only");
            slot.restart = *to;
        }
        (PostgresAction::DropSlot(name), Some(slots)) => slots.retain(|slot| slot.name != *name),
        (other, _) => panic!("no reconciler orders {other:?}"),
    }
}

fn at_the_guard(node: &mut Node, action: &GuardAction) {
    let guard = &mut node.state.guard;
    match action {
        GuardAction::Arm { tenure, at } => guard.armed = Some(Armed { tenure: *tenure, at: *at }),
        GuardAction::Disarm => guard.armed = None,
        GuardAction::Resume => (guard.held, guard.hold_in_doubt) = (false, false),
        other => panic!("no reconciler orders {other:?}"),
    }
}

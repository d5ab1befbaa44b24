//! A second step at the same instant: when it has nothing to say, and what it may say otherwise.

use super::proof::{VIEWS, any_node};
use super::random::Random;
use crate::action::{Action, GuardAction, HostAction, Lane, PostgresAction, StoreAction};
use crate::effects::Effects;
use crate::testing::Node;
use crate::view::postgres::StartAs;

#[test]
fn a_second_step_at_the_same_instant_orders_nothing_new() {
    let mut random = Random(3);
    let (mut at_once, mut after_one) = (0, 0);
    for number in 0..VIEWS {
        let mut node = any_node(&mut random);
        let before = node.clone();
        let first = node.tick();
        let second = calm_of(&before, &first, &node);
        at_once += usize::from(second == Calm::Now);
        after_one += usize::from(second != Calm::Later);
        let after = node.state.decision.clone();
        let again = node.tick();
        let told =
            || format!("view {number}: {after:?} then {:?}, {:?}\n{:#?}", again.decision, again.orders, before.state);
        assert!(second.allows(&again), "{}", told());
        // After the consequences, calm.
        node.tick();
        let last = node.tick();
        assert!(Calm::Now.allows(&last), "{}", told());
    }
    assert!(at_once * 3 > VIEWS && after_one * 5 > VIEWS * 3, "calm after one step: {at_once}, {after_one} of {VIEWS}");
}

/// What may follow a step at the same instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Calm {
    /// Nothing.
    Now,
    /// Nothing is ordered; that what was ordered is under way may be told.
    Told,
    /// As [`Calm::Told`], or writes are held.
    Held,
    /// Consequences.
    Later,
}

impl Calm {
    pub(super) fn allows(self, again: &Effects) -> bool {
        let allowed = |action: &Action| match action {
            // Nothing ends it but the process's end.
            Action::Host(HostAction::Exit { .. }) => true,
            // Contact is sought more often then.
            Action::Guard(GuardAction::Hold) | Action::Store(StoreAction::Renew { .. }) => self == Self::Held,
            _ => false,
        };
        self == Self::Later
            || (again.orders.iter().all(|order| allowed(&order.action))
                && again.cancelled.is_empty()
                && (self != Self::Now || again.decision.is_none()))
    }
}

/// After most steps a second one has nothing to say. Not after these, which is why three steps were taken before anything
/// was compared once:
///
/// - The step ended the tenure or took up or ended a request: it does so for what the ladder concluded, and what the ladder
///   concludes without the tenure, or for the request, is the next step's.
/// - An order took the place of one under way (an immediate stop that of a start): what that one left is unknown from then
///   on, and the ladder goes by facts.
/// - What was ordered is under way: rungs wait for an operation in words of their own (`clone_running`, `releasing`).
/// - A server that may write was started or promoted while nobody answers. Isolation counts where there may be writes, and
///   that is so from the order on: the first step starts it, the second holds it. The price is a start that waits until
///   somebody answers; nothing is acknowledged meanwhile.
pub(super) fn calm_of(before: &Node, first: &Effects, after: &Node) -> Calm {
    let (was, is) = (&before.state, &after.state);
    let requests = was.requests != is.requests
        || was.position_asked != is.position_asked
        || was.scheduled_restart != is.scheduled_restart;
    if was.tenure != is.tenure || requests || !first.cancelled.is_empty() {
        return Calm::Later;
    }
    let any = |is: fn(&Action) -> bool| first.orders.iter().any(|order| is(&order.action));
    let writes = any(|action| {
        matches!(action, Action::Postgres(PostgresAction::Start(StartAs::Primary) | PostgresAction::Promote { .. }))
    });
    if writes {
        return Calm::Held;
    }
    let epoch = any(|action| matches!(action, Action::Host(HostAction::WriteEpoch(_))));
    if epoch || any(|action| matches!(action.lane(), Some(Lane::PgControl | Lane::Lead))) {
        return Calm::Told;
    }
    Calm::Now
}

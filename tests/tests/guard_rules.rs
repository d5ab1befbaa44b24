//! The guard of the simulator arms, holds and refuses by the rules of the real one: random orders are given to both.

use matriarch::guard::authority::Authority;
use matriarch_core::action::GuardAction;
use matriarch_core::event::GuardEvent;
use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use matriarch_sim::guard::{Guard, Obeyed};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Order {
    Arm { tenure: i64, at: u64, instead_of: Option<i64> },
    Disarm { tenure: i64 },
    Hold,
    Resume,
    Fire,
    Wait(u64),
}

fn orders() -> impl Strategy<Value = Vec<Order>> {
    let tenure = || 0..4_i64;
    let order = prop_oneof![
        6 => (tenure(), 0..40_u64, prop::option::of(tenure()))
            .prop_map(|(tenure, at, instead_of)| Order::Arm { tenure, at, instead_of }),
        3 => tenure().prop_map(|tenure| Order::Disarm { tenure }),
        2 => Just(Order::Hold),
        2 => Just(Order::Resume),
        1 => Just(Order::Fire),
        2 => (1..10_u64).prop_map(Order::Wait),
    ];
    prop::collection::vec(order, 1..40)
}

/// What the model's guard was told to do, and whether it took it.
fn obeys(guard: &mut Guard, action: &GuardAction, instead_of: Option<i64>, now: Instant) -> bool {
    !matches!(guard.obey(action, instead_of.map(LeaseId), now), Obeyed::Report(GuardEvent::Refused(_)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn the_simulated_guard_takes_and_refuses_what_the_real_one_does(orders in orders()) {
        let (mut real, mut model, mut now) = (Authority::default(), Guard::default(), Instant(1));
        for order in orders {
            if let Order::Wait(for_ns) = order {
                now = Instant(now.0 + for_ns);
                continue;
            }
            prop_assert_eq!(real.is_due(now), model.is_due(now));
            let due = real.is_due(now);
            let (taken, by_model) = match &order {
                // Whoever has an order for it finds that its end has come: the fence falls instead.
                _ if due => (false, obeys(&mut model, &GuardAction::Resume, None, now)),
                Order::Arm { tenure, at, instead_of } => {
                    let (tenure, at) = (LeaseId(*tenure), Instant(*at));
                    let taken = real.arm(tenure, at, instead_of.map(LeaseId), now).is_ok();
                    (taken, obeys(&mut model, &GuardAction::Arm { tenure, at }, *instead_of, now))
                }
                Order::Disarm { tenure } => {
                    let taken = real.disarm(LeaseId(*tenure)).is_ok();
                    (taken, obeys(&mut model, &GuardAction::Disarm, Some(*tenure), now))
                }
                Order::Hold => (real.hold().is_ok(), obeys(&mut model, &GuardAction::Hold, None, now)),
                Order::Resume => {
                    real.resume();
                    (true, obeys(&mut model, &GuardAction::Resume, None, now))
                }
                Order::Fire => (true, obeys(&mut model, &GuardAction::Fire, None, now)),
                Order::Wait(_) => unreachable!("it is no order"),
            };
            prop_assert_eq!(taken, by_model, "{:?} at {:?}", order, now);
            if due || matches!(order, Order::Fire) {
                prop_assert!(model.firing);
                real.fire(now, 0);
                model.fire();
            }
            let armed = real.armed().map(|armed| (armed.tenure, armed.at));
            prop_assert_eq!(armed, model.armed.map(|armed| (armed.tenure, armed.at)));
            prop_assert_eq!(real.is_held(), model.held);
            prop_assert_eq!(real.last_fired().and_then(|fired| fired.tenure), model.fired);
        }
    }
}

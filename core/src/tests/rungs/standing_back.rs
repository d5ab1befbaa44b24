//! Who stands back in a race, for whom and for how long; and who does not.

use super::*;

#[test]
fn who_may_not_lead_follows_whoever_leads() {
    let node = Node::standby().config(|config| config.nofailover = true);
    assert_eq!(node.concludes(), (Rung::Follow, "following", Fate::Keep));
}

/// The priority decides among equals; nobody waits for one that holds less.
#[test]
fn who_holds_more_does_not_wait_for_a_higher_priority() {
    let node = Node::racing().config(|config| config.failover_priority = 0);
    assert_eq!(node.concludes().1, "asking_lease");
}

/// A switchover to anybody is away from one: all others race.
#[test]
fn of_a_switchover_to_anybody_only_the_one_that_gave_leadership_away_stands_back() {
    let asked = |leader: &str| {
        let request = failover(Some(leader), None);
        Node::racing().cluster(|cluster| cluster.failover = Some(request)).concludes().1
    };
    assert_eq!((asked("a"), asked("b")), ("candidate_is_other", "asking_lease"));
}

/// The key of `who`, a running primary by its record, vanished at the beginning.
fn vanished(who: &str) -> Node {
    let vanished = Vanished { heard: at(0), who: Member::new(who), released: None };
    Node::racing().with(|state| state.store.vanished = Some(vanished)).cluster(|cluster| {
        cluster.members.get_mut(&Member::new(who)).expect("it is a member").record.role = "primary".into();
    })
}

/// It will not take the key back.
#[test]
fn a_holder_that_is_gone_or_says_nothing_gets_no_grace() {
    let b = Member::new("b");
    assert_eq!(vanished("b").later(299).concludes().1, "vanish_grace");
    let gone = vanished("b").with(|state| {
        state.peers.unreachable.insert(b.clone(), at(0));
    });
    assert_eq!(gone.concludes().1, "asking_lease");
    let silent = vanished("b").with(|state| drop(state.peers.answers.remove(&b)));
    assert_eq!(silent.clone().later(149).concludes().1, "vanish_grace");
    let (_, verdict) = silent.clone().later(150).decide();
    assert_eq!(verdict.reason.code(), "collecting_positions", "it is asked as any other, and waited for no longer");
    // And nobody waits for itself.
    assert_eq!(vanished("a").concludes().1, "asking_lease");
}

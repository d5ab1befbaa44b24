//! The ladder as a whole: its order and names, and what `/why` tells of every rung.

use super::*;
use crate::decide::{LADDER, explain};

/// Who watches `/why` and the decisions in the log goes by these names; the order is the one that the docs give.
#[test]
fn the_rungs_have_the_names_and_the_order_that_operators_know() {
    let names: Vec<_> = LADDER.iter().map(|row| row.rung.name()).collect();
    let known = [
        "fence",
        "unsupported",
        "pause",
        "identity",
        "isolated",
        "startup",
        "busy",
        "bootstrap",
        "switchover",
        "leader",
        "race",
        "rewind",
        "follow",
    ];
    assert_eq!(names, known);
    assert!(LADDER.windows(2).all(|pair| pair[0].rung < pair[1].rung));
    assert!(LADDER.iter().all(|row| !row.precondition.is_empty()));
}

/// Also of those below the one that concludes: who wonders why a node does not race sees what keeps it from that.
#[test]
fn why_tells_of_every_rung_and_the_first_that_says_something_concludes() {
    for node in [Node::primary(), Node::standby(), Node::racing(), Node::stopped(), empty()] {
        let told = explain(&node.view());
        assert!(told.iter().map(|(rung, when, _)| (*rung, *when)).eq(LADDER.iter().map(|r| (r.rung, r.precondition))));
        let (rung, verdict) = node.decide();
        let first = told.iter().find_map(|(rung, _, reason)| Some((*rung, reason.clone()?)));
        assert_eq!(first, Some((rung, verdict.reason)));
        assert!(told.last().is_some_and(|(.., reason)| reason.is_some()), "the last rung concludes always");
    }
}

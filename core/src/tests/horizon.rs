//! A store that answers from the past, and when it is believed.

use core::time::Duration;

use crate::horizon::{Horizon, News, Standing};
use crate::id::{Revision, StoreId};
use crate::time::Instant;

fn told(store_id: u64, raft_term: u64, revision: i64) -> Standing {
    Standing { store_id: StoreId(store_id), raft_term, revision: Revision(revision) }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn ask(horizon: &mut Horizon<&'static str>, seconds: u64, answer: Standing) -> Option<u64> {
    horizon.admit(horizon.floor(), answer, "e1", at(seconds)).believed.ok()
}

/// Every ten seconds in between the same is told, and not believed.
fn tells(horizon: &mut Horizon<&'static str>, seconds: std::ops::Range<u64>, answer: Standing) {
    for seconds in seconds.step_by(10) {
        assert_eq!(ask(horizon, seconds, answer), None, "{seconds}");
    }
}

/// Tenures last for 30 seconds, and the store has told how far it is.
fn informed() -> Horizon<&'static str> {
    let mut horizon = Horizon::default();
    horizon.allow_tenure(Duration::from_secs(30));
    assert_eq!(ask(&mut horizon, 0, told(1, 4, 100)), Some(0));
    horizon
}

#[test]
fn the_past_is_believed_when_it_was_all_that_answered_for_as_long_as_a_tenure() {
    let mut horizon = informed();
    horizon.allow_tenure(Duration::from_secs(3));
    assert!(horizon.admit_watch(told(1, 4, 99)), "a watch may lag in revisions");
    assert!(!horizon.is_told_the_past());
    for past in [told(1, 4, 99), told(1, 3, 200)] {
        assert_eq!(ask(&mut horizon, 1, past), None);
        assert!(!horizon.admit_watch(past), "what is not believed is not believed of a watch either");
        assert!(horizon.is_told_the_past());
    }
    tells(&mut horizon, 1..31, told(1, 4, 99));
    // A member that knows of the present answers: the other one is wrong, and the time begins anew.
    assert_eq!(horizon.admit(horizon.floor(), told(1, 4, 101), "e2", at(30)).believed.ok(), Some(0));
    tells(&mut horizon, 59..89, told(1, 2, 50));
    assert_eq!(ask(&mut horizon, 88, told(1, 2, 50)), None);
    assert_eq!(ask(&mut horizon, 89, told(1, 2, 50)), Some(1));
    assert_eq!(ask(&mut horizon, 89, told(1, 2, 51)), Some(1));
    assert!(horizon.admit_watch(told(1, 2, 51)));
}

#[test]
fn a_silence_of_half_a_tenure_begins_the_time_anew() {
    let mut horizon = informed();
    let past = told(1, 2, 50);
    for seconds in [1, 16] {
        assert_eq!(ask(&mut horizon, seconds, past), None);
    }
    assert_eq!(
        ask(&mut horizon, 32, past),
        None,
        "16 seconds: others may have led in that past, and been lost with it"
    );
    tells(&mut horizon, 33..62, past);
    assert_eq!(ask(&mut horizon, 62, past), Some(1));
}

#[test]
fn a_store_that_answers_now_and_then_is_believed_all_the_same() {
    let mut horizon = informed();
    let past = told(1, 2, 50);
    for seconds in [100, 150, 200] {
        assert_eq!(ask(&mut horizon, seconds, past), None, "silent for longer than 15 and 30 seconds: {seconds}");
    }
    assert_eq!(ask(&mut horizon, 250, past), Some(1));
}

#[test]
fn a_store_that_is_restored_once_more_begins_the_time_anew() {
    let mut horizon = informed();
    tells(&mut horizon, 1..31, told(1, 2, 50));
    assert_eq!(ask(&mut horizon, 30, told(1, 2, 40)), None, "another past, in which nobody knows of the first one");
    tells(&mut horizon, 31..60, told(1, 2, 45));
    assert_eq!(ask(&mut horizon, 60, told(1, 2, 45)), Some(1));
}

#[test]
fn answers_of_one_past_that_overtake_each_other_are_no_other_past() {
    let mut horizon = informed();
    tells(&mut horizon, 1..21, told(1, 2, 50));
    let asked = horizon.floor();
    assert_eq!(ask(&mut horizon, 25, told(1, 2, 52)), None);
    assert_eq!(horizon.admit(asked, told(1, 2, 51), "e1", at(25)).believed.ok(), None);
    assert_eq!(ask(&mut horizon, 31, told(1, 2, 52)), Some(1));
}

#[test]
fn answers_that_overtake_each_other_are_no_past() {
    let mut horizon = Horizon::default();
    let asked = horizon.floor();
    assert_eq!(ask(&mut horizon, 0, told(1, 4, 100)), Some(0));
    assert_eq!(horizon.admit(asked, told(1, 4, 90), "e1", at(0)).believed.ok(), Some(0));
    assert_eq!(ask(&mut horizon, 0, told(1, 4, 99)), None, "the floor did not sink");
    let mut horizon = Horizon::default();
    let asked = horizon.floor();
    assert_eq!(ask(&mut horizon, 0, told(1, 4, 100)), Some(0));
    assert_eq!(horizon.admit(asked, told(1, 3, 100), "e1", at(0)).believed.ok(), Some(0));
    assert_eq!(ask(&mut horizon, 0, told(1, 3, 100)), None, "nor by the answer of a member that missed an election");
}

#[test]
fn what_was_asked_before_the_past_was_believed_begins_no_time_anew() {
    let mut horizon = informed();
    tells(&mut horizon, 1..31, told(1, 2, 50));
    let sent = horizon.floor();
    assert_eq!(ask(&mut horizon, 31, told(1, 2, 60)), Some(1));
    assert_eq!(horizon.admit(sent, told(1, 2, 61), "e1", at(32)).believed.ok(), Some(1));
    assert_eq!(horizon.admit(sent, told(1, 2, 59), "e1", at(32)).believed.ok(), None, "older than what is believed");
    assert_eq!(ask(&mut horizon, 33, told(1, 2, 62)), Some(1), "and nothing is begun by that either");
    assert_eq!(
        horizon.admit(sent, told(1, 5, 101), "e2", at(34)).believed.ok(),
        Some(1),
        "a member that knows of the future"
    );
    assert_eq!(ask(&mut horizon, 35, told(1, 2, 63)), None);
}

#[test]
fn another_store_is_the_past_and_one_that_passes_the_floor_stays_it() {
    let mut horizon = Horizon::default();
    horizon.allow_tenure(Duration::from_secs(30));
    assert_eq!(ask(&mut horizon, 0, told(1, 2, 100)), Some(0));
    tells(&mut horizon, 1..31, told(2, 2, 300));
    assert!(!horizon.admit_watch(told(2, 2, 300)));
    assert_eq!(ask(&mut horizon, 31, told(2, 2, 301)), Some(1));
    assert_eq!(ask(&mut horizon, 40, told(2, 2, 290)), None, "restored, with the raft term that it had");
    assert_eq!(ask(&mut horizon, 41, told(2, 2, 310)), None, "and written to since");
    tells(&mut horizon, 50..70, told(2, 2, 310));
    assert_eq!(ask(&mut horizon, 70, told(2, 2, 320)), Some(2));
}

/// An operator hears of each change once.
#[test]
fn what_changes_is_told_once() {
    let mut horizon = informed();
    let mut news = |seconds, answer| horizon.admit(horizon.floor(), answer, "e1", at(seconds)).news;
    let past = told(1, 2, 50);
    let told = [
        (1, told(1, 4, 101), None),
        (2, past, Some(News::Past(Duration::from_secs(30)))),
        (3, past, None),
        (20, past, Some(News::Silence)),
        (21, told(1, 2, 40), Some(News::PastAgain)),
        (40, told(1, 2, 40), None),
        (51, told(1, 2, 40), Some(News::Believed)),
        (52, told(1, 2, 41), None),
    ];
    for (seconds, answer, expected) in told {
        assert_eq!(news(seconds, answer), expected, "{seconds}");
    }
}

/// Its revision may lag.
#[test]
fn a_watch_goes_on_that_is_of_this_store_and_of_no_earlier_term() {
    assert!(Horizon::<&str>::default().admit_watch(told(7, 1, 1)), "nothing is known yet");
    let mut horizon = informed();
    let floor = horizon.floor().standing;
    let mut is_current = |store_id, raft_term| horizon.admit_watch(told(store_id, raft_term, 1));
    assert!(is_current(floor.store_id.0, floor.raft_term) && is_current(floor.store_id.0, floor.raft_term + 1));
    assert!(
        !is_current(floor.store_id.0, floor.raft_term - 1) && !is_current(floor.store_id.0 + 1, floor.raft_term + 1)
    );
}

/// The bug: the store was restored to before what a watch had told, and not to before its last answer. Whoever had heard that
/// watch believed every answer, and took none of them in.
#[test]
fn what_a_watch_has_told_is_no_past() {
    let mut horizon = informed();
    assert!(horizon.admit_watch(told(1, 9, 140)));
    assert_eq!(horizon.floor().standing, told(1, 4, 140), "a member that is cut off counts elections of its own");
    tells(&mut horizon, 1..31, told(1, 5, 120));
    assert_eq!(ask(&mut horizon, 31, told(1, 5, 121)), Some(1));
    let mut horizon = informed();
    let sent = horizon.floor();
    assert!(horizon.admit_watch(told(1, 4, 140)));
    let late = horizon.admit(sent, told(1, 4, 120), "e1", at(1));
    assert_eq!(late.believed, Ok(0), "it was asked before");
    let mut unknown = Horizon::<&str>::default();
    assert!(unknown.admit_watch(told(7, 1, 9)));
    assert_eq!(unknown.floor().standing, Standing::default(), "nothing has answered yet");
}

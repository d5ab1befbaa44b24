//! Orders beside each other: which takes the place of which, how long each is waited for, and what a failure keeps back.

use std::collections::BTreeSet;

use crate::absorb::kind;
use crate::action::{Action, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::id::{Member, Revision};
use crate::testing::*;
use crate::view::postgres::{StartAs, StopMode};

fn asks_position() -> Action {
    let (member, api_url) = (Member::new("b"), String::new());
    Action::Peer(PeerAction::AskPosition { member, api_url, pledges: true, absent_at: Revision(101) })
}

fn asks_status() -> Action {
    Action::Peer(PeerAction::AskStatus { member: Member::new("b"), api_url: String::new() })
}

fn awaits_replay() -> Action {
    let (member, api_url) = (Member::new("b"), String::new());
    Action::Peer(PeerAction::AwaitReplay { member, api_url, pledges: true, beyond: HERE, deadline: seconds(4) })
}

#[test]
fn an_order_takes_the_place_of_what_matters_less_and_of_nothing_else() {
    use PostgresAction::*;
    let (now, fast) = (Stop(StopMode::Immediate), Stop(StopMode::Fast));
    let (follow, start) = (Follow(Some(upstream("b"))), Start(StartAs::Standby(Some(upstream("b")))));
    let role = [start.clone(), Start(StartAs::Primary), Promote { timeline: crate::id::Timeline(2) }, Freeze];
    let advance = AdvanceSlot { slot: "b".into(), to: HERE };
    let small = [Configure { generation: 1 }, Checkpoint, Compare(upstream("b")), follow.clone()];
    let small = [&small[..], &[CreateSlot("b".into()), DropSlot("b".into()), advance]].concat();
    let long = [Initdb, Clone(upstream("b")), Rewind(upstream("b")), RecoverSingleUser, Restart, CreateRoles];
    let all = [&[now.clone(), fast.clone()], &role[..], &small[..], &long[..]].concat();
    for mine in &all {
        for theirs in &all {
            let expected = (*mine == now && *theirs != now)
                || (*mine == fast && ![&now, &fast].contains(&theirs))
                || (role.contains(mine) && small.contains(theirs))
                || (*mine == follow && *theirs == start);
            let preempts = Action::Postgres(mine.clone()).preempts(&Action::Postgres(theirs.clone()));
            assert_eq!(preempts, expected, "{mine:?} before {theirs:?}");
        }
    }
    let questions = [asks_position(), asks_status(), awaits_replay()];
    for mine in &questions {
        for theirs in &questions {
            let expected = (mine, theirs) == (&questions[0], &questions[1]);
            assert_eq!(mine.preempts(theirs), expected, "{mine:?} before {theirs:?}");
        }
    }
}

#[test]
fn an_answer_is_waited_for_as_long_as_it_may_take_and_no_longer() {
    let waits = |action: Action| action.deadline(seconds(10));
    assert_eq!(waits(renewal()), seconds(15), "an attempt of 10 s, and a second one that began within");
    assert_eq!(waits(awaits_replay()), millis(4_500), "the peer's own limit, and the way back");
    assert_eq!(waits(Action::Store(StoreAction::Read)), seconds(2));
    assert_eq!(Action::Store(StoreAction::Read).deadline(seconds(1)), seconds(1));
    let epoch = Action::Host(HostAction::WriteEpoch(epoch_file()));
    assert_eq!([release(), epoch, asks_position()].map(waits), [seconds(10); 3]);
    assert_eq!(waits(Action::Postgres(PostgresAction::Observe)), seconds(5));
    let clone = Action::Postgres(PostgresAction::Clone(upstream("b")));
    assert_eq!(waits(clone), seconds(604_800), "a week: it ends by itself");
    assert_eq!(waits(Action::Guard(GuardAction::Hold)), seconds(0));
}

#[test]
fn what_failed_keeps_only_its_own_kind_waiting() {
    let kinds = [
        renewal(),
        release(),
        Action::Store(StoreAction::Read),
        Action::Store(StoreAction::Revoke { lease: OURS }),
        Action::Store(StoreAction::GrantSession { ttl: seconds(30) }),
        Action::Postgres(PostgresAction::Observe),
        Action::Postgres(PostgresAction::Freeze),
        Action::Postgres(PostgresAction::Stop(StopMode::Fast)),
        Action::Postgres(PostgresAction::CreateSlot("b".into())),
        Action::Postgres(PostgresAction::AdvanceSlot { slot: "b".into(), to: HERE }),
        Action::Postgres(PostgresAction::Configure { generation: 1 }),
        Action::Postgres(PostgresAction::Compare(upstream("b"))),
        promotion(),
        Action::Host(HostAction::StartGuard),
        Action::Guard(GuardAction::Fire),
        Action::Guard(GuardAction::Hold),
        awaits_replay(),
        asks_status(),
    ];
    assert_eq!(kinds.iter().map(kind).collect::<BTreeSet<_>>().len(), kinds.len());
}

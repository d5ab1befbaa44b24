//! Orders, and why one was refused, in words: imperative and short, for the log, `/why` and the golden scripts alike.

use core::fmt;

use crate::action::{Action, Answer, GuardAction, HostAction, PeerAction, PostgresAction, StoreAction};
use crate::op::Refusal;
use crate::view::postgres::{StartAs, StopMode, Upstream};

impl Action {
    /// Whether it is done all the time: what remains of the orders without these is the story.
    pub fn is_routine(&self) -> bool {
        match self {
            Self::Store(action) => matches!(
                action,
                StoreAction::Read
                    | StoreAction::Renew { .. }
                    | StoreAction::GrantSession { .. }
                    | StoreAction::KeepSession { .. }
                    | StoreAction::PutMember { .. }
                    | StoreAction::PutStatus { .. }
            ),
            Self::Postgres(action) => matches!(
                action,
                PostgresAction::Observe
                    | PostgresAction::Look
                    | PostgresAction::Configure { .. }
                    | PostgresAction::CreateSlot(_)
                    | PostgresAction::DropSlot(_)
                    | PostgresAction::AdvanceSlot { .. }
            ),
            Self::Host(_) | Self::Guard(_) | Self::Peer(_) | Self::Answer(..) => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(action) => action.fmt(f),
            Self::Postgres(action) => action.fmt(f),
            Self::Host(action) => action.fmt(f),
            Self::Guard(action) => action.fmt(f),
            Self::Peer(action) => action.fmt(f),
            Self::Answer(_, answer) => answer.fmt(f),
        }
    }
}

impl fmt::Display for StoreAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read the keys of the cluster"),
            Self::GrantTenure { .. } => f.write_str("ask the store for a lease"),
            Self::Acquire(acquire) => write!(f, "create the leader key under lease {}", acquire.lease),
            Self::TakeOver { lease, .. } => write!(f, "put lease {lease} under the leader key"),
            Self::Renew { lease, .. } => write!(f, "renew tenure {lease}"),
            Self::Release { epoch, position, .. } => {
                write!(f, "delete the leader key of epoch {epoch}, final position {position}")
            }
            Self::Revoke { lease } => write!(f, "revoke lease {lease}"),
            Self::GrantSession { .. } => f.write_str("ask the store for a lease for the member record"),
            Self::KeepSession { lease } => write!(f, "keep lease {lease} of the member record alive"),
            Self::PutMember { .. } => f.write_str("publish the member record"),
            Self::RaceInitialize { .. } => f.write_str("ask for the right to initialise the cluster"),
            Self::CompleteInitialize { system_id, .. } => write!(f, "publish system identifier {system_id}"),
            Self::AbandonInitialize { .. } => f.write_str("give the right to initialise back"),
            Self::PutStatus { status, .. } => write!(f, "publish position {}", status.position),
            Self::Reserve { newest_timeline, unguarded, .. } => {
                let how = if *unguarded { ", without a guard" } else { "" };
                write!(f, "reserve timeline {newest_timeline}{how}")
            }
            Self::Vouch { record, .. } => write!(f, "nothing writes under epoch {} any more", record.epoch),
            Self::PutHistory { lines, status, .. } => {
                let (count, plural) = (lines.len(), if lines.len() == 1 { "" } else { "s" });
                write!(f, "publish {count} line{plural} of history and position {}", status.position)
            }
            Self::PutFailover { .. } => f.write_str("write the operator's request"),
            Self::ClearFailover { .. } => f.write_str("clear the operator's request"),
        }
    }
}

impl fmt::Display for PostgresAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |upstream: &Option<Upstream>| upstream.as_ref().map_or("nobody".into(), |u| u.member.0.clone());
        match self {
            Self::Observe => f.write_str("ask PostgreSQL how it is"),
            Self::Look => f.write_str("look at process and data directory"),
            Self::Initdb => f.write_str("initdb"),
            Self::CreateRoles => f.write_str("create the roles of the new cluster"),
            Self::Restore => f.write_str("restore"),
            Self::Clone(upstream) => write!(f, "clone from {}", upstream.member),
            Self::Start(StartAs::Primary) => f.write_str("start PostgreSQL as primary"),
            Self::Start(StartAs::Standby(upstream)) => write!(f, "start PostgreSQL as standby of {}", of(upstream)),
            Self::Stop(StopMode::Fast) => f.write_str("stop PostgreSQL"),
            Self::Stop(StopMode::Immediate) => f.write_str("stop PostgreSQL the hard way"),
            Self::Restart => f.write_str("restart PostgreSQL"),
            Self::Promote { timeline } => write!(f, "promote PostgreSQL onto timeline {timeline}"),
            Self::Follow(upstream) => write!(f, "point the standby to {}", of(upstream)),
            Self::Freeze => f.write_str("stop the WAL receiver for good"),
            Self::Checkpoint => f.write_str("checkpoint"),
            Self::Compare(upstream) => write!(f, "compare the history with {}'s", upstream.member),
            Self::RecoverSingleUser => f.write_str("recover in single-user mode"),
            Self::Rewind(upstream) => write!(f, "rewind to {}", upstream.member),
            Self::Configure { .. } => f.write_str("write PostgreSQL's configuration"),
            Self::CreateSlot(name) => write!(f, "create slot {name}"),
            Self::DropSlot(name) => write!(f, "drop slot {name}"),
            Self::AdvanceSlot { slot, to } => write!(f, "advance slot {slot} to {to}"),
        }
    }
}

impl fmt::Display for HostAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WriteEpoch(file) => write!(f, "write epoch {} to disk", file.epoch),
            Self::WritePledge(_) => f.write_str("write the pledge to disk"),
            Self::StartGuard => f.write_str("start a guard"),
            Self::Exit { code, message } => write!(f, "leave with code {code}: {message}"),
        }
    }
}

impl fmt::Display for GuardAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arm { tenure, at } => write!(f, "guard: stop PostgreSQL at {at} (tenure {tenure})"),
            Self::Disarm => f.write_str("guard: disarm"),
            Self::Hold => f.write_str("guard: hold the writes"),
            Self::Resume => f.write_str("guard: let the writes go on"),
            Self::Fire => f.write_str("guard: kill PostgreSQL now"),
            Self::KillOrphans => f.write_str("guard: kill what the dead postmaster left behind"),
        }
    }
}

impl fmt::Display for PeerAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AskPosition { member, .. } => write!(f, "ask {member} for its position and its pledge"),
            Self::AskStatus { member, .. } => write!(f, "ask {member} how it is"),
            Self::AwaitReplay { member, beyond, .. } => {
                write!(f, "ask {member} to tell when it has replayed beyond {beyond}")
            }
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { status, body } => write!(f, "answer {status}: {body}"),
            Self::Position(answer) => match answer.pledge {
                Some(revision) => write!(f, "answer: I am at {}, pledged at revision {revision}", answer.flushed),
                None => write!(f, "answer: I am at {}, without a pledge", answer.flushed),
            },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict => f.write_str("another came first"),
            Self::LeaseGone => f.write_str("its lease does not exist any more"),
            Self::NotOurTenure => f.write_str("the tenure that it was ordered under is over"),
            Self::Failed(why) | Self::Vetoed(why) => f.write_str(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{LeaseId, Lsn, Member, RequestId, Revision};
    use crate::testing::{answer, at, upstream};
    use std::string::ToString;

    /// The bug: `Start(Standby(Some(Upstream { member: Member("n1"), ..` in the log.
    #[test]
    fn an_order_is_told_in_words_and_not_as_it_is_written_in_rust() {
        let postgres = Action::Postgres;
        let cases = [
            (
                postgres(PostgresAction::Start(StartAs::Standby(Some(upstream("n1"))))),
                "start PostgreSQL as standby of n1",
            ),
            (postgres(PostgresAction::Start(StartAs::Standby(None))), "start PostgreSQL as standby of nobody"),
            (postgres(PostgresAction::Clone(upstream("n1"))), "clone from n1"),
            (postgres(PostgresAction::Follow(Some(upstream("n1")))), "point the standby to n1"),
            (postgres(PostgresAction::Configure { generation: 7 }), "write PostgreSQL's configuration"),
            (postgres(PostgresAction::DropSlot("n2".into())), "drop slot n2"),
            (postgres(PostgresAction::AdvanceSlot { slot: "n2".into(), to: Lsn(7) }), "advance slot n2 to 0/7"),
            (Action::Store(StoreAction::Revoke { lease: LeaseId(7) }), "revoke lease 7"),
            (Action::Store(StoreAction::KeepSession { lease: LeaseId(7) }), "keep lease 7 of the member record alive"),
            (Action::Host(HostAction::WritePledge(Some(Revision(7)))), "write the pledge to disk"),
            (
                Action::Answer(RequestId(1), Answer::Position(answer(Lsn(0x10), Some(Revision(7))))),
                "answer: I am at 0/10, pledged at revision 7",
            ),
        ];
        for (action, sentence) in cases {
            assert_eq!(action.to_string(), sentence);
        }
        let armed = GuardAction::Arm { tenure: LeaseId(7), at: at(1) }.to_string();
        assert!(armed.starts_with("guard: stop PostgreSQL at ") && armed.ends_with(" (tenure 7)"), "{armed}");
        let asks = PeerAction::AskStatus { member: Member::new("b"), api_url: "http://b".into() };
        assert_eq!(asks.to_string(), "ask b how it is");
        assert_eq!(Refusal::NotOurTenure.to_string(), "the tenure that it was ordered under is over");
    }

    #[test]
    fn what_is_routine_is_neither_a_change_of_role_nor_of_leadership() {
        assert!(Action::Store(StoreAction::Read).is_routine());
        assert!(Action::Postgres(PostgresAction::Observe).is_routine());
        assert!(!Action::Postgres(PostgresAction::Promote { timeline: crate::id::Timeline(2) }).is_routine());
        assert!(!Action::Store(StoreAction::Revoke { lease: LeaseId(7) }).is_routine());
        assert!(!Action::Guard(GuardAction::Fire).is_routine());
    }
}

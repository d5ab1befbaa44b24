//! What has been seen to happen: a run in which nothing did is no evidence.

use std::collections::BTreeMap;

use matriarch_core::action::{Action, PostgresAction, StoreAction};
use matriarch_core::effects::Decision;
use matriarch_core::op::Outcome;
use matriarch_core::reason::Reason;

use crate::store::{Reply, Request};

/// Counts, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Coverage {
    /// Things that happened.
    pub events: BTreeMap<&'static str, u64>,
    /// Reasons that core gave for its decisions, by code.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Orders.
    pub orders: BTreeMap<&'static str, u64>,
    /// Orders by what came of them.
    pub outcomes: BTreeMap<(&'static str, &'static str), u64>,
}

impl Coverage {
    /// Something happened.
    pub fn count(&mut self, what: &'static str) {
        *self.events.entry(what).or_default() += 1;
    }

    /// How often something happened.
    pub fn of(&self, what: &str) -> u64 {
        self.events.get(what).copied().unwrap_or(0)
    }

    /// Core decided.
    pub fn decided(&mut self, decision: &Decision) {
        *self.reasons.entry(decision.reason.code()).or_default() += 1;
    }

    /// Core ordered.
    pub fn ordered(&mut self, action: &Action) {
        *self.orders.entry(kind(action)).or_default() += 1;
    }

    /// Work on PostgreSQL ended.
    pub fn ended<T>(&mut self, action: &PostgresAction, outcome: &Outcome<T>) {
        let what = match outcome {
            Outcome::Done(_) => "done",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        };
        *self.outcomes.entry((postgres(action), what)).or_default() += 1;
    }

    /// The store applied a request, or refused it.
    pub fn applied(&mut self, request: &Request, reply: &Reply) {
        let kind = match request {
            Request::Order { action, .. } => store(action),
            Request::KeepAlive(_) => "keep_alive",
            Request::Proof { .. } => "proof",
        };
        let what = if matches!(reply, Reply::Refused(_) | Reply::Instead(_)) { "refused" } else { "done" };
        *self.outcomes.entry((kind, what)).or_default() += 1;
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in &other.events {
            *self.events.entry(name).or_default() += count;
        }
        for (name, count) in &other.reasons {
            *self.reasons.entry(name).or_default() += count;
        }
        for (name, count) in &other.orders {
            *self.orders.entry(name).or_default() += count;
        }
        for (name, count) in &other.outcomes {
            *self.outcomes.entry(*name).or_default() += count;
        }
    }

    /// The reasons of core that were never given for a decision.
    pub fn missing_reasons(&self) -> Vec<&'static str> {
        Reason::CODES.iter().copied().filter(|code| !self.reasons.contains_key(code)).collect()
    }
}

/// The kind of an order.
pub fn kind(action: &Action) -> &'static str {
    match action {
        Action::Store(action) => store(action),
        Action::Postgres(action) => postgres(action),
        Action::Host(action) => match action {
            matriarch_core::action::HostAction::WriteEpoch(_) => "write_epoch",
            matriarch_core::action::HostAction::WritePledge(_) => "write_pledge",
            matriarch_core::action::HostAction::StartGuard => "start_guard",
            matriarch_core::action::HostAction::Exit { .. } => "exit",
        },
        Action::Guard(action) => match action {
            matriarch_core::action::GuardAction::Arm { .. } => "arm",
            matriarch_core::action::GuardAction::Disarm => "disarm",
            matriarch_core::action::GuardAction::Hold => "hold",
            matriarch_core::action::GuardAction::Resume => "resume",
            matriarch_core::action::GuardAction::Fire => "fire",
            matriarch_core::action::GuardAction::KillOrphans => "kill_orphans",
        },
        Action::Peer(action) => match action {
            matriarch_core::action::PeerAction::AskPosition { .. } => "ask_position",
            matriarch_core::action::PeerAction::AskStatus { .. } => "ask_status",
            matriarch_core::action::PeerAction::AwaitReplay { .. } => "await_replay",
        },
        Action::Answer(..) => "answer",
    }
}

fn store(action: &StoreAction) -> &'static str {
    match action {
        StoreAction::Read => "read",
        StoreAction::GrantTenure { .. } => "grant_tenure",
        StoreAction::Acquire(_) => "acquire",
        StoreAction::TakeOver { .. } => "take_over",
        StoreAction::Renew { .. } => "renew",
        StoreAction::Release { .. } => "release",
        StoreAction::Revoke { .. } => "revoke",
        StoreAction::GrantSession { .. } => "grant_session",
        StoreAction::KeepSession { .. } => "keep_session",
        StoreAction::PutMember { .. } => "put_member",
        StoreAction::RaceInitialize { .. } => "race_initialize",
        StoreAction::CompleteInitialize { .. } => "complete_initialize",
        StoreAction::AbandonInitialize { .. } => "abandon_initialize",
        StoreAction::PutStatus { .. } => "put_status",
        StoreAction::Reserve { .. } => "reserve",
        StoreAction::PutHistory { .. } => "put_history",
        StoreAction::PutFailover { .. } => "put_failover",
        StoreAction::ClearFailover { .. } => "clear_failover",
    }
}

fn postgres(action: &PostgresAction) -> &'static str {
    match action {
        PostgresAction::Observe => "observe",
        PostgresAction::Look => "look",
        PostgresAction::Initdb => "initdb",
        PostgresAction::CreateRoles => "create_roles",
        PostgresAction::Clone(_) => "clone",
        PostgresAction::Start(matriarch_core::view::postgres::StartAs::Primary) => "start_primary",
        PostgresAction::Start(_) => "start_standby",
        PostgresAction::Stop(_) => "stop",
        PostgresAction::Restart => "restart",
        PostgresAction::Promote { .. } => "promote",
        PostgresAction::Follow(_) => "follow",
        PostgresAction::Freeze => "freeze",
        PostgresAction::Checkpoint => "checkpoint",
        PostgresAction::Compare(_) => "compare",
        PostgresAction::RecoverSingleUser => "recover_single_user",
        PostgresAction::Rewind(_) => "rewind",
        PostgresAction::Configure { .. } => "configure",
        PostgresAction::CreateSlot(_) => "create_slot",
        PostgresAction::DropSlot(_) => "drop_slot",
    }
}

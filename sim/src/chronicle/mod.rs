//! What happened, as data, for the page that shows a run (`html`): each node's state from one change to the next, faults,
//! decisions, orders and what came of them. It is kept for whoever asks for it, and changes nothing of what happens.
//!
//! Times are microseconds of true time. Texts are kept once and named by their number: core says the same thing often.

mod states;

use std::collections::BTreeMap;

use matriarch_core::action::{Action, GuardAction, HostAction, PostgresAction, StoreAction};
use matriarch_core::effects::{Decision, Effects, Order};
use matriarch_core::event::{Event, GuardEvent, HostEvent, PeerEvent, PostgresEvent, StoreEvent};
use matriarch_core::id::OpId;
use matriarch_core::op::Outcome;
use serde::Serialize;

pub use states::{AgentState, GuardState, Lease, Member, NodeState, Postgres, Server, StoreState};

use crate::coverage;
use crate::node::NodeId;
use crate::time::Time;
use crate::trace::shortened;

/// The number of a text.
pub type TextId = usize;

/// Something that happened: when, the symbol of its kind as in a trace, and what.
pub type Note = (u64, char, TextId);

/// Everything that is shown of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Chronicle {
    /// What the numbers of texts stand for.
    pub texts: Vec<String>,
    #[serde(skip)]
    text_ids: BTreeMap<String, TextId>,
    /// By node.
    pub nodes: Vec<NodeStory>,
    /// The store, from each of its changes on.
    pub store: Vec<(u64, StoreState)>,
    /// What happened to the world.
    pub notes: Vec<Note>,
    /// Faults of the plan that struck, in the order in which they did.
    pub strikes: Vec<Strike>,
    /// When the faults were over and everything healed.
    pub healed: Option<u64>,
}

/// What happened on a node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NodeStory {
    /// Its state, from each change on.
    pub states: Vec<(u64, NodeState)>,
    /// What its agent decided; no decision is in force while it has none.
    pub decisions: Vec<Decided>,
    /// What its agent ordered.
    pub orders: Vec<Ordered>,
    /// What else happened.
    pub notes: Vec<Note>,
    /// When it acknowledged commits; each as the time since the one before.
    pub acknowledged: Vec<u64>,
    /// Which of those the last primary does not hold.
    pub lost: Vec<usize>,
    /// Orders whose end has not been heard of.
    #[serde(skip)]
    open: BTreeMap<OpId, usize>,
    /// Orders to the guard, which answers them one after the other and names none of them.
    #[serde(skip)]
    asked_guard: Vec<(GuardAction, usize)>,
    #[serde(skip)]
    last_acknowledged: u64,
}

/// A decision: when, its rung, its code, and its sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Decided(pub u64, pub Option<(TextId, TextId, TextId)>);

/// Whom an order is to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum To {
    /// The store.
    Store,
    /// PostgreSQL.
    Postgres,
    /// The guard.
    Guard,
    /// Other agents, operators, and this node's disk.
    Others,
}

impl To {
    fn of(action: &Action) -> Self {
        match action {
            Action::Store(_) => Self::Store,
            Action::Postgres(_) => Self::Postgres,
            Action::Guard(_) | Action::Host(HostAction::StartGuard) => Self::Guard,
            Action::Host(_) | Action::Peer(_) | Action::Answer(..) => Self::Others,
        }
    }
}

fn is_routine(action: &Action) -> bool {
    use StoreAction::{KeepSession, PutMember, PutStatus, Read, Renew};
    matches!(
        action,
        Action::Store(Read | PutMember { .. } | PutStatus { .. } | KeepSession { .. } | Renew { .. })
            | Action::Postgres(PostgresAction::Observe | PostgresAction::Look)
            | Action::Guard(GuardAction::Arm { .. })
    )
}

/// An order. It is written as a list without names: there are thousands.
#[derive(Clone, Debug)]
pub struct Ordered {
    /// When it was given.
    pub at: u64,
    /// Its kind, as in `coverage`.
    pub kind: TextId,
    /// Whom it is to.
    pub to: To,
    /// Agents give it all the time: it is of interest only if it goes wrong.
    pub routine: bool,
    /// All of it.
    pub what: TextId,
    /// Why it was given: a sentence.
    pub because: TextId,
    /// When its end was heard of, and what came of it; `None`: never.
    pub end: Option<(u64, Came, Option<TextId>)>,
}

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.at, self.kind, self.to, self.routine, self.what, self.because, self.end).serialize(serializer)
    }
}

/// What came of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// It was done.
    Done,
    /// It was not done, and will not be.
    Refused,
    /// Nobody knows.
    Unknown,
    /// Another took its lane.
    Cancelled,
    /// The agent that gave it is gone.
    Orphaned,
}

/// A fault that struck.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Strike {
    /// Which of the plan.
    pub fault: usize,
    /// When.
    pub at: u64,
    /// When it was over, or the run was, if it went on.
    pub until: Option<u64>,
    /// Where; `None`: to the store or the network.
    pub node: Option<usize>,
}

/// Microseconds of true time.
pub fn us(time: Time) -> u64 {
    time.0 / 1000
}

impl Chronicle {
    fn text(&mut self, text: String) -> TextId {
        if let Some(id) = self.text_ids.get(&text) {
            return *id;
        }
        self.texts.push(text.clone());
        self.text_ids.insert(text, self.texts.len() - 1);
        self.texts.len() - 1
    }

    fn node(&mut self, node: NodeId) -> &mut NodeStory {
        if self.nodes.len() <= node.0 {
            self.nodes.resize_with(node.0 + 1, NodeStory::default);
        }
        &mut self.nodes[node.0]
    }

    /// Something happened, on a node or to the world.
    pub(crate) fn note(&mut self, at: Time, node: Option<NodeId>, symbol: char, text: String) {
        let note = (us(at), symbol, self.text(text));
        match node {
            Some(node) => self.node(node).notes.push(note),
            None => self.notes.push(note),
        }
    }

    /// A fault strikes.
    pub(crate) fn struck(&mut self, at: Time, fault: usize, node: Option<NodeId>) {
        self.strikes.push(Strike { fault, at: us(at), until: None, node: node.map(|node| node.0) });
    }

    /// A fault that went on is over.
    pub(crate) fn ended(&mut self, at: Time, fault: usize) {
        if let Some(strike) = self.strikes.iter_mut().rfind(|strike| strike.fault == fault) {
            strike.until = Some(us(at));
        }
    }

    /// Everything heals.
    pub(crate) fn healed(&mut self, at: Time) {
        self.healed = Some(us(at));
    }

    /// A commit was acknowledged.
    pub(crate) fn acknowledged(&mut self, at: Time, node: NodeId) {
        let (story, at) = (self.node(node), us(at));
        story.acknowledged.push(at - story.last_acknowledged);
        story.last_acknowledged = at;
    }

    /// Core decided.
    pub(crate) fn decided(&mut self, at: Time, node: NodeId, decision: &Decision) {
        let rung = self.text(decision.rung.name().to_owned());
        let code = self.text(decision.reason.code().to_owned());
        let sentence = self.text(decision.reason.to_string());
        self.node(node).decisions.push(Decided(us(at), Some((rung, code, sentence))));
    }

    /// Core ordered.
    pub(crate) fn ordered(&mut self, at: Time, node: NodeId, order: &Order) {
        let kind = self.text(coverage::kind(&order.action).to_owned());
        let what = self.text(shortened(format!("{:?}", order.action)));
        let because = self.text(order.because.to_string());
        let story = self.node(node);
        let index = story.orders.len();
        let (to, routine) = (To::of(&order.action), is_routine(&order.action));
        story.orders.push(Ordered { at: us(at), kind, to, routine, what, because, end: None });
        match &order.action {
            Action::Guard(action) => story.asked_guard.push((action.clone(), index)),
            action if action.lane().is_some() => _ = story.open.insert(order.op, index),
            // It is handed over at once, and ends there.
            _ => story.orders[index].end = Some((us(at), Came::Done, None)),
        }
    }

    /// Core heard something: it may be the end of an order.
    pub(crate) fn heard(&mut self, at: Time, node: NodeId, event: &Event) {
        match event {
            Event::Store(StoreEvent::Completed { op, outcome, .. }) => self.came(at, node, *op, told(outcome)),
            Event::Host(HostEvent::Completed { op, outcome }) => self.came(at, node, *op, told(outcome)),
            Event::Postgres(PostgresEvent::Completed { op, outcome }) => self.came(at, node, *op, told(outcome)),
            Event::Peer(PeerEvent::Answered { op, outcome, .. }) => self.came(at, node, *op, told(outcome)),
            Event::Postgres(PostgresEvent::Answered { op, sql }) => {
                let came = if sql.is_some() { (Came::Done, None) } else { (Came::Unknown, None) };
                self.came(at, node, *op, came);
            }
            Event::Guard(event) => self.guard_said(at, node, event),
            _ => {}
        }
    }

    fn came(&mut self, at: Time, node: NodeId, op: OpId, (came, why): (Came, Option<String>)) {
        if let Some(index) = self.node(node).open.remove(&op) {
            let why = why.map(|why| self.text(why));
            self.node(node).orders[index].end = Some((us(at), came, why));
        }
    }

    /// The guard answers in the order in which it was asked, but for a fence, which it never refuses: it ends when all is
    /// dead, whatever else is answered meanwhile.
    fn guard_said(&mut self, at: Time, node: NodeId, event: &GuardEvent) {
        let answers = |asked: &GuardAction| match event {
            GuardEvent::Armed(_) => matches!(asked, GuardAction::Arm { .. }),
            GuardEvent::Disarmed => *asked == GuardAction::Disarm,
            GuardEvent::Held => *asked == GuardAction::Hold,
            GuardEvent::Resumed => *asked == GuardAction::Resume,
            GuardEvent::Fired { .. } => *asked == GuardAction::Fire,
            GuardEvent::OrphansDead => *asked == GuardAction::KillOrphans,
            GuardEvent::Refused(_) => *asked != GuardAction::Fire,
            GuardEvent::Connected { .. } | GuardEvent::Stuck { .. } | GuardEvent::Gone => false,
        };
        let (came, why) = match event {
            GuardEvent::Refused(why) => (Came::Refused, Some(self.text(why.clone()))),
            _ => (Came::Done, None),
        };
        let story = self.node(node);
        if let Some(place) = story.asked_guard.iter().position(|(asked, _)| answers(asked)) {
            let (_, index) = story.asked_guard.remove(place);
            story.orders[index].end = Some((us(at), came, why));
        }
        // Another guard knows of none of them.
        if matches!(event, GuardEvent::Gone | GuardEvent::Connected { .. }) {
            story.asked_guard.clear();
        }
    }

    /// A step pre-empted operations.
    pub(crate) fn stepped(&mut self, at: Time, node: NodeId, effects: &Effects) {
        for op in &effects.cancelled {
            self.came(at, node, *op, (Came::Cancelled, None));
        }
    }

    /// An agent is gone: nothing that it decided is in force, and nobody hears what comes of its orders.
    pub(crate) fn agent_gone(&mut self, at: Time, node: NodeId) {
        let story = self.node(node);
        let guards = std::mem::take(&mut story.asked_guard).into_iter().map(|(_, index)| index);
        for index in std::mem::take(&mut story.open).into_values().chain(guards) {
            story.orders[index].end = Some((us(at), Came::Orphaned, None));
        }
        story.decisions.push(Decided(us(at), None));
    }
}

fn told<T>(outcome: &Outcome<T>) -> (Came, Option<String>) {
    match outcome {
        Outcome::Done(_) => (Came::Done, None),
        Outcome::Refused(refusal) => (Came::Refused, Some(format!("{refusal:?}"))),
        Outcome::Unknown(why) => (Came::Unknown, Some(why.clone())),
    }
}

//! What happened: a hash of it always, so that two runs can be compared; lines of it for whoever reads; a chronicle of it
//! for a page. What is kept changes neither the hash nor the run.

use std::hash::{Hash, Hasher};

use matriarch_core::effects::{Decision, Effects, Order};
use matriarch_core::event::Event;

use crate::chronicle::Chronicle;
use crate::node::NodeId;
use crate::time::Time;
use crate::world::World;

/// A line of what happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// When, in true time.
    pub at: Time,
    /// Where; `None`: to the world.
    pub node: Option<NodeId>,
    /// What kind of thing, at a glance.
    pub symbol: char,
    /// What.
    pub text: String,
}

/// A record of a run.
#[derive(Clone, Debug)]
pub struct Trace {
    lines: Option<Vec<Line>>,
    hash: Digest,
    /// From when lines are kept.
    from: Time,
    chronicle: Option<Box<Chronicle>>,
}

impl Trace {
    /// One that keeps nothing but the hash.
    pub fn hash_only() -> Self {
        Self { lines: None, hash: Digest::default(), from: Time(0), chronicle: None }
    }

    /// One that keeps every line.
    pub fn full() -> Self {
        Self { lines: Some(Vec::new()), ..Self::hash_only() }
    }

    /// One that keeps a chronicle as well.
    #[must_use]
    pub fn with_chronicle(self) -> Self {
        Self { chronicle: Some(Box::default()), ..self }
    }

    /// Whether lines are kept.
    pub fn is_full(&self) -> bool {
        self.lines.is_some()
    }

    /// The lines.
    pub fn lines(&self) -> &[Line] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// The hash of everything that core heard and ordered, and when.
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// The chronicle, if one was kept.
    pub fn chronicle(&self) -> Option<&Chronicle> {
        self.chronicle.as_deref()
    }

    /// Something happened on a node.
    pub fn note(&mut self, at: Time, node: NodeId, symbol: char, text: impl FnOnce() -> String) {
        (at, node, symbol).hash(&mut self.hash);
        self.told(at, Some(node), symbol, text);
    }

    /// Something happened to the world.
    pub fn world(&mut self, at: Time, symbol: char, text: impl FnOnce() -> String) {
        (at, symbol).hash(&mut self.hash);
        self.told(at, None, symbol, text);
    }

    fn told(&mut self, at: Time, node: Option<NodeId>, symbol: char, text: impl FnOnce() -> String) {
        if let Some(chronicle) = &mut self.chronicle {
            let text = text();
            chronicle.note(at, node, symbol, text.clone());
            self.line(at, node, symbol, || text);
        } else {
            self.line(at, node, symbol, text);
        }
    }

    fn line(&mut self, at: Time, node: Option<NodeId>, symbol: char, text: impl FnOnce() -> String) {
        if let Some(lines) = self.lines.as_mut().filter(|_| at >= self.from) {
            lines.push(Line { at, node, symbol, text: text() });
        }
    }

    /// A fault strikes.
    pub fn struck(&mut self, at: Time, fault: usize, node: Option<NodeId>) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.struck(at, fault, node);
        }
    }

    /// A fault that went on is over.
    pub fn ended(&mut self, at: Time, fault: usize) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.ended(at, fault);
        }
    }

    /// Everything heals.
    pub fn healed(&mut self, at: Time) {
        self.world(at, '=', || "everything heals".into());
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.healed(at);
        }
    }

    /// An agent is gone.
    pub fn agent_gone(&mut self, at: Time, node: NodeId) {
        self.note(at, node, '-', || "the agent is gone".into());
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.agent_gone(at, node);
        }
    }

    /// A commit was acknowledged.
    pub fn acknowledged(&mut self, at: Time, node: NodeId) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.acknowledged(at, node);
        }
    }

    /// What a step handed out.
    pub fn state(&mut self, at: Time, node: NodeId, effects: &Effects) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.stepped(at, node, effects);
        }
        (node, effects.wake.at, effects.orders.len()).hash(&mut self.hash);
        for order in &effects.orders {
            (order.op, &order.action).hash(&mut self.hash);
        }
    }

    /// What core hears. It is hashed as well: two runs that tell core different things and are ordered the same are not
    /// the same, and might differ in an order of any other seed.
    pub fn heard(&mut self, at: Time, node: NodeId, event: &Event) {
        (at, node, event).hash(&mut self.hash);
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.heard(at, node, event);
        }
        self.line(at, Some(node), '<', || shortened(format!("{event:?}")));
    }

    /// Another decision.
    pub fn decided(&mut self, at: Time, node: NodeId, decision: &Decision) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.decided(at, node, decision);
        }
        self.line(at, Some(node), ':', || {
            format!("{}/{}: {}", decision.rung.name(), decision.reason.code(), decision.reason)
        });
    }

    /// An order.
    pub fn ordered(&mut self, at: Time, node: NodeId, order: &Order) {
        if let Some(chronicle) = &mut self.chronicle {
            chronicle.ordered(at, node, order);
        }
        self.line(at, Some(node), '>', || {
            format!("{}  ({})", shortened(format!("{:?}", order.action)), order.because.code())
        });
    }
}

impl World {
    /// Looks at what has changed, for a chronicle.
    pub(crate) fn look_around(&mut self) {
        if let Some(mut chronicle) = self.trace.chronicle.take() {
            chronicle.look_at(self);
            self.trace.chronicle = Some(chronicle);
        }
    }

    /// The run is over: what a chronicle tells only then.
    pub(crate) fn look_back(&mut self) {
        if let Some(mut chronicle) = self.trace.chronicle.take() {
            chronicle.over(self);
            self.trace.chronicle = Some(chronicle);
        }
    }
}

pub(crate) fn shortened(mut text: String) -> String {
    if text.len() > 160 {
        text.truncate(text.floor_char_boundary(160));
        text.push_str(" ...");
    }
    text
}

/// A rotation and a multiplication for each word: the same everywhere and for ever. Events carry whole views of the keys,
/// which a byte at a time would be dear.
#[derive(Clone, Copy, Debug, Default)]
struct Digest(u64);

impl Digest {
    fn word(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.word(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        self.word(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        self.word(number);
    }

    fn write_usize(&mut self, number: usize) {
        self.word(number as u64);
    }
}

#[cfg(test)]
mod tests {
    use matriarch_core::effects::Wake;
    use matriarch_core::reason::Reason;
    use matriarch_core::time::WallMillis;

    use super::*;

    /// A step that orders nothing, whatever was heard.
    fn hears(event: &Event, at: u64) -> u64 {
        let mut trace = Trace::hash_only();
        let wake = Wake { at: None, because: Reason::AtGoal };
        let nothing = Effects { orders: Vec::new(), cancelled: Vec::new(), wake, decision: None };
        trace.heard(Time::from_ms(at), NodeId(0), event);
        trace.state(Time::from_ms(at), NodeId(0), &nothing);
        trace.hash()
    }

    /// The bug: what core heard was in no hash, and a world that told it something else every time was taken for the same
    /// as long as that changed no order.
    #[test]
    fn what_is_heard_counts_though_nothing_is_ordered() {
        let ticked = |wall: i64| Event::Ticked(WallMillis(wall));
        assert_eq!(hears(&ticked(1), 1), hears(&ticked(1), 1));
        let others = [hears(&ticked(2), 1), hears(&Event::ShutdownAsked, 1), hears(&ticked(1), 2)];
        assert!(!others.contains(&hears(&ticked(1), 1)));
    }

    #[test]
    fn what_is_longer_than_a_word_counts_to_its_end() {
        let of = |text: &str| {
            let mut digest = Digest::default();
            text.hash(&mut digest);
            digest.finish()
        };
        let texts = ["", "a", "12345678", "123456789", "123456780", "1234567890123456"];
        let distinct: std::collections::BTreeSet<u64> = texts.map(of).into();
        assert_eq!(distinct.len(), texts.len());
    }
}

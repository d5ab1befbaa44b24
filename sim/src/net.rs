//! The network: who reaches whom, and how long it takes. Connections are TCP's: what is sent over a link that is cut
//! waits for it, and comes when it is whole again, or never, if the connection has been given up by then.

use std::collections::BTreeMap;

use matriarch_core::time::Duration;

use crate::node::NodeId;
use crate::random::Stream;
use crate::time::Time;

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum End {
    /// A node's agent, its PostgreSQL, whatever runs on it.
    Node(NodeId),
    /// A member of the store.
    Store(usize),
    /// Clients.
    Client,
}

/// What a link carries: each plane can be cut alone, as firewalls do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Plane {
    /// Agents and the store.
    Store,
    /// Agents among each other.
    Agents,
    /// WAL.
    Replication,
    /// Clients and PostgreSQL.
    Clients,
}

/// A direction of a link.
pub type Link = (Plane, End, End);

/// The state of all links.
#[derive(Debug)]
pub struct Net {
    /// How often each direction is cut: cuts overlap.
    cuts: BTreeMap<Link, u32>,
    /// The usual and the largest delay, in microseconds.
    delay_us: (u64, u64),
    /// While the network is slow: how many times slower.
    pub slowness: u64,
    /// While it loses messages: so many of a hundred.
    pub loss_percent: u64,
    random: Stream,
}

impl Net {
    /// A whole network.
    pub fn new(delay_us: (u64, u64), random: Stream) -> Self {
        Self { cuts: BTreeMap::new(), delay_us, slowness: 1, loss_percent: 0, random }
    }

    /// Nothing passes this way.
    pub fn is_cut(&self, link: Link) -> bool {
        self.cuts.contains_key(&link)
    }

    /// Cuts a direction once more.
    pub fn cut(&mut self, link: Link) {
        *self.cuts.entry(link).or_default() += 1;
    }

    /// Mends one cut of a direction; true if it is whole now.
    pub fn mend(&mut self, link: Link) -> bool {
        match self.cuts.get_mut(&link) {
            Some(count) if *count > 1 => {
                *count -= 1;
                false
            }
            Some(_) => self.cuts.remove(&link).is_some(),
            None => false,
        }
    }

    /// The next message is lost, and its connection with it.
    pub fn loses(&mut self) -> bool {
        self.loss_percent > 0 && self.random.chance(self.loss_percent)
    }

    /// How long the next message takes.
    pub fn delay(&mut self) -> Duration {
        let us = drawn_us(self.delay_us, &mut self.random);
        Duration::from_micros(us * self.slowness)
    }

    /// The same, drawn from elsewhere.
    pub fn delay_of(&self, random: &mut Stream) -> Duration {
        Duration::from_micros(drawn_us(self.delay_us, random) * self.slowness)
    }

    /// Whether a connection over a link that was cut for so long is still there.
    pub fn survives(&mut self, cut_for: Duration) -> bool {
        // Keep-alives of HTTP/2 and deadlines give up after some ten seconds.
        cut_for < Duration::from_secs(10) && self.random.chance(60)
    }
}

/// Most messages are quick; one in fifty meets a queue.
fn drawn_us((usual, most): (u64, u64), random: &mut Stream) -> u64 {
    if random.chance(2) { random.between(usual, most) } else { random.between(usual / 2, usual * 2) }
}

/// A message that waits for its link.
#[derive(Debug)]
pub struct Waiting<T> {
    /// The link.
    pub link: Link,
    /// Since when.
    pub since: Time,
    /// What comes, if it comes.
    pub what: T,
}

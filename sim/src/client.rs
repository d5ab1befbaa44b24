//! Clients: one writes to each node, whatever it is told, and remembers what it was told. What two of them were
//! acknowledged decides, not what anybody believed.

use std::time::Duration;

use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::postgres::wal::{Place, Record, Serial};
use crate::time::Time;
use crate::world::{Due, World};

/// A client of one node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// The node.
    pub node: NodeId,
    /// A commit is under way.
    pub waiting: Option<Time>,
}

impl Client {
    /// A client of a node.
    pub fn new(node: NodeId) -> Self {
        Self { node, waiting: None }
    }
}

/// What a client was told of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledged {
    /// Its number.
    pub serial: Serial,
    /// By whom.
    pub node: NodeId,
    /// When the server acknowledged it.
    pub at: Time,
    /// Where it is in the WAL.
    pub place: Place,
}

/// Everything that was acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// In order.
    pub acknowledged: Vec<Acknowledged>,
    /// How many were refused or got no answer.
    pub failed: u64,
    /// The last that anybody acknowledged, and the longest time in which nobody did, since the faults ended.
    pub last: Time,
    serial: u64,
}

impl Ledger {
    /// Somebody asked for this row.
    pub fn was_asked(&self, serial: Serial) -> bool {
        serial.0 <= self.serial
    }
}

impl World {
    /// A client turns to its server.
    pub fn client_turns(&mut self, client: usize) {
        let pause = self.settings.commit_ms;
        let wait = Duration::from_millis(self.client_random.between(pause / 2, pause * 2));
        self.later(wait, Due::Client(client));
        let node = self.clients[client].node;
        // One that waits for an answer waits, but not for ever.
        if self.clients[client].waiting.is_some_and(|since| self.now.since(since) < Duration::from_secs(2)) {
            return;
        }
        // Nothing can come of a commit at a server that takes none: that it is asked costs time and tells nothing.
        if !self.nodes[node.0].server.can_acknowledge() {
            self.clients[client].waiting = None;
            return;
        }
        self.clients[client].waiting = Some(self.now);
        self.send((Plane::Clients, End::Client, End::Node(node)), Due::Commit(client));
    }

    /// A commit reaches its server.
    pub fn commit_arrives(&mut self, client: usize) {
        let node = self.clients[client].node;
        if self.nodes[node.0].server.stands_still() {
            // It is in the server's socket, and is read when its processes go on.
            self.nodes[node.0].deferred.push(Due::Commit(client));
            return;
        }
        self.clients[client].waiting = None;
        if !self.nodes[node.0].server.can_acknowledge() {
            self.ledger.failed += 1;
            return;
        }
        self.ledger.serial += 1;
        let serial = Serial(self.ledger.serial);
        if !self.writes(node, Record::Commit(serial)) {
            self.ledger.failed += 1;
            return;
        }
        let Some(place) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        // Acknowledged as soon as it is on disk here: replication is asynchronous.
        self.ledger.acknowledged.push(Acknowledged { serial, node, at: self.now, place });
        self.ledger.last = self.now;
        self.trace.acknowledged(self.now, node);
        self.pump(node);
    }
}

//! Clients: one writes to each node, whatever it is told, and remembers what it was told. What two of them were
//! acknowledged decides, not what anybody believed.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::mutant::Mutant;
use crate::net::{End, Plane};
use crate::node::NodeId;
use crate::postgres::wal::{Place, Record, Serial};
use crate::time::Time;
use crate::world::{Due, World};

/// For how long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// The node.
    pub node: NodeId,
    /// The commit that it waits for, and since when.
    pub waiting: Option<(Serial, Time)>,
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
    /// When it heard of it.
    pub at: Time,
    /// Where it is in the WAL.
    pub place: Place,
}

/// What a server says of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Said {
    /// It is there.
    Acknowledged(Place),
    /// It is not, and never will be.
    Refused,
}

/// What came of every commit that anybody asked for: each is acknowledged, refused for certain, or unknown. An unknown one
/// may be anywhere, or nowhere.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// What was acknowledged, in order.
    pub acknowledged: Vec<Acknowledged>,
    /// What was refused.
    pub refused: BTreeSet<Serial>,
    /// How many got no answer in time.
    pub unknown: u64,
    serial: u64,
}

impl Ledger {
    /// Somebody asked for this row, and was not told that it would not be.
    pub fn may_be(&self, serial: Serial) -> bool {
        serial.0 <= self.serial && !self.refused.contains(&serial)
    }

    fn next(&mut self) -> Serial {
        self.serial += 1;
        Serial(self.serial)
    }
}

impl World {
    /// A client turns to its server.
    pub fn client_turns(&mut self, client: usize) {
        let pause = self.settings.commit_ms;
        let wait = Duration::from_millis(self.client_random.between(pause / 2, pause * 2));
        self.later(wait, Due::Client(client));
        let node = self.clients[client].node;
        self.check_operations_end(node);
        // One that waits for an answer waits, but not for ever.
        if let Some((_, since)) = self.clients[client].waiting {
            if self.now.since(since) < PATIENCE {
                return;
            }
            self.clients[client].waiting = None;
            self.ledger.unknown += 1;
            self.coverage.count("commit without answer");
        }
        // Nothing can come of a commit at a server that takes none: that it is asked costs time and tells nothing.
        if !self.nodes[node.0].server.can_acknowledge() {
            return;
        }
        self.client_asks(client);
    }

    /// A client sends a commit, and waits for what comes of it.
    pub fn client_asks(&mut self, client: usize) -> Serial {
        let serial = self.ledger.next();
        let node = self.clients[client].node;
        self.clients[client].waiting = Some((serial, self.now));
        self.send((Plane::Clients, End::Client, End::Node(node)), Due::Commit { client, serial });
        serial
    }

    /// A commit reaches its server, whether or not its client still waits for it.
    pub fn commit_arrives(&mut self, client: usize, serial: Serial) {
        let node = self.clients[client].node;
        if self.nodes[node.0].server.stands_still() {
            // It is in the server's socket, and is read when its processes go on.
            self.nodes[node.0].deferred.push(Due::Commit { client, serial });
            return;
        }
        if !self.nodes[node.0].server.can_acknowledge() {
            if self.mutant == Some(Mutant::RefusedIsWritten) && self.nodes[node.0].server.is_primary() {
                self.writes(node, Record::Commit(serial));
            }
            self.server_says(client, serial, Said::Refused);
            return;
        }
        if !self.writes(node, Record::Commit(serial)) {
            // It died over it: nobody says anything.
            return;
        }
        let Some(place) = self.nodes[node.0].server.cluster().map(|on_disk| on_disk.end) else { return };
        // Acknowledged as soon as it is on disk here: replication is asynchronous.
        self.server_says(client, serial, Said::Acknowledged(place));
        self.pump(node);
    }

    fn server_says(&mut self, client: usize, serial: Serial, said: Said) {
        let link = (Plane::Clients, End::Node(self.clients[client].node), End::Client);
        let delay = self.net.delay_of(&mut self.reply_random);
        self.send_after(link, delay, Due::CommitReply { client, serial, said });
    }

    /// The client hears what came of its commit, unless it has given up.
    pub fn client_hears(&mut self, client: usize, serial: Serial, said: Said) {
        let Client { node, waiting } = self.clients[client];
        if waiting.is_none_or(|(waits_for, _)| waits_for != serial) {
            return;
        }
        self.clients[client].waiting = None;
        match said {
            Said::Acknowledged(place) => {
                self.ledger.acknowledged.push(Acknowledged { serial, node, at: self.now, place });
                self.trace.acknowledged(self.now, node);
            }
            Said::Refused => {
                self.coverage.count("commit refused");
                self.ledger.refused.insert(serial);
            }
        }
    }
}

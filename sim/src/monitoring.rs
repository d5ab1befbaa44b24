//! PostgreSQL is asked how it is, and answers what it was when it was asked: whoever hears that late hears of the past.

use std::time::Duration;

use matriarch_core::event::{Event, PostgresEvent};
use matriarch_core::id::OpId;
use matriarch_core::time::{Instant, Seen};
use matriarch_core::view::postgres::Sql;

use crate::node::{Message, NodeId};
use crate::time::ms;
use crate::world::{Due, ServerStep, World};

/// An agent waits for so long for an answer (the runtime's `SQL_DEADLINE`).
const DEADLINE_MS: u64 = 2000;

impl World {
    /// The monitoring query is on its way. A server that does not run, or not yet, refuses the connection.
    pub(crate) fn ask_postgres(&mut self, node: NodeId, op: OpId) {
        let asked = self.clock(node);
        let takes = Duration::from_micros(self.postgres_random.between(500, 5000));
        let server = &self.nodes[node.0].server;
        let pid = server.postmaster.as_ref().filter(|_| server.is_ready() || server.stands_still()).map(|pm| pm.pid);
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        agent.monitoring.insert(op);
        let boot = agent.boot;
        match pid {
            Some(pid) => {
                let what = ServerStep::Asked { op, boot, asked, back: takes / 2 };
                self.later(takes / 2, Due::Server { node, pid, what });
                self.tell(node, ms(DEADLINE_MS), Message::Observed { op, sql: None });
            }
            None => self.tell(node, takes, Message::Observed { op, sql: None }),
        }
    }

    /// The query reaches its server.
    pub(crate) fn monitored(&mut self, node: NodeId, (op, boot): (OpId, u32), asked: Instant, back: Duration) {
        let sql = self.nodes[node.0].server.sql(&self.wal, self.now, &self.names);
        let sql = sql.map(|sql| (Box::new(sql), asked));
        self.later(back, Due::agent(node, boot, Message::Observed { op, sql }));
    }

    /// Connections to a postmaster that is gone break: who waits for its answer hears of that.
    pub(crate) fn monitoring_breaks(&mut self, node: NodeId, what: ServerStep) {
        if let ServerStep::Asked { op, boot, .. } = what {
            self.later(Duration::from_micros(200), Due::agent(node, boot, Message::Observed { op, sql: None }));
        }
    }

    /// What PostgreSQL has answered, or that it has not, is told.
    pub(crate) fn observed(&mut self, node: NodeId, op: OpId, sql: Option<(Box<Sql>, Instant)>) {
        let Some(agent) = &mut self.nodes[node.0].agent else { return };
        if agent.monitoring.remove(&op) {
            self.monitoring_told(node, op, sql);
        }
    }

    /// As the runtime does for a peer that waits: PostgreSQL is asked anew, and core hears the answer first.
    pub(crate) fn freshen(&mut self, node: NodeId) {
        let sql = self.nodes[node.0].server.sql(&self.wal, self.now, &self.names);
        let sql = sql.map(|sql| (Box::new(sql), self.clock(node)));
        self.monitoring_told(node, OpId::UNASKED, sql);
    }

    fn monitoring_told(&mut self, node: NodeId, op: OpId, sql: Option<(Box<Sql>, Instant)>) {
        let heard = self.clock(node);
        self.coverage.came_to("observe", if sql.is_some() { "done" } else { "unknown" });
        if sql.is_none() {
            self.look_at_once(node);
        }
        let sql = sql.map(|(sql, asked)| Seen::new(*sql, asked.min(heard), heard));
        // A standby that followed onto a new timeline has a new history.
        let data = self.data(node);
        self.step(node, Event::Postgres(PostgresEvent::DataSeen(data)));
        self.step(node, Event::Postgres(PostgresEvent::Answered { op, sql }));
    }
}

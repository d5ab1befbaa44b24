//! What agent and guard say to each other: one JSON value a line over a Unix stream socket.

use matriarch_core::id::LeaseId;
use matriarch_core::time::Instant;
use serde::{Deserialize, Serialize};

/// The version of this protocol. A guard of another version answers [`Report::Refused`] to [`Order::Hello`] and goes on
/// guarding what is armed.
pub const PROTOCOL: u32 = 1;

/// The longest line either side accepts, in bytes.
pub(super) const LINE_BYTES_MAX: usize = 64 * 1024;

/// From the agent to its guard. Every order is answered by exactly one report of its own, except [`Order::Fire`], which
/// may be answered by [`Report::Stuck`] before [`Report::Fired`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Order {
    /// The first order of a connection: from here on this agent is obeyed and an earlier one is not.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// The guard shall have a successor, and acknowledge nothing as armed while it has none.
        #[serde(default)]
        strict: bool,
    },
    /// The postmaster to watch; pid 0: there is none. Answered by [`Report::Watching`].
    Postmaster {
        /// Its process id.
        pid: i32,
        /// Field 22 of its `/proc/PID/stat`, in clock ticks since boot.
        start_ticks: u64,
    },
    /// Fence at `at` unless told a later time before. Answered by [`Report::Armed`].
    Arm {
        /// The tenure under which PostgreSQL may write.
        #[serde(with = "lease")]
        tenure: LeaseId,
        /// The end of its authority.
        #[serde(with = "instant")]
        at: Instant,
        /// The tenure that is armed and that this one takes the place of, in one step: a key that vanished and was
        /// regained has a new tenure while its PostgreSQL is held, and must not be unarmed for a moment.
        #[serde(with = "lease_if_any")]
        instead_of: Option<LeaseId>,
    },
    /// Stop every process reversibly. Only while armed, so that nothing stays stopped for ever.
    Hold,
    /// Continue what was held.
    Resume,
    /// Fence now. Also without a tenure armed.
    Fire {
        /// For the log.
        why: String,
    },
    /// The agent's word that nothing of this data directory runs as a primary under the tenure, or that it was
    /// paused by the operator. Answered by [`Report::Disarmed`].
    Disarm {
        /// The tenure that is armed.
        #[serde(with = "lease")]
        tenure: LeaseId,
    },
    /// Kill what a dead postmaster left behind. Refused while a postmaster lives.
    KillOrphans,
    /// End. Refused while armed. Answered by the end of the connection.
    Retire,
}

/// From the guard to its agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Report {
    /// The answer to [`Order::Hello`]. In the middle of a stream: the connection had broken and is renewed; orders
    /// without an answer may or may not have been carried out.
    Hello(Hello),
    /// The postmaster is watched, or none if the pid is 0.
    Watching {
        /// Its process id.
        pid: i32,
        /// Why the fence has no cgroup of PostgreSQL's own to kill, with the way out; `None`: it has, or there is no
        /// postmaster.
        #[serde(default)]
        why_no_cgroup: Option<String>,
    },
    /// The fence that is in force, which may be later than the one asked for.
    Armed(Armed),
    /// The tenure is not armed any more.
    Disarmed {
        /// Which.
        #[serde(with = "lease")]
        tenure: LeaseId,
    },
    /// The order was not carried out and will not be.
    Refused {
        /// The order.
        what: String,
        /// The reason, and the way out.
        why: String,
    },
    /// Every process is stopped.
    Held {
        /// How many.
        processes: u32,
        /// How long it took, in microseconds.
        took_us: u64,
    },
    /// Every process goes on.
    Resumed,
    /// The fence fell and nothing of the data directory is alive. The guard is disarmed.
    Fired(Fired),
    /// The fence fell, and these processes do not die (uninterruptible wait). The guard goes on trying.
    Stuck {
        /// Their process ids.
        pids: Vec<i32>,
    },
    /// No process of the data directory is alive.
    OrphansDead {
        /// How many were killed.
        processes: u32,
    },
    /// Another agent has taken over this guard; this connection ends.
    Superseded {
        /// The process id of the other.
        by_pid: i32,
    },
    /// The guard has ended. Never sent: found by the agent's side from the guard's pidfd.
    #[serde(skip)]
    Gone,
}

/// What a guard is and knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the guard.
    pub protocol: u32,
    /// The guard's process id.
    pub pid: i32,
    /// The fence that is in force; with [`Hello::strict`] only while the guard has a successor.
    pub armed: Option<Armed>,
    /// PostgreSQL is stopped reversibly.
    pub held: bool,
    /// A fence has been decided and not all processes are dead yet.
    pub fencing: bool,
    /// The last fence that fell since this guard started, or the early release (its tenure is spent just the same).
    pub fired: Option<Fired>,
    /// What this guard wanted of the host and did not get, with the way out.
    pub wishes_refused: Vec<String>,
    /// It keeps a successor, as it was asked to.
    #[serde(default)]
    pub strict: bool,
}

/// A fence in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Armed {
    /// The tenure.
    #[serde(with = "lease")]
    pub tenure: LeaseId,
    /// When the fence falls.
    #[serde(with = "instant")]
    pub at: Instant,
}

/// A fence that fell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fired {
    /// The tenure that was armed, if one was. It is spent: it cannot be armed again.
    #[serde(with = "lease_if_any")]
    pub tenure: Option<LeaseId>,
    /// From here on no process of the data directory was alive: the last moment at which anything was acknowledged.
    #[serde(with = "instant")]
    pub all_dead_at: Instant,
    /// How many processes were killed.
    pub processes: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
mod lease {
    use matriarch_core::id::LeaseId;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &LeaseId, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i64(value.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LeaseId, D::Error> {
        i64::deserialize(from).map(LeaseId)
    }
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
mod lease_if_any {
    use matriarch_core::id::LeaseId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<LeaseId>, to: S) -> Result<S::Ok, S::Error> {
        value.map(|lease| lease.0).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LeaseId>, D::Error> {
        Ok(Option::<i64>::deserialize(from)?.map(LeaseId))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
mod instant {
    use matriarch_core::time::Instant;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Instant, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Instant, D::Error> {
        u64::deserialize(from).map(Instant)
    }
}

/// One message as one line.
pub(super) fn line<T: Serialize>(message: &T) -> Vec<u8> {
    // Our own plain types: the only failure serde_json has for them is a report that is never sent, as no bytes.
    let mut bytes = serde_json::to_vec(message).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        for order in [
            Order::Hello { protocol: PROTOCOL, strict: true },
            Order::Arm { tenure: LeaseId(i64::MIN), at: Instant(u64::MAX), instead_of: Some(LeaseId(3)) },
            Order::Fire { why: "a\nb".into() },
            Order::Retire,
        ] {
            let bytes = line(&order);
            assert_eq!(bytes.iter().position(|&byte| byte == b'\n'), Some(bytes.len() - 1));
            assert_eq!(serde_json::from_slice::<Order>(&bytes).unwrap(), order);
        }
        for tenure in [None, Some(LeaseId(7))] {
            let report = Report::Fired(Fired { tenure, all_dead_at: Instant(3), processes: 2 });
            assert_eq!(serde_json::from_slice::<Report>(&line(&report)).unwrap(), report);
        }
    }
}

//! What a world may look like to an agent.

use matriarch_core::config::Config;
use matriarch_core::id::{LeaseId, Lsn, Member, Pid, Revision, SystemId, Timeline};
use matriarch_core::time::Duration;
use matriarch_core::timeline::History;
use matriarch_core::view::postgres::{Cluster, ControlState, DataDir, Phase, Process, Receiver, Sql};
use matriarch_core::view::store::{LeaderKey, MemberKey, MemberRecord};

use crate::input::Choices;

pub(super) const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);

/// Whether PostgreSQL runs, and as what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Server {
    Stopped,
    Standby,
    Primary,
}

pub(super) fn leader(name: &str, lease: LeaseId, created: i64) -> LeaderKey {
    LeaderKey { member: Member::new(name), lease, created: Revision(created), modified: Revision(created) }
}

pub(super) fn member(name: &str, lease: i64, choices: &mut Choices<'_>) -> (Member, MemberKey) {
    let role = choices.pick(&["replica", "replica", "primary"]);
    let position = Lsn(0x300_0000 + u64::from(choices.byte()));
    let record = MemberRecord {
        host: name.into(),
        port: 5432,
        api_url: format!("http://{name}:8008/patroni"),
        state: choices.pick(&["running", "running", "stopped"]).into(),
        role: role.into(),
        timeline: Timeline(1 + u32::from(choices.one_in(4))),
        position,
        received: position,
        replayed: position,
        replication_state: "streaming".into(),
        nofailover: choices.one_in(8),
        failover_priority: 1,
        pledges: !choices.one_in(4),
        ..MemberRecord::default()
    };
    (Member::new(name), MemberKey { revision: Revision(10), lease: LeaseId(lease), record })
}

/// What it answers, with the bytes' own idea of it now and then.
pub(super) fn sql(server: Server, choices: &mut Choices<'_>) -> Sql {
    if let Some(sql) = choices.one_in(16).then(|| choices.raw()).flatten() {
        return sql;
    }
    let in_recovery = server != Server::Primary;
    let position = Lsn(0x300_0000 + u64::from(choices.byte()));
    Sql {
        in_recovery,
        timeline: Timeline(1),
        flushed: if in_recovery { Lsn(0) } else { position },
        received: position,
        replayed: position,
        receiver: choices.raw::<Receiver>().filter(|_| in_recovery),
        upstream_set: in_recovery && !choices.one_in(4),
        restores: false,
        server_version: 150_018,
        ..Sql::default()
    }
}

pub(super) fn process(server: Server, choices: &mut Choices<'_>) -> Process {
    let pid = Pid(100 + i32::from(choices.one_in(8)));
    match server {
        Server::Stopped => Process::Absent,
        Server::Standby | Server::Primary => {
            let phase = choices.pick(&[Phase::Ready, Phase::Ready, Phase::Ready, Phase::Starting, Phase::Stopping]);
            Process::Alive { pid, phase }
        }
    }
}

pub(super) fn data(server: Server, choices: &mut Choices<'_>) -> DataDir {
    if let Some(data) = choices.one_in(16).then(|| choices.raw()).flatten() {
        return data;
    }
    let standby = server != Server::Primary;
    let state = match server {
        Server::Stopped => choices.pick(&[
            ControlState::ShutDownInRecovery,
            ControlState::ShutDown,
            ControlState::InProduction,
            ControlState::InArchiveRecovery,
        ]),
        Server::Standby => ControlState::InArchiveRecovery,
        Server::Primary => ControlState::InProduction,
    };
    DataDir::Cluster(Cluster {
        system_id: SYSTEM,
        major_version: 15,
        state,
        checkpoint: Lsn(0x300_0028),
        checkpoint_timeline: Timeline(1),
        min_recovery: Lsn(if standby { 0x300_0000 } else { 0 }),
        min_recovery_timeline: Timeline(u32::from(standby)),
        rewindable: !choices.one_in(4),
        standby_signal: standby,
        backup_label: false,
        tainted: choices.one_in(16).then(|| "a clone that was cut short".into()),
        history: History::first(Timeline(1)),
        newest_timeline: choices.pick(&[Timeline(1), Timeline(1), Timeline(3)]),
        segment_bytes: choices.pick(&[16 << 20, 1 << 20, 0]),
    })
}

pub(super) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn config() -> Config {
    Config::usual("a")
}

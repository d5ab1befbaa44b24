//! Drawing a plan: first which faults there are at all and how dense they are, then each of them.

use super::{Fault, Phase, Plan, What, When, Where};
use crate::random::Stream;
use crate::settings::{LAGS, Settings, TIMINGS};
use crate::store::hands::{KEYS, Key};

/// The kinds of orders that triggers wait for: the few edges at which agents can be caught half-way.
const EDGES: [&str; 15] = [
    "promote",
    "acquire",
    "grant_tenure",
    "release",
    "revoke",
    "arm",
    "write_epoch",
    "start_primary",
    "start_standby",
    "stop",
    "rewind",
    "freeze",
    "clone",
    "renew",
    "hold",
];

/// Faults that do most where they strike one order, and seldom meet it by chance.
const AIMED: [(&str, Phase, What); 28] = [
    ("start_primary", Phase::After, What::FreezeAgent(Where::Orderer)),
    ("start_primary", Phase::Before, What::FreezeAgent(Where::Orderer)),
    ("promote", Phase::After, What::FreezeAgent(Where::Orderer)),
    ("rewind", Phase::After, What::KillAgent(Where::Orderer)),
    ("rewind", Phase::After, What::CrashHost(Where::Orderer)),
    ("rewind", Phase::Before, What::FailTools(Where::Orderer)),
    ("recover_single_user", Phase::Before, What::FailTools(Where::Orderer)),
    ("clone", Phase::Before, What::KillPostgres(Where::Leader)),
    ("clone", Phase::Before, What::Isolate(Where::Leader)),
    ("put_history", Phase::Before, What::CrashHost(Where::Orderer)),
    ("put_history", Phase::After, What::CrashHost(Where::Orderer)),
    ("ask_position", Phase::After, What::CrashHost(Where::Orderer)),
    ("put_failover", Phase::After, What::KillPostgres(Where::Leader)),
    ("start_primary", Phase::Before, What::HangStart(Where::Orderer)),
    ("start_primary", Phase::Before, What::HangStart(Where::Orderer)),
    ("start_primary", Phase::Before, What::HangStart(Where::Orderer)),
    ("stop", Phase::Before, What::DeafSession(Where::Orderer)),
    ("stop", Phase::Before, What::CutReplication(Where::Orderer)),
    ("acquire", Phase::Applied, What::CrashHost(Where::Orderer)),
    ("acquire", Phase::Applied, What::CutFromStore(Where::Orderer)),
    ("write_epoch", Phase::Applied, What::CrashHost(Where::Orderer)),
    ("reserve", Phase::Applied, What::KillAgent(Where::Orderer)),
    ("promote", Phase::Applied, What::KillAgent(Where::Orderer)),
    ("release", Phase::Applied, What::Isolate(Where::Orderer)),
    // Whoever asked through that member asks through another, and what waits in the first is applied in the end.
    ("release", Phase::Before, What::FreezeStoreMember(0)),
    ("release", Phase::Before, What::FreezeStoreMember(1)),
    ("release", Phase::Before, What::FreezeStoreMember(2)),
    ("disarm", Phase::Ended, What::Isolate(Where::Orderer)),
];

/// A fault waits for its order for so long: more than half of what they wait for never comes.
const PATIENCE_MS: u64 = 60_000;

/// The plan of a seed.
pub(super) fn plan(seed: u64) -> Plan {
    let mut random = Stream::new(seed, "plan");
    let settings = Settings::drawn(&mut random);
    let kinds = kinds(&mut random, &settings);
    let triggered = random.chance(35);
    let gap_ms = random.magnitude(4000, 120_000);
    // Some things happen only where nothing else does for a while.
    let calm_ms = if random.chance(30) { random.magnitude(1000, 60_000) } else { 0 };
    let mut faults = Vec::new();
    if random.chance(3) {
        let what = What::FailTools(Where::Node(random.below(settings.nodes as u64) as usize));
        faults.push(Fault { when: When::AtMs(0), what, for_ms: random.magnitude(1000, 20_000) });
    }
    let mut at = random.between(12_000, 30_000);
    while at < settings.faults_ms {
        let kind = *random.pick(&kinds);
        if triggered && random.chance(25) {
            let fault = aimed(&mut random, &settings, &kinds, at);
            at = next(&mut random, at, fault.as_ref(), gap_ms, calm_ms);
            faults.extend(fault);
            continue;
        }
        let what = concrete(&mut random, &settings, kind);
        let when = if triggered && random.chance(70) {
            When::Order {
                kind: (*random.pick(&EDGES)).to_owned(),
                after_ms: at,
                nth: *random.pick(&[1, 1, 2, 3]),
                phase: *random.pick(&[Phase::Before, Phase::After, Phase::Applied, Phase::Ended]),
                or_at_ms: Some(at + PATIENCE_MS),
            }
        } else {
            When::AtMs(at)
        };
        let fault = Fault { when, what, for_ms: length(&mut random, &settings, what) };
        if let What::LoseKey | What::LoseLease = what {
            faults.extend(unheard(&mut random, &settings, at));
        }
        at = next(&mut random, at, Some(&fault), gap_ms, calm_ms);
        faults.push(fault);
    }
    Plan { seed, story: String::new(), broke: None, reaches: Vec::new(), settings, faults }
}

/// A key that goes before its time is missed at once, and taken back, unless its holder hears nothing of the store just then;
/// what it tells its peers may be lost as well, a moment later. (No other fault of such a plan cuts anybody off: see [`kinds`].)
fn unheard(random: &mut Stream, settings: &Settings, at: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    if random.chance(60) {
        return faults;
    }
    let what = *random.pick(&[What::CutStore(Where::Leader), What::CutFromStore(Where::Leader)]);
    let when = When::AtMs(at.saturating_sub(random.between(0, 2000)));
    faults.push(Fault { when, what, for_ms: random.magnitude(3000, settings.ttl_ms + 10_000) });
    if random.chance(50) {
        let other = Where::Node(random.below(settings.nodes as u64) as usize);
        let what = *random.pick(&[What::CutFromAgents(other), What::CutToAgents(other)]);
        let when = When::AtMs(at + random.between(100, 4000));
        faults.push(Fault { when, what, for_ms: random.magnitude(500, 20_000) });
    }
    faults
}

/// When the next fault may begin: after a gap, and not before the last one is over and `calm_ms` have passed in calm.
fn next(random: &mut Stream, at: u64, last: Option<&Fault>, gap_ms: u64, calm_ms: u64) -> u64 {
    let gone_by = at + random.between(gap_ms / 4, gap_ms * 2);
    match last.filter(|_| calm_ms > 0) {
        Some(last) => gone_by.max(at + last.for_ms + calm_ms),
        None => gone_by,
    }
}

/// One of the aimed faults, of a kind that this plan has.
fn aimed(random: &mut Stream, settings: &Settings, kinds: &[What], at: u64) -> Option<Fault> {
    let has = |what: &What| kinds.iter().any(|kind| kind.kind() == what.kind());
    let fitting: Vec<_> = AIMED.iter().filter(|(_, _, what)| has(what)).collect();
    if fitting.is_empty() {
        return None;
    }
    let (kind, phase, what) = **random.pick(&fitting);
    let when = When::Order { kind: kind.to_owned(), after_ms: at, nth: 1, phase, or_at_ms: Some(at + PATIENCE_MS) };
    let for_ms = match (kind, what) {
        // Long enough for whoever hangs to be given up, by what is configured at least.
        (_, What::HangStart(_) | What::DeafSession(_)) => random.between(60_000, 240_000),
        ("release", What::FreezeStoreMember(_)) => random.between(4000, 20_000),
        // A guard is disarmed for a pause: beyond the end of that.
        ("disarm", _) => random.magnitude(30_000, 200_000),
        // Beyond the tenure under which it was ordered.
        _ => settings.ttl_ms + random.magnitude(500, 10_000),
    };
    Some(Fault { when, what, for_ms })
}

/// A fifth to four fifths of all kinds: leaving some out lets the others show what they do alone.
fn kinds(random: &mut Stream, settings: &Settings) -> Vec<What> {
    let here = Where::Leader;
    let mut all = vec![
        What::KillPostmaster(here, 0),
        What::KillPostgres(here),
        What::KillAgent(here),
        What::FreezeAgent(here),
        What::StopAgent(here),
        What::KillGuard(here),
        What::CrashHost(here),
        What::TearFiles(here),
        What::SuspendHost(here),
        What::SetWallClock(here, 0),
        What::FreezePostgres(here),
        What::HangPostgres(here),
        What::FillData(here),
        What::KillBackend(here),
        What::DeafSession(here),
        What::StopByHand(here),
        What::RestartByHand(here),
        What::PromoteByHand(here),
        What::CutClients(here),
        What::CutFromClients(here),
        What::CutToClients(here),
        What::StopStore,
        What::SlowNetwork(1),
        What::LossyNetwork(1),
        What::SilenceWatches(here),
        What::FillDisk(here),
        What::HideData(here),
        What::PauseReplay(here),
        What::RemoveData(here),
        What::Switchover(here),
        What::Failover(here),
        What::ScheduleSwitchover(here),
        What::ScheduleRestart(here),
        What::Restart(here),
        What::Reinitialize(here),
        What::DeleteKey(Key::Status),
        What::GarbleKey(Key::Status),
        What::ChangeConfig { ttl_ms: 0, loop_wait_ms: 0, retry_timeout_ms: 0, maximum_lag_bytes: 0 },
        What::HangStart(here),
        What::FailTools(here),
        What::ForeignData(here),
        What::AskUnsupported,
    ];
    if settings.store_members > 1 {
        all.extend([What::StopStoreMember(0), What::FreezeStoreMember(0)]);
    }
    // A key that goes early *while* its holder hears nobody, or has no agent that could, is the one hole that no clock closes
    // (docs/time.md): the two never meet in one plan. That it does not hear the store alone is drawn with the key.
    if random.chance(20) {
        all.retain(|what| {
            let deaf = matches!(what, What::StopStore | What::SlowNetwork(_) | What::LossyNetwork(_));
            !(deaf || matches!(what, What::FreezeAgent(_) | What::KillAgent(_) | What::SuspendHost(_)))
        });
        all.extend([What::LoseKey, What::LoseLease, What::DeleteAllKeys]);
    } else {
        all.extend([
            What::Isolate(here),
            What::CutStore(here),
            What::CutToStore(here),
            What::CutFromStore(here),
            What::CutAgents(here),
            What::CutFromAgents(here),
            What::CutToAgents(here),
            What::CutReplication(here),
            What::CutFromReplication(here),
            What::CutToReplication(here),
            What::CutPair(here, 0),
        ]);
        if settings.store_members > 1 {
            all.extend([What::CutStoreMember(0), What::CutFromMember(here, 0)]);
        }
    }
    // Who starts beside a restored store never knew what was lost, and believes at once (docs/time.md): agents live on.
    if random.chance(10) {
        let starts = |what: &What| {
            let loses_data = matches!(what, What::RemoveData(_) | What::ForeignData(_));
            loses_data
                || matches!(what, What::KillAgent(_) | What::StopAgent(_) | What::CrashHost(_) | What::TearFiles(_))
        };
        let early = |what: &What| matches!(what, What::LoseKey | What::LoseLease | What::DeleteAllKeys);
        all.retain(|what| !starts(what) && !early(what));
        all.push(What::RestoreStore(0));
    }
    // What a paused primary has told in the store is not to be lost: nobody else knows that it has no guard.
    if random.chance(12) {
        let loses = |what: &What| {
            let keys = matches!(what, What::DeleteKey(_) | What::GarbleKey(_) | What::DeleteAllKeys);
            keys || matches!(what, What::RestoreStore(_) | What::AskUnsupported)
        };
        all.retain(|what| !loses(what));
        all.push(What::Pause);
    }
    // A dead or frozen agent and a dead guard together leave nobody to stop PostgreSQL (docs/time.md).
    if random.chance(50) {
        all.retain(|what| !matches!(what, What::KillGuard(_)));
    } else {
        all.retain(|what| !matches!(what, What::FreezeAgent(_) | What::KillAgent(_) | What::StopAgent(_)));
    }
    let share = random.between(20, 80);
    let mut chosen: Vec<What> = all.iter().copied().filter(|_| random.chance(share)).collect();
    // Once in such a plan it is to meet the others.
    if all.contains(&What::Pause) && !chosen.contains(&What::Pause) {
        chosen.push(What::Pause);
    }
    if chosen.is_empty() { all } else { chosen }
}

fn place(random: &mut Stream, settings: &Settings) -> Where {
    match random.below(4) {
        0 => Where::Node(random.below(settings.nodes as u64) as usize),
        1 => Where::Orderer,
        _ => Where::Leader,
    }
}

fn concrete(random: &mut Stream, settings: &Settings, kind: What) -> What {
    let here = place(random, settings);
    let node = Where::Node(random.below(settings.nodes as u64) as usize);
    let member = random.below(settings.store_members as u64) as usize;
    match kind {
        What::KillPostmaster(..) => What::KillPostmaster(here, *random.pick(&[0, 1, 20])),
        What::KillPostgres(_) => What::KillPostgres(here),
        What::KillAgent(_) => What::KillAgent(here),
        What::FreezeAgent(_) => What::FreezeAgent(here),
        What::StopAgent(_) => What::StopAgent(here),
        What::KillGuard(_) => What::KillGuard(here),
        What::CrashHost(_) => What::CrashHost(here),
        What::SuspendHost(_) => What::SuspendHost(here),
        What::SetWallClock(..) => {
            let by = random.magnitude(1, 100_000_000) as i64;
            What::SetWallClock(here, if random.chance(50) { by } else { -by })
        }
        What::FreezePostgres(_) => What::FreezePostgres(here),
        What::HangPostgres(_) => What::HangPostgres(here),
        What::FillData(_) => What::FillData(here),
        What::KillBackend(_) => What::KillBackend(here),
        What::DeafSession(_) => What::DeafSession(here),
        What::StopByHand(_) => What::StopByHand(here),
        What::RestartByHand(_) => What::RestartByHand(here),
        What::PromoteByHand(_) => What::PromoteByHand(node),
        What::Isolate(_) => What::Isolate(here),
        What::CutStore(_) => What::CutStore(here),
        What::CutToStore(_) => What::CutToStore(here),
        What::CutFromStore(_) => What::CutFromStore(here),
        What::CutAgents(_) => What::CutAgents(here),
        What::CutFromAgents(_) => What::CutFromAgents(here),
        What::CutToAgents(_) => What::CutToAgents(here),
        What::CutReplication(_) => What::CutReplication(node),
        What::CutFromReplication(_) => What::CutFromReplication(node),
        What::CutToReplication(_) => What::CutToReplication(node),
        What::CutClients(_) => What::CutClients(here),
        What::CutFromClients(_) => What::CutFromClients(here),
        What::CutToClients(_) => What::CutToClients(here),
        What::CutPair(..) => What::CutPair(here, random.below(settings.nodes as u64) as usize),
        What::CutFromMember(..) => What::CutFromMember(here, member),
        What::CutStoreMember(_) => What::CutStoreMember(member),
        What::StopStoreMember(_) => What::StopStoreMember(member),
        What::FreezeStoreMember(_) => What::FreezeStoreMember(member),
        What::SlowNetwork(_) => What::SlowNetwork(random.magnitude(2, 200)),
        What::LossyNetwork(_) => What::LossyNetwork(random.magnitude(1, 60)),
        What::SilenceWatches(_) => What::SilenceWatches(here),
        What::FillDisk(_) => What::FillDisk(here),
        What::TearFiles(_) => What::TearFiles(here),
        What::HideData(_) => What::HideData(here),
        What::PauseReplay(_) => What::PauseReplay(node),
        What::RemoveData(_) => What::RemoveData(node),
        What::Switchover(_) => What::Switchover(node),
        What::Failover(_) => What::Failover(node),
        What::ScheduleSwitchover(_) => What::ScheduleSwitchover(node),
        What::ScheduleRestart(_) => What::ScheduleRestart(here),
        What::Restart(_) => What::Restart(here),
        What::Reinitialize(_) => What::Reinitialize(node),
        What::DeleteKey(_) => What::DeleteKey(*random.pick(&KEYS)),
        What::GarbleKey(_) => What::GarbleKey(*random.pick(&KEYS)),
        What::RestoreStore(_) => What::RestoreStore(random.magnitude(1000, 300_000)),
        What::ChangeConfig { .. } => {
            let (ttl_ms, loop_wait_ms, retry_timeout_ms) = *random.pick(&TIMINGS);
            let maximum_lag_bytes = *random.pick(&LAGS);
            What::ChangeConfig { ttl_ms, loop_wait_ms, retry_timeout_ms, maximum_lag_bytes }
        }
        What::HangStart(_) => What::HangStart(here),
        What::FailTools(_) => What::FailTools(here),
        What::ForeignData(_) => What::ForeignData(node),
        other @ (What::StopStore
        | What::LoseKey
        | What::LoseLease
        | What::DeleteAllKeys
        | What::AskUnsupported
        | What::Pause) => other,
    }
}

/// From a moment to beyond every deadline, but hosts do come back.
fn length(random: &mut Stream, settings: &Settings, what: What) -> u64 {
    let long = settings.ttl_ms * 2 + 10_000;
    match what {
        What::KillPostmaster(..) => random.magnitude(5, 8000),
        What::CrashHost(_) | What::TearFiles(_) | What::KillAgent(_) | What::StopAgent(_) => {
            random.magnitude(500, long)
        }
        // Long enough for whatever happens meanwhile.
        What::Pause => random.magnitude(5000, 180_000),
        // Long enough for whoever hangs to be given up.
        What::DeafSession(_) | What::HangStart(_) => random.magnitude(500, 240_000),
        _ => random.magnitude(20, long),
    }
}

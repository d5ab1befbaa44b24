use super::*;

const A: Pid = Pid(10);
const B: Pid = Pid(20);
const ABSENT: Facts =
    Facts { server: Server::Absent, bootstrapping: false, leads: false, stopping: false, restarting: false };
const PRIMARY: Facts = Facts { leads: true, ..serves(A, Role::Primary) };
const REPLICA: Facts = serves(A, Role::Replica);

const fn serves(pid: Pid, role: Role) -> Facts {
    Facts { server: Server::Serves { pid, role }, ..ABSENT }
}

/// What is told of these facts, one after the other, by an agent that has told `before` already.
fn told(before: &[Facts], then: &[Facts]) -> Vec<String> {
    let mut teller = Teller::default();
    for facts in before {
        teller.news(*facts);
    }
    let news = then.iter().flat_map(|facts| teller.news(*facts));
    news.map(|(callback, role)| format!("{} {}", callback.name(), role.name())).collect()
}

#[test]
fn what_is_found_running_is_told_once() {
    assert_eq!(told(&[], &[Facts { server: Server::Unsettled, ..ABSENT }, PRIMARY, PRIMARY]), ["on_start primary"]);
    assert_eq!(told(&[], &[ABSENT, ABSENT, REPLICA, REPLICA]), ["on_start replica"]);
}

#[test]
fn a_bootstrap_is_told_at_its_end() {
    let making = |facts| Facts { bootstrapping: true, ..facts };
    assert_eq!(told(&[], &[making(ABSENT), making(PRIMARY), making(PRIMARY)]), [""; 0]);
    assert_eq!(told(&[making(ABSENT), making(PRIMARY)], &[PRIMARY]), ["on_start primary"]);
}

#[test]
fn a_promotion_is_a_change_of_the_role() {
    assert_eq!(told(&[REPLICA], &[Facts { leads: true, ..REPLICA }, PRIMARY, PRIMARY]), ["on_role_change primary"]);
}

/// As Patroni: on_stop, and the start that follows tells the new role only.
#[test]
fn a_switchover_stops_a_primary_and_starts_a_replica() {
    let stopping = Facts { stopping: true, ..PRIMARY };
    let stopped = Facts { stopping: true, leads: true, ..ABSENT };
    let then = [stopping, stopped, Facts { leads: true, ..ABSENT }, ABSENT, serves(B, Role::Replica)];
    assert_eq!(told(&[PRIMARY], &then), ["on_stop primary", "on_role_change replica"]);
}

#[test]
fn a_restart_is_one_event() {
    let then = [
        Facts { restarting: true, ..PRIMARY },
        Facts { restarting: true, leads: true, ..ABSENT },
        Facts { leads: true, ..serves(B, Role::Primary) },
    ];
    assert_eq!(told(&[PRIMARY], &then), ["on_restart primary"]);
    // It does not come up at once.
    let slow = [then[0], then[1], Facts { leads: true, ..ABSENT }, then[2], then[2]];
    assert_eq!(told(&[PRIMARY], &slow), ["on_restart primary"]);
    // It was refused, and later PostgreSQL dies.
    let refused = [then[0], PRIMARY, Facts { leads: true, ..ABSENT }, then[2]];
    assert_eq!(told(&[PRIMARY], &refused), ["on_start primary"]);
}

#[test]
fn a_crash_that_is_mended_in_place_is_a_start() {
    let then = [Facts { leads: true, ..ABSENT }, Facts { leads: true, ..serves(B, Role::Primary) }];
    assert_eq!(told(&[PRIMARY], &then), ["on_start primary"]);
}

#[test]
fn a_primary_that_died_and_is_given_up_was_demoted() {
    let then = [Facts { leads: true, ..ABSENT }, ABSENT, ABSENT, serves(B, Role::Replica)];
    assert_eq!(told(&[PRIMARY], &then), ["on_role_change demoted", "on_role_change replica"]);
    // What was fenced was stopped.
    let fenced = [Facts { stopping: true, ..PRIMARY }, ABSENT, ABSENT, serves(B, Role::Replica)];
    assert_eq!(told(&[PRIMARY], &fenced), ["on_stop primary", "on_role_change replica"]);
}

#[test]
fn a_stop_that_came_to_nothing_is_forgotten() {
    let then = [Facts { stopping: true, ..REPLICA }, REPLICA, ABSENT, serves(B, Role::Replica)];
    assert_eq!(told(&[REPLICA], &then), ["on_start replica"]);
}

#[test]
fn a_reload_tells_the_role_and_is_none_while_nothing_runs() {
    let mut teller = Teller { reloaded: true, ..Teller::default() };
    assert_eq!(teller.news(ABSENT), []);
    assert_eq!(teller.news(REPLICA), [(Callback::Start, Role::Replica)]);
    teller.reloaded = true;
    assert_eq!(teller.news(REPLICA), [(Callback::Reload, Role::Replica)]);
    assert_eq!(teller.news(REPLICA), []);
}

/// As Patroni, which has a server that it finds running read its configuration whatever is in it.
#[test]
fn a_configuration_that_is_as_it_was_is_told_once_and_of_a_server_that_was_found_running() {
    let told = |before: &[Facts], changed: [bool; 3]| {
        let mut teller = Teller::default();
        for facts in before {
            teller.news(*facts);
        }
        changed.map(|changed| teller.is_told_of(&PostgresDone::Configured { generation: 1, changed }))
    };
    let mut turned = Teller::default();
    turned.news(REPLICA);
    assert!(!turned.is_told_of(&PostgresDone::NeedsRestart) && turned.is_told_of(&PostgresDone::Done));
    assert!(!turned.is_told_of(&PostgresDone::Configured { generation: 1, changed: false }), "that was the reload");
    let making = Facts { bootstrapping: true, ..PRIMARY };
    assert_eq!(told(&[REPLICA], [false, false, true]), [true, false, true]);
    assert_eq!(told(&[ABSENT, REPLICA], [false, true, false]), [false, true, false]);
    assert_eq!(told(&[making, PRIMARY], [false, true, false]), [false, true, false]);
}

fn commands(text: &str) -> BTreeMap<Callback, CommandLine> {
    let command = CommandLine::parse(&format!("/bin/sh -c '{text}' sh")).unwrap().unwrap();
    Callback::ALL.into_iter().map(|callback| (callback, command.clone())).collect()
}

async fn lines(file: &std::path::Path, count: usize) -> Vec<String> {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.lines().count() >= count {
            return text.lines().map(str::to_owned).collect();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_next_call_kills_the_one_that_runs_and_a_reload_disturbs_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls");
    let callers = Callers::start();
    let hangs = commands(&format!("echo $@ >> {0}; sleep 600; echo $1 ended >> {0}", file.display()));
    callers.call(&hangs, (Callback::Start, Role::Replica), "herd");
    assert_eq!(lines(&file, 1).await, ["on_start replica herd"]);
    callers.call(&hangs, (Callback::Reload, Role::Replica), "herd");
    assert_eq!(lines(&file, 2).await[1], "on_reload replica herd");
    let waits = |callback: &str| {
        let running = crate::processes::pids().unwrap().into_iter().filter_map(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let text = String::from_utf8_lossy(&command).replace('\0', " ");
            (text.contains(&file.display().to_string()) && text.contains(callback)).then_some(pid)
        });
        running.count()
    };
    // A shell that has forked looks like two until its child executes what it is to be.
    while (waits("on_start"), waits("on_reload")) != (1, 1) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ends = commands(&format!("echo $@ >> {}", file.display()));
    callers.call(&ends, (Callback::RoleChange, Role::Primary), "herd");
    callers.flush().await;
    assert_eq!(lines(&file, 3).await[2], "on_role_change primary herd");
    while waits("on_start") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(waits("on_reload"), 1);
    callers.call(&ends, (Callback::Reload, Role::Primary), "herd");
    assert_eq!(lines(&file, 4).await[3], "on_reload primary herd");
    while waits("on_reload") > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!lines(&file, 4).await.iter().any(|line| line.ends_with("ended")));
}

//! What may be done to a directory that holds no cluster: nothing that is not our tool's own doing is ever deleted.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use matriarch::postgres::proc;
use matriarch_core::view::postgres::{DataDir, Process, StartAs, StopMode};
use matriarch_tests::single::{base, free_port, give};

use super::node::{Node, any_time, done, pid_of, refused};
use super::{LONG, Postgres, Upstream};

fn make(directory: &Path) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    give(directory);
}

async fn foreign(node: &Node) -> String {
    match node.postgres.observe_data().await {
        DataDir::Foreign(why) => why,
        other => panic!("{other:?}"),
    }
}

/// None of the orders that make a cluster here, or empty the directory, is carried out; each says this.
async fn is_left_alone(node: &Node, says: &str) {
    let postgres = &node.postgres;
    for why in [
        refused(postgres.initdb(&|_| ()).await),
        refused(postgres.clone_from(&node.upstream(), &|_| ()).await),
        refused(postgres.wipe_data_dir("a test").await),
    ] {
        assert!(why.contains(says), "{why}");
    }
}

#[tokio::test]
async fn hidden_files_are_files() {
    let base = base();
    let node = Node::new(base.path(), "a");
    let data_dir = node.data_dir();
    make(&data_dir.join(".hidden"));
    std::fs::write(data_dir.join(".hidden/keys"), "precious").unwrap();
    std::fs::write(data_dir.join(".env"), "precious").unwrap();
    give(&data_dir);
    let why = foreign(&node).await;
    assert!(why.contains(".env, .hidden") && why.contains("postgresql.data_dir"), "{why}");
    is_left_alone(&node, ".env, .hidden").await;
    for file in [".hidden/keys", ".env"] {
        assert_eq!(std::fs::read_to_string(data_dir.join(file)).unwrap(), "precious");
    }
}

#[tokio::test]
async fn a_mount_point_is_no_data_directory() {
    let base = base();
    let node = Node::new(base.path(), "a");
    make(&node.data_dir().join("lost+found"));
    give(&node.data_dir());
    let why = foreign(&node).await;
    assert!(why.contains("lost+found") && why.contains("mount point") && why.contains("below it"), "{why}");
    is_left_alone(&node, "mount point").await;
    assert!(node.data_dir().join("lost+found").exists());
}

#[tokio::test]
async fn an_empty_directory_of_another_owner_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let base = base();
    let node = Node::new(base.path(), "a");
    make(&node.data_dir());
    chown(node.data_dir(), Some(12345), None).unwrap();
    let DataDir::Unreadable(why) = node.postgres.observe_data().await else { panic!() };
    assert!(why.contains("belongs to 12345") && why.contains("chown"), "{why}");
    is_left_alone(&node, "belongs to 12345").await;
    assert_eq!(std::fs::metadata(node.data_dir()).unwrap().uid(), 12345);
}

#[tokio::test]
async fn the_socket_of_a_server_that_lives_is_no_leftover() {
    let base = base();
    let other = Node::primary(base.path(), "a").await;
    let node = Node::new(base.path(), "b");
    make(&node.data_dir());
    let pid = pid_of(other.postgres.observe_process().await);
    let (socket, lock) = (".s.PGSQL.5432", ".s.PGSQL.5432.lock");
    std::fs::write(node.data_dir().join(lock), format!("{}\n", pid.0)).unwrap();
    std::fs::write(node.data_dir().join(socket), "").unwrap();
    let why = refused(node.postgres.initdb(&|_| ()).await);
    assert!(why.contains(socket) && why.contains(lock) && why.contains("data_dir"), "{why}");
    assert!(node.data_dir().join(socket).exists() && node.data_dir().join(lock).exists());
}

/// The bug: no file told of the server any more, nothing was done, and that was the end of the order: which was given again
/// at once, since the server was seen to be alive.
#[tokio::test]
async fn a_server_whose_directory_was_moved_away_is_stopped() {
    let base = base();
    let node = Node::primary(base.path(), "a").await;
    let moved = node.home.join("moved");
    for mode in [StopMode::Fast, StopMode::Immediate] {
        let pid = pid_of(node.postgres.observe_postmaster().await);
        std::fs::rename(node.data_dir(), &moved).unwrap();
        assert_eq!(pid_of(node.postgres.observe_postmaster().await), pid, "it is there until it is dead");
        let outcome = node.postgres.stop(mode, LONG).await;
        let (seen, is_alive) = (node.postgres.observe_postmaster().await, proc::is_alive(pid.0));
        // As it was, for it to be found at the end of the test.
        std::fs::rename(&moved, node.data_dir()).unwrap();
        done(outcome);
        assert_eq!((seen, is_alive), (Process::Absent, false));
        // PostgreSQL reaches pg_control by its whole path: the stop ends as a crash.
        node.check_control("in production");
        done(node.postgres.start(StartAs::Primary, &any_time()).await);
    }
}

#[tokio::test]
async fn a_tool_that_fails_leaves_the_directory_as_it_was() {
    let base = base();
    let node = Node::new(base.path(), "a");
    make(&node.data_dir());
    // What PostgreSQL itself leaves in a directory that its sockets were in.
    std::fs::write(node.data_dir().join(".s.PGSQL.5432.lock"), "").unwrap();
    assert_eq!(node.postgres.observe_data().await, DataDir::Empty);
    let nobody = Upstream { port: free_port(), ..node.upstream() };
    assert!(refused(node.postgres.clone_from(&nobody, &|_| ()).await).contains("Connection refused"));
    let mut settings = (*node.postgres.settings()).clone();
    settings.initdb_options.push("--locale=nowhere".into());
    let postgres = Postgres::new(settings.clone());
    assert!(refused(postgres.initdb(&|_| ()).await).contains("locale"));
    assert_eq!(std::fs::read_dir(node.data_dir()).unwrap().count(), 0);

    // Somebody puts a file there at the last moment: the tool refuses, and the file is not the tool's.
    let late = base.path().join("late");
    let mine = node.data_dir().join("mine");
    let refusal = format!("initdb: error: directory \\\"{}\\\" exists but is not empty", node.data_dir().display());
    let script = format!("#!/bin/sh\necho precious > {}\necho \"{refusal}\" >&2\nexit 1\n", mine.display());
    std::fs::write(&late, script).unwrap();
    std::fs::set_permissions(&late, std::fs::Permissions::from_mode(0o755)).unwrap();
    settings.bin_names.insert("initdb".into(), late.display().to_string());
    let postgres = Postgres::new(settings);
    assert!(refused(postgres.initdb(&|_| ()).await).contains("exists but is not empty"));
    assert_eq!(std::fs::read_to_string(mine).unwrap(), "precious\n");
}

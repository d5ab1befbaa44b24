//! Parameters: what the server would refuse, what a standby may not go below, and what waits for a restart.

use std::collections::BTreeMap;

use matriarch::postgres::Settings;
use matriarch_core::id::Timeline;
use matriarch_core::view::postgres::{StartAs, StopMode};
use matriarch_tests::single::base;

use super::LONG;
use super::node::{Node, any_time, done, until};

fn set(node: &Node, change: impl FnOnce(&mut Settings)) {
    let mut settings = (*node.postgres.settings()).clone();
    change(&mut settings);
    node.postgres.apply_settings(settings);
}

/// As the agent gives what all nodes share: on the command line and in the file.
fn set_max_connections(node: &Node, value: &str) {
    set(node, |settings| {
        settings.command_line.retain(|(name, _)| name != "max_connections");
        settings.command_line.push(("max_connections".into(), value.into()));
        settings.parameters.insert("max_connections".into(), value.into());
    });
}

async fn shown(node: &Node, name: &str) -> String {
    node.run(&format!("SHOW {name}")).await.unwrap()
}

#[tokio::test]
async fn a_standby_starts_with_no_less_than_its_primary_had() {
    let base = base();
    let primary = Node::new(base.path(), "a");
    set_max_connections(&primary, "60");
    done(primary.postgres.initdb(&|_| ()).await);
    done(primary.postgres.start(StartAs::Primary, &any_time()).await);
    done(primary.postgres.post_bootstrap().await);
    let standby = primary.clone_as(base.path(), "b").await;
    set_max_connections(&standby, "60");
    done(standby.postgres.restart(LONG, &any_time()).await);
    let less = [("max_connections".to_owned(), "60".to_owned(), "40".to_owned())];

    for node in [&primary, &standby] {
        set_max_connections(node, "40");
        done(node.postgres.reload_configuration().await);
        until(async || node.sql().await.pending_restart == less).await;
    }
    done(standby.postgres.restart(LONG, &any_time()).await);
    assert_eq!(shown(&standby, "max_connections").await, "60");
    assert_eq!(standby.sql().await.pending_restart, less);
    done(standby.postgres.reload_configuration().await);
    assert_eq!(standby.sql().await.pending_restart, less, "and after a reload");
    let file = std::fs::read_to_string(standby.data_dir().join("postgresql.conf")).unwrap();
    assert!(file.contains("max_connections = '60'"), "whoever starts it by hand gets as far");

    // All were down, and the first to come back has nobody to follow.
    done(standby.postgres.stop(StopMode::Fast, LONG).await);
    done(primary.postgres.stop(StopMode::Fast, LONG).await);
    done(primary.postgres.start(StartAs::Standby(None), &any_time()).await);
    assert_eq!(shown(&primary, "max_connections").await, "60");
    assert_eq!(done(primary.postgres.promote(Timeline(2), &any_time()).await), Timeline(2));
    assert_eq!(primary.sql().await.pending_restart, less);
    done(primary.postgres.restart(LONG, &any_time()).await);
    assert_eq!(shown(&primary, "max_connections").await, "40");
    assert!(primary.sql().await.pending_restart.is_empty());
}

#[tokio::test]
async fn a_promoted_primary_waits_for_no_restart() {
    let base = base();
    let primary = Node::primary(base.path(), "a").await;
    let standby = primary.clone_as(base.path(), "b").await;
    done(primary.postgres.stop(StopMode::Fast, LONG).await);
    done(standby.postgres.promote(Timeline(2), &any_time()).await);
    done(standby.postgres.reload_configuration().await);
    set(&standby, |settings| {
        settings.parameters.insert("work_mem".into(), "5MB".into());
    });
    done(standby.postgres.reload_configuration().await);
    until(async || shown(&standby, "work_mem").await == "5MB").await;
    assert_eq!(standby.sql().await.pending_restart, []);
}

/// What no server takes, and what it takes of the same.
fn nonsense() -> BTreeMap<String, String> {
    let pairs = [
        ("max_conections", "3"),
        ("work_mem", "lots"),
        ("enable_seqscan", "maybe"),
        ("huge_pages", "perhaps"),
        ("DateStyle", "nonsense"),
        ("server_version_num", "12"),
        ("foo bar", "1"),
        ("log_line_prefix", "two\nlines"),
        ("checkpoint_timeout", "1s"),
        ("autovacuum_vacuum_scale_factor", "500"),
        ("bonjour", "on"),
        ("zero_damaged_pages", "off"),
        ("some_extension.level", "12"),
        ("maintenance_work_mem", "17MB"),
    ];
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[tokio::test]
async fn what_the_server_would_refuse_is_left_out() {
    let base = base();
    let node = Node::new(base.path(), "a");
    set(&node, |settings| {
        settings.parameters.extend(nonsense());
        settings.recovery_conf.insert("recovery_min_apply_delay".into(), "soon".into());
        settings.recovery_conf.insert("restore_comand".into(), "false".into());
    });
    let warnings = node.postgres.vet_parameters().await;
    let says = |text: &str| assert!(warnings.iter().any(|w| w.contains(text)), "{text}: {warnings:#?}");
    says("max_conections is not used: PostgreSQL knows no such parameter, is max_connections meant?");
    says("restore_comand is not used: PostgreSQL knows no such parameter, is restore_command meant?");
    says("checkpoint_timeout=1s is not used, but 30");
    says("Available values: ");
    says("foo bar is not used: syntax error");
    says("bonjour is not used: Bonjour is not supported");
    assert_eq!(warnings.len(), 13, "{warnings:#?}");
    assert!(!node.home.join("parameters.trial").exists());

    done(node.postgres.initdb(&|_| ()).await);
    done(node.postgres.start(StartAs::Standby(None), &any_time()).await);
    done(node.postgres.promote(Timeline(2), &any_time()).await);
    done(node.postgres.post_bootstrap().await);
    for (name, value) in [
        ("some_extension.level", "12"),
        ("maintenance_work_mem", "17MB"),
        ("zero_damaged_pages", "off"),
        ("checkpoint_timeout", "30s"),
        ("autovacuum_vacuum_scale_factor", "100"),
        ("work_mem", "4MB"),
    ] {
        assert_eq!(shown(&node, name).await, value, "{name}");
    }
    assert_eq!(node.run("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL").await.as_deref(), Some("0"));

    // What an older file says of it does not keep a crashed server from recovering.
    done(node.postgres.stop(StopMode::Immediate, LONG).await);
    let conf = node.data_dir().join("postgresql.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    std::fs::write(&conf, format!("{text}max_conections = '3'\n")).unwrap();
    done(node.postgres.crash_recover(&|_| ()).await);
    node.check_control("shut down");
}

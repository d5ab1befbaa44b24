//! A server that lets nobody in from the network without TLS.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use matriarch::postgres::{Credential, LocalConnection, Postgres, SqlFailure, walsender::WalSender};
use matriarch_tests::Certificates;
use matriarch_tests::single::{base, give};

use super::LONG;
use super::node::{Node, done};

/// A primary with TLS; its replicator needs it, and `certified` a certificate as well.
async fn secured(base: &std::path::Path, files: &Certificates) -> Node {
    let node = Node::primary(base, "a").await;
    let file = |name: &str| {
        let copy = node.home.join(name);
        std::fs::copy(files.path(name), &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
        give(&copy);
        copy.display().to_string()
    };
    node.run("CREATE ROLE certified REPLICATION LOGIN PASSWORD 'c'").await;
    let mut settings = (*node.postgres.settings()).clone();
    for (name, value) in [
        ("ssl", "on".to_owned()),
        ("ssl_cert_file", file("server.pem")),
        ("ssl_key_file", file("server.key")),
        ("ssl_ca_file", file("ca.pem")),
    ] {
        settings.parameters.insert(name.to_owned(), value);
    }
    settings.pg_hba = [
        "local all all scram-sha-256",
        "hostssl replication certified 127.0.0.1/32 scram-sha-256 clientcert=verify-ca",
        "hostssl replication replicator 127.0.0.1/32 scram-sha-256",
        "hostssl all postgres 127.0.0.1/32 scram-sha-256",
    ]
    .map(str::to_owned)
    .to_vec();
    node.postgres.apply_settings(settings);
    done(node.postgres.reload_configuration().await);
    node
}

/// As the runtime starts PostgreSQL itself, no harness that reaps every child may be here.
fn certificates(base: &std::path::Path) -> Certificates {
    let dir = base.join("certificates");
    let made = std::process::Command::new(Certificates::SCRIPT).arg(&dir).status().unwrap();
    assert!(made.success(), "tests/run installs openssl");
    Certificates::made_in(&dir)
}

fn with(credential: &Credential, keywords: &[(&str, &str)]) -> Credential {
    let keywords: BTreeMap<_, _> =
        keywords.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Credential { keywords, ..credential.clone() }
}

#[tokio::test]
async fn a_walsender_is_asked_as_sslmode_says() {
    let base = base();
    let files = certificates(base.path());
    let node = secured(base.path(), &files).await;
    let path = |file: &str| files.path(file).display().to_string();
    let (ca, foreign, certificate, key) =
        (path("ca.pem"), path("foreign-ca.pem"), path("client.pem"), path("client.key"));
    let replicator = node.postgres.settings().replication.clone();
    let certified = matriarch_tests::single::credential("certified", "c");
    let own: [(&str, &str); 2] = [("sslcert", &certificate), ("sslkey", &key)];
    for (credential, keywords, error) in [
        (&replicator, vec![("sslmode", "disable")], Some("no pg_hba.conf entry")),
        (&replicator, vec![("sslmode", "allow")], None),
        (&replicator, vec![], None),
        (&replicator, vec![("sslmode", "require")], None),
        (&replicator, vec![("sslmode", "require"), ("channel_binding", "require")], None),
        (&replicator, vec![("sslmode", "require"), ("sslrootcert", &foreign)], Some("UnknownIssuer")),
        (&replicator, vec![("sslmode", "verify-ca"), ("sslrootcert", &ca)], None),
        (&replicator, vec![("sslmode", "verify-full"), ("sslrootcert", &ca)], None),
        (&replicator, vec![("sslmode", "verify-full"), ("sslrootcert", &foreign)], Some("UnknownIssuer")),
        (&replicator, vec![("sslmode", "verify-full"), ("sslrootcert", "/missing")], Some("cannot read /missing")),
        (&replicator, vec![("sslmode", "verify-full"), ("sslcrl", "/x"), ("sslrootcert", &ca)], Some("sslcrl")),
        (&certified, vec![("sslmode", "require")], Some("client certificate")),
        (&certified, [vec![("sslmode", "verify-full"), ("sslrootcert", &ca)], own.to_vec()].concat(), None),
    ] {
        let asked = WalSender::connect(&node.upstream(), &with(credential, &keywords), LONG).await;
        match (asked, error) {
            (Ok(mut sender), None) => {
                let told = sender.identify_system().await.unwrap();
                assert_eq!(told.system_id, node.cluster().await.system_id);
            }
            (Err(why), Some(error)) => assert!(why.contains(error), "{keywords:?}: {why}"),
            (outcome, _) => panic!("{keywords:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
async fn the_local_server_is_asked_over_tls_where_it_is_demanded() {
    let base = base();
    let files = certificates(base.path());
    let node = secured(base.path(), &files).await;
    let path = |file: &str| files.path(file).display().to_string();
    let (ca, foreign) = (path("ca.pem"), path("foreign-ca.pem"));
    for (keywords, error) in [
        (vec![("sslmode", "require")], None),
        (vec![("sslmode", "verify-full"), ("sslrootcert", ca.as_str())], None),
        (vec![("sslmode", "verify-full"), ("sslrootcert", foreign.as_str())], Some("UnknownIssuer")),
        (vec![("sslmode", "disable")], Some("no pg_hba.conf entry")),
    ] {
        let mut settings = (*node.postgres.settings()).clone();
        settings.local = LocalConnection::Host("127.0.0.1".into());
        settings.superuser = with(&settings.superuser, &keywords);
        let asked = Postgres::new(settings).observe_sql(LONG).await;
        match (asked, error) {
            (Ok(seen), None) => assert!(!seen.value.in_recovery),
            (Err(SqlFailure::Failed { message: why, .. } | SqlFailure::Unreachable(why)), Some(error)) => {
                assert!(why.contains(error), "{keywords:?}: {why}");
            }
            (outcome, _) => panic!("{keywords:?}: {outcome:?}"),
        }
    }
}

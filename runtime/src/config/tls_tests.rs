//! TLS in the configuration: whose files are read, what is wrong with them, and what is said of the rest.

use super::*;
use crate::tls::testing::Certificates;
use crate::tls::{Trust, VerifyClient};

/// The sample with TLS everywhere.
fn secured(files: &Certificates) -> String {
    let path = |file: &str| files.path(file).display().to_string();
    let restapi = format!(
        "restapi:\n  certfile: {}\n  keyfile: {}\n  cafile: {}\n  verify_client: required\n",
        path("server.pem"),
        path("server.key"),
        path("ca.pem")
    );
    let etcd3 = format!("etcd3:\n  protocol: https\n  cacert: {}\n  cert: {}\n", path("ca.pem"), path("bundle.pem"));
    let ctl = format!("ctl:\n  certfile: {}\n  keyfile: {}\n\nbootstrap:\n", path("client.pem"), path("client.key"));
    let text = sample().replace("restapi:\n", &restapi).replace("etcd3:\n", &etcd3);
    text.replace("bootstrap:\n", &ctl)
}

#[test]
fn a_cluster_with_tls_everywhere_is_understood() {
    let files = Certificates::make();
    let text = secured(&files);
    assert_eq!(validated(&text), "");
    let config = loaded(&text, &[]).unwrap().config;
    let restapi = config.restapi.tls.unwrap();
    assert_eq!(restapi.settings().verify_client, VerifyClient::Required);
    assert!(restapi.demands_certificate());
    let etcd3 = config.etcd3.tls.unwrap();
    assert_eq!((etcd3.settings().trust, &etcd3.settings().authorities), (Trust::Name, &Some(files.path("ca.pem"))));
    let members = config.ctl.tls.settings().clone();
    assert_eq!((members.trust, members.authorities), (Trust::Chain, Some(files.path("ca.pem"))));
}

#[test]
fn agents_and_ctl_trust_members_as_patronis_do() {
    let files = Certificates::make();
    let dir = tempfile::tempdir().unwrap();
    let (ca, client) = (files.path("ca.pem").display().to_string(), files.path("bundle.pem").display().to_string());
    let own = format!("ctl:\n  cacert: {ca}\n  certfile: {client}\n\nbootstrap:\n");
    let with_certificate = sample().replace("bootstrap:\n", &own);
    for (text, insecure, agent, ctl) in [
        (sample(), "off", Trust::Anyone, Trust::Name),
        (sample(), "on", Trust::Anyone, Trust::Anyone),
        (with_certificate.clone(), "off", Trust::Chain, Trust::Name),
        (with_certificate, "on", Trust::Chain, Trust::Chain),
    ] {
        let env = [("PATRONI_CTL_INSECURE".to_owned(), insecure.to_owned())];
        let path = write(&dir, "node.yml", &text);
        assert_eq!(load(Some(&path), env.clone()).unwrap().config.ctl.tls.settings().trust, agent);
        assert_eq!(load_client(Some(&path), env).unwrap().members.trust, ctl);
    }
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_its_key_and_line() {
    let files = Certificates::make();
    let path = |file: &str| files.path(file).display().to_string();
    for (from, to, key, why) in [
        ("certfile: $server.pem", "certfile: $missing", "restapi.certfile", "cannot read $missing: No such file"),
        ("keyfile: $server.key", "keyfile: $client.key", "restapi.keyfile", "$client.key: the private key does not"),
        ("keyfile: $server.key", "keyfile: $encrypted.key", "restapi.keyfile", "no password is configured"),
        ("\n  keyfile: $server.key", "", "restapi.certfile", "$server.pem: holds no private key"),
        (
            "keyfile: $server.key",
            "keyfile: $encrypted.key\n  keyfile_password: hunter",
            "restapi.keyfile_password",
            "$encrypted.key: the private key cannot be decrypted by this password",
        ),
        ("cafile: $ca.pem", "cafile: $client.key", "restapi.cafile", "$client.key: holds no certificate"),
        ("\n  cafile: $ca.pem", "", "restapi.verify_client", "needs `cafile`"),
        ("cacert: $ca.pem", "cacert: $server.key", "etcd3.cacert", "$server.key: holds no certificate"),
        ("cert: $bundle.pem", "cert: $server.pem", "etcd3.cert", "$server.pem: holds no private key"),
        ("keyfile: $client.key", "keyfile: $server.key", "ctl.keyfile", "$server.key: the private key does not"),
        ("cafile: $ca.pem", "cafile: $missing", "restapi.cafile", "cannot read $missing: No such file"),
    ] {
        let full = |text: &str| {
            let mut full = text.to_owned();
            while let Some(at) = full.find('$') {
                let end = full[at..].find([':', '\n', ' ']).map_or(full.len(), |length| at + length);
                full.replace_range(at..end, &path(&full[at + 1..end]));
            }
            full
        };
        let text = secured(&files).replacen(&full(from), &full(to), 1);
        let told = refused(&text);
        assert!(told.contains(&format!("{key}: ")) && told.contains(&full(why)), "{to}\n{told}");
        let last = key.rsplit('.').next().unwrap();
        assert!(told.contains("node.yml:") && told.contains(&format!("{last}:")), "the line is shown: {told}");
        assert!(!told.contains("hunter"), "{told}");
        assert_eq!(told, validated(&text), "{to}");
    }
}

#[test]
fn files_that_only_ctl_reads_are_validated() {
    let text = sample().replace("bootstrap:\n", "ctl:\n  cacert: /missing/ca.pem\n\nbootstrap:\n");
    assert!(loaded(&text, &[]).is_ok());
    assert!(validated(&text).contains("ctl.cacert: cannot read /missing/ca.pem"));
}

#[test]
fn ctl_reads_no_files_before_it_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let text = "etcd3: {host: h}\nctl: {certfile: /missing/c.pem, cacert: /missing/ca.pem}\n";
    let client = load_client(Some(&write(&dir, "ctl.yaml", text)), []).unwrap();
    assert!(crate::tls::Client::load(client.members).is_err());
}

#[test]
fn what_has_no_effect_on_tls_is_said() {
    let files = Certificates::make();
    let warned = |text: &str| -> Vec<(String, bool)> {
        let loaded = loaded(text, &[]).unwrap();
        loaded.warnings.into_iter().map(|problem| (problem.path, problem.strict)).collect()
    };
    let plain = "restapi:\n  keyfile: /x\n  verify_client: required\n  ciphers: HIGH\n";
    let text = sample().replace("restapi:\n", plain).replace("etcd3:\n", "etcd3:\n  cacert: /x\n  key: /x\n");
    let expected =
        ["etcd3.cacert", "etcd3.key", "restapi.keyfile", "restapi.ciphers", "restapi.verify_client"].map(str::to_owned);
    assert_eq!(warned(&text), expected.map(|path| (path, true)));

    let secured = secured(&files);
    let open = secured.replace("verify_client: required", "verify_client: optional\n  ciphers: HIGH:!aNULL");
    assert_eq!(warned(&open), [("restapi.ciphers".to_owned(), false)]);
    let open = open.replace(&format!("  cafile: {}\n", files.path("ca.pem").display()), "");
    assert_eq!(warned(&open)[0], ("restapi.verify_client".to_owned(), false));
    let anonymous = secured.replace("ctl:\n", "x-ctl:\n");
    assert_eq!(warned(&anonymous)[1], ("restapi.verify_client".to_owned(), false));
}

#[test]
fn a_certificate_that_was_renewed_is_no_change_of_the_store() {
    let files = Certificates::make();
    let text = secured(&files);
    let started = loaded(&text, &[]).unwrap().config;
    files.copy("client.pem", "bundle.pem");
    let key = std::fs::read_to_string(files.path("client.key")).unwrap();
    let both = std::fs::read_to_string(files.path("client.pem")).unwrap() + &key;
    std::fs::write(files.path("bundle.pem"), both).unwrap();
    let mut reloaded = loaded(&text, &[]).unwrap().config;
    assert!(reloaded.keep_identity(&started).is_empty());
    let (before, after) = (started.etcd3.tls.unwrap(), reloaded.etcd3.tls.unwrap());
    assert!(before == after && !before.is_as(&after), "it is taken in");
}

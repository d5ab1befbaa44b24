//! The Debian package, built of the tree and looked into.

use std::path::Path;
use std::process::Command;

use matriarch_tests::matriarch;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../runtime/package/deb");

fn output(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let ended = Command::new(program).args(arguments).env("DPKG_DEB_COMPRESSOR_TYPE", "gzip").output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[test]
fn what_is_in_the_debian_package_can_be_run() {
    if Command::new("dpkg-deb").arg("--version").output().is_err()
        || Command::new("strip").arg("--version").output().is_err()
    {
        eprintln!("NOT TESTED: dpkg-deb and strip build packages");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let into = dir.path().to_str().unwrap();
    output(SCRIPT, &[into, matriarch().to_str().unwrap()]);
    let found = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [package] = &found[..] else { panic!("one package, nothing else: {found:?}") };
    let package = package.to_str().unwrap();
    assert!(output("dpkg-deb", &["--field", package, "Depends"]).starts_with("libc6 (>= 2."));
    let unpacked = dir.path().join("unpacked");
    output("dpkg-deb", &["--extract", package, unpacked.to_str().unwrap()]);
    let said = |path: &str, arguments: &[&str]| output(unpacked.join(path), arguments);
    assert!(said("usr/bin/matriarch", &["--version"]).starts_with("matriarch "));
    assert_eq!(said("usr/lib/matriarch/bin/patroni", &["--version"]), "patroni 4.1.5\n");
    assert_eq!(said("usr/lib/matriarch/bin/patronictl", &["version"]), "patronictl version 4.1.5\n");
    for file in [
        "usr/lib/systemd/system/matriarch.service",
        "usr/share/man/man1/matriarch.1.gz",
        "usr/share/bash-completion/completions/matriarch",
        "usr/share/doc/matriarch/examples/node.schema.json",
        "usr/share/doc/matriarch/examples/haproxy.cfg",
    ] {
        assert!(Path::new(&unpacked).join(file).metadata().unwrap().len() > 0, "{file}");
    }
}

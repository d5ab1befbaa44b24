//! A repository of pgBackRest, and nodes that use it as `docs/examples` has it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::{Node, example, tools};

/// As the examples call it.
const CALLED: &str = "/usr/bin/pgbackrest --stanza=main";

/// An empty repository, which outlives clusters. It goes when this is dropped.
pub struct Repository {
    pgbackrest: PathBuf,
    dir: TempDir,
}

impl Repository {
    /// Makes one; `None`, and it is said, where pgBackRest is not installed.
    pub fn new() -> Option<Self> {
        let pgbackrest = tools::program("pgbackrest")?;
        let dir = tempfile::Builder::new().prefix("matriarch-test-").tempdir().expect("a directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("permissions of the directory");
        for name in ["repository", "log", "lock"] {
            tools::make_dir_of_account(&dir.path().join(name));
        }
        Some(Self { pgbackrest, dir })
    }

    /// Has a node use it by these of the examples, from its next start on.
    pub fn configure(&self, node: &Node, examples: &[&str]) {
        let within = |name: &str| self.dir.path().join(name).display().to_string();
        let (_, port) = node.server_address();
        let changes = [
            ("[global]", format!("[global]\nlock-path={}", within("lock"))),
            ("/var/lib/pgbackrest", within("repository")),
            ("/var/log/pgbackrest", within("log")),
            ("/var/lib/postgresql/main", node.data_dir().display().to_string()),
            ("/run/postgresql", node.dir().display().to_string()),
            ("pg1-port=5432", format!("pg1-port={port}")),
        ];
        fs::write(node.dir().join("pgbackrest.conf"), example("pgbackrest.conf", &changes)).expect("its configuration");
        for name in examples {
            let called = format!("{} {}", self.pgbackrest.display(), Self::arguments(node).join(" "));
            let text = example(name, &[(CALLED, called)]);
            node.configure(&serde_yaml::from_str(&text).expect("YAML"));
        }
    }

    /// Runs pgBackRest on a node; what it said.
    ///
    /// # Errors
    /// It failed, and why.
    pub fn run(&self, node: &Node, words: &[&str]) -> Result<String, String> {
        let arguments = Self::arguments(node);
        node.run(&self.pgbackrest, &[&[arguments[0].as_str(), arguments[1].as_str()], words].concat())
    }

    fn arguments(node: &Node) -> [String; 2] {
        [format!("--config={}", node.dir().join("pgbackrest.conf").display()), "--stanza=main".to_owned()]
    }
}

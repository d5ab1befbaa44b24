//! The two command lines for operators, run against one cluster: Patroni's own and ours.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::plan::SUPERUSER;
use crate::{Child, Cluster, Ended, tools};

/// How long a command may take: a restart or a switchover on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a comparison is made before a difference counts: positions go on between two commands.
const ATTEMPTS: usize = 4;

/// What a command said, and how it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub complaints: String,
    /// The exit status.
    pub status: i32,
}

/// Both command lines, configured for a cluster.
pub struct Clients {
    theirs: PathBuf,
    ours: PathBuf,
    config: PathBuf,
    editor: PathBuf,
}

/// What an operator does to a configuration in the editor.
const EDITOR: &str = "#!/bin/sh\nexec sed -i -e 's/^ttl: .*/ttl: 4 # seconds/' -e '/use_pg_rewind/d' \"$1\"\n";
/// Runs its arguments at a terminal, and ends as they end.
const AT_A_TERMINAL: &str = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

impl Clients {
    /// For a cluster; `None`, and it is said, where Patroni is not installed.
    pub fn of(cluster: &Cluster) -> Option<Self> {
        let theirs = tools::patroni()?.join("patronictl");
        let hosts: Vec<String> = cluster.stores.iter().map(|store| format!("'{}'", store.client)).collect();
        let config = cluster.nodes[0].dir().with_file_name("patronictl.yaml");
        let yaml = format!("scope: test\netcd3:\n  hosts: [{}]\n", hosts.join(", "));
        std::fs::write(&config, yaml).expect("the clients' configuration");
        let editor = config.with_file_name("editor");
        std::fs::write(&editor, EDITOR).expect("an editor");
        std::fs::set_permissions(&editor, Permissions::from_mode(0o755)).expect("an editor that can be started");
        Some(Self { theirs, ours: tools::matriarch(), config, editor })
    }

    /// Runs Patroni's.
    pub fn theirs(&self, words: &[&str], input: &str) -> Said {
        self.run(self.command(&self.theirs, words), input)
    }

    /// Runs ours.
    pub fn ours(&self, words: &[&str], input: &str) -> Said {
        self.run(self.command(&self.ours, words), input)
    }

    /// Runs ours at a terminal, and has it interrupted after so many seconds.
    pub fn ours_at_a_terminal(&self, words: &[&str], seconds: u32) -> Said {
        let mut command = Command::new("python3");
        command.args(["-c", AT_A_TERMINAL, "timeout", "--foreground", "--preserve-status", "-s", "INT"]);
        let ours = self.command(&self.ours, words);
        command.arg(seconds.to_string()).arg(ours.get_program()).args(ours.get_args());
        self.run(command, "")
    }

    /// Runs the same with both and holds what they said against each other, each as `mask` leaves it. What is compared
    /// must not change the cluster, or change it to the same: it may be done several times.
    pub fn same(&self, words: &[&str], input: &str, mask: impl Fn(Said) -> Said) -> Said {
        for attempt in 1.. {
            let (theirs, ours) = (mask(self.theirs(words, input)), mask(self.ours(words, input)));
            if theirs == ours {
                return ours;
            }
            if attempt == ATTEMPTS {
                assert_eq!(ours.output, theirs.output, "{words:?}\nours:\n{ours:?}\ntheirs:\n{theirs:?}");
                assert_eq!(ours, theirs, "{words:?}");
            }
        }
        unreachable!("the last attempt returns or fails")
    }

    fn command(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.config).args(words);
        command
    }

    fn run(&self, mut command: Command, input: &str) -> Said {
        for (name, _) in std::env::vars() {
            if name.starts_with("PATRONI") || name == "DCS_URL" || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C.UTF-8").env("PGPASSWORD", SUPERUSER.1).env("EDITOR", &self.editor);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (child, mut pipes) = Child::spawn_piped(&mut command).expect("the client starts");
        let (mut stdin, stdout, stderr) = (pipes.stdin.take(), pipes.stdout.take(), pipes.stderr.take());
        // A client that does not read what it is given is no failure of the test.
        let _ = stdin.as_mut().map(|stdin| stdin.write_all(input.as_bytes()));
        drop(stdin);
        let (output, complaints) = (read(stdout), read(stderr));
        let ended = child.wait(LIMIT);
        if ended.is_none() {
            child.process().kill();
        }
        let told = || (output.join().unwrap_or_default(), complaints.join().unwrap_or_default());
        match ended {
            Some(Ended::Exit(status)) => {
                let (output, complaints) = told();
                Said { output, complaints, status }
            }
            other => panic!("{command:?}: {other:?}: {:?}", told()),
        }
    }
}

fn read(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.map(|mut pipe| pipe.read_to_string(&mut text));
        text
    })
}

//! Golden scripts: `tests/scenarios/*.txt` tell what happens to one agent, `a`, in a scripted world; below each line
//! stands what the agent decides and orders because of it. `UPDATE=1 cargo test -p matriarch-tests --test scenarios`
//! rewrites them. Commit only a difference that you understand: each is a change of what happens to somebody's
//! database.

#[path = "scenarios/describe.rs"]
mod describe;
#[path = "scenarios/script.rs"]
mod script;
#[path = "scenarios/world.rs"]
mod world;

use std::path::{Path, PathBuf};

#[test]
fn every_script_tells_what_the_agent_does() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(&directory)
        .expect("tests/scenarios is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 15, "scripts are missing: {scripts:?}");
    let mut different = Vec::new();
    for path in scripts {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let expected = std::fs::read_to_string(&path).expect("a script can be read");
        let told = script::run(&name, &expected);
        if told == expected {
            continue;
        }
        if std::env::var_os("UPDATE").is_some() {
            eprintln!("{name} is rewritten: commit the difference only if you understand it");
            std::fs::write(&path, told).expect("a script can be written");
        } else {
            different.push(format!("--- {name}\n{}", first_difference(&expected, &told)));
        }
    }
    assert!(different.is_empty(), "UPDATE=1 rewrites what differs:\n{}", different.join("\n"));
}

fn first_difference(expected: &str, told: &str) -> String {
    let lines = expected.lines().zip(told.lines().chain(std::iter::repeat("")));
    match lines.enumerate().find(|(_, (expected, told))| expected != told) {
        Some((index, (expected, told))) => format!("line {}:\n  was {expected}\n  is  {told}", index + 1),
        None => format!("the end: {}", told.lines().nth(expected.lines().count()).unwrap_or_default()),
    }
}

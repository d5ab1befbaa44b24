//! What the demo shows: lines that stay, and on a terminal a few below them that are drawn again in place.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use super::cluster::NODES;
use super::members::Member;

/// Where progress goes, and how.
pub(super) struct Screen {
    /// Standard output is for one document.
    is_quiet: bool,
    /// The terminal can move its cursor.
    is_live: bool,
    has_colours: bool,
    /// Lines that the last frame takes.
    drawn: Cell<usize>,
    stage: RefCell<Stage>,
}

#[derive(Default)]
struct Stage {
    done: usize,
    of: usize,
    text: String,
}

impl Screen {
    /// A screen on standard output, or, if that is for a document, on standard error without a live part.
    pub(super) fn new(is_quiet: bool) -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let is_live = !is_quiet && io::stdout().is_terminal() && !is_dumb;
        Self {
            is_quiet,
            is_live,
            has_colours: is_live && !set("NO_COLOR"),
            drawn: Cell::new(0),
            stage: RefCell::default(),
        }
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        self.clear();
        self.write(&format!("{line}\n"));
    }

    /// The tour goes on: `done` of `of` faults are over. Drawn with the next frame, or a line of its own.
    pub(super) fn stage(&self, done: usize, of: usize, text: &str) {
        if !self.is_live && self.stage.borrow().text != text {
            self.write(&format!("[{done}/{of}] {text}\n"));
        }
        *self.stage.borrow_mut() = Stage { done, of, text: text.to_owned() };
    }

    /// Draws the live part anew, on a terminal.
    pub(super) fn draw(&self, names: [&str; NODES], members: &[Member; NODES], rates: [u64; NODES]) {
        if !self.is_live {
            return;
        }
        let stage = self.stage.borrow();
        let mut lines = vec![String::new(), progress(stage.done, stage.of, &stage.text), String::new()];
        lines.extend(table(names, members, rates));
        if self.has_colours {
            colour(&mut lines, members);
        }
        let mut frame = self.erasure();
        // Without wrapping, a line that is longer than the terminal is cut and the count of lines stays right.
        frame.push_str("\x1b[?7l");
        for line in &lines {
            let _ = writeln!(frame, "{line}");
        }
        frame.push_str("\x1b[?7h");
        self.drawn.set(lines.len());
        self.write(&frame);
    }

    /// Removes the live part.
    pub(super) fn clear(&self) {
        let erasure = self.erasure();
        self.drawn.set(0);
        self.write(&erasure);
    }

    /// The document for machines.
    pub(super) fn document(&self, document: &Value) {
        debug_assert!(self.is_quiet);
        let _ = writeln!(io::stdout(), "{document:#}");
    }

    /// A text in bold, or a fault's outcome in its colour, if colours are wanted.
    pub(super) fn painted(&self, text: &str, code: &str) -> String {
        if self.has_colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn erasure(&self) -> String {
        match self.drawn.get() {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    /// A reader that went away is no reason to leave processes behind: errors are not errors here.
    fn write(&self, text: &str) {
        let _ = if self.is_quiet {
            io::stderr().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush())
        };
    }
}

/// `[####......] 2/6  kill the postmaster`.
fn progress(done: usize, of: usize, text: &str) -> String {
    const WIDTH: usize = 24;
    let full = (done * WIDTH).checked_div(of).unwrap_or(0).min(WIDTH);
    format!("[{}{}] {done}/{of}  {text}", "#".repeat(full), ".".repeat(WIDTH - full))
}

/// The members, a line each under a head.
fn table(names: [&str; NODES], members: &[Member; NODES], rates: [u64; NODES]) -> Vec<String> {
    let leader = members.iter().filter(|member| member.role == "primary").map(|member| member.position).max();
    let mut lines = vec!["  member  role      state             timeline     lag  rows/s  reason".to_owned()];
    for ((name, member), rate) in names.into_iter().zip(members).zip(rates) {
        if !member.answers {
            lines.push(format!(
                "  {name:<6}  {:<8}  {:<16}  {:>8}  {:>6}  {rate:>6}  the agent does not answer",
                "-", "-", "-", "-"
            ));
            continue;
        }
        let state = if member.is_streaming { "streaming" } else { member.state.as_str() };
        let lag = match leader {
            Some(leader) if member.role == "replica" && member.position > 0 => {
                amount(leader.saturating_sub(member.position))
            }
            Some(_) | None => "-".to_owned(),
        };
        let timeline = if member.timeline == 0 { "-".to_owned() } else { member.timeline.to_string() };
        let (role, reason) = (&member.role, &member.reason);
        lines.push(format!("  {name:<6}  {role:<8}  {state:<16}  {timeline:>8}  {lag:>6}  {rate:>6}  {reason}"));
    }
    lines
}

/// Bytes for people.
fn amount(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} kB", bytes >> 10),
        _ => format!("{} MB", bytes >> 20),
    }
}

/// The head in bold, a primary green, a member in trouble yellow.
fn colour(lines: &mut [String], members: &[Member; NODES]) {
    let codes = members.iter().map(|member| match member.role.as_str() {
        "primary" if member.state == "running" => "32",
        "replica" if member.is_streaming => "0",
        _ => "33",
    });
    let begin = lines.len().saturating_sub(NODES + 1);
    for (line, code) in lines.iter_mut().skip(begin).zip(["1"].into_iter().chain(codes)) {
        *line = format!("\x1b[{code}m{line}\x1b[0m");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_shows_the_lag_of_standbys_only() {
        let primary = Member {
            answers: true,
            role: "primary".into(),
            state: "running".into(),
            timeline: 3,
            position: 5000,
            reason: "leads".into(),
            ..Member::default()
        };
        let standby = Member {
            role: "replica".into(),
            is_streaming: true,
            position: 900,
            reason: "follows n1".into(),
            ..primary.clone()
        };
        let lines = table(["n1", "n2", "n3"], &[primary, standby, Member::default()], [180, 0, 0]);
        assert_eq!(
            lines,
            [
                "  member  role      state             timeline     lag  rows/s  reason",
                "  n1      primary   running                  3       -     180  leads",
                "  n2      replica   streaming                3    4 kB       0  follows n1",
                "  n3      -         -                        -       -       0  the agent does not answer",
            ]
        );
    }

    #[test]
    fn progress_fills_the_bar() {
        assert_eq!(progress(3, 6, "x"), "[############............] 3/6  x");
        assert_eq!(progress(0, 0, ""), "[........................] 0/0  ");
    }
}

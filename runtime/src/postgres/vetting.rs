//! What the server would refuse of its parameters is left out, with a warning: one misspelt name, and no server of the
//! cluster would come up again at its next start.
//!
//! The server itself is asked, by `postgres -C` on a trial file: it reads the file as at a start, says what is wrong
//! with it, and starts nothing. `--describe-config` alone would not do: it has no units, no words of enumerations, and
//! leaves out what is not meant for `postgresql.conf.sample`.
//!
//! It is asked beside the agent's loop, when the agent starts, when the parameters or the program change, and before
//! parameters are handed to a server that runs. Nothing else asks: a start, a freeze and a new upstream take what was
//! found out last, because a failover must not wait for a program that hangs. So does everything while the program is
//! missing or gives no answer. What was found out of one value says nothing of another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::conf::{self, quote};
use super::files;
use super::settings::Settings;
use super::tools::{self, Tool};
use crate::aside::look;

/// How long the server may be asked.
const LIMIT: Duration = Duration::from_secs(10);
/// A program that gave no answer is asked the same again no sooner than this.
const SILENT_FOR: Duration = Duration::from_mins(1);
/// How long a start waits for the first answer of all, if the question is under way: for the few milliseconds after the
/// agent's own start. Without it a start would fail by what the answer leaves out.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// A known name may be so many letters away from an unknown one to be proposed.
const DISTANCE_MAX: usize = 3;

/// What was found out.
#[derive(Debug, Default)]
pub(super) struct Vetting {
    /// Held by who asks.
    asking: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What the last answer was.
    last: Option<Vetted>,
    /// After it the program gave no answer, to this.
    silent: Option<Silent>,
}

#[derive(Debug)]
struct Vetted {
    of: Subject,
    findings: Findings,
}

#[derive(Debug)]
struct Silent {
    of: Subject,
    since: Instant,
}

/// What an answer is true of.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Subject {
    program: PathBuf,
    /// Device, inode, length, and when it was written: a package upgrade changes some of them.
    file: (u64, u64, u64, i64, i64),
    parameters: BTreeMap<String, String>,
}

/// What became of the parameters that the server does not take as they are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Findings {
    /// By name: the value to use instead; `None` = left out.
    instead: BTreeMap<String, Option<String>>,
    /// For people.
    warnings: Vec<String>,
}

impl Vetting {
    /// Asks, unless the answer is known; then as [`Self::known`], with the warnings about it. `settings` are taken when
    /// it is our turn: what was asked last is what counts last.
    pub(super) async fn vet(&self, settings: impl Fn() -> Arc<Settings>) -> (Arc<Settings>, Vec<String>) {
        let turn = self.asking.lock().await;
        let settings = settings();
        let seen = Arc::clone(&settings);
        if let Some(subject) = look(move || subject(&seen)).await
            && self.known_now().is_worth_asking(&subject)
        {
            let asked = timeout(LIMIT, ask(&settings, &subject.parameters)).await;
            let asked = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", LIMIT.as_secs())));
            self.known_now().take(subject, asked);
        }
        drop(turn);
        let settings = self.known(settings);
        let warnings = self.known_now().last.as_ref().map(|vetted| vetted.findings.warnings.clone());
        (settings, warnings.unwrap_or_default())
    }

    /// The settings without what the server would refuse, as far as that is known. Asks nobody.
    pub(super) fn known(&self, settings: Arc<Settings>) -> Arc<Settings> {
        match &self.known_now().last {
            Some(vetted) => applied(settings, vetted),
            None => settings,
        }
    }

    /// Waits for the first answer, if the question is under way; not for long.
    pub(super) async fn first(&self) {
        if self.known_now().last.is_none() {
            // Late is as good as never: then the server itself says what is wrong.
            let _ = timeout(FIRST_WAIT, self.asking.lock()).await;
        }
    }

    fn known_now(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_worth_asking(&self, subject: &Subject) -> bool {
        let answered = self.last.as_ref().is_some_and(|vetted| vetted.of == *subject);
        let silent = self.silent.as_ref().filter(|silent| silent.of == *subject);
        !answered && silent.is_none_or(|silent| silent.since.elapsed() >= SILENT_FOR)
    }

    fn take(&mut self, of: Subject, asked: Result<Findings, String>) {
        match asked {
            Ok(findings) => {
                let told = self.last.as_ref().map_or(&[][..], |vetted| &vetted.findings.warnings);
                for warning in findings.warnings.iter().filter(|warning| !told.contains(warning)) {
                    tracing::warn!("{warning}");
                }
                *self = Self { last: Some(Vetted { of, findings }), silent: None };
            }
            Err(why) => {
                if self.silent.as_ref().is_none_or(|silent| silent.of != of) {
                    tracing::warn!("PostgreSQL's program cannot be asked about its parameters: {why}");
                }
                self.silent = Some(Silent { of, since: Instant::now() });
            }
        }
    }
}

fn subject(settings: &Settings) -> Option<Subject> {
    let program = tools::locate(settings, "postgres").ok()?;
    let file = fs::metadata(&program).ok()?;
    let file = (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec());
    let mut parameters: BTreeMap<_, _> = settings.command_line.iter().cloned().collect();
    parameters.extend(settings.parameters.clone());
    parameters.extend(conf::recovery_parameters(settings).map(|(name, value)| (name.clone(), value.clone())));
    // Relative to the file that they are in.
    parameters.retain(|name, _| !matches!(name.as_str(), "include" | "include_dir" | "include_if_exists"));
    Some(Subject { program, file, parameters })
}

fn applied(settings: Arc<Settings>, vetted: &Vetted) -> Arc<Settings> {
    if vetted.findings.instead.is_empty() {
        return settings;
    }
    let mut settings = Arc::unwrap_or_clone(settings);
    for map in [&mut settings.parameters, &mut settings.recovery_conf] {
        map.retain(|name, value| change(vetted, name, value));
    }
    settings.command_line.retain_mut(|(name, value)| change(vetted, name, value));
    Arc::new(settings)
}

/// Whether the parameter stays, with its value made right.
fn change(vetted: &Vetted, name: &str, value: &mut String) -> bool {
    match vetted.findings.instead.get(name) {
        Some(_) if vetted.of.parameters.get(name) != Some(value) => true,
        None => true,
        Some(None) => false,
        Some(Some(other)) => {
            value.clone_from(other);
            true
        }
    }
}

/// Asks until the server takes what is left. It says everything that is wrong of one kind at once (syntax, then names,
/// then values), so a few times are enough; each takes something out.
async fn ask(settings: &Arc<Settings>, parameters: &BTreeMap<String, String>) -> Result<Findings, String> {
    let mut left = parameters.clone();
    let mut findings = Findings::default();
    let mut unknown = Vec::new();
    while let Err(said) = attempt(settings, &left).await {
        let mut faults = faults(&said, &left);
        if faults.is_empty() {
            faults = one_by_one(settings, &left).await?;
        }
        if faults.is_empty() {
            return Err(said);
        }
        for fault in faults {
            let Some(value) = left.remove(&fault.name) else { continue };
            if fault.unknown {
                unknown.push(fault.name.clone());
            } else if let Some(nearest) = fault.nearest.filter(|_| !findings.instead.contains_key(&fault.name)) {
                let text =
                    format!("postgresql parameter {}={value} is not used, but {nearest}: {}", fault.name, fault.why);
                findings.warnings.push(text);
                left.insert(fault.name.clone(), nearest.clone());
                findings.instead.insert(fault.name, Some(nearest));
                continue;
            } else {
                findings.warnings.push(format!("postgresql parameter {} is not used: {}", fault.name, fault.why));
            }
            findings.instead.insert(fault.name, None);
        }
    }
    if !unknown.is_empty() {
        let known = known_names(settings).await;
        findings.warnings.extend(unknown.iter().map(|name| unknown_warning(name, &known)));
    }
    findings.warnings.sort();
    Ok(findings)
}

/// For what the server does not name, such as a library that its build is without.
async fn one_by_one(settings: &Arc<Settings>, parameters: &BTreeMap<String, String>) -> Result<Vec<Fault>, String> {
    // What fails with nothing in it says nothing about what is in it.
    attempt(settings, &BTreeMap::new()).await?;
    let mut found = Vec::new();
    for (name, value) in parameters {
        let alone = BTreeMap::from([(name.clone(), value.clone())]);
        if let Err(said) = attempt(settings, &alone).await {
            let named = faults(&said, &alone).pop();
            let why = said.lines().filter_map(|line| line.split_once("LOG:  ")).next_back();
            let why = why.map_or(said.as_str(), |(_, why)| why).lines().next().unwrap_or_default().to_owned();
            found.push(named.unwrap_or_else(|| Fault {
                name: name.clone(),
                why: without_file(&why),
                unknown: false,
                nearest: None,
            }));
        }
    }
    Ok(found)
}

/// Has the server read these parameters; `Err`: what it said.
async fn attempt(settings: &Arc<Settings>, parameters: &BTreeMap<String, String>) -> Result<(), String> {
    let mut text = String::new();
    for (name, value) in parameters {
        text.push_str(&format!("{name} = {}\n", quote(value)));
    }
    let writer = Arc::clone(settings);
    let trial = look(move || Trial::write(&writer, &text)).await?;
    let mut tool = Tool::new(settings, "postgres").args(["-C", "port", "-D"]).arg(trial.directory());
    tool = tool.arg("-c").arg(format!("config_file={}", trial.0.display()));
    // Whatever the file says of these: we want to hear it, and to understand it.
    for how in ["log_min_messages=warning", "log_destination=stderr", "log_line_prefix=", "lc_messages=C"] {
        tool = tool.arg("-c").arg(how);
    }
    let said = tool.run(&|_| ()).await;
    look(move || drop(trial)).await;
    said.map(|_| ())
}

/// A file of parameters that is gone when dropped.
#[derive(Debug)]
struct Trial(PathBuf);

impl Trial {
    fn write(settings: &Settings, text: &str) -> Result<Self, String> {
        let path = std::path::absolute(&settings.server_log).map_err(|e| e.to_string())?;
        let path = path.with_file_name("parameters.trial");
        files::write(&path, text.as_bytes(), Some(0o600), settings.run_as.as_ref())
            .map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
        Ok(Self(path))
    }

    fn directory(&self) -> &Path {
        self.0.parent().unwrap_or(&self.0)
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What is wrong with one parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    pub(super) name: String,
    pub(super) why: String,
    pub(super) unknown: bool,
    /// The nearest value of the range, if it is only out of that.
    pub(super) nearest: Option<String>,
}

/// Reads what the server says, such as `LOG:  invalid value for parameter "DateStyle": "x"` and the lines below it that
/// belong to it. Names that are none of these parameters are none of ours.
pub(super) fn faults(said: &str, parameters: &BTreeMap<String, String>) -> Vec<Fault> {
    let mut found: Vec<Fault> = Vec::new();
    let mut ours = false;
    for line in said.lines() {
        let Some((_, message)) = line.split_once("LOG:  ") else {
            let more = line.strip_prefix("DETAIL:  ").or_else(|| line.strip_prefix("HINT:  "));
            if let (true, Some(more), Some(last)) = (ours, more, found.last_mut()) {
                last.why = format!("{}; {}", last.why, more.trim_end_matches('.'));
            }
            continue;
        };
        let name = if message.starts_with("syntax error") {
            line_of(message).and_then(|line| on_line(parameters, line))
        } else {
            let named = message.split_once("parameter \"").and_then(|(_, rest)| rest.split_once('"'));
            named.and_then(|(name, _)| parameters.keys().find(|known| known.eq_ignore_ascii_case(name)))
        };
        ours = name.is_some();
        if let Some(name) = name {
            found.push(Fault {
                name: name.clone(),
                why: without_file(message),
                unknown: message.starts_with("unrecognized configuration parameter"),
                nearest: nearest_value(message),
            });
        }
    }
    found
}

/// From `syntax error in file "parameters.trial" line 3, near token "="`.
fn line_of(message: &str) -> Option<usize> {
    let (_, rest) = message.rsplit_once("\" line ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The parameter that is on this line of the trial file, or on some lines around it.
fn on_line(parameters: &BTreeMap<String, String>, line: usize) -> Option<&String> {
    let mut last = 0;
    let mut ends = parameters.iter().map(|(name, value)| {
        last += 1 + name.matches('\n').count() + value.matches('\n').count();
        (name, last)
    });
    ends.find(|(_, end)| line <= *end).map(|(name, _)| name)
}

/// The trial file is gone by the time that anybody reads of it.
fn without_file(message: &str) -> String {
    let cut = message.find(" in file \"").unwrap_or(message.len());
    message.get(..cut).unwrap_or(message).to_owned()
}

/// From `1 s is outside the valid range for parameter "checkpoint_timeout" (30 .. 86400)`. All three are in the
/// parameter's own unit, which a bare number has too.
fn nearest_value(message: &str) -> Option<String> {
    let (value, rest) = message.split_once(" is outside the valid range for parameter ")?;
    let (_, range) = rest.rsplit_once('(')?;
    let (low, high) = range.trim_end_matches(')').split_once(" .. ")?;
    let word = |text: &str| text.split_whitespace().next().map(str::to_owned);
    let number = |text: &str| word(text)?.parse::<f64>().ok();
    if number(value)? < number(low)? { word(low) } else { word(high) }
}

/// The names that the server knows and tells.
async fn known_names(settings: &Arc<Settings>) -> BTreeSet<String> {
    let Ok(told) = Tool::new(settings, "postgres").arg("--describe-config").output().await else {
        return BTreeSet::new();
    };
    told.lines().filter_map(|line| line.split('\t').next()).map(str::to_ascii_lowercase).collect()
}

fn unknown_warning(name: &str, known: &BTreeSet<String>) -> String {
    let near = known.iter().map(|other| (distance(name, other), other)).min();
    let near = near.filter(|(distance, _)| *distance <= DISTANCE_MAX && distance * 2 < name.len());
    let meant = near.map_or_else(String::new, |(_, other)| format!(", is {other} meant?"));
    format!("postgresql parameter {name} is not used: PostgreSQL knows no such parameter{meant}")
}

/// How many letters must be added, removed or replaced to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, above) in other.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *above;
            left = replaced.min(left + 1).min(diagonal + 1);
            *above = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[path = "vetting_tests.rs"]
mod tests;

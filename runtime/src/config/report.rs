//! Complaints about a configuration, and how they are shown: the place, the line, a caret. Never a password.

use std::fmt::Write as _;

use super::yaml::{Node, Span, Value};

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The agent does not start with it.
    Error,
    /// The agent starts and says so once.
    Warning,
}

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub severity: Severity,
    /// A warning that `validate-config` counts as an error (a likely typing mistake).
    pub strict: bool,
    /// Where; `span.line` is 0 for what came from the environment or is missing as a whole.
    pub span: Span,
    /// The key's full name with dots, `postgresql.pg_ctl_timeout`; empty for the whole file.
    pub path: String,
    /// What was found, what was expected, and the way out. Without the path.
    pub message: String,
    /// A value that is not shown with the line: that of an unknown key, which may be a mistyped `password`.
    pub hides: Option<Span>,
}

impl Problem {
    /// An error.
    pub fn error(span: Span, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, strict: false, span, path: path.into(), message: message.into(), hides: None }
    }

    /// A warning.
    pub fn warning(span: Span, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, path, message) }
    }

    /// A warning that validation counts as an error.
    pub fn suspect(span: Span, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { strict: true, ..Self::warning(span, path, message) }
    }
}

/// A text that configuration came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    /// The file's path, or `environment variable PATRONI_SCOPE`.
    pub name: String,
    /// Its text; empty for an environment variable, whose value is never shown.
    pub text: String,
}

/// All texts of one configuration (a directory has several, and each environment variable is one), by the index that
/// [`Span::source`] holds.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources {
    list: Vec<Source>,
    hidden: Vec<Span>,
}

impl std::fmt::Debug for Sources {
    /// Names only: the texts hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list.iter().map(|s| &s.name)).finish()
    }
}

impl Sources {
    /// Adds a text and returns its index.
    pub fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        self.list.push(Source { name: name.into(), text: text.into() });
        self.list.len() - 1
    }

    /// Hides every value in the tree whose key says that it is a secret, or that looks like a connection string with
    /// one, from all that is rendered later.
    pub fn hide_secrets(&mut self, root: &Node) {
        for (key, value) in root.entries() {
            if key.as_str().is_some_and(is_secret_name) {
                self.hidden.push(value.span);
                // Also what YAML takes for a comment: `password: #1secret` has no value, but a secret on its line.
                self.hidden.push(rest_of_line(key.span, value));
            }
            self.hide_secrets(value);
        }
        root.items().iter().for_each(|item| self.hide_secrets(item));
        if matches!(&root.value, Value::Str(s) if holds_credentials(s)) {
            self.hidden.push(root.span);
        }
    }

    /// Hides a part of a text from all that is rendered later.
    pub fn hide(&mut self, span: Span) {
        self.hidden.push(span);
    }

    fn name(&self, index: usize) -> &str {
        self.list.get(index).map_or("configuration", |s| s.name.as_str())
    }

    /// The line with secrets blanked, and where column `column` of it went. `None` if there is nothing to show.
    fn line(&self, span: Span, hidden: &[Span]) -> Option<(String, usize)> {
        let source = self.list.get(span.source)?;
        let text = super::yaml::lines(&source.text).nth(usize::try_from(span.line).ok()?.checked_sub(1)?)?;
        let mut caret = (span.column.max(1) - 1) as usize;
        let mut chars: Vec<char> = text.chars().collect();
        let mut hidden: Vec<(usize, usize)> = self
            .hidden
            .iter()
            .chain(hidden)
            .filter(|h| h.source == span.source && h.line <= span.line && h.end_line >= span.line)
            .map(|h| {
                let from = if h.line == span.line { (h.column.max(1) - 1) as usize } else { 0 };
                let to = if h.end_line == span.line { (h.end_column.max(1) - 1) as usize } else { chars.len() };
                let to = to.min(chars.len());
                // A comment after a secret may be its second half.
                let to = if chars[to..].contains(&'#') { chars.len() } else { to };
                (from.min(chars.len()), to)
            })
            .filter(|(from, to)| from < to)
            .collect();
        // Where the tree knows of no secret, a word that names one is reason enough to show nothing after it.
        for end in secret_words(text) {
            if end < chars.len() && !hidden.iter().any(|(from, _)| (end..=end + 3).contains(from)) {
                hidden.push((end, chars.len()));
            }
        }
        hidden.sort_unstable();
        // Overlapping ranges become one, so that a column is moved once.
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for (from, to) in hidden {
            match ranges.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => ranges.push((from, to)),
            }
        }
        // From the right, so that columns further left stay true.
        for (from, to) in ranges.into_iter().rev() {
            chars.splice(from..to, "***".chars());
            if caret >= to {
                caret = caret + 3 - (to - from);
            } else if caret > from {
                caret = from;
            }
        }
        Some((chars.into_iter().collect(), caret))
    }
}

/// The columns, from 0, after each word of a line that names a secret.
fn secret_words(line: &str) -> Vec<usize> {
    let (mut ends, mut word) = (Vec::new(), String::new());
    for (at, c) in line.chars().chain([' ']).enumerate() {
        if c.is_alphanumeric() || matches!(c, '_' | '-') {
            word.push(c);
        } else if is_secret_name(&std::mem::take(&mut word)) {
            ends.push(at);
        }
    }
    ends
}

/// From a key to the end of its line, where the value says nothing.
fn rest_of_line(key: Span, value: &Node) -> Span {
    match value.value {
        Value::Null => {
            Span { line: key.line, column: key.end_column + 1, end_line: key.line + 1, end_column: 1, ..key }
        }
        _ => Span { source: key.source, ..Span::default() },
    }
}

/// Shows problems in the manner of a compiler: one paragraph each, in the order of the texts, without colours.
pub fn render(problems: &[Problem], sources: &Sources) -> String {
    let mut sorted: Vec<&Problem> = problems.iter().collect();
    sorted.sort_by_key(|p| (p.span.source, p.span.line, p.span.column));
    let hidden: Vec<Span> = problems.iter().filter_map(|p| p.hides).collect();
    let mut out = String::new();
    for problem in sorted {
        if !out.is_empty() {
            out.push('\n');
        }
        render_one(&mut out, problem, sources, &hidden);
    }
    out
}

fn render_one(out: &mut String, problem: &Problem, sources: &Sources, hidden: &[Span]) {
    let severity = match problem.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let separator = if problem.path.is_empty() { "" } else { ": " };
    let Span { line, column, source, .. } = problem.span;
    let place = if line == 0 { String::new() } else { format!(":{line}:{column}") };
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{severity}: {}{separator}{}", problem.path, problem.message);
    let _ = writeln!(out, "  --> {}{place}", sources.name(source));
    if let Some((text, caret)) = sources.line(problem.span, hidden) {
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        // A tab in the line is a tab in the margin, so that the caret stands below its column on any terminal.
        let indent: String = text.chars().take(caret).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let _ = writeln!(out, "{margin} |\n{number} | {text}\n{margin} | {indent}^");
    }
}

/// Whether a key of this name holds something that must not be shown. Near misses of `password` count: a mistyped key
/// is exactly what gets shown.
pub fn is_secret_name(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    if matches!(key.as_str(), "pgpass" | "passfile" | "password_encryption") {
        return false;
    }
    // `repo1-s3-key` is one, `sslkey` and `keyfile` are paths.
    let is_key = ["-key", "_key", "apikey"].iter().any(|end| key.ends_with(end));
    is_key
        || ["pass", "pwd", "secret", "token", "auth_data"].iter().any(|part| key.contains(part))
            && key != "server_tokens"
        || distance(&key, "password") <= 2
}

/// Whether a text carries credentials inside: a connection string, a line of `pg_hba.conf` or a command with
/// `ldapbindpasswd=...` or `--token=...`, an address with a password.
pub fn holds_credentials(text: &str) -> bool {
    let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let named = |(at, _): (usize, &str)| text[..at].trim_end().rsplit(|c| !is_of_name(c)).next();
    text.match_indices('=').filter_map(named).any(|name| is_secret_name(name.trim_start_matches('-')))
        || text.rsplit_once('@').is_some_and(|(before, _)| before.contains(':'))
}

/// The number of single-character edits (insert, delete, replace, swap of neighbours) between two names.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let mut cost = (last[j] + usize::from(ca != cb)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *ca == b[j - 1] && a[i - 1] == *cb {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The known name nearest to an unknown one, if it is near enough to be meant: at most a third of it differs.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let unknown = unknown.to_ascii_lowercase();
    let limit = (unknown.chars().count() / 3).max(1);
    known.map(|k| (distance(&unknown, k), k)).filter(|(d, _)| *d <= limit).min().map(|(_, k)| k)
}

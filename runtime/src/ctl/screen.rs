//! A view that stays open on a terminal: painted in place, with what changed lately marked.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::time::Duration;

use rustix::termios::tcgetwinsize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use unicode_width::UnicodeWidthChar;

use super::{CtlError, local_time};

/// How long a change stays marked: long enough for whoever looks up now and then.
const MARKED_FOR: Duration = Duration::from_secs(10);
/// What a terminal is taken for that does not tell its size.
const SIZE: Size = Size { rows: 24, columns: 80 };
const OPEN: &str = "\x1b[?1049h\x1b[?25l";
const CLOSE: &str = "\x1b[?25h\x1b[?1049l";

/// Shows what `round` says, again and again, until somebody interrupts. A round that fails leaves what was there.
pub(super) async fn keep(
    pause: Duration,
    mut round: impl AsyncFnMut() -> Result<String, CtlError>,
) -> Result<(), CtlError> {
    let first = round().await?;
    let mut screen = Screen::open()?;
    screen.take(&first);
    let rounds = async {
        loop {
            screen.paint(pause)?;
            tokio::time::sleep(pause).await;
            match round().await {
                Ok(text) => screen.take(&text),
                Err(CtlError::Failed(why)) => screen.trouble = Some(why),
                Err(other) => return Err(other),
            }
        }
    };
    tokio::select! {
        biased;
        () = interrupted() => Err(CtlError::Aborted),
        ended = rounds => ended,
    }
}

/// By Ctrl-C, or by whoever closes the terminal. Without a handler the terminal would be left as it is painted.
async fn interrupted() {
    let next = async |kind: SignalKind| match signal(kind) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = next(SignalKind::interrupt()) => {}
        () = next(SignalKind::terminate()) => {}
        () = next(SignalKind::hangup()) => {}
    }
}

#[derive(Clone, Copy)]
struct Size {
    rows: usize,
    columns: usize,
}

/// The terminal's other screen, while it is open: what was on the first comes back afterwards.
struct Screen {
    shown: String,
    marks: Marks,
    /// Why the last round brought nothing.
    trouble: Option<String>,
}

impl Screen {
    fn open() -> Result<Self, CtlError> {
        std::io::stdout().write_all(OPEN.as_bytes())?;
        Ok(Self { shown: String::new(), marks: Marks::default(), trouble: None })
    }

    fn take(&mut self, text: &str) {
        text.clone_into(&mut self.shown);
        self.marks.take(text, Instant::now());
        self.trouble = None;
    }

    fn paint(&self, pause: Duration) -> Result<(), CtlError> {
        let told = tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_row > 1 && size.ws_col > 1);
        let size = told.map_or(SIZE, |size| Size { rows: size.ws_row.into(), columns: size.ws_col.into() });
        let status = match &self.trouble {
            Some(why) => why.replace('\n', "; "),
            None => format!("every {} s, until Ctrl-C", pause.as_secs_f64()),
        };
        let status = format!("{}  {status}", local_time("%H:%M:%S", Duration::ZERO));
        let bold = if std::env::var_os("NO_COLOR").is_some() { "\x1b[1m" } else { "\x1b[1;33m" };
        let frame = frame(&self.shown, &status, size, bold, |line| self.marks.marked(line, Instant::now()));
        let mut stdout = std::io::stdout();
        stdout.write_all(frame.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut stdout = std::io::stdout();
        // What was seen last stays to be read, and copied.
        let _ = stdout.write_all(format!("{CLOSE}{}", self.shown).as_bytes()).and_then(|()| stdout.flush());
    }
}

/// One frame: every line is written over the one before and nothing is cleared first, so nothing flickers; a terminal
/// that can, shows it all at once.
fn frame(text: &str, status: &str, size: Size, mark: &str, marked: impl Fn(usize) -> Vec<Range<usize>>) -> String {
    let mut painted = "\x1b[?2026h\x1b[H".to_owned();
    let lines: Vec<&str> = text.lines().collect();
    let room = size.rows - 1;
    for (index, line) in lines.iter().take(room).enumerate() {
        let kept = cut(line, size.columns);
        let mut at = 0;
        for Range { start, end } in marked(index) {
            let (start, end) = (start.min(kept.len()), end.min(kept.len()));
            painted += &format!("{}{mark}{}\x1b[0m", &kept[at..start], &kept[start..end]);
            at = end;
        }
        painted += &kept[at..];
        painted += "\x1b[K\n";
    }
    let hidden = lines.len().saturating_sub(room);
    let more = if hidden > 0 { format!("{hidden} lines more  ") } else { String::new() };
    painted + &format!("\x1b[2m{}\x1b[0m\x1b[K\x1b[J\x1b[?2026l", cut(&format!("{more}{status}"), size.columns))
}

/// As much of a line as fits.
fn cut(line: &str, columns: usize) -> &str {
    let mut width = 0;
    for (at, character) in line.char_indices() {
        width += character.width().unwrap_or(0);
        if width > columns {
            return &line[..at];
        }
    }
    line
}

/// What stood where, and since when it has been something else. A row of a table is known by its first cell, so that a
/// row more or less marks nothing but itself.
#[derive(Default)]
struct Marks {
    cells: BTreeMap<Place, (String, Option<Instant>)>,
    /// By line: where in it each cell's text is.
    places: Vec<Vec<(Range<usize>, Place)>>,
}

/// A row, by its table and its first cell, and the number of a cell in it.
type Place = (String, usize);

impl Marks {
    fn take(&mut self, text: &str, now: Instant) {
        let before = std::mem::take(&mut self.cells);
        self.places.clear();
        let (mut table, mut row, mut part) = (String::new(), String::new(), 0);
        for line in text.lines() {
            // Before the first table is the time at most, and that it goes on is no news.
            let cells = if table.is_empty() && !line.starts_with("+ ") { Vec::new() } else { bounds(line) };
            let first = cells.first().map(|bounds| &line[bounds.clone()]).unwrap_or_default();
            if line.starts_with("+ ") {
                first.clone_into(&mut table);
            }
            // A row goes on in lines whose first cell is empty.
            part = if line.starts_with('|') && first.is_empty() { part + 1 } else { 0 };
            if part == 0 {
                first.clone_into(&mut row);
            }
            let key =
                if line.starts_with('|') { format!("{table}\n{row}\n{part}") } else { format!("{table}\n{line}") };
            let mut places = Vec::new();
            for (index, bounds) in cells.into_iter().enumerate() {
                let (place, text) = ((key.clone(), index), line[bounds.clone()].to_owned());
                let changed = match before.get(&place) {
                    Some((old, changed)) if *old == text => *changed,
                    _ => Some(now).filter(|_| !before.is_empty()),
                };
                self.cells.insert(place.clone(), (text, changed));
                places.push((bounds, place));
            }
            self.places.push(places);
        }
    }

    /// What of a line is to be marked.
    fn marked(&self, line: usize, now: Instant) -> Vec<Range<usize>> {
        let lately = |place| {
            let changed = self.cells.get(place).and_then(|(_, changed)| *changed);
            changed.is_some_and(|changed| now.saturating_duration_since(changed) < MARKED_FOR)
        };
        let places = self.places.get(line).into_iter().flatten();
        places.filter(|(_, place)| lately(place)).map(|(bounds, _)| bounds.clone()).collect()
    }
}

/// Where the texts of a line's cells begin and end; rules have none, and any other line is one cell.
fn bounds(line: &str) -> Vec<Range<usize>> {
    let trimmed = |start: usize, cell: &str| {
        let begin = start + (cell.len() - cell.trim_start().len());
        begin..begin + cell.trim().len()
    };
    match line.as_bytes().first() {
        Some(b'+') if !line.starts_with("+ ") => Vec::new(),
        Some(b'+') => vec![trimmed(1, line[1..].trim_end_matches(['-', '+']))],
        Some(b'|') => {
            let mut start = 1;
            let cells = line[1..].trim_end_matches('|').split('|');
            cells
                .map(|cell| {
                    let bounds = trimmed(start, cell);
                    start += cell.len() + 1;
                    bounds
                })
                .collect()
        }
        Some(_) => vec![trimmed(0, line)],
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "2026-11-28 17:00:00\n+ Cluster: demo (1) -+\n| Member | Role    |\n+--------+---------+\n| n1     | Leader  |\n| n2     | Replica |\n+--------+---------+\n";
    const AFTER: &str = "2026-11-28 17:00:02\n+ Cluster: demo (1) -+\n| Member | Role    |\n+--------+---------+\n| n0     | Replica |\n| n1     | Replica |\n| n2     | Replica |\n+--------+---------+\n Maintenance mode: on\n";

    fn told(marks: &Marks, text: &str, now: Instant) -> Vec<String> {
        let lines = text.lines().enumerate();
        let marked = |(index, line): (usize, &str)| -> Vec<String> {
            marks.marked(index, now).into_iter().map(|bounds| line[bounds].to_owned()).collect()
        };
        lines.flat_map(marked).collect()
    }

    #[test]
    fn what_changed_is_marked_for_a_while_and_nothing_else() {
        let (mut marks, begun) = (Marks::default(), Instant::now());
        marks.take(BEFORE, begun);
        assert_eq!(told(&marks, BEFORE, begun), [""; 0]);
        marks.take(AFTER, begun);
        assert_eq!(told(&marks, AFTER, begun), ["n0", "Replica", "Replica", "Maintenance mode: on"]);
        marks.take(AFTER, begun + MARKED_FOR / 2);
        assert_eq!(told(&marks, AFTER, begun + MARKED_FOR / 2).len(), 4);
        assert_eq!(told(&marks, AFTER, begun + MARKED_FOR), [""; 0]);
    }

    #[test]
    fn a_frame_fits_its_terminal_and_clears_nothing_before_it_is_written() {
        let mark = |line: usize| (line == 1).then_some(2..4).into_iter().collect();
        let painted = frame("abcdefgh\nabcdefgh\nc\nd\n", "now", Size { rows: 3, columns: 6 }, "<", mark);
        let expected =
            "\x1b[?2026h\x1b[Habcdef\x1b[K\nab<cd\x1b[0mef\x1b[K\n\x1b[2m2 line\x1b[0m\x1b[K\x1b[J\x1b[?2026l";
        assert_eq!(painted, expected);
        // A mark beyond the edge is cut with its line.
        let painted = frame("ab\n", "", Size { rows: 2, columns: 1 }, "<", |_| Some(1..2).into_iter().collect());
        assert!(painted.contains("\x1b[Ha<\x1b[0m\x1b[K\n"), "{painted:?}");
    }

    #[test]
    fn wide_characters_are_not_cut_in_two() {
        assert_eq!(cut("a象象", 4), "a象");
        assert_eq!(cut("a象象", 5), "a象象");
    }
}

//! Unified differences of two texts, the same as Python's `difflib` finds them.

use std::collections::HashMap;
use std::ops::Range;

/// Unchanged lines around a change.
const CONTEXT: usize = 3;

/// A stretch of both texts: equal lines, or lines that others replace.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Stretch {
    equal: bool,
    old: Range<usize>,
    new: Range<usize>,
}

impl Stretch {
    /// Forgets all but the context of what comes next.
    fn keep_end(&mut self) {
        let kept = self.old.len().min(CONTEXT);
        (self.old.start, self.new.start) = (self.old.end - kept, self.new.end - kept);
    }

    /// Forgets all but the context of what came before.
    fn keep_start(&mut self) {
        let kept = self.old.len().min(CONTEXT);
        (self.old.end, self.new.end) = (self.old.start + kept, self.new.start + kept);
    }
}

/// The lines of a unified difference, with headers without names; nothing if the texts are equal.
pub(super) fn unified(old: &str, new: &str) -> Vec<String> {
    let old: Vec<&str> = old.trim_end_matches('\n').split('\n').collect();
    let new: Vec<&str> = new.trim_end_matches('\n').split('\n').collect();
    let mut lines = Vec::new();
    for group in grouped(stretches(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
        if lines.is_empty() {
            lines.extend(["--- ".to_owned(), "+++ ".to_owned()]);
        }
        let (shown_old, shown_new) = (first.old.start..last.old.end, first.new.start..last.new.end);
        lines.push(format!("@@ -{} +{} @@", counted(&shown_old), counted(&shown_new)));
        for stretch in &group {
            let marked = |mark: char, line: &&str| format!("{mark}{line}");
            if stretch.equal {
                lines.extend(old[stretch.old.clone()].iter().map(|line| marked(' ', line)));
            } else {
                lines.extend(old[stretch.old.clone()].iter().map(|line| marked('-', line)));
                lines.extend(new[stretch.new.clone()].iter().map(|line| marked('+', line)));
            }
        }
    }
    lines
}

/// `first,count`, or `first` of one line; of none, the line before.
fn counted(range: &Range<usize>) -> String {
    match range.len() {
        1 => format!("{}", range.start + 1),
        0 => format!("{},0", range.start),
        length => format!("{},{length}", range.start + 1),
    }
}

/// Changes with their context; those whose contexts touch are together.
fn grouped(mut stretches: Vec<Stretch>) -> Vec<Vec<Stretch>> {
    if let Some(first) = stretches.first_mut().filter(|first| first.equal) {
        first.keep_end();
    }
    if let Some(last) = stretches.last_mut().filter(|last| last.equal) {
        last.keep_start();
    }
    let (mut groups, mut group) = (Vec::new(), Vec::new());
    for mut stretch in stretches {
        if stretch.equal && stretch.old.len() > 2 * CONTEXT {
            let mut before = stretch.clone();
            before.keep_start();
            group.push(before);
            groups.push(std::mem::take(&mut group));
            stretch.keep_end();
        }
        group.push(stretch);
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|stretch| !stretch.equal));
    groups
}

fn stretches(old: &[&str], new: &[&str]) -> Vec<Stretch> {
    let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, line) in new.iter().enumerate() {
        places.entry(line).or_default().push(place);
    }
    let mut equal = Vec::new();
    let mut open = vec![(0..old.len(), 0..new.len())];
    while let Some((within_old, within_new)) = open.pop() {
        let (start_old, start_new, length) = longest_equal(old, &places, &within_old, &within_new);
        if length > 0 {
            equal.push((start_old, start_new, length));
            open.push((within_old.start..start_old, within_new.start..start_new));
            open.push((start_old + length..within_old.end, start_new + length..within_new.end));
        }
    }
    equal.sort_unstable();
    equal.push((old.len(), new.len(), 0));
    let mut stretches: Vec<Stretch> = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    for (start_old, start_new, length) in equal {
        if at_old < start_old || at_new < start_new {
            stretches.push(Stretch { equal: false, old: at_old..start_old, new: at_new..start_new });
        }
        (at_old, at_new) = (start_old + length, start_new + length);
        match stretches.last_mut() {
            // Equal stretches that touch were found one by one and are one.
            Some(before) if before.equal && before.old.end == start_old && before.new.end == start_new => {
                (before.old.end, before.new.end) = (at_old, at_new);
            }
            _ if length > 0 => stretches.push(Stretch { equal: true, old: start_old..at_old, new: start_new..at_new }),
            _ => {}
        }
    }
    stretches
}

/// The longest run of equal lines; of several the first in the old text, and of those the first in the new one.
fn longest_equal(
    old: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    within_old: &Range<usize>,
    within_new: &Range<usize>,
) -> (usize, usize, usize) {
    let mut best = (within_old.start, within_new.start, 0);
    // By place in the new text, how long the run is that ends there with the line before.
    let mut runs: HashMap<usize, usize> = HashMap::new();
    for at_old in within_old.clone() {
        let mut longer = HashMap::new();
        let here = places.get(old[at_old]).into_iter().flatten().filter(|place| within_new.contains(place));
        for &at_new in here {
            let length = 1 + at_new.checked_sub(1).and_then(|before| runs.get(&before)).copied().unwrap_or(0);
            longer.insert(at_new, length);
            if length > best.2 {
                best = (at_old + 1 - length, at_new + 1 - length, length);
            }
        }
        runs = longer;
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn diff(old: &str, new: &str) -> String {
        unified(&old.replace(' ', "\n"), &new.replace(' ', "\n")).join("\n")
    }

    /// Each is what `difflib.unified_diff` of Python 3.11 prints.
    #[test]
    fn differences_are_those_of_difflib() {
        assert_eq!(diff("a b c", "a b c"), "");
        assert_eq!(
            diff("a b c d e f g h i", "a b c d X f g h i"),
            "--- \n+++ \n@@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+X\n f\n g\n h"
        );
        assert_eq!(diff("a", "a b"), "--- \n+++ \n@@ -1 +1,2 @@\n a\n+b");
        let far = diff("x 1 2 3 4 5 6 7 y", "X 1 2 3 4 5 6 7 Y");
        assert_eq!(far, "--- \n+++ \n@@ -1,4 +1,4 @@\n-x\n+X\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-y\n+Y");
        let near = diff("x 1 2 3 4 5 6 y", "X 1 2 3 4 5 6 Y");
        assert_eq!(near, "--- \n+++ \n@@ -1,8 +1,8 @@\n-x\n+X\n 1\n 2\n 3\n 4\n 5\n 6\n-y\n+Y");
        assert_eq!(diff("a b", ""), "--- \n+++ \n@@ -1,2 +1 @@\n-a\n-b\n+");
        assert_eq!(diff("b a a b a", "a b a a"), "--- \n+++ \n@@ -1,5 +1,4 @@\n+a\n b\n a\n a\n-b\n-a");
    }

    /// Does what `patch` does, and checks that context and removed lines are where they are said to be.
    fn applied(old: &str, patch: &[String]) -> String {
        let old: Vec<&str> = old.split('\n').collect();
        let (mut at, mut lines) = (0, Vec::new());
        for line in patch.iter().skip(2) {
            let (mark, text) = line.split_at(1);
            match mark {
                "@" => {
                    let range = text.split(' ').nth(1).unwrap().trim_start_matches('-');
                    let (start, count) = range.split_once(',').unwrap_or((range, "1"));
                    let start = start.parse::<usize>().unwrap() - usize::from(count != "0");
                    lines.extend(old[at..start].iter().map(|line| (*line).to_owned()));
                    at = start;
                }
                "+" => lines.push(text.to_owned()),
                _ => {
                    assert_eq!(old[at], text);
                    at += 1;
                    lines.extend((mark == " ").then(|| text.to_owned()));
                }
            }
        }
        lines.extend(old[at..].iter().map(|line| (*line).to_owned()));
        lines.join("\n")
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_the_old_text_to_the_new(old in "[a-c](\n[a-c]){0,30}", new in "[a-c](\n[a-c]){0,30}") {
            let lines = unified(&old, &new);
            prop_assert_eq!(lines.is_empty(), old == new);
            prop_assert_eq!(applied(&old, &lines), new);
        }
    }
}

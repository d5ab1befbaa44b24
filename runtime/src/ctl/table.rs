//! Tables of `+`, `-` and `|`, as PrettyTable draws them, with a title in the top border.

use unicode_width::UnicodeWidthStr;

/// A column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Column<'a> {
    pub(super) header: &'a str,
    pub(super) right: bool,
}

/// Draws a table. Cells may have several lines; then every row gets a rule below.
pub(super) fn draw(title: Option<&str>, columns: &[Column<'_>], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let cells = rows.iter().filter_map(|row| row.get(index)).flat_map(|cell| cell.lines());
            cells.map(UnicodeWidthStr::width).chain([column.header.width()]).max().unwrap_or(0)
        })
        .collect();
    let rule = rule(&widths);
    let ruled = rows.iter().flatten().any(|cell| cell.contains('\n'));
    let mut text = top(&rule, title);
    let headers: Vec<String> = columns.iter().map(|column| column.header.to_owned()).collect();
    text += &line(columns, &widths, &headers);
    text += &rule;
    for (index, row) in rows.iter().enumerate() {
        let height = row.iter().map(|cell| cell.lines().count()).max().unwrap_or(1).max(1);
        for part in 0..height {
            let cells: Vec<String> =
                row.iter().map(|cell| cell.lines().nth(part).unwrap_or_default().to_owned()).collect();
            text += &line(columns, &widths, &cells);
        }
        if ruled || index + 1 == rows.len() {
            text += &rule;
        }
    }
    if rows.is_empty() {
        text += &rule;
    }
    text
}

fn rule(widths: &[usize]) -> String {
    let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    format!("+{}+\n", dashes.join("+"))
}

/// The title starts in the second column and hides what is there of the rule; it is cut at the last but one.
fn top(rule: &str, title: Option<&str>) -> String {
    let room = rule.trim_end().len().saturating_sub(2);
    let mut shown = String::new();
    for character in title.unwrap_or_default().chars() {
        shown.push(character);
        if shown.width() > room {
            shown.pop();
            break;
        }
    }
    let hidden = shown.width();
    format!("+{shown}{}", rule.get(1 + hidden..).unwrap_or_default())
}

fn line(columns: &[Column<'_>], widths: &[usize], cells: &[String]) -> String {
    let cell = |((column, width), cell): ((&Column<'_>, &usize), &String)| {
        let blanks = " ".repeat(width.saturating_sub(cell.width()));
        if column.right { format!(" {blanks}{cell} |") } else { format!(" {cell}{blanks} |") }
    };
    let cells: String = columns.iter().zip(widths).zip(cells).map(cell).collect();
    format!("|{cells}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[(&'static str, bool)]) -> Vec<Column<'static>> {
        names.iter().map(|&(header, right)| Column { header, right }).collect()
    }

    #[test]
    fn a_title_is_cut_at_the_width_of_the_table() {
        let drawn = draw(Some(" Cluster: a very long name "), &columns(&[("A", false), ("B", true)]), &[]);
        assert_eq!(drawn, "+ Cluste+\n| A | B |\n+---+---+\n+---+---+\n");
    }

    #[test]
    fn wide_characters_count_for_two_columns() {
        let rows = [vec!["象".to_owned(), "1".to_owned()]];
        let drawn = draw(None, &columns(&[("Name", false), ("N", true)]), &rows);
        assert_eq!(drawn, "+------+---+\n| Name | N |\n+------+---+\n| 象   | 1 |\n+------+---+\n");
    }
}

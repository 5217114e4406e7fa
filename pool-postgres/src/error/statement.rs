//! The statement that an error is about: shortened, with a mark under the place, without its parameters.

use std::fmt::Write as _;

/// How much of a statement an error carries, in characters.
const LONGEST: usize = 240;
/// How much of a line is shown on either side of the place that the server points to, in characters.
const AROUND: usize = 60;

/// What an error says of its statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statement {
    /// The statement's beginning.
    pub(super) text: Box<str>,
    /// The line with the place that the server points to, and a caret under it.
    pub(super) caret: Option<Box<str>>,
    /// The parameters, where they were asked for.
    pub(super) parameters: Option<Box<str>>,
}

impl Statement {
    /// `position` counts characters, from one.
    pub(super) fn new(sql: &str, position: Option<u32>) -> Self {
        if names_a_password(sql) {
            return Self {
                text: format!("{} …", shortened(sql, 12)).into(),
                caret: None,
                parameters: None,
            };
        }
        Self {
            text: shortened(sql, LONGEST).into(),
            caret: position.and_then(|position| caret(sql, position)),
            parameters: None,
        }
    }
}

/// Whether the text may hold a secret: `ALTER ROLE … PASSWORD 'secret'`.
fn names_a_password(sql: &str) -> bool {
    sql.as_bytes()
        .windows("password".len())
        .any(|window| window.eq_ignore_ascii_case(b"password"))
}

fn shortened(sql: &str, longest: usize) -> String {
    match sql.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &sql[..end]),
        None => sql.to_owned(),
    }
}

/// The line of a position with a caret under it, as psql shows it; long lines are cut on both sides.
fn caret(sql: &str, position: u32) -> Option<Box<str>> {
    let place = usize::try_from(position).ok()?.checked_sub(1)?;
    let end = sql.chars().count();
    if place > end {
        return None;
    }
    let (mut number, mut start) = (1, 0);
    for (index, _) in sql
        .chars()
        .take(place)
        .enumerate()
        .filter(|(_, c)| *c == '\n')
    {
        number += 1;
        start = index + 1;
    }
    let line = sql.chars().skip(start).take_while(|c| *c != '\n');
    let line: Vec<char> = line.map(|c| if c.is_control() { ' ' } else { c }).collect();
    let column = place - start;
    let from = column.saturating_sub(AROUND);
    let to = line.len().min(column + AROUND);
    let mut shown = format!("line {number}: ");
    let indent = shown.chars().count();
    shown.push_str(if from > 0 { "…" } else { "" });
    let marked = indent + usize::from(from > 0) + (column - from);
    shown.extend(&line[from.min(to)..to]);
    shown.push_str(if to < line.len() { "…" } else { "" });
    let _ = write!(shown, "\n{:marked$}^", "");
    Some(shown.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_stands_under_the_place_in_its_line() {
        let shown = caret("SELECT a,\n\tnam\nFROM t", 12).expect("inside");
        assert_eq!(&*shown, "line 2:  nam\n         ^");
        let shown = caret("SELECT ß FORM t", 10).expect("inside");
        assert_eq!(&*shown, "line 1: SELECT ß FORM t\n                 ^");
        // Behind the last character: the statement ends too soon.
        let shown = caret("SELECT (", 9).expect("at the end");
        assert_eq!(&*shown, "line 1: SELECT (\n                ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let sql = format!("SELECT {}nam{}", "x, ".repeat(100), ", y".repeat(100));
        let shown = caret(&sql, 308).expect("inside");
        let (line, mark) = shown.split_once('\n').expect("two lines");
        assert!(
            line.starts_with("line 1: …") && line.ends_with('…'),
            "{shown}"
        );
        assert_eq!(
            line.chars().nth(mark.chars().count() - 1),
            Some('n'),
            "{shown}"
        );
        assert!(line.chars().count() < 140, "{shown}");
    }

    #[test]
    fn a_place_outside_the_statement_is_not_shown() {
        for position in [0, 10, u32::MAX] {
            assert_eq!(caret("SELECT 1", position), None, "{position}");
        }
    }

    #[test]
    fn a_statement_is_shortened_and_one_with_a_password_hardly_shown() {
        let long = Statement::new(&"é".repeat(1000), None);
        assert_eq!(long.text.chars().count(), LONGEST + 1);
        let secret = Statement::new("ALTER ROLE ada Password 'lovelace'", Some(3));
        assert!(!secret.text.contains("lovelace"), "{secret:?}");
        assert_eq!(secret.caret, None);
    }
}

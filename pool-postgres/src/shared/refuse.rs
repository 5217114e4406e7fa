//! Which statements a shared connection takes: those that leave nothing behind on it.
//!
//! Decided by the first keyword, by a temporary table among the next ones, and by a second statement in the same
//! text. Strings, quoted names, comments and dollar quotes are skipped, not understood. What a function does
//! (`set_config`, a `DO` block) is not seen here.

use crate::error::{Error, ErrorKind};

/// Refuses what would leave something behind on a connection that others use at the same time.
pub(super) fn check(sql: &str) -> Result<(), Error> {
    let mut tokens = Tokens(sql.as_bytes());
    let first = loop {
        match tokens.next() {
            Some(Token::Word(word)) => break word,
            Some(Token::Semicolon | Token::Other) => {}
            None => return Ok(()),
        }
    };
    let first = first.to_ascii_uppercase();
    if let Some(instead) = instead(&first) {
        return Err(refused(&first, instead));
    }
    let creates = matches!(first.as_str(), "CREATE" | "EXPLAIN");
    let selects = matches!(first.as_str(), "SELECT" | "WITH" | "TABLE" | "VALUES");
    let mut into = false;
    let mut ended = false;
    for token in tokens {
        if matches!(token, Token::Semicolon) {
            ended = true;
            continue;
        }
        if ended {
            return Err(Error::new(
                ErrorKind::Usage,
                "a shared connection takes one statement at a time, and there is something behind a \
                 semicolon: use `Session::batch` for several",
            ));
        }
        let Token::Word(word) = token else {
            into = false;
            continue;
        };
        let temporary = ["TEMP", "TEMPORARY", "PG_TEMP"]
            .iter()
            .any(|name| word.eq_ignore_ascii_case(name));
        if temporary && (creates || (selects && into)) {
            return Err(refused(
                &format!("{first} … {}", word.to_ascii_uppercase()),
                "a `Session`",
            ));
        }
        if selects {
            into = word.eq_ignore_ascii_case("INTO")
                || (into
                    && (word.eq_ignore_ascii_case("LOCAL") || word.eq_ignore_ascii_case("GLOBAL")));
        }
    }
    Ok(())
}

/// The word that a statement begins with, comments aside; empty where it has none.
pub(crate) fn first_word(sql: &str) -> &str {
    let mut words = Tokens(sql.as_bytes()).filter_map(|token| match token {
        Token::Word(word) => Some(word),
        Token::Semicolon | Token::Other => None,
    });
    words.next().unwrap_or_default()
}

/// Where a statement that begins with this keyword belongs, if not on a shared connection.
fn instead(keyword: &str) -> Option<&'static str> {
    Some(match keyword {
        "LISTEN" | "UNLISTEN" => "`Engine::listen`",
        "COPY" => "`Engine::copy_in` or `Engine::copy_out`",
        "BEGIN" | "START" | "COMMIT" | "END" | "ROLLBACK" | "ABORT" | "SAVEPOINT" | "RELEASE"
        | "SET" | "RESET" | "DECLARE" | "FETCH" | "MOVE" | "CLOSE" => "a `Session`",
        "PREPARE" | "EXECUTE" | "DEALLOCATE" | "DISCARD" | "LOAD" => "`Engine::connect`",
        _ => return None,
    })
}

fn refused(what: &str, instead: &str) -> Error {
    Error::new(
        ErrorKind::Usage,
        format!(
            "{what} would leave something behind on a connection that others use at the same time: use \
             {instead} for it"
        ),
    )
}

enum Token<'a> {
    /// A keyword or a name, quoted names without their quotes.
    Word(&'a str),
    Semicolon,
    Other,
}

/// The tokens of a statement, roughly: enough to tell words from what is inside strings and comments.
struct Tokens<'a>(&'a [u8]);

impl<'a> Tokens<'a> {
    /// Takes so many bytes off.
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// Skips to behind the next `end`, or to the end of the text.
    fn skip_past(&mut self, end: &[u8]) {
        let found = self.0.windows(end.len()).position(|window| window == end);
        self.take(found.map_or(self.0.len(), |at| at + end.len()));
    }

    /// Skips a comment that may hold others.
    fn skip_nested_comment(&mut self) {
        let mut depth = 0_u32;
        loop {
            if self.0.starts_with(b"/*") {
                depth += 1;
                self.take(2);
            } else if self.0.starts_with(b"*/") {
                depth -= 1;
                self.take(2);
                if depth == 0 {
                    return;
                }
            } else if self.take(1).is_empty() {
                return;
            }
        }
    }

    /// Skips a string's rest; in one with escapes a backslash takes the next byte along.
    fn skip_string(&mut self, escapes: bool) {
        loop {
            match self.take(1) {
                [b'\\'] if escapes => {
                    self.take(1);
                }
                [b'\''] if self.0.first() == Some(&b'\'') => {
                    self.take(1);
                }
                [b'\''] | [] => return,
                _ => {}
            }
        }
    }

    /// Skips `$tag$ … $tag$` where there is one; else the dollar sign.
    fn skip_dollar_quote(&mut self) {
        let tag = self.0[1..]
            .iter()
            .position(|byte| !is_word(*byte) || *byte == b'$');
        match tag {
            Some(length) if self.0[1 + length] == b'$' && !self.0[1].is_ascii_digit() => {
                let quote = self.take(length + 2);
                self.skip_past(quote);
            }
            _ => {
                self.take(1);
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            match self.0 {
                [] => return None,
                [byte, ..] if byte.is_ascii_whitespace() => {
                    self.take(1);
                }
                [b'-', b'-', ..] => self.skip_past(b"\n"),
                [b'/', b'*', ..] => self.skip_nested_comment(),
                [b'\'', ..] => {
                    self.take(1);
                    self.skip_string(false);
                    return Some(Token::Other);
                }
                [b'"', ..] => {
                    self.take(1);
                    let end = self.0.iter().position(|byte| *byte == b'"');
                    let name = self.take(end.unwrap_or(self.0.len()));
                    self.take(1);
                    return Some(Token::Word(text(name)));
                }
                [b'$', ..] => {
                    self.skip_dollar_quote();
                    return Some(Token::Other);
                }
                [b';', ..] => {
                    self.take(1);
                    return Some(Token::Semicolon);
                }
                [byte, ..] if is_word(*byte) => {
                    let end = self.0.iter().position(|byte| !is_word(*byte));
                    let word = self.take(end.unwrap_or(self.0.len()));
                    if matches!(word, [b'e' | b'E']) && self.0.first() == Some(&b'\'') {
                        self.take(1);
                        self.skip_string(true);
                        return Some(Token::Other);
                    }
                    return Some(Token::Word(text(word)));
                }
                _ => {
                    self.take(1);
                    return Some(Token::Other);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_nothing_behind_is_taken() {
        for sql in [
            "",
            " ; ",
            "SELECT 1",
            "SELECT 1;  -- and that is all; really",
            "(SELECT 1) UNION (SELECT 2)",
            "select 'a; b', E'it\\'s; so', \"odd;name\", $$ ; $$, $x$ ; $$ ; $x$, $1",
            "/* BEGIN; /* SET */ */ INSERT INTO t VALUES ($1)",
            "INSERT INTO temp VALUES (1)",
            "SELECT temp FROM temperatures",
            "WITH into_temp AS (SELECT 1) SELECT * FROM into_temp",
            "VACUUM",
            "CREATE TABLE t (n int)",
            "NOTIFY c",
            "UPDATE t SET n = 1",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }

    #[test]
    fn what_leaves_something_behind_is_refused_and_the_remedy_named() {
        for (sql, remedy) in [
            ("BEGIN", "Session"),
            ("  start transaction", "Session"),
            ("/* x */ -- y\n SET search_path = a", "Session"),
            ("listen c", "Engine::listen"),
            ("COPY t FROM STDIN", "Engine::copy_in"),
            ("CREATE TEMP TABLE x (n int)", "Session"),
            (
                "create or replace temporary view v as select 1",
                "TEMPORARY",
            ),
            ("CREATE TABLE pg_temp.x (n int)", "PG_TEMP"),
            ("CREATE TABLE \"pg_temp\".x (n int)", "PG_TEMP"),
            ("SELECT 1 AS n INTO TEMP x", "TEMP"),
            ("SELECT 1 AS n INTO LOCAL TEMP x", "TEMP"),
            ("EXPLAIN ANALYZE CREATE TEMP TABLE x AS SELECT 1", "TEMP"),
            ("DISCARD ALL", "Engine::connect"),
            ("PREPARE TRANSACTION 'x'", "Engine::connect"),
            ("SELECT 1; SELECT 2", "semicolon"),
            ("SELECT 1; BEGIN", "semicolon"),
            (";;SET a = 1", "Session"),
        ] {
            let error = check(sql).expect_err(sql);
            assert_eq!(error.kind(), ErrorKind::Usage, "{sql}");
            assert!(error.to_string().contains(remedy), "{sql}: {error}");
        }
    }

    #[test]
    fn unfinished_text_is_read_to_its_end() {
        for sql in [
            "SELECT 'a",
            "SELECT E'a\\",
            "SELECT \"a",
            "SELECT $x$ a",
            "/* /* */",
            "SELECT $",
            "--",
        ] {
            assert!(check(sql).is_ok(), "{sql}");
        }
    }
}

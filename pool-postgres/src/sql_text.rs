//! SQL as text: what a statement begins with, and names written so that nothing in them is read as SQL.

/// Whether a statement may begin with one of these words. Behind a comment, which is not read, there may be anything.
pub(crate) fn may_begin_with(sql: &str, words: &[&str]) -> bool {
    let mut parts = sql.trim_start().split(|c: char| !c.is_ascii_alphabetic());
    let first = parts.next().unwrap_or("");
    first.is_empty() || words.iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// A name as SQL takes it, whatever is in it: `a"b` is `"a""b"`.
///
/// The server takes names of at most 63 bytes, and cuts longer ones off; and none with a NUL.
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL takes it, whatever is in it and however the server reads backslashes: `a'b` is `E'a''b'`.
///
/// For statements that take no parameters; elsewhere a parameter needs no quotes. The server takes no NUL.
pub fn quote_literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_ends_where_it_should() {
        assert_eq!(quote_identifier("a\"; --"), "\"a\"\"; --\"");
    }

    #[test]
    fn a_literal_ends_where_it_should() {
        assert_eq!(quote_literal(r"a'b\'; --"), r"E'a''b\\''; --'");
    }
}

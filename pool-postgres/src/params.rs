//! Parameters that are gathered while the program runs.

use std::fmt;
use std::ops::Deref;

use tokio_postgres::types::ToSql;

/// Parameters of a statement whose text is put together at run time, as with filters of which any may be
/// missing.
///
/// It borrows the values. [`push`](Self::push) gives the placeholder that stands for the value, and a
/// reference to the whole is what every statement takes.
///
/// ```no_run
/// use std::fmt::Write as _;
/// use pool_postgres::{Error, Params, Row, Session};
///
/// struct Filter {
///     name: Option<String>,
///     older_than: Option<i32>,
///     ids: Vec<i64>,
/// }
///
/// async fn search(s: &mut Session, filter: &Filter) -> Result<Vec<Row>, Error> {
///     let mut params = Params::new();
///     let mut sql = String::from("SELECT id, name FROM users WHERE true");
///     if let Some(name) = &filter.name {
///         let _ = write!(sql, " AND name ILIKE {}", params.push(name));
///     }
///     if let Some(age) = &filter.older_than {
///         let _ = write!(sql, " AND age > {}", params.push(age));
///     }
///     if !filter.ids.is_empty() {
///         // A list of any length is one parameter.
///         let _ = write!(sql, " AND id = ANY({})", params.push(&filter.ids));
///     }
///     s.query(&sql, &params).await
/// }
/// ```
#[derive(Clone, Default)]
pub struct Params<'a>(Vec<&'a (dyn ToSql + Sync)>);

impl<'a> Params<'a> {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value and gives the placeholder for it: `$1` for the first.
    pub fn push(&mut self, value: &'a (dyn ToSql + Sync)) -> Placeholder {
        self.0.push(value);
        Placeholder(self.0.len())
    }
}

impl<'a> Deref for Params<'a> {
    type Target = [&'a (dyn ToSql + Sync)];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// How many there are, and not what they are.
impl fmt::Debug for Params<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({})", self.0.len())
    }
}

/// What stands for a value in a statement's text; made by [`Params::push`]. `Display` gives `$1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a value whose placeholder is not in the statement is one parameter too many"]
pub struct Placeholder(usize);

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_count_from_one_and_values_are_never_shown() {
        let mut params = Params::new();
        let (first, second) = (params.push(&1_i64), params.push(&"secret"));
        assert_eq!(format!("{first} {second}"), "$1 $2");
        assert_eq!(
            (params.len(), format!("{params:?}")),
            (2, "Params(2)".to_owned())
        );
    }
}

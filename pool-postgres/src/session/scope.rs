//! What each transaction of a session is confined to: settings that travel with `BEGIN`, and the proof that they took.
//!
//! # What always holds
//! Settings are transaction-local: the server takes them back however the transaction ends. The proof comes behind
//! all of them, in the same flight and ahead of the first statement. It is a statement that *raises* where what it
//! looks at is not as expected, so the server skips what is queued behind it: rows of a transaction that is
//! not confined are never made, let alone handed out.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::sql_text::quote_literal;

/// What the text of a failed proof begins with.
const MARK: &str = "scope check: ";

/// What transactions are confined to: local settings, what has to be true once they are made, and a name.
///
/// Given to a [`SessionFactory`](crate::SessionFactory::with_scope), it is set and proved at the beginning of each
/// transaction of its sessions, in the round trip of `BEGIN` and the first statement. Where a proof fails, no statement
/// of the transaction runs ([`ErrorKind::Scope`]). A session in autocommit is refused, because its statements would
/// run outside the scope.
///
/// Unlike bare [settings](crate::SessionFactory::with_local), those of a scope can't be set again by
/// [`Session::set_local`](crate::Session::set_local) or by another factory call, and a statement of a scoped session
/// that may leave something on the connection has it made as new before anybody else gets it
/// ([`ResetPolicy::Full`](crate::ResetPolicy::Full)): `SET`, `DISCARD`, `DECLARE`, `PREPARE`, `LISTEN`, `DO`, anything
/// that names temporary tables, session locks or `set_config`. What a function does inside is not seen.
///
/// Cheap to clone.
///
/// ```no_run
/// use pool_postgres::{Error, Scope, SessionFactory};
///
/// # async fn example(sessions: SessionFactory) -> Result<(), Error> {
/// let scope = Scope::new("acme")
///     .set("search_path", r#""acme", pg_temp"#)
///     .expect("current_schema()", "acme")
///     .separate_statements();
/// let mut session = sessions.with_scope(&scope).session();
/// session.query("SELECT * FROM orders", &[]).await?; // acme's, or an error.
/// assert_eq!(session.scope(), Some("acme"));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Scope(Arc<Locals>);

impl Scope {
    /// A scope without settings. The name shows in [`Session::scope`](crate::Session::scope) and in errors.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(Arc::new(Locals {
            scope: Some(name.into()),
            ..Locals::default()
        }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.0.scope.as_deref().unwrap_or_default()
    }

    /// Sets a setting for each transaction, as `SET LOCAL`. Name and value are handed over as they are; in the order of
    /// the calls.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        let locals = Arc::make_mut(&mut self.0);
        locals.add(name, value);
        locals.held.push(name.to_ascii_lowercase().into());
        self
    }

    /// Has an SQL expression compared, as text, once all is set; where it differs, no statement of the transaction
    /// runs. The expression is SQL of the program's own and goes into the statement as it is; the value is quoted.
    pub fn expect(mut self, expression: &str, value: &str) -> Self {
        let locals = Arc::make_mut(&mut self.0);
        if let Some(part) = [expression, value].iter().find(|text| text.contains('\0')) {
            locals.fault.get_or_insert_with(|| format!("{part:?}"));
            return self;
        }
        // `concat` is not immutable, so the planner doesn't try the cast before its time.
        let _ = write!(
            locals.proof,
            " WHEN ({expression})::pg_catalog.text IS DISTINCT FROM {quoted} THEN pg_catalog.concat({mark}, \
             ({expression})::pg_catalog.text, {instead})::pg_catalog.int4",
            quoted = quote_literal(value),
            mark = quote_literal(&format!("{MARK}{expression} is ")),
            instead = quote_literal(&format!(" and not {value}")),
        );
        self
    }

    /// Keeps the prepared statements of its sessions apart from those of other scopes.
    ///
    /// Needed where one text means other tables under another scope (a `search_path`): a statement that was prepared
    /// for one must not answer for the other. Where scopes only choose rows, one statement serves all.
    pub fn separate_statements(mut self) -> Self {
        let locals = Arc::make_mut(&mut self.0);
        locals.apart.clone_from(&locals.scope);
        self
    }

    pub(crate) fn locals(&self) -> &Arc<Locals> {
        &self.0
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scope").field(&self.name()).finish()
    }
}

/// What a factory sets for each of its transactions, as SQL that follows `BEGIN`.
#[derive(Clone, Default)]
pub(crate) struct Locals {
    sql: String,
    /// The branches of the proof.
    proof: String,
    /// The scope's own settings, in lower case: nobody else sets them.
    held: Vec<Box<str>>,
    /// The scope's name.
    scope: Option<Arc<str>>,
    /// Whose prepared statements are used; `None` for those of all who don't care.
    apart: Option<Arc<str>>,
    /// A name or a value that can't be sent.
    fault: Option<String>,
    /// What was done to a scope that can't be done.
    misuse: Option<String>,
}

impl Locals {
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if name.contains('\0') || value.contains('\0') {
            self.fault.get_or_insert_with(|| format!("{name:?}"));
            return;
        }
        if let Err(held) = self.may_set(name) {
            self.misuse.get_or_insert(held);
        }
        let _ = write!(
            self.sql,
            ";SELECT pg_catalog.set_config({}, {}, true)",
            quote_literal(name),
            quote_literal(value)
        );
    }

    /// Confines what was set so far; there is one scope at most.
    pub(crate) fn confined(&self, scope: &Scope) -> Self {
        let inner = scope.locals();
        let mut all = self.clone();
        match &self.scope {
            Some(ours) if Some(ours) != inner.scope.as_ref() => {
                all.misuse.get_or_insert_with(|| {
                    format!(
                        "the sessions are confined to {ours:?} already, and can't be confined to {:?}",
                        scope.name()
                    )
                });
            }
            Some(_) => {}
            None => {
                all.sql.push_str(&inner.sql);
                all.proof.clone_from(&inner.proof);
                all.held.clone_from(&inner.held);
                all.scope.clone_from(&inner.scope);
                all.apart.clone_from(&inner.apart);
                all.fault = all.fault.or_else(|| inner.fault.clone());
                all.misuse = all.misuse.or_else(|| inner.misuse.clone());
            }
        }
        all
    }

    /// Whether a setting is not the scope's own.
    pub(super) fn may_set(&self, name: &str) -> Result<(), String> {
        let lower = name.to_ascii_lowercase();
        if !self.held.iter().any(|held| **held == *lower) {
            return Ok(());
        }
        Err(format!(
            "{name:?} is what confines these sessions to {:?}: it is set by their scope alone",
            self.scope.as_deref().unwrap_or_default()
        ))
    }

    /// Whether they can be set.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where there is no transaction, for a NUL, and for what would undo a scope.
    pub(super) fn check(&self, in_transaction: bool) -> Result<(), Error> {
        if let Some(name) = &self.fault {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the setting {name} or its value holds a NUL, which PostgreSQL takes nowhere in a text"
                ),
            ));
        }
        if let Some(misuse) = &self.misuse {
            return Err(Error::new(ErrorKind::Usage, misuse.clone()));
        }
        if in_transaction || self.is_empty() {
            return Ok(());
        }
        let why = match &self.scope {
            Some(scope) => format!(
                "the session is confined to {scope:?}, which holds inside a transaction only, and it is in autocommit \
                 mode: use one without it"
            ),
            None => "the factory's settings (with_local) are for transactions, and this session is in autocommit \
                     mode: use one without it"
                .to_owned(),
        };
        Err(Error::new(ErrorKind::Usage, why))
    }

    fn is_empty(&self) -> bool {
        self.sql.is_empty() && self.proof.is_empty() && self.scope.is_none()
    }

    /// Adds what sets and proves them, behind `BEGIN`.
    pub(super) fn write(&self, preamble: &mut String) {
        preamble.push_str(&self.sql);
        if !self.proof.is_empty() {
            let _ = write!(preamble, ";SELECT CASE{} ELSE 0 END", self.proof);
        }
    }

    /// The scope's name.
    pub(super) fn scope(&self) -> Option<&Arc<str>> {
        self.scope.as_ref()
    }

    /// Whose prepared statements are used.
    pub(super) fn apart(&self) -> Option<&Arc<str>> {
        self.apart.as_ref()
    }

    /// An error, named for what it is where it is the failure of a proof.
    pub(super) fn explain(&self, error: Error) -> Error {
        let Some(scope) = &self.scope else {
            return error;
        };
        if error.sqlstate() != Some("22P02") {
            return error;
        }
        let text = error.to_string();
        let Some((_, found)) = text.split_once(MARK) else {
            return error;
        };
        // What is quoted in the server's text ends with its quotation mark, in any language, and the code.
        let found = found.split_once("\" (").map_or(found, |(found, _)| found);
        let message = format!(
            "the transaction could not be confined to {scope:?}, and nothing of it ran: {found}"
        );
        Error::from_source(ErrorKind::Scope, message, error)
    }
}

/// Whether a statement (or several) may leave something on its connection that its transaction's end does not undo.
///
/// Read by words, so it errs on the side of yes; what a function does is not seen.
pub(super) fn may_leave_something(sql: &str) -> bool {
    const FIRST: [&str; 11] = [
        "set", "reset", "discard", "declare", "prepare", "listen", "load", "do", "call", "commit",
        "end",
    ];
    const ANYWHERE: [&str; 5] = ["temp", "temporary", "pg_temp", "set_config", "set_role"];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_one_of =
        |part: &str, words: &[&str]| words.iter().any(|it| part.eq_ignore_ascii_case(it));
    let first = |part: &str| {
        let part = part.trim_start();
        let mut words = part.split(|c| !word(c)).filter(|part| !part.is_empty());
        let first = words.next().unwrap_or_default();
        let mut local = || {
            is_one_of(
                words.next().unwrap_or_default(),
                &["local", "transaction", "constraints"],
            )
        };
        // Behind a comment there may be anything.
        part.starts_with("--")
            || part.starts_with("/*")
            || (is_one_of(first, &FIRST) && !(first.eq_ignore_ascii_case("set") && local()))
    };
    sql.split(';').any(first)
        || sql.split(|c| !word(c)).any(|part| {
            is_one_of(part, &ANYWHERE)
                || part
                    .get(..12)
                    .is_some_and(|start| start.eq_ignore_ascii_case("pg_advisory_"))
                || part
                    .get(..7)
                    .is_some_and(|start| start.eq_ignore_ascii_case("pg_try_"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outlives_a_transaction_is_recognised() {
        for sql in [
            "SET work_mem = '1MB'",
            " set\nsearch_path to x",
            "SELECT 1; RESET ALL",
            "/* x */ SET a.b = 'c'",
            "-- x\nSET a.b = 'c'",
            "SELECT set_config('a.b', 'c', false)",
            "SELECT pg_catalog.\"set_config\"('a.b', 'c', false)",
            "CREATE TEMP TABLE x ()",
            "SELECT * INTO TEMPORARY x FROM y",
            "CREATE TABLE pg_temp.x ()",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "PREPARE s AS SELECT 1",
            "LISTEN x",
            "DISCARD ALL",
            "DO $$ BEGIN END $$",
            "CALL p()",
            "SELECT pg_advisory_lock(1)",
            "SELECT pg_try_advisory_lock(1)",
            "COMMIT",
        ] {
            assert!(may_leave_something(sql), "{sql}");
        }
        for sql in [
            "SELECT temperature FROM sets",
            "UPDATE t SET a = 1",
            "SET LOCAL work_mem = '1MB'",
            "SET TRANSACTION READ ONLY",
            "SELECT 'ß', template FROM declared;",
            "INSERT INTO prepared VALUES ($1)",
            "",
        ] {
            assert!(!may_leave_something(sql), "{sql}");
        }
    }

    #[test]
    fn what_confines_is_set_by_the_scope_alone() {
        let scope = Scope::new("acme").set("app.tenant_id", "acme");
        let mut locals = Locals::default().confined(&scope);
        locals.check(true).expect("fine so far");
        locals.check(false).expect_err("autocommit");
        locals
            .clone()
            .confined(&scope)
            .check(true)
            .expect("the same again");
        let other = locals.confined(&Scope::new("beta"));
        let error = other.check(true).expect_err("two scopes").to_string();
        assert!(error.contains("acme") && error.contains("beta"), "{error}");
        locals.add("App.Tenant_ID", "beta");
        let error = locals
            .check(true)
            .expect_err("it is the scope's")
            .to_string();
        assert!(
            error.contains("App.Tenant_ID") && error.contains("acme"),
            "{error}"
        );
    }
}

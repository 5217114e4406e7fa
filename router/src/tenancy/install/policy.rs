//! The two policies of a shared table, as SQL, and how one that is there is compared with them.
//!
//! What always holds: the tenant is read once a statement, in a scalar sub-select that no row is part of, so that the
//! comparison can use an index; and no tenant is NULL, which equals nothing. A setting that was made in an earlier
//! transaction reads as the empty text, so that is no tenant either.

use pool_postgres::{quote_identifier, quote_literal};

use super::shared_tables::{SharedTables, TenantKey};

/// The policy that lets the application's role at the rows at all.
pub(crate) const ACCESS: &str = "tenant_access";
/// The policy that no other one can widen.
pub(crate) const ISOLATION: &str = "tenant_isolation";

/// What the tenant is, as an expression of a column's type.
pub(crate) fn tenant(key: &TenantKey, cast: &str) -> String {
    match key {
        TenantKey::Setting(setting) => format!(
            "NULLIF(current_setting({}, true), '')::{cast}",
            plain_literal(setting)
        ),
        // Neither `SET ROLE` nor a function that runs as its owner changes who has logged in.
        TenantKey::Login { prefix } => format!(
            "\"substring\"(SESSION_USER::text, {})::{cast}",
            plain_literal(&format!("^{prefix}(.+)$"))
        ),
    }
}

/// Which rows are the tenant's.
pub(crate) fn condition(shared: &SharedTables, cast: &str) -> String {
    format!(
        "{} = (SELECT {} AS tenant)",
        quote_identifier(&shared.column),
        tenant(&shared.key, cast)
    )
}

/// `table` is its name as SQL takes it; so is it below.
pub(crate) fn create_access(shared: &SharedTables, table: &str) -> String {
    format!(
        "CREATE POLICY {ACCESS} ON {table} AS PERMISSIVE FOR ALL TO {} USING (true) WITH CHECK (true)",
        quote_identifier(&shared.role)
    )
}

pub(crate) fn create_isolation(shared: &SharedTables, table: &str, cast: &str) -> String {
    let condition = condition(shared, cast);
    format!(
        "CREATE POLICY {ISOLATION} ON {table} AS RESTRICTIVE FOR ALL TO PUBLIC USING ({condition}) WITH CHECK ({condition})"
    )
}

/// A text whose characters need no escape: settings and prefixes are looked at before.
fn plain_literal(text: &str) -> String {
    let quoted = quote_literal(text);
    quoted.trim_start_matches('E').to_owned()
}

/// The type to which the tenant is cast for a column of this one; `None` for a type that names no tenant.
pub(super) fn cast_for(type_name: &str) -> Option<&'static str> {
    Some(match type_name {
        "text" | "varchar" => "text",
        "uuid" => "uuid",
        "int8" => "bigint",
        "int4" => "integer",
        "int2" => "smallint",
        _ => return None,
    })
}

/// Whether an expression of the catalogue's, if there is one, says what was written.
pub(crate) fn is_same(found: Option<&str>, written: &str) -> bool {
    found.is_some_and(|found| canonical(found) == canonical(written))
}

/// An expression without what the server adds when it prints one: blanks, brackets, quotes of names, casts.
///
/// Two that differ in nothing else mean the same here: a cast of the column hides no row from the comparison, and the
/// expressions compared have one operator.
fn canonical(expression: &str) -> String {
    let mut text = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(c) = rest.chars().next() {
        if let Some(cast) = rest.strip_prefix("::") {
            let end = cast.find(|c: char| !(c.is_ascii_lowercase() || c == ' '));
            rest = &cast[end.unwrap_or(cast.len())..];
            continue;
        }
        if !(c.is_whitespace() || matches!(c, '(' | ')' | '"')) {
            text.push(c);
        }
        rest = &rest[c.len_utf8()..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_prints_compares_with_what_was_written() {
        let shared = SharedTables::new("app").table("t");
        let cases = [
            (
                "text",
                "(tenant_id = ( SELECT NULLIF(current_setting('app.tenant_id'::text, true), ''::text) AS tenant))",
            ),
            (
                "uuid",
                "(tenant_id = ( SELECT (NULLIF(current_setting('app.tenant_id'::text, true), ''::text))::uuid AS tenant))",
            ),
        ];
        for (cast, printed) in cases {
            assert_eq!(canonical(printed), canonical(&condition(&shared, cast)));
        }
        let shared = shared.login_per_tenant("tenant_");
        let printed = "(tenant_id = ( SELECT \"substring\"((SESSION_USER)::text, '^tenant_(.+)$'::text) AS tenant))";
        assert_eq!(canonical(printed), canonical(&condition(&shared, "text")));
    }

    #[test]
    fn a_policy_with_a_way_round_it_compares_with_nothing() {
        let shared = SharedTables::new("app").table("t");
        let wanted = canonical(&condition(&shared, "text"));
        for other in [
            "true",
            "((tenant_id = ( SELECT NULLIF(current_setting('app.tenant_id'::text, true), ''::text) AS tenant)) OR is_public)",
            "(tenant_id = ( SELECT NULLIF(current_setting('app.tenant'::text, true), ''::text) AS tenant))",
            "(tenant_id = current_setting('app.tenant_id'::text, true))",
        ] {
            assert_ne!(canonical(other), wanted, "{other}");
        }
    }
}

//! Ways to the rows past the table's own name: views, materialised views, functions that run as their owner.

use pool_postgres::{Error, Session};

use super::roles::Judged;
use super::{Findings, listed};
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{TableFacts, TableName, oids};

const VIEWS: &str = "
WITH RECURSIVE reading AS (
    SELECT r.ev_class AS oid, d.refobjid AS of FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.refobjid = ANY($1) AND r.ev_class <> d.refobjid
    UNION SELECT r.ev_class, v.of FROM reading v
    JOIN pg_depend d ON d.refobjid = v.oid AND d.refclassid = 'pg_class'::regclass
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite r ON r.oid = d.objid WHERE r.ev_class <> v.oid
)
SELECT n.nspname::text, c.relname::text, c.relkind = 'm', array_agg(DISTINCT t.relname::text),
    pg_get_userbyid(c.relowner)::text
FROM reading v
JOIN pg_class c ON c.oid = v.oid AND c.relkind IN ('v', 'm')
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class t ON t.oid = v.of
WHERE (c.relkind = 'm' OR NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions)
        WHERE option_name = 'security_invoker' AND option_value::boolean))
    AND EXISTS (SELECT FROM unnest($2::oid[]) r WHERE has_schema_privilege(r, n.oid, 'USAGE')
        AND (has_any_column_privilege(r, c.oid, 'SELECT, INSERT, UPDATE') OR has_table_privilege(r, c.oid, 'DELETE')))
GROUP BY n.nspname, c.relname, c.relkind, c.relowner ORDER BY 1, 2";

/// Views that read with their owner's rights, and those that keep everybody's rows.
pub(super) async fn views(
    session: &mut Session,
    tables: &[TableFacts],
    judged: &Judged,
) -> Result<Findings, Error> {
    let rows = session
        .query(VIEWS, &[&oids(tables), &judged.ordinary()])
        .await?;
    Ok(rows
        .iter()
        .map(|row| {
            let view = TableName::from((row.get::<_, &str>(0), row.get::<_, &str>(1)));
            let (is_kept, read, owner): (bool, Vec<String>, String) =
                (row.get(2), row.get(3), row.get(4));
            let read = listed(read.iter().map(String::as_str));
            if is_kept {
                return Finding::new(
                    FindingKind::MaterializedView,
                    &view,
                    format!("it keeps rows of {read} of all tenants, and has no policies"),
                    "keep the role away from it, and give it an invoker's view or a table of tenants instead",
                )
                .sql(format!("REVOKE ALL ON {} FROM …", view.sql()));
            }
            Finding::new(
                FindingKind::ViewIsNotInvoker,
                &view,
                format!("it reads {read} with the rights of its owner {owner}, whom policies may not concern"),
                "let it read with the rights of whoever asks",
            )
            .sql(format!("ALTER VIEW {} SET (security_invoker = true)", view.sql()))
        })
        .collect())
}

const FUNCTIONS: &str = "
SELECT p.oid::regprocedure::text, l.lanname::text, coalesce(p.prosrc, '') || ' ' || coalesce(pg_get_function_sqlbody(p.oid), ''),
    p.prokind = 'p', pg_get_userbyid(p.proowner)::text
FROM pg_proc p
JOIN pg_namespace n ON n.oid = p.pronamespace
JOIN pg_language l ON l.oid = p.prolang
WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND p.prorettype <> 'trigger'::regtype AND p.prorettype <> 'event_trigger'::regtype
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid
        AND e.deptype = 'e')
    AND EXISTS (SELECT FROM unnest($1::oid[]) r WHERE has_schema_privilege(r, n.oid, 'USAGE')
        AND has_function_privilege(r, p.oid, 'EXECUTE'))
ORDER BY 1";

/// Functions that run with their owner's rights.
pub(super) async fn functions(
    session: &mut Session,
    tables: &[TableFacts],
    judged: &Judged,
) -> Result<Findings, Error> {
    let rows = session.query(FUNCTIONS, &[&judged.ordinary()]).await?;
    let mut findings = Vec::new();
    for row in &rows {
        let (function, language, text): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let (is_procedure, owner): (bool, String) = (row.get(3), row.get(4));
        let names = tables.iter().map(|table| table.name.name());
        let read: Vec<&str> = names.filter(|name| mentions(&text, name)).collect();
        let (kind, what) = if !read.is_empty() {
            (
                FindingKind::DefinerFunction,
                format!(
                    "it names {} and runs with the rights of its owner {owner}",
                    listed(read)
                ),
            )
        } else if is_clear(&language, &text) {
            continue;
        } else {
            (
                FindingKind::DefinerFunctionUnclear,
                format!(
                    "it runs with the rights of its owner {owner}, and what it reads can't be told from its text"
                ),
            )
        };
        let noun = if is_procedure {
            "PROCEDURE"
        } else {
            "FUNCTION"
        };
        findings.push(
            Finding::new(
                kind,
                &function,
                what,
                "let it run with the rights of whoever calls it, or keep the role (and PUBLIC) from calling it",
            )
            .sql(format!("ALTER {noun} {function} SECURITY INVOKER")),
        );
    }
    Ok(findings)
}

/// Whether a text has a name as a word, in whatever case.
fn mentions(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let in_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(&name).any(|(at, found)| {
        !in_word(text[..at].chars().next_back())
            && !in_word(text[at + found.len()..].chars().next())
    })
}

/// Whether the tables that a function reads are those in its text.
fn is_clear(language: &str, text: &str) -> bool {
    language == "sql" || (language == "plpgsql" && !mentions(text, "execute"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_as_a_word() {
        for text in [
            "SELECT * FROM orders",
            "from public.ORDERS;",
            "\"orders\"",
            "orders",
        ] {
            assert!(mentions(text, "orders"), "{text}");
        }
        for text in ["SELECT * FROM orders_old", "reorders", "", "order"] {
            assert!(!mentions(text, "orders"), "{text}");
        }
    }

    #[test]
    fn a_text_put_together_at_run_time_is_not_clear() {
        assert!(is_clear("sql", "SELECT 1"));
        assert!(is_clear("plpgsql", "BEGIN RETURN 1; END"));
        assert!(!is_clear("plpgsql", "BEGIN EXECUTE format('…'); END"));
        assert!(!is_clear("plpython3u", ""));
    }
}

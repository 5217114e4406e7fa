//! Tries past the table's name: what views, materialised views and functions show.
//!
//! Where what they show has the tenant's column, every other tenant's row is a finding. Where it has not (a sum, a
//! list), the same answer for attacker, victim and nobody is one, if there is anything in it: it can't be by tenant.

use pool_postgres::{Error, Session};

use super::Spoils;
use super::attempt::{Raid, Tried};
use super::target::Plan;
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{SharedTables, TableFacts, oids};

/// Something to read from.
pub(super) struct Way {
    kind: FindingKind,
    object: String,
    /// What stands behind `FROM`.
    from: String,
}

/// What a way shows to somebody.
pub(super) struct Sight {
    rows: i64,
    /// The same for the same rows, in whatever order.
    print: String,
    /// How many rows name another tenant; none where they name none.
    foreign: i64,
    /// Whether they name a tenant.
    names_tenants: bool,
}

const WAYS: &str = "
WITH RECURSIVE reading AS (
    SELECT r.ev_class AS oid FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
    WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
        AND d.refobjid = ANY($1) AND r.ev_class <> d.refobjid
    UNION SELECT r.ev_class FROM reading v
    JOIN pg_depend d ON d.refobjid = v.oid AND d.refclassid = 'pg_class'::regclass
        AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_rewrite r ON r.oid = d.objid WHERE r.ev_class <> v.oid
)
SELECT CASE WHEN c.relkind = 'm' THEN 'm' WHEN EXISTS (SELECT FROM pg_options_to_table(c.reloptions)
        WHERE option_name = 'security_invoker' AND option_value::boolean) THEN 'i' ELSE 'v' END,
    format('%s.%s', n.nspname, c.relname), format('%I.%I', n.nspname, c.relname)
FROM reading v
JOIN pg_class c ON c.oid = v.oid AND c.relkind IN ('v', 'm')
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
UNION ALL
SELECT 'f', p.oid::regprocedure::text, format('%I.%I()', n.nspname, p.proname)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE p.prosecdef AND p.provolatile <> 'v' AND p.prokind = 'f' AND p.pronargs = p.pronargdefaults
    AND p.prorettype <> 'record'::regtype AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND has_function_privilege(p.oid, 'EXECUTE') AND has_schema_privilege(n.oid, 'USAGE')
ORDER BY 2";

pub(super) async fn find(session: &mut Session, tables: &[TableFacts]) -> Result<Vec<Way>, Error> {
    let rows = session.query(WAYS, &[&oids(tables)]).await?;
    let way = |row: &pool_postgres::Row| Way {
        kind: match row.get::<_, &str>(0) {
            "m" => FindingKind::MaterializedView,
            "v" => FindingKind::ViewIsNotInvoker,
            "f" => FindingKind::DefinerFunction,
            _ => FindingKind::ForeignRowsRead,
        },
        object: row.get(1),
        from: row.get(2),
    };
    Ok(rows.iter().map(way).collect())
}

/// Reads through each; `None` where it is refused or fails.
pub(super) async fn look(
    raid: &mut Raid,
    plan: &Plan,
    shared: &SharedTables,
    tenant: &str,
) -> Result<Vec<Option<Sight>>, Error> {
    let mut sights = Vec::new();
    for way in &plan.ways {
        let sql = format!(
            "SELECT count(*), coalesce(sum(hashtextextended(x::text, 0)::numeric), 0)::text, \
             count(*) FILTER (WHERE jsonb_exists(to_jsonb(x), $1) AND to_jsonb(x) ->> $1 IS DISTINCT FROM $2), \
             coalesce(bool_or(jsonb_exists(to_jsonb(x), $1)), false) \
             FROM (SELECT y AS x FROM {} y LIMIT 10000) s",
            way.from
        );
        let tried = raid.read(&[], &sql, &[&shared.column, &tenant]).await?;
        sights.push(match tried {
            Tried::Done(rows, _) => rows.first().map(|row| Sight {
                rows: row.get(0),
                print: row.get(1),
                foreign: row.get(2),
                names_tenants: row.get(3),
            }),
            Tried::Refused(_) => None,
        });
    }
    Ok(sights)
}

/// Judges what each way showed to whom.
pub(super) fn compare(
    plan: &Plan,
    attacker: &[Option<Sight>],
    victim: &[Option<Sight>],
    nobody: Option<&[Option<Sight>]>,
    spoils: &mut Spoils,
) {
    for (index, way) in plan.ways.iter().enumerate() {
        let sight_of = |sights: &'_ [Option<Sight>]| {
            let sight = sights.get(index).and_then(Option::as_ref);
            sight.map(|sight| (sight.rows, sight.print.clone()))
        };
        let Some(Some(seen)) = attacker.get(index) else {
            continue;
        };
        let what = if seen.foreign > 0 {
            format!("{} rows of others were read through it", seen.foreign)
        } else if seen.names_tenants || seen.rows == 0 {
            continue;
        } else {
            let Some(nobody) = nobody else {
                let why = "whether it shows the same to all: there is no session without a tenant to compare with";
                spoils.untried(&way.object, why);
                continue;
            };
            let mine = sight_of(attacker);
            if mine != sight_of(victim) || mine != sight_of(nobody) {
                continue;
            }
            "it shows the same to every tenant, and to none".to_owned()
        };
        spoils.findings.push(Finding::new(
            way.kind,
            &way.object,
            what,
            "let it run with the rights of whoever asks, or keep the role away from it",
        ));
    }
}

//! Tries on keys: to learn of the victim's rows by unique constraints, and to link to them.

use pool_postgres::{Error, quote_identifier, quote_literal};

use super::attempt::{Raid, Tried};
use super::rows::insert;
use super::target::Target;
use super::{Case, Spoils};
use crate::tenancy::check::UniqueKey;
use crate::tenancy::findings::{Finding, FindingKind};

/// The server's answers to a value that is there already.
const THERE_ALREADY: [&str; 2] = ["23505", "23P01"];

/// Writes the victim's values into the attacker's own rows: does a constraint say that they are taken?
pub(super) async fn probe(
    raid: &mut Raid,
    case: &Case<'_>,
    target: &Target,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    let Some(sample) = &target.sample else {
        return Ok(());
    };
    let keys = case.plan.unique.iter();
    for key in keys.filter(|key| key.table == target.facts.name) {
        // A row of its own with those values and no others of the victim's; where that can't be, a new row with all.
        let mut tried = raid.write(&[], &take(case, target, key), &[sample]).await?;
        if !says(&tried, key) && tried.changed() == 0 {
            tried = raid.write(&[], &take_all(case, target), &[sample]).await?;
        }
        let object = format!("{}.{}", key.table, key.name);
        if says(&tried, key) {
            spoils.findings.push(Finding::new(
                key.kind,
                object,
                "it said of a value of the victim's that it is taken",
                "make it unique within the tenant",
            ));
        } else if tried.changed() == 0 {
            let why = format!(
                "to learn of the victim's values: the server says {} first",
                tried.code()
            );
            spoils.untried(&object, why);
        }
    }
    Ok(())
}

/// Whether this very constraint said that something is there already.
fn says(tried: &Tried, key: &UniqueKey) -> bool {
    let Tried::Refused(error) = tried else {
        return false;
    };
    THERE_ALREADY.contains(&tried.code()) && error.constraint() == Some(&key.name)
}

/// Gives one row of the attacker's the victim's values of a key.
fn take(case: &Case<'_>, target: &Target, key: &UniqueKey) -> String {
    let (name, column) = (&target.name, &target.column);
    let sample = format!("jsonb_populate_record(NULL::{name}, $1::text::jsonb)");
    let sets: Vec<String> = key
        .columns
        .iter()
        .map(|column| quote_identifier(column))
        .map(|column| format!("{column} = (SELECT {column} FROM {sample})"))
        .collect();
    format!(
        "UPDATE {name} SET {} WHERE (tableoid, ctid) = \
         (SELECT tableoid, ctid FROM {name} WHERE {column}::text = {} LIMIT 1)",
        sets.join(", "),
        quote_literal(case.attacker)
    )
}

/// Writes the victim's row as one of the attacker's.
fn take_all(case: &Case<'_>, target: &Target) -> String {
    let column = quote_literal(&case.shared.column);
    let attacker = quote_literal(case.attacker);
    let over = format!(" || jsonb_build_object({column}, {attacker})");
    insert(target, &over)
}

/// Points the attacker's own rows at the victim's, by foreign keys that don't look at the tenant.
pub(super) async fn link(
    raid: &mut Raid,
    case: &Case<'_>,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    for key in &case.plan.foreign {
        let object = format!("{}.{}", key.child, key.name);
        let (child, parent) = (
            case.target_of(key.child_oid),
            case.target_of(key.parent_oid),
        );
        let Some(sample) = parent.and_then(|parent| parent.sample.as_ref()) else {
            spoils.untried(&object, "to link to a row of the victim's, which has none");
            continue;
        };
        let mut sets = Vec::new();
        for (from, to) in key.columns.iter().zip(&key.keys) {
            sets.push(format!(
                "{} = (SELECT {} FROM jsonb_populate_record(NULL::{}, $1::text::jsonb))",
                quote_identifier(from),
                quote_identifier(to),
                key.parent.sql()
            ));
        }
        let own = child.map_or(String::new(), |child| {
            let attacker = quote_literal(case.attacker);
            format!(" WHERE {}::text = {attacker}", child.column)
        });
        let sql = format!("UPDATE {} SET {}{own}", key.child.sql(), sets.join(", "));
        let tried = raid
            .write(&["SET CONSTRAINTS ALL IMMEDIATE"], &sql, &[sample])
            .await?;
        if tried.changed() > 0 {
            spoils.findings.push(Finding::new(
                FindingKind::ForeignKeyAcrossTenants,
                &object,
                format!("a row was linked to one of the victim's in {}", key.parent),
                "put the tenant first on both sides",
            ));
        } else {
            let why = match tried.code() {
                "" => "to link to a row of the victim's: the attacker has none to link".to_owned(),
                code => format!("to link to a row of the victim's: the server says {code} first"),
            };
            spoils.untried(&object, why);
        }
    }
    Ok(())
}

//! Tries on a table's rows: to read, write, change, delete and truncate what is the victim's.

use pool_postgres::{Error, quote_literal};

use super::attempt::{self, Raid, Tried};
use super::target::{Plan, Target};
use super::{Case, Party, Spoils};
use crate::tenancy::findings::{Finding, FindingKind};

/// The server's answer where a policy or a missing right holds.
pub(super) const DENIED: &str = "42501";
/// The class of the constraints, which come after the policies: who meets one is past them.
const CONSTRAINT: &str = "23";

/// Whether a connection that has named no tenant sees or writes anything.
pub(super) async fn as_nobody(
    raid: &mut Raid,
    plan: &Plan,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    for target in &plan.targets {
        let sql = format!("SELECT count(*) FROM {}", target.name);
        let seen = raid.read(&[], &sql, &[]).await?.number();
        if seen > 0 {
            spoils.findings.push(found(
                FindingKind::RowsWithoutTenant,
                target,
                format!("{seen} rows were seen without a tenant"),
            ));
        }
        let Some(sample) = &target.sample else {
            continue;
        };
        let written = raid.write(&[], &insert(target, ""), &[sample]).await?;
        judge_write(&written, target, "without a tenant", spoils);
    }
    Ok(())
}

pub(super) async fn attack(
    raid: &mut Raid,
    case: &Case<'_>,
    target: &Target,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    if target.sample.is_none() && !target.is_closed {
        spoils.untried(
            &target.facts.name,
            "to write for the victim, which has no row in it",
        );
    }
    let (name, column) = (&target.name, &target.column);
    let sql = format!("SELECT count(*) FROM {name} WHERE {column}::text = $1");
    let own = raid.read(&[], &sql, &[&case.attacker]).await?.number();

    read(raid, case, target, spoils).await?;
    write(raid, case, target, own, spoils).await?;
    change(raid, case, target, own, spoils).await?;

    let tried = raid.write(&[], &format!("TRUNCATE {name}"), &[]).await?;
    // Rights are looked at first: whatever else stands in its way, it would have been let.
    if tried.code() != DENIED {
        spoils.findings.push(found(
            FindingKind::MayTruncate,
            target,
            "TRUNCATE was not refused".to_owned(),
        ));
    }
    Ok(())
}

async fn read(
    raid: &mut Raid,
    case: &Case<'_>,
    target: &Target,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    let (name, column) = (&target.name, &target.column);
    let sql = format!("SELECT count(*) FROM {name} WHERE {column}::text IS DISTINCT FROM $1");
    let mut masks = vec![(String::new(), "by SELECT".to_owned())];
    masks.push((
        "SET LOCAL row_security = off".to_owned(),
        "with row_security off".to_owned(),
    ));
    for role in &case.plan.roles {
        masks.push((format!("SET LOCAL ROLE {role}"), format!("as {role}")));
    }
    for (before, how) in masks {
        let before: &[&str] = if before.is_empty() { &[] } else { &[&before] };
        let seen = raid.read(before, &sql, &[&case.attacker]).await?.number();
        if seen > 0 {
            spoils.findings.push(found(
                FindingKind::ForeignRowsRead,
                target,
                format!("{seen} rows of others were read {how}"),
            ));
        }
    }
    Ok(())
}

/// Tries `COPY`, which is refused at the cost of its connection: in transactions of its own.
pub(super) async fn copy(
    party: &Party,
    case: &Case<'_>,
    target: &Target,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    let (name, column) = (&target.name, &target.column);
    let me = Some(case.attacker);
    let mut session = party.session(case.shared, me).await?;
    let sql = format!("SELECT count(*) FROM {name} WHERE {column}::text = $1");
    // One that may not even read has nothing to copy.
    let Ok(row) = session.query_one(&sql, &[&case.attacker]).await else {
        return Ok(());
    };
    let own: i64 = row.get(0);
    let out = format!("COPY {name} ({column}) TO STDOUT");
    let copied = attempt::copy_out(session, &out).await?;
    let foreign = i128::from(copied.changed()) - i128::from(own);
    if foreign > 0 {
        spoils.findings.push(found(
            FindingKind::ForeignRowsRead,
            target,
            format!("{foreign} rows of others were read by COPY"),
        ));
    }
    let session = party.session(case.shared, me).await?;
    let into = format!("COPY {name} ({column}) FROM STDIN");
    if let Tried::Done(..) = attempt::copy_in(session, &into).await? {
        spoils.findings.push(found(
            FindingKind::ForeignRowsWritten,
            target,
            "COPY … FROM was not refused, as it is wherever policies hold".to_owned(),
        ));
    }
    spoils.tries += 2;
    Ok(())
}

async fn write(
    raid: &mut Raid,
    case: &Case<'_>,
    target: &Target,
    own: i64,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    let (name, column) = (&target.name, &target.column);
    if let Some(sample) = &target.sample {
        let written = raid.write(&[], &insert(target, ""), &[sample]).await?;
        judge_write(&written, target, "by INSERT", spoils);
    }
    if own == 0 {
        if !target.is_closed {
            let why = "to give a row to the victim: the attacker has none in it";
            spoils.untried(&target.facts.name, why);
        }
        return Ok(());
    }
    let victim = literal(case.victim, target);
    let sql = format!("UPDATE {name} SET {column} = {victim} WHERE {column}::text = $1");
    let given = raid.write(&[], &sql, &[&case.attacker]).await?;
    judge_write(&given, target, "by giving a row away", spoils);
    Ok(())
}

async fn change(
    raid: &mut Raid,
    case: &Case<'_>,
    target: &Target,
    own: i64,
    spoils: &mut Spoils,
) -> Result<(), Error> {
    let (name, column) = (&target.name, &target.column);
    let attacker = literal(case.attacker, target);
    let named = format!("WHERE {column}::text = {}", quote_literal(case.victim));
    // Without a column named in WHERE, the policies for reading have no say.
    let ways = [
        (
            format!("UPDATE {name} SET {column} = {attacker} {named}"),
            0,
            "taken over",
        ),
        (format!("DELETE FROM {name} {named}"), 0, "deleted"),
        (
            format!("UPDATE {name} SET {column} = {attacker}"),
            own,
            "taken over without looking",
        ),
        (
            format!("DELETE FROM {name}"),
            own,
            "deleted without looking",
        ),
    ];
    for (sql, allowed, how) in ways {
        let tried = raid.write(&[], &sql, &[]).await?;
        let foreign = i128::from(tried.changed()) - i128::from(allowed);
        if foreign > 0 {
            spoils.findings.push(found(
                FindingKind::ForeignRowsChanged,
                target,
                format!("{foreign} rows of others were {how}"),
            ));
        } else if tried.code().starts_with(CONSTRAINT) {
            let why = format!("whether rows can be {how}: a constraint stands before it");
            spoils.untried(&target.facts.name, why);
        }
    }
    Ok(())
}

/// Writes a row that is given as JSON, with something put over it.
pub(super) fn insert(target: &Target, over: &str) -> String {
    let columns = target.columns.join(", ");
    let name = &target.name;
    format!(
        "INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE \
         SELECT {columns} FROM jsonb_populate_record(NULL::{name}, $1::text::jsonb{over})"
    )
}

fn judge_write(tried: &Tried, target: &Target, how: &str, spoils: &mut Spoils) {
    let code = tried.code();
    let what = if tried.changed() > 0 {
        format!("a row was written for another tenant {how}")
    } else if code.starts_with(CONSTRAINT) {
        format!("only a constraint ({code}) kept a row for another tenant out, written {how}")
    } else {
        if code != DENIED && !code.is_empty() {
            let why = format!("to write for another tenant {how}: the server says {code} first");
            spoils.untried(&target.facts.name, why);
        }
        return;
    };
    let kind = FindingKind::ForeignRowsWritten;
    spoils.findings.push(found(kind, target, what));
}

fn literal(tenant: &str, target: &Target) -> String {
    format!("{}::{}", quote_literal(tenant), target.cast)
}

fn found(kind: FindingKind, target: &Target, what: String) -> Finding {
    let remedy = match kind {
        FindingKind::MayTruncate => {
            "take the right away, from PUBLIC and from roles that it is a member of too"
        }
        _ => "see what the audit finds on this table, and install tenancy on it",
    };
    Finding::new(kind, &target.facts.name, what, remedy)
}

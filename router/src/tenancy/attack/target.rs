//! What there is to attack, read from the catalogue; and what the victim has of it.

use pool_postgres::{Error, Session, quote_identifier};

use super::attempt::{Raid, Tried};
use super::rows::DENIED;
use super::ways::{self, Way};
use crate::tenancy::check::{ForeignKey, Judged, UniqueKey, foreign_keys, unique_keys};
use crate::tenancy::install::{SharedTables, TableFacts, oids, read};

/// All there is to attack.
pub(super) struct Plan {
    pub(super) targets: Vec<Target>,
    pub(super) ways: Vec<Way>,
    pub(super) unique: Vec<UniqueKey>,
    pub(super) foreign: Vec<ForeignKey>,
    /// Roles that the attacker may take on, as SQL takes them.
    pub(super) roles: Vec<String>,
}

/// A table of tenants, or a part of one.
pub(super) struct Target {
    pub(super) facts: TableFacts,
    /// Its name and its tenants' column, as SQL takes them.
    pub(super) name: String,
    pub(super) column: String,
    /// What a tenant is cast to.
    pub(super) cast: &'static str,
    /// The columns that an `INSERT` may name, as SQL takes them.
    pub(super) columns: Vec<String>,
    /// One of the victim's rows, as JSON.
    pub(super) sample: Option<String>,
    /// Not even the victim may read it: a part that is reached by its parent's name alone.
    pub(super) is_closed: bool,
}

const COLUMNS: &str = "
SELECT attrelid, attname::text FROM pg_attribute
WHERE attrelid = ANY($1) AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attrelid, attnum";

pub(super) async fn plan(session: &mut Session, shared: &SharedTables) -> Result<Plan, Error> {
    let tables = read(session, shared).await?;
    let judged = Judged::read(session, shared).await?;
    let unique = unique_keys(session, shared, &tables).await?;
    let foreign = foreign_keys(session, shared, &tables).await?;
    let ways = ways::find(session, &tables).await?;
    let columns = session.query(COLUMNS, &[&oids(&tables)]).await?;
    let mut targets = Vec::new();
    for facts in tables {
        let Some(cast) = facts.cast() else {
            continue;
        };
        let of_table = columns
            .iter()
            .filter(|row| row.get::<_, u32>(0) == facts.oid);
        targets.push(Target {
            name: facts.name.sql(),
            column: quote_identifier(&shared.column),
            cast,
            columns: of_table.map(|row| quote_identifier(row.get(1))).collect(),
            sample: None,
            is_closed: false,
            facts,
        });
    }
    Ok(Plan {
        targets,
        ways,
        unique,
        foreign,
        roles: judged.names().map(quote_identifier).collect(),
    })
}

/// Takes down one row of the victim's in each table.
pub(super) async fn sample(raid: &mut Raid, plan: &mut Plan, victim: &str) -> Result<(), Error> {
    for target in &mut plan.targets {
        let sql = format!(
            "SELECT to_jsonb(t)::text FROM {} t WHERE {}::text = $1 LIMIT 1",
            target.name, target.column
        );
        let tried = raid.read(&[], &sql, &[&victim]).await?;
        target.is_closed = tried.code() == DENIED;
        if let Tried::Done(rows, _) = tried {
            target.sample = rows.first().map(|row| row.get(0));
        }
    }
    Ok(())
}

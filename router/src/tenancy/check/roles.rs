//! Who the application is and may become, and what no policy holds up.

use pool_postgres::{Error, Session, quote_identifier};

use super::Findings;
use crate::tenancy::findings::{Finding, FindingKind};
use crate::tenancy::install::{SharedTables, TableFacts, TenantKey};

/// The roles that are judged.
pub(in crate::tenancy) struct Judged(Vec<Role>);

/// One of them.
#[expect(
    clippy::struct_excessive_bools,
    reason = "attributes of a role, each by itself"
)]
struct Role {
    oid: u32,
    name: String,
    /// The role that it is reached from; none for the named one and the login.
    member: Option<String>,
    is_superuser: bool,
    bypasses: bool,
    replicates: bool,
    makes_roles: bool,
}

const ROLES: &str = "
WITH RECURSIVE judged AS (
    SELECT oid, NULL::oid AS member FROM pg_roles WHERE rolname IN ($1, session_user)
    UNION SELECT m.roleid, m.member FROM judged j JOIN pg_auth_members m ON m.member = j.oid
)
SELECT DISTINCT ON (r.oid) r.oid, r.rolname::text, pg_get_userbyid(j.member)::text, r.rolsuper, r.rolbypassrls,
    r.rolreplication, r.rolcreaterole
FROM judged j JOIN pg_roles r ON r.oid = j.oid ORDER BY r.oid, j.member NULLS FIRST";

impl Judged {
    /// The named role, the one that has logged in, and whatever they are members of.
    pub(in crate::tenancy) async fn read(
        session: &mut Session,
        shared: &SharedTables,
    ) -> Result<Self, Error> {
        let rows = session.query(ROLES, &[&shared.role]).await?;
        let role = |row: &pool_postgres::Row| Role {
            oid: row.get(0),
            name: row.get(1),
            member: row.get(2),
            is_superuser: row.get(3),
            bypasses: row.get(4),
            replicates: row.get(5),
            makes_roles: row.get(6),
        };
        Ok(Self(rows.iter().map(role).collect()))
    }

    pub(in crate::tenancy) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|role| &*role.name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|role| role.name == name)
    }

    /// All but superusers, who have every right; that one finding says so.
    pub(super) fn ordinary(&self) -> Vec<u32> {
        let ordinary = self.0.iter().filter(|role| !role.is_superuser);
        ordinary.map(|role| role.oid).collect()
    }

    pub(super) fn oids(&self) -> Vec<u32> {
        self.0.iter().map(|role| role.oid).collect()
    }

    pub(super) fn any(&self, is: impl Fn(u32) -> bool) -> bool {
        self.0.iter().any(|role| is(role.oid))
    }
}

/// Roles that reach what lies under the tables: the server's files.
const FILES: [&str; 3] = [
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_execute_server_program",
];

pub(super) fn judge(judged: &Judged, tables: &[TableFacts]) -> Findings {
    let mut findings = Vec::new();
    for role in &judged.0 {
        let mut has = |kind, has: bool, what: &str, take: &str| {
            if has {
                findings.push(role.finding(kind, what, take));
            }
        };
        has(
            FindingKind::RoleIsSuperuser,
            role.is_superuser,
            "is a superuser, for whom there are no policies",
            "NOSUPERUSER",
        );
        has(
            FindingKind::RoleBypassesRowSecurity,
            role.bypasses && !role.is_superuser,
            "has BYPASSRLS: it sees all rows",
            "NOBYPASSRLS",
        );
        has(
            FindingKind::RoleReplicates,
            role.replicates && !role.is_superuser,
            "has REPLICATION: it can copy the whole server",
            "NOREPLICATION",
        );
        has(
            FindingKind::RoleMakesRoles,
            role.makes_roles && !role.is_superuser,
            "has CREATEROLE: it can make itself a member of others",
            "NOCREATEROLE",
        );
        has(
            FindingKind::RoleReachesFiles,
            FILES.contains(&&*role.name),
            "reaches the server's files, and the tables in them",
            "NOLOGIN",
        );
        if role.is_superuser {
            continue;
        }
        for table in tables.iter().filter(|table| table.owner == role.oid) {
            let what = format!("{} owns it, and can take the policies off", role.told());
            let remedy = "let the tables belong to a role that only migrations log in as";
            let sql = format!("ALTER TABLE {} OWNER TO …", table.name.sql());
            findings
                .push(Finding::new(FindingKind::RoleOwnsTable, &table.name, what, remedy).sql(sql));
        }
    }
    findings
}

impl Role {
    fn finding(&self, kind: FindingKind, what: &str, take: &str) -> Finding {
        let name = quote_identifier(&self.name);
        match &self.member {
            None => Finding::new(
                kind,
                &self.name,
                format!("the application's role {what}"),
                "take it from the role and renew its connections, which keep plans made before; or let the application log in as \
                 another one",
            )
            .sql(format!("ALTER ROLE {name} {take}")),
            Some(member) => Finding::new(
                kind,
                &self.name,
                format!("{member} is a member of {}, which {what}", self.name),
                "take the role out of that one, and renew its connections",
            )
            .sql(format!("REVOKE {name} FROM {}", quote_identifier(member))),
        }
    }

    fn told(&self) -> String {
        match &self.member {
            None => format!("the application's role {}", self.name),
            Some(member) => format!("{}, of which {member} is a member,", self.name),
        }
    }
}

const PRESET: &str = "
SELECT coalesce(pg_get_userbyid(nullif(setrole, 0))::text, ''), coalesce(d.datname::text, '')
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase, unnest(s.setconfig) AS c(entry)
WHERE (s.setrole = 0 OR s.setrole = ANY($1)) AND (s.setdatabase = 0 OR d.datname = current_database())
    AND lower(split_part(c.entry, '=', 1)) = lower($2) AND split_part(c.entry, '=', 2) <> ''";

/// Whether there is a tenant before anybody has said which.
pub(super) async fn preset(
    session: &mut Session,
    shared: &SharedTables,
    judged: &Judged,
) -> Result<Findings, Error> {
    let TenantKey::Setting(setting) = &shared.key else {
        return Ok(Vec::new());
    };
    let kind = FindingKind::TenantSetByDefault;
    let what =
        "has a value before any tenant is named: who forgets the tenant is that one, not nobody";
    let mut findings = Vec::new();
    for row in session.query(PRESET, &[&judged.oids(), setting]).await? {
        let (role, database): (String, String) = (row.get(0), row.get(1));
        let whose = match (role.is_empty(), database.is_empty()) {
            (false, true) => format!("ROLE {}", quote_identifier(&role)),
            (true, _) => format!("DATABASE {}", quote_identifier(&database)),
            (false, false) => format!(
                "ROLE {} IN DATABASE {}",
                quote_identifier(&role),
                quote_identifier(&database)
            ),
        };
        let sql = format!("ALTER {whose} RESET {setting}");
        findings.push(Finding::new(kind, setting, what, "take the value away").sql(sql));
    }
    if findings.is_empty() {
        let sql = "SELECT coalesce(current_setting($1, true), '') <> ''";
        if session.query_one(sql, &[setting]).await?.get(0) {
            let remedy = "take it out of the server's configuration and of the URL's options";
            findings.push(Finding::new(kind, setting, what, remedy));
        }
    }
    Ok(findings)
}

//! One tenant as it is known now, and what confines its transactions.

use std::sync::Arc;

use pool_postgres::{Scope, quote_identifier};

use super::error::TenantError;
use super::id::{LONGEST_NAME, TenantId};
use super::load::Load;
use super::placement::{Placement, TenantRecord};

/// What is looked up once and then used by all of a tenant's sessions.
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) placement: Placement,
    pub(crate) generation: u64,
    pub(crate) role: Option<Arc<str>>,
    pub(crate) scope: Scope,
    pub(crate) load: Arc<Load>,
}

impl Tenant {
    /// # Errors
    /// [`TenantError::Placement`], for a schema whose name the server would cut off or take for its own.
    pub(crate) fn new(
        id: TenantId,
        record: TenantRecord,
        setting: &str,
        load: Arc<Load>,
    ) -> Result<Self, TenantError> {
        let TenantRecord {
            placement,
            generation,
            role,
            ..
        } = record;
        if let Placement::Schema { schema, .. } = &placement
            && let Err(why) = check_schema(schema)
        {
            return Err(TenantError::Placement { tenant: id, why });
        }
        let scope = confine(&id, &placement, role.as_deref(), setting);
        Ok(Self {
            id,
            placement,
            generation,
            role,
            scope,
            load,
        })
    }

    /// Whether it lives where the other one does: a session of the one may go on as one of the other.
    pub(crate) fn is_at(&self, other: &Placement, generation: u64, role: Option<&str>) -> bool {
        let same_place = match (&self.placement, other) {
            // Its nodes can't be compared, so the generation has to tell.
            (Placement::Database { .. }, Placement::Database { .. }) => true,
            (
                Placement::Schema {
                    database,
                    schema,
                    also,
                },
                Placement::Schema {
                    database: other_database,
                    schema: other_schema,
                    also: other_also,
                },
            ) => database == other_database && schema == other_schema && also == other_also,
            (
                Placement::Rows { database },
                Placement::Rows {
                    database: other_database,
                },
            ) => database == other_database,
            _ => false,
        };
        same_place && self.generation == generation && self.role.as_deref() == role
    }
}

/// Whether a schema's name means the schema that it was meant to mean.
fn check_schema(name: &str) -> Result<(), String> {
    let why = if name.is_empty() || name.contains('\0') {
        "it is empty or holds a NUL"
    } else if name.len() > LONGEST_NAME {
        "it has more than 63 bytes, and the server would cut it off (TenantId::object_name makes one that fits)"
    } else if name.starts_with("pg_") || name == "information_schema" || name == "public" {
        "it is no tenant's"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(80).collect();
    Err(format!("its schema is {shown:?}: {why}"))
}

/// What confines a tenant's transactions, and what proves that they are confined.
fn confine(id: &TenantId, placement: &Placement, role: Option<&str>, setting: &str) -> Scope {
    let mut scope = Scope::new(id.shared());
    if let Some(role) = role {
        scope = scope.set("role", role);
    }
    scope = scope
        .set(setting, id.as_str())
        .expect(&shows(setting), id.as_str());
    // What an earlier transaction may have left is not taken over: neither another role, nor another place to look.
    scope = match role {
        Some(role) => scope.expect("current_user", role),
        None => scope.expect("current_user = session_user", "true"),
    };
    if let Placement::Schema { schema, also, .. } = placement {
        let mut path = quote_identifier(schema);
        for schema in &**also {
            path.push_str(", ");
            path.push_str(&quote_identifier(schema));
        }
        // Named last: by default temporary tables would be found before the tenant's own.
        path.push_str(", pg_temp");
        scope = scope
            .set("search_path", &path)
            .expect("pg_catalog.current_schema()", schema)
            .separate_statements();
    }
    scope
}

/// SQL that shows the tenant's setting.
pub(crate) fn shows(setting: &str) -> String {
    format!("pg_catalog.current_setting('{setting}', true)")
}

#[cfg(test)]
mod tests {
    use super::super::load::Limits;
    use super::*;

    #[test]
    fn a_schema_that_is_no_tenants_is_refused() {
        for name in [
            "",
            "public",
            "pg_catalog",
            "information_schema",
            "a\0b",
            &"x".repeat(64),
        ] {
            let record = TenantRecord::new(Placement::schema("main", name));
            let id = "acme".parse().expect("an id");
            let made = Tenant::new(id, record, "app.tenant_id", Load::new(Limits::default()));
            let error = made.err().expect(name).to_string();
            assert!(error.contains("acme"), "{error}");
        }
    }
}

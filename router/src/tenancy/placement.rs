//! Where a tenant lives, and in what state it is.

use std::fmt;
use std::sync::Arc;

use super::load::Limits;
use crate::builder::Builder;

/// Where a tenant's rows are; all kinds may be mixed in one service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Placement {
    /// In a database of its own, with pools of its own.
    Database {
        /// Its primary, replicas and pool settings, as for [`Database::builder`](crate::Database::builder).
        nodes: Box<Builder>,
    },
    /// In a schema of its own, in a database that others live in too.
    Schema {
        /// The database's name, as given to [`Builder::database`](super::Builder::database).
        database: Arc<str>,
        /// The schema's name; [`TenantId::object_name`](super::TenantId::object_name) makes one.
        schema: Arc<str>,
        /// Schemas that are looked through after it, `public` say. By default none.
        also: Arc<[String]>,
    },
    /// In tables that others' rows are in too, told apart by a column and by row-level security.
    Rows {
        /// The database's name, as given to [`Builder::database`](super::Builder::database).
        database: Arc<str>,
    },
}

impl Placement {
    /// A database of its own.
    pub fn database(nodes: Builder) -> Self {
        Self::Database {
            nodes: Box::new(nodes),
        }
    }

    /// A schema of its own, and nothing but it.
    pub fn schema(database: impl Into<Arc<str>>, schema: impl Into<Arc<str>>) -> Self {
        Self::Schema {
            database: database.into(),
            schema: schema.into(),
            also: Arc::default(),
        }
    }

    /// Rows in shared tables.
    pub fn rows(database: impl Into<Arc<str>>) -> Self {
        Self::Rows {
            database: database.into(),
        }
    }

    /// Has further schemas looked through, behind the tenant's own. Without effect on other kinds.
    pub fn also_schemas(mut self, schemas: impl IntoIterator<Item = impl Into<String>>) -> Self {
        if let Self::Schema { also, .. } = &mut self {
            *also = schemas.into_iter().map(Into::into).collect();
        }
        self
    }

    /// Which of the three.
    pub fn kind(&self) -> PlacementKind {
        match self {
            Self::Database { .. } => PlacementKind::Database,
            Self::Schema { .. } => PlacementKind::Schema,
            Self::Rows { .. } => PlacementKind::Rows,
        }
    }
}

/// A [`Placement`]'s kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlacementKind {
    /// A database of its own.
    Database,
    /// A schema of its own.
    Schema,
    /// Rows in shared tables.
    Rows,
}

impl fmt::Display for PlacementKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Rows => "rows",
        })
    }
}

/// Whether a tenant is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TenantState {
    /// It is.
    #[default]
    Active,
    /// It is not, until somebody resumes it.
    Suspended,
    /// It is not while it is on its way to another place.
    Moving,
}

impl fmt::Display for TenantState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Moving => "moving",
        })
    }
}

/// What a [`Resolver`](super::Resolver) knows of a tenant.
#[derive(Clone, Debug)]
pub struct TenantRecord {
    pub(crate) placement: Placement,
    pub(crate) state: TenantState,
    pub(crate) generation: u64,
    pub(crate) role: Option<Arc<str>>,
    pub(crate) limits: Option<Limits>,
}

impl TenantRecord {
    /// An active tenant that lives there.
    pub fn new(placement: Placement) -> Self {
        Self {
            placement,
            state: TenantState::Active,
            generation: 0,
            role: None,
            limits: None,
        }
    }

    /// In another state.
    pub fn state(mut self, state: TenantState) -> Self {
        self.state = state;
        self
    }

    /// Which of its places this is, one after another. Raise it whenever the placement changes: a session that was made
    /// for another generation is refused from then on.
    pub fn generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// What this tenant may take. Default: as [`Builder::limits`](super::Builder::limits) says.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = Some(limits);
        self
    }

    /// The role that its transactions take on (`SET LOCAL ROLE`). It guards against mistakes; hostile SQL can lay it
    /// down again. Default: the pool's user.
    pub fn role(mut self, role: impl Into<Arc<str>>) -> Self {
        self.role = Some(role.into());
        self
    }
}

impl From<Placement> for TenantRecord {
    fn from(placement: Placement) -> Self {
        Self::new(placement)
    }
}

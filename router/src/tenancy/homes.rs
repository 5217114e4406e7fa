//! The databases that tenants live in: those that were named at the start, and tenants' own, made on first use.
//!
//! # What always holds
//! All tenants' own pools are under one budget. A tenant's own database that is not among the last used ones is let
//! go; transactions that still run there keep it until they end.

use std::collections::HashMap;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use pool_core::Budget;
use pool_postgres::{ConnectionSource, Engine};

use super::error::TenantError;
use super::id::TenantId;
use super::placement::Placement;
use super::tenant::Tenant;
use crate::builder::Builder;
use crate::database::Database;
use crate::request::ReadOptions;

/// A database, with replicas or without.
#[derive(Clone)]
pub(crate) enum Home {
    /// Watched, and routed by what a read promises.
    Routed(Database),
    /// One server, so there is nothing to watch and nothing to choose.
    Single(Engine),
}

/// What a transaction is for.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    Write,
    /// A read with the database's default promise, or with one of its own.
    Read(Option<ReadOptions>),
}

impl Home {
    /// Where sessions for this use get their connections.
    pub(crate) fn source(&self, wanted: Use) -> Arc<dyn ConnectionSource> {
        match (self, wanted) {
            (Self::Single(engine), _) => Arc::new(engine.clone()),
            (Self::Routed(database), Use::Write) => database.write_source(),
            (Self::Routed(database), Use::Read(options)) => database.read_source(options),
        }
    }
}

/// A tenant's own database, and which of its places that is.
struct Own {
    generation: u64,
    home: Home,
}

pub(crate) struct Homes {
    named: HashMap<Arc<str>, Home>,
    own: Mutex<LruCache<TenantId, Own>>,
    /// How many of the tenants' own are kept.
    most: usize,
    budget: Option<Budget>,
}

impl Homes {
    pub(crate) fn new(named: HashMap<Arc<str>, Home>, most: usize, budget: Option<Budget>) -> Self {
        Self {
            named,
            own: Mutex::new(LruCache::unbounded()),
            most: most.max(1),
            budget,
        }
    }

    /// The database that a tenant lives in.
    pub(crate) fn of(&self, tenant: &Tenant) -> Result<Home, TenantError> {
        match &tenant.placement {
            Placement::Schema { database, .. } | Placement::Rows { database } => {
                self.named(database)
            }
            Placement::Database { nodes } => self.own(tenant, nodes),
        }
    }

    /// A database by its name.
    pub(crate) fn named(&self, name: &str) -> Result<Home, TenantError> {
        self.named.get(name).cloned().ok_or_else(|| {
            let mut given: Vec<_> = self.named.keys().map(ToString::to_string).collect();
            given.sort();
            TenantError::NoSuchDatabase {
                name: name.to_owned(),
                given,
            }
        })
    }

    fn own(&self, tenant: &Tenant, nodes: &Builder) -> Result<Home, TenantError> {
        let mut own = self.own.lock();
        if let Some(found) = own.get(&tenant.id)
            && found.generation == tenant.generation
        {
            return Ok(found.home.clone());
        }
        let home = self.open(tenant, nodes)?;
        let made = Own {
            generation: tenant.generation,
            home: home.clone(),
        };
        let replaced = own.put(tenant.id.clone(), made);
        let evicted = (own.len() > self.most).then(|| own.pop_lru());
        drop(own); // Before what has to go: its end runs other people's code.
        drop((replaced, evicted));
        Ok(home)
    }

    /// Makes a tenant's own pools; opens nothing.
    fn open(&self, tenant: &Tenant, nodes: &Builder) -> Result<Home, TenantError> {
        let mut nodes = nodes.clone();
        if let Some(budget) = &self.budget {
            nodes = nodes.budget(budget);
        }
        let made = match nodes.sole_engine() {
            Some(engine) => engine.map(Home::Single),
            None => nodes.connect_lazy().map(Home::Routed),
        };
        made.map_err(|error| TenantError::of_start(&tenant.id, &error))
    }

    /// How many tenants' own databases are kept now.
    pub(crate) fn own_count(&self) -> usize {
        self.own.lock().len()
    }

    /// Takes out all of the tenants' own.
    pub(crate) fn take_own(&self) -> Vec<Home> {
        let mut own = self.own.lock();
        let all = std::mem::replace(&mut *own, LruCache::unbounded());
        drop(own);
        all.into_iter().map(|(_, own)| own.home).collect()
    }
}

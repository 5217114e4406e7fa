//! Who knows where tenants live.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::BoxStream;
use parking_lot::RwLock;
use pool_postgres::Error;

use super::id::TenantId;
use super::placement::{TenantRecord, TenantState};

/// What [`Resolver::resolve`] returns.
pub type ResolveFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Option<TenantRecord>, Error>> + Send + 'a>>;

/// Knows where tenants live: a [`TenantMap`], a closure ([`resolver_fn`]), a
/// [`Catalogue`](super::Catalogue) table, or one of your own.
///
/// Its answers are cached ([`Builder::max_age`](super::Builder::max_age)), and callers who ask for one tenant at the
/// same time share one question.
pub trait Resolver: Send + Sync + 'static {
    /// Looks a tenant up; `None` if there is no such tenant.
    ///
    /// # Errors
    /// What kept it from looking. Nothing is cached then.
    fn resolve<'a>(&'a self, tenant: &'a TenantId) -> ResolveFuture<'a>;

    /// Which tenants' records change, as that happens: each is forgotten by the cache. By default nobody tells, and a
    /// change is noticed once the cached answer is too old.
    fn changes(&self) -> Option<BoxStream<'static, Changed>> {
        None
    }
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Changed {
    /// One tenant's record.
    Of(String),
    /// Perhaps any.
    Any,
}

/// Tenants in memory. Cheap to clone; all clones are one map.
#[derive(Clone, Debug, Default)]
pub struct TenantMap(Arc<RwLock<HashMap<TenantId, TenantRecord>>>);

impl TenantMap {
    /// Without tenants.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a tenant in, or in another place; returns what was there. [`Tenants::forget`](super::Tenants::forget)
    /// makes it known at once.
    pub fn insert(
        &self,
        tenant: TenantId,
        record: impl Into<TenantRecord>,
    ) -> Option<TenantRecord> {
        self.0.write().insert(tenant, record.into())
    }

    /// Takes a tenant out.
    pub fn remove(&self, tenant: &TenantId) -> Option<TenantRecord> {
        self.0.write().remove(tenant)
    }

    /// Changes a tenant's state; false if there is no such tenant.
    pub fn set_state(&self, tenant: &TenantId, state: TenantState) -> bool {
        match self.0.write().get_mut(tenant) {
            Some(record) => {
                record.state = state;
                true
            }
            None => false,
        }
    }
}

impl Resolver for TenantMap {
    fn resolve<'a>(&'a self, tenant: &'a TenantId) -> ResolveFuture<'a> {
        let found = self.0.read().get(tenant).cloned();
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl FromIterator<(TenantId, TenantRecord)> for TenantMap {
    fn from_iter<I: IntoIterator<Item = (TenantId, TenantRecord)>>(tenants: I) -> Self {
        Self(Arc::new(RwLock::new(tenants.into_iter().collect())))
    }
}

/// A resolver that asks a closure.
pub fn resolver_fn<F, R>(ask: F) -> impl Resolver
where
    F: Fn(TenantId) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<TenantRecord>, Error>> + Send + 'static,
{
    Asking(ask)
}

struct Asking<F>(F);

impl<F, R> Resolver for Asking<F>
where
    F: Fn(TenantId) -> R + Send + Sync + 'static,
    R: Future<Output = Result<Option<TenantRecord>, Error>> + Send + 'static,
{
    fn resolve<'a>(&'a self, tenant: &'a TenantId) -> ResolveFuture<'a> {
        Box::pin((self.0)(tenant.clone()))
    }
}

impl<R: Resolver + ?Sized> Resolver for Arc<R> {
    fn resolve<'a>(&'a self, tenant: &'a TenantId) -> ResolveFuture<'a> {
        (**self).resolve(tenant)
    }

    fn changes(&self) -> Option<BoxStream<'static, Changed>> {
        (**self).changes()
    }
}

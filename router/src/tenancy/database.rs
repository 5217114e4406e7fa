//! One tenant's database: the verbs of [`Database`](crate::Database), confined to the tenant.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pool_postgres::{
    Checkout, CheckoutFuture, ConnectionSource, Error, Session, SessionFactory, SessionOptions,
};

use super::error::TenantError;
use super::homes::Use;
use super::id::TenantId;
use super::placement::PlacementKind;
use super::tenant::Tenant;
use super::tenants::Inner;
use crate::database::AsToken;
use crate::request::{Consistency, ReadOptions};

/// A tenant's database, whichever kind of [`Placement`](super::Placement) it has; made by
/// [`Tenants::for_tenant`](super::Tenants::for_tenant).
///
/// Cheap to clone. All its sessions are confined to the tenant; what confines them, and the proof, travel with `BEGIN`
/// and the first statement. Each transaction looks the tenant up again (in the cache): once it is suspended or lives
/// elsewhere, sessions that were made before fail with [`TenantError::Suspended`] or [`TenantError::Moved`].
#[derive(Clone)]
pub struct TenantDatabase {
    inner: Arc<Inner>,
    tenant: Arc<Tenant>,
}

impl TenantDatabase {
    pub(crate) fn new(inner: Arc<Inner>, tenant: Arc<Tenant>) -> Self {
        Self { inner, tenant }
    }

    /// Whose it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant.id
    }

    /// Of which kind its placement is.
    pub fn kind(&self) -> PlacementKind {
        self.tenant.placement.kind()
    }

    /// Which of the tenant's places this is; see [`TenantRecord::generation`](super::TenantRecord::generation).
    pub fn generation(&self) -> u64 {
        self.tenant.generation
    }

    /// A session on the primary; see [`Database::write`](crate::Database::write).
    ///
    /// A tenant whose own database has no replicas has no commit tokens: every read sees every commit there.
    pub fn write(&self) -> Session {
        self.sessions().write().session()
    }

    /// A read-only session with the database's default promise; see [`Database::read`](crate::Database::read).
    pub fn read(&self) -> Session {
        self.sessions().read().session()
    }

    /// A read-only session that sees everything up to a token's commit; see
    /// [`Database::read_after`](crate::Database::read_after).
    pub fn read_after(&self, token: &impl AsToken) -> Session {
        match token.as_token() {
            Some(token) => self.read_with(Consistency::ReadYourWrites(token)),
            None => self.read(),
        }
    }

    /// A read-only session whose data is at most this old; see [`Database::read_within`](crate::Database::read_within).
    pub fn read_within(&self, age: Duration) -> Session {
        self.read_with(Consistency::BoundedStaleness(age))
    }

    /// A read-only session with these options; see [`Database::read_with`](crate::Database::read_with).
    pub fn read_with(&self, options: impl Into<ReadOptions>) -> Session {
        self.sessions().read_with(options).session()
    }

    /// Session factories, for code that makes its own sessions.
    pub fn sessions(&self) -> TenantSessions<'_> {
        TenantSessions { database: self }
    }

    fn factory(&self, wanted: Use) -> SessionFactory {
        let options = match wanted {
            Use::Write => SessionOptions::default(),
            Use::Read(_) => SessionOptions::default().read_only(),
        };
        let source = TenantSource {
            inner: Arc::clone(&self.inner),
            tenant: Arc::clone(&self.tenant),
            wanted,
        };
        SessionFactory::from_source(Arc::new(source), options).with_scope(&self.tenant.scope)
    }
}

impl fmt::Debug for TenantDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantDatabase")
            .field("tenant", &self.tenant.id)
            .field("kind", &self.kind())
            .field("generation", &self.tenant.generation)
            .finish_non_exhaustive()
    }
}

/// A tenant's session factories; made by [`TenantDatabase::sessions`].
#[derive(Clone, Copy, Debug)]
pub struct TenantSessions<'a> {
    database: &'a TenantDatabase,
}

impl TenantSessions<'_> {
    /// Sessions as [`TenantDatabase::write`] makes them.
    pub fn write(&self) -> SessionFactory {
        self.database.factory(Use::Write)
    }

    /// Sessions as [`TenantDatabase::read`] makes them.
    pub fn read(&self) -> SessionFactory {
        self.database.factory(Use::Read(None))
    }

    /// Sessions as [`TenantDatabase::read_with`] makes them.
    pub fn read_with(&self, options: impl Into<ReadOptions>) -> SessionFactory {
        self.database.factory(Use::Read(Some(options.into())))
    }
}

/// Sends a tenant's transactions to where the tenant lives, as long as it lives there.
struct TenantSource {
    inner: Arc<Inner>,
    tenant: Arc<Tenant>,
    wanted: Use,
}

impl ConnectionSource for TenantSource {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        Box::pin(async move {
            let tenant = &self.tenant;
            self.is_still_there().await?;
            let riding = tenant.load.enter(&tenant.id).await.map_err(Error::from)?;
            let home = self.inner.homes.of(tenant).map_err(Error::from)?;
            let source = home.source(self.wanted);
            let lease = source.checkout(request).await?;
            // The wait may have been long.
            self.is_still_there().await?;
            riding.begun();
            Ok(lease.with_observer(Box::new(riding)))
        })
    }
}

impl TenantSource {
    /// Whether the tenant lives where this session goes, as far as is known now.
    async fn is_still_there(&self) -> Result<(), TenantError> {
        let now = self.inner.look_up(&self.tenant.id).await?;
        let (placement, role) = (&now.placement, now.role.as_deref());
        if Arc::ptr_eq(&now, &self.tenant) || self.tenant.is_at(placement, now.generation, role) {
            return Ok(());
        }
        Err(TenantError::Moved {
            tenant: self.tenant.id.clone(),
        })
    }
}

/// Whose a session is.
///
/// ```no_run
/// use pool_router::tenancy::{OfTenant, TenantError, TenantId};
/// use pool_router::{Error, Session};
///
/// /// Refuses sessions of anybody else, and of nobody.
/// async fn close_account(session: &mut Session, tenant: &TenantId) -> Result<(), Error> {
///     let session = session.must_be_of(tenant)?;
///     session.execute("UPDATE accounts SET closed = true", &[]).await?;
///     Ok(())
/// }
/// ```
pub trait OfTenant {
    /// The tenant that the session is confined to, if it is one's.
    fn tenant(&self) -> Option<&str>;

    /// The session, if it is this tenant's.
    ///
    /// # Errors
    /// [`TenantError::Foreign`] for a session of another tenant, or of none.
    fn must_be_of(&mut self, tenant: &TenantId) -> Result<&mut Session, TenantError>;
}

impl OfTenant for Session {
    fn tenant(&self) -> Option<&str> {
        self.scope().filter(|scope| *scope != super::SYSTEM)
    }

    fn must_be_of(&mut self, tenant: &TenantId) -> Result<&mut Session, TenantError> {
        let found = self.tenant();
        if found == Some(tenant.as_str()) {
            return Ok(self);
        }
        Err(TenantError::Foreign {
            expected: tenant.clone(),
            found: found.map(str::to_owned),
        })
    }
}

//! A request's tenant, in web services.
//!
//! [`TenantLayer`] finds the name in the request's head, looks the tenant up, and puts its
//! [`TenantDatabase`] into the request's extensions; what can't be served is answered by
//! itself:
//!
//! | the request | the answer |
//! |---|---|
//! | names no tenant, or what is no tenant's id | 400 |
//! | names a tenant that there is not | 404 |
//! | names one that is suspended | 403 |
//! | names one that is being moved, or can't be looked up now | 503 |
//!
//! The [`Refused`] is in the response's extensions, for a middleware around it that gives errors their form. Inside,
//! [`sessions`] is a [`SessionLayer`] whose sessions are the tenant's:
//!
//! ```no_run
//! use pool_router::tenancy::{Tenants, web};
//! # fn example<S>(tenants: Tenants, service: S) -> impl Sized {
//! use tower_layer::Layer;
//!
//! // With axum: Router::new().route(…).layer(web::sessions()).layer(web::TenantLayer::new(…))
//! let service = web::sessions().layer(service);
//! web::TenantLayer::new(tenants, web::subdomain_of("example.org")).layer(service)
//! # }
//! ```
//!
//! The name is a claim of whoever sends the request. Where it decides what they may see, take it from what was verified:
//! a closure that reads what your authentication put into the extensions.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{HeaderName, Request, Response, StatusCode};
use pool_postgres::SessionFactory;
use pool_postgres::web::SessionLayer;
use tower_layer::Layer;
use tower_service::Service;

use super::database::TenantDatabase;
use super::error::TenantError;
use super::tenants::Tenants;

type Find = dyn Fn(&Parts) -> Option<String> + Send + Sync;

/// Finds each request's tenant; see the [module](self).
#[derive(Clone)]
pub struct TenantLayer {
    tenants: Tenants,
    find: Arc<Find>,
}

impl TenantLayer {
    /// `find` tells which tenant a request names, by its head: [`subdomain_of`], [`path_segment`], [`header`], or a
    /// closure.
    pub fn new(
        tenants: Tenants,
        find: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            tenants,
            find: Arc::new(find),
        }
    }
}

impl<S> Layer<S> for TenantLayer {
    type Service = TenantService<S>;

    fn layer(&self, inner: S) -> TenantService<S> {
        TenantService {
            inner,
            layer: self.clone(),
        }
    }
}

impl fmt::Debug for TenantLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantLayer").finish_non_exhaustive()
    }
}

/// The tenant is the part of the host's name before this domain: `acme` of `acme.example.org`. In any case, with or
/// without a port; names with further dots are none.
pub fn subdomain_of(
    domain: impl Into<String>,
) -> impl Fn(&Parts) -> Option<String> + Send + Sync + 'static {
    let domain = domain.into().to_ascii_lowercase();
    move |head| {
        let host = match head.headers.get(http::header::HOST) {
            Some(host) => host.to_str().ok()?,
            None => head.uri.host()?,
        };
        let host = host.to_ascii_lowercase();
        let host = host.rsplit_once(':').map_or(&*host, |(host, _)| host);
        let tenant = host.strip_suffix(&*domain)?.strip_suffix('.')?;
        (!tenant.contains('.')).then(|| tenant.to_owned())
    }
}

/// The tenant is a segment of the path, counted from zero: `acme` of `/t/acme/orders` is segment 1. Taken as it stands,
/// percent signs included, which no id has.
pub fn path_segment(index: usize) -> impl Fn(&Parts) -> Option<String> + Send + Sync + 'static {
    move |head| {
        let path = head.uri.path();
        let mut segments = path.trim_start_matches('/').split('/');
        segments.nth(index).map(str::to_owned)
    }
}

/// The tenant is a header's value. Trust it only behind a proxy that sets it. Several headers of that name are none.
pub fn header(name: HeaderName) -> impl Fn(&Parts) -> Option<String> + Send + Sync + 'static {
    move |head| {
        let mut values = head.headers.get_all(&name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then(|| value.to_owned())
    }
}

/// A [`SessionLayer`] whose sessions are the tenant's that a [`TenantLayer`] around it has found: read-only ones for
/// `GET`, `HEAD` and the like, on the primary otherwise.
///
/// Without that layer around it there is nothing that a session could be made of, and each fails.
pub fn sessions() -> SessionLayer {
    SessionLayer::choosing(|head| match head.extensions.get::<TenantDatabase>() {
        Some(database) if head.method.is_safe() => database.sessions().read(),
        Some(database) => database.sessions().write(),
        None => nobody(),
    })
}

/// A factory whose sessions all fail.
fn nobody() -> SessionFactory {
    SessionFactory::from_source(Arc::new(Nobody), pool_postgres::SessionOptions::default())
}

struct Nobody;

impl pool_postgres::ConnectionSource for Nobody {
    fn checkout<'a>(&'a self, _: pool_postgres::Checkout<'a>) -> pool_postgres::CheckoutFuture<'a> {
        let why =
            "the request has no tenant: put a TenantLayer around the layer that makes its sessions";
        let error = pool_postgres::Error::new(pool_postgres::ErrorKind::Usage, why);
        Box::pin(std::future::ready(Err(error)))
    }
}

/// A service whose requests have tenants; made by [`TenantLayer`].
#[derive(Clone, Debug)]
pub struct TenantService<S> {
    inner: S,
    layer: TenantLayer,
}

impl<S, B, R> Service<Request<B>> for TenantService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default + Send,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that said that it is ready serves this request; its clone stays for the next.
        let clone = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, clone);
        let TenantLayer { tenants, find } = self.layer.clone();
        let (mut head, body) = request.into_parts();
        let name = find(&head);
        Box::pin(async move {
            let Some(name) = name else {
                return Ok(refuse(StatusCode::BAD_REQUEST, Refused::Unnamed));
            };
            match tenants.for_tenant(&name).await {
                Ok(database) => {
                    head.extensions.insert(database);
                    ready.call(Request::from_parts(head, body)).await
                }
                Err(error) => {
                    let status = StatusCode::from_u16(error.http_status());
                    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    tracing::debug!(%error, %status, "a request's tenant can't be served");
                    Ok(refuse(status, Refused::Tenant(error)))
                }
            }
        })
    }
}

fn refuse<R: Default>(status: StatusCode, why: Refused) -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = status;
    response.extensions_mut().insert(why);
    response
}

/// Why a request was answered by the [`TenantLayer`] itself; in the response's extensions.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Refused {
    /// The request names no tenant.
    Unnamed,
    /// The tenant that it names can't be served.
    Tenant(TenantError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("the request names no tenant"),
            Self::Tenant(error) => fmt::Display::fmt(error, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).expect("a request").into_parts().0
    }

    #[test]
    fn a_tenant_is_found_in_the_host_the_path_or_a_header() {
        let host = subdomain_of("Example.org");
        let named = |host_name| host(&head("/", &[("host", host_name)]));
        assert_eq!(named("acme.example.org").as_deref(), Some("acme"));
        assert_eq!(named("ACME.example.org:8080").as_deref(), Some("acme"));
        for other in [
            "example.org",
            "a.b.example.org",
            "acme.example.com",
            "evilexample.org",
        ] {
            assert_eq!(named(other), None, "{other}");
        }
        assert_eq!(
            host(&head("http://acme.example.org/x", &[])).as_deref(),
            Some("acme")
        );
        let path = path_segment(1);
        assert_eq!(path(&head("/t/acme/orders", &[])).as_deref(), Some("acme"));
        assert_eq!(path(&head("/t", &[])), None);
        let header = header(HeaderName::from_static("x-tenant"));
        assert_eq!(
            header(&head("/", &[("x-tenant", "acme")])).as_deref(),
            Some("acme")
        );
        let two = [("x-tenant", "acme"), ("x-tenant", "beta")];
        assert_eq!(header(&head("/", &two)), None);
    }
}

//! A request's tenant, by tower's services.

use http::{HeaderName, Method, Request, Response, StatusCode};
use pool_postgres::web::RequestSession;
use pool_router::tenancy::web::{Refused, TenantLayer, header, sessions};
use pool_router::tenancy::{OfTenant, Placement, TenantRecord, TenantState};
use tower::{Layer, ServiceExt, service_fn};

use super::{id, items, town};

/// Answers with whose session it has and what that sees; `POST` writes first.
async fn handle(request: Request<String>) -> Result<Response<String>, pool_router::Error> {
    let mut session = RequestSession::from_extensions(request.extensions()).expect("a session");
    let tenant = session.tenant().unwrap_or_default().to_owned();
    if request.method() == Method::POST {
        session
            .execute("INSERT INTO orders (item) VALUES ($1)", &[&tenant])
            .await?;
    }
    Ok(Response::new(format!(
        "{tenant}: {}",
        items(&mut session).await.join(" ")
    )))
}

#[tokio::test]
async fn a_request_has_its_tenants_session_or_an_answer_that_says_why_not() {
    let town = town().await;
    let suspended = TenantRecord::new(Placement::rows("shared")).state(TenantState::Suspended);
    town.map.insert(id("gone"), suspended);
    let moving = TenantRecord::new(Placement::rows("shared")).state(TenantState::Moving);
    town.map.insert(id("going"), moving);
    let layer = TenantLayer::new(
        town.tenants.clone(),
        header(HeaderName::from_static("x-tenant")),
    );
    let service = layer.layer(sessions().layer(service_fn(handle)));
    let ask = |method: Method, tenant: Option<&str>| {
        let mut request = Request::builder().method(method).uri("/");
        if let Some(tenant) = tenant {
            request = request.header("x-tenant", tenant);
        }
        let request = request.body(String::new()).expect("a request");
        let service = service.clone();
        async move { service.oneshot(request).await.expect("an answer") }
    };
    for tenant in super::ALL {
        let posted = ask(Method::POST, Some(tenant)).await;
        assert_eq!(*posted.body(), format!("{tenant}: {tenant}"));
        let seen = ask(Method::GET, Some(tenant)).await;
        assert_eq!(*seen.body(), format!("{tenant}: {tenant}"));
    }
    for (tenant, status) in [
        (None, 400),
        (Some("Acme"), 400),
        (Some("'"), 400),
        (Some("nobody"), 404),
        (Some("gone"), 403),
        (Some("going"), 503),
    ] {
        let answer = ask(Method::GET, tenant).await;
        assert_eq!(
            answer.status(),
            StatusCode::from_u16(status).expect("a status"),
            "{tenant:?}"
        );
        assert!(answer.extensions().get::<Refused>().is_some());
    }
    // Without the layer that finds the tenant there is no session to be had.
    let bare = sessions().layer(service_fn(|request: Request<String>| async move {
        let mut session = RequestSession::from_extensions(request.extensions()).expect("a session");
        session
            .query("SELECT 1", &[])
            .await
            .map(|_| Response::new(String::new()))
    }));
    let error = bare
        .oneshot(Request::new(String::new()))
        .await
        .expect_err("no tenant");
    assert!(error.to_string().contains("TenantLayer"), "{error}");
    town.tenants.shutdown().await;
}

//! The request's session as an extractor of axum's.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use super::slot::{NoSession, RequestSession};

impl<S: Sync> FromRequestParts<S> for RequestSession {
    type Rejection = NoSession;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, NoSession> {
        Self::from_extensions(&head.extensions)
    }
}

/// 500: it is never the client's fault. The reason goes to the log.
impl IntoResponse for NoSession {
    fn into_response(self) -> Response {
        tracing::error!(error = %self, "a handler got no session");
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

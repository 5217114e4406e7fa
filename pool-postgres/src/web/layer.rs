//! The layer: a session for each request, and the end of its transaction.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode, request, response};
use tower_layer::Layer;
use tower_service::Service;

use super::slot::{Place, Slot};
use crate::committed::Committed;
use crate::error::{Error, ErrorKind};
use crate::factory::SessionFactory;

type Choose = dyn Fn(&request::Parts) -> SessionFactory + Send + Sync;
type Note = dyn Fn(&Committed, &mut response::Parts) + Send + Sync;

/// Gives each request a session and ends its transaction before the response is sent; see the
/// [module](super) for what becomes of it when.
///
/// ```no_run
/// # fn main() -> Result<(), pool_postgres::Error> {
/// use pool_postgres::web::SessionLayer;
/// use pool_postgres::{Engine, SessionFactory};
///
/// let engine = Engine::builder("postgresql://localhost/shop").build()?;
/// let layer = SessionLayer::new(SessionFactory::new(engine));
/// // With axum: Router::new().route(…).layer(layer)
/// # let _ = layer; Ok(()) }
/// ```
#[derive(Clone)]
pub struct SessionLayer {
    choose: Arc<Choose>,
    note: Arc<Note>,
}

impl SessionLayer {
    /// A layer whose sessions all come from this factory.
    pub fn new(sessions: impl Into<SessionFactory>) -> Self {
        let sessions = sessions.into();
        Self::choosing(move |_| sessions.clone())
    }

    /// A layer that chooses a factory for each request by its head: read-only for `GET`, a tenant's, one that reads
    /// what an earlier request wrote.
    ///
    /// ```no_run
    /// # fn example(sessions: pool_postgres::SessionFactory) -> pool_postgres::web::SessionLayer {
    /// let reads = sessions.read_only();
    /// pool_postgres::web::SessionLayer::choosing(move |request| {
    ///     if request.method.is_safe() { reads.clone() } else { sessions.clone() }
    /// })
    /// # }
    /// ```
    pub fn choosing(
        choose: impl Fn(&request::Parts) -> SessionFactory + Send + Sync + 'static,
    ) -> Self {
        Self {
            choose: Arc::new(choose),
            note: Arc::new(|_, _| {}),
        }
    }

    /// Has `note` change the head of a response after its request's commit: to hand out the commit's token, say. Not
    /// called where nothing was begun.
    pub fn on_commit(
        mut self,
        note: impl Fn(&Committed, &mut response::Parts) + Send + Sync + 'static,
    ) -> Self {
        self.note = Arc::new(note);
        self
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> SessionService<S> {
        SessionService {
            inner,
            layer: self.clone(),
        }
    }
}

impl fmt::Debug for SessionLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer").finish_non_exhaustive()
    }
}

/// A service whose requests have sessions; made by [`SessionLayer`].
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
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
        let SessionLayer { choose, note } = self.layer.clone();
        let (mut head, body) = request.into_parts();
        let slot = Slot::new(choose(&head).session());
        head.extensions.insert(slot.clone());
        Box::pin(async move {
            let answer = ready.call(Request::from_parts(head, body)).await;
            finish(&slot, answer, &*note).await
        })
    }
}

/// Ends a request's transaction by what it was answered with.
async fn finish<R: Default, E>(
    slot: &Slot,
    answer: Result<Response<R>, E>,
    note: &Note,
) -> Result<Response<R>, E> {
    let good = answer.as_ref().is_ok_and(|response| {
        let status = response.status();
        !(status.is_client_error() || status.is_server_error())
    });
    let mut session = match slot.end() {
        Place::Kept(session) if session.in_transaction() => session,
        Place::Lent if good => {
            return Ok(failed(Error::new(
                ErrorKind::Usage,
                "the handler has answered, and its RequestSession is still in use (in the body, or in a task): take \
                 the session out with into_session",
            )));
        }
        Place::Kept(_) | Place::Gone | Place::Lent => return answer,
    };
    if !good {
        // Fails only inside a savepoint that was leaked; the drop rolls back all the same.
        let _ = session.rollback().await;
        return answer;
    }
    let committed = session.commit().await;
    match (answer, committed) {
        (Ok(response), Ok(committed)) => {
            let (mut head, body) = response.into_parts();
            note(&committed, &mut head);
            Ok(Response::from_parts(head, body))
        }
        (Ok(_), Err(error)) => Ok(failed(error)),
        (error, _) => error,
    }
}

/// What a client gets instead of an answer whose commit failed.
fn failed<R: Default>(error: Error) -> Response<R> {
    let again = error.is_retryable();
    tracing::error!(%error, "a request was answered, and its transaction could not be committed");
    let mut response = Response::new(R::default());
    *response.status_mut() = if again {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    response.extensions_mut().insert(CommitFailed(error));
    response
}

/// Why a response is not what the handler answered; in the extensions of the layer's 503 or 500, for a middleware
/// around it that gives errors their form.
#[derive(Clone, Debug)]
pub struct CommitFailed(pub Error);

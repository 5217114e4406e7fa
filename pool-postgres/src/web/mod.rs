//! Sessions in web services: one transaction for each request, committed before the response is sent.
//!
//! [`SessionLayer`] wraps a service: it makes a session for each request, which a handler takes as
//! [`RequestSession`], and ends the transaction by what the handler answers.
//!
//! | the handler | the transaction | the client gets |
//! |---|---|---|
//! | answers below 400 | is committed | the answer, once the commit is known to have succeeded |
//! | answers so, and the commit fails | is rolled back, or its outcome is unknown | 503 where trying again may help, else 500; the [`CommitFailed`] is in the response's extensions |
//! | answers 4xx or 5xx | is rolled back | the answer |
//! | panics | is rolled back | what the server makes of a panic |
//! | is dropped, because the client has left | is rolled back, unless `COMMIT` was sent already | nothing |
//!
//! The session borrows a connection with its first statement, so a request that asks nothing costs none. A handler may
//! end the transaction by itself: what it has committed stays committed whatever it answers (a counter of failed
//! logins, say).
//!
//! # When the client leaves
//! A server drops the handler at its current await. What it had done in its transaction is undone, what it
//! waits for on the database is cancelled. For a write that must be carried through once begun, spawn a task that has
//! a session of its own (`tokio::spawn(sessions.begin(…))`, see
//! [`SessionFactory::begin`](crate::SessionFactory::begin)) and await its handle: dropping the handle does not stop the
//! task.
//!
//! # Streamed bodies
//! A body is sent after the handler has answered, and so after the commit. Rows that are to go into a body as they arrive
//! need a session that outlives the handler: [`RequestSession::into_session`] takes it out of the layer's hands,
//! and [`Session::into_stream`](crate::Session::into_stream) gives a stream that owns it. Such a session should only
//! read; it ends with the stream. A handler that leaves its [`RequestSession`] in the body instead is answered with
//! 500: the layer could neither commit nor roll back.
//!
//! # Shutting down
//! Stop accepting, let requests finish, then [`Engine::close`](crate::Engine::close), each with a deadline; the example
//! `axum_service` does so.

#[cfg(feature = "axum")]
mod extract;
mod layer;
mod slot;

pub use layer::{CommitFailed, SessionLayer, SessionService};
pub use slot::{NoSession, RequestSession};

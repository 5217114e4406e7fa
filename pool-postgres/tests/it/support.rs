//! What the tests share: engines on databases of their own, waiting for events, polling and dropping.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pool_postgres::{
    Checkout, CheckoutFuture, ConnectionSource, Engine, EngineBuilder, Error, Guard, GuardRows,
    Session, SessionFactory, SessionOptions,
};
use testbed::TestDatabase;
use tokio::time::Instant;

/// How long an event may take before a test gives up on it.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A database of the test's own, with a table `t (n bigint)`.
pub(crate) async fn database() -> TestDatabase {
    let database = testbed::shared().await.database().await;
    one_connection(&database)
        .execute("CREATE TABLE t (n bigint)", &[])
        .await
        .expect("a table");
    database
}

/// Settings that fail quickly.
pub(crate) fn builder(url: &str) -> EngineBuilder {
    Engine::builder(url).pool_timeout(SOON)
}

/// An engine whose pool has room for one connection.
pub(crate) fn one_connection(database: &TestDatabase) -> Engine {
    builder(&database.url())
        .pool_size(1)
        .max_overflow(0)
        .build()
        .expect("good settings")
}

/// Sessions on a pool with room for one connection.
pub(crate) fn sessions(database: &TestDatabase) -> (Engine, SessionFactory) {
    let engine = one_connection(database);
    (engine.clone(), SessionFactory::new(engine))
}

/// How many rows the table `t` has.
pub(crate) async fn count(engine: &Engine) -> i64 {
    engine
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .expect("a count")
        .get(0)
}

/// The server process behind a session.
pub(crate) async fn pid(session: &mut Session) -> i32 {
    session
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .expect("a pid")
        .get(0)
}

/// Waits until a condition on the server holds.
///
/// # Panics
/// If it does not within [`SOON`].
pub(crate) async fn until(engine: &Engine, condition: &str) {
    let deadline = Instant::now() + SOON;
    let sql = format!("SELECT coalesce(({condition}), false)");
    while !engine
        .query_one(&sql, &[])
        .await
        .expect("a condition")
        .get::<_, bool>(0)
    {
        assert!(Instant::now() < deadline, "never came true: {condition}");
        tokio::task::yield_now().await;
    }
}

/// Polls a future at most `polls` times, then drops it.
pub(crate) async fn poll_then_drop<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Asserts that whoever borrows the engine's one connection next finds no transaction on it and does not
/// wait for what others left behind.
pub(crate) async fn assert_next_borrower_is_at_ease(engine: &Engine, after: &str) {
    let next = async {
        let connection = engine
            .connect()
            .await
            .unwrap_or_else(|error| panic!("{after}: {error}"));
        let refused = connection
            .client()
            .batch_execute("SAVEPOINT inside")
            .await
            .expect_err("a savepoint outside a transaction is refused");
        let code = refused.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("25P01"), "{after}: {refused}");
    };
    tokio::time::timeout(SOON, next)
        .await
        .unwrap_or_else(|_| panic!("{after}: the borrower waits"));
}

type MakeGuard = Box<dyn Fn(&Checkout<'_>) -> Option<Guard> + Send + Sync>;

/// A source that lends an engine's connections with tokens and guards.
pub(crate) struct Lending {
    engine: Engine,
    system: Option<u64>,
    guard: MakeGuard,
}

impl Lending {
    pub(crate) fn with_tokens(engine: Engine, system: u64) -> SessionFactory {
        let source = Self {
            engine,
            system: Some(system),
            guard: Box::new(|_| None),
        };
        SessionFactory::from_source(Arc::new(source), SessionOptions::default())
    }

    /// `verify` is asked with the number of attempts before and the rows of `sql`.
    pub(crate) fn guarded(
        engine: Engine,
        sql: &'static str,
        verify: impl Fn(u32, &GuardRows) -> Result<(), Error> + Send + Sync + 'static,
    ) -> SessionFactory {
        let verify = Arc::new(verify);
        let guard: MakeGuard = Box::new(move |request| {
            let (verify, attempt) = (Arc::clone(&verify), request.attempt);
            Some(Guard::new(sql, move |rows| verify(attempt, rows)))
        });
        SessionFactory::from_source(
            Arc::new(Self {
                engine,
                system: None,
                guard,
            }),
            SessionOptions::default(),
        )
    }
}

impl ConnectionSource for Lending {
    fn checkout<'a>(&'a self, request: Checkout<'a>) -> CheckoutFuture<'a> {
        Box::pin(async move {
            let mut lease = self.engine.checkout(request).await?;
            if let Some(guard) = (self.guard)(&request) {
                lease = lease.with_guard(guard);
            }
            Ok(match self.system {
                Some(system) => lease.with_token(system),
                None => lease,
            })
        })
    }
}

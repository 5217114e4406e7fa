//! The wait for a connection: how long, and who is named.

use std::time::Duration;

use pool_postgres::{Error, ErrorKind, SessionFactory};

use crate::support::{builder, database};

#[tokio::test]
async fn a_session_inside_a_session_on_a_pool_of_one_times_out_naming_the_holders_line() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(1)
        .max_overflow(0)
        .pool_timeout(Duration::from_millis(50))
        .build()
        .expect("good settings");
    let sessions = SessionFactory::new(engine.clone());
    let inner = sessions.clone();
    let line = line!() + 4;
    let error = sessions
        .begin::<Error, ()>(async |s| {
            // The transaction holds the pool's only connection from here on.
            s.execute("INSERT INTO t VALUES (1)", &[]).await?;
            inner.session().query("SELECT 1", &[]).await?;
            Ok(())
        })
        .await
        .expect_err("nobody will return the connection");
    assert_eq!(error.kind(), ErrorKind::PoolTimeout);
    let text = chain(&error);
    assert!(text.contains(&format!("place.rs:{line}")), "{text}");
    assert!(text.contains("1 of 1 in use"), "{text}");

    // Single statements and bare connections name their callers too.
    let line = line!() + 1;
    let held = engine.connect().await.expect("a connection");
    let text = chain(
        &engine
            .execute("SELECT 1", &[])
            .await
            .expect_err("it is held"),
    );
    assert!(text.contains(&format!("place.rs:{line}")), "{text}");
    drop(held);
}

#[tokio::test]
async fn a_pool_timeout_of_zero_fails_at_once_and_never_refuses_an_idle_connection() {
    let db = database().await;
    let engine = builder(&db.url())
        .pool_size(1)
        .max_overflow(0)
        .pool_timeout(Duration::ZERO)
        .build()
        .expect("good settings");
    let sessions = SessionFactory::new(engine.clone());
    let mut holder = sessions.session();
    holder
        .query("SELECT 1", &[])
        .await
        .expect("there is room to open one");
    let error = engine
        .query("SELECT 1", &[])
        .await
        .expect_err("none is idle");
    assert_eq!(error.kind(), ErrorKind::PoolTimeout);
    assert!(error.is_retryable());
    let _ = holder.commit().await.expect("committed");
    engine.query("SELECT 1", &[]).await.expect("it is idle");
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

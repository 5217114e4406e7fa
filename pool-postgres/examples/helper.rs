//! One helper, taking `&mut Session`, serves a request and a savepoint alike.
//!
//! `cargo run --example helper -- postgresql://user:pass@localhost/db`

use pool_postgres::{Engine, Error, Session, SessionFactory};

/// Does not care who ends the transaction, nor whether it is a savepoint.
async fn add_tag(s: &mut Session, tag: &str) -> Result<(), Error> {
    s.execute("INSERT INTO tags (name) VALUES ($1)", &[&tag])
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let engine = Engine::builder(url).build()?;
    engine
        .execute(
            "CREATE TABLE IF NOT EXISTS tags (name text PRIMARY KEY)",
            &[],
        )
        .await?;
    let sessions = SessionFactory::new(engine.clone());

    // A request: the session is the helper's.
    let mut session = sessions.session();
    add_tag(&mut session, &format!("first-{}", std::process::id())).await?;

    // A savepoint: a tag that is there already costs only itself.
    let twice = session
        .nested::<Error, _>(async |s| {
            add_tag(s, "everywhere").await?;
            add_tag(s, "everywhere").await
        })
        .await;
    println!(
        "the second of the same name: {}",
        twice.expect_err("names are unique")
    );

    // The same with a guard, where the outcome is decided step by step.
    let mut attempt = session.begin_nested();
    match add_tag(&mut attempt, "everywhere").await {
        Ok(()) => attempt.commit().await?,
        Err(_) => attempt.rollback().await?,
    }
    let _ = session.commit().await?;

    engine.close().await;
    Ok(())
}

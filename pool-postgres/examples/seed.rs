//! SQLAlchemy's way of working in one program: an engine created once, a factory of sessions, a session for each
//! request. `docs/coming-to-postgres.md` holds it against the original line by line.
//!
//! `cargo run -p pool-postgres --example seed -- postgresql://user:pass@localhost/db`

use std::time::Duration;

use pool_postgres::{Engine, Error, Session, SessionFactory, row_struct};

row_struct! {
    /// A row of `users`.
    #[derive(Debug)]
    struct User {
        id: i64,
        name: String,
    }
}

/// One request's work, on whatever session it is given.
async fn rename(session: &mut Session, id: i64, name: &str) -> Result<bool, Error> {
    let sql = "UPDATE users SET name = $2 WHERE id = $1";
    Ok(session.execute(sql, &[&id, &name]).await? == 1)
}

/// One request: a session of its own, which borrows a connection from its first statement to its commit.
async fn handle(sessions: &SessionFactory, name: &str) -> Result<Vec<User>, Error> {
    let mut session = sessions.session();
    let sql = "INSERT INTO users (name) VALUES ($1) RETURNING id";
    let id: i64 = session.query_scalar(sql, &[&name]).await?;
    rename(&mut session, id, &name.to_uppercase()).await?;
    let _committed = session.commit().await?;
    session
        .query_as("SELECT id, name FROM users ORDER BY id", &[])
        .await
    // Dropped: what was begun is rolled back, and the connection is back in the pool.
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1);
    let engine = Engine::builder(url.as_deref().unwrap_or("postgresql:///postgres"))
        .pool_size(5)
        .max_overflow(10)
        .pool_timeout(Duration::from_secs(30))
        .recycle(Duration::from_mins(30))
        .build()?;
    let table = "CREATE TABLE IF NOT EXISTS users (id bigserial PRIMARY KEY, name text NOT NULL)";
    engine.execute(table, &[]).await?;

    let sessions = SessionFactory::new(engine.clone());
    for user in handle(&sessions, "Ada").await? {
        println!("{user:?}");
    }
    sessions
        .begin::<Error, _>(async |s| {
            s.execute("DELETE FROM users WHERE name = $1", &[&"ADA"])
                .await
        })
        .await?;
    println!("{}", engine.status());
    engine.close().await;
    Ok(())
}

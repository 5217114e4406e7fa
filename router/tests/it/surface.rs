//! How the handles behave in people's programs.

use pool_router::{Database, Error, Session, SessionFactory};

use crate::support::{note, notes, routed};

fn is_shared_freely<T: Clone + Send + Sync + 'static>() {}
fn moves_freely<T: Send + 'static>() {}

#[test]
fn a_database_is_cloned_and_shared_freely() {
    is_shared_freely::<Database>();
    is_shared_freely::<SessionFactory>();
    moves_freely::<Session>();
}

/// Knows nothing of routes.
async fn add(sessions: &SessionFactory, body: &str) -> Result<i64, Error> {
    sessions
        .begin::<Error, _>(async |s| {
            s.execute("INSERT INTO notes VALUES ($1)", &[&body]).await?;
            Ok(s.query_one("SELECT count(*) FROM notes", &[]).await?.get(0))
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn code_for_one_database_runs_on_a_routed_one() {
    let (_cluster, db) = routed(1).await;
    assert_eq!(
        add(&db.sessions().write(), "first").await.expect("added"),
        1
    );
    let refused = add(&db.sessions().read(), "second")
        .await
        .expect_err("read-only");
    assert_eq!(refused.kind(), pool_router::ErrorKind::ReadOnly);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_read_their_own_writes() {
    let (_cluster, db) = routed(2).await;
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let db = db.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let body = format!("{task} {round}");
                    let token = note(&db, &body).await.token;
                    assert_eq!(notes(&mut db.read_after(&token), &body).await, 1);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("every write is seen");
    }
}

//! A replica becomes the primary while the old one goes on.

use pool_router::{CommitToken, Consistency, Database, ErrorKind, RouteError, TokenRefusal};

use crate::support::{note, notes, notes_on, routed, server, wait_for_status};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_promotion_the_lower_timeline_gets_neither_reads_nor_writes() {
    let (cluster, db) = routed(1).await;
    let (old, new) = (cluster.primary(), cluster.replica(0));
    let before = note(&db, "before").await.token.expect("a token");
    new.wait_until_caught_up(old).await.expect("caught up");
    db.health().await; // The monitor has seen it replayed.

    assert!(db.status().nodes[0].pool.idle > 0);
    new.promote().await.expect("promoted");
    wait_for_status(&db, "the primary is another", |status| {
        status.primary == Some(1)
    })
    .await;
    wait_for_status(&db, "no connection to the old primary is kept", |status| {
        status.nodes[0].pool.idle == 0
    })
    .await;
    let after = note(&db, "after").await.token.expect("a token");
    assert_eq!(after.timeline, before.timeline + 1);
    assert_eq!(notes_on(new, "after").await, "1");
    assert_eq!(notes_on(old, "after").await, "0");
    let sessions = [
        db.read(),
        db.read_after(&after),
        db.read_with(Consistency::Eventual),
        db.read_after(&before),
    ];
    for mut session in sessions {
        assert_eq!(server(&mut session).await, new.port());
        assert_eq!(notes(&mut session, "before").await, 1);
    }

    // What the old primary took beyond the fork may be lost; nobody can tell by its token.
    let lost = CommitToken {
        position: after.position + (1 << 20),
        ..before
    };
    let error = db
        .read_after(&lost)
        .query("SELECT 1", &[])
        .await
        .expect_err("refused");
    let cause = RouteError::behind(&error).expect("a routing error");
    let told = TokenRefusal::CannotTell {
        token: before.timeline,
        ours: Some(after.timeline),
    };
    assert_eq!(cause.to_string(), told.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_history_may_be_read_a_token_holds_up_to_the_fork_itself() {
    let (cluster, db) = routed(1).await;
    let (old, new) = (cluster.primary(), cluster.replica(0));
    let granted = "GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO app";
    old.sql(granted).await.expect("granted");
    // The monitor of the replica sees nothing of this write before the promotion: it is looked at later.
    let token = note(&db, "just before").await.token.expect("a token");
    new.wait_until_caught_up(old).await.expect("caught up");
    new.promote().await.expect("promoted");
    wait_for_status(&db, "the primary is another", |status| {
        status.primary == Some(1)
    })
    .await;
    let mut session = db.read_after(&token);
    assert_eq!(server(&mut session).await, new.port());
    assert_eq!(notes(&mut session, "just before").await, 1);

    // Beyond the fork a token says that its write is lost; so it does to a service that starts only now.
    let position = token.position + (1 << 20);
    let beyond = CommitToken { position, ..token };
    let later = Database::builder()
        .nodes([old.url(), new.url()])
        .connect()
        .await
        .expect("a database");
    for db in [&db, &later] {
        wait_for_status(db, "the primary is known", |status| {
            status.timeline == Some(token.timeline + 1)
        })
        .await;
        let refused = db.read_after(&beyond).query("SELECT 1", &[]).await;
        let error = refused.expect_err("lost");
        assert_eq!(error.kind(), ErrorKind::Token);
        let cause = RouteError::behind(&error).expect("a routing error");
        let text = cause.to_string();
        assert!(text.contains("was lost in a failover"), "{text}");
    }
}

//! Listeners: what they hear, and what they say of what they may have missed.

use std::time::Duration;

use pool_postgres::{Engine, ErrorKind, ListenEvent, Listener, Missed};
use tokio::time::timeout;

use crate::support::{SOON, database, one_connection, until};

async fn event(listener: &mut Listener) -> ListenEvent {
    let event = timeout(SOON, listener.next()).await.expect("heard nothing");
    event.expect("the listener ended").expect("no error")
}

async fn heard(listener: &mut Listener) -> (String, String) {
    match event(listener).await {
        ListenEvent::Notification(n) => (n.channel, n.payload),
        other => panic!("{other:?}"),
    }
}

async fn notify(engine: &Engine, channel: &str, payload: &str) {
    engine
        .execute("SELECT pg_notify($1, $2)", &[&channel, &payload])
        .await
        .expect("notified");
}

#[tokio::test]
async fn a_listener_hears_its_channels_in_order_and_no_others() {
    let db = database().await;
    let engine = one_connection(&db);
    let odd = "Odd \"name\"; é";
    let mut listener = engine.listen(&["prices", odd]).await.expect("listening");
    notify(&engine, "others", "not for us").await;
    notify(&engine, "prices", "1").await;
    notify(&engine, odd, "").await;
    notify(&engine, "prices", "2").await;
    for expected in [("prices", "1"), (odd, ""), ("prices", "2")] {
        let (channel, payload) = heard(&mut listener).await;
        assert_eq!((&*channel, &*payload), expected);
    }
}

#[tokio::test]
async fn a_listener_takes_no_slot_and_is_shown_beside_the_pool() {
    let db = database().await;
    let engine = one_connection(&db);
    let listener = engine.listen(&["prices"]).await.expect("listening");
    assert_eq!((engine.status().open, engine.listeners()), (0, 1));
    engine.ping().await.expect("the only slot is free");
    drop(listener);
    let waiting = async {
        while engine.listeners() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, waiting).await.expect("it is still kept");
}

#[tokio::test]
async fn a_listener_whose_connection_breaks_says_so_and_hears_again() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut listener = engine.listen(&["prices"]).await.expect("listening");
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'
                AND datname = current_database()";
    assert_eq!(engine.query(kill, &[]).await.expect("killed").len(), 1);
    let missed = event(&mut listener).await;
    assert_eq!(missed, ListenEvent::MayHaveMissed(Missed::Reconnected));
    notify(&engine, "prices", "after").await;
    assert_eq!(heard(&mut listener).await.1, "after");
}

#[tokio::test]
async fn a_reader_too_far_behind_is_told_that_something_was_lost() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut listener = engine.listen(&["prices"]).await.expect("listening");
    let many = "SELECT pg_notify('prices', n::text) FROM generate_series(1, 6000) n";
    engine.execute(many, &[]).await.expect("notified");
    // The server has nothing more for it once it is idle and a later notification has been delivered.
    let mut told = false;
    let mut last = String::new();
    notify(&engine, "prices", "after").await;
    let mut read = 0;
    while last != "after" && read < 6001 {
        match timeout(SOON, listener.next()).await.expect("heard nothing") {
            Some(Ok(ListenEvent::Notification(n))) => last = n.payload,
            Some(Ok(ListenEvent::MayHaveMissed(why))) => {
                assert_eq!(why, Missed::TooSlow);
                told = true;
                // Whoever looks now sees all; what comes later is heard.
                notify(&engine, "prices", "after").await;
            }
            other => panic!("{other:?}"),
        }
        read += 1;
    }
    assert!(told, "{read} events, and no word of a loss");
}

#[tokio::test]
async fn a_listener_ends_with_its_engine() {
    let db = database().await;
    let engine = one_connection(&db);
    let mut listener = engine.listen(&["prices"]).await.expect("listening");
    engine.close().await;
    let end = timeout(SOON, listener.next()).await.expect("no end");
    assert!(end.is_none(), "{end:?}");
    let error = engine.listen(&["prices"]).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::PoolClosed);
}

#[tokio::test]
async fn a_listener_that_can_never_connect_again_ends_with_the_reason() {
    let db = database().await;
    let admin = pool_postgres::Engine::builder(db.superuser_url())
        .build()
        .expect("good settings");
    let engine = one_connection(&db);
    for sql in [
        "DROP ROLE IF EXISTS ears",
        "CREATE ROLE ears LOGIN PASSWORD 'x'",
    ] {
        admin.execute(sql, &[]).await.expect("a role");
    }
    let url = db.url();
    let (_, place) = url.split_once('@').expect("a user and a place");
    let url = format!("postgresql://ears:x@{place}");
    let other = pool_postgres::Engine::builder(&url)
        .build()
        .expect("good settings");
    let mut listener = other.listen(&["prices"]).await.expect("listening");
    admin
        .execute("ALTER ROLE ears NOLOGIN", &[])
        .await
        .expect("shut out");
    admin
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'ears'",
            &[],
        )
        .await
        .expect("killed");
    let end = timeout(SOON, listener.next()).await.expect("no end");
    let error = end.expect("the reason").expect_err("it was shut out");
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(listener.next().await.is_none());
    until(
        &engine,
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'ears'",
    )
    .await;
    admin.execute("DROP ROLE ears", &[]).await.expect("gone");
}

#[tokio::test]
async fn names_that_no_channel_has_are_refused() {
    let db = database().await;
    let engine = one_connection(&db);
    let long = "x".repeat(64);
    for channels in [&[][..], &[""], &["a\0b"], &[&*long]] {
        let error = engine.listen(channels).await.expect_err("no name");
        assert_eq!(error.kind(), ErrorKind::Usage, "{channels:?}");
    }
    assert_eq!(engine.listeners(), 0);
}

#[tokio::test]
async fn listening_can_be_given_up_half_way() {
    let db = database().await;
    let engine = one_connection(&db);
    let late = timeout(Duration::ZERO, engine.listen(&["prices"])).await;
    assert!(late.is_err(), "it was not even begun");
    assert_eq!(engine.listeners(), 0);
}

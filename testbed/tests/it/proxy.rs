//! The proxy's levers.

use std::time::{Duration, Instant};

use testbed::{Proxy, Side};
use tokio_postgres::{Client, NoTls};

async fn proxy() -> Proxy {
    testbed::shared()
        .await
        .cluster()
        .primary()
        .proxy()
        .await
        .expect("a proxy")
}

async fn connect(proxy: &Proxy) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&proxy.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::test]
async fn a_delay_is_added_in_both_directions() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.set_delay(Duration::from_millis(40));
    let began = Instant::now();
    client.simple_query("SELECT 1").await.unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(80),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn pipelined_statements_are_one_round_trip() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.set_delay(Duration::from_millis(20));
    let before = proxy.round_trips();
    let (one, two) = tokio::join!(
        client.simple_query("SELECT 1"),
        client.simple_query("SELECT 2")
    );
    one.and(two).unwrap();
    assert_eq!(proxy.round_trips() - before, 1);
    client.simple_query("SELECT 1").await.unwrap();
    client.simple_query("SELECT 2").await.unwrap();
    assert_eq!(proxy.round_trips() - before, 3);
}

#[tokio::test]
async fn cut_closes_what_is_open_and_nothing_that_comes_later() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    assert_eq!(proxy.connections(), 1);
    proxy.cut();
    client
        .simple_query("SELECT 1")
        .await
        .expect_err("its connection was cut");
    let next = connect(&proxy).await.expect("a new connection");
    next.simple_query("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn refusing_closes_the_port_and_opens_it_again() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.refuse(true);
    proxy.refuse(true);
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    client
        .simple_query("SELECT 1")
        .await
        .expect("what is open stays");
    proxy.refuse(false);
    connect(&proxy).await.expect("a new connection");
}

#[tokio::test]
async fn a_black_hole_accepts_and_answers_only_when_it_ends() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.black_hole(true);
    let soon = Duration::from_millis(200);
    let answer = client.simple_query("SELECT 1");
    let newcomer = connect(&proxy);
    tokio::pin!(answer, newcomer);
    assert!(
        tokio::time::timeout(soon, &mut answer).await.is_err(),
        "no answer may come"
    );
    assert!(
        tokio::time::timeout(soon, &mut newcomer).await.is_err(),
        "no greeting may come"
    );
    proxy.black_hole(false);
    answer.await.expect("the held statement goes on");
    newcomer.await.expect("the held connection goes on");
}

#[tokio::test]
async fn throttling_spreads_an_answer_over_time() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.throttle(Some(50_000));
    let began = Instant::now();
    client
        .query_one("SELECT repeat('x', 20000)", &[])
        .await
        .unwrap();
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn split_bytes_change_nothing_for_a_sound_client() {
    let proxy = proxy().await;
    proxy.split_bytes(true);
    let client = connect(&proxy).await.unwrap();
    let row = client
        .query_one("SELECT repeat('x', 3000)", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, String>(0).len(), 3000);
}

#[tokio::test]
async fn cut_after_breaks_an_answer_in_its_middle() {
    let proxy = proxy().await;
    let client = connect(&proxy).await.unwrap();
    proxy.cut_after(Side::Server, 1000);
    let cut = client.query_one("SELECT repeat('x', 20000)", &[]).await;
    cut.expect_err("the answer ends after 1000 bytes");
    connect(&proxy).await.expect("it happens once");
}

#[tokio::test]
async fn cut_after_can_keep_a_statement_from_the_server() {
    let proxy = proxy().await;
    let database = testbed::shared().await.database().await;
    database
        .node()
        .sql("CREATE TABLE IF NOT EXISTS cut_statement (n int)")
        .await
        .unwrap();
    let client = connect(&proxy).await.unwrap();
    proxy.cut_after(Side::Client, 5);
    let cut = client
        .simple_query("INSERT INTO cut_statement VALUES (1)")
        .await;
    cut.expect_err("only 5 bytes of it reach the server");
    let rows = database
        .node()
        .sql("SELECT n FROM cut_statement")
        .await
        .unwrap();
    assert!(rows.is_empty());
}

//! The process's shared cluster.

use testbed::TestDatabase;

/// The first value of the first row.
pub(crate) fn text(rows: &[Vec<Option<String>>]) -> String {
    rows[0][0].clone().expect("a value")
}

async fn count_of(database: &TestDatabase, name: &str) -> String {
    let question = format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'");
    text(&database.node().sql(&question).await.unwrap())
}

#[tokio::test]
async fn databases_are_apart_and_go_with_their_value() {
    let shared = testbed::shared().await;
    let (one, other) = tokio::join!(shared.database(), shared.database());
    assert_ne!(one.name(), other.name());
    let (client, connection) = tokio_postgres::connect(&one.url(), tokio_postgres::NoTls)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    client
        .batch_execute("CREATE TABLE t (n int)")
        .await
        .unwrap();
    let name = one.name().to_owned();
    drop(one); // While a client is connected to it.
    while count_of(&other, &name).await != "0" {
        tokio::task::yield_now().await;
    }
}

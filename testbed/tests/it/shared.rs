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

#[tokio::test]
async fn databases_of_one_template_are_copies_that_know_nothing_of_each_other() {
    const TEMPLATE: &str = "
        CREATE TABLE t (n int);
        INSERT INTO t VALUES (1), (2);
        RESET ROLE;
        CREATE TABLE by_superuser (n int)";
    let (one, other) = tokio::join!(testbed::database(TEMPLATE), testbed::database(TEMPLATE));
    let empty = testbed::database("").await;
    let mut clients = Vec::new();
    for database in [&one, &other, &empty] {
        let (client, connection) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        clients.push(client);
    }
    clients[0]
        .batch_execute("DELETE FROM t")
        .await
        .expect("its own");
    let count = "SELECT count(*) FROM t";
    for (client, expected) in clients.iter().zip([0_i64, 2]) {
        let row = client.query_one(count, &[]).await.expect("a count");
        assert_eq!(row.get::<_, i64>(0), expected);
        let owners = "SELECT string_agg(tableowner, ' ' ORDER BY tablename) FROM pg_tables \
                      WHERE tablename IN ('by_superuser', 't')";
        let row = client.query_one(owners, &[]).await.expect("owners");
        assert_eq!(row.get::<_, String>(0), "postgres app");
    }
    clients[2]
        .batch_execute(count)
        .await
        .expect_err("another template");
}

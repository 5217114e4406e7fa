//! Rows as tuples, structs and single values, and parameters gathered at run time.

use std::fmt::Write as _;

use pool_postgres::{ErrorKind, Outcome, Params, from_row, row_struct};

use crate::support::{database, one_connection, sessions};

row_struct! {
    /// As a row of VALUES below.
    #[derive(Clone, Debug, PartialEq)]
    pub struct Person {
        pub id: i64,
        pub name: String,
        /// Not everybody has one.
        pub email: Option<String>,
    }
}

#[derive(Debug, PartialEq)]
struct Order {
    id: i64,
    kind: String,
    r#match: bool,
}

from_row!(Order { id, kind = "type", r#match });

const PEOPLE: &str = "SELECT * FROM (VALUES ('ada@x', 1::bigint, 'Ada', 0), (NULL, 2, 'Bob', 0)) \
                      AS people (email, id, name, unused)";

#[tokio::test]
async fn rows_are_read_as_structs_by_column_name_in_any_order() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let people: Vec<Person> = engine.query_as(PEOPLE, &[]).await.expect("they fit");
    assert_eq!(people.len(), 2);
    assert_eq!((people[0].id, &*people[0].name), (1, "Ada"));
    assert_eq!(people[0].email.as_deref(), Some("ada@x"));
    assert_eq!(people[1].email, None);
    let mut session = sessions.session();
    let order = session
        .query_one_as::<Order>("SELECT true AS match, 7::bigint AS id, 'gift' AS type", &[])
        .await
        .expect("it fits");
    let expected = Order {
        id: 7,
        kind: "gift".to_owned(),
        r#match: true,
    };
    assert_eq!(order, expected);
    let none = session
        .query_opt_as::<Person>("SELECT 1 WHERE false", &[])
        .await
        .expect("no row");
    assert_eq!(none, None);
}

#[tokio::test]
async fn rows_are_read_as_tuples_by_position_and_single_values_as_they_are() {
    let db = database().await;
    let (engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let sql = "SELECT n, repeat('x', n), nullif(n, 2) FROM generate_series(1, 2) AS n";
    let rows: Vec<(i32, String, Option<i32>)> = session.query_as(sql, &[]).await.expect("fit");
    assert_eq!(rows[0], (1, "x".to_owned(), Some(1)));
    assert_eq!(rows[1], (2, "xx".to_owned(), None));
    let count: i64 = session
        .query_scalar(
            "SELECT count(*) FROM t WHERE n = ANY($1)",
            &[&vec![1_i64, 2]],
        )
        .await
        .expect("a count");
    assert_eq!(count, 0);
    drop(session);
    let none: Option<String> = engine
        .query_scalar("SELECT NULL::text", &[])
        .await
        .expect("NULL fits an Option");
    assert_eq!(none, None);
    assert_eq!(
        engine
            .query_one_as::<(i32,)>("SELECT 3", &[])
            .await
            .expect("a row"),
        (3,)
    );
}

#[tokio::test]
async fn a_row_that_does_not_fit_names_the_column_and_leaves_the_transaction_usable() {
    let db = database().await;
    let (_engine, sessions) = sessions(&db);
    let mut session = sessions.session();
    let cases = [
        (
            "SELECT 1::bigint AS id, NULL::text AS name, '' AS email",
            "column 2 (\"name\", text) is NULL",
        ),
        (
            "SELECT 1::bigint AS id, 'Ada' AS email",
            "no column \"name\", only \"id\", \"email\"",
        ),
        (
            "SELECT 1::int AS id, 'Ada' AS name, '' AS email",
            "column 1 (\"id\") is of type int4, which i64",
        ),
    ];
    for (sql, expected) in cases {
        let error = session
            .query_as::<Person>(sql, &[])
            .await
            .expect_err("no fit");
        assert_eq!(error.kind(), ErrorKind::Row, "{error}");
        assert_eq!(error.outcome(), Outcome::Applied);
        assert!(error.connection_is_good());
        assert!(error.to_string().contains(expected), "{error}");
    }
    let error = session
        .query_as::<(i32,)>("SELECT 1, 2 AS second", &[])
        .await
        .expect_err("too wide");
    let text = error.to_string();
    assert!(
        text.contains("2 columns") && text.contains("\"second\""),
        "{text}"
    );
    let error = session
        .query_scalar::<i32>("SELECT 'secret'", &[])
        .await
        .expect_err("a text");
    assert!(!error.to_string().contains("secret"), "{error}");
    let error = session
        .query_scalar::<i32>("SELECT 1 WHERE false", &[])
        .await
        .expect_err("no row");
    assert_eq!(error.kind(), ErrorKind::RowCount);
    let _ = session.commit().await.expect("usable");
}

#[tokio::test]
async fn filters_known_at_run_time_are_pushed() {
    let db = database().await;
    let engine = one_connection(&db);
    let (name, least) = (Some("Bob".to_owned()), Some(2_i64));
    let mut params = Params::new();
    let mut sql = format!("SELECT id FROM ({PEOPLE}) AS p WHERE true");
    if let Some(name) = &name {
        let _ = write!(sql, " AND name = {}", params.push(name));
    }
    if let Some(least) = &least {
        let _ = write!(sql, " AND id >= {}", params.push(least));
    }
    let found: i64 = engine.query_scalar(&sql, &params).await.expect("one");
    assert_eq!(found, 2);
}

#[tokio::test]
async fn arrays_insert_many_rows_in_one_statement() {
    let db = database().await;
    let engine = one_connection(&db);
    let numbers: Vec<i64> = (0..1000).collect();
    let sql = "INSERT INTO t SELECT * FROM UNNEST($1::bigint[])";
    assert_eq!(
        engine.execute(sql, &[&numbers]).await.expect("inserted"),
        1000
    );
}

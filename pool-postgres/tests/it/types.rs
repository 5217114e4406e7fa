//! Values there and back: alone, as `Option`, and in arrays.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use pool_postgres::types::{FromSqlOwned, ToSql};
use pool_postgres::{Engine, Session, SessionFactory};

use crate::support::{database, one_connection};

/// Sends a value of this type there and back, in all the ways in which it may come.
async fn comes_back<T>(session: &mut Session, sql: &str, value: T)
where
    T: ToSql + FromSqlOwned + PartialEq + Clone + Debug + Sync,
{
    let single = format!("SELECT $1::{sql}");
    let array = format!("SELECT $1::{sql}[]");
    let back: T = session.query_scalar(&single, &[&value]).await.expect(sql);
    assert_eq!(back, value, "{sql}");
    for value in [Some(value.clone()), None] {
        let back: Option<T> = session.query_scalar(&single, &[&value]).await.expect(sql);
        assert_eq!(back, value, "{sql}");
    }
    for values in [vec![], vec![value.clone(), value.clone()]] {
        let back: Vec<T> = session.query_scalar(&array, &[&values]).await.expect(sql);
        assert_eq!(back, values, "{sql}[]");
    }
    let values = vec![Some(value.clone()), None];
    let back: Vec<Option<T>> = session.query_scalar(&array, &[&values]).await.expect(sql);
    assert_eq!(back, values, "{sql}[]");
    let some =
        "SELECT count(*) FROM unnest($1::TYPE[]) AS value WHERE value::text = $2::TYPE::text";
    let some = some.replace("TYPE", sql);
    let found: i64 = session
        .query_scalar(&some, &[&vec![value.clone()], &value])
        .await
        .expect(sql);
    assert_eq!(
        found, 1,
        "{sql}: the server sees the same alone and in an array"
    );
}

async fn session() -> (testbed::TestDatabase, Engine, Session) {
    let db = database().await;
    let engine = one_connection(&db);
    let session = SessionFactory::new(engine.clone()).session();
    (db, engine, session)
}

#[tokio::test]
async fn values_of_the_standard_library_come_back() {
    let (_db, _engine, mut session) = session().await;
    let s = &mut session;
    comes_back(s, "bool", true).await;
    comes_back(s, "int2", i16::MIN).await;
    comes_back(s, "int4", i32::MAX).await;
    comes_back(s, "int8", i64::MIN).await;
    comes_back(s, "float4", 1.5_f32).await;
    comes_back(s, "float8", f64::MAX).await;
    comes_back(s, "text", "Größe 'x' \\ \"y\"".to_owned()).await;
    comes_back(s, "bytea", vec![0_u8, 255, b'\'']).await;
    comes_back(s, "inet", std::net::IpAddr::from([127, 0, 0, 1])).await;
    // The server keeps microseconds.
    let moment = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    comes_back(s, "timestamptz", moment).await;
}

#[cfg(feature = "uuid")]
#[tokio::test]
async fn values_of_uuid_come_back() {
    let (_db, _engine, mut session) = session().await;
    let value = uuid::Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    comes_back(&mut session, "uuid", value).await;
}

#[cfg(feature = "chrono")]
#[tokio::test]
async fn values_of_chrono_come_back() {
    use chrono::{DateTime, FixedOffset, NaiveDate, Utc};
    let (_db, _engine, mut session) = session().await;
    let s = &mut session;
    let moment: DateTime<Utc> =
        DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("valid");
    comes_back(s, "timestamptz", moment).await;
    let hour_east = FixedOffset::east_opt(3600).expect("valid");
    comes_back(s, "timestamptz", moment.with_timezone(&hour_east)).await;
    comes_back(s, "timestamp", moment.naive_utc()).await;
    comes_back(
        s,
        "date",
        NaiveDate::from_ymd_opt(1999, 12, 31).expect("valid"),
    )
    .await;
    comes_back(s, "time", moment.time()).await;
}

#[cfg(feature = "time")]
#[tokio::test]
async fn values_of_time_come_back() {
    use time::{Date, OffsetDateTime, PrimitiveDateTime};
    let (_db, _engine, mut session) = session().await;
    let s = &mut session;
    let nanos = 1_700_000_000_123_456_000;
    let moment = OffsetDateTime::from_unix_timestamp_nanos(nanos).expect("valid");
    comes_back(s, "timestamptz", moment).await;
    comes_back(
        s,
        "timestamp",
        PrimitiveDateTime::new(moment.date(), moment.time()),
    )
    .await;
    let date = Date::from_calendar_date(1999, time::Month::December, 31).expect("valid");
    comes_back(s, "date", date).await;
    comes_back(s, "time", moment.time()).await;
}

#[cfg(feature = "jiff")]
#[tokio::test]
async fn values_of_jiff_come_back() {
    use jiff::{Timestamp, civil};
    let (_db, _engine, mut session) = session().await;
    let s = &mut session;
    let moment = Timestamp::from_microsecond(1_700_000_000_123_456).expect("valid");
    comes_back(s, "timestamptz", moment).await;
    comes_back(
        s,
        "timestamp",
        civil::date(1999, 12, 31).at(23, 59, 58, 123_456_000),
    )
    .await;
    comes_back(s, "date", civil::date(1999, 12, 31)).await;
    comes_back(s, "time", civil::time(23, 59, 58, 123_456_000)).await;
}

#[cfg(feature = "json")]
#[tokio::test]
async fn values_of_json_come_back() {
    use pool_postgres::types::Json;
    let (_db, _engine, mut session) = session().await;
    let s = &mut session;
    let value = serde_json::json!({"name": "Ada", "tags": [1, null, "ü"]});
    comes_back(s, "jsonb", value.clone()).await;
    comes_back(s, "json", value).await;
    comes_back(
        s,
        "jsonb",
        Json(vec!["a type".to_owned(), "of our own".to_owned()]),
    )
    .await;
}

#[cfg(feature = "decimal")]
#[tokio::test]
async fn values_of_decimal_come_back() {
    use rust_decimal::Decimal;
    let (_db, _engine, mut session) = session().await;
    for value in [
        Decimal::new(-12_345_678_901_234, 5),
        Decimal::ZERO,
        Decimal::from_i128_with_scale(79_228_162_514_264_337_593_543_950_335, 0),
        Decimal::new(1, 20),
    ] {
        comes_back(&mut session, "numeric", value).await;
    }
}

//! Statements without a name, for a pooler between us and the server.
//!
//! A pooler gives the next transaction another server, where a prepared name would mean nothing or something
//! else. So a statement is parsed each time, in the same round trip. The server can't be asked first what types
//! the parameters have, so they are told it: each has the first type of a list that its Rust type fits.

use bytes::BytesMut;
use tokio_postgres::types::{ToSql, Type, WrongType};
use tokio_postgres::{Client, RowStream, Statement};

use crate::error::{Error, ErrorKind};

/// Where a Rust type fits several, the first: what the server turns into the others by itself.
const TYPES: [Type; 58] = [
    Type::TEXT,
    Type::INT8,
    Type::INT4,
    Type::BOOL,
    Type::TIMESTAMPTZ,
    Type::UUID,
    Type::JSONB,
    Type::NUMERIC,
    Type::FLOAT8,
    Type::BYTEA,
    Type::DATE,
    Type::TIMESTAMP,
    Type::TIME,
    Type::INT2,
    Type::FLOAT4,
    Type::INET,
    Type::CIDR,
    Type::JSON,
    Type::CHAR,
    Type::OID,
    Type::INTERVAL,
    Type::TIMETZ,
    Type::MACADDR,
    Type::MACADDR8,
    Type::VARBIT,
    Type::BIT,
    Type::POINT,
    Type::BOX,
    Type::PATH,
    Type::PG_LSN,
    Type::XML,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::BOOL_ARRAY,
    Type::TIMESTAMPTZ_ARRAY,
    Type::UUID_ARRAY,
    Type::JSONB_ARRAY,
    Type::NUMERIC_ARRAY,
    Type::FLOAT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::DATE_ARRAY,
    Type::TIMESTAMP_ARRAY,
    Type::TIME_ARRAY,
    Type::INT2_ARRAY,
    Type::FLOAT4_ARRAY,
    Type::INET_ARRAY,
    Type::CIDR_ARRAY,
    Type::JSON_ARRAY,
    Type::CHAR_ARRAY,
    Type::OID_ARRAY,
    Type::INTERVAL_ARRAY,
    Type::MACADDR_ARRAY,
    Type::VARBIT_ARRAY,
    Type::BIT_ARRAY,
    Type::POINT_ARRAY,
    Type::BOX_ARRAY,
    Type::PG_LSN_ARRAY,
];

/// How a statement is sent.
pub(crate) enum Plan<'a> {
    /// By the name under which the connection has prepared it.
    Named(Statement),
    /// Parsed anew, with these parameters.
    Unnamed(Vec<Typed<'a>>),
}

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];
type Typed<'a> = (&'a (dyn ToSql + Sync), Type);

impl Plan<'_> {
    /// Sends it at the first poll; ready once its rows begin to come.
    pub(crate) async fn send(
        self,
        client: &Client,
        sql: &str,
        params: Values<'_>,
    ) -> Result<RowStream, tokio_postgres::Error> {
        match self {
            Self::Named(statement) => client.query_raw(&statement, params.iter().copied()).await,
            Self::Unnamed(typed) => client.query_typed_raw(sql, typed).await,
        }
    }
}

/// Gives each parameter a type.
///
/// # Errors
/// For the first that has none.
pub(crate) fn typed<'a>(params: Values<'a>) -> Result<Vec<Typed<'a>>, Error> {
    let with_type = |(index, param): (usize, &&'a (dyn ToSql + Sync))| {
        let number = index + 1;
        let fitting = type_of(*param).ok_or_else(|| {
            Error::new(
                ErrorKind::Parameter,
                format!(
                    "parameter {number} has no type that is built into PostgreSQL, and behind an external pooler \
                     the server can't be asked: pass it as text and cast it (${number}::text::its_type)"
                ),
            )
        })?;
        Ok((*param, fitting))
    };
    params.iter().enumerate().map(with_type).collect()
}

/// The first type of the list that a value fits.
fn type_of(value: &(dyn ToSql + Sync)) -> Option<Type> {
    let mut encoded = BytesMut::new();
    let fits = |kind: &&Type| match value.to_sql_checked(kind, &mut encoded) {
        Ok(_) => true,
        // Any other failure is one of the value, and comes up again when it is sent.
        Err(error) => !error.is::<WrongType>(),
    };
    TYPES.iter().find(fits).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_first_type_that_it_fits() {
        let cases: [(&(dyn ToSql + Sync), Type); 9] = [
            (&"text", Type::TEXT),
            (&1_i16, Type::INT2),
            (&1_i32, Type::INT4),
            (&1_i64, Type::INT8),
            (&Some(1.5_f64), Type::FLOAT8),
            (&None::<bool>, Type::BOOL),
            (&std::time::SystemTime::UNIX_EPOCH, Type::TIMESTAMPTZ),
            (&vec![1_i32], Type::INT4_ARRAY),
            (&&b"bytes"[..], Type::BYTEA),
        ];
        for (value, expected) in cases {
            assert_eq!(type_of(value), Some(expected), "{value:?}");
        }
    }
}

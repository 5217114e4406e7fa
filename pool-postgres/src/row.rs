//! Rows as tuples and structs.
//!
//! [`FromRow`] reads a whole row. Tuples are read by position and must be as long as the row is wide; structs
//! are read by column name, through [`row_struct!`](crate::row_struct) or [`from_row!`](crate::from_row).
//!
//! What always holds: a row that does not fit is an error that names the column, its type and the Rust type;
//! nothing here panics, and no value is ever shown.

use std::any::type_name;

use tokio_postgres::types::{FromSql, FromSqlOwned, WasNull};
use tokio_postgres::{Column, Row};

use crate::error::{Error, ErrorKind};

/// What a row can be read as: a tuple, or a struct made by [`row_struct!`](crate::row_struct) or
/// [`from_row!`](crate::from_row).
///
/// A single column is a tuple of one, `(i64,)`; see also `query_scalar`.
pub trait FromRow: Sized {
    /// Reads a row.
    ///
    /// # Errors
    /// [`ErrorKind::Row`], naming the column that is missing, NULL or of another type.
    fn from_row(row: &Row) -> Result<Self, Error>;
}

/// A row as it is.
impl FromRow for Row {
    fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(row.clone())
    }
}

/// No columns at all.
impl FromRow for () {
    fn from_row(row: &Row) -> Result<Self, Error> {
        has_columns(row, 0)
    }
}

macro_rules! tuples {
    ($($count:literal: $($name:ident $index:tt),+;)+) => {$(
        impl<$($name: FromSqlOwned),+> FromRow for ($($name,)+) {
            fn from_row(row: &Row) -> Result<Self, Error> {
                has_columns(row, $count)?;
                Ok(($(at::<$name>(row, $index)?,)+))
            }
        }
    )+};
}

tuples! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
    9: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8;
    10: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9;
    11: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10;
    12: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11;
}

/// Reads a column by name, looking first where it stands if the struct's fields are in the statement's order.
///
/// For what [`row_struct!`](crate::row_struct) and [`from_row!`](crate::from_row) write.
#[doc(hidden)]
pub fn column<'r, T: FromSql<'r>>(row: &'r Row, guess: usize, name: &str) -> Result<T, Error> {
    let name = name.strip_prefix("r#").unwrap_or(name);
    let columns = row.columns();
    let position = if columns
        .get(guess)
        .is_some_and(|column| column.name() == name)
    {
        Some(guess)
    } else {
        columns.iter().position(|column| column.name() == name)
    };
    match position {
        Some(position) => at(row, position),
        None => Err(Error::new(
            ErrorKind::Row,
            format!(
                "the row has no column {name:?}, only {}: name it in the statement (AS {name:?}), or leave \
                 it out of the struct",
                names(row)
            ),
        )),
    }
}

/// The value of a row that has one column.
pub(crate) fn scalar<T: FromSqlOwned>(row: &Row) -> Result<T, Error> {
    has_columns(row, 1)?;
    at(row, 0)
}

/// Reads all rows.
pub(crate) fn read_all<T: FromRow>(rows: &[Row]) -> Result<Vec<T>, Error> {
    rows.iter().map(T::from_row).collect()
}

/// Reads the column at a position that exists.
fn at<'r, T: FromSql<'r>>(row: &'r Row, position: usize) -> Result<T, Error> {
    row.try_get(position).map_err(|error| {
        let column = &row.columns()[position];
        let (number, name, sql, rust) = (
            position + 1,
            column.name(),
            column.type_().name(),
            type_name::<T>(),
        );
        if !T::accepts(column.type_()) {
            return Error::new(
                ErrorKind::Row,
                format!(
                    "column {number} ({name:?}) is of type {sql}, which {rust} can't hold: change the Rust \
                     type, or cast the column in the statement"
                ),
            );
        }
        if std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<WasNull>)
        {
            return Error::new(
                ErrorKind::Row,
                format!(
                    "column {number} ({name:?}, {sql}) is NULL, which {rust} can't hold: use \
                     Option<{rust}>, or coalesce in the statement"
                ),
            );
        }
        let message =
            format!("column {number} ({name:?}, {sql}) holds a value that {rust} can't hold");
        match error.into_source() {
            Some(cause) => Error::from_boxed(ErrorKind::Row, message, cause),
            None => Error::new(ErrorKind::Row, message),
        }
    })
}

fn has_columns(row: &Row, wanted: usize) -> Result<(), Error> {
    if row.len() == wanted {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Row,
        format!(
            "the row has {} columns ({}), and {wanted} were asked for: a tuple has to be as long as the row",
            row.len(),
            names(row)
        ),
    ))
}

fn names(row: &Row) -> String {
    let name = |column: &Column| format!("{:?}", column.name());
    let names: Vec<_> = row.columns().iter().map(name).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

/// Defines a struct that a row can be read as, by column name.
///
/// Each field is read from the column of its name; what may be NULL is an `Option`. Columns that no field
/// names are not looked at. Attributes and doc comments are kept.
///
/// ```no_run
/// use pool_postgres::{Error, Session, row_struct};
///
/// row_struct! {
///     /// A user as the list shows it.
///     #[derive(Clone, Debug)]
///     pub struct User {
///         pub id: i64,
///         pub name: String,
///         /// Not everybody has one.
///         pub email: Option<String>,
///     }
/// }
///
/// # async fn example(s: &mut Session) -> Result<(), Error> {
/// let users: Vec<User> = s.query_as("SELECT id, name, email FROM users", &[]).await?;
/// let ada = s.query_one_as::<User>("SELECT * FROM users WHERE name = $1", &[&"Ada"]).await?;
/// # let _ = (users, ada); Ok(()) }
/// ```
#[macro_export]
macro_rules! row_struct {
    (
        $(#[$attribute:meta])*
        $visible:vis struct $name:ident {
            $($(#[$on_field:meta])* $field_visible:vis $field:ident : $kind:ty),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        $visible struct $name {
            $($(#[$on_field])* $field_visible $field: $kind),*
        }
        $crate::from_row!($name { $($field),* });
    };
}

/// Lets a row be read as a struct that exists, by column name.
///
/// All fields are named; `field = "column"` reads one from a column of another name.
///
/// ```
/// use pool_postgres::from_row;
///
/// struct Order {
///     id: i64,
///     kind: String,
/// }
///
/// from_row!(Order { id, kind = "type" });
/// ```
#[macro_export]
macro_rules! from_row {
    ($name:ident { $($field:ident $(= $column:literal)?),* $(,)? }) => {
        impl $crate::FromRow for $name {
            fn from_row(
                row: &$crate::Row,
            ) -> ::core::result::Result<Self, $crate::Error> {
                let mut _position = 0_usize;
                $(
                    let $field = $crate::__private::column(
                        row,
                        _position,
                        $crate::__column_name!($field $($column)?),
                    )?;
                    _position += 1;
                )*
                ::core::result::Result::Ok(Self { $($field),* })
            }
        }
    };
}

/// The name of the column that a field is read from.
#[doc(hidden)]
#[macro_export]
macro_rules! __column_name {
    ($field:ident) => {
        ::core::stringify!($field)
    };
    ($field:ident $column:literal) => {
        $column
    };
}

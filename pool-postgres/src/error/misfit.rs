//! What callers get wrong in a statement and its parameters, told so that they can put it right.
//!
//! All this is found before anything is sent (but for [`hint`]), so the connection is as good as before and
//! nothing has happened. No value is ever shown.

use std::error::Error as StdError;

use tokio_postgres::types::WrongType;

use super::{Error, ErrorKind};

/// Explains an error of the driver's about parameters or the statement's text; gives back any other.
pub(super) fn explain(error: tokio_postgres::Error) -> Result<Error, tokio_postgres::Error> {
    let text = error.to_string();
    let kind = ErrorKind::Parameter;
    if let Some(index) = text.strip_prefix("error serializing parameter ") {
        let index = index
            .split(':')
            .next()
            .and_then(|index| index.parse::<usize>().ok());
        let number = index.map_or(0, |index| index + 1);
        let cause = StdError::source(&error);
        if let Some(wrong) = cause.and_then(<dyn StdError>::downcast_ref::<WrongType>) {
            return Ok(Error::new(kind, wrong_type(number, &wrong.to_string())));
        }
        let message = format!("the value of parameter ${number} can't be written");
        return Ok(match error.into_source() {
            Some(cause) => Error::from_boxed(kind, message, cause),
            None => Error::new(kind, message),
        });
    }
    if let Some((expected, given)) = counts(&text) {
        return Ok(Error::new(kind, wrong_count(expected, given)));
    }
    if text.starts_with("error encoding message to server") {
        let holds_nul = StdError::source(&error)
            .is_some_and(|cause| cause.to_string().contains("embedded null"));
        if holds_nul {
            return Ok(Error::new(
                ErrorKind::Usage,
                "the statement's text holds a NUL character, which PostgreSQL takes nowhere in a text",
            ));
        }
        let message = "the statement and its parameters are too large to send";
        return Ok(match error.into_source() {
            Some(cause) => Error::from_boxed(kind, message, cause),
            None => Error::new(kind, message),
        });
    }
    Err(error)
}

/// Our advice where the server has none.
pub(super) fn hint(code: &str, message: &str) -> Option<String> {
    (code == "42601" && message.contains("multiple commands"))
        .then(|| "Send the statements one by one, or without parameters as a `batch`.".to_owned())
}

/// Reads "expected 2 parameters but got 1".
fn counts(text: &str) -> Option<(usize, usize)> {
    let (expected, given) = text
        .strip_prefix("expected ")?
        .split_once(" parameters but got ")?;
    Some((expected.parse().ok()?, given.parse().ok()?))
}

fn wrong_count(expected: usize, given: usize) -> String {
    let wants = match expected {
        0 => "no parameters".to_owned(),
        1 => "one parameter ($1)".to_owned(),
        _ => format!("{expected} parameters ($1 to ${expected})"),
    };
    let got = match given {
        0 => "none was given".to_owned(),
        1 => "one was given".to_owned(),
        _ => format!("{given} were given"),
    };
    format!("the statement takes {wants}, and {got}")
}

/// `text` is the driver's, with both types in back quotes.
fn wrong_type(number: usize, text: &str) -> String {
    let mut quoted = text.split('`').skip(1).step_by(2);
    let (Some(rust), Some(sql)) = (quoted.next(), quoted.next()) else {
        return format!("parameter ${number}: {text}");
    };
    let other = format!("give the parameter another type in the statement (as in ${number}::text)");
    let fits = match sql.strip_prefix('_') {
        Some(element) => counterpart(element)
            .map(|(rust, feature)| (format!("a slice or a Vec<{rust}>"), feature)),
        None => counterpart(sql).map(|(rust, feature)| (rust.to_owned(), feature)),
    };
    let cure = match fits {
        Some((fits, None)) => format!("pass {fits}, or {other}"),
        Some((fits, Some(feature))) => {
            format!("pass {fits} (with this crate's feature `{feature}`), or {other}")
        }
        None => other,
    };
    format!("parameter ${number} is of type {sql}, which can't be made of {rust}: {cure}")
}

/// The Rust type of a PostgreSQL type, and the feature that it needs.
fn counterpart(sql: &str) -> Option<(&'static str, Option<&'static str>)> {
    Some(match sql {
        "bool" => ("bool", None),
        "int2" => ("i16", None),
        "int4" => ("i32", None),
        "int8" => ("i64", None),
        "oid" => ("u32", None),
        "float4" => ("f32", None),
        "float8" => ("f64", None),
        "text" | "varchar" | "bpchar" | "name" => ("&str or String", None),
        "bytea" => ("&[u8] or Vec<u8>", None),
        "inet" => ("std::net::IpAddr", None),
        "uuid" => ("uuid::Uuid", Some("uuid")),
        "json" | "jsonb" => ("serde_json::Value or types::Json", Some("json")),
        "numeric" => ("rust_decimal::Decimal", Some("decimal")),
        "timestamptz" => ("chrono::DateTime<Utc>", Some("chrono")),
        "timestamp" => ("chrono::NaiveDateTime", Some("chrono")),
        "date" => ("chrono::NaiveDate", Some("chrono")),
        "time" => ("chrono::NaiveTime", Some("chrono")),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_counterpart_is_told_all_the_same() {
        let text = "cannot convert between the Rust type `i32` and the Postgres type `app.mood`";
        assert_eq!(
            wrong_type(3, text),
            "parameter $3 is of type app.mood, which can't be made of i32: give the parameter another type in \
             the statement (as in $3::text)"
        );
        assert!(wrong_type(1, "something else").contains("something else"));
    }

    #[test]
    fn numbers_of_parameters_are_read_from_the_drivers_text() {
        assert_eq!(counts("expected 2 parameters but got 1"), Some((2, 1)));
        assert_eq!(counts("expected something else"), None);
        assert_eq!(
            wrong_count(1, 0),
            "the statement takes one parameter ($1), and none was given"
        );
    }
}

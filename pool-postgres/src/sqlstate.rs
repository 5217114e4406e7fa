//! SQLSTATEs: what kind of error each is.
//!
//! The table in the documentation (`docs/errors.md`) says the same with advice, and a test provokes each of its
//! rows on a real server.

use crate::error::ErrorKind;

/// The kind of an error with this code. A code that is not known goes by its class, its first two letters.
pub(crate) fn kind_of(code: &str) -> ErrorKind {
    use ErrorKind as K;
    match code {
        "25P02" => K::TransactionFailed,
        "25006" => K::ReadOnly,
        "25P03" | "25P04" => K::ConnectionLost,
        "3D000" => K::NoSuchDatabase,
        "40002" => K::Constraint,
        "40003" => K::OutcomeUnknown,
        "42501" => K::Permission,
        "53300" => K::TooManyConnections,
        "55P03" | "55006" => K::Busy,
        "57000" | "57014" => K::Cancelled,
        "57P03" => K::Connect,
        _ => of_class(code.get(..2).unwrap_or("")),
    }
}

fn of_class(class: &str) -> ErrorKind {
    use ErrorKind as K;
    match class {
        "08" | "57" => K::ConnectionLost,
        "0L" | "0P" => K::Permission,
        "21" | "22" => K::Data,
        "23" | "27" | "44" => K::Constraint,
        "28" => K::Authentication,
        "2F" | "38" | "39" | "P0" => K::Raised,
        "40" | "72" => K::Serialization,
        "53" | "54" => K::Resources,
        "58" | "F0" | "XX" => K::Server,
        _ => K::Statement,
    }
}

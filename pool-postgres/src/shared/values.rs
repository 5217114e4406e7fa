//! Parameters, written down: a statement under way must not borrow from a caller that may leave.
//!
//! What can't be written down is handed on as it is: the driver meets it before it sends anything, and reports it as it
//! would have.

use std::error::Error as StdError;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};

type BoxError = Box<dyn StdError + Sync + Send>;

/// The parameters of one statement as the server gets them.
pub(super) struct Values(Vec<Value>);

/// One parameter.
#[derive(Debug)]
pub(super) struct Value {
    written: Written,
    format: Format,
}

#[derive(Debug)]
enum Written {
    Null,
    Bytes(Bytes),
    Refused(Mutex<Option<BoxError>>),
}

impl Values {
    /// Writes the parameters down as the types that the statement wants.
    pub(super) fn of(types: &[Type], params: &[&(dyn ToSql + Sync)]) -> Self {
        let mut out = BytesMut::new();
        let value = |(index, param): (usize, &&(dyn ToSql + Sync))| {
            // Of parameters too many nothing is sent: the driver counts first.
            let kind = types.get(index).unwrap_or(&Type::TEXT);
            let written = match param.to_sql_checked(kind, &mut out) {
                Ok(IsNull::No) => Written::Bytes(out.split().freeze()),
                Ok(IsNull::Yes) => Written::Null,
                Err(cause) => Written::Refused(Mutex::new(Some(cause))),
            };
            out.clear();
            let format = param.encode_format(kind);
            Value { written, format }
        };
        Self(params.iter().enumerate().map(value).collect())
    }
}

impl ToSql for Value {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        match &self.written {
            Written::Bytes(bytes) => {
                out.put_slice(bytes);
                Ok(IsNull::No)
            }
            Written::Null => Ok(IsNull::Yes),
            Written::Refused(cause) => Err(cause
                .lock()
                .take()
                .unwrap_or_else(|| "the parameter could not be written".into())),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        self.format
    }

    to_sql_checked!();
}

impl IntoIterator for Values {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

//! How copies start and end on a session's connection.

use std::panic::Location;

use bytes::Bytes;
use tokio_postgres::{CopyInSink, CopyOutStream, Statement};

use super::Session;
use super::flight::simple;
use super::limits::within;
use super::state::{Failure, State};
use crate::error::{Error, ErrorKind};

impl Session {
    pub(crate) async fn start_copy_in(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
    ) -> Result<CopyInSink<Bytes>, Error> {
        let statement = self.prepare_copy(place, sql, "FROM STDIN").await?;
        let Some(open) = self.open() else {
            return Err(Error::new(
                ErrorKind::Usage,
                "the session has no connection",
            ));
        };
        let limit = open.limit;
        let started = within(limit, open.lease.connection.driver().copy_in(&statement)).await;
        match started {
            Ok(Ok(sink)) => Ok(sink),
            Ok(Err(error)) => Err(self.copy_refused(error.into())),
            Err(late) => Err(self.failure(late)),
        }
    }

    pub(crate) async fn start_copy_out(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
    ) -> Result<CopyOutStream, Error> {
        let statement = self.prepare_copy(place, sql, "TO STDOUT").await?;
        let Some(open) = self.open() else {
            return Err(Error::new(
                ErrorKind::Usage,
                "the session has no connection",
            ));
        };
        let limit = open.limit;
        let started = within(limit, open.lease.connection.driver().copy_out(&statement)).await;
        match started {
            Ok(Ok(data)) => Ok(data),
            Ok(Err(error)) => Err(self.copy_refused(error.into())),
            Err(late) => Err(self.failure(late)),
        }
    }

    /// Sends what precedes a copy, and prepares it.
    async fn prepare_copy(
        &mut self,
        place: &'static Location<'static>,
        sql: &str,
        with: &str,
    ) -> Result<Statement, Error> {
        if !is_copy(sql, with) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!("this is no COPY … {with}: use query or execute for other statements"),
            ));
        }
        let preamble = self.ready(place).await?;
        let Some(open) = self.open() else {
            return Err(Error::new(
                ErrorKind::Usage,
                "the session has no connection",
            ));
        };
        let (limit, connection) = (open.limit, &open.lease.connection);
        connection.sight().begin(place, sql, &[]);
        let begun = simple(connection.driver(), preamble.as_deref());
        let prepared = connection.prepare(sql);
        let both = async { futures_util::join!(begun, prepared) };
        match within(limit, both).await {
            Ok((Ok(_), prepared)) => {
                self.preceded(preamble.is_some());
                prepared.map_err(|error| self.failure(error))
            }
            Ok((Err(error), _)) | Err(error) => Err(self.failure(error)),
        }
    }

    /// Takes note of a copy that the server (or the driver) refused.
    ///
    /// The driver may have sent more than the server will answer as expected, so the connection is not used
    /// again.
    fn copy_refused(&mut self, error: Error) -> Error {
        let error = self.failure(error);
        if let State::Open(_) = &self.state {
            let lost = State::Lost(Failure::of(&error));
            if let State::Open(open) = std::mem::replace(&mut self.state, lost) {
                open.lease.close();
            }
        }
        error
    }

    /// Takes note that a copy was given up, whose end the driver has told the server.
    pub(crate) async fn copy_aborted(&mut self) -> Result<(), Error> {
        let Some(open) = self.open() else {
            return Ok(());
        };
        // Answered when all before it has been.
        if let Err(error) = simple(open.lease.connection.driver(), Some("")).await {
            return Err(self.failure(error));
        }
        open.in_flight = false;
        open.lease.connection.settled();
        if self.options.autocommit {
            self.end_quietly();
        } else if let Some(open) = self.open() {
            let aborted = Error::new(ErrorKind::Cancelled, "a copy was given up");
            open.failed.get_or_insert_with(|| Failure::of(&aborted));
        }
        Ok(())
    }
}

/// Whether a statement begins with COPY and goes on with that. What else is in it the server tells.
fn is_copy(sql: &str, with: &str) -> bool {
    let sql = sql.trim_start().to_ascii_uppercase();
    sql.starts_with("COPY") && with.split(' ').all(|word| sql.contains(word))
}

//! Many statements in one round trip.
//!
//! What is not prepared on the connection is prepared first, together with `BEGIN`: one more round trip, once.
//! Then everything is queued with the driver before any answer is awaited, and the answers are read in order.
//!
//! # What always holds
//! Each statement gets a result of its own. In a transaction nothing of what follows a failure happens: what the
//! server had received already it skips, and a failure on our side (a parameter that does not fit) ends the
//! sending.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::panic::Location;
use std::pin::Pin;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Row, RowStream, Statement};

use super::flight::{may_end_transaction, simple};
use super::limits::within;
use super::{Session, at_most_one, exactly_one, too_many};
use crate::connection::PgConnection;
use crate::error::{Error, ErrorKind};
use crate::row::{self, FromRow};
use crate::statements;
use crate::unnamed::{Plan, typed};

/// Statements that are sent together; made by [`Session::pipeline`].
///
/// They run one after another, as if each had been awaited, but the network is waited for once: `BEGIN`
/// travels along, so a transaction takes one round trip and its commit. In a transaction the first failure makes
/// the server skip the rest; in autocommit each statement stands alone and the others run.
///
/// A statement that makes, changes or drops something, or drops prepared statements (`CREATE`, `ALTER`, `DROP`,
/// `DEALLOCATE`, `DISCARD`) ends a round trip: what follows is prepared anew behind it.
///
/// ```no_run
/// # use pool_postgres::{Error, Session};
/// # async fn example(s: &mut Session, from: i64, to: i64, amount: i64) -> Result<(), Error> {
/// let answers = s
///     .pipeline()
///     .statement("UPDATE accounts SET balance = balance - $2 WHERE id = $1", &[&from, &amount])
///     .statement("UPDATE accounts SET balance = balance + $2 WHERE id = $1", &[&to, &amount])
///     .statement("SELECT balance FROM accounts WHERE id = $1", &[&from])
///     .run()
///     .await?;
/// let (moved, left) = (answers[0].affected(), answers[2].scalar::<i64>()?);
/// let _token = s.commit().await?.token;
/// # let _ = (moved, left); Ok(()) }
/// ```
#[must_use = "nothing is sent until `run`"]
pub struct Pipeline<'s, 'p> {
    session: &'s mut Session,
    items: Vec<Item<'p>>,
}

/// A statement and its parameters.
struct Item<'p> {
    sql: &'p str,
    params: Vec<&'p (dyn ToSql + Sync)>,
}

/// A statement's result, once there is one.
type Slot = Option<Result<Answer, Error>>;

type Started<'a> =
    Pin<Box<dyn Future<Output = Result<RowStream, tokio_postgres::Error>> + Send + 'a>>;

impl<'s, 'p> Pipeline<'s, 'p> {
    pub(super) fn new(session: &'s mut Session) -> Self {
        Self {
            session,
            items: Vec::new(),
        }
    }

    /// Adds a statement. Its parameters are borrowed until all is sent, so they have to be named: `&[&id]` and
    /// not `&[&(id + 1)]`.
    pub fn statement(mut self, sql: &'p str, params: &[&'p (dyn ToSql + Sync)]) -> Self {
        let params = params.to_vec();
        self.items.push(Item { sql, params });
        self
    }

    /// Sends all and gives each statement's answer, in order; the first failure is the whole's.
    ///
    /// A pipeline is never sent again by itself, whatever it meets. Without statements nothing is sent.
    ///
    /// # Cancel safety
    /// As [`Session::query`]: dropped half-way, the transaction can only be rolled back.
    ///
    /// # Errors
    /// The first failure of the statements; those of [`Session::query`].
    #[track_caller]
    pub fn run(self) -> impl Future<Output = Result<Vec<Answer>, Error>> + Send {
        let place = Location::caller();
        async move { self.all(place).await.into_iter().collect() }
    }

    /// Sends all and gives each statement's own result, in order: as many as there were statements.
    ///
    /// In a transaction, those behind a failure are [`ErrorKind::TransactionFailed`], naming it.
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_each(self) -> impl Future<Output = Vec<Result<Answer, Error>>> + Send {
        let place = Location::caller();
        self.all(place)
    }

    async fn all(self, place: &'static Location<'static>) -> Vec<Result<Answer, Error>> {
        let Self { session, items } = self;
        if items.is_empty() {
            return Vec::new();
        }
        let mut results: Vec<Slot> = items.iter().map(|_| None).collect();
        let stopped = match session.ready(place).await {
            Ok(preamble) => {
                if let Some(open) = session.open() {
                    let sight = open.lease.connection.sight();
                    sight.begin(place, &joined(&items), &[]);
                }
                let ran = session.run_in_parts(preamble, &items, &mut results).await;
                let stopped = ran.map_err(|error| session.failure(error));
                match (stopped, first_failure(&results)) {
                    (Ok(()), Some(first)) if first.kind() != ErrorKind::RowCount => {
                        session.failure(first);
                        Ok(())
                    }
                    (Ok(()), _) => session.answered(Ok(())),
                    (Err(error), _) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        if let Err(error) = stopped {
            let unanswered = results.iter().position(Option::is_none);
            results[unanswered.unwrap_or(items.len() - 1)] = Some(Err(error));
        }
        let skipped = first_failure(&results).map(|first| skipped(&first));
        let fill = |result: Slot| match (result, &skipped) {
            (Some(result), _) => result,
            (None, Some(skipped)) => Err(skipped.clone()),
            (None, None) => Err(Error::new(ErrorKind::TransactionFailed, "not run")),
        };
        results.into_iter().map(fill).collect()
    }
}

impl Session {
    /// Runs the statements; what follows one that changes the schema is sent when that has been answered.
    async fn run_in_parts(
        &mut self,
        mut preamble: Option<String>,
        items: &[Item<'_>],
        results: &mut [Slot],
    ) -> Result<(), Error> {
        let alone = self.options.is_alone();
        if let Some(open) = self.open() {
            open.may_end = items.iter().any(|item| may_end_transaction(item.sql));
        }
        let mut start = 0;
        while start < items.len() {
            let rest = &items[start..];
            let last = rest.iter().position(|item| statements::may_clear(item.sql));
            let end = last.map_or(items.len(), |last| start + last + 1);
            let part = start..end;
            self.run_pipeline(preamble.take(), &items[part.clone()], &mut results[part])
                .await?;
            if !alone && first_failure(&results[..end]).is_some() {
                break;
            }
            start = end;
        }
        Ok(())
    }

    /// Runs the statements and gathers their results, until something happens to all of them, which it returns.
    async fn run_pipeline(
        &mut self,
        mut preamble: Option<String>,
        items: &[Item<'_>],
        results: &mut [Slot],
    ) -> Result<(), Error> {
        let (most, alone) = (self.options.max_rows, self.options.is_alone());
        for item in items {
            self.note_what_stays(item.sql);
        }
        let Some(open) = self.open() else {
            return Ok(());
        };
        open.may_end = items.iter().any(|item| may_end_transaction(item.sql));
        let (limit, connection) = (open.limit, &open.lease.connection);
        let (mut known, cold) = sorted(items, connection);
        if !cold.is_empty() {
            // All preparations and the preamble in one flight.
            let begun = simple(connection.driver(), preamble.as_deref());
            let prepared = join_all(cold.iter().map(|sql| connection.prepare(sql)));
            let both = async { futures_util::join!(begun, prepared) };
            let (begun, prepared) = within(limit, both).await?;
            begun?;
            for (sql, prepared) in cold.into_iter().zip(prepared) {
                match prepared {
                    Ok(statement) => {
                        known.insert(sql, statement);
                    }
                    Err(error) => {
                        let error = error.with_statement(sql, None);
                        for (item, result) in items.iter().zip(&mut *results) {
                            if item.sql == sql {
                                *result = Some(Err(error.clone()));
                            }
                        }
                        if !alone {
                            break;
                        }
                    }
                }
            }
            self.preceded(preamble.take().is_some());
            if !alone && first_failure(results).is_some() {
                return Ok(());
            }
        }
        let Some(open) = self.open() else {
            return Ok(());
        };
        let connection = &open.lease.connection;
        let driver = connection.driver();
        let mut begun = Box::pin(simple(driver, preamble.as_deref()));
        let early = (&mut begun).now_or_never(); // Queued first.
        let started = queue(items, &known, connection, alone, results);
        let reading = async {
            match early {
                Some(begun) => begun?,
                None => begun.await?,
            };
            let mut failed = false;
            for (index, answer) in started {
                let answer = read(answer.await, most).await;
                let answer = answer.map_err(|error| {
                    connection
                        .explain(error)
                        .with_statement(items[index].sql, None)
                });
                if failed && !alone {
                    continue; // What the server says of those that it skips.
                }
                if let Err(error) = &answer {
                    failed |= error.kind() != ErrorKind::RowCount;
                    if super::is_stale(error) {
                        connection.forget(error);
                    }
                }
                let lost = answer
                    .as_ref()
                    .is_err_and(|error| !error.connection_is_good());
                results[index] = Some(answer);
                if lost {
                    break;
                }
            }
            Ok::<(), Error>(())
        };
        within(limit, reading).await??;
        self.preceded(preamble.is_some());
        Ok(())
    }
}

/// All statements as one text, for the log.
fn joined(items: &[Item<'_>]) -> String {
    let texts: Vec<_> = items.iter().map(|item| item.sql).collect();
    texts.join("; ")
}

/// The first failure in the order of the statements.
fn first_failure(results: &[Slot]) -> Option<Error> {
    let mut failures = results
        .iter()
        .flatten()
        .filter_map(|result| result.as_ref().err());
    failures.next().cloned()
}

/// Queues the statements with the driver, each behind the one before. One that can't be sent has its result at once,
/// and in a transaction none follows it.
fn queue<'i>(
    items: &'i [Item<'_>],
    known: &HashMap<&str, Statement>,
    connection: &'i PgConnection,
    alone: bool,
    results: &mut [Slot],
) -> Vec<(usize, Started<'i>)> {
    let driver = connection.driver();
    let mut started = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let Some(plan) = plan(item, known, connection) else {
            continue;
        };
        let failed = match plan {
            Ok(plan) => {
                let mut answer: Started<'_> = Box::pin(plan.send(driver, item.sql, &item.params));
                match (&mut answer).now_or_never() {
                    None => {
                        started.push((index, answer));
                        continue;
                    }
                    Some(Ok(rows)) => {
                        started.push((index, Box::pin(ready(Ok(rows)))));
                        continue;
                    }
                    Some(Err(error)) => error.into(),
                }
            }
            Err(error) => error,
        };
        results[index] = Some(Err(failed));
        if !alone {
            break;
        }
    }
    started
}

/// How a statement is sent; `None` if its preparation has failed.
fn plan<'i>(
    item: &'i Item<'_>,
    known: &HashMap<&str, Statement>,
    connection: &PgConnection,
) -> Option<Result<Plan<'i>, Error>> {
    match known.get(item.sql) {
        Some(statement) => Some(Ok(Plan::Named(statement.clone()))),
        None if connection.is_pooled() => Some(typed(&item.params).map(Plan::Unnamed)),
        None => None,
    }
}

/// The statements that are prepared already, and those that are not, each once.
fn sorted<'i>(
    items: &[Item<'i>],
    connection: &PgConnection,
) -> (HashMap<&'i str, Statement>, Vec<&'i str>) {
    let (mut known, mut cold) = (HashMap::new(), Vec::new());
    if connection.is_pooled() {
        return (known, cold); // None is prepared.
    }
    for item in items {
        if known.contains_key(item.sql) || cold.contains(&item.sql) {
            continue;
        }
        match connection.cached(item.sql) {
            Some(statement) => {
                known.insert(item.sql, statement);
            }
            None => cold.push(item.sql),
        }
    }
    (known, cold)
}

async fn read(
    rows: Result<RowStream, tokio_postgres::Error>,
    most: usize,
) -> Result<Answer, Error> {
    use futures_util::StreamExt;
    let mut rows = std::pin::pin!(rows?);
    let (mut gathered, mut more) = (Vec::new(), false);
    // Read to the end in any case: the next statement's answer comes behind it.
    while let Some(row) = rows.next().await {
        let row = row?;
        more |= gathered.len() == most;
        if !more {
            gathered.push(row);
        }
    }
    if more {
        return Err(too_many(most));
    }
    Ok(Answer {
        rows: gathered,
        affected: rows.rows_affected().unwrap_or(0),
    })
}

/// What a statement gets that was skipped because of an earlier one's failure.
fn skipped(first: &Error) -> Error {
    Error::new(
        ErrorKind::TransactionFailed,
        format!("skipped, because an earlier statement of the pipeline failed: {first}"),
    )
}

impl fmt::Debug for Pipeline<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("statements", &self.items.len())
            .finish_non_exhaustive()
    }
}

/// What one statement of a [`Pipeline`] gave.
#[derive(Clone, Debug)]
pub struct Answer {
    rows: Vec<Row>,
    affected: u64,
}

impl Answer {
    /// The rows.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The rows, to keep.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// How many rows the statement affected, or gave.
    pub fn affected(&self) -> u64 {
        self.affected
    }

    /// The row of a statement that gives exactly one.
    ///
    /// # Errors
    /// [`ErrorKind::RowCount`] for no row or several.
    pub fn one(self) -> Result<Row, Error> {
        exactly_one(self.rows)
    }

    /// The row of a statement that gives one or none.
    ///
    /// # Errors
    /// [`ErrorKind::RowCount`] for several rows.
    pub fn opt(self) -> Result<Option<Row>, Error> {
        at_most_one(self.rows)
    }

    /// The rows as tuples or structs; see [`FromRow`].
    ///
    /// # Errors
    /// [`ErrorKind::Row`] for one that does not fit.
    pub fn rows_as<T: FromRow>(&self) -> Result<Vec<T>, Error> {
        row::read_all(&self.rows)
    }

    /// The one value of the one row.
    ///
    /// # Errors
    /// [`ErrorKind::RowCount`] for no row or several, [`ErrorKind::Row`] for one that does not fit.
    pub fn scalar<T: FromSqlOwned>(&self) -> Result<T, Error> {
        match &self.rows[..] {
            [row] => row::scalar(row),
            rows => exactly_one(rows.to_vec()).and_then(|row| row::scalar(&row)),
        }
    }
}

//! One try: statements in a savepoint that is always rolled back, and what the server said to the last of them.

use pool_postgres::{Error, Row, Savepoint, Session};
use tokio_postgres::types::ToSql;

/// Tries that share a transaction.
pub(super) struct Raid {
    session: Session,
    tries: usize,
}

/// What came of a try.
pub(super) enum Tried {
    /// The server did it, and gave these rows or changed so many.
    Done(Vec<Row>, u64),
    /// The server refused it.
    Refused(Error),
}

impl Tried {
    /// The number in the first column of the only row; zero where there is none.
    pub(super) fn number(&self) -> i64 {
        match self {
            Self::Done(rows, _) => rows.first().map_or(0, |row| row.get(0)),
            Self::Refused(_) => 0,
        }
    }

    /// How many rows were changed.
    pub(super) fn changed(&self) -> u64 {
        match self {
            Self::Done(_, changed) => *changed,
            Self::Refused(_) => 0,
        }
    }

    /// The class of the server's refusal, or all five characters of it; empty where it did what was asked.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Done(..) => "",
            Self::Refused(error) => error.sqlstate().unwrap_or("?"),
        }
    }
}

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Raid {
    pub(super) fn new(session: Session) -> Self {
        Self { session, tries: 0 }
    }

    /// Asks for rows, behind statements that come first. Where one of those is refused, that is the answer.
    pub(super) async fn read(
        &mut self,
        before: &[&str],
        sql: &str,
        values: Values<'_>,
    ) -> Result<Tried, Error> {
        self.attempt(For::Rows, before, sql, values).await
    }

    /// Changes rows, behind statements that come first.
    pub(super) async fn write(
        &mut self,
        before: &[&str],
        sql: &str,
        values: Values<'_>,
    ) -> Result<Tried, Error> {
        self.attempt(For::Changes, before, sql, values).await
    }

    async fn attempt(
        &mut self,
        wanted: For,
        before: &[&str],
        sql: &str,
        values: Values<'_>,
    ) -> Result<Tried, Error> {
        self.tries += 1;
        let mut savepoint = self.session.begin_nested();
        let tried = run(&mut savepoint, wanted, before, sql, values).await;
        savepoint.rollback().await?;
        judged(tried)
    }

    /// Rolls everything back, and tells how many tries there were.
    pub(super) async fn end(mut self) -> Result<usize, Error> {
        self.session.rollback().await?;
        Ok(self.tries)
    }
}

/// What a try is for.
#[derive(Clone, Copy)]
enum For {
    Rows,
    Changes,
}

async fn run(
    savepoint: &mut Savepoint<'_>,
    wanted: For,
    before: &[&str],
    sql: &str,
    values: Values<'_>,
) -> Result<Tried, Error> {
    for statement in before {
        savepoint.batch(statement).await?;
    }
    Ok(match wanted {
        For::Rows => Tried::Done(savepoint.query(sql, values).await?, 0),
        For::Changes => Tried::Done(Vec::new(), savepoint.execute(sql, values).await?),
    })
}

/// Copies out in a transaction of its own, and counts the lines. A copy that is refused costs its connection.
pub(super) async fn copy_out(mut session: Session, sql: &str) -> Result<Tried, Error> {
    let lines = lines(&mut session, sql).await;
    session.close().await?;
    judged(lines.map(|lines| Tried::Done(Vec::new(), lines)))
}

/// Begins to copy in, in a transaction of its own, and stops at once: whether the server would take rows.
pub(super) async fn copy_in(mut session: Session, sql: &str) -> Result<Tried, Error> {
    let begun = match session.copy_in(sql).await {
        Ok(copy) => {
            drop(copy);
            Ok(Tried::Done(Vec::new(), 0))
        }
        Err(error) => Err(error),
    };
    session.close().await?;
    judged(begun)
}

async fn lines(session: &mut Session, sql: &str) -> Result<u64, Error> {
    let mut copy = session.copy_out(sql).await?;
    let mut lines = 0;
    while let Some(data) = copy.next().await {
        // In text, a line's end is a row's end: those within a value are escaped.
        for byte in data? {
            lines += u64::from(byte == b'\n');
        }
    }
    Ok(lines)
}

/// What the server refuses is an answer; all else ends the attack.
fn judged(tried: Result<Tried, Error>) -> Result<Tried, Error> {
    tried.or_else(|error| match error.sqlstate() {
        Some(_) => Ok(Tried::Refused(error)),
        None => Err(error),
    })
}

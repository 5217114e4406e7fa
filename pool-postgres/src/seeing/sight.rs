//! One statement as it runs, and what is told of it when it has ended or takes long.
//!
//! # What always holds
//! Whatever was begun is ended once: by its answer, its failure, or its being dropped.

use std::fmt::Write as _;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_postgres::types::ToSql;
use tracing::field::Empty;
use tracing::{Level, Span};

use super::{Seeing, line, shortened};
use crate::error::Error;

/// Spans have a target of their own, so that they can be switched on alone.
const TARGET: &str = "pool_postgres::statement";

/// Whether a trace wants spans of statements.
pub(super) fn is_traced() -> bool {
    tracing::span_enabled!(target: TARGET, Level::DEBUG)
}

/// How a statement ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    Answered,
    Failed(&'a Error),
    /// Nobody waited for its answer any more.
    Dropped,
}

/// Where a running statement stands to be seen.
#[derive(Debug)]
pub(crate) struct Sight {
    seeing: Arc<Seeing>,
    server: Option<(String, u16)>,
    /// Whether one stands there.
    is_running: AtomicBool,
    running: Mutex<Running>,
}

#[derive(Debug)]
struct Running {
    begun: Instant,
    place: &'static Location<'static>,
    /// As much as is shown; the buffer stays for the next statement.
    sql: String,
    parameters: Option<String>,
    span: Span,
    /// It was told of while it ran.
    told: bool,
}

impl Sight {
    pub(super) fn new(seeing: Arc<Seeing>, server: Option<(String, u16)>) -> Self {
        Self {
            seeing,
            server,
            is_running: AtomicBool::new(false),
            running: Mutex::new(Running {
                begun: Instant::now(),
                place: Location::caller(),
                sql: String::new(),
                parameters: None,
                span: Span::none(),
                told: false,
            }),
        }
    }

    pub(super) fn seeing(&self) -> &Arc<Seeing> {
        &self.seeing
    }

    /// A statement is about to be sent.
    pub(crate) fn begin(
        &self,
        place: &'static Location<'static>,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) {
        if !self.seeing.is_wanted() {
            return;
        }
        self.end(End::Dropped);
        let sql = shortened(sql);
        let shown = self.seeing.options.parameters && !params.is_empty();
        let parameters = shown.then(|| format!("{params:?}"));
        let span = self.span(place, sql, parameters.as_deref());
        let mut running = self.running.lock();
        running.begun = Instant::now();
        running.place = place;
        running.sql.clear();
        running.sql.push_str(sql);
        running.parameters = parameters;
        running.told = false;
        running.span = span;
        drop(running);
        // Ordering: Relaxed; the statement's own task asks, or the look-out, which takes the lock.
        self.is_running.store(true, Ordering::Relaxed);
    }

    /// The statement that stands here has ended; nothing happens if none does.
    pub(crate) fn end(&self, end: End<'_>) {
        // Ordering: Relaxed, as in `begin`.
        if !self.is_running.load(Ordering::Relaxed) {
            return;
        }
        let mut running = self.running.lock();
        if !self.is_running.swap(false, Ordering::Relaxed) {
            return;
        }
        let elapsed = running.begun.elapsed();
        let span = std::mem::replace(&mut running.span, Span::none());
        let options = &self.seeing.options;
        let is_slow = options.slow.is_some_and(|slow| elapsed >= slow);
        let told = (is_slow || options.level.is_some()).then(|| running.seen());
        let was_told = running.told;
        drop(running);
        // Without the lock: this runs the subscriber's code.
        if let End::Failed(error) = end {
            span.record("error.type", tracing::field::debug(error.kind()));
            if let Some(code) = error.sqlstate() {
                span.record("db.response.status_code", code);
            }
        }
        drop(span);
        let Some(told) = told else { return };
        if is_slow && let Some(held_back) = self.seeing.slow.admit(Instant::now()) {
            let Seen {
                sql,
                place,
                parameters,
            } = &told;
            tracing::warn!(
                statement = %sql, %place, ?elapsed, parameters, held_back, was_told,
                "a slow statement"
            );
        }
        if let Some(level) = options.level {
            told.log(level, elapsed, end);
        }
    }

    /// Tells of the statement if it still runs and is slow already; once.
    pub(super) fn tell_if_slow(&self, slow: Duration, now: Instant) {
        if !self.is_running.load(Ordering::Relaxed) {
            return;
        }
        let mut running = self.running.lock();
        let elapsed = now.saturating_duration_since(running.begun);
        if running.told || elapsed < slow || !self.is_running.load(Ordering::Relaxed) {
            return;
        }
        running.told = true;
        let Seen {
            sql,
            place,
            parameters,
        } = running.seen();
        drop(running);
        if let Some(held_back) = self.seeing.running.admit(now) {
            tracing::warn!(
                statement = %sql, %place, ?elapsed, parameters, held_back,
                "a statement is still running"
            );
        }
    }

    /// A span by OpenTelemetry's names, a child of the caller's; it lasts as long as the statement.
    fn span(&self, place: &Location<'_>, sql: &str, parameters: Option<&str>) -> Span {
        let operation = || crate::shared::first_word(sql).to_ascii_uppercase();
        let server = self.server.as_ref();
        tracing::debug_span!(
            target: TARGET,
            "statement",
            otel.kind = "client",
            db.system.name = "postgresql",
            db.namespace = %self.seeing.namespace,
            db.operation.name = operation(),
            db.query.text = sql,
            db.query.parameters = parameters,
            db.response.status_code = Empty,
            error.type = Empty,
            server.address = server.map(|(host, _)| host),
            server.port = server.map(|(_, port)| port),
            code.file.path = place.file(),
            code.line.number = place.line(),
        )
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}

impl Running {
    fn seen(&self) -> Seen {
        Seen {
            sql: self.sql.clone(),
            place: line(self.place),
            parameters: self.parameters.clone(),
        }
    }
}

/// What is told of a statement.
struct Seen {
    sql: String,
    place: String,
    parameters: Option<String>,
}

impl Seen {
    fn log(&self, level: Level, elapsed: Duration, end: End<'_>) {
        let Self {
            sql,
            place,
            parameters,
        } = self;
        let mut failure = String::new();
        match end {
            End::Answered => {}
            End::Failed(error) => drop(write!(failure, "{error}")),
            End::Dropped => failure.push_str("dropped before its answer"),
        }
        let failure = (!failure.is_empty()).then_some(failure);
        macro_rules! at {
            ($level:expr) => {
                tracing::event!(
                    target: TARGET,
                    $level,
                    statement = %sql, %place, ?elapsed, parameters, failure,
                    "a statement"
                )
            };
        }
        match level {
            Level::ERROR => at!(Level::ERROR),
            Level::WARN => at!(Level::WARN),
            Level::INFO => at!(Level::INFO),
            Level::DEBUG => at!(Level::DEBUG),
            Level::TRACE => at!(Level::TRACE),
        }
    }
}

//! What is logged on a test's own thread.
//!
//! One listener for the process, since whether anybody listens is remembered by the first thread that has something
//! to say. A test on a runtime of one thread sees its own messages only.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Once;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    /// The warnings of this thread, and so of this test.
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// The spans of statements.
    static SPANS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps warnings as text.
struct Warnings;

/// Begins to listen, and forgets what this thread has logged so far.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Warnings).expect("the only one in this process");
    });
    WARNINGS.take();
    SPANS.take();
}

/// The spans of this thread's statements since it was asked last, with what was recorded of them later.
pub(crate) fn spans() -> Vec<String> {
    SPANS.take()
}

/// The warnings of this thread since it was asked last, each as `field=value` pairs.
pub(crate) fn warnings() -> Vec<String> {
    WARNINGS.take()
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN
            || (metadata.is_span() && metadata.target() == "pool_postgres::statement")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut line = Line(String::new());
        attributes.record(&mut line);
        SPANS.with_borrow_mut(|spans| {
            spans.push(line.0);
            Id::from_u64(spans.len() as u64)
        })
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut line = Line(String::new());
        values.record(&mut line);
        let index = usize::try_from(id.into_u64() - 1).unwrap_or(usize::MAX);
        SPANS.with_borrow_mut(|spans| {
            if let Some(span) = spans.get_mut(index) {
                span.push_str(&line.0);
            }
        });
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        WARNINGS.with_borrow_mut(|warnings| warnings.push(line.0));
    }
}

//! The prepared statements of one connection.
//!
//! A bounded cache by text, the least recently used going first. Parameters' types are left to the server, which
//! finds them from the text. The text is the whole key, but for those scopes under which it means other tables: what
//! was prepared for one of them is found by sessions of the same one alone.
//!
//! # What takes statements away
//! A command that drops prepared statements or may change what they give is noticed by its tag when its answer
//! comes in (see [`are_cleared_by`]), and what was prepared before is not used again; neither is what was being
//! prepared at that moment, since the order of the two is not known here. Changes that no tag shows (by another
//! connection, inside a function) come up as an error of the statement. That raises a number which all
//! connections of the engine share ([`Schema`]), so each of them prepares anew what it has.
//!
//! # Lost answers
//! The driver gives no name twice. A prepare whose answer nobody waited for leaves a statement on the server that
//! is never used; they are counted, and dropped with all others once there are [`LOST`] of them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lru::LruCache;
use parking_lot::Mutex;
use tokio_postgres::Statement;

use crate::sql_text::may_begin_with;

/// How many statements without an owner a connection may have.
const LOST: u32 = 16;

/// Whether a command with this tag takes prepared statements away or may change what they give.
///
/// Creating a table or an index changes no statement that works, and is done often with temporary tables.
pub(crate) fn are_cleared_by(tag: &[u8]) -> bool {
    let starts = |start: &[u8]| tag.starts_with(start);
    match tag.first() {
        Some(b'A') => starts(b"ALTER "),
        Some(b'C') => {
            starts(b"CREATE VIEW") || starts(b"CREATE FUNCTION") || starts(b"CREATE RULE")
        }
        Some(b'D') => starts(b"DEALLOCATE") || tag == b"DISCARD ALL" || starts(b"DROP "),
        _ => false,
    }
}

/// Whether a statement may be answered with such a tag, or makes something that the next one may use.
pub(crate) fn may_clear(sql: &str) -> bool {
    may_begin_with(sql, &["create", "alter", "drop", "deallocate", "discard"])
}

/// Whether a statement is prepared for the next time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    Kept,
    Never,
}

/// What the connections of an engine know together of the database's schema.
#[derive(Debug, Default)]
pub(crate) struct Schema {
    /// How often a prepared statement was found stale.
    moved: AtomicU64,
}

impl Schema {
    /// Has every connection prepare its statements anew.
    pub(crate) fn has_moved(&self) {
        // Ordering: Relaxed; a connection that misses it finds its statement stale itself.
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    fn moves(&self) -> u64 {
        // Ordering: Relaxed, as in `has_moved`.
        self.moved.load(Ordering::Relaxed)
    }
}

/// One connection's prepared statements.
pub(crate) struct Statements {
    kept: Mutex<Kept>,
    /// How many are kept at most.
    limit: usize,
    schema: Arc<Schema>,
    lost: AtomicU32,
}

struct Kept {
    statements: LruCache<Box<str>, Statement>,
    /// As of when they are good: what the wire and the schema had seen.
    stamp: Stamp,
    /// For whom statements are prepared now; `None` for all who don't care.
    owner: Option<Arc<str>>,
    /// For whom they ever were.
    owners: HashSet<Arc<str>>,
    /// Where an owner's keys are put together.
    key: String,
}

/// A moment in what takes statements away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    cleared: u64,
    moved: u64,
}

impl Statements {
    pub(crate) fn new(limit: usize, schema: Arc<Schema>) -> Self {
        let stamp = Stamp {
            cleared: 0,
            moved: schema.moves(),
        };
        // Bounded by hand: a bounded one takes the room for all at once.
        let statements = LruCache::unbounded();
        Self {
            kept: Mutex::new(Kept {
                statements,
                stamp,
                owner: None,
                owners: HashSet::new(),
                key: String::new(),
            }),
            limit,
            schema,
            lost: AtomicU32::new(0),
        }
    }

    /// This moment, given how many clearing commands the connection has seen answered.
    pub(crate) fn stamp(&self, cleared: u64) -> Stamp {
        Stamp {
            cleared,
            moved: self.schema.moves(),
        }
    }

    /// Says whose statements are meant from now on: a scope's, or those of all who don't care. Returns how many scopes
    /// there ever were.
    pub(crate) fn are_for(&self, owner: Option<&Arc<str>>) -> usize {
        let mut kept = self.kept.lock();
        if let Some(owner) = owner
            && !kept.owners.contains(owner)
        {
            kept.owners.insert(Arc::clone(owner));
        }
        kept.owner = owner.map(Arc::clone);
        kept.owners.len()
    }

    /// The statement, if it is prepared and good now.
    pub(crate) fn get(&self, now: Stamp, sql: &str) -> Option<Statement> {
        let mut kept = self.kept.lock();
        let useless = kept.renew(now);
        let (statements, key) = kept.keyed(sql);
        let found = statements.get(key).cloned();
        drop(kept); // Before what is useless: its end is the driver's doing, who tells the server.
        drop(useless);
        found
    }

    /// Keeps a statement that was prepared between two moments, unless something came in between.
    pub(crate) fn keep(&self, before: Stamp, now: Stamp, sql: &str, statement: &Statement) {
        if before != now || self.limit == 0 {
            return;
        }
        let mut kept = self.kept.lock();
        let useless = kept.renew(now);
        let (statements, key) = kept.keyed(sql);
        let replaced = statements.push(key.into(), statement.clone());
        let full = kept.statements.len() > self.limit;
        let evicted = full.then(|| kept.statements.pop_lru());
        drop(kept);
        drop((useless, replaced, evicted));
    }

    /// Takes note of a statement that was found stale: what others have prepared may be, too.
    pub(crate) fn are_stale(&self) {
        self.schema.has_moved();
    }

    /// Takes note of a statement that the server does not know: then it knows none of them.
    pub(crate) fn are_gone(&self) {
        let gone = std::mem::replace(&mut self.kept.lock().statements, LruCache::unbounded());
        drop(gone);
    }

    /// Says that what was cleared between the two moments was not ours.
    pub(crate) fn survived(&self, before: Stamp, now: Stamp) {
        let mut kept = self.kept.lock();
        if kept.stamp == before {
            kept.stamp = now;
        }
    }

    /// Counts a statement as lost unless this is told that it was not.
    pub(crate) fn preparing(&self) -> Preparing<'_> {
        Preparing(&self.lost)
    }

    /// Whether there are too many statements that nobody owns; asked once.
    pub(crate) fn has_lost_many(&self) -> bool {
        // Ordering: Relaxed; whoever asks has the connection to itself.
        let many = self.lost.load(Ordering::Relaxed) >= LOST;
        if many {
            self.lost.store(0, Ordering::Relaxed);
        }
        many
    }
}

impl Kept {
    /// The statements, and what a text is kept under. No statement holds a NUL, so no text is another's with its owner.
    fn keyed<'a>(&'a mut self, sql: &'a str) -> (&'a mut LruCache<Box<str>, Statement>, &'a str) {
        let Some(owner) = &self.owner else {
            return (&mut self.statements, sql);
        };
        self.key.clear();
        self.key.push_str(sql);
        self.key.push('\0');
        self.key.push_str(owner);
        (&mut self.statements, &self.key)
    }

    /// Takes out what is no longer good.
    fn renew(&mut self, now: Stamp) -> Option<LruCache<Box<str>, Statement>> {
        if self.stamp == now {
            return None;
        }
        self.stamp = now;
        Some(std::mem::replace(
            &mut self.statements,
            LruCache::unbounded(),
        ))
    }
}

/// A statement that is being prepared.
pub(crate) struct Preparing<'a>(&'a AtomicU32);

impl Preparing<'_> {
    /// Its answer came.
    pub(crate) fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        // Ordering: Relaxed, as in `has_lost_many`.
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_tells_whether_statements_are_gone() {
        for tag in [
            "DEALLOCATE",
            "DEALLOCATE ALL",
            "DISCARD ALL",
            "ALTER TABLE",
            "ALTER TYPE",
            "DROP TABLE",
            "DROP SCHEMA",
            "CREATE VIEW",
            "CREATE FUNCTION",
        ] {
            assert!(are_cleared_by(tag.as_bytes()), "{tag}");
        }
        for tag in [
            "SELECT 1",
            "INSERT 0 1",
            "DELETE 7",
            "DECLARE CURSOR",
            "DISCARD TEMP",
            "DISCARD PLANS",
            "COMMIT",
            "COPY 3",
            "CREATE TABLE",
            "CREATE INDEX",
            "",
        ] {
            assert!(!are_cleared_by(tag.as_bytes()), "{tag}");
        }
    }
}

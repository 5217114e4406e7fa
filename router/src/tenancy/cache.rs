//! What is known of tenants: a bounded number of answers, each for a while.
//!
//! # What always holds
//! Callers who ask for one tenant at the same time share one question, and its failure too. An answer to a question
//! that was asked before the tenant was [forgotten](Cache::forget) serves those who waited for it and nobody
//! else. A tenant that is found unchanged goes on as the same value, with its counts and its limits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::error::TenantError;
use super::id::TenantId;
use super::load::TenantCounts;
use super::tenant::Tenant;

pub(crate) type Answer = Result<Arc<Tenant>, TenantError>;

pub(crate) struct Cache {
    entries: Mutex<Entries>,
    /// How many answers are kept.
    limit: usize,
    /// For how long a place is good.
    max_age: Duration,
    /// For how long it is good that there is none, or none to go to.
    negative_age: Duration,
}

struct Entries {
    by_tenant: LruCache<TenantId, Arc<Entry>>,
    /// What those counted who are no longer here.
    left: TenantCounts,
}

#[derive(Default)]
struct Entry {
    answered: OnceCell<Answered>,
    /// Where the tenant was known to be before.
    before: Option<Arc<Tenant>>,
}

struct Answered {
    at: Instant,
    answer: Answer,
}

impl Entry {
    /// The tenant as it was known last.
    fn last_known(&self) -> Option<&Arc<Tenant>> {
        let answered = self.answered.get();
        let found = answered.and_then(|answered| answered.answer.as_ref().ok());
        found.or(self.before.as_ref())
    }
}

impl Cache {
    pub(crate) fn new(limit: usize, max_age: Duration, negative_age: Duration) -> Self {
        Self {
            entries: Mutex::new(Entries {
                // Bounded by hand: a bounded one takes the room for all at once.
                by_tenant: LruCache::unbounded(),
                left: TenantCounts::default(),
            }),
            limit: limit.max(1),
            max_age,
            negative_age,
        }
    }

    /// What is known of a tenant; `ask` finds it out, given what was known before.
    pub(crate) async fn get<A>(
        &self,
        tenant: &TenantId,
        ask: impl FnOnce(Option<Arc<Tenant>>) -> A,
    ) -> Answer
    where
        A: Future<Output = Answer>,
    {
        let entry = self.entry(tenant, Instant::now());
        let asked = entry.answered.get_or_init(|| async {
            let answer = ask(entry.before.clone()).await;
            Answered {
                at: Instant::now(),
                answer,
            }
        });
        asked.await.answer.clone()
    }

    fn entry(&self, tenant: &TenantId, now: Instant) -> Arc<Entry> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.by_tenant.get(tenant)
            && !self.is_old(entry, now)
        {
            return Arc::clone(entry);
        }
        let gone = entries.put(tenant, self.limit);
        let entry = Arc::clone(entries.by_tenant.get(tenant).expect("put there just now"));
        drop(entries); // Before what is gone: its end may be the end of pools.
        drop(gone);
        entry
    }

    fn is_old(&self, entry: &Entry, now: Instant) -> bool {
        let Some(answered) = entry.answered.get() else {
            return false;
        };
        let age = match &answered.answer {
            Ok(_) => self.max_age,
            // The next one asks again.
            Err(TenantError::Resolver { .. }) => Duration::ZERO,
            Err(_) => self.negative_age,
        };
        now.saturating_duration_since(answered.at) >= age
    }

    /// Has a tenant looked up anew by whoever asks next.
    pub(crate) fn forget(&self, tenant: &TenantId) {
        let mut entries = self.entries.lock();
        if entries.by_tenant.contains(tenant) {
            let gone = entries.put(tenant, self.limit);
            drop(entries);
            drop(gone);
        }
    }

    /// Has all tenants looked up anew.
    pub(crate) fn forget_all(&self) {
        let mut entries = self.entries.lock();
        for (_, entry) in &mut entries.by_tenant {
            *entry = Arc::new(Entry {
                before: entry.last_known().cloned(),
                ..Entry::default()
            });
        }
    }

    /// How many answers are kept.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().by_tenant.len()
    }

    /// The tenants that are known, and what those counted who are not any more.
    pub(crate) fn known(&self) -> (Vec<Arc<Tenant>>, TenantCounts) {
        let entries = self.entries.lock();
        let known = entries.by_tenant.iter();
        let known = known.filter_map(|(_, entry)| entry.last_known().cloned());
        (known.collect(), entries.left.clone())
    }
}

impl Entries {
    /// Puts an open question in a tenant's place; returns what had to go.
    fn put(&mut self, tenant: &TenantId, limit: usize) -> [Option<Arc<Entry>>; 2] {
        let before = self.by_tenant.peek(tenant);
        let entry = Arc::new(Entry {
            before: before.and_then(|entry| entry.last_known().cloned()),
            ..Entry::default()
        });
        let replaced = self.by_tenant.put(tenant.clone(), entry);
        let full = self.by_tenant.len() > limit;
        let evicted = full.then(|| self.by_tenant.pop_lru()).flatten();
        let evicted = evicted.map(|(_, entry)| entry);
        if let Some(tenant) = evicted.as_ref().and_then(|entry| entry.last_known()) {
            let mut counts = tenant.load.counts();
            (counts.under_way, counts.waiting) = (0, 0);
            self.left.add(&counts);
        }
        [replaced, evicted]
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::ready;

    use futures_util::future::join_all;
    use futures_util::{FutureExt, poll};

    use super::super::load::{Limits, Load};
    use super::super::placement::{Placement, TenantRecord};
    use super::*;

    fn id(name: &str) -> TenantId {
        name.parse().expect("an id")
    }

    fn tenant(name: &str) -> Arc<Tenant> {
        let record = TenantRecord::new(Placement::rows("main"));
        let load = Load::new(Limits::default());
        Arc::new(Tenant::new(id(name), record, "app.tenant_id", load).expect("a tenant"))
    }

    fn cache() -> Cache {
        Cache::new(2, Duration::from_mins(1), Duration::from_mins(1))
    }

    #[tokio::test]
    async fn callers_at_the_same_time_share_one_question_and_one_that_leaves_passes_it_on() {
        let cache = cache();
        let (questions, acme) = (Cell::new(0), id("acme"));
        let ask = |_| {
            questions.set(questions.get() + 1);
            async {
                tokio::task::yield_now().await;
                Ok(tenant("acme"))
            }
        };
        let mut leaving = Box::pin(cache.get(&acme, ask));
        assert!(poll!(&mut leaving).is_pending());
        let all = join_all((0..10).map(|_| cache.get(&acme, ask)));
        drop(leaving);
        let answers = all.await;
        assert_eq!(questions.get(), 2, "one for the one that left");
        let first = answers[0].as_ref().expect("found");
        assert!(
            answers
                .iter()
                .all(|it| Arc::ptr_eq(it.as_ref().expect("found"), first))
        );
        cache.get(&acme, ask).await.expect("found");
        assert_eq!(questions.get(), 2, "cached");
    }

    #[tokio::test]
    async fn what_is_not_there_is_remembered_and_what_failed_is_not() {
        let cache = cache();
        let questions = Cell::new(0);
        for (name, expected) in [("unknown", 1), ("failing", 3)] {
            questions.set(0);
            for _ in 0..3 {
                let ask = |_| {
                    questions.set(questions.get() + 1);
                    let tenant = id(name);
                    ready(Err(match name {
                        "unknown" => TenantError::Unknown { tenant },
                        _ => TenantError::Resolver {
                            tenant,
                            cause: pool_postgres::Error::new(
                                pool_postgres::ErrorKind::Connect,
                                "down",
                            ),
                        },
                    }))
                };
                assert!(cache.get(&id(name), ask).await.is_err());
            }
            assert_eq!(questions.get(), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn an_answer_to_an_older_question_is_not_kept_once_the_tenant_was_forgotten() {
        let cache = cache();
        let (answer, waiting) = tokio::sync::oneshot::channel();
        let acme = id("acme");
        let mut old = Box::pin(cache.get(&acme, |_| async {
            let _ = waiting.await;
            Ok(tenant("acme"))
        }));
        assert!(poll!(&mut old).is_pending());
        cache.forget(&acme);
        answer.send(()).expect("somebody waits");
        old.await.expect("found");
        let asked = Cell::new(false);
        let again = cache.get(&acme, |_| {
            asked.set(true);
            ready(Ok(tenant("acme")))
        });
        again.await.expect("found");
        assert!(asked.get());
    }

    #[test]
    fn the_least_recently_asked_for_goes_first_and_its_counts_stay() {
        let cache = cache();
        let get = |name: &str| {
            let id = id(name);
            let found = cache.get(&id, |_| ready(Ok(tenant(name))));
            found.now_or_never().expect("at once").expect("found")
        };
        let first = get("a");
        let riding = first.load.enter(&first.id).now_or_never().expect("room");
        riding.expect("room").begun();
        get("b");
        get("c");
        assert_eq!(cache.len(), 2);
        let (known, left) = cache.known();
        assert!(known.iter().all(|tenant| tenant.id.as_str() != "a"));
        assert_eq!(left.transactions, 1);
    }
}

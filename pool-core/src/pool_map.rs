//! One pool for each key: per host, per tenant, per user.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::backend::Backend;
use crate::config::Builder;
use crate::error::BuildError;
use crate::pool::Pool;
use crate::stats::Stats;
use crate::tally::Times;

/// A pool for each key, made at its first use: a handle that is cheap to clone.
///
/// Callers that ask for one key at the same time get one pool. Beyond
/// [`max_pools`](Self::max_pools) the least recently used pool is closed, but never one that is in use: one of
/// which a connection is checked out, for which somebody waits, or of which somebody holds a handle. Give the
/// builders a [`Budget`](crate::Budget) to bound the connections over all of them; a pool without connections
/// costs less than a kilobyte and no task.
///
/// ```
/// # struct Echo(&'static str);
/// # impl pool_core::Backend for Echo {
/// #     type Connection = String;
/// #     type Error = std::convert::Infallible;
/// #     async fn connect(&self) -> Result<String, Self::Error> { Ok(self.0.to_owned()) }
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use pool_core::{Budget, Pool, PoolMap};
///
/// let budget = Budget::new(50);
/// let hosts = PoolMap::new(move |host: &&'static str| Pool::builder(Echo(host)).budget(&budget))
///     .max_pools(1_000);
/// let conn = hosts.pool(&"a.example")?.get_owned().await?;
/// assert_eq!(*conn, "a.example");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub struct PoolMap<K, B: Backend>(Arc<Inner<K, B>>);

struct Inner<K, B: Backend> {
    make: Box<Make<K, B>>,
    /// How long things took in all pools there ever were.
    times: Arc<Times>,
    pools: Mutex<Pools<K, B>>,
}

type Make<K, B> = dyn Fn(&K) -> Builder<B> + Send + Sync;
type Place<B> = Arc<OnceLock<Result<Pool<B>, BuildError>>>;

struct Pools<K, B: Backend> {
    by_key: HashMap<K, (Place<B>, u64)>,
    /// Keys by their last use.
    by_use: BTreeMap<u64, K>,
    uses: u64,
    most: usize,
}

impl<K, B: Backend> Clone for PoolMap<K, B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, B> PoolMap<K, B>
where
    K: Clone + Eq + Hash + Send + 'static,
    B: Backend,
{
    /// Makes each key's pool by `make`, which gives the builder. At most 10,000 pools; see
    /// [`max_pools`](Self::max_pools).
    pub fn new(make: impl Fn(&K) -> Builder<B> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            make: Box::new(make),
            times: Arc::default(),
            pools: Mutex::new(Pools {
                by_key: HashMap::new(),
                by_use: BTreeMap::new(),
                uses: 0,
                most: 10_000,
            }),
        }))
    }

    /// How many pools are kept. Default 10,000; at least one is. Those in use are kept beyond it.
    pub fn max_pools(self, pools: usize) -> Self {
        self.0.pools.lock().most = pools.max(1);
        self
    }

    /// The key's pool, made now if there is none. Opens nothing.
    ///
    /// # Errors
    /// [`BuildError`], where the builder that was given for this key refuses its settings. The key is forgotten,
    /// and asked for again the next time.
    pub fn pool(&self, key: &K) -> Result<Pool<B>, BuildError> {
        let (place, outdated) = self.0.pools.lock().touch(key);
        drop(outdated); // Closes them; a destructor is user code and runs without the lock.
        // Outside the lock as well: others who want this key wait here, others go their way.
        let build = || (self.0.make)(key).times(&self.0.times).build();
        let made = place.get_or_init(build).clone();
        if made.is_err() {
            self.0.pools.lock().forget(key, &place);
        }
        made
    }

    /// How many pools there are.
    pub fn len(&self) -> usize {
        self.0.pools.lock().by_key.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every key and its pool, as they are now.
    pub fn snapshot(&self) -> Vec<(K, Pool<B>)> {
        let pools = self.0.pools.lock();
        let made = |(key, (place, _)): (&K, &(Place<B>, u64))| {
            let pool = place.get()?.as_ref().ok()?;
            Some((key.clone(), pool.clone()))
        };
        pools.by_key.iter().filter_map(made).collect()
    }

    /// What the pools have done: counts summed over those that are in the map now, times over all that ever were.
    pub fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        let mut late = 0;
        for (_, pool) in self.snapshot() {
            let (stats, served_late) = pool.counts();
            sum.add(&stats);
            late += served_late;
        }
        let at_once = sum.checkouts.saturating_sub(late);
        sum.timed(&self.0.times, at_once);
        sum
    }

    /// Forgets a key. Its pool is closed when the last handle to it is dropped.
    pub fn remove(&self, key: &K) -> Option<Pool<B>> {
        let place = self.0.pools.lock().remove(key)?;
        place.get()?.as_ref().ok().cloned()
    }

    /// Closes all pools, side by side, as [`Pool::close`] does, and forgets them.
    pub async fn close(&self) {
        let all = {
            let mut pools = self.0.pools.lock();
            pools.by_use.clear();
            std::mem::take(&mut pools.by_key)
        };
        let pools: Vec<_> = all
            .into_values()
            .filter_map(|(place, _)| place.get()?.as_ref().ok().cloned())
            .collect();
        futures::future::join_all(pools.iter().map(Pool::close)).await;
    }
}

impl<K: Clone + Eq + Hash, B: Backend> Pools<K, B> {
    /// The key's place, now the last used; and what is to be closed for it.
    fn touch(&mut self, key: &K) -> (Place<B>, Vec<Place<B>>) {
        self.uses += 1;
        let now = self.uses;
        if let Some((place, used)) = self.by_key.get_mut(key) {
            let before = std::mem::replace(used, now);
            if let Some(key) = self.by_use.remove(&before) {
                self.by_use.insert(now, key);
            }
            return (Arc::clone(place), Vec::new());
        }
        let place = Place::<B>::default();
        self.by_key.insert(key.clone(), (Arc::clone(&place), now));
        self.by_use.insert(now, key.clone());
        (place, self.evict(now))
    }

    /// Takes out the least recently used, as many as are too many, but none that is in use.
    fn evict(&mut self, newest: u64) -> Vec<Place<B>> {
        let surplus = self.by_key.len().saturating_sub(self.most);
        let unused = |(used, key): (&u64, &K)| {
            let (place, _) = self.by_key.get(key)?;
            let unused = *used != newest
                && Arc::strong_count(place) == 1
                && match place.get() {
                    Some(Ok(pool)) => pool.is_unused(),
                    // Nobody is making it: whoever began has panicked.
                    Some(Err(_)) | None => true,
                };
            unused.then(|| key.clone())
        };
        let keys: Vec<_> = self
            .by_use
            .iter()
            .filter_map(unused)
            .take(surplus)
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }

    fn remove(&mut self, key: &K) -> Option<Place<B>> {
        let (place, used) = self.by_key.remove(key)?;
        self.by_use.remove(&used);
        Some(place)
    }

    /// Takes a place out, unless another stands there by now.
    fn forget(&mut self, key: &K, place: &Place<B>) {
        let same = |(known, _): &(Place<B>, u64)| Arc::ptr_eq(known, place);
        if self.by_key.get(key).is_some_and(same) {
            self.remove(key);
        }
    }
}

impl<K, B: Backend> fmt::Debug for PoolMap<K, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pools = self.0.pools.lock();
        f.debug_struct("PoolMap")
            .field("pools", &pools.by_key.len())
            .field("max_pools", &pools.most)
            .finish_non_exhaustive()
    }
}

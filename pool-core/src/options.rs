//! What one caller asks for, where it differs from the pool's settings.

use std::panic::Location;
use std::time::{Duration, Instant};

use crate::clock;
use crate::raw::wait::NEVER;

/// How one checkout waits: for [`Pool::get_with`](crate::Pool::get_with).
///
/// ```
/// # struct Echo;
/// # impl pool_core::Backend for Echo {
/// #     type Connection = String;
/// #     type Error = std::convert::Infallible;
/// #     async fn connect(&self) -> Result<String, Self::Error> { Ok(String::from("hello")) }
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use std::time::{Duration, Instant};
/// use pool_core::{GetOptions, Pool};
///
/// let pool = Pool::builder(Echo).build()?;
/// // A request that has two seconds in all gives its second attempt only what is left of them.
/// let deadline = Instant::now() + Duration::from_secs(2);
/// let conn = pool.get_with(GetOptions::new().deadline(deadline)).await?;
/// # drop(conn);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "options do nothing until they are given to `get_with`"]
pub struct GetOptions {
    limit: Limit,
    pub(crate) place: &'static Location<'static>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Pools,
    Timeout(Option<Duration>),
    Deadline(Instant),
}

/// When a caller stops waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// It takes what is idle, and opens where there is room, but does not wait for others.
    None,
    /// On the pool's clock; [`NEVER`] waits for ever.
    Until(u64),
}

impl Default for GetOptions {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl GetOptions {
    /// The pool's own `pool_timeout`, on behalf of the calling line.
    #[track_caller]
    pub fn new() -> Self {
        Self {
            limit: Limit::Pools,
            place: Location::caller(),
        }
    }

    /// Waits this long instead of `pool_timeout`. Zero never waits, `None` waits for ever.
    pub fn timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.limit = Limit::Timeout(limit.into());
        self
    }

    /// Waits until then. Where the moment is past, what is idle is still handed out.
    pub fn deadline(mut self, at: Instant) -> Self {
        self.limit = Limit::Deadline(at);
        self
    }

    /// Notes `place` as the line that holds the connection, instead of the one that called [`new`](Self::new).
    pub fn place(mut self, place: &'static Location<'static>) -> Self {
        self.place = place;
        self
    }

    /// When to stop waiting, for a caller that begins `now`.
    pub(crate) fn patience(&self, pools: Option<Duration>, now: u64) -> Patience {
        let limit = match self.limit {
            Limit::Pools => pools,
            Limit::Timeout(limit) => limit,
            Limit::Deadline(at) => {
                let at = clock::from_instant(at);
                return if at <= now {
                    Patience::None
                } else {
                    Patience::Until(at)
                };
            }
        };
        match limit {
            Some(Duration::ZERO) => Patience::None,
            Some(limit) => Patience::Until(now.saturating_add(clock::micros(limit))),
            None => Patience::Until(NEVER),
        }
    }
}

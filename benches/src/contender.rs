//! The pools that are compared, each over the same trivial connection and with the same settings.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Deref;
use std::time::Duration;

use anyhow::{Result, anyhow};

/// How long anybody waits for a connection, in every pool.
pub const WAIT: Duration = Duration::from_secs(30);

/// Makes connections that are plain numbers.
#[derive(Debug)]
pub struct Numbers;

/// A pool with the given number of connections, none of which is ever bad.
pub trait Contender: Clone + Send + Sync + 'static {
    /// What the table calls it.
    const NAME: &'static str;

    /// Makes the pool.
    fn of(connections: usize) -> impl Future<Output = Result<Self>> + Send;

    /// Checks a connection out; dropping it returns it.
    fn get(&self) -> impl Future<Output = Result<impl Deref<Target = u64> + Send>> + Send;

    /// Checks out and returns so many times, one after the other, with nothing of ours around the pool's calls.
    fn cycles(&self, count: u32) -> impl Future<Output = Result<()>> + Send;

    /// Opens every connection, so that what follows measures no opening.
    fn warm(&self, connections: usize) -> impl Future<Output = Result<()>> + Send {
        async move {
            let mut held = Vec::with_capacity(connections);
            for _ in 0..connections {
                held.push(self.get().await?);
            }
            Ok(())
        }
    }
}

impl pool_core::Backend for Numbers {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }
}

/// This project's pool, with guards that borrow it.
#[derive(Clone, Debug)]
pub struct Ours(pub pool_core::Pool<Numbers>);

impl Contender for Ours {
    const NAME: &'static str = "ours";

    async fn of(connections: usize) -> Result<Self> {
        let pool = pool_core::Pool::builder(Numbers)
            .pool_size(connections)
            .max_overflow(0)
            .pool_timeout(WAIT)
            .build()?;
        Ok(Self(pool))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        Ok(self.0.get().await?)
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(*self.0.get().await?);
        }
        Ok(())
    }
}

/// This project's pool, with guards that own their share of it.
#[derive(Clone, Debug)]
pub struct OursOwned(pub pool_core::Pool<Numbers>);

impl Contender for OursOwned {
    const NAME: &'static str = "ours, owned";

    async fn of(connections: usize) -> Result<Self> {
        Ok(Self(Ours::of(connections).await?.0))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        Ok(self.0.get_owned().await?)
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(*self.0.get_owned().await?);
        }
        Ok(())
    }
}

impl deadpool::managed::Manager for Numbers {
    type Type = u64;
    type Error = Infallible;

    async fn create(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn recycle(
        &self,
        _: &mut u64,
        _: &deadpool::managed::Metrics,
    ) -> deadpool::managed::RecycleResult<Infallible> {
        Ok(())
    }
}

/// deadpool 0.13.
#[derive(Clone)]
pub struct Deadpool(pub deadpool::managed::Pool<Numbers>);

impl Contender for Deadpool {
    const NAME: &'static str = "deadpool";

    async fn of(connections: usize) -> Result<Self> {
        let pool = deadpool::managed::Pool::builder(Numbers)
            .max_size(connections)
            .wait_timeout(Some(WAIT))
            .runtime(deadpool::Runtime::Tokio1)
            .build()?;
        Ok(Self(pool))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        self.0
            .get()
            .await
            .map_err(|error| anyhow!("deadpool: {error}"))
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(
                *self
                    .0
                    .get()
                    .await
                    .map_err(|error| anyhow!("deadpool: {error}"))?,
            );
        }
        Ok(())
    }
}

impl bb8::ManageConnection for Numbers {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

/// bb8 0.9.
#[derive(Clone, Debug)]
pub struct Bb8(pub bb8::Pool<Numbers>);

impl Contender for Bb8 {
    const NAME: &'static str = "bb8";

    async fn of(connections: usize) -> Result<Self> {
        let pool = bb8::Pool::builder()
            .max_size(u32::try_from(connections)?)
            .connection_timeout(WAIT)
            .test_on_check_out(false)
            .build(Numbers)
            .await?;
        Ok(Self(pool))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        self.0.get().await.map_err(|error| anyhow!("bb8: {error}"))
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(
                *self
                    .0
                    .get()
                    .await
                    .map_err(|error| anyhow!("bb8: {error}"))?,
            );
        }
        Ok(())
    }
}

impl r2d2::ManageConnection for Numbers {
    type Connection = u64;
    type Error = Infallible;

    fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    fn is_valid(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut u64) -> bool {
        false
    }
}

/// r2d2 0.8: it blocks its thread, so it takes part only where nobody waits.
#[derive(Clone, Debug)]
pub struct R2d2(pub r2d2::Pool<Numbers>);

impl Contender for R2d2 {
    const NAME: &'static str = "r2d2";

    async fn of(connections: usize) -> Result<Self> {
        let pool = r2d2::Pool::builder()
            .max_size(u32::try_from(connections)?)
            .connection_timeout(WAIT)
            .test_on_check_out(false)
            .build(Numbers)?;
        Ok(Self(pool))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        Ok(self.0.get()?)
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(*self.0.get()?);
        }
        Ok(())
    }
}

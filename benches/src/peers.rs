//! The pools that ours is compared with.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Deref;

use anyhow::{Result, anyhow};

use crate::contender::{Contender, Numbers, WAIT};

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

impl fast_pool::Manager for Numbers {
    type Connection = u64;
    type Error = String;

    async fn connect(&self) -> Result<u64, String> {
        Ok(7)
    }

    async fn check(&self, _: &mut u64) -> Result<(), String> {
        Ok(())
    }
}

/// fast_pool 1.0: its check at checkout can't be left out, so here it does nothing.
#[derive(Clone, Debug)]
pub struct FastPool(pub fast_pool::Pool<Numbers>);

impl Contender for FastPool {
    const NAME: &'static str = "fast_pool";

    async fn of(connections: usize) -> Result<Self> {
        let pool = fast_pool::Pool::new(Numbers);
        pool.set_max_open(u64::try_from(connections)?);
        pool.set_max_idle_conns(u64::try_from(connections)?);
        pool.set_timeout_wait(Some(WAIT));
        Ok(Self(pool))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        self.0
            .get()
            .await
            .map_err(|error| anyhow!("fast_pool: {error}"))
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(
                *self
                    .0
                    .get()
                    .await
                    .map_err(|error| anyhow!("fast_pool: {error}"))?,
            );
        }
        Ok(())
    }
}

#[mobc::async_trait]
impl mobc::Manager for Numbers {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self) -> Result<u64, Infallible> {
        Ok(7)
    }

    async fn check(&self, connection: u64) -> Result<u64, Infallible> {
        Ok(connection)
    }
}

/// mobc 0.9: a task that it spawns gives each connection back.
#[derive(Clone, Debug)]
pub struct Mobc(pub mobc::Pool<Numbers>);

impl Contender for Mobc {
    const NAME: &'static str = "mobc";

    async fn of(connections: usize) -> Result<Self> {
        let pool = mobc::Pool::builder()
            .max_open(u64::try_from(connections)?)
            .max_idle(u64::try_from(connections)?)
            .get_timeout(Some(WAIT))
            .test_on_check_out(false)
            .build(Numbers);
        Ok(Self(pool))
    }

    async fn get(&self) -> Result<impl Deref<Target = u64> + Send> {
        self.0.get().await.map_err(|error| anyhow!("mobc: {error}"))
    }

    async fn cycles(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            black_box(
                *self
                    .0
                    .get()
                    .await
                    .map_err(|error| anyhow!("mobc: {error}"))?,
            );
        }
        Ok(())
    }
}

//! What a pool must do to be compared, and ours.
//!
//! Every pool here has the same settings: the same wait timeout, no check at checkout that can be left out, all else by
//! default. Its connections are plain numbers that cost nothing to open.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Deref;
use std::time::Duration;

use anyhow::Result;

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

/// The settings of this project's pool, as all workloads have them.
pub fn settings(connections: usize) -> pool_core::Builder<Numbers> {
    pool_core::Pool::builder(Numbers)
        .pool_size(connections)
        .max_overflow(0)
        .pool_timeout(WAIT)
}

/// This project's pool, with guards that borrow it.
#[derive(Clone, Debug)]
pub struct Ours(pub pool_core::Pool<Numbers>);

impl Contender for Ours {
    const NAME: &'static str = "ours";

    async fn of(connections: usize) -> Result<Self> {
        Ok(Self(settings(connections).build()?))
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
        Ok(Self(settings(connections).build()?))
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

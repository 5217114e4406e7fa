//! Skeleton, replaced shortly: the public API only.
#![allow(missing_docs, clippy::todo, clippy::unused_async)]
use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;

use crate::backend::Backend;
use crate::config::{Builder, Config};
use crate::error::GetError;
use crate::status::{CloseReport, Status};

pub struct Pool<B: Backend>(Arc<(Arc<B>, Config)>);
impl<B: Backend> Clone for Pool<B> {
    fn clone(&self) -> Self { Self(Arc::clone(&self.0)) }
}
impl<B: Backend> Pool<B> {
    pub fn builder(backend: B) -> Builder<B> { Builder::new(backend) }
    pub(crate) fn new(backend: Arc<B>, config: Config) -> Self { Self(Arc::new((backend, config))) }
    pub fn backend(&self) -> &B { &self.0.0 }
    #[track_caller]
    pub fn get(&self) -> impl Future<Output = Result<PooledConnection<'_, B>, GetError<B::Error>>> + Send + '_ { self.get_at(Location::caller()) }
    pub fn get_at(&self, place: &'static Location<'static>) -> impl Future<Output = Result<PooledConnection<'_, B>, GetError<B::Error>>> + Send + '_ { let _ = place; async { todo!() } }
    #[track_caller]
    pub fn get_owned(&self) -> impl Future<Output = Result<OwnedPooledConnection<B>, GetError<B::Error>>> + Send + use<B> { self.get_owned_at(Location::caller()) }
    pub fn get_owned_at(&self, place: &'static Location<'static>) -> impl Future<Output = Result<OwnedPooledConnection<B>, GetError<B::Error>>> + Send + use<B> { let pool = self.clone(); let _ = place; async move { let _ = pool; todo!() } }
    #[track_caller]
    pub fn try_get(&self) -> Option<PooledConnection<'_, B>> { todo!() }
    #[track_caller]
    pub fn try_get_owned(&self) -> Option<OwnedPooledConnection<B>> { todo!() }
    pub fn status(&self) -> Status { todo!() }
    /// Soft: idle ones are closed, those in use when they come back.
    pub fn invalidate_all(&self) { todo!() }
    pub fn close(&self) -> impl Future<Output = CloseReport> + Send + '_ { async { todo!() } }
}
pub struct PooledConnection<'a, B: Backend>(&'a Pool<B>);
pub struct OwnedPooledConnection<B: Backend>(Pool<B>);
impl<B: Backend> Deref for PooledConnection<'_, B> { type Target = B::Connection; fn deref(&self) -> &B::Connection { todo!() } }
impl<B: Backend> DerefMut for PooledConnection<'_, B> { fn deref_mut(&mut self) -> &mut B::Connection { todo!() } }
impl<B: Backend> Deref for OwnedPooledConnection<B> { type Target = B::Connection; fn deref(&self) -> &B::Connection { todo!() } }
impl<B: Backend> DerefMut for OwnedPooledConnection<B> { fn deref_mut(&mut self) -> &mut B::Connection { todo!() } }
impl<B: Backend> PooledConnection<'_, B> {
    /// Returns it for closing.
    pub fn invalidate(self) { let _ = self.0; todo!() }
    /// Takes it out of the pool for good.
    pub fn detach(self) -> B::Connection { todo!() }
    /// Tells the pool what an error said (runs `Backend::classify`): Generation makes all of its age suspect, and closes this one on return.
    pub fn report(&mut self, error: &B::Error) { let _ = error; todo!() }
}
impl<B: Backend> OwnedPooledConnection<B> {
    pub fn invalidate(self) { let _ = self.0; todo!() }
    pub fn detach(self) -> B::Connection { todo!() }
    pub fn report(&mut self, error: &B::Error) { let _ = error; todo!() }
}

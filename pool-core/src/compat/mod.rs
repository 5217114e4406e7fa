//! Managers that were written for other pools, used unchanged.
//!
//! | feature | adapter | takes any |
//! |---|---|---|
//! | `bb8` | `Bb8` | `bb8::ManageConnection` |
//! | `r2d2` | `R2d2` | `r2d2::ManageConnection`, whose calls block |
//!
//! In both, `has_broken` is asked at every checkout and return ([`Backend::check`](crate::Backend::check)),
//! and `is_valid` is the ping ([`PrePing`](crate::PrePing) says when; the other pools ping at every checkout).
//! Both managers know no reset: what a caller leaves behind in a connection, the next one finds.

#[cfg(feature = "bb8")]
mod bb8;
#[cfg(feature = "r2d2")]
mod r2d2;

use std::sync::Arc;

use crate::backend::{Failure, Health};

#[cfg(feature = "bb8")]
pub use self::bb8::Bb8;
#[cfg(feature = "r2d2")]
pub use self::r2d2::{R2d2, R2d2Connection};

type Convert<From, To> = dyn Fn(From) -> To + Send + Sync;
type Classify<E> = dyn Fn(&E) -> Failure + Send + Sync;

/// What is done with a manager's errors.
struct Errors<From, To> {
    convert: Arc<Convert<From, To>>,
    classify: Option<Box<Classify<To>>>,
}

impl<From, To> Errors<From, To> {
    fn converted(convert: impl Fn(From) -> To + Send + Sync + 'static) -> Self {
        Self {
            convert: Arc::new(convert),
            classify: None,
        }
    }

    fn classify(&self, error: &To) -> Failure {
        match &self.classify {
            Some(classify) => classify(error),
            None => Failure::Transient,
        }
    }
}

fn health(has_broken: bool) -> Health {
    if has_broken {
        Health::Broken
    } else {
        Health::Good
    }
}

//! What was checked: by name, how many comparisons were made, how many failed, and the first failure.
//!
//! What always holds: `checked` counts comparisons that were really made, so a check that never came to
//! compare anything counts as failed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

/// All checks, in the order in which they were named.
#[derive(Default)]
pub(crate) struct Checks(Mutex<Vec<Arc<Check>>>);

/// One check; shared by all tasks that compare for it.
pub(crate) struct Check {
    name: String,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    checked: u64,
    failed: u64,
    first_failure: Option<String>,
}

/// A check as it stands.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) checked: u64,
    pub(crate) failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_failure: Option<String>,
}

impl Checks {
    /// The check of that name; a new one the first time.
    pub(crate) fn named(&self, name: impl Into<String>) -> Arc<Check> {
        let (name, mut all) = (name.into(), lock(&self.0));
        if let Some(check) = all.iter().find(|check| check.name == name) {
            return Arc::clone(check);
        }
        let check = Arc::new(Check {
            name,
            count: Mutex::default(),
        });
        all.push(Arc::clone(&check));
        check
    }

    /// Every check as it stands.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        lock(&self.0).iter().map(|check| check.outcome()).collect()
    }
}

impl Check {
    /// Makes one comparison; the text is of a failure.
    pub(crate) fn that(&self, holds: bool, otherwise: impl FnOnce() -> String) {
        let mut count = lock(&self.count);
        count.checked += 1;
        if !holds {
            count.failed += 1;
            if count.first_failure.is_none() {
                count.first_failure = Some(otherwise());
            }
        }
    }

    /// Makes one comparison of two values.
    pub(crate) fn equal<T: PartialEq + std::fmt::Debug>(&self, what: &str, is: &T, should_be: &T) {
        self.that(is == should_be, || {
            format!("{what}: {is:?}, expected {should_be:?}")
        });
    }

    fn outcome(&self) -> Outcome {
        let count = lock(&self.count);
        Outcome {
            name: self.name.clone(),
            checked: count.checked,
            failed: count.failed,
            first_failure: count.first_failure.clone(),
        }
    }
}

impl Outcome {
    /// Whether something was compared and all of it held.
    pub(crate) fn passed(&self) -> bool {
        self.checked > 0 && self.failed == 0
    }
}

/// Locks; a panic elsewhere leaves nothing half-done in what the tour keeps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

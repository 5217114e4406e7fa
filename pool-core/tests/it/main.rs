//! The pool as its users see it, over a scripted backend. Nothing here waits for real time to pass.

mod counters;
mod lifetime;
mod opening;
mod returning;
mod scripted;
mod waiting;

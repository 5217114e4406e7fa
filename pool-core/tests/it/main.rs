//! The pool as its users see it, over a scripted backend. Nothing here waits for real time to pass.

mod blocking;
mod budget;
mod cancel;
mod closing;
mod counters;
mod features;
mod fn_backend;
mod guarantees;
mod housekeeping;
mod large;
mod lifetime;
mod model;
mod opening;
mod panics;
mod pool_map;
mod queueing;
mod renewing;
mod resizing;
mod returning;
mod runtimes;
mod scripted;
mod settings;
mod storm;
mod suspending;
mod waiting;

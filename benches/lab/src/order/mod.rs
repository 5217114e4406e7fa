//! Orders of waiting that are not ours: who is served next, and who is sent away. Each is a file here.

mod codel;
mod lifo;

pub use codel::CoDel;
pub use lifo::AdaptiveLifo;

//! What pool-core does with other people's managers; the tests are all that matters here.
//!
//! Managers for bb8 and r2d2 are used as they are published, against what they are made for: SQLite is a
//! real one, and where no server can be counted on, [`resp`] is a small one that speaks its protocol.

pub mod resp;

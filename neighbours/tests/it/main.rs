//! Managers written for other pools, unchanged, under this one. Nothing here sleeps.

mod adapters;
mod bb8_redis;
mod postgres;
mod r2d2_sqlite;
mod sqlite_file;

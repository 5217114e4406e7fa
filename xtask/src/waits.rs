//! Waiting for what servers and services come to by themselves.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::Client;

pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What is measured from the moment at which a server takes writes is not to be off by more than this.
const LOOK_CLOSELY: Duration = Duration::from_millis(1);

/// Looks until something has happened; says whether it had by that moment.
pub(crate) async fn happened_by(moment: Instant, happened: impl AsyncFn() -> bool) -> bool {
    let looks = async {
        while !happened().await {
            sleep(LOOK_EVERY).await;
        }
    };
    timeout_at(moment, looks).await.is_ok()
}

/// When the server of this connection was first seen to take writes, after a promotion.
pub(crate) async fn takes_writes(client: &Client) -> Result<std::time::Instant> {
    loop {
        let row = client.query_one("SELECT pg_is_in_recovery()", &[]).await?;
        if !row.get::<_, bool>(0) {
            return Ok(std::time::Instant::now());
        }
        sleep(LOOK_CLOSELY).await;
    }
}

//! The router's page for the tour's database, for as long as somebody looks at it.
//!
//! Behind xtask's feature `serve`, so that no other command builds a web server; asked for without it, the command
//! starts itself anew with it.

use anyhow::Result;

/// Starts this command again with what serving needs.
#[cfg(not(feature = "serve"))]
pub(super) fn anew() -> Result<()> {
    let mut again = crate::steps::cargo(&["run", "--quiet", "-p", "xtask", "--features", "serve"]);
    again.arg("--").args(std::env::args_os().skip(1));
    crate::steps::run(again)
}

/// A page that is being served.
#[cfg(feature = "serve")]
pub(super) struct Served {
    pub(super) url: String,
    task: tokio::task::JoinHandle<()>,
}

#[cfg(feature = "serve")]
impl Served {
    /// Serves the page on this machine only.
    pub(super) async fn start(db: &pool_router::Database) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let app = pool_router::console::routes(db);
        let task = tokio::spawn(async move {
            // Ends with the tour.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { url, task })
    }

    /// Serves until somebody interrupts.
    pub(super) async fn until_interrupted(self) -> Result<()> {
        let interrupted = tokio::signal::ctrl_c().await;
        self.task.abort();
        Ok(interrupted?)
    }
}

//! The router's page for the tour's database, for as long as somebody looks at it.
//!
//! Behind xtask's feature `serve`, so that no other command builds a web server; asked for without it, the command
//! starts itself anew with it.

use anyhow::Result;

pub(super) use page::Served;

/// Whether this command was built with what serving needs.
pub(super) const CAN: bool = cfg!(feature = "serve");

/// Starts this command again with what serving needs.
pub(super) fn anew() -> Result<()> {
    let mut again = crate::steps::cargo(&["run", "--quiet", "-p", "xtask", "--features", "serve"]);
    again.arg("--").args(std::env::args_os().skip(1));
    crate::steps::run(again)
}

#[cfg(feature = "serve")]
mod page {
    use anyhow::Result;
    use pool_router::{Database, console};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    /// A page that is being served.
    pub(crate) struct Served {
        url: String,
        task: JoinHandle<()>,
    }

    impl Served {
        /// Serves the page on this machine only.
        pub(crate) async fn start(db: &Database) -> Result<Self> {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let url = format!("http://{}/", listener.local_addr()?);
            let app = console::routes(db);
            let task = tokio::spawn(async move {
                // Ends with the tour.
                let _ = axum::serve(listener, app).await;
            });
            Ok(Self { url, task })
        }

        pub(crate) fn url(&self) -> &str {
            &self.url
        }

        /// Serves until somebody interrupts.
        pub(crate) async fn until_interrupted(self) -> Result<()> {
            let interrupted = tokio::signal::ctrl_c().await;
            self.task.abort();
            Ok(interrupted?)
        }
    }
}

/// No page: there is never one.
#[cfg(not(feature = "serve"))]
mod page {
    use anyhow::{Result, bail};
    use pool_router::Database;

    pub(crate) enum Served {}

    impl Served {
        #[allow(clippy::unused_async, reason = "as the one that serves")]
        pub(crate) async fn start(_: &Database) -> Result<Self> {
            bail!("built without the feature `serve`")
        }

        pub(crate) fn url(&self) -> &str {
            match *self {}
        }

        #[allow(clippy::unused_async, reason = "as the one that serves")]
        pub(crate) async fn until_interrupted(self) -> Result<()> {
            match self {}
        }
    }
}

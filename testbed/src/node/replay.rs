//! What a replica does with the primary's log: how far it is, whether it goes on, and changes of role.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::{Node, SQL_LIMIT};
use crate::Error;
use crate::config::{PASSWORD, SUPERUSER, Upstream};
use crate::postmaster::LOOK_EVERY;
use crate::postmaster::release_memory;

impl Node {
    /// Stops applying the log: its data grows old, while it still receives. Lasts until
    /// [`Node::resume_replay`] or a restart.
    pub async fn pause_replay(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        let client = self.connect("postgres").await?;
        self.execute(&client, "pause the replay", "SELECT pg_wal_replay_pause()")
            .await?;
        // A delayed commit holds the replay where it is; then the request is as good as the pause.
        self.until(
            &client,
            "the pause of the replay",
            "SELECT pg_get_wal_replay_pause_state() = 'paused' OR (pg_get_wal_replay_pause_state() <> \
             'not paused' AND current_setting('recovery_min_apply_delay') <> '0')",
        )
        .await
    }

    /// Goes on applying the log.
    pub async fn resume_replay(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        let client = self.connect("postgres").await?;
        self.resume(&client).await
    }

    async fn resume(&self, client: &Client) -> Result<(), Error> {
        let statement = "SELECT pg_wal_replay_resume() WHERE pg_is_in_recovery()";
        self.execute(client, "resume the replay", statement).await
    }

    /// Makes commits visible on this replica only after this long (`recovery_min_apply_delay`, in
    /// milliseconds); zero takes it back. Stays through restarts.
    pub async fn set_apply_delay(&self, delay: Duration) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        self.state().apply_delay = delay;
        self.write_config()?;
        if !self.is_running() || self.state().frozen {
            return Ok(()); // Read at the next start, or when it thaws.
        }
        self.signal(Signal::SIGHUP);
        let client = self.connect("postgres").await?;
        let wanted = delay.as_millis();
        let reached = format!(
            "SELECT setting = '{wanted}' FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
        );
        self.until(&client, "the new apply delay", &reached).await
    }

    /// Makes this replica a primary, on a new timeline. The old primary knows nothing of it.
    pub async fn promote(&self) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        let client = self.connect("postgres").await?;
        if self.is_replica(&client).await? {
            self.resume(&client).await?;
            let promoted = self.ask(&client, "SELECT pg_promote(true, 60)").await?;
            if !promoted {
                return Err(Error::TimedOut {
                    node: self.name.clone(),
                    waiting_for: "the promotion".to_owned(),
                    waited: Duration::from_mins(1),
                });
            }
            // Who rewinds to this node reads its timeline from its last checkpoint.
            self.execute(&client, "checkpoint", "CHECKPOINT").await?;
        }
        self.state().follows = None;
        Ok(())
    }

    /// Has this running replica stream from another primary without a restart: its connections stay.
    ///
    /// It must have received nothing beyond what the two share, or the time runs out: such a one goes by
    /// [`Node::rejoin`].
    pub async fn follow(&self, primary: &Node) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        let upstream = self.upstream(primary).await?;
        let client = self.connect("postgres").await?;
        if !self.is_replica(&client).await? {
            return Err(Error::Refused(format!(
                "{} is a primary and follows nobody; `rejoin` makes it a replica",
                self.name
            )));
        }
        primary.create_slot(&upstream, &self.name).await?;
        self.state().follows = Some(Upstream { port: primary.port });
        self.write_config()?;
        self.signal(Signal::SIGHUP);
        let streams = format!(
            "SELECT EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_port = {})",
            primary.port
        );
        let event = format!("streaming from {}", primary.name);
        self.until(&client, &event, &streams).await
    }

    /// Makes this node a streaming replica of `primary`, whatever it was before and whether or not it runs.
    ///
    /// What it wrote that `primary` never saw is lost: by `pg_rewind` where that works, else by a new base
    /// backup.
    pub async fn rejoin(&self, primary: &Node) -> Result<(), Error> {
        let _turn = self.lever.lock().await;
        let upstream = self.upstream(primary).await?;
        let follows_already = self
            .state()
            .follows
            .as_ref()
            .is_some_and(|up| up.port == primary.port);
        if follows_already {
            self.start_in_turn().await?;
            if self.streams_now().await? {
                return Ok(());
            }
        }
        primary.create_slot(&upstream, &self.name).await?;
        primary
            .execute(&upstream, "checkpoint", "CHECKPOINT")
            .await?;
        self.stop_in_turn().await?;
        if self.rewind(primary).await.is_err() {
            release_memory(&self.data);
            std::fs::remove_dir_all(&self.data).map_err(Error::io("remove", &self.data))?;
            self.base_backup(primary).await?;
        }
        self.state().follows = Some(Upstream { port: primary.port });
        self.start_in_turn().await?;
        self.wait_streaming().await
    }

    /// A connection to the node that this one is to follow, which has to be another one and a primary.
    async fn upstream(&self, primary: &Node) -> Result<Client, Error> {
        if std::ptr::eq(self, primary) {
            return Err(Error::Refused(format!(
                "{} can't be a replica of itself",
                self.name
            )));
        }
        let upstream = primary.connect("postgres").await?;
        if primary.is_replica(&upstream).await? {
            let (me, other) = (&self.name, &primary.name);
            return Err(Error::Refused(format!(
                "{me} can't join {other}, which is no primary"
            )));
        }
        Ok(upstream)
    }

    async fn rewind(&self, primary: &Node) -> Result<(), Error> {
        let source = format!(
            "host={} port={} user={SUPERUSER} password={PASSWORD} dbname=postgres",
            self.shared.socket_dir.display(),
            primary.port
        );
        let data = self.data.display().to_string();
        let args = [
            "--no-sync",
            "--target-pgdata",
            &data,
            "--source-server",
            &source,
        ];
        self.shared
            .programs
            .run("pg_rewind", &self.shared.dir, &args)
            .await
    }

    async fn base_backup(&self, primary: &Node) -> Result<(), Error> {
        primary.back_up_to(&self.name).await
    }

    /// Copies this running node's data into the data folder of a node named `replica`.
    pub(crate) async fn back_up_to(&self, replica: &str) -> Result<(), Error> {
        let shared = &self.shared;
        let source = format!(
            "host={} port={} user={SUPERUSER} password={PASSWORD}",
            shared.socket_dir.display(),
            self.port
        );
        let data = shared.data_of(replica).display().to_string();
        let args = [
            "--no-sync",
            "--checkpoint=fast",
            "--wal-method=stream",
            "-d",
            &source,
            "-D",
            &data,
        ];
        shared
            .programs
            .run("pg_basebackup", &shared.dir, &args)
            .await
    }

    /// Keeps the log for a replica from now on, unless it is kept already.
    pub(crate) async fn keep_log_for(&self, replica: &str) -> Result<(), Error> {
        let client = self.connect("postgres").await?;
        self.create_slot(&client, replica).await
    }

    async fn create_slot(&self, client: &Client, replica: &str) -> Result<(), Error> {
        let statement = format!(
            "SELECT pg_create_physical_replication_slot('{replica}', true) WHERE NOT EXISTS \
             (SELECT FROM pg_replication_slots WHERE slot_name = '{replica}')"
        );
        self.execute(client, "create a replication slot", &statement)
            .await
    }

    /// Returns once this replica streams from its primary; at once on a primary.
    pub async fn wait_streaming(&self) -> Result<(), Error> {
        let client = self.connect("postgres").await?;
        self.until(&client, "streaming", STREAMS).await
    }

    async fn streams_now(&self) -> Result<bool, Error> {
        let client = self.connect("postgres").await?;
        self.ask(&client, STREAMS).await
    }

    /// Returns once this replica has applied all that `primary` had written when this was called.
    pub async fn wait_until_caught_up(&self, primary: &Node) -> Result<(), Error> {
        let upstream = primary.connect("postgres").await?;
        let row = upstream.query_one("SELECT pg_current_wal_lsn()", &[]).await;
        let row = row.map_err(Error::sql(&primary.name, "read the position of the log"))?;
        let target: PgLsn = row.get(0);
        let client = self.connect("postgres").await?;
        let reached = format!(
            "SELECT NOT pg_is_in_recovery() OR coalesce(pg_last_wal_replay_lsn() >= '{target}', false)"
        );
        self.until(&client, &format!("replay up to {target}"), &reached)
            .await
    }

    async fn is_replica(&self, client: &Client) -> Result<bool, Error> {
        self.ask(client, "SELECT pg_is_in_recovery()").await
    }

    async fn execute(&self, client: &Client, doing: &str, statement: &str) -> Result<(), Error> {
        let done = self.bounded(doing, client.batch_execute(statement)).await?;
        done.map_err(Error::sql(&self.name, doing))
    }

    async fn ask(&self, client: &Client, question: &str) -> Result<bool, Error> {
        let doing = "ask for its state";
        let row = self.bounded(doing, client.query_one(question, &[])).await?;
        Ok(row.map_err(Error::sql(&self.name, doing))?.get(0))
    }

    /// Asks until the answer is yes.
    async fn until(&self, client: &Client, event: &str, question: &str) -> Result<(), Error> {
        let began = Instant::now();
        while !self.ask(client, question).await? {
            if began.elapsed() > SQL_LIMIT {
                return Err(Error::TimedOut {
                    node: self.name.clone(),
                    waiting_for: event.to_owned(),
                    waited: SQL_LIMIT,
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

const STREAMS: &str = "SELECT NOT pg_is_in_recovery() OR EXISTS \
     (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";

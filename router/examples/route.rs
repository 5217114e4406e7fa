//! Routing for a service that keeps its own pools: here one plain client of tokio-postgres for each node stands for
//! the pools of sqlx, diesel or whatever runs the statements.
//!
//! Start servers in one terminal with `cargo testbed up --replicas 2`, then give their URLs, the primary's
//! first:
//!
//! ```sh
//! cargo run -p pool-router --example route -- URL URL URL
//! ```

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pool_router::{Consistency, Database, Request, Route};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// The service's own connections, one for each node and epoch.
#[derive(Default)]
struct Clients(HashMap<(usize, u64), Client>);

impl Clients {
    async fn of(&mut self, route: &Route) -> anyhow::Result<&Client> {
        let key = (route.node(), route.epoch());
        // What was opened before the primary or the timeline changed is not used again.
        self.0.retain(|(_, epoch), _| *epoch == route.epoch());
        match self.0.entry(key) {
            Entry::Occupied(client) => Ok(client.into_mut()),
            Entry::Vacant(place) => {
                let url = route.address().render_with_password();
                let opened = tokio_postgres::connect(&url, NoTls).await;
                let (client, connection) = opened.inspect_err(|error| route.failed(None, error))?;
                tokio::spawn(connection);
                Ok(place.insert(client))
            }
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut urls = std::env::args().skip(1);
    let Some(primary) = urls.next() else {
        bail!("give the URL of the primary, then those of its replicas");
    };
    let db = Database::builder()
        .primary(primary)
        .replicas(urls)
        .connect()
        .await?;
    let mut clients = Clients::default();

    let route = db.route_write().await?;
    let create = "CREATE TABLE IF NOT EXISTS routed (at timestamptz DEFAULT now())";
    run(&mut clients, &route, create).await?;
    run(&mut clients, &route, "INSERT INTO routed DEFAULT VALUES").await?;
    drop(route);

    for _ in 0..20 {
        let (node, rows) = read(&db, &mut clients, "SELECT count(*) FROM pg_class").await?;
        println!("{node} counted {rows}");
    }
    println!("{}", db.status());
    println!("{}", db.explain(Consistency::Strong));
    db.shutdown().await;
    Ok(())
}

/// Reads data of at most two seconds of age, where that can be had.
async fn read(db: &Database, clients: &mut Clients, sql: &str) -> anyhow::Result<(String, String)> {
    let mut request = Request::new(Consistency::BoundedStaleness(Duration::from_secs(2)));
    for attempt in 0..3 {
        request.primary_only = attempt == 2;
        let route = db.route(request).await?;
        if let Some(proof) = route.proof() {
            let rows = run(clients, &route, proof).await?;
            if route.verify(&rows).is_err() {
                request.avoid = Some(route.node());
                continue;
            }
        }
        let rows = run(clients, &route, sql).await?;
        let first = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        let cell = first.flatten().context("a count")?;
        return Ok((route.name().to_owned(), cell));
    }
    bail!("not even the primary could prove the promise")
}

/// Runs a statement where the route leads, and reports how that went.
async fn run(
    clients: &mut Clients,
    route: &Route,
    sql: &str,
) -> anyhow::Result<Vec<Vec<Option<String>>>> {
    let client = clients.of(route).await?;
    let start = Instant::now();
    let answer = client.simple_query(sql).await;
    let answer = answer.inspect_err(|error| {
        route.failed(error.code().map(SqlState::code), error);
    })?;
    route.answered(start.elapsed());
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => {
            let cells = (0..row.len()).map(|cell| row.get(cell).map(str::to_owned));
            Some(cells.collect())
        }
        _ => None,
    });
    Ok(rows.collect())
}

//! Figures of the models of tenancy, for `docs/shared-tables.md`: what a session on a shared table costs, and what a
//! backend keeps of each table that it has touched. Starts a server of its own, and takes a minute.
//!
//! ```sh
//! cargo run -p pool-router --example tenancy_figures
//! ```

#[expect(dead_code, reason = "the tests use the rest of it")]
#[path = "../tests/it/shop.rs"]
mod shop;

use std::time::Instant;

use pool_router::SessionFactory;
use pool_router::tenancy::{SharedTables, install};

use shop::{Shop, batch, cell};

/// How many tenants share the table, and how many rows each has.
const TENANTS: i64 = 200;
const ROWS: i64 = 200;
/// Transactions in a round, and rounds of each kind, in turns.
const ROUND: i64 = 300;
const ROUNDS: usize = 21;

#[tokio::main]
async fn main() {
    what_a_session_on_a_shared_table_costs().await;
    what_a_backend_keeps_of_each_table_that_it_has_touched().await;
}

async fn what_a_session_on_a_shared_table_costs() {
    let row = format!(
        "SELECT t::text, n, 'some text of this row' FROM generate_series(0, {TENANTS} - 1) t, \
         generate_series(0, {ROWS} - 1) n"
    );
    let tables = format!(
        "CREATE TABLE plain (tenant_id text, id bigint, body text, PRIMARY KEY (tenant_id, id)); \
         CREATE TABLE shared (LIKE plain INCLUDING ALL); \
         INSERT INTO plain {row}; INSERT INTO shared {row}"
    );
    let shop = Shop::bare(&tables).await;
    let shared = SharedTables::new(&shop.role).table("shared");
    install(&shop.owner, &shared).await.expect("installed");
    shop.superuser
        .execute("VACUUM ANALYZE", &[])
        .await
        .expect("vacuumed");
    let sessions = SessionFactory::new(shop.app.clone());

    let mut rounds = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        rounds[0].push(plain_round(&sessions, false).await);
        rounds[1].push(plain_round(&sessions, true).await);
        rounds[2].push(shared_round(&sessions).await);
    }
    let [plain, with_setting, by_policy] = rounds.map(|mut round| {
        round.sort_by(f64::total_cmp);
        round[ROUNDS / 2]
    });
    println!(
        "a transaction with one read by key, medians of {ROUNDS} rounds: plain {plain:.1} us, with the setting \
         {with_setting:.1} us, with the setting and by policy {by_policy:.1} us; throughput {:.3} and {:.3} of plain",
        plain / with_setting,
        plain / by_policy
    );
}

/// Microseconds for a transaction that names the tenant itself, and makes the setting all the same or not.
async fn plain_round(sessions: &SessionFactory, setting: bool) -> f64 {
    let start = Instant::now();
    for n in 0..ROUND {
        let (tenant, id) = ((n % TENANTS).to_string(), n % ROWS);
        let mut session = if setting {
            sessions.with_local("app.tenant_id", &tenant).session()
        } else {
            sessions.session()
        };
        session
            .query_one(
                "SELECT body FROM plain WHERE tenant_id = $1 AND id = $2",
                &[&tenant, &id],
            )
            .await
            .expect("a row");
        let _ = session.commit().await.expect("committed");
    }
    per_transaction(start)
}

/// The same by a policy; the setting travels with `BEGIN`.
async fn shared_round(sessions: &SessionFactory) -> f64 {
    let start = Instant::now();
    for n in 0..ROUND {
        let (tenant, id) = ((n % TENANTS).to_string(), n % ROWS);
        let mut session = sessions.with_local("app.tenant_id", &tenant).session();
        session
            .query_one("SELECT body FROM shared WHERE id = $1", &[&id])
            .await
            .expect("a row");
        let _ = session.commit().await.expect("committed");
    }
    per_transaction(start)
}

fn per_transaction(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(ROUND).unwrap_or(1))
}

async fn what_a_backend_keeps_of_each_table_that_it_has_touched() {
    let shop = Shop::bare("").await;
    for start in (0..300).step_by(50) {
        batch(
            &shop.superuser,
            &format!(
                "DO $$ BEGIN FOR s IN {start}..{start} + 49 LOOP EXECUTE format('CREATE SCHEMA s%s', s); \
                 FOR t IN 0..9 LOOP EXECUTE format('CREATE TABLE s%s.t%s (id bigint PRIMARY KEY, name text, at \
                 timestamptz)', s, t); END LOOP; END LOOP; END $$"
            ),
        )
        .await;
    }
    // It reads a backend's memory.
    shop.superuser("ALTER ROLE ROLE_APP SUPERUSER").await;
    let size = "SELECT pg_size_pretty(pg_database_size(current_database()))";
    println!("the database: {}", cell(&shop.superuser, size).await);

    for prepared in [false, true] {
        // A new one each time, which has touched nothing.
        let engine = shop.login(&shop.role);
        let connection = engine.connect().await.expect("a connection");
        let client = connection.client();
        let start = kept(client).await;
        let mut statements = Vec::new();
        println!(
            "one backend, {} statements:",
            if prepared { "prepared" } else { "unprepared" }
        );
        for schema in 0..300 {
            for table in 0..10 {
                let sql = format!("SELECT count(*) FROM s{schema}.t{table} WHERE id > 5");
                if prepared {
                    let statement = client.prepare(&sql).await.expect("prepared");
                    client.query(&statement, &[]).await.expect("rows");
                    statements.push(statement);
                } else {
                    client.simple_query(&sql).await.expect("rows");
                }
            }
            if (schema + 1) % 100 == 0 {
                let tables = (schema + 1) * 10;
                let kept = kept(client).await - start;
                println!(
                    "  {tables} tables: {} KiB, {:.1} KiB each",
                    kept / 1024,
                    per(kept, tables)
                );
            }
        }
        drop(statements);
        client.simple_query("DISCARD ALL").await.expect("discarded");
        println!(
            "  after DISCARD ALL: {} KiB",
            (kept(client).await - start) / 1024
        );
    }
}

/// Bytes in the backend's memory contexts.
async fn kept(client: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts";
    client.query_one(sql, &[]).await.expect("a sum").get(0)
}

fn per(bytes: i64, tables: i32) -> f64 {
    let kib = i32::try_from(bytes / 1024).unwrap_or(i32::MAX);
    f64::from(kib) / f64::from(tables)
}

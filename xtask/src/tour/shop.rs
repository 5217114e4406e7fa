//! The shop: its tables, and what it asks of a session.
//!
//! Each question also asks which server answers, by its port, so that the tour knows where a read ran.

use pool_router::{Error, Session};

/// The lines that each order has: an order is seen with all of them or not at all.
pub(crate) const LINES: i64 = 2;

/// No key is unique: an order that were written twice could be seen twice. The right is for the history of timelines.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE orders (id bigint NOT NULL, customer int NOT NULL, placed timestamptz NOT NULL DEFAULT now());
    CREATE INDEX ON orders (id);
    CREATE TABLE order_lines (order_id bigint NOT NULL, item text NOT NULL, pieces int NOT NULL);
    CREATE INDEX ON order_lines (order_id);
    CREATE TABLE ticks (n bigint NOT NULL);
    INSERT INTO ticks VALUES (0);
    GRANT EXECUTE ON FUNCTION pg_read_file(text, bigint, bigint, boolean) TO app;";

/// Every order with how often it is there and how many lines it has.
pub(crate) const ALL_ORDERS: &str = "
    SELECT id, count(*), (SELECT count(*) FROM order_lines WHERE order_id = id)
    FROM orders GROUP BY id ORDER BY id";

const ITEMS: [&str; 5] = ["tea", "cup", "pot", "sugar", "spoon"];

/// What a read of one order saw, and on the server with which port.
pub(crate) struct Seen {
    pub(crate) orders: i64,
    pub(crate) lines: i64,
    pub(crate) port: i32,
}

/// What a look at the newest orders saw.
pub(crate) struct Listed {
    pub(crate) orders: Vec<i64>,
    pub(crate) tick: i64,
    pub(crate) port: i32,
}

/// Writes an order and its lines; the caller commits.
pub(crate) async fn write_order(s: &mut Session, id: i64) -> Result<(), Error> {
    let customer = fastrand::i32(1..1000);
    s.execute(
        "INSERT INTO orders (id, customer) VALUES ($1, $2)",
        &[&id, &customer],
    )
    .await?;
    let (first, second) = (
        ITEMS[fastrand::usize(..ITEMS.len())],
        ITEMS[fastrand::usize(..ITEMS.len())],
    );
    let lines = "INSERT INTO order_lines VALUES ($1, $2, 1), ($1, $3, 2)";
    s.execute(lines, &[&id, &first, &second]).await?;
    Ok(())
}

/// Looks for one order.
pub(crate) async fn find_order(s: &mut Session, id: i64) -> Result<Seen, Error> {
    let question = "SELECT (SELECT count(*) FROM orders WHERE id = $1), \
                    (SELECT count(*) FROM order_lines WHERE order_id = $1), inet_server_port()";
    let row = s.query_one(question, &[&id]).await?;
    Ok(Seen {
        orders: row.get(0),
        lines: row.get(1),
        port: row.get(2),
    })
}

/// The newest tick, and the port of the server that said so.
pub(crate) async fn tick(s: &mut Session) -> Result<(i64, i32), Error> {
    let row = s
        .query_one("SELECT n, inet_server_port() FROM ticks", &[])
        .await?;
    Ok((row.get(0), row.get(1)))
}

/// The newest orders, as a page of the shop lists them.
pub(crate) async fn list(s: &mut Session) -> Result<Listed, Error> {
    let (tick, port) = tick(s).await?;
    let rows = s
        .query("SELECT id FROM orders ORDER BY id DESC LIMIT 10", &[])
        .await?;
    Ok(Listed {
        orders: rows.iter().map(|row| row.get(0)).collect(),
        tick,
        port,
    })
}

/// Commits the next tick.
pub(crate) async fn set_tick(s: &mut Session, tick: i64) -> Result<(), Error> {
    s.execute("UPDATE ticks SET n = $1", &[&tick]).await?;
    let _ = s.commit().await?;
    Ok(())
}

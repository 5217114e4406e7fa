//! A million rows in by `COPY`, and out again, with a progress bar.
//!
//! `cargo run --release --example copy -- postgresql://user:pass@localhost/db [rows]`

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use pool_postgres::{Engine, Error};

/// How many rows go in one piece.
const PIECE: u64 = 1_000;

fn bar(rows: u64, what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:4} {wide_bar} {human_pos} of {human_len} rows, {per_sec}",
    )
    .expect("a good template");
    ProgressBar::new(rows).with_style(style).with_message(what)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let url = args
        .next()
        .unwrap_or_else(|| "postgresql:///postgres".to_owned());
    let rows: u64 = args
        .next()
        .and_then(|rows| rows.parse().ok())
        .unwrap_or(1_000_000);
    let engine = Engine::builder(url).build()?;
    engine
        .batch("DROP TABLE IF EXISTS copy_users; CREATE TABLE copy_users (id bigint, name text)")
        .await?;

    // In one transaction: dropped half-way, nothing of it is kept.
    let mut session = engine.session();
    let progress = bar(rows, "in");
    let mut copy = session
        .copy_in("COPY copy_users (id, name) FROM STDIN (FORMAT csv)")
        .await?;
    let mut at = 0;
    while at < rows {
        let end = rows.min(at + PIECE);
        let mut piece = String::new();
        for id in at..end {
            let _ = writeln!(piece, "{id},\"user {id}\"");
        }
        copy.send(Bytes::from(piece)).await?;
        progress.inc(end - at);
        at = end;
    }
    let copied = copy.finish().await?;
    let _ = session.commit().await?;
    progress.finish();

    // Out, as the server sends it: a row at a time, in constant memory.
    let progress = bar(copied, "out");
    progress.enable_steady_tick(Duration::from_millis(100));
    let mut data = engine.copy_out("COPY copy_users TO STDOUT").await?;
    let mut bytes = 0;
    while let Some(row) = data.next().await {
        bytes += row?.len();
        progress.inc(1);
    }
    progress.finish();
    println!("{copied} rows in, {bytes} bytes out");
    drop((data, session));

    engine.execute("DROP TABLE copy_users", &[]).await?;
    engine.close().await;
    Ok(())
}

//! What people see while the tour runs: a live table on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use pool_router::{Database, DatabaseStatus, NodeStatus};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::checks::lock;

const LIVE: Duration = Duration::from_millis(200);
const PLAIN: Duration = Duration::from_secs(2);

/// Where the tour's lines go.
#[derive(Clone)]
pub(crate) struct View {
    /// The table under the lines; on a terminal only.
    table: Option<MultiProgress>,
    began: Instant,
}

/// The table's task; it ends when this is dropped.
pub(crate) struct Table {
    task: JoinHandle<()>,
    rows: Arc<Mutex<Vec<ProgressBar>>>,
}

/// What a rate is measured from.
struct Before {
    at: Instant,
    counts: Vec<(u64, u64)>,
}

impl View {
    /// A table if standard output is a terminal.
    pub(crate) fn new() -> Self {
        let table = std::io::stdout().is_terminal().then(MultiProgress::new);
        Self {
            table,
            began: Instant::now(),
        }
    }

    /// Shows a line.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        let line = format!(
            "{:6.1}s  {}",
            self.began.elapsed().as_secs_f64(),
            line.as_ref()
        );
        match &self.table {
            // A terminal that is gone is no reason to stop.
            Some(table) => drop(table.println(line)),
            None => println!("{line}"),
        }
    }

    /// Shows the nodes from now on.
    pub(crate) fn watch(&self, db: &Database) -> Table {
        let (view, db, rows) = (
            self.clone(),
            db.clone(),
            Arc::<Mutex<Vec<ProgressBar>>>::default(),
        );
        let shown = Arc::clone(&rows);
        let task = tokio::spawn(async move {
            let mut before = Before::new(&db.status());
            loop {
                sleep(if view.table.is_some() { LIVE } else { PLAIN }).await;
                let status = db.status();
                let lines = before.lines(&status);
                match &view.table {
                    Some(table) => draw(table, &mut lock(&shown), lines),
                    None => lines.iter().for_each(|line| println!("         {line}")),
                }
                if view.table.is_none() || before.at.elapsed() > Duration::from_secs(1) {
                    before = Before::new(&status);
                }
            }
        });
        Table { task, rows }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.task.abort();
        lock(&self.rows)
            .iter()
            .for_each(ProgressBar::finish_and_clear);
    }
}

fn draw(table: &MultiProgress, rows: &mut Vec<ProgressBar>, lines: Vec<String>) {
    while rows.len() < lines.len() {
        let row = table.add(ProgressBar::new_spinner());
        // The template has no placeholder that could be wrong; the default does as well.
        if let Ok(style) = ProgressStyle::with_template("  {wide_msg}") {
            row.set_style(style);
        }
        rows.push(row);
    }
    for (row, line) in rows.iter().zip(lines) {
        row.set_message(line);
        row.tick();
    }
}

impl Before {
    fn new(status: &DatabaseStatus) -> Self {
        let counts = status
            .nodes
            .iter()
            .map(|node| (node.counts.reads, node.counts.writes))
            .collect();
        Self {
            at: Instant::now(),
            counts,
        }
    }

    fn lines(&self, status: &DatabaseStatus) -> Vec<String> {
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        let nodes = status.nodes.iter().zip(&self.counts).enumerate();
        nodes
            .map(|(index, (node, before))| line(index, node, *before, seconds))
            .collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn line(index: usize, node: &NodeStatus, (reads, writes): (u64, u64), seconds: f64) -> String {
    let name = if index == 0 {
        "primary".to_owned()
    } else {
        format!("replica {index}")
    };
    let up = if node.is_up() { "up" } else { "down" };
    let pool = &node.pool;
    let read_rate = node.counts.reads.saturating_sub(reads) as f64 / seconds;
    let write_rate = node.counts.writes.saturating_sub(writes) as f64 / seconds;
    format!(
        "{name:<9} {up:<4} pool {}/{} in use {} waiting {:<3} lag {:<24} reads {} ({read_rate:.0}/s) writes {} ({write_rate:.0}/s)",
        pool.open,
        pool.capacity,
        pool.in_use,
        pool.waiting,
        if index == 0 {
            "-".to_owned()
        } else {
            node.lag.to_string()
        },
        node.counts.reads,
        node.counts.writes,
    )
}

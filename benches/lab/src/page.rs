//! The page with everything, and the files for other people's plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::chart::{self, Axes, escape};
use crate::curves::Point;
use crate::idle::table::Row;
use crate::policies::{Series, Study};
use crate::sizing::Trial;

const STYLE: &str = include_str!("page.css");

/// What the page shows.
#[derive(Debug)]
pub struct Findings {
    /// Against Erlang C.
    pub theory: Vec<Point>,
    /// The idle structures.
    pub idle: Vec<Row>,
    /// Policies.
    pub studies: Vec<Study>,
    /// The adviser.
    pub trials: Vec<Trial>,
    /// How long it all took, and on what.
    pub made: String,
}

/// Writes `index.html` and a CSV for each chart and table.
///
/// # Errors
/// Where a file can't be written: it is named.
pub fn write(folder: &Path, findings: &Findings) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let page = folder.join("index.html");
    fs::write(&page, html(findings))
        .with_context(|| format!("{} can't be written", page.display()))?;
    for study in &findings.studies {
        let rows = study.series.iter().flat_map(|line| {
            line.points
                .iter()
                .map(|(across, up)| (line.name.as_str(), *across, *up))
        });
        file(folder, study.key, &["series", "across", "up"], rows)?;
    }
    let theory = findings.theory.iter().map(|point| {
        let (waiting, wait) = (point.waiting, point.wait);
        (
            (point.servers, point.load, point.requests),
            (waiting.mean, waiting.half, point.waiting_expected),
            (wait.mean, wait.half, point.wait_expected),
        )
    });
    let columns = [
        "servers",
        "load",
        "requests",
        "waiting",
        "waiting_half",
        "waiting_expected",
        "wait",
        "wait_half",
        "wait_expected",
    ];
    file(folder, "theory", &columns, theory)?;
    let columns = [
        "rate",
        "hold_ms",
        "target_ms",
        "advised",
        "smallest",
        "wait_ms",
        "met",
        "live",
    ];
    file(folder, "sizing", &columns, &findings.trials)?;
    let columns = [
        "name", "bare_ns", "pool_ns", "together", "p99_ns", "bytes", "warm", "order", "aba",
        "middle",
    ];
    let idle = findings.idle.iter().map(|row| {
        let traits = row.traits;
        (
            (row.name, row.bare_ns, row.pool_ns, row.together, row.p99_ns),
            (row.bytes, row.warm, traits.order, traits.aba, traits.middle),
        )
    });
    file(folder, "idle", &columns, idle)
}

fn file<R: serde::Serialize>(
    folder: &Path,
    name: &str,
    columns: &[&str],
    rows: impl IntoIterator<Item = R>,
) -> Result<()> {
    let path = folder.join(name).with_extension("csv");
    let named = || format!("{} can't be written", path.display());
    let mut writer = csv::WriterBuilder::new()
        .has_headers(false)
        .from_path(&path)
        .with_context(named)?;
    writer.write_record(columns).with_context(named)?;
    for row in rows {
        writer.serialize(row).with_context(named)?;
    }
    writer.flush().with_context(named)
}

fn html(findings: &Findings) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>The pool's laboratory</title><style>{STYLE}</style>\
         <h1>The pool's laboratory</h1><p>The pool that ships, in virtual time: its code, its queue and its timers, \
         with loads drawn from seeds. The same seed gives the same figures bit for bit, on any machine. Figures of the \
         clock on the wall are marked as such.</p>"
    );
    theory(&mut page, &findings.theory);
    for study in &findings.studies {
        page += &section(study.question, &study.setting);
        let axes = Axes {
            title: study.question,
            across: study.across,
            up: study.up,
            log: study.log,
        };
        page += &chart::draw(axes, &study.series);
        page += &answer(&study.conclusion);
    }
    sizing(&mut page, &findings.trials);
    idle(&mut page, &findings.idle);
    let _ = write!(
        page,
        "<footer><p>{} The points of each chart are in a CSV beside this page.</p></footer></html>",
        escape(&findings.made)
    );
    page
}

fn section(title: &str, setting: &str) -> String {
    format!(
        "<h2>{}</h2><p class=\"setting\">{}</p>",
        escape(title),
        escape(setting)
    )
}

fn answer(text: &str) -> String {
    format!("<p class=\"answer\">{}</p>", escape(text))
}

fn theory(page: &mut String, points: &[Point]) {
    let setting = "Random arrivals, exponential holds, a queue without bound: M/M/c. Lines with dots: the pool, 20 runs \
                   a point. Dashed: Erlang C.";
    *page += &section("Does the pool do what theory says?", setting);
    let mut servers: Vec<_> = points.iter().map(|point| point.servers).collect();
    servers.dedup();
    let lines = |measured: fn(&Point) -> f64, expected: fn(&Point) -> f64| {
        let of = |prefix: &'static str, value: fn(&Point) -> f64| {
            servers.iter().map(move |servers| Series {
                name: match servers {
                    1 => format!("{prefix}1 connection"),
                    more => format!("{prefix}{more} connections"),
                },
                points: points
                    .iter()
                    .filter(|point| point.servers == *servers)
                    .map(|point| (point.load * 100.0, value(point)))
                    .collect(),
            })
        };
        let measured: Vec<_> = of("", measured).collect();
        let expected: Vec<_> = of("expected with ", expected).collect();
        measured.into_iter().chain(expected).collect::<Vec<_>>()
    };
    let waiting = lines(
        |point| point.waiting.mean * 100.0,
        |point| point.waiting_expected * 100.0,
    );
    let wait = lines(|point| point.wait.mean, |point| point.wait_expected);
    for (up, log, lines) in [
        ("who waits, %", false, waiting),
        ("mean wait, in mean holds", true, wait),
    ] {
        let axes = Axes {
            title: up,
            across: "load, %",
            up,
            log,
        };
        *page += &chart::draw(axes, &lines);
    }
    let covered = points
        .iter()
        .flat_map(|point| {
            [
                point.waiting.covers(point.waiting_expected),
                point.wait.covers(point.wait_expected),
            ]
        })
        .filter(|covered| *covered)
        .count();
    *page += &answer(&format!(
        "Erlang C lies within the 95% confidence interval in {covered} of {} figures; 95% of them is what is to be \
         expected.",
        2 * points.len()
    ));
}

fn sizing(page: &mut String, trials: &[Trial]) {
    let setting = "Advised: the size from the rate and the holds alone, or (live) from the statistics of a pool that \
                   served the load. Smallest: the smallest size with which 99 of 100 wait no longer than the target, \
                   found by replaying.";
    *page += &section("Does the adviser find the right size?", setting);
    *page += "<div class=\"wide\"><table><tr><th>from</th><th>a second</th><th>mean hold</th><th>target</th>\
              <th>advised</th><th>smallest</th><th>p99 wait</th><th>right</th></tr>";
    for trial in trials {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{:.0}</td><td>{:.1} ms</td><td>{:.1} ms</td><td>{}</td><td>{}</td><td>{:.1} ms</td>\
             <td>{}</td></tr>",
            if trial.live { "live" } else { "figures" },
            trial.rate,
            trial.hold_ms,
            trial.target_ms,
            trial.advised,
            trial.smallest,
            trial.wait_ms,
            if trial.is_right() { "yes" } else { "no" }
        );
    }
    *page += "</table></div>";
    let right = trials.iter().filter(|trial| trial.is_right()).count();
    *page += &answer(&format!(
        "Of {} workloads {right} meet their target at the advised size with at most 1.5 times the smallest that does.",
        trials.len()
    ));
}

fn idle(page: &mut String, rows: &[Row]) {
    let setting = "Claim and give of the bare structure, get and return in the pool by one task and on two threads: by \
                   the clock on the wall, medians of rounds in turn; compare within this table only. Warm: connections \
                   of 16 still open after 20 minutes at 5% load with an idle timeout of a minute, in virtual time.";
    *page += &section("Which idle structure?", setting);
    *page += "<div class=\"wide\"><table><tr><th>structure</th><th>bare</th><th>in the pool</th><th>two threads</th>\
              <th>p99</th><th>bytes for 1,000</th><th>warm</th><th>order</th><th>ABA</th><th>out of the middle</th></tr>";
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "–".to_owned());
    for row in rows {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{:.1} ns</td><td>{:.1} M/s</td><td>{} ns</td><td>{}</td><td>{:.0}</td>\
             <td class=\"words\">{}</td><td class=\"words\">{}</td><td class=\"words\">{}</td></tr>",
            escape(row.name),
            or_none(row.bare_ns.map(|ns| format!("{ns:.1} ns"))),
            row.pool_ns,
            row.together,
            row.p99_ns,
            or_none(row.bytes.map(|bytes| bytes.to_string())),
            row.warm,
            row.traits.order,
            row.traits.aba,
            row.traits.middle
        );
    }
    *page += "</table></div>";
    if let Some(ours) = rows.first()
        && let Some(best) = rows[1..]
            .iter()
            .min_by(|one, other| one.pool_ns.total_cmp(&other.pool_ns))
    {
        let ratio = best.pool_ns / ours.pool_ns;
        *page += &answer(&format!(
            "In the pool ours takes {:.1} ns; the quickest other, {}, {:.1} ns ({ratio:.2} times as long, of which the \
             door takes a part). Ours keeps {:.0} connections warm at low load.",
            ours.pool_ns, best.name, best.pool_ns, ours.warm
        ));
    }
}

//! `cargo xtask lab`: the page with everything, or advice on a size.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use lab::{curves, idle, page, policies, sizing};
use pool_core::{Demand, Stats};

#[derive(Parser)]
#[command(name = "cargo xtask lab", bin_name = "cargo xtask lab")]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the page and its files go.
    #[arg(long, default_value = "target/lab", overrides_with = "out")]
    out: PathBuf,
    /// Rounds of the figures by the clock on the wall; 0 leaves them out.
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Requests of each point in virtual time.
    #[arg(long, default_value_t = 40_000)]
    requests: usize,
}

#[derive(Subcommand)]
enum Command {
    /// Advise on a pool's size.
    Size(Size),
    /// Say how fast virtual time passes here: a pool at 80% load, for so many simulated hours.
    Pace {
        /// Simulated hours.
        #[arg(default_value_t = 24.0)]
        hours: f64,
    },
}

#[derive(clap::Args)]
struct Size {
    /// Requests a second.
    #[arg(long, required_unless_present = "from")]
    rate: Option<f64>,
    /// The median hold, as 8ms, 250us or 1.5s.
    #[arg(long, value_parser = span, required_unless_present = "from")]
    hold_p50: Option<Duration>,
    /// The 99th percentile of the hold.
    #[arg(long, value_parser = span, required_unless_present = "from")]
    hold_p99: Option<Duration>,
    /// A live pool's statistics: what serde_json writes of `Pool::stats()` (feature `serde`).
    #[arg(long, conflicts_with_all = ["rate", "hold_p50", "hold_p99"])]
    from: Option<PathBuf>,
    /// The wait that 99 of 100 requests are not to exceed.
    #[arg(long, value_parser = span, default_value = "10ms")]
    target_p99_wait: Duration,
}

/// A duration with its unit.
fn span(text: &str) -> Result<Duration> {
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    for (unit, seconds) in units {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.trim().parse::<f64>()
        {
            return Duration::try_from_secs_f64(number * seconds)
                .with_context(|| format!("{text} is no time span"));
        }
    }
    bail!("{text} is no time span: write it with its unit, as 8ms, 250us or 1.5s")
}

fn size(args: &Size) -> Result<()> {
    let demand = if let Some(file) = &args.from {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("{} can't be read", file.display()))?;
        let stats: Stats = serde_json::from_str(&text)
            .with_context(|| format!("{} does not hold a pool's statistics", file.display()))?;
        Demand::of(&stats).with_context(|| {
            format!(
                "{} has no timed checkout: one in 64 is, so let the pool serve some more",
                file.display()
            )
        })?
    } else if let (Some(rate), Some(p50), Some(p99)) = (args.rate, args.hold_p50, args.hold_p99) {
        Demand::from_quantiles(rate, p50, p99).context(
            "the rate must be above zero, and --hold-p50 above zero and no longer than --hold-p99",
        )?
    } else {
        bail!("give --from, or --rate, --hold-p50 and --hold-p99");
    };
    let advice = demand.advise(args.target_p99_wait);
    println!("pool_size     {}", advice.pool_size);
    println!("max_overflow  {}", advice.max_overflow);
    println!("pool_timeout  {:.1?}", advice.pool_timeout);
    println!("confidence    {:?}", advice.confidence);
    println!("bottleneck    {:?}", advice.bottleneck);
    println!("\n{}", advice.reasoning);
    Ok(())
}

fn everything(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let mut theory = Vec::new();
    for servers in [1, 5, 20] {
        for load in [0.3, 0.5, 0.6, 0.7, 0.8, 0.9] {
            eprintln!("theory: {servers} connections at {load}");
            theory.push(curves::point(servers, load, args.requests / 2, 40));
        }
    }
    eprintln!("policies");
    let studies = policies::all(args.requests);
    eprintln!("the adviser");
    let trials = (1..=20)
        .filter_map(|seed| sizing::trial(seed, seed % 2 == 0))
        .collect();
    eprintln!("idle structures");
    let idle = idle::table::rows(args.rounds)?;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let made = format!(
        "Made in {:.0} s on {cores} cores, pool-core {}.",
        begun.elapsed().as_secs_f64(),
        env!("CARGO_PKG_VERSION")
    );
    let findings = page::Findings {
        theory,
        idle,
        studies,
        trials,
        made,
    };
    page::write(&args.out, &findings)?;
    println!("{}", args.out.join("index.html").display());
    Ok(())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a few million requests"
)]
fn pace(hours: f64) {
    use lab::draw::{Arrivals, Holds};
    use lab::sim::{Setup, run};

    let (rate, hold) = (16.0, Duration::from_millis(500));
    let requests = (hours * 3_600.0 * rate) as usize;
    let setup = Setup::new(
        Arrivals::Poisson { rate },
        Holds::Exponential(hold),
        requests,
        1,
    );
    let begun = Instant::now();
    let seen = run(&setup, |builder| builder.pool_size(10).max_overflow(0));
    let took = begun.elapsed().as_secs_f64();
    let simulated = seen.span.as_secs_f64() / 3_600.0;
    println!(
        "{simulated:.1} simulated hours, {requests} requests in {took:.1} s: {:.0} hours a minute, {:.2} µs a request",
        simulated * 60.0 / took,
        took * 1e6 / requests as f64
    );
}

fn main() -> Result<()> {
    let args = Args::parse();
    match &args.command {
        Some(Command::Size(size_args)) => size(size_args),
        Some(Command::Pace { hours }) => {
            pace(*hours);
            Ok(())
        }
        None => everything(&args),
    }
}

//! The table of figures that we mean to reach, measured from the first row to the last with one command, each against an
//! echo in alternating runs where a rate is measured; written as a page of Markdown.

mod failover;
mod growth;
mod one;
mod three;

use crate::machine;
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::process::{Server, Setup};
use std::fmt::Write as _;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the page goes; it is shown as well
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// How long each run lasts, in seconds
    #[arg(long, default_value_t = 4, value_name = "N")]
    seconds: u64,
    /// Runs of echo and server each, taking turns; the rate is the median
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: u64,
    /// How many executions, for memory, restart and growth
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    executions: u64,
    /// How many owners are killed
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    kills: u32,
    /// How long they are left alone before memory is read, in seconds
    #[arg(long, default_value_t = 60, value_name = "N")]
    idle: u64,
    /// Only these parts
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of the table; each has a cluster of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// One node: unary, streamed, one customer, open loop
    One,
    /// A million executions: memory and restart
    Memory,
    /// Three nodes, and three nodes that do nothing
    Three,
    /// The cost of a signal as executions, history, journeys and stages grow
    Growth,
    /// Owners killed under an open loop: the longest time without an answer
    Failover,
}

/// The page, as it grows.
#[derive(Default)]
struct Page {
    text: String,
    /// What is wanted, and what was found: the last table.
    wanted: Vec<[String; 4]>,
}

impl Page {
    /// Adds a line, and shows it.
    fn line(&mut self, line: &str) -> Result<()> {
        machine::say(format_args!("{line}"))?;
        writeln!(self.text, "{line}").context("a text grows")
    }

    /// Begins a table.
    fn table(&mut self, title: &str, columns: &[&str]) -> Result<()> {
        self.line(&format!("\n## {title}\n"))?;
        self.line(&format!("| {} |", columns.join(" | ")))?;
        self.line(&format!("|{}", " --- |".repeat(columns.len())))
    }

    /// Notes what is wanted of a figure, and what it is.
    fn want(&mut self, what: &str, wanted: &str, found: String, is_met: bool) {
        let met = if is_met { "met" } else { "**missed**" };
        let row = [what.to_owned(), wanted.to_owned(), found, met.to_owned()];
        self.wanted.push(row);
    }

    fn row(&mut self, cells: &[String]) -> Result<()> {
        self.line(&format!("| {} |", cells.join(" | ")))
    }
}

pub async fn run(args: &Args) -> Result<bool> {
    ensure!(
        !cfg!(debug_assertions),
        "figures of a debug build say nothing: run it with --release"
    );
    let mut page = Page::default();
    page.line("# Figures\n")?;
    page.line(&format!("{}.", machine::about()?))?;
    page.line(&format!(
        "Runs of {} s, {} rounds in turns with the echo, medians; 200 B of data, 4 connections; clients, echo and \
         servers share the processors.",
        args.seconds, args.rounds
    ))?;
    let wanted = |part: Part| args.only.is_empty() || args.only.contains(&part);
    if wanted(Part::One) {
        one::rates(args, &mut page).await?;
    }
    if wanted(Part::Memory) {
        one::memory(args, &mut page).await?;
    }
    if wanted(Part::Three) {
        three::run(args, &mut page).await?;
    }
    if wanted(Part::Growth) {
        growth::run(args, &mut page).await?;
    }
    if wanted(Part::Failover) {
        failover::run(args, &mut page).await?;
    }
    page.table("Against what we want", &["what", "wanted", "found", ""])?;
    for row in std::mem::take(&mut page.wanted) {
        page.row(&row)?;
    }
    page.line(&format!("\nAfterwards: {}.", machine::load()?))?;
    if let Some(file) = &args.report {
        std::fs::write(file, &page.text).with_context(|| file.display().to_string())?;
    }
    Ok(true)
}

/// A node as people run it: 32 shards, the defaults of everything.
async fn node() -> Result<Server> {
    let setup = Setup {
        shards: 32,
        ..Setup::default()
    };
    Server::start(setup).await
}

/// What one run of `bench signals` found, for one number in flight.
struct Run {
    /// In flight, or `open`.
    name: String,
    server: Side,
    echo: Option<Side>,
}

/// One side of it.
struct Side {
    rate: f64,
    least: f64,
    most: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu: Option<f64>,
    errors: u64,
}

impl Side {
    fn of(value: &serde_json::Value) -> Option<Side> {
        let rates = value["rounds"]
            .as_array()?
            .iter()
            .filter_map(|r| r.as_f64());
        let rates: Vec<f64> = rates.collect();
        let ms = |name: &str| Some(value["latency_us"][name].as_f64()? / 1e3);
        Some(Side {
            rate: value["per_second"].as_f64()?,
            least: rates.iter().copied().fold(f64::INFINITY, f64::min),
            most: rates.iter().copied().fold(0.0, f64::max),
            p50_ms: ms("p50")?,
            p99_ms: ms("p99")?,
            cpu: value["cpu_seconds_per_10000"].as_f64(),
            errors: value["errors"].as_u64()?,
        })
    }

    fn shown(&self) -> String {
        format!("{:.0} ({:.0} to {:.0})", self.rate, self.least, self.most)
    }
}

impl Run {
    /// Server against echo.
    fn share(&self) -> Option<f64> {
        self.echo.as_ref().map(|echo| self.server.rate / echo.rate)
    }

    fn ratio(&self) -> String {
        self.share()
            .map_or_else(|| "-".to_owned(), |share| format!("{share:.2}"))
    }

    fn want_cpu(&self, page: &mut Page, kind: &str, most: f64) {
        let Some(cpu) = self.server.cpu else { return };
        let what = format!("CPU per 10,000 signals, {kind}, {} in flight", self.name);
        let wanted = format!("≤ {most} s");
        page.want(&what, &wanted, format!("{cpu:.2} s"), cpu <= most);
    }

    fn cells(&self, kind: &str) -> Vec<String> {
        let server = &self.server;
        let decimal = |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{x:.2}"));
        vec![
            kind.to_owned(),
            self.name.clone(),
            server.shown(),
            self.echo
                .as_ref()
                .map_or_else(|| "-".to_owned(), Side::shown),
            self.ratio(),
            format!("{:.2}", server.p50_ms),
            format!("{:.2}", server.p99_ms),
            decimal(server.cpu),
            decimal(self.echo.as_ref().map(|e| e.p50_ms)),
            server.errors.to_string(),
        ]
    }
}

/// The columns of [`Run::cells`].
const COLUMNS: [&str; 10] = [
    "what",
    "in flight",
    "signals/s",
    "echo/s",
    "ratio",
    "p50 ms",
    "p99 ms",
    "CPU s per 10,000",
    "echo p50 ms",
    "errors",
];

/// Runs `sojourn bench signals` with further arguments.
async fn bench(
    args: &Args,
    cli: &sojourn_chaos_tests::cli::Cli,
    process: Option<u32>,
    more: &[&str],
) -> Result<Vec<Run>> {
    let (seconds, rounds) = (args.seconds.to_string(), args.rounds.to_string());
    let mut words = vec!["--json", "bench", "signals", "--seconds", &seconds];
    if !more.contains(&"--rounds") {
        words.extend(["--rounds", &rounds]);
    }
    words.extend(more);
    let process = process.map(|p| p.to_string());
    if let Some(process) = &process {
        words.extend(["--server-pid", process]);
    }
    let output = cli.run(words).await?;
    let value = sojourn_chaos_tests::cli::json(&output)?;
    let runs = value["runs"].as_array().context("the bench has no runs")?;
    runs.iter()
        .map(|run| {
            let name = run["in_flight"]
                .as_u64()
                .map_or_else(|| "open".to_owned(), |n| n.to_string());
            Ok(Run {
                name,
                server: Side::of(&run["server"]).context("no figures of the server")?,
                echo: Side::of(&run["echo"]),
            })
        })
        .collect()
}

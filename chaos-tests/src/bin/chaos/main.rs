//! Rough times for real processes: three to five nodes under load, treated badly by a schedule drawn from a seed, then mended;
//! what clients recorded is held against the promises, and a report says what was done and what was seen.
//!
//! Exit codes: 0 clean, 10 a promise about safety was broken, 11 something did not work after it was mended (or ended without
//! clear words), 12 the run itself failed, 2 usage.

use anyhow::{Context, Result};
use clap::Parser;
use sojourn_chaos_tests::binary;
use sojourn_chaos_tests::rough::clients::Load;
use sojourn_chaos_tests::rough::nemesis::About;
use sojourn_chaos_tests::rough::plan::Kind;
use sojourn_chaos_tests::rough::{Plan, report, run};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// Rough times for real processes
#[derive(Debug, Parser)]
#[command(name = "chaos", version)]
struct Args {
    /// How long the nodes are treated badly
    #[arg(long, default_value_t = 20.0, value_name = "N")]
    minutes: f64,
    /// How many nodes: three to five
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u8).range(3..=5))]
    nodes: u8,
    /// Decides what is done; drawn, if it is not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where the report is written, in Markdown
    #[arg(long, default_value = "chaos.md", value_name = "FILE")]
    report: PathBuf,
    /// Calls of clients a second at most; 150 for a release build, 30 for a debug build, unless told
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// How many shards: a power of two
    #[arg(long, default_value_t = 4, value_name = "N")]
    shards: u16,
    /// Only these, by the beginnings of their words: `--only kill --only links`
    #[arg(long, value_name = "WORDS")]
    only: Vec<String>,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let minutes = args.minutes > 0.0 && args.minutes <= 24.0 * 60.0;
    if !minutes || !args.shards.is_power_of_two() {
        eprintln!("error: --minutes takes up to a day, --shards a power of two");
        return ExitCode::from(2);
    }
    let kinds: Vec<Kind> = Kind::ALL
        .into_iter()
        .filter(|k| {
            args.only.is_empty() || args.only.iter().any(|o| k.words().starts_with(o.as_str()))
        })
        .collect();
    if kinds.is_empty() {
        let words: Vec<&str> = Kind::ALL.iter().map(|k| k.words()).collect();
        eprintln!("error: --only names none of: {}", words.join("; "));
        return ExitCode::from(2);
    }
    // drawn once, and told
    let seed = args
        .seed
        .unwrap_or_else(|| u64::from(rand::random::<u32>()));
    eprintln!("seed {seed}");
    let debug = cfg!(debug_assertions);
    let plan = Plan {
        seed,
        rough: Duration::from_secs_f64(args.minutes * 60.0),
        nodes: usize::from(args.nodes),
        shards: args.shards,
        clients: 4,
        load: Load {
            rate: args.rate.unwrap_or(if debug { 30.0 } else { 150.0 }),
            lanes: if debug { 16 } else { 48 },
            customers: if debug { 4 } else { 8 },
        },
        kinds,
        strict: !debug,
        tell: true,
    };
    match lived(&plan, &args.report).await {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(About::Safety)) => ExitCode::from(10),
        Ok(Some(About::Liveness)) => ExitCode::from(11),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(12)
        }
    }
}

/// Lives through it and writes the report, also when the run itself failed.
async fn lived(plan: &Plan, to: &Path) -> Result<Option<About>> {
    let write = |text: &str| {
        std::fs::write(to, text)
            .with_context(|| format!("the report cannot be written to {}", to.display()))
    };
    match run(plan).await {
        Ok(outcome) => {
            write(&report::markdown(plan, &outcome, &commit()))?;
            eprintln!("{}; see {}", report::verdict(&outcome), to.display());
            Ok(outcome.worst())
        }
        Err(error) => {
            write(&format!(
                "# Rough times: the run itself failed\n\nSeed {}, {} nodes, build of {}.\n\n```\n{error:#}\n```\n",
                plan.seed,
                plan.nodes,
                commit()
            ))?;
            Err(error)
        }
    }
}

/// What is run, as far as the work tree says.
fn commit() -> String {
    let mut git = Command::new("git");
    git.current_dir(binary::workspace())
        .args(["describe", "--always", "--dirty", "--abbrev=10"]);
    let told = git.output().ok().filter(|o| o.status.success());
    let told = told.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    told.unwrap_or_else(|| "an unknown commit".into())
}

//! The loan file, all of it, into three nodes, with each thing that may happen in the middle.

use crate::machine::{load, say, shown};
use anyhow::{Context, Result, ensure};
use rand::RngExt;
use sojourn_chaos_tests::chance;
use sojourn_chaos_tests::cluster::Cluster;
use sojourn_chaos_tests::incident::{Closeness, Incident, import_again, import_under};
use sojourn_chaos_tests::loan::Part;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each
    #[arg(long, default_value_t = 3, value_name = "N")]
    times: u32,
    /// Only these
    #[arg(long, value_delimiter = ',', value_name = "WHAT")]
    only: Vec<What>,
    /// One application in so many; 1: all
    #[arg(long, default_value_t = 1, value_name = "N")]
    part: u64,
    /// How long a killed node is away
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    away: u64,
    /// The binary of another version, to begin with where nodes are upgraded; without it none are
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    #[command(flatten)]
    cluster: crate::Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Calm,
    Kill,
    Drain,
    Join,
    Replace,
    Upgrade,
}

pub async fn run(args: &Args) -> Result<bool> {
    let part = Part::of(args.part)?;
    ensure!(
        args.from.is_some() || !args.only.contains(&What::Upgrade),
        "--from is missing: the binary of the version that is upgraded"
    );
    if let Some(from) = &args.from {
        let said = Command::new(std::path::absolute(from)?)
            .arg("--version")
            .output();
        let said = said.with_context(|| format!("{} does not run", from.display()))?;
        say(format_args!(
            "from {}",
            String::from_utf8_lossy(&said.stdout).trim()
        ))?;
    }
    say(format_args!(
        "the loan file, {} rows of {} applications, into three nodes with {} shards",
        part.rows.len(),
        part.expected.applications.len(),
        args.cluster.shards
    ))?;
    // chance itself is repeatable: the first seed is told with each run's own
    let mut seeds = chance::of(chance::seed()?);
    let mut exact = true;
    for (what, incident) in [
        (What::Calm, Incident::Calm),
        (What::Kill, Incident::Kill(Duration::from_secs(args.away))),
        (What::Drain, Incident::Drain),
        (What::Join, Incident::Join),
        (What::Replace, Incident::Replace),
        (What::Upgrade, Incident::Upgrade),
    ] {
        let wanted = args.only.is_empty() || args.only.contains(&what);
        if !wanted || (what == What::Upgrade && args.from.is_none()) {
            continue;
        }
        for time in 1..=args.times {
            let seed = match std::env::var_os("SOJOURN_SEED") {
                Some(_) => chance::seed()?,
                None => seeds.random(),
            };
            let begun = Instant::now();
            let came = once(args, incident, &part, seed).await;
            let (words, took) = (incident.words(), shown(begun.elapsed()));
            let about = format!("{words}, {time} of {}", args.times);
            let run = format!("SOJOURN_SEED={seed}, {took}, {}", load()?);
            match came {
                Ok(row) => say(format_args!("exact    {about}: at receipt {row} ({run})"))?,
                Err(error) => {
                    exact = false;
                    say(format_args!("DIFFERS  {about} ({run}): {error:#}"))?;
                }
            }
        }
    }
    Ok(exact)
}

async fn once(args: &Args, incident: Incident, part: &Part, seed: u64) -> Result<u64> {
    let mut chance = chance::of(seed);
    let mut setup = args.cluster.setup();
    if incident == Incident::Upgrade {
        setup.binary = args.from.as_ref().map(std::path::absolute).transpose()?;
    }
    let mut cluster = Cluster::start(3, setup).await?;
    // after a replacement, or an upgrade, every timeline and every receipt must be there
    let replaced = matches!(incident, Incident::Replace | Incident::Upgrade);
    let look = Closeness {
        timelines: if replaced { 1 } else { 20 },
        receipts: if replaced { 1 } else { 50 },
    };
    let row = import_under(incident, &mut cluster, part, &mut chance, look).await?;
    if matches!(
        incident,
        Incident::Calm | Incident::Replace | Incident::Upgrade
    ) {
        import_again(&cluster, part).await?;
        cluster.verify().await?;
    }
    Ok(row)
}

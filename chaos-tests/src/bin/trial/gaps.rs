//! Owners killed under load, again and again: for how long nobody got an answer.

use crate::machine::{load, middle_and_worst, say, shown};
use anyhow::{Context, Result, ensure};
use rand::RngExt;
use rand::rngs::StdRng;
use sojourn_chaos_tests::chance;
use sojourn_chaos_tests::cluster::Cluster;
use sojourn_chaos_tests::load::{JOURNEY, Load, Pace, Plan};
use sojourn_chaos_tests::wait::until;
use std::time::{Duration, Instant};

/// How long it is measured what the machine takes.
const MEASURE: Duration = Duration::from_secs(8);
/// The first moments of a load are not measured: connections are made and customers begin.
const WARM: Duration = Duration::from_secs(3);
/// A node is away at least this long.
const AWAY: Duration = Duration::from_secs(3);
/// How long it may take until every shard answers again.
const ANSWERS: Duration = Duration::from_secs(60);
/// What is looked at after the cluster is whole again: shards go back to their preferred owners.
const AFTER: Duration = Duration::from_secs(4);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many kills, at a rate and again with so many in flight
    #[arg(long, default_value_t = 20, value_name = "N")]
    kills: u32,
    /// How many signals are without an answer at once, where that is what is set
    #[arg(long, default_value_t = 64, value_name = "N")]
    in_flight: usize,
    /// Signals a second; half of what the machine takes with so many in flight unless told
    #[arg(long, value_name = "RATE")]
    rate: Option<f64>,
    /// How many customers
    #[arg(long, default_value_t = 2_000, value_name = "N")]
    customers: usize,
    /// Only at the rate
    #[arg(long)]
    open_only: bool,
    #[command(flatten)]
    cluster: crate::Cluster,
}

impl Args {
    fn plan(&self, pace: Pace, name: &str) -> Plan {
        Plan {
            pace,
            customers: self.customers.max(self.in_flight),
            name: name.to_owned(),
            rounds_before: 0,
            keep: false,
        }
    }
}

/// What one kill did.
struct Kill {
    gap: Duration,
    slowest: Duration,
    back: Duration,
    whole: Duration,
}

pub async fn run(args: &Args) -> Result<bool> {
    let mut chance = chance::chance("gaps")?;
    let mut cluster = Cluster::start(3, args.cluster.setup()).await?;
    let client = cluster.client()?;
    let published = client.publish(JOURNEY, "trial").await?;
    ensure!(published.live, "the journey is not live: {published:?}");
    let full = measure(args, &cluster).await?;
    say(format_args!(
        "three nodes, {} shards, through the SDK: {full:.0} signals a second with {} in flight ({})",
        args.cluster.shards,
        args.in_flight,
        load()?
    ))?;
    let rate = args.rate.unwrap_or(full / 2.0);
    let mut whole = true;
    for (about, pace, name) in [
        (
            format!("open loop, {rate:.0} a second"),
            Pace::Rate(rate),
            "open",
        ),
        (
            format!("{} in flight", args.in_flight),
            Pace::InFlight(args.in_flight),
            "closed",
        ),
    ] {
        if args.open_only && name != "open" {
            continue;
        }
        let plan = args.plan(pace, name);
        let series = series(args.kills, &mut cluster, plan, &about, &mut chance).await?;
        whole &= series.failed == 0;
    }
    cluster.verify().await.context("after all kills")?;
    say(format_args!("the replicas are equal"))?;
    Ok(whole)
}

/// What came of owners that were killed under an open loop.
pub struct Killed {
    /// Signals a second.
    pub rate: f64,
    /// The longest time without an answer of each kill, the median and the worst.
    pub gap: (Duration, Duration),
    /// How many kills.
    pub kills: u32,
    /// Signals with a receipt.
    pub answered: usize,
    /// Signals without.
    pub failed: usize,
}

/// Kills owners at half the rate that the machine takes.
pub async fn open_loop(kills: u32, shards: u16) -> Result<Killed> {
    let args = Args {
        kills,
        in_flight: 64,
        rate: None,
        customers: 2_000,
        open_only: true,
        cluster: crate::Cluster { shards },
    };
    let mut chance = chance::chance("gaps")?;
    let mut cluster = Cluster::start(3, args.cluster.setup()).await?;
    cluster.client()?.publish(JOURNEY, "trial").await?;
    let rate = measure(&args, &cluster).await? / 2.0;
    let (plan, about) = (args.plan(Pace::Rate(rate), "open"), "open loop");
    let series = series(kills, &mut cluster, plan, about, &mut chance).await?;
    cluster.verify().await.context("after all kills")?;
    let mut gaps: Vec<Duration> = series.kills.iter().map(|k| k.gap).collect();
    gaps.sort_unstable();
    Ok(Killed {
        rate,
        gap: (
            gaps.get(gaps.len() / 2).copied().unwrap_or_default(),
            gaps.last().copied().unwrap_or_default(),
        ),
        kills,
        answered: series.answered,
        failed: series.failed,
    })
}

/// What the machine takes.
async fn measure(args: &Args, cluster: &Cluster) -> Result<f64> {
    let plan = args.plan(Pace::InFlight(args.in_flight), "measure");
    let loading = Load::start(cluster.client()?, plan);
    tokio::time::sleep(WARM).await;
    let from = Instant::now();
    tokio::time::sleep(MEASURE).await;
    let until = Instant::now();
    let books = loading.finish().await?;
    let failed = books.failed.first();
    ensure!(
        failed.is_none(),
        "in calm, a signal got no receipt: {failed:?}"
    );
    Ok(books.rate(from, until))
}

/// What came of some kills under one load.
struct Series {
    kills: Vec<Kill>,
    answered: usize,
    failed: usize,
}

async fn series(
    times: u32,
    cluster: &mut Cluster,
    plan: Plan,
    about: &str,
    chance: &mut StdRng,
) -> Result<Series> {
    say(format_args!("{about}:"))?;
    let loading = Load::start(cluster.client()?, plan);
    tokio::time::sleep(WARM).await;
    let calm = Instant::now();
    tokio::time::sleep(WARM).await;
    let calm_gap = loading.look(|b| b.longest_gap(calm, Instant::now()));
    let calm_rate = loading.look(|b| b.rate(calm, Instant::now()));
    say(format_args!(
        "  calm: {calm_rate:.0} a second, longest gap of a shard {}",
        calm_gap.map_or_else(
            || "-".into(),
            |(gap, shard)| format!("{} (shard {shard})", shown(gap))
        )
    ))?;
    let mut kills = Vec::new();
    for number in 1..=times {
        let kill = one(cluster, &loading, number, chance).await?;
        say(format_args!(
            "  kill {number}: gap {}, slowest call {}; back again: gap {}; whole after {}",
            shown(kill.gap),
            shown(kill.slowest),
            shown(kill.back),
            shown(kill.whole)
        ))?;
        kills.push(kill);
    }
    let books = loading.finish().await?;
    let of = |get: fn(&Kill) -> Duration| middle_and_worst(kills.iter().map(get).collect());
    say(format_args!(
        "  {} kills, {about}, {}: longest gap of a shard {}; slowest call {}; the way back {}; {} answered, {} not{}",
        kills.len(),
        load()?,
        of(|k| k.gap),
        of(|k| k.slowest),
        of(|k| k.back),
        books.acks.len(),
        books.failed.len(),
        books
            .failed
            .first()
            .map_or_else(String::new, |f| format!(", the first: {f}"))
    ))?;
    Ok(Series {
        kills,
        answered: books.acks.len(),
        failed: books.failed.len(),
    })
}

/// Kills one node, waits until all shards answer, starts it again, waits until the cluster is whole.
async fn one(
    cluster: &mut Cluster,
    loading: &Load,
    number: u32,
    chance: &mut StdRng,
) -> Result<Kill> {
    let place = if number.is_multiple_of(2) {
        chance.random_range(0..cluster.places())
    } else {
        cluster.busiest().await?
    };
    let shards = cluster.owners().await?.len();
    let killed = Instant::now();
    cluster.kill(place)?;
    let down = Instant::now();
    until("every shard answers again", ANSWERS, async || {
        let answering = loading.look(|books| {
            let since = books.acks.iter().rev().take_while(|a| a.at > down);
            let mut shards: Vec<u32> = since.map(|a| a.shard).collect();
            shards.sort_unstable();
            shards.dedup();
            shards.len()
        });
        Ok((answering == shards).then_some(()))
    })
    .await?;
    tokio::time::sleep_until((killed + AWAY).into()).await;
    let start = Instant::now();
    cluster.again(place).await?;
    cluster.whole(3).await?;
    let whole = start.elapsed();
    tokio::time::sleep(AFTER).await;
    let end = Instant::now();
    Ok(loading.look(|books| Kill {
        gap: books
            .longest_gap(killed, start)
            .map_or(Duration::ZERO, |(gap, _)| gap),
        slowest: books.slowest(killed, start).unwrap_or_default(),
        back: books
            .longest_gap(start, end)
            .map_or(Duration::ZERO, |(gap, _)| gap),
        whole,
    }))
}

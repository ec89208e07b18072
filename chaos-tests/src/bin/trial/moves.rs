//! A node joins, one is drained, a dead one is replaced, with many executions and under load: how long it takes, what
//! clients notice, and how even it is afterwards.

use crate::machine::{load, say, shown};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::cluster::{Cluster, remove};
use sojourn_chaos_tests::load::{JOURNEY, Load, Pace, Plan};
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::{ClusterStatus, NodeState};
use std::time::{Duration, Instant};

/// How long it is measured what the machine takes, and how even the load is in calm.
const MEASURE: Duration = Duration::from_secs(8);
/// The first moments of a load are not measured.
const WARM: Duration = Duration::from_secs(3);
/// How long making the executions may take.
const LOADING: Duration = Duration::from_secs(1_800);
/// How long a dead node may be unnoticed.
const MISSED: Duration = Duration::from_secs(60);
/// What the customers' names begin with.
const MADE: &str = "made";
/// How far from even, as a part.
const EVEN: f64 = 0.25;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many executions there are
    #[arg(long, default_value_t = 200_000, value_name = "N")]
    executions: usize,
    /// Signals a second meanwhile; half of what the machine takes unless told
    #[arg(long, value_name = "RATE")]
    rate: Option<f64>,
    /// How many signals are without an answer at once while executions are made
    #[arg(long, default_value_t = 256, value_name = "N")]
    in_flight: usize,
    #[command(flatten)]
    cluster: crate::Cluster,
}

pub async fn run(args: &Args) -> Result<bool> {
    let mut cluster = Cluster::start(3, args.cluster.setup()).await?;
    let client = cluster.client()?;
    let published = client.publish(JOURNEY, "trial").await?;
    ensure!(published.live, "the journey is not live: {published:?}");
    let full = make(args, &cluster).await?;
    let rate = args.rate.unwrap_or(full / 2.0);
    say(format_args!(
        "{} executions in {} shards made at {full:.0} a second; now {rate:.0} a second ({})",
        args.executions,
        args.cluster.shards,
        load()?
    ))?;
    // the same customers, each woken in turn, with signals that they have not had
    let plan = Plan {
        pace: Pace::Rate(rate),
        customers: args.executions,
        name: MADE.into(),
        rounds_before: 1_000_000,
        keep: false,
    };
    let loading = Load::start(cluster.client()?, plan);
    tokio::time::sleep(WARM).await;
    let calm = Instant::now();
    tokio::time::sleep(MEASURE).await;
    let before = loading.look(|b| b.rate(calm, Instant::now()));
    tell("calm", &loading, calm, before, &cluster.whole(3).await?)?;
    let mut even = true;

    let begun = Instant::now();
    cluster.add().await?;
    let status = cluster.whole(4).await?;
    even &= tell("a fourth node joined", &loading, begun, before, &status)?;

    let begun = Instant::now();
    cluster.drain(0).await?;
    let status = cluster.whole(3).await?;
    even &= tell("the first node drained", &loading, begun, before, &status)?;
    // empty: it goes unnoticed
    cluster.remove(0).await?;
    cluster.gone(0).await?;

    let begun = Instant::now();
    let dead = cluster.id(1);
    cluster.kill(1)?;
    cluster.add().await?;
    until("the dead node is missed", MISSED, async || {
        let nodes = cluster.view().await?.nodes;
        let lost = |n: &sojourn_client::wire::NodeStatus| {
            !n.reachable && n.info.as_ref().is_some_and(|i| i.id == dead)
        };
        Ok(nodes.iter().any(lost).then_some(()))
    })
    .await?;
    let change = cluster.apply(vec![remove(dead)]).await?;
    cluster.done(&change).await?;
    let status = cluster.whole(3).await?;
    even &= tell(
        "a dead node replaced by a new one",
        &loading,
        begun,
        before,
        &status,
    )?;

    let books = loading.finish().await?;
    cluster.verify().await.context("after all moves")?;
    say(format_args!(
        "the replicas are equal; {} signals answered, {} not{}",
        books.acks.len(),
        books.failed.len(),
        books
            .failed
            .first()
            .map_or_else(String::new, |f| format!(", the first: {f}"))
    ))?;
    Ok(even && books.failed.is_empty())
}

/// Makes the executions; gives how many a second.
async fn make(args: &Args, cluster: &Cluster) -> Result<f64> {
    let plan = Plan {
        pace: Pace::InFlight(args.in_flight.min(args.executions)),
        customers: args.executions,
        name: MADE.into(),
        rounds_before: 0,
        keep: false,
    };
    let loading = Load::start(cluster.client()?, plan);
    let begun = Instant::now();
    until("the executions are made", LOADING, async || {
        Ok((loading.answered() >= args.executions).then_some(()))
    })
    .await?;
    let until = Instant::now();
    let books = loading.finish().await?;
    let failed = books.failed.first();
    ensure!(
        failed.is_none(),
        "in calm, a signal got no receipt: {failed:?}"
    );
    Ok(books.rate(begun + WARM.min(until.duration_since(begun) / 2), until))
}

/// Tells of what has just ended; says whether it is even.
fn tell(
    what: &str,
    loading: &Load,
    begun: Instant,
    before: f64,
    status: &ClusterStatus,
) -> Result<bool> {
    let now = Instant::now();
    let (rate, gap, slowest, worst) = loading.look(|books| {
        let seconds = (0..now.duration_since(begun).as_secs()).map(|second| {
            let from = begun + Duration::from_secs(second);
            books.rate(from, from + Duration::from_secs(1))
        });
        (
            books.rate(begun, now),
            books.longest_gap(begun, now),
            books.slowest(begun, now).unwrap_or_default(),
            seconds.fold(f64::INFINITY, f64::min),
        )
    });
    let lost = (1.0 - rate / before.max(f64::MIN_POSITIVE)).max(0.0) * 100.0;
    say(format_args!(
        "{what}: {}; {rate:.0} a second ({lost:.0} % lost), {worst:.0} in the worst second; longest gap of a shard {}, \
         slowest call {} ({})",
        shown(now.duration_since(begun)),
        gap.map_or_else(
            || "-".into(),
            |(gap, shard)| format!("{} (shard {shard})", shown(gap))
        ),
        shown(slowest),
        load()?
    ))?;
    let active: Vec<_> = status
        .nodes
        .iter()
        .filter_map(|n| Some((n.info.as_ref()?, n.owns, n.replicas)))
        .filter(|(info, ..)| info.state() == NodeState::Active)
        .collect();
    let mut even = true;
    for (kind, of) in [("owners", 1), ("replicas", 2)] {
        let counts: Vec<u32> = active
            .iter()
            .map(|(_, owns, replicas)| if of == 1 { *owns } else { *replicas })
            .collect();
        let mean = f64::from(counts.iter().sum::<u32>()) / counts.len().max(1) as f64;
        let within = counts
            .iter()
            .all(|count| (f64::from(*count) - mean).abs() <= mean * EVEN);
        even &= within;
        say(format_args!(
            "  {kind} {counts:?}, {} a quarter of even ({mean:.1})",
            if within { "within" } else { "NOT within" }
        ))?;
    }
    Ok(even)
}

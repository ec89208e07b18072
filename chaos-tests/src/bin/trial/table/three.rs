//! Three nodes on this machine: rates, CPU of all three together, and what they cost when nothing happens.

use super::one::{cpu, resident};
use super::{Args, COLUMNS, Page, bench};
use crate::Cluster as Shards;
use anyhow::Result;
use sojourn_chaos_tests::cluster::Cluster;
use std::time::Duration;

/// How long idle nodes are watched.
const WATCHED: Duration = Duration::from_secs(20);

pub(super) async fn run(args: &Args, page: &mut Page) -> Result<()> {
    let cluster = Cluster::start(3, Shards { shards: 32 }.setup()).await?;
    cluster.whole(3).await?;
    let cli = cluster.commands();
    page.table("Three nodes, three replicas of each shard", &COLUMNS)?;
    let before = together(&cluster)?;
    let unary = bench(args, &cli, None, &["--in-flight", "64,256"]).await?;
    for run in &unary {
        page.row(&run.cells("unary"))?;
        if run.name == "256" {
            let what = "three nodes, 256 in flight";
            let rate = run.server.rate;
            page.want(what, "≥ 8,000/s", run.server.shown(), rate >= 8_000.0);
        }
    }
    for run in bench(args, &cli, None, &["--stream", "--in-flight", "1024"]).await? {
        page.row(&run.cells("streamed"))?;
    }
    let spent = together(&cluster)? - before;
    let received = cluster.receipts().await?;
    page.line(&format!(
        "\nThe three servers together spent {spent:.1} s of CPU on {received} signals: {:.2} s per 10,000.",
        spent / received as f64 * 1e4
    ))?;
    page.table(
        "A node of three that does nothing",
        &["node", "CPU of one core", "resident MiB"],
    )?;
    // what the load has left behind is put away first
    tokio::time::sleep(WATCHED).await;
    let mut begun = Vec::new();
    for place in cluster.running() {
        begun.push((place, cpu(cluster.node(place).process())?));
    }
    tokio::time::sleep(WATCHED).await;
    for (place, before) in begun {
        let process = cluster.node(place).process();
        let share = (cpu(process)? - before) / WATCHED.as_secs_f64() * 100.0;
        let mib = resident(process)? as f64 / f64::from(1 << 20);
        let node = cluster.id(place).to_string();
        page.row(&[node, format!("{share:.1} %"), format!("{mib:.0}")])?;
    }
    Ok(())
}

fn together(cluster: &Cluster) -> Result<f64> {
    let nodes = cluster.running().into_iter();
    nodes.map(|place| cpu(cluster.node(place).process())).sum()
}

//! The loan story on three nodes: whatever happens to one of them in the middle, the figures are exact and the replicas
//! equal.

use crate::support::chance;
use anyhow::{Result, ensure};
use sojourn_chaos_tests::cluster::Cluster;
use sojourn_chaos_tests::incident::{Closeness, Incident, import_again, import_under};
use sojourn_chaos_tests::loan::Part;
use sojourn_chaos_tests::owners::Auditor;
use sojourn_chaos_tests::process::Setup;
use std::time::Duration;

const LOOK: Closeness = Closeness {
    timelines: 40,
    receipts: 20,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_give_what_a_plain_table_gives_and_all_again_are_duplicates() -> Result<()> {
    let mut chance = chance("three nodes")?;
    let part = Part::of(8)?;
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    import_under(Incident::Calm, &mut cluster, &part, &mut chance, LOOK).await?;
    import_again(&cluster, &part).await?;
    cluster.verify().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_killed_in_the_middle_changes_no_figure() -> Result<()> {
    let mut chance = chance("a node killed in the middle")?;
    let part = Part::of(16)?;
    let mut cluster = Cluster::start(3, Setup::default().many_checkpoints()).await?;
    let nodes = cluster.running().into_iter();
    let auditor = Auditor::of(nodes.map(|place| cluster.node(place).url()))?;
    let killed = Incident::Kill(Duration::from_secs(3));
    import_under(killed, &mut cluster, &part, &mut chance, LOOK).await?;
    let audit = auditor.finish()?;
    ensure!(audit.answers > 20, "the auditor saw little: {audit:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_drained_in_the_middle_changes_no_figure() -> Result<()> {
    let mut chance = chance("a node drained in the middle")?;
    let part = Part::of(16)?;
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    import_under(Incident::Drain, &mut cluster, &part, &mut chance, LOOK).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_node_joining_in_the_middle_changes_no_figure() -> Result<()> {
    let mut chance = chance("a fourth node joining in the middle")?;
    let part = Part::of(16)?;
    let mut cluster = Cluster::start(3, Setup::default().many_checkpoints()).await?;
    import_under(Incident::Join, &mut cluster, &part, &mut chance, LOOK).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_three_first_nodes_replaced_every_timeline_and_receipt_is_there() -> Result<()> {
    let mut chance = chance("all three first nodes replaced")?;
    let part = Part::of(16)?;
    let mut cluster = Cluster::start(3, Setup::default().many_checkpoints()).await?;
    let all = Closeness {
        timelines: 1,
        receipts: 1,
    };
    import_under(Incident::Replace, &mut cluster, &part, &mut chance, all).await?;
    import_again(&cluster, &part).await?;
    cluster.verify().await.map(drop)
}

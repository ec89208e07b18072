//! Nodes of three that stop, die, stand still and lose their disks, under load: nothing is lost, and no client sees an
//! error that waiting within its deadline would have cured.

use crate::several::{all_there_once, load, more};
use crate::support::{chance, publish};
use anyhow::{Context, Result, ensure};
use rand::RngExt;
use sojourn_chaos_tests::cluster::Cluster;
use sojourn_chaos_tests::load::JOURNEY;
use sojourn_chaos_tests::owners::Auditor;
use sojourn_chaos_tests::process::Setup;
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::NodeState;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_nodes_under_load_is_seen_by_nobody() -> Result<()> {
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    let client = cluster.client()?;
    publish(&client, JOURNEY).await?;
    let auditor = Auditor::of(cluster.running().into_iter().map(|p| cluster.node(p).url()))?;
    let loading = load(client.clone(), "rolling");
    more(&loading, 60).await?;
    for place in 0..cluster.places() {
        cluster.stop(place).await?;
        more(&loading, 30).await?;
        cluster.again(place).await?;
        cluster.whole(3).await?;
        more(&loading, 30).await?;
    }
    let books = loading.finish().await?;
    cluster.verify().await?;
    auditor.finish()?;
    all_there_once(&client, "rolling", &books).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_and_standstills_under_load_lose_nothing_and_make_no_second_owner() -> Result<()> {
    let mut chance = chance("kills and standstills")?;
    let mut cluster = Cluster::start(3, Setup::default().many_checkpoints()).await?;
    let client = cluster.client()?;
    publish(&client, JOURNEY).await?;
    let auditor = Auditor::of(cluster.running().into_iter().map(|p| cluster.node(p).url()))?;
    let loading = load(client.clone(), "kills");
    for round in 0..4 {
        more(&loading, chance.random_range(10..60)).await?;
        let place = if round == 0 {
            cluster.busiest().await?
        } else {
            chance.random_range(0..cluster.places())
        };
        if round % 2 == 0 {
            cluster.kill(place)?;
            more(&loading, 30).await?;
            cluster.again(place).await?;
        } else {
            cluster.node(place).pause()?;
            // the others notice, and go on; then it wakes and knows nothing of it
            more(&loading, 120).await?;
            cluster.node(place).resume()?;
        }
        cluster.whole(3).await?;
    }
    let books = loading.finish().await?;
    cluster.verify().await?;
    let audit = auditor.finish()?;
    ensure!(audit.terms > 4, "ownership never moved: {audit:?}");
    all_there_once(&client, "kills", &books).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lost_its_disk_comes_back_as_another() -> Result<()> {
    let mut chance = chance("a node that lost its disk")?;
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    let client = cluster.client()?;
    publish(&client, JOURNEY).await?;
    let loading = load(client.clone(), "disk");
    more(&loading, 60).await?;
    let place = chance.random_range(0..cluster.places());
    let (old, doors) = (cluster.id(place), cluster.node(place).doors());
    cluster.kill(place)?;
    cluster.lose_disk(place)?;
    cluster.again(place).await?;
    let new = cluster.id(place);
    ensure!(
        new > 3,
        "node {old} lost its disk and came back as node {new}"
    );
    ensure!(
        cluster.node(place).doors() == doors,
        "it is at the same addresses, and another node all the same"
    );
    more(&loading, 30).await?;
    // the old one is still waited for; nobody takes the new one for it
    until(
        "the new node is active",
        Duration::from_secs(60),
        async || {
            let status = cluster.view().await?;
            let state = |id: u64| {
                let mut nodes = status.nodes.iter().filter_map(|n| n.info.as_ref());
                nodes.find(|n| n.id == id).map(|n| n.state())
            };
            let was = state(old);
            ensure!(was == Some(NodeState::Active), "node {old} is {was:?}");
            Ok((state(new) == Some(NodeState::Active)).then_some(()))
        },
    )
    .await?;
    let lost = until(
        "the old node is missed",
        Duration::from_secs(60),
        async || {
            let status = cluster.view().await?;
            let node = status
                .nodes
                .into_iter()
                .find(|n| n.info.as_ref().is_some_and(|i| i.id == old));
            let node = node.context("it is still a member")?;
            Ok((!node.reachable).then_some(node))
        },
    )
    .await?;
    ensure!(!lost.why.is_empty(), "{lost:?}");
    let change = cluster
        .apply(vec![sojourn_chaos_tests::cluster::remove(old)])
        .await?;
    cluster.done(&change).await?;
    let status = cluster.whole(3).await?;
    ensure!(
        status
            .shards
            .iter()
            .all(|s| !s.voters.contains(&old) && s.voters.contains(&new)),
        "{:#?}",
        status.shards
    );
    let books = loading.finish().await?;
    cluster.verify().await?;
    all_there_once(&client, "disk", &books).await
}

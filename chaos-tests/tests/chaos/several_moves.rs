//! Changes that do not go as they were meant: nodes that stop in the middle, changes that are given up.

use crate::several::{all_there_once, load, more};
use crate::support::publish;
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::cluster::{Cluster, drain};
use sojourn_chaos_tests::load::JOURNEY;
use sojourn_chaos_tests::process::Setup;
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::{ChangeState, ControlKind, ControlRequest};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_waits_for_a_node_says_so_and_can_be_given_up() -> Result<()> {
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    let fourth = cluster.add().await?;
    cluster.whole(4).await?;
    let client = cluster.client()?;
    publish(&client, JOURNEY).await?;
    let loading = load(client.clone(), "given up");
    more(&loading, 30).await?;
    // nobody knows yet that it stands still when the change begins, which needs it
    cluster.node(fourth).pause()?;
    let change = cluster.apply(vec![drain(cluster.id(1))]).await?;
    ensure!(!change.id.is_empty(), "there was nothing to do");
    until(
        "the change names the node",
        Duration::from_secs(90),
        async || {
            let change = cluster.status(0).await?.change;
            let note = change.map_or_else(String::new, |c| c.note);
            let says = format!(
                "wait for node {}, which cannot be reached",
                cluster.id(fourth)
            );
            Ok(note.contains(&says).then_some(()))
        },
    )
    .await?;
    more(&loading, 30).await?;
    let cancel = ControlRequest {
        id: change.id.clone(),
        kind: ControlKind::Cancel.into(),
        actor: "story".into(),
        ..Default::default()
    };
    let cancelled = cluster.service(0)?.control(cancel).await?.into_inner();
    let cancelled = cancelled.change.context("a change")?;
    ensure!(cancelled.state() == ChangeState::Cancelled, "{cancelled:?}");
    let listening = cluster.status(0).await?;
    ensure!(
        listening.shards.iter().all(|s| s.learners.is_empty()),
        "somebody listens still: {:#?}",
        listening.shards
    );
    more(&loading, 30).await?;
    cluster.node(fourth).resume()?;
    cluster.whole(4).await?;
    let books = loading.finish().await?;
    cluster.verify().await?;
    all_there_once(&client, "given up", &books).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_the_one_that_owns_the_catalog_is_removed() -> Result<()> {
    let mut cluster = Cluster::start(2, Setup::default()).await?;
    let client = cluster.client()?;
    publish(&client, JOURNEY).await?;
    let loading = load(client.clone(), "of two");
    more(&loading, 30).await?;
    let owner = cluster.view().await?.catalog_owner;
    let place = cluster.place_of(owner)?;
    cluster.remove(place).await?;
    cluster.gone(place).await?;
    let status = cluster.whole(1).await?;
    ensure!(
        status.catalog_voters.len() == 1 && status.catalog_voters[0] != owner,
        "{:?}",
        status.catalog_voters
    );
    more(&loading, 30).await?;
    let books = loading.finish().await?;
    all_there_once(&client, "of two", &books).await
}

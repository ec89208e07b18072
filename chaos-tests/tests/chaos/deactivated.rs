//! A journey that is deactivated in its three ways, and activated again, over a kill.

use crate::support::{customer, execution, publish, send, signal, until_execution};
use anyhow::{Result, ensure};
use sojourn_chaos_tests::invariants::{
    events, records, stages, timeline, timers_are_neither_lost_nor_early,
};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::event::What;
use sojourn_client::wire::{JourneyState, Status};
use sojourn_client::{Client, Deactivation, ExecutionRef, Read, Receipt};
use std::time::Duration;

const JOURNEY: &str = r#"
journey: doors
entry: [{ on: a.start }]
stages:
  - stage: one
    transitions: [{ to: two, on: a.up }, { to: late, after: 2s }]
  - stage: two
    transitions: [{ to: end, on: a.end }]
  - stage: late
    transitions: [{ to: two, on: a.up }]
  - { stage: end, end: done }
"#;

async fn begun(names: &[&str]) -> Result<(Server, Client)> {
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    for name in names {
        send(&client, signal("a.start", &customer(name), "start")).await?;
    }
    Ok((server, client))
}

fn ann_of_doors() -> ExecutionRef {
    ExecutionRef::Latest {
        customer: customer("ann"),
        journey: "doors".to_owned(),
        instance: None,
    }
}

fn fate(receipt: &Receipt) -> String {
    let fate = receipt.parts.first().and_then(|p| p.fate.as_ref());
    fate.map(ToString::to_string).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_signals_and_timers_wait_and_are_taken_in_order() -> Result<()> {
    let (mut server, client) = begun(&["ann", "bob"]).await?;
    let (ann, bob) = (customer("ann"), customer("bob"));
    let info = client
        .deactivate("doors", Deactivation::Hold, "story")
        .await?;
    ensure!(info.state() == JourneyState::Held);
    ensure!(fate(&send(&client, signal("a.up", &ann, "up")).await?) == "held");
    let refused = fate(&send(&client, signal("a.start", &customer("new"), "start")).await?);
    ensure!(
        refused.contains("refused: the journey is held"),
        "{refused}"
    );
    // who was refused is known, and has a record though no execution
    let told = records(&client, &customer("new")).await?;
    ensure!(told.len() == 1, "the refusal is on record: {told:?}");
    let shown = execution(&client, &ann, "doors").await?;
    ensure!(shown.journey_state == "held" && shown.waiting == 1);
    let why = client.why(&ann_of_doors(), Read::default()).await?;
    ensure!(
        why.summary.contains("deactivated (hold)") && why.summary.contains("1 signals wait"),
        "{}",
        why.summary
    );
    server.crash().await?;
    // bob's time comes while the journey is held: it waits
    until("bob's timer waits", Duration::from_secs(20), async || {
        let entries = timeline(&client, &bob, "doors").await?;
        let waits = |(_, _, what): &(u64, i64, What)| matches!(what, What::TimerWaits(_));
        Ok(events(&entries).iter().any(waits).then_some(()))
    })
    .await?;
    ensure!(execution(&client, &bob, "doors").await?.stage == "one");
    ensure!(execution(&client, &ann, "doors").await?.stage == "one");
    ensure!(fate(&send(&client, signal("a.up", &bob, "up")).await?) == "held");

    client.activate("doors", "story").await?;
    until_execution(&client, &ann, "doors", "goes on", |e| e.stage == "two").await?;
    until_execution(&client, &bob, "doors", "goes on", |e| e.stage == "two").await?;
    // what came first is taken first: ann's signal before her timer, bob's timer before his signal
    let went = stages(&timeline(&client, &bob, "doors").await?);
    ensure!(went == ["one", "late", "two"], "bob went {went:?}");
    let went = stages(&timeline(&client, &ann, "doors").await?);
    ensure!(went == ["one", "two"], "ann went {went:?}");
    send(&client, signal("a.start", &customer("new"), "again")).await?;
    ensure!(execution(&client, &customer("new"), "doors").await?.stage == "one");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_signals_are_gone_and_timers_wait() -> Result<()> {
    let (mut server, client) = begun(&["ann"]).await?;
    let ann = customer("ann");
    client
        .deactivate("doors", Deactivation::Drop, "story")
        .await?;
    server.crash().await?;
    let dropped = fate(&send(&client, signal("a.up", &ann, "up")).await?);
    ensure!(dropped.contains("drops signals"), "{dropped}");
    client.activate("doors", "story").await?;
    // the signal is gone, the time is not
    let moved = until_execution(&client, &ann, "doors", "is late", |e| e.stage == "late").await?;
    ensure!(moved.visit == 2);
    timers_are_neither_lost_nor_early(&client, &ann, "doors", 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_finishes_those_inside_and_takes_nobody() -> Result<()> {
    let (mut server, client) = begun(&["ann"]).await?;
    let ann = customer("ann");
    client
        .deactivate("doors", Deactivation::Drain, "story")
        .await?;
    server.crash().await?;
    let closed = fate(&send(&client, signal("a.start", &customer("new"), "start")).await?);
    ensure!(closed.contains("draining"), "{closed}");
    // whichever comes first, her time or her signal, the way leads on
    send(&client, signal("a.up", &ann, "up")).await?;
    send(&client, signal("a.end", &ann, "end")).await?;
    let ended = execution(&client, &ann, "doors").await?;
    ensure!(ended.status() == Status::Completed, "{ended:?}");
    ensure!(
        client
            .journey("doors", None)
            .await?
            .journey
            .is_some_and(|j| j.active == 0)
    );
    Ok(())
}

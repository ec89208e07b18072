//! Time, with a kill -9 between arming and firing: nothing is lost, nothing early, nothing twice.

use crate::support::{customer, execution, now, publish, send, signal, until_execution};
use anyhow::{Result, ensure};
use sojourn_chaos_tests::invariants::{
    applied_at_most_once, events, stages, timeline, timers_are_neither_lost_nor_early,
};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::wire::event::What;
use sojourn_client::wire::{Status, TimerKind};

/// Every kind of timer, as one journey each: some are due while the server is down, some after it is back.
const JOURNEYS: [(&str, &str); 8] = [
    (
        "delay",
        "stages:\n  - stage: one\n    transitions: [{ to: end, after: 6s }, { to: two, on: t.up }]\n  - stage: two\n    transitions: [{ to: end, on: t.end }]\n",
    ),
    (
        "soon",
        "stages:\n  - stage: one\n    transitions: [{ to: end, after: 1s }]\n",
    ),
    (
        "absence",
        "stages:\n  - stage: one\n    transitions: [{ to: end, absent: t.opened, within: 5s }]\n",
    ),
    (
        "rhythm",
        "stages:\n  - stage: one\n    repeat: [{ every: 2s, at_most: 4, do: [{ log: { text: again } }] }]\n    transitions: [{ to: end, on: t.end }]\n",
    ),
    (
        "stall",
        "stages:\n  - stage: one\n    stalled_after: 5s\n    transitions: [{ to: end, on: t.end }]\n",
    ),
    (
        "escalate",
        "stages:\n  - stage: one\n    deadline:\n      - { after: 4s, escalate: [{ log: { text: chase } }] }\n      - { after: 8s, move: two }\n    transitions: [{ to: end, on: t.end }]\n  - stage: two\n    transitions: [{ to: end, on: t.end }]\n",
    ),
    (
        "expiry",
        "deadline: { after: 6s }\nstages:\n  - stage: one\n    transitions: [{ to: end, on: t.end }]\n",
    ),
    (
        "closing",
        "deadline: { after: 6s, move: two }\nstages:\n  - stage: one\n    transitions: [{ to: end, on: t.end }]\n  - stage: two\n    transitions: [{ to: end, on: t.end }]\n",
    ),
];

async fn started() -> Result<Server> {
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    for (name, rest) in JOURNEYS {
        let text = format!(
            "journey: {name}\nentry: [{{ on: t.{name} }}]\n{rest}  - {{ stage: end, end: done }}\n"
        );
        publish(&client, &text).await?;
    }
    Ok(server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_timer_survives_a_kill_between_arming_and_firing() -> Result<()> {
    let mut server = started().await?;
    let client = server.client()?;
    for (name, _) in JOURNEYS {
        let who = customer(name);
        send(&client, signal(&format!("t.{name}"), &who, "start")).await?;
    }
    // beside each that fires, one whose timer is left behind, or whose signal came
    let (left, opened) = (customer("left"), customer("opened"));
    send(&client, signal("t.delay", &left, "start")).await?;
    send(&client, signal("t.up", &left, "up")).await?;
    send(&client, signal("t.absence", &opened, "start")).await?;
    send(&client, signal("t.opened", &opened, "opened")).await?;
    server.crash().await?;

    for (name, wanted) in [
        ("soon", "end"),
        ("delay", "end"),
        ("absence", "end"),
        ("escalate", "two"),
        ("closing", "two"),
    ] {
        let who = customer(name);
        until_execution(&client, &who, name, "has moved by time", |e| {
            e.stage == wanted
        })
        .await?;
    }
    let expired = until_execution(&client, &customer("expiry"), "expiry", "has expired", |e| {
        e.status() == Status::Expired
    })
    .await?;
    ensure!(
        expired.stage == "one",
        "it expires where it stands: {}",
        expired.stage
    );
    let stalled = until_execution(&client, &customer("stall"), "stall", "is stalled", |e| {
        e.stalled
    })
    .await?;
    ensure!(stalled.stage == "one" && stalled.status() == Status::Active);
    until_execution(
        &client,
        &customer("rhythm"),
        "rhythm",
        "repeats no more",
        |e| e.timers.iter().all(|t| t.kind() != TimerKind::Repeat),
    )
    .await?;

    for (name, _) in JOURNEYS {
        let who = customer(name);
        let fired = timers_are_neither_lost_nor_early(&client, &who, name, now()).await?;
        let count = fired.len();
        match name {
            // a repeat that missed some fires once for them; its last round is its fourth at most
            "rhythm" => ensure!((1..=4).contains(&count), "{name} fired {fired:?}"),
            "escalate" => ensure!(count == 2, "{name} fired {fired:?}"),
            _ => ensure!(count == 1, "{name} fired {fired:?}"),
        }
    }
    let escalated = events(&timeline(&client, &customer("escalate"), "escalate").await?);
    let chased = escalated
        .iter()
        .filter(|(_, _, w)| matches!(w, What::Action(a) if a.kind == "log"));
    ensure!(
        chased.count() == 1,
        "the escalation was done once: {escalated:?}"
    );

    // what was left behind did not fire
    let fired = timers_are_neither_lost_nor_early(&client, &left, "delay", now()).await?;
    ensure!(fired.is_empty(), "a timer of an old visit fired: {fired:?}");
    ensure!(execution(&client, &left, "delay").await?.stage == "two");
    ensure!(execution(&client, &opened, "absence").await?.stage == "one");

    let mut everybody: Vec<_> = JOURNEYS.iter().map(|(name, _)| customer(name)).collect();
    everybody.extend([left, opened]);
    applied_at_most_once(&client, &everybody).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timers_that_came_due_while_it_was_down_fire_late_and_all_of_them() -> Result<()> {
    let mut server = started().await?;
    let client = server.client()?;
    let many: Vec<_> = (0..300).map(|n| customer(&format!("c{n}"))).collect();
    let mut pending = Vec::new();
    for who in &many {
        pending.push(client.enqueue(signal("t.soon", who, "start")).await?);
    }
    for answer in pending {
        ensure!(answer.await?.receipt().is_some());
    }
    // down at the time at which most are due
    server.kill()?;
    let due = now() + 1_500_000;
    sojourn_chaos_tests::wait::until(
        "the timers are due",
        std::time::Duration::from_secs(5),
        async || Ok((now() >= due).then_some(())),
    )
    .await?;
    server.again().await?;
    for who in &many {
        until_execution(&client, who, "soon", "has ended", |e| e.stage == "end").await?;
        let fired = timers_are_neither_lost_nor_early(&client, who, "soon", now()).await?;
        ensure!(fired.len() == 1, "{who} fired {fired:?}");
        let went = stages(&timeline(&client, who, "soon").await?);
        ensure!(went == ["one", "end"], "{who} went {went:?}");
    }
    applied_at_most_once(&client, &many).await
}

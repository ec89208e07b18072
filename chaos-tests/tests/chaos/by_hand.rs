//! Override, hold, resume, stop: as people give them, twice, late, and over a kill.

use crate::support::{customer, execution, publish, send, signal, until_execution};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::invariants::{applied_at_most_once, events, latest, stages, timeline};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::wire::event::What;
use sojourn_client::wire::{CauseKind, Status};
use sojourn_client::{Client, Code, Command, Fate, Identifier};

const JOURNEY: &str = r#"
journey: hand
entry: [{ on: a.start }]
stages:
  - stage: one
    enter: [{ log: { text: in } }]
    leave: [{ log: { text: out } }]
    transitions:
      - { to: two, on: a.up, do: [{ log: { text: up } }] }
  - stage: two
    enter: [{ log: { text: two } }]
    transitions: [{ to: three, on: a.on }, { to: one, on: a.back }]
  - stage: three
    transitions: [{ to: end, on: a.end }]
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

fn command(id: &str) -> Command {
    Command {
        id: id.into(),
        ..Command::new("ann", "the customer called")
    }
}

/// The places of the actions of an execution, in order.
async fn actions(client: &Client, who: &Identifier) -> Result<Vec<String>> {
    let happened = events(&timeline(client, who, "hand").await?);
    Ok(happened
        .into_iter()
        .filter_map(|(_, _, what)| match what {
            What::Action(action) => Some(action.place),
            _ => None,
        })
        .collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_override_moves_for_the_visit_it_was_given_for_and_only_once() -> Result<()> {
    let (mut server, client) = begun(&["bare", "full"]).await?;
    let (bare, full) = (customer("bare"), customer("full"));
    let there = latest(&bare, "hand");

    let late = Command {
        expected_visit: Some(7),
        ..command("late")
    };
    let error = client.override_(&there, "two", false, &late).await;
    let error = error.err().context("visit 7 is not there")?;
    ensure!(
        error.code() == Code::Conflict && error.message().contains("visit 1"),
        "{error:?}"
    );
    let error = client
        .override_(&there, "tow", false, &command("wrong"))
        .await;
    let error = error.err().context("there is no stage tow")?;
    ensure!(error.message().contains("did you mean `two`?"), "{error}");
    ensure!(
        execution(&client, &bare, "hand").await?.visit == 1,
        "nothing was half done"
    );

    let given = Command {
        expected_visit: Some(1),
        ..command("move")
    };
    let done = client.override_(&there, "two", false, &given).await?;
    ensure!(
        !done.duplicate
            && done
                .execution
                .is_some_and(|e| e.stage == "two" && e.visit == 2)
    );
    let again = client.override_(&there, "two", false, &given).await?;
    ensure!(again.duplicate && again.execution.is_some_and(|e| e.visit == 2));
    ensure!(
        actions(&client, &bare).await?
            == [
                "stage/one/enter/0",
                "stage/one/leave/0",
                "stage/two/enter/0"
            ],
        "leaving and entering actions, not the transition's: {:?}",
        actions(&client, &bare).await?
    );

    let with = client
        .override_(&latest(&full, "hand"), "two", true, &command("with"))
        .await?;
    ensure!(with.execution.is_some_and(|e| e.stage == "two"));
    let did = actions(&client, &full).await?;
    ensure!(
        did.iter().any(|p| p.contains("/transition/0/do/")),
        "the transition's too: {did:?}"
    );

    server.crash().await?;
    let again = client.override_(&there, "two", false, &given).await?;
    ensure!(again.duplicate, "the command is known after a crash");
    let moved = events(&timeline(&client, &bare, "hand").await?);
    let by: Vec<_> = moved
        .iter()
        .filter_map(|(_, _, what)| match what {
            What::Moved(m) => m.cause.as_ref().filter(|c| c.kind() == CauseKind::Override),
            _ => None,
        })
        .collect();
    ensure!(by.len() == 1, "moved by hand once: {by:?}");
    let who = by[0].by.as_ref().context("somebody")?;
    ensure!(who.actor == "ann" && who.reason == "the customer called");
    ensure!(client.report("hand", None).await?.overrides == 2);
    applied_at_most_once(&client, &[bare, full]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_held_signals_wait_and_are_released_in_order_over_a_kill() -> Result<()> {
    let (mut server, client) = begun(&["ann"]).await?;
    let ann = customer("ann");
    let there = latest(&ann, "hand");
    client.hold(&there, &command("hold")).await?;
    // in this order only the way one, two, three, end can be gone
    for (n, kind) in ["a.up", "a.on", "a.nothing", "a.end"].iter().enumerate() {
        let receipt = send(&client, signal(kind, &ann, &format!("w{n}"))).await?;
        let fates: Vec<_> = receipt
            .parts
            .iter()
            .filter_map(|p| p.fate.clone())
            .collect();
        ensure!(fates == [Fate::Held], "{kind}: {fates:?}");
    }
    let held = execution(&client, &ann, "hand").await?;
    ensure!(
        held.status() == Status::Held && held.stage == "one" && held.waiting == 4,
        "{held:?}"
    );
    server.crash().await?;
    let held = execution(&client, &ann, "hand").await?;
    ensure!(
        held.status() == Status::Held && held.waiting == 4,
        "after a kill: {held:?}"
    );
    let twice = client.hold(&there, &command("hold again")).await;
    ensure!(
        twice
            .as_ref()
            .is_err_and(|e| e.message().contains("already held by ann")),
        "{twice:?}"
    );
    let known = client.hold(&there, &command("hold")).await?;
    ensure!(
        known.duplicate && !known.content_differs,
        "the first hold is known: {known:?}"
    );
    let other = client.resume(&there, &command("hold")).await?;
    ensure!(
        other.duplicate && other.content_differs,
        "an id is of one command: {other:?}"
    );
    let still = other.execution.map(|e| e.status());
    ensure!(still == Some(Status::Held), "{still:?}");

    client.resume(&there, &command("resume")).await?;
    let ended = until_execution(&client, &ann, "hand", "has ended", |e| {
        e.status() == Status::Completed
    })
    .await?;
    ensure!(ended.waiting == 0 && ended.outcome.as_deref() == Some("done"));
    let went = stages(&timeline(&client, &ann, "hand").await?);
    ensure!(went == ["one", "two", "three", "end"], "{went:?}");
    // a signal that waited is a duplicate afterwards, with its first answer: held
    let again = send(&client, signal("a.up", &ann, "w0")).await?;
    ensure!(
        again.duplicate && again.parts.first().and_then(|p| p.fate.clone()) == Some(Fate::Held),
        "{again:?}"
    );
    applied_at_most_once(&client, &[ann]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_is_stopped_and_stays_so() -> Result<()> {
    let (mut server, client) = begun(&["ann", "bob"]).await?;
    let (ann, bob) = (customer("ann"), customer("bob"));
    let there = latest(&ann, "hand");
    let error = client
        .stop(&there, Some("Not A Slug"), &command("bad"))
        .await;
    ensure!(
        error.as_ref().is_err_and(|e| e.message().contains("slug")),
        "{error:?}"
    );
    client
        .stop(&there, Some("gave_up"), &command("stop"))
        .await?;
    server.crash().await?;
    let stopped = execution(&client, &ann, "hand").await?;
    ensure!(
        stopped.status() == Status::Stopped && stopped.outcome.as_deref() == Some("gave_up"),
        "{stopped:?}"
    );
    let receipt = send(&client, signal("a.up", &ann, "up")).await?;
    ensure!(receipt.word() == "ended", "{receipt:?}");
    let error = client.resume(&there, &command("resume")).await;
    ensure!(
        error.as_ref().is_err_and(|e| e.code() == Code::Conflict),
        "{error:?}"
    );
    // leaving actions are not run by a stop, and bob has noticed nothing
    ensure!(actions(&client, &ann).await? == ["stage/one/enter/0"]);
    ensure!(execution(&client, &bob, "hand").await?.status() == Status::Active);
    let nobody = client
        .hold(&latest(&customer("nobody"), "hand"), &command("x"))
        .await;
    ensure!(
        nobody.as_ref().is_err_and(|e| e.is_not_found()),
        "{nobody:?}"
    );
    Ok(())
}

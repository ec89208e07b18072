//! Actions that failed: kept over a kill, tried again or skipped by hand, once, also when the execution has ended.

use crate::support::{customer, execution, json, publish, send, signal, until_execution};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::hook::Hook;
use sojourn_chaos_tests::invariants::{commit_then_act, events, latest, timeline};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::wire::event::What;
use sojourn_client::wire::{Endpoint, Status};
use sojourn_client::{Client, Code, Command, Identifier};

/// It goes on when its action is done, whoever had it done.
const SCORE: &str = r#"
journey: score
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: scoring, await: score, body: { who: "{{ customer.id }}" } }
    transitions:
      - { to: two, when: 'action.score.status == "done"' }
      - { to: three, when: 'action.score.status == "skipped"' }
  - stage: two
    end: done
  - stage: three
    end: skipped
"#;

/// It ends, and then its last action fails.
const GOODBYE: &str = r#"
journey: goodbye
entry: [{ on: g.start }]
stages:
  - stage: here
    transitions: [{ to: gone, on: g.leave }]
  - stage: gone
    end: left
    enter:
      - webhook: { to: scoring, body: { who: "{{ customer.id }}" } }
"#;

async fn begun(text: &str, setup: Setup) -> Result<(Server, Hook, Client)> {
    let hook = Hook::listen(b"none").await?;
    let server = Server::start(setup).await?;
    let client = server.client()?;
    let endpoint = Endpoint {
        name: "scoring".into(),
        url: hook.url().into(),
        attempts: 2,
        backoff_first_ms: 20,
        backoff_max_ms: 20,
        ..Endpoint::default()
    };
    client.put_endpoint(endpoint, "story").await?;
    publish(&client, text).await?;
    hook.answer_always(500);
    Ok((server, hook, client))
}

/// Waits until one action of a customer has failed; gives its number.
async fn until_failed(client: &Client, who: &Identifier, journey: &str) -> Result<u64> {
    let found = until_execution(client, who, journey, "has a failed action", |e| {
        e.failed.len() == 1
    })
    .await?;
    ensure!(found.owed.is_empty(), "nothing is owed: {:?}", found.owed);
    let failed = &found.failed[0];
    ensure!(failed.attempts % 2 == 0, "two to a row: {failed:?}");
    ensure!(failed.error.contains("500"), "{failed:?}");
    let incident = found.incident.as_ref().context("an incident")?;
    ensure!(incident.action == Some(failed.number), "{incident:?}");
    Ok(failed.number)
}

fn command(id: &str) -> Command {
    Command {
        id: id.into(),
        ..Command::new("ann", "the receiver is mended")
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, sojourn_client::Error>) -> Result<(Code, String)> {
    match answer {
        Err(error) => Ok((error.code(), error.to_string())),
        Ok(done) => anyhow::bail!("it was done: {done:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_failure_and_retry_it_is_retried_under_its_key() -> Result<()> {
    let (mut server, hook, client) = begun(SCORE, Setup::default()).await?;
    let (who, other) = (customer("ann"), customer("bob"));
    for one in [&who, &other] {
        send(&client, signal("a.start", one, "s")).await?;
    }
    let number = until_failed(&client, &who, "score").await?;
    let others = until_failed(&client, &other, "score").await?;
    server.kill()?;
    server.again().await?;
    let kept = execution(&client, &who, "score").await?;
    ensure!(kept.failed.len() == 1, "kept over the kill: {kept:?}");
    let before = hook.got().len();
    ensure!(before == 4, "two attempts each: {before}");

    // people see it, and what to type
    let shown = server.run(["execution", "show", &kept.id]).await?;
    let text = String::from_utf8(shown.stdout)?;
    let line = format!("failed     action {number} webhook scoring, 2 attempts");
    ensure!(text.contains(&line), "{text}");
    let why = server.run(["execution", "why", &kept.id]).await?;
    let text = String::from_utf8(why.stdout)?;
    let sentence = format!("retried or skipped by hand: failed action {number} (stage/one/enter/0");
    ensure!(text.contains(&sentence), "{text}");

    // a retry fails again: numbered on, under the same key
    let number_text = number.to_string();
    let retry = [
        "execution",
        "retry",
        &kept.id,
        &number_text,
        "--reason",
        "try",
        "--actor",
        "ann",
        "--command-id",
        "first",
        "--json",
    ];
    let first = json(&server.run(retry).await?)?;
    ensure!(first["duplicate"] == false, "{first}");
    let again = until_execution(&client, &who, "score", "has failed again", |e| {
        e.failed.first().is_some_and(|f| f.attempts == 4)
    })
    .await?;
    // the same command is the same command: nothing more is tried
    let second = json(&server.run(retry).await?)?;
    ensure!(second["duplicate"] == true, "{second}");
    ensure!(execution(&client, &who, "score").await?.events == again.events);
    ensure!(hook.got().len() == before + 2, "{:?}", hook.got());

    hook.answer_always(200);
    let there = latest(&who, "score");
    client
        .retry_action(&there, number, false, &command("second"))
        .await?;
    let done = until_execution(&client, &who, "score", "is done", |e| e.stage == "two").await?;
    ensure!(
        done.incident.is_none() && done.failed.is_empty(),
        "{done:?}"
    );
    let got: Vec<_> = hook.got();
    let mine: Vec<_> = got.iter().filter(|g| g.key.starts_with(&kept.id)).collect();
    ensure!(mine.len() == 5, "{mine:?}");
    ensure!(mine.iter().all(|g| g.key == mine[0].key), "{mine:?}");
    commit_then_act(&client, &who, "score", &got).await?;

    // a receiver that remembers the old key as done is shown another, and still after a kill
    let there = latest(&other, "score");
    hook.answer_next(&[500]);
    client
        .retry_action(&there, others, true, &command("third"))
        .await?;
    server.kill()?;
    server.again().await?;
    until_execution(&client, &other, "score", "is done", |e| e.stage == "two").await?;
    let got = hook.got();
    let id = execution(&client, &other, "score").await?.id;
    let mut keys: Vec<&str> = got
        .iter()
        .filter(|g| g.key.starts_with(&id))
        .map(|g| g.key.as_str())
        .collect();
    keys.dedup();
    ensure!(keys.len() == 2, "the old key and the new: {keys:?}");
    commit_then_act(&client, &other, "score", &got).await?;

    // it is settled now
    let (conflict, text) = code(
        client
            .retry_action(&there, others, false, &command("late"))
            .await,
    )?;
    ensure!(conflict == Code::Conflict, "{conflict:?} {text}");
    ensure!(text.contains("has ended"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_skip_settles_it_and_the_journey_knows() -> Result<()> {
    let (server, hook, client) = begun(SCORE, Setup::default()).await?;
    let who = customer("ann");
    send(&client, signal("a.start", &who, "s")).await?;
    let number = until_failed(&client, &who, "score").await?;
    let there = latest(&who, "score");
    let (conflict, text) = code(client.skip_action(&there, 99, &command("wrong")).await)?;
    ensure!(conflict == Code::Conflict, "{conflict:?} {text}");
    ensure!(
        text.contains(&format!("expected one of {number}")),
        "{text}"
    );
    let stale = Command {
        expected_visit: Some(7),
        ..command("stale")
    };
    let (conflict, text) = code(client.skip_action(&there, number, &stale).await)?;
    ensure!(conflict == Code::Conflict, "{conflict:?} {text}");

    let id = execution(&client, &who, "score").await?.id;
    let skipped = server
        .run([
            "execution",
            "skip",
            "--customer",
            "id=ann",
            "--journey",
            "score",
            &number.to_string(),
            "--reason",
            "scored by phone",
        ])
        .await?;
    let text = String::from_utf8(skipped.stdout)?;
    ensure!(text.contains("is completed in three"), "{text}");
    let end = execution(&client, &who, "score").await?;
    ensure!(end.incident.is_none() && end.failed.is_empty(), "{end:?}");
    let happened = events(&timeline(&client, &who, "score").await?);
    let by: Vec<_> = happened
        .iter()
        .filter_map(|(_, _, what)| match what {
            What::Skipped(s) => s.by.as_ref().map(|b| (s.action, b.reason.as_str())),
            _ => None,
        })
        .collect();
    ensure!(by == [(number, "scored by phone")], "{by:?}");
    let told = server.run(["execution", "timeline", &id]).await?;
    let told = String::from_utf8(told.stdout)?;
    ensure!(
        told.contains(&format!("action {number} is skipped by")),
        "{told}"
    );
    ensure!(hook.got().len() == 2, "nothing more was sent");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_execution_keeps_what_failed_until_somebody_looks() -> Result<()> {
    let (mut server, hook, client) = begun(GOODBYE, Setup::default().many_checkpoints()).await?;
    let (ann, bob) = (customer("ann"), customer("bob"));
    for who in [&ann, &bob] {
        send(&client, signal("g.start", who, "1")).await?;
        send(&client, signal("g.leave", who, "2")).await?;
    }
    let number = until_failed(&client, &ann, "goodbye").await?;
    until_failed(&client, &bob, "goodbye").await?;
    let first = execution(&client, &ann, "goodbye").await?;
    ensure!(first.status() == Status::Completed, "{first:?}");
    // a later run begins, and the node dies
    send(&client, signal("g.start", &ann, "3")).await?;
    server.kill()?;
    server.again().await?;

    // the first run is named by its id now
    hook.answer_always(200);
    let before = hook.got().len();
    let by_id = sojourn_client::ExecutionRef::Id(first.id.clone());
    let answer = client
        .retry_action(&by_id, number, false, &command("ann"))
        .await?;
    ensure!(answer.execution.context("an execution")?.run == 1);
    sojourn_chaos_tests::wait::until(
        "the webhook of the first run is delivered",
        std::time::Duration::from_secs(20),
        async || {
            let now = client
                .get(&by_id, sojourn_client::Read::default())
                .await?
                .execution
                .context("an execution")?;
            Ok((now.owed.is_empty() && now.failed.is_empty()).then_some(()))
        },
    )
    .await?;
    let got = hook.got();
    ensure!(got.len() == before + 1, "{got:?}");
    ensure!(got[before].key.starts_with(&first.id), "{got:?}");
    let latest_run = execution(&client, &ann, "goodbye").await?;
    ensure!(latest_run.run == 2 && latest_run.incident.is_none());
    let settled = code(
        client
            .skip_action(&by_id, number, &command("too late"))
            .await,
    )?;
    ensure!(
        settled.0 == Code::Conflict || settled.0 == Code::NotFound,
        "{settled:?}"
    );

    // the other one is skipped, and other commands are refused as ever
    let there = latest(&bob, "goodbye");
    let (conflict, _) = code(client.hold(&there, &command("hold")).await)?;
    ensure!(conflict == Code::Conflict);
    let answer = client
        .skip_action(&there, number, &command("bob"))
        .await?
        .execution
        .context("an execution")?;
    ensure!(answer.failed.is_empty() && answer.incident.is_none());
    ensure!(
        hook.got().len() == before + 1,
        "nothing was sent for a skip"
    );
    Ok(())
}

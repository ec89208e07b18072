//! Actions: sent after the commit, at least once, in order, signed, with one key; and what becomes of those that fail.

use crate::support::{customer, execution, publish, send, signal, until_execution};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::hook::Hook;
use sojourn_chaos_tests::invariants::{commit_then_act, events, timeline};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::event::{What, action_outcome};
use sojourn_client::wire::{Endpoint, Status};
use sojourn_client::{Client, Code};
use std::time::Duration;

/// The secret as an operator writes it, and the bytes that it stands for.
const SECRET: &str = "whsec_c29qb3VybidzIHNlY3JldCBvZiB0aGUgdGVzdHM=";
const SECRET_BYTES: &[u8] = b"sojourn's secret of the tests";

const SCORE: &str = r#"
journey: score
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: scoring, await: score, body: { who: "{{ customer.id }}", n: 7 } }
    transitions:
      - { to: two, when: 'action.score.status == "done"' }
      - { to: three, on: action.failed, where: 'signal.data.name == "score"', keep: { why: signal.data.error } }
  - stage: two
    end: done
  - stage: three
    end: failed
"#;

async fn with_hook() -> Result<(Server, Hook, Client)> {
    let hook = Hook::listen(SECRET_BYTES).await?;
    let server = Server::start(Setup::default().env("STORY_SECRET", SECRET)).await?;
    let client = server.client()?;
    client
        .put_endpoint(endpoint("scoring", hook.url()), "story")
        .await?;
    Ok((server, hook, client))
}

fn endpoint(name: &str, url: &str) -> Endpoint {
    Endpoint {
        name: name.into(),
        url: url.into(),
        secret_env: "STORY_SECRET".into(),
        attempts: 4,
        backoff_first_ms: 40,
        backoff_max_ms: 200,
        ..Endpoint::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_is_signed_and_tried_again_under_one_key() -> Result<()> {
    let (_server, hook, client) = with_hook().await?;
    publish(&client, SCORE).await?;
    hook.answer_next(&[500, 503]);
    let who = customer("ann");
    send(&client, signal("a.start", &who, "s")).await?;
    until_execution(&client, &who, "score", "has its score", |e| {
        e.stage == "two"
    })
    .await?;
    let got = hook.got();
    let answers: Vec<u16> = got.iter().map(|g| g.answered).collect();
    ensure!(answers == [500, 503, 200], "it answered {answers:?}");
    for one in &got {
        ensure!(one.signed == Some(true), "the signature is wrong: {one:?}");
        ensure!(one.key == got[0].key, "another key: {one:?}");
        ensure!(
            one.body == serde_json::json!({ "who": "ann", "n": 7 }),
            "{}",
            one.body
        );
        let skew = one.at / 1_000_000 - one.timestamp;
        ensure!((0..=5).contains(&skew), "its timestamp is {skew} s old");
    }
    let happened = events(&timeline(&client, &who, "score").await?);
    let attempts: Vec<_> = happened
        .iter()
        .filter_map(|(_, at, what)| match what {
            What::Attempted(a) => Some((a.attempt, *at, a.next, &a.error)),
            _ => None,
        })
        .collect();
    ensure!(attempts.len() == 2, "two attempts failed: {attempts:?}");
    for (i, (attempt, at, next, error)) in attempts.iter().enumerate() {
        // full jitter: from nothing up to the first back-off doubled with each attempt, at most the longest; a
        // failure is decided some moments after its back-off was drawn
        let most = (40i64 << i).min(200) * 1_000;
        ensure!(
            *attempt == i as u32 + 1 && *next <= at + most,
            "{attempts:?}"
        );
        ensure!(
            got[i + 1].at >= *next,
            "attempt {} came before its time",
            i + 2
        );
        ensure!(
            error.contains(&answers[i].to_string()),
            "the error names the answer: {error}"
        );
    }
    commit_then_act(&client, &who, "score", &got).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_last_attempt_it_has_failed_and_the_journey_handles_it() -> Result<()> {
    let (_server, hook, client) = with_hook().await?;
    publish(&client, SCORE).await?;
    hook.answer_always(500);
    let who = customer("ann");
    send(&client, signal("a.start", &who, "s")).await?;
    let ended = until_execution(&client, &who, "score", "has no score", |e| {
        e.stage == "three"
    })
    .await?;
    ensure!(ended.outcome.as_deref() == Some("failed"), "{ended:?}");
    ensure!(
        ended.kept.contains_key("why"),
        "the failure's text is kept: {:?}",
        ended.kept
    );
    ensure!(
        hook.got().len() == 4,
        "it was tried {} times, told 4",
        hook.got().len()
    );
    let report = client.report("score", None).await?;
    ensure!(report.incidents == 1, "{} incidents", report.incidents);

    // whoever is gone for good is not asked again
    hook.answer_always(410);
    let bob = customer("bob");
    send(&client, signal("a.start", &bob, "s")).await?;
    until_execution(&client, &bob, "score", "has no score", |e| {
        e.stage == "three"
    })
    .await?;
    ensure!(hook.got().len() == 5, "410 is final: {}", hook.got().len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_actions_of_a_list_go_one_after_the_other() -> Result<()> {
    let (_server, hook, client) = with_hook().await?;
    let text = r#"
journey: list
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - webhook: { to: scoring, body: { n: 1 } }
      - webhook: { to: scoring, body: { n: 2 } }
      - webhook: { to: scoring, body: { n: 3 }, await: last }
    transitions: [{ to: two, when: 'action.last.status == "done"' }]
  - { stage: two, end: done }
"#;
    publish(&client, text).await?;
    hook.answer_next(&[500, 500, 200, 500]);
    let who = customer("ann");
    send(&client, signal("a.start", &who, "s")).await?;
    until_execution(&client, &who, "list", "is through", |e| e.stage == "two").await?;
    let got = hook.got();
    let order: Vec<i64> = got.iter().filter_map(|g| g.body["n"].as_i64()).collect();
    ensure!(order == [1, 1, 1, 2, 2, 3], "they arrived as {order:?}");
    let mut keys: Vec<&str> = got.iter().map(|g| g.key.as_str()).collect();
    keys.dedup();
    ensure!(keys.len() == 3, "three actions, three keys: {keys:?}");
    commit_then_act(&client, &who, "list", &got).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_commit_and_act_it_is_delivered_all_the_same() -> Result<()> {
    let (mut server, hook, client) = with_hook().await?;
    publish(&client, SCORE).await?;
    // one that has failed once already: its next attempt is owed when the server dies
    hook.answer_always(500);
    client
        .put_endpoint(
            Endpoint {
                attempts: 100,
                ..endpoint("scoring", hook.url())
            },
            "story",
        )
        .await?;
    let ann = customer("ann");
    send(&client, signal("a.start", &ann, "s")).await?;
    until("the first attempt", Duration::from_secs(20), async || {
        Ok((!hook.got().is_empty()).then_some(()))
    })
    .await?;
    // and many that have just been acknowledged
    let many: Vec<_> = (0..60).map(|n| customer(&format!("c{n}"))).collect();
    let mut pending = Vec::new();
    for who in &many {
        pending.push(client.enqueue(signal("a.start", who, "s")).await?);
    }
    for answer in pending {
        answer.await?.receipt().context("a receipt")?;
    }
    server.kill()?;
    let before = hook.got().len();
    hook.answer_always(200);
    server.again().await?;
    for who in many.iter().chain([&ann]) {
        let ended =
            until_execution(&client, who, "score", "has its score", |e| e.stage == "two").await?;
        ensure!(ended.status() == Status::Completed);
        commit_then_act(&client, who, "score", &hook.got()).await?;
    }
    let got = hook.got();
    ensure!(got.len() > before, "nothing was sent after the restart");
    ensure!(got.iter().all(|g| g.signed == Some(true)), "all are signed");
    // at least once, and everybody under one key before and after
    let id = execution(&client, &ann, "score").await?.id;
    let mut keys: Vec<_> = got.iter().filter(|g| g.key.starts_with(&id)).collect();
    ensure!(
        keys.len() >= 2,
        "ann's was tried before and after: {keys:?}"
    );
    keys.dedup_by_key(|g| g.key.clone());
    ensure!(keys.len() == 1, "under several keys: {keys:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_endpoint_is_a_problem_with_its_place() -> Result<()> {
    let (_server, _hook, client) = with_hook().await?;
    let text = SCORE.replace("to: scoring", "to: scorign");
    let error = match client.publish(&text, "story").await {
        Err(error) => error,
        Ok(published) => anyhow::bail!("it was published: {published:?}"),
    };
    ensure!(error.code() == Code::Invalid, "{error:?}");
    let line = text
        .lines()
        .position(|l| l.contains("scorign"))
        .context("a line")?
        + 1;
    let violation = error.violations().first().context("a violation")?;
    ensure!(
        violation.field.starts_with(&format!("text:{line}:")),
        "line {line}, found {violation}"
    );
    ensure!(
        violation.description.contains("no endpoint `scorign`")
            && violation.description.contains("did you mean `scoring`?"),
        "{violation}"
    );
    ensure!(client.journeys().await?.is_empty(), "nothing was published");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_connected_ends_as_skipped() -> Result<()> {
    let (_server, _hook, client) = with_hook().await?;
    let text = r#"
journey: others
entry: [{ on: a.start }]
stages:
  - stage: one
    enter:
      - email: { to: "ann@example.com", template: welcome }
      - task: { to: desk, title: "Call" }
      - log: { text: "written" }
    transitions: [{ to: two, on: a.up }]
  - { stage: two, end: done }
"#;
    let published = client.publish(text, "story").await?;
    let warned = published
        .problems
        .iter()
        .filter(|p| p.warning && p.line > 0);
    ensure!(
        warned.count() == 2,
        "two are not connected: {:?}",
        published.problems
    );
    let who = customer("ann");
    send(&client, signal("a.start", &who, "s")).await?;
    // the log action is done by the hands, the others never get there
    until_execution(&client, &who, "others", "owes nothing", |e| {
        e.owed.is_empty()
    })
    .await?;
    let happened = events(&timeline(&client, &who, "others").await?);
    let mut outcomes = Vec::new();
    for (_, _, what) in &happened {
        if let What::Settled(settled) = what {
            outcomes.push(
                match settled.outcome.as_ref().and_then(|o| o.outcome.as_ref()) {
                    Some(action_outcome::Outcome::Skipped(why)) => format!("skipped: {why}"),
                    Some(action_outcome::Outcome::Done(how)) => format!("done: {how}"),
                    other => format!("{other:?}"),
                },
            );
        }
    }
    outcomes.sort();
    ensure!(
        outcomes
            == [
                "done: logged",
                "skipped: not connected",
                "skipped: not connected"
            ],
        "{outcomes:?}"
    );
    Ok(())
}

//! What the owner's hands must not do: go on for ever, or let one dead endpoint hold up everybody.

use crate::support::{customer, execution, publish, send, signal, until_execution};
use anyhow::{Result, ensure};
use sojourn_chaos_tests::hook::Hook;
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_chaos_tests::wait::until;
use sojourn_client::Client;
use sojourn_client::wire::Endpoint;
use std::time::Duration;

/// The last stage owes a webhook, and whoever has ended may enter again.
const GOODBYE: &str = r#"
journey: goodbye
entry: [{ on: g.start }]
stages:
  - stage: here
    transitions:
      - { to: gone, on: g.leave }
  - stage: gone
    end: left
    enter:
      - webhook: { to: parting, body: { who: "{{ customer.id }}" } }
"#;

async fn endpoint(client: &Client, name: &str, url: &str, first_ms: u32) -> Result<()> {
    let endpoint = Endpoint {
        name: name.into(),
        url: url.into(),
        attempts: 5,
        backoff_first_ms: first_ms,
        backoff_max_ms: first_ms,
        ..Endpoint::default()
    };
    client.put_endpoint(endpoint, "story").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_ended_run_owes_is_done_once_though_the_customer_entered_again() -> Result<()> {
    let hook = Hook::listen(b"none").await?;
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    endpoint(&client, "parting", hook.url(), 300).await?;
    publish(&client, GOODBYE).await?;
    // the first attempts fail, so that the customer is back before the action is done
    hook.answer_next(&[500, 500]);
    let who = customer("zoë");
    send(&client, signal("g.start", &who, "1")).await?;
    send(&client, signal("g.leave", &who, "2")).await?;
    send(&client, signal("g.start", &who, "3")).await?;
    ensure!(
        execution(&client, &who, "goodbye").await?.run == 2,
        "the second run"
    );
    until(
        "the webhook is delivered",
        Duration::from_secs(20),
        async || Ok(hook.got().iter().any(|g| g.answered == 200).then_some(())),
    )
    .await?;
    // a second delivery would follow at once, and for ever: the run's next action comes after all that
    send(&client, signal("g.leave", &who, "4")).await?;
    until(
        "the second run's is too",
        Duration::from_secs(20),
        async || Ok((hook.got().iter().filter(|g| g.answered == 200).count() >= 2).then_some(())),
    )
    .await?;
    let got = hook.got();
    let keys: std::collections::BTreeSet<_> = got.iter().map(|g| g.key.clone()).collect();
    ensure!(got.len() == 4 && keys.len() == 2, "{got:?}");
    Ok(())
}

/// A timer of two seconds beside a webhook to somebody who never answers.
const STUCK: &str = r#"
journey: stuck
entry: [{ on: s.start }]
stages:
  - stage: first
    enter:
      - webhook: { to: silent, body: {} }
    transitions:
      - { to: second, after: 2s }
  - stage: second
    enter:
      - webhook: { to: alive, body: {} }
    end: done
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_hangs_holds_up_no_timer_and_no_other_endpoint() -> Result<()> {
    // it accepts connections and says nothing
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", silent.local_addr()?);
    let hook = Hook::listen(b"none").await?;
    let setup = Setup {
        shards: 1,
        ..Setup::default()
    };
    let server = Server::start(setup).await?;
    let client = server.client()?;
    endpoint(&client, "silent", &url, 300).await?;
    endpoint(&client, "alive", hook.url(), 300).await?;
    publish(&client, STUCK).await?;
    let many = 400;
    for i in 0..many {
        let who = customer(&format!("c{i}"));
        send(&client, signal("s.start", &who, "1")).await?;
    }
    let last = customer(&format!("c{}", many - 1));
    until_execution(&client, &last, "stuck", "is moved by its timer", |e| {
        e.stage == "second"
    })
    .await?;
    until(
        "all that can be delivered is",
        Duration::from_secs(30),
        async || Ok((hook.got().len() >= many).then_some(())),
    )
    .await
}

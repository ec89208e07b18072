//! Stopping as asked: what is in flight is answered, the next start is quick, and nobody else gets in meanwhile.

use crate::support::{customer, publish, signal};
use anyhow::{Context, Result, ensure};
use sojourn_chaos_tests::invariants::{acknowledged_is_never_lost, figures};
use sojourn_chaos_tests::process::{STOP, Server, Setup};
use sojourn_client::Outcome;
use std::time::{Duration, Instant};

const JOURNEY: &str = r#"
journey: short
entry: [{ on: s.start }]
stages:
  - stage: one
    transitions: [{ to: two, on: s.up }]
  - { stage: two, end: done }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_answers_what_is_in_flight_and_the_next_start_is_quick() -> Result<()> {
    let mut server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    let mut pending = Vec::new();
    for n in 0..600 {
        let who = customer(&format!("c{n}"));
        pending.push((n, client.enqueue(signal("s.start", &who, "start")).await?));
    }
    // some are decided, others are not
    sojourn_chaos_tests::wait::until("a first receipt", Duration::from_secs(20), async || {
        Ok((server.receipts().await? > 0).then_some(()))
    })
    .await?;
    let begun = Instant::now();
    let status = server.stop().await?;
    ensure!(
        status.code() == Some(0),
        "it ended with {status}: {}",
        server.said()
    );
    ensure!(begun.elapsed() < STOP, "it took {:?}", begun.elapsed());
    let took = server.again().await?;
    ensure!(took < Duration::from_secs(20), "the start took {took:?}");
    // whoever was not answered before is answered by the next process; nobody twice, nobody never
    let mut receipts = Vec::new();
    for (n, answer) in pending {
        match answer.await? {
            Outcome::Done(receipt) => receipts.push(receipt),
            other => anyhow::bail!("signal of c{n}: {other:?}"),
        }
    }
    acknowledged_is_never_lost(&client, &receipts).await?;
    let now = figures(&client, "short").await?;
    ensure!(
        now.report.started == 600 && now.executions.len() == 600,
        "{:?}",
        now.report
    );
    // and again, without anything to replay
    server.stop().await?;
    server.again().await?;
    ensure!(figures(&client, "short").await? == now);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_folder_is_refused() -> Result<()> {
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    let mut second = server.command()?;
    let output = tokio::task::spawn_blocking(move || second.output()).await??;
    ensure!(!output.status.success(), "a second server ran");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let error = said
        .lines()
        .find(|l| l.starts_with("error:"))
        .context("it says why")?;
    ensure!(
        error.contains("another process has it open") && error.contains("--data"),
        "{error}"
    );
    // and the first has noticed nothing
    ensure!(client.journeys().await?.len() == 1);
    Ok(())
}

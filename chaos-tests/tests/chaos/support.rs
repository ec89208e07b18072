//! What the stories share.

use anyhow::{Context, Result, bail};
pub use sojourn_chaos_tests::chance::chance;
pub use sojourn_chaos_tests::cli::json;
use sojourn_chaos_tests::invariants::latest;
use sojourn_chaos_tests::process::Server;
use sojourn_chaos_tests::wait::until;
use sojourn_client::wire::Execution;
use sojourn_client::{Client, Identifier, Outcome, Read, Receipt, Signal};
use std::time::Duration;

/// A customer of a story.
pub fn customer(name: &str) -> Identifier {
    Identifier::new("id", name)
}

/// A signal of a customer, with the id that the story gives it.
pub fn signal(kind: &str, customer: &Identifier, id: &str) -> Signal {
    Signal::with_id(kind, id)
        .source("story")
        .customer(&customer.name, &customer.value)
}

/// Sends a signal and gives its receipt.
pub async fn send(client: &Client, signal: Signal) -> Result<Receipt> {
    let id = signal.signal_id().to_owned();
    match client.send(signal).await? {
        Outcome::Done(receipt) => Ok(receipt),
        Outcome::Refused(error) => bail!("signal {id} was refused: {error}"),
        Outcome::Unknown(error) => bail!("signal {id} has no answer: {error}"),
    }
}

/// Publishes a journey and makes sure that every shard decides with it.
pub async fn publish(client: &Client, text: &str) -> Result<()> {
    let published = client.publish(text, "story").await;
    let published = published.with_context(|| format!("publishing through {}", client.server()))?;
    if !published.live {
        bail!("{} is not live: {:?}", published.journey, published.lagging);
    }
    Ok(())
}

/// The latest execution of a customer.
pub async fn execution(client: &Client, who: &Identifier, journey: &str) -> Result<Execution> {
    let answer = client.get(&latest(who, journey), Read::default()).await?;
    answer.execution.context("the answer has no execution")
}

/// Waits until the latest execution of a customer is as wanted.
pub async fn until_execution(
    client: &Client,
    who: &Identifier,
    journey: &str,
    what: &str,
    wanted: impl Fn(&Execution) -> bool,
) -> Result<Execution> {
    let mut last = None;
    let waited = until(
        &format!("{who} in {journey} {what}"),
        Duration::from_secs(40),
        async || {
            let now = execution(client, who, journey).await?;
            let found = wanted(&now).then(|| now.clone());
            last = Some(now);
            Ok(found)
        },
    )
    .await;
    waited.with_context(|| format!("the last that was seen: {last:#?}"))
}

/// Now, in microseconds.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// That the server still serves: its process lives, and its health service says so.
pub async fn healthy(server: &mut Server) -> Result<()> {
    if !server.lives() {
        bail!("the server has ended; it said:\n{}", server.said());
    }
    let channel = tonic::transport::Endpoint::from_shared(server.url())?
        .connect()
        .await?;
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    for service in [
        "",
        "sojourn.v1.Signals",
        "sojourn.v1.Executions",
        "sojourn.v1.Journeys",
    ] {
        let request = tonic_health::pb::HealthCheckRequest {
            service: service.into(),
        };
        let answer = health.check(request).await?.into_inner();
        if answer.status() != tonic_health::ServingStatus::Serving.into() {
            bail!("{service:?} is {:?}", answer.status());
        }
    }
    Ok(())
}

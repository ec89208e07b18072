//! One node of three does nothing for a while and does not know of it: clients leave it in time, and when it goes on it
//! says nothing that was true before and is not now.

use crate::several_apart::{once, wire};
use crate::support::{customer, publish};
use anyhow::{Result, ensure};
use sojourn_chaos_tests::cluster::Cluster;
use sojourn_chaos_tests::invariants::{acknowledged_is_never_lost, applied_at_most_once};
use sojourn_chaos_tests::load::JOURNEY;
use sojourn_chaos_tests::process::Setup;
use sojourn_client::wire::signals_client::SignalsClient;
use sojourn_client::wire::{Receipt, SendRequest, Signal};
use sojourn_client::{Client, Identifier};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// A signal that moves nobody, at one node and no other.
async fn unmoving(node: Channel, who: Identifier) -> Result<Option<Receipt>, Status> {
    let mut request = Request::new(SendRequest {
        workspace: "default".into(),
        signal: Some(Signal {
            id: "unmoving".into(),
            source: "story".into(),
            r#type: "l.other".into(),
            identifiers: vec![wire(&who)],
            ..Default::default()
        }),
    });
    request.set_timeout(Duration::from_secs(10));
    let answer = SignalsClient::new(node).send(request).await?;
    Ok(answer.into_inner().receipt)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_is_left_in_time_and_tells_nothing_old() -> Result<()> {
    let cluster = Cluster::start(3, Setup::default()).await?;
    let stopped = cluster.busiest().await?;
    let client = cluster.client()?;
    publish(&client, JOURNEY).await?;
    let mut receipts = Vec::new();
    for n in 0..12 {
        receipts.push(once(&client, &customer(&format!("c{n}")), "before").await?);
    }
    let mut seeds = vec![cluster.node(stopped).url()];
    let others = cluster.running().into_iter().filter(|p| *p != stopped);
    seeds.extend(others.map(|p| cluster.node(p).url()));
    let door = Endpoint::from_shared(cluster.node(stopped).url())?
        .connect()
        .await?;
    unmoving(door.clone(), customer("c0")).await?;

    cluster.node(stopped).pause()?;
    // a new client does not take it for home, and calls that any node answers go to the others in time
    let usual = Client::builder(seeds.join(","))
        .deadline(Duration::from_secs(5))
        .connect()
        .await?;
    for _ in 0..3 {
        usual.journeys().await?;
        client
            .with_deadline(Duration::from_secs(5))
            .journeys()
            .await?;
    }
    // customers that the stopped one has never heard of
    let newcomers: Vec<Identifier> = (0..12).map(|n| customer(&format!("n{n}"))).collect();
    for who in &newcomers {
        receipts.push(once(&client, who, "before").await?);
    }
    // lies before its door when it goes on, sooner than the news that it owns nothing any more
    let sent = newcomers
        .iter()
        .map(|who| tokio::spawn(unmoving(door.clone(), who.clone())));
    let mut sent = futures::future::join_all(sent);
    let early = tokio::time::timeout(Duration::from_millis(300), &mut sent).await;
    ensure!(early.is_err(), "a stopped node answered");
    cluster.node(stopped).resume()?;
    for (answer, who) in sent.await.into_iter().zip(&newcomers) {
        // an error says that it may not have happened
        if let Ok(Some(receipt)) = answer? {
            ensure!(
                !receipt.no_match,
                "{who} was let in, and then nobody knew them: {receipt:?}"
            );
        }
    }
    cluster.whole(3).await?;
    cluster.verify().await?;
    acknowledged_is_never_lost(&client, &receipts).await?;
    for who in &newcomers {
        applied_at_most_once(&client, std::slice::from_ref(who)).await?;
    }
    Ok(())
}

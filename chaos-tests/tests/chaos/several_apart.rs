//! One node of three cut off from the two others: it answers nothing that only a majority can, the two go on, and when
//! the links are mended all agree.

use crate::several::{all_there_once, load, more};
use crate::support::{customer, publish, signal};
use anyhow::{Context, Result, bail, ensure};
use sojourn_chaos_tests::cluster::Cluster;
use sojourn_chaos_tests::invariants::{acknowledged_is_never_lost, applied_at_most_once, records};
use sojourn_chaos_tests::load::JOURNEY;
use sojourn_chaos_tests::owners::Auditor;
use sojourn_chaos_tests::process::Setup;
use sojourn_client::wire::executions_client::ExecutionsClient;
use sojourn_client::wire::signals_client::SignalsClient;
use sojourn_client::wire::{
    ExecutionRef, GetExecutionRequest, Identifier as WireIdentifier, ReadOptions, SendRequest,
    Signal as WireSignal,
};
use sojourn_client::{Client, Identifier, Outcome};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long the minority is asked for each answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A customer as the wire has them.
pub fn wire(who: &Identifier) -> WireIdentifier {
    WireIdentifier {
        name: who.name.clone(),
        value: who.value.clone(),
    }
}

/// A read of an execution at one node and no other.
async fn read(node: Channel, who: &Identifier, options: ReadOptions) -> Result<i64, Status> {
    let mut request = Request::new(GetExecutionRequest {
        execution: Some(ExecutionRef {
            workspace: "default".into(),
            customer: Some(wire(who)),
            journey: "load".into(),
            ..Default::default()
        }),
        options: Some(options),
    });
    request.set_timeout(PATIENCE);
    let mut node = ExecutionsClient::new(node);
    match tokio::time::timeout(PATIENCE * 2, node.get(request)).await {
        Ok(answer) => Ok(answer?.into_inner().age_ms),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

/// A signal at one node and no other.
async fn send(node: Channel, who: &Identifier, kind: &str, id: &str) -> Result<(), Status> {
    let mut request = Request::new(SendRequest {
        workspace: "default".into(),
        signal: Some(WireSignal {
            id: id.into(),
            source: "story".into(),
            r#type: kind.into(),
            identifiers: vec![wire(who)],
            ..Default::default()
        }),
    });
    request.set_timeout(PATIENCE);
    let mut node = SignalsClient::new(node);
    match tokio::time::timeout(PATIENCE * 2, node.send(request)).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Status::deadline_exceeded("no answer")),
    }
}

/// That nothing was answered, and nothing reported as failed that may come true yet.
fn open_or_refused(what: &str, answer: &Result<impl std::fmt::Debug, Status>) -> Result<()> {
    match answer {
        Ok(answer) => bail!("{what} was answered by a minority: {answer:?}"),
        Err(status) => ensure!(
            matches!(
                status.code(),
                // cancelled: by the clock of the one who asks, which runs out first or second by chance
                Code::Unavailable
                    | Code::DeadlineExceeded
                    | Code::ResourceExhausted
                    | Code::Cancelled
            ),
            "{what}: {status}"
        ),
    }
    Ok(())
}

/// Sends a signal that moves its customer.
pub async fn once(client: &Client, who: &Identifier, id: &str) -> Result<sojourn_client::Receipt> {
    match client.send(signal("l.tick", who, id)).await? {
        // one that concerns nobody is recorded nowhere
        Outcome::Done(receipt) if !receipt.no_match => Ok(receipt),
        other => bail!("signal {id} of {who}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_answers_nothing_and_after_healing_all_agree() -> Result<()> {
    let cluster = Cluster::with_links(3, Setup::default()).await?;
    // the one that has most to lose
    let alone = cluster.busiest().await?;
    let others: Vec<usize> = cluster
        .running()
        .into_iter()
        .filter(|p| *p != alone)
        .collect();
    let auditor = Auditor::of(cluster.running().into_iter().map(|p| cluster.node(p).url()))?;
    // through the majority: a client that began with the node that is cut off would have to find the others first
    let urls: Vec<String> = others.iter().map(|p| cluster.node(*p).url()).collect();
    let client = Client::builder(urls.join(","))
        .deadline(Duration::from_secs(40))
        .connect_lazy()?;
    publish(&client, JOURNEY).await?;
    let customers: Vec<Identifier> = (0..12).map(|n| customer(&format!("c{n}"))).collect();
    let mut receipts = Vec::new();
    for who in &customers {
        receipts.push(once(&client, who, "before").await?);
    }
    let shards: std::collections::BTreeSet<_> = receipts
        .iter()
        .filter_map(|r| r.position)
        .map(|p| p.shard)
        .collect();
    let owners = cluster.owners().await?;
    ensure!(
        shards.iter().any(|s| owners[*s as usize] == Some(alone)),
        "no customer is where node {} owns: {shards:?} of {owners:?}",
        cluster.id(alone)
    );

    cluster.links()?.part(&[alone], &others);
    let loading = load(client.clone(), "majority");
    let minority = Endpoint::from_shared(cluster.node(alone).url())?
        .connect()
        .await?;
    let asked = customers.iter().map(|who| {
        let minority = minority.clone();
        async move {
            // that it concerns nobody, too, can only be told by who owns the shard still
            let stranger = customer(&format!("stranger-{}", who.value));
            let sent = send(minority.clone(), &stranger, "l.nothing", "apart").await;
            open_or_refused(&format!("a signal of {stranger}"), &sent)?;
            let sent = send(minority.clone(), who, "l.tick", "apart").await;
            open_or_refused(&format!("a signal of {who}"), &sent)?;
            let got = read(minority, who, ReadOptions::default()).await;
            open_or_refused(&format!("a read of {who}"), &got)
        }
    });
    futures::future::try_join_all(asked).await?;
    // whoever wants to know what it knows is told, with how old it is
    let stale = ReadOptions {
        stale: true,
        ..Default::default()
    };
    let who = receipts
        .iter()
        .find(|r| {
            r.position
                .is_some_and(|p| owners[p.shard as usize] == Some(alone))
        })
        .and_then(|r| r.customer.clone())
        .context("a customer whose owner was the minority")?;
    let age = read(minority.clone(), &who, stale).await?;
    ensure!(
        age > 0,
        "cut off for seconds, it says that it is {age} ms old"
    );
    // the majority has gone on, for all customers
    more(&loading, 60).await?;
    for who in &customers {
        receipts.push(once(&client, who, "meanwhile").await?);
    }
    let books = loading.finish().await?;

    cluster.links()?.heal();
    cluster.whole(3).await?;
    cluster.verify().await?;
    acknowledged_is_never_lost(&client, &receipts).await?;
    all_there_once(&client, "majority", &books).await?;
    // what nobody was told of is open until somebody asks again; then it is there, once
    for who in &customers {
        once(&client, who, "apart").await?;
        applied_at_most_once(&client, std::slice::from_ref(who)).await?;
        let kept = records(&client, who).await?.len();
        ensure!(kept == 3, "{who} has {kept} records of three signals");
    }
    auditor.finish()?;
    Ok(())
}

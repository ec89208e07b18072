//! Order: what one customer's sender sends in order is decided in order, whatever the times say and whoever else sends.

use crate::support::{customer, publish, send, signal};
use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use prost::Message as _;
use sojourn_chaos_tests::invariants::{applied_at_most_once, receipts_tell_the_truth, timeline};
use sojourn_chaos_tests::process::{Server, Setup};
use sojourn_client::wire::signals_client::SignalsClient;
use sojourn_client::wire::timeline_entry::cause::Cause;
use sojourn_client::wire::{StreamRequest, TimelineEntry, item_result};
use sojourn_client::{Client, Identifier, Receipt};
use std::collections::HashMap;

const JOURNEY: &str = r#"
journey: line
entry: [{ on: o.start }]
variables: { n: { type: number, from: signal.data.n } }
stages:
  - stage: even
    transitions: [{ to: odd, on: o.step }]
  - stage: odd
    transitions: [{ to: even, on: o.step }]
"#;
const MANY: usize = 2_000;

/// The ids of the signals of a timeline, in its order.
fn ids(entries: &[TimelineEntry]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|e| match e.cause.as_ref()?.cause.as_ref()? {
            Cause::Signal(signal) => Some(signal.id.clone()),
            _ => None,
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_signals_of_one_customer_on_one_raw_stream_keep_their_order() -> Result<()> {
    let server = Server::start(Setup::default()).await?;
    let client = server.client()?;
    publish(&client, JOURNEY).await?;
    let ann = customer("ann");
    send(&client, signal("o.start", &ann, "start")).await?;
    // the wire itself, without an SDK that keeps the order: all are under way at once, all at the same time
    let time = Timestamp::now().as_microsecond();
    let requests = (0..MANY as u64).map(move |number| StreamRequest {
        number,
        workspace: String::new(),
        signal: sojourn_client::wire::Signal {
            id: format!("s{number}"),
            source: "story".into(),
            r#type: "o.step".into(),
            time: Some(time),
            identifiers: vec![sojourn_client::wire::Identifier {
                name: "id".into(),
                value: "ann".into(),
            }],
            data: format!(r#"{{"n":{number}}}"#).into(),
            ..Default::default()
        }
        .encode_to_vec()
        .into(),
    });
    let mut raw = SignalsClient::connect(server.url()).await?;
    // the client's half stays open until all is answered, as one that goes on sending does
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let sending = tokio::spawn(async move {
        for request in requests {
            if sender.send(request).await.is_err() {
                break;
            }
        }
        sender
    });
    let incoming = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut acks = raw.stream(incoming).await?.into_inner();
    let mut positions: HashMap<u64, u64> = HashMap::new();
    while positions.len() < MANY {
        let response = acks.message().await?.context("the stream ended early")?;
        for ack in response.acks {
            let receipt = match ack.result.and_then(|r| r.result) {
                Some(item_result::Result::Receipt(receipt)) => receipt,
                other => anyhow::bail!("signal {}: {other:?}", ack.number),
            };
            ensure!(
                receipt.signal_id == format!("s{}", ack.number),
                "{receipt:?}"
            );
            let index = receipt.position.context("a position")?.index;
            ensure!(
                positions.insert(ack.number, index).is_none(),
                "{} was answered twice",
                ack.number
            );
        }
    }
    drop(sending.await?);
    let went = ids(&timeline(&client, &ann, "line").await?);
    let sent: Vec<String> = std::iter::once("start".to_owned())
        .chain((0..MANY).map(|n| format!("s{n}")))
        .collect();
    ensure!(
        went == sent,
        "the timeline has another order, of {} signals",
        went.len()
    );
    for n in 1..MANY as u64 {
        ensure!(
            positions[&(n - 1)] <= positions[&n],
            "signal {n} stands before {}",
            n - 1
        );
    }
    applied_at_most_once(&client, &[ann]).await
}

/// Sends one customer's signals, all handed over at once, and gives their receipts.
async fn terminal(client: Client, who: Identifier, many: usize) -> Result<Vec<Receipt>> {
    let time = Timestamp::now();
    let mut pending = vec![client.enqueue(signal("o.start", &who, "start")).await?];
    for n in 0..many {
        let step = signal("o.step", &who, &format!("s{n}")).time(time);
        pending.push(client.enqueue(step).await?);
    }
    let mut receipts = Vec::new();
    for answer in pending {
        let outcome = answer.await?;
        receipts.push(
            outcome
                .receipt()
                .cloned()
                .with_context(|| format!("{outcome:?}"))?,
        );
    }
    Ok(receipts)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminals_of_different_customers_do_not_disturb_one_another() -> Result<()> {
    let mut server = Server::start(Setup::default().many_checkpoints()).await?;
    publish(&server.client()?, JOURNEY).await?;
    let many = 150;
    let mut terminals = tokio::task::JoinSet::new();
    for n in 0..8 {
        // each a connection of its own
        let client = server.client()?;
        terminals.spawn(terminal(client, customer(&format!("c{n}")), many));
    }
    // in the middle of it, the server dies: what is under way is sent again, in order
    sojourn_chaos_tests::wait::until(
        "300 receipts",
        std::time::Duration::from_secs(60),
        async || Ok((server.receipts().await? >= 300).then_some(())),
    )
    .await?;
    server.crash().await?;
    let mut receipts = Vec::new();
    while let Some(done) = terminals.join_next().await {
        receipts.extend(done??);
    }
    let client = server.client()?;
    let customers: Vec<_> = (0..8).map(|n| customer(&format!("c{n}"))).collect();
    for who in &customers {
        let went = ids(&timeline(&client, who, "line").await?);
        let sent: Vec<String> = std::iter::once("start".to_owned())
            .chain((0..many).map(|n| format!("s{n}")))
            .collect();
        ensure!(went == sent, "{who} went {went:?}");
    }
    receipts_tell_the_truth(&client, &receipts).await?;
    applied_at_most_once(&client, &customers).await
}

//! What people ask of a cluster: what cannot be is refused with the reason, and a journey that is published through any
//! node is live on all.

use crate::several::refused;
use crate::support::{customer, execution, publish, signal};
use anyhow::{Context, Result, bail, ensure};
use sojourn_chaos_tests::cluster::{Cluster, drain, remove};
use sojourn_chaos_tests::process::Setup;
use sojourn_client::wire::{
    ApplyRequest, ControlKind, ControlRequest, PlanRequest, TransferRequest, Wish,
};
use sojourn_client::{Client, Outcome};
use tonic::Code;

fn journey(version: u32) -> String {
    format!(
        "journey: notice\ntitle: Version {version}\nentry: [{{ on: n.start }}]\nstages:\n  \
         - stage: one\n    transitions: [{{ to: two, on: n.up }}]\n  - {{ stage: two, end: done }}\n"
    )
}

async fn wish(cluster: &Cluster, place: usize, wishes: Vec<Wish>) -> Result<(Code, String)> {
    let apply = ApplyRequest {
        wishes: wishes.clone(),
        actor: "story".into(),
        ..Default::default()
    };
    let done = refused(cluster.service(place)?.apply(apply).await)?;
    // a dry run says the same
    let plan = cluster.service(place)?.plan(PlanRequest { wishes }).await;
    let (code, text) = refused(plan)?;
    ensure!(
        (code, &text) == (done.0, &done.1),
        "applied it is refused with {done:?}, planned with {code:?} {text}"
    );
    Ok(done)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_the_reason() -> Result<()> {
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    let all: Vec<u64> = (0..3).map(|place| cluster.id(place)).collect();
    let before = cluster.view().await?;
    for place in 0..3 {
        for (wishes, says) in [
            (vec![drain(9)], "there is no node 9; the nodes are"),
            (vec![remove(9)], "there is no node 9; the nodes are"),
            (
                all.iter().map(|id| drain(*id)).collect(),
                "no node would be left",
            ),
            (
                all.iter().map(|id| remove(*id)).collect(),
                "no node would be left",
            ),
            (
                vec![drain(all[0]), remove(all[0])],
                "two things are wished of node",
            ),
            (vec![Wish::default()], "a wish is empty"),
        ] {
            let (code, text) = wish(&cluster, place, wishes.clone()).await?;
            ensure!(
                code == Code::FailedPrecondition && text.contains(says),
                "{wishes:?}: {code:?} {text}"
            );
        }
        let unknown = ControlRequest {
            id: "00000000".into(),
            kind: ControlKind::Pause.into(),
            ..Default::default()
        };
        let (code, text) = refused(cluster.service(place)?.control(unknown).await)?;
        ensure!(
            code == Code::FailedPrecondition && text.contains("there is no change 00000000"),
            "{code:?} {text}"
        );
        let nobody = TransferRequest {
            shard: 0,
            to: 9,
            actor: "story".into(),
        };
        let (code, text) = refused(cluster.service(place)?.transfer(nobody).await)?;
        ensure!(
            code == Code::FailedPrecondition && text.contains('9'),
            "a transfer to nobody: {code:?} {text}"
        );
        let nowhere = TransferRequest {
            shard: 4,
            to: all[0],
            actor: "story".into(),
        };
        let (code, text) = refused(cluster.service(place)?.transfer(nowhere).await)?;
        ensure!(
            code == Code::InvalidArgument && text.contains("expected 0 to 3"),
            "{code:?} {text}"
        );
    }
    // people see it the same way
    let command = cluster.commands().run(["cluster", "drain", "9"]).await?;
    let said = String::from_utf8_lossy(&command.stderr).into_owned();
    ensure!(
        command.status.code() == Some(1) && said.contains("there is no node 9"),
        "{}: {said}",
        command.status
    );

    // a member that holds nothing of a shard cannot own it
    let place = cluster.add().await?;
    let status = cluster.whole(4).await?;
    let fourth = cluster.id(place);
    let stranger = status.shards.iter().find_map(|s| {
        Some((
            s.shard,
            *[all[0], all[1], all[2], fourth]
                .iter()
                .find(|n| !s.voters.contains(n))?,
        ))
    });
    let (shard, node) = stranger.context("three of four hold each shard")?;
    let transfer = TransferRequest {
        shard,
        to: node,
        actor: "story".into(),
    };
    let (code, text) = refused(cluster.service(0)?.transfer(transfer).await)?;
    ensure!(
        code == Code::FailedPrecondition && text.contains(&node.to_string()),
        "a transfer to a stranger: {code:?} {text}"
    );
    let now = cluster.view().await?;
    ensure!(
        now.nodes.len() == before.nodes.len() + 1,
        "nobody was drained or removed: {:?}",
        now.nodes
    );
    cluster.remove(place).await?;
    cluster.gone(place).await?;
    let status = cluster.whole(3).await?;
    // its id is never used again
    let ended = cluster.comes_back_not(place).await?;
    ensure!(
        ended.contains(&format!("node {fourth} was removed from the cluster")),
        "started again, the removed node said:\n{ended}"
    );

    // a voter takes over when it is asked
    let first = &status.shards[0];
    let heir = first.voters.iter().find(|n| **n != first.owner);
    let to = *heir.context("a shard has several voters")?;
    let transfer = TransferRequest {
        shard: first.shard,
        to,
        actor: "story".into(),
    };
    let given = cluster.service(0)?.transfer(transfer).await?.into_inner();
    ensure!(given.owner == to, "asked for {to}: {given:?}");
    // it is gone for good
    let (code, text) = wish(&cluster, 0, vec![drain(fourth)]).await?;
    ensure!(
        code == Code::FailedPrecondition && text.contains("was removed already"),
        "{code:?} {text}"
    );

    // without a majority nothing can be taken away
    cluster.kill(1)?;
    cluster.kill(2)?;
    let gone = vec![remove(all[1]), remove(all[2])];
    let planned = sojourn_chaos_tests::wait::until(
        "two of three are missed",
        std::time::Duration::from_secs(60),
        async || {
            let wishes = gone.clone();
            let plan = cluster.service(0)?.plan(PlanRequest { wishes }).await;
            Ok(plan
                .err()
                .filter(|s| s.message().contains("without a majority")))
        },
    )
    .await?;
    ensure!(planned.code() == Code::FailedPrecondition, "{planned}");
    let mut apply = tonic::Request::new(ApplyRequest {
        wishes: gone,
        actor: "story".into(),
        ..Default::default()
    });
    apply.set_timeout(std::time::Duration::from_secs(3));
    let (code, text) = refused(cluster.service(0)?.apply(apply).await)?;
    ensure!(
        code == Code::Unavailable
            && (text.contains("majority") || text.contains("nobody is known")),
        "{code:?} {text}"
    );
    cluster.again(1).await?;
    cluster.again(2).await?;
    cluster.whole(3).await?;
    cluster.verify().await.map(drop)
}

/// The version that a new execution of a customer gets.
async fn starts_with(client: &Client, name: &str) -> Result<(u32, u32)> {
    let who = customer(name);
    match client.send(signal("n.start", &who, "start")).await? {
        Outcome::Done(receipt) => {
            let shard = receipt.position.context("a position")?.shard;
            Ok((execution(client, &who, "notice").await?.version, shard))
        }
        other => bail!("{who}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn published_through_any_node_it_is_live_on_all() -> Result<()> {
    let mut cluster = Cluster::start(3, Setup::default()).await?;
    let client = cluster.client()?;
    for version in 1..=3 {
        let place = version as usize - 1;
        let through = cluster.node(place).client()?;
        publish(&through, &journey(version)).await?;
        for n in 0..8 {
            let (found, shard) = starts_with(&client, &format!("v{version}-{n}")).await?;
            ensure!(
                found == version,
                "shard {shard} decides with version {found} after {version} was live"
            );
        }
    }
    // one is away: it is live where shards have owners, and whoever is back knows it before it decides
    let away = cluster.busiest().await?;
    let owned = cluster.owners().await?;
    cluster.kill(away)?;
    let there = cluster.running();
    publish(&cluster.node(there[0]).client()?, &journey(4)).await?;
    cluster.again(away).await?;
    cluster.whole(3).await?;
    sojourn_chaos_tests::wait::until(
        "it owns again what it owned",
        std::time::Duration::from_secs(60),
        async || Ok((cluster.owners().await? == owned).then_some(())),
    )
    .await?;
    let through = cluster.node(away).client()?;
    let mut decided = 0;
    for n in 0..16 {
        let (found, shard) = starts_with(&through, &format!("back-{n}")).await?;
        decided += u32::from(owned[shard as usize] == Some(away));
        ensure!(
            found == 4,
            "back again, the owner of shard {shard} decides with version {found}"
        );
    }
    ensure!(decided > 0, "who was away decided nothing: {owned:?}");
    cluster.verify().await.map(drop)
}

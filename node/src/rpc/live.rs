//! Whether all shards decide with a position of the catalog, and which do not yet.

use crate::core::Core;
use crate::place::topology::Owner;
use crate::shard::owner::Shard;
use sojourn_cluster::NodeId;
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use sojourn_proto::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Owners are asked for so long at once: a shard may get another meanwhile.
const ROUND: Duration = Duration::from_millis(500);
/// How much longer an answer of another node may take.
const LATE: Duration = Duration::from_millis(100);
/// Between two rounds that were answered at once.
const AGAIN: Duration = Duration::from_millis(20);

/// Waits until every shard decides with a position of the catalog; names those that do not by then, and why.
pub async fn lagging(core: &Core, position: u64, until: Instant) -> Vec<v1::ShardLag> {
    let mut version = core.topology.version();
    let mut lagging: BTreeMap<u16, String> = (0..core.shards.count())
        .map(|shard| (shard, String::new()))
        .collect();
    loop {
        version.borrow_and_update();
        let round = until.min(Instant::now() + ROUND);
        for why in lagging.values_mut() {
            "nobody is known to own it now".clone_into(why);
        }
        for (shard, why) in told(core, position, round, &lagging).await {
            match why {
                None => drop(lagging.remove(&shard)),
                Some(why) => {
                    if let Some(said) = lagging.get_mut(&shard) {
                        *said = why;
                    }
                }
            }
        }
        if lagging.is_empty() || Instant::now() >= until {
            break;
        }
        let pause = until.min(Instant::now() + AGAIN);
        drop(tokio::time::timeout_at(pause, version.changed()).await);
    }
    let left = lagging.into_iter().map(|(shard, why)| v1::ShardLag {
        shard: shard.into(),
        why,
    });
    left.collect()
}

type Told = (u16, Option<String>);

/// What the owners say of the shards that are asked for: nothing, or why not.
async fn told(
    core: &Core,
    position: u64,
    until: Instant,
    asked: &BTreeMap<u16, String>,
) -> Vec<Told> {
    let mut here: Vec<Arc<Shard>> = Vec::new();
    let mut there: BTreeMap<NodeId, Vec<u16>> = BTreeMap::new();
    for shard in asked.keys() {
        match core.topology.owner(*shard) {
            Owner::Here(replica) => here.push(replica),
            Owner::There(node) => there.entry(node).or_default().push(*shard),
            Owner::Unknown => {}
        }
    }
    let here = here.iter().map(|shard| async move {
        let why = shard.await_catalog(position, until).await;
        (shard.number, why)
    });
    let there = there
        .into_iter()
        .map(|(node, shards)| async move { ask(core, position, until, node, shards).await });
    let (mut told, of_others) = tokio::join!(
        futures::future::join_all(here),
        futures::future::join_all(there)
    );
    told.extend(of_others.into_iter().flatten());
    told
}

async fn ask(
    core: &Core,
    position: u64,
    until: Instant,
    node: NodeId,
    shards: Vec<u16>,
) -> Vec<Told> {
    let not_told = |why: String| {
        let of = |shard| (shard, Some(format!("node {node} owns it and {why}")));
        shards.iter().copied().map(of).collect()
    };
    let channel = match core.place.transport.channel(node) {
        Ok(channel) => channel,
        Err(error) => return not_told(format!("cannot be asked: {error}")),
    };
    let left = until.saturating_duration_since(Instant::now());
    let request = wire::AwaitCatalogRequest {
        position,
        within_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    };
    let mut client = NodesClient::new(channel);
    let answer = tokio::time::timeout_at(until + LATE, client.await_catalog(request)).await;
    match answer {
        Ok(Ok(answer)) => {
            let said = answer.into_inner().shards;
            let told = said.into_iter().filter_map(|lag| {
                let why = (!lag.reached).then_some(lag.why);
                Some((u16::try_from(lag.shard).ok()?, why))
            });
            told.filter(|(shard, _)| shards.contains(shard)).collect()
        }
        Ok(Err(status)) => not_told(format!("cannot be asked: {}", status.message())),
        Err(_) => not_told("has not answered yet".to_owned()),
    }
}

//! Has every replica of a shard hash its state at one position, and compares.

use super::topology::Owner;
use super::{Place, executor, service};
use futures::StreamExt;
use sojourn_cluster::NodeId;
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use sojourn_proto::v1;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;

/// Shards that are hashed at the same time: hashing a large one holds up its apply.
const AT_ONCE: usize = 4;
/// The pause before a shard without an owner is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// Verifies these shards.
pub async fn verify(place: &Arc<Place>, shards: &[u16], within: Duration) -> Vec<v1::ShardVerdict> {
    let until = Instant::now() + within;
    let verdicts = futures::stream::iter(shards.iter().copied())
        .map(|shard| one(place, shard, until))
        .buffered(AT_ONCE);
    verdicts.collect().await
}

fn client(place: &Place, node: NodeId) -> Result<NodesClient<Channel>, String> {
    let channel = place.transport.channel(node);
    channel.map(NodesClient::new).map_err(|e| e.to_string())
}

/// Asks the owner for a position at which all hash; answers it with who the members are.
async fn begin(place: &Place, shard: u16) -> Result<(u64, BTreeSet<NodeId>), String> {
    let owner = match place.topology.owner(shard) {
        Owner::Here(_) => place.me,
        Owner::There(node) => node,
        Owner::Unknown => return Err("nobody is known to own it now".into()),
    };
    let answer = if owner == place.me {
        service::propose_verify(place, shard.into()).await
    } else {
        let request = wire::ProposeVerifyRequest {
            shard: shard.into(),
        };
        let answer = client(place, owner)?.propose_verify(request).await;
        answer.map_err(|e| e.message().to_owned())?.into_inner()
    };
    if answer.not_owner {
        return Err(format!("node {owner} does not own it any more"));
    }
    if !answer.why.is_empty() {
        return Err(answer.why);
    }
    let id = service::group_of(shard).0;
    let groups = executor::groups_of(place, owner).await?;
    let group = groups.into_iter().find(|g| g.group == id);
    let group = group.ok_or_else(|| format!("node {owner} has no replica of it any more"))?;
    Ok((
        answer.index,
        group.voters.into_iter().chain(group.learners).collect(),
    ))
}

async fn one(place: &Arc<Place>, shard: u16, until: Instant) -> v1::ShardVerdict {
    let begun = loop {
        match begin(place, shard).await {
            Ok(begun) => break Ok(begun),
            Err(why) if Instant::now() >= until => break Err(why),
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    let (index, members) = match begun {
        Ok(begun) => begun,
        Err(why) => {
            return v1::ShardVerdict {
                shard: shard.into(),
                at: None,
                replicas: vec![v1::ReplicaHash {
                    node: 0,
                    hash: String::new(),
                    why,
                }],
                equal: false,
            };
        }
    };
    let asking = members
        .into_iter()
        .map(|node| hash_of(place, node, shard, index, until));
    let replicas: Vec<v1::ReplicaHash> = futures::future::join_all(asking).await;
    let first = replicas.first().map(|r| r.hash.clone()).unwrap_or_default();
    v1::ShardVerdict {
        shard: shard.into(),
        at: Some(v1::Position {
            shard: shard.into(),
            index,
        }),
        equal: !first.is_empty() && replicas.iter().all(|r| r.hash == first),
        replicas,
    }
}

async fn hash_of(
    place: &Place,
    node: NodeId,
    shard: u16,
    index: u64,
    until: Instant,
) -> v1::ReplicaHash {
    if node == place.me {
        let wire::HashAtResponse { hash, why } =
            service::hash_at(place, shard.into(), index, until).await;
        return v1::ReplicaHash { node, hash, why };
    }
    let left = until.saturating_duration_since(Instant::now());
    let request = wire::HashAtRequest {
        shard: shard.into(),
        index,
        within_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
    };
    let asked = async {
        let mut client = client(place, node)?;
        let answer = client.hash_at(request).await;
        Ok::<_, String>(answer.map_err(|e| e.message().to_owned())?.into_inner())
    };
    let (hash, why) = match tokio::time::timeout_at(until + AGAIN, asked).await {
        Ok(Ok(answer)) => (answer.hash, answer.why),
        Ok(Err(why)) => (String::new(), why),
        Err(_) => (String::new(), "it has not answered in time".to_owned()),
    };
    v1::ReplicaHash { node, hash, why }
}

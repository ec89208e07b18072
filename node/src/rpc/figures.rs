//! What the shards count, gathered from all of them: exactly, from every owner, or loosely, from whatever replica is here.

use super::errors;
use crate::core::Core;
use crate::limits;
use crate::place::topology::Owner;
use crate::route::call::Call;
use crate::route::seek::wait;
use crate::shard::counters::Counters;
use crate::shard::owner::Shard;
use prost::Message;
use sojourn_cluster::NodeId;
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use sojourn_proto::{stored, v1};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Shards without a replica here are asked for at most this long where figures need not be exact.
const LOOSE_WITHIN: Duration = Duration::from_secs(1);

/// The counters of a journey in every shard, linearizable, and the positions that they are exact for.
///
/// # Errors
/// A shard that nobody answers for within the deadline.
pub async fn exact(
    core: &Core,
    call: &Call,
    workspace: &str,
    journey: &str,
) -> Result<(Counters, Vec<v1::Position>), Status> {
    let shards = 0..core.shards.count();
    let asked = shards.map(|shard| of_shard(core, call, shard, workspace, journey));
    let mut all = Counters::default();
    let mut positions = Vec::new();
    for (counters, position) in futures::future::try_join_all(asked).await? {
        all.merge(&counters);
        positions.push(position);
    }
    Ok((all, positions))
}

/// The counters of a journey (empty: of all) as this node knows them: of its own replicas as they are, of other shards
/// from their owners, if they answer soon.
pub async fn loose(core: &Core, call: &Call, workspace: &str, journey: &str) -> Counters {
    let until = call.until.min(Instant::now() + LOOSE_WITHIN);
    let call = &Call { until, ..*call };
    let mut all = Counters::default();
    let mut elsewhere = Vec::new();
    for shard in 0..core.shards.count() {
        match core.shards.local(shard) {
            Some(replica) => all.merge(&taken(&replica, workspace, journey).0),
            None => elsewhere.push(of_shard(core, call, shard, workspace, journey)),
        }
    }
    for (counters, _) in futures::future::join_all(elsewhere)
        .await
        .into_iter()
        .flatten()
    {
        all.merge(&counters);
    }
    all
}

fn taken(replica: &Shard, workspace: &str, journey: &str) -> (Counters, v1::Position) {
    let state = replica.duties.state.lock();
    let position = v1::Position {
        shard: replica.number.into(),
        index: state.applied,
    };
    (state.counters.of_journey(workspace, journey), position)
}

async fn of_shard(
    core: &Core,
    call: &Call,
    shard: u16,
    workspace: &str,
    journey: &str,
) -> Result<(Counters, v1::Position), Status> {
    let mut version = core.topology.version();
    loop {
        version.borrow_and_update();
        match core.topology.owner(shard) {
            Owner::Here(replica) => {
                if replica.group.read_index(call.until).await.is_ok() {
                    return Ok(taken(&replica, workspace, journey));
                }
            }
            Owner::There(node) => {
                let request = wire::CountersRequest {
                    shard: shard.into(),
                    workspace: workspace.to_owned(),
                    journey: journey.to_owned(),
                };
                if let Some(found) = ask(core, call, node, request).await? {
                    return Ok(found);
                }
            }
            Owner::Unknown => {}
        }
        if !wait(call, version.changed()).await {
            return Err(core.not_owner(shard));
        }
    }
}

/// `None`: it gave no answer, or does not own the shard.
async fn ask(
    core: &Core,
    call: &Call,
    node: NodeId,
    request: wire::CountersRequest,
) -> Result<Option<(Counters, v1::Position)>, Status> {
    let Ok(channel) = core.place.transport.channel(node) else {
        return Ok(None);
    };
    let shard = request.shard;
    let mut client = NodesClient::new(channel).max_decoding_message_size(limits::ANSWER_BYTES);
    let answer = tokio::time::timeout_at(call.until, client.counters(request)).await;
    let Ok(Ok(answer)) = answer else {
        return Ok(None);
    };
    let answer = answer.into_inner();
    if answer.not_owner {
        return Ok(None);
    }
    let unreadable = |why: String| {
        let text = format!("the counters of node {node} cannot be read: {why}");
        errors::with_reason(Code::Internal, "internal", text)
    };
    let meta = stored::ShardMeta::decode(answer.counters).map_err(|e| unreadable(e.to_string()))?;
    let counters = Counters::from_stored(meta.counters).map_err(|e| unreadable(e.to_string()))?;
    let position = v1::Position {
        shard,
        index: answer.applied,
    };
    Ok(Some((counters, position)))
}

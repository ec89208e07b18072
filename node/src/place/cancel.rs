//! What becomes of a change that is cancelled: what it has begun in a group is ended or taken back, and the layout is what
//! the groups are then.

use super::Place;
use super::executor::{AGAIN, For, take, truth};
use crate::catalog::ClusterState;
use crate::catalog::cluster::layout_to_stored;
use futures::StreamExt;
use sojourn_cluster::layout::MAX_VOTERS;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::cluster as wire;
use sojourn_proto::stored;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;
use wire::step_request::Step;

/// Shards that are asked at the same time.
const AT_ONCE: usize = 8;

/// What stays when a change is cancelled.
pub struct AsItIs {
    /// The layout that the groups really have.
    pub layout: stored::Layout,
    /// The cluster position that it was made from.
    pub from: u64,
    /// Shards that could not be asked: the layout names everybody who may vote for them.
    pub unasked: Vec<u16>,
}

/// Settles the groups of a change that is paused, and answers what they are then. A shard that nobody answers for until
/// the deadline is left as it is.
///
/// # Errors
/// There is no layout, or what was found cannot be one.
pub async fn as_it_is(
    place: &Arc<Place>,
    cluster: &ClusterState,
    until: Instant,
) -> Result<AsItIs, String> {
    let now = cluster.layout()?;
    let change = cluster.changing();
    let (id, before) = change.map_or((String::new(), None), |c| (c.id.clone(), c.before.clone()));
    let before: Vec<stored::ShardVoters> = before.map_or_else(Vec::new, |b| b.shards);
    let moving: Vec<u16> = change
        .map(|c| {
            let left = c.shards.iter().filter(|s| !c.moved.contains(s));
            left.filter_map(|s| u16::try_from(*s).ok()).collect()
        })
        .unwrap_or_default();
    let settling = moving.into_iter().map(|shard| {
        let id = &id;
        async move { (shard, settle(place, id, shard, until).await) }
    });
    let settled = futures::stream::iter(settling).buffer_unordered(AT_ONCE);
    let mut settled: BTreeMap<u16, Result<BTreeSet<NodeId>, String>> = settled.collect().await;
    let mut unasked = Vec::new();
    let mut shards = Vec::new();
    for number in 0..now.shards() {
        let wanted = now.voters(ShardId(number)).to_vec();
        let (voters, both) = match settled.remove(&number) {
            None => {
                shards.push(wanted);
                continue;
            }
            Some(Ok(voters)) => (voters, wanted),
            Some(Err(why)) => {
                tracing::warn!(
                    shard = number,
                    why,
                    "a shard of a cancelled change stays as it is"
                );
                unasked.push(number);
                let mut both = before
                    .get(usize::from(number))
                    .map_or_else(Vec::new, |b| b.voters.clone());
                both.extend(
                    wanted
                        .iter()
                        .filter(|n| !both.contains(n))
                        .copied()
                        .collect::<Vec<_>>(),
                );
                // who is beyond keeps its replica all the same while the group counts it
                both.truncate(MAX_VOTERS);
                (both.iter().copied().collect(), both)
            }
        };
        let mut named: Vec<NodeId> = both
            .iter()
            .filter(|n| voters.contains(n))
            .copied()
            .collect();
        named.extend(voters.iter().filter(|n| !both.contains(n)));
        shards.push(named);
    }
    let layout = now
        .follow(now.version() + 1, shards)
        .map_err(|e| e.to_string())?;
    Ok(AsItIs {
        layout: layout_to_stored(&layout),
        from: cluster.position,
        unasked,
    })
}

/// Ends a change of voters that has begun, and takes out who only listens; answers who votes then.
async fn settle(
    place: &Place,
    change: &str,
    shard: u16,
    until: Instant,
) -> Result<BTreeSet<NodeId>, String> {
    let step = async |owner: NodeId, step: Step| {
        let taken = take(place, owner, shard, step, For::Cancelling(change));
        match tokio::time::timeout_at(until, taken).await {
            Ok(taken) => taken,
            Err(_) => Err("not in time".to_owned()),
        }
    };
    loop {
        let tried = match truth(place, shard).await {
            Err(why) => Err(why),
            // between two sets both majorities are needed: forward is the only way out
            Ok(truth) if !truth.target.is_empty() => {
                let voters = truth.target.into_iter().collect();
                let step = step(truth.owner, Step::ChangeVoters(wire::StepVoters { voters }));
                step.await
            }
            Ok(truth) if truth.changing => Err("its members are just being changed".to_owned()),
            Ok(truth) => match truth.learners.first() {
                None => return Ok(truth.voters),
                Some(node) => step(truth.owner, Step::RemoveLearner(*node)).await,
            },
        };
        if let Err(why) = tried {
            if Instant::now() + AGAIN >= until {
                return Err(why);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

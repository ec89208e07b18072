//! What becomes of a change that is cancelled: the layout is what the groups are then.

use super::Place;
use super::executor::truth;
use crate::catalog::ClusterState;
use crate::catalog::cluster::layout_to_stored;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::stored;
use std::collections::BTreeSet;

/// The layout that the groups really have: what stays when a change is cancelled.
///
/// # Errors
/// A shard's members are not known now, or are just being changed.
pub async fn as_it_is(place: &Place, cluster: &ClusterState) -> Result<stored::Layout, String> {
    let (before, change) = (cluster.layout()?, cluster.changing());
    let moving: BTreeSet<u32> = change
        .map(|c| {
            c.shards
                .iter()
                .filter(|s| !c.moved.contains(s))
                .copied()
                .collect()
        })
        .unwrap_or_default();
    let mut shards = Vec::new();
    for number in 0..before.shards() {
        let wanted = before.voters(ShardId(number)).to_vec();
        if !moving.contains(&u32::from(number)) {
            shards.push(wanted);
            continue;
        }
        let truth = truth(place, number)
            .await
            .map_err(|why| format!("shard {number}: {why}"))?;
        if truth.changing {
            return Err(format!(
                "shard {number}: its voters are just being changed; ask again"
            ));
        }
        let mut voters: Vec<NodeId> = wanted
            .iter()
            .filter(|n| truth.voters.contains(n))
            .copied()
            .collect();
        voters.extend(truth.voters.iter().filter(|n| !wanted.contains(n)));
        shards.push(voters);
    }
    let layout = before
        .follow(before.version() + 1, shards)
        .map_err(|e| e.to_string())?;
    Ok(layout_to_stored(&layout))
}

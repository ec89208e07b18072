//! What a cluster lacks, by what one of its nodes says of it. Asks nobody.

use sojourn_client::wire;
use std::collections::BTreeSet;

/// Voters of a shard, where there are enough nodes.
const VOTERS: usize = 3;

/// The shards that are not as the layout says, each in full.
pub fn unlike_layout(status: &wire::ClusterStatus) -> Vec<String> {
    let unlike = status.shards.iter().filter(|s| {
        let (mut layout, mut voters) = (s.layout.clone(), s.voters.clone());
        layout.sort_unstable();
        voters.sort_unstable();
        s.owner == 0 || layout != voters || !s.learners.is_empty()
    });
    unlike.map(|s| format!("{s:?}")).collect()
}

/// What a cluster with so many active nodes lacks to be whole.
pub fn missing(status: &wire::ClusterStatus, active: usize) -> Option<String> {
    let change = status.change.as_ref().filter(|c| {
        matches!(
            c.state(),
            wire::ChangeState::Running | wire::ChangeState::Paused
        )
    });
    if let Some(change) = change {
        return Some(format!("change {change:?} is under way"));
    }
    let state = |n: &wire::NodeStatus| n.info.as_ref().map(wire::NodeInfo::state);
    let there: Vec<_> = status
        .nodes
        .iter()
        .filter(|n| state(n) == Some(wire::NodeState::Active))
        .collect();
    if there.len() != active {
        return Some(format!("{} nodes are active, not {active}", there.len()));
    }
    if let Some(node) = there.iter().find(|n| !n.reachable || n.replicas == 0) {
        return Some(format!("not there, or without its part: {node:?}"));
    }
    let voters = active.min(VOTERS);
    status.shards.iter().find_map(|shard| {
        let members: BTreeSet<u64> = shard.voters.iter().copied().collect();
        let layout: BTreeSet<u64> = shard.layout.iter().copied().collect();
        let sound = |voter: &u64| {
            let replica = shard.replicas.iter().find(|r| r.node == *voter);
            replica.is_some_and(|r| r.role != "closed" && r.history_whole)
        };
        let whole = shard.owner != 0
            && members.contains(&shard.owner)
            && members == layout
            && members.len() == voters
            && shard.learners.is_empty()
            && members.iter().all(sound);
        (!whole).then(|| format!("not whole: {shard:?}"))
    })
}

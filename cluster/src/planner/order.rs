//! In which order the moves of a plan are best begun.
//!
//! It does not know how many are made at once.

use super::Move;
use crate::id::{NodeId, ShardId};
use crate::layout::Layout;
use std::collections::{BTreeMap, BTreeSet};

/// So many of the next moves are looked at for the best one.
const LOOK_AHEAD: usize = 1024;

/// How much a move is needed; the first comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// Replicas are lacking; so many are there.
    Lacks(usize),
    /// Somebody has to go.
    Leaves,
    /// It would be more even.
    Evens,
    /// Only the order of the voters changes.
    Prefers,
}

/// The moves from one layout to another, in order.
pub(super) fn moves(
    before: &Layout,
    after: &[Vec<NodeId>],
    dead: &BTreeSet<NodeId>,
    usable: &BTreeMap<NodeId, &str>,
    replicas: usize,
) -> Vec<Move> {
    let mut by_need: BTreeMap<Need, Vec<Move>> = BTreeMap::new();
    for (voters, number) in after.iter().zip(0..) {
        let (shard, old) = (ShardId(number), before.voters(ShardId(number)));
        if old == voters {
            continue;
        }
        let missing = |of: &[NodeId], from: &[NodeId]| -> Vec<NodeId> {
            of.iter()
                .filter(|node| !from.contains(node))
                .copied()
                .collect()
        };
        let (add, remove) = (missing(voters, old), missing(old, voters));
        let live = old.iter().filter(|voter| !dead.contains(voter)).count();
        let need = if !add.is_empty() && live < replicas {
            Need::Lacks(live)
        } else if remove.iter().any(|node| !usable.contains_key(node)) {
            Need::Leaves
        } else if !(add.is_empty() && remove.is_empty()) {
            Need::Evens
        } else {
            Need::Prefers
        };
        let voters = voters.clone();
        by_need.entry(need).or_default().push(Move {
            shard,
            add,
            remove,
            voters,
        });
    }
    let (mut held, mut owned) = (BTreeMap::new(), BTreeMap::new());
    for shard in (0..before.shards()).map(ShardId) {
        for voter in before.voters(shard) {
            *held.entry(*voter).or_insert(0_i64) += 1;
        }
        if let Some(owner) = before.owner(shard) {
            *owned.entry(owner).or_insert(0_i64) += 1;
        }
    }
    let mut ordered = Vec::new();
    for mut left in by_need.into_values() {
        while !left.is_empty() {
            let load =
                |of: &BTreeMap<NodeId, i64>, node: &NodeId| of.get(node).copied().unwrap_or(0);
            // To whom has least, from whom has most.
            let worth = |(_, next): &(usize, &Move)| {
                let more: i64 = next.add.iter().map(|node| load(&held, node)).sum();
                let less: i64 = next.remove.iter().map(|node| load(&held, node)).sum();
                let owner = |node: Option<NodeId>| node.map_or(0, |node| load(&owned, &node));
                let owners = owner(next.voters.first().copied()) - owner(before.owner(next.shard));
                (more - less, owners, next.shard)
            };
            let near = left.iter().take(LOOK_AHEAD).enumerate();
            let Some((place, _)) = near.min_by_key(worth) else {
                break;
            };
            let next = left.remove(place);
            for node in &next.add {
                *held.entry(*node).or_default() += 1;
            }
            for node in &next.remove {
                *held.entry(*node).or_default() -= 1;
            }
            if let Some(owner) = before.owner(next.shard) {
                *owned.entry(owner).or_default() -= 1;
            }
            if let Some(owner) = next.voters.first() {
                *owned.entry(*owner).or_default() += 1;
            }
            ordered.push(next);
        }
    }
    ordered
}

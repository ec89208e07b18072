//! Evening out: as long as something can be handed on from a node to one that has at least two fewer, it is.
//!
//! It does not know what is handed on: replicas, or the place of the preferred owner.

use crate::id::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A node holds at most this much more or less than the average, in percent.
const SPREAD_PERCENT: usize = 25;

/// What nodes have of, and may hand on.
pub(super) trait Loads {
    /// How much each node has that may have any.
    fn loads(&self) -> &BTreeMap<NodeId, usize>;

    /// To whom `from` could hand on one, and of which shard, best.
    fn ways(&self, from: NodeId) -> BTreeMap<NodeId, usize>;

    /// Hands one on, if that can still be.
    fn hand_on(&mut self, shard: usize, from: NodeId, to: NodeId) -> bool;
}

/// Whether every node has about the average.
pub(super) fn is_level(loads: &BTreeMap<NodeId, usize>) -> bool {
    let (sum, nodes) = (loads.values().sum::<usize>(), loads.len().max(1));
    let least = sum * (100 - SPREAD_PERCENT) / (nodes * 100);
    let most = (sum * (100 + SPREAD_PERCENT)).div_ceil(nodes * 100);
    loads.values().all(|load| (least..=most).contains(load))
}

/// Makes the loads as even as they can be, unless they are even enough.
pub(super) fn level(of: &mut impl Loads) {
    if is_level(of.loads()) {
        return;
    }
    // Each handing on makes the sum of squares smaller, so this ends.
    let mut stuck: BTreeSet<NodeId> = BTreeSet::new();
    loop {
        let free = of.loads().iter().filter(|(node, _)| !stuck.contains(node));
        let Some(from) = free.max_by_key(|(node, load)| (**load, u64::MAX - **node)) else {
            return;
        };
        let from = *from.0;
        match way(of, from) {
            Some(steps) if walk(of, &steps) => stuck.clear(),
            _ => drop(stuck.insert(from)),
        }
    }
}

/// One of a shard, from a node to another.
struct Step {
    shard: usize,
    from: NodeId,
    to: NodeId,
}

/// The shortest way on which something can be handed on from `from`, over others if need be, to the node with the least
/// of those that are as near and have at least two fewer.
fn way(of: &impl Loads, from: NodeId) -> Option<Vec<Step>> {
    let load = |node: NodeId| of.loads().get(&node).copied().unwrap_or(0);
    let enough = load(from).checked_sub(2)?;
    let mut came: BTreeMap<NodeId, (NodeId, usize)> = BTreeMap::new();
    let mut edge = vec![from];
    while !edge.is_empty() {
        let mut next = Vec::new();
        for via in edge {
            for (to, shard) in of.ways(via) {
                if to != from && !came.contains_key(&to) {
                    came.insert(to, (via, shard));
                    next.push(to);
                }
            }
        }
        let ends = next.iter().filter(|node| load(**node) <= enough);
        if let Some(end) = ends.min_by_key(|node| (load(**node), **node)) {
            let (mut steps, mut to) = (Vec::new(), *end);
            while let Some((via, shard)) = came.get(&to) {
                steps.push(Step {
                    shard: *shard,
                    from: *via,
                    to,
                });
                to = *via;
            }
            steps.reverse();
            return Some(steps);
        }
        edge = next;
    }
    None
}

/// Takes all steps, or none.
fn walk(of: &mut impl Loads, steps: &[Step]) -> bool {
    for (taken, step) in steps.iter().enumerate() {
        if !of.hand_on(step.shard, step.from, step.to) {
            for step in steps.iter().take(taken).rev() {
                of.hand_on(step.shard, step.to, step.from);
            }
            return false;
        }
    }
    true
}

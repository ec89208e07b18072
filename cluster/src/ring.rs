//! Which nodes a shard would best be on: consistent hashing with virtual nodes, bounded load and zones.
//!
//! Pure: the same nodes give the same proposal everywhere. The ring only *proposes*; what counts is the layout in the
//! catalog. It does not know what moving a shard costs, nor which nodes are up.

use crate::id::{NodeId, ShardId};
use crate::runtime::mix;
use std::collections::{BTreeMap, BTreeSet};

/// Points that a node has on the ring, unless told otherwise.
pub const VIRTUAL_NODES: u32 = 128;
/// A node takes at most this much more than the average, in percent.
const HEADROOM_PERCENT: usize = 25;

/// The shard of a key's hash: its high bits, so that every shard can later be split in two.
///
/// `shards` is a power of two, 1 to 32,768. (Any other number gives slices of almost equal size; 0 counts as 1.)
pub fn shard_of(hash: u64, shards: u16) -> ShardId {
    // The high half of the product is the quotient by the size of a slice; for a power of two, the high bits.
    ShardId(((u128::from(hash) * u128::from(shards.max(1))) >> 64) as u16)
}

/// A node as the ring sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RingNode {
    /// Which.
    pub id: NodeId,
    /// What fails together: replicas of a shard are kept in different zones where there are enough.
    pub zone: String,
}

/// Nodes on a ring.
#[derive(Debug, Clone)]
pub struct Ring {
    points: Vec<(u64, NodeId)>,
    zones: BTreeMap<NodeId, String>,
}

impl Ring {
    /// A ring of these nodes, each with `virtual_nodes` points (0 counts as 1). A node named twice counts once.
    pub fn new(nodes: &[RingNode], virtual_nodes: u32) -> Ring {
        let zones: BTreeMap<NodeId, String> =
            nodes.iter().map(|n| (n.id, n.zone.clone())).collect();
        let mut points: Vec<(u64, NodeId)> = zones
            .keys()
            .flat_map(|id| (0..virtual_nodes.max(1)).map(|n| (mix(mix(*id) ^ u64::from(n)), *id)))
            .collect();
        points.sort_unstable();
        Ring { points, zones }
    }

    /// The nodes from this place on, each once, in order of the ring.
    fn walk(&self, place: u64) -> Vec<NodeId> {
        let start = self.points.partition_point(|(point, _)| *point < place);
        let (before, after) = self.points.split_at(start);
        let mut seen = BTreeSet::new();
        after
            .iter()
            .chain(before)
            .map(|(_, id)| *id)
            .filter(|id| seen.insert(*id))
            .collect()
    }

    /// A proposal: for every shard its voters, the preferred owner first. Fewer nodes than `replicas` give fewer voters.
    ///
    /// No node votes for more than a quarter above the average of shards, or owns more than that of them, unless zones
    /// leave no choice.
    pub fn propose(&self, shards: u16, replicas: usize) -> Vec<Vec<NodeId>> {
        let nodes = self.zones.len();
        let replicas = replicas.min(nodes);
        if replicas == 0 {
            return vec![Vec::new(); usize::from(shards)];
        }
        let bound = |sum: usize| (sum * (100 + HEADROOM_PERCENT)).div_ceil(nodes * 100);
        let most_owned = bound(usize::from(shards));
        let most_held = bound(usize::from(shards) * replicas);
        let zone_count = self.zones.values().collect::<BTreeSet<_>>().len();
        let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut held: BTreeMap<NodeId, usize> = BTreeMap::new();
        (0..shards)
            .map(|shard| {
                let walk = self.walk(mix(!u64::from(shard)));
                let mut voters: Vec<NodeId> = Vec::with_capacity(replicas);
                while voters.len() < replicas {
                    let taken: BTreeSet<&String> =
                        voters.iter().filter_map(|v| self.zones.get(v)).collect();
                    let free = |id: &&NodeId| !voters.contains(id);
                    let new_zone = |id: &&NodeId| {
                        taken.len() >= zone_count
                            || self
                                .zones
                                .get(*id)
                                .is_some_and(|zone| !taken.contains(zone))
                    };
                    let room = |id: &&NodeId| {
                        held.get(*id).copied().unwrap_or(0) < most_held
                            && (!voters.is_empty()
                                || owned.get(*id).copied().unwrap_or(0) < most_owned)
                    };
                    let least = |id: &&NodeId| held.get(*id).copied().unwrap_or(0);
                    // The best that can be had: another zone with room; another zone; room; anybody.
                    let chosen = walk
                        .iter()
                        .filter(free)
                        .filter(new_zone)
                        .find(room)
                        .or_else(|| walk.iter().filter(free).filter(new_zone).min_by_key(least))
                        .or_else(|| walk.iter().filter(free).find(room))
                        .or_else(|| walk.iter().filter(free).min_by_key(least));
                    let Some(chosen) = chosen.copied() else { break };
                    if voters.is_empty() {
                        *owned.entry(chosen).or_default() += 1;
                    }
                    *held.entry(chosen).or_default() += 1;
                    voters.push(chosen);
                }
                voters
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(count: u64, zones: u64) -> Vec<RingNode> {
        (1..=count)
            .map(|id| RingNode {
                id,
                zone: format!("z{}", id % zones.max(1)),
            })
            .collect()
    }

    fn loads(placed: &[Vec<NodeId>]) -> (BTreeMap<NodeId, usize>, BTreeMap<NodeId, usize>) {
        let (mut owned, mut held) = (BTreeMap::new(), BTreeMap::new());
        for voters in placed {
            if let Some(first) = voters.first() {
                *owned.entry(*first).or_default() += 1;
            }
            for voter in voters {
                *held.entry(*voter).or_default() += 1;
            }
        }
        (owned, held)
    }

    #[test]
    fn a_shard_is_the_high_bits_of_the_hash() {
        assert_eq!(shard_of(0, 32), ShardId(0));
        assert_eq!(shard_of(u64::MAX, 32), ShardId(31));
        assert_eq!(shard_of(0x8000_0000_0000_0000, 2), ShardId(1));
        assert_eq!(shard_of(u64::MAX, 1), ShardId(0));
        assert_eq!(shard_of(u64::MAX, 0), ShardId(0));
        assert_eq!(shard_of(0x0123_4567_89ab_cdef, 256), ShardId(0x01));
    }

    #[test]
    fn one_node_gets_everything() {
        assert_eq!(
            Ring::new(&nodes(1, 1), VIRTUAL_NODES).propose(4, 3),
            vec![vec![1]; 4]
        );
        assert_eq!(
            Ring::new(&[], VIRTUAL_NODES).propose(2, 3),
            vec![Vec::<NodeId>::new(); 2]
        );
    }

    #[test]
    fn this_proposal_stands_for_ever() {
        // The ring is computed on every node: a change of its hashing would move every shard of every cluster.
        let placed = Ring::new(&nodes(5, 5), VIRTUAL_NODES).propose(8, 3);
        assert_eq!(
            placed,
            Ring::new(
                &nodes(5, 5).into_iter().rev().collect::<Vec<_>>(),
                VIRTUAL_NODES
            )
            .propose(8, 3)
        );
        let text = placed
            .iter()
            .map(|v| format!("{}{}{}", v[0], v[1], v[2]))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(text, "512 153 314 154 431 412 245 532");
    }

    proptest! {
        #[test]
        fn halves_of_a_shard_are_its_children(hash: u64, bits in 0_u32..15) {
            let (shards, twice) = (1_u16 << bits, 2_u16 << bits);
            prop_assert_eq!(shard_of(hash, twice).0 / 2, shard_of(hash, shards).0);
            prop_assert!(shard_of(hash, shards).0 < shards);
        }

        #[test]
        fn load_is_bounded(count in 1_u64..12, bits in 3_u32..9) {
            let shards = 1_u16 << bits;
            let placed = Ring::new(&nodes(count, count), VIRTUAL_NODES).propose(shards, 3);
            let replicas = 3.min(count as usize);
            let (owned, held) = loads(&placed);
            let bound = |sum: usize| (sum * 125).div_ceil(count as usize * 100);
            for voters in &placed {
                prop_assert_eq!(voters.iter().collect::<BTreeSet<_>>().len(), replicas);
            }
            prop_assert!(owned.values().all(|n| *n <= bound(usize::from(shards))), "{:?}", owned);
            // The last shards may have to take whoever is left, one above the bound.
            prop_assert!(held.values().all(|n| *n <= bound(usize::from(shards) * replicas) + 1), "{:?}", held);
        }

        #[test]
        fn zones_are_kept_apart(count in 3_u64..12, zones in 1_u64..5) {
            let nodes = nodes(count, zones);
            let zone: BTreeMap<NodeId, &str> = nodes.iter().map(|n| (n.id, n.zone.as_str())).collect();
            let there = zone.values().collect::<BTreeSet<_>>().len();
            for voters in Ring::new(&nodes, VIRTUAL_NODES).propose(64, 3) {
                let used = voters.iter().map(|v| zone[v]).collect::<BTreeSet<_>>().len();
                prop_assert_eq!(used, there.min(3));
            }
        }

        #[test]
        fn another_node_takes_little_more_than_its_share(count in 3_u64..11, bits in 5_u32..9) {
            let shards = 1_u16 << bits;
            let before = Ring::new(&nodes(count, 100), VIRTUAL_NODES).propose(shards, 3);
            let after = Ring::new(&nodes(count + 1, 100), VIRTUAL_NODES).propose(shards, 3);
            let moved: usize = before
                .iter()
                .zip(&after)
                .map(|(b, a)| a.iter().filter(|voter| !b.contains(voter)).count())
                .sum();
            let share = usize::from(shards) * 3 / (count as usize + 1);
            // Bounds that shrink push some on; a plain modulus would move nearly all.
            prop_assert!(moved <= share * 5 / 2 + 8, "{moved} moved, the share is {share}");
        }
    }
}

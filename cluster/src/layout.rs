//! The layout: which nodes vote for which shard, with a version. It is committed in the catalog; it is the intent.
//!
//! Pure. It does not know who is up, what a group's membership really is, nor how one moves towards the other.

use crate::id::{NodeId, ShardId};
use std::collections::BTreeSet;

/// The most shards that a cluster can have.
pub const MAX_SHARDS: usize = 32_768;
/// The most voters that a shard can have.
pub const MAX_VOTERS: usize = 7;

/// Why a layout cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A wrong number of shards.
    #[error("a layout of {found} shards, expected a power of two, 1 to {MAX_SHARDS}")]
    Shards {
        /// The number found.
        found: usize,
    },
    /// A wrong number of voters.
    #[error("{shard} has {found} voters, expected 1 to {MAX_VOTERS}")]
    Voters {
        /// Where.
        shard: ShardId,
        /// The number found.
        found: usize,
    },
    /// A node that votes twice.
    #[error("{shard} names node {node} twice, expected each voter once")]
    Twice {
        /// Where.
        shard: ShardId,
        /// Who.
        node: NodeId,
    },
    /// A layout that does not follow the one that it should replace.
    #[error("layout version {found} cannot follow {current}, expected {}", current + 1)]
    Version {
        /// The version found.
        found: u64,
        /// The version that counts.
        current: u64,
    },
    /// Another number of shards than before.
    #[error(
        "a layout of {found} shards cannot follow one of {current}; shards are not split by a layout"
    )]
    Resized {
        /// The number found.
        found: usize,
        /// The number that counts.
        current: usize,
    },
}

/// Shard to voters, the preferred owner first. Whatever layout there is, it holds its invariants: a power of two of
/// shards, each with one to [`MAX_VOTERS`] different voters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    version: u64,
    shards: Vec<Vec<NodeId>>,
}

impl Layout {
    /// A layout; for a first one, version 1.
    ///
    /// # Errors
    /// What keeps it from being one.
    pub fn new(version: u64, shards: Vec<Vec<NodeId>>) -> Result<Layout, LayoutError> {
        if !shards.len().is_power_of_two() || shards.len() > MAX_SHARDS {
            return Err(LayoutError::Shards {
                found: shards.len(),
            });
        }
        for (voters, number) in shards.iter().zip(0..) {
            let shard = ShardId(number);
            if voters.is_empty() || voters.len() > MAX_VOTERS {
                return Err(LayoutError::Voters {
                    shard,
                    found: voters.len(),
                });
            }
            let mut seen = BTreeSet::new();
            if let Some(node) = voters.iter().find(|node| !seen.insert(**node)) {
                return Err(LayoutError::Twice { shard, node: *node });
            }
        }
        Ok(Layout { version, shards })
    }

    /// The layout of a cluster of one node.
    ///
    /// # Errors
    /// `shards` is not a power of two.
    pub fn alone(shards: u16, node: NodeId) -> Result<Layout, LayoutError> {
        Layout::new(1, vec![vec![node]; usize::from(shards)])
    }

    /// The layout that may replace this one: the next version, the same shards. The voters of a shard may all be others:
    /// a group is led there by adding them as learners, catching up and a joint majority of old and new, so that no step
    /// loses what a majority had.
    ///
    /// # Errors
    /// What keeps it from following.
    pub fn follow(&self, version: u64, shards: Vec<Vec<NodeId>>) -> Result<Layout, LayoutError> {
        if version != self.version + 1 {
            return Err(LayoutError::Version {
                found: version,
                current: self.version,
            });
        }
        if shards.len() != self.shards.len() {
            return Err(LayoutError::Resized {
                found: shards.len(),
                current: self.shards.len(),
            });
        }
        Layout::new(version, shards)
    }

    /// Its version, rising by one with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The number of shards.
    pub fn shards(&self) -> u16 {
        // At most MAX_SHARDS, which fits.
        self.shards.len() as u16
    }

    /// The voters of a shard, the preferred owner first; none for a shard that there is not.
    pub fn voters(&self, shard: ShardId) -> &[NodeId] {
        self.shards
            .get(usize::from(shard.0))
            .map_or(&[], Vec::as_slice)
    }

    /// The preferred owner of a shard.
    pub fn owner(&self, shard: ShardId) -> Option<NodeId> {
        self.voters(shard).first().copied()
    }

    /// The shards that a node votes for.
    pub fn shards_of(&self, node: NodeId) -> impl Iterator<Item = ShardId> + '_ {
        self.shards
            .iter()
            .zip(0..)
            .filter(move |(voters, _)| voters.contains(&node))
            .map(|(_, n)| ShardId(n))
    }

    /// Every node that votes for any shard.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.shards.iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Ring, RingNode, VIRTUAL_NODES};
    use proptest::prelude::*;

    #[test]
    fn what_cannot_be_a_layout_says_why() {
        let why = |shards| Layout::new(1, shards).expect_err("no layout").to_string();
        assert_eq!(
            why(vec![vec![1]; 3]),
            "a layout of 3 shards, expected a power of two, 1 to 32768"
        );
        assert_eq!(
            why(vec![]),
            "a layout of 0 shards, expected a power of two, 1 to 32768"
        );
        assert_eq!(
            why(vec![vec![1], vec![]]),
            "shard 1 has 0 voters, expected 1 to 7"
        );
        assert_eq!(
            why(vec![vec![1, 2, 1]]),
            "shard 0 names node 1 twice, expected each voter once"
        );
    }

    #[test]
    fn a_layout_follows_another_version_of_the_same_shards() {
        let first = Layout::new(1, vec![vec![1, 2, 3], vec![2, 3, 1]]).expect("a layout");
        let next = first
            .follow(2, vec![vec![1, 2, 4], vec![2, 3, 1]])
            .expect("one voter changed");
        assert_eq!(
            (
                next.version(),
                next.owner(ShardId(0)),
                next.owner(ShardId(9))
            ),
            (2, Some(1), None)
        );
        assert_eq!(next.shards_of(4).collect::<Vec<_>>(), [ShardId(0)]);
        assert_eq!(next.nodes(), BTreeSet::from([1, 2, 3, 4]));
        let why = |version, shards| {
            first
                .follow(version, shards)
                .expect_err("does not follow")
                .to_string()
        };
        assert_eq!(
            why(3, vec![]),
            "layout version 3 cannot follow 1, expected 2"
        );
        assert_eq!(
            why(2, vec![vec![1]; 4]),
            "a layout of 4 shards cannot follow one of 2; shards are not split by a layout"
        );
        assert_eq!(
            why(2, vec![vec![1, 4, 4], vec![2, 3, 1]]),
            "shard 0 names node 4 twice, expected each voter once"
        );
        let alone = Layout::alone(2, 1).expect("a layout");
        let moved = alone
            .follow(2, vec![vec![2], vec![3, 4, 5]])
            .expect("every voter changed");
        assert_eq!(moved.nodes(), BTreeSet::from([2, 3, 4, 5]));
    }

    proptest! {
        #[test]
        fn what_the_ring_proposes_is_a_layout(count in 1_u64..9, bits in 0_u32..9, zones in 1_u64..4) {
            let nodes: Vec<RingNode> =
                (1..=count).map(|id| RingNode { id, zone: format!("z{}", id % zones) }).collect();
            let layout = Layout::new(1, Ring::new(&nodes, VIRTUAL_NODES).propose(1 << bits, 3));
            let layout = layout.expect("a proposal holds the invariants");
            let held: usize = layout.nodes().into_iter().map(|node| layout.shards_of(node).count()).sum();
            prop_assert_eq!(held, usize::from(layout.shards()) * 3.min(count as usize));
        }
    }
}

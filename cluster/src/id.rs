//! Names of things: shards, groups, nodes, positions in a log.
//!
//! This module does not know what a customer is, nor where a shard lives.

use std::fmt;

/// A node of the cluster. Given once, never reused after its disk was wiped.
pub type NodeId = u64;

/// A slice of the key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}", self.0)
    }
}

/// A Raft group: the catalog, or the group of one shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

impl GroupId {
    /// The one group that is no shard's: definitions, versions, layout, nodes.
    pub const CATALOG: GroupId = GroupId(0);

    /// The group that replicates `shard`.
    pub fn of_shard(shard: ShardId) -> Self {
        GroupId(u64::from(shard.0) + 1)
    }

    /// The shard that this group replicates; `None` for the catalog and for numbers beyond the last possible shard.
    pub fn shard(self) -> Option<ShardId> {
        self.0
            .checked_sub(1)
            .and_then(|n| u16::try_from(n).ok())
            .map(ShardId)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard() {
            Some(shard) => shard.fmt(f),
            None if *self == GroupId::CATALOG => f.write_str("catalog"),
            None => write!(f, "group {}", self.0),
        }
    }
}

/// A place in the log of one group. Two positions of one group are the same entry exactly when they are equal.
///
/// Ordered by (term, node, index), which for committed entries of one group is the order of the log.
/// The very first entry of a group, its first membership, is at term 0, node 0, index 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The term in which the entry was proposed.
    pub term: u64,
    /// The node that led when the entry was proposed; one term may see two leaders.
    pub node: NodeId,
    /// The entry's place in the log, counted from 0.
    pub index: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.term, self.node, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_shards_name_each_other() {
        assert_eq!(GroupId::CATALOG.shard(), None);
        assert_eq!(GroupId::of_shard(ShardId(0)), GroupId(1));
        assert_eq!(
            GroupId::of_shard(ShardId(u16::MAX)).shard(),
            Some(ShardId(u16::MAX))
        );
        assert_eq!(GroupId(70_000).shard(), None);
        assert_eq!(GroupId(0).to_string(), "catalog");
        assert_eq!(GroupId(4).to_string(), "shard 3");
    }
}

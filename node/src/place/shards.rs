//! The replicas of shards that are open on this node, by number.
//!
//! It does not know which should be; the layout says so.

use crate::shard::owner::Shard;
use parking_lot::RwLock;
use sojourn_cluster::ring;
use std::sync::Arc;

/// The replicas on this node.
pub struct Shards {
    slots: RwLock<Vec<Option<Arc<Shard>>>>,
    count: u16,
}

impl Shards {
    /// None yet, of so many shards.
    pub fn new(count: u16) -> Shards {
        Shards {
            slots: RwLock::new(vec![None; usize::from(count)]),
            count,
        }
    }

    /// How many shards the cluster has.
    pub fn count(&self) -> u16 {
        self.count
    }

    /// The shard of a customer's hash.
    pub fn of(&self, hash: u64) -> u16 {
        ring::shard_of(hash, self.count).0
    }

    /// This node's replica of a shard, if it has one.
    pub fn local(&self, number: u16) -> Option<Arc<Shard>> {
        self.slots
            .read()
            .get(usize::from(number))
            .cloned()
            .flatten()
    }

    /// All replicas of this node, by number.
    pub fn all(&self) -> Vec<Arc<Shard>> {
        self.slots.read().iter().flatten().cloned().collect()
    }

    /// Adds a replica.
    pub fn put(&self, shard: Arc<Shard>) {
        if let Some(slot) = self.slots.write().get_mut(usize::from(shard.number)) {
            *slot = Some(shard);
        }
    }

    /// Takes a replica out.
    pub fn take(&self, number: u16) -> Option<Arc<Shard>> {
        self.slots.write().get_mut(usize::from(number))?.take()
    }
}

//! Worlds in which each group beside the catalog's is a real shard of the node: owner, proposer, actors, agenda, receipts and
//! history. Simulated are its clock, its history's disk, the endpoint, and the catalog, which arrives at each node at a time of
//! its own ([`publishing`]). Doors and routes are not in these worlds.

pub mod books;
mod clients;
pub mod journey;
pub mod judge;
pub mod outside;
mod publishing;
pub mod replica;

pub use publishing::Publishing;
pub use replica::{Common, Ground, Office, Watched};

use super::World;
use books::{Bounds, Finals};
use sojourn_cluster::GroupId;
use std::sync::Arc;

/// What operators and publishers draw follows from the seed xor this.
pub const HANDS: u64 = 0x4a4d_0001;
/// How often everybody is resumed when everything is mended: not every call finds the owner.
pub const RESUMES: u64 = 3;

impl World {
    /// Everybody of every shard, as its owner has them.
    pub(super) fn everybody(&self, common: &Common) -> Result<Finals, String> {
        let mut all = Finals::new();
        for group in &self.groups {
            let Some(shard) = self.owned_shard(*group) else {
                continue;
            };
            let customers = self.customers(self.now);
            let found = replica::everybody(&shard, *group, customers, &common.books);
            all.insert(*group, found.map_err(|why| format!("{group}: {why}"))?);
        }
        Ok(all)
    }

    fn owned_shard(&self, group: GroupId) -> Option<Arc<sojourn_node::shard::owner::Shard>> {
        let owner = self.nodes.get(&self.owner(group)?)?;
        Some(owner.replica(group)?.office()?.shard.clone())
    }

    /// What the checkers are told of this world.
    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            end: (
                self.now,
                replica::EPOCH + i64::try_from(self.now).unwrap_or(i64::MAX / 2),
            ),
            calm: self.plan.rough * 1_000,
            skew: self.plan.skew,
        }
    }

    /// What a shard has still to do: timers that were due some time ago, actions that are owed.
    pub(super) fn left_to_do(&self) -> Vec<String> {
        let Some(common) = &self.common else {
            return Vec::new();
        };
        let mut left = match self.everybody(common) {
            Ok(finals) => judge::left_to_do(&finals, &self.bounds()),
            Err(why) => vec![why],
        };
        let newest = self.newest_catalog();
        for group in &self.groups {
            let at = self.owned_shard(*group).map(|s| s.view().position);
            if at.is_some_and(|at| at != newest) {
                left.push(format!(
                    "{group} decides with catalog {at:?}, and {newest} is published"
                ));
            }
        }
        left
    }

    /// How many customers of each shard there may be by then: new ones come all the time.
    pub(super) fn customers(&self, now: u64) -> u64 {
        4 + now / 400_000
    }
}

//! Where the replicas of each shard are to be, and who is preferred as its owner.
//!
//! It begins with what is there and changes what must change. It does not know in which order that is done.

use super::level::{Loads, level};
use crate::id::{NodeId, ShardId};
use crate::layout::{Layout, MAX_VOTERS};
use crate::runtime::mix;
use std::collections::{BTreeMap, BTreeSet};

/// Replicas, shard by shard.
pub(super) struct Places<'a> {
    before: &'a Layout,
    /// The zone, as a number, of each node that may hold replicas.
    zones: BTreeMap<NodeId, usize>,
    replicas: usize,
    /// In how many zones each shard is to be.
    apart: usize,
    /// Shards that stay as they are.
    fixed: &'a BTreeSet<ShardId>,
    shards: Vec<Vec<NodeId>>,
    held: BTreeMap<NodeId, usize>,
}

/// The same for every planner, but different for each pair: who is first among equals.
fn dice(shard: usize, node: NodeId) -> u64 {
    mix(mix(shard as u64) ^ mix(!node))
}

impl<'a> Places<'a> {
    pub(super) fn new(
        before: &'a Layout,
        zones: &BTreeMap<NodeId, &str>,
        replicas: usize,
        fixed: &'a BTreeSet<ShardId>,
    ) -> Self {
        let there: BTreeSet<&str> = zones.values().copied().collect();
        let number = |zone: &str| there.range(..zone).count();
        let numbers = zones.iter().map(|(node, zone)| (*node, number(zone)));
        let mut places = Places {
            before,
            zones: numbers.collect(),
            replicas,
            apart: there.len().min(replicas),
            fixed,
            shards: Vec::new(),
            held: zones.keys().map(|node| (*node, 0)).collect(),
        };
        for shard in (0..before.shards()).map(ShardId) {
            let mut voters = before.voters(shard).to_vec();
            if !fixed.contains(&shard) {
                voters.retain(|voter| zones.contains_key(voter));
            }
            for voter in &voters {
                places.count(*voter, 1);
            }
            places.shards.push(voters);
        }
        places
    }

    /// Puts every replica where it is to be. Answers the voters of each shard, the preferred owner first.
    pub(super) fn settle(mut self) -> Vec<Vec<NodeId>> {
        for shard in 0..self.shards.len() {
            if !self.is_fixed(shard) {
                self.thin(shard);
                self.fill(shard);
                self.part(shard);
            }
        }
        level(&mut self);
        let mut owners = Owners::of(&self);
        level(&mut owners);
        let owners = owners.owners;
        let shards = owners.into_iter().enumerate();
        shards.map(|(n, owner)| self.in_order(n, owner)).collect()
    }

    fn is_fixed(&self, shard: usize) -> bool {
        self.fixed.contains(&id(shard))
    }

    fn count(&mut self, node: NodeId, by: isize) {
        if let Some(held) = self.held.get_mut(&node) {
            *held = held.saturating_add_signed(by);
        }
    }

    fn load(&self, node: NodeId) -> usize {
        self.held.get(&node).copied().unwrap_or(0)
    }

    /// In which zones these nodes are. A few at most, so that a list is faster than a set.
    fn zones_of<'n>(&self, nodes: impl Iterator<Item = &'n NodeId>) -> Vec<usize> {
        let mut zones = Vec::with_capacity(MAX_VOTERS);
        for zone in nodes.filter_map(|node| self.zones.get(node)) {
            if !zones.contains(zone) {
                zones.push(*zone);
            }
        }
        zones
    }

    /// Takes replicas away until there are not too many.
    fn thin(&mut self, shard: usize) {
        while self.shards[shard].len() > self.replicas {
            let voters = &self.shards[shard];
            let loss = |node: &NodeId| {
                let rest = self.zones_of(voters.iter().filter(|voter| *voter != node));
                // Who is in a zone alone stays, then the preferred owner, then who has less.
                let owns = voters.first() == Some(node);
                (rest.len(), !owns, self.load(*node), dice(shard, *node))
            };
            let Some(gone) = voters.iter().max_by_key(|node| loss(node)).copied() else {
                return;
            };
            self.shards[shard].retain(|voter| *voter != gone);
            self.count(gone, -1);
        }
    }

    /// Adds replicas until there are enough.
    fn fill(&mut self, shard: usize) {
        while self.shards[shard].len() < self.replicas {
            let voters = &self.shards[shard];
            let taken = self.zones_of(voters.iter());
            let wanted = taken.len() < self.apart;
            let free = self.zones.iter().filter(|(node, _)| !voters.contains(node));
            let best = free.min_by_key(|(node, zone)| {
                (
                    wanted && taken.contains(zone),
                    self.load(**node),
                    dice(shard, **node),
                )
            });
            let Some((added, _)) = best else { return };
            let added = *added;
            self.shards[shard].push(added);
            self.count(added, 1);
        }
    }

    /// Moves replicas that are together in a zone until there are as many zones as there can be.
    fn part(&mut self, shard: usize) {
        loop {
            let voters = &self.shards[shard];
            let taken = self.zones_of(voters.iter());
            if taken.len() >= self.apart {
                return;
            }
            let without = |node: &NodeId| self.zones_of(voters.iter().filter(|v| *v != node));
            let together = voters
                .iter()
                .filter(|node| without(node).len() == taken.len());
            let gone = together.max_by_key(|node| {
                (
                    voters.first() != Some(*node),
                    self.load(**node),
                    dice(shard, **node),
                )
            });
            let free = self.zones.iter().filter(|(_, zone)| !taken.contains(zone));
            let added = free.min_by_key(|(node, _)| (self.load(**node), dice(shard, **node)));
            let (Some(gone), Some((added, _))) = (gone.copied(), added) else {
                return;
            };
            if !self.hand_on(shard, gone, *added) {
                return;
            }
        }
    }

    /// The voters of a shard: the owner, then who stays in the order that they had, then who is new.
    fn in_order(&self, shard: usize, owner: NodeId) -> Vec<NodeId> {
        let before = self.before.voters(id(shard));
        let mut voters = self.shards[shard].clone();
        voters.sort_by_key(|node| {
            let place = before.iter().position(|voter| voter == node);
            (
                *node != owner,
                place.unwrap_or(usize::MAX),
                dice(shard, *node),
            )
        });
        voters
    }

    /// What a shard is without the replica of `from`.
    fn without(&self, shard: usize, from: NodeId) -> Rest<'_> {
        let voters = &self.shards[shard];
        let now = self.zones_of(voters.iter()).len();
        Rest {
            voters,
            zones: self.zones_of(voters.iter().filter(|voter| **voter != from)),
            apart: self.apart.min(now),
        }
    }
}

/// A shard without one of its replicas.
struct Rest<'a> {
    voters: &'a [NodeId],
    zones: Vec<usize>,
    /// In how many zones it must be with another.
    apart: usize,
}

impl Rest<'_> {
    /// Whether `to`, in `zone`, may have that replica.
    fn fits(&self, to: NodeId, zone: usize) -> bool {
        let apart = self.zones.len() + usize::from(!self.zones.contains(&zone));
        apart >= self.apart && !self.voters.contains(&to)
    }
}

fn id(shard: usize) -> ShardId {
    // A layout has at most MAX_SHARDS, which fits.
    ShardId(shard as u16)
}

impl Loads for Places<'_> {
    fn loads(&self) -> &BTreeMap<NodeId, usize> {
        &self.held
    }

    fn ways(&self, from: NodeId) -> BTreeMap<NodeId, usize> {
        let mut ways: BTreeMap<NodeId, (_, usize)> = BTreeMap::new();
        for (shard, voters) in self.shards.iter().enumerate() {
            if !voters.contains(&from) || self.is_fixed(shard) {
                continue;
            }
            let before = self.before.voters(id(shard));
            let rest = self.without(shard, from);
            for (to, _) in self
                .zones
                .iter()
                .filter(|(to, zone)| rest.fits(**to, **zone))
            {
                // What was only just put there, or was there before, costs nothing; an owner more than another.
                let cost = (
                    !before.contains(to) && before.contains(&from),
                    before.first() == Some(&from),
                    dice(shard, *to),
                );
                let best = ways.entry(*to).or_insert((cost, shard));
                if cost < best.0 {
                    *best = (cost, shard);
                }
            }
        }
        ways.into_iter()
            .map(|(to, (_, shard))| (to, shard))
            .collect()
    }

    fn hand_on(&mut self, shard: usize, from: NodeId, to: NodeId) -> bool {
        let fits = |zone: &usize| self.without(shard, from).fits(to, *zone);
        if !self.shards[shard].contains(&from) || !self.zones.get(&to).is_some_and(fits) {
            return false;
        }
        for voter in &mut self.shards[shard] {
            if *voter == from {
                *voter = to;
            }
        }
        self.count(from, -1);
        self.count(to, 1);
        true
    }
}

/// Preferred owners, shard by shard, among the voters.
struct Owners<'a> {
    places: &'a Places<'a>,
    owners: Vec<NodeId>,
    owned: BTreeMap<NodeId, usize>,
}

impl<'a> Owners<'a> {
    /// Who was preferred stays so, if it still can; else who has the fewest.
    fn of(places: &'a Places<'a>) -> Self {
        let before = (0..places.shards.len()).map(|shard| {
            let owner = places.before.owner(id(shard));
            owner.filter(|owner| places.shards[shard].contains(owner))
        });
        let before: Vec<Option<NodeId>> = before.collect();
        let mut owned: BTreeMap<NodeId, usize> =
            places.zones.keys().map(|node| (*node, 0)).collect();
        for owner in before.iter().flatten() {
            owned.entry(*owner).and_modify(|owned| *owned += 1);
        }
        let mut owners = Vec::with_capacity(before.len());
        for (shard, owner) in before.into_iter().enumerate() {
            let chosen = owner.or_else(|| {
                let load = |node: &&NodeId| (owned.get(*node).copied(), dice(shard, **node));
                places.shards[shard].iter().min_by_key(load).copied()
            });
            if let (None, Some(chosen)) = (owner, chosen) {
                owned.entry(chosen).and_modify(|owned| *owned += 1);
            }
            // A shard has a voter: there is an active node, and at least one replica.
            owners.push(chosen.unwrap_or_default());
        }
        Owners {
            places,
            owners,
            owned,
        }
    }
}

impl Loads for Owners<'_> {
    fn loads(&self) -> &BTreeMap<NodeId, usize> {
        &self.owned
    }

    fn ways(&self, from: NodeId) -> BTreeMap<NodeId, usize> {
        let mut ways: BTreeMap<NodeId, (_, usize)> = BTreeMap::new();
        for (shard, owner) in self.owners.iter().enumerate() {
            if *owner != from || self.places.is_fixed(shard) {
                continue;
            }
            let before = self.places.before.owner(id(shard));
            for to in self.places.shards[shard].iter().filter(|to| **to != from) {
                let cost = (before == Some(from), before != Some(*to), dice(shard, *to));
                let best = ways.entry(*to).or_insert((cost, shard));
                if cost < best.0 {
                    *best = (cost, shard);
                }
            }
        }
        ways.into_iter()
            .map(|(to, (_, shard))| (to, shard))
            .collect()
    }

    fn hand_on(&mut self, shard: usize, from: NodeId, to: NodeId) -> bool {
        if self.owners[shard] != from || !self.places.shards[shard].contains(&to) {
            return false;
        }
        self.owners[shard] = to;
        for (node, by) in [(from, -1), (to, 1)] {
            let owned = self.owned.entry(node);
            owned.and_modify(|owned| *owned = owned.saturating_add_signed(by));
        }
        true
    }
}

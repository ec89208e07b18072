//! Versions of the journey are published while the world goes on, and nodes learn of them one by one: who decides with an older
//! catalog than the shard has seen must find out by itself. How the catalog's group brings them to the nodes is not here.

use super::journey::VERSIONS;
use crate::world::{STEP, World};
use sojourn_cluster::NodeId;
use sojourn_cluster::sim::Dice;

/// How long it takes until a node has learnt of a version, at most, in microseconds.
const ARRIVES: u64 = 3_000_000;

/// What is published, and who will learn of it.
pub struct Publishing {
    dice: Dice,
    /// The newest version, counted from 0.
    newest: usize,
    /// When a node learns of a version.
    learns: Vec<(u64, NodeId, usize)>,
}

impl Publishing {
    /// Nothing is published yet, of the world of a seed.
    pub fn new(seed: u64) -> Publishing {
        Publishing {
            dice: Dice::new(seed ^ super::HANDS.rotate_left(13)),
            newest: 0,
            learns: Vec::new(),
        }
    }
}

impl World {
    /// One step of the rough part: perhaps something is published.
    pub(in crate::world) fn publish(&mut self) {
        let rate = self.plan.publishes;
        if rate == 0 || self.publishing.newest + 1 == VERSIONS {
            return;
        }
        if self.publishing.dice.below(rate * 1_000) < STEP {
            self.publishing.newest += 1;
            self.count("published");
            for id in 1..=self.plan.nodes {
                self.tell(id);
            }
        }
    }

    /// A node will learn what is newest now. One that has just started knows the first version only: that is harsher than it
    /// is, for a node finds on its disk most of what it knew.
    pub(in crate::world) fn tell(&mut self, node: NodeId) {
        if self.publishing.newest > 0 {
            let at = self.now + self.publishing.dice.below(ARRIVES);
            self.publishing
                .learns
                .push((at, node, self.publishing.newest));
        }
    }

    /// What has arrived at nodes that run is known there.
    pub(in crate::world) fn learn(&mut self) {
        let Some(common) = &self.common else { return };
        let (now, views) = (self.now, &common.views);
        let learns = std::mem::take(&mut self.publishing.learns);
        for (at, id, version) in learns {
            let node = self.nodes.get(&id).filter(|node| node.runs());
            match (node, views.get(version)) {
                // it is told again when it starts
                (None, _) | (_, None) => {}
                // one that stands still learns of it when it goes on
                (Some(node), Some(view)) if at <= now && node.stands_until.is_none() => {
                    node.learn(view);
                }
                _ => self.publishing.learns.push((at, id, version)),
            }
        }
    }

    /// The position of the newest catalog.
    pub(in crate::world) fn newest_catalog(&self) -> u64 {
        self.publishing.newest as u64 + 1
    }
}

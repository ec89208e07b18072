//! What goes wrong in the rough part of a world, and when it ends again.

use super::World;
use super::seed::Rate;
use super::{STEP, node::Node};
use anyhow::Result;
use sojourn_cluster::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// What is wrong now.
#[derive(Default)]
pub(super) struct Nemesis {
    /// Nodes without power, and when they start again.
    down: Vec<(u64, NodeId)>,
    cut_until: Option<u64>,
    stores_until: Option<u64>,
}

impl World {
    fn happens(&mut self, rate: Rate) -> bool {
        rate > 0 && self.dice.below(rate * 1_000) < STEP
    }

    fn some_node(&mut self) -> NodeId {
        1 + self.dice.below(self.plan.nodes)
    }

    /// One step of what goes wrong.
    pub(super) fn go_wrong(&mut self) -> Result<()> {
        let now = self.now;
        let (back, down) = std::mem::take(&mut self.nemesis.down)
            .into_iter()
            .partition::<Vec<_>, _>(|(until, _)| *until <= now);
        self.nemesis.down = down;
        for (_, id) in back {
            self.start(id)?;
        }
        self.restart_failed()?;
        if self.happens(self.plan.crashes) {
            let id = self.some_node();
            let crash = self.nodes.get_mut(&id).filter(|node| node.runs());
            if let Some(node) = crash {
                node.crash(&mut self.dice);
                let away = [50, 500, 3_000][self.dice.below(3) as usize] * 1_000;
                let until = now + 1 + self.dice.below(away);
                self.nemesis.down.push((until, id));
                self.count("power cut");
            }
        }
        if self.happens(self.plan.stands) {
            let id = self.some_node();
            let until = now + 200_000 + self.dice.below(4_000_000);
            let stand = self
                .nodes
                .get_mut(&id)
                .filter(|node| node.runs() && node.stands_until.is_none());
            if let Some(node) = stand {
                node.stands_until = Some(until);
                self.count("stood still");
            }
        }
        if self.nemesis.cut_until.is_some_and(|until| until <= now) {
            self.nemesis.cut_until = None;
            self.net.set_cut(BTreeSet::new());
        }
        if self.nemesis.cut_until.is_none() && self.happens(self.plan.cuts) {
            let cut = self.some_cut();
            self.net.set_cut(cut);
            self.nemesis.cut_until = Some(now + 300_000 + self.dice.below(6_000_000));
            self.count("wires cut");
        }
        if self.happens(self.plan.disks) {
            let (id, after) = (self.some_node(), self.dice.below(30));
            if let Some(node) = self.nodes.get(&id) {
                node.fail_log(after);
                self.count("log refused");
            }
        }
        if self.happens(self.plan.histories) {
            let (id, after) = (self.some_node(), self.dice.below(40));
            if let Some(node) = self.nodes.get(&id) {
                node.fail_history(after);
                self.count("history refused");
            }
        }
        if self.nemesis.stores_until.is_some_and(|until| until <= now) {
            self.nemesis.stores_until = None;
            self.nodes.values().for_each(|n| n.fail_checkpoints(None));
        }
        if self.nemesis.stores_until.is_none() && self.happens(self.plan.stores) {
            let (id, after) = (self.some_node(), self.dice.below(20));
            if let Some(node) = self.nodes.get(&id) {
                node.fail_checkpoints(Some(after));
            }
            self.nemesis.stores_until = Some(now + self.dice.below(3_000_000));
            self.count("checkpoints refused");
        }
        if self.happens(self.plan.transfers) {
            self.transfer();
        }
        if self.happens(self.plan.moves) {
            self.begin_move();
        }
        self.publish();
        Ok(())
    }

    /// Which ways are cut: a split, one node alone, one direction only, or a bridge of one node between two halves.
    fn some_cut(&mut self) -> BTreeSet<(NodeId, NodeId)> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let kind = self.dice.below(4);
        let one = self.some_node();
        let other = self.some_node();
        let left: BTreeSet<NodeId> = ids
            .iter()
            .filter(|_| self.dice.once_in(2))
            .copied()
            .collect();
        let mut cut = BTreeSet::new();
        for from in &ids {
            for to in &ids {
                let apart = match kind {
                    0 => left.contains(from) != left.contains(to),
                    1 => (*from == one) != (*to == one),
                    2 => *from == one && *to != one,
                    _ => {
                        let bridge = *from == other || *to == other;
                        !bridge && left.contains(from) != left.contains(to)
                    }
                };
                if apart {
                    cut.insert((*from, *to));
                }
            }
        }
        cut
    }

    /// An owner is asked to hand over to some other node, whether that makes sense or not.
    fn transfer(&mut self) {
        let group = self.groups[self.dice.below(self.groups.len() as u64) as usize];
        let heir = self.some_node();
        let Some(owner) = self.owner(group) else {
            return;
        };
        let within = Duration::from_millis(200 + self.dice.below(3_000));
        let owner = self.nodes.get(&owner);
        let replica = owner.and_then(|n: &Node| Some((n, n.replica(group)?)));
        if let Some((node, replica)) = replica {
            node.spawn(async move {
                // refused, late or done: all the same to the world
                drop(
                    replica
                        .group
                        .transfer_to(heir, Instant::now() + within)
                        .await,
                );
            });
            self.count("handed over");
        }
    }
}

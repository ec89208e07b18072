//! Changes of members: a voter of a group is replaced by a node that holds nothing of it, step by step, each asked of
//! whoever owns the group then. As the executor of a change does it, a node forgets its replica only when the group has
//! settled without it.

use super::World;
use super::node::{Node, Part};
use parking_lot::Mutex;
use sojourn_cluster::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long one step may take.
const WITHIN: Duration = Duration::from_secs(3);
/// How long it is waited between two looks, in microseconds.
const LOOK: u64 = 100_000;

/// The changes that are under way, one in each group at most.
#[derive(Default)]
pub(super) struct Moves {
    under_way: BTreeMap<GroupId, Move>,
}

struct Move {
    /// The voters that there will be.
    wanted: BTreeSet<NodeId>,
    /// Who was added for it.
    newcomer: NodeId,
    /// The newcomer has caught up, as an owner said.
    ready: Arc<Mutex<bool>>,
    /// An owner that had made the change has confirmed that it still owned: the change is committed.
    confirmed: Arc<Mutex<bool>>,
    /// A step is under way on this node, in this life of it.
    asked: Option<(NodeId, Option<u64>, Arc<Mutex<bool>>)>,
    look_at: u64,
}

impl World {
    /// Begins to replace a voter, if a node is free for it.
    pub(super) fn begin_move(&mut self) {
        let group = self.groups[self.dice.below(self.groups.len() as u64) as usize];
        let newcomer = self.some_spare(group);
        let (Some(newcomer), Some(owner)) = (newcomer, self.owner(group)) else {
            return;
        };
        if self.moves.under_way.contains_key(&group) {
            return;
        }
        let owner = self.nodes.get(&owner).and_then(|n: &Node| n.replica(group));
        let Some(members) = owner.map(|r| r.group.members()) else {
            return;
        };
        if members.changing || !members.learners.is_empty() {
            return;
        }
        let leaves = self.dice.below(members.voters.len() as u64) as usize;
        let mut wanted = members.voters.clone();
        if let Some(leaves) = members.voters.iter().nth(leaves) {
            wanted.remove(leaves);
        }
        wanted.insert(newcomer);
        let node = self.nodes.get_mut(&newcomer);
        if let Some(node) = node {
            node.parts.insert(group, Part::Joins);
            node.take_part(group);
        }
        let begun = Move {
            wanted,
            newcomer,
            ready: Arc::default(),
            confirmed: Arc::default(),
            asked: None,
            look_at: self.now,
        };
        self.moves.under_way.insert(group, begun);
        self.count("voter replaced");
    }

    fn some_spare(&mut self, group: GroupId) -> Option<NodeId> {
        let spare: Vec<NodeId> = self
            .nodes
            .values_mut()
            .filter_map(|n| n.is_spare(group).then_some(n.id))
            .collect();
        let at = self.dice.below(spare.len() as u64) as usize;
        spare.get(at).copied()
    }

    /// One look at every change that is under way.
    pub(super) fn moves_step(&mut self) {
        let groups: Vec<GroupId> = self.moves.under_way.keys().copied().collect();
        for group in groups {
            let Some(mut change) = self.moves.under_way.remove(&group) else {
                continue;
            };
            if !self.move_on(group, &mut change) {
                self.moves.under_way.insert(group, change);
            }
        }
    }

    /// Says whether the change has ended.
    fn move_on(&mut self, group: GroupId, change: &mut Move) -> bool {
        if let Some((node, life, over)) = &change.asked {
            let now = self.nodes.get(node).and_then(Node::life);
            if now.is_some() && now == *life && !*over.lock() {
                return false;
            }
            change.asked = None;
        }
        if self.now < change.look_at {
            return false;
        }
        change.look_at = self.now + LOOK;
        let Some(owner) = self.owner(group) else {
            return false;
        };
        let Some(node) = self.nodes.get(&owner) else {
            return false;
        };
        let Some(replica) = node.replica(group) else {
            return false;
        };
        let members = replica.group.members();
        let is_learner = members.learners.contains(&change.newcomer);
        if members.voters == change.wanted && members.learners.is_empty() && !members.changing {
            return self.let_go(group, change, owner);
        }
        let over = Arc::new(Mutex::new(false));
        change.asked = Some((owner, node.life(), over.clone()));
        let (wanted, newcomer) = (change.wanted.clone(), change.newcomer);
        let ready = change.ready.clone();
        let group = replica.group;
        node.spawn(async move {
            let until = Instant::now() + WITHIN;
            let voters = &members.voters;
            if members.changing {
                // between two sets: finished by the same wish
                drop(group.change_voters(wanted, until).await);
            } else if !voters.contains(&newcomer) && !is_learner {
                *ready.lock() = false;
                drop(group.add_learner(newcomer, until).await);
            } else if !voters.contains(&newcomer) && !*ready.lock() {
                *ready.lock() = group.caught_up(newcomer, until).await.is_ok();
            } else if *voters != wanted {
                drop(group.change_voters(wanted, until).await);
            } else if let Some(learner) = members.learners.iter().next() {
                drop(group.remove_learner(*learner, until).await);
            }
            *over.lock() = true;
        });
        false
    }

    /// Those who are not in the group any more forget it, once the owner has confirmed that.
    fn let_go(&mut self, group: GroupId, change: &mut Move, owner: NodeId) -> bool {
        let Some(node) = self.nodes.get(&owner) else {
            return false;
        };
        let Some(replica) = node.replica(group) else {
            return false;
        };
        if !*change.confirmed.lock() {
            let (over, confirmed) = (Arc::new(Mutex::new(false)), change.confirmed.clone());
            change.asked = Some((owner, node.life(), over.clone()));
            let wanted = change.wanted.clone();
            node.spawn(async move {
                let until = Instant::now() + WITHIN;
                if let Ok(applied) = replica.group.read_index(until).await {
                    // an owner knows of its members before that is committed: only what is applied is
                    let members = replica.group.members();
                    let settled = members.learners.is_empty() && !members.changing;
                    *confirmed.lock() =
                        settled && members.voters == wanted && members.at <= Some(applied);
                }
                *over.lock() = true;
            });
            return false;
        }
        let wanted = change.wanted.clone();
        let leaving: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|n| !wanted.contains(&n.id))
            .filter(|n| matches!(n.parts.get(&group), Some(Part::Begins(_) | Part::Joins)))
            .map(|n| n.id)
            .collect();
        for id in leaving {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.parts.insert(group, Part::Leaves);
                node.take_part(group);
            }
        }
        true
    }
}

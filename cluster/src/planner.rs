//! From the layout that counts to the one that should be: which replicas move where, and in which order.
//!
//! Pure: the same layout, nodes and wishes give the same plan everywhere. It does not know how a move is made, what it
//! costs, nor how far an earlier plan has come: whoever carries a plan out asks for another when something has changed.

mod level;
mod order;
mod places;

use self::places::Places;
use crate::id::{NodeId, ShardId};
use crate::layout::{Layout, LayoutError, MAX_VOTERS};
use std::collections::{BTreeMap, BTreeSet};

/// What a node may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It holds replicas and may be given more.
    Active,
    /// It is known, but not ready to hold replicas.
    Joining,
    /// It works, and is to be left by all its replicas.
    Draining,
    /// It does not come back; its replicas are to be made anew elsewhere.
    Dead,
}

/// A node as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanNode {
    /// Which.
    pub id: NodeId,
    /// What fails together: replicas of a shard are kept in different zones where there are enough.
    pub zone: String,
    /// Whether it may hold replicas.
    pub standing: Standing,
}

/// What a layout should be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Replicas of each shard, 1 to [`MAX_VOTERS`]; with fewer nodes that may hold them, as many as those. 3.
    pub replicas: usize,
}

impl Default for Wishes {
    fn default() -> Self {
        Wishes { replicas: 3 }
    }
}

/// What changes in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which shard.
    pub shard: ShardId,
    /// Who becomes a voter.
    pub add: Vec<NodeId>,
    /// Who is a voter no longer.
    pub remove: Vec<NodeId>,
    /// The voters afterwards, the preferred owner first. With nothing to add or remove, only their order changes.
    pub voters: Vec<NodeId>,
}

/// A shard that a plan leaves as it is, for it has lost its majority: without one its members cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Which shard.
    pub shard: ShardId,
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// Those of them that are dead.
    pub dead: Vec<NodeId>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The layout afterwards: the next version, or the current one when there is nothing to do.
    pub target: Layout,
    /// One for each shard that changes, in the order in which they should be begun: first where replicas are lacking,
    /// and always so that the nodes stay evenly loaded meanwhile.
    pub moves: Vec<Move>,
    /// Replicas of each shard afterwards; fewer than wished when there are not enough nodes.
    pub replicas: usize,
    /// What had to be left as it is.
    pub stuck: Vec<Stuck>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// The plan, if it leaves nothing as it is that should change.
    ///
    /// # Errors
    /// `MajorityLost`, for the first shard that is stuck.
    pub fn whole(self) -> Result<Plan, PlanError> {
        match self.stuck.first() {
            None => Ok(self),
            Some(stuck) => Err(PlanError::MajorityLost {
                shard: stuck.shard,
                voters: stuck.voters.clone(),
                dead: stuck.dead.clone(),
                shards: self.stuck.len(),
            }),
        }
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A number of replicas that cannot be.
    #[error("{found} replicas are wished, expected 1 to {MAX_VOTERS}")]
    Replicas {
        /// The number found.
        found: usize,
    },
    /// A node that is named twice.
    #[error("node {node} is named twice, expected each node once")]
    Twice {
        /// Who.
        node: NodeId,
    },
    /// A voter that is no node of the cluster.
    #[error(
        "{shard} names node {node}, which is not among the nodes {known:?}; name it too, as dead if it does not come back"
    )]
    Unknown {
        /// Where.
        shard: ShardId,
        /// Who.
        node: NodeId,
        /// The nodes that were given.
        known: Vec<NodeId>,
    },
    /// Nobody is left.
    #[error(
        "no node would be left that can hold replicas (draining: {draining:?}, dead: {dead:?}, joining: {joining:?}); add a node and let it become active first, or keep one of those that are draining"
    )]
    Nobody {
        /// The nodes that are draining.
        draining: Vec<NodeId>,
        /// Those that are dead.
        dead: Vec<NodeId>,
        /// Those that are joining.
        joining: Vec<NodeId>,
    },
    /// A shard's majority is dead.
    #[error(
        "nodes {dead:?} of the voters {voters:?} of {shard} are dead: without a majority its members cannot be changed{}; bring one of them back, or wait until their replicas are elsewhere before removing them", if *shards > 1 { format!(" ({shards} shards are so)") } else { String::new() }
    )]
    MajorityLost {
        /// The first such shard.
        shard: ShardId,
        /// Its voters.
        voters: Vec<NodeId>,
        /// Those of them that are dead.
        dead: Vec<NodeId>,
        /// How many shards there are like it.
        shards: usize,
    },
    /// The outcome is no layout.
    #[error("the plan is no layout: {0}")]
    Layout(LayoutError),
}

/// Plans the way from `current` to a layout in which only active nodes hold replicas, each shard has as many of them as
/// it can and is wished, in different zones where there are enough, and every node holds about as many replicas and is
/// the preferred owner of about as many shards as any other.
///
/// A node holds at least three quarters and at most five quarters of the average, rounded away from it; where zones or
/// stuck shards leave no choice, as close to that as they let it. A layout that is so is left as it is; one that is not
/// is made as even as it can be, with few moves. What follows a plan that was carried out is an empty plan.
///
/// Takes time in the number of shards times nodes for each replica that moves.
///
/// # Errors
/// What keeps it from being planned; see [`PlanError`]. A shard that has lost its majority is no error: see
/// [`Plan::stuck`] and [`Plan::whole`].
pub fn plan(current: &Layout, nodes: &[PlanNode], wishes: Wishes) -> Result<Plan, PlanError> {
    if !(1..=MAX_VOTERS).contains(&wishes.replicas) {
        return Err(PlanError::Replicas {
            found: wishes.replicas,
        });
    }
    let mut known: BTreeMap<NodeId, &PlanNode> = BTreeMap::new();
    for node in nodes {
        if known.insert(node.id, node).is_some() {
            return Err(PlanError::Twice { node: node.id });
        }
    }
    let shards = || (0..current.shards()).map(ShardId);
    for shard in shards() {
        let strange = current
            .voters(shard)
            .iter()
            .find(|v| !known.contains_key(v));
        if let Some(node) = strange {
            return Err(PlanError::Unknown {
                shard,
                node: *node,
                known: known.into_keys().collect(),
            });
        }
    }
    let of = |standing: Standing| -> Vec<NodeId> {
        let nodes = known.values().filter(|node| node.standing == standing);
        nodes.map(|node| node.id).collect()
    };
    let active = of(Standing::Active);
    if active.is_empty() {
        return Err(PlanError::Nobody {
            draining: of(Standing::Draining),
            dead: of(Standing::Dead),
            joining: of(Standing::Joining),
        });
    }
    let replicas = wishes.replicas.min(active.len());
    let dead: BTreeSet<NodeId> = of(Standing::Dead).into_iter().collect();
    let stuck: Vec<Stuck> = shards()
        .filter_map(|shard| stuck(shard, current.voters(shard), &dead))
        .collect();
    let fixed: BTreeSet<ShardId> = stuck.iter().map(|stuck| stuck.shard).collect();
    let zones = active.iter().filter_map(|id| known.get(id));
    let zones: BTreeMap<NodeId, &str> = zones.map(|node| (node.id, node.zone.as_str())).collect();
    let voters = Places::new(current, &zones, replicas, &fixed).settle();
    let moves = order::moves(current, &voters, &dead, &zones, replicas);
    let target = if moves.is_empty() {
        current.clone()
    } else {
        let next = current.follow(current.version() + 1, voters);
        next.map_err(PlanError::Layout)?
    };
    Ok(Plan {
        target,
        moves,
        replicas,
        stuck,
    })
}

/// The shard, if no majority of its voters lives.
fn stuck(shard: ShardId, voters: &[NodeId], dead: &BTreeSet<NodeId>) -> Option<Stuck> {
    let gone: Vec<NodeId> = voters
        .iter()
        .filter(|v| dead.contains(v))
        .copied()
        .collect();
    (gone.len() * 2 >= voters.len()).then(|| Stuck {
        shard,
        voters: voters.to_vec(),
        dead: gone,
    })
}

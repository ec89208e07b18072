//! What a change would be: from the nodes that the catalog knows and what is wished, to the layout that follows.
//!
//! Pure but for what it is told of who can be reached. It carries nothing out.

use crate::catalog::ClusterState;
use crate::catalog::cluster::{layout_to_stored, state_of};
use sojourn_cluster::layout::Layout;
use sojourn_cluster::planner::{self, Move, Plan, PlanNode, Standing, Wishes};
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::{stored, v1};
use std::collections::{BTreeMap, BTreeSet};
use v1::wish::Wish as Kind;

/// With fewer replicas than this, a node cannot be away without its shards standing still.
const FEW: usize = 3;

/// A change that makes sense.
pub struct Planned {
    /// The layout now.
    pub before: Layout,
    /// What is to be done.
    pub plan: Plan,
    /// Nodes whose state changes with it.
    pub nodes: Vec<stored::NodeStateChange>,
}

impl Planned {
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.plan.is_empty() && self.nodes.is_empty()
    }

    /// As the catalog is asked for it.
    pub fn begin(
        self,
        id: String,
        wishes: Vec<v1::Wish>,
        actor: String,
        reason: String,
    ) -> stored::BeginChange {
        let shards = self.plan.moves.iter().map(|m| m.shard.0.into()).collect();
        stored::BeginChange {
            change: Some(stored::ClusterChange {
                id,
                state: v1::ChangeState::Running as u32,
                wishes,
                actor,
                reason,
                shards,
                before: Some(layout_to_stored(&self.before)),
                ..Default::default()
            }),
            layout: Some(layout_to_stored(&self.plan.target)),
            nodes: self.nodes,
        }
    }
}

/// What is wished of each node that is named.
fn wished(
    cluster: &ClusterState,
    wishes: &[v1::Wish],
) -> Result<BTreeMap<NodeId, v1::NodeState>, String> {
    let mut wished = BTreeMap::new();
    for wish in wishes {
        let (node, state) = match wish.wish {
            Some(Kind::Drain(node)) => (node, v1::NodeState::Draining),
            Some(Kind::Remove(node)) => (node, v1::NodeState::Removed),
            Some(Kind::Activate(node)) => (node, v1::NodeState::Active),
            None => return Err("a wish is empty: expected drain, remove or activate".into()),
        };
        let known = cluster
            .nodes
            .get(&node)
            .filter(|n| state_of(n) != v1::NodeState::Removed);
        let Some(known) = known else {
            let there: Vec<NodeId> = cluster.present().map(|n| n.id).collect();
            return Err(match cluster.nodes.contains_key(&node) {
                true => format!("node {node} was removed already; the nodes are {there:?}"),
                false => format!("there is no node {node}; the nodes are {there:?}"),
            });
        };
        if state_of(known) == v1::NodeState::Joining && state != v1::NodeState::Removed {
            return Err(format!(
                "node {node} is still joining: wait until it is active, or remove it"
            ));
        }
        if wished
            .insert(node, state)
            .is_some_and(|before| before != state)
        {
            return Err(format!(
                "two things are wished of node {node}: expected one"
            ));
        }
    }
    Ok(wished)
}

/// Plans what is wished. `away`: nodes that cannot be reached now, with why. `catalog`: the voters of the catalog.
///
/// # Errors
/// A text: what is wrong with the wish and what to do instead.
pub fn plan(
    cluster: &ClusterState,
    wishes: &[v1::Wish],
    away: &BTreeMap<NodeId, String>,
    catalog: &BTreeSet<NodeId>,
) -> Result<Planned, String> {
    let wished = wished(cluster, wishes)?;
    let before = cluster.layout()?;
    let votes = before.nodes();
    let nodes: Vec<PlanNode> = cluster
        .nodes
        .values()
        .filter_map(|node| {
            let state = wished
                .get(&node.id)
                .copied()
                .unwrap_or_else(|| state_of(node));
            let standing = match state {
                v1::NodeState::Active => Standing::Active,
                v1::NodeState::Joining => Standing::Joining,
                v1::NodeState::Draining => Standing::Draining,
                // one that lives may be removed too: then it is left before it is gone
                v1::NodeState::Removed if !votes.contains(&node.id) => return None,
                v1::NodeState::Removed if away.contains_key(&node.id) => Standing::Dead,
                v1::NodeState::Removed | v1::NodeState::Unspecified => Standing::Draining,
            };
            Some(PlanNode {
                id: node.id,
                zone: node.zone.clone(),
                standing,
            })
        })
        .collect();
    let plan = planner::plan(&before, &nodes, Wishes::default())
        .and_then(Plan::whole)
        .map_err(|e| e.to_string())?;
    if let Some(why) = has_no_majority(&before, &plan.moves, away) {
        return Err(why);
    }
    if let Some(why) = loses_too_much(&before, &plan.moves) {
        return Err(why);
    }
    if let Some((node, why)) = gets_some(&plan.moves, away) {
        return Err(format!(
            "node {node} would be given replicas and cannot be reached ({why}); start it, or remove it"
        ));
    }
    let nodes = wished
        .into_iter()
        .filter(|(node, state)| {
            cluster
                .nodes
                .get(node)
                .is_some_and(|n| state_of(n) != *state)
        })
        .map(|(node, state)| {
            let votes = votes.contains(&node) || catalog.contains(&node);
            let state = match state {
                // it is left first, by the catalog too, and is gone when the change has ended
                v1::NodeState::Removed if votes => v1::NodeState::Draining,
                state => state,
            };
            stored::NodeStateChange {
                node,
                state: state as u32,
            }
        })
        .collect();
    Ok(Planned {
        before,
        plan,
        nodes,
    })
}

/// A shard that would lose half of its voters or more at once, and be left with fewer by more than one: what is left
/// has to stand for all of them from one step to the next, and nobody has looked at it in between.
fn loses_too_much(before: &Layout, moves: &[Move]) -> Option<String> {
    moves.iter().find_map(|m| {
        let voters = before.voters(m.shard).len();
        let fewer = voters.saturating_sub(m.voters.len());
        (fewer > 1).then(|| {
            format!(
                "{} would have {} voters instead of {voters}: take nodes out one at a time, or add nodes first",
                m.shard,
                m.voters.len()
            )
        })
    })
}

/// What somebody should know of a plan before it is applied.
pub fn notes(planned: &Planned) -> Vec<String> {
    let least = |layout: &Layout| {
        let shards = 0..layout.shards();
        shards
            .map(|n| layout.voters(ShardId(n)).len())
            .min()
            .unwrap_or(0)
    };
    let (before, after) = (least(&planned.before), least(&planned.plan.target));
    let fewer = after < before && after < FEW;
    let mut notes = Vec::new();
    if fewer {
        notes.push(format!(
            "shards will have {after} replicas instead of {before}: {}",
            match after {
                1 => "a node that is lost takes its data along",
                _ => "while one of the two is away, its shards stand still",
            }
        ));
    }
    notes
}

/// A shard that would be changed and cannot agree on anything now.
fn has_no_majority(
    before: &Layout,
    moves: &[Move],
    away: &BTreeMap<NodeId, String>,
) -> Option<String> {
    moves.iter().find_map(|m| {
        let voters = before.voters(m.shard);
        let gone: Vec<NodeId> = voters.iter().filter(|v| away.contains_key(v)).copied().collect();
        (gone.len() * 2 >= voters.len()).then(|| {
            format!(
                "nodes {gone:?} of the voters {voters:?} of {} cannot be reached: without a majority its members cannot \
                 be changed; bring one of them back first",
                m.shard
            )
        })
    })
}

/// Why the catalog cannot be changed, if so many of its voters are away that the others are no majority.
pub fn catalog_lost(voters: &BTreeSet<NodeId>, away: &BTreeMap<NodeId, String>) -> Option<String> {
    let gone: Vec<NodeId> = voters
        .iter()
        .filter(|v| away.contains_key(v))
        .copied()
        .collect();
    (!gone.is_empty() && gone.len() * 2 >= voters.len()).then(|| {
        format!(
            "nodes {gone:?} of the voters {voters:?} of the catalog cannot be reached: without a majority of them nothing \
             can be changed; bring one of them back first"
        )
    })
}

fn gets_some<'a>(
    moves: &[Move],
    away: &'a BTreeMap<NodeId, String>,
) -> Option<(NodeId, &'a String)> {
    let given: BTreeSet<NodeId> = moves.iter().flat_map(|m| &m.add).copied().collect();
    given
        .into_iter()
        .find_map(|node| Some((node, away.get(&node)?)))
}

/// How many shards each node owns and holds by a layout.
pub fn loads(cluster: &ClusterState, layout: &Layout) -> Vec<v1::NodeLoad> {
    let mut loads: BTreeMap<NodeId, v1::NodeLoad> = cluster
        .present()
        .map(|node| {
            (
                node.id,
                v1::NodeLoad {
                    node: node.id,
                    ..Default::default()
                },
            )
        })
        .collect();
    for shard in 0..layout.shards() {
        for (place, voter) in layout.voters(ShardId(shard)).iter().enumerate() {
            let load = loads.entry(*voter).or_insert_with(|| v1::NodeLoad {
                node: *voter,
                ..Default::default()
            });
            load.replicas += 1;
            load.owns += u32::from(place == 0);
        }
    }
    loads.into_values().collect()
}

/// How many nodes vote in the catalog: an odd number, up to five, but all of two.
pub fn catalog_voters(nodes: usize) -> usize {
    match nodes {
        0..=2 => nodes,
        3 | 4 => 3,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(states: &[v1::NodeState], shards: &[&[NodeId]]) -> ClusterState {
        let node = |(id, state): (usize, &v1::NodeState)| {
            let id = id as NodeId + 1;
            let node = stored::CatalogNode {
                id,
                state: *state as u32,
                ..Default::default()
            };
            (id, node)
        };
        ClusterState {
            nodes: states.iter().enumerate().map(node).collect(),
            last_node: states.len() as NodeId,
            layout: Some(stored::Layout {
                version: 1,
                shards: shards
                    .iter()
                    .map(|voters| stored::ShardVoters {
                        voters: voters.to_vec(),
                    })
                    .collect(),
            }),
            ..Default::default()
        }
    }

    fn wish(kind: Kind) -> v1::Wish {
        v1::Wish { wish: Some(kind) }
    }

    #[test]
    fn what_cannot_be_wished_is_refused_with_what_to_do() {
        use v1::NodeState::{Active, Joining, Removed};
        let three = cluster(
            &[Active, Active, Active, Removed, Joining],
            &[&[1, 2, 3], &[2, 3, 1]],
        );
        let one = cluster(&[Active], &[&[1]]);
        let away = |nodes: &[NodeId]| -> BTreeMap<NodeId, String> {
            nodes.iter().map(|n| (*n, "no answer".to_owned())).collect()
        };
        let none = away(&[]);
        for (cluster, wishes, away, says) in [
            (
                &three,
                vec![wish(Kind::Drain(9))],
                &none,
                "there is no node 9; the nodes are [1, 2, 3, 5]",
            ),
            (
                &three,
                vec![wish(Kind::Drain(4))],
                &none,
                "node 4 was removed already",
            ),
            (
                &three,
                vec![wish(Kind::Activate(5))],
                &none,
                "still joining",
            ),
            (&three, vec![v1::Wish::default()], &none, "a wish is empty"),
            (
                &three,
                vec![wish(Kind::Drain(1)), wish(Kind::Remove(1))],
                &none,
                "two things are wished of node 1",
            ),
            (
                &one,
                vec![wish(Kind::Drain(1))],
                &none,
                "no node would be left",
            ),
            (
                &three,
                vec![wish(Kind::Remove(1)), wish(Kind::Remove(2))],
                &away(&[1, 2]),
                "without a majority",
            ),
            (
                &three,
                vec![wish(Kind::Drain(1))],
                &away(&[2, 3]),
                "without a majority",
            ),
            (
                &three,
                vec![wish(Kind::Remove(1)), wish(Kind::Remove(2))],
                &none,
                "one at a time, or add nodes first",
            ),
        ] {
            let found = plan(cluster, &wishes, away, &BTreeSet::from([1]))
                .err()
                .unwrap_or_default();
            assert!(found.contains(says), "{wishes:?}: {found:?}");
        }
    }

    #[test]
    fn a_node_that_is_removed_is_left_first_and_one_that_is_gone_at_once() {
        use v1::NodeState::Active;
        let four = cluster(&[Active; 4], &[&[1, 2, 3], &[2, 3, 4]]);
        let none = BTreeMap::new();
        let voters = BTreeSet::from([1, 2, 3]);
        let planned = plan(&four, &[wish(Kind::Remove(4))], &none, &voters).expect("a plan");
        assert_eq!(planned.nodes[0].state, v1::NodeState::Draining as u32);
        assert!(!planned.plan.target.nodes().contains(&4));
        let idle = cluster(&[Active; 4], &[&[1, 2, 3], &[2, 3, 1]]);
        let away = BTreeMap::from([(4, "no answer".to_owned())]);
        let planned = plan(&idle, &[wish(Kind::Remove(4))], &away, &voters).expect("a plan");
        assert_eq!(planned.nodes[0].state, v1::NodeState::Removed as u32);
        // one without shards may vote in the catalog, which needs it until it does not any more
        let two = cluster(&[Active; 2], &[&[1], &[1]]);
        let both = BTreeSet::from([1, 2]);
        let planned = plan(&two, &[wish(Kind::Remove(2))], &none, &both).expect("a plan");
        assert_eq!(planned.nodes[0].state, v1::NodeState::Draining as u32);
    }

    #[test]
    fn fewer_replicas_than_three_are_said() {
        use v1::NodeState::Active;
        let (none, voters) = (BTreeMap::new(), BTreeSet::from([1, 2, 3]));
        for (nodes, remove, expected) in [
            (4, 4, None),
            (3, 3, Some("2 replicas instead of 3")),
            (2, 2, Some("1 replicas instead of 2")),
        ] {
            let all: Vec<NodeId> = (1..=nodes.min(3)).collect();
            let states = vec![Active; usize::try_from(nodes).expect("few")];
            let cluster = cluster(&states, &[&all, &all]);
            let planned = plan(&cluster, &[wish(Kind::Remove(remove))], &none, &voters);
            let notes = notes(&planned.expect("a plan"));
            match expected {
                None => assert!(notes.is_empty(), "{notes:?}"),
                Some(says) => assert!(notes[0].contains(says), "{notes:?}"),
            }
        }
    }
}

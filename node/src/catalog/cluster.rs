//! Nodes, the layout and the change under way, as the catalog holds them.
//!
//! Applied on every replica: an entry that does not fit what was applied before it changes nothing and says so. It does
//! not know who can be reached, nor who really votes for what.

use sojourn_cluster::layout::Layout;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::{stored, v1};
use std::collections::{BTreeMap, BTreeSet};
use stored::change_progress::Progress;

/// Nodes, layout and change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterState {
    /// The log index of the last change of any of these.
    pub position: u64,
    /// Nodes by id, those that were removed too: no id is given twice.
    pub nodes: BTreeMap<NodeId, stored::CatalogNode>,
    /// The highest id that was ever given.
    pub last_node: NodeId,
    /// Which nodes vote for which shard: the intent.
    pub layout: Option<stored::Layout>,
    /// The change under way, or the last one.
    pub change: Option<stored::ClusterChange>,
}

fn voters_of(layout: &stored::Layout) -> Vec<Vec<NodeId>> {
    layout.shards.iter().map(|s| s.voters.clone()).collect()
}

/// A layout as it is stored.
pub fn layout_to_stored(layout: &Layout) -> stored::Layout {
    stored::Layout {
        version: layout.version(),
        shards: (0..layout.shards())
            .map(|n| stored::ShardVoters {
                voters: layout.voters(ShardId(n)).to_vec(),
            })
            .collect(),
    }
}

/// What state a node is in.
pub fn state_of(node: &stored::CatalogNode) -> v1::NodeState {
    v1::NodeState::try_from(node.state as i32).unwrap_or(v1::NodeState::Unspecified)
}

impl ClusterState {
    /// The layout that counts.
    ///
    /// # Errors
    /// It is none: a text.
    pub fn layout(&self) -> Result<Layout, String> {
        let stored = self.layout.as_ref().ok_or("there is no layout yet")?;
        Layout::new(stored.version, voters_of(stored)).map_err(|e| e.to_string())
    }

    /// Whether a change is running or paused.
    pub fn changing(&self) -> Option<&stored::ClusterChange> {
        let open = |c: &&stored::ClusterChange| {
            matches!(
                change_state(c),
                v1::ChangeState::Running | v1::ChangeState::Paused
            )
        };
        self.change.as_ref().filter(open)
    }

    /// Nodes that were not removed.
    pub fn present(&self) -> impl Iterator<Item = &stored::CatalogNode> {
        let removed = |n: &stored::CatalogNode| state_of(n) == v1::NodeState::Removed;
        self.nodes.values().filter(move |n| !removed(n))
    }

    pub(super) fn bootstrap(&mut self, index: u64, facts: &stored::Bootstrap) {
        // without one, the cluster is of before there were several nodes: its only node says where it is at its start
        if let Some(node) = facts.node.clone() {
            self.first(index, node, facts.shards);
        }
    }

    fn first(&mut self, index: u64, node: stored::CatalogNode, shards: u32) {
        let shards = shards.max(1) as usize;
        self.last_node = node.id;
        self.layout = Some(stored::Layout {
            version: 1,
            shards: vec![
                stored::ShardVoters {
                    voters: vec![node.id],
                };
                shards
            ],
        });
        self.nodes.insert(node.id, node);
        self.position = index;
    }

    pub(super) fn add(
        &mut self,
        index: u64,
        at: i64,
        mut node: stored::CatalogNode,
    ) -> Result<(), String> {
        if node.id <= self.last_node {
            return Err(format!(
                "node id {} was given before, the last was {}; ask again",
                node.id, self.last_node
            ));
        }
        // one that asked before and never came: its address tells
        let gone: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.peer == node.peer && state_of(n) == v1::NodeState::Joining)
            .map(|n| n.id)
            .collect();
        for id in gone {
            self.set_state(id, v1::NodeState::Removed as u32);
        }
        node.joined_at = at;
        self.last_node = node.id;
        self.nodes.insert(node.id, node);
        self.position = index;
        Ok(())
    }

    pub(super) fn update(
        &mut self,
        index: u64,
        node: stored::CatalogNode,
        shards: u32,
    ) -> Result<(), String> {
        if self.last_node == 0 {
            self.first(index, node, shards);
            return Ok(());
        }
        match self.nodes.get_mut(&node.id) {
            None => return Err(format!("there is no node {}", node.id)),
            Some(old) if state_of(old) == v1::NodeState::Removed => {
                return Err(format!(
                    "node {} was removed; it joins again under a new id, with an empty data folder",
                    node.id
                ));
            }
            Some(old) => {
                let (state, joined_at) = (old.state, old.joined_at);
                let joined = state_of(old) == v1::NodeState::Joining;
                *old = stored::CatalogNode {
                    state: if joined { node.state } else { state },
                    joined_at,
                    token: old.token.clone(),
                    ..node
                };
            }
        }
        self.position = index;
        Ok(())
    }

    pub(super) fn begin(
        &mut self,
        index: u64,
        at: i64,
        begin: stored::BeginChange,
    ) -> Result<(), String> {
        if let Some(open) = self.changing() {
            return Err(format!(
                "change {} is under way; wait for it, or cancel it",
                open.id
            ));
        }
        let (Some(mut change), Some(layout)) = (begin.change, begin.layout) else {
            return Err("the change names no layout".into());
        };
        // one that changes nodes only keeps the layout
        let now = self.layout.as_ref().map_or(0, |l| l.version);
        if layout.version != now && layout.version != now + 1 {
            return Err(format!(
                "layout version {} cannot follow {now}; plan again",
                layout.version
            ));
        }
        change.begun_at = at;
        change.layout = layout.version;
        self.layout = Some(layout);
        self.change = Some(change);
        self.set_states(&begin.nodes);
        self.position = index;
        Ok(())
    }

    pub(super) fn progress(
        &mut self,
        index: u64,
        at: i64,
        progress: stored::ChangeProgress,
    ) -> Result<(), String> {
        let stored::ChangeProgress {
            id,
            progress,
            note,
            layout,
            nodes,
            from,
        } = progress;
        if from != 0 && from != self.position {
            return Err(format!(
                "the cluster has changed since (position {}, found {from}); look again",
                self.position
            ));
        }
        let open = self.changing().is_some();
        let change = match self.change.as_mut() {
            Some(change) if change.id == id && open => change,
            Some(change) if change.id == id => return Err(format!("change {id} has ended")),
            _ => return Err(format!("change {id} is not under way")),
        };
        match progress {
            Some(Progress::Begun(step)) => {
                change.steps.retain(|s| s.shard != step.shard);
                change.steps.push(step);
            }
            Some(Progress::Moved(shard)) => {
                change.steps.retain(|s| s.shard != shard);
                let moved: BTreeSet<u32> = change.moved.iter().copied().chain([shard]).collect();
                change.moved = moved.into_iter().collect();
            }
            Some(Progress::State(state)) => {
                change.state = state;
                if !matches!(
                    change_state(change),
                    v1::ChangeState::Running | v1::ChangeState::Paused
                ) {
                    change.ended_at = at;
                    change.steps.clear();
                }
            }
            None => {}
        }
        change.note = note;
        if let Some(layout) = layout {
            self.layout = Some(layout);
        }
        self.set_states(&nodes);
        self.position = index;
        Ok(())
    }

    fn set_states(&mut self, changes: &[stored::NodeStateChange]) {
        for change in changes {
            self.set_state(change.node, change.state);
        }
    }

    fn set_state(&mut self, node: NodeId, state: u32) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.state = state;
        }
    }
}

/// What state a change is in.
pub fn change_state(change: &stored::ClusterChange) -> v1::ChangeState {
    v1::ChangeState::try_from(change.state as i32).unwrap_or(v1::ChangeState::Unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_that_was_made_from_something_older_does_not_count() {
        let layout = |version, node| stored::Layout {
            version,
            shards: vec![stored::ShardVoters { voters: vec![node] }],
        };
        let state = |state: v1::ChangeState| stored::ChangeProgress {
            id: "a".to_owned(),
            progress: Some(Progress::State(state as u32)),
            ..Default::default()
        };
        let mut cluster = ClusterState {
            layout: Some(layout(1, 1)),
            ..Default::default()
        };
        let change = stored::ClusterChange {
            id: "a".to_owned(),
            state: v1::ChangeState::Running as u32,
            ..Default::default()
        };
        let begin = stored::BeginChange {
            change: Some(change),
            layout: Some(layout(2, 2)),
            nodes: Vec::new(),
        };
        cluster.begin(5, 0, begin).expect("a change");
        cluster
            .progress(6, 0, state(v1::ChangeState::Paused))
            .expect("paused");
        let cancelled = |from| stored::ChangeProgress {
            layout: Some(layout(3, 1)),
            from,
            ..state(v1::ChangeState::Cancelled)
        };
        // somebody resumed it after the groups were looked at
        cluster
            .progress(7, 0, state(v1::ChangeState::Running))
            .expect("resumed");
        let refused = cluster.progress(8, 0, cancelled(6));
        assert!(refused.is_err_and(|why| why.contains("has changed since")));
        assert_eq!(cluster.layout, Some(layout(2, 2)));
        cluster.progress(9, 0, cancelled(7)).expect("cancelled");
        assert_eq!(cluster.layout, Some(layout(3, 1)));
        assert!(cluster.changing().is_none());
    }
}

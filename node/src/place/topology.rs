//! Who owns which shard, as far as this node knows: of its own replicas from their groups, of the others from what the
//! nodes say. A hint for doors; the owner itself refuses what is not its.

use super::shards::Shards;
use crate::catalog::ClusterState;
use crate::shard::owner::Shard;
use parking_lot::Mutex;
use sojourn_cluster::{GroupId, NodeId, Role, ShardId};
use sojourn_proto::cluster as wire;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// Where a shard is decided.
#[derive(Clone)]
pub enum Owner {
    /// On this node.
    Here(Arc<Shard>),
    /// On another node.
    There(NodeId),
    /// Nobody is known to own it now.
    Unknown,
}

/// What is known of another node.
#[derive(Clone, Debug)]
pub struct Heard {
    /// What it said last.
    pub status: Option<Arc<wire::StatusResponse>>,
    /// Why it cannot be asked, when it cannot.
    pub why: Option<String>,
    /// Since when it is so, one way or the other.
    pub since: Instant,
    /// Its clock against this node's, in microseconds: above 0, it is ahead.
    pub clock_offset: Option<i64>,
}

/// Who owns what.
pub struct Topology {
    /// This node.
    pub me: NodeId,
    shards: Arc<Shards>,
    cluster: watch::Receiver<Arc<ClusterState>>,
    heard: Mutex<BTreeMap<NodeId, Heard>>,
    version: watch::Sender<u64>,
    own: watch::Sender<u64>,
}

impl Topology {
    /// A node that has heard of nobody.
    pub fn new(
        me: NodeId,
        shards: Arc<Shards>,
        cluster: watch::Receiver<Arc<ClusterState>>,
    ) -> Topology {
        Topology {
            me,
            shards,
            cluster,
            heard: Mutex::default(),
            version: watch::channel(1).0,
            own: watch::channel(1).0,
        }
    }

    /// A number that rises whenever an owner, a node or the layout may have changed.
    pub fn version(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// A number that rises whenever what this node says of itself has changed. Nothing that it hears raises it: two nodes
    /// that answered each other's news with news would never stop.
    pub fn own_version(&self) -> watch::Receiver<u64> {
        self.own.subscribe()
    }

    /// Something has changed that this node has heard or been given.
    pub fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Something of this node itself has changed: whoever asks how it is gets an answer now.
    pub fn own_changed(&self) {
        self.own.send_modify(|version| *version += 1);
        self.changed();
    }

    /// Nodes, layout and change.
    pub fn cluster(&self) -> Arc<ClusterState> {
        self.cluster.borrow().clone()
    }

    /// Who owns a shard. What the own replica has heard counts, unless another node owns it in a later term: a replica that
    /// does not belong to its group any more, or not yet, hears of nobody.
    pub fn owner(&self, number: u16) -> Owner {
        let group = GroupId::of_shard(ShardId(number));
        if let Some(shard) = self.shards.local(number) {
            let role = shard.group.role().borrow().clone();
            match role {
                Role::Owner { .. } => return Owner::Here(shard),
                Role::Follower {
                    leader: Some(leader),
                } if leader != self.me => {
                    let later = self
                        .claim(group)
                        .filter(|(term, _)| *term > shard.group.term());
                    return Owner::There(later.map_or(leader, |(_, node)| node));
                }
                Role::Leading | Role::Follower { .. } | Role::Closed { .. } => {}
            }
        }
        self.claimed(group).map_or(Owner::Unknown, Owner::There)
    }

    /// The node that says that it owns a group, in the highest term.
    pub fn claimed(&self, group: GroupId) -> Option<NodeId> {
        self.claim(group).map(|(_, node)| node)
    }

    /// The same, with the term.
    fn claim(&self, group: GroupId) -> Option<(u64, NodeId)> {
        let heard = self.heard.lock();
        let claims = heard.iter().filter(|(_, h)| h.why.is_none());
        claims
            .filter_map(|(node, heard)| {
                let groups = &heard.status.as_ref()?.groups;
                let claim = groups
                    .iter()
                    .find(|g| g.group == group.0 && g.role == "owner")?;
                Some((claim.term, *node))
            })
            .max()
    }

    /// What is known of the other nodes.
    pub fn heard(&self) -> BTreeMap<NodeId, Heard> {
        self.heard.lock().clone()
    }

    /// A node has said how it is.
    pub fn hear(&self, node: NodeId, status: wire::StatusResponse, clock_offset: i64) {
        let mut heard = self.heard.lock();
        let old = heard.remove(&node);
        let news = old.as_ref().is_none_or(|old| {
            old.why.is_some() || old.status.as_ref().is_none_or(|old| differs(old, &status))
        });
        let back = old.as_ref().is_some_and(|old| old.why.is_some());
        let since = match old {
            Some(old) if old.why.is_none() => old.since,
            _ => Instant::now(),
        };
        heard.insert(
            node,
            Heard {
                status: Some(Arc::new(status)),
                why: None,
                since,
                clock_offset: Some(clock_offset),
            },
        );
        drop(heard);
        if back {
            tracing::info!(node, "the node can be reached again");
        }
        if news {
            self.changed();
        }
    }

    /// A node cannot be asked.
    pub fn lost(&self, node: NodeId, why: String) {
        let mut heard = self.heard.lock();
        let old = heard.remove(&node);
        let news = old.as_ref().is_none_or(|old| old.why.is_none());
        match &old {
            Some(old) if old.why.is_none() => {
                tracing::warn!(node, why, "the node cannot be reached");
            }
            None => tracing::info!(node, why, "the node cannot be reached yet"),
            Some(_) => {}
        }
        let since = match &old {
            Some(old) if old.why.is_some() => old.since,
            _ => Instant::now(),
        };
        heard.insert(
            node,
            Heard {
                status: old.and_then(|old| old.status),
                why: Some(why),
                since,
                clock_offset: None,
            },
        );
        drop(heard);
        if news {
            self.changed();
        }
    }

    /// A node is not a member any more.
    pub fn forget(&self, node: NodeId) {
        if self.heard.lock().remove(&node).is_some() {
            self.changed();
        }
    }
}

/// Whether anything is other than before that somebody may wait for. Clocks and positions always are.
fn differs(old: &wire::StatusResponse, new: &wire::StatusResponse) -> bool {
    let same = |(old, new): (&wire::GroupStatus, &wire::GroupStatus)| {
        let (applied, last) = (new.applied, new.last);
        let then = wire::GroupStatus {
            applied,
            last,
            ..old.clone()
        };
        then == *new
    };
    old.node != new.node
        || old.stopping != new.stopping
        || old.groups.len() != new.groups.len()
        || !old.groups.iter().zip(&new.groups).all(same)
}

//! Which node holds and owns what: joining ([`join`]), the replicas of this node ([`opener`], [`shards`]), what is known of
//! the others ([`hearing`], [`topology`]), what they ask ([`service`]); how the layout is changed ([`changes`], [`auto`]) and
//! made true ([`executor`], [`leaders`], [`voters`]) or given up ([`cancel`]).
//!
//! It does not know what a shard decides, nor how a request gets to its owner.

pub mod auto;
pub mod cancel;
pub mod changes;
pub mod executor;
pub mod hearing;
pub mod join;
pub mod leaders;
pub mod opener;
#[cfg(test)]
mod reopening;
pub mod service;
pub mod shards;
pub mod step;
pub mod topology;
pub mod verify;
pub mod voters;

use crate::catalog::Catalog;
use shards::Shards;
use sojourn_cluster::transport::peers::PeerTransport;
use sojourn_cluster::{GroupId, Host, NodeId, Role};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use topology::Topology;

/// What the parts of this module share.
pub struct Place {
    /// This node.
    pub me: NodeId,
    /// The cluster.
    pub cluster: String,
    /// Where the groups are.
    pub host: Arc<Host>,
    /// The way to the other nodes.
    pub transport: Arc<PeerTransport>,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// The replicas of this node.
    pub shards: Arc<Shards>,
    /// Who owns what.
    pub topology: Arc<Topology>,
    /// The node stops: it takes nothing new.
    pub stopping: CancellationToken,
    /// Whether this node may own anything now: not while its clock cannot be trusted.
    pub may_own: watch::Receiver<bool>,
}

impl Place {
    /// The node that owns the catalog, as far as is known.
    pub fn catalog_owner(&self) -> Option<NodeId> {
        match &*self.catalog.group().role().borrow() {
            Role::Owner { node, .. } => Some(*node),
            Role::Follower {
                leader: Some(leader),
            } => Some(*leader),
            Role::Leading | Role::Follower { leader: None } | Role::Closed { .. } => {
                self.topology.claimed(GroupId::CATALOG)
            }
        }
    }

    /// Tells of what changes on this node itself beside its shards, until it stops: who owns the catalog, and whether this
    /// node may own anything.
    pub async fn tell_own_changes(self: Arc<Place>) {
        let (mut role, mut may_own) = (self.catalog.group().role(), self.may_own.clone());
        loop {
            tokio::select! {
                changed = role.changed() => if changed.is_err() { return },
                changed = may_own.changed() => if changed.is_err() { return },
                () = self.stopping.cancelled() => return,
            }
            self.topology.own_changed();
        }
    }

    /// Whether this node owns the catalog.
    pub fn owns_catalog(&self) -> bool {
        matches!(&*self.catalog.group().role().borrow(), Role::Owner { .. })
    }
}

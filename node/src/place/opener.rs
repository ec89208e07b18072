//! Opens on this node the replicas that the layout names, and lets go of those that it does not name any more.
//!
//! It does not move anything: who votes in a group is changed by [`super::executor`], and this only sees that a replica is
//! there to be spoken to.

use super::shards::Shards;
use super::topology::Topology;
use crate::actors::Gauge;
use crate::actors::live::Live;
use crate::catalog::{Catalog, ClusterState};
use crate::hands::endpoints::Endpoints;
use crate::history::{Keep, Store};
use crate::node::NodeError;
use crate::shard::machine::ShardMachine;
use crate::shard::owner::{Parts, Shard};
use parking_lot::Mutex;
use ractor::ActorCell;
use sojourn_cluster::layout::Layout;
use sojourn_cluster::{Group, GroupId, Host, NodeId, ShardId, Source};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What could not be opened or let go is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);

/// What a replica is made with.
pub struct Opener {
    /// This node.
    pub me: NodeId,
    /// Where groups are opened.
    pub host: Arc<Host>,
    /// The node's history.
    pub history: Arc<Store>,
    /// How long receipts are kept.
    pub keep: Keep,
    /// The catalog.
    pub catalog: Arc<Catalog>,
    /// Where actions go.
    pub endpoints: Arc<Endpoints>,
    /// What is under way on the node.
    pub gauge: Arc<Gauge>,
    /// The root of the supervision tree.
    pub supervisor: ActorCell,
    /// The replicas.
    pub shards: Arc<Shards>,
    /// Who owns what.
    pub topology: Arc<Topology>,
    /// Whether this node may own anything now.
    pub may_own: watch::Receiver<bool>,
    /// The node stops.
    pub stop: CancellationToken,
    /// What runs a replica, until it is let go.
    pub running: Mutex<HashMap<u16, CancellationToken>>,
}

/// Whether a replica belongs on a node: the layout names it, or it is being moved away and has not been yet.
fn is_wanted(cluster: &ClusterState, layout: &Layout, shard: u16, me: NodeId) -> bool {
    layout.voters(ShardId(shard)).contains(&me)
        || cluster.changing().is_some_and(|change| {
            let shard = u32::from(shard);
            change.shards.contains(&shard) && !change.moved.contains(&shard)
        })
}

impl Opener {
    /// Opens every replica that the layout names for this node, side by side: a restart reads checkpoints and replays
    /// the log on all cores.
    ///
    /// # Errors
    /// One cannot be opened.
    pub async fn open_all(self: &Arc<Self>) -> Result<(), NodeError> {
        let cluster = self.topology.cluster();
        let layout = cluster.layout().map_err(NodeError::Other)?;
        for shard in self.history.half_forgotten()? {
            self.history.forget_shard(shard)?;
        }
        let stored = self.host.stored_groups();
        let mut opening = JoinSet::new();
        for number in 0..layout.shards() {
            let named = layout.voters(ShardId(number)).contains(&self.me);
            let there = stored.contains(&GroupId::of_shard(ShardId(number)));
            if named || (there && is_wanted(&cluster, &layout, number, self.me)) {
                let (opener, layout) = (self.clone(), layout.clone());
                opening.spawn(async move { opener.open(number, &layout).await });
            }
        }
        let mut replicas = Vec::new();
        while let Some(opened) = opening.join_next().await {
            replicas.push(opened.map_err(|e| NodeError::Other(e.to_string()))??);
        }
        replicas.sort_by_key(|shard| shard.number);
        for shard in replicas {
            self.run(shard);
        }
        Ok(())
    }

    /// Follows the layout until the node stops.
    pub async fn follow(self: Arc<Self>) {
        let mut cluster = self.catalog.cluster();
        loop {
            let now = cluster.borrow_and_update().clone();
            let mut again = false;
            match now.layout() {
                Ok(layout) => {
                    for number in 0..layout.shards() {
                        if let Err(error) = self.adjust(&now, &layout, number).await {
                            tracing::warn!(shard = number, %error, "a replica is not as the layout says; trying again");
                            again = true;
                        }
                    }
                }
                Err(why) => tracing::error!(why, "the layout cannot be followed"),
            }
            let next = async {
                if again {
                    // a file system that refuses, say, tells nobody when it does not any more
                    let _ = tokio::time::timeout(AGAIN, cluster.changed()).await;
                    true
                } else {
                    cluster.changed().await.is_ok()
                }
            };
            tokio::select! {
                more = next => if !more { return },
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn adjust(
        self: &Arc<Self>,
        cluster: &ClusterState,
        layout: &Layout,
        number: u16,
    ) -> Result<(), NodeError> {
        let named = layout.voters(ShardId(number)).contains(&self.me);
        let id = GroupId::of_shard(ShardId(number));
        match self.shards.local(number) {
            None if named => {
                let shard = self.open(number, layout).await?;
                self.run(shard);
                self.topology.own_changed();
            }
            Some(_) if !is_wanted(cluster, layout, number, self.me) => {
                tracing::info!(
                    shard = number,
                    "this node is no member any more; its replica is let go"
                );
                // doors do not find it any more, then it ends, then what it kept goes
                let shard = self.shards.take(number);
                self.topology.own_changed();
                if let Some(running) = self.running.lock().remove(&number) {
                    running.cancel();
                }
                drop(shard);
                self.forget(id, number).await?;
            }
            // a start that found it forgotten half-way
            None if self.host.stored_groups().contains(&id)
                && !is_wanted(cluster, layout, number, self.me) =>
            {
                self.forget(id, number).await?;
            }
            None | Some(_) => {}
        }
        Ok(())
    }

    async fn forget(&self, id: GroupId, number: u16) -> Result<(), NodeError> {
        let other = |e: &dyn std::fmt::Display| NodeError::Other(e.to_string());
        self.host.close_group(id).await.map_err(|e| other(&e))?;
        // history first: the log says that there is something to forget, should the node end in between
        let history = self.history.clone();
        let forgotten = tokio::task::spawn_blocking(move || history.forget_shard(number));
        let forgotten = forgotten.await.map_err(|e| other(&e))?;
        forgotten.map_err(NodeError::History)?;
        let forgotten = self.host.forget_group(id).await;
        forgotten.map_err(|e| other(&e))
    }

    /// Opens this node's replica of one shard: its checkpoint is read and its log replayed.
    async fn open(&self, number: u16, layout: &Layout) -> Result<Arc<Shard>, NodeError> {
        let machine = Arc::new(ShardMachine::new(number, self.history.clone(), self.keep));
        let id = GroupId::of_shard(ShardId(number));
        let voters = layout.voters(ShardId(number)).to_vec();
        // only the first layout begins groups: in every later one they exist, and this node is added to them
        let group = if layout.version() == 1 {
            self.host.open_group(id, machine.clone(), voters).await
        } else {
            let rank = voters.iter().position(|voter| *voter == self.me);
            let rank = rank.unwrap_or(voters.len());
            self.host.join_group(id, machine.clone(), rank).await
        };
        let group = group.map_err(NodeError::Open)?;
        told_of_rebuild(&group, self.history.mark(number)?.is_some());
        self.history.sound()?;
        Ok(Shard::new(Parts {
            machine,
            group,
            live: Arc::new(Live::new(self.gauge.clone())),
            catalog: self.catalog.clone(),
            endpoints: self.endpoints.clone(),
            supervisor: self.supervisor.clone(),
            shards: usize::from(layout.shards()),
            may_own: self.may_own.clone(),
        }))
    }

    fn run(&self, shard: Arc<Shard>) {
        let stop = self.stop.child_token();
        self.running.lock().insert(shard.number, stop.clone());
        self.shards.put(shard.clone());
        let (mut role, topology) = (shard.group.role(), self.topology.clone());
        let ended = stop.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = role.changed() => if changed.is_err() { return },
                    () = ended.cancelled() => return,
                }
                topology.own_changed();
            }
        });
        tokio::spawn(shard.run(stop));
    }
}

/// Says when a replica had to be made anew: nothing is lost, but somebody should ask why. `known`: history knows of a
/// checkpoint.
pub fn told_of_rebuild(group: &Group, known: bool) {
    let opened = group.opened();
    let from = match &opened.source {
        Source::History { .. } => "history",
        Source::Log if known => "the log",
        Source::Log | Source::Checkpoint { .. } => return,
    };
    tracing::warn!(
        group = %group.id(),
        why = opened.damage.as_deref().unwrap_or("its checkpoint is missing"),
        "the state was made anew from {from}; nothing is lost; look after the disk"
    );
}

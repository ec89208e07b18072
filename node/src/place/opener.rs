//! Opens on this node the replicas that the layout names, and lets go of those that it does not name any more.
//!
//! It does not move anything: who votes in a group is changed by [`super::executor`], and this only sees that a replica is
//! there to be spoken to.

use super::shards::Shards;
use super::topology::{Owner, Topology};
use crate::actors::Gauge;
use crate::actors::live::Live;
use crate::catalog::{Catalog, ClusterState};
use crate::hands::endpoints::Endpoints;
use crate::history::{Keep, Store};
use crate::node::NodeError;
use crate::shard::machine::ShardMachine;
use crate::shard::owner::{Parts, Shard};
use crate::shard::seams::Seams;
use parking_lot::Mutex;
use ractor::ActorCell;
use sojourn_cluster::layout::Layout;
use sojourn_cluster::transport::peers::PeerTransport;
use sojourn_cluster::{Group, GroupId, Host, NodeId, Role, ShardId, Source};
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the owner of a shard may take to say who belongs to it.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// What could not be opened or let go is tried again after this long.
const AGAIN: Duration = Duration::from_secs(1);
/// A replica that closes itself again and again is opened again no sooner than this after the last time: it may be damaged,
/// and its checkpoint is read each time.
const REOPEN_AFTER: Duration = Duration::from_secs(10);

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
    /// The way to the other nodes.
    pub transport: Arc<PeerTransport>,
    /// Replicas whose letting go has begun and not ended.
    pub leaving: Mutex<HashSet<u16>>,
    /// Replicas that closed themselves, and when they were opened again last.
    pub reopened: Mutex<HashMap<u16, Instant>>,
    /// A replica has closed itself.
    pub closed: Arc<Notify>,
}

/// Whether a replica belongs on a node: the layout names it, or it is being moved away and has not been yet.
fn is_wanted(cluster: &ClusterState, layout: &Layout, shard: u16, me: NodeId) -> bool {
    layout.voters(ShardId(shard)).contains(&me)
        || cluster.changing().is_some_and(|change| {
            let number = u32::from(shard);
            // one that the layout before did not name either is a stranger to this change
            let before = change.before.as_ref();
            let before = before.and_then(|l| l.shards.get(usize::from(shard)));
            change.shards.contains(&number)
                && !change.moved.contains(&number)
                && before.is_none_or(|shard| shard.voters.contains(&me))
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
        // what was being let go of when the process ended is ended first, whatever the layout says now
        for id in self.host.half_forgotten() {
            let Some(ShardId(number)) = id.shard() else {
                continue;
            };
            if let Err(error) = self.forget(id, number).await {
                tracing::warn!(shard = number, %error, "a replica could not be let go of; trying again");
                self.leaving.lock().insert(number);
            }
        }
        for shard in self.history.half_forgotten()? {
            self.history.forget_shard(shard)?;
        }
        let stored = self.host.stored_groups();
        let mut opening = JoinSet::new();
        for number in 0..layout.shards() {
            let named = layout.voters(ShardId(number)).contains(&self.me);
            // what is there may count in its group, whoever the layout names: it is let go when the group says so
            let there = stored.contains(&GroupId::of_shard(ShardId(number)));
            if (named || there) && !self.leaving.lock().contains(&number) {
                let (opener, layout) = (self.clone(), layout.clone());
                opening.spawn(async move {
                    match opener.open(number, &layout).await {
                        Err(error) if !named => {
                            tracing::warn!(shard = number, %error, "a replica that the layout does not name stays closed");
                            Ok(None)
                        }
                        opened => opened.map(Some),
                    }
                });
            }
        }
        let mut replicas = Vec::new();
        while let Some(opened) = opening.join_next().await {
            let opened = opened.map_err(|e| NodeError::Other(e.to_string()))??;
            replicas.extend(opened);
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
        let mut told: HashMap<u16, String> = HashMap::new();
        loop {
            let now = cluster.borrow_and_update().clone();
            match now.layout() {
                Ok(layout) => {
                    let named = |n: &u16| layout.voters(ShardId(*n)).contains(&self.me);
                    // what is to be opened is waited for by others; letting go asks them, and may take long
                    let (first, then): (Vec<u16>, Vec<u16>) = (0..layout.shards()).partition(named);
                    for number in first.into_iter().chain(then) {
                        if !named(&number) && cluster.has_changed().unwrap_or(true) {
                            break;
                        }
                        match self.adjust(&now, &layout, number).await {
                            Ok(()) => drop(told.remove(&number)),
                            Err(error) => {
                                let why = error.to_string();
                                if told.get(&number) != Some(&why) {
                                    tracing::warn!(
                                        shard = number,
                                        why,
                                        "a replica is not as the layout says; trying again"
                                    );
                                }
                                told.insert(number, why);
                            }
                        }
                    }
                }
                Err(why) => tracing::error!(why, "the layout cannot be followed"),
            }
            let next = async {
                if told.is_empty() {
                    cluster.changed().await.is_ok()
                } else {
                    // a file system that refuses, say, tells nobody when it does not any more
                    let _ = tokio::time::timeout(AGAIN, cluster.changed()).await;
                    true
                }
            };
            tokio::select! {
                more = next => if !more { return },
                () = self.closed.notified() => {}
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
        let wanted = is_wanted(cluster, layout, number, self.me);
        let id = GroupId::of_shard(ShardId(number));
        if self.leaving.lock().contains(&number) {
            self.end_leaving(id, number, wanted).await?;
        }
        let there = match self.shards.local(number) {
            None if named => {
                let shard = self.open(number, layout).await?;
                self.run(shard);
                self.topology.own_changed();
                return Ok(());
            }
            Some(shard) if wanted => return self.open_again(shard, layout).await,
            Some(_) => true,
            None => self.host.stored_groups().contains(&id),
        };
        if !there || wanted {
            return Ok(());
        }
        self.belongs_no_more(number)
            .await
            .map_err(NodeError::Other)?;
        tracing::info!(
            shard = number,
            "this node is no member any more; its replica is let go"
        );
        self.leaving.lock().insert(number);
        // doors do not find it any more, then it ends, then what it kept goes
        let shard = self.shards.take(number);
        self.topology.own_changed();
        if let Some(running) = self.running.lock().remove(&number) {
            running.cancel();
        }
        drop(shard);
        self.end_leaving(id, number, false).await
    }

    /// Opens a replica again that has closed itself; any other is left alone. A race in openraft can end a group's task while
    /// nothing is wrong with what it keeps, and a machine that could not apply may be able to after a new start.
    async fn open_again(&self, shard: Arc<Shard>, layout: &Layout) -> Result<(), NodeError> {
        let number = shard.number;
        let role = shard.group.role().borrow().clone();
        let Role::Closed { reason } = role else {
            return Ok(());
        };
        if self.stop.is_cancelled() || self.host.failed().borrow().is_some() {
            return Ok(()); // the node ends, and says why
        }
        let last = self.reopened.lock().get(&number).copied();
        if last.is_some_and(|last| last.elapsed() < REOPEN_AFTER) {
            return Err(NodeError::Other(format!(
                "it closed itself again: {reason}"
            )));
        }
        tracing::warn!(
            shard = number,
            reason,
            "a replica closed itself; opening it again"
        );
        self.reopened.lock().insert(number, Instant::now());
        if let Some(running) = self.running.lock().remove(&number) {
            running.cancel();
        }
        let closed = self.host.close_group(GroupId::of_shard(ShardId(number)));
        closed.await.map_err(|e| NodeError::Other(e.to_string()))?;
        if !self.stop.is_cancelled() {
            // it takes the place of the closed one, which stays there until then: what fails comes here again
            self.run(self.open(number, layout).await?);
            self.topology.own_changed();
        }
        Ok(())
    }

    /// Ends what letting go has begun; of a replica that is wanted again and still whole, only its closing.
    async fn end_leaving(&self, id: GroupId, number: u16, wanted: bool) -> Result<(), NodeError> {
        if wanted && !self.host.half_forgotten().contains(&id) {
            let closed = self.host.close_group(id).await;
            closed.map_err(|e| NodeError::Other(e.to_string()))?;
        } else {
            self.forget(id, number).await?;
        }
        self.leaving.lock().remove(&number);
        Ok(())
    }

    /// Whether the group of a shard does not count this node any more, asked of its owner. What the catalog says is the
    /// intent: a step that came late may have made this node a voter all the same, and a voter that forgets its log and
    /// its vote loses what was acknowledged with it.
    async fn belongs_no_more(&self, number: u16) -> Result<(), String> {
        let owner = match self.topology.owner(number) {
            Owner::There(owner) => owner,
            Owner::Here(_) => {
                return Err("this node owns it, and the layout does not name it".into());
            }
            Owner::Unknown => {
                return Err("nobody is known to own it who could say that it is not needed".into());
            }
        };
        let channel = self.transport.channel(owner).map_err(|e| e.to_string())?;
        let request = wire::MembersRequest {
            shard: number.into(),
        };
        let mut client = NodesClient::new(channel);
        let asked = tokio::time::timeout(ASK_WITHIN, client.members(request)).await;
        let members = asked
            .map_err(|_| format!("node {owner} does not answer"))?
            .map_err(|e| format!("node {owner}: {}", e.message()))?
            .into_inner();
        if members.not_owner {
            return Err(format!("node {owner} does not own it any more"));
        }
        if members.changing {
            return Err("its members are being changed".into());
        }
        if members.voters.contains(&self.me) || members.learners.contains(&self.me) {
            return Err(
                "its group counts this node still, though the layout does not name it".into(),
            );
        }
        Ok(())
    }

    async fn forget(&self, id: GroupId, number: u16) -> Result<(), NodeError> {
        let other = |e: &dyn std::fmt::Display| NodeError::Other(e.to_string());
        // the mark first: should the node end in between, nobody opens what is half there, and the next start goes on
        self.host.mark_forgotten(id).await.map_err(|e| other(&e))?;
        let history = self.history.clone();
        let forgotten = tokio::task::spawn_blocking(move || history.forget_shard(number));
        let forgotten = forgotten.await.map_err(|e| other(&e))?;
        forgotten.map_err(NodeError::History)?;
        let forgotten = self.host.forget_group(id).await;
        forgotten.map_err(|e| other(&e))
    }

    /// Opens this node's replica of one shard: its checkpoint is read and its log replayed.
    async fn open(&self, number: u16, layout: &Layout) -> Result<Arc<Shard>, NodeError> {
        let machine = Arc::new(ShardMachine::new(
            number,
            self.history.clone(),
            self.keep,
            Seams::real(),
        ));
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
            catalog: self.catalog.watch(),
            outside: self.endpoints.clone(),
            supervisor: self.supervisor.clone(),
            shards: usize::from(layout.shards()),
            may_own: self.may_own.clone(),
            deadline: crate::limits::DEADLINE,
        }))
    }

    fn run(&self, shard: Arc<Shard>) {
        let stop = self.stop.child_token();
        self.running.lock().insert(shard.number, stop.clone());
        self.shards.put(shard.clone());
        let (mut role, topology) = (shard.group.role(), self.topology.clone());
        let (ended, closed) = (stop.clone(), self.closed.clone());
        tokio::spawn(async move {
            loop {
                // it may have closed before anybody looked
                if matches!(&*role.borrow_and_update(), Role::Closed { .. }) {
                    closed.notify_one();
                }
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

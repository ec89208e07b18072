//! Opening a group: its state is taken back, its log replayed, and openraft begun on it.
//!
//! It does not know why a group is here; the layout says so.

use super::{Host, Opening};
use crate::error::OpenError;
use crate::group::{Group, GroupSettings, Request, windows};
use crate::id::{GroupId, NodeId};
use crate::log::MetaKey;
use crate::log::group::GroupLog;
use crate::machine::Machine;
use crate::network::Network;
use crate::replica::{Bounds, Replica, StateMachine};
use crate::snapshot::Pace;
use crate::types::Raft;
use openraft::SnapshotPolicy;
use openraft::error::{InitializeError, RaftError};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// For each rank, how long it is waited for the ones before to begin a new group.
const BEGIN_AFTER: Duration = Duration::from_secs(1);

impl Host {
    /// Opens a group, for the first time with `voters`, the preferred owner first. Answers when everything that is
    /// known to be committed is applied.
    ///
    /// A new group may be opened on all its voters, in any order and at the same time, if each is given the same ones. One
    /// that this node has forgotten is not new: it waits to be added, as with [`Host::join_group`].
    ///
    /// # Errors
    /// Damaged data; a machine that cannot take back its state or replay its log; a group that is open already, or being
    /// closed; one that is half forgotten; a host that has stopped.
    pub async fn open_group(
        &self,
        id: GroupId,
        machine: Arc<dyn Machine>,
        voters: Vec<NodeId>,
    ) -> Result<Group, OpenError> {
        let Some(rank) = voters
            .iter()
            .position(|voter| *voter == self.shared.cfg.node)
        else {
            return Err(OpenError::Config {
                name: "voters".to_owned(),
                why: format!("{voters:?} do not name this node, {}", self.shared.cfg.node),
            });
        };
        self.open_as(id, machine, rank, voters).await
    }

    /// Opens a group to which this node is to be added, or was: a new one is not begun, but waits to be added by its
    /// owner ([`Group::add_learner`]). `rank`: which place it has among the voters, the preferred owner first.
    ///
    /// # Errors
    /// As [`Host::open_group`].
    pub async fn join_group(
        &self,
        id: GroupId,
        machine: Arc<dyn Machine>,
        rank: usize,
    ) -> Result<Group, OpenError> {
        self.open_as(id, machine, rank, Vec::new()).await
    }

    /// `voters`: with whom a new group begins; empty, when it is not begun here.
    async fn open_as(
        &self,
        id: GroupId,
        machine: Arc<dyn Machine>,
        rank: usize,
        voters: Vec<NodeId>,
    ) -> Result<Group, OpenError> {
        if let Some(failure) = self.shared.failed.borrow().clone() {
            return Err(OpenError::Failed(failure));
        }
        // Let go of also when this future is dropped half-way.
        let Some(_opening) = Opening::of(&self.shared, id) else {
            return Err(OpenError::AlreadyOpen { group: id });
        };
        if self.shared.groups.lock().contains_key(&id) {
            return Err(OpenError::AlreadyOpen { group: id });
        }
        let group = self.try_open_group(id, machine, rank, voters).await?;
        self.shared.groups.lock().insert(id, group.clone());
        group.replica().go_live();
        Ok(group)
    }

    async fn try_open_group(
        &self,
        id: GroupId,
        machine: Arc<dyn Machine>,
        rank: usize,
        voters: Vec<NodeId>,
    ) -> Result<Group, OpenError> {
        let shared = &self.shared;
        let cfg = &shared.cfg;
        if shared.seams.log.meta(id, MetaKey::Forgetting).is_some() {
            return Err(OpenError::HalfForgotten { group: id });
        }
        let machine_error = |why: String| OpenError::Machine { group: id, why };
        let asked = Arc::new(AtomicBool::new(false));
        let ask = {
            let (asked, requests) = (asked.clone(), shared.requests.clone());
            Box::new(move || {
                if !asked.swap(true, Ordering::AcqRel) {
                    // Fails only when the host is gone, and then nobody makes checkpoints.
                    drop(requests.send(Request::Due(id)));
                }
            })
        };
        let give_up = {
            let writer = shared.writer.clone();
            Box::new(move |what: &str| writer.give_up(what))
        };
        let bounds = Bounds {
            log_bytes: cfg.checkpoint_log_bytes,
            waiting_bytes: cfg.checkpoint_waiting_bytes,
        };
        let running = shared.seams.running.clone();
        let store = shared.seams.checkpoints.clone();
        let replica = Arc::new(Replica::new(
            id,
            machine,
            store,
            running.clone(),
            bounds,
            ask,
            give_up,
        ));
        let (writer, cache_bytes) = (shared.writer.clone(), cfg.log_cache_bytes);
        let loaded = {
            let replica = replica.clone();
            running.blocking(move || {
                let log = GroupLog::open(id, writer, cache_bytes)?;
                let opened = replica.load(&log)?;
                Ok::<_, OpenError>((log, opened))
            })
        };
        let (log, opened) = loaded.await.map_err(machine_error)??;
        log.follow(replica.applied().subscribe(), replica.ending());
        let new = log.is_new();
        let sm = StateMachine {
            replica: replica.clone(),
        };
        let mut config = raft_config(id, rank, &log).map_err(machine_error)?;
        // until it has listened
        config.enable_elect &= new;
        let network = Network {
            group: id,
            transport: shared.transport.clone(),
            pace: Pace {
                bytes_per_second: cfg.snapshot_bytes_per_second,
                running: running.clone(),
            },
        };
        let raft = Raft::new(cfg.node, Arc::new(config), network, log.clone(), sm).await;
        let raft = raft.map_err(|e| match replica.broken_reason() {
            Some(why) => machine_error(why),
            None => shared.damaged(id, &e.to_string()),
        })?;
        if new && !voters.is_empty() {
            let members: BTreeSet<NodeId> = voters.iter().copied().collect();
            if rank == 0 {
                begin(&raft, members).await.map_err(machine_error)?;
            } else {
                tokio::spawn(begin_later(id, raft.clone(), members, rank));
            }
        }
        let settings = GroupSettings {
            node: cfg.node,
            max_entry_bytes: cfg.max_entry_bytes,
            keep_log_bytes: cfg.keep_log_bytes,
            keep_log_bytes_alone: cfg.keep_log_bytes_alone,
            listens: if new { 0 } else { windows::listens(rank) },
        };
        Ok(Group::start(
            id,
            raft,
            replica,
            log,
            shared.requests.clone(),
            asked,
            shared.failed.subscribe(),
            settings,
            opened,
            shared.transport.clone(),
        ))
    }
}

/// Begins a new group with its first voters; nothing, if another one has begun it already.
async fn begin(raft: &Raft, members: BTreeSet<NodeId>) -> Result<(), String> {
    match raft.initialize(members).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

/// Who begins a group stands for election at once; if all did, each would unseat the one before. So the preferred owner
/// does, and the others only when they have not heard of it for a while.
async fn begin_later(group: GroupId, raft: Raft, members: BTreeSet<NodeId>, rank: usize) {
    let mut metrics = raft.metrics();
    let begun = metrics.wait_for(|now| now.last_log_index.is_some());
    if tokio::time::timeout(BEGIN_AFTER * rank as u32, begun)
        .await
        .is_ok()
    {
        // Begun by another, or closed.
        return;
    }
    if let Err(why) = begin(&raft, members).await {
        tracing::warn!(%group, %why, "a new group was not begun here");
    }
}

fn raft_config(group: GroupId, rank: usize, log: &GroupLog) -> Result<openraft::Config, String> {
    let (election_timeout_min, election_timeout_max) = windows::election_ms(rank);
    let config = openraft::Config {
        cluster_name: group.to_string(),
        heartbeat_interval: windows::HEARTBEAT_MS,
        election_timeout_min,
        election_timeout_max,
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::Never,
        // Purging is asked for by bytes, never done by count.
        max_in_snapshot_log_to_keep: u64::MAX,
        replication_lag_threshold: 1_000_000,
        enable_elect: log.behind_left().is_none(),
        ..openraft::Config::default()
    };
    config.validate().map_err(|e| e.to_string())
}

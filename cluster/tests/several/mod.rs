//! Several nodes in one process, each with its own runtime, folder and sockets, so that one can be killed.

#![allow(dead_code)] // every test file uses a part

mod keeper;
mod wires;

pub use keeper::{Chronicle, Keeper};
pub use wires::Wires;

use crate::common::{Ledger, SHARD, machine, soon, until};
use bytes::Bytes;
use parking_lot::Mutex;
use sojourn_cluster::transport::peers::{PeerConfig, PeerTransport};
use sojourn_cluster::transport::tls::PeerTls;
use sojourn_cluster::{
    EntryKind, Group, Host, HostConfig, Machine, NodeId, Position, ProposeError, Proposed, Role,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// How a node takes part in the group.
#[derive(Clone)]
pub enum Part {
    Voter(Vec<NodeId>),
    Joins(usize),
}

pub struct Node {
    pub id: NodeId,
    runtime: Option<Runtime>,
    pub host: Option<Host>,
    pub transport: Arc<PeerTransport>,
    pub group: Group,
    pub ledger: Arc<Ledger>,
    pub keeper: Arc<Keeper>,
}

/// Nodes, their disks and the wires between them.
pub struct World {
    dirs: BTreeMap<NodeId, TempDir>,
    chronicles: BTreeMap<NodeId, Arc<Mutex<Chronicle>>>,
    pub nodes: BTreeMap<NodeId, Node>,
    pub wires: Wires,
    parts: BTreeMap<NodeId, Part>,
    /// The piece of history that each node started from now on refuses, once.
    pub refuse: u64,
    /// With what TLS nodes are started from now on.
    pub tls: Option<PeerTls>,
    /// Changes a node's settings before it opens.
    pub settings: fn(&mut HostConfig),
}

pub fn driver() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
}

impl World {
    pub fn new() -> World {
        World {
            dirs: BTreeMap::new(),
            chronicles: BTreeMap::new(),
            nodes: BTreeMap::new(),
            wires: Wires::default(),
            parts: BTreeMap::new(),
            refuse: u64::MAX,
            tls: None,
            settings: |_| {},
        }
    }

    /// Nodes 1, 2 and 3, all of them voters.
    pub async fn of_three() -> World {
        World::with(|_| {}).await
    }

    pub async fn with(settings: fn(&mut HostConfig)) -> World {
        let mut world = World::new();
        world.settings = settings;
        for id in 1..=3 {
            world.start(id, Part::Voter(vec![1, 2, 3])).await;
        }
        world.settled().await;
        world
    }

    /// Waits until one node owns and all others follow it.
    pub async fn settled(&self) {
        until("one owner whom all follow", || {
            let leads = |node: &Node| match &*node.group.role().borrow() {
                Role::Owner { node, .. } => Some(*node),
                Role::Follower { leader } => *leader,
                Role::Leading | Role::Closed { .. } => None,
            };
            let leaders: Vec<_> = self.nodes.values().map(leads).collect();
            let owned = self.nodes.values().any(Node::owns);
            owned && leaders[0].is_some() && leaders.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }

    /// Starts a node for the first time.
    pub async fn start(&mut self, id: NodeId, part: Part) {
        self.dirs.insert(id, tempfile::tempdir().expect("a folder"));
        self.chronicles.insert(id, Arc::default());
        self.parts.insert(id, part);
        self.restart(id).await;
    }

    /// Starts a node on the disk that it has.
    pub async fn restart(&mut self, id: NodeId) {
        let dir: PathBuf = self.dirs[&id].path().to_owned();
        let runtime = driver();
        let mut cfg = HostConfig {
            dir,
            node: id,
            ..HostConfig::default()
        };
        (self.settings)(&mut cfg);
        let ledger = Ledger::new();
        let keeper = Keeper::new(machine(&ledger), self.chronicles[&id].clone());
        keeper.refuse.store(self.refuse, Ordering::Relaxed);
        let part = self.parts[&id].clone();
        let mut book = Vec::new();
        for other in self.dirs.keys().filter(|other| **other != id) {
            book.push((*other, self.wires.between(id, *other).await.to_string()));
        }
        let given: Arc<dyn Machine> = keeper.clone();
        let peers = PeerConfig {
            tls: self.tls.clone(),
            ..peer_config(id)
        };
        let opened = runtime.spawn(async move {
            let transport = PeerTransport::bind(peers).await.expect("it listens");
            for (node, address) in book {
                transport.set_address(node, Some(address));
            }
            let host = Host::open_among(cfg, transport.clone())
                .await
                .expect("the host opens");
            let group = match part {
                Part::Voter(voters) => host.open_group(SHARD, given, voters).await,
                Part::Joins(rank) => host.join_group(SHARD, given, rank).await,
            };
            (host, transport, group.expect("the group opens"))
        });
        let (host, transport, group) = opened.await.expect("it starts");
        for other in self.dirs.keys().filter(|other| **other != id) {
            let way = self.wires.between(*other, id).await;
            if let Some(node) = self.nodes.get(other) {
                node.transport.set_address(id, Some(way.to_string()));
            }
        }
        self.wires.moved(id, Some(transport.local_addr()));
        let started = Node {
            id,
            runtime: Some(runtime),
            host: Some(host),
            transport,
            group,
            ledger,
            keeper,
        };
        self.nodes.insert(id, started);
        for other in self.dirs.keys() {
            if let Some(node) = self.nodes.get(other) {
                self.wires.moved(*other, Some(node.transport.local_addr()));
            }
        }
    }

    /// Ends a node as a kill would: every task where it stands.
    pub async fn kill(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).expect("it runs");
        self.wires.moved(id, None);
        tokio::task::spawn_blocking(move || drop(node))
            .await
            .expect("it ends");
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    /// The node that owns the group, once one does. With two claiming it, the one of the higher term.
    pub async fn owner(&self) -> NodeId {
        self.owner_among(|_| true).await
    }

    pub async fn owner_among(&self, among: impl Fn(NodeId) -> bool) -> NodeId {
        let found = Mutex::new(None);
        until("an owner", || {
            let owners = self.nodes.values().filter(|n| among(n.id));
            let best = owners
                .filter_map(|n| term(n).map(|term| (term, n.id)))
                .max();
            *found.lock() = best.map(|(_, id)| id);
            best.is_some()
        })
        .await;
        let found = *found.lock();
        found.expect("waited for it")
    }

    /// Proposes to whoever owns the group, again and again until it is applied.
    pub async fn say(&self, text: &str) -> Proposed {
        let deadline = soon();
        loop {
            let owner = self.owner().await;
            match self.node(owner).try_say(text, deadline).await {
                Ok(done) => return done,
                Err(ProposeError::NotOwner { .. }) if Instant::now() < deadline => {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{text} was not applied: {error}"),
            }
        }
    }

    /// Waits until all nodes have applied the same, and looks that it is the same state.
    pub async fn agree(&self) {
        let seen = Mutex::new(String::new());
        let same = || {
            let at: Vec<Option<Position>> = self
                .nodes
                .values()
                .map(|n| *n.group.applied().borrow())
                .collect();
            let last = self
                .nodes
                .values()
                .map(|n| n.group.figures().last_index)
                .max();
            *seen.lock() = format!("{at:?}, {last:?}");
            at.windows(2).all(|pair| pair[0] == pair[1])
                && last.flatten() == at.first().copied().flatten().map(|p| p.index)
        };
        let deadline = soon();
        while !same() {
            assert!(Instant::now() < deadline, "no agreement: {}", seen.lock());
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let hashes: Vec<u128> = self.nodes.values().map(|n| n.keeper.hash()).collect();
        assert!(
            hashes.windows(2).all(|pair| pair[0] == pair[1]),
            "the states differ"
        );
        let lines = self.nodes.values().map(|n| n.ledger.lines());
        let lines: Vec<_> = lines.collect();
        assert!(lines.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

impl Node {
    pub async fn try_say(&self, text: &str, deadline: Instant) -> Result<Proposed, ProposeError> {
        let body = Bytes::copy_from_slice(text.as_bytes());
        self.group
            .propose(EntryKind::Decisions, body, deadline)
            .await
    }

    pub fn owns(&self) -> bool {
        term(self).is_some()
    }

    /// Makes a checkpoint, and waits until the log behind it is gone.
    pub async fn checkpoint_and_purge(&self) -> Position {
        let at = crate::common::checkpoint(&self.group).await;
        let group = self.group.clone();
        until("the log is purged", move || {
            group.figures().first_index > Some(at.index)
        })
        .await;
        at
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.host.take());
        drop(self.runtime.take());
    }
}

/// The term in which a node owns the group.
pub fn term(node: &Node) -> Option<u64> {
    match &*node.group.role().borrow() {
        Role::Owner { term, .. } => Some(*term),
        _ => None,
    }
}

pub fn peer_config(node: NodeId) -> PeerConfig {
    PeerConfig {
        node,
        cluster: "a cluster of the tests".to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        ..PeerConfig::default()
    }
}

/// Runs a test in a runtime, and ends the nodes outside of it. One at a time: nodes that starve elect anew.
pub fn world(run: impl AsyncFnOnce(&mut World)) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock();
    let driver = driver();
    let mut world = World::new();
    driver.block_on(run(&mut world));
    drop(world);
}

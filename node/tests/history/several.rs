//! Replicas on real groups, on real logs and sockets: members come, snapshots break off, state is made anew.

use super::shops::*;
use bytes::Bytes;
use sojourn_cluster::transport::peers::{PeerConfig, PeerTransport};
use sojourn_cluster::{
    Cut, EntryKind, Group, HistoryPieces, Host, HostConfig, Machine, NodeId, Position, Rebuilt,
    Role, Source,
};
use sojourn_node::shard::machine::ShardMachine;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

const PEOPLE: usize = 30;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = soon();
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The machine of a shard, which refuses one piece of history, once.
struct Refusing {
    inner: Arc<ShardMachine>,
    taken: AtomicU64,
    refuse: AtomicU64,
}

impl Machine for Refusing {
    fn apply(&self, at: Position, kind: EntryKind, body: &Bytes) -> Bytes {
        self.inner.apply(at, kind, body)
    }
    fn cut(&self, at: Position, full: bool) -> Box<dyn Cut> {
        self.inner.cut(at, full)
    }
    fn waiting_bytes(&self) -> u64 {
        self.inner.waiting_bytes()
    }
    fn restore_begin(&self) {
        self.inner.restore_begin();
    }
    fn restore_chunk(&self, chunk: &[u8]) -> Result<(), String> {
        self.inner.restore_chunk(chunk)
    }
    fn restore_end(&self, at: Option<Position>) -> Result<(), String> {
        self.inner.restore_end(at)
    }
    fn rebuild(&self) -> Result<Option<Rebuilt>, String> {
        self.inner.rebuild()
    }
    fn hash(&self) -> u128 {
        self.inner.hash()
    }
    fn history_upto(&self) -> Option<Position> {
        self.inner.history_upto()
    }
    fn history_is_whole(&self) -> bool {
        self.inner.history_is_whole()
    }
    fn history_after(
        &self,
        after: Option<Position>,
        upto: Position,
    ) -> Result<Option<Box<dyn HistoryPieces>>, String> {
        self.inner.history_after(after, upto)
    }
    fn take_history(&self, piece: &[u8]) -> Result<(), String> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let refused =
            self.refuse
                .compare_exchange(number, u64::MAX, Ordering::Relaxed, Ordering::Relaxed);
        if refused.is_ok() {
            return Err("the test refuses this piece".to_owned());
        }
        self.inner.take_history(piece)
    }
    fn history_taken(&self, upto: Position) -> Result<(), String> {
        self.inner.history_taken(upto)
    }
}

struct Node {
    id: NodeId,
    place: Place,
    machine: Arc<Refusing>,
    host: Host,
    transport: Arc<PeerTransport>,
    group: Group,
}

/// With whom a node begins the group; `None`: it joins.
type Voters = Option<Vec<NodeId>>;

impl Node {
    async fn start(id: NodeId, place: Place, voters: Voters, refuse: u64) -> Node {
        let config = HostConfig {
            dir: place.dir.path().to_owned(),
            node: id,
            keep_log_bytes: 0,
            keep_log_bytes_alone: 0,
            ..HostConfig::default()
        };
        let peers = PeerConfig {
            node: id,
            cluster: "history".to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            ..PeerConfig::default()
        };
        let transport = PeerTransport::bind(peers).await.expect("it listens");
        let host = Host::open_among(config, transport.clone())
            .await
            .expect("it opens");
        let machine = Arc::new(Refusing {
            inner: place.machine.clone(),
            taken: AtomicU64::new(0),
            refuse: AtomicU64::new(refuse),
        });
        let opened = match voters {
            Some(voters) => host.open_group(group(), machine.clone(), voters).await,
            None => host.join_group(group(), machine.clone(), 2).await,
        };
        let group = opened.expect("the group opens");
        Node {
            id,
            place,
            machine,
            host,
            transport,
            group,
        }
    }

    fn owns(&self) -> bool {
        matches!(&*self.group.role().borrow(), Role::Owner { .. })
    }

    /// Everything in memory goes; the disk stays.
    async fn stop(self) -> Place {
        self.host.close().await;
        let Node {
            place,
            machine,
            host,
            group,
            transport,
            ..
        } = self;
        drop((machine, group, host, transport));
        until("nobody holds the machine", || {
            Arc::strong_count(&place.machine) == 1
        })
        .await;
        place.reopen()
    }

    async fn checkpoint_and_purge(&self) -> Position {
        let made = self.group.checkpoint_now().await.expect("told");
        let at = made.expect("a checkpoint").expect("a position");
        until("the log is purged", || {
            self.group.figures().first_index > Some(at.index)
        })
        .await;
        at
    }
}

fn acquaint(nodes: &[Node]) {
    for node in nodes {
        for other in nodes.iter().filter(|other| other.id != node.id) {
            let address = other.transport.local_addr().to_string();
            node.transport.set_address(other.id, Some(address));
        }
    }
}

async fn owner(nodes: &[Node]) -> &Node {
    until("an owner", || {
        nodes.iter().filter(|n| n.owns()).count() == 1
    })
    .await;
    nodes.iter().find(|n| n.owns()).expect("waited for it")
}

async fn send(nodes: &[Node], shop: &mut Shop, people: &[usize], kind: &str) {
    let owner = owner(nodes).await;
    for some in people.chunks(5) {
        let decided = some
            .iter()
            .map(|n| shop.decide(&owner.place, *n, kind))
            .collect::<Vec<_>>();
        let leader = match &*owner.group.role().borrow() {
            Role::Owner { term, node, .. } => (*term, *node),
            role => panic!("it does not own the shard any more: {role:?}"),
        };
        owner
            .group
            .propose(EntryKind::Decisions, body_of(decided, leader), soon())
            .await
            .expect("it is applied");
    }
}

async fn usual(nodes: &[Node], shop: &mut Shop) {
    let all = |f: fn(&usize) -> bool| (0..PEOPLE).filter(f).collect::<Vec<_>>();
    send(nodes, shop, &all(|_| true), "shop.opened").await;
    send(nodes, shop, &all(|_| true), "shop.sang").await;
    send(nodes, shop, &all(|n| n % 10 > 2), "shop.closed").await;
    send(nodes, shop, &all(|n| n % 10 > 5), "leaves").await;
}

async fn agree(nodes: &[Node]) {
    until("all have applied the same", || {
        let at: BTreeSet<_> = nodes.iter().map(|n| *n.group.applied().borrow()).collect();
        let last = nodes.iter().map(|n| n.group.figures().last_index).max();
        at.len() == 1 && last.flatten() == at.first().copied().flatten().map(|p| p.index)
    })
    .await;
    for node in &nodes[1..] {
        node.place.is_like(&nodes[0].place, PEOPLE);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_replica_gets_everything_though_the_snapshot_breaks_off() {
    let mut shop = Shop::new();
    shop.padding = 8_000;
    let mut nodes = Vec::new();
    for id in [1, 2] {
        nodes.push(Node::start(id, Place::blank(), Some(vec![1, 2]), u64::MAX).await);
    }
    acquaint(&nodes);
    usual(&nodes, &mut shop).await;
    owner(&nodes).await.checkpoint_and_purge().await;
    usual(&nodes, &mut shop).await;
    owner(&nodes).await.checkpoint_and_purge().await;
    send(&nodes, &mut shop, &[0, 1, 2], "shop.sang").await;

    nodes.push(Node::start(3, Place::blank(), None, 4).await);
    acquaint(&nodes);
    let leads = owner(&nodes).await.group.clone();
    leads.add_learner(3, soon()).await.expect("added");
    leads.caught_up(3, soon()).await.expect("it catches up");
    agree(&nodes).await;
    let third = &nodes[2].machine;
    assert_eq!(third.refuse.load(Ordering::Relaxed), u64::MAX, "refused");
    let pieces = third.taken.load(Ordering::Relaxed);
    assert!(pieces > 10, "{pieces} pieces, some of them twice");
    assert!(third.history_is_whole());

    // it becomes owner, and those who are away come back on what it was given
    let voters = BTreeSet::from([1, 2, 3]);
    leads.change_voters(voters, soon()).await.expect("changed");
    leads.caught_up(3, soon()).await.expect("it keeps up");
    leads.transfer_to(3, soon()).await.expect("transferred");
    until("the third owns", || {
        nodes[2].owns() && nodes.iter().filter(|n| n.owns()).count() == 1
    })
    .await;
    let away = [6, 7, 8, 9, 16];
    assert!(nodes[2].place.machine.state.lock().away >= away.len() as u64);
    send(&nodes, &mut shop, &away, "shop.opened").await;
    send(&nodes, &mut shop, &away, "shop.closed").await;
    send(&nodes, &mut shop, &away[..2], "leaves").await;
    agree(&nodes).await;

    // without its checkpoints, its state is made anew from the history that it was given
    let last = nodes[2].checkpoint_and_purge().await;
    let third = nodes.pop().expect("the third");
    let place = third.stop().await;
    std::fs::remove_dir_all(place.dir.path().join("checkpoints")).expect("removes");
    usual(&nodes, &mut shop).await;
    nodes.push(Node::start(3, place, None, u64::MAX).await);
    let from = &nodes[2].group.opened().source;
    assert_eq!(*from, Source::History { at: Some(last) });
    acquaint(&nodes);
    agree(&nodes).await;

    // and once more from nothing, after its history was forgotten
    let place = nodes.pop().expect("the third").stop().await;
    place.store().forget_shard(SHARD).expect("it is forgotten");
    for folder in ["checkpoints", "log"] {
        std::fs::remove_dir_all(place.dir.path().join(folder)).expect("removes");
    }
    let leads = owner(&nodes).await.group.clone();
    leads
        .change_voters(BTreeSet::from([1, 2]), soon())
        .await
        .expect("changed");
    owner(&nodes).await.checkpoint_and_purge().await;
    nodes.push(Node::start(4, place, None, u64::MAX).await);
    acquaint(&nodes);
    leads.add_learner(4, soon()).await.expect("added");
    leads.caught_up(4, soon()).await.expect("it catches up");
    agree(&nodes).await;
    for node in nodes {
        node.host.close().await;
    }
}

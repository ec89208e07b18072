//! The network between the nodes of a test: a TCP proxy for each pair and direction, each way of which can be held.

use parking_lot::Mutex;
use sojourn_cluster::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way by which one node reaches another.
struct Wire {
    address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    /// Whether bytes of the one that connects go on.
    there: watch::Sender<bool>,
    /// Whether bytes of the one that serves go back.
    back: watch::Sender<bool>,
    /// Counts how often all connections were broken.
    broken: watch::Sender<u64>,
}

/// All of them. Bytes that are held arrive when the way is open again, as TCP would have it.
#[derive(Default)]
pub struct Wires {
    /// Bytes a second that each way carries; 0 is no limit.
    pub rate: Arc<AtomicU64>,
    wires: Mutex<BTreeMap<(NodeId, NodeId), Arc<Wire>>>,
}

impl Wires {
    /// The address by which `from` reaches `to`.
    pub async fn between(&self, from: NodeId, to: NodeId) -> SocketAddr {
        if let Some(wire) = self.wires.lock().get(&(from, to)) {
            return wire.address;
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let wire = Arc::new(Wire {
            address: listener.local_addr().expect("bound"),
            to: Arc::default(),
            there: watch::Sender::new(true),
            back: watch::Sender::new(true),
            broken: watch::Sender::new(0),
        });
        tokio::spawn(accept(listener, wire.clone(), self.rate.clone()));
        let address = wire.address;
        self.wires.lock().insert((from, to), wire);
        address
    }

    /// A node is somewhere else now, or nowhere.
    pub fn moved(&self, node: NodeId, address: Option<SocketAddr>) {
        for ((_, to), wire) in &*self.wires.lock() {
            if *to == node {
                *wire.to.lock() = address;
            }
        }
    }

    /// What `from` says does not reach `to`.
    pub fn hold(&self, from: NodeId, to: NodeId, held: bool) {
        let wires = self.wires.lock();
        if let Some(wire) = wires.get(&(from, to)) {
            wire.there.send_replace(!held);
        }
        if let Some(wire) = wires.get(&(to, from)) {
            wire.back.send_replace(!held);
        }
    }

    /// Breaks every connection by which `from` reaches `to`; it may connect again.
    pub fn sever(&self, from: NodeId, to: NodeId) {
        if let Some(wire) = self.wires.lock().get(&(from, to)) {
            wire.broken.send_modify(|n| *n += 1);
        }
    }

    /// Neither of the two hears the other.
    pub fn part(&self, one: NodeId, other: NodeId, parted: bool) {
        self.hold(one, other, parted);
        self.hold(other, one, parted);
    }
}

async fn accept(listener: TcpListener, wire: Arc<Wire>, rate: Arc<AtomicU64>) {
    while let Ok((near, _)) = listener.accept().await {
        let to = *wire.to.lock();
        let rate = rate.clone();
        let mut broken = wire.broken.subscribe();
        let (there, back) = (wire.there.subscribe(), wire.back.subscribe());
        tokio::spawn(async move {
            let Some(to) = to else { return };
            let Ok(far) = TcpStream::connect(to).await else {
                return;
            };
            near.set_nodelay(true).expect("a socket");
            far.set_nodelay(true).expect("a socket");
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                _ = broken.changed() => {}
                () = pump(near_in, far_out, there, &rate) => {}
                () = pump(far_in, near_out, back, &rate) => {}
            }
        });
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
    rate: &AtomicU64,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(n @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        let rate = rate.load(Ordering::Relaxed);
        if rate > 0 {
            tokio::time::sleep(Duration::from_secs_f64(n as f64 / rate as f64)).await;
        }
        if open.wait_for(|open| *open).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

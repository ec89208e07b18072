//! The transport between real nodes: gRPC on sockets, one long-lived stream per pair of nodes and direction.
//!
//! Knows the cluster's id and an address book that may change at any time; does not know who belongs to which group.

use super::dial::{AddressError, Dialer, said};
use super::incoming::Incoming;
use super::link::{self, Book, Link};
use super::server::Server;
use super::tls::PeerTls;
use super::{
    FrameBody, SNAPSHOT_PARTS, Serve, SnapshotOut, Transport, TransportError, TransportFigures,
};
use crate::error::OpenError;
use crate::id::{GroupId, NodeId};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use sojourn_proto::cluster::{Hello, SnapshotPart as PartMessage};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Channel;

/// The version of what nodes say to one another.
pub const PROTOCOL: u32 = 1;
/// The lengths and numbers around the frames of a message.
const MESSAGE_OVERHEAD: usize = 64 << 10;

/// Settings of the transport. Sizes in bytes.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// This node.
    pub node: NodeId,
    /// The cluster's id. Nodes of another cluster are refused.
    pub cluster: String,
    /// Where other nodes reach this one; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Frames that may wait to be sent to one node. 4,096.
    pub queue_frames: usize,
    /// Bytes that may wait to be sent to one node; a single frame always may. 32 MiB.
    pub queue_bytes: usize,
    /// Frames that wait are sent together up to about this size. 1 MiB.
    pub send_bytes: usize,
    /// The largest frame. 33 MiB: an entry of the largest size that a host takes, and what is around it.
    pub message_bytes: usize,
    /// Questions of one stream that are answered at the same time; while there are more, nothing is read. 1,024.
    pub serving_frames: usize,
    /// Connections from other nodes. 256.
    pub connections: usize,
    /// Streams and calls that one connection may have open; more wait with the caller. 1,024.
    pub streams: u32,
    /// How long connecting and greeting may take. 1 s.
    pub connect_within: Duration,
    /// The shortest pause before connecting again. 20 ms.
    pub retry_min: Duration,
    /// The longest. 250 ms: a node that comes back must hear of its leader before it stands for election.
    pub retry_max: Duration,
    /// TLS in both directions, on every connection; `None` for none.
    pub tls: Option<PeerTls>,
    /// An idle connection is tested this often, and given up when nothing comes back for as long. 2 s.
    pub keep_alive: Duration,
}

impl Default for PeerConfig {
    fn default() -> Self {
        PeerConfig {
            node: 1,
            cluster: String::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7412)),
            queue_frames: 4096,
            queue_bytes: 32 << 20,
            send_bytes: 1 << 20,
            message_bytes: 33 << 20,
            serving_frames: 1024,
            connections: 256,
            streams: 1024,
            connect_within: Duration::from_secs(1),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(250),
            tls: None,
            keep_alive: Duration::from_secs(2),
        }
    }
}

impl PeerConfig {
    /// What a message may have on the wire.
    pub(super) fn limit_bytes(&self) -> usize {
        self.message_bytes
            .saturating_add(self.send_bytes)
            .saturating_add(MESSAGE_OVERHEAD)
    }

    pub(super) fn greeting(&self, to: NodeId) -> Hello {
        Hello {
            protocol: PROTOCOL,
            cluster: self.cluster.clone(),
            from: self.node,
            to,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let named = [
            ("queue_frames", self.queue_frames),
            ("queue_bytes", self.queue_bytes),
            ("send_bytes", self.send_bytes),
            ("message_bytes", self.message_bytes),
            ("serving_frames", self.serving_frames),
            ("connections", self.connections),
            ("streams", self.streams as usize),
        ];
        for (name, value) in named {
            if value == 0 {
                return Err(OpenError::Config {
                    name: name.to_owned(),
                    why: "found 0, expected at least 1".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// The first words of a stream.
pub(super) struct Greeting;

impl Greeting {
    /// Whether the other side is one to talk to: node `expected`, or any other node. Answers which it is.
    pub(super) fn check(
        hello: Option<&Hello>,
        cfg: &PeerConfig,
        expected: Option<NodeId>,
    ) -> Result<NodeId, String> {
        let Some(hello) = hello else {
            return Err("the first message does not say who speaks".to_owned());
        };
        if hello.protocol != PROTOCOL {
            return Err(format!(
                "protocol {} is spoken there, this version knows {PROTOCOL}",
                hello.protocol
            ));
        }
        if hello.cluster != cfg.cluster {
            let found: String = hello.cluster.chars().take(64).collect();
            return Err(format!(
                "found cluster {found:?}, expected {:?}; it belongs to another cluster",
                cfg.cluster
            ));
        }
        if hello.to != cfg.node {
            return Err(format!(
                "node {} is meant, this is node {}; an address is out of date",
                hello.to, cfg.node
            ));
        }
        match expected {
            Some(expected) if hello.from != expected => Err(format!(
                "found node {}, expected node {expected}; an address is out of date",
                hello.from
            )),
            None if hello.from == cfg.node => Err(format!(
                "node {} is this node itself; two nodes have the same id, or an address is wrong",
                hello.from
            )),
            _ => Ok(hello.from),
        }
    }
}

/// What the transport shares with its tasks.
pub(super) struct Shared {
    pub(super) cfg: Arc<PeerConfig>,
    pub(super) dialer: Dialer,
    pub(super) links: Mutex<BTreeMap<NodeId, Arc<Link>>>,
    pub(super) counts: Mutex<Counts>,
    pub(super) ended: watch::Sender<bool>,
    book: watch::Sender<Book>,
}

#[derive(Default)]
pub(super) struct Counts {
    pub(super) incoming: usize,
    pub(super) strangers: u64,
    pub(super) answered: u64,
}

/// The transport between real nodes.
pub struct PeerTransport {
    shared: Arc<Shared>,
    /// Where its tasks run, whoever calls.
    runtime: Handle,
    address: SocketAddr,
    listener: Mutex<Option<TcpListener>>,
    /// What else is served on the port.
    routes: Mutex<Routes>,
    /// Connections for those other services, each with the address that it is to.
    channels: Mutex<BTreeMap<NodeId, (String, Channel)>>,
}

impl std::fmt::Debug for PeerTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerTransport")
            .field("node", &self.shared.cfg.node)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Drop for PeerTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

impl PeerTransport {
    /// Listens. Nothing is answered before a host is opened with it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Settings that make no sense; certificates that cannot be used; an address that cannot be had.
    pub async fn bind(cfg: PeerConfig) -> Result<Arc<PeerTransport>, OpenError> {
        cfg.check()?;
        let bound = TcpListener::bind(cfg.listen).await;
        let listener = bound.map_err(|e| not_listening(cfg.listen.to_string(), e))?;
        PeerTransport::on(cfg, listener)
    }

    /// The same on a socket that listens already; `cfg.listen` is not looked at. For a node that must tell its port
    /// before it is given its id.
    ///
    /// # Errors
    /// Settings that make no sense; certificates that cannot be used; a socket that is none any more.
    pub fn on(cfg: PeerConfig, listener: TcpListener) -> Result<Arc<PeerTransport>, OpenError> {
        cfg.check()?;
        let address = listener.local_addr();
        let address = address.map_err(|e| not_listening("a socket".to_owned(), e))?;
        let dialer = Dialer::new(&cfg)?;
        Ok(Arc::new(PeerTransport {
            shared: Arc::new(Shared {
                cfg: Arc::new(cfg),
                dialer,
                links: Mutex::default(),
                counts: Mutex::default(),
                ended: watch::Sender::new(false),
                book: watch::Sender::new(Book::new()),
            }),
            runtime: Handle::current(),
            address,
            listener: Mutex::new(Some(listener)),
            routes: Mutex::default(),
            channels: Mutex::default(),
        }))
    }

    /// Serves `routes` on the same port, beside what nodes say to one another. To be called before the host is opened;
    /// a second call replaces the first. Who calls them is not asked for a greeting, and how large their messages may
    /// be is theirs to say.
    pub fn serve_also(&self, routes: Routes) {
        if self.listener.lock().is_none() {
            tracing::error!(
                "services were added to a transport that serves already; they are not served"
            );
            return;
        }
        *self.routes.lock() = routes;
    }

    /// A connection to a node for other services than this one's, made when it is first used and again when it breaks.
    /// Its windows are not those of the frames. All callers share one; another is made when the node's address changes.
    ///
    /// # Errors
    /// `Unreachable`, when no address of the node is known, or one that is none.
    pub fn channel(&self, node: NodeId) -> Result<Channel, TransportError> {
        let address = self.shared.book.borrow().get(&node).cloned();
        let address = address.ok_or_else(|| unreachable_by(node, "no address of it is known"))?;
        let mut channels = self.shared_channels();
        if let Some((to, channel)) = channels.get(&node)
            && *to == address
        {
            return Ok(channel.clone());
        }
        let channel = self.channel_to(&address);
        let channel = channel.map_err(|e| unreachable_by(node, &e.to_string()))?;
        channels.insert(node, (address, channel.clone()));
        Ok(channel)
    }

    /// The connections of [`PeerTransport::channel`], without those to nodes that are nowhere any more.
    fn shared_channels(&self) -> parking_lot::MutexGuard<'_, BTreeMap<NodeId, (String, Channel)>> {
        let mut channels = self.channels.lock();
        let book = self.shared.book.borrow();
        channels.retain(|node, _| book.contains_key(node));
        channels
    }

    /// A new connection to host:port, whichever node that is, made when it is first used.
    ///
    /// # Errors
    /// No address.
    pub fn channel_to(&self, address: &str) -> Result<Channel, AddressError> {
        let _runtime = self.runtime.enter();
        self.shared.dialer.channel_to(address)
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Notes where a node is, as host:port, or that it is nowhere. A stream to another address is closed, and one to
    /// this address opened: a node that comes back hears of its leaders the sooner.
    pub fn set_address(&self, node: NodeId, address: Option<String>) {
        let known = address.is_some();
        self.shared.book.send_if_modified(|book| match address {
            Some(address) if book.get(&node) == Some(&address) => false,
            Some(address) => {
                book.insert(node, address);
                true
            }
            None => book.remove(&node).is_some(),
        });
        if known && node != self.shared.cfg.node {
            self.link(node);
        }
    }

    /// Where the nodes are.
    pub fn addresses(&self) -> BTreeMap<NodeId, String> {
        self.shared.book.borrow().clone()
    }

    /// The link to a node, begun if there is none.
    fn link(&self, to: NodeId) -> Arc<Link> {
        let mut links = self.shared.links.lock();
        links
            .entry(to)
            .or_insert_with(|| {
                let link = Link::new(to, &self.shared.cfg);
                self.runtime.spawn(link::keep(
                    link.clone(),
                    self.shared.cfg.clone(),
                    self.shared.dialer.clone(),
                    self.shared.book.subscribe(),
                    self.shared.ended.subscribe(),
                ));
                link
            })
            .clone()
    }
}

impl Transport for PeerTransport {
    fn serve(&self, node: Weak<dyn Serve>) {
        let Some(listener) = self.listener.lock().take() else {
            tracing::error!("a transport serves one host only; the second is not served");
            return;
        };
        let incoming = Incoming::new(listener, self.shared.clone());
        let server = Server::new(self.shared.clone(), node);
        let routes = std::mem::take(&mut *self.routes.lock());
        self.runtime.spawn(server.run(incoming, routes));
    }

    fn ask(
        &self,
        to: NodeId,
        group: GroupId,
        body: FrameBody,
        within: Duration,
    ) -> BoxFuture<'static, Result<FrameBody, TransportError>> {
        Box::pin(self.link(to).ask(group, body, within))
    }

    fn open_snapshot(&self, to: NodeId) -> BoxFuture<'static, Result<SnapshotOut, TransportError>> {
        let cfg = self.shared.cfg.clone();
        let dialer = self.shared.dialer.clone();
        let address = self.shared.book.borrow().get(&to).cloned();
        let ended = self.shared.ended.subscribe();
        Box::pin(async move {
            let unreachable = |why: String| TransportError::Unreachable { node: to, why };
            let address =
                address.ok_or_else(|| unreachable("no address of it is known".to_owned()))?;
            // A connection of its own: its windows are not those of the frames.
            let connecting = link::connect(&cfg, &dialer, &address);
            let mut client = match tokio::time::timeout(cfg.connect_within, connecting).await {
                Ok(connected) => connected.map_err(unreachable)?,
                Err(_) => {
                    let within = cfg.connect_within;
                    return Err(TransportError::Late { node: to, within });
                }
            };
            let (parts, mut given) = mpsc::channel::<super::SnapshotPart>(SNAPSHOT_PARTS);
            let (tell, answers) = mpsc::channel(SNAPSHOT_PARTS);
            let (send, sent) = mpsc::channel(SNAPSHOT_PARTS);
            tokio::spawn(async move {
                let carry = async {
                    let mut hello = Some(cfg.greeting(to));
                    while let Some(part) = given.recv().await {
                        let message = PartMessage {
                            hello: hello.take(),
                            part: Some(part),
                        };
                        if send.send(message).await.is_err() {
                            break;
                        }
                    }
                };
                let listen = async {
                    let broken = |e: tonic::Status| unreachable_by(to, &said(&e));
                    let mut stream = match client.give_snapshot(ReceiverStream::new(sent)).await {
                        Ok(stream) => stream.into_inner(),
                        Err(e) => return drop(tell.send(Err(broken(e))).await),
                    };
                    let mut greeted = false;
                    loop {
                        let answer = match stream.message().await {
                            Ok(Some(message)) if greeted => Ok(message.answer),
                            Ok(Some(message)) => {
                                greeted = true;
                                Greeting::check(message.hello.as_ref(), &cfg, Some(to))
                                    .map(|_| message.answer)
                                    .map_err(|why| unreachable_by(to, &why))
                            }
                            Ok(None) => return,
                            Err(e) => Err(broken(e)),
                        };
                        let ends = answer.is_err();
                        let told = match answer.transpose() {
                            Some(answer) => tell.send(answer).await,
                            None => Ok(()),
                        };
                        if ends || told.is_err() {
                            return;
                        }
                    }
                };
                let mut ended = ended;
                tokio::select! {
                    () = link::until(&mut ended) => {}
                    // When all parts are given the answers still have to come.
                    ((), ()) = async { tokio::join!(carry, listen) } => {}
                }
            });
            Ok(SnapshotOut { parts, answers })
        })
    }

    fn frame_bytes(&self) -> usize {
        self.shared.cfg.message_bytes
    }

    fn figures(&self) -> TransportFigures {
        let peers = self
            .shared
            .links
            .lock()
            .values()
            .map(|l| l.figures())
            .collect();
        let counts = self.shared.counts.lock();
        TransportFigures {
            peers,
            incoming: counts.incoming,
            strangers: counts.strangers,
            answered: counts.answered,
            tls: self.shared.dialer.keys().map(|keys| keys.figures()),
        }
    }

    fn stop(&self) {
        self.shared.ended.send_replace(true);
        drop(self.listener.lock().take());
    }
}

fn not_listening(what: String, why: std::io::Error) -> OpenError {
    OpenError::io("listening for other nodes", what, why)
}

fn unreachable_by(node: NodeId, why: &str) -> TransportError {
    TransportError::Unreachable {
        node,
        why: why.to_owned(),
    }
}

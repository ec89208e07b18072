//! A simulated network between the nodes of one world: what is asked arrives late, twice, out of order, or never.
//!
//! Knows frames and parts as things that are on their way, and nothing of what they say. Every node of a world has its own
//! runtime and clock; what one node sends reaches another one only between two steps of the world, so nobody can act on
//! something that has not happened yet.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use sojourn_cluster::sim::Dice;
use sojourn_cluster::transport::{
    FrameBody, Serve, SnapshotAnswer, SnapshotIn, SnapshotOut, SnapshotPart, Transport,
    TransportError, TransportFigures,
};
use sojourn_cluster::{GroupId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The largest frame, as real nodes have it.
const FRAME_BYTES: usize = 48 << 20;
/// Parts of a snapshot on their way at once.
const PARTS: usize = 4;

/// How the wires are, now.
#[derive(Clone, Debug, PartialEq)]
pub struct Wires {
    /// The least that a message takes, in microseconds.
    pub least: u64,
    /// How much more it may take, in microseconds.
    pub more: u64,
    /// One of so many messages is lost; 0: none.
    pub lost: u64,
    /// One of so many questions arrives twice; 0: none.
    pub twice: u64,
}

impl Wires {
    /// Wires without fault.
    pub const GOOD: Wires = Wires {
        least: 200,
        more: 600,
        lost: 0,
        twice: 0,
    };
}

type Answered = oneshot::Sender<Result<FrameBody, TransportError>>;

enum Message {
    Question {
        token: u64,
        group: GroupId,
        body: FrameBody,
    },
    Answer {
        token: u64,
        body: FrameBody,
    },
    Begin(u64),
    Part(u64, SnapshotPart),
    PartsEnd(u64),
    Said(u64, SnapshotAnswer),
}

impl Message {
    /// The stream that it is on, and in which direction.
    fn on_stream(&self) -> Option<(u64, usize)> {
        match self {
            Message::Begin(id) | Message::Part(id, _) | Message::PartsEnd(id) => Some((*id, 0)),
            Message::Said(id, _) => Some((*id, 1)),
            Message::Question { .. } | Message::Answer { .. } => None,
        }
    }
}

struct Way {
    from: NodeId,
    to: NodeId,
    message: Message,
}

/// A snapshot on its way.
struct Stream {
    from: NodeId,
    to: NodeId,
    /// Where parts go; `None` until it has begun, and once it has ended.
    parts: Option<mpsc::UnboundedSender<SnapshotPart>>,
    answers: mpsc::UnboundedSender<Result<SnapshotAnswer, TransportError>>,
    /// Nothing overtakes on a stream: when the last of each direction arrives.
    arrives: [u64; 2],
}

/// A node that runs.
struct Port {
    handle: Handle,
    serve: Option<Weak<dyn Serve>>,
    /// The world's time when its clock stood at `started`.
    begun: u64,
    started: Instant,
}

struct State {
    dice: Dice,
    wires: Wires,
    /// One-way cuts: (from, to).
    cut: BTreeSet<(NodeId, NodeId)>,
    ports: BTreeMap<NodeId, Port>,
    /// By when they arrive, and in the order in which they were sent.
    under_way: BTreeMap<(u64, u64), Way>,
    waiting: BTreeMap<u64, Answered>,
    streams: BTreeMap<u64, Stream>,
    number: u64,
    delivered: u64,
    lost: u64,
}

/// All wires of one world.
pub struct Net {
    state: Mutex<State>,
}

impl Net {
    /// Wires without fault between nobody yet.
    pub fn new(dice: Dice) -> Arc<Net> {
        Arc::new(Net {
            state: Mutex::new(State {
                dice,
                wires: Wires::GOOD,
                cut: BTreeSet::new(),
                ports: BTreeMap::new(),
                under_way: BTreeMap::new(),
                waiting: BTreeMap::new(),
                streams: BTreeMap::new(),
                number: 0,
                delivered: 0,
                lost: 0,
            }),
        })
    }

    /// A node's way to the others; it is plugged in by [`Net::plug`].
    pub fn of(self: &Arc<Net>, node: NodeId) -> Arc<dyn Transport> {
        Arc::new(NodeNet {
            net: self.clone(),
            node,
        })
    }

    /// A node runs from now on; `begun`: the world's time.
    pub fn plug(&self, node: NodeId, handle: Handle, begun: u64, started: Instant) {
        let port = Port {
            handle,
            serve: None,
            begun,
            started,
        };
        self.state.lock().ports.insert(node, port);
    }

    /// A node has ended: what is on its way to it finds nobody.
    pub fn unplug(&self, node: NodeId) {
        let mut state = self.state.lock();
        state.ports.remove(&node);
        state.break_streams(|stream| stream.from == node || stream.to == node);
    }

    /// From now on, the wires are like this.
    pub fn set_wires(&self, wires: Wires) {
        self.state.lock().wires = wires;
    }

    /// Cuts what goes from one node to another, and nothing else.
    pub fn set_cut(&self, cut: BTreeSet<(NodeId, NodeId)>) {
        let mut state = self.state.lock();
        state.cut = cut;
        let cut = state.cut.clone();
        state.break_streams(|stream| {
            cut.contains(&(stream.from, stream.to)) || cut.contains(&(stream.to, stream.from))
        });
    }

    /// How many messages arrived, and how many were lost.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.delivered, state.lost)
    }

    /// Brings what arrives up to `now` to the nodes that run; `stands` are those that stand still now.
    pub fn deliver(self: &Arc<Net>, now: u64, stands: &BTreeSet<NodeId>) {
        let mut held = Vec::new();
        loop {
            let mut state = self.state.lock();
            let Some(first) = state.under_way.first_entry() else {
                break;
            };
            if first.key().0 > now {
                break;
            }
            let (key, way) = first.remove_entry();
            if stands.contains(&way.to) {
                held.push((key, way));
                continue;
            }
            if state.cut.contains(&(way.from, way.to)) {
                state.lost += 1;
                // on a stream nothing is lost in the middle: the whole breaks
                if let Some((id, _)) = way.message.on_stream() {
                    state.break_streams_at(id);
                }
                continue;
            }
            state.delivered += 1;
            let (serve, handle) = match state.ports.get(&way.to) {
                Some(port) => (
                    port.serve.as_ref().and_then(Weak::upgrade),
                    Some(port.handle.clone()),
                ),
                None => (None, None),
            };
            self.hand_over(&mut state, way, serve, handle);
        }
        self.state.lock().under_way.extend(held);
    }

    fn hand_over(
        self: &Arc<Net>,
        state: &mut State,
        way: Way,
        serve: Option<Arc<dyn Serve>>,
        handle: Option<Handle>,
    ) {
        let Way { from, to, message } = way;
        match message {
            Message::Answer { token, body } => {
                if let Some(waiting) = state.waiting.remove(&token) {
                    // whoever asked may have given up
                    drop(waiting.send(Ok(body)));
                }
            }
            Message::Question { token, group, body } => match (serve, handle) {
                (Some(serve), Some(handle)) => {
                    let net = self.clone();
                    handle.spawn(async move {
                        let body = serve.answer(from, group, body).await;
                        drop(serve);
                        net.send(to, from, Message::Answer { token, body });
                    });
                }
                _ => {
                    if let Some(waiting) = state.waiting.remove(&token) {
                        drop(waiting.send(Err(gone(to))));
                    }
                }
            },
            Message::Begin(id) => {
                let (Some(serve), Some(handle)) = (serve, handle) else {
                    state.break_streams_at(id);
                    return;
                };
                let Some(stream) = state.streams.get_mut(&id) else {
                    return;
                };
                let (parts, mut arriving) = mpsc::unbounded_channel();
                stream.parts = Some(parts);
                let (into, taken) = mpsc::channel(PARTS);
                let (answers, mut said) = mpsc::channel(PARTS);
                handle.spawn(async move {
                    while let Some(part) = arriving.recv().await {
                        if into.send(part).await.is_err() {
                            return;
                        }
                    }
                });
                let net = self.clone();
                handle.spawn(async move {
                    while let Some(answer) = said.recv().await {
                        net.send(to, from, Message::Said(id, answer));
                    }
                });
                let taking = SnapshotIn {
                    parts: taken,
                    answers,
                };
                handle.spawn(async move { serve.take_snapshot(from, taking).await });
            }
            Message::Part(id, part) => {
                let parts = state.streams.get(&id).and_then(|s| s.parts.as_ref());
                if parts.is_none_or(|parts| parts.send(part).is_err()) {
                    state.break_streams_at(id);
                }
            }
            Message::PartsEnd(id) => {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.parts = None;
                }
            }
            Message::Said(id, answer) => {
                if let Some(stream) = state.streams.get(&id) {
                    drop(stream.answers.send(Ok(answer)));
                }
            }
        }
    }

    /// Puts something on its way, from a task of the node that sends it.
    fn send(&self, from: NodeId, to: NodeId, message: Message) {
        self.state.lock().send(from, to, message);
    }

    fn ask(&self, from: NodeId, to: NodeId, group: GroupId, body: FrameBody) -> (u64, Asked) {
        let (tx, rx) = oneshot::channel();
        let mut state = self.state.lock();
        state.number += 1;
        let token = state.number;
        state.waiting.insert(token, tx);
        let once_more = state.wires.twice;
        if once_more > 0 && state.dice.once_in(once_more) {
            let body = body.clone();
            state.send(from, to, Message::Question { token, group, body });
        }
        state.send(from, to, Message::Question { token, group, body });
        (token, rx)
    }

    fn open(self: &Arc<Net>, from: NodeId, to: NodeId) -> Result<SnapshotOut, TransportError> {
        let (parts, mut given) = mpsc::channel(PARTS);
        let (said, answers) = mpsc::channel(PARTS);
        let (heard, mut hearing) = mpsc::unbounded_channel();
        let id = {
            let mut state = self.state.lock();
            if state.cut.contains(&(from, to)) || !state.ports.contains_key(&to) {
                return Err(gone(to));
            }
            state.number += 1;
            let id = state.number;
            let stream = Stream {
                from,
                to,
                parts: None,
                answers: heard,
                arrives: [0, 0],
            };
            state.streams.insert(id, stream);
            state.send(from, to, Message::Begin(id));
            id
        };
        let net = self.clone();
        tokio::spawn(async move {
            while let Some(part) = given.recv().await {
                net.send(from, to, Message::Part(id, part));
            }
            net.send(from, to, Message::PartsEnd(id));
        });
        let net = self.clone();
        tokio::spawn(async move {
            while let Some(answer) = hearing.recv().await {
                let broken = answer.is_err();
                if said.send(answer).await.is_err() || broken {
                    break;
                }
            }
            net.state.lock().streams.remove(&id);
        });
        Ok(SnapshotOut { parts, answers })
    }
}

type Asked = oneshot::Receiver<Result<FrameBody, TransportError>>;

fn gone(node: NodeId) -> TransportError {
    TransportError::Unreachable {
        node,
        why: "it does not run, or its wires are cut".to_owned(),
    }
}

impl State {
    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        let on_stream = message.on_stream();
        let Some(port) = self.ports.get(&from) else {
            return;
        };
        let elapsed = Instant::now().saturating_duration_since(port.started);
        let sent = port.begun + u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX / 2);
        if on_stream.is_none() && self.wires.lost > 0 && self.dice.once_in(self.wires.lost) {
            self.lost += 1;
            return;
        }
        let mut arrives = sent + self.wires.least + self.dice.below(self.wires.more + 1);
        if let Some((id, direction)) = on_stream {
            let Some(stream) = self.streams.get_mut(&id) else {
                return;
            };
            let last = &mut stream.arrives[direction];
            arrives = arrives.max(*last);
            *last = arrives;
        }
        self.number += 1;
        let way = Way { from, to, message };
        self.under_way.insert((arrives, self.number), way);
    }

    fn break_streams(&mut self, which: impl Fn(&Stream) -> bool) {
        let broken: Vec<u64> = self
            .streams
            .iter()
            .filter(|(_, stream)| which(stream))
            .map(|(id, _)| *id)
            .collect();
        for id in broken {
            self.break_streams_at(id);
        }
    }

    fn break_streams_at(&mut self, id: u64) {
        if let Some(stream) = self.streams.remove(&id) {
            drop(stream.answers.send(Err(gone(stream.to))));
        }
    }
}

/// One node's end of the wires.
struct NodeNet {
    net: Arc<Net>,
    node: NodeId,
}

/// A question that is waited for; forgotten when nobody does any more.
struct Waiting {
    net: Arc<Net>,
    token: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.net.state.lock().waiting.remove(&self.token);
    }
}

impl Transport for NodeNet {
    fn serve(&self, node: Weak<dyn Serve>) {
        if let Some(port) = self.net.state.lock().ports.get_mut(&self.node) {
            port.serve = Some(node);
        }
    }

    fn ask(
        &self,
        to: NodeId,
        group: GroupId,
        body: FrameBody,
        within: Duration,
    ) -> BoxFuture<'static, Result<FrameBody, TransportError>> {
        let (net, from) = (self.net.clone(), self.node);
        Box::pin(async move {
            let (token, asked) = net.ask(from, to, group, body);
            let _waiting = Waiting { net, token };
            match tokio::time::timeout(within, asked).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(gone(to)),
                Err(_) => Err(TransportError::Late { node: to, within }),
            }
        })
    }

    fn open_snapshot(&self, to: NodeId) -> BoxFuture<'static, Result<SnapshotOut, TransportError>> {
        let (net, from) = (self.net.clone(), self.node);
        Box::pin(async move { net.open(from, to) })
    }

    fn frame_bytes(&self) -> usize {
        FRAME_BYTES
    }

    fn figures(&self) -> TransportFigures {
        TransportFigures::default()
    }

    fn stop(&self) {
        if let Some(port) = self.net.state.lock().ports.get_mut(&self.node) {
            port.serve = None;
        }
    }
}

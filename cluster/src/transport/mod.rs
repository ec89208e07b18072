//! The way between nodes: questions that are answered, and snapshots on streams of their own.
//!
//! [`Transport`] is the seam: gRPC on sockets behind it in earnest ([`peers`]), a simulated network in worlds. It
//! carries frames and parts; it does not know what a vote, an entry or a snapshot is, nor where a group lives.

pub mod dial;
mod incoming;
mod link;
pub mod peers;
mod probe;
mod server;
pub mod tls;
mod wire;

use crate::id::{GroupId, NodeId};
use futures::future::BoxFuture;
use std::sync::Weak;
use std::time::Duration;
use tokio::sync::mpsc;

pub use sojourn_proto::cluster::frame::Body as FrameBody;
pub use sojourn_proto::cluster::snapshot_answer::Answer as SnapshotAnswer;
pub use sojourn_proto::cluster::snapshot_part::Part as SnapshotPart;

/// Parts of a snapshot that may be on their way in a channel of this process; a part has about 256 KiB.
pub(crate) const SNAPSHOT_PARTS: usize = 4;

/// Why a question was not answered. In each case the other node may or may not have acted on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// There is no way to the node at the moment. It is tried again by itself.
    #[error("node {node} cannot be reached: {why}")]
    Unreachable {
        /// The node.
        node: NodeId,
        /// What happened at the last try.
        why: String,
    },
    /// More waits to be sent than a limit allows.
    #[error("{waiting} {what} wait to be sent to node {node}, the limit {limit} is reached")]
    Full {
        /// The node.
        node: NodeId,
        /// Of what: `frames` or `bytes`.
        what: &'static str,
        /// How many.
        waiting: usize,
        /// The limit's name.
        limit: &'static str,
    },
    /// No answer within the time given.
    #[error("node {node} has not answered within {} ms", within.as_millis())]
    Late {
        /// The node.
        node: NodeId,
        /// The time that it had.
        within: Duration,
    },
    /// The question is larger than may be sent.
    #[error("a frame for node {node} has {bytes} bytes, the limit message_bytes is {limit}")]
    TooLarge {
        /// The node.
        node: NodeId,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

/// What answers the other nodes' questions.
pub trait Serve: Send + Sync + 'static {
    /// Answers one question of node `from`. What cannot be answered is answered by `Refused` with the reason.
    fn answer(
        &self,
        from: NodeId,
        group: GroupId,
        body: FrameBody,
    ) -> BoxFuture<'static, FrameBody>;

    /// Takes the snapshot whose parts come from node `from`, and tells it through `answers` how that goes. `parts` ends
    /// early when the way breaks.
    fn take_snapshot(&self, from: NodeId, stream: SnapshotIn) -> BoxFuture<'static, ()>;
}

/// A snapshot on its way to this node.
#[derive(Debug)]
pub struct SnapshotIn {
    /// What the leader sends.
    pub parts: mpsc::Receiver<SnapshotPart>,
    /// What this node says.
    pub answers: mpsc::Sender<SnapshotAnswer>,
}

/// A snapshot on its way to another node.
#[derive(Debug)]
pub struct SnapshotOut {
    /// What this node sends. Closed when the way is broken.
    pub parts: mpsc::Sender<SnapshotPart>,
    /// What the other node says; ends with an error when the way breaks.
    pub answers: mpsc::Receiver<Result<SnapshotAnswer, TransportError>>,
}

/// The way to the other nodes.
///
/// Questions may be lost, delayed and reordered, also answered twice or never: what is asked must bear that.
pub trait Transport: Send + Sync + 'static {
    /// From now on, questions of other nodes are answered by `node`. Called once, by the host.
    fn serve(&self, node: Weak<dyn Serve>);

    /// Asks `to`, and waits at most `within` for the answer.
    fn ask(
        &self,
        to: NodeId,
        group: GroupId,
        body: FrameBody,
        within: Duration,
    ) -> BoxFuture<'static, Result<FrameBody, TransportError>>;

    /// Opens a stream for one snapshot.
    fn open_snapshot(&self, to: NodeId) -> BoxFuture<'static, Result<SnapshotOut, TransportError>>;

    /// How many bytes one frame may have.
    fn frame_bytes(&self) -> usize;

    /// Figures, now.
    fn figures(&self) -> TransportFigures;

    /// Stops serving and asking, for good.
    fn stop(&self);
}

/// What a transport counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransportFigures {
    /// The ways to other nodes, by node.
    pub peers: Vec<PeerFigures>,
    /// Connections from other nodes, now.
    pub incoming: usize,
    /// Streams from elsewhere that were refused: another cluster, another protocol, or no greeting.
    pub strangers: u64,
    /// Questions of other nodes that were answered.
    pub answered: u64,
    /// How the certificates are; `None` without TLS.
    pub tls: Option<tls::TlsFigures>,
}

/// The way to one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerFigures {
    /// The node.
    pub node: NodeId,
    /// Whether it can be reached now.
    pub up: bool,
    /// Why not, when it cannot.
    pub why: Option<String>,
    /// How often a stream to it was opened.
    pub connects: u64,
    /// Frames sent.
    pub frames_sent: u64,
    /// Messages that carried them; below `frames_sent`, frames shared one.
    pub messages_sent: u64,
    /// Bytes of those frames.
    pub bytes_sent: u64,
    /// Answers received.
    pub frames_received: u64,
    /// Frames that were not sent because a queue was full.
    pub refused_full: u64,
    /// Frames that wait to be sent, now.
    pub queue_frames: usize,
    /// Bytes that wait to be sent, now.
    pub queue_bytes: usize,
    /// Questions sent and not answered yet, now.
    pub unanswered: usize,
}

/// No other nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unconnected;

impl Transport for Unconnected {
    fn serve(&self, _node: Weak<dyn Serve>) {}

    fn ask(
        &self,
        to: NodeId,
        _group: GroupId,
        _body: FrameBody,
        _within: Duration,
    ) -> BoxFuture<'static, Result<FrameBody, TransportError>> {
        Box::pin(std::future::ready(Err(alone(to))))
    }

    fn open_snapshot(&self, to: NodeId) -> BoxFuture<'static, Result<SnapshotOut, TransportError>> {
        Box::pin(std::future::ready(Err(alone(to))))
    }

    fn frame_bytes(&self) -> usize {
        usize::MAX
    }

    fn figures(&self) -> TransportFigures {
        TransportFigures::default()
    }

    fn stop(&self) {}
}

fn alone(node: NodeId) -> TransportError {
    TransportError::Unreachable {
        node,
        why: "this host was opened without a transport".to_owned(),
    }
}

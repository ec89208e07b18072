//! openraft's way to the other members of a group, over the transport between nodes.
//!
//! This module does not know addresses, nor how frames travel.

use crate::id::{GroupId, NodeId};
use crate::snapshot;
use crate::transport::{FrameBody, Transport, TransportError};
use crate::types::{LogId, TypeConfig, Vote};
use crate::wire;
use futures::future::BoxFuture;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot};
use parking_lot::Mutex;
use sojourn_proto::cluster::append_answer::Outcome;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// After a failure the next append waits this long; heartbeats are sent as often.
const PAUSE: Duration = Duration::from_millis(100);
/// An append is cut to about this many bytes; openraft sends the rest when these are taken.
const APPEND_BYTES: usize = 1 << 20;

/// The way to the other members of one group.
#[derive(Clone)]
pub(crate) struct Network {
    pub group: GroupId,
    pub transport: Arc<dyn Transport>,
    pub pace: snapshot::Pace,
}

/// An append is waited for this long, although openraft asks again after each interval of heartbeats.
const APPENDED_WITHIN: Duration = Duration::from_secs(5);

/// The way to one of them.
pub(crate) struct Peer {
    network: Network,
    target: NodeId,
    appending: Option<Appending>,
}

/// An append that is not answered yet. openraft gives it up after 100 ms and asks the same again; a large entry or a slow
/// disk would then never be answered in time, and be sent for ever. So what is asked again is waited for on.
struct Appending {
    vote: Vote,
    prev: Option<LogId>,
    last: Option<LogId>,
    /// Locked by nobody: it only makes the future shareable, as openraft demands.
    answer: Mutex<Asked>,
}

impl Appending {
    /// Whether its answer answers `rpc` too, if only for the first of its entries.
    fn covers(&self, rpc: &AppendEntriesRequest<TypeConfig>) -> bool {
        self.vote == rpc.vote
            && self.prev == rpc.prev_log_id
            && rpc.entries.iter().any(|e| Some(e.log_id) == self.last)
    }
}

type AskError = RPCError<NodeId, EmptyNode, RaftError<NodeId>>;

fn unreachable(why: &(impl std::error::Error + 'static)) -> AskError {
    RPCError::Unreachable(Unreachable::new(why))
}

/// The other node answered, but not what was asked.
#[derive(Debug, thiserror::Error)]
#[error("node {node}: {why}")]
struct Odd {
    node: NodeId,
    why: String,
}

impl Peer {
    fn odd(&self, why: impl Into<String>) -> AskError {
        unreachable(&Odd {
            node: self.target,
            why: why.into(),
        })
    }

    async fn ask(&self, body: FrameBody, option: &RPCOption) -> Result<FrameBody, AskError> {
        let network = &self.network;
        let within = option.hard_ttl();
        let asked = network
            .transport
            .ask(self.target, network.group, body, within);
        self.answer(asked.await)
    }

    #[allow(clippy::result_large_err)] // openraft's own error
    fn answer(&self, asked: Result<FrameBody, TransportError>) -> Result<FrameBody, AskError> {
        match asked {
            Ok(FrameBody::Refused(refused)) => Err(self.odd(refused.why)),
            Ok(answer) => Ok(answer),
            // It may only be slow; asking again at once is right, and it was slow enough not to be too often.
            Err(error @ TransportError::Late { .. }) => {
                Err(RPCError::Network(NetworkError::new(&error)))
            }
            Err(error) => Err(unreachable(&error)),
        }
    }
}

type Asked = BoxFuture<'static, Result<FrameBody, TransportError>>;

/// The answer to an append; or that to a heartbeat sent meanwhile, when it says that this leader leads no more.
async fn disputed(beat: Option<Asked>, answer: &mut Asked) -> Result<FrameBody, TransportError> {
    if let Some(beat) = beat {
        tokio::select! {
            biased;
            asked = &mut *answer => return asked,
            beaten = beat => if let Ok(FrameBody::AppendAnswer(answer)) = beaten
                && answer.outcome() == Outcome::HigherVote
            {
                return Ok(FrameBody::AppendAnswer(answer));
            }
        }
    }
    answer.await
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, _node: &EmptyNode) -> Peer {
        Peer {
            network: self.clone(),
            target,
            appending: None,
        }
    }
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, AskError> {
        let (vote, prev) = (rpc.vote, rpc.prev_log_id);
        let end = rpc.entries.last().map(|e| e.log_id).or(prev);
        let (answer, last) = if rpc.entries.is_empty() {
            // A heartbeat says that the leader is there now.
            let (frame, _) = wire::append(&rpc, APPEND_BYTES);
            drop(rpc);
            (self.ask(frame, &option).await?, end)
        } else {
            let network = &self.network;
            let asks = |frame, within| {
                network
                    .transport
                    .ask(self.target, network.group, frame, within)
            };
            let mut beat = None;
            if self.appending.as_ref().is_some_and(|a| a.covers(&rpc)) {
                // openraft takes the repeated append for a heartbeat; the follower must not miss it.
                let rpc = AppendEntriesRequest {
                    entries: Vec::new(),
                    ..rpc
                };
                let (frame, _) = wire::append(&rpc, APPEND_BYTES);
                beat = Some(asks(frame, option.hard_ttl()));
            } else {
                let (frame, cut) = wire::append(&rpc, APPEND_BYTES);
                drop(rpc);
                self.appending = Some(Appending {
                    vote,
                    prev,
                    last: cut.or(end),
                    answer: Mutex::new(asks(frame, APPENDED_WITHIN)),
                });
            }
            let Some(appending) = &mut self.appending else {
                return Err(self.odd("the append is gone"));
            };
            let last = appending.last;
            // Here openraft may give up; then the next call goes on waiting.
            let asked = disputed(beat, appending.answer.get_mut()).await;
            self.appending = None;
            (self.answer(asked)?, last)
        };
        let FrameBody::AppendAnswer(answer) = answer else {
            return Err(self.odd("it did not answer what it was asked, an append"));
        };
        let answer = wire::append_answer_from(&answer, &vote, prev, last);
        match answer.map_err(|why| self.odd(why))? {
            AppendEntriesResponse::Success if last != end => {
                Ok(AppendEntriesResponse::PartialSuccess(last))
            }
            answer => Ok(answer),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<NodeId>,
        option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, AskError> {
        match self.ask(wire::vote(&rpc), &option).await? {
            FrameBody::VoteAnswer(answer) => {
                wire::vote_answer_from(&answer).map_err(|why| self.odd(why))
            }
            _ => Err(self.odd("it did not answer what it was asked, a vote")),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<TypeConfig>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let network = &self.network;
        let giving = snapshot::give(
            &*network.transport,
            network.group,
            self.target,
            vote,
            snapshot,
            &network.pace,
            option.hard_ttl(),
        );
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            given = giving => match given {
                Ok(vote) => Ok(SnapshotResponse { vote }),
                Err(why) => {
                    tracing::warn!(group = %network.group, node = self.target, %why, "a snapshot was not taken; it is tried again");
                    let error = Odd { node: self.target, why };
                    Err(StreamingError::Unreachable(Unreachable::new(&error)))
                }
            },
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(PAUSE))
    }
}

//! The way to the other nodes. There is none yet: a group of several voters finds its peers unreachable.
//!
//! This module does not know addresses; the transport between nodes takes its place.

use crate::id::NodeId;
use crate::types::{TypeConfig, Vote};
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{EmptyNode, OptionalSend, RaftNetwork, RaftNetworkFactory, Snapshot};
use std::future::Future;

/// Reaches nobody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unconnected;

/// The way to one node that cannot be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NoWay {
    target: NodeId,
}

impl NoWay {
    fn unreachable(self) -> Unreachable {
        Unreachable::new(&std::io::Error::new(
            std::io::ErrorKind::NotConnected,
            format!(
                "there is no way to node {}: this version has no transport between nodes",
                self.target
            ),
        ))
    }
}

impl RaftNetworkFactory<TypeConfig> for Unconnected {
    type Network = NoWay;

    async fn new_client(&mut self, target: NodeId, _node: &EmptyNode) -> NoWay {
        NoWay { target }
    }
}

impl RaftNetwork<TypeConfig> for NoWay {
    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, EmptyNode, RaftError<NodeId>>> {
        Err(self.unreachable().into())
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, EmptyNode, RaftError<NodeId>>> {
        Err(self.unreachable().into())
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot<TypeConfig>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        Err(self.unreachable().into())
    }
}

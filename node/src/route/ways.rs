//! Connections to the doors of the other nodes, one per node and address, made when they are first used.

use crate::catalog::ClusterState;
use crate::catalog::cluster::state_of;
use parking_lot::Mutex;
use sojourn_cluster::NodeId;
use sojourn_proto::v1;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// Connecting may take this long.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A connection on which nothing comes is asked after this long, and given up after as much again.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// The connections of this node.
pub struct Ways {
    cluster: watch::Receiver<Arc<ClusterState>>,
    open: Mutex<HashMap<NodeId, Way>>,
}

/// A connection.
#[derive(Clone)]
pub struct Way {
    /// Where it goes, host:port.
    pub address: String,
    /// The connection; it is made anew by itself when it breaks.
    pub channel: Channel,
}

impl Ways {
    /// None yet; addresses are those that the catalog has.
    pub fn new(cluster: watch::Receiver<Arc<ClusterState>>) -> Ways {
        Ways {
            cluster,
            open: Mutex::default(),
        }
    }

    /// Where clients reach a node, if it is a member.
    pub fn address(&self, node: NodeId) -> Option<String> {
        let cluster = self.cluster.borrow();
        let found = cluster.nodes.get(&node)?;
        let member = state_of(found) != v1::NodeState::Removed && !found.grpc.is_empty();
        member.then(|| found.grpc.clone())
    }

    /// The connection to a node.
    ///
    /// # Errors
    /// No address of it is known, or one that is none: a text.
    pub fn to(&self, node: NodeId) -> Result<Way, String> {
        let Some(address) = self.address(node) else {
            self.open.lock().remove(&node);
            return Err(format!("no address of node {node} is known"));
        };
        let mut open = self.open.lock();
        if let Some(way) = open.get(&node)
            && way.address == address
        {
            return Ok(way.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"));
        let endpoint = endpoint
            .map_err(|e| format!("the address {address:?} of node {node} cannot be used: {e}"))?;
        let channel = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .connect_lazy();
        let way = Way { address, channel };
        open.insert(node, way.clone());
        Ok(way)
    }
}

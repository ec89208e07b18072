//! How a node without an id gets one, and how one with an id says where it is.

use crate::node::NodeError;
use sojourn_cluster::transport::peers::PeerTransport;
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::Channel;

/// How long one try may take: adding a node is agreed on by the catalog.
const TRY_WITHIN: Duration = Duration::from_secs(10);
/// The pause between two rounds of tries.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a node tries to join before it gives up.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// Asks the nodes at `seeds` for an id, one after the other, until one gives it.
///
/// # Errors
/// None does in time, or one says why not.
pub async fn join(
    channels: &[(String, Channel)],
    request: wire::JoinRequest,
) -> Result<wire::JoinResponse, NodeError> {
    let until = Instant::now() + JOIN_WITHIN;
    let mut told = false;
    loop {
        let mut last = String::from("no address was given");
        for (address, channel) in channels {
            let mut client = NodesClient::new(channel.clone());
            let asked = client.join(request.clone());
            match tokio::time::timeout(TRY_WITHIN, asked).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => match status.code() {
                    tonic::Code::Unimplemented => {
                        return Err(NodeError::Other(format!(
                            "{address} is no peer port: it does not know what joining is; --join names the peer address \
                             of a node (default port 7412)"
                        )));
                    }
                    tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => {
                        return Err(NodeError::Other(format!(
                            "{address} refused: {}",
                            status.message()
                        )));
                    }
                    _ => last = format!("{address}: {}", status.message()),
                },
                Err(_) => last = format!("{address}: no answer within {} s", TRY_WITHIN.as_secs()),
            }
        }
        if Instant::now() > until {
            return Err(NodeError::Other(format!(
                "no node let this one join within {} s; the last answer was: {last}",
                JOIN_WITHIN.as_secs()
            )));
        }
        if !told {
            told = true;
            tracing::warn!(last, "no node lets this one join yet; trying on");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says where this node is, to whoever can be asked, until somebody has taken note.
pub async fn announce(
    transport: &PeerTransport,
    seeds: &[(String, Channel)],
    request: wire::AnnounceRequest,
) -> Result<(), NodeError> {
    let mut told = false;
    loop {
        let known = transport.addresses();
        let members = known
            .into_iter()
            .filter(|(node, _)| *node != request.node)
            .filter_map(|(node, address)| Some((address, transport.channel(node).ok()?)));
        let mut last = String::from("no other node is known");
        for (address, channel) in members.chain(seeds.iter().cloned()) {
            let mut client = NodesClient::new(channel);
            let asked = client.announce(request.clone());
            match tokio::time::timeout(TRY_WITHIN, asked).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                    return Err(NodeError::Other(status.message().to_owned()));
                }
                Ok(Err(status)) => last = format!("{address}: {}", status.message()),
                Err(_) => last = format!("{address}: no answer within {} s", TRY_WITHIN.as_secs()),
            }
        }
        if !told {
            told = true;
            tracing::warn!(
                last,
                "no node has taken note of where this one is; trying on"
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

//! Asks the other nodes how they are, all the time: a question waits at the other node until something changes there.
//! From the answers this node knows who owns what, who is away and since when, whether its clock can be trusted, and
//! whether the cluster still wants it.

use super::topology::Topology;
use crate::clock;
use sojourn_cluster::NodeId;
use sojourn_cluster::transport::peers::PeerTransport;
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long a question waits for news.
const WAIT: Duration = Duration::from_millis(1_000);
/// How much longer the answer may take.
const LATE: Duration = Duration::from_millis(1_500);
/// A node that could not be asked is asked again after this long.
const PAUSE: Duration = Duration::from_millis(200);
/// A clock that deviates by more is not trusted: timers and the times of decisions go by it. Microseconds.
pub const DEVIATION_MAX: i64 = 2_000_000;

/// Asks every node that the catalog knows, until the node stops. Also keeps the transport's addresses.
pub async fn hear(
    topology: Arc<Topology>,
    transport: Arc<PeerTransport>,
    cluster_id: String,
    mut cluster: watch::Receiver<Arc<crate::catalog::ClusterState>>,
    unwanted: watch::Sender<Option<String>>,
    stop: CancellationToken,
) {
    let mut asking: HashMap<NodeId, CancellationToken> = HashMap::new();
    loop {
        let now = cluster.borrow_and_update().clone();
        let present: HashMap<NodeId, String> = now
            .present()
            .filter(|n| n.id != topology.me)
            .map(|n| (n.id, n.peer.clone()))
            .collect();
        asking.retain(|node, stop| {
            let stays = present.contains_key(node);
            if !stays {
                stop.cancel();
                transport.set_address(*node, None);
                topology.forget(*node);
            }
            stays
        });
        for (node, address) in present {
            transport.set_address(node, Some(address));
            asking.entry(node).or_insert_with(|| {
                let stop = stop.child_token();
                let (topology, transport, id) =
                    (topology.clone(), transport.clone(), cluster_id.clone());
                let (ended, unwanted) = (stop.clone(), unwanted.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = ask(node, topology, transport, id, unwanted) => {}
                        () = ended.cancelled() => {}
                    }
                });
                stop
            });
        }
        topology.changed();
        tokio::select! {
            changed = cluster.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

async fn ask(
    node: NodeId,
    topology: Arc<Topology>,
    transport: Arc<PeerTransport>,
    cluster: String,
    unwanted: watch::Sender<Option<String>>,
) {
    let mut seen = 0;
    loop {
        let why = match transport.channel(node) {
            Ok(channel) => {
                let request = wire::StatusRequest {
                    cluster: cluster.clone(),
                    from: topology.me,
                    seen,
                    within_ms: WAIT.as_millis() as u32,
                };
                let mut client = NodesClient::new(channel);
                match tokio::time::timeout(WAIT + LATE, client.status(request)).await {
                    Ok(Ok(answer)) => {
                        let status = answer.into_inner();
                        if status.node == node {
                            seen = status.version;
                            let offset = status.clock - clock::wall().0;
                            topology.hear(node, status, offset);
                            continue;
                        }
                        // it lost its disk and joined anew, or another one got its address
                        format!("node {} answers at its address", status.node)
                    }
                    Ok(Err(status)) => {
                        if status.code() == tonic::Code::FailedPrecondition {
                            unwanted.send_replace(Some(status.message().to_owned()));
                        }
                        status.message().to_owned()
                    }
                    Err(_) => format!("no answer within {} ms", (WAIT + LATE).as_millis()),
                }
            }
            Err(error) => error.to_string(),
        };
        seen = 0;
        topology.lost(node, why);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Says whether this node's clock agrees with those of its peers, whenever that changes.
pub async fn watch_clocks(topology: Arc<Topology>, trusted: watch::Sender<bool>) {
    let mut version = topology.version();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        let offsets: Vec<i64> = topology
            .heard()
            .values()
            .filter_map(|heard| heard.clock_offset)
            .collect();
        let deviation = median(offsets);
        let agrees = deviation.is_none_or(|offset| offset.abs() <= DEVIATION_MAX);
        let changed = trusted.send_if_modified(|now| std::mem::replace(now, agrees) != agrees);
        if changed && !agrees {
            tracing::error!(
                seconds = deviation.unwrap_or(0) / 1_000_000,
                "this node's clock deviates from the median of its peers: it owns nothing until it agrees again"
            );
        } else if changed {
            tracing::info!("this node's clock agrees with its peers again");
        }
        tokio::select! {
            changed = version.changed() => if changed.is_err() { return },
            _ = tick.tick() => {}
        }
    }
}

/// The median of the others' clocks against ours; of an even number, the one nearer to ours, for with one other node
/// on each side nobody knows who is right.
fn median(mut offsets: Vec<i64>) -> Option<i64> {
    // our own clock is one of them
    if offsets.is_empty() {
        return None;
    }
    offsets.push(0);
    offsets.sort_unstable();
    let middle = offsets.len() / 2;
    if offsets.len() % 2 == 1 {
        return offsets.get(middle).copied();
    }
    let two = [offsets.get(middle - 1)?, offsets.get(middle)?];
    two.into_iter().min_by_key(|o| o.abs()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_clock_against_two_is_wrong_and_against_one_nobody_knows() {
        for (offsets, expected) in [
            (vec![], None),
            (vec![9_000_000], Some(0)),
            (vec![9_000_000, 9_100_000], Some(9_000_000)),
            (vec![-9_000_000, 0], Some(0)),
            (vec![9_000_000, 9_000_000, 10], Some(10)),
            (vec![-5_000_000, -5_000_000, -4_000_000], Some(-4_000_000)),
        ] {
            assert_eq!(median(offsets.clone()), expected, "{offsets:?}");
        }
    }
}

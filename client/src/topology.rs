//! Where customers are: what a node tells of its cluster ([`View`]), and the task that keeps listening to one. A hint:
//! any node takes any request and hands it over once, so a stale view costs a hop, never an answer.

use crate::lane::book::pause;
use crate::nodes::{Address, Nodes, address, endpoint};
use futures::stream::{FuturesUnordered, StreamExt as _};
use sojourn_journey::identifier;
use sojourn_proto::v1::{self, cluster_client::ClusterClient};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;

/// How long a node may take to tell where customers are before another is asked.
const FIRST: Duration = Duration::from_secs(5);
/// When a node that does not know the service is asked again: it may have been upgraded.
const LATER: Duration = Duration::from_secs(30);
/// When a node that did not answer under its address is looked for again, at first; it doubles up to 32 s.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// The hash that places a customer; `None` for an identifier that is not valid, which every node refuses alike.
pub(crate) fn place(workspace: &str, name: &str, value: &str) -> Option<u64> {
    let workspace = if workspace.is_empty() {
        "default"
    } else {
        workspace
    };
    let key = sojourn_journey::signal::Identifier::new(name, value).ok()?;
    Some(identifier::customer_hash(workspace, &key))
}

/// Which of `count` slices of all hashes this one is in: its high bits, for a power of two.
pub(crate) fn slice(hash: u64, count: usize) -> usize {
    let slice = (u128::from(hash) * count as u128) >> 64;
    usize::try_from(slice).unwrap_or(0)
}

/// What is known of a cluster; nothing, for a server that is alone or too old to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct View {
    nodes: BTreeMap<u64, Address>,
    /// By shard; 0: not known.
    owners: Vec<u64>,
}

impl View {
    pub fn of_wire(wire: &v1::Topology) -> View {
        // a node that advertises what is no address is reached through the others
        let nodes = wire.nodes.iter().map(|n| (n.id, address(&n.grpc)));
        let nodes = nodes.filter(|(_, a)| endpoint(a, FIRST).is_ok()).collect();
        let mut owners = wire.owners.clone();
        // a list that does not fit would place customers wrongly: better none
        if usize::try_from(wire.shards) != Ok(owners.len()) || !wire.shards.is_power_of_two() {
            owners.clear();
        }
        View { nodes, owners }
    }

    /// How many shards there are; 0 when that is not known.
    pub fn shards(&self) -> usize {
        self.owners.len()
    }

    /// The node that owns a shard.
    pub fn owner_of(&self, shard: usize) -> Option<&Address> {
        self.nodes.get(self.owners.get(shard)?)
    }

    /// The node that owns the customer with this hash.
    pub fn owner(&self, hash: u64) -> Option<&Address> {
        self.owner_of(slice(hash, self.owners.len()))
    }

    /// All nodes that may be asked.
    pub fn all(&self) -> impl Iterator<Item = &Address> {
        self.nodes.values()
    }

    /// Those that own something.
    pub fn owning(&self) -> BTreeSet<&Address> {
        let owners: BTreeSet<u64> = self.owners.iter().copied().collect();
        owners.iter().filter_map(|o| self.nodes.get(o)).collect()
    }
}

/// Listens to one node after another until nobody uses the nodes any more.
pub(crate) async fn watch(nodes: Weak<Nodes>, view: watch::Sender<Arc<View>>) {
    let mut watcher = Watcher {
        nodes,
        view,
        cluster: None,
        topology: v1::Topology::default(),
        trusted: HashSet::new(),
        doubtful: HashMap::new(),
        checks: FuturesUnordered::new(),
    };
    let mut failures = 0_u32;
    let mut avoid: Vec<Address> = Vec::new();
    loop {
        // not kept while waiting: this task alone must not keep the connections
        let Some((address, channel)) = watcher.nodes.upgrade().map(|n| n.ask(None, &avoid)) else {
            return;
        };
        let ended = watcher.listen(channel, &mut failures).await;
        let alone = match (ended, watcher.nodes.upgrade()) {
            (Ended::Closed, _) | (_, None) => return,
            (Ended::Unsupported, Some(nodes)) => !nodes.has_others(std::slice::from_ref(&address)),
            (Ended::Lost, Some(_)) => false,
        };
        let rest = if alone { LATER } else { pause(failures, None) };
        failures = failures.saturating_add(1);
        avoid = vec![address];
        tokio::select! {
            () = watcher.view.closed() => return,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Why listening to a node ended.
enum Ended {
    /// Nobody wants to know any more.
    Closed,
    /// The node does not know the service.
    Unsupported,
    /// The node is gone, hangs, or is of another cluster.
    Lost,
}

/// A node as the topology names it.
type Named = (u64, Address);
type Check = Pin<Box<dyn Future<Output = (Named, Option<Channel>)> + Send>>;

/// What is advertised may be reached by nobody, or lead elsewhere from here: through a tunnel, `127.0.0.1` is another
/// machine. So a node is only used under its own address once it has answered there, as that node of that cluster.
struct Watcher {
    nodes: Weak<Nodes>,
    view: watch::Sender<Arc<View>>,
    /// The cluster of the first node that told.
    cluster: Option<String>,
    topology: v1::Topology,
    trusted: HashSet<Named>,
    /// How often those failed that are being looked at.
    doubtful: HashMap<Named, u32>,
    checks: FuturesUnordered<Check>,
}

impl Watcher {
    /// Listens to one node as long as it tells.
    async fn listen(&mut self, channel: Channel, failures: &mut u32) -> Ended {
        let mut client =
            ClusterClient::new(channel).max_decoding_message_size(crate::lane::DECODE_MAX);
        let beginning =
            tokio::time::timeout(FIRST, client.watch_topology(v1::WatchTopologyRequest {}));
        let begun = tokio::select! {
            () = self.view.closed() => return Ended::Closed,
            begun = beginning => begun,
        };
        let mut answers = match begun {
            Ok(Ok(answers)) => answers.into_inner(),
            Ok(Err(status)) if status.code() == tonic::Code::Unimplemented => {
                return Ended::Unsupported;
            }
            Ok(Err(_)) | Err(_) => return Ended::Lost,
        };
        loop {
            let told = tokio::select! {
                () = self.view.closed() => return Ended::Closed,
                told = answers.message() => told,
                Some((named, channel)) = self.checks.next(), if !self.checks.is_empty() => {
                    self.checked(named, channel);
                    continue;
                }
            };
            let topology = match told {
                Ok(Some(topology)) => topology,
                Err(status) if status.code() == tonic::Code::Unimplemented => {
                    return Ended::Unsupported;
                }
                Ok(None) | Err(_) => return Ended::Lost,
            };
            let cluster = self.cluster.get_or_insert(topology.cluster.clone());
            if *cluster != topology.cluster {
                return Ended::Lost;
            }
            *failures = 0;
            self.topology = topology;
            let named: HashSet<Named> = View::of_wire(&self.topology).nodes.into_iter().collect();
            self.trusted.retain(|n| named.contains(n));
            for named in named {
                if !self.trusted.contains(&named) && !self.doubtful.contains_key(&named) {
                    self.doubtful.insert(named.clone(), 0);
                    self.check(named, Duration::ZERO);
                }
            }
            self.publish();
        }
    }

    /// Looks whether a node is where it says to be.
    fn check(&self, named: Named, after: Duration) {
        let Some(channel) = self.nodes.upgrade().map(|n| n.channel(&named.1)) else {
            return;
        };
        let cluster = self.topology.cluster.clone();
        self.checks.push(Box::pin(async move {
            tokio::time::sleep(after).await;
            let asked = channel.clone();
            let answering = async move {
                let mut client =
                    ClusterClient::new(asked).max_decoding_message_size(crate::lane::DECODE_MAX);
                let answers = client.watch_topology(v1::WatchTopologyRequest {}).await;
                answers.ok()?.into_inner().message().await.ok()?
            };
            let told = tokio::time::timeout(FIRST, answering).await.ok().flatten();
            let is = told.is_some_and(|t| t.cluster == cluster && t.node == named.0);
            (named, is.then_some(channel))
        }));
    }

    fn checked(&mut self, named: Named, channel: Option<Channel>) {
        let failures = self.doubtful.remove(&named).unwrap_or(0);
        let still = View::of_wire(&self.topology).nodes.get(&named.0) == Some(&named.1);
        match (channel, self.nodes.upgrade()) {
            (Some(channel), Some(nodes)) if still => {
                nodes.adopt(&named.1, channel);
                self.trusted.insert(named);
                self.publish();
            }
            (None, Some(_)) if still => {
                let after = CHECK_AGAIN.saturating_mul(1 << failures.min(5));
                self.doubtful.insert(named.clone(), failures + 1);
                self.check(named, after);
            }
            // the topology names it no more
            _ => {}
        }
    }

    /// Tells of the topology, as far as it can be trusted.
    fn publish(&self) {
        let mut new = View::of_wire(&self.topology);
        new.nodes
            .retain(|id, address| self.trusted.contains(&(*id, address.clone())));
        self.view.send_if_modified(|old| {
            let differs = **old != new;
            if differs {
                *old = Arc::new(new);
            }
            differs
        });
        if let Some(nodes) = self.nodes.upgrade() {
            nodes.forget_absent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(shards: u32, owners: &[u64]) -> v1::Topology {
        let node = |id: u64| v1::NodeInfo {
            id,
            grpc: format!("10.0.0.{id}:7410"),
            ..Default::default()
        };
        v1::Topology {
            shards,
            nodes: vec![node(1), node(2)],
            owners: owners.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn the_high_bits_of_a_hash_say_who_owns_it() {
        let view = View::of_wire(&topology(4, &[1, 2, 0, 9]));
        let cases = [
            (0, Some("http://10.0.0.1:7410")),
            (u64::MAX >> 2, Some("http://10.0.0.1:7410")),
            (1 << 62, Some("http://10.0.0.2:7410")),
            // nobody is known to own it
            (2 << 62, None),
            // who owns it is not among the nodes
            (u64::MAX, None),
        ];
        for (hash, owner) in cases {
            assert_eq!(view.owner(hash).map(|a| &**a), owner, "{hash:x}");
        }
        assert_eq!(view.owning().len(), 2);
    }

    #[test]
    fn a_list_of_owners_that_does_not_fit_is_not_used() {
        for (shards, owners) in [(4, &[1, 2][..]), (3, &[1, 2, 1]), (0, &[])] {
            let view = View::of_wire(&topology(shards, owners));
            assert_eq!((view.shards(), view.owner(7)), (0, None), "{shards}");
            assert_eq!(view.all().count(), 2, "its nodes are known all the same");
        }
    }

    #[test]
    fn customers_are_placed_as_the_vectors_say() {
        let vectors = include_str!("../../proto/vectors/customer-hash.json");
        let vectors: serde_json::Value = serde_json::from_str(vectors).expect("it is json");
        let mut seen = 0;
        for v in vectors["vectors"].as_array().expect("a list") {
            let word = |key: &str| v[key].as_str().expect("a text");
            let hash = place(word("workspace"), word("name"), word("given"));
            assert_eq!(
                hash.map(|h| format!("{h:016x}")).as_deref(),
                v["hash"].as_str()
            );
            seen += 1;
        }
        assert!(seen > 0);
        assert_eq!(place("w", "Not A Slug", "x"), None);
        assert_eq!(place("", "id", "x"), place("default", "id", " x "));
    }
}

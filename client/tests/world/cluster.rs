//! Several servers of one world: who owns which shard, and what a server does with a signal that is not its own. What is
//! applied, is applied in the one world, as if every replica had it.

use super::{Fault, Server, State, World};
use sojourn_client::wire::{self as v1, cluster_server};
use std::collections::BTreeMap;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

/// What all servers agree on.
#[derive(Default)]
pub struct Topology {
    /// The cluster's id.
    pub name: String,
    /// By shard, the id of a server; none: the world has no cluster.
    pub owners: Vec<u64>,
    /// What each advertises, by its id.
    pub addresses: BTreeMap<u64, String>,
    /// Servers hand over what is not theirs, instead of saying who owns it.
    pub hands_over: bool,
    /// How many signals and queries of customers each server was asked that were its own, and that were not.
    pub straight: BTreeMap<u64, u64>,
    pub astray: BTreeMap<u64, u64>,
    /// Those that take what comes and never answer.
    pub mute: Vec<u64>,
}

impl Topology {
    fn owner(&self, workspace: &str, name: &str, value: &str) -> u64 {
        use sojourn_journey::{identifier::customer_hash, signal::Identifier};
        let key = Identifier::new(name, value).expect("tests send valid customers");
        let hash = customer_hash(workspace, &key);
        let shard = (u128::from(hash) * self.owners.len() as u128) >> 64;
        self.owners[usize::try_from(shard).expect("it is small")]
    }

    fn wire(&self, node: u64) -> v1::Topology {
        let nodes = self.addresses.iter().map(|(id, address)| v1::NodeInfo {
            id: *id,
            grpc: address.clone(),
            ..Default::default()
        });
        v1::Topology {
            cluster: self.name.clone(),
            shards: u32::try_from(self.owners.len()).expect("it is small"),
            node,
            nodes: nodes.collect(),
            owners: self.owners.clone(),
            layout: 1,
        }
    }
}

impl State {
    /// What server `node` does with what concerns this customer, before it looks at it: nothing, or an error.
    pub fn asked_of(&mut self, node: u64, workspace: &str, customer: &v1::Identifier) -> Asked {
        let topology = &mut self.topology;
        if topology.owners.is_empty() {
            return Asked::Take;
        }
        let owner = topology.owner(workspace, &customer.name, &customer.value);
        let count = if owner == node {
            &mut topology.straight
        } else {
            &mut topology.astray
        };
        *count.entry(node).or_default() += 1;
        if topology.mute.contains(&node) {
            Asked::Mute
        } else if owner == node || owner != 0 && topology.hands_over {
            Asked::Take
        } else {
            Asked::Moved(owner, topology.addresses.get(&owner).cloned())
        }
    }
}

/// What becomes of a request at a server.
pub enum Asked {
    Take,
    Mute,
    Moved(u64, Option<String>),
}

impl Asked {
    /// Who owns it, as nodes say that.
    pub fn status(&self) -> Option<Status> {
        use tonic_types::{ErrorDetails, StatusExt as _};
        let Asked::Moved(owner, address) = self else {
            return None;
        };
        let mut about = std::collections::HashMap::new();
        if *owner != 0 {
            about.insert("owner".to_owned(), owner.to_string());
        }
        if let Some(address) = address {
            about.insert("address".to_owned(), address.clone());
        }
        let mut details = ErrorDetails::with_error_info("not_owner", "sojourn", about);
        details.set_retry_info(Some(std::time::Duration::from_millis(5)));
        let text = "the shard is owned by another node (injected)";
        Some(Status::with_error_details(Code::Unavailable, text, details))
    }

    /// The same for one of several.
    pub fn item(&self) -> Option<v1::ItemError> {
        self.status().map(|status| v1::ItemError {
            code: status.code() as i32,
            message: status.message().to_owned(),
            cause: "not_owner".into(),
            retry_after_ms: 5,
            violations: Vec::new(),
        })
    }
}

impl World {
    /// The owner of each shard, from now on.
    pub fn owners(&self, owners: &[u64]) {
        self.state().topology.owners = owners.to_vec();
        self.tell();
    }

    /// A server of a cluster of this world, which advertises its address.
    pub fn join(&self, id: u64) -> Server {
        let server = Server::of_node(self, id, Server::anywhere());
        self.advertise(id, &server.address.to_string());
        server
    }

    /// A server says that it is reached there.
    pub fn advertise(&self, id: u64, address: &str) {
        let addresses = &mut self.state().topology.addresses;
        addresses.insert(id, address.to_owned());
        self.tell();
    }

    /// Those who watch the topology are told of it.
    pub fn tell(&self) {
        self.1.send_modify(|version| *version += 1);
    }

    /// How many requests came, to whichever server.
    pub fn requests(&self) -> u64 {
        let topology = &self.state().topology;
        let all = topology.straight.values().chain(topology.astray.values());
        all.sum()
    }

    /// How many came straight to their owner and how many did not, since this was asked last.
    pub fn ways(&self) -> (u64, u64) {
        let topology = &mut self.state().topology;
        let straight = std::mem::take(&mut topology.straight);
        let astray = std::mem::take(&mut topology.astray);
        (straight.values().sum(), astray.values().sum())
    }
}

/// One server's part of a world.
#[derive(Clone)]
pub struct Node {
    pub world: World,
    /// 0: it has no cluster.
    pub id: u64,
}

impl Node {
    /// What becomes of a signal here.
    pub fn take(
        &self,
        workspace: &str,
        signal: &v1::Signal,
    ) -> (Fault, Option<v1::item_result::Result>) {
        let customer = signal.identifiers.first().cloned().unwrap_or_default();
        let asked = self.world.state().asked_of(self.id, workspace, &customer);
        match (&asked, asked.item()) {
            (_, Some(item)) => (Fault::Overload, Some(v1::item_result::Result::Error(item))),
            (Asked::Mute, _) => (Fault::Silent, None),
            _ => self.world.take(signal),
        }
    }
}

#[tonic::async_trait]
impl cluster_server::Cluster for Node {
    type WatchTopologyStream = Pin<Box<dyn Stream<Item = Result<v1::Topology, Status>> + Send>>;

    async fn watch_topology(
        &self,
        _: Request<v1::WatchTopologyRequest>,
    ) -> Result<Response<Self::WatchTopologyStream>, Status> {
        use tokio_stream::StreamExt as _;
        if self.id == 0 {
            return Err(Status::unimplemented("this world has no cluster"));
        }
        let (world, id) = (self.world.clone(), self.id);
        let versions = tokio_stream::wrappers::WatchStream::new(self.world.1.subscribe());
        let topologies = versions.map(move |_| Ok(world.state().topology.wire(id)));
        Ok(Response::new(Box::pin(topologies)))
    }

    async fn get_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::ClusterStatus>, Status> {
        Ok(Response::new(self.world.get_status()))
    }

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::PlanResponse>, Status> {
        Ok(Response::new(self.world.get_plan(request)))
    }

    async fn apply(
        &self,
        request: Request<v1::ApplyRequest>,
    ) -> Result<Response<v1::ApplyResponse>, Status> {
        self.world.begin(request)
    }

    async fn control(
        &self,
        request: Request<v1::ControlRequest>,
    ) -> Result<Response<v1::ControlResponse>, Status> {
        self.world.steer(request)
    }

    async fn transfer(
        &self,
        request: Request<v1::TransferRequest>,
    ) -> Result<Response<v1::TransferResponse>, Status> {
        self.world.hand_over(request)
    }

    async fn verify(
        &self,
        request: Request<v1::VerifyRequest>,
    ) -> Result<Response<v1::VerifyResponse>, Status> {
        Ok(Response::new(self.world.compare(request)))
    }
}

//! What the nodes of a cluster ask one another, on the peer port.

use super::Place;
use crate::catalog::cluster::{change_state, state_of};
use crate::catalog::{ChangeError, ClusterState};
use crate::clock;
use prost::Message;
use sojourn_cluster::{
    EntryKind, Group, GroupId, MemberError, NodeId, ProposeError, Role, ShardId, TransferError,
};
use sojourn_proto::cluster as wire;
use sojourn_proto::cluster::nodes_client::NodesClient;
use sojourn_proto::{stored, v1};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stored::catalog_change::Change;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// How long adding a node may take.
const JOIN_WITHIN: Duration = Duration::from_secs(5);
/// How long an owner may take to say who belongs to its group.
const MEMBERS_WITHIN: Duration = Duration::from_secs(2);
/// What is asked of a node may wait at most this long.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// A request is handed over once: whoever it reaches then owns the catalog, or does not know who does.
const HOPS_MAX: u32 = 1;

/// The service. It is there before the node is: until then it says so.
#[derive(Clone, Default)]
pub struct NodesService {
    /// The node, once it has started.
    pub place: Arc<OnceLock<Arc<Place>>>,
}

type Answered<T> = Result<Response<T>, Status>;

impl NodesService {
    fn place(&self) -> Result<Arc<Place>, Status> {
        let place = self.place.get().cloned();
        place.ok_or_else(|| Status::unavailable("this node is starting"))
    }

    /// This node's replica of a shard.
    fn group(
        &self,
        shard: u32,
    ) -> Result<(Arc<Place>, Option<Arc<crate::shard::owner::Shard>>), Status> {
        let place = self.place()?;
        let shard = u16::try_from(shard)
            .ok()
            .and_then(|n| place.shards.local(n));
        Ok((place, shard))
    }
}

/// A client of the owner of the catalog, for what was not handed over before.
fn owner_of_catalog(
    place: &Place,
    hops: u32,
) -> Result<NodesClient<tonic::transport::Channel>, Status> {
    let unknown = || Status::unavailable("nobody is known to own the catalog now; try again");
    let owner = place.catalog_owner().filter(|o| *o != place.me);
    let owner = owner.ok_or_else(unknown)?;
    if hops >= HOPS_MAX {
        return Err(Status::unavailable(format!(
            "node {owner} owns the catalog, not this one; try again"
        )));
    }
    let channel = place.transport.channel(owner);
    let channel = channel.map_err(|e| Status::unavailable(e.to_string()))?;
    Ok(NodesClient::new(channel))
}

fn refused(error: &ChangeError) -> Status {
    match error {
        ChangeError::Refused(why) => Status::failed_precondition(why.clone()),
        // nothing is wrong with what was asked: whoever asks tries again
        ChangeError::Busy => Status::unavailable(ChangeError::Busy.to_string()),
        ChangeError::NotOwner(why) => Status::unavailable(why.clone()),
        ChangeError::Unknown(why) => Status::deadline_exceeded(why.clone()),
    }
}

fn wait(ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(u64::from(ms)).min(WAIT_MAX)
}

/// How one group is, here.
pub fn group_status(group: &Group, catalog: u64, history_whole: bool) -> wire::GroupStatus {
    let (role, why, leader, term) = match group.role().borrow().clone() {
        Role::Owner { term, node, .. } => ("owner", String::new(), node, term),
        Role::Leading => ("leading", String::new(), 0, 0),
        Role::Follower { leader } => ("follower", String::new(), leader.unwrap_or(0), 0),
        Role::Closed { reason } => ("closed", reason, 0, 0),
    };
    let figures = group.figures();
    let members = group.members();
    let applied = figures.applied_index.unwrap_or(0);
    // one that is not applied here may still be undone
    let settled = members.at.is_none_or(|at| at.index <= applied);
    wire::GroupStatus {
        group: group.id().0,
        role: role.to_owned(),
        why,
        term,
        leader,
        applied,
        last: figures.last_index.unwrap_or(0),
        catalog,
        history_whole,
        voters: members.voters.into_iter().collect(),
        learners: members.learners.into_iter().collect(),
        changing: members.changing || !settled,
        target: members.target.into_iter().collect(),
    }
}

/// How every group of this node is.
pub fn statuses(place: &Place) -> Vec<wire::GroupStatus> {
    let catalog = place.catalog.group();
    let mut all = vec![group_status(catalog, place.catalog.newest().position, true)];
    for shard in place.shards.all() {
        let at = *shard.machine.catalog.borrow();
        let whole = sojourn_cluster::Machine::history_is_whole(&*shard.machine);
        all.push(group_status(&shard.group, at, whole));
    }
    all
}

#[tonic::async_trait]
impl wire::nodes_server::Nodes for NodesService {
    async fn join(&self, request: Request<wire::JoinRequest>) -> Answered<wire::JoinResponse> {
        let place = self.place()?;
        let mut request = request.into_inner();
        if !place.owns_catalog() {
            let mut owner = owner_of_catalog(&place, request.hops)?;
            request.hops += 1;
            return owner.join(request).await;
        }
        for (field, found) in [("peer", &request.peer), ("grpc", &request.grpc)] {
            if found.is_empty() || found.len() > 512 || !found.contains(':') {
                return Err(Status::invalid_argument(format!(
                    "{field}: found {found:?}, expected host:port"
                )));
            }
        }
        if request.token.len() != 16 {
            return Err(Status::invalid_argument(format!(
                "token: found {} bytes, expected 16",
                request.token.len()
            )));
        }
        let format = place.catalog.facts().map_or(0, |facts| facts.format);
        if request.format < format {
            return Err(Status::failed_precondition(format!(
                "the node writes format {}, the cluster has format {format}: join with the version that the other nodes \
                 have",
                request.format
            )));
        }
        let (token, peer) = (request.token.clone(), request.peer.clone());
        let changed = place
            .catalog
            .change_cluster("", JOIN_WITHIN, move |cluster| {
                if cluster.nodes.values().any(|n| n.token == request.token) {
                    return Ok(None);
                }
                if cluster.present().count() >= crate::limits::NODES {
                    return Err(format!(
                        "the cluster has {} nodes, as many as it may; remove one first",
                        crate::limits::NODES
                    ));
                }
                Ok(Some(Change::AddNode(stored::CatalogNode {
                    id: cluster.last_node + 1,
                    name: request.name,
                    peer: request.peer,
                    grpc: request.grpc,
                    http: request.http,
                    zone: request.zone,
                    state: v1::NodeState::Joining as u32,
                    joined_at: 0,
                    token: request.token,
                })))
            });
        let cluster = changed.await.map_err(|e| refused(&e))?;
        let node = cluster.nodes.values().find(|n| n.token == token);
        let node = node.ok_or_else(|| Status::unavailable("the node was not added; ask again"))?;
        if state_of(node) == v1::NodeState::Removed {
            return Err(Status::failed_precondition(format!(
                "node {} was removed; begin with an empty data folder",
                node.id
            )));
        }
        place.transport.set_address(node.id, Some(peer));
        let until = Instant::now() + JOIN_WITHIN;
        let added = place.catalog.group().add_learner(node.id, until).await;
        let at = added.map_err(|e| Status::unavailable(e.to_string()))?;
        tracing::info!(node = node.id, peer = node.peer, "a node joins");
        let members = cluster.present().map(|n| wire::Member {
            node: n.id,
            peer: n.peer.clone(),
        });
        Ok(Response::new(wire::JoinResponse {
            cluster: place.cluster.clone(),
            node: node.id,
            members: members.collect(),
            catalog: at.index,
        }))
    }

    async fn announce(
        &self,
        request: Request<wire::AnnounceRequest>,
    ) -> Answered<wire::AnnounceResponse> {
        let place = self.place()?;
        let mut request = request.into_inner();
        if request.cluster != place.cluster {
            return Err(Status::failed_precondition(format!(
                "found cluster {:?}, expected {:?}; the data folder belongs to another cluster",
                request.cluster, place.cluster
            )));
        }
        if !place.owns_catalog() {
            let mut owner = owner_of_catalog(&place, request.hops)?;
            request.hops += 1;
            return owner.announce(request).await;
        }
        let changed = place
            .catalog
            .change_cluster("", JOIN_WITHIN, |cluster| announced(cluster, &request));
        changed.await.map_err(|e| refused(&e))?;
        Ok(Response::new(wire::AnnounceResponse {}))
    }

    async fn status(
        &self,
        request: Request<wire::StatusRequest>,
    ) -> Answered<wire::StatusResponse> {
        let place = self.place()?;
        let request = request.into_inner();
        if request.cluster != place.cluster {
            return Err(Status::invalid_argument("this node is of another cluster"));
        }
        let cluster = place.topology.cluster();
        let asks = cluster.nodes.get(&request.from);
        if asks.is_some_and(|n| state_of(n) == v1::NodeState::Removed) {
            return Err(Status::failed_precondition(removed(request.from)));
        }
        let mut version = place.topology.own_version();
        let until = wait(request.within_ms);
        let news = version.wait_for(|version| *version != request.seen);
        // without news, the same once more: it says that this node lives
        drop(tokio::time::timeout_at(until, news).await);
        let version = *version.borrow();
        Ok(Response::new(wire::StatusResponse {
            node: place.me,
            groups: statuses(&place),
            stopping: place.stopping.is_cancelled() || !*place.may_own.borrow(),
            version,
            clock: clock::wall().0,
        }))
    }

    async fn await_catalog(
        &self,
        request: Request<wire::AwaitCatalogRequest>,
    ) -> Answered<wire::AwaitCatalogResponse> {
        let place = self.place()?;
        let request = request.into_inner();
        let until = wait(request.within_ms);
        let mut shards = Vec::new();
        for shard in place.shards.all() {
            if !matches!(&*shard.group.role().borrow(), Role::Owner { .. }) {
                continue;
            }
            let why = shard.await_catalog(request.position, until).await;
            shards.push(wire::Lag {
                shard: shard.number.into(),
                reached: why.is_none(),
                why: why.unwrap_or_default(),
            });
        }
        Ok(Response::new(wire::AwaitCatalogResponse { shards }))
    }

    async fn step(&self, request: Request<wire::StepRequest>) -> Answered<wire::StepResponse> {
        let place = self.place()?;
        let answer = take_step(&place, request.into_inner()).await;
        Ok(Response::new(answer))
    }

    async fn members(
        &self,
        request: Request<wire::MembersRequest>,
    ) -> Answered<wire::MembersResponse> {
        let (_, shard) = self.group(request.into_inner().shard)?;
        let until = Instant::now() + MEMBERS_WITHIN;
        // whoever was deposed does not know who belongs to it since
        let confirmed = match &shard {
            Some(shard) => shard.group.read_index(until).await.ok(),
            None => None,
        };
        let (Some(shard), Some(at)) = (shard, confirmed) else {
            let not_owner = true;
            return Ok(Response::new(wire::MembersResponse {
                not_owner,
                ..Default::default()
            }));
        };
        let members = shard.group.members();
        let settled = members.at.is_none_or(|said| said.index <= at.index);
        Ok(Response::new(wire::MembersResponse {
            voters: members.voters.into_iter().collect(),
            learners: members.learners.into_iter().collect(),
            changing: members.changing || !settled,
            not_owner: false,
        }))
    }

    async fn counters(
        &self,
        request: Request<wire::CountersRequest>,
    ) -> Answered<wire::CountersResponse> {
        let request = request.into_inner();
        let (_, shard) = self.group(request.shard)?;
        let until = Instant::now() + crate::limits::DEADLINE;
        let confirmed = match &shard {
            Some(shard) => shard.group.read_index(until).await.ok(),
            None => None,
        };
        let (Some(shard), Some(_)) = (shard, confirmed) else {
            let not_owner = true;
            return Ok(Response::new(wire::CountersResponse {
                not_owner,
                ..Default::default()
            }));
        };
        let state = shard.duties.state.lock();
        let counters = state
            .counters
            .of_journey(&request.workspace, &request.journey);
        Ok(Response::new(wire::CountersResponse {
            counters: stored::ShardMeta {
                counters: counters.to_stored(),
                ..Default::default()
            }
            .encode_to_vec()
            .into(),
            applied: state.applied,
            not_owner: false,
        }))
    }

    async fn hash_at(
        &self,
        request: Request<wire::HashAtRequest>,
    ) -> Answered<wire::HashAtResponse> {
        let request = request.into_inner();
        let until = wait(request.within_ms);
        let place = self.place()?;
        let answer = hash_at(&place, request.shard, request.index, until).await;
        Ok(Response::new(answer))
    }

    async fn propose_verify(
        &self,
        request: Request<wire::ProposeVerifyRequest>,
    ) -> Answered<wire::ProposeVerifyResponse> {
        let place = self.place()?;
        let answer = propose_verify(&place, request.into_inner().shard).await;
        Ok(Response::new(answer))
    }
}

/// The hash that this node's replica made at an entry that asked for one.
pub async fn hash_at(
    place: &Place,
    shard: u32,
    index: u64,
    until: Instant,
) -> wire::HashAtResponse {
    let why = |why: String| wire::HashAtResponse {
        hash: String::new(),
        why,
    };
    let Some(shard) = u16::try_from(shard)
        .ok()
        .and_then(|n| place.shards.local(n))
    else {
        return why(format!("node {} has no replica of it", place.me));
    };
    // whoever applies an entry hashes first; what a snapshot covers is applied, and hashed by nobody here
    let mut applied = shard.group.applied();
    let there = applied.wait_for(|at| at.is_some_and(|at| at.index >= index));
    if !matches!(tokio::time::timeout_at(until, there).await, Ok(Ok(_))) {
        return why(format!(
            "it has not applied entry {index} yet; it is at {}",
            shard.group.applied().borrow().map_or(0, |p| p.index)
        ));
    }
    let made = shard.machine.hashes.borrow();
    match made.iter().find(|(at, _)| *at == index) {
        Some((_, hash)) => wire::HashAtResponse {
            hash: format!("{hash:032x}"),
            why: String::new(),
        },
        None => why("it did not apply that entry itself: a snapshot covers it".to_owned()),
    }
}

/// Proposes an entry at which every replica hashes its state, if this node owns the shard.
pub async fn propose_verify(place: &Place, shard: u32) -> wire::ProposeVerifyResponse {
    let mut answer = wire::ProposeVerifyResponse::default();
    let Some(shard) = u16::try_from(shard)
        .ok()
        .and_then(|n| place.shards.local(n))
    else {
        answer.not_owner = true;
        return answer;
    };
    let until = Instant::now() + crate::limits::DEADLINE;
    let proposed = shard
        .group
        .propose(EntryKind::Verify, bytes::Bytes::new(), until)
        .await;
    match proposed {
        Ok(proposed) => answer.index = proposed.at.index,
        Err(ProposeError::NotOwner { .. }) => answer.not_owner = true,
        Err(error) => answer.why = error.to_string(),
    }
    answer
}

/// What a node is told that the cluster has removed.
fn removed(node: NodeId) -> String {
    format!(
        "node {node} was removed from the cluster; it joins again under a new id, with an empty data folder and --join"
    )
}

/// What becomes of a node that says where it is; `None` when that is known.
pub fn announced(
    cluster: &ClusterState,
    request: &wire::AnnounceRequest,
) -> Result<Option<Change>, String> {
    let said = stored::CatalogNode {
        id: request.node,
        name: request.name.clone(),
        peer: request.peer.clone(),
        grpc: request.grpc.clone(),
        http: request.http.clone(),
        zone: request.zone.clone(),
        state: v1::NodeState::Active as u32,
        joined_at: 0,
        token: bytes::Bytes::new(),
    };
    let Some(known) = cluster.nodes.get(&request.node) else {
        if cluster.last_node == 0 {
            return Ok(Some(Change::UpdateNode(said)));
        }
        return Err(format!("there is no node {}", request.node));
    };
    if state_of(known) == v1::NodeState::Removed {
        return Err(removed(request.node));
    }
    let same = stored::CatalogNode {
        state: match state_of(known) {
            v1::NodeState::Joining => said.state,
            _ => known.state,
        },
        joined_at: known.joined_at,
        token: known.token.clone(),
        ..said.clone()
    };
    Ok((same != *known).then_some(Change::UpdateNode(said)))
}

/// Whether a step belongs to a change that goes on, as far as this node knows: one that comes late would change what the
/// layout was made from meanwhile.
fn is_of_its_change(cluster: &ClusterState, request: &wire::StepRequest) -> bool {
    let change = cluster.changing().filter(|c| c.id == request.change);
    // only by hand, or by a version that does not say
    request.change.is_empty()
        || change.is_some_and(|change| {
            change_state(change) == v1::ChangeState::Running || request.cancelling
        })
}

/// Takes one step of a change at the owner of a shard, if that is this node.
pub async fn take_step(place: &Place, request: wire::StepRequest) -> wire::StepResponse {
    use wire::step_request::Step;
    let refused = |why: String| wire::StepResponse {
        refused: why,
        ..Default::default()
    };
    let shard = u16::try_from(request.shard).ok();
    let Some(shard) = shard.and_then(|n| place.shards.local(n)) else {
        return wire::StepResponse {
            not_owner: true,
            ..Default::default()
        };
    };
    if !is_of_its_change(&place.topology.cluster(), &request) {
        return refused(format!(
            "change {} does not run, as far as node {} knows",
            request.change, place.me
        ));
    }
    let Some(step) = request.step else {
        return refused("the step is one that this version does not know".to_owned());
    };
    let (group, until) = (&shard.group, wait(request.within_ms));
    let changed = match step {
        Step::AddLearner(node) => group.add_learner(node, until).await,
        Step::AwaitCaughtUp(node) => group.caught_up(node, until).await,
        Step::ChangeVoters(set) => {
            group
                .change_voters(set.voters.into_iter().collect(), until)
                .await
        }
        Step::RemoveLearner(node) => group.remove_learner(node, until).await,
        Step::Transfer(node) => return transferred(group.transfer_to(node, until).await),
    };
    let mut answer = wire::StepResponse::default();
    match changed {
        Ok(at) => answer.index = at.index,
        Err(MemberError::NotOwner { leader }) => {
            answer.not_owner = true;
            answer.leader = leader.unwrap_or(0);
        }
        Err(MemberError::Unknown { why }) => answer.unknown = why,
        Err(error @ (MemberError::Refused { .. } | MemberError::Closed { .. })) => {
            answer.refused = error.to_string();
        }
    }
    answer
}

fn transferred(outcome: Result<(), TransferError>) -> wire::StepResponse {
    let mut answer = wire::StepResponse::default();
    match outcome {
        Ok(()) => {}
        Err(TransferError::NotOwner { leader }) => {
            answer.not_owner = true;
            answer.leader = leader.unwrap_or(0);
        }
        Err(TransferError::Late { why }) => answer.unknown = why,
        Err(error) => answer.refused = error.to_string(),
    }
    answer
}

/// The group of a shard.
pub fn group_of(shard: u16) -> GroupId {
    GroupId::of_shard(ShardId(shard))
}

/// A node's id as it is shown.
pub fn shown(node: Option<NodeId>) -> String {
    node.map_or_else(|| "nobody known".to_owned(), |node| format!("node {node}"))
}

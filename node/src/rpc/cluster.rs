//! The Cluster service: nodes, shards, changes. Served to clients, and to nodes that hand a call to the owner of the
//! catalog.

use super::control::control;
use super::errors::{self, with_reason};
use crate::catalog::ChangeError;
use crate::catalog::cluster::{change_state, state_of};
use crate::clock;
use crate::core::deadline;
use crate::place::topology::Owner;
use crate::place::{Place, auto, changes, executor, service, verify};
use crate::route::call::FORWARDED;
use sojourn_cluster::{NodeId, ShardId};
use sojourn_proto::v1::cluster_client::ClusterClient;
use sojourn_proto::{cluster as wire, stored, v1};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use stored::catalog_change::Change;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// The topology is told at most this often.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// It is told again after this long without news, so that both sides know that the other is there.
const TELL_ANYWAY: Duration = Duration::from_secs(30);

/// The service. It is there before the node is: until then it says so.
#[derive(Clone, Default)]
pub struct ClusterService {
    /// The node, once it has started.
    pub place: Arc<OnceLock<Arc<Place>>>,
}

type Answered<T> = Result<Response<T>, Status>;

pub(super) fn refused(error: ChangeError) -> Status {
    match error {
        ChangeError::Refused(why) => with_reason(Code::FailedPrecondition, "refused", why),
        ChangeError::Busy => with_reason(Code::Unavailable, "busy", ChangeError::Busy.to_string()),
        ChangeError::NotOwner(why) => with_reason(Code::Unavailable, "not_owner", why),
        ChangeError::Unknown(why) => with_reason(Code::DeadlineExceeded, "unknown_outcome", why),
    }
}

impl ClusterService {
    fn place(&self) -> Result<Arc<Place>, Status> {
        let place = self.place.get().cloned();
        place.ok_or_else(|| with_reason(Code::Unavailable, "starting", "this node is starting"))
    }

    /// A client of the owner of the catalog; `None` when that is this node.
    async fn owner(
        &self,
        place: &Place,
        metadata: &tonic::metadata::MetadataMap,
        within: Duration,
    ) -> Result<Option<ClusterClient<tonic::transport::Channel>>, Status> {
        let until = tokio::time::Instant::now() + within;
        let mut version = place.topology.version();
        let mut role = place.catalog.group().role();
        loop {
            version.borrow_and_update();
            role.borrow_and_update();
            if place.owns_catalog() {
                return Ok(None);
            }
            if let Some(owner) = place.catalog_owner().filter(|o| *o != place.me) {
                if metadata.contains_key(FORWARDED) {
                    return Err(with_reason(
                        Code::Unavailable,
                        "not_owner",
                        format!(
                            "node {owner} owns the catalog, not node {}; try again",
                            place.me
                        ),
                    ));
                }
                let channel = place.transport.channel(owner);
                let channel = channel.map_err(|e| Status::unavailable(e.to_string()))?;
                return Ok(Some(ClusterClient::new(channel)));
            }
            let news = async {
                tokio::select! {
                    _ = version.changed() => {}
                    _ = role.changed() => {}
                }
            };
            if tokio::time::timeout_at(until, news).await.is_err() {
                let why = changes::catalog_lost(&catalog_voters(place), &auto::away(place));
                let why = why.unwrap_or_else(|| {
                    "nobody is known to own the catalog now; try again".to_owned()
                });
                return Err(with_reason(Code::Unavailable, "not_owner", why));
            }
        }
    }
}

/// The same request, marked as handed over.
fn handed_over<T>(message: T, within: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(within);
    let metadata = request.metadata_mut();
    metadata.insert(FORWARDED, tonic::metadata::MetadataValue::from_static("1"));
    request
}

type Topologies = Pin<Box<dyn Stream<Item = Result<v1::Topology, Status>> + Send>>;

#[tonic::async_trait]
impl v1::cluster_server::Cluster for ClusterService {
    type WatchTopologyStream = Topologies;

    async fn watch_topology(
        &self,
        _request: Request<v1::WatchTopologyRequest>,
    ) -> Answered<Topologies> {
        let place = self.place()?;
        let (tx, rx) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut version = place.topology.version();
            let mut told: Option<v1::Topology> = None;
            loop {
                version.borrow_and_update();
                let now = topology(&place);
                if told.as_ref() != Some(&now) {
                    told = Some(now.clone());
                    if tx.send(Ok(now)).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(TELL_EVERY).await;
                tokio::select! {
                    changed = tokio::time::timeout(TELL_ANYWAY, version.changed()) => match changed {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return,
                        Err(_) => told = None,
                    },
                    () = tx.closed() => return,
                    () = place.stopping.cancelled() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetClusterStatusRequest>,
    ) -> Answered<v1::ClusterStatus> {
        let place = self.place()?;
        Ok(Response::new(status(&place)))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Answered<v1::PlanResponse> {
        let place = self.place()?;
        let wishes = request.into_inner().wishes;
        let cluster = place.topology.cluster();
        if let Some(change) = cluster.changing() {
            return Err(with_reason(
                Code::FailedPrecondition,
                "refused",
                format!(
                    "change {} is under way; wait for it, or cancel it",
                    change.id
                ),
            ));
        }
        let planned = changes::plan(
            &cluster,
            &wishes,
            &auto::away(&place),
            &catalog_voters(&place),
        )
        .map_err(|why| with_reason(Code::FailedPrecondition, "refused", why))?;
        let moves = planned.plan.moves.iter().map(|m| v1::Move {
            shard: m.shard.0.into(),
            add: m.add.clone(),
            remove: m.remove.clone(),
            voters: m.voters.clone(),
        });
        Ok(Response::new(v1::PlanResponse {
            notes: changes::notes(&planned),
            layout: if planned.is_empty() {
                0
            } else {
                planned.plan.target.version()
            },
            moves: moves.collect(),
            before: changes::loads(&cluster, &planned.before),
            after: changes::loads(&cluster, &planned.plan.target),
            node: place.me,
        }))
    }

    async fn apply(&self, request: Request<v1::ApplyRequest>) -> Answered<v1::ApplyResponse> {
        let place = self.place()?;
        let within = deadline(request.metadata());
        if let Some(mut owner) = self.owner(&place, request.metadata(), within).await? {
            return owner.apply(handed_over(request.into_inner(), within)).await;
        }
        let request = request.into_inner();
        let (away, voters) = (auto::away(&place), catalog_voters(&place));
        let id = auto::change_id();
        let mut begun = false;
        let changed = place
            .catalog
            .change_cluster(&request.actor, within, |cluster| {
                if let Some(change) = cluster.changing() {
                    return Err(format!(
                        "change {} is under way; wait for it, or cancel it",
                        change.id
                    ));
                }
                let now = cluster.layout()?.version();
                if request.expected_layout != 0 && request.expected_layout != now {
                    return Err(format!(
                        "the layout is version {now}, expected {}; plan again",
                        request.expected_layout
                    ));
                }
                let planned = changes::plan(cluster, &request.wishes, &away, &voters)?;
                if planned.is_empty() {
                    return Ok(None);
                }
                begun = true;
                Ok(Some(Change::BeginChange(planned.begin(
                    id.clone(),
                    request.wishes.clone(),
                    request.actor.clone(),
                    request.reason.clone(),
                ))))
            });
        let cluster = changed.await.map_err(|error| {
            let lost = || changes::catalog_lost(&voters, &auto::away(&place));
            match error {
                // that nobody leads is the symptom
                ChangeError::NotOwner(why) => refused(ChangeError::NotOwner(lost().unwrap_or(why))),
                error => refused(error),
            }
        })?;
        let change = cluster.change.as_ref().filter(|c| begun && c.id == id);
        Ok(Response::new(v1::ApplyResponse {
            change: Some(change.map(change_to).unwrap_or_default()),
        }))
    }

    async fn control(&self, request: Request<v1::ControlRequest>) -> Answered<v1::ControlResponse> {
        let place = self.place()?;
        let within = deadline(request.metadata());
        if let Some(mut owner) = self.owner(&place, request.metadata(), within).await? {
            return owner
                .control(handed_over(request.into_inner(), within))
                .await;
        }
        let request = request.into_inner();
        let cluster = control(&place, &request, within).await?;
        Ok(Response::new(v1::ControlResponse {
            change: cluster.change.as_ref().map(change_to),
        }))
    }

    async fn transfer(
        &self,
        request: Request<v1::TransferRequest>,
    ) -> Answered<v1::TransferResponse> {
        let place = self.place()?;
        let request = request.into_inner();
        let shard = shard_of(&place, request.shard)?;
        let was = match place.topology.owner(shard) {
            Owner::Here(_) => place.me,
            Owner::There(node) => node,
            Owner::Unknown => {
                let text = format!("nobody is known to own shard {shard} now; try again");
                return Err(with_reason(Code::Unavailable, "not_owner", text));
            }
        };
        if was != request.to {
            let step = wire::step_request::Step::Transfer(request.to);
            executor::take(&place, was, shard, step, executor::For::Hand)
                .await
                .map_err(|why| with_reason(Code::FailedPrecondition, "refused", why))?;
        }
        Ok(Response::new(v1::TransferResponse {
            owner: request.to,
            was,
        }))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Answered<v1::VerifyResponse> {
        let place = self.place()?;
        let within = deadline(request.metadata());
        let mut wanted = Vec::new();
        for shard in request.into_inner().shards {
            wanted.push(shard_of(&place, shard)?);
        }
        if wanted.is_empty() {
            wanted = (0..place.shards.count()).collect();
        }
        let shards = verify::verify(&place, &wanted, within).await;
        Ok(Response::new(v1::VerifyResponse {
            equal: shards.iter().all(|s| s.equal),
            shards,
        }))
    }
}

fn catalog_voters(place: &Place) -> BTreeSet<NodeId> {
    place.catalog.group().members().voters
}

fn shard_of(place: &Place, shard: u32) -> Result<u16, Status> {
    let count = place.shards.count();
    u16::try_from(shard)
        .ok()
        .filter(|n| *n < count)
        .ok_or_else(|| {
            errors::invalid_field(
                "shard",
                format!("found {shard}, expected 0 to {}", count.saturating_sub(1)),
            )
        })
}

fn node_to(node: &stored::CatalogNode) -> v1::NodeInfo {
    v1::NodeInfo {
        id: node.id,
        name: node.name.clone(),
        grpc: node.grpc.clone(),
        http: node.http.clone(),
        peer: node.peer.clone(),
        zone: node.zone.clone(),
        state: state_of(node) as i32,
        joined_at: node.joined_at,
    }
}

fn change_to(change: &stored::ClusterChange) -> v1::Change {
    v1::Change {
        id: change.id.clone(),
        state: change_state(change) as i32,
        wishes: change.wishes.clone(),
        actor: change.actor.clone(),
        reason: change.reason.clone(),
        begun_at: change.begun_at,
        ended_at: change.ended_at,
        layout: change.layout,
        moves: change.shards.len() as u32,
        moved: change.moved.len() as u32,
        steps: change
            .steps
            .iter()
            .map(|s| v1::StepStatus {
                shard: s.shard,
                step: s.step.clone(),
                since: s.since,
                why: String::new(),
            })
            .collect(),
        note: change.note.clone(),
    }
}

fn owner_of(place: &Place, shard: u16) -> NodeId {
    match place.topology.owner(shard) {
        Owner::Here(_) => place.me,
        Owner::There(node) => node,
        Owner::Unknown => 0,
    }
}

fn topology(place: &Place) -> v1::Topology {
    let cluster = place.topology.cluster();
    let askable = cluster
        .present()
        .filter(|n| matches!(state_of(n), v1::NodeState::Active | v1::NodeState::Draining));
    v1::Topology {
        cluster: place.cluster.clone(),
        shards: place.shards.count().into(),
        node: place.me,
        nodes: askable.map(node_to).collect(),
        owners: (0..place.shards.count())
            .map(|n| owner_of(place, n))
            .collect(),
        layout: cluster.layout.as_ref().map_or(0, |l| l.version),
    }
}

fn status(place: &Place) -> v1::ClusterStatus {
    let cluster = place.topology.cluster();
    let heard = place.topology.heard();
    let mine = service::statuses(place);
    let layout = cluster.layout().ok();
    let owners: Vec<NodeId> = (0..place.shards.count())
        .map(|n| owner_of(place, n))
        .collect();
    let at = clock::wall().0;
    let nodes = cluster.present().map(|node| {
        let heard = heard.get(&node.id);
        let lost = heard.and_then(|h| Some((h.why.clone()?, h.since)));
        let held = layout.as_ref().map_or(0, |l| l.shards_of(node.id).count());
        v1::NodeStatus {
            info: Some(node_to(node)),
            reachable: node.id == place.me || heard.is_some_and(|h| h.why.is_none()),
            why: lost
                .as_ref()
                .map_or_else(String::new, |(why, _)| why.clone()),
            owns: owners.iter().filter(|o| **o == node.id).count() as u32,
            replicas: held as u32,
            clock_offset_us: heard.and_then(|h| h.clock_offset).unwrap_or(0),
            unreachable_since: lost.map_or(0, |(_, since)| {
                at.saturating_sub(i64::try_from(since.elapsed().as_micros()).unwrap_or(i64::MAX))
            }),
        }
    });
    let groups_of = |node: NodeId| -> Option<&Vec<wire::GroupStatus>> {
        if node == place.me {
            return Some(&mine);
        }
        let heard = heard.get(&node).filter(|h| h.why.is_none())?;
        Some(&heard.status.as_ref()?.groups)
    };
    let shards = (0..place.shards.count()).map(|number| {
        let id = service::group_of(number).0;
        let of = |node: NodeId| groups_of(node)?.iter().find(|g| g.group == id);
        let owner = owners.get(usize::from(number)).copied().unwrap_or(0);
        // who owns it knows best
        let best = of(owner).or_else(|| of(place.me));
        let replicas = cluster.present().filter_map(|node| {
            let group = of(node.id)?;
            Some(v1::ReplicaStatus {
                node: node.id,
                role: group.role.clone(),
                why: group.why.clone(),
                applied: group.applied,
                last: group.last,
                catalog: group.catalog,
                history_whole: group.history_whole,
            })
        });
        v1::ShardStatus {
            shard: number.into(),
            owner,
            term: best.map_or(0, |g| g.term),
            layout: layout
                .as_ref()
                .map_or_else(Vec::new, |l| l.voters(ShardId(number)).to_vec()),
            voters: best.map_or_else(Vec::new, |g| g.voters.clone()),
            learners: best.map_or_else(Vec::new, |g| g.learners.clone()),
            replicas: replicas.collect(),
        }
    });
    v1::ClusterStatus {
        cluster: place.cluster.clone(),
        node: place.me,
        at,
        catalog_owner: place.catalog_owner().unwrap_or(0),
        catalog_voters: place.catalog.group().members().voters.into_iter().collect(),
        catalog_position: place.catalog.newest().position,
        layout: cluster.layout.as_ref().map_or(0, |l| l.version),
        nodes: nodes.collect(),
        shards: shards.collect(),
        change: cluster.change.as_ref().map(change_to),
    }
}

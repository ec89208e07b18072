//! The composition root: builds each part once, top to bottom, and stops them in reverse.

use crate::actors::node::NodeActor;
use crate::config::Config;
use crate::core::Core;
use crate::folder::{Folder, FolderError, free_bytes};
use crate::hands::endpoints::Endpoints;
use crate::history::{Keep, Store};
use crate::limits;
use crate::metrics::Doors;
use crate::place::opener::Opener;
use crate::place::service::NodesService;
use crate::place::shards::Shards;
use crate::place::topology::Topology;
use crate::place::{Place, auto, executor, hearing, leaders, voters};
use crate::route::lines::{Keeper, Lines};
use crate::route::ways::Ways;
use crate::rpc::cluster::ClusterService;
use crate::rpc::executions::ExecutionsService;
use crate::rpc::journeys::JourneysService;
use crate::rpc::signals::SignalsService;
use crate::start::{self, Portrait};
use crate::surroundings;
use parking_lot::Mutex;
use ractor::{Actor, ActorCell};
use sojourn_cluster::layout::Layout;
use sojourn_cluster::transport::peers::{PeerConfig, PeerTransport};
use sojourn_cluster::{
    Failure, Host, HostConfig, NodeId, OpenError, OpenReport, Role, Seams, ShardId,
};
use sojourn_journey::time::Span;
use sojourn_proto::cluster as wire;
use sojourn_proto::{DESCRIPTORS, v1};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why a node cannot start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Log or checkpoints.
    #[error("{0}")]
    Open(OpenError),
    /// History.
    #[error(transparent)]
    History(#[from] crate::history::Damaged),
    /// An address.
    #[error(
        "cannot listen on {address} ({what}): {why}; choose another with --{what} ADDRESS:PORT"
    )]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Its flag.
        what: &'static str,
        /// Why not.
        why: std::io::Error,
    },
    /// A write or a sync failed while running.
    #[error("{0}")]
    Failed(Failure),
    /// The configuration does not say what to do.
    #[error("{0}")]
    Usage(String),
    /// Something else.
    #[error("{0}")]
    Other(String),
}

impl NodeError {
    /// Whether data is damaged or unsafe (exit 5).
    pub fn is_data(&self) -> bool {
        match self {
            NodeError::Folder(folder) => folder.data,
            NodeError::Open(OpenError::Locked { .. } | OpenError::Config { .. }) => false,
            NodeError::Open(_) | NodeError::History(_) | NodeError::Failed(_) => true,
            NodeError::Listen { .. } | NodeError::Usage(_) | NodeError::Other(_) => false,
        }
    }
}

/// A running node.
pub struct Node {
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    /// Where other nodes reach it.
    pub peer: SocketAddr,
    /// Its id.
    pub id: NodeId,
    /// The id of its cluster.
    pub cluster: String,
    pub(crate) core: Arc<Core>,
    pub(crate) host: Arc<Host>,
    place: Arc<Place>,
    stop: CancellationToken,
    doors: CancellationToken,
    tasks: JoinSet<()>,
    supervisor: ActorCell,
    failed: watch::Receiver<Option<Failure>>,
    /// Why the cluster does not want this node, once it is known.
    unwanted: watch::Receiver<Option<String>>,
    history: Arc<Store>,
    _folder: Folder,
}

/// How long handing over what this node owns may take when it stops.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

impl Node {
    /// Starts a node; answers when its replicas are open. The shards that only it can own are owned then.
    ///
    /// # Errors
    /// The data folder is new and nothing says what it is for; it is in use, damaged or cannot be written; an address is
    /// taken; no node lets it join.
    pub async fn start(config: &Config) -> Result<Node, NodeError> {
        let open =
            async |cfg: HostConfig, way: Arc<PeerTransport>| Host::open_among(cfg, way).await;
        Node::start_on(config, open).await
    }

    /// Starts a node on other seams than the real ones, for faults that only they can have.
    ///
    /// # Errors
    /// As [`Node::start`], and what `seams` answers.
    pub async fn start_with(
        config: &Config,
        seams: impl FnOnce(&HostConfig) -> Result<Seams, OpenError>,
    ) -> Result<Node, NodeError> {
        let open = async |cfg: HostConfig, way: Arc<PeerTransport>| {
            let seams = seams(&cfg)?;
            Host::open_with_among(cfg, seams, way).await
        };
        Node::start_on(config, open).await
    }

    async fn start_on(
        config: &Config,
        open: impl AsyncFnOnce(HostConfig, Arc<PeerTransport>) -> Result<Host, OpenError>,
    ) -> Result<Node, NodeError> {
        // reqwest's TLS needs one; a second start in the same process finds it there
        let _ = rustls::crypto::ring::default_provider().install_default();
        let found = Folder::open(&config.data.dir)?;
        let grpc = listen(config.listen.grpc, "listen").await?;
        let http = listen(config.listen.http, "http").await?;
        let peer = listen(config.listen.peer, "peer").await?;
        let seeds = start::seeds(config)?;
        let me = Portrait::of(config, [&grpc, &http, &peer])?;
        let (folder, joined) = start::identity(config, found, &me, &seeds).await?;
        let history = Arc::new(Store::open(&folder.dir.join("history"))?);
        let known = match history.shards()?.is_empty() {
            false => Some("history knows what stood in it"),
            true => folder
                .had_log()
                .then_some("the file log-begun says that there was one"),
        };
        if let Some(known) = known.filter(|_| !has_files(&folder.dir.join("log"))) {
            // opened all the same, it would begin anew, and give old numbers to new entries
            return Err(NodeError::Open(OpenError::Damaged {
                what: format!("the log is missing, but {known}"),
                where_: folder.dir.join("log").display().to_string(),
                consequence: "this node's replicas stay closed".into(),
                todo: "put the folder back, or restore the data folder from a copy; with peers, join again with an empty \
                       data folder"
                    .into(),
            }));
        }
        let peer_config = PeerConfig {
            node: folder.node,
            cluster: folder.cluster.clone(),
            ..start::peer_config(config)
        };
        let transport = PeerTransport::on(peer_config, peer).map_err(NodeError::Open)?;
        let asked = NodesService::default();
        let nodes = wire::nodes_server::NodesServer::new(asked.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES);
        let cluster_calls = ClusterService::default();
        let cluster = v1::cluster_server::ClusterServer::new(cluster_calls.clone())
            .max_decoding_message_size(limits::MESSAGE_BYTES);
        transport.serve_also(tonic::service::Routes::new(nodes).add_service(cluster));
        for member in joined.iter().flat_map(|j| &j.members) {
            transport.set_address(member.node, Some(member.peer.clone()));
        }
        let host_config = HostConfig {
            checkpoint_every: Duration::from_secs(config.checkpoint.every_seconds),
            checkpoint_log_bytes: config.checkpoint.log_bytes,
            checkpoint_waiting_bytes: config.checkpoint.waiting_bytes,
            dir: folder.dir.clone(),
            node: folder.node,
            ..HostConfig::default()
        };
        let host = open(host_config, transport.clone()).await;
        let host = Arc::new(host.map_err(NodeError::Open)?);
        for torn in &host.report().torn {
            tracing::warn!(
                ?torn,
                "the log ended in a torn record, which was cut: it was never acknowledged"
            );
        }
        if let Some(aside) = &host.report().set_aside {
            tracing::warn!(
                ?aside,
                "the checkpoints were damaged and set aside; they are rebuilt from history and log"
            );
        }
        let stop = CancellationToken::new();
        let doors = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let catalog = start::open_catalog(
            &host,
            &folder,
            config,
            history.clone(),
            &me,
            joined.as_ref(),
        )
        .await?;
        folder.note_log()?;
        let shards = Arc::new(Shards::new(start::shards_of(&catalog, &folder, config)?));
        tasks.spawn(catalog.clone().follow());
        let topology = Arc::new(Topology::new(
            folder.node,
            shards.clone(),
            catalog.cluster(),
        ));
        let (actor, _) = Actor::spawn(None, NodeActor, ())
            .await
            .map_err(|e| NodeError::Other(e.to_string()))?;
        let supervisor = actor.get_cell();
        let endpoints =
            Endpoints::new(catalog.clone()).map_err(|e| NodeError::Other(e.to_string()))?;
        let window = i64::try_from(config.limits.dedup_seconds).unwrap_or(i64::MAX / 1_000_000);
        let keep = Keep {
            window: Span::from_seconds(window),
            bytes: config.limits.dedup_bytes,
        };
        let (trusted, may_own) = watch::channel(true);
        let opener = Arc::new(Opener {
            me: folder.node,
            host: host.clone(),
            history: history.clone(),
            keep,
            catalog: catalog.clone(),
            endpoints: endpoints.clone(),
            gauge: Arc::default(),
            supervisor: supervisor.clone(),
            shards: shards.clone(),
            topology: topology.clone(),
            may_own: may_own.clone(),
            stop: stop.clone(),
            running: Mutex::default(),
            transport: transport.clone(),
            leaving: Mutex::default(),
            reopened: Mutex::default(),
            closed: Arc::default(),
        });
        opener.open_all().await?;
        let place = Arc::new(Place {
            me: folder.node,
            cluster: folder.cluster.clone(),
            host: host.clone(),
            transport: transport.clone(),
            catalog: catalog.clone(),
            shards: shards.clone(),
            topology: topology.clone(),
            stopping: CancellationToken::new(),
            may_own,
        });
        // set once, here
        let _ = asked.place.set(place.clone());
        let _ = cluster_calls.place.set(place.clone());
        let layout = topology.cluster().layout().map_err(NodeError::Other)?;
        // before anything is waited for: without the addresses of the others nobody could elect this node, whose log may
        // be the longest
        let (unwanted_tx, unwanted) = watch::channel(None);
        tasks.spawn(hearing::hear(
            topology.clone(),
            transport.clone(),
            folder.cluster.clone(),
            catalog.cluster(),
            unwanted_tx.clone(),
            stop.clone(),
        ));
        own_what_nobody_else_can(&host, &shards, &history, (folder.node, &layout)).await?;
        tasks.spawn(opener.follow());
        tasks.spawn(place.clone().tell_own_changes());
        tasks.spawn(hearing::watch_clocks(topology.clone(), trusted));
        tasks.spawn(executor::run(place.clone()));
        tasks.spawn(voters::keep_catalog(place.clone()));
        tasks.spawn(leaders::run(place.clone()));
        tasks.spawn(auto::run(place.clone(), config.cluster.clone()));
        tasks.spawn(start::say_where(
            place.clone(),
            start::announcement(&me, &folder),
            seeds,
            unwanted_tx,
        ));
        let metrics = Doors::new().map_err(|e| NodeError::Other(e.to_string()))?;
        let disk_full = Arc::new(AtomicBool::new(
            free_bytes(&folder.dir).is_some_and(|free| free < config.limits.disk_free_min),
        ));
        let ways = Arc::new(Ways::new(catalog.cluster()));
        let (lines, handed) = Lines::new(shards.clone(), disk_full.clone());
        let keeper = Keeper::new(lines.clone(), handed, topology.clone(), ways.clone());
        tasks.spawn(keeper.run(stop.clone()));
        let core = Arc::new(Core {
            shards,
            topology,
            catalog,
            place: place.clone(),
            ways,
            lines,
            disk_full,
            watches: Arc::new(tokio::sync::Semaphore::new(limits::WATCHES)),
            watches_handed: Arc::new(tokio::sync::Semaphore::new(limits::WATCHES_HANDED)),
            endpoints,
            closing: doors.clone(),
            metrics: Arc::new(metrics),
        });
        tasks.spawn(surroundings::watch_clock());
        tasks.spawn(surroundings::watch_disk(
            folder.dir.clone(),
            config.limits.disk_free_min,
            core.disk_full.clone(),
        ));
        let failed = host.failed();
        let node = Node {
            grpc: grpc.local_addr().unwrap_or(config.listen.grpc),
            http: http.local_addr().unwrap_or(config.listen.http),
            peer: transport.local_addr(),
            id: folder.node,
            cluster: folder.cluster.clone(),
            core: core.clone(),
            host: host.clone(),
            place,
            stop,
            doors: doors.clone(),
            tasks,
            supervisor,
            failed,
            unwanted,
            history,
            _folder: folder,
        };
        Ok(node.open_doors(grpc, http))
    }

    fn open_doors(mut self, grpc: TcpListener, http: TcpListener) -> Node {
        let (core, doors) = (self.core.clone(), self.doors.clone());
        let cluster = ClusterService::default();
        // set once, here
        let _ = cluster.place.set(self.place.clone());
        self.tasks.spawn(async move {
            if let Err(error) = serve_grpc(core, cluster, grpc, doors).await {
                tracing::error!(%error, "the gRPC door closed");
            }
        });
        let routes = crate::http::routes(self.core.clone(), self.host.clone());
        let doors = self.doors.clone();
        self.tasks.spawn(async move {
            let served = axum::serve(http, routes).with_graceful_shutdown(doors.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the HTTP door closed");
            }
        });
        self
    }

    /// Waits until the node must stop by itself.
    pub async fn failed(&self) -> NodeError {
        let (mut log, mut history) = (self.failed.clone(), self.history.failed());
        let mut unwanted = self.unwanted.clone();
        let unwanted = async {
            match unwanted.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        let failure = tokio::select! {
            failure = log.wait_for(Option::is_some) => failure.ok().and_then(|f| f.clone()),
            failure = history.wait_for(Option::is_some) => failure.ok().and_then(|f| f.clone()),
            why = unwanted => return NodeError::Other(why),
        };
        failure.map_or_else(
            || NodeError::Other("the log's writer ended".into()),
            NodeError::Failed,
        )
    }

    /// What opening the data folder brought to light.
    pub fn opened(&self) -> &OpenReport {
        self.host.report()
    }

    /// Closes the doors, answers what is in flight, checkpoints and stops.
    pub async fn stop(mut self) {
        self.place.stopping.cancel();
        // the others hear of it, and take over before the doors close
        self.place.topology.own_changed();
        let kept = leaders::leave(&self.place, LEAVE_WITHIN).await;
        if kept > 0 {
            tracing::warn!(
                kept,
                "some groups could not be handed over: the others elect"
            );
        }
        self.doors.cancel();
        // what is in flight is answered by its own deadline
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        for shard in self.core.shards.all() {
            let gauge = shard.live.gauge();
            while gauge.count() > 0 {
                let freed = gauge.freed();
                if gauge.count() == 0 || tokio::time::timeout_at(deadline, freed).await.is_err() {
                    break;
                }
            }
        }
        // so is what was handed to other nodes
        while self.core.lines.count() > 0 {
            let freed = self.core.lines.freed();
            if self.core.lines.count() == 0
                || tokio::time::timeout_at(deadline, freed).await.is_err()
            {
                break;
            }
        }
        self.stop.cancel();
        self.supervisor.stop(None);
        let checkpoints: Vec<_> = self
            .core
            .shards
            .all()
            .iter()
            .map(|s| s.group.checkpoint_now())
            .collect();
        for checkpoint in checkpoints {
            match checkpoint.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "no checkpoint at the end: the next start replays the log");
                }
                Err(_) => {
                    tracing::warn!(
                        "a group closed before its checkpoint: the next start replays its log"
                    );
                }
            }
        }
        self.host.close().await;
        self.tasks.shutdown().await;
    }
}

/// Waits until this node owns the shards that only it can own, and checks that their history fits to their log.
async fn own_what_nobody_else_can(
    host: &Host,
    shards: &Shards,
    history: &Store,
    (me, layout): (NodeId, &Layout),
) -> Result<(), NodeError> {
    let mut failed = host.failed();
    for shard in shards.all() {
        let voters = shard.group.members().voters;
        let named = layout.voters(ShardId(shard.number));
        // one that has just been begun has no members yet
        let only_here = voters.iter().eq([&me]) || (voters.is_empty() && *named == [me]);
        if !only_here {
            continue;
        }
        let mut open = shard.open();
        let mut role = shard.group.role();
        tokio::select! {
            _ = open.wait_for(|open| *open) => {}
            closed = role.wait_for(|r| matches!(r, Role::Closed { .. })) => {
                let why = closed.map_or_else(|e| e.to_string(), |r| format!("{:?}", *r));
                return Err(NodeError::Other(format!("shard {} cannot open: {why}", shard.number)));
            }
            failure = failed.wait_for(Option::is_some) => {
                let failure = failure.ok().and_then(|f| f.clone());
                return Err(failure.map_or_else(|| NodeError::Other("stopped".into()), NodeError::Failed));
            }
        }
        // the group's own index: entries without decisions never reach the shard's state
        let applied = shard.group.applied().borrow().map_or(0, |p| p.index);
        if let Some(why) = shard.machine.beyond_log(applied)? {
            // what is decided from here on would not be written to it
            history.condemn(why);
            history.sound()?;
        }
    }
    Ok(())
}

async fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address)
        .await
        .map_err(|why| NodeError::Listen { address, what, why })
}

/// Whether a folder has any file of the log.
fn has_files(dir: &std::path::Path) -> bool {
    let of_log = |entry: std::fs::DirEntry| {
        let path = entry.path();
        path.extension().is_some_and(|e| e == "raftlog")
    };
    std::fs::read_dir(dir).is_ok_and(|mut files| files.any(|e| e.is_ok_and(of_log)))
}

async fn serve_grpc(
    core: Arc<Core>,
    cluster: ClusterService,
    listener: TcpListener,
    doors: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (health, health_service) = tonic_health::server::health_reporter();
    let signals = v1::signals_server::SignalsServer::new(SignalsService { core: core.clone() })
        .max_decoding_message_size(limits::MESSAGE_BYTES);
    let executions =
        v1::executions_server::ExecutionsServer::new(ExecutionsService { core: core.clone() })
            .max_decoding_message_size(limits::MESSAGE_BYTES);
    let journeys = v1::journeys_server::JourneysServer::new(JourneysService { core })
        .max_decoding_message_size(limits::MESSAGE_BYTES);
    health
        .set_serving::<v1::signals_server::SignalsServer<SignalsService>>()
        .await;
    health
        .set_serving::<v1::executions_server::ExecutionsServer<ExecutionsService>>()
        .await;
    health
        .set_serving::<v1::journeys_server::JourneysServer<JourneysService>>()
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .layer(tonic_web::GrpcWebLayer::new())
        .add_service(health_service)
        .add_service(reflection)
        .add_service(signals)
        .add_service(executions)
        .add_service(journeys)
        .add_service(v1::cluster_server::ClusterServer::new(cluster))
        .serve_with_incoming_shutdown(incoming, doors.cancelled_owned())
        .await?;
    Ok(())
}

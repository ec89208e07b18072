//! The composition root: builds each part once, top to bottom, and stops them in reverse.

use crate::actors::Gauge;
use crate::actors::live::Live;
use crate::actors::node::NodeActor;
use crate::catalog::{Catalog, CatalogMachine};
use crate::config::Config;
use crate::core::Core;
use crate::folder::{Folder, FolderError, free_bytes};
use crate::hands::endpoints::Endpoints;
use crate::history::{Keep, Store};
use crate::limits;
use crate::metrics::Doors;
use crate::rpc::executions::ExecutionsService;
use crate::rpc::journeys::JourneysService;
use crate::rpc::signals::SignalsService;
use crate::shard::machine::ShardMachine;
use crate::shard::owner::{Parts, Shard};
use ractor::{Actor, ActorCell};
use sojourn_cluster::{
    Failure, Group, GroupId, Host, HostConfig, OpenError, OpenReport, Seams, ShardId, Source,
};
use sojourn_journey::time::Span;
use sojourn_proto::{DESCRIPTORS, stored, v1};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
            NodeError::Listen { .. } | NodeError::Other(_) => false,
        }
    }
}

/// A running node.
pub struct Node {
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    core: Arc<Core>,
    host: Arc<Host>,
    stop: CancellationToken,
    doors: CancellationToken,
    tasks: JoinSet<()>,
    supervisor: ActorCell,
    failed: watch::Receiver<Option<Failure>>,
    history: Arc<Store>,
    _folder: Folder,
}

impl Node {
    /// Starts a node; answers when it decides for every shard.
    ///
    /// # Errors
    /// The data folder is in use, damaged or cannot be written; an address is taken.
    pub async fn start(config: &Config) -> Result<Node, NodeError> {
        Node::start_on(config, async |cfg: HostConfig| Host::open(cfg).await).await
    }

    /// Starts a node on other seams than the real ones, for faults that only they can have.
    ///
    /// # Errors
    /// As [`Node::start`], and what `seams` answers.
    pub async fn start_with(
        config: &Config,
        seams: impl FnOnce(&HostConfig) -> Result<Seams, OpenError>,
    ) -> Result<Node, NodeError> {
        let open = async |cfg: HostConfig| {
            let seams = seams(&cfg)?;
            Host::open_with(cfg, seams).await
        };
        Node::start_on(config, open).await
    }

    async fn start_on(
        config: &Config,
        open: impl AsyncFnOnce(HostConfig) -> Result<Host, OpenError>,
    ) -> Result<Node, NodeError> {
        // reqwest's TLS needs one; a second start in the same process finds it there
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = Folder::open(&config.data.dir)?;
        let history = Arc::new(Store::open(&folder.dir.join("history"))?);
        if !history.shards()?.is_empty() && !has_files(&folder.dir.join("log")) {
            // opened all the same, it would begin anew, and give old numbers to new entries
            return Err(NodeError::Open(OpenError::Damaged {
                what: "the log is missing, but history knows what stood in it".into(),
                where_: folder.dir.join("log").display().to_string(),
                consequence: "this node's replicas stay closed".into(),
                todo: "put the folder back, or restore the data folder from a copy".into(),
            }));
        }
        let host_config = HostConfig {
            checkpoint_every: Duration::from_secs(config.checkpoint.every_seconds),
            checkpoint_log_bytes: config.checkpoint.log_bytes,
            checkpoint_waiting_bytes: config.checkpoint.waiting_bytes,
            dir: folder.dir.clone(),
            node: folder.node,
            ..HostConfig::default()
        };
        let host = Arc::new(open(host_config).await.map_err(NodeError::Open)?);
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
        let (catalog, shards) = open_catalog(&host, &folder, config, history.clone()).await?;
        tasks.spawn(catalog.clone().follow());
        let (actor, _) = Actor::spawn(None, NodeActor, ())
            .await
            .map_err(|e| NodeError::Other(e.to_string()))?;
        let supervisor = actor.get_cell();
        let endpoints =
            Endpoints::new(catalog.clone()).map_err(|e| NodeError::Other(e.to_string()))?;
        let gauge: Arc<Gauge> = Arc::default();
        let mut all = Vec::with_capacity(usize::from(shards));
        let window = i64::try_from(config.limits.dedup_seconds).unwrap_or(i64::MAX / 1_000_000);
        let keep = Keep {
            window: Span::from_seconds(window),
            bytes: config.limits.dedup_bytes,
        };
        // opened side by side: a restart reads checkpoints and replays the log on all cores
        let mut opening = JoinSet::new();
        for number in 0..shards {
            let (host, history, node) = (host.clone(), history.clone(), folder.node);
            opening.spawn(async move { open_replica(&host, (history, keep), number, node).await });
        }
        let mut replicas = Vec::with_capacity(usize::from(shards));
        while let Some(opened) = opening.join_next().await {
            let opened = opened.map_err(|e| NodeError::Other(e.to_string()))?;
            replicas.push(opened?);
        }
        replicas.sort_by_key(|(machine, _)| machine.shard);
        for (machine, group) in replicas {
            let shard = Shard::new(Parts {
                machine,
                group,
                live: Arc::new(Live::new(gauge.clone())),
                catalog: catalog.clone(),
                endpoints: endpoints.clone(),
                supervisor: supervisor.clone(),
                shards: usize::from(shards),
            });
            tasks.spawn(shard.clone().run(stop.clone()));
            all.push(shard);
        }
        let metrics = Doors::new().map_err(|e| NodeError::Other(e.to_string()))?;
        let core = Arc::new(Core {
            shards: all,
            catalog,
            disk_full: Arc::new(AtomicBool::new(
                free_bytes(&folder.dir).is_some_and(|free| free < config.limits.disk_free_min),
            )),
            watches: Arc::new(tokio::sync::Semaphore::new(limits::WATCHES)),
            endpoints,
            metrics: Arc::new(metrics),
        });
        let mut failed = host.failed();
        for shard in &core.shards {
            let mut open = shard.open();
            let mut role = shard.group.role();
            tokio::select! {
                _ = open.wait_for(|open| *open) => {}
                closed = role.wait_for(|r| matches!(r, sojourn_cluster::Role::Closed { .. })) => {
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
        tasks.spawn(watch_clock());
        tasks.spawn(watch_disk(
            folder.dir.clone(),
            config.limits.disk_free_min,
            core.disk_full.clone(),
        ));
        let grpc = listen(config.listen.grpc, "listen").await?;
        let http = listen(config.listen.http, "http").await?;
        let node = Node {
            grpc: grpc.local_addr().unwrap_or(config.listen.grpc),
            http: http.local_addr().unwrap_or(config.listen.http),
            core: core.clone(),
            host: host.clone(),
            stop,
            doors: doors.clone(),
            tasks,
            supervisor,
            failed,
            history,
            _folder: folder,
        };
        Ok(node.open_doors(grpc, http))
    }

    fn open_doors(mut self, grpc: TcpListener, http: TcpListener) -> Node {
        let (core, doors) = (self.core.clone(), self.doors.clone());
        self.tasks.spawn(async move {
            if let Err(error) = serve_grpc(core, grpc, doors).await {
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
        let failure = tokio::select! {
            failure = log.wait_for(Option::is_some) => failure.ok().and_then(|f| f.clone()),
            failure = history.wait_for(Option::is_some) => failure.ok().and_then(|f| f.clone()),
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
        self.doors.cancel();
        // what is in flight is answered by its own deadline
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        for shard in &self.core.shards {
            let gauge = shard.live.gauge();
            while gauge.count() > 0 {
                let freed = gauge.freed();
                if gauge.count() == 0 || tokio::time::timeout_at(deadline, freed).await.is_err() {
                    break;
                }
            }
        }
        self.stop.cancel();
        self.supervisor.stop(None);
        let checkpoints: Vec<_> = self
            .core
            .shards
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

/// Opens this node's replica of one shard: its checkpoint is read and its log replayed.
async fn open_replica(
    host: &Host,
    (history, keep): (Arc<Store>, Keep),
    number: u16,
    node: u64,
) -> Result<(Arc<ShardMachine>, Group), NodeError> {
    let machine = Arc::new(ShardMachine::new(number, history.clone(), keep));
    let id = GroupId::of_shard(ShardId(number));
    let group = host
        .open_group(id, machine.clone(), vec![node])
        .await
        .map_err(NodeError::Open)?;
    told_of_rebuild(&group, history.mark(number)?.is_some());
    history.sound()?;
    Ok((machine, group))
}

async fn open_catalog(
    host: &Host,
    folder: &Folder,
    config: &Config,
    history: Arc<Store>,
) -> Result<(Arc<Catalog>, u16), NodeError> {
    let known = history.catalog()?.is_some();
    let machine = Arc::new(CatalogMachine::new(history));
    let group = host
        .open_group(GroupId::CATALOG, machine.clone(), vec![folder.node])
        .await
        .map_err(NodeError::Open)?;
    told_of_rebuild(&group, known);
    let mut role = group.role();
    let owner = role.wait_for(|r| {
        matches!(
            r,
            sojourn_cluster::Role::Owner { .. } | sojourn_cluster::Role::Closed { .. }
        )
    });
    match owner.await {
        Ok(role) => {
            if let sojourn_cluster::Role::Closed { reason } = &*role {
                return Err(NodeError::Other(format!(
                    "the catalog cannot open: {reason}"
                )));
            }
        }
        Err(e) => return Err(NodeError::Other(e.to_string())),
    }
    let catalog = Catalog::new(machine.clone(), group);
    if machine.state().bootstrap.is_none() {
        // its view is built by `follow`, which does not run yet: this one is awaited by its state
        catalog
            .bootstrap(stored::Bootstrap {
                cluster: folder.cluster.clone(),
                shards: config.cluster.shards.into(),
                format: 1,
            })
            .await
            .map_err(|e| NodeError::Other(e.to_string()))?;
    }
    let Some(bootstrap) = machine.state().bootstrap else {
        return Err(NodeError::Other("the catalog was not bootstrapped".into()));
    };
    if bootstrap.cluster != folder.cluster {
        return Err(NodeError::Open(OpenError::Damaged {
            what: format!(
                "the catalog belongs to cluster {}, the file cluster-id names {}",
                bootstrap.cluster, folder.cluster
            ),
            where_: folder.dir.display().to_string(),
            consequence: "files of two data folders were mixed".into(),
            todo: "put the file back from a copy, or restore the data folder".into(),
        }));
    }
    let shards = u16::try_from(bootstrap.shards).unwrap_or(1);
    if shards != config.cluster.shards {
        tracing::info!(
            shards,
            "the cluster was bootstrapped with another number of shards; that one holds"
        );
    }
    Ok((catalog, shards))
}

async fn listen(address: SocketAddr, what: &'static str) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address)
        .await
        .map_err(|why| NodeError::Listen { address, what, why })
}

/// Says when a replica had to be made anew: nothing is lost, but somebody should ask why. `known`: history knows of a
/// checkpoint.
fn told_of_rebuild(group: &Group, known: bool) {
    let opened = group.opened();
    let from = match &opened.source {
        Source::History { .. } => "history",
        Source::Log if known => "the log",
        Source::Log | Source::Checkpoint { .. } => return,
    };
    tracing::warn!(
        group = %group.id(),
        why = opened.damage.as_deref().unwrap_or("its checkpoint is missing"),
        "the state was made anew from {from}; nothing is lost; look after the disk"
    );
}

/// Whether a folder has any file of the log.
fn has_files(dir: &std::path::Path) -> bool {
    let of_log = |entry: std::fs::DirEntry| {
        let path = entry.path();
        path.extension().is_some_and(|e| e == "raftlog")
    };
    std::fs::read_dir(dir).is_ok_and(|mut files| files.any(|e| e.is_ok_and(of_log)))
}

/// Says when the wall clock steps: timers go by it.
async fn watch_clock() {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let (mut wall, mut steady) = (crate::clock::wall(), std::time::Instant::now());
    loop {
        tick.tick().await;
        let (wall_now, steady_now) = (crate::clock::wall(), std::time::Instant::now());
        let steady_micros = i64::try_from((steady_now - steady).as_micros()).unwrap_or(i64::MAX);
        let step = wall_now.since(wall).0.saturating_sub(steady_micros);
        if step.abs() > 2_000_000 {
            tracing::warn!(
                step_seconds = step / 1_000_000,
                "the wall clock stepped: timers are due by it; let the clock be slewed"
            );
        }
        (wall, steady) = (wall_now, steady_now);
    }
}

/// Looks at the free disk once a second.
async fn watch_disk(dir: std::path::PathBuf, least: u64, full: Arc<AtomicBool>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let Some(free) = free_bytes(&dir) else {
            continue;
        };
        let now = free < least;
        if full.swap(now, Ordering::Relaxed) != now {
            if now {
                tracing::error!(
                    free,
                    least,
                    "the disk is nearly full: no signal is admitted until there is room"
                );
            } else {
                tracing::info!(free, least, "there is room on the disk again");
            }
        }
    }
}

async fn serve_grpc(
    core: Arc<Core>,
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
        .serve_with_incoming_shutdown(incoming, doors.cancelled_owned())
        .await?;
    Ok(())
}

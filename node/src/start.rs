//! What a node finds out about itself before it starts: who it is, where others reach it, which cluster it belongs to,
//! and that cluster's catalog.

use crate::catalog::{Catalog, CatalogMachine};
use crate::config::Config;
use crate::folder::{Folder, Found};
use crate::history::Store;
use crate::node::NodeError;
use crate::place::opener::told_of_rebuild;
use crate::place::{Place, join, service};
use sojourn_cluster::transport::dial::Dialer;
use sojourn_cluster::transport::peers::PeerConfig;
use sojourn_cluster::transport::tls::PeerTls;
use sojourn_cluster::{GroupId, Host, OpenError, Role};
use sojourn_proto::cluster as wire;
use sojourn_proto::{stored, v1};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Channel;

/// The newest format that this version writes.
const FORMAT: u32 = 1;
/// A catalog that is not there by then is waited for no longer: a node whose peers are away starts too.
const CATALOG_WITHIN: Duration = Duration::from_secs(60);

/// Where others reach this node, and what it is called.
#[derive(Clone, Debug)]
pub struct Portrait {
    name: String,
    zone: String,
    grpc: String,
    http: String,
    peer: String,
}

impl Portrait {
    /// From the configuration and the ports that were taken.
    ///
    /// # Errors
    /// A listener that has no address.
    pub fn of(config: &Config, listeners: [&TcpListener; 3]) -> Result<Portrait, NodeError> {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        let address = |listener: &TcpListener| -> Result<String, NodeError> {
            let local: SocketAddr = listener
                .local_addr()
                .map_err(|e| NodeError::Other(format!("a listener has no address: {e}")))?;
            Ok(match &config.listen.advertise {
                Some(host) if host.contains(':') => format!("[{host}]:{}", local.port()),
                Some(host) => format!("{host}:{}", local.port()),
                None if local.ip().is_unspecified() => format!("{host}:{}", local.port()),
                None => local.to_string(),
            })
        };
        let [grpc, http, peer] = listeners;
        Ok(Portrait {
            name: config.cluster.name.clone().unwrap_or(host.clone()),
            zone: config.cluster.zone.clone(),
            grpc: address(grpc)?,
            http: address(http)?,
            peer: address(peer)?,
        })
    }

    /// As the catalog keeps it.
    pub fn stored(&self, id: u64) -> stored::CatalogNode {
        stored::CatalogNode {
            id,
            name: self.name.clone(),
            peer: self.peer.clone(),
            grpc: self.grpc.clone(),
            http: self.http.clone(),
            zone: self.zone.clone(),
            state: v1::NodeState::Active as u32,
            joined_at: 0,
            token: bytes::Bytes::new(),
        }
    }

    fn request(&self, token: Vec<u8>) -> wire::JoinRequest {
        wire::JoinRequest {
            name: self.name.clone(),
            peer: self.peer.clone(),
            grpc: self.grpc.clone(),
            http: self.http.clone(),
            zone: self.zone.clone(),
            format: FORMAT,
            hops: 0,
            token: token.into(),
        }
    }
}

/// How nodes speak to one another, as far as the configuration says.
pub fn peer_config(config: &Config) -> PeerConfig {
    PeerConfig {
        tls: config.listen.peer_tls.as_ref().map(|tls| PeerTls {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            ca: tls.ca.clone(),
        }),
        ..PeerConfig::default()
    }
}

/// Ways to the nodes that the configuration names.
pub type Seeds = Vec<(String, Channel)>;

/// Ways to the nodes that the configuration names.
///
/// # Errors
/// One of them is no address.
pub fn seeds(config: &Config) -> Result<Seeds, NodeError> {
    let dialer = Dialer::new(&peer_config(config)).map_err(NodeError::Open)?;
    let way = |address: &String| {
        let channel = dialer
            .channel_to(address)
            .map_err(|e| NodeError::Usage(format!("cluster.join: {e}")))?;
        Ok((address.clone(), channel))
    };
    config.cluster.join.iter().map(way).collect()
}

/// Who this node is: what its data folder says; for a new one, what the configuration wants. With an answer, when it has
/// just joined.
///
/// # Errors
/// A new folder, and nothing that says what it is for; nobody lets it join; the folder cannot be written.
pub async fn identity(
    config: &Config,
    found: Found,
    me: &Portrait,
    seeds: &Seeds,
) -> Result<(Folder, Option<wire::JoinResponse>), NodeError> {
    let new = match found {
        Found::Node(folder) => {
            if config.cluster.bootstrap {
                tracing::info!("the data folder belongs to a cluster already: nothing is begun");
            }
            return Ok((folder, None));
        }
        Found::New(new) => new,
    };
    if config.cluster.bootstrap {
        return Ok((new.begin(None, 1)?, None));
    }
    if seeds.is_empty() {
        return Err(NodeError::Usage(format!(
            "the data folder {} is new, and nothing says what it is for: begin a cluster with --bootstrap, or join one \
             with --join HOST:PORT, the peer address of one of its nodes",
            new.dir().display()
        )));
    }
    let answer = join::join(seeds, me.request(new.join_token()?)).await?;
    let folder = new.begin(Some(answer.cluster.clone()), answer.node)?;
    tracing::info!(
        node = answer.node,
        cluster = answer.cluster,
        "this node has joined"
    );
    Ok((folder, Some(answer)))
}

/// Opens the catalog; answers when it is known here what cluster this is.
///
/// # Errors
/// It cannot be opened, or none of the others gives it in time.
pub async fn open_catalog(
    host: &Host,
    folder: &Folder,
    config: &Config,
    history: Arc<Store>,
    me: &Portrait,
    joined: Option<&wire::JoinResponse>,
) -> Result<Arc<Catalog>, NodeError> {
    let known = history.catalog()?.is_some();
    let machine = Arc::new(CatalogMachine::new(history));
    // node 1 begins it, once; every other node is added to it
    let begins = folder.node == 1 && joined.is_none();
    let group = if begins && !folder.had_log() {
        let voters = vec![folder.node];
        host.open_group(GroupId::CATALOG, machine.clone(), voters)
            .await
    } else {
        let rank = usize::try_from(folder.node.saturating_sub(1)).unwrap_or(0) % 5;
        host.join_group(GroupId::CATALOG, machine.clone(), rank)
            .await
    };
    let group = group.map_err(NodeError::Open)?;
    told_of_rebuild(&group, known);
    let catalog = Catalog::new(machine.clone(), group.clone());
    // node 1 began it, and may have been joined by others since: who votes says its log, in a moment
    let members = if begins {
        match tokio::time::timeout(CATALOG_WITHIN, group.known_members()).await {
            Ok(members) => members,
            Err(_) => {
                return Err(NodeError::Other(format!(
                    "the catalog has not said who its members are within {} s; look at the log above",
                    CATALOG_WITHIN.as_secs()
                )));
            }
        }
    } else {
        group.members()
    };
    if members.voters.iter().eq([&folder.node]) {
        let mut role = group.role();
        let owner = role.wait_for(|r| matches!(r, Role::Owner { .. } | Role::Closed { .. }));
        match owner.await {
            Ok(role) => {
                if let Role::Closed { reason } = &*role {
                    return Err(NodeError::Other(format!(
                        "the catalog cannot open: {reason}"
                    )));
                }
            }
            Err(e) => return Err(NodeError::Other(e.to_string())),
        }
        if catalog.facts().is_none() {
            // its view is built by `follow`, which does not run yet: this one is awaited by its state
            catalog
                .bootstrap(stored::Bootstrap {
                    cluster: folder.cluster.clone(),
                    shards: config.cluster.shards.into(),
                    format: FORMAT,
                    node: Some(me.stored(folder.node)),
                })
                .await
                .map_err(|e| NodeError::Other(e.to_string()))?;
        } else {
            // where it is now; with an older data folder, that it is
            let portrait = me.announcement(folder);
            let noted = catalog.change_cluster("", crate::limits::DEADLINE, |cluster| {
                service::announced(cluster, &portrait)
            });
            noted.await.map_err(|e| NodeError::Other(e.to_string()))?;
        }
    }
    let mut cluster = catalog.cluster();
    let there = cluster.wait_for(|cluster| cluster.layout.is_some());
    match tokio::time::timeout(CATALOG_WITHIN, there).await {
        Ok(Ok(_)) => {}
        _ => {
            return Err(NodeError::Other(format!(
                "no node has given this one the catalog within {} s; look whether they run and can reach it",
                CATALOG_WITHIN.as_secs()
            )));
        }
    }
    Ok(catalog)
}

/// How many shards the cluster has.
///
/// # Errors
/// The data folder is of another cluster.
pub fn shards_of(catalog: &Catalog, folder: &Folder, config: &Config) -> Result<u16, NodeError> {
    let Some(facts) = catalog.facts() else {
        return Err(NodeError::Other("the catalog was not bootstrapped".into()));
    };
    if facts.cluster != folder.cluster {
        return Err(NodeError::Open(OpenError::Damaged {
            what: format!(
                "the catalog belongs to cluster {}, the file cluster-id names {}",
                facts.cluster, folder.cluster
            ),
            where_: folder.dir.display().to_string(),
            consequence: "files of two data folders were mixed".into(),
            todo: "put the file back from a copy, or restore the data folder".into(),
        }));
    }
    let shards = u16::try_from(facts.shards).unwrap_or(1);
    if shards != config.cluster.shards {
        tracing::info!(
            shards,
            "the cluster was bootstrapped with another number of shards; that one holds"
        );
    }
    Ok(shards)
}

impl Portrait {
    fn announcement(&self, folder: &Folder) -> wire::AnnounceRequest {
        wire::AnnounceRequest {
            cluster: folder.cluster.clone(),
            node: folder.node,
            name: self.name.clone(),
            peer: self.peer.clone(),
            grpc: self.grpc.clone(),
            http: self.http.clone(),
            zone: self.zone.clone(),
            hops: 0,
        }
    }
}

/// Says to the cluster where this node is, until it is known. A cluster that does not want it is told of.
pub async fn say_where(
    place: Arc<Place>,
    request: wire::AnnounceRequest,
    seeds: Seeds,
    unwanted: watch::Sender<Option<String>>,
) {
    if let Ok(None) = service::announced(&place.topology.cluster(), &request) {
        return;
    }
    if let Err(error) = join::announce(&place.transport, &seeds, request).await {
        unwanted.send_replace(Some(error.to_string()));
    }
}

/// What a node says of itself.
pub fn announcement(me: &Portrait, folder: &Folder) -> wire::AnnounceRequest {
    me.announcement(folder)
}

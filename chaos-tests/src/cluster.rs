//! A cluster of real processes: nodes are added, killed, stopped, paused, robbed of their disks and cut off, and it is
//! asked, by the services that everybody uses, whether it is whole and whether its replicas are equal.
//!
//! A node is named by its *place*, the order in which it was added; its id is what the cluster gave it, and changes when
//! its disk is lost.

mod rough;

use crate::cli::Cli;
use crate::links::{self, Links};
use crate::process::{Server, Setup};
use crate::wait::until;
use crate::whole::{missing, unlike_layout};
use anyhow::{Context, Result, bail, ensure};
use sojourn_client::Client;
use sojourn_client::wire;
use sojourn_client::wire::cluster_client::ClusterClient;
use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};

/// How long the cluster may take until it is whole after whatever a story did: debug builds on two loaded cores.
pub const WHOLE: Duration = Duration::from_secs(120);
/// How long a node may take to hand over what it owns and to stop.
pub const LEAVE: Duration = Duration::from_secs(60);
/// How long one question about the cluster may take.
const ASK: Duration = Duration::from_secs(5);
/// How long one verification may take.
const VERIFY: Duration = Duration::from_secs(30);

/// The nodes of a cluster.
pub struct Cluster {
    setup: Setup,
    nodes: Vec<Server>,
    links: Option<Links>,
}

impl Cluster {
    /// Starts so many nodes; answers when each holds its part.
    ///
    /// # Errors
    /// When one does not start, or they do not share the shards in time.
    pub async fn start(count: usize, setup: Setup) -> Result<Cluster> {
        Cluster::begin(count, setup, None).await
    }

    /// The same, with links that can be cut.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn with_links(count: usize, setup: Setup) -> Result<Cluster> {
        Cluster::begin(count, setup, Some(Links::new())).await
    }

    async fn begin(count: usize, setup: Setup, links: Option<Links>) -> Result<Cluster> {
        let mut cluster = Cluster {
            setup,
            nodes: Vec::new(),
            links,
        };
        for _ in 0..count {
            cluster.launch().await?;
        }
        for place in 0..count {
            cluster.started(place).await?;
        }
        cluster.whole(count).await?;
        Ok(cluster)
    }

    /// Starts a new node's process; the first begins the cluster, and is waited for.
    async fn launch(&mut self) -> Result<usize> {
        let place = self.nodes.len();
        let mut setup = self.setup.clone();
        setup.join = self.seeds_for_nodes();
        if let Some(links) = &mut self.links {
            setup.doors = Some(links.stand_before(place).await?);
            setup.advertise = Some(std::net::Ipv4Addr::from(links::HOST).to_string());
        }
        let mut server = Server::new(setup)?;
        server.launch()?;
        self.nodes.push(server);
        if place == 0 {
            self.started(place).await?;
        }
        self.linked(place);
        Ok(place)
    }

    /// Waits until a node whose process runs is ready.
    async fn started(&mut self, place: usize) -> Result<()> {
        let node = &mut self.nodes[place];
        let started = async {
            node.listening().await?;
            node.ready().await
        };
        let started = started.await;
        // why it does not come up the others may know
        started.with_context(|| format!("place {place}; it and the others said:{}", self.said()))
    }

    fn linked(&self, place: usize) {
        if let (Some(links), Some(process)) = (&self.links, self.nodes[place].process()) {
            links.is_process(place, process);
        }
    }

    /// Adds a node; answers its place when it is ready. What it is to hold comes to it later: see [`Cluster::whole`].
    ///
    /// # Errors
    /// When it does not join.
    pub async fn add(&mut self) -> Result<usize> {
        let place = self.launch().await?;
        self.started(place).await?;
        Ok(place)
    }

    /// How many nodes there ever were.
    pub fn places(&self) -> usize {
        self.nodes.len()
    }

    /// The places of the nodes whose processes run.
    pub fn running(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|p| self.nodes[*p].runs())
            .collect()
    }

    /// A node's process.
    pub fn node(&self, place: usize) -> &Server {
        &self.nodes[place]
    }

    /// A node's id.
    pub fn id(&self, place: usize) -> u64 {
        self.nodes[place].node()
    }

    /// The place of the node with this id.
    ///
    /// # Errors
    /// When there is none.
    pub fn place_of(&self, id: u64) -> Result<usize> {
        let place = self.nodes.iter().position(|n| n.node() == id);
        place.with_context(|| format!("no process is node {id}"))
    }

    /// The links between the nodes.
    ///
    /// # Errors
    /// When the cluster was started without.
    pub fn links(&self) -> Result<&Links> {
        self.links
            .as_ref()
            .context("the cluster was started without links that can be cut")
    }

    /// kill -9.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, place: usize) -> Result<()> {
        self.nodes[place].kill()
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it has not in time, or did not end well.
    pub async fn stop(&mut self, place: usize) -> Result<ExitStatus> {
        let node = &mut self.nodes[place];
        node.terminate()?;
        let status = node.ended(LEAVE).await?;
        ensure!(
            status.code() == Some(0),
            "node {} ended with {status}; it said:\n{}",
            node.node(),
            node.said()
        );
        Ok(status)
    }

    /// Starts a node again, on the same data and ports; answers when it is ready.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn again(&mut self, place: usize) -> Result<()> {
        self.nodes[place].launch()?;
        self.linked(place);
        self.started(place).await
    }

    /// Has a node run as the binary of this work tree from its next start on, whatever it was; nodes that are added, too.
    pub fn upgrade(&mut self, place: usize) {
        self.nodes[place].upgrade();
        self.setup.binary = None;
    }

    /// Waits until a node that was removed has noticed it and ended.
    ///
    /// # Errors
    /// When it goes on, or does not say why it ends.
    pub async fn gone(&mut self, place: usize) -> Result<()> {
        let node = &mut self.nodes[place];
        let status = node.ended(LEAVE).await?;
        let says = format!("node {} was removed from the cluster", node.node());
        ensure!(
            node.said().contains(&says),
            "it ended with {status} and did not say that {says}; it said:\n{}",
            node.said()
        );
        Ok(())
    }

    /// Starts a node that must not come back, and waits until it has ended by itself. Gives what it said.
    ///
    /// # Errors
    /// When it goes on, or ends as if nothing were wrong.
    pub async fn comes_back_not(&mut self, place: usize) -> Result<String> {
        let node = &mut self.nodes[place];
        node.launch()?;
        let status = node.ended(LEAVE).await?;
        ensure!(
            status.code().is_some_and(|code| code != 0),
            "it ended with {status}; it said:\n{}",
            node.said()
        );
        Ok(node.said())
    }

    /// Takes the disk of a node that does not run. Started again, it joins.
    ///
    /// # Errors
    /// When it runs.
    pub fn lose_disk(&mut self, place: usize) -> Result<()> {
        let seeds = self.seeds_for_nodes();
        self.nodes[place].lose_disk(seeds)
    }

    /// The peer addresses of the nodes that run, as others are told of them.
    fn seeds_for_nodes(&self) -> Vec<String> {
        let running = self
            .nodes
            .iter()
            .filter(|n| n.runs() && n.doors().peer.port() != 0);
        running
            .map(|n| {
                let mut peer = n.doors().peer;
                if self.links.is_some() {
                    peer.set_ip(links::HOST.into());
                }
                peer.to_string()
            })
            .collect()
    }

    /// The addresses of the nodes that run, for clients: with commas between.
    pub fn seeds(&self) -> String {
        let urls: Vec<String> = self
            .nodes
            .iter()
            .filter(|n| n.runs())
            .map(Server::url)
            .collect();
        urls.join(",")
    }

    /// A client that begins with all nodes that run, and waits for an answer as long as [`Server::client`]'s.
    ///
    /// # Errors
    /// Never for addresses that servers printed.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::builder(self.seeds())
            .deadline(Duration::from_secs(20))
            .connect_lazy()?)
    }

    /// The CLI against all nodes that run.
    pub fn commands(&self) -> Cli {
        Cli::of(self.seeds())
    }

    /// How many receipts the doors of the nodes that run have given since they started.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn receipts(&self) -> Result<u64> {
        let mut sum = 0;
        for node in self.nodes.iter().filter(|n| n.runs()) {
            sum += node.receipts().await?;
        }
        Ok(sum)
    }

    /// The service of one node, itself asked and no other.
    ///
    /// # Errors
    /// Never for an address that a server printed.
    pub fn service(&self, place: usize) -> Result<ClusterClient<Channel>> {
        service(&self.nodes[place].url())
    }

    /// How one node sees the cluster.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn status(&self, place: usize) -> Result<wire::ClusterStatus> {
        status(&mut self.service(place)?).await
    }

    /// How the cluster is, as the first node sees it that answers.
    ///
    /// # Errors
    /// When none does.
    pub async fn view(&self) -> Result<wire::ClusterStatus> {
        let mut last = anyhow::anyhow!("no node runs");
        for place in self.running() {
            match self.status(place).await {
                Ok(status) => return Ok(status),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Waits until every node that runs says that the cluster is whole: `active` nodes are, each reachable and with its
    /// part, every shard has the voters of the layout and an owner, and no change is under way. Gives the last answer.
    ///
    /// # Errors
    /// When it is not in time, with what is missing.
    pub async fn whole(&self, active: usize) -> Result<wire::ClusterStatus> {
        let mut lacks = String::new();
        let asked = until("the cluster is whole", WHOLE, async || {
            let mut last = None;
            for place in self.running() {
                let status = match self.status(place).await {
                    Ok(status) => status,
                    Err(error) => {
                        lacks = format!("place {place} does not answer: {error:#}");
                        return Ok(None);
                    }
                };
                if let Some(missing) = missing(&status, active) {
                    lacks = format!("as node {} sees it: {missing}", status.node);
                    return Ok(None);
                }
                last = Some(status);
            }
            Ok(last)
        });
        asked
            .await
            .with_context(|| format!("{lacks}{}", self.said()))
    }

    /// Has every replica of every shard hash its state at the same position, until all were heard.
    ///
    /// # Errors
    /// When two differ, at once; when not all are heard in time.
    pub async fn verify(&self) -> Result<wire::VerifyResponse> {
        let deadline = Instant::now() + WHOLE;
        loop {
            let place = *self.running().first().context("no node runs")?;
            let mut request = tonic::Request::new(wire::VerifyRequest::default());
            request.set_timeout(VERIFY);
            let verdict = match self.service(place)?.verify(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    if answer.equal {
                        return Ok(answer);
                    }
                    for shard in &answer.shards {
                        let hashes: BTreeSet<&str> = shard
                            .replicas
                            .iter()
                            .filter(|r| !r.hash.is_empty())
                            .map(|r| r.hash.as_str())
                            .collect();
                        ensure!(
                            hashes.len() < 2,
                            "the replicas of shard {} differ: {:?}",
                            shard.shard,
                            shard.replicas
                        );
                    }
                    let silent = answer.shards.into_iter().filter(|s| !s.equal);
                    format!("{:?}", silent.collect::<Vec<_>>())
                }
                Err(status) => status.to_string(),
            };
            if Instant::now() >= deadline {
                bail!("not every replica was heard: {verdict}{}", self.said());
            }
        }
    }

    /// The places of the owners, by shard; `None`: nobody is known to own it.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn owners(&self) -> Result<Vec<Option<usize>>> {
        let status = self.view().await?;
        Ok(status
            .shards
            .iter()
            .map(|s| self.place_of(s.owner).ok())
            .collect())
    }

    /// The place of the node that owns most shards.
    ///
    /// # Errors
    /// When nobody owns any.
    pub async fn busiest(&self) -> Result<usize> {
        let owners = self.owners().await?;
        let owns = |place: &usize| owners.iter().filter(|o| **o == Some(*place)).count();
        self.running()
            .into_iter()
            .max_by_key(owns)
            .context("no node runs")
    }

    /// Begins a change; when one is under way, after that.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, wishes: Vec<wire::Wish>) -> Result<wire::Change> {
        let request = wire::ApplyRequest {
            wishes,
            actor: "story".into(),
            ..Default::default()
        };
        let mut last = String::new();
        let begun = until("a change begins", WHOLE, async || {
            let place = *self.running().first().context("no node runs")?;
            let mut asked = tonic::Request::new(request.clone());
            asked.set_timeout(ASK);
            match self.service(place)?.apply(asked).await {
                Ok(answer) => Ok(Some(answer.into_inner().change.unwrap_or_default())),
                Err(status)
                    if status.code() == tonic::Code::Unavailable
                        || status.message().contains("is under way")
                        // one that has just joined is known before it answers
                        || status.message().contains("this node is starting") =>
                {
                    let change = self.view().await.ok().and_then(|s| s.change);
                    last = format!("{}; the change is {change:?}", status.message());
                    Ok(None)
                }
                // it may have begun all the same: then it is the one under way
                Err(status) if status.code() == tonic::Code::DeadlineExceeded => {
                    last = status.message().to_owned();
                    let change = self.view().await.ok().and_then(|s| s.change);
                    let this = |c: &wire::Change| c.wishes == request.wishes && c.ended_at == 0;
                    Ok(change.filter(this))
                }
                Err(status) => Err(status.into()),
            }
        });
        begun
            .await
            .with_context(|| format!("{last}{}", self.said()))
    }

    /// Waits until a change has been carried out. One without an id had nothing to do.
    ///
    /// # Errors
    /// When it was cancelled, or takes too long.
    pub async fn done(&self, change: &wire::Change) -> Result<()> {
        if change.id.is_empty() {
            return Ok(());
        }
        let mut last = None;
        let waited = until("the change has ended", WHOLE, async || {
            let Ok(status) = self.view().await else {
                return Ok(None);
            };
            // another one comes only after it
            let now = status.change.filter(|c| c.id == change.id);
            let ended = match now.as_ref().map(wire::Change::state) {
                None | Some(wire::ChangeState::Done) => Some(()),
                Some(wire::ChangeState::Cancelled) => bail!("it was cancelled: {now:?}"),
                Some(_) => None,
            };
            last = now;
            Ok(ended)
        });
        let Err(error) = waited.await else {
            return Ok(());
        };
        let mut stuck = String::new();
        for place in self.running() {
            let seen = match self.status(place).await {
                Ok(status) => unlike_layout(&status),
                Err(error) => vec![format!("{error:#}")],
            };
            let node = self.id(place);
            stuck += &format!("\nas node {node} sees it: {}", seen.join("\n  "));
        }
        Err(error.context(format!("change {last:?}{stuck}{}", self.said())))
    }

    /// Has a node give everything away, and waits until it has.
    ///
    /// # Errors
    /// As [`Cluster::apply`] and [`Cluster::done`].
    pub async fn drain(&self, place: usize) -> Result<()> {
        let change = self.apply(vec![drain(self.id(place))]).await?;
        self.done(&change).await
    }

    /// Has a node leave for ever, and waits until it has.
    ///
    /// # Errors
    /// As [`Cluster::apply`] and [`Cluster::done`].
    pub async fn remove(&self, place: usize) -> Result<()> {
        let change = self.apply(vec![remove(self.id(place))]).await?;
        self.done(&change).await
    }

    /// What the nodes said, for the report of a failure.
    pub fn said(&self) -> String {
        let all = self.nodes.iter().enumerate().map(|(place, node)| {
            let runs = if node.runs() {
                ""
            } else {
                ", which does not run"
            };
            format!(
                "\nplace {place}, node {}{runs}:\n{}",
                node.node(),
                node.said()
            )
        });
        all.collect()
    }
}

/// The service of the node at this address, itself asked and no other.
///
/// # Errors
/// When it is no address.
pub fn service(url: &str) -> Result<ClusterClient<Channel>> {
    let endpoint = Endpoint::from_shared(url.to_owned())?.connect_timeout(ASK);
    Ok(ClusterClient::new(endpoint.connect_lazy()).max_decoding_message_size(64 << 20))
}

/// How a node sees the cluster.
///
/// # Errors
/// When it does not answer in time.
pub async fn status(service: &mut ClusterClient<Channel>) -> Result<wire::ClusterStatus> {
    let asked = service.get_status(wire::GetClusterStatusRequest {});
    let answer = tokio::time::timeout(ASK, asked).await;
    Ok(answer
        .context("it has not said how the cluster is in time")??
        .into_inner())
}

/// The wish that a node gives everything away.
pub fn drain(node: u64) -> wire::Wish {
    wire::Wish {
        wish: Some(wire::wish::Wish::Drain(node)),
    }
}

/// The wish that a node leaves for ever.
pub fn remove(node: u64) -> wire::Wish {
    wire::Wish {
        wish: Some(wire::wish::Wish::Remove(node)),
    }
}

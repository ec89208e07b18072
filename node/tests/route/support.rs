//! Nodes in this process, and what is said to their doors.

use sojourn_node::config::Config;
use sojourn_node::node::Node;
use sojourn_proto::v1;
use sojourn_proto::v1::cluster_client::ClusterClient;
use sojourn_proto::v1::executions_client::ExecutionsClient;
use sojourn_proto::v1::journeys_client::JourneysClient;
use sojourn_proto::v1::signals_client::SignalsClient;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// Every wait of these tests ends after this long, as a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const SHARDS: u16 = 4;

pub const JOURNEY: &str = "journey: line
reentry: { mode: never }
entry:
  - on: t.start
variables: { n: { type: number, from: signal.data.n } }
stages:
  - stage: even
    transitions:
      - { to: odd, on: t.step }
      - { to: done, on: t.end }
  - stage: odd
    transitions:
      - { to: even, on: t.step }
      - { to: done, on: t.end }
  - { stage: done, end: converted }
";

/// A node of this process and a connection to its door.
pub struct Member {
    pub node: Node,
    pub door: Channel,
    pub _dir: TempDir,
}

pub fn config(dir: &TempDir, join: Option<SocketAddr>) -> Config {
    let mut config = Config::default();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    config.data.dir = dir.path().join("data");
    config.listen.grpc = any;
    config.listen.http = any;
    config.listen.peer = any;
    config.cluster.shards = SHARDS;
    config.cluster.bootstrap = join.is_none();
    config.cluster.join = join.iter().map(SocketAddr::to_string).collect();
    // the first keeps all replicas, unless a test wants it otherwise
    config.cluster.rebalance = false;
    config.limits.disk_free_min = 0;
    config
}

pub fn door(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_lazy()
}

impl Member {
    pub async fn start(join: Option<SocketAddr>, rebalance: bool) -> Member {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir, join);
        config.cluster.rebalance = rebalance;
        let node = Node::start(&config).await.unwrap();
        Member {
            door: door(node.grpc),
            node,
            _dir: dir,
        }
    }

    pub fn signals(&self) -> SignalsClient<Channel> {
        SignalsClient::new(self.door.clone())
    }

    pub fn executions(&self) -> ExecutionsClient<Channel> {
        ExecutionsClient::new(self.door.clone()).max_decoding_message_size(64 << 20)
    }

    pub fn journeys(&self) -> JourneysClient<Channel> {
        JourneysClient::new(self.door.clone())
    }

    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.door.clone())
    }
}

/// So many nodes of one cluster, the first of which has all replicas.
pub async fn cluster(nodes: usize) -> Vec<Member> {
    grown(nodes, false).await
}

/// The same, and the replicas are spread over all of them: three of each shard.
pub async fn spread(nodes: usize) -> Vec<Member> {
    let members = grown(nodes, true).await;
    until("three voters of each shard", async || {
        let mut door = members[0].cluster();
        let status = door.get_status(v1::GetClusterStatusRequest {});
        let status = status.await.ok()?.into_inner();
        let done = status
            .change
            .is_none_or(|c| c.state() != v1::ChangeState::Running);
        let spread =
            |s: &v1::ShardStatus| s.owner > 0 && s.voters.len() == 3 && s.learners.is_empty();
        (done && status.shards.len() == usize::from(SHARDS) && status.shards.iter().all(spread))
            .then_some(())
    })
    .await;
    members
}

async fn grown(nodes: usize, rebalance: bool) -> Vec<Member> {
    let mut members = vec![Member::start(None, rebalance).await];
    while members.len() < nodes {
        let first = members[0].node.peer;
        members.push(Member::start(Some(first), rebalance).await);
    }
    members
}

pub async fn stop(members: Vec<Member>) {
    for member in members.into_iter().rev() {
        member.node.stop().await;
    }
}

pub async fn publish(member: &Member, text: &str) -> v1::PublishResponse {
    let request = v1::PublishRequest {
        workspace: String::new(),
        text: text.to_owned(),
        actor: "test".into(),
    };
    member
        .journeys()
        .publish(request)
        .await
        .unwrap()
        .into_inner()
}

pub fn key(customer: &str) -> v1::Identifier {
    v1::Identifier {
        name: "id".into(),
        value: customer.into(),
    }
}

pub fn signal(customer: &str, id: &str, kind: &str) -> v1::Signal {
    v1::Signal {
        id: id.into(),
        source: "test".into(),
        r#type: kind.into(),
        identifiers: vec![key(customer)],
        ..Default::default()
    }
}

pub fn sending(signal: v1::Signal) -> v1::SendRequest {
    v1::SendRequest {
        workspace: String::new(),
        signal: Some(signal),
    }
}

/// Sends one and gives its receipt.
pub async fn send(member: &Member, signal: v1::Signal) -> v1::Receipt {
    let sent = member.signals().send(sending(signal)).await;
    sent.unwrap().into_inner().receipt.unwrap()
}

pub fn reference(customer: &str) -> v1::ExecutionRef {
    v1::ExecutionRef {
        customer: Some(key(customer)),
        journey: "line".into(),
        ..Default::default()
    }
}

/// The ids of the signals of a customer, in the order in which they were decided.
pub async fn timeline(member: &Member, customer: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut token = String::new();
    loop {
        let request = v1::TimelineRequest {
            execution: Some(reference(customer)),
            page_size: 1_000,
            page_token: token,
            options: None,
        };
        let page = member.executions().timeline(request).await.unwrap();
        let page = page.into_inner();
        for entry in page.entries {
            let cause = entry.cause.and_then(|c| c.cause);
            if let Some(v1::timeline_entry::cause::Cause::Signal(signal)) = cause {
                ids.push(signal.id);
            }
        }
        token = page.next_page_token;
        if token.is_empty() {
            return ids;
        }
    }
}

/// Looks until it is so.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

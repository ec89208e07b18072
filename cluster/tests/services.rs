//! Other services on the peer port, and the connections to them.

mod common;
mod several;

use common::until;
use several::peer_config;
use sojourn_cluster::transport::dial::Dialer;
use sojourn_cluster::transport::peers::{PeerConfig, PeerTransport};
use sojourn_cluster::transport::{Transport, TransportError};
use sojourn_cluster::{Host, NodeId};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

struct Node {
    transport: Arc<PeerTransport>,
    host: Host,
    _dir: TempDir,
}

/// A node whose health service says that a service named after the node is there.
async fn node(id: NodeId, also: bool) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    let transport = PeerTransport::on(peer_config(id), listener).expect("it listens");
    assert_eq!(transport.local_addr().port(), port);
    if also {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter
            .set_service_status(id.to_string(), tonic_health::ServingStatus::Serving)
            .await;
        transport.serve_also(Routes::new(service));
    }
    let dir = tempfile::tempdir().expect("a folder");
    let cfg = common::config(dir.path());
    let host = Host::open_among(cfg, transport.clone()).await;
    Node {
        transport,
        host: host.expect("it opens"),
        _dir: dir,
    }
}

async fn is_there(channel: Channel, service: NodeId) -> Result<bool, tonic::Status> {
    let request = HealthCheckRequest {
        service: service.to_string(),
    };
    let answer = HealthClient::new(channel).check(request).await?;
    Ok(answer.into_inner().status == ServingStatus::Serving as i32)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_services_are_reached_by_node_and_by_address() {
    let (one, two, three) = (
        node(1, true).await,
        node(2, true).await,
        node(3, false).await,
    );
    let unknown = one.transport.channel(2).expect_err("it is nowhere yet");
    assert!(
        matches!(&unknown, TransportError::Unreachable { node: 2, why } if why.contains("no address"))
    );
    let address = |node: &Node| Some(node.transport.local_addr().to_string());
    one.transport.set_address(2, address(&two));
    let channel = one.transport.channel(2).expect("an address is known");
    assert!(is_there(channel, 2).await.expect("answered"));
    // Frames go on beside it.
    until("it is reached", || one.transport.figures().peers[0].up).await;
    // All callers share one connection: the frames have one, the services another.
    let calls = (0..100).map(|_| is_there(one.transport.channel(2).expect("known"), 2));
    for answer in futures::future::join_all(calls).await {
        assert!(answer.expect("answered"));
    }
    assert_eq!(two.transport.figures().incoming, 2);
    // A node that has moved is found at its new address.
    one.transport.set_address(2, address(&three));
    let refused = is_there(one.transport.channel(2).expect("known"), 2).await;
    assert_eq!(
        refused.expect_err("no such service").code(),
        Code::Unimplemented
    );
    one.transport.set_address(2, None);
    assert!(one.transport.channel(2).is_err());
    // Who has no id yet asks by address.
    let dialer = Dialer::new(&PeerConfig::default()).expect("settings");
    let there = address(&two).expect("an address");
    let channel = dialer.channel_to(&there).expect("an address");
    assert!(is_there(channel, 2).await.expect("answered"));
    for node in [one, two, three] {
        node.host.close().await;
    }
}

#[tokio::test]
async fn what_is_no_address_is_said_and_what_is_not_there_is_unavailable() {
    let dialer = Dialer::new(&PeerConfig::default()).expect("settings");
    for (address, why) in [
        ("nowhere", "it has no port"),
        ("a b:1", "expected host:port"),
        ("host:1/path", "behind the port"),
        ("host:99999", "expected host:port"),
        ("", "expected host:port"),
    ] {
        let error = dialer
            .channel_to(address)
            .expect_err("no address")
            .to_string();
        assert!(
            error.contains(why) && error.contains(&format!("{address:?}")),
            "{error}"
        );
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let channel = dialer.channel_to(&address).expect("an address");
    let nobody = is_there(channel, 1).await.expect_err("nobody listens");
    assert_eq!(nobody.code(), Code::Unavailable);
}

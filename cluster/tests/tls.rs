//! TLS on the peer port: both sides show who they are, and who cannot is told why.

mod common;
mod several;

use common::until;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use several::{Part, World, peer_config, world};
use sojourn_cluster::transport::Transport;
use sojourn_cluster::transport::dial::Dialer;
use sojourn_cluster::transport::peers::{PeerConfig, PeerTransport};
use sojourn_cluster::transport::tls::PeerTls;
use sojourn_cluster::{Host, NodeId, OpenError};
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::service::Routes;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Who issues certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes a certificate for `name`, its key, and this authority as the one to trust.
    fn issue(&self, dir: &Path, name: &str) -> PeerTls {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("names");
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        let files = PeerTls {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            ca: dir.join("ca.pem"),
        };
        std::fs::write(&files.cert, cert.pem()).expect("written");
        std::fs::write(&files.key, key.serialize_pem()).expect("written");
        std::fs::write(&files.ca, self.0.pem()).expect("written");
        files
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

struct Node {
    transport: Arc<PeerTransport>,
    host: Host,
    _dir: TempDir,
}

impl Node {
    async fn open(id: NodeId, tls: Option<PeerTls>) -> Node {
        let peers = PeerConfig {
            tls,
            ..peer_config(id)
        };
        let transport = PeerTransport::bind(peers).await.expect("it listens");
        let (_, service) = tonic_health::server::health_reporter();
        transport.serve_also(Routes::new(service));
        let dir = folder();
        let host = Host::open_among(common::config(dir.path()), transport.clone()).await;
        Node {
            transport,
            host: host.expect("it opens"),
            _dir: dir,
        }
    }

    fn address(&self) -> String {
        self.transport.local_addr().to_string()
    }

    /// Waits until it says of the only other node that it cannot be reached for this reason.
    async fn cannot_reach(&self, words: &str) {
        let deadline = common::soon();
        let mut said = std::collections::BTreeSet::new();
        while !said.iter().any(|why: &String| why.contains(words)) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "expected {words:?}, found {said:?}"
            );
            said.extend(self.transport.figures().peers[0].why.clone());
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    async fn reaches(&self) {
        until("the other node is reached", || {
            self.transport.figures().peers[0].up
        })
        .await;
    }

    async fn asks(&self, node: NodeId) {
        let channel = self.transport.channel(node).expect("an address is known");
        let answer = HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await;
        answer.expect("answered");
    }
}

/// Connects with TLS and no certificate, trusting `authority`; answers what the node says first.
async fn without_certificate(to: &Node, authority: &Authority) -> std::io::Result<usize> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.0.pem().as_bytes()).expect("a certificate");
    roots.add(root).expect("trusted");
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(crypto)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("a version")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(to.address()).await?;
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(client))
        .connect(name, stream)
        .await?;
    stream.read(&mut [0; 16]).await
}

#[test]
fn frames_snapshots_and_services_go_with_tls() {
    let (authority, dir) = (Authority::new("one"), folder());
    let tls = authority.issue(dir.path(), "127.0.0.1");
    world(async |world| {
        *world = World::new();
        world.tls = Some(tls);
        world.settings = |cfg| cfg.keep_log_bytes = 0;
        for id in 1..=3 {
            world.start(id, Part::Voter(vec![1, 2, 3])).await;
        }
        world.settled().await;
        let owner = world.owner().await;
        let away = owner % 3 + 1;
        world.say("before").await;
        world.agree().await;
        world.kill(away).await;
        for n in 0..50 {
            world.say(&format!("line {n}")).await;
        }
        for node in world.nodes.values() {
            node.checkpoint_and_purge().await;
        }
        // What it lacks is in no log any more.
        world.restart(away).await;
        world.agree().await;
        assert_eq!(world.node(away).ledger.len(), 51);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_show_a_certificate_is_refused_and_told_why() {
    let (authority, other) = (Authority::new("one"), Authority::new("other"));
    let (here, there, mixed, named) = (folder(), folder(), folder(), folder());
    let one = Node::open(1, Some(authority.issue(here.path(), "127.0.0.1"))).await;
    let none = without_certificate(&one, &authority)
        .await
        .expect_err("refused");
    assert!(none.to_string().contains("CertificateRequired"), "{none}");
    until("it is counted", || one.transport.figures().strangers == 1).await;
    // Of another authority: neither side trusts the other.
    let two = Node::open(2, Some(other.issue(there.path(), "127.0.0.1"))).await;
    two.transport.set_address(1, Some(one.address()));
    two.cannot_reach("the other side's certificate is not accepted: UnknownIssuer")
        .await;
    // It trusts both, and is trusted by none.
    let tls = other.issue(mixed.path(), "127.0.0.1");
    std::fs::write(&tls.ca, [other.0.pem(), authority.0.pem()].concat()).expect("written");
    let three = Node::open(3, Some(tls)).await;
    three.transport.set_address(1, Some(one.address()));
    three
        .cannot_reach(
            "the other side does not accept this node's certificate or its TLS: UnknownCA",
        )
        .await;
    // A certificate for another host.
    let four = Node::open(4, Some(authority.issue(named.path(), "elsewhere.example"))).await;
    one.transport.set_address(4, Some(four.address()));
    one.cannot_reach("NotValidForName").await;
    // In the other direction all is well, and services are let in as frames are.
    four.transport.set_address(1, Some(one.address()));
    four.reaches().await;
    four.asks(1).await;
    for node in [one, two, three, four] {
        node.host.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_and_without_do_not_meet_and_each_says_so() {
    let (authority, dir) = (Authority::new("one"), folder());
    let with = Node::open(1, Some(authority.issue(dir.path(), "127.0.0.1"))).await;
    let without = Node::open(2, None).await;
    without.transport.set_address(1, Some(with.address()));
    without.cannot_reach("this peer port wants TLS").await;
    until("it is counted", || with.transport.figures().strangers > 0).await;
    with.transport.set_address(2, Some(without.address()));
    with.cannot_reach("the other side does not speak TLS").await;
    // For other services too.
    let dialer = Dialer::new(&PeerConfig::default()).expect("settings");
    let channel = dialer.channel_to(&with.address()).expect("an address");
    let refused = HealthClient::new(channel)
        .check(HealthCheckRequest::default())
        .await;
    let refused = refused.expect_err("refused");
    let mut texts = vec![refused.to_string()];
    let mut cause = std::error::Error::source(&refused);
    while let Some(inner) = cause {
        texts.push(inner.to_string());
        cause = inner.source();
    }
    assert!(
        texts.iter().any(|text| text.contains("wants TLS")),
        "{texts:?}"
    );
    for node in [with, without] {
        node.host.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_renewed_without_a_restart_and_broken_ones_change_nothing() {
    let (old, new) = (Authority::new("one"), Authority::new("other"));
    let (here, there) = (folder(), folder());
    let one = Node::open(1, Some(old.issue(here.path(), "127.0.0.1"))).await;
    let two = Node::open(2, Some(old.issue(there.path(), "127.0.0.1"))).await;
    two.transport.set_address(1, Some(one.address()));
    two.reaches().await;
    let figures = |node: &Node| node.transport.figures().tls.expect("with TLS");
    // Broken: a certificate that does not belong to the key. Somebody who fails makes it look at once.
    let cert = here.path().join("cert.pem");
    let good = std::fs::read(&cert).expect("read");
    std::fs::copy(there.path().join("cert.pem"), &cert).expect("written");
    without_certificate(&one, &old).await.expect_err("refused");
    until("the broken file is noticed", || {
        figures(&one).refused.is_some()
    })
    .await;
    let why = figures(&one).refused.expect("a reason");
    assert!(why.contains("cert.pem") && why.contains("key.pem"), "{why}");
    assert_eq!(figures(&one).reloads, 0);
    two.asks(1).await;
    std::fs::write(&cert, good).expect("written");
    without_certificate(&one, &old).await.expect_err("refused");
    until("it is whole again", || figures(&one).refused.is_none()).await;
    // Everything is new, the authority too. What is connected stays so.
    new.issue(here.path(), "127.0.0.1");
    new.issue(there.path(), "127.0.0.1");
    until("both have looked", || {
        figures(&one).reloads == 1 && figures(&two).reloads == 1
    })
    .await;
    assert_eq!(two.transport.figures().peers[0].connects, 1);
    let now = without_certificate(&one, &new).await.expect_err("refused");
    assert!(now.to_string().contains("CertificateRequired"), "{now}");
    let before = without_certificate(&one, &old).await.expect_err("refused");
    assert!(before.to_string().contains("UnknownIssuer"), "{before}");
    // Who connects anew does it with what is new.
    one.transport.set_address(2, Some(two.address()));
    one.reaches().await;
    one.asks(2).await;
    for node in [one, two] {
        node.host.close().await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let (authority, dir) = (Authority::new("one"), folder());
    let why = |tls: PeerTls| {
        let refused = Dialer::new(&PeerConfig {
            tls: Some(tls),
            ..PeerConfig::default()
        });
        match refused.expect_err("refused") {
            OpenError::Config { name, why } if name == "tls" => why,
            other => panic!("{other}"),
        }
    };
    let good = authority.issue(dir.path(), "127.0.0.1");
    let gone = PeerTls {
        ca: dir.path().join("nowhere.pem"),
        ..good.clone()
    };
    assert!(why(gone).contains("nowhere.pem cannot be read"));
    let swapped = PeerTls {
        cert: good.key.clone(),
        key: good.cert.clone(),
        ca: good.ca.clone(),
    };
    let text = why(swapped);
    assert!(text.contains("key.pem holds no certificate"), "{text}");
    let no_key = PeerTls {
        key: good.cert.clone(),
        ..good.clone()
    };
    let text = why(no_key);
    assert!(
        text.contains("the private key") && text.contains("cert.pem"),
        "{text}"
    );
    let garbage = dir.path().join("garbage.pem");
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&garbage, text).expect("written");
    let text = why(PeerTls {
        ca: garbage,
        ..good
    });
    assert!(text.contains("garbage.pem cannot be used"), "{text}");
}

//! Whoever reaches the peer port and does not belong there is told why, and the node goes on.

mod common;
mod several;

use common::{Ledger, machine, owned, say, until};
use futures::StreamExt;
use several::peer_config;
use sojourn_cluster::transport::peers::{PeerConfig, PeerTransport};
use sojourn_cluster::transport::{FrameBody, Transport, TransportError};
use sojourn_cluster::{Group, GroupId, Host, HostConfig};
use sojourn_proto::cluster as proto;
use sojourn_proto::cluster::peers_client::PeersClient;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

/// A node that is alone in its group, with its peer port open.
struct Alone {
    transport: Arc<PeerTransport>,
    group: Group,
    host: Host,
    _dir: tempfile::TempDir,
}

async fn alone(cfg: PeerConfig) -> Alone {
    let dir = tempfile::tempdir().expect("a folder");
    let host_config = HostConfig {
        dir: dir.path().to_owned(),
        ..HostConfig::default()
    };
    let transport = PeerTransport::bind(cfg).await.expect("it listens");
    let host = Host::open_among(host_config, transport.clone())
        .await
        .expect("it opens");
    let ledger = machine(&Ledger::new());
    let group = host.open_group(common::SHARD, ledger, vec![1]).await;
    let group = group.expect("it opens");
    owned(&group).await;
    Alone {
        transport,
        group,
        host,
        _dir: dir,
    }
}

fn hello() -> proto::Hello {
    proto::Hello {
        protocol: 1,
        cluster: peer_config(1).cluster,
        from: 2,
        to: 1,
    }
}

type Opened = (
    mpsc::Sender<proto::PeerMessage>,
    Streaming<proto::PeerMessage>,
);

async fn open(node: &Alone, hello: Option<proto::Hello>) -> Result<Opened, Status> {
    let address = format!("http://{}", node.transport.local_addr());
    let client = PeersClient::connect(address).await.expect("it connects");
    let (tx, rx) = mpsc::channel(4);
    let first = proto::PeerMessage {
        hello,
        frames: Vec::new(),
    };
    tx.send(first).await.expect("room");
    let mut client = client.max_encoding_message_size(usize::MAX);
    let stream = client.carry(ReceiverStream::new(rx)).await?;
    Ok((tx, stream.into_inner()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_told_why_they_are_refused() {
    let node = alone(peer_config(1)).await;
    let cases = [
        (None, "does not say who speaks"),
        (
            Some(proto::Hello {
                protocol: 7,
                ..hello()
            }),
            "protocol 7 is spoken there, this version knows 1",
        ),
        (
            Some(proto::Hello {
                cluster: "another".to_owned(),
                ..hello()
            }),
            "found cluster \"another\", expected \"a cluster of the tests\"",
        ),
        (
            Some(proto::Hello { to: 5, ..hello() }),
            "node 5 is meant, this is node 1",
        ),
        (
            Some(proto::Hello { from: 1, ..hello() }),
            "node 1 is this node itself",
        ),
    ];
    let count = cases.len() as u64;
    for (first, expected) in cases {
        let refused = open(&node, first).await.expect_err(expected);
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().contains(expected), "{refused}");
    }
    assert_eq!(node.transport.figures().strangers, count);
    let (_tx, mut welcome) = open(&node, Some(hello())).await.expect("welcome");
    let answer = welcome.message().await.expect("told").expect("a message");
    let greeting = answer.hello.expect("a greeting");
    assert_eq!((greeting.from, greeting.to), (1, 2));
    node.host.close().await;
}

fn append(from: u64, entries: Vec<bytes::Bytes>) -> FrameBody {
    FrameBody::Append(proto::Append {
        vote: Some(proto::VoteRecord {
            term: 90,
            node: from,
            committed: true,
        }),
        entries,
        ..proto::Append::default()
    })
}

fn entry(index: u64, term: u64, voters: Option<Vec<proto::VoterSet>>) -> bytes::Bytes {
    use prost::Message;
    let record = proto::LogEntry {
        index,
        term,
        node: 2,
        membership: voters.map(|voters| proto::MembershipRecord {
            voters,
            members: vec![1, 2],
        }),
        ..proto::LogEntry::default()
    };
    let mut bytes = vec![1];
    record.encode(&mut bytes).expect("a Vec has room");
    bytes.into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_cannot_be_are_refused_and_the_group_goes_on() {
    let node = alone(peer_config(1)).await;
    let (tx, mut answers) = open(&node, Some(hello())).await.expect("welcome");
    answers.message().await.expect("told").expect("a greeting");
    let candidate = |term, node, committed| {
        FrameBody::Vote(proto::Vote {
            vote: Some(proto::VoteRecord {
                term,
                node,
                committed,
            }),
            last: None,
        })
    };
    let one = common::SHARD.0;
    let mut elsewhere = entry(0, 1, None).to_vec();
    elsewhere[0] = 9;
    let cases = [
        (
            77,
            Some(append(2, vec![])),
            "shard 76 is not open on node 1",
        ),
        (one, None, "no body"),
        (one, Some(append(3, vec![])), "sends the vote of node 3"),
        (
            one,
            Some(append(2, vec![entry(5, 1, None)])),
            "found entry 5, expected entry 0",
        ),
        (one, Some(append(2, vec![entry(0, 91, None)])), "of term 91"),
        (
            one,
            Some(append(2, vec![entry(0, 2, None), entry(1, 1, None)])),
            "between an earlier one",
        ),
        (
            one,
            Some(append(2, vec![entry(0, 1, Some(vec![]))])),
            "0 sets of voters",
        ),
        (
            one,
            Some(append(
                2,
                vec![entry(0, 1, Some(vec![proto::VoterSet::default()]))],
            )),
            "none empty",
        ),
        (one, Some(append(2, vec![elsewhere.into()])), "format 9"),
        (
            one,
            Some(append(2, vec!["\u{1}garbage".into()])),
            "cannot be decoded",
        ),
        (
            one,
            Some(FrameBody::Append(proto::Append::default())),
            "the vote is missing",
        ),
        (one, Some(candidate(u64::MAX, 2, false)), "which cannot be"),
        (one, Some(candidate(9, 2, true)), "expected a candidate"),
        (
            one,
            Some(FrameBody::Elect(proto::Elect::default())),
            "the vote is missing",
        ),
        (
            one,
            Some(FrameBody::VoteAnswer(proto::VoteAnswer::default())),
            "an answer was sent as a question",
        ),
    ];
    let frames = cases
        .iter()
        .zip(1..)
        .map(|((group, body, _), number)| proto::Frame {
            number,
            group: *group,
            body: body.clone(),
        });
    let message = proto::PeerMessage {
        hello: None,
        frames: frames.collect(),
    };
    tx.send(message).await.expect("open");
    let mut found = std::collections::BTreeMap::new();
    while found.len() < cases.len() {
        let answer = answers.message().await.expect("told").expect("a message");
        for frame in answer.frames {
            found.insert(frame.number, frame.body.expect("a body"));
        }
    }
    for ((_, _, expected), number) in cases.iter().zip(1..) {
        match &found[&number] {
            FrameBody::Refused(refused) => {
                assert!(
                    refused.why.contains(expected),
                    "{}: {expected}",
                    refused.why
                );
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
    assert_eq!(say(&node.group, "still here").await, 1);
    assert!(node.host.failed().borrow().is_none());
    node.host.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_huge_messages_and_too_many_connections_stop_nobody() {
    let node = alone(PeerConfig {
        connections: 8,
        connect_within: Duration::from_millis(200),
        ..peer_config(1)
    })
    .await;
    let address = node.transport.local_addr();
    for seed in 0..5_u8 {
        let mut socket = TcpStream::connect(address).await.expect("it connects");
        let garbage: Vec<u8> = (0..10_000_u32)
            .map(|n| (n as u8).wrapping_mul(seed))
            .collect();
        // The node may close before it has read everything.
        drop(socket.write_all(&garbage).await);
        let mut rest = Vec::new();
        drop(socket.read_to_end(&mut rest).await);
    }
    // More than fits into a message: the stream ends, the node goes on.
    let (tx, mut answers) = open(&node, Some(hello())).await.expect("welcome");
    answers.message().await.expect("told").expect("a greeting");
    let huge = proto::PeerMessage {
        hello: None,
        frames: vec![proto::Frame {
            number: 1,
            group: 1,
            body: Some(append(2, vec![vec![0; 40 << 20].into()])),
        }],
    };
    tx.send(huge).await.expect("open");
    let ended = answers
        .next()
        .await
        .expect("an end")
        .expect_err("too large");
    assert!(ended.message().contains("cannot be read"), "{ended}");
    drop((tx, answers));
    until("the connections are gone", || {
        node.transport.figures().incoming == 0
    })
    .await;
    // Who says nothing takes a place, but only so many places.
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.expect("it connects"));
    }
    until("the places are taken", || {
        node.transport.figures().incoming == 8
    })
    .await;
    until("the others were sent away", || {
        node.transport.figures().strangers >= 12
    })
    .await;
    drop(silent);
    until("the places are free", || {
        node.transport.figures().incoming == 0
    })
    .await;
    let (_tx, mut welcome) = open(&node, Some(hello())).await.expect("welcome");
    assert!(welcome.message().await.expect("told").is_some());
    assert_eq!(say(&node.group, "still here").await, 1);
    node.host.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_bounded_and_said() {
    // It accepts and never says a word.
    let mute = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = mute.local_addr().expect("bound").to_string();
    let transport = PeerTransport::bind(PeerConfig {
        queue_frames: 4,
        message_bytes: 1000,
        connect_within: Duration::from_secs(2),
        retry_min: Duration::from_secs(3600),
        retry_max: Duration::from_secs(3600),
        ..peer_config(1)
    })
    .await
    .expect("it listens");
    transport.set_address(2, Some(address));
    let ask = |within| transport.ask(2, GroupId(1), append(1, vec![]), within);
    let waiting: Vec<_> = (0..4).map(|_| ask(Duration::from_secs(60))).collect();
    let full = ask(Duration::from_secs(60)).await;
    let Err(TransportError::Full {
        waiting: 4,
        what: "frames",
        limit: "queue_frames",
        ..
    }) = full
    else {
        panic!("{full:?}");
    };
    let large = append(1, vec![vec![0; 2000].into()]);
    let large = transport
        .ask(2, GroupId(1), large, Duration::from_secs(60))
        .await;
    assert!(
        matches!(large, Err(TransportError::TooLarge { limit: 1000, .. })),
        "{large:?}"
    );
    for told in futures::future::join_all(waiting).await {
        let error = told.expect_err("nobody answers");
        assert!(
            error.to_string().contains("has not greeted within 2000 ms"),
            "{error}"
        );
    }
    // From now on it is told at once, until there is a way.
    let down = ask(Duration::from_secs(60)).await.expect_err("no way");
    assert!(
        matches!(down, TransportError::Unreachable { node: 2, .. }),
        "{down}"
    );
    let nowhere = transport
        .ask(3, GroupId(1), append(1, vec![]), Duration::from_secs(60))
        .await;
    let nowhere = nowhere.expect_err("no address");
    assert!(nowhere.to_string().contains("no address"), "{nowhere}");
    let figures = transport.figures();
    assert_eq!(figures.peers.len(), 2);
    assert_eq!(
        (figures.peers[0].queue_frames, figures.peers[0].unanswered),
        (0, 0)
    );
    assert_eq!(figures.peers[0].refused_full, 1);
    transport.stop();
    drop(mute);
}

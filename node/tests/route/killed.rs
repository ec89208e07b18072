//! The owner is a process that is killed while signals are on their way to it.

use crate::support::{JOURNEY, Member, PATIENCE, publish, send, signal, stop, timeline, until};
use prost::Message;
use sojourn_proto::v1;
use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tonic::Code;

struct Owner {
    child: Child,
}

impl Drop for Owner {
    fn drop(&mut self) {
        // it may have ended
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Owner {
    fn start(dir: &Path, ports: [SocketAddr; 3]) -> Owner {
        let [grpc, http, peer] = ports.map(|p| p.to_string());
        let child = Command::new(env!("CARGO_BIN_EXE_sojourn"))
            .args(["serve", "--bootstrap", "--shards", "4", "--data"])
            .arg(dir)
            .args(["--listen", &grpc, "--http", &http, "--peer", &peer])
            .env_remove("SOJOURN_CONFIG")
            .env("SOJOURN_LOG", "error")
            .env("SOJOURN_LIMITS__DISK_FREE_MIN", "0")
            .env("SOJOURN_CLUSTER__REBALANCE", "false")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Owner { child }
    }
}

/// Ports that were free a moment ago, at a loopback address where nobody else asks for one.
fn ports() -> [SocketAddr; 3] {
    let taken = [(); 3].map(|()| TcpListener::bind("127.0.1.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap())
}

async fn ready(http: SocketAddr) {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(2));
    let client = client.build().unwrap();
    until("the owner is ready", async || {
        let asked = client.get(format!("http://{http}/ready")).send();
        let answer = asked.await.ok()?;
        answer.status().is_success().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_owner_left_unanswered_is_unknown_and_safe_to_send_again() {
    const CUSTOMERS: usize = 40;
    const EACH: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("owner");
    let ports = ports();
    let mut owner = Owner::start(&data, ports);
    // a client of reqwest's needs it, and a node has installed it by then in every other test
    let _ = rustls::crypto::ring::default_provider().install_default();
    ready(ports[1]).await;
    let door = Member::start(Some(ports[2]), false).await;
    publish(&door, JOURNEY).await;
    for n in 0..CUSTOMERS {
        send(&door, signal(&format!("c{n}"), "start", "t.start")).await;
    }

    let signals: Vec<v1::Signal> = (0..CUSTOMERS * EACH)
        .map(|n| signal(&format!("c{}", n % CUSTOMERS), &format!("s{n}"), "t.step"))
        .collect();
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    for (number, signal) in signals.iter().enumerate() {
        let signal = signal.encode_to_vec().into();
        let number = number as u64;
        tx.send(v1::StreamRequest {
            number,
            workspace: String::new(),
            signal,
        })
        .unwrap();
    }
    let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(rx);
    let mut acks = door.signals().stream(outgoing).await.unwrap().into_inner();
    let mut receipts: HashMap<u64, v1::Receipt> = HashMap::new();
    let (mut unknown, mut nothing_done) = (0, 0);
    let mut answered = 0;
    let all = async {
        while answered < signals.len() {
            let response = acks.message().await.unwrap().expect("more acks");
            for ack in response.acks {
                answered += 1;
                match ack.result.and_then(|r| r.result) {
                    Some(v1::item_result::Result::Receipt(receipt)) => {
                        receipts.insert(ack.number, receipt);
                    }
                    Some(v1::item_result::Result::Error(error)) => match error.cause.as_str() {
                        "unknown_outcome" => {
                            assert_eq!(error.code, Code::DeadlineExceeded as i32);
                            assert!(error.message.contains("sending the same id again is safe"));
                            unknown += 1;
                        }
                        "not_owner" => {
                            assert!(error.message.contains("nothing was done"), "{error:?}");
                            assert!(error.retry_after_ms > 0);
                            nothing_done += 1;
                        }
                        // the door lets a customer's signals wait only as long as they may
                        "overloaded_customer" | "overloaded_hop" => nothing_done += 1,
                        other => panic!("{other}: {error:?}"),
                    },
                    None => panic!("an empty answer"),
                }
                if answered == 100 {
                    owner.child.kill().unwrap();
                    owner.child.wait().unwrap();
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all answered");
    assert!(unknown > 0, "nothing was under way when it was killed");
    assert!(nothing_done > 0, "nothing waited");
    // each customer has one on its way at most
    assert!(unknown <= CUSTOMERS, "{unknown} unknown");

    let _owner = Owner::start(&data, ports);
    ready(ports[1]).await;
    // the same ids again: what was applied is a duplicate, the rest is done now
    for (number, signal) in signals.iter().enumerate() {
        let receipt = send(&door, signal.clone()).await;
        if let Some(first) = receipts.get(&(number as u64)) {
            assert!(
                receipt.duplicate,
                "signal {number} was acknowledged: {receipt:?}"
            );
            assert_eq!(receipt.decision, first.decision);
        }
    }
    for n in 0..CUSTOMERS {
        let went = timeline(&door, &format!("c{n}")).await;
        let mut expected: Vec<String> = (0..EACH)
            .map(|i| format!("s{}", i * CUSTOMERS + n))
            .collect();
        expected.push("start".into());
        expected.sort();
        let mut found = went.clone();
        found.sort();
        assert_eq!(found, expected, "each once: {went:?}");
    }
    stop(vec![door]).await;
}

//! Owners move and go while signals come in through other doors.

use crate::support::{
    JOURNEY, Member, PATIENCE, SHARDS, publish, reference, send, signal, spread, stop, timeline,
    until,
};
use prost::Message;
use sojourn_proto::v1;
use std::collections::BTreeMap;

const CUSTOMERS: usize = 12;
/// Few enough that all are through in the time that a stream gives each, with two moves of every shard in it.
const EACH: usize = 24;

/// Sends to all customers in order through one door, at most so many at once of each, and gives what had no receipt.
async fn stream(
    member: &Member,
    acked: tokio::sync::mpsc::UnboundedSender<usize>,
) -> Vec<(String, String)> {
    let signals: Vec<v1::Signal> = (0..CUSTOMERS * EACH)
        .map(|n| {
            signal(
                &format!("c{}", n % CUSTOMERS),
                &format!("s{n:05}"),
                "t.step",
            )
        })
        .collect();
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    for (number, signal) in signals.iter().enumerate() {
        tx.send(v1::StreamRequest {
            number: number as u64,
            workspace: String::new(),
            signal: signal.encode_to_vec().into(),
        })
        .unwrap();
    }
    let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(rx);
    let mut acks = member
        .signals()
        .stream(outgoing)
        .await
        .unwrap()
        .into_inner();
    let mut answers: BTreeMap<u64, v1::ItemResult> = BTreeMap::new();
    let all = async {
        while answers.len() < signals.len() {
            let response = acks.message().await.unwrap().expect("more acks");
            for ack in response.acks {
                answers.insert(ack.number, ack.result.expect("a result"));
                let _ = acked.send(answers.len());
            }
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all answered");
    let errors = answers
        .into_iter()
        .filter_map(|(number, result)| match result.result {
            Some(v1::item_result::Result::Receipt(_)) => None,
            Some(v1::item_result::Result::Error(error)) => {
                Some((signals[number as usize].id.clone(), error.message))
            }
            None => Some((signals[number as usize].id.clone(), "nothing".into())),
        });
    errors.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_keep_their_order_while_their_owners_change() {
    let members = spread(3).await;
    publish(&members[1], JOURNEY).await;
    for n in 0..CUSTOMERS {
        send(
            &members[n % 3],
            signal(&format!("c{n}"), "start", "t.start"),
        )
        .await;
    }
    let (acked, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let moves = async {
        // once some are through, every shard goes to the next node, and again
        for round in 1..=2 {
            while progress.recv().await.is_some_and(|n| n < round * 60) {}
            for shard in 0..SHARDS {
                let mut door = members[1].cluster();
                let status = door.get_status(v1::GetClusterStatusRequest {});
                let status = status.await.unwrap().into_inner();
                let now = status.shards.iter().find(|s| s.shard == u32::from(shard));
                let to = now.map_or(1, |s| s.owner % 3 + 1);
                // one that does not want it now says so; the next round tries again
                let _ = members[1]
                    .cluster()
                    .transfer(v1::TransferRequest {
                        shard: shard.into(),
                        to,
                        actor: "test".into(),
                    })
                    .await;
            }
        }
        while progress.recv().await.is_some() {}
    };
    let (errors, ()) = tokio::join!(stream(&members[1], acked), moves);
    assert!(errors.is_empty(), "{errors:?}");
    for n in 0..CUSTOMERS {
        let went = timeline(&members[n % 3], &format!("c{n}")).await;
        let mut expected = vec!["start".to_owned()];
        expected.extend((0..EACH).map(|i| format!("s{:05}", i * CUSTOMERS + n)));
        assert_eq!(went, expected);
    }
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_leaves_is_not_noticed_at_another_door() {
    let mut members = spread(3).await;
    publish(&members[0], JOURNEY).await;
    for n in 0..CUSTOMERS {
        send(&members[0], signal(&format!("c{n}"), "start", "t.start")).await;
    }
    let leaving = members.remove(0);
    let (acked, mut progress) = tokio::sync::mpsc::unbounded_channel();
    let leaves = async {
        while progress.recv().await.is_some_and(|n| n < 60) {}
        leaving.node.stop().await;
    };
    let (errors, ()) = tokio::join!(stream(&members[0], acked), leaves);
    assert!(errors.is_empty(), "{errors:?}");
    // reads: linearizable through either door, and stale from each replica
    for n in 0..CUSTOMERS {
        let who = format!("c{n}");
        for member in &members {
            let went = timeline(member, &who).await;
            assert_eq!(went.len(), EACH + 1, "{went:?}");
            let stale = v1::GetExecutionRequest {
                execution: Some(reference(&who)),
                options: Some(v1::ReadOptions {
                    stale: true,
                    at_least: None,
                }),
            };
            let shown = member.executions().get(stale).await.unwrap().into_inner();
            assert!((0..10_000).contains(&shown.age_ms), "{} ms", shown.age_ms);
        }
        // what was written through one door is read at the other with its position
        let receipt = send(&members[0], signal(&who, "last", "t.end")).await;
        let get = v1::GetExecutionRequest {
            execution: Some(reference(&who)),
            options: Some(v1::ReadOptions {
                stale: false,
                at_least: receipt.position,
            }),
        };
        let shown = members[1].executions().get(get).await.unwrap().into_inner();
        assert_eq!(
            shown.execution.unwrap().status,
            v1::Status::Completed as i32
        );
        assert!(shown.position.unwrap().index >= receipt.position.unwrap().index);
    }
    let report = v1::ReportRequest {
        journey: "line".into(),
        ..Default::default()
    };
    let mut reports = Vec::new();
    for member in &members {
        reports.push(
            until("a report", async || {
                Some(
                    member
                        .journeys()
                        .report(report.clone())
                        .await
                        .ok()?
                        .into_inner(),
                )
            })
            .await,
        );
    }
    assert_eq!(reports[0].outcomes, reports[1].outcomes);
    assert_eq!(reports[0].started, CUSTOMERS as u64);
    stop(members).await;
}

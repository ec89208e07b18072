//! Signals through doors that do not own their shard.

use crate::support::{
    JOURNEY, Member, PATIENCE, cluster, publish, send, sending, signal, stop, timeline,
};
use prost::Message;
use sojourn_proto::v1;
use std::collections::{BTreeMap, HashSet};
use tonic::Code;
use tonic_types::StatusExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_answers_what_its_streams_took_and_ends_them() {
    let mut members = cluster(1).await;
    let member = members.remove(0);
    publish(&member, JOURNEY).await;
    send(&member, signal("c", "start", "t.start")).await;
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    let step = move |number: u64| {
        let step = signal("c", &format!("s{number}"), "t.step");
        // the stream ends when it ends
        let _ = tx.send(v1::StreamRequest {
            number,
            workspace: String::new(),
            signal: step.encode_to_vec().into(),
        });
    };
    let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(rx);
    let mut acks = member.signals().stream(outgoing).await.unwrap();
    let acks = acks.get_mut();
    let mut next = 0;
    while next < 8 {
        step(next);
        next += 1;
    }
    // one more for each that is answered: it never pauses by itself
    let mut stopping = Some(member);
    let mut stopped = None;
    let ended = loop {
        match tokio::time::timeout(PATIENCE, acks.message())
            .await
            .unwrap()
        {
            Ok(Some(response)) => {
                for _ in response.acks {
                    step(next);
                    next += 1;
                }
            }
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
        if next > 40
            && let Some(member) = stopping.take()
        {
            stopped = Some(tokio::spawn(member.node.stop()));
        }
    };
    ended.expect("an end in order");
    stopped.expect("it was told to").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_through_each_door_is_applied_once() {
    let members = cluster(3).await;
    publish(&members[0], JOURNEY).await;
    for n in 0..12 {
        let who = format!("c{n}");
        let receipts = [
            send(&members[n % 3], signal(&who, "a", "t.start")).await,
            send(&members[(n + 1) % 3], signal(&who, "b", "t.step")).await,
        ];
        for (receipt, id) in receipts.iter().zip(["a", "b"]) {
            assert_eq!(receipt.signal_id, id);
            assert!(!receipt.duplicate && !receipt.no_match, "{receipt:?}");
            assert_eq!(receipt.parts.len(), 1, "{receipt:?}");
            assert!(receipt.position.is_some_and(|p| p.index > 0), "{receipt:?}");
        }
        for member in &members {
            let again = send(member, signal(&who, "b", "t.step")).await;
            let first = v1::Receipt {
                duplicate: true,
                ..receipts[1].clone()
            };
            assert_eq!(again, first);
        }
        assert_eq!(timeline(&members[0], &who).await, ["a", "b"]);
    }
    stop(members).await;
}

/// Sends all at once on one stream and gives the answers by number.
async fn stream(member: &Member, signals: Vec<v1::Signal>) -> BTreeMap<u64, v1::ItemResult> {
    let many = signals.len();
    let (tx, rx) = tokio::sync::mpsc::unbounded_channel();
    for (number, signal) in signals.into_iter().enumerate() {
        let request = v1::StreamRequest {
            number: number as u64,
            workspace: String::new(),
            signal: signal.encode_to_vec().into(),
        };
        tx.send(request).unwrap();
    }
    let outgoing = tokio_stream::wrappers::UnboundedReceiverStream::new(rx);
    let mut acks = member
        .signals()
        .stream(outgoing)
        .await
        .unwrap()
        .into_inner();
    let mut answers = BTreeMap::new();
    let all = async {
        while answers.len() < many {
            let response = acks.message().await.unwrap().expect("more acks");
            for ack in response.acks {
                let twice = answers.insert(ack.number, ack.result.expect("a result"));
                assert!(twice.is_none(), "{} was answered twice", ack.number);
            }
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("all answered");
    answers
}

fn receipt(result: &v1::ItemResult) -> &v1::Receipt {
    match &result.result {
        Some(v1::item_result::Result::Receipt(receipt)) => receipt,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_order_of_one_customer_is_kept_through_a_door_that_does_not_own_them() {
    let members = cluster(2).await;
    publish(&members[0], JOURNEY).await;
    send(&members[1], signal("ann", "start", "t.start")).await;
    let many = 500;
    let ids: Vec<String> = (0..many).map(|n| format!("s{n}")).collect();
    // those of others between them
    let signals = ids.iter().enumerate().flat_map(|(n, id)| {
        let other = (n % 5 == 0).then(|| signal(&format!("o{n}"), "start", "t.start"));
        std::iter::once(signal("ann", id, "t.step")).chain(other)
    });
    let answers = stream(&members[1], signals.collect()).await;
    for result in answers.values() {
        receipt(result);
    }
    let mut expected = vec!["start".to_owned()];
    expected.extend(ids);
    assert_eq!(timeline(&members[0], "ann").await, expected);
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_through_another_door_answers_each_item_and_bad_ones_do_not_hop() {
    let members = cluster(2).await;
    publish(&members[0], JOURNEY).await;
    let mut signals: Vec<v1::Signal> = (0..60)
        .map(|n| signal(&format!("c{}", n % 20), &format!("s{n}"), "t.start"))
        .collect();
    signals.push(signal("bad", "x", "not a type"));
    let request = v1::SendBatchRequest {
        workspace: String::new(),
        signals,
    };
    let results = members[1].signals().send_batch(request).await.unwrap();
    let results = results.into_inner().results;
    let moved: HashSet<_> = results[..60].iter().map(|r| &receipt(r).decision).collect();
    assert_eq!(moved.len(), 60);
    match &results[60].result {
        Some(v1::item_result::Result::Error(error)) => {
            assert_eq!(error.violations[0].field, "signal.type");
        }
        other => panic!("{other:?}"),
    }
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_handed_over_once_is_not_handed_on_and_the_owner_is_named() {
    let members = cluster(2).await;
    publish(&members[0], JOURNEY).await;
    // through the door it works; handed over by another node it is refused
    send(&members[1], signal("ann", "a", "t.start")).await;
    let mut request = tonic::Request::new(sending(signal("ann", "b", "t.step")));
    request
        .metadata_mut()
        .insert("sojourn-forwarded", "1".parse().unwrap());
    let status = members[1].signals().send(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().unwrap();
    assert_eq!(info.reason, "not_owner");
    assert_eq!(info.metadata["owner"], members[0].node.id.to_string());
    assert_eq!(info.metadata["address"], members[0].node.grpc.to_string());
    assert!(
        details
            .retry_info()
            .is_some_and(|r| r.retry_delay.is_some())
    );
    assert_eq!(timeline(&members[0], "ann").await, ["a"]);
    stop(members).await;
}

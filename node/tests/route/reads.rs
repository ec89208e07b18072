//! Reads and commands through doors that have no replica answer as the owner does.

use crate::support::{
    JOURNEY, Member, cluster, key, publish, reference, send, signal, spread, stop, until,
};
use sojourn_proto::v1;
use std::collections::BTreeSet;
use v1::watch_response::What;

const CUSTOMERS: usize = 25;

async fn filled() -> Vec<Member> {
    let members = cluster(2).await;
    publish(&members[0], JOURNEY).await;
    for n in 0..CUSTOMERS {
        let who = format!("c{n}");
        send(&members[0], signal(&who, "a", "t.start")).await;
        // moves nothing
        send(&members[0], signal(&who, "b", "t.nothing")).await;
        if n % 3 == 0 {
            send(&members[0], signal(&who, "c", "t.end")).await;
        }
    }
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_answers_through_another_door_as_at_the_owner() {
    let members = filled().await;
    let [first, second] = &members[..] else {
        panic!("two members");
    };
    for n in 0..6 {
        let who = format!("c{n}");
        let get = v1::GetExecutionRequest {
            execution: Some(reference(&who)),
            options: None,
        };
        let timeline = v1::TimelineRequest {
            execution: Some(reference(&who)),
            page_size: 1,
            ..Default::default()
        };
        let why = v1::WhyRequest {
            execution: Some(reference(&who)),
            options: None,
        };
        let receipt = v1::GetReceiptRequest {
            customer: Some(key(&who)),
            source: "test".into(),
            signal_id: "a".into(),
            ..Default::default()
        };
        let mut answers = Vec::new();
        for member in [first, second] {
            let mut door = member.executions();
            answers.push((
                door.get(get.clone()).await.unwrap().into_inner(),
                door.timeline(timeline.clone()).await.unwrap().into_inner(),
                door.why(why.clone()).await.unwrap().into_inner(),
                door.get_receipt(receipt.clone())
                    .await
                    .unwrap()
                    .into_inner(),
            ));
        }
        assert_eq!(answers[0], answers[1]);
        assert!(answers[0].0.position.is_some_and(|p| p.index > 0));
        assert_eq!(answers[0].1.entries.len(), 1);
        // a page token of one door goes on at the other
        let next = v1::TimelineRequest {
            page_token: answers[0].1.next_page_token.clone(),
            page_size: 100,
            ..timeline
        };
        let here = first.executions().timeline(next.clone()).await.unwrap();
        let there = second.executions().timeline(next).await.unwrap();
        assert_eq!(here.into_inner(), there.into_inner());
    }
    let nobody = v1::GetExecutionRequest {
        execution: Some(reference("nobody")),
        options: None,
    };
    let here = first.executions().get(nobody.clone()).await.unwrap_err();
    let there = second.executions().get(nobody).await.unwrap_err();
    assert_eq!(
        (here.code(), here.message()),
        (there.code(), there.message())
    );
    assert_eq!(there.code(), tonic::Code::NotFound);
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_begin_at_one_door_and_end_at_another() {
    let members = filled().await;
    for first_door in 0..2 {
        let (mut ids, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = v1::ListExecutionsRequest {
                journey: "line".into(),
                page_size: 7,
                page_token: token,
                ..Default::default()
            };
            let member = &members[(first_door + pages) % 2];
            let page = member
                .executions()
                .list(request)
                .await
                .unwrap()
                .into_inner();
            assert!(page.executions.len() <= 7);
            ids.extend(page.executions.into_iter().map(|e| e.id));
            token = page.next_page_token;
            pages += 1;
            if token.is_empty() {
                break;
            }
        }
        assert!(pages > 2, "{pages} pages");
        assert_eq!(ids.len(), CUSTOMERS);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), CUSTOMERS);

        let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = v1::ListUnmatchedRequest {
                page_size: 7,
                page_token: token,
                ..Default::default()
            };
            let member = &members[(first_door + pages) % 2];
            let page = member.signals().list_unmatched(request).await.unwrap();
            let page = page.into_inner();
            found.extend(page.signals.into_iter().map(|s| s.customer.unwrap().value));
            token = page.next_page_token;
            pages += 1;
            if token.is_empty() {
                break;
            }
        }
        assert!(pages > 2, "{pages} pages");
        assert_eq!(found.len(), CUSTOMERS);
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), CUSTOMERS);
    }
    // those that concerned nobody are sampled at the owner, and shown at every door
    let receipt = send(&members[1], signal("stranger", "x", "t.nothing")).await;
    assert!(receipt.no_match, "{receipt:?}");
    for member in &members {
        let mut door = member.signals();
        let page = door.list_unmatched(v1::ListUnmatchedRequest::default());
        let page = page.await.unwrap().into_inner();
        let sampled = page.no_match.iter().filter_map(|n| n.signal.as_ref());
        assert_eq!(sampled.filter(|s| s.id == "x").count(), 1);
    }
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_are_equal_at_every_door() {
    let members = filled().await;
    let request = v1::ReportRequest {
        journey: "line".into(),
        ..Default::default()
    };
    let here = members[0].journeys().report(request.clone()).await.unwrap();
    // a door knows the journey when the catalog has reached it
    let there = until("the journey at the other door", async || {
        members[1].journeys().report(request.clone()).await.ok()
    })
    .await;
    let (here, there) = (here.into_inner(), there.into_inner());
    assert_eq!(here, there);
    assert_eq!(here.started, CUSTOMERS as u64);
    let listed = v1::ListJourneysRequest::default();
    let here = members[0].journeys().list(listed.clone()).await.unwrap();
    let there = members[1].journeys().list(listed).await.unwrap();
    assert_eq!(here.into_inner(), there.into_inner());
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_explains_what_was_published_after_it_was_opened() {
    let members = spread(3).await;
    publish(&members[0], JOURNEY).await;
    send(&members[0], signal("c1", "a", "t.start")).await;
    for member in &members {
        let request = v1::WhyRequest {
            execution: Some(reference("c1")),
            options: Some(v1::ReadOptions {
                stale: true,
                ..Default::default()
            }),
        };
        // a replica shows it once it has heard of it
        until("an explanation", async || {
            member.executions().why(request.clone()).await.ok()
        })
        .await;
    }
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_through_another_door_is_done_once() {
    let members = filled().await;
    let hold = v1::CommandRequest {
        execution: Some(reference("c1")),
        id: "hold-1".into(),
        actor: "ann".into(),
        reason: "a test".into(),
        expected_visit: None,
    };
    let held = members[1].executions().hold(hold.clone()).await.unwrap();
    let held = held.into_inner();
    assert!(!held.duplicate);
    assert_eq!(held.execution.unwrap().status, v1::Status::Held as i32);
    for member in &members {
        let again = member.executions().hold(hold.clone()).await.unwrap();
        assert!(again.into_inner().duplicate);
    }
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_through_another_door_sees_what_happens() {
    let members = filled().await;
    let request = v1::WatchRequest {
        customer: Some(key("c1")),
        ..Default::default()
    };
    let mut watch = members[1]
        .executions()
        .watch(request)
        .await
        .unwrap()
        .into_inner();
    let first = watch.message().await.unwrap().unwrap().what;
    assert!(matches!(first, Some(What::Started(_))), "{first:?}");
    send(&members[0], signal("c2", "d", "t.step")).await;
    send(&members[0], signal("c1", "d", "t.step")).await;
    let next = watch.message().await.unwrap().unwrap().what;
    let Some(What::Entry(entry)) = next else {
        panic!("{next:?}");
    };
    let cause = entry.cause.and_then(|c| c.cause);
    match cause {
        Some(v1::timeline_entry::cause::Cause::Signal(signal)) => {
            assert_eq!(signal.id, "d");
            assert_eq!(signal.identifiers, [key("c1")]);
        }
        other => panic!("{other:?}"),
    }
    drop(watch);
    stop(members).await;
}

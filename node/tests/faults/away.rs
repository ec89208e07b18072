//! Customers leave memory when nothing of theirs has been active for the dedup window, and nobody can tell from outside.

use super::support::*;
use futures::TryStreamExt;
use sojourn_client::{
    Client, ExecutionRef, Filter, Identifier, Outcome, Read, Signal, UnmatchedFilter,
};
use std::path::Path;
use std::time::Instant;

const VISITS: &str = "journey: visits
entry:
  - on: shop.opened
stages:
  - stage: inside
    transitions:
      - { to: gone, on: shop.closed }
  - { stage: gone, end: left }
";

/// A window that is over before the test looks again.
const SHORT: &[(&str, &str)] = &[
    ("SOJOURN_LIMITS__DEDUP_SECONDS", "1"),
    ("SOJOURN_LIMITS__DISK_FREE_MIN", "0"),
    ("SOJOURN_CHECKPOINT__EVERY_SECONDS", "1"),
];

const PEOPLE: [&str; 4] = ["Zoë", "Ærø 7", "李雷", "o'Brien"];

fn who(name: &str) -> Identifier {
    Identifier::new("id", name)
}

async fn send(client: &Client, kind: &str, name: &str, id: &str) -> (&'static str, bool) {
    let signal = Signal::with_id(kind, id)
        .source("till")
        .customer("id", name);
    match client.send(signal).await.expect("it is answered") {
        Outcome::Done(receipt) => (receipt.first_word(), receipt.duplicate),
        other => panic!("{name} {kind}: {other:?}"),
    }
}

impl Server {
    async fn metric(&self, what: &str) -> u64 {
        let metrics = self.http("/metrics").await;
        let name = format!("sojourn_node{{what=\"{what}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|n| n.parse().ok())
            .unwrap_or_else(|| panic!("no {what}: {metrics}"))
    }

    async fn has_away(&self, count: u64) {
        let until = Instant::now() + PATIENCE;
        while self.metric("customers_away").await != count {
            assert!(
                Instant::now() < until,
                "{} are away",
                self.metric("customers_away").await
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

/// All that can be asked of these people, as a text.
async fn asked(client: &Client) -> Vec<String> {
    let mut all = Vec::new();
    for name in PEOPLE {
        let latest = ExecutionRef::Latest {
            customer: who(name),
            journey: "visits".to_owned(),
            instance: None,
        };
        let e = client
            .get(&latest, Read::default())
            .await
            .expect("it is found");
        let e = e.execution.expect("it is shown");
        let by_id = client
            .get(&ExecutionRef::Id(e.id.clone()), Read::default())
            .await
            .expect("it is found");
        assert_eq!(by_id.execution.as_ref(), Some(&e));
        let why = client
            .why(&latest, Read::default())
            .await
            .expect("it says why");
        let of = ExecutionRef::Customer(who(name));
        let timeline: Vec<_> = client
            .timeline(of, Read::default())
            .try_collect()
            .await
            .expect("it is read");
        let receipt = client
            .receipt(&who(name), "till", &format!("in-{name}"))
            .await
            .expect("it is known");
        all.push(format!("{e:?} {} {timeline:?} {receipt:?}", why.summary));
    }
    for page_size in [1, 100] {
        let filter = Filter {
            page_size: Some(page_size),
            ..Filter::default()
        };
        let listed: Vec<_> = client.list(filter).try_collect().await.expect("it lists");
        let ids: Vec<String> = listed
            .iter()
            .map(|e| format!("{} {}", e.id, e.stage))
            .collect();
        all.push(format!("{ids:?}"));
    }
    let filter = Filter {
        customer: Some(who(PEOPLE[2])),
        ..Filter::default()
    };
    let listed: Vec<_> = client.list(filter).try_collect().await.expect("it lists");
    assert!(
        listed
            .iter()
            .all(|e| e.customer.as_ref().is_some_and(|c| c.value == PEOPLE[2]))
    );
    all.push(listed.len().to_string());
    all
}

async fn all_leave(server: &Server) {
    for name in PEOPLE {
        assert_eq!(
            send(&server.client, "shop.opened", name, &format!("in-{name}")).await,
            ("started", false)
        );
        assert_eq!(
            send(&server.client, "shop.waved", name, &format!("wave-{name}")).await,
            ("unmatched", false)
        );
        assert_eq!(
            send(&server.client, "shop.closed", name, &format!("out-{name}")).await,
            ("moved", false)
        );
    }
    // one who stays
    assert_eq!(
        send(&server.client, "shop.opened", "cat", "in-cat").await.0,
        "started"
    );
    server.has_away(PEOPLE.len() as u64).await;
}

async fn come_back(server: &Server) {
    for name in PEOPLE {
        let before = server.metric("customers").await;
        assert_eq!(
            send(&server.client, "shop.closed", name, &format!("out-{name}")).await,
            ("moved", true),
            "{name}"
        );
        assert_eq!(
            send(&server.client, "shop.waved", name, &format!("late-{name}")).await,
            ("ended", false),
            "{name}"
        );
        assert_eq!(
            send(
                &server.client,
                "shop.opened",
                name,
                &format!("again-{name}")
            )
            .await,
            ("started", false)
        );
        let of = ExecutionRef::Latest {
            customer: who(name),
            journey: "visits".to_owned(),
            instance: None,
        };
        let e = server
            .client
            .get(&of, Read::default())
            .await
            .expect("it is found")
            .execution;
        assert_eq!(e.map(|e| (e.run, e.stage)), Some((2, "inside".to_owned())));
        assert_eq!(
            server.metric("customers").await,
            before,
            "{name} is not somebody new"
        );
    }
    server.has_away(0).await;
}

fn without(dir: &Path, folder: &str) {
    std::fs::remove_dir_all(dir.join(folder)).expect("removes");
}

#[tokio::test(flavor = "multi_thread")]
async fn they_come_back_after_kill_and_without_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, SHORT).await;
    server
        .client
        .publish(VISITS, "test")
        .await
        .expect("publishes");
    all_leave(&server).await;
    let before = asked(&server.client).await;
    server.kill();

    let server = Server::serves(&dir, SHORT).await;
    assert_eq!(server.metric("customers_away").await, PEOPLE.len() as u64);
    assert_eq!(before, asked(&server.client).await, "after a kill");
    server.checkpointed().await;
    assert_eq!(before, asked(&server.client).await, "after a checkpoint");
    server.stop();

    without(&dir, "checkpoints");
    let server = Server::serves(&dir, SHORT).await;
    assert_eq!(server.metric("customers_away").await, PEOPLE.len() as u64);
    assert_eq!(before, asked(&server.client).await, "without checkpoints");
    come_back(&server).await;
    let here = asked(&server.client).await;
    server.kill();

    let server = Server::serves(&dir, SHORT).await;
    assert_eq!(server.metric("customers_away").await, 0);
    assert_eq!(here, asked(&server.client).await, "after they came back");
    // and once more
    for name in PEOPLE {
        assert_eq!(
            send(&server.client, "shop.closed", name, &format!("2-{name}"))
                .await
                .0,
            "moved"
        );
    }
    server.has_away(PEOPLE.len() as u64).await;
    for name in PEOPLE {
        assert_eq!(
            send(&server.client, "shop.opened", name, &format!("3-{name}"))
                .await
                .0,
            "started"
        );
    }
    for page_size in [1, 2, 1_000] {
        let filter = Filter {
            page_size: Some(page_size),
            ..Filter::default()
        };
        let all: Vec<_> = server
            .client
            .list(filter)
            .try_collect()
            .await
            .expect("it lists");
        assert_eq!(all.len(), 3 * PEOPLE.len() + 1, "every run is listed");
        let ids: std::collections::BTreeSet<&str> = all.iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids.len(), all.len(), "once");
    }
    for (statuses, many) in [
        (vec![sojourn_client::wire::Status::Active], PEOPLE.len() + 1),
        (
            vec![sojourn_client::wire::Status::Completed],
            2 * PEOPLE.len(),
        ),
    ] {
        let filter = Filter {
            statuses,
            page_size: Some(3),
            ..Filter::default()
        };
        let some: Vec<_> = server
            .client
            .list(filter)
            .try_collect()
            .await
            .expect("it lists");
        assert_eq!(some.len(), many);
    }
    server.stop();
}

/// A known customer whom a signal does not concern gets the answer that a stranger gets, and keeps a record of it.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_and_not_concerned_is_told_no_match() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::serves(&folder.path().join("data"), NO_CHECKPOINTS).await;
    let journey = "journey: orders
instance_key: signal.data.order
entry:
  - on: order.placed
stages:
  - stage: open
    transitions:
      - { to: paid, on: order.paid }
  - { stage: paid, end: done }
";
    server
        .client
        .publish(journey, "test")
        .await
        .expect("publishes");
    let send = async |kind: &str, order: &str| {
        let signal = Signal::with_id(kind, format!("{kind} {order}"))
            .source("till")
            .customer("id", "Åse")
            .data(&serde_json::json!({ "order": order }))
            .expect("it is data");
        match server.client.send(signal).await.expect("it is answered") {
            Outcome::Done(receipt) => receipt,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(send("order.placed", "a 1").await.first_word(), "started");
    let other = send("order.paid", "b 2").await;
    assert!(other.no_match && !other.decision.is_empty(), "{other:?}");
    let again = send("order.paid", "b 2").await;
    assert!(again.no_match && again.duplicate, "{again:?}");
    assert_eq!(send("order.paid", "a 1").await.first_word(), "moved");
    let page = server
        .client
        .unmatched_page(&UnmatchedFilter::default(), "")
        .await
        .expect("it lists");
    assert_eq!((page.signals.len(), page.no_match.len()), (0, 1));
}

/// What moved nothing is listed, newest first in each shard, through kills and checkpoints, page by page.
#[tokio::test(flavor = "multi_thread")]
async fn what_moved_nothing_is_listed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("data");
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    server
        .client
        .publish(VISITS, "test")
        .await
        .expect("publishes");
    for name in PEOPLE {
        send(&server.client, "shop.opened", name, &format!("in-{name}")).await;
    }
    let mut sent = Vec::new();
    for round in 0..7 {
        for name in PEOPLE {
            let (kind, id) = (
                ["shop.waved", "shop.sang"][round % 2],
                format!("{round}-{name}"),
            );
            assert_eq!(send(&server.client, kind, name, &id).await.0, "unmatched");
            sent.push((kind.to_owned(), id));
        }
    }
    assert_eq!(
        send(&server.client, "shop.sang", "nobody", "n1").await.0,
        "no_match"
    );
    let first = server
        .client
        .unmatched_page(&UnmatchedFilter::default(), "")
        .await
        .expect("it lists");
    let ids: Vec<_> = first
        .no_match
        .iter()
        .filter_map(|n| n.signal.as_ref())
        .map(|s| s.id.as_str())
        .collect();
    assert_eq!(ids, ["n1"]);
    listed(&server.client, &sent).await;
    server.stop();
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    listed(&server.client, &sent).await;
    for name in PEOPLE {
        send(&server.client, "shop.sang", name, &format!("last-{name}")).await;
        sent.push(("shop.sang".to_owned(), format!("last-{name}")));
    }
    listed(&server.client, &sent).await;
    server.kill();
    let server = Server::serves(&dir, NO_CHECKPOINTS).await;
    listed(&server.client, &sent).await;
    let error = server
        .client
        .unmatched_page(&UnmatchedFilter::default(), "nonsense")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("page_token"), "{error}");
}

async fn listed(client: &Client, sent: &[(String, String)]) {
    for kind in [None, Some("shop.sang"), Some("shop.never")] {
        let mut expected: Vec<&(String, String)> = sent
            .iter()
            .filter(|(k, _)| kind.is_none_or(|kind| kind == k))
            .collect();
        expected.sort();
        for page_size in [1, 3, 1_000] {
            let filter = UnmatchedFilter {
                kind: kind.map(str::to_owned),
                page_size: Some(page_size),
                ..UnmatchedFilter::default()
            };
            let (mut found, mut places, mut token) = (Vec::new(), Vec::new(), String::new());
            loop {
                let page = client
                    .unmatched_page(&filter, &token)
                    .await
                    .expect("it lists");
                assert!(page.signals.len() <= page_size as usize, "a page is full");
                for s in page.signals {
                    assert_eq!((s.journey.as_str(), s.stage.as_str()), ("visits", "inside"));
                    let signal = s.signal.expect("the signal is there");
                    assert_eq!(signal.identifiers.first(), s.customer.as_ref());
                    places.push(s.position.map(|p| (p.shard, std::cmp::Reverse(p.index))));
                    found.push((s.r#type, signal.id));
                }
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
            }
            assert!(places.is_sorted(), "{places:?}");
            found.sort();
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                expected,
                "{kind:?} {page_size}"
            );
        }
    }
}

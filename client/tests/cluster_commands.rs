//! `sojourn cluster …` against a server that answers as told: what is asked, what is said, how it ends.

mod world;

use sojourn_client::cli::{Exit, Say, Standalone};
use sojourn_client::wire as v1;
use world::{Server, World};

async fn run(server: &Server, line: &str) -> (Exit, String, String) {
    let (mut say, said) = Say::captured();
    let url = server.url();
    let words = ["sojourn", "cluster"].into_iter();
    let words = words
        .chain(line.split_whitespace())
        .chain(["--server", &url])
        .map(str::to_owned);
    let exit = match Standalone::run(words, &mut say).await {
        Ok(exit) => exit,
        Err(usage) => panic!("{line}: {usage}"),
    };
    (exit, said.data(), said.talk())
}

fn json(data: &str) -> serde_json::Value {
    serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"))
}

fn change(state: v1::ChangeState, moved: u32) -> v1::Change {
    v1::Change {
        id: "ch-1".into(),
        state: state.into(),
        actor: "ada".into(),
        begun_at: 5_000_000,
        moves: 4,
        moved,
        layout: 9,
        ..Default::default()
    }
}

#[tokio::test]
async fn status_nodes_and_shards_say_whose_view_they_are() {
    let world = World::faultless();
    world.state().admin.status = v1::ClusterStatus {
        cluster: "c1".into(),
        node: 2,
        at: 1_795_348_803_000_000,
        nodes: vec![v1::NodeStatus {
            info: Some(v1::NodeInfo {
                id: 2,
                grpc: "127.0.0.1:7410".into(),
                ..Default::default()
            }),
            reachable: true,
            ..Default::default()
        }],
        shards: vec![v1::ShardStatus {
            shard: 17,
            layout: vec![2],
            voters: vec![2],
            ..Default::default()
        }],
        ..Default::default()
    };
    let server = Server::start(&world);
    let view = "as node 2 sees it, 2026-11-22T12:00:03Z";
    let (exit, data, _) = run(&server, "status").await;
    assert_eq!(exit, Exit::Done);
    assert!(
        data.contains(view) && data.contains("17  without owner; under-replicated, 0 of 1"),
        "{data}"
    );
    for (line, expected) in [("nodes", "127.0.0.1:7410"), ("shards", "without owner")] {
        let (exit, data, talk) = run(&server, line).await;
        assert_eq!(exit, Exit::Done);
        assert!(data.contains(expected), "{line}: {data}");
        assert_eq!(talk.trim_end(), view, "{line}");
    }
    let (_, data, _) = run(&server, "status --json").await;
    let status = json(&data);
    assert_eq!(
        (&status["node"], &status["at"]),
        (&2.into(), &"2026-11-22T12:00:03Z".into())
    );
    assert_eq!(status["shards"][0]["owner"], serde_json::Value::Null);
    assert_eq!(status["shards"][0]["troubles"][0], "without owner");
    assert_eq!(status["change"], serde_json::Value::Null);
}

#[tokio::test]
async fn wishes_arrive_as_they_were_typed() {
    let world = World::faultless();
    let server = Server::start(&world);
    let cases = [
        (
            "plan --remove 4 --drain 2 --drain 3",
            "plan drain(2), drain(3), remove(4)",
        ),
        (
            "apply --activate 5 --actor ada --reason upgrade --expected-layout 7",
            "apply activate(5) by ada for \"upgrade\" on 7",
        ),
        ("drain 2 --actor ada", "apply drain(2) by ada for \"\" on 0"),
        (
            "remove 2 --actor ada",
            "apply remove(2) by ada for \"\" on 0",
        ),
        (
            "activate 2 --actor ada",
            "apply activate(2) by ada for \"\" on 0",
        ),
        ("transfer 3 --to 2 --actor ada", "transfer 3 to 2 by ada"),
        ("verify --shard 1 --shard 2", "verify [1, 2]"),
    ];
    for (line, expected) in cases {
        let (exit, _, talk) = run(&server, line).await;
        let asked = world.state().admin.asked.pop();
        assert_eq!(asked.as_deref(), Some(expected), "{line}");
        let said = match line.split(' ').next() {
            Some("verify") => "NOT equal",
            Some("transfer") => "shard 3 is owned by node 2, was by node 1",
            Some("plan") => "",
            _ => "nothing to do",
        };
        assert!(talk.contains(said), "{line}: {talk}");
        let no = line.starts_with("verify");
        assert_eq!(exit == Exit::No, no, "{line}: {talk}");
    }
    world.state().admin.changes = [change(v1::ChangeState::Paused, 1)].into();
    for (word, kind) in [
        ("pause", "PAUSE"),
        ("resume", "RESUME"),
        ("cancel", "CANCEL"),
    ] {
        let (exit, _, talk) = run(&server, &format!("{word} ch-1 --actor ada")).await;
        assert_eq!(exit, Exit::Done);
        assert!(talk.contains("change ch-1 (the best layout) is paused, 1 of 4 moves"));
        let asked = world.state().admin.asked.pop();
        assert_eq!(asked, Some(format!("CONTROL_KIND_{kind} ch-1 by ada")));
    }
}

#[tokio::test]
async fn a_change_is_followed_until_it_has_ended() {
    use v1::ChangeState as S;
    for (last, exit) in [(S::Done, Exit::Done), (S::Cancelled, Exit::No)] {
        let world = World::faultless();
        world.state().admin.changes = [
            change(S::Running, 0),
            change(S::Running, 3),
            change(last, 4),
        ]
        .into();
        let server = Server::start(&world);
        let (ended, data, talk) = run(&server, "drain 2 --wait").await;
        assert_eq!((ended, data.as_str()), (exit, "ch-1\n"), "{talk}");
        let lines: Vec<&str> = talk.lines().collect();
        let word = if exit == Exit::Done {
            "done"
        } else {
            "cancelled"
        };
        assert_eq!(
            lines[lines.len() - 2..],
            [
                "running: 3 of 4 moves done",
                &format!("{word}: 4 of 4 moves done")
            ],
            "{talk}"
        );
    }
}

#[tokio::test]
async fn a_change_that_another_followed_has_an_unknown_end() {
    let world = World::faultless();
    let later = v1::Change {
        id: "ch-2".into(),
        begun_at: 6_000_000,
        ..change(v1::ChangeState::Running, 0)
    };
    world.state().admin.changes =
        [change(v1::ChangeState::Running, 0), later.clone(), later].into();
    let server = Server::start(&world);
    world.get_status();
    world
        .state()
        .admin
        .changes
        .push_front(change(v1::ChangeState::Running, 0));
    let (exit, _, talk) = run(&server, "apply --wait").await;
    assert_eq!(exit, Exit::Unknown, "{talk}");
    assert!(talk.contains("ch-2 was begun after it"), "{talk}");
}

#[tokio::test]
async fn what_is_refused_ends_with_1_and_what_is_in_doubt_with_3() {
    let world = World::faultless();
    let server = Server::start(&world);
    let refusals = [
        (
            tonic::Status::failed_precondition("node 2 holds the last replica of shard 4"),
            Exit::No,
        ),
        (tonic::Status::not_found("no node has the id 9"), Exit::No),
        (
            tonic::Status::deadline_exceeded("no majority has said so in time"),
            Exit::Unknown,
        ),
    ];
    for (refusal, expected) in refusals {
        let text = refusal.message().to_owned();
        world.state().admin.refusal = Some(refusal);
        let (exit, _, talk) = run(&server, "remove 2").await;
        assert_eq!(exit, expected, "{talk}");
        assert!(talk.contains(&text), "{talk}");
        let asked = world.state().admin.asked.len();
        assert_eq!(asked, 1, "a change in doubt is not begun again");
        world.state().admin.asked.clear();
    }
}

#[tokio::test]
async fn a_difference_ends_with_1_and_equality_with_0() {
    let world = World::faultless();
    let server = Server::start(&world);
    let hash = |node, hash: &str| v1::ReplicaHash {
        node,
        hash: hash.into(),
        why: String::new(),
    };
    for (other, equal, exit) in [("aa", true, Exit::Done), ("bb", false, Exit::No)] {
        world.state().admin.verdict = v1::VerifyResponse {
            shards: vec![v1::ShardVerdict {
                shard: 3,
                at: Some(v1::Position { shard: 3, index: 8 }),
                replicas: vec![hash(1, "aa"), hash(2, other)],
                equal,
            }],
            equal,
        };
        let (ended, data, _) = run(&server, "verify").await;
        assert_eq!(ended, exit);
        assert_eq!(data.contains("DIFFERENT"), !equal, "{data}");
        let (ended, data, _) = run(&server, "verify --json").await;
        assert_eq!((ended, &json(&data)["equal"]), (exit, &equal.into()));
    }
}

#[tokio::test]
async fn a_watch_shows_the_whole_and_then_what_changes() {
    let world = World::faultless();
    let mut status = v1::ClusterStatus {
        node: 1,
        at: 1_795_348_803_000_000,
        ..Default::default()
    };
    world.state().admin.status = status.clone();
    let server = Server::start(&world);
    let (mut say, said) = Say::captured();
    let words = ["sojourn", "cluster", "watch", "--server", &server.url()].map(str::to_owned);
    let watching = tokio::spawn(async move { Standalone::run(words, &mut say).await.is_ok() });
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let until = async |text: &str| {
        while !said.data().contains(text) {
            assert!(std::time::Instant::now() < deadline, "{}", said.data());
            tokio::task::yield_now().await;
        }
    };
    until("0 shards, all well").await;
    status.catalog_owner = 3;
    world.state().admin.status = status;
    until("2026-11-22T12:00:03.000Z  the catalog is owned by node 3").await;
    assert!(!watching.is_finished(), "it lasts until it is interrupted");
    watching.abort();
}

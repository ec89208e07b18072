//! What people read of a cluster, exactly.

use super::*;

fn node(id: u64, reachable: bool) -> v1::NodeStatus {
    v1::NodeStatus {
        info: Some(v1::NodeInfo {
            id,
            name: format!("host{id}"),
            state: v1::NodeState::Active.into(),
            ..Default::default()
        }),
        reachable,
        why: if reachable { "" } else { "no route" }.into(),
        owns: 1,
        replicas: 2,
        clock_offset_us: -1_500,
        ..Default::default()
    }
}

fn shard(number: u32, owner: u64, layout: &[u64], voters: &[u64]) -> v1::ShardStatus {
    let replicas = voters.iter().map(|node| v1::ReplicaStatus {
        node: *node,
        role: "follower".into(),
        history_whole: true,
        ..Default::default()
    });
    v1::ShardStatus {
        shard: number,
        owner,
        term: 7,
        layout: layout.to_vec(),
        voters: voters.to_vec(),
        replicas: replicas.collect(),
        ..Default::default()
    }
}

fn calm() -> v1::ClusterStatus {
    v1::ClusterStatus {
        cluster: "c1".into(),
        node: 2,
        at: 1_795_348_803_000_000,
        catalog_owner: 1,
        catalog_voters: vec![1, 2],
        catalog_position: 1_234,
        layout: 3,
        nodes: vec![node(1, true), node(2, true)],
        shards: vec![shard(0, 1, &[1, 2], &[2, 1]), shard(1, 2, &[1, 2], &[1, 2])],
        change: None,
    }
}

#[test]
fn a_calm_cluster() {
    let expected = [
        "cluster c1 as node 2 sees it, 2026-11-22T12:00:03Z",
        "layout 3; the catalog is owned by node 1, at 1,234, voters 1, 2",
        "",
        "node  name   zone  state   owns  replicas  clock ms  reachable",
        "   1  host1  -     active     1         2      -1.5  yes",
        "   2  host2  -     active     1         2      -1.5  yes",
        "",
        "2 shards, all well",
    ];
    assert_eq!(status(&calm()), expected.join("\n"));
}

#[test]
fn every_trouble_of_a_shard_is_said() {
    let mut status = calm();
    let mut closed = shard(0, 1, &[1, 2], &[1, 2]);
    closed.replicas[1].role = "closed".into();
    closed.replicas[1].why = "damaged".into();
    let mut lost = shard(0, 1, &[1, 2], &[1, 2]);
    lost.replicas.pop();
    let cases = [
        (shard(0, 1, &[1, 2], &[1, 2]), true, None),
        (shard(0, 0, &[1, 2], &[1, 2]), true, Some("without owner")),
        (
            shard(0, 1, &[1, 2], &[1]),
            true,
            Some("voters are 1, the layout says 1, 2"),
        ),
        (
            closed,
            true,
            Some("under-replicated, 1 of 2 (closed on node 2: damaged)"),
        ),
        (
            lost.clone(),
            false,
            Some("under-replicated, 1 of 2 (node 2 is not reachable)"),
        ),
        (
            lost,
            true,
            Some("under-replicated, 1 of 2 (node 2 does not say that it has one)"),
        ),
    ];
    for (shard, reachable, expected) in cases {
        status.nodes[1].reachable = reachable;
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(troubles(&status, &shard), expected, "{shard:?}");
    }
}

#[test]
fn a_plan_is_its_moves_in_order_and_the_load_before_and_after() {
    let load = |node, owns, replicas| v1::NodeLoad {
        node,
        owns,
        replicas,
    };
    let with_moves = v1::PlanResponse {
        layout: 4,
        moves: vec![v1::Move {
            shard: 9,
            add: vec![3],
            remove: vec![1],
            voters: vec![3, 2],
        }],
        before: vec![load(1, 1, 2), load(2, 1, 2)],
        after: vec![load(2, 1, 2), load(3, 1, 2)],
        node: 2,
        notes: vec!["fewer".into()],
    };
    let expected = [
        "moves to layout 4, in this order, as node 2 sees it: 1",
        "shard  gets  gives up  voters afterwards",
        "    9  3     1         3, 2",
        "",
        "node  owns  afterwards  replicas  afterwards",
        "   1     1           0         2           0",
        "   2     1           1         2           2",
        "   3     0           1         0           2",
        "",
        "Note: fewer",
    ];
    assert_eq!(plan(&with_moves), expected.join("\n"));
    let empty = v1::PlanResponse {
        node: 2,
        ..Default::default()
    };
    assert_eq!(plan(&empty), "nothing to do, as node 2 sees it");
}

#[test]
fn a_verdict_tells_what_differs_from_what_was_not_heard() {
    let hash = |node, hash: &str| v1::ReplicaHash {
        node,
        hash: hash.into(),
        why: if hash.is_empty() { "no answer" } else { "" }.into(),
    };
    let shard = |number, equal, replicas| v1::ShardVerdict {
        shard: number,
        at: Some(v1::Position {
            shard: number,
            index: 5,
        }),
        replicas,
        equal,
    };
    let answer = v1::VerifyResponse {
        shards: vec![
            shard(0, true, vec![hash(1, "aa"), hash(2, "aa")]),
            shard(1, false, vec![hash(1, "aa"), hash(2, "bb")]),
            shard(2, false, vec![hash(1, "aa"), hash(2, "")]),
        ],
        equal: false,
    };
    let expected = [
        "shard  position  verdict    node  hash",
        "    0         5  equal         1  aa",
        "                               2  aa",
        "    1         5  DIFFERENT     1  aa",
        "                               2  bb",
        "    2         5  NOT KNOWN     1  aa",
        "                               2  none: no answer",
    ];
    assert_eq!(verify(&answer).to_string(), expected.join("\n"));
    assert_eq!(
        verdict(&answer),
        "NOT equal: of 3 shards 1 differ, and of 1 not every replica was heard"
    );
}

#[test]
fn only_what_is_otherwise_is_told() {
    let old = calm();
    assert_eq!(differences(&old, &old), Vec::<String>::new());
    let mut new = calm();
    new.nodes[0].reachable = false;
    new.nodes[0].why = "no route".into();
    new.catalog_owner = 2;
    new.shards[0].owner = 0;
    new.shards[0].replicas.retain(|r| r.node == 2);
    new.nodes.push(node(3, true));
    new.change = Some(v1::Change {
        id: "x".into(),
        state: v1::ChangeState::Running.into(),
        moves: 4,
        moved: 1,
        steps: vec![v1::StepStatus {
            shard: 1,
            step: "catch up".into(),
            ..Default::default()
        }],
        ..Default::default()
    });
    let expected = [
        "the catalog is owned by node 2",
        "node 1 reachable: no: no route",
        "node 3 is active",
        "shard 0 is owned by nobody, was by node 1 (term 7)",
        "shard 0: under-replicated, 1 of 2 (node 1 is not reachable)",
        "change x running: 1 of 4 moves done; shard 1: catch up",
    ];
    assert_eq!(differences(&old, &new), expected);
    let expected = [
        "the catalog is owned by node 1",
        "node 1 reachable: yes",
        "node 3 is not in the catalog any more",
        "shard 0 is owned by node 1, was by nobody (term 7)",
        "shard 0 is well",
    ];
    assert_eq!(differences(&new, &calm()), expected);
}

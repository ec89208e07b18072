//! Many groups on the same nodes share one stream for each pair and direction, and their owners are spread by rank.

mod common;
mod several;

use common::{Ledger, machine, soon, until};
use several::*;
use sojourn_cluster::transport::Transport;
use sojourn_cluster::{EntryKind, Group, GroupId, NodeId, Role};
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUPS: u64 = 15;

struct Replica {
    node: NodeId,
    group: Group,
    ledger: Arc<Ledger>,
}

fn owns(replica: &Replica) -> bool {
    matches!(&*replica.group.role().borrow(), Role::Owner { .. })
}

#[test]
fn many_groups_share_the_ways_between_their_nodes() {
    world(async |world| {
        *world = World::of_three().await;
        let mut groups: BTreeMap<u64, Vec<Replica>> = BTreeMap::new();
        for number in 0..GROUPS {
            let id = GroupId(100 + number);
            // Each node is the preferred owner of a third.
            let voters: Vec<NodeId> = (0..3).map(|n| (number + n) % 3 + 1).collect();
            for node in [1, 2, 3] {
                let ledger = Ledger::new();
                let host = world.node(node).host.as_ref().expect("open");
                let opened = host.open_group(id, machine(&ledger), voters.clone());
                let group = opened.await.expect("the group opens");
                let replica = Replica {
                    node,
                    group,
                    ledger,
                };
                groups.entry(number).or_default().push(replica);
            }
        }
        until("every group is owned", || {
            groups.values().all(|replicas| replicas.iter().any(owns))
        })
        .await;
        let mut owners: BTreeMap<NodeId, usize> = BTreeMap::new();
        for replicas in groups.values() {
            let owner = replicas.iter().find(|r| owns(r)).expect("owned");
            *owners.entry(owner.node).or_default() += 1;
        }
        assert_eq!(owners.values().sum::<usize>(), GROUPS as usize);
        assert_eq!(owners.len(), 3, "each node owns some: {owners:?}");
        let said = groups.iter().flat_map(|(number, replicas)| {
            let owner = replicas.iter().find(|r| owns(r)).expect("owned");
            (0..20).map(move |n| {
                let text = format!("group {number}, line {n}");
                owner
                    .group
                    .propose(EntryKind::Decisions, text.into(), soon())
            })
        });
        for done in futures::future::join_all(said).await {
            done.expect("applied");
        }
        until("all have everything", || {
            groups.values().flatten().all(|r| r.ledger.len() == 20)
        })
        .await;
        for (number, replicas) in &groups {
            let lines = replicas[0].ledger.lines();
            assert!(
                lines
                    .keys()
                    .all(|line| line.starts_with(&format!("group {number},")))
            );
            assert!(replicas.iter().all(|r| r.ledger.lines() == lines));
        }
        let figures = world.nodes.values().map(|n| n.transport.figures().peers);
        let ways: Vec<_> = figures.flatten().collect();
        assert!(
            ways.iter().all(|way| way.connects == 1),
            "one stream for all groups: {ways:?}"
        );
        let messages: u64 = ways.iter().map(|way| way.messages_sent).sum();
        let frames: u64 = ways.iter().map(|way| way.frames_sent).sum();
        assert!(messages < frames, "frames go together: {ways:?}");
    });
}

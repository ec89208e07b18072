//! Members come, go and fall behind: snapshots with their history, learners, other voters.

mod common;
mod several;

use common::{Ledger, SHARD, machine, soon, until};
use several::*;
use sojourn_cluster::MemberError;
use sojourn_cluster::transport::Transport;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Nothing of the log is kept behind a checkpoint, so that whoever was away needs a snapshot.
fn forgetful() -> fn(&mut sojourn_cluster::HostConfig) {
    |cfg| cfg.keep_log_bytes = 0
}

async fn say_many(world: &World, what: &str, count: usize) {
    let owner = world.owner().await;
    let lines: Vec<String> = (0..count).map(|n| format!("{what} {n}")).collect();
    let said = lines
        .iter()
        .map(|line| world.node(owner).try_say(line, soon()));
    for said in futures::future::join_all(said).await {
        said.expect("applied");
    }
}

/// Every node that made a checkpoint at `at` or took the snapshot of it has the same history up to there.
fn same_history(world: &World, at: sojourn_cluster::Position) {
    let histories = world.nodes.values().map(|node| {
        let chronicle = node.keeper.chronicle.lock();
        assert!(
            chronicle.upto >= Some(at),
            "node {} has {:?}",
            node.id,
            chronicle.upto
        );
        let lines = chronicle.lines.range(..=at);
        lines
            .map(|(at, line)| (*at, line.clone()))
            .collect::<Vec<_>>()
    });
    let histories: Vec<_> = histories.collect();
    assert!(!histories[0].is_empty());
    assert!(
        histories.windows(2).all(|pair| pair[0] == pair[1]),
        "the histories differ"
    );
}

#[test]
fn a_follower_that_was_away_comes_back_by_snapshot_and_history() {
    world(async |world| {
        *world = World::with(forgetful()).await;
        say_many(world, "first", 300).await;
        world.agree().await;
        let first = {
            let mut first = Vec::new();
            for node in world.nodes.values() {
                first.push(node.checkpoint_and_purge().await);
            }
            first[0]
        };
        let owner = world.owner().await;
        let away = owner % 3 + 1;
        world.kill(away).await;
        say_many(world, "while away", 500).await;
        let owner = world.owner().await;
        let covered = world.node(owner).checkpoint_and_purge().await;
        assert!(covered > first);
        say_many(world, "behind it", 20).await;
        world.restart(away).await;
        world.agree().await;
        let back = world.node(away);
        assert_eq!(back.ledger.len(), 820);
        assert!(
            back.ledger.applied_entries.load(Ordering::Relaxed) <= 30,
            "the rest came as state"
        );
        // Only what it did not have: 500 lines, and the few barriers are no lines.
        let pieces = back.keeper.taken.load(Ordering::Relaxed);
        assert!((10..=11).contains(&pieces), "{pieces} pieces of history");
        for id in (1..=3).filter(|id| *id != owner) {
            common::checkpoint(&world.node(id).group).await;
        }
        same_history(world, covered);
        // What was installed is a checkpoint like any other: the node comes back from it.
        world.kill(away).await;
        world.restart(away).await;
        world.agree().await;
        assert!(world.node(away).group.opened().damage.is_none());
    });
}

#[test]
fn a_snapshot_that_breaks_off_is_given_again_and_history_goes_on_where_it_was() {
    world(async |world| {
        *world = World::with(forgetful()).await;
        say_many(world, "first", 20).await;
        let owner = world.owner().await;
        let away = owner % 3 + 1;
        world.kill(away).await;
        say_many(world, "while away", 1000).await;
        let owner = world.owner().await;
        world.node(owner).checkpoint_and_purge().await;
        world.refuse = 7;
        world.restart(away).await;
        world.agree().await;
        let back = world.node(away);
        assert_eq!(
            back.keeper.refuse.load(Ordering::Relaxed),
            u64::MAX,
            "it was refused once"
        );
        let pieces = back.keeper.taken.load(Ordering::Relaxed);
        assert!(
            (21..=24).contains(&pieces),
            "{pieces} pieces of history, one of them twice"
        );
        common::checkpoint(&back.group).await;
        let at = world
            .node(owner)
            .keeper
            .chronicle
            .lock()
            .upto
            .expect("a position");
        assert!(back.keeper.chronicle.lock().upto >= Some(at));
    });
}

#[test]
fn a_snapshot_survives_broken_connections_and_keeps_its_pace() {
    world(async |world| {
        *world = World::with(|cfg| {
            cfg.keep_log_bytes = 0;
            cfg.snapshot_bytes_per_second = 8 << 20;
        })
        .await;
        let owner = world.owner().await;
        let away = owner % 3 + 1;
        world.kill(away).await;
        // 8 MiB that do not pack well: one second at that pace.
        let mut seed = 7_u64;
        for n in 0..64 {
            let mut text = format!("{n} ");
            while text.len() < 128 << 10 {
                seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                text.push_str(&format!("{seed:016x}"));
            }
            world.say(&text).await;
        }
        let owner = world.owner().await;
        world.node(owner).checkpoint_and_purge().await;
        let packed = world.node(owner).group.figures().checkpoint_bytes;
        assert!(packed > 3 << 20, "{packed} bytes");
        let begun = Instant::now();
        world.restart(away).await;
        let keeper = world.node(away).keeper.clone();
        until("history comes", || keeper.taken.load(Ordering::Relaxed) > 0).await;
        let connects = || {
            let figures = world.node(owner).transport.figures();
            let way = figures.peers.into_iter().find(|p| p.node == away && p.up);
            way.map_or(0, |way| way.connects)
        };
        for _ in 0..3 {
            let before = connects();
            world.wires.sever(owner, away);
            until("it is reached again", || connects() > before).await;
        }
        world.agree().await;
        let least = Duration::from_secs_f64(packed as f64 / f64::from(8 << 20));
        assert!(
            begun.elapsed() >= least.mul_f64(0.9),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn a_new_node_takes_the_place_of_a_voter() {
    world(async |world| {
        *world = World::with(forgetful()).await;
        say_many(world, "first", 400).await;
        world.agree().await;
        for node in world.nodes.values() {
            node.checkpoint_and_purge().await;
        }
        // Each of the first three is replaced in turn.
        for (gone, comes) in [(1, 4), (2, 5), (3, 6)] {
            let rank = (gone - 1) as usize;
            world.start(comes, Part::Joins(rank)).await;
            let owner = world.owner().await;
            let owner = if owner == gone {
                let other = *world
                    .nodes
                    .keys()
                    .find(|id| **id != gone && **id != comes)
                    .expect("one");
                world
                    .node(gone)
                    .group
                    .transfer_to(other, soon())
                    .await
                    .expect("transferred");
                world.owner_among(|id| id == other).await
            } else {
                owner
            };
            let group = world.node(owner).group.clone();
            group.add_learner(comes, soon()).await.expect("added");
            assert!(group.members().learners.contains(&comes));
            group.caught_up(comes, soon()).await.expect("it catches up");
            let mut voters = group.members().voters;
            voters.remove(&gone);
            voters.insert(comes);
            group
                .change_voters(voters.clone(), soon())
                .await
                .expect("changed");
            let members = group.members();
            assert_eq!(members.voters, voters);
            assert!(
                members.learners.is_empty() && !members.changing,
                "{members:?}"
            );
            say_many(world, &format!("without {gone}"), 50).await;
            world.kill(gone).await;
            say_many(world, &format!("{gone} is off"), 50).await;
            world.agree().await;
            assert_eq!(world.node(comes).ledger.len() % 100, 0);
        }
        assert_eq!(world.nodes.keys().copied().collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(world.node(6).ledger.len(), 700);
        let owner = world.owner().await;
        for id in (4..=6).filter(|id| *id != owner) {
            common::checkpoint(&world.node(id).group).await;
        }
        let at = common::checkpoint(&world.node(owner).group).await;
        for node in world.nodes.values() {
            let chronicle = node.keeper.chronicle.lock();
            assert!(chronicle.upto >= Some(at));
            assert_eq!(chronicle.lines.len(), 700, "every timeline is still there");
        }
        same_history(world, at);
    });
}

#[test]
fn a_node_that_has_left_forgets_the_group_and_may_come_back() {
    world(async |world| {
        *world = World::with(forgetful()).await;
        say_many(world, "first", 200).await;
        world.agree().await;
        for node in world.nodes.values() {
            node.checkpoint_and_purge().await;
        }
        for round in 0..2 {
            let owner = world.owner().await;
            let leaver = owner % 3 + 1;
            let group = world.node(owner).group.clone();
            let rest: BTreeSet<_> = (1..=3).filter(|id| *id != leaver).collect();
            group.change_voters(rest, soon()).await.expect("changed");
            let host = world.node(leaver).host.as_ref().expect("open");
            host.forget_group(SHARD).await.expect("forgotten");
            assert!(host.stored_groups().is_empty());
            say_many(world, &format!("without it, {round}"), 50).await;
            let owner = world.owner().await;
            world.node(owner).checkpoint_and_purge().await;
            // What it has of history it keeps; its vote and its state are gone.
            let node = world.nodes.get_mut(&leaver).expect("it runs");
            node.ledger = Ledger::new();
            node.keeper = Keeper::new(machine(&node.ledger), node.keeper.chronicle.clone());
            let host = node.host.as_ref().expect("open");
            let joined = host.join_group(SHARD, node.keeper.clone(), 2).await;
            node.group = joined.expect("joined anew");
            assert_eq!(node.group.members().voters, BTreeSet::new());
            let group = world.node(owner).group.clone();
            group.add_learner(leaver, soon()).await.expect("added");
            group.caught_up(leaver, soon()).await.expect("caught up");
            let all = BTreeSet::from([1, 2, 3]);
            group.change_voters(all, soon()).await.expect("changed");
            world.settled().await;
            say_many(world, &format!("with it, {round}"), 50).await;
            world.agree().await;
            assert_eq!(world.node(leaver).ledger.len(), 300 + round * 100);
        }
    });
}

#[test]
fn changes_that_make_no_sense_are_refused_with_the_reason() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        let group = &world.node(owner).group;
        let refused = |error: MemberError| match error {
            MemberError::Refused { why } => why,
            other => panic!("{other:?}"),
        };
        let none = group.change_voters(BTreeSet::new(), soon()).await;
        assert!(refused(none.expect_err("no voters")).contains("at least one"));
        let stranger = group.change_voters(BTreeSet::from([1, 2, 9]), soon()).await;
        let why = refused(stranger.expect_err("node 9 is unknown"));
        assert!(
            why.contains("[9]") && why.contains("add them as learners"),
            "{why}"
        );
        let votes = group.remove_learner(owner, soon()).await;
        assert!(refused(votes.expect_err("it votes")).contains("votes"));
        let nobody = group.remove_learner(9, soon()).await;
        assert!(refused(nobody.expect_err("node 9 is unknown")).contains("node 9"));
        let follower = owner % 3 + 1;
        let elsewhere = world.node(follower).group.add_learner(4, soon()).await;
        assert_eq!(
            elsewhere,
            Err(MemberError::NotOwner {
                leader: Some(owner)
            })
        );
        // A learner that does not exist can be added and removed, but does not catch up.
        group.add_learner(9, soon()).await.expect("added");
        let deadline = Instant::now() + Duration::from_millis(500);
        let late = group.caught_up(9, deadline).await;
        assert!(matches!(late, Err(MemberError::Unknown { .. })), "{late:?}");
        group.remove_learner(9, soon()).await.expect("removed");
        until("it is gone everywhere", || {
            world
                .nodes
                .values()
                .all(|n| n.group.members().learners.is_empty())
        })
        .await;
        world.say("still here").await;
    });
}

#[test]
fn a_node_that_moves_is_found_again() {
    world(async |world| {
        *world = World::of_three().await;
        world.say("before").await;
        let owner = world.owner().await;
        let other = owner % 3 + 1;
        // Its address is forgotten, then known again.
        let address = world.node(owner).transport.addresses()[&other].clone();
        world.node(owner).transport.set_address(other, None);
        world.say("without it").await;
        until("it is unreachable", || {
            let figures = world.node(owner).transport.figures();
            figures.peers.iter().any(|p| p.node == other && !p.up)
        })
        .await;
        world
            .node(owner)
            .transport
            .set_address(other, Some(address));
        world.agree().await;
        let figures = world.node(owner).transport.figures();
        let way = figures
            .peers
            .iter()
            .find(|p| p.node == other)
            .expect("a way");
        assert!(way.up && way.connects == 2, "{way:?}");
    });
}

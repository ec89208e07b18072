//! Three nodes with real sockets and real files: what is acknowledged is on a majority, and one of them owns.

mod common;
mod several;

use common::{soon, until};
use several::*;
use sojourn_cluster::transport::Transport;
use sojourn_cluster::{ProposeError, Role, TransferError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

#[test]
fn what_is_proposed_is_on_all() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        let lines: Vec<String> = (0..200).map(|n| format!("line {n}")).collect();
        let said = lines
            .iter()
            .map(|line| world.node(owner).try_say(line, soon()));
        for said in futures::future::join_all(said).await {
            said.expect("applied");
        }
        // Larger than what is sent at once.
        let large = "x".repeat(3 << 20);
        world.say(&large).await;
        world.agree().await;
        assert_eq!(world.node(1).ledger.len(), 201);
        for id in 1..=3 {
            let members = world.node(id).group.members();
            assert_eq!(members.voters, BTreeSet::from([1, 2, 3]));
            assert!(members.learners.is_empty() && !members.changing);
        }
        let owner = world.owner().await;
        let at = world.node(owner).group.read_index(soon()).await;
        assert!(at.is_ok(), "{at:?}");
        for other in (1..=3).filter(|id| *id != owner) {
            let refused = world.node(other).try_say("not here", soon()).await;
            assert_eq!(
                refused,
                Err(ProposeError::NotOwner {
                    leader: Some(owner)
                })
            );
        }
        let figures = world.node(owner).transport.figures();
        assert_eq!(figures.strangers, 0);
        for peer in figures.peers {
            assert!(peer.up && peer.connects == 1, "{peer:?}");
            assert!(peer.frames_sent >= peer.messages_sent, "{peer:?}");
        }
    });
}

#[test]
fn a_killed_owner_is_followed_by_another_and_nothing_acknowledged_is_lost() {
    world(async |world| {
        *world = World::of_three().await;
        let mut acknowledged = BTreeMap::new();
        let (mut unknown, mut refused) = (Vec::new(), Vec::new());
        let mut last_term = 0;
        for round in 0..3 {
            let owner = world.owner().await;
            let term_now = term(world.node(owner)).expect("it owns");
            assert!(term_now > last_term, "each ownership has a term of its own");
            last_term = term_now;
            // Each of them has a proposal in flight until one is not acknowledged.
            let mut writers = tokio::task::JoinSet::new();
            let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
            for writer in 0..16 {
                let (group, tell) = (world.node(owner).group.clone(), tell.clone());
                writers.spawn(async move {
                    for n in 0.. {
                        let text = format!("{round}/{writer}/{n}");
                        let deadline = Instant::now() + Duration::from_secs(2);
                        let kind = sojourn_cluster::EntryKind::Decisions;
                        match group.propose(kind, text.clone().into(), deadline).await {
                            Ok(done) => tell.send((text, done.at)).expect("the test listens"),
                            Err(error) => return (text, error),
                        }
                    }
                    unreachable!("it ends with an error")
                });
            }
            for _ in 0..100 {
                let (text, at) = told.recv().await.expect("writers live");
                acknowledged.insert(text, at);
            }
            world.kill(owner).await;
            drop(tell);
            for (text, error) in writers.join_all().await {
                match error {
                    // Given to the log before the kill.
                    ProposeError::Unknown { .. } => unknown.push(text),
                    // Said before proposing only: it is nowhere.
                    ProposeError::NotOwner { .. } | ProposeError::Closed { .. } => {
                        refused.push(text);
                    }
                    error => panic!("{text}: {error}"),
                }
            }
            while let Some((text, at)) = told.recv().await {
                acknowledged.insert(text, at);
            }
            let after = format!("after {round}");
            let done = world.say(&after).await;
            acknowledged.insert(after, done.at);
            world.restart(owner).await;
            world.agree().await;
            for node in world.nodes.values() {
                for (text, at) in &acknowledged {
                    let line = node.ledger.get(text);
                    assert_eq!(line.map(|l| (l.times, l.first)), Some((1, *at)), "{text}");
                }
            }
        }
        assert!(unknown.len() >= 16, "each writer had one in flight");
        for text in &refused {
            assert_eq!(world.node(1).ledger.get(text), None);
        }
        for text in &unknown {
            let line = world.node(1).ledger.get(text);
            assert!(line.is_none_or(|l| l.times == 1), "{text}");
        }
    });
}

#[test]
fn the_leadership_is_given_to_a_voter_and_comes_back() {
    world(async |world| {
        *world = World::of_three().await;
        let mut owner = world.owner().await;
        world.say("before").await;
        for round in 0..4 {
            let target = owner % 3 + 1;
            let group = &world.node(owner).group;
            group
                .transfer_to(target, soon())
                .await
                .expect("transferred");
            assert!(!world.node(owner).owns());
            assert_eq!(world.owner_among(|id| id == target).await, target);
            owner = target;
            world.say(&format!("round {round}")).await;
        }
        // To itself: nothing to do.
        let group = &world.node(owner).group;
        group.transfer_to(owner, soon()).await.expect("it has it");
        let stranger = group.transfer_to(9, soon()).await.expect_err("no voter");
        assert!(
            stranger.to_string().contains("node 9 does not vote"),
            "{stranger}"
        );
        let other = owner % 3 + 1;
        let not_mine = world.node(other).group.transfer_to(other, soon()).await;
        let not_mine = not_mine.expect_err("not the owner");
        assert!(
            not_mine
                .to_string()
                .contains(&format!("node {owner} leads")),
            "{not_mine}"
        );
        // Whose history has gaps does not stand for election, and the owner stays.
        world
            .node(other)
            .keeper
            .whole
            .store(false, std::sync::atomic::Ordering::Relaxed);
        let refused = group
            .transfer_to(other, soon())
            .await
            .expect_err("cannot lead");
        assert!(
            refused.to_string().contains("its history is not complete"),
            "{refused}"
        );
        world.say("still").await;
        // For one that lacks much nothing is closed: what is proposed meanwhile is taken at once.
        world.wires.part(owner, other, true);
        for n in 0..70 {
            world.say(&format!("without it {n}")).await;
        }
        let until = Instant::now() + Duration::from_secs(2);
        let (late, beside) = tokio::join!(group.transfer_to(other, until), async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            world.node(owner).try_say("beside", until).await
        });
        let late = late.expect_err("it is not there");
        assert!(late.to_string().contains("lacks more than"), "{late}");
        beside.expect("the group is not closed meanwhile");
        world.wires.part(owner, other, false);
        assert_eq!(world.owner().await, owner);
        world.agree().await;
    });
}

#[test]
fn an_owner_in_a_minority_acknowledges_nothing_and_reads_nothing() {
    world(async |world| {
        *world = World::of_three().await;
        let old = world.owner().await;
        world.say("before").await;
        let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
        for other in &others {
            world.wires.part(old, *other, true);
        }
        let cut_off = &world.node(old).group;
        let soon_over = Instant::now() + Duration::from_secs(3);
        let (wrote, read) = tokio::join!(
            world.node(old).try_say("in the minority", soon_over),
            cut_off.read_index(soon_over)
        );
        assert!(
            matches!(wrote, Err(ProposeError::Unknown { .. })),
            "{wrote:?}"
        );
        assert!(
            matches!(
                read,
                Err(ProposeError::Unknown { .. } | ProposeError::NotOwner { leader: None })
            ),
            "{read:?}"
        );
        let new = world.owner_among(|id| id != old).await;
        let done = world.node(new).try_say("in the majority", soon()).await;
        let done = done.expect("applied");
        assert_eq!(world.node(old).ledger.get("in the majority"), None);
        for other in &others {
            world.wires.part(old, *other, false);
        }
        world.agree().await;
        let line = world.node(old).ledger.get("in the majority");
        assert_eq!(line.map(|l| l.first), Some(done.at));
        // Unknown was the right word: it may be there or not, but at most once, and everywhere alike.
        let ghost = world.node(old).ledger.get("in the minority");
        assert!(ghost.is_none_or(|l| l.times == 1));
    });
}

#[test]
fn a_follower_that_restarts_unseats_nobody() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        let led = term(world.node(owner));
        for round in 0..4 {
            let follower = (owner + round % 2) % 3 + 1;
            world.kill(follower).await;
            world
                .say(&format!("without {follower}, round {round}"))
                .await;
            world.restart(follower).await;
            world.agree().await;
            world.settled().await;
            assert_eq!((world.owner().await, term(world.node(owner))), (owner, led));
        }
    });
}

#[test]
fn a_large_entry_on_a_slow_wire_is_sent_once() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        let led = term(world.node(owner));
        let sent = || {
            let figures = world.node(owner).transport.figures();
            figures.peers.iter().map(|p| p.bytes_sent).sum::<u64>()
        };
        let before = sent();
        // It takes 200 ms, twice as long as openraft waits for an append.
        world
            .wires
            .rate
            .store(20 << 20, std::sync::atomic::Ordering::Relaxed);
        let large = "x".repeat(4 << 20);
        world
            .node(owner)
            .try_say(&large, soon())
            .await
            .expect("applied");
        world.agree().await;
        let once = sent() - before;
        assert!(once < 2 * (5 << 20), "{once} bytes for two followers");
        let leads = world.owner().await;
        assert_eq!((leads, term(world.node(leads))), (owner, led));
    });
}

#[test]
fn an_owner_that_no_majority_answers_owns_nothing_until_one_does() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        world.say("before").await;
        let mut role = world.node(owner).group.role();
        let Role::Owner { epoch, .. } = *role.borrow() else {
            panic!("it owns");
        };
        for other in (1..=3).filter(|id| *id != owner) {
            world.kill(other).await;
        }
        let lost = role.wait_for(|r| matches!(r, Role::Follower { leader: None }));
        let lost = tokio::time::timeout_at(soon(), lost)
            .await
            .expect("in time");
        drop(lost.expect("it lives"));
        let refused = world.node(owner).try_say("nobody hears it", soon()).await;
        assert_eq!(refused, Err(ProposeError::NotOwner { leader: None }));
        let read = world.node(owner).group.read_index(soon()).await;
        assert_eq!(read, Err(ProposeError::NotOwner { leader: None }));
        for other in (1..=3).filter(|id| *id != owner) {
            world.restart(other).await;
        }
        world.say("after").await;
        if let Role::Owner { epoch: later, .. } = *world.node(owner).group.role().borrow() {
            assert!(later > epoch, "each time of owning has an epoch of its own");
        }
        world.agree().await;
        assert!(world.node(owner).ledger.get("nobody hears it").is_none());
    });
}

#[test]
fn a_replica_whose_history_has_gaps_votes_and_does_not_lead() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        world.say("before").await;
        world.agree().await;
        let gaps = owner % 3 + 1;
        let heir = gaps % 3 + 1;
        let node = world.node(gaps);
        node.keeper
            .whole
            .store(false, std::sync::atomic::Ordering::Relaxed);
        // It is looked at once a second.
        until("it is known", || !node.group.campaigns()).await;
        world.kill(owner).await;
        // With one of three gone, the heir needs the vote of the other.
        assert_eq!(world.owner().await, heir);
        world.say("after").await;
        let node = world.node(gaps);
        node.keeper
            .whole
            .store(true, std::sync::atomic::Ordering::Relaxed);
        until("it is whole again", || node.group.campaigns()).await;
        world.restart(owner).await;
        world.agree().await;
    });
}

#[test]
fn who_comes_back_listens_before_it_stands_for_election() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        let others: Vec<_> = (1..=3).filter(|id| *id != owner).collect();
        let back = others[0];
        world.kill(back).await;
        for other in (1..=3).filter(|id| *id != back) {
            world.wires.part(back, other, true);
        }
        world.restart(back).await;
        let group = world.node(back).group.clone();
        let before = group.term();
        assert!(!group.campaigns(), "it has heard nobody");
        // Nobody may be there: it does not listen for ever.
        until("it stands for election", || {
            group.campaigns() && group.term() > before
        })
        .await;
        drop(group);
        for other in (1..=3).filter(|id| *id != back) {
            world.wires.part(back, other, false);
        }
        world.say("whoever leads, it goes on").await;
        world.agree().await;

        let owner = world.owner().await;
        let back = (1..=3).find(|id| *id != owner).expect("three nodes");
        let before = term(world.node(owner)).expect("it owns");
        world.kill(back).await;
        world.restart(back).await;
        until("it has heard of the owner", || {
            world.node(back).group.campaigns()
        })
        .await;
        world.say("nothing happened").await;
        world.agree().await;
        assert_eq!(term(world.node(owner)), Some(before), "it was unseated");
    });
}

#[test]
fn with_five_voters_the_leadership_is_given_too() {
    world(async |world| {
        for id in 1..=5 {
            world.start(id, Part::Voter(vec![1, 2, 3, 4, 5])).await;
        }
        world.settled().await;
        given_three_times(world).await;
    });
}

/// As in a catalog whose nodes have come and gone.
#[test]
fn with_five_voters_that_share_the_last_rank_the_leadership_is_given_too() {
    world(async |world| {
        world.start(1, Part::Voter(vec![1])).await;
        world.settled().await;
        let group = world.node(1).group.clone();
        for id in 2..=5 {
            world.start(id, Part::Joins(4)).await;
            group.add_learner(id, soon()).await.expect("added");
            group.caught_up(id, soon()).await.expect("it catches up");
        }
        let all = (1..=5).collect();
        group.change_voters(all, soon()).await.expect("changed");
        given_three_times(world).await;
    });
}

async fn given_three_times(world: &mut World) {
    let mut owner = world.owner().await;
    world.say("before").await;
    for round in 0..3 {
        let target = owner % 5 + 1;
        // The others wait for a lease, and on a slow machine one of them may wait too long.
        while owner != target {
            let group = &world.node(owner).group;
            match group.transfer_to(target, soon()).await {
                Ok(()) => {
                    assert_eq!(world.owner_among(|id| id == target).await, target);
                    owner = target;
                }
                Err(TransferError::Elsewhere { leader }) => {
                    owner = world.owner_among(|id| id == leader).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
        world.say(&format!("round {round}")).await;
    }
    world.agree().await;
}

#[test]
fn all_three_come_back_from_their_logs() {
    world(async |world| {
        *world = World::of_three().await;
        for n in 0..20 {
            world.say(&format!("line {n}")).await;
        }
        for id in 1..=3 {
            world.kill(id).await;
        }
        for id in 1..=3 {
            world.restart(id).await;
        }
        world.say("after").await;
        world.agree().await;
        assert_eq!(world.node(1).ledger.len(), 21);
        // One closes in order, and comes back.
        let owner = world.owner().await;
        world.node(owner).host.as_ref().expect("open").close().await;
        world.kill(owner).await;
        world.say("without it").await;
        world.restart(owner).await;
        world.agree().await;
    });
}

#[test]
fn a_node_that_is_not_heard_or_does_not_hear_changes_nothing_acknowledged() {
    world(async |world| {
        *world = World::of_three().await;
        let owner = world.owner().await;
        world.say("before").await;
        let deaf = owner % 3 + 1;
        let epoch = world.node(owner).group.role().borrow().clone();
        // It hears nobody, and everybody hears it: it must not unseat an owner that a majority follows.
        for other in (1..=3).filter(|id| *id != deaf) {
            world.wires.hold(other, deaf, true);
        }
        for n in 0..20 {
            let said = world
                .node(owner)
                .try_say(&format!("deaf {n}"), soon())
                .await;
            said.expect("applied by the other two");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(*world.node(owner).group.role().borrow(), epoch);
        for other in (1..=3).filter(|id| *id != deaf) {
            world.wires.hold(other, deaf, false);
        }
        world.agree().await;
        // Now the owner is heard by nobody, but hears.
        let owner = world.owner().await;
        for other in (1..=3).filter(|id| *id != owner) {
            world.wires.hold(owner, other, true);
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        let mute = world.node(owner).try_say("mute", deadline).await;
        assert!(mute.is_err(), "{mute:?}");
        let new = world.owner_among(|id| id != owner).await;
        world
            .node(new)
            .try_say("heard", soon())
            .await
            .expect("applied");
        for other in (1..=3).filter(|id| *id != owner) {
            world.wires.hold(owner, other, false);
        }
        world.agree().await;
        let role = world.node(owner).group.role();
        let is_owner = matches!(&*role.borrow(), Role::Owner { .. });
        assert!(!is_owner || world.owner().await == owner);
        until("heard everywhere", || {
            world
                .nodes
                .values()
                .all(|n| n.ledger.get("heard").is_some())
        })
        .await;
    });
}

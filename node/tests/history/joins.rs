//! What a replica has after it took history and state from another one, whatever happened on the way.

use super::shops::*;
use sojourn_cluster::Machine;
use sojourn_node::shard::read::{self, ReadError, Replica};
use sojourn_node::shard::state::Look;
use tokio::sync::mpsc::{self, error::TryRecvError};

const PEOPLE: usize = 40;

/// One who joins has everything, and goes on as all others do.
fn joined(world: &mut World, joins: &Place) {
    world.follow_all(joins);
    joins.is_like(&world.first, PEOPLE);
    // those away come back on what the new one knows, and some leave once more
    let away: Vec<usize> = (0..PEOPLE)
        .filter(|n| {
            let state = joins.machine.state.lock();
            matches!(
                state.look(Place::hash_of(*n)).expect("it can be read"),
                Look::Away { .. }
            )
        })
        .collect();
    assert!(!away.is_empty());
    let mine: Vec<_> = away
        .iter()
        .map(|n| read::bucket(joins, Place::hash_of(*n)).expect("there").1)
        .collect();
    assert!(mine.iter().all(Option::is_some));
    world.send(away.clone(), "shop.opened");
    world.send(away.clone(), "shop.closed");
    world.send(away.into_iter().take(2), "leaves");
    world.follow_all(joins);
    joins.is_like(&world.first, PEOPLE);
    let before = joins.machine.history_upto();
    joins.checkpoint();
    world.first.checkpoint();
    assert!(joins.machine.history_upto() > before);
    assert_eq!(
        joins.machine.history_upto(),
        world.first.machine.history_upto()
    );
    joins.is_like(&world.first, PEOPLE);
    assert!(joins.machine.history_is_whole());
}

#[test]
fn one_who_joins_has_everything() {
    let mut world = World::new();
    world.shop.padding = 4_000;
    world.usual();
    world.first.checkpoint();
    world.send(0..30, "shop.sang");
    world.usual();
    let snapshot = world.first.checkpoint();
    // what follows is in memory only, there and here
    world.send(30..35, "shop.opened");
    let joins = Place::new();
    assert_eq!(joins.machine.history_upto(), None);
    let bytes = joins.take(&world.first, snapshot.0);
    assert!(bytes > 700_000, "{bytes} bytes in several pieces");
    assert_eq!(joins.machine.history_upto(), Some(snapshot.0));
    joins.install(&snapshot).expect("it is installed");
    assert_eq!(joins.machine.state.lock().history_up_to, snapshot.0.index);
    joined(&mut world, &joins);

    // and it gives all of it to the next one
    let snapshot = joins.checkpoint();
    let next = Place::new();
    next.take(&joins, snapshot.0);
    next.install(&snapshot).expect("it is installed");
    joined(&mut world, &next);
}

#[test]
fn one_who_was_away_gets_the_rest_only() {
    let mut world = World::new();
    world.shop.padding = 2_000;
    world.usual();
    let back = Place::new();
    world.follow(&back, 9);
    back.checkpoint();
    world.first.checkpoint();
    // one away comes back and stays, one comes back and leaves, others leave
    world.send([6, 7], "shop.opened");
    world.send([7], "shop.closed");
    world.send([7, 3], "leaves");
    let snapshot = world.first.checkpoint();
    let all: usize = world
        .first
        .pieces(None, snapshot.0)
        .iter()
        .map(Vec::len)
        .sum();
    let bytes = back.take(&world.first, snapshot.0);
    assert!(bytes < all / 2, "{bytes} of {all} bytes");
    back.install(&snapshot).expect("it is installed");
    joined(&mut world, &back);
    // who came back is not left over in the index
    assert!(
        back.store()
            .away(SHARD, Place::hash_of(6))
            .is_ok_and(|a| a.is_none())
    );
}

#[test]
fn history_may_be_ahead_of_the_state() {
    let mut world = World::new();
    world.usual();
    let snapshot = world.first.checkpoint();
    // after the cut: one away comes back for good, one comes back and leaves, one leaves, one ends
    world.send([6, 7], "shop.opened");
    world.send([7, 0], "shop.closed");
    world.send([7, 3], "leaves");
    world.send([1], "shop.sang");
    let ahead = world.first.checkpoint();
    let joins = Place::new();
    joins.take(&world.first, snapshot.0);
    joins.install(&snapshot).expect("it is installed");
    assert_eq!(joins.machine.history_upto(), Some(ahead.0));
    assert!(joins.machine.history_is_whole());

    // it shows nothing that it has not applied; of those whom it cannot show it says that it is behind
    let reference = Place::new();
    world.follow(&reference, snapshot.0.index);
    for n in 0..PEOPLE {
        let hash = Place::hash_of(n);
        let records = |of: &Place| read::records(of, hash, 0).expect("they can be read").len();
        assert_eq!(records(&joins), records(&reference));
        match read::bucket(&joins, hash) {
            Ok((bucket, _)) => {
                assert_ne!((n, bucket.is_empty()), (8, true));
                assert_eq!(bucket, read::bucket(&reference, hash).expect("there").0);
            }
            Err(ReadError::Behind {
                applied, history, ..
            }) => {
                assert!([6, 7].contains(&n), "customer {n}");
                assert_eq!((applied, history), (snapshot.0.index, ahead.0.index));
            }
            Err(other) => panic!("{other}"),
        }
    }
    for n in [6, 7] {
        assert!(read::bucket(&joins, Place::hash_of(n)).is_err());
    }
    let ended = |of: &Place| {
        let all = (u64::MAX, u64::MAX, u32::MAX);
        let ended = read::ended(of, (0, 0, 0), all, usize::MAX).expect("they can be read");
        ended.into_iter().map(|e| e.key).collect::<Vec<_>>()
    };
    assert_eq!(ended(&joins), ended(&reference));
    joins.store().sound().expect("nothing is lost");

    // half of the way, a checkpoint: the mark does not go back, and what follows makes no history twice
    world.follow(&joins, snapshot.0.index + 3);
    assert_eq!(joins.machine.waiting_bytes(), 0);
    joins.checkpoint();
    assert_eq!(joins.machine.history_upto(), Some(ahead.0));
    joined(&mut world, &joins);
}

#[test]
fn what_was_taken_by_half_does_no_harm_when_the_log_comes_instead() {
    let mut world = World::new();
    world.shop.padding = 6_000;
    world.usual();
    let back = Place::new();
    world.follow(&back, 9);
    back.checkpoint();
    world.usual();
    world.send([6, 7], "shop.opened");
    world.send([7], "shop.closed");
    world.send([7], "leaves");
    let snapshot = world.first.checkpoint();
    let pieces = world.first.pieces(back.machine.history_upto(), snapshot.0);
    assert!(pieces.len() > 2, "{} pieces", pieces.len());
    for piece in &pieces[..pieces.len() - 1] {
        back.machine.take_history(piece).expect("it is taken");
    }
    // nothing of it counts, and nothing of it is shown
    let reference = Place::new();
    world.follow(&reference, 9);
    assert_eq!(back.machine.history_upto(), Some(position(9)));
    for n in 0..PEOPLE {
        let hash = Place::hash_of(n);
        let records = |of: &Place| read::records(of, hash, 0).expect("they can be read").len();
        assert_eq!(records(&back), records(&reference));
    }
    // the log comes instead, a checkpoint in the middle, and another process
    world.follow(&back, 21);
    back.checkpoint();
    let late = back
        .machine
        .history_taken(snapshot.0)
        .expect_err("it was interrupted");
    assert!(late.contains("a checkpoint was made meanwhile"), "{late}");
    let refused = back.machine.history_after(None, position(21));
    let why = refused.err().expect("its indexes are ahead");
    assert!(why.contains("the next checkpoint mends that"), "{why}");
    let state = {
        let (at, chunks) = back.checkpoint();
        (at, chunks)
    };
    let back = back.reopen();
    back.install(&state).expect("its own checkpoint");
    back.store().sound().expect("nothing is lost");
    world.follow_all(&back);
    back.is_like(&world.first, PEOPLE);
    back.checkpoint();
    back.is_like(&world.first, PEOPLE);
    joined(&mut world, &back);
    assert!(!back.pieces(None, position(21)).is_empty());
}

#[test]
fn what_was_taken_by_half_is_replaced_by_another_one_s() {
    let mut world = World::new();
    world.shop.padding = 6_000;
    // the two make their checkpoints at other places, so what they give is cut differently
    let second = Place::new();
    let back = Place::new();
    world.usual();
    world.follow(&back, 6);
    back.checkpoint();
    world.follow(&second, 9);
    second.checkpoint();
    world.first.checkpoint();
    world.send(0..30, "shop.sang");
    world.usual();
    world.follow(&second, 18);
    second.checkpoint();
    world.follow_all(&second);
    let at = second.checkpoint().0;
    let snapshot = world.first.checkpoint();
    let has = back.machine.history_upto();
    let pieces = second.pieces(has, at);
    for piece in &pieces[..pieces.len() / 2] {
        back.machine.take_history(piece).expect("it is taken");
    }
    let back = back.reopen();
    back.take(&world.first, snapshot.0);
    back.install(&snapshot).expect("it is installed");
    joined(&mut world, &back);
}

#[test]
fn a_checkpoint_of_one_s_own_may_come_before_the_snapshot() {
    let mut world = World::new();
    world.usual();
    let back = Place::new();
    world.follow(&back, 3);
    back.checkpoint();
    // applied and not yet in its history when it takes that of another
    world.follow(&back, 9);
    world.send(0..30, "shop.sang");
    let snapshot = world.first.checkpoint();
    back.take(&world.first, snapshot.0);
    back.checkpoint();
    assert_eq!(back.machine.history_upto(), Some(snapshot.0));
    // it never comes to the installing: the log came first, and further
    world.usual();
    world.follow_all(&back);
    back.is_like(&world.first, PEOPLE);
    back.checkpoint();
    joined(&mut world, &back);
}

#[test]
fn what_was_taken_serves_to_rebuild() {
    let mut world = World::new();
    world.usual();
    let snapshot = world.first.checkpoint();
    let joins = Place::new();
    joins.take(&world.first, snapshot.0);
    joins.install(&snapshot).expect("it is installed");
    let joins = joins.reopen();
    joins.machine.restore_begin();
    let rebuilt = joins.machine.rebuild().expect("it is rebuilt");
    let manifest = rebuilt.expect("there is history").manifest;
    let cover = sojourn_cluster::format::decode_cover(&manifest).expect("a cover");
    assert_eq!(cover, self::cover(snapshot.0));
    joins.is_like(&world.first, PEOPLE);
    joined(&mut world, &joins);
}

#[test]
fn a_snapshot_without_its_history_is_refused_and_changes_nothing() {
    let mut world = World::new();
    world.usual();
    let back = Place::new();
    world.follow(&back, 6);
    back.checkpoint();
    let before = back.everything(PEOPLE);
    let snapshot = world.first.checkpoint();
    let why = back
        .install(&snapshot)
        .expect_err("history does not go so far");
    assert!(why.contains("it ends at entry 6"), "{why}");
    assert_eq!(before, back.everything(PEOPLE));
    assert!(back.machine.history_is_whole());
    back.store().sound().expect("nothing is lost");
    // at a start, though, history has lost what it had
    let back = back.reopen();
    back.install(&snapshot).expect("the state can be read");
    assert!(!back.machine.history_is_whole());
    back.store().sound().expect_err("there is a gap");
}

#[test]
fn while_a_state_comes_the_one_before_is_read() {
    let mut world = World::new();
    world.usual();
    let back = Place::new();
    world.follow(&back, 6);
    back.checkpoint();
    world.follow(&back, 9);
    let snapshot = world.first.checkpoint();
    let catalog = back.machine.catalog.subscribe();
    let (hands, mut told) = mpsc::unbounded_channel();
    *back.machine.hands.lock() = Some(hands);
    back.take(&world.first, snapshot.0);
    let before = (back.applied(), back.machine.hash());
    back.machine.restore_begin();
    for chunk in &snapshot.1 {
        assert_eq!((back.applied(), back.machine.hash()), before);
        back.machine.restore_chunk(chunk).expect("a chunk");
    }
    back.machine
        .restore_end(Some(snapshot.0))
        .expect("all is there");
    assert_ne!(back.machine.hash(), before.1);
    assert_eq!(
        back.machine.waiting_bytes(),
        0,
        "what waited is in the store"
    );
    assert!(back.state().lock().dirty.is_empty());
    assert!(catalog.has_changed().expect("the machine lives"));
    // hands that stood on the state before are let go
    assert!(
        told.try_recv()
            .is_err_and(|e| e == TryRecvError::Disconnected)
    );
    joined(&mut world, &back);
}

#[test]
fn a_forgotten_shard_can_be_joined_again() {
    let mut world = World::new();
    world.usual();
    let snapshot = world.first.checkpoint();
    let place = Place::new();
    place.take(&world.first, snapshot.0);
    place.install(&snapshot).expect("it is installed");
    let mut gone = place.reopen();
    for _ in 0..2 {
        gone.store().forget_shard(SHARD).expect("it is forgotten");
        assert_eq!(gone.store().half_forgotten(), Ok(vec![]));
        assert_eq!(gone.store().shards(), Ok(vec![]));
        assert_eq!(gone.machine.history_upto(), None);
        gone.machine.restore_begin();
        gone.machine.restore_end(None).expect("nothing to restore");
        for n in 0..PEOPLE {
            let hash = Place::hash_of(n);
            let records = gone
                .store()
                .records(SHARD, hash, 0)
                .expect("they can be read");
            assert!(records.is_empty());
            assert_eq!(gone.store().away(SHARD, hash), Ok(None));
        }
        let all = (u64::MAX, u64::MAX, u32::MAX);
        let ended = gone.store().ended(SHARD, (0, 0, 0), all, 9, u64::MAX);
        assert!(ended.is_ok_and(|e| e.is_empty()));
        let unmatched = gone
            .store()
            .unmatched(SHARD, (u64::MAX, 0), |signal| panic!("{signal:?}"));
        unmatched.expect("they can be read");
        for (index, id) in world.first.ids() {
            assert_eq!(gone.store().receipt(SHARD, id), Ok(None), "entry {index}");
        }
        gone = gone.reopen();
    }
    gone.machine.restore_begin();
    gone.machine.restore_end(None).expect("nothing to restore");
    gone.take(&world.first, snapshot.0);
    gone.install(&snapshot).expect("it is installed");
    joined(&mut world, &gone);
}

#[test]
fn forgetting_one_shard_leaves_the_others() {
    let mut world = World::new();
    world.usual();
    world.first.checkpoint();
    let before = world.first.everything(PEOPLE);
    world
        .first
        .store()
        .forget_shard(SHARD + 1)
        .expect("nothing to forget");
    world
        .first
        .store()
        .forget_shard(SHARD - 1)
        .expect("nothing to forget");
    assert_eq!(before, world.first.everything(PEOPLE));
}

/// The numbers of what is lost go to other entries, which the shard is not told of.
#[test]
fn a_log_that_lost_what_history_has_is_noticed() {
    let mut world = World::new();
    world.usual();
    world.first.checkpoint();
    let last = world.first.applied();
    let (cut, longer) = (last - 3, last + 50);
    assert_eq!(world.first.machine.beyond_log(last), Ok(None));
    assert_eq!(world.first.machine.beyond_log(longer), Ok(None));
    let World { first, log, .. } = world;
    let place = first.reopen();
    place.machine.restore_begin();
    place.machine.restore_end(None).expect("nothing to restore");
    World::replay(&log, &place, cut);
    for applied in [cut, longer] {
        let why = place.machine.beyond_log(applied).expect("it can be read");
        let why = why.expect("history has more");
        let said = format!("it goes up to entry {last} of shard 3, but the log ends at {cut}");
        assert_eq!(why, said);
    }
    World::replay(&log, &place, last);
    assert_eq!(place.machine.beyond_log(longer), Ok(None));
}

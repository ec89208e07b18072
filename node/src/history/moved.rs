//! History that is given, taken and forgotten, where only the store can see it.

use super::store::Store;
use super::take::Check;
use super::waiting::{Note, Waiting};
use super::{Record, day_of};
use prost::Message;
use sojourn_cluster::HistoryPieces;
use sojourn_proto::stored;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

const SHARD: u16 = 3;

/// Takes whatever comes.
struct Anything;

impl Check for Anything {
    fn customer(&self, _: &stored::HistoryCustomer) -> Result<(), String> {
        Ok(())
    }
    fn mark(&self, _: &stored::HistoryMark) -> Result<(), String> {
        Ok(())
    }
}

fn open(dir: &Path) -> Arc<Store> {
    Arc::new(Store::open(dir).expect("it opens"))
}

fn record(index: u64) -> Record {
    Record {
        index,
        sub: 0,
        bytes: format!("decision {index}").into(),
    }
}

/// A checkpoint of some entries, each of them of the same customer.
fn checkpoint(store: &Store, shard: u16, indexes: RangeInclusive<u64>) {
    let mut waiting = Waiting::default();
    let up_to = *indexes.end();
    for index in indexes {
        waiting.push(7, record(index), Some(u128::from(index)));
    }
    write(store, shard, &mut waiting, up_to);
}

fn write(store: &Store, shard: u16, waiting: &mut Waiting, up_to: u64) {
    let mark = stored::HistoryMark {
        up_to,
        ..stored::HistoryMark::default()
    };
    let today = day_of(crate::clock::wall());
    let written = store.write(shard, today, &waiting.take(), &mark);
    written.expect("it is written");
}

fn pieces(from: &Arc<Store>, after: u64, up_to: u64) -> Vec<Vec<u8>> {
    let mut giving = from.give(SHARD, after, up_to).expect("it has it");
    let mut pieces = Vec::new();
    while let Some(piece) = giving.next_piece().expect("it can be read") {
        pieces.push(piece);
    }
    pieces
}

fn take(store: &Store, pieces: &[Vec<u8>]) {
    for piece in pieces {
        let taken = store.take_piece(SHARD, piece, 0..=u32::MAX, &Anything);
        taken.expect("it is taken");
    }
}

fn indexes(store: &Store) -> Vec<u64> {
    let records = store.records(SHARD, 7, 0).expect("they can be read");
    records.iter().map(|r| r.index).collect()
}

#[test]
fn a_forgetting_that_was_broken_off_is_ended_by_whoever_comes_next() {
    let giver = tempfile::tempdir().expect("a folder");
    let giver = open(giver.path());
    checkpoint(&giver, SHARD, 1..=20);
    for next in ["forget", "take", "checkpoint", "give"] {
        let dir = tempfile::tempdir().expect("a folder");
        let store = open(dir.path());
        checkpoint(&store, SHARD, 1..=9);
        checkpoint(&store, SHARD + 1, 1..=9);
        // the mark is gone, and the process ends
        store.begin_forgetting(SHARD).expect("it is begun");
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.half_forgotten(), Ok(vec![SHARD]));
        assert_eq!(store.mark(SHARD), Ok(None));
        assert_eq!(indexes(&store).len(), 9, "they do not count");
        match next {
            "forget" => {
                store.forget_shard(SHARD).expect("it is forgotten");
                assert!(indexes(&store).is_empty());
            }
            "take" => {
                take(&store, &pieces(&giver, 0, 20));
                assert_eq!(store.taken(SHARD, 20), Ok(20));
                assert_eq!(indexes(&store), (1..=20).collect::<Vec<_>>());
            }
            "checkpoint" => {
                checkpoint(&store, SHARD, 2..=5);
                assert_eq!(indexes(&store), [2, 3, 4, 5]);
            }
            _ => {
                let refused = store.give(SHARD, 0, 1);
                assert!(refused.is_err_and(|why| why.contains("there is no history")));
                assert!(indexes(&store).is_empty());
            }
        }
        assert_eq!(store.half_forgotten(), Ok(vec![]), "{next}");
        assert_eq!(
            store.receipt(SHARD, 9).expect("read").is_some(),
            next == "take"
        );
        assert_eq!(
            store.receipt(SHARD + 1, 9).expect("read").map(|p| p.0),
            Some(9)
        );
        let other = store.records(SHARD + 1, 7, 0).expect("they can be read");
        assert_eq!(other.len(), 9);
    }
}

/// Values of one customer must not overlap, or a record would be looked for in the wrong one.
#[test]
fn what_is_ahead_goes_before_others_write_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let (first, second) = (open(&first), open(&second));
    // cut at other places
    checkpoint(&first, SHARD, 1..=5);
    checkpoint(&first, SHARD, 6..=14);
    checkpoint(&first, SHARD, 15..=30);
    checkpoint(&second, SHARD, 1..=10);
    checkpoint(&second, SHARD, 11..=18);
    let found_beside = |store: &Store, to: u64| {
        assert_eq!(indexes(store), (1..=to).collect::<Vec<_>>());
        for index in 1..=to {
            let beside = store.records_beside(SHARD, 7, index).expect("read");
            assert!(beside.iter().any(|r| r.index == index), "entry {index}");
        }
    };
    let own = dir.path().join("own");
    let store = open(&own);
    checkpoint(&store, SHARD, 1..=4);
    take(&store, &pieces(&second, 4, 18));
    assert_eq!(store.reach(SHARD), Ok(18));
    drop(store);
    // another process, and another giver
    let store = open(&own);
    assert_eq!(store.reach(SHARD), Ok(18));
    assert_eq!(store.mark(SHARD).map(|m| m.map(|m| m.up_to)), Ok(Some(4)));
    take(&store, &pieces(&first, 4, 30));
    assert_eq!(store.reach(SHARD), Ok(30));
    // a checkpoint of its own comes first
    checkpoint(&store, SHARD, 5..=9);
    found_beside(&store, 9);
    assert_eq!(store.reach(SHARD), Ok(30));
    let late = store.taken(SHARD, 30).expect_err("it was interrupted");
    assert!(late.contains("a checkpoint was made meanwhile"), "{late}");
    // a giver that knows of an earlier mark gives more than is wanted
    take(&store, &pieces(&first, 2, 30));
    assert_eq!(store.taken(SHARD, 25), Ok(30));
    found_beside(&store, 30);
    assert_eq!(store.reach(SHARD), Ok(30));
    // what waited meanwhile, and is there already, is not written twice
    checkpoint(&store, SHARD, 10..=20);
    assert_eq!(store.mark(SHARD).map(|m| m.map(|m| m.up_to)), Ok(Some(30)));
    checkpoint(&store, SHARD, 25..=33);
    found_beside(&store, 33);
}

#[test]
fn unmatched_signals_of_one_place_stay_together() {
    let dir = tempfile::tempdir().expect("a folder");
    let (giver, taker) = (dir.path().join("giver"), dir.path().join("taker"));
    let (giver, taker) = (open(&giver), open(&taker));
    let mut waiting = Waiting::default();
    let mut note = |index: u64, run: u32| {
        let signal = stored::UnmatchedSignal {
            index,
            run,
            ..stored::UnmatchedSignal::default()
        };
        waiting.unmatched(Note {
            index,
            sub: 0,
            bytes: signal.encode_to_vec().into(),
        });
    };
    // a decision that concerns many: stored apart, for there are many before it
    for index in 1..=500 {
        note(index, 0);
    }
    (0..90).for_each(|run| note(501, run));
    note(502, 0);
    write(&giver, SHARD, &mut waiting, 502);
    for has in [0, 300, 500] {
        taker.forget_shard(SHARD).expect("it is forgotten");
        write(&taker, SHARD, &mut Waiting::default(), has);
        take(&taker, &pieces(&giver, has, 502));
        assert_eq!(taker.taken(SHARD, 502), Ok(502));
        let mut found = Vec::new();
        let read = taker.unmatched(SHARD, (u64::MAX, 0), |signal| {
            found.push((signal.index, signal.run));
            true
        });
        read.expect("they can be read");
        let mut expected: Vec<_> = (has + 1..=500).map(|index| (index, 0)).collect();
        expected.extend((0..90).map(|run| (501, run)));
        expected.push((502, 0));
        expected.reverse();
        assert_eq!(found, expected);
    }
}

//! Pieces that are not what they should be: refused with the reason, and nothing counts.

use super::shops::*;
use bytes::Bytes;
use prost::Message;
use sojourn_cluster::Machine;
use sojourn_journey::time::Span;
use sojourn_proto::stored::{self, HistoryItem, HistoryPiece, history_item::Item};

/// A piece as it is sent.
fn sealed(piece: &HistoryPiece) -> Vec<u8> {
    let body = piece.encode_to_vec();
    let mut out = vec![1];
    out.extend_from_slice(&crc32c::crc32c(&body).to_be_bytes());
    out.extend_from_slice(&body);
    out
}

fn opened(piece: &[u8]) -> HistoryPiece {
    HistoryPiece::decode(&piece[5..]).expect("a piece")
}

fn items(piece: &HistoryPiece) -> Vec<Item> {
    let items = piece.items.iter().map(|bytes| {
        let item = HistoryItem::decode(bytes.clone()).expect("an item");
        item.item.expect("of some kind")
    });
    items.collect()
}

/// The piece with its items changed.
fn with(piece: &HistoryPiece, change: impl FnMut(&mut Item)) -> Vec<u8> {
    let mut all = items(piece);
    all.iter_mut().for_each(change);
    let items = all.into_iter().map(|item| {
        let item = HistoryItem { item: Some(item) };
        Bytes::from(item.encode_to_vec())
    });
    sealed(&HistoryPiece {
        items: items.collect(),
        ..piece.clone()
    })
}

fn customers(piece: &HistoryPiece, mut f: impl FnMut(&mut stored::HistoryCustomer)) -> Vec<u8> {
    with(piece, |item| {
        if let Item::Customer(customer) = item {
            f(customer);
        }
    })
}

#[test]
fn what_is_no_history_of_this_shard_is_refused_and_nothing_counts() {
    let mut world = World::new();
    world.usual();
    let snapshot = world.first.checkpoint();
    let pieces = world.first.pieces(None, snapshot.0);
    let [piece] = &pieces[..] else {
        panic!("{} pieces", pieces.len());
    };
    let good = opened(piece);
    let garbage = Bytes::from_static(b"\xff\xff\xff");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("expected more than 5", Vec::new()),
        ("format 7", vec![7; 100]),
        ("check sum", piece[..piece.len() - 1].to_vec()),
        ("the limit is", vec![1; 2 << 20]),
        (
            "shard 4, expected that of shard 3",
            sealed(&HistoryPiece {
                shard: 4,
                ..good.clone()
            }),
        ),
        (
            "piece 5 of history, expected piece 0",
            sealed(&HistoryPiece {
                number: 5,
                ..good.clone()
            }),
        ),
        (
            "behind entry 2, expected it behind 0",
            sealed(&HistoryPiece {
                after: 2,
                ..good.clone()
            }),
        ),
        (
            "expected it of 0 (without it) to 5",
            sealed(&HistoryPiece {
                up_to: 5,
                ..good.clone()
            }),
        ),
        (
            "cannot be decoded",
            sealed(&HistoryPiece {
                items: vec![garbage.clone()],
                ..good.clone()
            }),
        ),
        (
            "comes after the mark",
            sealed(&HistoryPiece {
                items: good.items.iter().rev().cloned().collect(),
                ..good.clone()
            }),
        ),
        (
            "a decision",
            customers(&good, |c| {
                c.records
                    .iter_mut()
                    .for_each(|r| r.decision = garbage.clone());
            }),
        ),
        ("is of customers", customers(&good, |c| c.hash ^= 1)),
        (
            "found the execution",
            customers(&good, |c| c.ended.iter_mut().for_each(|e| e.run += 1)),
        ),
        (
            "an ended execution in history cannot be decoded",
            customers(&good, |c| {
                c.ended.iter_mut().for_each(|e| e.ended = garbage.clone());
            }),
        ),
        (
            "a packed customer",
            customers(&good, |c| c.away = c.away.as_ref().map(|_| garbage.clone())),
        ),
        (
            "bytes, expected 16",
            with(&good, |item| {
                if let Item::Receipts(receipts) = item {
                    receipts.receipts[0].hash = garbage.clone();
                }
            }),
        ),
        (
            "an unmatched signal cannot be decoded",
            with(&good, |item| {
                if let Item::Unmatched(unmatched) = item {
                    unmatched.signals.push(garbage.clone());
                }
            }),
        ),
        (
            "the mark of history cannot be decoded",
            with(&good, |item| {
                if let Item::Mark(mark) = item {
                    *mark = garbage.clone();
                }
            }),
        ),
        (
            "a checkpoint's cover",
            with(&good, |item| {
                if let Item::Mark(mark) = item {
                    let mut found = stored::HistoryMark::decode(mark.clone()).expect("a mark");
                    found.manifest = garbage.clone();
                    *mark = found.encode_to_vec().into();
                }
            }),
        ),
        (
            "does not say what the shard counts",
            with(&good, |item| {
                if let Item::Mark(mark) = item {
                    let mut found = stored::HistoryMark::decode(mark.clone()).expect("a mark");
                    found.meta = None;
                    *mark = found.encode_to_vec().into();
                }
            }),
        ),
    ];
    let place = Place::new();
    for (words, bad) in cases {
        let why = place
            .machine
            .take_history(&bad)
            .expect_err(&format!("refused: {words}"));
        assert!(why.contains(words), "{words:?} is not in: {why}");
        assert!(!why.contains('\n') && !why.ends_with('.'), "{why}");
        let why = place
            .machine
            .history_taken(snapshot.0)
            .expect_err("nothing counts");
        assert!(why.contains("a piece of it was refused"), "{why}");
        assert_eq!(place.machine.history_upto(), None);
        let read = place.store().each_record(SHARD, |_, r| panic!("{r:?}"));
        read.expect("there are none");
    }
    // after all that, it takes what is right
    place.take(&world.first, snapshot.0);
    place.install(&snapshot).expect("it is installed");
    place.is_like(&world.first, 30);
}

#[test]
fn pieces_come_in_order_and_all_of_them() {
    let mut world = World::new();
    world.shop.padding = 9_000;
    world.usual();
    let snapshot = world.first.checkpoint();
    let pieces = world.first.pieces(None, snapshot.0);
    assert!(pieces.len() > 2, "{} pieces", pieces.len());
    assert!(pieces.iter().all(|p| p.len() < 300 << 10));
    let place = Place::new();
    let take = |n: usize| place.machine.take_history(&pieces[n]);
    let taken = || place.machine.history_taken(snapshot.0);
    assert!(take(1).is_err_and(|why| why.contains("none is being taken")));
    take(0).expect("the first");
    assert!(take(2).is_err_and(|why| why.contains("expected piece 1")));
    assert!(take(1).is_err_and(|why| why.contains("expected piece 0")));
    take(0).expect("the first");
    take(1).expect("the second");
    assert!(taken().is_err_and(|why| why.contains("its mark is missing")));
    // the same again from the beginning, and twice
    for _ in 0..2 {
        for n in 0..pieces.len() {
            take(n).expect("in order");
        }
    }
    let further = position(snapshot.0.index + 3);
    let why = place.machine.history_taken(further);
    assert!(why.is_err_and(|why| why.contains(&format!("expected {} at least", further.index))));
    assert_eq!(place.machine.history_upto(), None);
    for n in 0..pieces.len() {
        take(n).expect("in order");
    }
    taken().expect("all of it");
    assert!(taken().is_err(), "once");
    assert_eq!(place.machine.history_upto(), Some(snapshot.0));
    place.install(&snapshot).expect("it is installed");
    place.is_like(&world.first, 30);
}

#[test]
fn what_one_does_not_have_one_does_not_give() {
    let mut world = World::new();
    world.usual();
    let none = world.first.machine.history_after(None, position(3));
    assert!(none.is_err_and(|why| why.contains("there is no history of shard 3")));
    let at = world.first.checkpoint().0;
    let further = world
        .first
        .machine
        .history_after(None, position(at.index + 3));
    assert!(further.is_err_and(|why| why.contains("history of shard 3 ends at entry")));
    // one who has as much is given the mark only
    let pieces = world.first.pieces(Some(at), at);
    let all: Vec<Item> = pieces.iter().flat_map(|p| items(&opened(p))).collect();
    assert!(matches!(&all[..], [Item::Mark(_)]), "{all:?}");
}

/// Receipts are given by day: of a day that is over here they are not taken, of one to come they are kept as tomorrow's.
#[test]
fn receipts_of_days_that_are_over_are_not_taken() {
    let mut world = World::new();
    world.usual();
    let snapshot = world.first.checkpoint();
    let piece = opened(&world.first.pieces(None, snapshot.0)[0]);
    let ids = world.first.ids();
    for (day, kept) in [(12, false), (u32::MAX, true)] {
        let place = Place::new();
        let piece = with(&piece, |item| {
            if let Item::Receipts(receipts) = item {
                receipts.day = day;
            }
        });
        place.machine.take_history(&piece).expect("it is taken");
        place.machine.history_taken(snapshot.0).expect("all of it");
        let found = place
            .store()
            .receipt(SHARD, ids[0].1)
            .expect("it can be read");
        assert_eq!(found.map(|(index, _)| index), kept.then_some(ids[0].0));
        let now = sojourn_node::clock::wall();
        place
            .store()
            .expire(SHARD, now, keep())
            .expect("it expires");
        let found = place
            .store()
            .receipt(SHARD, ids[0].1)
            .expect("it can be read");
        assert_eq!(found.is_some(), kept);
    }
}

/// While one gives, it goes on: what is given is of one moment.
#[test]
fn what_is_given_is_of_the_moment_when_it_began() {
    let mut world = World::new();
    world.shop.padding = 6_000;
    world.usual();
    let snapshot = world.first.checkpoint();
    let mut given = world
        .first
        .machine
        .history_after(None, snapshot.0)
        .expect("it has it")
        .expect("it keeps history");
    let place = Place::new();
    let first = given.next_piece().expect("read").expect("a piece");
    place.machine.take_history(&first).expect("it is taken");
    // meanwhile those away come back, others leave, it makes checkpoints, and a day of receipts expires
    let back: Vec<usize> = (0..30).filter(|n| n % 10 > 5).collect();
    world.send(back.clone(), "shop.opened");
    world.send((0..30).filter(|n| n % 10 == 4), "leaves");
    world.first.checkpoint();
    let later = sojourn_node::clock::wall().plus(Span::from_seconds(10 * 86_400));
    world
        .first
        .store()
        .expire(SHARD, later, keep())
        .expect("they expire");
    let id = world.first.ids()[0];
    assert_eq!(world.first.store().receipt(SHARD, id.1), Ok(None));
    while let Some(piece) = given.next_piece().expect("it can be read") {
        place.machine.take_history(&piece).expect("it is taken");
    }
    place.machine.history_taken(snapshot.0).expect("all of it");
    assert_eq!(place.machine.history_upto(), Some(snapshot.0));
    place.install(&snapshot).expect("it is installed");
    let reference = Place::new();
    world.follow(&reference, snapshot.0.index);
    place.is_like(&reference, 30);
    world.follow_all(&place);
    assert_eq!(place.machine.hash(), world.first.machine.hash());
}

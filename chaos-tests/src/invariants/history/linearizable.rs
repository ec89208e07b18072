//! **Reads are linearizable.** For each customer there is one order of all signals and reads that every answer agrees with,
//! and in which whatever was answered before another call began stands before that call.
//!
//! The records are the order of the signals, and each says how far its execution was after it (run, events); a read says the
//! same of what it saw. So it is enough to compare places, as in [`crate::invariants::world::linearizable`]. What timers and
//! results of actions did in between nobody called for; it has no interval. A read's position must not lie before that of a
//! receipt that was given before it began.

use crate::history::{Finals, History, Place, stood};
use std::collections::BTreeMap;

/// One call that has its place in the order.
struct Placed {
    begun: u64,
    ended: u64,
    /// How far it was; a read stands after the signal that brought it there.
    place: (Place, bool),
    /// The index in the shard's log, of a signal's decision and of a read.
    index: Option<u64>,
    what: String,
}

/// What fits into no order.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let mut customers: BTreeMap<usize, Vec<Placed>> = BTreeMap::new();
    let places = finals.places();
    for ((customer, id), attempts) in history.by_signal() {
        let at = places.get(&(customer, id)).and_then(|at| at.first());
        let entry = at.and_then(|at| finals.of(customer).get(*at));
        // one that is missing is another promise's
        let Some((entry, place)) = entry.and_then(|e| Some((e, stood(e)?))) else {
            continue;
        };
        let given = attempts.iter().filter(|a| a.told.recorded().is_some());
        let ended = given.map(|a| a.ended).min();
        customers.entry(customer).or_default().push(Placed {
            begun: attempts.iter().map(|a| a.begun).min().unwrap_or_default(),
            ended: ended.unwrap_or(u64::MAX),
            place: (place, false),
            index: entry.position.map(|p| p.index),
            what: format!("signal {id}"),
        });
    }
    for look in &history.looks {
        if let Ok((place, index)) = &look.saw {
            customers.entry(look.customer).or_default().push(Placed {
                begun: look.begun,
                ended: look.ended,
                place: (*place, true),
                // nobody there: at no position
                index: (*index > 0).then_some(*index),
                what: format!("a read by client {} of {place:?}", look.client),
            });
        }
    }
    for (customer, mut placed) in customers {
        let name = history.name(customer);
        // by the order: whatever began after something later in it had ended stands the wrong way round
        placed.sort_by_key(|p| (p.place, p.begun));
        let wrong = |p: &Placed, first: &Placed| first.place > p.place;
        broken.extend(backwards(&placed, wrong).map(|(later, first)| {
            format!(
                "linearizable: of {name}: {} began at {} µs, after {} had ended at {} µs, and stands before it",
                later.what, later.begun, first.what, first.ended
            )
        }));
        placed.retain(|p| p.index.is_some());
        placed.sort_by_key(|p| (p.index, p.begun));
        let wrong = |p: &Placed, first: &Placed| p.place.1 && first.index > p.index;
        broken.extend(backwards(&placed, wrong).map(|(later, first)| {
            format!(
                "linearizable: of {name}: {} began at {} µs at position {:?}, after {} had ended at {} µs at {:?}",
                later.what, later.begun, later.index, first.what, first.ended, first.index
            )
        }));
    }
    broken
}

/// The pairs of calls that stand the wrong way round, of each call the first one to have ended of those behind it.
fn backwards<'a>(
    sorted: &'a [Placed],
    wrong: impl Fn(&Placed, &Placed) -> bool + 'a,
) -> impl Iterator<Item = (&'a Placed, &'a Placed)> {
    let mut first_end: Option<&Placed> = None;
    sorted.iter().rev().filter_map(move |later| {
        let first = first_end;
        if first_end.is_none_or(|first| later.ended < first.ended) {
            first_end = Some(later);
        }
        let first = first?;
        (wrong(later, first) && first.ended < later.begun).then_some((later, first))
    })
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;
    use crate::history::{Attempt, Look};

    fn read(events: u64, begun: u64, ended: u64) -> Look {
        Look {
            customer: 0,
            client: 1,
            begun,
            ended,
            // the records of the tests stand at the index of their event
            saw: Ok((
                Place {
                    run: u32::from(events > 0),
                    events,
                },
                events,
            )),
        }
    }

    fn found(attempts: Vec<Attempt>, looks: Vec<Look>) -> Vec<String> {
        let mut history = history(attempts);
        history.looks = looks;
        check(&history, &finals(&["a", "b"]))
    }

    #[test]
    fn an_order_that_time_forbids_is_found() {
        let two = || vec![sent("a", 0, Some(10)), sent("b", 20, Some(30))];
        for (what, looks, wanted) in [
            (
                "one after the other",
                vec![read(1, 11, 15), read(2, 31, 40)],
                0,
            ),
            (
                "beside a signal it may show it or not",
                vec![read(1, 21, 40), read(2, 21, 29)],
                0,
            ),
            // by what it shows, and by its position
            ("a read that misses a signal", vec![read(1, 31, 40)], 2),
            ("a read of nobody", vec![read(0, 31, 40)], 1),
            ("a read from the future", vec![read(2, 11, 15)], 1),
            (
                "two reads backwards",
                vec![read(2, 21, 24), read(1, 25, 28)],
                2,
            ),
        ] {
            let found = found(two(), looks);
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
        let unknown = vec![sent("a", 0, Some(10)), sent("b", 20, None)];
        let late = found(unknown, vec![read(1, 31, 40), read(2, 50, 60)]);
        assert_eq!(late, Vec::<String>::new(), "one that is unknown came later");
        let mut lies = read(2, 31, 40);
        lies.saw = Ok((Place { run: 1, events: 2 }, 1));
        let found = found(two(), vec![lies]);
        assert_eq!(found.len(), 1, "a position that lies: {found:?}");
    }
}

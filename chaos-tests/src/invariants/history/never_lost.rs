//! **What was acknowledged is never lost, and stands in order.** A signal with a receipt stands in its customer's records,
//! once. Whatever was acknowledged before another signal of the same customer was sent, by whomever, stands before that; and
//! two that one client was given one after the other, both of which it got a receipt for at the first attempt, stand in that
//! order.

use crate::history::{Attempt, Finals, History, Told};
use std::collections::BTreeMap;

/// One signal and its place.
struct Placed<'a> {
    id: &'a str,
    place: usize,
    /// When it was first sent.
    begun: u64,
    /// When it was first acknowledged.
    ended: u64,
}

/// A signal in the order of the client that was given it: its number there, its place and its id.
type Given<'a> = (u64, usize, &'a str);

/// What is missing or stands the wrong way round.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let places = finals.places();
    let signals = history.by_signal();
    let mut placed: BTreeMap<usize, Vec<Placed<'_>>> = BTreeMap::new();
    let mut lanes: BTreeMap<(usize, usize), Vec<Given<'_>>> = BTreeMap::new();
    for ((customer, id), attempts) in &signals {
        let given = |a: &&&Attempt| a.told.recorded().is_some();
        let first = attempts.iter().filter(given).min_by_key(|a| a.ended);
        let there = places.get(&(*customer, *id)).map_or(&[][..], Vec::as_slice);
        let [place] = there else {
            if let Some(first) = first {
                broken.push(format!(
                    "never lost: signal {id} of {} was acknowledged to client {} at {} µs and stands there {} times: {:?}",
                    history.name(*customer),
                    first.client,
                    first.ended,
                    there.len(),
                    first.told
                ));
            }
            continue;
        };
        let begun = attempts.iter().map(|a| a.begun).min().unwrap_or_default();
        placed.entry(*customer).or_default().push(Placed {
            id,
            place: *place,
            begun,
            // without a receipt it may come as late as it likes
            ended: first.map_or(u64::MAX, |a| a.ended),
        });
        if let Some(own) = attempts.first()
            && matches!(own.told, Told::Receipt(_))
            && attempts.iter().skip(1).all(|a| a.begun > own.ended)
        {
            let lane = lanes.entry((*customer, own.client)).or_default();
            lane.push((own.number, *place, id));
        }
    }
    for (customer, mut placed) in placed {
        placed.sort_by_key(|p| p.place);
        let mut earliest: Option<&Placed<'_>> = None;
        for one in placed.iter().rev() {
            if let Some(later) = earliest
                && later.ended < one.begun
            {
                broken.push(format!(
                    "in order: signal {} of {} was acknowledged at {} µs, before {} was sent at {} µs, and stands after it",
                    later.id,
                    history.name(customer),
                    later.ended,
                    one.id,
                    one.begun
                ));
            }
            if earliest.is_none_or(|e| one.ended < e.ended) {
                earliest = Some(one);
            }
        }
    }
    for ((customer, client), mut lane) in lanes {
        lane.sort_unstable();
        for pair in lane.windows(2) {
            if let [(_, before, first), (_, after, second)] = pair
                && before >= after
            {
                broken.push(format!(
                    "in order: client {client} was given signal {first} of {} before {second}, and it stands after it",
                    history.name(customer)
                ));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_found() {
        let two = || vec![sent("a", 0, Some(10)), sent("b", 20, Some(30))];
        let together = || vec![sent("a", 0, Some(30)), sent("b", 1, Some(30))];
        for (what, attempts, records, wanted) in [
            ("all there", two(), vec!["a", "b"], 0),
            ("one is lost", two(), vec!["a"], 1),
            ("one is doubled", two(), vec!["a", "b", "b"], 1),
            // the order of time and the order of the client
            ("the wrong way round", two(), vec!["b", "a"], 2),
            ("handed over together", together(), vec!["a", "b"], 0),
            (
                "together, the wrong way round",
                together(),
                vec!["b", "a"],
                1,
            ),
            (
                "one that is unknown comes later",
                vec![sent("a", 0, None), sent("b", 20, Some(30))],
                vec!["b", "a"],
                0,
            ),
            (
                "one that is unknown does not come",
                vec![sent("a", 0, None), sent("b", 20, Some(30))],
                vec!["b"],
                0,
            ),
        ] {
            let found = check(&history(attempts), &finals(&records));
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
    }
}

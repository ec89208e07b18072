//! **What is shown of a customer is what was.** There is one order of all signals of a customer and of all that was shown of
//! them ("nobody is known" is such an answer too) that every answer agrees with, and in which whatever was answered before
//! another call began stands before that call.
//!
//! History is the order of the decisions; the rest is as with lists: see [`super::linearizable`].

use super::linearizable::{Placed, wrong_way_round};
use crate::world::shards::books::{Asked, Call, Finals, Told};
use std::collections::BTreeMap;

/// What fits into no order.
pub fn check(calls: &[Call], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let mut customers: BTreeMap<_, Vec<&Call>> = BTreeMap::new();
    for call in calls.iter().filter(|c| finals.contains_key(&c.group)) {
        let who = (call.group, call.customer);
        customers.entry(who).or_default().push(call);
    }
    for ((group, who), calls) in customers {
        let customer = finals.get(&group).and_then(|all| all.get(&who));
        let lines = customer.map_or(&[][..], |customer| &customer.lines[..]);
        let places: BTreeMap<&str, usize> =
            lines.iter().map(|l| l.decision.as_str()).zip(0..).collect();
        // one signal is one thing that happens, however often it was sent
        let mut signals: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut placed = Vec::new();
        for call in calls {
            let mut shown = |at: u64, place: usize, what: &str| {
                placed.push(Placed {
                    begun: call.begun,
                    ended: at,
                    place: 2 * place,
                    what: format!("{what}, by node {},", call.node),
                });
            };
            match (call.asked, &call.told) {
                (Asked::Input { id }, told) => {
                    let (begun, ended) = signals.entry(id).or_insert((u64::MAX, u64::MAX));
                    *begun = call.begun.min(*begun);
                    match told {
                        Some((at, Told::Receipt { .. })) => *ended = (*at).min(*ended),
                        Some((at, Told::Nobody)) => shown(*at, 0, "\"nobody is known\""),
                        _ => {}
                    }
                }
                (Asked::Look, Some((at, Told::Seen(None)))) => shown(*at, 0, "a look at nobody"),
                (Asked::Look, Some((at, Told::Seen(Some(last))))) => {
                    match places.get(last.as_str()) {
                        Some(place) => shown(*at, place + 1, &format!("a look at {last}")),
                        None => broken.push(format!(
                            "customers seen: a look at customer {who} of {group} by node {} at {at} µs shows {last}, which is \
                             not there",
                            call.node
                        )),
                    }
                }
                (Asked::Look, _) => {}
            }
        }
        for line in lines {
            let times = line.input.and_then(|signal| signals.get(&signal));
            if let (Some((begun, ended)), Some(place)) = (times, places.get(line.decision.as_str()))
            {
                placed.push(Placed {
                    begun: *begun,
                    ended: *ended,
                    place: 2 * place + 1,
                    what: format!("input {:?}", line.input.unwrap_or(0)),
                });
            }
        }
        for (first, later) in wrong_way_round(placed) {
            broken.push(format!(
                "customers seen: customer {who} of {group}: {} began at {} µs, after {} had ended at {} µs, and stands before it",
                later.what, later.begun, first.what, first.ended
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{finals, line, look_call, of_signal, signal_call};

    fn receipt(decision: &str, index: u64) -> Told {
        Told::Receipt {
            decision: decision.to_owned(),
            index,
            again: false,
        }
    }

    #[test]
    fn an_answer_from_the_past_is_found() {
        let there = finals([
            of_signal(line(1, "a", None), 7),
            of_signal(line(2, "b", Some("a")), 8),
        ]);
        let acknowledged = || signal_call(7, 0, Some((10, receipt("a", 1))));
        for (what, call, broken) in [
            ("what was", look_call(20, 30, Some("a")), 0),
            ("nobody, before", look_call(5, 30, None), 0),
            ("nobody, after", look_call(20, 30, None), 1),
            (
                "\"nobody\", after",
                signal_call(9, 20, Some((30, Told::Nobody))),
                1,
            ),
            (
                "\"nobody\", beside",
                signal_call(9, 5, Some((30, Told::Nobody))),
                0,
            ),
            ("what is not there", look_call(20, 30, Some("z")), 1),
        ] {
            let found = check(&[acknowledged(), call], &there);
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
        let early = look_call(0, 5, Some("b"));
        let later = signal_call(8, 20, Some((30, receipt("b", 2))));
        assert_eq!(check(&[acknowledged(), early, later], &there).len(), 1);
    }
}

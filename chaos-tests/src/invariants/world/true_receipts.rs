//! **Receipts tell the truth.** What a receipt names stands in history, there and by that decision; what is known not to be
//! done is not done; and a signal has one first answer.

use crate::world::shards::books::{Asked, Call, Finals, Told};
use sojourn_cluster::GroupId;
use std::collections::{BTreeMap, BTreeSet};

/// What a client was told of a signal and is not so.
pub fn check(calls: &[Call], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let mut decided: BTreeMap<(GroupId, u64), (u64, &str)> = BTreeMap::new();
    for (group, customers) in finals {
        for line in customers.values().flat_map(|c| &c.lines) {
            if let Some(signal) = line.input {
                decided.insert((*group, signal), (line.index, &line.decision));
            }
        }
    }
    let mut firsts: BTreeSet<(GroupId, u64)> = BTreeSet::new();
    // of these, somebody was told that they are not done, and nobody that they may be
    let mut refused: BTreeMap<(GroupId, u64), bool> = BTreeMap::new();
    for call in calls.iter().filter(|c| finals.contains_key(&c.group)) {
        let Asked::Input { id } = call.asked else {
            continue;
        };
        let known = (call.group, id);
        let what = format!(
            "input {id} of customer {} of {} by node {}",
            call.customer, call.group, call.node
        );
        match &call.told {
            Some((
                at,
                Told::Receipt {
                    decision,
                    index,
                    again,
                },
            )) => {
                refused.insert(known, false);
                match decided.get(&known) {
                    Some(there) if *there == (*index, decision.as_str()) => {}
                    there => broken.push(format!(
                        "true receipts: {what} was acknowledged at {at} µs as decision {decision} at entry {index}, and there \
                         is {there:?}"
                    )),
                }
                if !again && !firsts.insert(known) {
                    broken.push(format!("true receipts: {what} got a second first answer"));
                }
            }
            Some((_, Told::Refused | Told::Nobody)) => {
                refused.entry(known).or_insert(true);
            }
            Some((_, Told::Unknown | Told::Seen(_))) | None => {
                refused.insert(known, false);
            }
        }
    }
    for ((group, id), only) in refused {
        if only && let Some((index, decision)) = decided.get(&(group, id)) {
            broken.push(format!(
                "true receipts: input {id} of {group} was refused, and is decided at entry {index} as {decision}"
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{finals, line, of_signal, signal_call};

    fn receipt(decision: &str, index: u64, again: bool) -> Told {
        Told::Receipt {
            decision: decision.to_owned(),
            index,
            again,
        }
    }

    #[test]
    fn a_receipt_that_lies_is_found() {
        let there = finals([
            of_signal(line(1, "a", None), 7),
            of_signal(line(2, "b", Some("a")), 8),
        ]);
        for (what, told, broken) in [
            ("the truth", vec![(7, receipt("a", 1, false))], 0),
            (
                "the truth, again",
                vec![(7, receipt("a", 1, false)), (7, receipt("a", 1, true))],
                0,
            ),
            ("another decision", vec![(7, receipt("b", 1, false))], 1),
            ("another entry", vec![(7, receipt("a", 2, false))], 1),
            ("what is lost", vec![(9, receipt("z", 3, false))], 1),
            (
                "two first answers",
                vec![(7, receipt("a", 1, false)), (7, receipt("a", 1, false))],
                1,
            ),
            ("refused, and done", vec![(8, Told::Refused)], 1),
            (
                "refused once, unknown once",
                vec![(8, Told::Refused), (8, Told::Unknown)],
                0,
            ),
            ("refused, and not done", vec![(9, Told::Refused)], 0),
            ("unknown", vec![(7, Told::Unknown), (9, Told::Unknown)], 0),
        ] {
            let calls: Vec<Call> = told
                .into_iter()
                .map(|(id, told)| signal_call(id, 0, Some((10, told))))
                .collect();
            let found = check(&calls, &there);
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
    }
}

//! **Reads are linearizable.** There is one order of all appends and reads of a list that every answer agrees with, and in
//! which whatever was answered before another call began stands before that call.
//!
//! The list itself is the order of the appends, and a read must show a beginning of it: so it is enough to compare places.
//! Every append has an interval from its call to its answer (without an answer: to the end of the world), every read too; a
//! read of `n` ids stands between the append at place `n - 1` and that at place `n`. Such an order exists exactly when no two
//! calls stand in it the wrong way round (intervals: Herlihy and Wing, *Linearizability*, 1990).

use super::places;
use crate::world::judge::Finals;
use crate::world::record::{Asked, Call, Told};
use sojourn_cluster::GroupId;
use std::collections::BTreeMap;
use std::rc::Rc;

/// One call that has its place in the order.
pub(super) struct Placed {
    pub begun: u64,
    pub ended: u64,
    /// Twice the place of an append and one; a read of `n` ids stands at `2 n`.
    pub place: usize,
    pub what: String,
}

/// Those that began after something later in the order had ended: each behind that.
pub(super) fn wrong_way_round(mut placed: Vec<Placed>) -> Vec<(Rc<Placed>, Rc<Placed>)> {
    placed.sort_by_key(|p| (p.place, p.begun));
    let mut wrong = Vec::new();
    let mut first_end: Option<Rc<Placed>> = None;
    for later in placed.into_iter().rev().map(Rc::new) {
        if let Some(first) = &first_end
            && first.place > later.place
            && first.ended < later.begun
        {
            wrong.push((first.clone(), later.clone()));
        }
        if first_end
            .as_ref()
            .is_none_or(|first| later.ended < first.ended)
        {
            first_end = Some(later);
        }
    }
    wrong
}

/// What fits into no order.
pub fn check(calls: &[Call], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let mut lists: BTreeMap<(GroupId, u64), Vec<&Call>> = BTreeMap::new();
    for call in calls {
        lists
            .entry((call.group, call.asked.list()))
            .or_default()
            .push(call);
    }
    for ((group, list), calls) in lists {
        let empty = Vec::new();
        let ids = finals
            .get(&group)
            .and_then(|lists| lists.get(&list))
            .unwrap_or(&empty);
        let places = places(ids);
        let mut placed = Vec::new();
        for call in calls {
            match (call.asked, &call.told) {
                (Asked::Append { id, .. }, told) => {
                    let Some((place, _)) = places.get(&id) else {
                        continue;
                    };
                    let ended = match told {
                        Some((at, Told::Appended(_))) => *at,
                        _ => u64::MAX,
                    };
                    placed.push(Placed {
                        begun: call.begun,
                        ended,
                        place: 2 * place + 1,
                        what: format!("append of {id} by node {}", call.node),
                    });
                }
                (Asked::Read { .. }, Some((at, Told::List(seen)))) => {
                    if !ids.starts_with(seen) {
                        broken.push(format!(
                            "linearizable: a read of list {list} of {group} by node {} at {at} µs shows {} ids that are no \
                             beginning of the {} there are",
                            call.node,
                            seen.len(),
                            ids.len()
                        ));
                        continue;
                    }
                    placed.push(Placed {
                        begun: call.begun,
                        ended: *at,
                        place: 2 * seen.len(),
                        what: format!("read of {} ids by node {}", seen.len(), call.node),
                    });
                }
                (Asked::Read { .. }, _) => {}
            }
        }
        for (first, later) in wrong_way_round(placed) {
            broken.push(format!(
                "linearizable: list {list} of {group}: {} began at {} µs, after {} had ended at {} µs, and stands before it",
                later.what, later.begun, first.what, first.ended
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use sojourn_cluster::Position;

    const GROUP: GroupId = GroupId(1);

    fn call(asked: Asked, begun: u64, told: Option<(u64, Told)>) -> Call {
        Call {
            group: GROUP,
            node: 1,
            asked,
            begun,
            told,
        }
    }

    fn append(id: u64, begun: u64, ended: Option<u64>) -> Call {
        let position = Position {
            term: 1,
            node: 1,
            index: id,
        };
        let told = ended.map(|at| (at, Told::Appended(position)));
        call(Asked::Append { list: 0, id }, begun, told)
    }

    fn read(ids: &[u64], begun: u64, ended: u64) -> Call {
        let told = Some((ended, Told::List(ids.to_vec())));
        call(Asked::Read { list: 0 }, begun, told)
    }

    #[test]
    fn an_order_that_time_forbids_is_found() {
        let finals = Finals::from([(GROUP, BTreeMap::from([(0, vec![1, 2, 3])]))]);
        for (what, calls, broken) in [
            (
                "one after the other",
                vec![
                    append(1, 0, Some(10)),
                    read(&[1], 20, 30),
                    append(2, 40, Some(50)),
                ],
                0,
            ),
            (
                "a read that misses an append",
                vec![append(1, 0, Some(10)), read(&[], 20, 30)],
                1,
            ),
            (
                "a read beside an append",
                vec![append(1, 0, Some(10)), read(&[], 5, 30)],
                0,
            ),
            (
                "a read from the future",
                vec![read(&[1], 0, 10), append(1, 20, Some(30))],
                1,
            ),
            (
                "an unknown append that came later",
                vec![append(1, 0, None), read(&[], 20, 30)],
                0,
            ),
            (
                "two reads backwards",
                vec![read(&[1, 2], 0, 10), read(&[1], 20, 30)],
                1,
            ),
            (
                "two appends the wrong way round",
                vec![append(2, 0, Some(10)), append(1, 20, Some(30))],
                1,
            ),
            ("what was never there", vec![read(&[7], 0, 10)], 1),
        ] {
            let found = check(&calls, &finals);
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
    }
}

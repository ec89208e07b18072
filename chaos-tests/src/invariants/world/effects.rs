//! **Effects owed are effects settled.** What a committed event owes is settled once, and as done only if the endpoint took
//! it; nothing is sent that no committed event owes, nothing before it is committed, and every time the same bytes.

use crate::world::shards::books::{ActionId, Bounds, Customer, Finals, Sent, What};
use sojourn_cluster::GroupId;
use std::collections::BTreeMap;

/// How long after everything was mended an action may be owed, in microseconds, before it counts as forgotten.
const FORGOTTEN: u64 = 15_000_000;

/// When an action was owed, and when and how it was settled, as far as replicas applied it.
struct Fate {
    owed: u64,
    settled: Option<(u64, bool)>,
}

fn fates(customer: &Customer) -> (BTreeMap<ActionId, Fate>, Vec<String>) {
    let mut fates: BTreeMap<ActionId, Fate> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in &customer.lines {
        for event in &line.events {
            match &event.what {
                What::Owed(action) => {
                    let owed = line.applied;
                    let fate = Fate {
                        owed,
                        settled: None,
                    };
                    fates.insert(*action, fate);
                }
                What::Settled(action, done) => match fates.get_mut(action) {
                    Some(fate) if fate.settled.is_none() => {
                        fate.settled = Some((line.applied, *done));
                    }
                    Some(_) => wrong.push(format!("{action:?} is settled twice")),
                    None => wrong.push(format!("{action:?} is settled and was not owed")),
                },
                _ => {}
            }
        }
    }
    (fates, wrong)
}

/// What was sent or settled and should not have been.
pub fn check(sent: &[Sent], finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let mut by_action: BTreeMap<(GroupId, u64, ActionId), Vec<&Sent>> = BTreeMap::new();
    for sent in sent.iter().filter(|s| finals.contains_key(&s.group)) {
        let key = (sent.group, sent.customer, sent.action);
        by_action.entry(key).or_default().push(sent);
    }
    for (group, customers) in finals {
        for (who, customer) in customers {
            let whose = format!("effects: of customer {who} of {group}:");
            let (fates, wrong) = fates(customer);
            broken.extend(wrong.into_iter().map(|what| format!("{whose} {what}")));
            for (action, fate) in fates {
                let sent = by_action
                    .remove(&(*group, *who, action))
                    .unwrap_or_default();
                if let Some(early) = sent.iter().find(|s| s.at < fate.owed) {
                    broken.push(format!(
                        "{whose} {action:?} was sent at {} µs and committed at {} µs",
                        early.at, fate.owed
                    ));
                }
                if sent.windows(2).any(|two| two[0].body != two[1].body) {
                    broken.push(format!(
                        "{whose} {action:?} was not sent with the same bytes"
                    ));
                }
                match fate.settled {
                    Some((at, true)) if !sent.iter().any(|s| s.taken && s.at <= at) => {
                        broken.push(format!("{whose} {action:?} is settled as done and was not"));
                    }
                    // the endpoint of these worlds refuses nothing for ever
                    Some((_, false)) => {
                        broken.push(format!("{whose} {action:?} was given up"));
                    }
                    Some((_, true)) | None => {}
                }
            }
        }
    }
    for ((group, who, action), sent) in by_action {
        let at = sent.first().map_or(0, |s| s.at);
        broken.push(format!(
            "effects: of customer {who} of {group}: {action:?} was sent at {at} µs and nobody owes it"
        ));
    }
    broken
}

/// What has been owed for so many microseconds.
pub fn unsettled(finals: &Finals, bounds: &Bounds, ago: u64) -> Vec<String> {
    let mut left = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            for (action, fate) in fates(customer).0 {
                if fate.settled.is_none() && fate.owed + ago < bounds.end.0 {
                    left.push(format!(
                        "effects: {action:?} of customer {who} of {group} has been owed since {} µs",
                        fate.owed
                    ));
                }
            }
        }
    }
    left
}

/// What is owed though nothing has gone wrong for long.
pub fn forgotten(finals: &Finals, bounds: &Bounds) -> Vec<String> {
    if bounds.end.0 < bounds.calm + FORGOTTEN {
        return Vec::new();
    }
    unsettled(finals, bounds, FORGOTTEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{GROUP, event, finals, line};
    use crate::world::shards::books::Line;

    const ACTION: ActionId = (1, 1);

    fn at(applied: u64, what: What) -> Line {
        let mut line = line(applied, &applied.to_string(), None);
        line.applied = applied;
        line.events = vec![event(1, 1, what)];
        line
    }

    fn sent(at: u64, taken: bool, body: u64) -> Sent {
        Sent {
            group: GROUP,
            customer: 0,
            action: ACTION,
            at,
            taken,
            body,
        }
    }

    #[test]
    fn what_is_not_settled_as_it_was_is_found() {
        let owed = || at(10, What::Owed(ACTION));
        let done = || at(30, What::Settled(ACTION, true));
        for (what, lines, sent, broken) in [
            ("done", vec![owed(), done()], vec![sent(20, true, 7)], 0),
            (
                "done twice over",
                vec![owed(), done()],
                vec![sent(20, true, 7), sent(25, true, 7)],
                0,
            ),
            (
                "before it was committed",
                vec![owed()],
                vec![sent(9, true, 7)],
                1,
            ),
            ("never sent", vec![owed(), done()], vec![], 1),
            (
                "never taken",
                vec![owed(), done()],
                vec![sent(20, false, 7)],
                1,
            ),
            (
                "other bytes",
                vec![owed()],
                vec![sent(20, true, 7), sent(21, true, 8)],
                1,
            ),
            (
                "settled twice",
                vec![owed(), done(), done()],
                vec![sent(20, true, 7)],
                1,
            ),
            (
                "given up",
                vec![owed(), at(30, What::Settled(ACTION, false))],
                vec![sent(20, false, 7)],
                1,
            ),
            ("owed by nobody", vec![], vec![sent(20, true, 7)], 1),
        ] {
            let found = check(&sent, &finals(lines));
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
    }

    #[test]
    fn what_is_forgotten_is_found() {
        let bounds = |end| Bounds {
            end: (end, 0),
            calm: 100,
            skew: 0,
        };
        let there = finals([at(10, What::Owed(ACTION))]);
        assert!(forgotten(&there, &bounds(1_000)).is_empty());
        assert_eq!(forgotten(&there, &bounds(20_000_000)).len(), 1);
        let there = finals([
            at(10, What::Owed(ACTION)),
            at(30, What::Settled(ACTION, true)),
        ]);
        assert!(forgotten(&there, &bounds(20_000_000)).is_empty());
    }
}

//! **Timers are neither lost nor early.** A timer fires once, not before it is due by the owner's clock; while its visit
//! lasts it does fire, whoever owns the shard by then; if an operator holds the run, when that has ended.

use crate::world::shards::books::{Bounds, Customer, Finals, TimerId, What};
use crate::world::shards::replica::EPOCH;
use std::collections::{BTreeMap, BTreeSet};

/// How late a timer may be after everything was mended, in microseconds, before it counts as lost.
const LOST: i64 = 12_000_000;

/// The timers that fired early, twice, or without having been armed.
pub fn check(finals: &Finals, bounds: &Bounds) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            let mut armed: BTreeMap<&TimerId, i64> = BTreeMap::new();
            for line in &customer.lines {
                for event in &line.events {
                    let timer = match &event.what {
                        What::Armed(timer, due) => {
                            armed.insert(timer, *due);
                            continue;
                        }
                        What::Fired(timer) => timer,
                        _ => continue,
                    };
                    let what = format!("timers: {timer:?} of customer {who} of {group}");
                    let Some(due) = armed.remove(timer) else {
                        broken.push(format!(
                            "{what} fired at entry {} and was not armed",
                            line.index
                        ));
                        continue;
                    };
                    let true_time = EPOCH + i64::try_from(line.applied).unwrap_or(i64::MAX / 2);
                    if line.at < due || true_time + bounds.skew < due {
                        broken.push(format!(
                            "{what} was due at {due}, and fired at {} by the owner's clock, {true_time} by the right one",
                            line.at
                        ));
                    }
                }
            }
        }
    }
    broken
}

/// The timers that should have fired so many microseconds ago, and did not.
pub fn overdue(finals: &Finals, bounds: &Bounds, ago: i64) -> Vec<String> {
    let mut left = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            for (timer, due) in standing(customer) {
                if due + ago + bounds.skew < bounds.end.1 {
                    let late = (bounds.end.1 - due) / 1_000;
                    left.push(format!(
                        "timers: {timer:?} of customer {who} of {group} was due {late} ms ago"
                    ));
                }
            }
        }
    }
    left
}

/// The timers that are lost: nothing has gone wrong for long, and they do not fire.
pub fn lost(finals: &Finals, bounds: &Bounds) -> Vec<String> {
    let calm = i64::try_from(bounds.end.0.saturating_sub(bounds.calm)).unwrap_or(0);
    if calm < LOST {
        return Vec::new();
    }
    overdue(finals, bounds, LOST)
}

/// The timers that are armed in the end: a new visit drops those of the one before, the end of a run all of them. Those of a
/// run that is held wait; when it is resumed, what was due meanwhile is due.
fn standing(customer: &Customer) -> BTreeMap<TimerId, i64> {
    let mut standing: BTreeMap<TimerId, i64> = BTreeMap::new();
    let mut held = BTreeSet::new();
    let events = customer
        .lines
        .iter()
        .flat_map(|line| line.events.iter().map(move |event| (line.at, event)));
    for (at, event) in events {
        match &event.what {
            What::Held => drop(held.insert(event.run)),
            What::Resumed => {
                held.remove(&event.run);
                for ((run, ..), due) in &mut standing {
                    if *run == event.run {
                        *due = at.max(*due);
                    }
                }
            }
            What::Armed(timer, due) => drop(standing.insert(timer.clone(), *due)),
            What::Fired(timer) => drop(standing.remove(timer)),
            What::Moved { run, visit, .. } => {
                standing.retain(|(of, at, ..), _| of != run || *at == 0 || at == visit);
            }
            What::Ended { run } => standing.retain(|(of, ..), _| of != run),
            What::Owed(_)
            | What::Settled(..)
            | What::Started { .. }
            | What::Waits
            | What::Taken
            | What::Heard
            | What::Other => {}
        }
    }
    standing.retain(|(run, ..), _| !held.contains(run));
    standing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{event, finals, line};
    use crate::world::shards::books::Line;

    fn timer(visit: u32) -> TimerId {
        (1, visit, "stage/open/transition/1".to_owned(), 1)
    }

    /// One event, decided and applied so many microseconds after the beginning.
    fn at(after: u64, number: u64, what: What) -> Line {
        let previous = (number > 1).then(|| (number - 1).to_string());
        let mut line = line(number, &number.to_string(), previous.as_deref());
        line.at = EPOCH + after.cast_signed();
        line.applied = after;
        line.events = vec![event(1, number, what)];
        line
    }

    fn moved(run: u32) -> What {
        What::Moved {
            run,
            visit: 2,
            by_hand: false,
        }
    }

    fn bounds(end: u64) -> Bounds {
        Bounds {
            end: (end, EPOCH + end.cast_signed()),
            calm: 0,
            skew: 0,
        }
    }

    #[test]
    fn what_is_early_twice_or_from_nowhere_is_found() {
        let armed = || at(0, 1, What::Armed(timer(1), EPOCH + 100));
        for (what, lines, broken) in [
            (
                "in time",
                vec![armed(), at(100, 2, What::Fired(timer(1)))],
                0,
            ),
            ("early", vec![armed(), at(99, 2, What::Fired(timer(1)))], 1),
            (
                "twice",
                vec![
                    armed(),
                    at(100, 2, What::Fired(timer(1))),
                    at(101, 3, What::Fired(timer(1))),
                ],
                1,
            ),
            (
                "another",
                vec![armed(), at(100, 2, What::Fired(timer(2)))],
                1,
            ),
        ] {
            let found = check(&finals(lines), &bounds(200));
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
    }

    #[test]
    fn what_is_lost_is_found() {
        let armed = || at(0, 1, What::Armed(timer(1), EPOCH + 100));
        for (what, then, broken) in [
            ("not fired", What::Other, 1),
            ("fired", What::Fired(timer(1)), 0),
            ("another visit", moved(1), 0),
            ("another run", moved(2), 1),
            ("held", What::Held, 0),
            ("ended", What::Ended { run: 1 }, 0),
        ] {
            let there = finals([armed(), at(150, 2, then)]);
            assert_eq!(lost(&there, &bounds(20_000_000)).len(), broken, "{what}");
            assert!(lost(&there, &bounds(1_000)).is_empty(), "{what}, too soon");
        }
        // who was held has the time since then
        let there = finals([
            armed(),
            at(50, 2, What::Held),
            at(19_000_000, 3, What::Resumed),
        ]);
        for (end, broken) in [(20_000_000, 0), (40_000_000, 1)] {
            assert_eq!(lost(&there, &bounds(end)).len(), broken, "{end}");
        }
    }
}

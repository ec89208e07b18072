//! **Who is held does not move.** Between a hold and its end nothing moves a run but an operator's override, no timer fires, no
//! signal is heeded and none that waits is taken; nobody is held twice, or let go of who is not held. Once a run is resumed, what
//! waited is taken. In which order is not looked at.

use crate::world::shards::books::{Bounds, Customer, Finals, What};
use std::collections::BTreeMap;

/// How long after everything was mended a signal may wait, in microseconds, before it counts as forgotten.
const FORGOTTEN: i64 = 12_000_000;

/// A run, as far as holds are about it.
#[derive(Default)]
struct Run {
    held: bool,
    waiting: u64,
    /// When it was resumed last, by the owner's clock.
    resumed: i64,
}

fn runs(customer: &Customer) -> (BTreeMap<u32, Run>, Vec<String>) {
    let mut runs: BTreeMap<u32, Run> = BTreeMap::new();
    let mut wrong = Vec::new();
    for line in &customer.lines {
        for event in &line.events {
            let run = runs.entry(event.run).or_default();
            let bad = match &event.what {
                What::Held => std::mem::replace(&mut run.held, true).then_some("held again"),
                What::Resumed => {
                    run.resumed = line.at;
                    let held = std::mem::replace(&mut run.held, false);
                    (!held).then_some("resumed, not being held")
                }
                What::Waits => {
                    run.waiting += 1;
                    None
                }
                What::Taken if run.held => Some("given a signal that waits"),
                What::Taken if run.waiting == 0 => Some("given a signal that does not wait"),
                What::Taken => {
                    run.waiting -= 1;
                    None
                }
                What::Moved { by_hand: false, .. } if run.held => Some("moved"),
                What::Heard if run.held => Some("told of a signal"),
                What::Fired(_) if run.held => Some("moved on by a timer"),
                What::Ended { .. } => {
                    *run = Run::default();
                    None
                }
                _ => None,
            };
            if let Some(bad) = bad {
                wrong.push(format!(
                    "run {} was {bad} at entry {}{}",
                    event.run,
                    line.index,
                    if run.held { ", while it was held" } else { "" }
                ));
            }
        }
    }
    (runs, wrong)
}

/// What happened to a run that was held, and should not have.
pub fn check(finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            for wrong in runs(customer).1 {
                broken.push(format!("holds: customer {who} of {group}: {wrong}"));
            }
        }
    }
    broken
}

/// Signals that wait in runs that were resumed so many microseconds ago.
pub fn left(finals: &Finals, bounds: &Bounds, ago: i64) -> Vec<String> {
    let mut left = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            for (number, run) in runs(customer).0 {
                let late = run.resumed + ago + bounds.skew < bounds.end.1;
                if !run.held && run.waiting > 0 && late {
                    left.push(format!(
                        "holds: {} signals wait in run {number} of customer {who} of {group}, resumed at {}",
                        run.waiting, run.resumed
                    ));
                }
            }
        }
    }
    left
}

/// Signals that wait though nothing holds their run and nothing has gone wrong for long.
pub fn forgotten(finals: &Finals, bounds: &Bounds) -> Vec<String> {
    let calm = i64::try_from(bounds.end.0.saturating_sub(bounds.calm)).unwrap_or(0);
    if calm < FORGOTTEN {
        return Vec::new();
    }
    left(finals, bounds, FORGOTTEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{event, finals, line};

    fn of(events: &[What]) -> Finals {
        let mut line = line(1, "a", None);
        line.events = (1..)
            .zip(events)
            .map(|(number, what)| event(1, number, what.clone()))
            .collect();
        finals([line])
    }

    fn moved(by_hand: bool) -> What {
        What::Moved {
            run: 1,
            visit: 2,
            by_hand,
        }
    }

    #[test]
    fn what_moves_while_it_is_held_is_found() {
        use What::{Heard, Held, Resumed, Taken, Waits};
        let fired = || What::Fired((1, 1, "stage/open/transition/2".to_owned(), 1));
        for (what, events, broken) in [
            ("in order", vec![Held, Waits, Resumed, Taken], 0),
            ("an override", vec![Held, moved(true), Resumed], 0),
            ("a move", vec![Held, moved(false), Resumed], 1),
            ("a move, later", vec![Held, Resumed, moved(false)], 0),
            ("a timer", vec![Held, fired()], 1),
            ("a signal", vec![Heard, Held, Heard], 1),
            ("taken too early", vec![Held, Waits, Taken], 1),
            ("taken twice", vec![Held, Waits, Resumed, Taken, Taken], 1),
            ("held twice", vec![Held, Held], 1),
            ("let go of, not held", vec![Resumed], 1),
            (
                "ended while it was held",
                vec![Held, Waits, What::Ended { run: 1 }],
                0,
            ),
        ] {
            let found = check(&of(&events));
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
    }

    #[test]
    fn what_waits_for_ever_is_found() {
        use What::{Held, Resumed, Taken, Waits};
        let bounds = Bounds {
            end: (20_000_000, 20_000_000),
            calm: 0,
            skew: 0,
        };
        for (events, found) in [
            (vec![Held, Waits], 0),
            (vec![Held, Waits, Resumed], 1),
            (vec![Held, Waits, Resumed, Taken], 0),
        ] {
            assert_eq!(forgotten(&of(&events), &bounds).len(), found, "{events:?}");
        }
    }
}

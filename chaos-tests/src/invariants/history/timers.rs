//! **Timers are neither lost nor early.** Each that was armed and not left behind fired once, not before it was due by the
//! time that its record bears; one whose visit is over never fired.

use crate::history::{Finals, History};
use crate::invariants::events;
use crate::invariants::timers::timers;
use sojourn_client::wire::event::What;

/// The timers that fired early, twice, after their visit, or not at all.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for customer in finals.timelines.keys() {
        for (execution, entries) in finals.executions(*customer) {
            if let Err(error) = timers(&history.name(*customer), &entries, finals.read_at) {
                broken.push(format!("timers: {execution}: {error:#}"));
            }
        }
    }
    broken
}

/// How many fired.
pub fn fired(finals: &Finals) -> usize {
    let all = finals
        .timelines
        .values()
        .flat_map(|entries| events(entries));
    all.filter(|(_, _, what)| matches!(what, What::TimerFired(_)))
        .count()
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    #[test]
    fn a_timer_that_is_early_lost_or_not_its_own_is_found() {
        type Change = fn(&mut Finals);
        let cases: [(&str, Change, usize); 5] = [
            ("in time", |_| (), 0),
            (
                "lost",
                |f| drop_event(f, |w| matches!(w, What::TimerFired(_))),
                1,
            ),
            (
                "never armed",
                |f| drop_event(f, |w| matches!(w, What::TimerArmed(_))),
                1,
            ),
            (
                "early",
                |f| {
                    change_event(f, |e| {
                        if matches!(e.what, Some(What::TimerFired(_))) {
                            e.at = 1
                        }
                    })
                },
                1,
            ),
            (
                "of another visit",
                |f| {
                    change_event(f, |e| match &mut e.what {
                        Some(What::TimerFired(t)) => t.visit = 9,
                        Some(What::TimerArmed(t)) => t.timer.iter_mut().for_each(|t| t.visit = 9),
                        _ => {}
                    })
                },
                1,
            ),
        ];
        for (what, change, wanted) in cases {
            let mut finals = with_timer();
            assert_eq!(fired(&finals), 1);
            change(&mut finals);
            let found = check(&history(Vec::new()), &finals);
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
        let mut soon = with_timer();
        drop_event(&mut soon, |w| matches!(w, What::TimerFired(_)));
        soon.read_at = DUE;
        assert_eq!(check(&history(Vec::new()), &soon), Vec::<String>::new());
    }
}

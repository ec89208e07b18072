//! **Applied at most once.** No signal and no timer stands twice in a customer's records, whatever was sent again by
//! whomever, and the events of each execution are numbered without gap or repetition.

use crate::history::{Finals, History};
use crate::invariants::once::once;

/// What was applied twice, or left a gap.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let each = finals.timelines.iter().filter_map(|(customer, entries)| {
        let found = once(&history.name(*customer), entries);
        found.err().map(|error| format!("at most once: {error:#}"))
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    #[test]
    fn a_signal_that_stands_there_twice_and_a_gap_are_found() {
        let history = history(Vec::new());
        assert_eq!(check(&history, &finals(&["a", "b"])), Vec::<String>::new());
        assert_eq!(check(&history, &finals(&["a", "b", "a"])).len(), 1);
        let mut gap = finals(&["a", "b", "c"]);
        gap.timelines.values_mut().for_each(|t| {
            t.remove(1);
        });
        assert_eq!(check(&history, &gap).len(), 1);
    }
}

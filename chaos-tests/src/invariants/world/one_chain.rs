//! **A decision is applied to the very state that it was made on.** The decisions of a customer are a chain: each names the
//! one that stands before it, and the events of a run are numbered without a gap.

use crate::world::shards::books::Finals;
use std::collections::BTreeMap;

/// The decisions that stand behind another one than they were made behind, and the events that do not follow.
pub fn check(finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            let mut last: Option<&str> = None;
            let mut numbers: BTreeMap<u32, u64> = BTreeMap::new();
            for line in &customer.lines {
                if line.previous.as_deref() != last {
                    broken.push(format!(
                        "one chain: decision {} of customer {who} of {group} at entry {} was made behind {:?} and stands \
                         behind {last:?}",
                        line.decision, line.index, line.previous
                    ));
                }
                last = Some(&line.decision);
                for event in &line.events {
                    let before = numbers.insert(event.run, event.number);
                    if before.is_some_and(|before| before + 1 != event.number) {
                        broken.push(format!(
                            "one chain: event {} of run {} of customer {who} of {group} at entry {} follows event {before:?}",
                            event.number, event.run, line.index
                        ));
                    }
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{event, finals, line};
    use crate::world::shards::books::What;

    #[test]
    fn a_decision_behind_another_one_is_found() {
        let first = line(1, "a", None);
        let second = line(2, "b", Some("a"));
        assert!(check(&finals([first.clone(), second.clone()])).is_empty());
        let other = line(2, "c", Some("a"));
        let found = check(&finals([first, second, other]));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_gap_in_the_numbers_is_found() {
        for (number, broken) in [(3, 0), (2, 1), (4, 1)] {
            let mut first = line(1, "a", None);
            first.events = vec![event(1, 1, What::Other), event(1, 2, What::Other)];
            let mut second = line(2, "b", Some("a"));
            second.events = vec![event(1, number, What::Other)];
            let found = check(&finals([first, second]));
            assert_eq!(found.len(), broken, "{number}: {found:?}");
        }
    }
}

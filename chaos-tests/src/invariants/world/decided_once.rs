//! **A signal is decided once.** However often it is sent, to whichever node, across restarts and moves of replicas: one
//! decision bears its id.

use crate::world::shards::books::Finals;
use std::collections::BTreeMap;

/// The signals that were decided more than once.
pub fn check(finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
            for line in &customer.lines {
                let Some(signal) = line.input else { continue };
                if let Some(first) = seen.insert(signal, line.index) {
                    broken.push(format!(
                        "decided once: input {signal} of customer {who} of {group} was decided at entry {first} and again at \
                         entry {}",
                        line.index
                    ));
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{finals, line, of_signal};

    #[test]
    fn a_signal_that_was_decided_twice_is_found() {
        let lines = [
            of_signal(line(1, "a", None), 7),
            line(2, "b", Some("a")),
            of_signal(line(3, "c", Some("b")), 8),
        ];
        assert!(check(&finals(lines.clone())).is_empty());
        let again = of_signal(line(4, "d", Some("c")), 7);
        let found = check(&finals(lines.into_iter().chain([again])));
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

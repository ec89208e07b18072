//! **Unknown is never called failed.** A signal that was refused every time that it was sent is not in the records, now or
//! ever; and nothing is there that nobody sent.

use crate::history::{Attempt, Finals, History, Told, signal_of};

/// What is there and must not be, and what was taken and must not have been.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    let signals = history.by_signal();
    let places = finals.places();
    let refused = |a: &&Attempt| matches!(a.told, Told::Refused(_));
    for ((customer, id), attempts) in &signals {
        let last = attempts.last().map(|a| &a.told);
        if attempts.iter().all(refused) && places.contains_key(&(*customer, *id)) {
            broken.push(format!(
                "unknown is not failed: signal {id} of {} was refused every time, and is there: {last:?}",
                history.name(*customer)
            ));
        }
        if let Some(taken) = attempts
            .iter()
            .find(|a| a.wrong && a.told.recorded().is_some())
        {
            broken.push(format!(
                "unknown is not failed: signal {id} of {} is not valid and got a receipt: {:?}",
                history.name(*customer),
                taken.told
            ));
        }
    }
    for (customer, entries) in &finals.timelines {
        for id in entries.iter().filter_map(signal_of) {
            if !signals.contains_key(&(*customer, id)) {
                broken.push(format!(
                    "unknown is not failed: signal {id} of {} is there, and nobody sent it",
                    history.name(*customer)
                ));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    fn refused(id: &str) -> Attempt {
        let mut attempt = sent(id, 0, None);
        attempt.told = Told::Refused("nobody took it".into());
        attempt
    }

    #[test]
    fn what_was_refused_and_what_nobody_sent_is_found() {
        for (what, attempts, records, wanted) in [
            ("refused and not there", vec![refused("a")], vec![], 0),
            ("refused and there", vec![refused("a")], vec!["a"], 1),
            ("unknown and there", vec![sent("a", 0, None)], vec!["a"], 0),
            ("unknown and not there", vec![sent("a", 0, None)], vec![], 0),
            (
                "refused, then taken",
                vec![refused("a"), sent("a", 20, Some(30))],
                vec!["a"],
                0,
            ),
            ("out of nowhere", vec![], vec!["a"], 1),
        ] {
            let found = check(&history(attempts), &finals(&records));
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
        let mut wrong = sent("a", 0, Some(10));
        wrong.wrong = true;
        let found = check(&history(vec![wrong]), &finals(&["a"]));
        assert_eq!(found.len(), 1, "{found:?}");
    }
}

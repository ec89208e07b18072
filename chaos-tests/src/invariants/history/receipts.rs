//! **Receipts tell the truth.** Whoever sends a signal again gets the first answer, whole, and marked as a duplicate when the
//! first had been given before; and at the position that a receipt names stands the decision that it names, of that signal,
//! which did what the receipt says.

use crate::history::{Finals, History, Told};
use crate::invariants::receipts::true_of;
use sojourn_client::Receipt;

fn bare(receipt: &Receipt) -> Receipt {
    Receipt {
        duplicate: false,
        ..receipt.clone()
    }
}

/// The receipts that differ from one another or from the records.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for ((customer, id), attempts) in history.by_signal() {
        let name = history.name(customer);
        let mut given: Vec<_> = attempts
            .iter()
            .filter_map(|a| Some((a, a.told.recorded()?)))
            .collect();
        given.sort_by_key(|(a, _)| a.ended);
        let Some((first, answer)) = given.first() else {
            continue;
        };
        for (later, again) in &given[1..] {
            if bare(again) != bare(answer) {
                broken.push(format!(
                    "receipts: signal {id} of {name} was answered {answer:?}, and again {again:?}"
                ));
            } else if later.begun > first.ended && !again.duplicate {
                broken.push(format!(
                    "receipts: signal {id} of {name} was answered at {} µs, sent again at {} µs and not called a duplicate",
                    first.ended, later.begun
                ));
            }
        }
        let forgotten = attempts
            .iter()
            .find(|a| a.begun > first.ended && matches!(&a.told, Told::Receipt(r) if r.no_match));
        if let Some(forgotten) = forgotten {
            broken.push(format!(
                "receipts: signal {id} of {name} was answered at {} µs, sent again at {} µs and concerned nobody",
                first.ended, forgotten.begun
            ));
        }
        if let Err(error) = true_of(&name, answer, finals.of(customer)) {
            broken.push(format!("receipts: {error:#}"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    #[test]
    fn another_answer_and_another_record_are_found() {
        let first = sent("a", 0, Some(10));
        let again = |change: fn(&mut Receipt)| {
            let mut again = sent("a", 20, Some(30));
            if let Told::Receipt(receipt) = &mut again.told {
                receipt.duplicate = true;
                change(receipt);
            }
            vec![first.clone(), again]
        };
        for (what, attempts, records, wanted) in [
            ("the same", again(|_| ()), vec!["a"], 0),
            ("no duplicate", again(|r| r.duplicate = false), vec!["a"], 1),
            ("another fate", again(|r| r.parts.clear()), vec!["a"], 1),
            ("nobody's", again(|r| r.no_match = true), vec!["a"], 1),
            ("not there", vec![first.clone()], vec![], 1),
            ("elsewhere", vec![first.clone()], vec!["b", "a"], 1),
        ] {
            let found = check(&history(attempts), &finals(&records));
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
    }
}

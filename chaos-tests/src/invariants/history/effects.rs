//! **Effects owed are effects settled.** Every webhook that a timeline says is owed arrived, at least once, after it was
//! decided, under one key and with one body, and was settled; and none arrived that no timeline owes.

use crate::history::{Finals, History};
use crate::hook::Got;
use crate::invariants::commit_then_act::acted;
use crate::invariants::events;
use sojourn_client::wire::event::{What, action_outcome::Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// What was not done, not owed, or done otherwise.
pub fn check(history: &History, finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    // the key: execution, number of the event, place in its list
    let mut arrived: BTreeMap<&str, Vec<Got>> = BTreeMap::new();
    for got in &finals.got {
        let execution = got.key.split('.').next().unwrap_or_default();
        arrived.entry(execution).or_default().push(got.clone());
    }
    for customer in finals.timelines.keys() {
        let name = history.name(*customer);
        for (execution, entries) in finals.executions(*customer) {
            let got = arrived.remove(execution).unwrap_or_default();
            if let Err(error) = acted(&name, execution, &entries, &got, finals.ahead) {
                broken.push(format!("effects: {error:#}"));
            }
            let (mut owed, mut ended) = (BTreeSet::new(), BTreeMap::new());
            for (number, _, what) in events(&entries) {
                match what {
                    What::Action(action) if action.kind == "webhook" => {
                        owed.insert(number);
                    }
                    What::Settled(settled) => {
                        ended.insert(settled.action, settled.outcome.and_then(|o| o.outcome));
                    }
                    _ => {}
                }
            }
            for number in owed {
                match ended.get(&number) {
                    Some(Some(Outcome::Done(_))) => {}
                    Some(other) => broken.push(format!(
                        "effects: {name}: action {number} of {execution} is settled as {other:?}"
                    )),
                    None => broken.push(format!(
                        "effects: {name}: action {number} of {execution} is owed and never settled"
                    )),
                }
            }
        }
    }
    for (execution, got) in arrived {
        broken.push(format!(
            "effects: {} webhooks of execution {execution:?} arrived, of which there is no timeline",
            got.len()
        ));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::made::*;
    use super::*;

    #[test]
    fn what_is_not_done_and_what_is_not_owed_is_found() {
        type Change = fn(&mut Finals);
        let cases: [(&str, Change, usize); 8] = [
            ("done", |_| (), 0),
            ("twice, the same", |f| f.got.push(f.got[0].clone()), 0),
            // by what is settled as done
            ("never arrived", |f| f.got.clear(), 1),
            (
                "never settled",
                |f| drop_event(f, |w| matches!(w, What::Settled(_))),
                1,
            ),
            // it arrived all the same; and the result has nothing to be of
            (
                "never owed",
                |f| drop_event(f, |w| matches!(w, What::Action(_))),
                1,
            ),
            ("before it was decided", |f| f.got[0].at = 1, 1),
            (
                "with another body",
                |f| f.got[0].body = serde_json::json!(7),
                1,
            ),
            ("of nobody", |f| f.got[0].key = "else-1.1.0".into(), 2),
        ];
        for (what, change, wanted) in cases {
            let mut finals = with_effect();
            change(&mut finals);
            let found = check(&history(Vec::new()), &finals);
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
        let mut keys = with_effect();
        let mut other = keys.got[0].clone();
        other.key.push('7');
        keys.got.push(other);
        let found = check(&history(Vec::new()), &keys);
        assert_eq!(found.len(), 1, "two keys: {found:?}");
    }
}

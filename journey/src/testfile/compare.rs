//! What a step expects against what there is after it.

use super::form::{Expect, Step};
use super::{Did, Running, span, time};
use crate::execution::Execution;
use crate::owed::next_due;
use crate::simulate::Key;
use crate::value::Value;
use crate::why::{Waiting, past, why};
use std::collections::BTreeMap;

impl Running<'_> {
    pub(super) fn compare(
        &self,
        step: &Step,
        did: &Did,
        from: usize,
    ) -> Result<Vec<String>, String> {
        let Some(expect) = &step.expect else {
            // What was not announced is no part of a test that passes.
            let refused = did.refused.iter().map(|text| format!("refused: {text}"));
            let incidents = did.incidents.iter().map(|text| unexpected(text));
            return Ok(refused.chain(incidents).collect());
        };
        let mut wrong = Vec::new();
        let mut differs = |what: &str, expected: &str, found: &str| {
            if expected != found {
                wrong.push(format!("{what}: expected `{expected}`, found `{found}`"));
            }
        };
        let state = self.execution(step)?;
        if let Some(receipt) = &expect.receipt {
            differs(
                "receipt",
                receipt,
                did.receipt.as_deref().unwrap_or("no signal"),
            );
        }
        let none = "no execution";
        if let Some(stage) = &expect.stage {
            differs(
                "stage",
                stage,
                state.map_or(none, |s| s.visit.stage.as_str()),
            );
        }
        if let Some(status) = &expect.status {
            differs("status", status, state.map_or(none, |s| s.status.word()));
        }
        if let Some(outcome) = &expect.outcome {
            differs(
                "outcome",
                outcome,
                state.map_or(none, |s| s.outcome.as_deref().unwrap_or("none")),
            );
        }
        if let Some(due) = &expect.due {
            let expected = time(due).or_else(|_| span(due).map(|s| self.start.plus(s)))?;
            let found = state
                .and_then(next_due)
                .map_or_else(|| "no timer".to_owned(), |t| t.to_string());
            differs("due", &expected.to_string(), &found);
        }
        wrong.extend(self.values(expect, state)?);
        wrong.extend(self.goal(expect, state)?);
        wrong.extend(incidents(expect, did, state));
        match (&expect.refused, &did.refused) {
            (Some(part), Some(text)) if text.contains(part.as_str()) => {}
            (Some(part), Some(text)) => wrong.push(format!(
                "refused: expected a text with `{part}`, found `{text}`"
            )),
            (Some(part), None) => wrong.push(format!(
                "refused: expected a text with `{part}`, it was taken"
            )),
            (None, Some(text)) => wrong.push(format!("refused: {text}")),
            (None, None) => {}
        }
        if let Some(actions) = &expect.actions {
            wrong.extend(self.actions(actions, from));
        }
        if let Some(waits) = &expect.waits {
            wrong.extend(self.waits(waits, state));
        }
        Ok(wrong)
    }

    fn actions(&self, expected: &[String], from: usize) -> Option<String> {
        let made = &self.simulation.actions()[from..];
        let same = expected.len() == made.len()
            && expected
                .iter()
                .zip(made)
                .all(|(e, m)| *e == m.action.kind || *e == m.action.place);
        let found: Vec<String> = made
            .iter()
            .map(|m| format!("{} ({})", m.action.kind, m.action.place))
            .collect();
        (!same).then(|| {
            format!(
                "actions: expected [{}], found [{}]",
                expected.join(", "),
                found.join(", ")
            )
        })
    }

    fn waits(&self, expected: &[String], state: Option<&Execution>) -> Option<String> {
        let now = self.simulation.clock().unwrap_or(self.start);
        let mut kinds: Vec<String> = Vec::new();
        if let Some((state, customer)) =
            state.and_then(|s| Some((s, self.simulation.customer(&s.customer)?)))
        {
            let ways = why(self.compiled, state, customer, now).ways.into_iter();
            for way in ways.filter(|way| past(&way.waits_for, now).is_none()) {
                kinds.extend(way.waits_for.into_iter().filter_map(|w| match w {
                    Waiting::Signal { kind, .. } | Waiting::Absence { kind, .. } => Some(kind),
                    Waiting::Time { .. } | Waiting::Condition | Waiting::ByHand => None,
                }));
            }
        }
        kinds.sort();
        kinds.dedup();
        let missing: Vec<&str> = expected
            .iter()
            .filter(|e| !kinds.contains(e))
            .map(String::as_str)
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "waits: expected {}, found [{}]",
                missing.join(", "),
                kinds.join(", ")
            )
        })
    }

    /// Variables, facts and kept values, by name.
    fn values(&self, expect: &Expect, state: Option<&Execution>) -> Result<Vec<String>, String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str,
                           expected: &Option<BTreeMap<String, serde_json::Value>>,
                           found: &dyn Fn(&Execution, &str) -> Option<Value>|
         -> Result<(), String> {
            for (name, value) in expected.iter().flatten() {
                let expected = Value::from_json(value.to_string().as_bytes())?;
                let found = state.and_then(|s| found(s, name));
                if !found.as_ref().is_some_and(|found| found.same(&expected)) {
                    wrong.push(format!(
                        "{what}.{name}: expected `{}`, found `{}`",
                        expected.to_json(),
                        found.map_or("nothing".to_owned(), |found| found.to_json())
                    ));
                }
            }
            Ok(())
        };
        compare("vars", &expect.vars, &|s, name| s.vars.get(name).cloned())?;
        compare("kept", &expect.kept, &|s, name| s.kept.get(name).cloned())?;
        compare("facts", &expect.facts, &|s, path| {
            s.facts.get(path).map(|fact| fact.value.clone())
        })?;
        Ok(wrong)
    }

    fn goal(&self, expect: &Expect, state: Option<&Execution>) -> Result<Option<String>, String> {
        let Some(expected) = &expect.goal else {
            return Ok(None);
        };
        if !["in_time", "late", "none"].contains(&expected.as_str()) {
            return Err(format!(
                "`goal` is {:?}: expected in_time, late or none",
                crate::problem::short(expected)
            ));
        }
        let goals = &self.noted.borrow().goals;
        let found = match state.and_then(|s| goals.get(&Key::of(s))) {
            Some(true) => "in_time",
            Some(false) => "late",
            None => "none",
        };
        Ok((found != expected).then(|| format!("goal: expected `{expected}`, found `{found}`")))
    }
}

/// Incidents that were expected and are not there, and those that were not. One that has stood since an earlier step is
/// there, and is told once.
fn incidents(expect: &Expect, did: &Did, state: Option<&Execution>) -> Vec<String> {
    let Some(part) = &expect.incident else {
        return did.incidents.iter().map(|text| unexpected(text)).collect();
    };
    let standing = state.and_then(|s| s.incident.as_ref());
    let standing = standing.map(|i| format!("{}: {}", i.place, i.message));
    let all = did.incidents.iter().chain(&standing);
    let mut wrong: Vec<String> = did
        .incidents
        .iter()
        .filter(|text| !text.contains(part.as_str()))
        .map(|text| unexpected(text))
        .collect();
    if !all.clone().any(|text| text.contains(part.as_str())) {
        let found = standing.unwrap_or_else(|| "none".to_owned());
        wrong.push(format!(
            "incident: expected one with `{part}`, found `{found}`"
        ));
    }
    wrong
}

fn unexpected(incident: &str) -> String {
    format!("an incident that was not expected: {incident}")
}

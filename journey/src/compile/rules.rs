//! What belongs to the journey as a whole: entry, exit, goal, deadlines, re-entry, variables.

use super::{Builder, MAX_LISTED, MAX_VARIABLES, listed};
use crate::compiled::{Deadline, Entry, Exit, Goal, Reentry, Variable, VariableKind};
use crate::definition::{self, Several};
use crate::problem::nearest;
use crate::time::Span;
use std::collections::BTreeSet;

impl Builder<'_> {
    pub(super) fn entry(&mut self, journey: &definition::Journey) -> Option<Vec<Entry>> {
        let rules = listed(journey.entry.as_ref());
        self.at_most(rules.len(), MAX_LISTED, "entry rules", &journey.place);
        let entries: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(i, rule)| {
                let on = self.kinds(&rule.on.0);
                let (where_, when) = (
                    self.test(rule.where_.as_ref()),
                    self.test(rule.when.as_ref()),
                );
                Some(Entry {
                    place: format!("entry/{i}"),
                    on,
                    where_: where_?,
                    when: when?,
                })
            })
            .collect();
        entries.into_iter().collect()
    }

    pub(super) fn exit(&mut self, journey: &definition::Journey) -> Option<Vec<Exit>> {
        let rules = listed(journey.exit.as_ref());
        self.at_most(rules.len(), MAX_LISTED, "exit rules", &journey.place);
        let exits: Vec<_> = rules
            .iter()
            .enumerate()
            .map(|(i, rule)| {
                let on = rule.on.as_ref().map(|on| self.kinds(&on.0)).unwrap_or_default();
                let (where_, when) = (self.test(rule.where_.as_ref()), self.test(rule.when.as_ref()));
                if on.is_empty() && rule.when.is_none() {
                    self.problems.error(&rule.place, "an exit rule needs `on`, `when`, or both; as it stands it would end every execution");
                }
                if on.is_empty() && rule.where_.is_some() {
                    self.problems.error(&rule.place, "`where` tests the signal, but this exit rule names none with `on`; use `when`");
                }
                Some(Exit {
                    place: format!("exit/{i}"),
                    on,
                    where_: where_?,
                    when: when?,
                    outcome: rule.outcome.as_ref().map(|o| o.text.clone()),
                })
            })
            .collect();
        exits.into_iter().collect()
    }

    pub(super) fn goal(&mut self, journey: &definition::Journey) -> Option<Option<Goal>> {
        let Some(goal) = &journey.goal else {
            return Some(None);
        };
        let (stage, within) = (
            self.stage_named(&goal.stage),
            self.optional_wait(goal.within.as_ref()),
        );
        Some(Some(Goal {
            stage: stage?,
            within: within?,
        }))
    }

    /// The deadlines of a stage, or of the journey when `stage` is empty.
    pub(super) fn deadlines(
        &mut self,
        stage: &str,
        list: Option<&Several<definition::Deadline>>,
    ) -> Option<Vec<Deadline>> {
        let list = list.map_or(&[][..], |several| several.0.as_slice());
        if let Some(one_too_many) = list.get(MAX_LISTED) {
            self.at_most(
                list.len(),
                MAX_LISTED,
                "deadlines in one list",
                &one_too_many.place,
            );
        }
        let deadlines: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(i, deadline)| {
                let place = format!("{stage}deadline/{i}");
                let after = self.wait(&deadline.after);
                let escalate =
                    self.actions(&format!("{place}/escalate"), deadline.escalate.as_ref());
                let to = match &deadline.to {
                    Some(name) => Some(self.stage_named(name)?),
                    None => None,
                };
                Some(Deadline {
                    place,
                    after: after?,
                    escalate: escalate?,
                    to,
                })
            })
            .collect();
        deadlines.into_iter().collect()
    }

    pub(super) fn identify_by(&mut self, journey: &definition::Journey) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let names = listed(journey.identify_by.as_ref());
        self.at_most(names.len(), MAX_LISTED, "identifiers", &journey.place);
        for name in names {
            if !seen.insert(&name.text) {
                self.problems.error(
                    &name.place,
                    format!("the identifier `{}` stands here a second time", name.text),
                );
            }
        }
        names.iter().map(|name| name.text.clone()).collect()
    }

    pub(super) fn reentry(&mut self, rule: Option<&definition::Reentry>) -> Option<Reentry> {
        let Some(rule) = rule else {
            return Some(Reentry::AfterExit { wait: Span(0) });
        };
        let wait = match &rule.wait {
            Some(wait) => {
                let exact = self.wait(wait)?.exact();
                if exact.is_none() {
                    self.problems.error(
                        wait.place(),
                        "the wait before re-entry is an exact span like `1d`",
                    );
                }
                exact?
            }
            None => Span(0),
        };
        let mode = rule
            .mode
            .as_ref()
            .map_or("after_exit", |mode| mode.text.as_str());
        let made = match mode {
            "never" => Reentry::Never,
            "after_exit" => return Some(Reentry::AfterExit { wait }),
            "concurrent" => Reentry::Concurrent,
            other => {
                let place = rule.mode.as_ref().map_or(&rule.place, |mode| &mode.place);
                let message = format!(
                    "`{}` is no way of re-entry; expected never, after_exit or concurrent",
                    crate::problem::short(other)
                );
                match nearest(other, ["never", "after_exit", "concurrent"]) {
                    Some(near) => self.problems.error_with_help(
                        place,
                        message,
                        format!("did you mean `{near}`?"),
                    ),
                    None => self.problems.error(place, message),
                }
                return None;
            }
        };
        if let Some(wait) = &rule.wait {
            self.problems.error(
                wait.place(),
                format!("`wait` goes with after_exit only; this rule says {mode}"),
            );
        }
        Some(made)
    }

    pub(super) fn variables(&mut self, journey: &definition::Journey) -> Option<Vec<Variable>> {
        let pairs = journey
            .variables
            .as_ref()
            .map_or(&[][..], |pairs| pairs.0.as_slice());
        self.at_most(pairs.len(), MAX_VARIABLES, "variables", &journey.place);
        let variables: Vec<_> = pairs
            .iter()
            .map(|(name, variable)| {
                let kind = match variable.kind.as_ref().map_or("any", |kind| kind.text.as_str()) {
                    "text" => VariableKind::Text,
                    "number" => VariableKind::Number,
                    "bool" => VariableKind::Bool,
                    "time" => VariableKind::Time,
                    "any" => VariableKind::Any,
                    other => {
                        let place = variable.kind.as_ref().map_or(&variable.place, |kind| &kind.place);
                        let message = format!("`{}` is no type of a variable; expected text, number, bool, time or any", crate::problem::short(other));
                        self.problems.error(place, message);
                        VariableKind::Any
                    }
                };
                let from = self.optional(variable.from.as_ref())?;
                Some(Variable { name: name.text.clone(), kind, from })
            })
            .collect();
        variables.into_iter().collect()
    }
}

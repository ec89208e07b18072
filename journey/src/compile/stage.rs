//! Stages and their transitions.

use super::{Builder, MAX_LISTED, MAX_TRANSITIONS, listed};
use crate::compiled::{Repeat, Stage, Transition, Trigger};
use crate::definition::{self, Place, Span};
use std::collections::BTreeSet;

impl Builder<'_> {
    pub(super) fn stage(&mut self, stage: &definition::Stage) -> Option<Stage> {
        let name = stage.stage.text.clone();
        let prefix = format!("stage/{name}/");
        let enter = self.actions(&format!("{prefix}enter"), stage.enter.as_ref());
        let leave = self.actions(&format!("{prefix}leave"), stage.leave.as_ref());
        let repeats = self.repeats(&prefix, stage);
        let stalled_after = self.optional_wait(stage.stalled_after.as_ref());
        let deadlines = self.deadlines(&prefix, stage.deadline.as_ref());
        let ways = listed(stage.transitions.as_ref());
        self.at_most(ways.len(), MAX_TRANSITIONS, "transitions", &stage.place);
        let transitions: Vec<_> = ways
            .iter()
            .enumerate()
            .map(|(i, way)| self.transition(format!("{prefix}transition/{i}"), way))
            .collect();
        if stage.end.is_some() {
            self.an_end_has_no_ways(stage);
        }
        Some(Stage {
            title: stage
                .title
                .as_ref()
                .map_or_else(|| name.clone(), |title| title.text.clone()),
            name,
            description: stage
                .description
                .as_ref()
                .map(|d| d.text.clone())
                .unwrap_or_default(),
            end: stage.end.as_ref().map(|end| end.text.clone()),
            enter: enter?,
            leave: leave?,
            repeats: repeats?,
            stalled_after: stalled_after?,
            deadlines: deadlines?,
            transitions: transitions.into_iter().collect::<Option<_>>()?,
        })
    }

    /// An execution ends where it reaches an end: nothing that needs a stay can stand there.
    fn an_end_has_no_ways(&mut self, stage: &definition::Stage) {
        let present = [
            (
                "transitions",
                stage.transitions.as_ref().is_some_and(|t| !t.is_empty()),
            ),
            ("leave", stage.leave.as_ref().is_some_and(|l| !l.is_empty())),
            ("repeat", stage.repeat.is_some()),
            ("deadline", stage.deadline.is_some()),
            ("stalled_after", stage.stalled_after.is_some()),
        ];
        for (key, _) in present.iter().filter(|(_, present)| *present) {
            self.problems.error(
                &stage.place,
                format!("the stage `{}` is an end, where executions do not stay, and cannot have `{key}`", stage.stage.text),
            );
        }
    }

    fn repeats(&mut self, prefix: &str, stage: &definition::Stage) -> Option<Vec<Repeat>> {
        let list = stage
            .repeat
            .as_ref()
            .map_or(&[][..], |several| several.0.as_slice());
        if let Some(one_too_many) = list.get(MAX_LISTED) {
            self.at_most(list.len(), MAX_LISTED, "repeats", &one_too_many.place);
        }
        let repeats: Vec<_> = list
            .iter()
            .enumerate()
            .map(|(i, repeat)| {
                let place = format!("{prefix}repeat/{i}");
                let every = self.rhythm(&repeat.every);
                let actions = self.actions(&format!("{place}/do"), Some(&repeat.actions));
                Some(Repeat {
                    place,
                    every: every?,
                    at_most: repeat.at_most.as_ref().map(|n| n.number),
                    actions: actions?,
                })
            })
            .collect();
        repeats.into_iter().collect()
    }

    fn transition(&mut self, place: String, way: &definition::Transition) -> Option<Transition> {
        let to = self.stage_named(&way.to);
        let trigger = self.trigger(way);
        let (where_, when) = (self.test(way.where_.as_ref()), self.test(way.when.as_ref()));
        let keep: Vec<_> = way
            .keep
            .as_ref()
            .map_or(&[][..], |pairs| pairs.0.as_slice())
            .iter()
            .map(|(name, value)| Some((name.text.clone(), self.expression(value)?)))
            .collect();
        self.at_most(keep.len(), MAX_LISTED, "kept values", &way.place);
        let actions = self.actions(&format!("{place}/do"), way.actions.as_ref());
        let trigger = trigger?;
        self.tests_fit(way, &trigger);
        let when = when?;
        if matches!(trigger, Trigger::Condition)
            && let Some(when) = &when
            && when.uses("now")
        {
            let at = way.when.as_ref().map_or(&way.place, |when| &when.place);
            self.problems.error_with_help(
                at,
                "`now` in a transition without a trigger: nothing would wake it",
                "use `after`, `at` or a deadline",
            );
        }
        Some(Transition {
            place,
            to: to?,
            trigger,
            where_: where_?,
            when,
            keep: keep.into_iter().collect::<Option<_>>()?,
            actions: actions?,
        })
    }

    /// `where` tests a signal, so there must be one.
    fn tests_fit(&mut self, way: &definition::Transition, trigger: &Trigger) {
        let Some(where_) = &way.where_ else { return };
        if matches!(
            trigger,
            Trigger::After(_) | Trigger::At(_) | Trigger::Condition | Trigger::ByHand
        ) {
            self.problems.error_with_help(
                &where_.place,
                "`where` tests a signal, and this transition names none",
                "use `when`, which tests what is known",
            );
        }
    }

    fn trigger(&mut self, way: &definition::Transition) -> Option<Trigger> {
        let delay = if way.absent.is_none() {
            way.after.as_ref()
        } else {
            None
        };
        let present: Vec<&str> = [
            ("on", way.on.is_some()),
            ("all", way.all.is_some()),
            ("sequence", way.sequence.is_some()),
            ("absent", way.absent.is_some()),
            ("after", delay.is_some()),
            ("at", way.at.is_some()),
        ]
        .iter()
        .filter(|(_, present)| *present)
        .map(|(key, _)| *key)
        .collect();
        if present.len() > 1 {
            self.problems.error(
                &way.place,
                format!(
                    "a transition has at most one trigger, found {}; write one transition for each",
                    present.join(" and ")
                ),
            );
            return None;
        }
        let bounded = matches!(present.first(), Some(&("all" | "sequence" | "absent")));
        if let (Some(within), false) = (&way.within, bounded) {
            self.problems.error(
                within.place(),
                "`within` goes with all, sequence and absent only",
            );
            return None;
        }
        let within = self.optional_wait(way.within.as_ref());
        if let Some(on) = &way.on {
            let kinds = self.kinds(&on.0);
            self.distinct(&on.0, "on");
            return Some(Trigger::Any(kinds));
        }
        if let Some(all) = &way.all {
            self.pattern(all, "all", &way.place);
            self.distinct(all, "all");
            return Some(Trigger::All {
                kinds: self.kinds(all),
                within: within?,
            });
        }
        if let Some(sequence) = &way.sequence {
            self.pattern(sequence, "sequence", &way.place);
            return Some(Trigger::Sequence {
                kinds: self.kinds(sequence),
                within: within?,
            });
        }
        if let Some(absent) = &way.absent {
            return self.absent(way, absent, within);
        }
        if let Some(delay) = delay {
            return self.wait(delay).map(Trigger::After);
        }
        if let Some(at) = &way.at {
            return self.expression(at).map(Trigger::At);
        }
        Some(if way.when.is_some() {
            Trigger::Condition
        } else {
            Trigger::ByHand
        })
    }

    fn absent(
        &mut self,
        way: &definition::Transition,
        absent: &definition::SignalType,
        within: Option<Option<crate::wait::Wait>>,
    ) -> Option<Trigger> {
        let mut kinds = self.kinds(std::slice::from_ref(absent));
        let after = match &way.after {
            None => None,
            Some(Span::Exact(text)) => {
                let kind = definition::SignalType {
                    text: text.text.clone(),
                    place: text.place.clone(),
                };
                if !crate::identifier::is_name(&kind.text) || crate::wait::exact(&kind.text).is_ok()
                {
                    self.problems.error_with_help(
                        &kind.place,
                        format!("`{}` is no signal type; beside `absent`, `after` is the signal at which the time starts", crate::problem::short(&kind.text)),
                        "the time itself is `within`",
                    );
                    return None;
                }
                self.kinds(std::slice::from_ref(&kind)).pop()
            }
            Some(Span::Calendar(calendar)) => {
                self.problems.error(
                    &calendar.place,
                    "beside `absent`, `after` is the signal type at which the time starts",
                );
                return None;
            }
        };
        match within? {
            Some(within) => Some(Trigger::Absent {
                kind: kinds.pop()?,
                after,
                within,
            }),
            None => {
                self.problems.error(
                    &way.place,
                    "`absent` needs `within`: the time in which the signal did not come",
                );
                None
            }
        }
    }

    fn pattern(&mut self, kinds: &[definition::SignalType], key: &str, place: &Place) {
        if kinds.is_empty() {
            self.problems.error(
                place,
                format!("`{key}` is empty; at least one signal type is expected"),
            );
        }
        self.at_most(
            kinds.len(),
            MAX_LISTED,
            "signal types in one pattern",
            place,
        );
    }

    fn distinct(&mut self, kinds: &[definition::SignalType], key: &str) {
        let mut seen = BTreeSet::new();
        for kind in kinds {
            if !seen.insert(&kind.text) {
                self.problems.error(
                    &kind.place,
                    format!("`{key}` names `{}` a second time", kind.text),
                );
            }
        }
    }
}

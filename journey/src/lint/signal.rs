//! Where `signal` is asked for and none is there: what time, a condition or a hand brings about sees no signal. What can
//! never work is an error, for it would never open, or be an incident of every execution that comes to it.

use super::templates;
use crate::compiled::{Action, Compiled, Trigger};
use crate::definition::{self, Place, Problems};
use crate::expr::Expression;

pub(super) fn lint(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    let mut lint = Signals { problems };
    for (written, rule) in definition.exit.iter().flatten().zip(&compiled.exit) {
        if let (true, Some(when)) = (rule.on.is_empty(), &rule.when)
            && when.uses("signal")
        {
            lint.problems.warning(
                &written.place,
                "this exit rule names no signal, so it is tested with whichever made something known, or with none",
                "name the signals with `on`, or keep what is needed in a variable and test `vars.…`",
            );
        }
    }
    lint.escalations(definition.deadline.as_ref(), &compiled.deadlines);
    for (written, stage) in definition.stages.iter().zip(&compiled.stages) {
        lint.escalations(written.deadline.as_ref(), &stage.deadlines);
        let repeats = written.repeat.iter().flat_map(|several| &several.0);
        for (written, repeat) in repeats.zip(&stage.repeats) {
            lint.actions(&written.actions, &repeat.actions, "a repeat has no signal");
        }
        for (written, way) in written.transitions.iter().flatten().zip(&stage.transitions) {
            lint.transition(written, way);
        }
    }
}

struct Signals<'p> {
    problems: &'p mut Problems,
}

impl Signals<'_> {
    fn escalations(
        &mut self,
        written: Option<&definition::Several<definition::Deadline>>,
        deadlines: &[crate::compiled::Deadline],
    ) {
        let written = written.iter().flat_map(|several| &several.0);
        for (written, deadline) in written.zip(deadlines) {
            let actions = written.escalate.as_deref().unwrap_or_default();
            self.actions(actions, &deadline.escalate, "a deadline has no signal");
        }
    }

    fn transition(&mut self, written: &definition::Transition, way: &crate::compiled::Transition) {
        let why = match way.trigger {
            Trigger::Any(_) | Trigger::All { .. } | Trigger::Sequence { .. } => return,
            Trigger::After(_) | Trigger::At(_) | Trigger::Absent { .. } => {
                "time opens this transition, so there is no `signal`"
            }
            Trigger::Condition => "no signal opens this transition, so there is no `signal`",
            Trigger::ByHand => "this transition is by hand only, so there is no `signal`",
        };
        if let Some(when) = &way.when {
            let place = written.when.as_ref().map_or(&written.place, |w| &w.place);
            self.asks(
                when,
                place,
                when.never_holds_without("signal"),
                &format!("{why} and the condition never holds"),
                &format!("{why}, and the condition asks for it"),
            );
        }
        let kept = written.keep.iter().flat_map(|pairs| &pairs.0);
        for ((name, written), (_, value)) in kept.zip(&way.keep) {
            self.asks(
                value,
                &written.place,
                false,
                "",
                &format!("{why}, and `{}` may never be kept", name.text),
            );
        }
        let actions = written.actions.as_deref().unwrap_or_default();
        self.actions(actions, &way.actions, why);
    }

    fn actions(&mut self, written: &[definition::Action], actions: &[Action], why: &str) {
        for (written, action) in written.iter().zip(actions) {
            for expression in templates(action).iter().flat_map(|t| t.expressions()) {
                self.asks(
                    expression,
                    &written.place,
                    expression.never_known_without("signal"),
                    &format!("{why}, and the action can never be done"),
                    &format!("{why}, and the action asks for it"),
                );
            }
        }
    }

    /// Says what is wrong where the expression asks for a signal: surely so, or perhaps.
    fn asks(
        &mut self,
        expression: &Expression,
        place: &Place,
        surely: bool,
        never: &str,
        perhaps: &str,
    ) {
        const HELP: &str = "keep what is needed in a variable, and use `vars.…`";
        if surely {
            self.problems.error_with_help(place, never, HELP);
        } else if expression.uses("signal") {
            self.problems.warning(place, perhaps, HELP);
        }
    }
}

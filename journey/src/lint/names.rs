//! Names that nothing stands behind, as far as that can be known: facts come from any signal of a customer, so only what
//! can never arrive, or differs from something known by its case alone, is told.

use super::{actions, templates};
use crate::compiled::{Compiled, FactPath, Trigger};
use crate::definition::{self, Condition, Place, Problems};
use crate::expr::Expression;
use crate::problem::nearest;
use crate::wait::Wait;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn lint(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    let mut lint = Names::of(compiled, problems);
    lint.rules(definition, compiled);
    for (written, stage) in definition.stages.iter().zip(&compiled.stages) {
        lint.waits(
            &written.place,
            stage
                .stalled_after
                .iter()
                .chain(stage.deadlines.iter().map(|d| &d.after)),
        );
        lint.waits(&written.place, stage.repeats.iter().map(|r| &r.every));
        for (written, way) in written.transitions.iter().flatten().zip(&stage.transitions) {
            lint.transition(written, way);
        }
    }
    for (written, action) in actions(definition, compiled) {
        for expression in templates(action)
            .iter()
            .flat_map(|template| template.expressions())
        {
            lint.expression(expression, &written.place);
        }
    }
    lint.signals(definition, compiled);
}

struct Names<'a> {
    problems: &'a mut Problems,
    variables: BTreeMap<&'a str, bool>,
    awaited: BTreeSet<&'a str>,
    /// What signal types say of applications and objects, by their lower-case form.
    objects: BTreeMap<String, String>,
}

/// The fields of the built-in names that have a fixed list.
const FIELDS: [(&str, &[&str]); 2] = [
    ("signal", &["id", "type", "source", "time", "data"]),
    (
        "execution",
        &["stage", "visits", "entered_at", "started_at"],
    ),
];

impl<'a> Names<'a> {
    fn of(compiled: &'a Compiled, problems: &'a mut Problems) -> Names<'a> {
        let mut objects = BTreeMap::new();
        for kind in &compiled.listens {
            if let Some((object, _)) = kind.rsplit_once('.') {
                objects.insert(object.to_lowercase(), object.to_owned());
            }
        }
        let stage_actions = compiled.stages.iter().flat_map(|stage| {
            let own = stage.enter.iter().chain(&stage.leave);
            let deadlines = stage.deadlines.iter().flat_map(|d| &d.escalate);
            let repeats = stage.repeats.iter().flat_map(|r| &r.actions);
            own.chain(deadlines)
                .chain(repeats)
                .chain(stage.transitions.iter().flat_map(|t| &t.actions))
        });
        let all = stage_actions.chain(compiled.deadlines.iter().flat_map(|d| &d.escalate));
        Names {
            problems,
            variables: compiled
                .variables
                .iter()
                .map(|v| (v.name.as_str(), v.from.is_some()))
                .collect(),
            awaited: all.filter_map(|action| action.awaited.as_deref()).collect(),
            objects,
        }
    }

    fn rules(&mut self, definition: &definition::Journey, compiled: &Compiled) {
        for (written, rule) in definition.entry.iter().flatten().zip(&compiled.entry) {
            self.both(
                &written.place,
                [(&written.where_, &rule.where_), (&written.when, &rule.when)],
            );
            for (written, test) in [(&written.where_, &rule.where_), (&written.when, &rule.when)] {
                if let (Some(written), Some(test)) = (written, test) {
                    self.before_the_start(test, &written.place, "an entry rule");
                }
            }
        }
        for (written, rule) in definition.exit.iter().flatten().zip(&compiled.exit) {
            self.both(
                &written.place,
                [(&written.where_, &rule.where_), (&written.when, &rule.when)],
            );
            if let (true, Some(when)) = (rule.on.is_empty(), &rule.when)
                && when.uses("now")
            {
                self.problems.warning(
                    &written.place,
                    "`now` in an exit rule without a signal: it is tested only when something changes",
                    "use the journey's `deadline`",
                );
            }
        }
        if let (Some(written), Some(key)) = (&definition.instance_key, &compiled.instance_key) {
            self.expression(key, &written.place);
            self.before_the_start(key, &written.place, "the instance key");
        }
        let variables = definition.variables.iter().flat_map(|pairs| &pairs.0);
        for ((name, written), variable) in variables.zip(&compiled.variables) {
            match (&written.from, &variable.from) {
                (Some(written), Some(from)) => self.expression(from, &written.place),
                _ => self.problems.warning(
                    &name.place,
                    format!("nothing gives the variable `{}` a value", variable.name),
                    "say where it comes from: `from: signal.data.…`",
                ),
            }
        }
        self.waits(
            &definition.place,
            compiled.deadlines.iter().map(|d| &d.after),
        );
    }

    fn both(&mut self, place: &Place, tests: [(&Option<Condition>, &Option<Expression>); 2]) {
        for (written, test) in tests {
            if let Some(test) = test {
                self.expression(test, written.as_ref().map_or(place, |w| &w.place));
            }
        }
    }

    fn transition(&mut self, written: &definition::Transition, way: &crate::compiled::Transition) {
        self.both(
            &written.place,
            [(&written.where_, &way.where_), (&written.when, &way.when)],
        );
        let kept = written.keep.iter().flat_map(|pairs| &pairs.0);
        for ((_, written), (_, value)) in kept.zip(&way.keep) {
            self.expression(value, &written.place);
        }
        match &way.trigger {
            Trigger::At(at) => self.expression(
                at,
                written.at.as_ref().map_or(&written.place, |at| &at.place),
            ),
            Trigger::After(wait) | Trigger::Absent { within: wait, .. } => {
                self.waits(&written.place, std::iter::once(wait))
            }
            Trigger::All { within, .. } | Trigger::Sequence { within, .. } => {
                self.waits(&written.place, within.iter())
            }
            Trigger::Any(_) | Trigger::Condition | Trigger::ByHand => {}
        }
    }

    fn waits<'w>(&mut self, place: &Place, waits: impl Iterator<Item = &'w Wait>) {
        for expression in waits.filter_map(|wait| wait.expression()) {
            self.expression(expression, place);
        }
    }

    /// Before an execution starts there are no variables, facts and stages.
    fn before_the_start(&mut self, expression: &Expression, place: &Place, what: &str) {
        let early = ["vars", "execution", "action"]
            .into_iter()
            .find(|root| expression.uses(root));
        let fact = expression.mentions().first().map(ToString::to_string);
        if let Some(name) = early.map(|root| format!("{root}.…")).or(fact) {
            self.problems.warning(
                place,
                format!(
                    "`{name}` is not known before an execution has started, so {what} never sees it"
                ),
                "use `signal` and `customer`",
            );
        }
    }

    fn expression(&mut self, expression: &Expression, place: &Place) {
        for name in expression.names_alone() {
            let known = ["signal", "customer", "vars", "execution", "now", "action"];
            let help = if self.variables.contains_key(name.as_str()) {
                format!("write `vars.{name}`")
            } else {
                nearest(name, known).map_or_else(
                    || {
                        "a text stands in quotes; a fact is written `Application.Object.field`"
                            .to_owned()
                    },
                    |near| format!("did you mean `{near}`?"),
                )
            };
            self.problems
                .warning(place, format!("nothing provides `{name}`"), help);
        }
        for path in expression.builtins() {
            self.builtin(path, place);
        }
        for path in expression.mentions() {
            self.fact(path, place);
        }
    }

    fn builtin(&mut self, path: &FactPath, place: &Place) {
        let [root, field, rest @ ..] = path.0.as_slice() else {
            return;
        };
        match root.as_str() {
            "vars" => match self.variables.get(field.as_str()) {
                Some(true) => {}
                Some(false) => {} // told where the variable stands
                None => {
                    let near = nearest(field, self.variables.keys().copied());
                    let help = near.map_or_else(
                        || "declare it under `variables`".to_owned(),
                        |near| format!("did you mean `vars.{near}`?"),
                    );
                    self.problems.warning(
                        place,
                        format!("nothing provides `{path}`: there is no such variable"),
                        help,
                    );
                }
            },
            "action" => {
                if !self.awaited.contains(field.as_str()) || rest != ["status"] {
                    let near = nearest(field, self.awaited.iter().copied());
                    let help = near.map_or_else(
                        || {
                            "give an action `await: NAME`; its result is `action.NAME.status`"
                                .to_owned()
                        },
                        |near| format!("did you mean `action.{near}.status`?"),
                    );
                    self.problems
                        .warning(place, format!("nothing provides `{path}`"), help);
                }
            }
            root => {
                let Some((_, fields)) = FIELDS.iter().find(|(name, _)| *name == root) else {
                    return;
                };
                if !fields.contains(&field.as_str()) {
                    let near = nearest(field, fields.iter().copied());
                    let help = near.map_or_else(
                        || format!("its fields are {}", fields.join(", ")),
                        |near| format!("did you mean `{root}.{near}`?"),
                    );
                    self.problems
                        .warning(place, format!("nothing provides `{path}`"), help);
                }
            }
        }
    }

    /// A fact whose application and object differ by case alone from those of a signal type that the journey names.
    fn fact(&mut self, path: &FactPath, place: &Place) {
        for length in (2..path.0.len()).rev() {
            let object = path.0[..length].join(".");
            let Some(known) = self.objects.get(&object.to_lowercase()) else {
                continue;
            };
            if *known != object {
                let help = format!("case counts: signals of `{known}` make facts of `{known}`");
                self.problems.warning(place, format!("`{path}` differs by its case alone from the signals of `{known}` that the journey names"), help);
            }
            return;
        }
    }

    /// `action.failed` comes from actions, so there must be one.
    fn signals(&mut self, definition: &definition::Journey, compiled: &Compiled) {
        if compiled.listens.contains("action.failed")
            && actions(definition, compiled).next().is_none()
        {
            self.problems.warning(
                &definition.place,
                "nothing provides the signal `action.failed`: the journey has no actions",
                "take out the rules that name it",
            );
        }
    }
}

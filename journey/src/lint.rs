//! What is allowed and most likely wrong. Knows a compiled journey and where its parts stand in the text.
//!
//! Most of it are warnings: the author may know better. What is certain never to work is an error: a loop that never
//! waits, a condition that can never hold, an action that can never be done.

mod flow;
mod names;
mod order;
mod signal;

use crate::compiled::{Action, Body, Compiled};
use crate::definition::{self, Problems};
use crate::limits::CONNECTED_ACTIONS;
use crate::template::Template;

/// Notes what looks wrong.
pub(crate) fn lint(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    if compiled.entry.is_empty() {
        problems.warning(
            &definition.place,
            "nothing starts an execution",
            "add a rule to `entry`",
        );
    }
    flow::lint(definition, compiled, problems);
    order::lint(definition, compiled, problems);
    names::lint(definition, compiled, problems);
    signal::lint(definition, compiled, problems);
    for (written, action) in actions(definition, compiled) {
        if !CONNECTED_ACTIONS.contains(&action.kind.as_str()) {
            problems.warning(
                &written.place,
                format!(
                    "the action `{}` is recorded and skipped: not connected",
                    action.kind
                ),
                format!("done are {}", CONNECTED_ACTIONS.join(" and ")),
            );
        }
    }
}

/// All actions, as written and as compiled.
fn actions<'a>(
    definition: &'a definition::Journey,
    compiled: &'a Compiled,
) -> impl Iterator<Item = (&'a definition::Action, &'a Action)> {
    let mut all: Vec<(&[definition::Action], &[Action])> = Vec::new();
    let list =
        |written: &'a Option<Vec<definition::Action>>| written.as_deref().unwrap_or_default();
    let deadlines = |written: &'a Option<definition::Several<definition::Deadline>>| {
        written
            .as_ref()
            .map_or(&[][..], |several| several.0.as_slice())
    };
    for (written, deadline) in deadlines(&definition.deadline)
        .iter()
        .zip(&compiled.deadlines)
    {
        all.push((list(&written.escalate), &deadline.escalate));
    }
    for (written, stage) in definition.stages.iter().zip(&compiled.stages) {
        all.push((list(&written.enter), &stage.enter));
        all.push((list(&written.leave), &stage.leave));
        for (written, deadline) in deadlines(&written.deadline).iter().zip(&stage.deadlines) {
            all.push((list(&written.escalate), &deadline.escalate));
        }
        let repeats = written
            .repeat
            .as_ref()
            .map_or(&[][..], |several| several.0.as_slice());
        for (written, repeat) in repeats.iter().zip(&stage.repeats) {
            all.push((&written.actions, &repeat.actions));
        }
        for (written, way) in written
            .transitions
            .as_deref()
            .unwrap_or_default()
            .iter()
            .zip(&stage.transitions)
        {
            all.push((list(&written.actions), &way.actions));
        }
    }
    all.into_iter()
        .flat_map(|(written, compiled)| written.iter().zip(compiled))
}

/// The texts of an action.
fn templates(action: &Action) -> Vec<&Template> {
    fn gather<'a>(body: &'a Body, into: &mut Vec<&'a Template>) {
        match body {
            Body::Plain(_) => {}
            Body::Text(template) => into.push(template),
            Body::List(list) => list.iter().for_each(|body| gather(body, into)),
            Body::Map(map) => map.values().for_each(|body| gather(body, into)),
        }
    }
    let mut all: Vec<&Template> = action.to.iter().collect();
    gather(&action.body, &mut all);
    all
}

#[cfg(test)]
mod tests;

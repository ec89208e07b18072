//! Where executions can come and where they stay: unreachable stages, dead ends, loops that never wait, deadlines into
//! their own stage.

use crate::compiled::{Compiled, Stage, Trigger};
use crate::definition::{self, Problems};
use crate::value::Value;

pub(super) fn lint(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    unreachable(definition, compiled, problems);
    dead_ends(definition, compiled, problems);
    deadlines_into_themselves(definition, compiled, problems);
    loops(definition, compiled, problems);
}

/// The stages that a stage leads to, by transitions and deadlines.
fn next(stage: &Stage) -> impl Iterator<Item = usize> {
    stage
        .transitions
        .iter()
        .map(|t| t.to)
        .chain(stage.deadlines.iter().filter_map(|d| d.to))
}

fn unreachable(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    let mut reached = vec![false; compiled.stages.len()];
    let mut open: Vec<usize> = compiled.deadlines.iter().filter_map(|d| d.to).collect();
    open.push(0);
    while let Some(number) = open.pop() {
        if !std::mem::replace(&mut reached[number], true) {
            open.extend(next(&compiled.stages[number]));
        }
    }
    if let (Some(written), Some(goal)) = (&definition.goal, &compiled.goal)
        && !reached[goal.stage]
    {
        problems.warning(
            &written.place,
            "the goal cannot be reached",
            "lead transitions to its stage, or name another",
        );
    }
    for (stage, _) in definition
        .stages
        .iter()
        .zip(reached)
        .filter(|(_, reached)| !reached)
    {
        problems.warning(
            &stage.stage.place,
            format!("the stage `{}` cannot be reached", stage.stage.text),
            "lead a transition to it, or take it out; by hand it can still be entered",
        );
    }
}

fn dead_ends(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    for (number, (written, stage)) in definition.stages.iter().zip(&compiled.stages).enumerate() {
        // a deadline of the journey ends a stay for certain, unless it is the one that led here
        let timed = compiled.deadlines.iter().any(|d| d.to != Some(number));
        if stage.end.is_some() || timed || next(stage).next().is_some() {
            continue;
        }
        let message = if compiled.exit.is_empty() {
            format!(
                "the stage `{}` is a dead end: nothing leads out of it",
                stage.name
            )
        } else {
            format!(
                "the stage `{}` is a dead end: only an exit rule leads out of it, and it may never hold",
                stage.name
            )
        };
        problems.warning(
            &written.stage.place,
            message,
            "give it transitions, or make it an end with `end: OUTCOME`",
        );
    }
}

fn deadlines_into_themselves(
    definition: &definition::Journey,
    compiled: &Compiled,
    problems: &mut Problems,
) {
    for (number, (written, stage)) in definition.stages.iter().zip(&compiled.stages).enumerate() {
        let deadlines = written
            .deadline
            .as_ref()
            .map_or(&[][..], |several| several.0.as_slice());
        for (written, _) in deadlines
            .iter()
            .zip(&stage.deadlines)
            .filter(|(_, deadline)| deadline.to == Some(number))
        {
            problems.warning(
                &written.place,
                format!(
                    "the deadline moves to its own stage `{}`, where it starts anew, for ever",
                    stage.name
                ),
                "move to another stage, or use `repeat` for actions that come back",
            );
        }
    }
}

/// A way that opens without waiting.
struct Quick {
    transition: usize,
    to: usize,
    /// It opens whenever its stage is entered.
    certain: bool,
}

fn quick(stage: &Stage) -> Vec<Quick> {
    let mut ways = Vec::new();
    for (transition, way) in stage.transitions.iter().enumerate() {
        let holds = way.when.as_ref().and_then(|when| when.constant().cloned());
        if let (Trigger::Condition, false) = (&way.trigger, holds == Some(Value::Bool(false))) {
            ways.push(Quick {
                transition,
                to: way.to,
                certain: holds == Some(Value::Bool(true)),
            });
        }
    }
    ways
}

fn loops(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    let ways: Vec<Vec<Quick>> = compiled.stages.iter().map(quick).collect();
    for (number, from) in ways.iter().enumerate() {
        for way in from {
            if !leads_to(&ways, way.to, number, false) {
                continue;
            }
            let place = definition.stages[number]
                .transitions
                .as_ref()
                .map(|list| &list[way.transition].place);
            let place = place.unwrap_or(&definition.stages[number].place);
            let target = &compiled.stages[way.to].name;
            if way.certain && leads_to(&ways, way.to, number, true) {
                problems.error_with_help(
                    place,
                    format!("a loop that never waits: this transition to `{target}` and those that lead back always hold"),
                    "give one of them a trigger",
                );
            } else {
                problems.warning(
                    place,
                    format!("a loop that may never wait: this transition to `{target}` and those that lead back need no signal and no time"),
                    "make sure that they never hold together, or give one of them a trigger",
                );
            }
        }
    }
}

/// Whether quick ways lead from a stage to another (or only certain ones).
fn leads_to(ways: &[Vec<Quick>], from: usize, to: usize, certain: bool) -> bool {
    let mut seen = vec![false; ways.len()];
    let mut open = vec![from];
    while let Some(number) = open.pop() {
        if number == to {
            return true;
        }
        if !std::mem::replace(&mut seen[number], true) {
            open.extend(
                ways[number]
                    .iter()
                    .filter(|way| way.certain || !certain)
                    .map(|way| way.to),
            );
        }
    }
    false
}

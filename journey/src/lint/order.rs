//! What can never be first: a rule or a transition before which another one always takes the signal, or time.

use crate::compiled::{Compiled, Stage, Trigger};
use crate::definition::{self, Place, Problems};
use crate::expr::Expression;
use crate::time::Span;
use crate::value::Value;

pub(super) fn lint(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    entries(definition, compiled, problems);
    for (written, stage) in definition.stages.iter().zip(&compiled.stages) {
        let places: Vec<&Place> = written
            .transitions
            .iter()
            .flatten()
            .map(|way| &way.place)
            .collect();
        for (number, place) in places.iter().enumerate() {
            if let Some(why) = never_first(compiled, stage, number) {
                problems.warning(
                    place,
                    format!("this transition can never be first: {why}"),
                    "change the order, or take it out",
                );
            }
        }
        deadlines(written, stage, problems);
    }
}

/// What a rule asks of a signal.
#[derive(Clone, Copy)]
struct Tests<'a>(Option<&'a Expression>, Option<&'a Expression>);

impl Tests<'_> {
    /// Whether whatever passes `later` passes these too.
    fn cover(self, later: Tests<'_>) -> bool {
        let one = |mine: Option<&Expression>, other: Option<&Expression>| match mine {
            None => true,
            Some(mine) if mine.constant() == Some(&Value::Bool(true)) => true,
            Some(mine) => other.is_some_and(|other| other.source == mine.source),
        };
        one(self.0, later.0) && one(self.1, later.1)
    }
}

fn entries(definition: &definition::Journey, compiled: &Compiled, problems: &mut Problems) {
    for (number, (written, rule)) in definition
        .entry
        .iter()
        .flatten()
        .zip(&compiled.entry)
        .enumerate()
    {
        let tests = Tests(rule.where_.as_ref(), rule.when.as_ref());
        let taken = |kind: &String| {
            compiled.entry[..number].iter().any(|earlier| {
                earlier.on.contains(kind)
                    && Tests(earlier.where_.as_ref(), earlier.when.as_ref()).cover(tests)
            })
        };
        if !rule.on.is_empty() && rule.on.iter().all(taken) {
            problems.warning(
                &written.place,
                "this entry rule can never be first: those before it take its signals",
                "change the order, or take it out",
            );
        }
    }
}

fn never_first(compiled: &Compiled, stage: &Stage, number: usize) -> Option<String> {
    let way = &stage.transitions[number];
    if way
        .when
        .as_ref()
        .or(way.where_.as_ref())
        .is_some_and(|test| test.constant() == Some(&Value::Bool(false)))
    {
        return Some("its condition never holds".to_owned());
    }
    let tests = Tests(way.where_.as_ref(), way.when.as_ref());
    let before = &stage.transitions[..number];
    match &way.trigger {
        Trigger::Any(kinds) if !kinds.is_empty() => {
            let exits = |kind: &String| {
                compiled.exit.iter().any(|exit| {
                    exit.on.contains(kind)
                        && Tests(exit.where_.as_ref(), exit.when.as_ref()).cover(tests)
                })
            };
            let taken = |kind: &String| {
                before.iter().any(|earlier| {
                    matches!(&earlier.trigger, Trigger::Any(kinds) if kinds.contains(kind))
                        && Tests(earlier.where_.as_ref(), earlier.when.as_ref()).cover(tests)
                })
            };
            if kinds.iter().all(exits) {
                Some("an exit rule takes its signals".to_owned())
            } else {
                kinds
                    .iter()
                    .all(|kind| exits(kind) || taken(kind))
                    .then(|| "those before it take its signals".to_owned())
            }
        }
        Trigger::Condition => before
            .iter()
            .any(|earlier| {
                matches!(earlier.trigger, Trigger::Condition)
                    && Tests(None, earlier.when.as_ref()).cover(tests)
            })
            .then(|| "one before it holds whenever it does".to_owned()),
        Trigger::After(wait) => {
            let span = wait.exact()?;
            let sooner = stage
                .transitions
                .iter()
                .enumerate()
                .any(|(other, earlier)| {
                    let Trigger::After(first) = &earlier.trigger else {
                        return false;
                    };
                    let certain = Tests(None, earlier.when.as_ref()).cover(Tests(None, None));
                    certain
                        && first
                            .exact()
                            .is_some_and(|first| first < span || first == span && other < number)
                });
            if sooner {
                return Some("another transition opens sooner".to_owned());
            }
            moved_by_deadline(stage, span)
                .then(|| "a deadline of the stage moves away sooner".to_owned())
        }
        _ => None,
    }
}

fn moved_by_deadline(stage: &Stage, before: Span) -> bool {
    stage
        .deadlines
        .iter()
        .any(|d| d.to.is_some() && d.after.exact().is_some_and(|after| after < before))
}

fn deadlines(written: &definition::Stage, stage: &Stage, problems: &mut Problems) {
    let places = written
        .deadline
        .as_ref()
        .map_or(&[][..], |several| several.0.as_slice());
    for (written, deadline) in places.iter().zip(&stage.deadlines) {
        if deadline
            .after
            .exact()
            .is_some_and(|after| moved_by_deadline(stage, after))
        {
            problems.warning(
                &written.place,
                "this deadline can never be reached: an earlier one moves away",
                "take it out, or make it the earlier one",
            );
        }
    }
}

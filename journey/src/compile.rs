//! From the author's text to a [`Compiled`] journey, with every problem located. Knows no catalog: what exists there is
//! handed in as [`Known`].

mod action;
mod rules;
mod stage;
mod texts;
mod wait;

use crate::compiled::{Compiled, Facts};
use crate::definition::{self, Place, Problems, Read};
use crate::document;
use crate::expr::Base;
use crate::lint;
use crate::problem::{Problem, Severity};
use std::collections::{BTreeMap, BTreeSet};
use texts::Texts;

/// The most stages that a journey may have.
pub const MAX_STAGES: usize = 1_000;
/// The most transitions that a stage may have.
pub const MAX_TRANSITIONS: usize = 64;
/// The most variables that a journey may have.
pub const MAX_VARIABLES: usize = 64;
/// The most facts that a journey may mention.
pub const MAX_FACTS: usize = 256;
/// The most expressions, and the most bytes of them together: compiling them is most of the work of compiling.
pub const MAX_EXPRESSIONS: usize = 4_000;
/// See [`MAX_EXPRESSIONS`].
pub const MAX_EXPRESSION_BYTES: usize = 128 * 1024;
/// The most entry rules, exit rules, deadlines, repeats, or actions in one list.
pub const MAX_LISTED: usize = 64;

/// What exists outside the text.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// The names of endpoints; `None`: offline, endpoints are not checked.
    pub endpoints: Option<BTreeSet<String>>,
}

/// A journey without errors.
#[derive(Debug)]
pub struct Checked {
    /// Ready to decide with.
    pub compiled: Compiled,
    /// What may still be wrong with it.
    pub warnings: Vec<Problem>,
}

/// The language's entry point.
#[derive(Debug)]
pub struct Journey;

impl Journey {
    /// Reads, checks and compiles a journey, YAML or JSON, on a thread of its own with a large stack. Costs up to some
    /// hundred milliseconds for a large text: do it when a journey is published or loaded, not while deciding.
    ///
    /// ```
    /// use sojourn_journey::compile::{Journey, Known};
    /// let text = "
    /// journey: greeting
    /// entry: [{ on: web.form.submitted }]
    /// stages:
    ///   - stage: begun
    ///     transitions: [{ to: done, on: web.form.confirmed }]
    ///   - { stage: done, end: greeted }
    /// ";
    /// let checked = Journey::compile(text, &Known::default()).expect("it is a journey");
    /// assert_eq!(checked.compiled.stages.len(), 2);
    ///
    /// let problems = Journey::compile(&text.replace("to: done", "to: doen"), &Known::default()).unwrap_err();
    /// assert_eq!((problems[0].line, problems[0].path.as_str()), (6, "stages[0].transitions[0].to"));
    /// ```
    ///
    /// # Errors
    /// Every problem found, warnings among them, in the order of the text; at least one is an error.
    pub fn compile(text: &str, known: &Known) -> Result<Checked, Vec<Problem>> {
        on_large_stack(|| compile(text, known)).unwrap_or_else(|| {
            Err(vec![Problem {
                path: String::new(),
                line: 1,
                column: 1,
                message:
                    "the journey could not be compiled: the compiler failed on it; please report it"
                        .to_owned(),
                help: None,
                severity: Severity::Error,
            }])
        })
    }
}

fn compile(text: &str, known: &Known) -> Result<Checked, Vec<Problem>> {
    let mut problems = Problems::default();
    let node = match document::read(text) {
        Ok(node) => node,
        Err(unreadable) => {
            let place = Place {
                line: unreadable.line,
                column: unreadable.column,
                ..Place::default()
            };
            problems.error(&place, unreadable.message);
            return Err(problems.finish());
        }
    };
    let Some(definition) = definition::Journey::read(&node, "", &mut problems) else {
        return Err(problems.finish());
    };
    let mut builder = Builder::new(&definition, known, problems);
    let compiled = builder.build(&definition);
    let mut problems = builder.problems;
    if let Some(compiled) = &compiled {
        lint::lint(&definition, compiled, &mut problems);
    }
    match compiled {
        Some(compiled) if !problems.has_errors() => Ok(Checked {
            compiled,
            warnings: problems.finish(),
        }),
        _ => Err(problems.finish()),
    }
}

/// What all parts of compiling share.
pub(crate) struct Builder<'k> {
    pub(crate) problems: Problems,
    known: &'k Known,
    by_name: BTreeMap<String, usize>,
    texts: Texts,
    listens: BTreeSet<String>,
}

impl<'k> Builder<'k> {
    fn new(
        definition: &definition::Journey,
        known: &'k Known,
        mut problems: Problems,
    ) -> Builder<'k> {
        let mut by_name = BTreeMap::new();
        for (i, stage) in definition.stages.iter().enumerate() {
            if let Some(first) = by_name.insert(stage.stage.text.clone(), i) {
                by_name.insert(stage.stage.text.clone(), first);
                problems.error(
                    &stage.stage.place,
                    format!("the stage `{}` stands here a second time", stage.stage.text),
                );
            }
        }
        Builder {
            problems,
            known,
            by_name,
            texts: Texts::default(),
            listens: BTreeSet::new(),
        }
    }

    fn build(&mut self, definition: &definition::Journey) -> Option<Compiled> {
        self.at_most(
            definition.stages.len(),
            MAX_STAGES,
            "stages",
            &definition.place,
        );
        let entry = self.entry(definition);
        let exit = self.exit(definition);
        let goal = self.goal(definition);
        let deadlines = self.deadlines("", definition.deadline.as_ref());
        let identify_by = self.identify_by(definition);
        let instance_key = definition
            .instance_key
            .as_ref()
            .map(|key| self.expression(key));
        let reentry = self.reentry(definition.reentry.as_ref());
        let variables = self.variables(definition);
        let stages: Vec<_> = definition
            .stages
            .iter()
            .map(|stage| self.stage(stage))
            .collect();
        self.at_most(
            self.texts.facts.len(),
            MAX_FACTS,
            "facts mentioned",
            &definition.place,
        );
        if stages.is_empty() {
            // nothing can be entered, and whoever reads a compiled journey may rely on its first stage
            self.problems
                .error(&definition.place, "a journey needs at least one stage");
            return None;
        }
        let text = |prose: &Option<definition::Prose>| prose.as_ref().map(|p| p.text.clone());
        let mut compiled = Compiled {
            name: definition.journey.text.clone(),
            title: text(&definition.title).unwrap_or_else(|| definition.journey.text.clone()),
            description: text(&definition.description).unwrap_or_default(),
            stages: stages.into_iter().collect::<Option<_>>()?,
            by_name: std::mem::take(&mut self.by_name),
            entry: entry?,
            exit: exit?,
            goal: goal?,
            deadlines: deadlines?,
            identify_by,
            instance_key: match instance_key {
                Some(key) => Some(key?),
                None => None,
            },
            reentry: reentry?,
            variables: variables?,
            listens: std::mem::take(&mut self.listens),
            facts: Facts {
                paths: std::mem::take(&mut self.texts.facts),
            },
            wakes_on_customer: false,
            base: Base::default(),
        };
        compiled.wakes_on_customer = compiled.asks_about_customer();
        Some(compiled)
    }

    fn at_most(&mut self, found: usize, most: usize, what: &str, place: &Place) {
        if found > most {
            self.problems.error(
                place,
                format!("{found} {what}; at most {most} are possible"),
            );
        }
    }

    /// The number of a stage.
    fn stage_named(&mut self, name: &definition::Slug) -> Option<usize> {
        let found = self.by_name.get(&name.text).copied();
        if found.is_none() {
            let message = format!("there is no stage `{}`", name.text);
            match crate::problem::nearest(&name.text, self.by_name.keys().map(String::as_str)) {
                Some(near) => {
                    let help = format!("did you mean `{near}`?");
                    self.problems.error_with_help(&name.place, message, help);
                }
                None => self.problems.error(&name.place, message),
            }
        }
        found
    }

    /// The signal types of a rule, which the journey listens to from now on.
    fn kinds(&mut self, kinds: &[definition::SignalType]) -> Vec<String> {
        for kind in kinds {
            let first = kind.text.split('.').next().unwrap_or_default();
            if crate::limits::RESERVED_APPLICATIONS.contains(&first) && kind.text != "action.failed"
            {
                self.problems.error(
                    &kind.place,
                    format!("`{}` cannot be a signal type: `{first}` stands for something else in expressions", kind.text),
                );
            }
            self.listens.insert(kind.text.clone());
        }
        kinds.iter().map(|kind| kind.text.clone()).collect()
    }
}

/// The parts of an optional list.
fn listed<T>(list: Option<&Vec<T>>) -> &[T] {
    list.map_or(&[], Vec::as_slice)
}

/// Runs `work` on a thread with a stack that the recursive parsers cannot fill with what our limits let through;
/// `None` when it panics, or no thread can be had.
#[allow(clippy::disallowed_methods)] // the only thread of this crate: it ends before the function returns, so nothing outside sees it
pub(crate) fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    const STACK: usize = 64 * 1024 * 1024;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("compile".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work);
        thread.ok()?.join().ok()
    })
}

#[cfg(test)]
mod tests;

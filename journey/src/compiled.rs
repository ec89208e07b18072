//! A journey as the rules use it: everything checked, expressions compiled, places named. Immutable, shared by `Arc`.
//! Knows no text and no line numbers: those end with `compile`.

use crate::expr::Expression;
use crate::template::Template;
use crate::time::Span;
use crate::wait::Wait;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// One version of one journey, ready to decide with.
#[derive(Debug)]
pub struct Compiled {
    /// The journey's name.
    pub name: String,
    /// Its title, or its name.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// Stages in the author's order; the first is where executions start.
    pub stages: Vec<Stage>,
    /// Number of each stage by name.
    pub by_name: BTreeMap<String, usize>,
    /// Entry rules, in order.
    pub entry: Vec<Entry>,
    /// Exit rules, in order.
    pub exit: Vec<Exit>,
    /// The goal.
    pub goal: Option<Goal>,
    /// Journey deadlines, in order.
    pub deadlines: Vec<Deadline>,
    /// Order of precedence of identifier names.
    pub identify_by: Vec<String>,
    /// What tells one instance from another.
    pub instance_key: Option<Expression>,
    /// Whether and when a customer may enter again.
    pub reentry: Reentry,
    /// Variables, in order.
    pub variables: Vec<Variable>,
    /// Signal types that a rule names (entry, exit, transitions).
    pub listens: BTreeSet<String>,
    /// The paths of facts that any expression mentions.
    pub facts: Facts,
    /// Whether what is known of the customer can wake an execution: a condition without a trigger, an exit rule without
    /// a signal, a time or a variable asks about `customer`. Where not, a change of the customer record costs nothing.
    pub wakes_on_customer: bool,
    /// What bounds every evaluation.
    pub base: crate::expr::Base,
}

impl Compiled {
    /// Computes [`Compiled::wakes_on_customer`].
    pub(crate) fn asks_about_customer(&self) -> bool {
        let mut asking = self.variables.iter().filter_map(|v| v.from.as_ref());
        asking.any(|e| e.uses("customer"))
            || self
                .exit
                .iter()
                .filter(|e| e.on.is_empty())
                .any(|e| e.when.iter().any(|w| w.uses("customer")))
            || self.deadlines.iter().any(|d| d.after.uses("customer"))
            || self.stages.iter().any(Stage::asks_about_customer)
    }
}

impl Stage {
    fn asks_about_customer(&self) -> bool {
        let mut waits = self
            .stalled_after
            .iter()
            .chain(self.deadlines.iter().map(|d| &d.after));
        waits.any(|w| w.uses("customer"))
            || self.transitions.iter().any(|way| match &way.trigger {
                Trigger::Condition => way.when.iter().any(|w| w.uses("customer")),
                Trigger::At(expression) => expression.uses("customer"),
                Trigger::After(wait) | Trigger::Absent { within: wait, .. } => {
                    wait.uses("customer")
                }
                Trigger::Any(_)
                | Trigger::All { .. }
                | Trigger::Sequence { .. }
                | Trigger::ByHand => false,
            })
    }
}

/// One stage.
#[derive(Debug)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Its title, or its name.
    pub title: String,
    /// What it is for.
    pub description: String,
    /// The outcome, when it is an end.
    pub end: Option<String>,
    /// Actions on entering.
    pub enter: Vec<Action>,
    /// Actions on leaving.
    pub leave: Vec<Action>,
    /// Repeated actions.
    pub repeats: Vec<Repeat>,
    /// How long a visit may last before it is flagged `stalled`.
    pub stalled_after: Option<Wait>,
    /// Stage deadlines, in order.
    pub deadlines: Vec<Deadline>,
    /// Ways out, in order of precedence.
    pub transitions: Vec<Transition>,
}

/// One way out of a stage.
#[derive(Debug)]
pub struct Transition {
    /// `stage/offered/transition/2`.
    pub place: String,
    /// The number of the stage it leads to.
    pub to: usize,
    /// What may open it.
    pub trigger: Trigger,
    /// Tests each signal of the trigger by itself.
    pub where_: Option<Expression>,
    /// Tests what is known.
    pub when: Option<Expression>,
    /// Values to keep, by name.
    pub keep: Vec<(String, Expression)>,
    /// Actions of the transition.
    pub actions: Vec<Action>,
}

/// What may open a transition.
#[derive(Debug)]
pub enum Trigger {
    /// Any of these signal types.
    Any(Vec<String>),
    /// All of these signal types in any order, within a time of the first of them.
    All {
        /// The types.
        kinds: Vec<String>,
        /// Counted from the start of the visit.
        within: Option<Wait>,
    },
    /// These signal types in this order.
    Sequence {
        /// The types, in order.
        kinds: Vec<String>,
        /// Counted from the start of the visit.
        within: Option<Wait>,
    },
    /// This signal type did not come within a time.
    Absent {
        /// The type that must stay away.
        kind: String,
        /// The span starts at this signal, not at the visit.
        after: Option<String>,
        /// The span.
        within: Wait,
    },
    /// A delay from the start of the visit.
    After(Wait),
    /// A point in time that an expression gives when the visit begins (and again when what it asks about changes).
    At(Expression),
    /// The condition alone: tried after every move and every change of a fact, a variable or the customer.
    Condition,
    /// By hand only.
    ByHand,
}

/// One entry rule.
#[derive(Debug)]
pub struct Entry {
    /// `entry/0`.
    pub place: String,
    /// Any of these types.
    pub on: Vec<String>,
    /// Tests the signal.
    pub where_: Option<Expression>,
    /// Tests what is known.
    pub when: Option<Expression>,
}

/// One exit rule.
#[derive(Debug)]
pub struct Exit {
    /// `exit/0`.
    pub place: String,
    /// Any of these types; empty: tried at entry and whenever a fact, a variable or the customer became another.
    pub on: Vec<String>,
    /// Tests the signal.
    pub where_: Option<Expression>,
    /// Tests what is known.
    pub when: Option<Expression>,
    /// The outcome.
    pub outcome: Option<String>,
}

/// The goal.
#[derive(Debug)]
pub struct Goal {
    /// The number of the stage that is the goal.
    pub stage: usize,
    /// The window, from the start of the execution.
    pub within: Option<Wait>,
}

/// A stage or journey deadline.
#[derive(Debug)]
pub struct Deadline {
    /// `stage/offered/deadline/0` or `deadline/0`.
    pub place: String,
    /// From the start of the visit (or execution).
    pub after: Wait,
    /// What to do when it passes.
    pub escalate: Vec<Action>,
    /// The stage to move to.
    pub to: Option<usize>,
}

/// A repeated action.
#[derive(Debug)]
pub struct Repeat {
    /// `stage/offered/repeat/0`.
    pub place: String,
    /// The rhythm.
    pub every: Wait,
    /// How often at most.
    pub at_most: Option<u32>,
    /// What to do.
    pub actions: Vec<Action>,
}

/// An action before it is rendered.
#[derive(Debug)]
pub struct Action {
    /// `stage/offered/enter/0`.
    pub place: String,
    /// `webhook`, `log`, `email` …
    pub kind: String,
    /// For whom or what.
    pub to: Option<Template>,
    /// Everything else that the author gave, with templates where there are texts.
    pub body: Body,
    /// The name under which its result becomes a fact, where it is awaited.
    pub awaited: Option<String>,
}

/// The body of an action: JSON with templates for texts.
#[derive(Debug)]
pub enum Body {
    /// A value without templates.
    Plain(crate::value::Value),
    /// A text with templates.
    Text(Template),
    /// A list.
    List(Vec<Body>),
    /// A map.
    Map(BTreeMap<String, Body>),
}

/// A variable of the journey.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What it may hold.
    pub kind: VariableKind,
    /// Where it comes from, if it follows signals.
    pub from: Option<Expression>,
}

/// What a variable may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VariableKind {
    /// Text.
    Text,
    /// A whole or other number.
    Number,
    /// True or false.
    Bool,
    /// A point in time (RFC 3339 in data).
    Time,
    /// Anything.
    Any,
}

/// Whether a customer may enter again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reentry {
    /// Once only.
    Never,
    /// When the run before has ended, and this long after its end.
    AfterExit {
        /// How long after.
        wait: Span,
    },
    /// At any time, beside the active runs.
    Concurrent,
}

/// Which facts a journey wants, by signal type.
#[derive(Debug, Default)]
pub struct Facts {
    /// Paths wanted, in the form that [`FactPath`] writes.
    pub paths: BTreeSet<FactPath>,
}

/// The path of a fact, segment by segment: `Books.Invoice.Status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FactPath(pub Vec<String>);

/// `Books.Invoice.Status`; a segment that is no plain name is written `["Due Date"]`.
impl fmt::Display for FactPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            if is_plain(segment) {
                write!(f, "{}{segment}", if i == 0 { "" } else { "." })?;
            } else {
                write!(f, "[{}]", quote(segment))?;
            }
        }
        Ok(())
    }
}

impl FromStr for FactPath {
    type Err = String;

    /// Reads what [`FactPath`] writes.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| {
            format!("`{text}` is no path of a fact: {why}; expected `Application.Object.field`")
        };
        let mut segments = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix('[') {
                let mut read = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
                let Some(Ok(segment)) = read.next() else {
                    return Err(refuse("after `[` a text in double quotes must follow"));
                };
                let Some(after) = quoted
                    .get(read.byte_offset()..)
                    .and_then(|r| r.strip_prefix(']'))
                else {
                    return Err(refuse("a `]` is missing"));
                };
                segments.push(segment);
                rest = after;
            } else {
                let plain = match rest.strip_prefix('.') {
                    Some(after) if !segments.is_empty() => after,
                    Some(_) => return Err(refuse("it begins with a dot")),
                    None if segments.is_empty() => rest,
                    None => return Err(refuse("a dot is missing")),
                };
                let end = plain.find(['.', '[']).unwrap_or(plain.len());
                let (segment, after) = plain.split_at(end);
                if !is_plain(segment) {
                    return Err(refuse(&format!("`{segment}` is no plain name")));
                }
                segments.push(segment.to_owned());
                rest = after;
            }
        }
        if segments.is_empty() {
            return Err(refuse("it is empty"));
        }
        Ok(FactPath(segments))
    }
}

/// Whether a segment can be written without brackets.
fn is_plain(segment: &str) -> bool {
    !segment.is_empty()
        && !segment.starts_with(|c: char| c.is_ascii_digit())
        && segment
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The segment as a JSON text, which is also a CEL text.
fn quote(segment: &str) -> String {
    serde_json::Value::from(segment).to_string()
}

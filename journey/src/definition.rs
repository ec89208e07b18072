//! A journey as its author writes it: one type per kind of map, from which both the reader and the JSON Schema come, so
//! that they cannot differ. Knows what keys there are and of what kind their values are; what they mean together is
//! `compile`'s.

mod read;
mod scalar;

pub(crate) use read::{Place, Problems, Read};
pub(crate) use scalar::{
    Action, Condition, Count, EndpointBody, Pairs, Prose, Several, SignalType, Slug, Span, is_slug,
};

use schemars::JsonSchema;

/// Makes a type of a map: its fields, its JSON Schema and its reader.
macro_rules! document {
    ($(#[doc = $about:literal])* $name:ident, $what:literal {
        $( $(#[doc = $doc:literal])* $key:literal $field:ident: $type:ty, )*
    }) => {
        $(#[doc = $about])*
        #[derive(Debug, JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])* #[schemars(rename = $key)] pub(crate) $field: $type, )*
            #[schemars(skip)]
            pub(crate) place: Place,
        }

        impl Read for $name {
            fn read(node: &crate::document::Node, path: &str, problems: &mut Problems) -> Option<Self> {
                const KEYS: &[&str] = &[$($key),*];
                let map = read::Map::of(node, path, $what, KEYS, problems)?;
                $( let $field = map.field::<$type>($key, problems); )*
                Some($name { $( $field: $field?, )* place: Place::of(node, path) })
            }
        }
    };
}

document! {
    /// A journey: stages, and what moves a customer between them.
    Journey, "a journey" {
        /// The name of the journey.
        "journey" journey: Slug,
        /// What people call it.
        "title" title: Option<Prose>,
        /// What it is for.
        "description" description: Option<Prose>,
        /// The stage to be reached.
        "goal" goal: Option<Goal>,
        /// What happens when an execution lasts too long.
        "deadline" deadline: Option<Several<Deadline>>,
        /// Names of identifiers, the most trusted first.
        "identify_by" identify_by: Option<Vec<Slug>>,
        /// What tells one instance of a customer from another.
        "instance_key" instance_key: Option<Condition>,
        /// Whether and when a customer may enter again.
        "reentry" reentry: Option<Reentry>,
        /// Values that the journey keeps, by name.
        "variables" variables: Option<Pairs<Variable>>,
        /// What starts an execution, in order.
        "entry" entry: Option<Vec<Entry>>,
        /// What ends an execution from any stage, in order.
        "exit" exit: Option<Vec<Exit>>,
        /// The stages; executions start in the first.
        "stages" stages: Vec<Stage>,
    }
}

document! {
    /// The stage to be reached, and within which time of the start.
    Goal, "a goal" {
        /// The stage.
        "stage" stage: Slug,
        /// The window, from the start of the execution.
        "within" within: Option<Span>,
    }
}

document! {
    /// What happens when a visit, or an execution, lasts too long.
    Deadline, "a deadline" {
        /// From the start of the visit (or of the execution).
        "after" after: Span,
        /// What to do then.
        "escalate" escalate: Option<Vec<Action>>,
        /// Where to move then.
        "move" to: Option<Slug>,
    }
}

document! {
    /// Whether and when a customer may enter again.
    Reentry, "a re-entry rule" {
        /// `never`, `after_exit` or `concurrent`.
        "mode" mode: Option<Prose>,
        /// How long after the end of the run before.
        "wait" wait: Option<Span>,
    }
}

document! {
    /// A value that the journey keeps.
    Variable, "a variable" {
        /// `text`, `number`, `bool`, `time` or `any`.
        "type" kind: Option<Prose>,
        /// Where it comes from, with every signal for which this is known.
        "from" from: Option<Condition>,
    }
}

document! {
    /// A rule that starts an execution.
    Entry, "an entry rule" {
        /// Any of these signal types.
        "on" on: Several<SignalType>,
        /// Tests the signal.
        "where" where_: Option<Condition>,
        /// Tests what is known.
        "when" when: Option<Condition>,
    }
}

document! {
    /// A rule that ends an execution.
    Exit, "an exit rule" {
        /// Any of these signal types; without it the rule is tried after every signal that changes a fact.
        "on" on: Option<Several<SignalType>>,
        /// Tests the signal.
        "where" where_: Option<Condition>,
        /// Tests what is known.
        "when" when: Option<Condition>,
        /// What the execution ends with.
        "outcome" outcome: Option<Slug>,
    }
}

document! {
    /// A place where a customer rests.
    Stage, "a stage" {
        /// Its name.
        "stage" stage: Slug,
        /// What people call it.
        "title" title: Option<Prose>,
        /// What it is for.
        "description" description: Option<Prose>,
        /// Actions on entering.
        "enter" enter: Option<Vec<Action>>,
        /// Actions on leaving.
        "leave" leave: Option<Vec<Action>>,
        /// Actions that come back while the visit lasts.
        "repeat" repeat: Option<Several<Repeat>>,
        /// How long a visit may last before it is flagged as stalled.
        "stalled_after" stalled_after: Option<Span>,
        /// What happens when a visit lasts too long.
        "deadline" deadline: Option<Several<Deadline>>,
        /// The ways out, in order of precedence.
        "transitions" transitions: Option<Vec<Transition>>,
        /// The outcome with which executions end here.
        "end" end: Option<Slug>,
    }
}

document! {
    /// Actions that come back while a visit lasts.
    Repeat, "a repeat" {
        /// The rhythm, from the start of the visit.
        "every" every: Span,
        /// How often at most.
        "at_most" at_most: Option<Count>,
        /// What to do.
        "do" actions: Vec<Action>,
    }
}

document! {
    /// A way out of a stage. At most one of `on`, `all`, `sequence`, `absent`, `after`, `at` opens it.
    Transition, "a transition" {
        /// The stage it leads to.
        "to" to: Slug,
        /// Any of these signal types.
        "on" on: Option<Several<SignalType>>,
        /// All of these signal types, in any order.
        "all" all: Option<Vec<SignalType>>,
        /// These signal types, in this order.
        "sequence" sequence: Option<Vec<SignalType>>,
        /// This signal type did not come within a time.
        "absent" absent: Option<SignalType>,
        /// Bounds `all`, `sequence` and `absent`.
        "within" within: Option<Span>,
        /// A delay from the start of the visit; beside `absent`, the signal type at which the time starts.
        "after" after: Option<Span>,
        /// A point in time.
        "at" at: Option<Condition>,
        /// Tests each signal by itself.
        "where" where_: Option<Condition>,
        /// Tests what is known; without a trigger, opens the transition when it comes to hold.
        "when" when: Option<Condition>,
        /// Values kept on the timeline, by name.
        "keep" keep: Option<Pairs<Condition>>,
        /// Actions of the transition.
        "do" actions: Option<Vec<Action>>,
    }
}

document! {
    /// A wait that is no exact span. It is one of: a calendar span (`days` to `years`), a point (`date`), a field with an
    /// offset (`field`), business hours (`business`).
    Calendar, "a wait" {
        /// Days by the calendar of the zone.
        "days" days: Option<Count>,
        /// Weeks by the calendar of the zone.
        "weeks" weeks: Option<Count>,
        /// Months by the calendar of the zone.
        "months" months: Option<Count>,
        /// Years by the calendar of the zone.
        "years" years: Option<Count>,
        /// A date, `2026-12-24`.
        "date" date: Option<Prose>,
        /// An expression that gives a time, or a text with a time or a date.
        "field" field: Option<Condition>,
        /// An exact span added to the field; `-3d` is before it.
        "offset" offset: Option<Prose>,
        /// An exact span of business time, `16h`.
        "business" business: Option<Prose>,
        /// When business is open, `09:00-17:00`.
        "hours" hours: Option<Prose>,
        /// On which days business is open; without it from `mon` to `fri`.
        "weekdays" weekdays: Option<Vec<Prose>>,
        /// Dates on which business is closed.
        "holidays" holidays: Option<Vec<Prose>>,
        /// The local time of the day, `09:00`.
        "at" at: Option<Prose>,
        /// The time zone, `Europe/Amsterdam`; without it `UTC`.
        "zone" zone: Option<Prose>,
    }
}

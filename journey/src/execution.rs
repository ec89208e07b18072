//! The state of one execution: what `evolve` makes of its events.

use crate::event::{Action, By};
use crate::signal::{Identifier, Signal};
use crate::time::Time;
use crate::value::Value;
use std::collections::BTreeMap;

/// How an execution stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// It moves.
    #[default]
    Active,
    /// An operator holds it.
    Held,
    /// It reached an end stage.
    Completed,
    /// An exit rule ended it.
    Exited,
    /// The journey's deadline ended it.
    Expired,
    /// An operator ended it.
    Stopped,
}

impl Status {
    /// The word for it: `active`, `held` …
    pub fn word(self) -> &'static str {
        match self {
            Status::Active => "active",
            Status::Held => "held",
            Status::Completed => "completed",
            Status::Exited => "exited",
            Status::Expired => "expired",
            Status::Stopped => "stopped",
        }
    }
}

/// One customer's run of one journey.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// The journey.
    pub journey: String,
    /// The version it is on.
    pub version: u32,
    /// The customer key.
    pub customer: Identifier,
    /// The instance key.
    pub instance: Option<String>,
    /// The run.
    pub run: u32,
    /// The number of the next event.
    pub next: u64,
    /// How it stands.
    pub status: Status,
    /// The outcome, once ended with one.
    pub outcome: Option<String>,
    /// When it started.
    pub started: Stamp,
    /// When it ended.
    pub ended: Option<Stamp>,
    /// The current (or last) visit.
    pub visit: Visit,
    /// Facts by path, only those that the journey mentions.
    pub facts: BTreeMap<String, Fact>,
    /// Variables by name.
    pub vars: BTreeMap<String, Value>,
    /// Values kept on transitions, by name.
    pub kept: BTreeMap<String, Value>,
    /// Progress of patterns of the current visit, by the transition's place.
    pub patterns: BTreeMap<String, Vec<Seen>>,
    /// Armed timers, in the order they were armed.
    pub timers: Vec<Timer>,
    /// Actions not yet settled, in order.
    pub owed: Vec<Owed>,
    /// Actions that failed and were neither retried nor skipped by hand, in the order in which they failed; at most
    /// [`crate::limits::FAILED_ACTIONS`]. They keep an ended execution in memory: somebody has to look at them.
    pub failed: Vec<Failed>,
    /// A stage deadline of the current visit has passed.
    pub overdue: bool,
    /// The current visit lasts longer than `stalled_after`.
    pub stalled: bool,
    /// The latest unresolved incident. One of a failed action is resolved when every failed action is settled: done after
    /// a retry, or skipped. Any is resolved by an override.
    pub incident: Option<Incident>,
    /// When the goal was reached.
    pub goal: Option<Time>,
    /// Who holds it and why, while held.
    pub hold: Option<By>,
    /// Signals that wait for the hold to end, in order.
    pub waiting: Vec<Signal>,
}

/// Two times of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The owner's clock.
    pub at: Time,
    /// The signal's own time.
    pub occurred: Time,
}

/// One stay in a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// 1, 2, 3 … within the execution.
    pub number: u32,
    /// The stage.
    pub stage: String,
    /// When it began.
    pub began: Stamp,
}

/// The value of a fact.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The value.
    pub value: Value,
    /// The event time of the signal that brought it.
    pub occurred: Time,
    /// The number of the event that brought it: orders facts of equal event time.
    pub position: u64,
}

/// One signal that a pattern has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which of the pattern's types.
    pub step: u32,
    /// When (`at`).
    pub at: Time,
}

/// What a timer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimerKind {
    /// A transition that opens when something stayed away.
    Absent,
    /// A transition that opens after a delay or at a time.
    Delay,
    /// A repeated action.
    Repeat,
    /// `stalled_after`.
    Stalled,
    /// A stage deadline.
    StageDeadline,
    /// A journey deadline.
    JourneyDeadline,
}

/// An armed timer. Its identity is (visit, place, round).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The visit it belongs to; 0 for the execution's own. A timer of another visit is stale.
    pub visit: u32,
    /// What it is for.
    pub kind: TimerKind,
    /// Its place in the journey.
    pub place: String,
    /// When it is due, by the owner's clock.
    pub due: Time,
    /// 1, 2, 3 … for repeats; 1 otherwise.
    pub round: u32,
    /// Came due while the execution was held; fires when it is let go.
    pub waits: bool,
    /// How many signals waited when this timer began to wait and still do: they go first. 0 unless `waits`.
    pub behind: u32,
}

/// An action not yet settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// The number of the event that made it.
    pub number: u64,
    /// The number of the event that gave it its idempotency key: the same, unless a retry by hand asked for a new one.
    pub key: u64,
    /// What to do.
    pub action: Action,
    /// Attempts that failed so far, in all.
    pub attempts: u32,
    /// How many of those were made before it was last retried by hand; 0: it never was.
    pub before: u32,
    /// When the next attempt is due; `None`: at once.
    pub next: Option<Time>,
}

/// An action that failed: no attempt follows by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The number of the event that made it: its name in a command.
    pub number: u64,
    /// The number of the event that gave it its idempotency key.
    pub key: u64,
    /// What was to be done.
    pub action: Action,
    /// Attempts that were made, in all.
    pub attempts: u32,
    /// What went wrong with the last one.
    pub error: String,
    /// When it failed (`at`).
    pub at: Time,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The number of its event.
    pub number: u64,
    /// Where in the journey.
    pub place: String,
    /// What went wrong.
    pub message: String,
    /// The number of the action, where it is one that failed.
    pub action: Option<u64>,
}

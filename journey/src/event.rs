//! What happened in an execution. A closed list: whoever knows it knows the system's vocabulary.
//! Events are facts of the past: never refused, stored for ever, added to and never edited.

use crate::execution::{Status, Timer};
use crate::signal::{Identifier, Signal};
use crate::time::Time;
use crate::value::Value;

/// One event of one execution. All events of one decision bear the same two times.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// 0, 1, 2 … within the execution, without gaps.
    pub number: u64,
    /// The owner's clock when it was decided.
    pub at: Time,
    /// The time that the signal itself gives; never later than `at`.
    pub occurred: Time,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The execution began, in the first stage, with visit 1.
    Started {
        /// The journey.
        journey: String,
        /// Its version.
        version: u32,
        /// The customer key.
        customer: Identifier,
        /// The instance key.
        instance: Option<String>,
        /// The run.
        run: u32,
        /// The first stage.
        stage: String,
    },
    /// A fact was seen. `changed` says whether its value became another.
    Fact {
        /// `Books.Invoice.Status`, as [`crate::compiled::FactPath`] writes it.
        path: String,
        /// The new value.
        value: Value,
        /// Whether the value differs from the one before.
        changed: bool,
    },
    /// A variable was set. `changed` as above.
    Variable {
        /// Its name.
        name: String,
        /// The new value.
        value: Value,
        /// Whether the value differs from the one before.
        changed: bool,
    },
    /// A value was kept on a transition.
    Kept {
        /// Its name.
        name: String,
        /// The value.
        value: Value,
    },
    /// A pattern (`all`, `sequence`, `absent … after`) of the current visit saw one of its signals.
    Seen {
        /// The transition's place.
        place: String,
        /// Which of the pattern's types, by its number in the list.
        step: u32,
    },
    /// Partial progress of a pattern fell out of its window and was dropped.
    Forgotten {
        /// The transition's place.
        place: String,
    },
    /// A move: the visit before ended and a new one began.
    Moved {
        /// The stage left.
        from: String,
        /// The stage entered.
        to: String,
        /// The number of the new visit.
        visit: u32,
        /// What made it.
        cause: Cause,
    },
    /// A timer was armed.
    TimerArmed(Timer),
    /// A timer came due (one that does not come back unless a new one is armed).
    TimerFired {
        /// The visit it belonged to; 0 for the execution's own.
        visit: u32,
        /// Its place.
        place: String,
        /// Its round.
        round: u32,
    },
    /// An action is owed to the world. The event's number is the action's number.
    Action(Action),
    /// An attempt at an action failed and another will follow.
    Attempted {
        /// The number of the event that owed it.
        action: u64,
        /// Which attempt, from 1.
        attempt: u32,
        /// What went wrong.
        error: String,
        /// When the next attempt is due.
        next: Time,
    },
    /// An action is no longer owed.
    Settled {
        /// The number of the event that owed it.
        action: u64,
        /// How many attempts were made.
        attempt: u32,
        /// How it ended.
        outcome: ActionOutcome,
    },
    /// A signal concerned this execution and moved nothing.
    Unmatched {
        /// The signal's type.
        kind: String,
    },
    /// The goal was reached, for the first time.
    GoalReached {
        /// Whether within its window.
        within: bool,
    },
    /// A stage deadline passed: the flag is set until the visit ends.
    Overdue {
        /// The deadline's place.
        place: String,
    },
    /// `stalled_after` passed: the flag is set until the visit ends.
    Stalled,
    /// Something went wrong that a person should look at; it moved nobody.
    Incident {
        /// Where in the journey.
        place: String,
        /// What went wrong.
        message: String,
        /// The number of the action, where it is one that failed.
        action: Option<u64>,
    },
    /// A failed action is owed again, by hand: it gets as many attempts as it had, numbered on.
    Retried {
        /// The number of the event that owed it first.
        action: u64,
        /// Whether the idempotency key bears this event's number from now on; otherwise it stays what it was.
        new_key: bool,
        /// Who and why.
        by: By,
    },
    /// A failed action is not wanted any more, by hand, or for want of room among those that are kept.
    Skipped {
        /// The number of the event that owed it first.
        action: u64,
        /// Who and why.
        by: By,
    },
    /// An operator holds the execution: nothing moves, signals wait.
    Held {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// An operator lets it go on.
    Resumed {
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A signal was not taken: the queue of a held execution is full.
    Refused {
        /// The signal's type.
        kind: String,
        /// Why.
        reason: String,
    },
    /// A signal waits for the hold to end.
    SignalWaits(Box<Signal>),
    /// The first waiting signal was taken out and decided.
    SignalTaken,
    /// A due timer waits for the hold to end.
    TimerWaits {
        /// The visit it belonged to; 0 for the execution's own.
        visit: u32,
        /// Its place.
        place: String,
        /// Its round.
        round: u32,
    },
    /// The execution ended.
    Ended {
        /// How.
        status: Status,
        /// The stage that it was in.
        stage: String,
        /// With which outcome.
        outcome: Option<String>,
        /// Who and why, when by hand.
        by: Option<By>,
    },
}

/// Who did something by hand, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// What made a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A transition taken by a signal.
    Signal {
        /// The transition's place.
        place: String,
    },
    /// A transition that needs no signal: its condition came to hold.
    Condition {
        /// The transition's place.
        place: String,
    },
    /// A transition opened by time: absence, delay, `at`.
    Timer {
        /// The transition's place.
        place: String,
    },
    /// A stage or journey deadline.
    Deadline {
        /// The deadline's place.
        place: String,
    },
    /// By hand.
    Override(By),
}

/// An action owed to the world, rendered: nothing more is needed to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action {
    /// Its place in the journey: `stage/offered/enter/0`.
    pub place: String,
    /// Its kind: `webhook`, `log`, `email` …
    pub kind: String,
    /// For whom or what: the endpoint of a webhook; empty where the kind has none.
    pub to: String,
    /// The rendered body as JSON; at most 64 KiB.
    pub body: Vec<u8>,
    /// The name under which its result becomes the fact `action.<name>.status`, where it is awaited.
    pub awaited: Option<String>,
}

/// How an action ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// Done.
    Done {
        /// What the other side said, in short (`200`).
        detail: String,
    },
    /// Given up: kept, until it is retried or skipped by hand.
    Failed {
        /// Why.
        error: String,
    },
    /// Not tried.
    Skipped {
        /// Why (`not connected`).
        reason: String,
    },
}

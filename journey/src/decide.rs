//! What happens next: one input on one execution gives events. The order of the rules is that of the language's page,
//! "What one signal does to one execution". Knows no other execution, no clock and no storage: the time comes in, and
//! the events go out to be agreed on before anything is done.

mod action;
mod command;
mod facts;
mod failed;
mod moves;
mod release;
mod render;
mod signal;
mod timer;

use crate::compiled::{Compiled, Stage};
use crate::customer::Customer;
use crate::event::{Event, What};
use crate::execution::{Execution, Status};
use crate::expr::{Expression, Miss, Scope};
use crate::signal::Signal;
use crate::time::Time;
use std::fmt;

/// What comes in.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A signal, no duplicate.
    Signal(&'a Signal),
    /// The customer record became another by a signal that does not concern this execution: only what needs no signal is
    /// tried. Gives no events where nothing comes of it.
    Customer,
    /// A timer came due. Stale and early ones change nothing.
    Timer {
        /// The visit that it belongs to; 0 for the execution's own.
        visit: u32,
        /// Its place.
        place: &'a str,
        /// Its round.
        round: u32,
    },
    /// An attempt at an action ended. The result of an attempt that is not the current one changes nothing.
    ActionResult {
        /// The number of the event that owed it.
        action: u64,
        /// Which attempt, from 1.
        attempt: u32,
        /// How it ended.
        result: AttemptResult,
    },
    /// Something done by hand.
    Command(&'a Command),
    /// Takes one waiting signal or timer after a hold ended.
    Release,
}

/// How one attempt at an action ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptResult {
    /// Done.
    Done {
        /// What the other side said, in short.
        detail: String,
    },
    /// It failed, and another attempt follows.
    Retry {
        /// What went wrong.
        error: String,
        /// When the next attempt is due.
        next: Time,
    },
    /// It failed, and none follows.
    Failed {
        /// What went wrong.
        error: String,
    },
    /// It was not tried.
    Skipped {
        /// Why.
        reason: String,
    },
}

/// Something done by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Chosen once by who gives it; duplicates are told apart before they come here.
    pub id: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// The visit that the giver saw; another one refuses the command.
    pub expected_visit: Option<u32>,
    /// What to do.
    pub what: ByHand,
}

/// What to do by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByHand {
    /// Move to a stage: leaving and entering actions run.
    Override {
        /// The stage.
        to: String,
        /// Whether the actions of the transition that leads there run too.
        run_actions: bool,
    },
    /// Nothing moves until it is resumed.
    Hold,
    /// It goes on.
    Resume,
    /// It ends, `stopped`; no actions run.
    Stop {
        /// With which outcome.
        outcome: Option<String>,
    },
    /// A failed action is owed again: it gets a new row of attempts.
    RetryAction {
        /// The number of the action.
        action: u64,
        /// Whether the receiver is to see a new idempotency key, for one that remembers the old one as done.
        new_key: bool,
    },
    /// A failed action is not wanted any more.
    SkipAction {
        /// The number of the action.
        action: u64,
    },
}

impl ByHand {
    /// The word for it, as records name it: `override`, `retry_action` …
    pub fn word(&self) -> &'static str {
        match self {
            ByHand::Override { .. } => "override",
            ByHand::Hold => "hold",
            ByHand::Resume => "resume",
            ByHand::Stop { .. } => "stop",
            ByHand::RetryAction { .. } => "retry_action",
            ByHand::SkipAction { .. } => "skip_action",
        }
    }

    /// Whether it concerns a failed action and nothing else: that may be done after the execution has ended.
    pub fn is_of_action(&self) -> bool {
        matches!(self, ByHand::RetryAction { .. } | ByHand::SkipAction { .. })
    }
}

/// When, and whether the journey lets anything move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The owner's clock.
    pub at: Time,
    /// The time that the input itself gives; `at` where it gives none, or a later one.
    pub occurred: Time,
    /// Whether the journey is held.
    pub gate: Gate,
}

impl Moment {
    /// A moment of the clock alone, with an open gate.
    pub fn now(at: Time) -> Moment {
        Moment {
            at,
            occurred: at,
            gate: Gate::Open,
        }
    }

    /// The moment of a signal: it occurred when it says, never later than `at`.
    pub fn of(signal: &Signal, at: Time) -> Moment {
        Moment {
            at,
            occurred: signal.time.map_or(at, |t| t.min(at)),
            gate: Gate::Open,
        }
    }
}

/// Whether anything may move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gate {
    /// Yes.
    #[default]
    Open,
    /// The journey is deactivated with `hold`.
    Held,
}

/// Why a command was not taken, and what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The answer.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(text: impl fmt::Display) -> Refusal {
        Refusal {
            text: text.to_string(),
        }
    }
}

/// Decides one input on one execution.
///
/// A signal always gives events, unless the execution has ended. A stale timer, the result of an attempt that is not
/// the current one, a change of the customer that nothing comes of, and a release with nothing to take give none.
///
/// # Errors
/// Only for commands: what was asked cannot be done, and what would be accepted.
pub fn decide(
    compiled: &Compiled,
    state: &Execution,
    customer: &Customer,
    input: Input<'_>,
    moment: Moment,
) -> Result<Vec<Event>, Refusal> {
    let mut deciding = Deciding::new(compiled, customer, state.clone(), moment);
    match input {
        Input::Signal(signal) => deciding.signal(signal),
        Input::Customer => deciding.customer_changed(),
        Input::Timer {
            visit,
            place,
            round,
        } => deciding.timer(visit, place, round),
        Input::ActionResult {
            action,
            attempt,
            result,
        } => deciding.action_result(action, attempt, result),
        Input::Command(command) => deciding.command(command)?,
        Input::Release => deciding.release(),
    }
    Ok(deciding.events)
}

/// A decision being made: the state as it becomes with every event.
pub(crate) struct Deciding<'a> {
    pub compiled: &'a Compiled,
    pub customer: &'a Customer,
    pub state: Execution,
    pub events: Vec<Event>,
    pub at: Time,
    pub occurred: Time,
    gate: Gate,
    /// A fact or a variable became another, or a move was made, since conditions were tried.
    unsettled: bool,
    /// The value of a fact or variable became another in this decision.
    changed: bool,
    /// The signal being decided may have changed the customer record, and the journey asks about it.
    customer_new: bool,
    /// Timers that wait for a hold to end came due before what is decided now: they fire when it goes on.
    due_stays: bool,
}

/// An expression could not be computed: recorded, and nothing moves because of this input.
pub(crate) struct Broken;

impl<'a> Deciding<'a> {
    pub(crate) fn new(
        compiled: &'a Compiled,
        customer: &'a Customer,
        state: Execution,
        moment: Moment,
    ) -> Self {
        Deciding {
            compiled,
            customer,
            state,
            events: Vec::new(),
            at: moment.at,
            occurred: moment.occurred.min(moment.at),
            gate: moment.gate,
            unsettled: false,
            changed: false,
            customer_new: false,
            due_stays: false,
        }
    }

    /// Adds an event, and the state is what it makes of it.
    pub(crate) fn emit(&mut self, what: What) {
        let event = Event {
            number: self.state.next,
            at: self.at,
            occurred: self.occurred,
            what,
        };
        crate::evolve::evolve(&mut self.state, &event);
        self.events.push(event);
    }

    /// The stage that it is in; `None` when this version has no such stage.
    pub(crate) fn stage(&self) -> Option<&'a Stage> {
        let compiled = self.compiled;
        compiled
            .by_name
            .get(&self.state.visit.stage)
            .and_then(|n| compiled.stages.get(*n))
    }

    pub(crate) fn scope<'s>(&'s self, signal: Option<&'s Signal>) -> Scope<'s> {
        Scope {
            signal,
            customer: self.customer,
            execution: Some(&self.state),
            now: self.at,
        }
    }

    /// Whether every given condition holds. What is unknown does not hold; what cannot be computed is an incident.
    pub(crate) fn holds(
        &mut self,
        place: &str,
        signal: Option<&Signal>,
        conditions: [Option<&Expression>; 2],
    ) -> Result<bool, Broken> {
        for condition in conditions.into_iter().flatten() {
            match condition.holds(&self.compiled.base, &self.scope(signal)) {
                Ok(true) => {}
                Ok(false) | Err(Miss::Unknown(_)) => return Ok(false),
                Err(Miss::Error(error)) => {
                    self.incident(
                        place,
                        format!("`{}` cannot be computed: {error}", condition.source),
                    );
                    return Err(Broken);
                }
            }
        }
        Ok(true)
    }

    /// Records an incident, unless it is the unresolved one over again.
    pub(crate) fn incident(&mut self, place: &str, message: String) {
        let known = self
            .state
            .incident
            .as_ref()
            .is_some_and(|i| i.place == place && i.message == message);
        if !known {
            self.emit(What::Incident {
                place: place.to_owned(),
                message,
                action: None,
            });
        }
    }

    /// Whether what comes in must wait: held by hand, held with its journey, or behind others that still wait.
    pub(crate) fn must_wait(&self) -> bool {
        self.state.status == Status::Held || self.gate == Gate::Held || self.state.has_waiting()
    }

    /// Whether nothing may move now.
    pub(crate) fn is_still(&self) -> bool {
        self.state.status != Status::Active || self.gate == Gate::Held
    }
}

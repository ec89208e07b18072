//! What a state becomes by one event. Total: any event on any state gives a state, and nothing here reads a definition,
//! a clock or an expression, so that every replica makes the same of the same events, whatever its version.

use crate::event::{Action, ActionOutcome, Cause, Event, What};
use crate::execution::{
    Execution, Fact, Failed, Incident, Owed, Seen, Stamp, Status, Timer, Visit,
};
use crate::time::Time;
use std::collections::BTreeMap;

impl Execution {
    /// The state that a first event makes; `None` when the event is no start.
    pub fn begin(event: &Event) -> Option<Execution> {
        let What::Started {
            journey,
            version,
            customer,
            instance,
            run,
            stage,
        } = &event.what
        else {
            return None;
        };
        let stamp = Stamp {
            at: event.at,
            occurred: event.occurred,
        };
        Some(Execution {
            journey: journey.clone(),
            version: *version,
            customer: customer.clone(),
            instance: instance.clone(),
            run: *run,
            next: event.number.saturating_add(1),
            status: Status::Active,
            outcome: None,
            started: stamp,
            ended: None,
            visit: Visit {
                number: 1,
                stage: stage.clone(),
                began: stamp,
            },
            facts: BTreeMap::new(),
            vars: BTreeMap::new(),
            kept: BTreeMap::new(),
            patterns: BTreeMap::new(),
            timers: Vec::new(),
            owed: Vec::new(),
            failed: Vec::new(),
            overdue: false,
            stalled: false,
            incident: None,
            goal: None,
            hold: None,
            waiting: Vec::new(),
        })
    }

    /// The state after a whole timeline; `None` when it is empty or does not begin with a start.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<Execution> {
        let mut events = events.into_iter();
        let mut state = Execution::begin(events.next()?)?;
        for event in events {
            evolve(&mut state, event);
        }
        Some(state)
    }

    /// Whether it has ended.
    pub fn is_ended(&self) -> bool {
        !matches!(self.status, Status::Active | Status::Held)
    }

    /// Whether something that waited for a hold to end is there: signals or due timers.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.timers.iter().any(|t| t.waits)
    }
}

/// Makes of a state what it is after one event.
pub fn evolve(state: &mut Execution, event: &Event) {
    state.next = event.number.saturating_add(1);
    let stamp = Stamp {
        at: event.at,
        occurred: event.occurred,
    };
    match &event.what {
        // The first event makes the state (`begin`); met again it changes nothing.
        What::Started { .. } | What::Unmatched { .. } | What::Refused { .. } => {}
        What::Fact { path, value, .. } => {
            let fact = Fact {
                value: value.clone(),
                occurred: event.occurred,
                position: event.number,
            };
            state.facts.insert(path.clone(), fact);
        }
        What::Variable { name, value, .. } => {
            state.vars.insert(name.clone(), value.clone());
        }
        What::Kept { name, value } => {
            state.kept.insert(name.clone(), value.clone());
        }
        What::Seen { place, step } => {
            // What a pattern saw also ends the wait of an absence at the same place.
            let visit = state.visit.number;
            state
                .timers
                .retain(|t| t.visit != visit || t.place != *place);
            state.patterns.entry(place.clone()).or_default().push(Seen {
                step: *step,
                at: event.at,
            });
        }
        What::Forgotten { place } => {
            state.patterns.remove(place);
        }
        What::Moved {
            to, visit, cause, ..
        } => {
            state.visit = Visit {
                number: *visit,
                stage: to.clone(),
                began: stamp,
            };
            state.patterns.clear();
            state.timers.retain(|t| t.visit == 0);
            state.overdue = false;
            state.stalled = false;
            // Who moved it by hand has looked at it.
            if matches!(cause, Cause::Override(_)) {
                state.incident = None;
            }
        }
        What::TimerArmed(timer) => arm(state, timer),
        What::TimerFired {
            visit,
            place,
            round,
        } => {
            state.timers.retain(|t| !is(t, *visit, place, *round));
        }
        What::TimerWaits {
            visit,
            place,
            round,
        } => {
            let behind = u32::try_from(state.waiting.len()).unwrap_or(u32::MAX);
            for timer in state
                .timers
                .iter_mut()
                .filter(|t| is(t, *visit, place, *round))
            {
                timer.waits = true;
                timer.behind = behind;
            }
        }
        What::Action(action) => owe(state, event.number, action),
        What::Attempted {
            action,
            attempt,
            next,
            ..
        } => {
            for owed in state.owed.iter_mut().filter(|o| o.number == *action) {
                owed.attempts = *attempt;
                owed.next = Some(*next);
            }
        }
        What::Settled {
            action,
            attempt,
            outcome,
        } => match outcome {
            ActionOutcome::Failed { error } => fail(state, *action, *attempt, error, event.at),
            ActionOutcome::Done { .. } | ActionOutcome::Skipped { .. } => {
                state.owed.retain(|o| o.number != *action);
                resolve(state);
            }
        },
        What::Retried {
            action, new_key, ..
        } => retry(state, *action, new_key.then_some(event.number)),
        What::Skipped { action, .. } => {
            state.failed.retain(|f| f.number != *action);
            resolve(state);
        }
        What::GoalReached { .. } => state.goal = Some(event.occurred),
        What::Overdue { .. } => state.overdue = true,
        What::Stalled => state.stalled = true,
        What::Incident {
            place,
            message,
            action,
        } => {
            let incident = Incident {
                number: event.number,
                place: place.clone(),
                message: message.clone(),
                action: *action,
            };
            state.incident = Some(incident);
        }
        What::Held { actor, reason } => {
            state.status = Status::Held;
            state.hold = Some(crate::event::By {
                actor: actor.clone(),
                reason: reason.clone(),
            });
        }
        What::Resumed { .. } => {
            state.status = Status::Active;
            state.hold = None;
        }
        What::SignalWaits(signal) => {
            let mut signal = (**signal).clone();
            // It happened when it happened, however long it waits.
            signal.time = Some(event.occurred);
            state.waiting.push(signal);
        }
        What::SignalTaken => {
            if !state.waiting.is_empty() {
                state.waiting.remove(0);
            }
            for timer in &mut state.timers {
                timer.behind = timer.behind.saturating_sub(1);
            }
        }
        What::Ended {
            status, outcome, ..
        } => {
            state.status = *status;
            state.outcome = outcome.clone();
            state.ended = Some(stamp);
            state.timers.clear();
            state.patterns.clear();
            state.waiting.clear();
            state.hold = None;
        }
    }
}

fn is(timer: &Timer, visit: u32, place: &str, round: u32) -> bool {
    timer.visit == visit && timer.round == round && timer.place == place
}

/// One place has one armed timer at most; arming again replaces it.
fn arm(state: &mut Execution, timer: &Timer) {
    state
        .timers
        .retain(|t| t.visit != timer.visit || t.place != timer.place);
    state.timers.push(timer.clone());
}

fn owe(state: &mut Execution, number: u64, action: &Action) {
    state.owed.push(Owed {
        number,
        key: number,
        action: action.clone(),
        attempts: 0,
        before: 0,
        next: None,
    });
}

/// What was owed is not any more, and is kept for somebody to look at.
fn fail(state: &mut Execution, number: u64, attempts: u32, error: &str, at: Time) {
    while let Some(place) = state.owed.iter().position(|o| o.number == number) {
        let owed = state.owed.remove(place);
        state.failed.push(Failed {
            number,
            key: owed.key,
            action: owed.action,
            attempts,
            error: error.to_owned(),
            at,
        });
    }
}

/// What failed is owed again, in the place that its number gives it: what its list still has to do comes after it.
fn retry(state: &mut Execution, number: u64, new_key: Option<u64>) {
    while let Some(place) = state.failed.iter().position(|f| f.number == number) {
        let failed = state.failed.remove(place);
        let owed = Owed {
            number,
            key: new_key.unwrap_or(failed.key),
            action: failed.action,
            attempts: failed.attempts,
            before: failed.attempts,
            next: None,
        };
        let after = state.owed.iter().take_while(|o| o.number < number).count();
        state.owed.insert(after, owed);
    }
}

/// The incident of a failed action is resolved when none is left that failed or is tried again by hand.
fn resolve(state: &mut Execution) {
    let left = !state.failed.is_empty() || state.owed.iter().any(|o| o.before > 0);
    if !left {
        state.incident.take_if(|i| i.action.is_some());
    }
}

//! Moving: leaving, the transition's own actions, the new visit with its timers, entering; then what follows by itself.

use super::{Broken, Deciding};
use crate::compiled::{Transition, Trigger};
use crate::event::{By, Cause, What};
use crate::execution::{Status, Timer, TimerKind};
use crate::expr::{Expression, Miss};
use crate::limits;
use crate::signal::Signal;
use crate::time::Time;
use crate::value::Value;
use crate::wait::Wait;

/// On whose account a move is made.
#[derive(Clone, Copy)]
pub(crate) struct Why<'a> {
    /// The transition whose values are kept and whose actions run.
    pub transition: Option<&'a Transition>,
    /// The signal that its expressions see.
    pub signal: Option<&'a Signal>,
}

/// The place of a stage's `stalled_after`.
pub(crate) fn stalled_place(stage: &str) -> String {
    format!("stage/{stage}/stalled_after")
}

impl Deciding<'_> {
    /// One move: leaving actions, transition actions, the new visit, its timers, entering actions.
    pub(super) fn go(&mut self, to: usize, cause: Cause, why: Why<'_>) {
        let compiled = self.compiled;
        let Some(stage) = compiled.stages.get(to) else {
            return;
        };
        self.leave(why.signal);
        if let Some(transition) = why.transition {
            for (name, expression) in &transition.keep {
                self.keep(&transition.place, name, expression, why.signal);
            }
            self.owe(&transition.actions, why.signal);
        }
        let visit = self.state.visit.number.saturating_add(1);
        let from = self.state.visit.stage.clone();
        self.emit(What::Moved {
            from,
            to: stage.name.clone(),
            visit,
            cause,
        });
        self.unsettled = true;
        self.arrive(why.signal);
    }

    /// What a new visit brings: timers, entering actions, the goal, the end.
    pub(crate) fn arrive(&mut self, signal: Option<&Signal>) {
        let Some(stage) = self.stage() else { return };
        if stage.end.is_none() {
            self.arm_stage(signal);
        }
        self.owe(&stage.enter, signal);
        self.goal(signal);
        if let Some(outcome) = &stage.end {
            self.end(Status::Completed, Some(outcome.clone()), None);
        }
    }

    /// The leaving actions of the current stage.
    pub(super) fn leave(&mut self, signal: Option<&Signal>) {
        if let Some(stage) = self.stage() {
            self.owe(&stage.leave, signal);
        }
    }

    pub(super) fn end(&mut self, status: Status, outcome: Option<String>, by: Option<By>) {
        let stage = self.state.visit.stage.clone();
        self.emit(What::Ended {
            status,
            stage,
            outcome,
            by,
        });
    }

    fn keep(&mut self, place: &str, name: &str, expression: &Expression, signal: Option<&Signal>) {
        match expression.eval(&self.compiled.base, &self.scope(signal)) {
            Ok(value) => match self.room(name, &value, self.state.kept.get(name)) {
                Ok(()) => self.emit(What::Kept {
                    name: name.to_owned(),
                    value,
                }),
                Err(full) => {
                    self.incident(&format!("{place}/keep/{name}"), format!("`{name}` {full}"))
                }
            },
            // What never arrived cannot be kept.
            Err(Miss::Unknown(_)) => {}
            Err(Miss::Error(error)) => {
                let message = format!("`{}` cannot be computed: {error}", expression.source);
                self.incident(&format!("{place}/keep/{name}"), message);
            }
        }
    }

    fn goal(&mut self, signal: Option<&Signal>) {
        let compiled = self.compiled;
        let Some(goal) = &compiled.goal else { return };
        let here = compiled
            .stages
            .get(goal.stage)
            .is_some_and(|s| s.name == self.state.visit.stage);
        if !here || self.state.goal.is_some() {
            return;
        }
        let within = match &goal.within {
            None => true,
            Some(wait) => {
                // a report, so it goes by when things occurred
                let from = self.state.started.occurred;
                let due = wait.due(from, &compiled.base, &self.scope(signal));
                due.is_ok_and(|due| self.occurred <= due)
            }
        };
        self.emit(What::GoalReached { within });
    }

    /// After something became known that no signal brought, or after a hold: exit rules that need no signal, then rule 5,
    /// then the timers.
    pub(super) fn go_on(&mut self) {
        if self.is_still() || self.state.has_waiting() {
            return;
        }
        self.take_customer();
        if let Ok(false) = self.unnamed_exits(None) {
            self.settle();
        }
        self.unsettled = false;
        if (self.changed || self.compiled.wakes_on_customer) && !self.state.is_ended() {
            self.rearm();
        }
    }

    /// Rule 5: transitions that need no signal, one after another.
    pub(crate) fn settle(&mut self) {
        let mut moves = 0;
        self.unsettled = false;
        while !self.is_still() {
            match self.open_condition() {
                Ok(Some(transition)) if moves < limits::MOVES_IN_A_ROW => {
                    let cause = Cause::Condition {
                        place: transition.place.clone(),
                    };
                    self.go(
                        transition.to,
                        cause,
                        Why {
                            transition: Some(transition),
                            signal: None,
                        },
                    );
                    moves += 1;
                }
                Ok(Some(transition)) => {
                    let message = format!(
                        "{moves} automatic moves in a row, and this transition would go on: it stays in `{}`",
                        self.state.visit.stage
                    );
                    self.incident(&transition.place, message);
                    break;
                }
                Ok(None) | Err(Broken) => break,
            }
        }
        self.unsettled = false;
    }

    /// When a wait is over that begins at `from`; `None` when it needs what has never arrived.
    pub(super) fn due(
        &mut self,
        place: &str,
        wait: &Wait,
        from: Time,
    ) -> Result<Option<Time>, Broken> {
        let due = wait.due(from, &self.compiled.base, &self.scope(None));
        self.due_or_incident(place, &wait.source, due)
    }

    fn due_or_incident(
        &mut self,
        place: &str,
        source: &str,
        due: Result<Time, Miss>,
    ) -> Result<Option<Time>, Broken> {
        match due {
            Ok(due) => Ok(Some(due)),
            Err(Miss::Unknown(_)) => Ok(None),
            Err(Miss::Error(error)) => {
                self.incident(place, format!("`{source}` cannot be computed: {error}"));
                Err(Broken)
            }
        }
    }

    /// Arms the journey's own timers.
    pub(crate) fn arm_journey(&mut self, signal: Option<&Signal>) {
        let compiled = self.compiled;
        let from = self.state.started.at;
        for deadline in &compiled.deadlines {
            self.arm_wait(
                0,
                TimerKind::JourneyDeadline,
                &deadline.place,
                &deadline.after,
                from,
                signal,
            );
        }
    }

    /// Arms the timers of the visit that just began.
    fn arm_stage(&mut self, signal: Option<&Signal>) {
        let Some(stage) = self.stage() else { return };
        let visit = self.state.visit.number;
        let from = self.state.visit.began.at;
        for transition in &stage.transitions {
            match &transition.trigger {
                Trigger::Absent {
                    after: None,
                    within,
                    ..
                } => {
                    self.arm_wait(
                        visit,
                        TimerKind::Absent,
                        &transition.place,
                        within,
                        from,
                        signal,
                    );
                }
                Trigger::After(wait) => {
                    self.arm_wait(
                        visit,
                        TimerKind::Delay,
                        &transition.place,
                        wait,
                        from,
                        signal,
                    );
                }
                Trigger::At(expression) => self.arm_at(&transition.place, expression, signal),
                _ => {}
            }
        }
        for repeat in &stage.repeats {
            self.arm_wait(
                visit,
                TimerKind::Repeat,
                &repeat.place,
                &repeat.every,
                from,
                signal,
            );
        }
        if let Some(wait) = &stage.stalled_after {
            self.arm_wait(
                visit,
                TimerKind::Stalled,
                &stalled_place(&stage.name),
                wait,
                from,
                signal,
            );
        }
        for deadline in &stage.deadlines {
            self.arm_wait(
                visit,
                TimerKind::StageDeadline,
                &deadline.place,
                &deadline.after,
                from,
                signal,
            );
        }
    }

    fn arm_wait(
        &mut self,
        visit: u32,
        kind: TimerKind,
        place: &str,
        wait: &Wait,
        from: Time,
        signal: Option<&Signal>,
    ) {
        let due = wait.due(from, &self.compiled.base, &self.scope(signal));
        if let Ok(Some(due)) = self.due_or_incident(place, &wait.source, due) {
            self.arm(visit, kind, place, due, 1);
        }
    }

    fn arm_at(&mut self, place: &str, expression: &Expression, signal: Option<&Signal>) {
        let due = point(expression.eval(&self.compiled.base, &self.scope(signal)));
        if let Ok(Some(due)) = self.due_or_incident(place, &expression.source, due) {
            self.arm(self.state.visit.number, TimerKind::Delay, place, due, 1);
        }
    }

    pub(super) fn arm(&mut self, visit: u32, kind: TimerKind, place: &str, due: Time, round: u32) {
        self.emit(What::TimerArmed(Timer {
            visit,
            kind,
            place: place.to_owned(),
            due,
            round,
            waits: false,
            behind: 0,
        }));
    }

    /// After a change of facts or of the customer, timers whose time comes from what is known are armed anew, where that time became
    /// another. Without a signal: what the signal of the visit's begin gave stays as it was.
    pub(super) fn rearm(&mut self) {
        let compiled = self.compiled;
        if let Some(stage) = self.stage() {
            let visit = self.state.visit.number;
            for transition in &stage.transitions {
                let place = &transition.place;
                match &transition.trigger {
                    Trigger::At(expression) => {
                        let due = point(expression.eval(&compiled.base, &self.scope(None)));
                        self.rearm_one(visit, TimerKind::Delay, place, &expression.source, due);
                    }
                    Trigger::After(wait) => self.rearm_wait(visit, TimerKind::Delay, place, wait),
                    // An absence is settled once: by its signal, or by its time. One that begins at a signal is armed there.
                    Trigger::Absent { after, within, .. } => {
                        let settled = after.is_some() || self.state.patterns.contains_key(place);
                        if self.armed(place) || !settled {
                            self.rearm_wait(visit, TimerKind::Absent, place, within);
                        }
                    }
                    _ => {}
                }
            }
            if let Some(wait) = stage.stalled_after.as_ref().filter(|_| !self.state.stalled) {
                self.rearm_wait(visit, TimerKind::Stalled, &stalled_place(&stage.name), wait);
            }
            for deadline in &stage.deadlines {
                self.rearm_wait(
                    visit,
                    TimerKind::StageDeadline,
                    &deadline.place,
                    &deadline.after,
                );
            }
        }
        for deadline in &compiled.deadlines {
            self.rearm_wait(
                0,
                TimerKind::JourneyDeadline,
                &deadline.place,
                &deadline.after,
            );
        }
    }

    fn rearm_wait(&mut self, visit: u32, kind: TimerKind, place: &str, wait: &Wait) {
        // Only a wait on a field can become another.
        if wait.expression().is_none() {
            return;
        }
        let from = if visit == 0 {
            self.state.started.at
        } else {
            self.state.visit.began.at
        };
        let due = wait.due(from, &self.compiled.base, &self.scope(None));
        self.rearm_one(visit, kind, place, &wait.source, due);
    }

    fn rearm_one(
        &mut self,
        visit: u32,
        kind: TimerKind,
        place: &str,
        source: &str,
        due: Result<Time, Miss>,
    ) {
        let Ok(Some(due)) = self.due_or_incident(place, source, due) else {
            return;
        };
        let (again, round) = match self
            .state
            .timers
            .iter()
            .find(|t| t.visit == visit && t.place == place)
        {
            Some(timer) => (
                timer.due != due && !(timer.waits && self.due_stays),
                timer.round.saturating_add(1),
            ),
            // A time that is past fires once: one that fired is marked as seen until the visit ends. Of the journey's
            // own timers none is marked, so a past one is not armed again.
            None => (
                due > self.at || (visit != 0 && !self.state.patterns.contains_key(place)),
                1,
            ),
        };
        if again {
            self.arm(visit, kind, place, due, round);
        }
    }
}

impl<'a> Deciding<'a> {
    /// The first transition of the current stage that needs no signal and holds.
    fn open_condition(&mut self) -> Result<Option<&'a Transition>, Broken> {
        let compiled = self.compiled;
        let Some(number) = compiled.by_name.get(&self.state.visit.stage) else {
            return Ok(None);
        };
        for transition in &compiled.stages[*number].transitions {
            if matches!(transition.trigger, Trigger::Condition)
                && self.holds(
                    &transition.place,
                    None,
                    [transition.where_.as_ref(), transition.when.as_ref()],
                )?
            {
                return Ok(Some(transition));
            }
        }
        Ok(None)
    }
}

/// A value as a point in time.
fn point(value: Result<Value, Miss>) -> Result<Time, Miss> {
    let value = value?;
    crate::wait::point(&value, &jiff::tz::TimeZone::UTC).ok_or_else(|| {
        let found = crate::problem::short(&value.to_text());
        Miss::Error(format!(
            "{found:?} is no time: expected one such as 2026-01-31T09:00:00+01:00"
        ))
    })
}

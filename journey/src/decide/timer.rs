//! A timer that came due. One of an old visit, one that was armed anew and one that is early change nothing.

use super::moves::Why;
use super::{Broken, Deciding};
use crate::compiled::{Repeat, Stage, Trigger};
use crate::event::{Cause, What};
use crate::execution::{Status, Timer, TimerKind};
use crate::expr::Miss;
use crate::time::Time;
use crate::wait::Wait;

impl Deciding<'_> {
    /// One timer on this execution.
    pub(super) fn timer(&mut self, visit: u32, place: &str, round: u32) {
        if self.state.is_ended() {
            return;
        }
        let same = |t: &&Timer| t.visit == visit && t.round == round && t.place == place;
        let Some(timer) = self.state.timers.iter().find(same).cloned() else {
            return;
        };
        let stale = visit != 0 && visit != self.state.visit.number;
        if stale || timer.waits || self.at < timer.due {
            return;
        }
        if self.must_wait() {
            self.emit(What::TimerWaits {
                visit,
                place: timer.place,
                round,
            });
            return;
        }
        self.fire(&timer);
    }

    /// What a due timer does.
    pub(super) fn fire(&mut self, timer: &Timer) {
        let Timer {
            visit,
            place,
            round,
            ..
        } = timer;
        self.changed = false;
        self.emit(What::TimerFired {
            visit: *visit,
            place: place.clone(),
            round: *round,
        });
        match timer.kind {
            TimerKind::Absent | TimerKind::Delay => self.open_by_time(timer),
            TimerKind::Repeat => self.repeat(timer),
            TimerKind::Stalled => self.emit(What::Stalled),
            TimerKind::StageDeadline => self.stage_deadline(place),
            TimerKind::JourneyDeadline => self.journey_deadline(place),
        }
        if self.unsettled && !self.state.is_ended() {
            self.settle();
        }
    }

    /// A transition that opens when something stayed away, after a delay, or at a time. Where its condition does not
    /// hold at that moment, it does not come again by itself in this visit.
    fn open_by_time(&mut self, timer: &Timer) {
        let Some(stage) = self.stage() else { return };
        let Some(transition) = stage.transitions.iter().find(|t| t.place == timer.place) else {
            return;
        };
        match self.holds(&timer.place, None, [None, transition.when.as_ref()]) {
            Ok(true) => {
                let cause = Cause::Timer {
                    place: timer.place.clone(),
                };
                self.go(
                    transition.to,
                    cause,
                    Why {
                        transition: Some(transition),
                        signal: None,
                    },
                );
            }
            Ok(false) | Err(Broken) => match &transition.trigger {
                Trigger::At(_) => self.mark(&timer.place),
                Trigger::After(wait)
                | Trigger::Absent {
                    after: None,
                    within: wait,
                    ..
                } => {
                    self.mark_field(&timer.place, wait);
                }
                _ => {}
            },
        }
    }

    /// Marks a place whose time comes from what is known, so that the same past time does not fire again.
    fn mark_field(&mut self, place: &str, wait: &Wait) {
        if wait.expression().is_some() {
            self.mark(place);
        }
    }

    fn mark(&mut self, place: &str) {
        if !self.state.patterns.contains_key(place) {
            self.emit(What::Seen {
                place: place.to_owned(),
                step: 0,
            });
        }
    }

    fn repeat(&mut self, timer: &Timer) {
        let Some(stage) = self.stage() else { return };
        let Some(repeat) = stage.repeats.iter().find(|r| r.place == timer.place) else {
            return;
        };
        self.owe(&repeat.actions, None);
        if repeat.at_most.is_some_and(|most| timer.round >= most) {
            return;
        }
        if let Some(due) = self.next_round(repeat, timer.due) {
            self.arm(
                timer.visit,
                TimerKind::Repeat,
                &timer.place,
                due,
                timer.round.saturating_add(1),
            );
        }
    }

    /// The first point of the rhythm that is still to come: one that missed several fires once and goes on in step.
    fn next_round(&mut self, repeat: &Repeat, last: Time) -> Option<Time> {
        let every = &repeat.every;
        let begin = self.state.visit.began.at;
        match every.next_in_rhythm(begin, last, self.at) {
            Ok(due) => Some(due),
            Err(Miss::Unknown(_)) => None,
            Err(Miss::Error(error)) => {
                let message = format!("`{}`: {error}; the repeat ends", every.source);
                self.incident(&repeat.place, message);
                None
            }
        }
    }

    fn stage_deadline(&mut self, place: &str) {
        let stage: Option<&Stage> = self.stage();
        let Some(deadline) = stage.and_then(|s| s.deadlines.iter().find(|d| d.place == place))
        else {
            return;
        };
        self.emit(What::Overdue {
            place: place.to_owned(),
        });
        self.owe(&deadline.escalate, None);
        if let Some(to) = deadline.to {
            self.go(
                to,
                Cause::Deadline {
                    place: place.to_owned(),
                },
                Why {
                    transition: None,
                    signal: None,
                },
            );
        } else {
            self.mark_field(place, &deadline.after);
        }
    }

    fn journey_deadline(&mut self, place: &str) {
        let compiled = self.compiled;
        let Some(deadline) = compiled.deadlines.iter().find(|d| d.place == place) else {
            return;
        };
        self.owe(&deadline.escalate, None);
        match deadline.to {
            Some(to) => {
                self.go(
                    to,
                    Cause::Deadline {
                        place: place.to_owned(),
                    },
                    Why {
                        transition: None,
                        signal: None,
                    },
                );
            }
            None => {
                self.leave(None);
                self.end(Status::Expired, None, None);
            }
        }
    }
}

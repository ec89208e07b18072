//! A signal: facts, exit rules, transitions that name it, automatic moves, or nothing.

use super::moves::Why;
use super::{Broken, Deciding};
use crate::compiled::{Exit, Transition, Trigger};
use crate::event::{Cause, What};
use crate::execution::{Status, Timer, TimerKind};
use crate::limits;
use crate::signal::Signal;

/// What a transition makes of a signal.
enum Match {
    /// It does not concern it, or its conditions do not hold.
    No,
    /// Its pattern saw it; it does not open yet.
    Saw(Vec<What>),
    /// It opens.
    Opens(Vec<What>),
}

impl Deciding<'_> {
    /// One signal on this execution.
    pub(super) fn signal(&mut self, signal: &Signal) {
        if self.state.is_ended() {
            return;
        }
        if self.must_wait() {
            self.queue(signal);
            return;
        }
        self.apply_signal(signal, true);
    }

    /// Puts a signal behind those that wait, if there is room.
    pub(super) fn queue(&mut self, signal: &Signal) {
        let weight: usize =
            self.state.waiting.iter().map(Signal::weight).sum::<usize>() + signal.weight();
        if self.state.waiting.len() >= limits::WAITING_SIGNALS || weight > limits::WAITING_BYTES {
            self.emit(What::Refused {
                kind: signal.kind.clone(),
                reason: format!(
                    "held queue full: {} signals wait, at most {} or {} bytes may",
                    self.state.waiting.len(),
                    limits::WAITING_SIGNALS,
                    limits::WAITING_BYTES
                ),
            });
        } else {
            self.emit(What::SignalWaits(Box::new(signal.clone())));
        }
    }

    /// Rules 2 to 6. `reported`: a signal that came from outside and is recorded as unmatched when it does nothing.
    pub(super) fn apply_signal(&mut self, signal: &Signal, reported: bool) {
        self.changed = false;
        self.customer_new = self.compiled.wakes_on_customer && tells_of_customer(signal);
        let before = self.events.len();
        self.take_facts(signal);
        // What cannot be computed moves nobody; the incident is recorded.
        let moved = self.react(signal).unwrap_or_default();
        if (self.changed || self.customer_new) && !self.state.is_ended() {
            self.rearm();
        }
        self.customer_new = false;
        let did = |what: &What| {
            matches!(
                what,
                What::Seen { .. } | What::TimerArmed(_) | What::Moved { .. } | What::Ended { .. }
            )
        };
        let active = moved || self.changed || self.events[before..].iter().any(|e| did(&e.what));
        if !active && reported {
            self.emit(What::Unmatched {
                kind: signal.kind.clone(),
            });
        }
    }

    /// The entry signal: it sets facts and variables, visit 1 begins, and rule 5 follows.
    pub(crate) fn begin(&mut self, signal: &Signal) {
        self.take_facts(signal);
        self.arm_journey(Some(signal));
        self.arrive(Some(signal));
        // Of the exit rules those are tried that need no signal: the one that enters is not one that ends.
        if !self.state.is_ended()
            && let Ok(false) = self.unnamed_exits(Some(signal))
        {
            self.settle();
        }
    }

    /// The customer record became another by a signal for others. What came due before stays due, and nothing moves
    /// while it is held: then conditions are tried when it goes on.
    pub(super) fn customer_changed(&mut self) {
        if self.state.is_ended() || !self.compiled.wakes_on_customer {
            return;
        }
        if self.must_wait() {
            self.due_stays = true;
            self.rearm();
        } else {
            self.go_on();
        }
    }

    /// Rules 3 to 5. Whether it moved or ended.
    fn react(&mut self, signal: &Signal) -> Result<bool, Broken> {
        if self.exits(signal)? {
            return Ok(true);
        }
        let moved = self.transitions(signal)?;
        if moved || self.unsettled || self.customer_new {
            self.settle();
        }
        Ok(moved)
    }

    /// Rule 3, for a signal: rules that name it, and where something became another those that name none.
    fn exits(&mut self, signal: &Signal) -> Result<bool, Broken> {
        let all = self.changed || self.customer_new;
        self.first_exit(Some(signal), |exit| {
            if exit.on.is_empty() {
                all
            } else {
                exit.on.contains(&signal.kind)
            }
        })
    }

    /// Rule 3, for the rules that name no signal.
    pub(super) fn unnamed_exits(&mut self, signal: Option<&Signal>) -> Result<bool, Broken> {
        self.first_exit(signal, |exit| exit.on.is_empty())
    }

    fn first_exit(
        &mut self,
        signal: Option<&Signal>,
        tried: impl Fn(&Exit) -> bool,
    ) -> Result<bool, Broken> {
        let compiled = self.compiled;
        for exit in compiled.exit.iter().filter(|e| tried(e)) {
            let tests = [exit.where_.as_ref(), exit.when.as_ref()];
            if self.holds(&exit.place, signal, tests)? {
                self.leave(signal);
                self.end(Status::Exited, exit.outcome.clone(), None);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Rule 4: the first transition that opens is taken. What patterns before it saw is gone with the visit; where none
    /// opens, all of it is kept.
    fn transitions(&mut self, signal: &Signal) -> Result<bool, Broken> {
        let Some(stage) = self.stage() else {
            return Ok(false);
        };
        let mut seen = Vec::new();
        for transition in &stage.transitions {
            match self.matches(transition, signal) {
                Ok(Match::No) => {}
                Ok(Match::Saw(events)) => seen.extend(events),
                Ok(Match::Opens(events)) => {
                    events.into_iter().for_each(|e| self.emit(e));
                    let cause = Cause::Signal {
                        place: transition.place.clone(),
                    };
                    self.go(
                        transition.to,
                        cause,
                        Why {
                            transition: Some(transition),
                            signal: Some(signal),
                        },
                    );
                    return Ok(true);
                }
                Err(Broken) => {
                    seen.into_iter().for_each(|e| self.emit(e));
                    return Err(Broken);
                }
            }
        }
        seen.into_iter().for_each(|e| self.emit(e));
        Ok(false)
    }

    fn matches(&mut self, transition: &Transition, signal: &Signal) -> Result<Match, Broken> {
        let place = &transition.place;
        let where_ = transition.where_.as_ref();
        match &transition.trigger {
            Trigger::Any(kinds) => {
                let opens = kinds.contains(&signal.kind)
                    && self.holds(place, Some(signal), [where_, transition.when.as_ref()])?;
                Ok(if opens {
                    Match::Opens(Vec::new())
                } else {
                    Match::No
                })
            }
            Trigger::All { kinds, within } => {
                if !kinds.contains(&signal.kind)
                    || !self.holds(place, Some(signal), [where_, None])?
                {
                    return Ok(Match::No);
                }
                if let Some(late) = self.out_of_window(place, within.as_ref())? {
                    return Ok(late);
                }
                let known = |step: usize, own: &Self| own.saw(place, step);
                let step = (0..kinds.len()).find(|s| kinds[*s] == signal.kind && !known(*s, self));
                let open = (0..kinds.len()).filter(|s| !known(*s, self)).count();
                self.pattern(transition, signal, step, open)
            }
            Trigger::Sequence { kinds, within } => {
                let next = self.state.patterns.get(place).map_or(0, Vec::len);
                // A whole sequence is tried again by a signal of its last type.
                let step = if next < kinds.len() { Some(next) } else { None };
                let expected = step.unwrap_or(kinds.len().saturating_sub(1));
                if kinds.get(expected) != Some(&signal.kind)
                    || !self.holds(place, Some(signal), [where_, None])?
                {
                    return Ok(Match::No);
                }
                if let Some(late) = self.out_of_window(place, within.as_ref())? {
                    return Ok(late);
                }
                self.pattern(
                    transition,
                    signal,
                    step,
                    kinds.len() - next.min(kinds.len()),
                )
            }
            Trigger::Absent {
                kind,
                after,
                within,
            } => {
                let waits = self.armed(place);
                // The span of a field that is not known yet runs too, from the begin of the visit.
                let open = after.is_none()
                    && within.expression().is_some()
                    && !self.state.patterns.contains_key(place);
                if *kind == signal.kind && (waits || open) {
                    let came = self.holds(place, Some(signal), [where_, None])?;
                    // Step 0 begins the span where one does; what ends it comes after.
                    let step = u32::from(after.is_some());
                    return Ok(if came {
                        self.saw_step(place, step)
                    } else {
                        Match::No
                    });
                }
                if after.as_ref() == Some(&signal.kind)
                    && !waits
                    && self.holds(place, Some(signal), [where_, None])?
                {
                    let Some(due) = self.due(place, within, self.at)? else {
                        return Ok(Match::No);
                    };
                    let rounds = self
                        .state
                        .patterns
                        .get(place)
                        .map_or(0, |s| s.iter().filter(|s| s.step == 0).count());
                    let timer = Timer {
                        visit: self.state.visit.number,
                        kind: TimerKind::Absent,
                        place: place.clone(),
                        due,
                        round: u32::try_from(rounds).unwrap_or(u32::MAX).saturating_add(1),
                        waits: false,
                        behind: 0,
                    };
                    let Match::Saw(mut events) = self.saw_step(place, 0) else {
                        return Ok(Match::No);
                    };
                    events.push(What::TimerArmed(timer));
                    return Ok(Match::Saw(events));
                }
                Ok(Match::No)
            }
            Trigger::After(_) | Trigger::At(_) | Trigger::Condition | Trigger::ByHand => {
                Ok(Match::No)
            }
        }
    }

    /// A signal that belongs to a pattern of which `open` steps are unseen, of which it is `step`.
    fn pattern(
        &mut self,
        transition: &Transition,
        signal: &Signal,
        step: Option<usize>,
        open: usize,
    ) -> Result<Match, Broken> {
        let place = &transition.place;
        let events: Vec<What> = step
            .map(|s| What::Seen {
                place: place.clone(),
                step: u32::try_from(s).unwrap_or(u32::MAX),
            })
            .into_iter()
            .collect();
        let whole = open <= events.len();
        if whole && self.holds(place, Some(signal), [None, transition.when.as_ref()])? {
            return Ok(Match::Opens(events));
        }
        Ok(if events.is_empty() {
            Match::No
        } else {
            Match::Saw(events)
        })
    }

    /// What is left of a pattern after its window: nothing; progress is dropped.
    fn out_of_window(
        &mut self,
        place: &str,
        within: Option<&crate::wait::Wait>,
    ) -> Result<Option<Match>, Broken> {
        let Some(within) = within else {
            return Ok(None);
        };
        let Some(end) = self.due(place, within, self.state.visit.began.at)? else {
            return Ok(Some(Match::No));
        };
        if self.at <= end {
            return Ok(None);
        }
        let progress = self.state.patterns.contains_key(place);
        let dropped = progress.then(|| What::Forgotten {
            place: place.to_owned(),
        });
        Ok(Some(dropped.map_or(Match::No, |d| Match::Saw(vec![d]))))
    }

    fn saw(&self, place: &str, step: usize) -> bool {
        self.state
            .patterns
            .get(place)
            .is_some_and(|s| s.iter().any(|s| s.step as usize == step))
    }

    /// One more step seen; a list at its limit begins anew.
    fn saw_step(&self, place: &str, step: u32) -> Match {
        let seen = What::Seen {
            place: place.to_owned(),
            step,
        };
        let full = self
            .state
            .patterns
            .get(place)
            .is_some_and(|s| s.len() >= limits::PATTERN_SIGNALS);
        if full {
            Match::Saw(vec![
                What::Forgotten {
                    place: place.to_owned(),
                },
                seen,
            ])
        } else {
            Match::Saw(vec![seen])
        }
    }

    pub(super) fn armed(&self, place: &str) -> bool {
        let visit = self.state.visit.number;
        self.state
            .timers
            .iter()
            .any(|t| t.visit == visit && t.place == place)
    }
}

/// Whether a signal may change what is known of its customer: it brings attributes, or identifiers beside the key.
fn tells_of_customer(signal: &Signal) -> bool {
    !signal.attributes.is_empty() || signal.identifiers.len() > 1
}

//! Why an execution is where it is: every way out, what it waits for, what already holds, and what has never arrived.
//! Decides nothing: it reads the same conditions that `decide` reads.

use crate::compiled::{Compiled, Stage, Transition, Trigger};
use crate::customer::Customer;
use crate::event::By;
use crate::execution::{Execution, Failed, Incident, Status, Timer, TimerKind};
use crate::expr::{Expression, Holds, Part, Scope};
use crate::time::Time;
use crate::wait::Wait;
use std::fmt::Write;

/// Where an execution stands and what could happen to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The stage.
    pub stage: String,
    /// How it stands.
    pub status: Status,
    /// The outcome, once ended with one.
    pub outcome: Option<String>,
    /// When this visit began (`at`).
    pub since: Time,
    /// The number of this visit.
    pub visit: u32,
    /// The ways out, in order of precedence.
    pub ways: Vec<Way>,
    /// The exit rules, in order.
    pub exits: Vec<Way>,
    /// Timers that move nobody by themselves, or end or move it at a deadline: repeats, stalled, deadlines.
    pub deadlines: Vec<Deadline>,
    /// Who holds it and why.
    pub held: Option<By>,
    /// Signals and due timers that wait for the hold to end.
    pub waiting: usize,
    /// Actions that are owed still, by place.
    pub owed: Vec<String>,
    /// Actions that failed: each is to be retried or skipped by hand.
    pub failed: Vec<Failed>,
    /// The latest unresolved incident.
    pub incident: Option<Incident>,
    /// All of it in one sentence.
    pub text: String,
}

/// One way out: a transition or an exit rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Way {
    /// Its place in the journey.
    pub place: String,
    /// The stage it leads to; for an exit rule, the outcome or nothing.
    pub to: String,
    /// What it waits for.
    pub waits_for: Vec<Waiting>,
    /// The parts of its `when`, each with whether it holds now.
    pub parts: Vec<Part>,
    /// When time opens it, where time does.
    pub opens_at: Option<Time>,
    /// What has never arrived of that which its `when` needs: the paths, as written.
    pub missing: Vec<String>,
    /// The same in words.
    pub text: String,
}

/// One thing that a way out waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// A signal of this type.
    Signal {
        /// The type.
        kind: String,
        /// What the signal must fulfil, as written.
        where_: Option<String>,
        /// Until when it counts, where it does so only for a time. Once past, nothing opens this way in this visit.
        until: Option<Time>,
    },
    /// That no signal of this type comes.
    Absence {
        /// The type.
        kind: String,
        /// Until when it must stay away; `None` while the span has not begun, or when it came.
        until: Option<Time>,
    },
    /// A point in time.
    Time {
        /// When; `None` when it is not known yet, or has passed without opening the way.
        at: Option<Time>,
        /// What gives it, as written.
        source: String,
    },
    /// That its condition holds.
    Condition,
    /// Somebody who moves it by hand.
    ByHand,
}

/// A timer that runs beside the ways out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// Its place in the journey.
    pub place: String,
    /// What it is for.
    pub kind: TimerKind,
    /// When it is due.
    pub due: Time,
    /// The stage that it moves to, if it moves.
    pub to: Option<String>,
    /// The same in words.
    pub text: String,
}

/// Explains an execution as it stands at `now`.
pub fn why(compiled: &Compiled, state: &Execution, customer: &Customer, now: Time) -> Explanation {
    let asking = Asking {
        compiled,
        state,
        scope: Scope {
            signal: None,
            customer,
            execution: Some(state),
            now,
        },
    };
    let stage = compiled
        .by_name
        .get(&state.visit.stage)
        .and_then(|n| compiled.stages.get(*n));
    let mut explanation = Explanation {
        stage: state.visit.stage.clone(),
        status: state.status,
        outcome: state.outcome.clone(),
        since: state.visit.began.at,
        visit: state.visit.number,
        ways: Vec::new(),
        exits: Vec::new(),
        deadlines: Vec::new(),
        held: state.hold.clone(),
        waiting: state.waiting.len() + state.timers.iter().filter(|t| t.waits).count(),
        owed: state.owed.iter().map(|o| o.action.place.clone()).collect(),
        failed: state.failed.clone(),
        incident: state.incident.clone(),
        text: String::new(),
    };
    if !state.is_ended() {
        explanation.ways = stage.map_or(Vec::new(), |s| {
            s.transitions.iter().map(|t| asking.way(t)).collect()
        });
        explanation.exits = compiled.exit.iter().map(|e| asking.exit(e)).collect();
        explanation.deadlines = asking.deadlines(stage);
    }
    explanation.text = sentence(&explanation, state);
    explanation
}

fn sentence(explanation: &Explanation, state: &Execution) -> String {
    let stage = &explanation.stage;
    if let Some(ended) = state.ended {
        let outcome = explanation
            .outcome
            .as_ref()
            .map(|o| format!(" with outcome `{o}`"))
            .unwrap_or_default();
        let mut text = format!(
            "{} in `{stage}` at {}{outcome}",
            explanation.status.word(),
            ended.at
        );
        say_failed(&mut text, &explanation.failed);
        return text;
    }
    let mut text = format!("in `{stage}` since {}", explanation.since);
    if let Some(by) = &explanation.held {
        let _ = write!(
            text,
            ", held by {} ({}), {} waiting",
            by.actor, by.reason, explanation.waiting
        );
    }
    match explanation.ways.len() {
        0 => text.push_str(": no transition leads out"),
        1 => text.push_str(": 1 way out"),
        n => {
            let _ = write!(text, ": {n} ways out");
        }
    }
    if let Some(incident) = &explanation.incident {
        let _ = write!(
            text,
            "; incident at {}: {}",
            incident.place, incident.message
        );
    }
    say_failed(&mut text, &explanation.failed);
    text
}

/// Failed actions that are named in a sentence; there may be more.
const NAMED: usize = 5;

fn say_failed(text: &mut String, failed: &[Failed]) {
    if failed.is_empty() {
        return;
    }
    let named: Vec<String> = failed
        .iter()
        .take(NAMED)
        .map(|f| {
            format!(
                "{} ({} after {} attempts)",
                f.number, f.action.place, f.attempts
            )
        })
        .collect();
    let more = match failed.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let _ = write!(
        text,
        "; to be retried or skipped by hand: failed action {}{more}",
        named.join(", ")
    );
}

struct Asking<'a> {
    compiled: &'a Compiled,
    state: &'a Execution,
    scope: Scope<'a>,
}

impl Asking<'_> {
    fn way(&self, transition: &Transition) -> Way {
        let waits_for = self.waits_for(transition);
        let to = self
            .compiled
            .stages
            .get(transition.to)
            .map_or_else(String::new, |s| s.name.clone());
        let lead = format!("to `{to}`");
        self.describe(
            &transition.place,
            to,
            lead,
            waits_for,
            transition.when.as_ref(),
        )
    }

    fn exit(&self, exit: &crate::compiled::Exit) -> Way {
        let where_ = exit.where_.as_ref().map(|w| w.source.clone());
        let mut waits_for: Vec<Waiting> = exit
            .on
            .iter()
            .map(|kind| Waiting::Signal {
                kind: kind.clone(),
                where_: where_.clone(),
                until: None,
            })
            .collect();
        if waits_for.is_empty() {
            waits_for.push(Waiting::Condition);
        }
        let lead = exit
            .outcome
            .as_ref()
            .map_or("exit".to_owned(), |o| format!("exit with outcome `{o}`"));
        self.describe(
            &exit.place,
            exit.outcome.clone().unwrap_or_default(),
            lead,
            waits_for,
            exit.when.as_ref(),
        )
    }

    fn describe(
        &self,
        place: &str,
        to: String,
        lead: String,
        waits_for: Vec<Waiting>,
        when: Option<&Expression>,
    ) -> Way {
        let parts = when.map_or(Vec::new(), |w| w.parts(&self.compiled.base, &self.scope));
        let mut missing: Vec<String> = Vec::new();
        for part in &parts {
            if let Holds::Unknown { missing: paths } = &part.state {
                missing.extend(
                    paths
                        .iter()
                        .filter(|p| !missing.contains(p))
                        .cloned()
                        .collect::<Vec<_>>(),
                );
            }
        }
        let opens_at = waits_for.iter().find_map(|w| match w {
            Waiting::Absence { until, .. } => *until,
            Waiting::Time { at, .. } => *at,
            Waiting::Signal { .. } | Waiting::Condition | Waiting::ByHand => None,
        });
        let text = words(&lead, &waits_for, &parts, self.scope.now);
        Way {
            place: place.to_owned(),
            to,
            waits_for,
            parts,
            opens_at,
            missing,
            text,
        }
    }

    fn waits_for(&self, transition: &Transition) -> Vec<Waiting> {
        let place = &transition.place;
        let where_ = transition.where_.as_ref().map(|w| w.source.clone());
        let signal = |kind: &String, until| Waiting::Signal {
            kind: kind.clone(),
            where_: where_.clone(),
            until,
        };
        let seen = self.state.patterns.get(place);
        let saw = |step: usize| seen.is_some_and(|s| s.iter().any(|s| s.step as usize == step));
        match &transition.trigger {
            Trigger::Any(kinds) => kinds.iter().map(|k| signal(k, None)).collect(),
            Trigger::All { kinds, within } => {
                let until = self.end(within.as_ref());
                kinds
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| !saw(*n))
                    .map(|(_, k)| signal(k, until))
                    .collect()
            }
            Trigger::Sequence { kinds, within } => {
                let until = self.end(within.as_ref());
                kinds
                    .iter()
                    .skip(seen.map_or(0, Vec::len))
                    .map(|k| signal(k, until))
                    .collect()
            }
            Trigger::Absent { kind, after, .. } => {
                let until = self.timer(place).map(|t| t.due);
                let begins = after
                    .iter()
                    .filter(|_| until.is_none())
                    .map(|k| signal(k, None));
                begins
                    .chain([Waiting::Absence {
                        kind: kind.clone(),
                        until,
                    }])
                    .collect()
            }
            Trigger::After(wait) => {
                vec![Waiting::Time {
                    at: self.timer(place).map(|t| t.due),
                    source: wait.source.clone(),
                }]
            }
            Trigger::At(expression) => {
                vec![Waiting::Time {
                    at: self.timer(place).map(|t| t.due),
                    source: expression.source.clone(),
                }]
            }
            Trigger::Condition => vec![Waiting::Condition],
            Trigger::ByHand => vec![Waiting::ByHand],
        }
    }

    fn end(&self, within: Option<&Wait>) -> Option<Time> {
        within?
            .due(self.state.visit.began.at, &self.compiled.base, &self.scope)
            .ok()
    }

    fn timer(&self, place: &str) -> Option<&Timer> {
        self.state
            .timers
            .iter()
            .find(|t| t.visit == self.state.visit.number && t.place == place)
    }

    fn deadlines(&self, stage: Option<&Stage>) -> Vec<Deadline> {
        let mut found = Vec::new();
        for timer in &self.state.timers {
            let own = stage.map_or(&[][..], |s| &s.deadlines);
            let to = match timer.kind {
                TimerKind::StageDeadline => own.iter().find(|d| d.place == timer.place),
                TimerKind::JourneyDeadline => self
                    .compiled
                    .deadlines
                    .iter()
                    .find(|d| d.place == timer.place),
                TimerKind::Repeat | TimerKind::Stalled => None,
                TimerKind::Absent | TimerKind::Delay => continue,
            };
            let to = to
                .and_then(|d| d.to)
                .and_then(|n| self.compiled.stages.get(n))
                .map(|s| s.name.clone());
            let does = match (timer.kind, &to) {
                (TimerKind::StageDeadline | TimerKind::JourneyDeadline, Some(to)) => {
                    format!("moves to `{to}`")
                }
                (TimerKind::JourneyDeadline, None) => "the journey expires".to_owned(),
                (TimerKind::StageDeadline, None) => "is overdue".to_owned(),
                (TimerKind::Repeat, _) => format!("repeats its actions, round {}", timer.round),
                _ => "is flagged stalled".to_owned(),
            };
            let text = format!("at {}: {does}", timer.due);
            found.push(Deadline {
                place: timer.place.clone(),
                kind: timer.kind,
                due: timer.due,
                to,
                text,
            });
        }
        found.sort_by_key(|d| d.due);
        found
    }
}

/// When the time of a pattern ended, where it has.
pub(crate) fn past(waits_for: &[Waiting], now: Time) -> Option<Time> {
    waits_for.iter().find_map(|w| match w {
        Waiting::Signal { until, .. } => until.filter(|until| *until < now),
        Waiting::Absence { .. } | Waiting::Time { .. } | Waiting::Condition | Waiting::ByHand => {
            None
        }
    })
}

/// A way out in words.
fn words(lead: &str, waits_for: &[Waiting], parts: &[Part], now: Time) -> String {
    let mut text = lead.to_owned();
    if let Some(end) = past(waits_for, now) {
        let _ = write!(
            text,
            ": not in this visit any more, its time ended at {end}"
        );
        return text;
    }
    let all = |w: &&Waiting| !matches!(w, Waiting::Condition);
    for (n, waiting) in waits_for.iter().filter(all).enumerate() {
        text.push_str(if n == 0 { ": waits for " } else { ", " });
        let _ = match waiting {
            Waiting::Signal {
                kind,
                where_,
                until,
            } => {
                let _ = write!(text, "a signal `{kind}`");
                if let Some(where_) = where_ {
                    let _ = write!(text, " where {where_}");
                }
                until.map_or(Ok(()), |until| write!(text, " before {until}"))
            }
            Waiting::Absence {
                kind,
                until: Some(until),
            } => write!(text, "no `{kind}` until {until}"),
            Waiting::Absence { kind, until: None } => {
                write!(text, "no `{kind}` within a time that does not run now")
            }
            Waiting::Time { at: Some(at), .. } => write!(text, "the time {at}"),
            Waiting::Time { at: None, source } => {
                write!(text, "the time of `{source}`, which does not run now")
            }
            Waiting::ByHand => write!(text, "somebody who moves it by hand"),
            Waiting::Condition => Ok(()),
        };
    }
    for (n, part) in parts.iter().enumerate() {
        let triggered = waits_for.iter().any(|w| all(&w));
        text.push_str(match (n, triggered) {
            (0, true) => ", when ",
            (0, false) => ": waits until ",
            _ => "; and ",
        });
        let _ = match &part.state {
            Holds::Yes => write!(text, "`{}` (holds)", part.source),
            Holds::No => write!(text, "`{}` (does not hold)", part.source),
            Holds::Unknown { missing } => write!(
                text,
                "`{}` ({} has never arrived)",
                part.source,
                missing.join(", ")
            ),
            Holds::Error(error) => write!(text, "`{}` (cannot be computed: {error})", part.source),
        };
    }
    text
}

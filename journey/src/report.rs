//! The report of a journey: where people are, how they ended, how long they stayed. Exact: it keeps every duration, so
//! it is for runs that fit in memory; a server has counters of its own.

use crate::compiled::Compiled;
use crate::event::{Event, What};
use crate::execution::{Execution, Status};
use crate::time::Span;
use std::collections::BTreeMap;

/// What is known of all executions of one journey.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The journey.
    pub journey: String,
    /// Executions that started.
    pub started: u64,
    /// Moves after the start.
    pub moves: u64,
    /// Executions that reached the goal.
    pub goals: u64,
    /// Of those, how many within its window.
    pub goals_in_time: u64,
    /// By stage, in the author's order; stages of other versions after them.
    pub stages: Vec<StageReport>,
    /// How executions ended: by status and outcome.
    pub outcomes: BTreeMap<(Status, Option<String>), u64>,
}

/// What is known of one stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Active (and held) executions that are in it now.
    pub people: u64,
    /// Executions that ended in it.
    pub ended: u64,
    /// Visits begun.
    pub visits: u64,
    /// Time in stage of completed visits, from `occurred` times.
    pub time: Durations,
}

/// Lengths of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    all: Vec<Span>,
}

impl Durations {
    fn push(&mut self, span: Span) {
        self.all.push(span);
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Their sum in seconds.
    pub fn sum(&self) -> f64 {
        // In whole microseconds first, so that the sum does not depend on the order.
        let sum: i128 = self.all.iter().map(|s| i128::from(s.0)).sum();
        sum as f64 / 1e6
    }

    /// Their mean in seconds; `None` when there are none.
    pub fn mean(&self) -> Option<f64> {
        let count = self.all.len();
        if count == 0 {
            None
        } else {
            Some(self.sum() / count as f64)
        }
    }

    /// The one in the middle in seconds, or the mean of the two; `None` when there are none.
    pub fn median(&self) -> Option<f64> {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let middle = sorted.len() / 2;
        let upper = sorted.get(middle)?;
        if sorted.len() % 2 == 1 {
            return Some(upper.seconds());
        }
        let lower = sorted.get(middle.checked_sub(1)?)?;
        Some((lower.seconds() + upper.seconds()) / 2.0)
    }

    /// The one in seconds below or at which this share of all (0 to 1) lies; `None` when there are none.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.all.clone();
        sorted.sort_unstable();
        let rank = (share.clamp(0.0, 1.0) * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map(|s| s.seconds())
    }
}

impl Report {
    /// An empty report with the stages of a journey.
    pub fn new(compiled: &Compiled) -> Report {
        let stages = compiled.stages.iter().map(|s| StageReport {
            stage: s.name.clone(),
            ..StageReport::default()
        });
        Report {
            journey: compiled.name.clone(),
            stages: stages.collect(),
            ..Report::default()
        }
    }

    /// Takes one event in, with the execution as it was before it (`None` before a start).
    pub fn observe(&mut self, before: Option<&Execution>, event: &Event) {
        match (&event.what, before) {
            (What::Started { stage, .. }, _) => {
                self.started += 1;
                let stage = self.stage(stage);
                stage.people += 1;
                stage.visits += 1;
            }
            (What::Moved { to, .. }, Some(before)) => {
                self.moves += 1;
                self.left(before, event);
                let stage = self.stage(to);
                stage.people += 1;
                stage.visits += 1;
            }
            (
                What::Ended {
                    status, outcome, ..
                },
                Some(before),
            ) => {
                *self.outcomes.entry((*status, outcome.clone())).or_default() += 1;
                if *status == Status::Completed {
                    // An end is arrived at, not stayed in.
                    let stage = self.stage(&before.visit.stage);
                    stage.people = stage.people.saturating_sub(1);
                } else {
                    self.left(before, event);
                }
                self.stage(&before.visit.stage).ended += 1;
            }
            (What::GoalReached { within }, _) => {
                self.goals += 1;
                self.goals_in_time += u64::from(*within);
            }
            _ => {}
        }
    }

    fn left(&mut self, before: &Execution, event: &Event) {
        // a signal that is told late may have occurred before the visit began
        let stayed = event
            .occurred
            .since(before.visit.began.occurred)
            .max(Span(0));
        let stage = self.stage(&before.visit.stage);
        stage.people = stage.people.saturating_sub(1);
        stage.time.push(stayed);
    }

    fn stage(&mut self, name: &str) -> &mut StageReport {
        let at = self
            .stages
            .iter()
            .position(|s| s.stage == name)
            .unwrap_or_else(|| {
                self.stages.push(StageReport {
                    stage: name.to_owned(),
                    ..StageReport::default()
                });
                self.stages.len() - 1
            });
        &mut self.stages[at]
    }
}

//! What a shard counts while it applies: people by stage, outcomes, flows, time in stage. Mergeable over shards, so
//! a report costs the same however long the history is.
//!
//! Time in stage goes by `occurred` and counts completed visits only.

use super::sketch::Sketch;
use crate::convert::Unreadable;
use crate::convert::event::{status_from, status_to};
use sojourn_journey::event::{Cause, Event, What};
use sojourn_journey::execution::{Execution, Status};
use sojourn_journey::time::Time;
use sojourn_proto::stored;
use std::collections::BTreeMap;

/// Counters by (workspace, journey, version).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters(pub BTreeMap<(String, String, u32), JourneyCounters>);

/// Counters of one version of one journey.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JourneyCounters {
    /// Executions started.
    pub started: u64,
    /// By stage.
    pub stages: BTreeMap<String, StageCounters>,
    /// Ended executions by (status, outcome, stage).
    pub outcomes: BTreeMap<(Status, String, String), u64>,
    /// Moves by (from, to).
    pub flows: BTreeMap<(String, String), u64>,
    /// Moves by hand.
    pub overrides: u64,
    /// Incidents.
    pub incidents: u64,
}

/// Counters of one stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageCounters {
    /// People in it now; in an end stage: people who ended there.
    pub here: u64,
    /// Visits begun.
    pub entered: u64,
    /// Visits ended.
    pub completed: u64,
    /// Sum of the time in it of completed visits, microseconds.
    pub sum_micros: i64,
    /// Its distribution.
    pub sketch: Sketch,
}

impl StageCounters {
    fn enter(&mut self) {
        self.here += 1;
        self.entered += 1;
    }

    fn leave(&mut self, micros: i64) {
        self.here = self.here.saturating_sub(1);
        self.completed += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
        self.sketch.add(micros);
    }

    fn merge(&mut self, other: &StageCounters) {
        self.here += other.here;
        self.entered += other.entered;
        self.completed += other.completed;
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
        self.sketch.merge(&other.sketch);
    }
}

impl JourneyCounters {
    /// Adds another shard's, or version's.
    pub fn merge(&mut self, other: &JourneyCounters) {
        self.started += other.started;
        self.overrides += other.overrides;
        self.incidents += other.incidents;
        for (stage, counters) in &other.stages {
            self.stages
                .entry(stage.clone())
                .or_default()
                .merge(counters);
        }
        for (key, n) in &other.outcomes {
            *self.outcomes.entry(key.clone()).or_default() += n;
        }
        for (key, n) in &other.flows {
            *self.flows.entry(key.clone()).or_default() += n;
        }
    }

    fn stage(&mut self, name: &str) -> &mut StageCounters {
        if !self.stages.contains_key(name) {
            self.stages
                .insert(name.to_owned(), StageCounters::default());
        }
        // inserted just above when it was missing
        self.stages.entry(name.to_owned()).or_default()
    }
}

/// What counting asks of an execution.
#[derive(Clone, Copy)]
struct Standing<'a> {
    journey: &'a str,
    version: u32,
    /// When the visit began, by `occurred`.
    began: Time,
}

impl<'a> Standing<'a> {
    fn of(execution: &'a Execution) -> Standing<'a> {
        Standing {
            journey: &execution.journey,
            version: execution.version,
            began: execution.visit.began.occurred,
        }
    }

    /// As an event leaves it.
    fn after(before: Option<Standing<'a>>, event: &'a Event) -> Option<Standing<'a>> {
        let began = event.occurred;
        match &event.what {
            What::Started {
                journey, version, ..
            } => Some(Standing {
                journey,
                version: *version,
                began,
            }),
            What::Moved { .. } => before.map(|before| Standing { began, ..before }),
            _ => before,
        }
    }

    /// How long the visit lasted that this event ends, in microseconds; none at all where the signal occurred before it
    /// began, and was told late.
    fn stayed(&self, event: &Event) -> i64 {
        event.occurred.since(self.began).0.max(0)
    }
}

impl Counters {
    /// Those of one journey, all versions; of all journeys of the workspace where none is named.
    pub fn of_journey(&self, workspace: &str, journey: &str) -> Counters {
        let of_it = self
            .0
            .iter()
            .filter(|((w, j, _), _)| w == workspace && (journey.is_empty() || j == journey));
        Counters(of_it.map(|(k, c)| (k.clone(), c.clone())).collect())
    }

    /// Adds another shard's.
    pub fn merge(&mut self, other: &Counters) {
        for (key, counters) in &other.0 {
            self.0.entry(key.clone()).or_default().merge(counters);
        }
    }

    /// One journey of these, in one version or (0) in all.
    pub fn total(&self, workspace: &str, journey: &str, version: u32) -> JourneyCounters {
        let mut total = JourneyCounters::default();
        let first = (workspace.to_owned(), journey.to_owned(), 0);
        let last = (workspace.to_owned(), journey.to_owned(), u32::MAX);
        for ((.., v), counters) in self.0.range(first..=last) {
            if version == 0 || *v == version {
                total.merge(counters);
            }
        }
        total
    }

    /// Counts the events of one part of a decision; `before` is the state that they happened to, unless they start it.
    pub fn count(&mut self, workspace: &str, before: Option<&Execution>, events: &[Event]) {
        let mut standing = before.map(Standing::of);
        for event in events {
            self.count_one(workspace, standing, event);
            standing = Standing::after(standing, event);
        }
    }

    fn count_one(&mut self, workspace: &str, before: Option<Standing<'_>>, event: &Event) {
        match (&event.what, before) {
            (
                What::Started {
                    journey,
                    version,
                    stage,
                    ..
                },
                _,
            ) => {
                let counters = self.of(workspace, journey, *version);
                counters.started += 1;
                counters.stage(stage).enter();
            }
            (
                What::Moved {
                    from, to, cause, ..
                },
                Some(before),
            ) => {
                let micros = before.stayed(event);
                let counters = self.of(workspace, before.journey, before.version);
                counters.stage(from).leave(micros);
                counters.stage(to).enter();
                *counters
                    .flows
                    .entry((from.clone(), to.clone()))
                    .or_default() += 1;
                if matches!(cause, Cause::Override(_)) {
                    counters.overrides += 1;
                }
            }
            (
                What::Ended {
                    status,
                    stage,
                    outcome,
                    ..
                },
                Some(before),
            ) => {
                let micros = before.stayed(event);
                let counters = self.of(workspace, before.journey, before.version);
                if *status != Status::Completed {
                    counters.stage(stage).leave(micros);
                }
                let outcome = outcome.clone().unwrap_or_default();
                *counters
                    .outcomes
                    .entry((*status, outcome, stage.clone()))
                    .or_default() += 1;
            }
            (What::Incident { .. }, Some(before)) => {
                self.of(workspace, before.journey, before.version).incidents += 1;
            }
            _ => {}
        }
    }

    fn of(&mut self, workspace: &str, journey: &str, version: u32) -> &mut JourneyCounters {
        self.0
            .entry((workspace.to_owned(), journey.to_owned(), version))
            .or_default()
    }

    /// To the stored form.
    pub fn to_stored(&self) -> Vec<stored::JourneyCounters> {
        self.0
            .iter()
            .map(
                |((workspace, journey, version), c)| stored::JourneyCounters {
                    workspace: workspace.clone(),
                    journey: journey.clone(),
                    version: *version,
                    started: c.started,
                    stages: c
                        .stages
                        .iter()
                        .map(|(stage, s)| stored::StageCounters {
                            stage: stage.clone(),
                            here: s.here,
                            entered: s.entered,
                            completed: s.completed,
                            sum_micros: s.sum_micros,
                            sketch: Some(stored::Sketch {
                                zero: s.sketch.zero,
                                buckets: s.sketch.buckets.keys().copied().collect(),
                                counts: s.sketch.buckets.values().copied().collect(),
                            }),
                        })
                        .collect(),
                    outcomes: c
                        .outcomes
                        .iter()
                        .map(|((status, outcome, stage), n)| stored::OutcomeCounter {
                            status: status_to(*status) as i32,
                            outcome: outcome.clone(),
                            stage: stage.clone(),
                            count: *n,
                        })
                        .collect(),
                    flows: c
                        .flows
                        .iter()
                        .map(|((from, to), n)| stored::FlowCounter {
                            from: from.clone(),
                            to: to.clone(),
                            count: *n,
                        })
                        .collect(),
                    overrides: c.overrides,
                    incidents: c.incidents,
                },
            )
            .collect()
    }

    /// From the stored form.
    pub fn from_stored(list: Vec<stored::JourneyCounters>) -> Result<Counters, Unreadable> {
        let mut all = BTreeMap::new();
        for c in list {
            let mut counters = JourneyCounters {
                started: c.started,
                overrides: c.overrides,
                incidents: c.incidents,
                ..JourneyCounters::default()
            };
            for s in c.stages {
                let sketch = s.sketch.unwrap_or_default();
                counters.stages.insert(
                    s.stage,
                    StageCounters {
                        here: s.here,
                        entered: s.entered,
                        completed: s.completed,
                        sum_micros: s.sum_micros,
                        sketch: Sketch {
                            zero: sketch.zero,
                            buckets: sketch.buckets.into_iter().zip(sketch.counts).collect(),
                        },
                    },
                );
            }
            for o in c.outcomes {
                let key = (status_from(o.status)?, o.outcome, o.stage);
                counters.outcomes.insert(key, o.count);
            }
            for f in c.flows {
                counters.flows.insert((f.from, f.to), f.count);
            }
            all.insert((c.workspace, c.journey, c.version), counters);
        }
        Ok(Counters(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sojourn_journey::signal::Identifier;

    #[test]
    fn nobody_stays_for_less_than_nothing() {
        let event = |number: u64, occurred: i64, what: What| Event {
            number,
            at: Time(9_000_000),
            occurred: Time(occurred),
            what,
        };
        let started = What::Started {
            journey: "j".to_owned(),
            version: 1,
            customer: Identifier::new("id", "c1").unwrap(),
            instance: None,
            run: 1,
            stage: "one".to_owned(),
        };
        let moved = |from: &str, to: &str, visit| What::Moved {
            from: from.to_owned(),
            to: to.to_owned(),
            visit,
            cause: Cause::Signal {
                place: String::new(),
            },
        };
        let ended = What::Ended {
            status: Status::Stopped,
            stage: "one".to_owned(),
            outcome: None,
            by: None,
        };
        let events = [
            event(0, 5_000_000, started),
            // told late: it occurred before the visit began
            event(1, 2_000_000, moved("one", "two", 2)),
            event(2, 3_500_000, moved("two", "one", 3)),
            event(3, 1_000_000, ended),
        ];
        let mut counters = Counters::default();
        // in two parts: what stands between them is as evolving leaves it
        let (first, then) = events.split_at(2);
        counters.count("w", None, first);
        let mut state = Execution::begin(&first[0]).expect("it starts");
        sojourn_journey::evolve::evolve(&mut state, &first[1]);
        counters.count("w", Some(&state), then);
        let stages = &counters.of("w", "j", 1).stages;
        let time = |stage: &str| (stages[stage].completed, stages[stage].sum_micros);
        assert_eq!((time("one"), time("two")), ((2, 0), (1, 1_500_000)));
    }
}

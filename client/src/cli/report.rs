//! The report of a journey, in one shape for those of a server and those of a simulation, as a table and as JSON.

use super::show;
use super::table::{Align, Table};
use serde_json::{Value, json};
use sojourn_proto::v1;

/// The figures of one journey.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Report {
    pub journey: String,
    pub started: u64,
    pub active: u64,
    pub moves: u64,
    pub stages: Vec<Stage>,
    pub outcomes: Vec<Outcome>,
    pub flows: Vec<Flow>,
    pub overrides: u64,
    pub incidents: u64,
}

/// One stage.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stage {
    pub stage: String,
    pub here: u64,
    pub entered: u64,
    pub completed: u64,
    /// Seconds, of completed visits; `None` when there are none.
    pub mean: Option<f64>,
    pub median: Option<f64>,
    pub p90: Option<f64>,
    pub end: bool,
}

/// How executions ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub status: String,
    pub outcome: String,
    pub stage: String,
    pub count: u64,
}

/// Moves from one stage to another.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flow {
    pub from: String,
    pub to: String,
    pub count: u64,
}

impl Report {
    /// A server's answer.
    pub fn of_wire(wire: v1::ReportResponse) -> Report {
        Report {
            journey: wire.journey,
            started: wire.started,
            active: wire.active,
            moves: wire
                .flows
                .iter()
                .filter(|f| !f.from.is_empty() && !f.to.is_empty())
                .map(|f| f.count)
                .sum(),
            stages: wire
                .stages
                .into_iter()
                .map(|s| {
                    let some = |seconds: f64| (s.completed > 0).then_some(seconds);
                    Stage {
                        here: s.here,
                        entered: s.entered,
                        completed: s.completed,
                        mean: some(s.mean_seconds),
                        median: some(s.median_seconds),
                        p90: some(s.p90_seconds),
                        end: s.end,
                        stage: s.stage,
                    }
                })
                .collect(),
            outcomes: wire
                .outcomes
                .into_iter()
                .map(|o| Outcome {
                    status: show::status(o.status).to_owned(),
                    outcome: o.outcome,
                    stage: o.stage,
                    count: o.count,
                })
                .collect(),
            flows: wire
                .flows
                .into_iter()
                .map(|f| Flow {
                    from: f.from,
                    to: f.to,
                    count: f.count,
                })
                .collect(),
            overrides: wire.overrides,
            incidents: wire.incidents,
        }
    }

    /// For programs. Times in seconds.
    pub fn json(&self) -> Value {
        let stages: Vec<Value> = self
            .stages
            .iter()
            .map(|s| {
                json!({
                    "stage": s.stage, "here": s.here, "entered": s.entered, "completed": s.completed,
                    "mean_seconds": s.mean, "median_seconds": s.median, "p90_seconds": s.p90, "end": s.end,
                })
            })
            .collect();
        let outcomes: Vec<Value> = self
            .outcomes
            .iter()
            .map(|o| json!({ "status": o.status, "outcome": o.outcome, "stage": o.stage, "count": o.count }))
            .collect();
        let flows: Vec<Value> = self
            .flows
            .iter()
            .map(|f| json!({ "from": f.from, "to": f.to, "count": f.count }))
            .collect();
        json!({
            "journey": self.journey, "started": self.started, "active": self.active, "moves": self.moves,
            "stages": stages, "outcomes": outcomes, "flows": flows, "overrides": self.overrides,
            "incidents": self.incidents,
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}: {} started, {} moves after the start, {} active",
            self.journey,
            show::count(self.started),
            show::count(self.moves),
            show::count(self.active)
        );
        if self.overrides > 0 {
            text.push_str(&format!(", {} by hand", show::count(self.overrides)));
        }
        if self.incidents > 0 {
            text.push_str(&format!(", {} incidents", show::count(self.incidents)));
        }
        let mut stages = Table::new(&[
            ("stage", Align::Left),
            ("here", Align::Right),
            ("entered", Align::Right),
            ("completed", Align::Right),
            ("mean s", Align::Right),
            ("median s", Align::Right),
            ("p90 s", Align::Right),
        ]);
        for s in &self.stages {
            let seconds =
                |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| show::decimal(x, 3));
            stages.row([
                s.stage.clone(),
                show::count(s.here),
                show::count(s.entered),
                show::count(s.completed),
                seconds(s.mean),
                seconds(s.median),
                seconds(s.p90),
            ]);
        }
        text.push_str(&format!("\n\n{stages}"));
        if !self.outcomes.is_empty() {
            let mut outcomes = Table::new(&[
                ("ended", Align::Left),
                ("outcome", Align::Left),
                ("stage", Align::Left),
                ("count", Align::Right),
            ]);
            for o in &self.outcomes {
                outcomes.row([
                    o.status.clone(),
                    o.outcome.clone(),
                    o.stage.clone(),
                    show::count(o.count),
                ]);
            }
            text.push_str(&format!("\n\n{outcomes}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_a_server_is_shown_as_people_read_it() {
        let report = Report::of_wire(v1::ReportResponse {
            journey: "loan".into(),
            started: 13_087,
            active: 1,
            stages: vec![
                v1::StageReport {
                    stage: "submitted".into(),
                    entered: 13_087,
                    completed: 13_087,
                    mean_seconds: 0.582,
                    median_seconds: 0.273,
                    p90_seconds: 1.5,
                    ..Default::default()
                },
                v1::StageReport {
                    stage: "approved".into(),
                    here: 1,
                    entered: 1,
                    end: true,
                    ..Default::default()
                },
            ],
            outcomes: vec![v1::OutcomeReport {
                status: v1::Status::Completed.into(),
                outcome: "converted".into(),
                stage: "approved".into(),
                count: 2_115,
            }],
            flows: vec![v1::FlowReport {
                from: "submitted".into(),
                to: "approved".into(),
                count: 7,
            }],
            ..Default::default()
        });
        assert_eq!(
            report.text(),
            "loan: 13,087 started, 7 moves after the start, 1 active\n\
             \n\
             stage      here  entered  completed  mean s  median s  p90 s\n\
             submitted     0   13,087     13,087   0.582     0.273  1.500\n\
             approved      1        1          0       -         -      -\n\
             \n\
             ended      outcome    stage     count\n\
             completed  converted  approved  2,115"
        );
        assert_eq!(report.json()["stages"][1]["mean_seconds"], Value::Null);
    }
}

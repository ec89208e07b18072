//! States as the public services show them.

use super::event::{action_to, by_to, status_to, timer_to};
use super::value::{identifier_to, value_to};
use sojourn_journey::execution::Execution;
use sojourn_journey::expr::{Holds, Part};
use sojourn_journey::identifier::ExecutionId;
use sojourn_journey::plan::JourneyState;
use sojourn_journey::problem::{Problem, Severity};
use sojourn_journey::why::{Explanation, Waiting, Way};
use sojourn_proto::v1;
use std::collections::BTreeMap;

/// How the journey of an execution stands, as a word; empty while it is active.
pub fn state_to(state: JourneyState) -> &'static str {
    match state {
        JourneyState::Active => "",
        JourneyState::Held => "held",
        JourneyState::Dropped => "dropped",
        JourneyState::Draining => "draining",
    }
}

/// An execution, as shown.
pub fn execution_to(workspace: &str, e: &Execution, journey: JourneyState) -> v1::Execution {
    let id = ExecutionId::new(
        workspace,
        &e.customer,
        &e.journey,
        e.instance.as_deref(),
        e.run,
    );
    let values = |map: &BTreeMap<String, sojourn_journey::value::Value>| {
        map.iter().map(|(k, v)| (k.clone(), value_to(v))).collect()
    };
    v1::Execution {
        id: id.to_string(),
        journey: e.journey.clone(),
        version: e.version,
        customer: Some(identifier_to(&e.customer)),
        instance: e.instance.clone(),
        run: e.run,
        status: status_to(e.status) as i32,
        stage: e.visit.stage.clone(),
        visit: e.visit.number,
        entered_at: e.visit.began.at.0,
        entered_occurred: e.visit.began.occurred.0,
        started_at: e.started.at.0,
        started_occurred: e.started.occurred.0,
        ended_at: e.ended.map(|s| s.at.0),
        outcome: e.outcome.clone(),
        overdue: e.overdue,
        stalled: e.stalled,
        incident: e.incident.as_ref().map(|i| v1::IncidentInfo {
            number: i.number,
            place: i.place.clone(),
            message: i.message.clone(),
            action: i.action,
        }),
        goal_at: e.goal.map(|t| t.0),
        hold: e.hold.as_ref().map(by_to),
        waiting: u32::try_from(e.waiting.len()).unwrap_or(u32::MAX),
        events: e.next,
        facts: e
            .facts
            .iter()
            .map(|(path, f)| {
                let info = v1::FactInfo {
                    value: Some(value_to(&f.value)),
                    occurred: f.occurred.0,
                };
                (path.clone(), info)
            })
            .collect(),
        variables: values(&e.vars),
        kept: values(&e.kept),
        timers: e.timers.iter().map(timer_to).collect(),
        owed: e
            .owed
            .iter()
            .map(|o| v1::OwedInfo {
                number: o.number,
                action: Some(action_to(&o.action)),
                attempts: o.attempts,
                next: o.next.map(|t| t.0),
            })
            .collect(),
        journey_state: state_to(journey).to_owned(),
        failed: e
            .failed
            .iter()
            .map(|f| v1::FailedInfo {
                number: f.number,
                action: Some(action_to(&f.action)),
                attempts: f.attempts,
                error: f.error.clone(),
                at: f.at.0,
            })
            .collect(),
    }
}

/// A problem, as shown.
pub fn problem_to(p: &Problem) -> v1::Problem {
    v1::Problem {
        path: p.path.clone(),
        line: p.line,
        column: p.column,
        message: p.message.clone(),
        help: p.help.clone().unwrap_or_default(),
        warning: p.severity == Severity::Warning,
    }
}

/// An explanation, as shown.
pub fn why_to(
    workspace: &str,
    e: &Execution,
    journey: JourneyState,
    why: &Explanation,
) -> v1::WhyResponse {
    // what the ways out wait for counts once the journey is active again
    let summary = match journey {
        JourneyState::Active | JourneyState::Draining => why.text.clone(),
        JourneyState::Held => format!(
            "journey {} is deactivated (hold): nothing moves and {} signals wait until it is activated. Then: {}",
            e.journey,
            e.waiting.len(),
            why.text
        ),
        JourneyState::Dropped => format!(
            "journey {} is deactivated (drop): signals are dropped and timers wait until it is activated. Then: {}",
            e.journey, why.text
        ),
    };
    v1::WhyResponse {
        execution: Some(execution_to(workspace, e, journey)),
        position: None,
        ways: why.ways.iter().map(way_to).collect(),
        exits: why.exits.iter().map(way_to).collect(),
        deadlines: why
            .deadlines
            .iter()
            .map(|d| v1::Way {
                place: d.place.clone(),
                to: d.to.clone().unwrap_or_default(),
                text: d.text.clone(),
                opens_at: Some(d.due.0),
                ..v1::Way::default()
            })
            .collect(),
        summary,
    }
}

fn way_to(way: &Way) -> v1::Way {
    let mut waits_for = Vec::new();
    let mut conditions = Vec::new();
    for waiting in &way.waits_for {
        if let Waiting::Signal { kind, where_, .. } = waiting {
            waits_for.push(kind.clone());
            if let Some(source) = where_ {
                conditions.push(v1::Condition {
                    source: source.clone(),
                    state: v1::condition::State::PerSignal as i32,
                    missing: Vec::new(),
                    error: String::new(),
                });
            }
        }
    }
    conditions.extend(way.parts.iter().map(condition_to));
    v1::Way {
        place: way.place.clone(),
        to: way.to.clone(),
        text: way.text.clone(),
        waits_for,
        conditions,
        opens_at: way.opens_at.map(|t| t.0),
        missing: way.missing.clone(),
    }
}

fn condition_to(part: &Part) -> v1::Condition {
    use v1::condition::State;
    let (state, missing, error) = match &part.state {
        Holds::Yes => (State::Holds, Vec::new(), String::new()),
        Holds::No => (State::DoesNotHold, Vec::new(), String::new()),
        Holds::Unknown { missing } => (State::Unknown, missing.clone(), String::new()),
        Holds::Error(error) => (State::Error, Vec::new(), error.clone()),
    };
    v1::Condition {
        source: part.source.clone(),
        state: state as i32,
        missing,
        error,
    }
}

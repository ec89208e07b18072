//! How executions, decisions and explanations are told to people.

use crate::cli::{json, show};
use sojourn_proto::v1;

/// One decision: a line for its cause, then one for each event.
pub(super) fn entry_text(entry: &v1::TimelineEntry, named: bool) -> String {
    let mut text = format!(
        "{}  {}",
        show::time(Some(entry.occurred)),
        show::cause(entry.cause.as_ref())
    );
    if entry.at.abs_diff(entry.occurred) >= 1_000 {
        text.push_str(&format!("  (decided {})", show::time(Some(entry.at))));
    }
    for part in &entry.parts {
        if named || entry.parts.len() > 1 {
            text.push_str(&format!("\n    {} {}", part.journey, part.execution));
        }
        if part.events.is_empty() {
            text.push_str(&format!("\n    {}", show::fate(part.fate.clone())));
        }
        for event in &part.events {
            text.push_str(&format!(
                "\n    {:>4}  {}",
                event.number,
                show::event(event)
            ));
        }
    }
    text
}

pub(super) fn one(e: &v1::Execution) -> String {
    let mut lines = vec![
        format!("execution  {}", e.id),
        format!(
            "journey    {} version {}, run {}",
            e.journey, e.version, e.run
        ),
        format!("customer   {}", show::identifier(e.customer.as_ref())),
    ];
    if !e.journey_state.is_empty() {
        lines.push(format!(
            "           the journey is deactivated ({}), {} signals wait",
            e.journey_state, e.waiting
        ));
    }
    if let Some(instance) = &e.instance {
        lines.push(format!("instance   {instance}"));
    }
    let outcome = e
        .outcome
        .as_ref()
        .map(|o| format!(" as {o}"))
        .unwrap_or_default();
    lines.push(
        format!(
            "status     {}{outcome} {}",
            show::status(e.status),
            show::flags(e)
        )
        .trim_end()
        .to_owned(),
    );
    lines.push(format!(
        "stage      {} since {} (visit {})",
        e.stage,
        show::time(Some(e.entered_occurred)),
        e.visit
    ));
    lines.push(format!(
        "started    {}",
        show::time(Some(e.started_occurred))
    ));
    if e.ended_at.is_some() {
        lines.push(format!("ended      {}", show::time(e.ended_at)));
    }
    if let Some(goal) = e.goal_at {
        lines.push(format!("goal       {}", show::time(Some(goal))));
    }
    if let Some(hold) = &e.hold {
        lines.push(
            format!("held by    {} {}", hold.actor, hold.reason)
                .trim_end()
                .to_owned(),
        );
        lines.push(format!("waiting    {} signals", e.waiting));
    }
    if let Some(incident) = &e.incident {
        lines.push(format!(
            "incident   {}: {}",
            incident.place, incident.message
        ));
    }
    for (name, fact) in &e.facts {
        lines.push(format!(
            "fact       {name} = {}",
            show::value(fact.value.as_ref())
        ));
    }
    for (name, value) in &e.variables {
        lines.push(format!("variable   {name} = {}", show::value(Some(value))));
    }
    for (name, value) in &e.kept {
        lines.push(format!("kept       {name} = {}", show::value(Some(value))));
    }
    for timer in &e.timers {
        lines.push(format!(
            "timer      {} {}",
            show::time(Some(timer.due)),
            timer.place
        ));
    }
    for owed in &e.owed {
        let (kind, to) = owed
            .action
            .as_ref()
            .map_or(("", ""), |a| (a.kind.as_str(), a.to.as_str()));
        let next = owed
            .next
            .map(|n| format!(", next {}", show::time(Some(n))))
            .unwrap_or_default();
        lines.push(format!(
            "owed       action {} {kind} {to}, {} attempts{next}",
            owed.number, owed.attempts
        ));
    }
    lines.extend(e.failed.iter().map(|f| format!("failed     {}", failed(f))));
    lines.push(format!("events     {}", show::count(e.events)));
    lines.join("\n")
}

/// A failed action in a line.
fn failed(f: &v1::FailedInfo) -> String {
    let action = f.action.as_ref();
    let (kind, to) = action.map_or(("", ""), |a| (a.kind.as_str(), a.to.as_str()));
    format!(
        "action {} {kind} {to}, {} attempts, {}: {}",
        f.number,
        f.attempts,
        show::time(Some(f.at)),
        f.error
    )
}

pub(super) fn why_text(why: &v1::WhyResponse) -> String {
    let mut lines = vec![why.summary.clone()];
    let failed_actions = why.execution.iter().flat_map(|e| &e.failed);
    lines.extend(failed_actions.map(|f| format!("  failed: {}", failed(f))));
    for (title, ways) in [
        ("ways out", &why.ways),
        ("exits", &why.exits),
        ("deadlines", &why.deadlines),
    ] {
        if ways.is_empty() {
            continue;
        }
        lines.push(String::new());
        lines.push(format!("{title}:"));
        for way in ways {
            // the sentence says where the way leads, unless the server has none to say
            lines.push(if way.text.contains(&way.to) {
                format!("  {}", way.text)
            } else {
                format!("  to {}: {}", way.to, way.text)
            });
            if !way.waits_for.is_empty()
                && !way.waits_for.iter().all(|t| way.text.contains(t.as_str()))
            {
                lines.push(format!("      waits for {}", way.waits_for.join(" or ")));
            }
            if let Some(opens) = way.opens_at {
                lines.push(format!("      opens at {}", show::time(Some(opens))));
            }
            for condition in &way.conditions {
                let state = match json::condition_state(condition.state) {
                    "holds" => "holds".to_owned(),
                    "does_not_hold" => "does not hold".to_owned(),
                    "unknown" => format!("unknown: {} never arrived", condition.missing.join(", ")),
                    "error" => format!("error: {}", condition.error),
                    "per_signal" => "is tested with each signal".to_owned(),
                    other => other.to_owned(),
                };
                lines.push(format!("      {}: {state}", condition.source));
            }
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage_live() -> v1::WhyResponse {
        v1::WhyResponse {
            summary: "in `live` since yesterday: 1 way out".into(),
            ways: vec![v1::Way {
                to: "disbursed".into(),
                text: "to `disbursed`: waits until a condition holds".into(),
                conditions: vec![
                    v1::Condition {
                        source: "Books.Invoice.Status == \"Paid\"".into(),
                        state: v1::condition::State::Holds.into(),
                        ..Default::default()
                    },
                    v1::Condition {
                        source: "Desk.Department.Status == \"Active\"".into(),
                        state: v1::condition::State::Unknown.into(),
                        missing: vec!["Desk.Department.Status".into()],
                        ..Default::default()
                    },
                ],
                missing: vec!["Desk.Department.Status".into()],
                ..Default::default()
            }],
            deadlines: vec![v1::Way {
                to: "expired".into(),
                text: "journey deadline".into(),
                opens_at: Some(1_317_422_324_546_000),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn why_names_what_holds_and_what_never_arrived() {
        assert_eq!(
            why_text(&stage_live()),
            "in `live` since yesterday: 1 way out\n\
             \n\
             ways out:\n  to `disbursed`: waits until a condition holds\n      \
             Books.Invoice.Status == \"Paid\": holds\n      \
             Desk.Department.Status == \"Active\": unknown: Desk.Department.Status never arrived\n\
             \n\
             deadlines:\n  to expired: journey deadline\n      opens at 2011-09-30T22:38:44.546Z"
        );
        let json = json::why(&stage_live());
        assert_eq!(json["ways"][0]["conditions"][1]["state"], "unknown");
        assert_eq!(json["deadlines"][0]["opens_at"], "2011-09-30T22:38:44.546Z");
    }

    #[test]
    fn a_failed_action_is_shown_with_its_number_and_its_last_error() {
        let execution = v1::Execution {
            id: "a-b-1".into(),
            failed: vec![v1::FailedInfo {
                number: 4,
                action: Some(v1::Action {
                    kind: "webhook".into(),
                    to: "scoring".into(),
                    ..Default::default()
                }),
                attempts: 8,
                error: "503 Service Unavailable".into(),
                at: 1_317_422_324_546_000,
            }],
            ..Default::default()
        };
        let line = "action 4 webhook scoring, 8 attempts, 2011-09-30T22:38:44.546Z: 503 Service Unavailable";
        let shown = one(&execution);
        assert!(shown.contains(&format!("failed     {line}\n")), "{shown}");
        let json = json::execution(&execution);
        assert_eq!(json["failed"][0]["number"], 4);
        assert_eq!(json["failed"][0]["error"], "503 Service Unavailable");
        let why = v1::WhyResponse {
            summary: "in `one`".into(),
            execution: Some(execution),
            ..Default::default()
        };
        assert_eq!(why_text(&why), format!("in `one`\n  failed: {line}"));
    }

    #[test]
    fn a_decision_is_told_with_its_cause_its_times_and_its_events() {
        use v1::event::What;
        let event = |number, what| v1::Event {
            number,
            what: Some(what),
            ..Default::default()
        };
        let entry = v1::TimelineEntry {
            at: 1_317_422_325_000_000,
            occurred: 1_317_422_324_546_000,
            cause: Some(v1::timeline_entry::Cause {
                cause: Some(v1::timeline_entry::cause::Cause::Signal(v1::Signal {
                    id: "e1".into(),
                    r#type: "bank.O_SENT".into(),
                    ..Default::default()
                })),
            }),
            parts: vec![v1::ExecutionEvents {
                execution: "a-b-1".into(),
                journey: "loan".into(),
                events: vec![
                    event(
                        7,
                        What::Kept(v1::event::Kept {
                            name: "officer".into(),
                            value: Some(v1::Value {
                                kind: Some(v1::value::Kind::String("Ada".into())),
                            }),
                        }),
                    ),
                    event(
                        8,
                        What::Moved(v1::event::Moved {
                            from: "accepted".into(),
                            to: "offer_sent".into(),
                            visit: 5,
                            cause: Some(v1::event::Cause {
                                kind: v1::CauseKind::Signal.into(),
                                ..Default::default()
                            }),
                        }),
                    ),
                ],
                ..Default::default()
            }],
            ..Default::default()
        };
        let body = "       7  kept officer = \"Ada\"\n       8  moved accepted > offer_sent (signal, visit 5)";
        let head =
            "2011-09-30T22:38:44.546Z  signal bank.O_SENT e1  (decided 2011-09-30T22:38:45.000Z)";
        assert_eq!(entry_text(&entry, false), format!("{head}\n{body}"));
        assert_eq!(
            entry_text(&entry, true),
            format!("{head}\n    loan a-b-1\n{body}")
        );
        let json = json::timeline_entry(&entry);
        assert_eq!(json["parts"][0]["events"][1]["what"], "moved");
        assert_eq!(json["cause"]["signal"]["type"], "bank.O_SENT");
    }
}

//! States as they are stored: one customer with its record and its executions in memory.

use super::event::{
    action_from, action_to, by_from, by_to, status_from, status_to, timer_from, timer_to,
};
use super::signal::{signal_from_stored, signal_to};
use super::value::{identifier_from, identifier_to, value_from, value_to};
use super::{Unreadable, need};
use sojourn_journey::customer::{Attribute, Customer, CustomerChange, Run};
use sojourn_journey::execution::{
    Execution, Fact, Failed, Incident, Owed, Seen, Stamp, Status, Visit,
};
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::Time;
use sojourn_journey::value::Value;
use sojourn_proto::stored;
use std::collections::BTreeMap;

fn stamp_to(stamp: Stamp) -> stored::Stamp {
    stored::Stamp {
        at: stamp.at.0,
        occurred: stamp.occurred.0,
    }
}

fn stamp_from(stamp: stored::Stamp) -> Stamp {
    Stamp {
        at: Time(stamp.at),
        occurred: Time(stamp.occurred),
    }
}

fn named_to(map: &BTreeMap<String, Value>) -> Vec<stored::Named> {
    map.iter()
        .map(|(name, value)| stored::Named {
            name: name.clone(),
            value: Some(value_to(value)),
        })
        .collect()
}

fn named_from(list: Vec<stored::Named>) -> Result<BTreeMap<String, Value>, Unreadable> {
    list.into_iter()
        .map(|n| Ok((n.name, value_from(need(n.value, "a named value")?)?)))
        .collect()
}

/// To its stored form. The customer key is not repeated: it stands in the customer.
pub fn execution_to(e: &Execution) -> stored::Execution {
    stored::Execution {
        journey: e.journey.clone(),
        version: e.version,
        instance: e.instance.clone(),
        run: e.run,
        next: e.next,
        status: status_to(e.status) as i32,
        outcome: e.outcome.clone(),
        started: Some(stamp_to(e.started)),
        ended: e.ended.map(stamp_to),
        visit: e.visit.number,
        stage: e.visit.stage.clone(),
        began: Some(stamp_to(e.visit.began)),
        facts: e
            .facts
            .iter()
            .map(|(path, f)| stored::Fact {
                path: path.clone(),
                value: Some(value_to(&f.value)),
                occurred: f.occurred.0,
                position: f.position,
            })
            .collect(),
        vars: named_to(&e.vars),
        kept: named_to(&e.kept),
        patterns: e
            .patterns
            .iter()
            .map(|(place, seen)| stored::Pattern {
                place: place.clone(),
                seen: seen
                    .iter()
                    .map(|s| stored::Seen {
                        step: s.step,
                        at: s.at.0,
                    })
                    .collect(),
            })
            .collect(),
        timers: e.timers.iter().map(timer_to).collect(),
        owed: e.owed.iter().map(owed_to).collect(),
        failed: e.failed.iter().map(failed_to).collect(),
        overdue: e.overdue,
        stalled: e.stalled,
        incident: e.incident.as_ref().map(|i| stored::Incident {
            number: i.number,
            place: i.place.clone(),
            message: i.message.clone(),
            action: i.action,
        }),
        goal: e.goal.map(|t| t.0),
        hold: e.hold.as_ref().map(by_to),
        waiting: e.waiting.iter().map(signal_to).collect(),
    }
}

/// From its stored form.
pub fn execution_from(
    e: stored::Execution,
    customer: &Identifier,
) -> Result<Execution, Unreadable> {
    let mut facts = BTreeMap::new();
    for f in e.facts {
        facts.insert(
            f.path,
            Fact {
                value: value_from(need(f.value, "the value of a fact")?)?,
                occurred: Time(f.occurred),
                position: f.position,
            },
        );
    }
    Ok(Execution {
        journey: e.journey,
        version: e.version,
        customer: customer.clone(),
        instance: e.instance,
        run: e.run,
        next: e.next,
        status: status_from(e.status)?,
        outcome: e.outcome,
        started: stamp_from(need(e.started, "the start of an execution")?),
        ended: e.ended.map(stamp_from),
        visit: Visit {
            number: e.visit,
            stage: e.stage,
            began: stamp_from(need(e.began, "the start of a visit")?),
        },
        facts,
        vars: named_from(e.vars)?,
        kept: named_from(e.kept)?,
        patterns: e
            .patterns
            .into_iter()
            .map(|p| {
                let seen = p.seen.into_iter().map(|s| Seen {
                    step: s.step,
                    at: Time(s.at),
                });
                (p.place, seen.collect())
            })
            .collect(),
        timers: e
            .timers
            .into_iter()
            .map(timer_from)
            .collect::<Result<_, _>>()?,
        owed: e
            .owed
            .into_iter()
            .map(owed_from)
            .collect::<Result<_, _>>()?,
        failed: e
            .failed
            .into_iter()
            .map(failed_from)
            .collect::<Result<_, _>>()?,
        overdue: e.overdue,
        stalled: e.stalled,
        incident: e.incident.map(|i| Incident {
            number: i.number,
            place: i.place,
            message: i.message,
            action: i.action,
        }),
        goal: e.goal.map(Time),
        hold: e.hold.map(by_from),
        waiting: e
            .waiting
            .into_iter()
            .map(signal_from_stored)
            .collect::<Result<_, _>>()?,
    })
}

fn owed_to(o: &Owed) -> stored::Owed {
    stored::Owed {
        number: o.number,
        action: Some(action_to(&o.action)),
        attempts: o.attempts,
        next: o.next.map(|t| t.0),
        key: (o.key != o.number).then_some(o.key),
        before: o.before,
    }
}

fn owed_from(o: stored::Owed) -> Result<Owed, Unreadable> {
    Ok(Owed {
        number: o.number,
        key: o.key.unwrap_or(o.number),
        action: action_from(need(o.action, "an owed action")?),
        attempts: o.attempts,
        before: o.before,
        next: o.next.map(Time),
    })
}

fn failed_to(f: &Failed) -> stored::Failed {
    stored::Failed {
        owed: Some(stored::Owed {
            number: f.number,
            action: Some(action_to(&f.action)),
            attempts: f.attempts,
            next: None,
            key: (f.key != f.number).then_some(f.key),
            before: 0,
        }),
        error: f.error.clone(),
        at: f.at.0,
    }
}

fn failed_from(f: stored::Failed) -> Result<Failed, Unreadable> {
    let owed = owed_from(need(f.owed, "a failed action")?)?;
    Ok(Failed {
        number: owed.number,
        key: owed.key,
        action: owed.action,
        attempts: owed.attempts,
        error: f.error,
        at: Time(f.at),
    })
}

/// To its stored form.
pub fn run_to(run: &Run) -> stored::Run {
    stored::Run {
        journey: run.journey.clone(),
        instance: run.instance.clone(),
        run: run.run,
        version: run.version,
        status: status_to(run.status) as i32,
        outcome: run.outcome.clone(),
        started: run.started.0,
        ended: run.ended.map(|t| t.0),
    }
}

fn run_from(run: stored::Run) -> Result<Run, Unreadable> {
    Ok(Run {
        journey: run.journey,
        instance: run.instance,
        run: run.run,
        version: run.version,
        status: status_from(run.status)?,
        outcome: run.outcome,
        started: Time(run.started),
        ended: run.ended.map(Time),
    })
}

/// Fills a stored customer with the record's part of it.
pub fn customer_to(customer: &Customer, into: &mut stored::CustomerState) {
    into.key = Some(identifier_to(&customer.key));
    into.identifiers = customer
        .identifiers
        .iter()
        .filter(|i| **i != customer.key)
        .map(identifier_to)
        .collect();
    into.attributes = attributes_to(&customer.attributes);
    into.runs = customer.runs.iter().map(run_to).collect();
    into.forgotten = customer.forgotten;
}

/// The record's part of a stored customer.
pub fn customer_from(from: &mut stored::CustomerState) -> Result<Customer, Unreadable> {
    let key = identifier_from(need(from.key.take(), "the key of a customer")?);
    let others = std::mem::take(&mut from.identifiers);
    let mut identifiers = vec![key.clone()];
    identifiers.extend(others.into_iter().map(identifier_from));
    Ok(Customer {
        key,
        identifiers,
        attributes: attributes_from(std::mem::take(&mut from.attributes))?,
        runs: std::mem::take(&mut from.runs)
            .into_iter()
            .map(run_from)
            .collect::<Result<_, _>>()?,
        forgotten: from.forgotten,
    })
}

fn attributes_to(map: &BTreeMap<String, Attribute>) -> Vec<stored::Attribute> {
    map.iter()
        .map(|(name, a)| stored::Attribute {
            name: name.clone(),
            value: Some(value_to(&a.value)),
            occurred: a.occurred.0,
        })
        .collect()
}

fn attributes_from(
    list: Vec<stored::Attribute>,
) -> Result<BTreeMap<String, Attribute>, Unreadable> {
    list.into_iter()
        .map(|a| {
            let attribute = Attribute {
                value: value_from(need(a.value, "the value of an attribute")?)?,
                occurred: Time(a.occurred),
            };
            Ok((a.name, attribute))
        })
        .collect()
}

/// To its stored form; nothing when nothing changed.
pub fn change_to(change: &CustomerChange) -> Option<stored::CustomerChange> {
    if change.identifiers.is_empty() && change.attributes.is_empty() {
        return None;
    }
    Some(stored::CustomerChange {
        identifiers: change.identifiers.iter().map(identifier_to).collect(),
        attributes: attributes_to(&change.attributes),
    })
}

/// From its stored form.
pub fn change_from(change: stored::CustomerChange) -> Result<CustomerChange, Unreadable> {
    Ok(CustomerChange {
        // told to the sender once; not part of the record
        left_out: Vec::new(),
        identifiers: change
            .identifiers
            .into_iter()
            .map(identifier_from)
            .collect(),
        attributes: attributes_from(change.attributes)?,
    })
}

/// Whether an execution must stay in memory: it moves, it owes something, or an action of it failed and somebody has to
/// retry or skip it.
pub fn stays(e: &Execution) -> bool {
    let moves = matches!(e.status, Status::Active | Status::Held);
    moves || !e.owed.is_empty() || !e.failed.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use sojourn_journey::event::{Action, ActionOutcome, By, Event, What};
    use sojourn_journey::evolve::evolve;

    #[test]
    fn what_is_owed_again_and_what_failed_is_read_as_it_was_written() {
        let customer = Identifier::new("id", "ann").expect("an identifier");
        let by = || By {
            actor: "ann".into(),
            reason: "mended".into(),
        };
        let action = |n: u8| {
            What::Action(Action {
                place: format!("stage/one/enter/{n}"),
                kind: "webhook".into(),
                to: "hook".into(),
                body: vec![b'{', b'}'],
                awaited: Some("score".into()),
            })
        };
        let failed = |action: u64| What::Settled {
            action,
            attempt: 8,
            outcome: ActionOutcome::Failed {
                error: "503".into(),
            },
        };
        let retried = |action: u64, new_key: bool| What::Retried {
            action,
            new_key,
            by: by(),
        };
        let started = What::Started {
            journey: "j".into(),
            version: 1,
            customer: customer.clone(),
            instance: None,
            run: 1,
            stage: "one".into(),
        };
        let incident = What::Incident {
            place: "stage/one/enter/0".into(),
            message: "action failed at attempt 8: 503".into(),
            action: Some(1),
        };
        // 1 is owed under a new key, 2 under its own, 3 has failed again under a new one, 4 failed
        let happened = [
            started,
            action(0),
            action(1),
            action(2),
            action(3),
            failed(1),
            failed(2),
            failed(3),
            failed(4),
            retried(1, true),
            retried(2, false),
            retried(3, true),
            failed(3),
            incident,
        ];
        let events: Vec<Event> = (0..)
            .zip(happened)
            .map(|(number, what)| Event {
                number,
                at: Time(100 + number as i64),
                occurred: Time(100),
                what,
            })
            .collect();
        let mut state = Execution::begin(&events[0]).expect("a start");
        for event in &events[1..] {
            let stored = crate::convert::event::event_to_stored(event).encode_to_vec();
            let read = sojourn_proto::v1::Event::decode(stored.as_slice()).expect("an event");
            let read = crate::convert::event::event_from_stored(
                read,
                event.number,
                event.at,
                event.occurred,
            );
            assert_eq!(read.as_ref().ok(), Some(event));
            evolve(&mut state, event);
        }
        let keys: Vec<(u64, u64, u32)> = state
            .owed
            .iter()
            .map(|o| (o.number, o.key, o.before))
            .collect();
        assert_eq!(keys, [(1, 9, 8), (2, 2, 8)]);
        let keys: Vec<(u64, u64)> = state.failed.iter().map(|f| (f.number, f.key)).collect();
        assert_eq!(keys, [(4, 4), (3, 11)]);
        let bytes = execution_to(&state).encode_to_vec();
        let read = stored::Execution::decode(bytes.as_slice()).expect("an execution");
        assert_eq!(execution_from(read, &customer).ok(), Some(state));
    }
}

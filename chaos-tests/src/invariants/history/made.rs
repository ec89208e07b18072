//! Histories made by hand, for the tests of the checkers: one customer, whose records have one event each.

use crate::history::{Attempt, Finals, History, SOURCE, Told};
use crate::hook::Got;
use sojourn_client::wire::event::{
    ActionOutcome, Settled, Started, TimerArmed, TimerRef, What, action_outcome,
};
use sojourn_client::wire::timeline_entry::{Cause, cause};
use sojourn_client::wire::{
    Action, Event, ExecutionEvents, Fate, Position, Signal, TimelineEntry, Timer, fate,
};
use sojourn_client::{Identifier, Part, Receipt};
use std::collections::BTreeMap;

/// The execution of the one customer.
const EXECUTION: &str = "c-j-1";
/// When the timer of [`with_timer`] is due.
pub const DUE: i64 = 5_000_000;

/// A signal sent by client 0 at a time, and answered at one, or never.
pub fn sent(id: &str, begun: u64, answered: Option<u64>) -> Attempt {
    let told = match answered {
        Some(_) => Told::Receipt(Box::new(receipt(id))),
        None => Told::Unknown("no answer".into()),
    };
    Attempt {
        customer: 0,
        id: id.into(),
        client: 0,
        number: begun,
        begun,
        ended: answered.unwrap_or(begun + 5),
        told,
        wrong: false,
    }
}

fn receipt(id: &str) -> Receipt {
    Receipt {
        signal_id: id.into(),
        source: SOURCE.into(),
        customer: None,
        decision: format!("decision of {id}"),
        position: Some(sojourn_client::Position {
            shard: 0,
            index: if id == "a" { 1 } else { 2 },
        }),
        at: jiff::Timestamp::UNIX_EPOCH,
        occurred: jiff::Timestamp::UNIX_EPOCH,
        no_match: false,
        duplicate: false,
        content_differs: false,
        time_ahead: false,
        parts: vec![Part {
            execution: EXECUTION.into(),
            journey: "j".into(),
            instance: String::new(),
            run: 1,
            fate: Some(sojourn_client::Fate::Recorded),
        }],
        notes: Vec::new(),
    }
}

/// What was told.
pub fn history(attempts: Vec<Attempt>) -> History {
    History {
        customers: vec![Identifier::new("id", "Zoë")],
        attempts,
        looks: Vec::new(),
    }
}

fn record(place: usize, cause: cause::Cause, what: What) -> TimelineEntry {
    // events are counted from 0, positions from 1
    let (number, index) = (place as u64, place as u64 + 1);
    TimelineEntry {
        position: Some(Position { shard: 0, index }),
        decision: match &cause {
            cause::Cause::Signal(signal) => format!("decision of {}", signal.id),
            _ => format!("decision {index}"),
        },
        cause: Some(Cause { cause: Some(cause) }),
        parts: vec![ExecutionEvents {
            execution: EXECUTION.into(),
            journey: "j".into(),
            events: vec![Event {
                number,
                at: 10 * index as i64,
                what: Some(what),
                ..Event::default()
            }],
            fate: Some(Fate {
                fate: Some(fate::Fate::Recorded(fate::Recorded {})),
            }),
        }],
        ..TimelineEntry::default()
    }
}

fn signal(place: usize, id: &str, what: What) -> TimelineEntry {
    let signal = Signal {
        id: id.into(),
        source: SOURCE.into(),
        ..Signal::default()
    };
    record(place, cause::Cause::Signal(signal), what)
}

fn of(entries: Vec<TimelineEntry>) -> Finals {
    Finals {
        timelines: BTreeMap::from([(0, entries)]),
        read_at: 100_000_000,
        ..Finals::default()
    }
}

/// The records of these signals.
pub fn finals(ids: &[&str]) -> Finals {
    let records = ids.iter().enumerate();
    let each = records.map(|(place, id)| signal(place, id, What::Started(Started::default())));
    of(each.collect())
}

/// A webhook that was owed, arrived and is settled.
pub fn with_effect() -> Finals {
    let owed = Action {
        kind: "webhook".into(),
        body: b"{}".to_vec().into(),
        ..Action::default()
    };
    let done = ActionOutcome {
        outcome: Some(action_outcome::Outcome::Done(String::new())),
    };
    let settled = Settled {
        action: 0,
        attempt: 1,
        outcome: Some(done),
    };
    let mut finals = of(vec![
        signal(0, "a", What::Action(owed)),
        record(1, cause::Cause::Action(0), What::Settled(settled)),
    ]);
    finals.got.push(Got {
        key: format!("{EXECUTION}.0.0"),
        timestamp: 0,
        path: String::new(),
        body: serde_json::json!({}),
        signed: None,
        at: 15,
        answered: 200,
    });
    finals
}

/// A timer that was armed and fired in time.
pub fn with_timer() -> Finals {
    let timer = Timer {
        visit: 1,
        place: "p".into(),
        due: DUE,
        ..Timer::default()
    };
    let fired = TimerRef {
        visit: 1,
        place: "p".into(),
        round: 0,
    };
    let armed = TimerArmed { timer: Some(timer) };
    let mut finals = of(vec![
        signal(0, "a", What::TimerArmed(armed)),
        record(
            1,
            cause::Cause::Timer(fired.clone()),
            What::TimerFired(fired),
        ),
    ]);
    change_event(&mut finals, |event| {
        if matches!(event.what, Some(What::TimerFired(_))) {
            event.at = DUE;
        }
    });
    finals
}

/// Changes all events.
pub fn change_event(finals: &mut Finals, change: impl Fn(&mut Event)) {
    let entries = finals.timelines.values_mut().flatten();
    let events = entries
        .flat_map(|e| &mut e.parts)
        .flat_map(|p| &mut p.events);
    events.for_each(change);
}

/// Takes the records with such an event away.
pub fn drop_event(finals: &mut Finals, which: fn(&What) -> bool) {
    for entries in finals.timelines.values_mut() {
        entries.retain(|entry| {
            let mut events = entry.parts.iter().flat_map(|p| &p.events);
            !events.any(|e| e.what.as_ref().is_some_and(which))
        });
    }
}

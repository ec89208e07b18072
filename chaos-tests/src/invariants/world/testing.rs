//! Histories made by hand, of one customer of one group.

use crate::world::shards::books::{Asked, Call, Customer, Event, Finals, Line, Told, What};
use sojourn_cluster::GroupId;
use std::collections::BTreeMap;

pub const GROUP: GroupId = GroupId(1);

pub fn finals(lines: impl IntoIterator<Item = Line>) -> Finals {
    let lines = lines.into_iter().collect();
    Finals::from([(GROUP, BTreeMap::from([(0, Customer { lines })]))])
}

pub fn line(index: u64, decision: &str, previous: Option<&str>) -> Line {
    Line {
        index,
        decision: decision.to_owned(),
        previous: previous.map(str::to_owned),
        input: None,
        catalog: 1,
        at: 0,
        applied: 0,
        events: Vec::new(),
    }
}

pub fn of_signal(line: Line, signal: u64) -> Line {
    Line {
        input: Some(signal),
        ..line
    }
}

pub fn event(run: u32, number: u64, what: What) -> Event {
    Event { run, number, what }
}

fn call(asked: Asked, begun: u64, told: Option<(u64, Told)>) -> Call {
    Call {
        group: GROUP,
        node: 1,
        customer: 0,
        asked,
        by_hand: false,
        begun,
        told,
    }
}

pub fn signal_call(id: u64, begun: u64, told: Option<(u64, Told)>) -> Call {
    call(Asked::Input { id }, begun, told)
}

pub fn look_call(begun: u64, ended: u64, seen: Option<&str>) -> Call {
    let told = Told::Seen(seen.map(str::to_owned));
    call(Asked::Look, begun, Some((ended, told)))
}

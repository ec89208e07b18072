//! What the clients of a run sent, read and were told, and what was there in the end: all that the checkers of
//! [`crate::invariants::history`] look at. Knows nothing of how it came about.
//!
//! Times without another word are microseconds since the run began, by the clock that nobody steps.

use crate::hook::Got;
use sojourn_client::wire::TimelineEntry;
use sojourn_client::wire::timeline_entry::cause::Cause;
use sojourn_client::{Error, Identifier, Outcome, Receipt};
use std::collections::BTreeMap;

/// The journey that everybody is in.
pub const JOURNEY: &str = "chaos";
/// The source of every signal.
pub const SOURCE: &str = "chaos";

/// What came of sending a signal once.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// It was decided.
    Receipt(Box<Receipt>),
    /// It has not happened: it was not valid, or nobody took it.
    Refused(String),
    /// It may have happened.
    Unknown(String),
}

impl Told {
    /// What an answer of the client says.
    pub fn of(answer: Result<Outcome, Error>) -> Told {
        match answer {
            Ok(Outcome::Done(receipt)) => Told::Receipt(Box::new(receipt)),
            Ok(Outcome::Refused(error)) => Told::Refused(error.to_string()),
            Ok(Outcome::Unknown(error)) => Told::Unknown(error.to_string()),
            Err(error) if error.is_unknown() => Told::Unknown(error.to_string()),
            Err(error) => Told::Refused(error.to_string()),
        }
    }

    /// The receipt, when there is one and its signal is recorded: one that concerned nobody is not.
    pub fn recorded(&self) -> Option<&Receipt> {
        match self {
            Told::Receipt(receipt) if !receipt.no_match => Some(receipt),
            _ => None,
        }
    }
}

/// A signal that was sent once; the same id may have been sent several times.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// Whose.
    pub customer: usize,
    /// Its id: of this customer and no other.
    pub id: String,
    /// The client that sent it.
    pub client: usize,
    /// In which order this client was given its signals.
    pub number: u64,
    /// When it was given it.
    pub begun: u64,
    /// When it answered.
    pub ended: u64,
    /// What it answered.
    pub told: Told,
    /// It was made not to be valid.
    pub wrong: bool,
}

/// What a linearizable read of a customer's latest execution showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Place {
    /// The run; 0: there is none.
    pub run: u32,
    /// Its events so far.
    pub events: u64,
}

/// A read.
#[derive(Clone, Debug, PartialEq)]
pub struct Look {
    /// Of whom.
    pub customer: usize,
    /// The client that asked.
    pub client: usize,
    /// When it asked.
    pub begun: u64,
    /// When it was answered.
    pub ended: u64,
    /// What it saw, and the index in the shard's log at which that was true; else why there is no answer.
    pub saw: Result<(Place, u64), String>,
}

/// What the clients did.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// The customers, by their numbers.
    pub customers: Vec<Identifier>,
    /// In the order of the answers.
    pub attempts: Vec<Attempt>,
    /// In the order of the answers.
    pub looks: Vec<Look>,
}

impl History {
    /// The attempts by customer and id, each in the order in which they were begun.
    pub fn by_signal(&self) -> BTreeMap<(usize, &str), Vec<&Attempt>> {
        let mut all: BTreeMap<(usize, &str), Vec<&Attempt>> = BTreeMap::new();
        for attempt in &self.attempts {
            let of = all.entry((attempt.customer, &attempt.id)).or_default();
            of.push(attempt);
        }
        all.values_mut().for_each(|of| of.sort_by_key(|a| a.begun));
        all
    }

    /// A customer as people read it.
    pub fn name(&self, customer: usize) -> Identifier {
        let unknown = || Identifier::new("nobody", customer.to_string());
        self.customers
            .get(customer)
            .cloned()
            .unwrap_or_else(unknown)
    }
}

/// What was there in the end.
#[derive(Clone, Debug, Default)]
pub struct Finals {
    /// All records of each customer, oldest first.
    pub timelines: BTreeMap<usize, Vec<TimelineEntry>>,
    /// What arrived at the receiver of webhooks.
    pub got: Vec<Got>,
    /// When it was looked, in microseconds since 1970.
    pub read_at: i64,
    /// By how much a node's clock may have been ahead of that, in microseconds.
    pub ahead: i64,
}

impl Finals {
    /// A customer's records.
    pub fn of(&self, customer: usize) -> &[TimelineEntry] {
        self.timelines.get(&customer).map_or(&[], Vec::as_slice)
    }

    /// Where each signal stands in its customer's records, every time that it does.
    pub fn places(&self) -> BTreeMap<(usize, &str), Vec<usize>> {
        let mut places: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
        for (customer, entries) in &self.timelines {
            for (place, entry) in entries.iter().enumerate() {
                if let Some(id) = signal_of(entry) {
                    places.entry((*customer, id)).or_default().push(place);
                }
            }
        }
        places
    }

    /// The executions of a customer, each with its part of the records.
    pub fn executions(&self, customer: usize) -> BTreeMap<&str, Vec<TimelineEntry>> {
        let mut executions: BTreeMap<&str, Vec<TimelineEntry>> = BTreeMap::new();
        for entry in self.of(customer) {
            for part in entry.parts.iter().filter(|p| !p.execution.is_empty()) {
                let mut only = entry.clone();
                only.parts = vec![part.clone()];
                executions.entry(&part.execution).or_default().push(only);
            }
        }
        executions
    }
}

/// The signal that a record is of.
pub fn signal_of(entry: &TimelineEntry) -> Option<&str> {
    match entry.cause.as_ref()?.cause.as_ref()? {
        Cause::Signal(signal) => Some(&signal.id),
        _ => None,
    }
}

/// Where an execution stood after a record: its run and how many events it had. `None`: no event of any.
pub fn stood(entry: &TimelineEntry) -> Option<Place> {
    let last = |part: &sojourn_client::wire::ExecutionEvents| {
        let run = part.execution.rsplit('-').next()?.parse().ok()?;
        // they are counted from 0
        let events = part.events.iter().map(|e| e.number).max()? + 1;
        Some(Place { run, events })
    };
    entry.parts.iter().filter_map(last).max()
}

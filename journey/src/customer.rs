//! The customer record: who the customer is and which runs of which journeys it has or had.
//! Knows nothing of recent signal ids and of decision chains: those are the owner's.

use crate::event::{Event, What};
use crate::execution::Status;
use crate::limits;
use crate::signal::{Identifier, Signal};
use crate::time::Time;
use crate::value::Value;
use std::collections::BTreeMap;

/// What is known of one customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Customer {
    /// The customer key.
    pub key: Identifier,
    /// All identifiers seen, the key first, then in the order of arrival, without repeats.
    pub identifiers: Vec<Identifier>,
    /// Attributes, newest by event time per key.
    pub attributes: BTreeMap<String, Attribute>,
    /// One entry per (journey, instance): its latest run, active or ended; at most [`limits::RUNS`].
    pub runs: Vec<Run>,
    /// The highest number among the runs that were forgotten for want of room; 0: none was. New runs are numbered above
    /// it, so that no two executions ever have one id.
    pub forgotten: u32,
}

/// One attribute of a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The value.
    pub value: Value,
    /// The event time of the signal that brought it.
    pub occurred: Time,
}

/// The latest run of one (journey, instance) of a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The journey.
    pub journey: String,
    /// The instance key, where the journey has one.
    pub instance: Option<String>,
    /// 1, 2, 3 …
    pub run: u32,
    /// The version that this run is on.
    pub version: u32,
    /// How it stands.
    pub status: Status,
    /// The outcome, once it has ended with one.
    pub outcome: Option<String>,
    /// When it started (`at`).
    pub started: Time,
    /// When it ended (`at`).
    pub ended: Option<Time>,
}

/// What one signal changed in the customer record (not the runs: those follow from the executions' events).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CustomerChange {
    /// Identifiers that were not known.
    pub identifiers: Vec<Identifier>,
    /// Attributes that are new or newer.
    pub attributes: BTreeMap<String, Attribute>,
    /// Names of identifiers and attributes that were not taken: the record has no room, or they nest too deep.
    pub left_out: Vec<String>,
}

impl CustomerChange {
    /// Whether it leaves the record as it is.
    pub fn is_empty(&self) -> bool {
        self.identifiers.is_empty() && self.attributes.is_empty()
    }

    /// Whether it makes anything known of the customer another, or known at all; `before`: without it.
    pub fn is_felt(&self, before: &Customer) -> bool {
        let another = |(name, new): (&String, &Attribute)| {
            let known = before.attributes.get(name);
            known.is_none_or(|known| !known.value.same(&new.value))
        };
        !self.identifiers.is_empty() || self.attributes.iter().any(another)
    }
}

impl Run {
    /// Whether it has not ended; a held one is active too.
    pub fn is_active(&self) -> bool {
        matches!(self.status, Status::Active | Status::Held)
    }
}

impl Customer {
    /// A customer of whom nothing but the key is known.
    pub fn new(key: Identifier) -> Customer {
        Customer {
            identifiers: vec![key.clone()],
            key,
            attributes: BTreeMap::new(),
            runs: Vec::new(),
            forgotten: 0,
        }
    }

    /// What a signal changes: identifiers that were not known, attributes that are new or not older than those known.
    /// What would go beyond the limits of `limits` is left out and named.
    pub fn change(&self, signal: &Signal, at: Time) -> CustomerChange {
        let mut change = CustomerChange::default();
        for identifier in &signal.identifiers {
            let known =
                self.identifiers.contains(identifier) || change.identifiers.contains(identifier);
            let full =
                self.identifiers.len() + change.identifiers.len() >= limits::CUSTOMER_IDENTIFIERS;
            if !known && full {
                change.left_out.push(identifier.name.clone());
            } else if !known {
                change.identifiers.push(identifier.clone());
            }
        }
        let occurred = signal.time.map_or(at, |t| t.min(at));
        let mut count = self.attributes.len();
        let mut bytes: usize = self
            .attributes
            .iter()
            .map(|(name, a)| name.len() + a.value.weight())
            .sum();
        for (name, value) in &signal.attributes {
            let known = self.attributes.get(name);
            let older = known.is_some_and(|k| k.occurred > occurred);
            let same = known.is_some_and(|k| k.occurred == occurred && k.value == *value);
            if older || same {
                continue;
            }
            let room = known.map_or(0, |k| name.len() + k.value.weight());
            let after = bytes - room + name.len() + value.weight();
            let full = known.is_none() && count >= limits::ATTRIBUTES;
            let deep = value.depth() > limits::VALUE_DEPTH;
            if full || deep || after > limits::ATTRIBUTE_BYTES {
                change.left_out.push(name.clone());
                continue;
            }
            bytes = after;
            count += usize::from(known.is_none());
            change.attributes.insert(
                name.clone(),
                Attribute {
                    value: value.clone(),
                    occurred,
                },
            );
        }
        change
    }

    /// Applies what [`Customer::change`] found.
    pub fn apply(&mut self, change: &CustomerChange) {
        for identifier in &change.identifiers {
            if !self.identifiers.contains(identifier) {
                self.identifiers.push(identifier.clone());
            }
        }
        for (name, attribute) in &change.attributes {
            self.attributes.insert(name.clone(), attribute.clone());
        }
    }

    /// Whether [`Customer::note`] has anything to do for an event.
    pub fn heeds(event: &Event) -> bool {
        matches!(
            event.what,
            What::Started { .. } | What::Held { .. } | What::Resumed { .. } | What::Ended { .. }
        )
    }

    /// Keeps `runs` in step with one event of one of the customer's executions. Of runs that ended, the latest of each
    /// (journey, instance) stays, until there are more than [`limits::RUNS`]: then the one that ended first is
    /// forgotten. Of a forgotten run the rules know nothing: its signals are answered `no_match` where they were
    /// answered `ended`, and re-entry (`never`, the wait of `after_exit`) is decided as if it had not been. Only its
    /// number is not given again ([`Customer::forgotten`]). Its timeline stays in history, where no id leads to it any more.
    pub fn note(&mut self, journey: &str, instance: Option<&str>, run: u32, event: &Event) {
        if !Customer::heeds(event) {
            return;
        }
        if let What::Started { version, .. } = &event.what {
            self.runs
                .retain(|r| r.run != run || !r.is_of(journey, instance));
            self.runs.push(Run {
                journey: journey.to_owned(),
                instance: instance.map(str::to_owned),
                run,
                version: *version,
                status: Status::Active,
                outcome: None,
                started: event.at,
                ended: None,
            });
            self.forget_older(journey, instance);
            self.forget_beyond();
            return;
        }
        let found = self
            .runs
            .iter_mut()
            .find(|r| r.run == run && r.is_of(journey, instance));
        let Some(found) = found else { return };
        match &event.what {
            What::Held { .. } => found.status = Status::Held,
            What::Resumed { .. } => found.status = Status::Active,
            What::Ended {
                status, outcome, ..
            } => {
                found.status = *status;
                found.outcome = outcome.clone();
                found.ended = Some(event.at);
                self.forget_older(journey, instance);
            }
            _ => {}
        }
    }

    fn forget_older(&mut self, journey: &str, instance: Option<&str>) {
        let latest = self
            .runs
            .iter()
            .filter(|r| r.is_of(journey, instance))
            .map(|r| r.run)
            .max();
        self.runs
            .retain(|r| r.is_active() || Some(r.run) == latest || !r.is_of(journey, instance));
    }

    /// Forgets the runs that ended first while there are too many. Of two that ended at one time, the one that stands
    /// first in the record, which has one order on every replica.
    fn forget_beyond(&mut self) {
        while self.runs.len() > limits::RUNS {
            let ended = self.runs.iter().enumerate().filter(|(_, r)| !r.is_active());
            let Some((first, _)) = ended.min_by_key(|(place, r)| (r.ended, *place)) else {
                return;
            };
            let run = self.runs.remove(first);
            self.forgotten = self.forgotten.max(run.run);
        }
    }
}

impl Run {
    fn is_of(&self, journey: &str, instance: Option<&str>) -> bool {
        self.journey == journey && self.instance.as_deref() == instance
    }
}

//! The customer record: who the customer is and which runs of which journeys it has or had.
//! Knows nothing of recent signal ids and of decision chains: those are the owner's.

use crate::execution::Status;
use crate::signal::Identifier;
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
    /// One entry per (journey, instance): its latest run, active or ended.
    pub runs: Vec<Run>,
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
}

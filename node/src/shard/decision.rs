//! A decision: one input of one customer, decided. As values for the owner, as bytes for the log and for history.

use super::customer::DecisionId;
use crate::convert::event::{event_from_stored, event_to_stored, fate_to};
use crate::convert::state::{change_from, change_to};
use crate::convert::value::{identifier_from, identifier_to};
use crate::convert::{Unreadable, need};
use bytes::Bytes;
use prost::Message;
use sojourn_journey::customer::{Customer, CustomerChange};
use sojourn_journey::event::Event;
use sojourn_journey::execution::Execution;
use sojourn_journey::receipt::Fate;
use sojourn_journey::signal::Identifier;
use sojourn_journey::time::Time;
use sojourn_proto::{stored, v1};
use std::sync::Arc;

/// One input of one customer, decided: applied wholly or not at all.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Its id.
    pub id: DecisionId,
    /// The customer's decision before it.
    pub previous: Option<DecisionId>,
    /// The workspace.
    pub workspace: String,
    /// The customer key.
    pub customer: Identifier,
    /// The customer's hash.
    pub hash: u64,
    /// The owner's clock.
    pub at: Time,
    /// The input's own time.
    pub occurred: Time,
    /// What was decided on.
    pub cause: stored::cause::Cause,
    /// The id under which a repetition is recognised, if it has one.
    pub id_hash: Option<u128>,
    /// What it changes in the customer record.
    pub change: CustomerChange,
    /// What it does to each execution concerned.
    pub parts: Vec<Part>,
    /// The catalog decided with.
    pub catalog: u64,
    /// A hash of the input's content.
    pub content: u64,
    /// The signal's time lay ahead and was taken as `at`.
    pub time_ahead: bool,
    /// What the sender should know.
    pub notes: Vec<String>,
    /// The packed customers of this hash, when they were away: apply reads no history.
    pub returned: Option<Bytes>,
    /// What becomes of the state, on the node that decided; elsewhere, and when it is read again, it is made from the events.
    /// Not stored.
    pub outcome: Option<Outcome>,
}

/// The state that a decision's events lead to, as its owner made it when it decided: applying takes it over, so that it is not
/// made, and kept, twice.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The customer record.
    pub customer: Arc<Customer>,
    /// The executions that have events.
    pub executions: Vec<Arc<Execution>>,
}

/// What a decision does to one execution.
#[derive(Clone, Debug)]
pub struct Part {
    /// The journey.
    pub journey: String,
    /// The instance key.
    pub instance: Option<String>,
    /// The run; 0 when nothing was started.
    pub run: u32,
    /// Its events.
    pub events: Vec<Event>,
    /// The fate of a part without events.
    pub fate: Option<v1::Fate>,
}

impl Part {
    /// A part without events.
    pub fn bare(journey: String, instance: Option<String>, run: u32, fate: &Fate) -> Part {
        Part {
            journey,
            instance,
            run,
            events: Vec::new(),
            fate: Some(fate_to(fate)),
        }
    }

    /// What became of the input in this execution.
    pub fn fate(&self) -> v1::Fate {
        match &self.fate {
            Some(fate) => fate.clone(),
            None => fate_to(&sojourn_journey::receipt::fate(&self.events)),
        }
    }
}

impl Decision {
    /// The stored bytes.
    pub fn encode(&self) -> Bytes {
        self.clone().encode_own()
    }

    /// The same, without copying the input, which is by far the largest part: it is lent.
    pub fn encode_own(&mut self) -> Bytes {
        let nothing = stored::cause::Cause::Leave(stored::LeaveCause {});
        let cause = std::mem::replace(&mut self.cause, nothing);
        let mut message = stored::Decision {
            id: Some(self.id.into()),
            previous: self.previous.map(Into::into),
            workspace: self.workspace.clone(),
            customer: Some(identifier_to(&self.customer)),
            at: self.at.0,
            occurred: self.occurred.0,
            cause: Some(stored::Cause { cause: Some(cause) }),
            change: change_to(&self.change),
            parts: self
                .parts
                .iter()
                .map(|p| stored::Part {
                    journey: p.journey.clone(),
                    instance: p.instance.clone(),
                    run: p.run,
                    first: p.events.first().map_or(0, |e| e.number),
                    events: p.events.iter().map(event_to_stored).collect(),
                    fate: p.fate.clone(),
                })
                .collect(),
            catalog: self.catalog,
            content: self.content,
            time_ahead: self.time_ahead,
            notes: self.notes.clone(),
            returned: self.returned.clone().unwrap_or_default(),
        };
        let bytes = message.encode_to_vec().into();
        if let Some(cause) = message.cause.take().and_then(|c| c.cause) {
            self.cause = cause;
        }
        bytes
    }

    /// From the stored bytes.
    pub fn decode(bytes: &Bytes) -> Result<Decision, Unreadable> {
        let message = stored::Decision::decode(bytes.clone()).map_err(|e| Unreadable {
            what: "a decision",
            why: e.to_string(),
        })?;
        let (at, occurred) = (Time(message.at), Time(message.occurred));
        let customer = identifier_from(need(message.customer, "the customer of a decision")?);
        let hash = sojourn_journey::identifier::customer_hash(&message.workspace, &customer);
        let cause = need(
            message.cause.and_then(|c| c.cause),
            "the cause of a decision",
        )?;
        let mut parts = Vec::with_capacity(message.parts.len());
        for p in message.parts {
            let mut events = Vec::with_capacity(p.events.len());
            for (number, event) in (p.first..).zip(p.events) {
                events.push(event_from_stored(event, number, at, occurred)?);
            }
            parts.push(Part {
                journey: p.journey,
                instance: p.instance,
                run: p.run,
                events,
                fate: p.fate,
            });
        }
        Ok(Decision {
            id: need(message.id, "the id of a decision")?.into(),
            previous: message.previous.map(Into::into),
            id_hash: id_hash_of(hash, &cause),
            workspace: message.workspace,
            customer,
            hash,
            at,
            occurred,
            cause,
            change: message
                .change
                .map(change_from)
                .transpose()?
                .unwrap_or_default(),
            parts,
            catalog: message.catalog,
            content: message.content,
            time_ahead: message.time_ahead,
            notes: message.notes,
            returned: (!message.returned.is_empty()).then_some(message.returned),
            outcome: None,
        })
    }
}

/// The id under which a repetition of this cause is recognised.
pub fn id_hash_of(customer: u64, cause: &stored::cause::Cause) -> Option<u128> {
    use stored::cause::Cause;
    match cause {
        Cause::Signal(s) => Some(crate::history::id_hash(customer, &s.source, &s.id)),
        Cause::Command(c) => Some(crate::history::command_hash(customer, &c.id)),
        Cause::Timer(_)
        | Cause::Action(_)
        | Cause::Release(_)
        | Cause::Sweep(_)
        | Cause::Leave(_) => None,
    }
}

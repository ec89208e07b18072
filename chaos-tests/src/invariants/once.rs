//! Applied at most once: in a customer's records no signal, timer or command occurs twice, and the events of each
//! execution are numbered without gap or repetition.

use super::records;
use anyhow::{Result, ensure};
use sojourn_client::wire::TimelineEntry;
use sojourn_client::wire::timeline_entry::cause::Cause;
use sojourn_client::{Client, Identifier};
use std::collections::{BTreeMap, HashSet};

/// Reads all records of some customers.
///
/// # Errors
/// Naming what was applied twice.
pub async fn applied_at_most_once(client: &Client, customers: &[Identifier]) -> Result<()> {
    for customer in customers {
        once(customer, &records(client, customer).await?)?;
    }
    Ok(())
}

/// The same of all records of one customer, however they were read.
///
/// # Errors
/// Naming what was applied twice.
pub fn once(customer: &Identifier, entries: &[TimelineEntry]) -> Result<()> {
    let mut causes = HashSet::new();
    let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
    for entry in entries {
        let execution = entry.parts.first().map(|p| p.execution.clone());
        let cause = match entry.cause.as_ref().and_then(|c| c.cause.as_ref()) {
            Some(Cause::Signal(s)) => Some(format!("signal {} from {}", s.id, s.source)),
            Some(Cause::Timer(t)) => Some(format!(
                "timer {} of visit {} round {} in {execution:?}",
                t.place, t.visit, t.round
            )),
            Some(Cause::Command(c)) => Some(format!("command {c}")),
            Some(Cause::Action(_) | Cause::Other(_)) | None => None,
        };
        if let Some(cause) = cause {
            ensure!(
                causes.insert(cause.clone()),
                "{customer}: {cause} was applied twice"
            );
        }
        for part in &entry.parts {
            for event in &part.events {
                // an event without an execution tells why none was started
                if part.execution.is_empty() {
                    continue;
                }
                let last = numbers.entry(part.execution.clone()).or_default();
                ensure!(
                    event.number == *last + 1 || (*last == 0 && event.number == 0),
                    "{customer}: event {} of {} follows event {last}",
                    event.number,
                    part.execution
                );
                *last = event.number;
            }
        }
    }
    Ok(())
}

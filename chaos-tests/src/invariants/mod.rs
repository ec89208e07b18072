//! One checker per promise. Each looks at a running server from outside, after whatever the story did to it.

mod acknowledged;
pub(crate) mod commit_then_act;
mod duplicates;
mod figures;
pub mod history;
pub(crate) mod once;
pub(crate) mod receipts;
pub(crate) mod timers;
pub mod world;

pub use acknowledged::acknowledged_is_never_lost;
pub use commit_then_act::commit_then_act;
pub use duplicates::duplicates_get_the_first_answer;
pub use figures::{Figures, figures};
pub use once::applied_at_most_once;
pub use receipts::receipts_tell_the_truth;
pub use timers::timers_are_neither_lost_nor_early;

use anyhow::Result;
use futures::StreamExt;
use sojourn_client::wire::{TimelineEntry, event};
use sojourn_client::{Client, ExecutionRef, Identifier, Read};

/// The latest run of a customer in a journey.
pub fn latest(customer: &Identifier, journey: &str) -> ExecutionRef {
    ExecutionRef::Latest {
        customer: customer.clone(),
        journey: journey.to_owned(),
        instance: None,
    }
}

/// All of an execution's timeline, oldest first; with an empty journey, all records of the customer.
///
/// # Errors
/// As the call.
pub async fn timeline(
    client: &Client,
    customer: &Identifier,
    journey: &str,
) -> Result<Vec<TimelineEntry>> {
    let mut entries = Vec::new();
    let mut pages = std::pin::pin!(client.timeline(latest(customer, journey), Read::default()));
    while let Some(entry) = pages.next().await {
        entries.push(entry?);
    }
    Ok(entries)
}

/// All records of a customer; none when nobody is known under this key.
///
/// # Errors
/// As the call.
pub async fn records(client: &Client, customer: &Identifier) -> Result<Vec<TimelineEntry>> {
    match timeline(client, customer, "").await {
        Err(error)
            if error
                .downcast_ref::<sojourn_client::Error>()
                .is_some_and(sojourn_client::Error::is_not_found) =>
        {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// All events of a timeline, in order.
pub fn events(entries: &[TimelineEntry]) -> Vec<(u64, i64, event::What)> {
    let parts = entries.iter().flat_map(|e| &e.parts);
    parts
        .flat_map(|p| &p.events)
        .filter_map(|e| Some((e.number, e.at, e.what.clone()?)))
        .collect()
}

/// The stages of a timeline, in order: where it began and where it moved.
pub fn stages(entries: &[TimelineEntry]) -> Vec<String> {
    events(entries)
        .into_iter()
        .filter_map(|(_, _, what)| match what {
            event::What::Started(s) => Some(s.stage),
            event::What::Moved(m) => Some(m.to),
            _ => None,
        })
        .collect()
}

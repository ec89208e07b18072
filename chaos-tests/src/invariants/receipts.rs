//! Receipts tell the truth: at the position that a receipt names stands the decision that it names, of that signal,
//! and every part did to its execution what the receipt says.

use super::timeline;
use anyhow::{Context, Result, ensure};
use sojourn_client::wire::timeline_entry::cause::Cause;
use sojourn_client::wire::{TimelineEntry, fate};
use sojourn_client::{Client, Fate, Identifier, Receipt};
use std::collections::BTreeMap;

/// Compares receipts with the records of their customers.
///
/// # Errors
/// Naming the first receipt that says something else than the records.
pub async fn receipts_tell_the_truth(client: &Client, receipts: &[Receipt]) -> Result<()> {
    let mut of: BTreeMap<Identifier, Vec<&Receipt>> = BTreeMap::new();
    for receipt in receipts.iter().filter(|r| !r.no_match) {
        let customer = receipt
            .customer
            .clone()
            .context("a receipt names a customer")?;
        of.entry(customer).or_default().push(receipt);
    }
    for (customer, receipts) in of {
        let entries = timeline(client, &customer, "").await?;
        for receipt in receipts {
            true_of(&customer, receipt, &entries)?;
        }
    }
    Ok(())
}

/// The same of one receipt and all records of its customer, however they were read.
///
/// # Errors
/// Saying what differs.
pub fn true_of(customer: &Identifier, receipt: &Receipt, entries: &[TimelineEntry]) -> Result<()> {
    let told = format!("{customer}: the receipt of signal {}", receipt.signal_id);
    let entry = entries
        .iter()
        .find(|e| e.decision == receipt.decision)
        .with_context(|| {
            format!(
                "{told} names decision {:?}, which is not there",
                receipt.decision
            )
        })?;
    let id = match entry.cause.as_ref().and_then(|c| c.cause.as_ref()) {
        Some(Cause::Signal(s)) => s.id.as_str(),
        _ => "",
    };
    ensure!(
        id == receipt.signal_id,
        "{told}: its decision is that of {id:?}"
    );
    let position = entry.position.map(|p| (p.shard, p.index));
    let says = receipt.position.map(|p| (p.shard, p.index));
    ensure!(
        position == says,
        "{told} says {says:?}, it stands at {position:?}"
    );
    ensure!(
        receipt.parts.len() == entry.parts.len(),
        "{told} has {} parts, its decision {}",
        receipt.parts.len(),
        entry.parts.len()
    );
    for (part, stands) in receipt.parts.iter().zip(&entry.parts) {
        let stands_as = stands.fate.as_ref().and_then(|f| f.fate.as_ref()).map(word);
        let says = part.fate.as_ref().map(Fate::word);
        ensure!(
            says == stands_as && part.execution == stands.execution,
            "{told} says {says:?} of {:?}, the record {stands_as:?} of {:?}",
            part.execution,
            stands.execution
        );
    }
    Ok(())
}

fn word(fate: &fate::Fate) -> &'static str {
    match fate {
        fate::Fate::Moved(_) => "moved",
        fate::Fate::Recorded(_) => "recorded",
        fate::Fate::Started(_) => "started",
        fate::Fate::Exited(_) => "exited",
        fate::Fate::Unmatched(_) => "unmatched",
        fate::Fate::Ended(_) => "ended",
        fate::Fate::Refused(_) => "refused",
        fate::Fate::Held(_) => "held",
    }
}

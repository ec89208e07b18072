//! What the stories of several nodes share.

use anyhow::{Result, bail, ensure};
use sojourn_chaos_tests::invariants::{
    acknowledged_is_never_lost, applied_at_most_once, receipts_tell_the_truth, records,
};
use sojourn_chaos_tests::load::{Books, Load, Pace, Plan, customer};
use sojourn_chaos_tests::wait::until;
use sojourn_client::Client;
use std::time::Duration;
use tonic::Status;

/// A load that a debug build carries, whose receipts are kept.
pub fn load(client: Client, name: &str) -> Load {
    let plan = Plan {
        pace: Pace::Rate(30.0),
        customers: 24,
        name: name.to_owned(),
        rounds_before: 0,
        keep: true,
    };
    Load::start(client, plan)
}

/// Waits until so many more signals have been answered.
pub async fn more(load: &Load, count: usize) -> Result<()> {
    let wanted = load.answered() + count;
    until(
        &format!("{count} more receipts"),
        Duration::from_secs(60),
        async || Ok((load.answered() >= wanted).then_some(())),
    )
    .await
}

/// Every signal of a load was answered with a receipt, and each is there once, as its receipt says.
pub async fn all_there_once(client: &Client, name: &str, books: &Books) -> Result<()> {
    if let Some(first) = books.failed.first() {
        bail!(
            "{} of {} signals got no receipt: {first}",
            books.failed.len(),
            books.failed.len() + books.acks.len()
        );
    }
    there_once(client, name, books).await
}

/// Every signal of a load that was answered with a receipt is there once, as its receipt says.
pub async fn there_once(client: &Client, name: &str, books: &Books) -> Result<()> {
    ensure!(!books.receipts.is_empty(), "nothing was answered");
    acknowledged_is_never_lost(client, &books.receipts).await?;
    receipts_tell_the_truth(client, &books.receipts).await?;
    for (number, count) in &books.of {
        let who = customer(name, *number);
        applied_at_most_once(client, std::slice::from_ref(&who)).await?;
        let kept = records(client, &who).await?.len() as u64;
        let unanswered = books.failed.len() as u64;
        ensure!(
            (*count..=*count + unanswered).contains(&kept),
            "{who} has {kept} records, {count} signals were answered and {unanswered} of all were not"
        );
    }
    Ok(())
}

/// The refusal of a call that must not be done.
pub fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> Result<(tonic::Code, String)> {
    match answer {
        Err(status) => Ok((status.code(), status.message().to_owned())),
        Ok(done) => bail!("it was done: {done:?}"),
    }
}

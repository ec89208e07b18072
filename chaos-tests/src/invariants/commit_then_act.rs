//! Commit, then act: whatever was sent to the world stands in the timeline, from before it was sent; what is in the
//! timeline and settled as done was sent; and all attempts of one action bear one key and the same bytes, but for a retry
//! by hand that asked for a new key.

use super::{events, timeline};
use crate::hook::Got;
use anyhow::{Context, Result, ensure};
use sojourn_client::wire::TimelineEntry;
use sojourn_client::wire::event::{What, action_outcome};
use sojourn_client::{Client, Identifier, Read};
use std::collections::BTreeMap;

/// Compares what arrived for one execution with its timeline.
///
/// # Errors
/// Naming the action.
pub async fn commit_then_act(
    client: &Client,
    customer: &Identifier,
    journey: &str,
    got: &[Got],
) -> Result<()> {
    let execution = client
        .get(&super::latest(customer, journey), Read::default())
        .await?
        .execution
        .context("the answer has no execution")?;
    let entries = timeline(client, customer, journey).await?;
    acted(customer, &execution.id, &entries, got, 0)
}

/// The same of the timeline of one execution, however it was read. `ahead`: by how much the clock that decided may have
/// been ahead of the one that received, in microseconds.
///
/// # Errors
/// Naming the action.
pub fn acted(
    customer: &Identifier,
    execution: &str,
    entries: &[TimelineEntry],
    got: &[Got],
    ahead: i64,
) -> Result<()> {
    let mut actions: BTreeMap<u64, (i64, serde_json::Value)> = BTreeMap::new();
    let mut done = Vec::new();
    // by action, the number that its key bears: its own, until a retry by hand asks for a new one
    let mut keys: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, at, what) in events(entries) {
        match what {
            What::Action(action) if action.kind == "webhook" => {
                let body = serde_json::from_slice(&action.body)?;
                actions.insert(number, (at, body));
            }
            What::Retried(retried) if retried.new_key => {
                let old = keys.get(&retried.action).unwrap_or(&retried.action);
                let (_, body) = actions.get(old).context("a retry of no action")?.clone();
                actions.insert(number, (at, body));
                keys.insert(retried.action, number);
            }
            What::Settled(settled) => {
                let outcome = settled.outcome.and_then(|o| o.outcome);
                if matches!(outcome, Some(action_outcome::Outcome::Done(_))) {
                    let key = keys.get(&settled.action).unwrap_or(&settled.action);
                    done.push(*key);
                }
            }
            _ => {}
        }
    }
    let mut arrived: BTreeMap<u64, &Got> = BTreeMap::new();
    for one in got {
        // the key: execution, number of the event, place in its list
        let Some(rest) = one.key.strip_prefix(&format!("{execution}.")) else {
            continue;
        };
        let number = rest
            .split('.')
            .next()
            .and_then(|n| n.parse().ok())
            .with_context(|| format!("the key {:?} has no event number", one.key))?;
        let Some((at, body)) = actions.get(&number) else {
            anyhow::bail!("{customer}: {} arrived and is not in the timeline", one.key);
        };
        ensure!(
            *at <= one.at + ahead,
            "{customer}: {} arrived at {} and was decided at {at}",
            one.key,
            one.at
        );
        ensure!(
            *body == one.body,
            "{customer}: {} was decided as {body} and sent as {}",
            one.key,
            one.body
        );
        let first = arrived.entry(number).or_insert(one);
        ensure!(
            first.key == one.key,
            "{customer}: attempts of action {number} bear {} and {}",
            first.key,
            one.key
        );
    }
    for number in done {
        // log actions are done without anybody who listens
        if actions.contains_key(&number) {
            ensure!(
                arrived.contains_key(&number),
                "{customer}: action {number} is done and never arrived"
            );
        }
    }
    Ok(())
}

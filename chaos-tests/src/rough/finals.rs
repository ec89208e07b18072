//! What is there in the end: read through several clients when everything that was owed has been settled, or has had time
//! enough.

use crate::history::{Finals, History};
use crate::hook::Hook;
use crate::invariants::{events, records};
use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use sojourn_client::Client;
use sojourn_client::wire::TimelineEntry;
use sojourn_client::wire::event::What;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How many customers are read at once.
const AT_ONCE: usize = 8;
/// The pause before those whose effects or timers were open are read again.
const AGAIN: Duration = Duration::from_secs(1);

/// Reads the records of all customers. Those that owe something or wait for a timer are read again, until they do not or
/// `patience` is over.
///
/// # Errors
/// When a read gets no answer.
pub async fn read(
    clients: &[Client],
    history: &History,
    hook: &Hook,
    ahead: Duration,
    patience: Duration,
) -> Result<Finals> {
    let deadline = Instant::now() + patience;
    let mut finals = Finals {
        ahead: crate::faults::micros(ahead),
        ..Finals::default()
    };
    let mut open: Vec<usize> = (0..history.customers.len()).collect();
    loop {
        let read = stream::iter(open.clone()).map(|customer| async move {
            let client = &clients[customer % clients.len().max(1)];
            let entries = records(client, &history.name(customer)).await?;
            anyhow::Ok((customer, entries))
        });
        let read: Vec<_> = read.buffer_unordered(AT_ONCE).try_collect().await?;
        finals.timelines.extend(read);
        open.retain(|customer| {
            let executions = finals.executions(*customer);
            executions.values().any(|entries| is_open(entries))
        });
        if open.is_empty() || Instant::now() >= deadline {
            break;
        }
        tokio::time::sleep(AGAIN).await;
    }
    finals.got = hook.got();
    finals.read_at = jiff::Timestamp::now().as_microsecond();
    Ok(finals)
}

/// Whether an execution owes something, or waits for a timer.
fn is_open(entries: &[TimelineEntry]) -> bool {
    let mut owed = BTreeSet::new();
    let mut armed: BTreeMap<(u32, String, u32), ()> = BTreeMap::new();
    for (number, _, what) in events(entries) {
        match what {
            What::Action(_) => {
                owed.insert(number);
            }
            What::Settled(settled) => {
                owed.remove(&settled.action);
            }
            What::TimerArmed(timer) => {
                let timer = timer.timer.unwrap_or_default();
                armed.insert((timer.visit, timer.place, timer.round), ());
            }
            What::TimerFired(timer) => {
                armed.remove(&(timer.visit, timer.place, timer.round));
            }
            What::Moved(moved) => {
                armed.retain(|(visit, _, _), ()| *visit == 0 || *visit == moved.visit)
            }
            What::Ended(_) => armed.clear(),
            _ => {}
        }
    }
    !owed.is_empty() || !armed.is_empty()
}

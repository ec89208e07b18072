//! Timers are neither lost nor early: each that was armed and not left behind fired once, at its time or after it; one
//! whose visit is over never fired.

use super::timeline;
use anyhow::{Result, ensure};
use sojourn_client::wire::TimelineEntry;
use sojourn_client::wire::event::What;
use sojourn_client::{Client, Identifier};
use std::collections::BTreeMap;

/// What the timers of an execution did: each fired (visit, place, round), when it was due and when it fired, both in
/// microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Its place in the journey.
    pub place: String,
    /// The visit; 0: the execution's own.
    pub visit: u32,
    /// The round.
    pub round: u32,
    /// When it was due.
    pub due: i64,
    /// When it fired.
    pub at: i64,
}

/// Reads the timeline of an execution. `now` in microseconds: what was due before it (by a second or more) must have
/// fired.
///
/// # Errors
/// Naming the timer that fired early, twice, after its visit, or not at all.
pub async fn timers_are_neither_lost_nor_early(
    client: &Client,
    customer: &Identifier,
    journey: &str,
    now: i64,
) -> Result<Vec<Fired>> {
    let entries = timeline(client, customer, journey).await?;
    timers(customer, &entries, now)
}

/// The same of the timeline of one execution, however it was read.
///
/// # Errors
/// As [`timers_are_neither_lost_nor_early`].
pub fn timers(customer: &Identifier, entries: &[TimelineEntry], now: i64) -> Result<Vec<Fired>> {
    let mut armed: BTreeMap<(u32, String, u32), i64> = BTreeMap::new();
    let mut fired: Vec<Fired> = Vec::new();
    let mut visit = 1;
    let mut ended = false;
    for (_, at, what) in super::events(entries) {
        match what {
            What::TimerArmed(armed_now) => {
                if let Some(timer) = armed_now.timer {
                    armed.insert((timer.visit, timer.place, timer.round), timer.due);
                }
            }
            What::TimerFired(timer) => {
                let key = (timer.visit, timer.place.clone(), timer.round);
                let told = format!("{customer}: timer {key:?}");
                let Some(due) = armed.get(&key).copied() else {
                    anyhow::bail!("{told} fired and was never armed");
                };
                ensure!(
                    at >= due,
                    "{told} was due at {due} and fired at {at}: too early"
                );
                ensure!(
                    !fired
                        .iter()
                        .any(|f| (f.visit, f.place.clone(), f.round) == key),
                    "{told} fired twice"
                );
                ensure!(
                    !ended && (timer.visit == 0 || timer.visit == visit),
                    "{told} fired in visit {visit}, ended: {ended}"
                );
                fired.push(Fired {
                    place: timer.place,
                    visit: timer.visit,
                    round: timer.round,
                    due,
                    at,
                });
            }
            What::Moved(moved) => {
                visit = moved.visit;
                // leaving cancels
                armed.retain(|(v, _, _), _| *v == 0 || *v == visit);
            }
            What::Ended(_) => ended = true,
            _ => {}
        }
    }
    if !ended {
        for (key, due) in &armed {
            let done = fired
                .iter()
                .any(|f| (f.visit, f.place.clone(), f.round) == *key);
            // armed anew under the same key (another round) stands for itself
            let newer = armed
                .keys()
                .any(|(v, p, r)| (v, p) == (&key.0, &key.1) && *r > key.2);
            ensure!(
                done || newer || *due + 1_000_000 > now,
                "{customer}: timer {key:?} was due at {due} and has not fired at {now}"
            );
        }
    }
    Ok(fired)
}

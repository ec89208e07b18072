//! The promises to the clients of real processes, each with its statement: what they recorded
//! ([`crate::history`]) against what was there in the end. Pure: nothing is asked any more.

pub mod at_most_once;
pub mod effects;
pub mod linearizable;
pub mod never_lost;
pub mod one_owner;
pub mod receipts;
pub mod timers;
pub mod unknown_is_not_failed;
pub mod works_again;

#[cfg(test)]
mod made;

use crate::history::{Finals, History};

/// What a promise is, and what broke it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The promise in a few words.
    pub promise: &'static str,
    /// What it was held against.
    pub looked_at: String,
    /// What broke it.
    pub broken: Vec<String>,
}

/// Every promise that is about what clients were told.
pub fn all(history: &History, finals: &Finals) -> Vec<Checked> {
    let executions = || -> usize {
        finals
            .timelines
            .keys()
            .map(|c| finals.executions(*c).len())
            .sum()
    };
    let records: usize = finals.timelines.values().map(Vec::len).sum();
    let told = history
        .attempts
        .iter()
        .filter(|a| a.told.recorded().is_some());
    let answered = told.count();
    let looks = history.looks.iter().filter(|l| l.saw.is_ok()).count();
    vec![
        Checked {
            promise: "acknowledged is never lost, and stands in order",
            looked_at: format!("{answered} receipts, {records} records"),
            broken: never_lost::check(history, finals),
        },
        Checked {
            promise: "applied at most once",
            looked_at: format!("{records} records"),
            broken: at_most_once::check(history, finals),
        },
        Checked {
            promise: "unknown is never called failed",
            looked_at: format!("{} answers, {records} records", history.attempts.len()),
            broken: unknown_is_not_failed::check(history, finals),
        },
        Checked {
            promise: "reads are linearizable",
            looked_at: format!("{looks} reads, {answered} receipts"),
            broken: linearizable::check(history, finals),
        },
        Checked {
            promise: "receipts tell the truth",
            looked_at: format!("{answered} receipts"),
            broken: receipts::check(history, finals),
        },
        Checked {
            promise: "effects owed are effects settled",
            looked_at: format!("{} executions, {} webhooks", executions(), finals.got.len()),
            broken: effects::check(history, finals),
        },
        Checked {
            promise: "timers are neither lost nor early",
            looked_at: format!(
                "{} executions, {} timers",
                executions(),
                timers::fired(finals)
            ),
            broken: timers::check(history, finals),
        },
    ]
}

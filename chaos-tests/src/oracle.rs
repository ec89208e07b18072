//! What must come of the loan applications, worked out from the table of the journey and nothing else: no code of the
//! rules, no expression, no event. If this and a server agree, they agree for different reasons.

use crate::data::Row;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

/// The ways: in this stage, this event leads to that stage.
const WAYS: &[(&str, &str, &str)] = &[
    ("submitted", "A_PARTLYSUBMITTED", "partly_submitted"),
    ("submitted", "A_DECLINED", "declined"),
    ("partly_submitted", "A_PREACCEPTED", "preaccepted"),
    ("partly_submitted", "A_DECLINED", "declined"),
    ("partly_submitted", "A_CANCELLED", "cancelled"),
    ("preaccepted", "A_ACCEPTED", "accepted"),
    ("preaccepted", "A_DECLINED", "declined"),
    ("preaccepted", "A_CANCELLED", "cancelled"),
    ("accepted", "O_SENT", "offer_sent"),
    ("accepted", "A_DECLINED", "declined"),
    ("accepted", "A_CANCELLED", "cancelled"),
    ("offer_sent", "O_SENT_BACK", "offer_returned"),
    ("offer_sent", "O_CANCELLED", "accepted"),
    ("offer_sent", "A_DECLINED", "declined"),
    ("offer_sent", "A_CANCELLED", "cancelled"),
    ("offer_returned", "A_APPROVED", "approved"),
    ("offer_returned", "O_CANCELLED", "accepted"),
    ("offer_returned", "A_DECLINED", "declined"),
    ("offer_returned", "A_CANCELLED", "cancelled"),
];
/// The ends and their outcomes.
const ENDS: &[(&str, &str)] = &[
    ("approved", "converted"),
    ("declined", "lost"),
    ("cancelled", "lost"),
];
/// The event that begins, and where.
const ENTRY: (&str, &str) = ("A_SUBMITTED", "submitted");

/// One stay in a stage: the stage, and when it began, in microseconds.
pub type Stay = (String, i64);

/// What must come of the whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Rows by fate.
    pub fates: BTreeMap<String, u64>,
    /// People by stage, ended ones in their end.
    pub here: BTreeMap<String, u64>,
    /// Visits begun by stage.
    pub entered: BTreeMap<String, u64>,
    /// How long completed visits lasted, by stage, in microseconds, sorted.
    pub stays: BTreeMap<String, Vec<i64>>,
    /// (outcome, stage) of those that ended.
    pub outcomes: BTreeMap<(String, String), u64>,
    /// Moves by (from, to).
    pub flows: BTreeMap<(String, String), u64>,
    /// The stays of every application, in order.
    pub applications: BTreeMap<String, Vec<Stay>>,
    /// The fate of each row, in order.
    pub rows: Vec<&'static str>,
}

impl Expected {
    /// Walks all rows in the order of the file.
    ///
    /// # Errors
    /// When a row has a time that is none.
    pub fn of(rows: &[Row]) -> Result<Expected> {
        let mut all = Expected::default();
        for row in rows {
            let fate = all.row(row)?;
            all.rows.push(fate);
            *all.fates.entry(fate.to_owned()).or_default() += 1;
        }
        for stays in all.applications.values() {
            if let Some((stage, _)) = stays.last() {
                *all.here.entry(stage.clone()).or_default() += 1;
                if let Some(outcome) = outcome_of(stage) {
                    let key = (outcome.to_owned(), stage.clone());
                    *all.outcomes.entry(key).or_default() += 1;
                }
            }
        }
        all.stays.values_mut().for_each(|s| s.sort_unstable());
        Ok(all)
    }

    fn row(&mut self, row: &Row) -> Result<&'static str> {
        let time: jiff::Timestamp = row
            .time
            .parse()
            .with_context(|| format!("event {}: its time is {:?}", row.event, row.time))?;
        let now = time.as_microsecond();
        let (begin, first) = ENTRY;
        let Some(stays) = self.applications.get_mut(&row.application) else {
            if row.activity != begin {
                return Ok("no_match");
            }
            let stays = vec![(first.to_owned(), now)];
            self.applications.insert(row.application.clone(), stays);
            *self.entered.entry(first.to_owned()).or_default() += 1;
            return Ok("started");
        };
        let Some((stage, since)) = stays.last().cloned() else {
            return Ok("no_match");
        };
        if outcome_of(&stage).is_some() {
            return Ok(if row.activity == begin {
                "refused"
            } else {
                "ended"
            });
        }
        let way = WAYS
            .iter()
            .find(|(from, on, _)| *from == stage && *on == row.activity);
        let Some((_, _, to)) = way else {
            return Ok("unmatched");
        };
        stays.push(((*to).to_owned(), now));
        *self.entered.entry((*to).to_owned()).or_default() += 1;
        self.stays
            .entry(stage.clone())
            .or_default()
            .push(now - since);
        *self.flows.entry((stage, (*to).to_owned())).or_default() += 1;
        Ok("moved")
    }

    /// How many rows had this fate.
    pub fn fate(&self, fate: &str) -> u64 {
        self.fates.get(fate).copied().unwrap_or_default()
    }

    /// How many stages there are in the table, ends included.
    pub fn stages() -> Vec<&'static str> {
        let mut names: Vec<&str> = WAYS.iter().flat_map(|(from, _, to)| [*from, *to]).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The events that lead out of a stage, and where to, in order of precedence.
    pub fn ways_out(stage: &str) -> Vec<(&'static str, &'static str)> {
        WAYS.iter()
            .filter(|(from, _, _)| *from == stage)
            .map(|(_, on, to)| (*on, *to))
            .collect()
    }

    /// Mean of completed visits in seconds.
    pub fn mean(&self, stage: &str) -> Option<f64> {
        let stays = self.stays.get(stage).filter(|s| !s.is_empty())?;
        let sum: i128 = stays.iter().map(|s| i128::from(*s)).sum();
        Some(sum as f64 / stays.len() as f64 / 1e6)
    }

    /// The two values between which a median may lie, in seconds: equal but for an even number of visits.
    pub fn median(&self, stage: &str) -> Option<(f64, f64)> {
        let stays = self.stays.get(stage).filter(|s| !s.is_empty())?;
        let at = |i: usize| stays[i] as f64 / 1e6;
        Some((at((stays.len() - 1) / 2), at(stays.len() / 2)))
    }
}

fn outcome_of(stage: &str) -> Option<&'static str> {
    ENDS.iter().find(|(s, _)| *s == stage).map(|(_, o)| *o)
}

//! **A shard has one owner.** No replica ever applied a decision of a second owner of a term (`owner_conflicts` of
//! `/metrics`); decisions of owners that had been followed are ignored, and only in rough times (`decisions_ignored`).

use std::collections::BTreeMap;

/// What one process said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its place in the cluster.
    pub place: usize,
    /// The process: its counters begin anew with each.
    pub process: u32,
    /// When, in microseconds since the run began.
    pub at: u64,
    /// Decisions of a second owner of a term.
    pub conflicts: u64,
    /// Decisions that were not applied, because their owner had been followed.
    pub ignored: u64,
}

/// The processes that saw two owners at any time, or decisions to ignore after `calm`.
pub fn check(samples: &[Sample], calm: u64) -> Vec<String> {
    let mut broken = Vec::new();
    let mut of: BTreeMap<(usize, u32), Vec<&Sample>> = BTreeMap::new();
    for sample in samples {
        of.entry((sample.place, sample.process))
            .or_default()
            .push(sample);
    }
    for ((place, process), samples) in of {
        if let Some(two) = samples.iter().find(|s| s.conflicts > 0) {
            broken.push(format!(
                "one owner: process {process} at place {place} counts {} decisions of a second owner at {} µs",
                two.conflicts, two.at
            ));
        }
        let (before, after): (Vec<&Sample>, Vec<&Sample>) =
            samples.into_iter().partition(|s| s.at < calm);
        // a process that began after that has nothing before
        let first = before.last().map_or(0, |s| s.ignored);
        if let Some(more) = after.iter().find(|s| s.ignored > first) {
            broken.push(format!(
                "one owner: process {process} at place {place} ignored {} decisions by {} µs, {first} of them before the \
                 rough times were over",
                more.ignored, more.at
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_owners_and_decisions_ignored_in_calm_times_are_found() {
        let said = |process, at, conflicts, ignored| Sample {
            place: 0,
            process,
            at,
            conflicts,
            ignored,
        };
        for (what, samples, wanted) in [
            ("nothing", vec![said(1, 5, 0, 0), said(1, 15, 0, 0)], 0),
            (
                "rough times",
                vec![said(1, 5, 0, 3), said(1, 15, 0, 3), said(2, 15, 0, 0)],
                0,
            ),
            ("two owners", vec![said(1, 5, 1, 0)], 1),
            (
                "in calm times",
                vec![said(1, 5, 0, 3), said(1, 15, 0, 4)],
                1,
            ),
            (
                "by a new process",
                vec![said(1, 5, 0, 3), said(2, 15, 0, 1)],
                1,
            ),
        ] {
            let found = check(&samples, 10);
            assert_eq!(found.len(), wanted, "{what}: {found:?}");
        }
    }
}

//! **Decisions follow the catalog.** The catalog that a customer's decisions are made with never becomes an older one, whoever
//! owns the shard; a run begins on the version that is live there, and its times are those of that version as long as it lasts.

use crate::world::shards::books::{Finals, What};
use crate::world::shards::journey::due_after;
use std::collections::BTreeMap;

/// The decisions that were made with an older catalog than the one before, the runs that began on another version than the live
/// one, and the timers that are not those of their run's version. In these worlds version n is live at position n of the catalog.
pub fn check(finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            let mut newest = 0;
            let mut versions: BTreeMap<u32, u32> = BTreeMap::new();
            for line in &customer.lines {
                let what = format!(
                    "one catalog: decision {} of customer {who} of {group} at entry {}",
                    line.decision, line.index
                );
                if line.catalog < newest {
                    broken.push(format!(
                        "{what} was made with catalog {}, and one before it with {newest}",
                        line.catalog
                    ));
                }
                newest = newest.max(line.catalog);
                for event in &line.events {
                    match &event.what {
                        What::Started { version } => {
                            versions.insert(event.run, *version);
                            if u64::from(*version) != line.catalog {
                                broken.push(format!(
                                    "{what} began run {} on version {version}, and was made with catalog {}",
                                    event.run, line.catalog
                                ));
                            }
                        }
                        What::Armed((run, _, place, _), due) => {
                            let version = versions.get(run).copied().unwrap_or(0);
                            let after = due_after(version, place);
                            if after.is_some_and(|after| line.at + after != *due) {
                                broken.push(format!(
                                    "{what} armed {place} of run {run}, which is on version {version}, {} µs ahead",
                                    due - line.at
                                ));
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::world::testing::{event, finals, line};

    #[test]
    fn an_older_catalog_and_another_version_are_found() {
        let made = |index, catalog, version| {
            let mut line = line(index, &index.to_string(), None);
            line.catalog = catalog;
            line.events = vec![event(1, 1, What::Started { version })];
            line
        };
        for (what, lines, broken) in [
            ("in order", [made(1, 1, 1), made(2, 2, 2)], 0),
            ("older", [made(1, 2, 2), made(2, 1, 1)], 1),
            ("another version", [made(1, 1, 1), made(2, 2, 1)], 1),
        ] {
            let found = check(&finals(lines));
            assert_eq!(found.len(), broken, "{what}: {found:?}");
        }
        let armed = |due| {
            let mut line = made(1, 2, 2);
            let timer = (1, 1, "stage/open/transition/1".to_owned(), 1);
            line.events.push(event(1, 2, What::Armed(timer, due)));
            line
        };
        let own = due_after(2, "stage/open/transition/1").unwrap_or(0);
        let other = due_after(1, "stage/open/transition/1").unwrap_or(0);
        assert_ne!(own, other);
        assert!(check(&finals([armed(own)])).is_empty());
        assert_eq!(check(&finals([armed(other)])).len(), 1);
    }
}

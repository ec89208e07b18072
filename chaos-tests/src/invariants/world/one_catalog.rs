//! **Decisions follow the catalog.** The catalog that a customer's decisions are made with never becomes an older one, whoever
//! owns the shard, and a run begins on the version that is live there.

use crate::world::shards::books::{Finals, What};

/// The decisions that were made with an older catalog than the one before, and the runs that began on another version than the
/// live one. In these worlds version n is live at position n of the catalog.
pub fn check(finals: &Finals) -> Vec<String> {
    let mut broken = Vec::new();
    for (group, customers) in finals {
        for (who, customer) in customers {
            let mut newest = 0;
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
                    if let What::Started { version } = event.what
                        && u64::from(version) != line.catalog
                    {
                        broken.push(format!(
                            "{what} began run {} on version {version}, and was made with catalog {}",
                            event.run, line.catalog
                        ));
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
    }
}

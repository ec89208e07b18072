//! What became of the rows of a file: every row in exactly one place, so that they add up.

use crate::cli::show;
use crate::cli::table::{Align, Table};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Rows that failed and are told in full.
const TOLD: usize = 10;

/// The order of the table; what is none of these comes after.
const ORDER: [&str; 10] = [
    "started",
    "moved",
    "recorded",
    "exited",
    "unmatched",
    "ended",
    "held",
    "refused",
    "no_match",
    "duplicate",
];

/// Counts by fate.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::cli) struct Summary {
    /// Rows by fate; a duplicate counts as `duplicate`.
    fates: BTreeMap<String, u64>,
    /// Rows by what the signal did when it was first decided.
    first: BTreeMap<String, u64>,
    /// Rows that got no receipt.
    failed: u64,
    /// The first of them.
    failures: Vec<Failed>,
}

/// A row that got no receipt.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(in crate::cli) struct Failed {
    pub row: u64,
    pub line: u64,
    pub column: String,
    pub message: String,
}

impl Summary {
    /// A row with a receipt.
    pub fn done(&mut self, fate: &str, first: &str) {
        let count = |map: &mut BTreeMap<String, u64>, key: &str| match map.get_mut(key) {
            Some(count) => *count += 1,
            None => {
                map.insert(key.to_owned(), 1);
            }
        };
        count(&mut self.fates, fate);
        count(&mut self.first, first);
    }

    /// A row without.
    pub fn failed(&mut self, failed: Failed) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(failed);
        }
    }

    /// Adds the rows of another file.
    pub fn merge(&mut self, other: Summary) {
        for (fate, count) in other.fates {
            *self.fates.entry(fate).or_default() += count;
        }
        for (fate, count) in other.first {
            *self.first.entry(fate).or_default() += count;
        }
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(TOLD);
    }

    /// All rows.
    pub fn rows(&self) -> u64 {
        self.fates.values().sum::<u64>() + self.failed
    }

    /// Rows without a receipt.
    pub fn failures(&self) -> u64 {
        self.failed
    }

    /// For programs. `fates` and `failed` add up to `rows`, and so do `first_fates` and `failed`.
    pub fn json(&self) -> Value {
        let full = |map: &BTreeMap<String, u64>| -> serde_json::Map<String, Value> {
            let order = ORDER
                .iter()
                .filter(|f| *f != &"duplicate" || std::ptr::eq(map, &self.fates));
            order
                .map(|f| (*f).to_owned())
                .chain(map.keys().cloned())
                .map(|fate| {
                    let count = map.get(&fate).copied().unwrap_or_default();
                    (fate, Value::from(count))
                })
                .collect()
        };
        let failures: Vec<Value> = self
            .failures
            .iter()
            .map(|f| json!({ "row": f.row, "line": f.line, "column": f.column, "message": f.message }))
            .collect();
        json!({
            "rows": self.rows(), "fates": full(&self.fates), "first_fates": full(&self.first), "failed": self.failed,
            "failures": failures,
        })
    }

    /// For people: a table that adds up, and what failed. Where there are duplicates, their first fates too.
    pub fn text(&self) -> String {
        let duplicates = self.fates.get("duplicate").copied().unwrap_or_default() > 0;
        let mut columns = vec![("fate", Align::Left), ("rows", Align::Right)];
        if duplicates {
            columns.push(("when first sent", Align::Right));
        }
        let mut table = Table::new(&columns);
        let others = self
            .fates
            .keys()
            .map(String::as_str)
            .filter(|f| !ORDER.contains(f));
        for fate in ORDER.into_iter().chain(others) {
            let get = |map: &BTreeMap<String, u64>| {
                show::count(map.get(fate).copied().unwrap_or_default())
            };
            let first = if fate == "duplicate" {
                String::new()
            } else {
                get(&self.first)
            };
            table.row([fate.to_owned(), get(&self.fates), first]);
        }
        table.row([
            "failed".to_owned(),
            show::count(self.failed),
            show::count(self.failed),
        ]);
        table.row([
            "rows".to_owned(),
            show::count(self.rows()),
            show::count(self.rows()),
        ]);
        let mut text = table.to_string();
        for f in &self.failures {
            let column = if f.column.is_empty() {
                String::new()
            } else {
                format!(", column {}", f.column)
            };
            text.push_str(&format!(
                "\nrow {} (line {}{column}): {}",
                f.row, f.line, f.message
            ));
        }
        let told = self.failures.len() as u64;
        if self.failed > told {
            text.push_str(&format!("\n… and {} more", show::count(self.failed - told)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_adds_up_and_tells_the_first_failures() {
        let mut summary = Summary::default();
        summary.done("started", "started");
        summary.done("duplicate", "moved");
        for row in 3..15 {
            summary.failed(Failed {
                row,
                line: row + 1,
                column: "time".into(),
                message: "it is empty".into(),
            });
        }
        let text = summary.text();
        assert!(
            text.starts_with(
                "fate       rows  when first sent\nstarted       1                1\n"
            ),
            "{text}"
        );
        assert!(text.contains("duplicate     1\nfailed       12               12\nrows         14               14"), "{text}");
        assert!(
            text.contains("row 3 (line 4, column time): it is empty"),
            "{text}"
        );
        assert!(
            text.ends_with("row 12 (line 13, column time): it is empty\n… and 2 more"),
            "{text}"
        );
        let json = summary.json();
        assert_eq!(json["rows"], 14);
        assert_eq!(json["first_fates"]["moved"], 1);
        assert_eq!(json["fates"]["moved"], 0);
    }
}

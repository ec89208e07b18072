//! Tables for people: columns as wide as their widest cell, two spaces between. Knows no terminal; a wide character
//! counts as one.

use std::fmt;

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header.
///
/// ```
/// use sojourn_client::cli::table::{Align, Table};
/// let mut table = Table::new(&[("fate", Align::Left), ("rows", Align::Right)]);
/// table.row(["moved", "12"]);
/// assert_eq!(table.to_string(), "fate   rows\nmoved    12");
/// ```
#[derive(Clone, Debug)]
pub struct Table {
    aligns: Vec<Align>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[(&str, Align)]) -> Table {
        Table {
            aligns: columns.iter().map(|(_, align)| *align).collect(),
            rows: vec![columns.iter().map(|(name, _)| (*name).to_owned()).collect()],
        }
    }

    /// Adds a row; cells beyond the columns are dropped, missing ones are empty.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        // a control character in a name must not move the cursor
        let clean = |cell: String| {
            cell.chars()
                .map(|c| if c.is_control() { '\u{fffd}' } else { c })
                .collect::<String>()
        };
        let mut row: Vec<String> = cells.into_iter().map(|c| clean(c.into())).collect();
        row.resize(self.aligns.len(), String::new());
        self.rows.push(row);
    }

    /// Whether there is only a header.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut widths = vec![0; self.aligns.len()];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for ((cell, align), width) in row.iter().zip(&self.aligns).zip(&widths) {
                match align {
                    Align::Left => line.push_str(&format!("{cell:<width$}  ")),
                    Align::Right => line.push_str(&format!("{cell:>width$}  ")),
                }
            }
            if number > 0 {
                writeln!(f)?;
            }
            f.write_str(line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_taken_out() {
        let mut table = Table::new(&[
            ("stage", Align::Left),
            ("here", Align::Right),
            ("note", Align::Left),
        ]);
        table.row(["angefragt", "7", ""]);
        table.row(["überprüft", "1,234", "a\u{1b}[31mb"]);
        assert_eq!(
            table.to_string(),
            "stage       here  note\n\
             angefragt      7\n\
             überprüft  1,234  a\u{fffd}[31mb"
        );
    }
}

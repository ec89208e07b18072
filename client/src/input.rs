//! Signals from files: CSV with a column mapping, and JSON Lines of CloudEvents 1.0, plain or gzipped.
//! Used by `signal import` and `simulate` alike, so that both see the same signals. Knows no server.
//!
//! A row that cannot be read is a row with an error, not the end of the file; the reader goes on with the next.

mod cloudevents;
mod csv;
mod mapping;
mod open;

pub use mapping::{Format, Mapping, MappingFile};

use crate::signal::Signal;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// One row of a file.
#[derive(Debug)]
pub struct Row {
    /// Which row, from 1, not counting a header and empty lines.
    pub number: u64,
    /// The line of the file on which it begins, from 1.
    pub line: u64,
    /// The signal, or what is wrong with the row.
    pub signal: Result<Signal, RowError>,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowError {
    /// The column (or JSON path); empty for the whole row.
    pub column: String,
    /// What was found and what is expected.
    pub message: String,
}

impl RowError {
    fn new(column: impl Into<String>, message: impl Into<String>) -> RowError {
        RowError {
            column: column.into(),
            message: message.into(),
        }
    }
}

impl std::fmt::Display for RowError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.column.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "column {}: {}", self.column, self.message)
        }
    }
}

/// Reads the rows of one file in their order.
pub struct Reader {
    rows: Rows,
    read: Arc<AtomicU64>,
    size: Option<u64>,
}

enum Rows {
    Csv(Box<csv::CsvRows>),
    CloudEvents(Box<cloudevents::EventRows>),
}

/// Why a file cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The file: it is not there, is empty, is no text.
    #[error("{0}")]
    File(String),
    /// The mapping: it does not fit what the file holds.
    #[error("{0}")]
    Mapping(String),
}

impl OpenError {
    fn of(self, path: &Path) -> OpenError {
        let named = |text: String| format!("{}: {text}", path.display());
        match self {
            OpenError::File(text) => OpenError::File(named(text)),
            OpenError::Mapping(text) => OpenError::Mapping(named(text)),
        }
    }
}

impl Reader {
    /// Opens a file; `-` is the standard input. The format is what the mapping says, else what the name says
    /// (`.csv`, `.jsonl`, `.ndjson`, each with or without `.gz`).
    ///
    /// # Errors
    /// When the file cannot be opened, has no known format, is empty, or lacks a column that the mapping names.
    pub fn open(path: &Path, mapping: &Mapping) -> Result<Reader, OpenError> {
        let format = mapping.format_of(path).map_err(OpenError::Mapping)?;
        let opened = open::open(path).map_err(|e| OpenError::File(e.to_string()).of(path))?;
        Reader::of(opened, format, mapping).map_err(|e| e.of(path))
    }

    fn of(opened: open::Opened, format: Format, mapping: &Mapping) -> Result<Reader, OpenError> {
        let rows = match format {
            Format::Csv => Rows::Csv(Box::new(csv::CsvRows::new(opened.reader, mapping)?)),
            Format::Cloudevents => Rows::CloudEvents(Box::new(
                cloudevents::EventRows::new(opened.reader, mapping).map_err(OpenError::Mapping)?,
            )),
        };
        Ok(Reader {
            rows,
            read: opened.read,
            size: opened.size,
        })
    }

    /// The same from bytes, in this format.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn from_bytes(
        bytes: Vec<u8>,
        format: Format,
        mapping: &Mapping,
    ) -> Result<Reader, OpenError> {
        let size = Some(bytes.len() as u64);
        let opened = open::wrap(std::io::Cursor::new(bytes), size)
            .map_err(|e| OpenError::File(e.to_string()))?;
        Reader::of(opened, format, mapping)
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// When the file cannot be read on: a broken disk, a truncated gzip file.
    pub fn next_row(&mut self) -> Result<Option<Row>, String> {
        match &mut self.rows {
            Rows::Csv(rows) => rows.next_row(),
            Rows::CloudEvents(rows) => rows.next_row(),
        }
    }

    /// Passes over the first rows without looking at what they say. Returns how many there were, fewer at the end.
    ///
    /// # Errors
    /// As [`Reader::next_row`].
    pub fn skip_rows(&mut self, count: u64) -> Result<u64, String> {
        for done in 0..count {
            let more = match &mut self.rows {
                Rows::Csv(rows) => rows.skip_row()?,
                Rows::CloudEvents(rows) => rows.skip_row()?,
            };
            if !more {
                return Ok(done);
            }
        }
        Ok(count)
    }

    /// Bytes of the file read so far, as they lie on the disk (compressed where it is).
    pub fn bytes_read(&self) -> u64 {
        self.read.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The same number for whoever looks at it from elsewhere.
    pub(crate) fn counter(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// Bytes of the file; `None` when it is not known, as for the standard input.
    pub fn size(&self) -> Option<u64> {
        self.size
    }
}

#[cfg(test)]
mod tests;

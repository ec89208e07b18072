//! The loan applications of a Dutch bank: real events, kept outside the work tree, and a part of them for the tests
//! that run many times.

use crate::binary;
use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use std::fs::File;
use std::hash::Hasher;
use std::path::{Path, PathBuf};

/// One event as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its id.
    pub event: String,
    /// When it happened, RFC 3339.
    pub time: String,
    /// The application.
    pub application: String,
    /// What happened: `A_SUBMITTED` …
    pub activity: String,
    /// All columns, for writing it again.
    record: csv::StringRecord,
}

/// Where the file is: `SOJOURN_SHARED`, else beside the work tree.
///
/// # Errors
/// When it is not there.
pub fn loan_file() -> Result<PathBuf> {
    let shared = std::env::var_os("SOJOURN_SHARED")
        .map_or_else(|| binary::workspace().join("../shared"), PathBuf::from);
    let file = shared.join("data/loan.csv.gz");
    if !file.is_file() {
        bail!(
            "the loan data is not at {}: put the shared folder beside the work tree, or name it with SOJOURN_SHARED",
            file.display()
        );
    }
    Ok(file)
}

/// All rows, in the order of the file.
///
/// # Errors
/// When the file is absent or has other columns.
pub fn loan() -> Result<(csv::StringRecord, Vec<Row>)> {
    let file = loan_file()?;
    let mut reader = csv::Reader::from_reader(GzDecoder::new(File::open(&file)?));
    let header = reader.headers()?.clone();
    let column = |name: &str| {
        header
            .iter()
            .position(|h| h == name)
            .with_context(|| format!("{} has no column {name}", file.display()))
    };
    let places = [
        column("event_id")?,
        column("time")?,
        column("application_id")?,
        column("activity")?,
    ];
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record?;
        let cell = |place: usize| record.get(place).unwrap_or_default().to_owned();
        let [event, time, application, activity] = places.map(cell);
        rows.push(Row {
            event,
            time,
            application,
            activity,
            record,
        });
    }
    Ok((header, rows))
}

/// The rows of one application in `parts`, whole applications: always the same ones.
///
/// # Errors
/// As [`loan`].
pub fn part_of_loan(parts: u64) -> Result<(csv::StringRecord, Vec<Row>)> {
    let (header, mut rows) = loan()?;
    rows.retain(|row| spread(&row.application).is_multiple_of(parts));
    Ok((header, rows))
}

/// A number that says nothing of the text and is the same on every machine (FNV-1a).
fn spread(text: &str) -> u64 {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(text.as_bytes());
    // the low bits of FNV follow the last letter alone
    hash.finish() >> 17
}

/// Writes rows as a CSV file that `signal import` reads.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, header: &csv::StringRecord, rows: &[Row]) -> Result<()> {
    let mut writer = csv::Writer::from_path(path)?;
    writer.write_record(header)?;
    for row in rows {
        writer.write_record(&row.record)?;
    }
    writer.flush()?;
    Ok(())
}

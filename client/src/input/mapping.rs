//! Which column becomes which part of a signal. Knows no file.

use super::RowError;
use crate::signal::Identifier;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use std::path::Path;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma separated values with a header line.
    Csv,
    /// JSON Lines, each a CloudEvent 1.0 in structured form.
    Cloudevents,
}

/// A mapping as it stands in a TOML file; every key is optional.
///
/// ```
/// let file: sojourn_client::input::MappingFile = toml::from_str(r#"
///     id = "event_id"
///     time = "time"
///     source = "bank"
///     type = "activity"
///     type_prefix = "bank."
///     customer = ["application_id=application_id"]
/// "#)?;
/// let mapping = sojourn_client::input::Mapping::from_file(file)?;
/// assert_eq!(mapping.prefix, "bank.");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappingFile {
    /// `csv` or `cloudevents`; else by the file's name.
    pub format: Option<Format>,
    /// The column of the signal's id.
    pub id: Option<String>,
    /// The column of its time.
    pub time: Option<String>,
    /// The time zone of times without an offset: `Europe/Amsterdam`.
    pub time_zone: Option<String>,
    /// The source of all signals.
    pub source: Option<String>,
    /// The column of the type.
    pub r#type: Option<String>,
    /// Put before the column's text.
    pub type_prefix: Option<String>,
    /// The type of all signals.
    pub type_const: Option<String>,
    /// `NAME=COLUMN`, the customer key first.
    #[serde(default)]
    pub customer: Vec<String>,
    /// The columns that become data, as text; all other columns unless told.
    pub data: Option<Vec<String>>,
    /// The columns that become data and hold JSON.
    #[serde(default)]
    pub data_json: Vec<String>,
    /// The columns that become attributes of the customer, as text.
    #[serde(default)]
    pub attributes: Vec<String>,
}

/// Which column becomes which part of a signal, checked.
#[derive(Clone, Debug, Default)]
pub struct Mapping {
    /// What the file holds; `None`: by its name.
    pub format: Option<Format>,
    /// The column of the id; `None`: an id made of the row's number and content.
    pub id: Option<String>,
    /// The column of the time; `None`: the signals happen when they arrive.
    pub time: Option<String>,
    /// The zone of times without an offset.
    pub zone: Option<TimeZone>,
    /// The source of all signals; `None`: `import` for CSV, the event's own for CloudEvents.
    pub source: Option<String>,
    /// The column of the type.
    pub kind: Option<String>,
    /// Put before it.
    pub prefix: String,
    /// The type of all signals.
    pub constant: Option<String>,
    /// Identifier name and column (or JSON path), the customer key first.
    pub customer: Vec<Identifier>,
    /// The columns that become data; `None`: all others.
    pub data: Option<Vec<String>>,
    /// The columns that hold JSON.
    pub data_json: Vec<String>,
    /// The columns that become attributes.
    pub attributes: Vec<String>,
}

impl Mapping {
    /// Checks what a file (or flags) says.
    ///
    /// # Errors
    /// Naming the key, what was found and what is expected.
    pub fn from_file(file: MappingFile) -> Result<Mapping, String> {
        if file.r#type.is_some() && file.type_const.is_some() {
            return Err("type and type-const exclude one another: a column gives the type, or all rows have the same".to_owned());
        }
        if file.type_prefix.is_some() && file.type_const.is_some() {
            return Err("type-prefix goes with type, not with type-const".to_owned());
        }
        let zone = file
            .time_zone
            .map(|name| {
                TimeZone::get(&name).map_err(|e| format!("time-zone {name:?} is not known: {e}"))
            })
            .transpose()?;
        let customer = file
            .customer
            .iter()
            .map(|text| {
                text.parse::<Identifier>().map_err(|_| {
                    format!("customer {text:?} is not NAME=COLUMN, for example application_id=application_id")
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Mapping {
            format: file.format,
            id: file.id,
            time: file.time,
            zone,
            source: file.source,
            kind: file.r#type,
            prefix: file.type_prefix.unwrap_or_default(),
            constant: file.type_const,
            customer,
            data: file.data,
            data_json: file.data_json,
            attributes: file.attributes,
        })
    }

    /// What this file holds.
    pub(super) fn format_of(&self, path: &Path) -> Result<Format, String> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        let name = path
            .file_name()
            .map(|n| n.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, ending)| ending) {
            Some("csv") => Ok(Format::Csv),
            Some("jsonl" | "ndjson") => Ok(Format::Cloudevents),
            _ => Err(format!(
                "{}: the name does not say what it holds; add --format csv or --format cloudevents",
                path.display()
            )),
        }
    }

    /// Reads a time as the mapping says.
    pub(super) fn time(&self, column: &str, text: &str) -> Result<Timestamp, RowError> {
        let wrong = match text.parse::<Timestamp>() {
            Ok(time) => return Ok(time),
            Err(wrong) => wrong,
        };
        let Ok(local) = text.parse::<DateTime>() else {
            return Err(RowError::new(
                column,
                format!(
                    "{text:?} is no time, expected one such as 2011-10-01T00:38:44.546+02:00 ({wrong})"
                ),
            ));
        };
        match &self.zone {
            Some(zone) => instant(local, zone)
                .map_err(|e| RowError::new(column, format!("{text:?} is out of range: {e}"))),
            None => Err(RowError::new(
                column,
                format!(
                    "{text:?} has no offset; add one (…+02:00), or say --time-zone Europe/Amsterdam"
                ),
            )),
        }
    }

    /// The mapping in one line, to recognise it again.
    pub fn fingerprint(&self) -> String {
        use sha2::Digest as _;
        let text = format!(
            "{:?}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}|{:?}",
            self.format,
            self.id,
            self.time,
            self.zone.as_ref().and_then(|z| z.iana_name()),
            self.source,
            self.kind,
            self.prefix,
            self.constant,
            self.customer,
            self.data,
            self.data_json,
            self.attributes
        );
        hex::encode(&sha2::Sha256::digest(text.as_bytes())[..8])
    }
}

/// The instant of a local time: where clocks skip it, the next valid instant; where it comes twice, the first. As in a
/// journey.
fn instant(local: DateTime, zone: &TimeZone) -> Result<Timestamp, jiff::Error> {
    let found = zone.to_ambiguous_timestamp(local);
    match found.offset() {
        AmbiguousOffset::Gap { after, .. } => {
            // read with the later offset it lies before the change, which is the next instant
            let before = after.to_timestamp(local)?;
            let change = zone.following(before).next();
            Ok(change.map_or(before, |change| change.timestamp()))
        }
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => found.earlier(),
    }
}

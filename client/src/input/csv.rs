//! Rows of a CSV file. The header line names the columns; the mapping says what becomes of them.

use super::mapping::Mapping;
use super::{OpenError, Row, RowError};
use crate::signal::Signal;
use sha2::Digest as _;
use std::io::BufRead;

/// The source of rows whose mapping names none.
const SOURCE: &str = "import";

pub(super) struct CsvRows {
    reader: csv::Reader<Box<dyn BufRead + Send>>,
    record: csv::ByteRecord,
    mapping: Mapping,
    columns: Columns,
    width: usize,
    number: u64,
    /// By how much the reader's line numbers lag behind.
    late: u64,
}

/// The mapping with numbers for names.
struct Columns {
    names: Vec<String>,
    id: Option<usize>,
    time: Option<usize>,
    kind: Option<usize>,
    customer: Vec<usize>,
    data: Vec<Field>,
    attributes: Vec<Field>,
}

struct Field {
    column: usize,
    /// `"name":`, as it is written into the data.
    key: String,
    json: bool,
}

impl CsvRows {
    pub fn new(
        mut reader: Box<dyn BufRead + Send>,
        mapping: &Mapping,
    ) -> Result<CsvRows, OpenError> {
        let unreadable = |e: &dyn std::fmt::Display| {
            OpenError::File(format!("the header line cannot be read: {e}"))
        };
        // the reader ends a row at the carriage return and counts the line at the line feed, which it meets with the next
        let start = reader.fill_buf().map_err(|e| unreadable(&e))?;
        let feed = start.iter().position(|b| *b == b'\n');
        let late = feed.is_some_and(|at| at > 0 && start[at - 1] == b'\r');
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(reader);
        let header = reader.byte_headers().map_err(|e| unreadable(&e))?;
        if header.is_empty() {
            return Err(OpenError::File(
                "the file is empty, expected a header line with the names of the columns"
                    .to_owned(),
            ));
        }
        let mut names = Vec::with_capacity(header.len());
        for (index, name) in header.iter().enumerate() {
            let name = std::str::from_utf8(name).map_err(|_| {
                OpenError::File(format!(
                    "the name of column {} is not utf-8; save the file as utf-8",
                    index + 1
                ))
            })?;
            names.push(name.trim().to_owned());
        }
        let columns = Columns::new(names, mapping).map_err(OpenError::Mapping)?;
        Ok(CsvRows {
            width: columns.names.len(),
            reader,
            record: csv::ByteRecord::new(),
            mapping: mapping.clone(),
            columns,
            number: 0,
            late: u64::from(late),
        })
    }

    pub fn skip_row(&mut self) -> Result<bool, String> {
        let more = self
            .reader
            .read_byte_record(&mut self.record)
            .map_err(|e| format!("after row {}: cannot read on: {e}", self.number))?;
        if more {
            self.number += 1;
        }
        Ok(more)
    }

    pub fn next_row(&mut self) -> Result<Option<Row>, String> {
        if !self.skip_row()? {
            return Ok(None);
        }
        let line = self.record.position().map_or(0, csv::Position::line) + self.late;
        Ok(Some(Row {
            number: self.number,
            line,
            signal: self.signal(),
        }))
    }

    fn signal(&self) -> Result<Signal, RowError> {
        if self.record.len() != self.width {
            return Err(RowError::new(
                "",
                format!(
                    "the row has {} columns, expected {} as in the header",
                    self.record.len(),
                    self.width
                ),
            ));
        }
        let id = match self.columns.id {
            Some(column) => self.filled(column)?.to_owned(),
            None => self.made_up_id(),
        };
        let kind = match (&self.mapping.constant, self.columns.kind) {
            (Some(constant), _) => constant.clone(),
            (None, Some(column)) => format!("{}{}", self.mapping.prefix, self.filled(column)?),
            // `Columns::new` refuses a mapping without either
            (None, None) => String::new(),
        };
        let mut signal =
            Signal::with_id(kind, id).source(self.mapping.source.as_deref().unwrap_or(SOURCE));
        for (identifier, column) in self.mapping.customer.iter().zip(&self.columns.customer) {
            signal = signal.customer(identifier.name.as_str(), self.filled(*column)?);
        }
        if let Some(column) = self.columns.time {
            signal = signal.time(
                self.mapping
                    .time(&self.columns.names[column], self.filled(column)?)?,
            );
        }
        if let Some(data) = self.object(&self.columns.data)? {
            signal = signal.data_bytes(data);
        }
        if let Some(attributes) = self.object(&self.columns.attributes)? {
            signal.wire.attributes = attributes.into();
        }
        Ok(signal)
    }

    fn text(&self, column: usize) -> Result<&str, RowError> {
        std::str::from_utf8(&self.record[column]).map_err(|_| {
            RowError::new(
                &self.columns.names[column],
                "the text is not utf-8; save the file as utf-8",
            )
        })
    }

    fn filled(&self, column: usize) -> Result<&str, RowError> {
        let text = self.text(column)?.trim();
        if text.is_empty() {
            return Err(RowError::new(
                &self.columns.names[column],
                "it is empty, expected a value",
            ));
        }
        Ok(text)
    }

    /// The object of these columns; a column without text is left out, for nothing is known of it.
    fn object(&self, fields: &[Field]) -> Result<Option<Vec<u8>>, RowError> {
        let mut json: Vec<u8> = Vec::new();
        for field in fields {
            let text = self.text(field.column)?;
            if text.is_empty() {
                continue;
            }
            json.push(if json.is_empty() { b'{' } else { b',' });
            json.extend_from_slice(field.key.as_bytes());
            if field.json {
                let name = &self.columns.names[field.column];
                let value: serde_json::Value = serde_json::from_str(text).map_err(|e| {
                    RowError::new(name, format!("{} is not json: {e}", shortened(text)))
                })?;
                json.extend_from_slice(value.to_string().as_bytes());
            } else {
                json.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
            }
        }
        if json.is_empty() {
            return Ok(None);
        }
        json.push(b'}');
        Ok(Some(json))
    }

    /// The same row of the same file gets the same id, whenever it is read.
    fn made_up_id(&self) -> String {
        let mut hash = sha2::Sha256::new();
        hash.update(self.number.to_be_bytes());
        for field in &self.record {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        format!("row-{}-{}", self.number, hex::encode(&hash.finalize()[..8]))
    }
}

impl Columns {
    fn new(names: Vec<String>, mapping: &Mapping) -> Result<Columns, String> {
        let find = |key: &str, name: &str| {
            names.iter().position(|n| n == name).ok_or_else(|| {
                format!(
                    "--{key} names the column {name:?}, which is not there; the columns are {}",
                    names.join(", ")
                )
            })
        };
        let one =
            |key: &str, name: &Option<String>| name.as_ref().map(|n| find(key, n)).transpose();
        let id = one("id", &mapping.id)?;
        let time = one("time", &mapping.time)?;
        let kind = one("type", &mapping.kind)?;
        if kind.is_none() && mapping.constant.is_none() {
            return Err(format!(
                "nothing says what type the signals have; add --type COLUMN or --type-const TYPE (the columns are {})",
                names.join(", ")
            ));
        }
        if mapping.customer.is_empty() {
            return Err(format!(
                "nothing says who the customer is; add --customer NAME=COLUMN (the columns are {})",
                names.join(", ")
            ));
        }
        let customer = mapping
            .customer
            .iter()
            .map(|i| find("customer", &i.value))
            .collect::<Result<Vec<_>, _>>()?;
        let attribute_columns = mapping
            .attributes
            .iter()
            .map(|n| find("attributes", n))
            .collect::<Result<Vec<_>, _>>()?;
        let json_columns = mapping
            .data_json
            .iter()
            .map(|n| find("data-json", n))
            .collect::<Result<Vec<_>, _>>()?;
        let text_columns = match &mapping.data {
            Some(listed) => listed
                .iter()
                .map(|n| find("data", n))
                .collect::<Result<Vec<_>, _>>()?,
            None => (0..names.len())
                .filter(|c| {
                    id != Some(*c)
                        && time != Some(*c)
                        && kind != Some(*c)
                        && !customer.contains(c)
                        && !attribute_columns.contains(c)
                        && !json_columns.contains(c)
                })
                .collect(),
        };
        let field = |column: usize, json: bool| Field {
            column,
            key: format!("{}:", serde_json::Value::from(names[column].as_str())),
            json,
        };
        let mut data: Vec<Field> = text_columns
            .iter()
            .filter(|c| !json_columns.contains(c))
            .map(|c| field(*c, false))
            .chain(json_columns.iter().map(|c| field(*c, true)))
            .collect();
        data.sort_by_key(|f| f.column);
        let attributes = attribute_columns.iter().map(|c| field(*c, false)).collect();
        Ok(Columns {
            id,
            time,
            kind,
            customer,
            data,
            attributes,
            names,
        })
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(40).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
